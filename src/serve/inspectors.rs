//! What judges the records of each stream before they are kept: as its contract was a few seconds ago.

use std::{collections::HashMap, num::NonZeroUsize, sync::Arc, thread, time::Duration};

use tokio::sync::{Mutex, Semaphore};

use crate::{
    clock::{Clock, Timestamp},
    config::{Project, StreamName},
    ops::inspect::{Inspector, state},
};

/// The files of a contract are looked at again after this long: a change counts within it.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The same after they could not be read: an editor may have been at it.
const LOOK_AGAIN_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Bodies that are judged at once, for each processor. What that takes beside the bodies is bounded by it, not by the memory
/// that bodies share: those that wait for a turn hold some of that, and would wait for each other.
const TURNS_PER_PROCESSOR: usize = 2;

/// What judges the records of all streams that take what producers send.
pub(crate) struct Inspectors {
    /// Bodies that may be judged now.
    pub(crate) turns: Arc<Semaphore>,
    project: Arc<Project>,
    by_stream: HashMap<StreamName, Mutex<Option<Looked>>>,
    clock: Clock,
}

/// How the contract of a stream stands.
#[derive(Clone)]
pub(crate) enum Standing {
    /// There is none yet.
    Absent,
    /// It judges.
    Present(Arc<Inspector>),
    /// There is one, and it cannot be read.
    Unreadable,
}

/// The state of files that are to be read again at the next look.
const NO_STATE: [u8; 32] = [0; 32];

struct Looked {
    at: Timestamp,
    /// Of the files.
    state: [u8; 32],
    standing: Standing,
}

impl Looked {
    fn holds(&self, now: Timestamp) -> bool {
        let holds = match self.standing {
            Standing::Unreadable => LOOK_AGAIN_AFTER_FAILURE,
            Standing::Absent | Standing::Present(_) => LOOK_AGAIN_AFTER,
        };
        (now - self.at).to_std().unwrap_or_default() < holds
    }
}

impl Inspectors {
    /// Those of `project`. No contract is read yet.
    pub(crate) fn new(project: &Arc<Project>, clock: Clock) -> Self {
        let pushed = project
            .streams()
            .filter(|(_, stream)| stream.feed.push().is_some());
        let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self {
            turns: Arc::new(Semaphore::new(processors * TURNS_PER_PROCESSOR)),
            by_stream: pushed
                .map(|(_, stream)| (stream.name.clone(), Mutex::default()))
                .collect(),
            project: Arc::clone(project),
            clock,
        }
    }

    /// How the contract of the stream called `name` stands, which takes what producers send.
    pub(crate) async fn standing(&self, name: &StreamName) -> Standing {
        let Some(looked) = self.by_stream.get(name) else {
            return Standing::Absent;
        };
        let mut looked = looked.lock().await;
        let now = self.clock.steady();
        if let Some(looked) = looked.as_ref().filter(|looked| looked.holds(now)) {
            return looked.standing.clone();
        }
        let before = looked.take();
        let (project, stream) = (Arc::clone(&self.project), name.clone());
        // Files are read, and a contract is made ready with all its rules.
        let read = tokio::task::spawn_blocking(move || look(&project, &stream, before, now));
        let next = read.await.unwrap_or_else(|_panic| Looked {
            at: now,
            state: NO_STATE,
            standing: Standing::Unreadable,
        });
        looked.insert(next).standing.clone()
    }
}

fn look(project: &Project, name: &StreamName, before: Option<Looked>, now: Timestamp) -> Looked {
    let of_files = || project.stream(name).map_or(NO_STATE, |(_, stream)| state(stream));
    let state = of_files();
    let had_one = match before {
        Some(before) if before.state == state && before.state != NO_STATE => {
            return Looked { at: now, ..before };
        }
        Some(before) => matches!(before.standing, Standing::Present(_)),
        None => false,
    };
    let standing = match Inspector::open(project, name) {
        // Whoever saves a file may take the old one away first. It is gone if it still is at the next look.
        Ok(None) if had_one => Standing::Unreadable,
        Ok(None) => Standing::Absent,
        Ok(Some(inspector)) => {
            tracing::info!(stream = %name, version = inspector.version(), "contract judges");
            Standing::Present(Arc::new(inspector))
        }
        Err(error) => {
            tracing::error!(stream = %name, error = error.chain(), "contract not read");
            Standing::Unreadable
        }
    };
    // What cannot be read now may be at the next look, though no file changes; and if files change while they are read,
    // nobody knows what was.
    let is_settled = !matches!(standing, Standing::Unreadable) && state == of_files();
    Looked {
        at: now,
        state: if is_settled { state } else { NO_STATE },
        standing,
    }
}
