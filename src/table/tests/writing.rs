use arrow::{
    array::{
        ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
        ListArray, StructArray, TimestampMicrosecondArray,
    },
    buffer::NullBuffer,
    datatypes::Int32Type,
};
use deltalake::{
    datafile::writer::{DeltaWriter, WriterConfig},
    kernel::Add,
    table::config::TablePropertiesExt as _,
};
use object_store::ObjectStoreExt as _;
use parquet::{
    arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder},
    basic::Encoding,
};
use serde_json::Value;

use super::*;
use crate::table::write::Writer;

/// Rows with a column of every type and odd values, `first` being their first number.
pub(super) fn odd_rows(first: i64, count: i64) -> RecordBatch {
    let numbers = || first..first + count;
    let sparse = |number: i64| (number % 7 != 3).then_some(number);
    let texts = StringArray::from_iter(numbers().map(|number| {
        sparse(number).map(|number| match number % 5 {
            0 => String::new(),
            1 => format!("ä{}", "ß".repeat(70)),
            2 => format!("\u{10FFFF}{number}"),
            _ => format!("text \"{number}\"\n"),
        })
    }));
    let moments =
        TimestampMicrosecondArray::from_iter(numbers().map(|number| sparse(number * 1_234_567 - 99_999_999)));
    let decimals = |precision, scale| {
        let values = numbers().map(|number| sparse(number).map(|number| i128::from(number - 50) * 1_001));
        Decimal128Array::from_iter(values)
            .with_precision_and_scale(precision, scale)
            .unwrap()
    };
    let members: Vec<(Arc<Field>, ArrayRef)> = vec![
        (
            Arc::new(Field::new("text", DataType::Utf8, true)),
            Arc::new(texts.clone()),
        ),
        (
            Arc::new(Field::new("day", DataType::Date32, true)),
            Arc::new(Date32Array::from_iter(
                numbers().map(|number| i32::try_from(number * 100 - 9_999).ok()),
            )),
        ),
    ];
    let nulls: NullBuffer = numbers().map(|number| number % 4 != 1).collect::<Vec<_>>().into();
    let (fields, arrays): (Vec<_>, Vec<_>) = members.into_iter().unzip();
    let lists = numbers().map(|number| {
        sparse(number).map(|number| (0..number % 3).map(|at| Some(at as i32)).collect::<Vec<_>>())
    });
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from_iter_values(numbers()))),
        (
            "small",
            Arc::new(Int32Array::from_iter(
                numbers().map(|number| sparse(number).map(|number| number as i32 - 40)),
            )),
        ),
        ("text", Arc::new(texts)),
        (
            "flag",
            Arc::new(BooleanArray::from_iter(
                numbers().map(|number| sparse(number).map(|number| number % 2 == 0)),
            )),
        ),
        (
            "double",
            Arc::new(Float64Array::from_iter(numbers().map(|number| {
                match number % 11 {
                    0 => Some(f64::NAN),
                    1 => Some(-0.0),
                    other => Some(other as f64 / 3.0),
                }
            }))),
        ),
        (
            "float",
            Arc::new(Float32Array::from_iter(
                numbers().map(|number| Some(number as f32 / 10.0)),
            )),
        ),
        ("utc", Arc::new(moments.clone().with_timezone("UTC"))),
        ("naive", Arc::new(moments)),
        ("short_decimal", Arc::new(decimals(9, 2))),
        ("long_decimal", Arc::new(decimals(30, 5))),
        ("whole_decimal", Arc::new(decimals(12, 0))),
        (
            "bytes",
            Arc::new(BinaryArray::from_iter_values(numbers().map(i64::to_be_bytes))),
        ),
        (
            "none",
            Arc::new(StringArray::from_iter((0..count).map(|_| None::<&str>))),
        ),
        (
            "object",
            Arc::new(StructArray::new(fields.into(), arrays, Some(nulls))),
        ),
        (
            "list",
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)),
        ),
    ];
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, column)| Field::new(*name, column.data_type().clone(), true))
        .collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    // In the shape that a table reads back: Delta names the elements of lists itself.
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// A table with the columns of `rows`, and `rows` in its exact shape.
pub(super) async fn table_for(rows: &[RecordBatch], partition_by: &[&str]) -> (Table, Vec<RecordBatch>) {
    let tables = Tables::new(Arc::new(InMemory::new())).unwrap();
    let partition_by: Vec<String> = partition_by.iter().map(|name| (*name).to_owned()).collect();
    let table = tables
        .open_or_create(&Path::from("tables/shop/odd"), &rows[0].schema(), &partition_by)
        .await
        .unwrap();
    let shaped = table.shaped(rows).unwrap();
    (table, shaped.rows)
}

