//! `landfall demo`

use std::{io::Write as _, path::PathBuf};

use crate::{
    cli::{DONE, Ended, output::data},
    clock::Clock,
    ops,
    report::write_error,
};

/// Load a sample API on this machine and show what comes of it
///
/// Starts a shop's API on loopback, writes a project that loads it, runs it on two days, and shows what was landed,
/// merged, set aside and found to drift. Needs no network. The folder is kept to try more.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// Where the project is written
    #[arg(value_name = "DIR", default_value = "landfall-demo")]
    dir: PathBuf,
}

pub(super) async fn run(args: &Args) -> Ended {
    let mut broken = None;
    let mut tell = |line: &str| {
        // Line by line, so that one can read along.
        let mut out = data();
        if let Err(error) = writeln!(out, "{line}").and_then(|()| out.flush()) {
            broken.get_or_insert(error);
        }
    };
    ops::demo::demo(&args.dir, Clock::system(), &mut tell).await?;
    match broken {
        Some(error) => Err(write_error(error).into()),
        None => Ok(DONE),
    }
}
