//! Child tables: each is a function of the main table, and follows it from version to version.
//!
//! ```text
//! main at the version last followed ─┐
//!                                    ├─ files gone, files new ─ rows that are only in one ─► child rows out, child rows in
//! main now ──────────────────────────┘
//! ```
//!
//! A row of the main table is known by its raw position, and what a load writes at a position never changes; so only the
//! files between two versions are read. The commit of the child names the version of the main table that it shows.
//! Where the way from one version to the other cannot be told, the child is made anew.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use arrow::{
    array::{BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::{Schema, SchemaRef},
};
use deltalake::{
    kernel::{Action, CommitInfo, Transaction, schema::cast_record_batch, transaction::CommitBuilder},
    protocol::{DeltaOperation, SaveMode},
};
use futures::TryStreamExt as _;
use object_store::path::Path;

use super::{
    HISTORY_COMMITS_MAX, Table, Tables,
    aside::{Place, places},
    deleted::Deleted,
    edit::{Edits, Patches},
    evolve,
    explode::{Explosion, live},
    file::DataFile,
    is_fence,
    latest::arrow_error,
    lower,
    promote::is_load,
    release::is_release,
    write::Writer,
};
use crate::error::{Error, ErrorKind, Result};

/// Commits tried for one child table; each fails only because another writer was faster.
const COMMIT_ATTEMPTS_MAX: u32 = 10;

/// Rows of the main table's old files that are held in memory, about 40 bytes each. If there are more, the child is made anew.
const ROWS_HELD_MAX: u64 = 4_000_000;

/// How a child table came to show its main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// It did already.
    Already,
    /// Rows went out and came in.
    Changed {
        /// Rows of the main table whose children went.
        gone: u64,
        /// Children that came.
        added: u64,
    },
    /// All of its rows were made anew.
    Remade {
        /// Children.
        rows: u64,
    },
}

/// Whether every row stays what it is with a commit.
fn keeps_all(commit: &CommitInfo) -> bool {
    commit.operation.as_deref() == Some("OPTIMIZE") || is_fence(commit)
}

/// How a child table is brought up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// By what changed since the version it shows.
    Changes,
    /// Whatever it shows, all of its rows are made again.
    Anew,
}

/// Data files of a main table between two of its versions.
struct Between {
    gone: Vec<DataFile>,
    new: Vec<DataFile>,
    /// Those of which rows were marked as deleted, before and now.
    marked: Vec<(DataFile, DataFile)>,
}

impl Tables {
    /// Brings the child table at `path` to the version of `main`.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if other writers were faster every time; else those of reading and writing the tables.
    pub async fn follow(
        &self,
        main: &Table,
        path: &Path,
        explosion: &Explosion,
        how: Follow,
    ) -> Result<Followed> {
        for _ in 0..COMMIT_ATTEMPTS_MAX {
            let mut child = self.open_or_create(path, explosion.schema(), &[]).await?;
            let shown = child.shows(main).await?.filter(|_| how == Follow::Changes);
            let between = match shown {
                Some(shown) if shown == main.version() => return Ok(Followed::Already),
                // Somebody else knows a newer version, unless the main table was put back to an older one.
                Some(shown) if shown > main.version() => {
                    let newest = self.open(main.path()).await?;
                    if newest.is_some_and(|newest| newest.version() >= shown) {
                        return Ok(Followed::Already);
                    }
                    None
                }
                Some(shown) => main.between(shown).await?,
                None => None,
            };
            let schema = evolve::union(child.schema()?.as_ref(), explosion.schema());
            let planned = match (between, schema) {
                (Some(between), Ok(schema)) => {
                    match child.plan_changed(main, explosion, between, schema).await {
                        // Its old files may have been vacuumed.
                        Err(error) if error.kind() == ErrorKind::Corrupt => {
                            child.plan_anew(main, explosion).await
                        }
                        planned => planned,
                    }
                }
                _ => child.plan_anew(main, explosion).await,
            };
            let (actions, followed) = planned?;
            if child.commit_shown(actions, main).await? {
                return Ok(followed);
            }
        }
        Err(Error::new(ErrorKind::Conflict, "follow main table")
            .with("table", path)
            .with("attempts_max", COMMIT_ATTEMPTS_MAX))
    }
}

