//! `landfall quarantine release`: records that were set aside, judged again by today's contract.
//!
//! ```text
//! quarantine ─ places ─► raw ─ judge ─┬─ accepted ─ merge at their old position ─► main table        (1)
//!                                     │             deletions whose rows are gone ─► tombstones      (2)
//!                                     │             their rows go, told in the same commit ─► quarantine (3)
//!                                     │                                     landfall.loads (4)
//!                                     └─ refused: stay as they are
//! ```
//!
//! Exactly once, wherever it dies: behind (1) the next release finds the rows at their raw position in the table, or finds
//! nothing of a deletion and buries it again; behind (3) it finds what (4) has not been told yet in the commit of (3).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use arrow::{
    array::{ArrayRef, AsArray as _, BooleanArray, Int64Array, RecordBatch, StringArray},
    compute::filter_record_batch,
    datatypes::{Int32Type, Int64Type},
};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use rand::RngExt as _;
use tracing::{info, warn};

use crate::{
    clock::Timestamp,
    config::{Deletes, ScdType, StreamName},
    contract::place::without_positions,
    error::{Error, ErrorKind, Result},
    failpoint,
    ops::{
        Workspace, children, contract,
        rebuild::swapping,
        transform::{
            load::Loader,
            raw_log,
            target::{Target, loads_side},
        },
    },
    raw::{BatchNumber, expire::Expired, log::LogEntry},
    spill::gathered::Gathered,
    table::{
        CommitNote, Committed, Standing, Table,
        aside::{Aside, Choice, Left, Place},
        children::Follow,
        merge::MergeOptions,
        release::{ReleaseNote, mark_absent},
        tombstones,
    },
    transform::{
        quarantine::LoadFacts,
        split::Split,
        wanted::{WHOLE_PAGE, Wanted},
    },
};

/// Records released by one commit, unless one raw batch has more.
const PLACES_MAX: u64 = 500_000;

/// Raw batches released by one commit: each is one request, and its page index is held.
const ENTRIES_MAX: usize = 256;

/// Log entries fetched at once.
const ENTRIES_IN_FLIGHT: usize = 8;

/// Plans made for one step before giving up; each is thrown away only because another writer was faster.
const ATTEMPTS_MAX: u32 = 10;

/// The longest random wait between two plans of one step.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// Whether anything is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DryRun {
    /// Only say what would be done.
    Yes,
    /// Do it.
    No,
}

/// Which quarantined records are meant. All that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Which {
    /// The first reason found, such as `type_mismatch`.
    pub class: Option<String>,
    /// Where in the record; list positions do not count, so that `lines[2].price` is at `lines[].price`.
    pub path: Option<String>,
    /// The raw batch.
    pub batch: Option<i64>,
    /// The load that set it aside.
    pub load_id: Option<String>,
}

/// What a release came to. `chosen = released + refused + missing`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Quarantined records and pages that were meant.
    pub chosen: u64,
    /// Those that left the quarantine.
    pub released: u64,
    /// Records read of them: more than `released` if pages became readable. `read = merged + superseded + quarantined`.
    pub read: u64,
    /// Records that are in the table.
    pub merged: u64,
    /// Records that lost against a newer version.
    pub superseded: u64,
    /// Records of pages that became readable which do not fit and are set aside themselves.
    pub quarantined: u64,
    /// Records that are deletions.
    pub deleted: u64,
    /// Records with values in `_rescued`.
    pub rescued: u64,
    /// Records that still do not fit and stay as they are.
    pub refused: u64,
    /// Records that raw does not have any more, or not where they were. They stay.
    pub missing: u64,
    /// Why records were refused or set aside, by class and place.
    pub reasons: BTreeMap<(String, String), u64>,
}

/// A step's quarantined records with the log entries of their batches.
struct Piece {
    batches: RangeInclusive<i64>,
    aside: Vec<Aside>,
    entries: Vec<LogEntry>,
}

/// A piece, judged.
struct Rejudged {
    /// Rows that enter the table.
    accepted: Vec<RecordBatch>,
    /// Places whose rows leave the quarantine.
    leaving: HashSet<Place>,
    /// Rows that enter the quarantine: records of pages that became readable. Each batch is of one load.
    added: Vec<RecordBatch>,
    done: Released,
}

