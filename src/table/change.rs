//! What a merge found out, done to data files.

use deltalake::kernel::Action;

use super::{
    Table,
    edit::{Edits, Patches},
    file::DataFile,
    merge::{MergeCounts, MergeOptions},
    write::Writer,
};
use crate::error::Result;

/// Files changed.
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
        edited: Vec<(DataFile, Edits)>,
        patches: &Patches,
        options: &MergeOptions,
        writer: &mut Writer,
        counts: &mut MergeCounts,
    ) -> Result<Changed> {
        let actions = self
            .rewrite(edited, patches, writer.schema(), &options.keys, counts)
            .await?;
        Ok(Changed {
            actions,
            unwritten: Vec::new(),
        })
    }
}
