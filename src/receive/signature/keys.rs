//! What signatures are tried with.

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    hmac,
    signature::{ED25519, ParsedPublicKey},
};

use crate::{
    clock::Timestamp,
    config::webhook::{Hmac, HmacAlgorithm, Scheme, Webhook, WebhookSecret},
    error::{Error, ErrorKind, Result},
    receive::signature::{
        claim::{Claim, Signature},
        encoding::{base64_secret, sha256},
        refusal::Refusal,
    },
};

/// Least secret of Standard Webhooks, in bytes.
const STANDARD_BYTES_MIN: usize = 24;

/// A secret that was read.
pub(super) struct Key {
    /// Where it comes from, and what logs call it.
    pub(super) secret: WebhookSecret,
    lock: Lock,
}

/// What one kind of signature is tried with.
enum Lock {
    Mac(Box<hmac::Key>),
    Ed25519(ParsedPublicKey),
    /// The SHA-256 of the secret itself.
    Secret([u8; 32]),
}

/// The secrets of `webhook` in its order, and what kept others from being read.
pub(super) fn open(webhook: &Webhook) -> (Vec<Key>, Vec<Error>) {
    let (mut keys, mut unread) = (Vec::new(), Vec::new());
    for secret in &webhook.secrets {
        match lock(&webhook.scheme, secret) {
            Ok(lock) => keys.push(Key {
                secret: secret.clone(),
                lock,
            }),
            Err(error) => unread.push(error.with("secret", &secret.name)),
        }
    }
    (keys, unread)
}

/// The secret that made a signature of `claim`. One that is retired at `now` is named, and refused.
pub(super) fn matching<'k>(keys: &'k [Key], claim: &Claim<'_>, now: Timestamp) -> Result<&'k Key, Refusal> {
    let (retired, active): (Vec<&Key>, Vec<&Key>) = keys.iter().partition(|key| key.secret.is_retired(now));
    if let Some(key) = active.into_iter().find(|key| key.lock.fits(claim)) {
        return Ok(key);
    }
    match retired.into_iter().find(|key| key.lock.fits(claim)) {
        Some(key) => Err(Refusal::Retired {
            key: key.secret.name.clone(),
        }),
        None => Err(Refusal::Mismatch),
    }
}

fn lock(scheme: &Scheme, secret: &WebhookSecret) -> Result<Lock> {
    let text = secret.value.reveal()?;
    if text.is_empty() {
        return Err(Error::new(ErrorKind::Config, "read webhook secret").with("problem", "it is empty"));
    }
    let mac = |algorithm| Ok(Lock::Mac(Box::new(hmac::Key::new(algorithm, text.as_bytes()))));
    match scheme {
        Scheme::StandardWebhooks => standard(&text),
        Scheme::Github | Scheme::Stripe | Scheme::Shopify | Scheme::Slack => mac(hmac::HMAC_SHA256),
        Scheme::Hmac(Hmac { algorithm, .. }) => mac(match algorithm {
            HmacAlgorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            HmacAlgorithm::Sha256 => hmac::HMAC_SHA256,
            HmacAlgorithm::Sha512 => hmac::HMAC_SHA512,
        }),
        Scheme::SharedSecret { .. } | Scheme::None => Ok(Lock::Secret(sha256(text.as_bytes()))),
    }
}

/// Reads a secret in the form that Standard Webhooks gives it; the prefix of a shared one may be missing.
fn standard(text: &str) -> Result<Lock> {
    let wrong = |problem: &'static str, hint: &'static str| {
        Error::new(ErrorKind::Config, "read webhook secret")
            .with("problem", problem)
            .with("hint", hint)
    };
    if text.starts_with("whsk_") {
        let hint = "give the sender's public key, whpk_…; nobody else needs the private one";
        return Err(wrong("it is a private key", hint));
    }
    if let Some(key) = text.strip_prefix("whpk_") {
        let key = base64_secret(key).and_then(|key| ParsedPublicKey::new(&ED25519, key).ok());
        let problem = "it is not an Ed25519 key in Base64";
        return key
            .map(Lock::Ed25519)
            .ok_or_else(|| wrong(problem, "write it as the sender shows it, whpk_ included"));
    }
    let key = base64_secret(text.strip_prefix("whsec_").unwrap_or(text));
    match key.filter(|key| key.len() >= STANDARD_BYTES_MIN) {
        Some(key) => Ok(Lock::Mac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &key)))),
        None => Err(wrong(
            "it is not at least 24 bytes in Base64",
            "write it as the sender shows it: whsec_…",
        )),
    }
}

impl Lock {
    /// Whether it made any signature of `claim`. Takes the same time however much of a signature is right.
    fn fits(&self, claim: &Claim<'_>) -> bool {
        let mut signatures = claim.signatures.iter();
        match self {
            Self::Mac(key) => {
                if !claim
                    .signatures
                    .iter()
                    .any(|one| matches!(one, Signature::Mac(_)))
                {
                    return false;
                }
                let mut context = hmac::Context::with_key(key);
                claim.message.iter().for_each(|part| context.update(part));
                let tag = context.sign();
                signatures.any(|signature| match signature {
                    Signature::Mac(other) => verify_slices_are_equal(tag.as_ref(), other).is_ok(),
                    _ => false,
                })
            }
            Self::Ed25519(key) => {
                let message = || claim.message.concat();
                let mut whole = None;
                signatures.any(|signature| match signature {
                    Signature::Ed25519(other) => {
                        let message = whole.get_or_insert_with(message);
                        key.verify_sig(message, other).is_ok()
                    }
                    _ => false,
                })
            }
            // Of digests the length is the same, and how much of them is equal says nothing about the secret.
            Self::Secret(own) => signatures.any(|signature| match signature {
                Signature::Secret(other) => verify_slices_are_equal(own, &sha256(other)).is_ok(),
                _ => false,
            }),
        }
    }
}
