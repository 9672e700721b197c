//! Which data files can hold a key, by the statistics in the Delta log.

use std::collections::BTreeMap;

use arrow::{
    array::{Array, AsArray as _, RecordBatch},
    datatypes::{DataType, Date32Type, Int64Type, TimeUnit, TimestampMicrosecondType},
};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

/// The distinct values of one key column of a load, sorted.
///
/// Only types whose statistics are exact text or numbers prune; other columns keep every file.
#[derive(Debug)]
pub(super) struct KeyRange {
    pub(super) column: String,
    pub(super) values: Values,
}

/// Values, sorted.
#[derive(Debug)]
pub(super) enum Values {
    Numbers(Vec<i64>),
    Texts(Vec<String>),
}

/// The ranges of those of `keys` that can prune.
pub(super) fn ranges(keys: &[String], batches: &[RecordBatch]) -> Vec<KeyRange> {
    keys.iter()
        .filter_map(|column| {
            let values = distinct(column, batches)?;
            Some(KeyRange {
                column: column.clone(),
                values,
            })
        })
        .collect()
}

fn distinct(column: &str, batches: &[RecordBatch]) -> Option<Values> {
    let first = batches.first()?.column_by_name(column)?;
    match first.data_type() {
        DataType::Utf8 => {
            let mut texts: Vec<String> = Vec::new();
            for batch in batches {
                let array = batch.column_by_name(column)?.as_string_opt::<i32>()?;
                texts.extend(array.iter().flatten().map(str::to_owned));
            }
            texts.sort_unstable();
            texts.dedup();
            Some(Values::Texts(texts))
        }
        DataType::Int64 | DataType::Date32 | DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let mut numbers = Vec::new();
            for batch in batches {
                extend_numbers(batch.column_by_name(column)?.as_ref(), &mut numbers)?;
            }
            numbers.sort_unstable();
            numbers.dedup();
            Some(Values::Numbers(numbers))
        }
        _ => None,
    }
}

fn extend_numbers(array: &dyn Array, numbers: &mut Vec<i64>) -> Option<()> {
    match array.data_type() {
        DataType::Int64 => numbers.extend(array.as_primitive_opt::<Int64Type>()?.iter().flatten()),
        DataType::Date32 => {
            numbers.extend(
                array
                    .as_primitive_opt::<Date32Type>()?
                    .iter()
                    .flatten()
                    .map(i64::from),
            );
        }
        _ => numbers.extend(
            array
                .as_primitive_opt::<TimestampMicrosecondType>()?
                .iter()
                .flatten(),
        ),
    }
    Some(())
}

/// Whether a file with these partition values and Delta statistics (their JSON text) can hold one of the keys.
///
/// No statistics, or statistics that cannot be read, mean that it can.
pub(super) fn may_match(
    partition: &[(String, Option<String>)],
    stats: Option<&str>,
    ranges: &[KeyRange],
) -> bool {
    // A key column that is a partition column has one value for the whole file, and no statistics.
    let partition_matches = partition.iter().all(|(column, value)| {
        ranges
            .iter()
            .filter(|range| range.column == *column)
            .all(|range| match value {
                Some(value) => range.values.holds(value),
                None => false,
            })
    });
    partition_matches && stats_match(stats, ranges)
}

/// The bounds in a file's statistics. Of a wide table one column or two are looked at, so no other value is parsed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bounds<'a> {
    #[serde(borrow, default)]
    min_values: BTreeMap<String, &'a RawValue>,
    #[serde(borrow, default)]
    max_values: BTreeMap<String, &'a RawValue>,
}

fn stats_match(stats: Option<&str>, ranges: &[KeyRange]) -> bool {
    let Some(bounds) = stats.and_then(|text| serde_json::from_str::<Bounds<'_>>(text).ok()) else {
        return true;
    };
    let value = |values: &BTreeMap<String, &RawValue>, column: &String| {
        values
            .get(column)
            .and_then(|value| serde_json::from_str::<Value>(value.get()).ok())
    };
    ranges.iter().all(|range| {
        let ends = (
            value(&bounds.min_values, &range.column),
            value(&bounds.max_values, &range.column),
        );
        match ends {
            (Some(min), Some(max)) => range.values.any_within(&min, &max),
            _ => true,
        }
    })
}

impl Values {
    /// Whether a partition value, as Delta writes it, is one of these; also if it cannot be read.
    fn holds(&self, value: &str) -> bool {
        match self {
            Self::Texts(texts) => texts.binary_search_by(|text| text.as_str().cmp(value)).is_ok(),
            Self::Numbers(numbers) => value
                .parse()
                .ok()
                .or_else(|| moment(value))
                .is_none_or(|number| numbers.binary_search(&number).is_ok()),
        }
    }

