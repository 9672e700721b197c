//! One request, sent until it is answered for good or its time is over.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rand::RngExt as _;
use reqwest::{
    Method, Url,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap},
};
use tokio::time::Instant;

use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    push::{
        client::Client,
        coding::Coding,
        retry::{Decision, Outcome, decide, pace},
        sent::Problem,
    },
};

/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A request as it is sent each time.
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) content_type: Option<&'static str>,
    /// Packed already.
    pub(super) body: Bytes,
    pub(super) coding: Coding,
    /// What the sender calls it on every attempt.
    pub(super) key: Option<String>,
    /// The id it is signed with, if it is.
    pub(super) signed: Option<String>,
}

/// An answer that no attempt more would change.
#[derive(Clone, Debug)]
pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) attempts: u32,
}

impl Client {
    /// Sends `request` until it is answered for good.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the deadline has passed or the attempts are used up; those of the credential.
    pub(super) async fn exchange(&self, request: &Request) -> Result<Answered> {
        let options = self.options();
        let began = Instant::now();
        let first_at = options.clock.now();
        let mut attempt = 0;
        loop {
            attempt += 1;
            let left = options.deadline.saturating_sub(began.elapsed());
            let attempted = self.attempt(request, attempt, first_at, left).await?;
            let outcome = match &attempted {
                Ok(answered) => Outcome::Answered {
                    status: answered.status,
                    retryable: Problem::of(&answered.headers, &answered.body).retryable,
                    headers: &answered.headers,
                },
                Err(_) => Outcome::Lost,
            };
            let jitter = rand::rng().random::<f64>();
            let decision = decide(&options.retry, &outcome, attempt, options.clock.now(), jitter);
            let why = match (decision, attempted) {
                (Decision::Done, Ok(answered)) => {
                    self.rest(pace(&answered.headers)).await;
                    return Ok(answered);
                }
                (_, Ok(answered)) => answered.refusal("send request").chain(),
                (_, Err(cause)) => cause,
            };
            let wait = match decision {
                Decision::Wait(wait) if began.elapsed().saturating_add(wait) < options.deadline => wait,
                _ => {
                    return Err(Error::new(ErrorKind::Unavailable, "send request")
                        .with("url", &request.url)
                        .with("attempts", attempt)
                        .with("deadline", format!("{:?}", options.deadline))
                        .with("last", why));
                }
            };
            tracing::warn!(attempt, wait = ?wait, cause = why, "request not answered, it is sent again");
            self.rest(wait).await;
        }
    }

    /// Waits as after that many attempts in vain.
    pub(super) async fn backoff(&self, attempts: u32) {
        let options = self.options();
        let jitter = rand::rng().random::<f64>();
        let now = options.clock.now();
        if let Decision::Wait(wait) = decide(&options.retry, &Outcome::Lost, attempts, now, jitter) {
            self.rest(wait).await;
        }
    }

    async fn rest(&self, wait: Duration) {
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// One attempt; the inner error is that there was no whole answer.
    async fn attempt(
        &self,
        request: &Request,
        attempt: u32,
        first_at: Timestamp,
        left: Duration,
    ) -> Result<Result<Answered, String>> {
        let options = self.options();
        let mut sending = self
            .http()
            .request(request.method.clone(), request.url.clone())
            .timeout(options.request_timeout.min(left))
            .header("landfall-attempt", attempt)
            .header("landfall-first-attempt-at", first_at.to_rfc3339());
        if let Some(kind) = request.content_type {
            sending = sending.header(CONTENT_TYPE, kind);
        }
        if let Some(coding) = request.coding.name() {
            sending = sending.header(CONTENT_ENCODING, coding);
        }
        if let Some(key) = &request.key {
            sending = sending.header("idempotency-key", format!("\"{key}\""));
        }
        if let Some(token) = options.credential.token()? {
            sending = sending.bearer_auth(token);
        }
        if let (Some(signature), Some(id)) = (&options.signature, &request.signed) {
            for (name, value) in signature.headers(id, options.clock.now(), &request.body) {
                sending = sending.header(name, value);
            }
        }
        if request.content_type.is_some() {
            sending = sending.body(request.body.clone());
        }
        Ok(whole(sending, attempt).await.map_err(|source| {
            // The outermost only says that something failed.
            let mut cause: &dyn std::error::Error = &source;
            while let Some(below) = cause.source() {
                cause = below;
            }
            cause.to_string()
        }))
    }
}

async fn whole(sending: reqwest::RequestBuilder, attempts: u32) -> Result<Answered, reqwest::Error> {
    let mut response = sending.send().await.map_err(reqwest::Error::without_url)?;
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
        let room = ANSWER_BYTES_MAX - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            break;
        }
    }
    Ok(Answered {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: body.freeze(),
        attempts,
    })
}
