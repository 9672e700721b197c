//! `landfall diff`

use crate::{
    cli::{
        DONE, Ended, Global, differences,
        output::{FormatArg, rows, say},
        streams, workspace,
    },
    config::{Name, StreamName},
    ops::{self, rebuild::NEXT},
    report::counted,
};

/// Compare a rebuilt table with the live one, row by row
///
/// Prints one line per value that differs, with its likely cause; a row that one of the tables lacks is printed whole.
/// `landfall rebuild STREAM` makes the table to compare with.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// The stream
    #[arg(value_name = "STREAM", value_parser = streams::name)]
    stream: StreamName,
    /// The name of the staged table, as `rebuild` says it
    #[arg(long, value_name = "ID", default_value = NEXT, value_parser = Name::new)]
    staged: Name,
    /// Most rows of each kind of difference
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    limit: u32,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) async fn run(args: &Args, global: &Global) -> Ended {
    let workspace = workspace(global)?;
    let stream = &args.stream;
    let review = ops::rebuild::diff(&workspace, stream, args.staged.as_str(), args.limit as usize).await?;
    let mut grid = differences::grid();
    differences::add_rows(&mut grid, stream, &review);
    if !grid.rows.is_empty() {
        rows(&grid, args.format.format)?;
    }
    let mut lines = differences::lines(stream, &review);
    if lines.is_empty() {
        lines.push(format!(
            "{stream}  {} equal",
            counted(review.rows.equal, "row is", "rows are")
        ));
    }
    lines.iter().for_each(|line| say(line));
    Ok(DONE)
}
