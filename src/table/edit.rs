//! Rewriting a data file: some of its rows go, some change, the others stay as they are.
//!
//! Row groups in which nothing changes are copied as bytes, and so are columns of the others (`columns`).

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{Array as _, ArrayRef, BooleanArray, RecordBatch, UInt64Array},
    compute::{filter_record_batch, interleave, take},
    datatypes::{Schema, SchemaRef},
};
use deltalake::kernel::Action;
use futures::TryStreamExt as _;
use tokio::sync::Semaphore;

use super::{
    Table,
    columns::Group,
    file::DataFile,
    latest::{Latest, arrow_error},
    merge::MergeCounts,
    opened::Opened,
    tasks::side_by_side,
    write::Writer,
};
use crate::error::Result;

/// Files written anew at once, with those of which only the last parts are still on the way to the store.
const REWRITES_IN_FLIGHT_MAX: usize = 3;

/// Mebibytes of files whose rows are edited at once: several small ones, which wait for the store most of the time, or one
/// that is large and keeps all cores busy by itself. So memory does not follow the number of files. One that is not edited
/// column by column is read as one stream, which keeps one core busy, and counts half.
const EDITED_MIB_MAX: u32 = 64;

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
        self.drops.dedup();
        self.patches.sort_unstable();
        self.replacements.sort_unstable();
    }

    /// The changes alone, as if they were those of the first rows, and how many rows they need at least.
    pub(super) fn dense(&self) -> (Self, usize) {
        let renumbered = |pairs: &[(u64, usize)]| (0..).zip(pairs.iter().map(|(_, at)| *at)).collect();
        let dense = Self {
            drops: Vec::new(),
            patches: renumbered(&self.patches),
            replacements: renumbered(&self.replacements),
        };
        (dense, self.patches.len().max(self.replacements.len()))
    }

    /// For each of `rows` rows whether it stays, if some go.
    pub(super) fn kept(&self, rows: usize) -> Option<BooleanArray> {
        if self.drops.is_empty() {
            return None;
        }
        let mut keep = vec![true; rows];
        for row in &self.drops {
            keep[*row as usize] = false;
        }
        Some(BooleanArray::from(keep))
    }

    /// What happens to the rows `span`, by their number in it. The edits are sorted.
    pub(super) fn within(&self, span: &Range<u64>) -> Self {
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
        let fields = batch.schema_ref().fields().iter().zip(batch.columns());
        let columns = fields.map(|(field, values)| {
            let edited = self.edit(field.name(), values, edits)?;
            Ok(edited.unwrap_or_else(|| Arc::clone(values)))
        });
        let columns = columns.collect::<Result<_>>()?;
        let batch = RecordBatch::try_new(batch.schema(), columns).map_err(arrow_error)?;
        match edits.kept(batch.num_rows()) {
            Some(kept) => filter_record_batch(&batch, &kept).map_err(arrow_error),
            None => Ok(batch),
        }
    }

    /// Refuses `edits` with new values for a column that `schema` has not: they would be lost without a word.
    pub(super) fn refuse_unplaced(&self, edits: &Edits, schema: &Schema) -> Result<()> {
        if !edits.patches.is_empty() {
            for (name, _) in &self.columns {
                schema.index_of(name).map_err(arrow_error)?;
            }
        }
        Ok(())
    }

    /// Whether `edits` can change the column `name`.
    pub(super) fn touch(&self, name: &str, edits: &Edits) -> bool {
        !edits.drops.is_empty()
            || !edits.replacements.is_empty()
            || !edits.patches.is_empty() && self.columns.iter().any(|(column, _)| *column == name)
    }

    /// `values`, those of the column `name`, with what `edits` replace and patch; nothing if they stay what they are.
    /// Rows that are dropped are still there.
    pub(super) fn edit(&self, name: &str, values: &ArrayRef, edits: &Edits) -> Result<Option<ArrayRef>> {
        let mut edited = None;
        if let (Some(latest), false) = (&self.latest, edits.replacements.is_empty()) {
            let winners: Vec<usize> = edits.replacements.iter().map(|(_, winner)| *winner).collect();
            let rows = edits.replacements.iter().map(|(row, _)| *row);
            edited = spliced(values, rows, &latest.gather_column(name, &winners)?)?;
        }
        let patch = self.columns.iter().find(|(column, _)| *column == name);
        if let (Some((_, patch)), false) = (patch, edits.patches.is_empty()) {
            let places = edits.patches.iter().map(|(_, at)| *at as u64);
            let patch = take(patch, &UInt64Array::from_iter_values(places), None).map_err(arrow_error)?;
            let rows = edits.patches.iter().map(|(row, _)| *row);
            edited = spliced(edited.as_ref().unwrap_or(values), rows, &patch)?.or(edited);
        }
        Ok(edited)
    }
}

