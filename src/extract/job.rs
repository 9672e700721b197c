//! Export jobs: created, waited for, downloaded, removed.
//!
//! ```text
//! create ─► mark committed ─► poll … poll ─► list ─► result 0, 1, 2 … ─► committed ─► delete
//!               │                 │                      │
//!               │                 └ expired: created again, once; failed or too late: an error, and no mark is left
//!               └ a later run begins here: with the same job, behind the last result that was committed
//! ```
//!
//! Requests about the job are sent as any other: within the budget, with retries. A job that is not done yet is neither
//! an error nor a retry.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::{Map, Value};
use tokio::sync::oneshot;
use tracing::{debug, info, warn};
use url::Url;

use crate::{
    config::{
        Stream,
        errors::{Action, ErrorRule},
        format::Format,
        job::Job,
        paginate::{Paginate, Paging},
        request::{Body, Method, Place, Request},
        text::Text,
    },
    error::{Error, ErrorKind, Result},
    extract::{
        channel::moved,
        fetch::{Answer, Fetcher, Unanswered, Verdict},
        mask::Masks,
        paginate::token,
        request::{Ask, PageRequest},
        retry,
    },
    json::{self, JsonPath},
    raw::{
        JobMark,
        frame::{hex, sha256},
    },
};

/// Between two polls at most, unless the project file asks for more.
const EVERY_MAX: Duration = Duration::from_secs(60);

/// Most bytes of the answer that created a job which are kept for the requests made from it.
const RESPONSE_BYTES_MAX: usize = 64 * 1024;

/// Most results of one job.
const TARGETS_MAX: usize = 100_000;

/// The export job of a window.
pub(crate) struct Export {
    settings: Job,
    fetcher: Fetcher,
    /// The last answer about how the job stands.
    polled: Option<Value>,
    /// What there is to download, once that is known.
    targets: Option<Targets>,
    /// Whether a job was created again because the server had forgotten it.
    again: bool,
    /// Whether the URLs were asked for again for the result that is downloaded now.
    refreshed: bool,
    /// Ends when the mark of the job is committed.
    held: Option<oneshot::Receiver<()>>,
    /// Answers that a rule ignored.
    ignored: AtomicU64,
}

/// The results of a job.
struct Targets {
    names: Vec<String>,
    /// What relative URLs among them start from.
    at: Url,
    /// The host that told them: the source, or a replica.
    base: Url,
}

/// How the wait for a job ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Its results are known.
    Done,
    /// It has none.
    Empty,
    /// The server has forgotten it.
    Expired(Error),
    /// It failed, or took too long.
    Failed(Error),
}

/// What a status says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    Done,
    Empty,
    Expired,
    Failed,
    Unknown,
}

impl Export {
    /// The export of the stream of `fetcher`, if its pages come from one.
    pub(crate) fn of(fetcher: &Fetcher) -> Option<Self> {
        let settings = fetcher.stream.job.clone()?;
        Some(Self {
            settings,
            fetcher: fetcher.clone(),
            polled: None,
            targets: None,
            again: false,
            refreshed: false,
            held: None,
            ignored: AtomicU64::new(0),
        })
    }

    /// Lets nobody wait longer than `most` for a job.
    pub(crate) fn limit(&mut self, most: Duration) {
        self.settings.timeout = self.settings.timeout.min(most);
    }

    /// Forgets the job, so that another one can take its place.
    pub(crate) fn forget(&mut self) {
        self.polled = None;
        self.targets = None;
        self.refreshed = false;
    }

    /// Whether a job the server has forgotten may be created again; only once.
    pub(crate) fn may_begin_again(&mut self) -> bool {
        !std::mem::replace(&mut self.again, true)
    }

    /// What is handed out with a mark that has to be committed before anything else is asked for.
    pub(crate) fn hold(&mut self) -> oneshot::Sender<()> {
        let (sender, receiver) = oneshot::channel();
        self.held = Some(receiver);
        sender
    }

