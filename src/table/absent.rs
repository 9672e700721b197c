//! What a finished pass over everything an API has says about rows that it did not bring.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use arrow::{
    array::{Array as _, AsArray as _, BooleanArray, Int32Array, Int64Array, RecordBatch},
    compute::filter_record_batch,
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef},
};
use deltalake::kernel::schema::cast_record_batch;
use futures::{TryStreamExt as _, stream::BoxStream};

use super::{
    Table,
    edit::Edits,
    file::DataFile,
    latest::{Converter, arrow_error, with_column},
    lower,
    merge::{MergeOptions, POSITION},
};
use crate::{config::Deletes, error::Result, raw::BatchNumber};

/// A finished pass over everything an API has, as the end of a load.
pub struct Absence<'a> {
    /// The pass's first batch. Rows that came since were seen.
    pub since: BatchNumber,
    /// The pass's last batch.
    pub until: BatchNumber,
    /// Largest part of the live rows that may be deleted by it, from 0 to 1.
    pub delete_ratio_max: f64,
    /// Most absent rows that are held in memory, about 256 bytes each. If there are more, none is deleted.
    pub rows_max: usize,
    /// Records of the pass that are not among the rows to be merged: of loads before this one, or quarantined.
    pub seen: BoxStream<'a, Result<Seen>>,
}

/// Records of a pass whose rows are still there.
#[derive(Clone, Debug)]
pub enum Seen {
    /// Their key columns.
    Keys(RecordBatch),
    /// Their keys cannot be read, so nobody knows which rows they are.
    Keyless,
}

/// What the pass found missing. `deleted + held` rows were in the table and are not in the API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AbsentCounts {
    /// Rows that would be in the table and not deleted if none were absent.
    pub live: u64,
    /// Rows that the pass did not bring and that are deleted now.
    pub deleted: u64,
    /// Rows that the pass did not bring and that stay: they are more than the limit allows, or it had records without a
    /// readable key.
    pub held: u64,
}

/// Rows that the pass did not bring.
pub(super) struct Absent {
    pub(super) counts: AbsentCounts,
    /// Rows that go or are marked, by file.
    pub(super) rows: Vec<(usize, u64)>,
    /// Key, sequence and position columns of those rows, with the position of the pass's end.
    pub(super) tombstones: Vec<RecordBatch>,
}

impl Absent {
    /// Adds the rows to the edits of their files.
    pub(super) fn edit(&self, hard: bool, edits: &mut [Edits]) {
        for (file, row) in &self.rows {
            if hard {
                edits[*file].drops.push(*row);
            } else {
                edits[*file].patches.push((*row, 0));
            }
        }
    }
}

