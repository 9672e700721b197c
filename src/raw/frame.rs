//! How pages stand inside an object: zstd frames that any zstd reader can read, each followed by its facts.
//!
//! ```text
//! [zstd frame: body \n][skippable frame: facts as JSON][zstd frame: body \n][skippable frame] …
//! ```
//!
//! Between the parts of one body no newline stands, so that they read as the body.
//!
//! A data frame always comes first: some readers skip a skippable frame only after one. The facts of a frame
//! are a JSON array with one member per page in it, so that small pages may share a frame. Of many pages they are longer
//! than the bodies and mostly the same from page to page, so they are compressed there, too, which the magic number of
//! the skippable frame tells (log entries of format 2).

use std::{io::Write as _, ops::Range};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zstd::zstd_safe::{self, CParameter};

use crate::{
    error::{Error, ErrorKind, Result},
    raw::{
        Page, PageFacts,
        log::{FORMAT, FORMAT_PLAIN_FACTS},
    },
};

/// Most bytes one frame holds when decompressed. A longer page is refused before it is landed.
pub const FRAME_BYTES_MAX: u64 = 1 << 30;

/// With the two settings below as small as level 3 on pages of JSON, and faster; higher levels cost more than the network
/// they save.
const LEVEL: i32 = 1;

/// How far back repeats are looked for: 2 MiB, as at level 3. By itself level 1 looks back a quarter of that.
const WINDOW_LOG: u32 = 21;

/// Places that are remembered for it: 2^17, as at level 3. By itself level 1 remembers too few to find objects again that
/// repeat from record to record at some distance.
const HASH_LOG: u32 = 17;

/// How many times shorter a page of JSON is expected to become, so that its frame is seldom moved while it grows.
const RATIO_EXPECTED: usize = 4;

/// The first of the sixteen magic numbers that make a frame skippable (RFC 8878, section 3.1.2): facts as they are.
const SKIPPABLE: u32 = 0x184D_2A50;

/// The second of them: facts in a zstd frame of their own.
const SKIPPABLE_ZSTD: u32 = 0x184D_2A51;

/// Facts of one frame in bytes, decompressed: a mebibyte for each page that may share it.
const FACTS_BYTES_MAX: u64 = 256 << 20;

/// Facts with more bytes are compressed. Those of one page are mostly shorter, and can be read by eye.
const PLAIN_FACTS_BYTES_MAX: usize = 2 << 10;

/// Magic number and length before the content of a skippable frame, in bytes.
const SKIPPABLE_HEAD_BYTES: usize = 8;

/// Where one page lies in its object, and what is needed to check it alone.
///
/// Stored as `[frame_offset, frame_bytes, start_in_frame, body_bytes, status, body_check]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    from = "(u64, u64, u64, u64, u16, u64)",
    into = "(u64, u64, u64, u64, u16, u64)"
)]
pub struct PageIndex {
    /// Where the page's data frame begins in the object, in bytes.
    pub frame_offset: u64,
    /// Length of the data frame as stored.
    pub frame_bytes: u64,
    /// Where the body begins in the decompressed frame.
    pub start_in_frame: u64,
    /// Length of the body.
    pub body_bytes: u64,
    /// HTTP status of the page.
    pub status: u16,
    /// The first 48 bits of the body's SHA-256, so that a page can be trusted in an object that cannot.
    /// 48, because every JSON reader keeps a whole number of that size exact.
    pub body_check: u64,
}

impl From<(u64, u64, u64, u64, u16, u64)> for PageIndex {
    fn from(row: (u64, u64, u64, u64, u16, u64)) -> Self {
        let (frame_offset, frame_bytes, start_in_frame, body_bytes, status, body_check) = row;
        Self {
            frame_offset,
            frame_bytes,
            start_in_frame,
            body_bytes,
            status,
            body_check,
        }
    }
}

