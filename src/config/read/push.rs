//! What producers send to a stream.

use chrono::NaiveDate;

use crate::{
    clock::Timestamp,
    config::{
        parse_timestamp,
        push::{Feed, Idempotency, OnViolation, Push, PushAuth},
        read::{source::web_url, values::size},
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
const OF_PULL: [&str; 7] = [
    "paginate",
    "job",
    "files",
    "slices",
    "incremental",
    "complete",
    "reconcile",
];

/// Those of them that mean something to a stream of records that events name.
const OF_HYDRATE: [&str; 2] = ["files", "schedule"];

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
                ("required", "a request without an `Idempotency-Key`, and a webhook without an event id, is refused"),
            ]),
        )
        .default("optional")
        .doc("Whether a request must have an `Idempotency-Key`, by which it may be repeated.")
        .example("required"),
        key(
            "on_violation",
            Choice(&[
                ("accept", "nothing is judged before it is loaded, and the load quarantines what does not fit"),
                ("tag", "they are landed; the answer names them, and so does a tag beside the body in raw"),
                (
                    "reject",
                    "they are not landed, and the answer names them: the others of a batch are kept, none with \
                     `mode=atomic`; a webhook is refused as a whole with 422, which many senders repeat for days and then \
                     stop sending for, so `tag` is mostly better there",
                ),
            ]),
        )
        .default("accept")
        .doc(
            "What happens to records that do not fit the contract of the stream, before they are acknowledged: they are \
             judged as the load will judge them, by the contract as it was at most five seconds ago. As long as there is no \
             contract all are taken. While it cannot be read, `reject` answers 503 and `tag` takes them without a tag. A draft \
             no longer grows by what is rejected: pin it first.",
        )
        .example("reject"),
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
            .doc("Largest record; at most `bytes_max`, which it is for a `webhook` without `push`.")
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
        key("migration", Takes::Url)
            .doc("The page that tells producers what to use instead, in `Link` headers beside `Deprecation` and `Sunset`.")
            .example("https://wiki.shop.example/orders-v2"),
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
    let violations =
        [OnViolation::Accept, OnViolation::Tag, OnViolation::Reject].map(|key| (key.as_str(), key));
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
        on_violation: fields
            .optional("on_violation", |value| value.choice(&violations, &[]))
            .unwrap_or(usual.on_violation),
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
        migration: fields.optional("migration", |value| {
            web_url(value, "whoever reads it gets in by itself")
        }),
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
    let hydrated = fields.value("hydrate").is_some();
    let signed = webhook.is_some_and(|webhook| webhook.scheme != Scheme::None);
    let push = match (fields.value("push"), fields.value("webhook")) {
        // Without a request it is asked for what events name.
        (None, None) => return Some(Feed::Pull),
        (None, Some(_)) => Some(Push {
            auth: if signed { PushAuth::None } else { PushAuth::Token },
            // What an API sends by itself is as large as it is; its records are seldom more than one.
            record_bytes_max: Push::DEFAULT.bytes_max,
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
        .filter(|key| !(pulled || hydrated && OF_HYDRATE.contains(key)))
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
