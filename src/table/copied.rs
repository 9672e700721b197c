//! Row groups that go from one data file into another as they are.

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

/// The encoded columns of a row group with everything that its file says of them.
pub(super) struct Copied {
    pub(super) columns: Vec<(Chunk, ColumnCloseResult)>,
    /// For each leaf column whether it has a dictionary.
    pub(super) dictionaries: Vec<bool>,
}

impl Opened {
    /// The row group `number` as it is.
    pub(super) async fn copy(&self, number: usize) -> Result<Copied> {
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
            columns.push((chunk, close));
        }
        let dictionaries = group.columns().iter().map(|column| {
            let mut encodings = column.encodings();
            encodings
                .any(|encoding| matches!(encoding, Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY))
        });
        Ok(Copied {
            dictionaries: dictionaries.collect(),
            columns,
        })
    }
}

/// A piece of a file, found by its place in the file.
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
