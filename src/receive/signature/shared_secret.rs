//! The secret itself in a header: nothing is signed.

use hyper::HeaderMap;

use crate::receive::signature::{
    claim::{Claim, Signature},
    headers::{bytes, malformed},
    refusal::Refusal,
};

/// What stands in the header behind `prefix`.
pub(super) fn claim<'a>(name: &str, prefix: &str, headers: &'a HeaderMap) -> Result<Claim<'a>, Refusal> {
    let Some(secret) = bytes(headers, name)?.strip_prefix(prefix.as_bytes()) else {
        return Err(malformed(name, "does not begin as it should"));
    };
    Ok(Claim {
        id: None,
        moment: None,
        message: Vec::new(),
        signatures: vec![Signature::Secret(secret.to_vec())],
    })
}
