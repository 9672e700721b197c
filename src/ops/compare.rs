//! The rows of a live table and of a rebuilt one, paired by identity and told apart by a hash of their values.
//!
//! ```text
//! live ──── align ─ (key, hash) ─ sort ─┐
//!                                       ├─ walk both ─► counts, keys of some rows that differ ─ read those ─► differences
//! rebuilt ─ align ─ (key, hash) ─ sort ─┘
//! ```
//!
//! The sorts spill to disk, and of the rows themselves only those that are shown are held: memory follows neither table.

pub mod cause;
mod keyed;
pub mod review;
mod walk;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use arrow::{
    array::{Array as _, AsArray as _, RecordBatch, UInt64Array},
    compute::take_record_batch,
    datatypes::{Int32Type, Int64Type, SchemaRef},
};
use datafusion::{
    dataframe::DataFrame,
    error::DataFusionError,
    execution::{
        context::{SessionConfig, SessionContext},
        memory_pool::FairSpillPool,
        runtime_env::RuntimeEnvBuilder,
    },
};
use futures::TryStreamExt as _;

use self::{cause::Cause, keyed::Keying};
use crate::{
    config::{ScdType, Stream},
    error::{Error, ErrorKind, Result},
    query::sql_error,
    report::rows::{Values, named_texts},
    table::{Table, align::Common, merge::POSITION},
};

/// Rows of one identity that are shown; a table that someone else wrote may have any number of them.
const ROWS_OF_KEY_MAX: usize = 20;

/// Part of the memory that each of the two sorts sets aside for merging what it has spilled.
const MERGING_SHARE: u64 = 8;

/// When a row was loaded is the one thing about it that a replay does not repeat.
pub const LOADED_AT: &str = "_lf_loaded_at";

/// A place in raw as its columns have it: batch, page, record.
pub type Place = (i64, i32, i32);

/// What two tables have in common and what not.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Rows that are the same in both.
    pub equal: u64,
    /// Rows that have other values in each.
    pub changed: u64,
    /// Rows that only the live table has.
    pub only_live: u64,
    /// Rows that only the rebuilt table has.
    pub only_rebuilt: u64,
    /// Some of the rows that differ, by key.
    pub differences: Vec<Difference>,
}

impl Comparison {
    /// Whether both have the same rows.
    pub fn is_equal(&self) -> bool {
        self.different() == 0
    }

    /// Rows that differ.
    pub fn different(&self) -> u64 {
        self.changed + self.only_live + self.only_rebuilt
    }
}

/// In which way a row differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Both tables have it, with other values.
    Changed,
    /// Only the live table has it.
    OnlyLive,
    /// Only the rebuilt table has it.
    OnlyRebuilt,
}

impl Kind {
    /// Its name in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::OnlyLive => "only_live",
            Self::OnlyRebuilt => "only_rebuilt",
        }
    }
}

/// A row that differs.
#[derive(Clone, Debug)]
pub struct Difference {
    /// In which way.
    pub kind: Kind,
    /// The values that identify it.
    pub key: Values,
    /// Its row in the live table.
    pub live: Option<Row>,
    /// Its row in the rebuilt table.
    pub rebuilt: Option<Row>,
    /// Why, as far as can be told.
    pub cause: Cause,
}

impl Difference {
    /// The columns that differ, with the values of both tables. Empty for a row that only one of them has.
    pub fn columns(&self) -> Vec<(&str, Option<&str>, Option<&str>)> {
        let (Some(live), Some(rebuilt)) = (&self.live, &self.rebuilt) else {
            return Vec::new();
        };
        let pairs = live.values.iter().zip(&rebuilt.values);
        pairs
            .filter(|((name, one), (_, other))| one != other && name != LOADED_AT)
            .map(|((name, one), (_, other))| (name.as_str(), one.as_deref(), other.as_deref()))
            .collect()
    }
}

/// A row as text.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Every column of both tables.
    pub values: Values,
    /// Where it came from, unless somebody else wrote it.
    pub place: Option<Place>,
}

/// What rows are told apart by.
#[derive(Clone, Debug)]
pub struct Pairing {
    /// The columns of both tables.
    pub common: Common,
    /// Columns that say which rows of the two tables belong together.
    pub identity: Vec<String>,
    /// Columns whose values must be the same.
    pub compared: Vec<String>,
}

