//! Channels: bodies one behind the other, of a producer that knows by an offset of its own how far it is.
//!
//! ```text
//! PUT …/channels/{name}          open: whoever had it is shut out (epoch + 1); says the last durable offset
//! POST …/channels/{name}/records append behind `after`, up to `offset`: kept once, or 409 with the last durable offset
//! GET …/channels/{name}          says the last durable offset
//! ```
//!
//! An append is kept once however often it is sent: its offset is its idempotency key, and one that does not follow the last
//! is refused. So a producer that opens its channel, goes on behind the offset it is told, and sends what is not answered
//! again has every body landed exactly once, through any ends of either process.

use std::sync::Arc;

use axum::{
    http::{HeaderName, HeaderValue, StatusCode},
    response::Response,
};
use futures::future::BoxFuture;
use serde::Serialize;

use crate::{
    clock::Timestamp,
    config::{
        Name, StreamName,
        producers::Scope,
        push::{OnViolation, PushAuth},
    },
    raw::ChannelFact,
    receive::{
        Delivery, ReceiptId,
        idempotency::Key,
        ledger::{
            answer::{Answer, KeyClaim},
            channel::{Channel, ChannelClaim, ChannelName},
        },
        producer::limit::Who,
    },
    serve::{
        answer::json,
        app::App,
        call::Call,
        check::RESULTS_MAX,
        deliver::{Claimed, REPEAT_AFTER, REPEAT_PATIENCE, unknown},
        problem::{Problem, code::Code},
    },
};

/// Says the last durable offset where an append did not follow it; left out if there is none.
const OFFSET: HeaderName = HeaderName::from_static("landfall-offset");

#[derive(Serialize)]
struct Shown {
    channel: String,
    stream: String,
    epoch: u64,
    offset: Option<String>,
    bodies: u64,
    receipt: Option<ReceiptId>,
    updated_at: Timestamp,
    on_violation: &'static str,
    limits: Limits,
}

/// What one body may have: who may append need not be allowed to read the catalog.
#[derive(Clone, Copy, Serialize)]
struct Limits {
    records_max: u64,
    bytes_max: u64,
    record_bytes_max: u64,
    results_max: u64,
}

/// Where in a channel a body is to stand.
pub(crate) struct Position {
    channel: ChannelName,
    epoch: u64,
    offset: Key,
    after: Option<Key>,
}

/// Where a body is kept once it is known that it may be.
pub(crate) enum Place {
    /// Beside others; by its key once, if it has one.
    Anywhere(Option<KeyClaim>),
    /// Behind the last of its channel.
    InChannel(Box<Held>),
}

/// A place in a channel. Dropped, it is given free.
pub(crate) struct Held {
    channel: ChannelClaim,
    key: Option<KeyClaim>,
    /// The channel when the body is kept.
    after: Channel,
}

/// How a request is met.
pub(crate) enum Reserved {
    /// As a new one.
    New(Place),
    /// It was answered before, with this.
    Before(Answer),
}

/// Whose channel it is.
struct Owned {
    stream: StreamName,
    producer: Option<Name>,
    channel: ChannelName,
    on_violation: OnViolation,
    limits: Limits,
}

impl Position {
    /// The position that `call` names; none if it is not sent to a channel.
    ///
    /// # Errors
    /// `invalid_request`, `channel_not_found`.
    pub(crate) fn of(call: &Call) -> Result<Option<Self>, Problem> {
        if call.param("channel").is_empty() {
            return Ok(None);
        }
        let wrong = |detail: String| Problem::new(Code::InvalidRequest, detail);
        let token = |name: &'static str| match call.query(name)? {
            None => Ok(None),
            Some(text) => match Key::new(&text) {
                Ok(key) => Ok(Some(key)),
                Err(fault) => Err(wrong(format!("the parameter {name} is an offset token: {fault}"))),
            },
        };
        let offset = token("offset")?
            .ok_or_else(|| wrong("the parameter offset says how far the body reaches".to_owned()))?;
        let epoch = call.query("epoch")?.and_then(|text| text.parse().ok());
        Ok(Some(Self {
            channel: channel_name(call)?,
            epoch: epoch.ok_or_else(|| {
                wrong("the parameter epoch is the number that opening the channel gave".to_owned())
            })?,
            after: token("after")?,
            offset,
        }))
    }

    /// The key by which a repeat is known.
    pub(crate) fn key(&self) -> Key {
        self.offset.clone()
    }
}

