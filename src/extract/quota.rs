//! What a server says about the budget of the credential.

use std::time::Duration;

use chrono::DateTime;
use reqwest::header::HeaderMap;

use crate::{clock::Timestamp, extract::retry::server_time};

/// The longest time to a reset that is believed. A longer one is more likely a misread unit than a budget.
pub const RESET_MAX: Duration = Duration::from_secs(3600);

/// Numbers from here on are moments in seconds since 1970, smaller ones are seconds to go.
const EPOCH_SECONDS_MIN: u64 = 1_000_000_000;

/// Numbers from here on are moments in milliseconds since 1970.
const EPOCH_MILLIS_MIN: u64 = 1_000_000_000_000;

/// Without a known limit, this many requests left are few.
const REMAINING_FEW: u64 = 10;

/// A server's word about the budget. Headers that cannot be read are as if absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Requests per window.
    pub limit: Option<u64>,
    /// Requests left in this window, the least of several windows.
    pub remaining: Option<u64>,
    /// Time until that window ends, never more than [`RESET_MAX`].
    pub reset: Option<Duration>,
}

impl Quota {
    /// No requests are left.
    pub fn is_spent(&self) -> bool {
        self.remaining == Some(0)
    }

    /// At most a tenth of the budget is left.
    pub fn is_low(&self) -> bool {
        match (self.remaining, self.limit) {
            (Some(remaining), Some(limit)) => remaining <= limit / 10,
            (Some(remaining), None) => remaining <= REMAINING_FEW,
            (None, _) => false,
        }
    }
}

/// Reads `RateLimit` (both structured forms of the IETF drafts), `RateLimit-*`, `X-RateLimit-*` and `X-Rate-Limit-*`.
///
/// Moments are measured against the response's own `Date`, else against `now`.
///
/// ```
/// use landfall::{clock::Timestamp, extract::quota};
/// let headers = [("ratelimit", r#""default";r=0;t=30"#)];
/// let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
/// let quota = quota::read(&headers, Timestamp::UNIX_EPOCH);
/// assert!(quota.is_spent());
/// assert_eq!(quota.reset.unwrap().as_secs(), 30);
/// ```
pub fn read(headers: &HeaderMap, now: Timestamp) -> Quota {
    let from = server_time(headers).unwrap_or(now);
    let mut worst = Quota::default();
    for value in headers
        .get_all("ratelimit")
        .iter()
        .filter_map(|value| value.to_str().ok())
    {
        for quota in structured(value, from) {
            worst = tighter(worst, quota);
        }
    }
    for prefix in ["ratelimit", "x-ratelimit", "x-rate-limit"] {
        let field = |name: &str| {
            headers
                .get(format!("{prefix}-{name}"))
                .and_then(|value| value.to_str().ok())
        };
        let quota = Quota {
            limit: field("limit").and_then(leading_number),
            remaining: field("remaining").and_then(leading_number),
            reset: field("reset").and_then(|value| reset(value, from)),
        };
        worst = tighter(worst, quota);
    }
    worst
}

/// The one that leaves less; of two spent ones the one that lasts longer.
fn tighter(one: Quota, other: Quota) -> Quota {
    match (one.remaining, other.remaining) {
        (_, None) => one,
        (None, Some(_)) => other,
        (Some(left), Some(right)) if left == right => {
            if other.reset > one.reset {
                other
            } else {
                one
            }
        }
        (Some(left), Some(right)) => {
            if right < left {
                other
            } else {
                one
            }
        }
    }
}

/// `"policy";r=50;t=30, …` or `limit=100, remaining=50, reset=30`.
fn structured(value: &str, from: Timestamp) -> Vec<Quota> {
    let read = |quota: &mut Quota, pair: &str| {
        let Some((name, value)) = pair.split_once('=') else {
            return;
        };
        match name.trim() {
            "limit" => quota.limit = leading_number(value),
            "r" | "remaining" => quota.remaining = leading_number(value),
            "t" | "reset" => quota.reset = reset(value, from),
            _ => {}
        }
    };
    if value.contains(';') {
        let items = value.split(',').map(|item| {
            let mut quota = Quota::default();
            item.split(';').for_each(|pair| read(&mut quota, pair));
            quota
        });
        return items.collect();
    }
    let mut quota = Quota::default();
    value.split(',').for_each(|pair| read(&mut quota, pair));
    vec![quota]
}

