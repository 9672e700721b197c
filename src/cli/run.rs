//! `landfall run`

use crate::{
    cli::{
        DONE, Ended, Global,
        extract::{self, Range},
        output::{parse_format, rows},
        streams::Streams,
        transform::{self, MaxQuarantine},
        workspace,
    },
    ops::extract::Options,
    report::Format,
};

/// Extract, then transform
///
/// What was landed is loaded even if the extraction of its stream, or of another, failed.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    streams: Streams,
    #[command(flatten)]
    range: Range,
    #[command(flatten)]
    quarantine: MaxQuarantine,
    /// Also print rows, one per stream and step: table, json (one object a line) or csv
    #[arg(long, value_name = "FORMAT", value_parser = parse_format)]
    format: Option<Format>,
}

pub(super) async fn run(args: &Args, global: &Global) -> Ended {
    let workspace = workspace(global)?;
    let streams = args.streams.of(&workspace.project)?;
    workspace.prove_store().await?;
    let options = Options {
        streams: streams.clone(),
        scope: args.range.scope(),
    };
    let extracted = extract::extract(&workspace, &options, global.verbose > 0).await;
    let transformed = transform::transform(&workspace, &streams).await;
    if let Some(format) = args.format {
        rows(&extract::grid(&extracted), format)?;
        rows(&transform::grid(&transformed), format)?;
    }
    let code = extract::code(&extracted);
    Ok(if code == DONE {
        transform::code(&transformed, &args.quarantine)
    } else {
        code
    })
}