impl From<PageIndex> for (u64, u64, u64, u64, u16, u64) {
    fn from(index: PageIndex) -> Self {
        (
            index.frame_offset,
            index.frame_bytes,
            index.start_in_frame,
            index.body_bytes,
            index.status,
            index.body_check,
        )
    }
}

/// What stands beside a page in its object.
#[derive(Debug, Serialize, Deserialize)]
struct StoredFacts<F> {
    #[serde(flatten)]
    facts: F,
    body_bytes: u64,
    body_sha256: String,
}

/// Pages as they stand together in an object, wherever that begins: their data frame, then their facts.
#[derive(Debug)]
pub struct Frame {
    bytes: Vec<u8>,
    /// As in the object that begins with it.
    pages: Vec<PageIndex>,
    /// The format of a log entry that may name it.
    format: u32,
}

impl Frame {
    /// Compresses `pages` together.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] if they are longer than [`FRAME_BYTES_MAX`]; [`ErrorKind::Internal`] if they cannot be
    /// compressed.
    pub fn of(pages: &[Page]) -> Result<Self> {
        let bytes = pages.iter().map(length).fold(0, u64::saturating_add);
        if bytes > FRAME_BYTES_MAX {
            return Err(Error::new(ErrorKind::Limit, "land page")
                .with("bytes", bytes)
                .with("frame_bytes_max", FRAME_BYTES_MAX));
        }
        encode(pages, bytes)
            .map_err(|error| Error::new(ErrorKind::Internal, "compress page").caused_by(error))
    }

    /// The format that a log entry with its pages has at least: a program that does not know it cannot read the facts.
    #[must_use]
    pub fn format(&self) -> u32 {
        self.format
    }

    /// Appends it to `object`, and says where its pages lie in that.
    pub fn append_to(self, object: &mut Vec<u8>) -> Vec<PageIndex> {
        let frame_offset = object.len() as u64;
        if object.is_empty() {
            *object = self.bytes;
        } else {
            object.extend_from_slice(&self.bytes);
        }
        let mut pages = self.pages;
        for page in &mut pages {
            page.frame_offset = frame_offset;
        }
        pages
    }
}

/// Bytes of `page` in its frame.
fn length(page: &Page) -> u64 {
    (page.body.len() + end(&page.facts).len()) as u64
}

/// `bytes` are those of all pages.
fn encode(pages: &[Page], bytes: u64) -> std::io::Result<Frame> {
    let expected = usize::try_from(bytes).unwrap_or(usize::MAX) / RATIO_EXPECTED;
    let mut object = Vec::with_capacity(expected + SKIPPABLE_HEAD_BYTES);
    let mut encoder = zstd::Encoder::new(&mut object, LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
    encoder.set_parameter(CParameter::HashLog(HASH_LOG))?;
    encoder.set_pledged_src_size(Some(bytes))?;
    for page in pages {
        encoder.write_all(&page.body)?;
        encoder.write_all(end(&page.facts))?;
    }
    encoder.finish()?;
    let frame_bytes = object.len() as u64;

    let mut stored = Vec::with_capacity(pages.len());
    let mut index = Vec::with_capacity(pages.len());
    let mut start_in_frame = 0;
    for page in pages {
        let digest = sha256(&page.body);
        let body_bytes = page.body.len() as u64;
        stored.push(StoredFacts {
            facts: &page.facts,
            body_bytes,
            body_sha256: hex(&digest),
        });
        index.push(PageIndex {
            frame_offset: 0,
            frame_bytes,
            start_in_frame,
            body_bytes,
            status: page.facts.status,
            body_check: check(&digest),
        });
        start_in_frame += length(page);
    }
    let mut facts = serde_json::to_vec(&stored)?;
    let (mut magic, mut format) = (SKIPPABLE, FORMAT_PLAIN_FACTS);
    if facts.len() as u64 > FACTS_BYTES_MAX {
        return Err(std::io::Error::other("its facts are too long"));
    }
    if facts.len() > PLAIN_FACTS_BYTES_MAX {
        let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
        compressor.include_checksum(true)?;
        facts = compressor.compress(&facts)?;
        (magic, format) = (SKIPPABLE_ZSTD, FORMAT);
    }
    let length = u32::try_from(facts.len()).map_err(std::io::Error::other)?;
    object.extend_from_slice(&magic.to_le_bytes());
    object.extend_from_slice(&length.to_le_bytes());
    object.extend_from_slice(&facts);
    Ok(Frame {
        bytes: object,
        pages: index,
        format,
    })
}

/// What stands behind a body.
fn end(facts: &PageFacts) -> &'static [u8] {
    if facts.goes_on() { b"" } else { b"\n" }
}

