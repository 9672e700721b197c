//! What is different between two versions of a contract, and whom each difference hurts.
//!
//! Two questions are asked of each difference:
//!
//! - **backward**: is every record that the old contract accepts accepted by the new one, and is every value still in
//!   its column? Then history can be transformed again, and producers need not change.
//! - **forward**: is every record of the new contract accepted by the old one? Then whoever still reads by the old
//!   contract can go on.
//!
//! | difference | compatible |
//! |---|---|
//! | optional column added | both: absent is null, and a member nobody declared is rescued |
//! | required column added | forward |
//! | column removed, renamed, read from elsewhere | none: its values leave their column |
//! | required dropped, range or list of values grown, coercion allowed | backward |
//! | required added, range or list of values shrunk, coercion refused | forward |
//! | type widened (integer → number or decimal, decimal → longer decimal, date → timestamp with zone) | backward |
//! | type narrowed | forward |
//! | other change of type, pattern or primary key | none |
//! | words: description, classification, status; what becomes of drift | both |
//! | SQL rule added that refuses records | forward; removed, or turned into a warning: backward; with other SQL: none |
//! | unique column, SQL rule that only warns | both |
//!
//! A member that the old contract does not declare is taken to be absent from what its producers send: with that,
//! optional columns can be added freely. The rules are those of Avro readers, except that a removed column is no
//! compatible change, because queries of its table break.

use std::{collections::HashMap, fmt};

use super::{
    Coercion, Column, ColumnType, Contract, Rules, TimestampFormat,
    observed::write_name,
    odcs::write::timestamp_format,
    plan,
    quality::{self, OnBroken, QualityRule},
    widening::{Room, room},
};

/// One difference between two contracts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What is different.
    pub what: What,
    /// Which column, such as `lines[].price`, or `rule` and the name of a rule; empty for the contract itself.
    pub path: String,
    /// Where in the record the columns read, written as drift writes it; two places if the column was moved. None for rules
    /// and the contract itself.
    pub places: Vec<String>,
    /// What it was; empty if there was nothing.
    pub before: String,
    /// What it is; empty if there is nothing.
    pub after: String,
    /// Who can live with it.
    pub compatible: Compatible,
    /// Values for which that does not hold. They are refused, never altered.
    pub unless: Option<&'static str>,
}

/// What is different.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum What {
    /// A column that was not there.
    ColumnAdded,
    /// A column that is not there any more.
    ColumnRemoved,
    /// A column of another name for the same place in the record.
    ColumnRenamed,
    /// A column that is read from another place in the record.
    ColumnMoved,
    /// Another type.
    TypeChanged,
    /// Absence and null are refused now.
    RequiredAdded,
    /// Absence and null are accepted now.
    RequiredDropped,
    /// A column became part of the primary key, or stopped to be.
    KeyChanged,
    /// Text that is exactly a value is accepted now, or refused.
    CoercionChanged,
    /// Other allowed values.
    EnumChanged,
    /// Another pattern.
    PatternChanged,
    /// Another least or greatest length.
    LengthChanged,
    /// Another least or greatest value.
    RangeChanged,
    /// Values that do not fit, or members that are not named, are dealt with in another way.
    PolicyChanged,
    /// The values of a column should be unique now, or need not be any more.
    UniqueChanged,
    /// A rule in SQL that was not there.
    RuleAdded,
    /// A rule in SQL that is not there any more.
    RuleRemoved,
    /// A rule of other SQL, or with other consequences.
    RuleChanged,
    /// Another description or classification.
    WordsChanged,
    /// Another status of the contract.
    StatusChanged,
}

impl What {
    /// Those that say nothing about values.
    pub const WORDS: [Self; 2] = [Self::WordsChanged, Self::StatusChanged];

