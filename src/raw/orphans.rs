//! Objects that no log entry names: what a process left behind that ended before its commit.
//!
//! ```text
//! listed, older than `age_min` ─ less what the log names ─► orphans ─┬─ objects with pages ─► deleted
//!                                                                    └─ files ─► condemned, by a later sweep deleted
//! ```
//!
//! Listing comes before reading the log: what is committed meanwhile is found there. So an orphan is safe to delete if
//! nobody takes longer than `age_min` from storing an object to committing it.
//!
//! A file is different: it is found by its content and referred to again however old it is. One that nobody refers to is
//! condemned first, by a marker beside it. From then on whoever wants it takes it for missing and stores it anew, which
//! makes it young; the sweep deletes it only if marker and file are both older than `age_min` and it is still nobody's.

use std::{collections::HashMap, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _};
use object_store::{Error as StoreError, ObjectMeta, ObjectStore, ObjectStoreExt as _, path::Path};

use crate::{
    clock::Timestamp,
    config::StreamName,
    error::{Error, ErrorKind, Result},
    raw::{
        BatchId, BatchNumber, PageFacts,
        expire::Expired,
        frame,
        layout::{self, Key},
        log::{LogEntry, ObjectEntry, RawLog},
        store::lower,
    },
};

/// Candidates after which the log is read, so that no more are held; one folder may go beyond it.
const CANDIDATES_MAX: usize = 500_000;

/// Bounds of one sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What was written later is left alone. Longer than anybody takes from storing an object to committing it: a day is
    /// safe, an hour is not.
    pub age_min: Duration,
    /// Most objects that one sweep deletes or condemns; the rest is left to the next.
    pub orphans_max: usize,
}

/// An object that no log entry names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// [`Key::Object`] or [`Key::File`].
    pub key: Key,
    /// Its size.
    pub bytes: u64,
    /// When it was written, by the clock of the store.
    pub written_at: Timestamp,
}

/// What one sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Objects with pages that are deleted.
    pub objects: u64,
    /// Files that are deleted.
    pub files: u64,
    /// Files that are condemned, to be deleted by a later sweep.
    pub condemned: u64,
    /// Bytes that are free now.
    pub bytes: u64,
    /// Whether it stopped at [`Limits::orphans_max`].
    pub more: bool,
}

/// What tells a candidate from others of its stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Name {
    /// Of an object with pages.
    Object(BatchId, u32),
    /// Of a file.
    File(String),
}

/// What may be an orphan, so far as was seen.
#[derive(Debug, Default)]
struct Candidates(HashMap<Name, Orphan>);

/// What `object` of `stream` is, if it was written long enough ago to be an orphan and is something that could be one.
///
/// ```
/// use std::time::Duration;
/// use landfall::{clock::Timestamp, config::StreamName, raw::orphans::candidate};
/// use object_store::ObjectMeta;
/// let now = Timestamp::from_timestamp(1_000_000, 0).unwrap();
/// let stream = StreamName::parse("shop.orders").unwrap();
/// let meta = |path: String, age_s| ObjectMeta {
///     location: path.into(), last_modified: now - Duration::from_secs(age_s), size: 7, e_tag: None, version: None,
/// };
/// let file = format!("raw/shop/orders/files/ab/ab{}", "0".repeat(62));
/// let day = Duration::from_secs(86_400);
/// assert!(candidate(&meta(file.clone(), 86_400), &stream, now, day).is_some());
/// assert!(candidate(&meta(file, 86_399), &stream, now, day).is_none());
/// assert!(candidate(&meta("raw/shop/orders/_log/_last".into(), 90_000), &stream, now, day).is_none());
/// ```
pub fn candidate(
    object: &ObjectMeta,
    stream: &StreamName,
    now: Timestamp,
    age_min: Duration,
) -> Option<Orphan> {
    let age = (now - object.last_modified).to_std().ok()?;
    let key = Key::parse(&object.location)?;
    let ours = match &key {
        Key::Object { stream: owner, .. } | Key::File { stream: owner, .. } => owner == stream,
        _ => false,
    };
    (ours && age >= age_min).then_some(Orphan {
        key,
        bytes: object.size,
        written_at: object.last_modified,
    })
}

