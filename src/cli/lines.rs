//! One line for one event of the log, whatever is told in it: no value of somebody else's begins a line of its own, or is
//! longer than anybody reads.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use serde_json::Value;
use tracing_subscriber::fmt::MakeWriter;

use crate::cli::logging::LogFormat;

/// Longest line, in bytes. What is longer is cut.
const LINE_BYTES_MAX: usize = 8 << 10;

/// Longest text in a line of JSON that would be too long, in characters.
const TEXT_CHARS_MAX: usize = 400;

/// What stands where something was cut.
const CUT: &str = " … (cut)";

/// Writes log lines to `T`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines<T> {
    into: T,
    format: LogFormat,
    colours: Colours,
}

/// Whether lines for people have colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colours {
    /// As a terminal shows them.
    Yes,
    /// They are read by something else.
    No,
}

impl<T> Lines<T> {
    /// Lines in `format`.
    pub(super) fn new(into: T, format: LogFormat, colours: Colours) -> Self {
        Self {
            into,
            format,
            colours,
        }
    }
}

impl<'a, W: Write, T: Fn() -> W> MakeWriter<'a> for Lines<T> {
    type Writer = Lines<W>;

    fn make_writer(&'a self) -> Lines<W> {
        Lines::new((self.into)(), self.format, self.colours)
    }
}

impl<W: Write> Write for Lines<W> {
    /// Takes one event, with its line end.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = match self.format {
            LogFormat::Text => plain(line, self.colours),
            LogFormat::Json => json(line),
        };
        // Whole, or others write in between.
        self.into.write_all(format!("{line}\n").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}

/// What ends a line, or does something to a terminal.
fn is_odd(letter: char) -> bool {
    letter.is_control() || ['\u{2028}', '\u{2029}'].contains(&letter)
}

/// A line for people.
fn plain(line: &str, colours: Colours) -> Cow<'_, str> {
    if line.len() <= LINE_BYTES_MAX && !line.contains(is_odd) {
        return line.into();
    }
    let mut whole = String::with_capacity(line.len().min(LINE_BYTES_MAX));
    let mut rest = line;
    while let Some(letter) = rest.chars().next() {
        if whole.len() > LINE_BYTES_MAX {
            whole.push_str(CUT);
            break;
        }
        let taken = match colour(rest).filter(|_| colours == Colours::Yes) {
            Some(colour) => {
                whole.push_str(colour);
                colour.len()
            }
            None => {
                match is_odd(letter) {
                    true => whole.extend(letter.escape_default()),
                    false => whole.push(letter),
                }
                letter.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    whole.into()
}

/// The sequence that `text` begins with, if it does no more than to colour what follows.
fn colour(text: &str) -> Option<&str> {
    let digits = text.strip_prefix("\u{1b}[")?;
    let end = digits.find(|letter: char| !letter.is_ascii_digit() && letter != ';')?;
    let is_colour = digits[end..].starts_with('m');
    is_colour.then(|| &text[..text.len() - digits.len() + end + 1])
}

/// A line for programs. Its texts are escaped as JSON asks, which lets pass what some readers take for the end of a line.
fn json(line: &str) -> Cow<'_, str> {
    let mut whole = Cow::from(line);
    if line.len() > LINE_BYTES_MAX {
        let Ok(mut event) = serde_json::from_str::<Value>(line) else {
            return plain(line, Colours::No);
        };
        cut(&mut event);
        whole = event.to_string().into();
    }
    if !whole.contains(is_odd) {
        return whole;
    }
    let escaped = |letter: char| match is_odd(letter) {
        true => format!("\\u{:04x}", u32::from(letter)),
        false => letter.to_string(),
    };
    whole.chars().map(escaped).collect::<String>().into()
}

fn cut(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some((at, _)) = text.char_indices().nth(TEXT_CHARS_MAX) {
                text.truncate(at);
                text.push_str(CUT);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(cut),
        Value::Object(members) => members.values_mut().for_each(cut),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn written(event: &str, format: LogFormat) -> String {
        let mut out = Vec::new();
        Lines::new(&mut out, format, Colours::No)
            .write_all(format!("{event}\n").as_bytes())
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn f156_a_line_stays_one_and_short() {
        assert_eq!(written("WARN a=1", LogFormat::Text), "WARN a=1\n");
        assert_eq!(
            written("error=no\r\nERROR forged\u{2028}\u{85}", LogFormat::Text),
            "error=no\\r\\nERROR forged\\u{2028}\\u{85}\n"
        );
        assert_eq!(
            written("\u{1b}[2J\u{1b}[31mred\u{7}", LogFormat::Text),
            "\\u{1b}[2J\\u{1b}[31mred\\u{7}\n"
        );
        assert_eq!(
            plain(
                "\u{1b}[2m12:00\u{1b}[0m \u{1b}[2Jé\u{1b}]0;x\u{1b}[1;31\u{1b}",
                Colours::Yes
            ),
            "\u{1b}[2m12:00\u{1b}[0m \\u{1b}[2Jé\\u{1b}]0;x\\u{1b}[1;31\\u{1b}"
        );
        let long = written(&"é".repeat(1 << 20), LogFormat::Text);
        assert!(long.len() < LINE_BYTES_MAX + 20 && long.ends_with(" … (cut)\n"));
        let event =
            json!({"level": "WARN", "error": "x\n".repeat(1 << 19), "span": {"name": "é".repeat(401)}});
        let cut: Value = serde_json::from_str(&written(&event.to_string(), LogFormat::Json)).unwrap();
        assert_eq!(cut["level"], "WARN");
        assert_eq!(cut["error"], "x\n".repeat(200) + CUT);
        assert_eq!(cut["span"]["name"], "é".repeat(400) + CUT);
        assert_eq!(
            written("{\"a\":\"\u{85}\u{2028}é\"}", LogFormat::Json),
            "{\"a\":\"\\u0085\\u2028é\"}\n"
        );
    }

    proptest! {
        #[test]
        fn f156_no_text_makes_a_second_line(text in r"(?s:.|\n|\r|\x85){0,60}") {
            let event = json!({ "text": text }).to_string();
            for (event, format) in [(&text, LogFormat::Text), (&event, LogFormat::Json)] {
                let line = written(event, format);
                prop_assert_eq!(line.matches(['\n', '\r']).count(), 1);
                prop_assert!(line.ends_with('\n'));
            }
        }
    }
}
