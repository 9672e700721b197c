//! `landfall gaps`

use crate::{
    cli::{
        DONE, Ended, Global,
        output::{FormatArg, rows, say},
        streams::Streams,
        workspace,
    },
    ops::{self, gaps::Gap},
    report::{counted, grid::Grid},
};

/// Exit code when there is a gap.
const GAPS: u8 = 1;

/// Show what is missing, repeated or short: windows, slices, parents and pages
///
/// Exit code 1 if there is anything to show, so that a scheduler can watch it.
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
    let gaps = ops::gaps::gaps(&workspace, &streams).await?;
    rows(&grid(&gaps), args.format.format)?;
    if gaps.is_empty() {
        say("no gaps");
        return Ok(DONE);
    }
    say(&counted(gaps.len() as u64, "gap", "gaps"));
    Ok(GAPS)
}

fn grid(gaps: &[Gap]) -> Grid {
    let mut grid = Grid::new(&["stream", "gap", "since", "text"]);
    for gap in gaps {
        grid.rows.push(vec![
            gap.stream.to_string().into(),
            gap.kind.into(),
            gap.since.map(|since| since.to_rfc3339()).into(),
            gap.text.as_str().into(),
        ]);
    }
    grid
}
