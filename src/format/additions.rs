//! Members that records get on their way to the judge.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Map, Value};

use crate::{
    format::write,
    json::{
        self,
        scan::{Scanner, StringToken},
    },
};

/// What is put into the records of one page: values of its slice into all of them, others into single ones.
///
/// A member goes to the front of the record. One that the record has itself is left as it is: what the API says of a
/// record wins over what we know about the request. What is not an object gets nothing; the judge sets it aside.
///
/// ```
/// use landfall::format::additions::Additions;
/// let slice = serde_json::from_str(r#"{"order_id": 7, "since": "2024-01-01"}"#).unwrap();
/// let additions = Additions::of(&["order_id".to_owned()], Some(&slice));
/// let mut record = Vec::new();
/// additions.write(0, br#"{"id": 1}"#, &mut record);
/// assert_eq!(record, br#"{"order_id":7,"id": 1}"#);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Additions {
    all: Vec<Member>,
    single: BTreeMap<u64, Vec<Member>>,
}

/// A name and a value as JSON text.
#[derive(Clone, Debug)]
struct Member {
    name: String,
    value: Vec<u8>,
}

impl Additions {
    /// The values of `slice` that are named in `include`, in the order of the latter. A value that the slice of a page
    /// does not have is left out: it was landed before the stream was sliced like this.
    pub fn of(include: &[String], slice: Option<&Map<String, Value>>) -> Self {
        let value = |name: &String| slice?.get(name).map(|value| Member::new(name, value));
        Self {
            all: include.iter().filter_map(value).collect(),
            single: BTreeMap::new(),
        }
    }

    /// Adds a member to one record of the page only.
    pub fn add(&mut self, record: u64, name: &str, value: &Value) {
        self.single
            .entry(record)
            .or_default()
            .push(Member::new(name, value));
    }

    /// Whether every record stays as it is.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty() && self.single.is_empty()
    }

    /// Appends the `record`-th record of the page, whose text is `json`, with what is added to it.
    pub fn write(&self, record: u64, json: &[u8], out: &mut Vec<u8>) {
        let single = self.single.get(&record).into_iter().flatten();
        let members = self.all.iter().chain(single);
        inject(
            members.map(|member| (member.name.as_str(), member.value.as_slice())),
            json,
            out,
        );
    }
}

impl Member {
    fn new(name: &str, value: &Value) -> Self {
        Self {
            name: name.to_owned(),
            value: value.to_string().into_bytes(),
        }
    }
}

/// Appends `record` with `members`, each a name and a JSON text, in front of its own.
pub(super) fn inject<'m>(
    members: impl Iterator<Item = (&'m str, &'m [u8])> + Clone,
    record: &[u8],
    out: &mut Vec<u8>,
) {
    let (mut present, mut any) = (Vec::new(), false);
    let scanned = own_members(record, &mut |name| {
        any = true;
        let own = name_of(record, name);
        present.extend(members.clone().position(|(name, _)| own.as_deref() == Some(name)));
    });
    // Neither an object nor anything but white space before it: nothing to put a member into.
    let Some(start) = scanned else {
        return out.extend_from_slice(record);
    };
    out.extend_from_slice(&record[..start]);
    let mut first = true;
    for (index, (name, value)) in members.clone().enumerate() {
        let twice = members.clone().take(index).any(|(before, _)| before == name);
        if twice || present.contains(&index) {
            continue;
        }
        if !first {
            out.push(b',');
        }
        first = false;
        write::string(name.as_bytes(), out);
        out.push(b':');
        out.extend_from_slice(value);
    }
    if any && !first {
        out.push(b',');
    }
    out.extend_from_slice(&record[start..]);
}

/// Calls `visit` with the name of every member of an object, and returns the position behind its brace; `None` if it is
/// not an object, or a broken one.
fn own_members(record: &[u8], visit: &mut dyn FnMut(StringToken)) -> Option<usize> {
    let mut scanner = Scanner::new(record);
    scanner.blank();
    if scanner.peek() != b'{' {
        return None;
    }
    scanner.enter().ok()?;
    let start = scanner.at();
    let mut first = true;
    while let Some(name) = scanner.next_member(first).ok()? {
        first = false;
        visit(name);
        scanner.skip().ok()?;
    }
    Some(start)
}

fn name_of(record: &[u8], name: StringToken) -> Option<Cow<'_, str>> {
    json::text(&record[name.start - 1..name.end + 1])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn write(additions: &Additions, record: u64, json: &str) -> String {
        let mut out = Vec::new();
        additions.write(record, json.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn members_go_to_the_front_and_those_of_the_record_win() {
        let slice = json!({"a": 7, "b": "x\"y", "c": null, "unused": 1});
        let include = ["a", "b", "c", "absent"].map(str::to_owned);
        let additions = Additions::of(&include, slice.as_object());
        let table = [
            ("{\"id\":1}", r#"{"a":7,"b":"x\"y","c":null,"id":1}"#),
            (" {\n} ", " {\"a\":7,\"b\":\"x\\\"y\",\"c\":null\n} "),
            (
                r#"{"id":{"a":0}, "b":2}"#,
                r#"{"a":7,"c":null,"id":{"a":0}, "b":2}"#,
            ),
            (r#"{"\u0061":1,"b":2,"c":3}"#, r#"{"\u0061":1,"b":2,"c":3}"#),
            // What is no object stays as it is, and so does what is broken.
            ("[1]", "[1]"),
            ("7", "7"),
            ("", ""),
            (r#"{"id":"#, r#"{"id":"#),
            ("{} x", "{\"a\":7,\"b\":\"x\\\"y\",\"c\":null} x"),
        ];
        for (record, expected) in table {
            assert_eq!(write(&additions, 0, record), expected, "{record}");
        }
        assert!(Additions::of(&include, None).is_empty());
        assert!(Additions::of(&[], slice.as_object()).is_empty());
    }

    #[test]
    fn single_records_get_members_of_their_own() {
        let slice = json!({"a": 1});
        let mut additions = Additions::of(&["a".to_owned()], slice.as_object());
        additions.add(1, "file", &json!({"bytes": 3}));
        additions.add(1, "a", &json!(2));
        assert_eq!(write(&additions, 0, "{}"), r#"{"a":1}"#);
        assert_eq!(write(&additions, 1, "{}"), r#"{"a":1,"file":{"bytes":3}}"#);
    }
}
