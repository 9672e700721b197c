//! Any other signature with a shared secret, by its description.

use hyper::HeaderMap;

use crate::{
    config::webhook::{Hmac, HmacAlgorithm, SignatureEncoding, SignedPart},
    receive::signature::{
        claim::{Claim, Signature},
        encoding::{base64, hex_of_one_case},
        headers::{bytes, malformed, text},
        moment,
        refusal::Refusal,
    },
};

/// The parts that `settings` names, signed.
pub(super) fn claim<'a>(
    settings: &'a Hmac,
    headers: &'a HeaderMap,
    body: &'a [u8],
) -> Result<Claim<'a>, Refusal> {
    let written = text(headers, &settings.header)?;
    let Some(written) = written.strip_prefix(settings.prefix.as_str()) else {
        return Err(malformed(&settings.header, "does not begin as it should"));
    };
    let decoded = match settings.encoding {
        SignatureEncoding::Hex => hex_of_one_case(written),
        SignatureEncoding::Base64 => base64(written),
    };
    let length = match settings.algorithm {
        HmacAlgorithm::Sha1 => 20,
        HmacAlgorithm::Sha256 => 32,
        HmacAlgorithm::Sha512 => 64,
    };
    let Some(signature) = decoded.filter(|signature| signature.len() == length) else {
        return Err(malformed(&settings.header, "is not a signature of its algorithm"));
    };
    let timestamp = match &settings.timestamp {
        Some(at) => Some((at, text(headers, &at.header)?)),
        None => None,
    };
    let parts = settings.signed.iter().map(|part| {
        Ok(match part {
            SignedPart::Text(text) => text.as_bytes(),
            // The settings name it only where there is one.
            SignedPart::Timestamp => timestamp.map_or(&[] as &[u8], |(_, written)| written.as_bytes()),
            SignedPart::Header(name) => bytes(headers, name)?,
            SignedPart::Body => body,
        })
    });
    Ok(Claim {
        id: None,
        message: parts.collect::<Result<_, _>>()?,
        moment: match timestamp {
            Some((at, written)) => Some(moment::read(&at.header, written, at.format)?),
            None => None,
        },
        signatures: vec![Signature::Mac(signature)],
    })
}