impl Table {
    /// The version of `main` that this child table shows, or `None` if it shows another table.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the log cannot be read.
    pub async fn shows(&self, main: &Self) -> Result<Option<u64>> {
        let log_store = self.delta.log_store();
        let shown = self
            .state()?
            .transaction_version(log_store.as_ref(), main.shown_as()?)
            .await
            .map_err(|source| lower(source, "read what a child table shows").with("table", &self.path))?;
        Ok(shown.and_then(|version| u64::try_from(version).ok()))
    }

    /// Whether a child table that shows the version `shown` of this table shows its rows of now: there was nothing but
    /// compaction since.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the log cannot be read.
    pub async fn is_as_at(&self, shown: u64) -> Result<bool> {
        let count = usize::try_from(self.version().saturating_sub(shown)).unwrap_or(usize::MAX);
        if count == 0 || count > HISTORY_COMMITS_MAX {
            return Ok(count == 0);
        }
        let commits: Vec<CommitInfo> = self
            .delta
            .history(Some(count))
            .try_collect()
            .await
            .map_err(|source| lower(source, "read table history").with("table", &self.path))?;
        Ok(commits.len() >= count && commits.iter().all(keeps_all))
    }

    /// What child tables call this table, whatever is at its place later.
    fn shown_as(&self) -> Result<String> {
        Ok(format!("landfall/child-of/{}", self.state()?.metadata().id()))
    }

    /// The files that this version and the version `shown` do not share; `None` if something else than loads, releases and
    /// compaction happened between them, or nobody can tell.
    async fn between(&self, shown: u64) -> Result<Option<Between>> {
        let count = usize::try_from(self.version() - shown).unwrap_or(usize::MAX);
        if count > HISTORY_COMMITS_MAX {
            return Ok(None);
        }
        let Ok(commits) = self.delta.history(Some(count)).try_collect::<Vec<_>>().await else {
            return Ok(None);
        };
        let keeps_rows = |commit: &CommitInfo| keeps_all(commit) || is_release(commit) || is_load(commit);
        // All that were told: those behind this version come first, and are none of `count`.
        if commits.len() < count || !commits.iter().all(keeps_rows) {
            return Ok(None);
        }
        let mut before = self.clone();
        if before.delta.load_version(shown).await.is_err() {
            return Ok(None);
        }
        let mut gone: HashMap<Path, DataFile> = HashMap::new();
        gone.extend(before.files()?.into_iter().map(|file| (file.path.clone(), file)));
        let (mut new, mut marked) = (Vec::new(), Vec::new());
        for file in self.files()? {
            match gone.remove(&file.path) {
                Some(before) if before.logical() == file.logical() => {}
                Some(before) => marked.push((before, file)),
                None => new.push(file),
            }
        }
        let gone: Vec<DataFile> = gone.into_values().collect();
        let held: Option<u64> = gone.iter().map(DataFile::rows).sum();
        let held = held.map(|held| {
            let newly = |(before, now): &(DataFile, DataFile)| now.deleted().saturating_sub(before.deleted());
            held + marked.iter().map(newly).sum::<u64>()
        });
        let between = Between { gone, new, marked };
        Ok(held.is_some_and(|held| held <= ROWS_HELD_MAX).then_some(between))
    }

    /// Takes the children out whose parents are only in old files, and adds those of parents that are only in new ones.
    async fn plan_changed(
        &self,
        main: &Self,
        explosion: &Explosion,
        between: Between,
        schema: Schema,
    ) -> Result<(Vec<Action>, Followed)> {
        let mut gone: HashSet<Place> = HashSet::new();
        for file in &between.gone {
            let columns = main.columns_of(&explosion.reads_of_life())?;
            let mut rows = std::pin::pin!(main.read(file, columns).await?);
            while let Some(batch) = rows.try_next().await? {
                gone.extend(live_places(&batch));
            }
        }
        for (before, now) in &between.marked {
            let store = main.store();
            let known = Deleted::of(store.as_ref(), before).await?;
            let Some(newly) = Deleted::of(store.as_ref(), now).await?.since(&known) else {
                return self.plan_anew(main, explosion).await;
            };
            let columns = main.columns_of(&explosion.reads_of_life())?;
            let mut rows = std::pin::pin!(main.open(now).await?.rows_at(&newly, columns)?);
            while let Some(batch) = rows.try_next().await? {
                gone.extend(live_places(&batch));
            }
        }
        let shape = Arc::new(schema);
        let mut writer = self.writer(Arc::clone(&shape))?;
        let mut added = 0;
        for file in &between.new {
            added += main
                .write_children(file, explosion, (&shape, &mut writer), &mut |place| {
                    !gone.remove(&place)
                })
                .await?;
        }
        let mut actions = writer.close().await?;
        actions.extend(self.without(&gone, &shape).await?);
        if *shape != *self.schema()? {
            actions.push(Action::Metadata(self.metadata_with(&shape)?));
        }
        let gone = gone.len() as u64;
        Ok((actions, Followed::Changed { gone, added }))
    }

