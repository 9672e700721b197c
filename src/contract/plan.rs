//! A contract made ready for judging: columns by place, rules read and checked.

use std::collections::{HashMap, HashSet};

use regex::Regex;

use super::{
    Coercion, Column, ColumnType, Rules, TimestampFormat, ViolationClass,
    classified::{has_classified, is_classified},
    columns::Value,
    numbers::{self, Rounding},
    observed::{NO_PATH, Observed, PathId, ROOT},
    times,
    work::Place,
};
use crate::{
    config::{OnMismatch, OnUnknown},
    error::{Error, ErrorKind, Result},
    json,
};

/// Column names that belong to the table itself; names starting with `_lf_` do too.
const RESERVED: [&str; 5] = [
    "_rescued",
    "_deleted",
    "_change_type",
    "_commit_version",
    "_commit_timestamp",
];

/// Whether a column of a contract may not be called so.
pub(crate) fn is_reserved(name: &str) -> bool {
    let lower = name.to_lowercase();
    lower.starts_with("_lf_") || RESERVED.contains(&lower.as_str())
}

/// What a path of the contract leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Nothing the contract names, or the element of an array.
    Undeclared,
    /// An object that is only passed through on the way to columns.
    Within,
    /// The column with this number among those of the enclosing record or object.
    Slot(u32),
}

/// A column, ready for judging.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) kind: SlotKind,
    pub(crate) path: PathId,
    pub(crate) role: Role,
    /// Whether it must be there and not null.
    pub(crate) required: bool,
    /// Whether a value that does not fit goes to `_rescued`.
    pub(crate) rescue: bool,
    pub(crate) coerce: bool,
    /// Whether values may not be quoted.
    pub(crate) classified: bool,
    /// The type in the words of the contract.
    pub(crate) expected: String,
    pub(crate) checks: Option<Box<Checks>>,
    /// Whether every value of the type is taken.
    pub(crate) is_free: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Key,
    Other,
}

#[derive(Debug)]
pub(crate) enum SlotKind {
    String,
    Integer,
    Number,
    Decimal {
        precision: u8,
        scale: i8,
    },
    Boolean,
    Date,
    /// Text; the offset of text without one.
    Moment {
        naive: Option<i32>,
    },
    /// A whole number of units of so many microseconds.
    Epoch {
        unit_micros: i64,
    },
    Object(Vec<Slot>),
    Array(Box<Slot>),
    Json,
}

/// Rules beyond the type.
#[derive(Debug)]
pub(crate) struct Checks {
    allowed: Option<Allowed>,
    pattern: Option<Regex>,
    length_min: u64,
    length_max: u64,
    /// Whether text must be counted.
    has_length: bool,
    bounds: Bounds,
    /// The contract's words, for what is expected.
    words: Rules,
}

#[derive(Debug)]
enum Allowed {
    Text(HashSet<String>),
    Whole(HashSet<i128>),
    Double(Vec<f64>),
}

#[derive(Debug)]
enum Bounds {
    None,
    Whole(i128, i128),
    Double(f64, f64),
}

