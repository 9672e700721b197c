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
mod canary;
mod children;
mod content;
mod contracts;
mod crash;
mod discovery;
mod drift;
mod edge;
mod edges;
mod end_to_end;
mod endurance;
mod environment;
mod examples;
mod extraction;
mod fan_out;
mod faults;
mod flatten;
mod formats;
mod frames;
mod graphql;
mod hostile;
mod hydration;
mod jobs;
mod landing;
mod large;
mod limits;
mod lineage;
mod log_lines;
mod maintain;
mod memory;
mod merge;
mod merge_on_read;
mod model;
mod passes;
mod planning;
mod power;
mod producers;
mod producers_oidc;
mod promises;
mod push;
mod pushed_gaps;
mod quality;
mod rebuild;
mod receipts;
mod reference;
mod registering;
mod rehearse;
mod release;
mod secrecy;
mod servers;
mod serving;
mod signers;
mod support;
mod uploads;
mod versions;
mod widening;
