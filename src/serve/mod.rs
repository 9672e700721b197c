//! The push side's front door: what producers send over HTTP, kept safe before it is acknowledged.
//!
//! ```text
//! listen ─ edge ─ routes ─► call ─ door (who, may, how fast) ─ body ─┬ records ─┐
//!                                                                   └ webhook ─┴► deliver ─ ledger ─ spool ─► answer
//! admin  ─ health, metrics                                                                     └ landed ─► raw logs
//! ```

pub(crate) mod answer;
pub(crate) mod app;
pub mod body;
pub(crate) mod call;
pub(crate) mod catalog;
pub(crate) mod check;
pub(crate) mod deliver;
pub(crate) mod door;
pub mod edge;
pub(crate) mod health;
pub(crate) mod hooks;
pub(crate) mod landed;
pub mod listen;
pub(crate) mod metrics;
pub(crate) mod openapi;
pub mod problem;
pub(crate) mod receipts;
pub(crate) mod records;
pub mod request_id;
pub(crate) mod routes;
pub mod run;
pub mod shutdown;
pub mod tls;
pub mod trace;
pub(crate) mod webhook;

#[cfg(test)]
mod tests;
