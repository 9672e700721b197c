//! Slices, windows and reconciliation in the project file.

use std::{path::Path, time::Duration};

use chrono::Weekday;

use super::parse;
use crate::config::{
    Stream,
    incremental::{Calendar, CursorFormat, Filter, Moment, OnExpired, Order, Step},
    request::{Body, TokenSlot},
    slice::{Combine, ParentRecords, SliceBy, SliceState},
};

/// A file with two streams, of which `lines` has these settings too.
fn file(settings: &str) -> String {
    format!(
        "lake: ./lake
sources:
  shop:
    base_url: https://api.shop.example/v1
    streams:
      orders:
        request: {{ path: /orders }}
        table: {{ keys: [id] }}
      lines:
        request: {{ path: /lines }}
        table: {{ keys: [id] }}
        {settings}
"
    )
}

fn read(settings: &str) -> Stream {
    let loaded = parse(&file(settings), Path::new("/srv/shop"));
    let loaded = loaded.unwrap_or_else(|problems| panic!("{settings}\n{problems:?}"));
    loaded.project.sources[0].streams[1].clone()
}

/// What is wrong with the settings, or else the warnings.
fn problems(settings: &str) -> String {
    let found = match parse(&file(settings), Path::new("/srv/shop")) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => problems,
    };
    let shown: Vec<String> = found.iter().map(|problem| problem.to_string()).collect();
    shown.join("\n")
}

#[test]
fn r057_every_setting_of_incremental_is_read() {
    let stream = read(
        "incremental: { cursor: $.t, param: since, format: '%d/%m/%Y', also: [rfc3339, epoch_ms], \
         start: [01/02/2024, 30d ago], lookback: 2d, order: oldest_first, skew: 1h, on_expired: resync, \
         until: { in: template, step: 3mo, align: week_from_sunday, end: 31/12/2024, granularity: 1d } }",
    );
    let read = stream.incremental.unwrap();
    assert_eq!(read.format, CursorFormat::Pattern("%d/%m/%Y".into()));
    assert_eq!(read.also, [CursorFormat::Rfc3339, CursorFormat::EpochMillis]);
    let day = Duration::from_secs(86_400);
    assert_eq!(
        read.start,
        [Moment::At("01/02/2024".to_owned()), Moment::Ago(30 * day)]
    );
    assert_eq!(read.lookback, 2 * day);
    assert_eq!(read.order, Order::OldestFirst);
    assert_eq!(read.skew, Duration::from_secs(3600));
    assert_eq!(read.on_expired, OnExpired::Resync);
    let until = read.until.unwrap();
    assert_eq!(until.to, TokenSlot::Template);
    assert_eq!(until.step, Some(Step::Months(3)));
    assert_eq!(until.align, Some(Calendar::Week(Weekday::Sun)));
    assert_eq!(until.end, [Moment::At("31/12/2024".to_owned())]);
    assert_eq!(until.granularity, day);
}

#[test]
fn r058_an_id_is_a_cursor_and_a_bound_need_not_be_sent() {
    let read = |settings: &str| read(settings).incremental.unwrap();
    let ids = read("incremental: { cursor: $.id, param: since_id, format: integer, start: 0 }");
    assert_eq!(ids.format, CursorFormat::Integer);
    assert_eq!(ids.start, [Moment::At("0".to_owned())]);
    let here = read("incremental: { cursor: $.t, filter: here }");
    assert_eq!((here.filter, here.to), (Filter::Here, TokenSlot::Template));
    let newest = read("incremental: { cursor: $.t, order: newest_first }");
    assert_eq!(newest.to, TokenSlot::Template);
    let feed = read("incremental: { cursor: $.next, param: position, format: feed, start: now }");
    assert_eq!(feed.format, CursorFormat::Feed);
    assert_eq!(
        read("incremental: { cursor: $.t, in: template }").to,
        TokenSlot::Template
    );
}

