//! One stream's loads: raw batches judged, merged and committed with everything written about them.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use datafusion::execution::context::SessionContext;
use futures::StreamExt as _;
use rand::RngExt as _;
use tracing::{info, warn};

use super::{
    PassFound, Transformed,
    pass::{WholePass, aside},
    target::{Target, drift_side, loads_side, profiles_side},
    widen::table_schema,
};
use crate::{
    clock::Timestamp,
    config::{ScdType, Stream, StreamName},
    contract::{
        Contract,
        contracts::Contracts,
        drift::{Change, Effect, profile::Profile},
    },
    error::{Error, ErrorKind, Result},
    failpoint,
    ops::{
        Workspace,
        contract::{
            self,
            evolve::{self, Growth},
        },
        rebuild::swapping,
    },
    raw::{
        BatchNumber,
        expire::Expired,
        log::{LogEntry, RawLog},
    },
    spill::gathered::{Gathered, Spill},
    table::{
        AppId, CommitNote, Committed, Standing, Table,
        absent::Absence,
        history,
        maintain::{SIDE_AGE_MIN, SIDE_FILES_MAX},
        merge::{MergeOptions, POSITION, Planned},
        profiles::profile_rows,
        side::Void,
        system::{LoadRow, drift_rows},
        tombstones,
    },
    transform::{
        judges::Judges,
        quarantine::LoadFacts,
        scan,
        split::{Split, SplitOptions, split},
        wanted::Wanted,
    },
};

/// Part of the memory limit that the raw bodies of one load may take: their typed columns, hashed keys and encoders need the rest.
///
/// A load is one raw batch at least, however large. Of the rows of a larger one as many are merged at a time.
const LOAD_MEMORY_SHARE: u64 = 8;

/// Part of the memory limit that judged rows may take before they go to a file: typed columns of sparse records are larger
/// than the records.
const HELD_MEMORY_SHARE: u64 = 4;

/// The same for rows of the quarantine.
const ASIDE_MEMORY_SHARE: u64 = 16;

/// What an absent row takes in memory while the end of a pass is looked at, in bytes: its key and its place.
const ABSENT_ROW_BYTES: u64 = 256;

/// Plans made for one load before giving up; each is thrown away only because another writer was faster.
const COMMIT_ATTEMPTS_MAX: u32 = 10;

/// The longest random wait between two plans of one load.
const COMMIT_WAIT_MAX: Duration = Duration::from_millis(500);

/// A load's records, judged, and what is written about them.
struct Load {
    note: CommitNote,
    started_at: Timestamp,
    split: Split,
    profile: Profile,
    changes: Vec<Change>,
    /// Those of the records of other versions, by the version of their contract.
    older: Vec<(String, Vec<Change>)>,
    /// The pass over everything that ends with it.
    pass: Option<WholePass>,
}

impl Load {
    /// Changes against any contract.
    fn changes_seen(&self) -> u64 {
        let older = self.older.iter().map(|(_, changes)| changes.len());
        (self.changes.len() + older.sum::<usize>()) as u64
    }
}

/// Whether a load may change the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evolve {
    Yes,
    /// It is a look, or a replay of what was loaded: then the contract stands as it is.
    No,
}

/// How one try to commit a load ended.
enum Attempt {
    Committed(Box<LoadRow>, Option<PassFound>),
    /// Somebody else's load holds batches of this one.
    Overtaken,
    /// The table changed; plan against the new version.
    Again,
}

/// Loads raw batches of one stream into its tables.
pub(in crate::ops) struct Loader<'a> {
    pub(super) workspace: &'a Workspace,
    pub(in crate::ops) stream: &'a Stream,
    pub(in crate::ops) log: RawLog,
    pub(in crate::ops) contracts: Contracts,
    pub(super) judges: Arc<Judges>,
    pub(in crate::ops) app: AppId,
    pub(in crate::ops) table: Table,
    session: SessionContext,
    pub(in crate::ops) target: Target,
}

