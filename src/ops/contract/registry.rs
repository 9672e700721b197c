//! The versions of a stream's contract, kept in the lake.

use std::{collections::BTreeMap, path::Path};

use arrow::{
    array::{Array as _, AsArray as _, RecordBatch},
    datatypes::Int64Type,
};
use chrono::{NaiveDate, TimeDelta};
use datafusion::dataframe::DataFrame;
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};

use super::propose::file;
use crate::{
    clock::Timestamp,
    config::{Stream, StreamName, parse_timestamp},
    contract::{
        Contract,
        compat::{Mode, conflicts},
        contracts::Contracts,
        diff::{What, diff},
        lifecycle::Lifecycle,
        odcs,
        revisions::{Revisions, to_json},
    },
    error::{Error, ErrorKind, Result},
    failpoint,
    ops::Workspace,
    query::sql_error,
    raw::layout::{self, SystemTable},
    report::{names, rows},
    table::{contracts::ContractRow, side::Side},
};

const VERSIONS: &str = include_str!("../../../sql/reports/contract_versions.sql");
const CHANGES: &str = include_str!("../../../sql/reports/contract_changes.sql");
const LIST: &str = include_str!("../../../sql/reports/contract_list.sql");
const TEXTS: &str = include_str!("../../../sql/reports/contract_texts.sql");

/// Times that others may be faster before registering is given up.
const ATTEMPTS_MAX: usize = 20;

/// Most incompatible differences that an error names.
const CONFLICTS_SHOWN_MAX: usize = 10;

/// What registering a contract came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registered {
    /// It is the last version already.
    Known,
    /// It is a new version; so many differences to those before are not compatible.
    New {
        /// Its version.
        version: String,
        /// Differences that the mode of compatibility does not allow.
        incompatible: usize,
    },
}

/// Keeps the contract files of `stream` in the lake: its own if it is not the last version kept, those of other versions of
/// its records if they were never kept. Returns what came of its own.
///
/// A version that another text had before is kept too, with a warning if the two differ in more than words; it is refused
/// if the contract has the custom property `compatibility`, unless that is `none`. A text that was kept before may come back
/// whatever came between: that is the way back from a version that was a mistake. Of several that register at the same time
/// each is compared with what the others kept before it.
///
/// A version must be compatible with those before it as its custom property `compatibility` says. Without that property
/// what is not backward compatible is a warning. Before the contract of a stream are those that were that; before another
/// one are those with its major number.
///
/// # Errors
/// [`ErrorKind::Config`] if a file cannot be read, [`ErrorKind::Contract`] with the differences if it is not compatible and
/// has to be, or its version is taken; then it is not kept. [`ErrorKind::Conflict`] if others were always faster.
/// [`ErrorKind::Unavailable`] if the store does not answer.
pub async fn register(workspace: &Workspace, stream: &Stream, contracts: &Contracts) -> Result<Registered> {
    let mut own = None;
    for _ in 0..ATTEMPTS_MAX + contracts.older.len() {
        // What is decided by what stands there is kept behind that and nothing else.
        let version = workspace.tables.side_version(&side()).await?;
        let all = kept(workspace, &stream.name).await?;
        let at = behind(&all, workspace.clock.now());
        let missing = match own {
            None => missing_own(contracts, &all)?,
            Some(_) => None,
        };
        if let Some(missing) = missing {
            own = keep(workspace, stream, missing, version, at).await?;
            continue;
        }
        let registered = own.get_or_insert(Registered::Known);
        let Some(missing) = missing_older(contracts, &all)? else {
            return Ok(registered.clone());
        };
        keep(workspace, stream, missing, version, at).await?;
    }
    Err(Error::new(ErrorKind::Conflict, "register contract")
        .with("stream", &stream.name)
        .with("attempts_max", ATTEMPTS_MAX)
        .with("hint", "others register contracts all the time; try again"))
}

fn side() -> Side {
    Side {
        path: layout::system(SystemTable::Contracts),
        shared: true,
    }
}

/// A contract that is not kept yet.
struct Missing<'a> {
    read: Read,
    /// The versions that it has to go with.
    before: Vec<&'a Kept>,
    /// The versions of records that it judges, if it is not the contract of the stream.
    record_versions: Option<String>,
}

