//! Request bodies: read within limits, unpacked within limits, accounted together.
//!
//! ```text
//! Body ─ receive ─► Wire ─ (signature over Wire::bytes) ─ decode ─► Content
//!          length, rate, budget        exactly as received     size, ratio, budget
//! ```
//!
//! Unpacking is a second step so that nothing of an unsigned body is ever unpacked. A signature is checked over the
//! bytes as received: senders that sign (Standard Webhooks, GitHub, Stripe, Shopify, Slack) send no content coding; one
//! that does signs what it sends.
//!
//! `Expect: 100-continue` is answered by the HTTP library when the body is first read, so a request refused before
//! that, here or earlier, never invites its body.

pub mod budget;
mod buffer;
pub mod coding;

use std::{pin::pin, time::Duration};

use axum::{body::Body, http::HeaderMap};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use tokio::{
    task::yield_now,
    time::{Instant, timeout_at},
};

use self::{
    budget::{Budget, Hold},
    buffer::Buffer,
    coding::{Coding, Decoder},
};
use crate::serve::problem::{Problem, code::Code};

/// How much of a body is taken, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Largest body as sent, in bytes. A larger declared length is refused before anything is read.
    pub wire_bytes_max: usize,
    /// Largest body after unpacking, in bytes.
    pub decoded_bytes_max: usize,
    /// Most decoded bytes per byte sent. DEFLATE can reach 1032, JSON seldom exceeds 50.
    pub ratio_max: usize,
    /// Up to this size, in bytes, the ratio is not looked at: short repetitive batches pack very well.
    pub ratio_free_bytes: usize,
    /// Longest pause between two parts of a body, that before the first one included; and how long a body may be behind
    /// its least rate.
    pub grace: Duration,
    /// Least mean rate of arrival after the grace, in bytes per second.
    pub bytes_per_second_min: u32,
    /// Longest time for the whole body.
    pub body_timeout: Duration,
}

impl BodyLimits {
    /// For a batch of records: 32 MiB sent, 128 MiB unpacked at up to 200:1, 1 KiB/s after 10 s, 60 s in all.
    pub const BATCH: Self = Self {
        wire_bytes_max: 32 << 20,
        decoded_bytes_max: 128 << 20,
        ratio_max: 200,
        ratio_free_bytes: 1 << 20,
        grace: Duration::from_secs(10),
        bytes_per_second_min: 1 << 10,
        body_timeout: Duration::from_secs(60),
    };

    /// When the next bytes must be there, if `received` bytes came since `began`, and the last of them at `last`.
    fn due(&self, began: Instant, last: Instant, received: usize) -> Instant {
        let earned = received as u64 * 1000 / u64::from(self.bytes_per_second_min.max(1));
        let kept_up = self.grace.saturating_add(Duration::from_millis(earned));
        (last + self.grace).min(began + kept_up.min(self.body_timeout))
    }
}

/// A body exactly as it was sent.
#[derive(Debug)]
pub struct Wire {
    bytes: Bytes,
    coding: Coding,
    hold: Hold,
}

/// A body after its coding was undone.
#[derive(Debug)]
pub struct Content {
    /// The bytes the sender meant.
    pub bytes: Bytes,
    /// Their share of the budget; keep it as long as the bytes are kept in memory.
    pub hold: Hold,
}

