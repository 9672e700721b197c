//! One slice's windows while their pages are fetched, and the guards that make them end.

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};
use url::Url;

use crate::{
    clock::Timestamp,
    config::{
        Stream,
        incremental::{CursorFormat, Filter, Incremental, OnExpired, Order},
        paginate::Paginate,
    },
    error::{Error, ErrorKind, Result},
    extract::{
        bounds::{Bounds, Windows, backfill_windows, windows, windows_after},
        channel::moved,
        client::Response,
        cursor::{self, Rank},
        facts,
        fetch::{Answer, Fetcher, Remedy, Unanswered, Verdict, off_thread},
        mask::Masks,
        paginate::{
            self, Next, Turn, Why,
            detect::{Certainty, Detected, detect},
            guard::{Alarm, Guard, Seen, Stuck},
            resize,
        },
        progress::add,
        reading::{Reading, Unreadable},
        request::{Ask, PageRequest, START},
        retry::server_time,
        shape,
        window::{Planned, Position, Probe, Scope},
    },
    format, json,
    raw::{Page, Reported, Window},
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
    /// Whether pages shifted while they were read, so that only a complete pass can tell what is missing.
    pub(crate) unstable: bool,
    /// What was reported since the last step.
    pub(crate) alarms: Vec<Reported>,
    /// Records of the windows of this run, and of the one it resumed.
    pub(crate) records: u64,
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
    /// See [`shape::of`].
    shape: String,
    mark: Mark,
    window: Window,
    bounds: Bounds,
    /// The windows after this one.
    ahead: Ahead,
    guard: Guard,
    cursor_max: Option<Rank>,
    cursor_last: Option<Rank>,
    start: Start,
    remedies: u32,
    /// Reported instead of the page after this one.
    doom: Option<Error>,
}

/// Windows still to come; none for a stream without bounds.
type Ahead = Box<dyn Iterator<Item = Bounds> + Send>;

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
    End(Why),
}

/// What was decided about a page.
struct Decided {
    after: After,
    alarms: Vec<Alarm>,
    /// Why the page after this one will not be asked for.
    stuck: Option<Stuck>,
}

