//! `--lineage`

use std::path::PathBuf;

use crate::{
    cli::{Failure, Global},
    ops::{Workspace, lineage::Lineage},
};

/// Where what was read and written is told.
#[derive(Debug, clap::Args)]
pub(super) struct LineageArg {
    /// Add what every run read and wrote to this file, as events of OpenLineage, one a line
    #[arg(long, value_name = "FILE")]
    lineage: Option<PathBuf>,
}

impl LineageArg {
    /// The project's workspace, in which runs are told.
    pub(super) fn workspace(&self, global: &Global) -> Result<Workspace, Failure> {
        let mut workspace = super::workspace(global)?;
        workspace.lineage = self.lineage.as_deref().map(Lineage::open).transpose()?;
        Ok(workspace)
    }
}
