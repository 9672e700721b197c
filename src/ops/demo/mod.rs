//! `landfall demo`: a sample API and the project that loads it.

pub mod shop;
