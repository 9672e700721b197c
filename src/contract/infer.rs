//! A first contract, drafted from sample records.
//!
//! It accepts every record it was drafted from, and promises no more than they show: nothing is required but the keys.

use std::collections::HashSet;

use super::{
    Coercion, Column, ColumnType, Contract, Rules, TimestampFormat,
    flatten::flatten,
    judge::{Judge, JudgeOptions},
    numbers::PRECISION_MAX,
    observed::{Counts, Kind, Note, Observed, PathId, ROOT},
    odcs::NAME_BYTES_MAX,
    plan,
};
use crate::config::{OnMismatch, OnUnknown, flatten::Flatten};

/// Most members of an object that become columns of their own. One with more is taken for a map and kept as JSON.
pub const MEMBERS_MAX: usize = 200;

/// Deepest objects and arrays that become columns of their own; what is deeper is kept as JSON.
pub const NESTING_MAX: usize = 8;

/// Most members of the record itself that become columns. The others are rescued.
pub const COLUMNS_MAX: usize = 2_000;

/// Drafts a contract from records; what is not a JSON object is passed over. `None` if nothing is left.
///
/// Text that is always a date or an RFC 3339 date-time becomes a date or a timestamp, mixed kinds become JSON. Members
/// whose names a table cannot use, or that differ in letter case only, get another name and keep their place as `path`.
///
/// ```
/// use landfall::contract::{ColumnType, infer::infer};
/// let records = [&br#"{"id": 1, "at": "2024-01-01T00:00:00Z"}"#[..], br#"{"id": 2.5}"#];
/// let contract = infer("orders", &["id".to_owned()], records.into_iter()).unwrap();
/// assert_eq!(contract.columns[0].kind, ColumnType::Number);
/// assert!(contract.columns[0].required);
/// ```
pub fn infer<'a>(id: &str, keys: &[String], records: impl Iterator<Item = &'a [u8]>) -> Option<Contract> {
    draft(id, keys, &Flatten::None, records).map(|(contract, _)| contract)
}

/// As [`infer`], with the members of the objects that `which` takes as columns, and with what was counted.
pub(crate) fn draft<'a>(
    id: &str,
    keys: &[String],
    which: &Flatten,
    records: impl Iterator<Item = &'a [u8]>,
) -> Option<(Contract, Observed)> {
    let mut contract = Contract {
        id: id.to_owned(),
        version: "0.1.0".to_owned(),
        status: "draft".to_owned(),
        columns: Vec::new(),
        quality: Vec::new(),
    };
    let options = JudgeOptions {
        keys: Vec::new(),
        sequence_by: Vec::new(),
        on_unknown: OnUnknown::Ignore,
        on_mismatch: OnMismatch::Quarantine,
        record_bytes_max: usize::MAX,
    };
    let mut judging = Judge::inspecting(&contract, options).ok()?.start();
    for record in records {
        judging.push(record);
    }
    let observed = judging.into_observed();
    let draft = Draft::new(&observed);
    contract.columns = flatten(draft.columns(ROOT, 0), which);
    for column in &mut contract.columns {
        column.primary_key = keys.contains(&column.name);
        column.required = column.primary_key;
    }
    (!contract.columns.is_empty()).then_some((contract, observed))
}

/// What the records of an observation show.
pub(crate) struct Draft<'a> {
    observed: &'a Observed,
    /// By path, what is directly in it, in the order of first sight.
    children: Vec<Vec<PathId>>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(observed: &'a Observed) -> Self {
        let mut children = vec![Vec::new(); observed.len()];
        for (id, counts) in observed.iter().filter(|&(id, _)| id != ROOT) {
            if counts.seen() > 0 {
                children[observed.parent(id) as usize].push(id);
            }
        }
        Self { observed, children }
    }

    fn columns(&self, parent: PathId, depth: usize) -> Vec<Column> {
        let mut names = HashSet::new();
        let members = &self.children[parent as usize];
        let named = members
            .iter()
            .take(COLUMNS_MAX)
            .filter_map(|&id| Some((id, self.observed.name(id)?)));
        named
            .map(|(id, name)| Column {
                path: vec![name.to_owned()],
                ..column(free_name(name, parent == ROOT, &mut names), self.kind(id, depth))
            })
            .collect()
    }

    /// The type of the values at a path, so many levels below the record.
    pub(crate) fn kind(&self, id: PathId, depth: usize) -> ColumnType {
        let Some(counts) = self.observed.counts(id) else {
            return ColumnType::Json;
        };
        let kinds = Kind::ALL
            .into_iter()
            .filter(|&kind| kind != Kind::Null && counts.of(kind) > 0);
        match kinds.collect::<Vec<_>>()[..] {
            [Kind::String] => text(counts),
            [Kind::Integer] if counts.note(Note::Big) == 0 => ColumnType::Integer,
            [Kind::Integer] if counts.note(Note::NoDecimal) == 0 => ColumnType::Decimal {
                precision: PRECISION_MAX,
                scale: 0,
            },
            [Kind::Number] | [Kind::Integer, Kind::Number] if counts.note(Note::NoDouble) == 0 => {
                ColumnType::Number
            }
            [Kind::Boolean] => ColumnType::Boolean,
            [Kind::Object] if depth < NESTING_MAX => {
                let members = &self.children[id as usize];
                if members.is_empty() || members.len() > MEMBERS_MAX {
                    return ColumnType::Json;
                }
                ColumnType::Object(self.columns(id, depth + 1))
            }
            [Kind::Array] if depth < NESTING_MAX => match self.children[id as usize][..] {
                [element] => {
                    let kind = self.kind(element, depth + 1);
                    ColumnType::Array(Box::new(Column {
                        path: Vec::new(),
                        ..column("element".to_owned(), kind)
                    }))
                }
                _ => ColumnType::Json,
            },
            // Nothing but null, or mixed kinds, or numbers that no type holds.
            _ => ColumnType::Json,
        }
    }
}

