//! What each registered version of a contract said anew, and where: whether drift seen under an older one is spoken to.

use serde::Deserialize;
use serde_json::{Value, json};

use super::diff::{Difference, What};

/// Differences that also say something about all that is in the column.
const SHAPES: [What; 5] = [
    What::ColumnAdded,
    What::ColumnRemoved,
    What::ColumnRenamed,
    What::ColumnMoved,
    What::TypeChanged,
];

/// The versions of one contract in the order in which they were registered.
#[derive(Clone, Debug, Default)]
pub struct Revisions {
    all: Vec<Revision>,
}

#[derive(Clone, Debug)]
struct Revision {
    version: String,
    changes: Vec<Touched>,
}

/// A difference to the version before, as far as it is read again.
#[derive(Clone, Debug, Deserialize)]
struct Touched {
    what: String,
    path: String,
    /// Where the columns read; rows written before it was kept do not have it.
    #[serde(default)]
    places: Vec<String>,
}

/// The differences to the version before, as the lake keeps them with a version: a JSON array.
pub fn to_json(differences: &[Difference]) -> String {
    let one = |one: &Difference| {
        json!({
            "what": one.what.as_str(),
            "path": one.path,
            "places": one.places,
            "before": one.before,
            "after": one.after,
            "compatible": one.compatible.as_str(),
        })
    };
    Value::from_iter(differences.iter().map(one)).to_string()
}

impl Revisions {
    /// Adds the next version. `changes` are its differences to the one before as [`to_json`] writes them; what cannot be
    /// read changed nothing.
    pub fn push(&mut self, version: String, changes: &str) {
        let changes = serde_json::from_str(changes).unwrap_or_default();
        self.all.push(Revision { version, changes });
    }

    /// Whether a version behind the last one called `after`, up to the last one called `until`, says something else about
    /// the values at `path`, such as `lines[].price`, or about what they are in. Not if one of the two is not known.
    ///
    /// ```
    /// use landfall::contract::{diff::diff, infer::infer, revisions::{Revisions, to_json}};
    /// let draft = |record: &str| infer("orders", &[], [record.as_bytes()].into_iter()).unwrap();
    /// let (old, new) = (draft(r#"{"id": 1}"#), draft(r#"{"id": 1, "note": {"text": "x"}}"#));
    /// let mut revisions = Revisions::default();
    /// revisions.push("1.0.0".to_owned(), "[]");
    /// revisions.push("1.1.0".to_owned(), &to_json(&diff(&old, &new)));
    /// assert!(revisions.changed("note.text", "1.0.0", "1.1.0"));
    /// assert!(!revisions.changed("id", "1.0.0", "1.1.0"));
    /// assert!(!revisions.changed("note", "1.1.0", "1.1.0"));
    /// ```
    pub fn changed(&self, path: &str, after: &str, until: &str) -> bool {
        let last = |version: &str| self.all.iter().rposition(|one| one.version == version);
        let (Some(after), Some(until)) = (last(after), last(until)) else {
            return false;
        };
        let behind = self.all.get(after + 1..=until).unwrap_or_default();
        behind
            .iter()
            .flat_map(|revision| &revision.changes)
            .any(|touched| touched.speaks_of(path))
    }
}

impl Touched {
    fn speaks_of(&self, path: &str) -> bool {
        let is_one_of = |these: &[What]| these.iter().any(|what| what.as_str() == self.what);
        if is_one_of(&What::WORDS) {
            return false;
        }
        let is_shape = is_one_of(&SHAPES);
        let is_at = |place: &String| {
            path.strip_prefix(place.as_str())
                .is_some_and(|rest| rest.is_empty() || (is_shape && rest.starts_with(['.', '['])))
        };
        if self.places.is_empty() {
            is_at(&self.path)
        } else {
            self.places.iter().any(is_at)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Contract, diff::diff, judge::tests::contract};

    fn revisions(texts: &[(&str, &str)]) -> Revisions {
        let contracts: Vec<Contract> = texts.iter().map(|(_, columns)| contract(columns)).collect();
        let mut revisions = Revisions::default();
        for (number, (version, _)) in texts.iter().enumerate() {
            let before = &contracts[number.saturating_sub(1)];
            revisions.push((*version).to_owned(), &to_json(&diff(before, &contracts[number])));
        }
        revisions
    }

    #[test]
    fn only_a_version_that_changes_what_is_said_of_a_path_speaks_to_its_drift() {
        let revisions = revisions(&[
            (
                "1.0.0",
                "id integer; size integer; vip boolean! =in.vip; a address",
            ),
            (
                "1.1.0",
                "id integer; size integer; vip boolean! =in.vip; a address; remark string",
            ),
            (
                "2.0.0",
                "id integer; size json; vip boolean =in.vip; a address; remark string",
            ),
            (
                "3.0.0",
                "id integer; size json; vip boolean =out.vip; a json; remark string",
            ),
        ]);
        for (path, after, until, changed) in [
            ("remark", "1.0.0", "1.1.0", true),
            ("remark.text", "1.0.0", "1.1.0", true),
            ("size", "1.0.0", "1.1.0", false),
            ("size", "1.0.0", "2.0.0", true),
            ("size", "2.0.0", "3.0.0", false),
            // By the place in the record, not by the name of the column.
            ("in.vip", "1.1.0", "2.0.0", true),
            ("vip", "1.1.0", "2.0.0", false),
            // That it may be absent says nothing about what is in it.
            ("in.vip.x", "1.1.0", "2.0.0", false),
            ("out.vip", "2.0.0", "3.0.0", true),
            ("in.vip", "2.0.0", "3.0.0", true),
            ("a.lines[].sku", "2.0.0", "3.0.0", true),
            ("ab", "2.0.0", "3.0.0", false),
            ("size", "1.0.0", "9.9.9", false),
            ("size", "0.9.0", "3.0.0", false),
            ("size", "3.0.0", "1.0.0", false),
        ] {
            assert_eq!(
                revisions.changed(path, after, until),
                changed,
                "{path} {after} {until}"
            );
        }
    }

    #[test]
    fn words_speak_to_no_drift_and_older_rows_are_read() {
        let mut revisions = Revisions::default();
        revisions.push("1.0.0".to_owned(), "not json");
        let kept = r#"[{"what":"words_changed","path":"size"},{"what":"rule_changed","path":"rule a"}]"#;
        revisions.push("1.1.0".to_owned(), kept);
        assert!(!revisions.changed("size", "1.0.0", "1.1.0"));
        assert!(revisions.changed("rule a", "1.0.0", "1.1.0"));
    }
}
