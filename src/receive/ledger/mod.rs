//! The ledger of what was already received: idempotency keys, event ids and receipts, on disk.
//!
//! ```text
//! request ─ begin ─► New(claim) ─ spool: durable ─ complete ─► in memory ─ one transaction for many ─► file
//!                    Replay, Mismatch, InFlight                     └─ answers repeats from here on     (redb)
//! ```
//!
//! Why no request waits for the ledger's disk: the spool's frames carry key, event id and receipt. Until the ledger was told
//! of all in a segment, its frames are in the lake **and** [`Ledger::flush`] returned, in that order, the segment stays; after
//! a crash [`Ledger::repair`] puts back what the file lacks, before the first request is taken. So every acknowledged key is on
//! disk at every moment: in the spool or here.
//!
//! Order for the receiver: `begin`, spool append, `complete`, `record` the receipt, let go of the segment, acknowledge; all in
//! a task of its own, so that a sender who hangs up cannot drop a claim whose delivery is durable. Order for the shipper: raw
//! commit, `record` the landed receipts, `flush`, remove the segment. At start: [`Ledger::open`], `repair` with every delivery
//! in the spool.
//!
//! **When it is full** (`bytes_max`): what ended is removed first; then receipts of deliveries that are landed go, oldest
//! first, before their time; then new keys and event ids are refused ([`ErrorKind::Limit`], 503) rather than an older one
//! forgotten early. Repeats of known ones are still answered, and requests without a key are still received.
//!
//! **When the file cannot be read** (damaged, or of another program's format) it is moved aside with an error in the log,
//! an empty one is begun and repaired from the spool: see [`Opened::MovedAside`]. When it cannot be written, requests with a
//! key or an event id are refused with 503 and those without are received; the file is opened again by itself.
//!
//! The ledger is of one process: a key is known on the node that took it. Several nodes need the balancer to send a producer
//! to the same node; else a repeat on another node is landed twice and merged into one row by the table's key.

pub mod answer;
pub mod channel;
pub mod event;
pub mod receipt;
pub mod repair;
pub mod store;

mod claims;
mod tables;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    sync::{
        mpsc::{self, error::SendTimeoutError},
        oneshot,
    },
    time::{Instant, timeout_at},
};

use crate::{
    clock::Clock,
    config::StreamName,
    error::{Error, ErrorKind, Result},
    receive::{
        ReceiptId,
        ledger::{
            answer::{Begun, Fingerprint, KeyClaim, Scope, event_name},
            channel::Channel,
            claims::{Claims, Ended, Found},
            event::{Duplicate, EventClaim, EventRecord, Seen},
            receipt::{Listed, Listing, Receipt},
            repair::{Remembered, Repaired},
            store::{Opened, Store},
            tables::{AnswerRecord, Ends},
            writer::{Change, Outcome, Writer},
        },
    },
};

/// Changes that wait for the writer. A full queue makes senders of changes wait, at most [`SEND_WAIT_MAX`].
const QUEUE_MAX: usize = 16_384;
/// Longest wait for room in the queue.
const SEND_WAIT_MAX: Duration = Duration::from_secs(5);

/// What the ledger keeps, where and for how long.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The folder of its file, on a local disk, of this process alone.
    pub folder: PathBuf,
    /// How long an answer is replayed, from the first request with its key.
    pub answers_for: Duration,
    /// How long an event id is known, from its last delivery.
    pub events_for: Duration,
    /// How long a receipt can be asked for, from its last change.
    pub receipts_for: Duration,
    /// How long the position of a channel is known, from its last change.
    pub channels_for: Duration,
    /// Largest size of all entries on disk, in bytes, counted a little above what they take. The file holds free pages beside
    /// them and grows by doubling: it can be three times that.
    pub bytes_max: u64,
    /// Most keys being received at once, and as many event ids; each takes some 300 bytes of memory and its answer.
    pub in_flight_max: usize,
}

impl Kept {
    /// 24 hours: what senders know from others, and far beyond any client's retries.
    pub const ANSWERS_FOR: Duration = Duration::from_secs(24 * 60 * 60);
    /// 7 days: beyond the retries of every webhook sender we know (Stripe 3 days, Svix some 28 hours).
    pub const EVENTS_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);
    /// 30 days.
    pub const RECEIPTS_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);
    /// 30 days: a bulk load that rests for longer is begun anew.
    pub const CHANNELS_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);
    /// 2 GiB: some 3.5 million events with a receipt each.
    pub const BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
    /// Far more than requests are served at once.
    pub const IN_FLIGHT_MAX: usize = 65_536;

    /// The defaults, in `folder`.
    pub fn in_folder(folder: PathBuf) -> Self {
        Self {
            folder,
            answers_for: Self::ANSWERS_FOR,
            events_for: Self::EVENTS_FOR,
            receipts_for: Self::RECEIPTS_FOR,
            channels_for: Self::CHANNELS_FOR,
            bytes_max: Self::BYTES_MAX,
            in_flight_max: Self::IN_FLIGHT_MAX,
        }
    }
}

