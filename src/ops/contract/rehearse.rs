//! `landfall contract test`: what a proposed contract would say to the records that raw holds already.
//!
//! ```text
//! raw log ─ a piece at a time ─┬─ judged by today's contract ───┐
//!                              └─ judged by the proposed one ───┴─► who breaks, who is healed, who stays aside
//! ```
//!
//! No table is read or written. Memory follows the piece, not the history.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
    time::Duration,
};

use arrow::{
    array::{Array as _, AsArray as _, RecordBatch, StringArray},
    datatypes::{Int32Type, Int64Type},
};
use datafusion::execution::context::SessionContext;
use serde_json::{Value, json};

use super::{judges, read, read_all};
use crate::{
    clock::Timestamp,
    config::{Stream, StreamName},
    contract::{
        ViolationClass, classified::Classified, contracts::Contracts, drift, place::without_positions,
        sample::MASK,
    },
    error::{Error, ErrorKind, Result},
    ops::{Workspace, quarantine::Mask, transform::raw_log},
    raw::{
        BatchNumber,
        expire::Expired,
        log::{LogEntry, RawLog, within},
    },
    report::grid::Grid,
    spill::gathered::Spill,
    transform::{
        quarantine::LoadFacts,
        scan,
        split::{Split, SplitOptions, split},
    },
};

/// Part of the memory limit that the raw bodies of one piece may take.
const PIECE_MEMORY_SHARE: u64 = 8;

/// Reasons kept apart. Beyond, those of a class are counted together, at the place [`ELSEWHERE`].
const REASONS_MAX: usize = 1_000;

/// The place of reasons that are too many to be told apart.
const ELSEWHERE: &str = "…";

/// Samples kept of each reason.
const SAMPLES_MAX: usize = 3;

/// Where in the raw log a rehearsal begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// With the first batch.
    Beginning,
    /// With this batch.
    Batch(i64),
    /// With the first batch that was committed so long ago, or later.
    Age(Duration),
}

/// What the proposed contract means for a record that one of the two does not accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Accepted today, and would be set aside.
    Breaks,
    /// Set aside today, and would be accepted.
    Heals,
    /// Set aside by both.
    Stays,
    /// A rule of the proposed contract that only warns is broken. The record is accepted, unless another reason says no.
    Warns,
}

impl Effect {
    /// Its name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Breaks => "breaks",
            Self::Heals => "heals",
            Self::Stays => "stays",
            Self::Warns => "warns",
        }
    }
}

/// What a rehearsal found.
#[derive(Clone, Debug, Default)]
pub struct Rehearsed {
    /// Raw batches read.
    pub batches: u64,
    /// Raw batches whose objects have expired: nobody knows what the contract would say to their records.
    pub expired: u64,
    /// Records read, pages without readable records included.
    pub read: u64,
    /// Records of each effect.
    pub effects: BTreeMap<Effect, u64>,
    /// Records with values in `_rescued` under today's contract, and under the proposed one.
    pub rescued: (u64, u64),
    /// The reasons: why a record breaks or stays aside, or why it was set aside that is healed.
    pub reasons: BTreeMap<(Effect, String, String), Reason>,
    /// How long it took.
    pub took: Duration,
    /// What either contract classifies.
    classified: Classified,
}

/// One reason of one effect.
#[derive(Clone, Debug, Default)]
pub struct Reason {
    /// Records whose first reason it is.
    pub records: u64,
    /// What the contract says, of the first sample.
    pub expected: String,
    /// What was there, of the first sample.
    pub found: String,
    /// Raw positions of some of them.
    pub samples: Vec<String>,
}

impl Rehearsed {
    /// Records of one effect.
    pub fn count(&self, effect: Effect) -> u64 {
        self.effects.get(&effect).copied().unwrap_or_default()
    }

    /// One row for each effect and reason.
    pub fn grid(&self, mask: Mask) -> Grid {
        let mut grid = Grid::new(&[
            "effect", "class", "path", "records", "expected", "found", "samples",
        ]);
        let mut reasons: Vec<_> = self.reasons.iter().collect();
        reasons.sort_by_key(|((effect, ..), reason)| (*effect, std::cmp::Reverse(reason.records)));
        for ((effect, class, path), reason) in reasons {
            let found = if mask == Mask::Yes && self.classified.covers(path) {
                Value::from(MASK)
            } else {
                Value::from(reason.found.as_str())
            };
            grid.rows.push(vec![
                effect.as_str().into(),
                class.as_str().into(),
                path.as_str().into(),
                reason.records.into(),
                reason.expected.as_str().into(),
                found,
                json!(reason.samples),
            ]);
        }
        grid
    }

