//! A budget in a file that the processes of one machine share.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File, OpenOptions, TryLockError},
    io::{ErrorKind as IoErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    clock::Clock,
    error::{Error, ErrorKind, Result},
    extract::limit::{
        ledger::{Ask, Ledger, Verdict},
        rules::{Micros, Rules, micros},
        shared::Note,
    },
};

/// The longest wait for others to let go of the file.
const LOCK_WAIT_MAX: Duration = Duration::from_millis(800);

/// Between two attempts to lock it.
const LOCK_STEP: Duration = Duration::from_micros(200);

/// Larger files are not ours, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Budgets kept in one file.
const BUDGETS_MAX: usize = 256;

/// The first word of the file.
const MAGIC: &str = "landfall-budget-1";

/// A budget in a file under an advisory lock.
///
/// The file is written in place and not synced: it outlives any process, and a machine that stops takes the requests
/// of all of them with it. What cannot be read back whole counts as a budget spent when it was found.
#[derive(Clone)]
pub(super) struct FileStore(Arc<Inner>);

struct Inner {
    path: PathBuf,
    key: String,
    rules: Arc<Rules>,
    clock: Clock,
    /// [`Book::id`] as last read; 0 before.
    seen: AtomicU64,
}

/// What the file holds.
#[derive(Default, Serialize, Deserialize)]
struct Book {
    /// Chosen when the file is begun.
    id: u64,
    /// What was known before was lost at this moment.
    lost_at: Option<Micros>,
    budgets: BTreeMap<String, Ledger>,
}

impl FileStore {
    pub(super) fn new(path: PathBuf, key: String, rules: Arc<Rules>, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            path,
            key,
            rules,
            clock,
            seen: AtomicU64::new(0),
        }))
    }

    /// As [`Ledger::take`], on the file. Without an ask the note is all.
    pub(super) async fn take(&self, ask: Option<&Ask>, note: Note) -> Result<Verdict> {
        let (inner, ask) = (Arc::clone(&self.0), ask.cloned());
        let work = tokio::task::spawn_blocking(move || inner.take(ask.as_ref(), note));
        let done = work.await;
        done.map_err(|cause| Error::new(ErrorKind::Internal, "ask the shared rate limit").caused_by(cause))?
    }
}

impl Inner {
    fn take(&self, ask: Option<&Ask>, note: Note) -> Result<Verdict> {
        let io = |cause| {
            Error::new(ErrorKind::Unavailable, "use the file of the rate limit")
                .with("path", self.path.display())
                .caused_by(cause)
        };
        let mut file = self.open().map_err(io)?;
        self.lock(&file)?;
        let mut bytes = Vec::new();
        (&mut file)
            .take(FILE_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(io)?;
        // Read under the lock: whoever had it before read an earlier moment.
        let now = self.clock.now().timestamp_micros();
        let mut book = Book::read(&bytes, now);
        let seen = self.seen.swap(book.id, Ordering::Relaxed);
        let replaced = seen != 0 && seen != book.id;
        let lost_at = book.lost_at;
        if book.budgets.len() >= BUDGETS_MAX && !book.budgets.contains_key(&self.key) {
            return Err(Error::new(ErrorKind::Limit, "keep rate limits in one file")
                .with("path", self.path.display())
                .with("budgets_max", BUDGETS_MAX));
        }
        let ledger = book.budgets.entry(self.key.clone()).or_insert_with(|| {
            let mut ledger = Ledger::default();
            lost_at.into_iter().for_each(|moment| ledger.spend_all(moment));
            ledger
        });
        if replaced || note.spent {
            ledger.spend_all(now);
        }
        if let Some(pause) = note.pause {
            ledger.pause(now.saturating_add(micros(pause)));
        }
        let verdict = match ask {
            Some(ask) => ledger.take(&self.rules.rates, ask, now),
            None => Verdict::Wait(Duration::ZERO),
        };
        let bytes = book.write()?;
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        file.write_all(&bytes).map_err(io)?;
        file.set_len(bytes.len() as u64).map_err(io)?;
        Ok(verdict)
    }

    fn open(&self) -> std::io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        match (options.open(&self.path), self.path.parent()) {
            (Err(error), Some(parent)) if error.kind() == IoErrorKind::NotFound => {
                fs::create_dir_all(parent)?;
                options.open(&self.path)
            }
            (opened, _) => opened,
        }
    }

    fn lock(&self, file: &File) -> Result<()> {
        let refused = |problem: &str| {
            Error::new(ErrorKind::Unavailable, "lock the file of the rate limit")
                .with("path", self.path.display())
                .with("problem", problem)
        };
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) if begun.elapsed() >= LOCK_WAIT_MAX => {
                    return Err(refused("another process does not let go of it"));
                }
                Err(TryLockError::WouldBlock) => thread::sleep(LOCK_STEP),
                Err(TryLockError::Error(cause)) => return Err(refused("no lock").caused_by(cause)),
            }
        }
    }
}

impl Book {
    /// What `bytes` hold. An empty file is a new book; one that was torn is new and knows that it was.
    fn read(bytes: &[u8], now: Micros) -> Self {
        let begun = |lost_at| Self {
            id: rand::random::<u64>().max(1),
            lost_at,
            budgets: BTreeMap::new(),
        };
        if bytes.is_empty() {
            return begun(None);
        }
        Self::read_whole(bytes).unwrap_or_else(|| begun(Some(now)))
    }

    fn read_whole(bytes: &[u8]) -> Option<Self> {
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return None;
        }
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let body = &bytes[end + 1..];
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        if head != head_of(body) {
            return None;
        }
        serde_json::from_slice(body).ok()
    }

    fn write(&self) -> Result<Vec<u8>> {
        let body = serde_json::to_vec(self)
            .map_err(|cause| Error::new(ErrorKind::Internal, "write the rate limit").caused_by(cause))?;
        let mut bytes = head_of(&body).into_bytes();
        bytes.push(b'\n');
        bytes.extend(body);
        Ok(bytes)
    }
}

/// The first line: magic and the body's hash.
fn head_of(body: &[u8]) -> String {
    let mut head = MAGIC.to_owned();
    head.push(' ');
    for byte in &Sha256::digest(body)[..8] {
        // Writing to a String cannot fail.
        let _ = write!(head, "{byte:02x}");
    }
    head
}

#[cfg(test)]
mod tests;
