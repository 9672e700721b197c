//! Rows that come late: set aside when their batch was loaded, accepted since. They go to the place that they would have
//! had, by sequence and raw position, and move no watermark.
//!
//! A row that is in the table already, because a release died behind its commit, is found by its raw position.

use std::{collections::HashMap, ops::RangeInclusive, sync::Arc};

use arrow::{
    array::{AsArray as _, BooleanArray, RecordBatch},
    compute::{filter_record_batch, kernels::boolean::or_kleene},
    datatypes::Int64Type,
};
use deltalake::{
    kernel::{CommitInfo, transaction::CommitBuilder},
    protocol::DeltaOperation,
};
use futures::{TryStreamExt as _, stream::BoxStream};
use serde::{Deserialize, Serialize};

use super::{
    Committed, HISTORY_COMMITS_MAX, RulesNote, Table,
    absent::Seen,
    latest::{Converter, Latest, arrow_error, with_column},
    lower,
    merge::{MergeCounts, MergeOptions, POSITION, Planned, Shaped, append},
    system::LoadRow,
};
use crate::{
    clock::Timestamp,
    config::{ScdType, StreamName},
    error::{Error, ErrorKind, Result},
    raw::BatchNumber,
};

/// The `commitInfo` field that says which release made a commit.
const RELEASE_FIELD: &str = "landfallRelease";

/// The `commitInfo` field of the quarantine's commit that says what the release did.
const NOTE_FIELD: &str = "landfallReleased";

/// Commits looked through for the last release.
const RELEASE_COMMITS_MAX: usize = 1_000;

/// What one step of a release did. It stands in the commit that takes its records out of the quarantine, so both are true
/// at the same moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseNote {
    /// The step, a UUIDv7.
    pub release_id: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When its rows were in the table.
    pub finished_at: Timestamp,
    /// Version of the contract it judged by.
    pub contract_version: String,
    /// Quarantined records and pages that left the quarantine.
    pub released: u64,
    /// Records read of them: more than `released` if pages without readable records became readable.
    pub read: u64,
    /// Records that are in the table.
    pub merged: u64,
    /// Records that lost against a newer version.
    pub superseded: u64,
    /// Records of such pages that do not fit and are set aside themselves.
    pub quarantined: u64,
    /// Records that are deletions.
    pub deleted: u64,
    /// Records with values in `_rescued`.
    pub rescued: u64,
    /// Table rows that a record replaced.
    pub replaced: u64,
    /// Data files rewritten.
    pub files_rewritten: u64,
}

impl ReleaseNote {
    /// The step as a row of `landfall.loads`.
    pub fn row(&self, stream: &StreamName) -> LoadRow {
        LoadRow {
            stream: stream.clone(),
            load_id: self.release_id.clone(),
            batch_from: LoadRow::NO_BATCH,
            batch_to: LoadRow::NO_BATCH,
            started_at: self.started_at,
            finished_at: self.finished_at,
            contract_version: self.contract_version.clone(),
            read: self.read,
            merged: self.merged,
            superseded: self.superseded,
            quarantined: self.quarantined,
            released: self.released,
            deleted: self.deleted,
            rescued: self.rescued,
            replaced: self.replaced,
            files_rewritten: self.files_rewritten,
            absent: 0,
            absent_held: 0,
        }
    }
}

impl Table {
    /// As [`Table::plan_merge`] for rows of batches that the table has already. Of an appended table and of a replaced one
    /// only those enter whose position is not in it; of a replaced one, only those of the batches in `pass`.
    ///
    /// # Errors
    /// As [`Table::plan_merge`].
    pub async fn plan_release(
        &self,
        rows: Vec<RecordBatch>,
        options: &MergeOptions,
        pass: Option<RangeInclusive<BatchNumber>>,
    ) -> Result<Planned> {
        match options.scd_type {
            ScdType::Upsert | ScdType::History => self.plan_merge(rows, options, None).await,
            ScdType::Append => self.plan_append_missing(self.shaped(&rows)?, 0).await,
            ScdType::Replace => {
                let (mut kept, mut dropped) = (Vec::new(), 0);
                for batch in rows {
                    let of_pass = of_batches(&batch, pass.as_ref())?;
                    dropped += (batch.num_rows() - of_pass.num_rows()) as u64;
                    kept.push(of_pass);
                }
                self.plan_append_missing(self.shaped(&kept)?, dropped).await
            }
        }
    }

