//! Delta tables: open, evolve, merge, commit. The only module that names delta-rs.
//!
//! ```text
//! accepted rows ─ merge (latest per key ─ prune files ─ probe keys ─ rewrite) ─► Planned ─ commit (txn = batch) ─► main table
//! other rows ──── side  (drop void rows ─ append) ──────────────────────────────────────────────────────────────► side tables
//! ```
//!
//! A load becomes visible by one atomic step: the Delta commit of the main table, whose `txn` is the watermark.

pub mod absent;
pub mod acknowledged;
pub mod align;
pub mod aside;
mod change;
pub mod children;
mod columns;
pub mod contracts;
mod copied;
mod deleted;
mod edit;
mod encode;
mod encoding;
mod evolve;
pub mod explode;
mod failure;
mod feature;
mod file;
mod groups;
pub mod history;
mod kept;
mod latest;
pub mod loaded;
pub mod maintain;
mod mark;
pub mod merge;
mod opened;
mod output;
mod probe;
pub mod profiles;
pub mod promote;
mod prune;
pub mod release;
pub mod side;
mod slices;
mod split;
mod stats;
pub mod system;
mod tasks;
#[cfg(test)]
mod tests;
pub mod tombstones;
mod upsert;
pub mod widen;
mod write;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::{catalog::TableProvider, execution::context::SessionContext};
use deltalake::{
    DeltaTable, DeltaTableError, ObjectStore,
    kernel::{
        Action, CommitInfo, Metadata, MetadataExt as _, StructType, Transaction,
        engine::arrow_conversion::TryIntoKernel as _,
        transaction::{CommitBuilder, CommitProperties},
    },
    logstore::{StorageConfig, default_logstore},
    protocol::{DeltaOperation, SaveMode},
    table::config::TablePropertiesExt as _,
};
use futures::TryStreamExt as _;
use object_store::{path::Path, prefix::PrefixStore};
use url::Url;

use self::{failure::lower, file::Logical, kept::Kept, mark::Mark};
use crate::{
    config::StreamName,
    error::{Error, ErrorKind, Result},
    raw::BatchNumber,
};

/// Commits looked through for our own when the answer to one was lost.
const HISTORY_COMMITS_MAX: usize = 100;

/// The `commitInfo` field that says which load made a commit.
const LOAD_FIELD: &str = "landfallLoad";

/// The `commitInfo` field of a commit that only takes a version.
const FENCE_FIELD: &str = "landfallFence";

/// The `commitInfo` field that says with which raw batch that load began.
const FROM_FIELD: &str = "landfallFrom";

/// The `commitInfo` field with the version of the contract that judged what a commit holds.
const CONTRACT_FIELD: &str = "landfallContract";

/// The `commitInfo` field with the SHA-256 of the project file in force.
const CONFIG_FIELD: &str = "landfallConfig";

/// The `commitInfo` field with the ids of the traces that the records of a load belong to.
const TRACES_FIELD: &str = "landfallTraces";

/// The `commitInfo` field with the version of the program.
const PROGRAM_FIELD: &str = "landfallVersion";

/// Who moves a watermark: one generation of one stream, as the `appId` of Delta's `txn` action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppId(String);

impl AppId {
    /// The generation of a table that is in use. A rebuilt table goes on with it: it holds the same batches.
    pub const GENERATION: u32 = 0;

