//! The one place that sends.

use std::{
    error::Error as StdError,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use reqwest::{
    Method as HttpMethod, Version,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, TRANSFER_ENCODING},
};
use url::Url;

use crate::{
    config::{Limits, Source, Stream, auth::Tls, request::Method},
    error::{Error, ErrorKind, Result},
    extract::{
        auth::tls,
        decode::{self, Coding, Uncopied, Undecoded},
        download::{Download, Overflow},
        request::Prepared,
        retry::FailureKind,
        spool::{Intake, Spool, Taken},
        wire::Wire,
    },
    format::part::Streamed,
};

/// Sent as `User-Agent` unless the project says otherwise.
const USER_AGENT: &str = concat!("landfall/", env!("CARGO_PKG_VERSION"));

/// Connections kept open to a source between requests.
const IDLE_CONNECTIONS_MAX: usize = 8;

/// Kept open no longer than this; servers close theirs after about a minute.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A file may take this long; it is the time between two reads that tells a dead connection.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(12 * 3600);

/// Most bytes for which room is made before they come, whatever length a server announces.
const RESERVED_BYTES_MAX: u64 = 16 << 20;

/// Read of an answer that is not wanted whole, in bytes before and after decoding: enough for what it says of the error.
pub const EXCERPT_BYTES_MAX: u64 = 256 * 1024;

/// Sends the requests of one source.
///
/// Follows no redirect, decodes nothing by itself, repeats nothing, asks no proxy: each of these is decided elsewhere or not at all.
pub struct Client {
    http: reqwest::Client,
    /// Without our certificate, for hosts that are not the source's own; none if there are no such hosts.
    bare: Option<reqwest::Client>,
    limits: Limits,
    /// Where bodies too large for memory are kept while they are landed.
    spool_dir: PathBuf,
}

/// Who a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// The source.
    Source,
    /// A host that is listed beside it: it gets no credential of ours.
    Other,
}

/// An answer without its body.
#[derive(Clone, Debug)]
pub struct Head {
    /// HTTP status.
    pub status: u16,
    /// Every header.
    pub headers: HeaderMap,
    /// The URL that answered. It may hold secrets: mask it before it is written down.
    pub url: Url,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status, headers, URL.
    pub head: Head,
    /// The decoded body; of an answer that was not wanted whole what could be had of its first
    /// [`EXCERPT_BYTES_MAX`]; of one that is in a file what [`Taken::body`] says.
    pub body: Bytes,
    /// The body, if it is too large for memory.
    pub spool: Option<Arc<Spool>>,
    /// Bytes of the body as it came.
    pub wire_bytes: u64,
    /// How the end of the body was told.
    pub framing: Framing,
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By its length or by chunks: a cut body is noticed.
    Told,
    /// By the end of the connection, as in HTTP/1.0: only the body itself can tell whether it is whole.
    Close,
}

/// Why there is no whole answer.
#[derive(Debug)]
pub struct Failure {
    /// What it means for a retry.
    pub kind: FailureKind,
    /// What happened. Holds no URL.
    pub error: Error,
}

impl Client {
    /// A client with the timeouts and limits of `source`, which keeps large bodies in `spool_dir`.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the machine has no certificates to trust and the source needs them;
    /// [`ErrorKind::Config`] if one of its own cannot be read.
    pub fn new(source: &Source, spool_dir: &Path) -> Result<Self> {
        let mut bases = std::iter::once(&source.base_url).chain(&source.replicas);
        let http = if bases.all(|base| base.scheme() == "http") {
            // Such a source never speaks TLS, and a machine without certificates may still use it.
            builder(source).tls_certs_only([])
        } else {
            tls::configure(builder(source), &source.tls)?
        };
        let without_identity = Tls {
            client_cert: None,
            client_key: None,
            ca: source.tls.ca.clone(),
        };
        let bare = match source.streams.iter().any(Stream::leaves_source) {
            true => Some(built(
                source,
                tls::configure(builder(source), &without_identity)?,
            )?),
            false => None,
        };
        Ok(Self {
            http: built(source, http)?,
            bare,
            limits: source.limits,
            spool_dir: spool_dir.to_owned(),
        })
    }

