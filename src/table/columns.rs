//! A row group written anew column by column.
//!
//! ```text
//! encoded columns ─ a job each, one at a time for each thread ────────┬─ no edit can change it ─────────────────► as it is
//!                                                                     └─ decoded ─ edited ─┬─ the same values ─► as it is
//!                                                                                          └─ others ──────────► encoded
//! ```
//!
//! Of what an update brings most is often there already: a key is always, and so is what a source never changes. Such a
//! column costs no more than to decode it, and a mark of deletion costs its own column only. In memory are the encoded
//! columns and for each thread some thousand values of one column, or of one that may stay as it is up to
//! [`UNCHANGED_BYTES_MAX`]: never the rows of a row group as a whole.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::ArrayRef,
    compute::filter,
    datatypes::{FieldRef, Schema, SchemaRef},
};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::ParquetRecordBatchReaderBuilder,
        arrow_writer::{ArrowColumnWriter, compute_leaves},
    },
    schema::types::SchemaDescriptor,
};

use super::{
    copied::{Chunks, Copied},
    edit::{Edits, Patches},
    encode::{bytes_of, in_parallel, unencodable},
    latest::arrow_error,
    opened::{Opened, READ_ROWS, constant, shape, unread},
    output::Leaf,
};
use crate::error::{Error, ErrorKind, Result};

/// Decoded values of a column that are held to see whether it stays as it is. One with more of them is encoded anyway.
const UNCHANGED_BYTES_MAX: usize = 32 << 20;

/// A row group of a file, and what is to be done to it.
pub(super) struct Group {
    pub(super) opened: Arc<Opened>,
    pub(super) number: usize,
    /// By the number of the row in the row group; rows of it stay.
    pub(super) edits: Edits,
    pub(super) patches: Patches,
}

/// One column, which may have several leaves.
struct Column {
    number: usize,
    field: FieldRef,
    copied: Vec<Copied>,
    writers: Vec<ArrowColumnWriter>,
    /// Whether its file lacks what a new one says of it: bounds, or the key filter of a key.
    lacking: bool,
}

impl Group {
    /// Rows that are there afterwards.
    pub(super) fn rows(&self) -> usize {
        self.stored().saturating_sub(self.edits.drops.len())
    }

    fn stored(&self) -> usize {
        usize::try_from(self.opened.groups()[self.number].num_rows()).unwrap_or(0)
    }

