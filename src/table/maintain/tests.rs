use std::{sync::Arc, time::Duration};

use object_store::{ObjectStore, memory::InMemory};

use super::*;
use crate::{
    clock::Clock,
    config::ScdType,
    raw::BatchNumber,
    table::{
        Committed, LastLoad,
        tests::{
            app, merge, note, options,
            overtaken::{load_of_another, meddled},
            read, rows, schema, table,
        },
    },
};

fn small(sizes: &[u64]) -> Vec<Small> {
    let numbered = sizes.iter().enumerate();
    numbered
        .map(|(at, &bytes)| Small {
            at,
            bytes,
            marked: false,
        })
        .collect()
}

fn object(name: &str, age_days: u32) -> ObjectMeta {
    ObjectMeta {
        location: Path::from(LOG).join(name),
        last_modified: Timestamp::UNIX_EPOCH + Duration::from_secs(86_400) * (100 - age_days),
        size: 1,
        e_tag: None,
        version: None,
    }
}

fn later() -> Timestamp {
    Clock::system().now() + Duration::from_secs(60)
}

fn all() -> CompactOptions {
    CompactOptions {
        target_bytes: 1 << 20,
        before: later(),
        settled: Settled::All,
        marked: Marked::Much,
    }
}

#[test]
fn small_files_are_put_together_up_to_the_size_wanted() {
    assert_eq!(bins(&small(&[10, 20, 30, 50, 60]), 100), [vec![0, 1, 2]]);
    assert_eq!(bins(&small(&[40, 40, 40, 40]), 100), [vec![0, 1], vec![2, 3]]);
    assert_eq!(bins(&small(&[7]), 100), Vec::<Vec<usize>>::new());
    // A few rows are not worth writing a large file again; many files are.
    assert_eq!(bins(&small(&[49, 1]), 100), Vec::<Vec<usize>>::new());
    assert_eq!(bins(&small(&[49, 1, 1, 1, 1, 1, 1, 1]), 100).len(), 1);
}

#[test]
fn only_the_log_in_front_of_a_checkpoint_goes() {
    let names = |objects: Vec<ObjectMeta>| -> Vec<String> {
        let names = objects
            .iter()
            .map(|object| object.location.filename().unwrap().to_owned());
        names.collect()
    };
    let commit = |version: u64, age| object(&format!("{version:020}.json"), age);
    let checkpoint = |version: u64, age| object(&format!("{version:020}.checkpoint.parquet"), age);
    let before = Timestamp::UNIX_EPOCH + Duration::from_secs(86_400) * 70;
    let log = || {
        vec![
            commit(0, 50),
            commit(1, 45),
            checkpoint(1, 45),
            commit(2, 40),
            checkpoint(3, 35),
            commit(3, 35),
            commit(4, 5),
        ]
    };
    assert_eq!(
        names(stale(log(), 4, before)),
        [
            "00000000000000000000.json",
            "00000000000000000001.checkpoint.parquet",
            "00000000000000000001.json",
            "00000000000000000002.json"
        ]
    );
    // A version that somebody may still ask for begins with the checkpoint in front of it.
    let mut young = log();
    young[3] = commit(2, 5);
    assert_eq!(names(stale(young, 4, before)), ["00000000000000000000.json"]);
    // No checkpoint, and one that we do not know.
    assert_eq!(stale(vec![commit(0, 50), commit(1, 45)], 1, before), []);
    let mut foreign = log();
    foreign.push(object(
        "00000000000000000003.checkpoint.0000000001.0000000002.parquet",
        35,
    ));
    assert_eq!(stale(foreign, 4, before), []);
}

