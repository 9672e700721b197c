//! Where the extraction of a sliced stream stands: which slices of the pass are done, and how far each one is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    clock::Timestamp,
    raw::{BatchNumber, Window, is_zero, log::LogEntry},
};

/// A pass over all slices of a stream that has begun and not ended.
///
/// Slices are numbered from 0 in an order that does not change within the pass, so what is done is a handful of ranges
/// however many slices there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pass {
    /// When it began.
    pub opened_at: Timestamp,
    /// SHA-256 of what its slices and requests are made from, lowercase hex.
    pub shape: String,
    /// Whether it asks for everything, whatever the watermarks say.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub complete: bool,
    /// The greatest cursor of the slices that are done, if all slices share one watermark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor_max: Option<String>,
    /// What changed after this may have been missed: the least moment that a window of it opened.
    pub cap: Timestamp,
    /// What it came to so far.
    #[serde(flatten)]
    pub tally: Tally,
    /// The raw batches of parent streams whose records are its slices: first and last, by stream name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parents: BTreeMap<String, (BatchNumber, BatchNumber)>,
    /// Numbers of the slices that are done, as ranges with their end excluded, in order and apart from each other.
    #[serde(default, skip_serializing_if = "Done::is_empty")]
    pub done: Done,
}

/// What pages of a pass came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Records.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub records: u64,
    /// Answers that an error rule ignored: what is behind them is not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ignored: u64,
    /// Whether pages shifted while they were read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unstable: bool,
    /// Whether the server declared more records than it sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub short: bool,
}

/// A set of numbers, kept as ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Done(Vec<(u64, u64)>);

/// Where one slice stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SliceMark {
    /// As [`Bookmark::watermark`](crate::raw::Bookmark::watermark), of the slice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<String>,
    /// The slice's window in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// When this last changed; the longest unchanged is the first to be forgotten.
    pub changed_at: Timestamp,
    /// The values of a slice that failed: the next pass asks for it again even if its parent does not name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Map<String, Value>>,
    /// How often it failed, of a stream that gives a slice up one day.
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub attempts: u32,
    /// Before this it is not asked for again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// What the last attempt came to, without record contents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero_u32(count: &u32) -> bool {
    *count == 0
}

impl SliceMark {
    /// Whether it may be asked for at `now`.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.retry_at.is_none_or(|at| at <= now)
    }
}

impl Tally {
    /// Whether it is that of no page.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Why a pass over everything with this tally may have missed what is there, if it may: nobody can say then that what
    /// it did not bring is gone.
    ///
    /// ```
    /// use landfall::raw::pass::Tally;
    /// let whole = Tally { records: 7, ..Tally::default() };
    /// assert_eq!(whole.doubt(), None);
    /// assert!(Tally { ignored: 1, ..whole }.doubt().is_some());
    /// ```
    pub fn doubt(&self) -> Option<&'static str> {
        if self.ignored > 0 {
            Some("an error rule ignored answers of it")
        } else if self.short {
            Some("the server sent fewer records than it declared")
        } else if self.unstable {
            Some("its pages shifted while they were read")
        } else {
            None
        }
    }
}

impl Done {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers are in it.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    /// Whether `number` is in it.
    pub fn contains(&self, number: u64) -> bool {
        let after = self.0.partition_point(|(start, _)| *start <= number);
        after > 0 && number < self.0[after - 1].1
    }

    /// Puts `number` into it.
    ///
    /// ```
    /// use landfall::raw::pass::Done;
    /// let mut done = Done::default();
    /// for number in [0, 2, 1, 5] {
    ///     done.insert(number);
    /// }
    /// assert_eq!(serde_json::to_string(&done).unwrap(), "[[0,3],[5,6]]");
    /// assert!(done.contains(2) && !done.contains(3));
    /// ```
    pub fn insert(&mut self, number: u64) {
        if self.contains(number) {
            return;
        }
        let after = self.0.partition_point(|(start, _)| *start <= number);
        let joins_before = after > 0 && self.0[after - 1].1 == number;
        let joins_after = self.0.get(after).is_some_and(|(start, _)| *start == number + 1);
        match (joins_before, joins_after) {
            (true, true) => {
                self.0[after - 1].1 = self.0[after].1;
                self.0.remove(after);
            }
            (true, false) => self.0[after - 1].1 = number + 1,
            (false, true) => self.0[after].0 = number,
            (false, false) => self.0.insert(after, (number, number + 1)),
        }
    }
}

/// Whether `entry` ends a pass over everything the API has; `before` is the entry in front of it in the log.
pub fn ends_pass(before: Option<&LogEntry>, entry: &LogEntry) -> bool {
    let completed = |entry: &LogEntry| {
        let bookmark = entry.bookmark.as_ref()?;
        bookmark.complete_at
    };
    let now = completed(entry);
    now.is_some() && now != before.and_then(completed)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn done_is_the_set_of_what_was_inserted(numbers in proptest::collection::vec(0u64..40, 0..60)) {
            let mut done = Done::default();
            let mut set = BTreeSet::new();
            for number in numbers {
                done.insert(number);
                set.insert(number);
            }
            prop_assert_eq!(done.count(), set.len() as u64);
            for number in 0..41 {
                prop_assert_eq!(done.contains(number), set.contains(&number));
            }
            prop_assert!(done.0.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }
}
