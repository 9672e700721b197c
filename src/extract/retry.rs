//! Whether a request is sent again, and after how long.

use std::{fmt, time::Duration};

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use crate::{
    clock::Timestamp,
    config::errors::{Action, Retry},
    error::ErrorKind,
    extract::quota,
};

/// The end of what might have passed and did not.
const UNAVAILABLE: Decision = Decision::GiveUp(ErrorKind::Unavailable);

/// How one attempt ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// The server answered; status and headers decide.
    Answered {
        /// The HTTP status.
        status: u16,
        /// The headers of the answer.
        headers: &'a HeaderMap,
    },
    /// The server answered 2xx with something that is not JSON.
    NotJson,
    /// The server answered 2xx, and in the body that the budget is spent for at least this long.
    Throttled(Duration),
    /// The server answered with data and with errors about some of them.
    Partial,
    /// A rule of the project file decides.
    Ruled {
        /// What it says.
        action: Action,
        /// The wait it found.
        wait: Option<Duration>,
        /// The headers of the answer.
        headers: &'a HeaderMap,
    },
    /// There was no whole answer.
    Failed(FailureKind),
    /// Nothing was sent: every host is still left alone for this long.
    Held(Duration),
}

/// Why there was no whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// No connection: refused, reset, or no such name.
    Connect,
    /// The connection is not secure: a certificate or the TLS protocol does not hold.
    Tls,
    /// A timeout passed.
    Timeout,
    /// The body ended too soon, or its content coding is broken.
    Cut,
    /// More bytes than a limit allows.
    TooLarge,
    /// An unsafe redirect, or a content coding that was not asked for.
    Unsafe,
    /// The request could not be made from the project file.
    Config,
    /// It was not sent: there was no credential or no leave to send it. Whoever gives them has tried again already.
    Unsent(ErrorKind),
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Take the answer.
    Accept,
    /// Stop with an error of this kind.
    GiveUp(ErrorKind),
    /// Stop: the server asked for a longer wait than [`Retry::retry_after_max`].
    TooLong(Duration),
    /// Send the request again after this long.
    Wait(Duration),
}

/// Decides about attempt number `attempt` (from 1) that ended in `outcome` at `now`; `jitter` is in 0..1.
///
/// The wait is full jitter below a cap that doubles with each attempt. A wait the server asked for comes before it,
/// so that waiting workers do not all return in the same moment. A wait that a rule found replaces both.
pub fn decide(retry: &Retry, outcome: &Outcome<'_>, attempt: u32, now: Timestamp, jitter: f64) -> Decision {
    // What the last attempt ends in, what was asked for, and how long to wait on top of it.
    let backoff = backoff(retry, attempt, jitter);
    let (last, asked, more) = match outcome {
        Outcome::Answered { status, headers } => match status {
            204 | 205 => return Decision::GiveUp(ErrorKind::Refused),
            200..=299 => return Decision::Accept,
            408 | 429 | 500..=599 => (UNAVAILABLE, wait_asked(headers, now), backoff),
            403 if is_throttle(*status, headers) => (UNAVAILABLE, wait_asked(headers, now), backoff),
            _ => return Decision::GiveUp(ErrorKind::Refused),
        },
        Outcome::Ruled {
            action,
            wait,
            headers,
        } => match (action, wait) {
            (Action::Accept | Action::Ignore, _) => return Decision::Accept,
            (Action::Retry | Action::Throttle, Some(wait)) => (UNAVAILABLE, Some(*wait), Duration::ZERO),
            (Action::Retry | Action::Throttle, None) => (UNAVAILABLE, wait_asked(headers, now), backoff),
            (Action::Fail | Action::Renew | Action::Reset | Action::Split | Action::SplitWindow, _) => {
                return Decision::GiveUp(ErrorKind::Refused);
            }
        },
        Outcome::NotJson => (Decision::GiveUp(ErrorKind::Refused), None, backoff),
        Outcome::Throttled(wait) => (UNAVAILABLE, Some(*wait), backoff),
        Outcome::Partial => (Decision::Accept, None, backoff),
        Outcome::Held(left) if *left > retry.retry_after_max => return UNAVAILABLE,
        // The time has been waited already.
        Outcome::Held(_) => (UNAVAILABLE, None, Duration::ZERO),
        Outcome::Failed(kind) => match kind {
            FailureKind::Connect | FailureKind::Timeout | FailureKind::Cut => (UNAVAILABLE, None, backoff),
            FailureKind::Tls | FailureKind::Unsafe => return Decision::GiveUp(ErrorKind::Refused),
            FailureKind::TooLarge => return Decision::GiveUp(ErrorKind::Limit),
            FailureKind::Config => return Decision::GiveUp(ErrorKind::Config),
            FailureKind::Unsent(kind) => return Decision::GiveUp(*kind),
        },
    };
    let asked = asked.unwrap_or_default();
    if asked > retry.retry_after_max {
        return Decision::TooLong(asked);
    }
    if attempt >= retry.attempts_max {
        return last;
    }
    Decision::Wait(asked + more)
}

