//! Files whose content and name survive a power cut once a call has returned. Blocking; no store is known here.
//!
//! ```text
//! stage beside the target ─► fsync the file ─► link (create) or rename (overwrite) ─► fsync the folder
//! ```
//!
//! A folder is synced into its parent before anything in it counts. Deletions are not synced: one that comes back
//! is deleted again.

use std::{
    collections::HashSet,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Seek as _, SeekFrom, Write as _},
    path::{Path as FilePath, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use object_store::{Error as StoreError, PutPayload, RenameTargetMode, Result as StoreResult};

use crate::{clock::Timestamp, failpoint};

/// Names tried for a staged file. They are random: the second is hardly ever needed.
const STAGE_ATTEMPTS_MAX: usize = 16;

/// Folders remembered as synced into their parents. Forgetting them costs an fsync each.
const SETTLED_MAX: usize = 10_000;

/// Deepest folder that [`Files::sweep`] looks into, counted from the root.
const SWEEP_DEPTH_MAX: usize = 64;

/// Everything below one folder.
#[derive(Debug)]
pub(crate) struct Files {
    root: PathBuf,
    settled: Mutex<HashSet<PathBuf>>,
}

/// A file being written beside its target, under a name that listings leave out. Removed when dropped.
pub(crate) struct Staged {
    file: File,
    path: PathBuf,
}

impl Staged {
    /// Writes `payload` from `offset` on.
    pub(crate) fn write_at(&mut self, offset: u64, payload: &PutPayload) -> StoreResult<()> {
        let error = |error| failed("write", &self.path, error);
        self.file.seek(SeekFrom::Start(offset)).map_err(error)?;
        for chunk in payload {
            let (first, second) = chunk.split_at(chunk.len() / 2);
            self.file.write_all(first).map_err(error)?;
            failpoint::point("raw::mid_put");
            self.file.write_all(second).map_err(error)?;
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Gone already after a rename; whatever else goes wrong is left to the sweep.
        let _ = fs::remove_file(&self.path);
    }
}

impl Files {
    /// The files below `root`, which is created, durably, if it does not exist.
    pub(crate) fn open(root: &FilePath) -> StoreResult<Self> {
        let error = |error| failed("open folder", root, error);
        create_folder(root).map_err(error)?;
        Ok(Self {
            root: root.canonicalize().map_err(error)?,
            settled: Mutex::default(),
        })
    }

    /// The folder that holds everything, without symbolic links in its path.
    pub(crate) fn root(&self) -> &FilePath {
        &self.root
    }

    /// Opens a staged file for `path`, making its folder if need be.
    pub(crate) fn stage(&self, path: &FilePath) -> StoreResult<Staged> {
        let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
        for _ in 0..STAGE_ATTEMPTS_MAX {
            self.settle_parent(path)?;
            let mut name = path.as_os_str().to_owned();
            // `#` and digits: LocalFileSystem takes such names for staged files and does not list them.
            name.push(format!("#{}", rand::random::<u64>()));
            let staged = PathBuf::from(name);
            match OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&staged)
            {
                Ok(file) => return Ok(Staged { file, path: staged }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // The folder was removed since it was settled.
                    self.settled().clear();
                    last = error;
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                Err(error) => return Err(failed("create file", &staged, error)),
            }
        }
        Err(failed("create file", path, last))
    }

    /// Puts a staged file in the place of whatever is at `path`.
    pub(crate) fn replace(&self, staged: Staged, path: &FilePath) -> StoreResult<()> {
        staged
            .file
            .sync_all()
            .map_err(|error| failed("sync", path, error))?;
        fs::rename(&staged.path, path).map_err(|error| failed("rename into place", path, error))?;
        sync_parent(path)
    }

    /// Puts a staged file at `path` unless something is there.
    pub(crate) fn create(&self, staged: Staged, path: &FilePath) -> StoreResult<()> {
        staged
            .file
            .sync_all()
            .map_err(|error| failed("sync", path, error))?;
        link(&staged.path, path)?;
        drop(staged);
        sync_parent(path)
    }

    /// The bytes of `from`, staged for `to`.
    ///
    /// No second link to the same file: renaming one over the other would later do nothing.
    pub(crate) fn copy(&self, from: &FilePath, to: &FilePath) -> StoreResult<Staged> {
        let mut source = File::open(from).map_err(|error| failed("copy", from, error))?;
        let mut staged = self.stage(to)?;
        io::copy(&mut source, &mut staged.file).map_err(|error| failed("copy", to, error))?;
        Ok(staged)
    }

    /// Moves a file.
    pub(crate) fn rename(&self, from: &FilePath, to: &FilePath, mode: RenameTargetMode) -> StoreResult<()> {
        let source = File::open(from).map_err(|error| failed("rename", from, error))?;
        source.sync_all().map_err(|error| failed("sync", from, error))?;
        self.settle_parent(to)?;
        match mode {
            RenameTargetMode::Overwrite => {
                fs::rename(from, to).map_err(|error| failed("rename", from, error))?
            }
            RenameTargetMode::Create => {
                link(from, to)?;
                // The target must not be lost if the power fails between the two folders' syncs.
                sync_parent(to)?;
                fs::remove_file(from).map_err(|error| failed("rename", from, error))?;
            }
        }
        sync_parent(to)?;
        sync_parent(from)
    }

    /// Removes one file, or a link, never what a link points to.
    pub(crate) fn delete(&self, path: &FilePath) -> StoreResult<()> {
        let folder = path.parent().unwrap_or(&self.root);
        let folder = folder
            .canonicalize()
            .map_err(|error| failed("delete", path, error))?;
        if !folder.starts_with(&self.root) {
            let error = io::Error::new(
                io::ErrorKind::PermissionDenied,
                "a symbolic link leads out of the lake",
            );
            return Err(failed("delete", path, error));
        }
        fs::remove_file(path).map_err(|error| failed("delete", path, error))
    }

    /// Removes staged files that nothing was written to for `age_min` before `now`.
    pub(crate) fn sweep(&self, now: Timestamp, age_min: Duration) -> StoreResult<u64> {
        let mut removed = 0;
        let mut folders = vec![(self.root.clone(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            let error = |error| failed("sweep", &folder, error);
            for entry in fs::read_dir(&folder).map_err(error)? {
                let entry = entry.map_err(error)?;
                let kind = entry.file_type().map_err(error)?;
                if kind.is_dir() && depth < SWEEP_DEPTH_MAX {
                    folders.push((entry.path(), depth + 1));
                } else if kind.is_file() && is_staged(&entry.path()) {
                    removed += u64::from(remove_if_old(&entry.path(), now, age_min).map_err(error)?);
                }
            }
        }
        Ok(removed)
    }

    /// Makes the folder of `path` and everything above it, each synced into its parent.
    fn settle_parent(&self, path: &FilePath) -> StoreResult<()> {
        let folder = path.parent().unwrap_or(&self.root);
        if self.settled().contains(folder) {
            return Ok(());
        }
        let Ok(below) = folder.strip_prefix(&self.root) else {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "not below the root of the store");
            return Err(failed("create folder", folder, error));
        };
        // The root is not made again here: if it is gone, an unmounted disk is likelier than a wish to start over.
        let mut made = self.root.clone();
        for part in below.components() {
            let parent = made.clone();
            made.push(part);
            match fs::create_dir(&made) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed("create folder", &made, error)),
            }
            // Also if it was there: another process may have made it and not synced it yet.
            sync_folder(&parent).map_err(|error| failed("sync", &parent, error))?;
        }
        let mut settled = self.settled();
        if settled.len() >= SETTLED_MAX {
            settled.clear();
        }
        settled.insert(folder.to_owned());
        Ok(())
    }

    fn settled(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether `path` is named like a staged file.
fn is_staged(path: &FilePath) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split_once('#')
        .is_some_and(|(_, digits)| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn remove_if_old(path: &FilePath, now: Timestamp, age_min: Duration) -> io::Result<bool> {
    let gone = |error: io::Error| {
        if error.kind() == io::ErrorKind::NotFound {
            Ok(false)
        } else {
            Err(error)
        }
    };
    let written_at = match fs::symlink_metadata(path).and_then(|metadata| metadata.modified()) {
        Ok(at) => Timestamp::from(at),
        Err(error) => return gone(error),
    };
    if (now - written_at).to_std().is_ok_and(|age| age >= age_min) {
        fs::remove_file(path).map(|()| true).or_else(gone)
    } else {
        Ok(false)
    }
}

/// Gives the synced file at `from` a second name.
fn link(from: &FilePath, to: &FilePath) -> StoreResult<()> {
    fs::hard_link(from, to).map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            // Whoever learns that it exists builds on it, and its writer may not have come to this yet.
            if let Err(sync) = sync_parent(to) {
                return sync;
            }
        }
        failed("create", to, error)
    })
}

/// Creates `path` and what is missing above it, each folder synced into its parent before anything is made in it.
///
/// The deepest that is there is synced into its parent too: whoever made it may have died before that.
pub(crate) fn create_folder(path: &FilePath) -> io::Result<()> {
    let folders = path.ancestors().filter(|folder| *folder != FilePath::new(""));
    let missing = folders.clone().take_while(|folder| !folder.exists()).count();
    let folders: Vec<&FilePath> = folders.take(missing + 1).collect();
    for (depth, folder) in folders.iter().enumerate().rev() {
        if depth < missing {
            match fs::create_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        let synced = match folder.parent() {
            None => Ok(()),
            Some(parent) if parent == FilePath::new("") => sync_folder(FilePath::new(".")),
            Some(parent) => sync_folder(parent),
        };
        match synced {
            // It stands where we may not look, or where nothing is ever written: then we did not make it.
            Err(error) if depth == missing && is_not_ours(&error) => {}
            synced => synced?,
        }
    }
    Ok(())
}

fn is_not_ours(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Unsupported
    )
}

fn sync_parent(path: &FilePath) -> StoreResult<()> {
    let Some(folder) = path.parent() else {
        return Ok(());
    };
    sync_folder(folder).map_err(|error| failed("sync", folder, error))
}

/// Makes the names in `folder` durable.
pub(crate) fn sync_folder(folder: &FilePath) -> io::Result<()> {
    // Elsewhere a folder cannot be opened as a file, and renames are journaled.
    if cfg!(unix) {
        File::open(folder)?.sync_all()
    } else {
        Ok(())
    }
}

/// What went wrong, where, in the words of the stores' common error. The [`io::Error`] stays in the chain.
pub(crate) fn failed(attempt: &'static str, path: &FilePath, error: io::Error) -> StoreError {
    let kind = error.kind();
    let source = Box::new(Failed {
        attempt,
        path: path.to_owned(),
        error,
    });
    let path = path.display().to_string();
    match kind {
        io::ErrorKind::NotFound => StoreError::NotFound { path, source },
        io::ErrorKind::AlreadyExists => StoreError::AlreadyExists { path, source },
        io::ErrorKind::PermissionDenied => StoreError::PermissionDenied { path, source },
        _ => StoreError::Generic {
            store: "local",
            source,
        },
    }
}

#[derive(Debug)]
struct Failed {
    attempt: &'static str,
    path: PathBuf,
    error: io::Error,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.attempt, self.path.display())
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}
