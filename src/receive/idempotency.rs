//! The `Idempotency-Key` request header: draft-ietf-httpapi-idempotency-key-header-07, section 2.1.
//!
//! The draft makes it an Item of RFC 8941 whose value is a String (`"8e03978e-40d5-43dd-bc93-6894a57f9324"`). Most senders
//! leave the quotes out; that is taken too and means the same key.

use std::{error::Error as StdError, fmt};

/// What a sender calls one intended effect, so that repeating the request does not repeat the effect.
///
/// 1 to [`Key::BYTES_MAX`] visible ASCII characters, none of them a space.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key(String);

/// Why the header was not understood. The answer is 400 (section 2.7 of the draft), and nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFault {
    /// The header stands more than once.
    Repeated,
    /// There is no character in it.
    Empty,
    /// The key is longer than [`Key::BYTES_MAX`].
    TooLong,
    /// A character is a space, a control character or not ASCII.
    NotVisible,
    /// It is neither a String of RFC 8941 nor a bare word.
    Malformed,
}

impl fmt::Display for KeyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Repeated => "the header must stand once",
            Self::Empty => "the key must not be empty",
            Self::TooLong => "the key must have at most 255 characters",
            Self::NotVisible => "the key must be of visible ASCII characters without spaces",
            Self::Malformed => "the key must be a quoted string of RFC 8941",
        })
    }
}

impl StdError for KeyFault {}

impl Key {
    /// Longest key in bytes; UUIDs, hashes and joined business keys are far shorter.
    pub const BYTES_MAX: usize = 255;

    /// Takes `text` as a key, as it is when it does not come from the header: a job id chosen by the sender.
    ///
    /// # Errors
    /// [`KeyFault::Empty`], [`KeyFault::TooLong`], [`KeyFault::NotVisible`].
    ///
    /// ```
    /// use landfall::receive::idempotency::{Key, KeyFault};
    /// assert!(Key::new("order-17").is_ok());
    /// assert_eq!(Key::new("order 17"), Err(KeyFault::NotVisible));
    /// ```
    pub fn new(text: &str) -> Result<Self, KeyFault> {
        if text.is_empty() {
            return Err(KeyFault::Empty);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(KeyFault::NotVisible);
        }
        if text.len() > Self::BYTES_MAX {
            return Err(KeyFault::TooLong);
        }
        Ok(Self(text.to_owned()))
    }

    /// Reads the key from every `Idempotency-Key` value of a request; `None` if there is none.
    ///
    /// Parameters after the string are checked and ignored: the draft defines none.
    ///
    /// # Errors
    /// Any [`KeyFault`].
    ///
    /// ```
    /// use landfall::receive::idempotency::Key;
    /// let quoted = Key::from_headers([br#""order-17""#.as_slice()]);
    /// assert_eq!(quoted, Key::from_headers([b"order-17".as_slice()]));
    /// assert_eq!(quoted.unwrap().unwrap().as_str(), "order-17");
    /// ```
    pub fn from_headers<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<Self>, KeyFault> {
        let mut values = values.into_iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(KeyFault::Repeated);
        }
        let value = value.trim_ascii();
        match value.strip_prefix(b"\"") {
            Some(string) => quoted(string),
            None if value.is_empty() => Err(KeyFault::Empty),
            None if !value.iter().all(u8::is_ascii_graphic) => Err(KeyFault::NotVisible),
            None if !value.iter().copied().all(bare) => Err(KeyFault::Malformed),
            None => text(value).and_then(Self::new),
        }
        .map(Some)
    }

    /// The key without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn text(bytes: &[u8]) -> Result<&str, KeyFault> {
    std::str::from_utf8(bytes).map_err(|_| KeyFault::NotVisible)
}

/// The characters of a Token (RFC 8941, section 3.3.4), anywhere, and `=`, in which Base64 ends.
fn bare(byte: u8) -> bool {
    byte == b'=' || token(byte)
}

fn token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte)
}

/// The key of a String whose opening quote is already taken.
fn quoted(rest: &[u8]) -> Result<Key, KeyFault> {
    let (content, rest) = string(rest)?;
    if !parameters(rest) {
        return Err(KeyFault::Malformed);
    }
    text(&content).and_then(Key::new)
}

