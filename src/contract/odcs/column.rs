//! One property as a column.

use std::collections::HashMap;

use crate::{
    config::{OnMismatch, OnUnknown},
    contract::{
        Coercion, Column, ColumnType, TimestampFormat,
        odcs::{
            COLUMN_DEPTH_MAX, name_problem,
            quality::{refuse_rules, rules as quality_rules},
            rules, sections,
        },
        quality::QualityRule,
    },
    yaml::{
        fields::{Fields, Value},
        quoted,
    },
};

/// Digits a 128-bit decimal holds.
const PRECISION_MAX: u8 = 38;

/// What a column without `coercion` does.
const COERCION_DEFAULT: Coercion = Coercion::Lossless;

/// What one column does with values that do not fit it. Only a stream as a whole evolves.
const MISMATCH: [(&str, OnMismatch); 3] = [
    ("quarantine", OnMismatch::Quarantine),
    ("rescue", OnMismatch::Rescue),
    ("fail", OnMismatch::Fail),
];

/// What one object does with members that it does not name.
const UNKNOWN: [(&str, OnUnknown); 3] = [
    ("rescue", OnUnknown::Rescue),
    ("ignore", OnUnknown::Ignore),
    ("quarantine", OnUnknown::Quarantine),
];

/// Reads `properties`; columns of the table itself are at depth 1.
pub(super) fn columns(value: Value<'_>, depth: usize) -> Option<Vec<Column>> {
    let items: Vec<Value<'_>> = value.items()?.collect();
    if items.is_empty() {
        let hint = (depth > 1).then(|| "without the key properties an object is kept as JSON".to_owned());
        return value.refuse("at least one column is needed", hint);
    }
    let count = items.len();
    let columns: Vec<(Value<'_>, Column)> = items
        .into_iter()
        .filter_map(|item| Some((item, named(item, depth)?)))
        .collect();
    // Queries and some readers do not tell upper from lower case.
    let mut names: HashMap<String, &str> = HashMap::new();
    let mut paths: HashMap<&[String], &str> = HashMap::new();
    for (item, column) in &columns {
        if let Some(other) = names.insert(column.name.to_lowercase(), &column.name) {
            let message = format!("{} and {} are one name", quoted(other), quoted(&column.name));
            item.problems.add(
                item.node.place,
                message,
                Some("upper and lower case are the same here".to_owned()),
            );
        } else if let Some(other) = paths.insert(&column.path, &column.name) {
            let message = format!("{} has the same path as {}", quoted(&column.name), quoted(other));
            item.problems.add(item.node.place, message, None);
        }
    }
    let columns: Vec<Column> = columns.into_iter().map(|(_, column)| column).collect();
    (columns.len() == count).then_some(columns)
}

/// The rules in SQL of all columns of the table.
pub(super) fn rules_of_columns(value: Value<'_>) -> Option<Vec<QualityRule>> {
    let of_column = |value: Value<'_>| {
        let fields = value.fields(&sections::PROPERTY)?;
        let name = fields.value("name").and_then(|name| name.node.scalar_text());
        Some(quality_rules(&fields, name))
    };
    Some(value.items()?.filter_map(of_column).flatten().collect())
}

fn named(value: Value<'_>, depth: usize) -> Option<Column> {
    let fields = value.fields(&sections::PROPERTY)?;
    let name = fields.required("name", |value| {
        let name = value.any_text()?;
        match name_problem(name, depth == 1) {
            None => Some(name),
            Some(reason) => value.refuse(
                format!("{} {reason}", quoted(name)),
                Some("choose another name and say where the value is in the custom property path".to_owned()),
            ),
        }
    });
    if let (true, Some(value)) = (depth > 1, fields.value("primaryKey"))
        && value.boolean() == Some(true)
    {
        value.refuse::<()>("a primary key is made of columns of the table itself", None);
    }
    column(&fields, name.unwrap_or_default(), depth).filter(|_| name.is_some())
}

