//! Lists and parameters of HTTP header fields (RFC 9110, section 5.6): what stands between quotes separates nothing.

#[cfg(test)]
pub(crate) mod near;

use std::borrow::Cow;

/// The parts of `value` between `separator`s, an ASCII character, without the white space around them. Empty ones are left
/// out (section 5.6.1.2).
///
/// A separator within a quoted string (section 5.6.4) is part of it. A string that does not end reaches to the end.
///
/// ```
/// use landfall::fields::parts;
/// let list: Vec<&str> = parts(r#"a, b="x,\"y" , ,c"#, b',').collect();
/// assert_eq!(list, ["a", r#"b="x,\"y""#, "c"]);
/// ```
pub fn parts(value: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        loop {
            let text = rest?;
            let (part, behind) = match first_outside(text, separator) {
                Some(at) => (&text[..at], Some(&text[at + 1..])),
                None => (text, None),
            };
            rest = behind;
            let part = part.trim_matches([' ', '\t']);
            if !part.is_empty() {
                return Some(part);
            }
        }
    })
}

/// Takes `name=value` apart, where the value is a token or a quoted string (section 5.6.6); none if it is neither.
///
/// ```
/// use landfall::fields::pair;
/// assert_eq!(pair(r#"charset="utf-8""#), Some(("charset", "utf-8".into())));
/// assert_eq!(pair("charset"), None);
/// assert_eq!(pair("charset=\"utf-8"), None);
/// ```
pub fn pair(part: &str) -> Option<(&str, Cow<'_, str>)> {
    let (name, value) = part.split_once('=')?;
    // Some fields allow white space here (section 5.6.3), which is to be passed over.
    let (name, value) = (name.trim_matches([' ', '\t']), value.trim_matches([' ', '\t']));
    let value = match is_token(value) {
        true => Cow::Borrowed(value),
        false => Cow::Owned(unquoted(value)?),
    };
    is_token(name).then_some((name, value))
}

/// A whole number without a sign, digits alone; one that is too large is the largest there is.
///
/// ```
/// use landfall::fields::whole;
/// assert_eq!((whole("120"), whole("+1"), whole("")), (Some(120), None, None));
/// assert_eq!(whole("99999999999999999999"), Some(u64::MAX));
/// ```
pub fn whole(text: &str) -> Option<u64> {
    let is_whole = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_whole.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Whether `text` is a token (section 5.6.2).
fn is_token(text: &str) -> bool {
    let is_of_one = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_of_one)
}

/// What a quoted string says; none if `text` is not one from its first character to its last.
fn unquoted(text: &str) -> Option<String> {
    let mut inner = text.strip_prefix('"')?.chars();
    let mut said = String::new();
    loop {
        match inner.next()? {
            '"' => break,
            '\\' => said.push(inner.next()?),
            character => said.push(character),
        }
    }
    inner.as_str().is_empty().then_some(said)
}

/// Where the first `separator` stands that is within no quoted string.
fn first_outside(text: &str, separator: u8) -> Option<usize> {
    let (mut in_string, mut escaped) = (false, false);
    text.bytes().position(|byte| {
        let is_it = !in_string && byte == separator;
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ => {}
        }
        is_it
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{near::*, *};

    proptest! {
        #[test]
        fn what_is_written_as_a_list_is_read_back(
            names in prop::collection::vec("[a-z][a-z0-9*_-]{0,6}", 0..6),
            values in prop::collection::vec("[ -~é]{0,12}", 6),
            blanks in prop::collection::vec("[ \t]{0,2}", 6),
            empty in 0_usize..4,
        ) {
            let quoted = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"");
            let pairs: Vec<(String, String)> = names.into_iter().zip(values).collect();
            let written = pairs.iter().zip(&blanks);
            let written = written.map(|((name, value), blank)| format!("{blank}{name}=\"{}\"{blank}", quoted(value)));
            let list = written.collect::<Vec<_>>().join(&format!(",{}", ", ".repeat(empty)));
            let read: Option<Vec<_>> = parts(&list, b',').map(pair).collect();
            let read = read.unwrap();
            let read: Vec<(String, String)> = read.into_iter().map(|(name, value)| (name.to_owned(), value.into_owned())).collect();
            prop_assert_eq!(read, pairs);
        }

        #[test]
        fn any_text_falls_into_parts_of_it_and_no_pair_is_more_than_the_grammar_allows(
            text in near(&["a=1, b=\"x,y\", c", "handling=lenient;x=\"a\\\"b\";y", "\"n\";r=0;t=5"]),
        ) {
            let text = String::from_utf8_lossy(&text);
            let pattern = regex::Regex::new(
                r#"^[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*=[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+|"([^"\\]|\\.)*")$"#,
            );
            let pattern = pattern.unwrap();
            for separator in [b',', b';'] {
                let found: Vec<&str> = parts(&text, separator).collect();
                let bytes: usize = found.iter().map(|part| part.len()).sum();
                prop_assert!(bytes + found.len() <= text.len() + 1);
                for part in found {
                    prop_assert!(!part.is_empty() && text.contains(part) && part.trim_matches([' ', '\t']) == part);
                    if !part.contains(['\n', '\r']) {
                        prop_assert_eq!(pair(part).is_some(), pattern.is_match(part), "{:?}", part);
                    }
                }
            }
        }
    }

    #[test]
    fn parts_of_a_long_field_take_no_more_than_a_pass() {
        each_long(&["\"", "\\\"", "a=\"", ";", ",", " ,", "a=b,"], |text| {
            let text = String::from_utf8(text).unwrap();
            parts(&text, b',').map(pair).count();
            parts(&text, b';').map(pair).count();
        });
    }
}