/// Judges the quarantined records of `stream` that `which` means again, and merges those that fit now.
///
/// Their raw position and sequence are what they always were, so a newer row stays what it is.
///
/// # Errors
/// [`ErrorKind::Refused`] if the stream has no contract; [`ErrorKind::Conflict`] if other writers were faster every time;
/// else those of reading and writing the lake.
pub async fn release(
    workspace: &Workspace,
    stream: &StreamName,
    which: &Which,
    dry_run: DryRun,
) -> Result<Released> {
    let (_, settings) = workspace.project.stream(stream)?;
    let contracts = contract::read_all(settings)?.ok_or_else(|| {
        Error::new(ErrorKind::Refused, "release quarantined records")
            .with("stream", stream)
            .with("problem", "there is no contract yet")
            .with("hint", "run transform once")
    })?;
    let log = raw_log(workspace, stream);
    let loader = Loader::open(workspace, settings, log, contracts, Target::live(stream)).await?;
    let mut release = Release { workspace, loader };
    if dry_run == DryRun::No {
        release.tell_last().await?;
    }
    let choice = Choice {
        class: which.class.clone(),
        path: which.path.as_deref().map(without_positions),
        batch: which.batch,
        load_id: which.load_id.clone(),
    };
    let released = release.run(&choice, dry_run).await;
    if dry_run == DryRun::No {
        // Also of the steps before one that failed.
        let followed = children::follow(workspace, settings, Follow::Changes).await;
        return released.and_then(|released| followed.map(|()| released));
    }
    released
}

struct Release<'a> {
    workspace: &'a Workspace,
    loader: Loader<'a>,
}

