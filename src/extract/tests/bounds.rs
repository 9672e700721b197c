//! Where windows begin and end, and where they leave the watermark.

use std::time::Duration;

use chrono::Weekday;
use proptest::prelude::*;

use crate::{
    clock::Timestamp,
    config::{
        cursor::nanos,
        incremental::{Calendar, CursorFormat, Filter, Incremental, Moment, OnExpired, Order, Step, Until},
        parse_timestamp,
        request::TokenSlot,
    },
    error::ErrorKind,
    extract::{
        bounds::{Bounds, backfill_windows, windows, windows_after},
        cursor::Rank,
    },
    json::JsonPath,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn settings(format: CursorFormat, step: Option<Step>, granularity: Duration) -> Incremental {
    Incremental {
        cursor: JsonPath::parse("$.t").unwrap(),
        to: TokenSlot::Query("since".to_owned()),
        format,
        also: Vec::new(),
        start: Vec::new(),
        lookback: Duration::ZERO,
        until: Some(Until {
            to: TokenSlot::Query("until".to_owned()),
            step,
            align: None,
            end: Vec::new(),
            granularity,
            split_min: Duration::ZERO,
        }),
        order: Order::Any,
        filter: Filter::Api,
        skew: Incremental::SKEW_DEFAULT,
        on_expired: OnExpired::Stop,
        retained: None,
    }
}

fn at(text: &str) -> Timestamp {
    parse_timestamp(text).unwrap()
}

fn show(windows: impl Iterator<Item = Bounds>) -> String {
    let text = |bound: Option<String>| bound.unwrap_or_else(|| "-".to_owned());
    let shown: Vec<String> = windows
        .map(|bounds| format!("{}..{}", text(bounds.since), text(bounds.until)))
        .collect();
    shown.join(" ")
}

#[test]
fn r057_without_an_upper_bound_there_is_one_open_window() {
    let mut open = settings(CursorFormat::Rfc3339, None, SECOND);
    open.until = None;
    let now = at("2024-05-01T12:00:00Z");
    assert_eq!(show(windows(&open, None, now).unwrap()), "-..-");
    let after = windows(&open, Some("2024-05-01T00:00:00Z"), now).unwrap();
    assert_eq!(show(after), "2024-05-01T00:00:00Z..-");
    open.format = CursorFormat::Feed;
    assert_eq!(show(windows(&open, Some("a1"), now).unwrap()), "a1..-");
}

#[test]
fn r057_a_range_is_cut_into_steps() {
    use CursorFormat::{Date, EpochMillis, EpochSeconds, Rfc3339};
    let day = Some(Step::Fixed(DAY));
    let now = at("2024-05-03T12:00:00.75Z");
    let table = [
        // Inclusive dates: today is asked for too.
        (
            Date,
            day,
            DAY,
            "2024-05-01",
            "2024-05-01..2024-05-01 2024-05-02..2024-05-02 2024-05-03..2024-05-03",
        ),
        // A bound that is left out: today comes tomorrow.
        (
            Date,
            day,
            Duration::ZERO,
            "2024-05-01",
            "2024-05-01..2024-05-02 2024-05-02..2024-05-03",
        ),
        (Date, None, DAY, "2024-05-01", "2024-05-01..2024-05-03"),
        (Date, day, DAY, "2024-05-04", ""),
        // A step that dates cannot say is rounded to one they can.
        (
            Date,
            Some(Step::Fixed(36 * HOUR)),
            DAY,
            "2024-05-01",
            "2024-05-01..2024-05-01 2024-05-02..2024-05-03",
        ),
        (
            Date,
            Some(Step::Fixed(HOUR)),
            DAY,
            "2024-05-02",
            "2024-05-02..2024-05-02 2024-05-03..2024-05-03",
        ),
        (
            Rfc3339,
            day,
            SECOND,
            "2024-05-01T18:00:00+02:00",
            "2024-05-01T16:00:00Z..2024-05-02T15:59:59Z 2024-05-02T16:00:00Z..2024-05-03T12:00:00Z",
        ),
        (
            EpochSeconds,
            day,
            Duration::ZERO,
            "1714608000",
            "1714608000..1714694400 1714694400..1714737600",
        ),
        (
            EpochMillis,
            None,
            Duration::from_millis(1),
            "1714737599000",
            "1714737599000..1714737600000",
        ),
        // Months of the calendar do not drift from the 31st to the 28th.
        (
            Date,
            Some(Step::Months(1)),
            DAY,
            "2024-01-31",
            "2024-01-31..2024-02-28 2024-02-29..2024-03-30 2024-03-31..2024-04-29 2024-04-30..2024-05-03",
        ),
        (
            CursorFormat::Pattern("%Y%m".into()),
            Some(Step::Months(2)),
            DAY,
            "202401",
            "202401..202402 202403..202404 202405..202405",
        ),
    ];
    for (format, step, granularity, watermark, expected) in table {
        let settings = settings(format.clone(), step, granularity);
        let found = show(windows(&settings, Some(watermark), now).unwrap());
        assert_eq!(found, expected, "{format:?} {step:?} {granularity:?}");
    }
}

#[test]
fn r057_lookback_moves_the_front_once_and_the_end_may_stand_in_the_file() {
    let mut settings = settings(CursorFormat::Date, Some(Step::Fixed(2 * DAY)), DAY);
    settings.lookback = DAY;
    let until = settings.until.as_mut().unwrap();
    until.end = vec![Moment::At("2024-05-06".to_owned()), Moment::Ago(DAY)];
    let now = at("2024-05-09T01:00:00Z");
    let found = show(windows(&settings, Some("2024-05-03"), now).unwrap());
    assert_eq!(
        found,
        "2024-05-02..2024-05-03 2024-05-04..2024-05-05 2024-05-06..2024-05-06"
    );
    let now = at("2024-05-05T01:00:00Z");
    let found = show(windows(&settings, Some("2024-05-03"), now).unwrap());
    assert_eq!(found, "2024-05-02..2024-05-03 2024-05-04..2024-05-04");
}

#[test]
fn r057_whole_periods_only() {
    let now = at("2024-05-15T12:00:00Z");
    let table = [
        (
            Calendar::Month,
            None,
            "2024-03-20",
            "2024-03-01..2024-03-31 2024-04-01..2024-04-30",
        ),
        (
            Calendar::Year,
            None,
            "2022-03-20",
            "2022-01-01..2022-12-31 2023-01-01..2023-12-31",
        ),
        (
            Calendar::Week(Weekday::Mon),
            None,
            "2024-05-01",
            "2024-04-29..2024-05-05 2024-05-06..2024-05-12",
        ),
        (
            Calendar::Week(Weekday::Sun),
            None,
            "2024-05-05",
            "2024-05-05..2024-05-11",
        ),
        (Calendar::Day, None, "2024-05-14", "2024-05-14..2024-05-14"),
        (
            Calendar::Month,
            Some(Step::Months(2)),
            "2024-01-20",
            "2024-01-01..2024-02-29 2024-03-01..2024-04-30",
        ),
        // A step shorter than the period is one period.
        (
            Calendar::Month,
            Some(Step::Fixed(DAY)),
            "2024-04-20",
            "2024-04-01..2024-04-30",
        ),
    ];
    for (align, step, watermark, expected) in table {
        let mut settings = settings(CursorFormat::Date, step, DAY);
        settings.until.as_mut().unwrap().align = Some(align);
        let found = show(windows(&settings, Some(watermark), now).unwrap());
        assert_eq!(found, expected, "{align:?} {step:?}");
    }
}

#[test]
fn too_many_windows_are_refused_before_the_first() {
    let settings = settings(CursorFormat::Rfc3339, Some(Step::Fixed(SECOND)), Duration::ZERO);
    let now = at("2024-05-15T12:00:00Z");
    let error = windows(&settings, Some("2020-01-01T00:00:00Z"), now).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert!(error.to_string().contains("enlarge until.step"), "{error}");
    let error = windows(&settings, None, now).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("give incremental a start"), "{error}");
}

