//! Every effective setting of a project in words, for `landfall check --explain`.

use std::fmt;

use crate::config::{
    CommitEvery, Deletes, DriftPolicy, Limits, OnMismatch, OnUnknown, Project, ScdType, Source, Stream,
    Timeouts,
    auth::Auth,
    errors::Retry,
    incremental::Incremental,
    paginate::Paginate,
    read::values::{show_duration, show_size},
    request::Place,
    request::TokenSlot,
    request::{Body, Method},
};

/// One line per setting: its name, its value, and `default` where the value is the one that holds without the file
/// saying so. Secrets are shown as references, and a literal one as `****`.
pub fn explain(project: &Project) -> String {
    let mut lines = Lines::default();
    lines.set("lake", &project.lake.url);
    for (name, value) in &project.lake.storage {
        lines.set(&format!("storage.{name}"), value);
    }
    let memory = project.memory_bytes_max;
    lines.choose(
        "memory",
        show_size(memory),
        memory == Project::MEMORY_BYTES_DEFAULT,
    );
    for source in &project.sources {
        explain_source(&mut lines, source);
    }
    lines.to_string()
}

fn explain_source(lines: &mut Lines, source: &Source) {
    lines.prefix = format!("sources.{}.", source.name);
    lines.set("base_url", &source.base_url);
    lines.choose("auth", show_auth(&source.auth), matches!(source.auth, Auth::None));
    lines.choose("headers", names(&source.headers), source.headers.is_empty());
    let limit = source.rate_limit.as_ref().map(|limit| {
        let bucket = |bucket: &crate::config::rate::Bucket| {
            format!("{} per {}", bucket.requests, show_duration(bucket.per))
        };
        limit.buckets.iter().map(bucket).collect::<Vec<_>>().join(", ")
    });
    lines.choose("rate_limit", limit.as_deref().unwrap_or("none"), limit.is_none());
    let (retry, usual) = (source.retry, Retry::DEFAULT);
    lines.choose(
        "retry.attempts_max",
        retry.attempts_max,
        retry.attempts_max == usual.attempts_max,
    );
    lines.wait("retry.backoff_start", retry.backoff_start, usual.backoff_start);
    lines.wait("retry.backoff_max", retry.backoff_max, usual.backoff_max);
    lines.wait(
        "retry.retry_after_max",
        retry.retry_after_max,
        usual.retry_after_max,
    );
    let (timeouts, usual) = (source.timeouts, Timeouts::DEFAULT);
    lines.wait("timeouts.connect", timeouts.connect, usual.connect);
    lines.wait("timeouts.read", timeouts.read, usual.read);
    lines.wait("timeouts.total", timeouts.total, usual.total);
    let (limits, usual) = (source.limits, Limits::DEFAULT);
    let page = limits.page_bytes_max;
    lines.choose(
        "limits.page_bytes_max",
        show_size(page),
        page == usual.page_bytes_max,
    );
    let ratio = limits.decode_ratio_max;
    lines.choose("limits.decode_ratio_max", ratio, ratio == usual.decode_ratio_max);
    lines.choose(
        "limits.pages_max",
        limits.pages_max,
        limits.pages_max == usual.pages_max,
    );
    let empty = limits.empty_pages_max;
    lines.choose("limits.empty_pages_max", empty, empty == usual.empty_pages_max);
    for stream in &source.streams {
        explain_stream(lines, source, stream);
    }
}

fn explain_stream(lines: &mut Lines, source: &Source, stream: &Stream) {
    lines.prefix = format!("sources.{}.streams.{}.", source.name, stream.name.stream);
    let method = stream.request.method;
    lines.choose("request.method", method.as_str(), method == Method::Get);
    lines.set("request.path", stream.request.path.as_written());
    lines.choose(
        "request.params",
        names(&stream.request.params),
        stream.request.params.is_empty(),
    );
    lines.choose(
        "request.headers",
        names(&stream.request.headers),
        stream.request.headers.is_empty(),
    );
    let body = match &stream.request.body {
        Body::None => "none",
        Body::Json(_) => "json",
        Body::Form(_) => "form",
        Body::Text(_) => "text",
        Body::GraphQl { .. } => "graphql",
    };
    lines.choose("request.body", body, matches!(stream.request.body, Body::None));
    let records = stream.records.to_string();
    lines.choose("records", &records, records == "$[*]");
    let single = matches!(stream.paginate.next, Paginate::Single);
    lines.choose("paginate", show_paginate(&stream.paginate.next), single);
    let incremental = stream.incremental.as_ref().map(show_incremental);
    lines.choose(
        "incremental",
        incremental.as_deref().unwrap_or("none"),
        incremental.is_none(),
    );
    let table = &stream.table;
    lines.set("table.keys", list(&table.keys));
    lines.choose(
        "table.sequence_by",
        list(&table.sequence_by),
        table.sequence_by.is_empty(),
    );
    let scd_type = match table.scd_type {
        ScdType::Upsert => "1",
        ScdType::Append => "append",
    };
    lines.choose("table.scd_type", scd_type, table.scd_type == ScdType::Upsert);
    let condition = table.apply_as_deletes.as_deref();
    lines.choose(
        "table.apply_as_deletes",
        condition.unwrap_or("none"),
        condition.is_none(),
    );
    let deletes = match table.deletes {
        Deletes::Soft => "soft",
    };
    lines.choose("table.deletes", deletes, table.deletes == Deletes::Soft);
    lines.choose(
        "table.partition_by",
        list(&table.partition_by),
        table.partition_by.is_empty(),
    );
    lines.set("contract", stream.contract.display());
    explain_policies(lines, stream);
}

