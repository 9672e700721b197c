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
        let store = PrefixStore::new(self.store.clone(), path.clone());
        let log = Path::from("_delta_log");
        let read = async |key: Path| store.get(&key).await.ok()?.bytes().await.ok();
        let checkpoint = read(log.clone().join("_last_checkpoint")).await;
        let checkpoint = checkpoint.and_then(|text| serde_json::from_slice::<LastCheckpoint>(&text).ok());
        let from = format!("{:020}", checkpoint.map_or(0, |checkpoint| checkpoint.version));
        let listed = store.list_with_offset(Some(&log), &log.clone().join(from));
        let mut commits: Vec<(u64, Path)> = listed
            .try_filter_map(async |object| {
                Ok(match LogFile::of(&object.location) {
                    LogFile::Commit(version) => Some((version, object.location)),
                    _ => None,
                })
            })
            .try_collect()
            .await
            .ok()?;
        commits.sort_unstable();
        for (_, commit) in commits.into_iter().rev().take(COMMITS_MAX) {
            let commit = read(commit).await?;
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
}
