//! Where files are kept: by their content, each once.

use std::sync::Arc;

use object_store::{
    Error as StoreError, MultipartUpload, ObjectStore, ObjectStoreExt as _, PutMode, path::Path,
};

use crate::{
    config::StreamName,
    error::{Error, ErrorKind, Result},
    extract::download::Download,
    raw::{layout, store::lower},
};

/// Files up to this size are put at once, larger ones in parts.
pub(super) const WHOLE_BYTES_MAX: u64 = 16 << 20;

/// One part of a larger one.
const PART_BYTES: usize = 8 << 20;

/// The files of one stream.
pub(super) struct Shelf {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) stream: StreamName,
}

impl Shelf {
    /// The key and the size of the file with this SHA-256, if it is there.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn find(&self, sha256: &str) -> Result<Option<(String, u64)>> {
        let path = layout::file(&self.stream, sha256);
        match self.store.head(&path).await {
            Ok(meta) => Ok(Some((path.to_string(), meta.size))),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(lower(error, "look for file", &path)),
        }
    }

    /// Puts a file in its place, unless it is there, and returns its key.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn put(&self, download: &mut Download) -> Result<String> {
        let file = download.downloaded();
        if let Some((path, _)) = self.find(&file.sha256).await? {
            return Ok(path);
        }
        let path = layout::file(&self.stream, &file.sha256);
        download.rewind().await.map_err(unread)?;
        if file.bytes <= WHOLE_BYTES_MAX {
            let bytes = download.read(PART_BYTES * 3).await.map_err(unread)?;
            let put = self
                .store
                .put_opts(&path, bytes.into(), PutMode::Create.into())
                .await;
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

    #[tokio::test]
    async fn a_file_is_put_once_whatever_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf {
            store: Arc::new(InMemory::new()),
            stream: StreamName::parse("shop.orders").unwrap(),
        };
        for bytes in [0, 3, WHOLE_BYTES_MAX as usize, WHOLE_BYTES_MAX as usize + 1] {
            let body = vec![7; bytes];
            let mut download = Download::open(dir.path(), u64::MAX).await.unwrap();
            download.take(&body).await.unwrap();
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