/// `values` with `others` in the places `rows`; nothing if they are there already.
fn spliced(
    values: &ArrayRef,
    rows: impl Iterator<Item = u64> + Clone,
    others: &ArrayRef,
) -> Result<Option<ArrayRef>> {
    let before = take(values, &UInt64Array::from_iter_values(rows.clone()), None).map_err(arrow_error)?;
    if *before == *others {
        return Ok(None);
    }
    let mut places: Vec<(usize, usize)> = (0..values.len()).map(|row| (0, row)).collect();
    for (other, row) in rows.enumerate() {
        places[row as usize] = (1, other);
    }
    let spliced = interleave(&[values.as_ref(), others.as_ref()], &places);
    spliced.map(Some).map_err(arrow_error)
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
        let room = Arc::new(Semaphore::new(EDITED_MIB_MAX as usize));
        let rewriting = edited.into_iter().map(|(file, edits)| {
            let (table, patches, schema) = (self.clone(), patches.clone(), Arc::clone(schema));
            let (keys, room) = (keys.to_vec(), Arc::clone(&room));
            async move {
                let mut writer = table.writer(Arc::clone(&schema))?.with_filters(&keys);
                let opened = Arc::new(table.open(&file).await?.with_pages().await?);
                let most = if writer.edits_columns_of(&opened) {
                    EDITED_MIB_MAX
                } else {
                    EDITED_MIB_MAX / 2
                };
                let size = u32::try_from(file.bytes >> 20).unwrap_or(u32::MAX);
                // Nobody closes it.
                let taken = room.acquire_many(size.clamp(1, most)).await;
                let copied = Self::write_edited(&opened, edits, &patches, &schema, &mut writer).await?;
                writer.settle_all().await?;
                drop(taken);
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
    /// deleted, and returns how many row groups were copied as they are.
    pub(super) async fn copy_edited(
        &self,
        file: &DataFile,
        edits: Edits,
        patches: &Patches,
        schema: &SchemaRef,
        writer: &mut Writer,
    ) -> Result<u64> {
        let opened = Arc::new(self.open(file).await?.with_pages().await?);
        Self::write_edited(&opened, edits, patches, schema, writer).await
    }

    /// The same of a file whose footer was read.
    async fn write_edited(
        opened: &Arc<Opened>,
        mut edits: Edits,
        patches: &Patches,
        schema: &SchemaRef,
        writer: &mut Writer,
    ) -> Result<u64> {
        patches.refuse_unplaced(&edits, schema)?;
        edits.drops.extend(opened.deleted());
        edits.sort();
        writer.keep_filters(opened);
        let mut copied = 0;
        for (number, span) in opened.spans().into_iter().enumerate() {
            let of_group = edits.within(&span);
            let group = Group {
                opened: Arc::clone(opened),
                number,
                edits: of_group,
                patches: patches.clone(),
            };
            if group.rows() == 0 {
                continue;
            }
            if writer.can_edit(&group)? {
                copied += u64::from(group.edits.is_empty());
                writer.edit(group).await?;
                continue;
            }
            let of_group = group.edits;
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