#[test]
fn r020_what_cannot_be_a_window_is_refused() {
    let table = [
        (
            "{ cursor: $.t }",
            "missing key \"param\", \"header\", \"body_field\" or \"in\"",
        ),
        (
            "{ cursor: $.t, param: a, in: template }",
            "only one of param, header, body_field and in may be given",
        ),
        (
            "{ cursor: $.t, param: a, format: '%m-%d' }",
            "does not say a moment",
        ),
        (
            "{ cursor: $.t, param: a, format: '%Y-%m-%d %Z' }",
            "the name of a time zone",
        ),
        (
            "{ cursor: $.t, param: a, format: rfc339 }",
            "did you mean rfc3339?",
        ),
        (
            "{ cursor: $.t, param: a, format: integer, also: [date] }",
            "only times are written in several formats",
        ),
        (
            "{ cursor: $.t, param: a, format: epoch_s, also: [epoch_ms] }",
            "epoch_ms never gets a value that epoch_s can be",
        ),
        (
            "{ cursor: $.t, param: a, also: [date, date] }",
            "date never gets a value that date can be",
        ),
        (
            "{ cursor: $.t, param: a, start: 30x ago }",
            "\"30x\" is not a duration",
        ),
        (
            "{ cursor: $.t, param: a, format: integer, start: 1d ago }",
            "only times can be so long ago",
        ),
        (
            "{ cursor: $.t, param: a, format: '%Y%m%d', start: 2024-01-01 }",
            "does not fit the format",
        ),
        (
            "{ cursor: $.t, param: a, format: feed, lookback: 1h }",
            "only times have a lookback",
        ),
        (
            "{ cursor: $.t, param: a, until: { param: a } }",
            "the upper bound goes where the lower one is",
        ),
        (
            "{ cursor: $.t, param: a, until: { param: b, step: 1d } }",
            "windows of a length need a beginning",
        ),
        (
            "{ cursor: $.t, param: a, start: 1, format: integer, until: { param: b, step: 1d } }",
            "only times are cut into windows",
        ),
        (
            "{ cursor: $.t, param: a, start: 9d ago, until: { param: b, step: 1m, granularity: 1h } }",
            "shorter than the granularity",
        ),
        (
            "{ cursor: $.t, param: a, start: 9d ago, until: { param: b, step: 0d } }",
            "not the length of a window",
        ),
        (
            "{ cursor: $.t, param: a, format: feed, until: { param: b } }",
            "a feed has no upper bound",
        ),
    ];
    for (settings, expected) in table {
        let found = problems(&format!("incremental: {settings}"));
        assert!(found.contains(expected), "{settings}\n{found}");
        assert_eq!(found.matches("landfall.yml:").count(), 1, "{settings}\n{found}");
    }
}

#[test]
fn r059_a_time_of_creation_is_warned_of() {
    for name in [
        "$.created_at",
        "$.meta.createdAt",
        "$['Created-Date']",
        "$.created",
    ] {
        let found = problems(&format!("incremental: {{ cursor: \"{name}\", param: since }}"));
        assert!(found.contains("updates are missed"), "{name}: {found}");
    }
    for name in ["$.updated_at", "$.created_at.updated", "$.recreated"] {
        let found = problems(&format!("incremental: {{ cursor: {name}, param: since }}"));
        assert_eq!(found, "", "{name}");
    }
}

#[test]
fn reconciliation_is_for_streams_that_ask_for_changes() {
    let incremental = "incremental: { cursor: $.t, param: since }";
    for (every, hours) in [
        ("7d", 168),
        ("'@daily'", 24),
        ("'@weekly'", 168),
        ("'@monthly'", 720),
    ] {
        let stream = read(&format!("{incremental}\n        reconcile: {{ every: {every} }}"));
        assert_eq!(
            stream.reconcile.unwrap().every,
            Duration::from_secs(hours * 3600),
            "{every}"
        );
    }
    let found = problems("reconcile: { every: 7d }");
    assert!(found.contains("does not ask for changes only"), "{found}");
}

