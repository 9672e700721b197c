//! One slice's windows while their pages are fetched, and the guards that make them end.

use std::{
    collections::{HashSet, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tracing::{debug, warn};
use url::Url;

use crate::{
    clock::Timestamp,
    config::incremental::{CursorFormat, Filter, Incremental, OnExpired, Order},
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
        window::{Position, Probe, Scope},
    },
    json,
    raw::{Page, Window},
};

/// Shown of a first record by a probe, in bytes.
const SAMPLE_BYTES_MAX: usize = 4 * 1024;

/// Times one run begins a window again, or asks for a smaller page, before it gives up.
const REMEDIES_MAX: u32 = 16;

/// Where a slice stands; the part of a bookmark that its pages move.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Mark {
    /// See [`Bookmark::watermark`](crate::raw::Bookmark::watermark).
    pub(crate) watermark: Option<String>,
    /// What the watermark is a value of.
    pub(crate) cursor: Option<String>,
    /// The window in progress.
    pub(crate) window: Option<Window>,
    /// The paginator that was found out, as text.
    pub(crate) paginator: Option<String>,
    /// The page size the server could bear.
    pub(crate) page_size: Option<u64>,
}

/// A step of a slice: a page, or a place reached without one.
#[derive(Debug)]
pub(crate) struct Step {
    /// The page to land; none if it held nothing new or was no page.
    pub(crate) page: Option<Page>,
    /// Records in it.
    pub(crate) records: u64,
    /// Where the slice stands once the page is committed.
    pub(crate) mark: Mark,
    /// What the step is to the slice.
    pub(crate) position: Position,
}

/// A slice under way.
pub(crate) struct Pull {
    fetcher: Fetcher,
    slice: Map<String, Value>,
    scope: Scope,
    mark: Mark,
    window: Window,
    /// Bounds of the windows after this one.
    ahead: VecDeque<Bounds>,
    cursor_max: Option<Rank>,
    cursor_last: Option<Rank>,
    /// Hashes of the tokens of this run; at most `pages_max`.
    seen: HashSet<u64>,
    empty_pages: u32,
    start: Start,
    remedies: u32,
    /// Reported instead of the page after this one.
    doom: Option<Error>,
}

/// What a window asks for.
#[derive(Clone, Debug, Default, PartialEq)]
struct Bounds {
    since: Option<String>,
    until: Option<String>,
}

/// How this run came to its first page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// A token of an earlier run, not yet answered. If it has expired, the window begins again.
    Resumed,
    /// Any other way.
    Settled,
}

/// What follows a page.
enum After {
    /// The page with this token.
    Token(String),
    /// Nothing in this window.
    End,
}