    /// Notes a rule that only warns.
    fn warn(&mut self, change: &drift::Change) {
        *self.effects.entry(Effect::Warns).or_default() += change.count;
        let class = ViolationClass::RuleFailed.to_string();
        let reason = self.reason((Effect::Warns, class, change.path.clone()));
        if reason.records == 0 {
            reason.expected.clone_from(&change.expected);
            let sample = change.samples.first();
            reason.found = sample.map(|sample| sample.value.clone()).unwrap_or_default();
        }
        reason.records += change.count;
        let places = change.samples.iter().filter_map(|sample| sample.at);
        let room = SAMPLES_MAX.saturating_sub(reason.samples.len());
        reason
            .samples
            .extend(places.take(room).map(|place| place.to_string()));
    }

    fn reason(&mut self, mut key: (Effect, String, String)) -> &mut Reason {
        if self.reasons.len() >= REASONS_MAX && !self.reasons.contains_key(&key) {
            ELSEWHERE.clone_into(&mut key.2);
        }
        self.reasons.entry(key).or_default()
    }

    fn note(&mut self, effect: Effect, row: &Row<'_>) {
        *self.effects.entry(effect).or_default() += 1;
        let reason = self.reason((effect, row.class.to_owned(), without_positions(row.path)));
        if reason.records == 0 {
            row.expected.clone_into(&mut reason.expected);
            row.found.clone_into(&mut reason.found);
        }
        reason.records += 1;
        if reason.samples.len() < SAMPLES_MAX {
            let (batch, page, record) = row.place;
            reason.samples.push(format!("{batch}/{page}/{record}"));
        }
    }
}

/// Judges what raw holds of `stream` by its contract of today and by the one in `file`, and compares.
///
/// # Errors
/// [`ErrorKind::Refused`] if the stream has no contract to compare with or if all of raw has expired, [`ErrorKind::Config`] if one of the two cannot be
/// used, else those of reading raw.
pub async fn rehearse(
    workspace: &Workspace,
    stream: &StreamName,
    file: &Path,
    since: Since,
) -> Result<Rehearsed> {
    let (_, settings) = workspace.project.stream(stream)?;
    let missing = |path: &Path, kind| {
        Error::new(kind, "read contract")
            .with("path", path.display())
            .with("problem", "there is no such file")
    };
    let today = read_all(settings)?.ok_or_else(|| missing(&settings.contract, ErrorKind::Refused))?;
    let proposed = read(file)?.ok_or_else(|| missing(file, ErrorKind::Config))?;
    // Those of other versions stay in place.
    let proposed = Contracts::new(proposed, file.to_owned(), today.older.clone())?;
    let sides = [options(settings, &today)?, options(settings, &proposed)?];
    let log = raw_log(workspace, stream);
    let mut classified = today.classified();
    classified.extend(proposed.classified());
    let mut found = Rehearsed {
        classified,
        ..Rehearsed::default()
    };
    let begun = workspace.clock.steady();
    let Some(head) = log.head().await? else {
        return Ok(found);
    };
    let begins = first(&log, &head, since, workspace.clock.now()).await?;
    let mut next = begins;
    let bytes = workspace.project.memory_bytes_max / PIECE_MEMORY_SHARE;
    while next <= head.number {
        let expired = Expired::of(&log).await?;
        let left = log.entries_but(next..=head.number, move |batch| expired.contains(batch));
        let entries = within(left, bytes).await?;
        let Some(last) = entries.last() else { break };
        next = last.number.next();
        found.batches += entries.len() as u64;
        let numbers: Vec<BatchNumber> = entries.iter().map(|entry| entry.number).collect();
        compare(workspace, settings, entries, &sides, &mut found).await?;
        // Asked afterwards: what went while it was read was said to have expired before it went.
        let expired = Expired::of(&log).await?;
        for batch in numbers {
            expired.refuse(&log, &(batch..=batch), "test contract")?;
        }
    }
    let expired = Expired::of(&log).await?;
    found.expired = expired.count_in(&(begins..=head.number));
    if found.batches == 0 && found.expired > 0 {
        return Err(expired.error(&log, begins, "test contract"));
    }
    found.took = (workspace.clock.steady() - begun).to_std().unwrap_or_default();
    Ok(found)
}

