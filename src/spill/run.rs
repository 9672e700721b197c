//! Rows in a file: Arrow's IPC format, a few rows at a time, compressed.

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use arrow::{
    array::RecordBatch,
    buffer::Buffer,
    compute::interleave_record_batch,
    datatypes::{Schema, SchemaRef},
    error::ArrowError,
    ipc::{reader::StreamDecoder, writer::StreamWriter},
    row::{RowConverter, Rows, SortField},
};

use super::{gathered::Sorting, scratch::Scratch};
use crate::error::{Error, ErrorKind, Result};

/// How hard rows are compressed: they are read once or twice and then gone.
const LEVEL: i32 = 1;

/// Neighbouring rows of a run.
#[derive(Debug)]
pub(super) struct Part {
    offset: u64,
    stored: u64,
    /// Length of what is compressed.
    encoded: usize,
    /// What its rows take in memory.
    pub(super) bytes: usize,
    /// Its least and its greatest key in comparable bytes; empty in a run that is not sorted.
    pub(super) first: Box<[u8]>,
    pub(super) last: Box<[u8]>,
}

/// Rows that were put down together, sorted by key if that is wanted.
#[derive(Debug)]
pub(super) struct Run {
    file: Arc<Mutex<Scratch>>,
    pub(super) schema: SchemaRef,
    /// What says the schema in the file format.
    header: Vec<u8>,
    pub(super) parts: Vec<Part>,
}

impl Run {
    /// Puts `rows`, which have one schema and take `bytes` in memory, into `file` in parts of about `part_bytes`.
    pub(super) fn write(
        file: &Arc<Mutex<Scratch>>,
        dir: &Path,
        rows: &[RecordBatch],
        sorting: Option<&Sorting>,
        bytes: usize,
        part_bytes: usize,
    ) -> Result<Self> {
        let schema = rows
            .first()
            .map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
        let mut writer = StreamWriter::try_new(Vec::new(), &schema).map_err(encoding)?;
        let mut run = Self {
            file: Arc::clone(file),
            header: std::mem::take(writer.get_mut()),
            schema,
            parts: Vec::new(),
        };
        let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
        let part_rows = (count.saturating_mul(part_bytes) / bytes.max(1)).clamp(1, count.max(1));
        let mut put = |batch: &RecordBatch, first: &[u8], last: &[u8]| -> Result<()> {
            writer.write(batch).map_err(encoding)?;
            let encoded = std::mem::take(writer.get_mut());
            let stored = zstd::bulk::compress(&encoded, LEVEL).map_err(|cause| undone(dir, cause))?;
            let mut file = run.file.lock().unwrap_or_else(PoisonError::into_inner);
            run.parts.push(Part {
                offset: file.append(&stored).map_err(|cause| undone(dir, cause))?,
                stored: stored.len() as u64,
                encoded: encoded.len(),
                bytes: encoded.len(),
                first: first.into(),
                last: last.into(),
            });
            Ok(())
        };
        let Some(sorting) = sorting else {
            for batch in rows {
                for start in (0..batch.num_rows()).step_by(part_rows) {
                    put(
                        &batch.slice(start, part_rows.min(batch.num_rows() - start)),
                        &[],
                        &[],
                    )?;
                }
            }
            return Ok(run);
        };
        let keys = comparable(&sorting.keys, rows)?;
        let orders = comparable(&sorting.order, rows)?;
        let mut places: Vec<(usize, usize)> = Vec::with_capacity(count);
        for (number, batch) in rows.iter().enumerate() {
            places.extend((0..batch.num_rows()).map(|row| (number, row)));
        }
        let at = |rows: &[Rows], place: &(usize, usize)| rows[place.0].row(place.1).data().to_owned();
        places.sort_unstable_by(|a, b| {
            let key = |place: &(usize, usize)| keys[place.0].row(place.1);
            let order = |place: &(usize, usize)| orders[place.0].row(place.1);
            key(a).cmp(&key(b)).then_with(|| order(a).cmp(&order(b)))
        });
        let batches: Vec<&RecordBatch> = rows.iter().collect();
        for places in places.chunks(part_rows) {
            let batch = interleave_record_batch(&batches, places).map_err(encoding)?;
            let [first, .., last] = places else {
                let only = at(&keys, &places[0]);
                put(&batch, &only, &only)?;
                continue;
            };
            put(&batch, &at(&keys, first), &at(&keys, last))?;
        }
        Ok(run)
    }

    /// The rows of `part`.
    pub(super) fn read(&self, part: &Part) -> Result<RecordBatch> {
        let lost = |cause: io::Error| Error::new(ErrorKind::Internal, "read spilled rows").caused_by(cause);
        let stored = {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.read(part.offset, part.stored).map_err(lost)?
        };
        let encoded = zstd::bulk::decompress(&stored, part.encoded).map_err(lost)?;
        let mut decoder = StreamDecoder::new();
        decoder
            .decode(&mut Buffer::from(self.header.as_slice()))
            .map_err(encoding)?;
        let rows = decoder.decode(&mut Buffer::from_vec(encoded)).map_err(encoding)?;
        rows.ok_or_else(|| Error::new(ErrorKind::Internal, "find spilled rows"))
    }
}

/// The columns `names` of each of `rows` in comparable bytes.
pub(super) fn comparable(names: &[String], rows: &[RecordBatch]) -> Result<Vec<Rows>> {
    let Some(schema) = rows.first().map(RecordBatch::schema) else {
        return Ok(Vec::new());
    };
    let places: HashMap<&str, usize> = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(place, field)| (field.name().as_str(), place))
        .collect();
    let missing = |name: &String| Error::new(ErrorKind::Config, "find column").with("column", name);
    let places = names
        .iter()
        .map(|name| places.get(name.as_str()).copied().ok_or_else(|| missing(name)))
        .collect::<Result<Vec<_>>>()?;
    let fields = places
        .iter()
        .map(|place| SortField::new(schema.field(*place).data_type().clone()));
    let converter = RowConverter::new(fields.collect()).map_err(encoding)?;
    rows.iter()
        .map(|batch| {
            let columns: Vec<_> = places
                .iter()
                .map(|place| Arc::clone(batch.column(*place)))
                .collect();
            converter.convert_columns(&columns).map_err(encoding)
        })
        .collect()
}

fn encoding(source: ArrowError) -> Error {
    Error::new(ErrorKind::Internal, "spill rows").caused_by(source)
}

pub(super) fn undone(dir: &Path, cause: io::Error) -> Error {
    let full = matches!(
        cause.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    );
    let error = Error::new(ErrorKind::Limit, "spill rows").with("dir", dir.display());
    if full {
        let hint = "the disk is full: make room for the rows of one load, or raise memory";
        return error.with("hint", hint).caused_by(cause);
    }
    error.caused_by(cause)
}
