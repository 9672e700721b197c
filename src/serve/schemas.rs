//! What contracts ask of records, told to those who send them.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    config::{
        Stream,
        push::{OnViolation, Push},
    },
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

/// The records of a stream as its contract has them.
pub(crate) struct Records<'a> {
    /// The stream.
    pub(crate) stream: &'a Stream,
    /// The name of the schema of one record.
    pub(crate) component: String,
    /// That schema.
    pub(crate) schema: Value,
    push: &'a Push,
    version: String,
}

impl Records<'_> {
    /// The schema of a body in JSON: one record, or a batch.
    pub(crate) fn of_json(&self) -> Value {
        let record = json!({ "$ref": format!("#/components/schemas/{}", self.component) });
        json!({
            "oneOf": [record, { "type": "array", "items": record, "maxItems": self.push.records_max }],
        })
    }

    /// The schema of a body in JSON Lines.
    pub(crate) fn of_lines(&self) -> Value {
        let description = format!("One JSON object a line, each a `{}`.", self.component);
        json!({ "type": "string", "description": description })
    }

    /// A record that fits, if one is known.
    pub(crate) fn example(&self) -> Option<&Value> {
        self.schema["examples"].get(0)
    }
}

/// The records of those of `streams` that have a contract. For whoever may read them: a data model is nobody else's business.
pub(crate) async fn records<'a>(app: &App, streams: &[(&'a Stream, &'a Push)]) -> Vec<Records<'a>> {
    let mut all = Vec::new();
    for (stream, push) in streams.iter().take(DESCRIBED_MAX) {
        if let Standing::Present(inspector) = app.inspectors.standing(&stream.name).await {
            all.push(Records {
                stream,
                push,
                component: format!("Record.{}", stream.name),
                schema: inspector.schema(),
                version: inspector.version().to_owned(),
            });
        }
    }
    all
}

/// Adds to the description of the API, `document`, what contracts ask of the records that `route` takes: for every stream
/// that whoever asks may read, and none to somebody who does not say who it is.
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
    for records in records(app, &shown.streams).await {
        add(route, records, document);
    }
    Ok(())
}

/// Adds what `route` is for one stream.
fn add(route: &Route, records: Records<'_>, document: &mut Value) {
    let name = &records.stream.name;
    let method = route.method.as_str();
    let mut operation = document["paths"][route.path][method].clone();
    if let Some(parameters) = operation["parameters"].as_array_mut() {
        parameters.retain(|parameter| parameter["in"] != "path");
    }
    let fate = match records.push.on_violation {
        OnViolation::Accept => "is taken all the same, and quarantined by the load",
        OnViolation::Tag => "is taken all the same and named in the answer, and quarantined by the load",
        OnViolation::Reject => "is rejected",
    };
    let before = operation["description"].as_str().unwrap_or_default();
    let version = &records.version;
    let description = format!("{before} What does not fit version {version} of the contract {fate}.");
    operation["operationId"] = format!("{}.{name}", route.name).into();
    operation["summary"] = format!("Sends records to {name}. They are durable when this is answered.").into();
    operation["description"] = description.trim().into();
    let mut json_body = json!({ "schema": records.of_json() });
    let mut lines_body = json!({ "schema": records.of_lines() });
    if let Some(example) = records.example() {
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
    document["components"]["schemas"][records.component] = records.schema;
    document["paths"][path][method] = operation;
}
