//! Whole files around every example of the reference, for tests of the reader and of editors.

use serde_json::{Map, Value as Json, json};

use crate::{
    config::read::{
        schema::{word, yaml},
        sections,
    },
    yaml::section::{Key, Rule, Section, Takes},
};

/// What sources and streams are called in the files.
const NAME: &str = "shop";

/// A whole `landfall.yml` that shows one value of one key.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The map, the key and its value: `commit.pages: 10`.
    pub about: String,
    /// The file as JSON, which is YAML too.
    pub file: Json,
}

/// A file for every example of every key, and for every word where a key takes one of several.
///
/// ```
/// use landfall::config::read::{parse, samples::samples};
/// for sample in samples() {
///     let read = parse(&sample.file.to_string(), std::path::Path::new("/srv/shop"));
///     assert!(read.is_ok(), "{}", sample.about);
/// }
/// ```
pub fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for section in sections::all() {
        for key in section.keys() {
            samples.extend(values(key).into_iter().map(|value| Sample {
                about: format!("{}.{}: {value}", section.id, key.name),
                file: file(section, with(section, key, &value)),
            }));
        }
    }
    samples
}

/// A map of `section` with `value` under `key` and what else is needed.
pub(super) fn with(section: &Section, key: &Key, value: &Json) -> Json {
    let mut members = whole(section);
    members.remove(key.name);
    for rule in section.rules {
        if let Rule::One(names) | Rule::AtMostOne(names) = rule
            && names.contains(&key.name)
        {
            members.retain(|name, _| !names.contains(&name.as_str()));
        }
    }
    if let Json::Object(beside) = yaml(key.beside) {
        members.extend(beside);
    }
    members.insert(key.name.to_owned(), value.clone());
    Json::Object(members)
}

/// The file around `map`, which is one of `section`.
pub(super) fn file(section: &'static Section, map: Json) -> Json {
    let (mut section, mut map) = (section, map);
    // Each step leads nearer to the root.
    while let Some((parent, key)) = sections::home(section) {
        map = with(parent, key, &wrapped(key.takes, section, map));
        // Some places are in a body, and only such a request has one.
        if parent.id == sections::STREAM.id && key.name != "request" {
            map["request"]["method"] = "POST".into();
        }
        section = parent;
    }
    map
}

/// Every value of the tables that `key` can have.
pub(super) fn values(key: &Key) -> Vec<Json> {
    let mut values: Vec<Json> = key.examples().map(yaml).collect();
    match key.takes {
        Takes::Word(word) => values.push(word.into()),
        Takes::Choice(_) | Takes::Either(_) => {
            values.extend(key.takes.words().iter().map(|(name, _)| word(name)));
        }
        Takes::Section(section) if values.is_empty() => values.push(Json::Object(whole(section))),
        Takes::Named(section) if values.is_empty() => values.push(json!({ NAME: whole(section) })),
        _ => {}
    }
    values
}

/// The example of `section`, or its required keys with theirs.
fn whole(section: &Section) -> Map<String, Json> {
    if let Json::Object(example) = yaml(section.example) {
        return example;
    }
    let required = section.keys().filter(|key| key.required);
    required
        .filter_map(|key| Some((key.name.to_owned(), values(key).into_iter().next()?)))
        .collect()
}

/// `map` in the lists and maps that stand around it.
fn wrapped(form: Takes, section: &Section, map: Json) -> Json {
    match form {
        // The examples of parents and of routes name this one.
        Takes::Named(inner) if inner.id == sections::STREAM.id => {
            json!({ NAME: map, "orders": { "request": { "path": "/orders" }, "push": {}, "table": { "keys": ["id"] } } })
        }
        Takes::Named(_) => json!({ NAME: map }),
        Takes::List(item) => json!([wrapped(*item, section, map)]),
        Takes::Map(item) => json!({ NAME: wrapped(*item, section, map) }),
        Takes::Either(forms) => match forms.iter().find(|form| sections::takes(**form, section)) {
            Some(form) => wrapped(*form, section, map),
            None => map,
        },
        _ => map,
    }
}
