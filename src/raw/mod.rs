//! The raw zone: every body byte for byte, in the order of one append-only log per stream.
//!
//! ```text
//! Page ─ write (zstd frames + facts) ─► object ─ log.commit (put-if-absent) ─► RawBatch #n ─ read ─► pages
//! ```
//!
//! An object without a log entry does not exist. Nothing here is ever rewritten.

pub mod check;
pub mod durable;
pub mod expire;
pub mod frame;
pub mod heard;
pub mod judged;
pub mod layout;
pub mod letter;
pub mod links;
pub mod log;
pub mod orphans;
pub mod pass;
pub mod read;
pub mod store;
pub mod write;

pub(crate) mod files;
mod throttle;

use std::{collections::BTreeMap, fmt, str::FromStr};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::{NoContext, Uuid};

use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    raw::{
        judged::Judged,
        pass::{Pass, SliceMark, Tally},
    },
};

/// Position of a batch in its stream's raw log, counted from 0 without gaps.
///
/// Never negative: Delta's `txn.version` is an `i64` and this number is stored there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct BatchNumber(i64);

impl BatchNumber {
    /// The first batch of a log.
    pub const FIRST: Self = Self(0);

    /// Checks and takes `number`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if it is negative.
    pub fn new(number: i64) -> Result<Self> {
        if number < 0 {
            return Err(Error::new(ErrorKind::Corrupt, "read batch number").with("number", number));
        }
        Ok(Self(number))
    }

    /// The number itself, never negative.
    pub fn get(self) -> i64 {
        self.0
    }

    /// The batch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl TryFrom<i64> for BatchNumber {
    type Error = Error;

    fn try_from(number: i64) -> Result<Self> {
        Self::new(number)
    }
}

impl From<BatchNumber> for i64 {
    fn from(number: BatchNumber) -> Self {
        number.0
    }
}

impl fmt::Display for BatchNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The identity of one attempt to add a batch: a version 7 UUID, so that ids sort by time.
///
/// Whoever finds a log entry tells by it whose entry that is; object names carry it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BatchId(Uuid);

impl BatchId {
    /// A new id for a batch begun at `now`; 74 of its bits are random.
    pub fn new(now: Timestamp) -> Self {
        let seconds = u64::try_from(now.timestamp()).unwrap_or(0);
        Self(Uuid::new_v7(uuid::Timestamp::from_unix(
            NoContext,
            seconds,
            now.timestamp_subsec_nanos(),
        )))
    }
}

impl FromStr for BatchId {
    type Err = Error;

    /// Reads the hyphenated lowercase form that [`fmt::Display`] writes, and no other.
    fn from_str(text: &str) -> Result<Self> {
        match Uuid::try_parse(text) {
            Ok(id) if id.to_string() == text => Ok(Self(id)),
            _ => Err(Error::new(ErrorKind::Corrupt, "read batch id")),
        }
    }
}

impl TryFrom<String> for BatchId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<BatchId> for String {
    fn from(id: BatchId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One response or request body with the facts about it.
#[derive(Clone, Debug)]
pub struct Page {
    /// The body after transfer decoding, unmodified.
    pub body: Bytes,
    /// What is known about it.
    pub facts: PageFacts,
}

/// What is known about a page, stored beside its body. Secrets are masked before they get here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageFacts {
    /// When the body was complete.
    pub fetched_at: Timestamp,
    /// HTTP method.
    pub method: String,
    /// The URL with secrets masked.
    pub url: String,
    /// HTTP status.
    pub status: u16,
    /// Chosen headers of the response, lowercase names, in order of arrival.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// Requests it took to get this body, at least 1.
    pub attempts: u32,
    /// The page token that was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_used: Option<String>,
    /// The page token that came back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_returned: Option<String>,
    /// The sender's idempotency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// The sender's event id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// Whether that id had come before with another body: the sender gave it twice, or somebody else did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub id_reuse: bool,
    /// W3C trace id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// What the sender was given to ask by where the body is: a UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
    /// Who sent the body, if that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer: Option<String>,
    /// When the sender first tried to deliver it, as far as is known: not later than `fetched_at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen_at: Option<Timestamp>,
    /// What a contract said of its records before it was acknowledged, if it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged: Option<Judged>,
    /// The values of the slice it was asked for, if its stream is sliced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<serde_json::Map<String, serde_json::Value>>,
    /// Whether it was fetched because an event named its record: the `hydrate` of its stream says where that stands in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hydrated: bool,
    /// Whether the server said that something of it is missing, as GraphQL does with `errors` beside `data`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// Whether it could not be taken and a later attempt of the same request was answered with a page: it shows what the
    /// server did, and nothing is missing because of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub superseded: bool,
    /// The files its records point to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileFact>,
    /// Which part of a body it is, if that was too large for one page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// Where in a channel of its producer it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelFact>,
}

/// Where in a channel a body stands: what a producer with a position of its own goes on from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelFact {
    /// The channel, among those of its producer and stream.
    pub name: String,
    /// Which opening of the channel it came through, from 1.
    pub epoch: u64,
    /// Its number among the bodies of the channel, from 1 without gaps.
    pub number: u64,
    /// The producer's own word for how far it is with this body.
    pub offset: String,
}

