//! Tables that complete passes replace, over logs made by hand.

use std::sync::Arc;

use bytes::Bytes;
use landfall::{
    clock::{Clock, Timestamp},
    config::StreamName,
    error::{ErrorKind, Result},
    ops::{
        Workspace,
        transform::{Transformed, transform},
    },
    raw::{BatchNumber, Bookmark, Page, PageFacts, layout, log::BatchKind, pass::Tally, write::Landing},
    table::{AppId, Tables},
};
use object_store::{ObjectStore, ObjectStoreExt as _, memory::InMemory};
use serde_json::json;

use crate::support::{
    answers::Answers,
    project::{ITEMS_CONTRACT, TestProject},
};

const REPLACED: &str = r"
      items:
        request: { path: /items }
        records: $.data[*]
        table: { scd_type: replace }
";

struct Lake {
    workspace: Workspace,
    stream: StreamName,
    _project: TestProject,
}

impl Lake {
    fn new() -> Self {
        let project = TestProject::new("http://127.0.0.1:9", REPLACED);
        project.write("contracts/shop.items.odcs.yaml", ITEMS_CONTRACT);
        let loaded = landfall::config::read::load(project.path()).unwrap().project;
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let workspace = Workspace {
            project: Arc::new(loaded),
            tables: Tables::new(Arc::clone(&store)).unwrap(),
            store,
            clock: Clock::system(),
            lineage: None,
        };
        Self {
            workspace,
            stream: StreamName::parse("shop.items").unwrap(),
            _project: project,
        }
    }

    /// Lands a batch of one record of about `bytes`; it belongs to pass number `pass`, and ends it if `ends`.
    async fn land(&self, pass: u32, ends: bool, bytes: usize) {
        self.land_pages(pass, ends, bytes, 1).await;
    }

    /// The same record on each of so many pages.
    async fn land_pages(&self, pass: u32, ends: bool, bytes: usize, pages: u64) {
        let mut landing = Landing::open(
            Arc::clone(&self.workspace.store),
            self.stream.clone(),
            self.workspace.clock.clone(),
            "run".to_owned(),
            "hash".to_owned(),
        )
        .await
        .unwrap();
        let record = json!({"id": pass, "updated": 1, "name": "n".repeat(bytes)});
        let body = Bytes::from(json!({"data": [record]}).to_string());
        for _ in 0..pages {
            let (body, facts) = (body.clone(), facts());
            landing.append(Page { body, facts }).await.unwrap();
        }
        // The end of a pass moves these; until then they stand as the pass before has left them.
        let ended = if ends { Some(pass) } else { pass.checked_sub(1) };
        let at = ended.map(|ended| Timestamp::UNIX_EPOCH + chrono::TimeDelta::days(i64::from(ended) + 1));
        let bookmark = Bookmark {
            complete_at: at,
            last_success_at: at,
            last_pass: at.map(|_| Tally {
                records: pages,
                ..Tally::default()
            }),
            ..Bookmark::default()
        };
        landing
            .commit(BatchKind::Complete, bookmark, Some(pages))
            .await
            .unwrap();
    }

    async fn transform(&self) -> Result<Transformed> {
        let outcomes = transform(&self.workspace, std::slice::from_ref(&self.stream)).await;
        outcomes.into_iter().next().unwrap().result
    }

    async fn watermark(&self) -> Option<i64> {
        let path = layout::table(&self.stream);
        let table = self.workspace.tables.open(&path).await.unwrap().unwrap();
        let app = AppId::new(&self.stream, AppId::GENERATION);
        table.watermark(&app).await.unwrap().map(BatchNumber::get)
    }
}

fn facts() -> PageFacts {
    PageFacts::new(Timestamp::UNIX_EPOCH, "GET", "http://127.0.0.1:9/items", 200)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_pass_is_read_at_a_time() {
    let lake = Lake::new();
    for pass in 0..40 {
        lake.land(pass, true, 1).await;
    }
    // Whoever reads the log to its end before the first pass is loaded finds this.
    let number = BatchNumber::new(20).unwrap();
    let entry = layout::entry(&lake.stream, number);
    lake.workspace.store.delete(&entry).await.unwrap();
    let error = lake.transform().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    assert_eq!(lake.watermark().await, Some(19));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_larger_than_memory_replaces_the_table_through_a_file() {
    let mut lake = Lake::new();
    let mut project = landfall::config::Project::clone(&lake.workspace.project);
    project.memory_bytes_max = 24 << 20;
    lake.workspace.project = Arc::new(project);
    lake.land(0, true, 1).await;
    lake.land(1, false, 9 << 20).await;
    lake.land(1, false, 9 << 20).await;
    lake.transform().await.unwrap();
    assert_eq!(lake.watermark().await, Some(0));
    lake.land(1, true, 9 << 20).await;
    let done = lake.transform().await.unwrap();
    assert_eq!(done.read, 3);
    assert_eq!(lake.watermark().await, Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_of_more_pages_than_memory_knows_is_refused_once_it_has_ended() {
    let mut lake = Lake::new();
    let mut project = landfall::config::Project::clone(&lake.workspace.project);
    project.memory_bytes_max = 12 << 20;
    lake.workspace.project = Arc::new(project);
    lake.land(0, true, 1).await;
    lake.land_pages(1, false, 1, 12 << 10).await;
    lake.transform().await.unwrap();
    assert_eq!(lake.watermark().await, Some(0));
    lake.land(1, true, 1).await;
    let error = lake.transform().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit, "{error:?}");
    assert!(error.chain().contains("pages_max: 12288"), "{error:?}");
    assert_eq!(lake.watermark().await, Some(0));
}

#[test]
fn a_rebuild_up_to_the_middle_of_a_pass_ends_with_the_pass_before() {
    let api = Answers::start(|asked| {
        json!({"data": [{"id": 1, "updated": 1, "name": asked.param("shop")}]}).into()
    });
    let streams = r#"
      items:
        request: { path: /items, params: { shop: "{{ slice.shop }}" } }
        records: $.data[*]
        slices: { by: { list: shop, values: [a, b, c] } }
        table: { scd_type: replace }
        commit: { pages: 1 }
"#;
    let project = TestProject::new(&api.base_url, streams);
    project.write("contracts/shop.items.odcs.yaml", ITEMS_CONTRACT);
    project.ok(&["run"]);
    let ends = project.sql("SELECT max(batch_to) n FROM landfall.loads")[0]["n"]
        .as_i64()
        .unwrap();
    assert!(ends > 1, "a pass of several batches");
    let at = (ends - 1).to_string();
    project.fails(
        &["rebuild", "shop.items", "--at", &at],
        &["no complete pass has ended yet"],
    );
    assert!(project.files("lake/staging").is_empty());
    project.ok(&["extract"]);
    let at = (ends + 1).to_string();
    let ran = project.ok(&["rebuild", "shop.items", "--at", &at]);
    assert!(
        ran.stderr.contains(&format!("replayed raw up to batch {ends}")),
        "{}",
        ran.stderr
    );
}
