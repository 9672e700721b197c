//! What bodies are written in, and where they come from other than page by page.

use std::time::Duration;

use crate::config::{
    explain::{
        lines::{Lines, list, show_place},
        stream::explain_request,
    },
    files::Files,
    format::{Container, Csv, Encoding, Format, Syntax, Xml},
    job::Job,
};

/// Adds `format`: its kind on one line, and what belongs to it on others below.
pub(super) fn explain_format(lines: &mut Lines, format: &Format) {
    let syntax = format.syntax.as_str();
    let container = match format.container {
        Container::Plain => String::new(),
        container => format!(" in {}", container.as_str()),
    };
    let usual = format.syntax == Syntax::Json && format.container == Container::Plain;
    lines.choose("format", format!("{syntax}{container}"), usual);
    lines.within("format", |lines| {
        if format.encoding != Encoding::Utf8 {
            lines.set("encoding", format.encoding.as_str());
        }
        if let Some(name) = &format.key_as {
            lines.set("key_as", name);
        }
        match &format.syntax {
            Syntax::Csv(csv) => explain_csv(lines, csv),
            Syntax::Xml(Xml { lists }) => lines.choose("lists", list(lists), lists.is_empty()),
            Syntax::Json | Syntax::JsonLines | Syntax::Lines => {}
        }
    });
}

fn explain_csv(lines: &mut Lines, csv: &Csv) {
    let shown = |byte: u8| format!("{:?}", char::from(byte));
    lines.value("delimiter", shown(csv.delimiter), shown(b','));
    let quote = csv.quote.map_or("none".to_owned(), shown);
    lines.value("quote", quote, shown(b'"'));
    let columns = csv.columns.as_deref().map(list);
    let columns = columns.as_deref().unwrap_or("from the first line");
    lines.choose("columns", columns, csv.columns.is_none());
    lines.value("skip_lines", csv.skip_lines, 0);
    let nulls: Vec<String> = csv.nulls.iter().map(|null| format!("{null:?}")).collect();
    lines.choose("nulls", list(&nulls), csv.nulls == [""]);
}

/// Adds the keys of `job`.
pub(super) fn explain_job(lines: &mut Lines, job: &Job) {
    lines.optional("id", job.id.as_ref().map(show_place));
    lines.within("poll", |lines| explain_request(lines, &job.poll));
    match &job.status {
        Some(path) => lines.set("status", path),
        None => lines.choose("status", "the HTTP status", true),
    }
    lines.set("done", list(&job.done));
    let lists = [
        ("failed", &job.failed),
        ("empty", &job.empty),
        ("expired", &job.expired),
        ("running", &job.running),
    ];
    for (name, statuses) in lists {
        lines.choose(name, list(statuses), statuses.is_empty());
    }
    lines.wait("every", job.every, Job::EVERY_DEFAULT);
    lines.wait("timeout", job.timeout, Job::TIMEOUT_DEFAULT);
    lines.value("retries", job.retries, 0);
    lines.wait("retry_wait", job.retry_wait, Duration::ZERO);
    let requests = [
        ("list", &job.list),
        ("download", &job.download),
        ("abort", &job.abort),
        ("delete", &job.delete),
    ];
    for (name, request) in requests {
        match request {
            Some(request) => lines.within(name, |lines| explain_request(lines, request)),
            None => lines.choose(name, "none", true),
        }
    }
    lines.optional("urls", job.urls.as_ref());
    lines.choose("hosts", list(&job.hosts), job.hosts.is_empty());
}

/// Adds the keys of `files`.
pub(super) fn explain_files(lines: &mut Lines, files: &Files) {
    lines.set("url", &files.url);
    match &files.request {
        Some(request) => lines.within("request", |lines| explain_request(lines, request)),
        None => lines.choose("request", "GET of the URL", true),
    }
    lines.optional("target", files.target.as_ref());
    lines.optional("checksum", files.checksum.as_ref());
    lines.optional("only", files.only.as_ref().map(|only| only.as_str()));
    lines.size("bytes_max", files.bytes_max, Files::BYTES_MAX_DEFAULT);
    lines.value("column", files.column.as_str(), Files::COLUMN_DEFAULT);
    lines.value("at_once", files.at_once, Files::AT_ONCE_DEFAULT);
    lines.choose("hosts", list(&files.hosts), files.hosts.is_empty());
}
