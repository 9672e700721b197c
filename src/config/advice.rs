//! What is there and what is missing in the settings of a stream: the list to go through before it runs.

use std::fmt;

use crate::{
    config::{
        OnMismatch, OnUnknown, ScdType, Source, Stream,
        incremental::{CursorFormat, Filter, Incremental},
        paginate::Paginate,
        push::OnViolation,
        read::values::show_duration,
        slice::SliceState,
    },
    json::JsonPath,
};

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// What it is about: `pagination`, `rate limit`, …
    pub topic: &'static str,
    /// Whether something is to be done.
    pub state: State,
    /// What is there, or what is missing and what to write.
    pub text: String,
}

/// Whether something is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is there.
    Present,
    /// It is not, and something may be lost, repeated or slow for it.
    Missing,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.topic, self.text)
    }
}

/// The list for `stream`: pagination, rate limit, stable ids, incremental parameter, state, retries, schema plan, mode
/// with its known limits. At least one line each, always in this order. Of a stream that is only pushed no more than its
/// ids and its schema, and whether its webhooks are refused.
pub fn advice(source: &Source, stream: &Stream) -> Vec<Advice> {
    if !stream.is_polled() {
        let mut lines = stable_ids(stream);
        lines.push(schema(stream));
        lines.extend(refused_webhooks(stream));
        return lines;
    }
    let mut lines = vec![pagination(stream), rate_limit(source)];
    lines.extend(stable_ids(stream));
    lines.extend(incremental(stream));
    lines.extend([state(stream), retries(stream), schema(stream)]);
    lines.extend(mode(stream));
    lines
}

/// Whoever sends webhooks seldom mends one: it comes again and again, and then none come any more.
fn refused_webhooks(stream: &Stream) -> Option<Advice> {
    let push = stream.feed.push().filter(|_| stream.webhook.is_some())?;
    (push.on_violation == OnViolation::Reject).then(|| {
        missing(
            "webhook",
            "on_violation: reject refuses webhooks that senders repeat for days and then stop sending for; tag keeps them",
        )
    })
}

fn present(topic: &'static str, text: impl Into<String>) -> Advice {
    Advice {
        topic,
        state: State::Present,
        text: text.into(),
    }
}

fn missing(topic: &'static str, text: impl Into<String>) -> Advice {
    Advice {
        topic,
        state: State::Missing,
        text: text.into(),
    }
}

fn pagination(stream: &Stream) -> Advice {
    const TOPIC: &str = "pagination";
    let total = match stream.paginate.total {
        Some(_) => "a window with fewer records than the API declares is said to be short",
        None => "without total a short window is not noticed",
    };
    match &stream.paginate.next {
        Paginate::Single if stream.job.is_some() => present(TOPIC, "the result of a job is taken whole"),
        Paginate::Single => missing(
            TOPIC,
            "one page is taken for everything; if there are more, write paginate, or paginate: { type: auto }",
        ),
        Paginate::Auto => present(TOPIC, format!("found out from the first pages; {total}")),
        _ => present(TOPIC, format!("declared; {total}")),
    }
}

fn rate_limit(source: &Source) -> Advice {
    const TOPIC: &str = "rate limit";
    match &source.rate_limit {
        Some(limit) if limit.status.is_some() => present(
            TOPIC,
            "declared; what is left is asked for first, and what the server says in its headers is obeyed too",
        ),
        Some(_) => present(
            TOPIC,
            "declared; what the server says in its headers is obeyed too",
        ),
        None => missing(
            TOPIC,
            "only what the server says in its headers is obeyed; write rate_limit: { requests: …, per: … }",
        ),
    }
}

fn stable_ids(stream: &Stream) -> Vec<Advice> {
    const TOPIC: &str = "stable ids";
    let table = &stream.table;
    if table.scd_type == ScdType::Append {
        let text = "every record stays a row, so one that is fetched twice is there twice; write table.keys if it has an id";
        return vec![missing(TOPIC, text)];
    }
    let keys = present(TOPIC, format!("rows are told apart by {}", table.keys.join(", ")));
    if !table.sequence_by.is_empty() || table.is_by_content() {
        return vec![keys];
    }
    let order = missing(
        TOPIC,
        "of two versions of a row the one fetched later wins; write table.sequence_by if records say when they changed",
    );
    vec![keys, order]
}

