//! What templates can call: functions and filters over texts, numbers and lists. Those over time are in
//! [`super::times`].
//!
//! Each takes from the work of the rendering what it looks at and makes, and none makes a text longer than
//! [`OUTPUT_BYTES_MAX`].

use std::collections::HashMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use minijinja::{
    Environment, Error, ErrorKind, State, filters,
    value::{Rest, Value, ValueKind, ValueOrKwargs},
};
use regex::{Regex, RegexBuilder};
use sha2::{Digest as _, Sha256};

use super::{
    OUTPUT_BYTES_MAX,
    engine::{left, spend, text_of, too_long, too_much},
    fault::Fault,
    json, percent_encoded, times,
};

/// Longest list `range` gives.
const RANGE_MAX: i64 = 10_000;

/// Heaviest value a variable of a template may be given, in bytes.
const BOUND_MAX: u64 = 1 << 20;

/// Most regular expressions of one rendering.
const REGEXES_MAX: usize = 16;

/// Longest regular expression, in bytes.
const REGEX_BYTES_MAX: usize = 1000;

/// Largest compiled regular expression, in bytes.
const REGEX_SIZE_MAX: usize = 1 << 18;

/// Names that templates can call; the variables of a template are never looked for under them.
pub(super) const NAMES: [&str; 10] = [
    "day_delta",
    "duration",
    "format_datetime",
    "max",
    "min",
    "now_utc",
    "range",
    "str_to_datetime",
    "timestamp",
    "today_utc",
];

/// Which of its arguments a filter looks at.
#[derive(Clone, Copy)]
enum Look {
    /// Texts, and lists without what is in their items.
    Flat,
    /// All of them, as often as sorting does.
    Deep,
}

type Made = Result<Value, Error>;

pub(super) fn add(environment: &mut Environment<'static>) {
    add_builtins(environment);
    add_texts(environment);
    times::add(environment);
    environment.add_function("__add", plus);
    environment.add_function("__sub", minus);
    environment.add_function("__mul", times_number);
    environment.add_function("__cat", concatenate);
    environment.add_function("__bound", bound);
    environment.add_function("range", range);
    for name in ["max", "min"] {
        environment.add_function(name, move |state: &mut State<'_, '_>, values: Rest<Value>| {
            let values = match values.0.as_slice() {
                [list] => list.clone(),
                _ => Value::from(values.0),
            };
            state.apply_filter(name, &[values])
        });
    }
    environment.set_unknown_method_callback(method);
}

/// Filters of the engine that are safe once what they look at is counted.
fn add_builtins(environment: &mut Environment<'static>) {
    use Look::{Deep, Flat};
    let builtins = [
        ("abs", Value::from_function(filters::abs), Flat),
        ("bool", Value::from_function(filters::bool), Flat),
        ("capitalize", Value::from_function(filters::capitalize), Flat),
        ("count", Value::from_function(filters::length), Flat),
        ("d", Value::from_function(filters::default), Flat),
        ("default", Value::from_function(filters::default), Flat),
        ("dictsort", Value::from_function(filters::dictsort), Deep),
        ("first", Value::from_function(filters::first), Flat),
        ("float", Value::from_function(filters::float), Flat),
        ("int", Value::from_function(filters::int), Flat),
        ("items", Value::from_function(filters::items), Flat),
        ("last", Value::from_function(filters::last), Flat),
        ("length", Value::from_function(filters::length), Flat),
        ("list", Value::from_function(filters::list), Flat),
        ("lower", Value::from_function(filters::lower), Flat),
        ("map", Value::from_function(filters::map), Flat),
        ("max", Value::from_function(filters::max), Deep),
        ("min", Value::from_function(filters::min), Deep),
        ("reject", Value::from_function(filters::reject), Deep),
        ("rejectattr", Value::from_function(filters::rejectattr), Deep),
        ("reverse", Value::from_function(filters::reverse), Flat),
        ("round", Value::from_function(filters::round), Flat),
        ("select", Value::from_function(filters::select), Deep),
        ("selectattr", Value::from_function(filters::selectattr), Deep),
        ("sort", Value::from_function(filters::sort), Deep),
        ("split", Value::from_function(filters::split), Flat),
        ("title", Value::from_function(filters::title), Flat),
        ("trim", Value::from_function(filters::trim), Flat),
        ("unique", Value::from_function(filters::unique), Deep),
        ("upper", Value::from_function(filters::upper), Flat),
    ];
    for (name, filter, look) in builtins {
        environment.add_filter(
            name,
            move |state: &mut State<'_, '_>, arguments: Rest<ValueOrKwargs>| -> Made {
                let arguments = arguments.into_values();
                for argument in &arguments {
                    look_at(state, argument, look)?;
                }
                short(filter.call(state, &arguments)?)
            },
        );
    }
}

