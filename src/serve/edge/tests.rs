use axum::{
    Extension,
    routing::{get, post},
};
use serde_json::{Value, json};

use super::*;
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind},
};

fn router() -> Router {
    Router::new()
        .route(
            "/ids",
            get(
                async |Extension(id): Extension<RequestId>, Extension(trace): Extension<Trace>| {
                    format!("{id} {trace}")
                },
            ),
        )
        .route("/panic", get(async || -> Response { panic!("on purpose") }))
        .route("/never", get(std::future::pending::<()>))
        .route(
            "/away",
            post(async || -> Result<(), Problem> {
                Err(Error::new(ErrorKind::Unavailable, "append to spool")
                    .with("path", "/hidden")
                    .into())
            }),
        )
}

async fn ask(request: axum::http::request::Builder) -> (Response<()>, Value) {
    let limits = EdgeLimits {
        uri_bytes_max: 100,
        request_timeout: Duration::from_millis(50),
    };
    let edge = Edge::new(router(), limits, Clock::from_fn(|| Timestamp::UNIX_EPOCH), "/in");
    let request = request.header("host", "here").body(Body::empty()).unwrap();
    let (parts, body) = edge.answer(request).await.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let value = serde_json::from_slice(&body)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
    (Response::from_parts(parts, ()), value)
}

#[tokio::test]
async fn r138_id_and_trace_reach_the_handler_and_the_id_comes_back() {
    let request = Request::get("/ids").header("x-request-id", "req-7").header(
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    );
    let (response, body) = ask(request).await;
    assert_eq!(body, "req-7 4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(response.headers()["x-request-id"], "req-7");
}

#[tokio::test]
async fn a_panic_is_a_500_and_nothing_else() {
    let (response, body) = ask(Request::get("/panic")).await;
    assert_eq!(response.status(), 500);
    assert_eq!(body["code"], "internal");
    assert!(!body.to_string().contains("on purpose"));
    let (response, _) = ask(Request::get("/ids")).await;
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn r087_every_request_has_a_deadline() {
    let (response, body) = ask(Request::get("/never")).await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "5");
    assert_eq!(
        (&body["code"], &body["retryable"]),
        (&json!("deadline_exceeded"), &json!(true))
    );
}

#[tokio::test]
async fn r147_every_failure_explains_itself() {
    let cases = [
        (Request::get("/nowhere"), 404, "not_found"),
        (Request::delete("/ids"), 405, "method_not_allowed"),
        (Request::post("/away?token=hidden"), 503, "unavailable"),
        (Request::get(format!("/{}", "a".repeat(100))), 414, "uri_too_long"),
        (
            Request::get("/ids").header("host", "there"),
            400,
            "invalid_request",
        ),
    ];
    for (request, status, code) in cases {
        let (response, body) = ask(request.header("x-request-id", "req-9")).await;
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.headers()["x-request-id"], "req-9");
        assert_eq!(
            (&body["code"], &body["type"], &body["request_id"], &body["status"]),
            (
                &json!(code),
                &json!(format!("/in/docs#{code}")),
                &json!("req-9"),
                &json!(status)
            )
        );
        assert!(
            body["detail"].as_str().unwrap().len() > 10
                && body["instance"].as_str().unwrap().starts_with('/')
        );
        assert!(!body.to_string().contains("hidden"));
    }
    let (response, _) = ask(Request::delete("/ids")).await;
    assert_eq!(response.headers()["allow"], "GET,HEAD");
}

#[tokio::test]
async fn f104_a_chunked_http1_request_is_the_last_of_its_connection() {
    let (response, _) = ask(Request::get("/ids").header("transfer-encoding", "chunked")).await;
    assert_eq!(response.headers()["connection"], "close");
    let (response, _) = ask(Request::get("/ids")).await;
    assert!(!response.headers().contains_key("connection"));
}
