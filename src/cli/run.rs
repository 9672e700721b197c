//! `landfall run`

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::{
        DONE, Ended, Global,
        extract::{self, Range},
        lineage::LineageArg,
        output::{parse_format, rows, say},
        streams::Streams,
        transform::{self, MaxQuarantine},
    },
    clock::Timestamp,
    config::{Name, StreamName},
    error::{Error, ErrorKind},
    ops::{
        self, Workspace,
        extract::Channels,
        heard::ears::Ears,
        metrics,
        schedule::{Due, Timetable},
    },
    report::Format,
};

/// Extract and transform
///
/// Large streams are loaded while they are still extracted. What was landed is loaded even if the extraction of its stream, or of another, failed.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    streams: Streams,
    #[command(flatten)]
    range: Range,
    /// Stay, and run every stream at the times of its `schedule`, and at once what events name or what was pushed and never came; ends with a signal
    #[arg(long, conflicts_with_all = ["complete", "from", "to", "retry_dead_letters", "discard_dead_letters"])]
    watch: bool,
    #[command(flatten)]
    quarantine: MaxQuarantine,
    /// Write the figures to this file after every run, and while it stays once a minute or oftener, as OpenMetrics text for a
    /// monitor's agent
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
    #[command(flatten)]
    lineage: LineageArg,
    /// Also print rows, one per stream and step: table, json (one object a line) or csv
    #[arg(long, value_name = "FORMAT", value_parser = parse_format)]
    format: Option<Format>,
}

/// The longest sleep between two looks at the clock, which may be set.
const LOOK_EVERY: Duration = Duration::from_secs(30);

pub(super) async fn run(args: &Args, global: &Global) -> Ended {
    let workspace = args.lineage.workspace(global)?;
    let streams = args.streams.of(&workspace.project)?;
    workspace.prove_store().await?;
    let channels = Channels::open(&workspace);
    extract::tell_pushed(&workspace.project, &streams);
    if args.watch {
        return watch(&workspace, &channels, &streams, args, global).await;
    }
    let (_, ended) = once(&workspace, &channels, &streams, &[], args, global).await;
    if let Some(file) = &args.metrics {
        Box::pin(metrics::write(&workspace, Some(&channels), &streams, file)).await?;
    }
    ended
}

/// Extracts and loads `streams`, and of `only_events` no more than what events name. Returns those whose extraction failed,
/// too.
async fn once(
    workspace: &Workspace,
    channels: &Channels,
    streams: &[StreamName],
    only_events: &[StreamName],
    args: &Args,
    global: &Global,
) -> (Vec<StreamName>, Ended) {
    let mut options = args.range.options(&workspace.project, streams.to_vec());
    options.only_events = only_events.to_vec();
    let (extracted, transformed) = tokio::join!(
        extract::extract(workspace, channels, &options, global.verbose > 0),
        ops::transform::follow(workspace, streams, &options.landings),
    );
    let failed = extracted.iter().filter(|outcome| outcome.result.is_err());
    let failed = failed.map(|outcome| outcome.stream.clone()).collect();
    (failed, tell(&extracted, &transformed, args))
}

fn tell(extracted: &[ops::extract::Outcome], transformed: &[ops::transform::Outcome], args: &Args) -> Ended {
    transform::tell(transformed);
    if let Some(format) = args.format {
        rows(&extract::grid(extracted), format)?;
        rows(&transform::grid(transformed), format)?;
    }
    let code = extract::code(extracted);
    Ok(if code == DONE {
        transform::code(transformed, &args.quarantine)
    } else {
        code
    })
}

/// Runs every stream at the times of its schedule until the program is told to stop. A run that fails is told, and the
/// next one comes at its time.
async fn watch(
    workspace: &Workspace,
    channels: &Channels,
    streams: &[StreamName],
    args: &Args,
    global: &Global,
) -> Ended {
    let mut timetable = Timetable::new(&workspace.project, streams, workspace.clock.now());
    if timetable.is_empty() {
        return Err(Error::new(ErrorKind::Config, "watch streams")
            .with("problem", "none of them has a schedule, gaps or hydrate")
            .with("hint", "add schedule: 15m to a stream")
            .into());
    }
    let mut terminate = signal(SignalKind::terminate())
        .map_err(|cause| Error::new(ErrorKind::Internal, "listen for signals").caused_by(cause))?;
    let mut runs = FuturesUnordered::new();
    let (mut ears, mut listened_at) = (Ears::default(), None::<Timestamp>);
    // Sources that were running when it was listened last.
    let mut unheard: BTreeSet<Name> = BTreeSet::new();
    // Ends with a signal. What is cut off then is as after a crash: the next run goes on where it stopped.
    loop {
        let now = workspace.clock.steady();
        if listened_at.is_none_or(|at| (now - at).to_std().is_ok_and(|passed| passed >= LOOK_EVERY)) {
            let (busy, idle): (Vec<_>, Vec<_>) =
                (streams.iter().cloned()).partition(|stream| timetable.is_running(&stream.source));
            for (stream, call) in ears.called(workspace, &idle).await {
                timetable.call(&stream, call);
            }
            unheard = busy.into_iter().map(|stream| stream.source).collect();
            listened_at = Some(now);
        }
        for due in timetable.due(workspace.clock.now()) {
            runs.push(async move {
                let Due {
                    streams, only_events, ..
                } = &due;
                let run = once(workspace, channels, streams, only_events, args, global);
                let (failed, ended) = Box::pin(run).await;
                (due, failed, ended)
            });
        }
        // The file says so itself when it is old; that it cannot be written must not stop the runs.
        if let Some(file) = &args.metrics
            && let Err(error) = Box::pin(metrics::write(workspace, Some(channels), streams, file)).await
        {
            say(&error.chain());
        }
        let until = timetable
            .next()
            .map(|next| (next - workspace.clock.now()).to_std());
        let wait = until.map_or(LOOK_EVERY, |wait| wait.unwrap_or_default().min(LOOK_EVERY));
        tokio::select! {
            Some((due, failed, ended)) = runs.next(), if !runs.is_empty() => {
                timetable.ended(&due.source);
                ears.ended(&due.streams, &failed, workspace.clock.steady());
                if unheard.remove(&due.source) {
                    listened_at = None;
                }
                if let Err(failure) = ended {
                    say(&format!("{}  {failure:?}", due.source));
                }
            }
            () = tokio::time::sleep(wait) => {}
            _ = tokio::signal::ctrl_c() => return Ok(DONE),
            _ = terminate.recv() => return Ok(DONE),
        }
    }
}
