//! The shipper: takes sealed segments into the lake, several streams side by side, each stream in order.
//!
//! ```text
//! segments in order ─ load ─► parts ─ one per stream at a time ─► landed ─ all of them ─► segment removed
//!                                └─ failed: the stream waits, and what follows of it; the others go on
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::Future,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::{
    clock::Timestamp,
    config::StreamName,
    error::{Error, ErrorKind, Result},
    receive::spool::{
        Spool,
        load::{Loaded, finish, load, trim},
        pace::Pace,
        part::{Lake, Part, blocking},
        shipping::Shipping,
    },
};

/// Parts that are landed at once. One that hangs takes one place until [`Pace::part_timeout`].
pub const PARTS_AT_ONCE: usize = 8;

/// Segments whose index is held in memory at once; 16 bytes for each delivery.
const LOADED_MAX: usize = 4;

/// A stream that has failed so many times in a row is held up, and what other streams left beside it is cleared away.
const TRIM_FAILURES_MIN: u32 = 3;

/// How often it is looked whether the open segment is old enough, as a part of that age.
const LOOKS_PER_AGE: u32 = 4;

/// The open segment is sealed no later than at this many times its age, however many segments wait: while the lake is
/// away few large segments are better than many small ones.
const AGE_TIMES_MAX: u32 = 12;

/// What the shipper left when it had to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Segments that are not wholly in the lake. They are shipped after the next start.
    pub segments: usize,
    /// Bytes of them.
    pub bytes: u64,
}

impl Spool {
    /// Takes everything into the lake, and goes on doing so until `stop` is ready. Then it seals what is open and ships
    /// what is left, for no longer than [`Pace::drain`].
    ///
    /// While the lake is away it tries again for ever, in waits of up to [`Pace::backoff_max`] per stream. What fails is logged.
    /// One call at a time; dropped at any point it loses nothing, and what it leaves can be shipped by another call.
    pub async fn ship(&self, lake: Lake, stop: impl Future<Output = ()>, pace: Pace) -> Left {
        let mut shipper = Shipper {
            spool: self,
            lake: Arc::new(lake),
            pace,
            segments: BTreeMap::new(),
            streams: HashMap::new(),
            at_work: FuturesUnordered::new(),
            parts: 0,
        };
        shipper.run(stop).await;
        let level = self.level();
        Left {
            segments: level.segments,
            bytes: if level.segments == 0 { 0 } else { level.bytes },
        }
    }
}

struct Shipper<'a> {
    spool: &'a Spool,
    lake: Arc<Lake>,
    pace: Pace,
    /// By number.
    segments: BTreeMap<u64, Shipping>,
    /// Streams that something is done for, or that wait after a failure.
    streams: HashMap<StreamName, Turn>,
    at_work: FuturesUnordered<BoxFuture<'static, Done>>,
    /// How many of those are landing parts.
    parts: usize,
}

/// Where a stream stands.
enum Turn {
    /// A part of it is being landed; so many attempts have failed before.
    Busy(u32),
    /// After so many failures in a row it waits.
    Waits(u32, Instant),
}

/// What came to an end.
enum Done {
    Loaded(u64, Result<Option<Loaded>>),
    Landed(u64, StreamName, Result<()>),
    Trimmed(u64, Result<u64>),
    Finished(u64, Result<()>),
}

/// What to do next.
enum Next {
    Load(u64),
    Land(u64, StreamName),
    Trim(u64),
    Finish(u64),
}

