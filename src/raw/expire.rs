//! Raw objects past their retention: named as expired first, deleted afterwards. Log entries stay.
//!
//! ```text
//! entries that are due ─► _log/_expired/<first>-<last>.json ─► objects deleted ─► _log/_expired/<first>-<last>.done
//! ```
//!
//! Whoever finds an object missing can tell by that whether it was lost. A crash in between leaves objects behind that are
//! named already; the next run deletes them. Who may expire is not known here: that is [`Keep`].

use std::{collections::BTreeSet, ops::RangeInclusive};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{Error as StoreError, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, path::Path};
use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    failpoint,
    raw::{
        BatchNumber,
        layout::{self, Key},
        log::{LogEntry, RawLog},
        orphans::facts,
        store::lower,
    },
};

/// Batches that expire in one step; bounds what is held in memory and what a crash leaves to be done again.
pub const STEP_BATCHES_MAX: usize = 1000;

/// Requests under way at once.
const REQUESTS_IN_FLIGHT_MAX: usize = 16;

/// The batches of one stream whose objects are gone, or about to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// First and last of each range, in order.
    ranges: Vec<(BatchNumber, BatchNumber)>,
    /// Ranges whose objects may still be there.
    open: Vec<(BatchNumber, BatchNumber)>,
}

/// What must not expire, however old it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    /// This batch and all behind it.
    pub from: BatchNumber,
    /// Batches before it.
    pub single: BTreeSet<BatchNumber>,
}

/// Batches whose retention has ended, a step of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// First and last of each range, in order; may be none.
    pub ranges: Vec<(BatchNumber, BatchNumber)>,
    /// Their objects: key and size.
    pub objects: Vec<(Path, u64)>,
    /// Where the next step begins; `None` if this is the last.
    pub next: Option<BatchNumber>,
}

impl Due {
    /// Bytes of all objects, as stored.
    pub fn bytes(&self) -> u64 {
        self.objects.iter().map(|(_, bytes)| bytes).sum()
    }

    fn take(&mut self, entry: &LogEntry) {
        match self.ranges.last_mut() {
            Some((_, last)) if last.next() == entry.number => *last = entry.number,
            _ => self.ranges.push((entry.number, entry.number)),
        }
        self.objects.extend(objects(entry));
    }
}

/// Content of the word that batches have expired.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Word {
    /// When it was said.
    expired_at: Timestamp,
    /// SHA-256 of the files that their pages refer to: rows refer to them too, so they stay.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    files: BTreeSet<String>,
}

