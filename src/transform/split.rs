//! One load's records, judged: rows for the table, rows for the quarantine, and what was observed on the way.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array as _, ArrayRef, AsArray as _, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use datafusion::{
    catalog::{TableProvider, streaming::StreamingTable},
    execution::context::SessionContext,
    physical_plan::{SendableRecordBatchStream, execute_stream_partitioned},
};
use futures::StreamExt as _;

use crate::{
    config::CONTENT_KEY,
    contract::{Violation, ViolationClass, drift::profile::Responses, judge::Judging, observed::Observed},
    error::{Error, ErrorKind, Result},
    spill::gathered::{Gathered, Spill},
    transform::{
        judges::{Judges, Unlisted},
        lane::{Lane, in_raw_order, origin},
        quality::Breaks,
        quarantine::{LoadFacts, Samples},
        scan::column,
        traces::Traces,
    },
};

/// Rows judged before their columns are closed: enough to amortise a batch, few enough to stay in cache.
const JUDGED_ROWS: usize = 8192;

/// Bytes of columns after which they are closed, for records that are large.
const JUDGED_BYTES: usize = 32 << 20;

/// How a load's records are judged; shared by all partitions.
#[derive(Clone)]
pub struct SplitOptions {
    /// Everything that judges them.
    pub judges: Arc<Judges>,
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
    /// Where accepted rows are gathered; none if only their number is wanted.
    pub accepted: Option<Spill>,
    /// Where rows of the quarantine are gathered, and the keys of [`SplitOptions::keys_aside`].
    pub quarantined: Spill,
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
    /// Rows of the main table, in raw order as far as they are in memory.
    pub accepted: Gathered,
    /// Rows of the quarantine table.
    pub quarantined: Gathered,
    /// Key columns of quarantined records that have them all.
    pub keys_aside: Gathered,
    /// Quarantined records and pages whose keys cannot be read.
    pub keyless: u64,
    /// What the records were like that the main contract judged.
    pub main: Told,
    /// Those of the other contracts, in their order.
    pub older: Vec<Told>,
    /// Records of versions that are not listed.
    pub unlisted: Unlisted,
    /// What the pages were like, if somebody watched.
    pub responses: Responses,
    /// The traces they belong to, if somebody watched.
    pub traces: Traces,
    /// How many went where.
    pub counts: SplitCounts,
}

/// What the records were like that one contract judged.
#[derive(Debug, Default)]
pub struct Told {
    /// What they were like.
    pub observed: Observed,
    /// What deletions did without, by path: observed, and no drift.
    pub excused: BTreeMap<String, u64>,
    /// Rules in SQL that were broken.
    pub breaks: Breaks,
    /// Values that the column of the table does not hold, by path and the type there.
    pub unheld: BTreeMap<(String, String), u64>,
}

impl Told {
    fn merge(&mut self, other: Self) {
        self.observed.merge(&other.observed);
        for (path, count) in other.excused {
            *self.excused.entry(path).or_default() += count;
        }
        self.breaks.merge(other.breaks);
        for (place, count) in other.unheld {
            *self.unheld.entry(place).or_default() += count;
        }
    }
}

impl Split {
    fn of(options: &SplitOptions) -> Self {
        Self {
            accepted: Gathered::new(options.accepted.clone().unwrap_or_else(Spill::never)),
            quarantined: Gathered::new(options.quarantined.clone()),
            keys_aside: Gathered::new(options.quarantined.clone()),
            keyless: 0,
            main: Told::default(),
            older: options.judges.older.iter().map(|_| Told::default()).collect(),
            unlisted: Unlisted::default(),
            responses: Responses::default(),
            traces: Traces::default(),
            counts: SplitCounts::default(),
        }
    }

    fn merge(&mut self, part: Self) -> Result<()> {
        self.accepted.append(part.accepted)?;
        self.quarantined.append(part.quarantined)?;
        self.keys_aside.append(part.keys_aside)?;
        self.keyless += part.keyless;
        self.main.merge(part.main);
        for (own, other) in self.older.iter_mut().zip(part.older) {
            own.merge(other);
        }
        self.unlisted.merge(part.unlisted);
        self.counts.read += part.counts.read;
        self.counts.accepted += part.counts.accepted;
        self.counts.quarantined += part.counts.quarantined;
        self.counts.deleted += part.counts.deleted;
        self.counts.rescued += part.counts.rescued;
        Ok(())
    }
}

/// The schema of accepted rows: the columns `judged` of contracts, then ours.
pub fn row_schema(judged: &Schema, deleted_column: bool, content_column: bool) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = judged.fields().iter().cloned().collect();
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
/// [`ErrorKind::Unavailable`] if raw cannot be read, [`ErrorKind::Limit`] if the disk does not take the rows that memory has
/// no room for; never because of what a record holds.
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
    let mut whole = Split::of(options);
    for task in tasks {
        let part = task
            .await
            .map_err(|source| Error::new(ErrorKind::Internal, "judge records").caused_by(source))??;
        whole.merge(part)?;
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
    /// One for each contract, the main one first.
    lanes: Vec<Lane<'a>>,
    samples: Samples,
    split: Split,
}

