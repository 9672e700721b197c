//! `landfall status`

use std::path::PathBuf;

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
    /// Also write the figures to this file, as OpenMetrics text for a monitor's agent
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
}

pub(super) async fn run(args: &Args, global: &Global) -> Ended {
    let workspace = workspace(global)?;
    let streams = args.streams.of(&workspace.project)?;
    if let Some(file) = &args.metrics {
        ops::metrics::write(&workspace, None, &streams, file).await?;
    }
    let statuses = ops::status::status(&workspace, &streams).await?;
    match args.format.format {
        Format::Table => print(&text(&statuses, workspace.clock.now()))?,
        format => rows(&grid(&statuses), format)?,
    }
    Ok(DONE)
}
