//! The rows of a load by identity: of several with one identity, the latest.

use std::{collections::HashMap, hash::BuildHasher as _, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray as _, RecordBatch},
    compute::{interleave, interleave_record_batch},
    datatypes::{Field, Schema, SchemaRef},
    row::{RowConverter, Rows, SortField},
};
use hashbrown::{DefaultHashBuilder, HashTable};

use super::write::Writer;
use crate::error::{Error, ErrorKind, Result};

/// Winning rows gathered into one Arrow batch at a time.
pub(super) const GATHER_ROWS: usize = 16 * 1024;

/// The latest row of each identity of a load.
pub(super) struct Latest {
    pub(super) rows: Vec<RecordBatch>,
    /// Identity and order columns of the table.
    pub(super) probe_schema: SchemaRef,
    pub(super) key_schema: SchemaRef,
    pub(super) order_schema: SchemaRef,
    keys: Converter,
    orders: Converter,
    key_rows: Vec<Rows>,
    order_rows: Vec<Rows>,
    /// Batch and row of each winner.
    pub(super) winners: Vec<(usize, usize)>,
    index: HashTable<usize>,
    hasher: DefaultHashBuilder,
}

impl Latest {
    /// Elects the row with the greatest `order` among those equal in `identity`; the later one among equals.
    pub(super) fn of(
        rows: Vec<RecordBatch>,
        schema: &Schema,
        identity: &[&str],
        order: &[&str],
    ) -> Result<Self> {
        let keys = Converter::new(identity, schema)?;
        let orders = Converter::new(order, schema)?;
        let both: Vec<&str> = identity.iter().chain(order).copied().collect();
        let key_rows = rows
            .iter()
            .map(|batch| keys.convert(batch))
            .collect::<Result<Vec<_>>>()?;
        let order_rows = rows
            .iter()
            .map(|batch| orders.convert(batch))
            .collect::<Result<Vec<_>>>()?;
        let total = rows.iter().map(RecordBatch::num_rows).sum();
        let mut latest = Self {
            probe_schema: columns(schema, &both)?,
            key_schema: columns(schema, identity)?,
            order_schema: columns(schema, order)?,
            keys,
            orders,
            key_rows,
            order_rows,
            // Most rows of a load are alone with their identity: growing would hash each of them again and again.
            winners: Vec::with_capacity(total),
            index: HashTable::with_capacity(total),
            hasher: DefaultHashBuilder::default(),
            rows,
        };
        latest.elect();
        Ok(latest)
    }

    fn elect(&mut self) {
        for batch in 0..self.rows.len() {
            for row in 0..self.rows[batch].num_rows() {
                let key = self.key_rows[batch].row(row);
                let hash = self.hasher.hash_one(key.data());
                let same = |winner: &usize| self.key(*winner) == key.data();
                match self.index.find(hash, same) {
                    Some(&winner) => {
                        if self.order_rows[batch].row(row).data() >= self.order(winner) {
                            self.winners[winner] = (batch, row);
                        }
                    }
                    None => {
                        let (winners, key_rows, hasher) = (&self.winners, &self.key_rows, &self.hasher);
                        self.index.insert_unique(hash, winners.len(), |winner| {
                            let (batch, row) = winners[*winner];
                            hasher.hash_one(key_rows[batch].row(row).data())
                        });
                        self.winners.push((batch, row));
                    }
                }
            }
        }
    }

    /// Rows given, winners or not.
    pub(super) fn total(&self) -> u64 {
        self.rows.iter().map(|batch| batch.num_rows() as u64).sum()
    }

    pub(super) fn key(&self, winner: usize) -> &[u8] {
        let (batch, row) = self.winners[winner];
        self.key_rows[batch].row(row).data()
    }

