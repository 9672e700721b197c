//! Values of an incremental cursor: compared as what they mean, written in one canonical form.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, SecondsFormat};

use crate::{
    clock::Timestamp,
    config::{incremental::CursorFormat, incremental::Incremental},
    error::{Error, ErrorKind, Result},
    json,
};

/// How far ahead of this machine's clock a cursor value may be and still count.
///
/// Values beyond it never become the watermark: one record dated 2999 would hide every later change.
/// A server whose clock is further ahead costs repeated reads, never a record.
pub const SKEW_MAX: Duration = Duration::from_secs(5 * 60);

const NANOS_PER_SECOND: i128 = 1_000_000_000;
const SECONDS_PER_DAY: i128 = 86_400;

/// A cursor value as a number that orders like the value: nanoseconds, days, seconds, milliseconds or the number itself.
pub type Rank = i128;

/// The rank of a JSON value, or `None` if it is not written in `format`.
///
/// Fractions of epoch numbers are cut off: a bound that is too early repeats records, one too late would lose them.
///
/// ```
/// use landfall::{config::incremental::CursorFormat, extract::cursor::{canonical, rank_of_json}};
/// let format = CursorFormat::Rfc3339;
/// let rank = rank_of_json(format, br#""2024-05-01T02:00:00+02:00""#).unwrap();
/// assert_eq!(canonical(format, rank), "2024-05-01T00:00:00Z");
/// ```
pub fn rank_of_json(format: &CursorFormat, value: &[u8]) -> Option<Rank> {
    if value.first() == Some(&b'"') {
        return rank_of_text(format, json::text(value)?.as_ref());
    }
    match format {
        CursorFormat::Rfc3339 | CursorFormat::Date => None,
        _ => rank_of_text(format, std::str::from_utf8(value).ok()?),
    }
}

/// The rank of a value's text, or `None` if it is not written in `format`.
pub fn rank_of_text(format: &CursorFormat, text: &str) -> Option<Rank> {
    match format {
        CursorFormat::Rfc3339 => DateTime::parse_from_rfc3339(text)
            .ok()
            .map(|moment| nanos(moment.to_utc())),
        CursorFormat::Date => {
            let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
            Some(i128::from(
                date.signed_duration_since(NaiveDate::default()).num_days(),
            ))
        }
        CursorFormat::EpochSeconds | CursorFormat::EpochMillis | CursorFormat::EpochMicros => whole(text),
        CursorFormat::Integer => text.parse().ok().filter(|_| !text.starts_with('+')),
        CursorFormat::Pattern(_) | CursorFormat::Feed => None,
    }
}

/// The one text of a rank: RFC 3339 in UTC with no more digits than needed, `YYYY-MM-DD`, or the number.
pub fn canonical(format: &CursorFormat, rank: Rank) -> String {
    match format {
        CursorFormat::Rfc3339 => {
            let seconds = i64::try_from(rank.div_euclid(NANOS_PER_SECOND)).unwrap_or(i64::MAX);
            let nanos = u32::try_from(rank.rem_euclid(NANOS_PER_SECOND)).unwrap_or(0);
            let moment = DateTime::from_timestamp(seconds, nanos).unwrap_or(DateTime::UNIX_EPOCH);
            moment.to_rfc3339_opts(SecondsFormat::AutoSi, true)
        }
        CursorFormat::Date => i64::try_from(rank)
            .ok()
            .and_then(chrono::Duration::try_days)
            .and_then(|days| NaiveDate::default().checked_add_signed(days))
            .unwrap_or_default()
            .to_string(),
        _ => rank.to_string(),
    }
}

/// The greatest rank that counts at `now`, or `None` if the format does not mean a time.
pub fn horizon(format: &CursorFormat, now: Timestamp) -> Option<Rank> {
    let latest = nanos(now) + SKEW_MAX.as_nanos().cast_signed();
    let seconds = latest.div_euclid(NANOS_PER_SECOND);
    match format {
        CursorFormat::Rfc3339 => Some(latest),
        CursorFormat::Date => Some(seconds.div_euclid(SECONDS_PER_DAY)),
        CursorFormat::EpochSeconds => Some(seconds),
        CursorFormat::EpochMillis => Some(latest.div_euclid(1_000_000)),
        CursorFormat::EpochMicros => Some(latest.div_euclid(1000)),
        CursorFormat::Integer | CursorFormat::Pattern(_) | CursorFormat::Feed => None,
    }
}

