//! The raw log of a stream: the only source of order and of extraction state.
//!
//! ```text
//! commit ─ put-if-absent ─► _log/<20 digits>.json        head ◄─ hint, then forward probing; never a listing
//! ```
//!
//! Entries are created once and never changed, so there is no gap in their numbers and no two of one number.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt as _, PutMode, path::Path};
use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    config::StreamName,
    error::{Error, ErrorKind, Result},
    raw::{
        BatchId, BatchNumber, Bookmark,
        frame::{PageIndex, hex, sha256},
        layout::{self, Key},
        store::lower,
    },
};

/// The newest format of a log entry; this program reads it and all before it.
pub const FORMAT: u32 = 2;

/// The format of an entry whose pages have their facts uncompressed, as all had at first: older programs read it.
pub const FORMAT_PLAIN_FACTS: u32 = 1;

/// Largest log entry, in bytes. About 60 go to a page.
pub const ENTRY_BYTES_MAX: u64 = 64 << 20;

/// Times an entry is put when the answer leaves open whether it is there.
const PUT_ATTEMPTS_MAX: u32 = 5;

/// The wait before the second of them; doubles each time.
const PUT_BACKOFF: Duration = Duration::from_millis(20);

/// Entries read at once, and held ahead of the reader.
const ENTRIES_IN_FLIGHT_MAX: usize = 16;

/// The hint is written with every so many entries; probing covers the rest in a handful of requests.
const HINT_EVERY: i64 = 16;

/// Entries looked at to find where the last complete pass of a parent began.
const ENTRIES_BACK_MAX: i64 = 100_000;

/// What fed a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchKind {
    /// Some pages of an API.
    Pull,
    /// What a producer sent. Moves no bookmark.
    Push,
    /// Some pages of a pass over everything the API has.
    Complete,
}

/// One line of a raw log: which pages make up a batch, and where extraction stands after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// The format of this entry, from 1.
    pub format: u32,
    /// Whose entry this is.
    pub batch_id: BatchId,
    /// Its position, the same as in its key.
    pub number: BatchNumber,
    /// What fed the batch.
    pub kind: BatchKind,
    /// The run that committed it.
    pub run_id: String,
    /// SHA-256 of the project file as that run read it.
    pub config_hash: String,
    /// The contract in force at that time, if the run knew one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract_version: Option<String>,
    /// When it was committed, by the clock of the run.
    pub committed_at: Timestamp,
    /// Records counted in its pages, if the run counted them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
    /// The objects with its pages, in order.
    pub objects: Vec<ObjectEntry>,
    /// Where extraction stands after it; `None` until the first pull.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bookmark: Option<Bookmark>,
}

/// One object of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectEntry {
    /// Its key, relative to the lake.
    pub path: String,
    /// Its length as stored.
    pub bytes: u64,
    /// SHA-256 of it as stored, lowercase hex.
    pub sha256: String,
    /// Its pages, in order.
    pub pages: Vec<PageIndex>,
}

/// What came of [`RawLog::commit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Landed {
    /// The entry stands, under this number.
    Committed(BatchNumber),
    /// Somebody else's entry has that number. Ours does not exist.
    Conflicted {
        /// The entry that was there.
        found: Box<LogEntry>,
    },
}

/// What the two ends of an entry's text are: the checksum covers everything but itself.
const SEAL_START: &str = r#","sha256":""#;
const SEAL_END: &str = "\"}\n";
const SEAL_BYTES: usize = SEAL_START.len() + 64 + SEAL_END.len();

impl LogEntry {
    /// The entry as stored: one line of JSON whose last member is the SHA-256 of the same line without that member.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] if it is longer than [`ENTRY_BYTES_MAX`].
    pub fn to_bytes(&self) -> Result<Bytes> {
        let internal = |error| Error::new(ErrorKind::Internal, "write log entry").caused_by(error);
        let mut text = serde_json::to_string(self).map_err(internal)?;
        let digest = hex(&sha256(text.as_bytes()));
        text.truncate(text.len() - 1);
        text.push_str(SEAL_START);
        text.push_str(&digest);
        text.push_str(SEAL_END);
        if text.len() as u64 > ENTRY_BYTES_MAX {
            return Err(Error::new(ErrorKind::Limit, "write log entry")
                .with("bytes", text.len())
                .with("entry_bytes_max", ENTRY_BYTES_MAX));
        }
        Ok(Bytes::from(text))
    }

