//! How only changed records are asked for: the settings.

use std::{sync::Arc, time::Duration};

use crate::{config::request::TokenSlot, json::JsonPath};

/// How only changed records are asked for.
#[derive(Clone, Debug)]
pub struct Incremental {
    /// The cursor within a record.
    pub cursor: JsonPath,
    /// Where the lower bound goes in the request.
    pub to: TokenSlot,
    /// How cursor values are written, and how the bounds are.
    pub format: CursorFormat,
    /// Further forms in which cursor values occur, tried in order after `format`.
    pub also: Vec<CursorFormat>,
    /// The first bound, as written in the file; none asks for everything.
    pub start: Option<String>,
    /// How far before the watermark the next window begins. Time formats only.
    pub lookback: Duration,
    /// Where the upper bound goes in the request, and how long a window is.
    pub until: Option<Until>,
    /// In which order the API sends records.
    pub order: Order,
    /// Whether pages without a record at or after the lower bound are landed.
    pub filter: Filter,
    /// How far in the future a cursor may lie and still count; a later one is kept and does not move the watermark.
    /// Default 5 min.
    pub skew: Duration,
    /// What to do when the API no longer knows the position (410, or an error rule that says so).
    pub on_expired: OnExpired,
}

/// Upper bounds of windows.
#[derive(Clone, Debug, PartialEq)]
pub struct Until {
    /// Where the bound goes; [`TokenSlot::Template`] for `window.until`.
    pub to: TokenSlot,
    /// How long one window is; none makes one window up to the present. Time formats only.
    pub step: Option<Duration>,
    /// The last moment asked for, as written in the file; none is the present.
    pub end: Option<String>,
    /// The smallest difference between two cursors: an upper bound that the API includes is lowered by it.
    pub granularity: Duration,
}

/// In which order the API sends records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Unknown: the watermark moves when the window is complete. The default.
    Any,
    /// Newest first: a page with nothing at or after the lower bound is the last.
    NewestFirst,
    /// Oldest first: as any, and checked.
    OldestFirst,
}

/// Whether pages that hold nothing new are landed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The API filters; every page is landed. The default.
    Api,
    /// The API has no filter: a page without a record at or after the lower bound is not landed.
    Here,
}

/// What to do when the API no longer knows the position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExpired {
    /// Stop with an error that says what was missed. The default.
    Stop,
    /// Ask for everything again.
    Resync,
}

/// How cursor values are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CursorFormat {
    /// RFC 3339 date-time.
    Rfc3339,
    /// `YYYY-MM-DD`.
    Date,
    /// Seconds since 1970, a JSON number or digits in text.
    EpochSeconds,
    /// Milliseconds since 1970.
    EpochMillis,
    /// Microseconds since 1970.
    EpochMicros,
    /// A strftime pattern; without an offset in it, UTC.
    Pattern(Arc<str>),
    /// A growing whole number without a unit.
    Integer,
    /// A position of a change feed: opaque, neither compared nor counted with. The page token of the last page is the
    /// next position.
    Feed,
}

impl CursorFormat {
    /// What the format is called in the project file; a pattern is itself.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Rfc3339 => "rfc3339",
            Self::Date => "date",
            Self::EpochSeconds => "epoch_s",
            Self::EpochMillis => "epoch_ms",
            Self::EpochMicros => "epoch_us",
            Self::Pattern(pattern) => pattern,
            Self::Integer => "integer",
            Self::Feed => "feed",
        }
    }
}

/// A complete pass from time to time over a stream that is otherwise read incrementally.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reconcile {
    /// How much time passes between two of them.
    pub every: Duration,
}
