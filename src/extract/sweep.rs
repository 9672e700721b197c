//! A pass over the slices of a stream: several at once, each with a mark of its own.
//!
//! ```text
//! Slices (values in a fixed order) ─ one task ─► Pull per slice, at most `at_once` ─► steps ─► bookmark
//! ```

use std::{
    collections::{BTreeMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use chrono::TimeDelta;
use serde_json::{Map, Value};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{AbortHandle, JoinSet},
};
use tracing::{error, warn};

use crate::{
    config::{
        errors::Retry,
        slice::{Patience, SliceState, Slicing},
    },
    error::{Error, ErrorKind, Result},
    extract::{
        cursor,
        fetch::Fetcher,
        pull::{Mark, Pull, Step},
        retry, shape,
        window::{Position, Scope},
    },
    raw::{
        BatchNumber, Bookmark,
        frame::{hex, sha256},
        letter::{DEAD_LETTERS_MAX, DeadLetter, UNNAMED},
        pass::{Done, Pass, SliceMark, Tally},
    },
};

/// Slices that may fail before a pass is given up: something is wrong with all of them.
pub const FAILURES_MAX: usize = 100;

/// Slices that may wait for another attempt before none is begun that was not tried yet: something is wrong with all of
/// them, and each takes room in the bookmark.
pub const WAITING_MAX: usize = 1000;

/// Longest reason kept of a slice that failed, in characters.
const REASON_CHARS_MAX: usize = 300;

/// Values of slices read ahead of the slices at work.
const AHEAD: usize = 64;

/// The values of the slices of one pass, in an order that is the same for every run of the pass.
pub struct Slices {
    /// Values, or why there are no more.
    pub values: mpsc::Receiver<Result<Map<String, Value>>>,
    /// Batches of parent streams they are read from: first and last.
    pub parents: BTreeMap<String, (BatchNumber, BatchNumber)>,
}

/// A pass under way.
pub(crate) struct Sweep {
    fetcher: Fetcher,
    slicing: Slicing,
    receiver: mpsc::Receiver<Event>,
    task: AbortHandle,
    failures: Vec<Error>,
    /// Slices that were asked for in vain in this run, of a stream with patience.
    missed: usize,
    /// Whether a slice was to be given up, and there was no room for it.
    no_room: bool,
    /// Whether the values could not be read to their end.
    unread: bool,
    /// Slices that ended well or badly in this run.
    ended: u64,
}

/// The slice a step belongs to.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Its number within the pass; none if it is repeated because it failed before.
    number: Option<u64>,
    values: Arc<Map<String, Value>>,
}

/// What the task and its pulls report.
enum Event {
    Step {
        number: Option<u64>,
        values: Arc<Map<String, Value>>,
        step: Box<Result<Step, Failure>>,
    },
    /// The values could not be read to their end.
    Unread(Error),
}

/// Why a slice failed.
struct Failure {
    error: Error,
    /// Whether its own values are to blame: no other attempt can go better.
    is_own: bool,
}

impl Failure {
    fn of(error: Error) -> Self {
        Self { error, is_own: false }
    }

    fn own(error: Error) -> Self {
        Self { error, is_own: true }
    }
}

impl Slices {
    /// Slices whose values are known.
    pub fn listed(values: impl Iterator<Item = Map<String, Value>> + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel(AHEAD);
        tokio::spawn(async move {
            // Ends with the values, or with the receiver.
            for slice in values {
                if sender.send(Ok(slice)).await.is_err() {
                    return;
                }
            }
        });
        Self {
            values: receiver,
            parents: BTreeMap::new(),
        }
    }

    /// The first of them.
    pub(crate) async fn first(&mut self) -> Result<Map<String, Value>> {
        match self.values.recv().await {
            Some(slice) => slice,
            None => Err(Error::new(ErrorKind::Refused, "find a slice").with(
                "hint",
                "extract the parent stream first: its records are the slices",
            )),
        }
    }
}