impl Checks {
    /// Which rule the value breaks, and what is expected instead.
    pub(crate) fn broken_by(&self, value: Value<'_>) -> Option<(ViolationClass, String)> {
        let in_bounds = match (&self.bounds, value) {
            (&Bounds::Whole(min, max), Value::Whole(whole)) => (min..=max).contains(&whole),
            (&Bounds::Double(min, max), Value::Double(double)) => (min..=max).contains(&double),
            _ => true,
        };
        if !in_bounds {
            return Some((ViolationClass::OutOfRange, self.bounds_words()));
        }
        if let Value::Text(text) = value {
            if self.has_length && !self.has_room_for(text.chars().count()) {
                return Some((ViolationClass::Length, self.length_words("characters")));
            }
            if let Some(pattern) = self.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
                return Some((ViolationClass::Pattern, format!("text matching {pattern}")));
            }
        }
        let is_allowed = match (&self.allowed, value) {
            (Some(Allowed::Text(allowed)), Value::Text(text)) => allowed.contains(text),
            (Some(Allowed::Whole(allowed)), Value::Whole(whole)) => allowed.contains(&whole),
            (Some(Allowed::Double(allowed)), Value::Double(double)) => allowed.contains(&double),
            _ => true,
        };
        (!is_allowed).then(|| {
            let words = self
                .words
                .allowed
                .iter()
                .flatten()
                .cloned()
                .collect::<Vec<_>>()
                .join(", ");
            (ViolationClass::Enum, format!("one of {words}"))
        })
    }

    /// Whether an array may have so many elements; what is expected if not.
    pub(crate) fn broken_by_elements(&self, elements: usize) -> Option<String> {
        (!self.has_room_for(elements)).then(|| self.length_words("elements"))
    }

    fn has_room_for(&self, length: usize) -> bool {
        u64::try_from(length).is_ok_and(|length| (self.length_min..=self.length_max).contains(&length))
    }

    fn length_words(&self, what: &str) -> String {
        match (self.words.length_min, self.words.length_max) {
            (Some(min), Some(max)) => format!("{min} to {max} {what}"),
            (Some(min), None) => format!("at least {min} {what}"),
            (_, max) => format!("at most {} {what}", max.unwrap_or(u64::MAX)),
        }
    }

    fn bounds_words(&self) -> String {
        match (&self.words.minimum, &self.words.maximum) {
            (Some(min), Some(max)) => format!("{min} to {max}"),
            (Some(min), None) => format!("at least {min}"),
            (_, max) => format!("at most {}", max.as_deref().unwrap_or("anything")),
        }
    }
}

impl Slot {
    /// Reads a JSON number as a value of this column.
    pub(crate) fn number<'v>(&self, number: &'v str) -> Result<Value<'v>, ViolationClass> {
        match self.kind {
            SlotKind::Integer => numbers::integer(number).map(|whole| Value::Whole(whole.into())),
            SlotKind::Epoch { unit_micros } => numbers::integer(number)
                .and_then(|units| times::epoch(units, unit_micros))
                .map(|micros| Value::Whole(micros.into())),
            SlotKind::Number => numbers::double(number).map(Value::Double),
            SlotKind::Decimal { precision, scale } => numbers::decimal(number, precision, scale)
                .map(Value::Whole)
                .map_err(|_| ViolationClass::OutOfRange),
            SlotKind::Json => Ok(Value::Text(number)),
            _ => Err(ViolationClass::TypeMismatch),
        }
    }

    /// Reads text as a value of this column; true if that took a coercion.
    pub(crate) fn text<'v>(&self, text: &'v str) -> Result<(Value<'v>, bool), ViolationClass> {
        let native = |value| Ok((value, false));
        match self.kind {
            SlotKind::String => native(Value::Text(text)),
            SlotKind::Date => times::date(text).and_then(|days| native(Value::Whole(days.into()))),
            SlotKind::Moment { naive } => {
                times::timestamp(text, naive).and_then(|micros| native(Value::Whole(micros.into())))
            }
            _ if !self.coerce => Err(ViolationClass::TypeMismatch),
            SlotKind::Boolean => match text {
                "true" => Ok((Value::Whole(1), true)),
                "false" => Ok((Value::Whole(0), true)),
                _ => Err(ViolationClass::TypeMismatch),
            },
            _ if numbers::is_number(text) => self.number(text).map(|value| (value, true)),
            SlotKind::Epoch { .. } => {
                times::timestamp(text, None).map(|micros| (Value::Whole(micros.into()), true))
            }
            _ => Err(ViolationClass::TypeMismatch),
        }
    }

    /// The length and the sign matter for drift only: a whole number written with a fraction or an exponent.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.kind, SlotKind::Integer | SlotKind::Epoch { .. })
    }
}

/// Paths whose values violations do not show.
#[derive(Clone, Default)]
pub(crate) struct Hidden {
    /// Those of classified columns, and of columns in these.
    pub(crate) inside: HashSet<PathId>,
    /// Those of objects on the way to columns with something classified.
    pub(crate) around: HashSet<PathId>,
}

/// Builds the slots of a record and names their paths.
pub(crate) struct Planner<'a> {
    /// Columns that identify a row.
    pub(crate) keys: &'a [String],
    /// Columns that order the versions of a row.
    pub(crate) sequence_by: &'a [String],
    /// What happens to values that do not fit, as what is around the column at hand says.
    pub(crate) on_mismatch: OnMismatch,
    /// What happens to members that are not named, by the object that says so.
    pub(crate) on_unknown: HashMap<PathId, OnUnknown>,
    /// Whether what is around the column at hand is classified.
    pub(crate) classified: bool,
    pub(crate) hidden: Hidden,
    pub(crate) observed: Observed,
    /// By path.
    pub(crate) targets: Vec<Target>,
}

