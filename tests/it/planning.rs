//! What commands ask of the lake before they reach their data, counted: it must not grow with what is there already.

use std::sync::Arc;

use bytes::Bytes;
use chrono::TimeDelta;
use landfall::{
    clock::{Clock, Timestamp},
    config::StreamName,
    ops::{Workspace, status::status, transform::transform},
    raw::{Bookmark, Page, PageFacts, log::BatchKind, write::Landing},
    table::Tables,
};
use object_store::{ObjectStore, memory::InMemory};
use serde_json::json;

use crate::support::{
    faulty::{Fault, FaultyStore, When},
    project::{ITEMS, ITEMS_CONTRACT, TestProject},
};

struct Lake {
    store: Arc<dyn ObjectStore>,
    stream: StreamName,
    project: TestProject,
}

/// A workspace, and what it has asked of the store so far.
struct Counted {
    workspace: Workspace,
    store: FaultyStore,
}

impl Lake {
    fn new() -> Self {
        Self::of(ITEMS)
    }

    /// A lake for the `streams` of the project file.
    fn of(streams: &str) -> Self {
        let project = TestProject::new("http://127.0.0.1:9", streams);
        project.write("contracts/shop.items.odcs.yaml", ITEMS_CONTRACT);
        Self {
            store: Arc::new(InMemory::new()),
            stream: StreamName::parse("shop.items").unwrap(),
            project,
        }
    }

    /// What a program sees that was started just now.
    fn open(&self) -> Counted {
        let counting = FaultyStore::new(Arc::clone(&self.store), When::Never, Fault::Refused);
        let store: Arc<dyn ObjectStore> = Arc::new(counting.clone());
        let workspace = Workspace {
            project: Arc::new(landfall::config::read::load(self.project.path()).unwrap().project),
            tables: Tables::new(Arc::clone(&store)).unwrap(),
            store,
            clock: Clock::system(),
            lineage: None,
        };
        Counted {
            workspace,
            store: counting,
        }
    }

    async fn landing(&self, store: Arc<dyn ObjectStore>) -> Landing {
        Landing::open(
            store,
            self.stream.clone(),
            Clock::system(),
            "run".to_owned(),
            "hash".to_owned(),
        )
        .await
        .unwrap()
    }

    /// Lands a batch with one record for each of `ids`.
    async fn land(&self, ids: impl IntoIterator<Item = usize>) {
        let mut landing = self.landing(Arc::clone(&self.store)).await;
        for id in ids {
            let body = Bytes::from(json!({"data": [{"id": id, "updated": 1, "name": "n"}]}).to_string());
            landing.append(Page { body, facts: facts() }).await.unwrap();
            landing
                .commit(BatchKind::Pull, Bookmark::default(), Some(1))
                .await
                .unwrap();
        }
    }
}

impl Counted {
    /// What `work` asks of the store.
    async fn count(&self, work: impl AsyncFnOnce(&Workspace)) -> u64 {
        let before = self.store.operations();
        work(&self.workspace).await;
        self.store.operations() - before
    }

    /// As somebody sees it to whom all files were written an hour ago.
    fn later(mut self) -> Self {
        let hour = TimeDelta::hours(1);
        self.workspace.clock = Clock::from_fn(move || Clock::system().now() + hour);
        self
    }

    async fn transform(&self, stream: &StreamName) -> u64 {
        self.count(async |workspace| {
            for outcome in transform(workspace, std::slice::from_ref(stream)).await {
                outcome.result.unwrap();
            }
        })
        .await
    }

    async fn sql(&self, sql: &str) -> (usize, u64) {
        let mut rows = 0;
        let asked = self
            .count(async |workspace| {
                let frame = workspace.session().unwrap().sql(sql).await.unwrap();
                rows = frame
                    .collect()
                    .await
                    .unwrap()
                    .iter()
                    .map(|batch| batch.num_rows())
                    .sum();
            })
            .await;
        (rows, asked)
    }
}

fn facts() -> PageFacts {
    PageFacts::new(Timestamp::UNIX_EPOCH, "GET", "http://127.0.0.1:9/items", 200)
}

