use std::{collections::BTreeSet, path::Path};

use serde_json::Value as Json;

use super::{
    parse,
    reference::{FILES, reference},
    samples::{file, samples, values, with},
    schema::{schema, yaml},
    sections,
};
use crate::{
    config::explain::explain,
    yaml::section::{Rule, Takes},
};

fn explained(file: &Json, about: &str) -> String {
    match parse(&file.to_string(), Path::new("/srv/shop")) {
        Ok(loaded) => explain(&loaded.project),
        Err(problems) => {
            let problems: String = problems.iter().map(|problem| format!("\n{problem}")).collect();
            panic!("{about}\n{file:#}{problems}")
        }
    }
}

#[test]
fn r020_every_example_of_the_reference_is_read() {
    for sample in samples() {
        explained(&sample.file, &sample.about);
    }
}

#[test]
fn r020_the_whole_files_of_the_reference_are_read_without_a_warning() {
    for file in FILES {
        let loaded = parse(file, Path::new("/srv/shop")).map_err(|problems| {
            let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
            shown.join("\n")
        });
        assert_eq!(loaded.unwrap().warnings, [], "{file}");
    }
}

#[test]
fn r020_every_default_of_the_reference_holds() {
    for section in sections::all() {
        for key in section.keys() {
            let Some(default) = key.default else { continue };
            let about = format!("{}.{}: {default}", section.id, key.name);
            let written = with(section, key, &yaml(default));
            let mut left_out = written.clone();
            left_out.as_object_mut().unwrap().remove(key.name);
            let left_out = explained(&file(section, left_out), &about);
            assert_eq!(explained(&file(section, written), &about), left_out, "{about}");
        }
    }
}

/// If a setting were not read, or not shown, nobody would notice.
#[test]
fn r020_every_setting_is_read_and_explained() {
    let read = |file: &Json| parse(&file.to_string(), Path::new("/srv/shop")).ok();
    // The columns of a longer name stand further right.
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines = |text: &str| text.lines().map(words).collect::<Vec<String>>();
    for section in sections::all() {
        for key in section.keys() {
            let wrong = with(section, key, &serde_json::json!([[[1]]]));
            let json = matches!(key.takes, Takes::Json);
            assert!(
                json || read(&file(section, wrong)).is_none(),
                "{}.{} is not read",
                section.id,
                key.name
            );
            for value in values(key) {
                let written = with(section, key, &value);
                let mut left_out = written.clone();
                left_out.as_object_mut().unwrap().remove(key.name);
                // What is required cannot be left out.
                let Some(left_out) = read(&file(section, left_out)) else {
                    continue;
                };
                if key.default.map(yaml).as_ref() == Some(&value) {
                    continue;
                }
                let about = format!("{}.{}: {value}", section.id, key.name);
                let before = lines(&explain(&left_out.project));
                let after = lines(&explained(&file(section, written), &about));
                let told = |line: &&String| !before.contains(*line) && !line.ends_with("(default)");
                assert!(
                    after.iter().any(|line| told(&line)),
                    "{about} is not shown\n{after:#?}"
                );
            }
        }
    }
}

#[test]
fn r054_no_setting_that_may_be_secret_is_explained() {
    let mut tried = 0;
    for section in sections::all() {
        for key in section.keys() {
            let value: Json = match key.takes {
                Takes::Secret | Takes::Reference => "hunter2".into(),
                Takes::Map(Takes::Reference | Takes::Template) => serde_json::json!({ "name": "hunter2" }),
                _ => continue,
            };
            let file = file(section, with(section, key, &value));
            // Some secrets have a form, and some names are given.
            let Ok(loaded) = parse(&file.to_string(), Path::new("/srv/shop")) else {
                continue;
            };
            tried += 1;
            let text = explain(&loaded.project);
            assert!(!text.contains("hunter2"), "{}.{}\n{text}", section.id, key.name);
        }
    }
    assert!(tried > 10, "{tried}");
}

#[test]
fn r020_every_key_is_described_and_has_an_example() {
    let mut ids = BTreeSet::new();
    for section in sections::all() {
        assert!(ids.insert(section.id), "{} is the id of two maps", section.id);
        assert!(section.doc.ends_with('.'), "{}", section.id);
        let mut names = BTreeSet::new();
        for key in section.keys() {
            let about = format!("{}.{}", section.id, key.name);
            assert!(names.insert(key.name), "{about} is there twice");
            assert!(key.doc.ends_with('.'), "{about}: {}", key.doc);
            assert!(!values(key).is_empty(), "{about} has no example");
            assert!(!key.required || key.default.is_none(), "{about}");
        }
        for rule in section.rules {
            let of_rule: Vec<&str> = match rule {
                Rule::One(names) | Rule::AtMostOne(names) | Rule::AtLeastOne(names) => names.to_vec(),
                Rule::RequiredUnless(name, other, _) => vec![name, other],
            };
            assert!(of_rule.iter().all(|name| names.contains(name)), "{}", section.id);
        }
    }
}

#[test]
fn r020_the_schema_has_every_map_and_every_key() {
    let schema = schema();
    for section in sections::all() {
        let map = match section.id {
            "project" => &schema,
            id => &schema["$defs"][id],
        };
        assert_eq!(map["additionalProperties"], false, "{}", section.id);
        assert_eq!(map["description"], section.doc);
        let properties = map["properties"].as_object().unwrap();
        assert_eq!(properties.len(), section.keys().count(), "{}", section.id);
        for key in section.keys() {
            let description = properties[key.name]["description"].as_str().unwrap();
            assert!(description.starts_with(key.doc), "{}.{}", section.id, key.name);
        }
    }
}

#[test]
fn r020_the_reference_has_every_map_and_every_key() {
    let reference = reference();
    let parts: Vec<&str> = reference.split("\n## ").skip(1).collect();
    let sections = sections::all();
    assert_eq!(parts.len(), sections.len());
    for section in sections {
        let part = parts
            .iter()
            .find(|part| part.lines().next() == Some(section.id))
            .unwrap();
        for key in section.keys() {
            let elsewhere =
                |line: &&str| line.contains(": as in [") && line.contains(&format!("`{}`", key.name));
            if part.lines().any(|line| elsewhere(&line)) {
                continue;
            }
            let line = part
                .lines()
                .find(|line| line.starts_with(&format!("- `{}` (", key.name)));
            let line = line.unwrap_or_else(|| panic!("{}.{}", section.id, key.name));
            assert!(line.contains(key.doc) && line.contains(key.example), "{line}");
        }
    }
    let part = parts.iter().find(|part| part.starts_with("drift\n")).unwrap();
    insta::assert_snapshot!(part, @"
    drift

    What to do with what the contract does not say.

    Stands at `drift` of [stream](#stream).

    ```yaml
    drift: { on_unknown: quarantine }
    ```

    - `on_unknown` (one of the words below; default `rescue`): Fields the contract does not name. Example: `on_unknown: quarantine`.
      - `rescue`: kept as JSON in `_rescued`
      - `evolve`: a column is added to the contract, as a draft does by itself
      - `ignore`: counted only; raw keeps it
      - `quarantine`: the record is set aside
    - `on_mismatch` (one of the words below; default `quarantine`): Values that do not fit their column. Example: `on_mismatch: rescue`.
      - `quarantine`: the record is set aside
      - `rescue`: the column is null and the value is kept in `_rescued`
      - `fail`: nothing is written and the transform ends with exit code 3
      - `evolve`: the column gets a type that also holds what it held, as in a draft; without one the record is set aside
    ");
}