fn text(counts: &Counts) -> ColumnType {
    let strings = counts.of(Kind::String);
    if counts.note(Note::Moment) == strings {
        ColumnType::Timestamp(TimestampFormat::Rfc3339)
    } else if counts.note(Note::Date) == strings {
        ColumnType::Date
    } else {
        ColumnType::String
    }
}

/// A column of which nothing is known but its name and type.
pub(crate) fn column(name: String, kind: ColumnType) -> Column {
    Column {
        path: vec![name.clone()],
        name,
        kind,
        required: false,
        primary_key: false,
        coercion: Coercion::Lossless,
        rules: Rules::default(),
        on_mismatch: None,
        on_unknown: None,
        classification: None,
        description: None,
    }
}

/// A name for a member's column that tables and SQL can hold and no other column has, whatever the letter case.
pub(crate) fn free_name(member: &str, top: bool, taken: &mut HashSet<String>) -> String {
    let is_bad =
        |letter: char| letter.is_control() || letter.is_whitespace() || " ,;{}()=.\"'`\\[]/".contains(letter);
    let mut name = member.replace(is_bad, "_");
    if name.is_empty() {
        "unnamed".clone_into(&mut name);
    }
    if top && plan::is_reserved(&name) {
        name.insert_str(0, "source");
    }
    let cut = |bytes_max: usize| &name[..name.floor_char_boundary(bytes_max)];
    let mut free = cut(NAME_BYTES_MAX).to_owned();
    for number in 2_u64.. {
        if taken.insert(free.to_lowercase()) {
            break;
        }
        let suffix = format!("_{number}");
        free = format!("{}{suffix}", cut(NAME_BYTES_MAX - suffix.len()));
    }
    free
}

