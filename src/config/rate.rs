//! The budget of a credential: the settings.

use std::{path::PathBuf, time::Duration};

use regex::Regex;

use crate::{
    config::{request::Request, secret::Secret},
    json::JsonPath,
};

/// The budget of a credential, shared by all streams and workers that use it.
#[derive(Clone, Debug)]
pub struct RateLimit {
    /// What may be sent. None leaves the pace to the server's own words.
    pub buckets: Vec<Bucket>,
    /// Which of several buckets that match a request count it.
    pub choose: Choose,
    /// Who else spends the same budget.
    pub share: Share,
    /// Processes that may run on the budget at once; each is held to this part of it while the store of `share` cannot
    /// be reached. Default 4.
    pub processes: u32,
    /// Where else the server says how much is left.
    pub headers: QuotaHeaders,
    /// What asks how much is left before anything else is asked; none waits for the first answer to say it.
    pub status: Option<Box<QuotaStatus>>,
}

/// How many of some requests may be sent.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// All of them hold; none lets requests go freely.
    pub rates: Vec<Rate>,
    /// How windows follow each other.
    pub window: WindowKind,
    /// The requests that count: those that match any; every request if there are none.
    pub matches: Vec<RequestPattern>,
}

/// At most `requests` in any `per`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests granted per window; at least 1.
    pub requests: u32,
    /// The window; more than zero.
    pub per: Duration,
}

/// How windows follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowKind {
    /// Any stretch of this length is a window. The default, and never more than a fixed one would grant.
    Moving,
    /// Windows begin at whole multiples of their length since 1970, UTC.
    Fixed,
}

/// Which of several buckets that match a request count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choose {
    /// Each of them, and all must grant it. The default.
    All,
    /// The first in the order of the file.
    First,
}

/// Which requests a bucket counts: all that is named here must match.
#[derive(Clone, Debug)]
pub struct RequestPattern {
    /// The HTTP method in capitals; none is any.
    pub method: Option<String>,
    /// Found somewhere in the path of the URL; none is any.
    pub path: Option<Regex>,
    /// Query parameters with these values.
    pub params: Vec<(String, String)>,
    /// Request headers, by lowercase name, with these values.
    pub headers: Vec<(String, String)>,
    /// How many requests one of these counts as. Default 1.
    pub weight: u32,
}

/// Who else spends the budget.
#[derive(Clone, Debug)]
pub enum Share {
    /// Nobody beyond this process. The default.
    Process,
    /// Every process of this machine that names the same file and key.
    File {
        /// A file of its own, on a local disk; made if it is missing.
        path: PathBuf,
        /// Under which name the budget is kept; by default the source's.
        key: String,
    },
    /// Every process that names the same Redis and key.
    Redis {
        /// Where it is, `redis://host:port/db`.
        url: Secret,
        /// Under which name the budget is kept; by default the source's.
        key: String,
    },
}

/// Response headers, by lowercase name, that say how much is left. Read besides the usual ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuotaHeaders {
    /// Requests per window.
    pub limit: Option<String>,
    /// Requests left.
    pub remaining: Option<String>,
    /// When the window ends: in seconds from now, as a moment, or as a duration.
    pub reset: Option<String>,
}

/// A request that asks how much is left, and where its JSON answer says it.
#[derive(Clone, Debug)]
pub struct QuotaStatus {
    /// The request; its templates know `config`.
    pub request: Request,
    /// Requests left.
    pub remaining: JsonPath,
    /// When the window ends: in seconds from now, as a moment, or as a duration.
    pub reset: JsonPath,
    /// Requests per window.
    pub limit: Option<JsonPath>,
}

impl RateLimit {
    /// One moving window for every request of this process.
    pub fn simple(requests: u32, per: Duration) -> Self {
        Self {
            buckets: vec![Bucket {
                rates: vec![Rate { requests, per }],
                window: WindowKind::Moving,
                matches: Vec::new(),
            }],
            choose: Choose::All,
            share: Share::Process,
            processes: Self::PROCESSES_DEFAULT,
            headers: QuotaHeaders::default(),
            status: None,
        }
    }
}

impl RequestPattern {
    /// Matches every request and counts it once.
    pub fn is_any(&self) -> bool {
        let Self {
            method,
            path,
            params,
            headers,
            weight,
        } = self;
        method.is_none() && path.is_none() && params.is_empty() && headers.is_empty() && *weight == 1
    }
}
