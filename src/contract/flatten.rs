//! Members of nested objects as columns of the table itself.
//!
//! The column `customer` with the members `name` and `address` becomes `customer__name` and `customer__address`, each with
//! the way to its value as its `path`. Lists stay lists.

use std::collections::HashSet;

use super::{
    Column, ColumnType,
    infer::{COLUMNS_MAX, free_name},
    odcs::name_problem,
};
use crate::config::flatten::Flatten;

/// What stands between the names of an object and of its member.
const BETWEEN: &str = "__";

/// Columns of a record with the objects that `which` takes replaced by their members.
///
/// Columns that stay keep their names; of the others one whose name is taken, in whatever letter case, gets a number
/// behind it. An object stays as it is where its members would make more columns, or longer names, than a table may have.
///
/// ```
/// use landfall::{config::flatten::Flatten, contract::{flatten::flatten, infer::infer}};
/// let record = &br#"{"customer": {"name": "a", "to": {"city": "b"}}, "customer__name": "c"}"#[..];
/// let contract = infer("orders", &[], [record].into_iter()).unwrap();
/// let names: Vec<String> = flatten(contract.columns, &Flatten::All).into_iter().map(|column| column.name).collect();
/// assert_eq!(names, ["customer__name_2", "customer__to__city", "customer__name"]);
/// ```
pub fn flatten(columns: Vec<Column>, which: &Flatten) -> Vec<Column> {
    let is_taken =
        |column: &Column| matches!(column.kind, ColumnType::Object(_)) && which.takes(&column.path);
    let mut taken: HashSet<String> = columns
        .iter()
        .filter(|column| !is_taken(column))
        .map(|column| column.name.to_lowercase())
        .collect();
    let mut count = columns.len();
    let mut flat = Vec::with_capacity(count);
    for column in columns {
        if is_taken(&column) {
            let columns = flat_columns(column, which, &mut taken, COLUMNS_MAX.saturating_sub(count - 1));
            count += columns.len() - 1;
            flat.extend(columns);
        } else {
            flat.push(column);
        }
    }
    flat
}

/// The columns that one becomes, at least one and at most `columns_max`, with names that are not `taken`.
pub(crate) fn flat_columns(
    column: Column,
    which: &Flatten,
    taken: &mut HashSet<String>,
    columns_max: usize,
) -> Vec<Column> {
    let mut leaves = Vec::new();
    spread(&column, which, &mut leaves);
    let is_good = |leaf: &Column| name_problem(&leaf.name, false).is_none();
    if leaves.len() > columns_max || !leaves.iter().all(is_good) {
        leaves = vec![column];
    }
    for leaf in &mut leaves {
        leaf.name = free_name(&leaf.name, true, taken);
    }
    leaves
}

/// Names a column after the way to its value.
pub(crate) fn joined(way: &[String]) -> String {
    way.join(BETWEEN)
}

/// The columns that an object becomes.
fn spread(object: &Column, which: &Flatten, leaves: &mut Vec<Column>) {
    let members = match &object.kind {
        ColumnType::Object(members) if which.takes(&object.path) => members,
        _ => return leaves.push(object.clone()),
    };
    for member in members {
        let mut path = object.path.clone();
        path.extend(member.path.iter().cloned());
        let below = Column {
            name: format!("{}{BETWEEN}{}", object.name, member.name),
            path,
            required: object.required && member.required,
            ..member.clone()
        };
        spread(&below, which, leaves);
    }
}

