//! `POST /v1/webhooks/{source}/{stream}`: what an API sends by itself, believed for its signature.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use futures::future::BoxFuture;
use serde::Serialize;

use crate::{
    clock::Timestamp,
    config::{
        Stream, StreamName,
        producers::Scope,
        push::{Idempotency, Push, PushAuth},
    },
    receive::{
        Delivery, ReceiptId,
        producer::{
            Caller,
            denial::{Denial, Denied, Via},
            limit::Who,
        },
        signature::{event, refusal::Refusal},
    },
    serve::{
        answer::{is_zero, json},
        app::App,
        aside::aside,
        call::Call,
        check::within,
        deliver::{ClaimedEvent, received},
        fan_out::{self, Routed},
        problem::{Problem, code::Code},
        request_id::RequestId,
    },
};

/// What became of an event in one stream.
#[derive(Serialize)]
pub(crate) struct Taken {
    pub(crate) receipt: ReceiptId,
    pub(crate) stream: String,
    pub(crate) duplicate: bool,
    /// Whether the id was known with another body.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    id_reuse: bool,
    /// The version of the contract by which it was judged, or that there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    contract: Option<Option<String>>,
    /// Records of it that do not fit.
    #[serde(skip_serializing_if = "is_zero")]
    tagged: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliveries: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_seen_at: Option<Timestamp>,
}

/// Takes one request.
pub(crate) fn push<'a>(app: &'a Arc<App>, call: &'a mut Call) -> BoxFuture<'a, Result<Response, Problem>> {
    Box::pin(take(app, call))
}

async fn take(app: &Arc<App>, call: &mut Call) -> Result<Response, Problem> {
    let name = call.stream();
    let stream = name.as_ref().and_then(|name| app.pushed(name));
    let caller = match stream {
        Some((_, push)) if push.auth == PushAuth::None => None,
        _ => app.authenticate(call).await?,
    };
    let Some(name) = name else {
        return Err(app.stream_not_found(call, "no stream has such a name"));
    };
    app.may(call, caller.as_ref(), Scope::Ingest, Some(&name))?;
    let Some((stream, push)) = stream.filter(|(stream, _)| stream.webhook.is_some()) else {
        return Err(app.stream_not_found(call, "there is no such stream, or it takes no webhooks"));
    };
    app.still_open(call, stream, push)?;
    let who = match &caller {
        Some(caller) => Who::Producer(&caller.producer.name),
        None => Who::Sender(&name),
    };
    let bytes = call.body_bytes_declared().unwrap_or(push.bytes_max);
    app.admit(call, who, Some(&name), bytes.min(push.bytes_max))?;
    app.has_room()?;
    land(app, call, stream, push, caller.as_ref()).await
}

async fn land(
    app: &Arc<App>,
    call: &mut Call,
    stream: &Stream,
    push: &Push,
    caller: Option<&Caller>,
) -> Result<Response, Problem> {
    let name = &stream.name;
    let Some(verifier) = app.hooks.verifier(name).await? else {
        return Err(app.stream_not_found(call, "the stream takes no webhooks"));
    };
    let limits = app.body_limits(push);
    let wire = call.receive(app, &limits).await?;
    // Over the bytes as they came, before anything of them is unpacked or parsed.
    let (verifying, headers, body) = (Arc::clone(&verifier), call.headers.clone(), wire.bytes().clone());
    let now = app.clock.now();
    let proof = aside(body.len(), move || verifying.verify(&headers, &body, now)).await?;
    let proof = proof.map_err(|refusal| distrusted(app, call, name, &refusal))?;
    if let Some(permit) = &mut call.permit {
        permit.settle(wire.bytes().len() as u64);
    }
    let content = wire.decode(&limits, &app.budget).await?;
    let (headers, body) = (call.headers.clone(), content.bytes.clone());
    let (reading, counted, limited) = (Arc::clone(&verifier), stream.clone(), push.clone());
    let read = aside(body.len(), move || {
        let verified = reading.read(proof, &headers, &body)?;
        let allowed = match verified.handshake {
            Some(_) => Ok(()),
            None => within(&counted.format, &counted.records, &body, &limited),
        };
        Ok((verified, allowed))
    });
    let (verified, allowed) = read
        .await?
        .map_err(|refusal| distrusted(app, call, name, &refusal))?;
    if let Some(answer) = verified.handshake {
        return Ok(handshake(answer));
    }
    allowed?;
    if verified.event_id.is_none() && push.idempotency == Idempotency::Required {
        let detail = "events to this stream have an id, by which they may be sent again (`webhook.event_id`)";
        return Err(Problem::new(Code::IdempotencyKeyMissing, detail));
    }
    let received = received(app, content);
    let producer = caller.map(|caller| caller.producer.name.clone());
    let streams = app.hooks.targets(name, verified.event_type.as_deref());
    if streams != [name.clone()] {
        let routed = Routed {
            endpoint: name.clone(),
            streams,
            event_id: verified.event_id,
            producer,
        };
        return fan_out::keep(app, call, routed, received).await;
    }
    let mut delivery = app.delivery(call, name, producer, &received, 200);
    delivery.page.facts.event_id = verified.event_id;
    let held = (received.hold, call.permit.take());
    let taken = keep(app, &call.request_id, stream, push, delivery, held).await?;
    json(StatusCode::OK, &taken)
}

