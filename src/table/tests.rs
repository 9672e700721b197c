pub(super) mod marking;
pub(super) mod overtaken;
mod rewriting;
mod sliced;
mod versions;
mod widening;
mod writing;

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array as _, AsArray as _, Int32Array, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Int64Type, Schema},
};
use datafusion::prelude::SessionContext;
use object_store::{memory::InMemory, path::Path};
use proptest::prelude::*;

use super::*;
use crate::{
    config::{Deletes, ScdType, WriteMode},
    table::merge::MergeOptions,
};

/// Key, sequence and value of an event.
pub(super) type Event = (i64, i64, u32);

pub(super) fn app() -> AppId {
    AppId::new(&StreamName::parse("shop.orders").unwrap(), 0)
}

pub(super) fn note(batch: i64, load_id: &str) -> CommitNote {
    CommitNote {
        app: app(),
        from: BatchNumber::new(batch).unwrap(),
        batch: BatchNumber::new(batch).unwrap(),
        load_id: load_id.to_owned(),
        rules: RulesNote::default(),
        traces: Vec::new(),
    }
}

pub(super) fn options(scd_type: ScdType) -> MergeOptions {
    MergeOptions {
        keys: vec!["id".to_owned()],
        sequence_by: vec!["seq".to_owned()],
        scd_type,
        deletes: Deletes::Soft,
        write_mode: WriteMode::CopyOnWrite,
        tombstones: None,
    }
}

pub(super) fn schema() -> Schema {
    Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("seq", DataType::Int64, true),
        Field::new("value", DataType::Utf8, true),
        Field::new("_lf_batch", DataType::Int64, true),
        Field::new("_lf_page", DataType::Int32, true),
        Field::new("_lf_record", DataType::Int32, true),
    ])
}

pub(super) fn rows(batch: i64, events: &[Event]) -> RecordBatch {
    let count = events.len();
    RecordBatch::try_new(
        Arc::new(schema()),
        vec![
            Arc::new(Int64Array::from_iter_values(events.iter().map(|event| event.0))),
            Arc::new(Int64Array::from_iter_values(events.iter().map(|event| event.1))),
            Arc::new(StringArray::from_iter_values(
                events.iter().map(|event| event.2.to_string()),
            )),
            Arc::new(Int64Array::from_value(batch, count)),
            Arc::new(Int32Array::from_value(0, count)),
            Arc::new(Int32Array::from_iter_values(0..i32::try_from(count).unwrap())),
        ],
    )
    .unwrap()
}

pub(super) async fn table() -> Table {
    let tables = Tables::new(Arc::new(InMemory::new())).unwrap();
    tables
        .open_or_create(&Path::from("tables/shop/orders"), &schema(), &[])
        .await
        .unwrap()
}

pub(super) async fn merge(
    table: &mut Table,
    batch: i64,
    events: &[Event],
    scd_type: ScdType,
) -> merge::MergeCounts {
    let planned = table
        .plan_merge(vec![rows(batch, events)], &options(scd_type), None)
        .await
        .unwrap();
    let counts = planned.counts;
    let committed = table
        .commit_merge(planned, &note(batch, &format!("load-{batch}")))
        .await
        .unwrap();
    assert!(matches!(committed, Committed::Applied { .. }), "{committed:?}");
    counts
}