    /// The name used in tables and reports, such as `column_added`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ColumnAdded => "column_added",
            Self::ColumnRemoved => "column_removed",
            Self::ColumnRenamed => "column_renamed",
            Self::ColumnMoved => "column_moved",
            Self::TypeChanged => "type_changed",
            Self::RequiredAdded => "required_added",
            Self::RequiredDropped => "required_dropped",
            Self::KeyChanged => "key_changed",
            Self::CoercionChanged => "coercion_changed",
            Self::EnumChanged => "enum_changed",
            Self::PatternChanged => "pattern_changed",
            Self::LengthChanged => "length_changed",
            Self::RangeChanged => "range_changed",
            Self::PolicyChanged => "policy_changed",
            Self::UniqueChanged => "unique_changed",
            Self::RuleAdded => "rule_added",
            Self::RuleRemoved => "rule_removed",
            Self::RuleChanged => "rule_changed",
            Self::WordsChanged => "words_changed",
            Self::StatusChanged => "status_changed",
        }
    }
}

/// Who can live with a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compatible {
    /// Everybody.
    Both,
    /// Who reads by the new contract what was written under the old one.
    Backward,
    /// Who reads by the old contract what was written under the new one.
    Forward,
    /// Nobody.
    None,
}

impl Compatible {
    /// The name used in tables and reports, such as `backward`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Backward => "backward",
            Self::Forward => "forward",
            Self::None => "none",
        }
    }

    /// Whether what was written under the old contract can be read by the new one.
    pub fn is_backward(self) -> bool {
        matches!(self, Self::Both | Self::Backward)
    }

    /// Whether what was written under the new contract can be read by the old one.
    pub fn is_forward(self) -> bool {
        matches!(self, Self::Both | Self::Forward)
    }

    fn of(backward: bool, forward: bool) -> Self {
        match (backward, forward) {
            (true, true) => Self::Both,
            (true, false) => Self::Backward,
            (false, true) => Self::Forward,
            (false, false) => Self::None,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            path,
            before,
            after,
            compatible,
            unless,
            ..
        } = self;
        f.write_str(what.as_str())?;
        if !path.is_empty() {
            write!(f, " {path}")?;
        }
        match (before.as_str(), after.as_str()) {
            ("", "") => {}
            ("", after) => write!(f, ": {after}")?,
            (before, "") => write!(f, ": was {before}")?,
            (before, after) => write!(f, ": {before} → {after}")?,
        }
        let words = match compatible {
            Compatible::Both => "compatible both ways",
            Compatible::Backward => "backward compatible",
            Compatible::Forward => "forward compatible only",
            Compatible::None => "not compatible",
        };
        write!(f, " ({words}")?;
        if let Some(unless) = unless {
            write!(f, ", except {unless}")?;
        }
        f.write_str(")")
    }
}

/// Every difference, columns of the old contract first, in their order. The version and the id do not count.
///
/// ```
/// use landfall::contract::{diff::{Compatible, diff}, infer::infer};
/// let draft = |record: &str| infer("orders", &[], [record.as_bytes()].into_iter()).unwrap();
/// let (old, new) = (draft(r#"{"id": 1}"#), draft(r#"{"id": 1, "note": "x"}"#));
/// let found = diff(&old, &new);
/// assert_eq!(found[0].path, "note");
/// assert_eq!(found[0].compatible, Compatible::Both);
/// assert_eq!(diff(&old, &old), []);
/// ```
pub fn diff(old: &Contract, new: &Contract) -> Vec<Difference> {
    let mut found = Found::default();
    if old.status != new.status {
        let (before, after) = (old.status.clone(), new.status.clone());
        found.add(What::StatusChanged, "", before, after, Compatible::Both);
    }
    found.columns(&old.columns, &new.columns, "", "");
    found.quality(&old.quality, &new.quality);
    found.differences
}

#[derive(Default)]
struct Found {
    differences: Vec<Difference>,
    /// Where in the record the columns read that are compared now.
    places: Vec<String>,
}

impl Found {
    fn add(&mut self, what: What, path: &str, before: String, after: String, compatible: Compatible) {
        self.differences.push(Difference {
            what,
            path: path.to_owned(),
            places: self.places.clone(),
            before,
            after,
            compatible,
            unless: None,
        });
    }

