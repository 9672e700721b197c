//! The client: one server, its credential, and how patient it is with it.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use reqwest::{Method, Url};
use serde::Deserialize;

use crate::{
    clock::Clock,
    error::{Error, ErrorKind, Result},
    push::{
        batch::{Batch, BatchLimits},
        coding::Coding,
        exchange::{Answered, Request},
        key::{Place, key},
        retry::Retry,
        sent::{Problem, Sent},
        signature::Signature,
        target::Target,
    },
};

/// What requests call us.
const USER_AGENT: &str = concat!("landfall-push/", env!("CARGO_PKG_VERSION"));

/// How often records that the server says it may take later are sent again, each time as a batch of their own.
const ROUNDS_MAX: u32 = 5;

/// Who the client is to the server.
#[derive(Clone)]
pub enum Credential {
    /// Nobody: of a server that asks nobody.
    None,
    /// A bearer token, asked for before each attempt, so that a rotated one counts at once.
    Token(Arc<dyn Fn() -> Result<String> + Send + Sync>),
}

impl Credential {
    /// A token that stays the same.
    pub fn of(token: impl Into<String>) -> Self {
        let token = token.into();
        Self::Token(Arc::new(move || Ok(token.clone())))
    }

    pub(super) fn token(&self) -> Result<Option<String>> {
        match self {
            Self::None => Ok(None),
            Self::Token(token) => token().map(Some),
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Token(_) => "Token(****)",
        })
    }
}

/// Which records of a batch count when some are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The others are kept.
    Partial,
    /// None is.
    Atomic,
}

impl Mode {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Partial => "partial",
            Self::Atomic => "atomic",
        }
    }
}

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the server is: what its `public_url` says.
    pub url: String,
    /// Who the client is.
    pub credential: Credential,
    /// How bodies are packed.
    pub coding: Coding,
    /// How bodies are signed, if they are.
    pub signature: Option<Signature>,
    /// How often a request is sent again.
    pub retry: Retry,
    /// Longest time for one attempt.
    pub request_timeout: Duration,
    /// Longest time for one request with all its attempts and waits.
    pub deadline: Duration,
    /// Tells the time.
    pub clock: Clock,
}

impl Options {
    /// Zstandard, no signature, 60 s for an attempt and 10 minutes for all.
    pub fn usual(url: impl Into<String>, credential: Credential) -> Self {
        Self {
            url: url.into(),
            credential,
            coding: Coding::Zstd,
            signature: None,
            retry: Retry::USUAL,
            request_timeout: Duration::from_secs(60),
            deadline: Duration::from_secs(10 * 60),
            clock: Clock::system(),
        }
    }
}

/// A client of one server. Clones share their connections.
///
/// ```no_run
/// use landfall::push::{batch::{BatchLimits, Batcher, Form}, client::{Client, Credential, Mode, Options}, key::Place};
/// # async fn send() -> Result<(), landfall::error::Error> {
/// let client = Client::new(Options::usual("https://ingest.example", Credential::of("lf_…")))?;
/// let mut batcher = Batcher::new(Form::Lines, BatchLimits::USUAL);
/// batcher.put(br#"{"id":1}"#);
/// let place = Place { origin: "till-7/2026-11-22", number: 0 };
/// let sent = client.send(&"shop.orders".parse()?, place, &batcher.take(), Mode::Partial).await?;
/// assert_eq!(sent.accepted, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    http: reqwest::Client,
    base: Url,
    options: Options,
}

/// What the catalog says of a stream.
#[derive(Deserialize)]
struct Described {
    limits: BTreeMap<String, u64>,
    contract: Option<Standard>,
}

/// Whether records are held to their contract, as the catalog and a channel say it.
#[derive(Deserialize)]
struct Standard {
    on_violation: String,
}

/// How large what is sent to a stream may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Of a batch.
    pub batch: BatchLimits,
    /// Largest record, in bytes.
    pub record_bytes_max: usize,
    /// Most records of a batch where the server rejects those that do not fit the contract: as many as its answer names, so
    /// that each can be kept on this side. None where it takes them.
    pub rejected_max: Option<u64>,
}