    /// Appends the rows whose raw position is not in the table.
    async fn plan_append_missing(&self, shaped: Shaped, superseded: u64) -> Result<Planned> {
        let Shaped {
            rows,
            schema,
            changed,
        } = shaped;
        let latest = Arc::new(Latest::of(rows, &schema, &POSITION, &POSITION)?);
        let files = self.files()?;
        let candidates = self.candidates(&files, &POSITION.map(str::to_owned), &latest);
        let mut there = vec![false; latest.winners.len()];
        let probed = self.probe_all(&files, &candidates, &latest).await?;
        for hit in probed.matches.iter().flatten() {
            there[hit.winner] = true;
        }
        let new: Vec<usize> = (0..there.len()).filter(|winner| !there[*winner]).collect();
        let present = (there.len() - new.len()) as u64;
        let counts = MergeCounts {
            merged: new.len() as u64,
            superseded: superseded + present,
            present,
            files: files.len() as u64,
            files_probed: candidates.files.len() as u64,
            groups: probed.groups,
            groups_probed: probed.groups_read,
            ..MergeCounts::default()
        };
        let mut writer = self.writer(schema)?;
        latest.write(&new, |_, rows| Ok(rows), &mut writer).await?;
        Ok(Planned {
            counts,
            tombstones: Vec::new().into(),
            actions: writer.close().await?,
            schema: changed,
            operation: append(),
        })
    }

    /// Makes `planned` visible without moving the watermark. A plan that changes nothing makes no commit.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the log can be neither written nor read back.
    pub async fn commit_release(
        &mut self,
        planned: Planned,
        release_id: &str,
        rules: &RulesNote,
    ) -> Result<Committed> {
        let mut actions = planned.actions;
        if actions.is_empty() {
            return Ok(Committed::Applied {
                version: self.version(),
            });
        }
        self.announce(&mut actions, planned.schema.as_ref())?;
        let mut metadata = rules.fields();
        metadata.insert(RELEASE_FIELD.to_owned(), release_id.into());
        self.commit_told(actions, planned.operation, metadata, release_id)
            .await
    }

    /// Commits without a watermark, once, against this version and no other.
    pub(super) async fn commit_told(
        &mut self,
        actions: Vec<deltalake::kernel::Action>,
        operation: DeltaOperation,
        metadata: HashMap<String, serde_json::Value>,
        release_id: &str,
    ) -> Result<Committed> {
        if !self.holds(&actions)? {
            return Ok(Committed::Conflicted);
        }
        let state = self.state()?.clone();
        let properties = self.once()?.with_metadata(metadata);
        let outcome = CommitBuilder::from(properties)
            .with_actions(actions)
            .build(Some(&state), self.delta.log_store(), operation)
            .await;
        let before = self.version();
        self.refresh().await?;
        let source = match outcome {
            Ok(commit) => {
                return Ok(Committed::Applied {
                    version: commit.version(),
                });
            }
            Err(source) => source,
        };
        // The reply to a commit may be lost although the commit stands.
        if let Some(version) = self.release_commit(release_id).await? {
            return Ok(Committed::Applied { version });
        }
        if self.version() > before {
            return Ok(Committed::Conflicted);
        }
        Err(lower(source, "commit table").with("table", &self.path))
    }

    async fn release_commit(&self, release_id: &str) -> Result<Option<u64>> {
        let history: Vec<_> = self
            .delta
            .history(Some(HISTORY_COMMITS_MAX))
            .try_collect()
            .await
            .map_err(|source| lower(source, "read table history").with("table", &self.path))?;
        let found = history
            .iter()
            .position(|commit| commit.info.get(RELEASE_FIELD).and_then(|id| id.as_str()) == Some(release_id));
        Ok(found.map(|back| self.version().saturating_sub(back as u64)))
    }

