//! What speaks for each guess of a drafted contract: counts, formats of text, lists of values, candidates for the key.
//!
//! ```text
//! records ─ infer ─► types ─ judge ─► typed columns ─ count ─► Notes (suggestions), or rules if they are asked for
//! ```
//!
//! Formats, lists of values and required columns are only suggested: the next record may be the first that is different,
//! and would be set aside for a rule that nobody made. Keys are never more than suggested.

use std::{collections::HashMap, sync::LazyLock};

use arrow::array::{ArrayRef, AsArray as _};
use regex::Regex;
use serde_json::{Value, json};

use super::{
    Column, ColumnType, Contract, Rules,
    diff::below,
    infer,
    judge::{BATCH_BYTES_MAX, Judge, JudgeOptions},
    observed::{Counts, Kind, Note, Observed, PathId, ROOT},
    odcs::{
        self,
        write::{Notes, write_with},
    },
};
use crate::config::{OnMismatch, OnUnknown, flatten::Flatten};

/// Fewest values that make a list of values, or a column without gaps, more than chance.
pub const VALUES_MIN: u64 = 100;

/// Most different values that make a list; one is none.
pub const LIST_VALUES_MAX: usize = 20;

/// How often each value of a list occurs on average, at least.
pub const LIST_REPEATS_MIN: u64 = 10;

/// Longest text, in bytes, that is taken for one of a list.
const LIST_TEXT_BYTES_MAX: usize = 64;

/// Most different values that are told apart in a column.
const DISTINCT_MAX: usize = 200_000;

/// Fewest records that make a column without repetitions a candidate for the key.
const KEY_RECORDS_MIN: u64 = 10;

/// How many records may share a key on average: raw holds every version of a row.
const KEY_REPEATS_MAX: u64 = 4;

/// Most candidates for the key that are named.
const KEYS_MAX: usize = 5;

/// Formats of text with the patterns that tell them, most specific first.
const FORMATS: [(&str, &str); 3] = [
    (
        "uuid",
        "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$",
    ),
    ("email", r"^[^@\s]+@[^@\s]+\.[^@\s]+$"),
    ("uri", r"^[A-Za-z][A-Za-z0-9+.-]*://\S+$"),
];

static PATTERNS: LazyLock<Vec<(usize, Regex)>> = LazyLock::new(|| {
    let compiled = FORMATS.iter().enumerate();
    compiled
        .filter_map(|(at, (_, pattern))| Some((at, Regex::new(pattern).ok()?)))
        .collect()
});

/// What becomes of guesses beyond the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guesses {
    /// They are written beside the column, for somebody to decide. No record is refused for them.
    Suggested,
    /// Formats, lists of values and required columns become rules.
    Enforced,
}

/// A drafted contract with what speaks for it.
#[derive(Clone, Debug)]
pub struct Study {
    /// The contract. It accepts every record it was drafted from.
    pub contract: Contract,
    /// The counts behind it, by column.
    pub notes: Notes,
}

/// Drafts a contract from records as [`infer::infer`] does, with the members of the objects that `which` takes as columns,
/// and says what speaks for it; `None` without records.
///
/// ```
/// use landfall::{config::flatten::Flatten, contract::evidence::{Guesses, study}};
/// let records = [&br#"{"id": 1}"#[..], br#"{"id": 2, "mail": "a@b.example"}"#];
/// let study = study("people", &[], &Flatten::None, records.into_iter(), Guesses::Suggested).unwrap();
/// assert_eq!(
///     study.notes.columns["mail"],
///     r#"{"of":2,"present":1,"null":0,"kinds":{"string":1},"distinct":1,"formats":{"email":1}}"#,
/// );
/// ```
pub fn study<'a>(
    id: &str,
    keys: &[String],
    which: &Flatten,
    records: impl Iterator<Item = &'a [u8]> + Clone,
    guesses: Guesses,
) -> Option<Study> {
    study_within(id, keys, which, records, guesses, BATCH_BYTES_MAX)
}

