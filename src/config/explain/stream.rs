//! One endpoint: how it is asked, how its pages follow each other, and what becomes of its records.

use std::time::Duration;

use crate::config::{
    CommitEvery, Deletes, DriftPolicy, ScdType, Source, Stream, Table, WriteMode,
    complete::Complete,
    explain::{
        format::{explain_files, explain_format, explain_job},
        lines::{Lines, list, names, show_place, show_slot, show_text},
        rules::{explain_errors, explain_retry},
        serve::explain_push,
        webhook::explain_webhook,
    },
    flatten::Flatten,
    gaps::Gaps,
    hydrate::Hydrate,
    incremental::{Filter, Incremental, Moment, OnExpired, Order, Until},
    paginate::{OffsetStep, OnFirst, PageSize, Paginate, Paging},
    read::values::show_duration,
    records::RecordPaths,
    request::{Body, Method, Request},
    slice::{Combine, ParentRecords, Patience, SliceBy, SliceState, Slicing},
    text::Expr,
};

/// Adds the keys of a stream.
pub(super) fn explain_stream(lines: &mut Lines, source: &Source, stream: &Stream) {
    lines.optional("like", stream.like.as_ref());
    lines.choose("with", names(&stream.with), stream.with.is_empty());
    if stream.is_polled() {
        lines.within("request", |lines| explain_request(lines, &stream.request));
    } else {
        lines.choose("request", "none", true);
    }
    match &stream.hydrate {
        Some(hydrate) => lines.within("hydrate", |lines| explain_hydrate(lines, hydrate)),
        None => lines.choose("hydrate", "none", true),
    }
    match &stream.gaps {
        Some(gaps) => lines.within("gaps", |lines| {
            lines.optional("sequence", gaps.sequence.as_ref());
            lines.optional("heartbeat", gaps.heartbeat.map(show_duration));
            lines.wait("grace", gaps.grace, Gaps::GRACE_DEFAULT);
        }),
        None => lines.choose("gaps", "none", true),
    }
    match stream.feed.push() {
        Some(push) => lines.within("push", |lines| explain_push(lines, push)),
        None => lines.choose("push", "none", true),
    }
    explain_format(lines, &stream.format);
    let records = stream.records.to_string();
    let events = RecordPaths::of_events().filter(|_| stream.webhook.is_some() && !stream.is_pulled());
    let usual = events
        .filter(|_| stream.format.is_json())
        .map_or(stream.format.records_default().to_owned(), |paths| {
            paths.to_string()
        });
    lines.value("records", records, usual);
    explain_paging(lines, &stream.paginate);
    match &stream.slices {
        Some(slices) => lines.within("slices", |lines| explain_slices(lines, slices)),
        None => lines.choose("slices", "none", true),
    }
    match &stream.incremental {
        Some(incremental) => lines.within("incremental", |lines| explain_incremental(lines, incremental)),
        None => lines.choose("incremental", "none", true),
    }
    let every = stream.reconcile.map(|reconcile| show_duration(reconcile.every));
    lines.optional("reconcile", every.map(|every| format!("every {every}")));
    match &stream.complete {
        Some(complete) => lines.within("complete", |lines| explain_complete(lines, complete)),
        None => lines.choose("complete", "none", true),
    }
    lines.optional("group", stream.group.as_ref());
    lines.optional("schedule", stream.schedule.as_ref());
    lines.optional("fresh_within", stream.fresh_within.map(show_duration));
    match &stream.job {
        Some(job) => lines.within("job", |lines| explain_job(lines, job)),
        None => lines.choose("job", "none", true),
    }
    match &stream.files {
        Some(files) => lines.within("files", |lines| explain_files(lines, files)),
        None => lines.choose("files", "none", true),
    }
    explain_errors(lines, &stream.errors);
    if stream.retry == source.retry {
        lines.choose("retry", "as the source", true);
    } else {
        lines.within("retry", |lines| explain_retry(lines, stream.retry, source.retry));
    }
    lines.within("table", |lines| explain_table(lines, &stream.table));
    lines.set("contract", stream.contract.display());
    match &stream.versions {
        Some(versions) => lines.within("versions", |lines| {
            lines.set("field", &versions.field);
            lines.within("contracts", |lines| {
                for (value, file) in &versions.contracts {
                    lines.set(value, file.display());
                }
            });
        }),
        None => lines.choose("versions", "none", true),
    }
    explain_policies(lines, stream);
    lines.optional("retention.raw", stream.retention.raw.map(show_duration));
    lines.value("retention.legal_hold", stream.retention.legal_hold, false);
    explain_webhook(lines, stream.webhook.as_ref());
}

