use std::collections::BTreeSet;

use arrow::array::BooleanArray;

use super::*;
use crate::{
    clock::Clock,
    config::WriteMode,
    table::maintain::{CompactOptions, Marked, Settled},
};

pub(in crate::table) fn marking(scd_type: ScdType) -> MergeOptions {
    MergeOptions {
        write_mode: WriteMode::MergeOnRead,
        ..options(scd_type)
    }
}

/// Plans the events of `batch`, and the deletions of `gone` behind them.
async fn plan(table: &Table, batch: i64, events: &[Event], options: &MergeOptions) -> merge::Planned {
    let planned = table.plan_merge(vec![rows(batch, events)], options, None);
    planned.await.unwrap()
}

async fn apply(
    table: &mut Table,
    batch: i64,
    events: &[Event],
    options: &MergeOptions,
) -> merge::MergeCounts {
    let planned = plan(table, batch, events, options).await;
    let counts = planned.counts;
    let note = note(batch, &format!("load-{batch}"));
    let committed = table.commit_merge(planned, &note).await.unwrap();
    assert!(matches!(committed, Committed::Applied { .. }), "{committed:?}");
    counts
}

async fn sql(table: &Table, sql: &str) -> String {
    let session = SessionContext::new();
    session
        .register_table("t", table.provider(&session).await.unwrap())
        .unwrap();
    let batches = session.sql(sql).await.unwrap().collect().await.unwrap();
    arrow::util::pretty::pretty_format_batches(&batches)
        .unwrap()
        .to_string()
}

async fn again(table: &Table) -> Table {
    let mut again = table.clone();
    again.delta = deltalake::DeltaTable::new(table.delta.log_store());
    again.refresh().await.unwrap();
    again
}

