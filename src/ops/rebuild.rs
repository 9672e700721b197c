//! `landfall rebuild`: a table made from raw once more, beside the live one or in its place.
//!
//! ```text
//! raw log ─ stage ─► staging/<source>/<stream>/<id> ─ review (against live) ─► promote ─► live table, one commit
//! ```

pub mod live;
mod promote;
pub mod stage;
pub(super) mod swapping;

use std::sync::Arc;

use object_store::path::Path;

use self::{
    live::{Live, live},
    stage::{Begin, Staged, Wanted},
};
use crate::{
    config::{Stream, StreamName},
    contract::contracts::Contracts,
    error::{Error, ErrorKind, Result},
    failpoint,
    ops::{
        Workspace, children,
        compare::review::{Pair, Review, review},
        contract,
    },
    raw::{BatchNumber, layout, log::RawLog},
    table::children::Follow,
};

/// The name of the staged tables that are to become the live ones.
pub const NEXT: &str = "next";

/// What a rebuild is to do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The number of the last raw batch to go in; `None` for the one that the live table ends with.
    pub at: Option<i64>,
    /// What to do with what was staged before.
    pub begin: Begin,
    /// What to do with the tables once they are staged.
    pub then: Then,
    /// Rows shown of each kind of difference.
    pub limit: usize,
}

/// What becomes of staged tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// They stay beside the live ones.
    Keep,
    /// They take the place of the live ones.
    Promote,
}

/// What came of a rebuild.
#[derive(Debug)]
pub struct Rebuilt {
    /// The stream.
    pub stream: StreamName,
    /// The name of the staged tables.
    pub id: String,
    /// Where the staged main table is, or was.
    pub path: Path,
    /// The last raw batch in it.
    pub until: BatchNumber,
    /// How it differs from the live table; `None` if there is none that can be read.
    pub review: Option<Review>,
    /// Why the live table cannot be read, if so.
    pub unreadable: Option<String>,
    /// How it ended.
    pub end: End,
}

/// How a rebuild ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The staged tables stay beside the live ones.
    Kept,
    /// The live table has the staged rows, as this Delta version.
    Promoted {
        /// The version.
        version: u64,
    },
    /// The live table had the same rows already, and stays as it is.
    Same,
}

/// Makes the table of `name` from raw beside the live one, compares the two, and does with it what `options` says.
///
/// # Errors
/// [`ErrorKind::Refused`] if there is nothing to rebuild from, or if a table that ends before the live one would take its
/// place; else as a load.
pub async fn rebuild(
    workspace: &Workspace,
    name: &StreamName,
    options: Options,
    progress: &(dyn Fn(BatchNumber) + Sync),
) -> Result<Rebuilt> {
    let (_, stream) = workspace.project.stream(name)?;
    let contracts = contracts_of(stream)?;
    let found = live(workspace, name).await?;
    let until = until(workspace, name, options, &found).await?;
    let id = match options.at {
        Some(at) => as_of(at),
        None => NEXT.to_owned(),
    };
    let wanted = Wanted {
        stream,
        contracts: &contracts,
        id: &id,
        until,
        begin: options.begin,
    };
    let staged = stage::stage(workspace, wanted, progress).await?;
    failpoint::point("rebuild::staged");
    match finish(workspace, wanted, staged.clone(), found, options, progress).await {
        // What is missing then is what somebody else has taken away.
        Err(error) if !stage::stands(workspace, &wanted, &staged).await? => {
            Err(stage::removed(name, &id).caused_by(error))
        }
        ended => ended,
    }
}

/// Compares `staged` with the live table `found`, and promotes it if that is wanted.
async fn finish(
    workspace: &Workspace,
    wanted: Wanted<'_>,
    staged: Staged,
    found: Live,
    options: Options,
    progress: &(dyn Fn(BatchNumber) + Sync),
) -> Result<Rebuilt> {
    let (stream, name) = (wanted.stream, &wanted.stream.name);
    let unreadable = match &found {
        Live::Unreadable { error } => Some(error.chain()),
        _ => None,
    };
    let review = match &found {
        Live::Loaded { table, until } => {
            let pair = pair(stream, wanted.contracts, (table, *until), &staged);
            Some(review(workspace, pair, options.limit).await?)
        }
        _ => None,
    };
    let mut rebuilt = Rebuilt {
        stream: name.clone(),
        path: staged.target.table.clone(),
        until: staged.until,
        unreadable,
        end: End::Kept,
        review,
        id: staged.id.clone(),
    };
    if options.then == Then::Promote {
        let is_same = |review: &Review| review.is_equal() && review.changes.is_empty();
        let is_same = rebuilt.review.as_ref().is_some_and(is_same);
        if is_same && !swapping::is_under_way(workspace, name).await? {
            rebuilt.end = End::Same;
        } else {
            let promoted = promote::promote(workspace, wanted, staged, options.limit, progress).await?;
            rebuilt.end = End::Promoted {
                version: promoted.version,
            };
            rebuilt.until = promoted.until;
            rebuilt.review = promoted.review.or(rebuilt.review);
        }
        failpoint::point("rebuild::after_swap");
        children::follow(workspace, stream, Follow::Anew).await?;
        stage::discard(workspace, name, wanted.id).await?;
    }
    Ok(rebuilt)
}