impl Planner<'_> {
    /// The slots of the main table.
    pub(crate) fn record(&mut self, columns: &[Column]) -> Result<Vec<Slot>> {
        for name in self.keys.iter().chain(self.sequence_by) {
            let Some(column) = columns.iter().find(|column| column.name == *name) else {
                let known: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
                return Err(config("find key or sequence column", name).with("known", known.join(", ")));
            };
            if matches!(
                column.kind,
                ColumnType::Object(_) | ColumnType::Array(_) | ColumnType::Json
            ) {
                return Err(config("compare key or sequence column", name).with("type", words(&column.kind)));
            }
        }
        if let Some(column) = columns.iter().find(|column| is_reserved(&column.name)) {
            return Err(config("use reserved column name", &column.name));
        }
        self.members(columns, ROOT, true)
    }

    fn members(&mut self, columns: &[Column], parent: PathId, top: bool) -> Result<Vec<Slot>> {
        let mut names = HashSet::new();
        let mut slots = Vec::with_capacity(columns.len());
        for column in columns {
            if column.name.is_empty() || !names.insert(column.name.to_lowercase()) {
                return Err(config("use column name twice, or an empty one", &column.name));
            }
            let path = self.place(column, parent, slots.len())?;
            let mut slot = self.slot(column, path)?;
            if top && self.keys.contains(&column.name) {
                slot.role = Role::Key;
                // Not the empty text.
                slot.is_free &= !matches!(slot.kind, SlotKind::String);
                slot.required = true;
                slot.rescue = false;
            }
            if top && self.sequence_by.contains(&column.name) {
                slot.required = true;
                slot.rescue = false;
            }
            slots.push(slot);
        }
        Ok(slots)
    }

    /// Names the way from the enclosing object down to the column's value.
    fn place(&mut self, column: &Column, parent: PathId, slot: usize) -> Result<PathId> {
        let clash = || config("read two columns from one place", &column.name);
        let Some((last, way)) = column.path.split_last() else {
            return Err(config("find the place of column", &column.name));
        };
        let mut at = parent;
        for name in way {
            at = self.observed.member_or_add(at, name, true);
            if has_classified(column) {
                self.hidden.around.insert(at);
            }
            match self.target(at) {
                target @ Target::Undeclared => *target = Target::Within,
                Target::Within => {}
                Target::Slot(_) => return Err(clash()),
            }
        }
        let path = self.observed.member_or_add(at, last, true);
        let number = u32::try_from(slot).map_err(|_| clash())?;
        match self.target(path) {
            target @ Target::Undeclared => *target = Target::Slot(number),
            _ => return Err(clash()),
        }
        Ok(path)
    }

    fn target(&mut self, path: PathId) -> &mut Target {
        self.targets.resize(self.observed.len(), Target::Undeclared);
        &mut self.targets[path as usize]
    }

    fn slot(&mut self, column: &Column, path: PathId) -> Result<Slot> {
        let around = (self.classified, self.on_mismatch);
        self.classified |= is_classified(column);
        if self.classified {
            self.hidden.inside.insert(path);
        }
        self.on_mismatch = column.on_mismatch.unwrap_or(self.on_mismatch);
        if let Some(policy) = column.on_unknown {
            self.on_unknown.insert(path, policy);
        }
        let kind = match &column.kind {
            ColumnType::String => SlotKind::String,
            ColumnType::Integer => SlotKind::Integer,
            ColumnType::Number => SlotKind::Number,
            &ColumnType::Decimal { precision, scale } => {
                let scale_max = i8::try_from(precision).unwrap_or(i8::MAX);
                if !(1..=numbers::PRECISION_MAX).contains(&precision) || !(0..=scale_max).contains(&scale) {
                    return Err(config("use decimal type", &column.name).with("type", words(&column.kind)));
                }
                SlotKind::Decimal { precision, scale }
            }
            ColumnType::Boolean => SlotKind::Boolean,
            ColumnType::Date => SlotKind::Date,
            ColumnType::Timestamp(TimestampFormat::Rfc3339) => SlotKind::Moment { naive: None },
            ColumnType::Timestamp(TimestampFormat::EpochSeconds) => SlotKind::Epoch {
                unit_micros: 1_000_000,
            },
            ColumnType::Timestamp(TimestampFormat::EpochMillis) => SlotKind::Epoch { unit_micros: 1_000 },
            &ColumnType::Timestamp(TimestampFormat::Naive { offset_seconds }) => SlotKind::Moment {
                naive: Some(offset_seconds),
            },
            ColumnType::Object(columns) if columns.is_empty() => {
                return Err(config("use object without properties", &column.name));
            }
            ColumnType::Object(columns) => SlotKind::Object(self.members(columns, path, false)?),
            ColumnType::Array(element) => {
                let path = self.observed.element_or_add(path, true);
                SlotKind::Array(Box::new(self.slot(element, path)?))
            }
            ColumnType::Json => SlotKind::Json,
        };
        self.targets.resize(self.observed.len(), Target::Undeclared);
        let mut slot = Slot {
            kind,
            path,
            role: Role::Other,
            required: column.required,
            rescue: self.on_mismatch == OnMismatch::Rescue && !column.required,
            coerce: column.coercion == Coercion::Lossless,
            classified: self.classified || has_classified(column),
            expected: words(&column.kind),
            checks: None,
            is_free: column.rules == Rules::default(),
        };
        (self.classified, self.on_mismatch) = around;
        if !slot.is_free {
            slot.checks = Some(Box::new(checks(&slot, column)?));
        }
        Ok(slot)
    }

    /// What is known about every path. Members are expected in the order of the contract.
    pub(crate) fn places(&self) -> Vec<Place> {
        let targets = (0_u32..).zip(&self.targets);
        let mut places: Vec<Place> = targets
            .map(|(path, &target)| Place::new(self.observed.name(path), target))
            .collect();
        let mut last_in = vec![NO_PATH; places.len()];
        for id in (0_u32..).take(places.len()).skip(1) {
            let parent = self.observed.parent(id) as usize;
            match last_in[parent] {
                NO_PATH => places[parent].first = id,
                previous => places[previous as usize].next = id,
            }
            last_in[parent] = id;
        }
        places
    }
}

