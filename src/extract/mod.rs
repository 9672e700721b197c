//! Pull: from an API's pages to raw pages.
//!
//! ```text
//! Bookmark ─ window (since, token) ─ request ─► client ─ fetch (limit, retry, redirects) ─► Response
//!     ▲                                                                                       │
//!     └── bookmark after the page ◄── paginate (next token) ◄── reading (records, cursors) ◄──┘
//! ```
//!
//! Decisions are pure functions of what was answered: [`retry::decide`], [`paginate::next`], [`reading::read`],
//! [`quota::read`]. Only [`client`] sends, only [`fetch`] waits. Nothing here writes to storage or knows a schema.
//!
//! # What counts as an answer
//!
//! | answer | sent again | handed out | the extraction |
//! |---|---|---|---|
//! | 2xx, an empty array at the records path | | page | page number and offset end here, others follow their token |
//! | 2xx, JSON in which the records path leads nowhere (`null`, `{"data":null}`, `{"error":…}`) | no | as evidence | fails, `Refused` |
//! | 2xx, not JSON (a login page, text) | yes | the last one as evidence | fails, `Refused` |
//! | 2xx with an empty body | yes | | fails, `Refused` |
//! | 204, 205 | no | | fails, `Refused` |
//! | a body that ends too soon | yes | | fails, `Unavailable` |
//! | 2xx, no records path but GraphQL errors `RATE_LIMITED` or `THROTTLED` | yes | | fails, `Unavailable` |
//! | 408, 429, 5xx, 403 that says how long to wait | yes | | fails, `Unavailable` |
//! | any other status, a certificate that does not hold | no | | fails, `Refused` |
//! | more bytes than a limit allows | no | | fails, `Limit` |
//!
//! Zero records and no records path are different things: only the first is an end.

mod attempt;
pub mod auth;
mod body;
pub mod bounds;
pub mod breaker;
pub mod channel;
pub mod client;
pub mod cost;
pub mod cursor;
pub mod decode;
pub mod facts;
pub mod fetch;
pub mod graphql;
pub mod limit;
pub mod link;
pub mod mask;
pub mod paginate;
pub mod parents;
pub mod progress;
mod pull;
pub mod quota;
pub mod reading;
pub mod request;
pub mod retry;
pub mod rules;
mod send;
pub mod shape;
pub mod spool;
pub mod sweep;
pub mod window;
mod wire;

#[cfg(test)]
mod tests;
