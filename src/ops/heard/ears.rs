//! Streams that are to run before their time, in a program that stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use chrono::TimeDelta;
use tracing::warn;

use crate::{
    clock::Timestamp,
    config::{Source, Stream, StreamName},
    error::Result,
    ops::{
        Workspace,
        extract::hydrate::{behind, newest},
        heard::{Ear, Missing},
    },
    raw::log::RawLog,
};

/// How long a stream is not called after a run of it that failed; doubles with each that follows.
const WAIT_START: Duration = Duration::from_secs(60);

/// No wait is longer.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// Why a stream is to run before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Something pushed is missing: it is to be asked for, and events may name records too.
    Missing,
    /// Events name records that are not fetched, and that is all.
    Events,
}

/// The ears of a program that stays.
#[derive(Debug, Default)]
pub struct Ears {
    of_streams: BTreeMap<StreamName, Ear>,
    /// Streams whose gap was told.
    told: BTreeSet<StreamName>,
    /// Streams whose last run failed.
    waits: BTreeMap<StreamName, Wait>,
}

/// A stream that is not called for a while.
#[derive(Debug)]
struct Wait {
    /// Runs that failed, one after the other.
    failures: u32,
    /// Until then, of a clock that goes on evenly.
    until: Timestamp,
}

impl Ears {
    /// Those of `streams` that are to run now, whatever their schedule says, and why. A stream that cannot be looked at is
    /// left to its schedule, and one whose runs fail for a while.
    pub async fn called(&mut self, workspace: &Workspace, streams: &[StreamName]) -> Vec<(StreamName, Call)> {
        let now = workspace.clock.steady();
        let mut called = Vec::new();
        for name in streams.iter().filter(|name| !is_waiting(&self.waits, name, now)) {
            let Ok((source, stream)) = workspace.project.stream(name) else {
                continue;
            };
            if stream.gaps.is_none() && stream.hydrate.is_none() {
                continue;
            }
            let ear = self.of_streams.entry(name.clone()).or_default();
            match look(workspace, source, stream, ear).await {
                Ok((Some(missing), _)) => {
                    if self.told.insert(name.clone()) {
                        warn!(stream = %name, %missing, "a gap in what was pushed: the stream is asked for it");
                    }
                    called.push((name.clone(), Call::Missing));
                }
                Ok((None, events)) => {
                    self.told.remove(name);
                    if events {
                        called.push((name.clone(), Call::Events));
                    }
                }
                Err(error) => {
                    warn!(stream = %name, error = error.chain(), "what was pushed cannot be looked at");
                }
            }
        }
        called
    }

    /// A run of `streams` has ended at `now`, of a clock that goes on evenly, and `failed` of them failed.
    pub fn ended(&mut self, streams: &[StreamName], failed: &[StreamName], now: Timestamp) {
        for name in streams {
            if !failed.contains(name) {
                self.waits.remove(name);
                continue;
            }
            let failures = self
                .waits
                .get(name)
                .map_or(1, |wait| wait.failures.saturating_add(1));
            let doublings = 2_u32.saturating_pow(failures - 1);
            let wait = WAIT_START.saturating_mul(doublings).min(WAIT_MAX);
            let until = TimeDelta::from_std(wait)
                .ok()
                .and_then(|wait| now.checked_add_signed(wait));
            let until = until.unwrap_or(Timestamp::MAX_UTC);
            self.waits.insert(name.clone(), Wait { failures, until });
        }
    }
}

fn is_waiting(waits: &BTreeMap<StreamName, Wait>, name: &StreamName, now: Timestamp) -> bool {
    waits.get(name).is_some_and(|wait| now < wait.until)
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
    use super::*;

    #[test]
    fn a_stream_whose_runs_fail_is_called_less_and_less_until_one_goes_well() {
        let stream = |name: &str| StreamName::parse(name).unwrap();
        let both = [stream("shop.orders"), stream("shop.items")];
        let at = |seconds: u64| Timestamp::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut ears = Ears::default();
        let mut now = 0;
        for wait in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
            ears.ended(&both, &both[..1], at(now));
            assert!(is_waiting(&ears.waits, &both[0], at(now + wait - 1)), "{wait}");
            assert!(!is_waiting(&ears.waits, &both[0], at(now + wait)), "{wait}");
            assert!(!is_waiting(&ears.waits, &both[1], at(now)));
            now += wait;
        }
        ears.ended(&both[..1], &[], at(now));
        assert!(!is_waiting(&ears.waits, &both[0], at(now)));
        ears.ended(&both, &both, at(now));
        assert!(!is_waiting(&ears.waits, &both[0], at(now + 60)));
    }
}
