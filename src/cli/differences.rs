//! How the differences of two tables are told.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde_json::{Map, Value};

use crate::{
    cli::output::say,
    config::StreamName,
    ops::compare::{Difference, Row, cause::Cause, review::Review},
    report::{count, counted, grid::Grid},
};

/// How often a replay says how far it is.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What stands for personal data.
const MASKED: &str = "****";

/// Says now and then how far the replay of a stream is.
pub(super) struct Replaying {
    stream: StreamName,
    said: Mutex<Instant>,
}

impl Replaying {
    pub(super) fn new(stream: &StreamName) -> Self {
        Self {
            stream: stream.clone(),
            said: Mutex::new(Instant::now()),
        }
    }

    pub(super) fn at(&self, batch: impl fmt::Display) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.elapsed() >= LINE_EVERY {
            *said = Instant::now();
            say(&format!("{}  replayed up to batch {batch} so far", self.stream));
        }
    }
}

/// An empty grid for [`add_rows`].
pub(super) fn grid() -> Grid {
    Grid::new(&[
        "stream",
        "difference",
        "key",
        "column",
        "live",
        "rebuilt",
        "cause",
    ])
}

/// One row per differing value; a row that one table lacks is shown whole.
pub(super) fn add_rows(grid: &mut Grid, stream: &StreamName, review: &Review) {
    let shown = |name: &str, value: Option<&str>| match value {
        Some(_) if review.classified.iter().any(|own| own == name) => Some(MASKED.to_owned()),
        other => other.map(str::to_owned),
    };
    for difference in &review.rows.differences {
        let key: Vec<String> = difference
            .key
            .iter()
            .map(|(name, value)| {
                let value = shown(name, value.as_deref());
                format!("{name}={}", value.as_deref().unwrap_or("null"))
            })
            .collect();
        let mut add = |column: Option<&str>, live: Option<String>, rebuilt: Option<String>| {
            grid.rows.push(vec![
                stream.to_string().into(),
                difference.kind.as_str().into(),
                key.join(", ").into(),
                column.into(),
                live.into(),
                rebuilt.into(),
                difference.cause.to_string().into(),
            ]);
        };
        let columns = difference.columns();
        if columns.is_empty() {
            let whole = |row: &Option<Row>| row.as_ref().map(|row| json(row, &shown));
            add(None, whole(&difference.live), whole(&difference.rebuilt));
        }
        for (name, live, rebuilt) in columns {
            add(Some(name), shown(name, live), shown(name, rebuilt));
        }
    }
}

fn json(row: &Row, shown: &dyn Fn(&str, Option<&str>) -> Option<String>) -> String {
    let present = row.values.iter().filter(|(_, value)| value.is_some());
    let members: Map<String, Value> = present
        .map(|(name, value)| (name.clone(), shown(name, value.as_deref()).into()))
        .collect();
    Value::Object(members).to_string()
}

/// What differs, in words; nothing if nothing does.
pub(super) fn lines(stream: &StreamName, review: &Review) -> Vec<String> {
    let mut lines = Vec::new();
    let rows = &review.rows;
    if !rows.is_equal() {
        let parts = [
            (rows.changed, "changed"),
            (rows.only_live, "only in the live table"),
            (rows.only_rebuilt, "only in what raw gives"),
        ];
        let told = parts.into_iter().filter(|(number, _)| *number > 0);
        let told: Vec<String> = told
            .map(|(number, what)| format!("{} {what}", count(number)))
            .collect();
        lines.push(format!(
            "{stream}  {} different: {}; {} equal",
            counted(rows.different(), "row is", "rows are"),
            told.join(", "),
            count(rows.equal)
        ));
    }
    let aside = &review.quarantine;
    if aside.only_live > 0 {
        let records = counted(aside.only_live, "record", "records");
        lines.push(format!(
            "{stream}  {records} in quarantine would fit today's contract"
        ));
    }
    if aside.only_rebuilt > 0 {
        let records = counted(aside.only_rebuilt, "record", "records");
        lines.push(format!(
            "{stream}  {records} that the table has would be set aside today"
        ));
    }
    lines.extend(review.changes.iter().map(|change| format!("{stream}  {change}")));
    lines.extend(
        causes(&rows.differences)
            .into_iter()
            .map(|line| format!("{stream}  {line}")),
    );
    lines
}

/// The causes of the differences shown, the most frequent first, then what to do.
fn causes(differences: &[Difference]) -> Vec<String> {
    let mut counts: BTreeMap<String, (u64, &Cause)> = BTreeMap::new();
    for difference in differences {
        counts
            .entry(difference.cause.to_string())
            .or_insert((0, &difference.cause))
            .0 += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, (number, _))| std::cmp::Reverse(*number));
    let mut lines: Vec<String> = counts
        .iter()
        .map(|(words, (number, _))| format!("{} of those shown: {words}", count(*number)))
        .collect();
    let mut hints: Vec<&str> = Vec::new();
    for (_, (_, cause)) in &counts {
        if let Some(hint) = cause.hint()
            && !hints.contains(&hint)
        {
            hints.push(hint);
        }
    }
    lines.extend(hints.into_iter().map(|hint| format!("hint: {hint}")));
    lines
}
