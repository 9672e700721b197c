//! One slice's windows while their pages are fetched, and the guards that make them end.

mod decide;
mod export;
mod look;
mod remedy;
mod whole;
mod windows;

use std::{collections::VecDeque, sync::Arc};

use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tracing::{debug, warn};

use crate::{
    clock::Timestamp,
    config::{
        incremental::{CursorFormat, Incremental},
        paginate::Paginate,
    },
    error::{Error, ErrorKind, Result},
    extract::{
        bounds::Bounds,
        client::Response,
        cursor::{self, Rank},
        earlier::Untaken,
        facts,
        fetch::{Answer, Fetcher, Verdict},
        job::Export,
        paginate::{
            self, Why,
            detect::Detected,
            guard::{Alarm, Guard, Seen, Stuck},
            resize,
        },
        progress::add,
        pull::windows::{first_windows, later_windows, opened, seen},
        reading::{Reading, Unreadable},
        request::{Ask, PageRequest, START},
        retry::server_time,
        shape,
        spool::{Parts, Records},
        window::{LOOKAHEAD_BYTES_MAX, Position, Scope},
    },
    json,
    raw::{Page, PageFacts, Reported, Window, pass::Tally},
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
    /// What the windows of the pass that have ended came to, in this run and before it.
    pub(crate) tally: Tally,
    /// The least moment that one of them opened.
    pub(crate) opened_at: Option<Timestamp>,
    /// What was reported since the last step.
    pub(crate) alarms: Vec<Reported>,
}

/// A step of a slice: a page, or a place reached without one.
#[derive(Debug)]
pub(crate) struct Step {
    /// What is to be landed; none if it held nothing new or was no page.
    pub(crate) landed: Option<Landed>,
    /// Records in it.
    pub(crate) records: u64,
    /// Where the slice stands once the page is committed.
    pub(crate) mark: Mark,
    /// What the step is to the slice.
    pub(crate) position: Position,
    /// Keeps the slice from going on until it is dropped, once the step is committed.
    pub(crate) hold: Option<oneshot::Sender<()>>,
}

/// What a step came to, with its place among those fetched ahead.
pub(crate) type Waiting = (Result<Step>, Option<OwnedSemaphorePermit>);

impl Step {
    /// Bytes of the body that is held for it.
    fn bytes(&self) -> u32 {
        match &self.landed {
            Some(Landed::Page(page)) => u32::try_from(page.body.len()).unwrap_or(u32::MAX),
            // In a file, but for one part.
            Some(Landed::Parts(_)) => u32::MAX,
            None => 0,
        }
    }
}

