//! What a merge found out, done to data files.
//!
//! ```text
//! edits of a file ─┬─ copy on write ─► the file anew (`edit`)
//!                  └─ merge on read ─► rows that change go to a new file ─► all rows of the edits marked in the old one
//! ```

use std::sync::Arc;

use deltalake::kernel::Action;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Table,
    deleted::{Deleted, VectorWriter},
    edit::{Edits, Patches},
    file::DataFile,
    merge::{MergeCounts, MergeOptions},
    write::Writer,
};
use crate::{
    config::WriteMode,
    error::{Error, ErrorKind, Result},
    failpoint,
};

/// Deletion vectors read at once.
const VECTORS_IN_FLIGHT_MAX: usize = 8;

/// Files changed.
#[derive(Default)]
pub(super) struct Changed {
    /// What takes the files of before out of the table and puts others in their place.
    pub(super) actions: Vec<Action>,
    /// Winners of [`Edits::replacements`] whose rows are in none of these files: they are to be written like new ones.
    pub(super) unwritten: Vec<usize>,
}

impl Table {
    /// Does its edits to each file of `edited`.
    ///
    /// `writer` is the one that new rows are written with, in the shape that the table gets.
    pub(super) async fn change(
        &self,
        mut edited: Vec<(DataFile, Edits)>,
        patches: &Patches,
        options: &MergeOptions,
        writer: &mut Writer,
        counts: &mut MergeCounts,
    ) -> Result<Changed> {
        let mut changed = Changed::default();
        if options.write_mode == WriteMode::MergeOnRead {
            // A reader of a file with a vector must be told how many rows it has.
            let known = edited.extract_if(.., |(file, _)| file.records().is_some());
            let known = known.collect();
            changed = self.mark(known, patches, writer, counts).await?;
        }
        let rewritten = self
            .rewrite(edited, patches, writer.schema(), &options.keys, counts)
            .await?;
        changed.actions.extend(rewritten);
        Ok(changed)
    }

    /// Marks every row of the edits as deleted. Those that only change are written with `writer`.
    async fn mark(
        &self,
        edited: Vec<(DataFile, Edits)>,
        patches: &Patches,
        writer: &mut Writer,
        counts: &mut MergeCounts,
    ) -> Result<Changed> {
        let store = self.store();
        let mut loaded = stream::iter(edited)
            .map(|(file, edits)| {
                let store = Arc::clone(&store);
                async move {
                    let deleted = Deleted::of(store.as_ref(), &file).await?;
                    Ok::<_, Error>((file, edits, deleted))
                }
            })
            .buffered(VECTORS_IN_FLIGHT_MAX);
        let mut vectors = VectorWriter::new(store.as_ref());
        let mut changed = Changed::default();
        while let Some((file, mut edits, mut deleted)) = loaded.try_next().await? {
            self.write_patched(&file, &mut edits, patches, writer).await?;
            deleted.extend(edits.gone());
            deleted.extend(edits.patches.iter().map(|(row, _)| *row));
            changed
                .unwritten
                .extend(edits.replacements.iter().map(|(_, winner)| *winner));
            changed.actions.push(Self::remove(&file));
            let records = file.records().unwrap_or(0);
            if deleted.len() > records {
                return Err(Error::new(ErrorKind::Corrupt, "mark rows as deleted")
                    .with("file", &file.path)
                    .with("problem", "it has fewer rows than are deleted"));
            }
            if deleted.len() < records {
                let vector = vectors.add(&deleted).await?;
                changed.actions.push(Action::Add(file.marked(vector)?));
                counts.files_marked += 1;
            }
        }
        vectors.finish().await?;
        failpoint::point("merge::marked");
        Ok(changed)
    }

    /// Writes the rows of `file` that the patches of `edits` change.
    async fn write_patched(
        &self,
        file: &DataFile,
        edits: &mut Edits,
        patches: &Patches,
        writer: &mut Writer,
    ) -> Result<()> {
        if edits.patches.is_empty() {
            return Ok(());
        }
        patches.refuse_unplaced(edits, writer.schema())?;
        edits.sort();
        let opened = self.open(file).await?;
        let rows: Vec<u64> = edits.patches.iter().map(|(row, _)| *row).collect();
        let mut batches = std::pin::pin!(opened.rows_at(&rows, Arc::clone(writer.schema()))?);
        let mut values = edits.patches.iter().map(|(_, at)| *at);
        while let Some(batch) = batches.try_next().await? {
            let of_batch = Edits {
                patches: (0..).zip(values.by_ref().take(batch.num_rows())).collect(),
                ..Edits::default()
            };
            writer.write(&patches.apply(batch, &of_batch)?).await?;
        }
        Ok(())
    }
}
