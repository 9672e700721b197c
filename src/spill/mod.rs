//! Rows of a load that memory has no room for: in files without names, sorted by key.
//!
//! ```text
//! rows ─► Gathered ─┬─ as many as there is room for: in memory, as they came
//!                   └─ more: runs in a file, each sorted by key ─► Slices: all rows of a range of keys at a time
//! ```
//!
//! A slice is a range of keys and not of their hashes: it meets only those files of a table whose bounds hold that range,
//! and slice after slice the rows come in the order of their keys.

pub mod gathered;
mod run;
pub mod scratch;
pub mod slices;
