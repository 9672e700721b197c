//! History (`scd_type: 2`): every version of a row stays, with the span in which it was the current one.
//!
//! A version is identified by its keys and its sequence; of several with the same the one that arrived last counts. Its
//! span begins with its own sequence and ends with that of the next version, so a version that arrives late takes its
//! place between those that were there.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, new_null_array},
    compute::{concat, filter_record_batch, interleave},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use futures::TryStreamExt as _;

use super::{
    Table,
    edit::{Edits, Patches},
    file::DataFile,
    latest::{Converter, Latest, arrow_error, with_column},
    merge::{MergeCounts, MergeOptions, POSITION, Planned, Shape, merge_operation},
    opened::Numbered,
    probe::Candidates,
    slices::{Keep, LoadSlices, Slice},
    write::Writer,
};
use crate::{
    error::{Error, ErrorKind, Result},
    spill::gathered::Gathered,
};

/// When a version became the current one: its first sequence column.
pub const VALID_FROM: &str = "_valid_from";

/// When the next version did; null while there is none.
pub const VALID_TO: &str = "_valid_to";

/// Whether the row is the newest version of a key that is not deleted.
pub const CURRENT: &str = "_current";

/// `schema` with the columns that history adds.
///
/// # Errors
/// [`ErrorKind::Config`] if `sequence` is no column of it.
pub fn schema(schema: &Schema, sequence: &str) -> Result<SchemaRef> {
    let kind = schema
        .field_with_name(sequence)
        .map_err(|source| {
            Error::new(ErrorKind::Config, "find column of sequence_by")
                .with("column", sequence)
                .caused_by(source)
        })?
        .data_type()
        .clone();
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    for (name, kind) in [
        (VALID_FROM, kind.clone()),
        (VALID_TO, kind),
        (CURRENT, DataType::Boolean),
    ] {
        fields.push(Arc::new(Field::new(name, kind, true)));
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// A version of a key: in the load, or in the table.
struct Version<'a> {
    /// Its sequence as comparable bytes.
    sequence: &'a [u8],
    /// Its raw position as comparable bytes.
    position: &'a [u8],
    place: Place,
}

#[derive(Clone, Copy)]
enum Place {
    /// The winner of that number.
    Load(usize),
    /// The found row of that number.
    Table(usize),
}

/// A row of the table whose key is in the load.
struct Found {
    file: usize,
    row: u64,
    /// Batch of `Probed::kept` and row in it.
    kept: (usize, usize),
}

/// What the table has of the load's keys.
#[derive(Default)]
struct Probed {
    rows: Vec<Found>,
    /// Key, sequence and position columns of the found rows.
    kept: Vec<RecordBatch>,
    /// Row groups of the files that can have some.
    groups: u64,
    /// Those whose keys were read.
    groups_read: u64,
}

impl Probed {
    /// Keeps those rows of `numbered`, which are of the file of that number, whose keys are in `by_key`.
    fn add(&mut self, numbered: &Numbered, file: usize, keys: &Converter, by_key: &Groups) -> Result<()> {
        let batch = &numbered.rows;
        let rows = keys.convert(batch)?;
        let (mut chosen, mut count) = (vec![false; batch.num_rows()], 0);
        for (row, chosen) in chosen.iter_mut().enumerate() {
            if !by_key.of_key.contains_key(rows.row(row).data()) {
                continue;
            }
            *chosen = true;
            self.rows.push(Found {
                file,
                row: numbered.number(row),
                kept: (self.kept.len(), count),
            });
            count += 1;
        }
        if count > 0 {
            self.kept
                .push(filter_record_batch(batch, &BooleanArray::from(chosen)).map_err(arrow_error)?);
        }
        Ok(())
    }
}

/// What becomes of the versions: rows that go or change, and the spans of the new ones.
struct Spans {
    edits: Vec<Edits>,
    /// The end of each patched row's span: the winner that follows it.
    successors: Vec<usize>,
    /// For each winner whether it is a version, and what follows it.
    next: Vec<Option<Option<Place>>>,
    counts: MergeCounts,
}

/// What the slices of a load do to the rows of a table, as far as they are looked at.
struct Changes {
    edits: Vec<Edits>,
    /// The ends of the spans of patched rows.
    ends: Vec<ArrayRef>,
    /// Whether a file can hold keys of the load.
    probed: Vec<bool>,
    counts: MergeCounts,
}

impl Changes {
    fn new(files: usize) -> Self {
        Self {
            edits: vec![Edits::default(); files],
            ends: Vec::new(),
            probed: vec![false; files],
            counts: MergeCounts::default(),
        }
    }

    /// Adds what `spans` of one slice change; `ends` are the values for its patches.
    fn add(&mut self, spans: Spans, ends: ArrayRef) {
        let before: usize = self.ends.iter().map(|ends| ends.len()).sum();
        for (edits, more) in self.edits.iter_mut().zip(spans.edits) {
            edits.drops.extend(more.drops);
            let patches = more.patches.into_iter();
            edits.patches.extend(patches.map(|(row, at)| (row, before + at)));
        }
        self.ends.push(ends);
        self.counts.merged += spans.counts.merged;
        self.counts.superseded += spans.counts.superseded;
        self.counts.present += spans.counts.present;
        self.counts.replaced += spans.counts.replaced;
        self.counts.changed += spans.counts.changed;
    }
}

impl Table {
    pub(super) async fn plan_history(
        &self,
        rows: Gathered,
        shape: Shape,
        options: &MergeOptions,
    ) -> Result<Planned> {
        let identity: Vec<&str> = options
            .keys()
            .into_iter()
            .chain(options.sequence_by.iter().map(String::as_str))
            .collect();
        let files = self.files()?;
        let slices = LoadSlices::new(rows, &shape, &identity, &POSITION, Keep::Versions)?;
        let mut changes = Changes::new(files.len());
        let mut writer = self
            .writer(Arc::clone(&shape.schema))?
            .with_filters(&options.keys);
        for number in 0..slices.count() {
            let slice = slices.read(number).await?;
            self.place(&slice, &files, &shape, options, &mut changes, &mut writer)
                .await?;
        }
        let Changes {
            edits,
            ends,
            probed,
            mut counts,
        } = changes;
        counts.files = files.len() as u64;
        counts.files_probed = probed.iter().filter(|probed| **probed).count() as u64;
        let ended: usize = ends.iter().map(|ends| ends.len()).sum();
        let ends: Vec<&dyn arrow::array::Array> = ends.iter().map(AsRef::as_ref).collect();
        let patches = Patches {
            columns: vec![
                (VALID_TO, concat(&ends).map_err(arrow_error)?),
                (CURRENT, Arc::new(BooleanArray::from(vec![false; ended]))),
            ],
            latest: None,
        };
        let edited = files
            .into_iter()
            .zip(edits)
            .filter(|(_, edits)| !edits.is_empty());
        let edited = edited.collect();
        let changed = self
            .change(edited, &patches, options, &mut writer, &mut counts)
            .await?;
        let mut actions = changed.actions;
        actions.extend(writer.close().await?);
        Ok(Planned {
            counts,
            tombstones: Vec::new().into(),
            actions,
            schema: shape.changed,
            operation: merge_operation(options),
        })
    }

    /// Writes the versions of `slice` and adds what changes in `files`.
    async fn place(
        &self,
        slice: &Slice,
        files: &[DataFile],
        shape: &Shape,
        options: &MergeOptions,
        changes: &mut Changes,
        writer: &mut Writer,
    ) -> Result<()> {
        let sequence = options.sequence_by.first().ok_or_else(|| {
            Error::new(ErrorKind::Config, "merge history").with("problem", "sequence_by names no column")
        })?;
        let latest = &slice.latest;
        let candidates = self.candidates(files, &options.keys, latest);
        let keys = Converter::new(&options.keys(), &shape.schema)?;
        let groups = Groups::of(latest, &keys)?;
        let probed = self
            .find_versions(files, &candidates, latest, &keys, &groups)
            .await?;
        let spans = spans(latest, &groups, &probed, &keys, options, files.len())?;
        let sequences = Sequences::of(latest, &probed, sequence, &shape.schema)?;
        let next = &spans.next;
        let deleted = latest.deletions();
        let versions: Vec<usize> = (0..next.len()).filter(|winner| next[*winner].is_some()).collect();
        let extend = |winners: &[usize], rows: RecordBatch| -> Result<RecordBatch> {
            let starts: Vec<Option<Place>> =
                winners.iter().map(|winner| Some(Place::Load(*winner))).collect();
            let ends: Vec<Option<Place>> = winners.iter().map(|winner| next[*winner].flatten()).collect();
            let current: BooleanArray = winners
                .iter()
                .zip(&ends)
                .map(|(winner, end)| Some(end.is_none() && !deleted[*winner]))
                .collect();
            let rows = with_column(&rows, VALID_FROM, sequences.at(&starts)?)?;
            let rows = with_column(&rows, VALID_TO, sequences.at(&ends)?)?;
            with_column(&rows, CURRENT, Arc::new(current))
        };
        latest.write(&versions, extend, writer).await?;
        let ends: Vec<Option<Place>> = spans
            .successors
            .iter()
            .map(|winner| Some(Place::Load(*winner)))
            .collect();
        let ends = sequences.at(&ends)?;
        for number in &candidates.files {
            changes.probed[*number] = true;
        }
        changes.counts.groups += probed.groups;
        changes.counts.groups_probed += probed.groups_read;
        changes.counts.superseded += slice.beaten;
        changes.add(spans, ends);
        Ok(())
    }

    /// Every version that the table has of the keys of the load.
    async fn find_versions(
        &self,
        files: &[DataFile],
        candidates: &Candidates,
        latest: &Latest,
        keys: &Converter,
        by_key: &Groups,
    ) -> Result<Probed> {
        let mut probed = Probed::default();
        for number in &candidates.files {
            let opened = self.open(&files[*number]).await?;
            let groups = opened.groups_with(&candidates.ranges).await?;
            probed.groups += opened.groups().len() as u64;
            probed.groups_read += groups.len() as u64;
            for group in groups {
                let rows = opened.rows_of(group..group + 1, Arc::clone(&latest.probe_schema))?;
                let mut batches = std::pin::pin!(rows);
                while let Some(batch) = batches.try_next().await? {
                    probed.add(&batch, *number, keys, by_key)?;
                }
            }
        }
        Ok(probed)
    }
}

/// The winners of a load by key.
struct Groups {
    of_key: HashMap<Vec<u8>, Vec<usize>>,
}

impl Groups {
    fn of(latest: &Latest, keys: &Converter) -> Result<Self> {
        let rows = latest
            .rows
            .iter()
            .map(|batch| keys.convert(batch))
            .collect::<Result<Vec<_>>>()?;
        let mut of_key: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        for (winner, (batch, row)) in latest.winners.iter().enumerate() {
            let key = rows[*batch].row(*row);
            match of_key.get_mut(key.data()) {
                Some(winners) => winners.push(winner),
                None => {
                    of_key.insert(key.data().to_vec(), vec![winner]);
                }
            }
        }
        Ok(Self { of_key })
    }
}

/// Puts the versions of each key in order and finds out what changes.
fn spans(
    latest: &Latest,
    groups: &Groups,
    probed: &Probed,
    keys: &Converter,
    options: &MergeOptions,
    files: usize,
) -> Result<Spans> {
    let names: Vec<&str> = options.sequence_by.iter().map(String::as_str).collect();
    let schema = latest.probe_schema.as_ref();
    let (sequence, position) = (
        Converter::new(&names, schema)?,
        Converter::new(&POSITION, schema)?,
    );
    let convert = |converter: &Converter, batches: &[RecordBatch]| {
        batches
            .iter()
            .map(|batch| converter.convert(batch))
            .collect::<Result<Vec<_>>>()
    };
    let (load_sequences, load_positions) = (
        convert(&sequence, &latest.rows)?,
        convert(&position, &latest.rows)?,
    );
    let (kept_keys, kept_sequences) = (convert(keys, &probed.kept)?, convert(&sequence, &probed.kept)?);
    let kept_positions = convert(&position, &probed.kept)?;
    let mut found: HashMap<&[u8], Vec<usize>> = HashMap::new();
    for (number, row) in probed.rows.iter().enumerate() {
        let key = kept_keys[row.kept.0].row(row.kept.1).data();
        found.entry(key).or_default().push(number);
    }
    let mut spans = Spans {
        edits: vec![Edits::default(); files],
        successors: Vec::new(),
        next: vec![None; latest.winners.len()],
        counts: MergeCounts {
            superseded: latest.total() - latest.winners.len() as u64,
            ..MergeCounts::default()
        },
    };
    for (key, winners) in &groups.of_key {
        let mut versions: Vec<Version<'_>> = Vec::new();
        for winner in winners {
            let (batch, row) = latest.winners[*winner];
            versions.push(Version {
                sequence: load_sequences[batch].row(row).data(),
                position: load_positions[batch].row(row).data(),
                place: Place::Load(*winner),
            });
        }
        for number in found.get(key.as_slice()).into_iter().flatten() {
            let (batch, row) = probed.rows[*number].kept;
            versions.push(Version {
                sequence: kept_sequences[batch].row(row).data(),
                position: kept_positions[batch].row(row).data(),
                place: Place::Table(*number),
            });
        }
        versions.sort_by(|a, b| (a.sequence, a.position).cmp(&(b.sequence, b.position)));
        // Of versions with one sequence the last to arrive stays.
        let mut last: Vec<&Version<'_>> = Vec::new();
        for version in &versions {
            if last
                .last()
                .is_some_and(|before| before.sequence == version.sequence)
                && let Some(beaten) = last.pop()
            {
                let same = beaten.position == version.position;
                spans.counts.present += u64::from(same && matches!(beaten.place, Place::Load(_)));
                spans.beaten(beaten.place, probed);
            }
            last.push(version);
        }
        for (number, version) in last.iter().enumerate() {
            let next = last.get(number + 1).map(|next| next.place);
            spans.settle(version.place, next, probed);
        }
    }
    Ok(spans)
}

impl Spans {
    fn beaten(&mut self, place: Place, probed: &Probed) {
        match place {
            Place::Load(_) => self.counts.superseded += 1,
            Place::Table(number) => {
                let found = &probed.rows[number];
                self.edits[found.file].drops.push(found.row);
                self.counts.replaced += 1;
                self.counts.changed += 1;
            }
        }
    }

    fn settle(&mut self, place: Place, next: Option<Place>, probed: &Probed) {
        match (place, next) {
            (Place::Load(winner), next) => {
                self.next[winner] = Some(next);
                self.counts.merged += 1;
            }
            // Its span ends where a new version begins; after a row of the table it ended there before.
            (Place::Table(number), Some(Place::Load(winner))) => {
                let found = &probed.rows[number];
                self.edits[found.file]
                    .patches
                    .push((found.row, self.successors.len()));
                self.successors.push(winner);
            }
            (Place::Table(_), _) => {}
        }
    }
}

/// The first sequence column of the load's rows and of the found ones.
struct Sequences<'a> {
    latest: &'a Latest,
    probed: &'a Probed,
    /// One null, then the load's batches, then the table's.
    columns: Vec<ArrayRef>,
}

impl<'a> Sequences<'a> {
    fn of(latest: &'a Latest, probed: &'a Probed, name: &str, schema: &Schema) -> Result<Self> {
        let kind = schema.field_with_name(name).map_err(arrow_error)?.data_type();
        let mut columns = vec![new_null_array(kind, 1)];
        for batch in latest.rows.iter().chain(&probed.kept) {
            columns.push(Arc::clone(&batch[name]));
        }
        Ok(Self {
            latest,
            probed,
            columns,
        })
    }

    /// The values at `places`, null for none.
    fn at(&self, places: &[Option<Place>]) -> Result<ArrayRef> {
        let columns: Vec<&dyn arrow::array::Array> = self.columns.iter().map(AsRef::as_ref).collect();
        let indices: Vec<(usize, usize)> = places
            .iter()
            .map(|place| match place {
                None => (0, 0),
                Some(Place::Load(winner)) => {
                    let (batch, row) = self.latest.winners[*winner];
                    (1 + batch, row)
                }
                Some(Place::Table(number)) => {
                    let (batch, row) = self.probed.rows[*number].kept;
                    (1 + self.latest.rows.len() + batch, row)
                }
            })
            .collect();
        interleave(&columns, &indices).map_err(arrow_error)
    }
}
