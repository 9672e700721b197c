//! What a sender is answered when its records are kept, made again the same from what was kept.

use std::borrow::Cow;

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{
    config::StreamName,
    error::{Error, ErrorKind, Result},
    ops::inspect::Inspected,
    raw::judged::Judged,
    receive::{ReceiptId, ledger::answer::Answer},
    serve::{
        call::Call,
        check::Checked,
        problem::{Problem, code::Code},
        ruling::place,
    },
};

/// Says that an answer is that of an earlier request with the same key.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Said of records that are kept although they will not come into the table as they are.
const KEPT: &str = "the body is kept whole: records that cannot be read or do not fit are quarantined with their bytes; send mended ones again";

/// Said of records that are not kept.
const LEFT_OUT: &str =
    "records that are rejected are not kept: send mended ones again, under another Idempotency-Key";

/// Said while there is no contract.
const ABSENT: &str = "the stream has no contract yet: no record was judged";

/// Said while the contract cannot be read.
const UNREAD: &str = "the contract of the stream cannot be read now: no record was judged";

/// Said of what was judged before this process began.
const AS_JUDGED: &str = "as it was judged when it was received";

/// Longest results of an answer, in bytes: well within [`Answer::BYTES_MAX`].
const RESULTS_BYTES_MAX: usize = 48 << 10;

/// How the contract of a stream stands towards a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standpoint {
    /// Records are not judged before they are loaded.
    NotAsked,
    /// There is none yet.
    Absent,
    /// It cannot be read now.
    Unread,
    /// It judged by this version.
    Judged(String),
}

/// What came of the records of a body.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Records that are kept and, as far as is known, fit.
    pub(crate) accepted: u64,
    /// Records that cannot be read, or are not kept.
    pub(crate) rejected: u64,
    /// Records that are kept and do not fit.
    pub(crate) tagged: u64,
    standpoint: Standpoint,
    results: Vec<Told>,
    note: Option<&'static str>,
}

#[derive(Serialize)]
struct Accepted<'a> {
    receipt: ReceiptId,
    stream: String,
    records: Records,
    #[serde(skip_serializing_if = "Option::is_none")]
    contract: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "<[Told]>::is_empty")]
    results: &'a [Told],
    #[serde(skip_serializing_if = "is_zero")]
    results_omitted: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

#[derive(Serialize)]
struct Records {
    accepted: u64,
    rejected: u64,
    #[serde(skip_serializing_if = "is_zero")]
    tagged: u64,
}

/// One record that is not as it should be.
#[derive(Debug, Serialize)]
struct Told {
    index: u64,
    #[serde(flatten)]
    why: Why,
    retryable: bool,
    /// Whether it is kept all the same.
    landed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    further: Vec<Why>,
}

/// One thing that is wrong with a record.
#[derive(Debug, Serialize)]
struct Why {
    code: Cow<'static, str>,
    pointer: String,
    detail: Cow<'static, str>,
}

/// Whether a count need not be told.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(crate) fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Standpoint {
    /// The version of the contract that judged.
    pub(crate) fn version(&self) -> Option<&str> {
        match self {
            Self::Judged(version) => Some(version),
            Self::NotAsked | Self::Absent | Self::Unread => None,
        }
    }

    /// What an answer says of the contract: nothing, none, or its version.
    pub(crate) fn told(&self) -> Option<Option<&str>> {
        (*self != Self::NotAsked).then(|| self.version())
    }

    fn note(&self) -> Option<&'static str> {
        match self {
            Self::NotAsked | Self::Judged(_) => None,
            Self::Absent => Some(ABSENT),
            Self::Unread => Some(UNREAD),
        }
    }
}

impl Outcome {
    /// What came of records that were not judged.
    pub(crate) fn of(checked: &Checked, standpoint: Standpoint) -> Self {
        let told = checked.bad.iter().map(|bad| {
            let why = Why {
                code: bad.fault.code().into(),
                pointer: place(false, Some(bad.index), ""),
                detail: bad.fault.to_string().into(),
            };
            Told::new(bad.index, true, why)
        });
        Self {
            accepted: checked.accepted,
            rejected: checked.rejected,
            tagged: 0,
            note: (checked.rejected > 0).then_some(KEPT).or(standpoint.note()),
            standpoint,
            results: short(told),
        }
    }

    /// What came of records that are all kept. `is_single` says whether the body is one record.
    pub(crate) fn tagged(
        checked: &Checked,
        inspected: &Inspected,
        is_single: bool,
        standpoint: Standpoint,
    ) -> Self {
        Self {
            accepted: checked.accepted,
            rejected: checked.rejected,
            // Whatever cannot be read does not fit either.
            tagged: inspected.misfits.saturating_sub(checked.rejected),
            standpoint,
            results: results(inspected, is_single, true),
            note: (inspected.misfits > 0).then_some(KEPT),
        }
    }

    /// What came of records of which those are kept that fit.
    pub(crate) fn rejected(inspected: &Inspected, is_single: bool, standpoint: Standpoint) -> Self {
        Self {
            accepted: (inspected.fits.len() as u64).saturating_sub(inspected.misfits),
            rejected: inspected.misfits,
            tagged: 0,
            standpoint,
            results: results(inspected, is_single, false),
            note: (inspected.misfits > 0).then_some(LEFT_OUT),
        }
    }

