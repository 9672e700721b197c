//! `landfall schema`

use crate::{
    cli::{DONE, Ended, output::print},
    config::read,
};

/// Print the JSON Schema of a project file, for editors
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    which: Which,
}

#[derive(Debug, clap::Subcommand)]
enum Which {
    /// The schema of landfall.yml
    Config,
}

pub(super) fn run(args: &Args) -> Ended {
    match args.which {
        Which::Config => print(read::SCHEMA)?,
    }
    Ok(DONE)
}
