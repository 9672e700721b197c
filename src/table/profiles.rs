//! What the records of each load were like, as rows of `landfall.profiles`: one for each declared path.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array as _, ArrayRef, AsArray as _, BooleanArray, Int64Array, RecordBatch, StringArray},
    datatypes::{Int64Type, SchemaRef},
};
use futures::TryStreamExt as _;

use super::{
    Tables,
    side::{Side, load_of, of_stream},
    system::{LoadRow, blank, build, moments},
};
use crate::{
    config::StreamName,
    contract::drift::profile::{PathProfile, Profile, Responses},
    error::{Error, ErrorKind, Result},
    raw::BatchNumber,
};

/// Files looked into for the profiles of earlier loads: usually each holds one.
const FILES_MAX: usize = 20;

/// The counts of a row, by column.
const COUNTS: [&str; 7] = ["records", "seen", "nulls", "texts", "moments", "dates", "uuids"];

/// The profile of a load as rows: the record itself first, with an empty path, then the declared paths.
///
/// # Errors
/// [`ErrorKind::Internal`] if Arrow refuses them.
pub fn profile_rows(load: &LoadRow, profile: &Profile) -> Result<RecordBatch> {
    let whole = PathProfile {
        required: true,
        around: profile.records,
        seen: profile.records,
        ..PathProfile::default()
    };
    let paths: Vec<&PathProfile> = std::iter::once(&whole).chain(&profile.paths).collect();
    let rows = paths.len();
    let responses = serde_json::to_string(&profile.responses)
        .map_err(|source| Error::new(ErrorKind::Internal, "write profile").caused_by(source))?;
    let text = |value: &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, rows)))
    };
    let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let numbers = |value: &dyn Fn(&PathProfile) -> u64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(
            paths.iter().map(|path| count(value(path))),
        ))
    };
    let required: BooleanArray = paths.iter().map(|path| Some(path.required)).collect();
    let names: StringArray = paths.iter().map(|path| Some(path.path.as_str())).collect();
    let responses: StringArray = (0..rows)
        .map(|row| (row == 0).then_some(responses.as_str()))
        .collect();
    build(vec![
        ("source", text(load.stream.source.as_str())),
        ("stream", text(load.stream.stream.as_str())),
        ("load_id", text(&load.load_id)),
        (
            "batch_from",
            Arc::new(Int64Array::from_value(load.batch_from, rows)),
        ),
        ("batch_to", Arc::new(Int64Array::from_value(load.batch_to, rows))),
        ("observed_at", moments(std::iter::repeat_n(load.started_at, rows))),
        ("contract_version", text(&load.contract_version)),
        ("path", Arc::new(names)),
        ("required", Arc::new(required)),
        ("records", numbers(&|path| path.around)),
        ("seen", numbers(&|path| path.seen)),
        ("nulls", numbers(&|path| path.nulls)),
        ("texts", numbers(&|path| path.texts)),
        ("moments", numbers(&|path| path.moments)),
        ("dates", numbers(&|path| path.dates)),
        ("uuids", numbers(&|path| path.uuids)),
        ("numbers", numbers(&|path| path.numbers)),
        ("responses", Arc::new(responses)),
    ])
}

/// The columns of `landfall.profiles`.
///
/// # Errors
/// [`ErrorKind::Internal`] if Arrow refuses them.
pub fn profiles_schema() -> Result<SchemaRef> {
    Ok(profile_rows(&blank()?, &Profile::default())?.schema())
}

impl Tables {
    /// The profiles of the newest loads of `stream` that ended before batch `before`, the newest first; at most `loads_max`.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the store does not answer.
    pub async fn profiles(
        &self,
        side: &Side,
        stream: &StreamName,
        before: BatchNumber,
        loads_max: usize,
    ) -> Result<Vec<Profile>> {
        let Some(table) = self.open(&side.path).await? else {
            return Ok(Vec::new());
        };
        let mut files: Vec<_> = table
            .files()?
            .into_iter()
            .filter(|file| of_stream(file, side, stream))
            .filter_map(|file| Some((load_of(&file)?.0, file)))
            .filter(|(batch, _)| *batch < before.get())
            .collect();
        files.sort_by_key(|(batch, _)| std::cmp::Reverse(*batch));
        let schema = profiles_schema()?;
        let mut loads = BTreeMap::new();
        for (_, file) in files.iter().take(FILES_MAX) {
            if loads.len() >= loads_max {
                break;
            }
            let rows: Vec<RecordBatch> = table.read(file, Arc::clone(&schema)).await?.try_collect().await?;
            for batch in &rows {
                take(batch, &mut loads)?;
            }
        }
        let earlier = loads
            .into_iter()
            .rev()
            .filter(|((batch, _), _)| *batch < before.get());
        Ok(earlier.take(loads_max).map(|(_, profile)| profile).collect())
    }
}

/// Adds the rows of `batch` to the profiles of their loads.
fn take(batch: &RecordBatch, loads: &mut BTreeMap<(i64, String), Profile>) -> Result<()> {
    let corrupt =
        |column: &'static str| Error::new(ErrorKind::Corrupt, "read profile").with("column", column);
    let column = |name: &'static str| batch.column_by_name(name).ok_or_else(|| corrupt(name));
    let text = |name| Ok::<_, Error>(column(name)?.as_string::<i32>());
    let number = |name| Ok::<_, Error>(column(name)?.as_primitive::<Int64Type>());
    let (load_ids, paths, responses) = (text("load_id")?, text("path")?, text("responses")?);
    let required = column("required")?.as_boolean();
    let (batches, numbers) = (number("batch_to")?, number("numbers")?);
    let counts = COUNTS.map(number);
    for row in 0..batch.num_rows() {
        let load = (batches.value(row), load_ids.value(row).to_owned());
        let profile = loads.entry(load).or_default();
        let mut values = [0; COUNTS.len()];
        for (value, counts) in values.iter_mut().zip(&counts) {
            let counts = counts
                .as_ref()
                .map_err(|error| corrupt("counts").caused_by(error.to_string()))?;
            *value = u64::try_from(counts.value(row)).unwrap_or(0);
        }
        let [around, seen, nulls, texts, moments, dates, uuids] = values;
        if paths.value(row).is_empty() {
            profile.records = around;
            if responses.is_valid(row) {
                profile.responses = told(responses.value(row))?;
            }
            continue;
        }
        profile.paths.push(PathProfile {
            path: paths.value(row).to_owned(),
            required: required.value(row),
            around,
            seen,
            nulls,
            texts,
            moments,
            dates,
            uuids,
            numbers: u64::try_from(numbers.value(row)).unwrap_or(0),
        });
    }
    Ok(())
}

fn told(responses: &str) -> Result<Responses> {
    serde_json::from_str(responses)
        .map_err(|source| Error::new(ErrorKind::Corrupt, "read profile").caused_by(source))
}
