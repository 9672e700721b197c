//! The one thread that writes: whatever waits goes into one transaction, and none of it is an fsync of its own.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use crate::{
    clock::{Clock, Timestamp},
    error::{Error, Result},
    receive::ledger::{
        Inner, Swept,
        channel::Channel,
        claims::Ticket,
        event::EventRecord,
        receipt::Receipt,
        repair::{Remembered, Repaired},
        store::Opened,
        tables::{AnswerRecord, Ends, Tables},
    },
};

/// Changes in one transaction at most: some 20 ms of work.
const GROUP_MAX: usize = 4_096;
/// Changes after which a transaction is made durable though nobody asked: until then they are held in memory too, and the
/// file keeps both the old and the new of every page touched.
const UNSYNCED_MAX: usize = 16_384;
/// The same in bytes of answers.
const UNSYNCED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Changes kept while the file cannot be written. Receipts that come then are dropped: the spool has them. Of the others
/// there are no more than claims.
const BACKLOG_MAX: usize = 65_536;
/// Time between attempts to open a file again that could not be written. Each checks the whole file.
const REOPEN_EVERY: Duration = Duration::from_secs(10);
/// Entries of each kind looked at in one step of forgetting.
pub(super) const SWEEP_STEP: usize = 1_000;

type Reply<T> = oneshot::Sender<Result<T>>;

/// One thing to write.
pub(super) enum Change {
    Answer {
        name: [u8; 32],
        record: AnswerRecord,
        ticket: Ticket,
    },
    Event {
        name: [u8; 32],
        record: EventRecord,
        ticket: Ticket,
    },
    Channel {
        name: [u8; 32],
        record: Channel,
        ticket: Ticket,
    },
    Receipts(Vec<Receipt>),
    /// One more delivery of a known event.
    Again {
        name: [u8; 32],
        at: Timestamp,
        reply: Reply<Outcome>,
    },
    Repair {
        remembered: Vec<Remembered>,
        reply: Reply<Outcome>,
    },
    Sweep {
        reply: Reply<Outcome>,
    },
    /// Nothing, but an answer when all before it is written; on disk if `durable`.
    Settle {
        durable: bool,
        reply: Reply<Outcome>,
    },
    /// The last one. The file is closed before the answer.
    Close {
        reply: Reply<Outcome>,
    },
}

/// What came of a change for the one who waits for it.
pub(super) enum Outcome {
    Done,
    Event(Option<EventRecord>),
    Repaired(Repaired),
    Swept(Swept),
}

impl Change {
    fn durable(&self) -> bool {
        matches!(self, Self::Settle { durable: true, .. } | Self::Close { .. })
    }

    /// Memory it holds beyond its own size.
    fn bytes(&self) -> usize {
        match self {
            Self::Answer { record, .. } => record.answer.bytes(),
            Self::Receipts(receipts) => receipts.len() * size_of::<Receipt>(),
            _ => 0,
        }
    }

    /// Whether it must not be lost only because the file could not be written for a while. Who waits for the others is told.
    fn lasts(&self) -> bool {
        matches!(
            self,
            Self::Answer { .. } | Self::Event { .. } | Self::Channel { .. } | Self::Receipts(_)
        )
    }

    /// Whether it is remembered in memory under its name until it is written, which bounds how many of its kind there are.
    pub(super) fn is_claimed(&self) -> bool {
        matches!(
            self,
            Self::Answer { .. } | Self::Event { .. } | Self::Channel { .. }
        )
    }

    fn reply(self) -> Option<Reply<Outcome>> {
        match self {
            Self::Answer { .. } | Self::Event { .. } | Self::Channel { .. } | Self::Receipts(_) => None,
            Self::Again { reply, .. }
            | Self::Repair { reply, .. }
            | Self::Sweep { reply }
            | Self::Settle { reply, .. }
            | Self::Close { reply } => Some(reply),
        }
    }
}

/// The thread's own.
pub(super) struct Writer {
    pub(super) inner: Arc<Inner>,
    pub(super) inbox: mpsc::Receiver<Change>,
    pub(super) clock: Clock,
    group: Vec<Change>,
    /// What is written but not durable: gone from the file if it must be opened again, and from nowhere else taken.
    unsynced: Vec<Change>,
    reopen_at: Option<Timestamp>,
}

impl Writer {
    pub(super) fn new(inner: Arc<Inner>, inbox: mpsc::Receiver<Change>, clock: Clock) -> Self {
        Self {
            inner,
            inbox,
            clock,
            group: Vec::new(),
            unsynced: Vec::new(),
            reopen_at: None,
        }
    }

    /// Writes until the ledger is closed or nobody holds it any more.
    pub(super) fn run(mut self) {
        while let Some(first) = self.inbox.blocking_recv() {
            let mut last = matches!(first, Change::Close { .. });
            self.group.push(first);
            while !last && self.group.len() < GROUP_MAX {
                let Ok(change) = self.inbox.try_recv() else {
                    break;
                };
                last = matches!(change, Change::Close { .. });
                self.group.push(change);
            }
            self.write_group(last);
            if last {
                return;
            }
        }
        if let Err(error) = self.inner.store.write(true, |_| Ok(())) {
            warn!(cause = %error.chain(), "the last of the ledger is not on disk, the spool has it");
        }
        self.inner.store.close();
    }