/// The greatest rank a watermark may have after a window that opened at `opened_at`, in whole seconds or days; `None`
/// if the format does not mean a time.
///
/// A record that changes while its window is fetched may be on a page already passed. The next window asks for it again.
pub fn cap(format: &CursorFormat, opened_at: Timestamp) -> Option<Rank> {
    let seconds = i128::from(opened_at.timestamp());
    match format {
        CursorFormat::Rfc3339 => Some(seconds * NANOS_PER_SECOND),
        CursorFormat::Date => Some(seconds.div_euclid(SECONDS_PER_DAY)),
        CursorFormat::EpochSeconds => Some(seconds),
        CursorFormat::EpochMillis => Some(seconds * 1000),
        CursorFormat::EpochMicros => Some(seconds * 1_000_000),
        CursorFormat::Integer | CursorFormat::Pattern(_) | CursorFormat::Feed => None,
    }
}

/// What a watermark of `incremental` is a value of: the path of the cursor and its format.
pub fn identity(incremental: &Incremental) -> String {
    format!("{} {}", incremental.cursor, incremental.format.as_str())
}

/// Checks that a watermark kept as a value of `stored` is one of the cursor the stream has now.
///
/// # Errors
/// [`ErrorKind::Config`] naming both if it is not: the two do not compare.
pub fn check(incremental: &Incremental, stored: Option<&str>) -> Result<()> {
    let configured = identity(incremental);
    match stored {
        Some(stored) if stored != configured => {
            Err(Error::new(ErrorKind::Config, "use watermark of another cursor")
                .with("stored", stored)
                .with("configured", configured)
                .with(
                    "hint",
                    "restore the cursor, or give the stream another name to load it from the start",
                ))
        }
        _ => Ok(()),
    }
}

/// The lower bound of a window that follows `watermark`: the watermark less the lookback, never before `start`.
///
/// Without a watermark it is `start` as written, or nothing.
///
/// # Errors
/// [`ErrorKind::Config`] if the stored watermark is not written in the format the stream has now.
pub fn bound(incremental: &Incremental, watermark: Option<&str>) -> Result<Option<String>> {
    let Some(watermark) = watermark else {
        return Ok(incremental.start.clone());
    };
    let format = &incremental.format;
    let Some(rank) = rank_of_text(format, watermark) else {
        return Err(Error::new(ErrorKind::Config, "read watermark")
            .with("watermark", watermark)
            .with("format", format!("{format:?}"))
            .with(
                "hint",
                "the cursor format of the stream changed; restore it or start the stream anew",
            ));
    };
    let lookback = incremental.lookback;
    let back = match format {
        CursorFormat::Rfc3339 => lookback.as_nanos().cast_signed(),
        // Part of a day reaches into the day before.
        CursorFormat::Date => i128::from(lookback.as_secs().div_ceil(86_400)),
        CursorFormat::EpochSeconds => i128::from(lookback.as_secs() + u64::from(lookback.subsec_nanos() > 0)),
        CursorFormat::EpochMillis => lookback.as_millis().cast_signed(),
        CursorFormat::EpochMicros => lookback.as_micros().cast_signed(),
        CursorFormat::Integer | CursorFormat::Pattern(_) | CursorFormat::Feed => 0,
    };
    let since = rank.saturating_sub(back);
    let start = incremental
        .start
        .as_ref()
        .filter(|start| rank_of_text(format, start).is_some_and(|start| start > since));
    Ok(Some(start.cloned().unwrap_or_else(|| canonical(format, since))))
}

fn nanos(moment: Timestamp) -> i128 {
    i128::from(moment.timestamp()) * NANOS_PER_SECOND + i128::from(moment.timestamp_subsec_nanos())
}

