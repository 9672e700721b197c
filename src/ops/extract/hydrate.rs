//! Whole records for the events of another stream that only name them.
//!
//! ```text
//! raw log of the events ─ beyond the bookmark ─► a slice for each record named ─► pages in this raw log, marked hydrated
//!                                                              └─ fails ─► waits, at last a dead letter: in the bookmark too
//! ```
//!
//! The raw log is the queue and the bookmark the mark, and an answer is landed in one step with the mark of its event: there
//! is no other place that could say something else after a crash.

use std::sync::Arc;

use tracing::warn;

use super::{BatchKind, Extracted, Run, Whose};
use crate::{
    config::{Source, Stream, StreamName, hydrate::Hydrate},
    error::Result,
    extract::{
        channel::Channel,
        parents,
        progress::{Counts, Progress},
        window::{Extraction, Planned, Scope},
    },
    ops::Workspace,
    raw::{BatchNumber, Bookmark, log::RawLog},
};

/// Passes of one run: each reads a thousand raw batches of events at most.
const PASSES_MAX: usize = 100_000;

/// What is done with events that were given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetters {
    /// They are left alone.
    Left,
    /// They are tried again, as if for the first time.
    Retried,
    /// They are forgotten, and said. Raw that was kept for them may expire.
    Discarded,
}

impl Run<'_> {
    /// Fetches the records of all events that stand in the raw log of their stream now, and of those whose wait is over.
    pub(super) async fn hydrate(
        &self,
        hydrate: &Hydrate,
        dead: DeadLetters,
        begun: &(dyn Fn(&StreamName, Arc<Progress>) + Sync),
    ) -> Result<Extracted> {
        let mut whole = Extracted::nothing();
        let Some(last) = newest(self.workspace, self.source, hydrate).await? else {
            return Ok(whole);
        };
        let stream = hydrate.stream(self.stream);
        let events = hydrate.from().as_str();
        // Ends where the events ended when this began: what comes meanwhile is for the next run.
        for round in 0..PASSES_MAX {
            let landing = self.landing().await?;
            let standing = landing.bookmark();
            let mut bookmark = standing.hydration.as_deref().cloned().unwrap_or_default();
            let (mut revived, mut discarded) = (0, 0);
            match dead {
                DeadLetters::Retried if round == 0 => revived = bookmark.revive(events),
                DeadLetters::Discarded if round == 0 => discarded = self.discard(&mut bookmark),
                _ => {}
            }
            let now = self.workspace.clock.now();
            let due = round == 0 && bookmark.waiting().any(|(_, mark)| mark.is_due(now));
            if revived + discarded == 0 && !due && behind(&bookmark, events, last) == 0 {
                break;
            }
            let slices = parents::slices(&self.workspace.store, self.source, &stream, &bookmark).await?;
            let extraction = self
                .extraction(&stream, bookmark, Scope::Changes)?
                .with_slices(slices);
            if discarded > 0 {
                let note =
                    format!("{discarded} dead letters were discarded: their events are not tried again");
                extraction.progress().note(note);
            }
            let whose = Whose::Hydration {
                standing,
                is_alone: hydrate.is_alone,
            };
            let extracted = self
                .work(landing, extraction, whose, BatchKind::Pull, begun)
                .await?;
            whole.add(extracted);
        }
        Ok(whole)
    }

    /// Forgets the dead letters of `bookmark`; returns how many there were.
    fn discard(&self, bookmark: &mut Bookmark) -> usize {
        let dead = std::mem::take(&mut bookmark.dead);
        for (event, letter) in &dead {
            warn!(stream = %self.stream.name, event, attempts = letter.attempts, reason = letter.reason,
                "dead letter discarded");
        }
        dead.len()
    }
}

impl Extracted {
    /// Nothing was asked for.
    pub(super) fn nothing() -> Self {
        Self {
            batches: 0,
            counts: Counts::default(),
            notes: Vec::new(),
        }
    }

    /// The sum of both.
    pub(super) fn add(&mut self, other: Self) {
        self.batches += other.batches;
        self.counts = self.counts.plus(&other.counts);
        for note in other.notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
    }
}

/// How many raw batches of events are not read yet.
pub(in crate::ops) fn behind(bookmark: &Bookmark, events: &str, last: BatchNumber) -> i64 {
    let passed = bookmark.pass.as_ref().and_then(|pass| pass.parents.get(events));
    let read = bookmark.parents.get(events);
    let next = match passed {
        Some((first, _)) => *first,
        None => read.map_or(BatchNumber::FIRST, |read| read.next()),
    };
    (last.get() - next.get() + 1).max(0)
}

/// The newest raw batch of events; none if there is none.
pub(in crate::ops) async fn newest(
    workspace: &Workspace,
    source: &Source,
    hydrate: &Hydrate,
) -> Result<Option<BatchNumber>> {
    let log = RawLog {
        store: Arc::clone(&workspace.store),
        stream: StreamName {
            source: source.name.clone(),
            stream: hydrate.from().clone(),
        },
    };
    Ok(log.head().await?.map(|head| head.number))
}

/// The first requests for records that events name.
pub(super) async fn plan(
    workspace: &Workspace,
    source: &Source,
    stream: &Stream,
    standing: &Bookmark,
    most: usize,
) -> Result<Vec<Planned>> {
    let Some(hydrate) = &stream.hydrate else {
        return Ok(Vec::new());
    };
    let bookmark = standing.hydration.as_deref().cloned().unwrap_or_default();
    let behind = newest(workspace, source, hydrate)
        .await?
        .map_or(0, |last| behind(&bookmark, hydrate.from().as_str(), last));
    if behind == 0 {
        return Ok(Vec::new());
    }
    let derived = hydrate.stream(stream);
    let channel = Channel::open(
        source,
        &workspace.clock,
        &workspace.project.credentials_dir,
        &workspace.project.spool_dir(),
    )?;
    let slices = parents::slices(&workspace.store, source, &derived, &bookmark).await?;
    let extraction = Extraction::new(
        source,
        &derived,
        Arc::new(channel),
        workspace.clock.clone(),
        bookmark,
    )?;
    extraction.with_slices(slices).plan(most).await
}
