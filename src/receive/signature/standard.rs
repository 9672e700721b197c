//! Standard Webhooks 1.0: `webhook-id`, `webhook-timestamp` and `webhook-signature`, or the same of Svix.

use hyper::HeaderMap;

use crate::{
    config::webhook::MomentFormat,
    receive::signature::{
        claim::{Claim, SIGNATURES_MAX, Signature},
        encoding::base64,
        headers::{malformed, text},
        moment,
        refusal::Refusal,
    },
};

/// The names of the standard.
const NAMES: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];

/// The names before there was a standard, which Svix sends to this day.
const NAMES_SVIX: [&str; 3] = ["svix-id", "svix-timestamp", "svix-signature"];

/// Most Ed25519 signatures of one request: each is a pass over the body for each public key.
const ED25519_MAX: usize = 4;

const MAC_BYTES: usize = 32;
const ED25519_BYTES: usize = 64;

/// `{id}.{timestamp}.{body}`, signed by one of the signatures between spaces, each behind its version and a comma.
pub(super) fn claim<'a>(headers: &'a HeaderMap, body: &'a [u8]) -> Result<Claim<'a>, Refusal> {
    // All three of one family: a mixture would let an unsigned header stand in for a signed one.
    let svix = headers.contains_key(NAMES_SVIX[2]) && !headers.contains_key(NAMES[2]);
    let [id, at, signature] = if svix { NAMES_SVIX } else { NAMES };
    let signatures = signatures(signature, text(headers, signature)?)?;
    let id = text(headers, id)?;
    let written = text(headers, at)?;
    Ok(Claim {
        id: Some(id),
        moment: Some(moment::read(at, written, MomentFormat::Seconds)?),
        message: vec![id.as_bytes(), b".", written.as_bytes(), b".", body],
        signatures,
    })
}

fn signatures(name: &str, list: &str) -> Result<Vec<Signature>, Refusal> {
    let mut signatures = Vec::new();
    let mut asymmetric = 0;
    for (at, item) in list.split(' ').enumerate() {
        if at == SIGNATURES_MAX {
            return Err(Refusal::TooMany {
                header: name.to_owned(),
            });
        }
        let Some((version, written)) = item.split_once(',') else {
            return Err(malformed(name, "is not a list of versions and signatures"));
        };
        let of = |bytes: usize| {
            base64(written)
                .filter(|signature| signature.len() == bytes)
                .ok_or_else(|| malformed(name, "holds a signature that is none"))
        };
        match version {
            "v1" => signatures.push(Signature::Mac(of(MAC_BYTES)?)),
            "v1a" if asymmetric == ED25519_MAX => {
                return Err(Refusal::TooMany {
                    header: name.to_owned(),
                });
            }
            "v1a" => {
                asymmetric += 1;
                signatures.push(Signature::Ed25519(of(ED25519_BYTES)?));
            }
            // Of a version to come.
            _ => {}
        }
    }
    if signatures.is_empty() {
        return Err(malformed(name, "holds no signature v1 or v1a"));
    }
    Ok(signatures)
}