fn add_texts(environment: &mut Environment<'static>) {
    environment.add_filter("base64", base64_encode);
    environment.add_filter("base64encode", base64_encode);
    environment.add_filter("base64_decode", base64_decode);
    environment.add_filter("base64decode", base64_decode);
    environment.add_filter("hmac", hmac_sha256);
    environment.add_filter("hmac_sha256", hmac_sha256);
    environment.add_filter("join", join);
    environment.add_filter("regex_find", regex_find);
    environment.add_filter("regex_search", regex_find);
    environment.add_filter("regex_replace", regex_replace);
    environment.add_filter("replace", replace);
    environment.add_filter("sha256", sha256);
    environment.add_filter("string", string);
    environment.add_filter("sum", sum);
    environment.add_filter("tojson", tojson);
    environment.add_filter("urlencode", urlencode);
}

/// Methods that texts and maps have in Python, where many templates come from.
fn method(state: &mut State<'_, '_>, value: &Value, name: &str, arguments: &[Value]) -> Made {
    let filter = match (name, value.kind()) {
        ("get", ValueKind::Map) => return get(value, arguments),
        ("items", ValueKind::Map) => "items",
        ("keys", ValueKind::Map) => "list",
        ("lower" | "upper" | "split" | "replace" | "title", ValueKind::String) => name,
        ("strip", ValueKind::String) => "trim",
        ("strftime", ValueKind::String | ValueKind::Number) => name,
        ("startswith" | "endswith", ValueKind::String) => {
            let [Some(text), Some(part)] = [Some(value), arguments.first()].map(|one| one?.as_str()) else {
                return Err(ErrorKind::MissingArgument.into());
            };
            let found = if name == "startswith" {
                text.starts_with(part)
            } else {
                text.ends_with(part)
            };
            return Ok(Value::from(found));
        }
        _ => return Err(ErrorKind::UnknownMethod.into()),
    };
    let arguments: Vec<Value> = [value].into_iter().chain(arguments).cloned().collect();
    state.apply_filter(filter, &arguments)
}

fn get(map: &Value, arguments: &[Value]) -> Made {
    let [name, default @ ..] = arguments else {
        return Err(ErrorKind::MissingArgument.into());
    };
    let found = map.get_item(name)?;
    Ok(if found.is_undefined() {
        default.first().cloned().unwrap_or_else(|| Value::from(()))
    } else {
        found
    })
}

/// Takes from the work what `value` costs to be looked at.
fn look_at(state: &mut State<'_, '_>, value: &Value, look: Look) -> Result<(), Fault> {
    let cost = match (look, value.kind()) {
        (_, ValueKind::String | ValueKind::Bytes) => value.len().unwrap_or(0) as u64,
        (Look::Flat, ValueKind::Seq | ValueKind::Iterable | ValueKind::Map) => {
            value.len().unwrap_or(0) as u64 * 8
        }
        (Look::Deep, _) => {
            let weight = json::weigh(value, left(state)).ok_or_else(too_much)?;
            let rounds = value
                .len()
                .map_or(1, |length| u64::from(length.max(1).ilog2()) + 1);
            weight.saturating_mul(rounds)
        }
        _ => 0,
    };
    spend(state, cost + 1)
}