/// As [`study`], with the values of so many bytes of records.
fn study_within<'a>(
    id: &str,
    keys: &[String],
    which: &Flatten,
    records: impl Iterator<Item = &'a [u8]> + Clone,
    guesses: Guesses,
    bytes_max: usize,
) -> Option<Study> {
    let (mut contract, observed) = infer::draft(id, keys, which, records.clone())?;
    let options = JudgeOptions {
        keys: Vec::new(),
        sequence_by: Vec::new(),
        on_unknown: OnUnknown::Ignore,
        on_mismatch: OnMismatch::Quarantine,
        record_bytes_max: usize::MAX,
    };
    let mut judging = Judge::new(&contract, options).ok()?.start();
    let mut is_whole = true;
    for record in records {
        // What does not fit one batch is not looked at closer; its types were counted.
        if judging.bytes() + record.len() > bytes_max {
            is_whole = false;
            break;
        }
        judging.push(record);
    }
    let judged = judging.finish().ok()?;
    let mut looking = Looking {
        observed: &observed,
        guesses,
        is_whole,
        notes: Notes::default(),
        keys: Vec::new(),
    };
    let arrays: Vec<ArrayRef> = judged.batch.columns().to_vec();
    looking.columns(&mut contract.columns, &arrays, ROOT, observed.records(), "");
    let Looking { mut notes, keys, .. } = looking;
    notes.table = Some(table_note(observed.records(), keys));
    Some(Study { contract, notes })
}

/// A contract as it stands in a file.
#[derive(Clone, Debug)]
pub struct Written {
    /// The contract that is read from it.
    pub contract: Contract,
    /// The file.
    pub text: String,
}

impl Study {
    /// The contract for the stream the user knows as `stream`, as a file that can be read again: one that would hold more
    /// than a file may is written without notes, and then with the deepest objects and lists as JSON.
    pub fn file(self, stream: &str) -> Written {
        let Self { mut contract, notes } = self;
        let is_read = |text: &str, contract: &Contract| {
            odcs::parse(text, stream).is_ok_and(|read| read.columns == contract.columns)
        };
        let mut text = write_with(&contract, stream, &notes);
        for depth in (0..=infer::NESTING_MAX).rev() {
            if is_read(&text, &contract) {
                break;
            }
            keep_shallow(&mut contract.columns, depth);
            text = write_with(&contract, stream, &Notes::default());
        }
        Written { contract, text }
    }
}

/// Makes JSON of objects and lists with more than `depth` levels of objects and lists around.
fn keep_shallow(columns: &mut [Column], depth: usize) {
    for column in columns {
        match &mut column.kind {
            ColumnType::Object(_) | ColumnType::Array(_) if depth == 0 => {
                column.kind = ColumnType::Json;
                column.rules = Rules::default();
            }
            ColumnType::Object(members) => keep_shallow(members, depth - 1),
            ColumnType::Array(element) => keep_shallow(std::slice::from_mut(element), depth - 1),
            _ => {}
        }
    }
}

struct Looking<'a> {
    observed: &'a Observed,
    guesses: Guesses,
    /// Whether the values of all records are known: another one may not be in a list of them.
    is_whole: bool,
    notes: Notes,
    keys: Vec<Candidate>,
}

/// A column that could be the key.
struct Candidate {
    name: String,
    distinct: u64,
}

/// What the values of one column are like.
#[derive(Default)]
struct Values {
    /// Different values with their counts; `None` if there are too many.
    distinct: Option<HashMap<String, u64>>,
    /// By the number of the format.
    formats: [u64; FORMATS.len()],
}

