//! `landfall explain` and `landfall quarantine show`: from a row down to the bytes it came from.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array as _, AsArray as _, RecordBatch, StringArray},
    compute::{CastOptions, cast_with_options},
    datatypes::{Int32Type, Int64Type},
};
use bytes::Bytes;
use datafusion::{
    common::{Column, DFSchema},
    dataframe::DataFrame,
    logical_expr::{Expr, cast, lit},
    prelude::col,
    scalar::ScalarValue,
};
use serde_json::value::RawValue;

use crate::{
    config::{Stream, StreamName},
    contract::{Contract, classified::Classified, contracts::Contracts, judge::RESCUED, sample::MASK},
    error::{Error, ErrorKind, Result},
    format::{Piece, Recipe},
    ops::{Workspace, contract, quarantine::Mask},
    query::{Session, sql_error},
    raw::{
        BatchNumber, PageFacts,
        expire::Expired,
        log::{LogEntry, RawLog},
        read,
    },
    report::{
        evidence::{Evidence, Explained, Position},
        moment,
        rows::{self, Values},
    },
    transform::runs,
};

const LOAD_OF_BATCH: &str = include_str!("../../sql/reports/load_of_batch.sql");

/// Quarantined records looked through for a key, newest first: any that hold its text somewhere.
const CANDIDATES_MAX: usize = 10_000;

/// Most rows of one key that are explained, newest first. An appended table may have more.
pub const ROWS_MAX: usize = 20;

/// Columns that say where a row came from.
const PLACE: [&str; 3] = ["_lf_batch", "_lf_page", "_lf_record"];

/// The record's text in a quarantine table, which may be cut; the evidence has all of it.
const RECORD: &str = "record";

/// What the load of a row says of its contract.
const CONTRACT_VERSION: &str = "contract_version";

/// What a reason says, in the quarantine table and in its list of all reasons.
const REASON: [&str; 4] = ["class", "path", "expected", "found"];

/// Everything known about the row of `stream` with this key, and about records set aside with it.
///
/// `key` has one value per key column in the order of the project file, or `column=value` pairs. What the contract
/// classifies is masked unless `mask` says otherwise.
///
/// # Errors
/// [`ErrorKind::Config`] for a key that does not fit the stream; else those of reading the lake.
pub async fn explain(
    workspace: &Workspace,
    stream: &StreamName,
    key: &[String],
    mask: Mask,
) -> Result<Vec<Explained>> {
    let (_, settings) = workspace.project.stream(stream)?;
    let contracts = contract::read_all(settings)?;
    let masking = contracts.as_ref().filter(|_| mask == Mask::Yes);
    let classified = masking.map(Contracts::classified).unwrap_or_default();
    let of_columns = masking.map(|all| Classified::of_columns(&all.union));
    let of_columns = of_columns.unwrap_or_default();
    let key = key_values(settings, key)?;
    let session = workspace.session()?;
    let mut explained = Vec::new();
    let mut no_value = None;
    match rows_with_key(&session, stream, &key).await {
        Ok(found) => {
            for (mut values, position) in found {
                hide_values(&mut values, &of_columns, &classified);
                values.extend(load_of(&session, stream, position.batch).await?);
                let what = format!("row of {stream}");
                let mut row = with_evidence(workspace, settings, what, values, Vec::new(), position).await;
                name_contract(&mut row, settings, contracts.as_ref());
                hide_record(&mut row, &classified);
                explained.push(row);
            }
        }
        // Not a value of the key's type: no row can have it, but a record that was set aside for it can.
        Err(error) if error.kind() == ErrorKind::Config => no_value = Some(error),
        Err(error) => return Err(error),
    }
    let aside = set_aside_with_key(&session, stream, contracts.as_ref(), &classified, &key).await?;
    for (values, reasons, position) in aside {
        let what = format!("record of {stream} that was set aside");
        let mut record = with_evidence(workspace, settings, what, values, reasons, position).await;
        hide_record(&mut record, &classified);
        explained.push(record);
    }
    match no_value {
        Some(error) if explained.is_empty() => Err(error),
        _ => Ok(explained),
    }
}