    /// All children of the main table instead of what is there.
    async fn plan_anew(&self, main: &Self, explosion: &Explosion) -> Result<(Vec<Action>, Followed)> {
        let shape = explosion.schema();
        let mut writer = self.writer(Arc::clone(shape))?;
        let mut rows = 0;
        for file in main.files()? {
            rows += main
                .write_children(&file, explosion, (shape, &mut writer), &mut |_| true)
                .await?;
        }
        let mut actions = writer.close().await?;
        actions.extend(self.files()?.iter().map(Self::remove));
        if *self.schema()? != **shape {
            actions.push(Action::Metadata(self.metadata_with(shape)?));
        }
        Ok((actions, Followed::Remade { rows }))
    }

    /// Writes the children of those live rows of `file` that `wanted` says.
    async fn write_children(
        &self,
        file: &DataFile,
        explosion: &Explosion,
        (shape, writer): (&SchemaRef, &mut Writer),
        wanted: &mut (dyn FnMut(Place) -> bool + Send),
    ) -> Result<u64> {
        let mut written = 0;
        let mut rows = std::pin::pin!(self.read(file, Arc::clone(explosion.reads())).await?);
        while let Some(batch) = rows.try_next().await? {
            let keep: BooleanArray = places(&batch)
                .zip(live(&batch))
                .map(|(place, live)| Some(live && wanted(place)))
                .collect();
            let parents = filter_record_batch(&batch, &keep).map_err(arrow_error)?;
            for parents in explosion.pieces(&parents)? {
                let children = explosion.rows(&parents)?;
                let children = cast_record_batch(&children, Arc::clone(shape), false, true)
                    .map_err(|source| lower(source, "shape rows"))?;
                written += children.num_rows() as u64;
                writer.write(&children).await?;
            }
        }
        Ok(written)
    }

    /// What takes the children of `parents` out of this table.
    async fn without(&self, parents: &HashSet<Place>, schema: &SchemaRef) -> Result<Vec<Action>> {
        let batches: BTreeSet<i64> = parents.iter().map(|place| place.0).collect();
        let mut actions = Vec::new();
        for file in self.files_of_batches(&batches)? {
            let drops = self.find_places(&file, parents, &mut HashSet::new()).await?;
            if drops.is_empty() {
                continue;
            }
            let edits = Edits {
                drops,
                ..Edits::default()
            };
            let mut writer = self.writer(Arc::clone(schema))?;
            self.copy_edited(&file, edits, &Patches::default(), schema, &mut writer)
                .await?;
            actions.extend(writer.close().await?);
            actions.push(Self::remove(&file));
        }
        Ok(actions)
    }

    /// Commits `actions` as showing `main`; false if somebody else was faster.
    async fn commit_shown(&mut self, actions: Vec<Action>, main: &Self) -> Result<bool> {
        let version = i64::try_from(main.version()).unwrap_or(i64::MAX);
        let properties = self
            .once()?
            .with_application_transaction(Transaction::new(main.shown_as()?, version));
        let operation = DeltaOperation::Write {
            mode: SaveMode::Append,
            partition_by: None,
            predicate: None,
        };
        let before = self.version();
        let state = self.state()?.clone();
        let outcome = CommitBuilder::from(properties)
            .with_actions(actions)
            .build(Some(&state), self.delta.log_store(), operation)
            .await;
        let Err(source) = outcome else { return Ok(true) };
        self.refresh().await?;
        // A lost answer is found by the next look at what the table shows.
        if self.version() > before {
            return Ok(false);
        }
        Err(lower(source, "commit child table").with("table", &self.path))
    }
}

/// The places of those of `rows` that are not deleted as the table has it.
fn live_places(rows: &RecordBatch) -> impl Iterator<Item = Place> {
    let live = live(rows);
    let all = places(rows).zip(live);
    all.filter(|(_, live)| *live).map(|(place, _)| place)
}
