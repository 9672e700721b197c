//! Bodies too large for memory: kept in a file without a name and handed out in parts.
//!
//! ```text
//! bytes as they come ─ decode ─► Intake ─┬─ short: Bytes
//!                                        └─ long:  file, cuts, envelope = Spool ─► Parts ─► pages
//! ```
//!
//! The file has no name from the moment it exists, so that nothing is left behind by whatever ends the process.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};

use crate::{
    config::Limits,
    error::{Error, ErrorKind, Result},
    extract::reading::Unreadable,
    format::part::{Around, Cut, Cutter, PartBytes, Section, Streamed},
    raw::{Page, PageFacts, Part, frame::hex},
    spill::scratch::Scratch,
};

/// Kept in memory of a body in which no records can be found, for whoever reads the error.
const EXCERPT_BYTES: usize = 64 * 1024;

/// A body in a file.
#[derive(Debug)]
pub struct Spool {
    file: Mutex<Scratch>,
    /// Its length.
    pub bytes: u64,
    /// What it is cut into.
    pub cuts: Vec<Cut>,
    /// The path it was cut by; none for lines.
    path: Option<String>,
    /// Where in the envelope the records stood.
    records_at: usize,
    /// Why it is no page; records may turn out to be unreadable later.
    pub fault: Option<Unreadable>,
    /// Whether it ends with a newline.
    pub ends_with_newline: bool,
    sha256: [u8; 32],
}

/// A body that was taken to its end.
#[derive(Clone, Debug)]
pub struct Taken {
    /// The body, or what stands around its records if it is in a file: nothing around lines, and the beginning of a body
    /// in which no records can be found.
    pub body: Bytes,
    /// The file.
    pub spool: Option<Arc<Spool>>,
}

/// Takes one decoded body, into memory or into a file.
#[derive(Debug)]
pub struct Intake {
    streamed: Streamed,
    dir: PathBuf,
    limits: Limits,
    held: BytesMut,
    file: Option<Filling>,
}

#[derive(Debug)]
struct Filling {
    file: Scratch,
    cutter: Cutter,
    hasher: Sha256,
    bytes: u64,
    excerpt: Bytes,
    last: Option<u8>,
}

impl Intake {
    /// An intake for a body of records that stand like `streamed`; its file is made in `dir`, if it needs one.
    pub fn new(streamed: Streamed, dir: &Path, limits: &Limits) -> Self {
        Self {
            streamed,
            dir: dir.to_owned(),
            limits: *limits,
            held: BytesMut::new(),
            file: None,
        }
    }

    /// Takes the next decoded bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] if the body would have to be held and is too long for that, or if the disk does not take it.
    pub fn take(&mut self, chunk: &[u8]) -> Result<()> {
        if let Some(filling) = &mut self.file {
            return filling.take(chunk).map_err(|cause| undone(&self.dir, cause));
        }
        self.held.extend_from_slice(chunk);
        let held = self.held.len() as u64;
        if held <= self.limits.part_bytes {
            return Ok(());
        }
        let size = PartBytes {
            least: self.limits.part_bytes,
            most: self.limits.held_bytes_max.max(self.limits.part_bytes),
        };
        let Some(cutter) = Cutter::new(&self.streamed, &self.held, size) else {
            return match held <= self.limits.held_bytes_max {
                true => Ok(()),
                false => Err(too_large(self.limits.held_bytes_max)),
            };
        };
        let file = Scratch::create(&self.dir).map_err(|cause| undone(&self.dir, cause))?;
        let held = std::mem::take(&mut self.held);
        let mut filling = Filling {
            file,
            cutter,
            hasher: Sha256::new(),
            bytes: 0,
            excerpt: Bytes::copy_from_slice(&held[..held.len().min(EXCERPT_BYTES)]),
            last: None,
        };
        filling.take(&held).map_err(|cause| undone(&self.dir, cause))?;
        self.file = Some(filling);
        Ok(())
    }