/// A file that a record points to: where it is stored, or why it is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFact {
    /// The record's number within its page, from 0.
    pub record: u64,
    /// The key of its bytes in the lake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How many there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Their SHA-256, lowercase hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What the server says they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The coding the server says they are in, such as gzip; it is not undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// Why there is no file, without secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Which part of a body a page is.
///
/// The parts of a body are neighbours in one batch, and one behind the other they are the body byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its number within the body, from 0.
    pub index: u32,
    /// Whether it is the last.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub last: bool,
    /// Where it begins in the body, in bytes.
    pub offset: u64,
    /// The path whose records the body was cut between; none if it was cut between lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Where in the part its records stand: from the first byte of the first to the end of the last, with commas between
    /// them. None if the body could not be read; then it was cut anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<(u64, u64)>,
    /// SHA-256 of the whole body, lowercase hex; kept with the last part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole_sha256: Option<String>,
}

impl PageFacts {
    /// What the first answer to a request says by itself; everything else is set where it is known.
    ///
    /// ```
    /// use landfall::{clock::Timestamp, raw::PageFacts};
    /// let facts = PageFacts {
    ///     event_id: Some("evt-1".to_owned()),
    ///     ..PageFacts::new(Timestamp::UNIX_EPOCH, "GET", "https://shop.example/orders", 200)
    /// };
    /// assert_eq!((facts.attempts, facts.partial), (1, false));
    /// ```
    pub fn new(
        fetched_at: Timestamp,
        method: impl Into<String>,
        url: impl Into<String>,
        status: u16,
    ) -> Self {
        Self {
            fetched_at,
            method: method.into(),
            url: url.into(),
            status,
            headers: Vec::new(),
            attempts: 1,
            token_used: None,
            token_returned: None,
            idempotency_key: None,
            event_id: None,
            id_reuse: false,
            trace_id: None,
            receipt: None,
            producer: None,
            first_seen_at: None,
            judged: None,
            slice: None,
            hydrated: false,
            partial: false,
            superseded: false,
            files: Vec::new(),
            part: None,
            channel: None,
        }
    }

    /// Whether a producer pushed it as records, so that its content type says how they stand in it, and not the stream.
    pub fn is_pushed_records(&self) -> bool {
        let path = self.url.split('?').next().unwrap_or_default();
        let mut parts = path.rsplit('/');
        // …/streams/SOURCE/STREAM/records; a stream of webhooks may be called `records`.
        let of_stream = parts.next() == Some("records") && parts.nth(2) == Some("streams");
        self.receipt.is_some() && (of_stream || self.channel.is_some())
    }

    /// The first of the kept headers that is called `name`, which is lowercase.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find_map(|(own, value)| (own == name).then_some(value.as_str()))
    }

    /// Whether the body goes on in the next page, so that nothing stands between the two.
    pub(crate) fn goes_on(&self) -> bool {
        self.part.as_ref().is_some_and(|part| !part.last)
    }
}