    pub(super) fn order(&self, winner: usize) -> &[u8] {
        let (batch, row) = self.winners[winner];
        self.order_rows[batch].row(row).data()
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<usize> {
        self.index
            .find(self.hasher.hash_one(key), |winner| self.key(*winner) == key)
            .copied()
    }

    pub(super) fn key_of(&self, batch: &RecordBatch) -> Result<Rows> {
        self.keys.convert(batch)
    }

    pub(super) fn order_of(&self, batch: &RecordBatch) -> Result<Rows> {
        self.orders.convert(batch)
    }

    /// For each winner whether its row says that its key is gone.
    pub(super) fn deletions(&self) -> Vec<bool> {
        let marks: Vec<_> = self
            .rows
            .iter()
            .map(|batch| {
                batch
                    .column_by_name("_deleted")
                    .and_then(|marks| marks.as_boolean_opt())
            })
            .collect();
        let gone = |(batch, row): &(usize, usize)| {
            marks[*batch].is_some_and(|marks| marks.is_valid(*row) && marks.value(*row))
        };
        self.winners.iter().map(gone).collect()
    }

    /// The rows of `winners`, in that order.
    pub(super) fn gather(&self, winners: &[usize]) -> Result<RecordBatch> {
        let batches: Vec<&RecordBatch> = self.rows.iter().collect();
        let places: Vec<(usize, usize)> = winners.iter().map(|winner| self.winners[*winner]).collect();
        interleave_record_batch(&batches, &places).map_err(arrow_error)
    }

    /// The same of the column `name`.
    pub(super) fn gather_column(&self, name: &str, winners: &[usize]) -> Result<ArrayRef> {
        let index = match self.rows.first() {
            Some(rows) => rows.schema_ref().index_of(name).map_err(arrow_error)?,
            None => 0,
        };
        let batches: Vec<&dyn Array> = self.rows.iter().map(|rows| rows.column(index).as_ref()).collect();
        let places: Vec<(usize, usize)> = winners.iter().map(|winner| self.winners[*winner]).collect();
        interleave(&batches, &places).map_err(arrow_error)
    }

    /// Of `rows` of the table's shape the columns that identify and order them.
    pub(super) fn probed_columns(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let places = self.probe_schema.fields().iter();
        let places = places.map(|field| rows.schema_ref().index_of(field.name()));
        places
            .collect::<std::result::Result<Vec<_>, _>>()
            .and_then(|places| rows.project(&places))
            .map_err(arrow_error)
    }

    /// Writes `winners` in key order, so that the statistics of the new files are narrow. `extend` may add columns to
    /// the rows of some winners.
    pub(super) async fn write(
        &self,
        winners: &[usize],
        extend: impl Fn(&[usize], RecordBatch) -> Result<RecordBatch>,
        writer: &mut Writer,
    ) -> Result<()> {
        let mut ordered = winners.to_vec();
        ordered.sort_unstable_by(|a, b| self.key(*a).cmp(self.key(*b)));
        for chunk in ordered.chunks(GATHER_ROWS) {
            writer.write(&extend(chunk, self.gather(chunk)?)?).await?;
        }
        Ok(())
    }
}

/// The columns `names` of `schema`, each once.
pub(super) fn columns(schema: &Schema, names: &[&str]) -> Result<SchemaRef> {
    let mut columns: Vec<Field> = Vec::new();
    for name in names {
        let field = schema.field_with_name(name).map_err(arrow_error)?;
        if !columns.contains(field) {
            columns.push(field.clone());
        }
    }
    Ok(Arc::new(Schema::new(columns)))
}

/// Turns some columns of a batch into comparable bytes.
pub(super) struct Converter {
    names: Vec<String>,
    rows: RowConverter,
}

impl Converter {
    pub(super) fn new(names: &[&str], schema: &Schema) -> Result<Self> {
        let fields = names
            .iter()
            .map(|name| {
                let field = schema.field_with_name(name).map_err(|source| {
                    Error::new(ErrorKind::Config, "find column")
                        .with("column", name)
                        .caused_by(source)
                })?;
                Ok(SortField::new(field.data_type().clone()))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            rows: RowConverter::new(fields).map_err(arrow_error)?,
        })
    }

    pub(super) fn convert(&self, batch: &RecordBatch) -> Result<Rows> {
        let by_name: HashMap<&str, usize> = batch
            .schema_ref()
            .fields()
            .iter()
            .enumerate()
            .map(|(index, field)| (field.name().as_str(), index))
            .collect();
        let columns = self
            .names
            .iter()
            .map(|name| {
                by_name
                    .get(name.as_str())
                    .map(|index| Arc::clone(batch.column(*index)))
                    .ok_or_else(|| Error::new(ErrorKind::Internal, "find column").with("column", name))
            })
            .collect::<Result<Vec<_>>>()?;
        self.rows.convert_columns(&columns).map_err(arrow_error)
    }
}

/// `batch` with the column `name` replaced by `values`.
pub(super) fn with_column(batch: &RecordBatch, name: &str, values: ArrayRef) -> Result<RecordBatch> {
    let index = batch.schema_ref().index_of(name).map_err(arrow_error)?;
    let mut columns = batch.columns().to_vec();
    columns[index] = values;
    RecordBatch::try_new(batch.schema(), columns).map_err(arrow_error)
}

pub(super) fn arrow_error(source: arrow::error::ArrowError) -> Error {
    Error::new(ErrorKind::Internal, "merge rows").caused_by(source)
}
