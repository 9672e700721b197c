//! `landfall.yml`, read into types that cannot be wrong.
//!
//! ```text
//! text ─ yaml (located nodes) ─ read (every problem at once) ─► Project ─ Source ─ Stream
//! ```
//!
//! Nothing here touches the network or the lake. Secrets stay references until they are used.

pub mod advice;
pub mod airbyte;
pub mod auth;
pub mod complete;
pub mod cursor;
mod defaults;
pub mod errors;
pub mod explain;
pub mod explode;
pub mod files;
pub mod flatten;
pub mod format;
pub mod gaps;
pub mod hydrate;
pub mod incremental;
pub mod job;
pub mod paginate;
pub mod producers;
pub mod push;
pub mod rate;
pub mod read;
pub mod records;
pub mod request;
pub mod route;
pub mod schedule;
pub mod secret;
pub mod serve;
pub mod slice;
pub mod spool;
pub mod template;
pub mod text;
pub mod uploads;
pub mod versions;
pub mod webhook;

use std::{fmt, path::PathBuf, time::Duration};

use url::Url;

use crate::{
    clock::Timestamp,
    config::{
        auth::{Auth, Tls},
        complete::Complete,
        errors::{Breaker, ErrorRule, Retry},
        explode::Explode,
        files::Files,
        flatten::Flatten,
        format::Format,
        gaps::Gaps,
        hydrate::Hydrate,
        incremental::{Incremental, Reconcile},
        job::Job,
        paginate::Paging,
        producers::Producer,
        push::Feed,
        rate::RateLimit,
        records::RecordPaths,
        request::Request,
        schedule::Schedule,
        secret::Secret,
        serve::Serve,
        slice::Slicing,
        versions::Versions,
        webhook::Webhook,
    },
    error::{Error, ErrorKind, Result},
};

/// The name of a source or a stream: `^[a-z0-9][a-z0-9_-]{0,62}$`.
///
/// Safe as a path segment on every store and file system.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// Checks and takes `text`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if `text` does not match the pattern.
    ///
    /// ```
    /// use landfall::config::Name;
    /// assert!(Name::new("orders").is_ok());
    /// assert!(Name::new("../orders").is_err());
    /// ```
    pub fn new(text: &str) -> Result<Self> {
        let ok = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = text.as_bytes();
        let valid = (1..=63).contains(&bytes.len())
            && ok(bytes[0])
            && bytes.iter().all(|&byte| ok(byte) || byte == b'_' || byte == b'-');
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::new(ErrorKind::Config, "read name")
                .with("name", format!("{text:?}"))
                .with("must match", "^[a-z0-9][a-z0-9_-]{0,62}$"))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A stream's full name, `source.stream`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName {
    /// The source that owns the stream.
    pub source: Name,
    /// The stream within its source.
    pub stream: Name,
}

impl StreamName {
    /// Reads `source.stream`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if there is no dot or a part is not a [`Name`].
    pub fn parse(text: &str) -> Result<Self> {
        let Some((source, stream)) = text.split_once('.') else {
            return Err(Error::new(ErrorKind::Config, "read stream name")
                .with("name", format!("{text:?}"))
                .with("expected", "source.stream"));
        };
        Ok(Self {
            source: Name::new(source)?,
            stream: Name::new(stream)?,
        })
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.source, self.stream)
    }
}

/// A folder with `landfall.yml` and its contracts.
#[derive(Clone, Debug)]
pub struct Project {
    /// The folder that holds `landfall.yml`; relative paths start here.
    pub dir: PathBuf,
    /// Where everything is stored.
    pub lake: Lake,
    /// Most memory the work of one command may hold, in bytes. Default 1 GiB.
    pub memory_bytes_max: u64,
    /// The APIs to load, in the order of the file.
    pub sources: Vec<Source>,
    /// Where rotated refresh tokens are kept, outside the lake and readable by the owner only. Default
    /// `.landfall/credentials` in the project.
    pub credentials_dir: PathBuf,
    /// How `landfall maintain` keeps the lake small.
    pub maintain: Maintain,
    /// Where and how `landfall serve` listens; without it nothing does.
    pub serve: Option<Serve>,
    /// Who may send to its streams, read them or administer, in the order of the file.
    pub producers: Vec<Producer>,
    /// SHA-256 of `landfall.yml` as read, lowercase hex; stored in every raw log entry.
    pub config_hash: String,
}

