//! What the data did that the contracts did not say, and what somebody said to it.
//!
//! ```text
//! landfall.drift, .loads, .acknowledged ─ sql/reports/drift*.sql ─ gather ─► StreamDrift ─┬─ text (people)
//!                                                                                         ├─ grid (json, csv)
//!                                                                                         └─ page (one HTML file)
//! ```
//!
//! One [`Finding`] is one alert, however often it comes and goes. It is
//!
//! - **acknowledged** if somebody said so and nothing else has been seen of it since: another kind of value, another new
//!   value of a list or another effect on rows opens it again;
//! - **resolved** if it is gone: [`QUIET_DAYS`] days without it, or a load without it by a newer contract that says
//!   something else about it;
//! - **open** otherwise.

pub mod page;
pub mod text;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use datafusion::scalar::ScalarValue;
use serde_json::{Map, Value};

use crate::{
    clock::Timestamp,
    config::StreamName,
    error::Result,
    query::{Session, sql_error},
    report::{names, rows},
};

const CHANGES: &str = include_str!("../../sql/reports/drift.sql");
const ACKNOWLEDGED: &str = include_str!("../../sql/reports/drift_acknowledged.sql");
const LOADS: &str = include_str!("../../sql/reports/drift_loads.sql");
const BY_LOAD: &str = include_str!("../../sql/reports/drift_by_load.sql");

/// Days without a change after which it is resolved.
pub const QUIET_DAYS: i64 = 7;

/// Loads shown of each stream, the newest.
pub const LOADS_MAX: u32 = 60;

/// Values shown of each change.
const SAMPLES_MAX: usize = 5;

/// The effect of values that were taken as the declared type, exactly.
const COERCED: &str = "coerced";

/// What is known about the drift of one stream.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamDrift {
    /// The stream, `source.stream`.
    pub stream: String,
    /// Its newest loads, the oldest first; at most [`LOADS_MAX`].
    pub loads: Vec<Load>,
    /// Every change, the most severe first.
    pub findings: Vec<Finding>,
}

/// One load.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// Its id.
    pub load_id: String,
    /// When it began.
    pub started_at: Timestamp,
    /// The contract it judged by.
    pub contract_version: String,
    /// Records read.
    pub read: u64,
    /// Records that went into the table.
    pub merged: u64,
    /// Records that lost against a newer version.
    pub superseded: u64,
    /// Records set aside.
    pub quarantined: u64,
    /// Records with values in `_rescued`.
    pub rescued: u64,
}

/// How much a change matters, the most first. The rule is that of the contract's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Rows are missing from the table.
    Breaking,
    /// Rows are there, values are not.
    AtRisk,
    /// Good to know.
    Informational,
}

impl Severity {
    /// Every severity, the most severe first.
    pub const ALL: [Self; 3] = [Self::Breaking, Self::AtRisk, Self::Informational];

    /// The name used in tables, such as `at_risk`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Breaking => "breaking",
            Self::AtRisk => "at_risk",
            Self::Informational => "informational",
        }
    }

    /// The name for people, such as `at risk`.
    pub fn words(self) -> &'static str {
        match self {
            Self::AtRisk => "at risk",
            other => other.as_str(),
        }
    }
}

/// Whether a change waits for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It does.
    Open,
    /// Somebody said that it is known.
    Acknowledged,
    /// It is gone.
    Resolved,
}

impl State {
    /// The name used in tables, such as `open`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
        }
    }
}

