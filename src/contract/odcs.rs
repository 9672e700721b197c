//! Contracts as Open Data Contract Standard files, version 3.1.
//!
//! ```text
//! YAML ─ parse (every problem at once) ─► Contract ─ write ─► YAML that public ODCS tools accept
//! ```
//!
//! What the standard cannot say is in `customProperties`:
//!
//! | property | value | of |
//! |---|---|---|
//! | `path` | where the value is in the record: `a.b`, or a list of names | every column |
//! | `format` | `rfc3339`, `epoch_s`, `epoch_ms`, `naive:+02:00` | timestamps |
//! | `coercion` | `lossless`, `none` | every column |
//! | `onMismatch` | `quarantine`, `rescue`, `fail`: what becomes of values that do not fit it, or fit nothing in it | every column |
//! | `onUnknown` | `rescue`, `ignore`, `quarantine`: what becomes of members that it, or an object in it, does not name | objects |
//!
//! The last two go before what the stream says, and what has one does not evolve. Required columns and keys are never
//! rescued. Names of columns may have any characters but control characters, spaces and one of `,;{}()=`, which Delta
//! tables without column mapping do not hold; a draft puts `_` in their place, and in that of dots, quotes, brackets and
//! slashes, and says in `path` where the value is.
//!
//! Keys of the standard that mean nothing to a load (team, servers, price, …) are accepted; rules that are not enforced are refused, because a
//! contract that looks stricter than it is would be worse than none. Checks under `quality` that others run are left to
//! them, and warned of.

mod column;
mod quality;
mod rules;
mod sections;
pub mod write;

#[cfg(test)]
mod tests;

use crate::{
    contract::{Column, Contract, compat::Mode, lifecycle, quality::QualityRule, service},
    yaml::{
        Place, Problem, Problems,
        edit::Spans,
        fields::{Fields, Value},
        parse::parse as parse_yaml,
        quoted,
    },
};

/// Deepest nesting of columns: objects within lists within objects.
pub const COLUMN_DEPTH_MAX: usize = 32;

/// Largest compiled pattern, in bytes. Whoever compiles a pattern again has to use the same bound.
pub const PATTERN_BYTES_MAX: usize = 1024 * 1024;

/// Columns every table has besides those of its contract; names beginning with `_lf_` are ours as well.
pub const NAMES_RESERVED: [&str; 2] = ["_rescued", "_deleted"];

/// The custom property in which a drafted contract keeps what it was drafted from. It is read by people only.
pub const NOTE: &str = "inferred";

/// Longest name of a column, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 255;

/// Reads a contract; `file` is how the user knows it.
///
/// ```
/// use landfall::contract::{ColumnType, odcs};
/// let contract = odcs::parse(
///     "apiVersion: v3.1.0\nkind: DataContract\nid: shop.orders\nversion: 1.0.0\nstatus: active\n\
///      schema:\n- name: orders\n  properties:\n  - {name: id, logicalType: integer, required: true}\n",
///     "contracts/shop.orders.odcs.yaml",
/// ).unwrap();
/// assert_eq!(contract.columns[0].kind, ColumnType::Integer);
/// ```
///
/// # Errors
/// Everything that is wrong with it, sorted by place; never empty.
pub fn parse(text: &str, file: &str) -> Result<Contract, Vec<Problem>> {
    read(text, file).map(|(contract, _)| contract)
}

/// As [`parse`], with what is worth saying but stops nothing: checks that are not run here.
///
/// # Errors
/// As [`parse`].
pub fn read(text: &str, file: &str) -> Result<(Contract, Vec<Problem>), Vec<Problem>> {
    let problems = Problems::new(file);
    let node = parse_yaml(text, &problems);
    let contract = node.and_then(|node| contract(Value::root(&problems, &node)));
    problems.finish(contract)
}

/// Where the SQL of the rule called `name` begins in the text of a contract; its first line if there is no such rule.
pub fn rule_place(text: &str, name: &str) -> Place {
    Spans::read(text)
        .and_then(|root| {
            let table = root.get("schema")?.items().first()?;
            let columns = table.get("properties").map_or(&[][..], Spans::items);
            let mut checks = std::iter::once(table)
                .chain(columns)
                .filter_map(|at| at.get("quality"))
                .flat_map(Spans::items);
            let is = |item: &Spans, key: &str, word: &str| item.get(key).and_then(Spans::text) == Some(word);
            let rule = checks.find(|item| is(item, "engine", quality::ENGINE) && is(item, "name", name))?;
            let before = text.get(..rule.get("implementation")?.range.start)?;
            let line = before.rsplit('\n').next().unwrap_or_default();
            Some(Place {
                line: before.matches('\n').count() + 1,
                column: line.chars().count() + 1,
            })
        })
        .unwrap_or(Place::START)
}

/// The mode of compatibility that a contract asks for in its custom property `compatibility`; `None` if it asks for none.
///
/// ```
/// use landfall::contract::{compat::Mode, odcs::compatibility};
/// let text = "id: x\ncustomProperties:\n- {property: compatibility, value: full}\n";
/// assert_eq!(compatibility(text), Some(Mode::FULL));
/// ```
pub fn compatibility(text: &str) -> Option<Mode> {
    let root = Spans::read(text)?;
    let items = root.get("customProperties")?.items();
    let is_it = |item: &&Spans| item.get("property").and_then(Spans::text) == Some("compatibility");
    items.iter().find(is_it)?.get("value")?.text()?.parse().ok()
}

