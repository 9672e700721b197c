//! `GET /openapi.json`: the description of this API (OpenAPI 3.1), made of the table that the router is made of.

use std::{collections::BTreeMap, sync::Arc};

use axum::{http::StatusCode, response::Response};
use futures::future::BoxFuture;
use serde_json::{Map, Value, json};

use crate::serve::{
    answer::json as answer,
    app::App,
    call::Call,
    problem::{
        PAGE, Problem,
        code::{Code, Retry},
    },
    routes::{KNOWN, Method, REQUIRED, ROUTES, Route},
    schemas,
    uploads::PARTIAL_UPLOAD,
};

/// The parts that schemas share.
pub(crate) const SCHEMAS: &str = include_str!("openapi/schemas.json");

/// An answer for each of them, by the same names.
pub(crate) const EXAMPLES: &str = include_str!("openapi/examples.json");

/// What any request may be answered, whatever it is about.
const EVERY: [Code; 6] = [
    Code::InvalidRequest,
    Code::UriTooLong,
    Code::HeadersTooLarge,
    Code::Internal,
    Code::DeadlineExceeded,
    Code::ShuttingDown,
];

/// The description.
pub(crate) fn tell<'a>(app: &'a Arc<App>, call: &'a mut Call) -> BoxFuture<'a, Result<Response, Problem>> {
    Box::pin(async move {
        let server = match app.base_url() {
            "" => "/",
            url => url,
        };
        let mut document = document(server)?;
        if let Some(route) = ROUTES.iter().find(|route| route.name == "push_records") {
            schemas::describe(app, call, route, &mut document).await?;
        }
        answer(StatusCode::OK, &document)
    })
}

/// The description of a server that is reached at `server`.
fn document(server: &str) -> Result<Value, Problem> {
    let broken = |_| Problem::new(Code::Internal, "the log has the cause");
    let schemas: Value = serde_json::from_str(SCHEMAS).map_err(broken)?;
    let examples: Map<String, Value> = serde_json::from_str(EXAMPLES).map_err(broken)?;
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str()] = operation(route, &examples).map_err(broken)?;
    }
    let examples = examples
        .into_iter()
        .map(|(name, value)| (name, json!({ "value": value })));
    let problems = Code::ALL
        .iter()
        .map(|code| (code.row().name.to_owned(), example(*code, server)));
    let examples: Map<String, Value> = examples.chain(problems).collect();
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Landfall",
            "summary": "Takes records and events, keeps them durably and lands them in the lake.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "externalDocs": { "url": format!("{}{PAGE}", server.trim_end_matches('/')) },
        "servers": [{ "url": server }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "examples": examples,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "A token of a producer, or a JWT of an issuer." },
                "certificate": { "type": "mutualTLS", "description": "A certificate that stands for a producer." },
            },
        },
    }))
}

/// The document of a problem with `code`.
pub(crate) fn example(code: Code, server: &str) -> Value {
    let row = code.row();
    let mut value = json!({
        "type": format!("{}{PAGE}#{}", server.trim_end_matches('/'), row.name),
        "title": row.title,
        "status": row.status.as_u16(),
        "detail": row.documentation,
        "code": row.name,
        "class": row.class.name(),
        "retryable": row.retry != Retry::Never,
        "request_id": "019ab3c4-7c1e-7d30-9a52-3f1f0b6f4e21",
    });
    if let Retry::After(seconds) = row.retry {
        value["retry_after"] = seconds.into();
    }
    json!({ "summary": row.title, "value": value })
}

fn operation(route: &Route, examples: &Map<String, Value>) -> serde_json::Result<Value> {
    let mut parameters: Vec<Value> = in_path(route.path)
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": of_path(name) }))
        .collect();
    for parameter in route.parameters {
        parameters.push(json!({
            "name": parameter.name,
            "in": parameter.place,
            "required": REQUIRED.contains(&parameter.name),
            "description": parameter.meaning,
            "schema": serde_json::from_str::<Value>(parameter.schema)?,
        }));
    }
    let mut responses = Map::new();
    let gives = route.gives;
    let mut content = json!({ "schema": { "$ref": format!("#/components/schemas/{}", gives.schema) } });
    if examples.contains_key(gives.schema) {
        content["examples"] = referred([gives.schema]);
    }
    let mut success = json!({ "description": gives.meaning, "headers": headers_of(route) });
    if !gives.media.is_empty() {
        success["content"] = json!({ gives.media: content });
    }
    if gives.schema == "Accepted" || gives.schema == "Event" {
        success["links"] = json!({
            "receipt": {
                "operationId": "get_receipt",
                "parameters": { "id": "$response.body#/receipt" },
                "description": "Where it is now.",
            },
        });
    }
    if let Some((status, meaning)) = also(route) {
        let mut other = success.clone();
        other["description"] = meaning.into();
        if let (204, Some(other)) = (status, other.as_object_mut()) {
            other.remove("content");
        }
        responses.insert(status.to_string(), other);
    }
    responses.insert(gives.status.to_string(), success);
    if route
        .parameters
        .iter()
        .any(|parameter| parameter.name == KNOWN.name)
    {
        let same = json!({ "description": "The answer that is known.", "headers": headers_of(route) });
        responses.insert("304".to_owned(), same);
    }
    for (status, codes) in by_status(route.fails) {
        responses.insert(status.to_string(), failure(&codes));
    }
    responses.insert("default".to_owned(), failure(&[]));
    if route.method == Method::Head {
        // An answer to HEAD has no body (RFC 9110, section 9.3.2).
        for response in responses.values_mut().filter_map(Value::as_object_mut) {
            response.remove("content");
        }
    }
    let mut operation = json!({
        "operationId": route.name,
        "summary": route.summary,
        "parameters": parameters,
        "responses": responses,
    });
    if !route.takes.is_empty() {
        let content: Map<String, Value> = route
            .takes
            .iter()
            .map(|media| ((*media).to_owned(), body(route, media)))
            .collect();
        // Whatever an API sends by itself is taken, and be it nothing.
        let is_required = !route.takes.contains(&"*/*");
        operation["requestBody"] = json!({ "required": is_required, "content": content });
    }
    operation["security"] = match route.scope {
        Some(_) => json!([{ "token": [] }, { "certificate": [] }]),
        None if route.fails.contains(&Code::Unauthenticated) => {
            json!([{}, { "token": [] }, { "certificate": [] }])
        }
        None => json!([]),
    };
    if let Some(scope) = route.scope {
        operation["description"] = format!("Needs the scope `{}`.", scope.as_str()).into();
    }
    Ok(operation)
}

