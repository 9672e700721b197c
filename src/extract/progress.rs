//! How far an extraction is, readable while it runs.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Most notes of one extraction.
pub const NOTES_MAX: usize = 50;

/// Counters of one extraction. They only grow.
#[derive(Debug, Default)]
pub struct Progress {
    /// Pages fetched, evidence included.
    pub pages: AtomicU64,
    /// Records in them.
    pub records: AtomicU64,
    /// Bytes of their bodies, decoded.
    pub bytes: AtomicU64,
    /// Bytes of their bodies as they came over the wire.
    pub wire_bytes: AtomicU64,
    /// Requests sent, retries and redirects included.
    pub requests: AtomicU64,
    /// Requests sent again.
    pub retries: AtomicU64,
    /// Milliseconds waited for a rate limit or a retry.
    pub waited_ms: AtomicU64,
    /// Records without a readable cursor.
    pub cursors_missing: AtomicU64,
    /// Records whose cursor is too far in the future to count.
    pub cursors_future: AtomicU64,
    /// Records whose cursor is less than the one before.
    pub cursors_unsorted: AtomicU64,
    /// What somebody should look at.
    notes: Mutex<Vec<String>>,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pages fetched, evidence included.
    pub pages: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of their bodies, decoded.
    pub bytes: u64,
    /// Bytes of their bodies as they came over the wire.
    pub wire_bytes: u64,
    /// Requests sent, retries and redirects included.
    pub requests: u64,
    /// Requests sent again.
    pub retries: u64,
    /// Time waited for a rate limit or a retry.
    pub waited: Duration,
    /// Records without a readable cursor.
    pub cursors_missing: u64,
    /// Records whose cursor is too far in the future to count.
    pub cursors_future: u64,
    /// Records whose cursor is less than the one before.
    pub cursors_unsorted: u64,
}

impl Counts {
    /// The sums of both.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            pages: self.pages + other.pages,
            records: self.records + other.records,
            bytes: self.bytes + other.bytes,
            wire_bytes: self.wire_bytes + other.wire_bytes,
            requests: self.requests + other.requests,
            retries: self.retries + other.retries,
            waited: self.waited + other.waited,
            cursors_missing: self.cursors_missing + other.cursors_missing,
            cursors_future: self.cursors_future + other.cursors_future,
            cursors_unsorted: self.cursors_unsorted + other.cursors_unsorted,
        }
    }
}

impl Progress {
    /// The counters now. Each is exact; together they may straddle a page.
    pub fn counts(&self) -> Counts {
        Counts {
            pages: self.pages.load(Relaxed),
            records: self.records.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            wire_bytes: self.wire_bytes.load(Relaxed),
            requests: self.requests.load(Relaxed),
            retries: self.retries.load(Relaxed),
            waited: Duration::from_millis(self.waited_ms.load(Relaxed)),
            cursors_missing: self.cursors_missing.load(Relaxed),
            cursors_future: self.cursors_future.load(Relaxed),
            cursors_unsorted: self.cursors_unsorted.load(Relaxed),
        }
    }

    /// What somebody should look at although nothing failed; at most [`NOTES_MAX`], each once.
    pub fn notes(&self) -> Vec<String> {
        // Nothing panics while it is held.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds a note.
    pub(crate) fn note(&self, note: String) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() < NOTES_MAX && !notes.contains(&note) {
            notes.push(note);
        }
    }

    /// Counts time spent waiting.
    pub(crate) fn add_waited(&self, waited: Duration) {
        add(
            &self.waited_ms,
            u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
        );
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Relaxed);
}
