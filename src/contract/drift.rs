//! What the data did that the contract did not say.
//!
//! ```text
//! Contract ─┐
//!           ├─ changes ─► one Change for each path and kind, in the order of paths
//! Observed ─┤
//!           └─ Profile ─ jumps (with those of earlier loads) ─► changes against what is usual
//! ```
//!
//! How bad a change is follows from what it does to rows, see [`Severity`].

pub mod jumps;
pub mod profile;

use std::fmt;

use super::{
    Column, ColumnType, Contract,
    classified::{has_classified, is_classified},
    observed::{Counts, Kind, Observed, PathId, ROOT, write_name},
    plan,
    sample::{self, Aspect, MASK, Sample},
};
use crate::config::{OnMismatch, OnUnknown};

/// Most characters of what a change says the contract expects: a list of values may be long.
const EXPECTED_CHARS_MAX: usize = 200;

/// One difference between a contract and the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// Where, such as `lines[].price`.
    pub path: String,
    /// What the contract says; empty if it says nothing.
    pub expected: String,
    /// What the data was like: kinds of JSON values with their counts, or new values.
    pub found: String,
    /// How many values it concerns, or records (objects, for a nested path) for [`ChangeKind::Missing`] and [`ChangeKind::RequiredMissing`].
    pub count: u64,
    /// Of how many: the records that are objects, or for a nested path the objects and elements around it.
    pub records: u64,
    /// The first record it was seen in, counted from 0 over all records observed; none if it is about absence.
    pub first_record: Option<u64>,
    /// What the stream's policy did about it.
    pub effect: Effect,
    /// The first values it was seen with.
    pub samples: Vec<Sample>,
    /// What makes it the same change when it is seen again: the kinds or values found, without counts.
    pub nature: Vec<String>,
}

impl Change {
    /// How much it matters.
    pub fn severity(&self) -> Severity {
        match (self.kind, self.effect) {
            (_, Effect::Quarantined | Effect::Failed) => Severity::Breaking,
            (ChangeKind::Unknown, _) | (_, Effect::Coerced) => Severity::Informational,
            _ => Severity::AtRisk,
        }
    }
}

/// How much a change matters.
///
/// | severity | rule |
/// |---|---|
/// | breaking | records are set aside or refused: rows are missing from the table |
/// | at risk | rows are there, but values that were declared or usual are not, or the server says that they will end |
/// | informational | nothing declared is missing: members nobody declared, values read without loss |
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Rows are missing from the table.
    Breaking,
    /// Rows are there, values are not.
    AtRisk,
    /// Good to know.
    Informational,
}

impl Severity {
    /// The name used in tables and reports, such as `at_risk`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Breaking => "breaking",
            Self::AtRisk => "at_risk",
            Self::Informational => "informational",
        }
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// A path the contract does not name.
    Unknown,
    /// A declared path that was never there, although something was read that could have held it.
    Missing,
    /// A required member that was absent in some records.
    RequiredMissing,
    /// A required member that was null in some records.
    NullInRequired,
    /// Values of another kind than declared, whether refused or taken by coercion.
    TypeChanged,
    /// Values the type cannot hold exactly, or outside `minimum`..`maximum`.
    OutOfRange,
    /// Values that the declared list of values does not have.
    EnumGrown,
    /// Values against a pattern or a length; or rows against a rule in SQL, whose name stands in the path then.
    RuleBroken,
    /// Values of a unique column that more than one key of a load has.
    Repeated,
    /// An optional column that is absent or null far more often than before.
    NullRateJumped,
    /// Texts of another format than before, such as moments where dates were.
    FormatChanged,
    /// Far more or far fewer records than loads before had.
    VolumeChanged,
    /// Full pages of another size than before.
    PageSizeChanged,
    /// Responses of a status that was not there before.
    StatusChanged,
    /// The server says `Deprecation`.
    Deprecated,
    /// The server says when it will end, with `Sunset`.
    Sunset,
}