    /// Reads what [`LogEntry::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] if a newer program wrote it; [`ErrorKind::Corrupt`] if it is not, byte for byte, what was
    /// written.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        // A newer format may be sealed in another way, so this comes first.
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        if let Ok(Format { format }) = serde_json::from_slice(bytes)
            && format > FORMAT
        {
            return Err(Error::new(ErrorKind::Refused, "read log entry of a newer format")
                .with("format", format)
                .with("format_max", FORMAT)
                .with(
                    "hint",
                    "upgrade landfall; a newer version has written to this lake",
                ));
        }
        let corrupt = |reason: &'static str| {
            Error::new(ErrorKind::Corrupt, "read log entry")
                .with("reason", reason)
                .with(
                    "hint",
                    "restore this file from a backup; nothing was read past it",
                )
        };
        let text = str::from_utf8(bytes).map_err(|_| corrupt("it is not text"))?;
        let (content, seal) = text
            .len()
            .checked_sub(SEAL_BYTES)
            .and_then(|at| text.split_at_checked(at))
            .ok_or_else(|| corrupt("it is cut short"))?;
        let digest = seal
            .strip_prefix(SEAL_START)
            .and_then(|seal| seal.strip_suffix(SEAL_END))
            .ok_or_else(|| corrupt("it has no checksum"))?;
        let content = format!("{content}}}");
        if hex(&sha256(content.as_bytes())) != digest {
            return Err(corrupt("its checksum does not match"));
        }
        serde_json::from_str(&content).map_err(|error| corrupt("it is not a log entry").caused_by(error))
    }

    /// Bytes of all bodies of the batch.
    pub fn body_bytes(&self) -> u64 {
        let pages = self.objects.iter().flat_map(|object| &object.pages);
        pages.map(|page| page.body_bytes).sum()
    }

    /// Pages in all objects of the batch.
    pub fn pages(&self) -> u64 {
        self.objects.iter().map(|object| object.pages.len() as u64).sum()
    }

    /// The index within the batch of the first page of object number `object`.
    pub fn first_page(&self, object: usize) -> u32 {
        let pages: usize = self
            .objects
            .iter()
            .take(object)
            .map(|object| object.pages.len())
            .sum();
        u32::try_from(pages).unwrap_or(u32::MAX)
    }

    /// Whether the entry belongs under `number` of `stream` and points nowhere else.
    fn belongs(&self, stream: &StreamName, number: BatchNumber) -> bool {
        self.number == number
            && self.objects.iter().all(|object| {
                let key = Path::parse(&object.path).ok().and_then(|path| Key::parse(&path));
                matches!(key, Some(Key::Object { stream: owner, .. }) if owner == *stream)
            })
    }
}

/// The raw log of one stream.
#[derive(Clone, Debug)]
pub struct RawLog {
    /// The lake.
    pub store: Arc<dyn ObjectStore>,
    /// The log's owner.
    pub stream: StreamName,
}

/// The first of `entries` up to and including the one that brings their bodies to `body_bytes`.
///
/// # Errors
/// Those of the entries.
pub async fn within(
    mut entries: BoxStream<'static, Result<LogEntry>>,
    body_bytes: u64,
) -> Result<Vec<LogEntry>> {
    let mut taken = Vec::new();
    let mut sum = 0_u64;
    while let Some(entry) = entries.try_next().await? {
        sum = sum.saturating_add(entry.body_bytes());
        taken.push(entry);
        if sum >= body_bytes {
            break;
        }
    }
    Ok(taken)
}

/// Content of `_log/_last`.
#[derive(Serialize, Deserialize)]
struct Hint {
    number: BatchNumber,
}

