//! `landfall status`: how far every stream is.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};

use crate::{
    clock::Timestamp,
    config::{Stream, StreamName},
    contract::service::ServiceLevels,
    error::Result,
    ops::{
        Workspace,
        contract::service_levels,
        extract::hydrate::{behind, newest},
        heard::Ear,
    },
    raw::{BatchNumber, layout, log::RawLog},
    report::status::{Events, Landed, Loads, StreamStatus, Times, loads},
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
            fresh: None,
            times: Times::default(),
            events: None,
            gap: None,
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
    let (source, stream) = workspace.project.stream(&status.stream)?;
    let head = log.head().await?;
    let standing = head
        .as_ref()
        .and_then(|head| head.bookmark.clone())
        .unwrap_or_default();
    let missing = Ear::default()
        .listen(workspace, source, stream, &standing)
        .await?;
    status.gap = missing.map(|missing| missing.to_string());
    if let Some(hydrate) = &stream.hydrate {
        let hydration = standing.hydration.unwrap_or_default();
        let newest = newest(workspace, source, hydrate).await?;
        let events = hydrate.from().as_str();
        status.events = Some(Events {
            batches_behind: newest.map_or(0, |last| behind(&hydration, events, last)),
            waiting: hydration.waiting().count(),
            dead_letters: hydration.dead.len(),
        });
    }
    status.landed = head.map(|head| {
        let bookmark = head.bookmark.unwrap_or_default();
        Landed {
            batch: head.number.get(),
            at: head.committed_at,
            cursor: bookmark.watermark,
            pages_open: bookmark.window.map(|window| window.pages),
            last_success_at: bookmark.last_success_at,
        }
    });
    let last = status.landed.as_ref().and_then(|landed| landed.last_success_at);
    status.fresh = stream
        .fresh_within
        .map(|within| last.is_some_and(|at| age(at, workspace.clock.now()) <= within));
    let app = AppId::new(&status.stream, AppId::GENERATION);
    let table = layout::table(&status.stream);
    let loaded = workspace.tables.watermark(&table, &app).await?;
    status.loaded = loaded.map(|batch| batch.get());
    status.times = times(&log, status, loaded, stream, workspace.clock.now()).await?;
    Ok(())
}

/// How old the table is, how long it keeps what is landed waiting, and what the contract promises of both.
async fn times(
    log: &RawLog,
    status: &StreamStatus,
    loaded: Option<BatchNumber>,
    stream: &Stream,
    now: Timestamp,
) -> Result<Times> {
    let Some(landed) = &status.landed else {
        return Ok(Times::default());
    };
    let is_whole = status.lag() <= 0;
    let fresh_at = match loaded {
        // Nothing newer was there to be had.
        Some(_) if is_whole => Some(landed.last_success_at.map_or(landed.at, |at| at.max(landed.at))),
        Some(batch) => log.entry(batch).await?.map(|entry| entry.committed_at),
        None => None,
    };
    let waiting = match is_whole {
        true => None,
        false => {
            let next = loaded.map_or(BatchNumber::FIRST, BatchNumber::next);
            log.entry(next).await?.map(|entry| entry.committed_at)
        }
    };
    let ServiceLevels { freshness, latency } = service_levels(&stream.contract);
    Ok(Times {
        freshness: fresh_at.map(|at| age(at, now)),
        freshness_max: freshness,
        latency: waiting.map_or(Duration::ZERO, |at| age(at, now)),
        latency_max: latency,
    })
}

/// How long ago `at` was; nothing for what is still to come.
pub(super) fn age(at: Timestamp, now: Timestamp) -> Duration {
    (now - at).to_std().unwrap_or(Duration::ZERO)
}

fn take(history: &mut Vec<Loads>, stream: &str) -> Option<Loads> {
    let at = history.iter().position(|loads| loads.stream == stream)?;
    Some(history.swap_remove(at))
}
