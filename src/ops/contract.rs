//! Contract files: read, or drafted from raw for a stream that has none yet; their versions, and what is proposed for them.

pub mod evolve;
pub mod propose;
pub mod registry;
pub mod rehearse;

use std::{
    fs::File,
    io::{Read as _, Write as _},
    ops::RangeInclusive,
    path::Path,
};

use arrow::{
    array::{Array as _, AsArray as _, BooleanArray, RecordBatch},
    compute::filter_record_batch,
};
use datafusion::{
    catalog::TableProvider as _, error::DataFusionError, execution::context::SessionContext,
    physical_plan::execute_stream,
};
use futures::TryStreamExt as _;
use tracing::{info, warn};

use crate::{
    clock::Timestamp,
    config::Stream,
    contract::{
        Contract,
        contracts::{Contracts, Older},
        evidence::{Guesses, Written, study},
        judge::{Judge, JudgeOptions},
        lifecycle::Lifecycle,
        odcs,
        service::ServiceLevels,
    },
    error::{Error, ErrorKind, Result},
    ops::Workspace,
    raw::{
        BatchNumber,
        expire::Expired,
        log::{RawLog, within},
    },
    transform::{
        judges::{Bench, Judges},
        quality::{Quality, UnfitRule},
        scan,
    },
    yaml::{Problem, parse::FILE_BYTES_MAX},
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
    match text_of(path)? {
        Some(text) => parse(&text, &path.display().to_string()).map(Some),
        None => Ok(None),
    }
}

/// The text of a file; `None` if there is none.
fn text_of(path: &Path) -> Result<Option<String>> {
    let wrong = || Error::new(ErrorKind::Config, "read contract").with("path", path.display());
    let bytes = match bytes_of(path) {
        Ok(bytes) => bytes,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(wrong().caused_by(source)),
    };
    if bytes.len() > FILE_BYTES_MAX {
        let problem = format!("the file has more than the {FILE_BYTES_MAX} bytes allowed");
        return Err(wrong().with("problem", problem));
    }
    let text = String::from_utf8(bytes);
    text.map(Some).map_err(|source| wrong().caused_by(source))
}

/// The bytes of a contract file; of one that is too large, one more than are allowed.
///
/// # Errors
/// Those of the file.
pub(super) fn bytes_of(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What the contract in a file promises about time; nothing if it cannot be read.
pub(super) fn service_levels(path: &Path) -> ServiceLevels {
    let text = text_of(path).ok().flatten();
    text.map_or_else(ServiceLevels::default, |text| ServiceLevels::read(&text))
}

/// What should be heard about how long the contracts of a stream are still good for, if anything, with their versions.
///
/// # Errors
/// [`ErrorKind::Config`] if a file cannot be read.
pub fn notices(contracts: &Contracts, now: Timestamp) -> Result<Vec<(String, String)>> {
    let older = contracts.older.iter().map(|older| (&older.file, &older.contract));
    let mut notices = Vec::new();
    for (file, contract) in std::iter::once((&contracts.file, &contracts.main)).chain(older) {
        let notice = text_of(file)?.and_then(|text| Lifecycle::read(&text).notice(now.date_naive()));
        notices.extend(notice.map(|notice| (contract.version.clone(), notice)));
    }
    Ok(notices)
}

fn parse(text: &str, file: &str) -> Result<Contract> {
    odcs::parse(text, file).map_err(|problems| wrong(Path::new(file), &problems))
}

/// Every problem of a file, one a line.
fn wrong(path: &Path, problems: &[Problem]) -> Error {
    let list: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Error::new(ErrorKind::Config, "read contract")
        .with("path", path.display())
        .caused_by(list.join("\n"))
}

/// The contracts of `stream`: `main`, and those that it names for records of other versions.
///
/// # Errors
/// [`ErrorKind::Config`] if one of these is not there or cannot be read, or if they do not go together.
pub fn contracts(stream: &Stream, main: Contract) -> Result<Contracts> {
    let listed = stream.versions.iter().flat_map(|versions| &versions.contracts);
    let mut older: Vec<Older> = Vec::new();
    for (value, file) in listed.filter(|(_, file)| *file != stream.contract) {
        if let Some(known) = older.iter_mut().find(|known| known.file == *file) {
            known.values.push(value.clone());
            continue;
        }
        let contract = read(file)?.ok_or_else(|| {
            Error::new(ErrorKind::Config, "read contract")
                .with("path", file.display())
                .with(
                    "problem",
                    format!("there is no such file, and it judges records of {value}"),
                )
        })?;
        older.push(Older {
            values: vec![value.clone()],
            contract,
            file: file.clone(),
        });
    }
    Contracts::new(main, stream.contract.clone(), older)
}

/// The contracts of `stream`; `None` if its own was not drafted yet.
///
/// # Errors
/// As [`contracts`].
pub fn read_all(stream: &Stream) -> Result<Option<Contracts>> {
    read(&stream.contract)?
        .map(|main| contracts(stream, main))
        .transpose()
}

/// Everything that judges records of `stream` by `contracts`, of which the main one is in its own file.
///
/// # Errors
/// [`ErrorKind::Config`] if they do not go together with the stream, such as a key that is no column of one of them, or
/// with every rule that cannot be asked and its place.
pub fn judges(stream: &Stream, contracts: &Contracts) -> Result<Judges> {
    let bench = |contract: &Contract, file: &Path| {
        let judge = judge(stream, contract).map_err(|error| error.with("path", file.display()))?;
        let quality = quality(contract, file, &judge)?;
        Ok::<_, Error>(Bench::new(contract.version.clone(), judge, quality))
    };
    let older = contracts.older.iter();
    let older = older.map(|older| bench(&older.contract, &older.file));
    Judges::new(
        bench(&contracts.main, &contracts.file)?,
        older.collect::<Result<_>>()?,
        contracts,
        stream.versions.as_ref(),
        stream.table.apply_as_deletes.as_deref(),
    )
}

/// The judge of `stream` by `contract`.
///
/// # Errors
/// [`ErrorKind::Config`] if the two do not go together, such as a key that is no column.
fn judge(stream: &Stream, contract: &Contract) -> Result<Judge> {
    let options = JudgeOptions {
        keys: stream.table.declared_keys().to_vec(),
        sequence_by: stream.table.sequence_by.clone(),
        on_unknown: stream.drift.on_unknown,
        on_mismatch: stream.drift.on_mismatch,
        record_bytes_max: RECORD_BYTES_MAX,
    };
    Judge::new(contract, options).map_err(|error| error.with("stream", &stream.name))
}

/// The rules in SQL of `contract`, which is in the file `path`, ready to be asked of what `judge` makes of records.
///
/// # Errors
/// [`ErrorKind::Config`] with every rule that cannot be asked and its place in the file.
fn quality(contract: &Contract, path: &Path, judge: &Judge) -> Result<Quality> {
    Quality::new(contract, &judge.schema()).map_err(|unfit| {
        let text = text_of(path).ok().flatten().unwrap_or_default();
        let problem = |UnfitRule { rule, unfit }: UnfitRule| {
            let place = odcs::rule_place(&text, &rule);
            Problem {
                file: path.display().to_string(),
                line: place.line,
                column: place.column,
                message: format!("rule {rule:?}: {}", unfit.problem),
                hint: unfit.hint,
            }
        };
        let problems: Vec<Problem> = unfit.into_iter().map(problem).collect();
        wrong(path, &problems)
    })
}

/// What is worth saying about a contract file but stops nothing; nothing if it cannot be read.
pub fn warnings(path: &Path) -> Vec<Problem> {
    let text = text_of(path).ok().flatten().unwrap_or_default();
    odcs::read(&text, &path.display().to_string()).map_or_else(|_| Vec::new(), |(_, warnings)| warnings)
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
    let sample = sample(workspace, stream, log, BatchNumber::FIRST..=head).await?;
    let records = records_of(&sample);
    let id = stream.name.to_string();
    let table = &stream.table;
    let studied = study(
        &id,
        table.declared_keys(),
        &table.flatten,
        records,
        Guesses::Suggested,
    );
    let Some(study) = studied else {
        return Ok(None);
    };
    let Written { contract, text } = study.file(&id);
    replace(&stream.contract, &text)?;
    info!(stream = %stream.name, path = %stream.contract.display(), columns = contract.columns.len(), "contract drafted");
    Ok(Some(contract))
}

/// Writes a contract file so that it stands as a whole or not at all.
fn replace(path: &Path, text: &str) -> Result<()> {
    let write_error = |source: std::io::Error| {
        Error::new(ErrorKind::Unavailable, "write contract")
            .with("path", path.display())
            .caused_by(source)
    };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(write_error)?;
    }
    // Under another name first: half a contract may still read as one.
    let staged = path.with_extension("yaml.new");
    let mut file = File::create(&staged).map_err(write_error)?;
    file.write_all(text.as_bytes()).map_err(write_error)?;
    file.sync_all().map_err(write_error)?;
    std::fs::rename(&staged, path).map_err(write_error)
}

