//! A file from where it is to the local disk: from nowhere but what is allowed, never more than was announced, and of one state.

use std::{error::Error as StdError, fmt, io::SeekFrom, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use object_store::{Error as StoreError, GetOptions, GetRange, ObjectStore, path::Path};
use reqwest::{
    Client, Response, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    header,
    redirect::Policy,
};
use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncSeekExt as _, AsyncWriteExt as _},
    net::lookup_host,
    time::{Instant, sleep, timeout, timeout_at},
};
use url::Url;

use crate::{
    config::{Lake, uploads::Reference},
    error::{Error, ErrorKind},
    failpoint,
    raw::store,
    receive::uploads::job::{Job, State},
    serve::{
        app::App,
        problem::code::Code,
        shutdown::Shutdown,
        uploads::{addresses::is_public, halt::Halt, land::aside},
    },
};

/// Sent as `User-Agent`.
const USER_AGENT: &str = concat!("landfall/", env!("CARGO_PKG_VERSION"));

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest pause in an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest that an answer may take to begin, with what the client of a store tries again by itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// How long an answer may be behind its least rate.
const RATE_GRACE: Duration = Duration::from_secs(60);

/// Least mean rate of an answer, in bytes per second: whoever sends slower holds up others.
const BYTES_PER_SECOND_MIN: u64 = 128 << 10;

/// Times in a row that a file is asked for without getting further, each time from where the last ended.
const TRIES_MAX: u32 = 6;

/// How many bytes further is further: by fewer at a time a file would be asked for without end.
const FURTHER_BYTES: u64 = 1 << 20;

/// The wait before the second; doubles each time.
const BACKOFF_START: Duration = Duration::from_millis(500);

/// What is fetched is made durable after so many bytes, so that a crash costs no more.
const SYNC_BYTES: u64 = 32 << 20;

/// Where a file is.
enum Source {
    /// On a server that speaks HTTP.
    Web { client: Client, url: Url },
    /// In an object store.
    Store { store: Arc<dyn ObjectStore>, key: Path },
}

/// A file that is being sent by its server.
struct Sent {
    /// Where in it that begins.
    begin: u64,
    /// How large it is, if that is told.
    bytes: Option<u64>,
    /// What its server calls this state of it.
    etag: Option<String>,
    body: BoxStream<'static, Result<Bytes, Failed>>,
}

/// Why an attempt failed.
enum Failed {
    /// It may succeed the next time.
    Again(String),
    /// As that, however much it brought.
    Slow,
    /// It will not.
    Halt(Halt),
}

impl From<Halt> for Failed {
    fn from(halt: Halt) -> Self {
        Self::Halt(halt)
    }
}

/// Fetches the file of `job`; all its bytes are durable when this returns.
///
/// # Errors
/// The end of the job, if the file cannot be had or is not the one that was announced.
pub(super) async fn fetch(app: &App, job: &Job, stop: &Shutdown) -> Result<(), Halt> {
    if job.offset == job.bytes {
        return Ok(());
    }
    let url = job.url.as_deref().unwrap_or_default();
    // What counts is what is allowed now.
    let reference = app.serve.uploads.reference(url);
    let reference = reference.map_err(|why| Halt::trouble(Code::UrlNotAllowed, why))?;
    let source = Source::open(app, &reference)?;
    let (jobs, id) = (app.jobs.clone(), job.id);
    aside(move || Ok(jobs.change(id, |job| job.state = State::Fetching)?)).await?;
    let mut tries = Tries {
        failed: 0,
        reached: job.offset,
    };
    // Ends with the file, or with tries that bring it no further.
    loop {
        let Some(job) = app.jobs.get(id) else {
            return Err(Halt::Broken(Error::new(
                ErrorKind::Unavailable,
                "find upload job",
            )));
        };
        let (detail, offset) = match source.attempt(app, &job, stop).await {
            Ok(()) => return Ok(()),
            Err(Failed::Halt(halt)) => return Err(halt),
            Err(Failed::Again(detail)) => (detail, app.jobs.get(id).map_or(0, |job| job.offset)),
            Err(Failed::Slow) => ("the server sends too slowly".to_owned(), 0),
        };
        tracing::debug!(job = %id, detail, "file not fetched");
        let Some(backoff) = tries.again(offset) else {
            return Err(Halt::trouble(Code::FileUnavailable, detail));
        };
        tokio::select! {
            () = stop.stopping() => return Err(Halt::Stopped),
            () = sleep(backoff) => {}
        }
    }
}