/// The contract of the stream, if it is not the last that `all` has.
fn missing_own<'a>(contracts: &Contracts, all: &'a [Kept]) -> Result<Option<Missing<'a>>> {
    let before: Vec<&Kept> = all.iter().filter(|kept| kept.record_versions.is_none()).collect();
    let read = Read::of(&contracts.file)?;
    let is_last = before.last().is_some_and(|last| last.sha256 == read.sha256);
    Ok((!is_last).then_some(Missing {
        read,
        before,
        record_versions: None,
    }))
}

/// The first contract of other versions of its records that `all` does not have.
fn missing_older<'a>(contracts: &Contracts, all: &'a [Kept]) -> Result<Option<Missing<'a>>> {
    for older in &contracts.older {
        let read = Read::of(&older.file)?;
        if all.iter().any(|kept| kept.sha256 == read.sha256) {
            continue;
        }
        let major = |version: &str| version.split('.').next().map(str::to_owned);
        let same = |kept: &&Kept| major(&kept.version) == major(&read.contract.version);
        let before = all.iter().filter(same).collect();
        return Ok(Some(Missing {
            read,
            before,
            record_versions: Some(older.values.join(", ")),
        }));
    }
    Ok(None)
}

/// A contract file.
struct Read {
    file: String,
    text: String,
    contract: Contract,
    sha256: String,
}

impl Read {
    fn of(path: &Path) -> Result<Self> {
        let (text, contract) = file(path)?;
        let sha256 = Sha256::digest(&text);
        Ok(Self {
            file: path.display().to_string(),
            sha256: sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
            text,
            contract,
        })
    }
}

/// When one that is kept behind `all` is registered: `now`, but later than all of them. The clock of whoever kept the last
/// may be ahead of ours, and the order of versions is that of their times.
fn behind(all: &[Kept], now: Timestamp) -> Timestamp {
    let last = all.iter().map(|kept| kept.registered_at).max();
    last.map_or(now, |last| now.max(last + TimeDelta::microseconds(1)))
}

/// Keeps a contract behind `version` of the table of all, if it goes with those before it. None if somebody was faster.
async fn keep(
    workspace: &Workspace,
    stream: &Stream,
    missing: Missing<'_>,
    version: Option<u64>,
    registered_at: Timestamp,
) -> Result<Option<Registered>> {
    let Missing {
        read,
        before: kept,
        record_versions,
    } = missing;
    let mode = odcs::compatibility(&read.text).unwrap_or(Mode::BACKWARD);
    // A version kept by an older program may not be readable any more; then it cannot be compared with.
    let before: Vec<Contract> = kept
        .iter()
        .filter_map(|one| odcs::parse(&one.text, &read.file).ok())
        .collect();
    let before: Vec<&Contract> = before.iter().collect();
    let comes_back = kept.iter().any(|one| one.sha256 == read.sha256);
    let incompatible = if comes_back {
        0
    } else {
        check(stream, &read, mode, &before)?
    };
    let new = &read.contract;
    let changes = before.last().map_or_else(Vec::new, |last| diff(last, new));
    let row = ContractRow {
        stream: stream.name.clone(),
        version: new.version.clone(),
        status: new.status.clone(),
        sha256: read.sha256,
        text: read.text,
        registered_at,
        compatibility: mode.as_str(),
        changes: to_json(&changes),
        record_versions,
    };
    failpoint::point("contract::before_append");
    let tables = &workspace.tables;
    if !tables
        .append_side_behind(&side(), &row.to_batch()?, version)
        .await?
    {
        return Ok(None);
    }
    info!(stream = %stream.name, version = new.version, "contract registered");
    Ok(Some(Registered::New {
        version: new.version.clone(),
        incompatible,
    }))
}

