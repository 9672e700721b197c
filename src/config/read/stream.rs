//! One endpoint.

use std::{path::Path, time::Duration};

use crate::{
    config::{
        CommitEvery, DriftPolicy, Name, OnMismatch, OnUnknown, Stream, StreamName,
        errors::Retry,
        format::Format,
        incremental::Incremental,
        paginate::Paginate,
        paginate::Paging,
        read::{
            incremental::incremental,
            paginate::paginate,
            sections::STREAM,
            source::name,
            table::table,
            values::{absolute, duration, headers, json_path, params, size},
        },
        request::Request,
        request::TokenSlot,
        request::{Body, Method, Tree},
        text::Text,
    },
    json::JsonPath,
    yaml::{
        Kind,
        fields::{Fields, Value},
        quoted,
        section::{
            Section,
            Takes::{self, Choice, Integer, Json, Map, Size, Template},
            key,
        },
    },
};

/// Separates a table's name from those of its side views in SQL.
const NAME_SEPARATOR: &str = "__";

/// `request`
pub(super) static REQUEST: Section = Section::new(
    "request",
    "a request",
    "What is asked of the API.",
    &[
        key(
            "method",
            Choice(&[("GET", "has no body"), ("POST", "may have one")]),
        )
        .default("GET")
        .doc("The HTTP method.")
        .example("POST"),
        key("path", Takes::Matching("^[^?#]*$", "a path without ? and #"))
            .required()
            .doc("Joined to base_url; without a query.")
            .example("/orders"),
        key("params", Map(&Template))
            .doc("Query parameters, in order.")
            .example("{ limit: 500 }"),
        key("headers", Map(&Template))
            .doc("Sent besides those of the source.")
            .example("{ X-Version: 2 }"),
        key("body", Json)
            .doc("A JSON body, for POST.")
            .example("{ filter: { status: [open, paid] } }")
            .beside("{ method: POST }"),
    ],
)
.example("{ path: /orders }");

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
            .doc("Body bytes; at most 4GiB.")
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
    let request = fields.required("request", |value| request(value, dir));
    let records = match fields.value("records") {
        Some(value) => json_path(value),
        None => JsonPath::parse("$[*]").ok(),
    };
    // A request that cannot be read is taken for one that may have a body: no problem follows from another.
    let method = request.as_ref().map_or(Method::Post, |request| request.method);
    let paginate = match fields.value("paginate") {
        Some(value) => paginate(value, method),
        None => Some(Paginate::Single),
    };
    let incremental = fields.optional("incremental", |value| incremental(value, method));
    let table = fields.required("table", table);
    let name = source
        .cloned()
        .zip(stream)
        .map(|(source, stream)| StreamName { source, stream });
    let contract = contract(&fields, name.as_ref(), dir);
    let drift = fields.optional("drift", drift).unwrap_or(DriftPolicy::DEFAULT);
    let commit = fields.optional("commit", commit).unwrap_or(CommitEvery::DEFAULT);
    let (request, paginate) = (request?, paginate?);
    check_slots(&fields, &request, &paginate, incremental.as_ref());
    Some(Stream {
        name: name?,
        request,
        format: Format::JSON,
        records: records?,
        paginate: Paging::plain(paginate),
        slices: None,
        incremental,
        reconcile: None,
        job: None,
        files: None,
        errors: Vec::new(),
        retry,
        table: table?,
        contract: contract?,
        drift,
        commit,
    })
}

fn request(value: Value<'_>, dir: &Path) -> Option<Request> {
    let fields = value.fields(&REQUEST)?;
    let method = match fields.value("method") {
        Some(value) => value.choice(&[("GET", Method::Get), ("POST", Method::Post)], &[]),
        None => Some(Method::Get),
    };
    let path = fields.required("path", path);
    let params = fields
        .optional("params", |value| params(value, dir))
        .unwrap_or_default();
    let headers = fields
        .optional("headers", |value| headers(value, dir))
        .unwrap_or_default();
    let body = fields.value("body");
    if let (Some(Method::Get), Some(body)) = (method, body) {
        let hint = "add method: POST, or use params".to_owned();
        body.problems
            .add(body.key_place, "a GET request has no body", Some(hint));
    }
    let body = body.and_then(|body| match body.node.kind {
        // References are resolved in texts of headers and parameters only; to send one literally would be a trap.
        _ if holds_reference(body) => body.refuse("references are not read in a body", None),
        _ => body.node.to_json(body.problems),
    });
    Some(Request {
        method: method?,
        path: Text::literal(path?),
        params: params
            .into_iter()
            .map(|(name, value)| (name, value.into()))
            .collect(),
        headers: headers
            .into_iter()
            .map(|(name, value)| (name, value.into()))
            .collect(),
        body: body.map_or(Body::None, |body| Body::Json(Tree::from(body))),
    })
}

