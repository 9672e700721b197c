//! `landfall drift`

use std::{path::PathBuf, time::Duration};

use crate::{
    cli::{
        DONE, Ended, Global,
        output::{FormatArg, print, rows, say},
        streams::{self, Streams},
        workspace,
    },
    config::{StreamName, read::values::parse_duration},
    error::{Error, ErrorKind},
    ops::{
        Workspace,
        drift::{AckOptions, acknowledge, drift, proposals},
    },
    report::{
        Format, counted,
        drift::{
            Filter, Severity, State, StreamDrift,
            page::page,
            text::{grid, text},
        },
    },
};

/// Changes are open, and `--fail-on` asks for a failure then.
const OPEN_CHANGES: u8 = 1;

/// Report what the data did that the contracts do not say
///
/// Fields nobody declared, declared ones that are gone, other types, new values of a list, values that are missing more
/// often than before, other volumes, page sizes and statuses: each with how often, of how many, since when, with samples, and
/// what was done about it. A change is one alert, however often it comes and goes:
///
///   open          it waits for somebody
///   acknowledged  `landfall drift ack` said that it is known; it opens again when it shows something else
///   resolved      7 days without it, or a newer contract by which it is none
///
///   breaking       records are set aside or refused: rows are missing from the table
///   at risk        rows are there, but values that were declared or usual are not
///   informational  nothing declared is missing
///
/// With `--format json` a line for each change: stream, path, kind, severity, state, effect, expected, found, seen, records,
/// loads, times, first_seen, last_seen, contract_first, contract_last, samples, acknowledged_at, note, renamed_to.
/// `landfall.drift` has it load by load, `landfall.profiles` how often each path had a value.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment, args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    streams: Streams,
    /// Show acknowledged and resolved changes too
    #[arg(long)]
    all: bool,
    /// Only changes seen within this time, such as 7d
    #[arg(long, value_name = "DURATION", value_parser = parse_since)]
    since: Option<Duration>,
    /// Write one HTML file that needs nothing else, with everything in it
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Exit with 1 if changes are open: all of them, those at risk and worse, or breaking ones
    #[arg(long, value_name = "WHAT")]
    fail_on: Option<FailOn>,
    #[command(flatten)]
    format: FormatArg,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Say that changes are known, as they were seen so far
    Ack {
        /// The stream
        #[arg(value_name = "STREAM", value_parser = streams::name)]
        stream: StreamName,
        /// Where; what is in it is meant too. All changes if it is left out
        path: Option<String>,
        /// Only changes of this kind, such as unknown
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
        /// What to say about them
        #[arg(long, value_name = "TEXT", default_value = "")]
        note: String,
    },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum FailOn {
    Open,
    Risk,
    Breaking,
}

fn parse_since(text: &str) -> Result<Duration, Error> {
    parse_duration(text).ok_or_else(|| {
        Error::new(ErrorKind::Config, "read duration")
            .with("found", text)
            .with("expected", "a number with a unit, such as 7d or 12h")
    })
}

pub(super) async fn run(args: &Args, global: &Global) -> Ended {
    let workspace = workspace(global)?;
    if let Some(Action::Ack {
        stream,
        path,
        kind,
        note,
    }) = &args.action
    {
        let options = AckOptions {
            stream: stream.clone(),
            path: path.clone(),
            kind: kind.clone(),
            note: note.clone(),
        };
        return ack(&workspace, &options).await;
    }
    let streams = args.streams.of(&workspace.project)?;
    let found = drift(&workspace, &streams).await?;
    let now = workspace.clock.now();
    let filter = Filter {
        all: args.all,
        since: args.since.map(|since| now - since),
    };
    let fails = args
        .fail_on
        .is_some_and(|what| is_over(what, filter.apply(found.clone())));
    match (&args.html, args.format.format) {
        (Some(file), _) => {
            let wanted = Filter { all: true, ..filter };
            let wanted = wanted.apply(found);
            let proposals = proposals(&workspace, &wanted).await?;
            write(file, &page(&wanted, &proposals, now)?)?;
            say(&format!("written: {}", file.display()));
        }
        (None, Format::Table) => print(&text(found, filter)?)?,
        (None, format) => rows(&grid(&filter.apply(found)), format)?,
    }
    Ok(if fails { OPEN_CHANGES } else { DONE })
}

/// Whether something is open that asks for a failure.
fn is_over(what: FailOn, shown: Vec<StreamDrift>) -> bool {
    let worst = match what {
        FailOn::Open => Severity::Informational,
        FailOn::Risk => Severity::AtRisk,
        FailOn::Breaking => Severity::Breaking,
    };
    let mut findings = shown.iter().flat_map(|drift| &drift.findings);
    findings.any(|finding| finding.state == State::Open && finding.severity <= worst)
}

async fn ack(workspace: &Workspace, options: &AckOptions) -> Ended {
    workspace.project.stream(&options.stream)?;
    let known = acknowledge(workspace, options).await?;
    for finding in &known {
        say(&format!("acknowledged: {} {}", finding.place(), finding.kind));
    }
    let number = counted(known.len() as u64, "change", "changes");
    say(&format!("{number} of {} acknowledged", options.stream));
    Ok(DONE)
}

fn write(file: &std::path::Path, html: &str) -> Result<(), Error> {
    std::fs::write(file, html).map_err(|source| {
        Error::new(ErrorKind::Config, "write report")
            .with("path", file.display())
            .caused_by(source)
    })
}
