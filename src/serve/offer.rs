//! What a stream offers those who send to it: how much, how fast, what for, and what is promised for it.

use std::{cmp::min, time::Duration};

use serde_json::{Value, json};

use crate::{
    config::{ScdType, Stream, producers::Rates, push::Push, spool::Ack},
    json::DEPTH_MAX,
    receive::{
        idempotency::Key,
        ledger::Kept,
        producer::{Caller, limit::Who},
        spool::acknowledger::Acknowledger,
    },
    serve::{app::App, check::RESULTS_MAX},
};

/// Records of a batch from which on more gain little: what one sync of the disk costs is spread over all of them.
const BATCH_RECORDS: u64 = 1_000;

/// Bytes of a batch from which on more gain little.
const BATCH_BYTES: u64 = 1 << 20;

/// Requests at the same time from which on one sender gains little: all that come together share a sync.
const BATCHES_AT_ONCE: u32 = 8;

/// What holds for every stream whose settings do not say otherwise.
const DELIVERY: &str = "At least once, in any order within a request to the next; once for a request with an \
                        Idempotency-Key (24 hours) and for a webhook with an event id (7 days). A 2xx is sent after the \
                        body is durable; it is in the lake some seconds later, and in the table after the next load.";

/// One thing that holds for what is sent to a stream.
pub(crate) struct Promise {
    /// Its name, for programs.
    pub(crate) name: &'static str,
    /// What holds.
    pub(crate) says: &'static str,
}

/// What holds for every stream.
pub(crate) const PROMISES: [Promise; 6] = [
    Promise {
        name: "durable_when_acknowledged",
        says: "A 2xx is sent after the bytes are safe: neither a killed process nor a power cut loses them.",
    },
    Promise {
        name: "kept_as_sent",
        says: "Records are kept byte for byte, once the Content-Encoding is undone, and are judged from there, now and later.",
    },
    Promise {
        name: "nothing_kept_when_refused",
        says: "Of a request that is answered 4xx nothing is kept.",
    },
    Promise {
        name: "at_least_once",
        says: "A request without an Idempotency-Key that is sent again is kept again.",
    },
    Promise {
        name: "once_for_an_idempotency_key",
        says: "A request with an Idempotency-Key is kept once in 24 hours, and every repeat of it is answered as the first was.",
    },
    Promise {
        name: "once_for_an_event_id",
        says: "A webhook whose event id and body are known is kept once in 7 days.",
    },
];

/// What holds where rows have keys.
pub(crate) const ONE_ROW_FOR_A_KEY: Promise = Promise {
    name: "one_row_for_a_key",
    says: "However often and in whatever order its records come, the table has one current row for a key: the one that \
           comes last by `sequence_by`.",
};

/// What is promised for `stream`.
pub(crate) fn delivery(app: &App, stream: &Stream, push: &Push) -> Value {
    let keyed = matches!(stream.table.scd_type, ScdType::Upsert | ScdType::History);
    let row = keyed.then_some(&ONE_ROW_FOR_A_KEY);
    let promises = PROMISES.iter().chain(row);
    let ack = match &app.acknowledger {
        Acknowledger::Spool(_) => Ack::Spool,
        Acknowledger::Lake(_) => Ack::Lake,
    };
    json!({
        "semantics": push.delivery.as_deref().unwrap_or(DELIVERY),
        "acknowledged": match ack {
            Ack::Spool => "when it is on a disk of the server",
            Ack::Lake => "when it is in the lake",
        },
        "idempotency_key_seconds": Kept::ANSWERS_FOR.as_secs(),
        "event_id_seconds": Kept::EVENTS_FOR.as_secs(),
        "promises": promises.map(|promise| json!({ "name": promise.name, "says": promise.says })).collect::<Vec<_>>(),
    })
}

/// How large what is sent to a stream may be.
pub(crate) fn limits(app: &App, push: &Push) -> Value {
    let body = app.body_limits(push);
    json!({
        "records_max": push.records_max,
        "bytes_max": body.decoded_bytes_max,
        "encoded_bytes_max": body.wire_bytes_max,
        "expansion_max": body.ratio_max,
        "record_bytes_max": push.record_bytes_max,
        "depth_max": DEPTH_MAX,
        "results_max": RESULTS_MAX,
        "idempotency_key_bytes_max": Key::BYTES_MAX,
        "header_bytes_max": app.serve.limits.header_bytes_max,
    })
}

/// How long the server waits for whoever sends, in seconds.
pub(crate) fn timeouts(app: &App, push: &Push) -> Value {
    let body = app.body_limits(push);
    let seconds = |time: Duration| time.as_secs_f64();
    json!({
        "header_seconds": seconds(app.serve.timeouts.header),
        "body_pause_seconds": seconds(body.grace),
        "body_bytes_per_second_min": body.bytes_per_second_min,
        "request_seconds": seconds(app.serve.timeouts.request),
        "idle_seconds": seconds(app.serve.timeouts.idle),
    })
}

/// How fast `caller`, or whoever signs webhooks, may send to `stream`.
pub(crate) fn rate(app: &App, caller: Option<&Caller>, stream: &Stream) -> Value {
    told(rates(app, caller, stream))
}

/// `rates` as they are told.
pub(crate) fn told(rates: &Rates) -> Value {
    json!({
        "requests": rates.stream_requests(),
        "bytes": rates.stream_bytes(),
        "per_seconds": rates.per.as_secs_f64(),
        "at_once": rates.stream_at_once(),
    })
}

fn rates<'a>(app: &'a App, caller: Option<&Caller>, stream: &Stream) -> &'a Rates {
    let rates = app.limiter.rates(match caller {
        Some(caller) => Who::Producer(&caller.producer.name),
        None => Who::Sender(&stream.name),
    });
    rates.unwrap_or(&Rates::DEFAULT)
}

/// What a sender does well to send at a time. Never more than it may.
pub(crate) fn recommended(app: &App, caller: Option<&Caller>, stream: &Stream, push: &Push) -> Value {
    let rates = rates(app, caller, stream);
    json!({
        "records": min(push.records_max, BATCH_RECORDS),
        "bytes": min(min(push.bytes_max, rates.stream_bytes()), BATCH_BYTES),
        "at_once": min(rates.stream_at_once(), BATCHES_AT_ONCE),
        "content_encoding": "zstd",
        "retry": "Send what was not answered, and what was answered 408, 429 or 5xx, again with the same Idempotency-Key: after \
                  Retry-After if there is one, else after a random time up to 1 s, 2 s, 4 s … 60 s.",
    })
}

/// A request for each form that the stream takes, and what it is answered.
pub(crate) fn examples(records: &str, push: &Push) -> Value {
    let one = json!({ "id": 1, "updated_at": "2026-01-01T00:00:00Z" });
    let two = json!({ "id": 2, "updated_at": "2026-01-01T00:00:00Z" });
    let request = |content_type: &str, count: u64, body: String| {
        json!({
            "method": "POST",
            "href": records,
            "headers": {
                "Content-Type": content_type,
                "Idempotency-Key": format!("\"example-{count}-{}\"", content_type.len()),
            },
            "body": body,
            "answer": { "status": 202, "records": { "accepted": count, "rejected": 0 } },
        })
    };
    let mut examples = vec![request("application/json", 1, one.to_string())];
    if push.records_max > 1 {
        examples.push(request("application/json", 2, json!([one, two]).to_string()));
        examples.push(request("application/x-ndjson", 2, format!("{one}\n{two}\n")));
    }
    Value::Array(examples)
}
