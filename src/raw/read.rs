//! Reading pages back, each checked against its log entry.
//!
//! What is not as written is a value, [`PageRead::Corrupt`], so that its neighbours are still read.

use std::ops::Range;

use bytes::Bytes;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt as _, path::Path};

use crate::{
    error::{Error, ErrorKind, Result},
    raw::{
        BatchNumber, PageFacts,
        frame::{self, PageIndex, hex, sha256},
        log::{LogEntry, ObjectEntry},
        store::lower,
    },
};

/// One page of a raw batch.
#[derive(Clone, Debug)]
pub struct RawPage {
    /// The batch it belongs to.
    pub batch: BatchNumber,
    /// Its position within the batch, from 0.
    pub page: u32,
    /// The body exactly as it arrived.
    pub body: Bytes,
    /// What is known about it; `None` if its object is damaged, even if the body is not.
    pub facts: Option<PageFacts>,
    /// HTTP status.
    pub status: u16,
}

/// What became of reading a page.
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, and nearly always a page"
)]
#[derive(Clone, Debug)]
pub enum PageRead {
    /// The body is what was landed.
    Page(RawPage),
    /// Some pages cannot be had.
    Corrupt(CorruptPages),
}

/// Pages that cannot be had, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorruptPages {
    /// The batch they belong to.
    pub batch: BatchNumber,
    /// Their positions within the batch.
    pub pages: Range<u32>,
    /// The object that should hold them, relative to the lake.
    pub path: String,
    /// What kind of loss it is.
    pub loss: Loss,
    /// One sentence for a human.
    pub reason: String,
}

/// What kind of loss a [`CorruptPages`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The object is there and is not what was written.
    Changed,
    /// The object is not there.
    Missing,
}

/// The pages of one object, decompressed one frame at a time.
#[derive(Debug)]
pub struct ObjectPages {
    batch: BatchNumber,
    first: u32,
    object: ObjectEntry,
    bytes: Bytes,
    loss: Option<(Loss, String)>,
    next: usize,
    /// The frame read last, by its offset.
    frame: Option<(u64, Bytes)>,
    /// The facts behind the frame they were read of last, by its offset.
    facts: Option<(u64, Vec<PageFacts>)>,
}

/// Fetches object number `object` of the batch `entry`.
///
/// The object is held in memory as stored; its pages are decompressed as they are asked for, which is work for the caller's
/// thread.
///
/// # Errors
/// Whatever the store says, except that an object is gone or damaged: that is told page by page.
/// [`ErrorKind::Internal`] if the batch has no such object.
pub async fn read_object(store: &dyn ObjectStore, entry: &LogEntry, object: usize) -> Result<ObjectPages> {
    let Some(object_entry) = entry.objects.get(object) else {
        return Err(Error::new(ErrorKind::Internal, "read raw object")
            .with("batch", entry.number)
            .with("object", object));
    };
    let mut pages = ObjectPages {
        batch: entry.number,
        first: entry.first_page(object),
        object: object_entry.clone(),
        bytes: Bytes::new(),
        loss: None,
        next: 0,
        frame: None,
        facts: None,
    };
    let key = Path::from(object_entry.path.as_str());
    let got = match store.get(&key).await {
        Ok(got) => got,
        Err(StoreError::NotFound { .. }) => {
            pages.loss = Some((Loss::Missing, "the object is gone".to_owned()));
            return Ok(pages);
        }
        Err(error) => return Err(lower(error, "read raw object", &key)),
    };
    let size = got.meta.size;
    let bytes = if size > object_entry.bytes {
        // What follows the written bytes may be of any length and is never fetched.
        drop(got);
        store.get_range(&key, 0..object_entry.bytes).await
    } else {
        got.bytes().await
    };
    pages.bytes = bytes.map_err(|error| lower(error, "read raw object", &key))?;
    if size != object_entry.bytes {
        let reason = format!("the object has {size} bytes instead of {}", object_entry.bytes);
        pages.loss = Some((Loss::Changed, reason));
        return Ok(pages);
    }
    let hashed = pages.bytes.clone();
    let digest = tokio::task::spawn_blocking(move || sha256(&hashed))
        .await
        .map_err(|error| Error::new(ErrorKind::Internal, "read raw object").caused_by(error))?;
    if hex(&digest) != object_entry.sha256 {
        pages.loss = Some((Loss::Changed, "the object is not what was written".to_owned()));
    }
    Ok(pages)
}

