//! Columns whose type grew: every data file is rewritten with the same values in the new type, in one commit.
//!
//! ```text
//! table schema + wanted schema ─ changes ─► Change per column ─┬─ holds: reads those columns only, writes nothing
//!                                                              └─ widen: reads files, casts, writes files ─► one commit
//! ```
//!
//! The rewritten table is like one that always had the type, so every reader can read it: no table feature is needed. A
//! value that the new type does not hold as it is stops the widening before anything is visible. A crash leaves files
//! that no table version names.

use std::sync::Arc;

use arrow::{
    array::{
        Array as _, ArrayRef, AsArray as _, Decimal128Array, Float64Array, Int64Array, ListArray,
        RecordBatch, RecordBatchOptions, StructArray, TimestampMicrosecondArray,
    },
    datatypes::{
        DataType, Date32Type, Decimal128Type, Field, FieldRef, Fields, Int64Type, Schema, SchemaRef, TimeUnit,
    },
};
use deltalake::{
    kernel::transaction::{CommitBuilder, CommitProperties},
    protocol::{DeltaOperation, SaveMode},
};
use futures::TryStreamExt as _;

use super::{
    Committed, Table,
    evolve::{path_of, union},
    file::{close, write},
    history::{VALID_FROM, VALID_TO},
    latest::arrow_error,
    lower,
};
use crate::{
    contract::{Column, ColumnType, TimestampFormat},
    error::{Error, ErrorKind, Result},
};

const DAY_MICROS: i64 = 86_400 * 1_000_000;

/// The columns a table should have.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// As Arrow has them.
    pub schema: &'a Schema,
    /// As the contract has them: it says where the days begin that become moments.
    pub columns: &'a [Column],
    /// The column that the bounds of a version take their type from.
    pub sequence: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    /// The contract's column behind a column of the table.
    fn column(&self, name: &str) -> Option<&'a Column> {
        let source = match name {
            VALID_FROM | VALID_TO => self.sequence?,
            _ => name,
        };
        self.columns.iter().find(|column| column.name == source)
    }
}

/// A column, member or element that gets a wider type.
#[derive(Debug)]
struct Change {
    path: String,
    field: FieldRef,
    how: How,
}

#[derive(Debug)]
enum How {
    /// Whole numbers and decimals, as doubles.
    Double,
    Decimal,
    /// Decimals without digits behind the point, as whole numbers of 64 bits.
    Whole,
    /// Dates, as the moment at which the day begins so many seconds east of UTC.
    DayStart {
        offset_seconds: i32,
    },
    /// What happens to each member.
    Members(Vec<Option<Change>>),
    Elements(Box<Change>),
}

impl Table {
    /// Whether columns of the table have a narrower type than wanted.
    ///
    /// # Errors
    /// [`ErrorKind::Contract`] naming a column whose type would have to change in another way.
    pub fn is_narrower(&self, wanted: Wanted<'_>) -> Result<bool> {
        let schema = self.schema()?;
        let changes = changes(&schema, wanted);
        union(&after(&schema, &changes), wanted.schema)?;
        Ok(changes.iter().any(Option::is_some))
    }

    /// Reads the columns that have a narrower type than wanted, to see whether each value can be had in the wanted one.
    ///
    /// # Errors
    /// [`ErrorKind::Contract`] with the column if one cannot, else those of reading files.
    pub async fn check_widening(&self, wanted: Wanted<'_>) -> Result<()> {
        let schema = self.schema()?;
        let changes = changes(&schema, wanted);
        let narrow = |index: &usize| changes[*index].is_some();
        let fields: Fields = (0..changes.len())
            .filter(narrow)
            .map(|index| Arc::clone(&schema.fields()[index]))
            .collect();
        let changes: Vec<&Change> = changes.iter().flatten().collect();
        if changes.is_empty() {
            return Ok(());
        }
        let narrow: SchemaRef = Arc::new(Schema::new(fields));
        for file in self.files()? {
            let mut batches = std::pin::pin!(self.read(&file, Arc::clone(&narrow)).await?);
            while let Some(batch) = batches.try_next().await? {
                for (change, column) in changes.iter().zip(batch.columns()) {
                    change.apply(column)?;
                }
            }
        }
        Ok(())
    }

