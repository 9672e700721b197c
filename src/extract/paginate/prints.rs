//! What the guards of a window compare of the records of a page.

use std::collections::VecDeque;

use super::{Turn, guard::NEIGHBOURS_MAX, recent::hash};

/// Hashes of the records of one page, in bounded memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prints {
    /// Of all of them in order.
    all: u64,
    /// Of the last [`NEIGHBOURS_MAX`], each by itself.
    last: VecDeque<u64>,
    /// Records that hold a connection with more pages.
    nested: u64,
}

impl Prints {
    /// Those of the page of a turn. A body that cannot be read has no records; the reading of the page says so.
    pub(super) fn of(turn: &Turn<'_>) -> Self {
        let mut prints = Self::default();
        let _ = turn
            .stream
            .records
            .select(turn.body, &mut |range| prints.add(&turn.body[range]));
        prints
    }

    /// Adds the next record.
    pub(crate) fn add(&mut self, record: &[u8]) {
        let print = hash(record);
        self.all = hash((self.all, print));
        if self.last.len() == NEIGHBOURS_MAX {
            self.last.pop_front();
        }
        self.last.push_back(print);
        self.nested += u64::from(is_nested(record));
    }

    /// One hash for all records in their order.
    pub(super) fn all(&self) -> u64 {
        self.all
    }

    /// The hashes of the last records, in order.
    pub(super) fn last(&self) -> impl Iterator<Item = u64> {
        self.last.iter().copied()
    }

    /// How many records hold a connection with more pages.
    pub(super) fn nested(&self) -> u64 {
        self.nested
    }
}

/// Whether a record holds a `"hasNextPage": true`. Text that happens to read like it costs a warning at most.
fn is_nested(record: &[u8]) -> bool {
    const NAME: &[u8] = b"\"hasNextPage\"";
    let mut quotes = record.iter().enumerate().filter(|(_, byte)| **byte == b'"');
    quotes.any(|(at, _)| {
        record[at..].strip_prefix(NAME).is_some_and(|rest| {
            let mut rest = rest.iter().filter(|byte| !byte.is_ascii_whitespace());
            rest.next() == Some(&b':') && rest.take(4).eq(b"true")
        })
    })
}
