//! `landfall transform`: from raw batches to tables. Needs no network but the lake's.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use datafusion::execution::context::SessionContext;
use rand::RngExt as _;
use tracing::{info, warn};

use crate::{
    clock::Timestamp,
    config::{Deletes, OnMismatch, ScdType, Stream, StreamName},
    contract::{
        Contract, drift,
        judge::{Judge, JudgeOptions},
    },
    error::{Error, ErrorKind, Result},
    failpoint,
    ops::{Workspace, contract},
    raw::{
        BatchNumber,
        layout::{self, SystemTable},
        log::{LogEntry, RawLog},
    },
    table::{
        AppId, CommitNote, Committed, Table,
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

/// The generation of a table. A rebuild will count it up.
const GENERATION: u32 = 0;

/// Part of the memory limit that the raw bodies of one load may take: their typed columns, hashed keys and encoders need the rest.
const LOAD_MEMORY_SHARE: u64 = 8;

/// Plans made for one load before giving up; each is thrown away only because another writer was faster.
const COMMIT_ATTEMPTS_MAX: u32 = 10;

/// The longest random wait between two plans of one load.
const COMMIT_WAIT_MAX: Duration = Duration::from_millis(500);

/// What the loads of one run did to a table. `read = merged + superseded + quarantined`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transformed {
    /// Loads committed.
    pub loads: u64,
    /// Records read.
    pub read: u64,
    /// Records that are in the table.
    pub merged: u64,
    /// Records that lost against a newer version.
    pub superseded: u64,
    /// Records set aside.
    pub quarantined: u64,
    /// Records that are deletions.
    pub deleted: u64,
    /// Records with values in `_rescued`.
    pub rescued: u64,
    /// Changes against the contract that were observed.
    pub changes: u64,
    /// Where a contract was drafted, if there was none.
    pub drafted: Option<PathBuf>,
}

/// How one stream's transform ended.
#[derive(Debug)]
pub struct Outcome {
    /// The stream.
    pub stream: StreamName,
    /// What was loaded, or why it stopped. Loads committed before an error stay committed.
    pub result: Result<Transformed>,
}

/// Brings the tables of `streams` up to the heads of their raw logs, one stream after the other.
///
/// A stream without raw batches is left alone. One failing does not hold the others.
pub async fn transform(workspace: &Workspace, streams: &[StreamName]) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(streams.len());
    for name in streams {
        outcomes.push(Outcome {
            stream: name.clone(),
            result: transform_stream(workspace, name).await,
        });
    }
    outcomes
}

async fn transform_stream(workspace: &Workspace, name: &StreamName) -> Result<Transformed> {
    let (_, stream) = workspace.project.stream(name)?;
    let log = RawLog {
        store: Arc::clone(&workspace.store),
        stream: name.clone(),
    };
    let mut done = Transformed::default();
    let Some(head) = log.head().await? else {
        return Ok(done);
    };
    let pinned = match contract::read(&stream.contract)? {
        Some(contract) => contract,
        None => {
            let drafted = contract::draft(workspace, stream, &log, head.number).await?;
            let Some(contract) = drafted else { return Ok(done) };
            done.drafted = Some(stream.contract.clone());
            contract
        }
    };
    let mut loader = Loader::open(workspace, stream, log, pinned).await?;
    // Ends at the head seen above: each load moves the watermark by at least one batch.
    while let Some(range) = loader.next_range(head.number).await? {
        loader.load(range, &mut done).await?;
    }
    Ok(done)
}

