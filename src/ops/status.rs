//! `landfall status`: how far every stream is.

use std::sync::Arc;

use futures::{StreamExt as _, stream};

use crate::{
    config::StreamName,
    error::Result,
    ops::Workspace,
    raw::{layout, log::RawLog},
    report::status::{Landed, Loads, StreamStatus, loads},
    table::AppId,
};

/// Streams looked at at the same time.
const STREAMS_AT_ONCE: usize = 16;

/// How far `streams` are, in their order. A stream that cannot be read says so itself.
///
/// # Errors
/// Those of reading the load history.
pub async fn status(workspace: &Workspace, streams: &[StreamName]) -> Result<Vec<StreamStatus>> {
    let mut history = loads(&workspace.session()?).await?;
    let looks = streams.iter().map(|name| async move {
        let mut status = StreamStatus {
            stream: name.clone(),
            landed: None,
            loaded: None,
            loads: None,
            error: None,
        };
        if let Err(error) = look(workspace, &mut status).await {
            status.error = Some(error.chain());
        }
        status
    });
    let mut statuses: Vec<StreamStatus> = stream::iter(looks).buffered(STREAMS_AT_ONCE).collect().await;
    for status in &mut statuses {
        status.loads = take(&mut history, &status.stream.to_string());
    }
    Ok(statuses)
}

async fn look(workspace: &Workspace, status: &mut StreamStatus) -> Result<()> {
    let log = RawLog {
        store: Arc::clone(&workspace.store),
        stream: status.stream.clone(),
    };
    status.landed = log.head().await?.map(|head| {
        let bookmark = head.bookmark.unwrap_or_default();
        Landed {
            batch: head.number.get(),
            at: head.committed_at,
            cursor: bookmark.watermark,
            pages_open: bookmark.window.map(|window| window.pages),
        }
    });
    if let Some(table) = workspace.tables.open(&layout::table(&status.stream)).await? {
        let app = AppId::new(&status.stream, AppId::GENERATION);
        status.loaded = table.watermark(&app).await?.map(|batch| batch.get());
    }
    Ok(())
}

fn take(history: &mut Vec<Loads>, stream: &str) -> Option<Loads> {
    let at = history.iter().position(|loads| loads.stream == stream)?;
    Some(history.swap_remove(at))
}