impl<'a> Loader<'a> {
    pub(in crate::ops) async fn open(
        workspace: &'a Workspace,
        stream: &'a Stream,
        log: RawLog,
        contracts: Contracts,
        target: Target,
    ) -> Result<Self> {
        let rules = &stream.table;
        let judges = Arc::new(contract::judges(stream, &contracts)?);
        let schema = table_schema(stream, &judges)?;
        let table = workspace
            .tables
            .open_or_create(&target.table, &schema, &rules.partition_by)
            .await?;
        let has_history = table.schema()?.column_with_name(history::VALID_FROM).is_some();
        if has_history != (rules.scd_type == ScdType::History) {
            return Err(Error::new(ErrorKind::Contract, "change scd_type")
                .with("stream", &stream.name)
                .with(
                    "table has",
                    if has_history {
                        "history (scd_type 2)"
                    } else {
                        "no history"
                    },
                )
                .with(
                    "hint",
                    "put `scd_type` back, or make the table anew with `landfall rebuild --promote`",
                ));
        }
        let partition_by = table.partition_by()?;
        if partition_by != rules.partition_by {
            return Err(Error::new(ErrorKind::Contract, "change partition columns")
                .with("stream", &stream.name)
                .with("table has", partition_by.join(", "))
                .with("project wants", rules.partition_by.join(", "))
                .with(
                    "hint",
                    "put `partition_by` back, or make the table anew with `landfall rebuild --promote`",
                ));
        }
        let session = SessionContext::new();
        Ok(Self {
            workspace,
            stream,
            log,
            contracts,
            judges,
            app: AppId::new(&stream.name, AppId::GENERATION),
            table,
            session,
            target,
        })
    }

    /// Judges by `contract` from now on, besides those of other versions.
    fn adopt(&mut self, contract: Contract) -> Result<()> {
        self.contracts = self.contracts.with_main(contract)?;
        self.judges = Arc::new(contract::judges(self.stream, &self.contracts)?);
        Ok(())
    }

    /// The batches of the next load, or `None` when the table is at `head`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the table holds batches that raw does not.
    pub(super) async fn next_range(&self, head: BatchNumber) -> Result<Option<Vec<LogEntry>>> {
        let watermark = self.table.watermark(&self.app).await?;
        let from = watermark.map_or(BatchNumber::FIRST, BatchNumber::next);
        if from <= head {
            if self.stream.table.scd_type == ScdType::Replace {
                return self.next_pass(from..=head).await;
            }
            let entries = self.log.entries_within(from..=head, self.load_bytes()).await?;
            return self.cut(entries).await.map(Some);
        }
        if let Some(mark) = watermark
            && mark > head
            && self.log.entry(mark).await?.is_none()
        {
            return Err(raw_lost(&self.stream.name, mark, head));
        }
        Ok(None)
    }

