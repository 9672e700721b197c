//! What became of a page that was landed: from a receipt forward to the table, as `explain` goes from a row back.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array as _, AsArray as _, RecordBatch},
    datatypes::{DataType, Int64Type},
};
use bytes::Bytes;
use datafusion::{
    logical_expr::{cast, lit},
    prelude::col,
};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::{
    config::StreamName,
    contract::place::without_positions,
    error::{Error, ErrorKind, Result},
    format::Recipe,
    json::Found,
    ops::{Workspace, explain::load_of},
    query::{Session, sql_error},
    raw::{BatchNumber, PageFacts, layout, log::RawLog, read},
    table::AppId,
    transform::runs,
};

/// Records told one by one of those that were set aside, the first of the page.
pub const RECORDS_MAX: usize = 400;

/// Reasons told apart.
pub const REASONS_MAX: usize = 100;

/// Watermarks asked for at once.
const WATERMARKS_AT_ONCE: usize = 8;

/// What became of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// The W3C trace that its request belonged to; none either if raw no longer holds the page.
    pub trace_id: Option<String>,
    /// Whether its event id had come before with another body.
    pub id_reuse: bool,
    /// What the transform made of it; `None` before that.
    pub transformed: Option<Transformed>,
}

/// What the transform made of a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transformed {
    /// The load that read it, a UUIDv7.
    pub load_id: Option<String>,
    /// The version of the contract that judged.
    pub contract_version: Option<String>,
    /// The version of the table from which on its rows are there; `None` if that is too long ago to be told.
    pub table_version: Option<u64>,
    /// Records in the page; a page that cannot be read counts as one. `None` if raw no longer holds it.
    pub read: Option<u64>,
    /// Those of them that are in the quarantine now.
    pub aside: Aside,
}

/// Records in the quarantine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aside {
    /// How many.
    pub records: u64,
    /// How many for each class and place, list positions left out; at most [`REASONS_MAX`].
    pub reasons: BTreeMap<(String, String), u64>,
    /// The first of them, at most [`RECORDS_MAX`].
    pub first: Vec<SetAside>,
}

/// A record that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Its number within the page, from 0; `None` for the page as a whole.
    pub record: Option<u64>,
    /// Why, such as `type_mismatch`.
    pub class: String,
    /// Where in the record; empty for the record itself.
    pub path: String,
}

impl Fate {
    fn of(facts: Option<&PageFacts>, transformed: Option<Transformed>) -> Self {
        Self {
            trace_id: facts.and_then(|facts| facts.trace_id.clone()),
            id_reuse: facts.is_some_and(|facts| facts.id_reuse),
            transformed,
        }
    }
}

impl Transformed {
    /// Records that went into the table, those included that a newer one of the same key replaced or was before.
    pub fn merged(&self) -> Option<u64> {
        self.read.map(|read| read.saturating_sub(self.aside.records))
    }
}

/// How far the table of each of `streams` is: the newest raw batch in it, `None` before the first. Nothing of raw is read.
///
/// A table that cannot be read is the error of its own stream and of no other.
pub async fn watermarks(
    workspace: &Workspace,
    streams: Vec<StreamName>,
) -> Vec<(StreamName, Result<Option<BatchNumber>>)> {
    let watermarks = streams.into_iter().map(|stream| async move {
        let watermark = watermark(workspace, &stream).await;
        (stream, watermark)
    });
    futures::stream::iter(watermarks)
        .buffered(WATERMARKS_AT_ONCE)
        .collect()
        .await
}

async fn watermark(workspace: &Workspace, stream: &StreamName) -> Result<Option<BatchNumber>> {
    let app = AppId::new(stream, AppId::GENERATION);
    workspace.tables.watermark(&layout::table(stream), &app).await
}