fn explain_policies(lines: &mut Lines, stream: &Stream) {
    let (drift, usual) = (stream.drift, DriftPolicy::DEFAULT);
    let unknown = match drift.on_unknown {
        OnUnknown::Rescue => "rescue",
        OnUnknown::Ignore => "ignore",
        OnUnknown::Quarantine => "quarantine",
    };
    lines.choose("drift.on_unknown", unknown, drift.on_unknown == usual.on_unknown);
    let mismatch = match drift.on_mismatch {
        OnMismatch::Quarantine => "quarantine",
        OnMismatch::Rescue => "rescue",
        OnMismatch::Fail => "fail",
    };
    lines.choose(
        "drift.on_mismatch",
        mismatch,
        drift.on_mismatch == usual.on_mismatch,
    );
    let (commit, usual) = (stream.commit, CommitEvery::DEFAULT);
    lines.choose("commit.pages", commit.pages, commit.pages == usual.pages);
    lines.choose(
        "commit.bytes",
        show_size(commit.bytes),
        commit.bytes == usual.bytes,
    );
    lines.wait("commit.elapsed", commit.elapsed, usual.elapsed);
}

fn show_auth(auth: &Auth) -> String {
    match auth {
        Auth::None => "none".to_owned(),
        Auth::ApiKeyHeader { name, value } => format!("api_key in header {name}: {value}"),
        Auth::ApiKeyQuery { name, value } => format!("api_key in parameter {name}: {value}"),
        Auth::Basic { username, password } => format!("basic {username}:{password}"),
        Auth::Bearer { scheme, token } => format!("bearer, {scheme} {token}"),
        Auth::ApiKeyBody { field, value } => format!("api_key in body field {}: {value}", field.join(".")),
        Auth::OAuth2(oauth2) => format!("oauth2 from {}", oauth2.token_url),
        Auth::Jwt { jwt, .. } => format!("jwt signed with {}", jwt.algorithm),
        Auth::Session(session) => format!("session from {}", session.login.path),
        Auth::Select { by, .. } => format!("selected by {}", by.as_written()),
        Auth::Pool(members) => format!("pool of {}", members.len()),
    }
}

fn show_paginate(paginate: &Paginate) -> String {
    match paginate {
        Paginate::Single => "none".to_owned(),
        Paginate::Cursor { from, to } => format!("cursor from {} to {}", show_place(from), show_slot(to)),
        Paginate::NextUrl { from } => format!("next_url from {}", show_place(from)),
        Paginate::LinkHeader => "link_header".to_owned(),
        Paginate::PageNumber { to, first, .. } => format!("page_number in {}, first {first}", show_slot(to)),
        Paginate::Offset { to, first, .. } => format!("offset in {}, first {first}", show_slot(to)),
        Paginate::Keyset { key, to } => format!("keyset {key} to {}", show_slot(to)),
        Paginate::Template { to, .. } => format!("template to {}", show_slot(to)),
        Paginate::Relay { connection, to } => format!("relay at {connection} to {}", show_slot(to)),
        Paginate::Auto => "auto".to_owned(),
    }
}

fn show_incremental(incremental: &Incremental) -> String {
    let format = incremental.format.as_str();
    format!(
        "{} ({format}) to {}, start {}, lookback {}",
        incremental.cursor,
        show_slot(&incremental.to),
        incremental.start.as_deref().unwrap_or("none"),
        show_duration(incremental.lookback),
    )
}

fn show_place(place: &Place) -> String {
    match place {
        Place::Body(path) => path.to_string(),
        Place::Header(name) => format!("header:{name}"),
    }
}

fn show_slot(slot: &TokenSlot) -> String {
    match slot {
        TokenSlot::Query(name) => format!("parameter {name}"),
        TokenSlot::Header(name) => format!("header {name}"),
        TokenSlot::BodyField(path) => format!("body field {}", path.join(".")),
        TokenSlot::Template => "templates".to_owned(),
    }
}

