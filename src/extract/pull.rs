//! The state of a window while its pages are fetched, and the guards that make it end.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use tokio::sync::mpsc;
use tracing::{debug, warn};
use url::Url;

use crate::{
    clock::Timestamp,
    config::incremental::Incremental,
    error::{Error, ErrorKind, Result},
    extract::{
        cursor::{self, Rank},
        facts,
        fetch::{Answer, Fetcher, Unanswered, off_thread},
        paginate::{self, Next},
        progress::add,
        reading::{Reading, Unreadable},
        request::{Ask, PageRequest, START},
        retry::server_time,
        shape,
        window::{Fetched, Position, Probe},
    },
    raw::{Bookmark, Page, Window},
};

/// Shown of a first record by a probe, in bytes.
const SAMPLE_BYTES_MAX: usize = 4 * 1024;

/// A window under way.
pub(crate) struct Pull {
    fetcher: Fetcher,
    bookmark: Bookmark,
    window: Window,
    cursor_max: Option<Rank>,
    cursor_last: Option<Rank>,
    /// Hashes of the tokens of this run; at most `pages_max`.
    seen: HashSet<u64>,
    empty_pages: u32,
    start: Start,
    /// Reported instead of the page after this one.
    doom: Option<Error>,
}

/// How this run came to its first page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// A token of an earlier run, not yet answered. If it has expired, the window begins again.
    Resumed,
    /// Any other way.
    Settled,
}

impl Pull {
    /// Resumes the window of `bookmark`, or opens one.
    pub(crate) fn new(fetcher: Fetcher, bookmark: Bookmark) -> Result<Self> {
        let stream = &fetcher.stream;
        let incremental = stream.incremental.as_ref();
        let bound = match incremental {
            Some(incremental) => {
                bound(incremental, &bookmark).map_err(|error| error.with("stream", &stream.name))?
            }
            None => None,
        };
        let shape = shape::of(&fetcher.source, stream);
        let open = |since| opened(since, &shape, fetcher.clock.now());
        let window = match &bookmark.window {
            Some(window) if window.shape.as_ref().is_some_and(|stored| *stored != shape) => {
                warn!(stream = %stream.name, "the request has changed, window begins again");
                open(bound)
            }
            Some(window) if paginate::fits(stream, &window.next) => window.clone(),
            Some(window) => {
                warn!(stream = %stream.name, "page token does not fit the paginator, window begins again");
                open(window.since.clone())
            }
            None => open(bound),
        };
        let cursor_max = match (incremental, &window.cursor_max) {
            (Some(incremental), Some(text)) => cursor::rank_of_text(&incremental.format, text),
            _ => None,
        };
        let start = if window.next == START {
            Start::Settled
        } else {
            Start::Resumed
        };
        let seen = [Some(&window.next), window.repeated.as_ref()];
        let seen = seen.into_iter().flatten().map(|token| hash(token)).collect();
        Ok(Self {
            fetcher,
            bookmark,
            window,
            cursor_max,
            cursor_last: None,
            seen,
            empty_pages: 0,
            start,
            doom: None,
        })
    }

    /// Sends page after page to `sender` until the window or the patience of the receiver ends.
    pub(crate) async fn run(mut self: Box<Self>, sender: mpsc::Sender<Result<Fetched>>) {
        // `step` fails at `pages_max`. A permit first: no page is fetched that has no place to wait.
        while let Ok(permit) = sender.reserve().await {
            let stepped = self.step().await;
            let more = matches!(&stepped, Ok(fetched) if fetched.position != Position::Last);
            permit.send(stepped);
            if !more {
                return;
            }
        }
    }

    async fn step(&mut self) -> Result<Fetched> {
        if let Some(error) = self.doom.take() {
            return Err(error);
        }
        let limits = self.fetcher.source.limits;
        if self.window.pages >= limits.pages_max {
            return Err(self
                .error(ErrorKind::Limit, "fetch pages")
                .with("pages_max", limits.pages_max));
        }
        let (request, answer) = self.fetch().await?;
        self.count(&answer);
        let reading = match &answer.reading {
            Ok(reading) => reading.clone(),
            &Err(reason) => return Ok(self.evidence(&request, answer, reason)),
        };
        let next = self.following(&request, &answer, reading.records).await?;
        if request.token == START {
            self.compare_clocks(&answer);
        }
        self.take(&reading);
        let page = page(&request, &answer, next.as_deref());
        let position = match next {
            None => {
                self.close();
                Position::Last
            }
            // A place without records that points to itself is where the records end.
            Some(token) if token == request.token && reading.records == 0 => {
                self.close();
                Position::Last
            }
            Some(token) => {
                self.advance(&token, reading.records, &answer)?;
                Position::Middle
            }
        };
        debug!(
            stream = %self.fetcher.stream.name,
            page = self.window.pages,
            status = page.facts.status,
            records = reading.records,
            bytes = page.body.len(),
            last = position == Position::Last,
            "page fetched"
        );
        Ok(Fetched {
            page,
            records: reading.records,
            bookmark: self.bookmark.clone(),
            position,
        })
    }

