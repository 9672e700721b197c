//! What records were like: for every path at any depth, how often it was there and as what.

use std::{collections::BTreeMap, hash::BuildHasher as _};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::sample::{Aspect, Place, SAMPLES_MAX, Taken};

/// Most paths that are told apart beyond those of the contract. Members of further paths go to one common count.
pub const PATHS_MAX: usize = 10_000;

/// Longest member name, in bytes, that is counted as a path of its own.
pub const NAME_BYTES_MAX: usize = 1_024;

/// Most values counted one by one that an `enum` does not allow, for each path and in each record.
pub const NEW_VALUES_MAX: usize = 100;

/// The kinds of JSON values, with whole numbers told apart by how they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `null`
    Null,
    /// A string.
    String,
    /// A number without fraction and exponent.
    Integer,
    /// Another number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// An object.
    Object,
    /// An array.
    Array,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Null,
        Self::String,
        Self::Integer,
        Self::Number,
        Self::Boolean,
        Self::Object,
        Self::Array,
    ];

    /// Its name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Object => "object",
            Self::Array => "array",
        }
    }
}

/// What else is counted for one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// Of another kind, but exactly a value of the column's type.
    Coerced,
    Mismatched,
    OutOfRange,
    RuleBroken,
    /// Not one of the values of an `enum`.
    NotAllowed,
    /// Text that is an RFC 3339 date-time.
    Moment,
    /// Text that is a date.
    Date,
    /// A whole number beyond 64 bits.
    Big,
    /// A number no double holds well enough.
    NoDouble,
    /// A whole number that no decimal of 38 digits holds.
    NoDecimal,
    /// Text of a declared column whose format was looked at.
    Inspected,
    /// Text that is a UUID.
    Uuid,
    /// Text that is a number.
    Numeric,
}

const NOTES: usize = Note::Numeric as usize + 1;

/// What was seen at one path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    kinds: [u64; Kind::ALL.len()],
    notes: [u64; NOTES],
    first: Option<u64>,
    first_unfit: Option<u64>,
    new_values: Option<BTreeMap<String, u64>>,
    samples: Vec<Taken>,
}

impl Counts {
    /// Values of any kind, null included.
    pub fn seen(&self) -> u64 {
        self.kinds.iter().sum()
    }

    /// Values of one kind.
    pub fn of(&self, kind: Kind) -> u64 {
        self.kinds[kind as usize]
    }

    /// Values of another kind that were exactly a value of the column's type and taken as such.
    pub fn coerced(&self) -> u64 {
        self.note(Note::Coerced)
    }

    /// Values of another type than the column's.
    pub fn mismatched(&self) -> u64 {
        self.note(Note::Mismatched)
    }

    /// Values the type cannot hold exactly, or outside `minimum`..`maximum`.
    pub fn out_of_range(&self) -> u64 {
        self.note(Note::OutOfRange)
    }

    /// Values against a pattern or a length.
    pub fn rule_broken(&self) -> u64 {
        self.note(Note::RuleBroken)
    }

    /// Values that an `enum` does not have.
    pub fn not_allowed(&self) -> u64 {
        self.note(Note::NotAllowed)
    }

    pub(crate) fn note(&self, note: Note) -> u64 {
        self.notes[note as usize]
    }

    /// The first record with a value here, counted from 0 over all records of the observation.
    pub fn first(&self) -> Option<u64> {
        self.first
    }

    /// The first record whose value here did not fit, or was coerced.
    pub fn first_unfit(&self) -> Option<u64> {
        self.first_unfit
    }

    /// Values an `enum` does not allow, as JSON text, with their counts; at most [`NEW_VALUES_MAX`] of them.
    pub fn new_values(&self) -> impl Iterator<Item = (&str, u64)> {
        self.new_values
            .iter()
            .flat_map(|values| values.iter())
            .map(|(value, &count)| (value.as_str(), count))
    }

    /// The first values that differ in the way of `aspect`.
    pub(crate) fn samples(&self, aspect: Aspect) -> impl Iterator<Item = &Taken> {
        self.samples.iter().filter(move |taken| taken.aspect == aspect)
    }

    fn add_sample(&mut self, taken: Taken) {
        if self.samples(taken.aspect).count() < SAMPLES_MAX {
            self.samples.push(taken);
        }
    }

    fn add_new_value(&mut self, value: &str, count: u64) {
        let values = self.new_values.get_or_insert_default();
        if let Some(known) = values.get_mut(value) {
            *known += count;
        } else if values.len() < NEW_VALUES_MAX {
            values.insert(value.to_owned(), count);
        }
    }

    fn merge(&mut self, other: &Self, rows_before: u64) {
        for (mine, theirs) in self.kinds.iter_mut().zip(other.kinds) {
            *mine += theirs;
        }
        for (mine, theirs) in self.notes.iter_mut().zip(other.notes) {
            *mine += theirs;
        }
        let later = |row: u64| row + rows_before;
        self.first = self.first.or(other.first.map(later));
        self.first_unfit = self.first_unfit.or(other.first_unfit.map(later));
        for (value, count) in other.new_values() {
            self.add_new_value(value, count);
        }
        for taken in &other.samples {
            self.add_sample(Taken {
                row: later(taken.row),
                ..taken.clone()
            });
        }
    }
}

