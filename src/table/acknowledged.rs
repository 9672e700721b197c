//! Drift that somebody has seen and said so, as rows of `landfall.acknowledged`. Rows are only ever added.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    datatypes::SchemaRef,
};

use super::system::{build, moments};
use crate::{clock::Timestamp, config::StreamName, error::Result};

/// One change that is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// The stream.
    pub stream: StreamName,
    /// Where the change is; empty for one of the load as a whole.
    pub path: String,
    /// What kind of change, as in `landfall.drift`.
    pub kind: String,
    /// What has been seen of it so far: the change is open again if it shows something else.
    pub nature: Vec<String>,
    /// What was said about it.
    pub note: String,
}

/// `acknowledged` as rows, said at `at`.
///
/// # Errors
/// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) if Arrow refuses them.
pub fn acknowledged_rows(acknowledged: &[Acknowledged], at: Timestamp) -> Result<RecordBatch> {
    let texts = |value: &dyn Fn(&Acknowledged) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(acknowledged.iter().map(value)))
    };
    build(vec![
        ("source", texts(&|row| row.stream.source.to_string())),
        ("stream", texts(&|row| row.stream.stream.to_string())),
        ("acknowledged_at", moments(acknowledged.iter().map(|_| at))),
        ("path", texts(&|row| row.path.clone())),
        ("kind", texts(&|row| row.kind.clone())),
        (
            "nature",
            texts(&|row| serde_json::Value::from(row.nature.clone()).to_string()),
        ),
        ("note", texts(&|row| row.note.clone())),
    ])
}

/// The columns of `landfall.acknowledged`.
///
/// # Errors
/// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) if Arrow refuses them.
pub fn acknowledged_schema() -> Result<SchemaRef> {
    Ok(acknowledged_rows(&[], Timestamp::UNIX_EPOCH)?.schema())
}
