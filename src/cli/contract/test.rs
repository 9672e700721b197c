//! `landfall contract test`

use std::{path::PathBuf, time::Duration};

use crate::{
    cli::{
        DONE, Ended, Global,
        output::{FormatArg, rows, say},
        streams, workspace,
    },
    config::{StreamName, read::values::parse_duration},
    error::{Error, ErrorKind, Result},
    ops::{
        contract::rehearse::{Effect, Since, rehearse},
        quarantine::Mask,
    },
    report::{count, counted},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The stream
    #[arg(value_name = "STREAM", value_parser = streams::name)]
    stream: StreamName,
    /// The proposed contract
    #[arg(long, value_name = "FILE")]
    contract: PathBuf,
    /// Only what was landed so long ago or later, as in 90d; everything if neither this nor --from is given
    #[arg(long, value_name = "AGE", value_parser = age)]
    since: Option<Duration>,
    /// Only this raw batch and those behind it
    #[arg(long, value_name = "BATCH", conflicts_with = "since")]
    from: Option<i64>,
    /// Show values of classified columns, too
    #[arg(long)]
    reveal: bool,
    #[command(flatten)]
    format: FormatArg,
}

fn age(text: &str) -> Result<Duration> {
    parse_duration(text).ok_or_else(|| {
        Error::new(ErrorKind::Config, "read age")
            .with("found", text)
            .with("expected", "a duration such as 12h or 90d")
    })
}

pub(super) async fn run(args: &Args, global: &Global) -> Ended {
    let workspace = workspace(global)?;
    let since = match (args.since, args.from) {
        (Some(age), _) => Since::Age(age),
        (None, Some(batch)) => Since::Batch(batch),
        (None, None) => Since::Beginning,
    };
    let found = Box::pin(rehearse(&workspace, &args.stream, &args.contract, since)).await?;
    let mask = if args.reveal { Mask::No } else { Mask::Yes };
    rows(&found.grid(mask), args.format.format)?;
    let seconds = found.took.as_secs_f64().max(0.001);
    say(&format!(
        "{}  {} in {} read: {} would break, {} would heal, {} stay aside, {} warnings; {} rescued today, {} then",
        args.stream,
        counted(found.read, "record", "records"),
        counted(found.batches, "batch", "batches"),
        count(found.count(Effect::Breaks)),
        count(found.count(Effect::Heals)),
        count(found.count(Effect::Stays)),
        count(found.count(Effect::Warns)),
        count(found.rescued.0),
        count(found.rescued.1),
    ));
    if found.expired > 0 {
        say(&format!(
            "{} left out: raw of them has expired, so nobody knows what either contract says to their records",
            counted(found.expired, "batch", "batches"),
        ));
    }
    say(&format!(
        "{seconds:.1} s, {} records per second, each judged twice",
        count((found.read as f64 / seconds) as u64)
    ));
    if found.count(Effect::Breaks) > 0 {
        return Ok(ErrorKind::Contract.exit_code());
    }
    Ok(DONE)
}
