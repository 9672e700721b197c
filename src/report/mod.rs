//! What people and machines read: rows on stdout, and reports over the lake.
//!
//! ```text
//! query ─ sql/reports/*.sql ─► rows ─┬─ text (aligned columns)
//!                                    ├─ json (one object a line)
//!                                    └─ csv
//! ```

pub mod drift;
pub mod grid;
pub mod quarantine;
pub mod rows;
pub mod status;

use std::{io, str::FromStr};

use crate::error::{Error, ErrorKind};

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
            Error::new(ErrorKind::Config, "read format").with("format", text).with("expected", "table, json or csv")
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
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    error.message() == WRITE && cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