    /// Sends `prepared` once and reads the answer to its end if it is 2xx or its status is `wanted`, else its beginning.
    ///
    /// A large body of records that stand like `streamed` goes to a file. An `Err` says that there was no whole answer
    /// where a whole one was needed; any other answer is `Ok`.
    pub async fn send(
        &self,
        prepared: Prepared,
        party: Party,
        wanted: impl Fn(u16) -> bool,
        streamed: Option<&Streamed>,
    ) -> Result<Response, Failure> {
        let response = self.request(prepared, party).send().await.map_err(failure)?;
        self.answer(response, wanted, streamed).await
    }

    /// Sends `prepared` once and writes the body of a 2xx answer to `download` as it comes, content coding and all. Other
    /// answers are those of [`Self::send`].
    pub async fn download(
        &self,
        mut prepared: Prepared,
        party: Party,
        download: &mut Download,
    ) -> Result<Response, Failure> {
        let as_it_is = HeaderValue::from_static("identity");
        prepared.headers.insert(ACCEPT_ENCODING, as_it_is);
        let request = self.request(prepared, party).timeout(DOWNLOAD_TIMEOUT);
        let mut response = request.send().await.map_err(failure)?;
        if !response.status().is_success() {
            return self.answer(response, |_| false, None).await;
        }
        let head = head(&response);
        let framing = framing(response.version(), response.content_length(), &head.headers);
        let bytes_max = download.bytes_max();
        let full = |overflow| overflown(overflow, bytes_max);
        if response.content_length().is_some_and(|length| length > bytes_max) {
            return Err(full(Overflow::TooLarge));
        }
        let cleared = download.clear().await;
        cleared.map_err(|cause| full(Overflow::Disk(cause)))?;
        // Ends at `bytes_max` at the latest.
        while let Some(chunk) = response.chunk().await.map_err(failure)? {
            download.take(&chunk).await.map_err(full)?;
        }
        Ok(Response {
            head,
            body: Bytes::new(),
            spool: None,
            wire_bytes: download.bytes(),
            framing,
        })
    }

    /// Where bodies too large for memory are kept on their way.
    pub fn spool_dir(&self) -> &Path {
        &self.spool_dir
    }

    async fn answer(
        &self,
        response: reqwest::Response,
        wanted: impl Fn(u16) -> bool,
        streamed: Option<&Streamed>,
    ) -> Result<Response, Failure> {
        let head = head(&response);
        let framing = framing(response.version(), response.content_length(), &head.headers);
        let codings = head
            .headers
            .get_all(CONTENT_ENCODING)
            .iter()
            .map(|value| value.to_str().unwrap_or("unreadable"));
        let coding = Coding::of(codings);
        let no_content = head.status == 204 || head.status == 205;
        let (taken, wire_bytes) = if response.status().is_success() || wanted(head.status) {
            match (coding, streamed.filter(|_| !no_content)) {
                (Ok(coding), Some(streamed)) => self.take(response, coding, streamed).await?,
                (coding, _) => {
                    let encoded = self.read(response).await?;
                    let wire_bytes = encoded.len() as u64;
                    let body = match coding.map_err(undecoded)? {
                        Coding::Gzip | Coding::Zstd if no_content => encoded,
                        coding => self.decode(coding, encoded).await?,
                    };
                    (held(body), wire_bytes)
                }
            }
        } else {
            let encoded = beginning(response).await;
            let wire_bytes = encoded.len() as u64;
            let limits = Limits {
                page_bytes_max: EXCERPT_BYTES_MAX,
                ..self.limits
            };
            // Only a help to whoever reads the error: what cannot be decoded is left out.
            let body = coding.and_then(|coding| decode::decode(coding, encoded, &limits));
            (held(body.unwrap_or_default()), wire_bytes)
        };
        Ok(Response {
            head,
            body: taken.body,
            spool: taken.spool,
            wire_bytes,
            framing,
        })
    }

