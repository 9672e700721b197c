//! Segments: the files of a spool, written once from front to back.
//!
//! ```text
//! <20 digits>-<id>.segment
//!
//! magic "LFSPOOL\n"   8 bytes      so far the same in every format
//! format              u32          1
//! crc                 u32          of the 12 bytes before
//! head bytes          u32
//! crc                 u32          of the head's length and the head
//! head                JSON         id, time of creation, where segments before it ended
//! frame …
//!
//! mark                8 bytes      the last 8 bytes of the id
//! facts bytes         u32
//! body bytes          u32
//! crc                 u32          of the two lengths, the facts and the body
//! facts               JSON         receipt, stream, producer, page facts
//! body
//! ```
//!
//! Numbers are little-endian, checksums CRC-32 as in zlib (ISO 3309). Frames behind damage are found by the mark. It is
//! drawn at random for each segment and stands in its name, so that no body can hold what looks like a frame.

use std::{io, ops::Range};

use bytes::Bytes;
use crc32fast::Hasher;
use serde::{Deserialize, Serialize};
use uuid::{NoContext, Uuid};

use crate::{
    clock::Timestamp,
    config::{Name, StreamName},
    error::{Error, ErrorKind, Result},
    raw::{Page, PageFacts, frame::FRAME_BYTES_MAX},
    receive::{
        Delivery, ReceiptId,
        spool::{
            folder::Stored,
            window::{WINDOW_BYTES, Window},
        },
    },
};

/// The newest format of a segment; this program reads it and all before it.
pub(crate) const FORMAT: u32 = 1;

/// Longest facts of one delivery, in bytes. They hold headers, and servers allow tens of KiB of those.
pub(crate) const FACTS_BYTES_MAX: usize = 1 << 20;

/// Longest head of a segment, in bytes.
const HEAD_BYTES_MAX: usize = 1 << 20;

const MAGIC: &[u8; 8] = b"LFSPOOL\n";

/// Magic, format and checksum.
const PRELUDE_BYTES: usize = 16;

/// Before the head's text: the prelude, the length and the checksum.
const HEAD_START: usize = PRELUDE_BYTES + 8;

/// Before the facts of a frame.
const FRAME_START: usize = 20;

const SUFFIX: &str = ".segment";

/// What a segment is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentName {
    /// Its place among the segments of the spool.
    pub(crate) number: u64,
    /// What it is known by in the lake: a version 7 UUID.
    pub(crate) id: Uuid,
}

impl SegmentName {
    /// A name never used before.
    pub(crate) fn new(number: u64, now: Timestamp) -> Self {
        let seconds = u64::try_from(now.timestamp()).unwrap_or(0);
        let time = uuid::Timestamp::from_unix(NoContext, seconds, now.timestamp_subsec_nanos());
        Self {
            number,
            id: Uuid::new_v7(time),
        }
    }

    /// The name that `file` has in the folder, if it is that of a segment or of something beside one.
    ///
    /// The rest of the file's name is returned with it: nothing for the segment itself.
    pub(crate) fn parse(file: &str) -> Option<(Self, &str)> {
        let (number, rest) = file.split_at_checked(20)?;
        let (id, rest) = rest.strip_prefix('-')?.split_at_checked(36)?;
        let id = Uuid::try_parse(id).ok()?;
        let name = Self {
            number: number.parse().ok()?,
            id,
        };
        let rest = rest.strip_prefix(SUFFIX)?;
        (name.file() + rest == file).then_some((name, rest))
    }

    /// The segment's file.
    pub(crate) fn file(&self) -> String {
        format!("{:020}-{}{SUFFIX}", self.number, self.id)
    }

    /// A file beside it.
    pub(crate) fn beside(&self, suffix: &str) -> String {
        self.file() + suffix
    }

    fn mark(&self) -> [u8; 8] {
        let [.., a, b, c, d, e, f, g, h] = *self.id.as_bytes();
        [a, b, c, d, e, f, g, h]
    }
}

/// Where a segment that was written before another one ended. Nothing beyond was acknowledged there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    /// The segment's number.
    pub(crate) number: u64,
    /// How many bytes of it count.
    pub(crate) bytes: u64,
}