/// How often a file was asked for without getting further.
struct Tries {
    failed: u32,
    /// How far it was when it last got further.
    reached: u64,
}

impl Tries {
    /// The wait before the next one, behind one that ended at `offset`; none if it was the last.
    fn again(&mut self, offset: u64) -> Option<Duration> {
        if offset >= self.reached.saturating_add(FURTHER_BYTES) {
            *self = Self {
                failed: 0,
                reached: offset,
            };
        }
        let backoff = BACKOFF_START * (1 << self.failed);
        self.failed += 1;
        (self.failed < TRIES_MAX).then_some(backoff)
    }
}

/// When the next bytes of an answer must be there, if `received` came since it `began`, the last of them at `last`.
fn due(began: Instant, last: Instant, received: u64) -> Instant {
    let earned = Duration::from_secs(received / BYTES_PER_SECOND_MIN);
    (last + READ_TIMEOUT).min(began + RATE_GRACE + earned)
}

impl Source {
    fn open(app: &App, reference: &Reference) -> Result<Self, Halt> {
        let url = reference.url();
        if url.scheme() == "s3" {
            let bucket = format!("s3://{}", url.host_str().unwrap_or_default());
            let bucket = Url::parse(&bucket)
                .map_err(|source| Error::new(ErrorKind::Internal, "name bucket").caused_by(source))?;
            let lake = Lake {
                url: bucket,
                storage: app.project.lake.storage.clone(),
            };
            let key = Path::from_url_path(url.path());
            let key =
                key.map_err(|_| Halt::trouble(Code::UrlNotAllowed, "the address names no key of an object"))?;
            let store = store::open_files(&lake)?;
            return Ok(Self::Store { store, key });
        }
        let builder = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .dns_resolver(Arc::new(Public));
        // Without TLS a machine that trusts nobody may still ask others.
        let builder = match url.scheme() {
            "http" => builder.tls_certs_only([]),
            _ => builder,
        };
        let client = builder.build().map_err(|source| {
            Error::new(ErrorKind::Unavailable, "prepare to fetch file").caused_by(source.without_url())
        })?;
        Ok(Self::Web {
            client,
            url: url.clone(),
        })
    }

    /// Fetches what is missing of the file of `job`.
    async fn attempt(&self, app: &App, job: &Job, stop: &Shutdown) -> Result<(), Failed> {
        // Only of a state that has a name of its own can the rest be asked for.
        let state = job.etag.as_deref().filter(|etag| !etag.starts_with("W/"));
        let from = if state.is_some() { job.offset } else { 0 };
        let asked = async {
            match self {
                Self::Web { client, url } => ask(client, url, state, from).await,
                Self::Store { store, key } => get(&**store, key, state, from).await,
            }
        };
        let mut sent = tokio::select! {
            () = stop.stopping() => return Err(Halt::Stopped.into()),
            sent = timeout(ANSWER_TIMEOUT, asked) => match sent {
                Ok(sent) => sent?,
                Err(_) => return Err(Failed::Again("the server does not answer".to_owned())),
            },
        };
        if job.etag.is_some() && sent.etag != job.etag {
            return Err(changed().into());
        }
        if let Some(bytes) = sent.bytes.filter(|bytes| *bytes != job.bytes) {
            return Err(of_another_size(job, &bytes.to_string()).into());
        }
        let mut taken = Taken::open(app, job, sent.begin, sent.etag.take()).await?;
        let began = Instant::now();
        let mut last = began;
        // Ends with the file, or with the first byte too much.
        loop {
            let due = due(began, last, taken.offset - sent.begin);
            let part = tokio::select! {
                () = stop.stopping() => {
                    taken.keep().await?;
                    return Err(Halt::Stopped.into());
                }
                part = timeout_at(due, sent.body.next()) => part,
            };
            match part {
                Ok(None) => break,
                Ok(Some(Ok(part))) => taken.add(&part).await?,
                Ok(Some(Err(failed))) => {
                    taken.keep().await?;
                    return Err(failed);
                }
                Err(_) => {
                    taken.keep().await?;
                    if due == last + READ_TIMEOUT {
                        return Err(Failed::Again("the server paused for too long".to_owned()));
                    }
                    return Err(Failed::Slow);
                }
            }
            last = Instant::now();
        }
        taken.keep().await?;
        if taken.offset < job.bytes {
            return Err(of_another_size(job, &taken.offset.to_string()).into());
        }
        Ok(())
    }
}

