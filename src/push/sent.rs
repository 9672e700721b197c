//! What a server says about what it was sent.

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde::Deserialize;

use crate::{
    error::{Error, ErrorKind, Result},
    push::exchange::Answered,
};

/// How a batch was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// What it is asked for by; none if nothing of it was kept.
    pub receipt: Option<String>,
    /// Records taken.
    pub accepted: u64,
    /// Records that were not, or that do not fit, by their number.
    pub refused: Vec<RefusedRecord>,
    /// How many more there are that are not kept and that the server did not name.
    pub unnamed: u64,
    /// Whether it had been kept before, and this is the answer of then.
    pub replayed: bool,
    /// Requests it took.
    pub attempts: u32,
}

/// A record that the server refused, or that it says is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRecord {
    /// Its place in its batch, from 0.
    pub index: usize,
    /// Why, for programs.
    pub code: String,
    /// Why, in words.
    pub detail: String,
    /// Whether the same record may be taken later.
    pub retryable: bool,
    /// Whether it is kept all the same, to be quarantined when it is loaded.
    pub landed: bool,
}

impl RefusedRecord {
    pub(super) fn is_to_be_sent_again(&self) -> bool {
        self.retryable && !self.landed
    }
}

/// A refusal (RFC 9457).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Problem {
    pub(super) code: String,
    pub(super) detail: String,
    pub(super) retryable: Option<bool>,
    request_id: String,
    errors: Vec<Fault>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Fault {
    pointer: String,
    detail: String,
    code: String,
}

#[derive(Deserialize)]
struct Accepted {
    receipt: String,
    #[serde(default)]
    records: Counts,
    #[serde(default)]
    results: Vec<Told>,
    #[serde(default)]
    results_omitted: u64,
    #[serde(default)]
    duplicate: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Counts {
    accepted: u64,
    rejected: u64,
}

#[derive(Deserialize)]
struct Told {
    index: usize,
    code: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    retryable: bool,
    #[serde(default)]
    landed: bool,
}

/// Codes of refusals that are about the records and not about how they were sent: the others of the stream may follow.
const OF_RECORDS: [&str; 4] = [
    "batch_rejected",
    "body_malformed",
    "body_too_deep",
    "contract_violation",
];

impl Problem {
    /// The problem that an answer with these headers and this body is; an empty one if it is something else.
    pub(super) fn of(headers: &HeaderMap, body: &[u8]) -> Self {
        let kind = headers
            .get(CONTENT_TYPE)
            .map_or(&[][..], |value| value.as_bytes());
        if !kind.starts_with(b"application/problem+json") {
            return Self::default();
        }
        serde_json::from_slice(body).unwrap_or_default()
    }

    /// Whether the records are what is refused.
    pub(super) fn is_of_records(&self) -> bool {
        OF_RECORDS.contains(&self.code.as_str())
    }

    /// All of the `count` records of a batch as refused, in the words of the problem where it names them.
    pub(super) fn refuses(&self, count: usize, attempts: u32) -> Sent {
        let refused = (0..count).map(|index| {
            let pointer = format!("#/{index}");
            let below = format!("{pointer}/");
            let mut faults = self.errors.iter();
            let fault = faults.find(|fault| fault.pointer == pointer || fault.pointer.starts_with(&below));
            let (code, detail) = match fault {
                Some(fault) if !fault.code.is_empty() => (&fault.code, &fault.detail),
                Some(fault) => (&self.code, &fault.detail),
                None => (&self.code, &self.detail),
            };
            RefusedRecord {
                index,
                code: code.clone(),
                detail: detail.clone(),
                retryable: false,
                landed: false,
            }
        });
        Sent {
            refused: refused.collect(),
            attempts,
            ..Sent::default()
        }
    }
}

impl Answered {
    /// What was taken.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] with what the server says if it is no 2xx, and if it is one that says something else.
    pub(super) fn sent(&self, count: usize) -> Result<Sent> {
        if !(200..300).contains(&self.status) {
            return Err(self.refusal("send records"));
        }
        let told: Accepted = serde_json::from_slice(&self.body).map_err(|source| {
            Error::new(ErrorKind::Refused, "read answer to records")
                .with("status", self.status)
                .with("hint", "the server is not one of Landfall, or a much newer one")
                .caused_by(source)
        })?;
        let not_kept = told.results.iter().filter(|told| !told.landed).count() as u64;
        let unnamed = told.records.rejected.saturating_sub(not_kept);
        let refused = told.results.into_iter().filter(|told| told.index < count);
        Ok(Sent {
            receipt: Some(told.receipt),
            accepted: told.records.accepted,
            refused: refused
                .map(|told| RefusedRecord {
                    index: told.index,
                    code: told.code,
                    detail: told.detail,
                    retryable: told.retryable,
                    landed: told.landed,
                })
                .collect(),
            unnamed: told.results_omitted.min(unnamed),
            replayed: told.duplicate || self.headers.get("idempotency-replayed").is_some(),
            attempts: self.attempts,
        })
    }

    /// The error that a refusal is, for the attempt described by `message`.
    pub(super) fn refusal(&self, message: &'static str) -> Error {
        let problem = Problem::of(&self.headers, &self.body);
        let kind = match self.status {
            409 => ErrorKind::Conflict,
            413 => ErrorKind::Limit,
            _ => ErrorKind::Refused,
        };
        let error = Error::new(kind, message)
            .with("status", self.status)
            .with("code", &problem.code)
            .with("detail", &problem.detail)
            .with("request_id", &problem.request_id);
        match self.status {
            401 | 403 => error.with(
                "hint",
                "is the token that of a producer with the scope `ingest` for this stream?",
            ),
            413 => error.with("hint", "make batches smaller: --batch-bytes, --batch-records"),
            _ => error,
        }
    }
}