impl Client {
    /// A client with these options. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a URL that is none, [`ErrorKind::Unavailable`] if the machine's TLS cannot be used.
    pub fn new(options: Options) -> Result<Self> {
        let wrong = |cause: String| {
            Error::new(ErrorKind::Config, "read URL of server")
                .with("url", &options.url)
                .with("problem", cause)
        };
        let mut base = Url::parse(&options.url).map_err(|source| wrong(source.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(wrong("it is neither http:// nor https://".to_owned()));
        }
        if !base.username().is_empty() || base.password().is_some() {
            // Not repeated: it holds a password.
            return Err(Error::new(ErrorKind::Config, "read URL of server")
                .with("problem", "it holds a user or a password")
                .with("hint", "give a token by ${env:NAME} or ${file:PATH}"));
        }
        if !base.path().ends_with('/') {
            let path = format!("{}/", base.path());
            base.set_path(&path);
        }
        let http = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .build()
            .map_err(|source| Error::new(ErrorKind::Unavailable, "build HTTP client").caused_by(source))?;
        Ok(Self(Arc::new(Inner { http, base, options })))
    }

    /// Sends `batch` and has it kept once, however often this is called for the same batch at the same place within the time
    /// that the server remembers keys (24 hours).
    ///
    /// Records that the server says it may take later are sent again by themselves, some times.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`], [`ErrorKind::Conflict`] or [`ErrorKind::Limit`] if the server refuses the request as such;
    /// [`ErrorKind::Unavailable`] when the deadline has passed: whether it was kept is not known then, and sending it again
    /// is safe.
    pub async fn send(&self, target: &Target, place: Place<'_>, batch: &Batch, mode: Mode) -> Result<Sent> {
        let key_of = |batch: &Batch| key(target, place, batch.body());
        let mut sent = self.send_once(target, key_of(batch), batch, mode).await?;
        for round in 1..=ROUNDS_MAX {
            let again: Vec<usize> = sent
                .refused
                .iter()
                .filter(|refused| refused.is_to_be_sent_again())
                .map(|refused| refused.index)
                .collect();
            if again.is_empty() {
                break;
            }
            let rest = batch.some(&again);
            self.backoff(round).await;
            let more = self.send_once(target, key_of(&rest), &rest, mode).await?;
            sent.refused.retain(|refused| !refused.is_to_be_sent_again());
            sent.refused.extend(more.refused.into_iter().map(|mut refused| {
                refused.index = again[refused.index];
                refused
            }));
            sent.accepted += more.accepted;
            sent.unnamed += more.unnamed;
            sent.attempts += more.attempts;
        }
        sent.refused.sort_by_key(|refused| refused.index);
        Ok(sent)
    }

    async fn send_once(&self, target: &Target, key: String, batch: &Batch, mode: Mode) -> Result<Sent> {
        let mut url = self.url(&format!("{}/records", target.path()))?;
        url.query_pairs_mut().append_pair("mode", mode.as_str());
        let answered = self.post(url, batch, &key, Some(key.clone())).await?;
        self.taken(&answered, batch, mode)
    }

    /// Sends one event to the webhook of a stream, signed if the options say how. `id` names it on every attempt.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn send_event(&self, target: &Target, id: &str, body: Bytes) -> Result<Sent> {
        let request = Request {
            method: Method::POST,
            url: self.url(&target.webhook_path())?,
            content_type: Some("application/json"),
            body,
            // Signatures of webhooks are over bodies as they are.
            coding: Coding::Identity,
            key: None,
            signed: Some(id.to_owned()),
        };
        self.exchange(&request).await?.sent(1)
    }

    /// How large what is sent to `target` may be, as far as the server tells; else what is usual.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when the deadline has passed.
    pub async fn limits(&self, target: &Target) -> Result<StreamLimits> {
        let answered = self.ask(Method::GET, self.url(&target.path())?).await?;
        // Who may send need not be allowed to read.
        let described: Option<Described> = match answered.status {
            200 => serde_json::from_slice(&answered.body).ok(),
            _ => None,
        };
        Ok(described.map_or(StreamLimits::USUAL, |described| {
            let standard = described.contract.map(|standard| standard.on_violation);
            StreamLimits::of(&described.limits, standard.as_deref())
        }))
    }

    /// Sends a batch as a body, called `id` where it is signed.
    pub(super) async fn post(
        &self,
        url: Url,
        batch: &Batch,
        id: &str,
        key: Option<String>,
    ) -> Result<Answered> {
        let (coding, body) = (self.0.options.coding, batch.body().clone());
        // Packing takes milliseconds.
        let packed = tokio::task::spawn_blocking(move || coding.pack(&body)).await;
        let (body, coding) =
            packed.map_err(|source| Error::new(ErrorKind::Internal, "pack body").caused_by(source))??;
        let request = Request {
            method: Method::POST,
            url,
            content_type: Some(batch.content_type()),
            body,
            coding,
            signed: Some(id.to_owned()),
            key,
        };
        self.exchange(&request).await
    }

    /// Asks for something without a body.
    pub(super) async fn ask(&self, method: Method, url: Url) -> Result<Answered> {
        let request = Request {
            method,
            url,
            content_type: None,
            body: Bytes::new(),
            coding: Coding::Identity,
            key: None,
            signed: None,
        };
        self.exchange(&request).await
    }

    /// What an answer to `batch` says of its records.
    pub(super) fn taken(&self, answered: &Answered, batch: &Batch, mode: Mode) -> Result<Sent> {
        let problem = Problem::of(&answered.headers, &answered.body);
        if mode == Mode::Partial && problem.is_of_records() {
            return Ok(problem.refuses(batch.len(), answered.attempts));
        }
        answered.sent(batch.len())
    }

    pub(super) fn url(&self, path: &str) -> Result<Url> {
        self.0
            .base
            .join(path)
            .map_err(|source| Error::new(ErrorKind::Internal, "make URL").caused_by(source))
    }

    pub(super) fn http(&self) -> &reqwest::Client {
        &self.0.http
    }

    pub(super) fn options(&self) -> &Options {
        &self.0.options
    }
}

impl StreamLimits {
    /// [`BatchLimits::USUAL`] with records of up to 1 MiB.
    pub const USUAL: Self = Self {
        batch: BatchLimits::USUAL,
        record_bytes_max: 1 << 20,
        rejected_max: None,
    };

    /// What is usual, or less if the server says so; records as it says.
    pub(super) fn of(told: &BTreeMap<String, u64>, on_violation: Option<&str>) -> Self {
        let usual = Self::USUAL;
        let rejected_max = told.get("results_max").filter(|_| on_violation == Some("reject"));
        let bytes = |name: &str| told.get(name).and_then(|told| usize::try_from(*told).ok());
        let (records, body) = (told.get("records_max"), bytes("bytes_max"));
        Self {
            batch: BatchLimits {
                records_max: records
                    .map_or(usual.batch.records_max, |told| usual.batch.records_max.min(*told)),
                bytes_max: body.map_or(usual.batch.bytes_max, |told| usual.batch.bytes_max.min(told)),
            },
            record_bytes_max: bytes("record_bytes_max").unwrap_or(usual.record_bytes_max),
            rejected_max: rejected_max.copied(),
        }
    }
}
