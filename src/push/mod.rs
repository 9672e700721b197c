//! What producers send with: a client that batches, packs, signs, repeats and resumes.
//!
//! ```text
//! records ─ Batcher ─► Batch ─ key, packed, signed ─► Client ─ 2xx ─► Sent: receipt, refused records
//!                                                       ▲  └ lost, 429, 503 … ─ wait: full jitter, Retry-After ─┐
//!                                                       └───────────────────────────────────────────────────────┘
//! file ─ Records ─ Batcher ─► channel of the server: each behind the last durable offset ─► Summary
//! ```
//!
//! Every batch has an idempotency key, or an offset in a channel: sent again, it is kept once.

pub mod batch;
pub mod channel;
pub mod client;
pub mod coding;
mod exchange;
pub mod key;
mod place;
pub mod producer;
mod reader;
pub mod records;
pub mod refused;
pub mod retry;
pub mod sent;
pub mod signature;
pub mod source;
pub mod target;
pub mod upload;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_headers;
