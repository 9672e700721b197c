//! What is said of judged records by the contract, the columns of all contracts and the rules together: which are rows, and
//! why the others are none. Whether they are landed or only about to be makes no difference here.

use std::collections::HashSet;

use arrow::array::{Array as _, BooleanArray, RecordBatch};

use crate::{
    contract::{Violation, ViolationClass, judge::RowViolation, sample::Place},
    error::Result,
    transform::{
        judges::{Bench, Judges},
        split::Told,
    },
};

/// Judged records of one contract.
pub(super) struct Settled {
    /// In the columns of all contracts. What stands in a row that is not kept means nothing.
    pub(super) rows: RecordBatch,
    /// Which rows are deletions.
    pub(super) deleted: BooleanArray,
    /// Which rows are kept.
    pub(super) keep: Vec<bool>,
    /// Why the others are not, in the order of rows; of each at least one reason.
    pub(super) aside: Vec<(usize, Vec<Violation>)>,
}

/// Settles what the judge of `bench` made of records: `batch`, and what it `found`, in the order of rows. `locate` knows
/// where a row is in raw; what is to be counted goes to `told`.
///
/// # Errors
/// [`Internal`](crate::error::ErrorKind::Internal) for rows of another judge, which only a defect can cause.
pub(super) fn settle(
    judges: &Judges,
    bench: &Bench,
    sequence_by: &[String],
    batch: RecordBatch,
    mut found: Vec<RowViolation>,
    locate: impl Fn(usize) -> Option<Place>,
    told: &mut Told,
) -> Result<Settled> {
    let count = batch.num_rows();
    // Rules are about the columns of the contract, all else about those of the table.
    let aligned = bench.aligned(&batch)?;
    if !aligned.unheld.is_empty() {
        // What stands in a row that is refused means nothing. What a deletion may do without does not refuse it.
        let refused = found.iter().filter(|found| !is_excusable(&found.violation));
        let refused: HashSet<usize> = refused.map(|found| found.row).collect();
        let unheld = aligned.unheld.into_iter();
        for unheld in unheld.filter(|unheld| !refused.contains(&unheld.row)) {
            let Violation { path, expected, .. } = unheld.violation.clone();
            *told.unheld.entry((path, expected)).or_default() += 1;
            found.push(unheld);
        }
    }
    let (deleted, failures) = match &judges.deletes {
        Some(condition) => condition.of(&aligned.rows),
        None => (BooleanArray::from(vec![false; count]), Vec::new()),
    };
    found.extend(failures);
    found.sort_by_key(|found| found.row);
    let mut settled = Settled {
        rows: aligned.rows,
        deleted,
        keep: vec![true; count],
        aside: Vec::new(),
    };
    settled.set_aside(found, sequence_by, told);
    // Rules are about rows that fit, and a deletion makes none.
    let asked: Vec<bool> = settled
        .keep
        .iter()
        .zip(settled.deleted.values())
        .map(|(&kept, gone)| kept && !gone)
        .collect();
    let broken = bench.quality.ask(&batch, &asked, locate, &mut told.breaks)?;
    settled.set_aside(broken, sequence_by, told);
    settled.aside.sort_by_key(|(row, _)| *row);
    Ok(settled)
}

impl Settled {
    /// Sets the rows aside that `found` speaks of, except for what deletions are excused from. `found` is in the order of
    /// rows.
    fn set_aside(&mut self, found: Vec<RowViolation>, sequence_by: &[String], told: &mut Told) {
        for group in found.chunk_by(|a, b| a.row == b.row) {
            let row = group[0].row;
            let (excused, reasons): (Vec<&Violation>, Vec<&Violation>) =
                group.iter().map(|found| &found.violation).partition(|reason| {
                    self.deleted.value(row) && is_excusable(reason) && self.is_placed(sequence_by, row)
                });
            for reason in excused {
                *told.excused.entry(reason.path.clone()).or_default() += 1;
            }
            if !reasons.is_empty() {
                self.keep[row] = false;
                self.aside.push((row, reasons.into_iter().cloned().collect()));
            }
        }
    }

    /// Whether a row has its place among the versions.
    fn is_placed(&self, sequence_by: &[String], row: usize) -> bool {
        sequence_by.iter().all(|name| {
            let column = self.rows.column_by_name(name);
            column.is_some_and(|column| column.is_valid(row))
        })
    }
}

/// Whether a deletion may do without this: it need not carry what a row must, only its key, the mark and its place among
/// the versions.
fn is_excusable(reason: &Violation) -> bool {
    matches!(
        reason.class,
        ViolationClass::RequiredMissing | ViolationClass::NullInRequired
    )
}
