//! A store that fails as told.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
    memory::InMemory, path::Path,
};

/// What a request to a [`Faulty`] store comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// Nothing happens, and the answer is an error.
    Away,
    /// It happens, and the answer is an error.
    Lost,
    /// It happens later, and the answer is an error.
    Held,
    /// What was held happens, and then this.
    Late,
}

type Faults = dyn FnMut(&'static str, &Path) -> Fault + Send;

/// A store that fails as told.
pub(super) struct Faulty {
    inner: InMemory,
    faults: Mutex<Box<Faults>>,
    held: Mutex<Option<PutPayload>>,
}

impl Faulty {
    pub(super) fn new(faults: impl FnMut(&'static str, &Path) -> Fault + Send + 'static) -> Arc<Self> {
        Arc::new(Self {
            inner: InMemory::new(),
            faults: Mutex::new(Box::new(faults)),
            held: Mutex::default(),
        })
    }

    pub(super) fn heal(&self) {
        *self.faults.lock().unwrap() = Box::new(|_, _| Fault::None);
    }

    fn fault(&self, operation: &'static str, path: &Path) -> Fault {
        (self.faults.lock().unwrap())(operation, path)
    }
}

fn away() -> StoreError {
    StoreError::Generic {
        store: "faulty",
        source: "away".into(),
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        let fault = self.fault("put", path);
        if fault == Fault::Away {
            return Err(away());
        }
        if fault == Fault::Held {
            *self.held.lock().unwrap() = Some(payload);
            return Err(away());
        }
        let held = match fault {
            Fault::Late => self.held.lock().unwrap().take(),
            _ => None,
        };
        if let Some(held) = held {
            self.inner.put_opts(path, held, options.clone()).await?;
        }
        let put = self.inner.put_opts(path, payload, options).await;
        if fault == Fault::Lost { Err(away()) } else { put }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> StoreResult<GetResult> {
        if self.fault("get", path) == Fault::None {
            self.inner.get_opts(path, options).await
        } else {
            Err(away())
        }
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
