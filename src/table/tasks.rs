//! Pieces of work on a table side by side.

use std::future::Future;

use futures::{Stream, StreamExt as _, stream};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle, JoinSet},
};

use crate::error::{Error, ErrorKind, Result};

/// Runs `pieces`, `limit` of them at once, each on a thread of its own if there is one; results in the order of `pieces`.
///
/// The first failure ends all others.
pub(super) async fn side_by_side<F, R>(pieces: impl IntoIterator<Item = F>, limit: usize) -> Result<Vec<R>>
where
    F: Future<Output = Result<R>> + Send + 'static,
    R: Send + 'static,
{
    let mut running = JoinSet::new();
    let mut done: Vec<Option<R>> = Vec::new();
    let mut pieces = pieces.into_iter().enumerate();
    loop {
        while running.len() < limit
            && let Some((number, piece)) = pieces.next()
        {
            done.push(None);
            running.spawn(async move { (number, piece.await) });
        }
        let Some(ended) = running.join_next().await else {
            break;
        };
        let (number, result) = ended.map_err(died)?;
        done[number] = Some(result?);
    }
    Ok(done.into_iter().flatten().collect())
}

/// The items of `items`, of which up to `depth` are made before they are asked for.
pub(super) fn ahead<T: Send + 'static>(
    items: impl Stream<Item = Result<T>> + Send + 'static,
    depth: usize,
) -> impl Stream<Item = Result<T>> + Send {
    let (sender, receiver) = mpsc::channel(depth);
    let maker = tokio::spawn(async move {
        let mut items = std::pin::pin!(items);
        while let Some(item) = items.next().await {
            // Nobody asks any more.
            if sender.send(item).await.is_err() {
                return;
            }
        }
    });
    stream::unfold(Some((receiver, maker)), next)
}

type Made<T> = (mpsc::Receiver<Result<T>>, JoinHandle<()>);

async fn next<T>(made: Option<Made<T>>) -> Option<(Result<T>, Option<Made<T>>)> {
    let (mut receiver, maker) = made?;
    if let Some(item) = receiver.recv().await {
        return Some((item, Some((receiver, maker))));
    }
    // The end, unless whoever makes them died on the way.
    maker.await.err().map(|source| (Err(died(source)), None))
}

fn died(source: JoinError) -> Error {
    Error::new(ErrorKind::Internal, "work on a table").caused_by(source)
}
