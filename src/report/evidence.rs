//! Where a record came from, down to its bytes.

use serde_json::{Value, json};

use crate::report::grid::shown;

/// Longest record shown to people, in characters; `--format json` has all of it.
const RECORD_CHARS_MAX: usize = 4_000;

/// Longest value of a row shown to people, in characters.
const VALUE_CHARS_MAX: usize = 200;

/// A record's place in raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Number of the raw batch.
    pub batch: i64,
    /// Page within the batch.
    pub page: u32,
    /// Record within the page; `None` for a page without readable records.
    pub record: Option<u32>,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let record = self.record.map_or(-1, i64::from);
        write!(f, "{}/{}/{record}", self.batch, self.page)
    }
}

/// Where a record came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// Its place in raw.
    pub position: Position,
    /// What is known about the request and its answer, in order: name and value, secrets masked.
    pub request: Vec<(&'static str, String)>,
    /// Where the bytes are stored, in order: name and value.
    pub stored: Vec<(&'static str, String)>,
    /// The record exactly as it arrived, or the whole body of a page without readable records.
    pub record: Vec<u8>,
}

/// A table row, or a record set aside, with its evidence.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// What it is, such as `row of shop.orders`.
    pub what: String,
    /// Its columns, in order: name and value.
    pub values: Vec<(String, Option<String>)>,
    /// Why it was set aside, one reason each; empty for a row.
    pub reasons: Vec<String>,
    /// Where it came from, or why that cannot be had.
    pub evidence: Result<Evidence, String>,
}

impl Explained {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.what);
        for (name, value) in &self.values {
            let value = value
                .as_deref()
                .map_or_else(|| "NULL".to_owned(), |value| shown(value, VALUE_CHARS_MAX));
            text.push_str(&format!("  {name:<18} {value}\n"));
        }
        if !self.reasons.is_empty() {
            text.push_str("why it was set aside\n");
        }
        for reason in &self.reasons {
            text.push_str(&format!("  {}\n", shown(reason, 2 * VALUE_CHARS_MAX)));
        }
        match &self.evidence {
            Ok(evidence) => text.push_str(&evidence.text()),
            Err(reason) => text.push_str(&format!("raw\n  cannot be read: {reason}\n")),
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let values: Value = self
            .values
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        let mut object = json!({ "what": self.what, "values": values, "reasons": self.reasons });
        match &self.evidence {
            Ok(evidence) => object["raw"] = evidence.json(),
            Err(reason) => object["raw_error"] = json!(reason),
        }
        object
    }
}

impl Evidence {
    fn text(&self) -> String {
        let mut text = format!("raw position {} (batch/page/record)\n", self.position);
        for (name, value) in &self.stored {
            text.push_str(&format!("  {name:<18} {}\n", shown(value, VALUE_CHARS_MAX)));
        }
        text.push_str("request\n");
        for (name, value) in &self.request {
            text.push_str(&format!("  {name:<18} {}\n", shown(value, VALUE_CHARS_MAX)));
        }
        text.push_str(&format!("record as it arrived, {} bytes\n", self.record.len()));
        text.push_str(&format!(
            "  {}\n",
            shown(&String::from_utf8_lossy(&self.record), RECORD_CHARS_MAX)
        ));
        text
    }

    fn json(&self) -> Value {
        let pairs = |pairs: &[(&'static str, String)]| -> Value {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), json!(value)))
                .collect()
        };
        json!({
            "batch": self.position.batch,
            "page": self.position.page,
            "record_number": self.position.record,
            "stored": pairs(&self.stored),
            "request": pairs(&self.request),
            "record": std::str::from_utf8(&self.record).ok(),
            "record_hex": match std::str::from_utf8(&self.record) {
                Ok(_) => None,
                Err(_) => Some(self.record.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
            },
        })
    }
}
