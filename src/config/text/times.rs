//! What templates can do with time.
//!
//! A moment is a text (RFC 3339, or a date or a time without a zone, taken as UTC) or a whole number since 1970:
//! seconds, from 10^11 on milliseconds, from 10^14 on microseconds.

use std::{fmt, fmt::Write as _, sync::Arc};

use chrono::{
    DateTime, FixedOffset, Months, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat, TimeDelta, Utc,
    format::{Item, StrftimeItems},
};
use minijinja::{
    Environment, Error, State,
    value::{Object, ObjectRepr, Value, ValueKind},
};

use super::{
    engine::{spend, text_of},
    fault::Fault,
};
use crate::config::read::values::parse_duration;

/// Longest format of a time, in bytes.
const FORMAT_BYTES_MAX: usize = 200;

/// Whole numbers from here on are milliseconds: as seconds they would lie beyond the year 5000.
const MILLIS_FROM: u64 = 100_000_000_000;

/// Whole numbers from here on are microseconds.
const MICROS_FROM: u64 = 100_000_000_000_000;

/// Which way a moment is moved.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Later,
    Earlier,
}

/// A moment, and the form it came in.
#[derive(Clone, Copy)]
struct Moment {
    at: DateTime<FixedOffset>,
    form: Form,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Date,
    Text,
    /// Whole numbers, this many in one second.
    Number(i64),
}

/// What lies between two moments.
#[derive(Clone, Copy, Debug)]
struct Span {
    months: u32,
    rest: TimeDelta,
    back: bool,
}

pub(super) fn add(environment: &mut Environment<'static>) {
    environment.add_filter("add", added);
    environment.add_filter("date", date);
    environment.add_filter("epoch", epoch);
    environment.add_filter("epoch_ms", epoch_ms);
    environment.add_filter("strftime", format_datetime);
    environment.add_function("day_delta", day_delta);
    environment.add_function("duration", duration);
    environment.add_function("format_datetime", format_datetime);
    environment.add_function("now_utc", now_utc);
    environment.add_function("str_to_datetime", str_to_datetime);
    environment.add_function("timestamp", epoch);
    environment.add_function("today_utc", today_utc);
}

/// `value` moved by `span`, if `span` is one.
pub(super) fn shifted(value: &Value, span: &Value, direction: Direction) -> Result<Option<Value>, Fault> {
    let Some(span) = span.downcast_object_ref::<Span>() else {
        return Ok(None);
    };
    let span = Span {
        back: span.back != (direction == Direction::Earlier),
        ..*span
    };
    moment(value)?.moved(span).map(|moment| Some(moment.value()))
}

fn added(state: &mut State<'_, '_>, value: Value, span: Value) -> Result<Value, Error> {
    spend(state, 1)?;
    let span = match span.downcast_object_ref::<Span>() {
        Some(span) => *span,
        None => read_span(&text_of(&span)?)?,
    };
    Ok(moment(&value)?.moved(span)?.value())
}

fn date(value: Value) -> Result<String, Error> {
    Ok(moment(&value)?.at.format("%Y-%m-%d").to_string())
}

fn epoch(value: Value) -> Result<i64, Error> {
    Ok(moment(&value)?.at.timestamp())
}

fn epoch_ms(value: Value) -> Result<i64, Error> {
    Ok(moment(&value)?.at.timestamp_millis())
}

fn str_to_datetime(value: Value) -> Result<String, Error> {
    Ok(rfc3339(moment(&value)?.at))
}

fn duration(text: String) -> Result<Value, Error> {
    Ok(Value::from_object(read_span(&text)?))
}

/// `value` written as `format` says; `input` says how it is written itself.
fn format_datetime(
    state: &mut State<'_, '_>,
    value: Value,
    format: String,
    input: Option<String>,
) -> Result<String, Error> {
    spend(state, format.len() as u64 * 8 + 1)?;
    let at = match input {
        Some(input) => read_as(&text_of(&value)?, &input)?,
        None => moment(&value)?.at,
    };
    let items = items(&format)?;
    let mut text = String::new();
    write!(text, "{}", at.format_with_items(items.iter()))
        .map_err(|_| Fault::new("a format of a time cannot be written"))?;
    Ok(text)
}

fn now_utc(state: &State<'_, '_>) -> Result<Value, Error> {
    let now = state.lookup("now").filter(|now| !now.is_undefined());
    now.ok_or_else(|| Fault::new("the time is not known here").into())
}

fn today_utc(state: &State<'_, '_>) -> Result<String, Error> {
    date(now_utc(state)?)
}

/// The time `days` from now.
fn day_delta(state: &mut State<'_, '_>, days: i64, format: Option<String>) -> Result<Value, Error> {
    let span = Span {
        months: 0,
        rest: TimeDelta::try_days(days).ok_or_else(beyond)?,
        back: false,
    };
    let moved = moment(&now_utc(state)?)?.moved(span)?.value();
    match format {
        Some(format) => format_datetime(state, moved, format, None).map(Value::from),
        None => Ok(moved),
    }
}

impl Moment {
    fn moved(self, span: Span) -> Result<Self, Fault> {
        let months = Months::new(span.months);
        let at = if span.back {
            let by_months = self.at.checked_sub_months(months);
            by_months.and_then(|at| at.checked_sub_signed(span.rest))
        } else {
            let by_months = self.at.checked_add_months(months);
            by_months.and_then(|at| at.checked_add_signed(span.rest))
        };
        Ok(Self {
            at: at.ok_or_else(beyond)?,
            ..self
        })
    }

