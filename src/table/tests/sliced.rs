//! Loads that memory has no room for: what is in the table afterwards does not depend on it.

use super::{
    versions::{Change, Room, Target, absence, rooms, scratch_dir},
    *,
};
use crate::{
    spill::{
        gathered::{Gathered, Spill},
        slices::Slices,
    },
    table::merge::MergeCounts,
};

/// What a load did, but for where.
fn told(counts: MergeCounts) -> MergeCounts {
    MergeCounts {
        groups: 0,
        groups_probed: 0,
        groups_copied: 0,
        files: 0,
        files_probed: 0,
        files_rewritten: 0,
        files_marked: 0,
        ..counts
    }
}

/// What each load did, and all rows afterwards.
async fn loaded(
    loads: &[Vec<Change>],
    by: (ScdType, Deletes, WriteMode),
    passes: bool,
    room: Room,
) -> (Vec<MergeCounts>, Vec<String>) {
    let (scd_type, deletes, write_mode) = by;
    let mut target = Target::new(scd_type, deletes, room).await;
    target.options.write_mode = write_mode;
    let mut counts = Vec::new();
    for (batch, changes) in loads.iter().enumerate() {
        let batch = batch as i64;
        let pass = passes.then(|| absence(batch, batch, 1.0, Vec::new()));
        counts.push(told(target.load(batch, changes, pass).await));
    }
    let rows = target
        .sql("SELECT * FROM t ORDER BY id, seq, _lf_batch, _lf_page, _lf_record")
        .await;
    (counts, rows)
}

