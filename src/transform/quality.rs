//! A contract's SQL rules, asked of judged rows.

use arrow::{
    array::{Array as _, AsArray as _, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::{DataType, Schema},
    util::display::{ArrayFormatter, FormatOptions},
};

use crate::{
    contract::{
        Column, ColumnType, Contract, Violation, ViolationClass,
        classified::is_classified,
        drift::{Change, ChangeKind, Effect},
        judge::{RESCUED, RowViolation},
        observed::write_name,
        quality::{self, OnBroken, QualityRule},
        sample::{self, MASK, Place, SAMPLES_MAX, Sample},
    },
    error::{Error, ErrorKind, Result},
    transform::condition::{Condition, Truth, Unfit},
};

/// Longest picture of a row that breaks a rule, in characters.
const FOUND_CHARS_MAX: usize = 80;

/// Longest picture of a rule, in characters.
const EXPECTED_CHARS_MAX: usize = 200;

/// The rules of a contract, compiled. None cost nothing.
#[derive(Clone, Debug)]
pub struct Quality {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    name: String,
    /// What stands for it in reports, where others have the path of a column.
    path: String,
    expected: String,
    on_broken: OnBroken,
    /// What is true of rows that break it.
    broken: Condition,
    /// What is shown of such a row.
    shown: Vec<Shown>,
}

/// A column whose values are shown.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    name: String,
    /// Its place in the schema.
    index: usize,
    /// Whether its text is JSON.
    json: bool,
    hidden: bool,
}

/// A rule that cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfitRule {
    /// Its name.
    pub rule: String,
    /// Why.
    pub unfit: Unfit,
}

/// How often rules were broken, in their order.
#[derive(Clone, Debug, Default)]
pub struct Breaks {
    /// Rows that were asked.
    asked: u64,
    rules: Vec<RuleBreaks>,
}

#[derive(Clone, Debug, Default)]
struct RuleBreaks {
    /// Rows for which it was false.
    untrue: u64,
    /// Rows that it could not be computed for.
    failed: u64,
    /// The first of both, in raw order.
    samples: Vec<Sample>,
}

impl Breaks {
    /// Adds those of another part of the load.
    pub fn merge(&mut self, other: Self) {
        self.asked += other.asked;
        self.rules
            .resize_with(self.rules.len().max(other.rules.len()), RuleBreaks::default);
        for (own, other) in self.rules.iter_mut().zip(other.rules) {
            own.untrue += other.untrue;
            own.failed += other.failed;
            own.samples.extend(other.samples);
            own.samples.sort_by_key(|sample| sample.at);
            own.samples.truncate(SAMPLES_MAX);
        }
    }
}

impl Quality {
    /// Compiles the rules of `contract` over the columns of `schema`.
    ///
    /// # Errors
    /// Every rule that cannot be compiled, in their order.
    pub fn new(contract: &Contract, schema: &Schema) -> Result<Self, Vec<UnfitRule>> {
        let (mut rules, mut wrong) = (Vec::new(), Vec::new());
        for rule in &contract.quality {
            match Condition::not(&rule.sql, schema) {
                Ok(broken) => rules.push(Rule {
                    name: rule.name.clone(),
                    path: quality::path(&rule.name),
                    expected: expected(rule),
                    on_broken: rule.on_broken,
                    shown: Shown::of(contract, schema, broken.columns()),
                    broken,
                }),
                Err(unfit) => wrong.push(UnfitRule {
                    rule: rule.name.clone(),
                    unfit,
                }),
            }
        }
        if wrong.is_empty() {
            Ok(Self { rules })
        } else {
            Err(wrong)
        }
    }