/// Reads the body of a request with these headers. `count` is told how many bytes have come before more are kept.
///
/// # Errors
/// `unsupported_encoding`, `body_too_large` (declared: before anything is read; else when the limit is passed),
/// `body_too_slow`, `body_truncated`, `overloaded`; what `count` says.
pub async fn receive(
    headers: &HeaderMap,
    body: Body,
    limits: &BodyLimits,
    budget: &Budget,
    count: &mut (dyn FnMut(u64) -> Result<(), Problem> + Send),
) -> Result<Wire, Problem> {
    let coding = Coding::of(headers)?;
    let declared = body.size_hint();
    let least = usize::try_from(declared.lower()).unwrap_or(usize::MAX);
    if least > limits.wire_bytes_max {
        return Err(too_large(limits));
    }
    let known = declared.exact().and_then(|exact| usize::try_from(exact).ok());
    let bytes_max = known.unwrap_or(limits.wire_bytes_max);
    let mut buffer = Buffer::open(known.unwrap_or(Buffer::STEP_BYTES), bytes_max, budget).await?;

    let mut began = Instant::now();
    let mut last = began;
    let mut body = pin!(body);
    loop {
        let due = limits.due(began, last, buffer.len());
        let frame = match timeout_at(due, body.frame()).await {
            Err(_) => {
                let detail = "the body paused for too long, or did not keep up the least rate";
                return Err(Problem::new(Code::BodyTooSlow, detail));
            }
            Ok(None) => break,
            Ok(Some(Err(_))) => {
                return Err(Problem::new(
                    Code::BodyTruncated,
                    "the body was cut or is malformed",
                ));
            }
            Ok(Some(Ok(frame))) => frame,
        };
        // Trailers carry nothing that is used here.
        let Ok(chunk) = frame.into_data() else {
            continue;
        };
        if chunk.len() > limits.wire_bytes_max - buffer.len() {
            return Err(too_large(limits));
        }
        count((buffer.len() + chunk.len()) as u64)?;
        let asked = Instant::now();
        buffer.reserve(chunk.len(), budget).await?;
        // The sender is not slow while it waits for our memory.
        last = Instant::now();
        began += last - asked;
        buffer.bytes_mut().extend_from_slice(&chunk);
    }
    let (bytes, hold) = buffer.finish();
    Ok(Wire { bytes, coding, hold })
}

fn too_large(limits: &BodyLimits) -> Problem {
    let detail = format!("the body has more than {} bytes", limits.wire_bytes_max);
    Problem::new(Code::BodyTooLarge, detail)
}

impl Wire {
    /// The bytes exactly as received, still packed: what a signature is over.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// How the bytes are packed.
    pub fn coding(&self) -> Coding {
        self.coding
    }

    /// Undoes the coding. Memory grows with what is really unpacked, never past the limits.
    ///
    /// # Errors
    /// `body_expands_too_much`, `body_truncated`, `body_undecodable`, `overloaded`.
    pub async fn decode(self, limits: &BodyLimits, budget: &Budget) -> Result<Content, Problem> {
        let Some(mut decoder) = Decoder::open(self.coding, &self.bytes)? else {
            return Ok(Content {
                bytes: self.bytes,
                hold: self.hold,
            });
        };
        let most = most_decoded(self.bytes.len(), limits);
        let mut buffer = Buffer::open(Buffer::STEP_BYTES, most, budget).await?;
        let mut window = None;
        loop {
            // One byte more than allowed tells a body that ends at the limit from one that goes on.
            let step = Buffer::STEP_BYTES.min(most + 1 - buffer.len());
            buffer.reserve(step, budget).await?;
            if decoder.step(step, buffer.bytes_mut())? < step {
                break;
            }
            if buffer.len() > most {
                let detail = format!("the body has more than {most} bytes when it is unpacked");
                return Err(Problem::new(Code::BodyExpandsTooMuch, detail));
            }
            // A short body is done within one step, and no more of its decoders exist at a time than there are
            // threads. Only one that stays across waits has to pay for its window.
            if window.is_none() {
                window = Some(budget.take(self.coding.window_bytes()).await?);
            }
            yield_now().await;
        }
        let (bytes, hold) = buffer.finish();
        Ok(Content { bytes, hold })
    }
}

/// Most bytes that `sent` bytes may unpack to.
fn most_decoded(sent: usize, limits: &BodyLimits) -> usize {
    sent.saturating_mul(limits.ratio_max)
        .max(limits.ratio_free_bytes)
        .min(limits.decoded_bytes_max)
}

#[cfg(test)]
mod tests;
