//! Whether a request is sent again, and after how long.

use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::{
    clock::Timestamp,
    fields::{parts, whole},
};

/// Longest pause because an answer said that nothing is left, in a row of requests that all succeed. Buckets fill up all the
/// time; if it was too short, the next answer says exactly how long.
const PACE_MAX: Duration = Duration::from_secs(1);

/// How often, and how long between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Most attempts, the first among them.
    pub attempts_max: u32,
    /// The cap of the first wait; it doubles with each attempt.
    pub backoff_start: Duration,
    /// The highest cap.
    pub backoff_max: Duration,
}

impl Retry {
    /// 100 attempts, 100 ms doubled to 30 s: the deadline comes first.
    pub const USUAL: Self = Self {
        attempts_max: 100,
        backoff_start: Duration::from_millis(100),
        backoff_max: Duration::from_secs(30),
    };
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// The server answered.
    Answered {
        /// The HTTP status.
        status: u16,
        /// What the answer says about sending it again, if it does.
        retryable: Option<bool>,
        /// The headers of the answer.
        headers: &'a HeaderMap,
    },
    /// There was no whole answer: nobody knows whether it was kept.
    Lost,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The answer stands.
    Done,
    /// The attempts are used up.
    GiveUp,
    /// The same request again after this long.
    Wait(Duration),
}

/// Decides about attempt number `attempt` (from 1) that ended in `outcome` at `now`; `jitter` is in 0..1.
///
/// The wait is full jitter below a cap that doubles with each attempt. What the server asked for comes before it, so that
/// waiting producers do not all return at once.
///
/// ```
/// use std::time::Duration;
/// use landfall::{clock::Timestamp, push::retry::{Decision, Outcome, Retry, decide}};
/// let second = decide(&Retry::USUAL, &Outcome::Lost, 2, Timestamp::UNIX_EPOCH, 0.5);
/// assert_eq!(second, Decision::Wait(Duration::from_millis(100)));
/// ```
pub fn decide(retry: &Retry, outcome: &Outcome<'_>, attempt: u32, now: Timestamp, jitter: f64) -> Decision {
    let asked = match outcome {
        Outcome::Lost => Duration::ZERO,
        Outcome::Answered {
            status,
            retryable,
            headers,
        } => {
            let passing = matches!(status, 408 | 425 | 429 | 500 | 502..=504 | 507);
            if (200..300).contains(status) || !retryable.unwrap_or(passing) {
                return Decision::Done;
            }
            wait_asked(headers, now).unwrap_or_default()
        }
    };
    if attempt >= retry.attempts_max {
        return Decision::GiveUp;
    }
    let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1));
    let cap = retry.backoff_start.saturating_mul(doubled).min(retry.backoff_max);
    Decision::Wait(asked.saturating_add(cap.mul_f64(jitter.clamp(0.0, 1.0))))
}

/// The wait that the server asked for: `Retry-After` (RFC 9110, section 10.2.3), else until a `RateLimit` of which nothing is
/// left is full again.
pub fn wait_asked(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let asked = text.map(str::trim).and_then(|text| match whole(text) {
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None => {
            let until = Timestamp::from(httpdate::parse_http_date(text).ok()?);
            Some((until - now).to_std().unwrap_or_default())
        }
    });
    asked.or_else(|| exhausted(headers))
}

/// How long to wait after a success, so that the next request is not refused.
pub fn pace(headers: &HeaderMap) -> Duration {
    exhausted(headers).unwrap_or_default().min(PACE_MAX)
}

/// The longest reset of the quotas of which nothing is left (`r=0`, `t`: draft-ietf-httpapi-ratelimit-headers-10).
fn exhausted(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all("ratelimit").iter();
    let quotas = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| parts(list, b','));
    quotas
        .filter_map(|quota| {
            let parameter = |name: &str| {
                let parameters = parts(quota, b';').skip(1);
                let named = parameters.filter_map(|parameter| parameter.split_once('='));
                // Of a parameter that stands twice the last counts (RFC 9651, section 4.2.3.2).
                let (_, value) = named.filter(|(key, _)| *key == name).last()?;
                whole(value)
            };
            (parameter("r") == Some(0))
                .then(|| parameter("t"))?
                .map(Duration::from_secs)
        })
        .max()
}
