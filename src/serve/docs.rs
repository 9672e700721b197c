//! `GET /docs`: everything about this API for people, on one page that needs nothing else: no script, no other resource.
//!
//! It is made of the table that the router is made of, of the table of problems, and of what the catalog tells of each stream
//! to whoever asks. Every problem has its place there, which is the type of that problem.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{
            CONTENT_SECURITY_POLICY, CONTENT_TYPE, LINK, LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::future::BoxFuture;
use minijinja::{Environment, UndefinedBehavior, context, value::Serde};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    config::{producers::Rates, push::Push},
    serve::{
        app::App,
        call::Call,
        catalog::{Shown, describe, shown},
        offer,
        problem::{
            PAGE, Problem,
            code::{Code, Retry},
        },
        routes::{ROUTES, Route},
    },
};

const TEMPLATE: &str = include_str!("docs/page.html");

const STYLE: &str = include_str!("docs/page.css");

/// The name ends with what makes the template escape for HTML.
const NAME: &str = "page.html";

/// `GET /`: the way to the page, and to the descriptions (RFC 8631).
pub(crate) fn home<'a>(app: &'a Arc<App>, call: &'a mut Call) -> BoxFuture<'a, Result<Response, Problem>> {
    Box::pin(async move {
        let base = app.base_path();
        app.tell_catalog(call);
        for (name, relation) in [
            ("/openapi.json", "service-desc"),
            ("/asyncapi.json", "service-desc"),
            (PAGE, "service-doc"),
        ] {
            call.tell(LINK, &format!("<{base}{name}>; rel=\"{relation}\""));
        }
        call.tell(LOCATION, &format!("{base}{PAGE}"));
        let text = format!("The documentation is at {}{PAGE}\n", call.origin(app));
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, plain);
        Ok(response)
    })
}

/// The page.
pub(crate) fn page<'a>(app: &'a Arc<App>, call: &'a mut Call) -> BoxFuture<'a, Result<Response, Problem>> {
    Box::pin(async move {
        let shown = shown(app, call).await?;
        let streams = streams(app, &shown).await;
        let text = render(app, &shown, streams, &call.origin(app)).map_err(|error| {
            tracing::error!(error = format!("{error:#}"), "documentation not written");
            Problem::new(Code::Internal, "the log has the cause")
        })?;
        let mut response = Response::new(Body::from(text));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        for (name, value) in [
            (CONTENT_SECURITY_POLICY, policy()),
            (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
            (REFERRER_POLICY, "no-referrer".to_owned()),
            (
                HeaderName::from_static("cross-origin-resource-policy"),
                "same-origin".to_owned(),
            ),
        ] {
            let value = HeaderValue::try_from(value);
            headers.insert(
                name,
                value.map_err(|_| Problem::new(Code::Internal, "the log has the cause"))?,
            );
        }
        Ok(response)
    })
}

/// Nothing may be loaded or sent, and no style but that of the page counts.
fn policy() -> String {
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// The streams that are shown, as the catalog tells them.
async fn streams(app: &App, shown: &Shown<'_>) -> Vec<Value> {
    let mut streams = Vec::new();
    for (stream, push) in &shown.streams {
        let mut told = describe(app, shown.caller.as_ref(), stream, push).await;
        let headers = stream
            .webhook
            .as_ref()
            .map(|webhook| webhook.scheme.headers().join(", "));
        told["signed_by"] = headers.into();
        streams.push(told);
    }
    streams
}

fn render(
    app: &App,
    shown: &Shown<'_>,
    streams: Vec<Value>,
    origin: &str,
) -> Result<String, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_filter("prose", prose);
    environment.add_template(NAME, TEMPLATE)?;
    let endpoints: Vec<Value> = ROUTES.iter().map(endpoint).collect();
    let problems: Vec<Value> = Code::ALL.iter().copied().map(problem).collect();
    let promises = offer::PROMISES.iter().chain([&offer::ONE_ROW_FOR_A_KEY]);
    let promises: Vec<Value> = promises
        .map(|promise| json!({ "name": promise.name, "says": promise.says }))
        .collect();
    environment.get_template(NAME)?.render(context! {
        style => STYLE,
        version => env!("CARGO_PKG_VERSION"),
        origin => origin,
        base => app.base_path(),
        is_open => app.is_open,
        commands => commands(app, shown, origin),
        endpoints => Serde(endpoints),
        streams => Serde(streams),
        limits => Serde(offer::limits(app, &Push::DEFAULT)),
        timeouts => Serde(offer::timeouts(app, &Push::DEFAULT)),
        rate => Serde(offer::told(&Rates::DEFAULT)),
        promises => Serde(promises),
        problems => Serde(problems),
    })
}

/// A sentence with what stands between backticks as code, for HTML.
fn prose(text: &str) -> minijinja::Value {
    let mut html = String::with_capacity(text.len() + 64);
    for (number, part) in text.split('`').enumerate() {
        if number > 0 {
            html.push_str(if number % 2 == 1 { "<code>" } else { "</code>" });
        }
        for character in part.chars() {
            match character {
                '&' => html.push_str("&amp;"),
                '<' => html.push_str("&lt;"),
                '>' => html.push_str("&gt;"),
                '"' => html.push_str("&quot;"),
                '\'' => html.push_str("&#x27;"),
                other => html.push(other),
            }
        }
    }
    minijinja::Value::from_safe_string(html)
}

/// What a newcomer types: what streams there are, records into one, what became of them.
fn commands(app: &App, shown: &Shown<'_>, origin: &str) -> Vec<String> {
    let token = if app.is_open {
        ""
    } else {
        "-H \"Authorization: Bearer $TOKEN\" "
    };
    let stream = shown.streams.first().map(|(stream, _)| &stream.name);
    let stream = stream.map_or("SOURCE/STREAM".to_owned(), |name| {
        format!("{}/{}", name.source, name.stream)
    });
    vec![
        format!("curl {token}{origin}/v1/streams"),
        format!(
            "curl {token}-H 'Content-Type: application/json' -d '[{{\"id\": 1, \"updated_at\": \"2026-01-01T00:00:00Z\"}}]' \
             {origin}/v1/streams/{stream}/records"
        ),
        format!("curl {token}{origin}/v1/receipts"),
    ]
}

fn endpoint(route: &Route) -> Value {
    let parameters = route.parameters.iter().map(
        |parameter| json!({ "name": parameter.name, "place": parameter.place, "meaning": parameter.meaning }),
    );
    let mut fails: Vec<&str> = route.fails.iter().map(|code| code.row().name).collect();
    fails.sort_unstable();
    json!({
        "name": route.name,
        "method": route.method.as_str().to_uppercase(),
        "path": route.path,
        "summary": route.summary,
        "scope": route.scope.map(|scope| scope.as_str()),
        "parameters": parameters.collect::<Vec<_>>(),
        "takes": route.takes,
        "status": route.gives.status,
        "media": route.gives.media,
        "meaning": route.gives.meaning,
        "fails": fails,
    })
}

fn problem(code: Code) -> Value {
    let row = code.row();
    json!({
        "name": row.name,
        "class": row.class.name(),
        "status": row.status.as_u16(),
        "title": row.title,
        "documentation": row.documentation,
        "retry": match row.retry {
            Retry::Never => "The same request will fail again.".to_owned(),
            Retry::Soon => "The same request may be sent again, with backoff.".to_owned(),
            Retry::After(seconds) => format!(
                "The same request may be sent again after the time in Retry-After, usually {seconds} s."
            ),
        },
    })
}
