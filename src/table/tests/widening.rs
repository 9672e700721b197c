use arrow::{
    array::{
        ArrayRef, Date32Array, Decimal128Array, Float64Array, Int64Array, ListArray, StructArray,
        TimestampMicrosecondArray,
    },
    buffer::OffsetBuffer,
    compute::concat_batches,
    datatypes::{Decimal128Type, Fields, Float64Type, TimeUnit, TimestampMicrosecondType},
};
use futures::TryStreamExt as _;

use super::*;
use crate::{
    contract::{Column, ColumnType, TimestampFormat, infer},
    table::widen::Wanted,
};

/// Greatest whole number up to which doubles have no gaps.
const DOUBLE_WHOLE_MAX: i64 = 1 << 53;

const OFFSET_SECONDS: i32 = -5 * 3600;

fn moment() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn day_starts() -> ColumnType {
    ColumnType::Timestamp(TimestampFormat::Naive {
        offset_seconds: OFFSET_SECONDS,
    })
}

fn one(name: &str, data_type: DataType) -> Schema {
    Schema::new(vec![Field::new(name, data_type, true)])
}

/// A table of one column `v` and its rows.
async fn table_of(values: ArrayRef) -> Table {
    let schema = one("v", values.data_type().clone());
    let tables = Tables::new(Arc::new(InMemory::new())).unwrap();
    let path = Path::from("tables/shop/wide");
    let mut table = tables.open_or_create(&path, &schema, &[]).await.unwrap();
    let rows = RecordBatch::try_new(Arc::new(schema), vec![values]).unwrap();
    let planned = table
        .plan_merge(vec![rows], &options(ScdType::Append), None)
        .await
        .unwrap();
    table.commit_merge(planned, &note(0, "load-0")).await.unwrap();
    table
}

/// The values of `v`, after `v` was given a type.
async fn widened(values: ArrayRef, data_type: DataType, kind: ColumnType) -> ArrayRef {
    let mut table = table_of(values).await;
    let schema = one("v", data_type);
    let columns = [infer::column("v".to_owned(), kind)];
    let wanted = Wanted {
        schema: &schema,
        columns: &columns,
        sequence: None,
    };
    table.check_widening(wanted).await.unwrap();
    let before = table.version();
    assert_eq!(
        table.widen(wanted).await.unwrap(),
        Committed::Applied { version: before + 1 }
    );
    assert_eq!(table.schema().unwrap().fields(), schema.fields());
    assert_eq!(table.widen(wanted).await.unwrap(), Committed::AlreadyApplied);
    assert_eq!(table.watermark(&app()).await.unwrap(), Some(BatchNumber::FIRST));
    let mut batches = Vec::new();
    for file in table.files().unwrap() {
        let read = table.read(&file, table.schema().unwrap()).await.unwrap();
        batches.extend(read.try_collect::<Vec<_>>().await.unwrap());
    }
    let whole = concat_batches(&table.schema().unwrap(), &batches).unwrap();
    Arc::clone(whole.column(0))
}

/// An object with the member `m`, null where its member is, in a list of at most two.
fn nested(members: Vec<Option<i64>>) -> ArrayRef {
    let fields: Fields = vec![Field::new("m", DataType::Int64, true)].into();
    let member: ArrayRef = Arc::new(Int64Array::from(members.clone()));
    let objects: ArrayRef = Arc::new(StructArray::new(fields, vec![member], None));
    let lengths = std::iter::repeat_n(2, members.len() / 2).chain((members.len() % 2 == 1).then_some(1));
    let element = Arc::new(Field::new("element", objects.data_type().clone(), true));
    Arc::new(ListArray::new(
        element,
        OffsetBuffer::from_lengths(lengths),
        objects,
        None,
    ))
}

fn list_of(member: DataType) -> DataType {
    let object = DataType::Struct(vec![Field::new("m", member, true)].into());
    DataType::List(Arc::new(Field::new("element", object, true)))
}

fn list_kind(member: ColumnType) -> ColumnType {
    let object = ColumnType::Object(vec![infer::column("m".to_owned(), member)]);
    ColumnType::Array(Box::new(Column {
        path: Vec::new(),
        ..infer::column("element".to_owned(), object)
    }))
}

