//! From a body to a receipt: ledger, spool, ledger, in that order, and not given up in between.

use std::{sync::Arc, time::Duration};

use crate::{
    clock::Timestamp,
    config::{Name, StreamName, parse_timestamp},
    error::{Error, ErrorKind},
    failpoint,
    fields::whole,
    raw::{Page, PageFacts},
    receive::{
        Delivery, ReceiptId,
        idempotency::Key,
        ledger::{
            answer::{Answer, Begun, Fingerprint, KeyClaim, Scope},
            event::{Duplicate, EventClaim, Seen},
            receipt::{Receipt, Stage},
            repair::{fingerprint, path},
        },
        spool::{acknowledger::Acknowledger, kept::Kept},
    },
    serve::{
        app::App,
        aside::aside,
        body::Content,
        call::{Call, Received},
        problem::{Problem, code::Code},
    },
};

/// How long a repeat waits for the first request with its key or event id.
pub(crate) const REPEAT_PATIENCE: Duration = Duration::from_secs(2);

/// When a repeat that did not wait long enough may come again.
pub(crate) const REPEAT_AFTER: Duration = Duration::from_secs(1);

/// Largest number of attempts that is believed.
const ATTEMPTS_MAX: u32 = 1_000_000;

/// How a request with an idempotency key, or without, is met.
pub(crate) enum Claimed {
    /// As a new one. Dropped, the claim on its key is given free.
    New(Option<KeyClaim>),
    /// It was answered before, with this.
    Before(Answer),
}

/// How a webhook is met.
pub(crate) enum ClaimedEvent {
    /// As a new one.
    New {
        /// Dropped, its id is given free.
        claim: Option<EventClaim>,
        /// Whether its id was known with another body.
        is_reuse: bool,
    },
    /// It was received before, byte for byte.
    Duplicate(Duplicate),
}

impl App {
    /// `received` as a delivery to `stream`, which will be answered with `status`.
    pub(crate) fn delivery(
        &self,
        call: &Call,
        stream: &StreamName,
        producer: Option<Name>,
        received: &Received,
        status: u16,
    ) -> Delivery {
        if let Some(kind) = self.unusual.kind(stream, call.header("content-type")) {
            let detail = format!("the first body of the kind {kind:?} since the start");
            self.notice(call, Some(stream), producer.as_ref(), "content_type", detail);
        }
        Delivery {
            receipt: ReceiptId::new(received.at),
            stream: stream.clone(),
            producer,
            page: Page {
                body: received.bytes.clone(),
                facts: PageFacts {
                    headers: call.headers_kept(),
                    attempts: attempts(|name| call.header(name)),
                    trace_id: Some(call.trace.id()),
                    first_seen_at: Some(first_seen_at(
                        call.header("landfall-first-attempt-at"),
                        received.at,
                    )),
                    ..PageFacts::new(received.at, call.method.to_string(), call.url(), status)
                },
            },
        }
    }

    /// Asks whether the request of `delivery` was met before, if it has a `key`: its body is the one that was sent.
    ///
    /// # Errors
    /// 409 and 422 for the key.
    pub(crate) async fn claim(&self, delivery: &Delivery, key: Option<&Key>) -> Result<Claimed, Problem> {
        let Some(key) = key else {
            return Ok(Claimed::New(None));
        };
        let facts = &delivery.page.facts;
        let scope = Scope::new(delivery.producer.as_ref(), &facts.method, path(&facts.url), key);
        let begun = self
            .ledger
            .begin(scope, fingerprint_aside(delivery).await?, REPEAT_PATIENCE)
            .await;
        match begun.map_err(unknown)? {
            Begun::New(claim) => Ok(Claimed::New(Some(claim))),
            Begun::Replay(answer) => Ok(Claimed::Before(answer)),
            Begun::InFlight => {
                let detail = "a request with this key is being received";
                Err(Problem::new(Code::IdempotencyKeyInUse, detail).retry_after(REPEAT_AFTER))
            }
            Begun::Mismatch => {
                let detail = "the key stands for a request with another body";
                Err(Problem::new(Code::IdempotencyKeyReused, detail))
            }
        }
    }

    /// Keeps `delivery`, and has repeats of its `claim` answered with `answer`.
    ///
    /// # Errors
    /// 503 and 507 if it is not kept.
    pub(crate) async fn keep(
        self: Arc<Self>,
        delivery: Delivery,
        claim: Option<KeyClaim>,
        answer: Answer,
    ) -> Result<Answer, Problem> {
        let (receipt, kept) = self.append(delivery).await?;
        self.answered(claim, &answer).await;
        self.remember().await;
        self.note(receipt).await;
        drop(kept);
        Ok(answer)
    }

    /// Has repeats of a request that is kept be given the same answer, if it is claimed.
    pub(crate) async fn answered(&self, claim: Option<KeyClaim>, answer: &Answer) {
        if let Some(claim) = claim
            && let Err(error) = claim.complete(answer.clone()).await
        {
            // The spool has the key: it is put back at the next start.
            tracing::warn!(error = error.chain(), "answer not in the ledger yet");
        }
    }