impl<'a> Partition<'a> {
    fn new(options: &'a SplitOptions, samples: Samples) -> Self {
        let judged = options.judges.schema();
        Self {
            options,
            samples,
            schema: row_schema(&judged, options.deleted_column, options.content_column),
            lanes: options
                .judges
                .all()
                .map(|bench| Lane::new(options, bench))
                .collect(),
            split: Split::of(options),
        }
    }

    fn take(&mut self, batch: RecordBatch) -> Result<()> {
        self.split.counts.read += batch.num_rows() as u64;
        if batch.column(column::CLASS).null_count() < batch.num_rows() {
            return self.set_pages_aside(&batch);
        }
        let bodies = batch.column(column::BODY).as_binary_view();
        for row in 0..batch.num_rows() {
            let record = bodies.value(row);
            let place = || origin(&batch, row).place();
            let chosen = self
                .options
                .judges
                .choose(record, place, &mut self.split.unlisted);
            self.lanes[chosen].push(record, row);
            if self.is_full() {
                self.pend(&batch)?;
                self.flush()?;
            }
        }
        self.pend(&batch)
    }

    fn is_full(&self) -> bool {
        let sum = |of: fn(&Judging) -> usize| self.lanes.iter().map(|lane| of(&lane.judging)).sum::<usize>();
        sum(Judging::rows) >= JUDGED_ROWS || sum(Judging::bytes) >= JUDGED_BYTES
    }

    /// Keeps the rows of `batch` whose records are judged since it was taken, or since the last time.
    fn pend(&mut self, batch: &RecordBatch) -> Result<()> {
        self.lanes.iter_mut().try_for_each(|lane| lane.pend(batch))
    }

    /// Pages without readable records: the scan gives each a batch of its own.
    fn set_pages_aside(&mut self, batch: &RecordBatch) -> Result<()> {
        let (classes, found) = (
            batch.column(column::CLASS).as_string::<i32>(),
            batch.column(column::FOUND).as_string::<i32>(),
        );
        let bodies = batch.column(column::BODY).as_binary_view();
        // Nobody knows of which version their records are.
        let quarantine = &mut self.lanes[0].quarantine;
        for row in 0..batch.num_rows() {
            let reason = Violation {
                class: page_class(classes.value(row)),
                path: String::new(),
                expected: "a page of records".to_owned(),
                found: found.value(row).to_owned(),
            };
            let body = bodies.is_valid(row).then(|| bodies.value(row));
            quarantine.push(origin(batch, row), body, &[reason], &mut self.samples);
        }
        self.split.counts.quarantined += batch.num_rows() as u64;
        self.split.keyless += batch.num_rows() as u64;
        self.close_quarantine(JUDGED_ROWS)
    }

    /// Closes the quarantine rows once there are `rows` of them: the text of one Arrow column is counted in 31 bits.
    fn close_quarantine(&mut self, rows: usize) -> Result<()> {
        for lane in &mut self.lanes {
            if let Some(rows) = lane.close_quarantine(rows)? {
                self.split.quarantined.push(rows)?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let mut parts = Vec::new();
        for lane in &mut self.lanes {
            let Some(flushed) = lane.flush(&mut self.samples)? else {
                continue;
            };
            let rows = flushed.keep.len() as u64;
            self.split
                .keep_keys(self.options, &flushed.judged, &flushed.keep)?;
            let accepted = flushed.rows(self.options, &self.schema)?;
            let counts = &mut self.split.counts;
            counts.accepted += accepted.num_rows() as u64;
            counts.quarantined += rows - accepted.num_rows() as u64;
            if let Some(rescued) = accepted.column_by_name("_rescued") {
                counts.rescued += (rescued.len() - rescued.null_count()) as u64;
            }
            if let Some(marks) = accepted.column_by_name("_deleted") {
                counts.deleted += marks.as_boolean().true_count() as u64;
            }
            if accepted.num_rows() > 0 {
                parts.push(accepted);
            }
        }
        if let (Some(rows), true) = (in_raw_order(parts)?, self.options.accepted.is_some()) {
            self.split.accepted.push(rows)?;
        }
        self.close_quarantine(JUDGED_ROWS)
    }

    fn finish(mut self) -> Result<Split> {
        self.flush()?;
        self.close_quarantine(1)?;
        let mut told = self.lanes.into_iter().map(|lane| lane.told);
        self.split.main = told.next().unwrap_or_default();
        self.split.older = told.collect();
        Ok(self.split)
    }
}

impl Split {
    /// Keeps the keys of the records that are not kept themselves.
    fn keep_keys(&mut self, options: &SplitOptions, judged: &RecordBatch, keep: &[bool]) -> Result<()> {
        let names = &options.keys_aside;
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
        self.keyless += (dropped - aside.true_count()) as u64;
        if aside.true_count() > 0 {
            let keys = names
                .iter()
                .zip(&columns)
                .map(|(name, column)| (name, Arc::clone(column)));
            let rows =
                RecordBatch::try_from_iter_with_nullable(keys.map(|(name, column)| (name, column, true)))
                    .and_then(|batch| filter_record_batch(&batch, &aside))
                    .map_err(|source| Error::new(ErrorKind::Internal, "keep keys").caused_by(source))?;
            self.keys_aside.push(rows)?;
        }
        Ok(())
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

#[cfg(test)]
mod tests;
