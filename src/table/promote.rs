//! A table made from raw takes the place of the live one, in one commit.
//!
//! ```text
//! copy files ─► fence ─► swap side tables ─► swap main table (remove all, add all, schema, txn)
//! ```
//!
//! Readers of older versions keep their files until they are vacuumed. A load under way loses to the fence, and to the swap
//! once more, and plans again.

use std::collections::{HashMap, HashSet};

use deltalake::{
    kernel::{
        Action, Add, CommitInfo, Metadata, MetadataExt as _, Transaction, new_metadata,
        transaction::{CommitBuilder, CommitProperties},
    },
    operations::create::CreateBuilder,
    protocol::{DeltaOperation, SaveMode},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{Error as StoreError, ObjectStoreExt as _, path::Path};

use super::{
    CommitNote, Committed, HISTORY_COMMITS_MAX, LOAD_FIELD, Table, Tables, evolve,
    file::DataFile,
    kernel_schema, lower,
    side::{Side, load_of},
};
use crate::{
    error::{Error, ErrorKind, Result},
    raw::BatchNumber,
};

/// Files copied at once.
const COPIES_IN_FLIGHT_MAX: usize = 8;

/// Commits tried for one side table: each fails only because another writer was faster.
const SIDE_ATTEMPTS_MAX: u32 = 20;

/// The `commitInfo` field of a swap that says by which keys the rows were merged.
const KEYS_FIELD: &str = "landfallKeys";

/// Files that were copied already, and what they are called at their new place. One that was copied is not copied again.
#[derive(Debug, Default)]
pub struct Copies(HashMap<Path, Path>);

/// Whether a commit is that of a load, not of a swap.
pub(super) fn is_load(commit: &CommitInfo) -> bool {
    commit.info.contains_key(LOAD_FIELD) && !commit.info.contains_key(KEYS_FIELD)
}

/// A commit of a swap.
#[derive(Clone, Debug)]
pub struct SwapNote {
    /// The watermark, and who made the commit.
    pub commit: CommitNote,
    /// The key columns that the rows were merged by, separated by commas.
    pub keys: String,
}

impl Tables {
    /// Copies the data files of `staged` to the folder of the table at `to`, under new names.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the store does not answer.
    pub async fn copy_files(&self, staged: &Table, to: &Path, copies: &mut Copies) -> Result<()> {
        self.copy(staged.path(), &staged.files()?, to, copies).await
    }

    async fn copy(&self, from: &Path, files: &[DataFile], to: &Path, copies: &mut Copies) -> Result<()> {
        let missing = files
            .iter()
            .map(|file| below(from, &file.path))
            .filter(|path| !copies.0.contains_key(path));
        let planned: Vec<(Path, Path)> = missing
            .map(|path| {
                let own = path.parts().skip(from.parts().count());
                let folders = path.parts().count() - from.parts().count() - 1;
                let name = format!("part-{}.parquet", uuid::Uuid::now_v7());
                let own = own.take(folders).collect::<Path>().join(name);
                (path, own)
            })
            .collect();
        let mut copied = stream::iter(planned)
            .map(|(path, own)| async move {
                let copied = self.store.copy(&path, &below(to, &own)).await;
                copied.map(|()| (path.clone(), own)).map_err(|source| {
                    Error::new(ErrorKind::Unavailable, "copy data file")
                        .with("file", &path)
                        .caused_by(source)
                })
            })
            .buffered(COPIES_IN_FLIGHT_MAX);
        while let Some((path, own)) = copied.try_next().await? {
            copies.0.insert(path, own);
        }
        Ok(())
    }

    /// Gives `live` the rows of `staged`, where there may be no table, instead of its own of loads up to `until`, in one
    /// commit. The files `void` of `staged` do not count. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if other writers were faster every time.
    pub async fn swap_side(
        &self,
        live: &Side,
        (staged, table): (&Side, Option<&Table>),
        void: &[Path],
        until: BatchNumber,
        copies: &mut Copies,
    ) -> Result<()> {
        let (files, staged_schema) = match table {
            Some(table) => {
                let mut files = table.files()?;
                files.retain(|file| {
                    !void.contains(&file.path) && load_of(file).is_some_and(|(batch, _)| batch <= until.get())
                });
                (files, Some(table.schema()?))
            }
            None => (Vec::new(), None),
        };
        self.copy(&staged.path, &files, &live.path, copies).await?;
        for _ in 0..SIDE_ATTEMPTS_MAX {
            let table = match (self.open(&live.path).await?, &staged_schema) {
                (Some(table), _) => table,
                (None, Some(schema)) if !files.is_empty() => {
                    self.open_or_create(&live.path, schema, &[]).await?
                }
                (None, _) => return Ok(()),
            };
            let wanted: HashMap<Path, &DataFile> = files
                .iter()
                .filter_map(|file| Some((copies.0.get(&below(&staged.path, &file.path))?.clone(), file)))
                .collect();
            let there = table.files()?;
            let present: HashSet<&Path> = there.iter().map(|file| &file.path).collect();
            let outdated = |file: &&DataFile| load_of(file).is_none_or(|(batch, _)| batch <= until.get());
            let mut actions: Vec<Action> = there
                .iter()
                .filter(|file| !wanted.contains_key(&file.path))
                .filter(outdated)
                .map(Table::remove)
                .collect();
            let new = wanted.iter().filter(|(own, _)| !present.contains(own));
            for (own, file) in new {
                actions.push(Action::Add(add(file, own)?));
            }
            if actions.is_empty() {
                return Ok(());
            }
            if let Some(staged_schema) = &staged_schema {
                let existing = table.schema()?;
                // Other keys, other columns: rows of loads that are still under way will be written again.
                let schema = evolve::union(&existing, staged_schema)
                    .unwrap_or_else(|_| staged_schema.as_ref().clone());
                if schema != *existing {
                    actions.push(Action::Metadata(table.metadata_with(&schema)?));
                }
            }
            let swapped = CommitBuilder::from(table.once()?)
                .with_actions(actions)
                .build(Some(table.state()?), table.delta.log_store(), overwrite())
                .await;
            let Err(source) = swapped else { return Ok(()) };
            let now = self.open(&live.path).await?.map_or(0, |table| table.version());
            if now == table.version() {
                return Err(lower(source, "swap side table").with("table", &live.path));
            }
        }
        Err(Error::new(ErrorKind::Conflict, "swap side table")
            .with("table", &live.path)
            .with("attempts_max", SIDE_ATTEMPTS_MAX))
    }

    /// Makes the table at `path`, where there is none, with the rows of `staged`, in one commit.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the log can be neither written nor read back.
    pub async fn create_from(
        &self,
        path: &Path,
        staged: &Table,
        copies: &Copies,
        note: &SwapNote,
    ) -> Result<Committed> {
        let kernel = kernel_schema(staged.schema()?.as_ref())?;
        let created = CreateBuilder::new()
            .with_log_store(self.unopened(path)?.log_store())
            .with_save_mode(SaveMode::ErrorIfExists)
            .with_columns(kernel.fields().cloned())
            .with_partition_columns(staged.partition_by()?)
            .with_actions(staged.adds(copies)?)
            .with_commit_properties(note.properties(CommitProperties::default().with_max_retries(0)))
            .await;
        let source = match created {
            Ok(delta) => {
                let version = delta.version().unwrap_or(0);
                return Ok(Committed::Applied { version });
            }
            Err(source) => source,
        };
        match self.open(path).await? {
            Some(table) => Ok(match table.commit_of(&note.commit.load_id).await? {
                Some(version) => Committed::Applied { version },
                None => Committed::Conflicted,
            }),
            None => Err(lower(source, "create table").with("table", path)),
        }
    }

    /// Copies the log of the table at `path`, which cannot be read, to `to`, and removes it. Data files stay.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the store does not answer; then the log may be there in part, and is no more
    /// readable than before.
    pub async fn set_log_aside(&self, path: &Path, to: &Path) -> Result<()> {
        let log = path.clone().join("_delta_log");
        let failed = |source: StoreError| {
            Error::new(ErrorKind::Unavailable, "set table log aside")
                .with("table", path)
                .caused_by(source)
        };
        let mut files: Vec<Path> = self
            .store
            .list(Some(&log))
            .map_ok(|meta| meta.location)
            .try_collect()
            .await
            .map_err(failed)?;
        for file in &files {
            let own: Path = file.parts().skip(path.parts().count()).collect();
            self.store.copy(file, &below(to, &own)).await.map_err(failed)?;
        }
        // The pointer to the newest checkpoint first, then what is oldest: what is left of a log without its beginning
        // reads as nothing, never as an older version of the table.
        files.sort_by_key(|file| (file.filename() != Some("_last_checkpoint"), file.to_string()));
        for file in &files {
            match self.store.delete(file).await {
                Ok(()) | Err(StoreError::NotFound { .. }) => {}
                Err(source) => return Err(failed(source)),
            }
        }
        Ok(())
    }
}

impl Table {
    /// Announces a swap: takes the next version of the table for a commit that changes nothing but who made the last one,
    /// so that every plan made against this one must be made again, and nobody takes the rows that are swapped into the
    /// side tables for those of a load that lost.
    ///
    /// Conflicted also if a load came right behind it: the swap would take its rows away.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the log can be neither written nor read back.
    pub async fn begin_swap(&mut self, note: &SwapNote) -> Result<Committed> {
        let operation = DeltaOperation::Write {
            mode: SaveMode::Append,
            partition_by: None,
            predicate: None,
        };
        Ok(match self.commit_swap(Vec::new(), operation, note).await? {
            Committed::Applied { version } => self.unless_overtaken(version),
            lost => lost,
        })
    }

    /// Gives the table the rows, columns and partition columns of `staged` instead of its own, with the watermark of `note`.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the log can be neither written nor read back.
    pub async fn swap(&mut self, staged: &Table, copies: &Copies, note: &SwapNote) -> Result<Committed> {
        let mut actions: Vec<Action> = self.files()?.iter().map(Self::remove).collect();
        actions.extend(staged.adds(copies)?);
        let metadata = self.metadata_of(staged)?;
        if metadata != *self.state()?.metadata() {
            actions.push(Action::Metadata(metadata));
        }
        self.commit_swap(actions, overwrite(), note).await
    }

    /// The key columns by which the newest rows were merged, separated by commas; `None` if the log does not tell.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the log cannot be read.
    pub async fn merged_by(&self) -> Result<Option<String>> {
        let mut commits = std::pin::pin!(self.delta.history(Some(HISTORY_COMMITS_MAX)));
        while let Some(commit) = commits
            .try_next()
            .await
            .map_err(|source| lower(source, "read table history").with("table", &self.path))?
        {
            let parameters = commit.operation_parameters.as_ref();
            let predicate = parameters.and_then(|parameters| parameters.get("mergePredicate"));
            let keys = commit.info.get(KEYS_FIELD).or(predicate);
            if let Some(keys) = keys.and_then(serde_json::Value::as_str) {
                return Ok(Some(keys.to_owned()));
            }
        }
        Ok(None)
    }

    /// The data files, as they are called after they were copied.
    fn adds(&self, copies: &Copies) -> Result<Vec<Action>> {
        let files = self.files()?;
        let adds = files.iter().map(|file| {
            let own = copies.0.get(&below(&self.path, &file.path)).ok_or_else(|| {
                Error::new(ErrorKind::Internal, "find copied data file").with("file", &file.path)
            })?;
            add(file, own).map(Action::Add)
        });
        adds.collect()
    }

    /// The table's own metadata with the columns of `staged`.
    fn metadata_of(&self, staged: &Table) -> Result<Metadata> {
        let own = self.state()?.metadata();
        let kernel = kernel_schema(staged.schema()?.as_ref())?;
        let failed = |source| lower(source, "change table schema").with("table", &self.path);
        if staged.partition_by()? == self.partition_by()? {
            return own
                .clone()
                .with_schema(&kernel)
                .map_err(|source| failed(source.into()));
        }
        let changed = new_metadata(&kernel, staged.partition_by()?, own.configuration())
            .and_then(|metadata| metadata.with_table_id(own.id().to_owned()));
        changed.map_err(|source| failed(source.into()))
    }

    /// Commits, or finds out why that cannot be. Unlike a load, a swap need not move the watermark.
    async fn commit_swap(
        &mut self,
        actions: Vec<Action>,
        operation: DeltaOperation,
        note: &SwapNote,
    ) -> Result<Committed> {
        let before = self.version();
        let state = self.state()?.clone();
        let outcome = CommitBuilder::from(note.properties(self.once()?))
            .with_actions(actions)
            .build(Some(&state), self.delta.log_store(), operation)
            .await;
        self.refresh().await?;
        let source = match outcome {
            Ok(commit) => {
                let version = commit.version();
                return Ok(Committed::Applied { version });
            }
            Err(source) => source,
        };
        if let Some(version) = self.commit_of(&note.commit.load_id).await? {
            return Ok(Committed::Applied { version });
        }
        if self.version() > before {
            return Ok(Committed::Conflicted);
        }
        Err(lower(source, "swap table").with("table", &self.path))
    }
}

impl SwapNote {
    fn properties(&self, once: CommitProperties) -> CommitProperties {
        let note = &self.commit;
        let mut said = note.fields();
        said.insert(KEYS_FIELD.to_owned(), self.keys.clone().into());
        once.with_metadata(said)
            .with_application_transaction(Transaction::new(&note.app, note.batch.get()))
    }
}

/// The action that adds `file`, which was copied to `own`.
fn add(file: &DataFile, own: &Path) -> Result<Add> {
    if file.vector.is_some() {
        // Its rows would be back.
        return Err(
            Error::new(ErrorKind::Internal, "add a copied file that has deleted rows")
                .with("file", &file.path),
        );
    }

    let before = file.view.path();
    let name = own.filename().unwrap_or_default();
    let path = match before.rsplit_once('/') {
        Some((folder, _)) => format!("{folder}/{name}"),
        None => name.to_owned(),
    };
    Ok(Add {
        path,
        partition_values: file.partition.iter().cloned().collect(),
        size: file.view.size(),
        modification_time: file.view.modification_time(),
        data_change: true,
        stats: file.stats.clone(),
        tags: None,
        deletion_vector: None,
        base_row_id: None,
        default_row_commit_version: None,
        clustering_provider: None,
    })
}

fn below(root: &Path, own: &Path) -> Path {
    root.parts().chain(own.parts()).collect()
}

fn overwrite() -> DeltaOperation {
    DeltaOperation::Write {
        mode: SaveMode::Overwrite,
        partition_by: None,
        predicate: None,
    }
}
