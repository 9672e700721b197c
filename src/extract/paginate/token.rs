//! Page tokens: what a value of the answer is as text.

use std::borrow::Cow;

use serde_json::Value;

use crate::{
    config::request::{Place, TokenSlot},
    error::{Error, ErrorKind, Result},
    extract::client::Head,
    json::{self, JsonPath},
};

/// How a token is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As the text it stands for.
    Text,
    /// As JSON, so that a number goes back as a number.
    Json,
}

impl Form {
    /// The form of tokens that go to `slot`.
    pub(super) fn of(slot: &TokenSlot) -> Self {
        match slot {
            TokenSlot::BodyField(_) => Self::Json,
            TokenSlot::Query(_) | TokenSlot::Header(_) | TokenSlot::Template => Self::Text,
        }
    }
}

/// The token at `place`, or `None` for nothing, `null`, `false` and an empty text.
///
/// # Errors
/// [`ErrorKind::Refused`] for a value that cannot be a token.
pub(super) fn at(place: &Place, head: &Head, body: &[u8], form: Form) -> Result<Option<String>> {
    match place {
        Place::Header(name) => {
            let text = header(name, head)?.filter(|text| !text.is_empty());
            Ok(text.map(|text| of_text(text, form)))
        }
        Place::Body(path) => of_bytes(first(path, body)?, form),
    }
}

/// The text of a header.
///
/// # Errors
/// [`ErrorKind::Refused`] if it is not text.
pub(super) fn header<'a>(name: &str, head: &'a Head) -> Result<Option<&'a str>> {
    let value = head.headers.get(name).map(|value| value.to_str());
    value.transpose().map_err(|_| odd("a header that is not text"))
}

/// The first value at `path`.
///
/// # Errors
/// [`ErrorKind::Refused`] if the text is not JSON.
pub(super) fn first<'a>(path: &JsonPath, body: &'a [u8]) -> Result<Option<&'a [u8]>> {
    path.first(body)
        .map_err(|defect| Error::new(ErrorKind::Refused, "read next page token").with("problem", defect))
}

/// The token a JSON value stands for. Objects and arrays are tokens only for a request body, where DynamoDB and
/// Elasticsearch have them.
///
/// # Errors
/// [`ErrorKind::Refused`] for a value that cannot be a token.
pub(super) fn of_bytes(value: Option<&[u8]>, form: Form) -> Result<Option<String>> {
    let Some(value) = value else {
        return Ok(None);
    };
    let as_written = || {
        std::str::from_utf8(value)
            .map(|text| Some(text.to_owned()))
            .map_err(|_| odd("not UTF-8"))
    };
    match value.first() {
        Some(b'"') => {
            let string = json::text(value).ok_or_else(|| odd("a broken string"))?;
            if string.is_empty() {
                return Ok(None);
            }
            match form {
                Form::Text => Ok(Some(string.into_owned())),
                Form::Json => as_written(),
            }
        }
        Some(b'-' | b'0'..=b'9') => as_written(),
        Some(b'n' | b'f') | None => Ok(None),
        Some(b'{' | b'[') if form == Form::Json => as_written(),
        _ => Err(odd("neither text nor a number")),
    }
}

/// The token a template made.
///
/// # Errors
/// [`ErrorKind::Refused`] for a value that cannot be a token.
pub(super) fn of_value(value: &Value, form: Form) -> Result<Option<String>> {
    match value {
        // A template that is more than one expression leaves the spaces between its parts.
        Value::String(text) => {
            let text = Some(text.trim()).filter(|text| !text.is_empty());
            Ok(text.map(|text| of_text(text, form)))
        }
        other => of_bytes(Some(other.to_string().as_bytes()), form),
    }
}

/// The number at `place`, if there is one: a JSON number, digits in text, or what stands behind the `/` of a
/// `Content-Range` (RFC 9110, section 14.4).
///
/// # Errors
/// [`ErrorKind::Refused`] if the body is not JSON.
pub(super) fn count_at(place: &Place, head: &Head, body: &[u8]) -> Result<Option<u64>> {
    let text = text_at(place, head, body)?;
    Ok(text.and_then(|text| count_in(&text)))
}

/// The number that `text` ends with, if a `/` or nothing stands before it: digits alone.
fn count_in(text: &str) -> Option<u64> {
    let digits = text.rsplit('/').next().unwrap_or_default().trim();
    let is_count = digits.bytes().all(|byte| byte.is_ascii_digit());
    is_count.then(|| digits.parse().ok()).flatten()
}

/// The scalar at `place` as text, whatever it is; `null` is nothing.
///
/// # Errors
/// [`ErrorKind::Refused`] if the body is not JSON.
pub(in crate::extract) fn text_at<'a>(
    place: &Place,
    head: &'a Head,
    body: &'a [u8],
) -> Result<Option<Cow<'a, str>>> {
    match place {
        Place::Header(name) => Ok(header(name, head)?.map(Cow::Borrowed)),
        Place::Body(path) => Ok(first(path, body)?.and_then(|value| match value.first() {
            Some(b'"') => json::text(value),
            Some(b'n') | None => None,
            _ => std::str::from_utf8(value).ok().map(Cow::Borrowed),
        })),
    }
}

fn of_text(text: &str, form: Form) -> String {
    match form {
        Form::Text => text.to_owned(),
        Form::Json => Value::from(text).to_string(),
    }
}

fn odd(problem: &'static str) -> Error {
    Error::new(ErrorKind::Refused, "read next page token").with("problem", problem)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fields::near::{each_long, near};

    proptest! {
        #[test]
        fn the_length_of_a_content_range_is_its_digits_alone(
            value in near(&["items 0-24/319", "bytes 0-1023/146515", "items */0", "items 0-9/*", "42"]),
        ) {
            let Ok(text) = str::from_utf8(&value) else { return Ok(()) };
            let behind = text.rsplit_once('/').map_or(text, |(_, behind)| behind).trim();
            let grammar = regex::Regex::new("^[0-9]+$").unwrap();
            let expected = grammar.is_match(behind).then(|| behind.parse().ok()).flatten();
            prop_assert_eq!(count_in(text), expected, "{}", text);
        }
    }

    #[test]
    fn a_content_range_of_64_kib_is_read_in_one_pass() {
        each_long(&["/", "0/", "9", " ", "*"], |value| {
            count_in(str::from_utf8(&value).unwrap());
        });
    }
}
