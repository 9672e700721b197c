//! What the end of a pass over everything means for a load.

use futures::{StreamExt as _, TryStreamExt as _, stream::BoxStream};

use super::load::Loader;
use crate::{
    config::ScdType,
    error::{Error, Result},
    raw::{BatchNumber, log::LogEntry, pass::ends_pass},
    table::absent::Seen,
    transform::split::Split,
};

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

    /// Cuts `entries` behind the first that ends a pass, so that what the pass says is done before what came later.
    pub(super) async fn cut(&self, mut entries: Vec<LogEntry>) -> Result<Vec<LogEntry>> {
        if !self.heeds_passes() {
            return Ok(entries);
        }
        let Some(first) = entries.first() else {
            return Ok(entries);
        };
        let before = self.before(first.number).await?;
        let mut before = before.as_ref();
        let mut end = entries.len();
        for (number, entry) in entries.iter().enumerate() {
            if ends_pass(before, entry) {
                end = number + 1;
                break;
            }
            before = Some(entry);
        }
        entries.truncate(end);
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
        let tally = last.bookmark.as_ref().and_then(|bookmark| bookmark.last_pass);
        let doubt = match tally {
            Some(tally) => tally.doubt(),
            None => Some("the version of this program that made it did not watch for what it missed"),
        };
        Ok(Some(WholePass {
            since: self.log.last_pass(last).await?,
            doubt,
        }))
    }

    async fn before(&self, number: BatchNumber) -> Result<Option<LogEntry>> {
        match BatchNumber::new(number.get() - 1) {
            Ok(before) => self.log.entry(before).await,
            // The log begins here.
            Err(_) => Ok(None),
        }
    }

    /// The keys of the records that earlier loads read from the pass, read again from raw a piece at a time.
    pub(super) fn seen_earlier(&self, since: BatchNumber, from: BatchNumber) -> BoxStream<'_, Result<Seen>> {
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
