//! `GET /asyncapi.json`: what can be sent, as channels and messages (AsyncAPI 3.0).
//!
//! The document describes this application, so what producers send is what it *receives*; its answer is the reply. Each
//! stream that whoever asks may see has channels of its own; to a stranger the channels are told with what varies in
//! braces.

use std::sync::Arc;

use axum::{http::StatusCode, response::Response};
use futures::future::BoxFuture;
use serde_json::{Map, Value, json};

use crate::{
    config::{
        Stream,
        push::{Push, PushAuth},
        webhook::{Scheme, Webhook},
    },
    serve::{
        answer::json as answer,
        app::App,
        call::Call,
        catalog::{Shown, shown},
        openapi::{EXAMPLES, SCHEMAS, example, in_path, of_path},
        problem::{
            PAGE, Problem,
            code::{Class, Code},
        },
        routes::{ROUTES, Route},
        schemas::{Records, records},
    },
};

/// The schemas that messages have.
const SCHEMAS_USED: [&str; 5] = ["Records", "Accepted", "ViolationCode", "Event", "Problem"];

/// The description.
pub(crate) fn tell<'a>(app: &'a Arc<App>, call: &'a mut Call) -> BoxFuture<'a, Result<Response, Problem>> {
    Box::pin(async move {
        let shown = shown(app, call).await?;
        let origin = call.origin(app);
        let document = document(app, &shown, &origin);
        let mut document = document.map_err(|_| Problem::new(Code::Internal, "the log has the cause"))?;
        for records in records(app, &shown.streams).await {
            describe(records, &mut document);
        }
        answer(StatusCode::OK, &document)
    })
}

/// One channel: something that can be sent to.
struct Channel<'a> {
    route: &'a Route,
    /// The stream it belongs to; none if it stands for all.
    stream: Option<(&'a Stream, &'a Push)>,
    messages: Value,
    security: Value,
}

fn document(app: &App, shown: &Shown<'_>, origin: &str) -> serde_json::Result<Value> {
    let every: Map<String, Value> = serde_json::from_str(SCHEMAS)?;
    let schemas: Map<String, Value> = every
        .into_iter()
        .filter(|(name, _)| SCHEMAS_USED.contains(&name.as_str()))
        .collect();
    let (mut channels, mut operations) = (Map::new(), Map::new());
    for channel in found(app, shown) {
        let (name, described, operation) = channel.describe()?;
        channels.insert(name.clone(), described);
        operations.insert(name, operation);
    }
    let (protocol, rest) = origin.split_once("://").unwrap_or(("http", origin));
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut server = json!({ "host": host, "protocol": protocol, "description": "This server." });
    if !path.is_empty() {
        server["pathname"] = format!("/{path}").into();
    }
    let messages = messages(origin)?;
    Ok(json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Landfall",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Takes records and events, keeps them durably and lands them in the lake. Whoever shows a token \
                            with the scope `read` here is told its streams by name.",
            "license": { "name": "Apache-2.0" },
            "externalDocs": { "url": format!("{origin}{PAGE}") },
        },
        "defaultContentType": "application/json",
        "servers": { "this": server },
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": schemas,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "A token of a producer, or a JWT of an issuer." },
                "certificate": { "type": "X509", "description": "A certificate of a client that stands for a producer." },
            },
        },
    }))
}

/// Has the messages of a stream carry what its contract says of `records`. The words of their schemas are those that
/// AsyncAPI has in common with JSON Schema.
fn describe(records: Records<'_>, document: &mut Value) {
    let channel = format!("{}.records", records.stream.name);
    let example = records.example();
    let forms = [
        ("records", records.of_json(), example.map(|one| json!([one]))),
        (
            "lines",
            records.of_lines(),
            example.map(|one| format!("{one}\n").into()),
        ),
    ];
    if document["channels"].get(&channel).is_none() {
        return;
    }
    for (name, payload, example) in forms {
        let mut message = document["components"]["messages"][name].clone();
        message["payload"] = payload;
        match (example, message["examples"].get_mut(0)) {
            (Some(example), Some(usual)) => usual["payload"] = example,
            // One that does not fit is worse than none.
            _ => message["examples"] = json!([]),
        }
        document["channels"][channel.as_str()]["messages"][name] = message;
    }
    document["components"]["schemas"][records.component] = records.schema;
}