/// What one step of forgetting removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Answers.
    pub answers: u64,
    /// Event ids.
    pub events: u64,
    /// Receipts.
    pub receipts: u64,
    /// Those of them that went before their time, because the ledger is full.
    pub receipts_early: u64,
    /// Positions of channels.
    pub channels: u64,
    /// Whether another step would find more.
    pub more: bool,
}

/// Figures for health and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gauges {
    /// Size of all entries on disk, in bytes, counted generously.
    pub bytes: u64,
    /// The limit of `bytes`.
    pub bytes_max: u64,
    /// Keys and event ids in memory: being received, or not yet written.
    pub in_flight: usize,
    /// Whether new keys and event ids are refused.
    pub full: bool,
}

/// The ledger, open. Clones are the same ledger.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
    inbox: mpsc::Sender<Change>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ledger({})", self.inner.kept.folder.display())
    }
}

struct Inner {
    store: Store,
    answers: Arc<Claims<AnswerRecord>>,
    events: Arc<Claims<EventRecord>>,
    channels: Arc<Claims<Channel>>,
    clock: Clock,
    kept: Kept,
    full: AtomicBool,
    /// Changes that a full queue did not take in time and that still wait for room in it.
    late: AtomicUsize,
    opened: Mutex<Opened>,
}

impl Inner {
    /// Sets whether new names are refused and returns whether they were.
    fn set_full(&self, full: bool) -> bool {
        self.full.swap(full, Ordering::Relaxed)
    }

    fn moved_aside(&self, path: PathBuf) {
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Opened::MovedAside(path);
    }

    fn room(&self) -> Result<()> {
        if !self.full.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Limit, "keep key of request")
            .with("bytes_max", self.kept.bytes_max)
            .with(
                "hint",
                "the ledger is full: raise its limit or keep keys for a shorter time",
            ))
    }
}

/// Once more, when the other one ended.
enum Attempt<T> {
    Over(T),
    Wait(Ended),
}

impl Ledger {
    /// How often [`Ledger::sweep`] is to be called.
    pub const SWEEP_EVERY: Duration = Duration::from_secs(60);

    /// Opens the ledger in its folder, checking every page of its file (some seconds for a full one), and starts its writer.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if another process has it open; [`ErrorKind::Unavailable`] if the folder cannot be used. A file
    /// that cannot be read is no error: see [`Ledger::opened`].
    pub async fn open(kept: Kept, clock: Clock) -> Result<Self> {
        let (changes, inbox) = mpsc::channel(QUEUE_MAX);
        let opening = move || {
            let (store, opened) = Store::open(&kept.folder)?;
            let inner = Arc::new(Inner {
                full: AtomicBool::new(store.bytes() > kept.bytes_max),
                late: AtomicUsize::new(0),
                store,
                answers: Claims::new(kept.in_flight_max),
                events: Claims::new(kept.in_flight_max),
                channels: Claims::new(kept.in_flight_max),
                clock: clock.clone(),
                kept,
                opened: Mutex::new(opened),
            });
            let writer = Writer::new(Arc::clone(&inner), inbox, clock);
            let started = thread::Builder::new()
                .name("ledger".to_owned())
                .spawn(|| writer.run());
            started.map_err(|error| {
                Error::new(ErrorKind::Unavailable, "start writer of ledger").caused_by(error)
            })?;
            Ok::<_, Error>(inner)
        };
        let inner = tokio::task::spawn_blocking(opening).await.map_err(ended)??;
        Ok(Self {
            inner,
            inbox: changes,
        })
    }

    /// How its file was found, at the start or when it was last opened again.
    pub fn opened(&self) -> Opened {
        let opened = self.inner.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.clone()
    }

    /// Begins a request with an idempotency key. If the same one is under way, waits for its end up to `patience`.
    ///
    /// Reads the file where it stands, which is a page or two.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] if the ledger is full or too many requests are under way, [`ErrorKind::Unavailable`] or
    /// [`ErrorKind::Corrupt`] if its file cannot be read. All mean 503: without the ledger nobody knows whether it is a repeat.
    pub async fn begin(&self, scope: Scope, fingerprint: Fingerprint, patience: Duration) -> Result<Begun> {
        let deadline = Instant::now() + patience;
        loop {
            match self.try_begin(scope, fingerprint)? {
                Attempt::Over(begun) => return Ok(begun),
                Attempt::Wait(ended) => {
                    if timeout_at(deadline, ended.wait()).await.is_err() {
                        return Ok(Begun::InFlight);
                    }
                }
            }
        }
    }

