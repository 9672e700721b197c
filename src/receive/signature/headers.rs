//! Headers of which there may be one.

use hyper::HeaderMap;

use crate::receive::signature::refusal::Refusal;

/// Longest value that is looked at, in bytes.
pub(super) const VALUE_BYTES_MAX: usize = 8 * 1024;

/// The bytes of a header that has to be there.
pub(super) fn bytes<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a [u8], Refusal> {
    optional_bytes(headers, name)?.ok_or_else(|| Refusal::Missing {
        header: name.to_owned(),
    })
}

/// The text of a header that has to be there.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Refusal> {
    visible(name, bytes(headers, name)?)
}

/// The text of a header that may be missing.
pub(super) fn optional<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refusal> {
    let bytes = optional_bytes(headers, name)?;
    bytes.map(|bytes| visible(name, bytes)).transpose()
}

/// A header that holds what it should not.
pub(super) fn malformed(name: &str, problem: &'static str) -> Refusal {
    Refusal::Malformed {
        header: name.to_owned(),
        problem,
    }
}

fn optional_bytes<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a [u8]>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let value = values.next();
    if values.next().is_some() {
        return Err(Refusal::Duplicate {
            header: name.to_owned(),
        });
    }
    match value.map(|value| value.as_bytes()) {
        None | Some([]) => Ok(None),
        Some(bytes) if bytes.len() > VALUE_BYTES_MAX => Err(malformed(name, "is too long")),
        Some(bytes) => Ok(Some(bytes)),
    }
}

fn visible<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a str, Refusal> {
    match str::from_utf8(bytes) {
        Ok(text) if bytes.iter().all(|byte| (b' '..=b'~').contains(byte)) => Ok(text),
        _ => Err(malformed(name, "is not visible ASCII")),
    }
}