#[cfg(test)]
pub(in crate::contract) mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::contract::{
        evidence::{Guesses, study},
        judge::{Judged, tests::properties::any_json},
        odcs::parse,
    };

    fn drafted(records: &[&str]) -> Option<Contract> {
        infer(
            "t",
            &["id".to_owned()],
            records.iter().map(|record| record.as_bytes()),
        )
    }

    fn judge(contract: &Contract, records: &[String]) -> Judged {
        let options = JudgeOptions {
            keys: Vec::new(),
            sequence_by: Vec::new(),
            on_unknown: OnUnknown::Quarantine,
            on_mismatch: OnMismatch::Quarantine,
            record_bytes_max: usize::MAX,
        };
        let mut judging = Judge::new(contract, options).unwrap().start();
        records.iter().for_each(|record| judging.push(record.as_bytes()));
        judging.finish().unwrap()
    }

    pub(in crate::contract) fn describe(columns: &[Column]) -> String {
        let mut text = String::new();
        for column in columns {
            write!(text, "{}", column.name).unwrap();
            if column.path != [column.name.clone()] {
                write!(text, "={:?}", column.path).unwrap();
            }
            writeln!(
                text,
                " {}{}",
                describe_kind(&column.kind),
                if column.required { "!" } else { "" }
            )
            .unwrap();
        }
        text
    }

    fn describe_kind(kind: &ColumnType) -> String {
        match kind {
            ColumnType::Object(columns) => {
                format!("{{{}}}", describe(columns).trim_end().replace('\n', ", "))
            }
            ColumnType::Array(element) => format!("[{}]", describe_kind(&element.kind)),
            kind => plan::words(kind),
        }
    }

    #[test]
    fn a_draft_says_what_the_records_show() {
        let records = [
            r#"{"id":1,"name":"a","n":1,"x":1.5,"day":"2024-01-01","at":"2024-01-01T00:00:00Z","big":9223372036854775808}"#,
            r#"{"id":2,"n":2.5,"x":"t","ok":true,"none":null,"day":"2024-02-01","a":{"b":{"c":[1,2]},"d":[]},"many":[{"k":1},{"l":"s"}]}"#,
            r#"{"id":3,"huge":1234567890123456789012345678901234567890,"odd":9007199254740993,"odds":0.1,"empty":{}}"#,
            r#"{"id":4,"odds":9007199254740993,"some":"2024-01-01","mixed":[1,"a"]}"#,
            r#"{"id":5,"some":"2024-01-01T00:00:00Z"}"#,
            "not json",
            "[]",
        ];
        insta::assert_snapshot!(describe(&drafted(&records).unwrap().columns), @r#"
        id integer!
        name string
        n number
        x any value
        day date
        at timestamp (RFC 3339)
        big decimal(38,0)
        ok boolean
        none any value
        a {b {c [integer]}, d any value}
        many [{k integer, l string}]
        huge any value
        odd integer
        odds any value
        empty any value
        some string
        mixed [any value]
        "#);
    }

    #[test]
    fn f133_names_a_table_cannot_use_are_replaced_and_keep_their_place() {
        let record = r#"{"id":1,"ID":2,"Id":3,"_rescued":4,"_lf_batch":5,"_Deleted":6,"a b":7,"a.b":8,"":9,"été":10,"o":{"k":1,"K":2,"_deleted":3},"x;DROP TABLE t":1}"#;
        insta::assert_snapshot!(describe(&drafted(&[record]).unwrap().columns), @r#"
        id integer!
        ID_2=["ID"] integer
        Id_3=["Id"] integer
        source_rescued=["_rescued"] integer
        source_lf_batch=["_lf_batch"] integer
        source_Deleted=["_Deleted"] integer
        a_b=["a b"] integer
        a_b_2=["a.b"] integer
        unnamed=[""] integer
        été integer
        o {k integer, K_2=["K"] integer, _deleted integer}
        x_DROP_TABLE_t=["x;DROP TABLE t"] integer
        "#);
    }

    #[test]
    fn f133_a_name_that_is_too_long_is_cut_and_stays_one_of_its_own() {
        let long = "é".repeat(150);
        let record = format!(r#"{{"{long}1":1,"{long}2":{{"{long}3":1,"{long}4":2}}}}"#);
        let study = study(
            "t",
            &[],
            &Flatten::None,
            [record.as_bytes()].into_iter(),
            Guesses::Suggested,
        );
        let contract = parse(&study.unwrap().file("t").text, "c.yaml").unwrap();
        let names: Vec<&str> = contract
            .columns
            .iter()
            .map(|column| column.name.as_str())
            .collect();
        let (whole, less) = ("é".repeat(127), format!("{}_2", "é".repeat(126)));
        assert_eq!(names, [whole.as_str(), less.as_str()]);
        assert_eq!(judge(&contract, &[record]).violations, []);
    }

    #[test]
    fn nothing_comes_of_no_records() {
        assert_eq!(drafted(&[]), None);
        assert_eq!(drafted(&["", "[1]", "{}"]), None);
    }

    #[test]
    fn f134_a_map_and_deep_nesting_are_kept_as_json() {
        let members: Vec<String> = (0..=MEMBERS_MAX)
            .map(|day| format!(r#""d{day}":{day}"#))
            .collect();
        let record = format!(
            r#"{{"map":{{{}}},"deep":{}1{}}}"#,
            members.join(","),
            "[".repeat(12),
            "]".repeat(12)
        );
        let contract = drafted(&[&record]).unwrap();
        insta::assert_snapshot!(describe(&contract.columns), @"
        map any value
        deep [[[[[[[[any value]]]]]]]]
        ");
        assert_eq!(judge(&contract, &[record]).violations, []);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn a_draft_accepts_the_records_it_was_drafted_from(records in prop::collection::vec(any_json(), 1..6)) {
            let refused = |judged: &Judged| -> Vec<String> {
                let rows = judged.violations.iter().filter(|found| !found.violation.path.is_empty());
                rows.map(|found| format!("{:?}", found.violation)).collect()
            };
            // Records with a member twice are set aside by every contract.
            let empty = Contract { columns: Vec::new(), ..drafted(&[r#"{"a":1}"#]).unwrap() };
            let records: Vec<String> = records
                .into_iter()
                .filter(|record| !judge(&empty, std::slice::from_ref(record)).violations.iter().any(|found| {
                    found.violation.class == crate::contract::ViolationClass::DuplicateKey
                }))
                .collect();
            let lines = records.iter().map(String::as_bytes);
            let Some(study) = study("t", &[], &Flatten::None, lines, Guesses::Suggested) else { return Ok(()) };
            let contract = parse(&study.file("t").text, "c.yaml").unwrap();
            prop_assert_eq!(refused(&judge(&contract, &records)), Vec::<String>::new(), "{}", describe(&contract.columns));
        }
    }
}