    /// Waits until whoever has the mark is done with it.
    pub(crate) async fn committed(&mut self) {
        if let Some(held) = self.held.take() {
            // Nothing is ever sent: the end of the other side is the signal.
            let _ = held.await;
        }
    }

    /// How many results there are, once that is known.
    pub(crate) fn count(&self) -> Option<u64> {
        self.targets.as_ref().map(|targets| targets.names.len() as u64)
    }

    /// The request that creates the job.
    pub(crate) fn creation(&self, ask: &Ask) -> Result<PageRequest> {
        let Fetcher { source, stream, .. } = &self.fetcher;
        let stream = stream_of(stream, &stream.request, stream.incremental.is_some())?;
        PageRequest::build(source, &stream, ask)
    }

    /// Creates the job; none if the answer is one that the project file ignores.
    pub(crate) async fn create(&self, ask: &Ask) -> Result<Option<JobMark>, Box<Unanswered>> {
        let request = self.creation(ask).map_err(unsent)?;
        let answer = self.send(&self.fetcher.stream.request, &request).await?;
        if self.is_nothing(&answer) {
            return Ok(None);
        }
        self.mark(&answer).map(Some).map_err(unsent)
    }

    fn mark(&self, answer: &Answer) -> Result<JobMark> {
        let (head, body) = (&answer.response.head, &answer.response.body);
        let wrong = |problem: &str| {
            self.error(ErrorKind::Refused, "create export job")
                .with("url", answer.masks.url(head.url.as_str()))
                .with("status", head.status)
                .with("problem", problem)
                .with("body", answer.excerpt().unwrap_or_default())
        };
        let id = match &self.settings.id {
            None => None,
            Some(place) => {
                let id =
                    token::text_at(place, head, body).map_err(|cause| wrong("not JSON").caused_by(cause))?;
                let id = id.filter(|id| !id.is_empty());
                Some(id.ok_or_else(|| wrong("no id at job.id"))?.into_owned())
            }
        };
        let response = match self.settings.requests().any(uses_response) {
            false => None,
            true if body.len() > RESPONSE_BYTES_MAX => {
                return Err(
                    wrong("the answer is too large to be kept for the requests made from it")
                        .with("response_bytes_max", RESPONSE_BYTES_MAX),
                );
            }
            true => serde_json::from_slice(body).ok(),
        };
        info!(stream = %self.fetcher.stream.name, job = id, "export job created");
        Ok(JobMark {
            id,
            created_at: self.fetcher.clock.now(),
            response,
            targets: None,
            done: 0,
            complete: false,
        })
    }

    /// Whether the project file says that such an answer means nothing.
    fn is_nothing(&self, answer: &Answer) -> bool {
        let ignored = matches!(answer.verdict, Verdict::Ignored { .. });
        self.ignored.fetch_add(u64::from(ignored), Relaxed);
        ignored || answer.verdict == Verdict::End
    }

    /// How many answers a rule ignored since this was asked last.
    pub(crate) fn take_ignored(&mut self) -> u64 {
        std::mem::take(self.ignored.get_mut())
    }

