//! `landfall contract`: what can be said about contract files, and proposed for them out of raw and drift.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _},
    path::Path,
};

use arrow::{
    array::{AsArray as _, RecordBatch},
    datatypes::Int64Type,
};

use super::{INFER_BYTES_MAX, INFER_RECORDS_MAX, parse, records_of, registry::revisions, sample, text_of};
use crate::{
    config::{Stream, StreamName, flatten::Flatten},
    contract::{
        Contract,
        compat::{Bump, Conflict, Mode, conflicts},
        diff::{Difference, diff},
        drift::{Change, ChangeKind, Effect},
        evidence::{Guesses, study},
        export::{arrow_schema, delta_schema, json_schema},
        infer,
        patch::{Extent, Request, patch},
    },
    error::{Error, ErrorKind, Result},
    ops::Workspace,
    query::sql_error,
    raw::{BatchNumber, log::RawLog},
    report::grid::Grid,
};

const DRIFT: &str = include_str!("../../../sql/reports/contract_drift.sql");

/// Newest raw batches whose records tell the types of new columns.
const SAMPLE_BATCHES: i64 = 64;

/// What becomes of guesses beyond the type in a drafted contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draft {
    /// They stand beside the columns.
    Suggesting,
    /// They are rules.
    Strict,
}

/// What a contract is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Export {
    /// JSON Schema 2020-12 of one record.
    JsonSchema,
    /// The Arrow schema of its columns, as JSON.
    Arrow,
    /// The Delta schema of its columns, as JSON.
    Delta,
}

/// How far a patch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nothing that a column held or a rule refused is given up.
    Lossless,
    /// Whatever makes the drift disappear.
    Everything,
}

/// How two contracts differ.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// One row for each difference.
    pub differences: Grid,
    /// What the second version should be called, seen from the first.
    pub version: String,
    /// Differences that the mode asked for does not allow, in words.
    pub incompatible: Vec<String>,
}

/// A new version of a contract file.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The new file.
    pub text: String,
    /// The difference to the file as it is; empty if there is none.
    pub unified: String,
    /// Its version.
    pub version: String,
    /// Drift that is left to people, in words.
    pub left: Vec<String>,
}

impl Proposal {
    /// Writes the new file in place of the old one.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be written.
    pub fn write(&self, workspace: &Workspace, stream: &StreamName) -> Result<()> {
        let (_, stream) = workspace.project.stream(stream)?;
        super::replace(&stream.contract, &self.text)
    }
}

/// Drafts a contract from the first records of raw, as the text of a file; `None` without records.
///
/// # Errors
/// [`ErrorKind::Config`] if there is no such stream, [`ErrorKind::Unavailable`] if raw cannot be read.
pub async fn draft_text(workspace: &Workspace, name: &StreamName, draft: Draft) -> Result<Option<String>> {
    let (_, stream) = workspace.project.stream(name)?;
    let log = raw_log(workspace, name);
    let Some(head) = log.head().await? else {
        return Ok(None);
    };
    let sample = sample(workspace, stream, &log, BatchNumber::FIRST..=head.number).await?;
    Ok(drafted(
        &name.to_string(),
        stream.table.declared_keys(),
        &stream.table.flatten,
        records_of(&sample),
        draft,
    ))
}

/// A contract drafted from a file with one JSON object a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfLines {
    /// The contract, as the text of a file; `None` without records.
    pub text: Option<String>,
    /// Records looked at.
    pub records: usize,
    /// Whether these are all of the file.
    pub is_whole: bool,
}

/// Drafts a contract from the first records of a file with one JSON object a line: as many as of raw, records and bytes.
///
/// # Errors
/// [`ErrorKind::Config`] if the file cannot be read.
pub fn draft_of_lines(path: &Path, draft: Draft) -> Result<OfLines> {
    let (lines, is_whole) = first_lines(path).map_err(|source| {
        Error::new(ErrorKind::Config, "read records")
            .with("path", path.display())
            .caused_by(source)
    })?;
    let id = path
        .file_stem()
        .map_or_else(|| "records".into(), |stem| stem.to_string_lossy());
    let records = lines.iter().map(Vec::as_slice);
    Ok(OfLines {
        text: drafted(&id, &[], &Flatten::None, records, draft),
        records: lines.len(),
        is_whole,
    })
}

