//! Leaves a failing host alone, and bounds how many requests it is sent twice.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::TimeDelta;
use tracing::{info, warn};

use crate::{
    clock::{Clock, Timestamp},
    config::errors::Breaker as Settings,
};

/// Watches one host, for every stream and worker that asks it.
///
/// ```text
/// Closed ── failures in a row ──► Open ── after `open` ──► HalfOpen ── success ──► Closed
///                                  ▲                          │
///                                  └───────── failure ────────┘
/// ```
///
/// A failure is one of the host: no connection, a timeout, a 5xx. An answer that the request itself is wrong, a 4xx,
/// shows that the host works and counts as success. One URL that always fails among others that work opens nothing,
/// because only failures in a row count.
pub struct Breaker {
    settings: Settings,
    clock: Clock,
    inner: Mutex<Inner>,
}

struct Inner {
    phase: Phase,
    failures: u32,
    /// Repeats that may be sent now; grows with each success.
    repeats: f64,
}

#[derive(Clone, Copy)]
enum Phase {
    Closed,
    Open { until: Timestamp },
    HalfOpen { until: Timestamp },
}

/// Whether a request may go to the host now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Go,
    /// It may, as the only one; what becomes of it decides for the others. It needs no [`Breaker::may_repeat`].
    Probe,
    /// It may not. Ask again after this long.
    Wait(Duration),
}

/// What a breaker does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// They go.
    Closed,
    /// They wait.
    Open,
    /// One goes, the others wait for its end.
    HalfOpen,
}

impl Breaker {
    /// A closed breaker with its free repeats.
    pub fn new(settings: Settings, clock: Clock) -> Self {
        Self {
            settings,
            clock,
            inner: Mutex::new(Inner {
                phase: Phase::Closed,
                failures: 0,
                repeats: f64::from(settings.repeats_free),
            }),
        }
    }

    /// Whether a request may go to the host now.
    ///
    /// Whoever is let through reports the end with [`Breaker::succeeded`] or [`Breaker::failed`]. A probe that reports
    /// nothing for as long as the breaker stays open is given up, and the next who asks is the probe.
    pub fn admit(&self) -> Admission {
        let now = self.clock.steady();
        let mut inner = self.lock();
        let until = match inner.phase {
            Phase::Closed => return Admission::Go,
            Phase::Open { until } | Phase::HalfOpen { until } => until,
        };
        // A clock that was set back must not keep the host waiting for longer than one period.
        let wait = (until - now).to_std().unwrap_or_default().min(self.settings.open);
        if wait.is_zero() {
            inner.phase = Phase::HalfOpen {
                until: self.after_open(now),
            };
            return Admission::Probe;
        }
        Admission::Wait(wait)
    }

    /// How long the host is still left alone; none if a request may go that another one, which was let through, needs
    /// first: it is a part of that one, and so of a probe.
    pub(crate) fn left(&self) -> Option<Duration> {
        match self.state() {
            BreakerState::Closed | BreakerState::HalfOpen => None,
            BreakerState::Open => match self.admit() {
                Admission::Go | Admission::Probe => None,
                Admission::Wait(left) => Some(left),
            },
        }
    }

    /// The host answered a request, be it with a 4xx.
    pub fn succeeded(&self) {
        let mut inner = self.lock();
        inner.failures = 0;
        let most = f64::from(self.settings.repeats_free).max(1.0);
        inner.repeats = (inner.repeats + self.settings.repeats_ratio).min(most);
        // An answer on its way since before the breaker opened says nothing about the host now.
        if matches!(inner.phase, Phase::HalfOpen { .. }) {
            inner.phase = Phase::Closed;
            info!("circuit closed: the host answers again");
        }
    }

    /// The host did not answer a request, or with a 5xx.
    pub fn failed(&self) {
        let now = self.clock.steady();
        let mut inner = self.lock();
        inner.failures = inner.failures.saturating_add(1);
        let opens = match inner.phase {
            Phase::Closed => inner.failures >= self.settings.failures.max(1),
            Phase::HalfOpen { .. } => true,
            Phase::Open { .. } => false,
        };
        if opens {
            if matches!(inner.phase, Phase::Closed) {
                let (failures, open_s) = (inner.failures, self.settings.open.as_secs_f64());
                warn!(failures, open_s, "circuit opened: the host fails");
            }
            inner.phase = Phase::Open {
                until: self.after_open(now),
            };
        }
    }

    /// Whether a request may be sent again after a failure of the host; takes one repeat from the budget if so.
    ///
    /// All repeats together are never more than [`Settings::repeats_free`] and [`Settings::repeats_ratio`] for each
    /// success, and at most the free ones at once, however many successes came before.
    pub fn may_repeat(&self) -> bool {
        let mut inner = self.lock();
        if inner.repeats < 1.0 {
            return false;
        }
        inner.repeats -= 1.0;
        true
    }

    /// What it does with requests.
    pub fn state(&self) -> BreakerState {
        match self.lock().phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    fn after_open(&self, now: Timestamp) -> Timestamp {
        let open = TimeDelta::from_std(self.settings.open).unwrap_or(TimeDelta::MAX);
        now.checked_add_signed(open).unwrap_or(Timestamp::MAX_UTC)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half-way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicI64, Ordering::SeqCst},
    };

