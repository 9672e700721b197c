//! Merging into files of several row groups, as other readers see it.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, StructArray, TimestampMicrosecondArray,
    },
    datatypes::{DataType, Field, Schema},
};
use landfall::{
    config::{Deletes, ScdType, StreamName, WriteMode},
    raw::BatchNumber,
    table::{
        AppId, CommitNote, Committed, RulesNote, Table, Tables,
        merge::{MergeCounts, MergeOptions},
    },
};
use object_store::{local::LocalFileSystem, path::Path};
use serde_json::Value;

use crate::support::python::{READERS, read_table};

/// Rows of the table: two row groups.
const ROWS: i64 = 70_000;

fn rows(batch: i64, ids: impl Iterator<Item = i64>, sequence: i64) -> RecordBatch {
    let ids: Vec<i64> = ids.collect();
    let count = ids.len();
    let texts: ArrayRef = Arc::new(StringArray::from_iter(
        ids.iter()
            .map(|id| (id % 9 != 0).then(|| format!("text {id} {sequence}"))),
    ));
    let member = Arc::new(Field::new("text", DataType::Utf8, true));
    let moments = ids.iter().map(|id| 1_700_000_000_000_000 + id * 1_000_003);
    let columns: [(&str, ArrayRef); 8] = [
        (
            "id",
            Arc::new(StringArray::from_iter_values(
                ids.iter().map(|id| format!("{:07}", id * 7_919 % 1_000_003)),
            )),
        ),
        ("number", Arc::new(Int64Array::from(ids.clone()))),
        ("seq", Arc::new(Int64Array::from_value(sequence, count))),
        ("object", Arc::new(StructArray::from(vec![(member, texts)]))),
        (
            "at",
            Arc::new(TimestampMicrosecondArray::from_iter_values(moments).with_timezone("UTC")),
        ),
        ("_lf_batch", Arc::new(Int64Array::from_value(batch, count))),
        ("_lf_page", Arc::new(Int32Array::from_value(0, count))),
        (
            "_lf_record",
            Arc::new(Int32Array::from_iter_values(0..i32::try_from(count).unwrap())),
        ),
    ];
    let fields = columns
        .iter()
        .map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
    let schema = Schema::new(fields.collect::<Vec<_>>());
    RecordBatch::try_new(
        Arc::new(schema),
        columns.into_iter().map(|(_, column)| column).collect(),
    )
    .unwrap()
}

async fn merge(table: &mut Table, batch: i64, rows: RecordBatch) -> MergeCounts {
    let options = MergeOptions {
        keys: vec!["id".to_owned()],
        sequence_by: vec!["seq".to_owned()],
        scd_type: ScdType::Upsert,
        deletes: Deletes::Soft,
        write_mode: WriteMode::CopyOnWrite,
        tombstones: None,
    };
    let planned = table.plan_merge(vec![rows], &options, None).await.unwrap();
    let counts = planned.counts;
    let note = CommitNote {
        app: AppId::new(&StreamName::parse("shop.orders").unwrap(), 0),
        from: BatchNumber::new(batch).unwrap(),
        batch: BatchNumber::new(batch).unwrap(),
        load_id: format!("load-{batch}"),
        rules: RulesNote::default(),
        traces: Vec::new(),
    };
    let committed = table.commit_merge(planned, &note).await.unwrap();
    assert!(matches!(committed, Committed::Applied { .. }), "{committed:?}");
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn other_readers_read_copied_row_groups_and_key_filters() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap());
    let first = rows(0, 0..ROWS, 1);
    let tables = Tables::new(store).unwrap();
    let mut table = tables
        .open_or_create(&Path::from("orders"), &first.schema(), &[])
        .await
        .unwrap();
    merge(&mut table, 0, first).await;
    // The smallest key and others near it: all in the first of the two row groups.
    let changed: Vec<i64> = (0..ROWS).filter(|id| id * 7_919 % 1_000_003 < 100).collect();
    let counts = merge(&mut table, 1, rows(1, changed.iter().copied().chain([ROWS]), 2)).await;
    assert_eq!(counts.replaced, changed.len() as u64);
    assert_eq!(
        (counts.groups, counts.groups_probed, counts.groups_copied),
        (2, 1, 1)
    );
    let columns = ["number", "seq", "object", "at"];
    let mut seen: Vec<Vec<String>> = Vec::new();
    for reader in READERS {
        let lines = read_table(reader, &dir.path().join("orders"), &columns);
        assert_eq!(lines.len() as i64, ROWS + 1, "{reader:?}");
        for line in &lines {
            let row: Value = serde_json::from_str(line).unwrap();
            let number = row["number"].as_i64().unwrap();
            let sequence = if number == ROWS || changed.contains(&number) {
                2
            } else {
                1
            };
            assert_eq!(row["seq"], sequence, "{reader:?}");
            let text = (number % 9 != 0).then(|| format!("text {number} {sequence}"));
            assert_eq!(row["object"]["text"].as_str(), text.as_deref(), "{reader:?}");
        }
        seen.push(lines);
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(counted(&table).await, (ROWS + 1, changed.len() as i64 + 1));
}

/// Rows, and those of sequence 2, by DataFusion, which prunes row groups and pages by bounds and filters.
async fn counted(table: &Table) -> (i64, i64) {
    use arrow::{array::AsArray as _, datatypes::Int64Type};
    let session = datafusion::prelude::SessionContext::new();
    session
        .register_table("t", table.provider(&session).await.unwrap())
        .unwrap();
    let sql = "SELECT (SELECT count(*) FROM t) AS every, (SELECT count(*) FROM t WHERE seq = 2) AS changed";
    let batches = session.sql(sql).await.unwrap().collect().await.unwrap();
    let key = "SELECT number FROM t WHERE id = '0007919'";
    let found = session.sql(key).await.unwrap().collect().await.unwrap();
    let numbers: Vec<i64> = found
        .iter()
        .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec())
        .collect();
    assert_eq!(numbers, [1]);
    let at = |column: usize| batches[0].column(column).as_primitive::<Int64Type>().value(0);
    (at(0), at(1))
}
