//! What is remembered between the records of one batch, and what one record adds once it is known to be well-formed.

use std::{hash::BuildHasher as _, ops::Range};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::{
    Violation, ViolationClass,
    judge::RowViolation,
    observed::{Kind, NO_PATH, Note, Observed, PathId},
    plan::Target,
    record::excerpt,
    sample::Aspect,
};
use crate::json::quoted::Quoted;

/// Most characters of a violation's `expected`, so that a long enum does not fill the quarantine.
const EXPECTED_CHARS_MAX: usize = 200;

/// Most violations of one class that are kept of one record. Counted by class, because the caller passes over some
/// classes in deletions and must still see whether there are others.
pub(crate) const VIOLATIONS_MAX: usize = 100;

/// Most values of one record that are kept as samples.
const SAMPLES_PER_RECORD_MAX: usize = 256;

/// What is remembered between the records of one batch.
pub(crate) struct Work {
    pub(crate) observed: Observed,
    pub(crate) violations: Vec<RowViolation>,
    /// The record's `_rescued` object without its last brace; empty if there is none.
    pub(crate) rescued: String,
    /// Values of the record with what they turned out to be, counted once it is known to be well-formed.
    marks: Vec<Mark>,
    pub(crate) notes: Vec<(PathId, Note)>,
    pub(crate) new_values: Vec<(PathId, String)>,
    samples: Vec<(PathId, Aspect, String)>,
    pub(crate) overflowed: u64,
    pub(crate) places: Vec<Place>,
    /// By [`Mark`]; goes to `observed` at the end of the batch.
    counts: Vec<u64>,
    /// By path: one more than the number of the first record; 0 if there is none.
    firsts: Vec<u64>,
    /// Numbers of the array elements around the current value, outermost first.
    pub(crate) indices: Vec<usize>,
    /// One for each object entered; tells its members from those of the one before.
    pub(crate) serial: u64,
    pub(crate) further: FurtherNames,
    pub(crate) decoded: String,
    pub(crate) steps: Vec<PathId>,
    pub(crate) rows: usize,
    pub(crate) coerced: u64,
    coerced_before: u64,
    first_violation: usize,
    /// Violations of the record, by class.
    by_class: [usize; ViolationClass::RawCorrupt as usize + 1],
    /// Whether `rescued` has no room for all of the record's values.
    pub(crate) rescued_overflows: bool,
}

/// A path and a kind in one number: the kind in the lowest bits.
type Mark = u32;

/// Marks of one path.
const MARKS: usize = Kind::ALL.len().next_power_of_two();

/// Paths are far fewer than 2^29.
#[inline]
fn mark(path: PathId, kind: Kind) -> Mark {
    path * MARKS as u32 + kind as u32
}

/// What the judge knows about a path.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// The member's name as it is expected in a record.
    pub(crate) quoted: Quoted,
    pub(crate) target: Target,
    /// The object in which it was last met; met again there, it is a duplicate.
    pub(crate) serial: u64,
    /// The member that came next the last time.
    pub(crate) next: PathId,
    /// The member that came first in it the last time.
    pub(crate) first: PathId,
    pub(crate) element: PathId,
}

impl Place {
    /// What is known about a path before it is met. `name` is `None` for an array's element.
    pub(crate) fn new(name: Option<&str>, target: Target) -> Self {
        Self {
            quoted: name.map_or(Quoted::NEVER, Quoted::new),
            target,
            serial: 0,
            next: NO_PATH,
            first: NO_PATH,
            element: NO_PATH,
        }
    }
}

impl Work {
    pub(crate) fn new(observed: Observed, places: Vec<Place>) -> Self {
        Self {
            counts: vec![0; places.len() * MARKS],
            firsts: vec![0; places.len()],
            places,
            observed,
            violations: Vec::new(),
            rescued: String::new(),
            marks: Vec::new(),
            notes: Vec::new(),
            new_values: Vec::new(),
            samples: Vec::new(),
            overflowed: 0,
            indices: Vec::new(),
            serial: 0,
            further: FurtherNames::default(),
            decoded: String::new(),
            steps: Vec::new(),
            rows: 0,
            coerced: 0,
            coerced_before: 0,
            first_violation: 0,
            by_class: [0; ViolationClass::RawCorrupt as usize + 1],
            rescued_overflows: false,
        }
    }

    pub(crate) fn begin(&mut self) {
        self.observed.count_row();
        self.rescued.clear();
        self.marks.clear();
        self.notes.clear();
        self.new_values.clear();
        self.samples.clear();
        self.indices.clear();
        self.further.clear();
        self.overflowed = 0;
        self.coerced_before = self.coerced;
        self.first_violation = self.violations.len();
        self.by_class.fill(0);
        self.rescued_overflows = false;
    }