    use proptest::prelude::*;

    use super::*;

    const SETTINGS: Settings = Settings {
        failures: 3,
        open: Duration::from_secs(30),
        repeats_ratio: 0.1,
        repeats_free: 5,
    };

    fn breaker() -> (Breaker, Arc<AtomicI64>) {
        let millis = Arc::new(AtomicI64::new(1_700_000_000_000));
        let shown = Arc::clone(&millis);
        let clock = Clock::from_fn(move || Timestamp::from_timestamp_millis(shown.load(SeqCst)).unwrap());
        (Breaker::new(SETTINGS, clock), millis)
    }

    fn fail(breaker: &Breaker, times: u32) {
        (0..times).for_each(|_| breaker.failed());
    }

    #[test]
    fn r045_failures_in_a_row_open_it_and_one_probe_closes_it() {
        let (breaker, millis) = breaker();
        fail(&breaker, 2);
        assert_eq!(breaker.admit(), Admission::Go);
        breaker.failed();
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.admit(), Admission::Wait(Duration::from_secs(30)));

        millis.fetch_add(29_000, SeqCst);
        assert_eq!(breaker.admit(), Admission::Wait(Duration::from_secs(1)));
        millis.fetch_add(1000, SeqCst);
        assert_eq!(breaker.admit(), Admission::Probe);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert_eq!(breaker.admit(), Admission::Wait(Duration::from_secs(30)));

        breaker.failed();
        assert_eq!(breaker.state(), BreakerState::Open);
        millis.fetch_add(30_000, SeqCst);
        assert_eq!(breaker.admit(), Admission::Probe);
        breaker.succeeded();
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_eq!(breaker.admit(), Admission::Go);
    }

    #[test]
    fn r045_a_probe_that_is_never_heard_of_again_is_given_up() {
        let (breaker, millis) = breaker();
        fail(&breaker, 3);
        millis.fetch_add(30_000, SeqCst);
        assert_eq!(breaker.admit(), Admission::Probe);
        millis.fetch_add(30_000, SeqCst);
        assert_eq!(breaker.admit(), Admission::Probe);
    }

    #[test]
    fn r045_what_a_probe_needs_first_may_go_with_it() {
        let (breaker, millis) = breaker();
        assert_eq!(breaker.left(), None);
        fail(&breaker, 3);
        assert_eq!(breaker.left(), Some(Duration::from_secs(30)));
        millis.fetch_add(30_000, SeqCst);
        assert_eq!(breaker.admit(), Admission::Probe);
        assert_eq!(breaker.left(), None);
        assert_eq!(breaker.admit(), Admission::Wait(Duration::from_secs(30)));
        // On its own it is the probe itself.
        breaker.failed();
        millis.fetch_add(30_000, SeqCst);
        assert_eq!(breaker.left(), None);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
    }

    #[test]
    fn r045_late_answers_neither_close_it_nor_open_it_for_longer() {
        let (breaker, millis) = breaker();
        fail(&breaker, 3);
        millis.fetch_add(10_000, SeqCst);
        breaker.succeeded();
        fail(&breaker, 5);
        assert_eq!(breaker.admit(), Admission::Wait(Duration::from_secs(20)));
    }

    #[test]
    fn r045_a_clock_set_back_keeps_nobody_for_longer_than_one_period() {
        let (breaker, millis) = breaker();
        fail(&breaker, 3);
        millis.fetch_sub(3_600_000, SeqCst);
        assert_eq!(breaker.admit(), Admission::Wait(Duration::from_secs(30)));
    }

    #[test]
    fn f061_one_url_that_always_fails_among_others_opens_nothing() {
        let (breaker, _) = breaker();
        for _ in 0..100 {
            fail(&breaker, 2);
            breaker.succeeded();
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn f062_ten_minutes_of_outage_cost_the_free_repeats_and_the_probes() {
        let (breaker, millis) = breaker();
        let mut sent = 0;
        // Ten workers that each try to repeat every second.
        for _ in 0..600 {
            for _ in 0..10 {
                match breaker.admit() {
                    Admission::Go if !breaker.may_repeat() => {}
                    Admission::Go | Admission::Probe => {
                        sent += 1;
                        breaker.failed();
                    }
                    Admission::Wait(_) => {}
                }
            }
            millis.fetch_add(1000, SeqCst);
        }
        assert!(sent <= 3 + 600 / 30, "{sent}");
        millis.fetch_add(30_000, SeqCst);
        assert_eq!(breaker.admit(), Admission::Probe);
        breaker.succeeded();
        assert_eq!(breaker.admit(), Admission::Go);
    }

    proptest! {
        #[test]
        fn r046_repeats_stay_within_the_free_ones_and_a_tenth(events in proptest::collection::vec(any::<bool>(), 0..600)) {
            let (breaker, _) = breaker();
            let (mut successes, mut repeats) = (0u32, 0u32);
            for success in events {
                if success {
                    breaker.succeeded();
                    successes += 1;
                } else if breaker.may_repeat() {
                    repeats += 1;
                }
                prop_assert!(f64::from(repeats) <= 5.0 + 0.1 * f64::from(successes) + 1e-6);
            }
        }
    }
}
