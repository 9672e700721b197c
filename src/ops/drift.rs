//! The drift report, and what is said to it.

use std::collections::BTreeSet;

use tracing::warn;

use crate::{
    config::StreamName,
    error::{Error, ErrorKind, Result},
    ops::{
        Workspace,
        contract::{
            self,
            propose::{Reach, propose},
            registry::revisions_of,
        },
    },
    raw::layout::{self, SystemTable},
    report::drift::{Finding, State, StreamDrift, gather, page::Proposal},
    table::{
        acknowledged::{Acknowledged, acknowledged_rows},
        side::Side,
    },
};

/// Changes named in an error.
const NAMED_MAX: usize = 10;

/// The drift of `streams`: everything that is known, whatever its state.
///
/// # Errors
/// Those of the queries.
pub async fn drift(workspace: &Workspace, streams: &[StreamName]) -> Result<Vec<StreamDrift>> {
    let revisions = revisions_of(workspace, streams).await?;
    let mut others = BTreeSet::new();
    for name in streams {
        let (_, stream) = workspace.project.stream(name)?;
        // What cannot be read is told by those who judge with it.
        let contracts = contract::read_all(stream).ok().flatten();
        let older = contracts.into_iter().flat_map(|contracts| contracts.older);
        others.extend(older.map(|older| (name.to_string(), older.contract.version)));
    }
    let changed = |stream: &str, finding: &Finding, contract_now: &str| {
        // What the newest version says is nothing to records that another one judges.
        if others.contains(&(stream.to_owned(), finding.contract_last.clone())) {
            return false;
        }
        revisions
            .get(stream)
            .is_some_and(|all| all.changed(&finding.path, &finding.contract_last, contract_now))
    };
    gather(&workspace.session()?, streams, workspace.clock.now(), &changed).await
}

/// A new version of the contract of each stream that has open changes which a contract can take. Without a contract file that
/// can be read there is none.
///
/// # Errors
/// [`ErrorKind::Unavailable`] if the lake cannot be read.
pub async fn proposals(workspace: &Workspace, found: &[StreamDrift]) -> Result<Vec<Proposal>> {
    let mut proposals = Vec::new();
    let is_wanted = |finding: &Finding| {
        finding.state == State::Open && finding.is_for_contract() && !finding.is_coerced()
    };
    for drift in found.iter().filter(|drift| drift.findings.iter().any(is_wanted)) {
        let stream = StreamName::parse(&drift.stream)?;
        match propose(workspace, &stream, Reach::Lossless).await {
            Ok(proposal) if !proposal.unified.is_empty() => proposals.push(Proposal {
                stream: drift.stream.clone(),
                unified: proposal.unified,
            }),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Config => {
                warn!(%stream, error = error.chain(), "no patch for the contract");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(proposals)
}

/// What is acknowledged.
#[derive(Clone, Debug)]
pub struct AckOptions {
    /// The stream.
    pub stream: StreamName,
    /// Only changes at this path and below it; all if none is named.
    pub path: Option<String>,
    /// Only changes of this kind.
    pub kind: Option<String>,
    /// What to say about them.
    pub note: String,
}

/// Says that changes are known, as they were seen so far. Returns those that were open; acknowledging others again adds
/// nothing.
///
/// # Errors
/// [`ErrorKind::Config`] if no change of the stream is meant.
pub async fn acknowledge(workspace: &Workspace, options: &AckOptions) -> Result<Vec<Finding>> {
    let found = drift(workspace, std::slice::from_ref(&options.stream)).await?;
    let findings: Vec<Finding> = found.into_iter().flat_map(|drift| drift.findings).collect();
    let meant = |finding: &&Finding| {
        options
            .path
            .as_ref()
            .is_none_or(|path| is_at(&finding.path, path))
            && options.kind.as_ref().is_none_or(|kind| finding.kind == *kind)
    };
    if !findings.is_empty() && !findings.iter().any(|finding| meant(&finding)) {
        let known: Vec<String> = findings
            .iter()
            .take(NAMED_MAX)
            .map(|finding| format!("{} ({})", finding.place(), finding.kind))
            .collect();
        return Err(Error::new(ErrorKind::Config, "find change to acknowledge")
            .with("stream", &options.stream)
            .with("path", options.path.as_deref().unwrap_or("any"))
            .with("kind", options.kind.as_deref().unwrap_or("any"))
            .with("known", known.join(", ")));
    }
    let open: Vec<Finding> = findings
        .iter()
        .filter(meant)
        .filter(|finding| finding.state == State::Open)
        .cloned()
        .collect();
    let rows: Vec<Acknowledged> = open
        .iter()
        .map(|finding| Acknowledged {
            stream: options.stream.clone(),
            path: finding.path.clone(),
            kind: finding.kind.clone(),
            nature: finding.nature.iter().cloned().collect(),
            note: options.note.clone(),
        })
        .collect();
    let side = Side {
        path: layout::system(SystemTable::Acknowledged),
        shared: true,
    };
    let rows = acknowledged_rows(&rows, workspace.clock.now())?;
    workspace.tables.append_side(&side, &[rows]).await?;
    Ok(open)
}

/// Whether `path` is `around` or in it.
fn is_at(path: &str, around: &str) -> bool {
    path.strip_prefix(around)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || rest.starts_with('['))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stands_for_what_is_in_it() {
        assert!(is_at("lines[].price", "lines"));
        assert!(is_at("lines", "lines"));
        assert!(!is_at("liner", "line"));
        assert!(!is_at("line", "lines"));
    }
}
