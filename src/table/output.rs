//! One data file on its way into the store.

use std::{mem, sync::Arc};

use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use object_store::{ObjectStore, buffered::BufWriter, path::Path};
use parquet::{
    arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory},
    file::{metadata::ParquetMetaData, properties::WriterProperties, writer::SerializedFileWriter},
    schema::types::SchemaDescriptor,
};
use tokio::io::AsyncWriteExt as _;

use super::{copied::Copied, encode::unencodable};
use crate::error::{Error, ErrorKind, Result};

/// A file smaller than this is one request; a larger one goes up in parts of this size.
const PART_BYTES: usize = 8 << 20;

/// Parts of one file under way at once.
const PARTS_IN_FLIGHT_MAX: usize = 2;

/// A leaf column of a row group on its way into a file.
pub(super) enum Leaf {
    Encoded(ArrowColumnChunk),
    /// From a file with the columns of this one.
    Copied(Copied),
}

/// A Parquet file of which the row groups so far are uploaded, or wait for a part to be full.
pub(super) struct Output {
    path: Path,
    parquet: SerializedFileWriter<Vec<u8>>,
    factory: ArrowRowGroupWriterFactory,
    upload: BufWriter,
}

impl Output {
    /// A file at `path`, which must be new.
    pub(super) fn open(
        store: Arc<dyn ObjectStore>,
        path: Path,
        schema: SchemaRef,
        parquet: &SchemaDescriptor,
        properties: WriterProperties,
    ) -> Result<Self> {
        let parquet = SerializedFileWriter::new(Vec::new(), parquet.root_schema_ptr(), Arc::new(properties))
            .map_err(unencodable)?;
        Ok(Self {
            factory: ArrowRowGroupWriterFactory::new(&parquet, schema),
            upload: BufWriter::with_capacity(store, path.clone(), PART_BYTES)
                .with_max_concurrency(PARTS_IN_FLIGHT_MAX),
            path,
            parquet,
        })
    }

    /// Encoders for the leaf columns of the next row group.
    pub(super) fn encoders(&self) -> Result<Vec<ArrowColumnWriter>> {
        let number = self.parquet.flushed_row_groups().len();
        self.factory.create_column_writers(number).map_err(unencodable)
    }

    /// Adds a row group.
    pub(super) async fn append(&mut self, leaves: Vec<Leaf>) -> Result<()> {
        let mut group = self.parquet.next_row_group().map_err(unencodable)?;
        for leaf in leaves {
            match leaf {
                Leaf::Encoded(column) => column.append_to_row_group(&mut group),
                Leaf::Copied(Copied { chunk, close }) => group.append_column(&chunk, close),
            }
            .map_err(unencodable)?;
        }
        group.close().map_err(unencodable)?;
        self.send().await
    }

    /// Size of the file so far.
    pub(super) fn bytes(&self) -> u64 {
        self.parquet.bytes_written() as u64
    }

    /// Completes the file. It is durable when this returns.
    pub(super) async fn finish(mut self) -> Result<(Path, u64, ParquetMetaData)> {
        let metadata = self.parquet.finish().map_err(unencodable)?;
        self.send().await?;
        if let Err(source) = self.upload.shutdown().await {
            return Err(self.unsent().caused_by(source));
        }
        let bytes = self.bytes();
        Ok((self.path, bytes, metadata))
    }

    /// Gives the file up, and its parts in the store.
    pub(super) async fn abort(mut self) {
        // Whatever stays is a part that the store's own rules remove.
        let _ = self.upload.abort().await;
    }

    async fn send(&mut self) -> Result<()> {
        self.parquet
            .flush()
            .map_err(|source| self.unsent().caused_by(source))?;
        let bytes = mem::take(self.parquet.inner_mut());
        let sent = self.upload.put(Bytes::from(bytes)).await;
        sent.map_err(|source| self.unsent().caused_by(source))
    }

    fn unsent(&self) -> Error {
        Error::new(ErrorKind::Unavailable, "write data files").with("file", &self.path)
    }
}
