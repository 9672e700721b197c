//! The merge: accepted rows of one load into the main table, one current row per key.
//!
//! ```text
//! rows ─ latest per key ─ prune files by key statistics ─ probe ─┬─ file without a loser: untouched
//!                                                                └─ else: row groups without one copied, others rewritten
//! winners ─ in the place of the row they replace, or into new files
//! ```
//!
//! Order is `sequence_by`, then the raw position. Memory follows the rows of the load, not the table; of a load that memory
//! has no room for it holds one slice at a time, and of the others where the rows are that they replace.

use std::{collections::HashSet, sync::Arc};

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
    absent::{Absence, AbsentCounts},
    deleted::file_of,
    evolve,
    file::DataFile,
    latest::arrow_error,
    lower,
};
use crate::{
    config::{Deletes, ScdType, WriteMode},
    error::{Error, ErrorKind, Result},
    raw::BatchNumber,
    spill::gathered::Gathered,
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
    /// What becomes of the files of rows that are replaced.
    pub write_mode: WriteMode,
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
    /// Files that stay with more rows marked as deleted.
    pub files_marked: u64,
}

/// New files that are written but not yet visible.
#[derive(Debug)]
pub struct Planned {
    /// What will have happened once it is committed.
    pub counts: MergeCounts,
    /// Keys, sequence and position of rows that are gone from the table for good, to be kept beside it.
    pub tombstones: Gathered,
    pub(super) actions: Vec<Action>,
    pub(super) schema: Option<Schema>,
    pub(super) operation: DeltaOperation,
}

/// The shape of a table once rows of some schema are in it.
#[derive(Clone)]
pub(super) struct Shape {
    pub(super) schema: SchemaRef,
    /// The schema, if the table does not have it yet.
    pub(super) changed: Option<Schema>,
}

impl Shape {
    /// `rows` in this shape.
    pub(super) fn of(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        cast_record_batch(rows, Arc::clone(&self.schema), false, true)
            .map_err(|source| lower(source, "shape rows"))
    }
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
    /// `rows` share one schema; columns the table lacks are added to it. With `absence` they end a pass over everything:
    /// rows that it did not bring are deletions. Rows that are more than memory holds are merged by and by, in slices of
    /// their keys.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`](crate::error::ErrorKind::Limit) if one key of a history has more versions than memory holds,
    /// [`ErrorKind::Contract`](crate::error::ErrorKind::Contract) if a column would change its type,
    /// [`ErrorKind::Corrupt`](crate::error::ErrorKind::Corrupt) or
    /// [`ErrorKind::Unavailable`](crate::error::ErrorKind::Unavailable) if files cannot be read or written.
    pub async fn plan_merge(
        &self,
        rows: impl Into<Gathered>,
        options: &MergeOptions,
        absence: Option<Absence<'_>>,
    ) -> Result<Planned> {
        let rows = rows.into();
        let shape = self.shape(rows.schema().as_deref())?;
        match options.scd_type {
            ScdType::Append => self.plan_append(rows, shape, options).await,
            ScdType::Upsert => self.plan_upsert(rows, shape, options, absence).await,
            ScdType::History => self.plan_history(rows, shape, options).await,
            ScdType::Replace => {
                let since = absence.map(|absence| absence.since);
                self.plan_replace(rows, shape, options, since).await
            }
        }
    }

    /// The shape of the table with rows of the schema `wanted`: it has the columns that it lacks.
    pub(super) fn shape(&self, wanted: Option<&Schema>) -> Result<Shape> {
        let existing = self.schema()?;
        let schema = match wanted {
            Some(wanted) => Arc::new(evolve::union(&existing, wanted)?),
            None => Arc::clone(&existing),
        };
        Ok(Shape {
            changed: (*schema != *existing).then(|| schema.as_ref().clone()),
            schema,
        })
    }

    /// Brings `rows` into the shape of the table, with the columns that it lacks.
    pub(super) fn shaped(&self, rows: &[RecordBatch]) -> Result<Shaped> {
        let shape = self.shape(rows.first().map(RecordBatch::schema).as_deref())?;
        let rows = rows.iter().map(|batch| shape.of(batch));
        Ok(Shaped {
            rows: rows.collect::<Result<_>>()?,
            changed: shape.changed.clone(),
            schema: shape.schema,
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
        let mut gone = HashSet::new();
        for action in &planned.actions {
            if let Action::Add(file) = action {
                // A file of which rows were marked is one of the table; of the plan is what says which rows.
                let path = match &file.deletion_vector {
                    Some(vector) => file_of(vector)?,
                    None => Some(Path::parse(&file.path).map_err(|source| {
                        Error::new(ErrorKind::Internal, "name data file").caused_by(source)
                    })?),
                };
                let Some(path) = path.filter(|path| gone.insert(path.clone())) else {
                    continue;
                };
                self.store().delete(&path).await.map_err(|source| {
                    Error::new(ErrorKind::Unavailable, "delete data file")
                        .with("file", &path)
                        .caused_by(source)
                })?;
            }
        }
        Ok(())
    }

    async fn plan_append(&self, rows: Gathered, shape: Shape, options: &MergeOptions) -> Result<Planned> {
        let mut writer = self
            .writer(Arc::clone(&shape.schema))?
            .with_filters(&options.keys);
        let mut counts = MergeCounts {
            files: self.files()?.len() as u64,
            ..MergeCounts::default()
        };
        for batch in rows.batches() {
            let batch = shape.of(&batch?)?;
            counts.merged += batch.num_rows() as u64;
            writer.write(&batch).await?;
        }
        Ok(Planned {
            counts,
            tombstones: Vec::new().into(),
            actions: writer.close().await?,
            schema: shape.changed,
            operation: append(),
        })
    }

    /// The rows of the pass that began with `since` instead of all rows there are; without a finished pass nothing changes.
    async fn plan_replace(
        &self,
        rows: Gathered,
        shape: Shape,
        options: &MergeOptions,
        since: Option<BatchNumber>,
    ) -> Result<Planned> {
        let files = self.files()?;
        let mut counts = MergeCounts {
            files: files.len() as u64,
            ..MergeCounts::default()
        };
        let mut writer = self
            .writer(Arc::clone(&shape.schema))?
            .with_filters(&options.keys);
        for batch in rows.batches() {
            let batch = shape.of(&batch?)?;
            let total = batch.num_rows();
            let of_pass = match since {
                Some(since) => since_batch(&batch, since)?,
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
            tombstones: Vec::new().into(),
            actions,
            schema: shape.changed,
            operation: DeltaOperation::Write {
                mode: SaveMode::Overwrite,
                partition_by: None,
                predicate: None,
            },
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
