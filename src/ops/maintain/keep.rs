//! What of a stream's raw must not expire, however old it is.

use std::{collections::BTreeSet, sync::Arc};

use arrow::{
    array::{Array as _, AsArray as _},
    datatypes::Int64Type,
};
use datafusion::prelude::{cast, col};
use futures::TryStreamExt as _;
use object_store::{Error as StoreError, ObjectMeta, ObjectStoreExt as _};

use crate::{
    clock::Timestamp,
    config::{
        Source, Stream, StreamName,
        slice::{Parent, ParentRecords, SliceBy},
    },
    error::Result,
    ops::{Workspace, rebuild::swapping},
    query::sql_error,
    raw::{BatchNumber, Bookmark, expire::Keep, layout, log::RawLog, store::lower},
    table::AppId,
};

/// Whether anything of a stream's raw may expire.
pub(super) enum Kept {
    /// All of it stays, and why.
    All(String),
    /// This stays.
    Some(Keep),
}

/// What of the raw of `stream` stays.
///
/// - Under a legal hold, before the first load, and while a rebuild reads it: everything.
/// - Everything behind the watermark of the table, and behind the beginning of the last complete pass up to there: a pass
///   that ends later is compared with all its batches.
/// - What a child stream has yet to make slices of, and events whose records have yet to be fetched.
/// - Batches of which a record is in quarantine.
pub(super) async fn kept(workspace: &Workspace, source: &Source, stream: &Stream) -> Result<Kept> {
    if let Some(reason) = held(workspace, stream).await? {
        return Ok(Kept::All(reason));
    }
    if is_rebuilt(workspace, &stream.name).await? {
        return Ok(Kept::All("a rebuild of the table is under way".to_owned()));
    }
    let log = log(workspace, &stream.name);
    let Some(loaded) = watermark(workspace, &stream.name).await? else {
        return Ok(Kept::All("nothing of it is loaded yet".to_owned()));
    };
    let Some(entry) = log.entry(loaded).await? else {
        return Ok(Kept::All(format!(
            "the table holds batch {loaded}, and raw does not"
        )));
    };
    let mut from = loaded.next();
    // Nothing that only events bring is ever complete, and none of it waits for more of a pass.
    if let Some(bookmark) = entry.bookmark.as_ref().filter(|_| stream.is_polled()) {
        if bookmark.last_success_at.is_none() {
            return Ok(Kept::All("its first pass is not complete".to_owned()));
        }
        let Some(pass) = log.last_pass(&entry).await? else {
            return Ok(Kept::All(
                "its last complete pass began too long ago to be found".to_owned(),
            ));
        };
        from = from.min(pass);
    }
    for child in &source.streams {
        let events = child.hydrate.as_ref().map(|hydrate| hydrate.from());
        if let Some(events) = events.filter(|events| **events == stream.name.stream) {
            let bookmark = bookmark(workspace, child).await?;
            let hydration = bookmark.hydration.unwrap_or_default();
            from = from.min(hydration.needs_from(events.as_str()));
        }
        let by = child.slices.as_ref().map_or(&[][..], |slices| &slices.by);
        for by in by {
            let SliceBy::Parent(parent) = by else { continue };
            if parent.stream != stream.name.stream {
                continue;
            }
            match of_child(workspace, stream, child, parent).await? {
                Some(needed) => from = from.min(needed),
                None => {
                    return Ok(Kept::All(format!(
                        "every pass of {} asks for all records of it",
                        child.name
                    )));
                }
            }
        }
    }
    Ok(Kept::Some(Keep {
        from,
        single: quarantined(workspace, &stream.name).await?,
    }))
}

/// How far the live table of `stream` is.
pub(super) async fn watermark(workspace: &Workspace, stream: &StreamName) -> Result<Option<BatchNumber>> {
    match workspace.tables.open(&layout::table(stream)).await? {
        Some(table) => table.watermark(&AppId::new(stream, AppId::GENERATION)).await,
        None => Ok(None),
    }
}