/// What stands at the beginning of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// The segment's id once more.
    pub(crate) id: String,
    /// When it was begun.
    pub(crate) created_at: Timestamp,
    /// Where segments before it ended: the last one, and those that were given up since the one before that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ended: Vec<Ended>,
    /// How many bytes follow the head, if the segment was written anew without what was in the lake already. Whatever
    /// else tells where it ended means the segment as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) frames_bytes: Option<u64>,
}

impl Head {
    /// The bytes that a segment begins with.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if it cannot be written as JSON.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&[0; HEAD_START - PRELUDE_BYTES]);
        serde_json::to_writer(&mut bytes, self).map_err(unwritten)?;
        let length = (bytes.len() - HEAD_START) as u32;
        bytes[PRELUDE_BYTES..PRELUDE_BYTES + 4].copy_from_slice(&length.to_le_bytes());
        let crc = crc_of(&[&bytes[PRELUDE_BYTES..PRELUDE_BYTES + 4], &bytes[HEAD_START..]]);
        bytes[PRELUDE_BYTES + 4..HEAD_START].copy_from_slice(&crc.to_le_bytes());
        Ok(bytes)
    }

    /// That of a segment and its length; none if it is damaged.
    ///
    /// # Errors
    /// As in [`scan`].
    pub(crate) fn read(stored: &dyn Stored, name: &SegmentName) -> Result<Option<(Self, u64)>> {
        let found = head(&mut Window::new(stored, u64::MAX), name);
        let (head, bytes) = found.map_err(|source| unread(name, source))??;
        Ok(head.map(|head| (head, bytes)))
    }
}

#[derive(Serialize)]
struct FactsRef<'a> {
    receipt: ReceiptId,
    stream: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    producer: Option<&'a str>,
    page: &'a PageFacts,
}

#[derive(Deserialize)]
struct FactsRead {
    receipt: ReceiptId,
    stream: String,
    #[serde(default)]
    producer: Option<String>,
    page: PageFacts,
}

/// A delivery as it stands in the spool, without its body.
#[derive(Clone, Debug)]
pub struct Spooled {
    /// What the producer was given for it.
    pub receipt: ReceiptId,
    /// The stream it is for.
    pub stream: StreamName,
    /// Who sent it.
    pub producer: Option<Name>,
    /// The facts about its body.
    pub facts: PageFacts,
    /// How long that is.
    pub body_bytes: u64,
}

/// Everything of a frame up to its body. The mark is left out: which segment the frame comes to is not known yet.
///
/// # Errors
/// [`ErrorKind::Limit`] if the facts are longer than [`FACTS_BYTES_MAX`] or the body than a page of raw may be.
pub(crate) fn frame_start(delivery: &Delivery) -> Result<Vec<u8>> {
    let limit = |name: &'static str, bytes: usize, max: u64| {
        Error::new(ErrorKind::Limit, "spool delivery")
            .with("stream", &delivery.stream)
            .with("bytes", bytes)
            .with(name, max)
    };
    let body = &delivery.page.body;
    if body.len() as u64 >= FRAME_BYTES_MAX {
        return Err(limit("frame_bytes_max", body.len(), FRAME_BYTES_MAX));
    }
    let facts = FactsRef {
        receipt: delivery.receipt,
        stream: delivery.stream.to_string(),
        producer: delivery.producer.as_ref().map(Name::as_str),
        page: &delivery.page.facts,
    };
    let mut start = vec![0; FRAME_START];
    start.reserve(512);
    serde_json::to_writer(&mut start, &facts).map_err(unwritten)?;
    let facts_bytes = start.len() - FRAME_START;
    if facts_bytes > FACTS_BYTES_MAX {
        return Err(limit("facts_bytes_max", facts_bytes, FACTS_BYTES_MAX as u64));
    }
    start[8..12].copy_from_slice(&(facts_bytes as u32).to_le_bytes());
    start[12..16].copy_from_slice(&(body.len() as u32).to_le_bytes());
    let crc = crc_of(&[&start[8..16], &start[FRAME_START..], body]);
    start[16..20].copy_from_slice(&crc.to_le_bytes());
    Ok(start)
}

