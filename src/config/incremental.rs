//! How only changed records are asked for: the settings.

use std::{fmt, sync::Arc, time::Duration};

use chrono::Weekday;

use crate::{
    config::{read::values::show_duration, request::TokenSlot},
    json::JsonPath,
};

/// How only changed records are asked for.
#[derive(Clone, Debug)]
pub struct Incremental {
    /// The cursor within a record.
    pub cursor: JsonPath,
    /// Where the lower bound goes in the request; [`TokenSlot::Template`] for `window.since`, or if the API has no filter.
    pub to: TokenSlot,
    /// How cursor values are written, and how the bounds are.
    pub format: CursorFormat,
    /// Further forms in which cursor values occur, tried in order after `format`.
    pub also: Vec<CursorFormat>,
    /// The first bound: the latest of these moments. None asks for everything.
    pub start: Vec<Moment>,
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
    /// How long the API keeps changes: a watermark that is older has expired. Time formats only; none: it says so itself.
    pub retained: Option<Duration>,
}

/// Upper bounds of windows.
#[derive(Clone, Debug, PartialEq)]
pub struct Until {
    /// Where the bound goes; [`TokenSlot::Template`] for `window.until`.
    pub to: TokenSlot,
    /// How long one window is; none makes one window up to the present. Time formats only.
    pub step: Option<Step>,
    /// Whole periods of the calendar only: each window begins with one, and a period not yet over is left for later.
    pub align: Option<Calendar>,
    /// The last moment asked for: the earliest of these and the present.
    pub end: Vec<Moment>,
    /// The smallest difference between two cursors: an upper bound that the API includes is lowered by it. Zero for an
    /// API that leaves the bound out.
    pub granularity: Duration,
    /// A window that is no longer than this is not split. Zero splits down to what the format can say. Time formats only.
    pub split_min: Duration,
}

/// A moment, fixed or as seen from the present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A value of the cursor's format, as written in the file.
    At(String),
    /// So long before the window opens. Time formats only.
    Ago(Duration),
}

/// How long one window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// More than zero.
    Fixed(Duration),
    /// Months of the calendar, at least one.
    Months(u32),
}

/// A period of the calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calendar {
    /// From midnight.
    Day,
    /// From the midnight before this day of the week.
    Week(Weekday),
    /// From the first of the month.
    Month,
    /// From the first of January.
    Year,
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
    /// A strftime pattern as [chrono has it](https://docs.rs/chrono/latest/chrono/format/strftime/); without an offset in
    /// it, UTC. What it does not say is the least there is: the first of the month, midnight.
    Pattern(Arc<str>),
    /// A growing whole number without a unit.
    Integer,
    /// A position of a change feed: opaque, neither compared nor counted with. The page token of the last page is the
    /// next position.
    Feed,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(text) => f.write_str(text),
            Self::Ago(duration) => write!(f, "{} ago", show_duration(*duration)),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(duration) => f.write_str(&show_duration(*duration)),
            Self::Months(months) => write!(f, "{months}mo"),
        }
    }
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Day => f.write_str("day"),
            Self::Week(Weekday::Mon) => f.write_str("week"),
            Self::Week(day) => write!(f, "week from {day}"),
            Self::Month => f.write_str("month"),
            Self::Year => f.write_str("year"),
        }
    }
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
