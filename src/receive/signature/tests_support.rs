//! Requests that are signed as their senders sign them.

use aws_lc_rs::signature::KeyPair as _;
use aws_lc_rs::{hmac, signature::Ed25519KeyPair};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};

use crate::{
    clock::Timestamp,
    config::{
        Name,
        secret::Secret,
        webhook::{
            Hmac, HmacAlgorithm, MomentFormat, Scheme, SignatureEncoding, SignedMoment, SignedPart, Webhook,
            WebhookSecret,
        },
    },
    receive::signature::{Verified, Verifier, refusal::Refusal},
};

/// The moment of every test: 23 November 2026.
pub(super) const NOW: i64 = 1_795_392_000;

/// The secret of the libraries of Standard Webhooks, which they test themselves with.
pub(super) const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The seed of the private key that their Go library is tested with.
pub(super) const SEED: &str = "VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk=";

/// What a sender sends.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
}

impl Sent {
    pub(super) fn new(headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Self {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
        Self {
            headers: headers.iter().map(own).collect(),
            body: body.into(),
        }
    }

    /// The same with `value` in place of what `name` holds, or beside the others.
    pub(super) fn with(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The headers as HTTP brings them; none if they could not be sent.
    pub(super) fn map(&self) -> Option<HeaderMap> {
        let mut map = HeaderMap::new();
        for (name, value) in &self.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            map.append(name, HeaderValue::from_bytes(value).ok()?);
        }
        Some(map)
    }
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(seconds, 0).unwrap()
}

/// The settings of `scheme` with one secret called `main`.
pub(super) fn webhook(scheme: Scheme, secret: &str) -> Webhook {
    Webhook {
        secrets: vec![named("main", secret, None)],
        tolerance: Webhook::TOLERANCE_DEFAULT,
        event_id: scheme.event_id(),
        event_type: scheme.event_type(),
        routes: Vec::new(),
        scheme,
    }
}

pub(super) fn named(name: &str, secret: &str, until: Option<i64>) -> WebhookSecret {
    WebhookSecret {
        name: Name::new(name).unwrap(),
        value: Secret::literal(secret),
        until: until.map(at),
    }
}

/// What becomes of `sent` at `now`.
pub(super) fn received(webhook: &Webhook, sent: &Sent, now: i64) -> Result<Verified, Refusal> {
    let verifier = Verifier::open(webhook).unwrap();
    let headers = sent.map().unwrap();
    let proof = verifier.verify(&headers, &sent.body, at(now))?;
    verifier.read(proof, &headers, &sent.body)
}

/// The class of what is refused, or the name of the secret.
pub(super) fn outcome(webhook: &Webhook, sent: &Sent, now: i64) -> String {
    match received(webhook, sent, now) {
        Ok(verified) => format!("signed with {}", verified.key.unwrap()),
        Err(refusal) => refusal.class().to_owned(),
    }
}

pub(super) fn mac(secret: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::sign(&key, &parts.concat()).as_ref().to_vec()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&STANDARD.decode(SEED).unwrap()).unwrap()
}

/// The public key of [`SEED`] as a sender shows it.
pub(super) fn whpk() -> String {
    format!("whpk_{}", STANDARD.encode(pair().public_key().as_ref()))
}

/// One signature `v1` of Standard Webhooks.
pub(super) fn v1(secret: &str, id: &str, timestamp: &str, body: &[u8]) -> String {
    let key = STANDARD.decode(secret.trim_start_matches("whsec_")).unwrap();
    let tag = mac(&key, &[id.as_bytes(), b".", timestamp.as_bytes(), b".", body]);
    format!("v1,{}", STANDARD.encode(tag))
}

fn v1a(id: &str, timestamp: &str, body: &[u8]) -> String {
    let message = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
    format!("v1a,{}", STANDARD.encode(pair().sign(&message).as_ref()))
}

pub(super) fn standard(names: [&str; 3], signature: &str, body: &[u8]) -> Sent {
    let values = ["msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", "1795392000", signature];
    let headers: Vec<(&str, &str)> = names.into_iter().zip(values).collect();
    Sent::new(&headers, body)
}

