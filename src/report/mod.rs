//! What people and machines read: rows on stdout, and reports over the lake.
//!
//! ```text
//! query ─ sql/reports/*.sql ─► rows ─┬─ text (aligned columns)
//!                                    ├─ json (one object a line)
//!                                    └─ csv
//! ```

pub mod drift;
pub mod evidence;
pub mod grid;
pub mod lineage;
pub mod metrics;
pub mod quarantine;
pub mod rows;
pub mod shell;
pub mod status;

use std::{io, str::FromStr};

use arrow::datatypes::DataType;
use chrono::SecondsFormat;
use datafusion::scalar::ScalarValue;

use crate::{
    clock::Timestamp,
    config::StreamName,
    error::{Error, ErrorKind},
};

/// How rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns for people. Long values are cut.
    Table,
    /// One JSON object a line, nothing cut.
    Json,
    /// RFC 4180 with a header, nothing cut; nested values as JSON.
    Csv,
}

impl Format {
    /// Every format by its name.
    pub const NAMES: [(&'static str, Self); 3] =
        [("table", Self::Table), ("json", Self::Json), ("csv", Self::Csv)];
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, format)| *format).ok_or_else(|| {
            Error::new(ErrorKind::Config, "read format")
                .with("format", text)
                .with("expected", "table, json or csv")
        })
    }
}

/// What an error about the output itself says; a reader that went away is found by it.
const WRITE: &str = "write output";

/// Lowers an error of the output.
pub fn write_error(source: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, WRITE).caused_by(source)
}

/// Whether `error` says that the reader of the output went away, as `head` does. Nothing is wrong then.
pub fn reader_gone(error: &Error) -> bool {
    use std::error::Error as _;
    let cause = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>());
    error.message() == WRITE && cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// A moment as RFC 3339 in UTC, to the second.
pub fn moment(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// How long ago `then` was, in its largest unit.
///
/// ```
/// use landfall::{clock::Timestamp, report::ago};
/// let then = Timestamp::UNIX_EPOCH;
/// assert_eq!(ago(then + std::time::Duration::from_secs(7_300), then), "2 h ago");
/// ```
pub fn ago(now: Timestamp, then: Timestamp) -> String {
    let seconds = (now - then).num_seconds();
    match seconds {
        ..2 => "just now".to_owned(),
        2..120 => format!("{seconds} s ago"),
        120..7_200 => format!("{} min ago", seconds / 60),
        7_200..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// 1200 as `1,200`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with its noun.
///
/// ```
/// use landfall::report::counted;
/// assert_eq!(counted(1, "page", "pages"), "1 page");
/// assert_eq!(counted(1_200, "page", "pages"), "1,200 pages");
/// ```
pub fn counted(number: u64, one: &str, more: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { more })
}

/// RFC 3339 text cut to whole seconds.
fn seconds(text: &str) -> String {
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text.to_owned(),
    }
}

/// The names of `streams` as a list parameter.
pub fn names(streams: &[StreamName]) -> ScalarValue {
    texts(streams.iter().map(StreamName::to_string))
}

/// A list of texts for a query.
pub fn texts(texts: impl IntoIterator<Item = impl Into<String>>) -> ScalarValue {
    let texts: Vec<ScalarValue> = texts
        .into_iter()
        .map(|text| ScalarValue::from(text.into()))
        .collect();
    ScalarValue::List(ScalarValue::new_list_nullable(&texts, &DataType::Utf8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let texts = [0, 999, 1_000, 12_345, 1_234_567].map(count);
        assert_eq!(texts, ["0", "999", "1,000", "12,345", "1,234,567"]);
    }

    #[test]
    fn only_a_reader_that_went_away_is_no_failure() {
        assert!(reader_gone(&write_error(io::ErrorKind::BrokenPipe.into())));
        assert!(!reader_gone(&write_error(io::ErrorKind::StorageFull.into())));
        let network = Error::new(ErrorKind::Unavailable, "fetch page")
            .caused_by(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(!reader_gone(&network));
    }
}
