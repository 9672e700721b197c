//! Land API responses raw, transform them into Delta tables afterwards.

pub mod cli;
pub mod clock;
pub mod config;
pub mod contract;
pub mod error;
pub mod extract;
pub mod failpoint;
pub mod json;
pub mod ops;
pub mod query;
pub mod raw;
pub mod report;
pub mod table;
pub mod transform;
pub mod yaml;