impl Expired {
    /// What has expired of `log`; one listing.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn of(log: &RawLog) -> Result<Self> {
        let folder = layout::expired(&log.stream);
        let listed: Vec<ObjectMeta> = log
            .store
            .list(Some(&folder))
            .try_collect()
            .await
            .map_err(|error| lower(error, "list expired batches", &folder))?;
        let keys = listed.iter().filter_map(|object| Key::parse(&object.location));
        Ok(Self::from_keys(keys))
    }

    fn from_keys(keys: impl Iterator<Item = Key>) -> Self {
        let (mut said, mut done) = (BTreeSet::new(), BTreeSet::new());
        for key in keys {
            match key {
                Key::Expired {
                    first,
                    last,
                    done: true,
                    ..
                } => done.insert((first, last)),
                Key::Expired { first, last, .. } => said.insert((first, last)),
                _ => false,
            };
        }
        Self {
            open: said.difference(&done).copied().collect(),
            ranges: said.union(&done).copied().collect(),
        }
    }

    /// Whether nothing has.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether the objects of `batch` have.
    pub fn contains(&self, batch: BatchNumber) -> bool {
        self.first_in(&(batch..=batch)).is_some()
    }

    /// The first batch of `range` that has.
    pub fn first_in(&self, range: &RangeInclusive<BatchNumber>) -> Option<BatchNumber> {
        // Two runs at once may say overlapping ranges, so their ends are in no order.
        self.ranges
            .iter()
            .filter(|(first, last)| first <= range.end() && last >= range.start())
            .map(|(first, _)| *first.max(range.start()))
            .min()
    }

    /// The last batch of `range` that has.
    pub fn last_in(&self, range: &RangeInclusive<BatchNumber>) -> Option<BatchNumber> {
        self.ranges
            .iter()
            .filter(|(first, last)| first <= range.end() && last >= range.start())
            .map(|(_, last)| *last.min(range.end()))
            .max()
    }

    /// Batches that have.
    pub fn count(&self) -> u64 {
        self.count_between(0, i64::MAX)
    }

    /// Batches of `range` that have.
    pub fn count_in(&self, range: &RangeInclusive<BatchNumber>) -> u64 {
        self.count_between(range.start().get(), range.end().get())
    }

    fn count_between(&self, start: i64, end: i64) -> u64 {
        let mut next = start;
        let mut count = 0_i64;
        for (first, last) in &self.ranges {
            let from = first.get().max(next);
            let behind = last.get().min(end).saturating_add(1);
            count += (behind - from).max(0);
            next = next.max(behind);
        }
        count.unsigned_abs()
    }

    /// Ranges whose deletion was begun and perhaps not finished.
    pub fn open(&self) -> &[(BatchNumber, BatchNumber)] {
        &self.open
    }

    /// Fails if a batch of `range` has expired: `attempt` needs all of them.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`], with the first of them.
    pub fn refuse(
        &self,
        log: &RawLog,
        range: &RangeInclusive<BatchNumber>,
        attempt: &'static str,
    ) -> Result<()> {
        match self.first_in(range) {
            None => Ok(()),
            Some(batch) => Err(self.error(log, batch, attempt)),
        }
    }

    /// Says that `attempt` found a batch whose objects are past their retention.
    pub fn error(&self, log: &RawLog, batch: BatchNumber, attempt: &'static str) -> Error {
        Error::new(ErrorKind::Refused, attempt)
            .with("stream", &log.stream)
            .with("batch", batch)
            .with(
                "problem",
                "its raw objects have expired: they were loaded, and deleted after their retention",
            )
            .with("batches expired", self.count())
    }

    /// SHA-256 of the files that expired pages refer to.
    ///
    /// # Errors
    /// Those of the store, and [`ErrorKind::Corrupt`] for a word that cannot be read: then nobody knows.
    pub async fn files(&self, log: &RawLog) -> Result<BTreeSet<String>> {
        let words = stream::iter(self.ranges.clone())
            .map(|range| async move {
                let key = word(log, range, false);
                let got = log.store.get(&key).await;
                let got = got.map_err(|error| lower(error, "read expired batches", &key))?;
                let bytes = got.bytes().await;
                let bytes = bytes.map_err(|error| lower(error, "read expired batches", &key))?;
                serde_json::from_slice::<Word>(&bytes).map_err(|error| {
                    Error::new(ErrorKind::Corrupt, "read expired batches")
                        .with("key", &key)
                        .caused_by(error)
                })
            })
            .buffered(REQUESTS_IN_FLIGHT_MAX);
        let words: Vec<Word> = words.try_collect().await?;
        Ok(words.into_iter().flat_map(|word| word.files).collect())
    }
}

/// The next batches from `from` on that were committed before `before` and are neither kept nor expired.
///
/// Ends at the first that is younger: the entries behind it are not read.
///
/// # Errors
/// Those of [`RawLog::entry`]; a missing entry is [`ErrorKind::Corrupt`].
pub async fn due(
    log: &RawLog,
    expired: &Expired,
    keep: &Keep,
    before: Timestamp,
    from: BatchNumber,
) -> Result<Due> {
    let mut due = Due {
        ranges: Vec::new(),
        objects: Vec::new(),
        next: None,
    };
    let numbers = (from.get()..keep.from.get()).filter_map(|number| BatchNumber::new(number).ok());
    let numbers = numbers.filter(|number| !expired.contains(*number) && !keep.single.contains(number));
    let mut entries = stream::iter(numbers)
        .map(|number| async move {
            log.entry(number).await?.ok_or_else(|| {
                Error::new(ErrorKind::Corrupt, "read log entry")
                    .with("key", layout::entry(&log.stream, number))
                    .with("reason", "it is missing")
            })
        })
        .buffered(REQUESTS_IN_FLIGHT_MAX);
    let mut taken = 0;
    while let Some(entry) = entries.try_next().await? {
        if entry.committed_at >= before {
            break;
        }
        due.take(&entry);
        taken += 1;
        if taken == STEP_BATCHES_MAX {
            due.next = Some(entry.number.next());
            break;
        }
    }
    Ok(due)
}

