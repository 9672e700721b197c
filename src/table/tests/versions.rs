//! History, hard deletes, rows that a complete pass did not bring, and tables that each pass replaces: all of them are a
//! fold of their events, however those arrive.

use std::collections::BTreeSet;

use arrow::array::BooleanArray;
use futures::{StreamExt as _, stream};

use super::*;
use crate::{
    spill::gathered::{Gathered, Spill},
    table::{
        absent::{Absence, AbsentCounts, Seen},
        history,
        side::Side,
        tombstones,
    },
};

/// Key, sequence, value and whether it is a deletion.
pub(super) type Change = (i64, i64, u32, bool);

fn wide_schema() -> Schema {
    let mut fields: Vec<_> = schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("_deleted", DataType::Boolean, true)));
    Schema::new(fields)
}

fn wide_rows(batch: i64, changes: &[Change]) -> RecordBatch {
    let events: Vec<Event> = changes
        .iter()
        .map(|change| (change.0, change.1, change.2))
        .collect();
    let mut columns = rows(batch, &events).columns().to_vec();
    columns.push(Arc::new(BooleanArray::from_iter(
        changes.iter().map(|change| Some(change.3)),
    )));
    RecordBatch::try_new(Arc::new(wide_schema()), columns).unwrap()
}

/// A table with its tombstones, loaded as the transform does.
pub(super) struct Target {
    tables: Tables,
    table: Table,
    tombstones: Side,
    pub(super) options: MergeOptions,
    /// Where the rows of a load are gathered.
    room: Room,
}

/// How many bytes of rows memory holds; all of them if it has no bound.
pub(super) type Room = Option<u64>;

pub(super) fn rooms() -> impl Strategy<Value = Room> {
    prop::option::of(1_000..20_000_u64)
}

/// Files of rows that memory has no room for; they have no names.
pub(super) fn scratch_dir() -> std::path::PathBuf {
    std::env::temp_dir().join("landfall-table-tests")
}

impl Target {
    pub(super) async fn new(scd_type: ScdType, deletes: Deletes, room: Room) -> Self {
        let tables = Tables::new(Arc::new(InMemory::new())).unwrap();
        let schema = match scd_type {
            ScdType::History => history::schema(&wide_schema(), "seq").unwrap(),
            _ => Arc::new(wide_schema()),
        };
        let table = tables
            .open_or_create(&Path::from("tables/shop/orders"), &schema, &[])
            .await
            .unwrap();
        Self {
            table,
            tombstones: Side {
                path: Path::from("tombstones/shop/orders"),
                shared: false,
            },
            options: MergeOptions {
                deletes,
                ..options(scd_type)
            },
            tables,
            room,
        }
    }

    /// `changes` as the transform would hand them over.
    fn gathered(&self, batch: i64, changes: &[Change]) -> Gathered {
        let Some(bytes) = self.room else {
            return vec![wide_rows(batch, changes)].into();
        };
        let spill = Spill::new(&scratch_dir(), bytes, bytes / 4);
        let mut rows = Gathered::new(match self.options.scd_type {
            ScdType::Append | ScdType::Replace => spill,
            ScdType::Upsert | ScdType::History => spill.sorted(&self.options.keys, self.options.order()),
        });
        let all = wide_rows(batch, changes);
        for start in (0..changes.len()).step_by(3) {
            rows.push(all.slice(start, 3.min(changes.len() - start))).unwrap();
        }
        rows
    }

    pub(super) async fn load(
        &mut self,
        batch: i64,
        changes: &[Change],
        absence: Option<Absence<'_>>,
    ) -> merge::MergeCounts {
        let tombstones = self.tables.open(&self.tombstones.path).await.unwrap();
        self.options.tombstones = match tombstones {
            Some(table) => Some((table, self.table.standing(&app()).await.unwrap())),
            None => None,
        };
        let planned = self
            .table
            .plan_merge(self.gathered(batch, changes), &self.options, absence)
            .await
            .unwrap();
        let counts = planned.counts;
        assert_eq!(counts.merged + counts.superseded, changes.len() as u64);
        let note = note(batch, &format!("load-{batch}"));
        let kept: Vec<_> = planned
            .tombstones
            .batches()
            .map(|rows| tombstones::kept(&rows.unwrap(), &self.options, &note).unwrap())
            .collect();
        self.tables.append_side(&self.tombstones, &kept).await.unwrap();
        let committed = self.table.commit_merge(planned, &note).await.unwrap();
        assert!(matches!(committed, Committed::Applied { .. }), "{committed:?}");
        counts
    }