/// Decompresses one data frame that holds at most `bytes_max` bytes.
///
/// # Errors
/// One sentence that says what is wrong with the frame.
pub fn decode(frame: &[u8], bytes_max: u64) -> Result<Bytes, String> {
    let capacity = usize::try_from(bytes_max.min(FRAME_BYTES_MAX)).map_err(|error| error.to_string())?;
    zstd::bulk::decompress(frame, capacity)
        .map(Bytes::from)
        .map_err(|error| format!("the frame cannot be decompressed: {error}"))
}

/// The facts in the skippable frame at the start of `bytes`, one member per page of the frame before it.
///
/// # Errors
/// One sentence that says what is wrong with them.
pub fn facts(bytes: &[u8]) -> Result<Vec<PageFacts>, String> {
    Ok(stored_facts(bytes)?
        .into_iter()
        .map(|stored| stored.facts)
        .collect())
}

fn stored_facts(bytes: &[u8]) -> Result<Vec<StoredFacts<PageFacts>>, String> {
    let word = |range: Range<usize>| {
        let word: Option<[u8; 4]> = bytes.get(range).and_then(|word| word.try_into().ok());
        word.map(u32::from_le_bytes).ok_or("the facts are cut short")
    };
    let magic = word(0..4)?;
    if magic != SKIPPABLE && magic != SKIPPABLE_ZSTD {
        return Err("no facts follow the frame".to_owned());
    }
    let length = word(4..8)? as usize;
    let facts = bytes
        .get(SKIPPABLE_HEAD_BYTES..)
        .and_then(|rest| rest.get(..length))
        .ok_or("the facts are cut short")?;
    let decompressed;
    let json = if magic == SKIPPABLE_ZSTD {
        let length = zstd_safe::get_frame_content_size(facts).ok().flatten();
        let length = length.filter(|length| *length <= FACTS_BYTES_MAX);
        decompressed = decode(
            facts,
            length.ok_or("the facts do not say how long they are, or are too long")?,
        )?;
        &decompressed[..]
    } else {
        facts
    };
    serde_json::from_slice(json).map_err(|error| format!("the facts are not what was written: {error}"))
}

/// Reads an object without its log entry: all pages with their facts, each body checked against its SHA-256.
///
/// This is how a lost log can be rebuilt.
///
/// # Errors
/// [`ErrorKind::Corrupt`] naming the first byte that is not as written.
pub fn read_alone(object: &[u8]) -> Result<Vec<Page>> {
    let mut pages = Vec::new();
    let mut offset = 0;
    while offset < object.len() {
        offset += read_frame(&object[offset..], &mut pages).map_err(|reason| {
            Error::new(ErrorKind::Corrupt, "read object alone")
                .with("offset", offset)
                .with("reason", reason)
        })?;
    }
    Ok(pages)
}

