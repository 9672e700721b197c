//! Rows of a data file that are marked as deleted: the deletion vectors of Delta.
//!
//! ```text
//! add ─ descriptor ─┬─ inline: text in the log ───────────┐
//!                   └─ a piece of a file beside the data ─┴─► length, magic, checksum, count ─► numbers of rows
//! ```

use std::{fmt::Display, mem};

use arrow::{array::BooleanBufferBuilder, buffer::BooleanBuffer};
use bytes::Bytes;
use deltalake::kernel::{DeletionVectorDescriptor, StorageType};
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt as _, path::Path};
use roaring::RoaringTreemap;
use uuid::Uuid;

use super::file::DataFile;
use crate::error::{Error, ErrorKind, Result};

/// A vector of at most so many bytes stands in the log itself: then nobody asks the store for it.
const INLINE_BYTES_MAX: usize = 512;

/// A file of vectors gets no more of them from this size on. A vector takes a bit a row of its data file at most. Small,
/// because delta-rs reads the whole file for each of its vectors.
const FILE_BYTES_TARGET: usize = 256 << 10;

/// The version of the format of files, their first byte.
const FORMAT: u8 = 1;

/// How a vector begins.
const MAGIC: [u8; 4] = 1_681_511_377_u32.to_le_bytes();

/// What stands in front of a vector in a file, and what behind it: its length and its checksum.
const FRAME_BYTES: u64 = 4;

/// The length of a UUID in the log.
const ID_TEXT_BYTES: usize = 20;

/// The numbers of the rows of a data file that are deleted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Deleted(RoaringTreemap);

impl Deleted {
    /// Reads what `vector` says from the store of its table.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if it is not there or not what the log says of it.
    pub(super) async fn load(store: &dyn ObjectStore, vector: &DeletionVectorDescriptor) -> Result<Self> {
        let bytes = match file_of(vector)? {
            Some(path) => read(store, &path, vector).await?,
            None => inline(vector)?,
        };
        let deleted = Self::parse(&bytes).map_err(|problem| corrupt(vector, problem))?;
        if i64::try_from(deleted.len()) == Ok(vector.cardinality) {
            return Ok(deleted);
        }
        Err(corrupt(vector, "another number of rows than the log says"))
    }

    /// Those of `file`; none if it has no vector.
    ///
    /// # Errors
    /// As [`Deleted::load`].
    pub(super) async fn of(store: &dyn ObjectStore, file: &DataFile) -> Result<Self> {
        match &file.vector {
            Some(vector) => Self::load(store, vector).await,
            None => Ok(Self::default()),
        }
    }

    /// The rows that are marked here and not in `before`; `None` if some are marked there and not here.
    pub(super) fn since(&self, before: &Self) -> Option<Vec<u64>> {
        let grown = before.0.is_subset(&self.0);
        grown.then(|| (&self.0 - &before.0).into_iter().collect())
    }

    /// Marks `rows`, too.
    pub(super) fn extend(&mut self, rows: impl IntoIterator<Item = u64>) {
        self.0.extend(rows);
    }

    /// How many rows are marked.
    pub(super) fn len(&self) -> u64 {
        self.0.len()
    }

    /// For each of the `rows` rows of the data file whether it is not marked; `None` if there are others that are.
    pub(super) fn live(&self, rows: u64) -> Option<BooleanBuffer> {
        if self.0.max().is_some_and(|last| last >= rows) {
            return None;
        }
        let rows = usize::try_from(rows).ok()?;
        let mut live = BooleanBufferBuilder::new(rows);
        live.append_n(rows, true);
        for row in &self.0 {
            live.set_bit(usize::try_from(row).ok()?, false);
        }
        Some(live.finish())
    }

