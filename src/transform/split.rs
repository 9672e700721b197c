//! One load's records, judged: rows for the table, rows for the quarantine, and what was observed on the way.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{
        Array as _, ArrayRef, AsArray as _, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray,
    },
    compute::{concat, filter_record_batch},
    datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit},
};
use datafusion::{
    catalog::{TableProvider, streaming::StreamingTable},
    execution::context::SessionContext,
    physical_plan::{SendableRecordBatchStream, execute_stream_partitioned},
};
use futures::StreamExt as _;

use crate::{
    config::CONTENT_KEY,
    contract::{
        Violation, ViolationClass,
        drift::profile::Responses,
        judge::{Judge, Judging, RowViolation},
        observed::Observed,
        sample::Place,
    },
    error::{Error, ErrorKind, Result},
    json::canonical,
    transform::{
        condition::Condition,
        quality::{Breaks, Quality},
        quarantine::{LoadFacts, Origin, Rows, Samples},
        scan::column,
    },
};

/// Rows judged before their columns are closed: enough to amortise a batch, few enough to stay in cache.
const JUDGED_ROWS: usize = 8192;

/// Bytes of columns after which they are closed, for records that are large.
const JUDGED_BYTES: usize = 32 << 20;

/// How a load's records are judged; shared by all partitions.
#[derive(Clone)]
pub struct SplitOptions {
    /// The compiled contract.
    pub judge: Arc<Judge>,
    /// Which records are deletions.
    pub deletes: Option<Condition>,
    /// What else is asked of rows that fit and are no deletions.
    pub quality: Quality,
    /// Columns that order versions: even a deletion must have them.
    pub sequence_by: Vec<String>,
    /// Columns whose values are wanted of quarantined records too; none if they are not.
    pub keys_aside: Vec<String>,
    /// Whether rows carry `_deleted`.
    pub deleted_column: bool,
    /// Whether rows carry a hash of their record, as [`CONTENT_KEY`].
    pub content_column: bool,
    /// What all rows of the load share.
    pub facts: LoadFacts,
}

/// How many records went where. `read = accepted + quarantined`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SplitCounts {
    /// Records read; a page without readable records counts as one.
    pub read: u64,
    /// Records that became rows.
    pub accepted: u64,
    /// Records set aside.
    pub quarantined: u64,
    /// Rows that are deletions.
    pub deleted: u64,
    /// Rows with something in `_rescued`.
    pub rescued: u64,
}

/// A load's records after judging.
#[derive(Debug)]
pub struct Split {
    /// Rows of the main table, in raw order.
    pub accepted: Vec<RecordBatch>,
    /// Rows of the quarantine table.
    pub quarantined: Vec<RecordBatch>,
    /// Key columns of quarantined records that have them all.
    pub keys_aside: Vec<RecordBatch>,
    /// Quarantined records and pages whose keys cannot be read.
    pub keyless: u64,
    /// What the records were like.
    pub observed: Observed,
    /// What the pages were like, if somebody watched.
    pub responses: Responses,
    /// What deletions did without, by path: observed, and no drift.
    pub excused: BTreeMap<String, u64>,
    /// Rules in SQL that were broken.
    pub breaks: Breaks,
    /// How many went where.
    pub counts: SplitCounts,
}

/// The schema of accepted rows: the contract's columns, then ours.
pub fn row_schema(judge: &Judge, deleted_column: bool, content_column: bool) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = judge.schema().fields().iter().cloned().collect();
    let mut add = |name: &str, kind: DataType| fields.push(Arc::new(Field::new(name, kind, true)));
    if deleted_column {
        add("_deleted", DataType::Boolean);
    }
    if content_column {
        add(CONTENT_KEY, DataType::Utf8);
    }
    add("_lf_batch", DataType::Int64);
    add("_lf_page", DataType::Int32);
    add("_lf_record", DataType::Int32);
    add(
        "_lf_loaded_at",
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    );
    Arc::new(Schema::new(fields))
}