fn checks(slot: &Slot, column: &Column) -> Result<Checks> {
    let rules = &column.rules;
    let wrong = |rule: &'static str| {
        config("apply rule", &column.name)
            .with("rule", rule)
            .with("type", &slot.expected)
    };
    let is_text = matches!(slot.kind, SlotKind::String);
    if rules.pattern.is_some() && !is_text {
        return Err(wrong("pattern"));
    }
    let has_length = rules.length_min.is_some() || rules.length_max.is_some();
    if has_length && !is_text && !matches!(slot.kind, SlotKind::Array(_)) {
        return Err(wrong("length"));
    }
    let pattern = rules.pattern.as_deref().map(Regex::new).transpose();
    Ok(Checks {
        allowed: rules
            .allowed
            .as_deref()
            .map(|texts| allowed(slot, texts))
            .transpose()
            .map_err(|()| wrong("enum"))?,
        pattern: pattern.map_err(|source| wrong("pattern").caused_by(source))?,
        length_min: rules.length_min.unwrap_or(0),
        length_max: rules.length_max.unwrap_or(u64::MAX),
        has_length,
        bounds: bounds(slot, rules).map_err(|()| wrong("minimum or maximum"))?,
        words: rules.clone(),
    })
}

/// Reads the allowed values the way values of records are read.
fn allowed(slot: &Slot, texts: &[String]) -> Result<Allowed, ()> {
    let mut values = Vec::with_capacity(texts.len());
    for written in texts {
        let text = json::text(written.as_bytes());
        let value = match (&text, written.as_str()) {
            (Some(text), _) => slot.text(text).map(|(value, _)| value),
            (None, "true") if matches!(slot.kind, SlotKind::Boolean) => Ok(Value::Whole(1)),
            (None, "false") if matches!(slot.kind, SlotKind::Boolean) => Ok(Value::Whole(0)),
            (None, number) if numbers::is_number(number) => slot.number(number),
            _ => return Err(()),
        };
        values.push(match value.map_err(|_| ())? {
            Value::Text(text) if matches!(slot.kind, SlotKind::String) => Owned::Text(text.to_owned()),
            Value::Whole(whole) => Owned::Whole(whole),
            Value::Double(double) => Owned::Double(double),
            Value::Text(_) => return Err(()),
        });
    }
    // All values of one column are of one sort.
    let texts = values.iter().filter_map(|value| {
        if let Owned::Text(text) = value {
            Some(text.clone())
        } else {
            None
        }
    });
    let wholes = values.iter().filter_map(|value| {
        if let &Owned::Whole(whole) = value {
            Some(whole)
        } else {
            None
        }
    });
    let doubles = values.iter().filter_map(|value| {
        if let &Owned::Double(double) = value {
            Some(double)
        } else {
            None
        }
    });
    Ok(match slot.kind {
        SlotKind::String => Allowed::Text(texts.collect()),
        SlotKind::Number => Allowed::Double(doubles.collect()),
        _ => Allowed::Whole(wholes.collect()),
    })
}