    /// Whether the edits leave every row in the partition of its file.
    pub(super) fn stays(&self, schema: &Schema) -> Result<bool> {
        let (edits, rows) = self.edits.dense();
        for (name, value) in &self.opened.file.partition {
            let Ok(field) = schema.field_with_name(name) else {
                continue;
            };
            if self.patches.touch(name, &edits) {
                let before = constant(value.as_deref(), field, rows)?;
                if self.patches.edit(name, &before, &edits)?.is_some() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// The leaf columns with the edits done to them. `schema` is that of the file, which is the one that `writers` write,
    /// one for each leaf; those of the columns `filtered` make key filters.
    pub(super) async fn leaves(
        self,
        schema: SchemaRef,
        writers: Vec<ArrowColumnWriter>,
        filtered: Vec<String>,
    ) -> Result<Vec<Leaf>> {
        let copied = self.opened.copy(self.number).await?;
        if self.edits.is_empty() {
            return Ok(copied.into_iter().map(Leaf::Copied).collect());
        }
        let (mut copied, mut writers) = (copied.into_iter(), writers.into_iter());
        let mut jobs = Vec::new();
        for (number, field) in schema.fields().iter().enumerate() {
            let leaves = leaves_of(self.opened.columns(), number).len();
            let copied: Vec<Copied> = copied.by_ref().take(leaves).collect();
            // One of a leaf of a column is another writer's, and this one makes none.
            let has_filter = !field.data_type().is_nested() && filtered.contains(field.name());
            let lacks = |leaf: &Copied| {
                leaf.close.metadata.statistics().is_none() || has_filter && leaf.close.bloom_filter.is_none()
            };
            let column = Column {
                number,
                field: Arc::clone(field),
                lacking: copied.iter().any(lacks),
                copied,
                writers: writers.by_ref().take(leaves).collect(),
            };
            let sizes = column.copied.iter();
            let bytes: i64 = sizes.map(|leaf| leaf.close.metadata.uncompressed_size()).sum();
            jobs.push((usize::try_from(bytes).unwrap_or(0), column));
        }
        let leaves = in_parallel(jobs, move |column| self.rewrite(column)).await?;
        Ok(leaves.into_iter().flatten().collect())
    }

    fn rewrite(&self, mut column: Column) -> Result<Vec<Leaf>> {
        let as_it_is = |copied: Vec<Copied>| copied.into_iter().map(Leaf::Copied).collect();
        if !self.patches.touch(column.field.name(), &self.edits) {
            return Ok(as_it_is(column.copied));
        }
        let mut changed = column.lacking || !self.edits.drops.is_empty();
        let (mut unchanged, mut unchanged_bytes, mut start) = (Vec::new(), 0, 0);
        for values in self.decode(&column)? {
            let values = values?;
            let end = start + values.len() as u64;
            let edits = self.edits.within(&(start..end));
            start = end;
            let edited = self.patches.edit(column.field.name(), &values, &edits)?;
            changed |= edited.is_some();
            let mut values = edited.unwrap_or(values);
            if let Some(kept) = edits.kept(values.len()) {
                values = filter(&values, &kept).map_err(arrow_error)?;
            }
            if !changed {
                unchanged_bytes += bytes_of(&values);
                unchanged.push(values);
                changed = unchanged_bytes > UNCHANGED_BYTES_MAX;
                continue;
            }
            for values in unchanged.drain(..) {
                column.write(&values)?;
            }
            column.write(&values)?;
        }
        if start != self.stored() as u64 {
            return Err(Error::new(ErrorKind::Corrupt, "read data file")
                .with("file", &self.opened.file.path)
                .with("column", column.field.name())
                .with("problem", "it has not as many values as its row group has rows"));
        }
        if !changed {
            return Ok(as_it_is(column.copied));
        }
        for values in unchanged {
            column.write(&values)?;
        }
        let closed = column.writers.into_iter().map(ArrowColumnWriter::close);
        closed
            .map(|leaf| leaf.map(Leaf::Encoded).map_err(unencodable))
            .collect()
    }

    /// The values of `column`, some thousand at a time.
    fn decode(&self, column: &Column) -> Result<impl Iterator<Item = Result<ArrayRef>> + use<>> {
        let chunks = column.copied.iter().map(|leaf| leaf.chunk.clone());
        let metadata = self.opened.arrow_metadata().clone();
        let only = ProjectionMask::roots(metadata.parquet_schema(), [column.number]);
        let path = self.opened.file.path.clone();
        let rows = ParquetRecordBatchReaderBuilder::new_with_metadata(Chunks(chunks.collect()), metadata)
            .with_projection(only)
            .with_row_groups(vec![self.number])
            .with_batch_size(READ_ROWS)
            .build()
            .map_err(|source| unread(source, &path))?;
        let schema = Arc::new(Schema::new(vec![Arc::clone(&column.field)]));
        Ok(rows.map(move |rows| {
            let rows = rows.map_err(|source| unread(source.into(), &path))?;
            Ok(Arc::clone(shape(&rows, &schema, &[])?.column(0)))
        }))
    }
}

impl Column {
    /// Encodes `values` behind those before.
    fn write(&mut self, values: &ArrayRef) -> Result<()> {
        let leaves = compute_leaves(&self.field, values).map_err(unencodable)?;
        for (writer, leaf) in self.writers.iter_mut().zip(&leaves) {
            writer.write(leaf).map_err(unencodable)?;
        }
        Ok(())
    }
}

/// The leaves of the column `number`.
fn leaves_of(schema: &SchemaDescriptor, number: usize) -> Range<usize> {
    let of_column = |leaf: &usize| schema.get_column_root_idx(*leaf) == number;
    let first = (0..schema.num_columns()).find(of_column).unwrap_or_default();
    first..first + (0..schema.num_columns()).filter(of_column).count()
}
