//! Contracts as Open Data Contract Standard files, version 3.1.
//!
//! ```text
//! YAML ─ parse (every problem at once) ─► Contract ─ write ─► YAML that public ODCS tools accept
//! ```
//!
//! What the standard cannot say is in `customProperties`: `path`, `format`, `coercion`. Keys of the standard that
//! mean nothing to a load (team, servers, price, …) are accepted; rules that are not enforced are refused, because a
//! contract that looks stricter than it is would be worse than none.

mod column;
mod rules;
mod sections;
pub mod write;

#[cfg(test)]
mod tests;

use crate::{
    contract::{Contract, compat::Mode},
    yaml::{
        Problem, Problems,
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
const NAME_BYTES_MAX: usize = 255;

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
    let problems = Problems::new(file);
    let node = parse_yaml(text, &problems);
    let contract = node.and_then(|node| contract(Value::root(&problems, &node)));
    problems.finish(contract).map(|(contract, _)| contract)
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
    fields.required("kind", |value| value.choice(&[("DataContract", ())], &[]));
    let id = fields.required("id", Value::text);
    let version = fields.required("version", version);
    let status = fields.required("status", Value::text);
    let columns = fields.required("schema", |value| {
        let mut objects = value.items()?;
        let Some(first) = objects.next() else {
            return value.refuse("one object with the columns is needed", None);
        };
        if let Some(second) = objects.next() {
            second.refuse::<()>("a stream has one object; give each stream its own contract", None);
        }
        table(first)
    });
    Some(Contract {
        id: id?.to_owned(),
        version: version?.to_owned(),
        status: status?.to_owned(),
        columns: columns?,
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

fn table(value: Value<'_>) -> Option<Vec<crate::contract::Column>> {
    let fields: Fields<'_> = value.fields(&sections::OBJECT)?;
    fields.required("name", Value::text);
    fields.optional("logicalType", |value| value.choice(&[("object", ())], &["blob"]));
    fields.required("properties", |value| column::columns(value, 1))
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
