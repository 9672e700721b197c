#![doc = include_str!("airbyte.md")]

/// The text of this page.
pub const MAPPING: &str = include_str!("airbyte.md");