impl Pull {
    /// Resumes the window of `mark`, or opens one; `None` if there is nothing to ask for.
    pub(crate) fn new(
        mut fetcher: Fetcher,
        slice: Map<String, Value>,
        scope: Scope,
        mark: Mark,
    ) -> Result<Option<Self>> {
        let name = fetcher.stream.name.clone();
        let shape = shape::of(&fetcher.source, &fetcher.stream);
        if let (Paginate::Auto, Some(text)) = (&fetcher.stream.paginate.next, &mark.paginator) {
            fetcher.stream = Arc::new(Detected::from_text(text)?.applied(&fetcher.stream));
        }
        let now = fetcher.clock.now();
        let mut ahead = first_windows(&fetcher.stream, &scope, &mark, now)
            .map_err(|error| error.with("stream", &name))?;
        let resumes = match &mark.window {
            Some(window) if window.shape.as_ref().is_some_and(|stored| *stored != shape) => {
                warn!(stream = %name, "the request has changed, window begins again");
                None
            }
            Some(window) if paginate::fits(&fetcher.stream, &window.next) => Some(window.clone()),
            Some(window) => {
                warn!(stream = %name, "page token does not fit the paginator, window begins again");
                Some(Window {
                    opened_at: Some(now),
                    next: START.to_owned(),
                    repeated: None,
                    pages: 0,
                    records: 0,
                    cursor_max: None,
                    ..window.clone()
                })
            }
            None => None,
        };
        let (window, bounds) = match (resumes, &fetcher.stream.incremental) {
            (Some(window), Some(incremental)) => {
                let bounds = Bounds::stored(incremental, window.since.as_deref(), window.until.as_deref());
                ahead = later_windows(incremental, &scope, &bounds, now)?;
                (window, bounds)
            }
            (Some(window), None) => {
                ahead = Box::new(std::iter::empty());
                (window, Bounds::default())
            }
            (None, _) => {
                let Some(bounds) = ahead.next() else {
                    return Ok(None);
                };
                (opened(&bounds, &scope, &shape, now), bounds)
            }
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
        let tokens = [Some(window.next.as_str()), window.repeated.as_deref()];
        let guard = Guard::new(
            &fetcher.source.limits,
            seen(&window),
            tokens.into_iter().flatten(),
        );
        Ok(Some(Self {
            fetcher,
            slice,
            scope,
            shape,
            mark,
            window,
            bounds,
            ahead,
            guard,
            cursor_max,
            cursor_last: None,
            start,
            remedies: 0,
            doom: None,
        }))
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
        match &answer.verdict {
            Verdict::Page | Verdict::Partial => {}
            Verdict::End => return Ok(self.end()),
            Verdict::Ignored { status, rule } => {
                self.fetcher
                    .progress
                    .note(format!("answers of status {status} ignored, as {rule} says"));
                return Ok(self.end());
            }
        }
        let reading = match &answer.reading {
            Ok(reading) => reading.clone(),
            &Err(reason) => return Ok(self.evidence(&request, answer, reason)),
        };
        if answer.verdict == Verdict::Partial {
            return Ok(self.partial(&request, &answer, &reading));
        }
        let decided = self.decide(&request, &answer, &reading).await?;
        if request.token == START {
            self.compare_clocks(&answer);
        }
        self.take(&reading, &answer);
        self.sound(&decided.alarms);
        let returned = match &decided.after {
            After::Token(token) => Some(token.as_str()),
            After::End(_) => None,
        };
        let page = self
            .is_new(&reading)
            .then(|| page(&request, &answer, &self.slice, returned));
        let position = match (decided.stuck, decided.after) {
            (Some(stuck @ Stuck::EmptyPages { .. }), _) => return Err(self.stuck(stuck)),
            (Some(stuck), After::Token(token)) => {
                // This page is good and is handed out; what follows would never end. The bookmark stays before it: the
                // next run asks this page once more, and goes round again only if another token comes back.
                let error = self.stuck(stuck);
                self.doom = Some(error.with("token", excerpt(&answer.masks.token(&token))));
                if let Some(window) = &mut self.mark.window {
                    window.repeated = Some(token);
                }
                Position::Middle
            }
            (_, After::Token(token)) => self.advance(token)?,
            (_, After::End(why)) => self.close(why),
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
            mark: self.standing(),
            position,
        })
    }

