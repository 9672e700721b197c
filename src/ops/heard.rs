//! What was pushed and never came: a gap in its numbers, or silence. The stream is asked for it.
//!
//! ```text
//! raw log ─ pushed batches beyond `heard` ─► numbers ─► Missing ─► run polls ─► heard moves, with the bookmark
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use futures::TryStreamExt as _;
use tracing::warn;

use crate::{
    clock::Timestamp,
    config::{Source, Stream, StreamName, gaps::Gaps, read::values::show_duration},
    error::Result,
    extract::parents,
    json::JsonPath,
    ops::{
        Workspace,
        extract::hydrate::{behind, newest},
        status::age,
    },
    raw::{
        BatchNumber, Bookmark,
        heard::Heard,
        log::{BatchKind, LogEntry, RawLog},
        read::{PageRead, read_object},
    },
};

/// Numbers held beyond the first that is missing. Of more than these it is only known that there are some.
const AHEAD_MAX: usize = 100_000;

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

/// What is known of the numbers of one stream, in memory.
///
/// ```
/// use landfall::{clock::Timestamp, ops::heard::Numbers};
/// let mut numbers = Numbers::after(Some(4));
/// for number in [7, 5, 8] {
///     numbers.hear(number, Timestamp::UNIX_EPOCH);
/// }
/// assert_eq!(numbers.missing(), Some((6, 6, Timestamp::UNIX_EPOCH)));
/// numbers.hear(6, Timestamp::UNIX_EPOCH);
/// assert_eq!((numbers.missing(), numbers.greatest()), (None, Some(8)));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// Up to here none is missing.
    whole: Option<i64>,
    /// Those beyond, with when they came.
    ahead: BTreeMap<i64, Timestamp>,
    greatest: Option<i64>,
}

impl Numbers {
    /// Nothing beyond `whole` was heard yet; without it the least number that is heard is the first.
    pub fn after(whole: Option<i64>) -> Self {
        Self {
            whole,
            ahead: BTreeMap::new(),
            greatest: whole,
        }
    }

    /// Takes note of a number, in any order; one that came before changes nothing.
    pub fn hear(&mut self, number: i64, at: Timestamp) {
        self.greatest = self.greatest.max(Some(number));
        if self.whole.is_some_and(|whole| number <= whole) {
            return;
        }
        if self.ahead.len() < AHEAD_MAX {
            self.ahead.entry(number).or_insert(at);
        }
        if self.whole.is_none() {
            return;
        }
        self.advance();
    }

    fn advance(&mut self) {
        while let Some(next) = self.whole.and_then(|whole| whole.checked_add(1))
            && self.ahead.remove(&next).is_some()
        {
            self.whole = Some(next);
        }
    }

    /// What was heard so far is the beginning.
    pub fn begin(&mut self) {
        if self.whole.is_none()
            && let Some(least) = self.ahead.keys().next()
        {
            self.whole = least.checked_sub(1);
            self.advance();
        }
    }

    /// The first range of numbers that is missing below one that came, and when that did.
    pub fn missing(&self) -> Option<(i64, i64, Timestamp)> {
        let (next, at) = self.ahead.iter().next()?;
        Some((self.whole? + 1, next - 1, *at))
    }

    /// The greatest number heard.
    pub fn greatest(&self) -> Option<i64> {
        self.greatest
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
            sequence: self.numbers.greatest(),
            at: now,
        }
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

/// The ears of a program that stays.
#[derive(Debug, Default)]
pub struct Ears {
    of_streams: BTreeMap<StreamName, Ear>,
    /// Streams whose gap was told.
    told: BTreeSet<StreamName>,
}

impl Ears {
    /// Those of `streams` that are to run now, whatever their schedule says: something pushed is missing, or events name
    /// records that are not fetched. A stream that cannot be looked at is left to its schedule.
    pub async fn called(&mut self, workspace: &Workspace, streams: &[StreamName]) -> Vec<StreamName> {
        let mut called = Vec::new();
        for name in streams {
            let Ok((source, stream)) = workspace.project.stream(name) else {
                continue;
            };
            if stream.gaps.is_none() && stream.hydrate.is_none() {
                continue;
            }
            let ear = self.of_streams.entry(name.clone()).or_default();
            match look(workspace, source, stream, ear).await {
                Ok((None, false)) => {
                    self.told.remove(name);
                }
                Ok((missing, _)) => {
                    if let Some(missing) = missing.filter(|_| self.told.insert(name.clone())) {
                        warn!(stream = %name, %missing, "a gap in what was pushed: the stream is asked for it");
                    }
                    called.push(name.clone());
                }
                Err(error) => {
                    warn!(stream = %name, error = error.chain(), "what was pushed cannot be looked at");
                }
            }
        }
        called
    }
}

/// What is missing, and whether events wait for their records.
async fn look(
    workspace: &Workspace,
    source: &Source,
    stream: &Stream,
    ear: &mut Ear,
) -> Result<(Option<Missing>, bool)> {
    let log = RawLog {
        store: Arc::clone(&workspace.store),
        stream: stream.name.clone(),
    };
    let bookmark = log
        .head()
        .await?
        .and_then(|head| head.bookmark)
        .unwrap_or_default();
    let missing = ear.listen(workspace, source, stream, &bookmark).await?;
    let Some(hydrate) = &stream.hydrate else {
        return Ok((missing, false));
    };
    let hydration = bookmark.hydration.unwrap_or_default();
    let now = workspace.clock.now();
    let due = hydration.waiting().any(|(_, mark)| mark.is_due(now));
    let newest = newest(workspace, source, hydrate).await?;
    let behind = newest.map_or(0, |last| behind(&hydration, hydrate.from().as_str(), last));
    Ok((missing, due || behind > 0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn r106_whatever_the_order_exactly_what_never_came_is_missing(
            mut sent in prop::collection::vec((any::<bool>(), any::<u32>()), 1..40),
            cut in 0..40_usize,
        ) {
            // A number each; those that came, in an order of their own, and some of them twice.
            let count = sent.len() as i64;
            let mut came: Vec<(u32, i64)> = (1..=count)
                .zip(sent.drain(..))
                .filter(|(_, (came, _))| *came)
                .map(|(number, (_, order))| (order, number))
                .collect();
            came.sort_unstable();
            let came: Vec<i64> = came.into_iter().map(|(_, number)| number).collect();
            let mut numbers = Numbers::after(Some(0));
            for number in came.iter().chain(came.iter().take(cut)) {
                numbers.hear(*number, Timestamp::UNIX_EPOCH);
            }
            let greatest = came.iter().max().copied().unwrap_or(0);
            let first = (1..=greatest).find(|number| !came.contains(number));
            let missing = numbers.missing();
            prop_assert_eq!(missing.map(|(first, _, _)| first), first);
            if let Some((first, last, _)) = missing {
                prop_assert!((first..=last).all(|number| !came.contains(&number)));
                prop_assert!(came.contains(&(last + 1)));
            }
            prop_assert_eq!(numbers.greatest(), Some(greatest));
        }
    }

    #[test]
    fn the_first_numbers_heard_are_the_beginning() {
        let mut numbers = Numbers::default();
        for number in [12, 10, 13] {
            numbers.hear(number, Timestamp::UNIX_EPOCH);
        }
        assert_eq!(numbers.missing(), None);
        numbers.begin();
        assert_eq!(numbers.missing(), Some((11, 11, Timestamp::UNIX_EPOCH)));
    }
}