    /// Gives columns the wanted type if that has room for every value: all data files are rewritten in one commit, which
    /// moves no watermark. Columns that are missing or have another type are left to the merge.
    ///
    /// [`Committed::AlreadyApplied`] if there is nothing to do. Of two that widen at once one is
    /// [`Committed::Conflicted`], and finds the work done when it looks again.
    ///
    /// # Errors
    /// As [`Table::check_widening`], and [`ErrorKind::Unavailable`] if the log can be neither written nor read back.
    pub async fn widen(&mut self, wanted: Wanted<'_>) -> Result<Committed> {
        let schema = self.schema()?;
        let changes = changes(&schema, wanted);
        if changes.iter().all(Option::is_none) {
            return Ok(Committed::AlreadyApplied);
        }
        let wide: SchemaRef = Arc::new(after(&schema, &changes));
        let mut actions = vec![self.metadata_with(&wide)?];
        for file in self.files()? {
            // One writer a file: what stands beside a table is kept or thrown away by file.
            let mut writer = self.writer(Arc::clone(&wide))?;
            let mut batches = std::pin::pin!(self.read(&file, Arc::clone(&schema)).await?);
            while let Some(batch) = batches.try_next().await? {
                write(&mut writer, &widened(&batch, &changes, &wide)?).await?;
            }
            actions.extend(close(writer).await?);
            actions.push(Self::remove(&file));
        }
        let operation = DeltaOperation::Write {
            mode: SaveMode::Overwrite,
            partition_by: None,
            predicate: None,
        };
        let before = self.version();
        let state = self.state()?.clone();
        let outcome = CommitBuilder::from(CommitProperties::default().with_max_retries(0))
            .with_actions(actions)
            .build(Some(&state), self.delta.log_store(), operation)
            .await;
        self.refresh().await?;
        match outcome {
            Ok(commit) => Ok(Committed::Applied {
                version: commit.version(),
            }),
            // Also if it stands and only the reply was lost: there is nothing left to do then.
            Err(_) if self.version() > before => Ok(Committed::Conflicted),
            Err(source) => Err(lower(source, "widen table").with("table", &self.path)),
        }
    }
}

/// For each column of `existing` how it gets the type that is wanted, if it has a narrower one.
fn changes(existing: &Schema, wanted: Wanted<'_>) -> Vec<Option<Change>> {
    let fields = existing.fields().iter();
    fields
        .map(|field| {
            let (_, other) = wanted.schema.fields().find(field.name())?;
            change(field, other, wanted.column(field.name()), "")
        })
        .collect()
}

/// The schema after `changes`.
fn after(schema: &Schema, changes: &[Option<Change>]) -> Schema {
    let fields = schema.fields().iter().zip(changes);
    let fields = fields.map(|(old, change)| change.as_ref().map_or(old, |change| &change.field));
    Schema::new(fields.cloned().collect::<Fields>())
}

fn change(old: &Field, new: &Field, column: Option<&Column>, within: &str) -> Option<Change> {
    let path = path_of(within, old.name());
    let (how, data_type) = match (old.data_type(), new.data_type()) {
        (DataType::Struct(members), DataType::Struct(wanted)) => {
            let (changes, members) = members_of(members, wanted, column, &path)?;
            (How::Members(changes), DataType::Struct(members))
        }
        (DataType::List(element), DataType::List(wanted)) => {
            let of_element = match column.map(|column| &column.kind) {
                Some(ColumnType::Array(element)) => Some(element.as_ref()),
                _ => None,
            };
            let change = change(element, wanted, of_element, &path)?;
            let list = DataType::List(Arc::clone(&change.field));
            (How::Elements(Box::new(change)), list)
        }
        (old, new) => (scalar(old, new, column)?, new.clone()),
    };
    let field = Arc::new(old.clone().with_data_type(data_type));
    Some(Change { path, field, how })
}

