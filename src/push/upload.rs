//! A file through a channel: every record once, whatever ends in between.
//!
//! ```text
//! reader (a thread): bytes ─ Records ─ Batcher ─► a few batches ahead ─► Channel::append, one behind the other
//!                      └ digest of all before ─► offset token
//! ```
//!
//! The offset token of a body says how many bytes of the file are durable with it, and their digest. It is kept by the server
//! with the body itself, in one step. A journal beside the file could not know whether a batch whose answer never came was
//! kept, and not every folder can be written to. When a file is sent again, its beginning is read and compared: if it is what
//! the token says, what stands behind is sent (nothing, of a file that is through); if not, it is another file by now, and is
//! sent from its first record on.

use std::{
    fmt,
    path::PathBuf,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rand::RngExt as _;
use tokio::sync::mpsc;

use crate::{
    error::{Error, ErrorKind, Result},
    push::{
        batch::{Batch, Batcher},
        channel::Channel,
        client::{Client, Mode, StreamLimits},
        key::Place,
        records::{Position, Records},
        refused::{Refusal, RefusedFile},
        sent::Sent,
        source::{Count, Source},
        target::Target,
    },
};

/// Batches that are ready before they are sent.
const AHEAD_MAX: usize = 2;

/// Refusals of records that are not sent at all gathered for one batch, if no record comes that is.
const UNSENT_MAX: usize = 10_000;

/// Names the layout of a token.
const TOKEN_LAYOUT: &str = "f1";

/// How something is sent.
#[derive(Clone, Debug)]
pub struct Options {
    /// The stream.
    pub target: Target,
    /// What happens to a batch of which some records are refused.
    pub mode: Mode,
    /// Most records of a batch; none for what is usual and the stream takes.
    pub records_max: Option<u64>,
    /// Most bytes of a batch; likewise.
    pub bytes_max: Option<usize>,
    /// The channel; none for that of a file, and for standard input, which cannot be resumed then.
    pub channel: Option<String>,
    /// Whether all of a file is sent again that is through already.
    pub again: bool,
    /// Whether nothing is sent.
    pub dry_run: bool,
}

/// How far it is, for who watches.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Bytes read, as they stand in the file.
    pub read: Count,
    /// Records taken by the server.
    pub records: Arc<AtomicU64>,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The channel it went through, if it did.
    pub channel: Option<String>,
    /// Where it went on, in bytes of the unpacked file; 0 at its beginning.
    pub resumed_at: u64,
    /// Batches sent.
    pub batches: u64,
    /// Of them, those that had been kept before and whose answer came again.
    pub replayed: u64,
    /// Records taken; in a dry run, those that would be sent.
    pub records: u64,
    /// Records not taken.
    pub refused: u64,
    /// Records taken of which the server says that they do not fit: they are quarantined when they are loaded.
    pub misfits: u64,
    /// Bytes of bodies before packing.
    pub bytes: u64,
    /// Requests sent again.
    pub retries: u64,
    /// Whether the file was sent from its beginning because that is not what was sent through the channel before.
    pub begun_anew: bool,
    /// Where a last line begins that is not whole yet, in bytes of the unpacked file. It is sent when it is.
    pub unfinished_at: Option<u64>,
    /// The first receipt.
    pub first_receipt: Option<String>,
    /// The last receipt.
    pub last_receipt: Option<String>,
}

/// How far a file is through: the pass over it, the bytes of it that are durable, and their digest.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    /// The epoch in which it was begun, so that no token is ever given twice.
    pass: u64,
    bytes: u64,
    digest: String,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TOKEN_LAYOUT}.{}.{}.{}", self.pass, self.bytes, self.digest)
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split('.');
        let mut next = || parts.next().unwrap_or_default();
        let (layout, pass, bytes, digest) = (next(), next().parse(), next().parse(), next().to_owned());
        match (layout, pass, bytes, parts.next()) {
            (TOKEN_LAYOUT, Ok(pass), Ok(bytes), None) if !digest.is_empty() => {
                Ok(Self { pass, bytes, digest })
            }
            _ => Err(Error::new(ErrorKind::Conflict, "read offset of channel")
                .with(
                    "problem",
                    "it was not given by `landfall push`, or by a newer one",
                )
                .with("hint", "send through another channel")),
        }
    }
}

/// A batch, and all that is to be known of it when it is answered.
struct Ready {
    batch: Batch,
    /// Where each of its records begins in the file.
    starts: Vec<u64>,
    /// Records that stand among them and are not sent.
    unsent: Vec<Refusal>,
    /// The end of the last of them all.
    position: Position,
}

/// What the reader has to tell.
enum Read {
    /// The beginning is not what it was: it is sent from there on, or from its first record.
    Anew,
    Ready(Ready),
    /// That is all, or all that could be read; and where a line begins that is not whole yet.
    Ended(Result<Option<u64>>),
}