    /// The body, after its last bytes.
    pub fn finish(self) -> Taken {
        let Some(filling) = self.file else {
            return Taken {
                body: self.held.freeze(),
                spool: None,
            };
        };
        let cuts = filling.cutter.finish();
        let (body, records_at, fault) = match cuts.around {
            Ok(Around::Envelope(envelope)) => (Bytes::from(envelope.text), envelope.records_at, None),
            Ok(Around::Nothing) => (Bytes::new(), 0, None),
            Ok(Around::Missing) => (filling.excerpt, 0, Some(Unreadable::RecordsMissing)),
            Err(defect) => (filling.excerpt, 0, Some(Unreadable::NotJson(defect))),
        };
        Taken {
            body,
            spool: Some(Arc::new(Spool {
                file: Mutex::new(filling.file),
                bytes: filling.bytes,
                cuts: cuts.parts,
                path: self.streamed.path().map(ToString::to_string),
                records_at,
                fault,
                ends_with_newline: filling.last == Some(b'\n'),
                sha256: filling.hasher.finalize().into(),
            })),
        }
    }
}

impl Filling {
    fn take(&mut self, chunk: &[u8]) -> std::io::Result<()> {
        self.file.append(chunk)?;
        self.hasher.update(chunk);
        self.cutter.take(chunk);
        self.bytes += chunk.len() as u64;
        self.last = chunk.last().copied().or(self.last);
        Ok(())
    }
}

impl Spool {
    /// Whether another file holds the same bytes.
    pub fn is_same(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.sha256 == other.sha256
    }

    /// The bytes of one part.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the file cannot be read.
    pub fn part(&self, cut: &Cut) -> Result<Bytes> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.read(cut.offset, cut.bytes)
            .map_err(|cause| Error::new(ErrorKind::Internal, "read spooled body").caused_by(cause))
    }

    /// Whether its records are lines.
    pub fn is_in_lines(&self) -> bool {
        self.path.is_none()
    }

    /// What is known about part number `number`, for those who read its records.
    pub fn section(&self, number: usize) -> Section<'_> {
        Section {
            path: self.path.as_deref(),
            records: self.cuts.get(number).and_then(|cut| cut.records.clone()),
            first: number == 0,
        }
    }

    /// A short body of the same form, with the records of the first part alone; `envelope` is what stands around them.
    ///
    /// # Errors
    /// Those of [`Spool::part`].
    pub fn sample(&self, envelope: &Bytes) -> Result<Bytes> {
        let Some(first) = self.cuts.first() else {
            return Ok(Bytes::new());
        };
        let part = self.part(first)?;
        let (Some(_), Some(records)) = (&self.path, &first.records) else {
            return Ok(part);
        };
        let end = usize::try_from(records.end).unwrap_or(usize::MAX).min(part.len());
        Ok([&part[..end], &envelope[self.records_at.min(envelope.len())..]]
            .concat()
            .into())
    }
}

/// Whether the records of a body may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Records {
    /// They may.
    Readable,
    /// It is landed to show what was answered.
    Unreadable,
}

/// The pages of a spooled body.
#[derive(Debug)]
pub(crate) struct Parts {
    spool: Arc<Spool>,
    facts: PageFacts,
    records: Records,
    next: usize,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct PartPage {
    /// The page to land.
    pub(crate) page: Page,
    /// Whether others follow.
    pub(crate) goes_on: bool,
}

impl Parts {
    /// The parts of `spool`, all with these facts.
    pub(crate) fn new(spool: Arc<Spool>, facts: PageFacts, records: Records) -> Self {
        Self {
            spool,
            facts,
            records,
            next: 0,
        }
    }