pub(super) async fn read(table: &Table) -> Vec<Event> {
    let session = SessionContext::new();
    session
        .register_table("t", table.provider(&session).await.unwrap())
        .unwrap();
    let batches = session
        .sql("SELECT id, seq, value FROM t ORDER BY 1, 2, 3")
        .await
        .unwrap();
    let mut events = Vec::new();
    for batch in batches.collect().await.unwrap() {
        let ids = batch.column(0).as_primitive::<Int64Type>();
        let sequences = batch.column(1).as_primitive::<Int64Type>();
        let values = arrow::compute::cast(batch.column(2), &DataType::Utf8).unwrap();
        for row in 0..values.len() {
            let value = values.as_string::<i32>().value(row).parse().unwrap();
            events.push((ids.value(row), sequences.value(row), value));
        }
    }
    events
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn r006_r070_r073_f129_f130_table_is_the_fold_of_its_events(
        loads in prop::collection::vec(prop::collection::vec((0..12_i64, 0..6_i64, any::<u32>()), 0..20), 1..6),
    ) {
        runtime().block_on(async {
            let mut table = table().await;
            let mut oracle: BTreeMap<i64, Event> = BTreeMap::new();
            for (batch, events) in loads.iter().enumerate() {
                let before = oracle.clone();
                let counts = merge(&mut table, batch as i64, events, ScdType::Upsert).await;
                for event in events {
                    let current = oracle.entry(event.0).or_insert(*event);
                    if event.1 >= current.1 {
                        *current = *event;
                    }
                }
                prop_assert_eq!(counts.merged + counts.superseded, events.len() as u64);
                let replaced = before.iter().filter(|(key, event)| oracle[key] != **event).count();
                prop_assert!(counts.replaced >= replaced as u64);
            }
            prop_assert_eq!(read(&table).await, oracle.values().copied().collect::<Vec<_>>());
            Ok(())
        })?;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_without_a_loser_are_not_touched() {
    let mut table = table().await;
    merge(&mut table, 0, &[(1, 1, 1), (2, 1, 1)], ScdType::Upsert).await;
    merge(&mut table, 1, &[(10, 1, 1), (11, 1, 1)], ScdType::Upsert).await;
    let before: Vec<_> = table
        .files()
        .unwrap()
        .iter()
        .map(|file| file.path.clone())
        .collect();

    let counts = merge(
        &mut table,
        2,
        &[(10, 2, 9), (1, 0, 9), (50, 1, 1)],
        ScdType::Upsert,
    )
    .await;

    assert_eq!(
        (counts.files, counts.files_probed, counts.files_rewritten),
        (2, 2, 1)
    );
    assert_eq!((counts.merged, counts.superseded, counts.replaced), (2, 1, 1));
    let after: Vec<_> = table
        .files()
        .unwrap()
        .iter()
        .map(|file| file.path.clone())
        .collect();
    assert_eq!(after.iter().filter(|path| before.contains(path)).count(), 1);
    assert_eq!(
        read(&table).await,
        [(1, 1, 1), (2, 1, 1), (10, 2, 9), (11, 1, 1), (50, 1, 1)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn new_keys_probe_no_file() {
    let mut table = table().await;
    merge(&mut table, 0, &[(1, 1, 1), (2, 1, 1)], ScdType::Upsert).await;
    let counts = merge(&mut table, 1, &[(7, 1, 1)], ScdType::Upsert).await;
    assert_eq!(
        (counts.files_probed, counts.files_rewritten, counts.merged),
        (0, 0, 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn r076_append_keeps_every_event() {
    let mut table = table().await;
    merge(&mut table, 0, &[(1, 1, 1), (1, 1, 1)], ScdType::Append).await;
    merge(&mut table, 1, &[(1, 0, 2)], ScdType::Append).await;
    assert_eq!(read(&table).await, [(1, 0, 2), (1, 1, 1), (1, 1, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watermark_moves_without_rows_and_never_twice() {
    let mut first = table().await;
    let mut second = first.clone();
    assert_eq!(first.watermark(&app()).await.unwrap(), None);

    let planned = first
        .plan_merge(Vec::new(), &options(ScdType::Upsert), None)
        .await
        .unwrap();
    let late = second
        .plan_merge(vec![rows(3, &[(1, 1, 1)])], &options(ScdType::Upsert), None)
        .await
        .unwrap();
    let committed = first.commit_merge(planned, &note(3, "a")).await.unwrap();
    assert_eq!(committed, Committed::Applied { version: 1 });
    assert_eq!(
        first.watermark(&app()).await.unwrap(),
        Some(BatchNumber::new(3).unwrap())
    );

    // The second writer planned against the version before; it must not apply batch 3 again.
    assert_eq!(
        second.commit_merge(late, &note(3, "b")).await.unwrap(),
        Committed::AlreadyApplied
    );
    assert_eq!(read(&second).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn f136_a_commit_planned_against_an_old_version_conflicts() {
    let mut first = table().await;
    let mut second = first.clone();
    let stale = second
        .plan_merge(vec![rows(1, &[(2, 1, 1)])], &options(ScdType::Upsert), None)
        .await
        .unwrap();
    merge(&mut first, 0, &[(1, 1, 1)], ScdType::Upsert).await;
    assert_eq!(
        second.commit_merge(stale, &note(1, "b")).await.unwrap(),
        Committed::Conflicted
    );
    merge(&mut second, 1, &[(2, 1, 1)], ScdType::Upsert).await;
    assert_eq!(read(&second).await, [(1, 1, 1), (2, 1, 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_makes_every_plan_under_way_conflict() {
    let mut first = table().await;
    let mut second = first.clone();
    let planned = first
        .plan_merge(vec![rows(0, &[(1, 1, 1)])], &options(ScdType::Upsert), None)
        .await
        .unwrap();
    assert_eq!(second.fence().await.unwrap(), Committed::Applied { version: 1 });
    assert_eq!(
        first.commit_merge(planned, &note(0, "a")).await.unwrap(),
        Committed::Conflicted
    );
    assert_eq!(first.standing(&app()).await.unwrap(), Standing::default());
    merge(&mut first, 0, &[(1, 1, 1)], ScdType::Upsert).await;
    let last = first.standing(&app()).await.unwrap().last.unwrap();
    assert_eq!((last.load_id.as_str(), last.from.get()), ("load-0", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_stands_in_many_rows_becomes_one() {
    let mut table = table().await;
    merge(&mut table, 0, &[(1, 1, 1), (1, 2, 2), (2, 1, 1)], ScdType::Append).await;
    merge(&mut table, 1, &[(1, 3, 3)], ScdType::Append).await;
    let counts = merge(&mut table, 2, &[(1, 4, 4), (2, 0, 9)], ScdType::Upsert).await;
    assert_eq!((counts.merged, counts.superseded, counts.replaced), (1, 1, 3));
    assert_eq!(read(&table).await, [(1, 4, 4), (2, 1, 1)]);
}
