//! `landfall status`

use crate::{
    cli::{
        DONE, Ended, Global,
        output::{FormatArg, print, rows},
        streams::Streams,
        workspace,
    },
    ops,
    report::{
        Format,
        status::{grid, text},
    },
};

/// Show how far every stream is: landed, loaded, behind, quarantined
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    streams: Streams,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) async fn run(args: &Args, global: &Global) -> Ended {
    let workspace = workspace(global)?;
    let streams = args.streams.of(&workspace.project)?;
    let statuses = ops::status::status(&workspace, &streams).await?;
    match args.format.format {
        Format::Table => print(&text(&statuses, workspace.clock.now()))?,
        format => rows(&grid(&statuses), format)?,
    }
    Ok(DONE)
}
