//! From what the data did to what could be changed in the contract.

use std::collections::HashSet;

use serde_json::{Value, value::RawValue};

use super::{
    Extent, Request,
    place::{Hop, Place, Segment, column_mut, columns, columns_mut, find, segments},
};
use crate::{
    config::flatten::Flatten,
    contract::{
        Column, ColumnType, Contract, Rules, TimestampFormat,
        drift::{Change, ChangeKind},
        flatten::{flat_columns, joined},
        infer::{self, COLUMNS_MAX, Draft, MEMBERS_MAX, NESTING_MAX, free_name},
        numbers::{self, PRECISION_MAX},
        observed::{Kind, Note, Observed, PathId, ROOT},
        odcs::name_problem,
        quality,
        widening::{Room, room},
    },
};

/// Digits behind the point of a decimal that has become too small.
const WIDE_SCALE: i8 = 18;

/// Why a member beyond [`COLUMNS_MAX`] or [`MEMBERS_MAX`] is no column.
const TOO_MANY: &str = "there are too many members beside it; it is kept in _rescued";

/// One change of a contract.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    /// Which column, or for a new one which object; the record itself if there are no hops.
    pub(super) at: Vec<Hop>,
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum What {
    /// Absence and null become possible.
    Optional,
    Retype(ColumnType),
    NoBounds,
    /// Neither pattern nor length.
    AnyText,
    /// More allowed values, as JSON text.
    Allow(Vec<String>),
    Add(Box<Column>),
}

impl Step {
    pub(super) fn is_new_column(&self) -> bool {
        matches!(self.what, What::Add(_))
    }

    /// Whether both are new columns of one object.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        self.is_new_column() && other.is_new_column() && self.at == other.at
    }

    /// Changes the contract; `None` if the step does not go with it.
    pub(super) fn apply(&self, contract: &mut Contract) -> Option<()> {
        if let What::Add(column) = &self.what {
            columns_mut(contract, &self.at)?.push((**column).clone());
            return Some(());
        }
        let column = column_mut(contract, &self.at)?;
        match &self.what {
            What::Optional => column.required = false,
            What::Retype(kind) => {
                if !(is_numeric(&column.kind) && is_numeric(kind)) {
                    column.rules = Rules {
                        unique: column.rules.unique,
                        ..Rules::default()
                    };
                }
                column.kind = kind.clone();
            }
            What::NoBounds => (column.rules.minimum, column.rules.maximum) = (None, None),
            What::AnyText => {
                (column.rules.length_min, column.rules.length_max) = (None, None);
                column.rules.pattern = None;
            }
            What::Allow(values) => column.rules.allowed.as_mut()?.extend(values.iter().cloned()),
            What::Add(_) => {}
        }
        Some(())
    }
}

/// The steps after which a change is none any more; none if it already is none; else why it is left to people.
pub(super) fn steps(
    contract: &Contract,
    change: &Change,
    request: &Request<'_>,
) -> Result<Vec<Step>, &'static str> {
    if quality::is_path(&change.path) {
        return Err("a rule says so");
    }
    let segments = segments(&change.path).ok_or("its path cannot be read")?;
    let place = find(contract, &segments);
    let is_unknown = change.kind == ChangeKind::Unknown;
    match place {
        Place::Unknown { parent, way } if is_unknown => unknown(contract, change, request, parent, way),
        // What is around it would have been added with all that is in it.
        Place::InUnknown if is_unknown => Err("what it is in is left as it is"),
        Place::Column(at) if !is_unknown => {
            let mut contract = contract.clone();
            let column = column_mut(&mut contract, &at).ok_or("it is not in the contract")?;
            let is_key = column.primary_key || (at.len() == 1 && request.keys.contains(&column.name));
            let what = of_column(column, is_key, change, request.sample)?;
            let is_lossless = request.extent != Extent::Everything;
            let what = match what {
                Some(What::NoBounds | What::AnyText) if is_lossless => return Err("a rule says so"),
                // They are about values of the type it has, and would go with it.
                Some(What::Retype(_)) if is_lossless && !is_numeric(&column.kind) && has_rules(column) => {
                    return Err("a rule says so");
                }
                Some(What::Retype(kind)) if is_lossless && !is_widened(column, &kind) => {
                    let partly = Some(request.extent).filter(|&extent| extent == Extent::Partly);
                    let some = partly.and_then(|_| for_some(column, change, request.sample));
                    let kind =
                        some.ok_or("no type holds both what it was and what came, but text or JSON")?;
                    Some(What::Retype(kind))
                }
                what => what,
            };
            Ok(what.map(|what| Step { at, what }).into_iter().collect())
        }
        Place::Covered | Place::Column(_) => Ok(Vec::new()),
        Place::Within => Err("columns lie behind it; it must be an object"),
        Place::Unknown { .. } | Place::InUnknown => Err("it is not in the contract"),
    }
}

