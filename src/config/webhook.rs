//! Deliveries that an API sends by itself: the settings that say which of them are believed.

use std::time::Duration;

use crate::{
    clock::Timestamp,
    config::{Name, request::Place, route::Route, secret::Secret},
    json::JsonPath,
};

/// Which requests to the webhook of a stream are believed, and what they say of themselves.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// How a request proves who sent it.
    pub scheme: Scheme,
    /// What it is proved with, in the order of the file. Several are there while one takes the place of another; none only
    /// for [`Scheme::None`].
    pub secrets: Vec<WebhookSecret>,
    /// How far the moment of signing may be from now, before or after, where the scheme signs it. Default
    /// [`Webhook::TOLERANCE_DEFAULT`].
    pub tolerance: Duration,
    /// Where a request holds the id of its event, by which a repeat is known. A path leads to one member.
    pub event_id: Option<Place>,
    /// Where it holds the type of its event. A path leads to one member.
    pub event_type: Option<Place>,
    /// Where its events go by their type; those without a route stay in the stream of the webhook.
    pub routes: Vec<Route>,
}

/// One secret of a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookSecret {
    /// What logs and answers call it.
    pub name: Name,
    /// The secret, or the public key of the sender, as the sender gives it.
    pub value: Secret,
    /// From this moment on it is refused; without one it holds for ever.
    pub until: Option<Timestamp>,
}

/// How a request proves who sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Standard Webhooks 1.0: HMAC-SHA256 (`v1`) or Ed25519 (`v1a`) over id, timestamp and body.
    StandardWebhooks,
    /// GitHub: HMAC-SHA256 over the body.
    Github,
    /// Stripe: HMAC-SHA256 over timestamp and body.
    Stripe,
    /// Shopify: HMAC-SHA256 over the body.
    Shopify,
    /// Slack: HMAC-SHA256 over version, timestamp and body.
    Slack,
    /// Any other that signs with a shared secret.
    Hmac(Hmac),
    /// The secret itself, in a header. Whoever reads one request can send others.
    SharedSecret {
        /// The header, by lowercase name.
        header: String,
        /// What stands there before the secret.
        prefix: String,
    },
    /// Every request is believed.
    None,
}

/// A signature with a shared secret (RFC 2104) whose form is described.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hmac {
    /// The header with the signature, by lowercase name.
    pub header: String,
    /// The hash function.
    pub algorithm: HmacAlgorithm,
    /// How the signature is written.
    pub encoding: SignatureEncoding,
    /// What stands before it.
    pub prefix: String,
    /// The moment of signing, if a header says it.
    pub timestamp: Option<SignedMoment>,
    /// What is signed, in order: [`SignedPart::Body`] once, and [`SignedPart::Timestamp`] if and only if there is one.
    pub signed: Vec<SignedPart>,
}

/// The hash function of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HmacAlgorithm {
    /// SHA-1, for senders that have nothing better. As part of HMAC it is not broken.
    Sha1,
    /// SHA-256. The default.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// How the bytes of a signature are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureEncoding {
    /// Hexadecimal digits. The default.
    Hex,
    /// Base64 with padding (RFC 4648, section 4).
    Base64,
}

/// Where the moment of signing stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedMoment {
    /// The header, by lowercase name.
    pub header: String,
    /// How it is written.
    pub format: MomentFormat,
}

/// How a moment of signing is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MomentFormat {
    /// Seconds since 1970. The default.
    Seconds,
    /// Milliseconds since 1970.
    Milliseconds,
    /// A date and time (RFC 3339).
    Rfc3339,
}

/// A part of what is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignedPart {
    /// Text that is always the same.
    Text(String),
    /// The moment of signing, as its header has it.
    Timestamp,
    /// Another header, by lowercase name.
    Header(String),
    /// The body, byte by byte.
    Body,
}

impl Webhook {
    /// Default of [`Webhook::tolerance`]: what Standard Webhooks, Stripe and Slack name.
    pub const TOLERANCE_DEFAULT: Duration = Duration::from_secs(300);

    /// Most secrets of one stream: each is tried.
    pub const SECRETS_MAX: usize = 8;
}

impl WebhookSecret {
    /// Whether it is no longer believed at `now`.
    pub fn is_retired(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

impl Scheme {
    /// The word that stands for it in the file.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::StandardWebhooks => "standard_webhooks",
            Self::Github => "github",
            Self::Stripe => "stripe",
            Self::Shopify => "shopify",
            Self::Slack => "slack",
            Self::Hmac(_) => "hmac",
            Self::SharedSecret { .. } => "shared_secret",
            Self::None => "none",
        }
    }

    /// Whether the moment of signing is signed too, so that an old request is known as such.
    pub fn is_dated(&self) -> bool {
        match self {
            Self::StandardWebhooks | Self::Stripe | Self::Slack => true,
            Self::Hmac(hmac) => hmac.timestamp.is_some(),
            Self::Github | Self::Shopify | Self::SharedSecret { .. } | Self::None => false,
        }
    }

    /// The headers by which a request proves who sent it, the one with the proof first.
    pub fn headers(&self) -> Vec<&str> {
        match self {
            Self::StandardWebhooks => vec!["webhook-signature", "webhook-id", "webhook-timestamp"],
            Self::Github => vec!["x-hub-signature-256"],
            Self::Stripe => vec!["stripe-signature"],
            Self::Shopify => vec!["x-shopify-hmac-sha256"],
            Self::Slack => vec!["x-slack-signature", "x-slack-request-timestamp"],
            Self::Hmac(hmac) => {
                let moment = hmac.timestamp.iter().map(|moment| moment.header.as_str());
                let signed = hmac.signed.iter().filter_map(|part| match part {
                    SignedPart::Header(name) => Some(name.as_str()),
                    SignedPart::Text(_) | SignedPart::Timestamp | SignedPart::Body => None,
                });
                [hmac.header.as_str()]
                    .into_iter()
                    .chain(moment)
                    .chain(signed)
                    .collect()
            }
            Self::SharedSecret { header, .. } => vec![header],
            Self::None => Vec::new(),
        }
    }

    /// Where its senders put the id of an event.
    pub fn event_id(&self) -> Option<Place> {
        match self {
            Self::StandardWebhooks => header("webhook-id"),
            Self::Github => header("x-github-delivery"),
            Self::Stripe => member("$.id"),
            Self::Shopify => header("x-shopify-webhook-id"),
            Self::Slack => member("$.event_id"),
            Self::Hmac(_) | Self::SharedSecret { .. } | Self::None => None,
        }
    }

    /// Where its senders put the type of an event.
    pub fn event_type(&self) -> Option<Place> {
        match self {
            Self::StandardWebhooks | Self::Stripe => member("$.type"),
            Self::Github => header("x-github-event"),
            Self::Shopify => header("x-shopify-topic"),
            Self::Slack => member("$.event.type"),
            Self::Hmac(_) | Self::SharedSecret { .. } | Self::None => None,
        }
    }
}

impl HmacAlgorithm {
    /// The word that stands for it in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

impl SignatureEncoding {
    /// The word that stands for it in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hex => "hex",
            Self::Base64 => "base64",
        }
    }
}

impl MomentFormat {
    /// The word that stands for it in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
            Self::Rfc3339 => "rfc3339",
        }
    }
}

fn header(name: &str) -> Option<Place> {
    Some(Place::Header(name.to_owned()))
}

fn member(path: &'static str) -> Option<Place> {
    JsonPath::parse(path).ok().map(Place::Body)
}
