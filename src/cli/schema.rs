//! `landfall schema`

use crate::{
    cli::{DONE, Ended, output::print},
    config::read::{reference::reference, schema::schema},
};

/// Print what landfall.yml may hold, as a JSON Schema for editors or a reference for people
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    which: Which,
}

#[derive(Debug, clap::Subcommand)]
enum Which {
    /// The JSON Schema of landfall.yml
    Config,
    /// Every key of landfall.yml in Markdown: its meaning, its default and an example
    Reference,
}

pub(super) fn run(args: &Args) -> Ended {
    match args.which {
        Which::Config => print(&format!("{:#}\n", schema()))?,
        Which::Reference => print(&reference())?,
    }
    Ok(DONE)
}
