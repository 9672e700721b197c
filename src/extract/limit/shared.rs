//! A budget that several processes spend, and what one of them does while it cannot ask.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tracing::{info, warn};

use crate::{
    clock::Clock,
    error::{Error, Result},
    extract::limit::{
        file::FileStore,
        ledger::{Ask, Ledger, Verdict},
        redis::RedisStore,
        rules::{Micros, Rule, Rules, ahead, micros},
    },
};

/// The longest time between two attempts to reach a store that is away.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The shortest.
const RETRY_MIN: Duration = Duration::from_millis(50);

/// A budget in a store.
///
/// While the store cannot be reached, the process spends its own part of the budget and no more. A budget that changes
/// hands counts as spent at that moment: nothing goes for one window, because nobody here knows what the others took.
/// So no window holds more than the budget, whatever becomes of the store. Within that window the store may come back
/// with everything it knew, and then nothing was lost.
pub(super) struct Shared {
    store: Store,
    rules: Arc<Rules>,
    /// What this process may take alone.
    part: Vec<Rule>,
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

struct Standing {
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
            rules,
            clock,
            retry_every: quarter.clamp(RETRY_MIN, RETRY_MAX),
            standing: Mutex::new(Standing {
                alone: Ledger::default(),
                retry_at: None,
                went_alone: false,
                pause_until: 0,
            }),
        }
    }

    /// Takes requests from the store, or from this process's part while it is away. The text names who granted.
    pub(super) async fn take(&self, ask: &Ask) -> (Verdict, &'static str) {
        let now = self.now();
        if self.standing().retry_at.is_some_and(|moment| now < moment) {
            return (self.take_alone(ask, now), "alone");
        }
        match self.ask(Some(ask)).await {
            Ok(verdict) => (verdict, self.store.name()),
            Err(error) => {
                let now = self.now();
                self.lost(now, &error);
                (self.take_alone(ask, now), "alone")
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
        if standing.retry_at.take().is_some() {
            info!(store = self.store.name(), "the shared rate limit is back");
        }
        Ok(verdict)
    }

    fn lost(&self, now: Micros, error: &Error) {
        let mut standing = self.standing();
        let retry_at = now.saturating_add(micros(self.retry_every));
        if standing.retry_at.replace(retry_at).is_none() {
            standing.alone.spend_all(now);
            warn!(
                store = self.store.name(),
                reason = %error.chain(),
                "the shared rate limit cannot be reached: this process keeps to its part of it"
            );
        }
    }

    fn take_alone(&self, ask: &Ask, now: Micros) -> Verdict {
        let mut standing = self.standing();
        let pause_until = standing.pause_until;
        standing.alone.pause(pause_until);
        match standing.alone.take(&self.part, ask, now) {
            Verdict::Wait(wait) => Verdict::Wait(wait.min(self.retry_every)),
            granted => {
                standing.went_alone = true;
                granted
            }
        }
    }

    fn now(&self) -> Micros {
        self.clock.steady().timestamp_micros()
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        // Nothing in here panics half-way.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
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