/// The storage root.
#[derive(Clone, Debug)]
pub struct Lake {
    /// An absolute `file:///…` or `s3://bucket/prefix` URL.
    pub url: Url,
    /// Options handed to object_store (`endpoint`, `region`, `access_key_id`, …).
    pub storage: Vec<(String, Secret)>,
}

/// One API.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name.
    pub name: Name,
    /// Every request path is joined to this URL. Pages never leave its origin. Of a source whose streams are all pushed
    /// an address that is none (`.invalid`, RFC 6761).
    pub base_url: Url,
    /// Other addresses of the same API, asked while the base URL fails. Credentials go there too.
    pub replicas: Vec<Url>,
    /// Values of the user's own, `config.NAME` in templates.
    pub config: Vec<(String, serde_json::Value)>,
    /// How requests prove who sends them.
    pub auth: Auth,
    /// Certificates of our own.
    pub tls: Tls,
    /// Sent with every request.
    pub headers: Vec<(String, Secret)>,
    /// The budget of the credential, shared by all streams of the source.
    pub rate_limit: Option<RateLimit>,
    /// What failed answers mean, for every stream.
    pub errors: Vec<ErrorRule>,
    /// When and how often a failed request is sent again; a stream may have its own.
    pub retry: Retry,
    /// When the host is left alone.
    pub breaker: Breaker,
    /// How long to wait for the server.
    pub timeouts: Timeouts,
    /// Bounds on what the server may send.
    pub limits: Limits,
    /// Its endpoints, in the order of the file.
    pub streams: Vec<Stream>,
}

/// How long to wait for the server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timeouts {
    /// Until the connection stands. Default 10 s.
    pub connect: Duration,
    /// Between two reads. Default 30 s.
    pub read: Duration,
    /// For one whole request. Default 5 min.
    pub total: Duration,
}

/// Bounds on what the server may send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Largest body kept, in decoded bytes. Default 64 MiB.
    pub page_bytes_max: u64,
    /// Largest body held in memory, and the largest record of any other, in decoded bytes: the `memory` of the project.
    pub held_bytes_max: u64,
    /// A body with more decoded bytes is kept in a file instead of memory and landed in parts of about this size, if its
    /// format allows that. Default 16 MiB; not a setting of the file.
    pub part_bytes: u64,
    /// Most decoded bytes per encoded byte, judged beyond the first MiB. Default 200.
    pub decode_ratio_max: u64,
    /// Most pages in one window. Default 1,000,000.
    pub pages_max: u64,
    /// Most pages without a record in a row while the server says there is more. Default 10.
    pub empty_pages_max: u32,
}

/// One endpoint, its raw log, its contract and its main table.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Full name.
    pub name: StreamName,
    /// Where its records come from.
    pub feed: Feed,
    /// The first request of a window; never sent if there is no API to ask, as `feed` says.
    pub request: Request,
    /// What the bodies are written in.
    pub format: Format,
    /// Where the records are in a page.
    pub records: RecordPaths,
    /// How the pages follow each other.
    pub paginate: Paging,
    /// How records are fetched that events of another stream name.
    pub hydrate: Option<Hydrate>,
    /// What tells that something pushed never came.
    pub gaps: Option<Gaps>,
    /// How the stream is asked for in parts.
    pub slices: Option<Slicing>,
    /// How only changed records are asked for.
    pub incremental: Option<Incremental>,
    /// How everything is asked for, if in another way than changes.
    pub complete: Option<Complete>,
    /// The stream it took settings over from.
    pub like: Option<Name>,
    /// Values of its own, `config.NAME` in templates, before those of the source.
    pub with: Vec<(String, serde_json::Value)>,
    /// Streams of its source with the same word never run at the same time.
    pub group: Option<Name>,
    /// When it runs by itself under `landfall run --watch`.
    pub schedule: Option<Schedule>,
    /// How old the last success may be before `landfall gaps` calls the stream stale.
    pub fresh_within: Option<Duration>,
    /// Complete passes over an incremental stream.
    pub reconcile: Option<Reconcile>,
    /// For a stream whose pages come from an export job.
    pub job: Option<Job>,
    /// Files that records point to.
    pub files: Option<Files>,
    /// What failed answers mean, before those of the source.
    pub errors: Vec<ErrorRule>,
    /// When and how often a failed request of this stream is sent again.
    pub retry: Retry,
    /// How accepted records become rows.
    pub table: Table,
    /// The contract file, absolute, existing or still to be drafted.
    pub contract: PathBuf,
    /// Contracts of records of other versions, if there are several.
    pub versions: Option<Versions>,
    /// What to do with what the contract does not say.
    pub drift: DriftPolicy,
    /// When fetched pages are committed.
    pub commit: CommitEvery,
    /// How long raw is kept.
    pub retention: Retention,
    /// Which deliveries that the API sends by itself are believed; none if it sends none.
    pub webhook: Option<Webhook>,
}