    fn request(&self, prepared: Prepared, party: Party) -> reqwest::RequestBuilder {
        let http = match (party, &self.bare) {
            (Party::Other, Some(bare)) => bare,
            _ => &self.http,
        };
        let method = match prepared.method {
            Method::Get => HttpMethod::GET,
            Method::Post => HttpMethod::POST,
            Method::Put => HttpMethod::PUT,
            Method::Patch => HttpMethod::PATCH,
            Method::Delete => HttpMethod::DELETE,
        };
        let builder = http.request(method, prepared.url).headers(prepared.headers);
        match prepared.body.to_bytes() {
            Some(body) => builder.body(body),
            None => builder,
        }
    }

    /// Reads a body that has to be held as a whole.
    async fn read(&self, mut response: reqwest::Response) -> Result<Bytes, Failure> {
        let limits = self.to_hold();
        let mut body = BytesMut::new();
        let whole = gather(&mut response, &mut body, limits.page_bytes_max).await?;
        if !whole {
            let page_bytes_max = limits.page_bytes_max;
            let mut failure = undecoded(Undecoded::TooLarge { page_bytes_max });
            if page_bytes_max < self.limits.page_bytes_max {
                let hint =
                    "a body larger than memory must be JSON Lines, or JSON with its records in one array";
                failure.error = failure.error.with("hint", hint);
            }
            return Err(failure);
        }
        Ok(body.freeze())
    }

    async fn decode(&self, coding: Coding, encoded: Bytes) -> Result<Bytes, Failure> {
        let limits = self.to_hold();
        if coding == Coding::Identity {
            return decode::decode(coding, encoded, &limits).map_err(undecoded);
        }
        let decoded = tokio::task::spawn_blocking(move || decode::decode(coding, encoded, &limits)).await;
        decoded.map_err(broken_task)?.map_err(undecoded)
    }

    /// The limits of a body that has to be held as a whole.
    fn to_hold(&self) -> Limits {
        Limits {
            page_bytes_max: self.limits.page_bytes_max.min(self.limits.held_bytes_max),
            ..self.limits
        }
    }

    /// Reads a body that may go to a file.
    async fn take(
        &self,
        mut response: reqwest::Response,
        coding: Coding,
        streamed: &Streamed,
    ) -> Result<(Taken, u64), Failure> {
        let limits = self.limits;
        let page_bytes_max = limits.page_bytes_max;
        let declared = response.content_length();
        let mut prefix = BytesMut::new();
        let most = page_bytes_max.min(limits.part_bytes);
        let whole = gather(&mut response, &mut prefix, most).await?;
        if prefix.len() as u64 > page_bytes_max || declared.is_some_and(|length| length > page_bytes_max) {
            return Err(undecoded(Undecoded::TooLarge { page_bytes_max }));
        }
        let mut wire_bytes = prefix.len() as u64;
        let intake = Intake::new(streamed.clone(), &self.spool_dir, &limits);
        let prefix = prefix.freeze();
        if whole {
            let taken = match coding {
                Coding::Identity => held(prefix),
                _ if prefix.is_empty() => held(decode::decode(coding, prefix, &limits).map_err(undecoded)?),
                _ => {
                    let work = move || copy(coding, &prefix[..], &limits, &|| wire_bytes, intake);
                    let done = tokio::task::spawn_blocking(work).await;
                    done.map_err(broken_task)??
                }
            };
            return Ok((taken, wire_bytes));
        }
        let (sender, wire) = Wire::new(prefix, declared);
        let work = tokio::task::spawn_blocking(move || {
            let encoded = wire.length();
            copy(coding, wire, &limits, &|| encoded.get(), intake)
        });
        // Ends at `page_bytes_max` at the latest.
        let ended = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    wire_bytes += chunk.len() as u64;
                    if wire_bytes > page_bytes_max {
                        break Err(undecoded(Undecoded::TooLarge { page_bytes_max }));
                    }
                    if sender.send(chunk).await.is_err() {
                        // The work has ended before the body; it says why.
                        break Ok(());
                    }
                }
                Ok(None) => break Ok(()),
                Err(cause) => break Err(failure(cause)),
            }
        };
        drop(sender);
        let done = work.await.map_err(broken_task)?;
        ended?;
        Ok((done?, wire_bytes))
    }
}

