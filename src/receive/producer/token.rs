//! Bearer tokens of our own: `lfp_ID_SECRET`, how they are made, and what is kept of them.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use sha2::{Digest as _, Sha256};

use crate::config::producers::{TokenHash, TokenId, base62};

/// What every token begins with, so that scanners for leaked secrets find them.
pub const PREFIX: &str = "lfp_";

/// Random bytes that a token is made of.
pub const RANDOM_BYTES: usize = ID_RANDOM_BYTES + SECRET_RANDOM_BYTES;

/// 72 bits, of which an id of 12 letters and digits keeps 71: two tokens do not meet.
const ID_RANDOM_BYTES: usize = 9;

/// 256 bits: no one guesses them, so that their plain hash may be read by anyone.
const SECRET_RANDOM_BYTES: usize = 32;

/// Letters and digits that 128 bits take.
const HALF_CHARS: usize = 22;

/// Letters and digits that a CRC-32 takes.
const CHECKSUM_CHARS: usize = 6;

/// Bytes of a whole token.
const TOKEN_BYTES: usize = PREFIX.len() + TokenId::BYTES + 1 + 2 * HALF_CHARS + CHECKSUM_CHARS;

/// A token, shown to nobody but its producer. `Debug` prints its id alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    text: String,
    hash: TokenHash,
}

impl Token {
    /// The token made of `random`, which must come from a generator fit for secrets and be used once.
    ///
    /// ```
    /// use landfall::receive::producer::token::{RANDOM_BYTES, Token};
    /// let token = Token::new([7; RANDOM_BYTES]);
    /// assert!(token.reveal().starts_with("lfp_"));
    /// assert_eq!(Token::parse(token.reveal()).as_ref(), Some(&token));
    /// ```
    pub fn new(random: [u8; RANDOM_BYTES]) -> Self {
        let (id, secret) = random.split_at(ID_RANDOM_BYTES);
        let mut text = PREFIX.to_owned();
        let id = TokenId::from_number(number(id));
        text.push_str(id.as_str());
        text.push('_');
        for half in secret.chunks(SECRET_RANDOM_BYTES / 2) {
            text.push_str(&base62(number(half), HALF_CHARS));
        }
        let checksum = crc32fast::hash(text.as_bytes());
        text.push_str(&base62(u128::from(checksum), CHECKSUM_CHARS));
        let hash = TokenHash {
            id,
            sha256: Sha256::digest(text.as_bytes()).into(),
        };
        Self { text, hash }
    }

    /// Reads a token, or gives none if it is not one: of another length, with other characters, with a wrong checksum.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != TOKEN_BYTES || !text.is_ascii() {
            return None;
        }
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let id = TokenId::parse(id).ok()?;
        let (body, checksum) = text.split_at(TOKEN_BYTES - CHECKSUM_CHARS);
        let expected = base62(u128::from(crc32fast::hash(body.as_bytes())), CHECKSUM_CHARS);
        // The checksum tells a mistyped token from a wrong one, and nothing about any that is right.
        if !secret.bytes().all(|byte| byte.is_ascii_alphanumeric()) || checksum != expected {
            return None;
        }
        let sha256 = Sha256::digest(text.as_bytes()).into();
        Some(Self {
            text: text.to_owned(),
            hash: TokenHash { id, sha256 },
        })
    }

    /// The token itself. Never for a log.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// What is kept of it.
    pub fn hash(&self) -> &TokenHash {
        &self.hash
    }

    /// Whether it is the one that `kept` was made of. Takes the same time whatever differs.
    pub fn is(&self, kept: &TokenHash) -> bool {
        verify_slices_are_equal(&self.hash.sha256, &kept.sha256).is_ok()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({PREFIX}{}_****)", self.hash.id)
    }
}

/// At most 16 bytes as a number.
fn number(bytes: &[u8]) -> u128 {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_has_its_form_and_shows_its_id_alone() {
        let token = Token::new([0xa5; RANDOM_BYTES]);
        let text = token.reveal();
        assert_eq!(text.len(), TOKEN_BYTES);
        let shown = format!("{token:?}");
        assert_eq!(shown, format!("Token(lfp_{}_****)", token.hash().id));
        assert!(!shown.contains(&text[17..]));
        // `printf %s TOKEN | sha256sum` makes the same hash.
        assert_eq!(token.hash().sha256, <[u8; 32]>::from(Sha256::digest(text)));
        let line = token.hash().to_string();
        assert!(token.is(&TokenHash::parse(&line).unwrap()) && !line.contains(&text[17..]));
    }

    #[test]
    fn what_was_mistyped_is_not_a_token() {
        let token = Token::new([1; RANDOM_BYTES]);
        let text = token.reveal();
        for at in 0..text.len() {
            let mut other = text.as_bytes().to_vec();
            other[at] = if other[at] == b'x' { b'y' } else { b'x' };
            assert_eq!(Token::parse(str::from_utf8(&other).unwrap()), None, "{at}");
        }
        for other in [
            "",
            "lfp_",
            &text[1..],
            &format!("{text}0"),
            &text.to_uppercase(),
            &format!(" {text}"),
        ] {
            assert_eq!(Token::parse(other), None);
        }
    }

    proptest! {
        #[test]
        fn every_token_reads_back_and_no_other_has_its_hash(one: [u8; 32], other: [u8; 32], id: [u8; 9]) {
            let random = |secret: [u8; 32]| {
                let mut random = [0; RANDOM_BYTES];
                random[..9].copy_from_slice(&id);
                random[9..].copy_from_slice(&secret);
                random
            };
            let (mine, theirs) = (Token::new(random(one)), Token::new(random(other)));
            prop_assert_eq!(Token::parse(mine.reveal()), Some(mine.clone()));
            prop_assert_eq!(&mine.hash().id, &theirs.hash().id);
            prop_assert_eq!(mine.is(theirs.hash()), one == other);
        }

        #[test]
        fn no_text_makes_it_panic(text: String, body in "[A-Za-z0-9_]{0,70}") {
            prop_assert_eq!(Token::parse(&text), None);
            let _ = Token::parse(&format!("lfp_{body}"));
        }
    }
}