pub(super) fn adds(actions: Vec<Action>) -> Vec<Add> {
    let adds = actions.into_iter().map(|action| match action {
        Action::Add(add) => add,
        other => panic!("{other:?}"),
    });
    adds.collect()
}

pub(super) async fn written(mut writer: Writer, rows: &[RecordBatch]) -> Vec<Add> {
    for rows in rows {
        writer.write(rows).await.unwrap();
    }
    adds(writer.close().await.unwrap())
}

async fn written_by_delta_rs(table: &Table, rows: &[RecordBatch]) -> Vec<Add> {
    let config = WriterConfig::new(
        rows[0].schema(),
        table.partition_by().unwrap(),
        None,
        None,
        None,
        table.state().unwrap().table_config().num_indexed_cols(),
        None,
    );
    let mut writer = DeltaWriter::new(table.store(), config);
    for rows in rows {
        writer.write(rows).await.unwrap();
    }
    writer.close().await.unwrap()
}

pub(super) fn statistics(add: &Add) -> Value {
    serde_json::from_str(add.stats.as_deref().unwrap()).unwrap()
}

/// Folder, partition values and statistics of each file.
fn told(adds: &[Add]) -> BTreeMap<String, (BTreeMap<String, Option<String>>, Value)> {
    let told = adds.iter().map(|add| {
        let folder = add
            .path
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder)
            .to_owned();
        let mut statistics = statistics(add);
        // What differs: delta-rs does not count the nulls of binary columns, and has objects without bounds in them.
        for bounds in ["minValues", "maxValues"] {
            let bounds = statistics[bounds].as_object_mut().unwrap();
            bounds.retain(|_, bound| bound.as_object().is_none_or(|members| !members.is_empty()));
        }
        statistics["nullCount"].as_object_mut().unwrap().remove("bytes");
        (
            folder,
            (add.partition_values.clone().into_iter().collect(), statistics),
        )
    });
    told.collect()
}

pub(super) async fn file_of(table: &Table, add: &Add) -> bytes::Bytes {
    let path = Path::parse(&add.path).unwrap();
    let bytes = table.store().get(&path).await.unwrap().bytes().await.unwrap();
    assert_eq!(bytes.len(), usize::try_from(add.size).unwrap());
    bytes
}

#[tokio::test]
async fn the_log_says_of_a_file_what_delta_rs_says() {
    let (table, rows) = table_for(&[odd_rows(0, 300), odd_rows(300, 50)], &[]).await;
    let ours = written(table.writer(rows[0].schema()).unwrap(), &rows).await;
    assert_eq!(told(&ours), told(&written_by_delta_rs(&table, &rows).await));
}