/// The key of a slice in a bookmark: its values as JSON, names in order.
pub fn key(values: &Map<String, Value>) -> String {
    let sorted: BTreeMap<&String, &Value> = values.iter().collect();
    // Texts, numbers and arrays of these; they always serialize.
    serde_json::to_string(&sorted).unwrap_or_default()
}

impl Sweep {
    /// Begins a pass, or goes on with the one of `bookmark`.
    pub(crate) fn begin(fetcher: &Fetcher, scope: &Scope, slices: Slices, bookmark: &mut Bookmark) -> Self {
        let stream = &fetcher.stream;
        let slicing = stream.slices.clone().unwrap_or_else(|| Slicing::by(Vec::new()));
        let shape = pass_shape(fetcher, scope, &slicing);
        let goes_on = |pass: &&Pass| pass.shape == shape && pass.parents == slices.parents;
        let pass = bookmark.pass.as_ref().filter(goes_on).cloned();
        let pass = pass.unwrap_or_else(|| Pass {
            opened_at: fetcher.clock.now(),
            cap: fetcher.clock.now(),
            shape,
            complete: *scope == Scope::Complete,
            cursor_max: None,
            tally: Tally::default(),
            parents: slices.parents.clone(),
            done: Done::default(),
        });
        let (sender, receiver) = mpsc::channel(slicing.at_once.max(1) as usize);
        let feed = Feed {
            fetcher: fetcher.clone(),
            scope: scope.clone(),
            slicing: slicing.clone(),
            done: pass.done.clone(),
            marks: bookmark.slices.clone(),
            shared: Mark {
                watermark: bookmark.watermark.clone(),
                cursor: bookmark.cursor.clone(),
                window: None,
                paginator: bookmark.paginator.clone(),
                page_size: bookmark.page_size,
                tally: Tally::default(),
                opened_at: None,
                alarms: Vec::new(),
            },
            sender,
        };
        bookmark.pass = Some(pass);
        // Of a time when the stream was not sliced.
        bookmark.window = None;
        let task = tokio::spawn(feed.run(slices.values)).abort_handle();
        Self {
            fetcher: fetcher.clone(),
            slicing,
            receiver,
            task,
            failures: Vec::new(),
            missed: 0,
            no_room: false,
            unread: false,
            ended: 0,
        }
    }

    /// The next step of any slice, to be [applied](Self::apply) when it is landed; `None` when every slice has ended well.
    ///
    /// # Errors
    /// After the last slice, if some failed; at once, if the failure is none of theirs.
    pub(crate) async fn next(&mut self, bookmark: &mut Bookmark) -> Result<Option<(Slot, Step)>> {
        // Ends with the slices, of which there are at most `slices_max`.
        while let Some(event) = self.receiver.recv().await {
            match event {
                Event::Step { number, values, step } => match *step {
                    Ok(step) => return Ok(Some((Slot { number, values }, step))),
                    Err(failure) => self.failed(bookmark, number, &values, failure)?,
                },
                Event::Unread(error) => self.end_early(bookmark, error),
            }
        }
        self.finish(bookmark)
    }

    /// Moves `bookmark` past a step, and says what it is to the pass.
    pub(crate) fn apply(&mut self, bookmark: &mut Bookmark, slot: &Slot, step: Step) -> Position {
        self.mark(bookmark, slot, &step);
        match step.position {
            // The end of a slice is not that of the pass.
            Position::Last => Position::Middle,
            position => position,
        }
    }

