//! `landfall rebuild`

use crate::{
    cli::{
        DONE, Ended, Global,
        differences::{self, Replaying},
        output::{FormatArg, rows, say},
        streams, workspace,
    },
    config::StreamName,
    ops::{
        self,
        rebuild::{End, NEXT, Options, Rebuilt, Then, stage::Begin},
    },
    report::counted,
};

/// Make a table from raw once more, by today's contract and settings
///
/// Replays every landed batch into a table beside the live one, without one request to the API, and compares the two.
/// With --promote it takes the place of the live table in one atomic commit; without, it stays where it is, to be looked
/// at with `landfall diff` or promoted later. An interrupted rebuild goes on where it stopped.
///
/// This is how a new column is filled for all of history, how keys, nesting or scd_type are changed in retrospect, and
/// how a table comes back whose files are damaged.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// The stream
    #[arg(value_name = "STREAM", value_parser = streams::name)]
    stream: StreamName,
    /// Stop behind this raw batch: the table as of then, which stays beside the live one
    #[arg(long, value_name = "BATCH", value_parser = clap::value_parser!(i64).range(0..))]
    at: Option<i64>,
    /// Put the rebuilt table in the place of the live one
    #[arg(long)]
    promote: bool,
    /// Remove what is staged, and do nothing else
    #[arg(long, conflicts_with_all = ["promote", "from_scratch"])]
    discard: bool,
    /// Start over, even if an earlier rebuild by the same rules could be gone on with
    #[arg(long)]
    from_scratch: bool,
    /// Most rows shown of each kind of difference
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    limit: u32,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) async fn run(args: &Args, global: &Global) -> Ended {
    let workspace = workspace(global)?;
    workspace.prove_store().await?;
    let stream = &args.stream;
    if args.discard {
        let id = args.at.map_or_else(|| NEXT.to_owned(), ops::rebuild::as_of);
        ops::rebuild::discard(&workspace, stream, &id).await?;
        say(&format!("{stream}  nothing is staged as {id} any more"));
        return Ok(DONE);
    }
    let options = Options {
        at: args.at,
        begin: if args.from_scratch {
            Begin::Anew
        } else {
            Begin::Resume
        },
        then: if args.promote { Then::Promote } else { Then::Keep },
        limit: args.limit as usize,
    };
    let replaying = Replaying::new(stream);
    let progress = |batch| replaying.at(batch);
    let rebuilt = ops::rebuild::rebuild(&workspace, stream, options, &progress).await?;
    if let Some(review) = &rebuilt.review {
        let mut grid = differences::grid();
        differences::add_rows(&mut grid, stream, review);
        if !grid.rows.is_empty() {
            rows(&grid, args.format.format)?;
        }
    }
    lines(&rebuilt).iter().for_each(|line| say(line));
    Ok(DONE)
}

fn lines(rebuilt: &Rebuilt) -> Vec<String> {
    let stream = &rebuilt.stream;
    let mut lines = vec![format!("{stream}  replayed raw up to batch {}", rebuilt.until)];
    match (&rebuilt.review, &rebuilt.unreadable) {
        (Some(review), _) if review.rows.is_equal() => {
            lines.push(format!(
                "{stream}  {} the same in the live table",
                counted(review.rows.equal, "row is", "rows are")
            ));
            lines.extend(differences::lines(stream, review));
        }
        (Some(review), _) => lines.extend(differences::lines(stream, review)),
        (None, Some(error)) => lines.push(format!("{stream}  the live table cannot be read: {error}")),
        (None, None) => lines.push(format!("{stream}  there is no live table to compare with")),
    }
    lines.push(match rebuilt.end {
        End::Same => format!("{stream}  the live table is what raw gives, and stays"),
        End::Promoted { version } => format!("{stream}  promoted: the live table has the rebuilt rows, as version {version}"),
        End::Kept => format!(
            "{stream}  staged as {} in {} of the lake; see `landfall diff {stream}{}`, `landfall rebuild {stream} --promote`",
            rebuilt.id,
            rebuilt.path,
            if rebuilt.id == NEXT { String::new() } else { format!(" --staged {}", rebuilt.id) },
        ),
    });
    lines
}
