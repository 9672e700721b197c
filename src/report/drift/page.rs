//! The drift report as one HTML file that needs nothing else: no script, no network, styles inside.
//!
//! Whatever comes from data goes through the template's escaping; nothing is marked as safe.

use minijinja::{Environment, UndefinedBehavior, value::Serde};
use serde::Serialize;

use super::{Finding, Load, QUIET_DAYS, Severity, State, StreamDrift, text};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    report::{ago, count, counted},
};

const TEMPLATE: &str = include_str!("page.html");

/// The name ends with what makes the template escape for HTML.
const NAME: &str = "page.html";

/// Size of the chart of loads, in its own units.
const CHART: (f64, f64) = (720.0, 96.0);

/// Size of the small chart of one change.
const SPARK: (f64, f64) = (144.0, 24.0);

/// Widest bar of a chart: one load alone should not fill it.
const BAR_WIDTH_MAX: f64 = 36.0;

/// Lowest bar of something that is not nothing.
const BAR_HEIGHT_MIN: f64 = 2.0;

/// A new version of a contract, to be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The stream, `source.stream`.
    pub stream: String,
    /// The difference to the contract's file, as `diff -u` writes it.
    pub unified: String,
}

/// The report at `now`, with every change of `streams` in it.
///
/// # Errors
/// [`ErrorKind::Internal`] if the template is wrong.
pub fn page(streams: &[StreamDrift], proposals: &[Proposal], now: Timestamp) -> Result<String> {
    let fail = |source: minijinja::Error| {
        Error::new(ErrorKind::Internal, "write drift report").caused_by(format!("{source:#}"))
    };
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_template(NAME, TEMPLATE).map_err(fail)?;
    let template = environment.get_template(NAME).map_err(fail)?;
    template
        .render(Serde(whole(streams, proposals, now)))
        .map_err(fail)
}

#[derive(Serialize)]
struct Whole {
    made_at: String,
    quiet_days: i64,
    headline: String,
    tiles: Vec<Tile>,
    streams: Vec<Part>,
}

/// A number at the top.
#[derive(Serialize)]
struct Tile {
    number: String,
    words: &'static str,
    class: &'static str,
    note: String,
}

/// One stream.
#[derive(Serialize)]
struct Part {
    name: String,
    id: String,
    summary: String,
    worst: &'static str,
    contract: String,
    since: String,
    chart: Option<Chart>,
    open: Vec<Card>,
    coerced: Vec<Card>,
    past: Vec<Card>,
    proposal: Option<Vec<Line>>,
    for_contract: bool,
    commands: Vec<Command>,
}

#[derive(Serialize)]
struct Command {
    line: String,
    what: String,
}

/// A line of a patch.
#[derive(Serialize)]
struct Line {
    class: &'static str,
    text: String,
}

/// One change.
#[derive(Serialize)]
struct Card {
    severity: &'static str,
    class: &'static str,
    state: &'static str,
    kind: String,
    place: String,
    expected: String,
    found: String,
    effect: &'static str,
    often: String,
    part: String,
    came: String,
    first_seen: String,
    first_ago: String,
    last_seen: String,
    last_ago: String,
    contracts: String,
    samples: Vec<Shown>,
    renamed_to: Option<String>,
    note: String,
    acknowledged_at: String,
    spark: Vec<Bar>,
    spark_words: String,
}

#[derive(Serialize)]
struct Shown {
    at: String,
    value: String,
}

#[derive(Serialize)]
struct Chart {
    width: f64,
    height: f64,
    bars: Vec<Bar>,
    words: String,
    loads: Vec<Row>,
    first: String,
    last: String,
    most: String,
}

#[derive(Serialize)]
struct Bar {
    class: &'static str,
    x: String,
    y: String,
    width: String,
    height: String,
    title: String,
}

#[derive(Serialize)]
struct Row {
    started_at: String,
    contract: String,
    read: String,
    merged: String,
    superseded: String,
    quarantined: String,
    rescued: String,
}

fn whole(streams: &[StreamDrift], proposals: &[Proposal], now: Timestamp) -> Whole {
    let open = || {
        let findings = streams.iter().flat_map(|drift| &drift.findings);
        findings.filter(|finding| finding.state == State::Open)
    };
    let mut tiles: Vec<Tile> = Severity::ALL
        .into_iter()
        .map(|severity| {
            let of = || open().filter(move |finding| finding.severity == severity);
            Tile {
                number: count(of().count() as u64),
                words: severity.words(),
                class: class(severity),
                note: of()
                    .map(|finding| finding.first_seen)
                    .min()
                    .map_or_else(|| "none".to_owned(), |first| format!("since {}", clock(first))),
            }
        })
        .collect();
    let with = streams
        .iter()
        .filter(|drift| drift.findings.iter().any(|finding| finding.state == State::Open))
        .count();
    tiles.push(Tile {
        number: format!("{with} of {}", streams.len()),
        words: "streams with open changes",
        class: "plain",
        note: counted(
            streams.iter().map(|drift| drift.loads.len() as u64).sum(),
            "load looked at",
            "loads looked at",
        ),
    });
    Whole {
        made_at: clock(now),
        quiet_days: QUIET_DAYS,
        headline: headline(open().collect(), now),
        tiles,
        streams: streams.iter().map(|drift| part(drift, proposals, now)).collect(),
    }
}