impl Table {
    /// Finds the rows of `files` that `absence` says are gone: live, older than the pass, and seen neither by the load nor
    /// otherwise. `edits` are what the merge does to the files, `met` the rows of them that stay although the load has their
    /// keys, and `written` the live rows that it adds.
    pub(super) async fn find_absent(
        &self,
        files: &[DataFile],
        probe_schema: &SchemaRef,
        options: &MergeOptions,
        absence: Absence<'_>,
        (edits, met): (&[Edits], &[Vec<u64>]),
        written: u64,
    ) -> Result<Absent> {
        let keys = Converter::new(&options.keys(), probe_schema)?;
        let mut fields: Vec<Arc<Field>> = probe_schema.fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new("_deleted", DataType::Boolean, true)));
        let schema = Arc::new(Schema::new(fields));
        let mut found = Found {
            live: written,
            ..Found::default()
        };
        for (number, file) in files.iter().enumerate() {
            let dropped: HashSet<u64> = edits[number].gone().collect();
            let met: HashSet<u64> = met[number].iter().copied().collect();
            let mut batches = std::pin::pin!(self.read_numbered(file, Arc::clone(&schema)).await?);
            while let Some(numbered) = batches.try_next().await? {
                let batch = &numbered.rows;
                let rows = keys.convert(batch)?;
                let deleted = batch["_deleted"].as_boolean();
                let numbers = batch[POSITION[0]].as_primitive::<Int64Type>();
                for row in 0..batch.num_rows() {
                    let place = numbered.number(row);
                    if deleted.is_valid(row) && deleted.value(row) || dropped.contains(&place) {
                        continue;
                    }
                    found.live += 1;
                    if numbers.value(row) < absence.since.get() && !met.contains(&place) {
                        found.add(rows.row(row).data(), (number, place), absence.rows_max);
                    }
                }
            }
        }
        let known = found
            .strike_out(absence.seen, probe_schema, &options.keys())
            .await?;
        let mut counts = AbsentCounts {
            live: found.live,
            ..AbsentCounts::default()
        };
        let mut rows: Vec<(usize, u64)> = std::mem::take(&mut found.candidates)
            .into_values()
            .flatten()
            .collect();
        let absent = found.beyond + rows.len() as u64;
        if !known || found.beyond > 0 || absent as f64 > absence.delete_ratio_max * counts.live as f64 {
            counts.held = absent;
            rows.clear();
        }
        counts.deleted = rows.len() as u64;
        rows.sort_unstable();
        let tombstones = match options.deletes {
            Deletes::Hard => self.bury(files, &rows, probe_schema, absence.until).await?,
            Deletes::Soft => Vec::new(),
        };
        Ok(Absent {
            counts,
            rows,
            tombstones,
        })
    }

    /// Keys and sequence of `rows`, with the position behind everything in the batch `until`.
    async fn bury(
        &self,
        files: &[DataFile],
        rows: &[(usize, u64)],
        schema: &SchemaRef,
        until: BatchNumber,
    ) -> Result<Vec<RecordBatch>> {
        let mut buried = Vec::new();
        let by_file: Vec<&[(usize, u64)]> = rows.chunk_by(|a, b| a.0 == b.0).collect();
        for of_file in by_file {
            let wanted: Vec<u64> = of_file.iter().map(|(_, row)| *row).collect();
            let mut wanted = wanted.into_iter().peekable();
            let file = &files[of_file[0].0];
            let mut batches = std::pin::pin!(self.read_numbered(file, Arc::clone(schema)).await?);
            while let Some(batch) = batches.try_next().await? {
                let chosen: BooleanArray = (0..batch.rows.num_rows())
                    .map(|row| Some(wanted.next_if_eq(&batch.number(row)).is_some()))
                    .collect();
                let rows = filter_record_batch(&batch.rows, &chosen).map_err(arrow_error)?;
                if rows.num_rows() > 0 {
                    buried.push(behind(&rows, until)?);
                }
            }
        }
        Ok(buried)
    }
}

/// `rows` with the position behind everything in the batch `until`.
fn behind(rows: &RecordBatch, until: BatchNumber) -> Result<RecordBatch> {
    let count = rows.num_rows();
    let mut rows = with_column(
        rows,
        POSITION[0],
        Arc::new(Int64Array::from_value(until.get(), count)),
    )?;
    for name in &POSITION[1..] {
        rows = with_column(&rows, name, Arc::new(Int32Array::from_value(i32::MAX, count)))?;
    }
    Ok(rows)
}

/// Rows of the table that may be absent.
#[derive(Default)]
struct Found {
    live: u64,
    /// Their places, file and row, by key.
    candidates: HashMap<Vec<u8>, Vec<(usize, u64)>>,
    held: usize,
    /// Those that there was no room for.
    beyond: u64,
}

impl Found {
    fn add(&mut self, key: &[u8], place: (usize, u64), rows_max: usize) {
        if self.held >= rows_max {
            self.beyond += 1;
            return;
        }
        self.held += 1;
        match self.candidates.get_mut(key) {
            Some(places) => places.push(place),
            None => {
                self.candidates.insert(key.to_vec(), vec![place]);
            }
        }
    }

    /// Takes out what was seen; `false` if some of that cannot be told.
    async fn strike_out(
        &mut self,
        mut seen: BoxStream<'_, Result<Seen>>,
        schema: &Schema,
        keys: &[&str],
    ) -> Result<bool> {
        let key_schema = schema
            .project(&(0..keys.len()).collect::<Vec<_>>())
            .map_err(arrow_error)?;
        let key_schema = Arc::new(key_schema);
        let converter = Converter::new(keys, &key_schema)?;
        let mut known = true;
        while !self.candidates.is_empty()
            && let Some(records) = seen.try_next().await?
        {
            let Seen::Keys(batch) = records else {
                known = false;
                continue;
            };
            let batch = cast_record_batch(&batch, Arc::clone(&key_schema), false, true)
                .map_err(|source| lower(source, "shape keys"))?;
            for key in &converter.convert(&batch)? {
                self.candidates.remove(key.data());
            }
        }
        Ok(known)
    }
}