/// Says which contract judges the record of a row, if not that of the stream, by which the load is told.
fn name_contract(row: &mut Explained, stream: &Stream, contracts: Option<&Contracts>) {
    let (Some(versions), Some(contracts), Ok(evidence)) = (&stream.versions, contracts, &row.evidence) else {
        return;
    };
    let file = versions.file_of(&evidence.record);
    let older = contracts
        .older
        .iter()
        .find(|older| Some(older.file.as_path()) == file);
    let value = row.values.iter_mut().find(|(name, _)| name == CONTRACT_VERSION);
    if let (Some(older), Some((_, value))) = (older, value) {
        *value = Some(older.contract.version.clone());
    }
}

/// Masks the columns of a row.
fn hide_values(values: &mut Values, of_columns: &Classified, classified: &Classified) {
    for (name, value) in values {
        let Some(text) = value else { continue };
        *text = match name.as_str() {
            RESCUED if !classified.is_empty() => classified.mask_rescued(text),
            _ => of_columns.mask_member(name, text),
        };
    }
}

/// Masks what is classified in the bytes of a record. Of a page nobody knows where its records are.
fn hide_record(explained: &mut Explained, classified: &Classified) {
    if let Ok(evidence) = &mut explained.evidence
        && !classified.is_empty()
    {
        let masked = match evidence.position.record {
            Some(_) => classified.mask(&evidence.record),
            None => None,
        };
        evidence.record = masked
            .unwrap_or_else(|| format!("{MASK} (it cannot be read; see it with --reveal)"))
            .into_bytes();
    }
}

/// The load and the contract that brought a raw batch into the table.
pub(in crate::ops) async fn load_of(session: &Session, stream: &StreamName, batch: i64) -> Result<Values> {
    let params = vec![
        ("source", ScalarValue::from(stream.source.as_str())),
        ("stream", ScalarValue::from(stream.stream.as_str())),
        ("batch", ScalarValue::from(batch)),
    ];
    let frame = session.with_params(LOAD_OF_BATCH, params).await;
    let rows = frame?
        .collect()
        .await
        .map_err(|source| sql_error("find load", source))?;
    let found = rows
        .first()
        .map(rows::named_texts)
        .transpose()?
        .and_then(|rows| rows.into_iter().next());
    Ok(found.unwrap_or_default())
}

/// The record of `stream` that was set aside at `position`, `None` if none was. It does not show what is `classified`.
///
/// # Errors
/// Those of reading the lake.
pub async fn set_aside(
    workspace: &Workspace,
    stream: &StreamName,
    position: Position,
    classified: &Classified,
) -> Result<Option<Explained>> {
    let (_, settings) = workspace.project.stream(stream)?;
    let record = position
        .record
        .map_or(-1, |record| i32::try_from(record).unwrap_or(i32::MAX));
    let page = i32::try_from(position.page).unwrap_or(i32::MAX);
    let place = (col(PLACE[0]).eq(lit(position.batch)))
        .and(col(PLACE[1]).eq(lit(page)))
        .and(col(PLACE[2]).eq(lit(record)));
    let rows = workspace.session()?.quarantine_of(stream).await?.filter(place);
    let rows = collect(rows).await?;
    let Some((mut values, reasons, position)) = quarantined(&rows, classified)?.into_iter().next() else {
        return Ok(None);
    };
    values.retain(|(name, _)| name != RECORD);
    let what = format!("record of {stream} that was set aside");
    let mut record = with_evidence(workspace, settings, what, values, reasons, position).await;
    hide_record(&mut record, classified);
    Ok(Some(record))
}

