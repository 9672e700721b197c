//! A data file whose footer was read: its row groups, their rows and their bytes.
//!
//! A row has the number of its place in the file, whatever rows before it are marked as deleted.

use std::{ops::Range, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, StringArray, new_null_array},
    buffer::BooleanBuffer,
    compute::{cast, filter_record_batch},
    datatypes::{Field, Schema, SchemaRef},
};
use bytes::Bytes;
use deltalake::kernel::schema::cast_record_batch;
use futures::{
    FutureExt as _, Stream, StreamExt as _, TryFutureExt as _, TryStreamExt as _, future::BoxFuture,
};
use object_store::{ObjectStore, ObjectStoreExt as _, path::Path};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection, RowSelector},
        async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder},
    },
    bloom_filter::Sbbf,
    errors::ParquetError,
    file::metadata::{
        ColumnChunkMetaData, PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData,
    },
    schema::types::SchemaDescriptor,
};

use super::{deleted::Deleted, file::DataFile, latest::arrow_error, lower, tasks::ahead};
use crate::error::{Error, ErrorKind, Result};

/// Rows decoded at a time; bounds memory whatever the size of a row group.
pub(super) const READ_ROWS: usize = 8192;

/// Batches decoded before they are asked for.
const READ_AHEAD_BATCHES: usize = 2;

/// What is read from the end of a file at first: more than most footers have.
const FOOTER_BYTES: usize = 64 << 10;

/// A data file with its footer.
#[derive(Clone)]
pub(super) struct Opened {
    pub(super) file: DataFile,
    reader: FileReader,
    metadata: ArrowReaderMetadata,
    /// For each row whether it is not marked as deleted, if some are.
    live: Option<BooleanBuffer>,
}

/// Rows of a data file.
pub(super) struct Numbered {
    pub(super) rows: RecordBatch,
    numbers: Numbers,
}

enum Numbers {
    /// One after the other, from this one on.
    From(u64),
    /// These, which ascend.
    Each(Vec<u64>),
}

impl Numbered {
    /// The number in the file of the row that is at `row` of these.
    pub(super) fn number(&self, row: usize) -> u64 {
        match &self.numbers {
            Numbers::From(first) => first + row as u64,
            Numbers::Each(numbers) => numbers[row],
        }
    }
}

impl Opened {
    /// Reads the footer of `file` in `store`.
    pub(super) async fn new(store: Arc<dyn ObjectStore>, file: &DataFile) -> Result<Self> {
        let deleted = match &file.vector {
            Some(vector) => Some(Deleted::load(store.as_ref(), vector).await?),
            None => None,
        };
        let mut reader = FileReader {
            store,
            path: file.path.clone(),
            bytes: file.bytes,
        };
        // Whole, because row groups may be copied with what the footer says of them.
        let options = ArrowReaderOptions::new().with_encoding_stats_as_mask(false);
        let metadata = ArrowReaderMetadata::load_async(&mut reader, options)
            .await
            .map_err(|source| unread(source, &file.path))?;
        let rows = u64::try_from(metadata.metadata().file_metadata().num_rows()).unwrap_or(0);
        let live = deleted.map(|deleted| {
            deleted.live(rows).ok_or_else(|| {
                Error::new(ErrorKind::Corrupt, "leave deleted rows out")
                    .with("file", &file.path)
                    .with("problem", "its deletion vector has rows that it has not")
            })
        });
        Ok(Self {
            file: file.clone(),
            reader,
            metadata,
            live: live.transpose()?,
        })
    }

    /// The same with the indexes of pages, if the file has them.
    pub(super) async fn with_pages(mut self) -> Result<Self> {
        let whole = ParquetMetaData::clone(self.metadata.metadata());
        let mut pages =
            ParquetMetaDataReader::new_with_metadata(whole).with_page_index_policy(PageIndexPolicy::Optional);
        let path = &self.file.path;
        pages
            .load_page_index(&mut self.reader)
            .await
            .map_err(|source| unread(source, path))?;
        let whole = pages.finish().map_err(|source| unread(source, path))?;
        self.metadata = ArrowReaderMetadata::try_new(Arc::new(whole), ArrowReaderOptions::new())
            .map_err(|source| unread(source, path))?;
        Ok(self)
    }

    /// What a reader of its row groups has to know.
    pub(super) fn arrow_metadata(&self) -> &ArrowReaderMetadata {
        &self.metadata
    }

    /// What the footer says.
    pub(super) fn metadata(&self) -> &ParquetMetaData {
        self.metadata.metadata()
    }

    /// The row groups in the order of rows.
    pub(super) fn groups(&self) -> &[RowGroupMetaData] {
        self.metadata().row_groups()
    }

    /// The numbers of the rows of each row group.
    pub(super) fn spans(&self) -> Vec<Range<u64>> {
        let mut next = 0;
        let spans = self.groups().iter().map(|group| {
            let start = next;
            next += u64::try_from(group.num_rows()).unwrap_or(0);
            start..next
        });
        spans.collect()
    }

