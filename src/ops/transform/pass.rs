//! What the end of a pass over everything means for a load.

use std::ops::RangeInclusive;

use arrow::{array::AsArray as _, datatypes::Int64Type};
use datafusion::{
    execution::context::SessionContext,
    functions_aggregate::expr_fn::{max, min},
    logical_expr::{cast, lit},
    prelude::col,
};
use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};

use super::{load::Loader, target::loads_side};
use crate::{
    config::{Name, ScdType, StreamName},
    error::{Error, ErrorKind, Result},
    query::sql_error,
    raw::{
        BatchNumber,
        log::{BatchKind, LogEntry, RawLog},
        pass::ends_pass,
    },
    table::{absent::Seen, side::SHARED_BY},
    transform::split::Split,
};

/// Part of the memory limit that the log may take of the pages of one pass.
const PAGES_MEMORY_SHARE: u64 = 16;

/// What the log tells of a page takes in memory, in bytes.
const PAGE_BYTES: u64 = 64;

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
pub(super) fn aside(split: &Split) -> impl Iterator<Item = Result<Seen>> + Send + use<> {
    let keyless = (split.keyless > 0).then_some(Ok(Seen::Keyless));
    let keys = split.keys_aside.batches();
    keys.map(|keys| keys.map(Seen::Keys)).chain(keyless)
}

/// Records of `entry` that the pass which began with `since` has landed.
fn landed_by(entry: &LogEntry, since: BatchNumber) -> u64 {
    let is_pulled = entry.number >= since && entry.kind != BatchKind::Push;
    entry.records.filter(|_| is_pulled).unwrap_or(0)
}