    /// Asks whether the event of `delivery` was met before, if it has an id, and notes in it what is known of that.
    ///
    /// # Errors
    /// 409 while another delivery of it is being received.
    pub(crate) async fn claim_event(&self, delivery: &mut Delivery) -> Result<ClaimedEvent, Problem> {
        let Some(id) = delivery.page.facts.event_id.clone() else {
            return Ok(ClaimedEvent::New {
                claim: None,
                is_reuse: false,
            });
        };
        let seen = self
            .ledger
            .see(
                &delivery.stream,
                &id,
                fingerprint_aside(delivery).await?,
                REPEAT_PATIENCE,
            )
            .await;
        let (claim, is_reuse) = match seen.map_err(unknown)? {
            Seen::New(claim) => (claim, false),
            Seen::IdReuse(claim) => (claim, true),
            Seen::Duplicate(duplicate) => return Ok(ClaimedEvent::Duplicate(duplicate)),
            Seen::InFlight => {
                let detail = "another delivery of this event is being received";
                return Err(Problem::new(Code::Conflict, detail).retry_after(REPEAT_AFTER));
            }
        };
        let facts = &mut delivery.page.facts;
        facts.attempts = facts
            .attempts
            .max(u32::try_from(claim.attempt()).unwrap_or(ATTEMPTS_MAX));
        facts.first_seen_at = Some(claim.first_seen_at());
        facts.id_reuse = is_reuse;
        Ok(ClaimedEvent::New {
            claim: Some(claim),
            is_reuse,
        })
    }

    /// Keeps the delivery of an event that is claimed, if it has an id.
    ///
    /// # Errors
    /// 503 and 507 if it is not kept.
    pub(crate) async fn keep_event(
        self: Arc<Self>,
        delivery: Delivery,
        claim: Option<EventClaim>,
    ) -> Result<ReceiptId, Problem> {
        let id = delivery.receipt;
        let (receipt, kept) = self.append(delivery).await?;
        if let Some(claim) = claim
            && let Err(error) = claim.complete(id).await
        {
            tracing::warn!(error = error.chain(), "event not in the ledger yet");
        }
        self.remember().await;
        self.note(receipt).await;
        drop(kept);
        Ok(id)
    }

    /// Makes the ledger durable where no spool would put back what it forgets.
    pub(crate) async fn remember(&self) {
        if matches!(&self.acknowledger, Acknowledger::Lake(_))
            && let Err(error) = self.ledger.flush().await
        {
            tracing::warn!(error = error.chain(), "ledger not on disk yet");
        }
    }

    /// Makes `delivery` durable, and nothing else: a claim on its key is given free if that fails. What keeps it in the spool
    /// is to be dropped when the ledger was told of it.
    pub(crate) async fn append(&self, delivery: Delivery) -> Result<(Receipt, Kept), Problem> {
        let receipt = Receipt::of(&delivery, Stage::Spooled);
        let bytes = delivery.page.body.len() as u64;
        let began = self.clock.steady();
        let is_direct = matches!(&self.acknowledger, Acknowledger::Lake(_));
        if is_direct {
            // What is landed is noted before it is known here that it is, and must not be taken for another's.
            self.note(receipt.clone()).await;
        }
        match self.acknowledger.append(delivery).await {
            Ok(kept) => {
                failpoint::point("serve::after_keep");
                let elapsed = (self.clock.steady() - began).to_std().unwrap_or_default();
                self.metrics
                    .acknowledged(&receipt.stream, self.clock.now() - receipt.received_at);
                self.metrics.kept(&receipt.stream, bytes, elapsed);
                Ok((receipt, kept))
            }
            Err(error) => {
                self.metrics.refused("not_durable");
                let is_full = error.kind() == ErrorKind::Limit;
                let (code, detail) = match (&self.acknowledger, is_full) {
                    (Acknowledger::Spool(_), true) => (
                        Code::StorageFull,
                        "the spool is full: too much waits for the lake",
                    ),
                    (Acknowledger::Lake(_), true) => (Code::BacklogFull, "too much waits for the lake"),
                    (_, false) => (Code::Unavailable, "the body could not be made durable"),
                };
                tracing::error!(stream = %receipt.stream, error = error.chain(), "delivery not kept");
                if is_direct {
                    let stage = Stage::Refused {
                        reason: detail.to_owned(),
                    };
                    self.note(Receipt { stage, ..receipt }).await;
                }
                Err(Problem::new(code, detail))
            }
        }
    }

    /// Has the receipt be known. The delivery is durable whatever comes of it.
    pub(crate) async fn note(&self, receipt: Receipt) {
        if let Err(error) = self.ledger.record(vec![receipt]).await {
            tracing::warn!(error = error.chain(), "receipt not in the ledger");
        }
    }
}

/// As [`fingerprint`].
async fn fingerprint_aside(delivery: &Delivery) -> Result<Fingerprint, Problem> {
    // Bodies are shared, not copied.
    let (bytes, delivery) = (delivery.page.body.len(), delivery.clone());
    aside(bytes, move || fingerprint(&delivery)).await
}

/// Which attempt of its sender this is, from 1.
pub(super) fn attempts<'a>(header: impl Fn(&str) -> Option<&'a str>) -> u32 {
    let number = |name: &str| Some(u32::try_from(whole(header(name)?)?).unwrap_or(u32::MAX));
    // Slack counts retries, our own client attempts.
    let attempts =
        number("landfall-attempt").or_else(|| Some(number("x-slack-retry-num")?.saturating_add(1)));
    attempts.unwrap_or(1).clamp(1, ATTEMPTS_MAX)
}

/// When its sender tried first, as our own client says; a clock that is ahead of ours is not believed.
pub(super) fn first_seen_at(told: Option<&str>, now: Timestamp) -> Timestamp {
    let told = told.and_then(|text| parse_timestamp(text).ok());
    told.map_or(now, |told| told.min(now))
}

/// Without the ledger nobody knows whether it is a repeat.
pub(crate) fn unknown(error: Error) -> Problem {
    tracing::error!(error = error.chain(), "ledger not asked");
    Problem::new(
        Code::Unavailable,
        "it cannot be found out now whether this is a repeat",
    )
}

/// When a body was complete, cut to what is stored.
pub(crate) fn received(app: &App, content: Content) -> Received {
    let at: Timestamp = app.clock.now();
    Received {
        bytes: content.bytes,
        hold: content.hold,
        at,
    }
}
