//! The words of the inside of a template tag.

use super::fault::Fault;

/// One word, as written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    /// As written; for a reference its number.
    pub(super) text: &'a str,
    /// White space stood before it.
    pub(super) spaced: bool,
    /// Line ends before it.
    pub(super) lines: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Name,
    Number,
    Text,
    Sign,
    Reference,
}

/// What stands around the number of a reference. No text of a project file holds it.
pub(super) const MARK: char = '\0';

const SIGNS_OF_TWO: [&str; 6] = ["**", "//", "==", "!=", "<=", ">="];

const SIGNS_OF_ONE: &str = "+-*/%~.,:|()[]{}=<>";

/// Reads the words of `text` up to `end` outside brackets; none: up to the end of the text.
///
/// Returns them with the rest of the text, which begins with `end` or the white space control before it.
pub(super) fn read<'a>(text: &'a str, end: Option<&str>) -> Result<(Vec<Token<'a>>, &'a str), Fault> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut open = 0_usize;
    loop {
        let trimmed = rest.trim_start_matches(|letter: char| letter.is_ascii_whitespace());
        let blank = &rest[..rest.len() - trimmed.len()];
        rest = trimmed;
        if rest.is_empty() {
            return match end {
                Some(end) => Err(Fault::new(format!("{end} is missing"))),
                None => Ok((tokens, rest)),
            };
        }
        // One sign before the end controls white space.
        let unsigned = rest.strip_prefix(['-', '+']).unwrap_or(rest);
        if open == 0 && end.is_some_and(|end| rest.starts_with(end) || unsigned.starts_with(end)) {
            return Ok((tokens, rest));
        }
        let previous = tokens.last().copied();
        let (kind, text, length) = word(rest, previous)?;
        match text {
            "(" | "[" | "{" if kind == Kind::Sign => open += 1,
            ")" | "]" | "}" if kind == Kind::Sign => {
                let closed = open.checked_sub(1);
                open = closed.ok_or_else(|| Fault::new(format!("{text} closes nothing")))?;
            }
            _ => {}
        }
        tokens.push(Token {
            kind,
            text,
            spaced: !blank.is_empty(),
            lines: blank.matches('\n').count(),
        });
        rest = &rest[length..];
    }
}

/// The first word of `rest`, and how many bytes it takes.
fn word<'a>(rest: &'a str, previous: Option<Token<'_>>) -> Result<(Kind, &'a str, usize), Fault> {
    let Some(first) = rest.chars().next() else {
        return Err(Fault::new("an expression is missing"));
    };
    let named = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let length = match first {
        MARK => {
            let inner = &rest[1..];
            let Some(length) = inner.find(MARK) else {
                return Err(Fault::new("a character that templates may not hold"));
            };
            return Ok((Kind::Reference, &inner[..length], length + 2));
        }
        '"' | '\'' => return text(rest, first).map(|length| (Kind::Text, &rest[..length], length)),
        '0'..='9' => {
            let after_dot = previous.is_some_and(|token| token.kind == Kind::Sign && token.text == ".");
            let length = number(rest, after_dot);
            return Ok((Kind::Number, &rest[..length], length));
        }
        _ if named(first) => rest.find(|letter| !named(letter)).unwrap_or(rest.len()),
        _ if SIGNS_OF_TWO.iter().any(|sign| rest.starts_with(sign)) => 2,
        _ if SIGNS_OF_ONE.contains(first) => 1,
        _ => return Err(Fault::new("a character that expressions may not hold")),
    };
    let kind = if named(first) { Kind::Name } else { Kind::Sign };
    Ok((kind, &rest[..length], length))
}

/// How long the text in quotes at the start is.
fn text(rest: &str, quote: char) -> Result<usize, Fault> {
    let mut letters = rest.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => drop(letters.next()),
            MARK => {
                return Err(
                    Fault::new("a reference stands within quotes, where it would not be read").hint(
                        "put it beside them: {{ 'id ' ~ ${env:NAME} }}, or outside the braces: id ${env:NAME}",
                    ),
                );
            }
            _ if letter == quote => return Ok(at + 1),
            _ => {}
        }
    }
    Err(Fault::new(format!("the closing {quote} is missing")))
}

/// How long the number at the start is.
fn number(rest: &str, after_dot: bool) -> usize {
    let bytes = rest.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let plain = !matches!(bytes.get(1), Some(b'x' | b'X' | b'b' | b'B' | b'o' | b'O'));
    let mut at = 0;
    let mut fraction = after_dot || !plain;
    while let Some(&byte) = bytes.get(at) {
        let exponent = plain && matches!(byte, b'e' | b'E');
        at += match byte {
            b'+' | b'-' => break,
            _ if exponent && matches!(bytes.get(at + 1), Some(b'+' | b'-')) && is_digit(at + 2) => 2,
            b'.' if !fraction && is_digit(at + 1) => {
                fraction = true;
                1
            }
            _ if byte.is_ascii_alphanumeric() || byte == b'_' => 1,
            _ => break,
        };
    }
    at
}
