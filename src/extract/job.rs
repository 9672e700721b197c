//! Export jobs: created, waited for, downloaded, removed.
//!
//! ```text
//! intention committed ─► create ─► mark committed ─► poll … poll ─► list ─► result 0, 1, 2 … ─► committed ─► delete
//!         │                              │                 │                      │
//!         │                              │                 └ expired: created again, once; failed: created again, as
//!         │                              │                   often as that is wanted; else, or too late: an error, and
//!         │                              │                   no mark is left
//!         │                              └ a later run begins here: with the same job, behind the last result that was
//!         │                                committed
//!         └ … or here: created again, with the same key
//! ```
//!
//! Requests about the job are sent as any other: within the budget, with retries. A job that is not done yet is neither
//! an error nor a retry.
//!
//! A run that ends between the server's answer and the commit of the mark leaves a job that only its key knows. An API
//! that takes the key (`job.key`) answers a repeated request with that same job; with any other the job is left there,
//! and that one may be is said. The same goes for a request that is sent again because its answer was lost.

pub(crate) mod create;
pub(crate) mod errand;
pub(crate) mod wait;

mod results;
mod status;

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value};
use tokio::sync::oneshot;
use tracing::warn;

use crate::{
    config::{Stream, job::Job, request::Request},
    error::{Error, ErrorKind, Result},
    extract::{
        fetch::{Answer, Fetcher, Unanswered, Verdict},
        job::{
            errand::{Reads, about, plain_get, uses_job},
            results::Results,
        },
        mask::Masks,
        request::{Ask, PageRequest},
    },
    raw::JobMark,
};

/// The export job of a window.
pub(crate) struct Export {
    settings: Job,
    fetcher: Fetcher,
    /// The last answer about how the job stands.
    polled: Option<Value>,
    /// What there is to download, once that is known.
    results: Option<Results>,
    /// The job of a window that is not gone on with.
    stale: Option<JobMark>,
    /// Whether it was this run that meant to create the job.
    ours: bool,
    /// Whether a job was created again because the server had forgotten it.
    again: bool,
    /// How often a job was created in the place of one that has failed.
    retried: u32,
    /// Whether the URLs were asked for again for the result that is downloaded now.
    refreshed: bool,
    /// Ends when the mark of the job is committed.
    held: Option<oneshot::Receiver<()>>,
}

impl Export {
    /// The export of the stream of `fetcher`, if its pages come from one. `stale` is the job of a window that is not gone
    /// on with.
    pub(crate) fn of(fetcher: &Fetcher, stale: Option<JobMark>) -> Option<Self> {
        let settings = fetcher.stream.job.clone()?;
        Some(Self {
            settings,
            fetcher: fetcher.clone(),
            polled: None,
            results: None,
            stale: stale.filter(|mark| !mark.creating),
            ours: false,
            again: false,
            retried: 0,
            refreshed: false,
            held: None,
        })
    }

    /// Forgets the job, so that another one can take its place.
    pub(crate) fn forget(&mut self) {
        self.polled = None;
        self.results = None;
        self.refreshed = false;
    }

    /// Whether a job the server has forgotten may be created again; only once.
    pub(crate) fn may_begin_again(&mut self) -> bool {
        !std::mem::replace(&mut self.again, true)
    }

    /// The wait before another job takes the place of one that has failed; none if that is not wanted, or not again.
    pub(crate) fn may_retry(&mut self) -> Option<Duration> {
        (self.retried < self.settings.retries).then(|| {
            self.retried += 1;
            self.settings.retry_wait
        })
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
        self.results.as_ref().map(Results::count)
    }

    /// Whether a job created at `mark` has had its time.
    pub(crate) fn is_late(&self, mark: &JobMark) -> bool {
        self.elapsed(mark) > self.settings.timeout
    }

    fn elapsed(&self, mark: &JobMark) -> Duration {
        let elapsed = self.fetcher.clock.now() - mark.created_at;
        elapsed.to_std().unwrap_or_default()
    }

    /// What would be asked for first where `mark` stands, and the settings it is made from.
    pub(crate) fn first(&self, ask: &Ask, mark: Option<&JobMark>) -> Result<(PageRequest, &Request)> {
        let settings = match mark {
            Some(mark) if mark.complete => self.settings.delete.as_ref().unwrap_or(&self.settings.poll),
            Some(mark) if !mark.creating => &self.settings.poll,
            mark => return Ok((self.creation(ask, mark)?, &self.fetcher.stream.request)),
        };
        let request = mark.map(|mark| self.request(settings, ask, mark)).transpose()?;
        let request = request.ok_or_else(|| self.error(ErrorKind::Internal, "plan without a job"))?;
        Ok((request, settings))
    }

    /// Removes the job.
    pub(crate) async fn remove(&self, ask: &Ask, mark: &JobMark) {
        if let Some(delete) = &self.settings.delete {
            self.tell(delete, ask, mark).await;
        }
    }