    /// The application of `generation` of `stream`.
    ///
    /// ```
    /// use landfall::{config::StreamName, table::AppId};
    /// let stream = StreamName::parse("shop.orders")?;
    /// assert_eq!(AppId::new(&stream, 0).to_string(), "landfall/shop/orders/0");
    /// # Ok::<(), landfall::error::Error>(())
    /// ```
    pub fn new(stream: &StreamName, generation: u32) -> Self {
        Self(format!(
            "landfall/{}/{}/{generation}",
            stream.source, stream.stream
        ))
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a commit ended. Losing a race is an outcome, not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// This load is in the table, as this table version.
    Applied {
        /// The Delta version of the commit.
        version: u64,
    },
    /// Another load has already moved the watermark to this batch or beyond.
    AlreadyApplied,
    /// Somebody else committed first; plan again against the new version.
    Conflicted,
}

/// The Delta tables of one lake.
#[derive(Clone, Debug)]
pub struct Tables {
    store: Arc<dyn ObjectStore>,
    root: Url,
    kept: Kept,
}

impl Tables {
    /// Tables under the root of `store`.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if no URL can be made for them.
    pub fn new(store: Arc<dyn ObjectStore>) -> Result<Self> {
        // DataFusion keeps object stores by URL; a name of its own per lake keeps two lakes of one process apart.
        let id = uuid::Uuid::now_v7().simple();
        let root = Url::parse(&format!("lake://{id}/"))
            .map_err(|source| Error::new(ErrorKind::Internal, "name lake").caused_by(source))?;
        let kept = Kept::default();
        Ok(Self { store, root, kept })
    }

    /// Opens the newest version of the table at `path`, or `None` if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for a log that cannot be read, [`ErrorKind::Unavailable`] if the store does not answer.
    pub async fn open(&self, path: &Path) -> Result<Option<Table>> {
        if let Some((mut table, newest)) = self.kept.get(path).await {
            if newest {
                return Ok(Some(table));
            }
            // Whatever is wrong with what was kept, the log tells.
            if table.refresh().await.is_ok() {
                self.kept.put(&table).await;
                return Ok(Some(table));
            }
        }
        self.open_anew(path).await
    }

    /// As [`Tables::open`], from the log alone.
    async fn open_anew(&self, path: &Path) -> Result<Option<Table>> {
        self.kept.forget(path);
        let mut delta = self.unopened(path)?;
        match delta.load().await {
            Ok(()) => {
                let table = Table::new(delta, path);
                self.kept.put(&table).await;
                Ok(Some(table))
            }
            Err(DeltaTableError::NotATable(_)) => Ok(None),
            Err(source) => Err(lower(source, "open table").with("table", path)),
        }
    }

    /// Opens the table at `path`, creating it with `schema` first if there is none.
    ///
    /// # Errors
    /// As [`Tables::open`], and [`ErrorKind::Internal`] for a schema Delta cannot hold.
    pub async fn open_or_create(
        &self,
        path: &Path,
        schema: &Schema,
        partition_by: &[String],
    ) -> Result<Table> {
        if let Some(table) = self.open(path).await? {
            return Ok(table);
        }
        let kernel = kernel_schema(schema)?;
        let created = deltalake::operations::create::CreateBuilder::new()
            .with_log_store(self.unopened(path)?.log_store())
            .with_save_mode(SaveMode::ErrorIfExists)
            .with_columns(kernel.fields().cloned())
            .with_partition_columns(partition_by.to_vec())
            // With retries, the loser of a race would commit its metadata as the second version.
            .with_commit_properties(CommitProperties::default().with_max_retries(0))
            .await;
        match created {
            Ok(delta) => Ok(Table::new(delta, path)),
            // Another writer may have created it in between; then theirs is the table.
            Err(source) => match self.open(path).await? {
                Some(table) => Ok(table),
                None => Err(lower(source, "create table").with("table", path)),
            },
        }
    }

    fn unopened(&self, path: &Path) -> Result<DeltaTable> {
        let location = self.root.join(&format!("{path}/")).map_err(|source| {
            Error::new(ErrorKind::Internal, "name table")
                .with("table", path)
                .caused_by(source)
        })?;
        let prefixed = Arc::new(PrefixStore::new(Arc::clone(&self.store), path.clone()));
        Ok(DeltaTable::new(default_logstore(
            prefixed,
            Arc::clone(&self.store),
            &location,
            &StorageConfig::default(),
        )))
    }
}

/// One version of one Delta table.
#[derive(Clone, Debug)]
pub struct Table {
    delta: DeltaTable,
    path: Path,
    mark: Mark,
}

/// Where a stream's table stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The newest raw batch in the table, or `None` before the first load.
    pub watermark: Option<BatchNumber>,
    /// The load that brought it there, if the log still tells.
    pub last: Option<LastLoad>,
}