/// Names only: a parameter or a header may hold a secret under any name.
fn names<T>(pairs: &[(String, T)]) -> String {
    let names: Vec<String> = pairs.iter().map(|(name, _)| name.clone()).collect();
    list(&names)
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

#[derive(Default)]
struct Lines {
    prefix: String,
    lines: Vec<(String, String, bool)>,
}

impl Lines {
    fn set(&mut self, name: &str, value: impl fmt::Display) {
        self.choose(name, value, false);
    }

    fn choose(&mut self, name: &str, value: impl fmt::Display, default: bool) {
        self.lines
            .push((format!("{}{name}", self.prefix), value.to_string(), default));
    }

    fn wait(&mut self, name: &str, value: std::time::Duration, default: std::time::Duration) {
        self.choose(name, show_duration(value), value == default);
    }
}

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self
            .lines
            .iter()
            .map(|(name, _, _)| name.len())
            .max()
            .unwrap_or_default();
        for (name, value, default) in &self.lines {
            let mark = if *default { "  (default)" } else { "" };
            writeln!(f, "{name:names$}  {value}{mark}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::read::parse;

    fn explained(text: &str) -> String {
        explain(&parse(text, Path::new("/srv/shop")).unwrap().project)
    }

    #[test]
    fn a_short_file_is_explained_with_its_defaults() {
        let text = include_str!("../../fixtures/config/minimal.yml");
        insta::assert_snapshot!(explained(text), @r#"
        lake                                                file:///srv/shop/lake
        memory                                              1GiB  (default)
        sources.shop.base_url                               https://api.shop.example/v1
        sources.shop.auth                                   none  (default)
        sources.shop.headers                                none  (default)
        sources.shop.rate_limit                             none  (default)
        sources.shop.retry.attempts_max                     6  (default)
        sources.shop.retry.backoff_start                    1s  (default)
        sources.shop.retry.backoff_max                      1m  (default)
        sources.shop.retry.retry_after_max                  5m  (default)
        sources.shop.timeouts.connect                       10s  (default)
        sources.shop.timeouts.read                          30s  (default)
        sources.shop.timeouts.total                         5m  (default)
        sources.shop.limits.page_bytes_max                  64MiB  (default)
        sources.shop.limits.decode_ratio_max                200  (default)
        sources.shop.limits.pages_max                       1000000  (default)
        sources.shop.limits.empty_pages_max                 10  (default)
        sources.shop.streams.orders.request.method          GET  (default)
        sources.shop.streams.orders.request.path            "/orders"
        sources.shop.streams.orders.request.params          none  (default)
        sources.shop.streams.orders.request.headers         none  (default)
        sources.shop.streams.orders.request.body            none  (default)
        sources.shop.streams.orders.records                 $[*]  (default)
        sources.shop.streams.orders.paginate                none  (default)
        sources.shop.streams.orders.incremental             none  (default)
        sources.shop.streams.orders.table.keys              id
        sources.shop.streams.orders.table.sequence_by       none  (default)
        sources.shop.streams.orders.table.scd_type          1  (default)
        sources.shop.streams.orders.table.apply_as_deletes  none  (default)
        sources.shop.streams.orders.table.deletes           soft  (default)
        sources.shop.streams.orders.table.partition_by      none  (default)
        sources.shop.streams.orders.contract                /srv/shop/contracts/shop.orders.odcs.yaml
        sources.shop.streams.orders.drift.on_unknown        rescue  (default)
        sources.shop.streams.orders.drift.on_mismatch       quarantine  (default)
        sources.shop.streams.orders.commit.pages            100  (default)
        sources.shop.streams.orders.commit.bytes            64MiB  (default)
        sources.shop.streams.orders.commit.elapsed          1m  (default)
        "#);
    }

    #[test]
    fn r054_no_secret_is_explained() {
        let text = include_str!("../../fixtures/config/minimal.yml")
            .replace(
                "streams:",
                "auth: { type: basic, username: hunter2, password: hunter2 }\n    streams:",
            )
            .replace(
                "path: /orders",
                "path: /orders, params: { key: hunter2 }, headers: { cookie: hunter2 }",
            )
            .replace(
                "lake: ./lake",
                "lake: s3://bucket\nstorage: { secret_access_key: hunter2 }",
            );
        let text = explained(&text);
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("****"), "{text}");
    }

    #[test]
    fn what_the_file_sets_is_not_called_a_default() {
        let text = explained(include_str!("../../fixtures/config/full.yml"));
        for line in text
            .lines()
            .filter(|line| line.starts_with("sources.shop.streams.orders."))
        {
            // Of these only one value exists so far.
            let usual = line.contains(".scd_type ") || line.contains(".deletes ");
            assert_eq!(line.ends_with("(default)"), usual, "{line}");
        }
        assert!(text.contains("${env:S3_SECRET}"), "{text}");
    }
}