impl Pairing {
    /// How the main tables of `stream` are compared: by key, by key and sequence where history is kept, by raw position
    /// where every record is a row.
    pub fn of(stream: &Stream, common: Common) -> Self {
        let rules = &stream.table;
        let identity = match rules.scd_type {
            ScdType::Upsert => rules.keys.clone(),
            ScdType::History => rules.keys.iter().chain(&rules.sequence_by).cloned().collect(),
            ScdType::Append | ScdType::Replace => POSITION.map(str::to_owned).to_vec(),
        };
        let names = common.schema().fields().iter().map(|field| field.name());
        let compared = names
            .filter(|name| *name != LOADED_AT && !identity.contains(name))
            .cloned()
            .collect();
        Self {
            common,
            identity,
            compared,
        }
    }
}

/// The rows of `table`.
///
/// # Errors
/// Those of planning a scan of it.
pub async fn frame(context: &SessionContext, table: &Table) -> Result<DataFrame> {
    let provider = table.provider(context).await?;
    context.read_table(provider).map_err(reading)
}

/// No rows, of columns as in `schema`.
///
/// # Errors
/// [`ErrorKind::Internal`] if DataFusion cannot plan them.
pub fn nothing(context: &SessionContext, schema: &SchemaRef) -> Result<DataFrame> {
    let none = RecordBatch::new_empty(Arc::clone(schema));
    context.read_batch(none).map_err(reading)
}

/// A place to compare tables in, with `memory_bytes_max` before sorting goes to disk.
///
/// # Errors
/// [`ErrorKind::Internal`] if DataFusion cannot be set up.
pub fn context(memory_bytes_max: u64) -> Result<SessionContext> {
    let pool = FairSpillPool::new(usize::try_from(memory_bytes_max).unwrap_or(usize::MAX));
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .build_arc()
        .map_err(|source| Error::new(ErrorKind::Internal, "set up comparison").caused_by(source))?;
    let defaults = SessionConfig::new();
    let merging = usize::try_from(memory_bytes_max / MERGING_SHARE).unwrap_or(usize::MAX);
    let merging = merging.min(defaults.options().execution.sort_spill_reservation_bytes);
    // One sort for each table: merging the parts of several takes memory that they have taken already.
    let config = defaults
        .with_repartition_sorts(false)
        .with_sort_spill_reservation_bytes(merging);
    Ok(SessionContext::new_with_config_rt(config, runtime))
}

/// Compares the rows of `live` and `rebuilt`; of each kind of difference up to `limit` rows are shown.
///
/// # Errors
/// Whatever reading the tables says; [`ErrorKind::Limit`] if the disk for sorting is full.
pub async fn compare(
    context: &SessionContext,
    live: DataFrame,
    rebuilt: DataFrame,
    pairing: &Pairing,
    limit: usize,
) -> Result<Comparison> {
    let keying = Arc::new(Keying::of(pairing)?);
    let walked = {
        let one = keyed::sorted(context, live.clone(), &keying).await?;
        let other = keyed::sorted(context, rebuilt.clone(), &keying).await?;
        walk::walk(one, other, limit).await?
    };
    let mut comparison = walked.comparison;
    if !walked.keys.is_empty() {
        let one = rows(live, &keying, &walked.keys).await?;
        let other = rows(rebuilt, &keying, &walked.keys).await?;
        comparison.differences = pair(&walked.keys, one, other, &pairing.identity);
    }
    Ok(comparison)
}

/// Rows by key, each with the hash of its values.
type Found = BTreeMap<Vec<u8>, Vec<(Vec<u8>, Row)>>;

/// The rows of `frame` with these keys.
async fn rows(frame: DataFrame, keying: &Keying, keys: &BTreeSet<Vec<u8>>) -> Result<Found> {
    let mut found = Found::new();
    let mut batches = frame.execute_stream().await.map_err(reading)?;
    while let Some(batch) = batches.try_next().await.map_err(reading)? {
        let keyed = keying.keyed(&batch)?;
        let (own, hashes) = (
            keyed.column(0).as_binary::<i32>(),
            keyed.column(1).as_binary::<i32>(),
        );
        let wanted: Vec<usize> = (0..own.len())
            .filter(|row| keys.contains(own.value(*row)))
            .collect();
        if wanted.is_empty() {
            continue;
        }
        let places = UInt64Array::from_iter_values(wanted.iter().map(|row| *row as u64));
        let picked = take_record_batch(&keying.align(&batch)?, &places)
            .map_err(|source| Error::new(ErrorKind::Internal, "pick rows").caused_by(source))?;
        for ((number, values), row) in named_texts(&picked)?.into_iter().enumerate().zip(wanted) {
            let rows = found.entry(own.value(row).to_vec()).or_default();
            if rows.len() < ROWS_OF_KEY_MAX {
                let place = place(&picked, number);
                rows.push((hashes.value(row).to_vec(), Row { values, place }));
            }
        }
    }
    Ok(found)
}

