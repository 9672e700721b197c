//! A body on its way into a file: hashed as it comes, never held whole.

use std::{io, path::Path};

use md5::Md5;
use sha2::{Digest as _, Sha256};
use tokio::{
    fs::{self, File, OpenOptions},
    io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _},
};
use uuid::Uuid;

use crate::raw::frame::hex;

/// A file without a name that takes one body.
pub struct Download {
    file: File,
    sha256: Sha256,
    md5: Md5,
    bytes: u64,
    bytes_max: u64,
    broken: bool,
}

/// Why a download takes no more.
#[derive(Debug)]
pub enum Overflow {
    /// There is more than it may take.
    TooLarge,
    /// The disk does not take it.
    Disk(io::Error),
}

/// What a download took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downloaded {
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256, lowercase hex.
    pub sha256: String,
    /// Their MD5, lowercase hex.
    pub md5: String,
}

impl Download {
    /// An empty one in the folder `dir`, which is created if it does not exist. Nothing is left of it on disk, however
    /// the program ends.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub async fn open(dir: &Path, bytes_max: u64) -> io::Result<Self> {
        fs::create_dir_all(dir).await?;
        let path = dir.join(Uuid::now_v7().to_string());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .await?;
        // Without its name it goes as soon as it is closed.
        fs::remove_file(&path).await?;
        Ok(Self {
            file,
            sha256: Sha256::new(),
            md5: Md5::new(),
            bytes: 0,
            bytes_max,
            broken: false,
        })
    }

    /// Most bytes it takes.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Forgets what it took, for another attempt.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub async fn clear(&mut self) -> io::Result<()> {
        self.file.flush().await?;
        self.file.set_len(0).await?;
        self.file.rewind().await?;
        self.sha256 = Sha256::new();
        self.md5 = Md5::new();
        self.bytes = 0;
        Ok(())
    }

    /// Takes the next bytes of the body.
    ///
    /// # Errors
    /// [`Overflow`] says why it cannot; it holds nothing that is of use then.
    pub async fn take(&mut self, bytes: &[u8]) -> Result<(), Overflow> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.bytes_max {
            return Err(Overflow::TooLarge);
        }
        self.sha256.update(bytes);
        self.md5.update(bytes);
        self.file.write_all(bytes).await.map_err(|cause| {
            self.broken = true;
            Overflow::Disk(cause)
        })
    }

    /// Whether it was the disk that ended it.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// How many bytes it took so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What it took so far.
    pub fn downloaded(&self) -> Downloaded {
        Downloaded {
            bytes: self.bytes,
            sha256: hex(&self.sha256.clone().finalize()),
            md5: hex(&self.md5.clone().finalize()),
        }
    }

    /// Goes to its beginning, to be read.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub async fn rewind(&mut self) -> io::Result<()> {
        self.file.flush().await?;
        self.file.rewind().await.map(drop)
    }

    /// The next bytes, as many as `part` takes or all that are left; none at the end.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub async fn read(&mut self, part: usize) -> io::Result<Vec<u8>> {
        // Grown step by step it would take twice the memory.
        let left = usize::try_from(self.bytes).unwrap_or(usize::MAX);
        let mut bytes = Vec::with_capacity(part.min(left));
        (&mut self.file).take(part as u64).read_to_end(&mut bytes).await?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_download_hashes_what_it_takes_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("below");
        let mut download = Download::open(&dir, 6).await.unwrap();
        download.take(b"lost").await.unwrap();
        download.clear().await.unwrap();
        download.take(b"a").await.unwrap();
        download.take(b"bc").await.unwrap();
        let downloaded = download.downloaded();
        assert_eq!(downloaded.bytes, 3);
        assert_eq!(
            downloaded.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(downloaded.md5, "900150983cd24fb0d6963f7d28e17f72");
        download.rewind().await.unwrap();
        assert_eq!(download.read(2).await.unwrap(), b"ab");
        assert_eq!(download.read(2).await.unwrap(), b"c");
        assert_eq!(download.read(2).await.unwrap(), b"");
        assert!(matches!(download.take(b"defg").await, Err(Overflow::TooLarge)));
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    }
}