impl ChangeKind {
    /// Every kind.
    pub const ALL: [Self; 16] = [
        Self::Unknown,
        Self::Missing,
        Self::RequiredMissing,
        Self::NullInRequired,
        Self::TypeChanged,
        Self::OutOfRange,
        Self::EnumGrown,
        Self::RuleBroken,
        Self::Repeated,
        Self::NullRateJumped,
        Self::FormatChanged,
        Self::VolumeChanged,
        Self::PageSizeChanged,
        Self::StatusChanged,
        Self::Deprecated,
        Self::Sunset,
    ];

    /// The name used in tables and reports, such as `type_changed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Missing => "missing",
            Self::RequiredMissing => "required_missing",
            Self::NullInRequired => "null_in_required",
            Self::TypeChanged => "type_changed",
            Self::OutOfRange => "out_of_range",
            Self::EnumGrown => "enum_grown",
            Self::RuleBroken => "rule_broken",
            Self::Repeated => "repeated",
            Self::NullRateJumped => "null_rate_jumped",
            Self::FormatChanged => "format_changed",
            Self::VolumeChanged => "volume_changed",
            Self::PageSizeChanged => "page_size_changed",
            Self::StatusChanged => "status_changed",
            Self::Deprecated => "deprecated",
            Self::Sunset => "sunset",
        }
    }
}

impl ChangeKind {
    /// Whether a contract can say something else about it.
    pub fn is_for_contract(self) -> bool {
        !matches!(
            self,
            Self::NullRateJumped
                | Self::FormatChanged
                | Self::VolumeChanged
                | Self::PageSizeChanged
                | Self::StatusChanged
                | Self::Deprecated
                | Self::Sunset
        )
    }
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the stream's policy does about a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Rows were accepted as they are.
    Accepted,
    /// Values were taken as the declared type, exactly.
    Coerced,
    /// Kept in `_rescued`.
    Rescued,
    /// Left out of the table; raw keeps it.
    Ignored,
    /// Records were set aside.
    Quarantined,
    /// Nothing is written.
    Failed,
}

impl Effect {
    /// The name used in tables and reports, such as `rescued`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Coerced => "coerced",
            Self::Rescued => "rescued",
            Self::Ignored => "ignored",
            Self::Quarantined => "quarantined",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Every difference between what a contract says and what was observed, declared paths first, in the contract's order.
///
/// What a stream names as keys and `sequence_by` is judged as required; here only the contract counts.
/// Members of a [`ColumnType::Json`] column are nobody's business and make no change.
pub fn changes(
    contract: &Contract,
    observed: &Observed,
    on_unknown: OnUnknown,
    on_mismatch: OnMismatch,
) -> Vec<Change> {
    let mut comparison = Comparison {
        observed,
        on_mismatch,
        on_unknown: vec![None; observed.len()],
        declared: vec![false; observed.len()],
        masked: vec![false; observed.len()],
        changes: Vec::new(),
    };
    comparison.declared[ROOT as usize] = true;
    comparison.columns(&contract.columns, ROOT, observed.records(), false);
    let Comparison {
        declared,
        on_unknown: mut own,
        mut masked,
        mut changes,
        ..
    } = comparison;
    for (id, counts) in observed.iter() {
        // An object comes before what is in it.
        let outer = own.get(observed.parent(id) as usize).copied().flatten();
        own[id as usize] = own[id as usize].or(outer);
        if !declared[id as usize] && counts.seen() > 0 {
            // What is in something classified is too; a parent comes before what is in it.
            masked[id as usize] |= masked.get(observed.parent(id) as usize).copied().unwrap_or(false);
            let hidden = masked[id as usize];
            let effect = match own[id as usize].unwrap_or(on_unknown) {
                OnUnknown::Rescue | OnUnknown::Evolve => Effect::Rescued,
                OnUnknown::Ignore => Effect::Ignored,
                OnUnknown::Quarantine => Effect::Quarantined,
            };
            changes.push(Change {
                kind: ChangeKind::Unknown,
                path: observed.path(id),
                expected: String::new(),
                found: kinds_words(counts, |_| true),
                samples: samples(observed, id, counts, Aspect::Unknown, hidden),
                nature: kinds_nature(counts, |kind| kind != Kind::Null),
                count: counts.seen(),
                records: around(observed, id),
                first_record: counts.first(),
                effect,
            });
        }
    }
    changes
}

struct Comparison<'a> {
    observed: &'a Observed,
    /// As what is around the column at hand says.
    on_mismatch: OnMismatch,
    /// By path, what objects say themselves.
    on_unknown: Vec<Option<OnUnknown>>,
    declared: Vec<bool>,
    /// Paths whose values are not shown.
    masked: Vec<bool>,
    changes: Vec<Change>,
}

