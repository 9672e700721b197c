//! Steps as edits of the file.

use super::{
    place::{Hop, column_mut},
    propose::{Step, What},
};
use crate::{
    contract::{
        Column, ColumnType, Contract, Rules, TimestampFormat,
        odcs::write::{escape, timestamp_format, types, write_property},
    },
    yaml::{
        Problems,
        edit::{Spans, append_item, insert_entry, remove_entry, remove_item, replace},
        parse::parse,
    },
};

/// The file after one step, or after new columns of one object; `after` is the contract after them. `None` if the file is
/// not understood well enough.
pub(super) fn edit(text: &str, steps: &[&Step], after: &Contract) -> Option<String> {
    let (step, others) = steps.split_first()?;
    let file = File { at: &step.at };
    match &step.what {
        What::Add(_) => {
            let mut columns: Vec<&Column> = Vec::with_capacity(steps.len());
            for step in steps {
                match &step.what {
                    What::Add(column) => columns.push(column),
                    _ => return None,
                }
            }
            file.with_columns(text, &columns)
        }
        _ if !others.is_empty() => None,
        What::Optional => Some(replace(
            text,
            file.node(&Spans::read(text)?)?.get("required")?,
            "false",
        )),
        What::NoBounds => file.without_options(text.to_owned(), &["minimum", "maximum"]),
        What::AnyText => {
            let rules = ["pattern", "minLength", "maxLength", "minItems", "maxItems"];
            file.without_options(text.to_owned(), &rules)
        }
        What::Allow(values) => values.iter().try_fold(text.to_owned(), |text, value| {
            let value = escape(value);
            let root = Spans::read(&text)?;
            let list = file.node(&root).and_then(allowed)?;
            append_item(
                &text,
                list,
                |margin| format!("{}- {value}", " ".repeat(margin)),
                &value,
            )
        }),
        What::Retype(kind) => {
            let mut after = after.clone();
            let rules = &column_mut(&mut after, &step.at)?.rules;
            let unique = rules.unique;
            let keeps_rules = *rules
                != Rules {
                    unique,
                    ..Rules::default()
                };
            file.retype(text, kind, keeps_rules)
        }
    }
}

/// Writes a version; `None` if there is none.
pub(super) fn set_version(text: &str, version: &str) -> Option<String> {
    let root = Spans::read(text)?;
    let old = root.get("version")?;
    let quote = match text.as_bytes().get(old.range.start) {
        Some(b'"') => "\"",
        Some(b'\'') => "'",
        _ => "",
    };
    Some(replace(text, old, &format!("{quote}{version}{quote}")))
}

/// The list of allowed values of a property.
fn allowed(property: &Spans) -> Option<&Spans> {
    let is = |item: &Spans, key: &str, word: &str| item.get(key).and_then(Spans::text) == Some(word);
    let quality = property.get("quality").map_or(&[][..], Spans::items);
    let library = quality
        .iter()
        .filter(|item| is(item, "metric", "invalidValues") && is(item, "mustBe", "0"))
        .find_map(|item| item.get("arguments")?.get("validValues"));
    let custom = property.get("customProperties").map_or(&[][..], Spans::items);
    library.or_else(|| {
        custom
            .iter()
            .find(|item| is(item, "property", "enum"))?
            .get("value")
    })
}

/// Whether a physical type says what values are read as.
fn is_ours(physical: &Spans) -> bool {
    let word = physical.text().unwrap_or_default().to_ascii_lowercase();
    ["json", "decimal", "numeric"]
        .iter()
        .any(|ours| word.starts_with(ours))
}

/// A property of the file, or the object with all of them.
struct File<'a> {
    at: &'a [Hop],
}

