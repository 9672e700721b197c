//! Access tokens of others: what a token must be, and what it proves (RFC 7519, RFC 8725, RFC 9068).
//!
//! ```text
//! text ─ Unverified ─ signature ─ Claims ─ times, audience ─ producer, scopes
//!          (form)      (KeySet)      (checked)
//! ```
//!
//! Everything here is a pure function of the token, the keys and the time.

use std::{collections::HashMap, fmt};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde::{
    Deserialize,
    de::{Deserializer, Error as _, MapAccess, Visitor},
};
use serde_json::{Map, Value};

use crate::{
    clock::Timestamp,
    config::{
        Name,
        producers::{Scope, Scopes},
        serve::{Issuer, SigningAlgorithm},
    },
    json::JsonPath,
    receive::producer::{denial::Denial, keys::KeySet},
};

/// Longest token that is read, in bytes.
pub const JWT_BYTES_MAX: usize = 8 * 1024;

/// Longest name of a key that is looked for, in bytes.
const KID_BYTES_MAX: usize = 256;

/// Longest value of a claim that names a producer, in bytes.
const SUBJECT_BYTES_MAX: usize = 256;

/// Seconds since 1970 beyond this are no time that anyone means; sums of them cannot overflow.
const SECONDS_MAX: f64 = 1e12;

/// Headers that bring a key or say where one is, or ask for what is not understood (RFC 7515, section 4.1).
const HEADERS_REFUSED: [&str; 6] = ["jwk", "jku", "x5u", "x5c", "crit", "b64"];

/// A signed token of which nothing is believed yet. Whole, it is as good as a password: it has no `Debug`.
pub struct Unverified<'a> {
    /// How it says it is signed.
    pub algorithm: SigningAlgorithm,
    /// The key it says it is signed with.
    pub kid: Option<String>,
    /// Who it says has issued it.
    pub issuer: String,
    claims: Claims,
    signed: &'a str,
    signature: &'a str,
}

/// An object whose names are all different.
struct Claims(Map<String, Value>);

/// What a token proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// What the claim that names the producer holds.
    pub subject: String,
    /// The scopes it grants; none if the issuer grants none and the producer's own hold.
    pub scopes: Option<Scopes>,
}

impl<'a> Unverified<'a> {
    /// Takes a token in its three parts apart.
    ///
    /// # Errors
    /// [`Denial::JwtMalformed`], [`Denial::JwtAlgorithm`] or [`Denial::JwtHeader`].
    pub fn read(text: &'a str) -> Result<Self, Denial> {
        if text.len() > JWT_BYTES_MAX {
            return Err(Denial::JwtMalformed);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Denial::JwtMalformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Denial::JwtMalformed)?;
        let Claims(header) = object(header)?;
        let claims = object(claims)?;
        let algorithm = header.get("alg").and_then(Value::as_str);
        let algorithm = SigningAlgorithm::ALL
            .into_iter()
            .find_map(|(name, known)| (algorithm == Some(name)).then_some(known))
            .ok_or(Denial::JwtAlgorithm)?;
        if HEADERS_REFUSED.iter().any(|name| header.contains_key(*name)) || !is_access_token(&header) {
            return Err(Denial::JwtHeader);
        }
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) if kid.len() <= KID_BYTES_MAX => Some(kid.clone()),
            Some(_) => return Err(Denial::JwtHeader),
        };
        let issuer = match claims.0.get("iss") {
            Some(Value::String(issuer)) => issuer.clone(),
            _ => return Err(Denial::JwtIssuer),
        };
        Ok(Self {
            algorithm,
            kid,
            issuer,
            claims,
            signed,
            signature,
        })
    }

    /// Checks the token against the keys and the rules of its issuer at `now`.
    ///
    /// # Errors
    /// The first [`Denial`], the signature before anything that is claimed.
    pub fn verify(&self, issuer: &Issuer, keys: &KeySet, now: Timestamp) -> Result<Proven, Denial> {
        if self.issuer != issuer.issuer_text {
            return Err(Denial::JwtIssuer);
        }
        if !issuer.algorithms.contains(&self.algorithm) {
            return Err(Denial::JwtAlgorithm);
        }
        let key = keys
            .find(self.kid.as_deref(), self.algorithm)
            .ok_or(Denial::JwtKeyUnknown)?;
        let algorithm = crypto(self.algorithm);
        match jsonwebtoken::crypto::verify(self.signature, self.signed.as_bytes(), key, algorithm) {
            Ok(true) => {}
            Ok(false) | Err(_) => return Err(Denial::JwtSignature),
        }
        self.check_times(issuer, now)?;
        self.check_audience(issuer)?;
        let subject = self
            .claims
            .text(&issuer.producer)
            .ok_or(Denial::ProducerUnknown)?;
        let scopes = issuer.scopes.as_ref().map(|path| self.scopes(path, issuer));
        Ok(Proven { subject, scopes })
    }

    /// `exp`, `nbf`, `iat` (RFC 7519, section 4.1), and from issue to expiry no longer than allowed.
    fn check_times(&self, issuer: &Issuer, now: Timestamp) -> Result<(), Denial> {
        let now = now.timestamp_micros() as f64 / 1e6;
        let skew = issuer.skew.min(Issuer::SKEW_MAX).as_secs_f64();
        let expires = self.claims.seconds("exp")?.ok_or(Denial::JwtMalformed)?;
        let issued = self.claims.seconds("iat")?;
        let begins = self.claims.seconds("nbf")?;
        if now >= expires + skew {
            return Err(Denial::JwtExpired);
        }
        if [issued, begins]
            .into_iter()
            .flatten()
            .any(|start| start > now + skew)
        {
            return Err(Denial::JwtNotYet);
        }
        // What does not say when it was issued was issued now: it may at most live from now on.
        let lifetime = expires - issued.unwrap_or(now + skew);
        if lifetime > issuer.lifetime_max.as_secs_f64() {
            return Err(Denial::JwtLifetime);
        }
        Ok(())
    }

    fn check_audience(&self, issuer: &Issuer) -> Result<(), Denial> {
        let ours = |audience: &Value| {
            let audience = audience.as_str();
            audience.is_some_and(|audience| issuer.audience.iter().any(|ours| ours == audience))
        };
        let meant = match self.claims.0.get("aud") {
            Some(Value::Array(audiences)) => audiences.iter().any(ours),
            Some(audience) => ours(audience),
            None => false,
        };
        if meant { Ok(()) } else { Err(Denial::JwtAudience) }
    }

    /// Words in a text (RFC 6749, section 3.3), or in a list; those that are not known count for nothing.
    fn scopes(&self, path: &JsonPath, issuer: &Issuer) -> Scopes {
        let scope = |word: &str| match issuer.scope_words.as_slice() {
            [] => Scope::ALL.into_iter().find(|scope| scope.as_str() == word),
            words => words
                .iter()
                .find_map(|(known, scope)| (known == word).then_some(*scope)),
        };
        match self.claims.at(path) {
            Some(Value::String(words)) => Scopes::of(words.split_ascii_whitespace().filter_map(scope)),
            Some(Value::Array(words)) => Scopes::of(words.iter().filter_map(Value::as_str).filter_map(scope)),
            _ => Scopes::default(),
        }
    }
}

