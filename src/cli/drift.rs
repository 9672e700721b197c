//! `landfall drift`

use crate::{
    cli::{
        DONE, Ended, Global,
        output::{FormatArg, print, query},
        streams::Streams,
        workspace,
    },
    report::{
        Format,
        drift::{frame, text},
    },
};

/// Report what the data did that the contracts do not say
///
/// Fields nobody declared, declared ones that are gone, other types, new values of a list: each with how often, of how
/// many, when first and last, and what was done about it. `landfall.drift` has it load by load.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    #[command(flatten)]
    streams: Streams,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) async fn run(args: &Args, global: &Global) -> Ended {
    let workspace = workspace(global)?;
    let streams = args.streams.of(&workspace.project)?;
    let session = workspace.session()?;
    match args.format.format {
        Format::Table => print(&text(&session, &streams).await?)?,
        format => query(frame(&session, &streams).await?, format).await?,
    }
    Ok(DONE)
}
