//! One stream's loads: raw batches judged, merged and committed with everything written about them.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use datafusion::execution::context::SessionContext;
use rand::RngExt as _;
use tracing::{info, warn};

use super::{Transformed, drift_side, loads_side, quarantine_side};
use crate::{
    clock::Timestamp,
    config::{OnMismatch, ScdType, Stream, StreamName},
    contract::{
        Contract,
        drift::{self, ChangeKind},
        judge::Judge,
    },
    error::{Error, ErrorKind, Result},
    failpoint,
    ops::{Workspace, contract},
    raw::{
        BatchNumber, layout,
        log::{LogEntry, RawLog},
    },
    table::{
        AppId, CommitNote, Committed, Standing, Table,
        merge::{MergeOptions, Planned},
        side::Side,
        system::{LoadRow, drift_rows},
    },
    transform::{
        condition::Condition,
        quarantine::LoadFacts,
        scan,
        split::{Split, SplitOptions, row_schema, split},
    },
};

/// Part of the memory limit that the raw bodies of one load may take: their typed columns, hashed keys and encoders need the rest.
const LOAD_MEMORY_SHARE: u64 = 8;

/// Plans made for one load before giving up; each is thrown away only because another writer was faster.
const COMMIT_ATTEMPTS_MAX: u32 = 10;

/// The longest random wait between two plans of one load.
const COMMIT_WAIT_MAX: Duration = Duration::from_millis(500);

/// A load's records, judged, and what is written about them.
struct Load {
    note: CommitNote,
    started_at: Timestamp,
    split: Split,
    changes: Vec<drift::Change>,
}

/// How one try to commit a load ended.
enum Attempt {
    Committed(Box<LoadRow>),
    /// Somebody else's load holds batches of this one.
    Overtaken,
    /// The table changed; plan against the new version.
    Again,
}

/// Loads raw batches of one stream into its tables.
pub(super) struct Loader<'a> {
    workspace: &'a Workspace,
    stream: &'a Stream,
    log: RawLog,
    contract: Contract,
    judge: Arc<Judge>,
    deletes: Option<Condition>,
    app: AppId,
    table: Table,
    session: SessionContext,
}

impl<'a> Loader<'a> {
    pub(super) async fn open(
        workspace: &'a Workspace,
        stream: &'a Stream,
        log: RawLog,
        contract: Contract,
    ) -> Result<Self> {
        let rules = &stream.table;
        let judge = Arc::new(contract::judge(stream, &contract)?);
        let deletes = rules
            .apply_as_deletes
            .as_deref()
            .map(|sql| Condition::new(sql, &judge.schema()))
            .transpose()?;
        let schema = row_schema(&judge, deleted_column(stream));
        let path = layout::table(&stream.name);
        let table = workspace
            .tables
            .open_or_create(&path, &schema, &rules.partition_by)
            .await?;
        let partition_by = table.partition_by()?;
        if partition_by != rules.partition_by {
            return Err(Error::new(ErrorKind::Contract, "change partition columns")
                .with("stream", &stream.name)
                .with("table has", partition_by.join(", "))
                .with("project wants", rules.partition_by.join(", "))
                .with(
                    "hint",
                    "a table keeps the partition columns it was created with; put `partition_by` back",
                ));
        }
        let session = SessionContext::new();
        Ok(Self {
            workspace,
            stream,
            log,
            contract,
            judge,
            deletes,
            app: AppId::new(&stream.name, AppId::GENERATION),
            table,
            session,
        })
    }

    /// The batches of the next load, or `None` when the table is at `head`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the table holds batches that raw does not.
    pub(super) async fn next_range(&self, head: BatchNumber) -> Result<Option<Vec<LogEntry>>> {
        let watermark = self.table.watermark(&self.app).await?;
        let from = watermark.map_or(BatchNumber::FIRST, BatchNumber::next);
        if from <= head {
            let bytes = self.workspace.project.memory_bytes_max / LOAD_MEMORY_SHARE;
            return Ok(Some(self.log.entries_within(from..=head, bytes).await?));
        }
        if let Some(mark) = watermark
            && mark > head
            && self.log.entry(mark).await?.is_none()
        {
            return Err(raw_lost(&self.stream.name, mark, head));
        }
        Ok(None)
    }