/// Reads one data frame and its facts into `pages`; returns their length.
fn read_frame(bytes: &[u8], pages: &mut Vec<Page>) -> Result<usize, String> {
    let frame_bytes = zstd_safe::find_frame_compressed_size(bytes)
        .map_err(|code| format!("no whole frame: {}", zstd_safe::get_error_name(code)))?;
    let facts_bytes = zstd_safe::find_frame_compressed_size(&bytes[frame_bytes..])
        .map_err(|code| format!("no facts follow the frame: {}", zstd_safe::get_error_name(code)))?;
    let stored = stored_facts(&bytes[frame_bytes..])?;
    let length =
        |page: &StoredFacts<PageFacts>| page.body_bytes.saturating_add(end(&page.facts).len() as u64);
    let expected = stored.iter().map(length).fold(0, u64::saturating_add);
    let bodies = decode(&bytes[..frame_bytes], expected)?;
    if bodies.len() as u64 != expected {
        return Err(format!(
            "the frame holds {} bytes instead of {expected}",
            bodies.len()
        ));
    }
    let mut start = 0;
    for page in stored {
        // The sum of all lengths was just found equal to a length in memory.
        let body = bodies.slice(start..start + page.body_bytes as usize);
        if hex(&sha256(&body)) != page.body_sha256 {
            return Err("the body is not the one its facts describe".to_owned());
        }
        start += body.len() + end(&page.facts).len();
        pages.push(Page {
            body,
            facts: page.facts,
        });
    }
    Ok(frame_bytes + facts_bytes)
}

/// SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Lowercase hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .map(char::from)
        .collect()
}

