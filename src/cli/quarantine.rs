//! `landfall quarantine`
use crate::cli::{DONE, Ended, Global};
/// Stub
#[derive(Debug, clap::Args)]
pub(super) struct Args {}
pub(super) async fn run(_args: &Args, _global: &Global) -> Ended { Ok(DONE) }