/// Where row number `row` of `batch` came from.
pub(super) fn place(batch: &RecordBatch, row: usize) -> Option<Place> {
    let [of_batch, page, record] = POSITION.map(|name| batch.column_by_name(name));
    let (of_batch, page, record) = (of_batch?, page?, record?);
    if [of_batch, page, record].iter().any(|column| column.is_null(row)) {
        return None;
    }
    Some((
        of_batch.as_primitive_opt::<Int64Type>()?.value(row),
        page.as_primitive_opt::<Int32Type>()?.value(row),
        record.as_primitive_opt::<Int32Type>()?.value(row),
    ))
}

/// Pairs the rows of each key, leaving out those that are the same.
fn pair(
    keys: &BTreeSet<Vec<u8>>,
    mut live: Found,
    mut rebuilt: Found,
    identity: &[String],
) -> Vec<Difference> {
    let mut differences = Vec::new();
    for key in keys {
        let mut ones = live.remove(key).unwrap_or_default();
        let mut others = rebuilt.remove(key).unwrap_or_default();
        ones.retain(
            |(hash, _)| match others.iter().position(|(other, _)| other == hash) {
                Some(same) => {
                    others.swap_remove(same);
                    false
                }
                None => true,
            },
        );
        let (mut ones, mut others) = (ones.into_iter(), others.into_iter());
        // Ends with the longer of the two, which are bounded.
        loop {
            let (live, rebuilt) = (ones.next(), others.next());
            let kind = match (&live, &rebuilt) {
                (Some(_), Some(_)) => Kind::Changed,
                (Some(_), None) => Kind::OnlyLive,
                (None, Some(_)) => Kind::OnlyRebuilt,
                (None, None) => break,
            };
            let (live, rebuilt) = (live.map(|(_, row)| row), rebuilt.map(|(_, row)| row));
            let values = live
                .as_ref()
                .or(rebuilt.as_ref())
                .map(|row| row.values.as_slice());
            let key = values
                .unwrap_or_default()
                .iter()
                .filter(|(name, _)| identity.contains(name))
                .cloned()
                .collect();
            differences.push(Difference {
                kind,
                key,
                live,
                rebuilt,
                cause: Cause::Unknown,
            });
        }
    }
    differences
}

fn reading(source: DataFusionError) -> Error {
    sql_error("compare tables", source)
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{ArrayRef, Int64Array, RecordBatch, StringArray},
        datatypes::{DataType, Field, Schema},
    };
    use datafusion::{catalog::memory::MemTable, prelude::DataFrame};

    use super::*;

    fn frame(context: &SessionContext, ids: impl Iterator<Item = i64>, odd: i64) -> DataFrame {
        let ids: Vec<i64> = ids.collect();
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Utf8, true),
            Field::new("value", DataType::Int64, true),
        ]));
        let batches = ids.chunks(1024).map(|chunk| {
            let values = chunk.iter().map(|id| if *id % 12_500 == odd { -1 } else { *id });
            let columns: Vec<ArrayRef> = vec![
                Arc::new(StringArray::from_iter_values(
                    chunk.iter().map(|id| format!("{id:0>100}")),
                )),
                Arc::new(Int64Array::from_iter_values(values)),
            ];
            RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()
        });
        let table = MemTable::try_new(Arc::clone(&schema), vec![batches.collect()]).unwrap();
        context.read_table(Arc::new(table)).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn tables_larger_than_the_memory_for_sorting_are_compared_on_disk() {
        const ROWS: i64 = 50_000;
        let context = context(8 << 20).unwrap();
        let live = frame(&context, 0..ROWS, 7);
        let rebuilt = frame(&context, (1..=ROWS).rev(), 8);
        let common = Common::of(live.schema().as_arrow(), rebuilt.schema().as_arrow());
        let pairing = Pairing {
            common,
            identity: vec!["id".to_owned()],
            compared: vec!["value".to_owned()],
        };
        let comparison = compare(&context, live, rebuilt, &pairing, 3).await.unwrap();
        let counts = (
            comparison.equal,
            comparison.changed,
            comparison.only_live,
            comparison.only_rebuilt,
        );
        assert_eq!(counts, (ROWS as u64 - 9, 8, 1, 1));
        let shown: Vec<Kind> = comparison
            .differences
            .iter()
            .map(|difference| difference.kind)
            .collect();
        assert_eq!(
            shown,
            [
                Kind::OnlyLive,
                Kind::Changed,
                Kind::Changed,
                Kind::Changed,
                Kind::OnlyRebuilt
            ]
        );
    }
}
