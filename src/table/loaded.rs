//! Which commit brought a raw batch into a table, as its newest commits tell it. The table is not opened for that.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{ObjectStoreExt as _, path::Path};
use serde::Deserialize;

use super::{AppId, Tables, failure::lower, mark::newest_commits};
use crate::{
    error::{Error, ErrorKind, Result},
    raw::BatchNumber,
};

/// Commits looked through, the newest first.
const COMMITS_LOOKED_MAX: usize = 100;

/// Commits read at once.
const COMMITS_IN_FLIGHT_MAX: usize = 8;

/// How the lines of a commit begin that are read.
const LINE_STARTS: [&[u8]; 2] = [b"{\"commitInfo\":", b"{\"txn\":"];

/// The commit that a load made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadCommit {
    /// The Delta version from which on its rows are in the table.
    pub version: u64,
    /// The load, a UUIDv7.
    pub load_id: String,
    /// The version of the contract that judged.
    pub contract: String,
    /// Ids of W3C traces that its records belong to; a few of them if there are many.
    pub traces: Vec<String>,
}

/// A line of a commit, as far as it is asked for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    commit_info: Option<Said>,
    txn: Option<Txn>,
}

/// What a commit says about itself, under the names of the fields in the parent module.
#[derive(Deserialize)]
struct Said {
    #[serde(rename = "landfallLoad")]
    load_id: Option<String>,
    #[serde(rename = "landfallFrom")]
    from: Option<i64>,
    #[serde(rename = "landfallContract", default)]
    contract: String,
    #[serde(rename = "landfallTraces", default)]
    traces: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Txn {
    app_id: String,
    version: i64,
}

/// What one commit did to the watermark.
struct Move {
    said: Said,
    from: i64,
    until: i64,
}

impl Tables {
    /// The commit that brought the raw batch `batch` of `app` into the table at `path`; `None` if it is not there, or came
    /// too long ago for the newest commits to tell.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the store does not answer, [`ErrorKind::Corrupt`] for a commit that cannot be read.
    pub async fn load_of(&self, path: &Path, app: &AppId, batch: BatchNumber) -> Result<Option<LoadCommit>> {
        let log = self.log_of(path);
        let unread = |source| lower(source, "read table history").with("table", path);
        let commits = newest_commits(&log, COMMITS_LOOKED_MAX as u64)
            .await
            .map_err(|source| unread(source.into()))?;
        let mut moves = stream::iter(commits.into_iter().take(COMMITS_LOOKED_MAX))
            .map(|(version, commit)| {
                let log = &log;
                async move {
                    let bytes = log.get(&commit).await?.bytes().await?;
                    Ok::<_, object_store::Error>((version, bytes))
                }
            })
            .buffered(COMMITS_IN_FLIGHT_MAX);
        while let Some((version, commit)) = moves.try_next().await.map_err(|source| unread(source.into()))? {
            let Some(found) = moved(&commit, app).map_err(|error| error.with("table", path))? else {
                continue;
            };
            if found.until < batch.get() {
                // Whatever is behind moved it less far.
                return Ok(None);
            }
            if let Some(load_id) = found.said.load_id.filter(|_| found.from <= batch.get()) {
                return Ok(Some(LoadCommit {
                    version,
                    load_id,
                    contract: found.said.contract,
                    traces: found.said.traces,
                }));
            }
        }
        Ok(None)
    }
}

/// What a commit did to the watermark of `app`, if anything.
fn moved(commit: &[u8], app: &AppId) -> Result<Option<Move>> {
    let (mut said, mut until) = (None, None);
    for line in commit.split(|byte| *byte == b'\n') {
        if !LINE_STARTS.iter().any(|start| line.starts_with(start)) {
            continue;
        }
        let line: Line = serde_json::from_slice(line)
            .map_err(|source| Error::new(ErrorKind::Corrupt, "read table commit").caused_by(source))?;
        said = said.or(line.commit_info);
        let own = line.txn.filter(|txn| txn.app_id == app.to_string());
        until = until.or(own.map(|txn| txn.version));
    }
    let from = said.as_ref().and_then(|said| said.from);
    Ok(match (said, from, until) {
        (Some(said), Some(from), Some(until)) => Some(Move { said, from, until }),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::StreamName,
        table::{CommitNote, RulesNote},
    };

    #[test]
    fn the_names_of_the_fields_are_those_that_are_written() {
        let app = AppId::new(&StreamName::parse("shop.orders").unwrap(), 0);
        let note = CommitNote {
            app: app.clone(),
            from: BatchNumber::new(3).unwrap(),
            batch: BatchNumber::new(7).unwrap(),
            load_id: "load".to_owned(),
            rules: RulesNote {
                contract: "1.2.0".to_owned(),
                config: String::new(),
            },
            traces: vec!["t1".to_owned(), "t2".to_owned()],
        };
        let info = serde_json::json!({ "commitInfo": note.fields() });
        let txn = serde_json::json!({ "txn": { "appId": app.to_string(), "version": 7 } });
        let add = "{\"add\":{\"path\":\"x\"}}";
        let found = moved(format!("{info}\n{add}\n{txn}\n").as_bytes(), &app)
            .unwrap()
            .unwrap();
        assert_eq!((found.from, found.until), (3, 7));
        assert_eq!(found.said.load_id.as_deref(), Some("load"));
        assert_eq!(
            (found.said.contract.as_str(), found.said.traces.len()),
            ("1.2.0", 2)
        );
        let other = AppId::new(&StreamName::parse("shop.items").unwrap(), 0);
        assert!(
            moved(format!("{info}\n{txn}\n").as_bytes(), &other)
                .unwrap()
                .is_none()
        );
        assert!(moved(b"{\"txn\":", &app).is_err());
    }
}