/// Says that the batches of `due` have expired, and deletes their objects. Doing it again changes nothing.
///
/// The caller has made sure that they are loaded. Files that their pages refer to stay.
///
/// # Errors
/// Those of the store, and [`ErrorKind::Corrupt`] if there are files and the facts of a page cannot be read: then nobody
/// knows which of them it refers to. What was deleted before is deleted, and said.
pub async fn expire(log: &RawLog, due: &Due, now: Timestamp) -> Result<()> {
    let has_files = has_files(log).await?;
    for range in &due.ranges {
        let mut said = Word {
            expired_at: now,
            files: BTreeSet::new(),
        };
        if has_files {
            said.files = files_of(log, *range).await?;
        }
        let bytes = serde_json::to_vec(&said)
            .map_err(|error| Error::new(ErrorKind::Internal, "say expired batches").caused_by(error))?;
        create(log, &word(log, *range, false), bytes).await?;
    }
    failpoint::point("expire::said");
    delete(log, due.objects.iter().map(|(path, _)| path.clone()).collect()).await?;
    failpoint::point("expire::deleted");
    for range in &due.ranges {
        create(log, &word(log, *range, true), Vec::new()).await?;
    }
    Ok(())
}

/// Finishes a deletion that was begun: `range` is one of [`Expired::open`]. Returns objects and bytes that were in it.
///
/// # Errors
/// Those of the store and of [`RawLog::entries`].
pub async fn finish(log: &RawLog, range: (BatchNumber, BatchNumber)) -> Result<(u64, u64)> {
    let mut entries = log.entries(range.0..=range.1);
    let (mut count, mut bytes) = (0, 0);
    while let Some(entry) = entries.try_next().await? {
        let there = objects(&entry).collect::<Vec<_>>();
        for (path, size) in &there {
            if exists(log, path).await? {
                count += 1;
                bytes += size;
            }
        }
        delete(log, there.into_iter().map(|(path, _)| path).collect()).await?;
    }
    create(log, &word(log, range, true), Vec::new()).await?;
    Ok((count, bytes))
}

fn objects(entry: &LogEntry) -> impl Iterator<Item = (Path, u64)> {
    let objects = entry.objects.iter();
    objects.map(|object| (Path::from(object.path.as_str()), object.bytes))
}

fn word(log: &RawLog, (first, last): (BatchNumber, BatchNumber), done: bool) -> Path {
    let stream = log.stream.clone();
    Key::Expired {
        stream,
        first,
        last,
        done,
    }
    .path()
}

async fn has_files(log: &RawLog) -> Result<bool> {
    let folder = layout::files(&log.stream);
    let listed = log.store.list_with_delimiter(Some(&folder)).await;
    let listed = listed.map_err(|error| lower(error, "list files", &folder))?;
    Ok(!listed.common_prefixes.is_empty())
}

async fn files_of(log: &RawLog, (first, last): (BatchNumber, BatchNumber)) -> Result<BTreeSet<String>> {
    let mut files = BTreeSet::new();
    let mut entries = log.entries(first..=last);
    while let Some(entry) = entries.try_next().await? {
        for object in &entry.objects {
            let facts = facts(log, object).await?;
            files.extend(
                facts
                    .into_iter()
                    .flat_map(|facts| facts.files)
                    .filter_map(|file| file.sha256),
            );
        }
    }
    Ok(files)
}

async fn create(log: &RawLog, key: &Path, bytes: Vec<u8>) -> Result<()> {
    let put = log
        .store
        .put_opts(key, bytes.into(), PutMode::Create.into())
        .await;
    match put {
        Ok(_) | Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => Ok(()),
        Err(error) => Err(lower(error, "say expired batches", key)),
    }
}

async fn exists(log: &RawLog, path: &Path) -> Result<bool> {
    match log.store.head(path).await {
        Ok(_) => Ok(true),
        Err(StoreError::NotFound { .. }) => Ok(false),
        Err(error) => Err(lower(error, "look for raw object", path)),
    }
}

async fn delete(log: &RawLog, paths: Vec<Path>) -> Result<()> {
    let mut deleted = stream::iter(paths)
        .map(|path| async move {
            match log.store.delete(&path).await {
                Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
                Err(error) => Err(lower(error, "delete expired raw object", &path)),
            }
        })
        .buffered(REQUESTS_IN_FLIGHT_MAX);
    while let Some(()) = deleted.try_next().await? {
        failpoint::point("expire::mid_delete");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