impl Comparison<'_> {
    /// `objects`: how many times the enclosing object was there.
    fn columns(&mut self, columns: &[Column], parent: PathId, objects: u64, hidden: bool) {
        // Several columns may lie behind one object: it shows nothing if it is none and any of them is classified.
        for column in columns.iter().filter(|column| has_classified(column)) {
            let mut at = Some(parent);
            for name in column.path.iter().take(column.path.len().saturating_sub(1)) {
                at = at.and_then(|at| self.observed.member(at, name));
                let Some(id) = at else { break };
                self.masked[id as usize] |= self.is_misshapen(id);
            }
        }
        for column in columns {
            let (mut at, mut around) = (Some(parent), objects);
            for (depth, name) in column.path.iter().enumerate() {
                at = at.and_then(|at| self.observed.member(at, name));
                let Some(id) = at else { break };
                self.declared[id as usize] = true;
                if depth + 1 < column.path.len() {
                    self.masked[id as usize] |= hidden;
                    self.passed_through(id);
                    around = self
                        .observed
                        .counts(id)
                        .map_or(0, |counts| counts.of(Kind::Object));
                }
            }
            let path = at.map_or_else(|| self.path_in(parent, column), |id| self.observed.path(id));
            self.column(column, at, path, around, hidden);
        }
    }

    /// Whether values at a path had another shape than declared.
    fn is_misshapen(&self, id: PathId) -> bool {
        self.observed
            .counts(id)
            .is_some_and(|counts| counts.mismatched() > 0)
    }

    /// The path of a column that was never there.
    fn path_in(&self, parent: PathId, column: &Column) -> String {
        let mut path = self.observed.path(parent);
        column.path.iter().for_each(|name| write_name(name, &mut path));
        path
    }

    /// An object on the way to columns that is something else.
    fn passed_through(&mut self, id: PathId) {
        let Some(counts) = self.observed.counts(id).filter(|counts| counts.mismatched() > 0) else {
            return;
        };
        let path = self.observed.path(id);
        // Several columns may lie behind it.
        if self.changes.iter().any(|change| change.path == path) {
            return;
        }
        let change = Change {
            kind: ChangeKind::TypeChanged,
            path,
            expected: "object".to_owned(),
            found: kinds_words(counts, |kind| !matches!(kind, Kind::Object | Kind::Null)),
            samples: samples(
                self.observed,
                id,
                counts,
                Aspect::Mismatched,
                self.masked[id as usize],
            ),
            nature: kinds_nature(counts, |kind| !matches!(kind, Kind::Object | Kind::Null)),
            count: counts.mismatched(),
            records: around(self.observed, id),
            first_record: counts.first_unfit(),
            effect: self.refused(),
        };
        self.changes.push(change);
    }

    /// Values that do not fit, unless the column is required.
    fn refused(&self) -> Effect {
        match self.on_mismatch {
            OnMismatch::Quarantine | OnMismatch::Evolve => Effect::Quarantined,
            OnMismatch::Rescue => Effect::Rescued,
            OnMismatch::Fail => Effect::Failed,
        }
    }

    fn column(&mut self, column: &Column, id: Option<PathId>, path: String, objects: u64, hidden: bool) {
        let hidden = hidden || is_classified(column);
        // In a value of another shape nobody knows where the classified one is.
        let is_lost = has_classified(column) && id.is_some_and(|id| self.is_misshapen(id));
        if let Some(id) = id {
            self.masked[id as usize] |= hidden || is_lost;
            self.on_unknown[id as usize] = column.on_unknown;
        }
        let around = self.on_mismatch;
        self.on_mismatch = column.on_mismatch.unwrap_or(around);
        self.differences(column, id, path, objects, hidden || is_lost);
        self.within(column, id, hidden);
        self.on_mismatch = around;
    }

    /// How the values of one column differ.
    fn differences(&mut self, column: &Column, id: Option<PathId>, path: String, objects: u64, hidden: bool) {
        let nothing = Counts::default();
        let observed = self.observed;
        let counts = id.and_then(|id| observed.counts(id)).unwrap_or(&nothing);
        let strict = column.required || column.primary_key;
        let refused = match self.refused() {
            Effect::Rescued if strict => Effect::Quarantined,
            effect => effect,
        };
        // An element is there or it is not an element.
        let is_element = id.is_some_and(|id| observed.name(id).is_none());
        let absent = if is_element {
            0
        } else {
            objects.saturating_sub(counts.seen())
        };
        let name = id.map_or("", |id| named(observed, id));
        for (kind, found, nature, count) in differences(column, counts, absent, name) {
            let effect = match kind {
                Difference::Coerced => Effect::Coerced,
                Difference::Change(ChangeKind::Missing) => Effect::Accepted,
                Difference::Change(_) => refused,
            };
            let aspect = aspect(&kind);
            let (kind, first_record) = match kind {
                Difference::Coerced => (ChangeKind::TypeChanged, counts.first_unfit()),
                Difference::Change(
                    kind @ (ChangeKind::Missing | ChangeKind::RequiredMissing | ChangeKind::NullInRequired),
                ) => (kind, None),
                Difference::Change(kind) => (kind, counts.first_unfit()),
            };
            if count > 0 {
                let (path, expected) = (path.clone(), expected(column, kind));
                let records = objects;
                self.changes.push(Change {
                    kind,
                    path,
                    expected,
                    found,
                    count,
                    records,
                    first_record,
                    effect,
                    samples: match (id, aspect) {
                        (Some(id), Some(aspect)) => samples(observed, id, counts, aspect, hidden),
                        _ => Vec::new(),
                    },
                    nature,
                });
            }
        }
    }

    /// The columns in an object or a list.
    fn within(&mut self, column: &Column, id: Option<PathId>, hidden: bool) {
        let observed = self.observed;
        let Some((id, counts)) = id.and_then(|id| Some((id, observed.counts(id)?))) else {
            return;
        };
        match &column.kind {
            ColumnType::Object(columns) => self.columns(columns, id, counts.of(Kind::Object), hidden),
            ColumnType::Array(element) => {
                if let Some(id) = observed.element(id) {
                    self.declared[id as usize] = true;
                    let elements = observed.counts(id).map_or(0, Counts::seen);
                    self.column(element, Some(id), observed.path(id), elements, hidden);
                }
            }
            _ => {}
        }
    }
}