    /// Asks how the job stands until that is settled.
    pub(crate) async fn wait(&mut self, ask: &Ask, mark: &JobMark) -> Result<Ended, Box<Unanswered>> {
        let poll = self.settings.poll.clone();
        // Ends with the job, or at `timeout`: every wait is at least as long as `every`.
        for polls in 0.. {
            let request = self.request(&poll, ask, mark, None).map_err(unsent)?;
            let answer = match self.send(&poll, &request).await {
                Ok(answer) if self.is_nothing(&answer) => return Ok(Ended::Empty),
                Ok(answer) => answer,
                Err(lost) if matches!(lost.status, Some(404 | 410)) => return Ok(Ended::Expired(lost.error)),
                Err(lost) => return Err(lost),
            };
            let status = self.status(&answer).map_err(unsent)?;
            let stage = stage(&self.settings, status.as_deref());
            debug!(stream = %self.fetcher.stream.name, job = mark.id, status, ?stage, "export job polled");
            self.polled = serde_json::from_slice(&answer.response.body).ok();
            let problem = match stage {
                Stage::Done => return self.find(ask, mark, answer).await.map(|()| Ended::Done),
                Stage::Empty => return Ok(Ended::Empty),
                Stage::Running => None,
                Stage::Expired => Some("the job has expired"),
                Stage::Failed => Some("the job has failed"),
                Stage::Unknown => Some("a status that job does not name"),
            };
            if let Some(problem) = problem {
                let error = self
                    .failure(ErrorKind::Refused, mark)
                    .with("status", answer.masks.text(status.as_deref().unwrap_or_default()))
                    .with("problem", problem)
                    .with("body", answer.excerpt().unwrap_or_default());
                return Ok(match stage {
                    Stage::Expired => Ended::Expired(error),
                    _ => Ended::Failed(error),
                });
            }
            let now = self.fetcher.clock.now();
            let headers = &answer.response.head.headers;
            let asked = retry::wait_asked(headers, now).unwrap_or_default();
            let wait = pause(self.settings.every, polls, rand::random()).max(asked);
            let elapsed = (now - mark.created_at).to_std().unwrap_or_default();
            if elapsed.saturating_add(wait) > self.settings.timeout {
                return Ok(Ended::Failed(self.too_late(ask, mark).await));
            }
            tokio::time::sleep(wait).await;
        }
        Ok(Ended::Failed(self.too_late(ask, mark).await))
    }

    /// Stops a job that took too long.
    async fn too_late(&self, ask: &Ask, mark: &JobMark) -> Error {
        if let Some(abort) = &self.settings.abort {
            self.tell(abort, ask, mark).await;
        }
        self.failure(ErrorKind::Limit, mark)
            .with("timeout_s", self.settings.timeout.as_secs_f64())
            .with("hint", "raise job.timeout; the next run creates another job")
    }

    /// Removes the job.
    pub(crate) async fn remove(&self, ask: &Ask, mark: &JobMark) {
        if let Some(delete) = &self.settings.delete {
            self.tell(delete, ask, mark).await;
        }
    }

    /// Whether the job is removed in the end.
    pub(crate) fn is_removed(&self) -> bool {
        self.settings.delete.is_some()
    }

    /// Sends what the server should know. The data are here or given up: if it does not listen, that is only said.
    async fn tell(&self, request: &Request, ask: &Ask, mark: &JobMark) {
        let prepared = self.request(request, ask, mark, None).map_err(unsent);
        let sent = match prepared {
            Ok(prepared) => self.send(request, &prepared).await.map(drop),
            Err(error) => Err(error),
        };
        match sent {
            Ok(()) => {}
            // Somebody else did it already.
            Err(lost) if matches!(lost.status, Some(404 | 410)) => {}
            Err(lost) => {
                let name = &self.fetcher.stream.name;
                warn!(stream = %name, job = mark.id, error = lost.error.chain(), "export job is left at the server");
                let note = format!("an export job is left at the server: {}", lost.error);
                self.fetcher.progress.note(note);
            }
        }
    }

    /// Finds the results of a job that is done.
    async fn find(&mut self, ask: &Ask, mark: &JobMark, polled: Answer) -> Result<(), Box<Unanswered>> {
        let answer = match &self.settings.list {
            None => polled,
            Some(list) => {
                let request = self.request(list, ask, mark, None).map_err(unsent)?;
                self.send(list, &request).await?
            }
        };
        let names = match &self.settings.urls {
            // One request, and its pages.
            None => vec![String::new()],
            Some(path) => names(path, &answer.response.body).map_err(|problem| {
                unsent(
                    self.failure(ErrorKind::Refused, mark)
                        .with("problem", problem)
                        .with("body", answer.excerpt().unwrap_or_default()),
                )
            })?,
        };
        info!(stream = %self.fetcher.stream.name, job = mark.id, results = names.len(), "export job is done");
        self.targets = Some(Targets {
            names,
            at: answer.response.head.url.clone(),
            base: answer.base,
        });
        Ok(())
    }