    /// The next part; none behind the last.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the file cannot be read.
    pub(crate) async fn next(&mut self) -> Result<Option<PartPage>> {
        let number = self.next;
        let Some(cut) = self.spool.cuts.get(number).cloned() else {
            return Ok(None);
        };
        self.next += 1;
        let last = self.next == self.spool.cuts.len();
        let records = cut.records.clone().filter(|_| self.records == Records::Readable);
        let mut facts = self.facts.clone();
        facts.part = Some(Part {
            index: u32::try_from(number).unwrap_or(u32::MAX),
            last,
            offset: cut.offset,
            path: self.spool.path.clone(),
            records: records.map(|records| (records.start, records.end)),
            whole_sha256: last.then(|| hex(&self.spool.sha256)),
        });
        let spool = Arc::clone(&self.spool);
        let read = tokio::task::spawn_blocking(move || spool.part(&cut)).await;
        let body =
            read.map_err(|cause| Error::new(ErrorKind::Internal, "read spooled body").caused_by(cause))??;
        let page = Page { body, facts };
        Ok(Some(PartPage { page, goes_on: !last }))
    }
}

fn too_large(held_bytes_max: u64) -> Error {
    Error::new(ErrorKind::Limit, "hold body")
        .with("held_bytes_max", held_bytes_max)
        .with("hint", "raise memory; only UTF-8 is read from a file instead")
}

fn undone(dir: &Path, cause: std::io::Error) -> Error {
    let full = matches!(
        cause.kind(),
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
    );
    let error = Error::new(ErrorKind::Limit, "spool body").with("dir", dir.display());
    if full {
        let hint =
            "the disk is full: make room for one body of page_bytes_max, or set limits.page_bytes_max lower";
        return error.with("hint", hint).caused_by(cause);
    }
    error.caused_by(cause)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::json::JsonPath;

    fn limits(part_bytes: u64, held_bytes_max: u64) -> Limits {
        Limits {
            part_bytes,
            held_bytes_max,
            ..Limits::DEFAULT
        }
    }

    fn take(body: &[u8], limits: &Limits, dir: &Path) -> Result<Taken> {
        let streamed = Streamed::Elements(JsonPath::parse("$.d[*]").unwrap());
        let mut intake = Intake::new(streamed, dir, limits);
        for chunk in body.chunks(5) {
            intake.take(chunk)?;
        }
        Ok(intake.finish())
    }

    #[test]
    fn a_short_body_stays_in_memory_and_a_long_one_leaves_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let spools = dir.path().join("spool");
        let body = br#"{"d":[1,2,3,4],"next":"B"}"#;
        let short = take(body, &limits(100, 100), &spools).unwrap();
        assert!(short.spool.is_none() && short.body == body[..] && !spools.exists());
        let long = take(body, &limits(8, 100), &spools).unwrap();
        let spool = long.spool.unwrap();
        assert_eq!(long.body, br#"{"d":[],"next":"B"}"#[..]);
        assert_eq!(fs::read_dir(&spools).unwrap().count(), 0);
        let parts: Vec<Bytes> = spool.cuts.iter().map(|cut| spool.part(cut).unwrap()).collect();
        assert_eq!(
            parts,
            [&br#"{"d":[1,2"#[..], br#",3,4],"next":"B"}"#].map(Bytes::from_static)
        );
        assert_eq!(
            spool.sample(&long.body).unwrap(),
            br#"{"d":[1,2],"next":"B"}"#[..]
        );
    }

    #[test]
    fn a_long_body_without_records_keeps_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let taken = take(br#"{"error":"not today"}"#, &limits(8, 100), dir.path()).unwrap();
        assert!(taken.body.starts_with(br#"{"error":"#));
        assert_eq!(taken.spool.unwrap().fault, Some(Unreadable::RecordsMissing));
    }

    #[test]
    fn f039_what_has_to_be_held_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let utf16: Vec<u8> = b"\xff\xfe".iter().copied().chain([b' ', 0].repeat(100)).collect();
        assert!(
            take(&utf16, &limits(8, 1000), dir.path())
                .unwrap()
                .spool
                .is_none()
        );
        let error = take(&utf16, &limits(8, 100), dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = take(br#"{"d":[1,2,3,4]}"#, &limits(8, 100), file.path()).unwrap_err();
        assert!(error.chain().contains("spool body"), "{}", error.chain());
    }
}
