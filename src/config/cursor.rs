//! Values of a cursor: read as what they mean, written in one canonical form.
//!
//! Every time has the same rank whatever it is written in, so values of several formats of one cursor compare.

use std::{borrow::Cow, fmt::Write as _};

use chrono::{
    DateTime, NaiveDate, NaiveDateTime, SecondsFormat, TimeZone as _, Weekday,
    format::{Item, Parsed, StrftimeItems, parse},
};

use crate::{clock::Timestamp, config::incremental::CursorFormat};

/// A cursor value as a number that orders like the value: nanoseconds since 1970 for every time format, else the number
/// itself.
pub type Rank = i128;

/// Nanoseconds of a second.
pub const NANOS_PER_SECOND: Rank = 1_000_000_000;

const NANOS_PER_DAY: Rank = 86_400 * NANOS_PER_SECOND;

/// Longest value of a time, in bytes. Names of months and offsets fit easily.
const TEXT_BYTES_MAX: usize = 128;

/// Moments that a pattern must be able to say in order: no two-digit hours of a half day, no day without its year.
const PROBES: [&str; 4] = [
    "1999-12-31T23:59:59.987654321Z",
    "2001-01-01T00:00:00Z",
    "2024-02-29T13:45:56.5Z",
    "2031-07-04T01:02:03Z",
];

impl CursorFormat {
    /// Whether its values are moments; those of all such formats compare.
    pub fn is_time(&self) -> bool {
        !matches!(self, Self::Integer | Self::Feed)
    }

    /// The rank of a value's text, or `None` if it is not written in this format.
    ///
    /// RFC 3339 may have a space for the `T`, an offset without a colon or minutes, and the word UTC for one; a time
    /// without an offset is none. Epoch numbers may have fractions, of which nanoseconds count.
    ///
    /// ```
    /// use landfall::config::incremental::CursorFormat::{EpochMillis, Pattern, Rfc3339};
    /// let rank = Rfc3339.rank("2024-05-01 02:00:00+0200");
    /// assert_eq!(rank, EpochMillis.rank("1714521600000"));
    /// assert_eq!(rank, Pattern("%d/%m/%Y".into()).rank("01/05/2024"));
    /// assert_eq!(Rfc3339.rank("2024-05-01T00:00:00"), None);
    /// ```
    pub fn rank(&self, text: &str) -> Option<Rank> {
        match self {
            Self::Integer => text.parse().ok().filter(|_| !text.starts_with('+')),
            Self::Feed => None,
            _ if text.len() > TEXT_BYTES_MAX => None,
            Self::Rfc3339 => rfc3339(text).map(nanos),
            Self::Date => {
                let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
                let days = date.signed_duration_since(NaiveDate::default()).num_days();
                Some(Rank::from(days) * NANOS_PER_DAY)
            }
            Self::EpochSeconds => epoch(text, 9),
            Self::EpochMillis => epoch(text, 6),
            Self::EpochMicros => epoch(text, 3),
            Self::Pattern(pattern) => strftime(pattern, text).map(nanos),
        }
    }

    /// The one text of a rank: RFC 3339 in UTC with no more digits than needed, `YYYY-MM-DD`, the number, or the
    /// pattern filled in. What the format cannot say is cut off, so that the text is never later than the rank.
    ///
    /// ```
    /// use landfall::config::incremental::CursorFormat::{Date, EpochSeconds};
    /// let rank = EpochSeconds.rank("1714564800").unwrap();
    /// assert_eq!(Date.canonical(rank), "2024-05-01");
    /// ```
    pub fn canonical(&self, rank: Rank) -> String {
        match self {
            Self::Integer | Self::Feed => rank.to_string(),
            Self::Rfc3339 => moment(rank).to_rfc3339_opts(SecondsFormat::AutoSi, true),
            Self::Date => moment(rank).date_naive().to_string(),
            Self::EpochSeconds => rank.div_euclid(NANOS_PER_SECOND).to_string(),
            Self::EpochMillis => rank.div_euclid(1_000_000).to_string(),
            Self::EpochMicros => rank.div_euclid(1000).to_string(),
            Self::Pattern(pattern) => {
                let mut text = String::new();
                match write!(text, "{}", moment(rank).format(pattern)) {
                    Ok(()) => text,
                    // Not one of those that `check_pattern` lets through.
                    Err(_) => Self::Rfc3339.canonical(rank),
                }
            }
        }
    }

    /// The greatest rank not beyond `rank` that the format can say.
    pub fn floor(&self, rank: Rank) -> Rank {
        self.rank(&self.canonical(rank)).unwrap_or(rank)
    }
}