async fn objects(table: &Table) -> BTreeSet<String> {
    use futures::TryStreamExt as _;
    let listed = table.store().list(None);
    let paths = listed.map_ok(|object| object.location.to_string());
    let paths: BTreeSet<String> = paths.try_collect().await.unwrap();
    paths
        .into_iter()
        .filter(|path| !path.starts_with("_delta_log"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_row_is_marked_and_its_file_stays() {
    let mut table = table().await;
    let first: Vec<Event> = (0..10).map(|id| (id, 1, 7)).collect();
    apply(&mut table, 0, &first, &marking(ScdType::Upsert)).await;
    assert_eq!(
        table.state().unwrap().protocol().min_reader_version(),
        1,
        "not before it is needed"
    );
    let before = table.files().unwrap()[0].path.clone();

    let counts = apply(
        &mut table,
        1,
        &[(3, 2, 9), (0, 0, 1), (9, 2, 9), (50, 1, 1)],
        &marking(ScdType::Upsert),
    )
    .await;
    assert_eq!((counts.merged, counts.superseded, counts.replaced), (3, 1, 2));
    assert_eq!((counts.files_rewritten, counts.files_marked), (0, 1));
    for table in [&table, &again(&table).await] {
        let files = table.files().unwrap();
        let old = files.iter().find(|file| file.path == before).unwrap();
        assert_eq!((old.records(), old.deleted(), old.rows()), (Some(10), 2, Some(8)));
        assert!(
            old.stats.as_ref().unwrap().contains("\"tightBounds\":false"),
            "{:?}",
            old.stats
        );
        assert_eq!(files.len(), 2);
        let expected: Vec<Event> = [
            (0, 1, 7),
            (1, 1, 7),
            (2, 1, 7),
            (3, 2, 9),
            (4, 1, 7),
            (5, 1, 7),
            (6, 1, 7),
            (7, 1, 7),
            (8, 1, 7),
            (9, 2, 9),
            (50, 1, 1),
        ]
        .to_vec();
        assert_eq!(read(table).await, expected);
        let protocol = table.state().unwrap().protocol();
        assert_eq!(
            (protocol.min_reader_version(), protocol.min_writer_version()),
            (3, 7)
        );
        assert_eq!(protocol.reader_features().unwrap().len(), 1);
        assert_eq!(protocol.writer_features().unwrap().len(), 3);
        let properties = table.state().unwrap().metadata().configuration();
        assert_eq!(properties["delta.enableDeletionVectors"], "true");
    }
    // The row that was moved is found where it is now, and the marks of one load join those of the one before.
    let counts = apply(
        &mut table,
        2,
        &[(3, 3, 11), (4, 3, 11)],
        &marking(ScdType::Upsert),
    )
    .await;
    assert_eq!((counts.replaced, counts.files_marked), (2, 2));
    let old = table
        .files()
        .unwrap()
        .into_iter()
        .find(|file| file.path == before)
        .unwrap();
    assert_eq!(old.deleted(), 3);
    assert!(read(&table).await.contains(&(3, 3, 11)));
    assert_eq!(read(&table).await.len(), 11);
    // A version of before has the rows that it had.
    let mut before = again(&table).await;
    before.delta.load_version(1).await.unwrap();
    assert_eq!(read(&before).await, first);
    before.delta.load_version(2).await.unwrap();
    assert!(read(&before).await.contains(&(3, 2, 9)));
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_sees_no_deleted_row_whatever_it_asks() {
    let mut table = table().await;
    let first: Vec<Event> = (0..2_000).map(|id| (id, 1, 7)).collect();
    apply(&mut table, 0, &first, &marking(ScdType::Upsert)).await;
    let hard = MergeOptions {
        deletes: Deletes::Hard,
        ..marking(ScdType::Upsert)
    };
    // Both ends of the bounds go, and some rows between them.
    let gone: Vec<i64> = (0..2_000)
        .filter(|id| *id < 3 || *id % 7 == 0 || *id > 1_990)
        .collect();
    let planned = table
        .plan_merge(vec![deletions(1, &gone)], &hard, None)
        .await
        .unwrap();
    assert_eq!(planned.counts.replaced, gone.len() as u64);
    table.commit_merge(planned, &note(1, "load-1")).await.unwrap();
    let left: Vec<i64> = (0..2_000).filter(|id| !gone.contains(id)).collect();
    for table in [&table, &again(&table).await] {
        let text = sql(
            table,
            "SELECT count(*) AS n, min(id) AS low, max(id) AS high, sum(id) AS sum FROM t",
        )
        .await;
        let numbers: Vec<i64> = text
            .lines()
            .nth(3)
            .unwrap()
            .split('|')
            .filter_map(|cell| cell.trim().parse().ok())
            .collect();
        assert_eq!(
            numbers,
            [
                left.len() as i64,
                left[0],
                *left.last().unwrap(),
                left.iter().sum()
            ],
            "{text}"
        );
        for (condition, expected) in [
            ("id = 7", 0),
            ("id = 8", 1),
            ("id < 20", left.iter().filter(|id| **id < 20).count()),
            ("id > 1980", left.iter().filter(|id| **id > 1_980).count()),
        ] {
            let text = sql(table, &format!("SELECT count(*) AS n FROM t WHERE {condition}")).await;
            assert_eq!(
                text.lines().nth(3).unwrap().trim_matches(['|', ' ']),
                expected.to_string(),
                "{condition}"
            );
        }
        let text = sql(table, "SELECT id FROM t ORDER BY id LIMIT 2").await;
        assert!(
            text.contains(&format!("| {}", left[0])) && text.contains(&format!("| {}", left[1])),
            "{text}"
        );
        assert_eq!(read(table).await.len(), left.len());
    }
}

/// Rows that say of their keys that they are gone.
pub(in crate::table) fn deletions(batch: i64, ids: &[i64]) -> RecordBatch {
    let events: Vec<Event> = ids.iter().map(|id| (*id, 1_000, 0)).collect();
    let rows = rows(batch, &events);
    let mut fields = rows.schema().fields().to_vec();
    fields.push(Arc::new(Field::new("_deleted", DataType::Boolean, true)));
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(BooleanArray::from(vec![true; ids.len()])));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_live_rows_leaves_the_table() {
    let mut table = table().await;
    apply(&mut table, 0, &[(1, 1, 1), (2, 1, 1)], &marking(ScdType::Upsert)).await;
    apply(&mut table, 1, &[(1, 2, 2)], &marking(ScdType::Upsert)).await;
    let counts = apply(&mut table, 2, &[(1, 3, 3), (2, 3, 3)], &marking(ScdType::Upsert)).await;
    assert_eq!((counts.files_marked, table.files().unwrap().len()), (0, 1));
    assert_eq!(read(&table).await, [(1, 3, 3), (2, 3, 3)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_made_against_other_marks_conflicts() {
    let mut first = table().await;
    apply(
        &mut first,
        0,
        &[(1, 1, 1), (2, 1, 1), (3, 1, 1)],
        &marking(ScdType::Upsert),
    )
    .await;
    let mut second = first.clone();
    for (batch, key, options) in [(1, 1, marking(ScdType::Upsert)), (2, 3, options(ScdType::Upsert))] {
        let planned = plan(&second, batch, &[(2, 5, 5)], &options).await;
        apply(&mut first, batch, &[(key, 2, 9)], &marking(ScdType::Upsert)).await;
        // It knows the newest version, in which the file it removes is there, with other rows deleted.
        second.refresh().await.unwrap();
        let paths: Vec<_> = second
            .files()
            .unwrap()
            .into_iter()
            .map(|file| file.path)
            .collect();
        let removed = planned.actions.iter().find_map(|action| match action {
            Action::Remove(file) => Some(Path::from(file.path.as_str())),
            _ => None,
        });
        assert!(paths.contains(&removed.unwrap()));
        let late = CommitNote {
            batch: BatchNumber::new(batch + 10).unwrap(),
            ..note(batch, "late")
        };
        assert_eq!(
            second.commit_merge(planned, &late).await.unwrap(),
            Committed::Conflicted
        );
    }
    assert_eq!(read(&second).await, [(1, 2, 9), (2, 1, 1), (3, 2, 9)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_plan_leaves_the_files_of_the_table_and_nothing_else() {
    let mut table = table().await;
    let first: Vec<Event> = (0..5_000).map(|id| (id, 1, 7)).collect();
    apply(&mut table, 0, &first, &marking(ScdType::Upsert)).await;
    let before = objects(&table).await;
    let changed: Vec<Event> = (0..5_000).step_by(3).map(|id| (id, 2, 9)).collect();
    let planned = plan(&table, 1, &changed, &marking(ScdType::Upsert)).await;
    assert!(
        objects(&table)
            .await
            .iter()
            .any(|path| path.starts_with("deletion_vector_"))
    );
    table.abandon(planned).await.unwrap();
    assert_eq!(objects(&table).await, before);
    assert_eq!(read(&table).await, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_on_write_takes_marks_up() {
    let mut table = table().await;
    let first: Vec<Event> = (0..100).map(|id| (id, 1, 7)).collect();
    apply(&mut table, 0, &first, &marking(ScdType::Upsert)).await;
    apply(&mut table, 1, &[(3, 2, 9)], &marking(ScdType::Upsert)).await;
    let counts = apply(&mut table, 2, &[(4, 2, 9)], &options(ScdType::Upsert)).await;
    assert_eq!(
        (counts.files_rewritten, counts.files_marked, counts.groups_copied),
        (1, 0, 0)
    );
    assert_eq!(
        table
            .files()
            .unwrap()
            .iter()
            .map(file::DataFile::deleted)
            .sum::<u64>(),
        0
    );
    let rows = read(&table).await;
    assert_eq!(rows.len(), 100);
    assert_eq!((rows[3], rows[4]), ((3, 2, 9), (4, 2, 9)));
}

fn compaction(marked: Marked) -> CompactOptions {
    CompactOptions {
        target_bytes: 1 << 20,
        before: Clock::system().now() + std::time::Duration::from_secs(60),
        settled: Settled::All,
        marked,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_takes_marks_up_and_a_load_that_marked_meanwhile_stays() {
    let mut first = table().await;
    let events: Vec<Event> = (0..100).map(|id| (id, 1, 7)).collect();
    apply(&mut first, 0, &events, &marking(ScdType::Upsert)).await;
    apply(&mut first, 1, &[(3, 2, 9)], &marking(ScdType::Upsert)).await;
    let before = read(&first).await;
    let mut second = first.clone();
    let done = second.compact(&compaction(Marked::Much)).await.unwrap();
    assert_eq!((done.files, done.files_after), (2, 1));
    assert_eq!(read(&second).await, before);
    assert_eq!(second.files().unwrap()[0].records(), Some(100));
    // The other one still knows the marked file; its plan is one of another version.
    let planned = plan(&first, 2, &[(3, 3, 3)], &marking(ScdType::Upsert)).await;
    assert_eq!(
        first.commit_merge(planned, &note(2, "load-2")).await.unwrap(),
        Committed::Conflicted
    );
    apply(&mut first, 2, &[(3, 3, 3)], &marking(ScdType::Upsert)).await;
    assert_eq!(
        second.compact(&compaction(Marked::Much)).await.unwrap().overtaken,
        0
    );
    second.refresh().await.unwrap();
    assert_eq!(read(&second).await.len(), 100);
    assert!(read(&second).await.contains(&(3, 3, 3)));
}

/// A load of the model: what it brings, and what happens before it.
#[derive(Clone, Debug)]
struct Step {
    events: Vec<(i64, i64, u32, bool)>,
    before: Before,
}

#[derive(Clone, Copy, Debug)]
enum Before {
    Nothing,
    /// The files are put together.
    Compaction(Marked),
    /// Another writer commits what a plan was not made for.
    Conflict,
    /// The table is opened anew from a checkpoint.
    Checkpoint,
    /// The load itself writes files anew.
    CopyOnWrite,
}

fn step() -> impl Strategy<Value = Step> {
    let event = (0..90_i64, 0..6_i64, any::<u32>(), prop::bool::weighted(0.2));
    let before = prop_oneof![
        4 => Just(Before::Nothing),
        1 => Just(Before::Compaction(Marked::Much)),
        1 => Just(Before::Compaction(Marked::All)),
        2 => Just(Before::Conflict),
        1 => Just(Before::Checkpoint),
        1 => Just(Before::CopyOnWrite),
    ];
    (prop::collection::vec(event, 0..25), before).prop_map(|(events, before)| Step { events, before })
}

/// The shape of the rows of the model's tables.
fn model_schema(scd_type: ScdType) -> SchemaRef {
    let mut fields = schema().fields().to_vec();
    fields.push(Arc::new(Field::new("_deleted", DataType::Boolean, true)));
    let schema = Schema::new(fields);
    match scd_type {
        ScdType::History => history::schema(&schema, "seq").unwrap(),
        _ => Arc::new(schema),
    }
}

fn model_rows(batch: i64, events: &[(i64, i64, u32, bool)], schema: &SchemaRef) -> RecordBatch {
    let plain: Vec<Event> = events.iter().map(|event| (event.0, event.1, event.2)).collect();
    let mut columns = rows(batch, &plain).columns().to_vec();
    // As the name of a folder it has to be escaped.
    let texts = events.iter().map(|event| format!("{} é/%20", event.2));
    columns[2] = Arc::new(StringArray::from_iter_values(texts));
    columns.push(Arc::new(BooleanArray::from_iter(
        events.iter().map(|event| Some(event.3)),
    )));
    let rest = schema.fields().iter().skip(columns.len());
    let nulls: Vec<_> = rest
        .map(|field| arrow::array::new_null_array(field.data_type(), events.len()))
        .collect();
    columns.extend(nulls);
    RecordBatch::try_new(Arc::clone(schema), columns).unwrap()
}

/// A table with a file of several row groups.
async fn model_table(schema: &SchemaRef, partition_by: &[String]) -> Table {
    let tables = Tables::new(Arc::new(InMemory::new())).unwrap();
    let path = Path::from("tables/shop/orders");
    let mut table = tables.open_or_create(&path, schema, partition_by).await.unwrap();
    let first: Vec<_> = (0..80).map(|id| (id, 2, 7, false)).collect();
    let mut rows = model_rows(0, &first, schema);
    if schema.column_with_name(history::CURRENT).is_some() {
        let sequences = Arc::clone(&rows["seq"]);
        rows = latest::with_column(&rows, history::VALID_FROM, sequences).unwrap();
        let current = Arc::new(BooleanArray::from(vec![true; 80]));
        rows = latest::with_column(&rows, history::CURRENT, current).unwrap();
    }
    let mut writer = table.writer(Arc::clone(schema)).unwrap().with_group_rows(13);
    writer.write(&rows).await.unwrap();
    let actions = writer.close().await.unwrap();
    table
        .commit(actions, None, merge::append(), &note(0, "load-0"))
        .await
        .unwrap();
    table
}

/// Every row, read by ourselves and by DataFusion.
async fn model_read(table: &Table) -> String {
    use futures::TryStreamExt as _;
    let schema = table.schema().unwrap();
    let session = SessionContext::new();
    let mut own = Vec::new();
    for file in table.files().unwrap() {
        let batches = table.read(&file, Arc::clone(&schema)).await.unwrap();
        let batches: Vec<RecordBatch> = batches.try_collect().await.unwrap();
        assert_eq!(
            file.rows(),
            Some(batches.iter().map(|batch| batch.num_rows() as u64).sum())
        );
        own.extend(batches);
    }
    let own = datafusion::catalog::memory::MemTable::try_new(schema, vec![own]).unwrap();
    session.register_table("own", Arc::new(own)).unwrap();
    session
        .register_table("t", table.provider(&session).await.unwrap())
        .unwrap();
    let mut texts = Vec::new();
    for name in ["own", "t"] {
        let sql = format!("SELECT * FROM {name} ORDER BY id, seq, _lf_batch, _lf_record");
        let batches = session.sql(&sql).await.unwrap().collect().await.unwrap();
        texts.push(
            arrow::util::pretty::pretty_format_batches(&batches)
                .unwrap()
                .to_string(),
        );
    }
    assert_eq!(texts[0], texts[1]);
    texts.remove(0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn marked_tables_have_the_rows_of_rewritten_ones(
        steps in prop::collection::vec(step(), 1..7),
        (scd_type, deletes) in prop::sample::select(vec![
            (ScdType::Upsert, Deletes::Soft),
            (ScdType::Upsert, Deletes::Hard),
            (ScdType::History, Deletes::Soft),
        ]),
        partitioned in any::<bool>(),
    ) {
        runtime().block_on(async {
            let schema = model_schema(scd_type);
            let partition_by = if partitioned { vec!["value".to_owned()] } else { Vec::new() };
            let (mut marked, mut rewritten) =
                (model_table(&schema, &partition_by).await, model_table(&schema, &partition_by).await);
            let by = |write_mode| MergeOptions { write_mode, deletes, ..options(scd_type) };
            for (number, step) in steps.iter().enumerate() {
                let batch = number as i64 + 1;
                // Few partitions.
                let events: Vec<_> = step.events.iter().map(|(id, seq, value, gone)| (*id, *seq, value % 3, *gone)).collect();
                let rows = vec![model_rows(batch, &events, &schema)];
                let mode = match step.before {
                    Before::CopyOnWrite => WriteMode::CopyOnWrite,
                    _ => WriteMode::MergeOnRead,
                };
                let stale = match step.before {
                    Before::Conflict => Some(marked.plan_merge(rows.clone(), &by(mode), None).await.unwrap()),
                    Before::Compaction(kind) => {
                        marked.compact(&compaction(kind)).await.unwrap();
                        if kind == Marked::All {
                            prop_assert!(marked.files().unwrap().iter().all(|file| file.vector.is_none()));
                        }
                        None
                    }
                    Before::Checkpoint => {
                        deltalake::checkpoints::create_checkpoint(&marked.delta, None).await.unwrap();
                        marked = again(&marked).await;
                        None
                    }
                    Before::Nothing | Before::CopyOnWrite => None,
                };
                if let Some(stale) = stale {
                    let mut other = marked.clone();
                    other.fence().await.unwrap();
                    let outcome = marked.commit_merge(stale, &note(batch, "stale")).await.unwrap();
                    prop_assert_eq!(outcome, Committed::Conflicted);
                }
                let expected = rewritten.plan_merge(rows.clone(), &by(WriteMode::CopyOnWrite), None).await.unwrap();
                let planned = marked.plan_merge(rows, &by(mode), None).await.unwrap();
                let of = |counts: merge::MergeCounts| (counts.merged, counts.superseded, counts.replaced, counts.changed, counts.present);
                prop_assert_eq!(of(planned.counts), of(expected.counts));
                for (table, planned) in [(&mut rewritten, expected), (&mut marked, planned)] {
                    let committed = table.commit_merge(planned, &note(batch, &format!("load-{batch}"))).await.unwrap();
                    prop_assert!(matches!(committed, Committed::Applied { .. }), "{:?}", committed);
                }
                prop_assert_eq!(model_read(&marked).await, model_read(&rewritten).await);
            }
            prop_assert_eq!(model_read(&again(&marked).await).await, model_read(&rewritten).await);
            Ok(())
        })?;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_in_statistics_stay_as_they_are_written() {
    let stats = r#"{"numRecords":3,"minValues":{"n":0.10000000000000000000000000000000001},"maxValues":{"n":1e400},"tightBounds":true}"#;
    assert_eq!(
        file::loose(stats).unwrap(),
        r#"{"maxValues":{"n":1e400},"minValues":{"n":0.10000000000000000000000000000000001},"numRecords":3,"tightBounds":false}"#
    );
}
