//! Side tables: quarantined records, drift and load history.
//!
//! They are written before the main table's commit, so their rows count only up to its watermark: `batch_to` of a row beyond
//! it belongs to a load that never became visible. Such rows are void; the next load removes them first.

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
    Table, Tables,
    file::{DataFile, close, write},
    lower,
};
use crate::{
    config::StreamName,
    error::{Error, ErrorKind, Result},
    raw::BatchNumber,
};

/// Plans made for one removal before giving up: each is thrown away only because another writer was faster.
const VOID_ATTEMPTS_MAX: u32 = 20;

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
        let table = self
            .open_or_create(&side.path, &first.schema(), &partition_by)
            .await?;
        let mut writer = table.writer(first.schema())?;
        for batch in rows {
            write(&mut writer, batch).await?;
        }
        let actions = close(writer).await?;
        // Appends never conflict with each other, so delta-rs may move them to the next version by itself.
        CommitBuilder::from(CommitProperties::default())
            .with_actions(actions)
            .build(
                Some(table.state()?),
                table.delta.log_store(),
                DeltaOperation::Write {
                    mode: SaveMode::Append,
                    partition_by: None,
                    predicate: None,
                },
            )
            .await
            .map_err(|source| lower(source, "append to side table").with("table", &side.path))?;
        Ok(())
    }

    /// Removes the rows of `stream` beyond `watermark` and returns how many files that took.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if other writers were faster every time.
    pub async fn void_side(
        &self,
        side: &Side,
        stream: &StreamName,
        watermark: Option<BatchNumber>,
    ) -> Result<usize> {
        for _ in 0..VOID_ATTEMPTS_MAX {
            let Some(table) = self.open(&side.path).await? else {
                return Ok(0);
            };
            let void = void_files(&table, side, stream, watermark)?;
            if void.is_empty() {
                return Ok(0);
            }
            let actions = void
                .iter()
                .map(|file| Action::Remove(file.view.remove_action(true)))
                .collect();
            let version = table.version();
            let removed = CommitBuilder::from(CommitProperties::default().with_max_retries(0))
                .with_actions(actions)
                .build(
                    Some(table.state()?),
                    table.delta.log_store(),
                    DeltaOperation::Delete {
                        predicate: Some("beyond the watermark".to_owned()),
                    },
                )
                .await;
            match removed {
                Ok(_) => return Ok(void.len()),
                Err(source) => {
                    let now = self
                        .open(&side.path)
                        .await?
                        .map_or(version, |table| table.version());
                    if now == version {
                        return Err(lower(source, "remove void rows").with("table", &side.path));
                    }
                }
            }
        }
        Err(Error::new(ErrorKind::Conflict, "remove void rows")
            .with("table", &side.path)
            .with("attempts_max", VOID_ATTEMPTS_MAX))
    }
}

fn void_files(
    table: &Table,
    side: &Side,
    stream: &StreamName,
    watermark: Option<BatchNumber>,
) -> Result<Vec<DataFile>> {
    let of_stream = |file: &DataFile| {
        let is = |name: &str, value: &str| {
            file.partition
                .iter()
                .any(|(column, found)| column == name && found.as_deref() == Some(value))
        };
        !side.shared || (is(SHARED_BY[0], stream.source.as_str()) && is(SHARED_BY[1], stream.stream.as_str()))
    };
    let mut void = table.files()?;
    // A load writes files of its own, so a file is void as a whole or not at all.
    void.retain(|file| {
        of_stream(file)
            && first_batch(file).is_some_and(|batch| watermark.is_none_or(|mark| batch > mark.get()))
    });
    Ok(void)
}

fn first_batch(file: &DataFile) -> Option<i64> {
    let stats: Value = serde_json::from_str(file.stats.as_deref()?).ok()?;
    stats.get("minValues")?.get("batch_to")?.as_i64()
}
