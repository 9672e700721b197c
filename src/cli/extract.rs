//! `landfall extract`

use serde_json::Value;

use crate::{
    cli::{
        DONE, Ended, Global,
        lineage::LineageArg,
        output::{parse_format, say},
        progress::{Board, Fetched},
        streams::Streams,
    },
    config::{Project, StreamName},
    ops::{
        self, Workspace,
        extract::{Channels, Options, Outcome, hydrate::DeadLetters},
    },
    report::{Format, counted, grid::Grid},
};

/// Requests shown of one stream by a dry run.
const REQUESTS_SHOWN_MAX: usize = 20;

/// Fetch pages from the APIs and land them raw
///
/// Goes on where the last run stopped. Pages are stored as they came; no schema is involved.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    streams: Streams,
    #[command(flatten)]
    range: Range,
    /// Show the requests that would be sent first, and send none
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    lineage: LineageArg,
    /// Also print one row per stream: table, json (one object a line) or csv
    #[arg(long, value_name = "FORMAT", value_parser = parse_format)]
    format: Option<Format>,
}

/// What is asked for instead of what changed.
#[derive(Debug, clap::Args)]
pub(super) struct Range {
    /// Ask for everything again, whatever is landed already
    #[arg(long, conflicts_with_all = ["from", "to"])]
    complete: bool,
    /// Backfill: read history again from here, written as the stream's cursor; the watermark does not move
    #[arg(long, value_name = "CURSOR", requires = "to")]
    from: Option<String>,
    /// Also try events again that were given up because their record could not be fetched
    #[arg(long, conflicts_with_all = ["from", "to"])]
    retry_dead_letters: bool,
    /// Also forget the events that were given up, after saying which
    #[arg(long, conflicts_with_all = ["from", "to", "retry_dead_letters"])]
    discard_dead_letters: bool,
    /// Where the backfill ends
    #[arg(long, value_name = "CURSOR", requires = "from")]
    to: Option<String>,
}

impl Range {
    /// Of `streams` those that there is an API for.
    pub(super) fn options(&self, project: &Project, mut streams: Vec<StreamName>) -> Options {
        streams.retain(|name| is_pulled(project, name));
        let mut options = match (&self.from, &self.to) {
            (Some(from), Some(to)) => Options::backfill(streams, from.clone(), to.clone()),
            _ if self.complete => Options::complete(streams),
            _ => Options::changes(streams),
        };
        if self.retry_dead_letters {
            options.dead_letters = DeadLetters::Retried;
        } else if self.discard_dead_letters {
            options.dead_letters = DeadLetters::Discarded;
        }
        options
    }
}

fn is_pulled(project: &Project, name: &StreamName) -> bool {
    project.stream(name).is_ok_and(|(_, stream)| stream.is_pulled())
}

/// Says of which of `streams` there is no API to ask.
pub(super) fn tell_pushed(project: &Project, streams: &[StreamName]) {
    for name in streams.iter().filter(|name| !is_pulled(project, name)) {
        say(&format!("{name}  is fed by producers: nothing to extract"));
    }
}

pub(super) async fn run(args: &Args, global: &Global) -> Ended {
    let workspace = args.lineage.workspace(global)?;
    let streams = args.streams.of(&workspace.project)?;
    tell_pushed(&workspace.project, &streams);
    let options = args.range.options(&workspace.project, streams);
    if args.dry_run {
        return dry_run(&workspace, &options, args.format.unwrap_or(Format::Table)).await;
    }
    workspace.prove_store().await?;
    let outcomes = extract(
        &workspace,
        &Channels::open(&workspace),
        &options,
        global.verbose > 0,
    )
    .await;
    if let Some(format) = args.format {
        super::output::rows(&grid(&outcomes), format)?;
    }
    Ok(code(&outcomes))
}

async fn dry_run(workspace: &Workspace, options: &Options, format: Format) -> Ended {
    let mut grid = Grid::new(&["stream", "method", "url", "since", "until", "slice"]);
    let mut code = DONE;
    for (stream, planned) in ops::extract::plan(workspace, options, REQUESTS_SHOWN_MAX).await {
        let planned = match planned {
            Ok(planned) => planned,
            Err(error) => {
                say(&format!("{stream}  error: {}", error.chain()));
                code = error.kind().exit_code();
                continue;
            }
        };
        for request in planned {
            let slice = (!request.slice.is_empty()).then(|| Value::Object(request.slice).to_string());
            grid.rows.push(vec![
                stream.to_string().into(),
                request.method.into(),
                request.url.into(),
                request.since.into(),
                request.until.into(),
                slice.into(),
            ]);
        }
    }
    super::output::rows(&grid, format)?;
    Ok(code)
}

/// Extracts with progress on stderr and a line for every stream at the end.
pub(super) async fn extract(
    workspace: &Workspace,
    channels: &Channels,
    options: &Options,
    logging: bool,
) -> Vec<Outcome> {
    let board = Board::new(logging);
    let outcomes = ops::extract::extract(workspace, channels, options, &|name, progress| {
        board.add(name, move || {
            let counts = progress.counts();
            Fetched {
                pages: counts.pages,
                records: counts.records,
                retries: counts.retries,
            }
        });
    })
    .await;
    drop(board);
    for outcome in &outcomes {
        say(&line(outcome));
        for note in outcome.result.iter().flat_map(|extracted| &extracted.notes) {
            say(&format!("{}  note: {note}", outcome.stream));
        }
    }
    outcomes
}

fn line(outcome: &Outcome) -> String {
    match &outcome.result {
        Ok(extracted) => {
            let counts = &extracted.counts;
            let mut line = format!(
                "{}  extracted {} in {} ({})",
                outcome.stream,
                counted(counts.records, "record", "records"),
                counted(counts.pages, "page", "pages"),
                counted(extracted.batches, "batch", "batches"),
            );
            if counts.retries > 0 {
                line.push_str(&format!(", {}", counted(counts.retries, "retry", "retries")));
            }
            if counts.cursors_missing > 0 {
                let records = counted(counts.cursors_missing, "record", "records");
                line.push_str(&format!(", {records} without a readable cursor"));
            }
            line
        }
        Err(error) => format!("{}  extract failed: {}", outcome.stream, error.chain()),
    }
}

/// The exit code: the first failure decides.
pub(super) fn code(outcomes: &[Outcome]) -> u8 {
    let first = outcomes.iter().find_map(|outcome| outcome.result.as_ref().err());
    first.map_or(DONE, |error| error.kind().exit_code())
}

/// One row per stream.
pub(super) fn grid(outcomes: &[Outcome]) -> Grid {
    let mut grid = Grid::new(&[
        "stream", "step", "batches", "pages", "records", "bytes", "requests", "retries", "error",
    ]);
    for outcome in outcomes {
        let (extracted, error) = match &outcome.result {
            Ok(extracted) => (Some(extracted), None),
            Err(error) => (None, Some(error.chain())),
        };
        let counts = extracted.map(|extracted| extracted.counts);
        grid.rows.push(vec![
            outcome.stream.to_string().into(),
            "extract".into(),
            extracted.map(|extracted| extracted.batches).into(),
            counts.map(|counts| counts.pages).into(),
            counts.map(|counts| counts.records).into(),
            counts.map(|counts| counts.bytes).into(),
            counts.map(|counts| counts.requests).into(),
            counts.map(|counts| counts.retries).into(),
            error.into(),
        ]);
    }
    grid
}
