//! GitHub: `X-Hub-Signature-256: sha256=HEX` over the body.

use hyper::HeaderMap;

use crate::receive::signature::{
    claim::{Claim, Signature},
    encoding::hex,
    headers::{malformed, text},
    refusal::Refusal,
};

const SIGNATURE: &str = "x-hub-signature-256";

/// The body, signed. The older `X-Hub-Signature` of SHA-1, which is sent beside it, is not looked at.
pub(super) fn claim<'a>(headers: &'a HeaderMap, body: &'a [u8]) -> Result<Claim<'a>, Refusal> {
    let written = text(headers, SIGNATURE)?.strip_prefix("sha256=");
    let signature = written.and_then(hex).filter(|signature| signature.len() == 32);
    let Some(signature) = signature else {
        return Err(malformed(SIGNATURE, "is not sha256= and 64 hexadecimal digits"));
    };
    Ok(Claim {
        id: None,
        moment: None,
        message: vec![body],
        signatures: vec![Signature::Mac(signature)],
    })
}
