//! Changes in the text of a YAML file that leave everything else as it is: comments, order, quotes, blank lines.
//!
//! ```text
//! text ─ Spans::read ─► nodes with their place in the text ─ an edit ─► text
//! ```
//!
//! One edit at a time: afterwards the text is read again. An edit does what it can see; whoever asks for it reads the
//! result and compares, because YAML can be written in more ways than are told apart here.

use std::ops::Range;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::yaml::parse::{DEPTH_MAX, NODES_MAX};

/// A value with its place in the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Spans {
    /// From its first byte to behind its last one. Comments behind it are not part of it.
    pub range: Range<usize>,
    /// What is in it.
    pub inside: Inside,
}

/// What is in a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Inside {
    /// Nothing but text.
    Scalar(String),
    /// A list; `flow` if it is written with brackets.
    Seq {
        /// Whether it is written with brackets.
        flow: bool,
        /// Its items.
        items: Vec<Spans>,
    },
    /// A map.
    Map {
        /// Whether it is written with braces.
        flow: bool,
        /// Its keys with their values.
        entries: Vec<(Spans, Spans)>,
    },
}

/// A list or a map that is not at its end.
struct Open {
    start: usize,
    flow: bool,
    is_map: bool,
    values: Vec<Spans>,
}

impl Spans {
    /// The root of the first document; `None` if the text is no YAML that is read here.
    pub fn read(text: &str) -> Option<Self> {
        let bytes: Vec<usize> = text
            .char_indices()
            .map(|(at, _)| at)
            .chain([text.len()])
            .collect();
        let byte = |span: &Span, end: bool| {
            let marker = if end { span.end } else { span.start };
            bytes.get(marker.index()).copied()
        };
        let mut stack: Vec<Open> = Vec::new();
        let mut parser = Parser::new_from_str(text);
        // Where the last word ended: a block ends with its last word, not where the next one begins.
        let mut last = 0;
        for _ in 0..NODES_MAX * 2 {
            let (event, span) = parser.next_event()?.ok()?;
            let done = match event {
                Event::SequenceStart(..) | Event::MappingStart(..) => {
                    let start = byte(&span, false)?;
                    stack.push(Open {
                        start,
                        flow: text[start..].starts_with(['[', '{']),
                        is_map: matches!(event, Event::MappingStart(..)),
                        values: Vec::new(),
                    });
                    if stack.len() > DEPTH_MAX {
                        return None;
                    }
                    continue;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    let open = stack.pop()?;
                    if open.flow {
                        last = byte(&span, true)?;
                    }
                    open.close(last)
                }
                Event::Scalar(word, style, ..) => {
                    let (start, end) = (byte(&span, false)?, byte(&span, true)?);
                    let is_absent = word.is_empty() && style == ScalarStyle::Plain;
                    if !is_absent {
                        last = end;
                    }
                    Self {
                        range: if is_absent { last..last } else { start..end },
                        inside: Inside::Scalar(word.into_owned()),
                    }
                }
                Event::Alias(_) | Event::StreamEnd => return None,
                _ => continue,
            };
            match stack.last_mut() {
                Some(open) => open.values.push(done),
                None => return Some(done),
            }
        }
        None
    }

    /// The value under a key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|(_, value)| value)
    }

    /// The items of a list.
    pub fn items(&self) -> &[Self] {
        match &self.inside {
            Inside::Seq { items, .. } => items,
            _ => &[],
        }
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.inside {
            Inside::Scalar(text) => Some(text),
            _ => None,
        }
    }

    /// How many items or entries it has.
    pub fn len(&self) -> usize {
        match &self.inside {
            Inside::Seq { items, .. } => items.len(),
            Inside::Map { entries, .. } => entries.len(),
            Inside::Scalar(_) => 0,
        }
    }

    /// Whether it has no items and no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn entry(&self, key: &str) -> Option<(&Self, &Self)> {
        let Inside::Map { entries, .. } = &self.inside else {
            return None;
        };
        let found = entries.iter().find(|(name, _)| name.text() == Some(key));
        found.map(|(key, value)| (key, value))
    }

    pub(crate) fn is_flow(&self) -> bool {
        matches!(
            self.inside,
            Inside::Seq { flow: true, .. } | Inside::Map { flow: true, .. }
        )
    }
}

