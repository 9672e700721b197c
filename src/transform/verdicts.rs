//! Records judged before they are landed, exactly as they will be afterwards.
//!
//! ```text
//! record ─ which contract ─► Judge ─► settle ─► number of the record, and why it will be set aside
//! ```

use crate::{
    contract::{
        Violation,
        judge::{Judged, Judging},
        sample::Place,
    },
    error::Result,
    transform::{
        judges::{Judges, Unlisted},
        settle::{Settled, settle},
        split::Told,
    },
};

/// Records judged together.
const ROWS_MAX: usize = 512;

/// Bytes of records after which those at hand are settled. One record may be larger.
const BYTES_AT_ONCE: usize = 512 << 10;

/// Judges records of which nothing is kept.
///
/// What is said of a record depends on nothing but the record: not on those before it, nor on how many there are.
pub struct Verdicts<'a> {
    judges: &'a Judges,
    sequence_by: &'a [String],
    /// One for each contract, the main one first.
    lanes: Vec<Lane>,
    /// Records so far.
    count: u64,
    rows: usize,
    bytes: usize,
}

/// Records that one contract judges.
#[derive(Default)]
struct Lane {
    /// None before the first.
    judging: Option<Judging>,
    /// Their numbers.
    numbers: Vec<u64>,
}

/// Is told of a record that does not fit: its number, from 0, and why. Numbers only grow.
pub type Tell<'t> = dyn FnMut(u64, Vec<Violation>) + 't;

impl<'a> Verdicts<'a> {
    /// Judges by `judges`. `sequence_by` are the columns that order versions: even a deletion must have them.
    pub fn new(judges: &'a Judges, sequence_by: &'a [String]) -> Self {
        Self {
            lanes: judges.all().map(|_| Lane::default()).collect(),
            judges,
            sequence_by,
            count: 0,
            rows: 0,
            bytes: 0,
        }
    }

    /// Judges one more record, whatever its bytes are.
    ///
    /// # Errors
    /// [`Internal`](crate::error::ErrorKind::Internal), which only a defect can cause.
    pub fn push(&mut self, record: &[u8], tell: &mut Tell<'_>) -> Result<()> {
        // Where it will stand is not known, and nobody is told of its version here.
        let nowhere = || Place {
            batch: 0,
            page: 0,
            record: 0,
        };
        let chosen = self.judges.choose(record, nowhere, &mut Unlisted::default());
        let lane = self.lanes.iter_mut().zip(self.judges.all()).nth(chosen);
        if let Some((lane, bench)) = lane {
            lane.judging
                .get_or_insert_with(|| bench.judge.start())
                .push(record);
            lane.numbers.push(self.count);
        }
        self.count += 1;
        self.rows += 1;
        self.bytes += record.len();
        if self.rows >= ROWS_MAX || self.bytes >= BYTES_AT_ONCE {
            self.settle(tell)?;
        }
        Ok(())
    }

    /// Ends it, and returns how many records there were.
    ///
    /// # Errors
    /// As [`Verdicts::push`].
    pub fn end(mut self, tell: &mut Tell<'_>) -> Result<u64> {
        self.settle(tell)?;
        Ok(self.count)
    }

    fn settle(&mut self, tell: &mut Tell<'_>) -> Result<()> {
        let mut unfit = Vec::new();
        for (lane, bench) in self.lanes.iter_mut().zip(self.judges.all()) {
            let Some(judging) = lane.judging.take() else {
                continue;
            };
            let judged = judging.finish()?;
            let numbers = std::mem::take(&mut lane.numbers);
            let Judged {
                batch, violations, ..
            } = judged;
            let told = &mut Told::default();
            let Settled { aside, .. } = settle(
                self.judges,
                bench,
                self.sequence_by,
                batch,
                violations,
                |_| None,
                told,
            )?;
            unfit.extend(aside.into_iter().map(|(row, reasons)| (numbers[row], reasons)));
        }
        (self.rows, self.bytes) = (0, 0);
        unfit.sort_by_key(|(number, _)| *number);
        for (number, reasons) in unfit {
            tell(number, reasons);
        }
        Ok(())
    }
}