    /// Looks an event up by its stream and its sender's id. If it is being received, waits for the end of that up to `patience`.
    ///
    /// # Errors
    /// As [`Ledger::begin`].
    pub async fn see(
        &self,
        stream: &StreamName,
        event_id: &str,
        fingerprint: Fingerprint,
        patience: Duration,
    ) -> Result<Seen> {
        let deadline = Instant::now() + patience;
        let name = event_name(stream, event_id);
        loop {
            match self.try_see(name, fingerprint)? {
                Attempt::Over(Sight::Claimed(claim)) if claim.before.is_none() => {
                    return Ok(Seen::New(*claim));
                }
                Attempt::Over(Sight::Claimed(claim)) => return Ok(Seen::IdReuse(*claim)),
                Attempt::Over(Sight::Known(record, receipt)) => {
                    return self.count(name, record, receipt).await.map(Seen::Duplicate);
                }
                Attempt::Wait(ended) => {
                    if timeout_at(deadline, ended.wait()).await.is_err() {
                        return Ok(Seen::InFlight);
                    }
                }
            }
        }
    }

    /// Keeps receipts, or that they came to a new stage. A receipt that is landed or refused stays so.
    ///
    /// Returns when the changes are queued; [`Ledger::receipt`] sees them.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the ledger does not write.
    pub async fn record(&self, receipts: Vec<Receipt>) -> Result<()> {
        self.send(Change::Receipts(receipts)).await
    }

    /// The receipt `id`, if it is known.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::Corrupt`] if the file cannot be read.
    pub async fn receipt(&self, id: ReceiptId) -> Result<Option<Receipt>> {
        let live = |receipt: &Receipt| {
            let until = Ends::at(self.inner.clock.now(), &self.inner.kept).receipts;
            receipt.updated_at.timestamp_micros() >= until
        };
        let known = self.inner.store.receipt(id)?;
        if known.is_some() {
            return Ok(known.filter(live));
        }
        // It may be waiting to be written: whoever was just given it asks for it here.
        self.ask(|reply| Change::Settle {
            durable: false,
            reply,
        })
        .await?;
        Ok(self.inner.store.receipt(id)?.filter(live))
    }

    /// A page of receipts in the order of their last change.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::Corrupt`] if the file cannot be read.
    pub async fn list(&self, listing: Listing) -> Result<Listed> {
        self.ask(|reply| Change::Settle {
            durable: false,
            reply,
        })
        .await?;
        let inner = Arc::clone(&self.inner);
        let list = move || inner.store.list(&listing);
        tokio::task::spawn_blocking(list).await.map_err(ended)?
    }

    /// Returns when everything said before is on disk. To be called before a segment of the spool is removed.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it is not: the segment must stay.
    pub async fn flush(&self) -> Result<()> {
        let late = self.inner.late.load(Ordering::Acquire);
        if late > 0 {
            return Err(behind().with("late", late));
        }
        let durable = true;
        self.ask(|reply| Change::Settle { durable, reply }).await?;
        Ok(())
    }

    /// Puts back what `remembered` deliveries of the spool know and the file lacks. Before the first request, a segment at a time.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the ledger does not write.
    pub async fn repair(&self, remembered: Vec<Remembered>) -> Result<Repaired> {
        match self.ask(|reply| Change::Repair { remembered, reply }).await? {
            Outcome::Repaired(repaired) => Ok(repaired),
            _ => Err(confused()),
        }
    }

    /// One bounded step of forgetting what ended. To be called every [`Ledger::SWEEP_EVERY`], and again while there is more.
    ///
    /// Nothing depends on it but room: what ended is not found before it is removed either. After the last step everything
    /// said before is on disk, so that a quiet ledger does not keep its last changes in memory alone.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the ledger does not write.
    pub async fn sweep(&self) -> Result<Swept> {
        let Outcome::Swept(swept) = self.ask(|reply| Change::Sweep { reply }).await? else {
            return Err(confused());
        };
        if !swept.more {
            self.flush().await?;
        }
        Ok(swept)
    }