    fn any_within(&self, min: &Value, max: &Value) -> bool {
        match self {
            Self::Texts(texts) => {
                let (Some(min), Some(max)) = (min.as_str(), max.as_str()) else {
                    return true;
                };
                let at = texts.partition_point(|text| text.as_str() < min);
                texts.get(at).is_some_and(|text| text.as_str() <= max)
            }
            Self::Numbers(numbers) => {
                let (Some(min), Some(max)) = (lower_bound(min), upper_bound(max)) else {
                    return true;
                };
                let at = numbers.partition_point(|number| *number < min);
                numbers.get(at).is_some_and(|number| *number <= max)
            }
        }
    }
}

fn lower_bound(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| moment(value.as_str()?))
}

fn upper_bound(value: &Value) -> Option<i64> {
    // Some writers cut timestamps in statistics to milliseconds, so a maximum may be up to one too low.
    value.as_i64().or_else(|| {
        let text = value.as_str()?;
        let number = moment(text)?;
        Some(if text.len() > 10 {
            number.saturating_add(1_000)
        } else {
            number
        })
    })
}

/// A date as days, a date-time as microseconds since 1970.
fn moment(text: &str) -> Option<i64> {
    if text.len() == 10 {
        let date = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
        return Some((date - chrono::NaiveDate::default()).num_days());
    }
    chrono::DateTime::parse_from_rfc3339(text)
        .ok()
        .map(|moment| moment.timestamp_micros())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};

    use super::*;

    fn keys(ids: Vec<i64>, names: Vec<&str>) -> Vec<KeyRange> {
        let batch = RecordBatch::try_from_iter([
            ("id", Arc::new(Int64Array::from(ids)) as Arc<dyn Array>),
            ("name", Arc::new(StringArray::from(names)) as Arc<dyn Array>),
        ])
        .unwrap();
        ranges(&["id".to_owned(), "name".to_owned()], &[batch])
    }

    #[test]
    fn a_file_is_kept_only_if_every_key_column_can_match() {
        let ranges = keys(vec![5, 90], vec!["b", "x"]);
        let stats = |id: (i64, i64), name: (&str, &str)| {
            serde_json::json!({
                "minValues": {"id": id.0, "name": name.0},
                "maxValues": {"id": id.1, "name": name.1},
            })
            .to_string()
        };
        assert!(may_match(&[], Some(&stats((1, 5), ("a", "c"))), &ranges));
        assert!(
            !may_match(&[], Some(&stats((6, 89), ("a", "c"))), &ranges),
            "no id between 6 and 89"
        );
        assert!(
            !may_match(&[], Some(&stats((1, 9), ("c", "w"))), &ranges),
            "no name between c and w"
        );
    }

    #[test]
    fn a_partition_value_that_is_no_key_of_the_load_excludes_its_file() {
        let ranges = keys(vec![5, 90], vec!["b", "x"]);
        let partition =
            |column: &str, value: Option<&str>| vec![(column.to_owned(), value.map(str::to_owned))];
        assert!(may_match(&partition("name", Some("x")), None, &ranges));
        assert!(!may_match(&partition("name", Some("c")), None, &ranges));
        assert!(!may_match(&partition("id", Some("6")), None, &ranges));
        assert!(
            !may_match(&partition("id", None), None, &ranges),
            "a key is never null"
        );
        assert!(
            may_match(&partition("region", Some("eu")), None, &ranges),
            "not a key column"
        );
    }

    #[test]
    fn a_day_as_partition_value_is_compared_as_a_day() {
        let days = Values::Numbers(vec![moment("2026-11-22").unwrap()]);
        assert!(days.holds("2026-11-22"));
        assert!(!days.holds("2026-11-21"));
        assert!(days.holds("not a day"));
    }

    #[test]
    fn missing_or_odd_statistics_keep_the_file() {
        let ranges = keys(vec![5], vec!["b"]);
        assert!(may_match(&[], None, &ranges));
        assert!(may_match(&[], Some("not json"), &ranges));
        assert!(may_match(
            &[],
            Some(r#"{"minValues":{"id":true},"maxValues":{"id":[]}}"#),
            &ranges
        ));
    }

    #[test]
    fn a_maximum_cut_to_milliseconds_still_covers_its_row() {
        let cut = Value::from("2026-01-01T00:00:00.123Z");
        let exact = moment("2026-01-01T00:00:00.123999Z").unwrap();
        assert!(Values::Numbers(vec![exact]).any_within(&cut, &cut));
    }
}