impl Pull {
    /// Resumes the window of `mark`, or opens one.
    pub(crate) fn new(fetcher: Fetcher, slice: Map<String, Value>, scope: Scope, mark: Mark) -> Result<Self> {
        let name = fetcher.stream.name.clone();
        let mut ahead = windows(&fetcher, &scope, &mark).map_err(|error| error.with("stream", &name))?;
        let first = ahead.pop_front().unwrap_or_default();
        let shape = shape::of(&fetcher.source, &fetcher.stream);
        let open = |bounds: Bounds| opened(bounds, &scope, &shape, fetcher.clock.now());
        let window = match &mark.window {
            Some(window) if window.shape.as_ref().is_some_and(|stored| *stored != shape) => {
                warn!(stream = %name, "the request has changed, window begins again");
                open(first)
            }
            Some(window) if paginate::fits(&fetcher.stream, &window.next) => {
                ahead = after(ahead, first, window);
                window.clone()
            }
            Some(window) => {
                warn!(stream = %name, "page token does not fit the paginator, window begins again");
                open(Bounds {
                    since: window.since.clone(),
                    until: window.until.clone(),
                })
            }
            None => open(first),
        };
        let cursor_max = match (&fetcher.stream.incremental, &window.cursor_max) {
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
            slice,
            scope,
            mark,
            window,
            ahead,
            cursor_max,
            cursor_last: None,
            seen,
            empty_pages: 0,
            start,
            remedies: 0,
            doom: None,
        })
    }

    /// Sends step after step to `sender` until the slice or the patience of the receiver ends.
    pub(crate) async fn run(mut self: Box<Self>, sender: mpsc::Sender<Result<Step>>) {
        // `step` fails at `pages_max`. A permit first: no page is fetched that has no place to wait.
        while let Ok(permit) = sender.reserve().await {
            let stepped = self.step().await;
            let more = matches!(&stepped, Ok(step) if step.position != Position::Last);
            permit.send(stepped);
            if !more {
                return;
            }
        }
    }

    /// The next step; an error ends the slice.
    pub(crate) async fn step(&mut self) -> Result<Step> {
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
        let after = self.following(&request, &answer, &reading).await?;
        if request.token == START {
            self.compare_clocks(&answer);
        }
        self.take(&reading, &answer);
        let returned = match &after {
            After::Token(token) => Some(token.as_str()),
            After::End => None,
        };
        let page = self
            .is_new(&reading)
            .then(|| page(&request, &answer, &self.slice, returned));
        let position = match after {
            // A place without records that points to itself is where the records end.
            After::Token(token) if token == request.token && reading.records == 0 => self.close(),
            After::Token(token) => {
                self.advance(&token, reading.records, &answer)?;
                Position::Middle
            }
            After::End => self.close(),
        };
        debug!(
            stream = %self.fetcher.stream.name,
            page = self.window.pages,
            status = answer.response.head.status,
            records = reading.records,
            bytes = answer.response.body.len(),
            last = position == Position::Last,
            "page fetched"
        );
        Ok(Step {
            page,
            records: reading.records,
            mark: self.mark.clone(),
            position,
        })
    }

    /// Fetches the page the window stands at, in another way if the server says that this one will not do.
    async fn fetch(&mut self) -> Result<(PageRequest, Answer)> {
        // Ends with `REMEDIES_MAX`.
        loop {
            let request = self.request()?;
            let number = self.window.pages + 1;
            match self.fetcher.fetch(&request, number, self.cursor_last, self.bound()).await {
                Ok(answer) => {
                    self.start = Start::Settled;
                    return Ok((request, answer));
                }
                Err(unanswered) => self.remedy(*unanswered)?,
            }
        }
    }

    /// Changes what is asked for, or returns the error to stop with.
    fn remedy(&mut self, unanswered: Unanswered) -> Result<()> {
        let Unanswered { status, error } = unanswered;
        self.remedies += 1;
        if self.remedies > REMEDIES_MAX {
            return Err(error.with("remedies_max", REMEDIES_MAX));
        }
        let expired = match self.start {
            Start::Resumed => matches!(status, Some(400 | 404 | 410 | 422)),
            Start::Settled => status == Some(410),
        };
        if !expired {
            return Err(error);
        }
        if self.window.next != START {
            if self.start == Start::Settled && self.remedies > 1 {
                return Err(error.with("problem", "the page token expires before it is used"));
            }
            warn!(stream = %self.fetcher.stream.name, status, "page token has expired, window begins again");
            self.begin_again();
            return Ok(());
        }
        self.expired(error)
    }

    /// The API no longer knows where the stream stood.
    fn expired(&mut self, error: Error) -> Result<()> {
        let Some(incremental) = &self.fetcher.stream.incremental else {
            return Err(error);
        };
        if self.window.since.is_none() {
            return Err(error);
        }
        match incremental.on_expired {
            OnExpired::Stop => Err(error
                .with("problem", "cursor_expired")
                .with("since", self.window.since.as_deref().unwrap_or_default())
                .with(
                    "hint",
                    "changes since then are lost at the source; set incremental.on_expired: resync, or run with --complete, to ask for everything again",
                )),
            OnExpired::Resync => {
                warn!(stream = %self.fetcher.stream.name, since = self.window.since,
                    "the position has expired, everything is asked for again");
                self.scope = Scope::Complete;
                self.ahead.clear();
                let since = cursor::bound(incremental, None, self.fetcher.clock.now())?;
                self.open(Bounds { since, until: None });
                Ok(())
            }
        }
    }

    /// The same window from its first page; from the greatest cursor seen if the API sends the oldest first.
    fn begin_again(&mut self) {
        let sorted = |incremental: &&Incremental| incremental.order == Order::OldestFirst;
        let reached = self.fetcher.stream.incremental.as_ref().filter(sorted);
        let since = match (reached, self.cursor_max) {
            (Some(incremental), Some(rank)) => Some(cursor::canonical(&incremental.format, rank)),
            _ => self.window.since.clone(),
        };
        let until = self.window.until.clone();
        self.open(Bounds { since, until });
    }

    fn open(&mut self, bounds: Bounds) {
        let shape = shape::of(&self.fetcher.source, &self.fetcher.stream);
        self.window = opened(bounds, &self.scope, &shape, self.fetcher.clock.now());
        self.start = Start::Settled;
        self.cursor_max = None;
        self.cursor_last = None;
        self.empty_pages = 0;
        self.seen = HashSet::from([hash(START)]);
    }

    /// The rank of the window's lower bound.
    fn bound(&self) -> Option<Rank> {
        let incremental = self.fetcher.stream.incremental.as_ref()?;
        cursor::rank_of_text(&incremental.format, self.window.since.as_deref()?)
    }

    fn request(&self) -> Result<PageRequest> {
        let Fetcher { source, stream, .. } = &self.fetcher;
        PageRequest::build(source, stream, &self.ask(&self.window.next))
    }

    fn ask(&self, token: &str) -> Ask {
        let size = self.fetcher.stream.paginate.size.as_ref();
        Ask {
            token: token.to_owned(),
            page: self.window.pages + 1,
            size: size.map(|size| self.mark.page_size.unwrap_or(size.records)),
            since: self.window.since.clone(),
            until: self.window.until.clone(),
            slice: self.slice.clone(),
            watermark: self.mark.watermark.clone(),
            ..Ask::default()
        }
    }

    /// The token after this page, without our secrets.
    async fn following(&self, request: &PageRequest, answer: &Answer, reading: &Reading) -> Result<After> {
        let (stream, base) = (
            Arc::clone(&self.fetcher.stream),
            self.fetcher.source.base_url.clone(),
        );
        let (request, head, body) = (
            request.clone(),
            answer.response.head.clone(),
            answer.response.body.clone(),
        );
        let records = reading.records;
        let decided = off_thread(body.len(), move || {
            paginate::next(&stream, &base, &request, &head, &body, records)
        })
        .await?;
        let token = match decided.map_err(|error| error.with("stream", &self.fetcher.stream.name))? {
            Next::End => return Ok(After::End),
            Next::Token(token) => token,
        };
        if self.is_behind(reading) {
            return Ok(After::End);
        }
        if !paginate::is_url(&self.fetcher.stream.paginate.next) {
            return Ok(After::Token(token));
        }
        let mut url = Url::parse(&token)
            .map_err(|cause| Error::new(ErrorKind::Internal, "read next link").caused_by(cause))?;
        answer.masks.strip(&mut url);
        Ok(After::Token(url.into()))
    }

    /// Whether everything that follows a page is older than what was asked for.
    fn is_behind(&self, reading: &Reading) -> bool {
        let newest_first = |incremental: &Incremental| incremental.order == Order::NewestFirst;
        self.fetcher.stream.incremental.as_ref().is_some_and(newest_first)
            && reading.records > 0
            && reading.cursors_before == reading.records
    }

    /// Whether a page holds anything to land.
    fn is_new(&self, reading: &Reading) -> bool {
        let here = |incremental: &Incremental| incremental.filter == Filter::Here;
        !(self.fetcher.stream.incremental.as_ref().is_some_and(here)
            && reading.records > 0
            && reading.cursors_before == reading.records)
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

    fn take(&mut self, reading: &Reading, answer: &Answer) {
        self.window.pages += 1;
        self.window.records += reading.records;
        let Some(incremental) = &self.fetcher.stream.incremental else {
            return;
        };
        if incremental.format == CursorFormat::Feed {
            if let Some(position) = position_of(incremental, &answer.response.body) {
                self.window.cursor_max = Some(position);
            }
            return;
        }
        self.cursor_max = self.cursor_max.max(reading.cursor_max);
        self.cursor_last = reading.cursor_last;
        self.window.cursor_max = self
            .cursor_max
            .map(|rank| cursor::canonical(&incremental.format, rank));
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
            if let Some(window) = &mut self.mark.window {
                window.repeated = Some(token.to_owned());
            }
            return Ok(());
        }
        self.window.next = token.to_owned();
        self.window.repeated = None;
        self.mark.window = Some(self.window.clone());
        Ok(())
    }

    /// Ends the window; the last one ends the slice.
    fn close(&mut self) -> Position {
        self.move_watermark();
        self.mark.window = None;
        match self.ahead.pop_front() {
            Some(bounds) => {
                self.open(bounds);
                Position::Middle
            }
            None => Position::Last,
        }
    }

    fn move_watermark(&mut self) {
        let Some(incremental) = &self.fetcher.stream.incremental else {
            return;
        };
        let moved = if incremental.format == CursorFormat::Feed {
            self.window.cursor_max.clone().or(self.mark.watermark.take())
        } else {
            let known = self.mark.watermark.as_ref();
            let known = known.and_then(|text| cursor::rank_of_text(&incremental.format, text));
            let cap = self.window.opened_at;
            let cap = cap.and_then(|opened_at| cursor::cap(&incremental.format, opened_at));
            let found = self.cursor_max.map(|rank| cap.map_or(rank, |cap| rank.min(cap)));
            // Never back: a window without news leaves the watermark where it is.
            known
                .max(found)
                .map(|rank| cursor::canonical(&incremental.format, rank))
        };
        if moved.is_some() {
            self.mark.watermark = moved;
            self.mark.cursor = Some(cursor::identity(incremental));
        }
    }

    fn evidence(&mut self, request: &PageRequest, answer: Answer, reason: Unreadable) -> Step {
        let masks = &answer.masks;
        self.doom = Some(
            self.error(ErrorKind::Refused, "read page")
                .with("url", masks.url(answer.response.head.url.as_str()))
                .with("status", answer.response.head.status)
                .with("attempts", answer.attempts)
                .with("problem", reason),
        );
        Step {
            page: Some(page(request, &answer, &self.slice, None)),
            records: 0,
            mark: self.mark.clone(),
            position: Position::Evidence(reason.to_string()),
        }
    }

    /// See [`Extraction::probe`](crate::extract::window::Extraction::probe).
    pub(crate) async fn probe(&self) -> Result<Probe> {
        let Fetcher { source, stream, .. } = &self.fetcher;
        let request = PageRequest::build(source, stream, &self.ask(START))?;
        let answer = self
            .fetcher
            .fetch(&request, 1, None, None)
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
        let next = match self.following(&request, &answer, &reading).await? {
            After::Token(token) => Some(excerpt(&answer.masks.token(&token))),
            After::End => None,
        };
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
            next,
            first_record: first.map(|range| {
                response
                    .body
                    .slice(range.start..range.end.min(range.start + SAMPLE_BYTES_MAX))
            }),
            body: response.body.clone(),
        })
    }

    fn error(&self, kind: ErrorKind, attempt: &'static str) -> Error {
        let error = Error::new(kind, attempt).with("stream", &self.fetcher.stream.name);
        if self.slice.is_empty() {
            error
        } else {
            error.with("slice", Value::Object(self.slice.clone()))
        }
    }
}