/// Reads one page of a batch and its facts, with one ranged request.
///
/// # Errors
/// [`ErrorKind::Corrupt`] if the page is gone or not what was landed; [`ErrorKind::Internal`] if the batch has no such page;
/// else whatever the store says.
pub async fn page(store: &dyn ObjectStore, entry: &LogEntry, page: u32) -> Result<(PageFacts, Bytes)> {
    let stored = Stored::find(entry, page)?;
    let corrupt = |reason| stored.corrupt(reason);
    let index = stored.index();
    let span = span(stored.object, stored.at).map_err(corrupt)?;
    let bytes = stored.fetch(store, span).await?;
    let frame_bytes = usize::try_from(index.frame_bytes).unwrap_or(usize::MAX);
    let Some((frame, facts)) = bytes.split_at_checked(frame_bytes) else {
        return Err(corrupt("the object is cut short".to_owned()));
    };
    let frame = frame::decode(frame, frame_length(&stored.object.pages, stored.at)).map_err(corrupt)?;
    let body = body(&frame, index).map_err(corrupt)?;
    checked(&body, index).map_err(corrupt)?;
    let facts = nth_facts(facts, &stored.object.pages, stored.at).map_err(corrupt)?;
    Ok((facts, body))
}

/// Reads the facts of one page of a batch and nothing of its body, with one ranged request.
///
/// # Errors
/// As [`page()`].
pub async fn facts(store: &dyn ObjectStore, entry: &LogEntry, page: u32) -> Result<PageFacts> {
    let stored = Stored::find(entry, page)?;
    let corrupt = |reason| stored.corrupt(reason);
    let index = stored.index();
    let span = span(stored.object, stored.at).map_err(corrupt)?;
    let start = index.frame_offset.checked_add(index.frame_bytes);
    let Some(start) = start.filter(|start| *start < span.end) else {
        return Err(corrupt("the page index does not fit the object".to_owned()));
    };
    let bytes = stored.fetch(store, start..span.end).await?;
    nth_facts(&bytes, &stored.object.pages, stored.at).map_err(corrupt)
}

/// Where a page is.
struct Stored<'a> {
    object: &'a ObjectEntry,
    key: Path,
    /// Its position within the object.
    at: usize,
    /// Its position within the batch.
    page: u32,
}

impl<'a> Stored<'a> {
    fn find(entry: &'a LogEntry, page: u32) -> Result<Self> {
        let mut first = 0;
        for object in &entry.objects {
            let at = page as usize - first;
            if at < object.pages.len() {
                let key = Path::from(object.path.as_str());
                return Ok(Self {
                    object,
                    key,
                    at,
                    page,
                });
            }
            first += object.pages.len();
        }
        Err(Error::new(ErrorKind::Internal, "read raw page")
            .with("batch", entry.number)
            .with("page", page))
    }

    fn index(&self) -> &'a PageIndex {
        &self.object.pages[self.at]
    }

    fn corrupt(&self, reason: String) -> Error {
        Error::new(ErrorKind::Corrupt, "read raw page")
            .with("key", &self.key)
            .with("page", self.page)
            .with("reason", reason)
    }

    async fn fetch(&self, store: &dyn ObjectStore, span: Range<u64>) -> Result<Bytes> {
        let end = span.end;
        match store.get_range(&self.key, span).await {
            Ok(bytes) => Ok(bytes),
            Err(StoreError::NotFound { .. }) => Err(self.corrupt("the object is gone".to_owned())),
            Err(error) => {
                // A range past the end fails in a different way on every store.
                let meta = store
                    .head(&self.key)
                    .await
                    .map_err(|error| lower(error, "read raw page", &self.key))?;
                if meta.size < end {
                    return Err(self.corrupt("the object is cut short".to_owned()));
                }
                Err(lower(error, "read raw page", &self.key))
            }
        }
    }
}

impl Iterator for ObjectPages {
    type Item = PageRead;

    fn next(&mut self) -> Option<PageRead> {
        let at = self.next;
        let index = *self.object.pages.get(at)?;
        let corrupt = |pages: &Self, range: Range<usize>, loss, reason| {
            PageRead::Corrupt(CorruptPages {
                batch: pages.batch,
                pages: pages.first + range.start as u32..pages.first + range.end as u32,
                path: pages.object.path.clone(),
                loss,
                reason,
            })
        };
        if self.bytes.is_empty()
            && let Some((loss, reason)) = self.loss.clone()
        {
            self.next = self.object.pages.len();
            return Some(corrupt(self, at..self.next, loss, reason));
        }
        self.next += 1;
        Some(match self.body(at, &index) {
            Ok(body) => PageRead::Page(RawPage {
                batch: self.batch,
                page: self.first + at as u32,
                facts: if self.loss.is_none() { self.facts(at) } else { None },
                body,
                status: index.status,
            }),
            Err(reason) => corrupt(self, at..at + 1, Loss::Changed, reason),
        })
    }
}

