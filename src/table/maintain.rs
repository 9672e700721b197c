//! Keeping tables small to read: files made larger, logs shortened, what no version needs any more found.
//!
//! ```text
//! compact ─ small files ─► fewer larger ones, one commit without txn     checkpoint ─► log read from there on
//! stale_files ─ listed, old, in no version that counts ─► to be deleted     stale_log ─ before the last checkpoint ─► to be deleted
//! ```
//!
//! None of it changes a row or moves a watermark.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use chrono::TimeDelta;
use deltalake::{
    checkpoints::create_checkpoint,
    kernel::{Action, DeletionVectorDescriptor, transaction::CommitBuilder},
    protocol::DeltaOperation,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{ObjectMeta, ObjectStoreExt as _, path::Path};
use serde::Deserialize;

use super::{
    AppId, Standing, Table, Tables,
    deleted::{file_of, is_vector_file},
    file::{DataFile, Logical},
    lower,
    side::{Side, load_of, of_stream},
};
use crate::{
    clock::Timestamp,
    config::StreamName,
    error::{Error, ErrorKind, Result},
    failpoint,
};

/// Bytes of the files that one commit of a compaction replaces, about. Bounds what is lost if another writer was faster.
const COMMIT_BYTES_MAX: u64 = 1 << 30;

/// Small files of one stream in a side table from which on a load puts them together: each is read by every look at what
/// was loaded.
pub const SIDE_FILES_MAX: usize = 32;

/// How long they are left alone: a load that is overtaken on its way to its commit takes its rows back by their files.
pub const SIDE_AGE_MIN: TimeDelta = TimeDelta::minutes(10);

/// The size up to which it does.
const SIDE_BYTES_TARGET: u64 = 8 << 20;

/// Times the commit of files that are written already is tried: each fails only because another writer was faster.
const COMMIT_ATTEMPTS_MAX: u32 = 20;

/// Files below this part of the size wanted are small.
const SMALL_SHARE: u64 = 2;

/// So many files become one whatever their sizes; fewer only if the largest of them is not nearly all of it.
const FILES_ENOUGH: usize = 8;

/// A file is written anew for its own sake if more than one in so many of its rows is marked as deleted.
const DELETED_PART: u64 = 5;

/// Commits read at once.
const COMMITS_IN_FLIGHT_MAX: usize = 16;

/// Where the log of a table is, in its folder.
const LOG: &str = "_delta_log";

/// A property under which watermarks are forgotten.
const TXN_RETENTION: &str = "delta.setTransactionRetentionDuration";

/// A property under which columns have other names in files.
const COLUMN_MAPPING: &str = "delta.columnMapping.mode";

/// Which files may be put together.
#[derive(Clone, Debug)]
pub struct CompactOptions {
    /// Size wanted, in bytes.
    pub target_bytes: u64,
    /// Files written since are left alone.
    pub before: Timestamp,
    /// Whose rows are never taken back.
    pub settled: Settled,
    /// Which files are written anew because rows in them are marked as deleted.
    pub marked: Marked,
}

/// Files with rows that are marked as deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// Small ones, and those of which much is marked.
    Much,
    /// All.
    All,
}

/// The files of a table whose rows no load takes back as files.
#[derive(Clone, Debug)]
pub enum Settled {
    /// All: they are rows of a main table.
    All,
    /// Those of loads before the last one of their stream.
    ///
    /// A load removes rows of a load that died from a side table by the file. What is put together can only be removed
    /// together.
    Before {
        /// The side table.
        side: Side,
        /// Where the streams stand whose rows are in it. Rows of others are left alone.
        standings: Vec<(StreamName, Standing)>,
    },
}

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Files that were replaced.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files in their place.
    pub files_after: u64,
    /// Their bytes.
    pub bytes_after: u64,
    /// Files that stay because another writer changed them or the table meanwhile.
    pub overtaken: u64,
}

/// What is known of a file that may be put together with others.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Small {
    /// Number among all files.
    at: usize,
    bytes: u64,
    /// Whether it is written anew in any case.
    marked: bool,
}

impl Settled {
    fn has(&self, file: &DataFile) -> bool {
        let Self::Before { side, standings } = self else {
            return true;
        };
        let mut standings = standings.iter();
        let Some((_, standing)) = standings.find(|(stream, _)| of_stream(file, side, stream)) else {
            return false;
        };
        // Without batches there are no loads that take it back.
        let Some((batch, _)) = load_of(file) else {
            return true;
        };
        is_settled(batch, standing)
    }
}

