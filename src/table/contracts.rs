//! Rows of `landfall.contracts`, the versions of every stream's contract.
//!
//! They belong to no load, so they count as soon as they stand, whatever the watermark is.

use std::sync::Arc;

use arrow::{
    array::{RecordBatch, StringArray},
    datatypes::SchemaRef,
};

use super::system::{build, moments, text};
use crate::{clock::Timestamp, config::StreamName, error::Result};

/// One version of one stream's contract.
#[derive(Clone, Debug)]
pub struct ContractRow {
    /// The stream.
    pub stream: StreamName,
    /// Its semantic version.
    pub version: String,
    /// Its ODCS status.
    pub status: String,
    /// The SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
    /// The file.
    pub text: String,
    /// When it was first seen.
    pub registered_at: Timestamp,
    /// The mode in which it was compared with the versions before it.
    pub compatibility: &'static str,
    /// The differences to the version before it, as a JSON array.
    pub changes: String,
    /// The versions of records that it judges, such as `2024-06, 2024-07`; none if it is the contract of the stream, which
    /// judges all others.
    pub record_versions: Option<String>,
}

impl ContractRow {
    /// The row as an Arrow batch.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) if Arrow refuses it.
    pub fn to_batch(&self) -> Result<RecordBatch> {
        build(vec![
            ("source", text(self.stream.source.as_str())),
            ("stream", text(self.stream.stream.as_str())),
            ("version", text(&self.version)),
            ("status", text(&self.status)),
            ("sha256", text(&self.sha256)),
            ("text", text(&self.text)),
            ("registered_at", moments([self.registered_at])),
            ("compatibility", text(self.compatibility)),
            ("changes", text(&self.changes)),
            (
                "record_versions",
                Arc::new(StringArray::from_iter([self.record_versions.as_deref()])),
            ),
        ])
    }
}

/// The columns of `landfall.contracts`.
///
/// # Errors
/// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) if Arrow refuses them.
pub fn schema() -> Result<SchemaRef> {
    let row = ContractRow {
        stream: StreamName::parse("none.none")?,
        version: String::new(),
        status: String::new(),
        sha256: String::new(),
        text: String::new(),
        registered_at: Timestamp::UNIX_EPOCH,
        compatibility: "",
        changes: String::new(),
        record_versions: None,
    };
    Ok(row.to_batch()?.schema())
}