impl ObjectPages {
    fn body(&mut self, at: usize, index: &PageIndex) -> Result<Bytes, String> {
        if self
            .frame
            .as_ref()
            .is_none_or(|(offset, _)| *offset != index.frame_offset)
        {
            self.frame = None;
            let stored = part(&self.bytes, index.frame_offset, index.frame_bytes)
                .ok_or_else(|| format!("the object is cut short before the end of page {at} in it"))?;
            let decoded = frame::decode(&stored, frame_length(&self.object.pages, at))?;
            self.frame = Some((index.frame_offset, decoded));
        }
        let frame = self
            .frame
            .as_ref()
            .map(|(_, frame)| frame.clone())
            .unwrap_or_default();
        let body = body(&frame, index)?;
        // In a sound object every body is sound. In a damaged one each has to prove itself.
        if self.loss.is_some() {
            checked(&body, index)?;
        }
        Ok(body)
    }

    fn facts(&mut self, at: usize) -> Option<PageFacts> {
        let index = &self.object.pages[at];
        let is_other = |(offset, _): &(u64, Vec<PageFacts>)| *offset != index.frame_offset;
        if self.facts.as_ref().is_none_or(is_other) {
            let span = span(&self.object, at).ok()?;
            let start = index.frame_offset.checked_add(index.frame_bytes)?;
            let stored = part(&self.bytes, start, span.end.checked_sub(start)?)?;
            self.facts = Some((index.frame_offset, frame::facts(&stored).ok()?));
        }
        let (_, facts) = self.facts.as_ref()?;
        facts.get(place_in_frame(&self.object.pages, at)).cloned()
    }
}

/// The bytes of a page's frame and of the facts behind it.
fn span(object: &ObjectEntry, at: usize) -> Result<Range<u64>, String> {
    let start = object.pages[at].frame_offset;
    let end = object.pages[at..]
        .iter()
        .map(|page| page.frame_offset)
        .find(|&offset| offset != start);
    let span = start..end.unwrap_or(object.bytes);
    if span.start < span.end && span.end <= object.bytes {
        Ok(span)
    } else {
        Err("the page index does not fit the object".to_owned())
    }
}

/// Length of the decompressed frame that holds page `at`: up to the newline behind its last body.
fn frame_length(pages: &[PageIndex], at: usize) -> u64 {
    let same = |page: &&PageIndex| page.frame_offset == pages[at].frame_offset;
    let last = pages[at..].iter().take_while(same).last().unwrap_or(&pages[at]);
    last.start_in_frame
        .saturating_add(last.body_bytes)
        .saturating_add(1)
}

fn body(frame: &Bytes, index: &PageIndex) -> Result<Bytes, String> {
    part(frame, index.start_in_frame, index.body_bytes).ok_or_else(|| "the frame is too short".to_owned())
}

fn checked(body: &[u8], index: &PageIndex) -> Result<(), String> {
    if frame::check(&sha256(body)) == index.body_check {
        Ok(())
    } else {
        Err("the body is not the one that was landed".to_owned())
    }
}

fn nth_facts(bytes: &[u8], pages: &[PageIndex], at: usize) -> Result<PageFacts, String> {
    let facts = frame::facts(bytes)?;
    facts
        .into_iter()
        .nth(place_in_frame(pages, at))
        .ok_or_else(|| "the facts are fewer than the pages".to_owned())
}

/// How many pages stand before page `at` in its frame.
fn place_in_frame(pages: &[PageIndex], at: usize) -> usize {
    let same = |page: &&PageIndex| page.frame_offset == pages[at].frame_offset;
    pages[..at].iter().rev().take_while(same).count()
}

fn part(bytes: &Bytes, start: u64, length: u64) -> Option<Bytes> {
    let end = usize::try_from(start.checked_add(length)?).ok()?;
    let start = usize::try_from(start).ok()?;
    (end <= bytes.len()).then(|| bytes.slice(start..end))
}
