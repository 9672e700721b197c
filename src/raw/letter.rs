//! Events that were given up, kept where the bookmark of their reader is: what moved past them names them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    clock::Timestamp,
    raw::{BatchNumber, Bookmark, pass::SliceMark},
};

/// Most dead letters of one stream. With that many, what is to be given up goes on waiting, and the run fails.
pub const DEAD_LETTERS_MAX: usize = 1000;

/// What stands in place of the values of an event that lacks one: where the event is, as [`position`] writes it. No name
/// that a project file can give begins like this.
pub const UNNAMED: &str = "$event";

/// An event whose record could not be fetched, or that names none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// What it says of its record, or [`UNNAMED`].
    pub values: Map<String, Value>,
    /// Why it was given up: what the last attempt came to, without record contents.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was given up.
    pub at: Timestamp,
}

/// Where an event is: batch, page, and record if the page could be read.
pub fn position(batch: BatchNumber, page: u32, record: Option<usize>) -> String {
    match record {
        Some(record) => format!("{batch}/{page}/{record}"),
        None => format!("{batch}/{page}"),
    }
}

/// The batch of an event that names no record.
pub fn batch_of(values: &Map<String, Value>) -> Option<BatchNumber> {
    let position = values.get(UNNAMED)?.as_str()?;
    let number = position.split('/').next()?.parse().ok()?;
    BatchNumber::new(number).ok()
}

impl Bookmark {
    /// Has every dead letter be tried again: with the next slices, or where the event named no record by reading the
    /// stream `events` again from there on. Returns how many there were.
    pub fn revive(&mut self, events: &str) -> usize {
        let dead = std::mem::take(&mut self.dead);
        let count = dead.len();
        // What is behind the first that names none is asked for once more, which changes no row.
        if let Some(first) = dead.values().filter_map(|letter| batch_of(&letter.values)).min() {
            self.pass = None;
            // Where no pass has ended, the next begins with the first batch anyhow.
            if let Some(known) = self.parents.remove(events)
                && let Ok(before) = BatchNumber::new(first.get() - 1)
            {
                self.parents.insert(events.to_owned(), known.min(before));
            }
        }
        for (key, letter) in dead {
            if batch_of(&letter.values).is_some() {
                continue;
            }
            let mark = SliceMark {
                changed_at: letter.at,
                failed: Some(letter.values),
                ..SliceMark::default()
            };
            self.slices.entry(key).or_insert(mark);
        }
        count
    }

    /// The values of all slices that failed, whether they are to be asked for again or given up.
    pub fn set_aside(&self) -> impl Iterator<Item = &Map<String, Value>> {
        let waiting = self.waiting().filter_map(|(_, mark)| mark.failed.as_ref());
        waiting.chain(self.dead.values().map(|letter| &letter.values))
    }

    /// Slices that failed and are to be asked for again.
    pub fn waiting(&self) -> impl Iterator<Item = (&String, &SliceMark)> {
        self.slices.iter().filter(|(_, mark)| mark.failed.is_some())
    }

    /// The first batch of the stream `events` that is still to be read, or read again.
    pub fn needs_from(&self, events: &str) -> BatchNumber {
        let known = self.parents.get(events);
        let next = known.map_or(BatchNumber::FIRST, |last| last.next());
        let passed = self.pass.as_ref().and_then(|pass| pass.parents.get(events));
        let unnamed = self.set_aside().filter_map(batch_of);
        let all = unnamed.chain(passed.map(|(first, _)| *first));
        all.fold(next, BatchNumber::min)
    }
}

/// Dead letters by the key of their slice.
pub type DeadLetters = BTreeMap<String, DeadLetter>;

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(values: Value) -> DeadLetter {
        let Value::Object(values) = values else { panic!() };
        DeadLetter {
            values,
            reason: "fetch page".to_owned(),
            attempts: 10,
            at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn dead_letters_are_tried_again_and_unnamed_ones_read_again() {
        let batch = |number| BatchNumber::new(number).unwrap();
        let mut bookmark = Bookmark::default();
        bookmark.parents.insert("events".to_owned(), batch(9));
        bookmark
            .dead
            .insert("a".to_owned(), letter(serde_json::json!({"id": 7})));
        assert_eq!(bookmark.needs_from("events"), batch(10));
        let unnamed = position(batch(4), 0, Some(2));
        bookmark
            .dead
            .insert("b".to_owned(), letter(serde_json::json!({UNNAMED: unnamed})));
        assert_eq!(bookmark.needs_from("events"), batch(4));
        assert_eq!(bookmark.revive("events"), 2);
        assert_eq!(bookmark.dead.len(), 0);
        assert_eq!(bookmark.parents["events"], batch(3));
        let waiting: Vec<&String> = bookmark.waiting().map(|(key, _)| key).collect();
        assert_eq!(waiting, ["a"]);
        bookmark.dead.insert(
            "c".to_owned(),
            letter(serde_json::json!({UNNAMED: position(batch(0), 3, None)})),
        );
        bookmark.dead.insert(
            "d".to_owned(),
            letter(serde_json::json!({UNNAMED: position(batch(1), 0, None)})),
        );
        bookmark.revive("events");
        assert_eq!(bookmark.needs_from("events"), BatchNumber::FIRST);
    }

    #[test]
    fn an_event_that_names_nothing_is_needed_as_long_as_it_waits() {
        let batch = |number| BatchNumber::new(number).unwrap();
        let mut bookmark = Bookmark::default();
        bookmark.parents.insert("events".to_owned(), batch(9));
        let values = serde_json::json!({UNNAMED: position(batch(4), 0, None)});
        let mark = SliceMark {
            failed: values.as_object().cloned(),
            ..SliceMark::default()
        };
        bookmark.slices.insert("a".to_owned(), mark);
        assert_eq!(bookmark.needs_from("events"), batch(4));
        bookmark.slices.clear();
        assert_eq!(bookmark.needs_from("events"), batch(10));
    }
}