/// Whether so many rows of `file` are marked as deleted that readers pay for them.
fn is_much_deleted(file: &DataFile) -> bool {
    let records = file.records().unwrap_or(0);
    file.deleted().saturating_mul(DELETED_PART) > records
}

/// Whether rows of a load that ends with `batch` stay: it was committed, and another one after it.
fn is_settled(batch: i64, standing: &Standing) -> bool {
    let loaded = standing.watermark.is_some_and(|mark| batch <= mark.get());
    loaded && standing.last.as_ref().is_none_or(|last| batch < last.from.get())
}

impl Table {
    /// Which files would be put together, group by group.
    fn groups(&self, files: &[DataFile], options: &CompactOptions) -> Vec<Vec<usize>> {
        let mut partitions: BTreeMap<Vec<(String, Option<String>)>, Vec<Small>> = BTreeMap::new();
        let before = options.before.timestamp_millis();
        for (at, file) in files.iter().enumerate() {
            let small = file.bytes < options.target_bytes / SMALL_SHARE;
            let marked =
                file.vector.is_some() && (small || options.marked == Marked::All || is_much_deleted(file));
            if (small || marked) && file.view.modification_time() < before && options.settled.has(file) {
                let mut partition = file.partition.clone();
                partition.sort();
                let bytes = file.bytes;
                partitions
                    .entry(partition)
                    .or_default()
                    .push(Small { at, bytes, marked });
            }
        }
        for small in partitions.values_mut() {
            // Rows of one time stay together.
            small.sort_by_key(|small| (files[small.at].view.modification_time(), small.at));
        }
        partitions
            .values()
            .flat_map(|small| bins(small, options.target_bytes))
            .collect()
    }

    /// What [`Table::compact`] would replace.
    ///
    /// # Errors
    /// As [`Table::compact`].
    pub fn compactable(&self, options: &CompactOptions) -> Result<Compacted> {
        self.refuse_mapped()?;
        let files = self.files()?;
        let mut found = Compacted::default();
        for group in self.groups(&files, options) {
            found.files += group.len() as u64;
            found.files_after += 1;
            found.bytes += group.iter().map(|&at| files[at].bytes).sum::<u64>();
        }
        Ok(found)
    }

    /// Puts small files together, and writes those anew that have many rows which are marked as deleted. Rows stay as they are, in their order within a file; the watermark stays.
    ///
    /// Beside other writers nothing is lost: a load that planned against the files before plans again, and files that a
    /// load has changed meanwhile are left to the next time.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for a table whose files have other column names; else whatever the store says.
    pub async fn compact(&mut self, options: &CompactOptions) -> Result<Compacted> {
        self.refuse_mapped()?;
        let files = self.files()?;
        let mut done = Compacted::default();
        let mut groups = self.groups(&files, options).into_iter().peekable();
        while groups.peek().is_some() {
            let mut step: Vec<Vec<&DataFile>> = Vec::new();
            let mut bytes = 0;
            while let Some(group) = groups.next_if(|_| bytes < COMMIT_BYTES_MAX) {
                let group: Vec<&DataFile> = group.into_iter().map(|at| &files[at]).collect();
                bytes += group.iter().map(|file| file.bytes).sum::<u64>();
                step.push(group);
            }
            let count = step.iter().map(Vec::len).sum::<usize>() as u64;
            match self.replace(&step, options.target_bytes).await? {
                Some((files_after, bytes_after)) => {
                    done.files += count;
                    done.bytes += bytes;
                    done.files_after += files_after;
                    done.bytes_after += bytes_after;
                }
                None => done.overtaken += count,
            }
        }
        Ok(done)
    }