/// Compares the staged tables of `name` named `id` with the live ones.
///
/// # Errors
/// [`ErrorKind::Refused`] if one of the two is not there; else whatever reading them says.
pub async fn diff(workspace: &Workspace, name: &StreamName, id: &str, limit: usize) -> Result<Review> {
    let (_, stream) = workspace.project.stream(name)?;
    let contracts = contracts_of(stream)?;
    let refused = |problem: &str, hint: String| {
        Error::new(ErrorKind::Refused, "compare tables")
            .with("stream", name)
            .with("problem", problem)
            .with("hint", hint)
    };
    let Some(staged) = stage::find(workspace, name, id).await? else {
        return Err(refused(
            &format!("nothing is staged as {id}"),
            format!("`landfall rebuild {name}` stages it"),
        ));
    };
    match live(workspace, name).await? {
        Live::Loaded { table, until } => {
            let pair = pair(stream, &contracts, (&table, until), &staged);
            review(workspace, pair, limit).await
        }
        Live::Unloaded { .. } => Err(refused(
            "there is no live table",
            format!("`landfall rebuild {name} --promote`"),
        )),
        Live::Unreadable { error } => Err(error),
    }
}

/// The name of the staged tables that end with batch `at`.
pub fn as_of(at: i64) -> String {
    format!("at-{at}")
}

/// Removes the staged tables of `name` named `id`.
///
/// # Errors
/// [`ErrorKind::Config`] if it is not a stream of the project; [`ErrorKind::Conflict`] if a promotion of it is under way or
/// has died; else whatever the store says.
pub async fn discard(workspace: &Workspace, name: &StreamName, id: &str) -> Result<()> {
    workspace.project.stream(name)?;
    swapping::refuse(workspace, name, "remove staged tables").await?;
    stage::discard(workspace, name, id).await
}

fn contracts_of(stream: &Stream) -> Result<Contracts> {
    contract::read_all(stream)?.ok_or_else(|| {
        Error::new(ErrorKind::Refused, "rebuild table")
            .with("stream", &stream.name)
            .with("problem", "it has no contract yet")
            .with("hint", format!("`landfall transform {}` drafts one", stream.name))
    })
}

fn pair<'a>(
    stream: &'a Stream,
    contracts: &'a Contracts,
    live: (&'a crate::table::Table, BatchNumber),
    staged: &'a Staged,
) -> Pair<'a> {
    Pair {
        stream,
        contracts,
        live: live.0,
        live_until: live.1,
        rebuilt: &staged.table,
        target: &staged.target,
        rebuilt_until: staged.until,
    }
}

/// The last batch that is replayed.
///
/// A table that is gone is made up to the batch that its load history tells of, so that the two go together; the next
/// transform does the rest.
async fn until(
    workspace: &Workspace,
    name: &StreamName,
    options: Options,
    found: &Live,
) -> Result<BatchNumber> {
    let refused = |problem: String| {
        Error::new(ErrorKind::Refused, "rebuild table")
            .with("stream", name)
            .with("problem", problem)
    };
    let log = RawLog {
        store: Arc::clone(&workspace.store),
        stream: name.clone(),
    };
    let Some(head) = log.head().await? else {
        return Err(refused("nothing was landed yet".to_owned()));
    };
    let Some(at) = options.at else {
        return Ok(match found {
            Live::Loaded { until, .. } => *until,
            Live::Unloaded { told: Some(told) } => (*told).min(head.number),
            Live::Unloaded { told: None } => head.number,
            Live::Unreadable { .. } => live::told(workspace, name)
                .await
                .map_or(head.number, |told| told.min(head.number)),
        });
    };
    let at = BatchNumber::new(at)?;
    if at > head.number {
        return Err(refused(format!("raw ends with batch {}", head.number)));
    }
    match found {
        Live::Loaded { until, .. } if *until > at && options.then == Then::Promote => Err(refused(format!(
            "the live table holds batches up to {until}, and would lose those after {at}"
        ))
        .with("hint", "without --promote it stays beside the live table")),
        _ => Ok(at),
    }
}

/// The folder where the log of a table goes that cannot be read.
fn broken_log(stream: &StreamName) -> Path {
    layout::staging(stream, &format!("broken-log-{}", uuid::Uuid::now_v7()))
}