    /// Asks every rule of the rows of `judged` that `asked` names. Counts what is broken, with the places in raw that
    /// `place` knows, and returns why rows are to be set aside, in the order of rows.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if rows cannot be picked, which only a defect can cause.
    pub fn ask(
        &self,
        judged: &RecordBatch,
        asked: &[bool],
        place: impl Fn(usize) -> Option<Place>,
        breaks: &mut Breaks,
    ) -> Result<Vec<RowViolation>> {
        let numbers: Vec<usize> = (0..asked.len()).filter(|&row| asked[row]).collect();
        if self.rules.is_empty() || numbers.is_empty() {
            return Ok(Vec::new());
        }
        let rows = if numbers.len() == asked.len() {
            judged.clone()
        } else {
            filter_record_batch(judged, &BooleanArray::from(asked.to_vec()))
                .map_err(|source| Error::new(ErrorKind::Internal, "pick rows to ask").caused_by(source))?
        };
        breaks.asked += numbers.len() as u64;
        breaks.rules.resize_with(self.rules.len(), RuleBreaks::default);
        let mut violations = Vec::new();
        for (rule, counted) in self.rules.iter().zip(&mut breaks.rules) {
            let Truth { holds, failed } = rule.broken.truth(&rows);
            counted.untrue += holds.true_count() as u64;
            counted.failed += failed.len() as u64;
            let failed: Vec<usize> = failed.into_iter().map(|(row, _)| row).collect();
            for (row, &number) in numbers.iter().enumerate() {
                let has_failed = failed.binary_search(&row).is_ok();
                if !holds.value(row) && !has_failed {
                    continue;
                }
                let refuses = rule.on_broken != OnBroken::Warn;
                if !refuses && counted.samples.len() >= SAMPLES_MAX {
                    continue;
                }
                let found = rule.found(&rows, row, has_failed);
                if counted.samples.len() < SAMPLES_MAX {
                    counted.samples.push(Sample {
                        at: place(number),
                        value: found.clone(),
                    });
                }
                if refuses {
                    violations.push(RowViolation {
                        row: number,
                        violation: rule.violation(found),
                    });
                }
            }
        }
        violations.sort_by_key(|found| found.row);
        Ok(violations)
    }

    /// The columns that rules look at, by their place in the schema.
    pub fn columns(&self) -> impl Iterator<Item = usize> {
        self.rules
            .iter()
            .flat_map(|rule| rule.broken.columns().iter().copied())
    }

    /// The rules that were broken, as drift.
    pub fn changes(&self, breaks: &Breaks) -> Vec<Change> {
        let broken = self.broken(breaks).map(|(rule, counted)| {
            let natures = [("false", counted.untrue), ("no answer", counted.failed)];
            let natures: Vec<_> = natures.into_iter().filter(|(_, count)| *count > 0).collect();
            let words: Vec<String> = natures
                .iter()
                .map(|(word, count)| format!("{word} ×{count}"))
                .collect();
            Change {
                kind: ChangeKind::RuleBroken,
                path: rule.path.clone(),
                expected: rule.expected.clone(),
                found: words.join(", "),
                count: counted.untrue + counted.failed,
                records: breaks.asked,
                first_record: None,
                effect: match rule.on_broken {
                    OnBroken::Warn => Effect::Accepted,
                    OnBroken::Quarantine => Effect::Quarantined,
                    OnBroken::Fail => Effect::Failed,
                },
                samples: counted.samples.clone(),
                nature: natures.into_iter().map(|(word, _)| word.to_owned()).collect(),
            }
        });
        broken.collect()
    }

    /// The names of broken rules after which nothing may be written, with how many rows break each.
    pub fn forbidding(&self, breaks: &Breaks) -> Vec<(String, u64)> {
        self.broken(breaks)
            .filter(|(rule, _)| rule.on_broken == OnBroken::Fail)
            .map(|(rule, counted)| (rule.name.clone(), counted.untrue + counted.failed))
            .collect()
    }

    fn broken<'b>(&'b self, breaks: &'b Breaks) -> impl Iterator<Item = (&'b Rule, &'b RuleBreaks)> {
        let pairs = self.rules.iter().zip(&breaks.rules);
        pairs.filter(|(_, counted)| counted.untrue + counted.failed > 0)
    }
}

impl Rule {
    fn violation(&self, found: String) -> Violation {
        Violation {
            class: ViolationClass::RuleFailed,
            path: self.path.clone(),
            expected: self.expected.clone(),
            found,
        }
    }

