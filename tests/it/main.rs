//! The integration tests: one binary, a file per subject.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test may stop at once, and nothing here is public"
)]

mod airbyte;
mod apis;
mod architecture;
mod auth;
mod contracts;
mod crash;
mod drift;
mod end_to_end;
mod examples;
mod extraction;
mod faults;
mod formats;
mod graphql;
mod jobs;
mod landing;
mod large;
mod limits;
mod maintain;
mod model;
mod rebuild;
mod reference;
mod rehearse;
mod release;
mod servers;
mod support;
mod versions;