    /// The columns as Parquet has them.
    pub(super) fn columns(&self) -> &SchemaDescriptor {
        self.metadata.parquet_schema()
    }

    /// Names of the columns that have a key filter in some row group.
    pub(super) fn filtered(&self) -> Vec<String> {
        let columns = self.groups().iter().flat_map(RowGroupMetaData::columns);
        let filtered = columns.filter(|column| column.bloom_filter_offset().is_some());
        let mut names: Vec<String> = filtered
            .flat_map(|column| column.column_path().parts().first().cloned())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The numbers of the rows that are marked as deleted.
    pub(super) fn deleted(&self) -> impl Iterator<Item = u64> {
        let live = self.live.iter();
        live.flat_map(|live| (0..live.len()).filter(|row| !live.value(*row)))
            .map(|row| row as u64)
    }

    /// Reads all rows in order, in the shape of `schema`: columns the file is too old to have are null. Deleted rows are
    /// left out.
    pub(super) fn rows(
        &self,
        schema: SchemaRef,
    ) -> Result<impl Stream<Item = Result<RecordBatch>> + Send + use<>> {
        let rows = self.rows_of(0..self.groups().len(), schema)?;
        Ok(rows.map_ok(|numbered| numbered.rows))
    }

    /// The same for some row groups, with the numbers of their rows.
    pub(super) fn rows_of(
        &self,
        groups: Range<usize>,
        schema: SchemaRef,
    ) -> Result<impl Stream<Item = Result<Numbered>> + Send + use<>> {
        let mut next = self.spans().get(groups.start).map_or(0, |span| span.start);
        let live = self.live.clone();
        let stored = self.read(groups.collect(), None, schema)?;
        Ok(stored.map(move |batch| {
            let rows = batch?;
            let first = next;
            next += rows.num_rows() as u64;
            without_deleted(rows, first, live.as_ref())
        }))
    }

    /// Reads the rows of these numbers, which ascend, whether they are deleted or not.
    pub(super) fn rows_at(
        &self,
        numbers: &[u64],
        schema: SchemaRef,
    ) -> Result<impl Stream<Item = Result<RecordBatch>> + Send + use<>> {
        let mut numbers = numbers.iter().copied().peekable();
        let (mut groups, mut places, mut rows_before) = (Vec::new(), Vec::new(), 0);
        for (group, span) in self.spans().into_iter().enumerate() {
            let known = places.len();
            while let Some(number) = numbers.next_if(|number| *number < span.end) {
                places.push(rows_before + (number - span.start) as usize);
            }
            if places.len() > known {
                groups.push(group);
                rows_before += (span.end - span.start) as usize;
            }
        }
        self.read(groups, Some(selection(&places)), schema)
    }

    /// Reads all rows of a row group as the file has them, deleted ones too.
    pub(super) fn stored(
        &self,
        group: usize,
        schema: SchemaRef,
    ) -> Result<impl Stream<Item = Result<RecordBatch>> + Send + use<>> {
        self.read(vec![group], None, schema)
    }

    fn read(
        &self,
        groups: Vec<usize>,
        selection: Option<RowSelection>,
        schema: SchemaRef,
    ) -> Result<impl Stream<Item = Result<RecordBatch>> + Send + use<>> {
        let path = self.file.path.clone();
        let builder =
            ParquetRecordBatchStreamBuilder::new_with_metadata(self.reader.clone(), self.metadata.clone());
        let columns = builder.schema().fields().iter().enumerate();
        let wanted = columns.filter(|(_, field)| schema.fields().find(field.name()).is_some());
        let mask = ProjectionMask::roots(builder.parquet_schema(), wanted.map(|(index, _)| index));
        let constants = self.file.partition.clone();
        let mut builder = builder
            .with_projection(mask)
            .with_batch_size(READ_ROWS)
            .with_row_groups(groups);
        if let Some(selection) = selection {
            builder = builder.with_row_selection(selection);
        }
        let rows = builder.build().map_err(|source| unread(source, &path))?;
        let shaped = rows.map(move |batch| {
            shape(
                &batch.map_err(|source| unread(source, &path))?,
                &schema,
                &constants,
            )
        });
        Ok(ahead(shaped, READ_AHEAD_BATCHES))
    }

    /// The bytes of each column of the row group `number`.
    pub(super) async fn bytes_of(&self, number: usize) -> Result<Vec<Bytes>> {
        let columns = self.groups()[number].columns().iter();
        let ranges: Vec<Range<u64>> = columns
            .map(|column| {
                let (start, length) = column.byte_range();
                start..start + length
            })
            .collect();
        let FileReader { store, path, .. } = &self.reader;
        let all = ranges.iter().map(|range| range.start).min().unwrap_or(0)
            ..ranges.iter().map(|range| range.end).max().unwrap_or(0);
        let wanted: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        // Mostly they stand one behind the other: then one read is enough.
        if wanted > 0 && wanted == all.end - all.start {
            let read = store.get_range(path, all.clone()).await;
            let whole = read.map_err(|source| unread(external(source), path))?;
            let place = |at: u64| usize::try_from(at - all.start).unwrap_or(usize::MAX);
            let pieces = ranges.iter().map(|range| place(range.start)..place(range.end));
            if whole.len() as u64 == wanted {
                return Ok(pieces.map(|piece| whole.slice(piece)).collect());
            }
        }
        let read = store.get_ranges(path, &ranges).await;
        read.map_err(|source| unread(external(source), path))
    }

    /// The key filter of a column, if it has one that can be read.
    pub(super) async fn filter(&self, column: &ColumnChunkMetaData) -> Result<Option<Sbbf>> {
        let offset = column
            .bloom_filter_offset()
            .and_then(|offset| u64::try_from(offset).ok());
        let length = column
            .bloom_filter_length()
            .and_then(|length| u64::try_from(length).ok());
        let (Some(offset), Some(length)) = (offset, length) else {
            return Ok(None);
        };
        let bytes = self
            .reader
            .store
            .get_range(&self.reader.path, offset..offset + length)
            .await;
        let bytes = bytes.map_err(|source| unread(external(source), &self.reader.path))?;
        Ok(Sbbf::from_bytes(&bytes).ok())
    }
}

/// The rows at `places`, which ascend.
fn selection(places: &[usize]) -> RowSelection {
    let (mut selectors, mut next) = (Vec::new(), 0);
    for place in places {
        if *place > next {
            selectors.push(RowSelector::skip(place - next));
        }
        selectors.push(RowSelector::select(1));
        next = place + 1;
    }
    selectors.into()
}

/// Those of `rows`, which are the rows from `first` on, that are live.
fn without_deleted(rows: RecordBatch, first: u64, live: Option<&BooleanBuffer>) -> Result<Numbered> {
    let all = |rows| Numbered {
        rows,
        numbers: Numbers::From(first),
    };
    let Some(live) = live else { return Ok(all(rows)) };
    let live = live.slice(first as usize, rows.num_rows());
    if live.count_set_bits() == rows.num_rows() {
        return Ok(all(rows));
    }
    let numbers = live.set_indices().map(|row| first + row as u64).collect();
    let rows = filter_record_batch(&rows, &BooleanArray::new(live, None)).map_err(arrow_error)?;
    Ok(Numbered {
        rows,
        numbers: Numbers::Each(numbers),
    })
}

pub(super) fn unread(source: ParquetError, path: &Path) -> Error {
    lower(source.into(), "read data file").with("file", path)
}

/// A data file in an object store; its size is known from the Delta log, so no request asks for it.
#[derive(Clone)]
struct FileReader {
    store: Arc<dyn ObjectStore>,
    path: Path,
    bytes: u64,
}

impl AsyncFileReader for FileReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        self.store.get_range(&self.path, range).map_err(external).boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move { self.store.get_ranges(&self.path, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let bytes = self.bytes;
            let metadata = ParquetMetaDataReader::new()
                .with_prefetch_hint(Some(
                    FOOTER_BYTES.min(usize::try_from(bytes).unwrap_or(FOOTER_BYTES)),
                ))
                .with_metadata_options(options.map(|options| options.metadata_options().clone()))
                .load_and_finish(self, bytes)
                .await?;
            Ok(Arc::new(metadata))
        }
        .boxed()
    }
}

fn external(source: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(source))
}

/// Brings `batch` into the shape of `schema`: partition constants and missing columns added, order restored.
pub(super) fn shape(
    batch: &RecordBatch,
    schema: &SchemaRef,
    constants: &[(String, Option<String>)],
) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let mut fields: Vec<Arc<Field>> = batch.schema().fields().iter().cloned().collect();
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    for (name, value) in constants {
        if let Ok(field) = schema.field_with_name(name) {
            columns.push(constant(value.as_deref(), field, rows)?);
            fields.push(Arc::new(field.clone()));
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let whole = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
        .map_err(|source| Error::new(ErrorKind::Internal, "shape rows").caused_by(source))?;
    cast_record_batch(&whole, Arc::clone(schema), false, true).map_err(|source| lower(source, "shape rows"))
}

/// A partition value, which Delta keeps as text in the log, as a column.
pub(super) fn constant(value: Option<&str>, field: &Field, rows: usize) -> Result<ArrayRef> {
    let Some(value) = value else {
        return Ok(new_null_array(field.data_type(), rows));
    };
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, rows)));
    cast(&texts, field.data_type()).map_err(|source| {
        Error::new(ErrorKind::Corrupt, "read partition value")
            .with("column", field.name())
            .caused_by(source)
    })
}