    fn mark(&mut self, bookmark: &mut Bookmark, slot: &Slot, step: &Step) {
        if matches!(step.position, Position::Evidence(_)) {
            return;
        }
        let Slot { number, values } = slot;
        let mark = &step.mark;
        bookmark.cursor = mark.cursor.clone().or(bookmark.cursor.take());
        bookmark.paginator = mark.paginator.clone().or(bookmark.paginator.take());
        // The least that any slice could bear: page numbers of open windows were counted at that size or a larger one.
        let sizes = [mark.page_size, bookmark.page_size];
        bookmark.page_size = sizes.into_iter().flatten().min();
        bookmark.unstable |= mark.tally.unstable;
        bookmark.report(mark.alarms.clone());
        if let Some(pass) = &mut bookmark.pass {
            pass.tally.records += step.records;
            pass.tally.unstable |= mark.tally.unstable;
            pass.tally.short |= mark.tally.short;
            pass.cap = pass.cap.min(mark.opened_at.unwrap_or(pass.cap));
        }
        let key = key(values);
        let is_done = step.position == Position::Last;
        let shared = self.slicing.state == SliceState::Shared;
        let watermark = mark.watermark.clone().filter(|_| !shared);
        if is_done {
            self.ended += 1;
            if let Some(pass) = &mut bookmark.pass {
                pass.tally.ignored += mark.tally.ignored;
                if let Some(number) = number {
                    pass.done.insert(*number);
                }
                if shared {
                    pass.cursor_max = self.later(pass.cursor_max.take(), mark.watermark.clone());
                }
            }
        }
        if is_done {
            bookmark.dead.remove(&key);
        }
        let known = bookmark.slices.remove(&key);
        if mark.window.is_none() && watermark.is_none() {
            return;
        }
        let slice = SliceMark {
            watermark,
            window: mark.window.clone(),
            changed_at: self.fetcher.clock.now(),
            ..known.filter(|_| !is_done).unwrap_or_default()
        };
        bookmark.slices.insert(key, slice);
        self.forget(bookmark);
    }

    /// Keeps the number of marks within bounds; never one that is still needed within the pass.
    fn forget(&self, bookmark: &mut Bookmark) {
        let kept_max = usize::try_from(self.slicing.kept_max).unwrap_or(usize::MAX);
        // Rarely, and many at a time.
        if bookmark.slices.len() <= kept_max.saturating_add(kept_max / 8) {
            return;
        }
        let idle = |mark: &SliceMark| mark.window.is_none() && mark.failed.is_none();
        let mut moments: Vec<_> = bookmark.slices.values().filter(|mark| idle(mark)).collect();
        moments.sort_by_key(|mark| mark.changed_at);
        let surplus = bookmark.slices.len() - kept_max;
        let Some(last) = moments.get(surplus.min(moments.len()).saturating_sub(1)) else {
            return;
        };
        let until = last.changed_at;
        let before = bookmark.slices.len();
        bookmark
            .slices
            .retain(|_, mark| !idle(mark) || mark.changed_at > until);
        warn!(stream = %self.fetcher.stream.name, forgotten = before - bookmark.slices.len(),
            kept_max = self.slicing.kept_max, "marks of slices are forgotten; these slices begin at their start again");
    }

    /// Takes note that the values could not be read to their end.
    fn end_early(&mut self, bookmark: &mut Bookmark, error: Error) {
        self.unread = true;
        // With patience the next run names what is lost, and what is behind it is numbered anew.
        if self.slicing.patience.is_some()
            && error.kind() == ErrorKind::Corrupt
            && let Some(pass) = &mut bookmark.pass
        {
            pass.done = Done::default();
        }
        self.failures.push(error);
    }

    /// Takes note of a slice that failed. Others go on unless nothing of this kind can go well, or too many have failed.
    fn failed(
        &mut self,
        bookmark: &mut Bookmark,
        number: Option<u64>,
        values: &Map<String, Value>,
        failure: Failure,
    ) -> Result<()> {
        let Failure { error, is_own } = failure;
        warn!(stream = %self.fetcher.stream.name, slice = key(values), error = error.chain(), "slice failed");
        self.ended += 1;
        let fatal = !is_own && matches!(error.kind(), ErrorKind::Config | ErrorKind::Internal);
        let mark = bookmark.slices.entry(key(values)).or_default();
        mark.changed_at = self.fetcher.clock.now();
        mark.failed = Some(values.clone());
        if let Some(patience) = self.slicing.patience.filter(|_| !fatal) {
            let attempts_max = if is_own { 1 } else { patience.attempts_max };
            let patience = Patience {
                attempts_max,
                ..patience
            };
            self.delay(bookmark, number, values, &error, patience);
            // What names nothing says nothing about the others.
            self.missed += usize::from(!values.contains_key(UNNAMED));
            if self.missed < FAILURES_MAX {
                return Ok(());
            }
        }
        self.failures.push(error);
        if fatal || self.failures.len().max(self.missed) >= FAILURES_MAX {
            self.task.abort();
            return Err(self.summary());
        }
        Ok(())
    }

