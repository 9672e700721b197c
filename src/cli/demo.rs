//! `landfall demo`
use crate::cli::{DONE, Ended};
/// Stub
#[derive(Debug, clap::Args)]
pub(super) struct Args {}
pub(super) async fn run(_args: &Args) -> Ended { Ok(DONE) }
