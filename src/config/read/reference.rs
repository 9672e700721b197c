//! The reference of `landfall.yml` for people, made from the tables that the reader reads by.

use std::fmt::Write as _;

use crate::{
    config::read::sections::{PROJECT, all, home, takes},
    yaml::section::{Key, Rule, Section, Takes},
};

/// Whole files, each with a comment that says what it is for.
pub const FILES: [&str; 4] = [
    include_str!("../examples/orders.yml"),
    include_str!("../examples/graphql.yml"),
    include_str!("../examples/reports.yml"),
    include_str!("../examples/exports.yml"),
];

/// What is said once, before the maps.
const PREFACE: &str = "\
# landfall.yml

Every map of the file with its keys: what a key takes, whether it is required or what holds without it, what it means, and
an example. An unknown key is an error. `landfall check --explain` prints every setting in force.

- **Durations** are a whole number and one of ms, s, m, h, d: `30s`. **Sizes** are bytes, or a whole number and one of B, KB, MB,
  GB, TB, KiB, MiB, GiB, TiB: `16MiB`. **Names** have 1 to 63 of a-z, 0-9, _ and -, and begin with a letter or digit.
- **References** are read each time they are used, so that a rotated secret counts at once: `${env:NAME}`, `${file:PATH}` and
  `${exec:PROGRAM ARGUMENT}`, which starts the program without a shell and takes what it prints. `$${` writes `${` itself.
  A secret that stands in the file as it is works and is warned about.
