//! What the Delta log says about the values of a data file, taken from the file's own metadata.

use std::{collections::BTreeMap, fmt::Write as _};

use chrono::{DateTime, Days, NaiveDate, Timelike as _};
use parquet::{
    basic::{ConvertedType, LogicalType, TimeUnit},
    file::{
        metadata::{ColumnChunkMetaData, ParquetMetaData},
        statistics::Statistics,
    },
    schema::types::ColumnDescriptor,
};

/// The columns that have statistics in the log.
#[derive(Clone, Debug)]
pub(super) enum Indexed {
    /// The first so many columns of the table; a struct is one.
    First(usize),
    /// All.
    All,
    /// These, or all within them.
    Named(Vec<Vec<String>>),
}

/// The statistics of a file as the JSON text of an `add` action.
///
/// A bound that some row group does not tell is left out: readers skip files by bounds.
pub(super) fn json(metadata: &ParquetMetaData, indexed: &Indexed) -> String {
    let (mut min, mut max, mut nulls) = (Tree::default(), Tree::default(), Tree::default());
    for index in leaves(metadata, indexed) {
        let column = metadata.file_metadata().schema_descr().column(index);
        // What a list holds says nothing about its row.
        if column.max_rep_level() > 0 {
            continue;
        }
        let chunks = || metadata.row_groups().iter().map(|group| group.column(index));
        if let Some((low, high)) = bounds(&column, chunks()) {
            min.insert(column.path().parts(), low);
            max.insert(column.path().parts(), high);
        }
        if let Some(count) = null_count(chunks()) {
            nulls.insert(column.path().parts(), count.to_string());
        }
    }
    let mut json = String::new();
    // Writing to a string does not fail.
    let _ = write!(json, "{{\"numRecords\":{}", metadata.file_metadata().num_rows());
    for (name, tree) in [("minValues", min), ("maxValues", max), ("nullCount", nulls)] {
        let _ = write!(json, ",\"{name}\":");
        tree.render(&mut json);
    }
    json.push('}');
    json
}

/// The leaf columns that `indexed` means.
fn leaves(metadata: &ParquetMetaData, indexed: &Indexed) -> Vec<usize> {
    let schema = metadata.file_metadata().schema_descr();
    let all = 0..schema.num_columns();
    match indexed {
        Indexed::All => all.collect(),
        Indexed::First(count) => all
            .filter(|index| schema.get_column_root_idx(*index) < *count)
            .collect(),
        Indexed::Named(names) => all
            .filter(|index| {
                let column = schema.column(*index);
                names.iter().any(|name| column.path().parts().starts_with(name))
            })
            .collect(),
    }
}

/// JSON texts by path.
#[derive(Default)]
struct Tree {
    value: Option<String>,
    within: BTreeMap<String, Tree>,
}

impl Tree {
    fn insert(&mut self, path: &[String], value: String) {
        match path {
            [] => self.value = Some(value),
            [first, rest @ ..] => self.within.entry(first.clone()).or_default().insert(rest, value),
        }
    }

    fn render(&self, json: &mut String) {
        if let Some(value) = &self.value {
            json.push_str(value);
            return;
        }
        json.push('{');
        for (number, (name, tree)) in self.within.iter().enumerate() {
            if number > 0 {
                json.push(',');
            }
            json.push_str(&serde_json::Value::from(name.as_str()).to_string());
            json.push(':');
            tree.render(json);
        }
        json.push('}');
    }
}

/// Nulls in a column, if every row group tells.
fn null_count<'a>(mut chunks: impl Iterator<Item = &'a ColumnChunkMetaData>) -> Option<u64> {
    chunks.try_fold(0, |sum, chunk| Some(sum + chunk.statistics()?.null_count_opt()?))
}

/// One end of the values of a column. Ends of one column are of one kind.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum Bound {
    Boolean(bool),
    Number(i128),
    Float(f64),
    Text(String),
}

/// The least and the greatest value as JSON, if every row group with values tells them.
fn bounds<'a>(
    column: &ColumnDescriptor,
    chunks: impl Iterator<Item = &'a ColumnChunkMetaData>,
) -> Option<(String, String)> {
    let mut ends: Option<(Bound, Bound)> = None;
    for chunk in chunks {
        let statistics = chunk.statistics()?;
        let Some((low, high)) = ends_of(column, statistics) else {
            if statistics.null_count_opt() == u64::try_from(chunk.num_values()).ok() {
                continue;
            }
            return None;
        };
        ends = Some(match ends {
            None => (low, high),
            Some((least, greatest)) => (
                if low < least { low } else { least },
                if high > greatest { high } else { greatest },
            ),
        });
    }
    let (least, greatest) = ends?;
    Some((rendered(column, &least)?, rendered(column, &greatest)?))
}

