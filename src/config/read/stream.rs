//! One endpoint.

use std::{path::Path, time::Duration};

use crate::{
    config::{
        CommitEvery, DriftPolicy, Name, OnMismatch, OnUnknown, ScdType, Stream, StreamName, Table,
        errors::Retry,
        format::Format,
        incremental::{CursorFormat, Incremental},
        paginate::{OffsetStep, Paginate, Paging},
        read::{
            complete,
            errors::{self, errors},
            files::files,
            format::{format, records},
            gaps::{check_gaps, gaps},
            hydrate::{check_alone, hydrate},
            incremental::{incremental, reconcile},
            job::{check_paging, job},
            maintain::retention,
            paginate::paginate,
            push::feed,
            request::{VARIABLES, config, request},
            sections::STREAM,
            slice::slices,
            slot,
            source::name,
            table::table,
            values::{DURATION_MAX, absolute, duration, size},
            versions::versions,
            webhook::webhook,
        },
        records::{RecordPaths, Several},
        request::{Method, Request, TokenSlot},
        schedule::Schedule,
        slice::{ParentRecords, SliceBy, Slicing},
    },
    yaml::{
        fields::{Fields, Value},
        quoted,
        section::{
            Section,
            Takes::{self, Choice, Integer, Size},
            key,
        },
    },
};

/// Separates a table's name from those of its side views in SQL.
const NAME_SEPARATOR: &str = "__";

/// `drift`
pub(super) static DRIFT: Section = Section::new(
    "drift",
    "drift",
    "What to do with what the contract does not say.",
    &[
        key(
            "on_unknown",
            Choice(&[
                ("rescue", "kept as JSON in `_rescued`"),
                (
                    "evolve",
                    "a column is added to the contract, as a draft does by itself",
                ),
                ("ignore", "counted only; raw keeps it"),
                ("quarantine", "the record is set aside"),
            ]),
        )
        .default("rescue")
        .doc("Fields the contract does not name.")
        .example("quarantine"),
        key(
            "on_mismatch",
            Choice(&[
                ("quarantine", "the record is set aside"),
                ("rescue", "the column is null and the value is kept in `_rescued`"),
                (
                    "fail",
                    "nothing is written and the transform ends with exit code 3",
                ),
                (
                    "evolve",
                    "the column gets a type that also holds what it held, as in a draft; without one the record is set aside",
                ),
            ]),
        )
        .default("quarantine")
        .doc("Values that do not fit their column.")
        .example("rescue"),
    ],
)
.example("{ on_unknown: quarantine }");

/// `commit`
pub(super) static COMMIT: Section = Section::new(
    "commit",
    "commit",
    "When fetched pages are committed: whichever is reached first.",
    &[
        key("pages", Integer(1, 100_000))
            .default("100")
            .doc("Pages.")
            .example("10"),
        key("bytes", Size)
            .default("64MiB")
            .doc("Body bytes; at most 4GiB, and in effect at most an eighth of `memory`, which is what a load takes at a time.")
            .example("8MiB"),
        key("elapsed", Takes::Duration)
            .default("60s")
            .doc("Time since the last commit.")
            .example("15s"),
    ],
)
.example("{ pages: 10 }");

