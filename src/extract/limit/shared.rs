//! A budget that several processes spend, and what one of them does while it cannot ask.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tracing::{info, warn};

use crate::{
    clock::Clock,
    error::{Error, ErrorKind, Result},
    extract::limit::{
        file::FileStore,
        ledger::{Ask, Ledger, Verdict},
        redis::RedisStore,
        rules::{Demand, Micros, Rule, Rules, ahead, micros},
    },
};

/// The longest time between two attempts to reach a store that is away.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The shortest.
const RETRY_MIN: Duration = Duration::from_millis(50);

/// How long a request waits for a store that is away, if this process's part of the budget has no room for it whatever
/// the time: counted from the moment the store was lost. Then it fails, so that nobody waits without end.
pub(super) const AWAY_MAX: Duration = Duration::from_secs(5 * 60);

/// A budget in a store.
///
/// While the store cannot be reached, the process spends its own part of the budget and no more. A budget that changes
/// hands counts as spent at that moment: nothing goes for one window, because nobody here knows what the others took.
/// So no window holds more than the budget, whatever becomes of the store. Within that window the store may come back
/// with everything it knew, and then nothing was lost.
///
/// A part may be less than one request takes. Saving it up over several windows would not do: the other processes save
/// too, and all of them may spend in the same window. Such a request waits for the store, at most [`AWAY_MAX`].
pub(super) struct Shared {
    store: Store,
    rules: Arc<Rules>,
    /// What this process may take alone.
    part: Vec<Rule>,
    processes: u32,
    clock: Clock,
    retry_every: Duration,
    standing: Mutex<Standing>,
}

/// Where the budget is kept.
pub(super) enum Store {
    /// In a file of this machine.
    File(FileStore),
    /// In Redis.
    Redis(Box<RedisStore>),
}

/// What the store is told before it is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Note {
    /// Everyone waits for this long.
    pub(super) pause: Option<Duration>,
    /// Requests went that the store does not know of, so all counts as spent.
    pub(super) spent: bool,
}

/// A store that has been away for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Away {
    store: &'static str,
    /// For how long.
    away: Duration,
    processes: u32,
}

struct Standing {
    /// When the store was lost; none while it answers.
    lost_at: Option<Micros>,
    /// What went while the store was away.
    alone: Ledger,
    /// When the store is tried again; none while it answers.
    retry_at: Option<Micros>,
    /// Requests went since the store was last heard.
    went_alone: bool,
    /// A pause that the store has not heard of.
    pause_until: Micros,
}

impl Shared {
    pub(super) fn new(store: Store, rules: Arc<Rules>, processes: u32, clock: Clock) -> Self {
        let shortest = rules.rates.iter().map(|rate| rate.per).min();
        let quarter = shortest.map_or(RETRY_MAX, |per| {
            Duration::from_micros(u64::try_from(per).unwrap_or_default() / 4)
        });
        Self {
            store,
            part: rules.part(processes),
            processes,
            rules,
            clock,
            retry_every: quarter.clamp(RETRY_MIN, RETRY_MAX),
            standing: Mutex::new(Standing {
                lost_at: None,
                alone: Ledger::default(),
                retry_at: None,
                went_alone: false,
                pause_until: 0,
            }),
        }
    }

    /// Takes requests from the store, or from this process's part while it is away. The text names who granted.
    ///
    /// # Errors
    /// [`Away`] if the part has no room for such a request and the store has been away for [`AWAY_MAX`].
    pub(super) async fn take(&self, ask: &Ask) -> Result<(Verdict, &'static str), Away> {
        let now = self.now();
        if self.standing().retry_at.is_some_and(|moment| now < moment) {
            return self.take_alone(ask, now).map(|verdict| (verdict, "alone"));
        }
        match self.ask(Some(ask)).await {
            Ok(verdict) => Ok((verdict, self.store.name())),
            Err(error) => {
                let now = self.now();
                self.lost(now, &error);
                self.take_alone(ask, now).map(|verdict| (verdict, "alone"))
            }
        }
    }

    /// Notes a pause for everyone who shares the budget. [`Shared::publish`] tells them.
    pub(super) fn pause(&self, wait: Duration) {
        let until = self.now().saturating_add(micros(wait));
        let mut standing = self.standing();
        standing.pause_until = standing.pause_until.max(until);
    }

    /// Tells the store of a pause now; if it is away, the next request does.
    pub(super) async fn publish(&self) {
        if self.standing().retry_at.is_none()
            && let Err(error) = self.ask(None).await
        {
            self.lost(self.now(), &error);
        }
    }

    async fn ask(&self, ask: Option<&Ask>) -> Result<Verdict> {
        let (note, told) = {
            let standing = self.standing();
            let note = Note {
                pause: ahead(self.now(), standing.pause_until),
                spent: standing.went_alone,
            };
            (note, standing.pause_until)
        };
        let verdict = match &self.store {
            Store::File(store) => store.take(ask, note).await?,
            Store::Redis(store) => store.take(&self.rules.rates, ask, note).await?,
        };
        let mut standing = self.standing();
        if standing.pause_until == told {
            standing.pause_until = 0;
        }
        if note.spent {
            standing.went_alone = false;
        }
        standing.lost_at = None;
        if standing.retry_at.take().is_some() {
            info!(store = self.store.name(), "the shared rate limit is back");
        }
        Ok(verdict)
    }

    fn lost(&self, now: Micros, error: &Error) {
        let mut standing = self.standing();
        let retry_at = now.saturating_add(micros(self.retry_every));
        if standing.retry_at.replace(retry_at).is_none() {
            standing.lost_at = Some(now);
            standing.alone.spend_all(now);
            warn!(
                store = self.store.name(),
                reason = %error.chain(),
                "the shared rate limit cannot be reached: this process keeps to its part of it"
            );
        }
    }

    fn take_alone(&self, ask: &Ask, now: Micros) -> Result<Verdict, Away> {
        let mut standing = self.standing();
        let fits = |demand: &Demand| demand.weight <= self.part[demand.rate].requests;
        if !ask.demands.iter().all(fits) {
            // A clock that was set back begins the time anew.
            let lost_at = standing.lost_at.map_or(now, |moment| moment.min(now));
            standing.lost_at = Some(lost_at);
            let away = ahead(lost_at, now).unwrap_or_default();
            if away >= AWAY_MAX {
                return Err(Away {
                    store: self.store.name(),
                    away,
                    processes: self.processes,
                });
            }
            return Ok(Verdict::Wait(self.retry_every.min(AWAY_MAX - away)));
        }
        let pause_until = standing.pause_until;
        standing.alone.pause(pause_until);
        Ok(match standing.alone.take(&self.part, ask, now) {
            Verdict::Wait(wait) => Verdict::Wait(wait.min(self.retry_every)),
            granted => {
                standing.went_alone = true;
                granted
            }
        })
    }

    fn now(&self) -> Micros {
        self.clock.steady().timestamp_micros()
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        // Nothing in here panics half-way.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Away> for Error {
    fn from(away: Away) -> Self {
        Self::new(ErrorKind::Unavailable, "ask the shared rate limit")
            .with("store", away.store)
            .with("away_s", away.away.as_secs())
            .with("processes", away.processes)
            .with(
                "problem",
                "the store is away, and the part of the budget of one process is less than this request takes",
            )
            .with(
                "hint",
                "bring the store of rate_limit.share back; or set rate_limit.processes to how many really run",
            )
    }
}

impl Store {
    fn name(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Redis(_) => "redis",
        }
    }
}

#[cfg(test)]
mod tests;