/// Every orphan of the log's stream, at most `limits.orphans_max`, and whether that is all.
///
/// Reads the whole log; if the stream has files, also the facts of every page.
///
/// # Errors
/// Those of the store and of [`RawLog::entries`]. [`ErrorKind::Corrupt`] if facts cannot be read: then nobody knows what
/// they refer to.
pub async fn find(log: &RawLog, now: Timestamp, limits: Limits) -> Result<(Vec<Orphan>, bool)> {
    let mut found = Vec::new();
    let mut candidates = Candidates::default();
    let mut folders = folders(log).await?.into_iter().peekable();
    // Ends with the folders.
    while let Some(folder) = folders.next() {
        let mut listed = log.store.list(Some(&folder));
        while let Some(object) = listed.next().await {
            let object = object.map_err(|error| lower(error, "list raw objects", &folder))?;
            if let Some(orphan) = candidate(&object, &log.stream, now, limits.age_min) {
                candidates.take(orphan);
            }
        }
        if candidates.0.len() >= CANDIDATES_MAX || folders.peek().is_none() {
            found.append(&mut std::mem::take(&mut candidates).orphans(log).await?);
            if found.len() > limits.orphans_max {
                break;
            }
        }
    }
    // Pages before files: whoever wants to know what a file is for finds it there.
    found.sort_by_key(|orphan| (matches!(orphan.key, Key::File { .. }), orphan.key.path()));
    let more = found.len() > limits.orphans_max;
    found.truncate(limits.orphans_max);
    Ok((found, more))
}

/// Deletes the orphans of the log's stream, and condemns its files that are nobody's. Safe to repeat, and beside anybody
/// who lands; not beside another sweep of the same stream.
///
/// # Errors
/// Those of [`find`] and of the store. What was deleted before is deleted.
pub async fn sweep(log: &RawLog, now: Timestamp, limits: Limits) -> Result<Swept> {
    let mut markers = markers(log).await?;
    let (orphans, more) = find(log, now, limits).await?;
    let mut swept = Swept {
        more,
        ..Swept::default()
    };
    for orphan in orphans {
        let path = orphan.key.path();
        let Key::File { stream, sha256 } = &orphan.key else {
            delete(log, &path).await?;
            swept.objects += 1;
            swept.bytes += orphan.bytes;
            continue;
        };
        let marker = layout::condemned(stream, sha256);
        match markers.remove(&marker) {
            None => {
                let put = log.store.put(&marker, Vec::new().into()).await;
                put.map_err(|error| lower(error, "condemn file", &marker))?;
                swept.condemned += 1;
            }
            Some(at) if orphan.written_at >= at => delete(log, &marker).await?,
            Some(at) if (now - at).to_std().is_ok_and(|age| age >= limits.age_min) => {
                // It may have been stored anew since it was listed.
                if written_at(log, &path).await?.is_some_and(|written| written < at) {
                    delete(log, &path).await?;
                    swept.files += 1;
                    swept.bytes += orphan.bytes;
                }
                delete(log, &marker).await?;
            }
            Some(_) => {}
        }
    }
    if !more {
        // Somebody refers to these now, or they are young again.
        for marker in markers.keys() {
            delete(log, marker).await?;
        }
    }
    Ok(swept)
}

impl Candidates {
    fn take(&mut self, orphan: Orphan) {
        let name = match &orphan.key {
            Key::Object { batch_id, index, .. } => Name::Object(*batch_id, *index),
            Key::File { sha256, .. } => Name::File(sha256.clone()),
            _ => return,
        };
        self.0.insert(name, orphan);
    }

    /// Those that the log does not name, which is read up to its newest entry.
    async fn orphans(mut self, log: &RawLog) -> Result<Vec<Orphan>> {
        let newest = if self.0.is_empty() {
            None
        } else {
            log.head().await?
        };
        if let Some(newest) = newest {
            let expired = Expired::of(log).await?;
            if self.has_files() {
                // Nobody can read any more what expired pages refer to; the rows made from them still do.
                for sha256 in expired.files(log).await? {
                    self.0.remove(&Name::File(sha256));
                }
            }
            let mut entries = log.entries(BatchNumber::FIRST..=newest.number);
            while let Some(entry) = entries.try_next().await? {
                self.strike(&entry);
                if self.has_files() && !expired.contains(entry.number) {
                    for object in &entry.objects {
                        self.strike_files(&facts(log, object).await?);
                    }
                }
            }
        }
        Ok(self.0.into_values().collect())
    }

