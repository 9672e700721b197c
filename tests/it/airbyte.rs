//! What `config/airbyte.md` says, held against the component schema that Airbyte publishes and against our own keys.

use std::{collections::BTreeMap, fs};

use landfall::{
    config::{airbyte::MAPPING, read::schema::schema},
    yaml::{Problems, parse::parse},
};
use serde_json::{Map, Value as Json};

use crate::support::python;

/// A line of the tables.
struct Row {
    component: &'static str,
    keys: &'static str,
    notes: &'static str,
}

/// Options that every component has.
const OF_ALL: [&str; 2] = ["type", "$parameters"];

fn rows() -> Vec<Row> {
    let lines = MAPPING.lines().filter(|line| line.starts_with("| `"));
    lines.map(row).collect()
}

fn row(line: &'static str) -> Row {
    // A bar within a cell has a backslash before it.
    let bars = line.match_indices('|').map(|(place, _)| place);
    let bars: Vec<usize> = bars.filter(|place| !line[..*place].ends_with('\\')).collect();
    let [first, second, third, fourth] = bars[..] else {
        panic!("three cells are needed: {line}");
    };
    let cell = |from: usize, to: usize| line[from + 1..to].trim();
    Row {
        component: cell(first, second).trim_matches('`'),
        keys: cell(second, third),
        notes: cell(third, fourth),
    }
}

/// Each component that Airbyte knows, with its options.
fn components() -> BTreeMap<String, Vec<String>> {
    let problems = Problems::new("");
    let text = fs::read_to_string(python::airbyte_schema()).unwrap();
    let schema = parse(&text, &problems).and_then(|node| node.to_json(&problems));
    let schema = schema.unwrap_or_else(|| panic!("{:?}", problems.finish(None::<()>)));
    let options = |definition: &Json| {
        let own = definition["properties"]
            .as_object()
            .into_iter()
            .flat_map(Map::keys);
        own.filter(|name| !OF_ALL.contains(&name.as_str()))
            .cloned()
            .collect()
    };
    let definitions = schema["definitions"].as_object().unwrap().iter();
    let mut components: BTreeMap<String, Vec<String>> = definitions
        .map(|(name, definition)| (name.clone(), options(definition)))
        .collect();
    components.insert(schema["title"].as_str().unwrap().to_owned(), options(&schema));
    components
}

/// What stands between backticks.
fn quoted(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.split('`').skip(1).step_by(2)
}

/// What is wrong with `MAP.KEY` or `MAP.KEY: WORD`; none if it is a key of ours.
fn fault(named: &str, ours: &Json) -> Option<String> {
    let (key, word) = match named.split_once(": ") {
        Some((key, word)) => (key, Some(word)),
        None => (named, None),
    };
    let Some((map, key)) = key.split_once('.') else {
        return Some(format!("{named} is no key of a map"));
    };
    let map = match map {
        "project" => ours,
        _ => &ours["$defs"][map],
    };
    let Some(property) = map["properties"].get(key) else {
        return Some(format!("{named} does not exist"));
    };
    let takes = |word: &str| words(property).contains(&Json::from(word));
    word.filter(|word| !takes(word))
        .map(|word| format!("{named}: {word} is none of its words"))
}

/// Every word that a key takes, in whatever form.
fn words(property: &Json) -> Vec<Json> {
    let own = property["enum"].as_array().cloned().unwrap_or_default();
    let one = property.get("const").cloned();
    let forms = property["anyOf"].as_array().into_iter().flatten();
    own.into_iter().chain(one).chain(forms.flat_map(words)).collect()
}

#[test]
fn every_component_of_airbyte_has_one_row() {
    let components = components();
    let mut faults = Vec::new();
    for name in components.keys() {
        let count = rows().iter().filter(|row| row.component == name).count();
        if count != 1 {
            faults.push(format!("{name} has {count} rows"));
        }
    }
    let rows = rows();
    let unknown = rows.iter().filter(|row| !components.contains_key(row.component));
    faults.extend(unknown.map(|row| format!("{} is no component", row.component)));
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_option_of_a_component_that_has_keys_is_accounted_for() {
    let components = components();
    let mut faults = Vec::new();
    for row in rows().iter().filter(|row| row.keys != "no") {
        for option in components.get(row.component).into_iter().flatten() {
            if !quoted(row.notes).any(|known| known == option) {
                faults.push(format!("{}: {option}", row.component));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_key_in_the_rows_exists_and_a_row_without_any_says_why() {
    let ours = schema();
    let mut faults = Vec::new();
    for row in rows() {
        match quoted(row.keys).count() {
            0 if row.keys == "no" && !row.notes.is_empty() => {}
            0 => faults.push(format!("{}: neither keys nor a reason", row.component)),
            _ => faults.extend(quoted(row.keys).filter_map(|key| fault(key, &ours))),
        }
        // Notes name other things as well: only what begins as a map of ours does is meant as one.
        let of_ours = |named: &&str| {
            let map = named.split_once('.').map(|(map, _)| map);
            map.is_some_and(|map| ours["$defs"].get(map).is_some())
        };
        faults.extend(
            quoted(row.notes)
                .filter(of_ours)
                .filter_map(|key| fault(key, &ours)),
        );
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn a_key_or_word_that_is_not_ours_is_found() {
    let ours = schema();
    assert_eq!(fault("error.then: split", &ours), None);
    assert_eq!(fault("project.lake", &ours), None);
    assert_eq!(
        fault("retry.wait: x: y", &ours).as_deref(),
        Some("retry.wait: x: y does not exist")
    );
    let word = fault("error.then: skip", &ours);
    assert_eq!(
        word.as_deref(),
        Some("error.then: skip: skip is none of its words")
    );
    assert!(fault("lake", &ours).is_some() && fault("nothing.at", &ours).is_some());
}
