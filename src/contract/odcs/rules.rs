//! Rules beyond the type: `logicalTypeOptions` and the list of valid values.

use regex::RegexBuilder;

use crate::{
    contract::{
        ColumnType, Rules, TimestampFormat,
        odcs::{
            PATTERN_BYTES_MAX,
            quality::{Check, checks},
            sections,
        },
    },
    yaml::{
        Kind,
        fields::{Fields, Value},
        parse::integer,
        quoted,
    },
};

/// How the standard writes RFC 3339 and ISO dates.
const TIME_FORMATS: [&str; 6] = [
    "yyyy-MM-dd'T'HH:mm:ssXXX",
    "yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
    "yyyy-MM-dd'T'HH:mm:ss[.SSS]XXX",
    "yyyy-MM-dd'T'HH:mm:ssZ",
    "yyyy-MM-dd'T'HH:mm:ss'Z'",
    "yyyy-MM-ddTHH:mm:ssZ",
];

/// Reads everything that restricts a column of this kind.
pub(super) fn rules(fields: &Fields<'_>, custom: Option<Value<'_>>, kind: &ColumnType) -> Option<Rules> {
    let mut rules = match fields.value("logicalTypeOptions") {
        Some(value) => options(value, kind),
        None => Some(Rules::default()),
    };
    let library = fields.optional("quality", valid_values);
    if let (Some(custom), Some(_)) = (custom, library) {
        return custom.refuse("the allowed values are also given under quality", None);
    }
    if let Some(value) = library.or(custom) {
        let allowed = allowed(value, kind)?;
        if let Some(rules) = &mut rules {
            rules.allowed = Some(allowed);
        }
    }
    rules.map(|rules| Rules {
        unique: fields.optional("unique", Value::boolean).unwrap_or(false),
        ..rules
    })
}

fn options(value: Value<'_>, kind: &ColumnType) -> Option<Rules> {
    let none = Rules::default();
    match kind {
        ColumnType::String => {
            let fields = value.fields(&sections::STRING_OPTIONS)?;
            let rules = Rules {
                pattern: fields.optional("pattern", pattern),
                length_min: fields.optional("minLength", |value| value.integer(0..=u64::MAX)),
                length_max: fields.optional("maxLength", |value| value.integer(0..=u64::MAX)),
                ..none
            };
            check_lengths(value, &rules);
            Some(rules)
        }
        ColumnType::Array(_) => {
            let fields = value.fields(&sections::ARRAY_OPTIONS)?;
            let rules = Rules {
                length_min: fields.optional("minItems", |value| value.integer(0..=u64::MAX)),
                length_max: fields.optional("maxItems", |value| value.integer(0..=u64::MAX)),
                ..none
            };
            check_lengths(value, &rules);
            Some(rules)
        }
        ColumnType::Integer | ColumnType::Number | ColumnType::Decimal { .. } => {
            let fields = value.fields(&sections::NUMBER_OPTIONS)?;
            let rules = Rules {
                minimum: fields.optional("minimum", number),
                maximum: fields.optional("maximum", number),
                ..none
            };
            check_bounds(value, &rules);
            Some(rules)
        }
        ColumnType::Date | ColumnType::Timestamp(_) => {
            let fields = value.fields(&sections::TIME_OPTIONS)?;
            fields.optional("format", |value| time_format(value, kind));
            let naive = matches!(kind, ColumnType::Timestamp(TimestampFormat::Naive { .. }));
            if let Some((value, false)) = fields
                .value("timezone")
                .and_then(|value| Some((value, value.boolean()?)))
                && !naive
            {
                let hint = "add the custom property format with the zone: naive:+00:00".to_owned();
                value.refuse::<()>("values without a zone need to be told theirs", Some(hint));
            }
            Some(none)
        }
        ColumnType::Boolean | ColumnType::Object(_) | ColumnType::Json => {
            value.fields(&sections::NO_OPTIONS)?;
            Some(none)
        }
    }
}

fn check_lengths(value: Value<'_>, rules: &Rules) {
    if let (Some(least), Some(most)) = (rules.length_min, rules.length_max)
        && least > most
    {
        value.refuse::<()>(
            format!("the least length {least} is more than the greatest {most}"),
            None,
        );
    }
}