#[test]
fn r014_a_closed_range_is_asked_for_whatever_the_watermark_is() {
    let stepped = settings(CursorFormat::EpochSeconds, Some(Step::Fixed(DAY)), SECOND);
    // Both as the API writes them and as people do.
    for (from, to) in [
        ("1714521600", "1714694399"),
        ("2024-05-01", "2024-05-02T23:59:59Z"),
    ] {
        let found = show(backfill_windows(&stepped, from, to).unwrap());
        assert_eq!(found, "1714521600..1714607999 1714608000..1714694399", "{from}");
    }
    let mut months = settings(CursorFormat::Date, None, DAY);
    months.until.as_mut().unwrap().align = Some(Calendar::Month);
    let found = show(backfill_windows(&months, "2024-01-10", "2024-02-10").unwrap());
    assert_eq!(found, "2024-01-01..2024-01-31 2024-02-01..2024-02-29");
    let mut open = settings(CursorFormat::Integer, None, SECOND);
    open.until = None;
    let found: Vec<Bounds> = backfill_windows(&open, "5", "9").unwrap().collect();
    let whole = Bounds {
        since: Some("5".to_owned()),
        until: None,
        from: Some(5),
        to: Some(9),
    };
    assert_eq!(found, [whole]);
    let feed = settings(CursorFormat::Feed, None, SECOND);
    for (settings, from, to) in [
        (&stepped, "x", "2024-05-02"),
        (&stepped, "2024-05-02", "2024-05-01"),
        (&feed, "1", "2"),
    ] {
        let error = backfill_windows(settings, from, to).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{from} {to}");
    }
}

