//! The budget of a credential: the settings.

use std::{path::PathBuf, time::Duration};

use crate::config::secret::Secret;

/// The budget of a credential, shared by all streams and workers that use it.
#[derive(Clone, Debug)]
pub struct RateLimit {
    /// Every bucket that matches a request must grant it. At least one.
    pub buckets: Vec<Bucket>,
    /// Who else spends the same budget.
    pub share: Share,
    /// Processes that may run on the budget at once; each is held to this part of it while the store of `share` cannot
    /// be reached. Default 4.
    pub processes: u32,
}

/// At most `requests` in any `per`.
#[derive(Clone, Debug, PartialEq)]
pub struct Bucket {
    /// Requests granted per window; at least 1.
    pub requests: u32,
    /// The window; more than zero.
    pub per: Duration,
    /// How windows follow each other.
    pub window: WindowKind,
    /// The requests that count; none is all.
    pub matches: Option<RequestPattern>,
}

/// How windows follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    /// Any stretch of this length is a window. The default, and never more than a fixed one would grant.
    Moving,
    /// Windows begin at whole multiples of their length since 1970, UTC.
    Fixed,
}

/// Which requests a bucket counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestPattern {
    /// The HTTP method in capitals; none is any.
    pub method: Option<String>,
    /// A regular expression that the path matches; none is any.
    pub path: Option<String>,
}

/// Who else spends the budget.
#[derive(Clone, Debug)]
pub enum Share {
    /// Nobody beyond this process. The default.
    Process,
    /// Every process that names the same file.
    File(PathBuf),
    /// Every process that names the same Redis, `redis://host:port/db`.
    Redis {
        /// Where it is.
        url: Secret,
        /// Under which name the budget is kept; by default the source's.
        key: String,
    },
}
