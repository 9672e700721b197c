//! `landfall maintain`

use crate::{
    cli::{
        DONE, Ended, Global,
        output::{FormatArg, rows, say},
        streams::Streams,
        workspace,
    },
    error::Result,
    ops::{
        self,
        maintain::{DryRun, Options, Step, StepResult, Task},
    },
    report::{counted, grid::Grid},
};

/// Exit code when a step failed.
const FAILED: u8 = 1;

/// Keep the lake small: expire, sweep, compact, checkpoint, vacuum
///
/// Small data files are put together, logs of tables are summed up, and what no reader and no replay needs any more is
/// deleted. Raw expires only where `retention` is set, and only what is loaded. Safe beside any other command; nothing is
/// deleted where a symbolic link stands. Uploads to S3 that were never completed cannot be seen from here: a lifecycle rule
/// of the bucket removes them.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    streams: Streams,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Only these, separated by commas: expire, sweep, compact, checkpoint, vacuum, logs
    #[arg(long, value_name = "TASKS", value_delimiter = ',', value_parser = parse_task)]
    only: Vec<Task>,
    #[command(flatten)]
    format: FormatArg,
}

fn parse_task(text: &str) -> Result<Task> {
    text.parse()
}

pub(super) async fn run(args: &Args, global: &Global) -> Ended {
    let workspace = workspace(global)?;
    let streams = args.streams.of(&workspace.project)?;
    let dry_run = if args.dry_run { DryRun::Yes } else { DryRun::No };
    if dry_run == DryRun::No {
        workspace.prove_store().await?;
    }
    let tasks = if args.only.is_empty() {
        Task::ALL.to_vec()
    } else {
        args.only.clone()
    };
    let steps = ops::maintain::maintain(&workspace, &streams, &Options { tasks, dry_run }).await;
    let told: Vec<&Step> = steps.iter().filter(|step| !step.result.is_nothing()).collect();
    rows(&grid(&told, dry_run), args.format.format)?;
    let mut failed = 0;
    for step in &told {
        if let StepResult::Failed { error } = &step.result {
            say(&format!("error: {} {}: {error}", step.task, step.place));
            failed += 1;
        }
    }
    let end = match (told.is_empty(), args.dry_run) {
        (true, _) => "nothing to do",
        (false, true) => "nothing was changed: this is a dry run",
        (false, false) => "done",
    };
    if failed > 0 {
        say(&counted(failed, "step failed", "steps failed"));
        return Ok(FAILED);
    }
    say(end);
    Ok(DONE)
}

fn grid(steps: &[&Step], dry_run: DryRun) -> Grid {
    let done = match dry_run {
        DryRun::Yes => "would",
        DryRun::No => "done",
    };
    let mut grid = Grid::new(&["task", "place", "objects", "bytes", "state", "note"]);
    for step in steps {
        let (objects, bytes, state, note) = match &step.result {
            StepResult::Done { objects, bytes, note } => (*objects, *bytes, done, note.clone()),
            StepResult::Kept { reason } => (0, 0, "kept", Some(reason.clone())),
            StepResult::Failed { error } => (0, 0, "failed", Some(error.clone())),
        };
        grid.rows.push(vec![
            step.task.as_str().into(),
            step.place.as_ref().into(),
            objects.into(),
            bytes.into(),
            state.into(),
            note.into(),
        ]);
    }
    grid
}