/// What can be sent to, in the order of the streams.
fn found<'a>(app: &App, shown: &'a Shown<'a>) -> Vec<Channel<'a>> {
    let route = |name| ROUTES.iter().find(|route| route.name == name);
    let (Some(records), Some(webhook)) = (route("push_records"), route("push_webhook")) else {
        return Vec::new();
    };
    let known = if app.is_open {
        json!([])
    } else {
        json!([
            { "$ref": "#/components/securitySchemes/token" },
            { "$ref": "#/components/securitySchemes/certificate" },
        ])
    };
    let of_records = |stream| Channel {
        route: records,
        stream,
        messages: json!({
            "records": { "$ref": "#/components/messages/records" },
            "lines": { "$ref": "#/components/messages/lines" },
            "accepted": { "$ref": "#/components/messages/accepted" },
            "problem": { "$ref": "#/components/messages/problem" },
        }),
        security: known.clone(),
    };
    let of_events = |stream: Option<(&'a Stream, &'a Push)>, scheme: Option<&Scheme>| Channel {
        route: webhook,
        stream,
        messages: json!({
            "event": event(scheme),
            "taken": { "$ref": "#/components/messages/taken" },
            "problem": { "$ref": "#/components/messages/problem" },
        }),
        security: match (stream, scheme) {
            (Some((_, push)), Some(scheme)) if push.auth == PushAuth::None => signed(scheme),
            (Some(_), _) => known.clone(),
            (None, _) => json!([]),
        },
    };
    if shown.streams.is_empty() {
        return vec![of_records(None), of_events(None, None)];
    }
    let mut channels = Vec::new();
    for (stream, push) in &shown.streams {
        let stream = (*stream, *push);
        if !(app.is_open && push.auth == PushAuth::None) {
            channels.push(of_records(Some(stream)));
        }
        if let Some(Webhook { scheme, .. }) = &stream.0.webhook {
            channels.push(of_events(Some(stream), Some(scheme)));
        }
    }
    channels
}

/// What an API sends by itself.
fn event(scheme: Option<&Scheme>) -> Value {
    let mut event = json!({
        "title": "An event",
        "contentType": "application/json",
        "payload": { "description": "Whatever its sender says. It is kept byte for byte." },
        "bindings": { "http": { "headers": { "type": "object" }, "bindingVersion": "0.3.0" } },
    });
    let Some(scheme) = scheme else {
        return event;
    };
    let names = scheme.headers();
    let each = names
        .iter()
        .map(|name| ((*name).to_owned(), json!({ "type": "string" })));
    let headers = json!({
        "type": "object",
        "required": names,
        "properties": each.collect::<Map<_, _>>(),
    });
    event["summary"] = format!("Signed as `{}` does.", scheme.as_str()).into();
    event["bindings"]["http"]["headers"] = headers.clone();
    event["headers"] = headers;
    event
}

/// What a signature alone opens.
fn signed(scheme: &Scheme) -> Value {
    let proof = scheme.headers().first().map(|name| {
        json!({
            "type": "httpApiKey",
            "in": "header",
            "name": name,
            "description": "A signature of the body.",
        })
    });
    Value::Array(proof.into_iter().collect())
}

