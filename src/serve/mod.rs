//! The push side's front door: what producers send over HTTP, kept safe before it is acknowledged.
//!
//! ```text
//! listen ─ edge ─ routes ─► call ─ door (who, may, how fast) ─ body ─┬ records ─┐
//!                                                                   └ webhook ─┴► ledger ─ ruling (contract) ─ spool ─► answer
//!                     └ receipts, lists ─ paging ─ lake (what became of it)
//!                     └ uploads ─ work (fetched, whole?) ─ batches ─► the same ruling and spool, through channels
//! admin  ─ health, metrics                                                                     └ landed ─► raw logs
//! ```
//!
//! What there is to be found is told by `catalog`, `openapi`, `asyncapi` and `docs`, all of them made of the table in `routes`
//! and of the project.

pub(crate) mod answer;
pub(crate) mod app;
pub(crate) mod aside;
pub(crate) mod asyncapi;
pub(crate) mod audit;
pub mod body;
pub(crate) mod call;
pub(crate) mod catalog;
pub(crate) mod channel;
pub(crate) mod check;
pub(crate) mod deliver;
pub(crate) mod docs;
pub(crate) mod door;
pub mod edge;
pub(crate) mod fan_out;
pub(crate) mod health;
pub(crate) mod hooks;
pub(crate) mod inspectors;
pub(crate) mod lake;
pub(crate) mod landed;
pub mod listen;
pub(crate) mod lists;
pub(crate) mod metrics;
pub(crate) mod offer;
pub(crate) mod openapi;
pub(crate) mod paging;
pub mod problem;
pub(crate) mod receipts;
pub(crate) mod records;
pub mod request_id;
pub(crate) mod routes;
pub(crate) mod ruling;
pub mod run;
pub(crate) mod schemas;
pub mod shutdown;
pub mod tls;
pub mod trace;
pub(crate) mod unusual;
pub(crate) mod uploads;
pub(crate) mod webhook;

#[cfg(test)]
mod tests;
