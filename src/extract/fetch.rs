//! One page, with as many requests as it takes.

use std::{sync::Arc, time::Duration};

use reqwest::header::{LOCATION, RETRY_AFTER};
use tracing::{debug, warn};
use url::Url;

use crate::{
    clock::{Clock, Timestamp},
    config::{Source, Stream, request::Method},
    error::{Error, ErrorKind, Result},
    extract::{
        client::{Client, Failure, Framing, Head, Response},
        cursor::Rank,
        facts,
        limit::Limiter,
        mask::Masks,
        progress::{Progress, add},
        reading::{self, Reading, Unreadable},
        request::PageRequest,
        retry::{self, Decision, FailureKind, Outcome},
    },
};

/// Most redirects followed for one attempt.
pub const REDIRECTS_MAX: u32 = 5;

/// Bodies up to this size are read on the thread that fetched them.
const INLINE_BYTES_MAX: usize = 128 * 1024;

/// Fetches the pages of one stream: within the budget, with retries and redirects.
#[derive(Clone)]
pub struct Fetcher {
    /// The API.
    pub source: Arc<Source>,
    /// Its endpoint.
    pub stream: Arc<Stream>,
    /// Sends.
    pub client: Arc<Client>,
    /// The budget of the credential.
    pub limiter: Arc<Limiter>,
    /// Now.
    pub clock: Clock,
    /// Counts.
    pub progress: Arc<Progress>,
}

/// A 2xx answer with what it says.
pub struct Answer {
    /// The answer.
    pub response: Response,
    /// What its body says; an `Err` body is evidence, not a page.
    pub reading: Result<Reading, Unreadable>,
    /// Requests it took, redirects not counted.
    pub attempts: u32,
    /// What must not be written down about it.
    pub masks: Masks,
    /// When the body was complete.
    pub fetched_at: Timestamp,
}

/// Why there is no answer.
#[derive(Debug)]
pub struct Unanswered {
    /// The last status, if there was one.
    pub status: Option<u16>,
    /// What to report.
    pub error: Error,
}

/// The end of one attempt, with the words for the log and the error.
enum Attempt {
    Answered(Box<Response>),
    Read(Box<Response>, Reading),
    Unreadable(Box<Response>, Unreadable),
    Failed(Failure),
}

impl Fetcher {
    /// Fetches page number `page` (from 1); `previous` is the last cursor of the page before, `bound` the lower bound of
    /// the window.
    ///
    /// A 2xx answer that cannot be read is returned with its reason once nothing can be gained by asking again.
    ///
    /// # Errors
    /// [`Unanswered`] names the masked URL, the attempts and the last status.
    pub async fn fetch(
        &self,
        request: &PageRequest,
        page: u64,
        previous: Option<Rank>,
        bound: Option<Rank>,
    ) -> Result<Answer, Box<Unanswered>> {
        let masks = Masks::of(&self.source, &self.stream.request)
            .map_err(|error| Box::new(Unanswered { status: None, error }))?;
        let policy = &self.source.retry;
        for attempt in 1..=policy.attempts_max.max(1) {
            let ended = self.attempt(request, page, previous, bound, &masks).await;
            let now = self.clock.now();
            let decision = retry::decide(policy, &ended.outcome(), attempt, now, rand::random());
            let wait = match (decision, ended) {
                (Decision::Wait(wait), ended) => {
                    self.warn_of_retry(request, page, attempt, wait, &ended, &masks);
                    if ended.asks_everyone() {
                        self.limiter.pause(wait);
                    }
                    wait
                }
                (Decision::Accept, Attempt::Read(response, reading)) => {
                    return Ok(answer(*response, Ok(reading), attempt, masks, now));
                }
                // The records path is missing, or the last attempt was no JSON either: evidence.
                (
                    Decision::Accept | Decision::GiveUp(ErrorKind::Refused),
                    Attempt::Unreadable(
                        response,
                        reason @ (Unreadable::RecordsMissing | Unreadable::NotJson(_)),
                    ),
                ) => return Ok(answer(*response, Err(reason), attempt, masks, now)),
                (decision, ended) => {
                    let unanswered = self.unanswered(request, attempt, decision, ended, &masks);
                    return Err(Box::new(unanswered));
                }
            };
            add(&self.progress.retries, 1);
            self.progress.add_waited(wait);
            tokio::time::sleep(wait).await;
        }
        let error = Error::new(ErrorKind::Limit, "fetch page").with("attempts_max", policy.attempts_max);
        Err(Box::new(Unanswered { status: None, error }))
    }