/// What is to be landed of one answer.
#[derive(Debug)]
pub(crate) enum Landed {
    /// A page.
    Page(Page),
    /// The parts of a body too large for one.
    Parts(Parts),
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
    /// Bodies of earlier attempts, to be handed out before anything else.
    earlier: VecDeque<Step>,
    /// The page that was fetched after those.
    fetched: Option<(PageRequest, Answer)>,
    /// Reported instead of the page after this one.
    doom: Option<Error>,
    /// Where the pages come from, if not from requests alone.
    export: Option<Export>,
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
        mut mark: Mark,
    ) -> Result<Option<Self>> {
        let (scope, doom) = whole::scope(&fetcher, scope, &mark);
        let changes = |window: &Window| window.complete != Some(true);
        let job = mark.window.as_ref().and_then(|window| window.job.clone());
        if scope == Scope::Complete
            && fetcher.stream.incremental.is_some()
            && mark.window.as_ref().is_some_and(changes)
        {
            // A window over changes is no part of a pass over everything, which asks for those too.
            mark.window = None;
        }
        fetcher = whole::fetcher(fetcher, &scope, &mark);
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
        (mark.tally, mark.opened_at) = (window.earlier, window.pass_opened_at);
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
            export: Export::of(&fetcher, job.filter(|_| window.job.is_none())),
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
            earlier: VecDeque::new(),
            fetched: None,
            doom,
        }))
    }

    /// Sends step after step to `sender` until the slice or the patience of the receiver ends.
    pub(crate) async fn run(mut self: Box<Self>, sender: mpsc::Sender<Waiting>) {
        let room = Arc::new(Semaphore::new(LOOKAHEAD_BYTES_MAX as usize));
        // `step` fails at `pages_max`. A permit first: no page is fetched that has no place to wait.
        while let Ok(permit) = sender.reserve().await {
            let stepped = self.step().await;
            let more = matches!(&stepped, Ok(step) if step.position != Position::Last);
            let bytes = stepped.as_ref().map_or(0, Step::bytes).min(LOOKAHEAD_BYTES_MAX);
            // The semaphore is never closed. Without a receiver nobody gives room back.
            let taken = tokio::select! {
                taken = Arc::clone(&room).acquire_many_owned(bytes) => taken.ok(),
                () = sender.closed() => return,
            };
            permit.send((stepped, taken));
            if !more {
                return;
            }
        }
    }

    /// The next step; an error ends the slice.
    pub(crate) async fn step(&mut self) -> Result<Step> {
        if let Some(step) = self.earlier.pop_front() {
            return Ok(step);
        }
        if let Some(error) = self.doom.take() {
            return Err(error);
        }
        let limits = self.fetcher.source.limits;
        // Ends with the remedies, of which there is a bounded number.
        let (request, answer) = loop {
            if let Some(found) = self.fetched.take() {
                break found;
            }
            if let Some(step) = Box::pin(self.before_page()).await? {
                return Ok(step);
            }
            if self.window.pages >= limits.pages_max {
                return Err(self
                    .error(ErrorKind::Limit, "fetch pages")
                    .with("pages_max", limits.pages_max));
            }
            let fetched = self.fetch().await;
            if let Some(step) = self.earlier.pop_front() {
                match fetched {
                    Ok(fetched) => self.fetched = fetched,
                    Err(error) => self.doom = Some(error),
                }
                return Ok(step);
            }
            if let Some(found) = fetched? {
                break found;
            }
        };
        self.count(&answer);
        match &answer.verdict {
            Verdict::Page | Verdict::Partial => {}
            Verdict::End => return Ok(self.end()),
            Verdict::Ignored { status, rule } => {
                self.fetcher
                    .progress
                    .note(format!("answers of status {status} ignored, as {rule} says"));
                Box::pin(self.abandon_job()).await;
                return Ok(self.give_up());
            }
        }
        let reading = match &answer.reading {
            Ok(reading) => reading.clone(),
            &Err(reason) => {
                self.forget_late_job();
                return Ok(self.evidence(&request, answer, reason));
            }
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
        let landed = self
            .is_new(&reading)
            .then(|| landed(&request, &answer, &self.slice, returned));
        let mut hold = None;
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
            (_, After::End(why)) => {
                let (position, until) = self.end_pages(why);
                hold = until;
                position
            }
        };
        debug!(
            stream = %self.fetcher.stream.name,
            page = self.window.pages,
            status = answer.response.head.status,
            records = reading.records,
            bytes = answer.response.bytes(),
            last = position == Position::Last,
            "page fetched"
        );
        Ok(Step {
            landed,
            records: reading.records,
            mark: self.standing(),
            position,
            hold,
        })
    }

    /// Fetches the page the window stands at; none if something else has to be asked for first, as the server says.
    async fn fetch(&mut self) -> Result<Option<(PageRequest, Answer)>> {
        let (fetcher, request) = self.page_request()?;
        let number = self.window.pages + 1;
        let fetched = fetcher.fetch(&request, number, self.cursor_last, self.bounds.from);
        // On the heap: futures within futures grow with every level, and the compiler counts them.
        match Box::pin(fetched).await {
            Ok(mut answer) => {
                self.start = Start::Settled;
                let earlier = std::mem::take(&mut answer.earlier);
                let taken = answer.reading.is_ok() && matches!(answer.verdict, Verdict::Page | Verdict::End);
                self.keep_earlier(earlier, taken);
                Ok(Some((request, answer)))
            }
            Err(mut lost) => {
                let earlier = std::mem::take(&mut lost.earlier);
                self.keep_earlier(earlier, false);
                if self.is_lost(lost.status) {
                    return Ok(None);
                }
                if self.export.is_some() {
                    return Box::pin(self.job_remedy(*lost)).await.map(|()| None);
                }
                self.remedy(*lost).map(|()| None)
            }
        }
    }

    /// Keeps the bodies of earlier attempts to be landed, each on its own, before what follows from the last one.
    fn keep_earlier(&mut self, earlier: Vec<Untaken>, superseded: bool) {
        for untaken in earlier {
            let progress = &self.fetcher.progress;
            add(&progress.pages, 1);
            add(&progress.bytes, untaken.response.bytes());
            add(&progress.wire_bytes, untaken.response.wire_bytes);
            let Untaken {
                response,
                reason,
                mut facts,
                records,
            } = untaken;
            facts.slice = (!self.slice.is_empty()).then(|| self.slice.clone());
            facts.partial = records.is_some();
            facts.superseded = superseded;
            self.earlier.push_back(Step {
                landed: Some(body_of(&response, facts, records.is_some())),
                records: records.unwrap_or_default(),
                mark: self.mark.clone(),
                position: Position::Evidence(reason),
                hold: None,
            });
        }
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

    fn count(&self, answer: &Answer) {
        let progress = &self.fetcher.progress;
        add(&progress.pages, 1);
        add(&progress.bytes, answer.response.bytes());
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
        self.look_back(why);
        self.leave();
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

    /// Takes account of a result set that has ended.
    fn look_back(&mut self, why: Why) {
        let alarms = self.guard.end(&self.fetcher.stream, why);
        self.sound(&alarms);
        let tally = &mut self.mark.tally;
        tally.unstable |= self.guard.seen().unstable;
        tally.short |= alarms.iter().any(|alarm| matches!(alarm, Alarm::Short { .. }));
    }

    /// Adds the window, which has ended, to what the pass came to.
    fn leave(&mut self) {
        self.mark.tally.records += self.window.records;
        let moments = [self.mark.opened_at, self.window.opened_at];
        self.mark.opened_at = moments.into_iter().flatten().min();
    }

    /// The window ends with an answer that is no page.
    fn end(&mut self) -> Step {
        let (position, hold) = self.end_pages(Why::NoRecords);
        Step {
            landed: None,
            records: 0,
            mark: self.standing(),
            position,
            hold,
        }
    }

    /// The slice ends with an answer that a rule ignores: what is behind it is not known, so the watermark stays.
    fn give_up(&mut self) -> Step {
        self.look_back(Why::Condition);
        self.leave();
        self.mark.tally.ignored += 1;
        self.mark.window = None;
        self.ahead = Box::new(std::iter::empty());
        Step {
            landed: None,
            records: 0,
            mark: self.standing(),
            position: Position::Last,
            hold: None,
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
            landed: Some(landed(request, answer, &self.slice, None)),
            records: reading.records,
            mark: self.mark.clone(),
            position: Position::Evidence(problem.to_owned()),
            hold: None,
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
        self.window.earlier = self.mark.tally;
        self.window.pass_opened_at = self.mark.opened_at;
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
            landed: Some(landed(request, &answer, &self.slice, None)),
            records: 0,
            mark: self.mark.clone(),
            position: Position::Evidence(reason.to_string()),
            hold: None,
        }
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

/// Where a change feed stands after a page.
fn position_of(incremental: &Incremental, body: &[u8]) -> Option<String> {
    let value = incremental.cursor.first(body).ok().flatten()?;
    match value.first()? {
        b'"' => json::text(value).map(std::borrow::Cow::into_owned),
        b'-' | b'0'..=b'9' => std::str::from_utf8(value).ok().map(str::to_owned),
        _ => None,
    }
}

fn landed(
    request: &PageRequest,
    answer: &Answer,
    slice: &Map<String, Value>,
    returned: Option<&str>,
) -> Landed {
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
    body_of(response, facts, answer.reading.is_ok())
}

fn body_of(response: &Response, facts: PageFacts, readable: bool) -> Landed {
    let Some(spool) = &response.spool else {
        return Landed::Page(Page {
            body: response.body.clone(),
            facts,
        });
    };
    let records = if readable {
        Records::Readable
    } else {
        Records::Unreadable
    };
    Landed::Parts(Parts::new(Arc::clone(spool), facts, records))
}

fn excerpt(token: &str) -> String {
    token.chars().take(120).collect()
}