/// The number of a path in an [`Observed`].
pub(crate) type PathId = u32;

/// The record itself.
pub(crate) const ROOT: PathId = 0;

/// Stands for every path beyond [`PATHS_MAX`], and for no path.
pub(crate) const NO_PATH: PathId = PathId::MAX;

#[derive(Clone, Debug)]
struct Node {
    parent: PathId,
    step: Step,
    counts: Counts,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Member(Box<str>),
    Element,
}

/// What records were like: for every path, how often it was there and as what.
#[derive(Clone, Debug)]
pub struct Observed {
    nodes: Vec<Node>,
    index: HashTable<PathId>,
    hasher: DefaultHashBuilder,
    /// How many paths were there from the start, from the contract.
    declared: usize,
    rows: u64,
    records: u64,
    overflowed: u64,
}

impl Observed {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self {
            nodes: vec![Node {
                parent: NO_PATH,
                step: Step::Element,
                counts: Counts::default(),
            }],
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            declared: 1,
            rows: 0,
            records: 0,
            overflowed: 0,
        }
    }

    /// Records that are well-formed JSON objects. Only they are counted at the paths.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// All records, broken ones included.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Members that were not told apart because there were more than [`PATHS_MAX`] paths, or of very long names.
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Adds what was seen in the records behind those of `self`.
    pub fn merge(&mut self, other: &Self) {
        self.nodes[0].counts.merge(&other.nodes[0].counts, self.rows);
        let mut mine = vec![ROOT; other.nodes.len()];
        for (id, node) in other.nodes.iter().enumerate().skip(1) {
            let parent = mine[node.parent as usize];
            let declared = id < other.declared;
            mine[id] = match &node.step {
                _ if parent == NO_PATH => NO_PATH,
                Step::Element => self.element_or_add(parent, declared),
                Step::Member(name) => self.member_or_add(parent, name, declared),
            };
            match self.nodes.get_mut(mine[id] as usize) {
                Some(known) => known.counts.merge(&node.counts, self.rows),
                None => self.overflowed += node.counts.seen(),
            }
        }
        self.rows += other.rows;
        self.records += other.records;
        self.overflowed += other.overflowed;
    }

    /// Says where the sampled records are: `place` is asked with the number of a record among those observed.
    pub fn locate(&mut self, place: impl Fn(u64) -> Option<Place>) {
        for taken in self.nodes.iter_mut().flat_map(|node| &mut node.counts.samples) {
            if taken.at.is_none() {
                taken.at = place(taken.row);
            }
        }
    }

    /// Every path that was seen, a parent before what is in it, such as `lines[].price`.
    pub fn paths(&self) -> impl Iterator<Item = (String, &Counts)> {
        let all = self.nodes.iter().enumerate().skip(1);
        all.filter(|(_, node)| node.counts.seen() > 0)
            .map(|(id, node)| (self.path(path_id(id)), &node.counts))
    }

    /// What was seen at a path as [`Self::paths`] writes it.
    pub fn get(&self, path: &str) -> Option<&Counts> {
        self.paths()
            .find(|(known, _)| known == path)
            .map(|(_, counts)| counts)
    }

    /// Every path, seen or not, a parent before what is in it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PathId, &Counts)> {
        self.nodes
            .iter()
            .enumerate()
            .map(|(id, node)| (path_id(id), &node.counts))
    }

    pub(crate) fn counts(&self, id: PathId) -> Option<&Counts> {
        self.nodes.get(id as usize).map(|node| &node.counts)
    }

    pub(crate) fn parent(&self, id: PathId) -> PathId {
        self.nodes.get(id as usize).map_or(NO_PATH, |node| node.parent)
    }

    /// The member's name, `None` for an array's element.
    pub(crate) fn name(&self, id: PathId) -> Option<&str> {
        match &self.nodes.get(id as usize)?.step {
            Step::Member(name) => Some(name),
            Step::Element => None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn path(&self, id: PathId) -> String {
        let mut path = String::new();
        self.write_path(id, &[], &mut Vec::new(), &mut path);
        path
    }

    /// Writes a path, with the numbers of elements where `indices` has them, outermost first.
    pub(crate) fn write_path(
        &self,
        id: PathId,
        indices: &[usize],
        steps: &mut Vec<PathId>,
        out: &mut String,
    ) {
        use std::fmt::Write as _;
        steps.clear();
        let mut next = id;
        while next != ROOT && next != NO_PATH {
            steps.push(next);
            next = self.parent(next);
        }
        let mut indices = indices.iter();
        for &step in steps.iter().rev() {
            match (self.name(step), indices.as_slice().first()) {
                (Some(name), _) => write_name(name, out),
                (None, Some(index)) => {
                    indices.next();
                    // Writing to a String cannot fail.
                    let _ = write!(out, "[{index}]");
                }
                (None, None) => out.push_str("[]"),
            }
        }
    }

    pub(crate) fn member(&self, parent: PathId, name: &str) -> Option<PathId> {
        self.find(parent, Some(name))
    }

    pub(crate) fn element(&self, parent: PathId) -> Option<PathId> {
        self.find(parent, None)
    }

    fn find(&self, parent: PathId, name: Option<&str>) -> Option<PathId> {
        let hash = self.hasher.hash_one((parent, name));
        let same = |&id: &PathId| self.parent(id) == parent && self.name(id) == name;
        self.index.find(hash, same).copied()
    }

    /// [`NO_PATH`] if there are too many. `declared` paths always have room.
    pub(crate) fn member_or_add(&mut self, parent: PathId, name: &str, declared: bool) -> PathId {
        match self.find(parent, Some(name)) {
            Some(known) => known,
            None if name.len() > NAME_BYTES_MAX && !declared => NO_PATH,
            None => self.add(parent, Step::Member(name.into()), declared),
        }
    }

    pub(crate) fn element_or_add(&mut self, parent: PathId, declared: bool) -> PathId {
        match self.find(parent, None) {
            Some(known) => known,
            None => self.add(parent, Step::Element, declared),
        }
    }

    fn add(&mut self, parent: PathId, step: Step, declared: bool) -> PathId {
        if !declared && self.nodes.len() - self.declared >= PATHS_MAX {
            return NO_PATH;
        }
        let id = path_id(self.nodes.len());
        self.nodes.push(Node {
            parent,
            step,
            counts: Counts::default(),
        });
        let Self {
            nodes, index, hasher, ..
        } = self;
        let hash = |&id: &PathId| {
            let node = &nodes[id as usize];
            let name = match &node.step {
                Step::Member(name) => Some(&**name),
                Step::Element => None,
            };
            hasher.hash_one((node.parent, name))
        };
        index.insert_unique(hash(&id), id, hash);
        self.declared += usize::from(declared);
        id
    }

    pub(crate) fn count_row(&mut self) {
        self.rows += 1;
    }

    pub(crate) fn count_record(&mut self) {
        self.records += 1;
    }

    pub(crate) fn count_overflow(&mut self, members: u64) {
        self.overflowed += members;
    }

    /// Counts values of each kind, in the order of [`Kind::ALL`], the first of them in row `first`.
    pub(crate) fn count(&mut self, id: PathId, kinds: &[u64], first: u64) {
        if let Some(node) = self.nodes.get_mut(id as usize) {
            for (count, more) in node.counts.kinds.iter_mut().zip(kinds) {
                *count += more;
            }
            node.counts.first.get_or_insert(first);
        }
    }

    pub(crate) fn count_note(&mut self, id: PathId, note: Note) {
        let row = self.rows - 1;
        if let Some(node) = self.nodes.get_mut(id as usize) {
            node.counts.notes[note as usize] += 1;
            // The others are no misfits, but formats.
            if (note as usize) <= Note::NotAllowed as usize {
                node.counts.first_unfit.get_or_insert(row);
            }
        }
    }

    /// Whether a value at this path would be kept as a sample.
    #[inline]
    pub(crate) fn wants_sample(&self, id: PathId, aspect: Aspect) -> bool {
        self.nodes
            .get(id as usize)
            .is_some_and(|node| node.counts.samples(aspect).count() < SAMPLES_MAX)
    }

    /// Keeps a value of the row that was counted last.
    pub(crate) fn add_sample(&mut self, id: PathId, aspect: Aspect, value: String) {
        let row = self.rows - 1;
        if let Some(node) = self.nodes.get_mut(id as usize) {
            node.counts.add_sample(Taken {
                aspect,
                row,
                at: None,
                value,
            });
        }
    }

    pub(crate) fn count_new_value(&mut self, id: PathId, value: &str) {
        if let Some(node) = self.nodes.get_mut(id as usize) {
            node.counts.add_new_value(value, 1);
        }
    }
}

impl Default for Observed {
    fn default() -> Self {
        Self::new()
    }
}

/// Contracts and [`PATHS_MAX`] stay far below 2^32.
fn path_id(index: usize) -> PathId {
    index as PathId
}

pub(crate) fn write_name(name: &str, out: &mut String) {
    let special = |letter: char| {
        matches!(letter, '.' | '[' | ']' | '"') || letter.is_whitespace() || letter.is_control()
    };
    if name.is_empty() || name.contains(special) {
        out.push_str("[\"");
        write_escaped(name, out);
        out.push_str("\"]");
    } else {
        if !out.is_empty() {
            out.push('.');
        }
        out.push_str(name);
    }
}

/// Writes text as it stands between the quotes of a JSON string.
pub(crate) fn write_escaped(text: &str, out: &mut String) {
    use std::fmt::Write as _;
    let mut rest = text;
    while let Some(at) = rest.find(|letter: char| matches!(letter, '"' | '\\' | '\0'..='\x1f')) {
        out.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            byte @ (b'"' | b'\\') => out.extend(['\\', char::from(byte)]),
            byte => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{byte:04x}");
            }
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
}
