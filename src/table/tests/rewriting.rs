use std::collections::BTreeSet;

use arrow::{array::ArrayRef, compute::concat_batches, datatypes::SchemaRef};
use bytes::Bytes;
use deltalake::{
    datafile::writer::{DeltaWriter, WriterConfig},
    table::config::TablePropertiesExt as _,
};
use futures::TryStreamExt as _;
use parquet::{
    basic::Compression,
    file::properties::{EnabledStatistics, WriterProperties},
};

use super::*;
use crate::table::{
    edit::{Edits, Patches},
    file::DataFile,
    latest::Latest,
    merge::{MergeCounts, append},
    tests::writing::{adds, odd_rows, statistics, table_for},
    write::Writer,
};

/// Puts `rows` into `table` by `writer`.
async fn put(table: &mut Table, mut writer: Writer, rows: &[RecordBatch], batch: i64) {
    for rows in rows {
        writer.write(rows).await.unwrap();
    }
    let actions = writer.close().await.unwrap();
    let note = note(batch, &format!("load-{batch}"));
    let committed = table.commit(actions, None, append(), &note).await.unwrap();
    assert!(matches!(committed, Committed::Applied { .. }), "{committed:?}");
}

async fn rows_of(table: &Table, file: &DataFile, schema: &SchemaRef) -> RecordBatch {
    let read = table.read(file, Arc::clone(schema)).await.unwrap();
    concat_batches(schema, &read.try_collect::<Vec<_>>().await.unwrap()).unwrap()
}

/// `rows` with `edits` done to them one by one.
fn edited(rows: &RecordBatch, edits: &Edits, small: &Int32Array, others: &RecordBatch) -> Vec<RecordBatch> {
    let drops: BTreeSet<u64> = edits.drops.iter().copied().collect();
    let replaced: BTreeMap<u64, usize> = edits.replacements.iter().copied().collect();
    let patched: BTreeMap<u64, usize> = edits.patches.iter().copied().collect();
    let at = rows.schema().index_of("small").unwrap();
    let mut kept = Vec::new();
    for row in 0..rows.num_rows() as u64 {
        if drops.contains(&row) {
            continue;
        }
        let mut one = replaced
            .get(&row)
            .map_or_else(|| rows.slice(row as usize, 1), |other| others.slice(*other, 1));
        if let Some(patch) = patched.get(&row) {
            let mut columns = one.columns().to_vec();
            columns[at] = Arc::new(small.slice(*patch, 1));
            one = RecordBatch::try_new(one.schema(), columns).unwrap();
        }
        kept.push(one);
    }
    kept
}

/// Edits of a file with `rows` rows, at most one a row.
fn chosen(edits: &[(u64, u8)], rows: u64, others: usize) -> Edits {
    let mut result = Edits::default();
    let mut seen = BTreeSet::new();
    for (row, kind) in edits {
        let row = row % rows;
        if !seen.insert(row) {
            continue;
        }
        match kind {
            0 => result.drops.push(row),
            1 => result.patches.push((row, row as usize % 5)),
            _ => result.replacements.push((row, row as usize % others)),
        }
    }
    result
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn copied_row_groups_and_edited_ones_are_the_rows_edited_one_by_one(
        group_rows in 3_usize..40,
        count in 1_i64..160,
        edits in proptest::collection::vec((0_u64..1_000, 0_u8..3), 1..6),
        layout in 0_u8..3,
        // Row groups of the file are of the writer's size, and edited column by column, or too small for that.
        of_size in proptest::bool::ANY,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        runtime.block_on(async {
            let partition_by: &[&str] = if layout == 1 { &["flag"] } else { &[] };
            let (mut table, rows) = table_for(&[odd_rows(0, count), odd_rows(1_000, 30)], partition_by).await;
            let schema = rows[0].schema();
            // A file that is too old to have the last columns, or one that has all.
            let same_shape = layout != 2;
            if !same_shape {
                let columns: Vec<usize> = (0..schema.fields().len() - 2).collect();
                let old = rows[0].project(&columns).unwrap();
                let writer = table.writer(old.schema()).unwrap();
                put(&mut table, writer.with_group_rows(group_rows), &[old], 0).await;
            } else {
                let writer = table.writer(Arc::clone(&schema)).unwrap();
                put(&mut table, writer.with_group_rows(group_rows), &rows[..1], 0).await;
            }
            let others = rows[1].clone();
            let latest = Arc::new(Latest::of(vec![others.clone()], &schema, &["id"], &["id"]).unwrap());
            let small = Int32Array::from_iter_values(900..905);
            let values: ArrayRef = Arc::new(small.clone());
            let patches = Patches { columns: vec![("small", values)], latest: Some(Arc::clone(&latest)) };
            let files = table.files().unwrap();
            let old: BTreeSet<&Path> = files.iter().map(|file| &file.path).collect();
            let file = &files[0];
            let before = rows_of(&table, file, &schema).await;
            let edits = chosen(&edits, before.num_rows() as u64, others.num_rows());
            let expected = edited(&before, &edits, &small, &others);
            let touched: BTreeSet<u64> = edits.gone().chain(edits.patches.iter().map(|(row, _)| *row))
                .map(|row| row / group_rows as u64).collect();
            let groups = (before.num_rows() as u64).div_ceil(group_rows as u64);
            let mut writer = table.writer(Arc::clone(&schema)).unwrap();
            if of_size {
                writer = writer.with_group_rows(group_rows);
            }
            let copied = table.copy_edited(file, edits, &patches, &schema, &mut writer).await.unwrap();
            if same_shape {
                assert_eq!(copied, groups - touched.len() as u64);
            } else {
                assert_eq!(copied, 0);
            }
            let adds = adds(writer.close().await.unwrap());
            let told: i64 = adds.iter().map(|add| statistics(add)["numRecords"].as_i64().unwrap()).sum();
            assert_eq!(told, expected.len() as i64);
            let actions = adds.into_iter().map(Action::Add).collect();
            let mut copy = table.clone();
            copy.commit(actions, None, append(), &note(1, "load-1")).await.unwrap();
            let mut found = Vec::new();
            for new in copy.files().unwrap().iter().filter(|new| !old.contains(&new.path)) {
                found.push(rows_of(&copy, new, &schema).await);
            }
            let lines = |rows: &[RecordBatch]| {
                let text = arrow::util::pretty::pretty_format_batches(rows).unwrap().to_string();
                let mut lines: Vec<String> = text.lines().map(|line| line.replace(' ', "")).filter(|line| !line.starts_with('+')).collect();
                lines.sort();
                lines
            };
            assert_eq!(lines(&found), if expected.is_empty() { lines(&[]) } else { lines(&expected) });
        });
    }
}

