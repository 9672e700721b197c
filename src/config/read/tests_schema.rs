use std::path::Path;

use crate::config::{
    explain::explain,
    read::{SCHEMA, parse, sections},
};

const MINIMAL: &str = include_str!("../../../fixtures/config/minimal.yml");

/// The objects of the schema that list properties, by pointer.
fn objects<'s>(node: &'s serde_json::Value, pointer: &str, found: &mut Vec<(String, Vec<&'s str>)>) {
    let Some(members) = node.as_object() else { return };
    if let (Some(properties), Some(_)) = (members.get("properties"), members.get("additionalProperties")) {
        found.push((
            pointer.to_owned(),
            properties
                .as_object()
                .unwrap()
                .keys()
                .map(String::as_str)
                .collect(),
        ));
    }
    for (name, member) in members {
        objects(member, &format!("{pointer}/{name}"), found);
    }
}

#[test]
fn r020_parser_and_schema_know_the_same_keys() {
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    let mut found = Vec::new();
    objects(&schema, "", &mut found);
    let mut known: Vec<(String, Vec<&str>)> = sections::ALL
        .iter()
        .map(|section| (section.schema.to_owned(), section.keys.to_vec()))
        .collect();
    for (_, keys) in found.iter_mut().chain(&mut known) {
        keys.sort_unstable();
    }
    found.sort();
    known.sort();
    assert_eq!(found, known);
    for (pointer, keys) in &found {
        let object = schema.pointer(pointer).unwrap();
        assert_eq!(object["additionalProperties"], false, "{pointer}");
        assert!(object["description"].is_string(), "{pointer}");
        for key in keys {
            let property = &object["properties"][key];
            let described = property["description"].is_string() || property["$ref"].is_string();
            assert!(described, "{pointer}/{key}");
        }
    }
}

#[test]
fn r020_the_defaults_of_the_schema_hold() {
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    // Writing every default out must not change what is explained.
    let defaults = |pointer: &str| -> String {
        let object = schema.pointer(pointer).unwrap()["properties"]
            .as_object()
            .unwrap()
            .clone();
        let pairs: Vec<String> = object
            .iter()
            .filter_map(|(key, property)| Some(format!("{key}: {}", property.get("default")?)))
            .collect();
        pairs.join(", ")
    };
    let memory = defaults("");
    let mut text = MINIMAL.replace("lake: ./lake", &format!("lake: ./lake\n{memory}"));
    let mut source = String::new();
    for key in ["retry", "timeouts", "limits"] {
        source.push_str(&format!(
            "{key}: {{ {} }}\n    ",
            defaults(&format!("/$defs/{key}"))
        ));
    }
    text = text.replace("streams:", &format!("{source}streams:"));
    let mut stream = String::new();
    for key in ["drift", "commit"] {
        stream.push_str(&format!(
            "{key}: {{ {} }}\n        ",
            defaults(&format!("/$defs/{key}"))
        ));
    }
    let other = defaults("/$defs/stream");
    stream.push_str(&other.replace(", ", "\n        "));
    text = text.replace(
        "request: { path: /orders }",
        &format!(
            "request: {{ path: /orders, {} }}\n        {stream}",
            defaults("/$defs/request")
        ),
    );
    text = text.replace("keys: [id]", &format!("keys: [id], {}", defaults("/$defs/table")));
    let explained = |text: &str| explain(&parse(text, Path::new("/srv/shop")).unwrap().project);
    assert_eq!(explained(&text), explained(MINIMAL), "{text}");
}
