//! `landfall quarantine release`

use crate::{
    cli::{DONE, Ended, output::say, streams},
    config::StreamName,
    error::{Error, ErrorKind},
    ops::{
        Workspace,
        release::{DryRun, Released, Which, release},
    },
    report::{count, counted},
};

/// Reasons told of records that still do not fit.
const REASONS_TOLD_MAX: usize = 10;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The stream
    #[arg(value_name = "STREAM", value_parser = streams::name)]
    stream: StreamName,
    /// Only records with this first reason, such as type_mismatch
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    /// Only records with a reason at this place, as `list` prints it
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Only records of this raw batch
    #[arg(long, value_name = "N")]
    batch: Option<i64>,
    /// Only records that this load set aside
    #[arg(long, value_name = "ID")]
    load: Option<String>,
    /// All records of the stream
    #[arg(long, conflicts_with_all = ["class", "path", "batch", "load"])]
    all: bool,
    /// Say what would be released, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(args: &Args, workspace: &Workspace) -> Ended {
    let which = Which {
        class: args.class.clone(),
        path: args.path.clone(),
        batch: args.batch,
        load_id: args.load.clone(),
    };
    if which == Which::default() && !args.all {
        return Err(Error::new(ErrorKind::Config, "release quarantined records")
            .with("problem", "it is not said which")
            .with("hint", "give --class, --path, --batch or --load, or --all")
            .into());
    }
    let dry_run = if args.dry_run {
        DryRun::Yes
    } else {
        workspace.prove_store().await?;
        DryRun::No
    };
    let released = Box::pin(release(workspace, &args.stream, &which, dry_run)).await?;
    for line in lines(&args.stream, &released, dry_run) {
        say(&line);
    }
    Ok(DONE)
}

fn lines(stream: &StreamName, done: &Released, dry_run: DryRun) -> Vec<String> {
    if done.chosen == 0 {
        return vec![format!("{stream}  nothing of that is quarantined")];
    }
    let verb = match dry_run {
        DryRun::Yes => "would release",
        DryRun::No => "released",
    };
    let mut line = format!(
        "{stream}  {verb} {} of {}: {} merged + {} superseded",
        count(done.released),
        counted(done.chosen, "record", "records"),
        count(done.merged),
        count(done.superseded),
    );
    if done.quarantined > 0 {
        line.push_str(&format!(
            " + {} set aside out of pages that can be read now",
            count(done.quarantined)
        ));
    }
    if done.deleted > 0 {
        line.push_str(&format!(", {}", counted(done.deleted, "deletion", "deletions")));
    }
    if done.rescued > 0 {
        line.push_str(&format!(", {} rescued", count(done.rescued)));
    }
    let mut lines = vec![line];
    if done.refused > 0 {
        lines.push(format!(
            "{stream}  {} and {} in the quarantine",
            counted(done.refused, "still does not fit", "still do not fit"),
            if done.refused == 1 { "stays" } else { "stay" }
        ));
    }
    if done.missing > 0 {
        lines.push(format!(
            "{stream}  {} in the quarantine: raw has nothing at that position any more",
            counted(done.missing, "stays", "stay"),
        ));
    }
    let mut reasons: Vec<_> = done.reasons.iter().collect();
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    for ((class, path), number) in reasons.iter().take(REASONS_TOLD_MAX) {
        let place = if path.is_empty() {
            String::new()
        } else {
            format!(" at {path}")
        };
        lines.push(format!(
            "  {}: {class}{place}",
            counted(**number, "record", "records")
        ));
    }
    if reasons.len() > REASONS_TOLD_MAX {
        lines.push(format!("  and {} more reasons", reasons.len() - REASONS_TOLD_MAX));
    }
    lines
}
