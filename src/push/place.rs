//! How far a file is through, as its channel says it.

use std::{fmt, str::FromStr};

use crate::error::{Error, ErrorKind, Result};

/// Names the layout of a token.
const LAYOUT: &str = "f2";

/// The layout before it, which does not say where the last batch begins.
const LAYOUT_BEFORE: &str = "f1";

/// How far a file is through: the pass over it, the bytes of it that are durable, and their digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    /// The epoch in which it was begun, so that no token is ever given twice.
    pub(super) pass: u64,
    /// Bytes of the unpacked file that are durable.
    pub(super) bytes: u64,
    /// Of those.
    pub(super) digest: String,
    /// Where in the file the last batch begins: what stands before is through in every respect, its refused records
    /// included.
    pub(super) from: u64,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pass,
            bytes,
            digest,
            from,
        } = self;
        write!(f, "{LAYOUT}.{pass}.{bytes}.{digest}.{from}")
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('.').collect();
        let (pass, bytes, digest, from) = match parts[..] {
            [LAYOUT, pass, bytes, digest, from] => (pass, bytes, digest, from),
            [LAYOUT_BEFORE, pass, bytes, digest] => (pass, bytes, digest, bytes),
            _ => return Err(unread()),
        };
        match (pass.parse(), bytes.parse(), from.parse()) {
            (Ok(pass), Ok(bytes), Ok(from)) if !digest.is_empty() && from <= bytes => Ok(Self {
                pass,
                bytes,
                digest: digest.to_owned(),
                from,
            }),
            _ => Err(unread()),
        }
    }
}

fn unread() -> Error {
    Error::new(ErrorKind::Conflict, "read offset of channel")
        .with(
            "problem",
            "it was not given by `landfall push`, or by a newer one",
        )
        .with("hint", "send through another channel")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fields::near::near;

    const GIVEN: &str = "f2.3.1024.0123456789abcdef0123456789abcdef.1000";

    #[test]
    fn a_token_without_the_beginning_of_its_batch_is_read_as_one_with_nothing_in_doubt() {
        let before: Token = "f1.3.1024.0123456789abcdef".parse().unwrap();
        assert_eq!((before.pass, before.bytes, before.from), (3, 1024, 1024));
    }

    proptest! {
        #[test]
        fn a_token_is_one_of_ours_or_none(text in near(&[GIVEN, "f1.3.1024.0123456789abcdef"])) {
            let Ok(text) = str::from_utf8(&text) else { return Ok(()) };
            if let Ok(token) = text.parse::<Token>() {
                prop_assert!(token.from <= token.bytes && !token.digest.contains('.'));
                prop_assert_eq!(token.to_string().parse::<Token>().unwrap(), token);
            }
        }
    }
}
