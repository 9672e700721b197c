//! Records that were not taken, kept with the reasons.

use std::{
    borrow::Cow,
    collections::HashSet,
    fs::{File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::{Error, ErrorKind, Result};

/// What each of our lines begins with.
const LINE_BEGIN: &[u8] = b"{\"file\":";

/// Bytes of lines that are written at once, if more are to be.
const WRITE_BYTES: usize = 1 << 20;

/// Bytes looked at in one go for the beginning of the last line.
const LOOK_BYTES: u64 = 64 << 10;

/// One record that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Where it begins in its file, in bytes, unpacked.
    pub at: u64,
    /// Why, for programs.
    pub code: String,
    /// Why, in words.
    pub detail: String,
    /// Its bytes.
    pub record: Vec<u8>,
}

/// A file of JSON Lines: one record with its reason each. Made when there is the first; appended to if it is there.
///
/// What [`RefusedFile::add`] has added is durable, and a line that a killed process has begun is taken back.
#[derive(Debug)]
pub struct RefusedFile {
    path: PathBuf,
    file: Option<File>,
    count: u64,
    /// Lines that may be added again, because it is not known whether they were, by their digests.
    known: HashSet<[u8; 16]>,
}

#[derive(Serialize)]
struct Line<'a> {
    file: &'a str,
    at: u64,
    code: &'a str,
    detail: &'a str,
    record: Shown<'a>,
}

/// A record as it is, or as text where it is no JSON.
#[derive(Serialize)]
#[serde(untagged)]
enum Shown<'a> {
    Json(&'a RawValue),
    Text(String),
}

/// Of a line, whose it is.
#[derive(Deserialize)]
struct Told<'a> {
    #[serde(borrow)]
    file: Cow<'a, str>,
    at: u64,
}

impl RefusedFile {
    /// The file at `path`, which need not be there.
    pub fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            file: None,
            count: 0,
            known: HashSet::new(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many were added.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Learns which records of the file called `name`, from byte `from` on, stand in it: they are not added again.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it is there and cannot be read.
    pub(super) fn recall(&mut self, name: &str, from: u64) -> Result<()> {
        self.known.clear();
        // Of a pipe or a device, what was written cannot be read again.
        match self.path.metadata() {
            Ok(about) if about.is_file() => {}
            Ok(_) => return Ok(()),
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(self.unread(source)),
        }
        let file = File::open(&self.path).map_err(|source| self.unread(source))?;
        let mut lines = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = lines.read_until(b'\n', &mut line);
            if read.map_err(|source| self.unread(source))? == 0 {
                return Ok(());
            }
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            if told(line).is_some_and(|told| told.file == name && told.at >= from) {
                self.known.insert(digest_of(line));
            }
        }
    }

    /// Takes every record for one that does not stand in it.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// Adds `refusals` of the file called `name`, and tells how many of them did not stand in it before. They are durable
    /// then.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be written.
    pub fn add(&mut self, name: &str, refusals: &[Refusal]) -> Result<u64> {
        let mut added = 0;
        let mut text = Vec::new();
        for refusal in refusals {
            let line = line(name, refusal)?;
            if self.known.contains(&digest_of(&line)) {
                continue;
            }
            added += 1;
            text.extend_from_slice(&line);
            text.push(b'\n');
            if text.len() >= WRITE_BYTES {
                self.write(&text)?;
                text.clear();
            }
        }
        self.write(&text)?;
        if let (Some(file), true) = (&self.file, added > 0) {
            match file.sync_data() {
                // A pipe or a device keeps nothing that could be synced.
                Err(source) if source.kind() != io::ErrorKind::InvalidInput => {
                    return Err(self.unwritten(source));
                }
                _ => {}
            }
        }
        self.count += added;
        Ok(added)
    }

    fn write(&mut self, text: &[u8]) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => open(&self.path).map_err(|source| self.unwritten(source))?,
        };
        let locked = lock(&file).map_err(|source| self.unwritten(source))?;
        let written = file.write_all(text);
        unlock(&file, locked);
        written.map_err(|source| self.unwritten(source))?;
        self.file = Some(file);
        Ok(())
    }

    fn unread(&self, source: io::Error) -> Error {
        Error::new(ErrorKind::Unavailable, "read refused records")
            .with("file", self.path.display())
            .caused_by(source)
    }

    fn unwritten(&self, source: io::Error) -> Error {
        Error::new(ErrorKind::Unavailable, "write refused records")
            .with("file", self.path.display())
            .caused_by(source)
    }
}

fn line(name: &str, refusal: &Refusal) -> Result<Vec<u8>> {
    let record = match serde_json::from_slice::<&RawValue>(&refusal.record) {
        // One record a line: an array may have been printed over many.
        Ok(raw) if !refusal.record.contains(&b'\n') => Shown::Json(raw),
        _ => Shown::Text(String::from_utf8_lossy(&refusal.record).into_owned()),
    };
    let line = Line {
        file: name,
        at: refusal.at,
        code: &refusal.code,
        detail: &refusal.detail,
        record,
    };
    serde_json::to_vec(&line)
        .map_err(|source| Error::new(ErrorKind::Internal, "write refused record").caused_by(source))
}