fn members_of(
    members: &Fields,
    wanted: &Fields,
    column: Option<&Column>,
    within: &str,
) -> Option<(Vec<Option<Change>>, Fields)> {
    let columns: &[Column] = match column.map(|column| &column.kind) {
        Some(ColumnType::Object(columns)) => columns,
        _ => &[],
    };
    let changes: Vec<Option<Change>> = members
        .iter()
        .map(|member| {
            let (_, other) = wanted.find(member.name())?;
            let column = columns.iter().find(|column| column.name == *member.name());
            change(member, other, column, within)
        })
        .collect();
    if changes.iter().all(Option::is_none) {
        return None;
    }
    let fields = members.iter().zip(&changes);
    let fields = fields.map(|(old, change)| change.as_ref().map_or(old, |change| &change.field));
    let fields = fields.cloned().collect();
    Some((changes, fields))
}

fn scalar(old: &DataType, new: &DataType, column: Option<&Column>) -> Option<How> {
    use DataType::{Date32, Decimal128, Float64, Int64, Timestamp};
    match (old, new) {
        (Int64 | Decimal128(..), Float64) => Some(How::Double),
        (Int64, Decimal128(..)) => Some(How::Decimal),
        (Decimal128(_, scale), Decimal128(_, wanted)) if old != new && wanted >= scale => Some(How::Decimal),
        (Decimal128(_, 0), Int64) => Some(How::Whole),
        (Date32, Timestamp(TimeUnit::Microsecond, Some(_))) => match column?.kind {
            ColumnType::Timestamp(TimestampFormat::Naive { offset_seconds }) => {
                Some(How::DayStart { offset_seconds })
            }
            _ => None,
        },
        _ => None,
    }
}

fn widened(batch: &RecordBatch, changes: &[Option<Change>], schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(changes);
    let columns = columns.map(|(column, change)| match change {
        Some(change) => change.apply(column),
        None => Ok(Arc::clone(column)),
    });
    let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(arrow_error)
}

impl Change {
    /// The values in the new type.
    fn apply(&self, column: &ArrayRef) -> Result<ArrayRef> {
        let values: ArrayRef = match &self.how {
            How::Members(changes) => {
                let object = column.as_struct();
                let DataType::Struct(fields) = self.field.data_type() else {
                    return Err(self.refused(column));
                };
                let members = object.columns().iter().zip(changes);
                let members = members.map(|(member, change)| match change {
                    Some(change) => change.apply(member),
                    None => Ok(Arc::clone(member)),
                });
                let members = members.collect::<Result<Vec<ArrayRef>>>()?;
                let nulls = object.nulls().cloned();
                Arc::new(
                    StructArray::try_new_with_length(fields.clone(), members, nulls, object.len())
                        .map_err(arrow_error)?,
                )
            }
            How::Elements(change) => {
                let list = column.as_list::<i32>();
                let values = change.apply(list.values())?;
                let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
                Arc::new(
                    ListArray::try_new(Arc::clone(&change.field), offsets, values, nulls)
                        .map_err(arrow_error)?,
                )
            }
            how => how
                .exactly(column, self.field.data_type())
                .ok_or_else(|| self.refused(column))?,
        };
        Ok(values)
    }

    fn refused(&self, column: &ArrayRef) -> Error {
        Error::new(ErrorKind::Contract, "widen column")
            .with("column", &self.path)
            .with("table has", column.data_type())
            .with("contract wants", self.field.data_type())
            .with(
                "problem",
                "the table holds a value that the new type does not hold exactly",
            )
            .with(
                "hint",
                "give the column a decimal type, or make the table anew with `landfall rebuild --promote`, \
                 which sets such records aside",
            )
    }
}