    /// What the last release did that took rows out of this table, if its log still tells.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if it cannot be read.
    pub async fn last_release(&self) -> Result<Option<ReleaseNote>> {
        let mut commits = std::pin::pin!(self.delta.history(Some(RELEASE_COMMITS_MAX)));
        while let Some(commit) = commits
            .try_next()
            .await
            .map_err(|source| lower(source, "read table history").with("table", &self.path))?
        {
            if let Some(text) = commit.info.get(NOTE_FIELD).and_then(|note| note.as_str()) {
                let note = serde_json::from_str(text).map_err(|source| {
                    Error::new(ErrorKind::Corrupt, "read what a release did")
                        .with("table", &self.path)
                        .caused_by(source)
                })?;
                return Ok(Some(note));
            }
        }
        Ok(None)
    }
}

/// Whether a release made a commit.
pub(super) fn is_release(commit: &CommitInfo) -> bool {
    commit.info.contains_key(RELEASE_FIELD)
}

/// What a commit says about the release that made it.
pub(super) fn told(note: &ReleaseNote) -> Result<HashMap<String, serde_json::Value>> {
    let text = serde_json::to_string(note)
        .map_err(|source| Error::new(ErrorKind::Internal, "tell release").caused_by(source))?;
    Ok(HashMap::from([
        (RELEASE_FIELD.to_owned(), note.release_id.as_str().into()),
        (NOTE_FIELD.to_owned(), text.into()),
    ]))
}

/// Marks those of `rows` as deleted that are older than a complete pass which did not bring their keys.
///
/// The pass began with `since`, and `seen` is what it brought. If it had records without a readable key nobody knows what
/// it did not bring, and nothing is marked.
///
/// # Errors
/// [`ErrorKind::Internal`] if the rows lack a key column.
pub async fn mark_absent(
    rows: Vec<RecordBatch>,
    keys: &[String],
    since: BatchNumber,
    mut seen: BoxStream<'_, Result<Seen>>,
) -> Result<Vec<RecordBatch>> {
    let older = |batch: &RecordBatch, row: usize| {
        let numbers = batch[POSITION[0]].as_primitive::<Int64Type>();
        numbers.value(row) < since.get()
    };
    let Some(schema) = rows.first().map(RecordBatch::schema) else {
        return Ok(rows);
    };
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    let keys = Converter::new(&names, &schema)?;
    // For each key of an older row whether the pass brought it.
    let mut brought: HashMap<Vec<u8>, bool> = HashMap::new();
    for batch in &rows {
        let own = keys.convert(batch)?;
        for row in (0..batch.num_rows()).filter(|row| older(batch, *row)) {
            brought.insert(own.row(row).data().to_vec(), false);
        }
    }
    if brought.is_empty() {
        return Ok(rows);
    }
    while let Some(piece) = seen.try_next().await? {
        let Seen::Keys(batch) = piece else {
            return Ok(rows);
        };
        let found = keys.convert(&batch)?;
        for row in 0..batch.num_rows() {
            if let Some(brought) = brought.get_mut(found.row(row).data()) {
                *brought = true;
            }
        }
    }
    let mut marked = Vec::with_capacity(rows.len());
    for batch in rows {
        let own = keys.convert(&batch)?;
        let gone: BooleanArray = (0..batch.num_rows())
            .map(|row| Some(older(&batch, row) && brought.get(own.row(row).data()) == Some(&false)))
            .collect();
        let marks = or_kleene(batch["_deleted"].as_boolean(), &gone).map_err(arrow_error)?;
        marked.push(with_column(&batch, "_deleted", Arc::new(marks))?);
    }
    Ok(marked)
}

/// The rows of `batch` whose raw batch is in `range`; none without one.
fn of_batches(batch: &RecordBatch, range: Option<&RangeInclusive<BatchNumber>>) -> Result<RecordBatch> {
    let Some(range) = range else {
        return Ok(batch.slice(0, 0));
    };
    let numbers = batch[POSITION[0]].as_primitive::<Int64Type>();
    let keep: BooleanArray = (0..numbers.len())
        .map(|row| Some((range.start().get()..=range.end().get()).contains(&numbers.value(row))))
        .collect();
    filter_record_batch(batch, &keep).map_err(arrow_error)
}
