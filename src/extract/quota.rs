//! What a server says about the budget of the credential.

mod ask;
pub(crate) mod standing;
mod status;

use std::time::Duration;

use chrono::DateTime;
use reqwest::header::HeaderMap;

use crate::{clock::Timestamp, config::rate::QuotaHeaders, extract::retry::server_time, fields::parts};

/// The longest time to a reset that is believed. A longer one is more likely a misread unit than a budget.
pub const RESET_MAX: Duration = Duration::from_secs(3600);

/// Numbers from here on are moments in seconds since 1970, smaller ones are seconds to go.
const EPOCH_SECONDS_MIN: f64 = 1e9;

/// Numbers from here on are moments in milliseconds since 1970.
const EPOCH_MILLIS_MIN: f64 = 1e12;

/// Without a known limit, this many requests left are few.
const REMAINING_FEW: u64 = 10;

/// Most quotas that are read of one value of a header, and most policies: each is looked for among the others.
const QUOTAS_MAX: usize = 100;

/// A server's word about the budget. Headers that cannot be read are as if absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Requests per window.
    pub limit: Option<u64>,
    /// Requests left in this window, the least of several windows.
    pub remaining: Option<u64>,
    /// Time until that window ends; never more than [`RESET_MAX`] if headers say it.
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
/// Moments are measured against the response's own `Date`, else against `now`. Of several policies the most restrictive
/// counts: one that is spent, then one that is low, then the one that leaves the fewest requests for its time.
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
    read_with(headers, &QuotaHeaders::default(), now)
}

/// As [`read`], with further headers named by the user.
pub fn read_with(headers: &HeaderMap, named: &QuotaHeaders, now: Timestamp) -> Quota {
    let from = server_time(headers).unwrap_or(now);
    let field = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let mut worst = Quota::default();
    let texts = |name: &str| {
        let values = headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok());
        values.collect::<Vec<_>>()
    };
    let policies: Vec<(&str, u64)> = texts("ratelimit-policy").into_iter().flat_map(policies).collect();
    for quota in texts("ratelimit")
        .into_iter()
        .flat_map(|value| structured(value, &policies, from))
    {
        worst = tighter(worst, quota);
    }
    for prefix in ["ratelimit", "x-ratelimit", "x-rate-limit"] {
        let quota = Quota {
            limit: field(&format!("{prefix}-limit")).and_then(leading_number),
            remaining: field(&format!("{prefix}-remaining")).and_then(leading_number),
            reset: field(&format!("{prefix}-reset")).and_then(|value| reset(value, from)),
        };
        worst = tighter(worst, quota);
    }
    let named_field = |name: &Option<String>| name.as_deref().and_then(field);
    let quota = Quota {
        limit: named_field(&named.limit).and_then(leading_number),
        remaining: named_field(&named.remaining).and_then(leading_number),
        reset: named_field(&named.reset).and_then(|value| reset(value, from)),
    };
    tighter(worst, quota)
}

/// The more restrictive of two policies.
fn tighter(one: Quota, other: Quota) -> Quota {
    let (Some(left), Some(right)) = (one.remaining, other.remaining) else {
        return if other.remaining.is_some() { other } else { one };
    };
    let other_is = if one.is_spent() != other.is_spent() {
        other.is_spent()
    } else if one.is_spent() {
        // Of two that are spent the one that lasts longer.
        other.reset > one.reset
    } else if one.is_low() != other.is_low() {
        other.is_low()
    } else {
        match (one.reset, other.reset) {
            (Some(one_s), Some(other_s)) if !one_s.is_zero() && !other_s.is_zero() => {
                let pace = |count: u64, time: Duration| count as f64 / time.as_secs_f64();
                pace(right, other_s) < pace(left, one_s)
            }
            _ => right < left,
        }
    };
    if other_is { other } else { one }
}

/// `"policy";r=50;t=30, …` or `limit=100, remaining=50, reset=30`; `policies` are limits by name.
fn structured(value: &str, policies: &[(&str, u64)], from: Timestamp) -> Vec<Quota> {
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
        let items = parts(value, b',').take(QUOTAS_MAX).map(|item| {
            let name = parts(item, b';').next().unwrap_or_default();
            let limit = policies.iter().find(|(known, _)| *known == name);
            let mut quota = Quota {
                limit: limit.map(|(_, limit)| *limit),
                ..Quota::default()
            };
            parts(item, b';').for_each(|pair| read(&mut quota, pair));
            quota
        });
        return items.collect();
    }
    let mut quota = Quota::default();
    parts(value, b',').for_each(|pair| read(&mut quota, pair));
    vec![quota]
}

/// The limits of `"burst";q=100;w=60, "day";q=1000;w=86400`, by name.
fn policies(value: &str) -> Vec<(&str, u64)> {
    let limits = parts(value, b',').take(QUOTAS_MAX).filter_map(|item| {
        let mut said = parts(item, b';');
        let name = said.next()?;
        let limit = said.find_map(|part| part.strip_prefix("q=").and_then(leading_number))?;
        Some((name, limit))
    });
    limits.collect()
}

/// `100` of `100, 100;w=60`.
fn leading_number(value: &str) -> Option<u64> {
    value.split([',', ';']).next()?.trim().parse().ok()
}

/// What [`time_to`] reads, if it can be believed of a header.
fn reset(value: &str, from: Timestamp) -> Option<Duration> {
    time_to(value, from).filter(|wait| *wait <= RESET_MAX)
}

