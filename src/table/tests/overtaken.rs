//! Commits of others that come right behind one's own, before it is seen.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};

use super::*;
use crate::table::promote::SwapNote;

/// A store in memory that does something of somebody else's after the next commit to a table.
#[derive(Default)]
pub(in crate::table) struct Meddler {
    inner: InMemory,
    then: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Meddler {
    /// Does `work` after the next commit, before its writer hears of it.
    pub(in crate::table) fn after_next_commit(&self, work: impl FnOnce() + Send + 'static) {
        *self.then.lock().unwrap() = Some(Box::new(work));
    }
}

impl fmt::Debug for Meddler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meddler")
    }
}

impl fmt::Display for Meddler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meddler")
    }
}

#[async_trait]
impl ObjectStore for Meddler {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let put = self.inner.put_opts(location, payload, options).await;
        if location.as_ref().contains("_delta_log/") {
            let then = self.then.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(then) = then {
                tokio::task::block_in_place(then);
            }
        }
        put
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// A table with these loads, one file each, in a store that can be meddled with.
pub(in crate::table) async fn meddled(loads: i64) -> (Arc<Meddler>, Table) {
    let store = Arc::new(Meddler::default());
    let tables = Tables::new(Arc::clone(&store) as Arc<dyn ObjectStore>).unwrap();
    let path = Path::from("tables/shop/orders");
    let mut table = tables.open_or_create(&path, &schema(), &[]).await.unwrap();
    for batch in 0..loads {
        merge(&mut table, batch, &[(batch, batch, 1)], ScdType::Append).await;
    }
    (store, table)
}

/// Somebody else's load of `events`, whatever the version is by then.
pub(in crate::table) fn load_of_another(
    table: &Table,
    batch: i64,
    events: Vec<Event>,
) -> impl FnOnce() + Send + 'static {
    let mut other = table.clone();
    move || {
        tokio::runtime::Handle::current().block_on(async {
            other.refresh().await.unwrap();
            merge(&mut other, batch, &events, ScdType::Upsert).await;
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f136_a_load_right_behind_a_fence_is_a_conflict() {
    let (store, mut table) = meddled(1).await;
    store.after_next_commit(load_of_another(&table, 1, vec![(1, 5, 5)]));
    assert_eq!(table.fence().await.unwrap(), Committed::Conflicted);
    assert_eq!(table.version(), 3);
    assert_eq!(table.fence().await.unwrap(), Committed::Applied { version: 4 });
}

#[tokio::test(flavor = "multi_thread")]
async fn f136_a_load_right_behind_the_beginning_of_a_swap_is_a_conflict() {
    let (store, mut table) = meddled(1).await;
    let note = |load_id: &str| SwapNote {
        commit: note(0, load_id),
        keys: "id".to_owned(),
    };
    store.after_next_commit(load_of_another(&table, 1, vec![(1, 5, 5)]));
    assert_eq!(table.begin_swap(&note("a")).await.unwrap(), Committed::Conflicted);
    assert_eq!(
        table.begin_swap(&note("b")).await.unwrap(),
        Committed::Applied { version: 4 }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn f136_a_plan_of_an_older_version_conflicts_also_from_the_newest() {
    let mut first = table().await;
    merge(&mut first, 0, &[(1, 1, 1), (2, 1, 1)], ScdType::Upsert).await;
    let mut second = first.clone();
    let stale = first
        .plan_merge(vec![rows(2, &[(1, 3, 3)])], &options(ScdType::Upsert), None)
        .await
        .unwrap();
    merge(&mut second, 1, &[(2, 2, 2)], ScdType::Upsert).await;
    first.refresh().await.unwrap();
    assert_eq!(
        first.commit_merge(stale, &note(2, "late")).await.unwrap(),
        Committed::Conflicted
    );
    assert_eq!(read(&first).await, [(1, 1, 1), (2, 2, 2)]);
}
