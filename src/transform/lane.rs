//! The records that one contract judges: on their way, judged, and in the order of raw again.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, AsArray as _, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray,
        UInt32Array,
    },
    compute::{concat, filter_record_batch, interleave_record_batch, take_record_batch},
    datatypes::{Int32Type, Int64Type, SchemaRef},
};

use crate::{
    contract::{
        judge::{Judged, Judging},
        sample::Place,
    },
    error::{Error, ErrorKind, Result},
    json::canonical,
    transform::{
        judges::Bench,
        quarantine::{Origin, Rows, Samples},
        scan::column,
        settle::settle,
        split::{SplitOptions, Told},
    },
};

/// The records that one contract judges.
pub(super) struct Lane<'a> {
    options: &'a SplitOptions,
    bench: &'a Bench,
    pub(super) judging: Judging,
    /// Scan batches whose records are in `judging`.
    pending: Vec<RecordBatch>,
    /// Rows of the scan batch at hand whose records are in `judging` and that are not pending yet.
    picked: Vec<u32>,
    pub(super) quarantine: Rows,
    pub(super) told: Told,
}

/// Records of one lane, judged, in the columns of all.
pub(super) struct Flushed {
    pub(super) judged: RecordBatch,
    pending: Vec<RecordBatch>,
    deleted: BooleanArray,
    pub(super) keep: Vec<bool>,
}

impl<'a> Lane<'a> {
    pub(super) fn new(options: &'a SplitOptions, bench: &'a Bench) -> Self {
        Self {
            options,
            bench,
            judging: bench.judge.start(),
            pending: Vec::new(),
            picked: Vec::new(),
            quarantine: Rows::new(options.facts.clone(), &bench.version),
            told: Told::default(),
        }
    }

    /// Judges the record in a row of the scan batch at hand.
    pub(super) fn push(&mut self, record: &[u8], row: usize) {
        self.judging.push(record);
        // A scan batch has no more rows than that.
        self.picked.push(row as u32);
    }

    /// Keeps the rows of `batch` whose records were judged since the last time.
    pub(super) fn pend(&mut self, batch: &RecordBatch) -> Result<()> {
        let (Some(&first), Some(&last)) = (self.picked.first(), self.picked.last()) else {
            return Ok(());
        };
        let count = self.picked.len();
        let picked = if (last - first) as usize + 1 == count {
            batch.slice(first as usize, count)
        } else {
            take_record_batch(batch, &UInt32Array::from(std::mem::take(&mut self.picked)))
                .map_err(|source| Error::new(ErrorKind::Internal, "pick records").caused_by(source))?
        };
        self.picked.clear();
        self.pending.push(picked);
        Ok(())
    }

    /// Closes the quarantine rows once there are `rows` of them.
    pub(super) fn close_quarantine(&mut self, rows: usize) -> Result<Option<RecordBatch>> {
        if self.quarantine.len() < rows {
            return Ok(None);
        }
        let next = Rows::new(self.options.facts.clone(), &self.bench.version);
        std::mem::replace(&mut self.quarantine, next).finish().map(Some)
    }

    /// Ends the batch at hand; none if it is empty.
    pub(super) fn flush(&mut self, samples: &mut Samples) -> Result<Option<Flushed>> {
        if self.judging.rows() == 0 {
            return Ok(None);
        }
        let judged = std::mem::replace(&mut self.judging, self.bench.judge.start()).finish()?;
        let pending = std::mem::take(&mut self.pending);
        let Judged {
            batch,
            violations,
            mut observed,
            ..
        } = judged;
        observed.locate(|row| place(&pending, row));
        self.told.observed.merge(&observed);
        let settled = settle(
            &self.options.judges,
            self.bench,
            &self.options.sequence_by,
            batch,
            violations,
            |row| place(&pending, row as u64),
            &mut self.told,
        )?;
        let mut offsets = Offsets::new(&pending);
        for (row, reasons) in &settled.aside {
            let (batch, at) = offsets.find(*row);
            let body = batch.column(column::BODY).as_binary_view().value(at);
            self.quarantine
                .push(origin(batch, at), Some(body), reasons, samples);
        }
        Ok(Some(Flushed {
            judged: settled.rows,
            pending,
            deleted: settled.deleted,
            keep: settled.keep,
        }))
    }
}