impl Shipper<'_> {
    async fn run(&mut self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop.fuse());
        let mut stop_at: Option<Instant> = None;
        let age = self.spool.options.segment_age;
        let look = (age / LOOKS_PER_AGE).max(Duration::from_millis(1));
        let mut look_at = Instant::now() + look;
        loop {
            self.take_fresh();
            let now = Instant::now();
            while let Some(next) = self.next(now) {
                self.start(next);
            }
            if let Some(stop_at) = stop_at
                && self.segments.is_empty()
            {
                // Nothing is open then, unless somebody went on appending.
                let _ = timeout_at(stop_at, self.spool.seal(Timestamp::MAX_UTC)).await;
                if !self.take_fresh() {
                    return;
                }
                continue;
            }
            let wake_at = self.wake_at(now).unwrap_or(look_at).min(look_at);
            tokio::select! {
                Some(done) = self.at_work.next(), if !self.at_work.is_empty() => self.done(done),
                () = self.spool.backlog.changed() => {}
                () = sleep_until(stop_at.unwrap_or(look_at)), if stop_at.is_some() => {
                    return;
                }
                () = &mut stop, if stop_at.is_none() => {
                    stop_at = Some(Instant::now() + self.pace.drain);
                    self.spool.seal_soon(Timestamp::MAX_UTC);
                }
                () = sleep_until(wake_at) => {
                    if Instant::now() >= look_at {
                        look_at = Instant::now() + look;
                        self.seal_old(age);
                    }
                }
            }
        }
    }

    /// Takes over what was sealed since the last time, and says whether there was something.
    fn take_fresh(&mut self) -> bool {
        let fresh = self.spool.backlog.fresh();
        let any = !fresh.is_empty();
        for sealed in fresh {
            self.segments.insert(sealed.name.number, Shipping::new(sealed));
        }
        any
    }

    /// Seals the open segment when it is old enough: later, the more segments there are of which nothing has landed.
    fn seal_old(&self, age: Duration) {
        let untouched = self
            .segments
            .values()
            .filter(|segment| !segment.some_stands)
            .count();
        let times = u32::try_from(untouched)
            .unwrap_or(u32::MAX)
            .saturating_add(1)
            .min(AGE_TIMES_MAX);
        let age = chrono::TimeDelta::from_std(age * times).unwrap_or(chrono::TimeDelta::MAX);
        if let Some(until) = self.spool.clock.now().checked_sub_signed(age) {
            self.spool.seal_soon(until);
        }
    }

    /// What can be begun now; nothing if all that can be is.
    fn next(&self, now: Instant) -> Option<Next> {
        let loaded = self
            .segments
            .values()
            .filter(|segment| segment.holds_index())
            .count();
        // Streams that an earlier segment still has something of.
        let mut before: BTreeSet<&StreamName> = BTreeSet::new();
        for (number, segment) in &self.segments {
            let waits = segment.retry_at.is_some_and(|at| at > now);
            let may_load = !waits && segment.busy == 0 && loaded < LOADED_MAX;
            let Some(left) = &segment.left else {
                if may_load {
                    return Some(Next::Load(*number));
                }
                if segment.failures >= TRIM_FAILURES_MIN {
                    // It cannot be read. Others wait no longer for streams that it may have.
                    continue;
                }
                // Which streams it has is not known yet, so nothing behind it may go first.
                return None;
            };
            if left.is_empty() {
                if segment.busy == 0 && !waits {
                    return Some(Next::Finish(*number));
                }
                continue;
            }
            let mut can_go = left
                .iter()
                .filter(|stream| !before.contains(stream) && self.is_free(stream, now));
            if let Some(stream) = can_go.next() {
                match &segment.loaded {
                    Some(_) if self.parts < PARTS_AT_ONCE => {
                        return Some(Next::Land(*number, stream.clone()));
                    }
                    Some(_) => {}
                    None if may_load => return Some(Next::Load(*number)),
                    None => {}
                }
            } else if !waits && self.is_worth_trimming(segment, left) {
                return Some(Next::Trim(*number));
            }
            before.extend(left);
        }
        None
    }

    fn is_free(&self, stream: &StreamName, now: Instant) -> bool {
        match self.streams.get(stream) {
            None => true,
            Some(Turn::Busy(_)) => false,
            Some(Turn::Waits(_, until)) => *until <= now,
        }
    }

    /// When something that waits may be tried again, if anything does.
    fn wake_at(&self, now: Instant) -> Option<Instant> {
        let streams = self.streams.values().filter_map(|turn| match turn {
            Turn::Waits(_, until) => Some(*until),
            Turn::Busy(_) => None,
        });
        let segments = self.segments.values().filter_map(|segment| segment.retry_at);
        streams.chain(segments).filter(|at| *at > now).min()
    }

    fn start(&mut self, next: Next) {
        let number = match &next {
            Next::Load(number) | Next::Land(number, _) | Next::Trim(number) | Next::Finish(number) => *number,
        };
        let Some(segment) = self.segments.get_mut(&number) else {
            return;
        };
        let folder = Arc::clone(&self.spool.folder);
        let sealed = segment.sealed;
        let work = match next {
            Next::Load(_) => {
                let progress = segment.progress.clone();
                blocking(move || load(&folder, &sealed, progress))
                    .map(move |loaded| Done::Loaded(number, loaded))
                    .boxed()
            }
            Next::Finish(_) => {
                let is_damaged = segment.is_damaged;
                blocking(move || finish(&folder, &sealed.name, is_damaged))
                    .map(move |finished| Done::Finished(number, finished))
                    .boxed()
            }
            Next::Trim(_) => {
                let left = segment.left.clone().unwrap_or_default();
                blocking(move || trim(&folder, &sealed, &left))
                    .map(move |trimmed| Done::Trimmed(number, trimmed))
                    .boxed()
            }
            Next::Land(_, stream) => return self.start_part(number, stream),
        };
        segment.busy += 1;
        self.at_work.push(work);
    }

    fn start_part(&mut self, number: u64, stream: StreamName) {
        let Some(segment) = self.segments.get_mut(&number) else {
            return;
        };
        let Some(loaded) = &segment.loaded else {
            return;
        };
        let Some(frames) = loaded.parts.get(&stream) else {
            // It was read again, and the stream is in none of its readable frames any more.
            segment.part_stands(&stream);
            return;
        };
        let part = Part {
            folder: Arc::clone(&self.spool.folder),
            segment: segment.sealed.name,
            stream: stream.clone(),
            frames: Arc::clone(frames),
            progress: Arc::clone(&loaded.progress),
        };
        segment.busy += 1;
        self.parts += 1;
        let failures = failures(self.streams.remove(&stream));
        self.streams.insert(stream.clone(), Turn::Busy(failures));
        let (lake, part_timeout) = (Arc::clone(&self.lake), self.pace.part_timeout);
        let work = async move {
            let landed = match timeout(part_timeout, part.land(&lake)).await {
                Ok(landed) => landed.map(drop),
                Err(late) => {
                    Err(Error::new(ErrorKind::Unavailable, "land deliveries in time").caused_by(late))
                }
            };
            Done::Landed(number, stream, landed)
        };
        self.at_work.push(work.boxed());
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Loaded(number, outcome) => {
                let loaded = self.ended(number, outcome);
                if let (Some(segment), Some(loaded)) = (self.segments.get_mut(&number), loaded) {
                    segment.take(loaded);
                }
            }
            Done::Landed(number, stream, outcome) => {
                self.parts -= 1;
                self.landed(number, stream, outcome);
            }
            Done::Trimmed(number, outcome) => {
                let bytes = self.ended(number, outcome);
                if let (Some(segment), Some(bytes)) = (self.segments.get_mut(&number), bytes) {
                    self.spool
                        .backlog
                        .release(segment.sealed.bytes.saturating_sub(bytes));
                    segment.sealed.bytes = bytes;
                    // Everything in it has moved.
                    segment.loaded = None;
                    segment.left_bytes = bytes;
                }
            }
            Done::Finished(number, outcome) => {
                if self.ended(number, outcome).is_some()
                    && let Some(segment) = self.segments.remove(&number)
                {
                    self.spool.backlog.release(segment.sealed.bytes);
                    self.spool.backlog.shipped(number);
                }
            }
        }
        self.drop_indexes();
    }

    /// Something that was done with a whole segment has ended.
    fn ended<T>(&mut self, number: u64, outcome: Result<T>) -> Option<T> {
        let segment = self.segments.get_mut(&number)?;
        segment.busy -= 1;
        match outcome {
            Ok(outcome) => {
                segment.failures = 0;
                segment.retry_at = None;
                Some(outcome)
            }
            Err(error) => {
                segment.failures = segment.failures.saturating_add(1);
                segment.retry_at = Some(Instant::now() + self.pace.backoff(segment.failures, rand::random()));
                tracing::warn!(%error, cause = error.chain(), "spool segment waits");
                None
            }
        }
    }

    fn landed(&mut self, number: u64, stream: StreamName, outcome: Result<()>) {
        let failures = failures(self.streams.remove(&stream));
        let Some(segment) = self.segments.get_mut(&number) else {
            return;
        };
        segment.busy -= 1;
        match outcome {
            Ok(()) => {
                if failures > 0 {
                    tracing::info!(%stream, failures, "deliveries land again");
                }
                segment.part_stands(&stream);
            }
            Err(error) => {
                let failures = failures.saturating_add(1);
                let wait = self.pace.backoff(failures, rand::random());
                if error.kind() == ErrorKind::Unavailable {
                    tracing::warn!(%stream, failures, ?wait, error = error.chain(), "deliveries wait for the lake");
                } else {
                    tracing::error!(%stream, failures, ?wait, error = error.chain(), "deliveries do not land");
                }
                self.streams
                    .insert(stream, Turn::Waits(failures, Instant::now() + wait));
            }
        }
    }

    /// Forgets where the deliveries are of segments that nothing can be done for, so that others can be read.
    fn drop_indexes(&mut self) {
        let now = Instant::now();
        let mut before: BTreeSet<&StreamName> = BTreeSet::new();
        let mut idle = Vec::new();
        for (number, segment) in &self.segments {
            let left = segment.left.iter().flatten();
            let mut can_go = left
                .clone()
                .filter(|stream| !before.contains(stream) && self.is_free(stream, now));
            if segment.busy == 0 && can_go.next().is_none() {
                idle.push(*number);
            }
            before.extend(left);
        }
        for number in idle {
            if let Some(segment) = self.segments.get_mut(&number) {
                segment.loaded = None;
            }
        }
    }

    /// Whether most of the segment stands in the lake and the rest has been held up for a while: it would take room that
    /// other streams need.
    fn is_worth_trimming(&self, segment: &Shipping, left: &BTreeSet<StreamName>) -> bool {
        let held_up = |stream| match self.streams.get(stream) {
            Some(Turn::Busy(failures) | Turn::Waits(failures, _)) => *failures >= TRIM_FAILURES_MIN,
            None => false,
        };
        segment.busy == 0
            && !segment.is_damaged
            && segment.left_bytes < segment.sealed.bytes / 2
            && left.iter().all(held_up)
    }

    /// Leaves what is not done to the next call.
    fn give_back(&mut self) {
        let segments = std::mem::take(&mut self.segments);
        let left = segments.into_values().map(|segment| segment.sealed).collect();
        self.spool.backlog.give_back(left);
    }
}

impl Drop for Shipper<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// How often in a row a stream has failed.
fn failures(turn: Option<Turn>) -> u32 {
    match turn {
        Some(Turn::Busy(failures) | Turn::Waits(failures, _)) => failures,
        None => 0,
    }
}