/// The windows a slice is asked for in, the first of them the one to begin with; also the check that its watermark can
/// be used at all.
fn windows(fetcher: &Fetcher, scope: &Scope, mark: &Mark) -> Result<VecDeque<Bounds>> {
    let Some(incremental) = &fetcher.stream.incremental else {
        return Ok(VecDeque::from([Bounds::default()]));
    };
    cursor::check(incremental, mark.cursor.as_deref())?;
    let bounds = match scope {
        Scope::Changes => Bounds {
            since: cursor::bound(incremental, mark.watermark.as_deref(), fetcher.clock.now())?,
            until: None,
        },
        Scope::Complete => Bounds {
            since: cursor::bound(incremental, None, fetcher.clock.now())?,
            until: None,
        },
        Scope::Backfill { from, to } => Bounds {
            since: Some(from.clone()),
            until: Some(to.clone()),
        },
    };
    Ok(VecDeque::from([bounds]))
}

/// What is still ahead of a window that an earlier run began.
fn after(mut ahead: VecDeque<Bounds>, first: Bounds, window: &Window) -> VecDeque<Bounds> {
    if first.since != window.since
        && let Some(place) = ahead.iter().position(|bounds| bounds.since == window.since)
    {
        ahead.drain(..=place);
    }
    ahead
}

fn opened(bounds: Bounds, scope: &Scope, shape: &str, now: Timestamp) -> Window {
    Window {
        opened_at: Some(now),
        shape: Some(shape.to_owned()),
        since: bounds.since,
        until: bounds.until,
        complete: (*scope == Scope::Complete).then_some(true),
        next: START.to_owned(),
        ..Window::default()
    }
}

/// Where a change feed stands after a page.
fn position_of(incremental: &Incremental, body: &[u8]) -> Option<String> {
    let value = incremental.cursor.first(body).ok().flatten()?;
    match value.first()? {
        b'"' => json::text(value).map(std::borrow::Cow::into_owned),
        b'-' | b'0'..=b'9' => std::str::from_utf8(value).ok().map(str::to_owned),
        _ => None,
    }
}

fn page(request: &PageRequest, answer: &Answer, slice: &Map<String, Value>, returned: Option<&str>) -> Page {
    let Answer {
        response,
        masks,
        attempts,
        fetched_at,
        ..
    } = answer;
    let mut facts = facts::of(request, &response.head, masks, *attempts, *fetched_at, returned);
    facts.slice = (!slice.is_empty()).then(|| slice.clone());
    Page {
        body: response.body.clone(),
        facts,
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