impl How {
    /// Values of one column in another type; `None` if one of them is not the same there.
    fn exactly(&self, column: &ArrayRef, to: &DataType) -> Option<ArrayRef> {
        match (self, to) {
            (Self::Double, _) => match column.data_type() {
                DataType::Int64 => doubles(column.as_primitive::<Int64Type>()),
                _ => doubles_of_decimals(column.as_primitive::<Decimal128Type>()),
            },
            (Self::Decimal, &DataType::Decimal128(precision, scale)) => {
                let unscaled: Vec<Option<i128>>;
                let scale_before = match column.data_type() {
                    DataType::Decimal128(_, scale_before) => {
                        unscaled = column.as_primitive::<Decimal128Type>().iter().collect();
                        *scale_before
                    }
                    _ => {
                        let wholes = column.as_primitive::<Int64Type>().iter();
                        unscaled = wholes.map(|value| value.map(i128::from)).collect();
                        0
                    }
                };
                decimals(
                    unscaled,
                    u32::try_from(scale - scale_before).ok()?,
                    precision,
                    scale,
                )
            }
            (Self::Whole, _) => {
                let values = column.as_primitive::<Decimal128Type>().iter();
                let wholes = values.map(|value| value.map(i64::try_from).transpose());
                Some(Arc::new(wholes.collect::<Result<Int64Array, _>>().ok()?))
            }
            (&Self::DayStart { offset_seconds }, DataType::Timestamp(_, zone)) => {
                let offset = i64::from(offset_seconds) * 1_000_000;
                let days = column.as_primitive::<Date32Type>().iter();
                let moments =
                    days.map(|day| day.map(|day| (i64::from(day) * DAY_MICROS).checked_sub(offset)));
                let moments = moments.map(|moment| match moment {
                    Some(moment) => moment.map(Some),
                    None => Some(None),
                });
                let moments: TimestampMicrosecondArray = moments.collect::<Option<_>>()?;
                Some(Arc::new(moments.with_timezone_opt(zone.clone())))
            }
            _ => None,
        }
    }
}

fn doubles(wholes: &Int64Array) -> Option<ArrayRef> {
    #[expect(clippy::cast_precision_loss, reason = "compared afterwards")]
    let double = |whole: i64| whole as f64;
    #[expect(clippy::cast_possible_truncation, reason = "a whole number of at most 2^63")]
    let is_same = |whole: i64| double(whole) as i128 == i128::from(whole);
    if wholes.iter().flatten().any(|whole| !is_same(whole)) {
        return None;
    }
    let doubles: Float64Array = wholes.iter().map(|whole| whole.map(double)).collect();
    Some(Arc::new(doubles))
}

/// The doubles next to decimals, if each leads back to its decimal.
fn doubles_of_decimals(decimals: &Decimal128Array) -> Option<ArrayRef> {
    let scale = usize::try_from(decimals.scale()).ok()?;
    let double = |row: usize| -> Option<Option<f64>> {
        if decimals.is_null(row) {
            return Some(None);
        }
        let text = decimals.value_as_string(row);
        let double: f64 = text.parse().ok()?;
        (format!("{double:.scale$}") == text).then_some(Some(double))
    };
    let doubles: Option<Float64Array> = (0..decimals.len()).map(double).collect();
    Some(Arc::new(doubles?))
}

/// Decimals with `more` digits behind the point.
fn decimals(unscaled: Vec<Option<i128>>, more: u32, precision: u8, scale: i8) -> Option<ArrayRef> {
    let factor = 10_i128.checked_pow(more)?;
    let limit = 10_i128.checked_pow(u32::from(precision))?;
    let scaled = unscaled.into_iter().map(|value| match value {
        Some(value) => value
            .checked_mul(factor)
            .filter(|value| value.unsigned_abs() < limit.unsigned_abs())
            .map(Some),
        None => Some(None),
    });
    let decimals: Decimal128Array = scaled.collect::<Option<_>>()?;
    Some(Arc::new(
        decimals.with_precision_and_scale(precision, scale).ok()?,
    ))
}