    /// What the results are called, as [`JobMark::targets`] keeps it: of URLs the query, which is signed anew for
    /// everybody who asks, does not count.
    pub(crate) fn print(&self) -> String {
        let names = self.targets.iter().flat_map(|targets| &targets.names);
        let named = names.map(|name| name.split(['?', '#']).next().unwrap_or_default());
        let all: Vec<&str> = named.collect();
        hex(&sha256(all.join("\n").as_bytes()))
    }

    /// The request for the page of `ask` of the result that `mark` stands at, and what fetches it for `pages`.
    pub(crate) fn page(&self, pages: &Fetcher, ask: &Ask, mark: &JobMark) -> Result<(Fetcher, PageRequest)> {
        let Targets { names, at, base } = self
            .targets
            .as_ref()
            .ok_or_else(|| self.error(ErrorKind::Internal, "download a job that is not done"))?;
        let place = usize::try_from(mark.done).unwrap_or(usize::MAX);
        let name = names
            .get(place)
            .ok_or_else(|| self.error(ErrorKind::Internal, "download beyond the last result"))?;
        let source = &pages.source;
        let download = self.settings.download.clone().unwrap_or_else(plain_get);
        let ask = Ask {
            job: Some(self.variables(mark, self.settings.urls.as_ref().map(|_| name.as_str()))),
            ..ask.clone()
        };
        let mut stream = Stream {
            request: download,
            ..(*pages.stream).clone()
        };
        let mut request = if self.settings.download.is_some() {
            let bounds = stream.incremental.take();
            let request = PageRequest::build(source, &stream, &ask)?;
            stream.incremental = bounds;
            request
        } else {
            PageRequest::of(source, &stream.request, ask.vars(source))?
        };
        request.hosts = self.settings.hosts.clone();
        if self.settings.download.is_none() {
            request = request.at(&source.base_url, self.url(name, at, base)?)?;
        }
        let fetcher = Fetcher {
            stream: Arc::new(stream),
            ..pages.clone()
        };
        Ok((fetcher, request))
    }

    /// The URL of a result. One of the source is told without our secrets; they are added as it is fetched.
    fn url(&self, name: &str, at: &Url, base: &Url) -> Result<Url> {
        let Fetcher { source, stream, .. } = &self.fetcher;
        let mut url = at.join(name).map_err(|cause| {
            self.error(ErrorKind::Refused, "read URL of a result")
                .with("hint", "add job.download, if job.urls does not lead to URLs")
                .caused_by(cause)
        })?;
        if url.origin() == base.origin() {
            Masks::of(source, &stream.request)?.strip(&mut url);
            url = moved(&url, base, &source.base_url);
        }
        Ok(url)
    }

    /// Whether the URLs of the results may have expired, so that asking for them again is worth it; once for each.
    pub(crate) fn refresh(&mut self, status: Option<u16>) -> bool {
        let expired = self.settings.download.is_none() && matches!(status, Some(400 | 401 | 403 | 404 | 410));
        if !expired || self.refreshed {
            return false;
        }
        self.refreshed = true;
        self.targets = None;
        true
    }

    /// Whether the server has forgotten the job meanwhile; see [`Self::may_begin_again`].
    pub(crate) fn is_forgotten(&self, status: Option<u16>) -> bool {
        self.settings.download.is_some() && matches!(status, Some(404 | 410))
    }

    /// A result was read to its end.
    pub(crate) fn passed(&mut self) {
        self.refreshed = false;
    }

    fn request(
        &self,
        request: &Request,
        ask: &Ask,
        mark: &JobMark,
        target: Option<&str>,
    ) -> Result<PageRequest> {
        let ask = Ask {
            job: Some(self.variables(mark, target)),
            ..ask.clone()
        };
        let source = &self.fetcher.source;
        PageRequest::of(source, request, ask.vars(source))
    }

    /// `job` in templates. What is not known is not there.
    fn variables(&self, mark: &JobMark, target: Option<&str>) -> Value {
        let known = [
            ("id", mark.id.clone().map(Value::String)),
            ("response", mark.response.clone()),
            ("poll", self.polled.clone()),
            ("target", target.map(Value::from)),
        ];
        let known = known
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(known.collect::<Map<String, Value>>())
    }

