//! One file on its way: what was announced, how much of it is here, and what became of it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::{Builder, Uuid};

use crate::{
    clock::Timestamp,
    config::StreamName,
    error::{Error, ErrorKind, Result},
    receive::ReceiptId,
};

/// The form of the file a job is kept in.
pub(super) const VERSION: u32 = 1;

/// The name of a job: what it was made from, so that the same request finds it again. A version 8 UUID (RFC 9562, section 5.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(Uuid);

/// How a file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Packed {
    /// Not at all.
    Not,
    /// One or more gzip members.
    Gzip,
    /// One or more Zstandard frames.
    Zstd,
}

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its producer sends it.
    WaitingForUpload,
    /// Nobody works on it yet.
    Queued,
    /// It is fetched from where it is.
    Fetching,
    /// It was found whole and sound; its records are landed one batch after the other.
    Landing,
    /// All its records are acknowledged.
    Done,
    /// It came to no good end. Nothing of it is landed, unless its stream was withdrawn in the middle of that.
    Quarantined,
}

/// How far the landing of a file is: a position in it, unpacked, and what was counted up to there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Bytes from the beginning; a record ends there.
    pub bytes: u64,
    /// Records that were kept and can be read.
    pub records: u64,
    /// Records that cannot be read, or that the contract rejects.
    pub refused: u64,
}

/// Why a job is quarantined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// The name by which programs know it.
    pub code: String,
    /// What it is, without contents.
    pub detail: String,
    /// Whether the same request may have another end.
    pub retryable: bool,
}

/// One file on its way.
#[derive(Clone, Serialize, Deserialize)]
pub struct Job {
    /// The form it is kept in.
    version: u32,
    /// Its name.
    pub id: JobId,
    /// The stream its records are for.
    #[serde(with = "name")]
    pub stream: StreamName,
    /// Who made it, if that was asked.
    pub producer: Option<String>,
    /// What tells the request it was made by from another with the same key.
    pub request: String,
    /// The SHA-256 of the file as it is sent, lowercase hex.
    pub sha256: String,
    /// How many bytes that are.
    pub bytes: u64,
    /// How it is packed.
    pub packed: Packed,
    /// Whether it is fetched, and not sent.
    pub is_fetched: bool,
    /// Where it is fetched from; forgotten when it has ended, because it may hold a signature.
    pub url: Option<String>,
    /// The trace of the request it was made by.
    pub trace_id: String,
    /// When it was made, or begun anew.
    pub made_at: Timestamp,
    /// When it changed last.
    pub updated_at: Timestamp,
    /// Where it is.
    pub state: State,
    /// Bytes of the file that are durable here.
    pub offset: u64,
    /// What the server it is fetched from calls this state of it.
    pub etag: Option<String>,
    /// How far its landing is.
    pub position: Position,
    /// Receipts of its batches, at most [`Job::RECEIPTS_MAX`].
    pub receipts: Vec<ReceiptId>,
    /// How many more there are.
    pub receipts_omitted: u64,
    /// Why it is quarantined.
    pub problem: Option<Trouble>,
}

/// What a new job is made of.
pub struct Announced {
    /// Its name.
    pub id: JobId,
    /// The stream its records are for.
    pub stream: StreamName,
    /// Who makes it, if that was asked.
    pub producer: Option<String>,
    /// What tells the request from another with the same key.
    pub request: String,
    /// The SHA-256 of the file, lowercase hex.
    pub sha256: String,
    /// How many bytes it has.
    pub bytes: u64,
    /// How it is packed.
    pub packed: Packed,
    /// Where it is fetched from; none if it is sent.
    pub url: Option<String>,
    /// The trace of the request.
    pub trace_id: String,
}

impl JobId {
    /// The name of what is made from `parts`, which are in an order of their own.
    pub fn of(parts: &[&str]) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest("job", parts)[..16]);
        Self(Builder::from_custom_bytes(bytes).into_uuid())
    }
}

/// The lowercase hex of a digest of `parts`: what tells one request from another.
pub fn fingerprint(parts: &[&str]) -> String {
    digest("request", parts)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// SHA-256 over `parts`, each with its length before it, so that no two lists of parts run together to the same bytes.
fn digest(domain: &str, parts: &[&str]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(domain);
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for JobId {
    type Err = Error;

    /// Reads the hyphenated lowercase form, and no other.
    fn from_str(text: &str) -> Result<Self> {
        match Uuid::try_parse(text) {
            Ok(id) if id.to_string() == text => Ok(Self(id)),
            _ => Err(Error::new(ErrorKind::Corrupt, "read id of job")),
        }
    }
}

impl TryFrom<String> for JobId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.to_string()
    }
}