/// Judges every record of `raw`, its partitions at the same time.
///
/// # Errors
/// [`ErrorKind::Unavailable`] if raw cannot be read; never because of what a record holds.
pub async fn split(session: &SessionContext, raw: StreamingTable, options: &SplitOptions) -> Result<Split> {
    let plan = raw
        .scan(&session.state(), None, &[], None)
        .await
        .map_err(|source| Error::new(ErrorKind::Internal, "plan raw scan").caused_by(source))?;
    let streams = execute_stream_partitioned(plan, session.task_ctx())
        .map_err(|source| Error::new(ErrorKind::Internal, "start raw scan").caused_by(source))?;
    let parts = streams.len();
    let tasks: Vec<_> = streams
        .into_iter()
        .map(|records| tokio::spawn(split_partition(records, options.clone(), Samples::of_part(parts))))
        .collect();
    let mut whole = Split {
        accepted: Vec::new(),
        quarantined: Vec::new(),
        keys_aside: Vec::new(),
        keyless: 0,
        observed: Observed::default(),
        responses: Responses::default(),
        excused: BTreeMap::new(),
        breaks: Breaks::default(),
        counts: SplitCounts::default(),
    };
    for task in tasks {
        let part = task
            .await
            .map_err(|source| Error::new(ErrorKind::Internal, "judge records").caused_by(source))??;
        whole.accepted.extend(part.accepted);
        whole.quarantined.extend(part.quarantined);
        whole.keys_aside.extend(part.keys_aside);
        whole.keyless += part.keyless;
        whole.observed.merge(&part.observed);
        for (path, count) in part.excused {
            *whole.excused.entry(path).or_default() += count;
        }
        whole.breaks.merge(part.breaks);
        whole.counts.read += part.counts.read;
        whole.counts.accepted += part.counts.accepted;
        whole.counts.quarantined += part.counts.quarantined;
        whole.counts.deleted += part.counts.deleted;
        whole.counts.rescued += part.counts.rescued;
    }
    Ok(whole)
}

async fn split_partition(
    mut records: SendableRecordBatchStream,
    options: SplitOptions,
    samples: Samples,
) -> Result<Split> {
    let mut partition = Partition::new(&options, samples);
    while let Some(batch) = records.next().await {
        partition.take(batch.map_err(read_error)?)?;
    }
    partition.finish()
}

/// Raw read errors travel through DataFusion; give them back as what they are.
fn read_error(source: datafusion::error::DataFusionError) -> Error {
    let kind = match source.find_root() {
        datafusion::error::DataFusionError::External(inner) => inner
            .downcast_ref::<Error>()
            .map_or(ErrorKind::Internal, Error::kind),
        _ => ErrorKind::Internal,
    };
    Error::new(kind, "read raw records").caused_by(source)
}

struct Partition<'a> {
    options: &'a SplitOptions,
    schema: SchemaRef,
    judging: Judging,
    /// Scan batches whose records are in `judging`.
    pending: Vec<RecordBatch>,
    quarantine: Rows,
    samples: Samples,
    split: Split,
}

impl<'a> Partition<'a> {
    fn new(options: &'a SplitOptions, samples: Samples) -> Self {
        Self {
            options,
            samples,
            schema: row_schema(&options.judge, options.deleted_column, options.content_column),
            judging: options.judge.start(),
            pending: Vec::new(),
            quarantine: Rows::new(options.facts.clone()),
            split: Split {
                accepted: Vec::new(),
                quarantined: Vec::new(),
                keys_aside: Vec::new(),
                keyless: 0,
                observed: Observed::default(),
                responses: Responses::default(),
                excused: BTreeMap::new(),
                breaks: Breaks::default(),
                counts: SplitCounts::default(),
            },
        }
    }

    fn take(&mut self, batch: RecordBatch) -> Result<()> {
        self.split.counts.read += batch.num_rows() as u64;
        if batch.column(column::CLASS).null_count() < batch.num_rows() {
            return self.set_pages_aside(&batch);
        }
        let bodies = batch.column(column::BODY).as_binary_view();
        let mut start = 0;
        for row in 0..batch.num_rows() {
            self.judging.push(bodies.value(row));
            if self.judging.rows() >= JUDGED_ROWS || self.judging.bytes() >= JUDGED_BYTES {
                self.pending.push(batch.slice(start, row + 1 - start));
                start = row + 1;
                self.flush()?;
            }
        }
        if start < batch.num_rows() {
            self.pending.push(batch.slice(start, batch.num_rows() - start));
        }
        Ok(())
    }

