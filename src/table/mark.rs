//! Watermarks read once, and those of tables that are not opened: their newest commits say them, whatever number of files
//! they are behind.

use std::sync::{Arc, Mutex, PoisonError};

use futures::TryStreamExt as _;
use object_store::{ObjectStore, ObjectStoreExt as _, path::Path, prefix::PrefixStore};
use serde::Deserialize;

use super::{AppId, Tables, maintain::LogFile};
use crate::{error::Result, raw::BatchNumber};

/// Newest commits read before the table is opened after all. Nearly every commit is one of a load.
const COMMITS_MAX: usize = 16;

/// How the line of a commit begins that holds a watermark.
const LINE_START: &[u8] = b"{\"txn\":";

/// The watermark of a table that was read last.
#[derive(Clone, Debug, Default)]
pub(super) struct Mark(Arc<Mutex<Option<Known>>>);

#[derive(Clone, Debug)]
struct Known {
    version: u64,
    app: AppId,
    watermark: Option<BatchNumber>,
}

impl Mark {
    /// The watermark of `app` in `version`, if that was read last.
    pub(super) fn of(&self, version: u64, app: &AppId) -> Option<Option<BatchNumber>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.as_ref()?;
        (known.version == version && known.app == *app).then_some(known.watermark)
    }

    pub(super) fn set(&self, version: u64, app: &AppId, watermark: Option<BatchNumber>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(Known {
            version,
            app: app.clone(),
            watermark,
        });
    }
}

/// Content of `_delta_log/_last_checkpoint`, as far as it is asked for.
#[derive(Deserialize)]
struct LastCheckpoint {
    version: u64,
}

/// A line of a commit that holds a watermark.
#[derive(Deserialize)]
struct Line {
    txn: Txn,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Txn {
    app_id: String,
    version: i64,
}

impl Tables {
    /// The newest raw batch in the table at `path`, or `None` before the first, or if there is no table.
    ///
    /// # Errors
    /// As [`Tables::open`].
    pub async fn watermark(&self, path: &Path, app: &AppId) -> Result<Option<BatchNumber>> {
        let said = match self.kept.get(path).await {
            // Known without a commit.
            Some((_, true)) => None,
            _ => self.said_last(path, app).await,
        };
        match said {
            Some(version) => BatchNumber::new(version).map(Some),
            None => match self.open(path).await? {
                Some(table) => table.watermark(app).await,
                None => Ok(None),
            },
        }
    }

    /// What the newest commits say; `None` if they do not, or cannot be read: then the whole log tells.
    async fn said_last(&self, path: &Path, app: &AppId) -> Option<i64> {
        let store = self.log_of(path);
        for (_, commit) in newest_commits(&store, 0)
            .await
            .ok()?
            .into_iter()
            .take(COMMITS_MAX)
        {
            let commit = store.get(&commit).await.ok()?.bytes().await.ok()?;
            for line in commit.split(|byte| *byte == b'\n') {
                if line.starts_with(LINE_START) {
                    let line: Line = serde_json::from_slice(line).ok()?;
                    if line.txn.app_id == app.to_string() {
                        return Some(line.txn.version);
                    }
                }
            }
        }
        None
    }

    /// The log of the table at `path`, whether there is one or not.
    pub(super) fn log_of(&self, path: &Path) -> PrefixStore<Arc<dyn ObjectStore>> {
        PrefixStore::new(self.store.clone(), path.clone().join("_delta_log"))
    }
}

/// The commits in `log` since `behind` before the last checkpoint, as far as they are kept: versions and files, the newest
/// first.
pub(super) async fn newest_commits(
    log: &PrefixStore<Arc<dyn ObjectStore>>,
    behind: u64,
) -> object_store::Result<Vec<(u64, Path)>> {
    let checkpoint = match log.get(&Path::from("_last_checkpoint")).await {
        Ok(found) => serde_json::from_slice::<LastCheckpoint>(&found.bytes().await?).ok(),
        // Not there yet, or not to be had: then all of them are looked at.
        Err(_) => None,
    };
    let checkpoint = checkpoint.map_or(0, |checkpoint| checkpoint.version);
    let from = Path::from(format!("{:020}", checkpoint.saturating_sub(behind)));
    let listed = log.list_with_offset(None, &from);
    let mut commits: Vec<(u64, Path)> = listed
        .try_filter_map(async |object| {
            Ok(match LogFile::of(&object.location) {
                LogFile::Commit(version) => Some((version, object.location)),
                _ => None,
            })
        })
        .try_collect()
        .await?;
    commits.sort_unstable_by(|a, b| b.cmp(a));
    Ok(commits)
}
