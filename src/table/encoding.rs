//! How the columns of a data file are written: chosen by the schema, the table's keys and the first rows.

use std::{collections::HashSet, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray as _, RecordBatch, UInt64Array},
    compute::take,
    datatypes::{DataType, Schema},
    row::{RowConverter, SortField},
};
use parquet::{
    arrow::{ArrowSchemaConverter, add_encoded_arrow_schema_to_metadata},
    basic::{Compression, ZstdLevel},
    file::properties::{BloomFilterProperties, WriterProperties},
    schema::types::SchemaDescriptor,
};

use super::{encode::unencodable, latest::arrow_error};
use crate::error::{Error, ErrorKind, Result};

/// Values of a column looked at to see whether they repeat.
const SAMPLE_VALUES: usize = 1024;

/// A dictionary does not pay beyond this size; the encoder would give it up in the middle of a row group.
const DICTIONARY_BYTES_MAX: usize = 1 << 20;

/// A dictionary does not pay if a value stands in it for fewer rows than this.
const DICTIONARY_REPEATS_MIN: usize = 4;

/// How often a key filter may say that a row group can hold a key that it does not hold. The size of a filter is a power of
/// two: most are better.
const FILTER_MISTAKES: f64 = 0.01;

/// The Parquet schema of data files with the columns of `schema`.
pub(super) fn parquet_schema(schema: &Schema) -> Result<SchemaDescriptor> {
    ArrowSchemaConverter::new().convert(schema).map_err(unencodable)
}

/// Settings for a file with the columns of `schema` and row groups of `rows_max` rows at most. `filtered` are the columns
/// that get a key filter; `repeats` says of leaf columns whether a dictionary pays, as far as that is known.
pub(super) fn properties(
    schema: &Schema,
    parquet: &SchemaDescriptor,
    filtered: &[String],
    repeats: &[bool],
    rows_max: usize,
) -> Result<WriterProperties> {
    let level = ZstdLevel::try_new(1)
        .map_err(|source| Error::new(ErrorKind::Internal, "set compression").caused_by(source))?;
    let filter = BloomFilterProperties::builder()
        .with_fpp(FILTER_MISTAKES)
        .with_max_ndv(rows_max as u64)
        .build();
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_created_by(concat!("landfall ", env!("CARGO_PKG_VERSION")).to_owned());
    for (number, column) in parquet.columns().iter().enumerate() {
        if repeats.get(number) == Some(&false) {
            builder = builder.set_column_dictionary_enabled(column.path().clone(), false);
        }
        if let [name] = column.path().parts()
            && filtered.contains(name)
        {
            builder = builder.set_column_bloom_filter_properties(column.path().clone(), filter.clone());
        }
    }
    let mut properties = builder.build();
    add_encoded_arrow_schema_to_metadata(schema, &mut properties);
    Ok(properties)
}

/// For each leaf column of `rows`, whether its values repeat so often that a dictionary pays.
pub(super) fn repeats(rows: &RecordBatch) -> Result<Vec<bool>> {
    let mut repeats = Vec::new();
    for column in rows.columns() {
        leaves_repeat(column, &mut repeats)?;
    }
    Ok(repeats)
}

/// The same for the leaves of `column`, in the order of Parquet.
fn leaves_repeat(column: &ArrayRef, repeats: &mut Vec<bool>) -> Result<()> {
    match column.data_type() {
        DataType::Struct(_) => {
            for child in column.as_struct().columns() {
                leaves_repeat(child, repeats)?;
            }
            Ok(())
        }
        DataType::List(_) => leaves_repeat(column.as_list::<i32>().values(), repeats),
        DataType::Map(_, _) => {
            let entries: ArrayRef = Arc::new(column.as_map().entries().clone());
            leaves_repeat(&entries, repeats)
        }
        _ => {
            repeats.push(repeats_often(column)?);
            Ok(())
        }
    }
}

fn repeats_often(values: &ArrayRef) -> Result<bool> {
    let step = values.len().div_ceil(SAMPLE_VALUES).max(1);
    let wanted = UInt64Array::from_iter_values((0..values.len() as u64).step_by(step));
    let sample = take(values.as_ref(), &wanted, None).map_err(arrow_error)?;
    let seen = sample.len() - sample.null_count();
    let sort = SortField::new(sample.data_type().clone());
    let sample_bytes = sample.get_array_memory_size();
    let comparable = RowConverter::new(vec![sort])
        .and_then(|converter| converter.convert_columns(&[sample]))
        .map_err(arrow_error)?;
    let mut distinct: HashSet<&[u8]> = comparable.iter().map(|row| row.data()).collect();
    if seen < comparable.num_rows() {
        // All nulls are one of them, and stand in no dictionary.
        distinct.remove(comparable.iter().map(|row| row.data()).min().unwrap_or_default());
    }
    let again = seen.saturating_sub(distinct.len());
    if seen == 0 {
        return Ok(true);
    }
    // Of `n` values taken from `d`, about n²/2d are taken again.
    let known = if step == 1 || again > seen / 2 {
        distinct.len()
    } else {
        (seen * seen).checked_div(2 * again).unwrap_or(usize::MAX)
    };
    let bytes = sample_bytes / comparable.num_rows().max(1);
    let rows = seen.saturating_mul(step);
    Ok(known.saturating_mul(bytes) <= DICTIONARY_BYTES_MAX
        && known.saturating_mul(DICTIONARY_REPEATS_MIN) <= rows)
}
