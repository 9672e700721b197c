//! `landfall transform`: from raw batches to tables. Needs no network but the lake's.

mod load;

use std::{path::PathBuf, sync::Arc};

use crate::{
    config::StreamName,
    error::Result,
    ops::{Workspace, contract},
    raw::{
        layout::{self, SystemTable},
        log::RawLog,
    },
    table::{AppId, side::Side, system::LoadRow},
};

use self::load::Loader;

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
    /// Changes against the contract that were observed.
    pub changes: u64,
    /// Where a contract was drafted, if there was none.
    pub drafted: Option<PathBuf>,
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
            result: transform_stream(workspace, name).await,
        });
    }
    outcomes
}

async fn transform_stream(workspace: &Workspace, name: &StreamName) -> Result<Transformed> {
    let (_, stream) = workspace.project.stream(name)?;
    let log = RawLog {
        store: Arc::clone(&workspace.store),
        stream: name.clone(),
    };
    let mut done = Transformed::default();
    let Some(head) = log.head().await? else {
        let table = workspace.tables.open(&layout::table(name)).await?;
        let app = AppId::new(name, AppId::GENERATION);
        if let Some(table) = table
            && let Some(mark) = table.watermark(&app).await?
        {
            return Err(load::raw_lost(name, mark, "nothing"));
        }
        return Ok(done);
    };
    let pinned = match contract::read(&stream.contract)? {
        Some(contract) => contract,
        None => {
            let drafted = contract::draft(workspace, stream, &log, head.number).await?;
            let Some(contract) = drafted else { return Ok(done) };
            done.drafted = Some(stream.contract.clone());
            contract
        }
    };
    let mut loader = Loader::open(workspace, stream, log, pinned).await?;
    // Ends at the head seen above: each load moves the watermark by at least one batch.
    while let Some(range) = loader.next_range(head.number).await? {
        loader.load(range, &mut done).await?;
    }
    Ok(done)
}

/// The quarantine table of `stream`.
pub fn quarantine_side(stream: &StreamName) -> Side {
    Side {
        path: layout::quarantine(stream),
        shared: false,
    }
}

/// The drift table of all streams.
pub fn drift_side() -> Side {
    Side {
        path: layout::system(SystemTable::Drift),
        shared: true,
    }
}

/// The load history of all streams.
pub fn loads_side() -> Side {
    Side {
        path: layout::system(SystemTable::Loads),
        shared: true,
    }
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
