//! Text to located nodes.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};

use crate::yaml::{Entry, Kind, Node, Place, Problems, quoted};

/// Largest file read, in bytes. Project files are written by hand; a larger one is a mistake or an attack.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;

/// Deepest nesting of lists and maps. A contract with 32 levels of columns needs 66.
pub const DEPTH_MAX: usize = 100;

/// Most values in one file.
pub const NODES_MAX: usize = 100_000;

/// Reads one document. `None` if the text has no whole tree; then at least one problem was added.
///
/// Refused with a problem, and read on: anchors, aliases, tags, duplicate keys, keys that are not text.
/// Refused at once: text that is not YAML, a second document, control characters, anything beyond a limit.
pub fn parse(text: &str, problems: &Problems) -> Option<Node> {
    if text.len() > FILE_BYTES_MAX {
        problems.add(
            Place::START,
            format!(
                "the file has {} bytes, more than the {FILE_BYTES_MAX} allowed",
                text.len()
            ),
            None,
        );
        return None;
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some((place, character)) = first_control_character(text) {
        problems.add(
            place,
            format!("control character U+{:04X} is not allowed", u32::from(character)),
            Some("write it as an escape in a double-quoted string".to_owned()),
        );
        return None;
    }
    let mut tree = Tree {
        problems,
        stack: Vec::new(),
        root: None,
        nodes: 0,
    };
    let mut parser = Parser::new_from_str(text);
    let mut documents = 0;
    // Each event consumes input or closes what is open, and the number of nodes is bounded, so this ends.
    while let Some(next) = parser.next_event() {
        let (event, span) = match next {
            Ok(found) => found,
            Err(error) => {
                report_syntax(&error, text, problems);
                return None;
            }
        };
        match event {
            Event::StreamEnd => break,
            Event::DocumentStart(_) if documents > 0 => {
                problems.add(place(span.start), "a second document is not allowed", None);
                return None;
            }
            Event::DocumentStart(_) => documents += 1,
            event => tree.take(event, span)?,
        }
    }
    if tree.root.is_none() {
        problems.add(Place::START, "the file is empty", None);
    }
    tree.root
}

/// The value of a whole number in decimal, `0x` or `0o` notation; `None` beyond 128 bits or with a leading zero.
///
/// ```
/// use landfall::yaml::parse::integer;
/// assert_eq!(integer("-12"), Some(-12));
/// assert_eq!(integer("0o17"), Some(15));
/// assert_eq!(integer("012"), None);
/// ```
pub fn integer(text: &str) -> Option<i128> {
    if let Some(digits) = text.strip_prefix("0x") {
        return i128::from_str_radix(digits, 16).ok();
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return i128::from_str_radix(digits, 8).ok();
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.len() > 1 && digits.starts_with('0') {
        return None;
    }
    text.parse().ok()
}

struct Tree<'p> {
    problems: &'p Problems,
    stack: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
}

/// A list or map whose end was not met yet.
struct Open {
    place: Place,
    items: Items,
}

enum Items {
    Seq(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        lines: HashMap<String, usize>,
        key: Option<Key>,
    },
}

/// A key that waits for its value.
enum Key {
    Fresh(String, Place),
    /// Already reported; its value is dropped.
    Refused,
}

impl Tree<'_> {
    /// `None` ends the reading.
    fn take(&mut self, event: Event<'_>, span: Span) -> Option<()> {
        let place = place(span.start);
        match event {
            Event::Alias(_) => {
                let hint = "write the value out".to_owned();
                self.problems
                    .add(place, "aliases (*name) are not allowed", Some(hint));
                self.add(Node {
                    kind: Kind::Refused,
                    place,
                })
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_properties(anchor, tag.map(|tag| tag.to_string()), place);
                let kind = match style {
                    ScalarStyle::Plain => plain(&text),
                    _ => Kind::String(text.into_owned()),
                };
                self.add(Node { kind, place })
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_properties(anchor, tag.map(|tag| tag.to_string()), place);
                self.open(place, Items::Seq(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_properties(anchor, tag.map(|tag| tag.to_string()), place);
                self.open(
                    place,
                    Items::Map {
                        entries: Vec::new(),
                        lines: HashMap::new(),
                        key: None,
                    },
                )
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Open { place, items } = self.stack.pop()?;
                let kind = match items {
                    Items::Seq(items) => Kind::Seq(items),
                    Items::Map { entries, .. } => Kind::Map(entries),
                };
                self.add(Node { kind, place })
            }
            _ => Some(()),
        }
    }

    fn open(&mut self, place: Place, items: Items) -> Option<()> {
        if self.stack.len() >= DEPTH_MAX {
            self.problems
                .add(place, format!("nested deeper than {DEPTH_MAX}"), None);
            return None;
        }
        self.stack.push(Open { place, items });
        Some(())
    }

    fn add(&mut self, node: Node) -> Option<()> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            self.problems
                .add(node.place, format!("more than {NODES_MAX} values"), None);
            return None;
        }
        match self.stack.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(node),
            Some(Items::Seq(items)) => items.push(node),
            Some(Items::Map { entries, lines, key }) => match key.take() {
                None => *key = Some(check_key(node, lines, self.problems)),
                Some(Key::Fresh(key, place)) => entries.push(Entry {
                    key,
                    place,
                    value: node,
                }),
                Some(Key::Refused) => {}
            },
        }
        Some(())
    }

    fn refuse_properties(&self, anchor: usize, tag: Option<String>, place: Place) {
        if anchor != 0 {
            self.problems.add(
                place,
                "anchors (&name) are not allowed",
                Some("write the value out".to_owned()),
            );
        }
        if let Some(tag) = tag {
            let shown = tag.replace("tag:yaml.org,2002:", "!");
            let message = format!("tags are not allowed, here {}", quoted(&shown));
            self.problems.add(
                place,
                message,
                Some("to make a value text, put it in quotes".to_owned()),
            );
        }
    }
}

