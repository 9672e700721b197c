//! Side tables: quarantined records, drift and load history.
//!
//! They are written before the main table's commit, so their rows count only up to its watermark: `batch_to` of a row beyond
//! it belongs to a load that never became visible, or has not yet. Such rows are void; the next load removes them first,
//! after a fence on the main table that makes a load still under way notice and write them again.

use arrow::array::RecordBatch;
use deltalake::{
    kernel::{
        Action,
        transaction::{CommitBuilder, CommitProperties},
    },
    protocol::{DeltaOperation, SaveMode},
};
use object_store::path::Path;
use serde_json::Value;

use super::{
    Standing, Tables,
    file::{DataFile, close, write},
    lower,
};
use crate::{
    config::StreamName,
    error::{Error, ErrorKind, Result},
};

/// Commits tried for one change before giving up: each fails only because another writer was faster.
const COMMIT_ATTEMPTS_MAX: u32 = 20;

/// Partition columns of the tables that all streams share.
pub const SHARED_BY: [&str; 2] = ["source", "stream"];

/// A side table.
#[derive(Clone, Debug)]
pub struct Side {
    /// Where it is in the lake.
    pub path: Path,
    /// Whether all streams share it; then it is partitioned by [`SHARED_BY`].
    pub shared: bool,
}

impl Tables {
    /// Appends `rows`, creating the table at need. Without rows nothing happens.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the store does not answer.
    pub async fn append_side(&self, side: &Side, rows: &[RecordBatch]) -> Result<()> {
        let Some(first) = rows.iter().find(|batch| batch.num_rows() > 0) else {
            return Ok(());
        };
        let partition_by: Vec<String> = if side.shared {
            SHARED_BY.map(str::to_owned).to_vec()
        } else {
            Vec::new()
        };
        let mut table = self
            .open_or_create(&side.path, &first.schema(), &partition_by)
            .await?;
        // A table of an older version of this program lacks columns that came later.
        let shaped = table.shaped(rows)?;
        let mut writer = table.writer(shaped.schema)?;
        for batch in &shaped.rows {
            write(&mut writer, batch).await?;
        }
        let mut actions = close(writer).await?;
        if let Some(schema) = &shaped.changed {
            actions.push(table.metadata_with(schema)?);
        }
        for _ in 0..COMMIT_ATTEMPTS_MAX {
            let operation = DeltaOperation::Write {
                mode: SaveMode::Append,
                partition_by: None,
                predicate: None,
            };
            // Appends rarely conflict with each other, and delta-rs moves them to the next version by itself.
            let appended = CommitBuilder::from(CommitProperties::default())
                .with_actions(actions.clone())
                .build(Some(table.state()?), table.delta.log_store(), operation)
                .await;
            let Err(source) = appended else { return Ok(()) };
            let before = table.version();
            table.refresh().await?;
            if table.version() == before {
                return Err(lower(source, "append to side table").with("table", &side.path));
            }
            // Should the commit stand although its reply was lost: a file added twice is in the table once.
        }
        Err(Error::new(ErrorKind::Conflict, "append to side table")
            .with("table", &side.path)
            .with("attempts_max", COMMIT_ATTEMPTS_MAX))
    }

    /// The files whose rows do not count: those beyond the watermark, and those that a load lost a race with.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the store does not answer.
    pub async fn void_files(&self, side: &Side, stream: &StreamName, standing: &Standing) -> Result<Void> {
        let mut void = Void::default();
        let Some(table) = self.open(&side.path).await? else {
            return Ok(void);
        };
        for file in table.files()?.iter().filter(|file| of_stream(file, side, stream)) {
            // A load writes files of its own, so a file is void as a whole or not at all.
            let Some((batch, load_id)) = load_of(file) else {
                continue;
            };
            let beyond = standing.watermark.is_none_or(|mark| batch > mark.get());
            let doubled = standing
                .last
                .as_ref()
                .is_some_and(|last| batch >= last.from.get() && load_id != last.load_id);
            if beyond {
                void.beyond = true;
            }
            if beyond || doubled {
                void.files.push(file.path.clone());
            }
        }
        Ok(void)
    }

    /// The files that the load `load_id` wrote.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the store does not answer.
    pub async fn files_of_load(&self, side: &Side, load_id: &str) -> Result<Vec<Path>> {
        let Some(table) = self.open(&side.path).await? else {
            return Ok(Vec::new());
        };
        let of_load = |file: &DataFile| load_of(file).is_some_and(|(_, found)| found == load_id);
        Ok(table
            .files()?
            .into_iter()
            .filter(of_load)
            .map(|file| file.path)
            .collect())
    }

    /// Removes exactly those of `files` that are still there.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if other writers were faster every time.
    pub async fn remove_files(&self, side: &Side, files: &[Path]) -> Result<()> {
        for _ in 0..COMMIT_ATTEMPTS_MAX {
            let Some(table) = self.open(&side.path).await? else {
                return Ok(());
            };
            let live = table.files()?;
            let actions: Vec<Action> = live
                .iter()
                .filter(|file| files.contains(&file.path))
                .map(|file| Action::Remove(file.view.remove_action(true)))
                .collect();
            if actions.is_empty() {
                return Ok(());
            }
            let removed = CommitBuilder::from(CommitProperties::default().with_max_retries(0))
                .with_actions(actions)
                .build(
                    Some(table.state()?),
                    table.delta.log_store(),
                    DeltaOperation::Delete {
                        predicate: Some("rows of a load that did not become visible".to_owned()),
                    },
                )
                .await;
            if let Err(source) = removed {
                let now = self.open(&side.path).await?.map_or(0, |table| table.version());
                if now == table.version() {
                    return Err(lower(source, "remove void rows").with("table", &side.path));
                }
            }
        }
        Err(Error::new(ErrorKind::Conflict, "remove void rows")
            .with("table", &side.path)
            .with("attempts_max", COMMIT_ATTEMPTS_MAX))
    }
}

/// Files of a side table whose rows do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Void {
    /// The files.
    pub files: Vec<Path>,
    /// Whether rows beyond the watermark are among them: their load may have died, or be about to commit.
    pub beyond: bool,
}

fn of_stream(file: &DataFile, side: &Side, stream: &StreamName) -> bool {
    let is = |name: &str, value: &str| {
        file.partition
            .iter()
            .any(|(column, found)| column == name && found.as_deref() == Some(value))
    };
    !side.shared || (is(SHARED_BY[0], stream.source.as_str()) && is(SHARED_BY[1], stream.stream.as_str()))
}

/// The last raw batch of the load that wrote `file`, and the load.
pub(super) fn load_of(file: &DataFile) -> Option<(i64, String)> {
    let stats: Value = serde_json::from_str(file.stats.as_deref()?).ok()?;
    let least = stats.get("minValues")?;
    Some((
        least.get("batch_to")?.as_i64()?,
        least.get("load_id")?.as_str()?.to_owned(),
    ))
}
