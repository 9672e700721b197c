//! Formats of cursors, and moments written in them.

use crate::{
    config::{
        cursor::check_pattern,
        incremental::{CursorFormat, Moment},
        read::values::parse_duration,
    },
    yaml::{
        Kind,
        fields::Value,
        quoted,
        section::Takes::{self, Choice, Either, List, Matching, Scalar},
    },
};

const WORDS: Takes = Choice(&[
    ("rfc3339", "2024-01-31T12:00:00Z, also with a space or +0000"),
    ("date", "2024-01-31"),
    ("epoch_s", "seconds since 1970"),
    ("epoch_ms", "milliseconds since 1970"),
    ("epoch_us", "microseconds since 1970"),
    ("integer", "a growing whole number without a unit"),
    ("feed", "a position in a change feed, sent back as it is"),
]);

/// A format.
pub(super) static FORMAT: Takes = Either(&[WORDS, Matching("%", "a strftime pattern")]);

/// One moment or several.
pub(super) const MOMENT: Takes = Either(&[Scalar, List(&Scalar)]);

/// A word or a pattern.
pub(super) fn format(value: Value<'_>) -> Option<CursorFormat> {
    let words = [
        ("rfc3339", 0),
        ("date", 1),
        ("epoch_s", 2),
        ("epoch_ms", 3),
        ("epoch_us", 4),
        ("integer", 5),
        ("feed", 6),
    ];
    let formats = [
        CursorFormat::Rfc3339,
        CursorFormat::Date,
        CursorFormat::EpochSeconds,
        CursorFormat::EpochMillis,
        CursorFormat::EpochMicros,
        CursorFormat::Integer,
        CursorFormat::Feed,
    ];
    match value.node.scalar_text() {
        Some(text) if text.contains('%') => match check_pattern(text) {
            Ok(()) => Some(CursorFormat::Pattern(text.into())),
            Err(reason) => {
                let hint = "write the parts of a moment, as in %Y-%m-%d %H:%M:%S%z".to_owned();
                value.refuse(format!("{} {reason}", quoted(text)), Some(hint))
            }
        },
        _ => value
            .choice(&words, &[])
            .map(|place: usize| formats[place].clone()),
    }
}

/// Further formats after `first`.
pub(super) fn also(value: Value<'_>, first: &CursorFormat) -> Option<Vec<CursorFormat>> {
    let mut formats: Vec<CursorFormat> = Vec::new();
    for item in value.items()? {
        let format = format(item)?;
        if !format.is_time() || !first.is_time() {
            return item.refuse("only times are written in several formats", None);
        }
        // Digits say nothing of their unit: the first would take them all.
        let digits = |format: &CursorFormat| {
            use CursorFormat::{EpochMicros, EpochMillis, EpochSeconds};
            matches!(format, EpochSeconds | EpochMillis | EpochMicros)
        };
        let mut before = std::iter::once(first).chain(&formats);
        if let Some(known) = before.find(|known| **known == format || digits(known) && digits(&format)) {
            let message = format!(
                "{} never gets a value that {} can be",
                format.as_str(),
                known.as_str()
            );
            return item.refuse(message, None);
        }
        formats.push(format);
    }
    Some(formats)
}

/// One moment or a list of them.
pub(super) fn moments(value: Value<'_>, format: &CursorFormat) -> Option<Vec<Moment>> {
    if !matches!(value.node.kind, Kind::Seq(_)) {
        return Some(vec![moment(value, format)?]);
    }
    let items: Vec<Value<'_>> = value.items()?.collect();
    if !format.is_time() && items.len() > 1 {
        return value.refuse("only of times there may be several", None);
    }
    items.into_iter().map(|item| moment(item, format)).collect()
}

fn moment(value: Value<'_>, format: &CursorFormat) -> Option<Moment> {
    let text = value.scalar()?;
    if let Some(before) = text.strip_suffix(" ago") {
        return match parse_duration(before.trim()) {
            Some(duration) if format.is_time() => Some(Moment::Ago(duration)),
            Some(_) => value.refuse("only times can be so long ago", None),
            None => value.refuse(
                format!("{} is not a duration", quoted(before)),
                Some("write 30d ago".to_owned()),
            ),
        };
    }
    check_value(value, text, format)?;
    Some(Moment::At(text.to_owned()))
}

fn check_value(value: Value<'_>, text: &str, format: &CursorFormat) -> Option<()> {
    let whole_number = || {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let plain = digits == "0" || !digits.starts_with('0');
        plain && !text.starts_with('+') && text.parse::<i64>().is_ok()
    };
    let reads = || format.rank(text).is_some();
    let (good, wanted) = match format {
        CursorFormat::Rfc3339 => (reads(), "a moment: 2024-01-01T00:00:00Z".to_owned()),
        // The parser of dates forgives missing zeros and spaces; the length does not.
        CursorFormat::Date => (text.len() == 10 && reads(), "a date: 2024-01-01".to_owned()),
        CursorFormat::EpochSeconds => (whole_number(), "seconds since 1970: 1704067200".to_owned()),
        CursorFormat::EpochMillis => (
            whole_number(),
            "milliseconds since 1970: 1704067200000".to_owned(),
        ),
        CursorFormat::EpochMicros => (
            whole_number(),
            "microseconds since 1970: 1704067200000000".to_owned(),
        ),
        CursorFormat::Integer => (whole_number(), "a whole number".to_owned()),
        CursorFormat::Pattern(pattern) => (reads(), format!("a moment as {pattern} has it")),
        CursorFormat::Feed => (!text.is_empty(), "the first position".to_owned()),
    };
    if good {
        return Some(());
    }
    value.refuse(
        format!("{} does not fit the format", quoted(text)),
        Some(format!("write {wanted}")),
    )
}