impl Loader<'_> {
    /// Whether the end of a pass means something to the table.
    fn heeds_passes(&self) -> bool {
        self.stream.table.heeds_passes()
    }

    /// The entries of `range` up to the first that ends a pass, or `None` if none does: half a pass replaces nothing.
    ///
    /// What is behind it is not read. The pass is one load, so what the log tells of its pages has to fit into memory.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] if it does not.
    pub(super) async fn next_pass(
        &self,
        range: RangeInclusive<BatchNumber>,
    ) -> Result<Option<Vec<LogEntry>>> {
        let pages_max = self.workspace.project.memory_bytes_max / PAGES_MEMORY_SHARE / PAGE_BYTES;
        let mut before = self.before(*range.start()).await?;
        let mut entries = self.log.entries(range);
        let (mut taken, mut pages) = (Vec::new(), 0_u64);
        while let Some(entry) = entries.try_next().await? {
            let ends = ends_pass(before.as_ref(), &entry);
            pages = pages.saturating_add(entry.pages());
            if pages > pages_max {
                // It may never end; what cannot be loaded is not held either.
                taken.clear();
            } else {
                taken.push(entry.clone());
            }
            if ends && pages > pages_max {
                return Err(Error::new(ErrorKind::Limit, "load a complete pass at once")
                    .with("stream", &self.stream.name)
                    .with("ends with batch", entry.number)
                    .with("pages", pages)
                    .with("pages_max", pages_max)
                    .with(
                        "hint",
                        "raise the memory limit, or merge by keys instead of `scd_type: replace`",
                    ));
            }
            if ends {
                return Ok(Some(taken));
            }
            before = Some(entry);
        }
        Ok(None)
    }

    /// Cuts `entries` behind the first that ends a pass, so that what the pass says is done before what came later.
    pub(super) async fn cut(&self, mut entries: Vec<LogEntry>) -> Result<Vec<LogEntry>> {
        let Some(first) = entries.first().filter(|_| self.heeds_passes()) else {
            return Ok(entries);
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
        let Some(end) = end else { return Ok(entries) };
        entries.truncate(end);
        // What came before the pass is a load of its own: its keys say nothing about what the pass brought.
        if let Some(last) = entries.last()
            && let Some(since) = self.log.last_pass(last).await?
            && let Some(begins) = entries.iter().position(|entry| entry.number >= since)
            && begins > 0
        {
            entries.truncate(begins);
        }
        Ok(entries)
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
        let first = entries.first().map_or(last.number, |first| first.number);
        let landed = entries.iter().map(|entry| landed_by(entry, since)).sum();
        let doubt = match self.doubt(last, since, first, landed) {
            Some(doubt) => Some(doubt),
            None => self.doubt_of_parents(last).await?,
        };
        Ok(Some(WholePass { since, doubt }))
    }

    /// Why the pass that began with `since` and ends with `last` cannot tell what is gone, by its own account. It was loaded
    /// from the batch `first` on, and its batches hold `landed` records.
    fn doubt(
        &self,
        last: &LogEntry,
        since: BatchNumber,
        first: BatchNumber,
        landed: u64,
    ) -> Option<&'static str> {
        let Some(tally) = last.bookmark.as_ref().and_then(|bookmark| bookmark.last_pass) else {
            return Some("the version of this program that made it did not watch for what it missed");
        };
        if self.stream.table.scd_type != ScdType::Replace {
            return tally.doubt();
        }
        if first > since {
            return Some("its first batches were loaded when the table was not yet replaced by passes");
        }
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

    /// The first and the last batch of the newest pass over everything that ended at `until` or before and of which the
    /// table shows what it did not bring. None if nobody asks the stream for passes.
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
            if ends_pass(before.as_ref(), &entry)
                && let Some(since) = self.log.last_pass(&entry).await?
                && self.acted_on(&entry, since).await?
            {
                return Ok(Some(since..=entry.number));
            }
            next = before;
        }
        Ok(None)
    }

    /// Whether the load that ended with `last` did what the pass says that began with `since`.
    async fn acted_on(&self, last: &LogEntry, since: BatchNumber) -> Result<bool> {
        let told = self.told_of(last.number).await?;
        if told.is_some_and(|(_, held)| held > 0) {
            return Ok(false);
        }
        let mut landed = 0;
        if self.stream.table.scd_type == ScdType::Replace {
            let mut entries = self.log.entries(since..=last.number);
            while let Some(entry) = entries.try_next().await? {
                landed += landed_by(&entry, since);
            }
        }
        let first = told.map_or(since, |(first, _)| first);
        let sure = self.doubt(last, since, first, landed).is_none();
        Ok(sure && self.doubt_of_parents(last).await?.is_none())
    }

    /// What the load history tells of the load that ended with `last`: its first batch, and the rows that it should have
    /// deleted and did not.
    async fn told_of(&self, last: BatchNumber) -> Result<Option<(BatchNumber, i64)>> {
        let Some(table) = self.workspace.tables.open(&loads_side().path).await? else {
            return Ok(None);
        };
        let context = SessionContext::new();
        let failed = |source| sql_error("read load history", source);
        let name = &self.stream.name;
        let own = col(SHARED_BY[0])
            .eq(lit(name.source.as_str()))
            .and(col(SHARED_BY[1]).eq(lit(name.stream.as_str())))
            .and(col("batch_to").eq(lit(last.get())));
        let number = |name: &str| cast(col(name), arrow::datatypes::DataType::Int64);
        let told = vec![min(number("batch_from")), max(number("absent_held"))];
        let batches = context
            .read_table(table.provider(&context).await?)
            .and_then(|rows| rows.filter(own))
            .and_then(|rows| rows.aggregate(Vec::new(), told))
            .map_err(failed)?
            .collect()
            .await
            .map_err(failed)?;
        let value = |column: usize| {
            let column = batches.first()?.column(column);
            column.as_primitive::<Int64Type>().iter().next().flatten()
        };
        let Some(first) = value(0) else { return Ok(None) };
        Ok(Some((BatchNumber::new(first)?, value(1).unwrap_or(0))))
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
            let accepted = split.accepted.batches().map(|rows| rows.map(Seen::Keys));
            let seen = futures::stream::iter(accepted.chain(aside(&split)));
            Ok::<_, Error>(Some((seen, end.next())))
        });
        pieces.try_flatten().boxed()
    }
}