impl Channel<'_> {
    /// Its name, itself, and the operation on it.
    fn describe(&self) -> serde_json::Result<(String, Value, Value)> {
        let kind = self.route.path.rsplit('/').find(|part| !part.starts_with('{'));
        let kind = kind.unwrap_or_default();
        let mut address = self.route.path.to_owned();
        let name = match self.stream {
            None => kind.to_owned(),
            Some((stream, _)) => {
                let parts = [
                    ("{source}", &stream.name.source),
                    ("{stream}", &stream.name.stream),
                ];
                for (brace, part) in parts {
                    address = address.replace(brace, part.as_str());
                }
                format!("{}.{kind}", stream.name)
            }
        };
        let mut channel = json!({
            "address": address,
            "title": name,
            "servers": [{ "$ref": "#/servers/this" }],
            "messages": self.messages,
        });
        if self.stream.is_none() {
            let parameters = in_path(self.route.path).map(|name| {
                let pattern = of_path(name)["pattern"].as_str().unwrap_or_default().to_owned();
                (
                    name.to_owned(),
                    json!({ "description": format!("Matches `{pattern}`.") }),
                )
            });
            channel["parameters"] = Value::Object(parameters.collect());
        }
        let here = format!("#/channels/{name}");
        let refer = |message: &str| json!({ "$ref": format!("{here}/messages/{message}") });
        let is_answer = |name: &str| ["accepted", "taken", "problem"].contains(&name);
        let names = self.messages.as_object().into_iter().flat_map(Map::keys);
        let (answers, asked): (Vec<&String>, Vec<&String>) = names.partition(|name| is_answer(name));
        let mut operation = json!({
            "action": "receive",
            "channel": { "$ref": here },
            "summary": self.route.summary,
            "messages": asked.into_iter().map(|name| refer(name)).collect::<Vec<_>>(),
            "reply": {
                "channel": { "$ref": here },
                "messages": answers.into_iter().map(|name| refer(name)).collect::<Vec<_>>(),
            },
            "bindings": { "http": { "method": "POST", "bindingVersion": "0.3.0" } },
        });
        if self
            .security
            .as_array()
            .is_some_and(|security| !security.is_empty())
        {
            operation["security"] = self.security.clone();
        }
        if let Some((_, push)) = self.stream
            && let Some(delivery) = &push.delivery
        {
            operation["description"] = delivery.as_str().into();
        }
        Ok((name, channel, operation))
    }
}

/// What is said in both directions, whatever the stream.
fn messages(origin: &str) -> serde_json::Result<Value> {
    let examples: Value = serde_json::from_str(EXAMPLES)?;
    let route = ROUTES.iter().find(|route| route.name == "push_records");
    let mut headers = Map::new();
    let parameters = route.map_or(&[][..], |route| route.parameters);
    for parameter in parameters.iter().filter(|parameter| parameter.place == "header") {
        let mut schema: Value = serde_json::from_str(parameter.schema)?;
        schema["description"] = parameter.meaning.into();
        headers.insert(parameter.name.to_owned(), schema);
    }
    let headers = json!({ "type": "object", "properties": headers });
    let sent = |title: &str, content_type: &str, payload: Value, example: Value| {
        json!({
            "title": title,
            "contentType": content_type,
            "headers": headers.clone(),
            "payload": payload,
            "examples": [{ "name": "usual", "headers": { "Idempotency-Key": "\"batch-17\"" }, "payload": example }],
            "bindings": { "http": { "headers": headers.clone(), "bindingVersion": "0.3.0" } },
        })
    };
    let answered = |title: &str, content_type: &str, schema: &str, status: Option<u16>, examples: Value| {
        let mut http = json!({ "headers": { "type": "object" }, "bindingVersion": "0.3.0" });
        if let Some(status) = status {
            http["statusCode"] = status.into();
        }
        json!({
            "title": title,
            "contentType": content_type,
            "payload": { "$ref": format!("#/components/schemas/{schema}") },
            "examples": examples,
            "bindings": { "http": http },
        })
    };
    let usual = |schema: &str| json!([{ "name": "usual", "payload": examples[schema] }]);
    // One of each kind of trouble; the documentation has all.
    let mut classes: Vec<Class> = Vec::new();
    let mut troubles = Vec::new();
    for code in Code::ALL {
        let row = code.row();
        if !classes.contains(&row.class) {
            classes.push(row.class);
            troubles.push(json!({ "name": row.name, "payload": example(*code, origin)["value"] }));
        }
    }
    let record = json!({ "id": 1 });
    let records = json!({ "$ref": "#/components/schemas/Records" });
    let lines = json!({ "type": "string", "description": "One JSON object a line." });
    Ok(json!({
        "records": sent("Records", "application/json", records, json!([record, { "id": 2 }])),
        "lines": sent("Records, one a line", "application/x-ndjson", lines, json!("{\"id\":1}\n{\"id\":2}\n")),
        "accepted": answered("Records are kept", "application/json", "Accepted", Some(202), usual("Accepted")),
        "taken": answered("An event is kept", "application/json", "Event", Some(200), usual("Event")),
        "problem": answered("A problem", "application/problem+json", "Problem", None, Value::Array(troubles)),
    }))
}
