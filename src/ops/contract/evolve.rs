//! Contracts that take new fields by themselves.

use std::ops::RangeInclusive;

use tracing::{info, warn};

use super::{propose::file, records_of, sample, wrong};
use crate::{
    config::{OnUnknown, Stream},
    contract::{
        Contract,
        drift::{Change, ChangeKind},
        infer,
        patch::{Extent, Request, patch},
    },
    error::Result,
    ops::Workspace,
    raw::{BatchNumber, log::RawLog},
};

/// Whether new fields of `stream` become columns without anybody being asked: by its policy, or while its contract is a draft.
pub fn evolves(stream: &Stream, contract: &Contract) -> bool {
    match stream.drift.on_unknown {
        OnUnknown::Evolve => true,
        OnUnknown::Rescue => contract.status == "draft",
        OnUnknown::Ignore | OnUnknown::Quarantine => false,
    }
}

/// Adds a column for each field that `changes` found unknown, its type from the records of `range`, and writes the new
/// version of the file. `None` if there is nothing to add.
///
/// A file that cannot be written is no reason not to load: the fields are kept in `_rescued` then, and the log says so.
///
/// # Errors
/// [`ErrorKind::Config`](crate::error::ErrorKind::Config) if the file cannot be read,
/// [`ErrorKind::Unavailable`](crate::error::ErrorKind::Unavailable) if raw cannot.
pub async fn evolve(
    workspace: &Workspace,
    stream: &Stream,
    log: &RawLog,
    range: RangeInclusive<BatchNumber>,
    changes: &[Change],
) -> Result<Option<Contract>> {
    let unknown: Vec<Change> = changes
        .iter()
        .filter(|change| change.kind == ChangeKind::Unknown)
        .cloned()
        .collect();
    if unknown.is_empty() {
        return Ok(None);
    }
    let (text, _) = file(&stream.contract)?;
    let sample = sample(workspace, stream, log, range).await?;
    let name = stream.name.to_string();
    let sampled = infer::draft(&name, &[], records_of(&sample));
    let request = Request {
        text: &text,
        file: &stream.contract.display().to_string(),
        changes: &unknown,
        keys: &[],
        sample: sampled.as_ref().map(|(_, observed)| observed),
        extent: Extent::Lossless,
    };
    let patch = patch(request).map_err(|problems| wrong(&stream.contract, &problems))?;
    for left in &patch.left {
        warn!(
            stream = name,
            path = left.path,
            why = left.why,
            "new field stays in _rescued"
        );
    }
    if patch.differences.is_empty() {
        return Ok(None);
    }
    if let Err(error) = super::replace(&stream.contract, &patch.text) {
        warn!(
            stream = name,
            error = error.chain(),
            "new fields stay in _rescued: their columns cannot be added"
        );
        return Ok(None);
    }
    info!(
        stream = name,
        columns = patch.differences.len(),
        version = patch.contract.version,
        "contract evolved"
    );
    Ok(Some(patch.contract))
}