/// The wait that an outcome itself asks for, without any backoff.
pub fn asked(outcome: &Outcome<'_>, now: Timestamp) -> Option<Duration> {
    match outcome {
        Outcome::Answered { headers, .. } => wait_asked(headers, now),
        Outcome::Ruled { wait, headers, .. } => wait.or_else(|| wait_asked(headers, now)),
        Outcome::Throttled(wait) => Some(*wait).filter(|wait| !wait.is_zero()),
        Outcome::NotJson | Outcome::Partial | Outcome::Held(_) | Outcome::Failed(_) => None,
    }
}

/// The wait after attempt `attempt`: `jitter` (0..1) of the cap `backoff_start · 2^(attempt-1)`, at most `backoff_max`.
///
/// ```
/// use std::time::Duration;
/// use landfall::{config::errors::Retry, extract::retry::backoff};
/// let retry = Retry {
///     attempts_max: 6,
///     backoff_start: Duration::from_secs(1),
///     backoff_max: Duration::from_secs(60),
///     retry_after_max: Duration::from_secs(300),
/// };
/// assert_eq!(backoff(&retry, 3, 0.5), Duration::from_secs(2));
/// ```
pub fn backoff(retry: &Retry, attempt: u32, jitter: f64) -> Duration {
    let doublings = 2u32.saturating_pow(attempt.saturating_sub(1));
    let cap = retry
        .backoff_start
        .saturating_mul(doublings)
        .min(retry.backoff_max);
    cap.mul_f64(jitter.clamp(0.0, 1.0))
}

/// Whether an answer means "slow down": 429, or 403 that says how long or that the budget is spent.
pub fn is_throttle(status: u16, headers: &HeaderMap) -> bool {
    match status {
        429 => true,
        403 => headers.contains_key(RETRY_AFTER) || quota::read(headers, Timestamp::UNIX_EPOCH).is_spent(),
        _ => false,
    }
}

/// The wait the server asked for with `Retry-After`, or `None` if it did not ask in a way that can be read.
///
/// Seconds, or one of the three HTTP date forms measured against the response's own `Date`, else against `now`.
/// A date in the past is no wait. Not capped.
pub fn wait_asked(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let until = http_date(value)?;
    let from = server_time(headers).unwrap_or(now);
    Some((until - from).to_std().unwrap_or(Duration::ZERO))
}

/// The response's own `Date`.
pub fn server_time(headers: &HeaderMap) -> Option<Timestamp> {
    http_date(headers.get(DATE)?.to_str().ok()?)
}