impl Response {
    /// Length of the decoded body, wherever it is.
    pub fn bytes(&self) -> u64 {
        match &self.spool {
            Some(spool) => spool.bytes,
            None => self.body.len() as u64,
        }
    }

    /// Whether the body ends with a newline.
    pub fn ends_with_newline(&self) -> bool {
        match &self.spool {
            Some(spool) => spool.ends_with_newline,
            None => self.body.ends_with(b"\n"),
        }
    }
}

fn builder(source: &Source) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .connect_timeout(source.timeouts.connect)
        .read_timeout(source.timeouts.read)
        .timeout(source.timeouts.total)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .pool_idle_timeout(IDLE_TIMEOUT)
}

fn built(source: &Source, builder: reqwest::ClientBuilder) -> Result<reqwest::Client> {
    builder.build().map_err(|cause| {
        Error::new(ErrorKind::Unavailable, "build HTTP client")
            .with("source", &source.name)
            .caused_by(cause.without_url())
    })
}

fn head(response: &reqwest::Response) -> Head {
    Head {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        url: response.url().clone(),
    }
}

fn held(body: Bytes) -> Taken {
    Taken { body, spool: None }
}

/// Appends the next chunks of a body until there are more than `most` bytes; false if it did not end before.
async fn gather(response: &mut reqwest::Response, body: &mut BytesMut, most: u64) -> Result<bool, Failure> {
    // Nothing is read of a body that says it is too long.
    if response.content_length().is_some_and(|length| length > most) && body.is_empty() {
        return Ok(false);
    }
    // What is reserved and does not come costs addresses, not memory.
    let length = response
        .content_length()
        .filter(|_| body.is_empty())
        .unwrap_or_default();
    body.reserve(usize::try_from(length.min(RESERVED_BYTES_MAX)).unwrap_or_default());
    // Ends at `most` at the latest.
    while body.len() as u64 <= most {
        match response.chunk().await.map_err(failure)? {
            Some(chunk) => body.extend_from_slice(&chunk),
            None => return Ok(true),
        }
    }
    Ok(false)
}

/// Decodes a body into `intake`.
fn copy(
    coding: Coding,
    body: impl std::io::BufRead,
    limits: &Limits,
    encoded: &dyn Fn() -> u64,
    mut intake: Intake,
) -> Result<Taken, Failure> {
    decode::copy(coding, body, limits, encoded, &mut |bytes| intake.take(bytes)).map_err(
        |cause| match cause {
            Uncopied::Undecoded(cause) => undecoded(cause),
            Uncopied::Untaken(error) => Failure {
                kind: FailureKind::Unsent(error.kind()),
                error,
            },
        },
    )?;
    Ok(intake.finish())
}

/// The first [`EXCERPT_BYTES_MAX`] of a body, or as much of them as comes.
async fn beginning(mut response: reqwest::Response) -> Bytes {
    let most = usize::try_from(EXCERPT_BYTES_MAX).unwrap_or(usize::MAX);
    let mut body = BytesMut::new();
    // Ends at `EXCERPT_BYTES_MAX` at the latest.
    while body.len() < most
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(&chunk[..chunk.len().min(most - body.len())]);
    }
    body.freeze()
}

/// From HTTP/2 on frames tell the end, with or without a length.
fn framing(version: Version, length: Option<u64>, headers: &HeaderMap) -> Framing {
    if length.is_some() || headers.contains_key(TRANSFER_ENCODING) || version >= Version::HTTP_2 {
        Framing::Told
    } else {
        Framing::Close
    }
}

