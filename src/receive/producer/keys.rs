//! The public keys of an issuer (JWK Set, RFC 7517).

use std::collections::HashMap;

use jsonwebtoken::{
    AlgorithmFamily, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    config::serve::SigningAlgorithm,
    error::{Error, ErrorKind, Result},
};

/// Most keys of one issuer that are looked at.
const KEYS_MAX: usize = 100;

/// Public keys by their name. Never holds a shared secret.
#[derive(Clone, Default)]
pub struct KeySet {
    named: HashMap<String, Vec<Key>>,
    nameless: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    decoding: DecodingKey,
    /// The algorithm it is for, if it says so.
    only: Option<String>,
    curve: Option<EllipticCurve>,
}

impl KeySet {
    /// Reads a JWK Set. Keys that are not for signatures, that are secrets or not understood are passed over.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it is not a JWK Set with at least one usable key.
    pub fn parse(json: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<Value>,
        }
        let bad = |what| Error::new(ErrorKind::Unavailable, "read keys of the issuer").with("problem", what);
        let document: Document = serde_json::from_slice(json).map_err(|_| bad("not a JWK Set"))?;
        let mut set = Self::default();
        for value in document.keys.into_iter().take(KEYS_MAX) {
            let Some((name, key)) = usable(value) else {
                continue;
            };
            match name {
                Some(name) => set.named.entry(name).or_default().push(key),
                None => set.nameless.push(key),
            }
        }
        if set.is_empty() {
            return Err(bad("no key to check signatures with"));
        }
        Ok(set)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.nameless.is_empty()
    }

    /// The key called `kid` for `algorithm`; without a name the only one that fits, if there is one alone.
    pub(crate) fn find(&self, kid: Option<&str>, algorithm: SigningAlgorithm) -> Option<&DecodingKey> {
        let mut fitting = match kid {
            Some(kid) => self.named.get(kid)?.iter().chain(&[]),
            None => self.nameless.iter().chain(&[]),
        }
        .filter(|key| key.fits(algorithm));
        let found = match (fitting.next(), kid) {
            (None, None) => {
                let mut all = self.named.values().flatten().filter(|key| key.fits(algorithm));
                let found = all.next();
                found.filter(|_| all.next().is_none())
            }
            (found, None) => found.filter(|_| fitting.next().is_none()),
            (found, Some(_)) => found,
        };
        found.map(|key| &key.decoding)
    }
}

impl Key {
    /// A key is for one kind of signature: a public RSA key is never taken for a shared secret.
    fn fits(&self, algorithm: SigningAlgorithm) -> bool {
        let family = match algorithm {
            SigningAlgorithm::Es256 => {
                self.decoding.family() == AlgorithmFamily::Ec && self.curve == Some(EllipticCurve::P256)
            }
            SigningAlgorithm::Es384 => {
                self.decoding.family() == AlgorithmFamily::Ec && self.curve == Some(EllipticCurve::P384)
            }
            SigningAlgorithm::EdDsa => self.decoding.family() == AlgorithmFamily::Ed,
            _ => self.decoding.family() == AlgorithmFamily::Rsa,
        };
        family && self.only.as_deref().is_none_or(|only| only == algorithm.as_str())
    }
}

/// The key and its name, if signatures can be checked with it.
fn usable(value: Value) -> Option<(Option<String>, Key)> {
    let only = match value.get("alg") {
        Some(Value::String(only)) => Some(only.clone()),
        _ => None,
    };
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let signing = match &jwk.common.public_key_use {
        Some(purpose) => *purpose == PublicKeyUse::Signature,
        None => true,
    };
    let operations = jwk.common.key_operations.as_ref();
    let verifying = operations.is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    let curve = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => None,
        AlgorithmParameters::EllipticCurve(key) => Some(key.curve.clone()),
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Some(key.curve.clone())
        }
        _ => return None,
    };
    let decoding = DecodingKey::from_jwk(&jwk)
        .ok()
        .filter(|_| signing && verifying)?;
    let key = Key {
        decoding,
        only,
        curve,
    };
    Some((jwk.common.key_id, key))
}
