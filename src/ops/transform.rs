//! `landfall transform`: from raw batches to tables. Needs no network but the lake's.

mod drift;
pub(super) mod load;
mod misfits;
mod pass;
pub mod target;
mod widen;

use std::{path::PathBuf, sync::Arc};

use futures::future::join_all;
use tokio::{sync::Mutex, task::JoinSet};
use tracing::warn;

use crate::{
    config::{Stream, StreamName},
    contract::contracts::Contracts,
    error::{Error, ErrorKind, Result},
    ops::{Workspace, children, contract, landings::Landings, lineage},
    raw::{BatchNumber, layout, log::RawLog},
    table::{AppId, children::Follow, system::LoadRow},
};

use self::{
    load::{Loader, load_bytes},
    target::Target,
};

/// What the loads of one run did to a table. `read = merged + superseded + quarantined`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transformed {
    /// Loads committed.
    pub loads: u64,
    /// Records read.
    pub read: u64,
    /// Records that are in the table.
    pub merged: u64,
    /// Records that lost against a newer version.
    pub superseded: u64,
    /// Records set aside.
    pub quarantined: u64,
    /// Records that are deletions.
    pub deleted: u64,
    /// Records with values in `_rescued`.
    pub rescued: u64,
    /// What the last complete pass among them found.
    pub pass: Option<PassFound>,
    /// Changes against the contract that were observed.
    pub changes: u64,
    /// Where a contract was drafted, if there was none.
    pub drafted: Option<PathBuf>,
}

/// How a complete pass differs from the table it meets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassFound {
    /// Rows that the table did not have.
    pub missing: u64,
    /// Rows that the table had with another sequence.
    pub changed: u64,
    /// Rows that the pass did not bring and that are deleted.
    pub absent: u64,
    /// Rows that the pass did not bring and that stay: they are more than may go at once, or nobody knows.
    pub held: u64,
    /// Rows of the table before it that were not deleted.
    pub live: u64,
}

/// How one stream's transform ended.
#[derive(Debug)]
pub struct Outcome {
    /// The stream.
    pub stream: StreamName,
    /// What was loaded, or why it stopped. Loads committed before an error stay committed.
    pub result: Result<Transformed>,
}

/// Brings the tables of `streams` up to the heads of their raw logs, one stream after the other.
///
/// A stream without raw batches is left alone. One failing does not hold the others.
pub async fn transform(workspace: &Workspace, streams: &[StreamName]) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(streams.len());
    for name in streams {
        outcomes.push(Outcome {
            stream: name.clone(),
            result: lineage::told(workspace, name, async {
                Loading::of(workspace, name)?.end().await
            })
            .await,
        });
    }
    outcomes
}

/// As [`transform`], while the extractions that `landings` tells of are under way: a stream is loaded whenever as much was
/// landed as one load takes, and the rest once its extraction is over. The loads are those that [`transform`] would make.
pub async fn follow(workspace: &Workspace, streams: &[StreamName], landings: &Arc<Landings>) -> Vec<Outcome> {
    // One load at a time has the memory.
    let turn = Arc::new(Mutex::new(()));
    let followed = streams.iter().map(|name| {
        // A task, because a load computes and must not keep the extraction from its answers. Cut off, it ends with this.
        let mut task = JoinSet::new();
        let (project, stream) = (workspace.clone(), name.clone());
        let (landings, turn) = (Arc::clone(landings), Arc::clone(&turn));
        task.spawn(async move { load_while_landed(&project, &stream, &landings, &turn).await });
        let ended = async move {
            let torn = || Error::new(ErrorKind::Internal, "load what was landed");
            let ended = task.join_next().await.ok_or_else(torn)?;
            ended.map_err(|cause| torn().caused_by(cause))?
        };
        async move {
            Outcome {
                stream: name.clone(),
                result: lineage::told(workspace, name, ended).await,
            }
        }
    });
    join_all(followed).await
}

async fn load_while_landed(
    workspace: &Workspace,
    name: &StreamName,
    landings: &Landings,
    turn: &Mutex<()>,
) -> Result<Transformed> {
    let mut loading = Loading::of(workspace, name)?;
    if let Some(mut watched) = landings.watch(name) {
        // Half of what a load may take is enough to begin: what lands meanwhile makes the next one whole where the table is
        // the slower side, and where it is not, this core would have nothing to do.
        let enough = load_bytes(workspace) / 2;
        let mut wanted = enough;
        // Ends with the extraction.
        while let Ok(landed) = watched
            .wait_for(move |landed| landed.over || landed.bytes >= wanted)
            .await
            .map(|landed| *landed)
        {
            if landed.over {
                break;
            }
            wanted = landed.bytes + enough;
            let mine = turn.lock().await;
            let loaded = loading.advance(Amount::Whole).await;
            drop(mine);
            if let Err(error) = loaded {
                warn!(stream = %name, error = error.chain(), "loads wait for the end of the extraction");
                let _ = watched.wait_for(|landed| landed.over).await;
                break;
            }
        }
    }
    let _turn = turn.lock().await;
    loading.end().await
}

