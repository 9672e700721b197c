//! The data files of a table.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use deltalake::kernel::{Add, DeletionVectorDescriptor, LogicalFileView};
use futures::Stream;
use object_store::{ObjectStore, path::Path};
use serde_json::value::RawValue;

use super::{
    Table,
    deleted::id_of,
    opened::{Numbered, Opened},
};
use crate::error::{Error, ErrorKind, Result};

/// One data file of a table version.
#[derive(Clone)]
pub(super) struct DataFile {
    pub(super) path: Path,
    pub(super) bytes: u64,
    pub(super) stats: Option<String>,
    /// Partition column, value as Delta writes it.
    pub(super) partition: Vec<(String, Option<String>)>,
    /// The rows of it that are marked as deleted, if some are.
    pub(super) vector: Option<DeletionVectorDescriptor>,
    pub(super) view: LogicalFileView,
}

/// A data file with what is deleted of it: by this the protocol tells files apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Logical {
    path: String,
    vector: Option<String>,
}

impl Logical {
    pub(super) fn of(path: &str, vector: Option<&DeletionVectorDescriptor>) -> Self {
        Self {
            path: path.to_owned(),
            vector: vector.map(id_of),
        }
    }
}

impl DataFile {
    /// Rows in the file, deleted ones too, if its statistics tell.
    pub(super) fn records(&self) -> Option<u64> {
        let stats: serde_json::Value = serde_json::from_str(self.stats.as_deref()?).ok()?;
        stats.get("numRecords")?.as_u64()
    }

    /// Rows that are marked as deleted.
    pub(super) fn deleted(&self) -> u64 {
        let vector = self.vector.as_ref();
        vector.map_or(0, |vector| u64::try_from(vector.cardinality).unwrap_or(0))
    }

    /// Rows of the table in the file, if its statistics tell.
    pub(super) fn rows(&self) -> Option<u64> {
        self.records()?.checked_sub(self.deleted())
    }

    /// What tells it from every other file of the table, and from itself with other rows deleted.
    pub(super) fn logical(&self) -> Logical {
        Logical::of(&self.view.path(), self.vector.as_ref())
    }

    /// The action that adds it with the deleted rows `vector`.
    pub(super) fn marked(&self, vector: DeletionVectorDescriptor) -> Result<Add> {
        Ok(Add {
            path: self.view.path().into_owned(),
            partition_values: self.partition.iter().cloned().collect(),
            size: self.view.size(),
            modification_time: self.view.modification_time(),
            data_change: true,
            stats: self.stats.as_deref().map(loose).transpose()?,
            tags: None,
            deletion_vector: Some(vector),
            base_row_id: None,
            default_row_commit_version: None,
            clustering_provider: None,
        })
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
            vector: view.deletion_vector_descriptor(),
            view,
        });
        Ok(files.collect())
    }

    /// The store rooted at the table.
    pub(super) fn store(&self) -> Arc<dyn ObjectStore> {
        self.delta.log_store().object_store(None)
    }

    /// Reads the footer of `file`.
    pub(super) async fn open(&self, file: &DataFile) -> Result<Opened> {
        Opened::new(self.store(), file).await
    }

    /// Reads the columns of `schema` from `file` in row order: columns the file is too old to have are null, and deleted
    /// rows are left out.
    pub(super) async fn read(
        &self,
        file: &DataFile,
        schema: SchemaRef,
    ) -> Result<impl Stream<Item = Result<RecordBatch>> + Send + use<>> {
        self.open(file).await?.rows(schema)
    }

    /// The same with the numbers of the rows.
    pub(super) async fn read_numbered(
        &self,
        file: &DataFile,
        schema: SchemaRef,
    ) -> Result<impl Stream<Item = Result<Numbered>> + Send + use<>> {
        let opened = self.open(file).await?;
        opened.rows_of(0..opened.groups().len(), schema)
    }
}

/// `stats` saying that bounds may be those of deleted rows. Every other value stays as it is written.
pub(super) fn loose(stats: &str) -> Result<String> {
    let unread = |source| Error::new(ErrorKind::Corrupt, "read statistics of data file").caused_by(source);
    let mut members: BTreeMap<&str, &RawValue> = serde_json::from_str(stats).map_err(unread)?;
    let not: &RawValue = serde_json::from_str("false").map_err(unread)?;
    members.insert("tightBounds", not);
    serde_json::to_string(&members).map_err(unread)
}