    /// Sends `request`, which was made from `settings`. Any 2xx is an answer, with JSON in it or empty.
    async fn send(&self, settings: &Request, request: &PageRequest) -> Result<Answer, Box<Unanswered>> {
        let fetcher = about(&self.fetcher, settings).map_err(unsent)?;
        let answer = fetcher.fetch(request, 1, None, None).await?;
        match answer.reading {
            Ok(_) => Ok(answer),
            Err(reason) => Err(unsent(
                self.error(ErrorKind::Refused, "read answer about export job")
                    .with("url", answer.masks.url(answer.response.head.url.as_str()))
                    .with("problem", reason),
            )),
        }
    }

    fn status(&self, answer: &Answer) -> Result<Option<String>> {
        let Some(path) = &self.settings.status else {
            return Ok(Some(answer.response.head.status.to_string()));
        };
        if answer.response.body.is_empty() {
            return Ok(None);
        }
        let place = Place::Body(path.clone());
        let text = token::text_at(&place, &answer.response.head, &answer.response.body)?;
        Ok(text.map(Cow::into_owned))
    }

    fn failure(&self, kind: ErrorKind, mark: &JobMark) -> Error {
        let error = self.error(kind, "wait for export job");
        match &mark.id {
            Some(id) => error.with("job", id),
            None => error,
        }
    }

    fn error(&self, kind: ErrorKind, attempt: &'static str) -> Error {
        Error::new(kind, attempt).with("stream", &self.fetcher.stream.name)
    }
}

/// What sends `request`, of which any 2xx is an answer, with JSON in it or empty.
///
/// # Errors
/// None that is to be expected.
pub(crate) fn about(fetcher: &Fetcher, request: &Request) -> Result<Fetcher> {
    let mut source = (*fetcher.source).clone();
    // The body of a GraphQL answer says more than its status.
    if !matches!(request.body, Body::GraphQl { .. }) {
        source.errors.push(any_success());
    }
    Ok(Fetcher {
        source: Arc::new(source),
        stream: Arc::new(stream_of(&fetcher.stream, request, false)?),
        ..fetcher.clone()
    })
}

/// A stream of one request whose answer is read as one JSON text.
fn stream_of(stream: &Stream, request: &Request, bounds: bool) -> Result<Stream> {
    Ok(Stream {
        request: request.clone(),
        format: Format::JSON,
        records: JsonPath::parse("$")
            .map_err(|reason| Error::new(ErrorKind::Internal, "read path").with("problem", reason))?,
        paginate: Paging::plain(Paginate::Single),
        incremental: stream.incremental.clone().filter(|_| bounds),
        ..stream.clone()
    })
}

fn any_success() -> ErrorRule {
    ErrorRule {
        status: vec![(200, 299)],
        header: None,
        body: None,
        when: None,
        then: Action::Accept,
        wait: Vec::new(),
        message: None,
    }
}

/// A GET with nothing of the project file in it, for a URL that a server told.
pub(crate) fn plain_get() -> Request {
    Request {
        method: Method::Get,
        path: Text::literal(""),
        params: Vec::new(),
        headers: Vec::new(),
        body: Body::None,
    }
}

fn uses_response(request: &Request) -> bool {
    let uses = |text: &Text| text.variables().contains("job") && text.as_written().contains("response");
    let pairs = request.params.iter().chain(&request.headers);
    uses(&request.path)
        || pairs.into_iter().any(|(_, text)| uses(text))
        || request.body.texts().into_iter().any(uses)
}

/// What the status of a job says; none that it has no status yet.
fn stage(settings: &Job, status: Option<&str>) -> Stage {
    let Some(status) = status else {
        return Stage::Running;
    };
    let lists = [
        (&settings.done, Stage::Done),
        (&settings.failed, Stage::Failed),
        (&settings.empty, Stage::Empty),
        (&settings.expired, Stage::Expired),
        (&settings.running, Stage::Running),
    ];
    let named = lists
        .into_iter()
        .find(|(list, _)| list.iter().any(|known| known == status));
    match named {
        Some((_, stage)) => stage,
        None if settings.running.is_empty() => Stage::Running,
        None => Stage::Unknown,
    }
}