/// What was taken of a file.
struct Taken<'a> {
    app: &'a App,
    job: &'a Job,
    file: File,
    etag: Option<String>,
    offset: u64,
    kept: u64,
}

impl<'a> Taken<'a> {
    async fn open(app: &'a App, job: &'a Job, begin: u64, etag: Option<String>) -> Result<Self, Halt> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        #[cfg(unix)]
        options.mode(0o600);
        let path = app.jobs.file(job.id);
        let mut file = options.open(path).await.map_err(unwritten)?;
        file.set_len(begin).await.map_err(unwritten)?;
        file.seek(SeekFrom::Start(begin)).await.map_err(unwritten)?;
        let mut taken = Self {
            app,
            job,
            file,
            etag,
            offset: begin,
            kept: begin,
        };
        // Before anything of another state could stand behind what is known.
        taken.keep().await?;
        Ok(taken)
    }

    async fn add(&mut self, part: &[u8]) -> Result<(), Halt> {
        let offset = self.offset + part.len() as u64;
        if offset > self.job.bytes {
            return Err(of_another_size(self.job, "more"));
        }
        self.file.write_all(part).await.map_err(unwritten)?;
        self.offset = offset;
        if self.offset - self.kept >= SYNC_BYTES {
            self.keep().await?;
        }
        Ok(())
    }

    /// Makes it durable, and known.
    async fn keep(&mut self) -> Result<(), Halt> {
        self.file.flush().await.map_err(unwritten)?;
        self.file.sync_data().await.map_err(unwritten)?;
        let (jobs, id, offset, etag) = (self.app.jobs.clone(), self.job.id, self.offset, self.etag.clone());
        aside(move || {
            jobs.change(id, |job| {
                job.offset = offset;
                job.etag = etag;
            })?;
            Ok(())
        })
        .await?;
        self.kept = self.offset;
        if self.offset > 0 {
            failpoint::point("uploads::after_fetched");
        }
        Ok(())
    }
}

fn unwritten(source: std::io::Error) -> Halt {
    Halt::Broken(Error::new(ErrorKind::Unavailable, "write fetched file").caused_by(source))
}

fn changed() -> Halt {
    Halt::trouble(Code::FileChanged, "the ETag of the file is another than before")
}

fn of_another_size(job: &Job, found: &str) -> Halt {
    let detail = format!("{} bytes were announced, and the server has {found}", job.bytes);
    Halt::trouble(Code::SizeMismatch, detail)
}

/// Asks a server for a file from `from` on, in the state that is known.
async fn ask(client: &Client, url: &Url, state: Option<&str>, from: u64) -> Result<Sent, Failed> {
    let mut request = client
        .get(url.clone())
        .header(header::ACCEPT_ENCODING, "identity");
    if let Some(state) = state {
        request = request.header(header::IF_MATCH, state);
    }
    if from > 0 {
        request = request.header(header::RANGE, format!("bytes={from}-"));
    }
    let response = request.send().await.map_err(|error| failed(&error))?;
    let etag = header_of(&response, header::ETAG).map(str::to_owned);
    let (begin, bytes) = match response.status() {
        StatusCode::OK => (0, response.content_length()),
        StatusCode::PARTIAL_CONTENT => {
            let range = header_of(&response, header::CONTENT_RANGE).and_then(range);
            let Some((begin, bytes)) = range.filter(|(begin, _)| *begin == from) else {
                let detail = "the server sends another part of the file than was asked for";
                return Err(Halt::trouble(Code::FileUnavailable, detail).into());
            };
            (begin, bytes)
        }
        StatusCode::PRECONDITION_FAILED => return Err(changed().into()),
        status if status.is_redirection() => {
            let detail = format!(
                "the server answers {}: redirects are not followed",
                status.as_u16()
            );
            return Err(Halt::trouble(Code::UrlNotAllowed, detail).into());
        }
        status => {
            let detail = format!("the server answers {}", status.as_u16());
            let is_passing = status.is_server_error()
                || matches!(
                    status,
                    StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
                );
            return Err(match is_passing {
                true => Failed::Again(detail),
                false => Halt::trouble(Code::FileUnavailable, detail).into(),
            });
        }
    };
    let body = response
        .bytes_stream()
        .map(|part| part.map_err(|error| failed(&error)));
    Ok(Sent {
        begin,
        bytes,
        etag,
        body: body.boxed(),
    })
}

