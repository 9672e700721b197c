//! Pull: from an API's pages to raw pages.
//!
//! ```text
//! Bookmark ─ window (since, token) ─ request ─► fetch (rules, retries) ─► channel (credential, budget, host) ─► client
//!     ▲                                                                                                          │
//!     └── bookmark after the page ◄── paginate (next token) ◄── reading (records, cursors) ◄── Response ◄────────┘
//! ```
//!
//! Decisions are pure functions of what was answered: [`rules::judge`], [`retry::decide`], [`paginate::next`],
//! [`reading::read`], [`graphql::problem`], [`quota::read`]. Only [`client`] sends, only [`fetch`] and what it calls waits.
//! Nothing here writes to storage or knows a schema.
//!
//! # What counts as an answer
//!
//! A rule of the project file that matches ([`ErrorRule`](crate::config::errors::ErrorRule)) comes before all of this.
//!
//! | answer | sent again | handed out | the extraction |
//! |---|---|---|---|
//! | 2xx, an empty array at the records path | | page | page number and offset end here, others follow their token |
//! | 2xx, JSON in which the records path leads nowhere (`{}`, `null`, `{"data":null}`, `{"error":…}`) | no | as evidence | fails, `Refused` |
//! | 2xx, not JSON (a login page, text) | yes | as evidence | fails, `Refused` |
//! | 2xx with an empty body | yes | | fails, `Refused` |
//! | 204, 205 | no | | fails, `Refused` |
//! | a status of `paginate.stop.on_status` | no | | ends here |
//! | a body that ends too soon | yes | | fails, `Unavailable` |
//! | GraphQL, `errors` without `data` | no | as evidence | fails, `Refused` |
//! | GraphQL, `errors` beside `data` | yes | as partial | fails, `Refused`; the watermark stays |
//! | GraphQL, `errors` that say the budget is spent | yes | | fails, `Unavailable` |
//! | GraphQL, `errors` that say the query asks for too much | no | | asks for half the records, else fails, `Refused` |
//! | 401, and the credential can be renewed | once, uncounted | | as the answer to that |
//! | 408, 429, 5xx, 403 that says how long to wait | yes | | fails, `Unavailable` |
//! | any other status, a certificate that does not hold | no | | fails, `Refused` |
//! | more bytes than a limit allows | no | | fails, `Limit` |
//!
//! Sent again means at most [`attempts_max`](crate::config::errors::Retry) times in all, while the budget of repeats lasts
//! ([`breaker`]), and to a replica while the base URL is left alone.
//!
//! Of a request that was sent again, bodies that differ from each other are landed, a few of them, each with its attempt;
//! where a page came in the end, the others are marked as superseded.
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
pub mod download;
mod earlier;
pub mod facts;
pub mod fetch;
mod files;
pub mod graphql;
pub mod hosts;
mod job;
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
