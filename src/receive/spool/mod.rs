//! The spool: a folder on a local disk where deliveries are safe until they are in the lake.
//!
//! ```text
//! append ─► writer: group, write, fsync ─► open segment ─ full or old ─► sealed segments ─► shipper ─► raw logs
//!    ▲                    │                                                                    │
//!    └──── acknowledged ──┘                          segment removed when all of it stands ◄───┘
//! ```
//!
//! A segment is written once and never changed. It is taken to the lake when the ledger was told of everything in it
//! ([`Kept`]); when it is there it goes. What cannot be read is kept aside.

pub mod acknowledger;
pub(crate) mod backlog;
pub mod direct;
pub(crate) mod folder;
pub mod kept;
pub mod level;
pub(crate) mod load;
pub mod pace;
pub mod part;
pub(crate) mod progress;
pub mod recovery;
pub mod segment;
pub mod shipper;
pub(crate) mod shipping;
pub(crate) mod window;
pub(crate) mod writer;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    path::Path,
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::{Semaphore, oneshot};

use crate::{
    clock::{Clock, Timestamp},
    config::spool::Spool as Config,
    error::{Error, ErrorKind, Result},
    receive::{
        Delivery,
        spool::{
            backlog::Backlog,
            folder::{Disk, Folder},
            kept::Kept,
            level::Level,
            recovery::{Recovered, Visit, recover},
            segment::frame_start,
            writer::{Order, Waiting, Writer},
        },
    },
};

/// Most bytes of deliveries that wait in memory for the next write. Who comes then waits before it is taken.
pub const WAITING_BYTES_MAX: u32 = 64 << 20;

/// Most deliveries in a segment: those of one stream become one raw batch, and half of what one may have is left free.
pub const SEGMENT_DELIVERIES_MAX: u64 = 50_000;

/// The bounds of a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Most bytes on the disk, damaged files left out.
    pub bytes_max: u64,
    /// A segment with this many bytes is sealed. It is longer by one group at most.
    pub segment_bytes: u64,
    /// A segment with this many deliveries is sealed.
    pub segment_deliveries: u64,
    /// A segment this old is sealed.
    pub segment_age: Duration,
    /// Most bytes that wait in memory.
    pub waiting_bytes_max: u32,
}

impl Options {
    /// As the project says, with the usual bounds for what it does not say.
    pub fn of(config: &Config) -> Self {
        Self {
            bytes_max: config.bytes_max,
            segment_bytes: config.segment_bytes,
            segment_deliveries: SEGMENT_DELIVERIES_MAX,
            segment_age: config.segment_age,
            waiting_bytes_max: WAITING_BYTES_MAX,
        }
    }
}

/// Deliveries that are safe on a local disk, and on their way into the lake.
///
/// Dropping it writes what waits and gives the folder free. Whatever is left is shipped after the next start.
pub struct Spool {
    folder: Arc<dyn Folder>,
    clock: Clock,
    options: Options,
    backlog: Arc<Backlog>,
    waiting: Arc<Semaphore>,
    /// None only while it is dropped.
    orders: Option<Sender<Order>>,
    writer: Option<JoinHandle<()>>,
}

impl Spool {
    /// Takes the folder `dir` for this process, which is created if need be, and reads what is in it. `visit` is shown
    /// every delivery that is there, in order, with those whose stream has already come into the lake.
    ///
    /// Blocks while it reads: about a second for every GiB.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if another server uses the folder; [`ErrorKind::Refused`] if a newer program wrote to it;
    /// [`ErrorKind::Unavailable`] if it cannot be read.
    pub fn open(
        dir: &Path,
        options: Options,
        clock: Clock,
        visit: &mut Visit<'_>,
    ) -> Result<(Self, Recovered)> {
        let folder: Arc<dyn Folder> = Arc::new(Disk::lock(dir)?);
        Self::open_in(folder, options, clock, visit).map_err(|error| error.with("dir", dir.display()))
    }

