//! What producers send to a stream.

use chrono::NaiveDate;

use crate::{
    clock::Timestamp,
    config::{
        parse_timestamp,
        push::{Feed, Idempotency, Push, PushAuth},
        read::values::size,
        webhook::{Scheme, Webhook},
    },
    yaml::{
        fields::{Fields, Value},
        section::{
            Section,
            Takes::{self, Choice, Integer, Size},
            key,
        },
    },
};

/// Most records of one request.
const RECORDS_MAX: u64 = 10_000_000;

/// Largest body that one request carries.
const BYTES_MAX: u64 = 1 << 30;

/// Keys that say how an API is asked: without a request they mean nothing.
const OF_PULL: [&str; 8] = [
    "paginate",
    "job",
    "files",
    "slices",
    "incremental",
    "complete",
    "schedule",
    "reconcile",
];

/// `push`
pub(super) static PUSH: Section = Section::new(
    "push",
    "push",
    "How the stream takes what producers send to `/v1/streams/SOURCE/STREAM`, under `landfall serve`. An empty map takes \
     it with what holds by default.",
    &[
        key(
            "auth",
            Choice(&[
                ("token", "it does, and so do all other requests"),
                ("none", "its signature is enough; only with a `webhook` whose scheme signs"),
            ]),
        )
        .default("token")
        .doc("Whether a request to the `webhook` of the stream needs the token of a producer too. With `webhook` and without `push` it does not.")
        .example("none"),
        key(
            "idempotency",
            Choice(&[
                ("optional", "an `Idempotency-Key` counts where there is one"),
                ("required", "a request without an `Idempotency-Key` is refused"),
            ]),
        )
        .default("optional")
        .doc("Whether a request must have an `Idempotency-Key`, by which it may be repeated.")
        .example("required"),
        key("records_max", Integer(1, RECORDS_MAX))
            .default("10000")
            .doc("Most records of one request.")
            .example("500"),
        key("bytes_max", Size)
            .default("16MiB")
            .doc("Largest body of a request after decoding; at most 1GiB.")
            .example("4MiB"),
        key("record_bytes_max", Size)
            .default("1MiB")
            .doc("Largest record; at most `bytes_max`.")
            .example("64KiB"),
        key("deprecated", Takes::Text)
            .doc("From when on producers should use something else: a moment or a date in UTC, in the header `Deprecation` (RFC 9745).")
            .example("2026-12-01"),
        key("sunset", Takes::Text)
            .doc(
                "From when on nothing is taken any more and the answer is 410: a moment or a date in UTC, in the header \
                 `Sunset` (RFC 8594). Not before `deprecated`.",
            )
            .example("2027-06-30T12:00:00Z"),
        key("delivery", Takes::Text)
            .doc("What the catalog and the documentation say about delivery, if it differs from what holds for every stream.")
            .example("At least once, in any order; settled by five in the morning."),
    ],
)
.example("{ records_max: 500 }");

/// Reads `push`.
pub(super) fn push(value: Value<'_>) -> Option<Push> {
    let fields = value.fields(&PUSH)?;
    let usual = Push::DEFAULT;
    let keys = [Idempotency::Optional, Idempotency::Required].map(|key| (key.as_str(), key));
    let bytes = |key, most: u64, usual: u64| {
        let given = fields.optional(key, |value| size(value, 1..=most));
        given.unwrap_or(usual)
    };
    let bytes_max = bytes("bytes_max", BYTES_MAX, usual.bytes_max);
    let ways = [("token", PushAuth::Token), ("none", PushAuth::None)];
    let push = Push {
        auth: fields
            .optional("auth", |value| value.choice(&ways, &[]))
            .unwrap_or(usual.auth),
        idempotency: fields
            .optional("idempotency", |value| value.choice(&keys, &[]))
            .unwrap_or(usual.idempotency),
        records_max: fields
            .optional("records_max", |value| value.integer(1..=RECORDS_MAX))
            .unwrap_or(usual.records_max),
        bytes_max,
        record_bytes_max: bytes(
            "record_bytes_max",
            bytes_max,
            usual.record_bytes_max.min(bytes_max),
        ),
        deprecated: fields.optional("deprecated", moment),
        sunset: fields.optional("sunset", moment),
        delivery: fields.optional("delivery", Value::text).map(str::to_owned),
    };
    if push
        .deprecated
        .zip(push.sunset)
        .is_some_and(|(deprecated, sunset)| sunset < deprecated)
    {
        let hint = "deprecated comes first: it is the time that producers have".to_owned();
        return fields.value("sunset")?.refuse("is before deprecated", Some(hint));
    }
    Some(push)
}

/// Where the records come from. A stream that is only pushed has nothing that says how an API is asked.
pub(super) fn feed(fields: &Fields<'_>, webhook: Option<&Webhook>) -> Option<Feed> {
    let pulled = fields.value("request").is_some();
    let signed = webhook.is_some_and(|webhook| webhook.scheme != Scheme::None);
    let push = match (fields.value("push"), fields.value("webhook")) {
        (None, None) => return Some(Feed::Pull),
        (None, Some(_)) => Some(Push {
            auth: if signed { PushAuth::None } else { PushAuth::Token },
            ..Push::DEFAULT
        }),
        (Some(value), hook) => {
            let push = push(value);
            // Of a webhook that could not be read nothing follows.
            let unsigned = !signed && (hook.is_none() || webhook.is_some());
            if unsigned && push.as_ref().is_some_and(|push| push.auth == PushAuth::None) {
                let hint = "add a webhook with a scheme that signs, or leave auth out".to_owned();
                return value.refuse("without a token and a signature anyone could send", Some(hint));
            }
            push
        }
    };
    for value in OF_PULL
        .iter()
        .filter(|_| !pulled)
        .filter_map(|key| fields.value(key))
    {
        let message = format!("{}: there is no API to ask", value.key);
        let hint = "remove it, or add a request to the stream".to_owned();
        value.problems.add(value.key_place, message, Some(hint));
    }
    push.map(if pulled { Feed::Both } else { Feed::Push })
}

/// A moment by RFC 3339, or a date, which begins at midnight UTC.
pub(super) fn moment(value: Value<'_>) -> Option<Timestamp> {
    let text = value.text()?;
    let date = || {
        let date: NaiveDate = text.parse().ok().filter(|_| text.len() == 10)?;
        Some(date.and_hms_opt(0, 0, 0)?.and_utc())
    };
    match parse_timestamp(text).ok().or_else(date) {
        Some(moment) => Some(moment),
        None => {
            let hint = "write 2027-06-30 or 2027-06-30T12:00:00Z".to_owned();
            value.refuse("neither a date nor a moment", Some(hint))
        }
    }
}