    /// Removes the job of a window that is not gone on with, if there is one.
    pub(crate) async fn remove_stale(&mut self, ask: &Ask) {
        if let Some(mark) = self.stale.take() {
            self.remove(ask, &mark).await;
        }
    }

    /// Whether the job is removed in the end.
    pub(crate) fn is_removed(&self) -> bool {
        self.settings.delete.is_some()
    }

    /// Sends what the server should know. The data are here or given up: if it does not listen, that is only said.
    async fn tell(&self, request: &Request, ask: &Ask, mark: &JobMark) {
        let prepared = self.request(request, ask, mark).map_err(unsent);
        let sent = match prepared {
            Ok(prepared) => self.send(request, &prepared, Reads::Anything).await.map(drop),
            Err(error) => Err(error),
        };
        match sent {
            Ok(()) => {}
            // Somebody else did it already.
            Err(lost) if matches!(lost.status, Some(404 | 410)) => {}
            Err(lost) => {
                let name = &self.fetcher.stream.name;
                warn!(stream = %name, job = shown(mark), error = lost.error.chain(), "export job is left at the server");
                let note = format!("an export job is left at the server: {}", lost.error);
                self.fetcher.progress.note(note);
            }
        }
    }

    /// See [`Results::print`].
    pub(crate) fn print(&self) -> Option<String> {
        self.results.as_ref().map(Results::print)
    }

    /// The request for the page of `ask` of the result that `mark` stands at, and what fetches it for `pages`.
    pub(crate) fn page(&self, pages: &Fetcher, ask: &Ask, mark: &JobMark) -> Result<(Fetcher, PageRequest)> {
        let results = self
            .results
            .as_ref()
            .ok_or_else(|| self.error(ErrorKind::Internal, "download a job that is not done"))?;
        let name = results
            .name(mark.done)
            .ok_or_else(|| self.error(ErrorKind::Internal, "download beyond the last result"))?;
        let source = &pages.source;
        let ask = Ask {
            job: Some(self.variables(mark, self.settings.urls.as_ref().map(|_| name))),
            ..ask.clone()
        };
        let mut stream = Stream {
            request: self.settings.download.clone().unwrap_or_else(plain_get),
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
            let masks = Masks::of(source, &pages.stream.request)?;
            let url = results.url(name, &source.base_url, &masks).map_err(|cause| {
                self.error(ErrorKind::Refused, "read URL of a result")
                    .with("hint", "add job.download, if job.urls does not lead to URLs")
                    .caused_by(cause)
            })?;
            request = request.at(&source.base_url, url)?;
        }
        let fetcher = Fetcher {
            stream: Arc::new(stream),
            ..pages.clone()
        };
        Ok((fetcher, request))
    }

    /// Whether the URLs of the results may have expired, so that asking for them again is worth it; once for each.
    pub(crate) fn refresh(&mut self, status: Option<u16>) -> bool {
        let expired = self.settings.download.is_none() && matches!(status, Some(400 | 401 | 403 | 404 | 410));
        if !expired || self.refreshed {
            return false;
        }
        self.refreshed = true;
        self.results = None;
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

    fn request(&self, request: &Request, ask: &Ask, mark: &JobMark) -> Result<PageRequest> {
        let ask = Ask {
            job: Some(self.variables(mark, None)),
            ..ask.clone()
        };
        let source = &self.fetcher.source;
        PageRequest::of(source, request, ask.vars(source))
    }

    /// `job` in templates. What is not known is not there.
    fn variables(&self, mark: &JobMark, target: Option<&str>) -> Value {
        let known = [
            ("key", mark.key.clone().map(Value::String)),
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

    /// What an answer has to be whose JSON is read because of `read`, or by templates over this member of `job`.
    fn reads(&self, read: bool, member: &str) -> Reads {
        let used = |request: &Request| uses_job(request, Some(member));
        match read || self.settings.requests().any(used) {
            true => Reads::Json,
            false => Reads::Anything,
        }
    }

    /// Sends `request`, which was made from `settings`. Any 2xx is an answer, if it can be read as far as it has to be.
    async fn send(
        &self,
        settings: &Request,
        request: &PageRequest,
        reads: Reads,
    ) -> Result<Answer, Box<Unanswered>> {
        let fetcher = about(&self.fetcher, settings, reads);
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

    fn note_ignored(&self, answer: &Answer) {
        if let Verdict::Ignored { status, rule } = &answer.verdict {
            let note = format!("answers of status {status} about export jobs ignored, as {rule} says");
            self.fetcher.progress.note(note);
        }
    }

    fn error(&self, kind: ErrorKind, attempt: &'static str) -> Error {
        Error::new(kind, attempt).with("stream", &self.fetcher.stream.name)
    }
}

/// What the server calls the job. It may be a URL with a signature in it.
fn shown(mark: &JobMark) -> Option<String> {
    mark.id.as_deref().map(|id| Masks::default().url(id))
}

fn unsent(error: Error) -> Box<Unanswered> {
    Box::new(Unanswered {
        status: None,
        error,
        then: None,
        earlier: Vec::new(),
    })
}
