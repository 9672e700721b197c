//! Extraction against servers on loopback: scripted byte for byte, or answering by rule.

mod dialect;
mod flow;
mod guards;
mod logs;
mod resume;
pub(super) mod server;
mod wire;