fn has_rules(column: &Column) -> bool {
    let unique = column.rules.unique;
    column.rules
        != Rules {
            unique,
            ..Rules::default()
        }
}

fn of_column(
    column: &Column,
    is_key: bool,
    change: &Change,
    sample: Option<&Observed>,
) -> Result<Option<What>, &'static str> {
    let rules = &column.rules;
    match change.kind {
        ChangeKind::Missing => Err("nothing has it any more; remove it once that is meant"),
        ChangeKind::RequiredMissing | ChangeKind::NullInRequired if is_key => Err("a key has to be there"),
        ChangeKind::RequiredMissing | ChangeKind::NullInRequired => {
            Ok(column.required.then_some(What::Optional))
        }
        ChangeKind::EnumGrown => match &rules.allowed {
            None => Ok(None),
            Some(known) => {
                let mut values =
                    new_values(&column.kind, change).ok_or("its new values are not all known, or masked")?;
                values.retain(|value| !known.contains(value));
                Ok((!values.is_empty()).then_some(What::Allow(values)))
            }
        },
        ChangeKind::RuleBroken => {
            let has_rule =
                rules.pattern.is_some() || rules.length_min.is_some() || rules.length_max.is_some();
            Ok(has_rule.then_some(What::AnyText))
        }
        ChangeKind::OutOfRange if rules.minimum.is_some() || rules.maximum.is_some() => {
            Ok(Some(What::NoBounds))
        }
        ChangeKind::OutOfRange | ChangeKind::TypeChanged if column.kind == ColumnType::Json => Ok(None),
        ChangeKind::OutOfRange | ChangeKind::TypeChanged if is_key => {
            Err("it is a key; give it another type and rebuild the table")
        }
        ChangeKind::OutOfRange => Ok(Some(What::Retype(wider(&column.kind)))),
        ChangeKind::TypeChanged => Ok(Some(What::Retype(other(column, change, sample)))),
        ChangeKind::Unknown => Ok(None),
        ChangeKind::NullRateJumped
        | ChangeKind::FormatChanged
        | ChangeKind::VolumeChanged
        | ChangeKind::PageSizeChanged
        | ChangeKind::StatusChanged
        | ChangeKind::Deprecated
        | ChangeKind::Sunset => Err("no contract speaks of it"),
        ChangeKind::Repeated => Err("its values should be unique; say otherwise once that is meant"),
    }
}

/// Whether a column can be given a type and keep all its values as they are.
fn is_widened(column: &Column, kind: &ColumnType) -> bool {
    let widened = Column {
        kind: kind.clone(),
        ..column.clone()
    };
    room(column, &widened) != Room::No
}

/// A type for values of `kind` that it has no room for.
fn wider(kind: &ColumnType) -> ColumnType {
    match *kind {
        ColumnType::Integer => ColumnType::Decimal {
            precision: PRECISION_MAX,
            scale: 0,
        },
        ColumnType::Decimal { precision, scale } => {
            // As many digits before the point as there were, if there is room for that.
            let precision_max = i8::try_from(PRECISION_MAX).unwrap_or(i8::MAX);
            let whole = i8::try_from(precision).unwrap_or(precision_max) - scale;
            let wide = ColumnType::Decimal {
                precision: PRECISION_MAX,
                scale: scale.max(WIDE_SCALE.min(precision_max - whole)),
            };
            if wide == *kind { ColumnType::Json } else { wide }
        }
        ColumnType::Date
        | ColumnType::Timestamp(TimestampFormat::Rfc3339 | TimestampFormat::Naive { .. }) => {
            ColumnType::String
        }
        ColumnType::Timestamp(_) => ColumnType::Integer,
        _ => ColumnType::Json,
    }
}