    fn write_group(&mut self, last: bool) {
        let group = std::mem::take(&mut self.group);
        let waiting = || self.unsynced.iter().chain(&group);
        let durable = waiting().count() >= UNSYNCED_MAX
            || waiting().map(Change::bytes).sum::<usize>() >= UNSYNCED_BYTES_MAX
            || group.iter().any(Change::durable);
        let written = self.apply_group(&group, durable).or_else(|error| {
            self.reopen(&error)?;
            self.apply_group(&group, durable)
        });
        if last {
            self.inner.store.close();
        }
        match written {
            Ok(outcomes) => self.settle(group, outcomes, durable),
            Err(error) => self.put_off(group, &error),
        }
    }

    fn apply_group(&self, group: &[Change], durable: bool) -> Result<Vec<Outcome>> {
        let now = self.clock.now();
        let kept = &self.inner.kept;
        let ends = Ends::at(now, kept);
        let (outcomes, swept) = self.inner.store.write(durable, |tables| {
            let mut outcomes = Vec::with_capacity(group.len());
            for change in group {
                outcomes.push(apply(change, tables, now, &self.inner)?);
            }
            let full = tables.bytes > kept.bytes_max;
            let swept = full.then(|| tables.sweep(&ends, kept.bytes_max, SWEEP_STEP));
            Ok((outcomes, swept.transpose()?))
        })?;
        let full = self.inner.store.bytes() > kept.bytes_max;
        let was_full = self.inner.set_full(full);
        if let Some(swept) = swept.filter(|swept| swept.receipts_early > 0) {
            info!(
                receipts = swept.receipts_early,
                "ledger full, old receipts forgotten early"
            );
        }
        if full && !was_full {
            warn!(
                bytes_max = kept.bytes_max,
                "ledger full, new keys and event ids are refused until older ones end"
            );
        }
        Ok(outcomes)
    }

    fn settle(&mut self, group: Vec<Change>, outcomes: Vec<Outcome>, durable: bool) {
        if durable {
            self.unsynced.clear();
        }
        for (change, outcome) in group.into_iter().zip(outcomes) {
            match &change {
                Change::Answer { name, ticket, .. } => self.inner.answers.committed(*name, *ticket),
                Change::Event { name, ticket, .. } => self.inner.events.committed(*name, *ticket),
                Change::Channel { name, ticket, .. } => self.inner.channels.committed(*name, *ticket),
                _ => {}
            }
            if change.lasts() {
                if !durable {
                    self.unsynced.push(change);
                }
            } else if let Some(reply) = change.reply() {
                // Who asked may be gone.
                let _ = reply.send(Ok(outcome));
            }
        }
    }

    /// Opens the file again, not more often than every [`REOPEN_EVERY`].
    fn reopen(&mut self, cause: &Error) -> Result<()> {
        let now = self.clock.steady();
        if self.reopen_at.is_some_and(|at| now < at) {
            return Err(again(cause));
        }
        self.reopen_at =
            now.checked_add_signed(chrono::TimeDelta::from_std(REOPEN_EVERY).unwrap_or_default());
        error!(cause = %cause.chain(), "the ledger cannot be written, opening it again");
        let (wall, inner) = (self.clock.now(), &self.inner);
        let opened = inner.store.reopen(|tables| {
            for change in &self.unsynced {
                apply(change, tables, wall, inner)?;
            }
            Ok(())
        })?;
        self.unsynced.clear();
        if let Opened::MovedAside(path) = opened {
            self.inner.moved_aside(path);
        }
        Ok(())
    }

    /// Keeps what must not be lost for the next group and tells the others.
    fn put_off(&mut self, group: Vec<Change>, error: &Error) {
        error!(changes = group.len(), cause = %error.chain(), "the ledger is not written, requests with keys are refused");
        let mut dropped = 0_usize;
        for change in group {
            if !change.lasts() {
                if let Some(reply) = change.reply() {
                    let _ = reply.send(Err(again(error)));
                }
            } else if self.group.len() < BACKLOG_MAX || change.is_claimed() {
                self.group.push(change);
            } else {
                dropped += 1;
            }
        }
        if dropped > 0 {
            error!(
                dropped,
                "the ledger falls behind: receipts that it lacks are put back from the spool at the next start"
            );
        }
    }
}

fn apply(change: &Change, tables: &mut Tables<'_>, now: Timestamp, inner: &Inner) -> Result<Outcome> {
    match change {
        Change::Answer { name, record, .. } => tables.put_answer(name, record)?,
        Change::Event { name, record, .. } => tables.put_event(name, record)?,
        Change::Channel { name, record, .. } => tables.put_channel(name, record)?,
        Change::Receipts(receipts) => {
            for receipt in receipts {
                tables.put_receipt(receipt, now)?;
            }
        }
        Change::Again { name, at, .. } => {
            let record = tables.event(name)?.map(|mut record| {
                record.count += 1;
                record.last_seen_at = record.last_seen_at.max(*at);
                record
            });
            if let Some(record) = &record {
                tables.put_event(name, record)?;
            }
            return Ok(Outcome::Event(record));
        }
        Change::Repair { remembered, .. } => {
            let mut repaired = Repaired::default();
            for remembered in remembered {
                remembered.put_back(tables, now, &inner.kept, &mut repaired)?;
            }
            return Ok(Outcome::Repaired(repaired));
        }
        Change::Sweep { .. } => {
            let ends = Ends::at(now, &inner.kept);
            let swept = tables.sweep(&ends, inner.kept.bytes_max, SWEEP_STEP)?;
            return Ok(Outcome::Swept(swept));
        }
        Change::Settle { .. } | Change::Close { .. } => {}
    }
    Ok(Outcome::Done)
}

/// `error` once more, for one more who waits.
fn again(error: &Error) -> Error {
    Error::new(error.kind(), "write ledger").with("cause", error.chain())
}