/// The first lines of a file that are not empty, and whether there are no others.
fn first_lines(path: &Path) -> io::Result<(Vec<Vec<u8>>, bool)> {
    let mut rest = BufReader::new(File::open(path)?).take(INFER_BYTES_MAX);
    let mut lines = Vec::new();
    while lines.len() < INFER_RECORDS_MAX {
        let mut line = Vec::new();
        if rest.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        // What was cut off at the limit is no record.
        if rest.limit() == 0 && line.last() != Some(&b'\n') && !rest.get_mut().fill_buf()?.is_empty() {
            break;
        }
        if !line.trim_ascii().is_empty() {
            lines.push(line);
        }
    }
    let is_whole = rest.into_inner().fill_buf()?.is_empty();
    Ok((lines, is_whole))
}

fn drafted<'a>(
    id: &str,
    keys: &[String],
    flatten: &Flatten,
    records: impl Iterator<Item = &'a [u8]> + Clone,
    draft: Draft,
) -> Option<String> {
    let guesses = match draft {
        Draft::Suggesting => Guesses::Suggested,
        Draft::Strict => Guesses::Enforced,
    };
    Some(study(id, keys, flatten, records, guesses)?.file(id).text)
}

/// A contract file in the words of others, as JSON. What `stream` calls its keys and orders versions by has to be there,
/// whatever the file says.
///
/// # Errors
/// [`ErrorKind::Config`] with every problem of the file.
pub fn export(path: &Path, stream: Option<&Stream>, format: Export) -> Result<String> {
    let (_, mut contract) = file(path)?;
    for column in &mut contract.columns {
        column.primary_key |=
            stream.is_some_and(|stream| stream.table.declared_keys().contains(&column.name));
        column.required |= stream.is_some_and(|stream| stream.table.sequence_by.contains(&column.name));
    }
    let schema = match format {
        Export::JsonSchema => json_schema(&contract),
        Export::Arrow => arrow_schema(&contract),
        Export::Delta => delta_schema(&contract),
    };
    Ok(format!("{schema:#}\n"))
}

/// Compares two contract files. `mode` is a mode of compatibility, such as `backward`.
///
/// # Errors
/// [`ErrorKind::Config`] with every problem of a file, or for another mode.
pub fn compare(old: &Path, new: &Path, mode: &str) -> Result<Comparison> {
    let mode: Mode = mode.parse().map_err(|problem: String| {
        Error::new(ErrorKind::Config, "read mode of compatibility").with("problem", problem)
    })?;
    let ((_, old), (_, new)) = (file(old)?, file(new)?);
    let found = diff(&old, &new);
    let words = |conflict: &Conflict| conflict.difference.to_string();
    Ok(Comparison {
        differences: grid(&found),
        version: Bump::of(&found).after(&old.version),
        incompatible: conflicts(mode, &[&old], &new).iter().map(words).collect(),
    })
}

fn grid(differences: &[Difference]) -> Grid {
    let mut grid = Grid::new(&["change", "column", "before", "after", "compatible", "except"]);
    for one in differences {
        grid.rows.push(vec![
            one.what.as_str().into(),
            one.path.as_str().into(),
            one.before.as_str().into(),
            one.after.as_str().into(),
            one.compatible.as_str().into(),
            one.unless.into(),
        ]);
    }
    grid
}