    fn has_files(&self) -> bool {
        self.0.keys().any(|name| matches!(name, Name::File(_)))
    }

    /// Takes out the objects that an entry names.
    fn strike(&mut self, entry: &LogEntry) {
        for object in &entry.objects {
            let key = Path::parse(&object.path).ok().and_then(|path| Key::parse(&path));
            if let Some(Key::Object { batch_id, index, .. }) = key {
                self.0.remove(&Name::Object(batch_id, index));
            }
        }
    }

    /// Takes out the files that pages refer to.
    fn strike_files(&mut self, facts: &[PageFacts]) {
        let files = facts.iter().flat_map(|facts| &facts.files);
        for sha256 in files.filter_map(|file| file.sha256.as_ref()) {
            self.0.remove(&Name::File(sha256.clone()));
        }
    }
}

/// The folders below the stream's own in which there may be orphans: one for each day, one for each beginning of files.
async fn folders(log: &RawLog) -> Result<Vec<Path>> {
    let files = layout::files(&log.stream);
    let mut folders = Vec::new();
    for parent in [&layout::raw(&log.stream), &files] {
        let listed = log.store.list_with_delimiter(Some(parent)).await;
        let listed = listed.map_err(|error| lower(error, "list raw objects", parent))?;
        folders.extend(listed.common_prefixes);
    }
    let log_folder = layout::raw(&log.stream).join("_log");
    folders.retain(|folder| *folder != files && *folder != log_folder);
    Ok(folders)
}

/// The markers of condemned files, and when each was written.
async fn markers(log: &RawLog) -> Result<HashMap<Path, Timestamp>> {
    let folder = layout::files(&log.stream).join("_condemned");
    let listed = log.store.list(Some(&folder));
    let listed: Vec<ObjectMeta> = listed
        .try_collect()
        .await
        .map_err(|error| lower(error, "list condemned files", &folder))?;
    let markers = listed
        .into_iter()
        .filter(|meta| matches!(Key::parse(&meta.location), Some(Key::Condemned { .. })));
    Ok(markers.map(|meta| (meta.location, meta.last_modified)).collect())
}

/// The facts of every page of `object`, without its bodies.
pub(super) async fn facts(log: &RawLog, object: &ObjectEntry) -> Result<Vec<PageFacts>> {
    let key = Path::from(object.path.as_str());
    let mut starts: Vec<(u64, u64)> = object
        .pages
        .iter()
        .map(|page| (page.frame_offset, page.frame_bytes))
        .collect();
    starts.dedup();
    let ends = starts.iter().skip(1).map(|(start, _)| *start);
    let ends = ends.chain([object.bytes]);
    let corrupt = |reason: String| {
        Error::new(ErrorKind::Corrupt, "read facts of raw pages")
            .with("key", &key)
            .with("reason", reason)
            .with(
                "hint",
                "nothing is swept while nobody knows what its pages refer to",
            )
    };
    let mut ranges = Vec::new();
    for ((start, bytes), end) in starts.iter().zip(ends) {
        let begin = start.checked_add(*bytes).filter(|begin| *begin < end);
        ranges.push(begin.ok_or_else(|| corrupt("no facts follow a frame".to_owned()))?..end);
    }
    let read = log.store.get_ranges(&key, &ranges).await;
    let read = read.map_err(|error| lower(error, "read facts of raw pages", &key))?;
    let mut facts = Vec::new();
    for bytes in read {
        facts.append(&mut frame::facts(&bytes).map_err(corrupt)?);
    }
    Ok(facts)
}

async fn written_at(log: &RawLog, path: &Path) -> Result<Option<Timestamp>> {
    match log.store.head(path).await {
        Ok(meta) => Ok(Some(meta.last_modified)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(lower(error, "look for file", path)),
    }
}

async fn delete(log: &RawLog, path: &Path) -> Result<()> {
    match log.store.delete(path).await {
        Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(lower(error, "delete orphan", path)),
    }
}

#[cfg(test)]
mod tests;
