//! What a stream's records should look like, and the judgement of one record against it.
//!
//! ```text
//! ODCS v3 YAML ─ odcs ─► Contract ─ judge(bytes) ─► typed columns + verdicts + observations ─ drift ─► changes
//! ```
//!
//! Pure: no I/O, no clock. Bad data is a value ([`Violation`]), never an error and never a panic.

pub mod cast;
pub mod classified;
pub mod columns;
pub mod compat;
pub mod contracts;
pub mod diff;
pub mod drift;
pub mod evidence;
pub mod example;
pub mod export;
pub mod flatten;
pub mod infer;
pub mod judge;
pub mod lifecycle;
mod numbers;
pub mod observed;
pub mod odcs;
pub mod patch;
pub mod place;
mod plan;
pub mod policy;
pub mod quality;
mod record;
pub mod revisions;
pub mod sample;
pub mod service;
mod times;
mod undeclared;
mod widening;
mod work;

use std::fmt;

use quality::QualityRule;

use crate::config::{OnMismatch, OnUnknown};

/// A versioned schema with rules for one stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Contract {
    /// The ODCS `id`.
    pub id: String,
    /// Semantic version, `major.minor.patch`.
    pub version: String,
    /// ODCS `status`: `draft` contracts evolve by themselves, others are pinned.
    pub status: String,
    /// The columns of the main table, in order.
    pub columns: Vec<Column>,
    /// Rules in SQL: those of the table, then those of its columns in their order.
    pub quality: Vec<QualityRule>,
}

/// One column, or one field of a nested object.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name in the table.
    pub name: String,
    /// Member names from the record (or the enclosing object) down to the value; usually just the name.
    pub path: Vec<String>,
    /// What values it takes.
    pub kind: ColumnType,
    /// Whether a record without it, or with null, is quarantined.
    pub required: bool,
    /// Whether ODCS calls it part of the primary key.
    pub primary_key: bool,
    /// Whether text that is exactly a value of the type is accepted.
    pub coercion: Coercion,
    /// Rules beyond the type.
    pub rules: Rules,
    /// What happens to a value that does not fit it, or fits nothing within it, if not what the stream says.
    pub on_mismatch: Option<OnMismatch>,
    /// What happens to members of the object that are not named, if not what the stream says.
    pub on_unknown: Option<OnUnknown>,
    /// ODCS `classification`, such as `restricted`; samples of such columns are masked.
    pub classification: Option<String>,
    /// ODCS `description`.
    pub description: Option<String>,
}

/// What values a column takes.
#[derive(Clone, Debug, PartialEq)]
pub enum ColumnType {
    /// Unicode text. Arrow `Utf8`.
    String,
    /// A whole number of 64 bits. Arrow `Int64`.
    Integer,
    /// A binary floating-point number of 64 bits. Arrow `Float64`. Underflow and the nearest-double rule apply; infinities do not.
    Number,
    /// An exact number. Arrow `Decimal128(precision, scale)`, precision 1–38, scale 0–precision.
    Decimal {
        /// Digits in all, 1–38.
        precision: u8,
        /// Digits behind the point, 0–precision.
        scale: i8,
    },
    /// Arrow `Boolean`.
    Boolean,
    /// A calendar date, `YYYY-MM-DD`. Arrow `Date32`.
    Date,
    /// A moment. Arrow `Timestamp(Microsecond, "UTC")`.
    Timestamp(TimestampFormat),
    /// A JSON object with declared members. Arrow `Struct`.
    Object(Vec<Column>),
    /// A JSON array. Arrow `List` of a nullable element named `element`. The element's `name` and `path` are unused.
    Array(Box<Column>),
    /// Any JSON value, kept as its own bytes. Arrow `Utf8`.
    Json,
}

impl ColumnType {
    /// The type in the words of violations, such as `decimal(12,2)`.
    pub(crate) fn words(&self) -> String {
        plan::words(self)
    }

