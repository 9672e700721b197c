//! Rewriting a data file: some of its rows go, some change a few values, the others stay as they are.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch},
    compute::{filter_record_batch, interleave},
    datatypes::SchemaRef,
};
use deltalake::{datafile::writer::DeltaWriter, kernel::Action};
use futures::TryStreamExt as _;

use super::{
    Table,
    file::{DataFile, write},
    latest::{arrow_error, with_column},
};
use crate::error::Result;

/// What happens to rows of one data file, by their number in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Edits {
    /// Rows that go.
    pub(super) drops: Vec<u64>,
    /// Rows of which some columns change, and which row of [`Patches`] holds their new values.
    pub(super) patches: Vec<(u64, usize)>,
}

impl Edits {
    pub(super) fn is_empty(&self) -> bool {
        self.drops.is_empty() && self.patches.is_empty()
    }

    /// Puts the rows in the order in which a file is read.
    fn sort(&mut self) {
        self.drops.sort_unstable();
        self.patches.sort_unstable();
    }
}

/// New values of some columns.
#[derive(Clone, Debug, Default)]
pub(super) struct Patches {
    /// Column name and values, all of one length.
    pub(super) columns: Vec<(&'static str, ArrayRef)>,
}

impl Patches {
    /// Marks a row as deleted: the only row of these patches.
    pub(super) fn deleted() -> Self {
        Self {
            columns: vec![("_deleted", Arc::new(BooleanArray::from(vec![true])))],
        }
    }

    /// `batch` whose row `place` takes the values at `at`, for each pair of `rows`.
    fn apply(&self, batch: RecordBatch, rows: &[(usize, usize)]) -> Result<RecordBatch> {
        if rows.is_empty() {
            return Ok(batch);
        }
        let mut places: Vec<(usize, usize)> = (0..batch.num_rows()).map(|row| (0, row)).collect();
        for (place, at) in rows {
            places[*place] = (1, *at);
        }
        let mut patched = batch;
        for (name, values) in &self.columns {
            let index = patched.schema_ref().index_of(name).map_err(arrow_error)?;
            let column = interleave(&[patched.column(index).as_ref(), values.as_ref()], &places);
            patched = with_column(&patched, name, column.map_err(arrow_error)?)?;
        }
        Ok(patched)
    }
}

impl Table {
    /// Copies the rows of `file` into `writer` in their order, with `edits` done to them.
    pub(super) async fn copy_edited(
        &self,
        file: &DataFile,
        mut edits: Edits,
        patches: &Patches,
        schema: &SchemaRef,
        writer: &mut DeltaWriter,
    ) -> Result<()> {
        edits.sort();
        let mut drops = edits.drops.into_iter().peekable();
        let mut changes = edits.patches.into_iter().peekable();
        let mut start = 0_u64;
        let mut batches = std::pin::pin!(self.read(file, Arc::clone(schema)).await?);
        while let Some(batch) = batches.try_next().await? {
            let end = start + batch.num_rows() as u64;
            let mut keep = vec![true; batch.num_rows()];
            while let Some(row) = drops.next_if(|row| *row < end) {
                keep[(row - start) as usize] = false;
            }
            let mut changed = Vec::new();
            while let Some((row, at)) = changes.next_if(|(row, _)| *row < end) {
                changed.push(((row - start) as usize, at));
            }
            let patched = patches.apply(batch, &changed)?;
            let kept = filter_record_batch(&patched, &BooleanArray::from(keep)).map_err(arrow_error)?;
            write(writer, &kept).await?;
            start = end;
        }
        Ok(())
    }

    /// The action that takes `file` out of the table.
    pub(super) fn remove(file: &DataFile) -> Action {
        Action::Remove(file.view.remove_action(true))
    }
}