/// A decimal number without exponent, cut to the whole number below it.
fn whole(text: &str) -> Option<i128> {
    let (number, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) || number.starts_with('+') {
        return None;
    }
    let whole: i128 = number.parse().ok()?;
    let below = number.starts_with('-') && fraction.bytes().any(|byte| byte != b'0');
    Some(whole - i128::from(below))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        config::{
            incremental::{Filter, OnExpired, Order},
            request::TokenSlot,
        },
        json::JsonPath,
    };

    fn incremental(format: CursorFormat, start: Option<&str>, lookback_seconds: u64) -> Incremental {
        Incremental {
            cursor: JsonPath::parse("$.t").unwrap(),
            to: TokenSlot::Query("since".to_owned()),
            format,
            start: start.map(str::to_owned),
            lookback: Duration::from_secs(lookback_seconds),
            also: Vec::new(),
            until: None,
            order: Order::Any,
            filter: Filter::Api,
            skew: Incremental::SKEW_DEFAULT,
            on_expired: OnExpired::Stop,
        }
    }

    #[test]
    fn r057_values_are_read_by_meaning() {
        use CursorFormat::{Date, EpochMillis, EpochSeconds, Integer, Rfc3339};
        let table = [
            (Rfc3339, "2024-05-01T02:00:00+02:00", Some("2024-05-01T00:00:00Z")),
            (
                Rfc3339,
                "2024-05-01T00:00:00.120Z",
                Some("2024-05-01T00:00:00.120Z"),
            ),
            (
                Rfc3339,
                "2024-05-01T00:00:00.123456789Z",
                Some("2024-05-01T00:00:00.123456789Z"),
            ),
            (
                Rfc3339,
                "1969-12-31T23:59:59.5Z",
                Some("1969-12-31T23:59:59.500Z"),
            ),
            (Rfc3339, "2024-05-01T00:00:00", None),
            (Date, "2024-02-29", Some("2024-02-29")),
            (Date, "1969-12-31", Some("1969-12-31")),
            (Date, "2024-02-30", None),
            (EpochSeconds, "1700000000", Some("1700000000")),
            (EpochSeconds, "1700000000.9", Some("1700000000")),
            (EpochSeconds, "-1.5", Some("-2")),
            (EpochSeconds, "1.7e9", None),
            (EpochMillis, "1700000000123", Some("1700000000123")),
            (Integer, "18446744073709551617", Some("18446744073709551617")),
            (Integer, "1.0", None),
            (Integer, "+1", None),
        ];
        for (format, text, expected) in table {
            let found = rank_of_text(&format, text).map(|rank| canonical(&format, rank));
            assert_eq!(found.as_deref(), expected, "{format:?} {text}");
        }
    }

    #[test]
    fn r057_json_numbers_and_text_both_count_for_numeric_formats() {
        assert_eq!(rank_of_json(&CursorFormat::EpochMillis, b"12"), Some(12));
        assert_eq!(rank_of_json(&CursorFormat::EpochMillis, b"\"12\""), Some(12));
        assert_eq!(rank_of_json(&CursorFormat::EpochMillis, b"null"), None);
        assert_eq!(rank_of_json(&CursorFormat::Rfc3339, b"12"), None);
        assert_eq!(rank_of_json(&CursorFormat::Integer, b"{}"), None);
    }

    #[test]
    fn r057_the_bound_is_the_watermark_less_the_lookback() {
        use CursorFormat::{Date, EpochMillis, EpochSeconds, Integer, Rfc3339};
        let table = [
            (Rfc3339, None, 0, None, None),
            (
                Rfc3339,
                Some("2024-01-01T00:00:00+01:00"),
                3600,
                None,
                Some("2024-01-01T00:00:00+01:00"),
            ),
            (
                Rfc3339,
                None,
                3600,
                Some("2024-05-01T00:30:00Z"),
                Some("2024-04-30T23:30:00Z"),
            ),
            (
                Rfc3339,
                Some("2024-05-01T00:00:00Z"),
                3600,
                Some("2024-05-01T00:30:00Z"),
                Some("2024-05-01T00:00:00Z"),
            ),
            (Date, None, 3600, Some("2024-03-01"), Some("2024-02-29")),
            (Date, None, 0, Some("2024-03-01"), Some("2024-03-01")),
            (EpochSeconds, None, 10, Some("100"), Some("90")),
            (EpochMillis, None, 10, Some("20000"), Some("10000")),
            (Integer, None, 10, Some("100"), Some("100")),
        ];
        for (format, start, lookback, watermark, expected) in table {
            let found = bound(&incremental(format.clone(), start, lookback), watermark).unwrap();
            assert_eq!(
                found.as_deref(),
                expected,
                "{format:?} {start:?} {lookback} {watermark:?}"
            );
        }
        let error = bound(&incremental(Date, None, 0), Some("17")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn r057_canonical_text_keeps_the_rank(rank in -10_000_000_000_000_000_000i128..100_000_000_000_000_000_000) {
            for format in [CursorFormat::Rfc3339, CursorFormat::EpochMillis, CursorFormat::Integer] {
                prop_assert_eq!(rank_of_text(&format, &canonical(&format, rank)), Some(rank));
            }
            let days = rank.rem_euclid(2_000_000) - 700_000;
            prop_assert_eq!(rank_of_text(&CursorFormat::Date, &canonical(&CursorFormat::Date, days)), Some(days));
        }

        #[test]
        fn r057_reading_never_panics(text in "[-+.0-9TZ:e]{0,30}") {
            for format in [CursorFormat::Rfc3339, CursorFormat::Date, CursorFormat::EpochSeconds, CursorFormat::Integer] {
                let _ = rank_of_text(&format, &text);
            }
        }
    }
}