    /// Whether a value may have values in it.
    pub(crate) fn is_composed(&self) -> bool {
        matches!(self, Self::Object(_) | Self::Array(_) | Self::Json)
    }
}

/// How a moment is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimestampFormat {
    /// RFC 3339 with an offset.
    Rfc3339,
    /// A JSON whole number (or its text, if coercion allows): seconds since 1970.
    EpochSeconds,
    /// Milliseconds since 1970.
    EpochMillis,
    /// A date and time without offset, meant in a fixed offset from UTC in seconds. Values with an offset are accepted
    /// too, and so are dates, as the beginning of the day there.
    Naive {
        /// Seconds east of UTC.
        offset_seconds: i32,
    },
}

/// Whether text that is exactly a value of the type is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coercion {
    /// Accepted and counted. The default.
    Lossless,
    /// Refused.
    None,
}

/// Rules beyond the type.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// The only values allowed, as JSON text in canonical form (`"paid"`, `3`).
    pub allowed: Option<Vec<String>>,
    /// A regular expression text must match somewhere; linear time.
    pub pattern: Option<String>,
    /// Fewest Unicode characters of text, or elements of an array.
    pub length_min: Option<u64>,
    /// Most Unicode characters of text, or elements of an array.
    pub length_max: Option<u64>,
    /// Least value of a number, as written.
    pub minimum: Option<String>,
    /// Greatest value of a number, as written.
    pub maximum: Option<String>,
    /// Whether no two keys should have the same value. Rows are never refused for it, because what a load meets depends on
    /// where it was cut; it is counted as drift.
    pub unique: bool,
}

/// One way in which a record does not fit its contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub class: ViolationClass,
    /// Where in the record, such as `customer.email` or `lines[2].price`; empty for the record itself.
    pub path: String,
    /// What the contract says, in its words.
    pub expected: String,
    /// What was there: a JSON kind or a short excerpt, never more than 80 characters.
    pub found: String,
}

/// The closed list of reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ViolationClass {
    /// The page or the record is not JSON (RFC 8259), or not UTF-8.
    NotJson,
    /// The page has no value at the records path.
    RecordsPathMissing,
    /// The record is JSON but not an object.
    NotAnObject,
    /// An object names a member twice.
    DuplicateKey,
    /// A key column is missing, null or empty text.
    KeyMissing,
    /// A required member is absent.
    RequiredMissing,
    /// A required member is null.
    NullInRequired,
    /// A value of another type.
    TypeMismatch,
    /// A value the type cannot hold exactly, or outside `minimum`..`maximum`.
    OutOfRange,
    /// Not one of the allowed values.
    Enum,
    /// Text that does not match the pattern.
    Pattern,
    /// Text or an array of a length that is not allowed.
    Length,
    /// A SQL rule of the contract says no.
    RuleFailed,
    /// Nested deeper than 128.
    TooDeep,
    /// Larger than the limit for one record.
    TooLarge,
    /// A member the contract does not name, under `on_unknown: quarantine`.
    UnknownField,
    /// Stored bytes are not what was landed.
    RawCorrupt,
    /// The stored object is gone.
    RawMissing,
}

impl ViolationClass {
    /// The name used in tables and reports, such as `required_missing`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::RecordsPathMissing => "records_path_missing",
            Self::NotAnObject => "not_an_object",
            Self::DuplicateKey => "duplicate_key",
            Self::KeyMissing => "key_missing",
            Self::RequiredMissing => "required_missing",
            Self::NullInRequired => "null_in_required",
            Self::TypeMismatch => "type_mismatch",
            Self::OutOfRange => "out_of_range",
            Self::Enum => "enum",
            Self::Pattern => "pattern",
            Self::Length => "length",
            Self::RuleFailed => "rule_failed",
            Self::TooDeep => "too_deep",
            Self::TooLarge => "too_large",
            Self::UnknownField => "unknown_field",
            Self::RawCorrupt => "raw_corrupt",
            Self::RawMissing => "raw_missing",
        }
    }
}

impl fmt::Display for ViolationClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