/// One change of one stream over all its loads.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Where; empty for the record itself or for the load as a whole.
    pub path: String,
    /// What happened, such as `type_changed`.
    pub kind: String,
    /// How much it matters.
    pub severity: Severity,
    /// Whether it waits for somebody.
    pub state: State,
    /// What was done about it last, such as `quarantined`.
    pub effect: String,
    /// What the contract said last, or what was usual; empty if nothing.
    pub expected: String,
    /// What was found last, with counts.
    pub found: String,
    /// How many values or records, over all loads.
    pub seen: u64,
    /// Of how many, in those loads.
    pub records: u64,
    /// Loads that showed it.
    pub loads: u64,
    /// How many times it came, the first time included: after a load without it, it comes again.
    pub times: u64,
    /// Loads with records since the last that showed it.
    pub loads_since: u64,
    /// When it was seen first.
    pub first_seen: Timestamp,
    /// When it was seen last.
    pub last_seen: Timestamp,
    /// The contract it was seen against first.
    pub contract_first: String,
    /// The contract it was seen against last.
    pub contract_last: String,
    /// Values it was seen with, cut and masked.
    pub samples: Vec<Sample>,
    /// What makes it the same change: kinds or values without counts, and the effect on rows.
    pub nature: BTreeSet<String>,
    /// When it was acknowledged last.
    pub acknowledged_at: Option<Timestamp>,
    /// What was said when it was.
    pub note: String,
    /// An unknown member that came when this declared one went, if there is just one: perhaps a new name.
    pub renamed_to: Option<String>,
    /// How many values or records in each of [`StreamDrift::loads`].
    pub by_load: Vec<u64>,
}

/// A value a change was seen with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its place in raw, `batch/page/record`.
    pub at: Option<String>,
    /// The value as JSON text; empty if it is about absence.
    pub value: String,
}

impl Finding {
    /// Whether values were only read as the declared type, exactly.
    pub fn is_coerced(&self) -> bool {
        self.effect == COERCED
    }

    /// Whether a contract can say something else about it.
    pub fn is_for_contract(&self) -> bool {
        !matches!(
            self.kind.as_str(),
            "null_rate_jumped"
                | "format_changed"
                | "volume_changed"
                | "page_size_changed"
                | "status_changed"
                | "deprecated"
                | "sunset"
        )
    }

    /// The path for people.
    pub fn place(&self) -> &str {
        match (self.path.as_str(), self.kind.as_str()) {
            ("", "volume_changed") => "(the load)",
            ("", "page_size_changed" | "status_changed" | "deprecated" | "sunset") => "(the responses)",
            ("", _) => "(the record itself)",
            (path, _) => path,
        }
    }

    fn key(&self) -> Key {
        (self.path.clone(), self.kind.clone(), self.is_coerced())
    }
}

/// Path, kind, and whether values were only coerced.
type Key = (String, String, bool);

/// What somebody said about the changes of a path and kind.
#[derive(Default)]
struct Said {
    nature: BTreeSet<String>,
    at: Option<Timestamp>,
    note: String,
}

/// Whether the contract of a stream, in the version given, says something else about a finding than the version that it was
/// seen against last.
pub type Changed<'a> = &'a (dyn Fn(&str, &Finding, &str) -> bool + Sync);

/// The drift of `streams` at `now`, in their order; streams that were never loaded are left out.
///
/// # Errors
/// Those of the queries.
pub async fn gather(
    session: &Session,
    streams: &[StreamName],
    now: Timestamp,
    changed: Changed<'_>,
) -> Result<Vec<StreamDrift>> {
    let mut all: BTreeMap<String, StreamDrift> = BTreeMap::new();
    let loads = vec![
        ("streams", names(streams)),
        ("loads_max", ScalarValue::from(i64::from(LOADS_MAX))),
    ];
    for row in table(session, LOADS, loads).await? {
        let stream = text(&row, "stream");
        let drift = all.entry(stream.clone()).or_insert_with(|| StreamDrift {
            stream,
            loads: Vec::new(),
            findings: Vec::new(),
        });
        drift.loads.push(load(&row));
    }
    let mut said: BTreeMap<(String, String, String), Said> = BTreeMap::new();
    for row in table(session, ACKNOWLEDGED, vec![("streams", names(streams))]).await? {
        let key = (text(&row, "stream"), text(&row, "path"), text(&row, "kind"));
        let said = said.entry(key).or_default();
        said.nature.extend(texts(&text(&row, "nature")));
        said.at = Some(moment(&row, "acknowledged_at"));
        said.note = text(&row, "note");
    }
    for row in table(session, CHANGES, vec![("streams", names(streams))]).await? {
        if let Some(drift) = all.get_mut(&text(&row, "stream")) {
            let finding = finding(&row);
            let key = (drift.stream.clone(), finding.path.clone(), finding.kind.clone());
            let is_agreed =
                finding.is_for_contract() && changed(&drift.stream, &finding, &text(&row, "contract_now"));
            drift
                .findings
                .push(judged(finding, is_agreed, said.get(&key), now));
        }
    }
    count_by_load(session, streams, &mut all).await?;
    for drift in all.values_mut() {
        find_renamed(&mut drift.findings);
        drift.findings.sort_by(|a, b| {
            let order = |finding: &Finding| (finding.state, finding.severity, finding.is_coerced());
            order(a).cmp(&order(b)).then_with(|| a.key().cmp(&b.key()))
        });
    }
    Ok(streams
        .iter()
        .filter_map(|stream| all.remove(&stream.to_string()))
        .collect())
}

