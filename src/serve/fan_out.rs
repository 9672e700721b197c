//! One event to several streams, none of which holds up another.
//!
//! ```text
//! event ─ routes ─┬─ stream ─ ledger ─ spool ─┐
//!                 ├─ stream ─ ledger ─ spool ─┼─ all durable ─► 200, else 5xx and the sender comes again
//!                 └─ refuses ─► endpoint's own ┘
//! ```

use std::sync::Arc;

use axum::{http::StatusCode, response::Response};
use futures::future::join_all;
use serde::Serialize;

use crate::{
    config::{Name, Stream, StreamName, push::Push},
    receive::{Delivery, ReceiptId},
    serve::{
        answer::json,
        app::App,
        aside::aside,
        call::{Call, Received},
        check::within,
        problem::{Fault, Problem, code::Code},
        request_id::RequestId,
        webhook::{self, Taken},
    },
};

/// An event with routes.
pub(crate) struct Routed {
    /// The stream of the endpoint it came to.
    pub(crate) endpoint: StreamName,
    /// Where it goes; not empty, and none twice.
    pub(crate) streams: Vec<StreamName>,
    /// Its id, by which a repeat is known in each stream.
    pub(crate) event_id: Option<String>,
    /// Who sent it, if that was asked.
    pub(crate) producer: Option<Name>,
}

/// What became of it.
#[derive(Serialize)]
struct Answered {
    /// That of the first stream.
    receipt: ReceiptId,
    /// The first stream.
    stream: String,
    /// Whether every stream had it before.
    duplicate: bool,
    /// What became of it in each.
    routes: Vec<Taken>,
    /// Streams it belongs to that do not take it, and why; it is kept in the endpoint's own instead.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    passed_over: Vec<PassedOver>,
}

#[derive(Serialize)]
struct PassedOver {
    stream: String,
    reason: &'static str,
}

/// What became of an event so far.
#[derive(Default)]
struct Outcome {
    taken: Vec<Taken>,
    passed_over: Vec<PassedOver>,
    failed: Vec<(StreamName, Problem)>,
}

/// Keeps `received` in every stream of `routed`, side by side.
///
/// # Errors
/// The first failure by the order of the routes, if it is not durable in one of them: all others are kept all the same, and
/// a repeat of the event adds what is missing.
pub(crate) async fn keep(
    app: &Arc<App>,
    call: &mut Call,
    routed: Routed,
    received: Received,
) -> Result<Response, Problem> {
    let delivery = |stream: &StreamName, call: &Call| {
        let mut delivery = app.delivery(call, stream, routed.producer.clone(), &received, 200);
        delivery.page.facts.event_id.clone_from(&routed.event_id);
        delivery
    };
    let deliveries: Vec<Delivery> = routed
        .streams
        .iter()
        .map(|stream| delivery(stream, call))
        .collect();
    let instead = delivery(&routed.endpoint, call);
    // Held until the last of them is durable, even if the sender hangs up.
    let held = Arc::new((received.hold, call.permit.take()));
    let request_id = call.request_id.clone();
    let works = deliveries.into_iter().map(|delivery| {
        let (request_id, held) = (&request_id, Arc::clone(&held));
        async move {
            let stream = delivery.stream.clone();
            (stream, one(app, request_id, delivery, held).await)
        }
    });
    let mut outcome = Outcome::default();
    for (stream, kept) in join_all(works).await {
        outcome.add(app, &request_id, stream, kept);
    }
    // Of what a stream did not take nothing is lost.
    if !outcome.passed_over.is_empty() && !routed.streams.contains(&routed.endpoint) {
        let kept = one(app, &request_id, instead, held).await;
        outcome.add(app, &request_id, routed.endpoint, kept);
    }
    outcome.answer()
}

/// Keeps `delivery` in its stream, if that takes it.
async fn one<T: Send + 'static>(
    app: &Arc<App>,
    request_id: &RequestId,
    delivery: Delivery,
    held: T,
) -> Result<Taken, Problem> {
    let Some((stream, push)) = app.pushed(&delivery.stream) else {
        return Err(Problem::new(Code::NotFound, "the stream takes nothing"));
    };
    takes(app, stream, push, &delivery).await?;
    webhook::keep(app, request_id, stream, push, delivery, held).await
}

async fn takes(app: &App, stream: &Stream, push: &Push, delivery: &Delivery) -> Result<(), Problem> {
    if push.sunset.is_some_and(|sunset| sunset <= app.clock.now()) {
        return Err(Problem::new(Code::StreamGone, "the stream is withdrawn"));
    }
    let body = delivery.page.body.clone();
    if body.len() as u64 > push.bytes_max {
        return Err(Problem::new(
            Code::BodyTooLarge,
            "the stream takes smaller bodies only",
        ));
    }
    let (stream, push) = (stream.clone(), push.clone());
    aside(body.len(), move || {
        within(&stream.format, &stream.records, &body, &push)
    })
    .await?
}

impl Outcome {
    fn add(&mut self, app: &App, request_id: &RequestId, stream: StreamName, kept: Result<Taken, Problem>) {
        match kept {
            Ok(taken) => self.taken.push(taken),
            // No repeat will change what the stream says of it.
            Err(problem) if problem.status().is_client_error() && problem.code() != Code::Conflict => {
                let reason = problem.code().row().name;
                app.metrics.refused("route");
                tracing::warn!(%stream, reason, %request_id, "event passed over a stream it belongs to");
                self.passed_over.push(PassedOver {
                    stream: stream.to_string(),
                    reason,
                });
            }
            Err(problem) => self.failed.push((stream, problem)),
        }
    }

    fn answer(self) -> Result<Response, Problem> {
        if let Some((_, first)) = self.failed.first() {
            let detail = format!(
                "the event is not durable in {} of its streams: send it again, which adds what is missing",
                self.failed.len()
            );
            let problem = Problem::new(first.code(), detail);
            return Err(self.failed.iter().fold(problem, |problem, (stream, cause)| {
                problem.at(Fault {
                    pointer: stream.to_string(),
                    detail: cause.code().row().title.to_owned(),
                    code: Some(cause.code().row().name.to_owned()),
                })
            }));
        }
        let Some(first) = self.taken.first() else {
            return Err(Problem::new(
                Code::ContractViolation,
                "no stream takes the event, its own neither",
            ));
        };
        let answered = Answered {
            receipt: first.receipt,
            stream: first.stream.clone(),
            duplicate: self.taken.iter().all(|taken| taken.duplicate),
            routes: self.taken,
            passed_over: self.passed_over,
        };
        json(StatusCode::OK, &answered)
    }
}
