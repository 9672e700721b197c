//! The tables are the fold of the raw records over a map, however the records are cut, repeated, late or broken.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use landfall::{
    clock::{Clock, Timestamp},
    config::{Project, StreamName},
    ops::{Workspace, transform::transform, verify::verify},
    query::Session,
    raw::{Bookmark, Page, PageFacts, log::BatchKind, write::Landing},
    table::Tables,
};
use object_store::{ObjectStore, memory::InMemory};
use proptest::prelude::*;

use crate::support::project::{ITEMS, ITEMS_CONTRACT, TestProject};

/// One record as an API may send it.
#[derive(Clone, Debug)]
enum Event {
    Row {
        id: i64,
        updated: i64,
        name: String,
    },
    Deleted {
        id: i64,
        updated: i64,
    },
    /// JSON, or nearly, that no contract row fits.
    Broken(&'static str),
}

/// Key to sequence, deleted, name.
type Fold = BTreeMap<i64, (i64, bool, Option<String>)>;

const BROKEN: [&str; 8] = [
    r#"{"id": null, "updated": 1, "name": "x"}"#,
    r#"{"updated": 1, "name": "x"}"#,
    r#"{"id": 1.5, "updated": 1, "name": "x"}"#,
    r#"{"id": 9223372036854775808, "updated": 1, "name": "x"}"#,
    r#"{"id": 1, "updated": 5}"#,
    r#"{"id": 1, "id": 2, "updated": 5, "name": "x"}"#,
    r#"{"id": 1, "updated": 5, "deleted": true, "name": 7}"#,
    "[1, 2]",
];

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..8_i64, 0..6_i64, "[a-z]{0,3}").prop_map(|(id, updated, name)| Event::Row { id, updated, name }),
        2 => (0..8_i64, 0..6_i64).prop_map(|(id, updated)| Event::Deleted { id, updated }),
        1 => prop::sample::select(BROKEN.to_vec()).prop_map(Event::Broken),
    ]
}

