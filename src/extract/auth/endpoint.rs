//! Sends token and login requests: few, small, and with a bound on their repetition.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{
    Method as HttpMethod,
    header::{ACCEPT_ENCODING, HeaderMap, HeaderValue},
    redirect,
};
use serde_json::Value;
use tracing::{debug, warn};
use url::{Origin, Url};

use crate::{
    clock::Clock,
    config::{Source, errors::Retry},
    error::{Error, ErrorKind, Result},
    extract::{
        attempt::Health,
        auth::{gate::Gate, tls},
        client::is_tls,
        request::Prepared,
        retry::{backoff, wait_asked},
    },
};

/// Largest answer of a token endpoint, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Most attempts of one token request, if the source allows as many.
const ATTEMPTS_MAX: u32 = 4;

/// Longest error code that is repeated, in bytes. Codes are words; anything longer may hold what we sent.
const CODE_BYTES_MAX: usize = 64;

/// Sent as `User-Agent` unless the request has one.
const USER_AGENT: &str = concat!("landfall/", env!("CARGO_PKG_VERSION"));

/// Where tokens are asked for.
pub(super) struct Endpoint {
    http: reqwest::Client,
    retry: Retry,
    clock: Clock,
    /// Without query and user.
    shown: String,
    origin: Origin,
    /// What requests have to pass; nothing for one that is used alone.
    gate: Option<Gate>,
}

/// An answer that is no error by its status: 2xx, or a redirect, which is not followed.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What the status of an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Answered,
    Refused,
    /// Ask again, no sooner than this.
    Again(Duration),
}

/// How one attempt failed.
struct Missed {
    error: Error,
    /// It is worth asking again, no sooner than this.
    again: Option<Duration>,
    /// What it says about the host.
    health: Option<Health>,
}

impl Endpoint {
    /// The endpoint at `url`, asked with the timeouts and certificates of `source`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for certificates that cannot be read; [`ErrorKind::Unavailable`] if the machine has none
    /// to trust.
    pub(super) fn new(source: &Source, url: &Url, clock: Clock) -> Result<Self> {
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .connect_timeout(source.timeouts.connect)
            .read_timeout(source.timeouts.read)
            .timeout(source.timeouts.total)
            // Token requests are rare: a connection kept would be closed by the server before the next.
            .pool_max_idle_per_host(0);
        builder = if url.scheme() == "http" {
            // Never speaks TLS, so a machine without certificates may use it.
            builder.tls_certs_only([])
        } else {
            tls::configure(builder, &source.tls)?
        };
        let http = builder.build().map_err(|cause| {
            Error::new(ErrorKind::Unavailable, "build HTTP client for tokens")
                .with("source", &source.name)
                .caused_by(cause.without_url())
        })?;
        Ok(Self {
            http,
            retry: source.retry,
            clock,
            shown: shown(url),
            origin: url.origin(),
            gate: None,
        })
    }

    /// From now on requests pass `gate`.
    pub(super) fn guard(&mut self, gate: Gate) {
        self.gate = Some(gate);
    }

    /// Where requests go.
    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Waits until a request may go; its first attempt needs that before [`Self::ask`], before anything is locked.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the host is left alone for longer than is worth waiting; those of
    /// [`Limiter::acquire`](crate::extract::limit::Limiter::acquire).
    pub(super) async fn admit(&self, prepared: &Prepared) -> Result<()> {
        let Some(gate) = &self.gate else {
            return Ok(());
        };
        if let Err(left) = gate.admit(&self.retry).await {
            return Err(self
                .error(ErrorKind::Unavailable)
                .with("problem", "circuit open: the host failed too often in a row")
                .with("left_s", left.as_secs_f64()));
        }
        gate.acquire(prepared).await
    }

