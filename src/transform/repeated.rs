//! Values of unique columns that more than one key of a load has.
//!
//! Where a load was cut must not change what is in the table, so no row is refused for it: it is told as drift, and only of
//! the rows of one load. Rows without a key count as rows of different keys.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{DefaultHasher, Hasher as _},
};

use arrow::{
    array::{Array as _, ArrayRef, AsArray as _, RecordBatch},
    datatypes::{Int32Type, Int64Type},
    row::{RowConverter, Rows, SortField},
};

use crate::{
    contract::{
        Contract,
        drift::{Change, ChangeKind, Effect},
        sample::{Place, SAMPLES_MAX, Sample},
    },
    error::{Error, ErrorKind, Result},
    spill::gathered::Gathered,
    transform::quality::{Shown, path},
};

/// Values of one column that one load remembers, about 40 bytes each. Beyond, only repetitions of those are seen.
pub const VALUES_MAX: usize = 1_000_000;

/// A value by its hash: whose it was first, and whether another key had it since.
struct Met {
    key: u64,
    /// Rows that have it.
    rows: u64,
    again: bool,
}

/// What one column was like.
#[derive(Default)]
struct Counts {
    /// Rows with a value.
    rows: u64,
    /// Values of two or more keys.
    values: u64,
    /// Rows that have one of them.
    repeating: u64,
    /// Whether there were more values than are remembered.
    is_cut: bool,
    samples: Vec<Sample>,
}

/// The values of unique columns of `contract` that two or more `keys` of the rows `accepted` have. Deletions do not count.
///
/// # Errors
/// [`ErrorKind::Internal`] if values cannot be compared, or rows not read back, which only a defect can cause.
pub fn repeated(contract: &Contract, keys: &[String], accepted: &Gathered) -> Result<Vec<Change>> {
    watched(contract, keys, accepted, VALUES_MAX)
}

fn watched(
    contract: &Contract,
    keys: &[String],
    accepted: &Gathered,
    values_max: usize,
) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    let Some(schema) = accepted.schema() else {
        return Ok(changes);
    };
    let is_key = |name: &String| *keys == [name.as_str()];
    let columns = contract.columns.iter();
    for column in
        columns.filter(|column| column.rules.unique && !column.kind.is_composed() && !is_key(&column.name))
    {
        let Ok(index) = schema.index_of(&column.name) else {
            continue;
        };
        let shown = Shown::of(contract, &schema, &[index]);
        let mut met = HashMap::new();
        let mut counts = Counts::default();
        for rows in accepted.batches() {
            let rows = rows?;
            count(&rows, index, keys, &shown, values_max, &mut met, &mut counts).map_err(|source| {
                Error::new(ErrorKind::Internal, "look for repeated values").caused_by(source)
            })?;
        }
        if counts.values > 0 {
            changes.push(change(path(contract, &column.name), counts, values_max));
        }
    }
    Ok(changes)
}

fn count(
    rows: &RecordBatch,
    index: usize,
    keys: &[String],
    shown: &[Shown],
    values_max: usize,
    met: &mut HashMap<u64, Met>,
    counts: &mut Counts,
) -> Result<(), arrow::error::ArrowError> {
    let column = rows.column(index);
    let values = comparable(std::slice::from_ref(column))?;
    let keys: Vec<ArrayRef> = keys
        .iter()
        .filter_map(|name| rows.column_by_name(name))
        .cloned()
        .collect();
    let keys = if keys.is_empty() {
        None
    } else {
        Some(comparable(&keys)?)
    };
    let deleted = rows.column_by_name("_deleted").map(|marks| marks.as_boolean());
    for row in 0..rows.num_rows() {
        let is_deleted = deleted.is_some_and(|marks| marks.is_valid(row) && marks.value(row));
        if column.is_null(row) || is_deleted {
            continue;
        }
        let key = keys.as_ref().map_or(counts.rows, |keys| hash(keys, row));
        counts.rows += 1;
        let room = met.len() < values_max;
        match met.entry(hash(&values, row)) {
            Entry::Vacant(entry) if room => {
                entry.insert(Met {
                    key,
                    rows: 1,
                    again: false,
                });
            }
            Entry::Vacant(_) => counts.is_cut = true,
            Entry::Occupied(mut entry) => {
                let known = entry.get_mut();
                if !known.again && known.key != key {
                    known.again = true;
                    counts.values += 1;
                    counts.repeating += known.rows;
                    if counts.samples.len() < SAMPLES_MAX {
                        counts.samples.extend(shown.iter().map(|shown| Sample {
                            at: place(rows, row),
                            value: shown.value(rows, row),
                        }));
                    }
                }
                known.rows += 1;
                counts.repeating += u64::from(known.again);
            }
        }
    }
    Ok(())
}

fn comparable(columns: &[ArrayRef]) -> Result<Rows, arrow::error::ArrowError> {
    let fields = columns
        .iter()
        .map(|column| SortField::new(column.data_type().clone()));
    RowConverter::new(fields.collect())?.convert_columns(columns)
}

fn hash(rows: &Rows, row: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(rows.row(row).data());
    hasher.finish()
}

