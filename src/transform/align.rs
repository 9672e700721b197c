//! Rows of one contract with the columns of all: null where it has none, in the wider type where that is another.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{
        Array as _, ArrayRef, AsArray as _, ListArray, RecordBatch, RecordBatchOptions, StructArray,
        new_null_array,
    },
    datatypes::{DataType, FieldRef, SchemaRef},
    error::ArrowError,
};

use crate::{
    contract::{
        Column, ColumnType, Violation, ViolationClass, cast::Cast, columns, judge::RowViolation,
        observed::write_name,
    },
    error::{Error, ErrorKind, Result},
};

/// How rows of one contract get the columns of all.
#[derive(Clone, Debug)]
pub(super) struct Align {
    schema: SchemaRef,
    columns: Vec<Source>,
}

/// Rows in the columns of all contracts.
#[derive(Debug)]
pub struct Aligned {
    /// The rows; null where a value cannot be had in its column.
    pub rows: RecordBatch,
    /// Why rows cannot be had there, one reason for each, in their order.
    pub unheld: Vec<RowViolation>,
}

/// Where a column comes from.
#[derive(Clone, Debug)]
struct Source {
    /// Its place among those of the contract; none if the contract does not have it.
    index: Option<usize>,
    shape: Shape,
}

/// How the values of a column get their type.
#[derive(Clone, Debug)]
enum Shape {
    Same,
    Cast {
        cast: Cast,
        /// Where in a record such a value is, without the numbers of elements.
        path: String,
        expected: String,
    },
    Members(Vec<Source>),
    Elements(Box<Shape>),
}

impl Align {
    /// How rows with the columns of a contract, `own` and what was rescued behind them, get those of `schema`, which are
    /// `union` and what was rescued.
    pub(super) fn new(own: &[Column], union: &[Column], schema: SchemaRef) -> Self {
        let mut columns = sources(own, union, "");
        columns.push(Source {
            index: Some(own.len()),
            shape: Shape::Same,
        });
        Self { schema, columns }
    }

    /// The rows in the other columns.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] for rows of another contract.
    pub(super) fn apply(&self, rows: &RecordBatch) -> Result<Aligned> {
        let mut unheld = Unheld::default();
        let columns: Result<Vec<ArrayRef>, ArrowError> = self
            .columns
            .iter()
            .zip(self.schema.fields())
            .map(|(source, field)| source.apply(rows.columns(), field, rows.num_rows(), &mut unheld))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let aligned = columns
            .and_then(|columns| {
                RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)
            })
            .map_err(|source| Error::new(ErrorKind::Internal, "align rows of versions").caused_by(source))?;
        Ok(Aligned {
            rows: aligned,
            unheld: unheld.0.into_values().collect(),
        })
    }
}

/// Why rows cannot be had in the other columns, one reason for each row.
#[derive(Default)]
struct Unheld(BTreeMap<usize, RowViolation>);

/// Where each of the columns `union` comes from.
fn sources(own: &[Column], union: &[Column], within: &str) -> Vec<Source> {
    let source = |column: &Column| {
        let index = own.iter().position(|one| one.name == column.name);
        let shape = index.map_or(Shape::Same, |index| {
            let mut path = within.to_owned();
            own[index]
                .path
                .iter()
                .for_each(|name| write_name(name, &mut path));
            shape(&own[index], column, path)
        });
        Source { index, shape }
    };
    union.iter().map(source).collect()
}

fn shape(own: &Column, union: &Column, mut path: String) -> Shape {
    match (&own.kind, &union.kind) {
        (own, union) if own == union => Shape::Same,
        (ColumnType::Object(members), ColumnType::Object(all)) => {
            Shape::Members(sources(members, all, &path))
        }
        (ColumnType::Array(element), ColumnType::Array(all)) => {
            path.push_str("[]");
            Shape::Elements(Box::new(shape(element, all, path)))
        }
        (kind, wider) => {
            let (from, to) = (columns::data_type(kind), columns::data_type(wider));
            match Cast::of(&from, &to, Some(union)) {
                Some(cast) => Shape::Cast {
                    cast,
                    path,
                    expected: wider.words(),
                },
                None => Shape::Same,
            }
        }
    }
}

impl Source {
    fn apply(
        &self,
        own: &[ArrayRef],
        field: &FieldRef,
        rows: usize,
        unheld: &mut Unheld,
    ) -> Result<ArrayRef, ArrowError> {
        let Some(index) = self.index else {
            return Ok(new_null_array(field.data_type(), rows));
        };
        let missing = || ArrowError::SchemaError(format!("no column for {}", field.name()));
        let column = own.get(index).ok_or_else(missing)?;
        self.shape.apply(column, field.data_type(), unheld, &|row| row)
    }
}

impl Shape {
    /// `row_of` leads from a place in `column` to its row.
    fn apply(
        &self,
        column: &ArrayRef,
        to: &DataType,
        unheld: &mut Unheld,
        row_of: &dyn Fn(usize) -> usize,
    ) -> Result<ArrayRef, ArrowError> {
        let misfit = || ArrowError::CastError(format!("{} to {to}", column.data_type()));
        match (self, to) {
            (Self::Same, _) => Ok(Arc::clone(column)),
            (Self::Cast { cast, path, expected }, _) => {
                let held = cast.apply(column, to).ok_or_else(misfit)?;
                for row in held.unheld.iter().map(|&at| row_of(at)) {
                    unheld.0.entry(row).or_insert_with(|| RowViolation {
                        row,
                        violation: Violation {
                            class: ViolationClass::OutOfRange,
                            path: path.clone(),
                            expected: expected.clone(),
                            found: "a value that the column of the table does not hold exactly".to_owned(),
                        },
                    });
                }
                Ok(held.values)
            }
            (Self::Members(sources), DataType::Struct(fields)) => {
                let object = column.as_struct_opt().ok_or_else(misfit)?;
                let members = sources
                    .iter()
                    .zip(fields)
                    .map(|(source, field)| match source.index {
                        Some(index) => {
                            let member = object.columns().get(index).ok_or_else(misfit)?;
                            source.shape.apply(member, field.data_type(), unheld, row_of)
                        }
                        None => Ok(new_null_array(field.data_type(), object.len())),
                    });
                let members = members.collect::<Result<Vec<ArrayRef>, ArrowError>>()?;
                let nulls = object.nulls().cloned();
                let object = StructArray::try_new_with_length(fields.clone(), members, nulls, object.len())?;
                Ok(Arc::new(object))
            }
            (Self::Elements(element), DataType::List(field)) => {
                let list = column.as_list_opt::<i32>().ok_or_else(misfit)?;
                let offsets = list.value_offsets();
                let list_of = |at: usize| {
                    let after = offsets
                        .partition_point(|&start| usize::try_from(start).is_ok_and(|start| start <= at));
                    after.saturating_sub(1)
                };
                let mut within = Unheld::default();
                let values = element.apply(list.values(), field.data_type(), &mut within, &list_of)?;
                // Elements under a null are left over from a list that went to `_rescued` as a whole.
                for (at, found) in within.0.into_iter().filter(|(at, _)| list.is_valid(*at)) {
                    let row = row_of(at);
                    unheld.0.entry(row).or_insert(RowViolation { row, ..found });
                }
                let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
                Ok(Arc::new(ListArray::try_new(
                    Arc::clone(field),
                    offsets,
                    values,
                    nulls,
                )?))
            }
            _ => Err(misfit()),
        }
    }
}