/// How records are judged by `contracts`.
fn options(stream: &Stream, contracts: &Contracts) -> Result<SplitOptions> {
    Ok(SplitOptions {
        judges: Arc::new(judges(stream, contracts)?),
        sequence_by: stream.table.sequence_by.clone(),
        keys_aside: Vec::new(),
        deleted_column: false,
        content_column: false,
        facts: LoadFacts {
            load_id: String::new(),
            loaded_at: Timestamp::UNIX_EPOCH,
            batch_to: 0,
        },
        accepted: None,
        quarantined: Spill::never(),
    })
}

/// The batch to begin with.
///
/// Moments of batches grow with their numbers, as far as the clocks of the runs agree.
async fn first(log: &RawLog, head: &LogEntry, since: Since, now: Timestamp) -> Result<BatchNumber> {
    let age = match since {
        Since::Beginning => return Ok(BatchNumber::FIRST),
        Since::Batch(number) => return BatchNumber::new(number),
        Since::Age(age) => age,
    };
    let Some(moment) = chrono::TimeDelta::from_std(age)
        .ok()
        .and_then(|age| now.checked_sub_signed(age))
    else {
        return Ok(BatchNumber::FIRST);
    };
    let (mut low, mut high) = (0, head.number.get() + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let entry = log.entry(BatchNumber::new(middle)?).await?;
        // One that is not there any more has expired.
        if entry.is_some_and(|entry| entry.committed_at >= moment) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    BatchNumber::new(low)
}

async fn compare(
    workspace: &Workspace,
    stream: &Stream,
    entries: Vec<LogEntry>,
    sides: &[SplitOptions; 2],
    found: &mut Rehearsed,
) -> Result<()> {
    let today = judged(workspace, stream, entries.clone(), &sides[0]).await?;
    found.rescued.0 += today.counts.rescued;
    let aside = today.quarantined;
    // For each record set aside today whether the proposed contract does not accept it either.
    let aside = aside.held().unwrap_or_default();
    let mut met: HashMap<(i64, i32, i32), bool> = rows(aside).map(|row| (row.place, false)).collect();
    let proposed = judged(workspace, stream, entries, &sides[1]).await?;
    found.rescued.1 += proposed.counts.rescued;
    found.read += proposed.counts.read;
    for change in sides[1].judges.main.quality.changes(&proposed.main.breaks) {
        if change.effect == drift::Effect::Accepted {
            found.warn(&change);
        }
    }
    for row in rows(proposed.quarantined.held().unwrap_or_default()) {
        match met.get_mut(&row.place) {
            Some(again) => {
                *again = true;
                found.note(Effect::Stays, &row);
            }
            None => found.note(Effect::Breaks, &row),
        }
    }
    for row in rows(aside) {
        if met.get(&row.place) == Some(&false) {
            found.note(Effect::Heals, &row);
        }
    }
    Ok(())
}

async fn judged(
    workspace: &Workspace,
    stream: &Stream,
    entries: Vec<LogEntry>,
    options: &SplitOptions,
) -> Result<Split> {
    let session = SessionContext::new();
    let partitions = session.state().config().target_partitions();
    let raw = scan::table(&workspace.store, workspace.recipe(stream)?, entries, partitions)?;
    split(&session, raw, options).await
}

/// A quarantined record.
struct Row<'a> {
    place: (i64, i32, i32),
    class: &'a str,
    path: &'a str,
    expected: &'a str,
    found: &'a str,
}

fn rows(batches: &[RecordBatch]) -> impl Iterator<Item = Row<'_>> {
    batches.iter().flat_map(|batch| {
        let (numbers, pages, records) = (
            batch["_lf_batch"].as_primitive::<Int64Type>(),
            batch["_lf_page"].as_primitive::<Int32Type>(),
            batch["_lf_record"].as_primitive::<Int32Type>(),
        );
        let [class, path, expected, found] =
            ["class", "path", "expected", "found"].map(|name| batch[name].as_string::<i32>());
        (0..batch.num_rows()).map(move |row| Row {
            place: (numbers.value(row), pages.value(row), records.value(row)),
            class: text(class, row),
            path: text(path, row),
            expected: text(expected, row),
            found: text(found, row),
        })
    })
}

fn text(column: &StringArray, row: usize) -> &str {
    if column.is_valid(row) {
        column.value(row)
    } else {
        ""
    }
}