#[test]
fn slices_are_read() {
    let settings = "slices: { by: [{ list: region, values: [eu, 2] }, { parent: orders, values: { order_id: $.id }, \
         optional: { city: $.to.city }, only: parent.total > 0, records: new, group: 50 }], at_once: 9, slices_max: 99, kept_max: 98, state: shared, \
         include: [order_id] }";
    let slices = read(settings).slices.unwrap();
    assert_eq!((slices.at_once, slices.slices_max, slices.kept_max), (9, 99, 98));
    assert_eq!(slices.state, SliceState::Shared);
    assert_eq!(slices.include, ["order_id"]);
    let [SliceBy::List { name, values }, SliceBy::Parent(parent)] = slices.by.as_slice() else {
        panic!("{:?}", slices.by)
    };
    assert_eq!((name.as_str(), values.len()), ("region", 2));
    assert_eq!(parent.stream.as_str(), "orders");
    assert_eq!(parent.names().collect::<Vec<_>>(), ["order_id", "city"]);
    assert_eq!(parent.only.as_ref().unwrap().as_str(), "parent.total > 0");
    assert_eq!((parent.records, parent.group), (ParentRecords::New, 50));
    // One source of values needs no list around it.
    let single = read("slices: { by: { parent: orders, values: { id: $.id } } }")
        .slices
        .unwrap();
    assert!(matches!(single.by.as_slice(), [SliceBy::Parent(_)]));
    assert_eq!(single.combine, Combine::Product);
    let union = "slices: { combine: union, by: [{ list: id, values: [1] }, { parent: orders, values: { id: $.id }, \
                 records: new }, { parent: orders, values: { id: $.payer }, records: new }] }";
    let union = read(union).slices.unwrap();
    assert_eq!((union.combine, union.by.len()), (Combine::Union, 3));
}

#[test]
fn r020_slices_that_cannot_be_are_refused() {
    let table = [
        ("{ by: [] }", "at least one list or parent"),
        ("{ by: [{ values: [a] }] }", "needs the key list or parent"),
        (
            "{ by: [{ list: a, parent: orders, values: [a] }] }",
            "either list or parent",
        ),
        (
            "{ by: [{ list: a-b, values: [a] }] }",
            "cannot be the name of a value",
        ),
        ("{ by: [{ list: a, values: [] }] }", "at least one value"),
        (
            "{ by: [{ list: a, values: ['{{ state.x }}'] }] }",
            "not a variable known here",
        ),
        (
            "{ by: [{ list: a, values: [x] }, { parent: orders, values: { a: $.id } }] }",
            "name of another value too",
        ),
        (
            "{ combine: union, by: [{ list: a, values: [x] }, { list: b, values: [y] }] }",
            "name them as the first does: a",
        ),
        (
            "{ combine: union, by: [{ parent: orders, values: { a: $.id } }, \
             { parent: orders, values: { a: $.to }, records: new }] }",
            "both as a whole and for what is new",
        ),
        (
            "{ by: [{ parent: orders, values: { a: $.id }, records: new }, { parent: orders, values: { b: $.to } }] }",
            "would not meet the old ones",
        ),
        (
            "{ by: [{ list: a, values: [x] }], include: [b] }",
            "\"b\" is no value of the slices",
        ),
        (
            "{ by: [{ parent: order, values: { a: $.id } }] }",
            "the parent \"order\" is no stream of the source",
        ),
        (
            "{ by: [{ parent: lines, values: { a: $.id } }] }",
            "waits for itself",
        ),
        ("{ by: [{ parent: orders, values: {} }] }", "at least one value"),
        (
            "{ by: [{ parent: orders, values: { a: $.id }, optional: { a: $.b } }] }",
            "\"a\" stands in values too",
        ),
        (
            "{ by: [{ parent: orders, values: { a: $.id }, group: 0 }] }",
            "not between 1 and",
        ),
    ];
    for (settings, expected) in table {
        let found = problems(&format!("slices: {settings}"));
        assert!(found.contains(expected), "{settings}\n{found}");
        assert_eq!(found.matches("landfall.yml:").count(), 1, "{settings}\n{found}");
    }
    let circle = "slices: { by: { parent: orders, values: { a: $.id } } }";
    let text = file(circle).replace(
        "path: /orders }",
        "path: /orders }\n        slices: { by: { parent: lines, values: { b: $.id } } }",
    );
    let found = parse(&text, Path::new("/srv/shop")).unwrap_err();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found
            .iter()
            .all(|problem| problem.message.contains("waits for itself"))
    );
    assert_eq!((found[0].line, found[1].line), (8, 13));
}