impl Release<'_> {
    async fn run(&mut self, choice: &Choice, dry_run: DryRun) -> Result<Released> {
        let mut whole = Released::default();
        let Some((quarantine, void, _)) = self.quarantine().await? else {
            return Ok(whole);
        };
        let counts = quarantine.count_aside(&void, choice).await?;
        let mut taken = Vec::new();
        let (mut places, mut bytes) = (0, 0);
        let log = self.loader.log.clone();
        let mut entries = futures::stream::iter(counts)
            .map(|(batch, count)| {
                let log = log.clone();
                async move { Ok::<_, Error>((batch, count, log.entry(BatchNumber::new(batch)?).await?)) }
            })
            .buffered(ENTRIES_IN_FLIGHT);
        while let Some((batch, count, entry)) = entries.try_next().await? {
            if entry.is_none() {
                warn!(stream = %self.loader.stream.name, batch, "raw batch of quarantined records is gone");
            }
            places += count;
            bytes += entry.as_ref().map_or(0, LogEntry::body_bytes);
            taken.push((batch, entry));
            let full =
                places >= PLACES_MAX || bytes >= self.loader.load_bytes() || taken.len() >= ENTRIES_MAX;
            if full {
                whole.add(self.step(std::mem::take(&mut taken), choice, dry_run).await?);
                (places, bytes) = (0, 0);
            }
        }
        if !taken.is_empty() {
            whole.add(self.step(taken, choice, dry_run).await?);
        }
        Ok(whole)
    }

    /// Releases the chosen records of neighbouring batches.
    async fn step(
        &mut self,
        taken: Vec<(i64, Option<LogEntry>)>,
        choice: &Choice,
        dry_run: DryRun,
    ) -> Result<Released> {
        let (Some(&(first, _)), Some(&(last, _))) = (taken.first(), taken.last()) else {
            return Ok(Released::default());
        };
        let entries: Vec<LogEntry> = taken.into_iter().filter_map(|(_, entry)| entry).collect();
        for attempt in 1..=ATTEMPTS_MAX {
            if dry_run == DryRun::Yes {
                self.loader.refuse_narrower("preview release")?;
            } else if self.loader.widen().await? == Committed::Conflicted {
                continue;
            }
            let Some((quarantine, void, standing)) = self.quarantine().await? else {
                return Ok(Released::default());
            };
            if dry_run == DryRun::No {
                let name = &self.loader.stream.name;
                swapping::refuse(self.workspace, name, "release quarantined records").await?;
            }
            let piece = Piece {
                batches: first..=last,
                aside: quarantine.aside(&void, choice, &(first..=last)).await?,
                entries: entries.clone(),
            };
            let tried = self.attempt(piece, quarantine, &void, &standing, dry_run).await?;
            if let Some(done) = tried {
                return Ok(done);
            }
            let wait = WAIT_MAX.mul_f64(rand::rng().random::<f64>());
            warn!(stream = %self.loader.stream.name, attempt, ?wait, "tables changed meanwhile, releasing again");
            tokio::time::sleep(wait).await;
        }
        Err(Error::new(ErrorKind::Conflict, "release quarantined records")
            .with("stream", &self.loader.stream.name)
            .with("attempts_max", ATTEMPTS_MAX))
    }

    /// One try; `None` if another writer was faster. What it has done by then stands and is found again by the next.
    async fn attempt(
        &mut self,
        mut piece: Piece,
        mut quarantine: Table,
        void: &[Path],
        standing: &Standing,
        dry_run: DryRun,
    ) -> Result<Option<Released>> {
        let started_at = self.workspace.clock.now();
        let release_id = uuid::Uuid::now_v7().to_string();
        let batches = piece.batches.clone();
        let pass = match standing.watermark {
            Some(watermark) => self.loader.newest_pass(watermark).await?,
            None => None,
        };
        let pass_deletes = self.loader.stream.table.delete_absent;
        let held = match pass.as_ref().filter(|_| pass_deletes) {
            Some(pass) => self.hold_back(&mut piece, pass).await?,
            None => 0,
        };
        let mut judged = self.judge(piece, &release_id, started_at).await?;
        judged.done.chosen += held;
        judged.done.refused += held;
        if judged.leaving.is_empty() {
            return Ok(Some(judged.done));
        }
        let options = self.loader.merge_options().await?;
        let mut rows = std::mem::take(&mut judged.accepted);
        if let Some(pass) = pass.as_ref().filter(|_| pass_deletes) {
            let seen = self.loader.seen_earlier(*pass.start(), pass.end().next());
            rows = mark_absent(rows, &options.keys, *pass.start(), seen).await?;
        }
        let planned = self.loader.table.plan_release(rows, &options, pass).await?;
        let counts = planned.counts;
        let done = &mut judged.done;
        // What is there already came by a release that died, unless it is a record in the table and in the quarantine.
        done.merged = counts.merged + counts.present;
        done.superseded = counts.superseded - counts.present;
        if done.read != done.merged + done.superseded + done.quarantined {
            return Err(
                Error::new(ErrorKind::Internal, "account for every released record")
                    .with("stream", &self.loader.stream.name)
                    .with("read", done.read)
                    .with("merged", done.merged)
                    .with("superseded", done.superseded),
            );
        }
        if dry_run == DryRun::Yes {
            self.loader.table.abandon(planned).await?;
            return Ok(Some(judged.done));
        }
        failpoint::point("release::before_merge");
        let buried = planned.tombstones.clone();
        let rules = self.workspace.rules(&self.loader.contracts);
        let committed = self
            .loader
            .table
            .commit_release(planned, &release_id, &rules)
            .await?;
        match committed {
            Committed::Applied { .. } | Committed::AlreadyApplied => {}
            Committed::Conflicted => return Ok(None),
        }
        failpoint::point("release::after_merge");
        if self.bury(&buried, &options, standing, &release_id).await? == Committed::Conflicted {
            return Ok(None);
        }
        failpoint::point("release::after_burial");
        let note = ReleaseNote {
            release_id,
            started_at,
            finished_at: self.workspace.clock.now(),
            contract_version: self.loader.contracts.main.version.clone(),
            released: done.released,
            read: done.read,
            merged: done.merged,
            superseded: done.superseded,
            quarantined: done.quarantined,
            deleted: done.deleted,
            rescued: done.rescued,
            replaced: counts.replaced,
            files_rewritten: counts.files_rewritten,
        };
        let left = quarantine
            .take_out(void, &judged.leaving, &judged.added, &note)
            .await?;
        if left != Left::All {
            return Ok(None);
        }
        failpoint::point("release::after_quarantine");
        self.tell(&note).await?;
        failpoint::point("release::after_loads");
        info!(stream = %self.loader.stream.name, from = batches.start(), to = batches.end(), released = note.released,
            merged = note.merged, superseded = note.superseded, "records released");
        Ok(Some(judged.done))
    }

    /// Reads the records of `piece` from raw and judges them.
    async fn judge(&self, piece: Piece, release_id: &str, started_at: Timestamp) -> Result<Rejudged> {
        let mut wanted = Wanted::default();
        for aside in &piece.aside {
            let (batch, page, record) = aside.place;
            if let Ok(page) = u32::try_from(page) {
                wanted.add(batch, page, record);
            }
        }
        let facts = LoadFacts {
            load_id: release_id.to_owned(),
            loaded_at: started_at,
            batch_to: 0,
        };
        let pages: HashMap<i64, u64> = piece
            .entries
            .iter()
            .map(|entry| (entry.number.get(), entry.pages()))
            .collect();
        let split = self
            .loader
            .judge_wanted(piece.entries, Some(Arc::new(wanted)), facts)
            .await?;
        settle(&piece.aside, split, &pages)
    }

    /// Takes records out of `piece` that are older than `pass` if raw of it has expired: whether it brought their keys nobody
    /// can tell any more, so they stay where they are. Returns how many.
    async fn hold_back(&self, piece: &mut Piece, pass: &RangeInclusive<BatchNumber>) -> Result<u64> {
        let expired = Expired::of(&self.loader.log).await?;
        if expired.first_in(pass).is_none() {
            return Ok(0);
        }
        let since = pass.start().get();
        let older = |aside: &&Aside| aside.place.0 < since;
        let held: HashSet<Place> = piece
            .aside
            .iter()
            .filter(older)
            .map(|aside| aside.place)
            .collect();
        if !held.is_empty() {
            warn!(stream = %self.loader.stream.name, records = held.len(), since,
                "records older than the last complete pass stay: its raw has expired, and it may have told that they are gone");
            piece.aside.retain(|aside| aside.place.0 >= since);
            piece.entries.retain(|entry| entry.number.get() >= since);
        }
        Ok(held.len() as u64)
    }

    /// Keeps deletions whose rows the release has taken out of the table, as rows of the last load: they are neither beyond
    /// the watermark nor of a load that lost a race.
    ///
    /// Only now that they are accepted: before, nothing older may lose against them. A load that was planned in between
    /// does not know them, and the fence makes it plan again. Conflicted if such a load was faster: what it brought is to be
    /// looked at again.
    async fn bury(
        &mut self,
        buried: &Gathered,
        options: &MergeOptions,
        standing: &Standing,
        release_id: &str,
    ) -> Result<Committed> {
        let is_final = options.deletes == Deletes::Hard && options.scd_type == ScdType::Upsert;
        let Some(watermark) = standing.watermark.filter(|_| is_final) else {
            return Ok(Committed::AlreadyApplied);
        };
        let last = standing.last.as_ref();
        let note = CommitNote {
            app: self.loader.app.clone(),
            from: watermark,
            batch: watermark,
            load_id: last.map_or_else(|| release_id.to_owned(), |last| last.load_id.clone()),
            rules: self.workspace.rules(&self.loader.contracts),
            traces: Vec::new(),
        };
        let buried = buried
            .batches()
            .map(|rows| tombstones::kept(&rows?, options, &note))
            .collect::<Result<Vec<_>>>()?;
        self.workspace
            .tables
            .append_side(&self.loader.target.tombstones, &buried)
            .await?;
        self.loader.table.fence().await
    }

    /// The newest versions of both tables: that of the quarantine, its files that do not count, and where the main one stands.
    async fn quarantine(&mut self) -> Result<Option<(Table, Vec<Path>, Standing)>> {
        self.loader.table.refresh().await?;
        let standing = self.loader.table.standing(&self.loader.app).await?;
        let tables = &self.workspace.tables;
        let side = &self.loader.target.quarantine;
        let Some(table) = tables.open(&side.path).await? else {
            return Ok(None);
        };
        let void = tables
            .void_files(side, &self.loader.stream.name, &standing)
            .await?;
        Ok(Some((table, void.files, standing)))
    }

    /// Tells what the last release did, should it have died before.
    async fn tell_last(&self) -> Result<()> {
        let side = &self.loader.target.quarantine;
        let Some(quarantine) = self.workspace.tables.open(&side.path).await? else {
            return Ok(());
        };
        match quarantine.last_release().await? {
            Some(note) => self.tell(&note).await,
            None => Ok(()),
        }
    }

    async fn tell(&self, note: &ReleaseNote) -> Result<()> {
        let row = note.row(&self.loader.stream.name).to_batch()?;
        self.workspace
            .tables
            .append_side_once(&loads_side(), &row, &note.release_id)
            .await?;
        Ok(())
    }
}