impl File<'_> {
    fn node<'s>(&self, root: &'s Spans) -> Option<&'s Spans> {
        let table = root.get("schema")?.items().first()?;
        self.at.iter().try_fold(table, |at, hop| match hop {
            Hop::Column(number) => at.get("properties")?.items().get(*number),
            Hop::Element => at.get("items"),
        })
    }

    fn with_columns(&self, text: &str, columns: &[&Column]) -> Option<String> {
        let root = Spans::read(text)?;
        let list = self.node(&root)?.get("properties")?;
        let flow = |column: &&Column| {
            let problems = Problems::new("");
            let flow = parse(&write_property(column, 0), &problems)?.to_json(&problems)?;
            Some(escape(&flow.get(0)?.to_string()))
        };
        let flow: Vec<String> = match list.is_flow() {
            true => columns.iter().map(flow).collect::<Option<_>>()?,
            false => Vec::new(),
        };
        let block = |margin: usize| -> String {
            let items = columns.iter().map(|column| write_property(column, margin));
            items.collect()
        };
        append_item(text, list, block, &flow.join(", "))
    }

    fn retype(&self, text: &str, kind: &ColumnType, keeps_rules: bool) -> Option<String> {
        let (logical, physical) = types(kind);
        let root = Spans::read(text)?;
        let mut text = replace(text, self.node(&root)?.get("logicalType")?, logical);
        let root = Spans::read(&text)?;
        let property = self.node(&root)?;
        text = match (property.get("physicalType"), physical) {
            (Some(known), Some(physical)) => replace(&text, known, &format!("\"{physical}\"")),
            (None, Some(physical)) => insert_entry(
                &text,
                property,
                "logicalType",
                "physicalType",
                &format!("\"{physical}\""),
            )?,
            // Those of the source mean nothing here, but these would.
            (Some(known), None) if is_ours(known) => remove_entry(&text, property, "physicalType")?,
            (_, None) => text,
        };
        if !matches!(kind, ColumnType::Object(_)) {
            text = self.without(text, "properties")?;
        }
        if !matches!(kind, ColumnType::Array(_)) {
            text = self.without(text, "items")?;
        }
        if !keeps_rules {
            text = self.without(text, "logicalTypeOptions")?;
            text = self.without_check(text)?;
            text = self.without_custom(text, "enum")?;
        }
        text = self.without_custom(text, "format")?;
        match kind {
            ColumnType::Timestamp(format @ TimestampFormat::Naive { .. }) => self.with_format(&text, format),
            _ => Some(text),
        }
    }

    fn with_format(&self, text: &str, format: &TimestampFormat) -> Option<String> {
        let format = timestamp_format(format)?;
        let root = Spans::read(text)?;
        let property = self.node(&root)?;
        let flow = format!("{{property: format, value: \"{format}\"}}");
        match property.get("customProperties") {
            Some(list) => {
                let block = |margin: usize| {
                    let margin = " ".repeat(margin);
                    format!("{margin}- property: format\n{margin}  value: \"{format}\"")
                };
                append_item(text, list, block, &flow)
            }
            None => insert_entry(
                text,
                property,
                "logicalType",
                "customProperties",
                &format!("[{flow}]"),
            ),
        }
    }

    /// Takes a key out of the property, if it is there.
    fn without(&self, text: String, key: &str) -> Option<String> {
        let root = Spans::read(&text)?;
        let property = self.node(&root)?;
        match property.get(key) {
            Some(_) => remove_entry(&text, property, key),
            None => Some(text),
        }
    }

    /// Takes keys out of `logicalTypeOptions`, and that with the last of them.
    fn without_options(&self, text: String, keys: &[&str]) -> Option<String> {
        keys.iter().try_fold(text, |text, key| {
            let root = Spans::read(&text)?;
            let Some(options) = self.node(&root)?.get("logicalTypeOptions") else {
                return Some(text);
            };
            match options.get(key) {
                None => Some(text),
                Some(_) if options.len() == 1 => self.without(text.clone(), "logicalTypeOptions"),
                Some(_) => remove_entry(&text, options, key),
            }
        })
    }

    /// Takes the list of allowed values out of `quality`.
    fn without_check(&self, text: String) -> Option<String> {
        self.without_item(text, "quality", |item| {
            item.get("metric").and_then(Spans::text) == Some("invalidValues")
        })
    }

    fn without_custom(&self, text: String, name: &str) -> Option<String> {
        self.without_item(text, "customProperties", |item| {
            item.get("property").and_then(Spans::text) == Some(name)
        })
    }

    /// Takes an item out of a list, and the list with the last of them.
    fn without_item(&self, text: String, key: &str, is_it: impl Fn(&Spans) -> bool) -> Option<String> {
        let root = Spans::read(&text)?;
        let Some(list) = self.node(&root)?.get(key) else {
            return Some(text);
        };
        match list.items().iter().position(is_it) {
            None => Some(text),
            Some(_) if list.len() == 1 => self.without(text.clone(), key),
            Some(at) => remove_item(&text, list, at),
        }
    }
}
