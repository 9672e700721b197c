//! What was set aside, and why.

use arrow::array::RecordBatch;
use datafusion::{dataframe::DataFrame, scalar::ScalarValue};
use serde_json::{Map, Value};

use crate::{
    config::StreamName,
    error::Result,
    query::{Session, sql_error},
    report::{counted, grid::shown, names, rows},
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
    format!(
        "  {}: {}{place}: expected {}, found {}\n      landfall quarantine show {stream} {}\n",
        counted(records, "record", "records"),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{ArrayRef, Int64Array, StringArray},
        datatypes::{Field, Schema},
    };

    use super::*;

    #[test]
    fn reasons_are_told_with_a_sample_to_look_at() {
        let text = |values: [&str; 2]| -> ArrayRef { Arc::new(StringArray::from(values.to_vec())) };
        let columns = [
            ("stream", text(["shop.customers", "shop.orders"])),
            ("class", text(["enum", "not_json"])),
            ("place", text(["tier", ""])),
            ("records", Arc::new(Int64Array::from(vec![1_200, 1])) as ArrayRef),
            ("expected", text(["one of \"gold\"", "JSON"])),
            ("found", text(["string \"platinum\"", "not JSON at byte 7"])),
            ("sample", text(["1/4/5", "0/2/-1"])),
        ];
        let fields: Vec<Field> = columns
            .iter()
            .map(|(name, array)| Field::new(*name, array.data_type().clone(), true))
            .collect();
        let arrays = columns.into_iter().map(|(_, array)| array).collect();
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
        insta::assert_snapshot!(render(std::slice::from_ref(&rows), 50).unwrap(), @r#"
        shop.customers
          1,200 records: enum at tier: expected one of "gold", found string "platinum"
              landfall quarantine show shop.customers 1/4/5

        shop.orders
          1 record: not_json: expected JSON, found not JSON at byte 7
              landfall quarantine show shop.orders 0/2/-1
        "#);
        assert!(
            render(&[rows], 2)
                .unwrap()
                .ends_with("only the first 2 reasons are listed: see --limit\n")
        );
        assert_eq!(render(&[], 50).unwrap(), "nothing is quarantined\n");
    }
}
