//! The JSON Schema of `landfall.yml`, made from the tables that the reader reads by.

use serde_json::{Map, Value as Json, json};

use crate::{
    config::read::sections,
    yaml::{
        Problems,
        parse::parse,
        section::{Key, Rule, Section, Takes},
    },
};

/// The JSON Schema (draft 2020-12) of `landfall.yml`, for editors.
///
/// ```
/// let schema = landfall::config::read::schema::schema();
/// assert_eq!(schema["properties"]["memory"]["default"], "1GiB");
/// ```
pub fn schema() -> Json {
    let mut defs = kinds();
    for section in sections::all() {
        defs.insert(section.id.to_owned(), map(section));
    }
    let mut root = defs.remove(sections::PROJECT.id).unwrap_or_default();
    root["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    root["title"] = super::FILE_NAME.into();
    root["$defs"] = Json::Object(defs);
    root
}

/// One line of YAML from a table as JSON; null if it is none.
pub(super) fn yaml(text: &str) -> Json {
    let problems = Problems::new("");
    parse(text, &problems)
        .and_then(|node| node.to_json(&problems))
        .unwrap_or_default()
}

/// One word of a choice as the file would hold it: digits alone are a number.
pub(super) fn word(word: &str) -> Json {
    match word.parse::<u64>() {
        Ok(number) => number.into(),
        Err(_) => word.into(),
    }
}

/// Values that occur everywhere, each described once.
fn kinds() -> Map<String, Json> {
    let kinds = json!({
        "name": {
            "description": "A name: 1 to 63 of a-z, 0-9, _ and -, beginning with a letter or digit.",
            "type": "string",
            "pattern": "^[a-z0-9][a-z0-9_-]{0,62}$",
        },
        "duration": {
            "description": "A whole number and a unit: ms, s, m, h or d.",
            "type": "string",
            "pattern": "^[0-9]+(ms|s|m|h|d)$",
            "examples": ["30s", "5m", "1h"],
        },
        "size": {
            "description": "A whole number of bytes, or with a unit: B, KB, MB, GB, TB, KiB, MiB, GiB or TiB.",
            "anyOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": "^[0-9]+([KMGT]i?B|B)?$" },
            ],
            "examples": ["16MiB"],
        },
        "secret": {
            "description": "A secret by reference: `${env:NAME}`, `${file:PATH}` or `${exec:PROGRAM ARGUMENT}`. A literal works and is warned about.",
            "type": "string",
            "examples": ["${env:API_TOKEN}"],
        },
        "reference": {
            "description": "Text or a number; in text `${env:NAME}`, `${file:PATH}` and `${exec:PROGRAM ARGUMENT}` are references.",
            "type": ["string", "number", "boolean"],
        },
        "template": {
            "description": "Text or a number; in text `{{ … }}` is a template, and `${env:NAME}`, `${file:PATH}` and `${exec:PROGRAM ARGUMENT}` are references.",
            "type": ["string", "number", "boolean"],
        },
        "expression": {
            "description": "An expression of the template language, without braces.",
            "type": "string",
            "minLength": 1,
            "examples": ["response.status == \"done\""],
        },
        "path": {
            "description": "A JSONPath: names, indexes, `[*]` and `.*`.",
            "type": "string",
            "minLength": 1,
            "examples": ["$.data[*]"],
        },
        "place": {
            "description": "A JSONPath into the body of a response, or `header:NAME`.",
            "type": "string",
            "minLength": 1,
            "examples": ["$.next_cursor", "header:X-Next"],
        },
    });
    match kinds {
        Json::Object(kinds) => kinds,
        _ => Map::new(),
    }
}

