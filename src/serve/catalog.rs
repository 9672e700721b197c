//! What there is to be found: streams with their limits and promises, and the way to them.

use std::sync::Arc;

use axum::{
    http::{
        HeaderName, StatusCode,
        header::{AUTHORIZATION, CACHE_CONTROL, LINK, VARY},
    },
    response::Response,
};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use url::Url;

use crate::{
    clock::Timestamp,
    config::{
        Stream,
        producers::Scope,
        push::{Push, PushAuth},
    },
    receive::producer::{Caller, limit::Who},
    serve::{
        answer::{json as answer, media},
        app::App,
        body::coding,
        call::Call,
        offer,
        problem::{self, Problem, code::Code},
        receipts::{reader, sees},
        schemas,
    },
};

impl App {
    /// Has every answer about `stream` say that it is going to end, if it is.
    ///
    /// # Errors
    /// 410 if it has ended.
    pub(crate) fn still_open(&self, call: &mut Call, stream: &Stream, push: &Push) -> Result<(), Problem> {
        let page = match &push.migration {
            Some(url) => url.as_str().to_owned(),
            None => href(self.base_path(), stream),
        };
        if let Some(since) = push.deprecated {
            // RFC 9745: a date of structured fields.
            call.tell(
                HeaderName::from_static("deprecation"),
                &format!("@{}", since.timestamp()),
            );
            call.tell(LINK, &format!("<{page}>; rel=\"deprecation\""));
        }
        let Some(sunset) = push.sunset else {
            return Ok(());
        };
        call.tell(
            HeaderName::from_static("sunset"),
            &httpdate::fmt_http_date(sunset.into()),
        );
        call.tell(LINK, &format!("<{page}>; rel=\"sunset\""));
        if sunset > self.clock.now() {
            return Ok(());
        }
        Err(Problem::new(
            Code::StreamGone,
            "the stream was withdrawn at the moment that Sunset says",
        ))
    }

    /// The problem of a stream that is not there, with the way to those that are.
    pub(crate) fn stream_not_found(&self, call: &mut Call, detail: &'static str) -> Problem {
        self.tell_catalog(call);
        Problem::new(Code::StreamNotFound, detail)
    }

    /// Has the answer lead to the catalog (RFC 9727, section 3).
    pub(crate) fn tell_catalog(&self, call: &mut Call) {
        let link = format!(
            "<{}/.well-known/api-catalog>; rel=\"api-catalog\"",
            self.base_path()
        );
        call.tell(LINK, &link);
    }
}

/// What is shown to whoever asks, also without saying who it is.
pub(crate) struct Shown<'a> {
    /// Who asks, if that is known and it may read.
    pub(crate) caller: Option<Caller>,
    /// The streams it may see: all where nobody is asked who it is, and otherwise none for a stranger.
    pub(crate) streams: Vec<(&'a Stream, &'a Push)>,
}

/// What is shown to whoever sends `call`, on a page that anybody may ask for.
///
/// # Errors
/// 401 if it says who it is and is not believed, 429 if it asks too often.
pub(crate) async fn shown<'a>(app: &'a Arc<App>, call: &mut Call) -> Result<Shown<'a>, Problem> {
    // One answer for one caller is not to be given to another.
    call.tell(CACHE_CONTROL, "private, no-cache");
    call.tell(VARY, "Authorization");
    let is_named = call.headers.contains_key(AUTHORIZATION)
        || call.peer.as_ref().is_some_and(|peer| peer.identity.is_some());
    let mut shown = Shown {
        caller: None,
        streams: Vec::new(),
    };
    if is_named || app.is_open {
        let caller = app.authenticate(call).await?;
        if let Some(caller) = &caller {
            app.admit(call, Who::Producer(&caller.producer.name), None, 0)?;
            if !caller.scopes.has(Scope::Read) {
                return Ok(shown);
            }
            app.may(call, Some(caller), Scope::Read, None)?;
        }
        let streams = app.all_pushed();
        let streams = streams.filter(|(stream, _)| sees(caller.as_ref(), &stream.name));
        shown.streams = streams.collect();
        shown.caller = caller;
    }
    Ok(shown)
}

/// The catalog of this API (RFC 9727): a linkset (RFC 9264).
pub(crate) fn linkset<'a>(app: &'a Arc<App>, call: &'a mut Call) -> BoxFuture<'a, Result<Response, Problem>> {
    Box::pin(async move {
        let base = app.base_url();
        let shown = shown(app, call).await?;
        let items = ["streams", "receipts"].map(|name| format!("{base}/v1/{name}"));
        let streams = shown.streams.iter().map(|(stream, _)| href(base, stream));
        let items = items.into_iter().chain(streams);
        let json = |href: String| json!({ "href": href, "type": "application/json" });
        let document = json!({
            "linkset": [{
                "anchor": format!("{base}/v1/"),
                "item": items.map(json).collect::<Vec<_>>(),
                "service-desc": (["openapi", "asyncapi"].map(|name| json(format!("{base}/{name}.json")))),
                "service-doc": [{ "href": format!("{base}{}", problem::PAGE), "type": "text/html" }],
            }]
        });
        media(
            StatusCode::OK,
            "application/linkset+json; profile=\"https://www.rfc-editor.org/info/rfc9727\"",
            &document,
        )
    })
}

