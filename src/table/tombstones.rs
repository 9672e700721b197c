//! Deletions whose rows are gone, kept beside the table so that nothing older brings a row back.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringArray},
    datatypes::{Field, Schema},
};

use super::{CommitNote, latest::arrow_error, merge::MergeOptions};
use crate::error::Result;

/// What is kept of deleted `rows`: keys, sequence and position, and the load of `note`.
///
/// # Errors
/// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) if they lack one of these columns.
pub fn kept(rows: &RecordBatch, options: &MergeOptions, note: &CommitNote) -> Result<RecordBatch> {
    let schema = rows.schema();
    let mut fields: Vec<Arc<Field>> = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for name in options.keys().into_iter().chain(options.order()) {
        if fields.iter().any(|field| field.name() == name) {
            continue;
        }
        let index = schema.index_of(name).map_err(arrow_error)?;
        fields.push(Arc::clone(&schema.fields()[index]));
        columns.push(Arc::clone(rows.column(index)));
    }
    let count = rows.num_rows();
    let load: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(
        &note.load_id,
        count,
    )));
    let batch: ArrayRef = Arc::new(Int64Array::from_value(note.batch.get(), count));
    for (name, column) in [("load_id", load), ("batch_to", batch)] {
        fields.push(Arc::new(Field::new(name, column.data_type().clone(), true)));
        columns.push(column);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(arrow_error)
}