fn map(section: &Section) -> Json {
    let properties: Map<String, Json> = section
        .keys()
        .map(|key| (key.name.to_owned(), property(key)))
        .collect();
    let required: Vec<&str> = section
        .keys()
        .filter(|key| key.required)
        .map(|key| key.name)
        .collect();
    let mut map = json!({
        "description": section.doc,
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    });
    if !required.is_empty() {
        map["required"] = json!(required);
    }
    let rules: Vec<Json> = section.rules.iter().map(rule).collect();
    if !rules.is_empty() {
        map["allOf"] = json!(rules);
    }
    map
}

fn rule(rule: &Rule) -> Json {
    let has =
        |names: &[&str]| -> Vec<Json> { names.iter().map(|name| json!({ "required": [name] })).collect() };
    match rule {
        Rule::One(names) => json!({ "oneOf": has(names) }),
        Rule::AtLeastOne(names) => json!({ "anyOf": has(names) }),
        Rule::AtMostOne(names) => {
            let mut ways = has(names);
            ways.push(json!({ "not": { "anyOf": has(names) } }));
            json!({ "oneOf": ways })
        }
        Rule::RequiredUnless(name, other, words) => {
            let words: Vec<Json> = words.iter().map(|text| word(text)).collect();
            json!({ "anyOf": [
                { "required": [name] },
                { "required": [other], "properties": { *other: { "enum": words } } },
            ] })
        }
    }
}

fn property(key: &Key) -> Json {
    let mut property = value(key.takes);
    let mut description = key.doc.to_owned();
    for (word, meaning) in key
        .takes
        .words()
        .into_iter()
        .filter(|(_, meaning)| !meaning.is_empty())
    {
        description.push_str(&format!(" {word}: {meaning}."));
    }
    property["description"] = description.into();
    if let Some(default) = key.default {
        property["default"] = yaml(default);
    }
    let examples: Vec<Json> = key.examples().map(yaml).collect();
    if !examples.is_empty() {
        property["examples"] = json!(examples);
    }
    property
}

fn value(takes: Takes) -> Json {
    match takes {
        Takes::Text | Takes::File => json!({ "type": "string", "minLength": 1 }),
        Takes::AnyText => json!({ "type": "string" }),
        Takes::Matching(pattern, _) => json!({ "type": "string", "pattern": pattern }),
        Takes::Scalar => json!({ "type": ["string", "number", "boolean"] }),
        Takes::Boolean => json!({ "type": "boolean" }),
        Takes::Integer(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Takes::Number(least, most) => json!({ "type": "number", "minimum": least, "maximum": most }),
        Takes::Url => json!({ "type": "string", "format": "uri", "pattern": "^https?://" }),
        Takes::Word(word) => json!({ "const": word }),
        Takes::Choice(words) => {
            let words: Vec<Json> = words.iter().map(|(name, _)| word(name)).collect();
            json!({ "enum": words })
        }
        Takes::Json => json!({}),
        Takes::List(item) => json!({ "type": "array", "items": value(*item) }),
        Takes::Map(item) => json!({ "type": "object", "additionalProperties": value(*item) }),
        Takes::Named(section) => json!({
            "type": "object",
            "minProperties": 1,
            "propertyNames": defined("name"),
            "additionalProperties": defined(section.id),
        }),
        Takes::Section(section) => defined(section.id),
        Takes::Tagged(sections) => {
            let ways: Vec<Json> = sections.iter().map(|section| defined(section.id)).collect();
            json!({ "oneOf": ways })
        }
        Takes::Either(forms) => {
            let ways: Vec<Json> = forms.iter().map(|form| value(*form)).collect();
            json!({ "anyOf": ways })
        }
        Takes::Reference => defined("reference"),
        Takes::Template => defined("template"),
        Takes::Secret => defined("secret"),
        Takes::Expression => defined("expression"),
        Takes::Duration => defined("duration"),
        Takes::Size => defined("size"),
        Takes::Path => defined("path"),
        Takes::Place => defined("place"),
        Takes::Name => defined("name"),
    }
}

fn defined(name: &str) -> Json {
    json!({ "$ref": format!("#/$defs/{name}") })
}