#[test]
fn only_files_of_data_are_looked_at() {
    for (path, data) in [
        ("part-1.parquet", true),
        ("day=1/part-1.parquet", true),
        ("_day=1/part-1.parquet", true),
        ("_delta_log/00000000000000000001.checkpoint.parquet", false),
        ("_change_data/part-1.parquet", false),
        ("notes.txt", false),
        (".part-1.parquet", false),
    ] {
        assert_eq!(is_data(&Path::from(path)), data, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_keeps_rows_and_the_watermark() {
    let mut table = table().await;
    for batch in 0..10 {
        merge(
            &mut table,
            batch,
            &[(batch, batch, 1), (3, batch, 2)],
            ScdType::Upsert,
        )
        .await;
    }
    let before = read(&table).await;
    let files = table.files().unwrap().len();
    let found = table.compactable(&all()).unwrap();
    let done = table.compact(&all()).await.unwrap();
    assert_eq!((done.files, done.files_after), (files as u64, 1));
    assert_eq!((done.files, done.bytes), (found.files, found.bytes));
    assert_eq!(table.files().unwrap().len(), 1);
    assert_eq!(read(&table).await, before);
    assert_eq!(
        table.watermark(&app()).await.unwrap(),
        Some(BatchNumber::new(9).unwrap())
    );
    let standing = table.standing(&app()).await.unwrap();
    assert_eq!(standing.last.unwrap().load_id, "load-9");
    // Nothing is left to do, and the next load goes on.
    assert_eq!(table.compact(&all()).await.unwrap(), Compacted::default());
    merge(&mut table, 10, &[(3, 99, 5)], ScdType::Upsert).await;
    assert!(read(&table).await.contains(&(3, 99, 5)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_planned_before_a_compaction_plans_again() {
    let mut table = table().await;
    for batch in 0..3 {
        merge(&mut table, batch, &[(batch, batch, 1)], ScdType::Append).await;
    }
    let mut other = table.clone();
    let planned = table
        .plan_merge(vec![rows(3, &[(1, 7, 7)])], &options(ScdType::Upsert), None)
        .await
        .unwrap();
    assert_eq!(other.compact(&all()).await.unwrap().files, 3);
    let committed = table.commit_merge(planned, &note(3, "load-3")).await.unwrap();
    assert_eq!(committed, Committed::Conflicted);
    merge(&mut table, 3, &[(1, 7, 7)], ScdType::Upsert).await;
    assert_eq!(read(&table).await, [(0, 0, 1), (1, 7, 7), (2, 2, 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_overtaken_by_a_load_changes_nothing_it_must_not() {
    let mut table = table().await;
    for batch in 0..3 {
        merge(&mut table, batch, &[(batch, batch, 1)], ScdType::Append).await;
    }
    // Appended meanwhile: the files it replaces are still there, so it commits all the same.
    let mut behind = table.clone();
    merge(&mut table, 3, &[(3, 3, 1)], ScdType::Append).await;
    assert_eq!(behind.compact(&all()).await.unwrap().files, 3);
    table.refresh().await.unwrap();
    assert_eq!(read(&table).await.len(), 4);
    // Rewritten meanwhile: it gives up, and its files go.
    merge(&mut table, 4, &[(4, 4, 1)], ScdType::Append).await;
    let mut behind = table.clone();
    merge(&mut table, 5, &[(3, 9, 9)], ScdType::Upsert).await;
    let done = behind.compact(&all()).await.unwrap();
    assert_eq!((done.files, done.overtaken), (0, 3));
    assert_eq!(read(&table).await.len(), 5);
    assert!(read(&table).await.contains(&(3, 9, 9)));
    let live = behind.files().unwrap().len();
    let removed = behind.removed_since(Timestamp::UNIX_EPOCH).await.unwrap();
    let there = behind.list(None).await.unwrap();
    let orphans = there
        .iter()
        .filter(|object| is_data(&object.location) && !removed.contains(&object.location));
    assert_eq!(orphans.count(), live);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f136_a_load_between_two_steps_of_a_compaction_keeps_its_rows() {
    let (store, mut table) = meddled(4).await;
    let files = table.files().unwrap();
    let (first, second) = files.split_at(2);
    let updates = (0..4).map(|id| (id, 9, 9)).collect();
    store.after_next_commit(load_of_another(&table, 4, updates));
    let done = table.replace(&[first.iter().collect()], 1 << 20).await.unwrap();
    assert!(done.is_some());
    assert_eq!(
        table.replace(&[second.iter().collect()], 1 << 20).await.unwrap(),
        None,
        "its files are gone"
    );
    table.refresh().await.unwrap();
    assert_eq!(read(&table).await, [(0, 9, 9), (1, 9, 9), (2, 9, 9), (3, 9, 9)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_keeps_the_watermark_when_the_log_before_it_is_gone() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let tables = Tables::new(Arc::clone(&store)).unwrap();
    let path = Path::from("tables/shop/orders");
    let mut table = tables.open_or_create(&path, &schema(), &[]).await.unwrap();
    for batch in 0..4 {
        merge(&mut table, batch, &[(batch, batch, 1)], ScdType::Upsert).await;
    }
    // The last commit has no watermark of its own.
    table.fence().await.unwrap();
    assert_eq!(table.stale_log(later()).await.unwrap(), []);
    let version = tables.checkpoint(&path, Some(&app())).await.unwrap();
    assert_eq!(version, table.version());
    assert_eq!(table.commits_since_checkpoint().await.unwrap(), 0);
    let stale = table.stale_log(later()).await.unwrap();
    assert_eq!(stale.len(), 5, "{stale:?}");
    for object in stale {
        table.store().delete(&object.location).await.unwrap();
    }
    let mut table = tables.open(&path).await.unwrap().unwrap();
    assert_eq!(
        table.watermark(&app()).await.unwrap(),
        Some(BatchNumber::new(3).unwrap())
    );
    assert_eq!(table.standing(&app()).await.unwrap().last, None);
    assert_eq!(read(&table).await.len(), 4);
    merge(&mut table, 4, &[(0, 9, 9)], ScdType::Upsert).await;
    assert_eq!(read(&table).await.len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_no_version_needs_is_stale() {
    let mut table = table().await;
    merge(&mut table, 0, &[(1, 1, 1)], ScdType::Upsert).await;
    merge(&mut table, 1, &[(1, 2, 2)], ScdType::Upsert).await;
    let orphan = Path::from("part-left.parquet");
    table.store().put(&orphan, "left".into()).await.unwrap();
    let now = Clock::system().now() - Duration::from_secs(60);
    assert_eq!(table.stale_files(now).await.unwrap(), []);
    // So far in the future that both the version before and the orphan are old.
    let stale = table.stale_files(later()).await.unwrap();
    assert_eq!(stale.len(), 2, "{stale:?}");
    assert!(stale.iter().any(|object| object.location == orphan));
    let live: Vec<Path> = table.files().unwrap().into_iter().map(|file| file.path).collect();
    assert!(stale.iter().all(|object| !live.contains(&object.location)));
}

#[test]
fn rows_that_a_load_may_take_back_are_not_settled() {
    let number = |batch| BatchNumber::new(batch).unwrap();
    let standing = |mark: Option<i64>, from: Option<i64>| Standing {
        watermark: mark.map(number),
        last: from.map(|from| LastLoad {
            load_id: "b".to_owned(),
            from: number(from),
        }),
    };
    assert!(is_settled(3, &standing(Some(9), Some(4))));
    assert!(!is_settled(5, &standing(Some(9), Some(4))));
    assert!(!is_settled(3, &standing(None, None)));
    assert!(is_settled(3, &standing(Some(3), None)));
}