/// Adds what is asked of the API.
pub(super) fn explain_request(lines: &mut Lines, request: &Request) {
    let method = request.method;
    lines.choose("method", method.as_str(), method == Method::Get);
    lines.set("path", show_text(&request.path));
    lines.choose("params", names(&request.params), request.params.is_empty());
    lines.choose("headers", names(&request.headers), request.headers.is_empty());
    let body = match &request.body {
        Body::None => "none".to_owned(),
        Body::Json(_) => "json".to_owned(),
        Body::Form(_) => "form".to_owned(),
        Body::Text(_) => "text".to_owned(),
        Body::GraphQl {
            variables, operation, ..
        } => {
            let names = variables.iter().map(|(name, _)| format!(" ${name}"));
            let operation = operation.iter().map(|operation| format!(" {operation}"));
            ["graphql".to_owned()]
                .into_iter()
                .chain(operation)
                .chain(names)
                .collect()
        }
    };
    lines.choose("body", body, matches!(request.body, Body::None));
}

fn explain_complete(lines: &mut Lines, complete: &Complete) {
    match &complete.request {
        Some(request) => lines.within("request", |lines| explain_request(lines, request)),
        None => lines.choose("request", "as the stream", true),
    }
    match &complete.paginate {
        Some(paginate) => explain_paging(lines, paginate),
        None => lines.choose("paginate", "as the stream", true),
    }
}

fn explain_paging(lines: &mut Lines, paging: &Paging) {
    let single = matches!(paging.next, Paginate::Single);
    lines.choose("paginate", show_paginate(&paging.next), single);
    lines.within("paginate", |lines| {
        if let Some(size) = &paging.size {
            let to = show_slot(&size.to);
            let PageSize {
                records,
                records_min,
                divide_by,
                ..
            } = size;
            let text = format!("{records} in {to}, at least {records_min}, divided by {divide_by}");
            lines.set("size", text);
        }
        let stop = &paging.stop;
        if let Some(when) = &stop.when {
            lines.set("stop.when", when.as_str());
        }
        if let Some(more) = &stop.more {
            lines.set("stop.more", show_place(more));
        }
        if let Some(pages) = &stop.pages {
            lines.set("stop.pages", show_place(pages));
        }
        if stop.on_short_page {
            lines.set("stop.on_short_page", true);
        }
        if !stop.on_status.is_empty() {
            let statuses: Vec<String> = stop.on_status.iter().map(u16::to_string).collect();
            lines.set("stop.on_status", list(&statuses));
        }
        if let Some(pages) = stop.after_pages {
            lines.set("stop.after_pages", pages);
        }
        if let Some(total) = &paging.total {
            lines.set("total", show_place(total));
        }
        if let Some(records) = paging.reset_after_records {
            lines.set("reset_after_records", records);
        }
    });
}

