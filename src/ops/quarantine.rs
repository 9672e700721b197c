//! `landfall quarantine list` and `show`: what was set aside, without what a contract classifies.

use crate::{
    config::StreamName,
    contract::{classified::Classified, sample::MASK},
    error::Result,
    ops::{Workspace, contract, explain},
    report::{
        evidence::{Explained, Position},
        quarantine::{Reason, reasons},
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
            // A record whose text was cut is not JSON any more.
            reason.record = reason.record.take().map(|record| {
                classified
                    .mask(record.as_bytes())
                    .unwrap_or_else(|| MASK.to_owned())
            });
        }
    }
    Ok(reasons)
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