impl App {
    /// Reserves the place of `delivery` in its channel, or finds that it was kept there before.
    ///
    /// # Errors
    /// 404 and 409 for the channel, 409 and 422 for a repeat.
    pub(crate) async fn reserve(
        &self,
        delivery: &mut Delivery,
        position: Position,
    ) -> Result<Reserved, Problem> {
        let (stream, producer) = (&delivery.stream, delivery.producer.as_ref());
        let held = self
            .ledger
            .hold_channel(stream, producer, &position.channel, REPEAT_PATIENCE);
        let channel = held.await.map_err(unknown)?.ok_or_else(busy)?;
        let before = channel.before().cloned().ok_or_else(not_found)?;
        if before.epoch != position.epoch {
            let detail = "the channel was opened again since, or by somebody else";
            return Err(Problem::new(Code::ChannelFenced, detail));
        }
        let key = match self.claim(delivery, Some(&position.offset)).await? {
            Claimed::New(key) => key,
            Claimed::Before(answer) => return Ok(Reserved::Before(answer)),
        };
        if before.offset != position.after {
            return Err(conflict(&before));
        }
        delivery.page.facts.channel = Some(ChannelFact {
            name: position.channel.to_string(),
            epoch: before.epoch,
            number: before.number + 1,
            offset: position.offset.as_str().to_owned(),
        });
        let after = Channel {
            number: before.number + 1,
            offset: Some(position.offset),
            receipt: Some(delivery.receipt),
            at: before.at.max(delivery.page.facts.fetched_at),
            ..before
        };
        Ok(Reserved::New(Place::InChannel(Box::new(Held {
            channel,
            key,
            after,
        }))))
    }

    /// Keeps `delivery` at its place, and has its repeats answered with `answer`.
    ///
    /// # Errors
    /// 503 and 507 if it is not kept.
    pub(crate) async fn keep_in_channel(
        self: Arc<Self>,
        delivery: Delivery,
        held: Held,
        answer: Answer,
    ) -> Result<Answer, Problem> {
        let (receipt, kept) = self.append(delivery).await?;
        if let Err(error) = held.channel.complete(held.after).await {
            // The spool has it: it is put back at the next start.
            tracing::warn!(error = error.chain(), "offset not in the ledger yet");
        }
        self.answered(held.key, &answer).await;
        self.remember().await;
        self.note(receipt).await;
        drop(kept);
        Ok(answer)
    }

    /// Who asks for a channel, and which.
    async fn owned(&self, call: &mut Call) -> Result<Owned, Problem> {
        let caller = self.authenticate(call).await?;
        let Some(stream) = call.stream() else {
            return Err(self.stream_not_found(call, "no stream has such a name"));
        };
        self.may(call, caller.as_ref(), Scope::Ingest, Some(&stream))?;
        let Some((settings, push)) = self.pushed(&stream) else {
            return Err(self.stream_not_found(call, "there is no such stream"));
        };
        if caller.is_none() && push.auth == PushAuth::None {
            let detail = "the stream takes signed webhooks alone: no producer is declared";
            return Err(Problem::new(Code::Unauthenticated, detail));
        }
        self.still_open(call, settings, push)?;
        let limits = Limits {
            records_max: push.records_max,
            bytes_max: push.bytes_max,
            record_bytes_max: push.record_bytes_max,
            results_max: RESULTS_MAX as u64,
        };
        let who = match &caller {
            Some(caller) => Who::Producer(&caller.producer.name),
            None => Who::Sender(&stream),
        };
        self.admit(call, who, Some(&stream), 0)?;
        Ok(Owned {
            channel: channel_name(call)?,
            producer: caller.map(|caller| caller.producer.name.clone()),
            stream,
            on_violation: push.on_violation,
            limits,
        })
    }
}