/// The report in a sentence.
fn headline(open: Vec<&Finding>, now: Timestamp) -> String {
    let Some(first) = open.iter().map(|finding| finding.first_seen).min() else {
        return "Nothing is open: every load was as its contract says, or somebody knows why not.".to_owned();
    };
    let number = counted(open.len() as u64, "change waits", "changes wait");
    let worst = open.iter().map(|finding| finding.severity).min();
    let so = match worst {
        Some(Severity::Breaking) => "Some records are set aside, so rows are missing from tables.",
        Some(Severity::AtRisk) => "All rows are loaded, but not every value is where it was.",
        _ => "All rows are loaded and no declared value is missing.",
    };
    format!("{number} for somebody, the oldest seen {}. {so}", ago(now, first))
}

fn class(severity: Severity) -> &'static str {
    match severity {
        Severity::Breaking => "breaking",
        Severity::AtRisk => "risk",
        Severity::Informational => "info",
    }
}

fn part(drift: &StreamDrift, proposals: &[Proposal], now: Timestamp) -> Part {
    let of = |wanted: &dyn Fn(&Finding) -> bool| -> Vec<Card> {
        let findings = drift.findings.iter().filter(|finding| wanted(finding));
        findings.map(|finding| card(finding, &drift.loads, now)).collect()
    };
    let is_open = |finding: &Finding| finding.state == State::Open;
    let open: Vec<&Finding> = drift.findings.iter().filter(|finding| is_open(finding)).collect();
    let proposal = proposals.iter().find(|proposal| proposal.stream == drift.stream);
    let first = open.iter().map(|finding| finding.first_seen).min();
    Part {
        name: drift.stream.clone(),
        id: drift.stream.replace('.', "-"),
        summary: text::summary(&drift.findings),
        worst: open
            .iter()
            .map(|finding| finding.severity)
            .min()
            .map_or("calm", class),
        contract: drift
            .loads
            .last()
            .map_or_else(String::new, |load| load.contract_version.clone()),
        since: first.map(clock).unwrap_or_default(),
        chart: chart(&drift.loads),
        open: of(&|finding| is_open(finding) && !finding.is_coerced()),
        coerced: of(&|finding| is_open(finding) && finding.is_coerced()),
        past: of(&|finding| !is_open(finding)),
        proposal: proposal.map(|proposal| proposal.unified.lines().map(line).collect()),
        for_contract: open
            .iter()
            .any(|finding| finding.is_for_contract() && !finding.is_coerced()),
        commands: text::hints(drift, &open)
            .into_iter()
            .filter_map(|hint| {
                Some(Command {
                    line: hint.command?,
                    what: hint.words,
                })
            })
            .collect(),
    }
}

fn line(text: &str) -> Line {
    let class = match text.as_bytes() {
        [b'+', b'+', b'+', ..] | [b'-', b'-', b'-', ..] => "file",
        [b'@', ..] => "place",
        [b'+', ..] => "added",
        [b'-', ..] => "removed",
        _ => "same",
    };
    Line {
        class,
        text: text.to_owned(),
    }
}

fn card(finding: &Finding, loads: &[Load], now: Timestamp) -> Card {
    let part = 100.0 * finding.seen as f64 / finding.records.max(1) as f64;
    let contracts = if finding.contract_first == finding.contract_last {
        finding.contract_last.clone()
    } else {
        format!("{} to {}", finding.contract_first, finding.contract_last)
    };
    Card {
        severity: finding.severity.words(),
        class: class(finding.severity),
        state: finding.state.as_str(),
        kind: finding.kind.replace('_', " "),
        place: finding.place().to_owned(),
        expected: match finding.expected.as_str() {
            "" => "nothing".to_owned(),
            expected => expected.to_owned(),
        },
        found: finding.found.clone(),
        effect: effect(finding),
        often: format!("{} of {}", count(finding.seen), count(finding.records)),
        part: match part {
            part if part > 0.0 && part < 1.0 => format!("{part:.1}\u{a0}%"),
            part => format!("{part:.0}\u{a0}%"),
        },
        came: match finding.times {
            0 | 1 => format!("in {}", counted(finding.loads, "load", "loads")),
            times => format!(
                "in {}, came {times} times",
                counted(finding.loads, "load", "loads")
            ),
        },
        first_seen: clock(finding.first_seen),
        first_ago: ago(now, finding.first_seen),
        last_seen: clock(finding.last_seen),
        last_ago: ago(now, finding.last_seen),
        contracts,
        samples: finding
            .samples
            .iter()
            .map(|sample| Shown {
                at: sample.at.clone().unwrap_or_default(),
                value: if sample.value.is_empty() {
                    "nothing there".to_owned()
                } else {
                    sample.value.clone()
                },
            })
            .collect(),
        renamed_to: finding.renamed_to.clone(),
        note: finding.note.clone(),
        acknowledged_at: finding.acknowledged_at.map(clock).unwrap_or_default(),
        spark: spark(finding, loads),
        spark_words: format!(
            "{} in the newest of {}",
            count(finding.by_load.last().copied().unwrap_or(0)),
            counted(loads.len() as u64, "load", "loads")
        ),
    }
}