/// Column and value of a key, in the order of the key columns.
fn key_values(stream: &Stream, given: &[String]) -> Result<Vec<(String, String)>> {
    let keys = &stream.table.keys;
    let wrong = || {
        Error::new(ErrorKind::Config, "read key")
            .with("stream", &stream.name)
            .with("key columns", keys.join(", "))
            .with(
                "hint",
                "give one value per key column, in this order, or column=value",
            )
    };
    if keys.is_empty() || given.len() != keys.len() {
        return Err(wrong());
    }
    let named = |text: &String| -> Option<(String, String)> {
        let (column, value) = text.split_once('=')?;
        keys.iter()
            .any(|key| key == column)
            .then(|| (column.to_owned(), value.to_owned()))
    };
    let pairs: Option<Vec<_>> = given.iter().map(named).collect();
    match pairs {
        Some(pairs) => keys
            .iter()
            .map(|key| {
                pairs
                    .iter()
                    .find(|(column, _)| column == key)
                    .cloned()
                    .ok_or_else(wrong)
            })
            .collect(),
        None => Ok(keys.iter().cloned().zip(given.iter().cloned()).collect()),
    }
}

/// Rows of the main table, each with its place in raw; none before the first load.
async fn rows_with_key(
    session: &Session,
    stream: &StreamName,
    key: &[(String, String)],
) -> Result<Vec<(Values, Position)>> {
    let Some(frame) = session.rows_of(stream).await? else {
        return Ok(Vec::new());
    };
    let mut same_key = Vec::new();
    for (column, value) in key {
        same_key.push(equals(frame.schema(), column, value)?);
    }
    let Some(same_key) = same_key.into_iter().reduce(Expr::and) else {
        return Ok(Vec::new());
    };
    let newest = PLACE.map(|name| col(name).sort(false, true)).to_vec();
    let rows = frame
        .filter(same_key)
        .and_then(|rows| rows.sort(newest))
        .and_then(|rows| rows.limit(0, Some(ROWS_MAX)));
    let mut found = Vec::new();
    for batch in collect(rows).await? {
        for (row, values) in rows::named_texts(&batch)?.into_iter().enumerate() {
            found.push((values, position(&batch, row)?));
        }
    }
    Ok(found)
}

/// `column = value`, the text read as the column's type.
fn equals(schema: &DFSchema, column: &str, value: &str) -> Result<Expr> {
    let field = schema.field_with_unqualified_name(column).map_err(|source| {
        Error::new(ErrorKind::Config, "find key column")
            .with("column", column)
            .caused_by(source)
    })?;
    let array = StringArray::from(vec![value]);
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(&array, field.data_type(), &options).map_err(|_| {
        Error::new(ErrorKind::Config, "read key value")
            .with("column", column)
            .with("expected", field.data_type())
            .with("found", format!("{value:?}"))
    })?;
    let own = Expr::Column(Column::from_name(column));
    Ok(own.eq(cast(lit(value), field.data_type().clone())))
}

