//! Contracts that take new fields, and wider types, by themselves.

use std::{ops::RangeInclusive, path::Path};

use tracing::{info, warn};

use super::{propose::file, records_of, sample, wrong};
use crate::{
    config::{OnMismatch, OnUnknown, Stream, flatten::Flatten},
    contract::{
        Contract,
        drift::{Change, ChangeKind},
        infer,
        patch::{Extent, Patch, Request, patch},
        policy::Policy,
    },
    error::Result,
    ops::Workspace,
    raw::{BatchNumber, log::RawLog},
};

/// Changes named in the log that a contract did not take: members of a map may be without end.
const LEFT_TOLD_MAX: usize = 20;

/// What becomes part of a contract without anybody being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// New fields become columns.
    pub columns: bool,
    /// Columns get a type that holds what came besides what was there.
    pub types: bool,
}

impl Growth {
    /// By the policies of `stream`. A draft grows where they are the default.
    pub fn of(stream: &Stream, contract: &Contract) -> Self {
        let is_draft = contract.status == "draft";
        Self {
            columns: match stream.drift.on_unknown {
                OnUnknown::Evolve => true,
                OnUnknown::Rescue => is_draft,
                OnUnknown::Ignore | OnUnknown::Quarantine => false,
            },
            types: match stream.drift.on_mismatch {
                OnMismatch::Evolve => true,
                OnMismatch::Quarantine => is_draft,
                OnMismatch::Rescue | OnMismatch::Fail => false,
            },
        }
    }

    /// Whether anything does.
    pub fn is_possible(self) -> bool {
        self.columns || self.types
    }

    /// Whether a contract that grew can have taken such drift.
    pub fn takes(self, kind: ChangeKind) -> bool {
        match kind {
            ChangeKind::Unknown => self.columns,
            ChangeKind::TypeChanged | ChangeKind::OutOfRange => self.types,
            _ => false,
        }
    }
}

/// A contract that takes those of `changes` that `growth` lets in, types by the records of `range`: a column for each
/// unknown field, a wider type for each column whose values fit no more. `None` if there is nothing to take.
///
/// Keys, the columns that order versions and those that the table is partitioned by keep their type.
///
/// # Errors
/// [`ErrorKind::Config`](crate::error::ErrorKind::Config) if the file cannot be read,
/// [`ErrorKind::Unavailable`](crate::error::ErrorKind::Unavailable) if raw cannot.
pub async fn evolved(
    workspace: &Workspace,
    stream: &Stream,
    log: &RawLog,
    range: RangeInclusive<BatchNumber>,
    changes: &[Change],
    growth: Growth,
) -> Result<Option<Patch>> {
    if !changes.iter().any(|change| growth.takes(change.kind)) {
        return Ok(None);
    }
    let (text, contract) = file(&stream.contract)?;
    // What says itself what becomes of its drift does not grow.
    let is_free = |change: &Change| {
        let own = Policy::at(&contract, &change.path);
        match change.kind {
            ChangeKind::Unknown => own.on_unknown.is_none(),
            _ => own.on_mismatch.is_none(),
        }
    };
    let taken = changes.iter().filter(|change| growth.takes(change.kind));
    let changes: Vec<Change> = taken.filter(|change| is_free(change)).cloned().collect();
    if changes.is_empty() {
        return Ok(None);
    }
    let sample = sample(workspace, stream, log, range).await?;
    let name = stream.name.to_string();
    let sampled = infer::draft(&name, &[], &Flatten::None, records_of(&sample));
    let table = &stream.table;
    let fixed = [&table.keys, &table.sequence_by, &table.partition_by];
    let keys: Vec<String> = fixed.into_iter().flatten().cloned().collect();
    let request = Request {
        text: &text,
        file: &stream.contract.display().to_string(),
        changes: &changes,
        keys: &keys,
        sample: sampled.as_ref().map(|(_, observed)| observed),
        extent: Extent::Partly,
        flatten: &table.flatten,
    };
    let patch = patch(request).map_err(|problems| wrong(&stream.contract, &problems))?;
    for left in patch.left.iter().take(LEFT_TOLD_MAX) {
        warn!(
            stream = name,
            change = left.kind.as_str(),
            path = left.path,
            why = left.why,
            "contract does not take it"
        );
    }
    if patch.left.len() > LEFT_TOLD_MAX {
        let more = patch.left.len() - LEFT_TOLD_MAX;
        warn!(stream = name, more, "contract does not take more changes");
    }
    Ok(Some(patch).filter(|patch| !patch.differences.is_empty()))
}

/// Writes the new version of the file. False if it cannot be written.
///
/// That is no reason not to load: what is new goes the way of all that the contract does not say, and the log says so.
pub fn keep(path: &Path, patch: &Patch) -> bool {
    let path_text = path.display();
    if let Err(error) = super::replace(path, &patch.text) {
        warn!(path = %path_text, error = error.chain(), "contract cannot evolve: its file cannot be written");
        return false;
    }
    info!(path = %path_text, changes = patch.differences.len(), version = patch.contract.version, "contract evolved");
    true
}