fn incremental(stream: &Stream) -> Vec<Advice> {
    const TOPIC: &str = "incremental";
    let Some(incremental) = &stream.incremental else {
        let text = "every run asks for everything; if the API can be asked for changes, write incremental";
        return vec![missing(TOPIC, text)];
    };
    let cursor = &incremental.cursor;
    let mut lines = vec![match incremental.filter {
        Filter::Api => present(TOPIC, format!("asks for what {cursor} says has changed")),
        Filter::Here => present(
            TOPIC,
            format!("asks for everything and lands pages with a new {cursor}"),
        ),
    }];
    if is_made(cursor) {
        let text = format!(
            "{cursor} says when a record was made: updates are missed; use the time of the last change"
        );
        lines.push(missing(TOPIC, text));
    }
    if incremental.format.is_time() && incremental.lookback.is_zero() {
        let text = "what is dated back is missed; write lookback: 1h, or what the API may lag behind";
        lines.push(missing(TOPIC, text));
    }
    lines
}

fn state(stream: &Stream) -> Advice {
    const TOPIC: &str = "state";
    let place = "in the raw log, moved with the pages it belongs to";
    let Some(slices) = &stream.slices else {
        return present(
            TOPIC,
            format!("{place}; a window that breaks off resumes at its next page"),
        );
    };
    match slices.state {
        SliceState::PerSlice => {
            let kept = slices.kept_max;
            present(
                TOPIC,
                format!("{place}; one bookmark for each of up to {kept} slices"),
            )
        }
        SliceState::Shared => present(TOPIC, format!("{place}; one watermark for all slices")),
    }
}

fn retries(stream: &Stream) -> Advice {
    const TOPIC: &str = "retries";
    let retry = stream.retry;
    if retry.attempts_max < 2 {
        return missing(
            TOPIC,
            "the first failed request fails the stream; raise retry.attempts_max",
        );
    }
    let (backoff, asked) = (
        show_duration(retry.backoff_max),
        show_duration(retry.retry_after_max),
    );
    let attempts = retry.attempts_max;
    present(
        TOPIC,
        format!("{attempts} attempts for a page, waits up to {backoff}, or up to {asked} if the server asks"),
    )
}

fn schema(stream: &Stream) -> Advice {
    let unknown = match stream.drift.on_unknown {
        OnUnknown::Rescue => "fields it does not name are kept in _rescued",
        OnUnknown::Evolve => "fields it does not name become columns",
        OnUnknown::Ignore => "fields it does not name are counted only",
        OnUnknown::Quarantine => "records with fields it does not name are set aside",
    };
    let mismatch = match stream.drift.on_mismatch {
        OnMismatch::Quarantine => "records that do not fit are set aside",
        OnMismatch::Rescue => "values that do not fit are kept in _rescued",
        OnMismatch::Fail => "a value that does not fit stops the load",
        OnMismatch::Evolve => {
            "columns get wider types where that loses nothing, other records that do not fit are set aside"
        }
    };
    let file = stream.contract.file_name().unwrap_or_default().to_string_lossy();
    present("schema", format!("{file}; {unknown}, {mismatch}"))
}

fn mode(stream: &Stream) -> Vec<Advice> {
    const TOPIC: &str = "mode";
    let Some(incremental) = &stream.incremental else {
        let mode = if stream.job.is_some() {
            "export job"
        } else {
            "complete poll"
        };
        let text =
            format!("{mode}: costs grow with the source, and what happens between two runs is not seen");
        return vec![present(TOPIC, text)];
    };
    if incremental.format == CursorFormat::Feed {
        let text =
            "change feed: every change it lists is seen; a position that has expired loses what came since";
        return vec![present(TOPIC, text)];
    }
    let mut lines = vec![present(TOPIC, poll(incremental))];
    match (&stream.reconcile, &stream.table.apply_as_deletes) {
        (Some(reconcile), _) => {
            let every = show_duration(reconcile.every);
            lines.push(present(TOPIC, format!("a complete pass every {every} finds what was missed or deleted")));
        }
        (None, Some(_)) => lines.push(present(TOPIC, "deletions are those the API marks")),
        (None, None) => lines.push(missing(
            TOPIC,
            "deletions are not seen; write reconcile: { every: 7d }, or table.apply_as_deletes if the API marks them",
        )),
    }
    lines
}

fn poll(incremental: &Incremental) -> String {
    let dated_back = match (incremental.format.is_time(), incremental.lookback.is_zero()) {
        (true, false) => format!(
            ", nor are changes dated back by more than {}",
            show_duration(incremental.lookback)
        ),
        _ => String::new(),
    };
    format!("incremental poll: what a record was between two runs is not seen{dated_back}")
}

/// Names of fields that hold when a record was made, not when it changed; letters and digits only.
const MADE: [&str; 10] = [
    "created",
    "createdat",
    "createdon",
    "createdtime",
    "createdate",
    "createddate",
    "creationdate",
    "datecreated",
    "insertedat",
    "timecreated",
];