/// Sends all of `source` that is not durable yet.
///
/// # Errors
/// Those of [`Client::open_channel`] and [`Channel::append`]; [`ErrorKind::Unavailable`] or [`ErrorKind::Corrupt`] if it cannot be
/// read to its end: what stood before is sent. Whatever it is, calling it again goes on from there.
pub async fn upload(
    client: &Client,
    source: &Source,
    options: &Options,
    refused: &mut RefusedFile,
    progress: &Progress,
) -> Result<Summary> {
    let name = match &options.channel {
        Some(name) => Some(name.clone()),
        None => source.channel()?,
    };
    let mut way = match &name {
        Some(name) if !options.dry_run => {
            let channel = client.open_channel(&options.target, name).await?;
            let done = channel.offset().map(str::parse::<Token>).transpose()?;
            Way::Channel { channel, done }
        }
        _ => Way::Keys {
            // Of this process alone: the same records from standard input may well be meant twice.
            origin: format!("{:032x}", rand::rng().random::<u128>()),
            number: 0,
        },
    };
    let mut limits = way.limits(client, options).await?;
    let records_max = options.records_max.unwrap_or(limits.batch.records_max);
    limits.batch.records_max = records_max.min(limits.rejected_max.unwrap_or(u64::MAX));
    limits.batch.bytes_max = options.bytes_max.unwrap_or(limits.batch.bytes_max);
    let (sender, mut ready) = mpsc::channel(AHEAD_MAX);
    let reading = Reading {
        source: source.clone(),
        limits,
        done: way.done().filter(|_| !options.again).cloned(),
        read: Arc::clone(&progress.read),
        ready: sender,
    };
    // A thread of its own: one that waits for standard input must not hold up the end of the process.
    let reader = std::thread::Builder::new()
        .name("read".to_owned())
        .spawn(move || reading.run());
    reader.map_err(|source| Error::new(ErrorKind::Internal, "start reader").caused_by(source))?;
    let mut summary = Summary {
        channel: name.filter(|_| !options.dry_run),
        resumed_at: way.done().filter(|_| !options.again).map_or(0, |done| done.bytes),
        ..Summary::default()
    };
    if options.again {
        way.begin_anew();
    }
    // Ends with what the reader says last.
    while let Some(read) = ready.recv().await {
        match read {
            Read::Ended(ended) => {
                return ended
                    .map(|unfinished_at| Summary {
                        unfinished_at,
                        ..summary
                    })
                    .map_err(|error| error.with("source", source.name()));
            }
            Read::Anew => {
                way.begin_anew();
                summary.resumed_at = 0;
                summary.begun_anew = true;
            }
            Read::Ready(ready) => {
                if options.mode == Mode::Atomic
                    && let Some(unsent) = ready.unsent.first()
                {
                    return Err(Error::new(ErrorKind::Refused, "send all records or none")
                        .with("source", source.name())
                        .with("byte", unsent.at)
                        .with("code", &unsent.code));
                }
                let sent = way.send(client, options, &ready).await?;
                let refusals = refusals(&ready, &sent);
                refused.add(&source.name(), &refusals)?;
                summary.add(&ready, &sent, refusals.len() as u64);
                progress.records.fetch_add(sent.accepted, Ordering::Relaxed);
            }
        }
    }
    Err(Error::new(ErrorKind::Internal, "read file").with("source", source.name()))
}

/// How batches reach the server.
enum Way {
    /// Each behind the last.
    Channel {
        channel: Channel,
        /// How far the file is through; none from its beginning.
        done: Option<Token>,
    },
    /// Each by a key of its own.
    Keys { origin: String, number: u64 },
}

impl Way {
    fn done(&self) -> Option<&Token> {
        match self {
            Self::Channel { done, .. } => done.as_ref(),
            Self::Keys { .. } => None,
        }
    }

    async fn limits(&self, client: &Client, options: &Options) -> Result<StreamLimits> {
        match self {
            Self::Channel { channel, .. } => Ok(channel.limits()),
            Self::Keys { .. } if options.dry_run => Ok(StreamLimits::USUAL),
            Self::Keys { .. } => client.limits(&options.target).await,
        }
    }

    fn begin_anew(&mut self) {
        if let Self::Channel { done, .. } = self {
            *done = None;
        }
    }

    async fn send(&mut self, client: &Client, options: &Options, ready: &Ready) -> Result<Sent> {
        let batch = &ready.batch;
        if batch.is_empty() || options.dry_run {
            return Ok(Sent {
                accepted: batch.len() as u64,
                ..Sent::default()
            });
        }
        match self {
            Self::Channel { channel, done } => {
                let token = Token {
                    pass: done.as_ref().map_or(channel.epoch(), |done| done.pass),
                    bytes: ready.position.end,
                    digest: ready.position.digest(),
                };
                let sent = channel.append(batch, &token.to_string(), options.mode).await?;
                *done = Some(token);
                Ok(sent)
            }
            Self::Keys { origin, number } => {
                let place = Place {
                    origin,
                    number: *number,
                };
                *number += 1;
                client.send(&options.target, place, batch, options.mode).await
            }
        }
    }
}

