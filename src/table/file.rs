//! The data files of a table.

use std::sync::Arc;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use deltalake::kernel::LogicalFileView;
use futures::Stream;
use object_store::{ObjectStore, path::Path};

use super::{Table, opened::Opened};
use crate::error::Result;

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

    /// Reads the footer of `file`.
    pub(super) async fn open(&self, file: &DataFile) -> Result<Opened> {
        Opened::new(self.store(), file).await
    }

    /// Reads the columns of `schema` from `file` in row order: columns the file is too old to have are null.
    pub(super) async fn read(
        &self,
        file: &DataFile,
        schema: SchemaRef,
    ) -> Result<impl Stream<Item = Result<RecordBatch>> + Send + use<>> {
        self.open(file).await?.rows(schema)
    }
}