/// Refuses a text that is too long to go on with.
fn short(value: Value) -> Made {
    match value.as_str() {
        Some(text) if text.len() > OUTPUT_BYTES_MAX => Err(too_long().into()),
        _ => Ok(value),
    }
}

fn made(state: &mut State<'_, '_>, text: String) -> Made {
    spend(state, text.len() as u64)?;
    short(Value::from(text))
}

fn wrong(what: &'static str) -> Error {
    Fault::new(what).into()
}

fn plus(state: &mut State<'_, '_>, values: Rest<Value>) -> Made {
    let mut values = values.0.into_iter();
    let mut sum = values.next().ok_or(ErrorKind::MissingArgument)?;
    for value in values {
        spend(state, 1)?;
        sum = match (sum.as_str(), value.as_str()) {
            (Some(one), Some(other)) => joined(state, &[one, other])?,
            _ => match times::shifted(&sum, &value, times::Direction::Later)? {
                Some(moment) => moment,
                None if is_list(&sum) && is_list(&value) => lists(state, &sum, &value)?,
                None => arithmetic(&sum, &value, i128::checked_add, |one, other| one + other)?,
            },
        };
    }
    Ok(sum)
}

fn minus(state: &mut State<'_, '_>, values: Rest<Value>) -> Made {
    let mut values = values.0.into_iter();
    let mut rest = values.next().ok_or(ErrorKind::MissingArgument)?;
    for value in values {
        spend(state, 1)?;
        rest = match times::shifted(&rest, &value, times::Direction::Earlier)? {
            Some(moment) => moment,
            None => arithmetic(&rest, &value, i128::checked_sub, |one, other| one - other)?,
        };
    }
    Ok(rest)
}

/// `*` is for numbers: repeating texts and lists is how templates explode.
fn times_number(state: &mut State<'_, '_>, values: Rest<Value>) -> Made {
    let mut values = values.0.into_iter();
    let mut product = values.next().ok_or(ErrorKind::MissingArgument)?;
    for value in values {
        spend(state, 1)?;
        product = arithmetic(&product, &value, i128::checked_mul, |one, other| one * other)?;
    }
    Ok(product)
}