    /// One load: judged once, then planned and committed until it stands or somebody else's does.
    pub(super) async fn load(&mut self, entries: Vec<LogEntry>, done: &mut Transformed) -> Result<()> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(());
        };
        let note = CommitNote {
            app: self.app.clone(),
            from: first.number,
            batch: last.number,
            load_id: uuid::Uuid::now_v7().to_string(),
        };
        let started_at = self.workspace.clock.now();
        info!(stream = %self.stream.name, from = note.from.get(), to = note.batch.get(), load_id = note.load_id, "load began");
        let begun = Instant::now();
        let split = self.judge(entries, &note, started_at).await?;
        info!(stream = %self.stream.name, read = split.counts.read, judge_ms = begun.elapsed().as_millis(), "load judged");
        let load = Load {
            note,
            started_at,
            changes: self.changes(&split),
            split,
        };
        for attempt in 1..=COMMIT_ATTEMPTS_MAX {
            match self.attempt(&load, attempt).await? {
                Attempt::Committed(row) => {
                    done.add(&row, load.changes.len() as u64);
                    return Ok(());
                }
                Attempt::Overtaken => {
                    self.withdraw(&load.note).await?;
                    return Err(Error::new(ErrorKind::Conflict, "load raw batches")
                        .with("stream", &self.stream.name)
                        .with("reason", "another transform of this stream loaded them first"));
                }
                Attempt::Again => {
                    let wait = COMMIT_WAIT_MAX.mul_f64(rand::rng().random::<f64>());
                    warn!(stream = %self.stream.name, attempt, ?wait, "table changed meanwhile, planning again");
                    tokio::time::sleep(wait).await;
                }
            }
        }
        self.withdraw(&load.note).await?;
        Err(Error::new(ErrorKind::Conflict, "commit load")
            .with("stream", &self.stream.name)
            .with("attempts_max", COMMIT_ATTEMPTS_MAX))
    }

    /// Plans the load against the newest version and tries to commit it.
    async fn attempt(&mut self, load: &Load, attempt: u32) -> Result<Attempt> {
        let note = &load.note;
        if attempt > 1 {
            self.withdraw(note).await?;
        }
        let standing = self.table.standing(&self.app).await?;
        if standing.next() != note.from {
            return Ok(Attempt::Overtaken);
        }
        if let Committed::Conflicted = self.remove_void_rows(&standing).await? {
            return Ok(Attempt::Again);
        }
        let begun = Instant::now();
        let planned = self
            .table
            .plan_merge(load.split.accepted.clone(), &self.merge_options())
            .await?;
        let merged = begun.elapsed();
        let files_probed = planned.counts.files_probed;
        let row = self.load_row(load, &planned)?;
        self.write_sides(load, &row).await?;
        failpoint::point("transform::before_commit");
        let committed = self.table.commit_merge(planned, note).await?;
        failpoint::point("transform::after_commit");
        match committed {
            Committed::Applied { version } => {
                info!(stream = %self.stream.name, read = row.read, merged = row.merged, superseded = row.superseded,
                    quarantined = row.quarantined, version, files_probed, files_rewritten = row.files_rewritten,
                    merge_ms = merged.as_millis(), commit_ms = (begun.elapsed() - merged).as_millis(), "load ended");
                Ok(Attempt::Committed(Box::new(row)))
            }
            Committed::AlreadyApplied => Ok(Attempt::Overtaken),
            Committed::Conflicted => Ok(Attempt::Again),
        }
    }

    /// Removes what unfinished loads left in the side tables.
    ///
    /// Rows beyond the watermark may be those of a load that is just about to commit: the fence makes it plan again, and
    /// write them again, before they go.
    async fn remove_void_rows(&mut self, standing: &Standing) -> Result<Committed> {
        let tables = &self.workspace.tables;
        let mut void = Vec::new();
        for side in self.sides() {
            let found = tables.void_files(&side, &self.stream.name, standing).await?;
            void.push((side, found));
        }
        let mut fenced = Committed::AlreadyApplied;
        if void.iter().any(|(_, found)| found.beyond) {
            fenced = self.table.fence().await?;
            if fenced == Committed::Conflicted {
                return Ok(fenced);
            }
        }
        for (side, found) in void.iter().filter(|(_, found)| !found.files.is_empty()) {
            warn!(table = %side.path, files = found.files.len(), "rows of an unfinished load removed");
            tables.remove_files(side, &found.files).await?;
        }
        Ok(fenced)
    }

    /// Takes back the side rows of a load that did not commit.
    async fn withdraw(&self, note: &CommitNote) -> Result<()> {
        let tables = &self.workspace.tables;
        for side in self.sides() {
            let files = tables.files_of_load(&side, &note.load_id).await?;
            tables.remove_files(&side, &files).await?;
        }
        Ok(())
    }

    async fn judge(&self, entries: Vec<LogEntry>, note: &CommitNote, loaded_at: Timestamp) -> Result<Split> {
        let partitions = self.session.state().config().target_partitions();
        let recipe = self.workspace.recipe(self.stream)?;
        let raw = scan::table(&self.workspace.store, recipe, entries, partitions)?;
        let options = SplitOptions {
            judge: Arc::clone(&self.judge),
            deletes: self.deletes.clone(),
            deleted_column: deleted_column(self.stream),
            sequence_by: self.stream.table.sequence_by.clone(),
            facts: LoadFacts {
                load_id: note.load_id.clone(),
                loaded_at,
                contract_version: self.contract.version.clone(),
                batch_to: note.batch.get(),
            },
        };
        let split = split(&self.session, raw, &options).await?;
        if self.stream.drift.on_mismatch == OnMismatch::Fail && split.counts.quarantined > 0 {
            return Err(
                Error::new(ErrorKind::Contract, "load records that do not fit their contract")
                    .with("stream", &self.stream.name)
                    .with("records", split.counts.quarantined)
                    .with("policy", "on_mismatch: fail")
                    .with(
                        "hint",
                        "nothing of this load was written; change the contract or the policy and run transform again",
                    ),
            );
        }
        Ok(split)
    }

    fn changes(&self, split: &Split) -> Vec<drift::Change> {
        let policy = &self.stream.drift;
        let mut changes = drift::changes(
            &self.contract,
            &split.observed,
            policy.on_unknown,
            policy.on_mismatch,
        );
        for change in &mut changes {
            if matches!(
                change.kind,
                ChangeKind::RequiredMissing | ChangeKind::NullInRequired
            ) && let Some(excused) = split.excused.get(&change.path)
            {
                change.count = change.count.saturating_sub(*excused);
            }
        }
        changes.retain(|change| change.count > 0);
        changes
    }

    fn merge_options(&self) -> MergeOptions {
        let rules = &self.stream.table;
        MergeOptions {
            keys: rules.keys.clone(),
            sequence_by: rules.sequence_by.clone(),
            scd_type: rules.scd_type,
        }
    }

    /// The load's history row, with the accounting checked before anything can become visible.
    fn load_row(&self, load: &Load, planned: &Planned) -> Result<LoadRow> {
        let (counts, merge) = (&load.split.counts, &planned.counts);
        if counts.read != merge.merged + merge.superseded + counts.quarantined {
            return Err(Error::new(ErrorKind::Internal, "account for every record")
                .with("stream", &self.stream.name)
                .with("read", counts.read)
                .with("merged", merge.merged)
                .with("superseded", merge.superseded)
                .with("quarantined", counts.quarantined));
        }
        Ok(LoadRow {
            stream: self.stream.name.clone(),
            load_id: load.note.load_id.clone(),
            batch_from: load.note.from.get(),
            batch_to: load.note.batch.get(),
            started_at: load.started_at,
            finished_at: self.workspace.clock.now(),
            contract_version: self.contract.version.clone(),
            read: counts.read,
            merged: merge.merged,
            superseded: merge.superseded,
            quarantined: counts.quarantined,
            deleted: counts.deleted,
            rescued: counts.rescued,
            replaced: merge.replaced,
            files_rewritten: merge.files_rewritten,
        })
    }

    fn sides(&self) -> [Side; 3] {
        [quarantine_side(&self.stream.name), drift_side(), loads_side()]
    }

    async fn write_sides(&self, load: &Load, row: &LoadRow) -> Result<()> {
        let tables = &self.workspace.tables;
        let [quarantine, drift, loads] = self.sides();
        tables.append_side(&quarantine, &load.split.quarantined).await?;
        failpoint::point("transform::after_quarantine");
        tables
            .append_side(&drift, &[drift_rows(row, &load.changes)?])
            .await?;
        tables.append_side(&loads, &[row.to_batch()?]).await
    }
}

fn deleted_column(stream: &Stream) -> bool {
    stream.table.scd_type == ScdType::Upsert
}

/// The table holds batches up to `mark`, and raw ends before. Raw that begins anew under such a table would be skipped in
/// silence up to the old watermark.
pub(super) fn raw_lost(stream: &StreamName, mark: BatchNumber, end: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, "find the raw batches that are in the table")
        .with("stream", stream)
        .with("table has", mark)
        .with("raw ends at", end)
        .with("hint", "bring raw back, or move the table away and load it anew")
}