impl Open {
    fn close(self, end: usize) -> Spans {
        let Self {
            start,
            flow,
            is_map,
            values,
        } = self;
        let inside = if is_map {
            let mut entries = Vec::with_capacity(values.len() / 2);
            let mut values = values.into_iter();
            while let (Some(key), Some(value)) = (values.next(), values.next()) {
                entries.push((key, value));
            }
            Inside::Map { flow, entries }
        } else {
            Inside::Seq { flow, items: values }
        };
        Spans {
            range: start..end.max(start),
            inside,
        }
    }
}

/// Writes `word` where a scalar stands.
pub fn replace(text: &str, scalar: &Spans, word: &str) -> String {
    splice(text, scalar.range.clone(), word)
}

/// Adds `key: value` behind the entry `behind` of a map; `value` is written on one line.
pub fn insert_entry(text: &str, map: &Spans, behind: &str, key: &str, value: &str) -> Option<String> {
    let (known, last) = map.entry(behind)?;
    if map.is_flow() {
        return Some(splice(
            text,
            last.range.end..last.range.end,
            &format!(", {key}: {value}"),
        ));
    }
    let margin = " ".repeat(column_of(text, known.range.start));
    Some(insert_line(
        text,
        last.range.end,
        &format!("{margin}{key}: {value}"),
    ))
}

/// Adds an item at the end of a list: `block` with the dash and its margin, given how far it stands from the left, or `flow`.
pub fn append_item(text: &str, list: &Spans, block: impl Fn(usize) -> String, flow: &str) -> Option<String> {
    let last = list.items().last()?;
    if list.is_flow() {
        return Some(splice(text, last.range.end..last.range.end, &format!(", {flow}")));
    }
    let margin = column_of(text, list.range.start);
    Some(insert_line(
        text,
        last.range.end,
        block(margin).trim_end_matches('\n'),
    ))
}

/// Takes an entry out of a map that has others.
pub fn remove_entry(text: &str, map: &Spans, key: &str) -> Option<String> {
    let Inside::Map { flow, entries } = &map.inside else {
        return None;
    };
    let at = entries.iter().position(|(name, _)| name.text() == Some(key))?;
    let ranges: Vec<Range<usize>> = entries
        .iter()
        .map(|(key, value)| key.range.start..value.range.end.max(key.range.end))
        .collect();
    remove(text, &ranges, at, *flow, "")
}

/// Takes an item out of a list that has others.
pub fn remove_item(text: &str, list: &Spans, at: usize) -> Option<String> {
    let ranges: Vec<Range<usize>> = list.items().iter().map(|item| item.range.clone()).collect();
    remove(text, &ranges, at, list.is_flow(), "-")
}

/// `before`: what stands before it on its line, unless it is written between brackets.
fn remove(text: &str, ranges: &[Range<usize>], at: usize, flow: bool, before: &str) -> Option<String> {
    let range = ranges.get(at)?.clone();
    if ranges.len() < 2 {
        return None;
    }
    if flow {
        // With the comma before it, or the one behind the first.
        return Some(match at.checked_sub(1) {
            Some(left) => splice(text, ranges[left].end..range.end, ""),
            None => splice(text, range.start..ranges[1].start, ""),
        });
    }
    let start = line_start(text, range.start);
    // Another thing on the same line would go with it, such as the dash of an item whose first key this is.
    let alone = text[start..range.start].trim() == before;
    alone.then(|| splice(text, start..line_end(text, range.end), ""))
}

fn splice(text: &str, range: Range<usize>, with: &str) -> String {
    let mut new = String::with_capacity(text.len() + with.len());
    new.push_str(&text[..range.start]);
    new.push_str(with);
    new.push_str(&text[range.end..]);
    new
}

/// Adds a line below the one with the byte before `end`, or more than one.
fn insert_line(text: &str, end: usize, lines: &str) -> String {
    let at = line_end(text, end);
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let before = if text[..at].ends_with('\n') { "" } else { newline };
    let lines = lines.replace('\n', newline);
    splice(text, at..at, &format!("{before}{lines}{newline}"))
}

/// Behind the line that `end` stands in, or `end` if a line begins there.
fn line_end(text: &str, end: usize) -> usize {
    if text[..end].ends_with('\n') {
        return end;
    }
    text[end..]
        .find('\n')
        .map_or(text.len(), |newline| end + newline + 1)
}

fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

