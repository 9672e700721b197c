//! A file for as long as somebody holds it.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Result, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;

/// A file without a name, or with one that goes when it is dropped where an open file cannot lose its name.
///
/// Nothing is left behind by whatever ends the process.
#[derive(Debug)]
pub struct Scratch {
    file: File,
    /// Its length.
    end: u64,
    /// Whether the next write would be elsewhere.
    is_moved: bool,
    named: Option<PathBuf>,
}

impl Scratch {
    /// An empty file in `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// What the system says.
    pub fn create(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let path = dir.join(format!("{}.scratch", uuid::Uuid::now_v7()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        let named = fs::remove_file(&path).is_err().then_some(path);
        Ok(Self {
            file,
            end: 0,
            is_moved: false,
            named,
        })
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.end
    }

    /// Puts `bytes` behind what is there, and returns where they begin.
    ///
    /// # Errors
    /// What the system says, such as that the disk is full.
    pub fn append(&mut self, bytes: &[u8]) -> Result<u64> {
        let offset = self.end;
        if self.is_moved {
            self.file.seek(SeekFrom::Start(offset))?;
            self.is_moved = false;
        }
        self.file.write_all(bytes)?;
        self.end += bytes.len() as u64;
        Ok(offset)
    }

    /// The `length` bytes from `offset` on.
    ///
    /// # Errors
    /// What the system says.
    pub fn read(&mut self, offset: u64, length: u64) -> Result<Bytes> {
        let mut read = vec![0; usize::try_from(length).map_err(std::io::Error::other)?];
        self.is_moved = true;
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.read_exact(&mut read)?;
        Ok(Bytes::from(read))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(path) = &self.named {
            // Nobody can be told, and the next run uses another name.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_between_does_not_move_what_is_appended() {
        let dir = tempfile::tempdir().unwrap();
        let mut scratch = Scratch::create(&dir.path().join("new")).unwrap();
        assert_eq!(scratch.append(b"one").unwrap(), 0);
        assert_eq!(scratch.read(1, 2).unwrap(), "ne");
        assert_eq!(scratch.append(b"two").unwrap(), 3);
        assert_eq!(scratch.read(0, scratch.length()).unwrap(), "onetwo");
        assert!(scratch.read(4, 3).is_err());
        assert_eq!(fs::read_dir(dir.path().join("new")).unwrap().count(), 0);
    }
}
