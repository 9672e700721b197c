//! What bodies are written in, and where they come from other than page by page.

use crate::config::{
    explain::lines::{Lines, list, show_text},
    format::{Container, Csv, Encoding, Files, Format, Job, Syntax, Xml},
    read::values::{show_duration, show_size},
    request::Request,
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
    lines.set("id", &job.id);
    lines.set("poll", show_request(&job.poll));
    lines.set("status", &job.status);
    lines.set("done", list(&job.done));
    lines.set("failed", list(&job.failed));
    lines.set("every", show_duration(job.every));
    lines.set("timeout", show_duration(job.timeout));
    lines.optional("urls", job.urls.as_ref());
    lines.optional("download", job.download.as_ref().map(show_request));
    lines.optional("delete", job.delete.as_ref().map(show_request));
    lines.choose("hosts", list(&job.hosts), job.hosts.is_empty());
}

/// Adds the keys of `files`.
pub(super) fn explain_files(lines: &mut Lines, files: &Files) {
    lines.set("url", &files.url);
    lines.optional("checksum", files.checksum.as_ref());
    lines.optional("only", files.only.as_ref().map(|only| only.as_str()));
    lines.set("bytes_max", show_size(files.bytes_max));
    lines.set("column", &files.column);
    lines.choose("hosts", list(&files.hosts), files.hosts.is_empty());
}

fn show_request(request: &Request) -> String {
    format!("{} {}", request.method.as_str(), show_text(&request.path))
}