/// The load that moved a watermark last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastLoad {
    /// The load, a UUIDv7.
    pub load_id: String,
    /// Its first raw batch.
    pub from: BatchNumber,
}

impl Standing {
    /// The batch that the next load begins with.
    pub fn next(&self) -> BatchNumber {
        self.watermark.map_or(BatchNumber::FIRST, BatchNumber::next)
    }
}

/// What a commit says about itself besides its actions.
#[derive(Clone, Debug)]
pub struct CommitNote {
    /// Who moves the watermark.
    pub app: AppId,
    /// The first raw batch of the load.
    pub from: BatchNumber,
    /// The last raw batch that is in the table after this commit.
    pub batch: BatchNumber,
    /// The load, a UUIDv7.
    pub load_id: String,
    /// By what its rows were made.
    pub rules: RulesNote,
    /// Ids of W3C traces that its records belong to, in the order of raw; a few of them if there are many.
    pub traces: Vec<String>,
}

/// By what the rows of a commit were made, so that the table's own history tells it long after the files have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RulesNote {
    /// The version of the contract that judged.
    pub contract: String,
    /// SHA-256 of the project file, lowercase hex; the same that stands in each raw log entry.
    pub config: String,
}

impl RulesNote {
    /// The fields of `commitInfo` that say it, and which version of this program it was.
    fn fields(&self) -> HashMap<String, serde_json::Value> {
        HashMap::from([
            (CONTRACT_FIELD.to_owned(), self.contract.clone().into()),
            (CONFIG_FIELD.to_owned(), self.config.clone().into()),
            (PROGRAM_FIELD.to_owned(), env!("CARGO_PKG_VERSION").into()),
        ])
    }
}

impl CommitNote {
    /// The fields of `commitInfo` that say it.
    fn fields(&self) -> HashMap<String, serde_json::Value> {
        let mut fields = self.rules.fields();
        fields.insert(LOAD_FIELD.to_owned(), self.load_id.clone().into());
        fields.insert(FROM_FIELD.to_owned(), self.from.get().into());
        if !self.traces.is_empty() {
            fields.insert(TRACES_FIELD.to_owned(), self.traces.clone().into());
        }
        fields
    }
}

impl Table {
    fn new(delta: DeltaTable, path: &Path) -> Self {
        Self {
            delta,
            path: path.clone(),
            mark: Mark::default(),
        }
    }

    /// Where the table is in the lake.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The Delta version that is open.
    pub fn version(&self) -> u64 {
        self.delta.version().unwrap_or(0)
    }

    /// The columns, partition columns included.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if no version is loaded.
    pub fn schema(&self) -> Result<SchemaRef> {
        Ok(self.state()?.snapshot().arrow_schema())
    }

    /// Names of the partition columns.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if no version is loaded.
    pub fn partition_by(&self) -> Result<Vec<String>> {
        Ok(self.state()?.metadata().partition_columns().to_vec())
    }

    /// The newest raw batch in this version of the table, or `None` before the first.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the log cannot be read.
    pub async fn watermark(&self, app: &AppId) -> Result<Option<BatchNumber>> {
        if let Some(watermark) = self.mark.of(self.version(), app) {
            return Ok(watermark);
        }
        let log_store = self.delta.log_store();
        let version = self
            .state()?
            .transaction_version(log_store.as_ref(), app)
            .await
            .map_err(|source| lower(source, "read watermark").with("table", &self.path))?;
        let watermark = version.map(BatchNumber::new).transpose()?;
        self.mark.set(self.version(), app, watermark);
        Ok(watermark)
    }

