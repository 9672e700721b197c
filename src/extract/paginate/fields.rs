//! What surrounds the records of an answer: its scalar fields, by path.

use std::collections::{BTreeMap, VecDeque};

use serde_json::value::RawValue;

use crate::json::JsonPath;

/// Nesting that is looked at. `data.viewer.repository.issues.pageInfo.endCursor` has six names.
const DEPTH_MAX: usize = 7;

/// Fields that are looked at.
const FIELDS_MAX: usize = 2_000;

/// A scalar field outside of arrays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// The names that lead to it, outermost first.
    pub(super) path: Vec<String>,
    /// Its value.
    pub(super) value: Scalar,
}

/// A value that is neither an object nor an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    /// As written.
    Number(String),
    Text(String),
}

impl Field {
    /// The last name as compared: lowercase letters and digits alone.
    pub(super) fn name(&self) -> String {
        self.path.last().map(|name| plain(name)).unwrap_or_default()
    }

    /// The last name as written.
    pub(super) fn written(&self) -> &str {
        self.path.last().map(String::as_str).unwrap_or_default()
    }

    /// The last name but one, as compared.
    pub(super) fn parent(&self) -> String {
        let parent = self.path.len().checked_sub(2).and_then(|at| self.path.get(at));
        parent.map(|name| plain(name)).unwrap_or_default()
    }

    /// Whether both stand in the same object.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        let home = |field: &Self| field.path.split_last().map(|(_, home)| home.to_vec());
        home(self) == home(other)
    }

    /// The value as a count.
    pub(super) fn count(&self) -> Option<u64> {
        match &self.value {
            Scalar::Number(text) | Scalar::Text(text) => text.parse().ok(),
            Scalar::Null | Scalar::Bool(_) => None,
        }
    }
}

/// A name without case, separators and signs, so that `next_page_token` is `nextPageToken`.
pub(super) fn plain(name: &str) -> String {
    let letters = name.chars().filter(char::is_ascii_alphanumeric);
    letters.map(|letter| letter.to_ascii_lowercase()).collect()
}

/// The path of these names.
pub(super) fn path(names: &[String]) -> Option<JsonPath> {
    let mut text = "$".to_owned();
    for name in names {
        let bare = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        if name.chars().all(bare)
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && !name.is_empty()
        {
            text.push('.');
            text.push_str(name);
        } else {
            text.push_str(&format!("[{}]", serde_json::Value::from(name.as_str())));
        }
    }
    JsonPath::parse(&text).ok()
}

/// The scalar fields of `body` outside of arrays, the outermost first.
pub(super) fn read(body: &[u8]) -> Vec<Field> {
    let mut fields = Vec::new();
    let Ok(root) = serde_json::from_slice::<&RawValue>(body) else {
        return fields;
    };
    let mut rest = VecDeque::from([(Vec::new(), root)]);
    // Every object is nested in one that was looked at, and DEPTH_MAX and FIELDS_MAX bound them.
    while let Some((path, object)) = rest.pop_front() {
        let Ok(members) = serde_json::from_str::<BTreeMap<String, &RawValue>>(object.get()) else {
            continue;
        };
        for (name, value) in members {
            if fields.len() + rest.len() >= FIELDS_MAX {
                return fields;
            }
            let mut path: Vec<String> = path.clone();
            path.push(name);
            match scalar(value.get()) {
                Some(value) => fields.push(Field { path, value }),
                None if value.get().starts_with('{') && path.len() < DEPTH_MAX => {
                    rest.push_back((path, value))
                }
                None => {}
            }
        }
    }
    fields
}

fn scalar(text: &str) -> Option<Scalar> {
    match text.as_bytes().first()? {
        b'n' => Some(Scalar::Null),
        b't' => Some(Scalar::Bool(true)),
        b'f' => Some(Scalar::Bool(false)),
        b'"' => serde_json::from_str(text).ok().map(Scalar::Text),
        b'-' | b'0'..=b'9' => Some(Scalar::Number(text.to_owned())),
        _ => None,
    }
}