    /// Sends what `build` makes, again and anew after a failure that may pass.
    ///
    /// # Errors
    /// What `build` fails with; [`ErrorKind::Refused`] for a 4xx answer or a certificate that does
    /// not hold; [`ErrorKind::Unavailable`] if no attempt was
    /// answered well; [`ErrorKind::Limit`] for an answer that is too large.
    pub(super) async fn ask(&self, build: impl Fn() -> Result<Prepared> + Send + Sync) -> Result<Answer> {
        let attempts_max = self.retry.attempts_max.clamp(1, ATTEMPTS_MAX);
        let mut counted = false;
        for attempt in 1..=attempts_max {
            if attempt > 1 {
                self.admit(&build()?).await?;
            }
            let ended = self.once(build()?).await;
            let health = match &ended {
                Ok(_) => Some(Health::Good),
                Err(missed) => missed.health,
            };
            if let Some(gate) = &self.gate {
                gate.tell(health, &mut counted);
            }
            let (error, asked) = match ended {
                Ok(answer) => return Ok(answer),
                Err(Missed { error, again, .. }) => match again {
                    Some(asked) => (error, asked),
                    None => return Err(error),
                },
            };
            let failed = health != Some(Health::Good);
            let spent = || failed && self.gate.as_ref().is_some_and(|gate| !gate.may_repeat());
            if attempt == attempts_max || asked > self.retry.retry_after_max || spent() {
                return Err(error.with("attempts", attempt).with(
                    "hint",
                    "the token endpoint does not answer well: look at its status page, then run again",
                ));
            }
            let wait = asked + backoff(&self.retry, attempt, rand::random());
            warn!(
                endpoint = self.shown,
                attempt,
                wait_ms = wait.as_millis(),
                reason = error.chain(),
                "token request will be sent again"
            );
            tokio::time::sleep(wait).await;
        }
        Err(self.error(ErrorKind::Limit).with("attempts_max", attempts_max))
    }

    /// An error of this endpoint.
    pub(super) fn error(&self, kind: ErrorKind) -> Error {
        Error::new(kind, "ask for token").with("endpoint", &self.shown)
    }

    /// A refusal with its code, if the answer has one that may be shown.
    pub(super) fn refused(&self, status: u16, body: &[u8]) -> Error {
        let mut error = self.error(ErrorKind::Refused).with("status", status);
        let code = code(body);
        if let Some(code) = &code {
            error = error.with("error", code);
        }
        error.with("hint", hint(code.as_deref(), status))
    }

    async fn once(&self, prepared: Prepared) -> Result<Answer, Missed> {
        let response = self.send(prepared).await?;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = self.read(response).await?;
        debug!(
            endpoint = self.shown,
            status,
            bytes = body.len(),
            "token request answered"
        );
        let asked = wait_asked(&headers, self.clock.now()).unwrap_or(Duration::ZERO);
        match meaning(status, code(&body).as_deref(), asked) {
            Meaning::Answered => Ok(Answer {
                status,
                headers,
                body,
            }),
            Meaning::Refused => Err(Missed {
                error: self.refused(status, &body),
                again: None,
                health: Some(Health::Good),
            }),
            Meaning::Again(wait) => Err(Missed {
                error: self.error(ErrorKind::Unavailable).with("status", status),
                again: Some(wait),
                health: Some(match status {
                    502..=504 => Health::Bad,
                    500..=599 => Health::BadForOne,
                    _ => Health::Good,
                }),
            }),
        }
    }

    async fn send(&self, prepared: Prepared) -> Result<reqwest::Response, Missed> {
        let method = HttpMethod::from_bytes(prepared.method.as_str().as_bytes()).map_err(|cause| Missed {
            error: self.error(ErrorKind::Internal).caused_by(cause),
            again: None,
            health: None,
        })?;
        let mut headers = prepared.headers;
        // What comes is small, and is read as it is.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let mut request = self.http.request(method, prepared.url).headers(headers);
        if let Some(body) = prepared.body.to_bytes() {
            request = request.body(body);
        }
        request.send().await.map_err(|cause| self.unanswered(cause))
    }

