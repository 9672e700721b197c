//! New tokens for producers.

use rand::RngExt as _;

use crate::receive::producer::token::{RANDOM_BYTES, Token};

/// A token nobody has seen yet, to be given to its producer and kept nowhere, and the hash of it that the project file
/// holds.
///
/// ```
/// let (token, hash) = landfall::ops::token::token();
/// assert!(token.starts_with("lfp_") && hash.starts_with("sha256:"));
/// ```
pub fn token() -> (String, String) {
    // The generator of the thread is seeded by the machine and fit for secrets.
    let token = Token::new(rand::rng().random::<[u8; RANDOM_BYTES]>());
    (token.reveal().to_owned(), token.hash().to_string())
}
