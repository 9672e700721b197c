//! `landfall maintain`: the lake kept small, without anything that a reader or a replay needs going.
//!
//! ```text
//! expire ─► sweep (raw)      compact ─► checkpoint ─► vacuum ─► logs (tables)
//! ```

mod keep;
mod landed;
mod tables;

use std::{fmt, str::FromStr};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{Error as StoreError, ObjectMeta, ObjectStoreExt as _, path::Path};

use crate::{
    config::StreamName,
    error::{Error, ErrorKind, Result},
    ops::Workspace,
    raw::{links, store::lower},
};

/// Deletions under way at once.
const DELETES_IN_FLIGHT_MAX: usize = 16;

/// A part of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Raw objects past their retention go.
    Expire,
    /// What processes that died left behind goes.
    Sweep,
    /// Small data files are put together.
    Compact,
    /// The logs of tables are summed up.
    Checkpoint,
    /// Data files that no version needs go.
    Vacuum,
    /// Logs of tables in front of a checkpoint go.
    Logs,
}

impl Task {
    /// All of them, in the order in which they are done.
    pub const ALL: [Self; 6] = [
        Self::Expire,
        Self::Sweep,
        Self::Compact,
        Self::Checkpoint,
        Self::Vacuum,
        Self::Logs,
    ];

    /// Its name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expire => "expire",
            Self::Sweep => "sweep",
            Self::Compact => "compact",
            Self::Checkpoint => "checkpoint",
            Self::Vacuum => "vacuum",
            Self::Logs => "logs",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Task {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|task| task.as_str() == text).ok_or_else(|| {
            Error::new(ErrorKind::Config, "read task")
                .with("found", text)
                .with("known", Self::ALL.map(Self::as_str).join(", "))
        })
    }
}

/// Whether anything is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DryRun {
    /// It is only said what would be.
    Yes,
    /// It is.
    No,
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The parts of the work.
    pub tasks: Vec<Task>,
    /// Whether anything is done.
    pub dry_run: DryRun,
}

/// What one task did, or would do, in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The task.
    pub task: Task,
    /// The place: a folder of the lake.
    pub place: Path,
    /// How it ended.
    pub result: StepResult,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepResult {
    /// So much went, or is written anew.
    Done {
        /// Objects.
        objects: u64,
        /// Their bytes.
        bytes: u64,
        /// What else there is to say.
        note: Option<String>,
    },
    /// Nothing was done, for a good reason.
    Kept {
        /// The reason.
        reason: String,
    },
    /// It failed; the other steps were done all the same.
    Failed {
        /// Why, in one line.
        error: String,
    },
}

impl StepResult {
    /// So many objects, and nothing else to say.
    fn of(objects: &[ObjectMeta]) -> Self {
        Self::Done {
            objects: objects.len() as u64,
            bytes: objects.iter().map(|object| object.size).sum(),
            note: None,
        }
    }

    const NOTHING: Self = Self::Done {
        objects: 0,
        bytes: 0,
        note: None,
    };

    fn kept(reason: impl Into<String>) -> Self {
        Self::Kept {
            reason: reason.into(),
        }
    }

    /// Whether there is nothing to say.
    pub fn is_nothing(&self) -> bool {
        *self == Self::NOTHING
    }
}

/// The work of one run.
struct Run<'a> {
    workspace: &'a Workspace,
    options: &'a Options,
    steps: Vec<Step>,
}

/// Does the tasks for `streams`; for what all streams share only if they are all of the project.
///
/// A step that fails holds no other up. Safe to repeat, and beside runs of any other command; where a symbolic link stands
/// nothing is deleted.
pub async fn maintain(workspace: &Workspace, streams: &[StreamName], options: &Options) -> Vec<Step> {
    let mut run = Run {
        workspace,
        options,
        steps: Vec::new(),
    };
    let whole = streams.len() == workspace.project.streams().count();
    for task in Task::ALL {
        if !options.tasks.contains(&task) {
            continue;
        }
        match task {
            Task::Expire => run.expire(streams).await,
            Task::Sweep => run.sweep(streams, whole).await,
            Task::Compact | Task::Checkpoint | Task::Vacuum | Task::Logs => {
                run.tables(task, streams, whole).await;
            }
        }
    }
    run.steps
}

impl Run<'_> {
    fn is_dry(&self) -> bool {
        self.options.dry_run == DryRun::Yes
    }

    fn took(&mut self, task: Task, place: Path, result: Result<StepResult>) {
        let result = result.unwrap_or_else(|error| StepResult::Failed { error: error.chain() });
        self.steps.push(Step { task, place, result });
    }

    /// Fails if there is a symbolic link in `folder` or on the way to it.
    async fn refuse_links(&self, folder: &Path) -> Result<()> {
        match links::first(&self.workspace.project.lake, folder).await? {
            None => Ok(()),
            Some(link) => Err(
                Error::new(ErrorKind::Refused, "delete where a symbolic link stands")
                    .with("folder", folder)
                    .with("link", link.display())
                    .with(
                        "hint",
                        "nothing was deleted there; remove the link, or clean up by hand",
                    ),
            ),
        }
    }

    /// Deletes `objects` of the lake, unless this is a dry run.
    async fn remove(&self, objects: &[ObjectMeta]) -> Result<()> {
        if self.is_dry() {
            return Ok(());
        }
        let store = &self.workspace.store;
        stream::iter(objects)
            .map(|object| async move {
                match store.delete(&object.location).await {
                    Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
                    Err(error) => Err(lower(error, "delete object", &object.location)),
                }
            })
            .buffered(DELETES_IN_FLIGHT_MAX)
            .try_collect::<()>()
            .await
    }
}