fn arithmetic(
    one: &Value,
    other: &Value,
    whole: fn(i128, i128) -> Option<i128>,
    broken: fn(f64, f64) -> f64,
) -> Made {
    if one.kind() != ValueKind::Number || other.kind() != ValueKind::Number {
        return Err(Fault::new("+, - and * are for numbers")
            .hint("make a number of a text with | int or | float; texts are joined with ~")
            .into());
    }
    if one.is_integer() && other.is_integer() {
        let both = i128::try_from(one.clone())
            .ok()
            .zip(i128::try_from(other.clone()).ok());
        let result = both.and_then(|(one, other)| whole(one, other));
        let result = result.ok_or_else(|| wrong("a number has more than 128 bits"))?;
        return Ok(i64::try_from(result).map_or_else(|_| Value::from(result), Value::from));
    }
    let float = |value: &Value| -> Result<f64, Error> {
        // A whole number beyond 2^53 would change, and is refused by the conversion.
        f64::try_from(value.clone()).map_err(|_| wrong("a number does not fit"))
    };
    Ok(Value::from(broken(float(one)?, float(other)?)))
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

fn lists(state: &mut State<'_, '_>, one: &Value, other: &Value) -> Made {
    let length = one.len().unwrap_or(0) + other.len().unwrap_or(0);
    spend(state, length as u64 * 8)?;
    let items: Vec<Value> = one.try_iter()?.chain(other.try_iter()?).collect();
    Ok(Value::from(items))
}

fn concatenate(state: &mut State<'_, '_>, values: Rest<Value>) -> Made {
    let texts = values.0.iter().map(text_of);
    let texts = texts.collect::<Result<Vec<String>, Fault>>()?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    joined(state, &texts)
}

fn joined(state: &mut State<'_, '_>, texts: &[&str]) -> Made {
    let length: usize = texts.iter().map(|text| text.len()).sum();
    spend(state, length as u64)?;
    if length > OUTPUT_BYTES_MAX {
        return Err(too_long().into());
    }
    Ok(Value::from(texts.concat()))
}

/// What `{% set %}` keeps: no heavier than [`BOUND_MAX`], so that names cannot be used to double a value again and again.
fn bound(state: &mut State<'_, '_>, value: Value) -> Made {
    // What came from outside is kept by reference, however large.
    let weight = if value.downcast_object_ref::<json::Json>().is_some() {
        1
    } else {
        json::weigh(&value, BOUND_MAX).ok_or_else(|| Fault::new("set keeps a value that is too large"))?
    };
    spend(state, weight)?;
    Ok(value)
}

fn range(state: &mut State<'_, '_>, first: i64, end: Option<i64>, step: Option<i64>) -> Made {
    let (first, end) = end.map_or((0, first), |end| (first, end));
    let step = step.unwrap_or(1);
    let span = i128::from(end) - i128::from(first);
    let length = match step {
        0 => return Err(wrong("range has a step of 0")),
        _ => (span + i128::from(step) - i128::from(step.signum())) / i128::from(step),
    };
    if length > i128::from(RANGE_MAX) {
        return Err(Fault::new(format!("range gives more than {RANGE_MAX} numbers")).into());
    }
    let length = i64::try_from(length.max(0)).unwrap_or(0);
    spend(state, length.unsigned_abs() * 32)?;
    // Within `end` for every place, so nothing overflows.
    Ok((0..length).map(|at| Value::from(first + at * step)).collect())
}

fn string(state: &mut State<'_, '_>, value: Value) -> Made {
    let text = text_of(&value)?;
    made(state, text)
}

fn tojson(state: &mut State<'_, '_>, value: Value) -> Made {
    look_at(state, &value, Look::Deep)?;
    json::weigh(&value, OUTPUT_BYTES_MAX as u64).ok_or_else(too_long)?;
    let text = json::write(&value)?;
    made(state, text)
}

fn join(
    state: &mut State<'_, '_>,
    values: Value,
    separator: Option<Value>,
    attribute: Option<Value>,
) -> Made {
    look_at(state, &values, Look::Flat)?;
    let separator = separator.map_or_else(|| Ok(String::new()), |separator| text_of(&separator))?;
    let mut text = String::new();
    for (index, item) in values.try_iter()?.enumerate() {
        if index > 0 {
            text.push_str(&separator);
        }
        let item = match &attribute {
            Some(name) => item.get_item(name)?,
            None => item,
        };
        text.push_str(&text_of(&item)?);
        if text.len() > OUTPUT_BYTES_MAX {
            return Err(too_long().into());
        }
    }
    made(state, text)
}

fn replace(state: &mut State<'_, '_>, text: Value, from: Value, to: Value) -> Made {
    let (text, from, to) = (text_of(&text)?, text_of(&from)?, text_of(&to)?);
    spend(state, text.len() as u64)?;
    let found = text.matches(&from).count();
    if text.len() + found * to.len() > 2 * OUTPUT_BYTES_MAX {
        return Err(too_long().into());
    }
    made(state, text.replace(&from, &to))
}

fn sum(state: &mut State<'_, '_>, values: Value) -> Made {
    look_at(state, &values, Look::Flat)?;
    let mut sum = Value::from(0);
    for value in values.try_iter()? {
        sum = arithmetic(&sum, &value, i128::checked_add, |one, other| one + other)?;
    }
    Ok(sum)
}

fn base64_encode(state: &mut State<'_, '_>, text: Value) -> Made {
    let text = text_of(&text)?;
    made(state, STANDARD.encode(text))
}

fn base64_decode(state: &mut State<'_, '_>, text: Value) -> Made {
    let bytes = STANDARD.decode(text_of(&text)?);
    let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    made(
        state,
        text.ok_or_else(|| wrong("base64_decode is given something else than text in base64"))?,
    )
}

fn sha256(state: &mut State<'_, '_>, text: Value, encoding: Option<Value>) -> Made {
    let text = text_of(&text)?;
    spend(state, text.len() as u64 * 8)?;
    digest(&Sha256::digest(text), encoding.as_ref())
}

/// RFC 2104 over SHA-256.
fn hmac_sha256(state: &mut State<'_, '_>, text: Value, key: Value, encoding: Option<Value>) -> Made {
    const BLOCK: usize = 64;
    let (text, key) = (text_of(&text)?, text_of(&key)?);
    spend(state, (text.len() + key.len()) as u64 * 8)?;
    let mut block = [0_u8; BLOCK];
    if key.len() > BLOCK {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key.as_bytes());
    }
    let padded = |pad: u8| block.map(|byte| byte ^ pad);
    let inner = Sha256::new()
        .chain_update(padded(0x36))
        .chain_update(text)
        .finalize();
    let outer = Sha256::new()
        .chain_update(padded(0x5c))
        .chain_update(inner)
        .finalize();
    digest(&outer, encoding.as_ref())
}

