//! `landfall transform`

use crate::{
    cli::{
        DONE, Ended, Global, OVER_QUARANTINE,
        lineage::LineageArg,
        output::{parse_format, say},
        streams::Streams,
    },
    config::StreamName,
    ops::{self, Workspace, transform::Outcome},
    report::{Format, count, counted, grid::Grid},
};

/// Load landed records into their tables
///
/// Needs no API: it reads what was landed since the last load, judges it, and merges it. Safe to repeat: what is
/// loaded already is not loaded again.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    streams: Streams,
    #[command(flatten)]
    quarantine: MaxQuarantine,
    /// Say what the next load of each stream would do, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    lineage: LineageArg,
    /// Also print one row per stream: table, json (one object a line) or csv
    #[arg(long, value_name = "FORMAT", value_parser = parse_format)]
    format: Option<Format>,
}

/// `--max-quarantine`
#[derive(Debug, clap::Args)]
pub(super) struct MaxQuarantine {
    /// End with exit code 4 if more records than this are quarantined; the load stands all the same
    #[arg(long, value_name = "RECORDS")]
    max_quarantine: Option<u64>,
}

pub(super) async fn run(args: &Args, global: &Global) -> Ended {
    let workspace = args.lineage.workspace(global)?;
    let streams = args.streams.of(&workspace.project)?;
    workspace.prove_store().await?;
    let outcomes = if args.dry_run {
        preview(&workspace, &streams).await
    } else {
        transform(&workspace, &streams).await
    };
    if let Some(format) = args.format {
        super::output::rows(&grid(&outcomes), format)?;
    }
    Ok(code(&outcomes, &args.quarantine))
}

/// A line for every stream about its next load.
async fn preview(workspace: &Workspace, streams: &[StreamName]) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(streams.len());
    for stream in streams {
        let outcome = Outcome {
            stream: stream.clone(),
            result: Box::pin(ops::transform::preview(workspace, stream)).await,
        };
        for line in lines(&outcome) {
            say(&line.replace("  loaded ", "  would load "));
        }
        outcomes.push(outcome);
    }
    outcomes
}

/// Transforms with a line for every stream at its end.
pub(super) async fn transform(workspace: &Workspace, streams: &[StreamName]) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(streams.len());
    for stream in streams {
        let done = ops::transform::transform(workspace, std::slice::from_ref(stream)).await;
        tell(&done);
        outcomes.extend(done);
    }
    outcomes
}

/// Says how each stream ended.
pub(super) fn tell(outcomes: &[Outcome]) {
    for line in outcomes.iter().flat_map(lines) {
        say(&line);
    }
}

fn lines(outcome: &Outcome) -> Vec<String> {
    let name = &outcome.stream;
    let done = match &outcome.result {
        Ok(done) => done,
        Err(error) => return vec![format!("{name}  transform failed: {}", error.chain())],
    };
    let mut lines = Vec::new();
    if let Some(path) = &done.drafted {
        lines.push(format!(
            "{name}  had no contract: one was drafted from its records, {}",
            path.display()
        ));
    }
    if done.loads == 0 {
        lines.push(format!("{name}  nothing new to load"));
        return lines;
    }
    let mut line = format!(
        "{name}  loaded {} read = {} merged + {} superseded + {} quarantined",
        count(done.read),
        count(done.merged),
        count(done.superseded),
        count(done.quarantined),
    );
    if done.deleted > 0 {
        line.push_str(&format!(", {}", counted(done.deleted, "deletion", "deletions")));
    }
    if done.rescued > 0 {
        line.push_str(&format!(", {} rescued", count(done.rescued)));
    }
    lines.push(line);
    if let Some(pass) = &done.pass {
        lines.push(format!(
            "{name}  complete pass: {} missing, {} changed, {} gone of {}",
            count(pass.missing),
            count(pass.changed),
            count(pass.absent),
            counted(pass.live, "row", "rows"),
        ));
    }
    if let Some(held) = done.pass.map(|pass| pass.held).filter(|held| *held > 0) {
        lines.push(format!(
            "{name}  {} that the pass did not bring stay: more than delete_ratio_max allows, or keys that cannot be read",
            counted(held, "row", "rows"),
        ));
    }
    if done.quarantined > 0 {
        lines.push(format!("{name}  see them with: landfall quarantine list {name}"));
    }
    if done.changes > 0 {
        let changes = counted(done.changes, "change", "changes");
        lines.push(format!(
            "{name}  {changes} against the contract, see: landfall drift {name}"
        ));
    }
    lines
}

/// The exit code: the first failure decides, then the quarantine.
pub(super) fn code(outcomes: &[Outcome], limit: &MaxQuarantine) -> u8 {
    let first = outcomes.iter().find_map(|outcome| outcome.result.as_ref().err());
    if let Some(error) = first {
        return error.kind().exit_code();
    }
    let quarantined: u64 = outcomes
        .iter()
        .flat_map(|outcome| &outcome.result)
        .map(|done| done.quarantined)
        .sum();
    match limit.max_quarantine {
        Some(max) if quarantined > max => {
            say(&format!(
                "{} quarantined, more than --max-quarantine {max}",
                counted(quarantined, "record", "records")
            ));
            OVER_QUARANTINE
        }
        _ => DONE,
    }
}

/// One row per stream.
pub(super) fn grid(outcomes: &[Outcome]) -> Grid {
    let mut grid = Grid::new(&[
        "stream",
        "step",
        "loads",
        "read",
        "merged",
        "superseded",
        "quarantined",
        "deleted",
        "absent",
        "absent_held",
        "rescued",
        "changes",
        "error",
    ]);
    for outcome in outcomes {
        let (done, error) = match &outcome.result {
            Ok(done) => (Some(done), None),
            Err(error) => (None, Some(error.chain())),
        };
        grid.rows.push(vec![
            outcome.stream.to_string().into(),
            "transform".into(),
            done.map(|done| done.loads).into(),
            done.map(|done| done.read).into(),
            done.map(|done| done.merged).into(),
            done.map(|done| done.superseded).into(),
            done.map(|done| done.quarantined).into(),
            done.map(|done| done.deleted).into(),
            done.and_then(|done| done.pass).map(|pass| pass.absent).into(),
            done.and_then(|done| done.pass).map(|pass| pass.held).into(),
            done.map(|done| done.rescued).into(),
            done.map(|done| done.changes).into(),
            error.into(),
        ]);
    }
    grid
}
