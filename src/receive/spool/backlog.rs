//! What is in the spool and not yet in the lake: known to the writer, who adds, and the shipper, who takes away.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::Notify;

use crate::{
    clock::{Clock, Timestamp},
    error::{Error, ErrorKind, Result},
    receive::spool::{
        level::Level,
        segment::{Ended, SegmentName},
    },
};

/// A segment that nothing is added to any more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sealed {
    /// What it is called.
    pub(crate) name: SegmentName,
    /// How many bytes of it count.
    pub(crate) bytes: u64,
    /// When the first of its deliveries was written.
    pub(crate) since: Timestamp,
}

impl Sealed {
    /// Where it ended, for those who read it later.
    pub(crate) fn ended(&self) -> Ended {
        Ended {
            number: self.name.number,
            bytes: self.bytes,
        }
    }
}

/// The bytes and segments of a spool.
#[derive(Debug)]
pub(crate) struct Backlog {
    bytes_max: u64,
    bytes: AtomicU64,
    shelf: Mutex<Shelf>,
    sealed: Notify,
}

#[derive(Debug, Default)]
struct Shelf {
    /// Sealed and not yet taken by the shipper.
    fresh: Vec<Sealed>,
    /// All segments that are sealed and still there: since when.
    waiting: Vec<(u64, Timestamp)>,
    /// Since when the open segment has something.
    open: Option<Timestamp>,
    /// The numbers of segments that hold an [`Untold`] delivery, and of the open one.
    untold: BTreeSet<u64>,
}

/// Held for a segment while something that is kept in it is not known elsewhere. Until then it stays: what it tells at the
/// next start is told by nothing else.
#[derive(Debug)]
pub(crate) struct Untold {
    backlog: Arc<Backlog>,
    number: u64,
}

impl Drop for Untold {
    fn drop(&mut self) {
        self.backlog.shelf().untold.remove(&self.number);
        self.backlog.sealed.notify_one();
    }
}

impl Backlog {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            bytes: AtomicU64::new(0),
            shelf: Mutex::default(),
            sealed: Notify::new(),
        }
    }

    /// Takes room for `bytes`.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] if there is none.
    pub(crate) fn reserve(&self, bytes: u64) -> Result<()> {
        let room = |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= self.bytes_max);
        self.bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .map(drop)
            .map_err(|taken| {
                Error::new(ErrorKind::Limit, "spool delivery: the spool is full")
                    .with("bytes", bytes)
                    .with("taken", taken)
                    .with("bytes_max", self.bytes_max)
                    .with(
                        "hint",
                        "check that the lake can be reached, or give the spool more room",
                    )
            })
    }

    /// Gives room back.
    pub(crate) fn release(&self, bytes: u64) {
        let _ = self
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                Some(taken.saturating_sub(bytes))
            });
    }

    /// Takes room that is taken already, whatever the limit says.
    pub(crate) fn take(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Keeps the segment of this `number` from being taken until the last copy is dropped.
    pub(crate) fn untold(self: &Arc<Self>, number: u64) -> Arc<Untold> {
        self.shelf().untold.insert(number);
        Arc::new(Untold {
            backlog: Arc::clone(self),
            number,
        })
    }

    /// A segment was begun.
    pub(crate) fn opened(&self, now: Timestamp) {
        self.shelf().open = Some(now);
    }

    /// No segment is open any more; `sealed` is the one that was, if it holds something.
    pub(crate) fn closed(&self, sealed: Option<Sealed>) {
        let mut shelf = self.shelf();
        shelf.open = None;
        if let Some(sealed) = sealed {
            shelf.waiting.push((sealed.name.number, sealed.since));
            shelf.fresh.push(sealed);
        }
        drop(shelf);
        self.sealed.notify_one();
    }

    /// The segments that came to be ready since the last call, in order: they are sealed, and nothing in them or before them
    /// is [`Untold`].
    pub(crate) fn fresh(&self) -> Vec<Sealed> {
        let mut shelf = self.shelf();
        let untold = shelf.untold.first().copied().unwrap_or(u64::MAX);
        let ready = shelf.fresh.partition_point(|sealed| sealed.name.number < untold);
        shelf.fresh.drain(..ready).collect()
    }

    /// Segments that were taken come back: whoever took them did not finish.
    pub(crate) fn give_back(&self, segments: Vec<Sealed>) {
        let mut shelf = self.shelf();
        shelf.fresh.extend(segments);
        shelf.fresh.sort_unstable_by_key(|sealed| sealed.name);
    }

    /// Waits until a segment is sealed, or told of; at once if one was since the last call.
    pub(crate) async fn changed(&self) {
        self.sealed.notified().await;
    }

    /// A segment is gone.
    pub(crate) fn shipped(&self, number: u64) {
        self.shelf().waiting.retain(|(waiting, _)| *waiting != number);
    }

    /// How full it is.
    pub(crate) fn level(&self, clock: &Clock) -> Level {
        let shelf = self.shelf();
        let waiting = shelf.waiting.iter().map(|(_, since)| *since);
        let oldest = waiting.chain(shelf.open).min();
        Level {
            bytes: self.bytes.load(Ordering::Relaxed),
            bytes_max: self.bytes_max,
            age: oldest.map(|since| (clock.now() - since).to_std().unwrap_or_default()),
            segments: shelf.waiting.len(),
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