/// The part of a body's SHA-256 that the page index keeps.
pub(crate) fn check(digest: &[u8; 32]) -> u64 {
    digest[..6]
        .iter()
        .fold(0, |check, &byte| check << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw::Part;

    fn facts(url: &str) -> PageFacts {
        serde_json::from_value(serde_json::json!({
            "fetched_at": "2026-11-22T01:00:00.000001Z", "method": "GET", "url": url, "status": 200, "attempts": 1,
        }))
        .unwrap()
    }

    #[test]
    fn pages_that_share_a_frame_are_read_alone() {
        let bodies = ["{\"id\":1}", "", "x\ny"];
        let page = |body: &'static str| Page {
            body: Bytes::from_static(body.as_bytes()),
            facts: facts(body),
        };
        let mut object = Vec::new();
        let together = Frame::of(&bodies.map(page)).unwrap().append_to(&mut object);
        let places = together
            .iter()
            .map(|index| (index.frame_offset, index.start_in_frame, index.body_bytes));
        assert_eq!(places.collect::<Vec<_>>(), [(0, 0, 8), (0, 9, 0), (0, 10, 3)]);
        assert_eq!(
            zstd::decode_all(&object[..]).unwrap(),
            format!("{}\n", bodies.join("\n")).as_bytes()
        );
        let end = object.len() as u64;
        let last = Frame::of(&[page("last")]).unwrap().append_to(&mut object);
        assert_eq!(last[0].frame_offset, end);
        let pages = read_alone(&object).unwrap();
        let read: Vec<(&[u8], &str)> = pages
            .iter()
            .map(|page| (&page.body[..], page.facts.url.as_str()))
            .collect();
        assert_eq!(read[3], (&b"last"[..], "last"));
        assert!(
            read.iter()
                .zip(bodies)
                .all(|(page, body)| *page == (body.as_bytes(), body))
        );
    }

    #[test]
    fn facts_of_many_pages_are_compressed_and_read_the_same() {
        let page = |number: usize| Page {
            body: Bytes::from(format!("{{\"id\":{number}}}")),
            facts: facts(&format!("https://shop.example/orders/{number}")),
        };
        let pages: Vec<Page> = (0..200).map(page).collect();
        let mut object = Vec::new();
        Frame::of(&pages).unwrap().append_to(&mut object);
        let frame_bytes = zstd_safe::find_frame_compressed_size(&object).unwrap();
        let facts_bytes = object.len() - frame_bytes;
        assert_eq!(object[frame_bytes..][..4], SKIPPABLE_ZSTD.to_le_bytes());
        let json_bytes = serde_json::to_vec(&pages.iter().map(|page| &page.facts).collect::<Vec<_>>())
            .unwrap()
            .len();
        assert!(facts_bytes < json_bytes / 2, "{facts_bytes} of {json_bytes}");
        let same = |read: &[Page]| {
            let mut pairs = read.iter().zip(&pages);
            read.len() == pages.len()
                && pairs.all(|(read, page)| read.body == page.body && read.facts == page.facts)
        };
        assert!(same(&read_alone(&object).unwrap()));
        // Whatever is damaged in them is found. A bit that means nothing changes nothing.
        for at in frame_bytes..object.len() {
            let mut damaged = object.clone();
            damaged[at] ^= 0x40;
            match read_alone(&damaged) {
                Ok(read) => assert!(same(&read), "{at}"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Corrupt, "{at}"),
            }
        }
        // A reader that knows none of this passes over them.
        let bodies: Vec<u8> = pages
            .iter()
            .flat_map(|page| [&page.body[..], b"\n"].concat())
            .collect();
        assert_eq!(zstd::decode_all(&object[..]).unwrap(), bodies);
    }

    #[test]
    fn parts_of_a_body_read_as_the_body() {
        let part = |index, last, body: &'static [u8]| Page {
            body: Bytes::from_static(body),
            facts: PageFacts {
                part: Some(Part {
                    index,
                    last,
                    offset: 0,
                    path: Some("$[*]".to_owned()),
                    records: Some((1, 2)),
                    whole_sha256: last.then(|| "00".repeat(32)),
                }),
                ..facts("u")
            },
        };
        let pages = [
            part(0, false, b"[1"),
            part(1, false, b",2"),
            part(2, true, b",3]"),
            part(0, true, b"[4]"),
        ];
        let mut object = Vec::new();
        for page in &pages {
            Frame::of(std::slice::from_ref(page))
                .unwrap()
                .append_to(&mut object);
        }
        assert_eq!(zstd::decode_all(&object[..]).unwrap(), b"[1,2,3]\n[4]\n");
        let read = read_alone(&object).unwrap();
        assert!(
            read.iter()
                .zip(&pages)
                .all(|(read, page)| read.body == page.body && read.facts == page.facts)
        );
    }

    #[test]
    fn f138_an_object_that_is_not_whole_is_corrupt_alone_too() {
        let mut object = Vec::new();
        let page = Page {
            body: Bytes::from_static(b"{}"),
            facts: facts("u"),
        };
        Frame::of(&[page]).unwrap().append_to(&mut object);
        for length in 1..object.len() {
            assert_eq!(
                read_alone(&object[..length]).unwrap_err().kind(),
                ErrorKind::Corrupt,
                "{length}"
            );
        }
        assert_eq!(
            read_alone(b"PAR1 not ours").unwrap_err().kind(),
            ErrorKind::Corrupt
        );
    }

    #[test]
    fn what_repeats_a_megabyte_later_is_found_again() {
        // Words of a linear congruence: they compress badly but for the repeat.
        let words = (0..1_u64 << 17).map(|n| n.wrapping_mul(6_364_136_223_846_793_005).to_be_bytes());
        let once: Vec<u8> = words.flatten().collect();
        let frame = |body: Vec<u8>| {
            let page = Page {
                body: body.into(),
                facts: facts("u"),
            };
            Frame::of(&[page]).unwrap().append_to(&mut Vec::new())[0].frame_bytes
        };
        let (single, double) = (frame(once.clone()), frame(once.repeat(2)));
        assert!(double < single * 11 / 10, "{double} of two, {single} of one");
    }

    #[test]
    fn the_page_index_is_one_row_of_numbers() {
        let mut object = b"before".to_vec();
        let page = Page {
            body: Bytes::from_static(b"{}"),
            facts: facts("u"),
        };
        let index = Frame::of(&[page]).unwrap().append_to(&mut object)[0];
        // SHA-256 of `{}` begins with 44136fa355b3.
        let text = serde_json::to_string(&index).unwrap();
        assert_eq!(
            text,
            format!("[6,{},0,2,200,{}]", index.frame_bytes, 0x4413_6fa3_55b3_u64)
        );
        assert_eq!(serde_json::from_str::<PageIndex>(&text).unwrap(), index);
    }
}
