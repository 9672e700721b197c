//! What the server says about the pace: pure, with the moment as an argument.

use std::time::Duration;

use crate::extract::{
    cost::Cost,
    limit::rules::{Micros, ahead, micros},
    quota::Quota,
};

/// The longest pause between requests while the server's own count runs low.
const SPACING_MAX: Duration = Duration::from_secs(5);

/// A shorter time between two requests is none.
const PACE_MIN: Duration = Duration::from_millis(1);

/// How far back answers are counted in full.
const ROUND_MAX: Duration = Duration::from_secs(60);

/// Part of a pace that each answer takes off it again, one in so many.
const PACE_RECOVERS: i64 = 64;

/// The server's words to one process: a pause for everyone, a slower pace.
///
/// A server that refuses requests without saying how many it allows shows it by what it answers: after a refusal,
/// requests go as fast as answers came since the refusal before, and a little faster with each answer. So a refusal
/// slows down many workers as it does one, and they do not all come back at once.
#[derive(Default)]
pub(super) struct Words {
    paused_until: Micros,
    spacing: Option<Spacing>,
    /// The time between two requests since one was refused; none before, and when it has become short.
    pace: Micros,
    /// What came since a request was last refused.
    round: Option<Round>,
    /// When a request last went.
    last: Micros,
    warned: bool,
}

/// The time between two refusals.
struct Round {
    began: Micros,
    answered: i64,
}

/// A slower pace until a moment.
struct Spacing {
    every: Micros,
    until: Micros,
}

impl Words {
    /// How long to wait before the next request; none if it may go.
    pub(super) fn wait(&mut self, now: Micros) -> Option<Duration> {
        if now < self.last {
            // The clock was set back.
            (self.paused_until, self.spacing, self.last) = (0, None, now);
        }
        if self.spacing.as_ref().is_some_and(|spacing| spacing.until <= now) {
            self.spacing = None;
        }
        let every = self
            .spacing
            .as_ref()
            .map_or(0, |spacing| spacing.every)
            .max(self.pace);
        let paced_until = if every > 0 {
            self.last.saturating_add(every)
        } else {
            0
        };
        ahead(now, self.paused_until.max(paced_until))
    }

    /// Whether requests go one by one for now.
    pub(super) fn is_spaced(&self) -> bool {
        self.spacing.is_some() || self.pace > 0
    }

    /// A request was answered, and not with a refusal.
    pub(super) fn answered(&mut self, now: Micros) {
        let round = self.round.get_or_insert(Round {
            began: now,
            answered: 0,
        });
        round.answered += 1;
        if now.saturating_sub(round.began) > micros(ROUND_MAX) {
            // What was long ago counts for less and less.
            round.began += (now - round.began) / 2;
            round.answered /= 2;
        }
        self.pace -= self.pace / PACE_RECOVERS;
        if self.pace < micros(PACE_MIN) {
            self.pace = 0;
        }
    }

    /// A request was refused because too many were sent. The server asked for a wait of `asked`; the request itself
    /// waits for `wait` before it goes again.
    ///
    /// True if that was news: requests on their way when the first was refused are refused too.
    pub(super) fn refused(&mut self, now: Micros, asked: Option<Duration>, wait: Duration) -> bool {
        if now < self.paused_until {
            self.pause(now, asked.unwrap_or_default());
            return false;
        }
        if let Some(round) = self.round.as_mut().filter(|round| round.answered > 0) {
            let every = now.saturating_sub(round.began) / round.answered;
            self.pace = every.clamp(0, micros(SPACING_MAX));
            *round = Round {
                began: now,
                answered: 0,
            };
        }
        self.pause(now, asked.unwrap_or_default().max(wait));
        true
    }

    /// Requests go.
    pub(super) fn granted(&mut self, now: Micros) {
        self.last = self.last.max(now);
    }

    /// No request goes for `wait` from now.
    pub(super) fn pause(&mut self, now: Micros, wait: Duration) {
        self.paused_until = self.paused_until.max(now.saturating_add(micros(wait)));
    }

    /// When the pause is over.
    pub(super) fn paused_until(&self) -> Micros {
        self.paused_until
    }

    /// Takes note of a server's count; true if this is the moment to warn.
    pub(super) fn observe(&mut self, quota: Quota, now: Micros) -> bool {
        let Some(remaining) = quota.remaining else {
            return false;
        };
        if !quota.is_low() {
            self.warned = false;
            self.spacing = None;
            return false;
        }
        if let Some(reset) = quota.reset {
            if remaining == 0 {
                self.pause(now, reset);
            }
            let every = reset / u32::try_from(remaining.saturating_add(1)).unwrap_or(u32::MAX);
            self.slow_down(every, now.saturating_add(micros(reset)));
        }
        !std::mem::replace(&mut self.warned, true)
    }

    /// Takes note of what a GraphQL request cost and how the budget refills.
    pub(super) fn observe_cost(&mut self, cost: &Cost, now: Micros) {
        match cost.refill() {
            Some(refill) => {
                if let Some(missing) = refill.missing {
                    self.pause(now, missing);
                }
                self.slow_down(refill.every, now.saturating_add(micros(refill.lasts)));
            }
            None => self.spacing = None,
        }
    }

    fn slow_down(&mut self, every: Duration, until: Micros) {
        self.spacing = Some(Spacing {
            every: micros(every.min(SPACING_MAX)),
            until,
        });
    }
}