pub(super) fn github(secret: &str, event: &str, body: &[u8]) -> Sent {
    let signature = format!("sha256={}", hex(&mac(secret.as_bytes(), &[body])));
    let headers = [
        ("x-hub-signature-256", signature.as_str()),
        ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        ("x-github-event", event),
    ];
    Sent::new(&headers, body)
}

pub(super) fn stripe(secret: &str, timestamp: &str, body: &[u8]) -> Sent {
    let tag = hex(&mac(secret.as_bytes(), &[timestamp.as_bytes(), b".", body]));
    Sent::new(&[("stripe-signature", &format!("t={timestamp},v1={tag}"))], body)
}

pub(super) fn slack(secret: &str, timestamp: &str, body: &[u8]) -> Sent {
    let tag = mac(secret.as_bytes(), &[b"v0:", timestamp.as_bytes(), b":", body]);
    let headers = [
        ("x-slack-signature", format!("v0={}", hex(&tag))),
        ("x-slack-request-timestamp", timestamp.to_owned()),
    ];
    Sent::new(
        &headers.each_ref().map(|(name, value)| (*name, value.as_str())),
        body,
    )
}

/// A description with a dated signature in Base64 over a header, the moment and the body.
pub(super) fn described() -> Scheme {
    Scheme::Hmac(Hmac {
        header: "x-signature".to_owned(),
        algorithm: HmacAlgorithm::Sha256,
        encoding: SignatureEncoding::Hex,
        prefix: "sig ".to_owned(),
        timestamp: Some(SignedMoment {
            header: "x-timestamp".to_owned(),
            format: MomentFormat::Milliseconds,
        }),
        signed: vec![
            SignedPart::Header("x-request-id".to_owned()),
            SignedPart::Text("|".to_owned()),
            SignedPart::Timestamp,
            SignedPart::Text("|".to_owned()),
            SignedPart::Body,
        ],
    })
}

/// For every scheme its settings, a request that is good at [`NOW`], and the headers of it that cannot be altered.
pub(super) fn samples(body: &[u8]) -> Vec<(Webhook, Sent, Vec<&'static str>)> {
    const STANDARD_NAMES: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    const SVIX_NAMES: [&str; 3] = ["svix-id", "svix-timestamp", "svix-signature"];
    let (id, timestamp) = ("msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", "1795392000");
    let shared = v1(WHSEC, id, timestamp, body);
    let tag = STANDARD.encode(mac(b"shpss_4f2e", &[body]));
    let millis = "1795392000123";
    let described_tag = hex(&mac(b"secret", &[b"r-17|", millis.as_bytes(), b"|", body]));
    let of_hmac = [
        ("x-signature", format!("sig {described_tag}")),
        ("x-timestamp", millis.to_owned()),
        ("x-request-id", "r-17".to_owned()),
    ];
    let of_hmac = of_hmac.each_ref().map(|(name, value)| (*name, value.as_str()));
    vec![
        (
            webhook(Scheme::StandardWebhooks, WHSEC),
            standard(STANDARD_NAMES, &shared, body),
            STANDARD_NAMES.to_vec(),
        ),
        (
            webhook(Scheme::StandardWebhooks, &whpk()),
            standard(STANDARD_NAMES, &v1a(id, timestamp, body), body),
            STANDARD_NAMES.to_vec(),
        ),
        (
            webhook(Scheme::StandardWebhooks, WHSEC),
            standard(SVIX_NAMES, &shared, body),
            SVIX_NAMES.to_vec(),
        ),
        (
            webhook(Scheme::Github, "hook"),
            github("hook", "push", body),
            vec!["x-hub-signature-256"],
        ),
        (
            webhook(Scheme::Stripe, "whsec_stripe"),
            stripe("whsec_stripe", timestamp, body),
            vec!["stripe-signature"],
        ),
        (
            webhook(Scheme::Shopify, "shpss_4f2e"),
            Sent::new(&[("x-shopify-hmac-sha256", &tag)], body),
            vec!["x-shopify-hmac-sha256"],
        ),
        (
            webhook(Scheme::Slack, "slack"),
            slack("slack", timestamp, body),
            vec!["x-slack-signature", "x-slack-request-timestamp"],
        ),
        (
            webhook(described(), "secret"),
            Sent::new(&of_hmac, body),
            vec!["x-signature", "x-timestamp", "x-request-id"],
        ),
    ]
}
