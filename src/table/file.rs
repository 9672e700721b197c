//! Reading and writing the Parquet data files of a table.

use std::{num::NonZeroU64, ops::Range, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray, new_null_array},
    compute::cast,
    datatypes::{Field, Schema, SchemaRef},
};
use bytes::Bytes;
use deltalake::{
    datafile::writer::{DeltaWriter, WriterConfig},
    kernel::{LogicalFileView, schema::cast_record_batch},
    table::config::TablePropertiesExt as _,
};
use futures::{
    FutureExt as _, Stream, StreamExt as _, TryFutureExt as _, TryStreamExt as _, future::BoxFuture,
};
use object_store::{ObjectStore, ObjectStoreExt as _, path::Path};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::ArrowReaderOptions,
        async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder},
    },
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::{
        metadata::{ParquetMetaData, ParquetMetaDataReader},
        properties::WriterProperties,
    },
};

use super::{Table, lower};
use crate::error::{Error, ErrorKind, Result};

/// Data files are closed at about this size: large enough for few requests, small enough to rewrite cheaply.
const FILE_BYTES_TARGET: u64 = 128 << 20;

/// Rows decoded at a time; bounds memory whatever the size of a row group.
const READ_ROWS: usize = 8192;

/// One data file of a table version.
#[derive(Clone)]
pub(super) struct DataFile {
    pub(super) path: Path,
    pub(super) bytes: u64,
    pub(super) stats: Option<String>,
    /// Partition column, value as Delta writes it.
    pub(super) partition: Vec<(String, Option<String>)>,
    pub(super) view: LogicalFileView,
}

impl DataFile {
    /// Rows in the file, if its statistics tell.
    pub(super) fn rows(&self) -> Option<u64> {
        let stats: serde_json::Value = serde_json::from_str(self.stats.as_deref()?).ok()?;
        stats.get("numRecords")?.as_u64()
    }
}

impl Table {
    /// The data files of this version.
    pub(super) fn files(&self) -> Result<Vec<DataFile>> {
        let log = self.state()?.log_data();
        let files = log.iter().map(|view| DataFile {
            path: view.object_store_path(),
            bytes: u64::try_from(view.size()).unwrap_or(0),
            stats: view.stats(),
            partition: view.partition_values_map().into_iter().collect(),
            view,
        });
        Ok(files.collect())
    }

    /// The store rooted at the table.
    pub(super) fn store(&self) -> Arc<dyn ObjectStore> {
        self.delta.log_store().object_store(None)
    }

    /// Reads `columns` of `file` in row order, in the shape of `schema`: columns the file is too old to have are null.
    pub(super) async fn read(
        &self,
        file: &DataFile,
        schema: SchemaRef,
    ) -> Result<impl Stream<Item = Result<RecordBatch>> + Send + use<>> {
        if file.view.deletion_vector_descriptor().is_some() {
            // Reading it as if whole would bring deleted rows back.
            return Err(Error::new(ErrorKind::Refused, "read data file with a deletion vector")
                .with("file", &file.path)
                .with("hint", "another writer changed this table; purge its deletion vectors, or rebuild it from raw"));
        }
        let path = file.path.clone();
        let fail = move |source: ParquetError| lower(source.into(), "read data file").with("file", &path);
        let reader = FileReader {
            store: self.store(),
            path: file.path.clone(),
            bytes: file.bytes,
        };
        let builder = ParquetRecordBatchStreamBuilder::new(reader)
            .await
            .map_err(&fail)?;
        let columns = builder.schema().fields().iter().enumerate();
        let wanted = columns.filter(|(_, field)| schema.fields().find(field.name()).is_some());
        let mask = ProjectionMask::roots(builder.parquet_schema(), wanted.map(|(index, _)| index));
        let constants = file.partition.clone();
        let rows = builder
            .with_projection(mask)
            .with_batch_size(READ_ROWS)
            .build()
            .map_err(&fail)?;
        Ok(rows
            .map_err(fail)
            .map(move |batch| shape(&batch?, &schema, &constants)))
    }

    /// A writer for new data files of this table in the shape of `schema`.
    pub(super) fn writer(&self, schema: SchemaRef) -> Result<DeltaWriter> {
        self.writer_of(schema, FILE_BYTES_TARGET)
    }

    /// The same for files of about `target_bytes`.
    pub(super) fn writer_of(&self, schema: SchemaRef, target_bytes: u64) -> Result<DeltaWriter> {
        let level = ZstdLevel::try_new(1)
            .map_err(|source| Error::new(ErrorKind::Internal, "set compression").caused_by(source))?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_created_by(concat!("landfall ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let state = self.state()?;
        let config = WriterConfig::new(
            schema,
            self.partition_by()?,
            Some(properties),
            NonZeroU64::new(target_bytes),
            None,
            state.table_config().num_indexed_cols(),
            None,
        );
        Ok(DeltaWriter::new(self.store(), config))
    }
}

/// A data file in an object store; its size is known from the Delta log, so no request asks for it.
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
        _options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let bytes = self.bytes;
            let metadata = ParquetMetaDataReader::new().load_and_finish(self, bytes).await?;
            Ok(Arc::new(metadata))
        }
        .boxed()
    }
}

fn external(source: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(source))
}

/// Brings `batch` into the shape of `schema`: partition constants and missing columns added, order restored.
fn shape(
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
fn constant(value: Option<&str>, field: &Field, rows: usize) -> Result<ArrayRef> {
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

/// Closes `writer` and returns its files as Delta actions.
pub(super) async fn close(writer: DeltaWriter) -> Result<Vec<deltalake::kernel::Action>> {
    let adds = writer
        .close()
        .await
        .map_err(|source| lower(source, "write data files"))?;
    Ok(adds.into_iter().map(deltalake::kernel::Action::Add).collect())
}

/// Writes `batch` through `writer`.
pub(super) async fn write(writer: &mut DeltaWriter, batch: &RecordBatch) -> Result<()> {
    writer
        .write(batch)
        .await
        .map_err(|source| lower(source, "write data files"))
}