/// Records set aside whose text holds the key, as far as they can be read.
async fn set_aside_with_key(
    session: &Session,
    stream: &StreamName,
    contracts: Option<&Contracts>,
    classified: &Classified,
    key: &[(String, String)],
) -> Result<Vec<(Values, Vec<String>, Position)>> {
    let paths_of = |contract: Option<&Contract>| -> Vec<(Vec<String>, &str)> {
        key.iter()
            .map(|(column, value)| {
                let declared =
                    contract.and_then(|contract| contract.columns.iter().find(|own| own.name == *column));
                let path = declared.map_or_else(|| vec![column.clone()], |own| own.path.clone());
                (path, value.as_str())
            })
            .collect()
    };
    // Each contract may have the key at a place of its own.
    let places: Vec<Vec<(Vec<String>, &str)>> = match contracts {
        Some(contracts) => contracts.all().map(|contract| paths_of(Some(contract))).collect(),
        None => vec![paths_of(None)],
    };
    // The text of the value has to be somewhere in the record; whether in the right place is looked at afterwards.
    let contains = |value: &str| datafusion::functions::expr_fn::strpos(col("record"), lit(value)).gt(lit(0));
    let Some(likely) = key.iter().map(|(_, value)| contains(value)).reduce(Expr::and) else {
        return Ok(Vec::new());
    };
    let newest = PLACE.map(|name| col(name).sort(false, true)).to_vec();
    let rows = session
        .quarantine_of(stream)
        .await?
        .filter(likely)
        .and_then(|rows| rows.sort(newest))
        .and_then(|rows| rows.limit(0, Some(CANDIDATES_MAX)));
    let rows = collect(rows).await?;
    let mut found = quarantined(&rows, classified)?;
    found.retain(|(values, ..)| {
        let record = values
            .iter()
            .find(|(name, _)| name == RECORD)
            .and_then(|(_, value)| value.as_deref());
        record.is_some_and(|record| {
            let mut places = places.iter();
            places.any(|paths| paths.iter().all(|(path, value)| holds(record, path, value)))
        })
    });
    found.truncate(ROWS_MAX);
    for (values, ..) in &mut found {
        values.retain(|(name, _)| name != RECORD);
    }
    Ok(found)
}

/// Whether a record has `value` at `path`, as JSON text or as the text of a JSON string.
fn holds(record: &str, path: &[String], value: &str) -> bool {
    let Ok(mut at) = serde_json::from_str::<&RawValue>(record) else {
        return false;
    };
    for name in path {
        let Ok(members) = serde_json::from_str::<BTreeMap<String, &RawValue>>(at.get()) else {
            return false;
        };
        let Some(member) = members.get(name) else {
            return false;
        };
        at = member;
    }
    at.get() == value || serde_json::from_str::<String>(at.get()).is_ok_and(|text| text == value)
}

/// Rows of a quarantine table: values, reasons, place.
fn quarantined(
    batches: &[RecordBatch],
    classified: &Classified,
) -> Result<Vec<(Values, Vec<String>, Position)>> {
    let mut found = Vec::new();
    for batch in batches {
        for (row, values) in rows::named_texts(batch)?.into_iter().enumerate() {
            let text = |name: &str| {
                let value = values.iter().find(|(own, _)| own == name);
                value.and_then(|(_, value)| value.as_deref())
            };
            let reasons = match text("violations") {
                Some(violations) => reasons_of(violations, classified),
                None => vec![without_evidence(text("class"), text("path"))],
            };
            // The list of reasons and the evidence say these again, in full.
            let shown = |name: &str| {
                !REASON.contains(&name)
                    && !PLACE.contains(&name)
                    && !["violations", "object", "batch_to"].contains(&name)
            };
            let values = values.into_iter().filter(|(name, _)| shown(name)).collect();
            found.push((values, reasons, position(batch, row)?));
        }
    }
    Ok(found)
}

/// The reason of a record that is no sample of its load.
fn without_evidence(class: Option<&str>, path: Option<&str>) -> String {
    let place = path.filter(|path| !path.is_empty());
    let place = place.map(|path| format!(" at {path}")).unwrap_or_default();
    let class = class.unwrap_or_default();
    format!("{class}{place}: what was expected and found is kept of the first records of a load only")
}

