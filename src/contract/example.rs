//! A record that a contract accepts, made from the contract alone.

use serde_json::{Map, Value, json};

use super::{
    Column, ColumnType, Contract, TimestampFormat,
    judge::{Judge, JudgeOptions},
};
use crate::config::{OnMismatch, OnUnknown};

/// Texts that are tried, in this order, where a pattern says what text must be like.
const TEXTS: [&str; 14] = [
    "example",
    "user@example.com",
    "https://example.com/a",
    "0190f3c4-7f6e-7c2a-9b1e-2f6a5d3c4b5a",
    "2025-01-31",
    "2025-01-31T12:00:00Z",
    "+49 30 1234567",
    "ABC-123",
    "EUR",
    "DE",
    "A",
    "a",
    "12345",
    "1",
];

const RECORD_BYTES_MAX: usize = 1 << 20;

/// A record with a value for every column, or for the required ones if the others make it unfit. `None` if some rule leaves
/// no value that is found here, as a pattern that none of some common texts matches.
///
/// It is judged before it is returned. Rules in SQL are not asked.
///
/// ```
/// use landfall::contract::{example::example, infer::infer};
/// let contract = infer("orders", &["id".to_owned()], [&br#"{"id": 7, "paid": true}"#[..]].into_iter()).unwrap();
/// assert_eq!(example(&contract), Some(serde_json::json!({"id": 1, "paid": true})));
/// ```
pub fn example(contract: &Contract) -> Option<Value> {
    let options = JudgeOptions {
        keys: Vec::new(),
        sequence_by: Vec::new(),
        on_unknown: OnUnknown::Rescue,
        on_mismatch: OnMismatch::Quarantine,
        record_bytes_max: RECORD_BYTES_MAX,
    };
    let judge = Judge::new(contract, options).ok()?;
    let is_accepted = |record: &Value| {
        let mut judging = judge.start();
        judging.push(record.to_string().as_bytes());
        judging.finish().is_ok_and(|judged| judged.violations.is_empty())
    };
    let whole = object(&contract.columns, |_| true);
    let least = || object(&contract.columns, is_required);
    let found = whole.filter(&is_accepted);
    found.or_else(|| least().filter(&is_accepted))
}

fn is_required(column: &Column) -> bool {
    column.required || column.primary_key
}

/// An object with those of `columns` that are `wanted` and have a value; `None` if a required one has none.
fn object(columns: &[Column], wanted: impl Fn(&Column) -> bool + Copy) -> Option<Value> {
    let mut members = Map::new();
    for column in columns.iter().filter(|column| wanted(column)) {
        match value(column, wanted) {
            Some(value) => insert(&mut members, &column.path, value),
            None if is_required(column) => return None,
            None => {}
        }
    }
    Some(members.into())
}

/// Puts `value` at the end of `path`, with objects on the way.
fn insert(members: &mut Map<String, Value>, path: &[String], value: Value) {
    match path {
        [] => {}
        [name] => {
            members.insert(name.clone(), value);
        }
        [name, rest @ ..] => {
            let within = members.entry(name.clone()).or_insert_with(|| json!({}));
            if let Value::Object(within) = within {
                insert(within, rest, value);
            }
        }
    }
}

fn value(column: &Column, wanted: impl Fn(&Column) -> bool + Copy) -> Option<Value> {
    let rules = &column.rules;
    if let Some(allowed) = &rules.allowed {
        return allowed.iter().find_map(|value| serde_json::from_str(value).ok());
    }
    match &column.kind {
        ColumnType::String => text(column).map(Value::from),
        ColumnType::Integer | ColumnType::Number | ColumnType::Decimal { .. } => {
            let bounds = [&rules.minimum, &rules.maximum].into_iter().flatten();
            let numbers: Vec<&str> = ["1", "0"].into_iter().chain(bounds.map(String::as_str)).collect();
            let number = numbers.into_iter().find(|number| is_within(number, column))?;
            serde_json::from_str(number).ok()
        }
        ColumnType::Boolean => Some(true.into()),
        ColumnType::Date => Some("2025-01-31".into()),
        ColumnType::Timestamp(format) => Some(match format {
            TimestampFormat::Rfc3339 => "2025-01-31T12:00:00Z".into(),
            TimestampFormat::EpochSeconds => 1_738_324_800_i64.into(),
            TimestampFormat::EpochMillis => 1_738_324_800_000_i64.into(),
            TimestampFormat::Naive { .. } => "2025-01-31T12:00:00".into(),
        }),
        ColumnType::Object(columns) => object(columns, wanted),
        ColumnType::Array(element) => {
            let count = rules
                .length_min
                .unwrap_or(1)
                .max(1)
                .min(rules.length_max.unwrap_or(u64::MAX));
            let count = usize::try_from(count)
                .ok()
                .filter(|count| *count <= RECORD_BYTES_MAX)?;
            match value(element, wanted) {
                Some(value) => Some(vec![value; count].into()),
                None => (rules.length_min.unwrap_or(0) == 0).then(|| json!([])),
            }
        }
        ColumnType::Json => Some(json!({})),
    }
}

