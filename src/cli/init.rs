//! `landfall init`

use std::path::PathBuf;

use crate::{
    cli::{DONE, Ended, Global, output::say},
    ops,
};

/// Begin a project: a commented landfall.yml and a folder for contracts
///
/// Existing files are never overwritten.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where; the project folder if not given
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &Args, global: &Global) -> Ended {
    let dir = args.dir.as_ref().unwrap_or(&global.project);
    for path in ops::init::init(dir)? {
        say(&format!("wrote {}", path.display()));
    }
    say("next: put your API into landfall.yml, then run `landfall check --connect`");
    Ok(DONE)
}