enum Difference {
    Coerced,
    Change(ChangeKind),
}

/// What the contract says of a column, in words.
fn expected(column: &Column, kind: ChangeKind) -> String {
    match (kind, &column.rules.allowed) {
        (ChangeKind::EnumGrown, Some(allowed)) => {
            let words = format!("one of {}", allowed.join(", "));
            match words.char_indices().nth(EXPECTED_CHARS_MAX) {
                None => words,
                Some((end, _)) => format!("{}…", &words[..end]),
            }
        }
        _ => plan::words(&column.kind),
    }
}

/// The samples that show a difference.
fn aspect(difference: &Difference) -> Option<Aspect> {
    Some(match difference {
        Difference::Coerced => Aspect::Coerced,
        Difference::Change(ChangeKind::RequiredMissing) => Aspect::Absent,
        Difference::Change(ChangeKind::NullInRequired) => Aspect::Null,
        Difference::Change(ChangeKind::TypeChanged) => Aspect::Mismatched,
        Difference::Change(ChangeKind::OutOfRange) => Aspect::OutOfRange,
        Difference::Change(ChangeKind::EnumGrown) => Aspect::NotAllowed,
        Difference::Change(ChangeKind::RuleBroken) => Aspect::RuleBroken,
        Difference::Change(_) => return None,
    })
}

