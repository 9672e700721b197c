//! After a crash: what the spool still holds is put back into the ledger.

use crate::{
    clock::Timestamp,
    error::Result,
    receive::{
        Delivery,
        idempotency::Key,
        ledger::{
            Kept,
            answer::{Answer, Fingerprint, Scope, channel_name, event_name},
            channel::{Channel, ChannelName},
            event::EventRecord,
            receipt::{Receipt, Stage},
            tables::{AnswerRecord, Ends, Tables},
        },
    },
};

/// What a delivery in the spool says about the ledger.
#[derive(Clone, Debug)]
pub struct Remembered {
    receipt: Receipt,
    answer: Option<(Scope, AnswerRecord)>,
    event: Option<([u8; 32], Fingerprint, Timestamp)>,
    channel: Option<([u8; 32], Channel)>,
}

/// What was missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Answers to requests with an idempotency key.
    pub answers: u64,
    /// Event ids, or further bodies of one.
    pub events: u64,
    /// Receipts.
    pub receipts: u64,
    /// Bodies by which a channel has come further.
    pub channels: u64,
}

impl Remembered {
    /// Reads a stored delivery. `answer` says what its sender was answered; it is asked only if there was a key.
    ///
    /// The scope is made of the delivery's producer, method and the path of its URL, so the path given to [`Scope::new`] when
    /// it was received must be the one in `facts.url`; the fingerprint of its `content-type` header and its body.
    ///
    /// # Errors
    /// Those of `answer`.
    pub fn of(delivery: &Delivery, answer: impl FnOnce(&Delivery) -> Result<Answer>) -> Result<Self> {
        let facts = &delivery.page.facts;
        let fingerprint = fingerprint(delivery);
        // A key that the ledger would not have taken was not in it.
        let key = facts
            .idempotency_key
            .as_deref()
            .and_then(|key| Key::new(key).ok());
        let answer = match key {
            None => None,
            Some(key) => {
                let scope = Scope::new(delivery.producer.as_ref(), &facts.method, path(&facts.url), &key);
                let answer = answer(delivery)?;
                let at = facts.fetched_at;
                Some((
                    scope,
                    AnswerRecord {
                        at,
                        fingerprint,
                        answer,
                    },
                ))
            }
        };
        let event = facts.event_id.as_deref().map(|id| {
            let first_seen_at = facts.first_seen_at.unwrap_or(facts.fetched_at);
            (event_name(&delivery.stream, id), fingerprint, first_seen_at)
        });
        // As with keys: one that the ledger would not have taken was not in it.
        let channel = facts.channel.as_ref().and_then(|fact| {
            let name = ChannelName::kept(&fact.name)?;
            let offset = Key::new(&fact.offset).ok()?;
            let channel = Channel {
                epoch: fact.epoch,
                number: fact.number,
                offset: Some(offset),
                receipt: Some(delivery.receipt),
                at: facts.fetched_at,
            };
            let name = channel_name(&delivery.stream, delivery.producer.as_ref(), &name);
            Some((name, channel))
        });
        Ok(Self {
            receipt: Receipt::of(delivery, Stage::Spooled),
            answer,
            event,
            channel,
        })
    }

    /// Writes what is missing. What is there stays: it may know more.
    pub(super) fn put_back(
        &self,
        tables: &mut Tables<'_>,
        now: Timestamp,
        kept: &Kept,
        repaired: &mut Repaired,
    ) -> Result<()> {
        // As of its own time: what had ended when it was received did not stand in its way.
        let ends = Ends::at(self.receipt.received_at, kept);
        let over = Ends::at(now, kept);
        let received_at = self.receipt.received_at.timestamp_micros();
        if let Some((scope, record)) = self.answer.as_ref().filter(|_| received_at > over.answers) {
            let there = tables.answer(&scope.0)?;
            if there.is_none_or(|there| there.at.timestamp_micros() <= ends.answers) {
                tables.put_answer(&scope.0, record)?;
                repaired.answers += 1;
            }
        }
        let event = self.event.as_ref().filter(|_| received_at > over.events);
        if let Some((name, fingerprint, first_seen_at)) = event {
            let there = tables.event(name)?;
            let there = there.filter(|there| there.last_seen_at.timestamp_micros() > ends.events);
            let (id, at) = (self.receipt.id, self.receipt.received_at);
            let record = match there {
                None => Some(EventRecord {
                    first_seen_at: *first_seen_at,
                    last_seen_at: at,
                    count: 1,
                    bodies: vec![(*fingerprint, id)],
                }),
                Some(there) if there.knows(*fingerprint) => None,
                Some(there) => Some(there.with_body(*fingerprint, id, at)),
            };
            if let Some(record) = record {
                tables.put_event(name, &record)?;
                repaired.events += 1;
            }
        }
        if let Some((name, channel)) = self.channel.as_ref().filter(|_| received_at > over.channels) {
            let there = tables.channel(name)?;
            let there = there.filter(|there| there.at.timestamp_micros() > ends.channels);
            if there.as_ref().is_none_or(|there| there.number < channel.number) {
                let epoch = there.map_or(channel.epoch, |there| there.epoch.max(channel.epoch));
                tables.put_channel(
                    name,
                    &Channel {
                        epoch,
                        ..channel.clone()
                    },
                )?;
                repaired.channels += 1;
            }
        }
        // However old: while it is in the spool, where it is can be asked.
        repaired.receipts += u64::from(tables.put_receipt(&self.receipt, now)?);
        Ok(())
    }
}

/// The fingerprint of the request that `delivery` came with, also if some of its records were left out.
pub fn fingerprint(delivery: &Delivery) -> Fingerprint {
    let judged = delivery.page.facts.judged.as_ref();
    let sent = judged.and_then(|judged| Fingerprint::from_hex(judged.sent.as_deref()?));
    if let Some(sent) = sent {
        return sent;
    }
    let headers = &delivery.page.facts.headers;
    let content_type = headers.iter().find(|(name, _)| name == "content-type");
    Fingerprint::of(content_type.map(|(_, value)| value.as_str()), &delivery.page.body)
}

/// The path of a URL, with or without scheme and host.
pub fn path(url: &str) -> &str {
    let after_host = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |start| &rest[start..]),
        None => url,
    };
    after_host.split(['?', '#']).next().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_url_stands_between_host_and_query() {
        for (url, expected) in [
            ("/v1/streams/a/b/records?mode=****", "/v1/streams/a/b/records"),
            ("http://host:8080/v1/x#y", "/v1/x"),
            ("/v1/x", "/v1/x"),
            ("https://host", ""),
        ] {
            assert_eq!(path(url), expected);
        }
    }
}
