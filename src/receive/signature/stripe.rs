//! Stripe: `Stripe-Signature: t=SECONDS,v1=HEX` over `{timestamp}.{body}`, with a `v1` for each secret of the sender.

use hyper::HeaderMap;

use crate::{
    config::webhook::MomentFormat,
    receive::signature::{
        claim::{Claim, SIGNATURES_MAX, Signature},
        encoding::hex,
        headers::{malformed, text},
        moment,
        refusal::Refusal,
    },
};

const SIGNATURE: &str = "stripe-signature";

/// Timestamp and body with a full stop between them, signed. Schemes other than `v1` are passed over: `v0` signs
/// nothing that matters.
pub(super) fn claim<'a>(headers: &'a HeaderMap, body: &'a [u8]) -> Result<Claim<'a>, Refusal> {
    let mut timestamp = None;
    let mut signatures = Vec::new();
    for (at, element) in text(headers, SIGNATURE)?.split(',').enumerate() {
        // One element is the timestamp.
        if at > SIGNATURES_MAX {
            return Err(Refusal::TooMany {
                header: SIGNATURE.to_owned(),
            });
        }
        match element.split_once('=') {
            Some(("t", _)) if timestamp.is_some() => return Err(malformed(SIGNATURE, "has two timestamps")),
            Some(("t", written)) => timestamp = Some(written),
            Some(("v1", written)) => match hex(written).filter(|signature| signature.len() == 32) {
                Some(signature) => signatures.push(Signature::Mac(signature)),
                None => return Err(malformed(SIGNATURE, "has a v1 that is not 64 hexadecimal digits")),
            },
            Some(_) => {}
            None => return Err(malformed(SIGNATURE, "is not a list of names and values")),
        }
    }
    let Some(written) = timestamp else {
        return Err(malformed(SIGNATURE, "has no timestamp"));
    };
    if signatures.is_empty() {
        return Err(malformed(SIGNATURE, "has no v1"));
    }
    Ok(Claim {
        id: None,
        moment: Some(moment::read(SIGNATURE, written, MomentFormat::Seconds)?),
        message: vec![written.as_bytes(), b".", body],
        signatures,
    })
}
