//! The merge: accepted rows of one load into the main table, one current row per key.
//!
//! ```text
//! rows ─ latest per key ─ prune files by key statistics ─ probe keys and sequence ─┬─ file without a loser: untouched
//!                                                                                 └─ else: rewritten without them
//! winners ─ into the rewritten file they replace rows of, or into new files
//! ```
//!
//! Order is `sequence_by`, then the raw position. Memory follows the rows of the load, not the table.

use std::sync::Arc;

use arrow::{
    array::{AsArray as _, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::{Int64Type, Schema, SchemaRef},
};
use deltalake::{
    kernel::{Action, schema::cast_record_batch},
    protocol::{DeltaOperation, SaveMode},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{ObjectStoreExt as _, path::Path};

use super::{
    CommitNote, Committed, Standing, Table,
    absent::{Absence, Absent, AbsentCounts},
    edit::{Edits, Patches},
    evolve,
    file::{DataFile, close, write},
    latest::{Latest, arrow_error},
    lower,
    prune::{self, may_match},
};
use crate::{
    config::{Deletes, ScdType},
    error::{Error, ErrorKind, Result},
    raw::BatchNumber,
};

/// The columns of a row's raw position, in order of significance.
pub const POSITION: [&str; 3] = ["_lf_batch", "_lf_page", "_lf_record"];

/// Files probed at once.
const PROBE_CONCURRENCY: usize = 4;

/// How rows meet the table.
#[derive(Clone, Debug)]
pub struct MergeOptions {
    /// Column names that identify a row.
    pub keys: Vec<String>,
    /// Column names that order the versions of a row.
    pub sequence_by: Vec<String>,
    /// Whether older versions are replaced or kept.
    pub scd_type: ScdType,
    /// What a deletion does.
    pub deletes: Deletes,
    /// Deletions whose rows are not in the table any more, if there are any, and where the main table stands: those of
    /// loads that are not in it do not count.
    pub tombstones: Option<(Table, Standing)>,
}

impl MergeOptions {
    pub(super) fn keys(&self) -> Vec<&str> {
        self.keys.iter().map(String::as_str).collect()
    }

    /// The columns that order versions: the sequence, then the raw position.
    pub(super) fn order(&self) -> Vec<&str> {
        self.sequence_by
            .iter()
            .map(String::as_str)
            .chain(POSITION)
            .collect()
    }
}

/// What a merge will do, and did to the rows of its load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeCounts {
    /// Rows that are in the table afterwards, or deleted from it.
    pub merged: u64,
    /// Rows that lost against a newer version, in the load or in the table.
    pub superseded: u64,
    /// Those of them that are in the table already, at the same raw position.
    pub present: u64,
    /// Rows of the table that a merged row replaces.
    pub replaced: u64,
    /// Those of them that had another sequence. The others were read again; without a sequence nobody can tell, and all count.
    pub changed: u64,
    /// What a pass over everything did not bring.
    pub absent: AbsentCounts,
    /// Data files of the table version.
    pub files: u64,
    /// Files whose keys were read.
    pub files_probed: u64,
    /// Files rewritten.
    pub files_rewritten: u64,
}

/// New files that are written but not yet visible.
#[derive(Debug)]
pub struct Planned {
    /// What will have happened once it is committed.
    pub counts: MergeCounts,
    /// Keys, sequence and position of rows that are gone from the table for good, to be kept beside it.
    pub tombstones: Vec<RecordBatch>,
    pub(super) actions: Vec<Action>,
    pub(super) schema: Option<Schema>,
    pub(super) operation: DeltaOperation,
}

/// Rows in the shape of the table they go to.
pub(super) struct Shaped {
    pub(super) rows: Vec<RecordBatch>,
    pub(super) schema: SchemaRef,
    /// The schema, if the table does not have it yet.
    pub(super) changed: Option<Schema>,
}

impl Table {
    /// Writes the files that `rows` lead to; nothing is visible before [`Table::commit_merge`].
    ///
    /// `rows` are in raw order and share one schema; columns the table lacks are added to it. With `absence` they end a
    /// pass over everything: rows that it did not bring are deletions.
    ///
    /// # Errors
    /// [`ErrorKind::Contract`](crate::error::ErrorKind::Contract) if a column would change its type,
    /// [`ErrorKind::Corrupt`](crate::error::ErrorKind::Corrupt) or
    /// [`ErrorKind::Unavailable`](crate::error::ErrorKind::Unavailable) if files cannot be read or written.
    pub async fn plan_merge(
        &self,
        rows: Vec<RecordBatch>,
        options: &MergeOptions,
        absence: Option<Absence<'_>>,
    ) -> Result<Planned> {
        let shaped = self.shaped(&rows)?;
        match options.scd_type {
            ScdType::Append => self.plan_append(shaped).await,
            ScdType::Upsert => self.plan_upsert(shaped, options, absence).await,
            ScdType::History => self.plan_history(shaped, options).await,
            ScdType::Replace => {
                self.plan_replace(shaped, absence.map(|absence| absence.since))
                    .await
            }
        }
    }

    /// Brings `rows` into the shape of the table, with the columns that it lacks.
    pub(super) fn shaped(&self, rows: &[RecordBatch]) -> Result<Shaped> {
        let existing = self.schema()?;
        let wanted = rows
            .first()
            .map_or_else(|| Arc::clone(&existing), RecordBatch::schema);
        let schema = Arc::new(evolve::union(&existing, &wanted)?);
        let rows = rows
            .iter()
            .map(|batch| cast_record_batch(batch, Arc::clone(&schema), false, true))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|source| lower(source, "shape rows"))?;
        Ok(Shaped {
            rows,
            changed: (*schema != *existing).then(|| schema.as_ref().clone()),
            schema,
        })
    }

    /// Makes `planned` visible together with the watermark of `note`.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::error::ErrorKind::Unavailable) if the log can be neither written nor read back.
    pub async fn commit_merge(&mut self, planned: Planned, note: &CommitNote) -> Result<Committed> {
        self.commit(planned.actions, planned.schema.as_ref(), planned.operation, note)
            .await
    }

    /// Deletes the files of a plan that will not be committed.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::error::ErrorKind::Unavailable) if the store does not answer.
    pub async fn abandon(&self, planned: Planned) -> Result<()> {
        for action in &planned.actions {
            if let Action::Add(file) = action {
                let path = Path::parse(&file.path)
                    .map_err(|source| Error::new(ErrorKind::Internal, "name data file").caused_by(source))?;
                self.store().delete(&path).await.map_err(|source| {
                    Error::new(ErrorKind::Unavailable, "delete data file")
                        .with("file", &path)
                        .caused_by(source)
                })?;
            }
        }
        Ok(())
    }

    async fn plan_append(&self, shaped: Shaped) -> Result<Planned> {
        let mut writer = self.writer(shaped.schema)?;
        let mut counts = MergeCounts {
            files: self.files()?.len() as u64,
            ..MergeCounts::default()
        };
        for batch in &shaped.rows {
            counts.merged += batch.num_rows() as u64;
            write(&mut writer, batch).await?;
        }
        Ok(Planned {
            counts,
            tombstones: Vec::new(),
            actions: close(writer).await?,
            schema: shaped.changed,
            operation: append(),
        })
    }

    /// The rows of the pass that began with `since` instead of all rows there are; without a finished pass nothing changes.
    async fn plan_replace(&self, shaped: Shaped, since: Option<BatchNumber>) -> Result<Planned> {
        let files = self.files()?;
        let mut counts = MergeCounts {
            files: files.len() as u64,
            ..MergeCounts::default()
        };
        let mut writer = self.writer(shaped.schema)?;
        for batch in &shaped.rows {
            let total = batch.num_rows();
            let of_pass = match since {
                Some(since) => since_batch(batch, since)?,
                None => batch.slice(0, 0),
            };
            counts.merged += of_pass.num_rows() as u64;
            counts.superseded += (total - of_pass.num_rows()) as u64;
            write(&mut writer, &of_pass).await?;
        }
        let mut actions = close(writer).await?;
        if since.is_some() {
            counts.files_rewritten = files.len() as u64;
            counts.replaced = files.iter().filter_map(DataFile::rows).sum();
            counts.changed = counts.replaced;
            actions.extend(files.iter().map(Self::remove));
        }
        Ok(Planned {
            counts,
            tombstones: Vec::new(),
            actions,
            schema: shaped.changed,
            operation: DeltaOperation::Write {
                mode: SaveMode::Overwrite,
                partition_by: None,
                predicate: None,
            },
        })
    }

    async fn plan_upsert(
        &self,
        shaped: Shaped,
        options: &MergeOptions,
        absence: Option<Absence<'_>>,
    ) -> Result<Planned> {
        let Shaped {
            rows,
            schema,
            changed,
        } = shaped;
        let latest = Arc::new(Latest::of(rows, &schema, &options.keys(), &options.order())?);
        let files = self.files()?;
        let candidates = self.candidates(&files, &options.keys, &latest);
        let mut counts = MergeCounts {
            files: files.len() as u64,
            files_probed: candidates.len() as u64,
            ..MergeCounts::default()
        };
        let hits = self.probe_all(&files, &candidates, &latest).await?;
        // A winner is written once, also where its key stands in several rows because the keys of the table were others before.
        let mut settled = vec![false; latest.winners.len()];
        let mut present = vec![false; latest.winners.len()];
        for hit in hits.iter().flatten() {
            settled[hit.winner] |= !hit.newer;
            present[hit.winner] |= hit.same;
        }
        if let Some((tombstones, standing)) = &options.tombstones {
            let mut files = tombstones.files()?;
            files.retain(|file| standing.counts(file));
            let candidates = tombstones.candidates(&files, &options.keys, &latest);
            for hit in tombstones
                .probe_all(&files, &candidates, &latest)
                .await?
                .iter()
                .flatten()
            {
                settled[hit.winner] |= !hit.newer;
                present[hit.winner] |= hit.same;
            }
        }
        counts.superseded = latest.total() - latest.winners.len() as u64;
        // Counted for themselves, not as what is left over: the caller checks that the two add up to what it gave.
        counts.superseded += settled.iter().filter(|stale| **stale).count() as u64;
        counts.present = present.iter().filter(|same| **same).count() as u64;
        let gone = match options.deletes {
            Deletes::Hard => latest.deletions(),
            Deletes::Soft => vec![false; latest.winners.len()],
        };
        let mut edits: Vec<Edits> = vec![Edits::default(); files.len()];
        let mut replacing: Vec<Vec<usize>> = vec![Vec::new(); files.len()];
        let mut tombstones = Vec::new();
        for (file, hits) in candidates.iter().zip(&hits) {
            for hit in hits.iter().filter(|hit| hit.newer) {
                edits[*file].drops.push(hit.row);
                counts.replaced += 1;
                counts.changed += u64::from(hit.changed);
                if !std::mem::replace(&mut settled[hit.winner], true) {
                    counts.merged += 1;
                    replacing[*file].push(hit.winner);
                }
            }
        }
        let mut new: Vec<usize> = (0..settled.len()).filter(|winner| !settled[*winner]).collect();
        counts.merged += new.len() as u64;
        if options.deletes == Deletes::Hard {
            let mut buried: Vec<usize> = Vec::new();
            for winners in replacing.iter_mut().chain([&mut new]) {
                buried.extend(winners.extract_if(.., |winner| gone[*winner]));
            }
            if !buried.is_empty() {
                tombstones.push(latest.gather(&buried)?);
            }
        }
        if let Some(absence) = absence {
            let marks = latest.deletions();
            let written = replacing.iter().flatten().chain(&new);
            let written = written.filter(|winner| !marks[**winner]).count() as u64;
            let absent: Absent = self
                .find_absent(&files, &latest, options, absence, &edits, written)
                .await?;
            counts.absent = absent.counts;
            counts.files_probed = files.len() as u64;
            absent.edit(options.deletes == Deletes::Hard, &mut edits);
            tombstones.extend(absent.tombstones);
        }
        let mut actions = Vec::new();
        for ((file, edits), winners) in files.iter().zip(edits).zip(&replacing) {
            if edits.is_empty() {
                continue;
            }
            counts.files_rewritten += 1;
            let mut writer = self.writer(Arc::clone(&schema))?;
            self.copy_edited(file, edits, &Patches::deleted(), &schema, &mut writer)
                .await?;
            latest.write(winners, |_, rows| Ok(rows), &mut writer).await?;
            actions.extend(close(writer).await?);
            actions.push(Self::remove(file));
        }
        let mut writer = self.writer(schema)?;
        latest.write(&new, |_, rows| Ok(rows), &mut writer).await?;
        actions.extend(close(writer).await?);
        Ok(Planned {
            counts,
            tombstones: if options.deletes == Deletes::Hard {
                tombstones
            } else {
                Vec::new()
            },
            actions,
            schema: changed,
            operation: merge_operation(options),
        })
    }

    /// Which of `files` can hold a key of `latest`, by number.
    pub(super) fn candidates(&self, files: &[DataFile], keys: &[String], latest: &Latest) -> Vec<usize> {
        if latest.winners.is_empty() {
            return Vec::new();
        }
        let ranges = prune::ranges(keys, &latest.rows);
        (0..files.len())
            .filter(|number| {
                may_match(
                    &files[*number].partition,
                    files[*number].stats.as_deref(),
                    &ranges,
                )
            })
            .collect()
    }

    pub(super) async fn probe_all(
        &self,
        files: &[DataFile],
        candidates: &[usize],
        latest: &Arc<Latest>,
    ) -> Result<Vec<Vec<Match>>> {
        let chosen: Vec<DataFile> = candidates.iter().map(|number| files[*number].clone()).collect();
        stream::iter(chosen)
            .map(|file| {
                let latest = Arc::clone(latest);
                async move { self.probe(&file, &latest).await }
            })
            .buffered(PROBE_CONCURRENCY)
            .try_collect()
            .await
    }

    /// Finds the winners' keys in `file`, reading only key, sequence and position columns.
    async fn probe(&self, file: &DataFile, latest: &Arc<Latest>) -> Result<Vec<Match>> {
        let mut matches = Vec::new();
        let mut start = 0_u64;
        let mut batches = std::pin::pin!(self.read(file, Arc::clone(&latest.probe_schema)).await?);
        while let Some(batch) = batches.try_next().await? {
            let keys = latest.key_of(&batch)?;
            let orders = latest.order_of(&batch)?;
            for row in 0..batch.num_rows() {
                if let Some(winner) = latest.find(keys.row(row).data()) {
                    let (new, old) = (latest.order(winner), orders.row(row));
                    matches.push(Match {
                        winner,
                        row: start + row as u64,
                        newer: new > old.data(),
                        same: new == old.data(),
                        changed: sequence(new).is_empty() || sequence(new) != sequence(old.data()),
                    });
                }
            }
            start += batch.num_rows() as u64;
        }
        Ok(matches)
    }
}

