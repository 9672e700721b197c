//! Whole records for events that only name them.

use std::{path::Path as FilePath, time::Duration};

use crate::{
    config::{
        Name, Table,
        format::Format,
        hydrate::Hydrate,
        read::{
            format::{RECORDS, records},
            request::{REQUEST, VARIABLES, request},
            slice::{AT_ONCE_MAX, paths},
            values::{duration, expr},
        },
        records::RecordPaths,
        slice::{Parent, ParentRecords, Patience, Slicing},
    },
    json::JsonPath,
    yaml::{
        fields::{Fields, Value},
        section::{
            Section,
            Takes::{self, Either, Expression, Integer, Map, Path},
            key,
        },
    },
};

/// Bounds of a wait between two attempts.
const BACKOFF: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(7 * 24 * 3600);

/// Keys that say how lists are asked for: a stream that only fetches what events name has none.
const OF_LISTS: [&str; 6] = [
    "paginate",
    "job",
    "slices",
    "incremental",
    "complete",
    "reconcile",
];

/// `hydrate`
pub(super) static HYDRATE: Section = Section::new(
    "hydrate",
    "hydrate",
    "Whole records for events that only name them. The events are those of another stream of the source, mostly one with \
     a `webhook`; every `extract` and `run` asks for the records that its new events name and lands the answers in this \
     stream. An event counts as done once its record is landed; of several that name the same record one is asked for. \
     An event that cannot be answered waits and is tried again, in the end it is a dead letter: `landfall gaps` lists \
     those, `--retry-dead-letters` tries them again, `--discard-dead-letters` forgets them. None of them holds the \
     others, up to 1000 of them: then runs fail until one of both is done.",
    &[
        key("from", Takes::Name)
            .required()
            .doc("The stream with the events.")
            .example("orders"),
        key("values", Map(&Path))
            .required()
            .doc("What an event says of its record, by name: `slice.NAME` in the request. An event that lacks one is a dead letter.")
            .example("{ id: $.payment_id }"),
        key("only", Expression)
            .doc("Only events for which this holds, over `parent` (the event) and `config`.")
            .example("parent.type != 'payment.deleted'"),
        key("request", Takes::Section(&REQUEST))
            .required()
            .doc("The request for one record, with the credentials, budget and retries of the source.")
            .example("{ path: '/payments/{{ slice.id }}' }"),
        key("records", Either(&[Path, Takes::Section(&RECORDS)]))
            .default("$")
            .doc("Where the record is in the answer.")
            .example("$.payment"),
        key("at_once", Integer(1, AT_ONCE_MAX as u64))
            .default("4")
            .doc("Records fetched at the same time, within the budget of the credential.")
            .example("16"),
        key("attempts_max", Integer(1, 1000))
            .default("10")
            .doc("Runs that try an event before it is a dead letter. In each the request is repeated as `retry` says.")
            .example("5"),
        key("backoff_start", Takes::Duration)
            .default("30s")
            .doc("The longest wait after the first attempt; doubles with each, and a random part of it is waited.")
            .example("5s"),
        key("backoff_max", Takes::Duration)
            .default("1h")
            .doc("No wait is longer.")
            .example("2h"),
    ],
)
.example("{ from: orders, values: { id: $.payment_id }, request: { path: '/payments/{{ slice.id }}' } }");

/// Reads `hydrate`.
pub(super) fn hydrate(
    value: Value<'_>,
    dir: &FilePath,
    format: Option<&Format>,
    is_alone: bool,
) -> Option<Hydrate> {
    let fields = value.fields(&HYDRATE)?;
    let from = fields.required("from", |value| match Name::new(value.text()?) {
        Ok(name) => Some(name),
        Err(_) => value.refuse(
            "not the name of a stream",
            Some("write its name without that of the source".to_owned()),
        ),
    });
    let values = fields.required("values", |value| match paths(value)? {
        values if values.is_empty() => value.refuse("at least one value is needed", None),
        values => Some(values),
    });
    let only = match fields.value("only") {
        Some(value) => expr(value, &["parent", "config"]).map(Some),
        None => Some(None),
    };
    let request = fields.required("request", |value| request(value, dir, &VARIABLES));
    let records = match fields.value("records") {
        Some(value) => records(Some(value), format.unwrap_or(&Format::JSON)),
        None => Some(RecordPaths::from(JsonPath::ROOT)),
    };
    let at_once = fields.optional("at_once", |value| value.integer_u32(1..=AT_ONCE_MAX));
    let patience = patience(&fields);
    Some(Hydrate {
        events: Parent {
            stream: from?,
            values: values?,
            optional: Vec::new(),
            only: only?,
            records: ParentRecords::New,
            group: 1,
        },
        request: request?,
        records: records?,
        at_once: at_once.unwrap_or(Slicing::AT_ONCE_DEFAULT),
        patience: patience?,
        is_alone,
    })
}

fn patience(fields: &Fields<'_>) -> Option<Patience> {
    let usual = Patience::DEFAULT;
    let wait = |key, usual| {
        let given = fields.optional(key, |value| duration(value, BACKOFF));
        given.unwrap_or(usual)
    };
    let attempts_max = fields.optional("attempts_max", |value| value.integer_u32(1..=1000));
    let backoff_max = wait("backoff_max", usual.backoff_max);
    let patience = Patience {
        attempts_max: attempts_max.unwrap_or(usual.attempts_max),
        backoff_start: wait("backoff_start", usual.backoff_start.min(backoff_max)),
        backoff_max,
    };
    if patience.backoff_start > patience.backoff_max {
        return fields
            .value("backoff_start")?
            .refuse("is longer than backoff_max", None);
    }
    Some(patience)
}

/// Refuses what means nothing to a stream that is asked for nothing but what events name.
pub(super) fn check_alone(fields: &Fields<'_>, hydrate: &Hydrate, table: Option<&Table>) {
    if !hydrate.is_alone {
        return;
    }
    for value in OF_LISTS.iter().filter_map(|key| fields.value(key)) {
        let message = format!("{}: the stream has no request of its own", value.key);
        let hint = "remove it, or add a request to the stream".to_owned();
        value.problems.add(value.key_place, message, Some(hint));
    }
    if table.is_some_and(Table::heeds_passes)
        && let Some(value) = fields.value("hydrate")
    {
        let hint =
            "add a request that lists them, or take delete_absent and scd_type: replace away".to_owned();
        let message = "events do not bring every row, so nothing tells what is gone";
        value.refuse::<()>(message, Some(hint));
    }
}
