//! What is asked of an API, and values of the user's own for it.

use std::path::Path;

use crate::{
    config::{
        read::values::{header_names, looks_secret, text, warn_literal},
        request::{Body, Method, Request, Tree},
        text::Text,
    },
    yaml::{
        Kind,
        fields::Value,
        section::{
            Key, Rule, Section,
            Takes::{self, Choice, Either, Json, List, Map, Template},
            key,
        },
    },
};

/// Variables that the templates of a stream's request can use.
pub(super) const VARIABLES: [&str; 6] = ["config", "slice", "window", "page", "state", "now"];

/// Methods of a stream's request.
const METHODS: [(&str, Method); 4] = [
    ("GET", Method::Get),
    ("POST", Method::Post),
    ("PUT", Method::Put),
    ("PATCH", Method::Patch),
];

/// Methods of a request about an export job.
const JOB_METHODS: [(&str, Method); 5] = [
    ("GET", Method::Get),
    ("POST", Method::Post),
    ("PUT", Method::Put),
    ("PATCH", Method::Patch),
    ("DELETE", Method::Delete),
];

/// What a request can carry, each under a key of its own.
const BODIES: [&str; 5] = ["body", "json", "form", "text", "graphql"];

/// `request`
pub(super) static REQUEST: Section = Section::new(
    "request",
    "a request",
    "What is asked of the API. Every text in it may hold templates over `config`, `slice`, `window` (`since`, `until`), \
     `page` (`token`, `number`, `size`), `state` (`watermark`) and `now`, and references.",
    &[
        key(
            "method",
            Choice(&[
                ("GET", "has no body"),
                ("POST", "may have one"),
                ("PUT", "may have one"),
                ("PATCH", "may have one"),
            ]),
        )
        .default("GET")
        .doc("The HTTP method. With graphql it is POST without being said.")
        .example("POST"),
        key("path", Takes::AnyText)
            .required()
            .doc(
                "Joined to base_url; without a query. What a template gives is percent-encoded and stays within its \
                 segment.",
            )
            .example("/orders")
            .more(&["'/orders/{{ config.region }}'"]),
    ],
)
.shared(&[&CARRIED])
.rules(&[Rule::AtMostOne(&BODIES)])
.example("{ path: /orders }");

/// `poll`, `list`, `download`, `abort` and `delete` of `job`
pub(super) static JOB_REQUEST: Section = Section::new(
    "job_request",
    "a request",
    "A request about an export job. Besides the variables of the stream's own request its templates know `job`.",
    &[
        key(
            "method",
            Choice(&[
                ("GET", "has no body"),
                ("POST", "may have one"),
                ("PUT", "may have one"),
                ("PATCH", "may have one"),
                ("DELETE", "has none"),
            ]),
        )
        .default("GET")
        .doc("The HTTP method. Of `abort` it is POST without being said, of `delete` DELETE, with graphql POST.")
        .example("POST"),
        key("path", Takes::AnyText)
            .required()
            .doc("Joined to base_url; as in the stream's own request.")
            .example("'/exports/{{ job.id }}'"),
    ],
)
.shared(&[&CARRIED])
.rules(&[Rule::AtMostOne(&BODIES)])
.example("{ path: '/exports/{{ job.id }}' }");

/// `files.request`
pub(super) static FILE_REQUEST: Section = Section::new(
    "file_request",
    "a request",
    "Asks for a file that a record points to. Its templates know `file.url` and `config`.",
    &[
        key(
            "method",
            Choice(&[
                ("GET", "has no body"),
                ("POST", "may have one"),
                ("PUT", "may have one"),
                ("PATCH", "may have one"),
            ]),
        )
        .default("GET")
        .doc("The HTTP method; with graphql POST without being said.")
        .example("POST"),
        key("path", Takes::AnyText)
            .required()
            .doc("Joined to base_url; as in the stream's own request.")
            .example("'/files/{{ file.url }}'"),
    ],
)
.shared(&[&CARRIED])
.rules(&[Rule::AtMostOne(&BODIES)])
.example("{ path: '/files/{{ file.url }}/content', headers: { Accept: application/octet-stream } }");