    /// Sends the request once, follows redirects and reads the body.
    async fn attempt(
        &self,
        request: &PageRequest,
        page: u64,
        previous: Option<Rank>,
        bound: Option<Rank>,
        masks: &Masks,
    ) -> Attempt {
        let response = match self.follow(request, page, masks).await {
            Ok(response) => Box::new(response),
            Err(failure) => return Attempt::Failed(failure),
        };
        if !(200..=299).contains(&response.head.status) || matches!(response.head.status, 204 | 205) {
            return Attempt::Answered(response);
        }
        let (stream, body, now) = (Arc::clone(&self.stream), response.body.clone(), self.clock.now());
        let read = off_thread(body.len(), move || reading::read(&stream, &body, now, previous, bound)).await;
        match read {
            Err(error) => Attempt::Failed(Failure {
                kind: FailureKind::Cut,
                error,
            }),
            Ok(Ok(reading)) => Attempt::Read(response, reading),
            Ok(Err(Unreadable::NotJson(_) | Unreadable::Empty)) if response.framing == Framing::Close => {
                let error = Error::new(ErrorKind::Unavailable, "read the body to its end")
                    .with("problem", "neither length nor chunks, and not a whole JSON text");
                Attempt::Failed(Failure {
                    kind: FailureKind::Cut,
                    error,
                })
            }
            Ok(Err(reason)) => Attempt::Unreadable(response, reason),
        }
    }

    /// Sends and follows redirects of the same origin.
    async fn follow(&self, request: &PageRequest, page: u64, masks: &Masks) -> Result<Response, Failure> {
        let mut hop = request.clone();
        for _ in 0..=REDIRECTS_MAX {
            let grant = self
                .limiter
                .acquire(&self.stream.name, facts::method(hop.method), hop.url.path())
                .await
                .map_err(|error| Failure {
                    kind: FailureKind::Config,
                    error,
                })?;
            self.progress.add_waited(grant.waited);
            add(&self.progress.requests, 1);
            let sent = self.client.send(&self.stream.request, &hop).await;
            self.log(&hop, page, &sent, masks);
            let response = sent?;
            self.limiter.observe(&response.head.headers);
            match redirect(&self.source.base_url, &hop, &response.head) {
                Ok(None) => return Ok(response),
                Ok(Some(mut url)) => {
                    masks.strip(&mut url);
                    hop.url = url;
                }
                Err(error) => {
                    return Err(Failure {
                        kind: FailureKind::Unsafe,
                        error,
                    });
                }
            }
        }
        let error = Error::new(ErrorKind::Refused, "follow redirects").with("redirects_max", REDIRECTS_MAX);
        Err(Failure {
            kind: FailureKind::Unsafe,
            error,
        })
    }

    fn log(&self, request: &PageRequest, page: u64, sent: &Result<Response, Failure>, masks: &Masks) {
        let number = self.progress.counts().requests;
        let method = facts::method(request.method);
        let (stream, token) = (&self.stream.name, masks.token(&request.token));
        let url = masks.url(request.url.as_str());
        match sent {
            Ok(response) => debug!(
                %stream, request = number, page, %method, %url, %token,
                status = response.head.status,
                bytes = response.body.len(),
                wire_bytes = response.wire_bytes,
                server_request_id = facts::request_id(&response.head),
                "request answered"
            ),
            Err(failure) => debug!(
                %stream, request = number, page, %method, %url, %token,
                reason = %failure.kind,
                "request failed"
            ),
        }
    }

    fn warn_of_retry(
        &self,
        request: &PageRequest,
        page: u64,
        attempt: u32,
        wait: Duration,
        ended: &Attempt,
        masks: &Masks,
    ) {
        warn!(
            stream = %self.stream.name,
            page,
            attempt,
            wait_ms = wait.as_millis(),
            reason = %ended.reason(masks),
            url = %masks.url(request.url.as_str()),
            "request will be sent again"
        );
    }

