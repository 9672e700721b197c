//! `landfall verify`: the live table is what a replay of raw gives, and raw is what was landed.

use std::sync::Arc;

use tracing::warn;

use crate::{
    config::StreamName,
    error::{Error, ErrorKind, Result},
    ops::{
        Workspace,
        children::{self, Child},
        compare::review::{Pair, Review, review},
        contract,
        rebuild::{
            live::{Live, live},
            stage::{self, Begin, Wanted},
        },
    },
    raw::{BatchNumber, check::Checked, layout, log::RawLog},
};

/// What the names of staged tables begin with that are only there to be compared.
const OWN: &str = "verify-";

/// What came of verifying one stream.
#[derive(Debug)]
pub struct Verified {
    /// The stream.
    pub stream: StreamName,
    /// What was found in raw.
    pub raw: Checked,
    /// What was found in the tables; `None` if nothing was loaded yet.
    pub replay: Option<Replay>,
}

/// A live table held against its replay.
#[derive(Debug)]
pub struct Replay {
    /// The last raw batch of both.
    pub until: BatchNumber,
    /// What differs.
    pub review: Review,
    /// The child tables.
    pub children: Vec<Child>,
}

impl Replay {
    /// Whether nothing differs.
    pub fn is_equal(&self) -> bool {
        self.review.is_equal() && self.children.iter().all(Child::is_sound)
    }
}

impl Verified {
    /// Whether raw is whole and the live table is what it gives.
    pub fn is_sound(&self) -> bool {
        self.raw.flawed == 0 && self.replay.as_ref().is_none_or(Replay::is_equal)
    }
}

/// Checks raw and replays it beside the live table of `name`; of each kind of difference up to `limit` rows are shown.
///
/// Nothing of the replay stays.
///
/// # Errors
/// [`ErrorKind::Corrupt`] if the live table cannot be read or raw has no entry to go on with; else whatever the store says.
pub async fn verify(
    workspace: &Workspace,
    name: &StreamName,
    limit: usize,
    progress: &(dyn Fn(BatchNumber) + Sync),
) -> Result<Verified> {
    let log = RawLog {
        store: Arc::clone(&workspace.store),
        stream: name.clone(),
    };
    let mut verified = Verified {
        stream: name.clone(),
        raw: log.check().await?,
        replay: None,
    };
    // A log with a hole cannot be replayed; what is wrong with it is told instead.
    if verified.raw.has_holes {
        return Ok(verified);
    }
    match live(workspace, name).await? {
        Live::Loaded { table, until } => {
            let (_, stream) = workspace.project.stream(name)?;
            let Some(contracts) = contract::read_all(stream)? else {
                return Err(Error::new(ErrorKind::Config, "read contract")
                    .with("path", stream.contract.display())
                    .with("problem", "the table was loaded by it, and it is gone"));
            };
            stage::sweep(workspace, name, OWN).await?;
            // Its last digits are random. Keys stay short: some stores make file names of them.
            let unique = uuid::Uuid::now_v7().simple().to_string();
            let id = format!("{OWN}{}", unique.get(24..).unwrap_or(&unique));
            let wanted = Wanted {
                stream,
                contracts: &contracts,
                id: &id,
                until,
                begin: Begin::Anew,
            };
            let reviewed = async {
                let staged = stage::stage(workspace, wanted, progress).await?;
                let pair = Pair {
                    stream,
                    contracts: &contracts,
                    live: &table,
                    live_until: until,
                    rebuilt: &staged.table,
                    target: &staged.target,
                    rebuilt_until: staged.until,
                };
                let review = review(workspace, pair, limit).await?;
                let staging = layout::staging(name, &id);
                let tables = (&table, &staged.table);
                let children = children::review(workspace, stream, tables, &staging, limit).await?;
                Ok::<_, Error>((review, children))
            }
            .await;
            if let Err(error) = stage::discard(workspace, name, &id).await {
                warn!(stream = %name, id, error = error.chain(), "staged tables stay");
            }
            let (review, children) = reviewed?;
            verified.replay = Some(Replay {
                until,
                review,
                children,
            });
        }
        Live::Unloaded { told: None } => {}
        Live::Unloaded { told: Some(until) } => {
            return Err(Error::new(ErrorKind::Corrupt, "open table")
                .with("stream", name)
                .with(
                    "problem",
                    format!("it was loaded up to batch {until}, and is gone"),
                )
                .with(
                    "hint",
                    format!("`landfall rebuild {name} --promote` makes it from raw"),
                ));
        }
        Live::Unreadable { error } => {
            return Err(error.with(
                "hint",
                format!("`landfall rebuild {name} --promote` makes it from raw"),
            ));
        }
    }
    Ok(verified)
}
