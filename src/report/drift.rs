//! What the data did that the contracts did not say.

use arrow::array::RecordBatch;
use datafusion::dataframe::DataFrame;
use serde_json::{Map, Value};

use crate::{
    config::StreamName,
    error::Result,
    query::{Session, sql_error},
    report::{count, grid::write_table, names, rows, seconds},
};

const DRIFT: &str = include_str!("../../sql/reports/drift.sql");

/// The columns of the report for people.
const COLUMNS: [&str; 8] = [
    "change",
    "path",
    "expected",
    "found",
    "how often",
    "effect",
    "first seen",
    "last seen",
];

/// The effect of values that were taken as the declared type, exactly. Nothing has to be done about them.
const COERCED: &str = "coerced";

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

/// Rows of the report as text, a table for each stream.
fn render(batches: &[RecordBatch]) -> Result<String> {
    let rows = rows::objects(batches)?;
    if rows.is_empty() {
        return Ok("no drift: every load was as its contract says\n".to_owned());
    }
    let mut text = Vec::new();
    for of_stream in rows.chunk_by(|a, b| a.get("stream") == b.get("stream")) {
        if !text.is_empty() {
            text.push(b'\n');
        }
        text.extend(string(&of_stream[0], "stream").into_bytes());
        text.push(b'\n');
        let (coerced, other): (Vec<_>, Vec<_>) =
            of_stream.iter().partition(|row| string(row, "effect") == COERCED);
        if !other.is_empty() {
            let cells = other.into_iter().map(cells).collect();
            write_table(
                &COLUMNS.map(str::to_owned),
                &[false; COLUMNS.len()],
                cells,
                &mut text,
            )?;
        }
        if !coerced.is_empty() {
            let paths: Vec<String> = coerced.into_iter().map(coercion).collect();
            text.extend(
                format!("read without loss as the declared type: {}\n", paths.join("; ")).into_bytes(),
            );
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn cells(row: &Map<String, Value>) -> Vec<String> {
    let path = string(row, "path");
    vec![
        string(row, "kind"),
        if path.is_empty() {
            "(the record itself)".to_owned()
        } else {
            path
        },
        string(row, "expected"),
        times(&string(row, "found")),
        of(row),
        string(row, "effect"),
        seconds(&string(row, "first_seen")),
        seconds(&string(row, "last_seen")),
    ]
}

fn coercion(row: &Map<String, Value>) -> String {
    let (path, expected) = (string(row, "path"), string(row, "expected"));
    format!("{path} ({expected}, {})", of(row))
}

fn of(row: &Map<String, Value>) -> String {
    let number = |name: &str| row.get(name).and_then(Value::as_u64).unwrap_or_default();
    format!("{} of {}", count(number("seen")), count(number("records")))
}

/// `string 80, null 3` as `string ×80, null ×3`: a kind or a value beside a number reads like a value.
fn times(found: &str) -> String {
    let parts: Vec<String> = found
        .split(", ")
        .map(|part| match part.rsplit_once(' ') {
            Some((what, number)) if number.parse::<u64>().is_ok() => format!("{what} ×{number}"),
            _ => part.to_owned(),
        })
        .collect();
    parts.join(", ")
}

fn string(row: &Map<String, Value>, name: &str) -> String {
    row.get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{ArrayRef, Int64Array, StringArray},
        datatypes::{Field, Schema},
    };

    use super::*;

    fn batch(rows: &[[&str; 6]]) -> RecordBatch {
        let text = |at: usize| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row[at])))
        };
        let number = |value: i64| -> ArrayRef { Arc::new(Int64Array::from_value(value, rows.len())) };
        let moment = |text: &str| -> ArrayRef { Arc::new(StringArray::from(vec![text; rows.len()])) };
        let columns = [
            ("stream", text(0)),
            ("path", text(1)),
            ("kind", text(2)),
            ("effect", text(3)),
            ("expected", text(4)),
            ("found", text(5)),
            ("seen", number(80)),
            ("records", number(1_414)),
            ("loads", number(2)),
            ("first_seen", moment("2026-01-01T00:00:00.123456Z")),
            ("last_seen", moment("2026-01-02T00:00:00.654321Z")),
        ];
        let fields: Vec<Field> = columns
            .iter()
            .map(|(name, array)| Field::new(*name, array.data_type().clone(), true))
            .collect();
        let arrays = columns.into_iter().map(|(_, array)| array).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
    }

    #[test]
    fn r009_drift_is_told_by_stream_with_counts_and_moments() {
        let rows = batch(&[
            [
                "shop.customers",
                "tier",
                "enum_grown",
                "quarantined",
                "string",
                "\"platinum\" 1",
            ],
            [
                "shop.orders",
                "lines[].quantity",
                "type_changed",
                "quarantined",
                "integer",
                "string 80",
            ],
            ["shop.orders", "note", "missing", "accepted", "string", "nothing"],
            [
                "shop.orders",
                "shipping.carrier",
                "unknown",
                "rescued",
                "",
                "string 84",
            ],
            [
                "shop.orders",
                "total",
                "type_changed",
                "coerced",
                "decimal(12,2)",
                "string 80",
            ],
        ]);
        insta::assert_snapshot!(render(&[rows]).unwrap(), @r#"
        shop.customers
        change      path  expected  found          how often    effect       first seen            last seen
        ──────────  ────  ────────  ─────────────  ───────────  ───────────  ────────────────────  ────────────────────
        enum_grown  tier  string    "platinum" ×1  80 of 1,414  quarantined  2026-01-01T00:00:00Z  2026-01-02T00:00:00Z

        shop.orders
        change        path              expected  found       how often    effect       first seen            last seen
        ────────────  ────────────────  ────────  ──────────  ───────────  ───────────  ────────────────────  ────────────────────
        type_changed  lines[].quantity  integer   string ×80  80 of 1,414  quarantined  2026-01-01T00:00:00Z  2026-01-02T00:00:00Z
        missing       note              string    nothing     80 of 1,414  accepted     2026-01-01T00:00:00Z  2026-01-02T00:00:00Z
        unknown       shipping.carrier            string ×84  80 of 1,414  rescued      2026-01-01T00:00:00Z  2026-01-02T00:00:00Z
        read without loss as the declared type: total (decimal(12,2), 80 of 1,414)
        "#);
    }

    #[test]
    fn no_drift_is_said() {
        assert_eq!(
            render(&[]).unwrap(),
            "no drift: every load was as its contract says\n"
        );
    }
}