/// All records of `ready` that are not taken, in the order of the file.
fn refusals(ready: &Ready, sent: &Sent) -> Vec<Refusal> {
    let mut refusals = ready.unsent.clone();
    let refused = sent.refused.iter().filter(|refused| !refused.landed);
    refusals.extend(refused.filter_map(|refused| {
        Some(Refusal {
            at: *ready.starts.get(refused.index)?,
            code: refused.code.clone(),
            detail: refused.detail.clone(),
            record: ready.batch.record(refused.index)?.to_vec(),
        })
    }));
    refusals.sort_by_key(|refusal| refusal.at);
    refusals
}

impl Summary {
    fn add(&mut self, ready: &Ready, sent: &Sent, refused: u64) {
        self.batches += u64::from(!ready.batch.is_empty());
        self.replayed += u64::from(sent.replayed);
        self.records += sent.accepted;
        self.refused += refused + sent.unnamed;
        self.misfits += sent.refused.iter().filter(|refused| refused.landed).count() as u64;
        self.bytes += ready.batch.body().len() as u64;
        self.retries += u64::from(sent.attempts.saturating_sub(1));
        if let Some(receipt) = &sent.receipt {
            self.first_receipt.get_or_insert_with(|| receipt.clone());
            self.last_receipt = Some(receipt.clone());
        }
    }
}

/// The reader's own.
struct Reading {
    source: Source,
    limits: StreamLimits,
    done: Option<Token>,
    read: Count,
    ready: mpsc::Sender<Read>,
}

impl Reading {
    /// Reads to the end, or until nobody listens any more.
    fn run(self) {
        let ended = self.read();
        // Nobody may listen any more.
        let _ = self.ready.blocking_send(Read::Ended(ended));
    }

    fn read(&self) -> Result<Option<u64>> {
        let mut records = self.open()?;
        if let Some(done) = &self.done
            && !stands(&mut records, done)?
        {
            if self.source == Source::Stdin {
                return Err(
                    Error::new(ErrorKind::Conflict, "go on where the channel is").with(
                        "problem",
                        "what comes does not begin with what was sent through this channel before",
                    ),
                );
            }
            // What was read in vain.
            self.read.store(0, Ordering::Relaxed);
            records = self.open()?;
            if self.ready.blocking_send(Read::Anew).is_err() {
                return Ok(None);
            }
        }
        self.batches(&mut records)
    }

    fn open(&self) -> Result<Records<Box<dyn std::io::Read + Send>>> {
        let records = Records::new(self.source.open(&self.read)?, self.limits.record_bytes_max);
        Ok(match self.source {
            Source::File(_) => records.may_grow(),
            // Nobody can send its rest another time.
            Source::Stdin => records,
        })
    }

    fn batches(&self, records: &mut Records<Box<dyn std::io::Read + Send>>) -> Result<Option<u64>> {
        let form = records.form()?;
        let mut batcher = Batcher::new(form, self.limits.batch);
        let (mut starts, mut unsent) = (Vec::new(), Vec::new());
        let mut position = records.position();
        loop {
            let next = records.next_record();
            let is_over = !matches!(next, Ok(Some(_)));
            let room = match &next {
                Ok(Some(record)) => batcher.has_room(record.bytes.len()) && unsent.len() < UNSENT_MAX,
                Ok(None) | Err(_) => false,
            };
            let is_empty = batcher.is_empty() && unsent.is_empty();
            if !room && !is_empty {
                let ready = Ready {
                    batch: batcher.take(),
                    starts: std::mem::take(&mut starts),
                    unsent: std::mem::take(&mut unsent),
                    position: position.clone(),
                };
                if self.ready.blocking_send(Read::Ready(ready)).is_err() {
                    return Ok(None);
                }
            }
            if is_over {
                // What stood before is sent whatever comes here.
                next?;
                return Ok(records.unfinished());
            }
            if let Ok(Some(record)) = next {
                match record.fault {
                    None => {
                        batcher.put(record.bytes);
                        starts.push(record.start);
                    }
                    Some(fault) => unsent.push(Refusal {
                        at: record.start,
                        code: fault.code().to_owned(),
                        detail: fault.detail().to_owned(),
                        record: record.bytes.to_vec(),
                    }),
                }
            }
            position = records.position();
        }
    }
}

/// Whether the file begins with what `done` says; the records behind it come next then.
fn stands(records: &mut Records<Box<dyn std::io::Read + Send>>, done: &Token) -> Result<bool> {
    loop {
        // Broken before the place where it was once sound: it is another file.
        let end = match records.next_record() {
            Ok(Some(record)) => record.end,
            Ok(None) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(false),
            Err(error) => return Err(error),
        };
        if end >= done.bytes {
            let position = records.position();
            return Ok(end == done.bytes && position.digest() == done.digest);
        }
    }
}

/// Where refused records of a stream are kept unless another place is named.
pub fn refused_path(target: &Target) -> PathBuf {
    PathBuf::from(format!("{target}.refused.jsonl"))
}