fn column(fields: &Fields<'_>, name: &str, depth: usize) -> Option<Column> {
    let custom = Custom::read(fields);
    let kind = kind(fields, &custom, depth);
    let required = fields.optional("required", Value::boolean).unwrap_or(false);
    let primary_key = fields.optional("primaryKey", Value::boolean).unwrap_or(false);
    let path = match custom.path {
        Some(value) => path(value),
        None => Some(vec![name.to_owned()]),
    };
    let coercion = match custom.coercion {
        Some(value) => value.choice(&[("lossless", Coercion::Lossless), ("none", Coercion::None)], &[]),
        None => Some(COERCION_DEFAULT),
    };
    let on_mismatch = custom.on_mismatch.map(|value| value.choice(&MISMATCH, &[]));
    let on_unknown = custom.on_unknown.map(|value| value.choice(&UNKNOWN, &[]));
    let classification = fields
        .optional("classification", Value::scalar)
        .map(str::to_owned);
    let description = fields.optional("description", Value::scalar).map(str::to_owned);
    let kind = kind?;
    if let (Some(value), false) = (custom.on_unknown, matches!(kind, ColumnType::Object(_))) {
        value.refuse::<()>("only an object with properties has members", None);
    }
    let rules = rules::rules(fields, custom.allowed, &kind);
    if depth > 1 {
        refuse_rules(fields);
    }
    if let Some(value) = fields.value("unique")
        && rules.as_ref().is_some_and(|rules| rules.unique)
        && (depth > 1 || kind.is_composed())
    {
        let hint = "watched are columns of the table itself that hold one value".to_owned();
        let message = "whether its values are unique is not watched";
        value.problems.warn(value.key_place, message, Some(hint));
    }
    Some(Column {
        name: name.to_owned(),
        path: path?,
        kind,
        required,
        primary_key,
        coercion: coercion?,
        rules: rules?,
        // What is no policy is a problem of the file already.
        on_mismatch: on_mismatch.flatten(),
        on_unknown: on_unknown.flatten(),
        classification,
        description,
    })
}

/// Our settings among the custom properties.
#[derive(Default)]
struct Custom<'a> {
    path: Option<Value<'a>>,
    format: Option<Value<'a>>,
    coercion: Option<Value<'a>>,
    allowed: Option<Value<'a>>,
    on_mismatch: Option<Value<'a>>,
    on_unknown: Option<Value<'a>>,
}

impl<'a> Custom<'a> {
    /// Those of others are passed over, unless they are one letter away from ours.
    fn read(fields: &Fields<'a>) -> Self {
        let mut custom = Self::default();
        let Some(items) = fields.value("customProperties").and_then(Value::items) else {
            return custom;
        };
        for item in items {
            let Some(entries) = item.entries("a property and its value") else {
                continue;
            };
            let find = |key: &str| {
                entries
                    .iter()
                    .find(|entry| entry.key == key)
                    .map(|entry| item.child(entry))
            };
            let (Some(property), Some(value)) = (find("property"), find("value")) else {
                item.refuse::<()>("a custom property has the keys property and value", None);
                continue;
            };
            let Some(name) = property.text() else { continue };
            let slot = match name {
                "path" => &mut custom.path,
                "format" => &mut custom.format,
                "coercion" => &mut custom.coercion,
                "enum" => &mut custom.allowed,
                "onMismatch" => &mut custom.on_mismatch,
                "onUnknown" => &mut custom.on_unknown,
                _ => {
                    if let Some(ours) = misspelled(name) {
                        let hint = Some(format!("did you mean {ours}?"));
                        property.refuse::<()>(format!("{} is not known", quoted(name)), hint);
                    }
                    continue;
                }
            };
            // Messages about the value name the setting rather than the key `value`.
            let value = Value {
                key: entries_key(name),
                ..value
            };
            if slot.replace(value).is_some() {
                property.refuse::<()>(format!("{name} is given twice"), None);
            }
        }
        custom
    }
}

fn entries_key(name: &str) -> &'static str {
    match name {
        "path" => "path",
        "format" => "format",
        "coercion" => "coercion",
        "onMismatch" => "onMismatch",
        "onUnknown" => "onUnknown",
        _ => "enum",
    }
}