    /// Pages without readable records: the scan gives each a batch of its own.
    fn set_pages_aside(&mut self, batch: &RecordBatch) -> Result<()> {
        let (classes, found) = (
            batch.column(column::CLASS).as_string::<i32>(),
            batch.column(column::FOUND).as_string::<i32>(),
        );
        let bodies = batch.column(column::BODY).as_binary_view();
        for row in 0..batch.num_rows() {
            let reason = Violation {
                class: page_class(classes.value(row)),
                path: String::new(),
                expected: "a page of records".to_owned(),
                found: found.value(row).to_owned(),
            };
            let body = bodies.is_valid(row).then(|| bodies.value(row));
            self.quarantine
                .push(origin(batch, row), body, &[reason], &mut self.samples);
        }
        self.split.counts.quarantined += batch.num_rows() as u64;
        self.split.keyless += batch.num_rows() as u64;
        self.close_quarantine(JUDGED_ROWS)
    }

    /// Closes the quarantine rows once there are `rows` of them: the text of one Arrow column is counted in 31 bits.
    fn close_quarantine(&mut self, rows: usize) -> Result<()> {
        if self.quarantine.len() >= rows {
            let full = std::mem::replace(&mut self.quarantine, Rows::new(self.options.facts.clone()));
            self.split.quarantined.push(full.finish()?);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let mut judged = std::mem::replace(&mut self.judging, self.options.judge.start()).finish()?;
        let pending = std::mem::take(&mut self.pending);
        judged.observed.locate(|row| place(&pending, row));
        let rows = judged.batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let (deleted, failures) = match &self.options.deletes {
            Some(condition) => condition.of(&judged.batch),
            None => (BooleanArray::from(vec![false; rows]), Vec::new()),
        };
        let mut keep = vec![true; rows];
        let mut found = judged.violations;
        found.extend(failures);
        found.sort_by_key(|found| found.row);
        self.set_aside(&found, &judged.batch, &deleted, &pending, &mut keep);
        // Rules are about rows that fit, and a deletion makes none.
        let asked: Vec<bool> = keep
            .iter()
            .zip(deleted.values())
            .map(|(&kept, gone)| kept && !gone)
            .collect();
        let locate = |row: usize| place(&pending, row as u64);
        let breaks = &mut self.split.breaks;
        let broken = self.options.quality.ask(&judged.batch, &asked, locate, breaks)?;
        self.set_aside(&broken, &judged.batch, &deleted, &pending, &mut keep);
        self.keep_keys(&judged.batch, &keep)?;
        let accepted = self.rows(&judged.batch, &pending, &deleted, keep)?;
        let counts = &mut self.split.counts;
        counts.accepted += accepted.num_rows() as u64;
        counts.quarantined += (rows - accepted.num_rows()) as u64;
        if let Some(rescued) = accepted.column_by_name("_rescued") {
            counts.rescued += (rescued.len() - rescued.null_count()) as u64;
        }
        if let Some(marks) = accepted.column_by_name("_deleted") {
            counts.deleted += marks.as_boolean().true_count() as u64;
        }
        self.split.observed.merge(&judged.observed);
        if accepted.num_rows() > 0 {
            self.split.accepted.push(accepted);
        }
        self.close_quarantine(JUDGED_ROWS)
    }

    /// Puts the rows of `judged` that `found` speaks of into the quarantine, except for what deletions are excused from.
    /// `found` is in the order of rows.
    fn set_aside(
        &mut self,
        found: &[RowViolation],
        judged: &RecordBatch,
        deleted: &BooleanArray,
        pending: &[RecordBatch],
        keep: &mut [bool],
    ) {
        let mut offsets = Offsets::new(pending);
        for group in found.chunk_by(|a, b| a.row == b.row) {
            let row = group[0].row;
            let (excused, reasons): (Vec<&Violation>, Vec<&Violation>) = group
                .iter()
                .map(|found| &found.violation)
                .partition(|reason| deleted.value(row) && self.excused(reason, judged, row));
            for reason in excused {
                *self.split.excused.entry(reason.path.clone()).or_default() += 1;
            }
            if !reasons.is_empty() {
                keep[row] = false;
                let (batch, at) = offsets.find(row);
                let body = batch.column(column::BODY).as_binary_view().value(at);
                let reasons: Vec<Violation> = reasons.into_iter().cloned().collect();
                self.quarantine
                    .push(origin(batch, at), Some(body), &reasons, &mut self.samples);
            }
        }
    }

    /// Keeps the keys of the records that are not kept themselves.
    fn keep_keys(&mut self, judged: &RecordBatch, keep: &[bool]) -> Result<()> {
        let names = &self.options.keys_aside;
        if names.is_empty() || keep.iter().all(|kept| *kept) {
            return Ok(());
        }
        let columns: Vec<&ArrayRef> = names
            .iter()
            .filter_map(|name| judged.column_by_name(name))
            .collect();
        let whole =
            |row: usize| columns.len() == names.len() && columns.iter().all(|column| column.is_valid(row));
        let aside: BooleanArray = (0..keep.len())
            .map(|row| Some(!keep[row] && whole(row)))
            .collect();
        let dropped = keep.iter().filter(|kept| !**kept).count();
        self.split.keyless += (dropped - aside.true_count()) as u64;
        if aside.true_count() > 0 {
            let keys = names
                .iter()
                .zip(&columns)
                .map(|(name, column)| (name, Arc::clone(column)));
            let rows =
                RecordBatch::try_from_iter_with_nullable(keys.map(|(name, column)| (name, column, true)))
                    .and_then(|batch| filter_record_batch(&batch, &aside))
                    .map_err(|source| Error::new(ErrorKind::Internal, "keep keys").caused_by(source))?;
            self.split.keys_aside.push(rows);
        }
        Ok(())
    }

    /// Whether a deletion may do without this: it need not carry what a row must, only its key, the mark and its place
    /// among the versions.
    fn excused(&self, reason: &Violation, judged: &RecordBatch, row: usize) -> bool {
        let placed = |name: &String| {
            judged
                .column_by_name(name)
                .is_some_and(|column| column.is_valid(row))
        };
        matches!(
            reason.class,
            ViolationClass::RequiredMissing | ViolationClass::NullInRequired
        ) && self.options.sequence_by.iter().all(placed)
    }

    /// The kept rows with our columns added.
    fn rows(
        &self,
        judged: &RecordBatch,
        pending: &[RecordBatch],
        deleted: &BooleanArray,
        keep: Vec<bool>,
    ) -> Result<RecordBatch> {
        let fail = |source: arrow::error::ArrowError| {
            Error::new(ErrorKind::Internal, "build rows").caused_by(source)
        };
        let position = |index: usize| -> Result<ArrayRef> {
            let parts: Vec<&dyn arrow::array::Array> =
                pending.iter().map(|batch| batch.column(index).as_ref()).collect();
            concat(&parts).map_err(fail)
        };
        let mut columns = judged.columns().to_vec();
        if self.options.deleted_column {
            columns.push(Arc::new(deleted.clone()));
        }
        if self.options.content_column {
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
        let loaded_at = self.options.facts.loaded_at.timestamp_micros();
        columns.push(Arc::new(
            TimestampMicrosecondArray::from_value(loaded_at, judged.num_rows()).with_timezone("UTC"),
        ));
        let all = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(fail)?;
        if keep.iter().all(|kept| *kept) {
            return Ok(all);
        }
        filter_record_batch(&all, &BooleanArray::from(keep)).map_err(fail)
    }

    fn finish(mut self) -> Result<Split> {
        self.flush()?;
        self.close_quarantine(1)?;
        Ok(self.split)
    }
}

fn page_class(name: &str) -> ViolationClass {
    [
        ViolationClass::RecordsPathMissing,
        ViolationClass::TooDeep,
        ViolationClass::TooLarge,
        ViolationClass::NotJson,
        ViolationClass::RawMissing,
    ]
    .into_iter()
    .find(|class| class.as_str() == name)
    .unwrap_or(ViolationClass::RawCorrupt)
}

fn origin(batch: &RecordBatch, row: usize) -> Origin<'_> {
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
            let Origin {
                batch, page, record, ..
            } = origin(batch, rest);
            return Some(Place { batch, page, record });
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