/// The names in braces.
pub(crate) fn in_path(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// What stands in a path for `name`.
pub(crate) fn of_path(name: &str) -> Value {
    match name {
        "source" | "stream" => json!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,62}$" }),
        "channel" => json!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._~-]{0,127}$" }),
        "id" => json!({ "type": "string", "format": "uuid" }),
        _ => json!({ "type": "string" }),
    }
}

/// Examples that stand in the components.
fn referred<'a>(names: impl IntoIterator<Item = &'a str>) -> Value {
    let names = names.into_iter();
    let referred = names.map(|name| {
        (
            name.to_owned(),
            json!({ "$ref": format!("#/components/examples/{name}") }),
        )
    });
    Value::Object(referred.collect())
}

/// What else an operation answers when it can.
fn also(route: &Route) -> Option<(u16, &'static str)> {
    match route.name {
        "create_job" => Some((200, "The job, which the same request made before.")),
        "append_to_upload" => Some((204, "The piece is durable, and the file goes on behind it.")),
        _ => None,
    }
}

fn body(route: &Route, media: &str) -> Value {
    match media {
        "application/json" if route.name == "create_job" => json!({
            "schema": { "$ref": "#/components/schemas/JobRequest" },
            "examples": { "file": { "$ref": "#/components/examples/JobRequest" } },
        }),
        PARTIAL_UPLOAD => json!({ "schema": { "type": "string", "format": "binary" } }),
        "application/json" => json!({
            "schema": { "$ref": "#/components/schemas/Records" },
            "examples": {
                "one": { "value": { "id": 1 } },
                "batch": { "value": [{ "id": 1 }, { "id": 2 }] },
            },
        }),
        "application/x-ndjson" => json!({
            "schema": { "type": "string", "description": "One JSON object a line." },
            "examples": { "lines": { "value": "{\"id\":1}\n{\"id\":2}\n" } },
        }),
        _ => json!({}),
    }
}

fn headers_of(route: &Route) -> Value {
    let text = |meaning: &str| json!({ "description": meaning, "schema": { "type": "string" } });
    let mut headers = json!({ "X-Request-Id": text("The name of the request.") });
    if route.scope.is_some() {
        headers["RateLimit"] = text("What is left of what is granted.");
        headers["RateLimit-Policy"] = text("What is granted.");
    }
    if route.gives.status == 307 {
        headers["Location"] = text("The documentation.");
        headers["Link"] = text("The descriptions (RFC 8631).");
    }
    if route
        .parameters
        .iter()
        .any(|parameter| parameter.name == KNOWN.name)
    {
        headers["ETag"] = text("Names this answer among all of this address.");
    }
    if matches!(route.name, "append_to_upload" | "get_upload_offset") {
        headers["Upload-Offset"] = text("How many bytes of the file are here.");
        headers["Upload-Complete"] = text("`?1` if the file is complete.");
        headers["Upload-Limit"] = text("How much may be sent, in all and at a time.");
    }
    if route.name == "create_job" {
        headers["Location"] = text("The job.");
        headers["Idempotency-Replayed"] = text("`true` if the job was made by an earlier request.");
    }
    if matches!(route.name, "push_records" | "append_to_channel") {
        headers["Location"] = text("The receipt.");
        headers["Idempotency-Replayed"] = text("`true` if this is the answer of an earlier request.");
    }
    headers
}

fn by_status(codes: &[Code]) -> BTreeMap<u16, Vec<Code>> {
    let mut found: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes.iter().chain(&EVERY) {
        let known = found.entry(code.row().status.as_u16()).or_default();
        if !known.contains(code) {
            known.push(*code);
        }
    }
    found
}

fn failure(codes: &[Code]) -> Value {
    let rows: Vec<_> = codes.iter().map(|code| code.row()).collect();
    let says: Vec<String> = rows
        .iter()
        .map(|row| format!("`{}`: {}.", row.name, row.title))
        .collect();
    let description = if says.is_empty() {
        "Any other problem.".to_owned()
    } else {
        says.join(" ")
    };
    let mut response = json!({
        "description": description,
        "content": { "application/problem+json": {
            "schema": { "$ref": "#/components/schemas/Problem" },
            "examples": referred(rows.iter().map(|row| row.name)),
        } },
    });
    if rows.iter().any(|row| matches!(row.retry, Retry::After(_))) {
        let schema = json!({ "type": "integer", "minimum": 1 });
        response["headers"] =
            json!({ "Retry-After": { "description": "Seconds to wait.", "schema": schema } });
    }
    response
}

impl Method {
    /// Its name in OpenAPI.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Put => "put",
            Self::Patch => "patch",
            Self::Head => "head",
        }
    }
}