    /// In the form it came in; a date that is no longer midnight becomes a time.
    fn value(self) -> Value {
        match self.form {
            Form::Date if self.at.time() == NaiveTime::MIN => {
                Value::from(self.at.format("%Y-%m-%d").to_string())
            }
            Form::Date | Form::Text => Value::from(rfc3339(self.at)),
            Form::Number(1) => Value::from(self.at.timestamp()),
            Form::Number(1000) => Value::from(self.at.timestamp_millis()),
            Form::Number(_) => Value::from(self.at.timestamp_micros()),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.rest.num_seconds())
    }
}

impl Object for Span {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

fn beyond() -> Fault {
    Fault::new("a time lies beyond what can be written")
}

fn rfc3339(at: DateTime<FixedOffset>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

fn moment(value: &Value) -> Result<Moment, Fault> {
    match value.kind() {
        ValueKind::Number if value.is_integer() => {
            let number = i64::try_from(value.clone()).map_err(|_| beyond())?;
            let (at, each) = match number.unsigned_abs() {
                MICROS_FROM.. => (DateTime::from_timestamp_micros(number), 1_000_000),
                MILLIS_FROM.. => (DateTime::from_timestamp_millis(number), 1000),
                _ => (DateTime::from_timestamp(number, 0), 1),
            };
            Ok(Moment {
                at: at.ok_or_else(beyond)?.fixed_offset(),
                form: Form::Number(each),
            })
        }
        ValueKind::String => read(value.as_str().unwrap_or_default()),
        _ => Err(not_a_time()),
    }
}

fn read(text: &str) -> Result<Moment, Fault> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(Moment { at, form: Form::Text });
    }
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        let at = date.and_time(NaiveTime::MIN).and_utc().fixed_offset();
        return Ok(Moment { at, form: Form::Date });
    }
    let zoned = ["%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%d %H:%M:%S%.f%z"];
    let bare = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M"];
    let zoned = zoned
        .iter()
        .find_map(|format| DateTime::parse_from_str(text, format).ok());
    let bare = || {
        let found = bare
            .iter()
            .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
        found.map(|time| time.and_utc().fixed_offset())
    };
    let at = zoned.or_else(bare).ok_or_else(not_a_time)?;
    Ok(Moment { at, form: Form::Text })
}

fn read_as(text: &str, format: &str) -> Result<DateTime<FixedOffset>, Fault> {
    items(format)?;
    let zoned = DateTime::parse_from_str(text, format).ok();
    let bare = || {
        NaiveDateTime::parse_from_str(text, format)
            .ok()
            .map(|time| time.and_utc())
    };
    let date = || {
        let date = NaiveDate::parse_from_str(text, format).ok();
        date.map(|date| date.and_time(NaiveTime::MIN).and_utc())
    };
    let utc = |at: DateTime<Utc>| at.fixed_offset();
    zoned
        .or_else(|| bare().map(utc))
        .or_else(|| date().map(utc))
        .ok_or_else(not_a_time)
}

fn items(format: &str) -> Result<Vec<Item<'_>>, Fault> {
    let wrong = || {
        Fault::new("a format of a time cannot be read").hint("write it as in strftime: %Y-%m-%dT%H:%M:%SZ")
    };
    if format.len() > FORMAT_BYTES_MAX {
        return Err(wrong());
    }
    let items: Vec<Item<'_>> = StrftimeItems::new(format).collect();
    match items.contains(&Item::Error) {
        true => Err(wrong()),
        false => Ok(items),
    }
}

fn not_a_time() -> Fault {
    Fault::new("a value is not a time").hint("give it as RFC 3339, as a date, or as seconds since 1970")
}

/// `1d`, `-90m`, or ISO 8601: `P1M`, `-PT1H30M`.
fn read_span(text: &str) -> Result<Span, Fault> {
    let wrong = || Fault::new("a value is not a duration").hint("write 30s, -1d or P1M");
    let (back, bare) = match text.strip_prefix(['-', '+']) {
        Some(bare) => (text.starts_with('-'), bare),
        None => (false, text),
    };
    if let Some(duration) = parse_duration(bare) {
        let rest = TimeDelta::from_std(duration).map_err(|_| wrong())?;
        return Ok(Span {
            months: 0,
            rest,
            back,
        });
    }
    let mut span = Span {
        months: 0,
        rest: TimeDelta::zero(),
        back,
    };
    let mut rest = bare
        .strip_prefix('P')
        .filter(|rest| !rest.is_empty())
        .ok_or_else(wrong)?;
    let mut time = false;
    while !rest.is_empty() {
        if let Some(behind) = rest.strip_prefix('T').filter(|_| !time) {
            time = true;
            rest = behind;
            continue;
        }
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count: i64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = rest[digits..].chars().next().ok_or_else(wrong)?;
        let months = |each: u32| u32::try_from(count).ok()?.checked_mul(each);
        let part = match (time, unit) {
            (false, 'Y') | (false, 'M') => {
                let more = months(if unit == 'Y' { 12 } else { 1 });
                let sum = more.and_then(|more| span.months.checked_add(more));
                span.months = sum.ok_or_else(wrong)?;
                Some(TimeDelta::zero())
            }
            (false, 'W') => TimeDelta::try_weeks(count),
            (false, 'D') => TimeDelta::try_days(count),
            (true, 'H') => TimeDelta::try_hours(count),
            (true, 'M') => TimeDelta::try_minutes(count),
            (true, 'S') => TimeDelta::try_seconds(count),
            _ => None,
        };
        span.rest = part
            .and_then(|part| span.rest.checked_add(&part))
            .ok_or_else(wrong)?;
        rest = &rest[digits + unit.len_utf8()..];
    }
    Ok(span)
}