    /// Counts the record, now that all of it was read.
    pub(crate) fn keep(&mut self) {
        self.rows += 1;
        self.observed.count_record();
        self.observed.count_overflow(self.overflowed);
        let row = self.observed.rows();
        for &mark in &self.marks {
            let Some(count) = self.counts.get_mut(mark as usize) else {
                continue;
            };
            if *count == 0 {
                let first = &mut self.firsts[mark as usize / MARKS];
                *first = if *first == 0 { row } else { *first };
            }
            *count += 1;
        }
        for &(path, note) in &self.notes {
            self.observed.count_note(path, note);
        }
        for (path, value) in &self.new_values {
            self.observed.count_new_value(*path, value);
        }
        for (path, aspect, value) in self.samples.drain(..) {
            self.observed.add_sample(path, aspect, value);
        }
    }

    /// Values of one kind at a path, in the records that were kept.
    #[inline]
    pub(crate) fn kept(&self, path: PathId, kind: Kind) -> u64 {
        self.counts.get(mark(path, kind) as usize).copied().unwrap_or(0)
    }

    /// Notes a value of the record, to be counted once that is known to be well-formed.
    #[inline]
    pub(crate) fn mark(&mut self, path: PathId, kind: Kind) {
        self.marks.push(mark(path, kind));
    }

    /// Makes room for a path that was met for the first time.
    pub(crate) fn add_place(&mut self, path: PathId) {
        if path as usize == self.places.len() {
            self.places
                .push(Place::new(self.observed.name(path), Target::Undeclared));
            self.counts.extend([0; MARKS]);
            self.firsts.push(0);
        }
    }

    /// What all records of the batch were like.
    pub(crate) fn into_observed(mut self) -> Observed {
        let paths = (0..).zip(&self.firsts).zip(self.counts.chunks_exact(MARKS));
        for ((path, first), kinds) in paths {
            if let Some(first) = first.checked_sub(1) {
                self.observed.count(path, kinds, first);
            }
        }
        self.observed
    }

    /// Forgets the record but for one violation of the whole.
    pub(crate) fn refuse(&mut self, class: ViolationClass, expected: String, found: String) {
        self.rescued.clear();
        self.coerced = self.coerced_before;
        self.violations.truncate(self.first_violation);
        self.violate(class, String::new(), expected, found);
        self.rows += 1;
    }

    /// Keeps what `value` makes as a sample, if there are not enough of them yet. Nothing is allocated otherwise.
    #[inline]
    pub(crate) fn sample(&mut self, path: PathId, aspect: Aspect, value: impl FnOnce() -> String) {
        if self.samples.len() < SAMPLES_PER_RECORD_MAX && self.observed.wants_sample(path, aspect) {
            self.samples.push((path, aspect, value()));
        }
    }

    pub(crate) fn violate(&mut self, class: ViolationClass, path: String, expected: String, found: String) {
        let count = &mut self.by_class[class as usize];
        *count += 1;
        if *count > VIOLATIONS_MAX {
            return;
        }
        let expected = excerpt(&expected, EXPECTED_CHARS_MAX);
        let violation = Violation {
            class,
            path,
            expected,
            found,
        };
        self.violations.push(RowViolation {
            row: self.rows,
            violation,
        });
    }
}

/// Names in one record that have no path of their own, with the number of their object.
#[derive(Default)]
pub(crate) struct FurtherNames {
    table: HashTable<(u64, Range<usize>)>,
    names: String,
    hasher: DefaultHashBuilder,
}

impl FurtherNames {
    /// Most entries whose memory is kept for the next record.
    const KEPT_MAX: usize = 4_096;

    fn clear(&mut self) {
        if self.table.capacity() > Self::KEPT_MAX {
            self.table = HashTable::new();
            self.names = String::new();
        } else if !self.table.is_empty() {
            self.table.clear();
            self.names.clear();
        }
    }

    /// False if it is there.
    pub(crate) fn insert(&mut self, serial: u64, name: &str) -> bool {
        let Self { table, names, hasher } = self;
        let hash = |serial: u64, name: &str| hasher.hash_one((serial, name));
        let hashed = hash(serial, name);
        if table
            .find(hashed, |(other, range)| {
                *other == serial && names[range.clone()] == *name
            })
            .is_some()
        {
            return false;
        }
        let start = names.len();
        names.push_str(name);
        let names = &*names;
        table.insert_unique(hashed, (serial, start..start + name.len()), |(serial, range)| {
            hash(*serial, &names[range.clone()])
        });
        true
    }
}