/// The characters of a String (RFC 8941, section 4.2.5) whose opening quote is already taken, and what follows it.
///
/// Of a long one no more is kept than what shows that it is too long.
fn string(mut rest: &[u8]) -> Result<(Vec<u8>, &[u8]), KeyFault> {
    let mut content = Vec::new();
    loop {
        let (byte, tail) = match rest {
            [b'"', tail @ ..] => return Ok((content, tail)),
            [b'\\', byte @ (b'"' | b'\\'), tail @ ..] => (*byte, tail),
            [b'\\', ..] | [] => return Err(KeyFault::Malformed),
            [byte @ 0x20..=0x7e, tail @ ..] => (*byte, tail),
            _ => return Err(KeyFault::NotVisible),
        };
        if content.len() <= Key::BYTES_MAX {
            content.push(byte);
        }
        rest = tail;
    }
}

/// Whether `rest` is nothing but parameters (RFC 8941, section 4.2.3.2).
fn parameters(mut rest: &[u8]) -> bool {
    while let Some(tail) = rest.strip_prefix(b";") {
        let name = skip(tail, |byte| byte == b' ');
        if !matches!(name, [b'a'..=b'z' | b'*', ..]) {
            return false;
        }
        rest = skip(
            name,
            |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' | b'*'),
        );
        if let Some(value) = rest.strip_prefix(b"=") {
            let Some(tail) = bare_item(value) else {
                return false;
            };
            rest = tail;
        }
    }
    rest.is_empty()
}

/// What follows the value of a parameter; `None` if it is none (RFC 8941, section 4.2.3.1). Digits are not counted.
fn bare_item(value: &[u8]) -> Option<&[u8]> {
    match value {
        [b'"', tail @ ..] => string(tail).ok().map(|(_, tail)| tail),
        [b'?', b'0' | b'1', tail @ ..] => Some(tail),
        [b':', tail @ ..] => skip(tail, |byte| {
            byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)
        })
        .strip_prefix(b":"),
        [b'-', b'0'..=b'9', tail @ ..] | [b'0'..=b'9', tail @ ..] => {
            Some(skip(tail, |byte| byte.is_ascii_digit() || byte == b'.'))
        }
        [b'a'..=b'z' | b'A'..=b'Z' | b'*', tail @ ..] => Some(skip(tail, token)),
        _ => None,
    }
}

