//! Takes known keys out of a map and says everything that is wrong with it.

use std::{fmt, ops::RangeInclusive};

use crate::yaml::{Entry, Kind, Node, Place, Problems, parse, quoted, section::Section};

/// Longer words are not compared with the known ones.
const SUGGEST_BYTES_MAX: usize = 64;

/// A value on its way from the file into a type, with the key it stands under.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    /// Where problems go.
    pub problems: &'a Problems,
    /// The value itself.
    pub node: &'a Node,
    /// The key it stands under, for messages.
    pub key: &'a str,
    /// Where that key is; the value itself for list items.
    pub key_place: Place,
}

/// The keys of one map, checked against its [`Section`].
pub struct Fields<'a> {
    section: &'static Section,
    entries: &'a [Entry],
    owner: Value<'a>,
}

impl<'a> Value<'a> {
    /// The root of a file.
    pub fn root(problems: &'a Problems, node: &'a Node) -> Self {
        Self {
            problems,
            node,
            key: "",
            key_place: Place::START,
        }
    }

    /// Adds a problem at this value and returns `None`, so that a reader can end with it.
    pub fn refuse<T>(&self, message: impl fmt::Display, hint: Option<String>) -> Option<T> {
        let message = match self.key {
            "" => message.to_string(),
            key => format!("{}: {message}", clean(key)),
        };
        self.problems.add(self.node.place, message, hint);
        None
    }

    /// The value is not of the kind wanted. Says nothing about a value already refused.
    pub fn expected<T>(&self, what: &str, hint: Option<&str>) -> Option<T> {
        if self.node.kind == Kind::Refused {
            return None;
        }
        self.refuse(
            format!("expected {what}, found {}", self.node.kind_name()),
            hint.map(str::to_owned),
        )
    }

    /// Opens a map, reporting every key that `section` does not know.
    pub fn fields(self, section: &'static Section) -> Option<Fields<'a>> {
        let entries = self.entries(section.title)?;
        for entry in entries {
            if section.known().any(|name| name == entry.key) {
                continue;
            }
            let name = quoted(&entry.key);
            if section.planned.contains(&entry.key.as_str()) {
                self.problems
                    .add(entry.place, format!("{name} is not available yet"), None);
            } else {
                let known: Vec<&str> = section.known().collect();
                let hint = suggest(&entry.key, &known);
                self.problems
                    .add(entry.place, format!("unknown key {name}"), Some(hint));
            }
        }
        Some(Fields {
            section,
            entries,
            owner: self,
        })
    }

    /// The entries of a map with free keys.
    pub fn entries(self, what: &str) -> Option<&'a [Entry]> {
        match &self.node.kind {
            Kind::Map(entries) => Some(entries),
            _ => self.expected(&format!("a map ({what})"), None),
        }
    }

    /// The value of one entry of a map with free keys.
    pub fn child(self, entry: &'a Entry) -> Value<'a> {
        Value {
            problems: self.problems,
            node: &entry.value,
            key: &entry.key,
            key_place: entry.place,
        }
    }

    /// The items of a list.
    pub fn items(self) -> Option<impl Iterator<Item = Value<'a>>> {
        let Kind::Seq(items) = &self.node.kind else {
            return self.expected("a list", Some("write [one, two]"));
        };
        Some(items.iter().map(move |node| Value {
            node,
            key_place: node.place,
            ..self
        }))
    }

    /// A list of texts, none empty and none twice.
    pub fn text_list(self) -> Option<Vec<String>> {
        let mut texts: Vec<String> = Vec::new();
        let mut good = true;
        for item in self.items()? {
            match item.text() {
                Some(text) if texts.iter().any(|known| known == text) => {
                    good = false;
                    item.refuse::<()>(format!("{} is listed twice", quoted(text)), None);
                }
                Some(text) => texts.push(text.to_owned()),
                None => good = false,
            }
        }
        good.then_some(texts)
    }