/// Opens a channel; whoever had it before can append no more.
pub(crate) fn open<'a>(app: &'a Arc<App>, call: &'a mut Call) -> BoxFuture<'a, Result<Response, Problem>> {
    Box::pin(async move {
        let owned = app.owned(call).await?;
        let working = Arc::clone(app);
        // Not given up half way: nobody is to be shut out by a request that was never answered for good.
        let opened = app.works.finish(async move {
            let held = working.ledger.hold_channel(
                &owned.stream,
                owned.producer.as_ref(),
                &owned.channel,
                REPEAT_PATIENCE,
            );
            let claim = held.await.map_err(unknown)?.ok_or_else(busy)?;
            let now = working.clock.now();
            let channel = match claim.before() {
                Some(before) => Channel {
                    epoch: before.epoch + 1,
                    at: before.at.max(now),
                    ..before.clone()
                },
                None => Channel {
                    epoch: 1,
                    number: 0,
                    offset: None,
                    receipt: None,
                    at: now,
                },
            };
            claim.complete(channel.clone()).await.map_err(unknown)?;
            // An epoch that a crash took back would let in again who was shut out.
            working.ledger.flush().await.map_err(unknown)?;
            Ok((owned, channel))
        });
        let (owned, channel) = opened.await?;
        json(StatusCode::OK, &show(&owned, channel))
    })
}

/// Says how far a channel is.
pub(crate) fn tell<'a>(app: &'a Arc<App>, call: &'a mut Call) -> BoxFuture<'a, Result<Response, Problem>> {
    Box::pin(async move {
        let owned = app.owned(call).await?;
        let channel = app
            .ledger
            .channel(&owned.stream, owned.producer.as_ref(), &owned.channel)
            .map_err(unknown)?
            .ok_or_else(not_found)?;
        json(StatusCode::OK, &show(&owned, channel))
    })
}

fn show(owned: &Owned, channel: Channel) -> Shown {
    Shown {
        channel: owned.channel.to_string(),
        stream: owned.stream.to_string(),
        epoch: channel.epoch,
        offset: channel.offset.map(|offset| offset.as_str().to_owned()),
        bodies: channel.number,
        receipt: channel.receipt,
        updated_at: channel.at,
        on_violation: owned.on_violation.as_str(),
        limits: owned.limits,
    }
}

fn channel_name(call: &Call) -> Result<ChannelName, Problem> {
    ChannelName::new(call.param("channel")).ok_or_else(|| {
        let detail = "a channel is called by 1 to 128 letters, digits, and any of - . _ ~ behind the first";
        Problem::new(Code::InvalidRequest, detail)
    })
}

fn not_found() -> Problem {
    Problem::new(
        Code::ChannelNotFound,
        "this producer opened no channel of that name, or too long ago",
    )
}

fn busy() -> Problem {
    let detail = "another request to this channel is being received";
    Problem::new(Code::Conflict, detail).retry_after(REPEAT_AFTER)
}

fn conflict(channel: &Channel) -> Problem {
    let Some(last) = &channel.offset else {
        let detail = "nothing was appended yet: the first body has no `after`";
        return Problem::new(Code::OffsetConflict, detail);
    };
    let problem = Problem::new(
        Code::OffsetConflict,
        format!("the last durable offset is `{}`", last.as_str()),
    );
    match HeaderValue::try_from(last.as_str()) {
        Ok(value) => problem.with_header(OFFSET, value),
        Err(_) => problem,
    }
}