/// Whose line it is, if it is a whole one of ours.
fn told(line: &[u8]) -> Option<Told<'_>> {
    let is_ours = line.starts_with(LINE_BEGIN);
    is_ours.then(|| serde_json::from_slice(line).ok()).flatten()
}

fn digest_of(line: &[u8]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&digest(&SHA256, line).as_ref()[..16]);
    half
}

/// The file to be appended to behind its last whole line.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).read(true);
    // Whoever may read the records need not be everybody.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    if path.metadata().is_ok_and(|about| !about.is_file()) {
        return OpenOptions::new().append(true).open(path);
    }
    let mut file = options.open(path)?;
    let locked = lock(&file)?;
    let mended = mend(&mut file);
    unlock(&file, locked);
    #[cfg(unix)]
    if mended? == 0 {
        // So that its name is durable, too.
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    #[cfg(not(unix))]
    mended?;
    Ok(file)
}

/// Keeps out others who send to the same stream at the same time: what looks like the rest of a line that was never finished
/// may be one that is being written. Whether there are locks at all depends on the file system.
fn lock(file: &File) -> io::Result<bool> {
    match file.lock() {
        Ok(()) => Ok(true),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn unlock(file: &File, locked: bool) {
    if locked {
        // It ends with the process at the latest.
        let _ = file.unlock();
    }
}

/// Has it end with a whole line. Returns how many bytes it had.
fn mend(file: &mut File) -> io::Result<u64> {
    let end = file.metadata()?.len();
    let begin = last_line(file, end)?;
    if begin < end {
        let mut rest = Vec::new();
        file.seek(SeekFrom::Start(begin))?;
        file.read_to_end(&mut rest)?;
        let is_ours = rest.starts_with(LINE_BEGIN) || LINE_BEGIN.starts_with(&rest);
        if is_ours && told(&rest).is_none() {
            file.set_len(begin)?;
        } else {
            // Whole, or not of ours.
            file.write_all(b"\n")?;
        }
    }
    Ok(end)
}

/// Where the last line begins of what has `end` bytes: at its end, if that is the end of a line.
fn last_line(file: &mut File, end: u64) -> io::Result<u64> {
    let mut behind = end;
    while behind > 0 {
        let begin = behind.saturating_sub(LOOK_BYTES);
        let mut part = Vec::new();
        file.seek(SeekFrom::Start(begin))?;
        io::Read::take(&mut *file, behind - begin).read_to_end(&mut part)?;
        if let Some(at) = part.iter().rposition(|byte| *byte == b'\n') {
            return Ok(begin + at as u64 + 1);
        }
        behind = begin;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusals(ats: std::ops::Range<u64>) -> Vec<Refusal> {
        let refusal = |at: u64| Refusal {
            at,
            code: "not_json".to_owned(),
            detail: "not JSON".to_owned(),
            record: if at.is_multiple_of(2) {
                format!("{{\"id\":{at}}}").into_bytes()
            } else {
                format!("{{{at}\n\u{fffd}\"").into_bytes()
            },
        };
        ats.map(refusal).collect()
    }

    /// Wherever a process died while it wrote, the next one that recalls has each line once.
    #[test]
    fn lines_that_are_added_again_after_any_cut_stand_once_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("refused.jsonl");
        RefusedFile::at(&path).add("a", &refusals(0..3)).unwrap();
        let sure = std::fs::metadata(&path).unwrap().len();
        RefusedFile::at(&path).add("b", &refusals(0..1)).unwrap();
        RefusedFile::at(&path).add("a", &refusals(3..6)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let mut expected: Vec<&[u8]> = whole
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .collect();
        expected.sort_unstable();
        for cut in usize::try_from(sure).unwrap()..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut file = RefusedFile::at(&path);
            file.recall("a", 3).unwrap();
            let added = file.add("a", &refusals(3..6)).unwrap();
            assert_eq!(added, file.count());
            file.recall("b", 0).unwrap();
            file.add("b", &refusals(0..1)).unwrap();
            file.forget();
            drop(file);
            let found = std::fs::read(&path).unwrap();
            let mut found: Vec<&[u8]> = found
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
                .collect();
            found.sort_unstable();
            assert_eq!(found, expected, "{cut}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_device_takes_them_and_is_never_read() {
        let mut file = RefusedFile::at(Path::new("/dev/null"));
        file.recall("a", 0).unwrap();
        assert_eq!(file.add("a", &refusals(0..3)).unwrap(), 3);
    }

    #[test]
    fn what_is_not_ours_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes");
        std::fs::write(&path, "a note without an end").unwrap();
        let mut file = RefusedFile::at(&path);
        file.recall("a", 0).unwrap();
        assert_eq!(file.add("a", &[]).unwrap(), 0);
        file.add("a", &refusals(0..1)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("a note without an end\n{\"file\":\"a\",\"at\":0,"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 2);
    }
}