fn failure(cause: reqwest::Error) -> Failure {
    let cause = cause.without_url();
    let kind = kind_of(&cause);
    let (meaning, attempt) = match kind {
        FailureKind::Tls => (ErrorKind::Refused, "trust the server"),
        FailureKind::Timeout => (ErrorKind::Unavailable, "wait for the server"),
        FailureKind::Connect => (ErrorKind::Unavailable, "connect to the server"),
        FailureKind::Config => (ErrorKind::Config, "build request"),
        FailureKind::Cut | FailureKind::TooLarge | FailureKind::Unsafe | FailureKind::Unsent(_) => {
            (ErrorKind::Unavailable, "read the body to its end")
        }
    };
    Failure {
        kind,
        error: Error::new(meaning, attempt).caused_by(cause),
    }
}

fn kind_of(cause: &reqwest::Error) -> FailureKind {
    if is_tls(cause) {
        FailureKind::Tls
    } else if cause.is_timeout() {
        FailureKind::Timeout
    } else if cause.is_builder() {
        FailureKind::Config
    } else if cause.is_body() || cause.is_decode() {
        FailureKind::Cut
    } else {
        FailureKind::Connect
    }
}

/// Whether the TLS library objected. Its error type is not ours to name, its words are stable.
pub(crate) fn is_tls(cause: &(dyn StdError + 'static)) -> bool {
    const WORDS: [&str; 6] = [
        "invalid peer certificate",
        "received corrupt message",
        "received fatal alert",
        "peer is incompatible",
        "peer misbehaved",
        "certificate not valid",
    ];
    let mut next = Some(cause);
    while let Some(error) = next {
        let text = error.to_string();
        if WORDS.iter().any(|word| text.contains(word)) {
            return true;
        }
        next = error.source();
    }
    false
}

fn undecoded(cause: Undecoded) -> Failure {
    let (kind, meaning) = match cause {
        Undecoded::Unknown { .. } => (FailureKind::Unsafe, ErrorKind::Refused),
        Undecoded::Broken { .. } => (FailureKind::Cut, ErrorKind::Unavailable),
        Undecoded::TooLarge { .. } | Undecoded::TooDense { .. } => (FailureKind::TooLarge, ErrorKind::Limit),
    };
    Failure {
        kind,
        error: Error::new(meaning, "decode body").caused_by(cause),
    }
}

fn overflown(overflow: Overflow, bytes_max: u64) -> Failure {
    match overflow {
        Overflow::TooLarge => Failure {
            kind: FailureKind::TooLarge,
            error: Error::new(ErrorKind::Limit, "keep file").with("bytes_max", bytes_max),
        },
        Overflow::Disk(cause) => Failure {
            kind: FailureKind::Unsent(ErrorKind::Unavailable),
            error: Error::new(ErrorKind::Unavailable, "write file to disk").caused_by(cause),
        },
    }
}

fn broken_task(cause: tokio::task::JoinError) -> Failure {
    Failure {
        kind: FailureKind::Cut,
        error: Error::new(ErrorKind::Internal, "decode body").caused_by(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f036_only_http_1_tells_the_end_of_a_body_by_closing() {
        let plain = HeaderMap::new();
        let chunked = HeaderMap::from_iter([(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))]);
        let table = [
            (Version::HTTP_10, None, &plain, Framing::Close),
            (Version::HTTP_11, None, &plain, Framing::Close),
            (Version::HTTP_11, Some(0), &plain, Framing::Told),
            (Version::HTTP_11, None, &chunked, Framing::Told),
            (Version::HTTP_2, None, &plain, Framing::Told),
            (Version::HTTP_3, None, &plain, Framing::Told),
        ];
        for (version, length, headers, expected) in table {
            assert_eq!(
                framing(version, length, headers),
                expected,
                "{version:?} {length:?}"
            );
        }
    }
}
