//! Whether a webhook is from whom it says: pure functions over its headers and the bytes of its body.
//!
//! ```text
//! headers ─ one file per scheme ─► Claim (moment, message, signatures) ─ keys ─► Proof ─ event ─► Verified
//!                                   │ Refusal: one 401, a precise class for the log
//! ```
//!
//! [`Verifier::verify`] sees bytes as they came, before any decoding; only what it returns opens the way to
//! [`Verifier::read`], which looks into the body. Where a scheme signs no moment (GitHub, Shopify), a request that was
//! read on its way can be sent again, and there its id is not signed either: what repeats is then known by the id for as
//! long as ids are kept, and by the [`Fingerprint`] of its body.

mod claim;
mod encoding;
pub mod event;
mod github;
mod headers;
mod hmac;
mod keys;
mod moment;
pub mod refusal;
mod shared_secret;
mod shopify;
mod slack;
mod standard;
mod stripe;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_altered;
#[cfg(test)]
mod tests_headers;
#[cfg(test)]
mod tests_hostile;
#[cfg(test)]
mod tests_support;

use hyper::HeaderMap;

use crate::{
    clock::Timestamp,
    config::{
        Name,
        webhook::{Scheme, Webhook},
    },
    error::{Error, ErrorKind, Result},
    receive::signature::{
        claim::Claim,
        event::{Answer, Fingerprint, handshake, said},
        keys::{Key, matching, open},
        refusal::Refusal,
    },
};

/// What requests to one webhook are verified with: its settings and the secrets as they were when it was opened.
pub struct Verifier {
    webhook: Webhook,
    keys: Vec<Key>,
    unread: Vec<Error>,
}

/// A request whose signature holds. Only [`Verifier::verify`] makes one.
#[derive(Debug)]
#[must_use]
pub struct Proof {
    key: Option<Name>,
    /// The id that is signed with the body, if the scheme has one.
    id: Option<String>,
    moment: Option<Timestamp>,
    body: Fingerprint,
}

/// What a verified request says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The name of the secret it was signed with; none if every request is believed.
    pub key: Option<Name>,
    /// The id of its event. None where it says none, or one that is longer than [`event::TEXT_BYTES_MAX`].
    pub event_id: Option<String>,
    /// The type of its event, on the same terms.
    pub event_type: Option<String>,
    /// When it was signed; none if that is not signed.
    pub timestamp: Option<Timestamp>,
    /// Of its body as it came: tells a repeat of an id from another use of it.
    pub body: Fingerprint,
    /// What to answer instead of landing it, if its sender only asks whether anybody is there.
    pub handshake: Option<Answer>,
}

impl Verifier {
    /// Reads the secrets of `webhook`, which may take as long as the programs that some come from.
    ///
    /// Secrets that cannot be read are left out, so that a new one that is not there yet does not stop those in use.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if none can be read although the scheme needs one.
    pub fn open(webhook: &Webhook) -> Result<Self> {
        let (keys, mut unread) = open(webhook);
        if keys.is_empty() && webhook.scheme != Scheme::None {
            return Err(unread.pop().unwrap_or_else(|| {
                Error::new(ErrorKind::Config, "open webhook").with("problem", "it has no secret")
            }));
        }
        Ok(Self {
            webhook: webhook.clone(),
            keys,
            unread,
        })
    }

    /// What kept secrets from being read. Names them and never holds one.
    pub fn unread(&self) -> &[Error] {
        &self.unread
    }

    /// Whether a request with these headers and this body, as it came, is from whom it says.
    ///
    /// # Errors
    /// Why it is not. To the sender every reason is the same 401.
    pub fn verify(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<Proof, Refusal> {
        let claim = match &self.webhook.scheme {
            Scheme::StandardWebhooks => standard::claim(headers, body),
            Scheme::Github => github::claim(headers, body),
            Scheme::Stripe => stripe::claim(headers, body),
            Scheme::Shopify => shopify::claim(headers, body),
            Scheme::Slack => slack::claim(headers, body),
            Scheme::Hmac(settings) => hmac::claim(settings, headers, body),
            Scheme::SharedSecret { header, prefix } => shared_secret::claim(header, prefix, headers),
            Scheme::None => {
                return Ok(Proof {
                    key: None,
                    id: None,
                    moment: None,
                    body: Fingerprint::of(body),
                });
            }
        }?;
        self.prove(&claim, body, now)
    }

    fn prove(&self, claim: &Claim<'_>, body: &[u8], now: Timestamp) -> Result<Proof, Refusal> {
        // Cheap before dear: a stranger's old request costs no hash of its body.
        if let Some(moment) = claim.moment {
            moment::check(moment, now, self.webhook.tolerance)?;
        }
        let key = matching(&self.keys, claim, now)?;
        Ok(Proof {
            key: Some(key.secret.name.clone()),
            id: claim.id.map(str::to_owned),
            moment: claim.moment,
            body: Fingerprint::of(body),
        })
    }

    /// What a request with a valid signature says of itself. `body` is without its content encoding.
    ///
    /// A body that is no JSON says nothing, and that is no reason to refuse it.
    ///
    /// # Errors
    /// [`Refusal`] if a header that holds the id or the type is there twice or is no text.
    pub fn read(&self, proof: Proof, headers: &HeaderMap, body: &[u8]) -> Result<Verified, Refusal> {
        let signed_id = proof.id.as_deref();
        let event_id = said(self.webhook.event_id.as_ref(), signed_id, headers, body)?;
        let event_type = said(self.webhook.event_type.as_ref(), signed_id, headers, body)?;
        Ok(Verified {
            event_id,
            event_type,
            handshake: handshake(&self.webhook.scheme, headers, body)?,
            key: proof.key,
            timestamp: proof.moment,
            body: proof.body,
        })
    }
}
