//! Extraction against servers on loopback: scripted byte for byte, or answering by rule.

mod asking;
mod auth;
mod bounds;
mod complete;
mod conformance;
mod dialect;
mod earlier;
mod files;
mod flow;
mod gate;
mod guards;
mod headers;
mod jobs;
mod large;
mod logs;
mod paging;
mod parents;
mod policies;
mod quota;
mod requests;
mod resume;
pub(super) mod server;
mod slices;
mod whole;
mod wire;