/// What became of the page `page` of the raw batch `batch` of `stream`. The table is asked first, then raw and, of what is
/// transformed, the quarantine; nothing is written. The body of a page that is not transformed is not read.
///
/// # Errors
/// [`ErrorKind::Config`] if it is no stream of the project, else those of reading the lake.
pub async fn fate(workspace: &Workspace, stream: &StreamName, batch: BatchNumber, page: u32) -> Result<Fate> {
    let (source, settings) = workspace.project.stream(stream)?;
    let watermark = watermark(workspace, stream).await?;
    let entry = RawLog {
        store: Arc::clone(&workspace.store),
        stream: stream.clone(),
    }
    .entry(batch)
    .await?;
    let store = workspace.store.as_ref();
    if watermark.is_none_or(|mark| mark < batch) {
        let facts = match &entry {
            Some(entry) => held(read::facts(store, entry, page).await)?,
            None => None,
        };
        return Ok(Fate::of(facts.as_ref(), None));
    }
    let stored = match &entry {
        Some(entry) => held(read::page(store, entry, page).await)?,
        None => None,
    };
    let (app, table) = (AppId::new(stream, AppId::GENERATION), layout::table(stream));
    let session = workspace.session()?;
    let mut transformed = Transformed {
        read: stored
            .as_ref()
            .map(|(facts, body)| records_in(&Recipe::of(source, settings), facts, body)),
        aside: aside(&session, stream, batch, page).await?,
        ..Transformed::default()
    };
    match workspace.tables.load_of(&table, &app, batch).await? {
        Some(commit) => {
            transformed.load_id = Some(commit.load_id);
            transformed.contract_version = Some(commit.contract);
            transformed.table_version = Some(commit.version);
        }
        // The load history remembers longer, but not in which version it ended.
        None => {
            let mut told: BTreeMap<String, Option<String>> = load_of(&session, stream, batch.get())
                .await?
                .into_iter()
                .collect();
            transformed.load_id = told.remove("load_id").flatten();
            transformed.contract_version = told.remove("contract_version").flatten();
        }
    }
    let facts = stored.as_ref().map(|(facts, _)| facts);
    Ok(Fate::of(facts, Some(transformed)))
}

/// What was read; `None` if raw no longer holds it, or holds something else.
fn held<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Internal) => Ok(None),
        Err(error) => Err(error),
    }
}

fn records_in(recipe: &Recipe, facts: &PageFacts, body: &Bytes) -> u64 {
    let mut count = 0;
    match runs::read(recipe, Some(facts), body, &mut |_| count += 1) {
        Ok(Found::Values(_)) => count,
        // It is set aside as a whole.
        Ok(Found::Missing) | Err(_) => 1,
    }
}

async fn aside(session: &Session, stream: &StreamName, batch: BatchNumber, page: u32) -> Result<Aside> {
    let failed = |source| sql_error("read quarantine", source);
    let page = i32::try_from(page).unwrap_or(i32::MAX);
    let of_page = col("_lf_batch")
        .eq(lit(batch.get()))
        .and(col("_lf_page").eq(lit(page)));
    let text = |name: &str| cast(col(name), DataType::Utf8).alias(name);
    let record = cast(col("_lf_record"), DataType::Int64).alias("_lf_record");
    let rows = session
        .quarantine_of(stream)
        .await?
        .filter(of_page)
        .and_then(|rows| rows.select(vec![record, text("class"), text("path")]))
        .and_then(|rows| rows.sort(vec![col("_lf_record").sort(true, true)]))
        .map_err(failed)?;
    let mut rows = rows.execute_stream().await.map_err(failed)?;
    let mut aside = Aside::default();
    while let Some(batch) = rows.try_next().await.map_err(failed)? {
        aside.add(&batch)?;
    }
    Ok(aside)
}

impl Aside {
    /// Adds rows of record number, class and path.
    fn add(&mut self, rows: &RecordBatch) -> Result<()> {
        let wrong = || Error::new(ErrorKind::Internal, "read quarantine");
        let records = rows.column(0).as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
        let classes = rows.column(1).as_string_opt::<i32>().ok_or_else(wrong)?;
        let paths = rows.column(2).as_string_opt::<i32>().ok_or_else(wrong)?;
        for row in 0..rows.num_rows() {
            let value = |texts: &arrow::array::StringArray| match texts.is_valid(row) {
                true => texts.value(row).to_owned(),
                false => String::new(),
            };
            let (class, path) = (value(classes), value(paths));
            self.records += 1;
            let reason = (class.clone(), without_positions(&path));
            if self.reasons.len() < REASONS_MAX || self.reasons.contains_key(&reason) {
                *self.reasons.entry(reason).or_default() += 1;
            }
            if self.first.len() < RECORDS_MAX {
                self.first.push(SetAside {
                    record: u64::try_from(records.value(row)).ok(),
                    class,
                    path,
                });
            }
        }
        Ok(())
    }
}
