//! Gathered rows in slices: ranges of keys whose rows memory has room for.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use arrow::{
    array::{RecordBatch, UInt64Array},
    compute::take_record_batch,
};

use super::{
    gathered::{Gathered, Sorting},
    run::{Part, Run, comparable},
};
use crate::error::{Error, ErrorKind, Result};

/// A slice ends only once so large a part of it begins in it; of the rest its rows are those between other keys.
const SLICE_SHARE: usize = 2;

/// All rows of each range of keys, range after range.
#[derive(Clone, Debug)]
pub struct Slices {
    rows: Gathered,
    /// The least key of each slice but the first.
    cuts: Arc<Vec<Box<[u8]>>>,
}

impl Slices {
    /// Rows that are all in memory, or that are in no order, are one slice.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] if the disk does not take the last of them.
    pub fn of(mut rows: Gathered) -> Result<Self> {
        rows.settle()?;
        let cuts = match rows.sorting() {
            Some(_) => cuts(rows.runs(), rows.slice_bytes_max()),
            None => Vec::new(),
        };
        Ok(Self {
            rows,
            cuts: Arc::new(cuts),
        })
    }

    /// How many there are; at least one.
    pub fn count(&self) -> usize {
        self.cuts.len() + 1
    }

    /// What they are slices of.
    pub fn whole(&self) -> &Gathered {
        &self.rows
    }

    /// The rows of the slice `number`, run after run.
    pub fn rows(&self, number: usize) -> Box<dyn Iterator<Item = Result<RecordBatch>> + Send + '_> {
        let Some(sorting) = self.rows.sorting().filter(|_| !self.cuts.is_empty()) else {
            return Box::new(self.rows.batches());
        };
        let least = number.checked_sub(1).map(|before| &*self.cuts[before]);
        let end = self.cuts.get(number).map(|cut| &**cut);
        let runs = self.rows.runs().iter();
        Box::new(runs.flat_map(move |run| {
            let reached = |part: &Part| least.is_some_and(|least| *part.last < *least);
            let inside = |part: &Part| end.is_none_or(|end| *part.first < *end);
            let (from, to) = (
                run.parts.partition_point(reached),
                run.parts.partition_point(inside),
            );
            run.parts[from..to.max(from)]
                .iter()
                .map(move |part| between(run.read(part)?, part, sorting, least, end))
        }))
    }
}

/// The rows of `batch` with keys from `least` on and before `end`.
fn between(
    batch: RecordBatch,
    part: &Part,
    sorting: &Sorting,
    least: Option<&[u8]>,
    end: Option<&[u8]>,
) -> Result<RecordBatch> {
    let is_whole = least.is_none_or(|least| *part.first >= *least) && end.is_none_or(|end| *part.last < *end);
    if is_whole {
        return Ok(batch);
    }
    let keys = comparable(&sorting.keys, std::slice::from_ref(&batch))?.swap_remove(0);
    let before = |bound: &[u8]| {
        let (mut low, mut high) = (0, batch.num_rows());
        while low < high {
            let middle = low + (high - low) / 2;
            if keys.row(middle).data() < bound {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low as u64
    };
    let (from, to) = (
        least.map_or(0, &before),
        end.map_or(batch.num_rows() as u64, &before),
    );
    // Copied, so that the others do not stay in memory with them.
    take_record_batch(&batch, &UInt64Array::from_iter_values(from..to.max(from)))
        .map_err(|source| Error::new(ErrorKind::Internal, "cut spilled rows").caused_by(source))
}

/// Keys at which the rows of `runs` are cut, so that the parts with rows of a slice take about `bytes_max`.
fn cuts(runs: &[Arc<Run>], bytes_max: usize) -> Vec<Box<[u8]>> {
    let mut parts: Vec<&Part> = runs.iter().flat_map(|run| &run.parts).collect();
    parts.sort_unstable_by(|a, b| a.first.cmp(&b.first));
    let mut cuts: Vec<Box<[u8]>> = Vec::new();
    // Parts that may have rows of the next slice too, by their last key, and what they take.
    let mut open: BinaryHeap<Reverse<(&[u8], usize)>> = BinaryHeap::new();
    let mut open_bytes = 0_usize;
    let (mut bytes, mut begun) = (0_usize, 0_usize);
    let mut least: &[u8] = &[];
    for part in parts {
        let is_full = bytes.saturating_add(part.bytes) > bytes_max && begun >= bytes_max / SLICE_SHARE;
        if is_full && *part.first > *least {
            cuts.push(part.first.clone());
            while let Some(Reverse((_, closed))) = open.peek().filter(|closed| closed.0.0 < &*part.first) {
                open_bytes -= closed;
                open.pop();
            }
            (bytes, begun) = (open_bytes, 0);
        }
        if begun == 0 {
            least = &part.first;
        }
        open.push(Reverse((&part.last, part.bytes)));
        open_bytes += part.bytes;
        bytes += part.bytes;
        begun += part.bytes;
    }
    cuts
}