/// The wait after poll number `polls` (from 0): `every`, growing by half each time to [`EVERY_MAX`], and up to a tenth
/// more, so that jobs that began together are not asked for together. `jitter` is in 0..1.
fn pause(every: Duration, polls: u32, jitter: f64) -> Duration {
    let most = EVERY_MAX.max(every);
    let grown = every.as_secs_f64() * 1.5_f64.powi(i32::try_from(polls.min(100)).unwrap_or(100));
    let wait = Duration::try_from_secs_f64(grown).unwrap_or(most).min(most);
    wait + wait.mul_f64(0.1 * jitter.clamp(0.0, 1.0))
}

/// The texts at `path`, also those of a list that stands there.
fn names(path: &JsonPath, body: &[u8]) -> Result<Vec<String>, String> {
    let mut values = Vec::new();
    let found = path.select(body, &mut |range| values.push(&body[range]));
    found.map_err(|defect| defect.to_string())?;
    let mut names = Vec::new();
    for value in values {
        let parsed: Value = serde_json::from_slice(value).map_err(|_| "not JSON".to_owned())?;
        match parsed {
            Value::Null => {}
            Value::Array(items) => {
                for item in items {
                    names.push(item.as_str().ok_or("a result that is not text")?.to_owned());
                }
            }
            Value::Object(_) | Value::Bool(_) => return Err("a result that is not text".to_owned()),
            Value::String(text) => names.push(text),
            Value::Number(_) => names.push(json_text(value)),
        }
    }
    if names.len() > TARGETS_MAX {
        return Err(format!("more than {TARGETS_MAX} results"));
    }
    Ok(names)
}

/// A number as it is written.
fn json_text(value: &[u8]) -> String {
    json::text(value).map_or_else(|| String::from_utf8_lossy(value).into_owned(), Cow::into_owned)
}

fn unsent(error: Error) -> Box<Unanswered> {
    Box::new(Unanswered {
        status: None,
        error,
        then: None,
        earlier: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn polls_come_at_least_every_so_often_and_never_more_than_a_tenth_later_than_a_minute(
            every_ms in 1..600_000_u64, polls in 0..10_000_u32, jitter in 0.0..1.0_f64,
        ) {
            let every = Duration::from_millis(every_ms);
            let wait = pause(every, polls, jitter);
            prop_assert!(wait >= every);
            prop_assert!(wait <= EVERY_MAX.max(every).mul_f64(1.1001));
            prop_assert!(pause(every, polls + 1, 0.0) >= pause(every, polls, 0.0));
        }
    }

    #[test]
    fn results_are_read_from_any_shape_of_list() {
        let table = [
            ("$.urls[*]", r#"{"urls":["a","b"]}"#, Ok(vec!["a", "b"])),
            ("$.urls", r#"{"urls":["a","b"]}"#, Ok(vec!["a", "b"])),
            ("$.url", r#"{"url":"a\u002fb"}"#, Ok(vec!["a/b"])),
            ("$.url", r#"{"url":null}"#, Ok(vec![])),
            ("$.url", "{}", Ok(vec![])),
            (
                "$.parts[*].id",
                r#"{"parts":[{"id":1},{"id":18446744073709551617}]}"#,
                Ok(vec!["1", "18446744073709551617"]),
            ),
            ("$.url", r#"{"url":{"a":1}}"#, Err("a result that is not text")),
            ("$.url", "<html>", Err("")),
        ];
        for (path, body, expected) in table {
            let found = names(&JsonPath::parse(path).unwrap(), body.as_bytes());
            match expected {
                Ok(expected) => assert_eq!(found.unwrap(), expected, "{body}"),
                Err(expected) => assert!(found.unwrap_err().contains(expected), "{body}"),
            }
        }
    }
}
