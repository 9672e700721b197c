//! The raw zone as a DataFusion table: one row per record, in raw order within a partition.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::{
    array::{
        ArrayRef, BinaryViewBuilder, Int32Array, Int64Array, RecordBatch, StringArray,
        TimestampMicrosecondArray,
    },
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use datafusion::{
    catalog::streaming::StreamingTable,
    error::DataFusionError,
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{stream::RecordBatchReceiverStream, streaming::PartitionStream},
};
use object_store::ObjectStore;
use tokio::sync::mpsc::Sender;

use crate::{
    contract::{ViolationClass, drift::profile::Responses},
    error::{Error, ErrorKind, Result},
    format::{Defect, Recipe},
    json::{self, Found},
    raw::{
        PageFacts,
        log::LogEntry,
        read::{Loss, PageRead, RawPage, read_object},
    },
    transform::{
        runs::{Run, runs},
        traces::Traces,
        wanted::{Records, Wanted},
    },
};

/// Batches a partition may be ahead of its reader.
const BATCHES_AHEAD: usize = 2;

/// Columns of the scan, by position.
pub mod column {
    /// `_lf_batch`, Int64: number of the raw batch.
    pub const BATCH: usize = 0;
    /// `_lf_page`, Int32: page within the batch.
    pub const PAGE: usize = 1;
    /// `_lf_record`, Int32: record within the page; -1 for a page without readable records.
    pub const RECORD: usize = 2;
    /// `fetched_at`: when the page was complete.
    pub const FETCHED_AT: usize = 3;
    /// `url`, Utf8: the request, secrets masked.
    pub const URL: usize = 4;
    /// `status`, Int32: HTTP status.
    pub const STATUS: usize = 5;
    /// `object`, Utf8: the object that holds the page.
    pub const OBJECT: usize = 6;
    /// `class`, Utf8: why the page has no readable records, else null.
    pub const CLASS: usize = 7;
    /// `found`, Utf8: what was there instead.
    pub const FOUND: usize = 8;
    /// `record`, BinaryView: the record as it is judged, with the values of its slice that belong into it; or the whole
    /// body of a page without readable records.
    pub const BODY: usize = 9;
}

/// The schema of the scan; positions are in [`column`].
pub fn schema() -> SchemaRef {
    let moment = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("_lf_batch", DataType::Int64, false),
        Field::new("_lf_page", DataType::Int32, false),
        Field::new("_lf_record", DataType::Int32, false),
        Field::new("fetched_at", moment, true),
        Field::new("url", DataType::Utf8, true),
        Field::new("status", DataType::Int32, true),
        Field::new("object", DataType::Utf8, false),
        Field::new("class", DataType::Utf8, true),
        Field::new("found", DataType::Utf8, true),
        Field::new("record", DataType::BinaryView, true),
    ]))
}

/// The records of `entries`, read by `recipe`, as a table of at most `partitions` partitions, each a run of neighbouring objects.
///
/// # Errors
/// [`ErrorKind::Internal`] if DataFusion refuses the schema.
pub fn table(
    store: &Arc<dyn ObjectStore>,
    recipe: Recipe,
    entries: Vec<LogEntry>,
    partitions: usize,
) -> Result<StreamingTable> {
    chosen(store, recipe, entries, partitions, None, &Arc::default())
}

/// The records of `entries`, read by `recipe`, one object after the other.
pub fn partition(
    store: &Arc<dyn ObjectStore>,
    recipe: Recipe,
    entries: Vec<LogEntry>,
) -> impl PartitionStream + use<> {
    RawPartition {
        schema: schema(),
        store: Arc::clone(store),
        recipe: Arc::new(recipe),
        wanted: None,
        objects: groups(entries, 1, None).into_iter().flatten().collect(),
        watch: Arc::default(),
    }
}

/// What the pages of a scan were like.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// As answers of a server.
    pub responses: Responses,
    /// The traces they belong to.
    pub traces: Traces,
}

/// The same, as far as the scan has come.
pub type Watch = Arc<Mutex<Seen>>;