    /// Fetches the page the window stands at; begins the window again, once, if a resumed token has expired.
    async fn fetch(&mut self) -> Result<(PageRequest, Answer)> {
        let request = self.request()?;
        let number = self.window.pages + 1;
        let unanswered = match self.fetcher.fetch(&request, number, self.cursor_last).await {
            Ok(answer) => {
                self.start = Start::Settled;
                return Ok((request, answer));
            }
            Err(unanswered) => unanswered,
        };
        let Unanswered { status, error } = *unanswered;
        if self.start != Start::Resumed || !matches!(status, Some(400 | 404 | 410 | 422)) {
            return Err(error);
        }
        warn!(stream = %self.fetcher.stream.name, status, "page token has expired, window begins again");
        self.start = Start::Settled;
        let shape = shape::of(&self.fetcher.source, &self.fetcher.stream);
        self.window = opened(self.window.since.clone(), &shape, self.fetcher.clock.now());
        self.cursor_max = None;
        self.seen = HashSet::from([hash(START)]);
        let request = self.request()?;
        match self.fetcher.fetch(&request, 1, None).await {
            Ok(answer) => Ok((request, answer)),
            Err(unanswered) => Err(unanswered.error),
        }
    }

    fn request(&self) -> Result<PageRequest> {
        let Fetcher { source, stream, .. } = &self.fetcher;
        PageRequest::build(source, stream, &self.ask(&self.window.next))
    }

    fn ask(&self, token: &str) -> Ask {
        Ask {
            token: token.to_owned(),
            page: self.window.pages + 1,
            since: self.window.since.clone(),
            ..Ask::default()
        }
    }

    /// The token after this page, without our secrets; `None` at the end of the window.
    async fn following(
        &self,
        request: &PageRequest,
        answer: &Answer,
        records: u64,
    ) -> Result<Option<String>> {
        let (stream, base) = (
            Arc::clone(&self.fetcher.stream),
            self.fetcher.source.base_url.clone(),
        );
        let (request, head, body) = (
            request.clone(),
            answer.response.head.clone(),
            answer.response.body.clone(),
        );
        let decided = off_thread(body.len(), move || {
            paginate::next(&stream, &base, &request, &head, &body, records)
        })
        .await?;
        let token = match decided.map_err(|error| error.with("stream", &self.fetcher.stream.name))? {
            Next::End => return Ok(None),
            Next::Token(token) => token,
        };
        if !paginate::is_url(&self.fetcher.stream.paginate.next) {
            return Ok(Some(token));
        }
        let mut url = Url::parse(&token)
            .map_err(|cause| Error::new(ErrorKind::Internal, "read next link").caused_by(cause))?;
        answer.masks.strip(&mut url);
        Ok(Some(url.into()))
    }

    fn count(&self, answer: &Answer) {
        let progress = &self.fetcher.progress;
        add(&progress.pages, 1);
        add(&progress.bytes, answer.response.body.len() as u64);
        add(&progress.wire_bytes, answer.response.wire_bytes);
        if let Ok(reading) = &answer.reading {
            add(&progress.records, reading.records);
            add(&progress.cursors_missing, reading.cursors_missing);
            add(&progress.cursors_future, reading.cursors_future);
            add(&progress.cursors_unsorted, reading.cursors_unsorted);
        }
    }

    /// A server whose clock is behind ours dates what changes during the window before the moment it opened.
    fn compare_clocks(&mut self, answer: &Answer) {
        if let Some(answered_at) = server_time(&answer.response.head.headers) {
            self.window.opened_at = self.window.opened_at.map(|ours| ours.min(answered_at));
        }
    }

    fn take(&mut self, reading: &Reading) {
        self.window.pages += 1;
        self.window.records += reading.records;
        self.cursor_max = self.cursor_max.max(reading.cursor_max);
        self.cursor_last = reading.cursor_last;
        if let Some(incremental) = &self.fetcher.stream.incremental {
            self.window.cursor_max = self
                .cursor_max
                .map(|rank| cursor::canonical(&incremental.format, rank));
        }
    }

    fn advance(&mut self, token: &str, records: u64, answer: &Answer) -> Result<()> {
        let empty_pages_max = self.fetcher.source.limits.empty_pages_max;
        self.empty_pages = if records == 0 { self.empty_pages + 1 } else { 0 };
        if self.empty_pages > empty_pages_max {
            return Err(self
                .error(
                    ErrorKind::Limit,
                    "wait for records that the server says there are",
                )
                .with("empty_pages_max", empty_pages_max));
        }
        if !self.seen.insert(hash(token)) {
            // This page is good and is handed out; what follows would never end. The bookmark stays before it: the
            // next run asks this page once more, and goes round again only if another token comes back.
            self.doom = Some(
                self.error(ErrorKind::Refused, "follow a page token for the second time")
                    .with("page", self.window.pages)
                    .with("token", excerpt(&answer.masks.token(token))),
            );
            if let Some(window) = &mut self.bookmark.window {
                window.repeated = Some(token.to_owned());
            }
            return Ok(());
        }
        self.window.next = token.to_owned();
        self.window.repeated = None;
        self.bookmark.window = Some(self.window.clone());
        Ok(())
    }

