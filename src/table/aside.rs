//! Quarantined records that are looked for, and those that leave.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ops::RangeInclusive,
    sync::Arc,
};

use arrow::{
    array::{AsArray as _, RecordBatch},
    datatypes::{Int32Type, Int64Type, Schema, SchemaRef},
};
use deltalake::protocol::DeltaOperation;
use futures::TryStreamExt as _;
use object_store::path::Path;
use serde_json::Value;

use super::{
    Committed, Table,
    edit::{Edits, Patches},
    file::DataFile,
    latest::arrow_error,
    merge::POSITION,
    release::{ReleaseNote, told},
};
use crate::{contract::place::without_positions, error::Result};

/// The place of a quarantined record in raw: batch, page and record; record -1 stands for a page as a whole.
pub type Place = (i64, i32, i32);

/// Which quarantined records are meant. All of those that are given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The first reason found, such as `type_mismatch`.
    pub class: Option<String>,
    /// Where in the record; list positions do not count, so that `lines[2].price` is at `lines[].price`.
    pub path: Option<String>,
    /// The raw batch.
    pub batch: Option<i64>,
    /// The load that set it aside.
    pub load_id: Option<String>,
}

/// A quarantined record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    /// Where it is in raw.
    pub place: Place,
    /// The load that set it aside.
    pub load_id: String,
    /// The last raw batch of that load.
    pub batch_to: i64,
}

/// How records left the quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// All of them, by one commit.
    All,
    /// None: some are not there any more. Somebody else released them.
    SomeWereGone,
    /// None: somebody else committed first.
    Conflicted,
}

/// Columns that tell which records a row is about.
const COLUMNS: [&str; 7] = [
    POSITION[0],
    POSITION[1],
    POSITION[2],
    "class",
    "path",
    "load_id",
    "batch_to",
];

impl Table {
    /// How many rows of a quarantine are meant by `choice`, by raw batch. Files in `void` do not count.
    ///
    /// # Errors
    /// Those of reading the table.
    pub async fn count_aside(&self, void: &[Path], choice: &Choice) -> Result<BTreeMap<i64, u64>> {
        let range = choice.batch.map_or(i64::MIN..=i64::MAX, |batch| batch..=batch);
        let mut counts = BTreeMap::new();
        self.each_aside(void, &range, choice, |aside| {
            *counts.entry(aside.place.0).or_default() += 1;
        })
        .await?;
        Ok(counts)
    }

    /// The rows of a quarantine that are meant by `choice` and whose raw batch is in `batches`.
    ///
    /// # Errors
    /// Those of reading the table.
    pub async fn aside(
        &self,
        void: &[Path],
        choice: &Choice,
        batches: &RangeInclusive<i64>,
    ) -> Result<Vec<Aside>> {
        let mut found = Vec::new();
        self.each_aside(void, batches, choice, |aside| found.push(aside))
            .await?;
        Ok(found)
    }