/// Records of raw, from the first batch of `range` on, as batches of the scan. Pages without records are left out, and so
/// are batches that have expired and records that another contract judges.
///
/// # Errors
/// [`ErrorKind::Refused`] if all of them have.
async fn sample(
    workspace: &Workspace,
    stream: &Stream,
    log: &RawLog,
    range: RangeInclusive<BatchNumber>,
) -> Result<Vec<RecordBatch>> {
    let session = SessionContext::new();
    let expired = Expired::of(log).await?;
    let (first, gone) = (*range.start(), expired.count_in(&range));
    let is_gone = expired.clone();
    let left = log.entries_but(range, move |batch| is_gone.contains(batch));
    let entries = within(left, INFER_BYTES_MAX).await?;
    if gone > 0 {
        if entries.is_empty() {
            return Err(expired.error(log, first, "sample raw records"));
        }
        warn!(stream = %stream.name, batches = gone, "records whose raw has expired are not sampled");
    }
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
            sample.push(of_main(stream, batch)?);
        }
        if sample.iter().map(RecordBatch::num_rows).sum::<usize>() >= INFER_RECORDS_MAX {
            break;
        }
    }
    Ok(sample)
}

/// The records of `batch` that name no contract but the one of the stream: the others say nothing about it.
fn of_main(stream: &Stream, batch: RecordBatch) -> Result<RecordBatch> {
    let Some(versions) = &stream.versions else {
        return Ok(batch);
    };
    let bodies = batch.column(scan::column::BODY).as_binary_view();
    let is_main = |record| {
        versions
            .file_of(record)
            .is_none_or(|file| file == stream.contract)
    };
    let keep: BooleanArray = (0..batch.num_rows())
        .map(|row| Some(is_main(bodies.value(row))))
        .collect();
    filter_record_batch(&batch, &keep)
        .map_err(|source| Error::new(ErrorKind::Internal, "sample raw records").caused_by(source))
}

/// The bytes of each record.
fn records_of(sample: &[RecordBatch]) -> impl Iterator<Item = &[u8]> + Clone {
    sample.iter().flat_map(|batch| {
        let bodies = batch.column(scan::column::BODY).as_binary_view();
        (0..batch.num_rows()).map(move |row| bodies.value(row))
    })
}
