//! `landfall token`

use crate::{
    cli::{
        DONE, Ended,
        output::{print, say},
    },
    ops,
};

/// Make a token for a producer
///
/// The token goes to stdout, once, and is kept nowhere: give it to the producer. Its hash goes to stderr: it is no secret,
/// and belongs into landfall.yml under `producers.NAME.tokens.NAME.hash`.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {}

pub(super) fn run(_: &Args) -> Ended {
    let (token, hash) = ops::token::token();
    print(&format!("{token}\n"))?;
    say(&format!("hash: {hash}"));
    Ok(DONE)
}