    /// Has a slice that failed be asked for again later, or gives it up.
    fn delay(
        &mut self,
        bookmark: &mut Bookmark,
        number: Option<u64>,
        values: &Map<String, Value>,
        error: &Error,
        patience: Patience,
    ) {
        let (key, now) = (key(values), self.fetcher.clock.now());
        let room = bookmark.dead.len() < DEAD_LETTERS_MAX;
        let mark = bookmark.slices.entry(key.clone()).or_default();
        mark.attempts = mark.attempts.saturating_add(1);
        let reason: String = error.chain().chars().take(REASON_CHARS_MAX).collect();
        let is_hopeless = mark.attempts >= patience.attempts_max;
        if is_hopeless && room {
            let letter = DeadLetter {
                values: values.clone(),
                reason,
                attempts: mark.attempts,
                at: now,
            };
            error!(stream = %self.fetcher.stream.name, event = key, attempts = letter.attempts,
                reason = letter.reason, "event given up: it is a dead letter");
            bookmark.slices.remove(&key);
            bookmark.dead.insert(key, letter);
            if let (Some(pass), Some(number)) = (&mut bookmark.pass, number) {
                pass.done.insert(number);
            }
            let note = "events were given up: `landfall gaps` lists the dead letters, and --retry-dead-letters tries \
                        them again";
            self.fetcher.progress.note(note.to_owned());
            return;
        }
        let retry = Retry {
            attempts_max: patience.attempts_max,
            backoff_start: patience.backoff_start,
            backoff_max: patience.backoff_max,
            retry_after_max: patience.backoff_max,
        };
        let wait = retry::backoff(&retry, mark.attempts, rand::random());
        mark.retry_at = TimeDelta::from_std(wait)
            .ok()
            .and_then(|wait| now.checked_add_signed(wait));
        mark.reason = Some(reason);
        let note = "events could not be answered and are tried again later: `landfall gaps` lists them";
        self.fetcher.progress.note(note.to_owned());
        if is_hopeless && !self.no_room {
            // Once, and the others go on.
            self.no_room = true;
            self.failures.push(self.too_many_dead());
        }
    }

    fn too_many_dead(&self) -> Error {
        Error::new(ErrorKind::Limit, "give an event up")
            .with("stream", &self.fetcher.stream.name)
            .with("dead_letters_max", DEAD_LETTERS_MAX)
            .with(
                "hint",
                "there are that many dead letters: --retry-dead-letters tries them again, --discard-dead-letters \
                 forgets them",
            )
    }

    /// The pass is over: what failed is remembered, and does not hold what did not.
    fn finish(&mut self, bookmark: &mut Bookmark) -> Result<Option<(Slot, Step)>> {
        if self.unread {
            return Err(self.summary());
        }
        let now = self.fetcher.clock.now();
        if let Some(pass) = bookmark.pass.take() {
            for (name, (_, last)) in &pass.parents {
                bookmark.parents.insert(name.clone(), *last);
            }
            // A slice that failed has its window, but the others' watermark would pass over it.
            if self.failures.is_empty() {
                let reached = self.capped(&pass);
                bookmark.watermark = self.later(bookmark.watermark.take(), reached);
                let first = bookmark.last_success_at.is_none();
                bookmark.last_success_at = Some(now);
                bookmark.last_pass = Some(pass.tally);
                say_ignored(&self.fetcher, pass.tally);
                bookmark.alarms.retain(|alarm| alarm.at >= pass.opened_at);
                // With patience a pass over what is new is no pass over everything.
                let whole = pass.complete || first || self.fetcher.stream.incremental.is_none();
                if whole && self.slicing.patience.is_none() {
                    bookmark.complete_at = Some(now);
                    bookmark.unstable = pass.tally.unstable;
                    if let Some(note) = bookmark.count_whole(pass.tally.records, now) {
                        warn!(stream = %self.fetcher.stream.name, "{note}");
                        self.fetcher.progress.note(note);
                    }
                }
            }
        }
        if self.failures.is_empty() {
            Ok(None)
        } else {
            Err(self.summary())
        }
    }