fn ends_of(column: &ColumnDescriptor, statistics: &Statistics) -> Option<(Bound, Bound)> {
    if statistics.is_min_max_deprecated() {
        return None;
    }
    let text = |bytes: &[u8]| {
        std::str::from_utf8(bytes)
            .ok()
            .map(|text| Bound::Text(text.to_owned()))
    };
    Some(match statistics {
        Statistics::Boolean(values) => (
            Bound::Boolean(*values.min_opt()?),
            Bound::Boolean(*values.max_opt()?),
        ),
        Statistics::Int32(values) => (
            Bound::Number((*values.min_opt()?).into()),
            Bound::Number((*values.max_opt()?).into()),
        ),
        Statistics::Int64(values) => (
            Bound::Number((*values.min_opt()?).into()),
            Bound::Number((*values.max_opt()?).into()),
        ),
        Statistics::Float(values) => (
            Bound::Float((*values.min_opt()?).into()),
            Bound::Float((*values.max_opt()?).into()),
        ),
        Statistics::Double(values) => (Bound::Float(*values.min_opt()?), Bound::Float(*values.max_opt()?)),
        Statistics::ByteArray(values) if is_text(column) => {
            (text(values.min_bytes_opt()?)?, text(values.max_bytes_opt()?)?)
        }
        Statistics::FixedLenByteArray(values) if decimal_scale(column).is_some() => (
            Bound::Number(big_endian(values.min_bytes_opt()?)?),
            Bound::Number(big_endian(values.max_bytes_opt()?)?),
        ),
        _ => return None,
    })
}

fn is_text(column: &ColumnDescriptor) -> bool {
    match column.logical_type_ref() {
        Some(logical) => *logical == LogicalType::String,
        None => column.converted_type() == ConvertedType::UTF8,
    }
}

fn decimal_scale(column: &ColumnDescriptor) -> Option<u32> {
    match column.logical_type_ref() {
        Some(LogicalType::Decimal(decimal)) => u32::try_from(decimal.scale).ok(),
        Some(_) => None,
        None => (column.converted_type() == ConvertedType::DECIMAL)
            .then(|| u32::try_from(column.type_scale()).ok())
            .flatten(),
    }
}

/// A signed number of at most 16 bytes.
fn big_endian(bytes: &[u8]) -> Option<i128> {
    let first = bytes.first()?;
    let mut whole = if first & 0x80 == 0 { [0; 16] } else { [0xff; 16] };
    let start = whole.len().checked_sub(bytes.len())?;
    whole[start..].copy_from_slice(bytes);
    Some(i128::from_be_bytes(whole))
}

/// `bound` as the log writes values of `column`; `None` if it cannot.
fn rendered(column: &ColumnDescriptor, bound: &Bound) -> Option<String> {
    let quoted = |text: String| serde_json::Value::from(text).to_string();
    match bound {
        Bound::Boolean(value) => Some(value.to_string()),
        Bound::Float(value) => value
            .is_finite()
            .then(|| serde_json::Value::from(*value).to_string()),
        Bound::Text(text) => Some(quoted(text.clone())),
        Bound::Number(number) => {
            if let Some(scale) = decimal_scale(column) {
                return Some(decimal(*number, scale));
            }
            match column.logical_type_ref() {
                Some(LogicalType::Timestamp(timestamp)) => {
                    let number = i64::try_from(*number).ok()?;
                    let moment = match timestamp.unit {
                        TimeUnit::MILLIS => DateTime::from_timestamp_millis(number),
                        TimeUnit::MICROS => DateTime::from_timestamp_micros(number),
                        TimeUnit::NANOS => Some(DateTime::from_timestamp_nanos(number)),
                    }?;
                    // The protocol cuts to milliseconds; readers of an upper bound know it.
                    let fraction = if moment.nanosecond() == 0 { "" } else { "%.3f" };
                    let (between, zone) = if timestamp.is_adjusted_to_u_t_c {
                        ("T", "Z")
                    } else {
                        (" ", "")
                    };
                    let format = format!("%Y-%m-%d{between}%H:%M:%S{fraction}{zone}");
                    Some(quoted(moment.format(&format).to_string()))
                }
                Some(LogicalType::Date) => date(*number).map(quoted),
                None if column.converted_type() == ConvertedType::DATE => date(*number).map(quoted),
                _ => Some(number.to_string()),
            }
        }
    }
}

fn date(days: i128) -> Option<String> {
    let days = i64::try_from(days).ok()?;
    let distance = Days::new(days.unsigned_abs());
    let date = if days < 0 {
        NaiveDate::default().checked_sub_days(distance)
    } else {
        NaiveDate::default().checked_add_days(distance)
    };
    date.map(|date| date.format("%Y-%m-%d").to_string())
}

/// A number of `10^-scale` as an exact JSON number.
fn decimal(unscaled: i128, scale: u32) -> String {
    if scale == 0 {
        return unscaled.to_string();
    }
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale as usize + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale as usize);
    let sign = if unscaled < 0 { "-" } else { "" };
    format!("{sign}{whole}.{fraction}")
}
