//! The one who writes: takes all deliveries that wait, writes and syncs them at once, then answers them all.
//!
//! ```text
//! Waiting … ─► group ─ one write ─ one fsync (and one of the folder, if the segment is new) ─► all are answered
//! ```
//!
//! A thread of its own, because writing and syncing block. While it syncs, the next group gathers.

use std::{
    io::{self, IoSlice},
    sync::{Arc, mpsc::Receiver},
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{
    clock::{Clock, Timestamp},
    error::{Error, ErrorKind, Result},
    failpoint,
    receive::spool::{
        Options,
        backlog::{Backlog, Sealed, Untold},
        folder::{Folder, Growing},
        kept::Kept,
        segment::{Ended, Head, SegmentName, stamp},
    },
};

/// A group has no more bytes than this, unless one delivery alone has: those that come first do not wait for all others.
const GROUP_BYTES_MAX: u64 = 8 << 20;

/// Most deliveries in a group.
const GROUP_DELIVERIES_MAX: usize = 4096;

/// Segments that are tried for one group before its senders are told that it failed.
const SEGMENTS_TRIED_MAX: usize = 2;

/// Segments that were given up and are named in the head of the next. More than this were never followed by a good one.
const ENDED_MAX: usize = 64;

/// Something for the writer to do.
pub(crate) enum Order {
    /// Write a delivery.
    Append(Waiting),
    /// Seal the open segment if it was begun at this moment or before, then answer.
    Seal(Timestamp, oneshot::Sender<()>),
}

/// A delivery that waits to be written.
pub(crate) struct Waiting {
    /// Its frame up to the body.
    pub(crate) start: Vec<u8>,
    /// Its body.
    pub(crate) body: Bytes,
    /// Its part of the bytes that may wait.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
    /// Told when it is safe.
    pub(crate) done: oneshot::Sender<Result<Kept>>,
}

impl Waiting {
    /// The length of its frame.
    pub(crate) fn bytes(&self) -> u64 {
        (self.start.len() + self.body.len()) as u64
    }
}

/// Writes segments.
pub(crate) struct Writer {
    folder: Arc<dyn Folder>,
    clock: Clock,
    options: Options,
    backlog: Arc<Backlog>,
    next: u64,
    ended: Vec<Ended>,
    open: Option<Open>,
}

/// The segment in the making.
struct Open {
    file: Box<dyn Growing>,
    name: SegmentName,
    since: Timestamp,
    /// One more for each delivery in it.
    untold: Arc<Untold>,
    /// What is safe of it.
    bytes: u64,
    deliveries: u64,
}

impl Writer {
    /// A writer whose first segment has the number `next`, after a segment that `ended`.
    pub(crate) fn new(
        folder: Arc<dyn Folder>,
        clock: Clock,
        options: Options,
        backlog: Arc<Backlog>,
        next: u64,
        ended: Vec<Ended>,
    ) -> Self {
        Self {
            folder,
            clock,
            options,
            backlog,
            next,
            ended,
            open: None,
        }
    }

    /// Does what it is told until nobody can tell it anything any more; then seals what is open.
    pub(crate) fn run(mut self, orders: &Receiver<Order>) {
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Ok(first) = orders.recv() {
            let mut order = Some(first);
            while let Some(next) = order {
                match next {
                    Order::Append(waiting) => {
                        bytes += waiting.bytes();
                        group.push(waiting);
                    }
                    Order::Seal(until, done) => {
                        self.commit(std::mem::take(&mut group));
                        bytes = 0;
                        self.seal_if_begun(until);
                        // Nobody waits for it any more.
                        let _ = done.send(());
                    }
                }
                let full = bytes >= GROUP_BYTES_MAX || group.len() >= GROUP_DELIVERIES_MAX;
                order = if full { None } else { orders.try_recv().ok() };
            }
            self.commit(std::mem::take(&mut group));
            bytes = 0;
        }
        self.seal();
    }

    /// Writes a group and answers each of it.
    pub(crate) fn commit(&mut self, mut group: Vec<Waiting>) {
        if group.is_empty() {
            return;
        }
        let mut outcome = Ok(());
        for _ in 0..SEGMENTS_TRIED_MAX {
            outcome = self.put(&mut group);
            let Err(error) = &outcome else { break };
            tracing::error!(%error, "spool segment given up");
            // What was synced before stands. What a failed sync did is not known, and asking again proves nothing.
            self.seal();
        }
        failpoint::point("spool::after_sync");
        let untold = self.open.as_ref().map(|open| Arc::clone(&open.untold));
        let rotate = |open: &Open| {
            open.bytes >= self.options.segment_bytes || open.deliveries >= self.options.segment_deliveries
        };
        if self.open.as_ref().is_some_and(rotate) {
            self.seal();
        }
        // After a failure no segment is open.
        let untold = outcome.map(|()| untold);
        for waiting in group {
            let bytes = waiting.bytes();
            drop(waiting.permit);
            let answer = match &untold {
                Ok(untold) => Ok(Kept::in_segment(untold.clone())),
                Err(error) => {
                    self.backlog.release(bytes);
                    Err(refused(error))
                }
            };
            // A sender that is gone asks again.
            let _ = waiting.done.send(answer);
        }
    }

    /// Writes and syncs a group in the open segment, or a new one.
    fn put(&mut self, group: &mut [Waiting]) -> io::Result<()> {
        let mut head = Vec::new();
        let is_new = self.open.is_none();
        if is_new {
            head = self.begin()?;
        }
        let Some(open) = &mut self.open else {
            return Err(io::Error::other("no segment is open"));
        };
        for waiting in &mut *group {
            stamp(&mut waiting.start, &open.name);
        }
        let mut slices = Vec::with_capacity(1 + 2 * group.len());
        slices.push(IoSlice::new(&head));
        for waiting in &*group {
            slices.push(IoSlice::new(&waiting.start));
            slices.push(IoSlice::new(&waiting.body));
        }
        slices.retain(|slice| !slice.is_empty());
        open.file.write(&mut slices)?;
        failpoint::point("spool::before_sync");
        open.file.sync()?;
        if is_new {
            self.folder.sync()?;
        }
        let frames: u64 = group.iter().map(Waiting::bytes).sum();
        open.bytes += head.len() as u64 + frames;
        open.deliveries += group.len() as u64;
        if is_new {
            self.backlog.take(head.len() as u64);
            self.backlog.opened(open.since);
            self.ended.clear();
        }
        Ok(())
    }

    /// Creates a segment and returns what it begins with; that is not written yet.
    fn begin(&mut self) -> io::Result<Vec<u8>> {
        let now = self.clock.now();
        let name = SegmentName::new(self.next, now);
        let head = Head {
            id: name.id.to_string(),
            created_at: now,
            ended: self.ended.clone(),
            frames_bytes: None,
        };
        let head = head.to_bytes().map_err(io::Error::other)?;
        let file = self.folder.create(&name.file())?;
        self.next += 1;
        self.open = Some(Open {
            file,
            since: now,
            untold: self.backlog.untold(name.number),
            name,
            bytes: 0,
            deliveries: 0,
        });
        Ok(head)
    }

    /// Seals the open segment if it was begun at `until` or before.
    pub(crate) fn seal_if_begun(&mut self, until: Timestamp) {
        if self.open.as_ref().is_some_and(|open| open.since <= until) {
            self.seal();
        }
    }

    /// Ends the open segment where it is safe. What may stand behind that is told of in the head of the next one.
    pub(crate) fn seal(&mut self) {
        let Some(open) = self.open.take() else { return };
        let sealed = Sealed {
            name: open.name,
            bytes: open.bytes,
            since: open.since,
        };
        let empty = open.bytes == 0;
        let mut gone = false;
        if empty {
            match self.folder.remove(&open.name.file()) {
                Ok(()) => gone = true,
                Err(error) => {
                    tracing::warn!(%error, segment = open.name.file(), "spool segment without deliveries not removed");
                }
            }
        }
        // Where a file ended that is gone says nothing, and would take the place of one that is not.
        if !gone {
            self.ended.push(sealed.ended());
        }
        if self.ended.len() > ENDED_MAX {
            self.ended.remove(0);
        }
        self.backlog.closed((!empty).then_some(sealed));
    }
}

/// What a sender is told when nothing could be written.
fn refused(error: &io::Error) -> Error {
    let attempt = "spool delivery";
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::new(ErrorKind::Limit, attempt)
            .with("reason", error)
            .with("hint", "free space on the disk of the spool"),
        _ => Error::new(ErrorKind::Unavailable, attempt).with("reason", error),
    }
}