fn digest(bytes: &[u8], encoding: Option<&Value>) -> Made {
    match encoding.and_then(Value::as_str) {
        None | Some("hex" | "sha256") => Ok(Value::from(
            bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        )),
        Some("base64") => Ok(Value::from(STANDARD.encode(bytes))),
        Some(_) => Err(wrong("a digest is written in hex or base64")),
    }
}

fn urlencode(state: &mut State<'_, '_>, text: Value) -> Made {
    let text = text_of(&text)?;
    if text.len() > OUTPUT_BYTES_MAX / 3 {
        return Err(too_long().into());
    }
    made(state, percent_encoded(&text))
}

/// Those of this rendering, by pattern.
#[derive(Default)]
struct Regexes(HashMap<String, Regex>);

fn regex(state: &mut State<'_, '_>, pattern: &Value) -> Result<Regex, Error> {
    let pattern = text_of(pattern)?;
    let known = state.get_or_insert_extension_with(Regexes::default);
    if let Some(regex) = known.0.get(&pattern) {
        return Ok(regex.clone());
    }
    if known.0.len() >= REGEXES_MAX || pattern.len() > REGEX_BYTES_MAX {
        return Err(wrong("too many or too long regular expressions"));
    }
    let regex = RegexBuilder::new(&pattern).size_limit(REGEX_SIZE_MAX).build();
    let regex = regex.map_err(|_| wrong("a regular expression cannot be read"))?;
    known.0.insert(pattern, regex.clone());
    Ok(regex)
}

/// The first group of the first match, the whole match if it has no group, and nothing if there is no match.
fn regex_find(state: &mut State<'_, '_>, text: Value, pattern: Value) -> Made {
    let text = text_of(&text)?;
    spend(state, text.len() as u64 * 8)?;
    let found = regex(state, &pattern)?.captures(&text).map(|groups| {
        let group = groups.get(1).or_else(|| groups.get(0));
        group.map_or_else(String::new, |group| group.as_str().to_owned())
    });
    Ok(Value::from(found.unwrap_or_default()))
}

/// `$1` in `with` stands for the first group.
fn regex_replace(state: &mut State<'_, '_>, text: Value, pattern: Value, with: Value) -> Made {
    let (text, with) = (text_of(&text)?, text_of(&with)?);
    spend(state, text.len() as u64 * 8)?;
    let regex = regex(state, &pattern)?;
    let mut replaced = String::new();
    let mut end = 0;
    for groups in regex.captures_iter(&text) {
        let Some(whole) = groups.get(0) else { continue };
        replaced.push_str(&text[end..whole.start()]);
        groups.expand(&with, &mut replaced);
        end = whole.end();
        if replaced.len() > OUTPUT_BYTES_MAX {
            return Err(too_long().into());
        }
    }
    replaced.push_str(&text[end..]);
    made(state, replaced)
}