/// Asks a store for an object from `from` on, in the state that is known.
async fn get(store: &dyn ObjectStore, key: &Path, state: Option<&str>, from: u64) -> Result<Sent, Failed> {
    let options = GetOptions {
        if_match: state.map(str::to_owned),
        range: (from > 0).then_some(GetRange::Offset(from)),
        ..GetOptions::default()
    };
    let found = store.get_opts(key, options).await.map_err(|error| match error {
        StoreError::Precondition { .. } => changed().into(),
        StoreError::NotFound { .. } => Failed::Halt(Halt::trouble(
            Code::FileUnavailable,
            "the store has no such object",
        )),
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
            Failed::Halt(Halt::trouble(
                Code::FileUnavailable,
                "the store does not let this server read it",
            ))
        }
        // What it says may hold the address.
        _ => Failed::Again("the store does not answer".to_owned()),
    })?;
    let (bytes, etag, begin) = (found.meta.size, found.meta.e_tag.clone(), found.range.start);
    let body = found
        .into_stream()
        .map(|part| part.map_err(|_| Failed::Again("the store ended its answer too early".to_owned())));
    Ok(Sent {
        begin,
        bytes: Some(bytes),
        etag,
        body: body.boxed(),
    })
}

fn header_of(response: &Response, name: header::HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

/// Where a part begins, and how large the whole is, if that is told (RFC 9110, section 14.4).
fn range(text: &str) -> Option<(u64, Option<u64>)> {
    let (part, whole) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (begin, _) = part.split_once('-')?;
    Some((begin.trim().parse().ok()?, whole.trim().parse().ok()))
}

/// Why a request failed, in words that hold no address.
fn failed(error: &reqwest::Error) -> Failed {
    let mut next: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(source) = next {
        if source.is::<NotPublic>() {
            return Halt::trouble(Code::UrlNotAllowed, NotPublic.to_string()).into();
        }
        next = source.source();
    }
    Failed::Again(match error.is_connect() {
        true => "the server cannot be reached".to_owned(),
        false => "the server ended its answer too early".to_owned(),
    })
}

/// Looks names up, and takes only what leads to the Internet. What it finds is what is connected to: a name that changes
/// meanwhile changes nothing.
struct Public;

/// Said of a name that leads elsewhere.
#[derive(Debug)]
struct NotPublic;

impl fmt::Display for NotPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of the server leads to a private address")
    }
}

impl StdError for NotPublic {}

impl Resolve for Public {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = lookup_host((name.as_str(), 0)).await?.collect();
            // One of several is enough: which of them is asked is not ours to say.
            if found.iter().all(|address| is_public(address.ip())) {
                Ok(Box::new(found.into_iter()) as Addrs)
            } else {
                Err(NotPublic.into())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_gets_further_is_asked_for_without_end_and_one_that_does_not_is_given_up() {
        let mut tries = Tries {
            failed: 0,
            reached: 0,
        };
        for step in 1..100 {
            assert_eq!(tries.again(step * FURTHER_BYTES), Some(BACKOFF_START));
        }
        // Neither bytes one by one nor a beginning from the start are further.
        let waits: Vec<_> = (0..5)
            .map(|byte| tries.again(99 * FURTHER_BYTES + byte))
            .collect();
        assert_eq!(waits.iter().flatten().count(), 4);
        assert_eq!(waits.last(), Some(&None));
        assert_eq!(tries.again(FURTHER_BYTES), None);
    }

    #[test]
    fn an_answer_keeps_up_a_rate_and_makes_no_long_pause() {
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(due(began, began, 0), after(30));
        // Byte by byte there is no pause, and no rate.
        assert_eq!(due(began, after(59), 60), after(60));
        assert_eq!(due(began, after(100), 1000 * BYTES_PER_SECOND_MIN), after(130));
    }

    #[test]
    fn a_part_says_where_it_begins() {
        assert_eq!(range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(range("bytes 0-9/*"), Some((0, None)));
        for text in ["bytes */10", "5-9/10", "items 5-9/10", "bytes 5", ""] {
            assert_eq!(range(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_is_refused() {
        let found = Public.resolve("localhost".parse().unwrap()).await;
        assert!(found.err().unwrap().is::<NotPublic>());
    }
}
