//! The watermark of a stream that was read whole so far and is incremental from now on.

use futures::TryStreamExt as _;
use std::sync::Arc;
use tracing::info;

use crate::{
    clock::Timestamp,
    config::{Stream, incremental::CursorFormat},
    error::Result,
    extract::{cursor, reading},
    ops::Workspace,
    raw::{
        BatchNumber, Bookmark,
        log::RawLog,
        read::{PageRead, read_object},
    },
};

/// Takes the greatest cursor of the last complete pass for the watermark, if the stream has none and made one.
///
/// Nothing later than the first page of that pass: what changed while it ran is asked for again. Read from raw, so the
/// API is not asked once more for what is there.
///
/// # Errors
/// Whatever the store says about the raw log.
pub(super) async fn adopt(workspace: &Workspace, stream: &Stream, bookmark: &mut Bookmark) -> Result<()> {
    let Some(incremental) = &stream.incremental else {
        return Ok(());
    };
    let made_one = bookmark.watermark.is_none() && bookmark.last_success_at.is_some();
    let idle = bookmark.window.is_none() && bookmark.pass.is_none();
    if !made_one || !idle || stream.slices.is_some() || incremental.format == CursorFormat::Feed {
        return Ok(());
    }
    let log = RawLog {
        store: Arc::clone(&workspace.store),
        stream: stream.name.clone(),
    };
    let Some(head) = log.head().await? else {
        return Ok(());
    };
    let first = log.last_pass(&head).await?.unwrap_or(BatchNumber::FIRST);
    let mut greatest = None;
    let mut began: Option<Timestamp> = None;
    let mut entries = log.entries(first..=head.number);
    while let Some(entry) = entries.try_next().await? {
        for object in 0..entry.objects.len() {
            for page in read_object(workspace.store.as_ref(), &entry, object).await? {
                let PageRead::Page(page) = page else { continue };
                let now = workspace.clock.now();
                let fetched_at = page.facts.as_ref().map(|facts| facts.fetched_at);
                began = began.or(fetched_at);
                // What cannot be read has no cursor; the transform reports it.
                let part = page.facts.as_ref().and_then(|facts| facts.part.as_ref());
                if let Ok(reading) = reading::read_page(stream, &page.body, part, now) {
                    greatest = greatest.max(reading.cursor_max);
                }
            }
        }
    }
    let cap = began.and_then(|began| cursor::cap(&incremental.format, began));
    let Some(rank) = greatest.map(|rank| cap.map_or(rank, |cap| rank.min(cap))) else {
        return Ok(());
    };
    let watermark = cursor::canonical(&incremental.format, rank);
    info!(stream = %stream.name, watermark, "watermark taken from the last complete pass");
    bookmark.watermark = Some(watermark);
    bookmark.cursor = Some(cursor::identity(incremental));
    Ok(())
}
