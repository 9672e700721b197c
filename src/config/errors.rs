//! What failed answers mean and when a request is sent again: the settings.

use std::time::Duration;

use crate::config::text::{Expr, Text};

/// What an answer means when it is not what it should be. The first rule that matches decides, those of the stream
/// before those of the source; without one, [`retry::decide`](crate::extract::retry::decide) does.
///
/// A rule matches if everything it names does. One that names nothing would match every answer; the reader refuses it.
#[derive(Clone, Debug)]
pub struct ErrorRule {
    /// Statuses, such as 404 or 500 to 599, ends included; empty for any.
    pub status: Vec<(u16, u16)>,
    /// A response header by lowercase name, and what its value contains, in upper or lower case. An empty text asks
    /// only that the header is there.
    pub header: Option<(String, String)>,
    /// Text that the body contains, as written.
    pub body: Option<String>,
    /// Holds over `status`, `headers`, `response` and `config`. A variable that is not there does not hold.
    pub when: Option<Expr>,
    /// What it means.
    pub then: Action,
    /// Where to read how long to wait before the next attempt, in place of the backoff; the first that says decides.
    pub wait: Vec<Wait>,
    /// Said to the user besides our own words; over the variables of `when`.
    pub message: Option<Text>,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A good page, whatever its status. Without a body, or without the records path, it is a page of no records.
    Accept,
    /// No page: the slice ends here without an error, nothing is landed, and the watermark stays.
    Ignore,
    /// An error that no second attempt changes.
    Fail,
    /// An error that may pass.
    Retry,
    /// The budget is spent: every worker of the credential waits.
    Throttle,
    /// The credential has expired: renew it, then send again, once.
    Renew,
    /// The page token no longer holds: begin the window again from the greatest cursor seen, once.
    Reset,
    /// The page is too much for the server: ask for half the records.
    Split,
    /// The window is too much for the server: ask for each half of it.
    SplitWindow,
}

/// Where the length of a wait stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Wait {
    /// Always this long.
    Constant {
        /// At least.
        time: Duration,
        /// A random part of this is added, so that not all workers return at once.
        jitter: Duration,
    },
    /// In a response header.
    Header {
        /// Its lowercase name.
        name: String,
        /// What its number counts.
        unit: WaitUnit,
        /// The number is the first group of this pattern in the value, or the whole match; none reads the whole value.
        pattern: Option<String>,
        /// Least wait, whatever the header says.
        least: Duration,
    },
    /// What an expression over the variables of [`ErrorRule::when`] gives. Nothing, no number, and what is not there say
    /// nothing.
    Value {
        /// The expression.
        value: Expr,
        /// What its number counts.
        unit: WaitUnit,
        /// Least wait, whatever the answer says.
        least: Duration,
    },
}

/// What the number in an answer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitUnit {
    /// Seconds from now.
    Seconds,
    /// Milliseconds from now.
    Millis,
    /// The second since 1970 at which to go on.
    UntilEpochSeconds,
    /// The millisecond since 1970 at which to go on.
    UntilEpochMillis,
}

/// When and how often a failed request is sent again. Waits are full jitter between zero and the cap of the attempt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// Requests sent for one page, the first included. Default 6.
    pub attempts_max: u32,
    /// The cap of the first wait; doubles with each attempt. Default 1 s.
    pub backoff_start: Duration,
    /// No backoff is longer. Default 60 s.
    pub backoff_max: Duration,
    /// The longest wait a server may ask for with `Retry-After`; beyond it the stream fails at once. Default 5 min.
    pub retry_after_max: Duration,
}

/// When a host is left alone because it fails, and how many repeats it is sent at all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Breaker {
    /// Failures in a row, of any stream, that open it. Default 10.
    pub failures: u32,
    /// How long it stays open before one request tries. Default 30 s.
    pub open: Duration,
    /// Repeats allowed per request that succeeded, beyond the first [`Breaker::repeats_free`]. Default 0.1.
    pub repeats_ratio: f64,
    /// Repeats allowed before the ratio counts. Default 30.
    pub repeats_free: u32,
}