- **Templates** are `{{ … }}` of [minijinja](https://docs.rs/minijinja) in text, **expressions** the same without braces. An
  undefined variable is an error. Quote such text: `\"{{ config.region }}\"`.
- **Paths** are JSONPath (RFC 9535): names, indexes, `[*]` for every element of an array and `.*` for every member of an
  object.
";

/// The reference of `landfall.yml` in Markdown: one part for each map, in which every key has an example.
///
/// ```
/// let reference = landfall::config::read::reference::reference();
/// assert!(reference.contains("\n## rate_limit\n"));
/// ```
pub fn reference() -> String {
    let found = all();
    let mut sections = Vec::new();
    nested(&PROJECT, &found, &mut sections);
    let links: Vec<String> = sections.iter().map(|section| link(section)).collect();
    let mut text = PREFACE.to_owned();
    text.push_str("\n# Whole files\n");
    for file in FILES {
        text.push_str(&format!("\n```yaml\n{file}```\n"));
    }
    text.push_str(&format!("\n# Every map\n\n{}.\n", links.join(", ")));
    for section in &sections {
        // Writing to a String cannot fail.
        let _ = write_section(&mut text, section, &sections);
    }
    text
}

fn write_section(text: &mut String, section: &Section, sections: &[&'static Section]) -> std::fmt::Result {
    writeln!(text, "\n## {}\n\n{}", section.id, section.doc)?;
    let places = places(section, sections);
    if !places.is_empty() {
        writeln!(text, "\nStands at {}.", in_places(&places))?;
    }
    if !section.example.is_empty() {
        let example = match places.first() {
            Some((_, key)) => in_place(key, key.takes, section),
            None => section.example.to_owned(),
        };
        writeln!(text, "\n```yaml\n{example}\n```")?;
    }
    writeln!(text)?;
    for key in section.own {
        write_key(text, key)?;
    }
    for group in section.shared {
        match described(section, group, sections) {
            None => group.iter().try_for_each(|key| write_key(text, key))?,
            Some(other) => {
                let names: Vec<String> = group.iter().map(|key| format!("`{}`", key.name)).collect();
                writeln!(text, "- {}: as in {}", names.join(", "), link(other))?;
            }
        }
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
    let whole = match key.takes {
        Takes::Section(section) if key.example.is_empty() => section.example,
        Takes::Word(word) => word,
        _ => "",
    };
    let examples: Vec<String> = key
        .examples()
        .chain(Some(whole).filter(|whole| !whole.is_empty()))
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
    for (word, meaning) in key.takes.words() {
        match meaning {
            "" => writeln!(text, "  - `{word}`")?,
            meaning => writeln!(text, "  - `{word}`: {meaning}")?,
        }
    }
    Ok(())
}

/// Puts `section` and the maps in it one below the other. `found` is all there are.
fn nested(section: &'static Section, found: &[&'static Section], order: &mut Vec<&'static Section>) {
    order.push(section);
    for inner in found {
        if home(inner).is_some_and(|(parent, _)| parent.id == section.id) {
            nested(inner, found, order);
        }
    }
}

/// The map that has the same keys and stands above `section`.
fn described(
    section: &Section,
    group: &'static [Key],
    sections: &[&'static Section],
) -> Option<&'static Section> {
    let above = sections.iter().take_while(|other| other.id != section.id);
    let texts = |keys: &'static [Key]| keys.iter().map(|key| (key.name, key.doc));
    let same = |keys: &&'static [Key]| texts(keys).eq(texts(group));
    above.copied().find(|other| other.shared.iter().any(&same))
}

/// The keys that take `section`, with the maps they belong to.
fn places(section: &Section, sections: &[&'static Section]) -> Vec<(&'static Section, &'static Key)> {
    let keys = |parent: &'static Section| parent.keys().map(move |key| (parent, key));
    let places = sections.iter().flat_map(|parent| keys(parent));
    places.filter(|(_, key)| takes(key.takes, section)).collect()
}

/// Places with one key together, and keys with the same maps: `poll`, `list` of this map; `send` of those.
fn in_places(places: &[(&'static Section, &'static Key)]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (_, key) in places {
        if !names.contains(&key.name) {
            names.push(key.name);
        }
    }
    let mut groups: Vec<(String, String)> = Vec::new();
    for name in names {
        let with_name = places.iter().filter(|(_, key)| key.name == name);
        let parents: Vec<String> = with_name.map(|(parent, _)| link(parent)).collect();
        let parents = parents.join(", ");
        match groups.last_mut().filter(|(_, known)| *known == parents) {
            Some((names, _)) => names.push_str(&format!(", `{name}`")),
            None => groups.push((format!("`{name}`"), parents)),
        }
    }
    let groups: Vec<String> = groups
        .into_iter()
        .map(|(names, parents)| format!("{names} of {parents}"))
        .collect();
    groups.join("; ")
}

/// The example of `section` behind `key`, which takes it in the form `takes`.
fn in_place(key: &Key, takes: Takes, section: &Section) -> String {
    match takes {
        Takes::Named(_) | Takes::Map(_) => section.example.to_owned(),
        Takes::List(_) => format!("{}: [{}]", key.name, section.example),
        Takes::Either(forms) => match forms.last() {
            Some(form) => in_place(key, *form, section),
            None => section.example.to_owned(),
        },
        _ => format!("{}: {}", key.name, section.example),
    }
}

fn in_words(takes: Takes) -> String {
    match takes {
        Takes::Text => "text".to_owned(),
        Takes::AnyText => "text, perhaps empty".to_owned(),
        Takes::Matching(_, words) => words.to_owned(),
        Takes::Scalar => "text or a number".to_owned(),
        Takes::Reference => "text or a number, with references".to_owned(),
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
            let ways: Vec<String> = sections.iter().map(|section| tag_link(section)).collect();
            format!("a map with `type` {}", ways.join(", "))
        }
        Takes::Either([Takes::List(item), one] | [one, Takes::List(item)])
            if in_words(**item) == in_words(*one) =>
        {
            format!("{}; or a list of them", in_words(*one))
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

/// The word that tells `section` from others in its place.
fn tag_link(section: &Section) -> String {
    let word = section.keys().find_map(|key| match key.takes {
        Takes::Word(word) => Some(word),
        _ => None,
    });
    format!("[{}](#{})", word.unwrap_or(section.id), section.id)
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
        Rule::RequiredUnless(name, other, words) => {
            format!("`{name}` is required unless `{other}` is one of {}.", list(words))
        }
    }
}