    fn found(&self, rows: &RecordBatch, row: usize, has_failed: bool) -> String {
        let values: Vec<String> = self.shown.iter().map(|column| column.pair(rows, row)).collect();
        let values = values.join(", ");
        let words = if has_failed {
            format!("no answer for {values}")
        } else {
            values
        };
        cut(words, FOUND_CHARS_MAX)
    }
}

impl Shown {
    /// Those of the columns at `indexes`.
    pub(super) fn of(contract: &Contract, schema: &Schema, indexes: &[usize]) -> Vec<Self> {
        let shown = indexes.iter().map(|&index| {
            let name = schema.field(index).name();
            let column = contract.columns.iter().find(|column| column.name == *name);
            Self {
                name: name.clone(),
                index,
                json: name == RESCUED || column.is_some_and(|column| column.kind == ColumnType::Json),
                hidden: column.is_some_and(is_classified),
            }
        });
        shown.collect()
    }

    fn pair(&self, rows: &RecordBatch, row: usize) -> String {
        format!("{} = {}", self.name, self.value(rows, row))
    }

    /// One value as it may be shown. What is in objects and lists is not.
    pub(super) fn value(&self, rows: &RecordBatch, row: usize) -> String {
        let array = rows.column(self.index);
        if array.is_null(row) {
            return "null".to_owned();
        }
        let text = match array.data_type() {
            DataType::Struct(_) => "{".to_owned(),
            DataType::List(_) => "[".to_owned(),
            DataType::Utf8 if self.json => array.as_string::<i32>().value(row).to_owned(),
            DataType::Utf8 => serde_json::Value::from(array.as_string::<i32>().value(row)).to_string(),
            _ => ArrayFormatter::try_new(array, &FormatOptions::default())
                .map_or_else(|_| String::new(), |formatter| formatter.value(row).to_string()),
        };
        if self.hidden {
            return MASK.to_owned();
        }
        sample::shown(&self.name, &sample::cut(&text))
    }
}

/// Where in a record a column of the table is.
pub(super) fn path(contract: &Contract, column: &str) -> String {
    let find = |own: &&Column| own.name == column;
    let mut path = String::new();
    let names = contract.columns.iter().find(find).map(|own| own.path.as_slice());
    names
        .unwrap_or_default()
        .iter()
        .for_each(|name| write_name(name, &mut path));
    path
}

/// The SQL of a rule in a line.
fn expected(rule: &QualityRule) -> String {
    let words: Vec<&str> = rule.sql.split_whitespace().collect();
    cut(words.join(" "), EXPECTED_CHARS_MAX)
}

fn cut(text: String, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max - 1) {
        Some((end, last)) if end + last.len_utf8() < text.len() => format!("{}…", &text[..end]),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        config::{OnMismatch, OnUnknown},
        contract::{
            judge::{Judge, JudgeOptions},
            odcs::parse,
        },
    };

    const CONTRACT: &str = "apiVersion: v3.1.0