/// How `landfall maintain` keeps the lake small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maintain {
    /// Size that small data files are put together to, in bytes.
    pub file_bytes: u64,
    /// How old a data file is before it is put together with others.
    pub compact_after: Duration,
    /// How long data files stay that no version of their table needs any more.
    pub vacuum_after: Duration,
    /// How long the log of a table tells its former versions.
    pub log_after: Duration,
    /// How old something is before it counts as left behind.
    pub sweep_after: Duration,
}

/// How long raw of a stream is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// How long raw objects stay once they are landed; for ever if not set.
    pub raw: Option<Duration>,
    /// Whether nothing expires, whatever else is set.
    pub legal_hold: bool,
}

/// The key of a row that is identified by all that its record holds.
pub const CONTENT_KEY: &str = "_lf_content";

/// How accepted records become rows.
#[derive(Clone, Debug)]
pub struct Table {
    /// Column names that identify a row. Empty only for [`ScdType::Append`] and [`ScdType::Replace`]; [`CONTENT_KEY`]
    /// stands alone.
    pub keys: Vec<String>,
    /// Column names that order versions of a row; the raw position breaks ties.
    pub sequence_by: Vec<String>,
    /// What happens to older versions.
    pub scd_type: ScdType,
    /// A SQL condition over the columns that marks a record as a deletion.
    pub apply_as_deletes: Option<String>,
    /// What a deletion does.
    pub deletes: Deletes,
    /// Whether rows that a complete pass does not bring are deletions.
    pub delete_absent: bool,
    /// Largest part of the live rows that one complete pass may delete, from 0 to 1. Above it none is deleted.
    pub delete_ratio_max: f64,
    /// What a merge does with a row that it replaces.
    pub write_mode: WriteMode,
    /// Column names the table is partitioned by.
    pub partition_by: Vec<String>,
    /// Which nested objects become columns where a contract is drafted or takes new fields.
    pub flatten: Flatten,
    /// Lists that get tables of their own.
    pub explode: Vec<Explode>,
}

impl Table {
    /// Whether a row is identified by all that its record holds.
    pub fn is_by_content(&self) -> bool {
        self.keys.iter().any(|key| key == CONTENT_KEY)
    }

    /// The keys that are columns of the contract.
    pub fn declared_keys(&self) -> &[String] {
        if self.is_by_content() { &[] } else { &self.keys }
    }
}

/// What happens to older versions of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScdType {
    /// Overwritten: one current row per key.
    Upsert,
    /// Kept: one row per version, with the span in which it was current.
    History,
    /// Kept: every record is a row.
    Append,
    /// Overwritten as a whole by each complete pass.
    Replace,
}

/// What a deletion does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletes {
    /// The row stays and `_deleted` is true.
    Soft,
    /// The row goes. Its keys and its place among the versions are kept beside the table, so that nothing older brings it back.
    Hard,
}

/// What a merge does with a row that it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// The row's data file is written anew. Every reader of Delta tables can read the table.
    CopyOnWrite,
    /// The row is marked in a deletion vector, which readers leave out, and the data file stays.
    MergeOnRead,
}

/// What to do with what the contract does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriftPolicy {
    /// Fields the contract does not name.
    pub on_unknown: OnUnknown,
    /// Values that do not fit their column.
    pub on_mismatch: OnMismatch,
}

/// What happens to a field the contract does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnknown {
    /// Kept as JSON in `_rescued`. The default.
    Rescue,
    /// A column of that name is added to the contract; what no column can be made for is kept in `_rescued`.
    Evolve,
    /// Counted only; raw keeps it.
    Ignore,
    /// The record is quarantined.
    Quarantine,
}

