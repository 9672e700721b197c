//! `landfall quarantine list` and `show`: what was set aside, without what a contract classifies.

use crate::{
    clock::Timestamp,
    config::StreamName,
    contract::{classified::Classified, sample::MASK},
    error::Result,
    ops::{Workspace, contract, explain},
    report::{
        evidence::{Explained, Position},
        quarantine::{
            Reason,
            kinds::{self, Kind},
            reasons,
        },
    },
};

/// Whether values of classified columns are masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// They are.
    Yes,
    /// Whoever asks may see them.
    No,
}

/// The reasons of what is in the quarantine of `streams`, at most `rows_max`, each with one sample.
///
/// # Errors
/// Those of reading the lake and the contracts.
pub async fn list(
    workspace: &Workspace,
    streams: &[StreamName],
    rows_max: u32,
    mask: Mask,
) -> Result<Vec<Reason>> {
    let mut reasons = reasons(&workspace.session()?, streams, rows_max).await?;
    for stream in streams.iter().filter(|_| mask == Mask::Yes) {
        let classified = classified(workspace, stream)?;
        let name = stream.to_string();
        for reason in reasons.iter_mut().filter(|reason| reason.stream == name) {
            if classified.covers(&reason.place) && !reason.found.is_empty() {
                MASK.clone_into(&mut reason.found);
            }
            reason.record = reason.record.take().map(|record| masked(&classified, &record));
        }
    }
    Ok(reasons)
}

/// The kinds of trouble in the quarantine of `stream` that were seen at `since` or later, the last seen at the end, without
/// records. What the contract classifies is masked.
///
/// # Errors
/// Those of reading the lake and the contracts.
pub async fn kinds(
    workspace: &Workspace,
    stream: &StreamName,
    since: Option<Timestamp>,
) -> Result<Vec<Kind>> {
    let classified = classified(workspace, stream)?;
    let mut kinds = kinds::kinds(&workspace.session()?, stream, since).await?;
    for kind in &mut kinds {
        if classified.covers(&kind.place) && !kind.found.is_empty() {
            MASK.clone_into(&mut kind.found);
        }
    }
    Ok(kinds)
}

/// Fills in the sample of each of `kinds`. What the contract classifies is masked.
///
/// # Errors
/// As [`kinds`].
pub async fn read_samples(workspace: &Workspace, stream: &StreamName, kinds: &mut [Kind]) -> Result<()> {
    let classified = classified(workspace, stream)?;
    kinds::read_samples(&workspace.session()?, stream, kinds).await?;
    for record in kinds.iter_mut().filter_map(|kind| kind.record.as_mut()) {
        *record = masked(&classified, record);
    }
    Ok(())
}

/// A record with what is classified in it masked. One whose text was cut is not JSON any more.
fn masked(classified: &Classified, record: &str) -> String {
    classified
        .mask(record.as_bytes())
        .unwrap_or_else(|| MASK.to_owned())
}

/// The record of `stream` that was set aside at `position`, `None` if none was.
///
/// # Errors
/// Those of reading the lake and the contract.
pub async fn show(
    workspace: &Workspace,
    stream: &StreamName,
    position: Position,
    mask: Mask,
) -> Result<Option<Explained>> {
    let classified = match mask {
        Mask::Yes => classified(workspace, stream)?,
        Mask::No => Classified::default(),
    };
    explain::set_aside(workspace, stream, position, &classified).await
}

/// What the contracts of today classify; nothing if there is none.
fn classified(workspace: &Workspace, stream: &StreamName) -> Result<Classified> {
    let (_, settings) = workspace.project.stream(stream)?;
    let contracts = contract::read_all(settings)?;
    Ok(contracts.map(|all| all.classified()).unwrap_or_default())
}