    async fn each_aside(
        &self,
        void: &[Path],
        batches: &RangeInclusive<i64>,
        choice: &Choice,
        mut visit: impl FnMut(Aside),
    ) -> Result<()> {
        let schema = self.columns_of(&COLUMNS)?;
        for file in self.files_with(void, batches)? {
            let mut rows = std::pin::pin!(self.read(&file, Arc::clone(&schema)).await?);
            while let Some(batch) = rows.try_next().await? {
                let text = |name: &str| batch[name].as_string::<i32>().clone();
                let (class, path, load_id) = (text("class"), text("path"), text("load_id"));
                let batch_to = batch["batch_to"].as_primitive::<Int64Type>().clone();
                let is = |wanted: &Option<String>, found: &str| {
                    wanted.as_ref().is_none_or(|wanted| wanted == found)
                };
                for (row, place) in places(&batch).enumerate() {
                    if batches.contains(&place.0)
                        && choice.batch.is_none_or(|batch| batch == place.0)
                        && is(&choice.class, class.value(row))
                        && is(&choice.path, &without_positions(path.value(row)))
                        && is(&choice.load_id, load_id.value(row))
                    {
                        visit(Aside {
                            place,
                            load_id: load_id.value(row).to_owned(),
                            batch_to: batch_to.value(row),
                        });
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes the rows at `places` out of a quarantine, puts `added` in, and tells `note`, all by one commit.
    ///
    /// Each batch of `added` is of one load: the files of a quarantine are.
    ///
    /// # Errors
    /// Those of reading and writing the table.
    pub async fn take_out(
        &mut self,
        void: &[Path],
        places_out: &HashSet<Place>,
        added: &[RecordBatch],
        note: &ReleaseNote,
    ) -> Result<Left> {
        let numbers = || places_out.iter().map(|place| place.0);
        let (Some(first), Some(last)) = (numbers().min(), numbers().max()) else {
            return Ok(Left::All);
        };
        let schema = self.schema()?;
        let mut found = HashSet::new();
        let mut actions = Vec::new();
        for file in self.files_with(void, &(first..=last))? {
            let drops = self.find_places(&file, places_out, &mut found).await?;
            if drops.is_empty() {
                continue;
            }
            let edits = Edits {
                drops,
                ..Edits::default()
            };
            let mut writer = self.writer(Arc::clone(&schema))?;
            self.copy_edited(&file, edits, &Patches::default(), &schema, &mut writer)
                .await?;
            actions.extend(writer.close().await?);
            actions.push(Self::remove(&file));
        }
        if found.len() < places_out.len() {
            return Ok(Left::SomeWereGone);
        }
        for batch in added {
            let shaped = self.shaped(std::slice::from_ref(batch))?;
            let mut writer = self.writer(Arc::clone(&schema))?;
            for rows in &shaped.rows {
                writer.write(rows).await?;
            }
            actions.extend(writer.close().await?);
        }
        let operation = DeltaOperation::Delete {
            predicate: Some("records that were released".to_owned()),
        };
        let committed = self
            .commit_told(actions, operation, told(note)?, &note.release_id)
            .await?;
        Ok(match committed {
            Committed::Applied { .. } | Committed::AlreadyApplied => Left::All,
            Committed::Conflicted => Left::Conflicted,
        })
    }

    /// The numbers of the rows of `file` that are at one of `wanted`, which are put into `found`.
    pub(super) async fn find_places(
        &self,
        file: &DataFile,
        wanted: &HashSet<Place>,
        found: &mut HashSet<Place>,
    ) -> Result<Vec<u64>> {
        let schema = self.columns_of(&POSITION)?;
        let mut rows = std::pin::pin!(self.read_numbered(file, schema).await?);
        let mut drops = Vec::new();
        while let Some(batch) = rows.try_next().await? {
            for (row, place) in places(&batch.rows).enumerate() {
                if wanted.contains(&place) {
                    drops.push(batch.number(row));
                    found.insert(place);
                }
            }
        }
        Ok(drops)
    }

    /// Files that may have rows of these raw batches, without those in `void`.
    fn files_with(&self, void: &[Path], batches: &RangeInclusive<i64>) -> Result<Vec<DataFile>> {
        let mut files = self.files()?;
        files.retain(|file| !void.contains(&file.path) && overlaps(file, batches));
        Ok(files)
    }

    /// Files that may have rows of these raw batches.
    pub(super) fn files_of_batches(&self, batches: &BTreeSet<i64>) -> Result<Vec<DataFile>> {
        let mut files = self.files()?;
        files.retain(|file| batches.range(batches_of(file)).next().is_some());
        Ok(files)
    }

    pub(super) fn columns_of(&self, names: &[&str]) -> Result<SchemaRef> {
        let schema = self.schema()?;
        let fields = names
            .iter()
            .map(|name| schema.field_with_name(name).cloned().map_err(arrow_error))
            .collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(Schema::new(fields)))
    }
}

pub(super) fn places(batch: &RecordBatch) -> impl Iterator<Item = Place> {
    let (numbers, pages, records) = (
        batch[POSITION[0]].as_primitive::<Int64Type>(),
        batch[POSITION[1]].as_primitive::<Int32Type>(),
        batch[POSITION[2]].as_primitive::<Int32Type>(),
    );
    (0..numbers.len()).map(move |row| (numbers.value(row), pages.value(row), records.value(row)))
}

/// Whether the raw batches of `file` can be among `batches`.
fn overlaps(file: &DataFile, batches: &RangeInclusive<i64>) -> bool {
    let of_file = batches_of(file);
    of_file.start() <= batches.end() && of_file.end() >= batches.start()
}

/// The raw batches that `file` can have rows of, as far as its statistics tell.
fn batches_of(file: &DataFile) -> RangeInclusive<i64> {
    let stats: Option<Value> = file
        .stats
        .as_deref()
        .and_then(|text| serde_json::from_str(text).ok());
    let bound = |name: &str| stats.as_ref()?.get(name)?.get(POSITION[0])?.as_i64();
    bound("minValues").unwrap_or(i64::MIN)..=bound("maxValues").unwrap_or(i64::MAX)
}