/// A table with `groups` row groups of `each` rows in one file, all of which span all keys.
async fn shuffled(groups: i64, each: i64) -> Table {
    let mut table = table().await;
    let schema = table.schema().unwrap();
    let spread: Vec<RecordBatch> = (0..groups)
        .map(|group| {
            let events: Vec<Event> = (0..each).map(|at| (at * groups + group, 1, 7)).collect();
            rows(0, &events)
        })
        .collect();
    let writer = table.writer(schema).unwrap().with_filters(&["id".to_owned()]);
    put(
        &mut table,
        writer.with_group_rows(usize::try_from(each).unwrap()),
        &spread,
        0,
    )
    .await;
    table
}

async fn merged(table: &mut Table, batch: i64, events: &[Event]) -> MergeCounts {
    merge(table, batch, events, ScdType::Upsert).await
}

#[tokio::test]
async fn key_filters_rule_out_row_groups_that_bounds_do_not() {
    let mut table = shuffled(8, 500).await;
    let counts = merged(&mut table, 1, &[(2_003, 2, 8)]).await;
    assert_eq!((counts.files_probed, counts.groups), (1, 8));
    assert_eq!((counts.groups_probed, counts.groups_copied), (1, 7));
    assert_eq!(
        (counts.merged, counts.replaced, counts.files_rewritten),
        (1, 1, 1)
    );
    let events = read(&table).await;
    assert_eq!(events.len(), 4_000);
    assert!(events.contains(&(2_003, 2, 8)) && events.contains(&(2_002, 1, 7)));
    // Filters are there still, of copied row groups and of the one written anew.
    let counts = merged(&mut table, 2, &[(2_003, 3, 9)]).await;
    assert_eq!(
        (counts.groups, counts.groups_probed, counts.groups_copied),
        (8, 1, 7)
    );
    // Of many keys the filter is not asked.
    let many: Vec<Event> = (0..2_000)
        .map(|at| (at * 8 + 4_000_000, 1, 1))
        .chain([(0, 5, 5), (3_999, 5, 5)])
        .collect();
    let counts = merged(&mut table, 3, &many).await;
    assert_eq!((counts.merged, counts.replaced), (2_002, 2));
}

