//! `landfall schema`

use crate::{
    cli::{DONE, Ended, output::print},
    config::read::{reference::reference, schema::schema},
};

/// What stands beside a page. Written by hand; a test holds it against what is landed.
const PAGE: &str = include_str!("../raw/schema/page.json");

/// An entry of a raw log. Written by hand, too.
const ENTRY: &str = include_str!("../raw/schema/entry.json");

/// Print what landfall.yml may hold, and what stands beside the bodies in raw
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
    /// The JSON Schema of what stands beside each page in its raw object
    Page,
    /// The JSON Schema of an entry of a raw log
    Entry,
}

pub(super) fn run(args: &Args) -> Ended {
    match args.which {
        Which::Config => print(&format!("{:#}\n", schema()))?,
        Which::Reference => print(&reference())?,
        Which::Page => print(PAGE)?,
        Which::Entry => print(ENTRY)?,
    }
    Ok(DONE)
}