/// What the next load of `stream` would do. Nothing becomes visible, and nothing of it stays.
///
/// # Errors
/// As a load, and [`ErrorKind::Refused`] if the stream has no contract or no table yet.
pub async fn preview(workspace: &Workspace, stream: &StreamName) -> Result<Transformed> {
    let name = stream;
    let (_, stream) = workspace.project.stream(name)?;
    let log = raw_log(workspace, name);
    let missing = |what: &str| {
        Error::new(ErrorKind::Refused, "preview load")
            .with("stream", name)
            .with("problem", format!("there is no {what} yet"))
            .with(
                "hint",
                "run transform once; a table begins with everything raw holds",
            )
    };
    let contracts = contract::read_all(stream)?.ok_or_else(|| missing("contract"))?;
    if workspace.tables.open(&layout::table(name)).await?.is_none() {
        return Err(missing("table"));
    }
    let mut done = Transformed::default();
    let Some(head) = log.head().await? else {
        return Ok(done);
    };
    let mut loader = Loader::open(workspace, stream, log, contracts, Target::live(name)).await?;
    if let Some(range) = loader.next_range(head.number).await? {
        loader.preview(range, &mut done).await?;
    }
    Ok(done)
}

pub(super) fn raw_log(workspace: &Workspace, stream: &StreamName) -> RawLog {
    RawLog {
        store: Arc::clone(&workspace.store),
        stream: stream.clone(),
    }
}

/// How much is loaded of what is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Amount {
    /// All of it.
    All,
    /// Loads that would not take more if there were more.
    Whole,
}

/// The loads of one stream in one run.
struct Loading<'a> {
    workspace: &'a Workspace,
    stream: &'a Stream,
    /// None before the first batch.
    loader: Option<Loader<'a>>,
    done: Transformed,
}

impl<'a> Loading<'a> {
    fn of(workspace: &'a Workspace, name: &StreamName) -> Result<Self> {
        let (_, stream) = workspace.project.stream(name)?;
        Ok(Self {
            workspace,
            stream,
            loader: None,
            done: Transformed::default(),
        })
    }

    /// Loads what is pending at this moment.
    async fn advance(&mut self, amount: Amount) -> Result<()> {
        let log = raw_log(self.workspace, &self.stream.name);
        let Some(head) = log.head().await? else {
            return self.refuse_lost_raw().await;
        };
        // Anew each time: meanwhile the contract, or the table, may have become another.
        self.loader = self.open(log, head.number).await?;
        let Some(loader) = &mut self.loader else {
            return Ok(());
        };
        // Ends at the head seen above: each load moves the watermark by at least one batch.
        while let Some(range) = loader.next_range(head.number).await? {
            if amount == Amount::Whole && !loader.is_whole(&range, head.number) {
                break;
            }
            loader.load(range, &mut self.done).await?;
        }
        Ok(())
    }

    /// Loads all that is left; the child tables come last.
    async fn end(mut self) -> Result<Transformed> {
        let loaded = self.advance(Amount::All).await;
        if self.loader.is_none() {
            return loaded.map(|()| self.done);
        }
        // Also of the loads before one that failed.
        let followed = Box::pin(children::follow(self.workspace, self.stream, Follow::Changes)).await;
        loaded.and(followed).map(|()| self.done)
    }

    /// A table must not hold batches that raw does not.
    async fn refuse_lost_raw(&self) -> Result<()> {
        let name = &self.stream.name;
        let table = self.workspace.tables.open(&layout::table(name)).await?;
        let app = AppId::new(name, AppId::GENERATION);
        if let Some(table) = table
            && let Some(mark) = table.watermark(&app).await?
        {
            return Err(load::raw_lost(name, mark, "nothing"));
        }
        Ok(())
    }

    /// A loader with the contract in force, or with one that is drafted from raw; none if there are no records to draft from.
    async fn open(&mut self, log: RawLog, head: BatchNumber) -> Result<Option<Loader<'a>>> {
        let (workspace, stream) = (self.workspace, self.stream);
        let pinned = match contract::read(&stream.contract)? {
            Some(contract) => contract,
            None => {
                let drafted = contract::draft(workspace, stream, &log, head).await?;
                let Some(contract) = drafted else { return Ok(None) };
                self.done.drafted = Some(stream.contract.clone());
                contract
            }
        };
        let contracts = contract::contracts(stream, pinned)?;
        for (version, notice) in contract::notices(&contracts, workspace.clock.now())? {
            warn!(stream = %stream.name, version, "contract {notice}");
        }
        Box::pin(contract::registry::register(workspace, stream, &contracts)).await?;
        let loader = Loader::open(workspace, stream, log, contracts, Target::live(&stream.name));
        loader.await.map(Some)
    }
}

/// Loads the raw batches up to `until` that `target` does not have yet, and calls `progress` with the last of each load.
///
/// # Errors
/// As a load of the live table.
pub(super) async fn load_until(
    workspace: &Workspace,
    stream: &Stream,
    contracts: &Contracts,
    target: &Target,
    until: BatchNumber,
    progress: &(dyn Fn(BatchNumber) + Sync),
) -> Result<Transformed> {
    let log = raw_log(workspace, &stream.name);
    let mut done = Transformed::default();
    let mut loader = Loader::open(workspace, stream, log, contracts.clone(), target.clone()).await?;
    // Ends at `until`: each load moves the watermark by at least one batch.
    while let Some(range) = loader.next_range(until).await? {
        let last = range.last().map(|entry| entry.number);
        loader.load(range, &mut done).await?;
        last.into_iter().for_each(progress);
    }
    Ok(done)
}

impl Transformed {
    fn add(&mut self, row: &LoadRow, changes: u64) {
        self.loads += 1;
        self.read += row.read;
        self.merged += row.merged;
        self.superseded += row.superseded;
        self.quarantined += row.quarantined;
        self.deleted += row.deleted;
        self.rescued += row.rescued;
        self.changes += changes;
    }
}
