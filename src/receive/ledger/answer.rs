//! What was answered to a request with an idempotency key, and how the same request is known again.

use std::fmt;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::{
    config::{Name, StreamName},
    error::{Error, ErrorKind, Result},
    receive::{
        idempotency::Key,
        ledger::{Ledger, channel::ChannelName, claims::Claim, tables::AnswerRecord, writer::Change},
    },
};

/// Whose effect a key names: a key of one producer, method and path is independent of every other's.
///
/// Only a SHA-256 of the parts is kept, so no text of a sender is ever a name in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scope(pub(super) [u8; 32]);

impl Scope {
    /// The scope of `key` sent by `producer` to `path` with `method`; the path has no query.
    pub fn new(producer: Option<&Name>, method: &str, path: &str, key: &Key) -> Self {
        let producer = producer.map_or("", Name::as_str);
        Self(hash(
            "key",
            &[producer, method, path, key.as_str()].map(str::as_bytes),
        ))
    }
}

/// The name of one event in the ledger: its stream and its sender's id.
pub(super) fn event_name(stream: &StreamName, event_id: &str) -> [u8; 32] {
    let parts = [stream.source.as_str(), stream.stream.as_str(), event_id];
    hash("event", &parts.map(str::as_bytes))
}

/// The name of a channel in the ledger: that of one producer to one stream.
pub(super) fn channel_name(stream: &StreamName, producer: Option<&Name>, channel: &ChannelName) -> [u8; 32] {
    let producer = producer.map_or("", Name::as_str);
    let parts = [
        stream.source.as_str(),
        stream.stream.as_str(),
        producer,
        channel.as_str(),
    ];
    hash("channel", &parts.map(str::as_bytes))
}

/// What tells one request from another with the same key or event id.
///
/// SHA-256 over the content type (without regard to case and outer spaces) and the body after content decoding: the same
/// records compressed another way are the same request. It can be taken again from a stored
/// [`Delivery`](crate::receive::Delivery), which is how the ledger is repaired; the query is not part of it, because its
/// values are not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub(super) [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a request with this `Content-Type` and this body after content decoding.
    ///
    /// ```
    /// use landfall::receive::ledger::answer::Fingerprint;
    /// let sent = Fingerprint::of(Some("application/json"), b"{}");
    /// assert_eq!(sent, Fingerprint::of(Some("Application/JSON "), b"{}"));
    /// assert_ne!(sent, Fingerprint::of(Some("application/x-ndjson"), b"{}"));
    /// ```
    pub fn of(content_type: Option<&str>, body: &[u8]) -> Self {
        let content_type = content_type.unwrap_or("").trim().to_ascii_lowercase();
        Self(hash("request", &[content_type.as_bytes(), body]))
    }
}

impl Fingerprint {
    /// The lowercase hex of it.
    pub fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What [`Fingerprint::to_hex`] gave; `None` for anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
        let digits = digits.filter(|digits| digits.len() == 64)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::try_from(pair[0] << 4 | pair[1]).ok()?;
        }
        Some(Self(bytes))
    }
}

/// SHA-256 over `parts`, each with its length before it, so that no two lists of parts run together to the same bytes.
fn hash(domain: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(domain);
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// An answer kept to be given again: the status, the headers that matter and the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
}

impl Answer {
    /// Largest answer kept, headers and body together, in bytes: the results of some 500 records one by one.
    pub const BYTES_MAX: usize = 64 * 1024;

    /// An answer that can be kept.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] beyond [`Answer::BYTES_MAX`]. It is found out before anything is accepted: the answer is made
    /// first, and a shorter one if this one is too large.
    pub fn new(status: u16, headers: Vec<(String, String)>, body: Bytes) -> Result<Self> {
        let answer = Self {
            status,
            headers,
            body,
        };
        if answer.bytes() > Self::BYTES_MAX {
            return Err(Error::new(ErrorKind::Limit, "keep answer")
                .with("bytes", answer.bytes())
                .with("bytes_max", Self::BYTES_MAX));
        }
        Ok(answer)
    }

    /// HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The headers that are given again, in order.
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// What counts against [`Answer::BYTES_MAX`].
    pub(super) fn bytes(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        headers + self.body.len()
    }
}

/// How a request with an idempotency key begins (section 2.6 of the draft).
#[derive(Debug)]
pub enum Begun {
    /// It is the first: do it, then [`KeyClaim::complete`].
    New(KeyClaim),
    /// The same request is being done and did not end in time: 409.
    InFlight,
    /// It was done: the same answer again.
    Replay(Answer),
    /// The key was used for another request: 422. The first one's answer stays.
    Mismatch,
}

/// The right to do the request of one key. Dropped without [`KeyClaim::complete`] the key is free again: an attempt that
/// failed is not remembered.
#[must_use = "dropped, the key is given free again"]
pub struct KeyClaim {
    pub(super) claim: Claim<AnswerRecord>,
    pub(super) ledger: Ledger,
    pub(super) fingerprint: Fingerprint,
}

impl fmt::Debug for KeyClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyClaim")
    }
}

impl KeyClaim {
    /// Says that the delivery is durable and what its sender is answered. From here on repeats are given the same.
    ///
    /// Returns when it is known to this process; the disk follows with the next group. Called from a task that does not end
    /// with the sender's connection.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the ledger does not write. The answer is known until this process ends and the delivery is
    /// in the spool, from which it is repaired: the request is acknowledged all the same.
    pub async fn complete(self, answer: Answer) -> Result<()> {
        let record = AnswerRecord {
            at: self.ledger.inner.clock.now(),
            fingerprint: self.fingerprint,
            answer,
        };
        let name = self.claim.name();
        let ticket = self.claim.keep(record.clone());
        let change = Change::Answer { name, record, ticket };
        self.ledger.send(change).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f095_a_key_of_another_producer_method_or_path_is_independent() {
        let key = Key::new("order-17").unwrap();
        let shop = Name::new("shop").unwrap();
        let base = Scope::new(Some(&shop), "POST", "/v1/streams/a/b/records", &key);
        assert_eq!(
            base,
            Scope::new(Some(&shop), "POST", "/v1/streams/a/b/records", &key)
        );
        for other in [
            Scope::new(None, "POST", "/v1/streams/a/b/records", &key),
            Scope::new(
                Some(&Name::new("shop2").unwrap()),
                "POST",
                "/v1/streams/a/b/records",
                &key,
            ),
            Scope::new(Some(&shop), "PATCH", "/v1/streams/a/b/records", &key),
            Scope::new(Some(&shop), "POST", "/v1/streams/a/c/records", &key),
            Scope::new(
                Some(&shop),
                "POST",
                "/v1/streams/a/b/recordsorder",
                &Key::new("-17").unwrap(),
            ),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_fingerprint_reads_back() {
        let fingerprint = Fingerprint::of(None, b"{}");
        let text = fingerprint.to_hex();
        assert_eq!(Fingerprint::from_hex(&text), Some(fingerprint));
        for other in [&text[1..], "", &text.replace(&text[..1], "x")] {
            assert_eq!(Fingerprint::from_hex(other), None);
        }
    }

    #[test]
    fn an_answer_beyond_its_limit_is_refused_when_it_is_made() {
        let body = Bytes::from(vec![b' '; Answer::BYTES_MAX]);
        assert!(Answer::new(200, Vec::new(), body.clone()).is_ok());
        let header = vec![("a".to_owned(), String::new())];
        assert_eq!(
            Answer::new(200, header, body).unwrap_err().kind(),
            ErrorKind::Limit
        );
    }
}