/// Whether the name a path ends with is that of a time of creation, which no update changes.
pub(crate) fn is_made(cursor: &JsonPath) -> bool {
    let path = cursor.to_string();
    let name = path.rsplit(['.', '[']).next().unwrap_or_default();
    let plain = name.chars().filter(char::is_ascii_alphanumeric);
    let plain: String = plain.map(|letter| letter.to_ascii_lowercase()).collect();
    MADE.contains(&plain.as_str())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::read::parse;

    /// The list for the stream `orders` with these settings, `!` before what is missing.
    fn list(source: &str, stream: &str) -> String {
        let text = format!(
            "lake: ./lake\nsources:\n  shop:\n    base_url: https://api.shop.example\n    {source}\n    streams:\n      \
             orders:\n        request: {{ path: /orders }}\n        {stream}\n"
        );
        let loaded =
            parse(&text, Path::new("/srv/shop")).unwrap_or_else(|problems| panic!("{text}\n{problems:?}"));
        let source = &loaded.project.sources[0];
        let lines = advice(source, &source.streams[0])
            .into_iter()
            .map(|line| match line.state {
                State::Present => format!("+ {line}\n"),
                State::Missing => format!("! {line}\n"),
            });
        lines.collect()
    }

    #[test]
    fn r019_a_bare_stream_lacks_what_the_list_says() {
        insta::assert_snapshot!(list("", "table: { keys: [id] }"), @r"
        ! pagination: one page is taken for everything; if there are more, write paginate, or paginate: { type: auto }
        ! rate limit: only what the server says in its headers is obeyed; write rate_limit: { requests: …, per: … }
        + stable ids: rows are told apart by id
        ! stable ids: of two versions of a row the one fetched later wins; write table.sequence_by if records say when they changed
        ! incremental: every run asks for everything; if the API can be asked for changes, write incremental
        + state: in the raw log, moved with the pages it belongs to; a window that breaks off resumes at its next page
        + retries: 6 attempts for a page, waits up to 1m, or up to 5m if the server asks
        + schema: shop.orders.odcs.yaml; fields it does not name are kept in _rescued, records that do not fit are set aside
        + mode: complete poll: costs grow with the source, and what happens between two runs is not seen
        ");
        insta::assert_snapshot!(
            list(
                "retry: { attempts_max: 1 }",
                "table: { scd_type: append }\n        incremental: { cursor: $.created_at, param: since }",
            ),
            @r"
        ! pagination: one page is taken for everything; if there are more, write paginate, or paginate: { type: auto }
        ! rate limit: only what the server says in its headers is obeyed; write rate_limit: { requests: …, per: … }
        ! stable ids: every record stays a row, so one that is fetched twice is there twice; write table.keys if it has an id
        + incremental: asks for what $.created_at says has changed
        ! incremental: $.created_at says when a record was made: updates are missed; use the time of the last change
        ! incremental: what is dated back is missed; write lookback: 1h, or what the API may lag behind
        + state: in the raw log, moved with the pages it belongs to; a window that breaks off resumes at its next page
        ! retries: the first failed request fails the stream; raise retry.attempts_max
        + schema: shop.orders.odcs.yaml; fields it does not name are kept in _rescued, records that do not fit are set aside
        + mode: incremental poll: what a record was between two runs is not seen
        ! mode: deletions are not seen; write reconcile: { every: 7d }, or table.apply_as_deletes if the API marks them
        "
        );
    }

    #[test]
    fn r018_r019_a_stream_with_everything_lacks_nothing() {
        let stream = "table: { keys: [id], sequence_by: [updated_at] }
        paginate: { type: cursor, from: $.next, param: cursor }
        incremental: { cursor: $.updated_at, param: since, lookback: 1h }
        reconcile: { every: 7d }
        slices: { by: { list: region, values: [eu, us] } }
        drift: { on_unknown: quarantine, on_mismatch: fail }";
        insta::assert_snapshot!(list("rate_limit: { requests: 10, per: 1s }", stream), @r"
        + pagination: declared; without total a short window is not noticed
        + rate limit: declared; what the server says in its headers is obeyed too
        + stable ids: rows are told apart by id
        + incremental: asks for what $.updated_at says has changed
        + state: in the raw log, moved with the pages it belongs to; one bookmark for each of up to 10000 slices
        + retries: 6 attempts for a page, waits up to 1m, or up to 5m if the server asks
        + schema: shop.orders.odcs.yaml; records with fields it does not name are set aside, a value that does not fit stops the load
        + mode: incremental poll: what a record was between two runs is not seen, nor are changes dated back by more than 1h
        + mode: a complete pass every 7d finds what was missed or deleted
        ");
        let feed = "table: { keys: [id], sequence_by: [seq] }
        incremental: { cursor: $.next, param: position, format: feed }";
        let feed = list("", feed);
        assert!(feed.contains("+ mode: change feed"), "{feed}");
    }
}
