//! What the end of a pass over everything means for a load.

use std::ops::RangeInclusive;

use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};

use super::load::Loader;
use crate::{
    config::{Name, ScdType, StreamName},
    error::{Error, Result},
    raw::{
        BatchNumber,
        log::{BatchKind, LogEntry, RawLog},
        pass::ends_pass,
    },
    table::absent::Seen,
    transform::split::Split,
};

/// Log entries looked through for the newest pass.
const PASS_BACK_MAX: u32 = 100_000;

/// A pass over everything that ends with the last batch of a load.
#[derive(Clone, Debug)]
pub(super) struct WholePass {
    /// Its first batch.
    pub(super) since: BatchNumber,
    /// Why it cannot tell what is gone, if so.
    pub(super) doubt: Option<&'static str>,
}

/// The quarantined records of a load, as the end of a pass sees them.
pub(super) fn aside(split: &Split) -> Vec<Seen> {
    let mut seen: Vec<Seen> = split.keys_aside.iter().cloned().map(Seen::Keys).collect();
    if split.keyless > 0 {
        seen.push(Seen::Keyless);
    }
    seen
}

impl Loader<'_> {
    /// Whether the end of a pass means something to the table.
    fn heeds_passes(&self) -> bool {
        self.stream.table.delete_absent || self.stream.table.scd_type == ScdType::Replace
    }

    /// Cuts `entries` behind the first that ends a pass, so that what the pass says is done before what came later. `None`
    /// if nothing can be done before the pass ends.
    pub(super) async fn cut(&self, mut entries: Vec<LogEntry>) -> Result<Option<Vec<LogEntry>>> {
        let Some(first) = entries.first().filter(|_| self.heeds_passes()) else {
            return Ok(Some(entries));
        };
        let before = self.before(first.number).await?;
        let mut before = before.as_ref();
        let mut end = None;
        for (number, entry) in entries.iter().enumerate() {
            if ends_pass(before, entry) {
                end = Some(number + 1);
                break;
            }
            before = Some(entry);
        }
        let replaces = self.stream.table.scd_type == ScdType::Replace;
        let Some(end) = end else {
            // Half a pass replaces nothing.
            return Ok((!replaces).then_some(entries));
        };
        entries.truncate(end);
        // What came before the pass is a load of its own: its keys say nothing about what the pass brought.
        if !replaces
            && let Some(last) = entries.last()
            && let Some(since) = self.log.last_pass(last).await?
            && let Some(begins) = entries.iter().position(|entry| entry.number >= since)
            && begins > 0
        {
            entries.truncate(begins);
        }
        Ok(Some(entries))
    }

    /// The pass that `entries` end, if they do.
    pub(super) async fn pass_of(&self, entries: &[LogEntry]) -> Result<Option<WholePass>> {
        let Some(last) = entries.last().filter(|_| self.heeds_passes()) else {
            return Ok(None);
        };
        let before = match entries.len() {
            1 => self.before(last.number).await?,
            count => Some(entries[count - 2].clone()),
        };
        if !ends_pass(before.as_ref(), last) {
            return Ok(None);
        }
        let Some(since) = self.log.last_pass(last).await? else {
            let doubt = Some("it began further back than is looked");
            return Ok(Some(WholePass {
                since: last.number,
                doubt,
            }));
        };
        let doubt = match self.doubt(entries, last, since) {
            Some(doubt) => Some(doubt),
            None => self.doubt_of_parents(last).await?,
        };
        Ok(Some(WholePass { since, doubt }))
    }

    /// Why the pass that ends with `last` cannot tell what is gone, by its own account.
    fn doubt(&self, entries: &[LogEntry], last: &LogEntry, since: BatchNumber) -> Option<&'static str> {
        let Some(tally) = last.bookmark.as_ref().and_then(|bookmark| bookmark.last_pass) else {
            return Some("the version of this program that made it did not watch for what it missed");
        };
        if self.stream.table.scd_type != ScdType::Replace {
            return tally.doubt();
        }
        if entries.first().is_some_and(|first| first.number > since) {
            return Some("its first batches were loaded when the table was not yet replaced by passes");
        }
        let pulled = entries
            .iter()
            .filter(|entry| entry.number >= since && entry.kind != BatchKind::Push);
        let landed: u64 = pulled.map(|entry| entry.records.unwrap_or(0)).sum();
        let twice = landed != tally.records;
        tally
            .doubt()
            .or(twice.then_some("it was begun again on the way: records of it may have been landed twice"))
    }

    /// Whether one of the passes that named the slices may have missed some.
    async fn doubt_of_parents(&self, last: &LogEntry) -> Result<Option<&'static str>> {
        let parents = last.bookmark.as_ref().map(|bookmark| &bookmark.parents);
        for (name, number) in parents.into_iter().flatten() {
            let log = RawLog {
                stream: StreamName {
                    source: self.stream.name.source.clone(),
                    stream: Name::new(name)?,
                },
                ..self.log.clone()
            };
            let bookmark = log.entry(*number).await?.and_then(|entry| entry.bookmark);
            let sure = bookmark.is_some_and(|bookmark| {
                !bookmark.unstable && bookmark.last_pass.is_none_or(|tally| tally.doubt().is_none())
            });
            if !sure {
                return Ok(Some("the pass over a parent stream may have missed slices"));
            }
        }
        Ok(None)
    }

    /// The first and the last batch of the newest pass over everything that ended at `until` or before and can tell what
    /// is gone. None if nobody asks the stream for passes.
    pub(in crate::ops) async fn newest_pass(
        &self,
        until: BatchNumber,
    ) -> Result<Option<RangeInclusive<BatchNumber>>> {
        if !self.heeds_passes() {
            return Ok(None);
        }
        let mut next = self.log.entry(until).await?;
        for _ in 0..PASS_BACK_MAX {
            let Some(entry) = next else { return Ok(None) };
            let bookmark = entry.bookmark.as_ref();
            // It is carried on: without it no pass ended before.
            if bookmark.is_none_or(|bookmark| bookmark.complete_at.is_none()) {
                return Ok(None);
            }
            let before = self.before(entry.number).await?;
            if ends_pass(before.as_ref(), &entry) {
                let tally = bookmark.and_then(|bookmark| bookmark.last_pass);
                if tally.is_some_and(|tally| tally.doubt().is_none()) {
                    let since = self.log.last_pass(&entry).await?;
                    return Ok(since.map(|since| since..=entry.number));
                }
            }
            next = before;
        }
        Ok(None)
    }

    async fn before(&self, number: BatchNumber) -> Result<Option<LogEntry>> {
        match BatchNumber::new(number.get() - 1) {
            Ok(before) => self.log.entry(before).await,
            // The log begins here.
            Err(_) => Ok(None),
        }
    }

    /// The keys of the records that earlier loads read from the pass, read again from raw a piece at a time.
    pub(in crate::ops) fn seen_earlier(
        &self,
        since: BatchNumber,
        from: BatchNumber,
    ) -> BoxStream<'_, Result<Seen>> {
        let bytes = self.load_bytes();
        let pieces = futures::stream::try_unfold(since, move |next| async move {
            if next >= from {
                return Ok(None);
            }
            let Ok(last) = BatchNumber::new(from.get() - 1) else {
                return Ok(None);
            };
            let entries = self.log.entries_within(next..=last, bytes).await?;
            let Some(end) = entries.last().map(|entry| entry.number) else {
                return Ok(None);
            };
            let split = self.judge_again(entries).await?;
            let accepted = split.accepted.iter().cloned().map(Seen::Keys);
            let seen: Vec<Result<Seen>> = accepted.chain(aside(&split)).map(Ok).collect();
            Ok::<_, Error>(Some((futures::stream::iter(seen), end.next())))
        });
        pieces.try_flatten().boxed()
    }
}