fn reasons_of(violations: &str, classified: &Classified) -> Vec<String> {
    let list: Vec<serde_json::Value> = serde_json::from_str(violations).unwrap_or_default();
    let reason = |reason: &serde_json::Value| {
        let text = |name: &str| {
            reason
                .get(name)
                .and_then(serde_json::Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let [class, path, expected, found] = REASON.map(text);
        let found = if classified.covers(&path) {
            MASK.to_owned()
        } else {
            found
        };
        let place = if path.is_empty() {
            String::new()
        } else {
            format!(" at {path}")
        };
        format!("{class}{place}: expected {expected}, found {found}")
    };
    list.iter().map(reason).collect()
}

/// The place in raw of a row. Batches come from tables of ours, so the columns are there.
fn position(batch: &RecordBatch, row: usize) -> Result<Position> {
    let column = |name: &'static str| {
        let column = batch.column_by_name(name).filter(|column| column.is_valid(row));
        column.ok_or_else(|| Error::new(ErrorKind::Corrupt, "read raw position").with("column", name))
    };
    let wrong = || Error::new(ErrorKind::Corrupt, "read raw position");
    let batch_number = column(PLACE[0])?
        .as_primitive_opt::<Int64Type>()
        .ok_or_else(wrong)?
        .value(row);
    let page = column(PLACE[1])?
        .as_primitive_opt::<Int32Type>()
        .ok_or_else(wrong)?
        .value(row);
    let record = column(PLACE[2])?
        .as_primitive_opt::<Int32Type>()
        .ok_or_else(wrong)?
        .value(row);
    Ok(Position {
        batch: batch_number,
        page: u32::try_from(page).map_err(|_| wrong())?,
        record: u32::try_from(record).ok(),
    })
}

async fn collect(frame: datafusion::error::Result<DataFrame>) -> Result<Vec<RecordBatch>> {
    let failed = |source| sql_error("find rows", source);
    frame.map_err(failed)?.collect().await.map_err(failed)
}

async fn with_evidence(
    workspace: &Workspace,
    stream: &Stream,
    what: String,
    values: Values,
    reasons: Vec<String>,
    position: Position,
) -> Explained {
    // Evidence that is damaged or gone does not take the rest of the answer with it.
    let evidence = evidence(workspace, stream, position)
        .await
        .map_err(|error| error.chain());
    Explained {
        what,
        values,
        reasons,
        evidence,
    }
}

async fn evidence(workspace: &Workspace, stream: &Stream, position: Position) -> Result<Evidence> {
    let log = RawLog {
        store: Arc::clone(&workspace.store),
        stream: stream.name.clone(),
    };
    let missing = |what: &'static str| Error::new(ErrorKind::Corrupt, what).with("raw position", position);
    let Some(entry) = log.entry(BatchNumber::new(position.batch)?).await? else {
        return Err(missing("find raw batch"));
    };
    let (facts, body) = match read::page(workspace.store.as_ref(), &entry, position.page).await {
        Ok(page) => page,
        Err(error) => {
            // What has expired is not lost.
            let expired = Expired::of(&log).await?;
            expired.refuse(&log, &(entry.number..=entry.number), "read raw page")?;
            return Err(error);
        }
    };
    let record = match position.record {
        Some(number) => {
            let recipe = workspace.recipe(stream)?;
            nth(&recipe, Some(&facts), &body, number as usize).ok_or_else(|| missing("find raw record"))?
        }
        None => body.to_vec(),
    };
    let stored = stored(&entry, position.page, body.len()).ok_or_else(|| missing("find raw page"))?;
    let stored = stored.into_iter().chain(files(&facts, position.record)).collect();
    Ok(Evidence {
        position,
        request: request(&facts),
        stored,
        record,
    })
}

/// The record of that number as it is read, without the values of its slice: those are told with the request.
fn nth(recipe: &Recipe, facts: Option<&PageFacts>, body: &Bytes, number: usize) -> Option<Vec<u8>> {
    let mut count = 0;
    let mut found = None;
    let visit = &mut |piece: Piece<'_>| {
        if count == number {
            found = Some(piece.bytes(body).to_vec());
        }
        count += 1;
    };
    runs::read(recipe, facts, body, visit).ok()?;
    found
}