/// Numbers of raw batches that are equally far behind what the hint says.
const BATCHES: [usize; 2] = [16 + 7, 592 + 7];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_landed_and_loaded_costs_a_transform_and_status_nothing() {
    let mut asked = Vec::new();
    for batches in BATCHES {
        let lake = Lake::new();
        lake.land(0..batches).await;
        lake.open().transform(&lake.stream).await;

        let nothing_new = lake.open().transform(&lake.stream).await;
        let looked = lake
            .open()
            .count(async |workspace| {
                let streams = std::slice::from_ref(&lake.stream);
                let found = status(workspace, streams).await.unwrap();
                assert_eq!(found[0].lag(), 0);
            })
            .await;
        lake.land([batches]).await;
        let one_batch = lake.open().transform(&lake.stream).await;
        asked.push([nothing_new, looked, one_batch]);
    }
    assert_eq!(asked[0], asked[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_records_are_planned_by_the_numbers_of_their_batches() {
    let mut asked = Vec::new();
    for batches in BATCHES {
        let lake = Lake::new();
        lake.land(0..batches).await;
        let mut counts = Vec::new();
        for (sql, expected) in [
            ("DESCRIBE shop.items__raw", 10),
            (
                "SELECT record FROM shop.items__raw WHERE _lf_batch = 17 AND _lf_page = 0",
                1,
            ),
            (
                "SELECT record FROM shop.items__raw WHERE _lf_batch IN (3, 5) OR _lf_batch < 2",
                4,
            ),
        ] {
            let (rows, asked) = lake.open().sql(sql).await;
            assert_eq!(rows, expected, "{sql}");
            counts.push(asked);
        }
        asked.push(counts);
        let (rows, _) = lake.open().sql("SELECT record FROM shop.items__raw").await;
        assert_eq!(rows, batches);
    }
    assert_eq!(asked[0], asked[1]);
    assert_eq!(asked[0][0], 0, "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_raw_records_are_read_without_the_rest() {
    let lake = Lake::new();
    lake.land(0..BATCHES[1]).await;
    let (rows, asked) = lake
        .open()
        .sql("SELECT record FROM shop.items__raw LIMIT 5")
        .await;
    assert_eq!(rows, 5);
    assert!(asked < BATCHES[1] as u64 / 2, "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r151_loads_of_one_program_read_only_what_was_committed_since_the_one_before() {
    let lake = Lake::new();
    // Files that were written just now are not put together.
    let counted = lake.open().later();
    let (mut asked, mut looked) = (Vec::new(), Vec::new());
    for load in 0..60 {
        lake.land([load]).await;
        asked.push(counted.transform(&lake.stream).await);
        if [31, 59].contains(&load) {
            let look = async |workspace: &Workspace| {
                let streams = std::slice::from_ref(&lake.stream);
                let found = status(workspace, streams).await.unwrap();
                assert_eq!(found[0].loads.as_ref().unwrap().loads, load as u64 + 1);
            };
            looked.push(lake.open().count(look).await);
        }
    }
    // As far behind the hint, both.
    assert_eq!(asked[24], asked[56], "{asked:?}");
    // What loads left in so many small files was put together meanwhile.
    assert!(looked[1] <= looked[0], "{looked:?}");
    // Another program has loaded meanwhile.
    lake.land([60]).await;
    lake.open().transform(&lake.stream).await;
    let (rows, _) = counted.sql("SELECT id FROM shop.items").await;
    assert_eq!(rows, 61);
}

/// What landing and loading one page of `records` JSON lines asks of the store, each: on local disk only what is written to
/// the store is synced.
async fn asked_for_lines(records: usize) -> (u64, u64) {
    let lines = ITEMS.replace("records: $.data[*]", "format: { type: jsonl }");
    let lake = Lake::of(&lines.replace(
        "paginate: { type: cursor, from: $.next, param: cursor }",
        "paginate: { type: none }",
    ));
    let counted = lake.open();
    let landed = counted
        .count(async |workspace| {
            let mut landing = lake.landing(Arc::clone(&workspace.store)).await;
            let body: String = (0..records)
                .map(|id| json!({"id": id, "updated": 1, "name": "n"}).to_string() + "\n")
                .collect();
            let body = Bytes::from(body);
            landing.append(Page { body, facts: facts() }).await.unwrap();
            let (kind, bookmark) = (BatchKind::Pull, Bookmark::default());
            landing
                .commit(kind, bookmark, Some(records as u64))
                .await
                .unwrap();
        })
        .await;
    let loaded = counted.transform(&lake.stream).await;
    let (rows, _) = counted.sql("SELECT id FROM shop.items").await;
    assert_eq!(rows, records);
    (landed, loaded)
}

#[tokio::test(flavor = "multi_thread")]
async fn r150_nothing_is_written_or_synced_for_each_record() {
    assert_eq!(asked_for_lines(1_000).await, asked_for_lines(60_000).await);
}
