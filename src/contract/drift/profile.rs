//! What the records and responses of one load were like, in a few numbers: what later loads are compared with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::contract::{
    Column, ColumnType, Contract,
    observed::{Counts, Kind, Note, Observed, PathId, ROOT},
};

/// Most statuses told apart.
const STATUSES_MAX: usize = 20;

/// Longest header value kept, in characters.
const HEADER_CHARS_MAX: usize = 100;

/// What one load was like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Records, broken ones included.
    pub records: u64,
    /// Each declared path, in the order of the contract.
    pub paths: Vec<PathProfile>,
    /// What the server's answers were like.
    pub responses: Responses,
}

/// What the values of one declared path were like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathProfile {
    /// The path, such as `lines[].price`.
    pub path: String,
    /// Whether the contract asks for a value.
    pub required: bool,
    /// The objects, or elements, that could have had it.
    pub around: u64,
    /// How many had it, null included.
    pub seen: u64,
    /// How many had it as null.
    pub nulls: u64,
    /// Texts whose format was looked at; the other counts are of these.
    pub texts: u64,
    /// Moments, RFC 3339.
    pub moments: u64,
    /// Dates.
    pub dates: u64,
    /// UUIDs.
    pub uuids: u64,
    /// Numbers.
    pub numbers: u64,
}

impl PathProfile {
    fn add(&mut self, other: &Self) {
        self.required &= other.required;
        self.around += other.around;
        self.seen += other.seen;
        self.nulls += other.nulls;
        self.texts += other.texts;
        self.moments += other.moments;
        self.dates += other.dates;
        self.uuids += other.uuids;
        self.numbers += other.numbers;
    }

    /// How many of [`PathProfile::around`] have no value: absent or null.
    pub fn without(&self) -> u64 {
        (self.around.saturating_sub(self.seen) + self.nulls).min(self.around)
    }
}

/// What the answers of a load were like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Responses {
    /// Pages by HTTP status.
    pub statuses: BTreeMap<u16, u64>,
    /// The newest `Deprecation` header.
    pub deprecation: Option<String>,
    /// The newest `Sunset` header.
    pub sunset: Option<String>,
    /// The most records on a page that another one followed.
    pub page_records_max: Option<u64>,
}

impl Responses {
    /// Counts a page with its status and headers.
    pub fn count<'h>(&mut self, status: u16, headers: impl IntoIterator<Item = (&'h str, &'h str)>) {
        if self.statuses.len() < STATUSES_MAX || self.statuses.contains_key(&status) {
            *self.statuses.entry(status).or_default() += 1;
        }
        for (name, value) in headers {
            let kept = match name {
                "deprecation" => &mut self.deprecation,
                "sunset" => &mut self.sunset,
                _ => continue,
            };
            if kept.as_deref() != Some(value) {
                *kept = Some(value.chars().take(HEADER_CHARS_MAX).collect());
            }
        }
    }

    /// Adds those of other pages, which came later.
    pub fn merge(&mut self, other: Self) {
        for (status, pages) in other.statuses {
            *self.statuses.entry(status).or_default() += pages;
        }
        self.deprecation = other.deprecation.or(self.deprecation.take());
        self.sunset = other.sunset.or(self.sunset.take());
        self.page_records_max = self.page_records_max.max(other.page_records_max);
    }

    /// Takes note of the records of a page that another one follows.
    pub fn full_page(&mut self, records: u64) {
        self.page_records_max = self.page_records_max.max(Some(records));
    }
}

impl Profile {
    /// The profile of what was observed.
    pub fn of(contract: &Contract, observed: &Observed, responses: Responses) -> Self {
        let mut paths = Vec::new();
        columns(&contract.columns, ROOT, observed, observed.records(), &mut paths);
        Self {
            records: observed.rows(),
            paths,
            responses,
        }
    }

    /// Adds the records of the same load that another contract declares. What both declare is one path; what one declares
    /// is told of its own records only, so that it does not matter which of the two send more.
    pub fn add(&mut self, other: Self) {
        self.records += other.records;
        for path in other.paths {
            match self.paths.iter_mut().find(|own| own.path == path.path) {
                Some(own) => own.add(&path),
                None => self.paths.push(path),
            }
        }
    }
}

fn columns(
    columns: &[Column],
    parent: PathId,
    observed: &Observed,
    objects: u64,
    out: &mut Vec<PathProfile>,
) {
    for column in columns {
        let (mut at, mut around) = (Some(parent), objects);
        for (depth, name) in column.path.iter().enumerate() {
            at = at.and_then(|at| observed.member(at, name));
            if depth + 1 < column.path.len() {
                around = at
                    .and_then(|at| observed.counts(at))
                    .map_or(0, |counts| counts.of(Kind::Object));
            }
        }
        if let Some(id) = at {
            path(column, id, observed, around, out);
        }
    }
}

fn path(column: &Column, id: PathId, observed: &Observed, around: u64, out: &mut Vec<PathProfile>) {
    let nothing = Counts::default();
    let counts = observed.counts(id).unwrap_or(&nothing);
    out.push(PathProfile {
        path: observed.path(id),
        required: column.required || column.primary_key,
        around,
        seen: counts.seen(),
        nulls: counts.of(Kind::Null),
        texts: counts.note(Note::Inspected),
        moments: counts.note(Note::Moment),
        dates: counts.note(Note::Date),
        uuids: counts.note(Note::Uuid),
        numbers: counts.note(Note::Numeric),
    });
    match &column.kind {
        ColumnType::Object(within) => columns(within, id, observed, counts.of(Kind::Object), out),
        ColumnType::Array(element) => {
            if let Some(id) = observed.element(id) {
                let elements = observed.counts(id).map_or(0, Counts::seen);
                path(element, id, observed, elements, out);
            }
        }
        _ => {}
    }
}