async fn table(
    session: &Session,
    sql: &str,
    params: Vec<(&str, ScalarValue)>,
) -> Result<Vec<Map<String, Value>>> {
    let batches = session.with_params(sql, params).await?.collect().await;
    rows::objects(&batches.map_err(|source| sql_error("report drift", source))?)
}

/// Fills in how much of each change the loads shown had.
async fn count_by_load(
    session: &Session,
    streams: &[StreamName],
    all: &mut BTreeMap<String, StreamDrift>,
) -> Result<()> {
    let loads = all.values().flat_map(|drift| &drift.loads);
    let Some(since) = loads.map(|load| load.started_at).min() else {
        return Ok(());
    };
    let since = ScalarValue::TimestampMicrosecond(Some(since.timestamp_micros()), Some("UTC".into()));
    let params = vec![("streams", names(streams)), ("since", since)];
    let mut counts: BTreeMap<(String, Key), BTreeMap<String, u64>> = BTreeMap::new();
    for row in table(session, BY_LOAD, params).await? {
        let coerced = row.get("coerced").and_then(Value::as_bool).unwrap_or_default();
        let key = (text(&row, "path"), text(&row, "kind"), coerced);
        let of_change = counts.entry((text(&row, "stream"), key)).or_default();
        of_change.insert(text(&row, "load_id"), number(&row, "seen"));
    }
    for drift in all.values_mut() {
        for finding in &mut drift.findings {
            let of_change = counts.get(&(drift.stream.clone(), finding.key()));
            let in_load = |load: &Load| of_change.and_then(|counts| counts.get(&load.load_id)).copied();
            finding.by_load = drift
                .loads
                .iter()
                .map(|load| in_load(load).unwrap_or(0))
                .collect();
        }
    }
    Ok(())
}

fn load(row: &Map<String, Value>) -> Load {
    Load {
        load_id: text(row, "load_id"),
        started_at: moment(row, "started_at"),
        contract_version: text(row, "contract_version"),
        read: number(row, "records_read"),
        merged: number(row, "merged"),
        superseded: number(row, "superseded"),
        quarantined: number(row, "quarantined"),
        rescued: number(row, "rescued"),
    }
}

