//! The checks under `quality`: which are run, and the rules in SQL among them.

use std::collections::HashSet;

use crate::{
    contract::{
        odcs::sections,
        quality::{OnBroken, QualityRule},
    },
    yaml::{
        Kind,
        fields::{Fields, Value},
        quoted,
    },
};

/// The engine that a custom check names to be run here.
pub(super) const ENGINE: &str = "landfall";

/// Longest name of a rule, in characters.
const NAME_CHARS_MAX: usize = 100;

/// Longest SQL of a rule, in bytes.
const SQL_BYTES_MAX: usize = 10_000;

/// One check under `quality`.
#[derive(Clone, Copy)]
pub(super) enum Check<'a> {
    /// The values of the library check that none be invalid.
    ValidValues(Value<'a>),
    /// A rule in SQL.
    Rule(Value<'a>),
    /// Something that is not run here, or not understood.
    Other,
}

/// The checks of a list; those that are not run are warned of.
pub(super) fn checks(value: Value<'_>) -> Vec<Check<'_>> {
    let Some(items) = value.items() else {
        return Vec::new();
    };
    items.map(check).collect()
}

fn check(item: Value<'_>) -> Check<'_> {
    let Some(entries) = item.entries("a quality check") else {
        return Check::Other;
    };
    let find = |key: &str| {
        entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| item.child(entry))
    };
    let word = |key: &str| find(key).and_then(|value| value.node.scalar_text());
    if word("engine") == Some(ENGINE) {
        return Check::Rule(item);
    }
    let values = find("arguments").and_then(|value| match &value.node.kind {
        Kind::Map(entries) => entries
            .iter()
            .find(|entry| entry.key == "validValues")
            .map(|entry| value.child(entry)),
        _ => None,
    });
    if let (Some("invalidValues"), Some("0"), Some(values)) = (word("metric"), word("mustBe"), values) {
        return Check::ValidValues(values);
    }
    // Text is for people.
    if word("type") != Some("text") {
        let name = word("name").or_else(|| word("metric")).or_else(|| word("type"));
        let message = format!(
            "quality: the check {} is not run",
            quoted(name.unwrap_or("library"))
        );
        let hint = format!(
            "run are lists of valid values (metric: invalidValues, mustBe: 0) and rules over one row (type: custom, engine: {ENGINE})"
        );
        item.problems.warn(item.node.place, message, Some(hint));
    }
    Check::Other
}

/// The rules in the `quality` of the table, or of one of its `column`s.
pub(super) fn rules(fields: &Fields<'_>, column: Option<&str>) -> Vec<QualityRule> {
    let rules = fields.value("quality").map(checks).unwrap_or_default();
    let rules = rules.into_iter().filter_map(|check| match check {
        Check::Rule(item) => rule(item, column),
        Check::ValidValues(_) | Check::Other => None,
    });
    rules.collect()
}

/// Columns of columns have no rules of their own: the SQL could not say which element it means.
pub(super) fn refuse_rules(fields: &Fields<'_>) {
    let nested = fields.value("quality").map(checks).unwrap_or_default();
    for check in nested {
        if let Check::Rule(item) = check {
            let hint = "put it under the table's quality; its SQL can say customer['name']".to_owned();
            item.refuse::<()>("a rule stands at the table or at one of its columns", Some(hint));
        }
    }
}

/// Reports names that are there twice.
pub(super) fn refuse_repeated(value: Value<'_>, rules: &[QualityRule]) {
    let mut names = HashSet::new();
    for rule in rules {
        if !names.insert(rule.name.as_str()) {
            let message = format!("two rules are called {}", quoted(&rule.name));
            value.problems.add(value.node.place, message, None);
        }
    }
}

fn rule(item: Value<'_>, column: Option<&str>) -> Option<QualityRule> {
    let fields = item.fields(&sections::RULE)?;
    let name = fields.required("name", name);
    let kind = fields.required("type", |value| value.choice(&[("custom", ())], &[]));
    let sql = fields.required("implementation", |value| match &value.node.kind {
        Kind::Map(_) => value.expected("a boolean SQL expression", None),
        Kind::Bool(_, text) => Some(text.as_str()),
        _ => value.text().filter(|text| {
            let good = text.len() <= SQL_BYTES_MAX;
            if !good {
                value.refuse::<()>(format!("longer than {SQL_BYTES_MAX} bytes"), None);
            }
            good
        }),
    });
    let severity = fields.value("severity");
    let on_broken = match severity {
        Some(value) => value.choice(&OnBroken::ALL, &[]),
        None => Some(OnBroken::Quarantine),
    };
    let description = fields.optional("description", Value::scalar).map(str::to_owned);
    kind?;
    Some(QualityRule {
        name: name?.to_owned(),
        column: column.map(str::to_owned),
        sql: sql?.trim().to_owned(),
        on_broken: on_broken?,
        description,
    })
}

fn name(value: Value<'_>) -> Option<&str> {
    let name = value.text()?;
    let good = name.chars().count() <= NAME_CHARS_MAX && !name.chars().any(char::is_control);
    if good {
        return Some(name);
    }
    let message = format!("a name has at most {NAME_CHARS_MAX} characters, and none of control");
    value.refuse(message, None)
}
