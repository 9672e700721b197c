//! Upper bounds of windows.

use std::time::Duration;

use chrono::Weekday;

use crate::{
    config::{
        incremental::{Calendar, CursorFormat, Step, Until},
        read::{
            cursor::{MOMENT, moments},
            slot::{ONE, SLOT, slot},
            values::{DURATION_MAX, duration, parse_duration},
        },
        request::{Method, TokenSlot},
    },
    yaml::{
        fields::Value,
        quoted,
        section::{
            Section,
            Takes::{Choice, Duration as Span, Matching},
            key,
        },
    },
};

/// Months in one step: a century.
const MONTHS_MAX: u32 = 1200;

/// `incremental.until`
pub(super) static UNTIL: Section = Section::new(
    "until",
    "until",
    "Upper bounds of windows, and where they go in the request.",
    &[
        key(
            "step",
            Matching(
                "^[0-9]+(ms|s|m|h|d|mo|y)$",
                "a whole number and one of ms, s, m, h, d, mo (months), y",
            ),
        )
        .doc("How long one window is. Without it one window reaches up to the end. Times only; needs `start`.")
        .example("30d")
        .more(&["1mo"]),
        key(
            "align",
            Choice(&[
                ("day", "from midnight"),
                ("week", "from Monday"),
                ("week_from_tuesday", "from Tuesday"),
                ("week_from_wednesday", "from Wednesday"),
                ("week_from_thursday", "from Thursday"),
                ("week_from_friday", "from Friday"),
                ("week_from_saturday", "from Saturday"),
                ("week_from_sunday", "from Sunday"),
                ("month", "from the first"),
                ("year", "from the first of January"),
            ]),
        )
        .doc(
            "Whole periods of the calendar only, in UTC: windows begin with one, and one that is not over is left for \
             later. Needs `start`.",
        )
        .example("month"),
        key("end", MOMENT)
            .doc("The last moment asked for: a value of the format, or `1d ago`; of several the earliest. Else the present.")
            .example("2024-12-31T23:59:59Z")
            .more(&["2d ago"]),
        key("granularity", Span)
            .default("0s")
            .doc(
                "The smallest difference between two cursors, by which a bound that the API includes is lowered. 0s if \
                 the API leaves the bound itself out.",
            )
            .example("1s"),
        key("split_min", Span)
            .default("0s")
            .doc(
                "A window no longer than this is not split by `then: split_window`. With 0s it is, down to what the \
                 format can say. Times only.",
            )
            .example("1h"),
    ],
)
.shared(&[&SLOT])
.rules(&[ONE])
.example("{ param: updated_until }");

/// Reads `until` of a cursor in `format` whose lower bound goes to `since`.
pub(super) fn until(
    value: Value<'_>,
    method: Method,
    since: Option<&TokenSlot>,
    format: &CursorFormat,
) -> Option<Until> {
    let fields = value.fields(&UNTIL)?;
    let to = slot(&fields, method, None);
    if to
        .as_ref()
        .is_some_and(|to| *to != TokenSlot::Template && since == Some(to))
    {
        return value.refuse("the upper bound goes where the lower one is", None);
    }
    if *format == CursorFormat::Feed {
        return value.refuse("a feed has no upper bound", None);
    }
    let times = |value: Value<'_>| match format.is_time() {
        true => Some(()),
        false => value.refuse("only times are cut into windows", None),
    };
    let step = fields.optional("step", |value| times(value).and_then(|()| step(value)));
    let align = fields.optional("align", |value| times(value).and_then(|()| align(value)));
    let end = match fields.value("end") {
        Some(value) => moments(value, format),
        None => Some(Vec::new()),
    };
    let granularity = fields
        .optional("granularity", |value| {
            duration(value, Duration::ZERO..=DURATION_MAX)
        })
        .unwrap_or(Duration::ZERO);
    if let (Some(Step::Fixed(step)), Some(value)) = (step, fields.value("step"))
        && step < granularity
    {
        return value.refuse("a window is shorter than the granularity", None);
    }
    let split_min = fields.optional("split_min", |value| {
        times(value).and_then(|()| duration(value, Duration::ZERO..=DURATION_MAX))
    });
    Some(Until {
        to: to?,
        step,
        align,
        end: end?,
        granularity,
        split_min: split_min.unwrap_or(Duration::ZERO),
    })
}

fn step(value: Value<'_>) -> Option<Step> {
    const HINT: &str = "write a whole number and one of ms, s, m, h, d, mo, y: 30d";
    let text = value.scalar()?;
    let months = |unit: &str, length: u32| {
        let number: u32 = text.strip_suffix(unit)?.parse().ok()?;
        number
            .checked_mul(length)
            .filter(|months| (1..=MONTHS_MAX).contains(months))
    };
    let fixed = parse_duration(text).filter(|step| !step.is_zero());
    match (fixed, months("mo", 1).or_else(|| months("y", 12))) {
        (Some(step), _) => Some(Step::Fixed(step)),
        (None, Some(months)) => Some(Step::Months(months)),
        (None, None) => value.refuse(
            format!("{} is not the length of a window", quoted(text)),
            Some(HINT.to_owned()),
        ),
    }
}

fn align(value: Value<'_>) -> Option<Calendar> {
    let periods = [
        ("day", Calendar::Day),
        ("week", Calendar::Week(Weekday::Mon)),
        ("week_from_tuesday", Calendar::Week(Weekday::Tue)),
        ("week_from_wednesday", Calendar::Week(Weekday::Wed)),
        ("week_from_thursday", Calendar::Week(Weekday::Thu)),
        ("week_from_friday", Calendar::Week(Weekday::Fri)),
        ("week_from_saturday", Calendar::Week(Weekday::Sat)),
        ("week_from_sunday", Calendar::Week(Weekday::Sun)),
        ("month", Calendar::Month),
        ("year", Calendar::Year),
    ];
    value.choice(&periods, &[])
}