    /// The vector as it is kept.
    fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut compact = self.0.clone();
        compact.optimize();
        let mut bytes = MAGIC.to_vec();
        compact
            .serialize_into(&mut bytes)
            .map_err(|source| Error::new(ErrorKind::Internal, "write deletion vector").caused_by(source))?;
        Ok(bytes)
    }

    fn parse(bytes: &[u8]) -> std::result::Result<Self, String> {
        let bitmap = bytes.strip_prefix(&MAGIC).ok_or("another format")?;
        RoaringTreemap::deserialize_from(bitmap)
            .map(Self)
            .map_err(|source| source.to_string())
    }
}

/// What tells one vector of a table from another, as the protocol has it.
pub(super) fn id_of(vector: &DeletionVectorDescriptor) -> String {
    let kind = match vector.storage_type {
        StorageType::UuidRelativePath => 'u',
        StorageType::Inline => 'i',
        StorageType::AbsolutePath => 'p',
    };
    match vector.offset {
        Some(offset) => format!("{kind}{}@{offset}", vector.path_or_inline_dv),
        None => format!("{kind}{}", vector.path_or_inline_dv),
    }
}

/// The file of the table's folder that `vector` is in; `None` if it stands in the log.
///
/// # Errors
/// [`ErrorKind::Refused`] for one outside the table, [`ErrorKind::Corrupt`] for a name that cannot be read.
pub(super) fn file_of(vector: &DeletionVectorDescriptor) -> Result<Option<Path>> {
    let text = &vector.path_or_inline_dv;
    match vector.storage_type {
        StorageType::Inline => Ok(None),
        StorageType::AbsolutePath => Err(Error::new(ErrorKind::Refused, "read deletion vector outside the table")
            .with("place", text)
            .with(
                "hint",
                "another writer made it; purge the table's deletion vectors with that, or rebuild the table from raw",
            )),
        StorageType::UuidRelativePath => {
            let unnamed = || corrupt(vector, "no file has such a name");
            let at = text.len().checked_sub(ID_TEXT_BYTES).ok_or_else(unnamed)?;
            let (folder, id) = text.split_at_checked(at).ok_or_else(unnamed)?;
            let id = z85::decode(id).ok().and_then(|id| Uuid::from_slice(&id).ok());
            let folder = Path::parse(folder).map_err(|_| unnamed())?;
            Ok(Some(folder.join(file_name(&id.ok_or_else(unnamed)?))))
        }
    }
}

/// Whether a file of a table with this name holds deletion vectors.
pub(super) fn is_vector_file(name: &str) -> bool {
    let id = name.strip_prefix("deletion_vector_");
    id.and_then(|id| id.strip_suffix(".bin"))
        .is_some_and(|id| Uuid::try_parse(id).is_ok())
}

fn file_name(id: &Uuid) -> String {
    format!("deletion_vector_{}.bin", id.hyphenated())
}

async fn read(store: &dyn ObjectStore, path: &Path, vector: &DeletionVectorDescriptor) -> Result<Bytes> {
    // The first vector stands behind the version.
    let start = u64::try_from(vector.offset.unwrap_or(1)).map_err(|_| corrupt(vector, "a negative place"))?;
    let length = u64::try_from(vector.size_in_bytes).map_err(|_| corrupt(vector, "a negative length"))?;
    let range = start..start + FRAME_BYTES + length + FRAME_BYTES;
    let frame = store.get_range(path, range.clone()).await.map_err(|source| {
        let kind = match source {
            StoreError::NotFound { .. } => ErrorKind::Corrupt,
            _ => ErrorKind::Unavailable,
        };
        Error::new(kind, "read deletion vector")
            .with("file", path)
            .caused_by(source)
    })?;
    if frame.len() as u64 != range.end - range.start {
        return Err(corrupt(vector, "the file ends early"));
    }
    let number = |at: usize| {
        let bytes = frame[at..].first_chunk::<4>();
        bytes.map(|bytes| u32::from_be_bytes(*bytes))
    };
    let bytes = frame.slice(FRAME_BYTES as usize..frame.len() - FRAME_BYTES as usize);
    if number(0).map(u64::from) != Some(length) {
        return Err(corrupt(vector, "another length than the log says"));
    }
    if number(frame.len() - FRAME_BYTES as usize) != Some(crc32fast::hash(&bytes)) {
        return Err(corrupt(vector, "another checksum than its own"));
    }
    Ok(bytes)
}

