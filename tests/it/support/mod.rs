//! What the integration tests share.
//!
//! A helper may be of use to one subject only, or to none yet.
#![allow(dead_code)]

pub mod answers;
pub mod api;
pub mod between;
pub mod certificates;
pub mod disk;
pub mod faulty;
pub mod hooks;
pub mod objects;
pub mod project;
pub mod python;
pub mod redis;
pub mod s3;
pub mod servers;
pub mod serving;