impl Released {
    fn add(&mut self, other: Self) {
        self.chosen += other.chosen;
        self.released += other.released;
        self.read += other.read;
        self.merged += other.merged;
        self.superseded += other.superseded;
        self.quarantined += other.quarantined;
        self.deleted += other.deleted;
        self.rescued += other.rescued;
        self.refused += other.refused;
        self.missing += other.missing;
        for (reason, count) in other.reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
    }
}

/// What becomes of each quarantined record. `pages_read` are how many each batch has that was read.
fn settle(aside: &[Aside], split: Split, pages_read: &HashMap<i64, u64>) -> Result<Rejudged> {
    let (rows, aside_again) = (
        split.accepted.held().unwrap_or_default(),
        split.quarantined.held().unwrap_or_default(),
    );
    let accepted: HashSet<Place> = rows.iter().flat_map(places).collect();
    let refused: HashSet<Place> = aside_again.iter().flat_map(places).collect();
    let readable: HashSet<(i64, i32)> = accepted
        .iter()
        .chain(&refused)
        .filter(|place| place.2 != WHOLE_PAGE)
        .map(|place| (place.0, place.1))
        .collect();
    let mut leaving = HashSet::new();
    let mut done = Released::default();
    // The pages that became readable, and the load that set each aside: its records' rows are of that load, too.
    let mut pages: HashMap<(i64, i32), &Aside> = HashMap::new();
    let mut chosen = HashSet::new();
    for row in aside.iter().filter(|row| chosen.insert(row.place)) {
        let (batch, page, record) = row.place;
        let read = pages_read.get(&batch).copied().unwrap_or(0);
        // It was read without a defect, and there is no record in it.
        let is_empty = u64::try_from(page).is_ok_and(|page| page < read) && !refused.contains(&row.place);
        if record == WHOLE_PAGE && (is_empty || readable.contains(&(batch, page))) {
            pages.insert((batch, page), row);
            leaving.insert(row.place);
        } else if accepted.contains(&row.place) {
            leaving.insert(row.place);
        } else if refused.contains(&row.place) || refused.contains(&(batch, page, WHOLE_PAGE)) {
            done.refused += 1;
        } else {
            done.missing += 1;
        }
    }
    let mut added = Vec::new();
    for batch in aside_again {
        tally(batch, &mut done.reasons);
        added.extend(of_pages(batch, &pages)?);
    }
    done.chosen = chosen.len() as u64;
    done.released = leaving.len() as u64;
    done.quarantined = added.iter().map(|batch| batch.num_rows() as u64).sum();
    done.read = accepted.len() as u64 + done.quarantined;
    done.deleted = split.counts.deleted;
    done.rescued = split.counts.rescued;
    Ok(Rejudged {
        accepted: rows.to_vec(),
        leaving,
        added,
        done,
    })
}