/// Every stream that the caller may see.
pub(crate) fn streams<'a>(app: &'a Arc<App>, call: &'a mut Call) -> BoxFuture<'a, Result<Response, Problem>> {
    Box::pin(async move {
        let caller = reader(app, call).await?;
        let seen = app
            .all_pushed()
            .filter(|(stream, _)| sees(caller.as_ref(), &stream.name));
        let mut streams = Vec::new();
        for (stream, push) in seen {
            streams.push(describe(app, caller.as_ref(), stream, push).await);
        }
        answer(StatusCode::OK, &json!({ "streams": streams }))
    })
}

/// One stream.
pub(crate) fn stream<'a>(app: &'a Arc<App>, call: &'a mut Call) -> BoxFuture<'a, Result<Response, Problem>> {
    Box::pin(async move {
        let (caller, stream, push) = asked_about(app, call).await?;
        answer(
            StatusCode::OK,
            &describe(app, caller.as_ref(), stream, push).await,
        )
    })
}

/// Who asks, and the stream that the path names, if that may be told.
///
/// # Errors
/// 401, 403, 404.
pub(crate) async fn asked_about<'a>(
    app: &'a Arc<App>,
    call: &mut Call,
) -> Result<(Option<Caller>, &'a Stream, &'a Push), Problem> {
    let caller = reader(app, call).await?;
    let Some(name) = call.stream() else {
        return Err(app.stream_not_found(call, "no stream has such a name"));
    };
    app.may(call, caller.as_ref(), Scope::Read, Some(&name))?;
    let Some((stream, push)) = app.pushed(&name) else {
        return Err(app.stream_not_found(call, "there is no such stream"));
    };
    // A stream that has ended is still told about.
    let _ = app.still_open(call, stream, push);
    Ok((caller, stream, push))
}

/// Where in its life a stream is at `now`, in the words of its contracts.
fn phase(push: &Push, now: Timestamp) -> &'static str {
    let has_come = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
    match (has_come(push.sunset), has_come(push.deprecated)) {
        (true, _) => "sunset",
        (false, true) => "deprecated",
        (false, false) => "active",
    }
}

fn href(base: &str, stream: &Stream) -> String {
    format!("{base}/v1/streams/{}/{}", stream.name.source, stream.name.stream)
}

/// Everything that whoever sends to a stream, as `caller`, needs to know.
pub(crate) async fn describe(app: &App, caller: Option<&Caller>, stream: &Stream, push: &Push) -> Value {
    let base = app.base_url();
    let path = format!("{}/{}", stream.name.source, stream.name.stream);
    let records_href = format!("{base}/v1/streams/{path}/records");
    let records = json!({
        "href": records_href,
        "auth": if app.is_open { "none" } else { "bearer token or client certificate" },
        "content_types": ["application/json", "application/x-ndjson"],
        "content_encodings": coding::ACCEPTED,
        "modes": ["partial", "atomic"],
        "idempotency_key": push.idempotency.as_str(),
    });
    let webhook = stream.webhook.as_ref().map(|webhook| {
        json!({
            "href": format!("{base}/v1/webhooks/{path}"),
            "scheme": webhook.scheme.as_str(),
            "auth": match push.auth {
                PushAuth::None => "signature",
                PushAuth::Token => "signature and bearer token or client certificate",
            },
        })
    });
    let moment = |at: Timestamp| at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    json!({
        "stream": stream.name.to_string(),
        "href": format!("{base}/v1/streams/{path}"),
        "documentation": format!("{base}{}#{}", problem::PAGE, stream.name),
        "status": phase(push, app.clock.now()),
        "contracts": format!("{base}/v1/streams/{path}/contracts"),
        "quarantine": format!("{base}/v1/streams/{path}/quarantine"),
        "drift": format!("{base}/v1/streams/{path}/drift"),
        "records": records,
        "contract": schemas::contract_of(app, stream, push).await,
        "webhook": webhook,
        "limits": offer::limits(app, push),
        "rate": offer::rate(app, caller, stream),
        "timeouts": offer::timeouts(app, push),
        "recommended": offer::recommended(app, caller, stream, push),
        "delivery": offer::delivery(app, stream, push),
        "examples": offer::examples(&records_href, push),
        "deprecated": push.deprecated.map(moment),
        "sunset": push.sunset.map(moment),
        "migration": push.migration.as_ref().map(Url::as_str),
    })
}
