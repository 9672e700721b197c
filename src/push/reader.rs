//! A thread that reads, and what of it is sent next: full batches, and what has waited long enough for more to come.
//!
//! ```text
//! thread: bytes ─ Records ─ gathered ─ full ─► a few batches ahead ─► Reader::next
//!                              └ old enough, and nothing is ahead ──────┘
//! ```

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};

use crate::{
    error::{Error, ErrorKind, Result},
    push::{
        batch::{Batch, BatchLimits, Batcher, Form},
        client::StreamLimits,
        place::Token,
        records::{Position, Record, Records},
        refused::Refusal,
        source::{Count, Source},
    },
};

/// Batches that are ready before they are sent.
const AHEAD_MAX: usize = 2;

/// Refusals of records that are not sent at all gathered for one batch, if no record comes that is.
const UNSENT_MAX: usize = 10_000;

/// Largest batch that is made again to learn what became of it, in bytes: more than a server takes by default.
const LAST_BYTES_MAX: usize = 32 << 20;

/// A batch, and all that is to be known of it when it is answered.
pub(super) struct Ready {
    pub(super) batch: Batch,
    /// Where in the file it begins: behind the last record before it.
    pub(super) from: u64,
    /// Where each of its records begins in the file.
    pub(super) starts: Vec<u64>,
    /// Records that stand among them and are not sent.
    pub(super) unsent: Vec<Refusal>,
    /// The end of the last of them all.
    pub(super) position: Position,
}

/// What the reader has to tell.
pub(super) enum Read {
    /// The beginning is not what it was: it is sent from its first record.
    Anew,
    /// The last batch that is durable, as it was sent. Comes before all others.
    Last(Ready),
    Ready(Ready),
    /// That is all, or all that could be read; and where a line begins that is not whole yet.
    Ended(Result<Option<u64>>),
}

/// What is to be read, and how it is cut.
pub(super) struct Reading {
    pub(super) source: Source,
    pub(super) limits: StreamLimits,
    /// Longest time that a record waits for others to fill its batch.
    pub(super) age_max: Duration,
    /// How far the source is through.
    pub(super) done: Option<Token>,
    /// Is told what is read.
    pub(super) read: Count,
}

/// What a thread of its own reads.
pub(super) struct Reader {
    ready: mpsc::Receiver<Read>,
    gathering: Arc<Gathering>,
    age_max: Duration,
    /// Full batches that came.
    got: u64,
}

/// What the thread gathers, and others may take when it has waited long enough.
struct Gathering {
    gathered: Mutex<Gathered>,
    /// Told when the first record of a batch is there.
    begun: Notify,
}

struct Gathered {
    batcher: Batcher,
    from: u64,
    starts: Vec<u64>,
    unsent: Vec<Refusal>,
    unsent_bytes: usize,
    unsent_bytes_max: usize,
    position: Position,
    /// When the first of them came; none if there is none.
    since: Option<Instant>,
    /// Full batches that were given to whoever sends them.
    given: u64,
}

impl Reader {
    /// Begins to read.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if there is no thread to be had.
    pub(super) fn start(reading: Reading) -> Result<Self> {
        let (sender, ready) = mpsc::channel(AHEAD_MAX);
        let gathering = Arc::new(Gathering {
            gathered: Mutex::new(Gathered::new(
                Form::Lines,
                reading.limits.batch,
                Position::default(),
            )),
            begun: Notify::new(),
        });
        let reader = Self {
            ready,
            gathering: Arc::clone(&gathering),
            age_max: reading.age_max,
            got: 0,
        };
        // A thread of its own: one that waits for standard input must not hold up the end of the process.
        let thread = std::thread::Builder::new().name("read".to_owned());
        let thread = thread.spawn(move || {
            let ended = reading.read(&gathering, &sender);
            // Nobody may listen any more.
            let _ = sender.blocking_send(Read::Ended(ended));
        });
        thread.map_err(|source| Error::new(ErrorKind::Internal, "start reader").caused_by(source))?;
        Ok(reader)
    }

    /// What comes next; nothing behind [`Read::Ended`].
    pub(super) async fn next(&mut self) -> Option<Read> {
        loop {
            let due = self.gathering.lock().due(self.age_max);
            tokio::select! {
                biased;
                read = self.ready.recv() => {
                    self.got += u64::from(matches!(read, Some(Read::Ready(_))));
                    return read;
                }
                () = self.gathering.begun.notified() => {}
                () = sleep(due.unwrap_or_default()), if due.is_some() => {
                    let mut gathered = self.gathering.lock();
                    // A full one that is on its way comes first.
                    if gathered.given == self.got && gathered.due(self.age_max) == Some(Duration::ZERO) {
                        return Some(Read::Ready(gathered.take()));
                    }
                }
            }
        }
    }
}

impl Reading {
    /// Reads to the end, or until nobody listens any more.
    fn read(&self, gathering: &Gathering, ready: &mpsc::Sender<Read>) -> Result<Option<u64>> {
        let mut records = self.open()?;
        if let Some(done) = &self.done {
            let first = match self.stands(&mut records, done)? {
                Standing::Same(None) => None,
                Standing::Same(Some(last)) => Some(Read::Last(*last)),
                Standing::Other if self.source == Source::Stdin => {
                    return Err(
                        Error::new(ErrorKind::Conflict, "go on where the channel is").with(
                            "problem",
                            "what comes does not begin with what was sent through this channel before",
                        ),
                    );
                }
                Standing::Other => {
                    // What was read in vain.
                    self.read.store(0, Ordering::Relaxed);
                    records = self.open()?;
                    Some(Read::Anew)
                }
            };
            if first.is_some_and(|first| ready.blocking_send(first).is_err()) {
                return Ok(None);
            }
        }
        self.batches(&mut records, gathering, ready)
    }