fn place(rows: &RecordBatch, row: usize) -> Option<Place> {
    Some(Place {
        batch: rows
            .column_by_name("_lf_batch")?
            .as_primitive_opt::<Int64Type>()?
            .value(row),
        page: rows
            .column_by_name("_lf_page")?
            .as_primitive_opt::<Int32Type>()?
            .value(row),
        record: rows
            .column_by_name("_lf_record")?
            .as_primitive_opt::<Int32Type>()?
            .value(row),
    })
}

fn change(path: String, counts: Counts, values_max: usize) -> Change {
    let Counts {
        rows,
        values,
        repeating,
        is_cut,
        samples,
    } = counts;
    let among = if is_cut {
        format!(", of the first {values_max} values")
    } else {
        String::new()
    };
    let noun = if values == 1 { "value" } else { "values" };
    Change {
        kind: ChangeKind::Repeated,
        path,
        expected: "unique".to_owned(),
        found: format!("{values} {noun} in {repeating} rows{among}"),
        count: repeating,
        records: rows,
        first_record: None,
        effect: Effect::Accepted,
        samples,
        nature: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BooleanArray, Int32Array, Int64Array, StringArray};

    use super::*;
    use crate::contract::odcs::parse;

    const CONTRACT: &str = "apiVersion: v3.1.0
kind: DataContract
id: x
version: 1.0.0
status: active
schema:
- name: t
  properties:
  - {name: id, logicalType: integer, unique: true}
  - {name: code, logicalType: string, unique: true, customProperties: [{property: path, value: at.code}]}
  - {name: phone, logicalType: string, unique: true, classification: restricted}
";

    /// Rows of key, code, phone and whether they are deleted.
    fn rows(first: i32, rows: &[(i64, Option<&str>, Option<&str>, bool)]) -> RecordBatch {
        let count = i32::try_from(rows.len()).unwrap();
        let columns: [(&str, ArrayRef); 7] = [
            (
                "id",
                Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
            ),
            (
                "code",
                Arc::new(rows.iter().map(|row| row.1).collect::<StringArray>()),
            ),
            (
                "phone",
                Arc::new(rows.iter().map(|row| row.2).collect::<StringArray>()),
            ),
            (
                "_deleted",
                Arc::new(rows.iter().map(|row| Some(row.3)).collect::<BooleanArray>()),
            ),
            ("_lf_batch", Arc::new(Int64Array::from_value(0, rows.len()))),
            ("_lf_page", Arc::new(Int32Array::from_value(0, rows.len()))),
            (
                "_lf_record",
                Arc::new(Int32Array::from_iter_values(first..first + count)),
            ),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn told(keys: &[&str], values_max: usize, accepted: &[RecordBatch]) -> String {
        let contract = parse(CONTRACT, "c.yaml").unwrap();
        let keys: Vec<String> = keys.iter().map(|&key| key.to_owned()).collect();
        let changes = watched(&contract, &keys, &accepted.to_vec().into(), values_max).unwrap();
        let line = |change: &Change| {
            let samples: Vec<String> = change
                .samples
                .iter()
                .map(|sample| format!("{} {}", sample.at.unwrap(), sample.value))
                .collect();
            let (path, found) = (&change.path, &change.found);
            format!(
                "{path}: {found}, {} of {}: {}",
                change.count,
                change.records,
                samples.join(", ")
            )
        };
        changes.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn values_of_two_keys_are_told_and_versions_of_one_are_not() {
        let accepted = [
            rows(
                0,
                &[
                    (1, Some("a"), Some("+47"), false),
                    (1, Some("a"), None, false),
                    (2, Some("b"), None, false),
                    (3, Some("c"), Some("+46"), true),
                ],
            ),
            rows(
                4,
                &[
                    (3, Some("a"), Some("+47"), false),
                    (4, Some("a"), Some("+46"), false),
                    (1, Some("a"), None, false),
                ],
            ),
        ];
        insta::assert_snapshot!(told(&["id"], 100, &accepted), @r#"
        at.code: 1 value in 5 rows, 5 of 6: 0/0/4 "a"
        phone: 1 value in 2 rows, 2 of 3: 0/0/4 ****
        "#);
        // Without keys each row is one of its own.
        insta::assert_snapshot!(told(&[], 100, &accepted), @r#"
        id: 1 value in 3 rows, 3 of 6: 0/0/1 1
        at.code: 1 value in 5 rows, 5 of 6: 0/0/1 "a"
        phone: 1 value in 2 rows, 2 of 3: 0/0/4 ****
        "#);
        // Beyond the limit nothing new is remembered.
        let more = [&accepted[..], &[rows(7, &[(5, Some("z"), None, false)])]].concat();
        insta::assert_snapshot!(told(&["id"], 1, &more), @r#"
        at.code: 1 value in 5 rows, of the first 1 values, 5 of 7: 0/0/4 "a"
        phone: 1 value in 2 rows, of the first 1 values, 2 of 3: 0/0/4 ****
        "#);
        assert_eq!(told(&["id"], 100, &[]), "");
    }
}
