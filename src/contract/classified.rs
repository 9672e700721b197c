//! Which values of a record people may not see unasked: those of columns with an ODCS `classification` other than `public`.

use std::fmt;

use serde::{
    Deserializer as _,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    Column, ColumnType, Contract,
    patch::place::{Segment, segments},
    sample::MASK,
};

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
        let by_path = |column: &Column| column.path.clone();
        collect(&contract.columns, &[], &by_path, &mut places);
        Self { places }
    }

    /// Those that `contract` declares, by where they are in rows of its table: under the names of columns.
    pub fn of_columns(contract: &Contract) -> Self {
        let mut places = Vec::new();
        let by_name = |column: &Column| vec![column.name.clone()];
        collect(&contract.columns, &[], &by_name, &mut places);
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
    /// assert_eq!(classified.mask(br#"{"id":1,"name":"Ada"}"#).unwrap(), r#"{"id":1,"name":"****"}"#);
    /// ```
    pub fn covers(&self, path: &str) -> bool {
        let steps = steps(path);
        self.places.iter().any(|place| {
            let differs = place.iter().zip(&steps).find(|(own, step)| own != step);
            // In a value of another shape than declared whatever is classified may be anywhere.
            differs.is_none_or(|(own, step)| own.is_some() != step.is_some())
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

    /// The text of one `member` of a record or row, masked as far as it is classified; what has classified values in it is
    /// JSON, or masked as a whole.
    ///
    /// ```
    /// # use landfall::contract::classified::Classified;
    /// assert_eq!(Classified::default().mask_member("name", "Ada"), "Ada");
    /// ```
    pub fn mask_member(&self, member: &str, text: &str) -> String {
        let of_member =
            |place: &&Vec<Option<String>>| place.first().and_then(Option::as_deref) == Some(member);
        let places: Vec<&[Option<String>]> = self
            .places
            .iter()
            .filter(of_member)
            .map(|place| &place[1..])
            .collect();
        if places.is_empty() {
            return text.to_owned();
        }
        let inside = || {
            let value: &RawValue = serde_json::from_str(text).ok()?;
            let mut masked = String::new();
            write(value, &places, &mut masked)?;
            Some(masked)
        };
        let is_whole = places.iter().any(|place| place.is_empty());
        (!is_whole)
            .then(inside)
            .flatten()
            .unwrap_or_else(|| MASK.to_owned())
    }

    /// What was rescued of a record, a JSON object from path to value, without classified values.
    pub fn mask_rescued(&self, text: &str) -> String {
        let members = serde_json::Deserializer::from_str(text).deserialize_map(Members);
        let Ok(members) = members else {
            return MASK.to_owned();
        };
        let members = members.iter().map(|(path, value)| {
            let value = if self.covers(path) {
                serde_json::Value::from(MASK).to_string()
            } else {
                value.get().to_owned()
            };
            format!("{}:{value}", serde_json::Value::from(path.as_str()))
        });
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    }
}

fn collect(
    columns: &[Column],
    above: &[Option<String>],
    way: &dyn Fn(&Column) -> Vec<String>,
    places: &mut Vec<Vec<Option<String>>>,
) {
    for column in columns {
        let names = way(column).into_iter().map(Some);
        let mut place: Vec<Option<String>> = above.iter().cloned().chain(names).collect();
        let mut column = column;
        // The element of a list has no name of its own.
        loop {
            if is_classified(column) {
                places.push(place);
                break;
            }
            match &column.kind {
                ColumnType::Array(element) => {
                    place.push(None);
                    column = element;
                }
                ColumnType::Object(members) => {
                    collect(members, &place, way, places);
                    break;
                }
                _ => break,
            }
        }
    }
}

/// Whether ODCS calls the values of a column anything but public.
pub(crate) fn is_classified(column: &Column) -> bool {
    column
        .classification
        .as_deref()
        .is_some_and(|class| !class.trim().eq_ignore_ascii_case("public"))
}

/// Whether a column or anything in it is classified.
pub(crate) fn has_classified(column: &Column) -> bool {
    is_classified(column)
        || match &column.kind {
            ColumnType::Object(members) => members.iter().any(has_classified),
            ColumnType::Array(element) => has_classified(element),
            _ => false,
        }
}

/// `lines[2].name` as its steps; a list position is `None`. A path that cannot be read has none, as that of the record.
fn steps(path: &str) -> Vec<Option<String>> {
    let segments = segments(path).unwrap_or_default();
    let step = |segment| match segment {
        Segment::Member(name) => Some(name),
        Segment::Element => None,
    };
    segments.into_iter().map(step).collect()
}

/// Writes `value` without what is at `places`, each seen from here; `None` if it cannot be read.
///
/// A value of another shape than declared is masked as a whole: nobody knows where in it the classified one is.
fn write(value: &RawValue, places: &[&[Option<String>]], out: &mut String) -> Option<()> {
    let first = value.get().as_bytes().first();
    if places.is_empty() || value.get() == "null" {
        out.push_str(value.get());
        return Some(());
    }
    let is_declared = |is_member: bool| places.iter().any(|place| place[0].is_some() == is_member);
    let is_open = places.iter().all(|place| !place.is_empty())
        && match first {
            Some(b'{') => is_declared(true),
            Some(b'[') => is_declared(false),
            _ => false,
        };
    if !is_open {
        out.extend(["\"", MASK, "\""]);
        return Some(());
    }
    let within = |step: Option<&str>| -> Vec<&[Option<String>]> {
        let inside = places.iter().filter(|place| place[0].as_deref() == step);
        inside.map(|place| &place[1..]).collect()
    };
    let mut reader = serde_json::Deserializer::from_str(value.get());
    match first {
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
        _ => {
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
            r#"{"id":1.50,"email":"****","email":"****","lines":[{"note":"****","sku":"s"},{"note":null},"****"],"who":{"name":"****","age":3},"e":{}}"#
        );
        assert_eq!(
            classified.mask(br#"{"who":{},"lines":[]}"#).unwrap(),
            r#"{"who":{},"lines":[]}"#
        );
        assert_eq!(classified.mask(b"{ }").unwrap(), "{}");
        assert_eq!(classified.mask(b"[1]").unwrap(), r#""****""#);
    }

    #[test]
    fn r165_f153_a_value_of_another_shape_shows_nothing_of_what_is_classified_in_it() {
        let classified = classified(&["customer.name", "lines[].note"]);
        for (record, masked) in [
            (r#"{"customer":[{"name":"Jane Doe"}]}"#, r#"{"customer":"****"}"#),
            (
                r#"{"customer":"{\"name\":\"Jane Doe\"}"}"#,
                r#"{"customer":"****"}"#,
            ),
            (
                r#"{"customer":null,"lines":{"note":"n"}}"#,
                r#"{"customer":null,"lines":"****"}"#,
            ),
            (
                r#"{"lines":[[{"note":"n"}]],"a":[1]}"#,
                r#"{"lines":["****"],"a":[1]}"#,
            ),
        ] {
            assert_eq!(classified.mask(record.as_bytes()).unwrap(), masked);
        }
        assert_eq!(
            classified.mask_member("customer", r#"[{"name":"J"}]"#),
            "\"****\""
        );
        for path in ["customer[0].name", "customer[0].age", "lines.note", "lines.x"] {
            assert!(classified.covers(path), "{path}");
        }
        assert!(!classified.covers("customer.age"));
    }

    #[test]
    fn r165_f153_a_path_with_quoted_names_is_covered_as_others_are() {
        let classified = Classified {
            places: vec![
                vec![Some("Home Address".to_owned())],
                vec![Some("who".to_owned()), None, Some("user.email".to_owned())],
                vec![Some("a[1]".to_owned())],
            ],
        };
        for path in [
            r#"["Home Address"]"#,
            r#"["Home Address"].city"#,
            r#"who[12]["user.email"]"#,
            r#"["a[1]"]"#,
        ] {
            assert!(classified.covers(path), "{path}");
        }
        for path in [
            r#"["Home"]"#,
            r#"who[12]["user.phone"]"#,
            r#"["a[2]"]"#,
            r#"["a[]"]"#,
        ] {
            assert!(!classified.covers(path), "{path}");
        }
        assert_eq!(
            classified.mask_rescued(r#"{"[\"Home Address\"].city":"Oslo","[\"a[1]\"]":1,"b":2}"#),
            r#"{"[\"Home Address\"].city":"****","[\"a[1]\"]":"****","b":2}"#
        );
    }

    #[test]
    fn r165_f153_a_row_is_masked_by_its_columns_and_what_was_rescued_by_its_paths() {
        let classified = classified(&["email", "lines[].note", "who.name"]);
        for (member, text, masked) in [
            ("email", "a@b.c", "****"),
            ("id", "1", "1"),
            ("who", r#"{"name":"A","age":3}"#, r#"{"name":"****","age":3}"#),
            (
                "lines",
                r#"[{"note":null},{"note":1}]"#,
                r#"[{"note":null},{"note":"****"}]"#,
            ),
            ("who", "not json", "****"),
        ] {
            assert_eq!(classified.mask_member(member, text), masked);
        }
        assert_eq!(
            classified.mask_rescued(r#"{"who.name.first":"A","lines[1].sku":2,"who":{"name":1}}"#),
            r#"{"who.name.first":"****","lines[1].sku":2,"who":"****"}"#
        );
    }

    #[test]
    fn what_cannot_be_read_is_shown_only_if_nothing_is_classified() {
        assert_eq!(classified(&["email"]).mask(b"{\"email\":"), None);
        assert_eq!(Classified::default().mask(b"{\"email\":").unwrap(), "{\"email\":");
    }

    #[test]
    fn an_excerpt_may_show_what_is_above_and_below() {
        let classified = classified(&["lines[].note"]);
        for path in [
            "lines[3].note",
            "lines[3].note.text",
            "lines[3]",
            "lines",
            "",
            "[\"odd",
        ] {
            assert!(classified.covers(path), "{path}");
        }
        for path in ["lines[3].sku", "note", "line"] {
            assert!(!classified.covers(path), "{path}");
        }
    }
}