    fn open(&self) -> Result<Records<Box<dyn io::Read + Send>>> {
        let records = Records::new(self.source.open(&self.read)?, self.limits.record_bytes_max);
        Ok(match self.source {
            Source::File(_) => records.may_grow(),
            // Nobody can send its rest another time.
            Source::Stdin => records,
        })
    }

    fn batches(
        &self,
        records: &mut Records<Box<dyn io::Read + Send>>,
        gathering: &Gathering,
        ready: &mpsc::Sender<Read>,
    ) -> Result<Option<u64>> {
        let form = records.form()?;
        *gathering.lock() = Gathered::new(form, self.limits.batch, records.position());
        loop {
            let next = records.next_record();
            let full = {
                let mut gathered = gathering.lock();
                let has_room = matches!(&next, Ok(Some(record)) if gathered.has_room(record));
                let is_full = gathered.since.is_some() && !has_room;
                gathered.given += u64::from(is_full);
                is_full.then(|| gathered.take())
            };
            if full.is_some_and(|full| ready.blocking_send(Read::Ready(full)).is_err()) {
                return Ok(None);
            }
            let Some(record) = next? else {
                return Ok(records.unfinished());
            };
            let is_first = {
                let mut gathered = gathering.lock();
                gathered.put(&record);
                gathered.position = records.position();
                let is_first = gathered.since.is_none();
                gathered.since.get_or_insert_with(Instant::now);
                is_first
            };
            if is_first {
                gathering.begun.notify_one();
            }
        }
    }

    /// Whether the file begins with what `done` says; the records behind it come next then.
    fn stands(&self, records: &mut Records<Box<dyn io::Read + Send>>, done: &Token) -> Result<Standing> {
        let limits = BatchLimits {
            records_max: u64::MAX,
            bytes_max: LAST_BYTES_MAX,
        };
        let form = records.form()?;
        let mut last = Some(Gathered::new(form, limits, records.position()));
        loop {
            // Broken before the place where it was once sound: it is another file.
            let record = match records.next_record() {
                Ok(Some(record)) => record,
                Ok(None) => return Ok(Standing::Other),
                Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(Standing::Other),
                Err(error) => return Err(error),
            };
            let end = record.end;
            if record.start >= done.from {
                last = last.filter(|last| last.has_room(&record));
                if let Some(last) = &mut last {
                    last.put(&record);
                }
            }
            if end < done.bytes {
                continue;
            }
            let position = records.position();
            if end != done.bytes || position.digest() != done.digest {
                return Ok(Standing::Other);
            }
            let last = last.map(|mut last| {
                (last.from, last.position) = (done.from, position);
                last.take()
            });
            return Ok(Standing::Same(
                last.filter(|last| !last.batch.is_empty()).map(Box::new),
            ));
        }
    }
}

/// How a file is to what is durable of it.
enum Standing {
    /// It begins with something else.
    Other,
    /// It begins so. With the last batch, unless that is too large to be held.
    Same(Option<Box<Ready>>),
}

impl Gathering {
    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gathered {
    /// Nothing, behind `position`.
    fn new(form: Form, limits: BatchLimits, position: Position) -> Self {
        Self {
            batcher: Batcher::new(form, limits),
            from: position.end,
            starts: Vec::new(),
            unsent: Vec::new(),
            unsent_bytes: 0,
            unsent_bytes_max: limits.bytes_max,
            position,
            since: None,
            given: 0,
        }
    }

    fn has_room(&self, record: &Record<'_>) -> bool {
        let bytes = record.bytes.len();
        match record.fault {
            None => self.batcher.has_room(bytes),
            Some(_) => {
                let fits = self.unsent_bytes.saturating_add(bytes) <= self.unsent_bytes_max;
                self.unsent.is_empty() || (self.unsent.len() < UNSENT_MAX && fits)
            }
        }
    }

    fn put(&mut self, record: &Record<'_>) {
        match record.fault {
            None => {
                self.batcher.put(record.bytes);
                self.starts.push(record.start);
            }
            Some(fault) => {
                self.unsent_bytes += record.bytes.len();
                self.unsent.push(Refusal {
                    at: record.start,
                    code: fault.code().to_owned(),
                    detail: fault.detail().to_owned(),
                    record: record.bytes.to_vec(),
                });
            }
        }
    }

    /// How long until it has waited for `age_max`; none if there is nothing.
    fn due(&self, age_max: Duration) -> Option<Duration> {
        Some(age_max.saturating_sub(self.since?.elapsed()))
    }

    fn take(&mut self) -> Ready {
        let from = std::mem::replace(&mut self.from, self.position.end);
        self.since = None;
        self.unsent_bytes = 0;
        Ready {
            batch: self.batcher.take(),
            from,
            starts: std::mem::take(&mut self.starts),
            unsent: std::mem::take(&mut self.unsent),
            position: self.position.clone(),
        }
    }
}