    /// Judges the records of `entries`, which are not none; by a new version of the contract, if it evolves.
    async fn begin(&mut self, entries: Vec<LogEntry>, evolve: Evolve) -> Result<Load> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Err(Error::new(ErrorKind::Internal, "load no batches"));
        };
        let mut note = CommitNote {
            app: self.app.clone(),
            from: first.number,
            batch: last.number,
            load_id: uuid::Uuid::now_v7().to_string(),
            rules: self.workspace.rules(&self.contracts),
            traces: Vec::new(),
        };
        let pass = self.pass_of(&entries).await?;
        let started_at = self.workspace.clock.now();
        info!(stream = %self.stream.name, from = note.from.get(), to = note.batch.get(), load_id = note.load_id, "load began");
        let begun = Instant::now();
        let growth = Growth::of(self.stream, &self.contracts.main);
        let again = (evolve == Evolve::Yes && growth.is_possible()).then(|| entries.clone());
        let mut split = self.judge(entries, &note, started_at).await?;
        let mut evolved_changes = Vec::new();
        // Once: what is still drift then the contract does not take.
        if let Some(entries) = again {
            let changes = self.changes(&split);
            if self.evolve(&note, &changes, growth).await? {
                note.rules = self.workspace.rules(&self.contracts);
                // Not two of them at once.
                drop(split);
                split = self.judge(entries, &note, started_at).await?;
                evolved_changes = accepted(changes, &self.changes(&split), growth);
            }
        }
        self.refuse_misfits(&split)?;
        note.traces = split.traces.ids();
        if !note.traces.is_empty() {
            info!(stream = %self.stream.name, load_id = note.load_id, links = note.traces.join(" "),
                more = split.traces.has_more(), "load linked to the traces of its deliveries");
        }
        info!(stream = %self.stream.name, read = split.counts.read, judge_ms = begun.elapsed().as_millis(), "load judged");
        let (profile, mut changes) = self.drift(&split, note.from).await?;
        changes.extend(evolved_changes);
        Ok(Load {
            note,
            started_at,
            profile,
            older: self.older_changes(&split),
            changes,
            split,
            pass,
        })
    }

    /// Takes what the load of `note` brought that the contract may take; false if nothing changed.
    async fn evolve(&mut self, note: &CommitNote, changes: &[Change], growth: Growth) -> Result<bool> {
        let (workspace, stream) = (self.workspace, self.stream);
        let range = note.from..=note.batch;
        let mut proposed =
            evolve::evolved(workspace, stream, &self.log, range.clone(), changes, growth).await?;
        // Asked before anything is written: a file must not say what the table cannot do.
        if let Some(patch) = &proposed
            && let Err(error) = self.check_contract(&patch.contract).await
        {
            if !matches!(error.kind(), ErrorKind::Contract | ErrorKind::Config) {
                return Err(error);
            }
            warn!(stream = %self.stream.name, error = error.chain(), "columns keep their types");
            let types = false;
            let growth = Growth { types, ..growth };
            proposed = evolve::evolved(workspace, stream, &self.log, range, changes, growth).await?;
        }
        // A new column may have another type in the contract of another version.
        if let Some(patch) = &proposed
            && let Err(error) = self.contracts.with_main(patch.contract.clone())
        {
            warn!(stream = %self.stream.name, error = error.chain(), "contract cannot evolve");
            return Ok(false);
        }
        let Some(patch) = proposed.filter(|patch| evolve::keep(&self.stream.contract, patch)) else {
            return Ok(false);
        };
        self.adopt(patch.contract)?;
        let (workspace, contracts) = (self.workspace, &self.contracts);
        Box::pin(contract::registry::register(workspace, self.stream, contracts)).await?;
        Ok(true)
    }

    /// One load: judged once, then planned and committed until it stands or somebody else's does.
    pub(super) async fn load(&mut self, entries: Vec<LogEntry>, done: &mut Transformed) -> Result<()> {
        let evolve = if self.target.told { Evolve::Yes } else { Evolve::No };
        let load = self.begin(entries, evolve).await?;
        for attempt in 1..=COMMIT_ATTEMPTS_MAX {
            match self.attempt(&load, attempt).await? {
                Attempt::Committed(row, pass) => {
                    done.add(&row, load.changes_seen());
                    done.pass = pass.or(done.pass);
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
        // First: it looks at the newest version, in which another load may stand.
        if let Committed::Conflicted = self.widen().await? {
            return Ok(Attempt::Again);
        }
        let standing = self.table.standing(&self.app).await?;
        if standing.next() != note.from {
            return Ok(Attempt::Overtaken);
        }
        // Once the version is known: a swap that begins from here on takes the next one, and this comes here again.
        if self.target.told {
            swapping::refuse(self.workspace, &self.stream.name, "load raw batches").await?;
        }
        if let Committed::Conflicted = self.remove_void_rows(&standing).await? {
            return Ok(Attempt::Again);
        }
        let begun = Instant::now();
        let options = self.merge_options().await?;
        let absence = self.absence(load);
        let planned = self
            .table
            .plan_merge(load.split.accepted.clone(), &options, absence)
            .await?;
        let merged = begun.elapsed();
        let files_probed = planned.counts.files_probed;
        let found = load.pass.as_ref().map(|_| self.compare(&planned));
        let row = self.load_row(load, &planned)?;
        self.write_sides(load, &row, &planned.tombstones, &options)
            .await?;
        failpoint::point("transform::before_commit");
        let committed = self.table.commit_merge(planned, note).await?;
        failpoint::point("transform::after_commit");
        match committed {
            Committed::Applied { version } => {
                info!(stream = %self.stream.name, read = row.read, merged = row.merged, superseded = row.superseded,
                    quarantined = row.quarantined, version, files_probed, files_rewritten = row.files_rewritten,
                    merge_ms = merged.as_millis(), commit_ms = (begun.elapsed() - merged).as_millis(), "load ended");
                Ok(Attempt::Committed(Box::new(row), found))
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
        for side in self.target.sides() {
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
        let before = self.workspace.clock.now() - SIDE_AGE_MIN;
        let old = |written: &&i64| **written < before.timestamp_millis();
        let many = |found: &Void| found.small.iter().filter(old).count() >= SIDE_FILES_MAX;
        for (side, _) in void.iter().filter(|(_, found)| many(found)) {
            if let Err(error) = tables.tidy_side(side, &self.stream.name, standing, before).await {
                warn!(table = %side.path, error = error.chain(), "small files stay");
            }
        }
        Ok(fenced)
    }

    /// Takes back the side rows of a load that did not commit.
    async fn withdraw(&self, note: &CommitNote) -> Result<()> {
        let tables = &self.workspace.tables;
        for side in self.target.sides() {
            let files = tables.files_of_load(&side, &note.load_id).await?;
            tables.remove_files(&side, &files).await?;
        }
        Ok(())
    }

    async fn judge(&self, entries: Vec<LogEntry>, note: &CommitNote, loaded_at: Timestamp) -> Result<Split> {
        let facts = LoadFacts {
            load_id: note.load_id.clone(),
            loaded_at,
            batch_to: note.batch.get(),
        };
        self.judge_wanted(entries, None, facts).await
    }

    /// Judges the records of `entries`, only the `wanted` ones if they are named.
    pub(in crate::ops) async fn judge_wanted(
        &self,
        entries: Vec<LogEntry>,
        wanted: Option<Arc<Wanted>>,
        facts: LoadFacts,
    ) -> Result<Split> {
        let partitions = self.session.state().config().target_partitions();
        let recipe = self.workspace.recipe(self.stream)?;
        let watch = Arc::default();
        let chosen = wanted.is_some();
        let batches: Vec<BatchNumber> = entries.iter().map(|entry| entry.number).collect();
        let raw = scan::chosen(&self.workspace.store, recipe, entries, partitions, wanted, &watch)?;
        let options = SplitOptions {
            judges: Arc::clone(&self.judges),
            deleted_column: deleted_column(self.stream),
            content_column: self.stream.table.is_by_content(),
            sequence_by: self.stream.table.sequence_by.clone(),
            keys_aside: if self.stream.table.delete_absent {
                self.stream.table.keys.clone()
            } else {
                Vec::new()
            },
            facts,
            // Records that are chosen one by one are few.
            accepted: Some(if chosen { Spill::never() } else { self.spill() }),
            quarantined: if chosen {
                Spill::never()
            } else {
                self.spill_of(ASIDE_MEMORY_SHARE)
            },
        };
        let mut split = split(&self.session, raw, &options).await?;
        // Asked afterwards: what was gone by then because it has expired was said to have expired before it went.
        let expired = Expired::of(&self.log).await?;
        for batch in batches {
            expired.refuse(&self.log, &(batch..=batch), "load raw batches")?;
        }
        let seen = scan::seen(&watch);
        (split.responses, split.traces) = (seen.responses, seen.traces);
        Ok(split)
    }

    /// Where judged rows go: those that are merged by key come back by key.
    fn spill(&self) -> Spill {
        let rules = &self.stream.table;
        let spill = self.spill_of(HELD_MEMORY_SHARE);
        match rules.scd_type {
            ScdType::Append | ScdType::Replace => spill,
            ScdType::Upsert | ScdType::History => {
                let sequence = rules.sequence_by.iter().map(String::as_str);
                spill.sorted(&rules.keys, sequence.chain(POSITION))
            }
        }
    }

    fn spill_of(&self, memory_share: u64) -> Spill {
        let project = &self.workspace.project;
        let held_bytes_max = project.memory_bytes_max / memory_share;
        Spill::new(&project.spool_dir(), held_bytes_max, self.load_bytes())
    }

    fn refuse_misfits(&self, split: &Split) -> Result<()> {
        let told = std::iter::once(&split.main).chain(&split.older);
        let mut forbidding = self
            .judges
            .all()
            .zip(told)
            .flat_map(|(bench, told)| bench.quality.forbidding(&told.breaks));
        if let Some((rule, records)) = forbidding.next() {
            return Err(
                Error::new(ErrorKind::Contract, "load records that break a critical rule")
                    .with("stream", &self.stream.name)
                    .with("rule", rule)
                    .with("records", records)
                    .with(
                        "hint",
                        "nothing of this load was written; change the rule or its severity and run transform again",
                    ),
            );
        }
        if let Some(records) = self.stopping(split)? {
            return Err(
                Error::new(ErrorKind::Contract, "load records that do not fit their contract")
                    .with("stream", &self.stream.name)
                    .with("records", records)
                    .with("policy", "on_mismatch: fail")
                    .with(
                        "hint",
                        "nothing of this load was written; change the contract or the policy and run transform again",
                    ),
            );
        }
        Ok(())
    }

    /// Judges raw batches that an earlier load has read, for what they say about keys.
    pub(super) async fn judge_again(&self, entries: Vec<LogEntry>) -> Result<Split> {
        let Some(last) = entries.last() else {
            return Err(Error::new(ErrorKind::Internal, "judge no batches"));
        };
        let note = CommitNote {
            app: self.app.clone(),
            from: last.number,
            batch: last.number,
            load_id: String::new(),
            rules: self.workspace.rules(&self.contracts),
            traces: Vec::new(),
        };
        self.judge(entries, &note, self.workspace.clock.now()).await
    }

    /// Raw bodies that one load takes at most, in bytes, but one batch at least.
    pub(in crate::ops) fn load_bytes(&self) -> u64 {
        load_bytes(self.workspace)
    }

    /// Whether the load of `entries` would be the same if there were more behind `head`.
    pub(super) fn is_whole(&self, entries: &[LogEntry], head: BatchNumber) -> bool {
        let bytes: u64 = entries.iter().map(LogEntry::body_bytes).sum();
        let ends_before = entries.last().is_some_and(|last| last.number < head);
        ends_before || bytes >= self.load_bytes() || self.stream.table.scd_type == ScdType::Replace
    }

    pub(in crate::ops) async fn merge_options(&self) -> Result<MergeOptions> {
        let rules = &self.stream.table;
        // Also if deletions are soft now: they may have been hard before.
        let tombstones = match rules.scd_type {
            ScdType::Upsert => self.workspace.tables.open(&self.target.tombstones.path).await?,
            ScdType::History | ScdType::Append | ScdType::Replace => None,
        };
        let tombstones = match tombstones {
            Some(table) => Some((table, self.table.standing(&self.app).await?)),
            None => None,
        };
        Ok(MergeOptions {
            keys: rules.keys.clone(),
            sequence_by: rules.sequence_by.clone(),
            scd_type: rules.scd_type,
            deletes: rules.deletes,
            write_mode: self.target.write_mode(rules.write_mode),
            tombstones,
        })
    }

    /// How the pass differs from the table; told before anything of it is visible.
    fn compare(&self, planned: &Planned) -> PassFound {
        let counts = &planned.counts;
        let found = PassFound {
            missing: counts.merged.saturating_sub(counts.replaced),
            changed: counts.changed,
            absent: counts.absent.deleted,
            held: counts.absent.held,
            live: counts.absent.live,
        };
        info!(stream = %self.stream.name, found.missing, found.changed, found.absent, found.held, found.live,
            "complete pass compared with the table");
        found
    }

    /// Counts what the load of `entries` would do, and takes back the files that planning wrote.
    pub(super) async fn preview(&mut self, entries: Vec<LogEntry>, done: &mut Transformed) -> Result<()> {
        self.refuse_narrower("preview load")?;
        let load = self.begin(entries, Evolve::No).await?;
        let options = self.merge_options().await?;
        let rows = load.split.accepted.clone();
        let planned = self.table.plan_merge(rows, &options, self.absence(&load)).await?;
        done.add(&self.load_row(&load, &planned)?, load.changes_seen());
        done.pass = load.pass.as_ref().map(|_| self.compare(&planned));
        self.table.abandon(planned).await
    }

    /// What the pass that ends with `load` says about rows that it did not bring.
    fn absence<'l>(&'l self, load: &'l Load) -> Option<Absence<'l>> {
        let pass = load.pass.as_ref()?;
        if let Some(doubt) = pass.doubt {
            warn!(stream = %self.stream.name, doubt, "what a complete pass did not bring is not deleted");
            return None;
        }
        let seen = futures::stream::iter(aside(&load.split));
        Some(Absence {
            since: pass.since,
            until: load.note.batch,
            delete_ratio_max: self.stream.table.delete_ratio_max,
            rows_max: usize::try_from(self.load_bytes() / ABSENT_ROW_BYTES).unwrap_or(usize::MAX),
            seen: seen.chain(self.seen_earlier(pass.since, load.note.from)).boxed(),
        })
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
            contract_version: self.contracts.main.version.clone(),
            read: counts.read,
            merged: merge.merged,
            superseded: merge.superseded,
            quarantined: counts.quarantined,
            released: 0,
            deleted: counts.deleted,
            rescued: counts.rescued,
            replaced: merge.replaced,
            files_rewritten: merge.files_rewritten,
            absent: merge.absent.deleted,
            absent_held: merge.absent.held,
        })
    }

    async fn write_sides(
        &self,
        load: &Load,
        row: &LoadRow,
        buried: &Gathered,
        options: &MergeOptions,
    ) -> Result<()> {
        let tables = &self.workspace.tables;
        let target = &self.target;
        tables
            .append_gathered(&target.quarantine, &load.split.quarantined)
            .await?;
        failpoint::point("transform::after_quarantine");
        let mut kept = buried.beside();
        for rows in buried.batches() {
            kept.push(tombstones::kept(&rows?, options, &load.note)?)?;
        }
        tables.append_gathered(&target.tombstones, &kept).await?;
        if !target.told {
            return Ok(());
        }
        let mut drift = vec![drift_rows(row, &load.changes)?];
        for (version, changes) in &load.older {
            let row = LoadRow {
                contract_version: version.clone(),
                ..row.clone()
            };
            drift.push(drift_rows(&row, changes)?);
        }
        tables.append_side(&drift_side(), &drift).await?;
        tables
            .append_side(&profiles_side(), &[profile_rows(row, &load.profile)?])
            .await?;
        tables.append_side(&loads_side(), &[row.to_batch()?]).await
    }
}

/// The drift among `before` that `growth` took and is none any more `now`: people should hear of it.
fn accepted(before: Vec<Change>, now: &[Change], growth: Growth) -> Vec<Change> {
    let is_left = |change: &Change| {
        now.iter()
            .any(|left| left.kind == change.kind && left.path == change.path)
    };
    let taken = before.into_iter().filter(|change| growth.takes(change.kind));
    let mut accepted: Vec<Change> = taken.filter(|change| !is_left(change)).collect();
    for change in &mut accepted {
        change.effect = Effect::Accepted;
    }
    accepted
}

/// Raw bodies that one load of `workspace` takes at most, in bytes, unless one raw batch has more.
pub(in crate::ops) fn load_bytes(workspace: &Workspace) -> u64 {
    workspace.project.memory_bytes_max / LOAD_MEMORY_SHARE
}

pub(super) fn deleted_column(stream: &Stream) -> bool {
    matches!(stream.table.scd_type, ScdType::Upsert | ScdType::History)
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