enum Owned {
    Text(String),
    Whole(i128),
    Double(f64),
}

fn bounds(slot: &Slot, rules: &Rules) -> Result<Bounds, ()> {
    let (min, max) = (rules.minimum.as_deref(), rules.maximum.as_deref());
    if min.is_none() && max.is_none() {
        return Ok(Bounds::None);
    }
    if min.into_iter().chain(max).any(|bound| !numbers::is_number(bound)) {
        return moments(slot, min, max);
    }
    let whole = |scale: i8, unit: i128| {
        let low = min.map_or(i128::MIN, |bound| numbers::nearest(bound, scale, Rounding::Up));
        let high = max.map_or(i128::MAX, |bound| numbers::nearest(bound, scale, Rounding::Down));
        Bounds::Whole(low.saturating_mul(unit), high.saturating_mul(unit))
    };
    match slot.kind {
        SlotKind::Integer => Ok(whole(0, 1)),
        SlotKind::Epoch { unit_micros } => Ok(whole(0, unit_micros.into())),
        SlotKind::Decimal { scale, .. } => Ok(whole(scale, 1)),
        SlotKind::Number => {
            let double = |bound: Option<&str>, none: f64| {
                bound.map_or(Ok(none), |bound| bound.parse().map_err(|_| ()))
            };
            Ok(Bounds::Double(
                double(min, f64::NEG_INFINITY)?,
                double(max, f64::INFINITY)?,
            ))
        }
        _ => Err(()),
    }
}

/// Bounds written as dates or moments.
fn moments(slot: &Slot, min: Option<&str>, max: Option<&str>) -> Result<Bounds, ()> {
    let read = |bound: Option<&str>, none: i128| match (bound, &slot.kind) {
        (None, _) => Ok(none),
        (Some(bound), SlotKind::Date | SlotKind::Moment { .. } | SlotKind::Epoch { .. }) => {
            match slot.text(bound) {
                Ok((Value::Whole(whole), _)) => Ok(whole),
                _ => Err(()),
            }
        }
        _ => Err(()),
    };
    Ok(Bounds::Whole(read(min, i128::MIN)?, read(max, i128::MAX)?))
}

/// A type in the words of violations.
pub(crate) fn words(kind: &ColumnType) -> String {
    match kind {
        ColumnType::String => "string".to_owned(),
        ColumnType::Integer => "integer".to_owned(),
        ColumnType::Number => "number".to_owned(),
        ColumnType::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
        ColumnType::Boolean => "boolean".to_owned(),
        ColumnType::Date => "date".to_owned(),
        ColumnType::Timestamp(TimestampFormat::Rfc3339) => "timestamp (RFC 3339)".to_owned(),
        ColumnType::Timestamp(TimestampFormat::EpochSeconds) => "timestamp (epoch seconds)".to_owned(),
        ColumnType::Timestamp(TimestampFormat::EpochMillis) => "timestamp (epoch milliseconds)".to_owned(),
        ColumnType::Timestamp(TimestampFormat::Naive { .. }) => "timestamp".to_owned(),
        ColumnType::Object(_) => "object".to_owned(),
        ColumnType::Array(_) => "array".to_owned(),
        ColumnType::Json => "any value".to_owned(),
    }
}

fn config(what: &'static str, column: &str) -> Error {
    Error::new(ErrorKind::Config, what).with("column", format!("{column:?}"))
}