fn http_date(text: &str) -> Option<Timestamp> {
    httpdate::parse_http_date(text.trim()).ok().map(Timestamp::from)
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "no connection",
            Self::Tls => "tls failure",
            Self::Timeout => "timeout",
            Self::Cut => "response_truncated",
            Self::TooLarge => "too large",
            Self::Unsafe => "unsafe answer",
            Self::Config => "configuration",
            Self::Unsent(_) => "not sent",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::parse_timestamp;

    const RETRY: Retry = Retry {
        attempts_max: 6,
        backoff_start: Duration::from_secs(1),
        backoff_max: Duration::from_secs(60),
        retry_after_max: Duration::from_secs(300),
    };

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn now() -> Timestamp {
        parse_timestamp("1994-11-06T08:49:00Z").unwrap()
    }

    fn answered(status: u16, pairs: &[(&'static str, &str)], attempt: u32, jitter: f64) -> Decision {
        let headers = headers(pairs);
        decide(
            &RETRY,
            &Outcome::Answered {
                status,
                headers: &headers,
            },
            attempt,
            now(),
            jitter,
        )
    }

    #[test]
    fn r038_statuses_are_told_apart() {
        for status in [200, 201, 206] {
            assert_eq!(answered(status, &[], 1, 0.0), Decision::Accept);
        }
        for status in [204, 205, 301, 304, 400, 401, 403, 404, 410, 422] {
            assert_eq!(
                answered(status, &[], 1, 0.0),
                Decision::GiveUp(ErrorKind::Refused),
                "{status}"
            );
        }
        for status in [408, 429, 500, 502, 503, 504, 599] {
            assert_eq!(
                answered(status, &[], 1, 0.0),
                Decision::Wait(Duration::ZERO),
                "{status}"
            );
        }
    }

    #[test]
    fn r036_f033_the_last_attempt_is_the_last() {
        assert_eq!(answered(429, &[], 5, 0.0), Decision::Wait(Duration::ZERO));
        assert_eq!(
            answered(429, &[], 6, 0.0),
            Decision::GiveUp(ErrorKind::Unavailable)
        );
        let not_json = decide(&RETRY, &Outcome::NotJson, 6, now(), 0.0);
        assert_eq!(not_json, Decision::GiveUp(ErrorKind::Refused));
    }

    #[test]
    fn f060_failures_are_told_apart() {
        let table = [
            (FailureKind::Connect, Decision::Wait(Duration::ZERO)),
            (FailureKind::Timeout, Decision::Wait(Duration::ZERO)),
            (FailureKind::Cut, Decision::Wait(Duration::ZERO)),
            (FailureKind::Tls, Decision::GiveUp(ErrorKind::Refused)),
            (FailureKind::Unsafe, Decision::GiveUp(ErrorKind::Refused)),
            (FailureKind::TooLarge, Decision::GiveUp(ErrorKind::Limit)),
            (FailureKind::Config, Decision::GiveUp(ErrorKind::Config)),
        ];
        for (kind, expected) in table {
            assert_eq!(
                decide(&RETRY, &Outcome::Failed(kind), 1, now(), 0.0),
                expected,
                "{kind:?}"
            );
        }
    }

    #[test]
    fn r033_without_retry_after_the_cap_doubles_to_a_minute() {
        let caps: Vec<u64> = (1..=9)
            .map(|attempt| backoff(&RETRY, attempt, 1.0).as_secs())
            .collect();
        assert_eq!(caps, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(backoff(&RETRY, u32::MAX, 1.0), Duration::from_secs(60));
    }

    #[test]
    fn f030_retry_after_is_a_floor() {
        assert_eq!(
            answered(429, &[("retry-after", "5")], 1, 0.0),
            Decision::Wait(Duration::from_secs(5))
        );
        assert_eq!(
            answered(503, &[("retry-after", "5")], 3, 0.5),
            Decision::Wait(Duration::from_secs(7))
        );
        assert_eq!(
            answered(408, &[("retry-after", " 5 ")], 1, 0.0),
            Decision::Wait(Duration::from_secs(5))
        );
    }

    #[test]
    fn f031_f032_every_form_of_retry_after() {
        let date = "Sun, 06 Nov 1994 08:49:00 GMT";
        let skewed = "Sun, 06 Nov 1994 10:00:00 GMT";
        let table: &[(&str, Option<&str>, Option<u64>)] = &[
            ("0", None, Some(0)),
            ("120", None, Some(120)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", None, Some(37)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None, Some(37)),
            ("Sun Nov  6 08:49:37 1994", None, Some(37)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(date), Some(37)),
            ("Sun, 06 Nov 1994 10:00:30 GMT", Some(skewed), Some(30)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some("garbage"), Some(37)),
            ("Tue, 06 Nov 1984 08:49:37 GMT", None, Some(0)),
            ("1000000000000", None, Some(1_000_000_000_000)),
            ("99999999999999999999999", None, Some(u64::MAX)),
            ("-5", None, None),
            ("1.5", None, None),
            ("soon", None, None),
            ("", None, None),
        ];
        for (value, date, expected) in table {
            let mut pairs = vec![("retry-after", *value)];
            pairs.extend(date.map(|date| ("date", date)));
            let found = wait_asked(&headers(&pairs), now());
            assert_eq!(found, expected.map(Duration::from_secs), "{value:?} at {date:?}");
        }
    }

    #[test]
    fn f032_a_wait_beyond_the_limit_fails_at_once() {
        let asked = Duration::from_secs(1_000_000_000_000);
        assert_eq!(
            answered(429, &[("retry-after", "1000000000000")], 1, 0.0),
            Decision::TooLong(asked)
        );
        assert_eq!(
            answered(429, &[("retry-after", "300")], 1, 0.0),
            Decision::Wait(Duration::from_secs(300))
        );
        assert_eq!(
            answered(429, &[("retry-after", "garbage")], 1, 0.0),
            Decision::Wait(Duration::ZERO)
        );
    }

    #[test]
    fn f034_a_403_that_says_how_long_is_a_throttle() {
        assert_eq!(
            answered(403, &[("retry-after", "2")], 1, 0.0),
            Decision::Wait(Duration::from_secs(2))
        );
        assert_eq!(
            answered(403, &[("x-ratelimit-remaining", "0")], 1, 0.0),
            Decision::Wait(Duration::ZERO)
        );
        assert_eq!(
            answered(403, &[("x-ratelimit-remaining", "9")], 1, 0.0),
            Decision::GiveUp(ErrorKind::Refused)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn r035_waits_stay_between_zero_and_the_cap(attempt in 1u32..6, jitter in 0.0f64..1.0) {
            let cap = Duration::from_secs(2u64.pow(attempt - 1).min(60));
            let Decision::Wait(wait) = answered(503, &[], attempt, jitter) else { panic!("no wait") };
            prop_assert!(wait <= cap);
        }

        #[test]
        fn r035_two_workers_with_other_jitter_wait_differently(attempt in 1u32..6, one in 0.0f64..0.5, two in 0.51f64..1.0) {
            prop_assert!(answered(503, &[], attempt, one) != answered(503, &[], attempt, two));
        }

        #[test]
        fn f032_any_retry_after_decides_without_panic(value in "[ -~]{0,40}") {
            let decision = answered(429, &[("retry-after", &value)], 1, 0.5);
            prop_assert!(matches!(decision, Decision::Wait(_) | Decision::TooLong(_)));
        }
    }
}
