//! A local store whose writes survive a power cut once they have returned.
//!
//! [`LocalFileSystem`] reads and lists; it never syncs, so every write goes through [`Files`](super::files).

use std::{
    fmt,
    fs::{File, Metadata},
    io::{self, Read as _},
    ops::Range,
    path::{Path as FilePath, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{
    FutureExt as _, StreamExt as _, TryFutureExt as _, TryStreamExt as _, future,
    stream::{self, BoxStream},
};
use object_store::{
    Attributes, CopyMode, CopyOptions, Error as StoreError, GetOptions, GetResult, GetResultPayload,
    ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, RenameOptions, Result as StoreResult, UploadPart, local::LocalFileSystem,
    path::Path,
};

use crate::{
    clock::Timestamp,
    raw::files::{Files, Staged, failed},
};

/// Deletions under way at once.
const DELETES_IN_FLIGHT_MAX: usize = 10;

/// Objects up to this size are read where they are asked for, if they are asked for as a whole.
const SMALL_BYTES_MAX: u64 = 4 << 20;

/// Objects as files below one folder.
#[derive(Clone)]
pub struct DurableLocal {
    reads: LocalFileSystem,
    files: Arc<Files>,
}

impl DurableLocal {
    /// The store below `root`, which is created, durably, if it does not exist.
    ///
    /// # Errors
    /// Whatever the file system says, with the path.
    pub fn new(root: &FilePath) -> StoreResult<Self> {
        let files = Arc::new(Files::open(root)?);
        let reads = LocalFileSystem::new_with_prefix(files.root())?;
        Ok(Self { reads, files })
    }

    /// Removes files that were staged by writers which died, and returns how many.
    ///
    /// A staged file counts as left behind when nothing was written to it for `age_min` before `now`; no writer
    /// that lives pauses for a day. Symbolic links are not followed.
    ///
    /// # Errors
    /// The first file or folder that cannot be read or removed.
    pub async fn sweep(&self, now: Timestamp, age_min: Duration) -> StoreResult<u64> {
        let files = Arc::clone(&self.files);
        blocking(move || files.sweep(now, age_min)).await
    }
}

impl fmt::Debug for DurableLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DurableLocal({})", self.files.root().display())
    }
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        let put: fn(&Files, Staged, &FilePath) -> StoreResult<()> = match options.mode {
            PutMode::Overwrite => Files::replace,
            PutMode::Create => Files::create,
            PutMode::Update(_) => return Err(self.lacks("put with PutMode::Update")),
        };
        if !options.attributes.is_empty() {
            return Err(self.lacks("put with attributes"));
        }
        let path = self.reads.path_to_filesystem(location)?;
        let files = Arc::clone(&self.files);
        blocking(move || {
            let mut staged = files.stage(&path)?;
            staged.write_at(0, &payload)?;
            put(&files, staged, &path)?;
            Ok(PUT)
        })
        .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        if !options.attributes.is_empty() {
            return Err(self.lacks("put with attributes"));
        }
        let path = self.reads.path_to_filesystem(location)?;
        let files = Arc::clone(&self.files);
        blocking(move || {
            let staged = Arc::new(Mutex::new(Some(files.stage(&path)?)));
            Ok(Box::new(Upload {
                files,
                path,
                staged,
                offset: 0,
            }) as Box<dyn MultipartUpload>)
        })
        .await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        match self.read_small(location, &options) {
            Some(read) => Ok(read),
            None => self.reads.get_opts(location, options).await,
        }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> StoreResult<Vec<Bytes>> {
        self.reads.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        let (reads, files) = (self.reads.clone(), Arc::clone(&self.files));
        locations
            .map(move |location| {
                let (reads, files) = (reads.clone(), Arc::clone(&files));
                blocking(move || {
                    let location = location?;
                    files.delete(&reads.path_to_filesystem(&location)?)?;
                    Ok(location)
                })
            })
            .buffered(DELETES_IN_FLIGHT_MAX)
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        in_key_order(self.reads.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        in_key_order(self.reads.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.reads.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        let from = self.reads.path_to_filesystem(from)?;
        let to = self.reads.path_to_filesystem(to)?;
        let files = Arc::clone(&self.files);
        blocking(move || {
            let staged = files.copy(&from, &to)?;
            match options.mode {
                CopyMode::Overwrite => files.replace(staged, &to),
                CopyMode::Create => files.create(staged, &to),
            }
        })
        .await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> StoreResult<()> {
        let from = self.reads.path_to_filesystem(from)?;
        let to = self.reads.path_to_filesystem(to)?;
        let files = Arc::clone(&self.files);
        blocking(move || files.rename(&from, &to, options.target_mode)).await
    }
}

impl DurableLocal {
    /// A small object that is asked for as a whole, read here and now; `None` if it is not one, or cannot be read.
    ///
    /// Not only because handing it over costs more than reading it: delta-rs waits for deletion vectors on the threads that
    /// would have to read them, and with many vectors none is left.
    fn read_small(&self, location: &Path, options: &GetOptions) -> Option<GetResult> {
        let whole = options.range.is_none() && options.version.is_none() && !options.head;
        let unconditional = options.if_match.is_none()
            && options.if_none_match.is_none()
            && options.if_modified_since.is_none()
            && options.if_unmodified_since.is_none();
        if !(whole && unconditional) {
            return None;
        }
        let path = self.reads.path_to_filesystem(location).ok()?;
        let mut file = File::open(path).ok()?;
        let facts = file.metadata().ok().filter(Metadata::is_file)?;
        if facts.len() > SMALL_BYTES_MAX {
            return None;
        }
        let mut bytes = Vec::with_capacity(usize::try_from(facts.len()).ok()?);
        file.read_to_end(&mut bytes).ok()?;
        let size = bytes.len() as u64;
        let meta = ObjectMeta {
            location: location.clone(),
            last_modified: facts.modified().ok()?.into(),
            size,
            e_tag: None,
            version: None,
        };
        let bytes = stream::once(future::ready(Ok(Bytes::from(bytes)))).boxed();
        Some(GetResult {
            payload: GetResultPayload::Stream(bytes),
            meta,
            range: 0..size,
            attributes: Attributes::default(),
        })
    }

    fn lacks(&self, operation: &str) -> StoreError {
        StoreError::NotImplemented {
            operation: operation.to_owned(),
            implementer: self.to_string(),
        }
    }
}

/// The answer to every put. Entity tags of files are not kept: nothing compares them here.
const PUT: PutResult = PutResult {
    e_tag: None,
    version: None,
};

/// A file written in parts, staged until it is complete.
struct Upload {
    files: Arc<Files>,
    path: PathBuf,
    staged: Arc<Mutex<Option<Staged>>>,
    offset: u64,
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upload({})", self.path.display())
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, part: PutPayload) -> UploadPart {
        let offset = self.offset;
        self.offset += part.content_length() as u64;
        let staged = Arc::clone(&self.staged);
        let path = self.path.clone();
        blocking(move || {
            let mut staged = staged.lock().unwrap_or_else(PoisonError::into_inner);
            staged
                .as_mut()
                .ok_or_else(|| over(&path))?
                .write_at(offset, &part)
        })
        .boxed()
    }

    async fn complete(&mut self) -> StoreResult<PutResult> {
        let (staged, files) = (Arc::clone(&self.staged), Arc::clone(&self.files));
        let path = self.path.clone();
        blocking(move || {
            // A part may still be under way: whoever holds the lock is waited for here, not on an async thread.
            let staged = staged.lock().unwrap_or_else(PoisonError::into_inner).take();
            files.replace(staged.ok_or_else(|| over(&path))?, &path)?;
            Ok(PUT)
        })
        .await
    }

    async fn abort(&mut self) -> StoreResult<()> {
        let staged = Arc::clone(&self.staged);
        let path = self.path.clone();
        blocking(move || {
            let staged = staged.lock().unwrap_or_else(PoisonError::into_inner).take();
            staged.map(drop).ok_or_else(|| over(&path))
        })
        .await
    }
}

fn over(path: &FilePath) -> StoreError {
    failed(
        "write part",
        path,
        io::Error::other("the upload is complete or was aborted"),
    )
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> StoreResult<T> + Send + 'static,
) -> StoreResult<T> {
    tokio::task::spawn_blocking(work).await?
}

/// The listing sorted by key, as S3 gives it: readers of a Delta log rely on that order, and a directory has none.
///
/// The whole listing is held in memory, which is why nothing here lists what may be millions of keys.
fn in_key_order(
    listing: BoxStream<'static, StoreResult<ObjectMeta>>,
) -> BoxStream<'static, StoreResult<ObjectMeta>> {
    listing
        .try_collect::<Vec<_>>()
        .map_ok(|mut objects| {
            objects.sort_unstable_by(|a, b| a.location.cmp(&b.location));
            stream::iter(objects.into_iter().map(Ok))
        })
        .try_flatten_stream()
        .boxed()
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt as _;
    use tokio::runtime::{Builder, Handle};

    use super::*;

    #[test]
    fn a_small_object_is_read_where_all_threads_wait_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = DurableLocal::new(dir.path()).unwrap();
        let key = Path::from("vector.bin");
        let runtime = Builder::new_multi_thread()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let read = runtime.block_on(async move {
            store.put(&key, "bytes".into()).await.unwrap();
            let meta = store.head(&key).await.unwrap();
            let waits = move || {
                let read = async {
                    let got = store.get(&key).await.unwrap();
                    assert_eq!(
                        (got.meta.size, got.meta.last_modified, &got.range),
                        (meta.size, meta.last_modified, &(0..5))
                    );
                    assert!(store.get(&Path::from("none")).now_or_never().is_none());
                    got.bytes().await.unwrap()
                };
                Handle::current().block_on(read)
            };
            tokio::task::spawn_blocking(waits).await.unwrap()
        });
        assert_eq!(read, "bytes");
    }
}
