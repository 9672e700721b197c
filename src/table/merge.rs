//! The merge: accepted rows of one load into the main table, one current row per key.
//!
//! ```text
//! rows ─ latest per key ─ prune files by key statistics ─ probe ─┬─ file without a loser: untouched
//!                                                                └─ else: row groups without one copied, others rewritten
//! winners ─ in the place of the row they replace, or into new files
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
use object_store::{ObjectStoreExt as _, path::Path};

use super::{
    CommitNote, Committed, Standing, Table,
    absent::{Absence, Absent, AbsentCounts},
    change::Changed,
    edit::{Edits, Patches},
    evolve,
    file::DataFile,
    latest::{Latest, arrow_error},
    lower,
    probe::Probed,
};
use crate::{
    config::{Deletes, ScdType},
    error::{Error, ErrorKind, Result},
    raw::BatchNumber,
};

/// The columns of a row's raw position, in order of significance.
pub const POSITION: [&str; 3] = ["_lf_batch", "_lf_page", "_lf_record"];

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
    /// Files that can hold a key of the load, by their bounds in the log.
    pub files_probed: u64,
    /// Row groups of those files.
    pub groups: u64,
    /// Those of them whose keys were read: bounds and key filters in the file do not rule them out.
    pub groups_probed: u64,
    /// Row groups of rewritten files that were copied as they are.
    pub groups_copied: u64,
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
            ScdType::Append => self.plan_append(shaped, options).await,
            ScdType::Upsert => self.plan_upsert(shaped, options, absence).await,
            ScdType::History => self.plan_history(shaped, options).await,
            ScdType::Replace => {
                self.plan_replace(shaped, options, absence.map(|absence| absence.since))
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

    async fn plan_append(&self, shaped: Shaped, options: &MergeOptions) -> Result<Planned> {
        let mut writer = self.writer(shaped.schema)?.with_filters(&options.keys);
        let mut counts = MergeCounts {
            files: self.files()?.len() as u64,
            ..MergeCounts::default()
        };
        for batch in &shaped.rows {
            counts.merged += batch.num_rows() as u64;
            writer.write(batch).await?;
        }
        Ok(Planned {
            counts,
            tombstones: Vec::new(),
            actions: writer.close().await?,
            schema: shaped.changed,
            operation: append(),
        })
    }

    /// The rows of the pass that began with `since` instead of all rows there are; without a finished pass nothing changes.
    async fn plan_replace(
        &self,
        shaped: Shaped,
        options: &MergeOptions,
        since: Option<BatchNumber>,
    ) -> Result<Planned> {
        let files = self.files()?;
        let mut counts = MergeCounts {
            files: files.len() as u64,
            ..MergeCounts::default()
        };
        let mut writer = self.writer(shaped.schema)?.with_filters(&options.keys);
        for batch in &shaped.rows {
            let total = batch.num_rows();
            let of_pass = match since {
                Some(since) => since_batch(batch, since)?,
                None => batch.slice(0, 0),
            };
            counts.merged += of_pass.num_rows() as u64;
            counts.superseded += (total - of_pass.num_rows()) as u64;
            writer.write(&of_pass).await?;
        }
        let mut actions = writer.close().await?;
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
        let probed = self.probe_all(&files, &candidates, &latest).await?;
        let mut counts = MergeCounts {
            files: files.len() as u64,
            files_probed: candidates.files.len() as u64,
            groups: probed.groups,
            groups_probed: probed.groups_read,
            ..MergeCounts::default()
        };
        // A winner is written once, also where its key stands in several rows because the keys of the table were others before.
        let mut settled = vec![false; latest.winners.len()];
        let mut present = vec![false; latest.winners.len()];
        let mut meet = |hits: &Probed| {
            for hit in hits.matches.iter().flatten() {
                settled[hit.winner] |= !hit.newer;
                present[hit.winner] |= hit.same;
            }
        };
        meet(&probed);
        if let Some((tombstones, standing)) = &options.tombstones {
            let mut files = tombstones.files()?;
            files.retain(|file| standing.counts(file));
            let candidates = tombstones.candidates(&files, &options.keys, &latest);
            meet(&tombstones.probe_all(&files, &candidates, &latest).await?);
        }
        counts.superseded = latest.total() - latest.winners.len() as u64;
        // Counted for themselves, not as what is left over: the caller checks that the two add up to what it gave.
        counts.superseded += settled.iter().filter(|stale| **stale).count() as u64;
        counts.present = present.iter().filter(|same| **same).count() as u64;
        let hard = options.deletes == Deletes::Hard;
        let marks = latest.deletions();
        // A winner takes the place of the row that it replaces: then the file keeps its order and its bounds.
        let mut edits: Vec<Edits> = vec![Edits::default(); files.len()];
        let mut buried: Vec<usize> = Vec::new();
        let mut written = 0;
        for (file, hits) in candidates.files.iter().zip(&probed.matches) {
            for hit in hits.iter().filter(|hit| hit.newer) {
                counts.replaced += 1;
                counts.changed += u64::from(hit.changed);
                let first = !std::mem::replace(&mut settled[hit.winner], true);
                counts.merged += u64::from(first);
                let gone = hard && marks[hit.winner];
                if first && !gone {
                    edits[*file].replacements.push((hit.row, hit.winner));
                    written += u64::from(!marks[hit.winner]);
                    continue;
                }
                edits[*file].drops.push(hit.row);
                if first {
                    buried.push(hit.winner);
                }
            }
        }
        let mut new: Vec<usize> = (0..settled.len()).filter(|winner| !settled[*winner]).collect();
        counts.merged += new.len() as u64;
        written += new.iter().filter(|winner| !marks[**winner]).count() as u64;
        if hard {
            buried.extend(new.extract_if(.., |winner| marks[*winner]));
        }
        let mut tombstones = Vec::new();
        if !buried.is_empty() {
            tombstones.push(latest.gather(&buried)?);
        }
        if let Some(absence) = absence {
            let absent: Absent = self
                .find_absent(&files, &latest, options, absence, &edits, written)
                .await?;
            counts.absent = absent.counts;
            counts.files_probed = files.len() as u64;
            absent.edit(hard, &mut edits);
            tombstones.extend(absent.tombstones);
        }
        let mut patches = Patches::deleted();
        patches.latest = Some(Arc::clone(&latest));
        let edited = files
            .into_iter()
            .zip(edits)
            .filter(|(_, edits)| !edits.is_empty());
        let edited = edited.collect();
        let mut writer = self.writer(schema)?.with_filters(&options.keys);
        let Changed {
            mut actions,
            unwritten,
        } = self
            .change(edited, &patches, options, &mut writer, &mut counts)
            .await?;
        new.extend(unwritten);
        latest.write(&new, |_, rows| Ok(rows), &mut writer).await?;
        actions.extend(writer.close().await?);
        Ok(Planned {
            counts,
            tombstones,
            actions,
            schema: changed,
            operation: merge_operation(options),
        })
    }
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