#[tokio::test]
async fn a_winner_takes_the_place_of_the_row_that_it_replaces() {
    let mut table = table().await;
    let schema = table.schema().unwrap();
    let events: Vec<Event> = (0..300).map(|id| (id, 1, 7)).collect();
    let writer = table.writer(schema).unwrap().with_group_rows(100);
    put(&mut table, writer, &[rows(0, &events)], 0).await;
    let counts = merged(&mut table, 1, &[(150, 2, 8), (5_000, 2, 8)]).await;
    assert_eq!((counts.groups_probed, counts.groups_copied), (1, 2));
    let mut bounds = Vec::new();
    for file in table.files().unwrap() {
        let opened = table.open(&file).await.unwrap();
        for group in opened.groups() {
            let parquet::file::statistics::Statistics::Int64(ids) = group.column(0).statistics().unwrap()
            else {
                panic!("{group:?}")
            };
            bounds.push((*ids.min_opt().unwrap(), *ids.max_opt().unwrap()));
        }
    }
    bounds.sort_unstable();
    assert_eq!(bounds, [(0, 99), (100, 199), (200, 299), (5_000, 5_000)]);
}

/// The encoded columns of the row groups of the only file of `table`, and its name.
async fn encoded(table: &Table) -> (Path, Vec<Vec<Bytes>>) {
    let files = table.files().unwrap();
    let opened = table.open(&files[0]).await.unwrap();
    let mut groups = Vec::new();
    for group in 0..opened.groups().len() {
        groups.push(opened.bytes_of(group).await.unwrap());
    }
    assert_eq!(files.len(), 1);
    (files[0].path.clone(), groups)
}

#[tokio::test]
async fn columns_with_the_values_of_before_are_copied_as_they_are() {
    let count = 20_000_i64;
    let value = |id: i64| (id % 7) as u32;
    let mut table = table().await;
    let schema = table.schema().unwrap();
    let events: Vec<Event> = (0..3 * count).map(|id| (id, 1, value(id))).collect();
    let writer = table
        .writer(Arc::clone(&schema))
        .unwrap()
        .with_filters(&["id".to_owned()]);
    put(
        &mut table,
        writer.with_group_rows(count as usize),
        &[rows(0, &events)],
        0,
    )
    .await;
    let (before_path, before) = encoded(&table).await;
    // The first row group gets newer rows with the same value, the second others, the third none.
    let changes: Vec<Event> = vec![
        (5, 2, value(5)),
        (count - 1, 2, value(count - 1)),
        (count + 1, 2, 99),
    ];
    let counts = merged(&mut table, 1, &changes).await;
    assert_eq!((counts.replaced, counts.groups_copied), (3, 1));
    let (after_path, after) = encoded(&table).await;
    assert_ne!(before_path, after_path);
    let same = |group: usize| -> Vec<&str> {
        let columns = before[group].iter().zip(&after[group]).zip(schema.fields());
        columns
            .filter(|((before, after), _)| before == after)
            .map(|(_, field)| field.name().as_str())
            .collect()
    };
    assert_eq!(same(0), ["id", "value", "_lf_page"]);
    assert_eq!(same(1), ["id", "_lf_page"]);
    assert_eq!(same(2).len(), schema.fields().len());
    let mut expected = events.clone();
    for change in &changes {
        expected[change.0 as usize] = *change;
    }
    assert_eq!(read(&table).await, expected);
    // Bounds and filters of copied columns find what they found before.
    let counts = merged(&mut table, 2, &[(count + 1, 3, 98)]).await;
    assert_eq!((counts.groups_probed, counts.replaced), (1, 1));
}

#[tokio::test]
async fn a_key_column_without_a_filter_gets_one_although_its_values_stay() {
    let mut table = table().await;
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(20_000));
    let mut events: Vec<Event> = (0..40_000).map(|id| (id, 1, 7)).collect();
    put_foreign(&mut table, properties.build(), &events).await;
    events[5] = (5, 2, 7);
    let counts = merged(&mut table, 1, &events[5..6]).await;
    assert_eq!((counts.replaced, counts.groups_copied), (1, 1));
    let file = &table.files().unwrap()[0];
    let opened = table.open(file).await.unwrap();
    let filters = opened
        .groups()
        .iter()
        .map(|group| group.column(0).bloom_filter_offset().is_some());
    assert_eq!(filters.collect::<Vec<_>>(), [true, false]);
    assert_eq!(read(&table).await, events);
}