fn stored(entry: &LogEntry, page: u32, body_bytes: usize) -> Option<Vec<(&'static str, String)>> {
    let mut first = 0;
    for object in &entry.objects {
        let at = (page as usize).checked_sub(first)?;
        if let Some(index) = object.pages.get(at) {
            let (from, to) = (index.frame_offset, index.frame_offset + index.frame_bytes);
            return Some(vec![
                ("object", object.path.clone()),
                ("object sha256", object.sha256.clone()),
                ("frame", format!("bytes {from} to {to}, zstd")),
                (
                    "page in frame",
                    format!("from byte {}, {body_bytes} bytes, checked", index.start_in_frame),
                ),
                ("committed at", moment(entry.committed_at)),
                ("run", entry.run_id.clone()),
                ("config sha256", entry.config_hash.clone()),
            ]);
        }
        first += object.pages.len();
    }
    None
}

/// Where the file is that a record points to, or why it is nowhere.
fn files(facts: &PageFacts, record: Option<u32>) -> Vec<(&'static str, String)> {
    let number = record.map(u64::from);
    let of_record = facts.files.iter().filter(|file| Some(file.record) == number);
    let mut lines = Vec::new();
    for file in of_record {
        lines.extend(file.path.clone().map(|path| ("file", path)));
        lines.extend(file.bytes.map(|bytes| ("file bytes", bytes.to_string())));
        lines.extend(file.error.clone().map(|error| ("file", error)));
    }
    lines
}

fn request(facts: &PageFacts) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("request", format!("{} {}", facts.method, facts.url)),
        ("status", facts.status.to_string()),
        ("attempts", facts.attempts.to_string()),
        ("fetched at", moment(facts.fetched_at)),
    ];
    let slice = facts.slice.iter().flatten();
    lines.extend(slice.map(|(name, value)| ("slice", format!("{name} = {value}"))));
    let optional = [
        ("page token used", &facts.token_used),
        ("page token returned", &facts.token_returned),
        ("idempotency key", &facts.idempotency_key),
        ("event id", &facts.event_id),
        ("trace id", &facts.trace_id),
        ("receipt", &facts.receipt),
        ("producer", &facts.producer),
    ];
    lines.extend(
        optional
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.clone()?))),
    );
    if facts.id_reuse {
        lines.push(("event id used", "before, for another body".to_owned()));
    }
    lines.extend(facts.judged.iter().map(|judged| {
        let codes: Vec<String> = judged
            .codes
            .iter()
            .map(|(code, count)| format!("{code} ×{count}"))
            .collect();
        let found = if codes.is_empty() {
            "all records fit".to_owned()
        } else {
            codes.join(", ")
        };
        (
            "judged on arrival",
            format!("by contract {}: {found}", judged.contract),
        )
    }));
    lines.extend(
        facts
            .headers
            .iter()
            .map(|(name, value)| ("response header", format!("{name}: {value}"))),
    );
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::format::Format, format::Limits, json::JsonPath};

    #[test]
    fn a_key_is_looked_for_at_its_place_and_as_it_was_written() {
        let path = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert!(holds(r#"{"id":1001}"#, &path(&["id"]), "1001"));
        assert!(holds(r#"{"id":"1001"}"#, &path(&["id"]), "1001"));
        assert!(holds(
            r#"{"a":{"b":9223372036854775808}}"#,
            &path(&["a", "b"]),
            "9223372036854775808"
        ));
        assert!(!holds(r#"{"id":7,"other":1001}"#, &path(&["id"]), "1001"));
        assert!(!holds("not json", &path(&["id"]), "1001"));
    }

    #[test]
    fn the_nth_record_is_the_bytes_as_they_stand() {
        let recipe = Recipe {
            format: Format::JSON,
            records: JsonPath::parse("$.data[*]").unwrap().into(),
            hydrated: None,
            include: vec!["order".to_owned()],
            file_column: None,
            limits: Limits::DEFAULT,
        };
        let body = Bytes::from_static(br#"{"data": [{"id":1}, {"id" : 2.50}]}"#);
        assert_eq!(nth(&recipe, None, &body, 1).unwrap(), br#"{"id" : 2.50}"#);
        assert_eq!(nth(&recipe, None, &body, 2), None);
    }
}