/// The name that is nearest to a path's values.
fn named(observed: &Observed, id: PathId) -> &str {
    let mut at = id;
    while at != ROOT {
        if let Some(name) = observed.name(at) {
            return name;
        }
        at = observed.parent(at);
    }
    ""
}

fn samples(observed: &Observed, id: PathId, counts: &Counts, aspect: Aspect, hidden: bool) -> Vec<Sample> {
    let name = named(observed, id);
    let shown = |value: &str| match value {
        "" | "null" | "{…}" | "[…]" => value.to_owned(),
        _ if hidden => MASK.to_owned(),
        _ => sample::shown(name, value),
    };
    counts
        .samples(aspect)
        .map(|taken| Sample {
            at: taken.at,
            value: shown(&taken.value),
        })
        .collect()
}

/// What a column's counts say against it: kind, what was found, with counts and without, how often. Counts may be 0.
fn differences(
    column: &Column,
    counts: &Counts,
    absent: u64,
    name: &str,
) -> [(Difference, String, Vec<String>, u64); 8] {
    let natures = |wanted: &dyn Fn(Kind) -> bool| kinds_nature(counts, wanted);
    let all = kinds_words(counts, |kind| kind != Kind::Null);
    let mut foreign = kinds_words(counts, |kind| !is_native(&column.kind, kind));
    if foreign.is_empty() {
        // Text that is no date, say.
        foreign.clone_from(&all);
    }
    let mut foreign_nature = natures(&|kind| !is_native(&column.kind, kind));
    if foreign_nature.is_empty() {
        foreign_nature = natures(&|kind| kind != Kind::Null);
    }
    let all_nature = natures(&|kind| kind != Kind::Null);
    let new_values: Vec<(String, u64)> = counts
        .new_values()
        .map(|(value, count)| (sample::shown(name, value), count))
        .collect();
    let new_texts: Vec<String> = new_values
        .iter()
        .map(|(value, count)| format!("{value} ×{count}"))
        .collect();
    let new_nature = new_values.into_iter().map(|(value, _)| value).collect();
    let change = Difference::Change;
    let if_required = |count: u64| if column.required { count } else { 0 };
    let missing = if column.required || counts.seen() > 0 {
        0
    } else {
        absent
    };
    [
        (
            change(ChangeKind::RequiredMissing),
            "nothing".to_owned(),
            Vec::new(),
            if_required(absent),
        ),
        (
            change(ChangeKind::Missing),
            "nothing".to_owned(),
            Vec::new(),
            missing,
        ),
        (
            change(ChangeKind::NullInRequired),
            "null".to_owned(),
            Vec::new(),
            if_required(counts.of(Kind::Null)),
        ),
        (
            change(ChangeKind::TypeChanged),
            foreign.clone(),
            foreign_nature.clone(),
            counts.mismatched(),
        ),
        (Difference::Coerced, foreign, foreign_nature, counts.coerced()),
        (
            change(ChangeKind::OutOfRange),
            all.clone(),
            all_nature.clone(),
            counts.out_of_range(),
        ),
        (
            change(ChangeKind::EnumGrown),
            new_texts.join(", "),
            new_nature,
            counts.not_allowed(),
        ),
        (
            change(ChangeKind::RuleBroken),
            all,
            all_nature,
            counts.rule_broken(),
        ),
    ]
}

/// Whether values of a kind need no coercion. Other kinds may still be refused for their value.
fn is_native(declared: &ColumnType, kind: Kind) -> bool {
    use super::TimestampFormat::{EpochMillis, EpochSeconds};
    match declared {
        _ if kind == Kind::Null => true,
        ColumnType::String | ColumnType::Date => kind == Kind::String,
        ColumnType::Timestamp(EpochSeconds | EpochMillis) | ColumnType::Integer => kind == Kind::Integer,
        ColumnType::Timestamp(_) => kind == Kind::String,
        ColumnType::Number | ColumnType::Decimal { .. } => matches!(kind, Kind::Integer | Kind::Number),
        ColumnType::Boolean => kind == Kind::Boolean,
        ColumnType::Object(_) => kind == Kind::Object,
        ColumnType::Array(_) => kind == Kind::Array,
        ColumnType::Json => true,
    }
}

