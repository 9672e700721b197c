//! JSON of a response as a variable: looked into where a template looks, each value as it was written.

use std::{
    collections::HashMap,
    fmt,
    ops::Range,
    str,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use minijinja::value::{Enumerator, Object, ObjectExt as _, ObjectRepr, Value, ValueKind};
use serde_json::{Map, Number};

use super::fault::Fault;
use crate::json::{DEPTH_MAX, Defect, scan::Scanner, text, unescape};

/// An array or an object within a JSON text.
pub(super) struct Json {
    text: Bytes,
    at: Range<usize>,
    repr: ObjectRepr,
    members: OnceLock<Members>,
}

/// What is directly within an array or an object, in the order of the text.
#[derive(Default)]
struct Members {
    /// Empty for arrays.
    names: Vec<Value>,
    values: Vec<Value>,
    by_name: HashMap<Arc<str>, usize>,
}

/// The value of a whole JSON text.
pub(super) fn value(json: &Bytes) -> Result<Value, Defect> {
    let mut scanner = Scanner::new(json);
    scanner.blank();
    let range = scanner.skip()?;
    scanner.end()?;
    // The scanner leaves UTF-8 to its callers.
    if let Err(error) = str::from_utf8(json) {
        return Err(Defect::NotUtf8 {
            offset: error.valid_up_to(),
        });
    }
    Ok(part(json, range))
}

/// The value at a place of a text that was checked as a whole.
fn part(json: &Bytes, at: Range<usize>) -> Value {
    let repr = match json.get(at.start) {
        Some(b'{') => ObjectRepr::Map,
        Some(b'[') => ObjectRepr::Seq,
        _ => return scalar(&json[at]),
    };
    Value::from_object(Json {
        text: json.clone(),
        at,
        repr,
        members: OnceLock::new(),
    })
}

fn scalar(written: &[u8]) -> Value {
    match written {
        b"null" => Value::from(()),
        b"true" => Value::from(true),
        b"false" => Value::from(false),
        _ => match (text(written), str::from_utf8(written)) {
            (Some(text), _) => Value::from(text.as_ref()),
            // Half a surrogate pair has no text: it stays the escape it was written as.
            (None, Ok(written)) if written.starts_with('"') => Value::from(written.trim_matches('"')),
            (None, Ok(number)) => self::number(number),
            (None, Err(_)) => Value::from(()),
        },
    }
}

/// A number as number if it is written again as it was, else as text: `1.10`, `1e5` and 2^64+1 stay what they are.
pub(super) fn number(written: &str) -> Value {
    if let Ok(number) = written.parse::<i64>()
        && number.to_string() == written
    {
        return Value::from(number);
    }
    if let Ok(number) = written.parse::<u64>()
        && number.to_string() == written
    {
        return Value::from(number);
    }
    let float = written.parse::<f64>().ok().and_then(Number::from_f64);
    match float {
        Some(float) if float.to_string() == written => {
            let value = Value::from(float.as_f64());
            let same = value.to_string() == written;
            if same { value } else { Value::from(written) }
        }
        _ => Value::from(written),
    }
}

impl Json {
    /// The bytes as they were written.
    fn written(&self) -> &[u8] {
        &self.text[self.at.clone()]
    }

    fn members(&self) -> &Members {
        // The text was checked before; nothing can be met that ends the scan early.
        self.members.get_or_init(|| self.scan().unwrap_or_default())
    }

    fn scan(&self) -> Result<Members, Defect> {
        let mut members = Members::default();
        let mut scanner = Scanner::new(self.written());
        let child =
            |range: Range<usize>| part(&self.text, self.at.start + range.start..self.at.start + range.end);
        scanner.enter()?;
        let mut first = true;
        if self.repr == ObjectRepr::Seq {
            while scanner.next_element(first)? {
                first = false;
                members.values.push(child(scanner.skip()?));
            }
            return Ok(members);
        }
        while let Some(name) = scanner.next_member(first)? {
            first = false;
            let range = scanner.skip()?;
            let written = str::from_utf8(&self.written()[name.start..name.end]).unwrap_or_default();
            let mut decoded = String::new();
            let name: Arc<str> = if unescape(written, &mut decoded) {
                decoded.into()
            } else {
                written.into()
            };
            // Of a name given twice the first counts, as everywhere else.
            if !members.by_name.contains_key(&name) {
                members.by_name.insert(Arc::clone(&name), members.values.len());
                members.names.push(Value::from(name));
                members.values.push(child(range));
            }
        }
        Ok(members)
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Json({} bytes)", self.at.len())
    }
}

impl Object for Json {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        self.repr
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let members = self.members();
        let index = match self.repr {
            ObjectRepr::Seq => key.as_usize()?,
            _ => *members.by_name.get(key.as_str()?)?,
        };
        members.values.get(index).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        match self.repr {
            ObjectRepr::Seq => self.mapped_enumerator(|json| Box::new(json.members().values.iter().cloned())),
            _ => self.mapped_enumerator(|json| Box::new(json.members().names.iter().cloned())),
        }
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.members().values.len())
    }

    fn is_true(self: &Arc<Self>) -> bool {
        !self.members().values.is_empty()
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(self.written()).unwrap_or_default())
    }
}

