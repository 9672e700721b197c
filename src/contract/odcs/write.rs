//! A contract as YAML.

use std::{collections::HashMap, fmt::Write as _};

use crate::contract::{
    Coercion, Column, ColumnType, Contract, Rules, TimestampFormat,
    diff::below,
    odcs::{NOTE, quality::ENGINE},
    quality::{OnBroken, QualityRule},
};

/// Plain words that other YAML readers take for something else than text.
const WORDS: [&str; 10] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan"];

/// Writes `contract` for the stream the user knows as `stream`, as a file of the standard, version 3.1.0.
///
/// Reading it again gives the same contract. Keys that [`parse`](super::parse) passes over are not in a [`Contract`]
/// and so are not written: rewriting somebody's file would lose them.
pub fn write(contract: &Contract, stream: &str) -> String {
    write_with(contract, stream, &Notes::default())
}

/// What a file says about columns beyond the contract, for people: custom properties called [`NOTE`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// About the table, as JSON text.
    pub table: Option<String>,
    /// About columns by their path, such as `lines[].price`, as JSON text.
    pub columns: HashMap<String, String>,
}

/// As [`write`], with notes.
pub fn write_with(contract: &Contract, stream: &str, notes: &Notes) -> String {
    let mut out = Out {
        text: String::new(),
        notes,
    };
    out.line(0, "apiVersion: v3.1.0");
    out.line(0, "kind: DataContract");
    out.text(0, "id", &contract.id);
    out.text(0, "version", &contract.version);
    out.text(0, "status", &contract.status);
    out.line(0, "schema:");
    out.text(1, "- name", stream);
    out.line(2, "logicalType: object");
    out.line(2, "physicalType: table");
    let rules_of = |column: Option<&str>| -> Vec<&QualityRule> {
        let rules = contract.quality.iter();
        rules.filter(|rule| rule.column.as_deref() == column).collect()
    };
    out.quality(2, None, &rules_of(None));
    if let Some(note) = &notes.table {
        out.line(2, "customProperties:");
        out.note(2, note);
    }
    out.line(2, "properties:");
    let mut position = 0;
    for column in &contract.columns {
        if column.primary_key {
            position += 1;
        }
        out.text(3, "- name", &column.name);
        let path = below("", &column.name);
        let rules = rules_of(Some(&column.name));
        out.property(4, column, &path, column.primary_key.then_some(position), &rules);
    }
    out.text
}

/// Writes one column as an item of `properties`, its dash `indent` spaces from the left.
pub(crate) fn write_property(column: &Column, indent: usize) -> String {
    let notes = Notes::default();
    let mut out = Out {
        text: String::new(),
        notes: &notes,
    };
    out.text(0, "- name", &column.name);
    out.property(1, column, "", None, &[]);
    let margin = " ".repeat(indent);
    out.text
        .lines()
        .fold(String::new(), |text, line| text + &margin + line + "\n")
}

struct Out<'n> {
    text: String,
    notes: &'n Notes,
}

