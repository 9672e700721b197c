//! Land API responses raw, transform them into Delta tables afterwards.
//!
//! ```text
//! cli ─ serve   requests → deliveries                 what is acknowledged is durable
//! cli ─ ops ─┬─ extract    API → pages                    one place sends; what next, how long, is it an error: pure functions
//!            ├─ receive    deliveries → raw pages          signed, taken once, in a spool until they are in the lake
//!            ├─ raw        pages → log of raw batches     put-if-absent is the commit; the bookmark is inside the entry
//!            ├─ transform  raw batches → judged rows      DataFusion scan, one pass per record
//!            ├─ contract   what records should look like  pure: no I/O, no clock, bad data is a value
//!            ├─ table      rows → Delta                   merge by key; the `txn` of the commit is the watermark
//!            ├─ query      SQL over all of it             read only
//!            └─ report     rows → words
//! cli ─ push    records → a server, from where they are made: a client of our own, which knows nothing else of all this
//! format (bodies → records) stands below extract and transform, spill (rows beyond memory) below transform and table;
//! config, clock, error, json, yaml, fields, failpoint stand below all of these; stations never call each other, only `ops` joins them.
//! ```
//!
//! Where to change what: a pagination style in `extract/paginate.rs` and `config/`, a rule for a record in `contract/`, what
//! drift means in `contract/drift.rs`, merge behaviour in `table/merge.rs`, the disk format in `raw/log.rs` and
//! `raw/frame.rs`, a file format in `format/` and `config/format.rs`, a report in `report/` and `sql/reports/`, a command
//! in `ops/` and then `cli/`.

pub mod cli;
pub mod clock;
pub mod config;
pub mod contract;
pub mod error;
pub mod extract;
pub mod failpoint;
pub mod fields;
pub mod format;
pub mod json;
pub mod ops;
pub mod push;
pub mod query;
pub mod raw;
pub mod receive;
pub mod report;
pub mod serve;
pub mod spill;
pub mod table;
pub mod transform;
pub mod yaml;