fn finding(row: &Map<String, Value>) -> Finding {
    let severity = text(row, "severity");
    let effect = text(row, "effect");
    let mut nature: BTreeSet<String> = row
        .get("natures")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .flat_map(texts)
        .collect();
    nature.insert(format!("rows {effect}"));
    let mut samples = samples(&text(row, "samples_first"));
    for sample in self::samples(&text(row, "samples_last")) {
        if samples.len() < SAMPLES_MAX && !samples.contains(&sample) {
            samples.push(sample);
        }
    }
    Finding {
        path: text(row, "path"),
        kind: text(row, "kind"),
        severity: Severity::ALL
            .into_iter()
            .find(|known| known.as_str() == severity)
            .unwrap_or(Severity::Informational),
        state: State::Open,
        effect,
        expected: text(row, "expected"),
        found: text(row, "found"),
        seen: number(row, "seen"),
        records: number(row, "records"),
        loads: number(row, "loads"),
        times: number(row, "times"),
        loads_since: number(row, "loads_since"),
        first_seen: moment(row, "first_seen"),
        last_seen: moment(row, "last_seen"),
        contract_first: text(row, "contract_first"),
        contract_last: text(row, "contract_last"),
        samples,
        nature,
        acknowledged_at: None,
        note: String::new(),
        renamed_to: None,
        by_load: Vec::new(),
    }
}

/// Says whether a finding waits for somebody; `is_agreed` if a newer contract speaks to it.
fn judged(mut finding: Finding, is_agreed: bool, said: Option<&Said>, now: Timestamp) -> Finding {
    if let Some(said) = said {
        finding.acknowledged_at = said.at;
        finding.note.clone_from(&said.note);
    }
    let is_quiet = now - finding.last_seen >= TimeDelta::days(QUIET_DAYS);
    finding.state = if finding.loads_since > 0 && (is_quiet || is_agreed) {
        State::Resolved
    } else if said.is_some_and(|said| finding.nature.is_subset(&said.nature)) {
        State::Acknowledged
    } else {
        State::Open
    };
    finding
}

/// A declared member that went in the load in which just one unknown member came beside it may have a new name.
fn find_renamed(findings: &mut [Finding]) {
    let parent = |path: &str| path.rsplit_once('.').map_or("", |(parent, _)| parent).to_owned();
    let new: Vec<(String, String, Timestamp)> = findings
        .iter()
        .filter(|finding| finding.kind == "unknown")
        .map(|finding| (parent(&finding.path), finding.path.clone(), finding.first_seen))
        .collect();
    for finding in findings
        .iter_mut()
        .filter(|finding| matches!(finding.kind.as_str(), "missing" | "required_missing"))
    {
        let mut beside = new
            .iter()
            .filter(|(around, _, first)| *around == parent(&finding.path) && *first == finding.first_seen);
        if let (Some((_, path, _)), None) = (beside.next(), beside.next()) {
            finding.renamed_to = Some(path.clone());
        }
    }
}

fn text(row: &Map<String, Value>, name: &str) -> String {
    row.get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

fn number(row: &Map<String, Value>, name: &str) -> u64 {
    row.get(name).and_then(Value::as_u64).unwrap_or_default()
}

fn moment(row: &Map<String, Value>, name: &str) -> Timestamp {
    DateTime::parse_from_rfc3339(&text(row, name)).map_or(Timestamp::UNIX_EPOCH, |at| at.with_timezone(&Utc))
}

/// A JSON list of texts.
fn texts(list: &str) -> Vec<String> {
    serde_json::from_str(list).unwrap_or_default()
}

fn samples(list: &str) -> Vec<Sample> {
    let list: Vec<Value> = serde_json::from_str(list).unwrap_or_default();
    let samples = list.iter().map(|sample| Sample {
        at: sample.get("at").and_then(Value::as_str).map(str::to_owned),
        value: sample
            .get("value")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
    });
    samples.collect()
}

/// What of a report is shown.
#[derive(Clone, Copy, Debug)]
pub struct Filter {
    /// Whether acknowledged and resolved changes are shown too.
    pub all: bool,
    /// Only changes seen since then.
    pub since: Option<Timestamp>,
}

impl Filter {
    /// Leaves out what is not wanted.
    pub fn apply(self, mut streams: Vec<StreamDrift>) -> Vec<StreamDrift> {
        for drift in &mut streams {
            drift.findings.retain(|finding| {
                (self.all || finding.state == State::Open)
                    && self.since.is_none_or(|since| finding.last_seen >= since)
            });
        }
        streams
    }
}

#[cfg(test)]
pub(super) mod tests;