/// One value or several.
static VALUES: Takes = Either(&[Template, List(&Template)]);

/// What any request can carry.
static CARRIED: [Key; 7] = [
    key("params", Map(&VALUES))
        .doc(
            "Query parameters, in order. One whose template gives nothing is left out; one with a list, or whose \
             template gives one, is repeated for each element.",
        )
        .example("{ limit: 500 }")
        .more(&[
            "{ region: '{{ config.region }}' }",
            "{ status: [open, paid] }",
        ]),
    key("headers", Map(&Template))
        .doc("Sent besides those of the source. One whose template gives nothing is left out.")
        .example("{ X-Version: 2 }"),
    key("body", Json)
        .doc("The same as json.")
        .example("{ filter: { status: [open, paid] } }")
        .beside("{ method: POST }"),
    key("json", Json)
        .doc(
            "A JSON body. A text that is one template and nothing else becomes the value of the template with its \
             type.",
        )
        .example("{ filter: { status: [open, paid] }, limit: '{{ config.limit }}' }")
        .beside("{ method: POST }"),
    key("form", Map(&VALUES))
        .doc("A body of form fields, in order; nothing and lists are as in `params`.")
        .example("{ report: orders, region: '{{ config.region }}' }")
        .beside("{ method: POST }"),
    key("text", Template)
        .doc("A body of any text; its type is a header.")
        .example("'<report>orders</report>'")
        .beside("{ method: POST, headers: { Content-Type: application/xml } }"),
    key("graphql", Either(&[Template, Takes::Section(&GRAPHQL)]))
        .doc("A GraphQL document, alone or with its variables.")
        .example("'{ orders { id } }'"),
];

/// `graphql`
static GRAPHQL: Section = Section::new(
    "graphql",
    "a GraphQL request",
    "A GraphQL document with its variables, sent as JSON.",
    &[
        key("query", Template)
            .required()
            .doc("The document.")
            .example("'query Orders($after: String) { orders(after: $after) { nodes { id } } }'"),
        key("variables", Map(&Json))
            .doc("Its variables, with templates in texts as in json.")
            .example("{ first: 100 }"),
        key("operation", Takes::Text)
            .doc("Which operation of the document.")
            .example("Orders"),
    ],
)
.example("{ query: '{ orders { id } }' }");

/// Where a request stands.
#[derive(Clone, Copy)]
struct Scope<'a> {
    /// What relative paths of references start from.
    dir: &'a Path,
    /// The variables its templates can use.
    known: &'a [&'a str],
}

/// Reads a request whose templates can use the variables `known`; for the request of a stream [`VARIABLES`].
pub(super) fn request(value: Value<'_>, dir: &Path, known: &[&str]) -> Option<Request> {
    let scope = Scope { dir, known };
    read(value, scope, &REQUEST, &METHODS, Method::Get)
}

/// Reads a request about an export job, whose method is `usual` unless it says another.
pub(super) fn job_request(value: Value<'_>, dir: &Path, usual: Method) -> Option<Request> {
    let known: Vec<&str> = VARIABLES.into_iter().chain(["job"]).collect();
    let scope = Scope { dir, known: &known };
    read(value, scope, &JOB_REQUEST, &JOB_METHODS, usual)
}

/// Reads a request for a file.
pub(super) fn file_request(value: Value<'_>, dir: &Path) -> Option<Request> {
    let known = ["config", "file"];
    let scope = Scope { dir, known: &known };
    read(value, scope, &FILE_REQUEST, &METHODS, Method::Get)
}