/// The rows of each row group of a file of three of 20,000 rows, after `drops` are gone.
async fn left_after(drops: impl Iterator<Item = u64>) -> Vec<i64> {
    let mut table = table().await;
    let schema = table.schema().unwrap();
    let events: Vec<Event> = (0..60_000).map(|id| (id, 1, 7)).collect();
    let writer = table.writer(Arc::clone(&schema)).unwrap();
    put(&mut table, writer.with_group_rows(20_000), &[rows(0, &events)], 0).await;
    let file = table.files().unwrap().remove(0);
    let edits = Edits {
        drops: drops.collect(),
        ..Edits::default()
    };
    let mut writer = table.writer(Arc::clone(&schema)).unwrap();
    let patches = Patches::default();
    let copied = table.copy_edited(&file, edits, &patches, &schema, &mut writer);
    copied.await.unwrap();
    let mut actions = writer.close().await.unwrap();
    actions.push(Table::remove(&file));
    let committed = table
        .commit(actions, None, append(), &note(1, "load-1"))
        .await
        .unwrap();
    assert!(matches!(committed, Committed::Applied { .. }), "{committed:?}");
    let opened = table.open(&table.files().unwrap()[0]).await.unwrap();
    opened.groups().iter().map(|group| group.num_rows()).collect()
}

#[tokio::test]
async fn row_groups_that_lose_most_of_their_rows_go_together() {
    assert_eq!(left_after((0..60_000).filter(|row| row % 100 != 0)).await, [600]);
    assert_eq!(left_after(0..20_003).await, [19_997, 20_000]);
}

/// Files of another writer: other row groups, other compression, no bounds or no indexes of pages, no filters.
async fn put_foreign(table: &mut Table, properties: WriterProperties, events: &[Event]) {
    let config = WriterConfig::new(
        table.schema().unwrap(),
        Vec::new(),
        Some(properties),
        None,
        None,
        table.state().unwrap().table_config().num_indexed_cols(),
        None,
    );
    let mut writer = DeltaWriter::new(table.store(), config);
    let rows = table.shaped(&[rows(0, events)]).unwrap().rows;
    writer.write(&rows[0]).await.unwrap();
    let actions = writer
        .close()
        .await
        .unwrap()
        .into_iter()
        .map(Action::Add)
        .collect();
    table
        .commit(actions, None, append(), &note(0, "load-0"))
        .await
        .unwrap();
}

#[tokio::test]
async fn files_of_other_writers_are_merged_into() {
    let builder = || WriterProperties::builder().set_max_row_group_row_count(Some(50));
    let writers = [
        builder().set_compression(Compression::SNAPPY).build(),
        builder().set_statistics_enabled(EnabledStatistics::None).build(),
        builder()
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true)
            .build(),
        builder()
            .set_writer_version(parquet::file::properties::WriterVersion::PARQUET_2_0)
            .build(),
    ];
    // Without an index of pages nothing is copied.
    for (number, (properties, copied)) in writers.into_iter().zip([6, 6, 0, 6]).enumerate() {
        let mut table = table().await;
        let events: Vec<Event> = (0..400).map(|id| (id, 1, 7)).collect();
        put_foreign(&mut table, properties, &events).await;
        let changes = [(7, 2, 8), (222, 2, 8), (223, 0, 8), (4_000, 2, 8)];
        let counts = merged(&mut table, 1, &changes).await;
        let found = (counts.merged, counts.replaced, counts.groups_copied);
        assert_eq!(found, (3, 2, copied), "{number}");
        let mut expected = events.clone();
        (expected[7], expected[222]) = ((7, 2, 8), (222, 2, 8));
        expected.push((4_000, 2, 8));
        assert_eq!(read(&table).await, expected, "{number}");
        // What was copied is copied again, and read right.
        let counts = merged(&mut table, 2, &[(0, 3, 9)]).await;
        let copied = if copied == 0 { 0 } else { 7 };
        assert_eq!((counts.replaced, counts.groups_copied), (1, copied), "{number}");
        expected[0] = (0, 3, 9);
        assert_eq!(read(&table).await, expected, "{number}");
    }
}

#[tokio::test]
async fn a_file_of_another_shape_is_written_anew_as_a_whole() {
    let mut table = table().await;
    let schema = table.schema().unwrap();
    let events: Vec<Event> = (0..300).map(|id| (id, 1, 7)).collect();
    let writer = table.writer(schema).unwrap().with_group_rows(100);
    put(&mut table, writer, &[rows(0, &events)], 0).await;
    let wide = rows(1, &[(1, 2, 3)]);
    let mut fields: Vec<_> = wide.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("more", DataType::Utf8, true)));
    let mut columns = wide.columns().to_vec();
    columns.push(Arc::new(StringArray::from(vec!["x"])));
    let wide = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    let planned = table
        .plan_merge(vec![wide], &options(ScdType::Upsert), None)
        .await
        .unwrap();
    assert_eq!(
        (planned.counts.files_rewritten, planned.counts.groups_copied),
        (1, 0)
    );
    table.commit_merge(planned, &note(1, "load-1")).await.unwrap();
    assert_eq!(read(&table).await.len(), 300);
    let counts = merged(&mut table, 2, &[(299, 5, 5)]).await;
    assert_eq!(counts.files_rewritten, 1);
}