/// Columns that hold objects which `which` takes, by name: what a contract that stands says otherwise.
pub fn nested<'c>(columns: &'c [Column], which: &Flatten) -> Vec<&'c str> {
    let is_nested =
        |column: &&Column| matches!(column.kind, ColumnType::Object(_)) && which.takes(&column.path);
    columns
        .iter()
        .filter(is_nested)
        .map(|column| column.name.as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{
        Contract,
        infer::{self, tests::describe},
    };

    fn drafted(record: &str, which: &Flatten) -> Contract {
        let (contract, _) = infer::draft("t", &[], which, [record.as_bytes()].into_iter()).unwrap();
        contract
    }

    fn paths(paths: &[&[&str]]) -> Flatten {
        let owned = |path: &&[&str]| path.iter().map(|&name| name.to_owned()).collect();
        Flatten::Paths(paths.iter().map(owned).collect())
    }

    #[test]
    fn r118_objects_become_columns_and_lists_stay_lists() {
        let record = r#"{
            "id": 1,
            "customer": {"name": "a", "address": {"city": "b", "geo": {"lat": 1.5}}, "tags": ["x"], "none": {}},
            "lines": [{"sku": "s", "price": {"net": 1}}],
            "mixed": [1, "a"]
        }"#;
        insta::assert_snapshot!(describe(&drafted(record, &Flatten::All).columns), @r#"
        id integer
        customer__name=["customer", "name"] string
        customer__address__city=["customer", "address", "city"] string
        customer__address__geo__lat=["customer", "address", "geo", "lat"] number
        customer__tags=["customer", "tags"] [string]
        customer__none=["customer", "none"] any value
        lines [{sku string, price {net integer}}]
        mixed [any value]
        "#);
        insta::assert_snapshot!(describe(&drafted(record, &paths(&[&["customer"]])).columns), @r#"
        id integer
        customer__name=["customer", "name"] string
        customer__address=["customer", "address"] {city string, geo {lat number}}
        customer__tags=["customer", "tags"] [string]
        customer__none=["customer", "none"] any value
        lines [{sku string, price {net integer}}]
        mixed [any value]
        "#);
        insta::assert_snapshot!(describe(&drafted(record, &paths(&[&["customer", "address"], &["lines"]])).columns), @r#"
        id integer
        customer__name=["customer", "name"] string
        customer__address__city=["customer", "address", "city"] string
        customer__address__geo=["customer", "address", "geo"] {lat number}
        customer__tags=["customer", "tags"] [string]
        customer__none=["customer", "none"] any value
        lines [{sku string, price {net integer}}]
        mixed [any value]
        "#);
    }

    #[test]
    fn f133_no_two_flat_columns_have_one_name() {
        let record = r#"{"a":{"b":{"c":1},"B__C":2,"b__c":3},"a__b__C":4,"A":{"B":{"c":5}},"_lf":{"batch":6},"":{"":7}}"#;
        insta::assert_snapshot!(describe(&drafted(record, &Flatten::All).columns), @r#"
        a__b__c_2=["a", "b", "c"] integer
        a__B__C_3=["a", "B__C"] integer
        a__b__c_2_2=["a", "b__c"] integer
        a__b__C integer
        A_2__B__c=["A", "B", "c"] integer
        source_lf__batch=["_lf", "batch"] integer
        unnamed__unnamed=["", ""] integer
        "#);
    }

    #[test]
    fn an_object_whose_members_would_be_too_many_or_too_long_stays_as_it_is() {
        let member = "m".repeat(200);
        let record = format!(r#"{{"o":{{"{member}":{{"{member}":1}}}}}}"#);
        let kept = drafted(&record, &Flatten::All);
        assert_eq!((kept.columns.len(), kept.columns[0].name.as_str()), (1, "o"));
        assert_eq!(nested(&kept.columns, &Flatten::All), ["o"]);
        let members: Vec<String> = (0..150).map(|number| format!(r#""m{number}":1"#)).collect();
        let object = format!("{{{}}}", members.join(","));
        let objects: Vec<String> = (0..20).map(|number| format!(r#""o{number}":{object}"#)).collect();
        let wide = drafted(&format!("{{{}}}", objects.join(",")), &Flatten::All);
        assert_eq!(wide.columns.len(), 13 * 150 + 7);
        assert!(wide.columns.len() <= COLUMNS_MAX);
    }
}