fn inline(vector: &DeletionVectorDescriptor) -> Result<Bytes> {
    let mut bytes = z85::decode(&vector.path_or_inline_dv).map_err(|source| corrupt(vector, source))?;
    // Text stands for four bytes at a time, which may be more than there are.
    match usize::try_from(vector.size_in_bytes) {
        Ok(length) if length <= bytes.len() => bytes.truncate(length),
        _ => return Err(corrupt(vector, "another length than the log says")),
    }
    Ok(Bytes::from(bytes))
}

fn corrupt(vector: &DeletionVectorDescriptor, problem: impl Display) -> Error {
    let place = match vector.storage_type {
        StorageType::Inline => "the log of the table".to_owned(),
        _ => id_of(vector),
    };
    Error::new(ErrorKind::Corrupt, "read deletion vector")
        .with("place", place)
        .with("problem", problem)
}

/// Writes the vectors of one commit, several into one file.
pub(super) struct VectorWriter<'a> {
    store: &'a dyn ObjectStore,
    id: Uuid,
    bytes: Vec<u8>,
}

impl<'a> VectorWriter<'a> {
    /// Into the folder of the table whose store it is.
    pub(super) fn new(store: &'a dyn ObjectStore) -> Self {
        Self {
            store,
            id: Uuid::now_v7(),
            bytes: Vec::new(),
        }
    }

    /// Writes `deleted` and returns where it is. It is there once [`VectorWriter::finish`] returns.
    pub(super) async fn add(&mut self, deleted: &Deleted) -> Result<DeletionVectorDescriptor> {
        let vector = deleted.to_bytes()?;
        let bytes = vector.len();
        let too_long = |_| Error::new(ErrorKind::Limit, "write deletion vector").with("bytes", bytes);
        let size_in_bytes = i32::try_from(vector.len()).map_err(too_long)?;
        let cardinality = i64::try_from(deleted.len()).map_err(too_long)?;
        if vector.len() <= INLINE_BYTES_MAX {
            let mut padded = vector;
            padded.resize(padded.len().next_multiple_of(4), 0);
            return Ok(DeletionVectorDescriptor {
                storage_type: StorageType::Inline,
                path_or_inline_dv: z85::encode(padded),
                offset: None,
                size_in_bytes,
                cardinality,
            });
        }
        if self.bytes.len() + vector.len() > FILE_BYTES_TARGET {
            self.flush().await?;
        }
        if self.bytes.is_empty() {
            self.bytes.push(FORMAT);
        }
        let offset = i32::try_from(self.bytes.len()).map_err(too_long)?;
        self.bytes.extend(size_in_bytes.to_be_bytes());
        self.bytes.extend(&vector);
        self.bytes.extend(crc32fast::hash(&vector).to_be_bytes());
        let written = DeletionVectorDescriptor {
            storage_type: StorageType::UuidRelativePath,
            path_or_inline_dv: z85::encode(self.id.as_bytes()),
            offset: Some(offset),
            size_in_bytes,
            cardinality,
        };
        Ok(written)
    }

    /// Makes what was written durable.
    pub(super) async fn finish(mut self) -> Result<()> {
        self.flush().await
    }

    async fn flush(&mut self) -> Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        let path = Path::from(file_name(&mem::replace(&mut self.id, Uuid::now_v7())));
        let bytes = Bytes::from(mem::take(&mut self.bytes));
        let put = self.store.put(&path, bytes.into()).await;
        put.map(|_| ()).map_err(|source| {
            Error::new(ErrorKind::Unavailable, "write deletion vectors")
                .with("file", &path)
                .caused_by(source)
        })
    }
}

#[cfg(test)]
mod tests;