/// Seconds to go, a moment in seconds or milliseconds since 1970, RFC 3339, an HTTP date, or a duration such as `6m0s`.
fn time_to(value: &str, from: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let number = value
        .parse::<f64>()
        .ok()
        .filter(|number| number.is_finite() && *number >= 0.0);
    match number {
        Some(number) if number >= EPOCH_MILLIS_MIN => until(number / 1000.0, from),
        Some(number) if number >= EPOCH_SECONDS_MIN => until(number, from),
        Some(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        None => match spelled_out(value) {
            Some(wait) => Some(wait),
            None => {
                let moment = DateTime::parse_from_rfc3339(value)
                    .map(|moment| moment.to_utc())
                    .ok()
                    .or_else(|| httpdate::parse_http_date(value).ok().map(Timestamp::from))?;
                Some((moment - from).to_std().unwrap_or_default())
            }
        },
    }
}

/// The time from `from` until so many seconds after 1970; nothing if that is past.
fn until(seconds: f64, from: Timestamp) -> Option<Duration> {
    let moment = DateTime::from_timestamp_micros((seconds * 1e6).round() as i64)?;
    Some((moment - from).to_std().unwrap_or_default())
}

/// `1h2m3s`, `6m0s`, `1.5s`, `20ms`.
fn spelled_out(value: &str) -> Option<Duration> {
    let mut rest = value;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest
            .find(|character: char| character.is_ascii_digit())
            .unwrap_or(rest.len());
        seconds += match &rest[..unit] {
            "h" => number * 3600.0,
            "m" => number * 60.0,
            "s" => number,
            "ms" => number / 1000.0,
            _ => return None,
        };
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|_| !value.is_empty())
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
    fn f070_of_several_words_the_most_restrictive_counts() {
        let table: &[(&[(&'static str, &str)], Quota)] = &[
            // Fewer requests are left of the minute, but the day allows fewer for its time.
            (
                &[("ratelimit", r#""minute";r=50;t=1, "hour";r=100;t=3000"#)],
                expected(None, Some(100), Some(3000)),
            ),
            // One that is low by its own limit comes before one that has fewer left.
            (
                &[
                    ("ratelimit-policy", r#""burst";q=20;w=1, "day";q=10000;w=86400"#),
                    ("ratelimit", r#""burst";r=15;t=1, "day";r=900;t=3000"#),
                ],
                expected(Some(10_000), Some(900), Some(3000)),
            ),
            // Old and new syntax side by side.
            (
                &[
                    ("ratelimit", r#""default";r=1000;t=60"#),
                    ("ratelimit-limit", "100, 100;w=60"),
                    ("ratelimit-remaining", "0"),
                    ("ratelimit-reset", "9"),
                    ("x-ratelimit-remaining", "1000"),
                ],
                expected(Some(100), Some(0), Some(9)),
            ),
            // Of two that are spent the one that lasts longer.
            (
                &[("ratelimit", r#""a";r=0;t=5, "b";r=0;t=50"#)],
                expected(None, Some(0), Some(50)),
            ),
            // What is malformed does not hide what is not.
            (
                &[
                    ("ratelimit", r#""a";r=-1;t=5, "b";r=7;t=50, "c";r=x"#),
                    ("x-ratelimit-remaining", "1e3"),
                ],
                expected(None, Some(7), Some(50)),
            ),
            // A reset in the past is over.
            (
                &[
                    ("x-ratelimit-remaining", "0"),
                    ("x-ratelimit-reset", "1600000000"),
                ],
                expected(None, Some(0), Some(0)),
            ),
        ];
        for (pairs, expected) in table {
            assert_eq!(quota(pairs), *expected, "{pairs:?}");
        }
    }

    #[test]
    fn f070_a_reset_is_read_in_every_spelling() {
        let table = [
            ("7", Some(7_000)),
            ("0.5", Some(500)),
            ("1714521607", Some(7_000)),
            ("1714521607.25", Some(7_250)),
            ("1714521607250", Some(7_250)),
            ("2024-05-01T00:00:07Z", Some(7_000)),
            ("Wed, 01 May 2024 00:00:07 GMT", Some(7_000)),
            ("20ms", Some(20)),
            ("6m0s", Some(360_000)),
            ("1.5s", Some(1_500)),
            ("1h1s", None),
            ("-7", None),
            ("NaN", None),
            ("inf", None),
            ("s", None),
            ("7 s", None),
            ("", None),
        ];
        for (text, millis) in table {
            let found = quota(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", text)]).reset;
            assert_eq!(found, millis.map(Duration::from_millis), "{text:?}");
        }
    }

    #[test]
    fn f070_headers_of_the_users_own_are_read_too() {
        let named = QuotaHeaders {
            limit: Some("x-api-quota".to_owned()),
            remaining: Some("x-api-left".to_owned()),
            reset: Some("x-api-again-in".to_owned()),
        };
        let headers = [
            ("x-api-quota", "50"),
            ("x-api-left", "0"),
            ("x-api-again-in", "1m30s"),
            ("x-ratelimit-remaining", "9"),
        ];
        let headers = headers
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .into_iter()
            .collect();
        let found = read_with(&headers, &named, Timestamp::UNIX_EPOCH);
        assert_eq!(found, expected(Some(50), Some(0), Some(90)));
        assert_eq!(read(&headers, Timestamp::UNIX_EPOCH).remaining, Some(9));
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