/// Reads one entry of `streams`. Without a source name problems are still found, but nothing is returned.
pub(super) fn stream(value: Value<'_>, source: Option<&Name>, dir: &Path, retry: Retry) -> Option<Stream> {
    let stream = name(value);
    if value.key.contains(NAME_SEPARATOR) {
        value.problems.add(
            value.key_place,
            format!(
                "{} holds {NAME_SEPARATOR}, which separates SQL names",
                quoted(value.key)
            ),
            Some("use one _".to_owned()),
        );
    }
    let fields = value.fields(&STREAM)?;
    // The request that creates a job may say which one.
    let job_known = fields.value("job").map(|_| "job");
    let known: Vec<&str> = VARIABLES.into_iter().chain(job_known).collect();
    let webhook = fields.optional("webhook", |value| webhook(value, dir));
    let feed = feed(&fields, webhook.as_ref());
    let others = ["push", "webhook", "hydrate"];
    let is_asked = fields.value("request").is_some();
    let request = match others.into_iter().find_map(|key| fields.value(key)) {
        Some(_) if !is_asked => Some(Request::none()),
        _ => fields.required("request", |value| request(value, dir, &known)),
    };
    let written = fields.value("format");
    let format = written.map_or(Some(Format::JSON), format);
    let hydrate = fields.optional("hydrate", |value| hydrate(value, dir, format.as_ref(), !is_asked));
    let records = match (fields.value("records"), format.as_ref().unwrap_or(&Format::JSON)) {
        (None, format) if webhook.is_some() && fields.value("request").is_none() && format.is_json() => {
            RecordPaths::of_events()
        }
        (value, format) => records(value, format),
    };
    // A request that cannot be read is taken for one that may have a body: no problem follows from another.
    let method = request.as_ref().map_or(Method::Post, |request| request.method);
    let paginate = match fields.value("paginate") {
        Some(value) => paginate(value, method, dir),
        None => Some(Paging::plain(Paginate::Single)),
    };
    let job = fields.optional("job", |value| job(value, dir));
    let files = fields.optional("files", |value| files(value, dir));
    let gaps = fields.optional("gaps", gaps);
    check_gaps(&fields, feed.as_ref(), hydrate.as_ref());
    let slices = fields.optional("slices", |value| slices(value, dir));
    let incremental = fields.optional("incremental", |value| incremental(value, method));
    let whole = fields.value("incremental").is_none();
    let reconcile = fields.optional("reconcile", |value| reconcile(value, !whole));
    let schedule = fields.optional("schedule", |value| match Schedule::parse(value.text()?) {
        Ok(schedule) => Some(schedule),
        Err(error) => value.refuse(error.to_string(), None),
    });
    let fresh_within = fields.optional("fresh_within", |value| {
        duration(value, Duration::from_secs(1)..=DURATION_MAX)
    });
    let complete = fields.optional("complete", |value| {
        complete::complete(value, dir, request.as_ref(), paginate.as_ref())
    });
    let group = fields.optional("group", word);
    let like = fields.optional("like", word);
    let with = fields.optional("with", config);
    let rules = fields
        .optional("errors", |value| errors(value, dir))
        .unwrap_or_default();
    let retry = fields
        .optional("retry", |value| errors::retry(value, retry))
        .unwrap_or(retry);
    let table = fields.required("table", table);
    let name = source
        .cloned()
        .zip(stream)
        .map(|(source, stream)| StreamName { source, stream });
    let contract = contract(&fields, name.as_ref(), dir);
    let versions = fields.optional("versions", |value| versions(value, dir));
    let drift = fields.optional("drift", drift).unwrap_or(DriftPolicy::DEFAULT);
    let commit = fields.optional("commit", commit).unwrap_or(CommitEvery::DEFAULT);
    let retention = fields.optional("retention", retention).unwrap_or_default();
    let (request, paginate) = (request?, paginate?);
    check_replace(&fields, table.as_ref(), !whole);
    if let Some(hydrate) = &hydrate {
        check_alone(&fields, hydrate, table.as_ref());
    }
    check_passes(&fields, table.as_ref(), slices.as_ref());
    check_bounds(&fields, table.as_ref(), incremental.as_ref());
    check_slots(&fields, &request, &paginate, incremental.as_ref());
    check_paging(&fields, job.as_ref(), &paginate.next);
    if let Some(complete) = &complete {
        let until = incremental
            .as_ref()
            .and_then(|incremental| incremental.until.as_ref());
        let stepped = until.is_some_and(|until| until.step.is_some() || until.align.is_some());
        complete::check(&fields, complete, &paginate, stepped);
    }
    check_counted(&fields, records.as_ref(), &paginate.next);
    Some(Stream {
        name: name?,
        feed: feed?,
        request,
        format: format?,
        records: records?,
        paginate,
        hydrate,
        gaps,
        slices,
        incremental,
        complete,
        group,
        like,
        with: with.unwrap_or_default(),
        schedule,
        fresh_within,
        reconcile,
        job,
        files,
        errors: rules,
        retry,
        table: table?,
        contract: contract?,
        versions,
        drift,
        commit,
        retention,
        webhook,
    })
}

/// Reads a request.
pub(super) fn contract(
    fields: &Fields<'_>,
    name: Option<&StreamName>,
    dir: &Path,
) -> Option<std::path::PathBuf> {
    let Some(value) = fields.value("contract") else {
        return absolute(dir, &format!("contracts/{}.odcs.yaml", name?));
    };
    let text = value.text()?;
    match absolute(dir, text) {
        Some(path) if !text.ends_with('/') => Some(path),
        _ => value.refuse("not the path of a file", None),
    }
}

fn word(value: Value<'_>) -> Option<Name> {
    match Name::new(value.text()?) {
        Ok(name) => Some(name),
        Err(error) => value.refuse(error.to_string(), None),
    }
}

fn drift(value: Value<'_>) -> Option<DriftPolicy> {
    let fields = value.fields(&DRIFT)?;
    let unknown = [
        ("rescue", OnUnknown::Rescue),
        ("evolve", OnUnknown::Evolve),
        ("ignore", OnUnknown::Ignore),
        ("quarantine", OnUnknown::Quarantine),
    ];
    let mismatch = [
        ("quarantine", OnMismatch::Quarantine),
        ("rescue", OnMismatch::Rescue),
        ("fail", OnMismatch::Fail),
        ("evolve", OnMismatch::Evolve),
    ];
    Some(DriftPolicy {
        on_unknown: fields
            .optional("on_unknown", |value| value.choice(&unknown, &[]))
            .unwrap_or(DriftPolicy::DEFAULT.on_unknown),
        on_mismatch: fields
            .optional("on_mismatch", |value| value.choice(&mismatch, &[]))
            .unwrap_or(DriftPolicy::DEFAULT.on_mismatch),
    })
}