fn skip(bytes: &[u8], over: impl Fn(u8) -> bool) -> &[u8] {
    let end = bytes.iter().position(|&byte| !over(byte));
    &bytes[end.unwrap_or(bytes.len())..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fields::near::{each_long, near};

    fn read(value: &[u8]) -> Result<String, KeyFault> {
        let key = Key::from_headers([value])?;
        Ok(key.unwrap().as_str().to_owned())
    }

    #[test]
    fn f095_the_key_is_a_string_or_a_bare_word_of_visible_ascii() {
        let uuid = "8e03978e-40d5-43dd-bc93-6894a57f9324";
        for (value, key) in [
            (format!("\"{uuid}\""), uuid),
            (uuid.to_owned(), uuid),
            (format!("  \"{uuid}\"\t"), uuid),
            (r#""a\"b\\c""#.to_owned(), r#"a"b\c"#),
            (r#""'; DROP--""#.replace(' ', ""), "';DROP--"),
            (r#""a,b;c""#.to_owned(), "a,b;c"),
            ("../../etc/passwd".to_owned(), "../../etc/passwd"),
            ("KG5LxwFBepaKHyUD==".to_owned(), "KG5LxwFBepaKHyUD=="),
            (
                r#""a";v=1; x;s="q;";t=tok/en;b=?1;y=:YQ==:;n=-1.5"#.to_owned(),
                "a",
            ),
        ] {
            assert_eq!(read(value.as_bytes()).as_deref(), Ok(key), "{value}");
        }
        assert_eq!(Key::from_headers([]), Ok(None));
    }

    #[test]
    fn f095_64_kib_are_no_key() {
        each_long(
            &["a", "\"", "\\\"", "\\\\", "a;", ";a=1", ";a=\"", " "],
            |value| {
                for value in [value.clone(), [b"\"a\";a=1", &value[..]].concat()] {
                    if let Ok(key) = Key::from_headers([value.as_slice()]) {
                        // Blanks around it and sound parameters behind it may be of any length.
                        assert!(key.unwrap().as_str().len() < 4);
                    }
                }
            },
        );
    }

    #[test]
    fn f095_what_is_not_a_key_is_named() {
        let long = format!("\"{}\"", "k".repeat(10 * 1024));
        for (value, fault) in [
            ("", KeyFault::Empty),
            ("  ", KeyFault::Empty),
            ("\"\"", KeyFault::Empty),
            (long.as_str(), KeyFault::TooLong),
            (&long[1..10_000], KeyFault::TooLong),
            ("\"a b\"", KeyFault::NotVisible),
            ("a b", KeyFault::NotVisible),
            ("\"a\u{1}\"", KeyFault::NotVisible),
            ("a\u{7f}", KeyFault::NotVisible),
            ("schlüssel", KeyFault::NotVisible),
            ("\"open", KeyFault::Malformed),
            (r#""a\n""#, KeyFault::Malformed),
            (r#""a"b"#, KeyFault::Malformed),
            (r#""a";"#, KeyFault::Malformed),
            (r#""a";X=1"#, KeyFault::Malformed),
            (r#""a";x="#, KeyFault::Malformed),
            (r#""a";x=:Y"#, KeyFault::Malformed),
            (r#""a", "b""#, KeyFault::Malformed),
            ("a,b", KeyFault::Malformed),
            ("';DROP", KeyFault::Malformed),
        ] {
            assert_eq!(read(value.as_bytes()), Err(fault), "{value:?}");
        }
        let twice = [b"a".as_slice(), b"a"];
        assert_eq!(Key::from_headers(twice), Err(KeyFault::Repeated));
        assert_eq!(Key::new(&"k".repeat(255)).map(|key| key.as_str().len()), Ok(255));
        assert_eq!(Key::new(&"k".repeat(256)), Err(KeyFault::TooLong));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_key_in_bounds_or_a_fault(value in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(Some(key)) = Key::from_headers([value.as_slice()]) {
                prop_assert!((1..=Key::BYTES_MAX).contains(&key.as_str().len()));
                prop_assert!(key.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
            }
        }

        #[test]
        fn every_key_reads_back_from_its_quoted_form(key in "[!-~]{1,255}", tail in "(;[a-z]{1,3}(=[0-9]{1,3})?){0,3}") {
            let escaped = key.replace('\\', "\\\\").replace('"', "\\\"");
            let value = format!("\"{escaped}\"{tail}");
            prop_assert_eq!(read(value.as_bytes()), Ok(key));
        }

        #[test]
        fn f095_what_is_read_is_an_item_of_rfc_8941_or_a_bare_word(
            value in near(&[
                "\"8e03978e-40d5-43dd-bc93-6894a57f9324\"",
                "8e03978e-40d5-43dd-bc93-6894a57f9324",
                r#""a\"b\\c";v=1; x;s="q;";t=tok/en;b=?1;y=:YQ==:;n=-1.5"#,
            ]),
        ) {
            let string = r#""(?:[ !#-\[\]-~]|\\["\\])*""#;
            let bare_item = format!(r"(?:{string}|\?[01]|:[A-Za-z0-9+/=]*:|-?[0-9][0-9.]*|[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*)");
            let item = format!(r"^{string}(?:; *[a-z*][a-z0-9_.*-]*(?:={bare_item})?)*$");
            let item = regex::bytes::Regex::new(&item).unwrap();
            let word = regex::bytes::Regex::new(r"^[!#$%&'*+.^_`|~0-9A-Za-z:/=-]+$").unwrap();
            if let Ok(Some(key)) = Key::from_headers([value.as_slice()]) {
                let value = value.trim_ascii();
                prop_assert!(item.is_match(value) || word.is_match(value), "{:?}", String::from_utf8_lossy(value));
                let quoted = format!("\"{}\"", key.as_str().replace('\\', "\\\\").replace('"', "\\\""));
                prop_assert_eq!(Key::from_headers([quoted.as_bytes()]), Ok(Some(key)));
            }
        }

        #[test]
        fn headers_made_of_the_grammars_own_characters_do_not_panic(value in "[\"\\\\;:=?*a1 .,-]{0,40}") {
            let _ = Key::from_headers([value.as_bytes()]);
        }
    }
}