/// Characters between the beginning of the line and a byte.
fn column_of(text: &str, at: usize) -> usize {
    text[line_start(text, at)..at].chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# head
a: 1 # one
list:
  - x: é # first
    y: \"two\"

  # between
  - {x: 3, y: [4, 5]}
map: {k: v, l: w}
text: |
  more
  text
none:
last: end
";

    fn root() -> Spans {
        Spans::read(TEXT).unwrap()
    }

    fn changed(new: &str) -> String {
        let old: Vec<&str> = TEXT.lines().collect();
        let new: Vec<&str> = new.lines().collect();
        let gone = old
            .iter()
            .filter(|line| !new.contains(line))
            .map(|line| format!("-{line}\n"));
        let come = new
            .iter()
            .filter(|line| !old.contains(line))
            .map(|line| format!("+{line}\n"));
        gone.chain(come).collect()
    }

    #[test]
    fn every_value_knows_its_place() {
        let root = root();
        let shown = |spans: &Spans| TEXT[spans.range.clone()].to_owned();
        let list = root.get("list").unwrap();
        assert_eq!(shown(root.get("a").unwrap()), "1");
        assert_eq!(shown(&list.items()[0]), "x: é # first\n    y: \"two\"");
        assert_eq!(shown(&list.items()[1]), "{x: 3, y: [4, 5]}");
        assert_eq!(shown(list.items()[1].get("y").unwrap()), "[4, 5]");
        assert_eq!(shown(root.get("none").unwrap()), "");
        assert_eq!(shown(root.get("last").unwrap()), "end");
        assert_eq!(Spans::read("a: [1"), None);
        assert_eq!(Spans::read("a: &x 1\nb: *x\n"), None);
    }

    #[test]
    fn an_edit_leaves_the_other_lines_alone() {
        let root = root();
        let list = root.get("list").unwrap();
        let map = root.get("map").unwrap();
        let item = |margin: usize| format!("{}- x: 6\n", " ".repeat(margin));
        insta::assert_snapshot!(changed(&replace(TEXT, root.get("a").unwrap(), "2")), @r#"
        -a: 1 # one
        +a: 2 # one
        "#);
        insta::assert_snapshot!(changed(&insert_entry(TEXT, &root, "a", "b", "7").unwrap()), @"+b: 7");
        insta::assert_snapshot!(changed(&insert_entry(TEXT, &root, "text", "b", "7").unwrap()), @"+b: 7");
        insta::assert_snapshot!(changed(&insert_entry(TEXT, map, "k", "b", "7").unwrap()), @r#"
        -map: {k: v, l: w}
        +map: {k: v, b: 7, l: w}
        "#);
        insta::assert_snapshot!(changed(&append_item(TEXT, list, item, "").unwrap()), @"+  - x: 6");
        insta::assert_snapshot!(changed(&append_item(TEXT, list.items()[1].get("y").unwrap(), item, "6").unwrap()), @r#"
        -  - {x: 3, y: [4, 5]}
        +  - {x: 3, y: [4, 5, 6]}
        "#);
        insta::assert_snapshot!(changed(&remove_entry(TEXT, &list.items()[0], "y").unwrap()), @r#"-    y: "two""#);
        insta::assert_snapshot!(changed(&remove_entry(TEXT, map, "k").unwrap()), @r#"
        -map: {k: v, l: w}
        +map: {l: w}
        "#);
        insta::assert_snapshot!(changed(&remove_entry(TEXT, map, "l").unwrap()), @r#"
        -map: {k: v, l: w}
        +map: {k: v}
        "#);
        insta::assert_snapshot!(changed(&remove_entry(TEXT, &root, "text").unwrap()), @r#"
        -text: |
        -  more
        -  text
        "#);
        insta::assert_snapshot!(changed(&remove_item(TEXT, list, 0).unwrap()), @r#"
        -  - x: é # first
        -    y: "two"
        "#);
        // Its dash would go with it.
        assert_eq!(remove_entry(TEXT, &list.items()[0], "x"), None);
        assert_eq!(remove_item(TEXT, &list.items()[0], 0), None);
    }

    #[test]
    fn the_ends_of_lines_stay_as_they_are() {
        let text = "a: 1\r\nb:\r\n  - 2";
        let root = Spans::read(text).unwrap();
        let added = insert_entry(text, &root, "a", "c", "3").unwrap();
        assert_eq!(added, "a: 1\r\nc: 3\r\nb:\r\n  - 2");
        let list = root.get("b").unwrap();
        let added = append_item(text, list, |margin| format!("{}- 3\n", " ".repeat(margin)), "").unwrap();
        assert_eq!(added, "a: 1\r\nb:\r\n  - 2\r\n  - 3\r\n");
    }
}
