//! Which values of a record people may not see unasked: those of columns with an ODCS `classification` other than `public`.

use std::fmt;

use serde::{
    Deserializer as _,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Column, ColumnType, Contract};

/// What stands for a value that is masked.
pub const MASK: &str = "\"***\"";

/// The classified places of a contract.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classified {
    /// Member names down to each classified value; `None` is any element of a list.
    places: Vec<Vec<Option<String>>>,
}

impl Classified {
    /// Those that `contract` declares.
    pub fn of(contract: &Contract) -> Self {
        let mut places = Vec::new();
        collect(&contract.columns, &[], &mut places);
        Self { places }
    }

    /// Adds the places of another contract.
    pub fn extend(&mut self, other: Self) {
        self.places.extend(other.places);
    }

    /// Whether nothing is classified.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether an excerpt of the value at `path`, such as `lines[2].name` or empty for the record, can show a classified one.
    ///
    /// ```
    /// # use landfall::contract::{classified::Classified, odcs};
    /// let text = "apiVersion: v3.1.0\nkind: DataContract\nid: a\nversion: 1.0.0\nstatus: active\nschema:\n- name: a\n  \
    ///     logicalType: object\n  properties:\n  - name: id\n    logicalType: integer\n  - name: name\n    \
    ///     logicalType: string\n    classification: restricted\n";
    /// let classified = Classified::of(&odcs::parse(text, "a.yaml").unwrap());
    /// assert!(classified.covers("name") && classified.covers("") && !classified.covers("id"));
    /// assert_eq!(classified.mask(br#"{"id":1,"name":"Ada"}"#).unwrap(), r#"{"id":1,"name":"***"}"#);
    /// ```
    pub fn covers(&self, path: &str) -> bool {
        let steps = steps(path);
        self.places.iter().any(|place| {
            place
                .iter()
                .zip(&steps)
                .all(|(own, step)| own.as_deref() == step.as_deref())
        })
    }

    /// The record with classified values masked, its members in their order; `None` if it is not JSON and something in it
    /// may be classified.
    pub fn mask(&self, record: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(record).ok();
        if self.is_empty() {
            return Some(text.map_or_else(|| String::from_utf8_lossy(record).into_owned(), str::to_owned));
        }
        let value: &RawValue = serde_json::from_str(text?).ok()?;
        let places: Vec<&[Option<String>]> = self.places.iter().map(Vec::as_slice).collect();
        let mut masked = String::with_capacity(value.get().len());
        write(value, &places, &mut masked)?;
        Some(masked)
    }
}

fn collect(columns: &[Column], above: &[Option<String>], places: &mut Vec<Vec<Option<String>>>) {
    for column in columns {
        let names = column.path.iter().cloned().map(Some);
        let mut place: Vec<Option<String>> = above.iter().cloned().chain(names).collect();
        let mut column = column;
        // The element of a list has no name of its own.
        loop {
            if column.classification.as_deref().is_some_and(is_masked) {
                places.push(place);
                break;
            }
            match &column.kind {
                ColumnType::Array(element) => {
                    place.push(None);
                    column = element;
                }
                ColumnType::Object(members) => {
                    collect(members, &place, places);
                    break;
                }
                _ => break,
            }
        }
    }
}

fn is_masked(classification: &str) -> bool {
    !classification.trim().eq_ignore_ascii_case("public")
}

/// `lines[2].name` as its steps; a list position is `None`.
fn steps(path: &str) -> Vec<Option<String>> {
    let mut steps = Vec::new();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let name = part.find('[').map_or(part, |open| &part[..open]);
        if !name.is_empty() {
            steps.push(Some(name.to_owned()));
        }
        steps.extend(part.matches('[').map(|_| None));
    }
    steps
}

/// Writes `value` without what is at `places`, each seen from here; `None` if it cannot be read.
fn write(value: &RawValue, places: &[&[Option<String>]], out: &mut String) -> Option<()> {
    if places.iter().any(|place| place.is_empty()) {
        out.push_str(if value.get() == "null" { "null" } else { MASK });
        return Some(());
    }
    if places.is_empty() {
        out.push_str(value.get());
        return Some(());
    }
    let within = |step: Option<&str>| -> Vec<&[Option<String>]> {
        let inside = places.iter().filter(|place| place[0].as_deref() == step);
        inside.map(|place| &place[1..]).collect()
    };
    let mut reader = serde_json::Deserializer::from_str(value.get());
    match value.get().as_bytes().first() {
        Some(b'{') => {
            let members = reader.deserialize_map(Members).ok()?;
            out.push('{');
            for (number, (name, member)) in members.into_iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                out.push_str(&serde_json::Value::from(name.as_str()).to_string());
                out.push(':');
                write(member, &within(Some(&name)), out)?;
            }
            out.push('}');
        }
        Some(b'[') => {
            let elements = reader.deserialize_seq(Elements).ok()?;
            out.push('[');
            for (number, element) in elements.into_iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                write(element, &within(None), out)?;
            }
            out.push(']');
        }
        // A classified member cannot be inside.
        _ => out.push_str(value.get()),
    }
    Some(())
}

/// The members of an object in their order, names that stand twice included.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

/// The elements of a list.
struct Elements;

impl<'de> Visitor<'de> for Elements {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = list.next_element()? {
            elements.push(element);
        }
        Ok(elements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classified(places: &[&str]) -> Classified {
        Classified {
            places: places.iter().map(|place| steps(place)).collect(),
        }
    }

    #[test]
    fn r165_f153_classified_values_are_masked_at_any_depth() {
        let classified = classified(&["email", "lines[].note", "who.name"]);
        let record =
            br#"{"id":1.50,"email":"a@b.c","email":{"x":1},"lines":[{"note":"n","sku": "s"},{"note":null},7],"who":{"name":["A"],"age":3}, "e":{}}"#;
        assert_eq!(
            classified.mask(record).unwrap(),
            r#"{"id":1.50,"email":"***","email":"***","lines":[{"note":"***","sku":"s"},{"note":null},7],"who":{"name":"***","age":3},"e":{}}"#
        );
        assert_eq!(
            classified.mask(br#"{"who":{},"lines":[]}"#).unwrap(),
            r#"{"who":{},"lines":[]}"#
        );
        assert_eq!(classified.mask(b"{ }").unwrap(), "{}");
        assert_eq!(classified.mask(b"[1]").unwrap(), "[1]");
    }

    #[test]
    fn what_cannot_be_read_is_shown_only_if_nothing_is_classified() {
        assert_eq!(classified(&["email"]).mask(b"{\"email\":"), None);
        assert_eq!(Classified::default().mask(b"{\"email\":").unwrap(), "{\"email\":");
    }

    #[test]
    fn an_excerpt_may_show_what_is_above_and_below() {
        let classified = classified(&["lines[].note"]);
        for path in ["lines[3].note", "lines[3].note.text", "lines[3]", "lines", ""] {
            assert!(classified.covers(path), "{path}");
        }
        for path in ["lines[3].sku", "note", "line"] {
            assert!(!classified.covers(path), "{path}");
        }
    }
}
