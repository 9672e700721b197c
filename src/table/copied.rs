//! Columns of a row group that go from one data file into another as they are.

use std::io::{Cursor, Read};

use bytes::{Buf as _, Bytes};
use parquet::{
    basic::Encoding,
    column::writer::ColumnCloseResult,
    errors::{ParquetError, Result as ParquetResult},
    file::{
        metadata::RowGroupMetaData,
        page_index::column_index::ColumnIndexMetaData,
        reader::{ChunkReader, Length},
    },
};

use super::opened::Opened;
use crate::error::Result;

/// A row group with more bytes than this is not copied but written anew, in smaller ones: a copy is in memory as a whole.
pub(super) const COPY_BYTES_MAX: i64 = 64 << 20;

/// An encoded leaf column of a row group with everything that its file says of it.
pub(super) struct Copied {
    pub(super) chunk: Chunk,
    pub(super) close: ColumnCloseResult,
}

impl Opened {
    /// The leaf columns of the row group `number` as they are.
    pub(super) async fn copy(&self, number: usize) -> Result<Vec<Copied>> {
        let group: &RowGroupMetaData = &self.groups()[number];
        let column_index = self.metadata().column_index().and_then(|index| index.get(number));
        let offset_index = self.metadata().offset_index().and_then(|index| index.get(number));
        let mut columns = Vec::with_capacity(group.num_columns());
        for (at, (bytes, metadata)) in self
            .bytes_of(number)
            .await?
            .into_iter()
            .zip(group.columns())
            .enumerate()
        {
            let chunk = Chunk {
                start: metadata.byte_range().0,
                bytes,
            };
            let index = column_index.and_then(|index| index.get(at)).cloned();
            let close = ColumnCloseResult {
                bytes_written: metadata.byte_range().1,
                rows_written: u64::try_from(group.num_rows()).unwrap_or(0),
                metadata: metadata.clone(),
                bloom_filter: self.filter(metadata).await?,
                column_index: index.filter(|index| !matches!(index, ColumnIndexMetaData::NONE)),
                offset_index: offset_index.and_then(|index| index.get(at)).cloned(),
            };
            columns.push(Copied { chunk, close });
        }
        Ok(columns)
    }

    /// For each leaf column of the row group `number` whether it has a dictionary.
    pub(super) fn dictionaries(&self, number: usize) -> Vec<bool> {
        let dictionary = |encoding| matches!(encoding, Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY);
        let columns = self.groups()[number].columns().iter();
        columns.map(|column| column.encodings().any(dictionary)).collect()
    }
}

/// A piece of a file, found by its place in the file.
#[derive(Clone)]
pub(super) struct Chunk {
    start: u64,
    bytes: Bytes,
}

impl Chunk {
    fn from(&self, start: u64) -> ParquetResult<Bytes> {
        let skipped = start
            .checked_sub(self.start)
            .and_then(|skipped| usize::try_from(skipped).ok());
        let skipped = skipped.filter(|skipped| *skipped <= self.bytes.len());
        let skipped = skipped.ok_or_else(|| ParquetError::EOF("a column chunk ends early".to_owned()))?;
        Ok(self.bytes.slice(skipped..))
    }
}

impl Length for Chunk {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for Chunk {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(Box::new(Cursor::new(self.from(start)?)))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let mut bytes = self.from(start)?;
        if bytes.remaining() < length {
            return Err(ParquetError::EOF("a column chunk ends early".to_owned()));
        }
        Ok(bytes.split_to(length))
    }
}

/// Pieces of one file: the leaf columns of a column, each found by its place in the file.
pub(super) struct Chunks(pub(super) Vec<Chunk>);

impl Chunks {
    fn with(&self, start: u64) -> ParquetResult<&Chunk> {
        let mut chunks = self.0.iter();
        let found = chunks.find(|chunk| (chunk.start..chunk.len()).contains(&start));
        found.ok_or_else(|| ParquetError::EOF("a page is outside of its column chunk".to_owned()))
    }
}

impl Length for Chunks {
    fn len(&self) -> u64 {
        self.0.iter().map(Chunk::len).max().unwrap_or(0)
    }
}

impl ChunkReader for Chunks {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        self.with(start)?.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        self.with(start)?.get_bytes(start, length)
    }
}