/// What became of rows, in words.
fn effect(finding: &Finding) -> &'static str {
    match (finding.effect.as_str(), finding.kind.as_str()) {
        ("quarantined", _) => "Records set aside in the quarantine",
        ("failed", _) => "Nothing written, the load was refused",
        ("rescued", _) => "Rows loaded, the value kept in _rescued",
        ("ignored", _) => "Rows loaded, the value only in raw",
        ("coerced", _) => "Rows loaded, the value read without loss",
        (_, "missing") => "Rows loaded, the column empty",
        _ => "Rows loaded as they are",
    }
}

/// A moment to the minute; the page says that it is UTC.
fn clock(at: Timestamp) -> String {
    at.format("%Y-%m-%d %H:%M").to_string()
}

fn number(number: f64) -> String {
    format!("{number:.1}")
}

/// Bars side by side: each is a title and parts from the bottom up.
fn bars(columns: &[(String, Vec<(&'static str, u64)>)], (width, height): (f64, f64)) -> Vec<Bar> {
    let most = columns
        .iter()
        .map(|(_, parts)| parts.iter().map(|(_, count)| count).sum::<u64>())
        .max()
        .unwrap_or(0)
        .max(1) as f64;
    let step = width / columns.len().max(1) as f64;
    let gap = (step * 0.2).min(3.0);
    let mut bars = Vec::new();
    for (at, (title, parts)) in columns.iter().enumerate() {
        let mut top = height;
        for (class, count) in parts.iter().filter(|(_, count)| *count > 0) {
            let tall = (height * *count as f64 / most).max(BAR_HEIGHT_MIN);
            top = (top - tall).max(0.0);
            bars.push(Bar {
                class,
                x: number(at as f64 * step),
                y: number(top),
                width: number((step - gap).min(BAR_WIDTH_MAX)),
                height: number(tall),
                title: title.clone(),
            });
        }
    }
    bars
}

fn spark(finding: &Finding, loads: &[Load]) -> Vec<Bar> {
    let columns: Vec<_> = loads
        .iter()
        .zip(&finding.by_load)
        .map(|(load, seen)| {
            let title = format!("{}: {}", clock(load.started_at), count(*seen));
            (title, vec![("hit", *seen)])
        })
        .collect();
    bars(&columns, SPARK)
}

fn chart(loads: &[Load]) -> Option<Chart> {
    let (first, last) = (loads.first()?, loads.last()?);
    let most = loads.iter().map(|load| load.read).max()?;
    let columns: Vec<_> = loads
        .iter()
        .map(|load| {
            let title = format!(
                "{}: {} read, {} merged, {} superseded, {} quarantined",
                clock(load.started_at),
                count(load.read),
                count(load.merged),
                count(load.superseded),
                count(load.quarantined)
            );
            let parts = vec![
                ("quarantined", load.quarantined),
                ("merged", load.merged),
                ("superseded", load.superseded),
            ];
            (title, parts)
        })
        .collect();
    Some(Chart {
        width: CHART.0,
        height: CHART.1,
        bars: bars(&columns, CHART),
        words: format!(
            "{}: {} records read, {} quarantined",
            counted(loads.len() as u64, "load", "loads"),
            count(loads.iter().map(|load| load.read).sum()),
            count(loads.iter().map(|load| load.quarantined).sum())
        ),
        loads: loads
            .iter()
            .rev()
            .map(|load| Row {
                started_at: clock(load.started_at),
                contract: load.contract_version.clone(),
                read: count(load.read),
                merged: count(load.merged),
                superseded: count(load.superseded),
                quarantined: count(load.quarantined),
                rescued: count(load.rescued),
            })
            .collect(),
        first: clock(first.started_at),
        last: clock(last.started_at),
        most: count(most),
    })
}
