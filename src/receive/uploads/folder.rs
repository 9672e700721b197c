//! The folder of upload jobs: two files for each, what is known of it and its bytes so far.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use chrono::TimeDelta;

use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    failpoint,
    raw::files,
    receive::uploads::job::{Job, JobId},
};

/// The file whose lock says that a server uses the folder. It is never removed: another could lock a new one then.
const LOCK: &str = "lock";

/// What is known of a job.
const KNOWN: &str = "json";

/// The same while it is written.
const STAGED: &str = "json.new";

/// Its bytes.
const BYTES: &str = "bytes";

/// What was known of a job and cannot be read.
const UNREAD: &str = "json.unread";

/// How long that is kept, and the bytes it belongs to.
const UNREAD_FOR: TimeDelta = TimeDelta::days(30);

/// Largest file about a job that is read: most of it are its receipts.
const KNOWN_BYTES_MAX: u64 = 1 << 20;

/// A folder on a disk, for one server alone.
pub(super) struct Folder {
    dir: PathBuf,
    /// Held open: closing it is what gives the lock back.
    _lock: File,
}

impl Folder {
    /// Takes the folder `dir` for this process; it is created, durably, if it does not exist.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if another server has it; [`ErrorKind::Unavailable`] for whatever the system says.
    pub(super) fn lock(dir: &Path) -> Result<Self> {
        let failed = |source: io::Error| failed("open folder of uploads", source).with("dir", dir.display());
        files::create_folder(dir)
            .and_then(|()| sync(dir))
            .map_err(failed)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join(LOCK))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                dir: dir.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(Error::new(
                ErrorKind::Conflict,
                "open folder of uploads: another server is using it",
            )
            .with("dir", dir.display())
            .with("hint", "stop the other server, or give each a folder of its own")),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Every job that is kept. What cannot be read is put aside and told in the log, and removed at
    /// a start some time later; what belongs to none is removed.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] for whatever the system says.
    pub(super) fn jobs(&self, now: Timestamp) -> Result<Vec<Job>> {
        let failed = |source| failed("read folder of uploads", source).with("dir", self.dir.display());
        let mut jobs = Vec::new();
        let mut bytes = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let Some((id, kind)) = name.split_once('.') else {
                continue;
            };
            let Ok(id) = id.parse::<JobId>() else { continue };
            match kind {
                STAGED => fs::remove_file(&path).map_err(failed)?,
                BYTES => bytes.push(id),
                UNREAD => {
                    let written = fs::metadata(&path).and_then(|known| known.modified());
                    if now - Timestamp::from(written.map_err(failed)?) > UNREAD_FOR {
                        fs::remove_file(&path).map_err(failed)?;
                    }
                }
                KNOWN => match read(&path).map_err(failed)? {
                    Some(job) if job.id == id => jobs.push(job),
                    _ => {
                        tracing::error!(job = %id, "upload job cannot be read and is put aside");
                        fs::rename(&path, self.path(id, UNREAD)).map_err(failed)?;
                    }
                },
                _ => {}
            }
        }
        for id in bytes {
            // One that has ended needs them no more.
            let is_needed = jobs.iter().any(|job| job.id == id && !job.state.is_end());
            let is_aside = self.path(id, UNREAD).exists();
            if !is_needed && !is_aside {
                fs::remove_file(self.bytes(id)).map_err(failed)?;
            }
        }
        Ok(jobs)
    }

    /// Where the bytes of a job are.
    pub(super) fn bytes(&self, id: JobId) -> PathBuf {
        self.path(id, BYTES)
    }

    /// Puts `bytes` at `offset` of a job's file in the place of whatever is there and behind; they survive a power cut when
    /// this returns.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] if the disk is full, [`ErrorKind::Unavailable`] for whatever else the system says.
    pub(super) fn write(&self, id: JobId, offset: u64, bytes: &[u8]) -> Result<()> {
        let written = private()
            .create(true)
            .truncate(false)
            .open(self.bytes(id))
            .and_then(|mut file| {
                // What a crash left behind the last offset that was told is void.
                file.set_len(offset)?;
                file.seek(SeekFrom::Start(offset))?;
                file.write_all(bytes)?;
                file.sync_data()
            });
        written.map_err(|source| failed("write upload", source).with("job", id))?;
        failpoint::point("uploads::after_bytes");
        Ok(())
    }

    /// Keeps what is known of a job; it survives a power cut when this returns.
    ///
    /// # Errors
    /// As [`Folder::write`].
    pub(super) fn keep(&self, job: &Job) -> Result<()> {
        let staged = self.path(job.id, STAGED);
        let text = serde_json::to_vec(job)
            .map_err(|source| Error::new(ErrorKind::Internal, "write upload job").caused_by(source))?;
        let kept = private().create(true).truncate(true).open(&staged);
        let kept = kept.and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&staged, self.path(job.id, KNOWN))?;
            sync(&self.dir)
        });
        kept.map_err(|source| failed("keep upload job", source).with("job", job.id))
    }

    /// Removes the bytes of a job that has ended. They are removed at the next start if that fails.
    pub(super) fn drop_bytes(&self, id: JobId) {
        match fs::remove_file(self.bytes(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(job = %id, %error, "bytes of an upload that has ended not removed");
            }
            _ => {}
        }
    }

    /// Forgets a job.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] for whatever the system says.
    pub(super) fn forget(&self, id: JobId) -> Result<()> {
        self.drop_bytes(id);
        fs::remove_file(self.path(id, KNOWN))
            .map_err(|source| failed("forget upload job", source).with("job", id))
    }

    fn path(&self, id: JobId, kind: &str) -> PathBuf {
        self.dir.join(format!("{id}.{kind}"))
    }
}

/// A file that is written, for its owner alone: its address may hold a signature, and its bytes are data.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// The job in a file; none if it holds none of this form.
fn read(path: &Path) -> io::Result<Option<Job>> {
    if fs::metadata(path)?.len() > KNOWN_BYTES_MAX {
        return Ok(None);
    }
    let job = serde_json::from_slice::<Job>(&fs::read(path)?).ok();
    Ok(job.filter(Job::is_of_this_form))
}

fn failed(attempt: &'static str, source: io::Error) -> Error {
    let kind = match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Limit,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, attempt).caused_by(source)
}

#[cfg(unix)]
fn sync(dir: &Path) -> io::Result<()> {
    // Only on unix a folder can be opened to be synced.
    File::open(dir)?.sync_all()
}

#[cfg(not(unix))]
fn sync(_dir: &Path) -> io::Result<()> {
    Ok(())
}
