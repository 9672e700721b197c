use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::clock::{Clock, Timestamp};

async fn json_of(response: Response) -> Value {
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test]
async fn r147_a_problem_document_has_every_member() {
    let mut headers = HeaderMap::new();
    headers.insert("x-request-id", HeaderValue::from_static("req-1"));
    let request_id = RequestId::of(&headers, &Clock::from_fn(|| Timestamp::UNIX_EPOCH));
    let problem = Problem::new(Code::RateLimited, "100 requests per second")
        .retry_after(Duration::from_millis(1500))
        .at(Fault {
            pointer: "#/3/id".to_owned(),
            detail: "null in a required field".to_owned(),
            code: Some("null_in_required".to_owned()),
        });
    let response = problem.render(Some(Asked {
        request_id: &request_id,
        path: "/v1/streams/shop/orders/records",
        base: "https://ingest.shop.example/landfall",
    }));
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(response.headers()["retry-after"], "2");
    assert_eq!(
        json_of(response).await,
        json!({
            "type": "https://ingest.shop.example/landfall/docs#rate_limited",
            "title": "Too many requests",
            "status": 429,
            "detail": "100 requests per second",
            "instance": "/v1/streams/shop/orders/records",
            "code": "rate_limited",
            "class": "limit",
            "retryable": true,
            "retry_after": 2,
            "request_id": "req-1",
            "errors": [{"pointer": "#/3/id", "detail": "null in a required field", "code": "null_in_required"}],
        })
    );
}

#[test]
fn r087_every_429_and_503_says_when_to_come_back() {
    for code in Code::ALL {
        let response = Problem::new(*code, "x").render(None);
        let waits = response.headers().contains_key(header::RETRY_AFTER);
        if matches!(response.status().as_u16(), 429 | 503) {
            assert!(waits, "{code:?}");
        }
        assert_eq!(waits, matches!(code.row().retry, Retry::After(_)), "{code:?}");
        assert_eq!(
            response.headers().contains_key(header::WWW_AUTHENTICATE),
            response.status() == 401,
            "{code:?}"
        );
    }
}

#[test]
fn r086_every_code_is_one_type_with_its_documentation() {
    let names: BTreeSet<_> = Code::ALL.iter().map(|code| code.row().name).collect();
    assert_eq!(names.len(), Code::ALL.len());
    for code in Code::ALL {
        let row = code.row();
        assert!(
            row.name
                .bytes()
                .all(|byte| byte == b'_' || byte.is_ascii_lowercase())
        );
        assert!(row.status.is_client_error() || row.status.is_server_error());
        assert!(row.documentation.ends_with('.') && !row.title.ends_with('.'));
    }
}

#[test]
fn r086_the_table_of_codes_does_not_change_unseen() {
    let table: String = Code::ALL
        .iter()
        .map(|code| {
            let row = code.row();
            format!("{} {} {}\n", row.status.as_u16(), row.class.name(), row.name)
        })
        .collect();
    insta::assert_snapshot!(table, @"
    401 auth unauthenticated
    401 auth credentials_expired
    401 auth signature_invalid
    401 auth signature_expired
    403 auth forbidden
    400 request invalid_request
    405 request method_not_allowed
    406 request not_acceptable
    414 request uri_too_long
    431 request headers_too_large
    412 request precondition_failed
    422 request url_not_allowed
    422 request uploads_not_taken
    415 serialization unsupported_media_type
    415 serialization unsupported_encoding
    400 serialization body_truncated
    400 serialization body_undecodable
    400 serialization body_malformed
    400 serialization body_too_deep
    400 serialization checksum_mismatch
    400 serialization size_mismatch
    422 contract contract_violation
    422 contract batch_rejected
    413 limit body_too_large
    413 limit body_expands_too_much
    413 limit too_many_records
    413 limit record_too_large
    413 limit limit_reached
    408 limit body_too_slow
    429 limit rate_limited
    429 limit concurrency_limited
    400 idempotency idempotency_key_missing
    400 idempotency idempotency_key_invalid
    409 idempotency idempotency_key_in_use
    422 idempotency idempotency_key_reused
    404 not_found not_found
    404 not_found stream_not_found
    404 not_found receipt_not_found
    404 not_found channel_not_found
    404 not_found job_not_found
    410 gone upload_expired
    410 gone stream_gone
    409 conflict conflict
    409 conflict channel_fenced
    409 conflict offset_conflict
    409 conflict mismatching_upload_offset
    400 conflict inconsistent_upload_length
    400 conflict completed_upload
    409 conflict file_changed
    500 backend internal
    500 backend corrupt
    502 backend upstream_refused
    502 backend file_unavailable
    503 backend unavailable
    503 backend overloaded
    503 backend lake_busy
    503 backend backlog_full
    503 backend deadline_exceeded
    503 backend shutting_down
    507 backend storage_full
    ");
}

#[tokio::test]
async fn r086_each_kind_of_error_has_its_own_type_and_only_what_helps_is_told() {
    let kinds = [
        (ErrorKind::Config, "internal", 500),
        (ErrorKind::Refused, "upstream_refused", 502),
        (ErrorKind::Unavailable, "unavailable", 503),
        (ErrorKind::Conflict, "conflict", 409),
        (ErrorKind::Contract, "contract_violation", 422),
        (ErrorKind::Limit, "limit_reached", 413),
        (ErrorKind::Corrupt, "corrupt", 500),
        (ErrorKind::Internal, "internal", 500),
    ];
    for (kind, code, status) in kinds {
        let error = || Error::new(kind, "read raw page").with("key", "secret/place");
        let problem = Problem::from(error());
        assert!(problem.cause().is_some());
        let document = json_of(problem.into_response()).await;
        assert_eq!(
            document,
            json_of(Problem::from(error()).into_response()).await,
            "the same each time"
        );
        assert_eq!(
            (&document["code"], &document["status"]),
            (&json!(code), &json!(status))
        );
        let told = document.to_string().contains("secret/place");
        assert_eq!(told, status < 500, "{kind:?}");
    }
}

#[test]
fn a_bare_status_finds_its_code() {
    assert_eq!(of_status(StatusCode::NOT_FOUND), Some(Code::NotFound));
    assert_eq!(of_status(StatusCode::IM_A_TEAPOT), None);
    for code in GENERAL {
        assert_eq!(of_status(code.row().status), Some(*code));
    }
}

#[test]
fn faults_are_capped() {
    let mut problem = Problem::new(Code::ContractViolation, "x");
    for row in 0..FAULTS_MAX + 5 {
        problem = problem.at(Fault {
            pointer: format!("#/{row}"),
            detail: "missing".to_owned(),
            code: None,
        });
    }
    assert_eq!(problem.0.faults.len(), FAULTS_MAX);
}