impl State {
    /// Its name in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WaitingForUpload => "waiting_for_upload",
            Self::Queued => "queued",
            Self::Fetching => "fetching",
            Self::Landing => "landing",
            Self::Done => "done",
            Self::Quarantined => "quarantined",
        }
    }

    /// Whether nothing more will become of it.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Done | Self::Quarantined)
    }
}

impl Packed {
    /// Its name in `content_encoding`; none if it is not packed.
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Not => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }
}

impl Job {
    /// Most receipts of batches that are told.
    pub const RECEIPTS_MAX: usize = 1000;

    /// The job that is `announced` at `now`.
    pub fn new(announced: Announced, now: Timestamp) -> Self {
        let Announced {
            id,
            stream,
            producer,
            request,
            sha256,
            bytes,
            packed,
            url,
            trace_id,
        } = announced;
        Self {
            version: VERSION,
            state: if url.is_some() {
                State::Queued
            } else {
                State::WaitingForUpload
            },
            id,
            stream,
            producer,
            request,
            sha256,
            bytes,
            packed,
            is_fetched: url.is_some(),
            url,
            trace_id,
            made_at: now,
            updated_at: now,
            offset: 0,
            etag: None,
            position: Position::default(),
            receipts: Vec::new(),
            receipts_omitted: 0,
            problem: None,
        }
    }

    /// Whether the same request begins it anew: nothing of it is landed, and it may come to another end.
    pub fn may_begin_anew(&self) -> bool {
        let may_end_well = self.problem.as_ref().is_some_and(|problem| problem.retryable);
        self.state == State::Quarantined && may_end_well && self.receipts.is_empty()
    }

    /// What its channel is called; one that is begun anew has another.
    pub fn channel(&self) -> String {
        format!("{}.{}", self.id, self.made_at.timestamp_micros())
    }

    /// Notes that a batch is acknowledged, after which the landing is at `position`.
    pub fn landed(&mut self, receipt: ReceiptId, position: Position) {
        self.position = position;
        if self.receipts.last() == Some(&receipt) {
            return;
        }
        if self.receipts.len() < Self::RECEIPTS_MAX {
            self.receipts.push(receipt);
        } else {
            self.receipts_omitted += 1;
        }
    }

    pub(super) fn is_of_this_form(&self) -> bool {
        self.version == VERSION
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.bytes, self.records, self.refused)
    }
}

impl FromStr for Position {
    type Err = Error;

    /// Reads what [`fmt::Display`] writes.
    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split('.').map(str::parse::<u64>);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(bytes)), Some(Ok(records)), Some(Ok(refused)), None) => Ok(Self {
                bytes,
                records,
                refused,
            }),
            _ => Err(Error::new(ErrorKind::Corrupt, "read position in upload")),
        }
    }
}

/// A stream by its name.
mod name {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::config::StreamName;

    pub(super) fn serialize<S: Serializer>(name: &StreamName, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(name)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<StreamName, D::Error> {
        StreamName::parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_parts_have_the_same_name_and_no_others_do() {
        let id = JobId::of(&["till", "shop.orders", "key", "a"]);
        assert_eq!(id, JobId::of(&["till", "shop.orders", "key", "a"]));
        for other in [
            ["till", "shop.orders", "key", "b"],
            ["tills", "hop.orders", "key", "a"],
            ["", "tillshop.orders", "key", "a"],
        ] {
            assert_ne!(id, JobId::of(&other));
        }
        assert_eq!(id.to_string().parse::<JobId>().unwrap(), id);
        assert_eq!(&id.to_string()[14..15], "8");
        assert!(id.to_string().to_uppercase().parse::<JobId>().is_err());
        assert_ne!(fingerprint(&["a", "b"]), fingerprint(&["ab", ""]));
    }

    #[test]
    fn a_position_reads_back() {
        let position = Position {
            bytes: u64::MAX,
            records: 3,
            refused: 0,
        };
        assert_eq!(position.to_string().parse::<Position>().unwrap(), position);
        for text in ["", "1", "1.2", "1.2.3.4", "1.2.x", "-1.2.3"] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
    }
}