impl Looking<'_> {
    /// `objects`: how many times the enclosing object was there.
    fn columns(
        &mut self,
        columns: &mut [Column],
        arrays: &[ArrayRef],
        parent: PathId,
        objects: u64,
        path: &str,
    ) {
        for (column, array) in columns.iter_mut().zip(arrays) {
            let found = column
                .path
                .iter()
                .try_fold(parent, |at, name| self.observed.member(at, name));
            if let Some(id) = found {
                let path = below(path, &column.name);
                self.column(column, array, id, objects, &path);
            }
        }
    }

    fn column(&mut self, column: &mut Column, array: &ArrayRef, id: PathId, of: u64, path: &str) {
        let Some(counts) = self.observed.counts(id) else {
            return;
        };
        let values = Values::of(column, array);
        let list = values.list(column, counts).filter(|_| self.is_whole);
        let format = values.format(counts);
        let is_gapless = of >= VALUES_MIN && counts.seen() == of && counts.of(Kind::Null) == 0;
        if self.guesses == Guesses::Enforced {
            column.required |= is_gapless && !column.path.is_empty();
            if let Some(list) = &list {
                column.rules.allowed = Some(list.clone());
            } else if let Some(format) = format.filter(|_| counts.of(Kind::String) >= VALUES_MIN) {
                column.rules.pattern = Some(FORMATS[format].1.to_owned());
            }
        }
        let mut note = format!(
            r#"{{"of":{of},"present":{},"null":{},"kinds":{}"#,
            counts.seen(),
            counts.of(Kind::Null),
            kinds(counts)
        );
        if let Some(distinct) = &values.distinct {
            note.push_str(&format!(r#","distinct":{}"#, distinct.len()));
        }
        if let Some(formats) = values.formats_note(counts) {
            note.push_str(&format!(r#","formats":{formats}"#));
        }
        if let Some(list) = &list {
            note.push_str(&format!(r#","enum":[{}]"#, list.join(",")));
        }
        if is_gapless && !column.required {
            note.push_str(r#","required":true"#);
        }
        note.push('}');
        self.notes.columns.insert(path.to_owned(), note);
        self.key(column, &values, counts, of, path);
        match &mut column.kind {
            ColumnType::Object(columns) => {
                let children = array.as_struct().columns().to_vec();
                self.columns(columns, &children, id, counts.of(Kind::Object), path);
            }
            ColumnType::Array(element) => {
                if let Some(id) = self.observed.element(id) {
                    let elements = self.observed.counts(id).map_or(0, Counts::seen);
                    let children = array.as_list::<i32>().values();
                    self.column(element, children, id, elements, &format!("{path}[]"));
                }
            }
            _ => {}
        }
    }

    fn key(&mut self, column: &Column, values: &Values, counts: &Counts, of: u64, path: &str) {
        let (ColumnType::String | ColumnType::Integer, Some(distinct)) = (&column.kind, &values.distinct)
        else {
            return;
        };
        let distinct = distinct.len() as u64;
        let is_whole = of >= KEY_RECORDS_MIN && counts.seen() == of && counts.of(Kind::Null) == 0;
        let sounds_so = ["id", "key", "uuid", "guid", "code", "number"]
            .iter()
            .any(|word| column.name.to_lowercase().ends_with(word));
        let repeats_max = if sounds_so { KEY_REPEATS_MAX } else { 1 };
        if path == below("", &column.name) && is_whole && distinct * repeats_max >= of {
            self.keys.push(Candidate {
                name: column.name.clone(),
                distinct,
            });
        }
    }
}

impl Values {
    fn of(column: &Column, array: &ArrayRef) -> Self {
        let mut values = Self::default();
        match column.kind {
            ColumnType::String => {
                let mut distinct = Some(HashMap::new());
                for text in array.as_string::<i32>().iter().flatten() {
                    count(&mut distinct, text);
                    if let Some((format, _)) = PATTERNS.iter().find(|(_, pattern)| pattern.is_match(text)) {
                        values.formats[*format] += 1;
                    }
                }
                values.distinct = distinct;
            }
            ColumnType::Integer => {
                let mut distinct = Some(HashMap::new());
                let numbers = array.as_primitive::<arrow::datatypes::Int64Type>();
                for number in numbers.iter().flatten() {
                    count(&mut distinct, &number.to_string());
                }
                values.distinct = distinct;
            }
            _ => {}
        }
        values
    }

    /// The values of text that looks like one of a list, as JSON text, in their order.
    fn list(&self, column: &Column, counts: &Counts) -> Option<Vec<String>> {
        let distinct = self
            .distinct
            .as_ref()
            .filter(|_| column.kind == ColumnType::String)?;
        let strings = counts.of(Kind::String);
        let is_list = (2..=LIST_VALUES_MAX).contains(&distinct.len())
            && strings >= VALUES_MIN
            && strings >= LIST_REPEATS_MIN * distinct.len() as u64
            && distinct
                .iter()
                .all(|(text, &count)| text.len() <= LIST_TEXT_BYTES_MAX && count > 1);
        let mut list: Vec<String> = distinct.keys().map(|text| json!(text).to_string()).collect();
        list.sort();
        is_list.then_some(list)
    }

    /// The format that every text has.
    fn format(&self, counts: &Counts) -> Option<usize> {
        let strings = counts.of(Kind::String);
        self.formats
            .iter()
            .position(|&count| count == strings && count > 0)
    }

    fn formats_note(&self, counts: &Counts) -> Option<Value> {
        let known = FORMATS.iter().map(|(name, _)| *name).zip(self.formats);
        let times = [
            ("date-time", counts.note(Note::Moment)),
            ("date", counts.note(Note::Date)),
        ];
        let found: serde_json::Map<String, Value> = known
            .chain(times)
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| (name.to_owned(), count.into()))
            .collect();
        (!found.is_empty()).then_some(Value::Object(found))
    }
}

/// Counts a value, or gives up if there are too many.
fn count(distinct: &mut Option<HashMap<String, u64>>, value: &str) {
    let Some(known) = distinct else { return };
    if let Some(count) = known.get_mut(value) {
        *count += 1;
    } else if known.len() < DISTINCT_MAX {
        known.insert(value.to_owned(), 1);
    } else {
        *distinct = None;
    }
}

fn kinds(counts: &Counts) -> String {
    let seen = Kind::ALL
        .iter()
        .filter(|&&kind| kind != Kind::Null && counts.of(kind) > 0);
    let words: Vec<String> = seen
        .map(|&kind| format!(r#""{}":{}"#, kind.as_str(), counts.of(kind)))
        .collect();
    format!("{{{}}}", words.join(","))
}

fn table_note(records: u64, mut keys: Vec<Candidate>) -> String {
    keys.sort_by_key(|candidate| std::cmp::Reverse(candidate.distinct));
    let keys: Vec<String> = keys
        .iter()
        .take(KEYS_MAX)
        .map(|Candidate { name, distinct }| format!(r#"{{"column":{},"distinct":{distinct}}}"#, json!(name)))
        .collect();
    format!(r#"{{"records":{records},"keys":[{}]}}"#, keys.join(","))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::contract::{
        compat::tests::{Dice, any_contract, judge, record},
        odcs::parse,
    };

    fn orders(count: usize) -> Vec<String> {
        let one = |n: usize| {
            let status = ["open", "paid", "lost"][n % 3];
            let mail = if n.is_multiple_of(4) {
                "null".to_owned()
            } else {
                format!(r#""u{n}@shop.example""#)
            };
            format!(
                r#"{{"id":{n},"ref":"00000000-0000-4000-8000-{n:012}","status":"{status}","mail":{mail},"day":"2024-01-0{}","lines":[{{"sku":"s{}","kind":"a"}},{{"sku":"t"}}],"site":"https://shop.example/{n}"}}"#,
                1 + n % 9,
                n % 7
            )
        };
        (0..count).map(one).collect()
    }

    fn studied(records: &[String], guesses: Guesses) -> Study {
        study(
            "shop.orders",
            &[],
            &Flatten::None,
            records.iter().map(String::as_bytes),
            guesses,
        )
        .unwrap()
    }

    #[test]
    fn every_guess_stands_beside_its_counts() {
        let Study { contract, notes } = studied(&orders(200), Guesses::Suggested);
        insta::assert_snapshot!(write_with(&contract, "shop.orders", &notes), @r#"
        apiVersion: v3.1.0
        kind: DataContract
        id: "shop.orders"
        version: "0.1.0"
        status: draft
        schema:
          - name: "shop.orders"
            logicalType: object
            physicalType: table
            customProperties:
              - property: inferred
                value: {"records":200,"keys":[{"column":"id","distinct":200},{"column":"ref","distinct":200},{"column":"site","distinct":200}]}
            properties:
              - name: id
                logicalType: integer
                customProperties:
                  - property: inferred
                    value: {"of":200,"present":200,"null":0,"kinds":{"integer":200},"distinct":200,"required":true}
              - name: ref
                logicalType: string
                customProperties:
                  - property: inferred
                    value: {"of":200,"present":200,"null":0,"kinds":{"string":200},"distinct":200,"formats":{"uuid":200},"required":true}
              - name: status
                logicalType: string
                customProperties:
                  - property: inferred
                    value: {"of":200,"present":200,"null":0,"kinds":{"string":200},"distinct":3,"enum":["lost","open","paid"],"required":true}
              - name: mail
                logicalType: string
                customProperties:
                  - property: inferred
                    value: {"of":200,"present":200,"null":50,"kinds":{"string":150},"distinct":150,"formats":{"email":150}}
              - name: day
                logicalType: date
                customProperties:
                  - property: inferred
                    value: {"of":200,"present":200,"null":0,"kinds":{"string":200},"formats":{"date":200},"required":true}
              - name: lines
                logicalType: array
                customProperties:
                  - property: inferred
                    value: {"of":200,"present":200,"null":0,"kinds":{"array":200},"required":true}
                items:
                  logicalType: object
                  customProperties:
                    - property: inferred
                      value: {"of":400,"present":400,"null":0,"kinds":{"object":400},"required":true}
                  properties:
                    - name: sku
                      logicalType: string
                      customProperties:
                        - property: inferred
                          value: {"of":400,"present":400,"null":0,"kinds":{"string":400},"distinct":8,"enum":["s0","s1","s2","s3","s4","s5","s6","t"],"required":true}
                    - name: kind
                      logicalType: string
                      customProperties:
                        - property: inferred
                          value: {"of":400,"present":200,"null":0,"kinds":{"string":200},"distinct":1}
              - name: site
                logicalType: string
                customProperties:
                  - property: inferred
                    value: {"of":200,"present":200,"null":0,"kinds":{"string":200},"distinct":200,"formats":{"uri":200},"required":true}
        "#);
    }

    #[test]
    fn guesses_become_rules_only_when_they_are_asked_for() {
        let records = orders(200);
        let strict = studied(&records, Guesses::Enforced);
        let (strict_text, loose) = (
            write_with(&strict.contract, "shop.orders", &strict.notes),
            studied(&records, Guesses::Suggested).contract,
        );
        assert_eq!(parse(&strict_text, "c.yaml").unwrap(), strict.contract);
        let next = r#"{"id":1,"ref":"x","status":"new","mail":"none"}"#;
        let refused = |contract: &Contract| {
            let mut judging = judge(contract, OnUnknown::Quarantine).unwrap().start();
            judging.push(next.as_bytes());
            let found = judging.finish().unwrap().violations;
            found
                .iter()
                .map(|found| format!("{} {}", found.violation.path, found.violation.class))
                .collect::<Vec<_>>()
        };
        assert_eq!(refused(&loose), Vec::<String>::new());
        insta::assert_snapshot!(refused(&strict.contract).join("\n"), @r#"
        ref pattern
        status enum
        mail pattern
        day required_missing
        lines required_missing
        site required_missing
        "#);
    }

    #[test]
    fn f134_a_draft_too_large_for_a_file_is_written_smaller_and_read_again() {
        // 9,000 columns, each with a note of about a dozen values.
        let member = |number: usize| {
            let inner: Vec<String> = (0..179).map(|inner| format!(r#""m{inner}":{{"x":1}}"#)).collect();
            format!(r#""o{number}":{{{}}}"#, inner.join(","))
        };
        let members: Vec<String> = (0..25).map(member).collect();
        let record = format!(r#"{{"id":1,{}}}"#, members.join(","));
        let records = [record];
        let study = studied(&records, Guesses::Suggested);
        assert!(parse(&write_with(&study.contract, "t", &study.notes), "c.yaml").is_err());
        let Written { contract, text } = study.file("t");
        assert_eq!(parse(&text, "c.yaml").unwrap().columns, contract.columns);
        assert_eq!(contract.columns.len(), 26);
        let mut judging = judge(&contract, OnUnknown::Quarantine).unwrap().start();
        judging.push(records[0].as_bytes());
        assert_eq!(judging.finish().unwrap().violations, []);
        // A small one keeps all of it.
        let Study { contract, notes } = studied(&orders(3), Guesses::Suggested);
        let expected = write_with(&contract, "t", &notes);
        assert_eq!(Study { contract, notes }.file("t").text, expected);
    }

    #[test]
    fn no_list_is_made_of_some_of_the_values() {
        let mut records = orders(200);
        let bytes_max = records.iter().map(String::len).sum();
        records.push(r#"{"id":201,"status":"rare"}"#.to_owned());
        let refused = |bytes_max: usize| {
            let lines = records.iter().map(String::as_bytes);
            let study = study_within("t", &[], &Flatten::None, lines, Guesses::Enforced, bytes_max).unwrap();
            let mut judging = judge(&study.contract, OnUnknown::Quarantine).unwrap().start();
            records.iter().for_each(|record| judging.push(record.as_bytes()));
            judging.finish().unwrap().violations.len()
        };
        assert_eq!(refused(bytes_max), 0);
        assert_eq!(refused(usize::MAX), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn a_strict_draft_accepts_the_records_it_was_drafted_from(seed in any::<u64>()) {
            let mut dice = Dice(seed);
            let contract = any_contract(&mut dice);
            let count = 1 + dice.roll(150);
            let records: Vec<String> = (0..count).map(|_| record(&mut dice, &contract)).collect();
            for guesses in [Guesses::Suggested, Guesses::Enforced] {
                let Some(study) = study("t", &[], &Flatten::None, records.iter().map(String::as_bytes), guesses) else {
                    return Ok(());
                };
                let mut judging = judge(&study.contract, OnUnknown::Quarantine).unwrap().start();
                records.iter().for_each(|record| judging.push(record.as_bytes()));
                prop_assert_eq!(judging.finish().unwrap().violations, []);
                let text = write_with(&study.contract, "t", &study.notes);
                prop_assert_eq!(parse(&text, "c.yaml").unwrap(), study.contract);
            }
        }
    }
}
