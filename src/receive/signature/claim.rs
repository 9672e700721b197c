//! What the headers of a request claim, before anything of it is believed.

use crate::clock::Timestamp;

/// Most signatures of one request that are looked at. Senders add one for each secret of theirs while they replace it.
pub(super) const SIGNATURES_MAX: usize = 16;

/// What a request claims: that `message` was signed by any of `signatures`.
pub(super) struct Claim<'a> {
    /// The id of the event, if it is part of what is signed.
    pub(super) id: Option<&'a str>,
    /// When it was signed, if that is part of what is signed.
    pub(super) moment: Option<Timestamp>,
    /// What is signed, in parts that follow each other.
    pub(super) message: Vec<&'a [u8]>,
    /// At most [`SIGNATURES_MAX`].
    pub(super) signatures: Vec<Signature>,
}

/// One signature, decoded.
pub(super) enum Signature {
    /// A tag of HMAC, with the hash function that the scheme says.
    Mac(Vec<u8>),
    /// An Ed25519 signature (RFC 8032).
    Ed25519(Vec<u8>),
    /// The secret itself.
    Secret(Vec<u8>),
}
