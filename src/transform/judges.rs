//! What judges the records of a stream: the contract, or one of several by the version that a record names.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Schema, SchemaRef},
};

use crate::{
    config::versions::Versions,
    contract::{
        columns,
        contracts::Contracts,
        drift::{Change, ChangeKind, Effect},
        judge::{Judge, RESCUED},
        observed::{NEW_VALUES_MAX, write_name},
        sample::{self, MASK, Place, SAMPLES_MAX, Sample},
    },
    error::Result,
    json::{JsonPath, member::Said},
    transform::{
        align::{Align, Aligned},
        condition::Condition,
        quality::Quality,
    },
};

/// A contract, made ready.
pub struct Bench {
    /// Version of the contract.
    pub version: String,
    /// The contract.
    pub judge: Judge,
    /// Its rules in SQL, asked of rows that fit and are no deletions.
    pub quality: Quality,
    /// How its rows get the columns of all; none if it is the only one.
    align: Option<Align>,
}

/// Everything that judges the records of one stream.
pub struct Judges {
    /// That of the main contract.
    pub main: Bench,
    /// Those of other versions, in the order of their contracts.
    pub older: Vec<Bench>,
    choice: Option<Choice>,
    schema: SchemaRef,
    /// Which rows are deletions, over the columns of all contracts.
    pub deletes: Option<Condition>,
}

/// Which contract judges a record.
struct Choice {
    field: JsonPath,
    /// What records say there, with the number of their contract: 0 for the main one.
    values: Vec<(String, usize)>,
    /// Whether a contract calls it personal data.
    is_classified: bool,
}

/// Records of versions that are not known: the main contract judged them.
#[derive(Clone, Debug, Default)]
pub struct Unlisted {
    /// How many.
    records: u64,
    /// The first values with their counts.
    values: BTreeMap<String, u64>,
    samples: Vec<Sample>,
}

impl Bench {
    /// A contract of this `version`.
    pub fn new(version: String, judge: Judge, quality: Quality) -> Self {
        Self {
            version,
            judge,
            quality,
            align: None,
        }
    }

    /// Rows that its judge made, in the columns of all contracts.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) for rows that another one made.
    pub fn aligned(&self, judged: &RecordBatch) -> Result<Aligned> {
        match &self.align {
            Some(align) => align.apply(judged),
            None => Ok(Aligned {
                rows: judged.clone(),
                unheld: Vec::new(),
            }),
        }
    }
}

impl Judges {
    /// Puts those of `contracts` together: `main`, and `older` in their order. `deletes` is a condition in SQL.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::error::ErrorKind::Config) if the condition does not go with the columns of all.
    pub fn new(
        mut main: Bench,
        mut older: Vec<Bench>,
        contracts: &Contracts,
        versions: Option<&Versions>,
        deletes: Option<&str>,
    ) -> Result<Self> {
        let schema = schema(contracts);
        if !older.is_empty() {
            let benches = std::iter::once(&mut main).chain(&mut older);
            for (bench, contract) in benches.zip(contracts.all()) {
                let union = &contracts.union.columns;
                bench.align = Some(Align::new(&contract.columns, union, Arc::clone(&schema)));
            }
        }
        Ok(Self {
            main,
            older,
            choice: versions.map(|versions| Choice::new(versions, contracts)),
            deletes: deletes.map(|sql| Condition::new(sql, &schema)).transpose()?,
            schema,
        })
    }

    /// The columns of all contracts, then what was rescued.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// That of each contract, the main one first.
    pub fn all(&self) -> impl Iterator<Item = &Bench> {
        std::iter::once(&self.main).chain(&self.older)
    }

    /// The number of the contract among [`Judges::all`] that judges `record`. One of a version that is not listed is noted in
    /// `unlisted`, with its place.
    pub(super) fn choose(
        &self,
        record: &[u8],
        place: impl FnOnce() -> Place,
        unlisted: &mut Unlisted,
    ) -> usize {
        let Some(choice) = &self.choice else { return 0 };
        let value = match choice.field.said(record) {
            Said::Nothing => return 0,
            Said::Value(value) => value,
            Said::Other => "\u{2026}".into(),
        };
        let known = choice.values.iter().find(|(known, _)| *known == value);
        if let Some((_, number)) = known {
            return *number;
        }
        unlisted.add(choice, &value, place);
        0
    }

    /// What records said that are of no version that is listed, as drift; none if all are.
    pub fn unlisted(&self, unlisted: &Unlisted, records: u64) -> Option<Change> {
        let choice = self.choice.as_ref().filter(|_| unlisted.records > 0)?;
        let quoted = |value: &str| serde_json::Value::from(value).to_string();
        let known: Vec<String> = choice.values.iter().map(|(value, _)| quoted(value)).collect();
        let values = unlisted.values.iter();
        let found: Vec<String> = values.map(|(value, count)| format!("{value} ×{count}")).collect();
        Some(Change {
            kind: ChangeKind::EnumGrown,
            path: choice.path(),
            expected: format!("a version that is listed: {}", known.join(", ")),
            found: found.join(", "),
            count: unlisted.records,
            records,
            first_record: None,
            effect: Effect::Accepted,
            samples: unlisted.samples.clone(),
            nature: unlisted.values.keys().cloned().collect(),
        })
    }
}

impl Choice {
    fn new(versions: &Versions, contracts: &Contracts) -> Self {
        let number = |file: &Path| {
            let older = contracts.older.iter().position(|older| older.file == *file);
            older.map_or(0, |older| older + 1)
        };
        let listed = versions.contracts.iter();
        let mut values: Vec<(String, usize)> = listed
            .map(|(value, file)| (value.clone(), number(file)))
            .collect();
        let main = &contracts.main.version;
        if !values.iter().any(|(value, _)| value == main) {
            values.push((main.clone(), 0));
        }
        let mut choice = Self {
            field: versions.field.clone(),
            values,
            is_classified: false,
        };
        choice.is_classified = contracts.classified().covers(&choice.path());
        choice
    }

    /// The field as drift names it.
    fn path(&self) -> String {
        let mut path = String::new();
        self.field.members().for_each(|name| write_name(name, &mut path));
        path
    }
}

impl Unlisted {
    fn add(&mut self, choice: &Choice, value: &str, place: impl FnOnce() -> Place) {
        self.records += 1;
        let shown = if choice.is_classified {
            MASK.to_owned()
        } else {
            let name = choice.field.members().last().unwrap_or_default();
            sample::shown(name, &sample::cut(&serde_json::Value::from(value).to_string()))
        };
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push(Sample {
                at: Some(place()),
                value: shown.clone(),
            });
        }
        if self.values.len() < NEW_VALUES_MAX || self.values.contains_key(&shown) {
            *self.values.entry(shown).or_default() += 1;
        }
    }

    /// Adds those of another part of the load.
    pub(super) fn merge(&mut self, other: Self) {
        self.records += other.records;
        self.samples.extend(other.samples);
        self.samples.sort_by_key(|sample| sample.at);
        self.samples.truncate(SAMPLES_MAX);
        for (value, count) in other.values {
            if self.values.len() < NEW_VALUES_MAX || self.values.contains_key(&value) {
                *self.values.entry(value).or_default() += count;
            }
        }
    }
}

fn schema(contracts: &Contracts) -> SchemaRef {
    let mut fields: Vec<Field> = contracts.union.columns.iter().map(columns::field).collect();
    fields.push(Field::new(RESCUED, DataType::Utf8, true));
    Arc::new(Schema::new(fields))
}