    /// Figures for health and metrics.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            bytes: self.inner.store.bytes(),
            bytes_max: self.inner.kept.bytes_max,
            in_flight: self.inner.answers.len() + self.inner.events.len(),
            full: self.inner.full.load(Ordering::Relaxed),
        }
    }

    /// Writes everything to disk and closes the file. Whoever still holds the ledger is refused from here on.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it could not be written; the spool has what is missing.
    pub async fn close(self) -> Result<()> {
        self.ask(|reply| Change::Close { reply }).await?;
        Ok(())
    }

    fn try_begin(&self, scope: Scope, fingerprint: Fingerprint) -> Result<Attempt<Begun>> {
        let inner = &self.inner;
        let until = Ends::at(inner.clock.now(), &inner.kept).answers;
        let found = inner.answers.find(
            scope.0,
            fingerprint.0,
            || inner.store.answer(scope),
            |record| record.at.timestamp_micros() > until,
            || inner.room(),
        )?;
        Ok(match found {
            Found::Held {
                fingerprint: other, ..
            } if other != fingerprint.0 => Attempt::Over(Begun::Mismatch),
            Found::Held { ended, .. } => Attempt::Wait(ended),
            Found::Kept(record) if record.fingerprint != fingerprint => Attempt::Over(Begun::Mismatch),
            Found::Kept(record) => Attempt::Over(Begun::Replay(record.answer)),
            Found::Claimed(claim, _) => Attempt::Over(Begun::New(KeyClaim {
                claim,
                ledger: self.clone(),
                fingerprint,
            })),
        })
    }

    fn try_see(&self, name: [u8; 32], fingerprint: Fingerprint) -> Result<Attempt<Sight>> {
        let inner = &self.inner;
        let now = inner.clock.now();
        let until = Ends::at(now, &inner.kept).events;
        let live = |record: &EventRecord| record.last_seen_at.timestamp_micros() > until;
        let found = inner.events.find(
            name,
            fingerprint.0,
            || inner.store.event(&name),
            |record| live(record) && record.knows(fingerprint),
            || inner.room(),
        )?;
        Ok(match found {
            Found::Held { ended, .. } => Attempt::Wait(ended),
            Found::Kept(record) => match record.receipt(fingerprint) {
                Some(receipt) => Attempt::Over(Sight::Known(record, receipt)),
                None => return Err(confused()),
            },
            Found::Claimed(claim, before) => Attempt::Over(Sight::Claimed(Box::new(EventClaim {
                claim,
                ledger: self.clone(),
                fingerprint,
                before: before.filter(live),
                now,
            }))),
        })
    }

    /// Counts one more delivery of a known event.
    async fn count(&self, name: [u8; 32], record: EventRecord, receipt: ReceiptId) -> Result<Duplicate> {
        let at = self.inner.clock.now();
        let outcome = self.ask(|reply| Change::Again { name, at, reply }).await?;
        let record = match outcome {
            Outcome::Event(Some(counted)) => counted,
            // Forgotten in between: it was at its end.
            _ => record,
        };
        Ok(Duplicate {
            receipt,
            count: record.count,
            first_seen_at: record.first_seen_at,
        })
    }

    async fn ask(&self, change: impl FnOnce(oneshot::Sender<Result<Outcome>>) -> Change) -> Result<Outcome> {
        let (reply, answer) = oneshot::channel();
        self.send(change(reply)).await?;
        answer.await.map_err(ended)?
    }

    async fn send(&self, change: Change) -> Result<()> {
        let Err(refused) = self.inbox.send_timeout(change, SEND_WAIT_MAX).await else {
            return Ok(());
        };
        let change = match refused {
            SendTimeoutError::Timeout(change) | SendTimeoutError::Closed(change) => change,
        };
        if change.is_claimed() {
            self.send_late(change);
        }
        Err(behind())
    }

    /// Sends `change` whenever there is room. Until then no [`Ledger::flush`] says that everything is on disk, and the
    /// segment that knows of it stays. There are no more than claims.
    fn send_late(&self, change: Change) {
        self.inner.late.fetch_add(1, Ordering::AcqRel);
        let ledger = self.clone();
        tokio::spawn(async move {
            if ledger.inbox.send(change).await.is_ok() {
                ledger.inner.late.fetch_sub(1, Ordering::AcqRel);
            }
        });
    }
}

fn behind() -> Error {
    Error::new(ErrorKind::Unavailable, "write ledger")
        .with("queue_max", QUEUE_MAX)
        .with("hint", "its writer is behind or closed; the log says why")
}

/// How an event was found.
enum Sight {
    Claimed(Box<EventClaim>),
    Known(EventRecord, ReceiptId),
}

fn ended(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Unavailable, "use ledger").caused_by(source)
}

fn confused() -> Error {
    Error::new(ErrorKind::Internal, "use ledger").with("cause", "an answer to another question")
}