/// `100` of `100, 100;w=60`.
fn leading_number(value: &str) -> Option<u64> {
    value.split([',', ';']).next()?.trim().parse().ok()
}

fn reset(value: &str, from: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wait = match value.parse::<u64>() {
        Ok(number) if number >= EPOCH_MILLIS_MIN => {
            (DateTime::from_timestamp_millis(i64::try_from(number).ok()?)? - from)
                .to_std()
                .unwrap_or_default()
        }
        Ok(number) if number >= EPOCH_SECONDS_MIN => {
            (DateTime::from_timestamp(i64::try_from(number).ok()?, 0)? - from)
                .to_std()
                .unwrap_or_default()
        }
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let moment = DateTime::parse_from_rfc3339(value)
                .map(|moment| moment.to_utc())
                .ok()
                .or_else(|| httpdate::parse_http_date(value).ok().map(Timestamp::from))?;
            (moment - from).to_std().unwrap_or_default()
        }
    };
    Some(wait).filter(|wait| *wait <= RESET_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::parse_timestamp;

    fn quota(pairs: &[(&'static str, &str)]) -> Quota {
        let headers = pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        read(&headers, parse_timestamp("2024-05-01T00:00:00Z").unwrap())
    }

    fn expected(limit: Option<u64>, remaining: Option<u64>, reset: Option<u64>) -> Quota {
        Quota {
            limit,
            remaining,
            reset: reset.map(Duration::from_secs),
        }
    }

    #[test]
    fn r034_every_dialect_is_read() {
        // 2024-05-01T00:00:00Z is 1714521600.
        let table: &[(&[(&'static str, &str)], Quota)] = &[
            (
                &[
                    ("x-ratelimit-limit", "5000"),
                    ("x-ratelimit-remaining", "9"),
                    ("x-ratelimit-reset", "1714521660"),
                ],
                expected(Some(5000), Some(9), Some(60)),
            ),
            (
                &[
                    ("x-rate-limit-remaining", "0"),
                    ("x-rate-limit-reset", "1714521660000"),
                ],
                expected(None, Some(0), Some(60)),
            ),
            (
                &[
                    ("ratelimit-limit", "100, 100;w=60"),
                    ("ratelimit-remaining", "1"),
                    ("ratelimit-reset", "7"),
                ],
                expected(Some(100), Some(1), Some(7)),
            ),
            (
                &[("ratelimit", r#""burst";r=0;t=5, "day";r=3;t=50"#)],
                expected(None, Some(0), Some(5)),
            ),
            (
                &[("ratelimit", "limit=10, remaining=2, reset=50")],
                expected(Some(10), Some(2), Some(50)),
            ),
            (
                &[
                    ("x-ratelimit-remaining", "0"),
                    ("x-ratelimit-reset", "2024-05-01T00:00:10Z"),
                ],
                expected(None, Some(0), Some(10)),
            ),
            (
                &[
                    ("x-ratelimit-remaining", "0"),
                    ("x-ratelimit-reset", "1714525200"),
                    ("date", "Wed, 01 May 2024 00:59:50 GMT"),
                ],
                expected(None, Some(0), Some(10)),
            ),
            (
                &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "99999")],
                expected(None, Some(0), None),
            ),
            (
                &[("x-ratelimit-remaining", "many"), ("x-ratelimit-reset", "soon")],
                Quota::default(),
            ),
            (&[("ratelimit", ";;==,;r=;t=x")], Quota::default()),
            (&[], Quota::default()),
        ];
        for (pairs, expected) in table {
            assert_eq!(quota(pairs), *expected, "{pairs:?}");
        }
    }

    #[test]
    fn r034_low_is_a_tenth() {
        assert!(expected(Some(1000), Some(100), None).is_low());
        assert!(!expected(Some(1000), Some(101), None).is_low());
        assert!(!expected(Some(u64::MAX), Some(u64::MAX / 2), None).is_low());
        assert!(!expected(Some(9), Some(1), None).is_low());
        assert!(expected(Some(9), Some(0), None).is_low());
        assert!(expected(None, Some(10), None).is_low());
        assert!(!expected(Some(10), None, None).is_low());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn r034_malformed_headers_never_panic(value in "[ -~]{0,40}") {
            for name in ["ratelimit", "x-ratelimit-reset", "ratelimit-remaining"] {
                let _ = quota(&[(name, &value)]);
            }
        }
    }
}