/// How many objects or arrays are around a path.
fn around(observed: &Observed, id: PathId) -> u64 {
    let is_element = observed.name(id).is_none();
    match observed.counts(id) {
        Some(counts) if is_element => counts.seen(),
        _ => observed
            .counts(observed.parent(id))
            .map_or(0, |counts| counts.of(Kind::Object)),
    }
}

fn kinds_words(counts: &Counts, wanted: impl Fn(Kind) -> bool) -> String {
    let seen = Kind::ALL
        .iter()
        .filter(|&&kind| counts.of(kind) > 0 && wanted(kind));
    let words: Vec<String> = seen
        .map(|&kind| format!("{} ×{}", kind.as_str(), counts.of(kind)))
        .collect();
    words.join(", ")
}

fn kinds_nature(counts: &Counts, wanted: impl Fn(Kind) -> bool) -> Vec<String> {
    let seen = Kind::ALL
        .iter()
        .filter(|&&kind| counts.of(kind) > 0 && wanted(kind));
    seen.map(|kind| kind.as_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::contract::judge::{Judge, JudgeOptions};

    fn report(contract: &Contract, on_mismatch: OnMismatch, records: &[&str]) -> String {
        let options = JudgeOptions {
            keys: Vec::new(),
            sequence_by: Vec::new(),
            on_unknown: OnUnknown::Rescue,
            on_mismatch,
            record_bytes_max: 1 << 20,
        };
        let mut judging = Judge::new(contract, options).unwrap().start();
        for record in records {
            judging.push(record.as_bytes());
        }
        let judged = judging.finish().unwrap();
        let mut text = String::new();
        for change in changes(contract, &judged.observed, OnUnknown::Rescue, on_mismatch) {
            let Change {
                kind,
                path,
                expected,
                found,
                count,
                records,
                first_record,
                effect,
                ..
            } = change;
            let first = first_record.map_or_else(String::new, |first| format!(" from {first}"));
            writeln!(
                text,
                "{path}: {kind} {expected:?} found {found:?}, {count} of {records}{first}, {effect}"
            )
            .unwrap();
        }
        text
    }

    fn contract() -> Contract {
        use crate::contract::judge::tests::{contract, restrict};
        let contract = contract(
            "id integer!; status string; total decimal; name string; vip boolean =in.vip; at moment; lines list:line",
        );
        restrict(contract, "status", &[r#""open""#, r#""paid""#])
    }

    #[test]
    fn r117_f132_every_change_of_the_data_is_reported_with_its_place_and_count() {
        let records = [
            r#"{"id":1,"status":"open","total":1,"lines":[{"sku":"a","price":1},{"sku":"b","price":"2"}],"in":{"vip":true}}"#,
            r#"{"id":2,"status":"lost","total":"2.50","lines":[{"sku":"c","price":0.001,"color":{"r":1}}],"in":7}"#,
            r#"{"id":null,"status":"lost","full_name":"Ann","at":"yesterday","in":{"vip":null,"x":0}}"#,
            r#"{"status":"paid","full_name":null,"total":true}"#,
            "broken",
        ];
        insta::assert_snapshot!(report(&contract(), OnMismatch::Quarantine, &records), @r#"
        id: required_missing "integer" found "nothing", 1 of 4, quarantined
        id: null_in_required "integer" found "null", 1 of 4, quarantined
        status: enum_grown "one of \"open\", \"paid\"" found "\"lost\" ×2", 2 of 4 from 1, quarantined
        total: type_changed "decimal(10,2)" found "string ×1, boolean ×1", 1 of 4 from 1, quarantined
        total: type_changed "decimal(10,2)" found "string ×1, boolean ×1", 1 of 4 from 1, coerced
        name: missing "string" found "nothing", 4 of 4, accepted
        in: type_changed "object" found "integer ×1", 1 of 4 from 1, quarantined
        at: type_changed "timestamp (RFC 3339)" found "string ×1", 1 of 4 from 2, quarantined
        lines[].price: type_changed "decimal(10,2)" found "string ×1", 1 of 3 from 0, coerced
        lines[].price: out_of_range "decimal(10,2)" found "string ×1, integer ×1, number ×1", 1 of 3 from 0, quarantined
        lines[].tags: missing "array" found "nothing", 3 of 3, accepted
        lines[].color: unknown "" found "object ×1", 1 of 3 from 1, rescued
        lines[].color.r: unknown "" found "integer ×1", 1 of 1 from 1, rescued
        full_name: unknown "" found "null ×1, string ×1", 2 of 4 from 2, rescued
        in.x: unknown "" found "integer ×1", 1 of 2 from 2, rescued
        "#);
    }

    #[test]
    fn data_that_follows_its_contract_makes_no_change() {
        let records =
            [r#"{"id":1,"status":"paid","total":null,"name":"n","in":{"vip":false},"at":null,"lines":[]}"#];
        assert_eq!(report(&contract(), OnMismatch::Quarantine, &records), "");
    }

    #[test]
    fn the_policy_decides_what_a_change_does() {
        let records =
            [r#"{"id":"x","status":7,"total":1,"name":"n","in":{"vip":false},"at":null,"lines":[]}"#];
        insta::assert_snapshot!(report(&contract(), OnMismatch::Rescue, &records), @r#"
        id: type_changed "integer" found "string ×1", 1 of 1 from 0, quarantined
        status: type_changed "string" found "integer ×1", 1 of 1 from 0, rescued
        "#);
    }

    #[test]
    fn r165_f153_a_value_of_another_shape_shows_nothing_of_what_is_classified_in_it() {
        let mut contract = contract();
        let is_at = |column: &&mut Column| column.name == "lines" || column.name == "vip";
        for column in contract.columns.iter_mut().filter(is_at) {
            match &mut column.kind {
                ColumnType::Array(line) => match &mut line.kind {
                    ColumnType::Object(members) => members[0].classification = Some("restricted".to_owned()),
                    _ => unreachable!(),
                },
                _ => column.classification = Some("restricted".to_owned()),
            }
        }
        let options = JudgeOptions {
            keys: Vec::new(),
            sequence_by: Vec::new(),
            on_unknown: OnUnknown::Rescue,
            on_mismatch: OnMismatch::Quarantine,
            record_bytes_max: 1 << 20,
        };
        let mut judging = Judge::new(&contract, options).unwrap().start();
        judging.push(br#"{"id":1,"lines":{"sku":"Jane Doe"},"in":[{"vip":"Jane Doe"}],"x":"Jim"}"#);
        judging.push(br#"{"id":2,"lines":"{\"sku\":\"Jane Doe\"}","in":"vip: Jane Doe"}"#);
        let judged = judging.finish().unwrap();
        let changes = changes(
            &contract,
            &judged.observed,
            OnUnknown::Rescue,
            OnMismatch::Quarantine,
        );
        let told = format!("{changes:?} {:?}", judged.violations);
        assert!(!told.contains("Jane Doe"), "{told}");
        let shown = |path: &str| {
            let change = changes.iter().find(|change| change.path == path).unwrap();
            change.samples.last().unwrap().value.clone()
        };
        assert_eq!(
            (shown("lines").as_str(), shown("lines.sku").as_str()),
            ("****", "****")
        );
        assert_eq!(
            (shown("in").as_str(), shown("in[].vip").as_str()),
            ("****", "****")
        );
        assert_eq!(shown("x"), "\"Jim\"");
    }

    #[test]
    fn nothing_read_is_nothing_missing() {
        assert_eq!(report(&contract(), OnMismatch::Quarantine, &["broken"]), "");
    }
}