/// Proposes a new version of the contract of a stream, in which the drift that no version has spoken to since is none any
/// more.
///
/// # Errors
/// [`ErrorKind::Config`] if there is no such stream or contract, [`ErrorKind::Unavailable`] if the lake cannot be read.
pub async fn propose(workspace: &Workspace, name: &StreamName, reach: Reach) -> Result<Proposal> {
    let (_, stream) = workspace.project.stream(name)?;
    let (text, contract) = file(&stream.contract)?;
    let changes = changes(workspace, name, &contract).await?;
    let sample = newest(workspace, stream).await?;
    let sampled = infer::draft(&name.to_string(), &[], &Flatten::None, records_of(&sample));
    let keys: Vec<String> = stream
        .table
        .keys
        .iter()
        .chain(&stream.table.sequence_by)
        .cloned()
        .collect();
    let label = stream
        .contract
        .strip_prefix(&workspace.project.dir)
        .unwrap_or(&stream.contract)
        .display()
        .to_string();
    let request = Request {
        text: &text,
        file: &label,
        changes: &changes,
        keys: &keys,
        sample: sampled.as_ref().map(|(_, observed)| observed),
        extent: match reach {
            Reach::Lossless => Extent::Lossless,
            Reach::Everything => Extent::Everything,
        },
        flatten: &stream.table.flatten,
    };
    let patch = patch(request).map_err(|problems| super::wrong(&stream.contract, &problems))?;
    Ok(Proposal {
        left: patch
            .left
            .iter()
            .map(|left| format!("{} {}: {}", left.kind, left.path, left.why))
            .collect(),
        version: patch.contract.version,
        unified: patch.unified,
        text: patch.text,
    })
}

pub(super) fn file(path: &Path) -> Result<(String, Contract)> {
    let text = text_of(path)?.ok_or_else(|| {
        Error::new(ErrorKind::Config, "read contract")
            .with("path", path.display())
            .with("problem", "there is no such file")
    })?;
    let contract = parse(&text, &path.display().to_string())?;
    Ok((text, contract))
}

fn raw_log(workspace: &Workspace, stream: &StreamName) -> RawLog {
    RawLog {
        store: std::sync::Arc::clone(&workspace.store),
        stream: stream.clone(),
    }
}

/// Records of the newest raw batches.
async fn newest(workspace: &Workspace, stream: &Stream) -> Result<Vec<RecordBatch>> {
    let log = raw_log(workspace, &stream.name);
    let Some(head) = log.head().await? else {
        return Ok(Vec::new());
    };
    let first = BatchNumber::new((head.number.get() - SAMPLE_BATCHES + 1).max(0))?;
    match sample(workspace, stream, &log, first..=head.number).await {
        // All of it has expired. A patch can do without.
        Err(error) if error.kind() == ErrorKind::Refused => Ok(Vec::new()),
        sampled => sampled,
    }
}

/// The drift at paths of which `contract` says what it said when that was seen. What several loads saw of one kind at one
/// path is one change; what no contract speaks of counts only if it was seen under this version.
async fn changes(workspace: &Workspace, stream: &StreamName, contract: &Contract) -> Result<Vec<Change>> {
    let revisions = revisions(workspace, stream, contract).await?;
    let params = vec![
        ("source", stream.source.as_str().into()),
        ("stream", stream.stream.as_str().into()),
    ];
    let batches = workspace
        .session()?
        .with_params(DRIFT, params)
        .await?
        .collect()
        .await;
    let batches = batches.map_err(|source| sql_error("read drift", source))?;
    let mut changes: BTreeMap<(ChangeKind, String), Change> = BTreeMap::new();
    for batch in &batches {
        let text = |column: usize, row: usize| batch.column(column).as_string::<i32>().value(row).to_owned();
        let number = |column: usize, row: usize| {
            let numbers = batch.column(column).as_primitive::<Int64Type>();
            u64::try_from(numbers.value(row)).unwrap_or(0)
        };
        for row in 0..batch.num_rows() {
            let name = text(0, row);
            let Some(kind) = ChangeKind::ALL.into_iter().find(|kind| kind.as_str() == name) else {
                continue;
            };
            let (path, seen_under) = (text(1, row), text(6, row));
            if revisions.changed(&path, &seen_under, &contract.version)
                || (!kind.is_for_contract() && seen_under != contract.version)
            {
                continue;
            }
            let change = Change {
                kind,
                path,
                expected: text(2, row),
                found: text(3, row),
                count: number(4, row),
                records: number(5, row),
                first_record: None,
                effect: Effect::Accepted,
                samples: Vec::new(),
                nature: Vec::new(),
            };
            match changes.get_mut(&(kind, change.path.clone())) {
                None => {
                    changes.insert((kind, change.path.clone()), change);
                }
                Some(known) => {
                    known.found = format!("{}, {}", known.found, change.found);
                    known.count += change.count;
                    known.records += change.records;
                }
            }
        }
    }
    Ok(changes.into_values().collect())
}