impl Event {
    fn json(&self) -> String {
        match self {
            Self::Row { id, updated, name } => {
                format!(r#"{{"id": {id}, "updated": {updated}, "name": "{name}"}}"#)
            }
            Self::Deleted { id, updated } => {
                format!(r#"{{"id": {id}, "updated": {updated}, "deleted": true}}"#)
            }
            Self::Broken(text) => (*text).to_owned(),
        }
    }

    /// What AUTO CDC promises: the greatest sequence wins, the later arrival among equals.
    fn fold(&self, rows: &mut Fold) {
        let (id, row) = match self {
            Self::Row { id, updated, name } => (*id, (*updated, false, Some(name.clone()))),
            Self::Deleted { id, updated } => (*id, (*updated, true, None)),
            Self::Broken(_) => return,
        };
        if rows.get(&id).is_none_or(|current| row.0 >= current.0) {
            rows.insert(id, row);
        }
    }
}

struct Lake {
    workspace: Workspace,
    stream: StreamName,
    _project: TestProject,
}

impl Lake {
    fn new() -> Self {
        Self::of(ITEMS)
    }

    fn of(streams: &str) -> Self {
        let project = TestProject::new("http://127.0.0.1:9", streams);
        project.write("contracts/shop.items.odcs.yaml", ITEMS_CONTRACT);
        let parsed: Project = landfall::config::read::load(project.path()).unwrap().project;
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let workspace = Workspace {
            project: Arc::new(parsed),
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

    /// Lands one raw batch of `pages`: what an API answered, or what a producer sent.
    async fn land(&self, pages: &[Vec<Event>], kind: BatchKind) {
        let workspace = &self.workspace;
        let (store, clock) = (Arc::clone(&workspace.store), workspace.clock.clone());
        let mut landing = Landing::open(
            store,
            self.stream.clone(),
            clock,
            "run".to_owned(),
            "hash".to_owned(),
        )
        .await
        .unwrap();
        for events in pages {
            let records: Vec<String> = events.iter().map(Event::json).collect();
            let body = Bytes::from(format!(r#"{{"data": [{}], "next": null}}"#, records.join(", ")));
            landing.append(Page { body, facts: facts() }).await.unwrap();
        }
        landing.commit(kind, Bookmark::default(), None).await.unwrap();
    }

    async fn transform(&self) -> landfall::ops::transform::Transformed {
        let outcomes = transform(&self.workspace, std::slice::from_ref(&self.stream)).await;
        outcomes.into_iter().next().unwrap().result.unwrap()
    }

    /// The table is what a replay of raw gives, in one load as in several.
    async fn verified(&self) {
        let verified = verify(&self.workspace, &self.stream, 5, &|_| {}).await.unwrap();
        assert!(verified.is_sound(), "{verified:?}");
    }

    async fn rows(&self, sql: &str) -> Vec<serde_json::Value> {
        let workspace = &self.workspace;
        let session = Session::new(&workspace.project, &workspace.tables, &workspace.store).unwrap();
        let batches = session.sql(sql).await.unwrap().collect().await.unwrap();
        let mut json = arrow::json::ArrayWriter::new(Vec::new());
        json.write_batches(&batches.iter().collect::<Vec<_>>()).unwrap();
        json.finish().unwrap();
        let text = json.into_inner();
        if text.is_empty() {
            Vec::new()
        } else {
            serde_json::from_slice(&text).unwrap()
        }
    }

    async fn fold(&self) -> Fold {
        let rows = self
            .rows("SELECT id, updated, _deleted, name FROM shop.items")
            .await;
        let fold: Fold = rows
            .iter()
            .map(|row| {
                let name = row.get("name").and_then(|name| name.as_str()).map(str::to_owned);
                let sequence = row["updated"].as_i64().unwrap();
                (
                    row["id"].as_i64().unwrap(),
                    (sequence, row["_deleted"].as_bool().unwrap(), name),
                )
            })
            .collect();
        assert_eq!(fold.len(), rows.len(), "one current row per key");
        fold
    }
}

fn facts() -> PageFacts {
    PageFacts::new(Timestamp::UNIX_EPOCH, "GET", "http://127.0.0.1:9/items", 200)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn r072_r073_r074_r080_f130_any_cut_and_order_of_records_gives_the_fold(
        batches in prop::collection::vec(
            (prop::collection::vec(prop::collection::vec(event(), 0..8), 1..4), any::<bool>()),
            1..6,
        ),
        marks in any::<bool>(),
    ) {
        runtime().block_on(async {
            let marking = ITEMS.replace("keys:", "write_mode: merge_on_read, keys:");
            let lake = Lake::of(if marks { &marking } else { ITEMS });
            let mut oracle = Fold::new();
            let (mut landed, mut broken, mut read, mut quarantined) = (0, 0, 0, 0);
            for (pages, transform_now) in &batches {
                lake.land(pages, BatchKind::Pull).await;
                for event in pages.iter().flatten() {
                    event.fold(&mut oracle);
                    landed += 1;
                    broken += u64::from(matches!(event, Event::Broken(_)));
                }
                if *transform_now {
                    let done = lake.transform().await;
                    read += done.read;
                    quarantined += done.quarantined;
                }
            }
            let done = lake.transform().await;
            read += done.read;
            quarantined += done.quarantined;
            prop_assert_eq!((read, quarantined), (landed, broken));
            prop_assert_eq!(lake.fold().await, oracle);
            lake.verified().await;
            // Quarantine holds each broken record once, with its evidence.
            let rows = lake.rows("SELECT class, record FROM shop.items__quarantine").await;
            prop_assert_eq!(rows.len() as u64, broken);
            Ok(())
        })?;
    }

    #[test]
    fn r092_whatever_the_kind_of_table_a_replay_in_one_load_gives_its_rows(
        batches in prop::collection::vec((prop::collection::vec(event(), 0..10), any::<bool>()), 1..6),
        kind in prop::sample::select(vec![
            "deletes: hard",
            "scd_type: 2",
            "scd_type: append",
            "deletes: hard, write_mode: merge_on_read",
            "scd_type: 2, write_mode: merge_on_read",
        ]),
    ) {
        runtime().block_on(async {
            let streams = if kind == "scd_type: append" {
                ITEMS.replace("keys: [id], sequence_by: [updated], apply_as_deletes: deleted = true", kind)
            } else {
                ITEMS.replace("apply_as_deletes", &format!("{kind}, apply_as_deletes"))
            };
            let lake = Lake::of(&streams);
            for (events, transform_now) in &batches {
                lake.land(std::slice::from_ref(events), BatchKind::Pull).await;
                if *transform_now {
                    lake.transform().await;
                }
            }
            lake.transform().await;
            lake.verified().await;
        });
    }

    #[test]
    fn r017_pull_and_push_on_one_stream_converge_to_one_row_per_key(
        batches in prop::collection::vec(
            (prop::collection::vec(event(), 0..8), any::<bool>(), any::<bool>()),
            1..8,
        ),
    ) {
        runtime().block_on(async {
            let lake = Lake::new();
            let mut oracle = Fold::new();
            for (events, pushed, transform_now) in &batches {
                let kind = if *pushed { BatchKind::Push } else { BatchKind::Pull };
                lake.land(std::slice::from_ref(events), kind).await;
                events.iter().for_each(|event| event.fold(&mut oracle));
                if *transform_now {
                    lake.transform().await;
                }
            }
            lake.transform().await;
            prop_assert_eq!(lake.fold().await, oracle);
            lake.verified().await;
            Ok(())
        })?;
    }
}
