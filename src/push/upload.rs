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
//!
//! Records that are refused are durable before the next batch is sent. So at most those of the last one are in doubt: the
//! token says where that begins, it is sent once more, answered as before, and what does not stand in the file yet is added.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::RngExt as _;

use crate::{
    error::{Error, ErrorKind, Result},
    failpoint,
    push::{
        channel::Channel,
        client::{Client, Mode, StreamLimits},
        key::Place,
        place::Token,
        reader::{Read, Reader, Reading, Ready},
        refused::{Refusal, RefusedFile},
        sent::Sent,
        source::{Count, Source},
        target::Target,
    },
};

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
    /// Longest time that a record waits for others to fill its batch, when they come slowly.
    pub age_max: Duration,
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
    /// Records not taken; without those of an earlier call that still stand in the file of refused records.
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
    if options.again {
        way.begin_anew();
    }
    let done = way.done().cloned();
    let mut summary = Summary {
        channel: name.filter(|_| !options.dry_run),
        resumed_at: done.as_ref().map_or(0, |done| done.bytes),
        ..Summary::default()
    };
    match &done {
        Some(done) => refused.recall(&source.name(), done.from)?,
        None => refused.forget(),
    }
    let mut reader = Reader::start(Reading {
        source: source.clone(),
        limits,
        age_max: options.age_max,
        done,
        read: Arc::clone(&progress.read),
    })?;
    // Ends with what the reader says last.
    while let Some(read) = reader.next().await {
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
                refused.forget();
                summary.resumed_at = 0;
                summary.begun_anew = true;
            }
            Read::Last(mut ready) => {
                let sent = way.answer_to_last(&ready).await?;
                let refusals = refusals(&mut ready, &sent.unwrap_or_default());
                summary.refused += refused.add(&source.name(), &refusals)?;
            }
            Read::Ready(mut ready) => {
                if options.mode == Mode::Atomic
                    && let Some(unsent) = ready.unsent.first()
                {
                    return Err(Error::new(ErrorKind::Refused, "send all records or none")
                        .with("source", source.name())
                        .with("byte", unsent.at)
                        .with("code", &unsent.code));
                }
                let sent = way.send(client, options, &ready).await?;
                failpoint::point("push::before_refused");
                let refusals = refusals(&mut ready, &sent);
                let added = refused.add(&source.name(), &refusals)?;
                failpoint::point("push::after_refused");
                summary.add(&ready, &sent, added);
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

    /// What became of the last batch that is durable; none if nobody knows any more.
    async fn answer_to_last(&self, last: &Ready) -> Result<Option<Sent>> {
        match self {
            Self::Channel { channel, .. } => channel.answer_to_last(&last.batch).await,
            Self::Keys { .. } => Ok(None),
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
                    from: ready.from,
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
fn refusals(ready: &mut Ready, sent: &Sent) -> Vec<Refusal> {
    let mut refusals = std::mem::take(&mut ready.unsent);
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

/// Where refused records of a stream are kept unless another place is named.
pub fn refused_path(target: &Target) -> PathBuf {
    PathBuf::from(format!("{target}.refused.jsonl"))
}