    pub(super) async fn sql(&self, sql: &str) -> Vec<String> {
        let session = SessionContext::new();
        session
            .register_table("t", self.table.provider(&session).await.unwrap())
            .unwrap();
        let batches = session.sql(sql).await.unwrap().collect().await.unwrap();
        let mut lines = Vec::new();
        for batch in batches {
            for row in 0..batch.num_rows() {
                let cells: Vec<String> = batch
                    .columns()
                    .iter()
                    .map(|column| arrow::util::display::array_value_to_string(column, row).unwrap())
                    .collect();
                lines.push(cells.join(" "));
            }
        }
        lines
    }
}

pub(super) fn absence<'a>(since: i64, until: i64, ratio: f64, seen: Vec<Seen>) -> Absence<'a> {
    Absence {
        since: BatchNumber::new(since).unwrap(),
        until: BatchNumber::new(until).unwrap(),
        delete_ratio_max: ratio,
        rows_max: 1_000,
        seen: stream::iter(seen.into_iter().map(Ok)).boxed(),
    }
}

pub(super) fn changes() -> impl Strategy<Value = Vec<Vec<Change>>> {
    let change = (0..8_i64, 0..6_i64, any::<u32>(), prop::bool::weighted(0.25));
    prop::collection::vec(prop::collection::vec(change, 0..14), 1..6)
}

