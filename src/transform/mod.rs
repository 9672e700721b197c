//! Raw batches to judged rows, as DataFusion plans. Reads raw and contracts; knows no table and no network.
//!
//! ```text
//! raw log (watermark, head] ─ scan (one partition per group of objects) ─ split ─┬─ accepted ──► rows in raw order
//!                                                                               ├─ quarantined ► rows with evidence
//!                                                                               └─ observed ───► drift
//! records that are not landed yet ─ verdicts ─ which will be quarantined, and why
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
mod settle;
pub mod split;
pub mod traces;
pub mod verdicts;
pub mod wanted;