impl RawLog {
    /// The newest entry, or `None` if nothing was ever landed.
    ///
    /// Costs four requests when the hint is right, and two for every doubling of the log when it is wrong or gone.
    ///
    /// # Errors
    /// Those of [`RawLog::entry`].
    pub async fn head(&self) -> Result<Option<LogEntry>> {
        let mut newest = None;
        if let Some(number) = self.hint().await
            && self.exists(number.get()).await?
        {
            newest = Some(number.get());
        }
        // Double the step until nothing is there, then halve the span between the two.
        let start = newest.unwrap_or(-1);
        let mut absent = i64::MAX;
        for shift in 0..i64::BITS - 1 {
            let Some(probe) = start.checked_add(1 << shift) else {
                break;
            };
            if self.exists(probe).await? {
                newest = Some(probe);
            } else {
                absent = probe;
                break;
            }
        }
        let mut present = newest.unwrap_or(-1);
        while absent - present > 1 {
            let middle = present + (absent - present) / 2;
            if self.exists(middle).await? {
                present = middle;
            } else {
                absent = middle;
            }
        }
        match BatchNumber::new(present) {
            Ok(number) => self.expect(number).await.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// The entry under `number`, or `None` if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] or [`ErrorKind::Refused`] as in [`LogEntry::from_bytes`]; else whatever the store says.
    pub async fn entry(&self, number: BatchNumber) -> Result<Option<LogEntry>> {
        match self.bytes(number).await? {
            Some(bytes) => self.read(number, &bytes).map(Some),
            None => Ok(None),
        }
    }

    /// The entries of `range` in order, a few of them read ahead.
    ///
    /// Each item fails like [`RawLog::entry`]; a missing entry is [`ErrorKind::Corrupt`].
    pub fn entries(&self, range: RangeInclusive<BatchNumber>) -> BoxStream<'static, Result<LogEntry>> {
        self.entries_but(range, |_| false)
    }

    /// As [`RawLog::entries`] without those that `leaves_out` says; nothing is read of them.
    pub fn entries_but(
        &self,
        range: RangeInclusive<BatchNumber>,
        leaves_out: impl Fn(BatchNumber) -> bool + Send + 'static,
    ) -> BoxStream<'static, Result<LogEntry>> {
        let numbers = range.start().get()..=range.end().get();
        let numbers = numbers.map_while(|number| BatchNumber::new(number).ok());
        self.entries_of(numbers.filter(move |number| !leaves_out(*number)))
    }