    /// Fetches the page the window stands at, in another way if the server says that this one will not do.
    async fn fetch(&mut self) -> Result<(PageRequest, Answer)> {
        // Ends with `REMEDIES_MAX`.
        loop {
            let request = self.request()?;
            let number = self.window.pages + 1;
            match self
                .fetcher
                .fetch(&request, number, self.cursor_last, self.bounds.from)
                .await
            {
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
        let Unanswered { status, error, then } = unanswered;
        self.remedies += 1;
        if self.remedies > REMEDIES_MAX {
            return Err(error.with("remedies_max", REMEDIES_MAX));
        }
        match then {
            Some(Remedy::Split) => return self.split(error),
            Some(Remedy::SplitWindow) => return self.split_window(error),
            Some(Remedy::Reset) | None => {}
        }
        let expired = match self.start {
            Start::Resumed => matches!(status, Some(400 | 404 | 410 | 422)),
            Start::Settled => status == Some(410),
        };
        if !expired && then != Some(Remedy::Reset) {
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

    /// Asks for the same place in smaller pages.
    fn split(&mut self, error: Error) -> Result<()> {
        let Some(size) = self.size() else {
            return Err(error.with(
                "hint",
                "set paginate.size, so that a smaller page can be asked for",
            ));
        };
        let Some(split) = resize::split(&self.fetcher.stream, &self.window.next, size)? else {
            return Err(error
                .with("page_size", size)
                .with("problem", "no smaller page is possible"));
        };
        warn!(stream = %self.fetcher.stream.name, from = size, to = split.size, "page size halved");
        self.mark.page_size = Some(split.size);
        self.window.next = split.token;
        Ok(())
    }

    /// Asks for the first half of the window, and for the other one after it.
    fn split_window(&mut self, error: Error) -> Result<()> {
        let halves = self.fetcher.stream.incremental.as_ref().and_then(|incremental| {
            let now = self.fetcher.clock.now();
            self.bounds.halves(incremental, now)
        });
        let Some((first, second)) = halves else {
            return Err(error.with("problem", "the window cannot be halved"));
        };
        warn!(stream = %self.fetcher.stream.name, since = first.since, until = first.until, "window halved");
        let later = std::mem::replace(&mut self.ahead, Box::new(std::iter::empty()));
        self.ahead = Box::new(std::iter::once(second).chain(later));
        self.open(first);
        Ok(())
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
                let now = self.fetcher.clock.now();
                let mut ahead: Ahead = Box::new(windows(incremental, None, now)?);
                let first = ahead.next().unwrap_or_default();
                self.scope = Scope::Complete;
                self.ahead = ahead;
                self.open(first);
                Ok(())
            }
        }
    }

    /// The same window from its first page; from the greatest cursor seen if the API sends the oldest first.
    fn begin_again(&mut self) {
        let sorted = |incremental: &&Incremental| incremental.order == Order::OldestFirst;
        let sorted = self
            .fetcher
            .stream
            .incremental
            .as_ref()
            .is_some_and(|incremental| sorted(&incremental));
        self.narrow(self.cursor_max.filter(|_| sorted));
    }

    /// Opens the window again, from `reached` if that is known.
    fn narrow(&mut self, reached: Option<Rank>) {
        let mut bounds = self.bounds.clone();
        if let (Some(rank), Some(incremental)) = (reached, &self.fetcher.stream.incremental) {
            bounds.since = Some(cursor::canonical(&incremental.format, rank));
            bounds.from = Some(rank);
        }
        let opened_at = self.window.opened_at;
        self.open(bounds);
        self.window.opened_at = opened_at;
    }

    fn open(&mut self, bounds: Bounds) {
        self.window = opened(&bounds, &self.scope, &self.shape, self.fetcher.clock.now());
        self.bounds = bounds;
        self.start = Start::Settled;
        self.cursor_max = None;
        self.cursor_last = None;
        self.guard = Guard::new(&self.fetcher.source.limits, Seen::default(), [START]);
    }

    fn request(&self) -> Result<PageRequest> {
        let Fetcher { source, stream, .. } = &self.fetcher;
        PageRequest::build(source, stream, &self.ask(&self.window.next))
    }

    /// How many records a page is asked to hold, if the request says it.
    fn size(&self) -> Option<u64> {
        let size = self.fetcher.stream.paginate.size.as_ref()?;
        Some(
            self.mark
                .page_size
                .map_or(size.records, |kept| kept.min(size.records)),
        )
    }

    fn ask(&self, token: &str) -> Ask {
        Ask {
            token: token.to_owned(),
            page: self.window.pages + 1,
            size: self.size(),
            since: self.window.since.clone(),
            until: self.window.until.clone(),
            slice: self.slice.clone(),
            watermark: self.mark.watermark.clone(),
            now: Some(self.fetcher.clock.now()),
            ..Ask::default()
        }
    }

    /// What follows this page, and what is odd about it.
    async fn decide(&mut self, request: &PageRequest, answer: &Answer, reading: &Reading) -> Result<Decided> {
        self.detect(request, answer, reading)?;
        let work = self.turning(request, answer, reading);
        let limits = self.fetcher.source.limits;
        let mut guard = std::mem::replace(&mut self.guard, Guard::new(&limits, Seen::default(), []));
        let body_bytes = answer.response.body.len();
        let (guard, next, found) = off_thread(body_bytes, move || {
            let turn = work.turn();
            let next = paginate::next(&turn);
            let found = next.as_ref().ok().map(|next| guard.page(&turn, next));
            (guard, next, found)
        })
        .await?;
        self.guard = guard;
        let after = self.after(answer, reading, next)?;
        let (alarms, stuck) = match found {
            Some(Ok(alarms)) => (alarms, None),
            Some(Err(stuck)) => (Vec::new(), Some(stuck)),
            None => (Vec::new(), None),
        };
        Ok(Decided { after, alarms, stuck })
    }

    /// The token after a page, without our secrets.
    fn after(&self, answer: &Answer, reading: &Reading, next: Result<Next>) -> Result<After> {
        let token = match next.map_err(|error| error.with("stream", &self.fetcher.stream.name))? {
            Next::End(why) => return Ok(After::End(why)),
            Next::Token(token) => token,
        };
        if self.is_behind(reading) {
            return Ok(After::End(Why::Condition));
        }
        if !paginate::is_url(&self.fetcher.stream.paginate.next) {
            return Ok(After::Token(token));
        }
        let mut url = Url::parse(&token)
            .map_err(|cause| Error::new(ErrorKind::Internal, "read next link").caused_by(cause))?;
        answer.masks.strip(&mut url);
        let home = moved(&url, &answer.base, &self.fetcher.source.base_url);
        Ok(After::Token(home.into()))
    }

    /// Everything a paginator looks at, to be taken to another thread.
    fn turning(&self, request: &PageRequest, answer: &Answer, reading: &Reading) -> Turning {
        Turning {
            stream: Arc::clone(&self.fetcher.stream),
            base: answer.base.clone(),
            request: request.clone(),
            answered: answer.response.clone(),
            reading: reading.clone(),
            size: self.size(),
            page: self.window.pages + 1,
        }
    }

    /// Finds out how the pages of a stream follow each other, if the project file leaves that to us.
    fn detect(&mut self, request: &PageRequest, answer: &Answer, reading: &Reading) -> Result<()> {
        if !matches!(self.fetcher.stream.paginate.next, Paginate::Auto) {
            return Ok(());
        }
        let work = self.turning(request, answer, reading);
        let detected = detect(&work.turn())?;
        let note = format!("paginate auto: {}", detected.found);
        info!(stream = %self.fetcher.stream.name, found = detected.found, "pagination detected");
        if detected.certainty != Certainty::Open {
            self.fetcher.progress.note(note);
        }
        if detected.certainty == Certainty::Settled {
            self.mark.paginator = detected.to_text();
        }
        self.fetcher.stream = Arc::new(detected.applied(&self.fetcher.stream));
        Ok(())
    }

    fn sound(&mut self, alarms: &[Alarm]) {
        for alarm in alarms {
            warn!(stream = %self.fetcher.stream.name, alarm = alarm.name(), "{alarm}");
            let text = format!("{}: {alarm}", alarm.name());
            self.fetcher.progress.note(text.clone());
            self.mark.alarms.push(Reported {
                at: self.fetcher.clock.now(),
                text,
            });
        }
    }

    fn stuck(&self, stuck: Stuck) -> Error {
        Error::from(stuck).with("stream", &self.fetcher.stream.name)
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

    fn advance(&mut self, token: String) -> Result<Position> {
        self.window.next = token;
        self.window.repeated = None;
        let paging = &self.fetcher.stream.paginate;
        if resize::reset(
            paging,
            self.guard.seen().records,
            self.bounds.from,
            self.cursor_max,
        )? {
            debug!(stream = %self.fetcher.stream.name, "the result set is full, window begins again from its greatest cursor");
            self.narrow(self.cursor_max);
        }
        self.keep_window();
        Ok(Position::Middle)
    }

    /// Ends the window; the last one ends the slice.
    fn close(&mut self, why: Why) -> Position {
        let alarms = self.guard.end(&self.fetcher.stream, why);
        self.sound(&alarms);
        self.mark.unstable |= self.guard.seen().unstable;
        self.mark.records += self.window.records;
        self.move_watermark();
        debug!(stream = %self.fetcher.stream.name, %why, pages = self.window.pages, "window ended");
        match self.ahead.next() {
            Some(bounds) => {
                self.open(bounds);
                self.keep_window();
                Position::Middle
            }
            None => {
                self.mark.window = None;
                Position::Last
            }
        }
    }

    /// The window ends with an answer that is no page.
    fn end(&mut self) -> Step {
        let position = self.close(Why::NoRecords);
        Step {
            page: None,
            records: 0,
            mark: self.standing(),
            position,
        }
    }

    /// A page of which the server says that something is missing: landed, and asked for again by the next run.
    fn partial(&mut self, request: &PageRequest, answer: &Answer, reading: &Reading) -> Step {
        let problem = "the answer says that a part of it is missing";
        self.doom = Some(
            self.error(ErrorKind::Refused, "read page")
                .with("url", answer.masks.url(answer.response.head.url.as_str()))
                .with("attempts", answer.attempts)
                .with("problem", problem)
                .with("body", answer.excerpt().unwrap_or_default()),
        );
        Step {
            page: Some(page(request, answer, &self.slice, None)),
            records: reading.records,
            mark: self.mark.clone(),
            position: Position::Evidence(problem.to_owned()),
        }
    }

    /// Where the slice stands; what was reported is handed on once.
    fn standing(&mut self) -> Mark {
        let alarms = std::mem::take(&mut self.mark.alarms);
        Mark {
            alarms,
            ..self.mark.clone()
        }
    }

    fn keep_window(&mut self) {
        let Seen {
            before,
            repeated,
            total,
            unstable,
            ..
        } = *self.guard.seen();
        self.window.before = before;
        self.window.repeats = repeated;
        self.window.total = total;
        self.window.unstable = unstable;
        self.mark.window = Some(self.window.clone());
    }

    fn move_watermark(&mut self) {
        let Some(incremental) = &self.fetcher.stream.incremental else {
            return;
        };
        let moved = if incremental.format == CursorFormat::Feed {
            self.window.cursor_max.clone().or(self.mark.watermark.take())
        } else {
            let opened_at = self.window.opened_at.unwrap_or_else(|| self.fetcher.clock.now());
            let known = self.mark.watermark.as_deref();
            self.bounds
                .watermark(incremental, known, self.cursor_max, opened_at)
        };
        if moved.is_some() {
            self.mark.watermark = moved;
            self.mark.cursor = Some(cursor::identity(incremental));
        }
        let counts = self.fetcher.progress.counts();
        if counts.cursors_missing > 0 || counts.cursors_future > 0 {
            warn!(
                stream = %self.fetcher.stream.name,
                cursors_missing = counts.cursors_missing,
                cursors_future = counts.cursors_future,
                "some records did not count for the watermark"
            );
        }
        if counts.cursors_unsorted > 0 {
            debug!(stream = %self.fetcher.stream.name, cursors_unsorted = counts.cursors_unsorted, "records are not in cursor order");
        }
    }

    fn evidence(&mut self, request: &PageRequest, answer: Answer, reason: Unreadable) -> Step {
        let masks = &answer.masks;
        self.doom = Some(
            self.error(ErrorKind::Refused, "read page")
                .with("url", masks.url(answer.response.head.url.as_str()))
                .with("status", answer.response.head.status)
                .with("attempts", answer.attempts)
                .with("problem", reason)
                .with("body", answer.excerpt().unwrap_or_default()),
        );
        Step {
            page: Some(page(request, &answer, &self.slice, None)),
            records: 0,
            mark: self.mark.clone(),
            position: Position::Evidence(reason.to_string()),
        }
    }

    /// See [`Extraction::plan`](crate::extract::window::Extraction::plan).
    pub(crate) fn plan(mut self, most: usize) -> Result<Vec<Planned>> {
        let mut planned = Vec::new();
        // Ends with the windows, or at `most`.
        while planned.len() < most {
            let Fetcher { source, stream, .. } = &self.fetcher;
            let request = self.request()?;
            let prepared = request.prepare(source, &stream.request)?;
            let masks = Masks::of(source, &stream.request)?;
            planned.push(Planned {
                method: request.method.as_str(),
                url: masks.url(prepared.url.as_str()),
                since: self.window.since.clone(),
                until: self.window.until.clone(),
                slice: self.slice.clone(),
            });
            match self.ahead.next() {
                Some(bounds) => self.open(bounds),
                None => break,
            }
        }
        Ok(planned)
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
        let work = self.turning(&request, &answer, &reading);
        let next = match self.after(&answer, &reading, paginate::next(&work.turn()))? {
            After::Token(token) => Some(excerpt(&answer.masks.token(&token))),
            After::End(_) => None,
        };
        let mut first = None;
        // The text was checked as a whole a moment ago.
        let limits = &format::Limits::DEFAULT;
        let _ = format::records(
            &stream.format,
            &stream.records,
            &response.body,
            limits,
            &mut |piece| {
                first.get_or_insert_with(|| piece.to_bytes(&response.body));
            },
        );
        Ok(Probe {
            url,
            status: response.head.status,
            bytes: response.body.len() as u64,
            attempts: answer.attempts,
            records: reading.records,
            cursors_missing: stream.incremental.as_ref().map(|_| reading.cursors_missing),
            next,
            first_record: first.map(|mut record| {
                record.truncate(SAMPLE_BYTES_MAX);
                record
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

/// What is taken to another thread to decide about a page.
struct Turning {
    stream: Arc<Stream>,
    base: Url,
    request: PageRequest,
    answered: Response,
    reading: Reading,
    size: Option<u64>,
    page: u64,
}

impl Turning {
    fn turn(&self) -> Turn<'_> {
        Turn {
            stream: &self.stream,
            base: &self.base,
            request: &self.request,
            head: &self.answered.head,
            body: &self.answered.body,
            reading: &self.reading,
            size: self.size,
            page: self.page,
        }
    }
}

/// The windows a slice is asked for in; also the check that its watermark can be used at all.
fn first_windows(stream: &Stream, scope: &Scope, mark: &Mark, now: Timestamp) -> Result<Ahead> {
    let Some(incremental) = &stream.incremental else {
        return Ok(Box::new(std::iter::once(Bounds::default())));
    };
    cursor::check(incremental, mark.cursor.as_deref())?;
    let windows: Windows = match scope {
        Scope::Changes => windows(incremental, mark.watermark.as_deref(), now)?,
        Scope::Complete => windows(incremental, None, now)?,
        Scope::Backfill { from, to } => backfill_windows(incremental, from, to)?,
    };
    Ok(Box::new(windows))
}

/// The windows after one that an earlier run began.
fn later_windows(incremental: &Incremental, scope: &Scope, last: &Bounds, now: Timestamp) -> Result<Ahead> {
    Ok(match scope {
        Scope::Changes | Scope::Complete => Box::new(windows_after(incremental, last, now)?),
        Scope::Backfill { from, to } => {
            let until = last.from;
            let windows = backfill_windows(incremental, from, to)?;
            Box::new(windows.skip_while(move |window| window.from <= until))
        }
    })
}

fn opened(bounds: &Bounds, scope: &Scope, shape: &str, now: Timestamp) -> Window {
    Window {
        opened_at: Some(now),
        shape: Some(shape.to_owned()),
        since: bounds.since.clone(),
        until: bounds.until.clone(),
        complete: (*scope == Scope::Complete).then_some(true),
        next: START.to_owned(),
        ..Window::default()
    }
}

fn seen(window: &Window) -> Seen {
    Seen {
        records: window.records,
        before: window.before,
        repeated: window.repeats,
        total: window.total,
        unstable: window.unstable,
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
    facts.partial = answer.verdict == Verdict::Partial;
    Page {
        body: response.body.clone(),
        facts,
    }
}

fn excerpt(token: &str) -> String {
    token.chars().take(120).collect()
}