fn show_paginate(paginate: &Paginate) -> String {
    let first_page = |on_first: OnFirst| match on_first {
        OnFirst::Sent => "",
        OnFirst::Omitted => ", not sent with the first page",
    };
    match paginate {
        Paginate::Single => "none".to_owned(),
        Paginate::Cursor { from, to } => format!("cursor from {} to {}", show_place(from), show_slot(to)),
        Paginate::NextUrl { from } => format!("next_url from {}", show_place(from)),
        Paginate::MadeUrl { url } => format!("next_url made as {}", show_text(url)),
        Paginate::LinkHeader => "link_header".to_owned(),
        Paginate::PageNumber { to, first, on_first } => {
            let first_page = first_page(*on_first);
            format!("page_number in {}, first {first}{first_page}", show_slot(to))
        }
        Paginate::Offset {
            to,
            first,
            on_first,
            step,
        } => {
            let first_page = first_page(*on_first);
            let step = match step {
                OffsetStep::Records => "",
                OffsetStep::PageSize => ", grows by the page size",
            };
            format!("offset in {}, first {first}{first_page}{step}", show_slot(to))
        }
        Paginate::Keyset { key, to } => format!("keyset {key} to {}", show_slot(to)),
        Paginate::Template { token, to } => format!("template {} to {}", show_text(token), show_slot(to)),
        Paginate::Relay { connection, to } => format!("relay at {connection} to {}", show_slot(to)),
        Paginate::Auto => "auto".to_owned(),
    }
}

fn explain_hydrate(lines: &mut Lines, hydrate: &Hydrate) {
    lines.set("from", hydrate.from());
    let values: Vec<String> = hydrate
        .values()
        .iter()
        .map(|(name, path)| format!("{name} at {path}"))
        .collect();
    lines.choose("values", list(&values), false);
    lines.optional("only", hydrate.events.only.as_ref().map(Expr::as_str));
    lines.within("request", |lines| explain_request(lines, &hydrate.request));
    lines.value("records", hydrate.records.to_string().as_str(), "$");
    lines.value("at_once", hydrate.at_once, Slicing::AT_ONCE_DEFAULT);
    let (patience, usual) = (hydrate.patience, Patience::DEFAULT);
    lines.value("attempts_max", patience.attempts_max, usual.attempts_max);
    lines.wait("backoff_start", patience.backoff_start, usual.backoff_start);
    lines.wait("backoff_max", patience.backoff_max, usual.backoff_max);
}

fn explain_slices(lines: &mut Lines, slices: &Slicing) {
    for (number, by) in (1..).zip(&slices.by) {
        lines.set(&format!("by.{number}"), show_slice_by(by));
    }
    let combine = match slices.combine {
        Combine::Product => "product",
        Combine::Union => "union",
    };
    lines.choose("combine", combine, slices.combine == Combine::Product);
    lines.value("at_once", slices.at_once, Slicing::AT_ONCE_DEFAULT);
    lines.value("slices_max", slices.slices_max, Slicing::SLICES_MAX_DEFAULT);
    lines.value("kept_max", slices.kept_max, Slicing::KEPT_MAX_DEFAULT);
    let state = match slices.state {
        SliceState::PerSlice => "per_slice",
        SliceState::Shared => "shared",
    };
    lines.choose("state", state, slices.state == SliceState::PerSlice);
    lines.choose("include", list(&slices.include), slices.include.is_empty());
}

fn show_slice_by(by: &SliceBy) -> String {
    match by {
        SliceBy::List { name, values } => format!("{name}: a list of {}", values.len()),
        SliceBy::Parent(parent) => {
            let optional = parent.optional.iter();
            let optional = optional.map(|(name, path)| format!("{name} at {path} or null"));
            let values: Vec<String> = parent
                .values
                .iter()
                .map(|(name, path)| format!("{name} at {path}"))
                .chain(optional)
                .collect();
            let which = match parent.records {
                ParentRecords::All => "all records",
                ParentRecords::New => "new records",
            };
            let only = parent
                .only
                .as_ref()
                .map_or(String::new(), |only| format!(" with {}", only.as_str()));
            let group = match parent.group {
                1 => String::new(),
                group => format!(", {group} in one slice"),
            };
            format!("{}: {which} of {}{only}{group}", values.join(", "), parent.stream)
        }
    }
}