/// Puts the mark of the segment into what [`frame_start`] made.
pub(crate) fn stamp(start: &mut [u8], name: &SegmentName) {
    start[..8].copy_from_slice(&name.mark());
}

/// Where a frame lies in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Where it begins.
    pub(crate) offset: u64,
    /// Length of the facts.
    pub(crate) facts_bytes: u32,
    /// Length of the body.
    pub(crate) body_bytes: u32,
}

impl Frame {
    /// Where it ends.
    pub(crate) fn end(&self) -> u64 {
        self.offset + FRAME_START as u64 + u64::from(self.facts_bytes) + u64::from(self.body_bytes)
    }

    /// How long it is.
    pub(crate) fn bytes(&self) -> u64 {
        self.end() - self.offset
    }
}

/// What a segment turned out to hold.
#[derive(Debug)]
pub(crate) struct Scan {
    /// The head, if it could be read.
    pub(crate) head: Option<Head>,
    /// Where the last readable frame ends; the end of the head if there is none.
    pub(crate) end: u64,
    /// Frames that were read.
    pub(crate) frames: u64,
    /// Bytes before `end` that are not what was written.
    pub(crate) damage: Vec<Range<u64>>,
    /// Bytes behind `end`: the start of a frame that was never finished, or damage.
    pub(crate) tail_bytes: u64,
}

/// Reads the first `bytes` of a segment from front to back and shows every whole frame, also those behind damage.
///
/// Holds the facts of one frame and a small piece of the file in memory.
///
/// # Errors
/// [`ErrorKind::Refused`] if a newer program wrote it; [`ErrorKind::Unavailable`] if it cannot be read.
pub(crate) fn scan(
    stored: &dyn Stored,
    name: &SegmentName,
    bytes: u64,
    visit: &mut dyn FnMut(Frame, Spooled),
) -> Result<Scan> {
    let mut window = Window::new(stored, bytes);
    let unread = |source| unread(name, source);
    let (head, start) = head(&mut window, name).map_err(unread)??;
    let mut scan = Scan {
        head,
        end: start,
        frames: 0,
        damage: Vec::new(),
        tail_bytes: 0,
    };
    if scan.head.is_none() && bytes > 0 {
        scan.end = 0;
    }
    let mut offset = start;
    // Every turn goes forward by at least one byte.
    while offset < window.end {
        if let Some((frame, spooled)) = frame_at(&mut window, name, offset).map_err(unread)? {
            if offset > scan.end {
                scan.damage.push(scan.end..offset);
            }
            offset = frame.end();
            scan.end = offset;
            scan.frames += 1;
            visit(frame, spooled);
        } else {
            offset = window.find(&name.mark(), offset + 1).map_err(unread)?;
        }
    }
    scan.tail_bytes = window.end - scan.end;
    Ok(scan)
}

/// The head of a segment and where its frames begin; if it is damaged, none and the place where it would begin.
fn head(window: &mut Window<'_>, name: &SegmentName) -> io::Result<Result<(Option<Head>, u64)>> {
    let prelude = window.at(0, PRELUDE_BYTES)?;
    let sound = prelude.len() == PRELUDE_BYTES
        && prelude.starts_with(MAGIC)
        && word(prelude, 12) == crc32fast::hash(&prelude[..12]);
    if !sound {
        return Ok(Ok((None, 0)));
    }
    let format = word(prelude, 8);
    if format > FORMAT {
        let error = Error::new(ErrorKind::Refused, "read spool segment of a newer format")
            .with("segment", name.file())
            .with("format", format)
            .with("format_max", FORMAT)
            .with(
                "hint",
                "start the newer version of landfall, and stop it when the spool is empty",
            );
        return Ok(Err(error));
    }
    let lengths = window.at(PRELUDE_BYTES as u64, 8)?;
    if lengths.len() < 8 {
        return Ok(Ok((None, PRELUDE_BYTES as u64)));
    }
    let (length, crc) = (word(lengths, 0), word(lengths, 4));
    let text = match usize::try_from(length) {
        Ok(length) if length <= HEAD_BYTES_MAX => window.at(HEAD_START as u64, length)?,
        _ => &[],
    };
    if text.len() != length as usize || crc_of(&[&length.to_le_bytes(), text]) != crc {
        return Ok(Ok((None, PRELUDE_BYTES as u64)));
    }
    let head = serde_json::from_slice::<Head>(text).ok();
    let head = head.filter(|head| head.id == name.id.to_string());
    Ok(Ok((head, HEAD_START as u64 + u64::from(length))))
}