/// Why nothing of `stream` may be deleted, if so.
pub(super) async fn held(workspace: &Workspace, stream: &Stream) -> Result<Option<String>> {
    if stream.retention.legal_hold {
        return Ok(Some("legal hold in the project file".to_owned()));
    }
    for hold in layout::holds(&stream.name) {
        match workspace.store.head(&hold).await {
            Ok(_) => return Ok(Some(format!("legal hold: {hold}"))),
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(lower(error, "look for legal hold", &hold)),
        }
    }
    Ok(None)
}

/// When the youngest of `objects` was written.
pub(super) fn newest(objects: &[ObjectMeta]) -> Option<Timestamp> {
    objects.iter().map(|object| object.last_modified).max()
}

/// Whether somebody reads raw of `stream` from its beginning, or has not long ago.
async fn is_rebuilt(workspace: &Workspace, stream: &StreamName) -> Result<bool> {
    let staged = layout::staged(stream);
    let listed: Vec<ObjectMeta> = workspace
        .store
        .list(Some(&staged))
        .try_collect()
        .await
        .map_err(|error| lower(error, "list staged tables", &staged))?;
    if listed.iter().any(|object| swapping::is_word(&object.location)) {
        return Ok(true);
    }
    let written = newest(&listed);
    let age = written.and_then(|written| (workspace.clock.now() - written).to_std().ok());
    Ok(written.is_some() && age.is_none_or(|age| age < workspace.project.maintain.sweep_after))
}

/// The first batch of `stream` that `child` still needs; `None` if that is all of them.
async fn of_child(
    workspace: &Workspace,
    stream: &Stream,
    child: &Stream,
    parent: &Parent,
) -> Result<Option<BatchNumber>> {
    match parent.records {
        // As the last complete pass, which stays in any case.
        ParentRecords::All if stream.incremental.is_none() => {
            Ok(Some(in_pass(workspace, child, parent).await?))
        }
        ParentRecords::All => Ok(None),
        ParentRecords::New => {
            let bookmark = bookmark(workspace, child).await?;
            let known = bookmark.parents.get(parent.stream.as_str());
            let next = known.map_or(BatchNumber::FIRST, |last| last.next());
            Ok(Some(next.min(in_pass(workspace, child, parent).await?)))
        }
    }
}

/// The first batch of the parent that a pass of `child` reads which is under way.
async fn in_pass(workspace: &Workspace, child: &Stream, parent: &Parent) -> Result<BatchNumber> {
    let bookmark = bookmark(workspace, child).await?;
    let backfill = bookmark.backfill.as_ref().map(|backfill| &backfill.bookmark);
    let passes = [Some(&bookmark), backfill].into_iter().flatten();
    let ranges = passes
        .filter_map(|bookmark| bookmark.pass.as_ref())
        .filter_map(|pass| pass.parents.get(parent.stream.as_str()));
    let first = ranges.map(|(first, _)| *first).min();
    Ok(first.map_or(BatchNumber::new(i64::MAX)?, |first| first))
}

async fn bookmark(workspace: &Workspace, stream: &Stream) -> Result<Bookmark> {
    let head = log(workspace, &stream.name).head().await?;
    Ok(head.and_then(|head| head.bookmark).unwrap_or_default())
}

/// Batches of which a record is set aside: what is released is read from raw again.
async fn quarantined(workspace: &Workspace, stream: &StreamName) -> Result<BTreeSet<BatchNumber>> {
    let failed = |source| sql_error("find quarantined records", source);
    let rows = workspace.session()?.quarantine_of(stream).await?;
    let number = cast(col("_lf_batch"), arrow::datatypes::DataType::Int64).alias("batch");
    let batches = rows
        .select(vec![number])
        .and_then(|rows| rows.distinct())
        .map_err(failed)?
        .collect()
        .await
        .map_err(failed)?;
    let mut numbers = BTreeSet::new();
    for batch in batches {
        let column = batch.column(0).as_primitive::<Int64Type>();
        for row in (0..column.len()).filter(|row| column.is_valid(*row)) {
            numbers.insert(BatchNumber::new(column.value(row))?);
        }
    }
    Ok(numbers)
}

/// The raw log of `stream`.
pub(super) fn log(workspace: &Workspace, stream: &StreamName) -> RawLog {
    RawLog {
        store: Arc::clone(&workspace.store),
        stream: stream.clone(),
    }
}
