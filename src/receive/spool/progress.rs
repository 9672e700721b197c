//! How far a segment has come into the lake: a small file beside it, so that nothing of it is landed twice.
//!
//! ```text
//! <segment>.progress      one line each, between empty ones: CRC-32 as 8 hex digits, a space, JSON
//!
//! opened  how many bytes of the segment count
//! begun   the number that the batch of a stream was tried under first; synced before it is tried
//! landed  the number it stands under
//! ```
//!
//! Whether a batch that was begun stands is seen in the raw log of its stream, from the number in its line on. A line
//! `landed` only saves that look, so it is not synced.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{self, IoSlice},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    config::StreamName,
    raw::BatchNumber,
    receive::spool::{
        folder::{Folder, Growing},
        segment::SegmentName,
    },
};

/// What the file is called, behind the name of its segment.
pub(crate) const SUFFIX: &str = ".progress";

/// While it is written anew.
pub(crate) const STAGED: &str = ".progress.tmp";

/// Longest file that is read, in bytes. A segment has fewer streams than deliveries, and a line about 150 bytes.
const BYTES_MAX: u64 = 64 << 20;

/// How far a segment has come.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// How many bytes of the segment count.
    pub(crate) bytes: u64,
    /// Lines are missing: any stream may have been begun, anywhere.
    doubtful: bool,
    begun: BTreeMap<String, BatchNumber>,
    landed: BTreeSet<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Opened {
        bytes: u64,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        doubtful: bool,
    },
    Begun {
        stream: String,
        from: BatchNumber,
    },
    Landed {
        stream: String,
    },
}

/// The file with its marks. Blocking.
pub(crate) struct Progress {
    folder: Arc<dyn Folder>,
    name: SegmentName,
    marks: Marks,
    /// None after a failure: what stands in the file is not known then, and it is written anew.
    file: Option<Box<dyn Growing>>,
}

impl Marks {
    /// What stands in the file of `name`; none if there is no file, or none that was ever complete.
    pub(crate) fn read(folder: &dyn Folder, name: &SegmentName) -> io::Result<Option<Self>> {
        let stored = match folder.open(&name.beside(SUFFIX)) {
            Ok(stored) => stored,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = vec![0; stored.bytes().min(BYTES_MAX) as usize];
        let read = stored.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        Ok(Self::of(&bytes))
    }

    fn of(bytes: &[u8]) -> Option<Self> {
        let mut marks = Self::default();
        let (mut opened, mut unreadable) = (false, false);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if line == b"\n" {
                continue;
            }
            let Some(line) = read_line(line) else {
                unreadable = true;
                continue;
            };
            // What is unreadable at the end was never finished, and so nothing was done because of it.
            marks.doubtful |= unreadable;
            match line {
                Line::Opened { bytes, doubtful } => {
                    opened = true;
                    marks.bytes = bytes;
                    marks.doubtful |= doubtful;
                }
                Line::Begun { stream, from } => {
                    marks.begun.entry(stream).or_insert(from);
                }
                Line::Landed { stream } => {
                    marks.landed.insert(stream);
                }
            }
        }
        opened.then_some(marks)
    }

    /// Whether the part of `stream` is known to stand in the lake.
    pub(crate) fn has_landed(&self, stream: &StreamName) -> bool {
        self.landed.contains(&stream.to_string())
    }

    /// From which number on the batch of `stream` may stand in its log; none if it was never tried.
    pub(crate) fn begun(&self, stream: &StreamName) -> Option<BatchNumber> {
        let first = self.doubtful.then_some(BatchNumber::FIRST);
        let begun = self.begun.get(&stream.to_string()).copied();
        first.or(begun)
    }

    fn lines(&self) -> impl Iterator<Item = Line> {
        let opened = Line::Opened {
            bytes: self.bytes,
            doubtful: self.doubtful,
        };
        let begun = self.begun.iter().map(|(stream, from)| Line::Begun {
            stream: stream.clone(),
            from: *from,
        });
        let landed = self.landed.iter().cloned();
        std::iter::once(opened)
            .chain(begun)
            .chain(landed.map(|stream| Line::Landed { stream }))
    }
}