fn misspelled(name: &str) -> Option<&'static str> {
    let near = |ours: &&str| name.len() <= 16 && strsim::damerau_levenshtein(name, ours) == 1;
    ["format", "coercion", "onMismatch", "onUnknown"]
        .into_iter()
        .find(|ours| near(ours))
}

/// `a.b.c`, or a list for names with dots in them and for empty ones.
fn path(value: Value<'_>) -> Option<Vec<String>> {
    let is_list = matches!(value.node.kind, crate::yaml::Kind::Seq(_));
    let path: Vec<String> = match is_list {
        true => {
            let names: Vec<Option<&str>> = value.items()?.map(Value::any_text).collect();
            names
                .into_iter()
                .map(|name| name.map(str::to_owned))
                .collect::<Option<_>>()?
        }
        false => value.text()?.split('.').map(str::to_owned).collect(),
    };
    let good = !path.is_empty()
        && path.len() <= COLUMN_DEPTH_MAX
        && (is_list || path.iter().all(|name| !name.is_empty()));
    if good {
        return Some(path);
    }
    let hint = "write a.b.c, or a list of names: [a, \"b.c\"]".to_owned();
    value.refuse("not the path of a member", Some(hint))
}

/// The types of the standard.
#[derive(Clone, Copy, PartialEq)]
enum Logical {
    String,
    Integer,
    Number,
    Boolean,
    Date,
    Timestamp,
    Object,
    Array,
}

/// What `physicalType` adds to the type; other physical types are those of the source and say nothing here.
#[derive(Clone, Copy, PartialEq)]
enum Physical {
    Json,
    Decimal { precision: u8, scale: i8 },
    Other,
}

fn kind(fields: &Fields<'_>, custom: &Custom<'_>, depth: usize) -> Option<ColumnType> {
    let choices = [
        ("string", Logical::String),
        ("integer", Logical::Integer),
        ("number", Logical::Number),
        ("boolean", Logical::Boolean),
        ("date", Logical::Date),
        ("timestamp", Logical::Timestamp),
        ("object", Logical::Object),
        ("array", Logical::Array),
    ];
    let logical = fields.required("logicalType", |value| value.choice(&choices, &["time"]));
    let physical = match fields.value("physicalType") {
        Some(value) => physical(value, logical),
        None => Some(Physical::Other),
    };
    let format = custom.format;
    let (logical, physical) = (logical?, physical?);
    if let (Some(value), true) = (format, logical != Logical::Timestamp) {
        value.refuse::<()>("only timestamps have a format", None);
    }
    refuse_misplaced(fields, logical, physical);
    match (logical, physical) {
        (_, Physical::Json) => Some(ColumnType::Json),
        (_, Physical::Decimal { precision, scale }) => Some(ColumnType::Decimal { precision, scale }),
        (Logical::String, _) => Some(ColumnType::String),
        (Logical::Integer, _) => Some(ColumnType::Integer),
        (Logical::Number, _) => Some(ColumnType::Number),
        (Logical::Boolean, _) => Some(ColumnType::Boolean),
        (Logical::Date, _) => Some(ColumnType::Date),
        (Logical::Timestamp, _) => match format {
            Some(value) => timestamp_format(value).map(ColumnType::Timestamp),
            None => Some(ColumnType::Timestamp(TimestampFormat::Rfc3339)),
        },
        (Logical::Object, _) => match fields.value("properties") {
            Some(value) => deeper(value, depth)
                .and_then(|depth| columns(value, depth))
                .map(ColumnType::Object),
            None => Some(ColumnType::Json),
        },
        (Logical::Array, _) => element(fields, depth).map(|element| ColumnType::Array(Box::new(element))),
    }
}

/// `items` and `properties` say what they say only for their type.
fn refuse_misplaced(fields: &Fields<'_>, logical: Logical, physical: Physical) {
    for (key, wanted) in [("properties", Logical::Object), ("items", Logical::Array)] {
        if let (Some(value), true) = (fields.value(key), logical != wanted || physical == Physical::Json) {
            value
                .problems
                .add(value.key_place, format!("{key} does not go with this type"), None);
        }
    }
}

