//! What contracts ask of records, told to those who send them.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    config::{
        Stream,
        push::{OnViolation, Push},
    },
    ops::inspect::Inspector,
    serve::{app::App, call::Call, catalog::shown, inspectors::Standing, problem::Problem, routes::Route},
};

/// Streams whose records are described at most; the catalog has the others.
const DESCRIBED_MAX: usize = 200;

/// The contract of `stream` as the catalog tells it, with what came of it since the server began.
pub(crate) async fn contract_of(app: &App, stream: &Stream, push: &Push) -> Value {
    let (rejected, tagged) = app.metrics.judged(&stream.name);
    let standing = app.inspectors.standing(&stream.name).await;
    let (version, status) = match &standing {
        Standing::Present(inspector) => (Some(inspector.version()), Some(inspector.status())),
        Standing::Absent | Standing::Unreadable => (None, None),
    };
    json!({
        "on_violation": push.on_violation.as_str(),
        "version": version,
        "status": status,
        "readable": !matches!(standing, Standing::Unreadable),
        "rejected": rejected,
        "tagged": tagged,
    })
}

/// Adds to the description of the API, `document`, what contracts ask of the records that `route` takes: for every stream
/// that whoever asks may read, and none to somebody who does not say who it is. A data model is nobody else's business.
///
/// # Errors
/// 401 for credentials that are not good, 429.
pub(crate) async fn describe(
    app: &Arc<App>,
    call: &mut Call,
    route: &Route,
    document: &mut Value,
) -> Result<(), Problem> {
    let shown = shown(app, call).await?;
    for (stream, push) in shown.streams.into_iter().take(DESCRIBED_MAX) {
        if let Standing::Present(inspector) = app.inspectors.standing(&stream.name).await {
            add(route, stream, push, &inspector, document);
        }
    }
    Ok(())
}

/// Adds what `route` is for one stream.
fn add(route: &Route, stream: &Stream, push: &Push, inspector: &Inspector, document: &mut Value) {
    let name = &stream.name;
    let method = route.method.as_str();
    let component = format!("Record.{name}");
    let schema = inspector.schema();
    let record = json!({ "$ref": format!("#/components/schemas/{component}") });
    let example = schema["examples"].get(0).cloned();
    let mut operation = document["paths"][route.path][method].clone();
    if let Some(parameters) = operation["parameters"].as_array_mut() {
        parameters.retain(|parameter| parameter["in"] != "path");
    }
    let fate = match push.on_violation {
        OnViolation::Accept => "is taken all the same, and quarantined by the load",
        OnViolation::Tag => "is taken all the same and named in the answer, and quarantined by the load",
        OnViolation::Reject => "is rejected",
    };
    let before = operation["description"].as_str().unwrap_or_default();
    let version = inspector.version();
    let description = format!("{before} What does not fit version {version} of the contract {fate}.");
    operation["operationId"] = format!("{}.{name}", route.name).into();
    operation["summary"] = format!("Sends records to {name}. They are durable when this is answered.").into();
    operation["description"] = description.trim().into();
    let mut json_body = json!({
        "schema": {
            "oneOf": [record, { "type": "array", "items": record, "maxItems": push.records_max }],
        },
    });
    let mut lines_body = json!({
        "schema": { "type": "string", "description": format!("One JSON object a line, each a `{component}`.") },
    });
    if let Some(example) = example {
        lines_body["examples"] = json!({ "lines": { "value": format!("{example}\n") } });
        json_body["examples"] = json!({ "one": { "value": example }, "batch": { "value": [example] } });
    }
    operation["requestBody"]["content"] = json!({
        "application/json": json_body,
        "application/x-ndjson": lines_body,
    });
    let path = route
        .path
        .replace("{source}", name.source.as_str())
        .replace("{stream}", name.stream.as_str());
    document["components"]["schemas"][component] = schema;
    document["paths"][path][method] = operation;
}
