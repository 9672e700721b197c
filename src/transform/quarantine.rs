//! Records set aside, with the evidence a person needs to judge them.
//!
//! Every record has its row with position, class and path, so that counts are exact and each can be released. What was
//! found and the record's text are kept of samples: a source that breaks as a whole must not fill the lake twice.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{ArrayRef, Int32Builder, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder},
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
};
use serde_json::json;

use crate::{
    clock::Timestamp,
    contract::{Violation, ViolationClass, place::without_positions, sample::Place},
    error::{Error, ErrorKind, Result},
};

/// Longest record text kept in the quarantine table, in bytes. The whole record is in raw.
pub const RECORD_BYTES_KEPT: usize = 64 * 1024;

/// Records of one class and place that one load keeps with their text. The others can be read in raw.
pub const SAMPLES_MAX: usize = 1_000;

/// Bytes of text that one load keeps.
pub const SAMPLE_BYTES_MAX: usize = 64 << 20;

/// Classes and places that samples are counted by; of others that a load meets no text is kept.
const REASONS_MAX: usize = 10_000;

/// What all rows of one load share.
#[derive(Clone, Debug)]
pub struct LoadFacts {
    /// The load, a UUIDv7.
    pub load_id: String,
    /// When it began.
    pub loaded_at: Timestamp,
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

impl Origin<'_> {
    /// Where it is in raw.
    pub fn place(&self) -> Place {
        let Self {
            batch, page, record, ..
        } = *self;
        Place { batch, page, record }
    }
}

/// How many samples a part of a load may still keep.
#[derive(Debug)]
pub struct Samples {
    per_reason: usize,
    bytes: usize,
    kept: HashMap<(ViolationClass, String), usize>,
}

impl Samples {
    /// What one of `parts` parts of a load may keep.
    ///
    /// Each has its share, and of each reason one sample at least: which are kept does not depend on who comes first.
    pub fn of_part(parts: usize) -> Self {
        let parts = parts.max(1);
        Self {
            per_reason: (SAMPLES_MAX / parts).max(1),
            bytes: SAMPLE_BYTES_MAX / parts,
            kept: HashMap::new(),
        }
    }

    /// Whether a record of so many bytes that was set aside for `reason` is kept as a sample.
    fn take(&mut self, reason: &Violation, record: usize) -> bool {
        let bytes = record.min(RECORD_BYTES_KEPT);
        let key = (reason.class, without_positions(&reason.path));
        if self.kept.len() >= REASONS_MAX && !self.kept.contains_key(&key) {
            return false;
        }
        let kept = self.kept.entry(key).or_default();
        // The first of a reason is always kept; their number is limited, too.
        if *kept > 0 && (*kept >= self.per_reason || bytes > self.bytes) {
            return false;
        }
        *kept += 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        true
    }
}

/// Rows of the quarantine table in the making.
#[derive(Debug)]
pub struct Rows {
    facts: LoadFacts,
    contract_version: String,
    batch: Int64Builder,
    page: Int32Builder,
    record: Int32Builder,
    texts: [StringBuilder; 7],
    record_bytes: Int64Builder,
    count: usize,
}

impl Rows {
    /// No rows yet, of records that the contract of this version judged.
    pub fn new(facts: LoadFacts, contract_version: &str) -> Self {
        Self {
            facts,
            contract_version: contract_version.to_owned(),
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

    /// Adds one record with every reason found, as far as `samples` allow; `reasons` is never empty.
    pub fn push(
        &mut self,
        origin: Origin<'_>,
        record: Option<&[u8]>,
        reasons: &[Violation],
        samples: &mut Samples,
    ) {
        let first = reasons.first();
        let sample = first.filter(|first| samples.take(first, record.map_or(0, <[u8]>::len)));
        self.batch.append_value(origin.batch);
        self.page.append_value(origin.page);
        self.record.append_value(origin.record);
        let told = |reason: &Violation| {
            json!({
                "class": reason.class.as_str(), "path": reason.path,
                "expected": reason.expected, "found": reason.found,
            })
        };
        let all = sample.map(|_| serde_json::Value::from_iter(reasons.iter().map(told)).to_string());
        let [class, path, expected, found, violations, text, object] = &mut self.texts;
        class.append_option(first.map(|reason| reason.class.as_str()));
        path.append_option(first.map(|reason| reason.path.as_str()));
        expected.append_option(sample.map(|reason| reason.expected.as_str()));
        found.append_option(sample.map(|reason| reason.found.as_str()));
        violations.append_option(all);
        text.append_option(record.filter(|_| sample.is_some()).map(excerpt));
        object.append_option(sample.map(|_| origin.object));
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
        let version = constant(&self.contract_version);
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
    use arrow::array::{Array as _, AsArray as _};

    use super::*;

    #[test]
    fn r005_a_row_holds_record_reason_and_place() {
        let facts = LoadFacts {
            load_id: "load".to_owned(),
            loaded_at: Timestamp::UNIX_EPOCH,
            batch_to: 9,
        };
        let mut rows = Rows::new(facts, "1.2.0");
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
        rows.push(
            origin,
            Some(br#"{"id":1,"total":true}"#),
            &[reason],
            &mut Samples::of_part(1),
        );
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

    fn reason(path: &str) -> Violation {
        Violation {
            class: ViolationClass::Enum,
            path: path.to_owned(),
            expected: "a".to_owned(),
            found: "b".to_owned(),
        }
    }

    #[test]
    fn f141_beyond_the_samples_a_row_keeps_its_place_and_class() {
        let facts = LoadFacts {
            load_id: "load".to_owned(),
            loaded_at: Timestamp::UNIX_EPOCH,
            batch_to: 9,
        };
        let (mut rows, mut samples) = (Rows::new(facts, "1.2.0"), Samples::of_part(4));
        for record in 0..600 {
            let origin = Origin {
                batch: 0,
                page: 0,
                record,
                object: "x",
            };
            let reason = reason(&format!("lines[{record}].sku"));
            rows.push(origin, Some(b"{}"), &[reason], &mut samples);
        }
        let batch = rows.finish().unwrap();
        let nulls = |name: &str| batch.column_by_name(name).unwrap().null_count();
        for name in ["record", "found", "violations", "object", "expected"] {
            assert_eq!(nulls(name), 350, "{name}");
        }
        for name in ["_lf_record", "class", "path", "load_id", "record_bytes"] {
            assert_eq!(nulls(name), 0, "{name}");
        }
    }

    #[test]
    fn f141_samples_end_with_their_bytes_but_each_reason_has_one() {
        let mut samples = Samples::of_part(1);
        let most = SAMPLE_BYTES_MAX / RECORD_BYTES_KEPT;
        let record = 10 * RECORD_BYTES_KEPT;
        let kept = (0..2 * most)
            .filter(|_| samples.take(&reason("a"), record))
            .count();
        assert_eq!(kept, most.min(SAMPLES_MAX));
        while samples.bytes > 0 {
            let name = format!("n{}", samples.kept.len());
            assert!(samples.take(&reason(&name), record));
        }
        assert!(samples.take(&reason("b"), record) && !samples.take(&reason("b"), record));
    }

    #[test]
    fn a_long_record_is_cut_between_characters() {
        let record = "é".repeat(RECORD_BYTES_KEPT);
        let kept = excerpt(record.as_bytes());
        assert!(kept.len() <= RECORD_BYTES_KEPT && record.starts_with(&kept));
    }
}
