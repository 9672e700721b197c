//! What a sender is answered when its records are kept, made again the same from what was kept.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use serde::Serialize;

use crate::{
    config::StreamName,
    error::{Error, ErrorKind, Result},
    receive::{ReceiptId, ledger::answer::Answer},
    serve::{
        check::Checked,
        problem::{Problem, code::Code},
    },
};

/// Says that an answer is that of an earlier request with the same key.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Said of records that cannot be read, as they are kept all the same.
const NOTE: &str = "the body is kept whole: records that cannot be read are quarantined with their bytes; send mended ones again";

#[derive(Serialize)]
struct Accepted<'a> {
    receipt: ReceiptId,
    stream: String,
    records: Records,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    results: Vec<Told<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    results_omitted: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

#[derive(Serialize)]
struct Records {
    accepted: u64,
    rejected: u64,
}

/// One record that cannot be read.
#[derive(Serialize)]
struct Told<'a> {
    index: u64,
    code: &'a str,
    detail: String,
    retryable: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The answer to records that are kept under `receipt`: 202.
///
/// # Errors
/// [`ErrorKind::Internal`] if it cannot be written as JSON, [`ErrorKind::Limit`] if it is too long to be kept.
pub(crate) fn accepted(
    receipt: ReceiptId,
    stream: &StreamName,
    base_path: &str,
    checked: &Checked,
) -> Result<Answer> {
    let results = checked.bad.iter().map(|bad| Told {
        index: bad.index,
        code: bad.fault.code(),
        detail: bad.fault.to_string(),
        retryable: false,
    });
    let body = Accepted {
        receipt,
        stream: stream.to_string(),
        records: Records {
            accepted: checked.accepted,
            rejected: checked.rejected,
        },
        results: results.collect(),
        results_omitted: checked.rejected - checked.bad.len() as u64,
        note: (checked.rejected > 0).then_some(NOTE),
    };
    let body = serde_json::to_vec(&body)
        .map_err(|source| Error::new(ErrorKind::Internal, "write answer").caused_by(source))?;
    let headers = vec![
        ("content-type".to_owned(), "application/json".to_owned()),
        (
            "location".to_owned(),
            format!("{base_path}/v1/receipts/{receipt}"),
        ),
    ];
    Answer::new(202, headers, Bytes::from(body))
}

/// `answer` as it is sent.
pub(crate) fn response(answer: &Answer) -> Response {
    let mut response = Response::new(Body::from(answer.body().clone()));
    *response.status_mut() =
        StatusCode::from_u16(answer.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in answer.headers() {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// `document` as JSON with `status`.
///
/// # Errors
/// `internal` if it cannot be written as JSON.
pub(crate) fn json(status: StatusCode, document: &impl Serialize) -> Result<Response, Problem> {
    media(status, "application/json", document)
}

/// As [`json`], under another media type.
///
/// # Errors
/// As [`json`].
pub(crate) fn media(
    status: StatusCode,
    content_type: &'static str,
    document: &impl Serialize,
) -> Result<Response, Problem> {
    let body =
        serde_json::to_vec(document).map_err(|_| Problem::new(Code::Internal, "the log has the cause"))?;
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
}