    /// The shared watermark that a pass reached: nothing later than the moment it began.
    fn capped(&self, pass: &Pass) -> Option<String> {
        let format = &self.fetcher.stream.incremental.as_ref()?.format;
        let rank = cursor::rank_of_text(format, pass.cursor_max.as_ref()?)?;
        let cap = cursor::cap(format, pass.cap);
        Some(cursor::canonical(format, cap.map_or(rank, |cap| rank.min(cap))))
    }

    /// The later of two cursors.
    fn later(&self, one: Option<String>, other: Option<String>) -> Option<String> {
        let incremental = self.fetcher.stream.incremental.as_ref();
        let rank = |text: &Option<String>| {
            let text = text.as_ref()?;
            cursor::rank_of_text(&incremental?.format, text)
        };
        if rank(&other) > rank(&one) || one.is_none() {
            other
        } else {
            one
        }
    }

    fn summary(&mut self) -> Error {
        let failed = self.failures.len().max(self.missed);
        let first = self.failures.swap_remove(0);
        let kind =
            if !self.failures.is_empty() && self.failures.iter().all(|error| error.kind() != first.kind()) {
                ErrorKind::Refused
            } else {
                first.kind()
            };
        Error::new(kind, "extract slices")
            .with("stream", &self.fetcher.stream.name)
            .with("failed", failed)
            .with("of", self.ended)
            .with("hint", "the others are landed; the next run asks for these again")
            .caused_by(first)
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts a pull for every slice that is not done.
struct Feed {
    fetcher: Fetcher,
    scope: Scope,
    slicing: Slicing,
    done: Done,
    marks: BTreeMap<String, SliceMark>,
    shared: Mark,
    sender: mpsc::Sender<Event>,
}

impl Feed {
    async fn run(self, mut values: mpsc::Receiver<Result<Map<String, Value>>>) {
        let permits = Arc::new(Semaphore::new(self.slicing.at_once.max(1) as usize));
        let mut pulls = JoinSet::new();
        let now = self.fetcher.clock.now();
        let mut failed: BTreeMap<&String, &SliceMark> = self
            .marks
            .iter()
            .filter(|(_, mark)| mark.failed.is_some())
            .collect();
        let is_held = self.slicing.patience.is_some() && failed.len() >= WAITING_MAX;
        let mut held_back = false;
        let mut known = HashSet::new();
        let mut number = 0;
        // What failed before comes last, so that a pass that is given up after many failures gets further each time.
        let mut deferred = Vec::new();
        // Ends with the values, or at `slices_max`.
        while let Some(slice) = values.recv().await {
            let slice = match slice {
                Ok(slice) if number < self.slicing.slices_max => slice,
                Ok(_) => return self.unread(self.too_many()).await,
                Err(error) => return self.unread(error).await,
            };
            let key = key(&slice);
            if !known.insert(hash(&key)) {
                continue;
            }
            let failed_before = failed.remove(&key);
            if let Some(mark) = failed_before {
                if !self.done.contains(number) && mark.is_due(now) {
                    deferred.push((Some(number), key, slice));
                }
            } else if is_held {
                // What waits goes first.
                held_back = true;
                break;
            } else if !self.done.contains(number) {
                let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                    return;
                };
                pulls.spawn(self.pull(Some(number), slice, &key, permit));
            }
            number += 1;
            while pulls.try_join_next().is_some() {}
        }
        let failed = failed.into_iter().filter(|(_, mark)| mark.is_due(now));
        deferred.extend(failed.filter_map(|(key, mark)| Some((None, key.clone(), mark.failed.clone()?))));
        for (number, key, slice) in deferred {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                return;
            };
            pulls.spawn(self.pull(number, slice, &key, permit));
        }
        while pulls.join_next().await.is_some() {}
        if held_back {
            self.unread(self.too_many_wait()).await;
        }
    }

