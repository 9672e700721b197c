//! Signatures as text, each in one spelling: what is spelled in another way was changed on its way.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{
    Engine as _, alphabet,
    engine::{
        DecodePaddingMode,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD},
    },
};

/// Reads what was copied by hand, perhaps without the padding.
const COPIED: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The bytes of lowercase hexadecimal digits.
pub(super) fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect()
}

/// As [`hex`], and all letters may be capitals.
pub(super) fn hex_of_one_case(text: &str) -> Option<Vec<u8>> {
    match text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        true => hex(text),
        false => hex(&text.to_ascii_lowercase()),
    }
}

/// The bytes of Base64 with padding (RFC 4648, section 4).
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// The bytes of a secret in Base64, with padding or without.
pub(super) fn base64_secret(text: &str) -> Option<Vec<u8>> {
    COPIED.decode(text).ok()
}

/// The SHA-256 of `bytes`.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, bytes).as_ref());
    sum
}
