//! What was set aside, and why.

use arrow::array::RecordBatch;
use datafusion::{dataframe::DataFrame, scalar::ScalarValue};
use serde_json::{Map, Value};

use crate::{
    config::StreamName,
    error::Result,
    query::{Session, sql_error},
    report::{grid::shown, names, rows},
};

const CLASSES: &str = include_str!("../../sql/reports/quarantine_classes.sql");

/// The quarantine of `streams`, one row per class and place with one sample, at most `rows_max`.
///
/// # Errors
/// Those of the query.
pub async fn frame(session: &Session, streams: &[StreamName], rows_max: u32) -> Result<DataFrame> {
    let params = vec![
        ("streams", names(streams)),
        ("rows_max", ScalarValue::from(i64::from(rows_max))),
    ];
    session.with_params(CLASSES, params).await
}

/// The quarantine of `streams` for people.
///
/// # Errors
/// Those of the query.
pub async fn text(session: &Session, streams: &[StreamName], rows_max: u32) -> Result<String> {
    let rows = frame(session, streams, rows_max).await?.collect().await;
    render(
        &rows.map_err(|source| sql_error("report quarantine", source))?,
        rows_max,
    )
}

fn render(batches: &[RecordBatch], rows_max: u32) -> Result<String> {
    let rows = rows::objects(batches)?;
    if rows.is_empty() {
        return Ok("nothing is quarantined\n".to_owned());
    }
    let mut text = String::new();
    let mut stream = String::new();
    for row in &rows {
        let own = string(row, "stream");
        if own != stream {
            if !stream.is_empty() {
                text.push('\n');
            }
            text.push_str(&format!("{own}\n"));
            stream = own;
        }
        text.push_str(&reason(row, &stream));
    }
    if rows.len() >= rows_max as usize {
        text.push_str(&format!(
            "\nonly the first {rows_max} reasons are listed: see --limit\n"
        ));
    }
    Ok(text)
}

fn reason(row: &Map<String, Value>, stream: &str) -> String {
    let records = row.get("records").and_then(Value::as_u64).unwrap_or_default();
    let place = string(row, "place");
    let place = if place.is_empty() {
        String::new()
    } else {
        format!(" at {}", shown(&place, 80))
    };
    let noun = if records == 1 { "record" } else { "records" };
    format!(
        "  {records} {noun}: {}{place}: expected {}, found {}\n      landfall quarantine show {stream} {}\n",
        string(row, "class"),
        shown(&string(row, "expected"), 80),
        shown(&string(row, "found"), 80),
        string(row, "sample"),
    )
}

fn string(row: &Map<String, Value>, name: &str) -> String {
    row.get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}