/// Which producer an issuer means: by its table, or by name.
pub fn named(issuer: &Issuer, table: &HashMap<String, Name>, subject: &str) -> Option<Name> {
    if issuer.producers.is_empty() {
        Name::new(subject).ok()
    } else {
        table.get(subject).cloned()
    }
}

impl Claims {
    fn at(&self, path: &JsonPath) -> Option<&Value> {
        let mut names = path.members();
        let mut value = self.0.get(names.next()?)?;
        for name in names {
            value = value.as_object()?.get(name)?;
        }
        Some(value)
    }

    fn text(&self, path: &JsonPath) -> Option<String> {
        let text = match self.at(path)? {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        (1..=SUBJECT_BYTES_MAX).contains(&text.len()).then_some(text)
    }

    /// A `NumericDate` (RFC 7519, section 2): it may have a fraction.
    fn seconds(&self, name: &str) -> Result<Option<f64>, Denial> {
        let Some(value) = self.0.get(name) else {
            return Ok(None);
        };
        let seconds = value.as_f64().filter(|seconds| seconds.abs() <= SECONDS_MAX);
        seconds.map(Some).ok_or(Denial::JwtMalformed)
    }
}

/// Absent, `JWT` or `at+jwt` (RFC 9068, section 2.1), so that no token of another kind passes for one (RFC 8725, 3.11).
fn is_access_token(header: &Map<String, Value>) -> bool {
    match header.get("typ") {
        None => true,
        Some(Value::String(typ)) => {
            let typ = typ.to_ascii_lowercase();
            matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt")
        }
        Some(_) => false,
    }
}

fn object(part: &str) -> Result<Claims, Denial> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Denial::JwtMalformed)?;
    serde_json::from_slice(&bytes).map_err(|_| Denial::JwtMalformed)
}

fn crypto(algorithm: SigningAlgorithm) -> Algorithm {
    match algorithm {
        SigningAlgorithm::Rs256 => Algorithm::RS256,
        SigningAlgorithm::Rs384 => Algorithm::RS384,
        SigningAlgorithm::Rs512 => Algorithm::RS512,
        SigningAlgorithm::Ps256 => Algorithm::PS256,
        SigningAlgorithm::Ps384 => Algorithm::PS384,
        SigningAlgorithm::Ps512 => Algorithm::PS512,
        SigningAlgorithm::Es256 => Algorithm::ES256,
        SigningAlgorithm::Es384 => Algorithm::ES384,
        SigningAlgorithm::EdDsa => Algorithm::EdDSA,
    }
}

impl<'de> Deserialize<'de> for Claims {
    /// Of a name that is there twice it would be anyone's choice which one counts (RFC 7519, section 4).
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Claims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
                let mut claims = Map::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if claims.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name is there twice"));
                    }
                }
                Ok(Claims(claims))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests;