#[test]
fn r061_a_finished_window_moves_the_watermark_to_its_end_once_it_is_settled() {
    let mut settings = settings(CursorFormat::Rfc3339, Some(Step::Fixed(HOUR)), SECOND);
    settings.skew = 5 * Duration::from_secs(60);
    let bounds = Bounds::stored(
        &settings,
        Some("2024-05-01T10:00:00Z"),
        Some("2024-05-01T10:59:59Z"),
    );
    assert_eq!(bounds.to, CursorFormat::Rfc3339.rank("2024-05-01T11:00:00Z"));
    let table = [
        // Long over: nothing found is nothing there.
        (None, None, "2024-05-01T12:00:00Z", Some("2024-05-01T11:00:00Z")),
        (
            None,
            Some("2024-05-01T10:20:00Z"),
            "2024-05-01T12:00:00Z",
            Some("2024-05-01T11:00:00Z"),
        ),
        // A server that ignores the upper bound.
        (
            None,
            Some("2024-05-01T11:40:00Z"),
            "2024-05-01T12:00:00Z",
            Some("2024-05-01T11:00:00Z"),
        ),
        // Hardly over: what was found counts.
        (None, None, "2024-05-01T11:04:59Z", None),
        (
            None,
            Some("2024-05-01T10:20:00Z"),
            "2024-05-01T11:04:59Z",
            Some("2024-05-01T10:20:00Z"),
        ),
        // Not over: nothing beyond the moment it opened.
        (
            None,
            Some("2024-05-01T10:33:00Z"),
            "2024-05-01T10:30:00.7Z",
            Some("2024-05-01T10:30:00Z"),
        ),
        // Never back.
        (
            Some("2024-05-01T11:30:00Z"),
            None,
            "2024-05-01T12:00:00Z",
            Some("2024-05-01T11:30:00Z"),
        ),
    ];
    for (known, found, opened_at, expected) in table {
        let rank = found.and_then(|found| CursorFormat::Rfc3339.rank(found));
        let moved = bounds.watermark(&settings, known, rank, at(opened_at));
        assert_eq!(moved.as_deref(), expected, "{known:?} {found:?} {opened_at}");
    }
}

#[test]
fn r065_the_windows_after_a_resumed_one_begin_at_its_end() {
    let mut settings = settings(CursorFormat::Date, Some(Step::Fixed(2 * DAY)), DAY);
    settings.lookback = 5 * DAY;
    let resumed = Bounds::stored(&settings, Some("2024-05-02"), Some("2024-05-03"));
    let found = show(windows_after(&settings, &resumed, at("2024-05-06T00:00:00Z")).unwrap());
    assert_eq!(found, "2024-05-04..2024-05-05 2024-05-06..2024-05-06");
    let open = Bounds::stored(&settings, Some("2024-05-02"), None);
    assert_eq!(
        windows_after(&settings, &open, at("2024-05-06T00:00:00Z"))
            .unwrap()
            .count(),
        0
    );
}

fn formats() -> impl Strategy<Value = (CursorFormat, Duration)> {
    prop_oneof![
        Just((CursorFormat::Rfc3339, SECOND)),
        Just((CursorFormat::Rfc3339, Duration::ZERO)),
        Just((CursorFormat::Date, DAY)),
        Just((CursorFormat::Date, Duration::ZERO)),
        Just((CursorFormat::EpochSeconds, SECOND)),
        Just((CursorFormat::EpochMillis, Duration::from_millis(1))),
        Just((
            CursorFormat::Pattern("%Y-%m-%d %H:%M".into()),
            Duration::from_secs(60)
        )),
    ]
}