/// How many bytes a value takes, each value within counted 32 more; none if it is more than `most`.
pub(super) fn weigh(value: &Value, most: u64) -> Option<u64> {
    const EACH: u64 = 32;
    let mut total = 0_u64;
    let mut rest = vec![value.clone()];
    while let Some(value) = rest.pop() {
        total += EACH;
        match value.kind() {
            _ if value.downcast_object_ref::<Json>().is_some() => {
                let json = value.downcast_object_ref::<Json>();
                total += json.map_or(0, |json| json.at.len() as u64);
            }
            ValueKind::String | ValueKind::Bytes => total += value.len().unwrap_or(0) as u64,
            ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
                for key in value.try_iter().ok()? {
                    total += EACH;
                    if total > most {
                        return None;
                    }
                    if value.kind() == ValueKind::Map {
                        total += key.as_str().map_or(0, |key| key.len() as u64);
                        rest.extend(value.get_item(&key).ok());
                    } else {
                        rest.push(key);
                    }
                }
            }
            _ => {}
        }
        if total > most {
            return None;
        }
    }
    Some(total)
}

/// The same value as JSON. A number that JSON of 64 bits cannot hold becomes the text it is written as.
pub(super) fn to_json(value: &Value) -> Result<serde_json::Value, Fault> {
    deeper(value, DEPTH_MAX)
}

fn deeper(value: &Value, depth: usize) -> Result<serde_json::Value, Fault> {
    use serde_json::Value as Out;
    let Some(below) = depth.checked_sub(1) else {
        return Err(Fault::new(format!("a value nests deeper than {DEPTH_MAX}")));
    };
    Ok(match value.kind() {
        ValueKind::Undefined => return Err(Fault::undefined()),
        ValueKind::None => Out::Null,
        ValueKind::Bool => Out::Bool(value.is_true()),
        ValueKind::Number => return to_number(value),
        ValueKind::String => Out::String(value.as_str().unwrap_or_default().to_owned()),
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value
                .try_iter()
                .map_err(|_| Fault::new("a value cannot be listed"))?;
            Out::Array(items.map(|item| deeper(&item, below)).collect::<Result<_, _>>()?)
        }
        ValueKind::Map => {
            let names = value
                .try_iter()
                .map_err(|_| Fault::new("a value cannot be listed"))?;
            let mut members = Map::new();
            for name in names {
                let member = value
                    .get_item(&name)
                    .map_err(|_| Fault::new("a member is missing"))?;
                members.insert(name.to_string(), deeper(&member, below)?);
            }
            Out::Object(members)
        }
        _ => Out::String(value.to_string()),
    })
}

fn to_number(value: &Value) -> Result<serde_json::Value, Fault> {
    if value.is_integer() {
        let fits = i64::try_from(value.clone()).map(Number::from);
        let fits = fits.or_else(|_| u64::try_from(value.clone()).map(Number::from));
        return Ok(fits.map_or_else(
            |_| serde_json::Value::String(value.to_string()),
            serde_json::Value::Number,
        ));
    }
    let float = f64::try_from(value.clone()).ok().and_then(Number::from_f64);
    float
        .map(serde_json::Value::Number)
        .ok_or_else(|| Fault::new("a number is not finite"))
}

/// Writes a value as JSON without white space; what came as JSON is written as it came.
pub(super) fn write(value: &Value) -> Result<String, Fault> {
    if let Some(json) = value.downcast_object_ref::<Json>() {
        return Ok(str::from_utf8(json.written()).unwrap_or_default().to_owned());
    }
    Ok(to_json(value)?.to_string())
}
