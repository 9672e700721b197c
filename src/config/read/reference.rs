//! The reference of `landfall.yml` for people, made from the tables that the reader reads by.

use std::fmt::Write as _;

use crate::{
    config::read::sections::{all, sections_of},
    yaml::section::{Key, Rule, Section, Takes},
};

/// What is said once, before the maps.
const PREFACE: &str = "\
# landfall.yml

Every map of the file with its keys: what a key takes, whether it is required or what holds without it, what it means, and
an example. An unknown key is an error. `landfall check --explain` prints every setting in force.

- **Durations** are a whole number and one of ms, s, m, h, d: `30s`. **Sizes** are bytes, or a whole number and one of B, KB, MB,
  GB, TB, KiB, MiB, GiB, TiB: `16MiB`. **Names** have 1 to 63 of a-z, 0-9, _ and -, and begin with a letter or digit.
- **Secrets** are given by reference and read each time they are used: REFERENCES. A secret that stands in the file
  works and is warned about; `$${` writes `${` itself.
- **Templates** are `{{ … }}` of [minijinja](https://docs.rs/minijinja) in text, **expressions** the same without braces. An
  undefined variable is an error. Quote such text: `\"{{ config.region }}\"`.
- **Paths** are JSONPath (RFC 9535): names, indexes and `[*]`.
";

/// How secrets may be given.
const REFERENCES: &str = "`${env:NAME}`, `${file:PATH}`";

/// The reference of `landfall.yml` in Markdown: one part for each map, in which every key has an example.
///
/// ```
/// let reference = landfall::config::read::reference::reference();
/// assert!(reference.contains("\n## rate_limit\n"));
/// ```
pub fn reference() -> String {
    let sections = all();
    let links: Vec<String> = sections.iter().map(|section| link(section)).collect();
    let mut text = PREFACE.replace("REFERENCES", REFERENCES);
    text.push_str(&format!("\nThe maps: {}.\n", links.join(", ")));
    for section in &sections {
        // Writing to a String cannot fail.
        let _ = write_section(&mut text, section, &sections);
    }
    text
}

fn write_section(text: &mut String, section: &Section, sections: &[&'static Section]) -> std::fmt::Result {
    writeln!(text, "\n## {}\n\n{}", section.id, section.doc)?;
    let places = places(section, sections);
    let links: Vec<String> = places
        .iter()
        .map(|(parent, key)| format!("`{}` of {}", key.name, link(parent)))
        .collect();
    if !links.is_empty() {
        writeln!(text, "\nStands at {}.", links.join(", "))?;
    }
    if !section.example.is_empty() {
        let around = match places.first() {
            Some((_, key)) if matches!(key.takes, Takes::Section(_) | Takes::Tagged(_)) => {
                format!("{}: ", key.name)
            }
            _ => String::new(),
        };
        writeln!(text, "\n```yaml\n{around}{}\n```", section.example)?;
    }
    writeln!(text)?;
    for key in section.keys() {
        write_key(text, key)?;
    }
    if !section.rules.is_empty() {
        writeln!(text)?;
    }
    for rule in section.rules {
        writeln!(text, "{}", rule_in_words(rule))?;
    }
    Ok(())
}

fn write_key(text: &mut String, key: &Key) -> std::fmt::Result {
    let need = match (key.required, key.default) {
        (true, _) => "; required".to_owned(),
        (false, Some(default)) => format!("; default `{default}`"),
        (false, None) => String::new(),
    };
    write!(
        text,
        "- `{}` ({}{need}): {}",
        key.name,
        in_words(key.takes),
        key.doc
    )?;
    let examples: Vec<String> = key
        .examples()
        .map(|example| format!("`{}: {example}`", key.name))
        .collect();
    if !examples.is_empty() {
        write!(text, " Example: {}", examples.join(" or "))?;
        if !key.beside.is_empty() {
            write!(text, " with `{}`", key.beside)?;
        }
        text.push('.');
    }
    writeln!(text)?;
    if let Takes::Choice(words) = key.takes {
        for (word, meaning) in words {
            writeln!(text, "  - `{word}`: {meaning}")?;
        }
    }
    Ok(())
}

/// The keys that take `section`, with the maps they belong to.
fn places(section: &Section, sections: &[&'static Section]) -> Vec<(&'static Section, &'static Key)> {
    let takes = |key: &Key| {
        let mut found = false;
        sections_of(key.takes, &mut |inner| found |= inner.id == section.id);
        found
    };
    let keys = |parent: &'static Section| parent.keys().map(move |key| (parent, key));
    let places = sections.iter().flat_map(|parent| keys(parent));
    places.filter(|(_, key)| takes(key)).collect()
}

fn in_words(takes: Takes) -> String {
    match takes {
        Takes::Text => "text".to_owned(),
        Takes::AnyText => "text, perhaps empty".to_owned(),
        Takes::Matching(_, words) => words.to_owned(),
        Takes::Scalar => "text or a number".to_owned(),
        Takes::Template => "text or a number, with templates and references".to_owned(),
        Takes::Secret => "a secret".to_owned(),
        Takes::Expression => "an expression".to_owned(),
        Takes::Boolean => "true or false".to_owned(),
        Takes::Integer(least, most) => format!("a whole number from {least} to {most}"),
        Takes::Number(least, most) => format!("a number from {least} to {most}"),
        Takes::Duration => "a duration".to_owned(),
        Takes::Size => "a size".to_owned(),
        Takes::Path => "a JSONPath".to_owned(),
        Takes::Place => "a JSONPath into the body, or `header:NAME`".to_owned(),
        Takes::Url => "an http or https URL".to_owned(),
        Takes::File => "a path relative to the project".to_owned(),
        Takes::Name => "a name".to_owned(),
        Takes::Word(word) => format!("`{word}`"),
        Takes::Choice(_) => "one of the words below".to_owned(),
        Takes::Json => "any JSON".to_owned(),
        Takes::List(item) => format!("a list; each item: {}", in_words(*item)),
        Takes::Map(item) => format!("a map of names; each value: {}", in_words(*item)),
        Takes::Named(section) => format!("a map of names; each value: {}", link(section)),
        Takes::Section(section) => link(section),
        Takes::Tagged(sections) => {
            let ways: Vec<String> = sections.iter().map(|section| link(section)).collect();
            format!("one of {}", ways.join(", "))
        }
        Takes::Either(forms) => {
            let ways: Vec<String> = forms.iter().map(|form| in_words(*form)).collect();
            ways.join(", or ")
        }
    }
}

fn link(section: &Section) -> String {
    format!("[{0}](#{0})", section.id)
}

fn rule_in_words(rule: &Rule) -> String {
    let list = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        names.join(", ")
    };
    match rule {
        Rule::One(names) => format!("Exactly one of {}.", list(names)),
        Rule::AtMostOne(names) => format!("At most one of {}.", list(names)),
        Rule::AtLeastOne(names) => format!("At least one of {}.", list(names)),
        Rule::RequiredUnless(name, other, word) => {
            format!("`{name}` is required unless `{other}` is `{word}`.")
        }
    }
}
