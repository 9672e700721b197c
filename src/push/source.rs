//! Where bytes are read from: a file or standard input, unpacked.

use std::{
    fs::File,
    io::{self, BufReader, Chain, Cursor, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aws_lc_rs::digest::{SHA256, digest};
use flate2::read::MultiGzDecoder;

use crate::error::{Error, ErrorKind, Result};

/// Bytes read from the system at once.
const READ_BYTES: usize = 256 << 10;

/// Longest readable part of the name of a channel, in characters.
const READABLE_CHARS_MAX: usize = 60;

/// Something to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file, which can be read from its beginning again.
    File(PathBuf),
    /// What comes, once.
    Stdin,
}

/// Bytes read so far, as they stand in the file.
pub type Count = Arc<AtomicU64>;

impl Source {
    /// What an argument names: `-` is standard input.
    pub fn of(argument: &Path) -> Self {
        match argument.to_str() {
            Some("-") => Self::Stdin,
            _ => Self::File(argument.to_owned()),
        }
    }

    /// What it is called.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stdin => "-".to_owned(),
        }
    }

    /// Its size in bytes as it stands on disk, if that is known.
    pub fn bytes(&self) -> Option<u64> {
        match self {
            Self::File(path) => path.metadata().ok().map(|about| about.len()),
            Self::Stdin => None,
        }
    }

    /// The name of the channel through which a file is sent unless another is chosen: its own, as far as that may stand in a
    /// URL, and a part of the SHA-256 of its whole path. None for standard input.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if there is no such file.
    pub fn channel(&self) -> Result<Option<String>> {
        let Self::File(path) = self else {
            return Ok(None);
        };
        let whole = path.canonicalize().map_err(|source| unread(path, source))?;
        let hash = digest(&SHA256, whole.as_os_str().as_encoded_bytes());
        let hash: String = hash.as_ref()[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let name = whole.file_name().unwrap_or_default().to_string_lossy();
        let plain = |character: char| match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' => character,
            _ => '_',
        };
        let name: String = name.chars().take(READABLE_CHARS_MAX).map(plain).collect();
        Ok(Some(format!("push-{name}-{hash}")))
    }

    /// Its bytes from the beginning, unpacked if they are gzip or Zstandard, in one piece or more. Counts what is read.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if there is no such file, [`ErrorKind::Unavailable`] if it cannot be read.
    pub(super) fn open(&self, read: &Count) -> Result<Box<dyn Read + Send>> {
        let (raw, path): (Box<dyn Read + Send>, _) = match self {
            Self::File(path) => {
                let file = File::open(path).map_err(|source| unread(path, source))?;
                (Box::new(file), path.as_path())
            }
            Self::Stdin => (Box::new(io::stdin()), Path::new("-")),
        };
        let counted = Counted {
            inner: raw,
            read: Arc::clone(read),
        };
        unpacked(counted).map_err(|source| unread(path, source))
    }
}

/// The failure to read `path`.
fn unread(path: &Path, source: io::Error) -> Error {
    let kind = match source.kind() {
        io::ErrorKind::NotFound => ErrorKind::Config,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, "read file")
        .with("file", path.display())
        .caused_by(source)
}

fn unpacked(mut raw: Counted) -> io::Result<Box<dyn Read + Send>> {
    let mut magic = Vec::new();
    raw.by_ref().take(4).read_to_end(&mut magic)?;
    let is = |start: &[u8]| magic.starts_with(start);
    let (is_gzip, is_zstd) = (is(&[0x1f, 0x8b]), is(&[0x28, 0xb5, 0x2f, 0xfd]));
    let whole: Chain<Cursor<Vec<u8>>, Counted> = Cursor::new(magic).chain(raw);
    let whole = BufReader::with_capacity(READ_BYTES, whole);
    Ok(if is_gzip {
        Box::new(MultiGzDecoder::new(whole))
    } else if is_zstd {
        Box::new(zstd::Decoder::with_buffer(whole)?)
    } else {
        Box::new(whole)
    })
}

struct Counted {
    inner: Box<dyn Read + Send>,
    read: Count,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