fn holds_reference(value: Value<'_>) -> bool {
    let mut rest = vec![value.node];
    // Each node is looked at once, and a file has a bounded number of them.
    while let Some(node) = rest.pop() {
        match &node.kind {
            Kind::String(text) if text.contains("${env:") || text.contains("${file:") => return true,
            Kind::Seq(items) => rest.extend(items),
            Kind::Map(entries) => rest.extend(entries.iter().map(|entry| &entry.value)),
            _ => {}
        }
    }
    false
}

fn path(value: Value<'_>) -> Option<String> {
    let text = value.any_text()?;
    if text.contains("://") || text.starts_with("//") {
        let hint = "the host stands in base_url".to_owned();
        return value.refuse("a path, not a whole URL, is needed", Some(hint));
    }
    if text.contains(['?', '#']) {
        let hint = "query parameters go into params".to_owned();
        return value.refuse("a path has no ? and no #", Some(hint));
    }
    let dots = |segment: &str| {
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        plain == "." || plain == ".."
    };
    if text.split(['/', '\\']).any(dots) {
        return value.refuse("a path has no . or .. segments", None);
    }
    if text.contains('\\')
        || text
            .chars()
            .any(|character| character.is_control() || character == ' ')
    {
        return value.refuse("a path has no spaces, backslashes or control characters", None);
    }
    Some(text.to_owned())
}

fn contract(fields: &Fields<'_>, name: Option<&StreamName>, dir: &Path) -> Option<std::path::PathBuf> {
    let Some(value) = fields.value("contract") else {
        return absolute(dir, &format!("contracts/{}.odcs.yaml", name?));
    };
    let text = value.text()?;
    match absolute(dir, text) {
        Some(path) if !text.ends_with('/') => Some(path),
        _ => value.refuse("not the path of a file", None),
    }
}

fn drift(value: Value<'_>) -> Option<DriftPolicy> {
    let fields = value.fields(&DRIFT)?;
    let unknown = [
        ("rescue", OnUnknown::Rescue),
        ("ignore", OnUnknown::Ignore),
        ("quarantine", OnUnknown::Quarantine),
    ];
    let mismatch = [
        ("quarantine", OnMismatch::Quarantine),
        ("rescue", OnMismatch::Rescue),
        ("fail", OnMismatch::Fail),
    ];
    Some(DriftPolicy {
        on_unknown: fields
            .optional("on_unknown", |value| value.choice(&unknown, &["evolve"]))
            .unwrap_or(DriftPolicy::DEFAULT.on_unknown),
        on_mismatch: fields
            .optional("on_mismatch", |value| value.choice(&mismatch, &["evolve"]))
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

/// One place of a request can hold one thing. A cursor may replace a parameter, as `cursor: "*"` for the first page.
fn check_slots(
    fields: &Fields<'_>,
    request: &Request,
    paginate: &Paginate,
    incremental: Option<&Incremental>,
) {
    let page = match paginate {
        Paginate::Cursor { to, .. } | Paginate::PageNumber { to, .. } | Paginate::Offset { to, .. } => {
            Some(to)
        }
        _ => None,
    };
    let counted = page.filter(|_| !matches!(paginate, Paginate::Cursor { .. }));
    let bound = incremental.map(|incremental| &incremental.to);
    for (key, slot) in [("paginate", counted), ("incremental", bound)] {
        let (Some(slot), Some(value)) = (slot, fields.value(key)) else {
            continue;
        };
        let taken = match slot {
            TokenSlot::Query(name) => request.params.iter().any(|(param, _)| param == name),
            TokenSlot::Header(name) => request.headers.iter().any(|(header, _)| header == name),
            TokenSlot::BodyField(_) | TokenSlot::Template => false,
        };
        if taken {
            let hint = format!("remove it from the request; {key} sets it");
            value.problems.add(
                value.key_place,
                format!("{key}: {} is also in request", show(slot)),
                Some(hint),
            );
        }
    }
    if let (Some(slot), Some(value), true) = (page, fields.value("incremental"), page == bound) {
        let message = format!("incremental: {} is also set by paginate", show(slot));
        value.problems.add(value.key_place, message, None);
    }
}

fn show(slot: &TokenSlot) -> String {
    match slot {
        TokenSlot::Query(name) => format!("parameter {}", quoted(name)),
        TokenSlot::Header(name) => format!("header {}", quoted(name)),
        TokenSlot::BodyField(path) => format!("body field {}", quoted(&path.join("."))),
        TokenSlot::Template => "templates".to_owned(),
    }
}