    /// The watermark and who moved it there.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the log cannot be read.
    pub async fn standing(&self, app: &AppId) -> Result<Standing> {
        let watermark = self.watermark(app).await?;
        let last = match watermark {
            Some(_) => self.last_load().await?,
            None => None,
        };
        Ok(Standing { watermark, last })
    }

    async fn last_load(&self) -> Result<Option<LastLoad>> {
        let mut commits = std::pin::pin!(self.delta.history(Some(HISTORY_COMMITS_MAX)));
        while let Some(commit) = commits
            .try_next()
            .await
            .map_err(|source| lower(source, "read table history").with("table", &self.path))?
        {
            let load_id = commit.info.get(LOAD_FIELD).and_then(|id| id.as_str());
            let from = commit.info.get(FROM_FIELD).and_then(serde_json::Value::as_i64);
            if let (Some(load_id), Some(from)) = (load_id, from) {
                let from = BatchNumber::new(from)?;
                return Ok(Some(LastLoad {
                    load_id: load_id.to_owned(),
                    from,
                }));
            }
        }
        Ok(None)
    }

    /// Takes the next version of the table for a commit that changes nothing, so that every plan made against this one
    /// must be made again.
    ///
    /// Conflicted also if another commit came right behind it: what was found out before is then no longer so.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the log can be neither written nor read back.
    pub async fn fence(&mut self) -> Result<Committed> {
        let state = self.state()?.clone();
        let operation = DeltaOperation::Write {
            mode: SaveMode::Append,
            partition_by: None,
            predicate: None,
        };
        let before = self.version();
        let properties = self
            .once()?
            .with_metadata([(FENCE_FIELD.to_owned(), true.into())]);
        let outcome = CommitBuilder::from(properties)
            .build(Some(&state), self.delta.log_store(), operation)
            .await;
        self.refresh().await?;
        match outcome {
            Ok(commit) => Ok(self.unless_overtaken(commit.version())),
            Err(_) if self.version() > before => Ok(Committed::Conflicted),
            Err(source) => Err(lower(source, "fence table").with("table", &self.path)),
        }
    }

    /// What came of our commit `version` for somebody who goes on from what was known before it.
    fn unless_overtaken(&self, version: u64) -> Committed {
        if self.version() == version {
            Committed::Applied { version }
        } else {
            Committed::Conflicted
        }
    }

    /// Whether every file that `actions` remove is in this version, with the same rows deleted. A plan whose files are gone
    /// is one of another version, and would bring their rows back.
    fn holds(&self, actions: &[Action]) -> Result<bool> {
        let removed = actions.iter().filter_map(|action| match action {
            Action::Remove(file) => Some(Logical::of(&file.path, file.deletion_vector.as_ref())),
            _ => None,
        });
        let mut removed = removed.peekable();
        if removed.peek().is_none() {
            return Ok(true);
        }
        let live: HashSet<Logical> = self
            .state()?
            .log_data()
            .iter()
            .map(|file| Logical::of(&file.path(), file.deletion_vector_descriptor().as_ref()))
            .collect();
        Ok(removed.all(|file| live.contains(&file)))
    }

    /// Moves to the newest version.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the log cannot be read.
    pub async fn refresh(&mut self) -> Result<()> {
        self.delta
            .load()
            .await
            .map_err(|source| lower(source, "reload table").with("table", &self.path))
    }

    /// How a commit of ours is made: once, because what is committed is right for the version it was made against and for no
    /// other. Old commits are looked for only when a checkpoint is written; without one none can go, and it lists the log.
    fn once(&self) -> Result<CommitProperties> {
        let interval = self.state()?.table_config().checkpoint_interval();
        let checkpoint = (self.version() + 2).is_multiple_of(interval.get());
        let properties = CommitProperties::default().with_max_retries(0);
        Ok(if checkpoint {
            properties
        } else {
            properties.with_cleanup_expired_logs(Some(false))
        })
    }