#[test]
fn a_job_and_its_requests_are_read_with_what_they_are_usually() {
    let stream = read(
        "job: { id: header:x-job, poll: { path: '/jobs/{{ job.id }}' }, status: $.state, done: [ready, 3], empty: [none], \
         list: { path: '/jobs/{{ job.poll.key }}' }, urls: '$.parts[*]', download: { path: '/parts/{{ job.target }}' }, \
         abort: { path: '/jobs/{{ job.id }}/stop' }, delete: { path: '/jobs/{{ job.response.id }}' }, \
         hosts: ['*.Store.example', 'files.example:8443'], every: 30s, timeout: 6h }",
    );
    let job = stream.job.unwrap();
    assert_eq!(job.done, ["ready", "3"]);
    assert_eq!(job.hosts, ["*.store.example", "files.example:8443"]);
    assert_eq!((job.every.as_secs(), job.timeout.as_secs()), (30, 6 * 3600));
    let methods: Vec<&str> = job.requests().map(|request| request.method.as_str()).collect();
    assert_eq!(methods, ["GET", "GET", "GET", "POST", "DELETE"]);
}

#[test]
fn the_request_that_creates_a_job_knows_its_key() {
    let job = "job: { poll: { path: /p }, done: [ok], urls: $.u }";
    let key = "request: { path: /o, headers: { Idempotency-Key: '{{ job.key }}' } }";
    let file = |settings: &str| {
        format!(
            "lake: ./lake\nsources:\n  shop:\n    base_url: https://a.example\n    streams:\n      orders:\n        {settings}\n        table: {{ keys: [id] }}\n"
        )
    };
    let read = |settings: &str| super::parse(&file(settings), std::path::Path::new("/srv"));
    assert!(read(&format!("{job}\n        {key}")).is_ok());
    let found = format!("{:?}", read(key).unwrap_err());
    assert!(found.contains("not a variable known here"), "{found}");
}

#[test]
fn what_is_wrong_with_a_job_is_said() {
    let poll = "poll: { path: /p }, done: [ok]";
    let table = [
        (format!("job: {{ {poll} }}"), "urls or download"),
        (
            format!("job: {{ {poll}, download: {{ path: /d }}, list: {{ path: /l }} }}"),
            "nothing is read from it",
        ),
        (
            format!("job: {{ {poll}, failed: [ok], urls: $.u }}"),
            "\"ok\" stands in another list too",
        ),
        (
            format!("job: {{ {poll}, urls: $.u, hosts: ['https://files.example'] }}"),
            "is not a host",
        ),
        (
            format!("job: {{ {poll}, urls: $.u }}, paginate: {{ type: link_header }}")
                .replace("}, paginate", "}\n        paginate"),
            "whole files",
        ),
        (
            "files: { url: $.u, only: job.id == 1 }".to_owned(),
            "\"job\" is not a variable known here",
        ),
    ];
    for (settings, expected) in table {
        let found = problems(&settings);
        assert!(found.contains(expected), "{settings}\n{found}");
    }
}

#[test]
fn files_have_safe_defaults() {
    let files = read("files: { url: $.file }").files.unwrap();
    assert_eq!(
        (files.bytes_max, files.at_once, files.column.as_str()),
        (1 << 30, 4, "_file")
    );
    assert!(files.checksum.is_none() && files.only.is_none() && files.hosts.is_empty());
    assert!(problems("files: { url: $.file, column: 'a b' }").contains("not the name of a column"));
}

#[test]
fn r012_a_parameter_may_have_several_values() {
    let text = file("").replace(
        "path: /lines",
        "method: POST, path: /lines, params: { a: [1, '{{ slice.x }}'], token: ['${env:T}', hunter2], b: x }, \
         form: { c: [y, z] }, headers: { X-A: '1' }",
    );
    let loaded = parse(&text, Path::new("/srv/shop")).unwrap();
    let request = &loaded.project.sources[0].streams[1].request;
    let names = |pairs: &[(String, crate::config::text::Text)]| {
        let names: Vec<&str> = pairs.iter().map(|(name, _)| name.as_str()).collect();
        names.join(" ")
    };
    assert_eq!(names(&request.params), "a a token token b");
    assert_eq!(names(&request.headers), "x-a");
    assert!(matches!(&request.body, Body::Form(fields) if names(fields) == "c c"));
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("a secret is written in the file") && !warnings[0].contains("hunter2"));
    let text = file("").replace(
        "path: /lines",
        "path: /lines, params: { a: [[1]] }, headers: { x: [1] }",
    );
    let found = parse(&text, Path::new("/srv/shop")).unwrap_err();
    assert_eq!(found.len(), 2, "{found:?}");
}