/// What was seen of the pages of a scan that has ended.
pub fn seen(watch: &Watch) -> Seen {
    watch.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// As [`table`], with only the `wanted` records; of a page that cannot be read there is one row all the same. What the pages
/// are like is noted in `watch`.
///
/// # Errors
/// As [`table`].
pub fn chosen(
    store: &Arc<dyn ObjectStore>,
    recipe: Recipe,
    entries: Vec<LogEntry>,
    partitions: usize,
    wanted: Option<Arc<Wanted>>,
    watch: &Watch,
) -> Result<StreamingTable> {
    let schema = schema();
    let recipe = Arc::new(recipe);
    let parts = groups(entries, partitions.max(1), wanted.as_deref())
        .into_iter()
        .map(|objects| {
            Arc::new(RawPartition {
                schema: Arc::clone(&schema),
                store: Arc::clone(store),
                recipe: Arc::clone(&recipe),
                wanted: wanted.clone(),
                objects,
                watch: Arc::clone(watch),
            }) as Arc<dyn PartitionStream>
        })
        .collect();
    StreamingTable::try_new(schema, parts)
        .map_err(|source| Error::new(ErrorKind::Internal, "plan raw scan").caused_by(source))
}

/// Cuts the objects of `entries`, those with something wanted, into runs of about equal bytes, in raw order.
fn groups(
    entries: Vec<LogEntry>,
    partitions: usize,
    wanted: Option<&Wanted>,
) -> Vec<Vec<(Arc<LogEntry>, usize)>> {
    let total: u64 = entries
        .iter()
        .flat_map(|entry| &entry.objects)
        .map(|object| object.bytes)
        .sum();
    let share = (total / partitions as u64).max(1);
    let mut groups = vec![Vec::new()];
    let mut filled = 0;
    for entry in entries.into_iter().map(Arc::new) {
        let mut first = 0;
        for (index, object) in entry.objects.iter().enumerate() {
            let pages = first..first + object.pages.len() as u32;
            first = pages.end;
            if wanted.is_some_and(|wanted| !wanted.any(entry.number.get(), pages)) {
                continue;
            }
            if filled >= share && groups.len() < partitions {
                groups.push(Vec::new());
                filled = 0;
            }
            filled += object.bytes;
            if let Some(group) = groups.last_mut() {
                group.push((Arc::clone(&entry), index));
            }
        }
    }
    groups
}

/// One run of objects: everything a worker needs to read them.
#[derive(Debug)]
struct RawPartition {
    schema: SchemaRef,
    store: Arc<dyn ObjectStore>,
    recipe: Arc<Recipe>,
    /// Which records are meant, if not all.
    wanted: Option<Arc<Wanted>>,
    objects: Vec<(Arc<LogEntry>, usize)>,
    watch: Watch,
}

impl PartitionStream for RawPartition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _ctx: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut builder = RecordBatchReceiverStream::builder(Arc::clone(&self.schema), BATCHES_AHEAD);
        let sender = builder.tx();
        let (store, recipe, objects) = (
            Arc::clone(&self.store),
            Arc::clone(&self.recipe),
            self.objects.clone(),
        );
        let (schema, wanted) = (Arc::clone(&self.schema), self.wanted.clone());
        let watch = Arc::clone(&self.watch);
        builder.spawn(async move {
            for (entry, index) in objects {
                let pages = read_object(store.as_ref(), &entry, index)
                    .await
                    .map_err(external)?;
                let path: Arc<str> = entry.objects[index].path.as_str().into();
                let (sender, recipe, schema) = (sender.clone(), Arc::clone(&recipe), Arc::clone(&schema));
                let wanted = wanted.clone();
                // Decompressing and scanning is work for a thread that may block.
                let watch = Arc::clone(&watch);
                let open = tokio::task::spawn_blocking(move || {
                    let wanted = wanted.as_deref();
                    let mut seen = Seen::default();
                    let sent = pages.into_iter().try_fold((), |(), page| {
                        count_page(&page, &mut seen);
                        let responses = &mut seen.responses;
                        send_page(&sender, &schema, &recipe, &path, wanted, page, responses)
                    });
                    let mut all = watch.lock().unwrap_or_else(PoisonError::into_inner);
                    all.responses.merge(seen.responses);
                    all.traces.merge(seen.traces);
                    sent
                });
                if open
                    .await
                    .map_err(|source| DataFusionError::External(Box::new(source)))?
                    .is_err()
                {
                    // The reader is gone; there is nobody to tell.
                    return Ok(());
                }
            }
            Ok(())
        });
        builder.build()
    }
}

/// Notes the status, the headers and the trace of a page.
fn count_page(page: &PageRead, seen: &mut Seen) {
    let PageRead::Page(page) = page else { return };
    if let Some(trace) = page.facts.as_ref().and_then(|facts| facts.trace_id.as_deref()) {
        seen.traces.add(trace, (page.batch.get(), page.page));
    }
    let headers = page.facts.iter().flat_map(|facts| &facts.headers);
    seen.responses.count(
        page.status,
        headers.map(|(name, value)| (name.as_str(), value.as_str())),
    );
}

/// The reader of a partition went away.
struct Closed;