    /// What came of records that were judged before this process began, by what is known beside their body, of which
    /// `checked` was found: the same, but for places and words.
    pub(crate) fn remembered(checked: &Checked, judged: &Judged) -> Self {
        let landed = judged.sent.is_none();
        let told = judged.named.iter().map(|(index, code)| {
            let why = Why {
                code: code.clone().into(),
                pointer: place(false, Some(*index), ""),
                detail: AS_JUDGED.into(),
            };
            Told::new(*index, landed, why)
        });
        let note = if landed { KEPT } else { LEFT_OUT };
        Self {
            accepted: checked.accepted,
            rejected: if landed { checked.rejected } else { judged.misfits },
            tagged: if landed {
                judged.misfits.saturating_sub(checked.rejected)
            } else {
                0
            },
            standpoint: Standpoint::Judged(judged.contract.clone()),
            results: short(told),
            note: (judged.misfits > 0).then_some(note),
        }
    }
}

impl Told {
    fn new(index: u64, landed: bool, why: Why) -> Self {
        Self {
            index,
            why,
            retryable: false,
            landed,
            further: Vec::new(),
        }
    }
}

fn results(inspected: &Inspected, is_single: bool, landed: bool) -> Vec<Told> {
    let told = inspected.told.iter().filter_map(|misfit| {
        let mut why = misfit.reasons.iter().map(|reason| Why {
            code: reason.code.into(),
            pointer: place(is_single, misfit.index, &reason.pointer),
            detail: reason.detail.clone().into(),
        });
        let first = Told::new(misfit.index.unwrap_or(0), landed, why.next()?);
        Some(Told {
            further: why.collect(),
            ..first
        })
    });
    short(told)
}

/// The first of `told`, as many as an answer has room for.
fn short(told: impl Iterator<Item = Told>) -> Vec<Told> {
    let mut bytes = 0;
    told.take_while(|told| {
        bytes += serde_json::to_vec(told).map_or(usize::MAX / 2, |told| told.len() + 1);
        bytes <= RESULTS_BYTES_MAX
    })
    .collect()
}

/// The answer to records that are kept under `receipt`: 202.
///
/// # Errors
/// [`ErrorKind::Internal`] if it cannot be written as JSON, [`ErrorKind::Limit`] if it is too long to be kept.
pub(crate) fn accepted(
    receipt: ReceiptId,
    stream: &StreamName,
    base_path: &str,
    outcome: &Outcome,
) -> Result<Answer> {
    let body = Accepted {
        receipt,
        stream: stream.to_string(),
        records: Records {
            accepted: outcome.accepted,
            rejected: outcome.rejected,
            tagged: outcome.tagged,
        },
        contract: outcome.standpoint.told(),
        results: &outcome.results,
        results_omitted: (outcome.rejected + outcome.tagged).saturating_sub(outcome.results.len() as u64),
        note: outcome.note,
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

/// `document` as JSON, or word that it is the one that `call` has already (RFC 9110, section 13.1.2).
///
/// # Errors
/// As [`json`].
pub(crate) fn tagged(call: &Call, document: &impl Serialize) -> Result<Response, Problem> {
    let body =
        serde_json::to_vec(document).map_err(|_| Problem::new(Code::Internal, "the log has the cause"))?;
    let digest = Sha256::digest(&body);
    let digits: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{digits}\"");
    let known = call.headers.get_all(header::IF_NONE_MATCH).iter();
    let is_known = names(known.filter_map(|value| value.to_str().ok()), &tag);
    let mut response = Response::new(if is_known { Body::empty() } else { Body::from(body) });
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(header::ETAG, tag);
    }
    // Whoever asks may not be whoever asked before.
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, no-cache"),
    );
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    Ok(response)
}

/// Whether values of `If-None-Match` name `tag`, a strong entity tag with its quotes, by the weak comparison that is asked
/// for there (RFC 9110, section 8.8.3.2). Of a value nothing counts from where it is no list of entity tags.
pub(super) fn names<'a>(values: impl Iterator<Item = &'a str>, tag: &str) -> bool {
    let tag = tag.trim_matches('"');
    let mut values = values.map(|value| value.trim_matches([' ', '\t']));
    values.any(|value| {
        let mut rest = value;
        while let Some((known, behind)) = entity_tag(rest) {
            if known == tag {
                return true;
            }
            rest = behind;
        }
        value == "*"
    })
}

/// The entity tag at the beginning of a list, without its quotes, and what stands behind it.
fn entity_tag(list: &str) -> Option<(&str, &str)> {
    const BETWEEN: [char; 3] = [' ', '\t', ','];
    let list = list.trim_start_matches(BETWEEN);
    let quoted = list.strip_prefix("W/").unwrap_or(list).strip_prefix('"')?;
    // There is no escape in it.
    let (known, behind) = quoted.split_once('"')?;
    let behind = behind.trim_start_matches([' ', '\t']);
    (behind.is_empty() || behind.starts_with(',')).then_some((known, behind))
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