/// Loads raw batches of one stream into its tables.
struct Loader<'a> {
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
    async fn open(
        workspace: &'a Workspace,
        stream: &'a Stream,
        log: RawLog,
        contract: Contract,
    ) -> Result<Self> {
        let rules = &stream.table;
        if rules.deletes == Deletes::Hard {
            return Err(Error::new(ErrorKind::Config, "delete rows for good")
                .with("stream", &stream.name)
                .with("hint", "only `deletes: soft` is available"));
        }
        let judge = Judge::new(
            &contract,
            JudgeOptions {
                keys: rules.keys.clone(),
                sequence_by: rules.sequence_by.clone(),
                on_unknown: stream.drift.on_unknown,
                on_mismatch: stream.drift.on_mismatch,
                record_bytes_max: RECORD_BYTES_MAX,
            },
        )?;
        let judge = Arc::new(judge);
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
        let session = SessionContext::new();
        Ok(Self {
            workspace,
            stream,
            log,
            contract,
            judge,
            deletes,
            app: AppId::new(&stream.name, GENERATION),
            table,
            session,
        })
    }

    /// The batches of the next load, or `None` when the table is at `head`.
    async fn next_range(&self, head: BatchNumber) -> Result<Option<Vec<LogEntry>>> {
        let from = self
            .table
            .watermark(&self.app)
            .await?
            .map_or(BatchNumber::FIRST, BatchNumber::next);
        if from > head {
            return Ok(None);
        }
        let bytes = self.workspace.project.memory_bytes_max / LOAD_MEMORY_SHARE;
        Ok(Some(self.log.entries_within(from..=head, bytes).await?))
    }

    /// One load: judged once, then planned and committed until it stands or somebody else's does.
    async fn load(&mut self, entries: Vec<LogEntry>, done: &mut Transformed) -> Result<()> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(());
        };
        let (from, to) = (first.number, last.number);
        let started_at = self.workspace.clock.now();
        let load_id = uuid::Uuid::now_v7().to_string();
        info!(stream = %self.stream.name, from = from.get(), to = to.get(), load_id, "load began");
        let begun = Instant::now();
        let split = self.judge(entries, &load_id, started_at, to).await?;
        let judged = begun.elapsed();
        let changes = self.changes(&split);
        let note = CommitNote {
            app: self.app.clone(),
            batch: to,
            load_id,
        };
        for attempt in 1..=COMMIT_ATTEMPTS_MAX {
            for side in self.sides() {
                let watermark = self.table.watermark(&self.app).await?;
                let files = self
                    .workspace
                    .tables
                    .void_side(&side, &self.stream.name, watermark)
                    .await?;
                if files > 0 {
                    warn!(table = %side.path, files, "rows of an unfinished load removed");
                }
            }
            let begun = Instant::now();
            let planned = self
                .table
                .plan_merge(split.accepted.clone(), &self.merge_options())
                .await?;
            let merged = begun.elapsed();
            let files_probed = planned.counts.files_probed;
            let row = self.load_row(&split, &planned, (from, to), started_at, &note.load_id)?;
            self.write_sides(&split, &row, &changes).await?;
            failpoint::point("transform::before_commit");
            let committed = self.table.commit_merge(planned, &note).await?;
            failpoint::point("transform::after_commit");
            match committed {
                Committed::Applied { version } => {
                    info!(stream = %self.stream.name, read = row.read, merged = row.merged, superseded = row.superseded,
                        quarantined = row.quarantined, version, files_probed, files_rewritten = row.files_rewritten,
                        judge_ms = judged.as_millis(), merge_ms = merged.as_millis(),
                        commit_ms = (begun.elapsed() - merged).as_millis(), "load ended");
                    done.add(&row, changes.len() as u64);
                    return Ok(());
                }
                Committed::AlreadyApplied => {
                    warn!(stream = %self.stream.name, to = to.get(), "another transform loaded these batches first");
                    return Err(Error::new(ErrorKind::Conflict, "load raw batches")
                        .with("stream", &self.stream.name)
                        .with("reason", "another transform of this stream is running"));
                }
                Committed::Conflicted => {
                    let wait = COMMIT_WAIT_MAX.mul_f64(rand::rng().random::<f64>());
                    warn!(stream = %self.stream.name, attempt, ?wait, "table changed meanwhile, planning again");
                    tokio::time::sleep(wait).await;
                }
            }
        }
        Err(Error::new(ErrorKind::Conflict, "commit load")
            .with("stream", &self.stream.name)
            .with("attempts_max", COMMIT_ATTEMPTS_MAX))
    }

    async fn judge(
        &self,
        entries: Vec<LogEntry>,
        load_id: &str,
        loaded_at: Timestamp,
        to: BatchNumber,
    ) -> Result<Split> {
        let partitions = self.session.state().config().target_partitions();
        let raw = scan::table(&self.workspace.store, &self.stream.records, entries, partitions)?;
        let options = SplitOptions {
            judge: Arc::clone(&self.judge),
            deletes: self.deletes.clone(),
            deleted_column: deleted_column(self.stream),
            sequence_by: self.stream.table.sequence_by.clone(),
            facts: LoadFacts {
                load_id: load_id.to_owned(),
                loaded_at,
                contract_version: self.contract.version.clone(),
                batch_to: to.get(),
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
                        "nothing was written; change the contract or the policy and run transform again",
                    ),
            );
        }
        Ok(split)
    }

    fn changes(&self, split: &Split) -> Vec<drift::Change> {
        let policy = &self.stream.drift;
        drift::changes(
            &self.contract,
            &split.observed,
            policy.on_unknown,
            policy.on_mismatch,
        )
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
    fn load_row(
        &self,
        split: &Split,
        planned: &Planned,
        (from, to): (BatchNumber, BatchNumber),
        started_at: Timestamp,
        load_id: &str,
    ) -> Result<LoadRow> {
        let (counts, merge) = (&split.counts, &planned.counts);
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
            load_id: load_id.to_owned(),
            batch_from: from.get(),
            batch_to: to.get(),
            started_at,
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

    async fn write_sides(&self, split: &Split, row: &LoadRow, changes: &[drift::Change]) -> Result<()> {
        let tables = &self.workspace.tables;
        let [quarantine, drift, loads] = self.sides();
        tables.append_side(&quarantine, &split.quarantined).await?;
        failpoint::point("transform::after_quarantine");
        tables.append_side(&drift, &[drift_rows(row, changes)?]).await?;
        tables.append_side(&loads, &[row.to_batch()?]).await
    }
}

/// Largest record judged, in bytes; a larger one is quarantined as `too_large`.
pub const RECORD_BYTES_MAX: usize = 16 << 20;

fn deleted_column(stream: &Stream) -> bool {
    stream.table.scd_type == ScdType::Upsert
}

/// The quarantine table of `stream`.
pub fn quarantine_side(stream: &StreamName) -> Side {
    Side {
        path: layout::quarantine(stream),
        shared: false,
    }
}

/// The drift table of all streams.
pub fn drift_side() -> Side {
    Side {
        path: layout::system(SystemTable::Drift),
        shared: true,
    }
}

/// The load history of all streams.
pub fn loads_side() -> Side {
    Side {
        path: layout::system(SystemTable::Loads),
        shared: true,
    }
}

impl Transformed {
    fn add(&mut self, row: &LoadRow, changes: u64) {
        self.loads += 1;
        self.read += row.read;
        self.merged += row.merged;
        self.superseded += row.superseded;
        self.quarantined += row.quarantined;
        self.deleted += row.deleted;
        self.rescued += row.rescued;
        self.changes += changes;
    }
}