/// What happens to a value that does not fit its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMismatch {
    /// The record is quarantined. The default.
    Quarantine,
    /// The column is null and the value is kept in `_rescued`. Keys are always quarantined.
    Rescue,
    /// Nothing is written and the transform ends with exit code 3.
    Fail,
    /// The column gets a type that also holds what it held, and the table is rewritten; what no such type holds is
    /// quarantined. Keys and columns that order versions keep their type.
    Evolve,
}

impl OnUnknown {
    /// The word for it in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rescue => "rescue",
            Self::Evolve => "evolve",
            Self::Ignore => "ignore",
            Self::Quarantine => "quarantine",
        }
    }
}

impl OnMismatch {
    /// The word for it in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quarantine => "quarantine",
            Self::Rescue => "rescue",
            Self::Fail => "fail",
            Self::Evolve => "evolve",
        }
    }
}

/// When fetched pages are committed: whichever is reached first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CommitEvery {
    /// Pages. Default 100.
    pub pages: u32,
    /// Body bytes. Default 64 MiB.
    pub bytes: u64,
    /// Time since the last commit. Default 60 s.
    pub elapsed: Duration,
}

impl Source {
    /// Whether there is an API to ask.
    pub fn is_pulled(&self) -> bool {
        self.streams.iter().any(Stream::is_pulled)
    }

    /// The source as the templates of `stream` see it: values of the stream stand before its own of the same name.
    #[must_use]
    pub fn seen_by(&self, stream: &Stream) -> Self {
        let mut config = self.config.clone();
        config.retain(|(name, _)| stream.with.iter().all(|(own, _)| own != name));
        config.extend(stream.with.iter().cloned());
        Self {
            config,
            ..self.clone()
        }
    }
}

impl Table {
    /// Whether the end of a complete pass means something to it: what the pass did not bring is gone.
    pub fn heeds_passes(&self) -> bool {
        self.delete_absent || self.scd_type == ScdType::Replace
    }
}

impl Stream {
    /// Whether there is an API to ask.
    pub fn is_pulled(&self) -> bool {
        self.feed.is_pulled() || self.hydrate.is_some()
    }

    /// Whether it is asked for by a request of its own, and not only for what events name.
    pub fn is_polled(&self) -> bool {
        self.feed.is_pulled() && !self.hydrate.as_ref().is_some_and(|hydrate| hydrate.is_alone)
    }

    /// Whether something of it may be fetched from hosts that are not the source's own.
    pub fn leaves_source(&self) -> bool {
        let jobs = self.job.as_ref().is_some_and(|job| !job.hosts.is_empty());
        jobs || self.files.as_ref().is_some_and(|files| !files.hosts.is_empty())
    }
}

impl Project {
    /// Where bodies too large for memory are kept while they are landed: `.landfall/spool` in the project.
    pub fn spool_dir(&self) -> PathBuf {
        self.dir.join(".landfall/spool")
    }

    /// The stream called `name`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] listing the known streams if there is none.
    pub fn stream(&self, name: &StreamName) -> Result<(&Source, &Stream)> {
        self.streams()
            .find(|(_, stream)| stream.name == *name)
            .ok_or_else(|| {
                let known: Vec<String> = self
                    .streams()
                    .map(|(_, stream)| stream.name.to_string())
                    .collect();
                Error::new(ErrorKind::Config, "find stream")
                    .with("stream", name)
                    .with("known", known.join(", "))
            })
    }

    /// The producer called `name`.
    pub fn producer(&self, name: &Name) -> Option<&Producer> {
        self.producers.iter().find(|producer| producer.name == *name)
    }

    /// Every stream with its source, in the order of the file.
    pub fn streams(&self) -> impl Iterator<Item = (&Source, &Stream)> {
        self.sources
            .iter()
            .flat_map(|source| source.streams.iter().map(move |stream| (source, stream)))
    }
}

/// Reads a moment in the form RFC 3339 gives it.
///
/// # Errors
/// [`ErrorKind::Config`] if it is not one.
pub fn parse_timestamp(text: &str) -> Result<Timestamp> {
    chrono::DateTime::parse_from_rfc3339(text)
        .map(|moment| moment.to_utc())
        .map_err(|source| {
            Error::new(ErrorKind::Config, "read timestamp")
                .with("text", format!("{text:?}"))
                .caused_by(source)
        })
}