fn explain_incremental(lines: &mut Lines, incremental: &Incremental) {
    lines.set("cursor", &incremental.cursor);
    lines.set("to", show_slot(&incremental.to));
    lines.value("format", incremental.format.as_str(), "rfc3339");
    let also: Vec<String> = incremental
        .also
        .iter()
        .map(|format| format.as_str().to_owned())
        .collect();
    lines.choose("also", list(&also), also.is_empty());
    lines.choose(
        "start",
        moments(&incremental.start, "none"),
        incremental.start.is_empty(),
    );
    lines.wait("lookback", incremental.lookback, Duration::ZERO);
    match &incremental.until {
        Some(until) => lines.within("until", |lines| explain_until(lines, until)),
        None => lines.choose("until", "none", true),
    }
    let order = match incremental.order {
        Order::Any => "any",
        Order::NewestFirst => "newest_first",
        Order::OldestFirst => "oldest_first",
    };
    lines.value("order", order, "any");
    let filter = match incremental.filter {
        Filter::Api => "api",
        Filter::Here => "here",
    };
    lines.value("filter", filter, "api");
    lines.wait("skew", incremental.skew, Incremental::SKEW_DEFAULT);
    let on_expired = match incremental.on_expired {
        OnExpired::Stop => "stop",
        OnExpired::Resync => "resync",
    };
    lines.value("on_expired", on_expired, "stop");
    lines.optional("retained", incremental.retained.map(show_duration));
}

fn explain_until(lines: &mut Lines, until: &Until) {
    lines.set("to", show_slot(&until.to));
    lines.optional("step", until.step);
    lines.optional("align", until.align);
    lines.choose("end", moments(&until.end, "now"), until.end.is_empty());
    lines.wait("granularity", until.granularity, Duration::ZERO);
    lines.wait("split_min", until.split_min, Duration::ZERO);
}

fn moments(moments: &[Moment], none: &str) -> String {
    let moments: Vec<String> = moments.iter().map(ToString::to_string).collect();
    if moments.is_empty() {
        none.to_owned()
    } else {
        moments.join(", ")
    }
}

fn explain_table(lines: &mut Lines, table: &Table) {
    lines.set("keys", list(&table.keys));
    lines.choose(
        "sequence_by",
        list(&table.sequence_by),
        table.sequence_by.is_empty(),
    );
    let scd_type = match table.scd_type {
        ScdType::Upsert => "1",
        ScdType::History => "2",
        ScdType::Append => "append",
        ScdType::Replace => "replace",
    };
    lines.value("scd_type", scd_type, "1");
    lines.optional("apply_as_deletes", table.apply_as_deletes.as_deref());
    let deletes = match table.deletes {
        Deletes::Soft => "soft",
        Deletes::Hard => "hard",
    };
    lines.value("deletes", deletes, "soft");
    lines.value("delete_absent", table.delete_absent, false);
    lines.value("delete_ratio_max", table.delete_ratio_max, 0.1);
    let write_mode = match table.write_mode {
        WriteMode::CopyOnWrite => "copy_on_write",
        WriteMode::MergeOnRead => "merge_on_read",
    };
    lines.value("write_mode", write_mode, "copy_on_write");
    lines.choose(
        "partition_by",
        list(&table.partition_by),
        table.partition_by.is_empty(),
    );
    let flatten = match &table.flatten {
        Flatten::None => "false".to_owned(),
        Flatten::All => "true".to_owned(),
        Flatten::Paths(paths) => list(&paths.iter().map(|path| path.join(".")).collect::<Vec<_>>()),
    };
    lines.choose("flatten", flatten, table.flatten == Flatten::None);
    let lists: Vec<String> = table.explode.iter().map(|list| list.path.join(".")).collect();
    lines.choose("explode", list(&lists), lists.is_empty());
}

fn explain_policies(lines: &mut Lines, stream: &Stream) {
    let (drift, usual) = (stream.drift, DriftPolicy::DEFAULT);
    let unknown = drift.on_unknown == usual.on_unknown;
    lines.choose("drift.on_unknown", drift.on_unknown.as_str(), unknown);
    let mismatch = drift.on_mismatch == usual.on_mismatch;
    lines.choose("drift.on_mismatch", drift.on_mismatch.as_str(), mismatch);
    let (commit, usual) = (stream.commit, CommitEvery::DEFAULT);
    lines.value("commit.pages", commit.pages, usual.pages);
    lines.size("commit.bytes", commit.bytes, usual.bytes);
    lines.wait("commit.elapsed", commit.elapsed, usual.elapsed);
}