    /// `parent` is the object's path by the names of columns, `around` its place in the record.
    fn columns(&mut self, old: &[Column], new: &[Column], parent: &str, around: &str) {
        let before = std::mem::take(&mut self.places);
        let by_name: HashMap<&str, &Column> =
            new.iter().map(|column| (column.name.as_str(), column)).collect();
        let old_names: HashMap<&str, &Column> =
            old.iter().map(|column| (column.name.as_str(), column)).collect();
        let renamed = |column: &Column| {
            new.iter()
                .find(|other| other.path == column.path && !old_names.contains_key(other.name.as_str()))
        };
        let mut taken: Vec<&str> = Vec::new();
        for column in old {
            let path = below(parent, &column.name);
            self.places = vec![place(around, column)];
            match by_name.get(column.name.as_str()).copied() {
                Some(same) => {
                    if same.path != column.path {
                        let (before, after) = (place("", column), place("", same));
                        self.places.push(place(around, same));
                        self.add(What::ColumnMoved, &path, before, after, Compatible::None);
                    }
                    self.column(column, same, &path);
                }
                None => match renamed(column) {
                    Some(other) => {
                        taken.push(&other.name);
                        let (before, after) = (column.name.clone(), other.name.clone());
                        self.add(What::ColumnRenamed, &path, before, after, Compatible::None);
                        self.column(column, other, &below(parent, &other.name));
                    }
                    None => self.add(
                        What::ColumnRemoved,
                        &path,
                        words(column),
                        String::new(),
                        Compatible::None,
                    ),
                },
            }
        }
        for column in new {
            if old_names.contains_key(column.name.as_str()) || taken.contains(&column.name.as_str()) {
                continue;
            }
            // The key is judged as required, whatever the contract says.
            let compatible = match column.required || column.primary_key {
                true => Compatible::Forward,
                false => Compatible::Both,
            };
            let path = below(parent, &column.name);
            self.places = vec![place(around, column)];
            self.add(What::ColumnAdded, &path, String::new(), words(column), compatible);
        }
        self.places = before;
    }

    /// Two versions of one column, or of the element of an array.
    fn column(&mut self, old: &Column, new: &Column, path: &str) {
        self.kind(old, new, path);
        let required = |column: &Column| if column.required { "required" } else { "optional" }.to_owned();
        let (before, after) = (required(old), required(new));
        match (old.required, new.required) {
            (false, true) => self.add(What::RequiredAdded, path, before, after, Compatible::Forward),
            (true, false) => self.add(What::RequiredDropped, path, before, after, Compatible::Backward),
            _ => {}
        }
        if old.primary_key != new.primary_key {
            let key = |column: &Column| {
                if column.primary_key {
                    "in the key"
                } else {
                    "not in the key"
                }
            };
            let (before, after) = (key(old).to_owned(), key(new).to_owned());
            self.add(What::KeyChanged, path, before, after, Compatible::None);
        }
        if old.coercion != new.coercion {
            let word = |column: &Column| match column.coercion {
                Coercion::Lossless => "lossless".to_owned(),
                Coercion::None => "none".to_owned(),
            };
            let compatible = match new.coercion {
                Coercion::Lossless => Compatible::Backward,
                Coercion::None => Compatible::Forward,
            };
            self.add(What::CoercionChanged, path, word(old), word(new), compatible);
        }
        self.rules(&old.rules, &new.rules, path);
        if (old.on_mismatch, old.on_unknown) != (new.on_mismatch, new.on_unknown) {
            let word = |column: &Column| {
                let mismatch = column
                    .on_mismatch
                    .map(|policy| format!("onMismatch: {}", policy.as_str()));
                let unknown = column
                    .on_unknown
                    .map(|policy| format!("onUnknown: {}", policy.as_str()));
                let words: Vec<String> = mismatch.into_iter().chain(unknown).collect();
                words.join(", ")
            };
            self.add(What::PolicyChanged, path, word(old), word(new), Compatible::Both);
        }
        for (before, after) in [
            (&old.description, &new.description),
            (&old.classification, &new.classification),
        ] {
            if before != after {
                let word = |text: &Option<String>| text.clone().unwrap_or_default();
                self.add(
                    What::WordsChanged,
                    path,
                    word(before),
                    word(after),
                    Compatible::Both,
                );
            }
        }
        match (&old.kind, &new.kind) {
            (ColumnType::Object(old), ColumnType::Object(new)) => {
                let around = self.places.first().cloned().unwrap_or_default();
                self.columns(old, new, path, &around);
            }
            (ColumnType::Array(old), ColumnType::Array(new)) => {
                self.places.iter_mut().for_each(|place| place.push_str("[]"));
                self.column(old, new, &format!("{path}[]"));
                self.places
                    .iter_mut()
                    .for_each(|place| place.truncate(place.len() - 2));
            }
            _ => {}
        }
    }

