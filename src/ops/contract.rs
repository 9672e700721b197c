//! Contract files: read, or drafted from raw for a stream that has none yet.

use std::{fs::File, io::Write as _, path::Path};

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use datafusion::{
    catalog::TableProvider as _, error::DataFusionError, execution::context::SessionContext,
    physical_plan::execute_stream,
};
use futures::TryStreamExt as _;
use tracing::info;

use crate::{
    config::Stream,
    contract::{
        Contract, infer,
        judge::{Judge, JudgeOptions},
        odcs,
    },
    error::{Error, ErrorKind, Result},
    ops::Workspace,
    raw::{BatchNumber, log::RawLog},
    transform::scan,
};

/// Largest record judged, in bytes; a larger one is quarantined as `too_large`.
const RECORD_BYTES_MAX: usize = 16 << 20;

/// Records looked at when a contract is inferred.
const INFER_RECORDS_MAX: usize = 10_000;

/// Raw bodies looked at when a contract is inferred, in bytes.
const INFER_BYTES_MAX: u64 = 64 << 20;

/// Reads a contract file; `None` if there is none.
///
/// # Errors
/// [`ErrorKind::Config`] with every problem of the file, one a line.
pub fn read(path: &Path) -> Result<Option<Contract>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(Error::new(ErrorKind::Config, "read contract")
                .with("path", path.display())
                .caused_by(source));
        }
    };
    odcs::parse(&text, &path.display().to_string())
        .map(Some)
        .map_err(|problems| {
            let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Error::new(ErrorKind::Config, "read contract")
                .with("path", path.display())
                .caused_by(list.join("\n"))
        })
}

/// The judge of `stream` by `contract`.
///
/// # Errors
/// [`ErrorKind::Config`] if the two do not go together, such as a key that is no column.
pub fn judge(stream: &Stream, contract: &Contract) -> Result<Judge> {
    let options = JudgeOptions {
        keys: stream.table.keys.clone(),
        sequence_by: stream.table.sequence_by.clone(),
        on_unknown: stream.drift.on_unknown,
        on_mismatch: stream.drift.on_mismatch,
        record_bytes_max: RECORD_BYTES_MAX,
    };
    Judge::new(contract, options).map_err(|error| error.with("stream", &stream.name))
}

/// Infers a contract from the first records of raw and writes it as a draft beside the others; `None` without records.
///
/// # Errors
/// [`ErrorKind::Unavailable`] if raw cannot be read or the file not be written.
pub async fn draft(
    workspace: &Workspace,
    stream: &Stream,
    log: &RawLog,
    head: BatchNumber,
) -> Result<Option<Contract>> {
    let session = SessionContext::new();
    let entries = log
        .entries_within(BatchNumber::FIRST..=head, INFER_BYTES_MAX)
        .await?;
    let raw = scan::table(&workspace.store, workspace.recipe(stream)?, entries, 1)?;
    let plan_error =
        |source: DataFusionError| Error::new(ErrorKind::Internal, "sample raw records").caused_by(source);
    let plan = raw
        .scan(&session.state(), None, &[], Some(INFER_RECORDS_MAX))
        .await
        .map_err(plan_error)?;
    let mut batches = execute_stream(plan, session.task_ctx()).map_err(plan_error)?;
    let mut sample = Vec::new();
    while let Some(batch) = batches.try_next().await.map_err(plan_error)? {
        if batch.column(scan::column::CLASS).null_count() == batch.num_rows() {
            sample.push(batch);
        }
        if sample.iter().map(RecordBatch::num_rows).sum::<usize>() >= INFER_RECORDS_MAX {
            break;
        }
    }
    let records = sample.iter().flat_map(|batch| {
        let bodies = batch.column(scan::column::BODY).as_binary_view();
        (0..batch.num_rows()).map(move |row| bodies.value(row))
    });
    let id = stream.name.to_string();
    let Some(contract) = infer::infer(&id, &stream.table.keys, records) else {
        return Ok(None);
    };
    let write_error = |source: std::io::Error| {
        Error::new(ErrorKind::Unavailable, "write draft contract")
            .with("path", stream.contract.display())
            .caused_by(source)
    };
    if let Some(dir) = stream.contract.parent() {
        std::fs::create_dir_all(dir).map_err(write_error)?;
    }
    // Under another name first: half a contract may still read as one.
    let staged = stream.contract.with_extension("yaml.new");
    let mut file = File::create(&staged).map_err(write_error)?;
    file.write_all(odcs::write::write(&contract, &id).as_bytes())
        .map_err(write_error)?;
    file.sync_all().map_err(write_error)?;
    std::fs::rename(&staged, &stream.contract).map_err(write_error)?;
    info!(stream = %stream.name, path = %stream.contract.display(), columns = contract.columns.len(), "contract drafted");
    Ok(Some(contract))
}
