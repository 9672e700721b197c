//! The cursor of an incremental stream: what its records say, where its windows begin.

use crate::{
    clock::Timestamp,
    config::{
        cursor::{NANOS_PER_SECOND, nanos},
        incremental::{CursorFormat, Incremental, Moment},
    },
    error::{Error, ErrorKind, Result},
    json,
};

/// A cursor value as a number that orders like the value; see [`crate::config::cursor::Rank`].
pub type Rank = crate::config::cursor::Rank;

/// The rank of a cursor found in a record, read in the first of the stream's formats that fits.
///
/// A JSON number counts for formats that may consist of digits alone.
pub fn rank(incremental: &Incremental, value: &[u8]) -> Option<Rank> {
    let formats = || std::iter::once(&incremental.format).chain(&incremental.also);
    if value.first() == Some(&b'"') {
        let text = json::text(value)?;
        return formats().find_map(|format| format.rank(&text));
    }
    let text = std::str::from_utf8(value).ok()?;
    // `true` and brackets are no numbers, whatever a pattern makes of them.
    text.parse::<f64>().ok()?;
    formats()
        .filter(|format| !matches!(format, CursorFormat::Rfc3339 | CursorFormat::Date))
        .find_map(|format| format.rank(text))
}

/// The rank of a value's text, or `None` if it is not written in `format`.
pub fn rank_of_text(format: &CursorFormat, text: &str) -> Option<Rank> {
    format.rank(text)
}

/// The one text of a rank; see [`CursorFormat::canonical`].
pub fn canonical(format: &CursorFormat, rank: Rank) -> String {
    format.canonical(rank)
}

/// The greatest rank that counts at `now`, or `None` if the format does not mean a time.
///
/// Values beyond it never become the watermark: one record dated 2999 would hide every later change. A server whose
/// clock is further ahead than `skew` costs repeated reads, never a record.
pub fn horizon(incremental: &Incremental, now: Timestamp) -> Option<Rank> {
    let skew = incremental.skew.as_nanos().cast_signed();
    incremental.format.is_time().then(|| nanos(now) + skew)
}

/// The greatest rank a watermark may have after a window that opened at `opened_at`, in whole seconds; `None` if the
/// format does not mean a time.
///
/// A record that changes while its window is fetched may be on a page already passed. The next window asks for it again.
pub fn cap(format: &CursorFormat, opened_at: Timestamp) -> Option<Rank> {
    let seconds = Rank::from(opened_at.timestamp());
    format.is_time().then_some(seconds * NANOS_PER_SECOND)
}

/// The rank and the text of a moment of the settings, as seen at `now`; `None` if it is not written in `format`.
pub fn moment(format: &CursorFormat, moment: &Moment, now: Timestamp) -> Option<(Rank, String)> {
    match moment {
        Moment::At(text) => Some((format.rank(text)?, text.clone())),
        Moment::Ago(duration) => {
            let text = format.canonical(nanos(now) - duration.as_nanos().cast_signed());
            Some((format.rank(&text)?, text))
        }
    }
}