fn check_key(node: Node, lines: &mut HashMap<String, usize>, problems: &Problems) -> Key {
    let found = node.kind_name();
    let place = node.place;
    match node.kind {
        Kind::String(key) => {
            if let Some(line) = lines.get(&key) {
                let hint = format!("it is already on line {line}");
                problems.add(place, format!("duplicate key {}", quoted(&key)), Some(hint));
                return Key::Refused;
            }
            lines.insert(key.clone(), place.line);
            Key::Fresh(key, place)
        }
        Kind::Refused => Key::Refused,
        _ => {
            problems.add(
                place,
                format!("keys are text, this is {found}"),
                Some("put it in quotes".to_owned()),
            );
            Key::Refused
        }
    }
}

fn plain(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" => Kind::Bool(true, text.to_owned()),
        "false" | "False" | "FALSE" => Kind::Bool(false, text.to_owned()),
        _ if is_integer(text) => Kind::Int(text.to_owned()),
        _ if is_float(text) => Kind::Float(text.to_owned()),
        _ => Kind::String(text.to_owned()),
    }
}

fn is_integer(text: &str) -> bool {
    let all = |digits: &str, ok: fn(&u8) -> bool| !digits.is_empty() && digits.as_bytes().iter().all(ok);
    if let Some(digits) = text.strip_prefix("0x") {
        return all(digits, u8::is_ascii_hexdigit);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return all(digits, |byte| (b'0'..=b'7').contains(byte));
    }
    all(text.strip_prefix(['-', '+']).unwrap_or(text), u8::is_ascii_digit)
}

fn is_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    // Rust also reads `inf` and `nan`, which are text in YAML.
    let first = unsigned.as_bytes().first();
    first.is_some_and(|byte| byte.is_ascii_digit() || *byte == b'.') && text.parse::<f64>().is_ok()
}

fn place(marker: Marker) -> Place {
    Place {
        line: marker.line(),
        column: marker.col() + 1,
    }
}

fn report_syntax(error: &ScanError, text: &str, problems: &Problems) {
    let place = place(*error.marker());
    let line = text.lines().nth(place.line.saturating_sub(1)).unwrap_or_default();
    let hint = line
        .trim_start_matches(' ')
        .starts_with('\t')
        .then(|| "indent with spaces, not with tabs".to_owned());
    problems.add(place, format!("not YAML: {}", error.info()), hint);
}

/// The parser would take NUL for the end of the file and silently drop the rest.
fn first_control_character(text: &str) -> Option<(Place, char)> {
    let bad = |character: char| matches!(character, '\u{0}'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{7f}');
    let (at, character) = text.char_indices().find(|(_, character)| bad(*character))?;
    Some((place_of(text, at), character))
}

/// The place of a byte offset that stands on a character.
pub fn place_of(text: &str, offset: usize) -> Place {
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Place {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}
