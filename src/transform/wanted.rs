//! Chosen places of raw: what is read again of records that were set aside.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use arrow::{
    array::{BooleanArray, RecordBatch},
    compute::filter_record_batch,
};

/// The number that stands for a page without readable records.
pub const WHOLE_PAGE: i32 = -1;

/// Places of raw, by page.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pages: BTreeMap<(i64, u32), Records>,
}

/// The wanted records of one page.
#[derive(Clone, Debug)]
pub(super) enum Records {
    /// Whatever it holds.
    All,
    /// Those with these numbers.
    Some(BTreeSet<i32>),
}

impl Wanted {
    /// Adds the record at batch, page and record number; [`WHOLE_PAGE`] stands for all records of the page.
    pub fn add(&mut self, batch: i64, page: u32, record: i32) {
        let records = self
            .pages
            .entry((batch, page))
            .or_insert_with(|| Records::Some(BTreeSet::new()));
        match records {
            Records::All => {}
            Records::Some(_) if record == WHOLE_PAGE => *records = Records::All,
            Records::Some(numbers) => {
                numbers.insert(record);
            }
        }
    }

    /// Whether anything is wanted of these pages of `batch`.
    pub(super) fn any(&self, batch: i64, pages: Range<u32>) -> bool {
        self.pages
            .range((batch, pages.start)..(batch, pages.end))
            .next()
            .is_some()
    }

    /// What is wanted of a page, `None` if nothing is.
    pub(super) fn of(&self, batch: i64, page: u32) -> Option<&Records> {
        self.pages.get(&(batch, page))
    }
}

impl Records {
    /// The wanted rows of a run of records whose first has the number `first`.
    pub(super) fn cut(&self, first: usize, run: RecordBatch) -> arrow::error::Result<RecordBatch> {
        let Self::Some(numbers) = self else {
            return Ok(run);
        };
        let number = |row: usize| i32::try_from(first + row).unwrap_or(i32::MAX);
        let keep: BooleanArray = (0..run.num_rows())
            .map(|row| Some(numbers.contains(&number(row))))
            .collect();
        filter_record_batch(&run, &keep)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{AsArray as _, Int32Array},
        datatypes::Int32Type,
    };

    use super::*;

    fn run(numbers: Range<i32>) -> RecordBatch {
        let column = Int32Array::from_iter_values(numbers);
        RecordBatch::try_from_iter([("record", Arc::new(column) as _)]).unwrap()
    }

    #[test]
    fn only_the_named_records_of_a_page_are_wanted() {
        let mut wanted = Wanted::default();
        for (page, record) in [(3, 7), (3, 5), (4, 0)] {
            wanted.add(2, page, record);
        }
        assert!(wanted.any(2, 0..4) && !wanted.any(2, 0..3) && !wanted.any(1, 0..9));
        let kept = wanted.of(2, 3).unwrap().cut(4, run(4..9)).unwrap();
        assert_eq!(kept.column(0).as_primitive::<Int32Type>().values(), &[5, 7]);
        assert!(wanted.of(2, 5).is_none());
    }

    #[test]
    fn a_page_as_a_whole_is_more_than_its_records() {
        let mut wanted = Wanted::default();
        for record in [1, WHOLE_PAGE, 2] {
            wanted.add(0, 0, record);
        }
        let kept = wanted.of(0, 0).unwrap().cut(0, run(0..9)).unwrap();
        assert_eq!(kept.num_rows(), 9);
    }
}