impl Progress {
    /// That of a segment of which `bytes` count, durable from the beginning.
    pub(crate) fn open(folder: Arc<dyn Folder>, name: SegmentName, bytes: u64) -> io::Result<Self> {
        let mut marks = Marks::read(&*folder, &name)?.unwrap_or_default();
        marks.bytes = bytes;
        let mut progress = Self {
            folder,
            name,
            marks,
            file: None,
        };
        progress.write_anew()?;
        Ok(progress)
    }

    pub(crate) fn marks(&self) -> &Marks {
        &self.marks
    }

    /// Notes, durably, that the batch of `stream` is about to be tried under the number `from` and later ones.
    pub(crate) fn begin(&mut self, stream: &StreamName, from: BatchNumber) -> io::Result<()> {
        self.marks.begun.entry(stream.to_string()).or_insert(from);
        let stream = stream.to_string();
        self.note(&Line::Begun { stream, from }, true)
    }

    /// Notes that the batch of `stream` stands.
    pub(crate) fn land(&mut self, stream: &StreamName) -> io::Result<()> {
        let stream = stream.to_string();
        self.marks.landed.insert(stream.clone());
        self.note(&Line::Landed { stream }, false)
    }

    fn note(&mut self, line: &Line, durably: bool) -> io::Result<()> {
        let Some(mut file) = self.file.take() else {
            return self.write_anew();
        };
        let text = to_line(line)?;
        file.write(&mut [IoSlice::new(text.as_bytes())])?;
        if durably {
            file.sync()?;
        }
        self.file = Some(file);
        Ok(())
    }

    fn write_anew(&mut self) -> io::Result<()> {
        let (file, staged) = (self.name.beside(SUFFIX), self.name.beside(STAGED));
        match self.folder.remove(&staged) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut text = String::new();
        for line in self.marks.lines() {
            text.push_str(&to_line(&line)?);
        }
        let mut growing = self.folder.create(&staged)?;
        growing.write(&mut [IoSlice::new(text.as_bytes())])?;
        growing.sync()?;
        self.folder.rename(&staged, &file)?;
        self.folder.sync()?;
        self.file = Some(self.folder.extend(&file)?);
        Ok(())
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Progress({:?}, {:?})", self.name, self.marks)
    }
}

fn to_line(line: &Line) -> io::Result<String> {
    let json = serde_json::to_string(line)?;
    // With a break at each end, no byte that is damaged makes one line of two.
    Ok(format!("\n{:08x} {json}\n", crc32fast::hash(json.as_bytes())))
}

fn read_line(line: &[u8]) -> Option<Line> {
    let line = str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (crc, json) = line.split_once(' ')?;
    let same = crc == format!("{:08x}", crc32fast::hash(json.as_bytes()));
    same.then(|| serde_json::from_str(json).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;

    fn text() -> (String, Vec<usize>) {
        let mut marks = Marks {
            bytes: 7,
            ..Marks::default()
        };
        for number in 0..4 {
            let from = BatchNumber::new(number).unwrap();
            marks.begun.insert(format!("shop.s{number}"), from);
        }
        let lines: Vec<String> = marks.lines().map(|line| to_line(&line).unwrap()).collect();
        let ends = lines.iter().scan(0, |end, line| {
            *end += line.len();
            Some(*end)
        });
        (lines.concat(), ends.collect())
    }

    fn from(marks: &Marks, number: usize) -> Option<BatchNumber> {
        marks.begun(&StreamName::parse(&format!("shop.s{number}")).unwrap())
    }

    proptest! {
        #[test]
        fn what_was_begun_is_never_looked_for_too_late(cut in 0..1000_usize, flip in any::<(usize, u8)>()) {
            let (text, ends) = text();
            // Cut anywhere: every line that was finished is there.
            let cut = cut % (text.len() + 1);
            let marks = Marks::of(&text.as_bytes()[..cut]);
            for number in 0..4 {
                let finished = ends[number + 1] <= cut;
                prop_assert!(!finished || from(marks.as_ref().unwrap(), number).unwrap().get() == number as i64);
            }
            // A bit flipped anywhere but in the last line: everything is looked for early enough.
            let mut bytes = text.into_bytes();
            bytes[flip.0 % ends[3]] ^= 1 << (flip.1 % 8);
            if let Some(marks) = Marks::of(&bytes) {
                for number in 0..4 {
                    prop_assert!(from(&marks, number).is_some_and(|from| from.get() <= number as i64));
                }
            }
        }

        #[test]
        fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Marks::of(&bytes).is_none());
        }
    }
}
