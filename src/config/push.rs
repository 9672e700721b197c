//! What producers send to a stream: the settings.

use url::Url;

use crate::clock::Timestamp;

/// Where the records of a stream come from.
#[derive(Clone, Debug)]
pub enum Feed {
    /// From an API that is asked.
    Pull,
    /// From producers that send. Nothing is ever asked: the stream's request is that of no one.
    Push(Push),
    /// From both.
    Both(Push),
}

/// How a stream takes what producers send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// Whether a signed webhook needs a token too.
    pub auth: PushAuth,
    /// Whether a request must have an `Idempotency-Key`.
    pub idempotency: Idempotency,
    /// What happens to records that do not fit the contract, before they are acknowledged.
    pub on_violation: OnViolation,
    /// Most records of one request. Default 10,000.
    pub records_max: u64,
    /// Largest body, in bytes after decoding. Default 16 MiB.
    pub bytes_max: u64,
    /// Largest record, in bytes. Default 1 MiB.
    pub record_bytes_max: u64,
    /// From when on producers should use something else (RFC 9745).
    pub deprecated: Option<Timestamp>,
    /// From when on nothing is taken any more (RFC 8594).
    pub sunset: Option<Timestamp>,
    /// The page that tells producers what to use instead; what is told to those who still send.
    pub migration: Option<Url>,
    /// What is said about delivery in the catalog and the documentation; none for what holds for every stream.
    pub delivery: Option<String>,
}

/// Whether a request to the webhook of a stream needs a token of a producer besides its signature. Any other needs one
/// always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushAuth {
    /// It does. The default where there is `push`.
    Token,
    /// The signature is enough. What holds for a stream with a signed `webhook` and no `push`.
    None,
}

/// Whether a request must have an `Idempotency-Key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idempotency {
    /// It counts where there is one. The default.
    Optional,
    /// A request without one is refused.
    Required,
}

/// What happens to records that do not fit the contract of the stream, before they are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnViolation {
    /// Nothing: they are not judged before they are loaded. The default.
    Accept,
    /// They are landed, and named in the answer and beside the body.
    Tag,
    /// They are not landed, and named in the answer.
    Reject,
}

impl Feed {
    /// How it takes what producers send, if it does.
    pub fn push(&self) -> Option<&Push> {
        match self {
            Self::Pull => None,
            Self::Push(push) | Self::Both(push) => Some(push),
        }
    }

    /// Whether there is an API to ask.
    pub fn is_pulled(&self) -> bool {
        !matches!(self, Self::Push(_))
    }
}

impl Push {
    /// Used unless the file says otherwise.
    pub const DEFAULT: Self = Self {
        auth: PushAuth::Token,
        idempotency: Idempotency::Optional,
        on_violation: OnViolation::Accept,
        records_max: 10_000,
        bytes_max: 16 * 1024 * 1024,
        record_bytes_max: 1024 * 1024,
        deprecated: None,
        sunset: None,
        migration: None,
        delivery: None,
    };
}

impl Idempotency {
    /// The word for it in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }
}

impl OnViolation {
    /// The word for it in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Tag => "tag",
            Self::Reject => "reject",
        }
    }
}
