//! Which regular expressions mean the same to everybody.

use std::{iter::Peekable, str::Chars};

/// What may stand behind `\` for itself: the syntax characters of ECMA-262, and `/`.
const ESCAPED: &str = r"^$\.*+?()[]{}|/";

/// Whether an expression that is good here is one of ECMA-262 too, and every text that it matches there it matches here: so
/// the words that JSON Schema recommends, and `\d` and `\w`, which are ASCII there.
///
/// Without flags, look-around, named groups, classes by name, operations on sets, word boundaries and other escapes.
pub(super) fn is_common(pattern: &str) -> bool {
    read(&mut pattern.chars().peekable()).is_some()
}

fn read(letters: &mut Peekable<Chars<'_>>) -> Option<()> {
    // Whether something stands before a quantifier that it can repeat.
    let mut repeatable = false;
    while let Some(letter) = letters.next() {
        match letter {
            '*' | '+' | '?' | '{' => {
                let counted = letter != '{' || times(letters)?;
                if !repeatable || !counted {
                    return None;
                }
                letters.next_if_eq(&'?');
                repeatable = false;
            }
            '(' => {
                if letters.next_if_eq(&'?').is_some() {
                    letters.next_if_eq(&':')?;
                }
                repeatable = false;
            }
            '|' | '^' | '$' => repeatable = false,
            '[' => {
                class(letters)?;
                repeatable = true;
            }
            ']' | '}' => return None,
            '\\' => {
                let escaped = letters.next()?;
                if !(ESCAPED.contains(escaped) || matches!(escaped, 'd' | 'w')) {
                    return None;
                }
                repeatable = true;
            }
            _ => repeatable = true,
        }
    }
    Some(())
}

/// `3}`, `3,}` or `3,5}`.
fn times(letters: &mut Peekable<Chars<'_>>) -> Option<bool> {
    let mut text = String::new();
    loop {
        match letters.next()? {
            '}' => break,
            letter => text.push(letter),
        }
    }
    let (least, most) = text.split_once(',').unwrap_or((&text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    Some(!least.is_empty() && is_number(least) && is_number(most))
}

/// A class behind its `[`.
fn class(letters: &mut Peekable<Chars<'_>>) -> Option<()> {
    let is_negated = letters.next_if_eq(&'^').is_some();
    let mut before = '[';
    loop {
        let letter = letters.next()?;
        match letter {
            ']' if before == '[' => return None,
            ']' => return Some(()),
            '[' => return None,
            // Operations on sets.
            '&' | '~' | '-' if before == letter => return None,
            '\\' => {
                let escaped = letters.next()?;
                let is_some = matches!(escaped, 'd' | 'w');
                // A negated class would match more there than here; a range has no end in one.
                let mut ahead = letters.clone();
                let is_range = before == '-' || (ahead.next() == Some('-') && ahead.next() != Some(']'));
                if !(ESCAPED.contains(escaped) || escaped == '-' || (is_some && !is_negated && !is_range)) {
                    return None;
                }
                before = 'a';
            }
            letter => before = letter,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_everybody_reads_alike_is_common() {
        for pattern in [
            "",
            "^[A-Z]{2,3}-[0-9]+$",
            r"^\d{4}\.\w+?$",
            "^(a|bc)*(?:d[^e-g]){2}x{3,}$",
            r"^[\w.+-]+@[\w-]+\.[a-z]{2,}$",
            r"é [ \]\-a] \{\} /",
        ] {
            regex::Regex::new(pattern).unwrap();
            assert!(is_common(pattern), "{pattern}");
        }
        for pattern in [
            "(?i)abc",
            "(?P<year>[0-9]+)",
            "(?<year>[0-9]+)",
            r"\bword\b",
            r"\s",
            r"\D",
            r"\pL",
            r"\x41",
            r"\A\z",
            r"\@",
            r"[^\w]",
            r"[\D]",
            "[[:alpha:]]",
            "[a-z&&[^b]]",
            "[a--b]",
            "[]a]",
            "a**",
            "a]",
            "a}",
        ] {
            assert!(regex::Regex::new(pattern).is_ok(), "{pattern}");
            assert!(!is_common(pattern), "{pattern}");
        }
    }
}
