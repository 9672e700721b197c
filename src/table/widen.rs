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
    array::{Array as _, ArrayRef, AsArray as _, ListArray, RecordBatch, RecordBatchOptions, StructArray},
    datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef},
};
use deltalake::{
    kernel::{Action, transaction::CommitBuilder},
    protocol::{DeltaOperation, SaveMode},
};
use futures::TryStreamExt as _;

use super::{
    Committed, Table,
    evolve::{path_of, union},
    history::{VALID_FROM, VALID_TO},
    latest::arrow_error,
    lower,
};
use crate::{
    contract::{
        Column, ColumnType,
        cast::{Cast, Held},
    },
    error::{Error, ErrorKind, Result},
};

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
    /// Each value by itself.
    Cast(Cast),
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
        let mut actions = vec![Action::Metadata(self.metadata_with(&wide)?)];
        for file in self.files()? {
            // One writer a file: what stands beside a table is kept or thrown away by file.
            let mut writer = self.writer(Arc::clone(&wide))?;
            let opened = self.open(&file).await?;
            writer.keep_filters(&opened);
            let mut batches = std::pin::pin!(opened.rows(Arc::clone(&schema))?);
            while let Some(batch) = batches.try_next().await? {
                writer.write(&widened(&batch, &changes, &wide)?).await?;
            }
            actions.extend(writer.close().await?);
            actions.push(Self::remove(&file));
        }
        let operation = DeltaOperation::Write {
            mode: SaveMode::Overwrite,
            partition_by: None,
            predicate: None,
        };
        let before = self.version();
        let state = self.state()?.clone();
        let outcome = CommitBuilder::from(self.once()?)
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
        (old, new) => (How::Cast(Cast::of(old, new, column)?), new.clone()),
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
            How::Cast(cast) => match cast.apply(column, self.field.data_type()) {
                Some(Held { values, unheld }) if unheld.is_empty() => values,
                _ => return Err(self.refused(column)),
            },
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