/// The last arrival of each key and sequence.
fn versions(loads: &[Vec<Change>]) -> BTreeMap<i64, BTreeMap<i64, (u32, bool)>> {
    let mut versions: BTreeMap<i64, BTreeMap<i64, (u32, bool)>> = BTreeMap::new();
    for change in loads.iter().flatten() {
        versions
            .entry(change.0)
            .or_default()
            .insert(change.1, (change.2, change.3));
    }
    versions
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn history_is_every_version_with_its_span_however_late_it_came(loads in changes(), room in rooms()) {
        runtime().block_on(async {
            let mut target = Target::new(ScdType::History, Deletes::Soft, room).await;
            for (batch, changes) in loads.iter().enumerate() {
                target.load(batch as i64, changes, None).await;
            }
            let mut expected = Vec::new();
            for (key, versions) in versions(&loads) {
                let sequences: Vec<i64> = versions.keys().copied().collect();
                for (number, (sequence, (value, deleted))) in versions.iter().enumerate() {
                    let next = sequences.get(number + 1);
                    let end = next.map_or(String::new(), i64::to_string);
                    let current = next.is_none() && !deleted;
                    expected.push(format!("{key} {sequence} {value} {deleted} {sequence} {end} {current}"));
                }
            }
            let found = target
                .sql("SELECT id, seq, value, _deleted, _valid_from, _valid_to, _current FROM t ORDER BY id, seq")
                .await;
            prop_assert_eq!(found, expected);
            Ok(())
        })?;
    }

    #[test]
    fn hard_deletes_leave_no_row_and_nothing_older_brings_it_back(loads in changes(), room in rooms()) {
        runtime().block_on(async {
            let mut target = Target::new(ScdType::Upsert, Deletes::Hard, room).await;
            for (batch, changes) in loads.iter().enumerate() {
                target.load(batch as i64, changes, None).await;
            }
            let expected: Vec<String> = versions(&loads)
                .into_iter()
                .filter_map(|(key, versions)| {
                    let (sequence, (value, deleted)) = versions.into_iter().next_back()?;
                    (!deleted).then(|| format!("{key} {sequence} {value}"))
                })
                .collect();
            prop_assert_eq!(target.sql("SELECT id, seq, value FROM t ORDER BY id").await, expected);
            Ok(())
        })?;
    }

    #[test]
    fn f055_rows_that_a_pass_did_not_bring_are_deleted_and_no_others(
        before in prop::collection::btree_set(0..20_i64, 0..12),
        pass in prop::collection::btree_set(0..20_i64, 0..20),
        aside in prop::collection::btree_set(0..20_i64, 0..4),
        pushed in prop::collection::btree_set(0..20_i64, 0..3),
        hard in any::<bool>(),
        stale in any::<bool>(),
        room in rooms(),
    ) {
        runtime().block_on(async {
            let deletes = if hard { Deletes::Hard } else { Deletes::Soft };
            let mut target = Target::new(ScdType::Upsert, deletes, room).await;
            let all = |keys: &BTreeSet<i64>, sequence| keys.iter().map(|key| (*key, sequence, 1, false)).collect::<Vec<_>>();
            target.load(0, &all(&before, 5), None).await;
            target.load(1, &all(&pushed, 6), None).await;
            let keys = RecordBatch::try_from_iter([
                ("id", Arc::new(Int64Array::from_iter_values(aside.iter().copied())) as _),
            ]).unwrap();
            // Read before the table's version: the pass brings an older one, and has seen the row all the same.
            let sequence = if stale { 4 } else { 7 };
            let counts = target
                .load(2, &all(&pass, sequence), Some(absence(1, 2, 1.0, vec![Seen::Keys(keys)])))
                .await;
            let gone: BTreeSet<i64> = before
                .iter()
                .filter(|key| !pass.contains(key) && !aside.contains(key) && !pushed.contains(key))
                .copied()
                .collect();
            prop_assert_eq!(counts.absent.deleted, gone.len() as u64);
            prop_assert_eq!(counts.absent.held, 0);
            let live: BTreeSet<i64> = before.iter().chain(&pass).chain(&pushed).filter(|key| !gone.contains(key)).copied().collect();
            let found = target.sql("SELECT id FROM t WHERE NOT _deleted ORDER BY id").await;
            prop_assert_eq!(found, live.iter().map(i64::to_string).collect::<Vec<_>>());
            let marked = target.sql("SELECT id FROM t WHERE _deleted ORDER BY id").await;
            let expected = if hard { Vec::new() } else { gone.iter().map(i64::to_string).collect() };
            prop_assert_eq!(marked, expected);
            // What is older stays gone, what is newer comes back.
            target.load(3, &all(&gone, 3), None).await;
            prop_assert_eq!(target.sql("SELECT id FROM t WHERE NOT _deleted ORDER BY id").await.len(), live.len());
            target.load(4, &all(&gone, 8), None).await;
            let back = target.sql("SELECT id FROM t WHERE NOT _deleted ORDER BY id").await.len();
            prop_assert_eq!(back, live.len() + gone.len());
            Ok(())
        })?;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f143_more_absent_rows_than_allowed_delete_nothing() {
    let mut target = Target::new(ScdType::Upsert, Deletes::Soft, None).await;
    let whole: Vec<Change> = (0..10).map(|key| (key, 1, 1, false)).collect();
    target.load(0, &whole, None).await;
    let counts = target
        .load(1, &whole[..5], Some(absence(1, 1, 0.4, Vec::new())))
        .await;
    let expected = AbsentCounts {
        live: 10,
        deleted: 0,
        held: 5,
    };
    assert_eq!(counts.absent, expected);
    assert_eq!(
        target.sql("SELECT count(*) FROM t WHERE NOT _deleted").await,
        ["10"]
    );
    let counts = target
        .load(2, &whole[..6], Some(absence(2, 2, 0.4, Vec::new())))
        .await;
    assert_eq!((counts.absent.deleted, counts.absent.held), (4, 0));
    // Rows that are deleted already are neither live nor absent.
    let counts = target
        .load(3, &whole[..6], Some(absence(3, 3, 0.4, Vec::new())))
        .await;
    assert_eq!((counts.absent.live, counts.absent.deleted), (6, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_with_a_record_of_unknown_key_deletes_nothing() {
    let mut target = Target::new(ScdType::Upsert, Deletes::Hard, None).await;
    let whole: Vec<Change> = (0..10).map(|key| (key, 1, 1, false)).collect();
    target.load(0, &whole, None).await;
    let counts = target
        .load(1, &whole[..9], Some(absence(1, 1, 1.0, vec![Seen::Keyless])))
        .await;
    assert_eq!((counts.absent.deleted, counts.absent.held), (0, 1));
    assert_eq!(target.sql("SELECT count(*) FROM t").await, ["10"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_replaces_the_whole_table_and_anything_else_leaves_it() {
    let mut target = Target::new(ScdType::Replace, Deletes::Soft, None).await;
    target
        .load(
            0,
            &[(1, 1, 1, false), (1, 1, 1, false)],
            Some(absence(0, 0, 0.1, Vec::new())),
        )
        .await;
    assert_eq!(target.sql("SELECT id, value FROM t").await, ["1 1", "1 1"]);
    let counts = target.load(1, &[(2, 1, 1, false)], None).await;
    assert_eq!((counts.merged, counts.superseded), (0, 1));
    let counts = target
        .load(2, &[(3, 1, 3, false)], Some(absence(2, 2, 0.1, Vec::new())))
        .await;
    assert_eq!((counts.merged, counts.replaced), (1, 2));
    assert_eq!(target.sql("SELECT id, value FROM t").await, ["3 3"]);
}