fn check_bounds(value: Value<'_>, rules: &Rules) {
    let float = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<f64>().ok());
    if let (Some(least), Some(most)) = (float(&rules.minimum), float(&rules.maximum))
        && least > most
    {
        value.refuse::<()>(format!("minimum {least} is more than maximum {most}"), None);
    }
}

/// A number in plain decimal notation, kept as written so that nothing is rounded.
fn number(value: Value<'_>) -> Option<String> {
    let text = match &value.node.kind {
        Kind::Int(text) | Kind::Float(text) if is_plain(text) => Some(text.clone()),
        Kind::Int(text) => integer(text).map(|number| number.to_string()),
        Kind::Float(_) => None,
        _ => return value.expected("a number", None),
    };
    match text {
        Some(text) => Some(text),
        None => value.refuse(
            "not a number in plain decimal notation",
            Some("write 0.001 or 1000".to_owned()),
        ),
    }
}

/// `-?(0|[1-9][0-9]*)(\.[0-9]+)?`
fn is_plain(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    digits(whole) && digits(fraction) && (whole == "0" || !whole.starts_with('0'))
}

fn pattern(value: Value<'_>) -> Option<String> {
    let text = value.text()?;
    match RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build() {
        Ok(_) => Some(text.to_owned()),
        Err(regex::Error::CompiledTooBig(_)) => value.refuse(
            format!("the pattern compiles to more than {PATTERN_BYTES_MAX} bytes"),
            None,
        ),
        Err(error) => {
            // The last line of the library's picture of the problem is the reason.
            let text_of_error = error.to_string();
            let reason = text_of_error.lines().last().unwrap_or_default();
            let reason = reason.strip_prefix("error: ").unwrap_or(reason);
            value.refuse(format!("{} cannot be read: {reason}", quoted(text)), None)
        }
    }
}

fn time_format(value: Value<'_>, kind: &ColumnType) -> Option<()> {
    let text = value.text()?;
    let good = match kind {
        ColumnType::Date => text == "yyyy-MM-dd",
        _ => TIME_FORMATS.contains(&text),
    };
    if good {
        return Some(());
    }
    let hint = match kind {
        ColumnType::Date => "dates are written yyyy-MM-dd",
        _ => "for other than RFC 3339 add the custom property format: epoch_s, epoch_ms or naive:+02:00",
    };
    value.refuse(
        format!("{} is not a format that is read", quoted(text)),
        Some(hint.to_owned()),
    )
}

/// The `validValues` of the library check that no value be invalid.
fn valid_values(value: Value<'_>) -> Option<Value<'_>> {
    let mut found = None;
    for check in checks(value) {
        let Check::ValidValues(values) = check else {
            continue;
        };
        if found.replace(values).is_some() {
            return values.refuse("is given twice", None);
        }
    }
    found
}

/// The allowed values as canonical JSON text.
fn allowed(value: Value<'_>, kind: &ColumnType) -> Option<Vec<String>> {
    let mut allowed: Vec<String> = Vec::new();
    let mut good = true;
    for item in value.items()? {
        let fits = matches!(
            (kind, &item.node.kind),
            (ColumnType::String | ColumnType::Date, Kind::String(_))
                | (ColumnType::Integer, Kind::Int(_))
                | (
                    ColumnType::Number | ColumnType::Decimal { .. },
                    Kind::Int(_) | Kind::Float(_)
                )
                | (ColumnType::Boolean, Kind::Bool(..))
        );
        let text = match fits {
            true => item.node.to_json(item.problems).map(|json| json.to_string()),
            false => item.refuse(
                format!("{} is not a value of this type", item.node.kind_name()),
                None,
            ),
        };
        match text {
            Some(text) if allowed.contains(&text) => {
                good = false;
                item.refuse::<()>("is listed twice", None);
            }
            Some(text) => allowed.push(text),
            None => good = false,
        }
    }
    if allowed.is_empty() && good {
        return value.refuse("at least one value is needed", None);
    }
    good.then_some(allowed)
}
