//! Events of webhooks: the same id comes again and again, because senders promise "at least once".

use crate::{
    clock::Timestamp,
    error::Result,
    receive::{
        ReceiptId,
        ledger::{Ledger, answer::Fingerprint, claims::Claim, writer::Change},
    },
};

/// Different bodies kept for one id. A sender that reuses an id more often has each further body landed again each time.
pub(super) const BODIES_MAX: usize = 8;

/// How an event was met.
#[derive(Debug)]
pub enum Seen {
    /// It is new: land it, then [`EventClaim::complete`].
    New(EventClaim),
    /// Another delivery of it is being received and did not end in time: 409, it may be sent again.
    InFlight,
    /// It was received before, byte for byte: 200, nothing is landed.
    Duplicate(Duplicate),
    /// The id was received before with another body. Land it as new and flag it (`id_reuse`): dropping it would lose data.
    IdReuse(EventClaim),
}

/// A delivery that brought nothing new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// The receipt of the delivery that was landed.
    pub receipt: ReceiptId,
    /// Deliveries of this id so far, with this one.
    pub count: u64,
    /// When the first was received.
    pub first_seen_at: Timestamp,
}

/// What is kept of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EventRecord {
    pub(super) first_seen_at: Timestamp,
    pub(super) last_seen_at: Timestamp,
    /// Deliveries, landed or not.
    pub(super) count: u64,
    /// The bodies landed, in order.
    pub(super) bodies: Vec<(Fingerprint, ReceiptId)>,
}

impl EventRecord {
    /// Whether a delivery with this body was landed, as far as [`BODIES_MAX`] reaches.
    pub(super) fn knows(&self, fingerprint: Fingerprint) -> bool {
        self.receipt(fingerprint).is_some()
    }

    pub(super) fn receipt(&self, fingerprint: Fingerprint) -> Option<ReceiptId> {
        let mut bodies = self.bodies.iter();
        bodies
            .find(|(body, _)| *body == fingerprint)
            .map(|(_, receipt)| *receipt)
    }

    /// The record after one more body was landed.
    pub(super) fn with_body(mut self, fingerprint: Fingerprint, receipt: ReceiptId, at: Timestamp) -> Self {
        self.count += 1;
        self.last_seen_at = self.last_seen_at.max(at);
        if self.bodies.len() < BODIES_MAX {
            self.bodies.push((fingerprint, receipt));
        }
        self
    }
}

/// The right to land one event. Dropped without [`EventClaim::complete`] the event counts as never seen.
#[must_use = "dropped, the event is given free again"]
pub struct EventClaim {
    pub(super) claim: Claim<EventRecord>,
    pub(super) ledger: Ledger,
    pub(super) fingerprint: Fingerprint,
    pub(super) before: Option<EventRecord>,
    pub(super) now: Timestamp,
}

impl std::fmt::Debug for EventClaim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EventClaim(attempt {})", self.attempt())
    }
}

impl EventClaim {
    /// Which delivery of this id it is, as far as is known here, from 1. A sender that counts itself knows better.
    pub fn attempt(&self) -> u64 {
        self.before.as_ref().map_or(1, |record| record.count + 1)
    }

    /// When this id was first received here; stored with the payload.
    pub fn first_seen_at(&self) -> Timestamp {
        self.before
            .as_ref()
            .map_or(self.now, |record| record.first_seen_at)
    }

    /// Says that the delivery with `receipt` is durable. From here on its repeats are duplicates.
    ///
    /// Returns when it is known to this process; the disk follows with the next group. Called from a task that does not end
    /// with the sender's connection: between the durable delivery and this call a dropped claim would let a repeat in.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::error::ErrorKind::Unavailable) if the ledger does not write. The event is known
    /// until this process ends and the delivery is in the spool, from which it is repaired: it is acknowledged all the same.
    pub async fn complete(self, receipt: ReceiptId) -> Result<()> {
        let record = match self.before {
            Some(before) => before.with_body(self.fingerprint, receipt, self.now),
            None => EventRecord {
                first_seen_at: self.now,
                last_seen_at: self.now,
                count: 1,
                bodies: vec![(self.fingerprint, receipt)],
            },
        };
        let name = self.claim.name();
        let ticket = self.claim.keep(record.clone());
        let change = Change::Event { name, record, ticket };
        self.ledger.send(change).await
    }
}