fn send_page(
    sender: &Sender<datafusion::error::Result<RecordBatch>>,
    schema: &SchemaRef,
    recipe: &Recipe,
    object: &str,
    wanted: Option<&Wanted>,
    page: PageRead,
    responses: &mut Responses,
) -> Result<(), Closed> {
    let send = |batch: arrow::error::Result<RecordBatch>| {
        sender
            .blocking_send(batch.map_err(DataFusionError::from))
            .map_err(|_| Closed)
    };
    match page {
        PageRead::Corrupt(lost) => {
            let class = match lost.loss {
                Loss::Changed => ViolationClass::RawCorrupt.as_str(),
                Loss::Missing => ViolationClass::RawMissing.as_str(),
            };
            for page in lost.pages {
                if wanted.is_some_and(|wanted| wanted.of(lost.batch.get(), page).is_none()) {
                    continue;
                }
                let rows = Rows {
                    object,
                    batch: lost.batch.get(),
                    page,
                    facts: None,
                    status: None,
                };
                send(rows.defect(schema, class, &lost.reason, None))?;
            }
            Ok(())
        }
        PageRead::Page(page) => {
            let records = match wanted.map(|wanted| wanted.of(page.batch.get(), page.page)) {
                None => &Records::All,
                Some(Some(records)) => records,
                Some(None) => return Ok(()),
            };
            let rows = Rows {
                object,
                batch: page.batch.get(),
                page: page.page,
                facts: page.facts.as_ref(),
                status: Some(page.status),
            };
            let mut count = 0;
            let found = runs(recipe, &page, &mut |run| {
                let first = run.first;
                count += run.rows as u64;
                match rows.records(schema, run).and_then(|run| records.cut(first, run)) {
                    Ok(run) if run.num_rows() == 0 => Ok(()),
                    run => send(run),
                }
            });
            // Another page followed, so this one was full.
            let is_followed = |facts: &PageFacts| facts.token_returned.is_some();
            if page.facts.as_ref().is_some_and(is_followed) {
                responses.full_page(count);
            }
            match found {
                Ok(Ok(Found::Values(_))) => Ok(()),
                // Nothing is missing: what came in its place was landed too.
                Ok(Ok(Found::Missing)) | Err(_)
                    if page.facts.as_ref().is_some_and(|facts| facts.superseded) =>
                {
                    Ok(())
                }
                Ok(Ok(Found::Missing)) => {
                    let class = ViolationClass::RecordsPathMissing.as_str();
                    let found = format!("nothing at {}", recipe.records);
                    send(rows.defect(schema, class, &found, Some(&page)))
                }
                Ok(Err(closed)) => Err(closed),
                Err(defect) => {
                    let class = class_of(defect).as_str();
                    send(rows.defect(schema, class, &defect.to_string(), Some(&page)))
                }
            }
        }
    }
}

/// What a defect of a body is called in the quarantine.
pub fn class_of(defect: Defect) -> ViolationClass {
    match defect {
        Defect::TooDeep { .. } | Defect::Json(json::Defect::TooDeep { .. }) => ViolationClass::TooDeep,
        Defect::Excess(_) | Defect::RecordTooLarge { .. } => ViolationClass::TooLarge,
        // What is not what it should be cannot become JSON either.
        Defect::Json(_) | Defect::Xml { .. } | Defect::Container { .. } | Defect::Body => {
            ViolationClass::NotJson
        }
    }
}

/// What all rows of a page share.
struct Rows<'a> {
    object: &'a str,
    batch: i64,
    page: u32,
    facts: Option<&'a PageFacts>,
    status: Option<u16>,
}

impl Rows<'_> {
    fn records(&self, schema: &SchemaRef, run: Run) -> arrow::error::Result<RecordBatch> {
        let numbers = run.first..run.first + run.rows;
        let numbers = numbers.map(|record| i32::try_from(record).unwrap_or(i32::MAX));
        self.batch(schema, numbers.collect(), None, run.bodies)
    }

    fn defect(
        &self,
        schema: &SchemaRef,
        class: &str,
        found: &str,
        page: Option<&RawPage>,
    ) -> arrow::error::Result<RecordBatch> {
        let mut bodies = BinaryViewBuilder::with_capacity(1);
        bodies.append_option(page.map(|page| &page.body));
        self.batch(
            schema,
            Int32Array::from_value(-1, 1),
            Some((class, found)),
            Arc::new(bodies.finish()),
        )
    }

    fn batch(
        &self,
        schema: &SchemaRef,
        numbers: Int32Array,
        defect: Option<(&str, &str)>,
        bodies: ArrayRef,
    ) -> arrow::error::Result<RecordBatch> {
        let rows = numbers.len();
        let text = |value: Option<&str>| -> ArrayRef {
            Arc::new(StringArray::from_iter(std::iter::repeat_n(value, rows)))
        };
        let fetched_at = self.facts.map(|facts| facts.fetched_at.timestamp_micros());
        let moments = TimestampMicrosecondArray::from_iter(std::iter::repeat_n(fetched_at, rows));
        let status = Int32Array::from_iter(std::iter::repeat_n(self.status.map(i32::from), rows));
        RecordBatch::try_new(
            Arc::clone(schema),
            vec![
                Arc::new(Int64Array::from_value(self.batch, rows)),
                Arc::new(Int32Array::from_value(
                    i32::try_from(self.page).unwrap_or(i32::MAX),
                    rows,
                )),
                Arc::new(numbers),
                Arc::new(moments.with_timezone("UTC")),
                text(self.facts.map(|facts| facts.url.as_str())),
                Arc::new(status),
                text(Some(self.object)),
                text(defect.map(|(class, _)| class)),
                text(defect.map(|(_, found)| found)),
                bodies,
            ],
        )
    }
}

fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