    fn close(&mut self) {
        let Fetcher {
            stream,
            clock,
            progress,
            ..
        } = &self.fetcher;
        if let Some(incremental) = &stream.incremental {
            let known = self.bookmark.watermark.as_ref();
            let known = known.and_then(|text| cursor::rank_of_text(&incremental.format, text));
            let cap = self.window.opened_at;
            let cap = cap.and_then(|opened_at| cursor::cap(&incremental.format, opened_at));
            let found = self.cursor_max.map(|rank| cap.map_or(rank, |cap| rank.min(cap)));
            // Never back: a window without news leaves the watermark where it is.
            if let Some(rank) = known.max(found) {
                self.bookmark.watermark = Some(cursor::canonical(&incremental.format, rank));
                self.bookmark.cursor = Some(cursor::identity(incremental));
            }
        }
        self.bookmark.window = None;
        self.bookmark.last_success_at = Some(clock.now());
        let counts = progress.counts();
        if counts.cursors_missing > 0 || counts.cursors_future > 0 {
            warn!(
                stream = %stream.name,
                cursors_missing = counts.cursors_missing,
                cursors_future = counts.cursors_future,
                "some records did not count for the watermark"
            );
        }
        if counts.cursors_unsorted > 0 {
            debug!(stream = %stream.name, cursors_unsorted = counts.cursors_unsorted, "records are not in cursor order");
        }
    }

    fn evidence(&mut self, request: &PageRequest, answer: Answer, reason: Unreadable) -> Fetched {
        self.doom = Some(
            self.error(ErrorKind::Refused, "read page")
                .with("url", answer.masks.url(request.url.as_str()))
                .with("attempts", answer.attempts)
                .with("status", answer.response.head.status)
                .with("problem", reason),
        );
        Fetched {
            page: page(request, &answer, None),
            records: 0,
            bookmark: self.bookmark.clone(),
            position: Position::Evidence(reason.to_string()),
        }
    }

    /// See [`Extraction::probe`](crate::extract::window::Extraction::probe).
    pub(crate) async fn probe(&self) -> Result<Probe> {
        let Fetcher { source, stream, .. } = &self.fetcher;
        let request = PageRequest::build(source, stream, &self.ask(START))?;
        let answer = self
            .fetcher
            .fetch(&request, 1, None)
            .await
            .map_err(|unanswered| unanswered.error)?;
        let response = &answer.response;
        let url = answer.masks.url(response.head.url.as_str());
        let reading = answer.reading.clone().map_err(|reason| {
            self.error(ErrorKind::Refused, "read page")
                .with("url", &url)
                .with("status", response.head.status)
                .with("problem", reason)
        })?;
        let next = self.following(&request, &answer, reading.records).await?;
        let mut first = None;
        // The text was checked as a whole a moment ago.
        let _ = stream.records.select(&response.body, &mut |range| {
            first.get_or_insert(range);
        });
        Ok(Probe {
            url,
            status: response.head.status,
            bytes: response.body.len() as u64,
            attempts: answer.attempts,
            records: reading.records,
            cursors_missing: stream.incremental.as_ref().map(|_| reading.cursors_missing),
            next: next.map(|token| excerpt(&answer.masks.token(&token))),
            first_record: first.map(|range| {
                response
                    .body
                    .slice(range.start..range.end.min(range.start + SAMPLE_BYTES_MAX))
            }),
            body: response.body.clone(),
        })
    }

    fn error(&self, kind: ErrorKind, attempt: &'static str) -> Error {
        Error::new(kind, attempt).with("stream", &self.fetcher.stream.name)
    }
}

/// Where a window that follows `bookmark` begins; also the check that its watermark can be used at all.
fn bound(incremental: &Incremental, bookmark: &Bookmark) -> Result<Option<String>> {
    cursor::check(incremental, bookmark.cursor.as_deref())?;
    cursor::bound(incremental, bookmark.watermark.as_deref())
}

fn opened(since: Option<String>, shape: &str, now: Timestamp) -> Window {
    Window {
        opened_at: Some(now),
        shape: Some(shape.to_owned()),
        since,
        next: START.to_owned(),
        ..Window::default()
    }
}

fn page(request: &PageRequest, answer: &Answer, returned: Option<&str>) -> Page {
    let Answer {
        response,
        masks,
        attempts,
        fetched_at,
        ..
    } = answer;
    Page {
        body: response.body.clone(),
        facts: facts::of(request, &response.head, masks, *attempts, *fetched_at, returned),
    }
}

fn hash(token: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    token.hash(&mut hasher);
    hasher.finish()
}

fn excerpt(token: &str) -> String {
    token.chars().take(120).collect()
}
