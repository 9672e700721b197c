//! A page too large for memory, from the API to the table.

use std::sync::Arc;

use futures::TryStreamExt as _;
use landfall::{
    clock::Clock,
    config::{StreamName, read as read_project},
    ops::{self, Workspace, extract::Channels},
    raw::{BatchNumber, log::RawLog, read},
};
use object_store::ObjectStore;
use serde_json::{Value, json};

use crate::support::{
    answers::{Answer, Answers},
    faulty::{Fault, FaultyStore, When},
    project::TestProject,
};

const ITEMS: &str = "
      items:
        request: { path: /items }
        records: $.data[*]
        paginate: { type: none }
        table: { keys: [id] }
";

/// A page of about `records` times `bytes`.
fn page(records: usize, bytes: usize) -> String {
    let record = |id: usize| json!({"id": id, "name": format!("n{id}"), "note": "x".repeat(bytes)});
    json!({"data": (0..records).map(record).collect::<Vec<_>>(), "total": records}).to_string()
}

fn entries(project: &TestProject) -> usize {
    let log = project.path().join("lake/raw/shop/items/_log");
    std::fs::read_dir(log).map_or(0, |entries| {
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".json")).count()
    })
}

#[test]
fn a_page_of_forty_megabytes_lands_in_parts_and_never_by_half() {
    let body = page(4000, 10_000);
    let api = Answers::start(move |_| Answer {
        status: 200,
        headers: Vec::new(),
        body: body.clone().into_bytes(),
    });
    let project = TestProject::new(&api.base_url, ITEMS);
    let ran = project.run_armed(&["extract"], "extract::page_appended=1*off->return");
    assert_ne!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(entries(&project), 0, "a part was committed without the others");
    project.ok(&["extract"]);
    assert_eq!(entries(&project), 1);
    project.ok(&["transform"]);
    let rows = project.sql("SELECT count(*) n, count(DISTINCT id) d, min(id) a, max(id) z, count(DISTINCT _lf_page) p FROM shop.items");
    assert_eq!(rows, [json!({"n": 4000, "d": 4000, "a": 0, "z": 3999, "p": 3})]);
    let told = project.ok(&["explain", "shop.items", "3999"]).stdout;
    assert!(
        told.contains(r#""name":"n3999""#),
        "{}",
        &told[..told.len().min(2000)]
    );
    assert_eq!(
        std::fs::read_dir(project.path().join(".landfall/spool"))
            .unwrap()
            .count(),
        0
    );
}

fn opened(project: &TestProject, part_bytes: u64) -> Workspace {
    let mut loaded = read_project::load(project.path()).unwrap().project;
    loaded.sources[0].limits.part_bytes = part_bytes;
    Workspace::open(loaded, Clock::system()).unwrap()
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(work)
}

async fn extract(workspace: &Workspace) -> landfall::error::Result<()> {
    let options = ops::extract::Options::changes(vec![StreamName::parse("shop.items").unwrap()]);
    let outcomes = ops::extract::extract(workspace, &Channels::open(workspace), &options, &|_, _| {}).await;
    outcomes.into_iter().next().unwrap().result.map(drop)
}

/// All bodies of the log, put together.
async fn bodies(store: &Arc<dyn ObjectStore>) -> Vec<u8> {
    let log = RawLog {
        store: Arc::clone(store),
        stream: StreamName::parse("shop.items").unwrap(),
    };
    let Some(head) = log.head().await.unwrap() else {
        return Vec::new();
    };
    let entries: Vec<_> = log
        .entries(BatchNumber::FIRST..=head.number)
        .try_collect()
        .await
        .unwrap();
    let mut all = Vec::new();
    for entry in entries {
        let pages: usize = entry.objects.iter().map(|object| object.pages.len()).sum();
        for page in 0..pages {
            let (_, body) = read::page(store.as_ref(), &entry, u32::try_from(page).unwrap())
                .await
                .unwrap();
            all.extend_from_slice(&body);
        }
    }
    all
}

#[test]
fn a_store_that_fails_anywhere_leaves_all_of_a_body_or_nothing() {
    let body = page(200, 20);
    let served = body.clone();
    let api = Answers::start(move |_| Answer::from(serde_json::from_str::<Value>(&served).unwrap()));
    let mut failing = 0;
    loop {
        let project = TestProject::with_lake(&api.base_url, ITEMS, "lake: ./lake");
        let mut workspace = opened(&project, 1000);
        let sound = Arc::clone(&workspace.store);
        let faulty = Arc::new(FaultyStore::new(
            Arc::clone(&sound),
            When::From(failing),
            Fault::Refused,
        ));
        workspace.store = Arc::clone(&faulty) as Arc<dyn ObjectStore>;
        let (ended, landed) = wait(async { (extract(&workspace).await, bodies(&sound).await) });
        assert!(
            landed.is_empty() || landed == body.as_bytes(),
            "operation {failing}"
        );
        if ended.is_ok() && faulty.operations() <= failing {
            assert_eq!(landed, body.as_bytes());
            break;
        }
        failing += 1;
    }
    assert!(failing > 2);
}

#[test]
fn parts_load_into_the_rows_of_the_whole_page() {
    let body = page(200, 20);
    let api = Answers::start(move |_| Answer::from(serde_json::from_str::<Value>(&body).unwrap()));
    let mut tables = Vec::new();
    for part_bytes in [1 << 20, 1000, 64] {
        let project = TestProject::with_lake(&api.base_url, ITEMS, "lake: ./lake");
        wait(extract(&opened(&project, part_bytes))).unwrap();
        let raw = project.sql("SELECT record FROM shop.items__raw ORDER BY _lf_page, _lf_record");
        project.ok(&["transform"]);
        tables.push((
            raw,
            project.sql("SELECT id, name, note FROM shop.items ORDER BY id"),
        ));
    }
    assert_eq!(tables[0].1.len(), 200);
    assert!(tables.iter().all(|table| *table == tables[0]));
}