/// Checks that a pattern can be written and read back without a moment becoming another one.
///
/// # Errors
/// One sentence for the user that says what is not understood.
///
/// ```
/// use landfall::config::cursor::check_pattern;
/// assert!(check_pattern("%d.%m.%Y %H:%M").is_ok());
/// assert!(check_pattern("%d.%m.").is_err());
/// ```
pub fn check_pattern(pattern: &str) -> Result<(), &'static str> {
    if StrftimeItems::new(pattern).any(|item| matches!(item, Item::Error)) {
        return Err("holds a % that strftime does not know");
    }
    if pattern.contains("%Z") {
        return Err("%Z is the name of a time zone, which does not say how far it is from UTC");
    }
    let format = CursorFormat::Pattern(pattern.into());
    let mut before = None;
    for probe in PROBES {
        let rank = CursorFormat::Rfc3339.rank(probe);
        let Some(read) = rank.and_then(|rank| format.rank(&format.canonical(rank))) else {
            return Err(
                "does not say a moment: it needs a year and what stands between it and its smallest part",
            );
        };
        if Some(read) > rank || Some(read) < before {
            return Err("turns a moment into a later one");
        }
        before = Some(read);
    }
    Ok(())
}

/// The rank of a moment.
pub fn nanos(moment: Timestamp) -> Rank {
    Rank::from(moment.timestamp()) * NANOS_PER_SECOND + Rank::from(moment.timestamp_subsec_nanos())
}

/// The moment of a rank, within the years 0 to 9999: no format says others the same way everywhere.
pub fn moment(rank: Rank) -> Timestamp {
    const FIRST: i64 = -62_167_219_200;
    const LAST: i64 = 253_402_300_799;
    let seconds = rank.div_euclid(NANOS_PER_SECOND);
    let subsecond = u32::try_from(rank.rem_euclid(NANOS_PER_SECOND)).unwrap_or(0);
    let (seconds, subsecond) = match i64::try_from(seconds) {
        Ok(seconds @ FIRST..=LAST) => (seconds, subsecond),
        _ if rank < 0 => (FIRST, 0),
        _ => (LAST, 999_999_999),
    };
    DateTime::from_timestamp(seconds, subsecond).unwrap_or(DateTime::UNIX_EPOCH)
}

fn rfc3339(text: &str) -> Option<Timestamp> {
    let moment = match DateTime::parse_from_rfc3339(text) {
        Ok(moment) => moment,
        Err(_) => DateTime::parse_from_rfc3339(&as_rfc3339(text)?).ok()?,
    };
    Some(moment.to_utc())
}

/// A date-time with an offset that is not written as RFC 3339 wants it; `None` if there is no offset.
fn as_rfc3339(text: &str) -> Option<String> {
    let (date, time) = text.split_at_checked(10)?;
    let time = time.strip_prefix(['T', 't', ' '])?;
    let ends = time.find(|letter: char| !matches!(letter, '0'..='9' | ':' | '.'))?;
    let (clock, offset) = time.split_at(ends);
    let offset = offset.strip_prefix(' ').unwrap_or(offset);
    let digits = |from: usize, to: usize| offset.get(from..to).filter(|part| is_digits(part));
    let offset: Cow<'_, str> = match offset {
        "Z" | "z" | "UTC" => Cow::Borrowed("Z"),
        _ if !offset.starts_with(['+', '-']) => return None,
        _ => match offset.len() {
            3 => format!("{}{}:00", &offset[..1], digits(1, 3)?).into(),
            5 => format!("{}{}:{}", &offset[..1], digits(1, 3)?, digits(3, 5)?).into(),
            _ => Cow::Borrowed(offset),
        },
    };
    Some(format!("{date}T{clock}{offset}"))
}

/// Reads `text` by `pattern`. A date alone is its first moment, a month its first day.
fn strftime(pattern: &str, text: &str) -> Option<Timestamp> {
    let mut parsed = Parsed::new();
    parse(&mut parsed, text, StrftimeItems::new(pattern)).ok()?;
    if let Some(seconds) = parsed.timestamp() {
        return DateTime::from_timestamp(seconds, parsed.nanosecond().unwrap_or(0));
    }
    if parsed.minute().is_none() {
        if parsed.hour_mod_12().is_none() && parsed.hour_div_12().is_none() {
            parsed.set_hour(0).ok()?;
        }
        parsed.set_minute(0).ok()?;
    }
    let parsed = with_date(parsed)?;
    let offset = parsed.offset().unwrap_or(0);
    let local: NaiveDateTime = parsed.to_naive_datetime_with_offset(offset).ok()?;
    let zone = chrono::FixedOffset::east_opt(offset)?;
    zone.from_local_datetime(&local)
        .single()
        .map(|moment| moment.to_utc())
}

