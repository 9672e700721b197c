//! How only changed records are asked for.

use std::time::Duration;

use chrono::NaiveDate;

use crate::{
    config::{
        incremental::{CursorFormat, Filter, Incremental, Moment, OnExpired, Order},
        parse_timestamp,
        read::{
            paginate::{SLOT, SLOT_RULE, slot},
            values::{DURATION_MAX, duration, json_path},
        },
        request::Method,
    },
    yaml::{
        fields::Value,
        quoted,
        section::{
            Section,
            Takes::{Choice, Duration as Span, Path, Scalar},
            key,
        },
    },
};

/// `incremental`
pub(super) static INCREMENTAL: Section = Section::new(
    "incremental",
    "incremental",
    "How only changed records are asked for.",
    &[
        key("cursor", Path)
            .required()
            .doc("The value within a record that grows with each change.")
            .example("$.updated_at"),
        key(
            "format",
            Choice(&[
                ("rfc3339", "2024-01-31T12:00:00Z"),
                ("date", "2024-01-31"),
                ("epoch_s", "seconds since 1970"),
                ("epoch_ms", "milliseconds since 1970"),
                ("integer", "a growing whole number without a unit"),
            ]),
        )
        .default("rfc3339")
        .doc("How cursor values are written, and how the bound is.")
        .example("epoch_s"),
        key("start", Scalar)
            .doc("The first bound, in the format. Without it everything is asked for first.")
            .example("2024-01-01T00:00:00Z"),
        key("lookback", Span)
            .default("0s")
            .doc("How far before the watermark the next window begins. Not for whole numbers.")
            .example("1h"),
    ],
)
.shared(&[&SLOT])
.rules(&[SLOT_RULE])
.example("{ cursor: $.updated_at, param: updated_since }");

/// Reads `incremental`.
pub(super) fn incremental(value: Value<'_>, method: Method) -> Option<Incremental> {
    let fields = value.fields(&INCREMENTAL)?;
    let formats = [
        ("rfc3339", CursorFormat::Rfc3339),
        ("date", CursorFormat::Date),
        ("epoch_s", CursorFormat::EpochSeconds),
        ("epoch_ms", CursorFormat::EpochMillis),
        ("integer", CursorFormat::Integer),
    ];
    let cursor = fields.required("cursor", json_path);
    let to = slot(&fields, method, None);
    let format = match fields.value("format") {
        Some(value) => {
            let places: Vec<(&'static str, usize)> = formats
                .iter()
                .enumerate()
                .map(|(place, (name, _))| (*name, place))
                .collect();
            value.choice(&places, &[]).map(|place| formats[place].1.clone())
        }
        None => Some(CursorFormat::Rfc3339),
    };
    let start = fields.optional("start", |value| {
        let text = value.scalar()?;
        check_start(value, text, format.as_ref()?)?;
        Some(text.to_owned())
    });
    let lookback = fields.optional("lookback", |value| {
        let lookback = duration(value, Duration::ZERO..=DURATION_MAX)?;
        if format == Some(CursorFormat::Integer) && !lookback.is_zero() {
            return value.refuse("whole numbers without a unit have no lookback", None);
        }
        Some(lookback)
    });
    Some(Incremental {
        cursor: cursor?,
        to: to?,
        format: format?,
        also: Vec::new(),
        start: start.map(Moment::At).into_iter().collect(),
        lookback: lookback.unwrap_or(Duration::ZERO),
        until: None,
        order: Order::Any,
        filter: Filter::Api,
        skew: Incremental::SKEW_DEFAULT,
        on_expired: OnExpired::Stop,
    })
}

fn check_start(value: Value<'_>, text: &str, format: &CursorFormat) -> Option<()> {
    let whole_number = || {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let plain = digits == "0" || !digits.starts_with('0');
        plain && !text.starts_with('+') && text.parse::<i64>().is_ok()
    };
    // The parser of dates forgives missing zeros and spaces; the length does not.
    let date = || text.len() == 10 && NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok();
    let (good, wanted) = match format {
        CursorFormat::Rfc3339 => (parse_timestamp(text).is_ok(), "a moment: 2024-01-01T00:00:00Z"),
        CursorFormat::Date => (date(), "a date: 2024-01-01"),
        CursorFormat::EpochSeconds => (whole_number(), "seconds since 1970: 1704067200"),
        CursorFormat::EpochMillis => (whole_number(), "milliseconds since 1970: 1704067200000"),
        CursorFormat::EpochMicros => (whole_number(), "microseconds since 1970: 1704067200000000"),
        CursorFormat::Integer => (whole_number(), "a whole number"),
        CursorFormat::Pattern(_) | CursorFormat::Feed => (true, "a value of the format"),
    };
    if good {
        return Some(());
    }
    value.refuse(
        format!("{} does not fit the format", quoted(text)),
        Some(format!("write {wanted}")),
    )
}