/// Why `name` cannot be the name of a column, or `None` if it can. `top` is false for fields of nested objects.
///
/// ```
/// use landfall::contract::odcs::name_problem;
/// assert_eq!(name_problem("total", true), None);
/// assert!(name_problem("_lf_page", true).is_some());
/// assert!(name_problem("unit price", true).is_some());
/// ```
pub fn name_problem(name: &str, top: bool) -> Option<&'static str> {
    let lower = name.to_lowercase();
    if top && (lower.starts_with("_lf_") || NAMES_RESERVED.contains(&lower.as_str())) {
        return Some("is a column of the program itself");
    }
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Some("must have 1 to 255 bytes");
    }
    // Delta tables without column mapping, which every reader can read, allow none of these.
    if name
        .chars()
        .any(|character| character.is_control() || " ,;{}()\n\t=".contains(character))
    {
        return Some("has a space, a control character or one of , ; { } ( ) =");
    }
    None
}

fn contract(value: Value<'_>) -> Option<Contract> {
    let fields = value.fields(&sections::CONTRACT)?;
    fields.required("apiVersion", api_version);
    fields.optional("customProperties", custom);
    fields.optional("slaProperties", service_levels);
    fields.required("kind", |value| value.choice(&[("DataContract", ())], &[]));
    let id = fields.required("id", Value::text);
    let version = fields.required("version", version);
    let status = fields.required("status", Value::text);
    let table = fields.required("schema", |value| {
        let mut objects = value.items()?;
        let Some(first) = objects.next() else {
            return value.refuse("one object with the columns is needed", None);
        };
        if let Some(second) = objects.next() {
            second.refuse::<()>("a stream has one object; give each stream its own contract", None);
        }
        table(first)
    });
    let (columns, quality) = table?;
    Some(Contract {
        id: id?.to_owned(),
        version: version?.to_owned(),
        status: status?.to_owned(),
        columns,
        quality,
    })
}

/// Of the custom properties of a whole contract only `compatibility` is ours.
fn custom(value: Value<'_>) -> Option<()> {
    let modes = Mode::ALL.map(|(name, _)| (name, ()));
    for item in value.items()? {
        let entries = item.entries("a property and its value")?;
        let find = |key: &str| {
            entries
                .iter()
                .find(|entry| entry.key == key)
                .map(|entry| item.child(entry))
        };
        let is_ours =
            find("property").is_some_and(|property| property.node.scalar_text() == Some("compatibility"));
        if let (true, Some(value)) = (is_ours, find("value")) {
            let value = Value {
                key: "compatibility",
                ..value
            };
            value.choice(&modes, &[])?;
        }
    }
    Some(())
}

/// Of what a contract promises the day of its end is read, and what is measured.
fn service_levels(value: Value<'_>) -> Option<()> {
    for item in value.items()? {
        let entries = item.entries("a property and its value")?;
        let find = |key: &str| entries.iter().find(|entry| entry.key == key);
        let text = |key: &str| find(key).and_then(|entry| item.child(entry).node.scalar_text());
        let is_day = text("value").is_some_and(|value| lifecycle::day(value).is_some());
        if let (Some(lifecycle::END), Some(entry), false) = (text("property"), find("value"), is_day) {
            let hint = "write a date, 2026-12-31, or a moment of RFC 3339".to_owned();
            return item.child(entry).refuse("is no day", Some(hint));
        }
        let property = text("property").unwrap_or_default();
        let time = service::time(
            text("value").unwrap_or_default(),
            text("unit").unwrap_or_default(),
        );
        if service::is_measured(property) && time.is_none() {
            let hint = "write `value: 4` and `unit: h`, or s, min, d, y".to_owned();
            let message = format!("{property} is not measured: it has no value and unit that are a time");
            item.problems.warn(item.node.place, message, Some(hint));
        }
    }
    Some(())
}

fn table(value: Value<'_>) -> Option<(Vec<Column>, Vec<QualityRule>)> {
    let fields: Fields<'_> = value.fields(&sections::OBJECT)?;
    fields.required("name", Value::text);
    fields.optional("logicalType", |value| value.choice(&[("object", ())], &["blob"]));
    let of_table = quality::rules(&fields, None);
    let columns = fields.required("properties", |value| column::columns(value, 1));
    let of_columns = fields
        .optional("properties", column::rules_of_columns)
        .unwrap_or_default();
    let rules = [of_table, of_columns].concat();
    quality::refuse_repeated(value, &rules);
    Some((columns?, rules))
}

fn api_version(value: Value<'_>) -> Option<()> {
    let text = value.text()?;
    let numbers = text
        .strip_prefix("v3.")
        .map(|rest| rest.split('.').all(is_number));
    match numbers {
        Some(true) => Some(()),
        _ => value.refuse(
            format!("{} is not a version of the standard that is read", quoted(text)),
            Some("write v3.1.0".to_owned()),
        ),
    }
}

fn version(value: Value<'_>) -> Option<&str> {
    let text = value.text()?;
    if text.split('.').count() == 3 && text.split('.').all(is_number) {
        return Some(text);
    }
    value.refuse(
        format!("{} is not a version", quoted(text)),
        Some("write major.minor.patch: 1.0.0".to_owned()),
    )
}

fn is_number(text: &str) -> bool {
    (1..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}