fn read(
    value: Value<'_>,
    scope: Scope<'_>,
    section: &'static Section,
    methods: &[(&'static str, Method)],
    usual: Method,
) -> Option<Request> {
    let fields = value.fields(section)?;
    let given: Vec<Value<'_>> = BODIES.iter().filter_map(|name| fields.value(name)).collect();
    let graphql = given.iter().any(|body| body.key == "graphql");
    let method = match fields.value("method") {
        Some(value) => value.choice(methods, &[]),
        None if graphql => Some(Method::Post),
        None => Some(usual),
    };
    if let [_, second, ..] = given.as_slice() {
        let message = format!("only one of {} may be given", BODIES.join(", "));
        second.problems.add(second.key_place, message, None);
    }
    if let (Some(method), Some(body)) = (method, given.first())
        && !method.has_body()
    {
        let hint = "add method: POST, or use params".to_owned();
        let message = format!("a {} request has no body", method.as_str());
        body.problems.add(body.key_place, message, Some(hint));
    }
    let path = fields.required("path", |value| path(value, scope));
    let params = fields.value("params").map(|value| params(value, scope));
    let headers = fields.value("headers").map(|value| headers(value, scope));
    let body = given.first().map(|value| body(*value, scope));
    Some(Request {
        method: method?,
        path: path?,
        params: params.unwrap_or_else(|| Some(Vec::new()))?,
        headers: headers.unwrap_or_else(|| Some(Vec::new()))?,
        body: body.unwrap_or(Some(Body::None))?,
    })
}

fn body(value: Value<'_>, scope: Scope<'_>) -> Option<Body> {
    match value.key {
        "form" => params(value, scope).map(Body::Form),
        "text" => text(value, scope.dir, scope.known).map(Body::Text),
        "graphql" => graphql(value, scope),
        _ => tree(value, scope).map(Body::Json),
    }
}

fn graphql(value: Value<'_>, scope: Scope<'_>) -> Option<Body> {
    if let Kind::String(_) = value.node.kind {
        return Some(Body::GraphQl {
            query: text(value, scope.dir, scope.known)?,
            variables: Vec::new(),
            operation: None,
        });
    }
    let fields = value.fields(&GRAPHQL)?;
    let query = fields.required("query", |value| text(value, scope.dir, scope.known));
    let variables = fields.optional("variables", |value| members(value, scope));
    let operation = fields.optional("operation", Value::text);
    Some(Body::GraphQl {
        query: query?,
        variables: variables.unwrap_or_default(),
        operation: operation.map(str::to_owned),
    })
}

/// JSON with templates and references in its texts.
fn tree(value: Value<'_>, scope: Scope<'_>) -> Option<Tree> {
    match &value.node.kind {
        Kind::String(_) => text(value, scope.dir, scope.known).map(Tree::Text),
        Kind::Seq(_) => {
            // Every item is visited before the first failure counts, so that all problems are found.
            let items: Vec<Option<Tree>> = value.items()?.map(|item| tree(item, scope)).collect();
            items.into_iter().collect::<Option<Vec<Tree>>>().map(Tree::Array)
        }
        Kind::Map(_) => members(value, scope).map(Tree::Object),
        _ => value.node.to_json(value.problems).map(Tree::Scalar),
    }
}

fn members(value: Value<'_>, scope: Scope<'_>) -> Option<Vec<(String, Tree)>> {
    let entries = value.entries("names with values")?;
    let members: Vec<Option<(String, Tree)>> = entries
        .iter()
        .map(|entry| Some((entry.key.clone(), tree(value.child(entry), scope)?)))
        .collect();
    members.into_iter().collect()
}

/// Each parameter with its values, in order.
fn params(value: Value<'_>, scope: Scope<'_>) -> Option<Vec<(String, Text)>> {
    let read = |entry| {
        let child = value.child(entry);
        if child.key.is_empty() {
            return child.refuse("a parameter needs a name", None);
        }
        let Kind::Seq(_) = child.node.kind else {
            return Some(vec![(child.key.to_owned(), named(child, child.key, scope)?)]);
        };
        let items = child.items()?;
        let values: Vec<Option<_>> = items
            .map(|item| Some((child.key.to_owned(), named(item, child.key, scope)?)))
            .collect();
        values.into_iter().collect::<Option<Vec<_>>>()
    };
    let entries = value.entries("names with values")?.iter();
    let params: Vec<Option<_>> = entries.map(read).collect();
    let params: Option<Vec<Vec<_>>> = params.into_iter().collect();
    params.map(|params| params.concat())
}

/// Each header with its text, in order.
fn headers(value: Value<'_>, scope: Scope<'_>) -> Option<Vec<(String, Text)>> {
    let mut name = header_names();
    let mut read = |entry| {
        let child = value.child(entry);
        let name = name(child);
        Some((name?, named(child, child.key, scope)?))
    };
    let entries = value.entries("names with values")?.iter();
    let headers: Vec<Option<_>> = entries.map(&mut read).collect();
    headers.into_iter().collect()
}

/// The text of the header or parameter `name`.
fn named(value: Value<'_>, name: &str, scope: Scope<'_>) -> Option<Text> {
    let text = text(value, scope.dir, scope.known)?;
    if looks_secret(name) && !text.is_reference() && !text.is_template() {
        warn_literal(value);
    }
    Some(text)
}

/// A path; what stands in its templates and references is encoded as it is rendered.
fn path(value: Value<'_>, scope: Scope<'_>) -> Option<Text> {
    value.any_text()?;
    let path = text(value, scope.dir, scope.known)?;
    let plain = path.outside();
    if plain.contains("://") || plain.starts_with("//") {
        let hint = "the host stands in base_url".to_owned();
        return value.refuse("a path, not a whole URL, is needed", Some(hint));
    }
    if plain.contains(['?', '#']) {
        let hint = "query parameters go into params".to_owned();
        return value.refuse("a path has no ? and no #", Some(hint));
    }
    let dots = |segment: &str| {
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        plain == "." || plain == ".."
    };
    if plain.split(['/', '\\']).any(dots) {
        return value.refuse("a path has no . or .. segments", None);
    }
    let odd = |letter: char| letter == '\\' || letter == ' ' || (letter.is_control() && letter != '\0');
    if plain.contains(odd) {
        return value.refuse("a path has no spaces, backslashes or control characters", None);
    }
    Some(path)
}

/// Reads `config`: values of the user's own. They are no place for secrets, because templates show them.
pub(super) fn config(value: Value<'_>) -> Option<Vec<(String, serde_json::Value)>> {
    let entries = value.entries("values of your own, by name")?;
    let read = |entry| {
        let child = value.child(entry);
        if looks_secret(child.key) || holds_reference(child) {
            return child.refuse(
                "a secret has no place in config, whose values are shown",
                Some(
                    "write ${env:NAME} where it is used, also within a template: {{ ${env:NAME} | base64 }}"
                        .to_owned(),
                ),
            );
        }
        Some((child.key.to_owned(), plain(child)?))
    };
    let values: Vec<Option<_>> = entries.iter().map(read).collect();
    values.into_iter().collect()
}

/// JSON; a number that JSON would write in another way is the text it is written as.
fn plain(value: Value<'_>) -> Option<serde_json::Value> {
    use serde_json::Value as Out;
    match &value.node.kind {
        Kind::Int(written) | Kind::Float(written) => {
            let number: Option<Out> = serde_json::from_str(written).ok();
            let number = number.filter(|number| format!("{number}") == *written);
            Some(number.unwrap_or_else(|| Out::String(written.clone())))
        }
        Kind::Seq(_) => {
            let items: Vec<Option<Out>> = value.items()?.map(plain).collect();
            items.into_iter().collect::<Option<Vec<Out>>>().map(Out::Array)
        }
        Kind::Map(entries) => {
            let members = entries
                .iter()
                .map(|entry| Some((entry.key.clone(), plain(value.child(entry))?)));
            let members: Vec<Option<(String, Out)>> = members.collect();
            let members: Option<serde_json::Map<String, Out>> = members.into_iter().collect();
            members.map(Out::Object)
        }
        _ => value.node.to_json(value.problems),
    }
}

fn holds_reference(value: Value<'_>) -> bool {
    let mut rest = vec![value.node];
    // Each node is looked at once, and a file has a bounded number of them.
    while let Some(node) = rest.pop() {
        match &node.kind {
            Kind::String(text) if text.contains("${") => return true,
            Kind::Seq(items) => rest.extend(items),
            Kind::Map(entries) => rest.extend(entries.iter().map(|entry| &entry.value)),
            _ => {}
        }
    }
    false
}
