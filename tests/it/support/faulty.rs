//! A store in which one operation goes wrong, or all from some point on.

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, stream::BoxStream};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart, path::Path,
};

/// How an operation goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happens, and an error comes back.
    Refused,
    /// It happens, and an error comes back. Reads are refused.
    ReplyLost,
    /// Nothing happens, and the answer is "already exists", as object_store makes of S3's 409. Reads are refused.
    Clash,
    /// A put overwrites what it should only create, as a store does that ignores conditions. Nothing else goes wrong.
    ConditionIgnored,
}

/// Which operations go wrong; they are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Only this one.
    Once(u64),
    /// This one and all after it: the process died, or the network did.
    From(u64),
    /// None; to count them.
    Never,
}

/// The store with the fault.
#[derive(Clone, Debug)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    plan: Arc<Plan>,
}

#[derive(Debug)]
struct Plan {
    when: When,
    fault: Fault,
    seen: AtomicU64,
}

impl FaultyStore {
    /// `inner` with a fault in it.
    pub fn new(inner: Arc<dyn ObjectStore>, when: When, fault: Fault) -> Self {
        let seen = AtomicU64::new(0);
        Self {
            inner,
            plan: Arc::new(Plan { when, fault, seen }),
        }
    }

    /// Operations begun so far, those that went wrong included.
    pub fn operations(&self) -> u64 {
        self.plan.seen.load(Ordering::SeqCst)
    }
}

impl Plan {
    fn next(&self) -> Option<Fault> {
        let number = self.seen.fetch_add(1, Ordering::SeqCst);
        let struck = match self.when {
            When::Once(at) => number == at,
            When::From(at) => number >= at,
            When::Never => false,
        };
        struck.then_some(self.fault)
    }

    fn read(&self) -> Result<()> {
        match self.next() {
            None | Some(Fault::ConditionIgnored) => Ok(()),
            Some(_) => Err(lost()),
        }
    }

    async fn write<T>(&self, location: &Path, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self.next() {
            None | Some(Fault::ConditionIgnored) => work.await,
            Some(Fault::Refused) => Err(lost()),
            Some(Fault::ReplyLost) => work.await.and_then(|_| Err(lost())),
            Some(Fault::Clash) => Err(Error::AlreadyExists {
                path: location.to_string(),
                source: "409 conflict".into(),
            }),
        }
    }
}

fn lost() -> Error {
    Error::Generic {
        store: "faulty",
        source: "connection lost".into(),
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let options = match self.plan.fault {
            Fault::ConditionIgnored => PutOptions::default(),
            _ => options,
        };
        self.plan
            .write(location, self.inner.put_opts(location, payload, options))
            .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.plan.read()?;
        let inner = self.inner.put_multipart_opts(location, options).await?;
        let plan = Arc::clone(&self.plan);
        Ok(Box::new(FaultyUpload {
            inner,
            plan,
            location: location.clone(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.plan.read()?;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.plan.read()?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let plan = Arc::clone(&self.plan);
        let locations = locations.map(move |location| plan.read().and(location));
        self.inner.delete_stream(locations.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.plan.read() {
            Ok(()) => self.inner.list(prefix),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.plan.read()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.plan.write(to, self.inner.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.plan
            .write(to, self.inner.rename_opts(from, to, options))
            .await
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    plan: Arc<Plan>,
    location: Path,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, part: PutPayload) -> UploadPart {
        let sent = self.inner.put_part(part);
        let plan = Arc::clone(&self.plan);
        let location = self.location.clone();
        async move { plan.write(&location, sent).await }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.plan.write(&self.location, self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