    /// Text that is not empty.
    pub fn text(self) -> Option<&'a str> {
        match self.any_text()? {
            "" => self.refuse("must not be empty", None),
            text => Some(text),
        }
    }

    /// Text, perhaps empty.
    pub fn any_text(self) -> Option<&'a str> {
        match &self.node.kind {
            Kind::String(text) => Some(text),
            Kind::Bool(..) | Kind::Int(_) | Kind::Float(_) => self.expected("text", Some("put it in quotes")),
            _ => self.expected("text", None),
        }
    }

    /// Text, a number, true or false, as written.
    pub fn scalar(self) -> Option<&'a str> {
        match self.node.scalar_text() {
            Some(text) => Some(text),
            None => self.expected("text or a number", Some("for an empty text write \"\"")),
        }
    }

    /// `true` or `false`.
    pub fn boolean(self) -> Option<bool> {
        match &self.node.kind {
            Kind::Bool(value, _) => Some(*value),
            _ => self.expected("true or false", None),
        }
    }

    /// A number within `bounds`.
    pub fn number(self, bounds: RangeInclusive<f64>) -> Option<f64> {
        let number = self.node.scalar_text().and_then(|text| text.parse::<f64>().ok());
        match number.filter(|number| bounds.contains(number)) {
            Some(number) => Some(number),
            None => {
                let expected = format!("a number between {} and {}", bounds.start(), bounds.end());
                self.expected(&expected, None)
            }
        }
    }

    /// A whole number within `bounds`.
    pub fn integer(self, bounds: RangeInclusive<u64>) -> Option<u64> {
        let Kind::Int(text) = &self.node.kind else {
            return self.expected("a whole number", None);
        };
        let value = parse::integer(text).and_then(|value| u64::try_from(value).ok());
        match value.filter(|value| bounds.contains(value)) {
            Some(value) => Some(value),
            None => self.refuse(
                format!(
                    "{} is not between {} and {}",
                    clean(text),
                    bounds.start(),
                    bounds.end()
                ),
                None,
            ),
        }
    }

    /// As [`Value::integer`], for settings of 32 bits.
    pub fn integer_u32(self, bounds: RangeInclusive<u32>) -> Option<u32> {
        let value = self.integer(u64::from(*bounds.start())..=u64::from(*bounds.end()))?;
        u32::try_from(value).ok()
    }

    /// One of a few words. `planned` words are refused with a message that says they will come.
    pub fn choice<T: Copy>(self, choices: &[(&'static str, T)], planned: &[&'static str]) -> Option<T> {
        let Some(word) = self.node.scalar_text() else {
            return self.expected("a word", Some(&allowed(choices)));
        };
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == word) {
            return Some(*value);
        }
        if planned.contains(&word) {
            return self.refuse(
                format!("{} is not available yet", quoted(word)),
                Some(allowed(choices)),
            );
        }
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        let hint = match nearest(word, &names) {
            Some(name) => format!("did you mean {name}? {}", allowed(choices)),
            None => allowed(choices),
        };
        self.refuse(format!("{} is not allowed", quoted(word)), Some(hint))
    }

    /// The word under `key`, which says what else the map holds. To be read before [`Value::fields`].
    pub fn tag<T: Copy>(
        self,
        key: &'static str,
        choices: &[(&'static str, T)],
        planned: &[&'static str],
    ) -> Option<T> {
        let entries = self.entries(&format!("with the key {key}"))?;
        match entries.iter().find(|entry| entry.key == key) {
            Some(entry) => self.child(entry).choice(choices, planned),
            None => {
                let message = format!("missing key {} in {}", quoted(key), quoted(self.key));
                self.problems.add(self.key_place, message, Some(allowed(choices)));
                None
            }
        }
    }
}

impl<'a> Fields<'a> {
    /// The value under `key`, or `None` if it is absent or, with a problem, has nothing behind it.
    pub fn value(&self, key: &'static str) -> Option<Value<'a>> {
        debug_assert!(
            self.section.known().any(|name| name == key),
            "{key} is not in the section of {}",
            self.section.title
        );
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        let value = self.owner.child(entry);
        if entry.value.kind != Kind::Null {
            return Some(value);
        }
        if !self.section.null_is_absent {
            value.refuse::<()>("has no value", Some("give it one or remove the key".to_owned()));
        }
        None
    }

    /// What `read` makes of the value under `key`; `None` if it is absent or wrong.
    pub fn optional<T>(&self, key: &'static str, read: impl FnOnce(Value<'a>) -> Option<T>) -> Option<T> {
        self.value(key).and_then(read)
    }

    /// As [`Fields::optional`], and absence is a problem.
    pub fn required<T>(&self, key: &'static str, read: impl FnOnce(Value<'a>) -> Option<T>) -> Option<T> {
        let value = self.value(key);
        let written = self.entries.iter().any(|entry| entry.key == key);
        if value.is_none() && (!written || self.section.null_is_absent) {
            self.missing(&quoted(key));
        }
        value.and_then(read)
    }

    /// Reports that something which must be here is not; `what` is shown as it is.
    pub fn missing(&self, what: &str) {
        let message = match self.owner.key {
            "" => format!("missing key {what}"),
            key => format!("missing key {what} in {}", quoted(key)),
        };
        self.owner.problems.add(self.owner.key_place, message, None);
    }

    /// The map itself.
    pub fn owner(&self) -> Value<'a> {
        self.owner
    }
}

