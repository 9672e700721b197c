//! What the data did that the contracts did not say.

use arrow::array::RecordBatch;
use datafusion::dataframe::DataFrame;
use serde_json::{Map, Value};

use crate::{
    config::StreamName,
    error::Result,
    query::{Session, sql_error},
    report::{grid::shown, names, rows},
};

const DRIFT: &str = include_str!("../../sql/reports/drift.sql");

/// Longest list of values found that is shown, in characters.
const FOUND_CHARS_MAX: usize = 160;

/// The drift of `streams`, one row per path and kind of change.
///
/// # Errors
/// Those of the query.
pub async fn frame(session: &Session, streams: &[StreamName]) -> Result<DataFrame> {
    session
        .with_params(DRIFT, vec![("streams", names(streams))])
        .await
}

/// The drift of `streams` for people.
///
/// # Errors
/// Those of the query.
pub async fn text(session: &Session, streams: &[StreamName]) -> Result<String> {
    let rows = frame(session, streams).await?.collect().await;
    render(&rows.map_err(|source| sql_error("report drift", source))?)
}

/// Rows of the report as text, grouped by stream and path.
fn render(batches: &[RecordBatch]) -> Result<String> {
    let rows = rows::objects(batches)?;
    if rows.is_empty() {
        return Ok("no drift: every load was as its contract says\n".to_owned());
    }
    let mut text = String::new();
    let (mut stream, mut path) = (String::new(), String::new());
    for row in &rows {
        let own = string(row, "stream");
        if own != stream {
            if !stream.is_empty() {
                text.push('\n');
            }
            text.push_str(&format!("{own}\n"));
            stream = own;
            path.clear();
        }
        let own = string(row, "path");
        if own != path {
            let name = if own.is_empty() {
                "(the record itself)"
            } else {
                &own
            };
            text.push_str(&format!("  {}\n", shown(name, FOUND_CHARS_MAX)));
            path = own;
        }
        text.push_str(&change(row));
    }
    Ok(text)
}

fn change(row: &Map<String, Value>) -> String {
    let (kind, effect) = (string(row, "kind"), string(row, "effect"));
    let (expected, found) = (string(row, "expected"), string(row, "found"));
    let found = shown(&found, FOUND_CHARS_MAX);
    let against = match expected.as_str() {
        "" => format!("found {found}, which the contract does not name"),
        _ => format!("expected {expected}, found {found}"),
    };
    let number = |name: &str| row.get(name).and_then(Value::as_u64).unwrap_or_default();
    let loads = number("loads");
    let times = match loads {
        1 => format!("seen {}", string(row, "first_seen")),
        _ => format!(
            "first {}, last {}, in {loads} loads",
            string(row, "first_seen"),
            string(row, "last_seen")
        ),
    };
    format!(
        "    {kind:<16} {against}\n    {:<16} {} of {}, {effect}; {times}\n",
        "",
        number("seen"),
        number("records")
    )
}

fn string(row: &Map<String, Value>, name: &str) -> String {
    row.get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}