/// The frame at `offset`, if a whole one stands there.
fn frame_at(
    window: &mut Window<'_>,
    name: &SegmentName,
    offset: u64,
) -> io::Result<Option<(Frame, Spooled)>> {
    let end = window.end;
    let start = window.at(offset, FRAME_START)?;
    if start.len() < FRAME_START || !start.starts_with(&name.mark()) {
        return Ok(None);
    }
    let frame = Frame {
        offset,
        facts_bytes: word(start, 8),
        body_bytes: word(start, 12),
    };
    let crc = word(start, 16);
    let mut hasher = Hasher::new();
    hasher.update(&start[8..16]);
    if frame.facts_bytes as usize > FACTS_BYTES_MAX || frame.end() > end {
        return Ok(None);
    }
    let facts = window.at(offset + FRAME_START as u64, frame.facts_bytes as usize)?;
    hasher.update(facts);
    // Read before the checksum is known to be right, because the window moves on with the body.
    let spooled = spooled(facts, frame.body_bytes);
    let mut at = offset + FRAME_START as u64 + u64::from(frame.facts_bytes);
    while at < frame.end() {
        let piece = usize::try_from(frame.end() - at).map_or(WINDOW_BYTES, |left| left.min(WINDOW_BYTES));
        let bytes = window.at(at, piece)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        hasher.update(bytes);
        at += bytes.len() as u64;
    }
    Ok(spooled
        .filter(|_| hasher.finalize() == crc)
        .map(|spooled| (frame, spooled)))
}

/// Reads one delivery.
///
/// # Errors
/// [`ErrorKind::Corrupt`] if the frame is no longer what was scanned; [`ErrorKind::Unavailable`] if it cannot be read.
pub(crate) fn read(stored: &dyn Stored, name: &SegmentName, frame: Frame) -> Result<Delivery> {
    let failed = |kind| {
        Error::new(kind, "read spooled delivery")
            .with("segment", name.file())
            .with("offset", frame.offset)
    };
    let mut bytes = vec![0; frame.bytes() as usize];
    let read = stored
        .read_at(&mut bytes, frame.offset)
        .map_err(|source| failed(ErrorKind::Unavailable).caused_by(source))?;
    let body_start = FRAME_START + frame.facts_bytes as usize;
    let whole = read == bytes.len()
        && bytes.len() >= body_start
        && bytes.starts_with(&name.mark())
        && crc_of(&[&bytes[8..16], &bytes[FRAME_START..]]) == word(&bytes, 16);
    let spooled = whole
        .then(|| spooled(&bytes[FRAME_START..body_start], frame.body_bytes))
        .flatten()
        .ok_or_else(|| failed(ErrorKind::Corrupt))?;
    Ok(Delivery {
        receipt: spooled.receipt,
        stream: spooled.stream,
        producer: spooled.producer,
        page: Page {
            body: Bytes::from(bytes).slice(body_start..),
            facts: spooled.facts,
        },
    })
}

fn spooled(facts: &[u8], body_bytes: u32) -> Option<Spooled> {
    let facts: FactsRead = serde_json::from_slice(facts).ok()?;
    let producer = match facts.producer {
        Some(name) => Some(Name::new(&name).ok()?),
        None => None,
    };
    Some(Spooled {
        receipt: facts.receipt,
        stream: StreamName::parse(&facts.stream).ok()?,
        producer,
        facts: facts.page,
        body_bytes: u64::from(body_bytes),
    })
}

fn crc_of(parts: &[&[u8]]) -> u32 {
    let mut hasher = Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn unread(name: &SegmentName, source: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "read spool segment")
        .with("segment", name.file())
        .caused_by(source)
}

fn unwritten(source: serde_json::Error) -> Error {
    Error::new(ErrorKind::Internal, "spool delivery").caused_by(source)
}