    pub(crate) fn open_in(
        folder: Arc<dyn Folder>,
        options: Options,
        clock: Clock,
        visit: &mut Visit<'_>,
    ) -> Result<(Self, Recovered)> {
        let start = recover(&folder, &clock, visit)?;
        let backlog = Arc::new(Backlog::new(options.bytes_max));
        for sealed in start.sealed {
            backlog.take(sealed.bytes);
            backlog.closed(Some(sealed));
        }
        let writer = Writer::new(
            Arc::clone(&folder),
            clock.clone(),
            options,
            Arc::clone(&backlog),
            start.next,
            start.ended,
        );
        let (orders, taken) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("spool".to_owned())
            .spawn(move || writer.run(&taken));
        let thread = thread
            .map_err(|source| Error::new(ErrorKind::Internal, "start spool writer").caused_by(source))?;
        let spool = Self {
            folder,
            clock,
            options,
            backlog,
            waiting: Arc::new(Semaphore::new(options.waiting_bytes_max as usize)),
            orders: Some(orders),
            writer: Some(thread),
        };
        Ok((spool, start.recovered))
    }

    /// Keeps `delivery`: when this has returned without an error it survives the end of the process and a power cut. It is
    /// not taken to the lake before what is returned is dropped.
    ///
    /// Whoever stops waiting does not know whether it was kept. Waits while too much else waits to be written.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] if the spool or its disk is full, or the delivery too long; [`ErrorKind::Unavailable`] if the
    /// disk does not do what it should. It is not kept then.
    pub async fn append(&self, delivery: Delivery) -> Result<Kept> {
        let gone = || Error::new(ErrorKind::Internal, "spool delivery: the writer is gone");
        let start = frame_start(&delivery)?;
        let bytes = start.len() + delivery.page.body.len();
        let share = u32::try_from(bytes)
            .unwrap_or(u32::MAX)
            .min(self.options.waiting_bytes_max);
        let permit = Arc::clone(&self.waiting)
            .acquire_many_owned(share)
            .await
            .map_err(|_| gone())?;
        self.backlog
            .reserve(bytes as u64)
            .map_err(|error| error.with("stream", &delivery.stream))?;
        let (done, answer) = oneshot::channel();
        let waiting = Waiting {
            start,
            body: delivery.page.body,
            permit: Some(permit),
            done,
        };
        // From here on nothing is awaited before the writer has it, so what is reserved is given back by it.
        if !self.order(Order::Append(waiting)) {
            self.backlog.release(bytes as u64);
            return Err(gone());
        }
        answer
            .await
            .map_err(|_| gone())?
            .map_err(|error| error.with("stream", &delivery.stream))
    }

    /// How full it is.
    pub fn level(&self) -> Level {
        self.backlog.level(&self.clock)
    }

    /// Seals the open segment if it was begun at `until` or before, so that it can be shipped.
    pub async fn seal(&self, until: Timestamp) {
        let (done, sealed) = oneshot::channel();
        if self.order(Order::Seal(until, done)) {
            // Without an answer the writer is gone, and it has sealed what was open.
            let _ = sealed.await;
        }
    }

    /// As [`Spool::seal`], without waiting for it.
    pub(crate) fn seal_soon(&self, until: Timestamp) {
        let (done, _) = oneshot::channel();
        // Without a writer nothing is open.
        let _ = self.order(Order::Seal(until, done));
    }

    fn order(&self, order: Order) -> bool {
        self.orders
            .as_ref()
            .is_some_and(|orders| orders.send(order).is_ok())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // Ends the writer when it has written what waits.
        self.orders = None;
        if let Some(writer) = self.writer.take() {
            // It holds the folder. If it panicked there is nothing more to do about it.
            let _ = writer.join();
        }
    }
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Spool({:?}, {:?})", self.folder, self.level())
    }
}