impl Out<'_> {
    fn line(&mut self, indent: usize, text: &str) {
        let _ = writeln!(self.text, "{}{text}", "  ".repeat(indent));
    }

    fn text(&mut self, indent: usize, key: &str, value: &str) {
        self.line(indent, &format!("{key}: {}", scalar(value)));
    }

    fn property(
        &mut self,
        indent: usize,
        column: &Column,
        path: &str,
        position: Option<usize>,
        rules: &[&QualityRule],
    ) {
        if let Some(description) = &column.description {
            self.text(indent, "description", description);
        }
        let (logical, physical) = types(&column.kind);
        self.text(indent, "logicalType", logical);
        if let Some(physical) = physical {
            self.text(indent, "physicalType", &physical);
        }
        if column.required {
            self.line(indent, "required: true");
        }
        if column.rules.unique {
            self.line(indent, "unique: true");
        }
        if column.primary_key {
            self.line(indent, "primaryKey: true");
        }
        if let Some(position) = position {
            self.line(indent, &format!("primaryKeyPosition: {position}"));
        }
        if let Some(classification) = &column.classification {
            self.text(indent, "classification", classification);
        }
        self.options(indent, &column.kind, &column.rules);
        self.quality(indent, column.rules.allowed.as_deref(), rules);
        self.custom(indent, column, path);
        match &column.kind {
            ColumnType::Object(columns) => {
                self.line(indent, "properties:");
                for column in columns {
                    self.text(indent + 1, "- name", &column.name);
                    self.property(indent + 2, column, &below(path, &column.name), None, &[]);
                }
            }
            ColumnType::Array(element) => {
                self.line(indent, "items:");
                self.property(indent + 1, element, &format!("{path}[]"), None, &[]);
            }
            _ => {}
        }
    }

    fn options(&mut self, indent: usize, kind: &ColumnType, rules: &Rules) {
        let (least, most) = match kind {
            ColumnType::Array(_) => ("minItems", "maxItems"),
            _ => ("minLength", "maxLength"),
        };
        let lengths = [(least, rules.length_min), (most, rules.length_max)];
        let bounds = [("minimum", &rules.minimum), ("maximum", &rules.maximum)];
        let lengths = lengths
            .into_iter()
            .filter_map(|(key, value)| Some(format!("{key}: {}", value?)));
        let bounds = bounds
            .into_iter()
            .filter_map(|(key, value)| Some(format!("{key}: {}", value.as_ref()?)));
        let pattern = rules
            .pattern
            .iter()
            .map(|pattern| format!("pattern: {}", scalar(pattern)));
        let lines: Vec<String> = pattern.chain(lengths).chain(bounds).collect();
        if !lines.is_empty() {
            self.line(indent, "logicalTypeOptions:");
        }
        for line in lines {
            self.line(indent + 1, &line);
        }
    }

    fn quality(&mut self, indent: usize, allowed: Option<&[String]>, rules: &[&QualityRule]) {
        if allowed.is_some() || !rules.is_empty() {
            self.line(indent, "quality:");
        }
        if let Some(allowed) = allowed {
            self.allowed(indent, allowed);
        }
        for rule in rules {
            self.line(indent + 1, "- type: custom");
            self.line(indent + 2, &format!("engine: {ENGINE}"));
            self.text(indent + 2, "name", &rule.name);
            if let Some(description) = &rule.description {
                self.text(indent + 2, "description", description);
            }
            if rule.on_broken != OnBroken::Quarantine {
                self.line(indent + 2, &format!("severity: {}", rule.on_broken.severity()));
            }
            self.text(indent + 2, "implementation", &rule.sql);
        }
    }

    /// The standard's way to list valid values: a check that none be invalid.
    fn allowed(&mut self, indent: usize, allowed: &[String]) {
        // JSON text is YAML text, except for the few characters that `escape` takes care of.
        let values: Vec<String> = allowed.iter().map(|value| escape(value)).collect();
        self.line(indent + 1, "- type: library");
        self.line(indent + 2, "metric: invalidValues");
        self.line(indent + 2, "arguments:");
        self.line(indent + 3, "validValues:");
        for value in values {
            self.line(indent + 4, &format!("- {value}"));
        }
        self.line(indent + 2, "mustBe: 0");
    }

    fn custom(&mut self, indent: usize, column: &Column, column_path: &str) {
        let mut custom: Vec<(&str, String)> = Vec::new();
        let usual = column.path.is_empty() || column.path == [column.name.as_str()];
        if !usual {
            custom.push(("path", path(&column.path)));
        }
        if let ColumnType::Timestamp(format) = &column.kind
            && let Some(format) = timestamp_format(format)
        {
            custom.push(("format", scalar(&format)));
        }
        if column.coercion == Coercion::None {
            custom.push(("coercion", "none".to_owned()));
        }
        if let Some(policy) = column.on_mismatch {
            custom.push(("onMismatch", policy.as_str().to_owned()));
        }
        if let Some(policy) = column.on_unknown {
            custom.push(("onUnknown", policy.as_str().to_owned()));
        }
        let note = self.notes.columns.get(column_path);
        if !custom.is_empty() || note.is_some() {
            self.line(indent, "customProperties:");
        }
        for (name, value) in custom {
            self.line(indent + 1, &format!("- property: {name}"));
            self.line(indent + 2, &format!("value: {value}"));
        }
        if let Some(note) = note {
            self.note(indent, note);
        }
    }

    fn note(&mut self, indent: usize, json: &str) {
        self.line(indent + 1, &format!("- property: {NOTE}"));
        self.line(indent + 2, &format!("value: {}", escape(json)));
    }
}

pub(in crate::contract) fn types(kind: &ColumnType) -> (&'static str, Option<String>) {
    match kind {
        ColumnType::String => ("string", None),
        ColumnType::Integer => ("integer", None),
        ColumnType::Number => ("number", None),
        ColumnType::Decimal { precision, scale } => ("number", Some(format!("decimal({precision},{scale})"))),
        ColumnType::Boolean => ("boolean", None),
        ColumnType::Date => ("date", None),
        ColumnType::Timestamp(_) => ("timestamp", None),
        ColumnType::Object(_) => ("object", None),
        ColumnType::Array(_) => ("array", None),
        ColumnType::Json => ("object", Some("json".to_owned())),
    }
}

pub(in crate::contract) fn timestamp_format(format: &TimestampFormat) -> Option<String> {
    match format {
        TimestampFormat::Rfc3339 => None,
        TimestampFormat::EpochSeconds => Some("epoch_s".to_owned()),
        TimestampFormat::EpochMillis => Some("epoch_ms".to_owned()),
        TimestampFormat::Naive { offset_seconds } => {
            let sign = if *offset_seconds < 0 { '-' } else { '+' };
            let offset = offset_seconds.unsigned_abs();
            let (hours, minutes, seconds) = (offset / 3600, offset / 60 % 60, offset % 60);
            let tail = if seconds == 0 {
                String::new()
            } else {
                format!(":{seconds:02}")
            };
            Some(format!("naive:{sign}{hours:02}:{minutes:02}{tail}"))
        }
    }
}

fn path(path: &[String]) -> String {
    if path.iter().any(|name| name.contains('.') || name.is_empty()) {
        let names: Vec<String> = path.iter().map(|name| quote(name)).collect();
        format!("[{}]", names.join(", "))
    } else {
        scalar(&path.join("."))
    }
}

/// Without quotes where every YAML reader agrees that it is text.
pub(in crate::contract) fn scalar(text: &str) -> String {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let plain = text
        .bytes()
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && text.bytes().all(word)
        && !WORDS.contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { quote(text) }
}

fn quote(text: &str) -> String {
    escape(&serde_json::Value::from(text).to_string())
}

/// JSON text with the characters escaped that YAML does not take as they are.
pub(in crate::contract) fn escape(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        let odd = character.is_control()
            || matches!(
                character,
                '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
            );
        if odd {
            let _ = write!(text, "\\u{:04x}", u32::from(character));
        } else {
            text.push(character);
        }
    }
    text
}