/// Keeps `delivery` in `stream`, once for its event; `held` is let go when it is durable, even if the sender hangs up.
///
/// # Errors
/// 409 while another delivery of the event is being received, 422 if the contract refuses it, 503 and 507 if it is not kept.
pub(crate) async fn keep<T: Send + 'static>(
    app: &Arc<App>,
    request_id: &RequestId,
    stream: &Stream,
    push: &Push,
    mut delivery: Delivery,
    held: T,
) -> Result<Taken, Problem> {
    let name = &stream.name;
    match app.claim_event(&mut delivery).await? {
        ClaimedEvent::New { claim, is_reuse } => {
            let ruling = app.rule_event(stream, push, &delivery.page.body).await?;
            delivery.page.facts.judged = ruling.judged;
            let keeping = Arc::clone(app).keep_event(delivery, claim);
            let kept = app.works.finish(async move {
                let kept = keeping.await;
                drop(held);
                kept
            });
            let receipt = kept.await?;
            app.metrics.records(name, 1, 0);
            app.metrics.tagged(name, ruling.tagged);
            if is_reuse {
                app.metrics.refused("id_reuse");
                tracing::warn!(stream = %name, %receipt, %request_id, "event id used for another body");
            }
            Ok(Taken {
                receipt,
                stream: name.to_string(),
                duplicate: false,
                id_reuse: is_reuse,
                contract: ruling.standpoint.told().map(|told| told.map(str::to_owned)),
                tagged: ruling.tagged,
                deliveries: None,
                first_seen_at: None,
            })
        }
        ClaimedEvent::Duplicate(duplicate) => {
            app.metrics.repeated(name);
            tracing::info!(
                stream = %name, receipt = %duplicate.receipt, deliveries = duplicate.count, %request_id,
                "event received again"
            );
            Ok(Taken {
                receipt: duplicate.receipt,
                stream: name.to_string(),
                duplicate: true,
                id_reuse: false,
                contract: None,
                tagged: 0,
                deliveries: Some(duplicate.count),
                first_seen_at: Some(duplicate.first_seen_at),
            })
        }
    }
}

/// Every reason is the same 401 to the sender; which one it was is written down.
fn distrusted(app: &App, call: &Call, stream: &StreamName, refusal: &Refusal) -> Problem {
    tracing::warn!(
        %stream, reason = %refusal, class = refusal.class(), request_id = %call.request_id,
        "webhook not believed"
    );
    app.denied(
        call,
        Some(stream),
        &Denied::new(Denial::SignatureInvalid, Via::Signature),
    );
    Problem::new(
        Code::SignatureInvalid,
        "the signature of the request does not hold",
    )
    .with_header(
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static("Signature realm=\"landfall\""),
    )
}

fn handshake(answer: event::Answer) -> Response {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(answer.content_type),
    );
    // The text is the sender's; no browser shall take it for a page of ours.
    headers.insert(
        HeaderName::from_static("x-content-type-options"),
        HeaderValue::from_static("nosniff"),
    );
    response
}
