//! Where files are kept: by their content, each once.

use std::sync::Arc;

use object_store::{
    Error as StoreError, MultipartUpload, ObjectStore, ObjectStoreExt as _, PutMode, path::Path,
};

use tokio::sync::Semaphore;

use crate::{
    config::StreamName,
    error::{Error, ErrorKind, Result},
    extract::download::Download,
    raw::{layout, store::lower},
};

/// Files up to this size are put at once, larger ones in parts of it.
const PART_BYTES: usize = 8 << 20;

/// Files on their way from the disk to the store at once. Each holds [`PART_BYTES`].
const PUTS_AT_ONCE_MAX: usize = 4;

/// The files of one stream.
pub(super) struct Shelf {
    store: Arc<dyn ObjectStore>,
    stream: StreamName,
    puts: Semaphore,
}

/// What stands in the place of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Nothing,
    /// A file of this size.
    File(u64),
    /// A file that nobody refers to, so far as the sweep could see, and that goes soon: see
    /// [`orphans`](crate::raw::orphans).
    Condemned,
}

impl Shelf {
    /// The files of `stream` in `store`.
    pub(super) fn new(store: Arc<dyn ObjectStore>, stream: StreamName) -> Self {
        Self {
            store,
            stream,
            puts: Semaphore::new(PUTS_AT_ONCE_MAX),
        }
    }

    /// The key and the size of the file with this SHA-256, if it is there to stay.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn find(&self, sha256: &str) -> Result<Option<(String, u64)>> {
        let path = layout::file(&self.stream, sha256);
        match self.standing(&path, sha256).await? {
            Standing::File(bytes) => Ok(Some((path.to_string(), bytes))),
            Standing::Nothing | Standing::Condemned => Ok(None),
        }
    }

    async fn standing(&self, path: &Path, sha256: &str) -> Result<Standing> {
        let Some(bytes) = self.size(path).await? else {
            return Ok(Standing::Nothing);
        };
        let condemned = self.size(&layout::condemned(&self.stream, sha256)).await?;
        Ok(condemned.map_or(Standing::File(bytes), |_| Standing::Condemned))
    }

    async fn size(&self, path: &Path) -> Result<Option<u64>> {
        match self.store.head(path).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(lower(error, "look for file", path)),
        }
    }

    /// Puts a file in its place, unless it is there, and returns its key.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn put(&self, download: &mut Download) -> Result<String> {
        let file = download.downloaded();
        let path = layout::file(&self.stream, &file.sha256);
        let mode = match self.standing(&path, &file.sha256).await? {
            Standing::File(bytes) if bytes == file.bytes => return Ok(path.to_string()),
            Standing::Nothing => PutMode::Create,
            // One that goes soon is renewed by this, and one of another length cannot be what its name says.
            Standing::File(_) | Standing::Condemned => PutMode::Overwrite,
        };
        // The semaphore is never closed.
        let _permit = self.puts.acquire().await.ok();
        download.rewind().await.map_err(unread)?;
        if file.bytes <= PART_BYTES as u64 {
            let bytes = download.read(PART_BYTES).await.map_err(unread)?;
            let put = self.store.put_opts(&path, bytes.into(), mode.into()).await;
            return match put {
                // Somebody else had the same file; what is under this name can be nothing else.
                Ok(_) | Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {
                    Ok(path.to_string())
                }
                Err(error) => Err(lower(error, "store file", &path)),
            };
        }
        let begun = self.store.put_multipart(&path).await;
        let mut upload = begun.map_err(|error| lower(error, "store file", &path))?;
        match parts(upload.as_mut(), download, &path).await {
            Ok(()) => Ok(path.to_string()),
            Err(error) => {
                // The store forgets what is never completed by itself, some later and some sooner.
                let _ = upload.abort().await;
                Err(error)
            }
        }
    }
}

async fn parts(upload: &mut dyn MultipartUpload, download: &mut Download, path: &Path) -> Result<()> {
    let lowered = |error| lower(error, "store file", path);
    // Ends with the file.
    loop {
        let part = download.read(PART_BYTES).await.map_err(unread)?;
        if part.is_empty() {
            break;
        }
        upload.put_part(part.into()).await.map_err(lowered)?;
    }
    upload.complete().await.map(drop).map_err(lowered)
}

fn unread(cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Internal, "read downloaded file").caused_by(cause)
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    fn shelf() -> Shelf {
        Shelf::new(
            Arc::new(InMemory::new()),
            StreamName::parse("shop.orders").unwrap(),
        )
    }

    async fn taken(dir: &std::path::Path, body: &[u8]) -> Download {
        let mut download = Download::open(dir, u64::MAX).await.unwrap();
        download.take(body).await.unwrap();
        download
    }

    #[tokio::test]
    async fn what_is_not_whole_or_goes_soon_is_put_again() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = shelf();
        let mut download = taken(dir.path(), b"abc").await;
        let sha256 = download.downloaded().sha256;
        let path = layout::file(&shelf.stream, &sha256);
        shelf.store.put(&path, "ab".into()).await.unwrap();
        shelf.put(&mut download).await.unwrap();
        assert_eq!(shelf.size(&path).await.unwrap(), Some(3));
        let condemned = layout::condemned(&shelf.stream, &sha256);
        shelf.store.put(&condemned, "".into()).await.unwrap();
        assert_eq!(shelf.find(&sha256).await.unwrap(), None);
        let before = shelf.store.head(&path).await.unwrap().last_modified;
        shelf.put(&mut download).await.unwrap();
        assert!(shelf.store.head(&path).await.unwrap().last_modified > before);
    }

    #[tokio::test]
    async fn a_file_is_put_once_whatever_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = shelf();
        for bytes in [0, 3, PART_BYTES, PART_BYTES + 1] {
            let body = vec![7; bytes];
            let mut download = taken(dir.path(), &body).await;
            let path = shelf.put(&mut download).await.unwrap();
            let sha256 = download.downloaded().sha256;
            assert_eq!(path, format!("raw/shop/orders/files/{}/{sha256}", &sha256[..2]));
            assert_eq!(
                shelf.find(&sha256).await.unwrap(),
                Some((path.clone(), bytes as u64))
            );
            assert_eq!(shelf.put(&mut download).await.unwrap(), path);
            let stored = shelf
                .store
                .get(&Path::from(path))
                .await
                .unwrap()
                .bytes()
                .await
                .unwrap();
            assert_eq!(stored, body);
        }
    }
}
