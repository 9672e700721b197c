//! Tables opened before, so that opening one again asks only whether it is still the newest version.
//!
//! A version whose commit stands unchanged and has none behind it is the newest: three questions to the store instead of a
//! listing and every commit since the last checkpoint.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::try_join;
use object_store::{Error as StoreError, ObjectMeta, ObjectStoreExt as _, path::Path};

use super::Table;

/// Tables kept at most.
const TABLES_MAX: usize = 64;

/// Data files of all tables kept together; about 2 KB of memory go to one.
const FILES_MAX: usize = 50_000;

/// The tables that were opened last.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept(Arc<Mutex<Vec<KeptTable>>>);

/// What a table was when it was opened.
#[derive(Clone, Debug)]
struct KeptTable {
    table: Table,
    marks: Marks,
}

/// What tells a version from the same number of a table made anew, and from one whose log was cut since.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Marks {
    commit: Option<ObjectMeta>,
    checkpoint: Option<ObjectMeta>,
}

impl Kept {
    /// The table at `path` as it was kept, and whether that is its newest version; `None` if it has to be read anew.
    ///
    /// What the store does not answer is for the reader of the table to say, so it counts as not kept.
    pub(super) async fn get(&self, path: &Path) -> Option<(Table, bool)> {
        let kept = self
            .lock()
            .iter()
            .find(|kept| kept.table.path == *path)
            .cloned()?;
        let next = commit_key(kept.table.version() + 1);
        match try_join!(marks(&kept.table), look(&kept.table, &next)) {
            Ok((marks, next)) if marks == kept.marks => Some((kept.table, next.is_none())),
            _ => {
                self.forget(path);
                None
            }
        }
    }

    /// Keeps `table`, and those opened last beside it as far as there is room.
    pub(super) async fn put(&self, table: &Table) {
        let files = table.files_count();
        let Ok(marks) = marks(table).await else { return };
        if marks.commit.is_none() || files > FILES_MAX {
            return self.forget(&table.path);
        }
        let table = table.clone();
        let mut kept = self.lock();
        kept.retain(|kept| kept.table.path != table.path);
        kept.push(KeptTable { table, marks });
        let mut room = FILES_MAX;
        let mut newest = 0;
        for kept in kept.iter().rev().take(TABLES_MAX) {
            let Some(left) = room.checked_sub(kept.table.files_count()) else {
                break;
            };
            (room, newest) = (left, newest + 1);
        }
        let surplus = kept.len() - newest;
        kept.drain(..surplus);
    }

    /// Reads the table at `path` anew the next time.
    pub(super) fn forget(&self, path: &Path) {
        self.lock().retain(|kept| kept.table.path != *path);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<KeptTable>> {
        // Nothing in here panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn commit_key(version: u64) -> Path {
    Path::from(format!("_delta_log/{version:020}.json"))
}

async fn marks(table: &Table) -> Result<Marks, StoreError> {
    let commit = commit_key(table.version());
    let checkpoint = Path::from("_delta_log/_last_checkpoint");
    let (commit, checkpoint) = try_join!(look(table, &commit), look(table, &checkpoint))?;
    Ok(Marks { commit, checkpoint })
}

/// What is at `key` of the table's folder, if there is something.
async fn look(table: &Table, key: &Path) -> Result<Option<ObjectMeta>, StoreError> {
    match table.store().head(key).await {
        Ok(meta) => Ok(Some(meta)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
