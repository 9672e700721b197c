//! `POST /v1/streams/{source}/{stream}/records`: records of a producer that we agreed with.

use std::sync::Arc;

use axum::{
    http::{HeaderValue, header},
    response::Response,
};
use futures::future::BoxFuture;

use crate::{
    config::{
        producers::Scope,
        push::{Idempotency, Push, PushAuth},
    },
    fields::{pair, parts},
    receive::{idempotency::Key, producer::limit::Who},
    serve::{
        answer::{REPLAYED, accepted, response},
        app::App,
        aside::aside,
        call::{Call, Received},
        channel::{Place, Position, Reserved},
        check::{Checked, Form, check},
        deliver::{Claimed, received},
        problem::{Problem, code::Code},
        ruling::{Asked, Mode, Ruling},
        uploads,
    },
};

/// Takes one request.
pub(crate) fn push<'a>(app: &'a Arc<App>, call: &'a mut Call) -> BoxFuture<'a, Result<Response, Problem>> {
    Box::pin(async move {
        let taken = take(app, call).await;
        taken.map_err(|problem| uploads::lead(app, call.stream(), problem))
    })
}

async fn take(app: &Arc<App>, call: &mut Call) -> Result<Response, Problem> {
    let caller = app.authenticate(call).await?;
    let Some(name) = call.stream() else {
        return Err(app.stream_not_found(call, "no stream has such a name"));
    };
    app.may(call, caller.as_ref(), Scope::Ingest, Some(&name))?;
    let Some((stream, push)) = app.pushed(&name) else {
        return Err(app.stream_not_found(call, "there is no such stream"));
    };
    if caller.is_none() && push.auth == PushAuth::None {
        let detail = "the stream takes signed webhooks alone: no producer is declared";
        return Err(Problem::new(Code::Unauthenticated, detail));
    }
    app.still_open(call, stream, push)?;
    let who = match &caller {
        Some(caller) => Who::Producer(&caller.producer.name),
        None => Who::Sender(&name),
    };
    let bytes = call.body_bytes_declared().unwrap_or(push.bytes_max);
    app.admit(call, who, Some(&name), bytes.min(push.bytes_max))?;
    app.has_room()?;
    let position = Position::of(call)?;
    let key = match &position {
        Some(position) => Some(position.key()),
        None => key(call, push)?,
    };
    let mode = mode(call)?;
    let form = Form::of(call.header("content-type"))
        .map_err(|problem| problem.with_header(header::ACCEPT, HeaderValue::from_static(ACCEPTED)))?;

    let limits = app.body_limits(push);
    let wire = call.receive(app, &limits).await?;
    if let Some(permit) = &mut call.permit {
        permit.settle(wire.bytes().len() as u64);
    }
    let content = wire.decode(&limits, &app.budget).await?;
    let received = received(app, content);
    let checked = check_aside(form, &received.bytes, push).await?;

    let producer = caller.map(|caller| caller.producer.name.clone());
    let mut delivery = app.delivery(call, &name, producer, &received, 202);
    delivery.page.facts.idempotency_key = key.as_ref().map(|key| key.as_str().to_owned());
    // A repeat is answered as before, whatever the contract has become.
    let claimed = match position {
        Some(position) => app.reserve(&mut delivery, position).await?,
        None => match app.claim(&delivery, key.as_ref()).await? {
            Claimed::New(claim) => Reserved::New(Place::Anywhere(claim)),
            Claimed::Before(answer) => Reserved::Before(answer),
        },
    };
    let place = match claimed {
        Reserved::New(place) => place,
        Reserved::Before(answer) => {
            app.metrics.repeated(&name);
            let mut response = response(&answer);
            response
                .headers_mut()
                .insert(REPLAYED, HeaderValue::from_static("true"));
            return Ok(response);
        }
    };
    let Received { bytes, hold, .. } = received;
    // The delivery has them: what is left out of it is nowhere any more.
    drop(bytes);
    let asked = Asked {
        form,
        media: call.header("content-type").unwrap_or_default(),
        mode,
    };
    let ruling = app.rule((stream, push), asked, &checked, delivery).await?;
    let Ruling {
        delivery,
        hold: smaller,
        outcome,
    } = ruling;
    let answer = accepted(delivery.receipt, &name, app.base_path(), &outcome)?;
    let (hold, permit) = (smaller.unwrap_or(hold), call.permit.take());
    let keeping = Arc::clone(app);
    let kept = app.works.finish(async move {
        let kept = match place {
            Place::Anywhere(claim) => keeping.keep(delivery, claim, answer).await,
            Place::InChannel(held) => keeping.keep_in_channel(delivery, *held, answer).await,
        };
        // Memory and place are free again when the body is, not when its sender hangs up.
        drop((hold, permit));
        kept
    });
    let answer = kept.await?;
    app.metrics.records(&name, outcome.accepted, outcome.rejected);
    app.metrics.tagged(&name, outcome.tagged);
    Ok(response(&answer))
}

/// The media types that are taken.
const ACCEPTED: &str = "application/json, application/x-ndjson";

async fn check_aside(form: Form, body: &bytes::Bytes, push: &Push) -> Result<Checked, Problem> {
    let (bytes, body, push) = (body.len(), body.clone(), push.clone());
    aside(bytes, move || check(form, &body, &push)).await?
}

/// The `Idempotency-Key` of a request, if it has one.
///
/// # Errors
/// `idempotency_key_invalid`.
pub(crate) fn idempotency_key(call: &Call) -> Result<Option<Key>, Problem> {
    let values = call.headers.get_all("idempotency-key").iter();
    let key = Key::from_headers(values.map(HeaderValue::as_bytes));
    key.map_err(|fault| Problem::new(Code::IdempotencyKeyInvalid, fault.to_string()))
}

fn key(call: &Call, push: &Push) -> Result<Option<Key>, Problem> {
    let key = idempotency_key(call)?;
    if key.is_none() && push.idempotency == Idempotency::Required {
        let detail = "requests to this stream have an Idempotency-Key header";
        return Err(Problem::new(Code::IdempotencyKeyMissing, detail));
    }
    Ok(key)
}

/// The parameter `mode`, or the preference `handling` (RFC 7240, section 4.4).
fn mode(call: &Call) -> Result<Mode, Problem> {
    match call.query("mode")?.as_deref() {
        Some("partial") => return Ok(Mode::Partial),
        Some("atomic") => return Ok(Mode::Atomic),
        Some(_) => {
            let detail = "the parameter mode is `partial` or `atomic`";
            return Err(Problem::new(Code::InvalidRequest, detail));
        }
        None => {}
    }
    let values = call.headers.get_all("prefer").iter();
    let strict = is_strict(values.filter_map(|value| value.to_str().ok()));
    Ok(if strict { Mode::Atomic } else { Mode::Partial })
}

/// Whether values of `Prefer` ask for strict handling. Of a preference that stands twice the first counts (RFC 7240,
/// section 2).
pub(super) fn is_strict<'a>(values: impl Iterator<Item = &'a str>) -> bool {
    let mut preferences = values.flat_map(|value| parts(value, b','));
    let handling = preferences.find_map(|preference| {
        let (name, value) = pair(parts(preference, b';').next()?)?;
        name.eq_ignore_ascii_case("handling").then_some(value)
    });
    handling.is_some_and(|value| value.eq_ignore_ascii_case("strict"))
}