/// The same with the first month, day or day of the week where there is none.
fn with_date(mut parsed: Parsed) -> Option<Parsed> {
    if parsed.to_naive_date().is_ok() {
        return Some(parsed);
    }
    if parsed.isoweek().is_some() && parsed.weekday().is_none() {
        parsed.set_weekday(Weekday::Mon).ok()?;
    } else if parsed.day().is_none() {
        parsed.set_day(1).ok()?;
        if parsed.month().is_none() {
            parsed.set_month(1).ok()?;
        }
    }
    Some(parsed)
}

/// A decimal number without exponent, as nanoseconds; `digits` of its fraction count, and it is rounded down.
fn epoch(text: &str, digits: usize) -> Option<Rank> {
    let (number, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if !is_digits(fraction) || number.starts_with('+') {
        return None;
    }
    let whole: Rank = number.parse().ok()?;
    let (counted, rest) = fraction.split_at(digits.min(fraction.len()));
    let unit = Rank::pow(10, u32::try_from(digits).ok()?);
    let scale = Rank::pow(10, u32::try_from(digits - counted.len()).ok()?);
    let part = counted.parse::<Rank>().ok()? * scale;
    let whole = whole.checked_mul(unit)?;
    if number.starts_with('-') {
        let below = rest.bytes().any(|byte| byte != b'0');
        whole.checked_sub(part + Rank::from(below))
    } else {
        whole.checked_add(part)
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn formats() -> Vec<CursorFormat> {
        vec![
            CursorFormat::Rfc3339,
            CursorFormat::Date,
            CursorFormat::EpochSeconds,
            CursorFormat::EpochMillis,
            CursorFormat::EpochMicros,
            CursorFormat::Pattern("%s".into()),
            CursorFormat::Pattern("%d/%m/%Y %H:%M:%S%z".into()),
            CursorFormat::Pattern("%b %d, %Y %I:%M %p".into()),
            CursorFormat::Pattern("%Y-%m".into()),
            CursorFormat::Integer,
        ]
    }

    #[test]
    fn r057_values_are_read_by_meaning_and_written_one_way() {
        use CursorFormat::{Date, EpochMicros, EpochMillis, EpochSeconds, Feed, Integer, Rfc3339};
        let pattern = |text: &str| CursorFormat::Pattern(text.into());
        let table = [
            (Rfc3339, "2024-05-01T02:00:00+02:00", Some("2024-05-01T00:00:00Z")),
            (
                Rfc3339,
                "2024-05-01T02:00:00.5+0200",
                Some("2024-05-01T00:00:00.500Z"),
            ),
            (Rfc3339, "2024-05-01 02:00:00+02", Some("2024-05-01T00:00:00Z")),
            (Rfc3339, "2024-05-01 02:00:00 -0130", Some("2024-05-01T03:30:00Z")),
            (Rfc3339, "2024-05-01 02:00:00 UTC", Some("2024-05-01T02:00:00Z")),
            (Rfc3339, "2024-05-01 02:00:00Z", Some("2024-05-01T02:00:00Z")),
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
            (Rfc3339, "2024-05-01 00:00:00", None),
            (Rfc3339, "2024-05-01", None),
            (Rfc3339, "2024-05-01T00:00:00 CET", None),
            (Rfc3339, "2024-05-01T00:00:00+2", None),
            (Rfc3339, "2024-05-01T00:00:00+020", None),
            (Rfc3339, "2024-05-0é 00:00:00Z", None),
            (Date, "2024-02-29", Some("2024-02-29")),
            (Date, "1969-12-31", Some("1969-12-31")),
            (Date, "2024-02-30", None),
            (EpochSeconds, "1700000000", Some("1700000000")),
            (EpochSeconds, "1700000000.9", Some("1700000000")),
            (EpochSeconds, "-1.5", Some("-2")),
            (EpochSeconds, "-0.0000000001", Some("-1")),
            (EpochSeconds, "1.7e9", None),
            (EpochSeconds, "1.", None),
            (EpochMillis, "1700000000123", Some("1700000000123")),
            (EpochMicros, "1700000000123456", Some("1700000000123456")),
            (EpochSeconds, "170141183460469231731687303715884105727", None),
            (pattern("%Y%m%d"), "20240501", Some("20240501")),
            (pattern("%Y-%m"), "2024-05", Some("2024-05")),
            (pattern("%Y"), "2024", Some("2024")),
            (pattern("%G-W%V"), "2024-W18", Some("2024-W18")),
            (pattern("%s"), "1700000000", Some("1700000000")),
            (pattern("%s%.6f"), "1700000000.250000", Some("1700000000.250000")),
            (pattern("%d.%m.%Y %H"), "01.05.2024 13", Some("01.05.2024 13")),
            (
                pattern("%Y-%m-%d %H:%M:%S"),
                "2024-05-01 00:00:00",
                Some("2024-05-01 00:00:00"),
            ),
            (
                pattern("%Y-%m-%dT%H:%M:%S%z"),
                "2024-05-01T02:00:00+0200",
                Some("2024-05-01T00:00:00+0000"),
            ),
            (
                pattern("%a, %d %b %Y %H:%M:%S GMT"),
                "Wed, 01 May 2024 10:00:00 GMT",
                Some("Wed, 01 May 2024 10:00:00 GMT"),
            ),
            (pattern("%Y-%m-%d"), "01.05.2024", None),
            (Integer, "18446744073709551617", Some("18446744073709551617")),
            (Integer, "1.0", None),
            (Integer, "+1", None),
            (Feed, "17", None),
        ];
        for (format, text, expected) in table {
            let found = format.rank(text).map(|rank| format.canonical(rank));
            assert_eq!(found.as_deref(), expected, "{format:?} {text}");
        }
    }

    #[test]
    fn r057_one_moment_has_one_rank_in_every_format() {
        use CursorFormat::{Date, EpochMicros, EpochMillis, EpochSeconds, Rfc3339};
        let moment = Rfc3339.rank("2024-05-01T00:00:00Z");
        assert_eq!(moment, Some(1_714_521_600_000_000_000));
        for (format, text) in [
            (Date, "2024-05-01"),
            (EpochSeconds, "1714521600"),
            (EpochMillis, "1714521600000"),
            (EpochMicros, "1714521600000000"),
            (CursorFormat::Pattern("%d %B %Y".into()), "01 May 2024"),
        ] {
            assert_eq!(format.rank(text), moment, "{format:?}");
        }
    }

    #[test]
    fn patterns_that_do_not_say_a_moment_are_refused() {
        for pattern in [
            "%Y-%m-%d",
            "%s",
            "%Y",
            "%Y-%j",
            "%D %T",
            "%+",
            "%G-W%V-%u",
            "%Y-%m-%dT%H:%M:%S%.3fZ",
        ] {
            assert_eq!(check_pattern(pattern), Ok(()), "{pattern}");
        }
        for pattern in [
            "%m-%d",
            "%H:%M",
            "%Q",
            "%",
            "%Y-%m-%d %I:%M",
            "%d %Y",
            "%Y-%m-%d %Z",
            "%Y %M",
        ] {
            assert!(check_pattern(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn moments_beyond_what_formats_can_say_are_the_last_they_can() {
        for format in formats() {
            for rank in [Rank::MIN, Rank::MAX, -Rank::pow(10, 30), Rank::pow(10, 30)] {
                let text = format.canonical(rank);
                assert!(!text.is_empty(), "{format:?} {rank}");
            }
        }
        assert_eq!(CursorFormat::Date.canonical(Rank::MAX), "9999-12-31");
        assert_eq!(CursorFormat::Rfc3339.canonical(Rank::MIN), "0000-01-01T00:00:00Z");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn r057_canonical_text_is_never_later_and_keeps_what_the_format_can_say(
            rank in -10_000_000_000_000_000_000i128..100_000_000_000_000_000_000,
            more in 0i128..100_000_000_000_000_000_000,
        ) {
            for format in formats() {
                let floor = format.floor(rank);
                prop_assert!(floor <= rank, "{:?}", format);
                prop_assert_eq!(format.floor(floor), floor, "{:?}", format);
                prop_assert!(format.floor(rank + more) >= floor, "{:?}", format);
            }
            for format in [CursorFormat::Rfc3339, CursorFormat::Integer] {
                prop_assert_eq!(format.floor(rank), rank);
            }
        }

        #[test]
        fn r057_reading_never_panics(text in "[-+.0-9TZ:e a-z\\u{e9}]{0,40}", pattern in "[-%a-zA-Z0-9.:# ]{0,12}") {
            for format in formats() {
                let _ = format.rank(&text);
            }
            let _ = check_pattern(&pattern);
            let any = CursorFormat::Pattern(pattern.into());
            let _ = any.rank(&text);
            let _ = any.canonical(0);
        }
    }
}
