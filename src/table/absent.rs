//! What a finished pass over everything an API has says about rows that it did not bring.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array as _, AsArray as _, BooleanArray, Int32Array, Int64Array, RecordBatch},
    compute::{concat_batches, filter_record_batch},
    datatypes::{DataType, Field, Int64Type, Schema},
};
use deltalake::kernel::schema::cast_record_batch;
use futures::{TryStreamExt as _, stream::BoxStream};

use super::{
    Table,
    edit::Edits,
    file::DataFile,
    latest::{Converter, Latest, arrow_error, with_column},
    lower,
    merge::POSITION,
};
use crate::{error::Result, raw::BatchNumber};

/// A finished pass over everything an API has, as the end of a load.
pub struct Absence<'a> {
    /// The pass's first batch. Rows that came since were seen.
    pub since: BatchNumber,
    /// The pass's last batch.
    pub until: BatchNumber,
    /// Largest part of the live rows that may be deleted by it, from 0 to 1.
    pub delete_ratio_max: f64,
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
    /// Rows in the table before that were not deleted.
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

/// Places of candidate rows: file, row, and where their values are kept.
struct Candidate {
    file: usize,
    row: u64,
    kept: (usize, usize),
}

impl Table {
    /// Finds the rows of `files` that `absence` says are gone: live, older than the pass, and seen neither by `latest` nor otherwise.
    pub(super) async fn find_absent(
        &self,
        files: &[DataFile],
        latest: &Latest,
        keys: &[&str],
        absence: Absence<'_>,
    ) -> Result<Absent> {
        let mut fields: Vec<Arc<Field>> = latest.probe_schema.fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new("_deleted", DataType::Boolean, true)));
        let schema = Arc::new(Schema::new(fields));
        let mut counts = AbsentCounts::default();
        let mut candidates: HashMap<Vec<u8>, Vec<Candidate>> = HashMap::new();
        let mut kept: Vec<RecordBatch> = Vec::new();
        for (number, file) in files.iter().enumerate() {
            let mut start = 0_u64;
            let mut batches = std::pin::pin!(self.read(file, Arc::clone(&schema)).await?);
            while let Some(batch) = batches.try_next().await? {
                let rows = latest.key_of(&batch)?;
                let deleted = batch["_deleted"].as_boolean();
                let numbers = batch[POSITION[0]].as_primitive::<Int64Type>();
                let (mut chosen, mut count) = (vec![false; batch.num_rows()], 0);
                for (row, chosen) in chosen.iter_mut().enumerate() {
                    if deleted.is_valid(row) && deleted.value(row) {
                        continue;
                    }
                    counts.live += 1;
                    let key = rows.row(row).data();
                    if numbers.value(row) >= absence.since.get() || latest.find(key).is_some() {
                        continue;
                    }
                    *chosen = true;
                    candidates.entry(key.to_vec()).or_default().push(Candidate {
                        file: number,
                        row: start + row as u64,
                        kept: (kept.len(), count),
                    });
                    count += 1;
                }
                start += batch.num_rows() as u64;
                kept.push(filter_record_batch(&batch, &BooleanArray::from(chosen)).map_err(arrow_error)?);
            }
        }
        let key_schema = Arc::new(
            latest
                .probe_schema
                .project(&(0..keys.len()).collect::<Vec<_>>())
                .map_err(arrow_error)?,
        );
        let converter = Converter::new(keys, &key_schema)?;
        let mut seen = absence.seen;
        let mut known = true;
        while let Some(records) = seen.try_next().await? {
            if candidates.is_empty() {
                break;
            }
            let Seen::Keys(batch) = records else {
                known = false;
                continue;
            };
            let batch = cast_record_batch(&batch, Arc::clone(&key_schema), false, true)
                .map_err(|source| lower(source, "shape keys"))?;
            for key in &converter.convert(&batch)? {
                candidates.remove(key.data());
            }
        }
        let mut places: Vec<Candidate> = candidates.into_values().flatten().collect();
        places.sort_unstable_by_key(|candidate| (candidate.file, candidate.row));
        let found = places.len() as u64;
        let allowed = absence.delete_ratio_max * counts.live as f64;
        if !known || found as f64 > allowed {
            counts.held = found;
            places.clear();
        }
        counts.deleted = places.len() as u64;
        Ok(Absent {
            counts,
            tombstones: tombstones(&kept, &places, &latest.probe_schema, absence.until)?,
            rows: places.iter().map(|place| (place.file, place.row)).collect(),
        })
    }
}

/// The rows of `places` with the position behind everything in the batch `until`.
fn tombstones(
    kept: &[RecordBatch],
    places: &[Candidate],
    schema: &Arc<Schema>,
    until: BatchNumber,
) -> Result<Vec<RecordBatch>> {
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let whole = concat_batches(&kept[0].schema(), kept).map_err(arrow_error)?;
    let offsets: Vec<usize> = kept
        .iter()
        .scan(0, |sum, batch| {
            let start = *sum;
            *sum += batch.num_rows();
            Some(start)
        })
        .collect();
    let rows = places
        .iter()
        .map(|place| (offsets[place.kept.0] + place.kept.1) as u64);
    let rows = arrow::array::UInt64Array::from_iter_values(rows);
    let taken = arrow::compute::take_record_batch(&whole, &rows).map_err(arrow_error)?;
    let columns = (0..schema.fields().len()).collect::<Vec<_>>();
    let mut batch = taken.project(&columns).map_err(arrow_error)?;
    let count = batch.num_rows();
    batch = with_column(
        &batch,
        POSITION[0],
        Arc::new(Int64Array::from_value(until.get(), count)),
    )?;
    for name in &POSITION[1..] {
        batch = with_column(&batch, name, Arc::new(Int32Array::from_value(i32::MAX, count)))?;
    }
    Ok(vec![batch])
}
