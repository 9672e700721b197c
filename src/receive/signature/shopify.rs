//! Shopify: `X-Shopify-Hmac-Sha256: BASE64` over the body.

use hyper::HeaderMap;

use crate::receive::signature::{
    claim::{Claim, Signature},
    encoding::base64,
    headers::{malformed, text},
    refusal::Refusal,
};

const SIGNATURE: &str = "x-shopify-hmac-sha256";

/// The body, signed.
pub(super) fn claim<'a>(headers: &'a HeaderMap, body: &'a [u8]) -> Result<Claim<'a>, Refusal> {
    let signature = base64(text(headers, SIGNATURE)?).filter(|signature| signature.len() == 32);
    let Some(signature) = signature else {
        return Err(malformed(SIGNATURE, "is not 32 bytes in Base64"));
    };
    Ok(Claim {
        id: None,
        moment: None,
        message: vec![body],
        signatures: vec![Signature::Mac(signature)],
    })
}