    async fn read(&self, mut response: reqwest::Response) -> Result<Bytes, Missed> {
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|cause| self.unanswered(cause))? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                let error = self.error(ErrorKind::Limit);
                return Err(Missed {
                    error: error.with("answer_bytes_max", ANSWER_BYTES_MAX),
                    again: None,
                    health: Some(Health::Good),
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    fn unanswered(&self, cause: reqwest::Error) -> Missed {
        if cause.is_builder() {
            return Missed {
                error: self.error(ErrorKind::Config).caused_by(cause.without_url()),
                again: None,
                health: None,
            };
        }
        if is_tls(&cause) {
            let error = self.error(ErrorKind::Refused).with(
                "hint",
                "trust the endpoint's certificate with tls.ca; if it asks for one of ours, name it in tls.client_cert",
            );
            return Missed {
                error: error.caused_by(cause.without_url()),
                again: None,
                health: Some(Health::Bad),
            };
        }
        let error = self.error(ErrorKind::Unavailable);
        Missed {
            error: error.caused_by(cause.without_url()),
            again: Some(Duration::ZERO),
            health: Some(Health::Bad),
        }
    }
}

/// RFC 6749 section 5.2 has 400 and 401 for refusals; some of its codes, and some of other documents, say "not now".
fn meaning(status: u16, code: Option<&str>, asked: Duration) -> Meaning {
    match (status, code) {
        (200..=399, _) => Meaning::Answered,
        (408 | 425 | 429 | 500..=599, _)
        | (_, Some("temporarily_unavailable" | "server_error" | "slow_down")) => Meaning::Again(asked),
        _ => Meaning::Refused,
    }
}

/// The member `error` of a JSON answer, if it is a code and not a text.
fn code(body: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let code = answer.get("error")?.as_str()?;
    let word = |byte: u8| byte.is_ascii_alphabetic() || b"_-.".contains(&byte);
    // A digit is in nearly every secret and in no registered code.
    (!code.is_empty() && code.len() <= CODE_BYTES_MAX && code.bytes().all(word)).then(|| code.to_owned())
}

fn hint(code: Option<&str>, status: u16) -> &'static str {
    match (code, status) {
        (Some("invalid_client"), _) | (None, 401) => {
            "the endpoint does not know the client: check its id and secret, and whether they belong into the body or \
             into basic authentication (client_auth)"
        }
        (Some("invalid_grant"), _) => {
            "the refresh token, user or assertion is no longer accepted: authorize again, put the new one where the \
             project file points, and run again"
        }
        (Some("invalid_scope"), _) => "the endpoint does not grant these scopes: check scopes",
        (Some("unauthorized_client" | "unsupported_grant_type"), _) => {
            "the client may not use this kind of grant: check type"
        }
        (_, 300..=399) => {
            "the endpoint redirects, which is never followed with credentials: write its final URL"
        }
        (_, 404) => "there is no token endpoint at this URL",
        _ => "check the settings of auth against the API's documentation",
    }
}

/// Scheme, host, port and path of `url`: what may be written down.
fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f065_refusals_are_final_and_failures_pass() {
        let no = Duration::ZERO;
        let table = [
            (200, None, Meaning::Answered),
            (302, None, Meaning::Answered),
            (400, Some("invalid_grant"), Meaning::Refused),
            (400, None, Meaning::Refused),
            (401, Some("invalid_client"), Meaning::Refused),
            (403, None, Meaning::Refused),
            (404, None, Meaning::Refused),
            (400, Some("temporarily_unavailable"), Meaning::Again(no)),
            (408, None, Meaning::Again(no)),
            (429, Some("invalid_grant"), Meaning::Again(no)),
            (500, None, Meaning::Again(no)),
            (503, Some("invalid_grant"), Meaning::Again(no)),
        ];
        for (status, code, expected) in table {
            assert_eq!(meaning(status, code, no), expected, "{status} {code:?}");
        }
    }

    #[test]
    fn r054_only_words_are_repeated_from_an_answer() {
        let table = [
            (r#"{"error": "invalid_grant"}"#, Some("invalid_grant")),
            (r#"{"error": "s3cr3t"}"#, None),
            (r#"{"error": "no such user"}"#, None),
            (r#"{"error": {"code": 7}}"#, None),
            (r#"{"error": ""}"#, None),
            ("<html>", None),
        ];
        for (body, expected) in table {
            assert_eq!(code(body.as_bytes()).as_deref(), expected, "{body}");
        }
        let url = Url::parse("https://me:pw@id.example:8443/token?key=1#x").unwrap();
        assert_eq!(shown(&url), "https://id.example:8443/token");
    }
}