fn steps() -> impl Strategy<Value = Option<Step>> {
    prop_oneof![
        Just(None),
        (3_600u64..5_000_000).prop_map(|seconds| Some(Step::Fixed(Duration::from_secs(seconds)))),
        (1u32..15).prop_map(|months| Some(Step::Months(months))),
    ]
}

fn alignments() -> impl Strategy<Value = Option<Calendar>> {
    prop_oneof![
        3 => Just(None),
        1 => Just(Some(Calendar::Day)),
        1 => Just(Some(Calendar::Week(Weekday::Wed))),
        1 => Just(Some(Calendar::Month)),
        1 => Just(Some(Calendar::Year)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Each window begins where the one before ended, and what an API that includes its bounds is asked for meets
    /// without overlap.
    #[test]
    fn r057_windows_tile_the_range(
        (format, granularity) in formats(),
        step in steps(),
        align in alignments(),
        from in 1_600_000_000i64..1_700_000_000,
        length in 0i64..100_000_000,
        lookback in prop_oneof![Just(0u64), 0u64..1_000_000],
    ) {
        let mut settings = settings(format.clone(), step, granularity);
        settings.lookback = Duration::from_secs(lookback);
        settings.until.as_mut().unwrap().align = align;
        let watermark = format.canonical(Rank::from(from) * 1_000_000_000);
        let now = chrono::DateTime::from_timestamp(from + length, 5).unwrap();
        let found: Vec<Bounds> = windows(&settings, Some(&watermark), now).unwrap().collect();
        let gap = granularity.as_nanos().cast_signed();
        let rank = |text: &Option<String>| format.rank(text.as_ref().unwrap()).unwrap();
        for bounds in &found {
            prop_assert_eq!(bounds.from, Some(rank(&bounds.since)));
            prop_assert_eq!(bounds.to, Some(rank(&bounds.until) + gap));
            prop_assert!(bounds.from < bounds.to);
            prop_assert_eq!(&Bounds::stored(&settings, bounds.since.as_deref(), bounds.until.as_deref()), bounds);
        }
        for pair in found.windows(2) {
            prop_assert_eq!(pair[0].to, pair[1].from);
        }
        let asked = format.rank(&watermark).unwrap() - settings.lookback.as_nanos().cast_signed();
        if let (Some(first), Some(last)) = (found.first(), found.last()) {
            prop_assert!(first.from.unwrap() <= asked);
            prop_assert!(last.to.unwrap() <= nanos(now) + gap);
        } else if align.is_none() {
            prop_assert!(format.floor(asked) + gap >= format.floor(nanos(now)));
        }
        if align.is_none() && let Some(last) = found.last() {
            prop_assert_eq!(last.to.unwrap() - gap, format.floor(nanos(now) - 5));
        }
    }

    /// Whatever is found, the watermark goes neither back nor beyond the window or the moment it opened.
    #[test]
    fn r061_the_watermark_stays_within_what_was_asked_for(
        (format, granularity) in formats(),
        step in steps(),
        from in 1_600_000_000i64..1_700_000_000,
        length in 1i64..50_000_000,
        found in proptest::collection::vec(proptest::option::of(-100_000i64..60_000_000), 1..20),
    ) {
        let settings = settings(format.clone(), step, granularity);
        let mut watermark = format.canonical(Rank::from(from) * 1_000_000_000);
        let now = chrono::DateTime::from_timestamp(from + length, 0).unwrap();
        for (bounds, found) in windows(&settings, Some(&watermark), now).unwrap().zip(found.iter().cycle()) {
            let before = format.rank(&watermark).unwrap();
            let found = found.map(|offset| Rank::from(from + offset) * 1_000_000_000);
            let Some(moved) = bounds.watermark(&settings, Some(&watermark), found, now) else {
                return Err(TestCaseError::fail("a watermark is never forgotten"));
            };
            let after = format.rank(&moved).unwrap();
            prop_assert!(after >= before);
            prop_assert!(after == before || Some(after) <= bounds.to);
            prop_assert!(after == before || after <= nanos(now));
            // The next window is never skipped: it begins at or before the watermark's place.
            prop_assert!(after <= bounds.to.unwrap());
            watermark = moved;
        }
    }
}