fn values<T: Strategy>(value: T) -> impl Strategy<Value = Vec<Option<T::Value>>>
where
    T::Value: Clone,
{
    prop::collection::vec(prop::option::weighted(0.9, value), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_widened_table_has_the_same_values(
        wholes in values(any::<i64>()),
        small in values(-DOUBLE_WHOLE_MAX..=DOUBLE_WHOLE_MAX),
        cents in values(-999_999_999_999_999_i128..=999_999_999_999_999),
        days in values(-700_000_i32..2_900_000),
    ) {
        runtime().block_on(async {
            let decimal = ColumnType::Decimal { precision: 38, scale: 18 };
            let given: ArrayRef = Arc::new(Int64Array::from(wholes.clone()));
            let read = widened(given, DataType::Decimal128(38, 18), decimal.clone()).await;
            let read = read.as_primitive::<Decimal128Type>();
            let expected: Vec<Option<i128>> =
                wholes.iter().map(|value| value.map(|value| i128::from(value) * 10_i128.pow(18))).collect();
            prop_assert_eq!(read.iter().collect::<Vec<_>>(), expected);

            let read = widened(nested(small.clone()), list_of(DataType::Float64), list_kind(ColumnType::Number)).await;
            let lists = read.as_list::<i32>();
            prop_assert_eq!(lists.len(), small.len().div_ceil(2));
            let members = Arc::clone(lists.values().as_struct().column(0));
            let back: Vec<Option<i64>> =
                members.as_primitive::<Float64Type>().iter().map(|value| value.map(|value| value as i64)).collect();
            prop_assert_eq!(back, small);

            let given = Decimal128Array::from(cents.clone()).with_precision_and_scale(15, 2).unwrap();
            let read = widened(Arc::new(given.clone()), DataType::Float64, ColumnType::Number).await;
            let read = read.as_primitive::<Float64Type>();
            for (row, value) in read.iter().enumerate() {
                let text = value.map(|value| format!("{value:.2}"));
                prop_assert_eq!(text, cents[row].map(|_| given.value_as_string(row)));
            }
            let read = widened(Arc::new(given), DataType::Decimal128(20, 4), ColumnType::Decimal { precision: 20, scale: 4 }).await;
            let expected: Vec<Option<i128>> = cents.iter().map(|value| value.map(|value| value * 100)).collect();
            prop_assert_eq!(read.as_primitive::<Decimal128Type>().iter().collect::<Vec<_>>(), expected);

            let read = widened(Arc::new(Date32Array::from(days.clone())), moment(), day_starts()).await;
            let read = read.as_primitive::<TimestampMicrosecondType>();
            for (row, day) in days.iter().enumerate() {
                let start = day.map(|day| (i64::from(day) * 86_400 - i64::from(OFFSET_SECONDS)) * 1_000_000);
                prop_assert_eq!(read.iter().nth(row).unwrap(), start);
            }
            Ok(())
        })?;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_the_wider_type_does_not_hold_stops_the_widening_before_anything_changes() {
    let beyond: ArrayRef = Arc::new(Int64Array::from(vec![1, DOUBLE_WHOLE_MAX + 1]));
    let cents = |value: i128, precision: u8| -> ArrayRef {
        let array = Decimal128Array::from(vec![value]);
        Arc::new(array.with_precision_and_scale(precision, 2).unwrap())
    };
    let cases = [
        (beyond, DataType::Float64, ColumnType::Number),
        (
            cents(900_719_925_474_099_301, 20),
            DataType::Float64,
            ColumnType::Number,
        ),
        (
            Arc::new(Int64Array::from(vec![100])),
            DataType::Decimal128(4, 2),
            ColumnType::Decimal {
                precision: 4,
                scale: 2,
            },
        ),
    ];
    for (values, data_type, kind) in cases {
        let mut table = table_of(values).await;
        let schema = one("v", data_type);
        let columns = [infer::column("v".to_owned(), kind)];
        let wanted = Wanted {
            schema: &schema,
            columns: &columns,
            sequence: None,
        };
        let (version, narrow) = (table.version(), table.schema().unwrap());
        assert!(table.is_narrower(wanted).unwrap());
        let checked = table.check_widening(wanted).await.unwrap_err();
        let refused = table.widen(wanted).await.unwrap_err();
        assert_eq!(
            (checked.kind(), refused.kind()),
            (ErrorKind::Contract, ErrorKind::Contract)
        );
        assert!(refused.to_string().contains("column: v"), "{refused}");
        assert!(
            refused.to_string().contains("landfall rebuild --promote"),
            "{refused}"
        );
        table.refresh().await.unwrap();
        assert_eq!((table.version(), table.schema().unwrap()), (version, narrow));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_widen_at_once_one_finds_the_work_done() {
    let mut first = table_of(Arc::new(Int64Array::from(vec![1, 2]))).await;
    let mut second = first.clone();
    let schema = one("v", DataType::Float64);
    let wanted = Wanted {
        schema: &schema,
        columns: &[],
        sequence: None,
    };
    assert!(matches!(
        first.widen(wanted).await.unwrap(),
        Committed::Applied { .. }
    ));
    assert_eq!(second.widen(wanted).await.unwrap(), Committed::Conflicted);
    assert_eq!(second.widen(wanted).await.unwrap(), Committed::AlreadyApplied);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_other_change_of_type_is_no_widening() {
    let decimal = |precision, scale| -> ArrayRef {
        let array = Decimal128Array::from(vec![100]);
        Arc::new(array.with_precision_and_scale(precision, scale).unwrap())
    };
    let whole = || -> ArrayRef { Arc::new(Int64Array::from(vec![1])) };
    let day = || -> ArrayRef { Arc::new(Date32Array::from(vec![1])) };
    let zoned: TimestampMicrosecondArray = vec![1].into();
    let rfc = || ColumnType::Timestamp(TimestampFormat::Rfc3339);
    let cases: Vec<(ArrayRef, DataType, ColumnType)> = vec![
        (whole(), DataType::Utf8, ColumnType::String),
        (whole(), DataType::Int64, ColumnType::Integer),
        (whole(), moment(), day_starts()),
        (
            Arc::new(Float64Array::from(vec![1.0])),
            DataType::Int64,
            ColumnType::Integer,
        ),
        (
            decimal(10, 2),
            DataType::Decimal128(10, 1),
            ColumnType::Decimal {
                precision: 10,
                scale: 1,
            },
        ),
        (decimal(10, 2), DataType::Utf8, ColumnType::String),
        // Nobody says where the day begins.
        (day(), moment(), rfc()),
        (
            Arc::new(zoned.with_timezone("UTC")),
            DataType::Date32,
            ColumnType::Date,
        ),
    ];
    for (values, data_type, kind) in cases {
        let table = table_of(values).await;
        let schema = one("v", data_type.clone());
        let columns = [infer::column("v".to_owned(), kind)];
        let wanted = Wanted {
            schema: &schema,
            columns: &columns,
            sequence: None,
        };
        match table.is_narrower(wanted) {
            Ok(narrower) => assert!(!narrower && data_type == DataType::Int64, "{data_type}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Contract, "{data_type}"),
        }
        table.check_widening(wanted).await.unwrap();
    }
}