/// Where extraction stands after a batch. Stored inside the raw log entry.
///
/// `window` is open while pages of it are still to come; the watermark moves only when it closes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bookmark {
    /// The greatest cursor value of all complete windows, in its canonical text form. None of it is later than the
    /// moment its window opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<String>,
    /// What the watermark is a value of: `path format`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// The window in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// When a window was last complete; of a sliced stream, when a pass over all slices was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success_at: Option<Timestamp>,
    /// When everything the API has was last read from one end to the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete_at: Option<Timestamp>,
    /// The pass over the slices in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass: Option<Pass>,
    /// Where the slices stand, by their values as JSON.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub slices: BTreeMap<String, SliceMark>,
    /// The last raw batch of each parent stream whose records have been slices of a finished pass.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parents: BTreeMap<String, BatchNumber>,
    /// The paginator that was found out, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paginator: Option<String>,
    /// The page size the server could bear, if that is less than the one set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u64>,
    /// Whether records may have been skipped because pages shifted while they were read: a complete pass will tell.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unstable: bool,
    /// What the last pass that came to its end came to. At the end of a pass over everything, when
    /// [`Bookmark::complete_at`] moves, [`Tally::doubt`] says whether it can tell what is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_pass: Option<Tally>,
    /// Records of the last pass over everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
    /// What the last windows reported, the newest last; at most [`ALARMS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<Reported>,
    /// A backfill in progress. It has a bookmark of its own; nothing else here moves while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backfill: Option<Box<Backfill>>,
    /// How far the records are fetched that events of another stream name. It has a bookmark of its own, in which that
    /// stream is the only parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hydration: Option<Box<Bookmark>>,
    /// What was pushed when the stream was last asked for, if somebody looks for gaps in that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<heard::Heard>,
    /// Slices that were given up, by their key, at most [`letter::DEAD_LETTERS_MAX`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dead: letter::DeadLetters,
}

impl Bookmark {
    /// Adds what a window reported.
    pub fn report(&mut self, alarms: Vec<Reported>) {
        self.alarms.extend(alarms);
        let surplus = self.alarms.len().saturating_sub(ALARMS_MAX);
        self.alarms.drain(..surplus);
    }

    /// Takes note of how many records a pass over everything had; returns what to say if there are none any more where
    /// there were some.
    pub fn count_whole(&mut self, records: u64, now: Timestamp) -> Option<String> {
        let before = self.records.replace(records);
        let before = before.filter(|before| *before > 0 && records == 0)?;
        let text = format!("zero_records: no records at all, and the pass before had {before}");
        self.report(vec![Reported {
            at: now,
            text: text.clone(),
        }]);
        Some(text)
    }
}

/// Most alarms kept in a bookmark.
pub const ALARMS_MAX: usize = 20;

/// Something a window reported although it did not fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// When.
    pub at: Timestamp,
    /// What, in a sentence without record contents.
    pub text: String,
}

/// A closed range of history that is being read again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backfill {
    /// The first moment asked for, as given.
    pub from: String,
    /// The end of the range, as given.
    pub to: String,
    /// Where it stands.
    pub bookmark: Bookmark,
}

/// A pass over the stream that has begun and not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// When it began, by the earlier of our clock and the server's: what changes later belongs to the next window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_at: Option<Timestamp>,
    /// SHA-256 of what its requests are made from, lowercase hex. Its tokens mean nothing to another request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<String>,
    /// The lower bound sent with its first request, as sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The upper bound sent with its first request, as sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Whether it asks for everything although the stream is read incrementally.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complete: Option<bool>,
    /// The token of the next page to fetch, as the paginator wrote it.
    pub next: String,
    /// Pages landed so far.
    pub pages: u64,
    /// Records seen so far.
    pub records: u64,
    /// Records before the lower bound so far.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub before: u64,
    /// Records that also stood on the page before theirs.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub repeats: u64,
    /// How many records the server declared last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Whether the list changed while it was paged by position.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unstable: bool,
    /// The greatest cursor value seen so far, canonical.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor_max: Option<String>,
    /// The token that came back for `next` although it had come before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeated: Option<String>,
    /// What the pass came to before this window.
    #[serde(default, skip_serializing_if = "Tally::is_empty")]
    pub earlier: Tally,
    /// When the first window of the pass opened, if that was another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass_opened_at: Option<Timestamp>,
    /// The export job its pages come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobMark>,
}

/// How far an export job is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobMark {
    /// What we call it, as `job.key` in templates: a repeated request for it can be told by that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whether it is only meant to be created: whether it was is not known.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub creating: bool,
    /// What the server calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// When it was created, or meant to be.
    pub created_at: Timestamp,
    /// The answer to the request that created it, if other requests are made from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<serde_json::Value>,
    /// SHA-256 of what its results are called, lowercase hex, once they are known. Of others none is landed yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<String>,
    /// Results that are landed, the first ones of the list.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub done: u64,
    /// Whether all are, so that only the job itself is left to be removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub complete: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}