/// What an unknown word was perhaps meant to be, or the known ones.
fn suggest(word: &str, known: &[&str]) -> String {
    match nearest(word, known) {
        Some(name) => format!("did you mean {name:?}?"),
        None => format!("known keys: {}", known.join(", ")),
    }
}

fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    if word.len() > SUGGEST_BYTES_MAX {
        return None;
    }
    let lower = word.to_lowercase().replace('-', "_");
    known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), *name))
        .filter(|(distance, name)| *distance <= name.len().max(lower.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

fn allowed<T>(choices: &[(&'static str, T)]) -> String {
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    format!("allowed: {}", names.join(", "))
}

/// Without the quotes of [`quoted`] where a word needs none.
fn clean(word: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "_-+.".contains(character);
    if word.len() <= SUGGEST_BYTES_MAX && word.chars().all(plain) {
        word.to_owned()
    } else {
        quoted(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static FRUIT: Section =
        Section::names("a fruit", &["name", "color", "weight", "ripe", "tags", "seeds"]).planned(&["price"]);

    type Fruit = (String, u8, u64, Option<bool>, Vec<String>);

    fn fruit(value: Value<'_>) -> Option<Fruit> {
        let fields = value.fields(&FRUIT)?;
        let name = fields.required("name", Value::text);
        let color = fields.required("color", |value| {
            value.choice(&[("red", 0), ("green", 1)], &["blue"])
        });
        let weight = fields.required("weight", |value| value.integer(1..=1000));
        let ripe = fields.optional("ripe", Value::boolean);
        let tags = fields.optional("tags", Value::text_list).unwrap_or_default();
        Some((name?.to_owned(), color?, weight?, ripe, tags))
    }

    fn read(text: &str) -> String {
        let problems = Problems::new("f.yml");
        let value = parse::parse(text, &problems).and_then(|node| fruit(Value::root(&problems, &node)));
        match problems.finish(value) {
            Ok((fruit, _)) => format!("{fruit:?}"),
            Err(found) => found.iter().map(|one| format!("{one}\n")).collect(),
        }
    }

    #[test]
    fn a_good_map_is_read() {
        let text = "name: apple\ncolor: green\nweight: 200\nripe: false\ntags: [a, b]\n";
        assert_eq!(read(text), r#"("apple", 1, 200, Some(false), ["a", "b"])"#);
    }

    #[test]
    fn r020_every_problem_of_a_map_is_reported_at_once() {
        insta::assert_snapshot!(read("nmae: apple\nweight: 0\ncolor: gren\nripe: no\ntags: [a, 1, a, '']\nprice: 3\nzzz: 1\n"), @r#"
        f.yml:1:1: missing key "name"
        f.yml:1:1: unknown key "nmae"
          hint: did you mean "name"?
        f.yml:2:9: weight: 0 is not between 1 and 1000
        f.yml:3:8: color: "gren" is not allowed
          hint: did you mean green? allowed: red, green
        f.yml:4:7: ripe: expected true or false, found text
        f.yml:5:11: tags: expected text, found a whole number
          hint: put it in quotes
        f.yml:5:14: tags: "a" is listed twice
        f.yml:5:17: tags: must not be empty
        f.yml:6:1: "price" is not available yet
        f.yml:7:1: unknown key "zzz"
          hint: known keys: name, color, weight, ripe, tags, seeds
        "#);
        insta::assert_snapshot!(read("name: 12\ncolor: blue\nweight: [1]\nripe:\ntags: a\n"), @r#"
        f.yml:1:7: name: expected text, found a whole number
          hint: put it in quotes
        f.yml:2:8: color: "blue" is not available yet
          hint: allowed: red, green
        f.yml:3:9: weight: expected a whole number, found a list
        f.yml:4:5: ripe: has no value
          hint: give it one or remove the key
        f.yml:5:7: tags: expected a list, found text
          hint: write [one, two]
        "#);
        insta::assert_snapshot!(read("[1]"), @"f.yml:1:1: expected a map (a fruit), found a list");
    }

    #[test]
    fn a_value_already_refused_is_not_reported_twice() {
        insta::assert_snapshot!(read("name: &a x\ncolor: *a\nweight: 5\n"), @"
        f.yml:1:10: anchors (&name) are not allowed
          hint: write the value out
        f.yml:2:8: aliases (*name) are not allowed
          hint: write the value out
        ");
    }
}