    fn kind(&mut self, old: &Column, new: &Column, path: &str) {
        let is_same = match (&old.kind, &new.kind) {
            (ColumnType::Object(_), ColumnType::Object(_)) | (ColumnType::Array(_), ColumnType::Array(_)) => {
                true
            }
            (old, new) => old == new,
        };
        if is_same {
            return;
        }
        let (backward, forward) = (room(old, new), room(new, old));
        let compatible = Compatible::of(backward != Room::No, forward != Room::No);
        let unless = match (backward, forward) {
            (Room::Unless(what), _) | (_, Room::Unless(what)) => Some(what),
            _ => None,
        };
        self.differences.push(Difference {
            what: What::TypeChanged,
            path: path.to_owned(),
            places: self.places.clone(),
            before: kind_words(&old.kind),
            after: kind_words(&new.kind),
            compatible,
            unless,
        });
    }

    fn quality(&mut self, old: &[QualityRule], new: &[QualityRule]) {
        let find = |rules: &[QualityRule], name: &str| rules.iter().find(|rule| rule.name == name).cloned();
        for rule in old {
            let path = quality::path(&rule.name);
            let Some(now) = find(new, &rule.name) else {
                let compatible = refusing(rule).map_or(Compatible::Both, |_| dropped(true));
                self.add(
                    What::RuleRemoved,
                    &path,
                    rule_words(rule),
                    String::new(),
                    compatible,
                );
                continue;
            };
            if rule_words(rule) != rule_words(&now) {
                let compatible = match (refusing(rule), refusing(&now)) {
                    (old, new) if old == new => Compatible::Both,
                    (Some(_), Some(_)) => Compatible::None,
                    (old, _) => dropped(old.is_some()),
                };
                self.add(
                    What::RuleChanged,
                    &path,
                    rule_words(rule),
                    rule_words(&now),
                    compatible,
                );
            }
            if rule.description != now.description {
                let word = |text: &Option<String>| text.clone().unwrap_or_default();
                let (before, after) = (word(&rule.description), word(&now.description));
                self.add(What::WordsChanged, &path, before, after, Compatible::Both);
            }
        }
        for rule in new.iter().filter(|rule| find(old, &rule.name).is_none()) {
            let compatible = refusing(rule).map_or(Compatible::Both, |_| dropped(false));
            let path = quality::path(&rule.name);
            self.add(
                What::RuleAdded,
                &path,
                String::new(),
                rule_words(rule),
                compatible,
            );
        }
    }