    /// As [`RawLog::entries`], those of `numbers`.
    pub fn entries_of(
        &self,
        numbers: impl IntoIterator<Item = BatchNumber, IntoIter: Send + 'static>,
    ) -> BoxStream<'static, Result<LogEntry>> {
        let log = self.clone();
        futures::stream::iter(numbers)
            .map(move |number| {
                let log = log.clone();
                async move { log.expect(number).await }
            })
            .buffered(ENTRIES_IN_FLIGHT_MAX)
            .boxed()
    }

    /// Where the last complete pass of a stream that is always read whole began; its first batch if it never completed
    /// one. `None` if that is further back than is looked.
    ///
    /// # Errors
    /// Whatever the store says about the raw log.
    pub async fn last_pass(&self, head: &LogEntry) -> Result<Option<BatchNumber>> {
        // What a producer pushed, and evidence, carry the last success on as it was; only the end of a pass moves it.
        let success = |entry: &LogEntry| {
            entry
                .bookmark
                .as_ref()
                .and_then(|bookmark| bookmark.last_success_at)
        };
        let (mut last, mut ended) = (success(head), false);
        let oldest = (head.number.get() - ENTRIES_BACK_MAX).max(-1);
        for number in (oldest..head.number.get()).rev() {
            let before = match BatchNumber::new(number) {
                Ok(number) => self.entry(number).await?.as_ref().and_then(success),
                // In front of the first entry.
                Err(_) => None,
            };
            if before == last {
                continue;
            }
            // The entry after this one ended a pass. The last pass began behind the end of the one before it.
            if ended {
                return BatchNumber::new(number + 2).map(Some);
            }
            (ended, last) = (true, before);
        }
        // Looked to the beginning: there was none before it.
        Ok((oldest < 0).then_some(BatchNumber::FIRST))
    }

    /// The entries of `range` in order, up to and including the first that brings their bodies to `body_bytes`.
    ///
    /// # Errors
    /// Those of [`RawLog::entry`].
    pub async fn entries_within(
        &self,
        range: RangeInclusive<BatchNumber>,
        body_bytes: u64,
    ) -> Result<Vec<LogEntry>> {
        within(self.entries(range), body_bytes).await
    }

    /// Adds `entry` under its number, unless somebody else's is there.
    ///
    /// An answer that got lost is no harm: the entry found is compared with ours.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the store does not answer well; the entry may or may not stand then.
    /// [`ErrorKind::Corrupt`] if another entry with the same batch id stands there.
    pub async fn commit(&self, entry: &LogEntry) -> Result<Landed> {
        let key = layout::entry(&self.stream, entry.number);
        let bytes = entry.to_bytes()?;
        let mut last = None;
        for attempt in 0..PUT_ATTEMPTS_MAX {
            if attempt > 0 {
                tokio::time::sleep(PUT_BACKOFF * (1 << (attempt - 1))).await;
            }
            match self
                .store
                .put_opts(&key, bytes.clone().into(), PutMode::Create.into())
                .await
            {
                Ok(_) => {
                    self.hint_at(entry.number).await;
                    return Ok(Landed::Committed(entry.number));
                }
                Err(error @ (StoreError::AlreadyExists { .. } | StoreError::Precondition { .. })) => {
                    if let Some(landed) = self.whose(entry, &bytes).await? {
                        return Ok(landed);
                    }
                    // S3 answers so also when two writers meet and neither has won yet (409).
                    last = Some(
                        Error::new(ErrorKind::Unavailable, "commit batch")
                            .with("key", &key)
                            .caused_by(error),
                    );
                }
                Err(error) => {
                    let error = lower(error, "commit batch", &key);
                    if error.kind() != ErrorKind::Unavailable {
                        return Err(error);
                    }
                    last = Some(error);
                }
            }
        }
        Err(last
            .unwrap_or_else(|| Error::new(ErrorKind::Internal, "commit batch"))
            .with("put_attempts_max", PUT_ATTEMPTS_MAX))
    }

    /// Whose entry stands where ours was refused, or `None` if there is none after all.
    async fn whose(&self, entry: &LogEntry, bytes: &Bytes) -> Result<Option<Landed>> {
        let Some(found_bytes) = self.bytes(entry.number).await? else {
            return Ok(None);
        };
        if found_bytes == *bytes {
            self.hint_at(entry.number).await;
            return Ok(Some(Landed::Committed(entry.number)));
        }
        let found = self.read(entry.number, &found_bytes)?;
        if found.batch_id == entry.batch_id {
            return Err(Error::new(ErrorKind::Corrupt, "commit batch")
                .with("key", layout::entry(&self.stream, entry.number))
                .with("problem", "another entry has the same batch id"));
        }
        Ok(Some(Landed::Conflicted {
            found: Box::new(found),
        }))
    }

    async fn expect(&self, number: BatchNumber) -> Result<LogEntry> {
        self.entry(number).await?.ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "read log entry")
                .with("key", layout::entry(&self.stream, number))
                .with("reason", "it is missing, and later ones exist or existed")
        })
    }

    async fn exists(&self, number: i64) -> Result<bool> {
        let key = layout::entry(&self.stream, BatchNumber::new(number)?);
        match self.store.head(&key).await {
            Ok(_) => Ok(true),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(lower(error, "look for log entry", &key)),
        }
    }

    async fn bytes(&self, number: BatchNumber) -> Result<Option<Bytes>> {
        let key = layout::entry(&self.stream, number);
        let got = match self.store.get(&key).await {
            Ok(got) => got,
            Err(StoreError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(lower(error, "read log entry", &key)),
        };
        if got.meta.size > ENTRY_BYTES_MAX {
            return Err(Error::new(ErrorKind::Corrupt, "read log entry")
                .with("key", &key)
                .with("bytes", got.meta.size)
                .with("entry_bytes_max", ENTRY_BYTES_MAX));
        }
        got.bytes()
            .await
            .map(Some)
            .map_err(|error| lower(error, "read log entry", &key))
    }

    fn read(&self, number: BatchNumber, bytes: &[u8]) -> Result<LogEntry> {
        let key = layout::entry(&self.stream, number);
        let entry = LogEntry::from_bytes(bytes).map_err(|error| error.with("key", &key))?;
        if entry.belongs(&self.stream, number) {
            Ok(entry)
        } else {
            Err(Error::new(ErrorKind::Corrupt, "read log entry")
                .with("key", &key)
                .with("reason", "it was written for another place"))
        }
    }

    /// Where the newest entry was seen lately. Whatever is wrong with the hint, probing finds the head without it.
    async fn hint(&self) -> Option<BatchNumber> {
        let got = self.store.get(&layout::hint(&self.stream)).await.ok()?;
        if got.meta.size > 1 << 10 {
            return None;
        }
        let hint: Hint = serde_json::from_slice(&got.bytes().await.ok()?).ok()?;
        Some(hint.number)
    }

    async fn hint_at(&self, number: BatchNumber) {
        if number.get() % HINT_EVERY != 0 {
            return;
        }
        let Ok(bytes) = serde_json::to_vec(&Hint { number }) else {
            return;
        };
        if let Err(error) = self.store.put(&layout::hint(&self.stream), bytes.into()).await {
            tracing::debug!(stream = %self.stream, %error, "hint not written");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{
        collection::vec,
        option,
        prelude::{Strategy as _, any, prop_assert_eq, prop_oneof, proptest},
        strategy::Just,
    };

    use super::*;
    use crate::raw::Window;

    /// An entry as the first release wrote it. Every later one reads it.
    const SAMPLE: &str = include_str!("../../fixtures/raw/entry-1.json");

    #[test]
    fn f164_an_entry_of_the_first_format_is_read() {
        let entry = LogEntry::from_bytes(SAMPLE.as_bytes()).unwrap();
        assert_eq!(
            (entry.number.get(), entry.kind, entry.records),
            (42, BatchKind::Pull, Some(500))
        );
        assert_eq!((entry.pages(), entry.first_page(1)), (3, 2));
        assert_eq!(entry.objects[1].pages[0].body_bytes, 8);
        assert_eq!(
            entry.bookmark.as_ref().unwrap().watermark.as_deref(),
            Some("2026-11-22T00:59:00Z")
        );
        assert_eq!(entry.to_bytes().unwrap(), SAMPLE);
        assert!(entry.belongs(&StreamName::parse("shop.orders").unwrap(), entry.number));
        assert!(!entry.belongs(&StreamName::parse("shop.customers").unwrap(), entry.number));
        assert!(!entry.belongs(&StreamName::parse("shop.orders").unwrap(), entry.number.next()));
    }

    fn entries() -> impl proptest::strategy::Strategy<Value = LogEntry> {
        let moment =
            || (0..200_000_000_000_000_000_i64).prop_map(|us| Timestamp::from_timestamp_micros(us).unwrap());
        let kind = prop_oneof![
            Just(BatchKind::Pull),
            Just(BatchKind::Push),
            Just(BatchKind::Complete)
        ];
        let page = any::<(u64, u64, u64, u64, u16, u64)>().prop_map(PageIndex::from);
        let object = (any::<String>(), any::<u64>(), "[0-9a-f]{64}", vec(page, 0..4)).prop_map(
            |(path, bytes, sha256, pages)| ObjectEntry {
                path,
                bytes,
                sha256,
                pages,
            },
        );
        let window = (
            option::of(any::<String>()),
            any::<String>(),
            any::<u64>(),
            any::<u64>(),
        )
            .prop_map(|(since, next, pages, records)| Window {
                since,
                next,
                pages,
                records,
                ..Window::default()
            });
        let bookmark = (
            option::of(any::<String>()),
            option::of(window),
            option::of(moment()),
        )
            .prop_map(|(watermark, window, last_success_at)| Bookmark {
                watermark,
                window,
                last_success_at,
                ..Bookmark::default()
            });
        let names = (
            any::<String>(),
            any::<String>(),
            option::of(any::<String>()),
            option::of(any::<u64>()),
        );
        (
            0..=i64::MAX,
            kind,
            moment(),
            names,
            vec(object, 0..3),
            option::of(bookmark),
        )
            .prop_map(
                |(
                    number,
                    kind,
                    committed_at,
                    (run_id, config_hash, contract_version, records),
                    objects,
                    bookmark,
                )| LogEntry {
                    format: FORMAT,
                    batch_id: BatchId::new(committed_at),
                    number: BatchNumber::new(number).unwrap(),
                    kind,
                    run_id,
                    config_hash,
                    contract_version,
                    committed_at,
                    records,
                    objects,
                    bookmark,
                },
            )
    }

    proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(128))]
        #[test]
        fn r063_every_entry_reads_back_as_what_it_was(entry in entries()) {
            let bytes = entry.to_bytes().unwrap();
            prop_assert_eq!(LogEntry::from_bytes(&bytes).unwrap(), entry);
        }

        #[test]
        fn no_bytes_are_an_entry_by_chance(bytes in vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(LogEntry::from_bytes(&bytes).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }
}
