//! How a stream is asked for in parts: the settings.

use std::time::Duration;

use crate::{
    config::{
        Name,
        text::{Expr, Text},
    },
    json::JsonPath,
};

/// A stream asked for in parts by some values, each of them a slice with a bookmark of its own.
#[derive(Clone, Debug)]
pub struct Slicing {
    /// Where the values come from. At least one.
    pub by: Vec<SliceBy>,
    /// What several of them give.
    pub combine: Combine,
    /// Slices extracted at the same time. Default 4.
    pub at_once: u32,
    /// Most slices of one pass. Default 1,000,000.
    pub slices_max: u64,
    /// Most slices whose own bookmark is kept. Default 10,000; beyond it the least recently changed are forgotten and
    /// begin at `start` again.
    pub kept_max: u64,
    /// What the watermark belongs to.
    pub state: SliceState,
    /// Names of slice values put into every record of the slice as members of that name.
    pub include: Vec<String>,
    /// How often a slice that fails is asked for again before it is set aside. None asks in every run, and the run has
    /// failed. With it a parent's record without its values is set aside too, instead of passed over.
    pub patience: Option<Patience>,
}

/// How often a slice is asked for, over as many runs as that takes. Waits are full jitter, as those of
/// [`Retry`](crate::config::errors::Retry), whose attempts all count as one here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Runs that ask for it, the first included. Default 10.
    pub attempts_max: u32,
    /// The cap of the first wait; doubles with each attempt. Default 30 s.
    pub backoff_start: Duration,
    /// No wait is longer. Default 1 h.
    pub backoff_max: Duration,
}

/// What several sources of slice values give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    /// Their cartesian product: a slice for every combination. The default.
    Product,
    /// One after the other, each with values of the same names. What two of them have is one slice.
    Union,
}

/// What the watermark of a sliced stream belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SliceState {
    /// Each slice has its own. The default.
    PerSlice,
    /// All slices share one: what a new slice has from before it is not asked for.
    Shared,
}

/// Where the values of slices come from. In templates they are `slice.NAME`.
#[derive(Clone, Debug)]
pub enum SliceBy {
    /// The values stand in the project file.
    List {
        /// What a value is called.
        name: String,
        /// The values; a template that is one expression may give a whole array of them.
        values: Vec<Text>,
    },
    /// One slice for each record of another stream of the source, read from its raw log.
    Parent(Parent),
}

/// The records of another stream as slices.
#[derive(Clone, Debug)]
pub struct Parent {
    /// The other stream.
    pub stream: Name,
    /// Values taken out of each of its records: name, and path within the record. At least one; a record that lacks
    /// one is passed over and counted.
    pub values: Vec<(String, JsonPath)>,
    /// Further values, by name and path, that are null where a record lacks them.
    pub optional: Vec<(String, JsonPath)>,
    /// Only records for which this holds, over `parent`.
    pub only: Option<Expr>,
    /// Which of its records.
    pub records: ParentRecords,
    /// That many values of the first name in one slice, as an array. Default 1: no array.
    pub group: u32,
}

/// Which records of a parent become slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParentRecords {
    /// Every one there ever was, or those of the last complete pass if the parent is always read whole. The default.
    All,
    /// Those landed since the last complete pass of this stream.
    New,
}

impl Parent {
    /// The names of its values.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let values = self.values.iter().chain(&self.optional);
        values.map(|(name, _)| name.as_str())
    }
}

impl Slicing {
    /// Slices by `by` with every other setting at its default.
    pub fn by(by: Vec<SliceBy>) -> Self {
        Self {
            by,
            combine: Combine::Product,
            at_once: Self::AT_ONCE_DEFAULT,
            slices_max: Self::SLICES_MAX_DEFAULT,
            kept_max: Self::KEPT_MAX_DEFAULT,
            state: SliceState::PerSlice,
            include: Vec::new(),
            patience: None,
        }
    }
}