/// The moment before which the API keeps nothing, if `watermark` lies before it; as seen at `now`.
pub fn forgotten(incremental: &Incremental, watermark: Option<&str>, now: Timestamp) -> Option<String> {
    let format = &incremental.format;
    let (oldest, text) = moment(format, &Moment::Ago(incremental.retained?), now)?;
    (format.rank(watermark?)? < oldest).then_some(text)
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

/// The lower bound of a window that follows `watermark` and opens at `now`: the watermark less the lookback, never
/// before the latest `start`.
///
/// Without a watermark it is `start` as written, or nothing. The watermark of a feed is its position, sent as it is.
///
/// # Errors
/// [`ErrorKind::Config`] if the stored watermark is not written in the format the stream has now.
pub fn bound(incremental: &Incremental, watermark: Option<&str>, now: Timestamp) -> Result<Option<String>> {
    let format = &incremental.format;
    if *format == CursorFormat::Feed {
        let start = || incremental.start.first().map(Moment::to_string);
        return Ok(watermark.map(str::to_owned).or_else(start));
    }
    let starts = incremental.start.iter();
    let start = starts
        .filter_map(|start| moment(format, start, now))
        .max_by_key(|(rank, _)| *rank);
    let Some(watermark) = watermark else {
        return Ok(start.map(|(_, text)| text));
    };
    let Some(rank) = format.rank(watermark) else {
        return Err(Error::new(ErrorKind::Config, "read watermark")
            .with("watermark", watermark)
            .with("format", format.as_str())
            .with(
                "hint",
                "the cursor format of the stream changed; restore it or start the stream anew",
            ));
    };
    let lookback = if format.is_time() {
        incremental.lookback.as_nanos().cast_signed()
    } else {
        0
    };
    let since = rank.saturating_sub(lookback);
    Ok(match start {
        Some((start, text)) if start > since => Some(text),
        _ => Some(format.canonical(since)),
    })
}

/// Whether a record lies before a window's lower bound. One at the bound does not: others may share its cursor (F052).
pub fn is_behind(rank: Rank, bound: Option<Rank>) -> bool {
    bound.is_some_and(|bound| rank < bound)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        config::{
            incremental::{Filter, OnExpired, Order},
            parse_timestamp,
            request::TokenSlot,
        },
        json::JsonPath,
    };

    fn incremental(format: CursorFormat, start: Option<&str>, lookback_seconds: u64) -> Incremental {
        Incremental {
            cursor: JsonPath::parse("$.t").unwrap(),
            to: TokenSlot::Query("since".to_owned()),
            format,
            start: start
                .map(|text| Moment::At(text.to_owned()))
                .into_iter()
                .collect(),
            lookback: Duration::from_secs(lookback_seconds),
            also: Vec::new(),
            until: None,
            order: Order::Any,
            filter: Filter::Api,
            skew: Incremental::SKEW_DEFAULT,
            on_expired: OnExpired::Stop,
            retained: None,
        }
    }

    fn noon() -> Timestamp {
        parse_timestamp("2024-06-01T12:00:00Z").unwrap()
    }

    #[test]
    fn r057_json_numbers_and_text_both_count_for_numeric_formats() {
        let rank =
            |format: &CursorFormat, json: &str| rank(&incremental(format.clone(), None, 0), json.as_bytes());
        assert_eq!(rank(&CursorFormat::EpochMillis, "12"), Some(12_000_000));
        assert_eq!(rank(&CursorFormat::EpochMillis, "\"12\""), Some(12_000_000));
        assert_eq!(rank(&CursorFormat::EpochMillis, "null"), None);
        assert_eq!(rank(&CursorFormat::Rfc3339, "12"), None);
        assert_eq!(rank(&CursorFormat::Integer, "{}"), None);
        let days = CursorFormat::Pattern("%Y%m%d".into());
        assert_eq!(rank(&days, "19700102"), Some(86_400 * NANOS_PER_SECOND));
    }

    #[test]
    fn r057_values_in_further_formats_compare_with_the_first() {
        let mut mixed = incremental(CursorFormat::Rfc3339, None, 0);
        mixed.also = vec![CursorFormat::Date, CursorFormat::EpochMillis];
        let rank = |json: &str| rank(&mixed, json.as_bytes()).unwrap();
        assert!(rank("\"2024-05-01T00:00:01Z\"") > rank("\"2024-05-01\""));
        assert_eq!(rank("1714521600000"), rank("\"2024-05-01\""));
        assert_eq!(identity(&mixed), "$.t rfc3339");
    }

    #[test]
    fn r057_the_bound_is_the_watermark_less_the_lookback() {
        use CursorFormat::{Date, EpochMillis, EpochSeconds, Feed, Integer, Rfc3339};
        let pattern = || CursorFormat::Pattern("%d/%m/%Y".into());
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
            (pattern(), None, 3600, Some("01/03/2024"), Some("29/02/2024")),
            (Integer, None, 10, Some("100"), Some("100")),
            (Feed, Some("now"), 0, None, Some("now")),
            (Feed, Some("now"), 0, Some("a1:b2"), Some("a1:b2")),
        ];
        for (format, start, lookback, watermark, expected) in table {
            let found = bound(&incremental(format.clone(), start, lookback), watermark, noon()).unwrap();
            assert_eq!(
                found.as_deref(),
                expected,
                "{format:?} {start:?} {lookback} {watermark:?}"
            );
        }
        let error = bound(&incremental(Date, None, 0), Some("17"), noon()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }

    #[test]
    fn r057_of_several_starts_the_latest_counts() {
        let mut settings = incremental(CursorFormat::Date, Some("2023-01-01"), 0);
        settings.start.push(Moment::Ago(Duration::from_secs(30 * 86_400)));
        let bound = |watermark| bound(&settings, watermark, noon()).unwrap().unwrap();
        assert_eq!(bound(None), "2024-05-02");
        // What the API no longer serves is not asked for after a long pause either.
        assert_eq!(bound(Some("2023-06-01")), "2024-05-02");
        assert_eq!(bound(Some("2024-05-20")), "2024-05-20");
    }

    #[test]
    fn f053_the_horizon_is_the_skew_that_is_set() {
        let mut settings = incremental(CursorFormat::Rfc3339, None, 0);
        settings.skew = Duration::from_secs(2 * 3600);
        let latest = CursorFormat::Rfc3339.rank("2024-06-01T14:00:00Z");
        assert_eq!(horizon(&settings, noon()), latest);
        settings.format = CursorFormat::Pattern("%Y".into());
        assert_eq!(horizon(&settings, noon()), latest);
        settings.format = CursorFormat::Integer;
        assert_eq!(horizon(&settings, noon()), None);
    }
}
