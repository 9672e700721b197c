//! Side tables: quarantined records, drift and load history.
//!
//! They are written before the main table's commit, so their rows count only up to its watermark: `batch_to` of a row beyond
//! it belongs to a load that never became visible, or has not yet. Such rows are void; the next load removes them first,
//! after a fence on the main table that makes a load still under way notice and write them again.

use std::{collections::BTreeSet, sync::Arc};

use arrow::{
    array::{AsArray as _, RecordBatch},
    datatypes::Schema,
};
use deltalake::{
    kernel::{Action, transaction::CommitBuilder},
    protocol::DeltaOperation,
};
use futures::TryStreamExt as _;
use object_store::path::Path;
use serde_json::Value;

use super::{
    Standing, Table, Tables, file::DataFile, latest::arrow_error, lower, maintain::is_small, merge::append,
};
use crate::{
    config::StreamName,
    error::{Error, ErrorKind, Result},
    spill::gathered::Gathered,
};

/// Appends that delta-rs moves to the next version by itself before it gives up.
const RETRIES_MAX: usize = 15;

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
        let rows = rows.iter().filter(|batch| batch.num_rows() > 0).cloned();
        self.append_gathered(side, &rows.collect::<Vec<_>>().into()).await
    }

    /// As [`Tables::append_side`] for rows that may be more than memory holds.
    ///
    /// # Errors
    /// As [`Tables::append_side`].
    pub async fn append_gathered(&self, side: &Side, rows: &Gathered) -> Result<()> {
        let Some(schema) = rows.schema() else {
            return Ok(());
        };
        let mut table = self.side(side, &schema).await?;
        // A table of an older version of this program lacks columns that came later.
        let shape = table.shape(Some(&schema))?;
        let mut writer = table.writer(Arc::clone(&shape.schema))?;
        for batch in rows.batches() {
            writer.write(&shape.of(&batch?)?).await?;
        }
        let mut actions = writer.close().await?;
        if let Some(schema) = &shape.changed {
            actions.push(Action::Metadata(table.metadata_with(schema)?));
        }
        for _ in 0..COMMIT_ATTEMPTS_MAX {
            // Appends rarely conflict with each other, and delta-rs moves them to the next version by itself.
            let appended = CommitBuilder::from(table.once()?.with_max_retries(RETRIES_MAX))
                .with_actions(actions.clone())
                .build(Some(table.state()?), table.delta.log_store(), append())
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

    /// Appends `row`, the only one of the load `load_id`, unless it is there. False if it was.
    ///
    /// # Errors
    /// As [`Tables::append_side`].
    pub async fn append_side_once(&self, side: &Side, row: &RecordBatch, load_id: &str) -> Result<bool> {
        let mut table = self.side(side, &row.schema()).await?;
        for _ in 0..COMMIT_ATTEMPTS_MAX {
            if table.has_load(load_id).await? {
                return Ok(false);
            }
            // That the row is not there is known of this version and of no other.
            if table.append_next(row).await? {
                return Ok(true);
            }
        }
        Err(Error::new(ErrorKind::Conflict, "append to side table")
            .with("table", &side.path)
            .with("attempts_max", COMMIT_ATTEMPTS_MAX))
    }

    /// The newest version of a side table; none if it is not there.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the store does not answer.
    pub async fn side_version(&self, side: &Side) -> Result<Option<u64>> {
        Ok(self.open(&side.path).await?.map(|table| table.version()))
    }

    /// Appends `row` as the version behind `version`, which [`Tables::side_version`] told. False if another writer was
    /// faster: what was read there may not hold any more.
    ///
    /// # Errors
    /// As [`Tables::append_side`].
    pub async fn append_side_behind(
        &self,
        side: &Side,
        row: &RecordBatch,
        version: Option<u64>,
    ) -> Result<bool> {
        let mut table = self.side(side, &row.schema()).await?;
        // One that was not there is made without rows.
        if table.version() != version.unwrap_or(0) {
            return Ok(false);
        }
        table.append_next(row).await
    }

    async fn side(&self, side: &Side, schema: &Schema) -> Result<Table> {
        let partition_by: Vec<String> = if side.shared {
            SHARED_BY.map(str::to_owned).to_vec()
        } else {
            Vec::new()
        };
        self.open_or_create(&side.path, schema, &partition_by).await
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
            let (beyond, doubled) = standing.voids(batch, &load_id);
            if beyond {
                void.beyond = true;
            }
            if beyond || doubled {
                void.files.push(file.path.clone());
            } else if is_small(file) {
                void.small.push(file.view.modification_time());
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
            let removed = CommitBuilder::from(table.once()?)
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

impl Table {
    /// The streams with rows in a side table that all share, those that have left the project included.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a name that no stream can have.
    pub fn streams(&self) -> Result<BTreeSet<StreamName>> {
        let mut names = BTreeSet::new();
        for file in self.state()?.log_data().iter() {
            let values = file.partition_values_map();
            let [source, stream] = SHARED_BY.map(|name| values.get(name).cloned().flatten());
            names.insert(format!(
                "{}.{}",
                source.unwrap_or_default(),
                stream.unwrap_or_default()
            ));
        }
        names.iter().map(|name| StreamName::parse(name)).collect()
    }

    /// Appends `row` as the next version. False if another writer was faster; then this is the newest version.
    async fn append_next(&mut self, row: &RecordBatch) -> Result<bool> {
        let shaped = self.shaped(std::slice::from_ref(row))?;
        let mut writer = self.writer(shaped.schema)?;
        for batch in &shaped.rows {
            writer.write(batch).await?;
        }
        let mut actions = writer.close().await?;
        if let Some(schema) = &shaped.changed {
            actions.push(Action::Metadata(self.metadata_with(schema)?));
        }
        let appended = CommitBuilder::from(self.once()?)
            .with_actions(actions)
            .build(Some(self.state()?), self.delta.log_store(), append())
            .await;
        let Err(source) = appended else { return Ok(true) };
        let before = self.version();
        self.refresh().await?;
        if self.version() == before {
            return Err(lower(source, "append to side table").with("table", &self.path));
        }
        Ok(false)
    }

    /// Whether a side table has a row of the load `load_id`.
    async fn has_load(&self, load_id: &str) -> Result<bool> {
        let schema = self.schema()?;
        let column = schema.field_with_name("load_id").map_err(arrow_error)?.clone();
        let column = Arc::new(Schema::new(vec![column]));
        for file in self.files()?.iter().filter(|file| may_have_load(file, load_id)) {
            let mut rows = std::pin::pin!(self.read(file, Arc::clone(&column)).await?);
            while let Some(batch) = rows.try_next().await? {
                if batch
                    .column(0)
                    .as_string::<i32>()
                    .iter()
                    .flatten()
                    .any(|id| id == load_id)
                {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

impl Standing {
    /// Whether side rows of the load `load_id`, which ended with `batch`, do not count: because they are beyond the
    /// watermark, or because another load brought it there.
    fn voids(&self, batch: i64, load_id: &str) -> (bool, bool) {
        let beyond = self.watermark.is_none_or(|mark| batch > mark.get());
        let doubled = self
            .last
            .as_ref()
            .is_some_and(|last| batch >= last.from.get() && load_id != last.load_id);
        (beyond, doubled)
    }

    /// Whether the rows of `file` count.
    pub(super) fn counts(&self, file: &DataFile) -> bool {
        load_of(file).is_none_or(|(batch, load_id)| self.voids(batch, &load_id) == (false, false))
    }
}

/// Files of a side table whose rows do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Void {
    /// The files.
    pub files: Vec<Path>,
    /// Whether rows beyond the watermark are among them: their load may have died, or be about to commit.
    pub beyond: bool,
    /// When each small file of the stream was written beside them whose rows stay, in milliseconds since the epoch.
    pub small: Vec<i64>,
}

pub(super) fn of_stream(file: &DataFile, side: &Side, stream: &StreamName) -> bool {
    let is = |name: &str, value: &str| {
        file.partition
            .iter()
            .any(|(column, found)| column == name && found.as_deref() == Some(value))
    };
    !side.shared || (is(SHARED_BY[0], stream.source.as_str()) && is(SHARED_BY[1], stream.stream.as_str()))
}

/// Whether `file` can have rows of that load, as far as its statistics tell. Those of a long text are cut.
fn may_have_load(file: &DataFile, load_id: &str) -> bool {
    let stats: Option<Value> = file
        .stats
        .as_deref()
        .and_then(|text| serde_json::from_str(text).ok());
    let bound = |name: &str| {
        let value = stats.as_ref()?.get(name)?.get("load_id")?.as_str()?;
        Some(value.to_owned())
    };
    bound("minValues").is_none_or(|least| least.as_str() <= load_id)
        && bound("maxValues").is_none_or(|greatest| load_id <= greatest.as_str())
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