/// Whether a contract goes with those `before` it: returns how many differences do not, where that is no reason to refuse it.
///
/// # Errors
/// [`ErrorKind::Contract`] with the differences.
fn check(stream: &Stream, read: &Read, mode: Mode, before: &[&Contract]) -> Result<usize> {
    let new = &read.contract;
    let is_asked = odcs::compatibility(&read.text).is_some();
    let refuse = |problem: &'static str, words: String, hint: &'static str| {
        Error::new(ErrorKind::Contract, "register contract")
            .with("stream", &stream.name)
            .with("path", &read.file)
            .with("compatibility", mode)
            .with(problem, words)
            .with("hint", hint)
    };
    if let Some(differences) = taken(before, new) {
        if is_asked && mode != Mode::NONE {
            let hint = "give the contract a version of its own: this one stands for another";
            let words = format!("of version {}, which is taken: {differences}", new.version);
            return Err(refuse("differences", words, hint));
        }
        warn!(stream = %stream.name, version = new.version, differences, "contract changed without a new version");
    }
    let found = conflicts(mode, before, new);
    let words: Vec<String> = found
        .iter()
        .take(CONFLICTS_SHOWN_MAX)
        .map(|conflict| format!("{} since {}", conflict.difference, conflict.version))
        .collect();
    let words = words.join("; ");
    if !found.is_empty() && is_asked {
        let hint = "change the contract, or its custom property compatibility";
        return Err(refuse("incompatible", words, hint));
    }
    if !found.is_empty() {
        warn!(stream = %stream.name, version = new.version, incompatible = words, "contract is not backward compatible");
    }
    Ok(found.len())
}

/// How `new` differs from what its version stood for last, but for words; none if it does not.
fn taken(before: &[&Contract], new: &Contract) -> Option<String> {
    let last = before.iter().rev().find(|kept| kept.version == new.version)?;
    let differences = diff(last, new);
    let words: Vec<String> = differences
        .iter()
        .filter(|one| !What::WORDS.contains(&one.what))
        .take(CONFLICTS_SHOWN_MAX)
        .map(ToString::to_string)
        .collect();
    (!words.is_empty()).then(|| words.join("; "))
}

/// The versions of the contract of `stream`, oldest first, as rows to print.
///
/// # Errors
/// Those of the query.
pub async fn versions(workspace: &Workspace, stream: &StreamName) -> Result<DataFrame> {
    let session = workspace.session()?;
    session.with_params(VERSIONS, params(stream)).await
}

/// A registered version of a contract of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Its semantic version.
    pub version: String,
    /// Its ODCS status.
    pub status: String,
    /// Where in its life it is today: `active`, `deprecated` or `sunset`.
    pub phase: &'static str,
    /// The day from which its time is over, if it says one.
    pub ends: Option<NaiveDate>,
    /// When it was registered.
    pub registered_at: Timestamp,
    /// The mode in which it was compared with the versions before it.
    pub compatibility: String,
    /// The differences to the version before it.
    pub changes: serde_json::Value,
    /// The SHA-256 of the file, lowercase hex.
    pub sha256: String,
    /// The versions of records that it judges; none if it is the contract of the stream.
    pub record_versions: Option<String>,
}