    /// Writes each group anew and commits all of them; `None` if another writer changed what they were made from.
    async fn replace(&mut self, groups: &[Vec<&DataFile>], target_bytes: u64) -> Result<Option<(u64, u64)>> {
        let schema = self.schema()?;
        let mut adds = Vec::new();
        let (mut files, mut bytes) = (0, 0);
        for group in groups {
            let mut writer = self.writer_of(Arc::clone(&schema), target_bytes)?;
            for file in group {
                let opened = self.open(file).await?;
                writer.keep_filters(&opened);
                let mut batches = std::pin::pin!(opened.rows(Arc::clone(&schema))?);
                while let Some(batch) = batches.try_next().await? {
                    writer.write(&batch).await?;
                }
            }
            for action in writer.close().await? {
                let Action::Add(mut add) = action else { continue };
                add.data_change = false;
                files += 1;
                bytes += u64::try_from(add.size).unwrap_or(0);
                adds.push(Action::Add(add));
            }
        }
        failpoint::point("maintain::compacted");
        let removed = groups.iter().flatten();
        let removes = removed.map(|file| Action::Remove(file.view.remove_action(false)));
        let actions: Vec<Action> = removes.chain(adds.iter().cloned()).collect();
        let operation = || DeltaOperation::Optimize {
            predicate: None,
            target_size: i64::try_from(target_bytes).unwrap_or(i64::MAX),
        };
        for _ in 0..COMMIT_ATTEMPTS_MAX {
            // Also the first time: the step before has moved to the newest version.
            if !self.holds(&actions)? || self.schema()? != schema {
                break;
            }
            let state = self.state()?.clone();
            let committed = CommitBuilder::from(self.once()?)
                .with_actions(actions.clone())
                .build(Some(&state), self.delta.log_store(), operation())
                .await;
            let before = self.version();
            self.refresh().await?;
            let Err(source) = committed else {
                return Ok(Some((files, bytes)));
            };
            let live: HashSet<Path> = self.files()?.into_iter().map(|file| file.path).collect();
            let is_live =
                |action: &Action| matches!(action, Action::Add(add) if live.contains(&path_of(&add.path)));
            // The reply was lost, the commit stands.
            if adds.iter().any(is_live) {
                return Ok(Some((files, bytes)));
            }
            if self.version() == before {
                return Err(lower(source, "commit compaction").with("table", &self.path));
            }
        }
        for action in &adds {
            if let Action::Add(add) = action {
                // Whatever stays is found by the next vacuum.
                let _ = self.store().delete(&path_of(&add.path)).await;
            }
        }
        Ok(None)
    }

    fn refuse_mapped(&self) -> Result<()> {
        let properties = self.state()?.metadata().configuration().clone();
        match properties.get(COLUMN_MAPPING) {
            Some(mode) if mode != "none" => Err(Error::new(ErrorKind::Refused, "compact table")
                .with("table", &self.path)
                .with("property", COLUMN_MAPPING)
                .with("hint", "another writer changed this table; compact it with that")),
            _ => Ok(()),
        }
    }

    /// Files in the table's folder that were written before `before` and that no version needs which was the newest since.
    ///
    /// Their keys are relative to the table. A load still at work has written its files since, if it began after
    /// `before`.
    ///
    /// # Errors
    /// Those of the store; [`ErrorKind::Corrupt`] for a commit that cannot be read: then nobody knows what it took away.
    pub async fn stale_files(&mut self, before: Timestamp) -> Result<Vec<ObjectMeta>> {
        let mut candidates: Vec<ObjectMeta> = self
            .list(None)
            .await?
            .into_iter()
            .filter(|object| object.last_modified < before && is_data(&object.location))
            .collect();
        if candidates.is_empty() {
            return Ok(candidates);
        }
        // What was committed since they were listed counts too.
        self.refresh().await?;
        let mut needed: HashSet<Path> = HashSet::new();
        for file in self.files()? {
            if let Some(vector) = &file.vector {
                needed.extend(file_of(vector)?);
            }
            needed.insert(file.path);
        }
        needed.extend(self.removed_since(before).await?);
        candidates.retain(|object| !needed.contains(&object.location));
        Ok(candidates)
    }

    /// What commits since `since` took out of the table. Only the log itself tells for sure: checkpoints forget it.
    async fn removed_since(&self, since: Timestamp) -> Result<Vec<Path>> {
        #[derive(Deserialize)]
        struct Line {
            remove: Option<Removed>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Removed {
            path: String,
            deletion_vector: Option<DeletionVectorDescriptor>,
        }
        let commits = self.list(Some(&Path::from(LOG))).await?.into_iter();
        let commits = commits
            .filter(|object| object.last_modified >= since)
            .filter(|object| matches!(LogFile::of(&object.location), LogFile::Commit(_)));
        let store = self.store();
        let mut read = stream::iter(commits)
            .map(|commit| {
                let store = Arc::clone(&store);
                async move {
                    let corrupt = |source: serde_json::Error| {
                        Error::new(ErrorKind::Corrupt, "read table commit")
                            .with("key", &commit.location)
                            .caused_by(source)
                    };
                    let got = store
                        .get(&commit.location)
                        .await
                        .map_err(|error| unread(&commit.location, error))?;
                    let bytes = got
                        .bytes()
                        .await
                        .map_err(|error| unread(&commit.location, error))?;
                    let mut removed = Vec::new();
                    let lines = bytes.split(|byte| *byte == b'\n');
                    for line in lines.filter(|line| !line.is_empty()) {
                        let line: Line = serde_json::from_slice(line).map_err(corrupt)?;
                        removed.extend(line.remove);
                    }
                    Ok::<_, Error>(removed)
                }
            })
            .buffered(COMMITS_IN_FLIGHT_MAX);
        let mut removed = Vec::new();
        while let Some(files) = read.try_next().await? {
            for file in files {
                // Written with or without escapes, it is not deleted.
                removed.extend(Path::from_url_path(&file.path).ok());
                removed.push(path_of(&file.path));
                if let Some(vector) = &file.deletion_vector {
                    removed.extend(file_of(vector)?);
                }
            }
        }
        Ok(removed)
    }

    /// Files of the log that were written before `before` and that nobody needs to read the versions since: those in
    /// front of a checkpoint. Their keys are relative to the table.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn stale_log(&self, before: Timestamp) -> Result<Vec<ObjectMeta>> {
        let listed = self.list(Some(&Path::from(LOG))).await?;
        Ok(stale(listed, self.version(), before))
    }

