//! The drift report for terminals and programs.

use std::fmt;

use serde_json::{Value, json};

use super::{Filter, Finding, Severity, State, StreamDrift};
use crate::{
    error::Result,
    report::{
        count,
        grid::{Grid, shown, write_table},
        moment, shell,
    },
};

/// Longest sample in a table, in characters.
const SAMPLE_CHARS_MAX: usize = 30;

/// Longest path in a sentence, in characters.
const PATH_CHARS_MAX: usize = 200;

/// The columns of the report for people.
const COLUMNS: [&str; 9] = [
    "severity",
    "change",
    "path",
    "expected",
    "found",
    "sample",
    "how often",
    "rows",
    "first seen",
];

/// The columns of the report for programs. They stay; new ones come behind them.
///
/// `stream`, `path`, `kind`, `severity` (breaking, at_risk, informational), `state` (open, acknowledged, resolved),
/// `effect` (accepted, coerced, rescued, ignored, quarantined, failed), `expected`, `found`, `seen` of `records` over `loads`
/// loads, `times` it came, `first_seen` and `last_seen` (RFC 3339), `contract_first` and `contract_last` it was seen
/// against, `samples` (a list of `at`: batch/page/record, and `value`: JSON text), `acknowledged_at`, `note`, `renamed_to`.
pub const FIELDS: [&str; 19] = [
    "stream",
    "path",
    "kind",
    "severity",
    "state",
    "effect",
    "expected",
    "found",
    "seen",
    "records",
    "loads",
    "times",
    "first_seen",
    "last_seen",
    "contract_first",
    "contract_last",
    "samples",
    "acknowledged_at",
    "note",
];

/// One row per change, for programs.
pub fn grid(streams: &[StreamDrift]) -> Grid {
    let mut grid = Grid::new(&FIELDS);
    grid.columns.push("renamed_to".to_owned());
    for drift in streams {
        for finding in &drift.findings {
            let samples = finding
                .samples
                .iter()
                .map(|sample| json!({"at": sample.at, "value": sample.value}));
            grid.rows.push(vec![
                drift.stream.as_str().into(),
                finding.path.as_str().into(),
                finding.kind.as_str().into(),
                finding.severity.as_str().into(),
                finding.state.as_str().into(),
                finding.effect.as_str().into(),
                finding.expected.as_str().into(),
                finding.found.as_str().into(),
                finding.seen.into(),
                finding.records.into(),
                finding.loads.into(),
                finding.times.into(),
                moment(finding.first_seen).into(),
                moment(finding.last_seen).into(),
                finding.contract_first.as_str().into(),
                finding.contract_last.as_str().into(),
                Value::Array(samples.collect()),
                finding.acknowledged_at.map(moment).into(),
                finding.note.as_str().into(),
                finding.renamed_to.as_deref().into(),
            ]);
        }
    }
    grid
}

/// A table for each stream, and what to do next, for people. `streams` are all that is known, `filter` says what is wanted.
///
/// # Errors
/// None that can happen: text is written to memory.
pub fn text(streams: Vec<StreamDrift>, filter: Filter) -> Result<String> {
    let hidden = hidden(&streams);
    let shown = filter.apply(streams);
    let mut text = Vec::new();
    for drift in shown.iter().filter(|drift| !drift.findings.is_empty()) {
        if !text.is_empty() {
            text.push(b'\n');
        }
        stream(drift, &mut text)?;
    }
    let mut text = String::from_utf8_lossy(&text).into_owned();
    if text.is_empty() {
        text.push_str(match filter.since {
            Some(_) => "no drift since then\n",
            None => "no drift: every load was as its contract says\n",
        });
    }
    if let (false, Some(hidden)) = (filter.all, hidden) {
        text.push_str(&format!("not shown: {hidden}; `--all` shows them\n"));
    }
    Ok(text)
}