kind: DataContract
id: x
version: 1.0.0
status: active
schema:
- name: t
  quality:
  - {type: custom, engine: landfall, name: ratio, implementation: a / b > 1}
  - {type: custom, engine: landfall, name: guarded, severity: warning, implementation: b = 0 OR a / b > 1}
  - {type: custom, engine: landfall, name: known, severity: critical, implementation: \"phone <> 'none' AND note['deep'] <> 'x'\"}
  properties:
  - {name: a, logicalType: integer}
  - name: b
    logicalType: integer
    quality:
    - {type: custom, engine: landfall, name: positive, implementation: b >= 0}
  - {name: phone, logicalType: string, classification: restricted}
  - {name: mail, logicalType: string, customProperties: [{property: path, value: who.mail}]}
  - name: note
    logicalType: object
    properties:
    - {name: deep, logicalType: string}
  - {name: code, logicalType: string}
";

    fn quality(text: &str) -> (Judge, Quality) {
        let contract = parse(text, "c.yaml").unwrap();
        let options = JudgeOptions {
            keys: Vec::new(),
            sequence_by: Vec::new(),
            on_unknown: OnUnknown::Rescue,
            on_mismatch: OnMismatch::Quarantine,
            record_bytes_max: 1 << 20,
        };
        let judge = Judge::new(&contract, options).unwrap();
        let quality = Quality::new(&contract, &judge.schema()).unwrap();
        (judge, quality)
    }

    fn rows(judge: &Judge, records: &[&str]) -> RecordBatch {
        let mut judging = judge.start();
        records.iter().for_each(|record| judging.push(record.as_bytes()));
        judging.finish().unwrap().batch
    }

    fn at(row: usize) -> Option<Place> {
        let record = i32::try_from(row).unwrap();
        Some(Place {
            batch: 0,
            page: 0,
            record,
        })
    }

    /// What is said about records: why each is set aside, and the drift.
    fn told(text: &str, records: &[&str]) -> String {
        let (judge, quality) = quality(text);
        let mut breaks = Breaks::default();
        let asked = vec![true; records.len()];
        let found = quality
            .ask(&rows(&judge, records), &asked, at, &mut breaks)
            .unwrap();
        let mut told = String::new();
        for RowViolation { row, violation } in found {
            let Violation {
                path,
                expected,
                found,
                ..
            } = violation;
            told += &format!("{row} at {path}: {expected} | {found}\n");
        }
        for change in quality.changes(&breaks) {
            let samples: Vec<&str> = change
                .samples
                .iter()
                .map(|sample| sample.value.as_str())
                .collect();
            told += &format!(
                "{} {}, {} of {} {}: {} | {samples:?}\n",
                change.path, change.found, change.count, change.records, change.effect, change.expected
            );
        }
        told
    }

    #[test]
    fn a_rule_is_broken_where_it_is_false_or_has_no_answer_and_kept_where_nobody_knows() {
        let records = [
            r#"{"a":3,"b":1}"#,
            r#"{"a":1,"b":1}"#,
            r#"{"a":1,"b":0}"#,
            r#"{"a":null,"b":1}"#,
            r#"{"a":9,"b":-1,"phone":"none"}"#,
            r#"{"a":9,"b":3,"phone":"+47 22","note":{"deep":"x"}}"#,
        ];
        insta::assert_snapshot!(told(CONTRACT, &records), @r#"
        1 at rule ratio: a / b > 1 | a = 1, b = 1
        2 at rule ratio: a / b > 1 | no answer for a = 1, b = 0
        4 at rule ratio: a / b > 1 | a = 9, b = -1
        4 at rule known: phone <> 'none' AND note['deep'] <> 'x' | phone = ****, note = null
        4 at rule positive: b >= 0 | b = -1
        5 at rule known: phone <> 'none' AND note['deep'] <> 'x' | phone = ****, note = {…}
        rule ratio false ×2, no answer ×1, 3 of 6 quarantined: a / b > 1 | ["a = 1, b = 1", "no answer for a = 1, b = 0", "a = 9, b = -1"]
        rule guarded false ×2, 2 of 6 accepted: b = 0 OR a / b > 1 | ["a = 1, b = 1", "a = 9, b = -1"]
        rule known false ×2, 2 of 6 failed: phone <> 'none' AND note['deep'] <> 'x' | ["phone = ****, note = null", "phone = ****, note = {…}"]
        rule positive false ×1, 1 of 6 quarantined: b >= 0 | ["b = -1"]
        "#);
    }

    #[test]
    fn what_is_shown_is_short_and_hides_what_looks_private() {
        let rule = |sql: &str| CONTRACT.replacen("a / b > 1}", &format!("\"{sql}\"}}"), 1);
        let records = [
            r#"{"a":1,"b":1,"who":{"mail":"ann@shop.example"},"code":"zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz","extra":1,"phone":"12","note":{"deep":"q"}}"#,
        ];
        let text = rule("mail = code OR note['deep'] = _rescued OR phone = 'x' OR a > 1");
        insta::assert_snapshot!(told(&text, &records), @r#"
        0 at rule ratio: mail = code OR note['deep'] = _rescued OR phone = 'x' OR a > 1 | a = 1, phone = ****, mail = ****, note = {…}, code = "zzzzzzzzzzzzzzzzzzzzzzzzz…
        rule ratio false ×1, 1 of 1 quarantined: mail = code OR note['deep'] = _rescued OR phone = 'x' OR a > 1 | ["a = 1, phone = ****, mail = ****, note = {…}, code = \"zzzzzzzzzzzzzzzzzzzzzzzzz…"]
        rule guarded false ×1, 1 of 1 accepted: b = 0 OR a / b > 1 | ["a = 1, b = 1"]
        "#);
    }

    #[test]
    fn every_rule_that_cannot_be_asked_is_named() {
        let text = CONTRACT
            .replace("a / b > 1}", "a / nosuch > 1}")
            .replace("b >= 0}", "b + 1}");
        let contract = parse(&text, "c.yaml").unwrap();
        let (judge, _) = quality(CONTRACT);
        let wrong = Quality::new(&contract, &judge.schema()).unwrap_err();
        let told: Vec<String> = wrong
            .iter()
            .map(|one| format!("{}: {}", one.rule, one.unfit.problem))
            .collect();
        insta::assert_snapshot!(told.join("\n"), @r#"
        ratio: there is no column "nosuch"
        guarded: there is no column "nosuch"
        positive: it is Int64, and must be boolean
        "#);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn verdicts_and_counts_do_not_depend_on_how_rows_are_cut(
            records in prop::collection::vec((prop::option::of(-3..4_i64), prop::option::of(-2..3_i64), 0..3_usize), 1..40),
            cuts in prop::collection::vec(1..9_usize, 1..9),
            aside in prop::collection::vec(prop::bool::weighted(0.2), 40),
        ) {
            let texts: Vec<String> = records
                .iter()
                .map(|(a, b, phone)| {
                    let phone = ["null", "\"none\"", "\"+47\""][*phone];
                    let number = |value: &Option<i64>| value.map_or("null".to_owned(), |value| value.to_string());
                    format!(r#"{{"a":{},"b":{},"phone":{phone},"note":{{"deep":"y"}}}}"#, number(a), number(b))
                })
                .collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let (judge, quality) = quality(CONTRACT);
            let whole = rows(&judge, &texts);
            let asked: Vec<bool> = aside[..texts.len()].iter().map(|aside| !aside).collect();
            let mut breaks = Breaks::default();
            let found = quality.ask(&whole, &asked, at, &mut breaks).unwrap();

            let (mut pieces, mut counted) = (Vec::new(), Breaks::default());
            let mut first = 0;
            for cut in cuts.iter().cycle() {
                let length = (*cut).min(texts.len() - first);
                let mut part = Breaks::default();
                let rows = whole.slice(first, length);
                let place = |row: usize| at(first + row);
                for mut one in quality.ask(&rows, &asked[first..first + length], place, &mut part).unwrap() {
                    one.row += first;
                    pieces.push(one);
                }
                counted.merge(part);
                first += length;
                if first == texts.len() {
                    break;
                }
            }
            prop_assert_eq!(found, pieces);
            prop_assert_eq!(quality.changes(&breaks), quality.changes(&counted));
            // By hand: what SQL says of `a / b > 1`.
            let expected = records.iter().zip(&asked).filter(|((a, b, _), asked)| {
                **asked && match (a, b) {
                    (_, None) | (None, Some(1..) | Some(..=-1)) => false,
                    (None, Some(0)) => false,
                    (Some(_), Some(0)) => true,
                    (Some(a), Some(b)) => a / b <= 1,
                }
            });
            let ratio = quality.changes(&breaks).into_iter().find(|change| change.path == "rule ratio");
            prop_assert_eq!(ratio.map_or(0, |change| change.count), expected.count() as u64);
        }
    }
}
