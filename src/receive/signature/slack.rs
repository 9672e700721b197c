//! Slack: `X-Slack-Signature: v0=HEX` over `v0:{timestamp}:{body}`.

use hyper::HeaderMap;

use crate::{
    config::webhook::MomentFormat,
    receive::signature::{
        claim::{Claim, Signature},
        encoding::hex,
        headers::{malformed, text},
        moment,
        refusal::Refusal,
    },
};

const SIGNATURE: &str = "x-slack-signature";
const TIMESTAMP: &str = "x-slack-request-timestamp";

/// Version, timestamp and body with colons between them, signed.
pub(super) fn claim<'a>(headers: &'a HeaderMap, body: &'a [u8]) -> Result<Claim<'a>, Refusal> {
    let written = text(headers, SIGNATURE)?.strip_prefix("v0=");
    let signature = written.and_then(hex).filter(|signature| signature.len() == 32);
    let Some(signature) = signature else {
        return Err(malformed(SIGNATURE, "is not v0= and 64 hexadecimal digits"));
    };
    let written = text(headers, TIMESTAMP)?;
    Ok(Claim {
        id: None,
        moment: Some(moment::read(TIMESTAMP, written, MomentFormat::Seconds)?),
        message: vec![b"v0:", written.as_bytes(), b":", body],
        signatures: vec![Signature::Mac(signature)],
    })
}