/// A type for the values of a column and those of other kinds that came.
fn other(column: &Column, change: &Change, sample: Option<&Observed>) -> ColumnType {
    let foreign = kinds(&change.found);
    let only = |kinds: &[Kind]| foreign.iter().all(|kind| kinds.contains(kind));
    match &column.kind {
        ColumnType::Integer if only(&[Kind::Number]) => ColumnType::Number,
        ColumnType::Date | ColumnType::Timestamp(TimestampFormat::Rfc3339) if only(&[Kind::String]) => {
            let counts = sample.and_then(|sample| sample.get(&change.path));
            let is_time = counts.is_some_and(|counts| {
                let known = counts.note(Note::Moment) + counts.note(Note::Date);
                counts.note(Note::Moment) > 0 && known == counts.of(Kind::String)
            });
            if is_time {
                ColumnType::Timestamp(TimestampFormat::Naive { offset_seconds: 0 })
            } else {
                ColumnType::String
            }
        }
        ColumnType::Timestamp(TimestampFormat::Naive { .. }) if only(&[Kind::String]) => ColumnType::String,
        _ => ColumnType::Json,
    }
}

/// A type for the values of a column and some of those that came.
fn for_some(column: &Column, change: &Change, sample: Option<&Observed>) -> Option<ColumnType> {
    match &column.kind {
        ColumnType::Integer if kinds(&change.found).contains(&Kind::Number) => Some(ColumnType::Number),
        ColumnType::Date => {
            let moments = sample?.get(&change.path)?.note(Note::Moment);
            let start_of_day = TimestampFormat::Naive { offset_seconds: 0 };
            (moments > 0).then_some(ColumnType::Timestamp(start_of_day))
        }
        _ => None,
    }
}

/// The kinds in words such as `string ×3, null ×1`.
fn kinds(found: &str) -> Vec<Kind> {
    let is_there = |kind: &Kind| {
        found
            .split(", ")
            .any(|part| part.split(' ').next() == Some(kind.as_str()))
    };
    Kind::ALL.into_iter().filter(is_there).collect()
}

/// The values in `"lost" ×2, "x, y" ×1` as the contract writes them; `None` if one is cut off, masked or not named.
fn new_values(kind: &ColumnType, change: &Change) -> Option<Vec<String>> {
    let mut values: Vec<String> = Vec::new();
    let mut rest = change.found.as_str();
    let mut named = 0;
    loop {
        let mut reader = serde_json::Deserializer::from_str(rest).into_iter::<&RawValue>();
        let written = reader.next()?.ok()?.get();
        let behind = rest.get(reader.byte_offset()..)?.strip_prefix(" ×")?;
        let text = canonical(kind, written)?;
        if !values.contains(&text) {
            values.push(text);
        }
        rest = behind.trim_start_matches(|digit: char| digit.is_ascii_digit());
        named += behind[..behind.len() - rest.len()].parse::<u64>().ok()?;
        match rest.strip_prefix(", ") {
            Some(next) => rest = next,
            None => return (rest.is_empty() && named == change.count).then_some(values),
        }
    }
}

fn canonical(kind: &ColumnType, written: &str) -> Option<String> {
    let value: Value = serde_json::from_str(written).ok()?;
    // Text that is exactly a value was read as one.
    let number = value.as_str().unwrap_or(written);
    match kind {
        ColumnType::String | ColumnType::Date => value.as_str().map(|text| Value::from(text).to_string()),
        ColumnType::Integer if numbers::is_number(number) => {
            numbers::integer(number).ok().map(|whole| whole.to_string())
        }
        // Only numbers that a file of numbers holds exactly.
        ColumnType::Number | ColumnType::Decimal { .. } if numbers::is_number(number) => {
            let double: f64 = number.parse().ok()?;
            let text = Value::from(double).to_string();
            let is_same = numbers::decimal(number, PRECISION_MAX, WIDE_SCALE).ok()?
                == numbers::decimal(&text, PRECISION_MAX, WIDE_SCALE).ok()?;
            is_same.then_some(text)
        }
        ColumnType::Boolean => matches!(number, "true" | "false").then(|| number.to_owned()),
        _ => None,
    }
}

fn is_numeric(kind: &ColumnType) -> bool {
    matches!(
        kind,
        ColumnType::Integer | ColumnType::Number | ColumnType::Decimal { .. }
    )
}

