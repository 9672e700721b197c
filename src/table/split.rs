//! Which partition a row belongs to, and what Delta calls that.

use std::collections::HashMap;

use arrow::{
    array::{Array, AsArray as _, RecordBatch, UInt64Array},
    compute::{cast, take_record_batch},
    datatypes::{DataType, TimeUnit, TimestampMicrosecondType},
    row::{RowConverter, SortField},
};
use object_store::path::Path;

use super::latest::arrow_error;
use crate::error::{Error, ErrorKind, Result};

/// The folder of rows whose partition value is null.
const NULL_FOLDER: &str = "__HIVE_DEFAULT_PARTITION__";

/// The columns that a table is partitioned by, and their values as they stand in the Delta log.
pub(super) type PartitionValues = Vec<(String, Option<String>)>;

/// The rows of `batch` by partition, in the order in which partitions come first, with the columns that are in files.
pub(super) fn by_partition(
    batch: &RecordBatch,
    partition_by: &[String],
) -> Result<Vec<(PartitionValues, RecordBatch)>> {
    if partition_by.is_empty() {
        return Ok(vec![(Vec::new(), batch.clone())]);
    }
    let schema = batch.schema_ref();
    let mut columns = Vec::new();
    for name in partition_by {
        columns.push(std::sync::Arc::clone(
            batch.column(schema.index_of(name).map_err(arrow_error)?),
        ));
    }
    let kept: Vec<usize> = (0..schema.fields().len())
        .filter(|index| !partition_by.contains(schema.field(*index).name()))
        .collect();
    let sorts = columns
        .iter()
        .map(|column| SortField::new(column.data_type().clone()));
    let rows = RowConverter::new(sorts.collect())
        .and_then(|converter| converter.convert_columns(&columns))
        .map_err(arrow_error)?;
    let mut numbers: HashMap<&[u8], usize> = HashMap::new();
    let mut groups: Vec<Vec<u64>> = Vec::new();
    for row in 0..batch.num_rows() {
        let number = *numbers.entry(rows.row(row).data()).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[number].push(row as u64);
    }
    let data = batch.project(&kept).map_err(arrow_error)?;
    let whole = groups.len() == 1;
    groups
        .into_iter()
        .map(|group| {
            let first = group[0] as usize;
            let values = partition_by.iter().zip(&columns);
            let values = values
                .map(|(name, column)| Ok((name.clone(), text(column, first, name)?)))
                .collect::<Result<PartitionValues>>()?;
            let rows = if whole {
                data.clone()
            } else {
                take_record_batch(&data, &UInt64Array::from(group)).map_err(arrow_error)?
            };
            Ok((values, rows))
        })
        .collect()
}

/// The folder of the files of a partition, relative to the table.
pub(super) fn folder(values: &[(String, Option<String>)]) -> Result<Path> {
    let parts = values.iter().map(|(name, value)| match value {
        // Rows of one folder share a file, and its value: this text is not null.
        Some(value) if value == NULL_FOLDER => format!("{name}=%5F{}", &NULL_FOLDER[1..]),
        Some(value) => format!("{name}={}", encoded(value)),
        None => format!("{name}={NULL_FOLDER}"),
    });
    let folder = parts.collect::<Vec<_>>().join("/");
    Path::parse(&folder).map_err(|source| {
        Error::new(ErrorKind::Internal, "name partition")
            .with("folder", folder)
            .caused_by(source)
    })
}

/// A value as Delta writes it.
fn text(column: &dyn Array, row: usize, name: &str) -> Result<Option<String>> {
    if column.is_null(row) {
        return Ok(None);
    }
    let one = column.slice(row, 1);
    if let DataType::Timestamp(TimeUnit::Microsecond, _) = one.data_type() {
        let moment = one
            .as_primitive::<TimestampMicrosecondType>()
            .value_as_datetime(0);
        return Ok(moment.map(|moment| moment.format("%Y-%m-%d %H:%M:%S%.6f").to_string()));
    }
    let supported =
        one.data_type().is_primitive() || matches!(one.data_type(), DataType::Utf8 | DataType::Boolean);
    let texts = if supported {
        cast(&one, &DataType::Utf8).ok()
    } else {
        None
    };
    texts
        .map(|texts| Some(texts.as_string::<i32>().value(0).to_owned()))
        .ok_or_else(|| {
            Error::new(ErrorKind::Config, "partition rows")
                .with("column", name)
                .with("type", column.data_type())
                .with("hint", "partition by a column of text, numbers, dates or times")
        })
}

/// `value` with all but unreserved characters as `%XX`, as the protocol wants names of folders.
fn encoded(value: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_the_text_that_stands_for_it_have_folders_of_their_own() {
        let folder = |value: Option<&str>| {
            let values = [("kind".to_owned(), value.map(str::to_owned))];
            folder(&values).unwrap().to_string()
        };
        assert_eq!(folder(None), "kind=__HIVE_DEFAULT_PARTITION__");
        assert_eq!(folder(Some(NULL_FOLDER)), "kind=%5F_HIVE_DEFAULT_PARTITION__");
    }
}