    /// Data files of this version.
    fn files_count(&self) -> usize {
        self.state().map_or(0, |state| state.log_data().num_files())
    }

    /// This version as a DataFusion table.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if delta-rs cannot plan a scan of it.
    pub async fn provider(&self, session: &SessionContext) -> Result<Arc<dyn TableProvider>> {
        self.delta
            .update_datafusion_session(&session.state())
            .map_err(|source| lower(source, "register table store").with("table", &self.path))?;
        self.delta
            .table_provider()
            .await
            .map_err(|source| lower(source.into(), "plan table").with("table", &self.path))
    }

    fn state(&self) -> Result<&deltalake::table::state::DeltaTableState> {
        self.delta
            .snapshot()
            .map_err(|source| lower(source, "read table state").with("table", &self.path))
    }

    /// The table's metadata with the columns of `schema`.
    fn metadata_with(&self, schema: &Schema) -> Result<Metadata> {
        let metadata = self.state()?.metadata().clone();
        metadata
            .with_schema(&kernel_schema(schema)?)
            .map_err(|source| lower(source.into(), "change table schema").with("table", &self.path))
    }

    /// Commits `actions` with the watermark of `note`, or finds out why that cannot be.
    async fn commit(
        &mut self,
        mut actions: Vec<Action>,
        schema: Option<&Schema>,
        operation: DeltaOperation,
        note: &CommitNote,
    ) -> Result<Committed> {
        self.announce(&mut actions, schema)?;
        if !self.holds(&actions)? {
            return Ok(Committed::Conflicted);
        }
        let builder = CommitBuilder::from(
            self.once()?
                .with_metadata(note.fields())
                .with_application_transaction(Transaction::new(&note.app, note.batch.get())),
        );
        let state = self.state()?.clone();
        let outcome = builder
            .with_actions(actions)
            .build(Some(&state), self.delta.log_store(), operation)
            .await;
        match outcome {
            Ok(commit) => {
                let version = commit.version();
                self.delta.state = Some(commit.snapshot);
                self.mark.set(version, &note.app, Some(note.batch));
                Ok(Committed::Applied { version })
            }
            Err(source) => self.after_failure(source, note).await,
        }
    }

    /// The reply to a commit may be lost although the commit stands: the log says which.
    async fn after_failure(&mut self, source: DeltaTableError, note: &CommitNote) -> Result<Committed> {
        let before = self.version();
        self.refresh().await?;
        if self
            .watermark(&note.app)
            .await?
            .is_some_and(|batch| batch >= note.batch)
        {
            return Ok(match self.commit_of(&note.load_id).await? {
                Some(version) => Committed::Applied { version },
                None => Committed::AlreadyApplied,
            });
        }
        if self.version() > before {
            return Ok(Committed::Conflicted);
        }
        Err(lower(source, "commit table").with("table", &self.path))
    }

    async fn commit_of(&self, load_id: &str) -> Result<Option<u64>> {
        let newest = self.version();
        let history: Vec<_> = self
            .delta
            .history(Some(HISTORY_COMMITS_MAX))
            .try_collect()
            .await
            .map_err(|source| lower(source, "read table history").with("table", &self.path))?;
        let found = history
            .iter()
            .position(|commit| commit.info.get(LOAD_FIELD).and_then(|id| id.as_str()) == Some(load_id));
        Ok(found.map(|back| newest.saturating_sub(back as u64)))
    }
}

fn is_fence(commit: &CommitInfo) -> bool {
    commit.info.contains_key(FENCE_FIELD)
}

fn kernel_schema(schema: &Schema) -> Result<StructType> {
    schema
        .try_into_kernel()
        .map_err(|source| Error::new(ErrorKind::Internal, "convert schema to Delta").caused_by(source))
}