fn loads() -> impl Strategy<Value = Vec<Vec<Change>>> {
    let change = (0..40_i64, 0..6_i64, any::<u32>(), prop::bool::weighted(0.2));
    prop::collection::vec(prop::collection::vec(change, 0..120), 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_load_in_slices_is_the_load(loads in loads(), room in rooms(), hard in any::<bool>(), marks in any::<bool>(), passes in any::<bool>()) {
        let deletes = if hard { Deletes::Hard } else { Deletes::Soft };
        let mode = if marks { WriteMode::MergeOnRead } else { WriteMode::CopyOnWrite };
        runtime().block_on(async {
            for scd_type in [ScdType::Upsert, ScdType::History, ScdType::Append, ScdType::Replace] {
                let whole = loaded(&loads, (scd_type, deletes, WriteMode::CopyOnWrite), passes, None).await;
                let sliced = loaded(&loads, (scd_type, deletes, mode), passes, room.or(Some(2_000))).await;
                prop_assert_eq!(whole, sliced, "{:?}", scd_type);
            }
            Ok(())
        })?;
    }
}

/// `events` in a table of `count` keys, through memory for `bytes` of rows.
fn gathered(events: &[Event], bytes: u64, sorted: bool) -> Gathered {
    let spill = Spill::new(&scratch_dir(), bytes, bytes / 2);
    let options = options(ScdType::Upsert);
    let mut gathered = Gathered::new(if sorted {
        spill.sorted(&options.keys, options.order())
    } else {
        spill
    });
    for (page, events) in events.chunks(100).enumerate() {
        let page = i64::try_from(page).unwrap();
        gathered.push(rows(page, events)).unwrap();
    }
    gathered
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_plan_reads_the_same_slices_and_each_meets_few_files() {
    let mut table = table().await;
    for first in 0..10 {
        let events: Vec<Event> = (first * 400..(first + 1) * 400).map(|id| (id, 0, 0)).collect();
        merge(&mut table, first, &events, ScdType::Upsert).await;
    }
    // Spread over the load, as no order of arrival helps.
    let events: Vec<Event> = (0..4_000).map(|id| ((id * 1_237) % 4_000, 1, 7)).collect();
    let load = gathered(&events, 40_000, true);
    assert!(load.held().is_none());
    let slices = Slices::of(load.clone()).unwrap();
    assert!(slices.count() > 5, "{} slices", slices.count());
    let options = options(ScdType::Upsert);
    let first = table.plan_merge(load.clone(), &options, None).await.unwrap();
    let again = table.plan_merge(load, &options, None).await.unwrap();
    assert_eq!(first.counts, again.counts);
    table.abandon(first).await.unwrap();
    assert_eq!((again.counts.merged, again.counts.replaced), (4_000, 4_000));
    assert_eq!(again.counts.files_rewritten, 10);
    // A slice meets one file or two that are neighbours, not all ten.
    assert!(
        again.counts.groups_probed <= 10 + slices.count() as u64,
        "{:?}",
        again.counts
    );
    table.commit_merge(again, &note(10, "sliced")).await.unwrap();
    let expected: Vec<Event> = (0..4_000).map(|id| (id, 1, 7)).collect();
    assert_eq!(read(&table).await, expected);
}

#[test]
fn slices_hold_every_row_once_and_every_key_whole() {
    let events: Vec<Event> = (0..5_000)
        .map(|number| ((number * 7_919) % 1_300, number, 1))
        .collect();
    let slices = Slices::of(gathered(&events, 30_000, true)).unwrap();
    assert!(slices.count() > 4);
    let mut found: Vec<(i64, i64)> = Vec::new();
    let mut end = i64::MIN;
    for number in 0..slices.count() {
        let mut of_slice: Vec<(i64, i64)> = Vec::new();
        for batch in slices.rows(number) {
            let batch = batch.unwrap();
            let numbers = |name: &str| batch[name].as_primitive::<Int64Type>().values().to_vec();
            of_slice.extend(numbers("id").into_iter().zip(numbers("seq")));
        }
        assert!(of_slice.iter().all(|(id, _)| *id > end), "slice {number}");
        end = of_slice.iter().map(|(id, _)| *id).max().unwrap();
        found.extend(of_slice);
    }
    found.sort_unstable();
    let mut expected: Vec<(i64, i64)> = events.iter().map(|event| (event.0, event.1)).collect();
    expected.sort_unstable();
    assert!(
        found == expected,
        "{} rows instead of {}",
        found.len(),
        expected.len()
    );
}

#[test]
fn rows_in_no_order_come_back_as_they_came() {
    let events: Vec<Event> = (0..3_000).map(|id| ((id * 7) % 3_000, id, 1)).collect();
    let mut gathered = gathered(&events[..2_000], 20_000, false);
    gathered
        .append(self::gathered(&events[2_000..], 1 << 20, false))
        .unwrap();
    assert!(gathered.held().is_none());
    let mut found = Vec::new();
    for batch in gathered.batches() {
        found.extend(
            batch.unwrap()["seq"]
                .as_primitive::<Int64Type>()
                .values()
                .to_vec(),
        );
    }
    assert_eq!(found, (0..3_000).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_with_more_versions_than_memory_holds_is_merged_and_refused_as_history() {
    let mut table = table().await;
    let events: Vec<Event> = (0..20_000).map(|sequence| (1, sequence, 1)).collect();
    let planned = table
        .plan_merge(gathered(&events, 20_000, true), &options(ScdType::Upsert), None)
        .await
        .unwrap();
    assert_eq!((planned.counts.merged, planned.counts.superseded), (1, 19_999));
    table.commit_merge(planned, &note(0, "hot")).await.unwrap();
    assert_eq!(read(&table).await, [(1, 19_999, 1)]);
    let tables = Tables::new(Arc::new(InMemory::new())).unwrap();
    let schema = history::schema(&schema(), "seq").unwrap();
    let table = tables
        .open_or_create(&Path::from("tables/shop/versions"), &schema, &[])
        .await
        .unwrap();
    let refused = table
        .plan_merge(gathered(&events, 20_000, true), &options(ScdType::History), None)
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Limit, "{refused:?}");
    assert!(
        refused.chain().contains("hold all versions of a key"),
        "{refused:?}"
    );
}
