//! A rotated refresh token, kept durably: the server has forgotten the one before it.
//!
//! ```text
//! NAME.lock   held from before the token request until the new token is kept
//! NAME.json   {"version": 1, "configured_sha256": "…", "refresh_token": "…"}   mode 0600, replaced as a whole
//! ```
//!
//! The file remembers which configured token its own descends from. Whoever configures another one starts anew.

use std::{
    fmt::Write as _,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, ErrorKind, Result};

/// How often the lock is tried while another process holds it.
const LOCK_TRIES_MAX: u32 = 1200;

/// Between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// Version of the file's form.
const VERSION: u32 = 1;

/// Where the refresh token of one credential is kept.
pub(super) struct Kept {
    dir: PathBuf,
    file: PathBuf,
    staged: PathBuf,
    lock: PathBuf,
}

/// The right to use and to replace the token; ends when dropped.
pub(super) struct Locked<'a> {
    kept: &'a Kept,
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct Form {
    version: u32,
    configured_sha256: String,
    refresh_token: String,
}

impl Kept {
    /// The token of the credential `name` in `dir`; nothing is touched yet.
    pub(super) fn new(dir: &Path, name: &str) -> Self {
        Self {
            dir: dir.to_owned(),
            file: dir.join(format!("{name}.json")),
            staged: dir.join(format!("{name}.json.new")),
            lock: dir.join(format!("{name}.lock")),
        }
    }

    /// Waits until no other process uses the token.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] if the folder cannot be written: a token that rotates would be lost, so none is used;
    /// [`ErrorKind::Conflict`] if another process holds the lock for too long.
    pub(super) async fn lock(&self) -> Result<Locked<'_>> {
        let lock = self.open_lock().map_err(|cause| {
            Error::new(ErrorKind::Refused, "prepare to keep refresh token")
                .with("path", self.lock.display())
                .with(
                    "hint",
                    "the server may replace the refresh token, so a place to keep the new one is needed before the \
                     old one is used: make the folder writable, or name another one under `credentials`",
                )
                .caused_by(cause)
        })?;
        for _ in 0..LOCK_TRIES_MAX {
            match lock.try_lock() {
                Ok(()) => {
                    return Ok(Locked {
                        kept: self,
                        _lock: lock,
                    });
                }
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
                Err(TryLockError::Error(cause)) => {
                    return Err(Error::new(ErrorKind::Refused, "lock refresh token")
                        .with("path", self.lock.display())
                        .with("hint", "name a folder on a local disk under `credentials`")
                        .caused_by(cause));
                }
            }
        }
        Err(Error::new(ErrorKind::Conflict, "lock refresh token")
            .with("path", self.lock.display())
            .with("waited_s", (LOCK_PAUSE * LOCK_TRIES_MAX).as_secs())
            .with(
                "hint",
                "another process is renewing the same token; run again when it is done",
            ))
    }

    fn open_lock(&self) -> io::Result<File> {
        if !self.dir.is_dir() {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
            if let Some(parent) = self.dir.parent() {
                File::open(parent)?.sync_all()?;
            }
        }
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&self.lock)
    }
}

impl Locked<'_> {
    /// The kept token that descends from `configured`; none if nothing is kept or another one was configured.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the file is not one of ours; [`ErrorKind::Refused`] if it cannot be read.
    pub(super) fn read(&self, configured: &str) -> Result<Option<String>> {
        let path = &self.kept.file;
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => {
                return Err(Error::new(ErrorKind::Refused, "read kept refresh token")
                    .with("path", path.display())
                    .caused_by(cause));
            }
        };
        let form = serde_json::from_slice::<Form>(&bytes).ok();
        let Some(form) = form.filter(|form| form.version == VERSION) else {
            // What the parser says may repeat the token.
            return Err(Error::new(ErrorKind::Corrupt, "read kept refresh token")
                .with("path", path.display())
                .with(
                    "hint",
                    "authorize again, configure the new refresh token and remove the file",
                ));
        };
        Ok((form.configured_sha256 == sha256_hex(configured)).then_some(form.refresh_token))
    }

    /// Keeps `token`, which descends from `configured`; it outlives a power cut once this returns.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] saying what to do: the token is lost.
    pub(super) fn write(&self, configured: &str, token: &str) -> Result<()> {
        let form = Form {
            version: VERSION,
            configured_sha256: sha256_hex(configured),
            refresh_token: token.to_owned(),
        };
        let written = serde_json::to_vec(&form)
            .map_err(io::Error::from)
            .and_then(|bytes| self.replace(&bytes));
        written.map_err(|cause| {
            Error::new(ErrorKind::Refused, "keep rotated refresh token")
                .with("path", self.kept.file.display())
                .with(
                    "hint",
                    "the server has replaced the refresh token and the new one is lost: make the folder writable \
                     and free space on its disk, authorize again, configure the new refresh token and run again",
                )
                .caused_by(cause)
        })
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let Kept {
            dir, file, staged, ..
        } = self.kept;
        // One left behind by a crash may have another mode.
        match fs::remove_file(staged) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
            _ => {}
        }
        let mut new = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(staged)?;
        new.write_all(bytes)?;
        new.sync_all()?;
        fs::rename(staged, file)?;
        File::open(dir)?.sync_all()
    }
}

fn sha256_hex(text: &str) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(text.as_bytes()) {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn f066_a_kept_token_is_private_and_descends_from_the_configured_one() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join(".landfall/credentials");
        let kept = Kept::new(&dir, "shop");
        {
            let locked = kept.lock().await.unwrap();
            assert_eq!(locked.read("configured").unwrap(), None);
            locked.write("configured", "rotated-1").unwrap();
            locked.write("configured", "rotated-2").unwrap();
            assert_eq!(locked.read("configured").unwrap().as_deref(), Some("rotated-2"));
            assert_eq!(locked.read("another").unwrap(), None);
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&kept.file), 0o600);
        assert_eq!(mode(&kept.lock), 0o600);
        let names: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(!fs::read_to_string(&kept.file).unwrap().contains("\"configured\""));
    }

    #[tokio::test]
    async fn f066_two_users_of_a_token_take_turns() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (Kept::new(dir.path(), "shop"), Kept::new(dir.path(), "shop"));
        let locked = one.lock().await.unwrap();
        let waits = other.lock();
        tokio::pin!(waits);
        let both = futures::future::select(&mut waits, Box::pin(async { drop(locked) })).await;
        assert!(matches!(both, futures::future::Either::Right(_)));
        waits.await.unwrap();
    }

    #[tokio::test]
    async fn f066_a_broken_file_and_a_folder_that_is_none_are_refused_with_steps() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::new(dir.path(), "shop");
        fs::write(&kept.file, r#"{"version": 1, "refresh_token": "r4nd0m"#).unwrap();
        let error = kept.lock().await.unwrap().read("x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(
            error.chain().contains("authorize again") && !error.chain().contains("r4nd0m"),
            "{error}"
        );
        let nowhere = Kept::new(&kept.file, "shop");
        let error = nowhere.lock().await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.chain().contains("`credentials`"), "{error}");
        // The new token cannot be put in the place of a folder.
        let taken = Kept::new(dir.path(), "taken");
        fs::create_dir(&taken.file).unwrap();
        let error = taken.lock().await.unwrap().write("x", "n3w").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(
            error.chain().contains("is lost") && !error.chain().contains("n3w"),
            "{error}"
        );
    }
}