    fn unanswered(
        &self,
        request: &PageRequest,
        attempts: u32,
        decision: Decision,
        ended: Attempt,
        masks: &Masks,
    ) -> Unanswered {
        let (kind, asked) = match decision {
            Decision::GiveUp(kind) => (kind, None),
            Decision::TooLong(asked) => (ErrorKind::Limit, Some(asked)),
            Decision::Accept | Decision::Wait(_) => (ErrorKind::Internal, None),
        };
        let status = ended.status();
        let mut error = Error::new(kind, "fetch page")
            .with("stream", &self.stream.name)
            .with("url", masks.url(request.url.as_str()))
            .with("attempts", attempts);
        if let Some(status) = status {
            error = error.with("status", status);
        }
        if let Some(asked) = asked {
            error = error
                .with("retry_after_s", asked.as_secs())
                .with("retry_after_max_s", self.source.retry.retry_after_max.as_secs());
        }
        if matches!(status, Some(401 | 403)) {
            error = error.with("hint", "the server does not accept the credentials");
        }
        let error = match ended {
            Attempt::Failed(failure) => error.caused_by(failure.error),
            Attempt::Unreadable(_, reason) => error.with("problem", reason),
            Attempt::Answered(_) | Attempt::Read(..) => error,
        };
        Unanswered { status, error }
    }
}

impl Attempt {
    fn outcome(&self) -> Outcome<'_> {
        match self {
            Self::Answered(response)
            | Self::Read(response, _)
            | Self::Unreadable(response, Unreadable::RecordsMissing) => Outcome::Answered {
                status: response.head.status,
                headers: &response.head.headers,
            },
            Self::Unreadable(_, Unreadable::Throttled { wait }) => Outcome::Throttled(*wait),
            Self::Unreadable(..) => Outcome::NotJson,
            Self::Failed(failure) => Outcome::Failed(failure.kind),
        }
    }

    fn status(&self) -> Option<u16> {
        match self {
            Self::Answered(response) | Self::Read(response, _) | Self::Unreadable(response, _) => {
                Some(response.head.status)
            }
            Self::Failed(_) => None,
        }
    }

    /// Whether the wait is meant for the credential and not for this request alone.
    fn asks_everyone(&self) -> bool {
        match self {
            Self::Answered(response) => {
                let Head { status, headers, .. } = &response.head;
                retry::is_throttle(*status, headers) || headers.contains_key(RETRY_AFTER)
            }
            Self::Unreadable(_, reason) => matches!(reason, Unreadable::Throttled { .. }),
            Self::Read(..) | Self::Failed(_) => false,
        }
    }

    fn reason(&self, masks: &Masks) -> String {
        match self {
            Self::Answered(response) | Self::Read(response, _) => format!("status {}", response.head.status),
            Self::Unreadable(_, reason) => reason.to_string(),
            Self::Failed(failure) => masks.text(&format!("{}: {}", failure.kind, failure.error.chain())),
        }
    }
}

fn answer(
    response: Response,
    reading: Result<Reading, Unreadable>,
    attempts: u32,
    masks: Masks,
    fetched_at: Timestamp,
) -> Answer {
    Answer {
        response,
        reading,
        attempts,
        masks,
        fetched_at,
    }
}

/// Where an answer redirects to, or `None` if it does not.
///
/// # Errors
/// [`ErrorKind::Refused`] for a place of another origin, and for a POST that would become a GET.
fn redirect(base: &Url, request: &PageRequest, head: &Head) -> Result<Option<Url>> {
    let keeps_method = match head.status {
        301..=303 => request.method == Method::Get,
        307 | 308 => true,
        _ => return Ok(None),
    };
    let Some(location) = head.headers.get(LOCATION).and_then(|value| value.to_str().ok()) else {
        return Ok(None);
    };
    if !keeps_method {
        return Err(Error::new(ErrorKind::Refused, "follow redirect")
            .with("status", head.status)
            .with("problem", "a POST would become a GET"));
    }
    let url = head.url.join(location).map_err(|cause| {
        Error::new(ErrorKind::Refused, "follow redirect")
            .with("problem", "not a URL")
            .caused_by(cause)
    })?;
    Ok(Some(request.at(base, url)?.url))
}

/// Does `work` on `bytes` bytes, on a thread of its own if that takes long enough to matter.
pub(crate) async fn off_thread<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    if bytes <= INLINE_BYTES_MAX {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|cause| Error::new(ErrorKind::Internal, "read body").caused_by(cause))
}