/// What is not shown without being asked for.
fn hidden(streams: &[StreamDrift]) -> Option<String> {
    let findings = || streams.iter().flat_map(|drift| &drift.findings);
    let of = |state: State| findings().filter(|finding| finding.state == state).count() as u64;
    let parts: Vec<String> = [State::Acknowledged, State::Resolved]
        .into_iter()
        .filter(|state| of(*state) > 0)
        .map(|state| format!("{} {}", count(of(state)), state.as_str()))
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn stream(drift: &StreamDrift, out: &mut Vec<u8>) -> Result<()> {
    out.extend(format!("{}: {}\n", drift.stream, summary(&drift.findings)).into_bytes());
    let (coerced, other): (Vec<&Finding>, Vec<&Finding>) = drift
        .findings
        .iter()
        .partition(|finding| finding.is_coerced() && finding.state == State::Open);
    if !other.is_empty() {
        let cells = other.iter().map(|finding| cells(finding)).collect();
        write_table(&COLUMNS.map(str::to_owned), &[false; COLUMNS.len()], cells, out)?;
    }
    if !coerced.is_empty() {
        let paths: Vec<String> = coerced
            .iter()
            .map(|finding| {
                let path = shown(&finding.path, PATH_CHARS_MAX);
                format!("{path} ({}, {})", finding.expected, of(finding))
            })
            .collect();
        let line = format!("read without loss as the declared type: {}\n", paths.join("; "));
        out.extend(line.into_bytes());
    }
    for hint in hints(drift, &other) {
        out.extend(format!("→ {hint}\n").into_bytes());
    }
    Ok(())
}

/// `2 open: 1 breaking, 1 at risk`.
pub(super) fn summary(findings: &[Finding]) -> String {
    let open: Vec<&Finding> = findings
        .iter()
        .filter(|finding| finding.state == State::Open)
        .collect();
    let parts: Vec<String> = Severity::ALL
        .into_iter()
        .map(|severity| {
            let number = open.iter().filter(|finding| finding.severity == severity).count();
            (severity, number as u64)
        })
        .filter(|(_, number)| *number > 0)
        .map(|(severity, number)| format!("{} {}", count(number), severity.words()))
        .collect();
    match open.len() {
        0 => "nothing open".to_owned(),
        number => format!("{} open: {}", count(number as u64), parts.join(", ")),
    }
}

fn cells(finding: &Finding) -> Vec<String> {
    let severity = match finding.state {
        State::Open => finding.severity.words(),
        state => state.as_str(),
    };
    let came = match finding.times {
        0 | 1 => String::new(),
        times => format!(", came {times} times"),
    };
    vec![
        severity.to_owned(),
        finding.kind.replace('_', " "),
        finding.place().to_owned(),
        finding.expected.clone(),
        finding.found.clone(),
        sample(finding),
        format!("{}{came}", of(finding)),
        finding.effect.clone(),
        moment(finding.first_seen),
    ]
}

fn sample(finding: &Finding) -> String {
    let Some(sample) = finding.samples.first() else {
        return String::new();
    };
    let value = shown(&sample.value, SAMPLE_CHARS_MAX);
    match (&sample.at, value.is_empty()) {
        (Some(at), true) => format!("in {at}"),
        (Some(at), false) => format!("{value} in {at}"),
        (None, _) => value,
    }
}

fn of(finding: &Finding) -> String {
    format!("{} of {}", count(finding.seen), count(finding.records))
}

/// Something to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hint {
    /// The command that does it, to be copied.
    pub(super) command: Option<String>,
    /// What it is about.
    pub(super) words: String,
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(command) = &self.command {
            write!(f, "{command}   ")?;
        }
        f.write_str(&self.words)
    }
}

/// What to do next, as commands where there is one.
pub(super) fn hints(drift: &StreamDrift, findings: &[&Finding]) -> Vec<Hint> {
    let stream = &drift.stream;
    let open = || findings.iter().filter(|finding| finding.state == State::Open);
    let mut hints = Vec::new();
    let mut hint = |command: Option<String>, words: String| hints.push(Hint { command, words });
    for finding in open() {
        if let Some(name) = &finding.renamed_to {
            let [path, name] = [&finding.path, name].map(|path| shown(path, PATH_CHARS_MAX));
            hint(
                None,
                format!("{path} went when {name} came: perhaps it has a new name"),
            );
        }
    }
    if let Some(finding) = open().find(|finding| finding.effect == "quarantined") {
        let sample = finding.samples.iter().find_map(|sample| sample.at.as_ref());
        let (command, words) = match sample {
            Some(at) => (
                format!("landfall quarantine show {stream} {at}"),
                "one of the records set aside",
            ),
            None => (
                format!("landfall quarantine list {stream}"),
                "the records set aside",
            ),
        };
        hint(Some(command), words.to_owned());
    }
    if open().any(|finding| finding.is_for_contract() && finding.kind != "missing" && !finding.is_coerced()) {
        hint(
            Some(format!("landfall contract patch {stream}")),
            "a new version of the contract to review".to_owned(),
        );
    }
    // All of them, also those that are read without loss and are no row of a table.
    let waiting: Vec<&Finding> = drift
        .findings
        .iter()
        .filter(|finding| finding.state == State::Open)
        .collect();
    if let Some(finding) = waiting.first() {
        let path = match (waiting.len(), shell::word(&finding.path)) {
            (1, Some(path)) if !finding.path.is_empty() => {
                // It would be taken for an option.
                let ends = if path.starts_with('-') { "-- " } else { "" };
                format!(" {ends}{path}")
            }
            _ => String::new(),
        };
        let words = match waiting.len() {
            1 => "the change is".to_owned(),
            number => format!("the {} changes are", count(number as u64)),
        };
        hint(
            Some(format!("landfall drift ack {stream}{path}")),
            format!("say that {words} known"),
        );
    }
    hints
}