impl Flushed {
    /// The kept rows in the columns of `schema`: those of all contracts, then ours.
    pub(super) fn rows(self, options: &SplitOptions, schema: &SchemaRef) -> Result<RecordBatch> {
        let Self {
            judged,
            pending,
            deleted,
            keep,
        } = self;
        let fail = |source: arrow::error::ArrowError| {
            Error::new(ErrorKind::Internal, "build rows").caused_by(source)
        };
        let position = |index: usize| -> Result<ArrayRef> {
            let parts: Vec<&dyn arrow::array::Array> =
                pending.iter().map(|batch| batch.column(index).as_ref()).collect();
            concat(&parts).map_err(fail)
        };
        let mut columns = judged.columns().to_vec();
        if options.deleted_column {
            columns.push(Arc::new(deleted));
        }
        if options.content_column {
            let bodies = pending
                .iter()
                .flat_map(|batch| batch.column(column::BODY).as_binary_view());
            let hashes = bodies
                .zip(&keep)
                .map(|(body, kept)| body.filter(|_| *kept).map(canonical::sha256));
            columns.push(Arc::new(hashes.collect::<StringArray>()));
        }
        for index in [column::BATCH, column::PAGE, column::RECORD] {
            columns.push(position(index)?);
        }
        let loaded_at = options.facts.loaded_at.timestamp_micros();
        columns.push(Arc::new(
            TimestampMicrosecondArray::from_value(loaded_at, judged.num_rows()).with_timezone("UTC"),
        ));
        let all = RecordBatch::try_new(Arc::clone(schema), columns).map_err(fail)?;
        if keep.iter().all(|kept| *kept) {
            return Ok(all);
        }
        filter_record_batch(&all, &BooleanArray::from(keep)).map_err(fail)
    }
}

/// Rows of several contracts as they follow each other in raw; each of `parts` is in that order.
pub(super) fn in_raw_order(mut parts: Vec<RecordBatch>) -> Result<Option<RecordBatch>> {
    if parts.len() < 2 {
        return Ok(parts.pop());
    }
    let mut rows: Vec<(Place, (usize, usize))> = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        let columns = (
            part["_lf_batch"].as_primitive::<Int64Type>(),
            part["_lf_page"].as_primitive::<Int32Type>(),
            part["_lf_record"].as_primitive::<Int32Type>(),
        );
        rows.extend((0..part.num_rows()).map(|row| {
            let place = Place {
                batch: columns.0.value(row),
                page: columns.1.value(row),
                record: columns.2.value(row),
            };
            (place, (number, row))
        }));
    }
    rows.sort_unstable();
    let order: Vec<(usize, usize)> = rows.into_iter().map(|(_, row)| row).collect();
    interleave_record_batch(&parts.iter().collect::<Vec<_>>(), &order)
        .map(Some)
        .map_err(|source| Error::new(ErrorKind::Internal, "order rows of versions").caused_by(source))
}

pub(super) fn origin(batch: &RecordBatch, row: usize) -> Origin<'_> {
    Origin {
        batch: batch.column(column::BATCH).as_primitive::<Int64Type>().value(row),
        page: batch.column(column::PAGE).as_primitive::<Int32Type>().value(row),
        record: batch
            .column(column::RECORD)
            .as_primitive::<Int32Type>()
            .value(row),
        object: batch.column(column::OBJECT).as_string::<i32>().value(row),
    }
}

/// Where the judged row number `row` is in raw.
fn place(pending: &[RecordBatch], row: u64) -> Option<Place> {
    let mut rest = usize::try_from(row).ok()?;
    for batch in pending {
        if rest < batch.num_rows() {
            return Some(origin(batch, rest).place());
        }
        rest -= batch.num_rows();
    }
    None
}

/// Finds the scan batch of a judged row; rows are asked for in order.
struct Offsets<'a> {
    batches: &'a [RecordBatch],
    first: usize,
}

impl<'a> Offsets<'a> {
    fn new(batches: &'a [RecordBatch]) -> Self {
        Self { batches, first: 0 }
    }

    fn find(&mut self, row: usize) -> (&'a RecordBatch, usize) {
        while row - self.first >= self.batches[0].num_rows() {
            self.first += self.batches[0].num_rows();
            self.batches = &self.batches[1..];
        }
        (&self.batches[0], row - self.first)
    }
}
