//! Which row groups of a file can hold a key, by the file's own bounds and key filters.

use std::ops::Range;

use parquet::{
    basic::{LogicalType, TimeUnit, Type},
    bloom_filter::Sbbf,
    file::{metadata::ColumnChunkMetaData, statistics::Statistics},
};

use super::{
    opened::Opened,
    prune::{KeyRange, Values},
};
use crate::error::Result;

/// Keys looked up in the filter of one row group at most. Of more, one is nearly always found although it is not there, and
/// a filter costs as much to read as some thousand keys.
const LOOKUPS_MAX: usize = 256;

impl Opened {
    /// The numbers of the row groups that can hold one of the keys in `ranges`.
    pub(super) async fn groups_with(&self, ranges: &[KeyRange]) -> Result<Vec<usize>> {
        let columns: Vec<(usize, &KeyRange)> = ranges
            .iter()
            .filter_map(|range| Some((self.leaf(range)?, range)))
            .collect();
        let mut groups = Vec::new();
        'groups: for (number, group) in self.groups().iter().enumerate() {
            let mut inside = Vec::new();
            for (leaf, range) in &columns {
                let chunk = group.column(*leaf);
                let Some(keys) = keys_between(&range.values, chunk) else {
                    continue;
                };
                if keys.is_empty() {
                    continue 'groups;
                }
                inside.push((chunk, &range.values, keys));
            }
            for (chunk, values, keys) in inside {
                if keys.len() <= LOOKUPS_MAX
                    && let Some(filter) = self.filter(chunk).await?
                    && !passes(&filter, chunk.column_type(), values, keys)
                {
                    continue 'groups;
                }
            }
            groups.push(number);
        }
        Ok(groups)
    }

    /// The leaf that is the column of `range`, if the file has it in itself.
    fn leaf(&self, range: &KeyRange) -> Option<usize> {
        let mut columns = self.columns().columns().iter();
        columns.position(|column| column.path().parts() == [range.column.as_str()])
    }
}

/// Which of the sorted `values` lie between the bounds of `chunk`, if it has bounds that compare as they do.
fn keys_between(values: &Values, chunk: &ColumnChunkMetaData) -> Option<Range<usize>> {
    let statistics = chunk
        .statistics()
        .filter(|statistics| !statistics.is_min_max_deprecated())?;
    match values {
        Values::Numbers(numbers) => {
            let comparable = match chunk.column_descr().logical_type_ref() {
                None | Some(LogicalType::Date) => true,
                Some(LogicalType::Integer(integer)) => integer.is_signed,
                Some(LogicalType::Timestamp(timestamp)) => timestamp.unit == TimeUnit::MICROS,
                Some(_) => false,
            };
            let (least, greatest): (i64, i64) = match statistics {
                Statistics::Int32(bounds) => ((*bounds.min_opt()?).into(), (*bounds.max_opt()?).into()),
                Statistics::Int64(bounds) => (*bounds.min_opt()?, *bounds.max_opt()?),
                _ => return None,
            };
            let start = numbers.partition_point(|number| *number < least);
            let end = numbers.partition_point(|number| *number <= greatest);
            comparable.then_some(start..end.max(start))
        }
        Values::Texts(texts) => {
            let Statistics::ByteArray(bounds) = statistics else {
                return None;
            };
            let (least, greatest) = (bounds.min_bytes_opt()?, bounds.max_bytes_opt()?);
            let start = texts.partition_point(|text| text.as_bytes() < least);
            let end = texts.partition_point(|text| text.as_bytes() <= greatest);
            Some(start..end.max(start))
        }
    }
}

/// Whether `filter`, of a column that is stored as `kind`, knows one of the `values` at `keys`.
fn passes(filter: &Sbbf, kind: Type, values: &Values, keys: Range<usize>) -> bool {
    match (values, kind) {
        (Values::Numbers(numbers), Type::INT64) => numbers[keys].iter().any(|number| filter.check(number)),
        (Values::Numbers(numbers), Type::INT32) => numbers[keys]
            .iter()
            .any(|number| i32::try_from(*number).is_ok_and(|number| filter.check(&number))),
        (Values::Texts(texts), Type::BYTE_ARRAY) => {
            texts[keys].iter().any(|text| filter.check(text.as_str()))
        }
        _ => true,
    }
}