/// A column for a member that nobody declared, with all that is in it.
fn unknown(
    contract: &Contract,
    change: &Change,
    request: &Request<'_>,
    parent: Vec<Hop>,
    way: Vec<String>,
) -> Result<Vec<Step>, &'static str> {
    let seen = kinds(&change.found);
    if seen.iter().all(|&kind| kind == Kind::Null) {
        return Err("it was never anything but null");
    }
    let depth = parent.len();
    let is_top = parent.is_empty();
    let columns = columns(contract, &parent).ok_or("it is not in the contract")?;
    let columns_max = if is_top { COLUMNS_MAX } else { MEMBERS_MAX };
    if columns.len() >= columns_max {
        return Err(TOO_MANY);
    }
    let sampled = request
        .sample
        .and_then(|sample| Some((sample, id_of(sample, &change.path)?)))
        .filter(|(sample, id)| {
            // A sample that did not meet all kinds knows less than the change.
            let counts = sample.counts(*id);
            seen.iter()
                .all(|&kind| counts.is_some_and(|counts| counts.of(kind) > 0))
        });
    let kind = match sampled {
        Some((sample, id)) => Draft::new(sample).kind(id, depth),
        None => kind_of(&change.path, request.changes, depth),
    };
    let mut taken: HashSet<String> = columns.iter().map(|column| column.name.to_lowercase()).collect();
    let is_flat = is_top && *request.flatten != Flatten::None;
    let column = |name: String| Column {
        path: way.clone(),
        ..infer::column(name, kind)
    };
    let new = if is_flat {
        let left = columns_max - columns.len();
        flat_columns(column(joined(&way)), request.flatten, &mut taken, left)
    } else {
        let member = way.last().map_or("", String::as_str);
        vec![column(free_name(member, is_top, &mut taken))]
    };
    if new
        .iter()
        .any(|column| name_problem(&column.name, is_top).is_some())
    {
        return Err("no column can have its name");
    }
    let step = |column| Step {
        at: parent.clone(),
        what: What::Add(Box::new(column)),
    };
    Ok(new.into_iter().map(step).collect())
}

fn id_of(observed: &Observed, path: &str) -> Option<PathId> {
    let mut at = ROOT;
    for segment in segments(path)? {
        at = match segment {
            Segment::Member(name) => observed.member(at, &name)?,
            Segment::Element => observed.element(at)?,
        };
    }
    Some(at)
}

/// The type of an undeclared value, from the words of the changes.
fn kind_of(path: &str, changes: &[Change], depth: usize) -> ColumnType {
    let of = |path: &str| {
        changes
            .iter()
            .find(|change| change.kind == ChangeKind::Unknown && change.path == path)
    };
    let mut seen = of(path).map(|change| kinds(&change.found)).unwrap_or_default();
    seen.retain(|&kind| kind != Kind::Null);
    match seen[..] {
        [Kind::String] => ColumnType::String,
        [Kind::Integer] => ColumnType::Integer,
        [Kind::Number] | [Kind::Integer, Kind::Number] => ColumnType::Number,
        [Kind::Boolean] => ColumnType::Boolean,
        [Kind::Object] if depth < NESTING_MAX => members(path, changes, depth),
        [Kind::Array] if depth < NESTING_MAX => {
            let element = format!("{path}[]");
            match of(&element) {
                Some(_) => ColumnType::Array(Box::new(Column {
                    path: Vec::new(),
                    ..infer::column("element".to_owned(), kind_of(&element, changes, depth + 1))
                })),
                None => ColumnType::Json,
            }
        }
        _ => ColumnType::Json,
    }
}

fn members(path: &str, changes: &[Change], depth: usize) -> ColumnType {
    let Some(parent) = segments(path) else {
        return ColumnType::Json;
    };
    let mut names = HashSet::new();
    let columns: Vec<Column> = changes
        .iter()
        .filter(|change| change.kind == ChangeKind::Unknown)
        .filter_map(|change| {
            let mut segments = segments(&change.path)?;
            let Some(Segment::Member(name)) = segments.pop() else {
                return None;
            };
            (segments == parent).then(|| Column {
                path: vec![name.clone()],
                ..infer::column(
                    free_name(&name, false, &mut names),
                    kind_of(&change.path, changes, depth + 1),
                )
            })
        })
        .collect();
    let good = columns
        .iter()
        .all(|column| name_problem(&column.name, false).is_none());
    if columns.is_empty() || columns.len() > MEMBERS_MAX || !good {
        return ColumnType::Json;
    }
    ColumnType::Object(columns)
}