    fn rules(&mut self, old: &Rules, new: &Rules, path: &str) {
        let list = |rules: &Rules| {
            rules
                .allowed
                .as_ref()
                .map_or_else(String::new, |all| all.join(", "))
        };
        let of_values = match (&old.allowed, &new.allowed) {
            (Some(old), Some(new)) => {
                let has_all =
                    |these: &[String], those: &[String]| those.iter().all(|one| these.contains(one));
                Some(Compatible::of(has_all(new, old), has_all(old, new)))
            }
            (None, None) => None,
            (old, _) => Some(dropped(old.is_some())),
        };
        // The order of the values means nothing.
        if let Some(compatible) = of_values.filter(|&compatible| compatible != Compatible::Both) {
            self.add(What::EnumChanged, path, list(old), list(new), compatible);
        }
        if old.pattern != new.pattern {
            let compatible = match (&old.pattern, &new.pattern) {
                (Some(_), Some(_)) => Compatible::None,
                (old, _) => dropped(old.is_some()),
            };
            let word = |rules: &Rules| rules.pattern.clone().unwrap_or_default();
            self.add(What::PatternChanged, path, word(old), word(new), compatible);
        }
        if (old.length_min, old.length_max) != (new.length_min, new.length_max) {
            let words = |rules: &Rules| range_words(rules.length_min, rules.length_max);
            let compatible = both(
                limit(old.length_min, new.length_min, |old, new| Some(new < old)),
                limit(old.length_max, new.length_max, |old, new| Some(new > old)),
            );
            self.add(What::LengthChanged, path, words(old), words(new), compatible);
        }
        if (&old.minimum, &old.maximum) != (&new.minimum, &new.maximum) {
            let words = |rules: &Rules| range_words(rules.minimum.as_ref(), rules.maximum.as_ref());
            let compatible = both(
                limit(old.minimum.as_deref(), new.minimum.as_deref(), |old, new| {
                    is_less(new, old)
                }),
                limit(old.maximum.as_deref(), new.maximum.as_deref(), is_less),
            );
            self.add(What::RangeChanged, path, words(old), words(new), compatible);
        }
        if old.unique != new.unique {
            let words = |rules: &Rules| if rules.unique { "unique" } else { "not unique" }.to_owned();
            self.add(
                What::UniqueChanged,
                path,
                words(old),
                words(new),
                Compatible::Both,
            );
        }
    }
}

/// Two differences as one.
fn both(one: Compatible, other: Compatible) -> Compatible {
    Compatible::of(
        one.is_backward() && other.is_backward(),
        one.is_forward() && other.is_forward(),
    )
}

/// A rule that is gone is backward compatible, a new one forward.
fn dropped(dropped: bool) -> Compatible {
    Compatible::of(dropped, !dropped)
}

/// Another limit; `looser` says whether the second of two takes more, and nothing if that cannot be told.
fn limit<T: PartialEq + Copy>(
    old: Option<T>,
    new: Option<T>,
    looser: impl Fn(T, T) -> Option<bool>,
) -> Compatible {
    match (old, new) {
        (old, new) if old == new => Compatible::Both,
        (Some(old), Some(new)) => looser(old, new).map_or(Compatible::None, dropped),
        (old, _) => dropped(old.is_some()),
    }
}

/// Whether one number is less than another, both as written. Too close to be told apart by doubles is not known.
fn is_less(one: &str, other: &str) -> Option<bool> {
    let double = |text: &str| text.parse::<f64>().ok().filter(|value| value.is_finite());
    let (one, other) = (double(one)?, double(other)?);
    (one != other).then_some(one < other)
}

/// The SQL by which a rule refuses records; `None` if it only warns.
fn refusing(rule: &QualityRule) -> Option<&str> {
    (rule.on_broken != OnBroken::Warn).then_some(&rule.sql)
}

fn rule_words(rule: &QualityRule) -> String {
    format!("{}: {}", rule.on_broken.severity(), rule.sql)
}

fn range_words(least: Option<impl fmt::Display>, most: Option<impl fmt::Display>) -> String {
    match (least, most) {
        (Some(least), Some(most)) => format!("{least} to {most}"),
        (Some(least), None) => format!("at least {least}"),
        (None, Some(most)) => format!("at most {most}"),
        (None, None) => String::new(),
    }
}

/// The path of a column in another.
pub(crate) fn below(parent: &str, name: &str) -> String {
    let mut path = parent.to_owned();
    write_name(name, &mut path);
    path
}

/// Where a column reads, in the object at `around`.
fn place(around: &str, column: &Column) -> String {
    let mut path = around.to_owned();
    column.path.iter().for_each(|name| write_name(name, &mut path));
    path
}

/// A column in a few words, such as `optional string`.
fn words(column: &Column) -> String {
    let required = if column.required { "required" } else { "optional" };
    format!("{required} {}", kind_words(&column.kind))
}

/// A type in words that tell every two types apart.
fn kind_words(kind: &ColumnType) -> String {
    match kind {
        ColumnType::Timestamp(format @ TimestampFormat::Naive { .. }) => {
            format!("timestamp ({})", timestamp_format(format).unwrap_or_default())
        }
        ColumnType::Array(element) => format!("array of {}", kind_words(&element.kind)),
        kind => plan::words(kind),
    }
}
