//! `landfall verify`

use crate::{
    cli::{
        DONE, Ended, Global,
        differences::{self, Replaying},
        output::{FormatArg, rows, say},
        streams::Streams,
        workspace,
    },
    config::StreamName,
    error::ErrorKind,
    ops::{self, children::Child, verify::Verified},
    report::{count, counted},
};

/// Check that every table is what its raw records give, and that raw is what was landed
///
/// Reads all of raw against its checksums, replays it beside the live table up to where that one is, and compares the
/// two row by row. Changes nothing, and nothing of the replay stays. Rows that differ go to stdout, with their likely
/// cause. Ends with exit code 1 if anything differs.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    #[command(flatten)]
    streams: Streams,
    /// Most rows shown of each kind of difference, per stream
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    limit: u32,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) async fn run(args: &Args, global: &Global) -> Ended {
    let workspace = workspace(global)?;
    let streams = args.streams.of(&workspace.project)?;
    workspace.prove_store().await?;
    let mut grid = differences::grid();
    let mut code = DONE;
    for stream in &streams {
        let replaying = Replaying::new(stream);
        let progress = |batch| replaying.at(batch);
        let ended = match ops::verify::verify(&workspace, stream, args.limit as usize, &progress).await {
            Ok(verified) => {
                lines(&verified).iter().for_each(|line| say(line));
                if let Some(replay) = &verified.replay {
                    differences::add_rows(&mut grid, stream, &replay.review);
                }
                if verified.is_sound() {
                    DONE
                } else {
                    ErrorKind::Corrupt.exit_code()
                }
            }
            Err(error) => {
                say(&format!("{stream}  verify failed: {}", error.chain()));
                error.kind().exit_code()
            }
        };
        code = if code == DONE { ended } else { code };
    }
    if !grid.rows.is_empty() {
        rows(&grid, args.format.format)?;
    }
    Ok(code)
}

/// What is wrong with a child table, if anything.
fn child_line(stream: &StreamName, child: &Child) -> Option<String> {
    let table = format!("{stream}__{}", child.name);
    if child.is_behind {
        return Some(format!(
            "{table}  shows an older version of {stream}; `landfall transform {stream}` brings it up"
        ));
    }
    (!child.rows.is_equal()).then(|| {
        format!(
            "{table}  {} from what raw gives; `landfall rebuild {stream} --promote` makes it anew",
            counted(child.rows.different(), "row differs", "rows differ")
        )
    })
}

fn lines(verified: &Verified) -> Vec<String> {
    let (stream, raw) = (&verified.stream, &verified.raw);
    let mut lines = Vec::new();
    for flaw in &raw.flaws {
        lines.push(format!("{stream}  raw is damaged: {}: {}", flaw.key, flaw.reason));
    }
    if raw.flawed > raw.flaws.len() as u64 {
        lines.push(format!(
            "{stream}  raw is damaged in {} places",
            count(raw.flawed)
        ));
    }
    if raw.flawed == 0 {
        lines.push(format!(
            "{stream}  raw is what was landed: {}, {}",
            counted(raw.entries, "batch", "batches"),
            counted(raw.objects, "object", "objects")
        ));
    }
    match &verified.replay {
        Some(replay) if replay.is_equal() => lines.push(format!(
            "{stream}  {} what raw gives up to batch {}",
            counted(replay.review.rows.equal, "row is", "rows are"),
            replay.until
        )),
        Some(replay) => {
            if replay.review.rows.is_equal() {
                lines.push(format!(
                    "{stream}  {} what raw gives up to batch {}, but not all else is",
                    counted(replay.review.rows.equal, "row is", "rows are"),
                    replay.until
                ));
            }
            lines.extend(differences::lines(stream, &replay.review));
            lines.extend(
                replay
                    .children
                    .iter()
                    .filter_map(|child| child_line(stream, child)),
            );
        }
        None if raw.has_holes => lines.push(format!(
            "{stream}  raw cannot be replayed, so the table was not compared"
        )),
        None => lines.push(format!("{stream}  nothing was loaded yet")),
    }
    lines
}