    /// Commits since the last checkpoint that is one file.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn commits_since_checkpoint(&self) -> Result<u64> {
        let listed = self.list(Some(&Path::from(LOG))).await?;
        let checkpoints = listed
            .iter()
            .filter_map(|object| match LogFile::of(&object.location) {
                LogFile::Checkpoint(version) => Some(version),
                _ => None,
            });
        Ok(match checkpoints.max() {
            Some(version) => self.version().saturating_sub(version),
            None => self.version() + 1,
        })
    }

    async fn list(&self, folder: Option<&Path>) -> Result<Vec<ObjectMeta>> {
        self.store().list(folder).try_collect().await.map_err(|error| {
            Error::new(ErrorKind::Unavailable, "list table")
                .with("table", &self.path)
                .caused_by(error)
        })
    }
}

/// Whether a load puts `file` of a side table together with others.
pub(super) fn is_small(file: &DataFile) -> bool {
    file.bytes < SIDE_BYTES_TARGET / SMALL_SHARE
}

impl Tables {
    /// Puts the small files together that the loads of `stream` up to `standing` left in a side table until `before`, except
    /// those of the last load, and sums its log up.
    ///
    /// `before` is to be [`SIDE_AGE_MIN`] ago: a load that was overtaken takes its rows back by their files.
    ///
    /// # Errors
    /// As [`Table::compact`].
    pub async fn tidy_side(
        &self,
        side: &Side,
        stream: &StreamName,
        standing: &Standing,
        before: Timestamp,
    ) -> Result<()> {
        let Some(mut table) = self.open(&side.path).await? else {
            return Ok(());
        };
        let options = CompactOptions {
            target_bytes: SIDE_BYTES_TARGET,
            before,
            settled: Settled::Before {
                side: side.clone(),
                standings: vec![(stream.clone(), standing.clone())],
            },
            marked: Marked::Much,
        };
        table.compact(&options).await?;
        create_checkpoint(&table.delta, None)
            .await
            .map_err(|source| lower(source, "write table checkpoint").with("table", &side.path))
    }

    /// Writes a checkpoint of the newest version of the table at `path`, and makes sure that it says the same.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] for a table whose properties make checkpoints forget watermarks; [`ErrorKind::Corrupt`] if the
    /// table says something else after it; else whatever the store says.
    pub async fn checkpoint(&self, path: &Path, app: Option<&AppId>) -> Result<u64> {
        let missing = || Error::new(ErrorKind::Corrupt, "write table checkpoint").with("table", path);
        let table = self.open(path).await?.ok_or_else(missing)?;
        if table
            .state()?
            .metadata()
            .configuration()
            .contains_key(TXN_RETENTION)
        {
            return Err(Error::new(ErrorKind::Refused, "write table checkpoint")
                .with("table", path)
                .with("property", TXN_RETENTION)
                .with(
                    "hint",
                    "with this property the table forgets how far it is loaded; remove it",
                ));
        }
        let says = async |table: &Table| -> Result<_> {
            let files: HashSet<Logical> = table.files()?.iter().map(DataFile::logical).collect();
            let watermark = match app {
                Some(app) => table.watermark(app).await?,
                None => None,
            };
            Ok((watermark, files))
        };
        create_checkpoint(&table.delta, None)
            .await
            .map_err(|source| lower(source, "write table checkpoint").with("table", path))?;
        let again = self.open_anew(path).await?.ok_or_else(missing)?;
        if again.version() == table.version() && says(&again).await? != says(&table).await? {
            return Err(missing().with("problem", "the table read from it is another"));
        }
        Ok(table.version())
    }
}

