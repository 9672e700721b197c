//! The folder of a spool, and the few things that are done in it.
//!
//! A trait, because a power cut cannot be had in a test: there a double forgets whatever was not synced.

use std::{
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, IoSlice, Write as _},
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, ErrorKind, Result},
    raw::files::{create_folder, sync_folder},
};

/// The file whose lock says that a server uses the folder. It is never removed: another could lock a new one then.
const LOCK: &str = "lock";

/// Files by their names, without folders below.
pub(crate) trait Folder: fmt::Debug + Send + Sync {
    /// A new file to write to from its beginning; something of that name is an error.
    fn create(&self, name: &str) -> io::Result<Box<dyn Growing>>;
    /// The file called `name`, to write to from its end.
    fn extend(&self, name: &str) -> io::Result<Box<dyn Growing>>;
    /// The file called `name`, to read.
    fn open(&self, name: &str) -> io::Result<Box<dyn Stored>>;
    /// Puts `from` in the place of whatever is called `to`, in one step.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// The names of all files, in any order.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Makes every name and every removal so far survive a power cut.
    fn sync(&self) -> io::Result<()>;
}

/// A file that grows at its end.
pub(crate) trait Growing: Send {
    /// Appends all of `slices`. After an error any part of them may stand.
    fn write(&mut self, slices: &mut [IoSlice<'_>]) -> io::Result<()>;
    /// Makes what was written survive a power cut. After an error nothing is known, and a second call proves nothing:
    /// systems forget what they could not write.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file that is read.
pub(crate) trait Stored: Send + Sync {
    /// How long it is.
    fn bytes(&self) -> u64;
    /// Reads from `offset` on; less than `buffer` only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// A folder on a disk, for one server alone.
#[derive(Debug)]
pub(crate) struct Disk {
    dir: PathBuf,
    /// Held open: closing it is what gives the lock back.
    _lock: File,
}

impl Disk {
    /// Takes the folder `dir` for this process; it is created, durably, if it does not exist.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if another server has it; [`ErrorKind::Unavailable`] for whatever the system says.
    pub(crate) fn lock(dir: &Path) -> Result<Self> {
        let failed = |source: io::Error| {
            Error::new(ErrorKind::Unavailable, "open spool")
                .with("dir", dir.display())
                .caused_by(source)
        };
        create_folder(dir).map_err(failed)?;
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
                "open spool: another server is using it",
            )
            .with("dir", dir.display())
            .with("hint", "stop the other server, or give each a spool of its own")),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

impl Folder for Disk {
    fn create(&self, name: &str) -> io::Result<Box<dyn Growing>> {
        let options = OpenOptions::new().write(true).create_new(true).to_owned();
        Ok(Box::new(options.open(self.dir.join(name))?))
    }

    fn extend(&self, name: &str) -> io::Result<Box<dyn Growing>> {
        Ok(Box::new(
            OpenOptions::new().append(true).open(self.dir.join(name))?,
        ))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Stored>> {
        let file = File::open(self.dir.join(name))?;
        let bytes = file.metadata()?.len();
        Ok(Box::new(OnDisk { file, bytes }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            // A name that is not text is not one of ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn sync(&self) -> io::Result<()> {
        sync_folder(&self.dir)
    }
}

impl Growing for File {
    fn write(&mut self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        while !slices.is_empty() {
            match self.write_vectored(slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut slices, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        // The length is synced with the data: without it they could not be read.
        self.sync_data()
    }
}

struct OnDisk {
    file: File,
    bytes: u64,
}

impl Stored for OnDisk {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match read_some(&self.file, &mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(bytes) => read += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }
}

#[cfg(unix)]
fn read_some(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_some(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f166_a_second_server_is_told_that_the_spool_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let spool = dir.path().join("a/b");
        let first = Disk::lock(&spool).unwrap();
        let error = Disk::lock(&spool).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(
            error.to_string().contains("another server is using it"),
            "{error}"
        );
        drop(first);
        Disk::lock(&spool).unwrap();
    }
}
