//! What a verified request says of its event.

use std::fmt;

use hyper::HeaderMap;

use crate::{
    config::{request::Place, webhook::Scheme},
    json::{JsonPath, member::Said},
    receive::signature::{encoding::sha256, headers::optional, refusal::Refusal},
};

/// Longest id and longest type of an event, in bytes: a longer one is taken for none.
pub const TEXT_BYTES_MAX: usize = 1024;

/// Longest challenge that is answered, in bytes.
const CHALLENGE_BYTES_MAX: usize = 1024;

/// The header of Standard Webhooks whose value is signed, under whichever name it came.
const SIGNED_ID: &str = "webhook-id";

/// The SHA-256 of a body as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

/// What to answer to a sender that asks whether anybody is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The media type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl Fingerprint {
    /// That of `body`.
    pub fn of(body: &[u8]) -> Self {
        Self(sha256(body))
    }

    /// Its bytes.
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What the request says at `place`, if that is text or a number.
pub(super) fn said(
    place: Option<&Place>,
    signed_id: Option<&str>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Option<String>, Refusal> {
    let found = match (place, signed_id) {
        (None, _) => None,
        (Some(Place::Header(name)), Some(id)) if name == SIGNED_ID => Some(id.to_owned()),
        (Some(Place::Header(name)), _) => optional(headers, name)?.map(str::to_owned),
        (Some(Place::Body(path)), _) => value(path, body),
    };
    Ok(found.filter(|text| (1..=TEXT_BYTES_MAX).contains(&text.len())))
}

/// What to answer instead of landing the request.
pub(super) fn handshake(
    scheme: &Scheme,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Option<Answer>, Refusal> {
    match scheme {
        // The header is not signed: alone it must not keep a record from being landed.
        Scheme::Github if optional(headers, "x-github-event")? == Some("ping") => {
            Ok(member("$.zen", body).map(|_| text_answer("pong".to_owned())))
        }
        Scheme::Slack if member("$.type", body).as_deref() == Some("url_verification") => {
            let challenge = member("$.challenge", body);
            Ok(challenge
                .filter(|text| text.len() <= CHALLENGE_BYTES_MAX)
                .map(text_answer))
        }
        _ => Ok(None),
    }
}

fn text_answer(body: String) -> Answer {
    Answer {
        status: 200,
        content_type: "text/plain; charset=utf-8",
        body,
    }
}

fn member(path: &str, body: &[u8]) -> Option<String> {
    value(&JsonPath::parse(path).ok()?, body)
}

fn value(path: &JsonPath, body: &[u8]) -> Option<String> {
    match path.said(body) {
        Said::Value(text) => Some(text.into_owned()),
        Said::Nothing | Said::Other => None,
    }
}