    fn pull(
        &self,
        number: Option<u64>,
        values: Map<String, Value>,
        key: &str,
        permit: OwnedSemaphorePermit,
    ) -> impl Future<Output = ()> + use<> {
        let mut mark = self.shared.clone();
        let known = self.marks.get(key);
        mark.window = known.and_then(|known| known.window.clone());
        if self.slicing.state == SliceState::PerSlice {
            mark.watermark = known.and_then(|known| known.watermark.clone());
        }
        let standing = mark.clone();
        let pull = match values.get(UNNAMED) {
            None => self.open(&values, mark),
            Some(place) => Err(Failure::own(
                Error::new(ErrorKind::Corrupt, "find the record that an event names")
                    .with("event", place)
                    .with(
                        "hint",
                        "the event has not all of hydrate.values, lacks what hydrate.only asks about, or cannot be read",
                    ),
            )),
        };
        let sender = self.sender.clone();
        async move {
            let _permit = permit;
            let values = Arc::new(values);
            let event = |step: Result<Step, Failure>| Event::Step {
                number,
                values: Arc::clone(&values),
                step: Box::new(step),
            };
            let mut pull = match pull {
                Ok(Some(pull)) => pull,
                ended => {
                    let nothing = Step {
                        landed: None,
                        records: 0,
                        mark: standing,
                        position: Position::Last,
                        hold: None,
                    };
                    // The receiver may be gone; then nobody wants to know.
                    let _ = sender.send(event(ended.map(|_| nothing))).await;
                    return;
                }
            };
            // `step` fails at `pages_max`. A permit first: no page is fetched that has no place to wait.
            while let Ok(place) = sender.reserve().await {
                let stepped = pull.step().await.map_err(Failure::of);
                let more = matches!(&stepped, Ok(step) if step.position != Position::Last);
                place.send(event(stepped));
                if !more {
                    return;
                }
            }
        }
    }

    /// A pull of the slice; with patience only if there is a request for it.
    fn open(&self, values: &Map<String, Value>, mark: Mark) -> Result<Option<Pull>, Failure> {
        let pull = Pull::new(self.fetcher.clone(), values.clone(), self.scope.clone(), mark);
        let pull = pull.map_err(Failure::of)?;
        if let (Some(pull), Some(_)) = (&pull, self.slicing.patience)
            && let Some(misfit) = pull.misfit().map_err(Failure::of)?
        {
            return Err(Failure::own(misfit));
        }
        Ok(pull)
    }

    fn too_many(&self) -> Error {
        Error::new(ErrorKind::Limit, "count slices")
            .with("stream", &self.fetcher.stream.name)
            .with("slices_max", self.slicing.slices_max)
            .with(
                "hint",
                "raise slices.slices_max, or ask for fewer parents with only:",
            )
    }

    fn too_many_wait(&self) -> Error {
        Error::new(ErrorKind::Limit, "begin with new events")
            .with("stream", &self.fetcher.stream.name)
            .with("waiting_max", WAITING_MAX)
            .with(
                "hint",
                "that many could not be answered: `landfall gaps` says why; new ones are asked for once these are done",
            )
    }

    async fn unread(&self, error: Error) {
        // The receiver may be gone; then nobody wants to know.
        let _ = self.sender.send(Event::Unread(error)).await;
    }
}

/// What a pass is made from: another one begins again.
fn pass_shape(fetcher: &Fetcher, scope: &Scope, slicing: &Slicing) -> String {
    let by = format!(
        "{:?} {:?} {scope:?} {}",
        slicing.by,
        slicing.combine,
        shape::of(&fetcher.source, &fetcher.stream)
    );
    hex(&sha256(by.as_bytes()))
}

/// Says so at the end of a pass in which answers were ignored.
pub(crate) fn say_ignored(fetcher: &Fetcher, tally: Tally) {
    if tally.ignored > 0 {
        warn!(stream = %fetcher.stream.name, ignored = tally.ignored,
            "the pass ended with answers that error rules ignored: it cannot tell what is gone at the source");
    }
}

fn hash(key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}