/// The rows of `batch` that are records of `pages`, by the load that set their page aside.
fn of_pages(batch: &RecordBatch, pages: &HashMap<(i64, i32), &Aside>) -> Result<Vec<RecordBatch>> {
    let mut by_load: BTreeMap<(&str, i64), Vec<bool>> = BTreeMap::new();
    for (row, (number, page, _)) in places(batch).enumerate() {
        if let Some(aside) = pages.get(&(number, page)) {
            let load = by_load
                .entry((aside.load_id.as_str(), aside.batch_to))
                .or_insert_with(|| vec![false; batch.num_rows()]);
            load[row] = true;
        }
    }
    let fail = |source: arrow::error::ArrowError| {
        Error::new(ErrorKind::Internal, "build quarantine rows").caused_by(source)
    };
    let mut parts = Vec::new();
    for ((load_id, batch_to), keep) in by_load {
        let part = filter_record_batch(batch, &BooleanArray::from(keep)).map_err(fail)?;
        let rows = part.num_rows();
        let mut columns = part.columns().to_vec();
        let constants: [(&str, ArrayRef); 2] = [
            (
                "load_id",
                Arc::new(StringArray::from_iter_values(std::iter::repeat_n(load_id, rows))),
            ),
            ("batch_to", Arc::new(Int64Array::from_value(batch_to, rows))),
        ];
        for (name, column) in constants {
            columns[part.schema_ref().index_of(name).map_err(fail)?] = column;
        }
        parts.push(RecordBatch::try_new(part.schema(), columns).map_err(fail)?);
    }
    Ok(parts)
}

fn tally(batch: &RecordBatch, reasons: &mut BTreeMap<(String, String), u64>) {
    let (classes, paths) = (
        batch["class"].as_string::<i32>(),
        batch["path"].as_string::<i32>(),
    );
    for row in 0..batch.num_rows() {
        let reason = (classes.value(row).to_owned(), without_positions(paths.value(row)));
        *reasons.entry(reason).or_default() += 1;
    }
}

fn places(batch: &RecordBatch) -> impl Iterator<Item = Place> {
    let (numbers, pages, records) = (
        batch["_lf_batch"].as_primitive::<Int64Type>(),
        batch["_lf_page"].as_primitive::<Int32Type>(),
        batch["_lf_record"].as_primitive::<Int32Type>(),
    );
    (0..numbers.len()).map(move |row| (numbers.value(row), pages.value(row), records.value(row)))
}
