//! Records set aside, with the evidence a person needs to judge them.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int32Builder, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use serde_json::json;

use crate::{
    clock::Timestamp,
    contract::Violation,
    error::{Error, ErrorKind, Result},
};

/// Longest record text kept in the quarantine table, in bytes. The whole record is in raw.
pub const RECORD_BYTES_KEPT: usize = 64 * 1024;

/// What all rows of one load share.
#[derive(Clone, Debug)]
pub struct LoadFacts {
    /// The load, a UUIDv7.
    pub load_id: String,
    /// When it began.
    pub loaded_at: Timestamp,
    /// Version of the contract it judged by.
    pub contract_version: String,
    /// The last raw batch of the load.
    pub batch_to: i64,
}

/// The schema of a stream's quarantine table: one row per record set aside.
pub fn schema() -> SchemaRef {
    let moment = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("_lf_batch", DataType::Int64, true),
        Field::new("_lf_page", DataType::Int32, true),
        Field::new("_lf_record", DataType::Int32, true),
        Field::new("class", DataType::Utf8, true),
        Field::new("path", DataType::Utf8, true),
        Field::new("expected", DataType::Utf8, true),
        Field::new("found", DataType::Utf8, true),
        Field::new("violations", DataType::Utf8, true),
        Field::new("record", DataType::Utf8, true),
        Field::new("record_bytes", DataType::Int64, true),
        Field::new("object", DataType::Utf8, true),
        Field::new("contract_version", DataType::Utf8, true),
        Field::new("load_id", DataType::Utf8, true),
        Field::new("batch_to", DataType::Int64, true),
        Field::new("quarantined_at", moment(), true),
    ]))
}

/// Where a quarantined record came from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Raw batch number.
    pub batch: i64,
    /// Page within the batch.
    pub page: i32,
    /// Record within the page; -1 for a whole page.
    pub record: i32,
    /// The object that holds the page.
    pub object: &'a str,
}

/// Rows of the quarantine table in the making.
#[derive(Debug)]
pub struct Rows {
    facts: LoadFacts,
    batch: Int64Builder,
    page: Int32Builder,
    record: Int32Builder,
    texts: [StringBuilder; 7],
    record_bytes: Int64Builder,
    count: usize,
}

impl Rows {
    /// No rows yet.
    pub fn new(facts: LoadFacts) -> Self {
        Self {
            facts,
            batch: Int64Builder::new(),
            page: Int32Builder::new(),
            record: Int32Builder::new(),
            texts: Default::default(),
            record_bytes: Int64Builder::new(),
            count: 0,
        }
    }

    /// Rows so far.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds one record with every reason found; `reasons` is never empty.
    pub fn push(&mut self, origin: Origin<'_>, record: Option<&[u8]>, reasons: &[Violation]) {
        self.batch.append_value(origin.batch);
        self.page.append_value(origin.page);
        self.record.append_value(origin.record);
        let all: Vec<_> = reasons
            .iter()
            .map(|reason| {
                json!({
                    "class": reason.class.as_str(), "path": reason.path,
                    "expected": reason.expected, "found": reason.found,
                })
            })
            .collect();
        let first = reasons.first();
        let [class, path, expected, found, violations, text, object] = &mut self.texts;
        class.append_option(first.map(|reason| reason.class.as_str()));
        path.append_option(first.map(|reason| reason.path.as_str()));
        expected.append_option(first.map(|reason| reason.expected.as_str()));
        found.append_option(first.map(|reason| reason.found.as_str()));
        violations.append_value(serde_json::Value::from(all).to_string());
        text.append_option(record.map(excerpt));
        object.append_value(origin.object);
        self.record_bytes
            .append_option(record.and_then(|record| i64::try_from(record.len()).ok()));
        self.count += 1;
    }

    /// The rows as an Arrow batch of [`schema`].
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the columns do not fit the schema.
    pub fn finish(mut self) -> Result<RecordBatch> {
        let constant = |text: &str| -> ArrayRef {
            Arc::new(arrow::array::StringArray::from_iter_values(std::iter::repeat_n(
                text, self.count,
            )))
        };
        let version = constant(&self.facts.contract_version);
        let load_id = constant(&self.facts.load_id);
        let mut at = TimestampMicrosecondBuilder::new().with_timezone("UTC");
        at.append_value_n(self.facts.loaded_at.timestamp_micros(), self.count);
        let [class, path, expected, found, violations, text, object] = &mut self.texts;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.batch.finish()),
            Arc::new(self.page.finish()),
            Arc::new(self.record.finish()),
            Arc::new(class.finish()),
            Arc::new(path.finish()),
            Arc::new(expected.finish()),
            Arc::new(found.finish()),
            Arc::new(violations.finish()),
            Arc::new(text.finish()),
            Arc::new(self.record_bytes.finish()),
            Arc::new(object.finish()),
            version,
            load_id,
            Arc::new(arrow::array::Int64Array::from_value(
                self.facts.batch_to,
                self.count,
            )),
            Arc::new(at.finish()),
        ];
        RecordBatch::try_new(schema(), columns)
            .map_err(|source| Error::new(ErrorKind::Internal, "build quarantine rows").caused_by(source))
    }
}

/// The record as text, cut at [`RECORD_BYTES_KEPT`]; bytes that are not UTF-8 become U+FFFD.
fn excerpt(record: &[u8]) -> String {
    let mut end = record.len().min(RECORD_BYTES_KEPT);
    while end < record.len() && end > 0 && record[end] & 0xC0 == 0x80 {
        end -= 1;
    }
    String::from_utf8_lossy(&record[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray as _;

    use super::*;
    use crate::contract::ViolationClass;

    #[test]
    fn r005_a_row_holds_record_reason_and_place() {
        let facts = LoadFacts {
            load_id: "load".to_owned(),
            loaded_at: Timestamp::UNIX_EPOCH,
            contract_version: "1.2.0".to_owned(),
            batch_to: 9,
        };
        let mut rows = Rows::new(facts);
        let reason = Violation {
            class: ViolationClass::TypeMismatch,
            path: "total".to_owned(),
            expected: "decimal(12,2)".to_owned(),
            found: "true".to_owned(),
        };
        let origin = Origin {
            batch: 7,
            page: 1,
            record: 3,
            object: "raw/shop/orders/x",
        };
        rows.push(origin, Some(br#"{"id":1,"total":true}"#), &[reason]);
        let batch = rows.finish().unwrap();
        let text = |name: &str| {
            batch
                .column_by_name(name)
                .unwrap()
                .as_string::<i32>()
                .value(0)
                .to_owned()
        };
        assert_eq!(text("class"), "type_mismatch");
        assert_eq!(text("record"), r#"{"id":1,"total":true}"#);
        assert_eq!(text("object"), "raw/shop/orders/x");
        assert!(text("violations").contains(r#""expected":"decimal(12,2)""#));
    }

    #[test]
    fn a_long_record_is_cut_between_characters() {
        let record = "é".repeat(RECORD_BYTES_KEPT);
        let kept = excerpt(record.as_bytes());
        assert!(kept.len() <= RECORD_BYTES_KEPT && record.starts_with(&kept));
    }
}