/// A winner's key found in a data file.
#[derive(Debug)]
pub(super) struct Match {
    pub(super) winner: usize,
    /// Row number in the file.
    row: u64,
    /// Whether the winner is newer than that row.
    newer: bool,
    /// Whether the winner is that row.
    same: bool,
    /// Whether its sequence is another one.
    changed: bool,
}

/// The part of an order in comparable bytes that stands before the raw position.
///
/// Arrow writes a number as one byte and its own width, and a position is numbers of 8, 4 and 4 bytes.
fn sequence(order: &[u8]) -> &[u8] {
    const POSITION_BYTES: usize = 9 + 5 + 5;
    order.get(..order.len() - POSITION_BYTES).unwrap_or_default()
}

/// The rows of `batch` whose raw batch is `since` or later.
fn since_batch(batch: &RecordBatch, since: BatchNumber) -> Result<RecordBatch> {
    let numbers = batch[POSITION[0]].as_primitive::<Int64Type>();
    let keep: BooleanArray = numbers
        .iter()
        .map(|number| Some(number >= Some(since.get())))
        .collect();
    filter_record_batch(batch, &keep).map_err(arrow_error)
}

pub(super) fn append() -> DeltaOperation {
    DeltaOperation::Write {
        mode: SaveMode::Append,
        partition_by: None,
        predicate: None,
    }
}

pub(super) fn merge_operation(options: &MergeOptions) -> DeltaOperation {
    DeltaOperation::Merge {
        predicate: None,
        merge_predicate: Some(options.keys.join(", ")),
        matched_predicates: Vec::new(),
        not_matched_predicates: Vec::new(),
        not_matched_by_source_predicates: Vec::new(),
    }
}
