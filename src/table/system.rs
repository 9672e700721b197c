//! Rows of the tables that all streams share: load history and drift.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};

use serde_json::{Value, json};

use crate::{
    clock::Timestamp,
    config::StreamName,
    contract::drift::Change,
    error::{Error, ErrorKind, Result},
};

/// One load, as it stands in `landfall.loads`. `read = merged + superseded + quarantined`.
///
/// A release stands there too, as what it changes of these sums: with its records fewer quarantined, and none more read.
#[derive(Clone, Debug)]
pub struct LoadRow {
    /// The stream.
    pub stream: StreamName,
    /// The load, a UUIDv7.
    pub load_id: String,
    /// First raw batch of the load.
    pub batch_from: i64,
    /// Last raw batch of the load.
    pub batch_to: i64,
    /// When it began.
    pub started_at: Timestamp,
    /// When its rows were ready to be committed.
    pub finished_at: Timestamp,
    /// Version of the contract it judged by.
    pub contract_version: String,
    /// Records read.
    pub read: u64,
    /// Records that are in the table.
    pub merged: u64,
    /// Records that lost against a newer version.
    pub superseded: u64,
    /// Records set aside.
    pub quarantined: u64,
    /// Records and pages that a release took out of the quarantine; 0 for a load.
    pub released: u64,
    /// Records that are deletions, superseded ones included.
    pub deleted: u64,
    /// Records with values kept in `_rescued`, superseded ones included.
    pub rescued: u64,
    /// Table rows that a record replaced.
    pub replaced: u64,
    /// Data files rewritten.
    pub files_rewritten: u64,
    /// Rows deleted because a complete pass did not bring them.
    pub absent: u64,
    /// Rows that a complete pass did not bring and that stay, because they are more than may go at once.
    pub absent_held: u64,
}

impl LoadRow {
    /// The batch number of a release: it loads no batch, and its row is void with no load.
    pub const NO_BATCH: i64 = -1;

    /// The row as an Arrow batch.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if Arrow refuses it.
    pub fn to_batch(&self) -> Result<RecordBatch> {
        let whole = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let count = |name: &'static str, value: u64| (name, number(whole(value)));
        let net = |name: &'static str, value: u64| (name, number(whole(value) - whole(self.released)));
        build(vec![
            ("source", text(self.stream.source.as_str())),
            ("stream", text(self.stream.stream.as_str())),
            ("load_id", text(&self.load_id)),
            ("batch_from", number(self.batch_from)),
            ("batch_to", number(self.batch_to)),
            ("started_at", moments([self.started_at])),
            ("finished_at", moments([self.finished_at])),
            ("contract_version", text(&self.contract_version)),
            net("records_read", self.read),
            count("merged", self.merged),
            count("superseded", self.superseded),
            net("quarantined", self.quarantined),
            count("deleted", self.deleted),
            count("rescued", self.rescued),
            count("replaced", self.replaced),
            count("files_rewritten", self.files_rewritten),
            count("absent", self.absent),
            count("absent_held", self.absent_held),
            count("released", self.released),
        ])
    }
}

/// The changes a load saw, as rows of `landfall.drift`.
///
/// # Errors
/// [`ErrorKind::Internal`] if Arrow refuses them.
pub fn drift_rows(load: &LoadRow, changes: &[Change]) -> Result<RecordBatch> {
    let texts = |value: &dyn Fn(&Change) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(changes.iter().map(value)))
    };
    let numbers = |value: &dyn Fn(&Change) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(changes.iter().map(value)))
    };
    let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    build(vec![
        ("source", texts(&|_| load.stream.source.to_string())),
        ("stream", texts(&|_| load.stream.stream.to_string())),
        ("load_id", texts(&|_| load.load_id.clone())),
        ("batch_from", numbers(&|_| load.batch_from)),
        ("batch_to", numbers(&|_| load.batch_to)),
        ("observed_at", moments(changes.iter().map(|_| load.started_at))),
        ("contract_version", texts(&|_| load.contract_version.clone())),
        ("kind", texts(&|change| change.kind.as_str().to_owned())),
        ("path", texts(&|change| change.path.clone())),
        ("expected", texts(&|change| change.expected.clone())),
        ("found", texts(&|change| change.found.clone())),
        ("effect", texts(&|change| change.effect.as_str().to_owned())),
        ("count", numbers(&|change| count(change.count))),
        ("records", numbers(&|change| count(change.records))),
        ("severity", texts(&|change| change.severity().as_str().to_owned())),
        (
            "nature",
            texts(&|change| Value::from(change.nature.clone()).to_string()),
        ),
        ("samples", texts(&samples)),
    ])
}

/// The samples of a change as a JSON list of `{"at": "batch/page/record", "value": …}`, the value as JSON text.
fn samples(change: &Change) -> String {
    let samples = change
        .samples
        .iter()
        .map(|sample| json!({"at": sample.at.map(|at| at.to_string()), "value": sample.value}));
    Value::Array(samples.collect()).to_string()
}

/// The columns of `landfall.loads`.
///
/// # Errors
/// [`ErrorKind::Internal`] if Arrow refuses them.
pub fn loads_schema() -> Result<SchemaRef> {
    Ok(blank()?.to_batch()?.schema())
}

/// The columns of `landfall.drift`.
///
/// # Errors
/// [`ErrorKind::Internal`] if Arrow refuses them.
pub fn drift_schema() -> Result<SchemaRef> {
    Ok(drift_rows(&blank()?, &[])?.schema())
}

/// A load that never was: the rows above know their columns, so nobody else has to.
pub(super) fn blank() -> Result<LoadRow> {
    Ok(LoadRow {
        stream: StreamName::parse("none.none")?,
        load_id: String::new(),
        batch_from: 0,
        batch_to: 0,
        started_at: Timestamp::UNIX_EPOCH,
        finished_at: Timestamp::UNIX_EPOCH,
        contract_version: String::new(),
        read: 0,
        merged: 0,
        superseded: 0,
        quarantined: 0,
        released: 0,
        deleted: 0,
        rescued: 0,
        replaced: 0,
        files_rewritten: 0,
        absent: 0,
        absent_held: 0,
    })
}

pub(super) fn text(value: &str) -> ArrayRef {
    Arc::new(StringArray::from_iter_values([value]))
}

fn number(value: i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values([value]))
}

pub(super) fn moments(values: impl IntoIterator<Item = Timestamp>) -> ArrayRef {
    let micros = values.into_iter().map(|moment| moment.timestamp_micros());
    Arc::new(TimestampMicrosecondArray::from_iter_values(micros).with_timezone("UTC"))
}

pub(super) fn build(columns: Vec<(&'static str, ArrayRef)>) -> Result<RecordBatch> {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array)| {
            let kind = match array.data_type() {
                DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
                other => other.clone(),
            };
            Field::new(*name, kind, true)
        })
        .collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
        .map_err(|source| Error::new(ErrorKind::Internal, "build system rows").caused_by(source))
}