fn commit(value: Value<'_>) -> Option<CommitEvery> {
    let fields = value.fields(&COMMIT)?;
    let day = Duration::from_secs(24 * 3600);
    Some(CommitEvery {
        pages: fields
            .optional("pages", |value| value.integer_u32(1..=100_000))
            .unwrap_or(CommitEvery::DEFAULT.pages),
        bytes: fields
            .optional("bytes", |value| size(value, 1..=(4 << 30)))
            .unwrap_or(CommitEvery::DEFAULT.bytes),
        elapsed: fields
            .optional("elapsed", |value| duration(value, Duration::from_millis(1)..=day))
            .unwrap_or(CommitEvery::DEFAULT.elapsed),
    })
}

/// One place of a request can hold one thing.
fn check_slots(fields: &Fields<'_>, request: &Request, paginate: &Paging, incremental: Option<&Incremental>) {
    let page = slot::of_page(&paginate.next);
    let size = paginate.size.as_ref().map(|size| &size.to);
    // The position of a feed is a page token kept from the last run: it may go where the token goes.
    let bound = incremental
        .filter(|incremental| incremental.format != CursorFormat::Feed || page != Some(&incremental.to))
        .map(|incremental| &incremental.to);
    // Templates may name as much as they like.
    let clash = |one: Option<&TokenSlot>, other| one == other && one != Some(&TokenSlot::Template);
    let placed = slot::set_by(paginate).map(|slot| ("paginate", slot));
    for (key, slot) in placed.chain(bound.map(|slot| ("incremental", slot))) {
        if let Some(value) = fields.value(key).filter(|_| slot::is_taken(request, slot)) {
            slot::refuse_taken(value, slot);
        }
    }
    if let (Some(_), None, Some(value)) = (
        paginate.reset_after_records,
        incremental,
        fields.value("paginate"),
    ) {
        let message = "paginate: reset_after_records has no cursor to begin again from";
        let hint = "add incremental to the stream".to_owned();
        value.problems.warn(value.key_place, message, Some(hint));
    }
    if let (Some(slot), Some(value), true) = (size, fields.value("paginate"), clash(size, page)) {
        let message = format!("paginate: {} takes the page and its size", slot::show(slot));
        value.problems.add(value.key_place, message, None);
    }
    if let (Some(slot), Some(value), true) = (page, fields.value("incremental"), clash(page, bound)) {
        let message = format!("incremental: {} is also set by paginate", slot::show(slot));
        value.problems.add(value.key_place, message, None);
    }
}

/// A table that each complete pass replaces is made of complete passes.
fn check_replace(fields: &Fields<'_>, table: Option<&Table>, incremental: bool) {
    if incremental
        && table.is_some_and(|table| table.scd_type == ScdType::Replace)
        && let Some(value) = fields.value("incremental")
    {
        let hint = "remove incremental, or use scd_type 1 with delete_absent".to_owned();
        value.refuse::<()>("a table of scd_type replace needs complete passes", Some(hint));
    }
}

/// A position that follows the records of a page is a position in one list.
fn check_counted(fields: &Fields<'_>, records: Option<&RecordPaths>, paginate: &Paginate) {
    let step = OffsetStep::Records;
    let counted = matches!(paginate, Paginate::Keyset { .. })
        || matches!(paginate, Paginate::Offset { step: by, .. } if *by == step);
    let union =
        records.is_some_and(|records| records.only().is_none() && records.meaning() == Several::Union);
    if counted
        && union
        && let Some(value) = fields.value("paginate")
    {
        let hint = "make each list a stream of its own".to_owned();
        value.refuse::<()>("the records of several lists are no position in one", Some(hint));
    }
}

/// What only asks for the children of new parents never brings all there is.
fn check_passes(fields: &Fields<'_>, table: Option<&Table>, slices: Option<&Slicing>) {
    let heeded = table.is_some_and(Table::heeds_passes);
    let new = |by: &SliceBy| matches!(by, SliceBy::Parent(parent) if parent.records == ParentRecords::New);
    if heeded
        && slices.is_some_and(|slices| slices.by.iter().any(new))
        && let Some(value) = fields.value("slices")
    {
        let hint = "write records: all, or take delete_absent and scd_type: replace away".to_owned();
        value.refuse::<()>(
            "with records: new no pass brings every row, so none can tell what is gone",
            Some(hint),
        );
    }
}

/// A complete pass keeps to `start` and `until`, so what is outside would be taken for gone.
fn check_bounds(fields: &Fields<'_>, table: Option<&Table>, incremental: Option<&Incremental>) {
    let bounded = |incremental: &Incremental| !incremental.start.is_empty() || incremental.until.is_some();
    if table.is_some_and(|table| table.delete_absent)
        && incremental.is_some_and(bounded)
        && let Some(value) = fields.value("incremental")
    {
        let hint = "take start and until away, or delete_absent".to_owned();
        value.refuse::<()>(
            "a pass between bounds does not bring what is outside, so none can tell what is gone",
            Some(hint),
        );
    }
}
