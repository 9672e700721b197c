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
pub mod quarantine;
pub mod rows;
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

/// The names of `streams` as a list parameter.
fn names(streams: &[StreamName]) -> ScalarValue {
    let names: Vec<ScalarValue> = streams
        .iter()
        .map(|name| ScalarValue::from(name.to_string()))
        .collect();
    ScalarValue::List(ScalarValue::new_list_nullable(&names, &DataType::Utf8))
}