fn element(fields: &Fields<'_>, depth: usize) -> Option<Column> {
    let Some(value) = fields.value("items") else {
        fields.missing("\"items\"");
        return None;
    };
    let depth = deeper(value, depth)?;
    let fields = value.fields(&sections::PROPERTY)?;
    let element = column(&fields, "element", depth)?;
    Some(Column {
        path: Vec::new(),
        ..element
    })
}

fn deeper(value: Value<'_>, depth: usize) -> Option<usize> {
    if depth < COLUMN_DEPTH_MAX {
        return Some(depth + 1);
    }
    value.refuse(format!("columns nest deeper than {COLUMN_DEPTH_MAX}"), None)
}

fn physical(value: Value<'_>, logical: Option<Logical>) -> Option<Physical> {
    let text = value.text()?;
    let lower = text.to_ascii_lowercase();
    if lower == "json" || lower == "jsonb" {
        return match logical {
            None | Some(Logical::String | Logical::Object | Logical::Array) => Some(Physical::Json),
            _ => value.refuse("json goes with logicalType object, array or string", None),
        };
    }
    let Some(arguments) = lower
        .strip_prefix("decimal")
        .or_else(|| lower.strip_prefix("numeric"))
    else {
        return Some(Physical::Other);
    };
    match logical {
        Some(Logical::Number | Logical::Integer) => {}
        _ => return Some(Physical::Other),
    }
    let bounds = arguments
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'))
        .map(|inner| inner.split_once(',').unwrap_or((inner, "0")))
        .and_then(|(precision, scale)| Some((number(precision)?, number(scale)?)));
    let Some((precision, scale)) = bounds else {
        let hint = "write decimal(12,2), or leave physicalType out".to_owned();
        return value.refuse("a decimal needs its precision and scale", Some(hint));
    };
    if !(1..=PRECISION_MAX).contains(&precision) || scale > precision {
        let message = format!("precision is 1 to {PRECISION_MAX} and scale 0 to precision");
        return value.refuse(message, None);
    }
    if logical == Some(Logical::Integer) && scale > 0 {
        return value.refuse(
            "an integer has no scale",
            Some("use logicalType: number".to_owned()),
        );
    }
    Some(Physical::Decimal {
        precision,
        scale: i8::try_from(scale).ok()?,
    })
}

fn number(text: &str) -> Option<u8> {
    let text = text.trim();
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

fn timestamp_format(value: Value<'_>) -> Option<TimestampFormat> {
    let text = value.text()?;
    let format = match text {
        "rfc3339" => Some(TimestampFormat::Rfc3339),
        "epoch_s" => Some(TimestampFormat::EpochSeconds),
        "epoch_ms" => Some(TimestampFormat::EpochMillis),
        _ => text
            .strip_prefix("naive:")
            .and_then(offset_seconds)
            .map(|offset_seconds| TimestampFormat::Naive { offset_seconds }),
    };
    if format.is_some() {
        return format;
    }
    let hint = "allowed: rfc3339, epoch_s, epoch_ms, naive:+02:00".to_owned();
    value.refuse(format!("{} is not a format", quoted(text)), Some(hint))
}

/// `Z`, `+02:00`, `-09:30`, `+01:02:03`.
fn offset_seconds(text: &str) -> Option<i32> {
    if text == "Z" {
        return Some(0);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let parts: Vec<&str> = rest.split(':').collect();
    let two_digits = |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !(2..=3).contains(&parts.len()) || !parts.iter().all(two_digits) {
        return None;
    }
    let mut numbers = parts.iter().map(|part| part.parse::<i32>().unwrap_or(99));
    let (hours, minutes) = (numbers.next()?, numbers.next()?);
    let seconds = numbers.next().unwrap_or(0);
    let good = hours < 24 && minutes < 60 && seconds < 60;
    good.then_some(sign * (hours * 3600 + minutes * 60 + seconds))
}
