//! Rewriting a data file: some of its rows go, some change, the others stay as they are.
//!
//! Row groups in which nothing changes are copied as bytes.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch},
    compute::{filter_record_batch, interleave, interleave_record_batch},
    datatypes::SchemaRef,
};
use deltalake::kernel::Action;
use futures::TryStreamExt as _;

use super::{
    Table,
    file::DataFile,
    latest::{Latest, arrow_error, with_column},
    merge::MergeCounts,
    tasks::side_by_side,
    write::Writer,
};
use crate::error::Result;

/// Files written anew at once: while one waits for the store, the cores work on another.
const REWRITES_IN_FLIGHT_MAX: usize = 2;

/// What happens to rows of one data file, by their number in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Edits {
    /// Rows that go.
    pub(super) drops: Vec<u64>,
    /// Rows of which some columns change, and which row of [`Patches`] holds their new values.
    pub(super) patches: Vec<(u64, usize)>,
    /// Rows in whose place another one comes, and which winner of the load it is.
    pub(super) replacements: Vec<(u64, usize)>,
}

impl Edits {
    pub(super) fn is_empty(&self) -> bool {
        self.drops.is_empty() && self.patches.is_empty() && self.replacements.is_empty()
    }

    /// The numbers of the rows that are not there afterwards.
    pub(super) fn gone(&self) -> impl Iterator<Item = u64> {
        self.drops
            .iter()
            .copied()
            .chain(self.replacements.iter().map(|(row, _)| *row))
    }

    /// Puts the rows in the order in which a file is read.
    pub(super) fn sort(&mut self) {
        self.drops.sort_unstable();
        self.patches.sort_unstable();
        self.replacements.sort_unstable();
    }

    /// What happens to the rows `span`, by their number in it. The edits are sorted.
    fn within(&self, span: &Range<u64>) -> Self {
        let pairs = |pairs: &[(u64, usize)]| {
            let (start, end) = (
                pairs.partition_point(|(row, _)| *row < span.start),
                pairs.partition_point(|(row, _)| *row < span.end),
            );
            pairs[start..end]
                .iter()
                .map(|(row, at)| (row - span.start, *at))
                .collect()
        };
        let (start, end) = (
            self.drops.partition_point(|row| *row < span.start),
            self.drops.partition_point(|row| *row < span.end),
        );
        Self {
            drops: self.drops[start..end]
                .iter()
                .map(|row| row - span.start)
                .collect(),
            patches: pairs(&self.patches),
            replacements: pairs(&self.replacements),
        }
    }
}

/// Where new values come from.
#[derive(Clone, Default)]
pub(super) struct Patches {
    /// Column name and values, all of one length.
    pub(super) columns: Vec<(&'static str, ArrayRef)>,
    /// The load whose winners replace rows. Its rows have the shape of the table.
    pub(super) latest: Option<Arc<Latest>>,
}

impl Patches {
    /// Marks a row as deleted: the only row of these patches.
    pub(super) fn deleted() -> Self {
        Self {
            columns: vec![("_deleted", Arc::new(BooleanArray::from(vec![true])))],
            latest: None,
        }
    }

    /// `batch` with `edits` done to it.
    pub(super) fn apply(&self, batch: RecordBatch, edits: &Edits) -> Result<RecordBatch> {
        let batch = self.replace(batch, &edits.replacements)?;
        let batch = self.patch(batch, &edits.patches)?;
        if edits.drops.is_empty() {
            return Ok(batch);
        }
        let mut keep = vec![true; batch.num_rows()];
        for row in &edits.drops {
            keep[*row as usize] = false;
        }
        filter_record_batch(&batch, &BooleanArray::from(keep)).map_err(arrow_error)
    }

    fn replace(&self, batch: RecordBatch, rows: &[(u64, usize)]) -> Result<RecordBatch> {
        let (Some(latest), false) = (&self.latest, rows.is_empty()) else {
            return Ok(batch);
        };
        let winners: Vec<usize> = rows.iter().map(|(_, winner)| *winner).collect();
        let others = latest.gather(&winners)?;
        let mut places: Vec<(usize, usize)> = (0..batch.num_rows()).map(|row| (0, row)).collect();
        for (other, (row, _)) in rows.iter().enumerate() {
            places[*row as usize] = (1, other);
        }
        interleave_record_batch(&[&batch, &others], &places).map_err(arrow_error)
    }

    fn patch(&self, batch: RecordBatch, rows: &[(u64, usize)]) -> Result<RecordBatch> {
        if rows.is_empty() {
            return Ok(batch);
        }
        let mut places: Vec<(usize, usize)> = (0..batch.num_rows()).map(|row| (0, row)).collect();
        for (row, at) in rows {
            places[*row as usize] = (1, *at);
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
    /// Writes each file of `edited` anew with its edits, several at once, and returns what puts the new files in the place
    /// of the old ones. New files get a key filter for each of `keys`.
    pub(super) async fn rewrite(
        &self,
        edited: Vec<(DataFile, Edits)>,
        patches: &Patches,
        schema: &SchemaRef,
        keys: &[String],
        counts: &mut MergeCounts,
    ) -> Result<Vec<Action>> {
        let rewriting = edited.into_iter().map(|(file, edits)| {
            let (table, patches, schema) = (self.clone(), patches.clone(), Arc::clone(schema));
            let keys = keys.to_vec();
            async move {
                let mut writer = table.writer(Arc::clone(&schema))?.with_filters(&keys);
                let copied = table
                    .copy_edited(&file, edits, &patches, &schema, &mut writer)
                    .await?;
                let mut actions = writer.close().await?;
                actions.push(Self::remove(&file));
                Ok((copied, actions))
            }
        });
        let mut actions = Vec::new();
        for (copied, of_file) in side_by_side(rewriting, REWRITES_IN_FLIGHT_MAX).await? {
            counts.files_rewritten += 1;
            counts.groups_copied += copied;
            actions.extend(of_file);
        }
        Ok(actions)
    }

    /// Writes the rows of `file` into `writer` in their order, with `edits` done to them, without those that are marked as
    /// deleted, and returns how many row groups
    /// were copied as they are.
    pub(super) async fn copy_edited(
        &self,
        file: &DataFile,
        mut edits: Edits,
        patches: &Patches,
        schema: &SchemaRef,
        writer: &mut Writer,
    ) -> Result<u64> {
        let opened = self.open(file).await?.with_pages().await?;
        edits.drops.extend(opened.deleted());
        edits.sort();
        writer.keep_filters(&opened);
        let mut copied = 0;
        for (number, span) in opened.spans().into_iter().enumerate() {
            let of_group = edits.within(&span);
            if of_group.is_empty() && writer.can_copy(&opened, number) {
                writer.copy(&file.partition, opened.copy(number).await?).await?;
                copied += 1;
                continue;
            }
            let mut rows = std::pin::pin!(opened.stored(number, Arc::clone(schema))?);
            let mut start = 0_u64;
            while let Some(batch) = rows.try_next().await? {
                let end = start + batch.num_rows() as u64;
                writer
                    .write(&patches.apply(batch, &of_group.within(&(start..end)))?)
                    .await?;
                start = end;
            }
        }
        Ok(copied)
    }

    /// The action that takes `file` out of the table.
    pub(super) fn remove(file: &DataFile) -> Action {
        Action::Remove(file.view.remove_action(true))
    }
}