/// The versions of the contract of `stream`, oldest first. A text that came back stands there again.
///
/// # Errors
/// Those of the query.
pub async fn list(workspace: &Workspace, stream: &StreamName) -> Result<Vec<Version>> {
    let session = workspace.session()?;
    let batches = session.with_params(LIST, params(stream)).await?.collect().await;
    let batches = batches.map_err(|source| sql_error("list contract versions", source))?;
    let today = workspace.clock.now().date_naive();
    let version = |row: &serde_json::Map<String, serde_json::Value>| {
        let text = |name: &str| {
            let text = row.get(name).and_then(serde_json::Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let lifecycle = Lifecycle::read(&text("text"));
        let at = parse_timestamp(&text("registered_at"));
        Version {
            version: text("version"),
            status: text("status"),
            phase: lifecycle.phase(today),
            ends: lifecycle.ends(),
            registered_at: at.unwrap_or(Timestamp::UNIX_EPOCH),
            compatibility: text("compatibility"),
            changes: serde_json::from_str(&text("changes")).unwrap_or_default(),
            sha256: text("sha256"),
            record_versions: Some(text("record_versions")).filter(|versions| !versions.is_empty()),
        }
    };
    Ok(rows::objects(&batches)?.iter().map(version).collect())
}

/// What the registered versions of the own contracts of `streams` changed, by the name of the stream.
///
/// # Errors
/// Those of the query.
pub async fn revisions_of(
    workspace: &Workspace,
    streams: &[StreamName],
) -> Result<BTreeMap<String, Revisions>> {
    let session = workspace.session()?;
    let params = vec![("streams", names(streams))];
    let batches = session.with_params(CHANGES, params).await?.collect().await;
    let batches = batches.map_err(|source| sql_error("read contract versions", source))?;
    let mut all: BTreeMap<String, Revisions> = BTreeMap::new();
    for batch in &batches {
        let [stream, version, changes] = [0, 1, 2].map(|at| batch.column(at).as_string::<i32>());
        for row in 0..batch.num_rows() {
            let revisions = all.entry(stream.value(row).to_owned()).or_default();
            revisions.push(version.value(row).to_owned(), changes.value(row));
        }
    }
    Ok(all)
}

/// The versions of the contract of `stream` with what each changed; last `current`, the contract in its file, whether it is
/// registered already or not.
pub(super) async fn revisions(
    workspace: &Workspace,
    stream: &StreamName,
    current: &Contract,
) -> Result<Revisions> {
    let mut kept = kept(workspace, stream).await?;
    kept.retain(|version| version.record_versions.is_none());
    let mut revisions = Revisions::default();
    for version in &kept {
        revisions.push(version.version.clone(), &version.changes);
    }
    let last = kept.last().and_then(|last| odcs::parse(&last.text, "").ok());
    let differences = last.map_or_else(Vec::new, |last| diff(&last, current));
    if kept.last().is_none_or(|last| last.version != current.version) || !differences.is_empty() {
        revisions.push(current.version.clone(), &to_json(&differences));
    }
    Ok(revisions)
}

/// The text of `version` of the contract of `stream` as it was kept last; `None` if there was no such version.
///
/// # Errors
/// Those of the query.
pub async fn text_kept(workspace: &Workspace, stream: &StreamName, version: &str) -> Result<Option<String>> {
    let kept = kept(workspace, stream).await?;
    let mut of_version = kept.into_iter().rev().filter(|kept| kept.version == version);
    Ok(of_version.next().map(|kept| kept.text))
}

struct Kept {
    version: String,
    sha256: String,
    text: String,
    changes: String,
    /// The versions of records that it judged, if it was not the contract of the stream.
    record_versions: Option<String>,
    registered_at: Timestamp,
}

/// All that were registered, oldest first.
async fn kept(workspace: &Workspace, stream: &StreamName) -> Result<Vec<Kept>> {
    let session = workspace.session()?;
    let batches = session.with_params(TEXTS, params(stream)).await?.collect().await;
    let batches = batches.map_err(|source| sql_error("read contract versions", source))?;
    let of_batch = |batch: &RecordBatch| -> Vec<Kept> {
        let column = |at: usize| batch.column(at).as_string::<i32>();
        let [version, sha256, text, changes, record_versions] = [0, 1, 2, 3, 4].map(column);
        let registered_at = batch.column(5).as_primitive::<Int64Type>();
        (0..batch.num_rows())
            .filter(|&row| !text.is_null(row))
            .map(|row| Kept {
                version: version.value(row).to_owned(),
                sha256: sha256.value(row).to_owned(),
                text: text.value(row).to_owned(),
                changes: changes.value(row).to_owned(),
                record_versions: record_versions
                    .is_valid(row)
                    .then(|| record_versions.value(row).to_owned()),
                registered_at: Timestamp::from_timestamp_micros(registered_at.value(row)).unwrap_or_default(),
            })
            .collect()
    };
    let mut all: Vec<Kept> = batches.iter().flat_map(of_batch).collect();
    all.sort_by(|one, other| (one.registered_at, &one.version).cmp(&(other.registered_at, &other.version)));
    Ok(all)
}

fn params(stream: &StreamName) -> Vec<(&'static str, datafusion::scalar::ScalarValue)> {
    vec![
        ("source", stream.source.as_str().into()),
        ("stream", stream.stream.as_str().into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_last_is_the_last_whatever_the_clocks_say() {
        let at = |micros| Timestamp::from_timestamp_micros(micros).unwrap();
        let kept = |micros| Kept {
            version: "1.0.0".to_owned(),
            sha256: String::new(),
            text: String::new(),
            changes: String::new(),
            record_versions: None,
            registered_at: at(micros),
        };
        assert_eq!(behind(&[], at(5)), at(5));
        assert_eq!(behind(&[kept(3), kept(4)], at(5)), at(5));
        assert_eq!(behind(&[kept(3), kept(9)], at(5)), at(10));
        assert_eq!(behind(&[kept(5)], at(5)), at(6));
    }
}