#[tokio::test]
async fn partitions_are_named_as_delta_rs_names_them() {
    for column in [
        "text",
        "flag",
        "small",
        "utc",
        "naive",
        "short_decimal",
        "whole_decimal",
    ] {
        let (table, rows) = table_for(&[odd_rows(0, 60), odd_rows(30, 60)], &[column]).await;
        let ours = written(table.writer(rows[0].schema()).unwrap(), &rows).await;
        let theirs = written_by_delta_rs(&table, &rows).await;
        let (of_ours, of_theirs) = (told(&ours), told(&theirs));
        assert!(of_ours.keys().eq(of_theirs.keys()), "{column}");
        for (folder, told) in &of_ours {
            assert_eq!(told, &of_theirs[folder], "{column} {folder}");
        }
        assert_eq!(ours.len(), theirs.len(), "{column}");
    }
    let days = odd_rows(0, 40);
    let day = Arc::clone(days["object"].as_struct().column(1));
    let days = RecordBatch::try_from_iter([("id", Arc::clone(&days["id"])), ("day", day)]).unwrap();
    let (table, rows) = table_for(&[days], &["day"]).await;
    let ours = written(table.writer(rows[0].schema()).unwrap(), &rows).await;
    assert_eq!(told(&ours), told(&written_by_delta_rs(&table, &rows).await));
}

#[tokio::test]
async fn row_groups_and_files_are_bounded_and_hold_every_row_in_order() {
    let batches: Vec<RecordBatch> = (0..20).map(|number| odd_rows(number * 9_000, 9_000)).collect();
    let (table, rows) = table_for(&batches, &[]).await;
    let files = written(table.writer_of(rows[0].schema(), 1 << 20).unwrap(), &rows).await;
    assert!(files.len() > 1, "{}", files.len());
    let mut next = 0;
    for add in &files {
        let reader = ParquetRecordBatchReaderBuilder::try_new(file_of(&table, add).await).unwrap();
        for group in reader.metadata().row_groups() {
            assert!(group.num_rows() <= 64 << 10, "{}", group.num_rows());
        }
        for batch in reader.build().unwrap() {
            let ids = batch.unwrap()["id"].as_primitive::<Int64Type>().clone();
            assert!(ids.values().iter().copied().eq(next..next + ids.len() as i64));
            next += ids.len() as i64;
        }
    }
    assert_eq!(next, 180_000);
    let whole = written(table.writer(rows[0].schema()).unwrap(), &rows).await;
    let [whole] = &whole[..] else { panic!("{whole:?}") };
    let reader = ParquetRecordBatchReaderBuilder::try_new(file_of(&table, whole).await).unwrap();
    assert_eq!(reader.metadata().num_row_groups(), 3);
    assert_eq!(statistics(whole)["numRecords"], 180_000);
    assert_eq!(statistics(whole)["maxValues"]["id"], 179_999);
}

#[tokio::test]
async fn a_dictionary_is_written_only_for_values_that_repeat() {
    let (table, rows) = table_for(&[odd_rows(0, 40_000)], &[]).await;
    let keys = ["id".to_owned()];
    let files = written(table.writer(rows[0].schema()).unwrap().with_filters(&keys), &rows).await;
    let bytes = file_of(&table, &files[0]).await;
    let metadata = ArrowReaderMetadata::load(&bytes, Default::default()).unwrap();
    let group = metadata.metadata().row_group(0);
    let named = |name: &str| {
        group
            .columns()
            .iter()
            .find(|column| column.column_path().string() == name)
            .unwrap()
    };
    let dictionary = |name: &str| {
        named(name)
            .encodings()
            .any(|encoding| encoding == Encoding::RLE_DICTIONARY)
    };
    for (name, repeats) in [
        ("id", false),
        ("utc", false),
        ("double", true),
        ("list.list.element", true),
    ] {
        assert_eq!(dictionary(name), repeats, "{name}");
    }
    assert!(named("id").bloom_filter_offset().is_some());
    assert_eq!(named("small").bloom_filter_offset(), None);
    let found = metadata.metadata().row_group(0).column(0);
    assert!(found.offset_index_offset().is_some() && found.column_index_offset().is_some());
}

#[tokio::test]
async fn rows_of_another_shape_are_not_written() {
    let (table, rows) = table_for(&[odd_rows(0, 3)], &[]).await;
    let mut writer = table.writer(rows[0].schema()).unwrap();
    let narrow = rows[0].project(&[0, 1]).unwrap();
    let error = writer.write(&narrow).await.unwrap_err();
    assert_eq!(error.message(), "write rows of another shape");
}
