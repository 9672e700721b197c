//! What there is to be found: streams with their limits and promises, and the way to them.

use std::sync::Arc;

use axum::{
    http::{HeaderName, StatusCode, header::LINK},
    response::Response,
};
use futures::future::BoxFuture;
use serde_json::{Value, json};

use crate::{
    clock::Timestamp,
    config::{
        Stream,
        producers::Scope,
        push::{Push, PushAuth},
        spool::Ack,
    },
    json::DEPTH_MAX,
    receive::{producer::Caller, spool::acknowledger::Acknowledger},
    serve::{
        answer::{json as answer, media},
        app::App,
        body::coding,
        call::Call,
        problem::{Problem, code::Code},
        receipts::{reader, sees},
    },
};

/// What holds for every stream whose settings do not say otherwise.
const DELIVERY: &str = "At least once, in any order within a request to the next; once for a request with an \
                        Idempotency-Key (24 hours) and for a webhook with an event id (7 days). A 2xx is sent after the \
                        body is durable; it is in the lake some seconds later, and in the table after the next load.";

impl App {
    /// Has every answer about `stream` say that it is going to end, if it is.
    ///
    /// # Errors
    /// 410 if it has ended.
    pub(crate) fn still_open(&self, call: &mut Call, stream: &Stream, push: &Push) -> Result<(), Problem> {
        let page = format!(
            "{}/v1/streams/{}/{}",
            self.base_path(),
            stream.name.source,
            stream.name.stream
        );
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

/// The catalog of this API (RFC 9727): a linkset (RFC 9264).
pub(crate) fn linkset<'a>(app: &'a Arc<App>, call: &'a mut Call) -> BoxFuture<'a, Result<Response, Problem>> {
    let _ = call;
    Box::pin(async move {
        let base = base(app);
        let document = json!({
            "linkset": [{
                "anchor": format!("{base}/v1/"),
                "item": [
                    { "href": format!("{base}/v1/streams"), "type": "application/json" },
                    { "href": format!("{base}/v1/receipts"), "type": "application/json" },
                ],
                "service-desc": [{ "href": format!("{base}/openapi.json"), "type": "application/json" }],
                "service-doc": [{ "href": format!("{base}/problems"), "type": "text/plain" }],
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
        let streams: Vec<Value> = seen.map(|(stream, push)| describe(app, stream, push)).collect();
        answer(StatusCode::OK, &json!({ "streams": streams }))
    })
}

/// One stream.
pub(crate) fn stream<'a>(app: &'a Arc<App>, call: &'a mut Call) -> BoxFuture<'a, Result<Response, Problem>> {
    Box::pin(async move {
        let caller: Option<Caller> = reader(app, call).await?;
        let Some(name) = call.stream() else {
            return Err(app.stream_not_found(call, "no stream has such a name"));
        };
        app.may(call, caller.as_ref(), Scope::Read, Some(&name))?;
        let Some((stream, push)) = app.pushed(&name) else {
            return Err(app.stream_not_found(call, "there is no such stream"));
        };
        // A stream that has ended is still told about.
        let _ = app.still_open(call, stream, push);
        answer(StatusCode::OK, &describe(app, stream, push))
    })
}

fn base(app: &App) -> String {
    match &app.serve.public_url {
        Some(url) => url.as_str().trim_end_matches('/').to_owned(),
        None => String::new(),
    }
}

fn describe(app: &App, stream: &Stream, push: &Push) -> Value {
    let base = base(app);
    let path = format!("{}/{}", stream.name.source, stream.name.stream);
    let ack = match &app.acknowledger {
        Acknowledger::Spool(_) => Ack::Spool,
        Acknowledger::Lake(_) => Ack::Lake,
    };
    let records = json!({
        "href": format!("{base}/v1/streams/{path}/records"),
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
        "records": records,
        "webhook": webhook,
        "limits": {
            "records_max": push.records_max,
            "bytes_max": push.bytes_max,
            "record_bytes_max": push.record_bytes_max,
            "depth_max": DEPTH_MAX,
        },
        "delivery": {
            "semantics": push.delivery.as_deref().unwrap_or(DELIVERY),
            "acknowledged": match ack {
                Ack::Spool => "when it is on a disk of the server",
                Ack::Lake => "when it is in the lake",
            },
        },
        "deprecated": push.deprecated.map(moment),
        "sunset": push.sunset.map(moment),
    })
}