/// Groups of neighbours that together come to about `target_bytes`, as numbers of files.
fn bins(files: &[Small], target_bytes: u64) -> Vec<Vec<usize>> {
    let mut bins: Vec<Vec<&Small>> = Vec::new();
    let mut filled = u64::MAX;
    for file in files {
        if filled.saturating_add(file.bytes) > target_bytes {
            bins.push(Vec::new());
            filled = 0;
        }
        filled += file.bytes;
        if let Some(bin) = bins.last_mut() {
            bin.push(file);
        }
    }
    let worth = |bin: &Vec<&Small>| {
        let sum: u64 = bin.iter().map(|file| file.bytes).sum();
        let largest = bin.iter().map(|file| file.bytes).max().unwrap_or(0);
        // One large file is not written again and again for a few rows.
        bin.len() >= FILES_ENOUGH
            || bin.iter().any(|file| file.marked)
            || (bin.len() > 1 && (sum - largest) * 4 >= largest)
    };
    bins.retain(worth);
    bins.iter()
        .map(|bin| bin.iter().map(|file| file.at).collect())
        .collect()
}

/// What a file of a table's log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogFile {
    /// A commit.
    Commit(u64),
    /// A checkpoint in one file.
    Checkpoint(u64),
    /// A checksum of a version.
    Checksum(u64),
    /// A checkpoint in several files, or by another scheme.
    Foreign,
    /// Anything else.
    Other,
}

impl LogFile {
    pub(super) fn of(path: &Path) -> Self {
        let name = path.filename().unwrap_or_default();
        let Some((version, end)) = name.split_once('.') else {
            return Self::Other;
        };
        let digits = version.len() == 20 && version.bytes().all(|byte| byte.is_ascii_digit());
        let (true, Ok(version)) = (digits, version.parse()) else {
            return Self::Other;
        };
        match end {
            "json" => Self::Commit(version),
            "checkpoint.parquet" => Self::Checkpoint(version),
            "crc" => Self::Checksum(version),
            end if end.starts_with("checkpoint.") => Self::Foreign,
            _ => Self::Other,
        }
    }

    fn version(self) -> Option<u64> {
        match self {
            Self::Commit(version) | Self::Checkpoint(version) | Self::Checksum(version) => Some(version),
            Self::Foreign | Self::Other => None,
        }
    }
}

/// The files of a log, `listed`, that stand in front of a checkpoint at or before the oldest commit since `before`.
fn stale(listed: Vec<ObjectMeta>, newest: u64, before: Timestamp) -> Vec<ObjectMeta> {
    let files: Vec<(LogFile, ObjectMeta)> = listed
        .into_iter()
        .map(|object| (LogFile::of(&object.location), object))
        .collect();
    // Somebody else's checkpoints may be what a reader begins with.
    if files.iter().any(|(file, _)| *file == LogFile::Foreign) {
        return Vec::new();
    }
    let recent = files.iter().filter_map(|(file, object)| match file {
        LogFile::Commit(version) if object.last_modified >= before => Some(*version),
        _ => None,
    });
    let oldest = recent.min().unwrap_or(newest);
    let checkpoints = files.iter().filter_map(|(file, _)| match file {
        LogFile::Checkpoint(version) if *version <= oldest => Some(*version),
        _ => None,
    });
    let Some(checkpoint) = checkpoints.max() else {
        return Vec::new();
    };
    let mut stale: Vec<(u64, ObjectMeta)> = files
        .into_iter()
        .filter_map(|(file, object)| Some((file.version()?, object)))
        .filter(|(version, object)| *version < checkpoint && object.last_modified < before)
        .collect();
    // Oldest first: whatever stays is without a gap.
    stale.sort_by(|one, other| (one.0, &one.1.location).cmp(&(other.0, &other.1.location)));
    stale.into_iter().map(|(_, object)| object).collect()
}

/// Whether a file of a table's folder is one of data, or says which of its rows are deleted: nothing hidden, nothing of the
/// log.
fn is_data(path: &Path) -> bool {
    let mut parts: Vec<String> = path.parts().map(|part| part.as_ref().to_owned()).collect();
    let Some(name) = parts.pop() else { return false };
    // Columns may begin with an underscore, and then folders of partitions do.
    let hidden = |part: &String| part.starts_with(['_', '.']) && !part.contains('=');
    (name.ends_with(".parquet") || is_vector_file(&name))
        && !name.starts_with(['_', '.'])
        && !parts.iter().any(hidden)
}

fn path_of(text: &str) -> Path {
    Path::parse(text).unwrap_or_else(|_| Path::from(text))
}

fn unread(key: &Path, error: object_store::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "read table commit")
        .with("key", key)
        .caused_by(error)
}

#[cfg(test)]
mod tests;
