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
        Problem,
        code::{Code, Retry},
    },
    routes::{Method, ROUTES, Route},
};

/// The parts that schemas share.
const SCHEMAS: &str = include_str!("openapi/schemas.json");

/// The description.
pub(crate) fn tell<'a>(app: &'a Arc<App>, call: &'a mut Call) -> BoxFuture<'a, Result<Response, Problem>> {
    let _ = call;
    Box::pin(async move {
        let server = match &app.serve.public_url {
            Some(url) => url.as_str().trim_end_matches('/').to_owned(),
            None => "/".to_owned(),
        };
        answer(StatusCode::OK, &document(&server)?)
    })
}

/// The description of a server that is reached at `server`.
fn document(server: &str) -> Result<Value, Problem> {
    let broken = |_| Problem::new(Code::Internal, "the log has the cause");
    let schemas: Value = serde_json::from_str(SCHEMAS).map_err(broken)?;
    let mut paths = Map::new();
    for route in &ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str()] = operation(route).map_err(broken)?;
    }
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Landfall",
            "summary": "Takes records and events, keeps them durably and lands them in the lake.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": server }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "A token of a producer, or a JWT of an issuer." },
                "certificate": { "type": "mutualTLS", "description": "A certificate that stands for a producer." },
            },
        },
    }))
}

fn operation(route: &Route) -> serde_json::Result<Value> {
    let mut parameters: Vec<Value> = in_path(route.path)
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    for parameter in route.parameters {
        parameters.push(json!({
            "name": parameter.name,
            "in": parameter.place,
            "description": parameter.meaning,
            "schema": serde_json::from_str::<Value>(parameter.schema)?,
        }));
    }
    let mut responses = Map::new();
    let gives = route.gives;
    responses.insert(
        gives.status.to_string(),
        json!({
            "description": gives.meaning,
            "headers": headers_of(route),
            "content": { gives.media: { "schema": { "$ref": format!("#/components/schemas/{}", gives.schema) } } },
        }),
    );
    for (status, codes) in by_status(route.fails) {
        responses.insert(status.to_string(), failure(&codes));
    }
    responses.insert("default".to_owned(), failure(&[]));
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
            .map(|media| ((*media).to_owned(), body(media)))
            .collect();
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    operation["security"] = match route.scope {
        Some(_) => json!([{ "token": [] }, { "certificate": [] }]),
        None => json!([{}]),
    };
    if let Some(scope) = route.scope {
        operation["description"] = format!("Needs the scope `{}`.", scope.as_str()).into();
    }
    Ok(operation)
}

/// The names in braces.
fn in_path(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn body(media: &str) -> Value {
    match media {
        "application/json" => json!({
            "schema": { "oneOf": [{ "type": "object" }, { "type": "array", "items": { "type": "object" } }] },
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
    if route.name == "push_records" {
        headers["Location"] = text("The receipt.");
        headers["Idempotency-Replayed"] = text("`true` if this is the answer of an earlier request.");
    }
    headers
}

fn by_status(codes: &[Code]) -> BTreeMap<u16, Vec<Code>> {
    let mut found: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes {
        found.entry(code.row().status.as_u16()).or_default().push(*code);
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
        "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
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
        }
    }
}
