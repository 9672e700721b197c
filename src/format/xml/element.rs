//! One element with all that is in it, and its JSON.

use std::collections::HashMap;

use quick_xml::{
    escape::resolve_predefined_entity,
    events::{BytesRef, BytesStart},
};

use super::Broken;
use crate::format::write;

/// Most attributes of one element. To find one given twice takes time with the square of it.
const ATTRIBUTES_MAX: usize = 1000;

/// XML's white space; letters that Unicode takes for it are text.
const BLANK: [char; 4] = [' ', '\t', '\r', '\n'];

const NOT_UTF8: Broken = Broken::Not("it is not UTF-8");

/// An element that is being read, or was.
pub(super) struct Element {
    pub(super) name: String,
    attributes: Vec<(String, String)>,
    pub(super) children: Vec<Element>,
    /// Its own text, without that of its children.
    text: String,
    /// The part of the text, from byte to byte, at whose ends white space is meant: it was quoted or referred to.
    kept: Option<(usize, usize)>,
}

/// A name as written, prefix and all.
pub(super) fn name(bytes: &[u8]) -> Result<String, Broken> {
    String::from_utf8(bytes.to_vec()).map_err(|_| NOT_UTF8)
}

/// The text that a reference stands for: one of XML's five, or a character by number.
pub(super) fn referred<'l>(reference: &BytesRef<'_>, letter: &'l mut [u8; 4]) -> Result<&'l str, Broken> {
    const UNKNOWN: Broken = Broken::Not("an entity is not one of XML's own; others are never expanded");
    match reference.resolve_char_ref() {
        Ok(Some(character)) => Ok(character.encode_utf8(letter)),
        Ok(None) => reference
            .decode()
            .ok()
            .and_then(|name| resolve_predefined_entity(&name))
            .ok_or(UNKNOWN),
        Err(_) => Err(Broken::Not("a character reference stands for no character")),
    }
}

impl Element {
    pub(super) fn open(name: String, tag: &BytesStart<'_>) -> Result<Self, Broken> {
        let mut attributes = Vec::new();
        for attribute in tag.attributes() {
            let attribute = attribute.map_err(|_| Broken::Not("an attribute is not well-formed"))?;
            if attributes.len() == ATTRIBUTES_MAX {
                return Err(Broken::Not("an element has too many attributes"));
            }
            let value = attribute
                .unescape_value()
                .map_err(|_| Broken::Not("the value of an attribute is not well-formed"))?;
            attributes.push((self::name(attribute.key.as_ref())?, value.into_owned()));
        }
        Ok(Self {
            name,
            attributes,
            children: Vec::new(),
            text: String::new(),
            kept: None,
        })
    }

    /// Adds text; white space at its ends is meant if it is `kept`.
    pub(super) fn push(&mut self, text: &str, kept: bool) {
        let from = self.text.len();
        self.text.push_str(text);
        if kept {
            let first = self.kept.map_or(from, |(first, _)| first);
            self.kept = Some((first, self.text.len()));
        }
    }

    fn text(&self) -> &str {
        let (first, last) = self.kept.unwrap_or((self.text.len(), 0));
        let start = self.text.len() - self.text.trim_start_matches(BLANK).len();
        let end = self.text.trim_end_matches(BLANK).len();
        self.text.get(start.min(first)..end.max(last)).unwrap_or_default()
    }

    /// Appends the element as a value: null if there is nothing in it, text if there is nothing else.
    pub(super) fn write(&self, lists: &[String], out: &mut Vec<u8>) {
        let text = self.text();
        let nil =
            |(name, value): &(String, String)| name == "xsi:nil" && matches!(value.as_str(), "true" | "1");
        let bare =
            self.attributes.is_empty() || (self.attributes.len() == 1 && self.attributes.iter().all(nil));
        match (bare && self.children.is_empty(), text) {
            (true, "") => out.extend_from_slice(b"null"),
            (true, text) => write::string(text.as_bytes(), out),
            (false, _) => self.write_record(lists, None, out),
        }
    }

    /// Appends the element as an object, with `key` in front: its attributes, its children, its text.
    pub(super) fn write_record(&self, lists: &[String], key: Option<(&str, &str)>, out: &mut Vec<u8>) {
        let mut between = b'{';
        let mut member = |name: &str, out: &mut Vec<u8>| {
            out.push(between);
            between = b',';
            write::string(name.as_bytes(), out);
            out.push(b':');
        };
        // What the element says itself wins.
        if let Some((name, value)) = key.filter(|(name, _)| !self.has(name)) {
            member(name, out);
            write::string(value.as_bytes(), out);
        }
        for (name, value) in &self.attributes {
            member(&format!("@{name}"), out);
            write::string(value.as_bytes(), out);
        }
        for group in self.groups() {
            let name = &group[0].name;
            member(name, out);
            let list = group.len() > 1 || lists.contains(name);
            for (index, child) in group.iter().enumerate() {
                if list {
                    out.push(if index == 0 { b'[' } else { b',' });
                }
                child.write(lists, out);
            }
            if list {
                out.push(b']');
            }
        }
        let text = self.text();
        if !text.is_empty() {
            member("#text", out);
            write::string(text.as_bytes(), out);
        }
        if between == b'{' {
            out.push(b'{');
        }
        out.push(b'}');
    }

    fn has(&self, name: &str) -> bool {
        self.children.iter().any(|child| child.name == name)
    }

    /// The children by name, in the order in which the names first occur.
    fn groups(&self) -> Vec<Vec<&Self>> {
        let mut places: HashMap<&str, usize> = HashMap::new();
        let mut groups: Vec<Vec<&Self>> = Vec::new();
        for child in &self.children {
            let place = *places.entry(&child.name).or_insert(groups.len());
            match groups.get_mut(place) {
                Some(group) => group.push(child),
                None => groups.push(vec![child]),
            }
        }
        groups
    }
}
