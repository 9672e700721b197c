//! What was pushed and never came: a gap in its numbers, or silence. The stream is asked for it.
//!
//! ```text
//! raw log ─ pushed batches beyond `heard` ─► numbers ─► Missing ─► run polls ─► heard moves, with the bookmark
//! ```

use std::{fmt, sync::Arc, time::Duration};

use futures::TryStreamExt as _;

use crate::{
    clock::Timestamp,
    config::{Source, Stream, gaps::Gaps, read::values::show_duration},
    error::Result,
    extract::parents,
    json::JsonPath,
    ops::{Workspace, heard::numbers::Numbers, status::age},
    raw::{
        BatchNumber, Bookmark,
        heard::Heard,
        log::{BatchKind, LogEntry, RawLog},
        read::{PageRead, read_object},
    },
};

pub mod ears;
pub mod numbers;

/// Batches looked back on where nobody looked before.
const BACK_MAX: i64 = 100;

/// Something that was pushed and never came, as far as that can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Numbers, ends included.
    Numbers {
        /// The first.
        first: i64,
        /// The last.
        last: i64,
        /// When a greater one came.
        since: Timestamp,
    },
    /// Anything.
    Silence {
        /// Since when.
        since: Timestamp,
        /// How long that may be.
        heartbeat: Duration,
    },
}

impl Missing {
    /// Since when.
    pub fn since(&self) -> Timestamp {
        match self {
            Self::Numbers { since, .. } | Self::Silence { since, .. } => *since,
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numbers { first, last, .. } if first == last => {
                write!(f, "number {first} was never pushed")
            }
            Self::Numbers { first, last, .. } => write!(f, "numbers {first} to {last} were never pushed"),
            Self::Silence { heartbeat, .. } => {
                write!(
                    f,
                    "nothing was pushed for more than {}",
                    show_duration(*heartbeat)
                )
            }
        }
    }
}

/// What was heard of one stream since it was last asked for.
#[derive(Debug, Default)]
pub struct Ear {
    since: Option<Heard>,
    numbers: Numbers,
    /// The newest batch looked at.
    looked: Option<BatchNumber>,
    /// When something was last pushed.
    pushed_at: Option<Timestamp>,
}

impl Ear {
    /// Reads what was pushed since the last look, and says what is missing. `bookmark` is that of the stream.
    ///
    /// # Errors
    /// Whatever the store says about the raw log.
    pub async fn listen(
        &mut self,
        workspace: &Workspace,
        source: &Source,
        stream: &Stream,
        bookmark: &Bookmark,
    ) -> Result<Option<Missing>> {
        let Some(gaps) = &stream.gaps else {
            return Ok(None);
        };
        if self.since != bookmark.heard || self.looked.is_none() {
            *self = Self {
                since: bookmark.heard,
                numbers: Numbers::after(bookmark.heard.and_then(|heard| heard.sequence)),
                looked: bookmark.heard.and_then(|heard| heard.batch),
                pushed_at: None,
            };
        }
        let pushed = pushed_to(source, stream);
        let log = RawLog {
            store: Arc::clone(&workspace.store),
            stream: pushed.name.clone(),
        };
        if let Some(head) = log.head().await? {
            let back = BatchNumber::new((head.number.get() - BACK_MAX + 1).max(0))?;
            let first = self.looked.map_or(back, |looked| looked.next());
            let mut entries = log.entries(first..=head.number);
            while let Some(entry) = entries.try_next().await? {
                self.read(workspace, pushed, gaps, &entry).await?;
                self.looked = Some(entry.number);
            }
            self.numbers.begin();
        }
        Ok(self.missing(gaps, workspace.clock.now()))
    }

    /// What to remember once the stream was asked for.
    pub fn heard(&self, now: Timestamp) -> Heard {
        Heard {
            batch: self.looked,
            sequence: self.numbers.reached(),
            at: now,
        }
    }

    /// Whether every number that was pushed since the stream was last asked for is below those before: they are taken for
    /// the beginning of another count.
    pub fn is_anew(&self) -> bool {
        self.numbers.is_anew()
    }

    async fn read(
        &mut self,
        workspace: &Workspace,
        pushed: &Stream,
        gaps: &Gaps,
        entry: &LogEntry,
    ) -> Result<()> {
        if entry.kind != BatchKind::Push {
            return Ok(());
        }
        self.pushed_at = self.pushed_at.max(Some(entry.committed_at));
        let Some(sequence) = &gaps.sequence else {
            return Ok(());
        };
        for object in 0..entry.objects.len() {
            for page in read_object(workspace.store.as_ref(), entry, object).await? {
                // What is lost of it is said where it is transformed, and its numbers are missing here.
                let PageRead::Page(page) = page else { continue };
                let numbers = &mut self.numbers;
                let _ = parents::page_records(pushed, &page, &mut |piece| {
                    if let Some(number) = number(sequence, piece.bytes(&page.body)) {
                        numbers.hear(number, entry.committed_at);
                    }
                });
            }
        }
        Ok(())
    }

    fn missing(&self, gaps: &Gaps, now: Timestamp) -> Option<Missing> {
        if let Some((first, last, since)) = self.numbers.missing()
            && age(since, now) >= gaps.grace
        {
            return Some(Missing::Numbers { first, last, since });
        }
        let heartbeat = gaps.heartbeat?;
        // A stream that was never asked for is asked for in any case.
        let asked_at = self.since.map(|heard| heard.at)?;
        let since = self.pushed_at.map_or(asked_at, |pushed| pushed.max(asked_at));
        (age(since, now) > heartbeat).then_some(Missing::Silence { since, heartbeat })
    }
}

fn number(path: &JsonPath, record: &[u8]) -> Option<i64> {
    let value = path.first(record).ok().flatten()?;
    let text = std::str::from_utf8(value).ok()?;
    text.trim_matches('"').parse().ok()
}

/// The stream that is pushed to: itself, or that of the events that name its records.
fn pushed_to<'a>(source: &'a Source, stream: &'a Stream) -> &'a Stream {
    let events = stream.hydrate.as_ref().filter(|_| stream.feed.push().is_none());
    let named = events.and_then(|hydrate| {
        let mut streams = source.streams.iter();
        streams.find(|known| known.name.stream == *hydrate.from())
    });
    named.unwrap_or(stream)
}