fn text(column: &Column) -> Option<String> {
    let rules = &column.rules;
    let least = usize::try_from(rules.length_min.unwrap_or(0)).ok()?;
    let most = usize::try_from(rules.length_max.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    if least > RECORD_BYTES_MAX {
        return None;
    }
    let pattern = match &rules.pattern {
        Some(pattern) => Some(regex::Regex::new(pattern).ok()?),
        None => None,
    };
    let fitted = TEXTS.into_iter().map(|text| {
        let text: String = text.chars().take(most).collect();
        let missing = least.saturating_sub(text.chars().count());
        text + &"a".repeat(missing)
    });
    let mut texts = TEXTS.into_iter().map(str::to_owned).chain(fitted);
    texts.find(|text| {
        let length = text.chars().count();
        (least..=most).contains(&length) && pattern.as_ref().is_none_or(|pattern| pattern.is_match(text))
    })
}

/// Whether a number is within the bounds of a column, as nearly as doubles tell; the judge has the last word.
fn is_within(number: &str, column: &Column) -> bool {
    let bound = |bound: &Option<String>| bound.as_deref().and_then(|bound| bound.parse::<f64>().ok());
    let Ok(number) = number.parse::<f64>() else {
        return false;
    };
    bound(&column.rules.minimum).is_none_or(|least| number >= least)
        && bound(&column.rules.maximum).is_none_or(|most| number <= most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::odcs::parse;

    fn of(properties: &str) -> Option<Value> {
        let text = format!(
            "apiVersion: v3.1.0\nkind: DataContract\nid: x\nversion: 1.0.0\nstatus: active\nschema:\n- name: t\n  properties:\n{properties}"
        );
        example(&parse(&text, "c.yaml").unwrap())
    }

    #[test]
    fn r112_an_example_has_a_value_for_every_rule() {
        let record = of(
            "  - {name: id, logicalType: integer, primaryKey: true, logicalTypeOptions: {minimum: 100}}
  - {name: code, logicalType: string, required: true, logicalTypeOptions: {pattern: '^[A-Z]{3}$'}}
  - {name: long, logicalType: string, logicalTypeOptions: {minLength: 12, maxLength: 14}}
  - {name: ratio, logicalType: number, logicalTypeOptions: {minimum: 1.5, maximum: 2.5}}
  - {name: day, logicalType: date}
  - {name: mail, logicalType: string, customProperties: [{property: path, value: who.mail}]}
  - name: lines
    logicalType: array
    logicalTypeOptions: {minItems: 2}
    items:
      logicalType: object
      properties:
      - {name: sku, logicalType: string, required: true}
  - {name: never, logicalType: string, logicalTypeOptions: {pattern: '^#[0-9]{7}#$'}}
",
        );
        insta::assert_snapshot!(record.unwrap(), @r#"{"code":"EUR","day":"2025-01-31","id":100,"lines":[{"sku":"example"},{"sku":"example"}],"long":"+49 30 1234567","ratio":1.5,"who":{"mail":"example"}}"#);
    }

    #[test]
    fn there_is_none_where_no_value_is_known() {
        let unknown = "  - {name: code, logicalType: string, required: true, logicalTypeOptions: {pattern: '^#[0-9]{7}#$'}}\n";
        assert_eq!(of(unknown), None);
    }
}
