//! Raw batches to judged rows, as DataFusion plans. Reads raw and contracts; knows no table and no network.
//!
//! ```text
//! raw log (watermark, head] ─ scan (one partition per group of objects) ─ split ─┬─ accepted ──► rows in raw order
//!                                                                               ├─ quarantined ► rows with evidence
//!                                                                               └─ observed ───► drift
//! ```

pub mod align;
pub mod condition;
pub mod judges;
mod lane;
pub mod quality;
pub mod quarantine;
pub mod repeated;
pub mod runs;
pub mod scan;
pub mod split;
pub mod wanted;
