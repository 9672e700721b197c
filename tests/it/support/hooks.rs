//! Webhooks of every scheme that signs, and a project that takes them.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use landfall::clock::Clock;
use serde_json::Value;

use crate::support::{project::TestProject, serving::Server};

/// Every scheme that signs, with its settings.
pub const SCHEMES: [(&str, &str); 6] = [
    ("standard", "scheme: standard_webhooks"),
    ("github", "scheme: github"),
    ("stripe", "scheme: stripe"),
    ("shopify", "scheme: shopify"),
    ("slack", "scheme: slack"),
    (
        "described",
        "scheme: hmac, header: X-Signature, prefix: 'v1:', timestamp: X-Timestamp, signed: '{timestamp}.{body}', \
         event_id: 'header:X-Id'",
    ),
];

/// What all of them are signed with.
pub const SECRET: &str = "a secret of at least 24 bytes";

/// A project with the `streams` of the source `shop`, and a token for all of them.
pub fn project(streams: &str) -> (TestProject, String) {
    let project = TestProject::new("http://127.0.0.1:9", "\n");
    let made = project.ok(&["token"]);
    let hash = made.stderr.trim().strip_prefix("hash: ").unwrap();
    let text = format!(
        "lake: ./lake
serve: {{ listen: '127.0.0.1:0', admin_listen: '127.0.0.1:0', audit_log: audit.jsonl }}
producers:
  checkout: {{ scopes: [ingest, read], streams: ['shop.*'], tokens: {{ main: {{ hash: '{hash}' }} }} }}
sources:
  shop:
    streams:
{streams}"
    );
    project.write("landfall.yml", &text);
    project.write("secret", SECRET);
    let whsec = format!("whsec_{}", STANDARD.encode(SECRET));
    project.write("secret_of_standard", &whsec);
    (project, made.stdout.trim().to_owned())
}

/// A stream that takes webhooks of `scheme`.
pub fn hook(name: &str, settings: &str, push: &str) -> String {
    let file = match settings.contains("standard_webhooks") {
        true => "secret_of_standard",
        false => "secret",
    };
    format!(
        "      {name}:
        push: {{ auth: none{push} }}
        webhook: {{ {settings}, secrets: {{ main: '${{file:{file}}}' }} }}
        table: {{ keys: [id] }}
"
    )
}

pub fn every_scheme() -> String {
    SCHEMES
        .iter()
        .map(|(name, settings)| hook(name, settings, ""))
        .collect()
}

pub fn mac(parts: &[&[u8]]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    hmac::sign(&key, &parts.concat()).as_ref().to_vec()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn now() -> i64 {
    Clock::system().now().timestamp()
}

/// The headers with which a sender of `scheme` signs `body` at the second `at`, for the event `id` where a header has it.
pub fn signed(scheme: &str, id: &str, at: i64, body: &[u8]) -> Vec<(&'static str, String)> {
    let moment = at.to_string();
    let dated =
        |before: &str, between: &str| mac(&[before.as_bytes(), moment.as_bytes(), between.as_bytes(), body]);
    match scheme {
        "standard" => vec![
            (
                "webhook-signature",
                format!("v1,{}", STANDARD.encode(dated(&format!("{id}."), "."))),
            ),
            ("webhook-timestamp", moment.clone()),
            ("webhook-id", id.to_owned()),
        ],
        "github" => vec![
            ("x-hub-signature-256", format!("sha256={}", hex(&mac(&[body])))),
            ("x-github-delivery", id.to_owned()),
            ("x-github-event", "push".to_owned()),
        ],
        "stripe" => vec![(
            "stripe-signature",
            format!("t={moment},v1={}", hex(&dated("", "."))),
        )],
        "shopify" => vec![
            ("x-shopify-hmac-sha256", STANDARD.encode(mac(&[body]))),
            ("x-shopify-webhook-id", id.to_owned()),
        ],
        "slack" => vec![
            ("x-slack-signature", format!("v0={}", hex(&dated("v0:", ":")))),
            ("x-slack-request-timestamp", moment.clone()),
        ],
        "described" => vec![
            ("x-signature", format!("v1:{}", hex(&dated("", ".")))),
            ("x-timestamp", moment.clone()),
            ("x-id", id.to_owned()),
        ],
        other => panic!("{other}"),
    }
}

/// Sends a webhook and returns the status and the answer.
pub async fn send(
    server: &Server,
    stream: &str,
    headers: &[(&'static str, String)],
    body: impl Into<Vec<u8>>,
) -> (u16, Value) {
    let url = format!("{}/v1/webhooks/shop/{stream}", server.producers);
    let mut request = reqwest::Client::new().post(url).body(body.into());
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    answered(request).await
}

pub async fn answered(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.bytes().await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// The records of a stream in raw, in their order.
pub fn raw(project: &TestProject, stream: &str) -> Vec<String> {
    let query = format!("SELECT record FROM shop.{stream}__raw ORDER BY _lf_batch, _lf_page, _lf_record");
    let rows = project.sql(&query);
    rows.iter()
        .map(|row| row["record"].as_str().unwrap().to_owned())
        .collect()
}
