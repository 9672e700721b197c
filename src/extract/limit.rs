//! One budget per credential, shared by every stream and worker that uses it.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::TimeDelta;
use reqwest::header::HeaderMap;
use tracing::warn;

use crate::{
    clock::{Clock, Timestamp},
    config::{
        StreamName,
        rate::{Bucket, RateLimit},
    },
    error::Result,
    extract::quota::{self, Quota},
};

/// Grants remembered one by one; a larger budget is remembered in groups, each counted as late as its last grant.
const GROUPS_MAX: u32 = 1000;

/// The longest pause between requests while the server's own count runs low.
const SPACING_MAX: Duration = Duration::from_secs(5);

/// Part of the window added to it, because requests arrive less evenly than they are sent.
const WINDOW_MARGIN: u32 = 50;

/// Lets requests go as the budget allows: never more than [`Bucket::requests`] in any [`Bucket::per`].
///
/// Requests up to the budget go at once, so a short extraction does not wait. A wait that the server asks of one
/// request is a wait for all.
pub struct Limiter {
    rate: Option<Bucket>,
    clock: Clock,
    ledger: Mutex<Ledger>,
    /// Held by the one who waits next, so that requests go in the order they came.
    turn: tokio::sync::Mutex<()>,
}

/// Leave to send one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Names the grant in the log.
    pub id: String,
    /// The time waited for it.
    pub waited: Duration,
}

#[derive(Default)]
struct Ledger {
    groups: VecDeque<Group>,
    paused_until: Option<Timestamp>,
    spacing: Option<Spacing>,
    last: Option<Timestamp>,
    warned: bool,
}

/// Requests that went close to each other.
struct Group {
    first: Timestamp,
    last: Timestamp,
    count: u32,
}

/// A slower pace until a moment.
struct Spacing {
    every: TimeDelta,
    until: Timestamp,
}

impl Limiter {
    /// A budget that is full. Without a rate only the server's own words slow requests down.
    pub fn new(rate: Option<&RateLimit>, clock: Clock) -> Self {
        Self {
            rate: rate.and_then(|rate| rate.buckets.first().cloned()),
            clock,
            ledger: Mutex::default(),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// As [`Limiter::new`], joined to the store that the rate names. `name` is the credential's.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::error::ErrorKind::Config) if a pattern or the address of the store cannot be read.
    pub fn open(rate: Option<&RateLimit>, clock: Clock, _name: &str) -> Result<Self> {
        Ok(Self::new(rate, clock))
    }

    /// How long a request that asks now would wait, as far as this process knows. Takes nothing.
    pub fn wait_hint(&self) -> Duration {
        Duration::ZERO
    }

    /// Returns when one request may go.
    ///
    /// Each wait is bounded by the rate's window, [`quota::RESET_MAX`] or the retry limits of the one who paused.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::error::ErrorKind::Internal) if the work of the store ends early.
    pub async fn acquire(&self, _who: &StreamName, _method: &str, _path: &str) -> Result<Grant> {
        let _turn = self.turn.lock().await;
        let mut waited = Duration::ZERO;
        while let Some(wait) = self.try_acquire() {
            tokio::time::sleep(wait).await;
            waited += wait;
        }
        Ok(Grant {
            id: String::new(),
            waited,
        })
    }

    /// Takes one request from the budget, or returns how long to wait before asking again.
    pub fn try_acquire(&self) -> Option<Duration> {
        let now = self.clock.now();
        self.ledger().try_take(self.rate.as_ref(), now)
    }

    /// No request goes for `wait` from now.
    pub fn pause(&self, wait: Duration) {
        let until = later(self.clock.now(), wait);
        let mut ledger = self.ledger();
        ledger.paused_until = ledger.paused_until.max(Some(until));
    }

    /// Reads what the server says about the budget: waits for its reset when it is spent, slows down when it is low.
    pub fn observe(&self, headers: &HeaderMap) {
        let now = self.clock.now();
        let quota = quota::read(headers, now);
        if self.ledger().observe(quota, now) {
            warn!(
                remaining = quota.remaining,
                limit = quota.limit,
                reset_s = quota.reset.map(|reset| reset.as_secs()),
                "rate limit is low"
            );
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Nothing in here panics half-way.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    fn try_take(&mut self, rate: Option<&Bucket>, now: Timestamp) -> Option<Duration> {
        if self.last.is_some_and(|last| now < last) {
            self.turn_back(now);
        }
        if let Some(wait) = self.paused_until.and_then(|until| ahead(now, until)) {
            return Some(wait);
        }
        self.paused_until = None;
        if let Some(wait) = self.spacing_wait(now) {
            return Some(wait);
        }
        if let Some(rate) = rate
            && let Some(wait) = self.rate_wait(rate, now)
        {
            return Some(wait);
        }
        self.last = Some(now);
        None
    }

    fn rate_wait(&mut self, rate: &Bucket, now: Timestamp) -> Option<Duration> {
        let window = rate.per.saturating_add(rate.per / WINDOW_MARGIN);
        while self
            .groups
            .front()
            .is_some_and(|group| later(group.last, window) <= now)
        {
            self.groups.pop_front();
        }
        let taken: u64 = self.groups.iter().map(|group| u64::from(group.count)).sum();
        if taken >= u64::from(rate.requests.max(1)) {
            let free = self.groups.front().map_or(now, |group| later(group.last, window));
            return Some(ahead(now, free).unwrap_or(Duration::from_millis(1)));
        }
        let width = if rate.requests > GROUPS_MAX {
            rate.per / GROUPS_MAX
        } else {
            Duration::ZERO
        };
        match self.groups.back_mut() {
            Some(group) if group.last == now || now < later(group.first, width) => {
                group.last = now;
                group.count += 1;
            }
            _ => self.groups.push_back(Group {
                first: now,
                last: now,
                count: 1,
            }),
        }
        None
    }

    fn spacing_wait(&mut self, now: Timestamp) -> Option<Duration> {
        let spacing = self.spacing.as_ref()?;
        if spacing.until <= now {
            self.spacing = None;
            return None;
        }
        ahead(now, self.last? + spacing.every)
    }

    /// Takes note of a server's count; true if this is the moment to warn.
    fn observe(&mut self, quota: Quota, now: Timestamp) -> bool {
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
                self.paused_until = self.paused_until.max(Some(later(now, reset)));
            }
            let every =
                (reset / u32::try_from(remaining.saturating_add(1)).unwrap_or(u32::MAX)).min(SPACING_MAX);
            self.spacing = Some(Spacing {
                every: delta(every),
                until: later(now, reset),
            });
        }
        !std::mem::replace(&mut self.warned, true)
    }

    /// The clock was set back: what was granted counts as granted now, so that no wait outlasts the window.
    fn turn_back(&mut self, now: Timestamp) {
        let count = self
            .groups
            .iter()
            .map(|group| group.count)
            .fold(0, u32::saturating_add);
        self.groups.clear();
        if count > 0 {
            self.groups.push_back(Group {
                first: now,
                last: now,
                count,
            });
        }
        self.paused_until = None;
        self.spacing = None;
        self.last = Some(now);
    }
}

fn delta(duration: Duration) -> TimeDelta {
    // A rate window beyond 290 million years is as good as this.
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

fn later(moment: Timestamp, wait: Duration) -> Timestamp {
    moment
        .checked_add_signed(delta(wait))
        .unwrap_or(Timestamp::MAX_UTC)
}

fn ahead(now: Timestamp, until: Timestamp) -> Option<Duration> {
    (until - now).to_std().ok().filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicI64, Ordering::SeqCst},
    };

    use proptest::prelude::*;

    use super::*;
    use crate::config::rate::{Share, WindowKind};

    /// A limiter and the milliseconds its clock shows.
    fn limiter(requests: u32, per_ms: u64) -> (Limiter, Arc<AtomicI64>) {
        let millis = Arc::new(AtomicI64::new(1_700_000_000_000));
        let shown = Arc::clone(&millis);
        let clock = Clock::from_fn(move || Timestamp::from_timestamp_millis(shown.load(SeqCst)).unwrap());
        let rate = (requests > 0).then(|| RateLimit {
            buckets: vec![Bucket {
                requests,
                per: Duration::from_millis(per_ms),
                window: WindowKind::Moving,
                matches: None,
            }],
            share: Share::Process,
            processes: 1,
        });
        (Limiter::new(rate.as_ref(), clock), millis)
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn r039_the_budget_goes_at_once_and_then_waits_for_the_window() {
        let (limiter, millis) = limiter(3, 1000);
        for _ in 0..3 {
            assert_eq!(limiter.try_acquire(), None);
        }
        assert_eq!(limiter.try_acquire(), Some(Duration::from_millis(1020)));
        millis.fetch_add(1019, SeqCst);
        assert_eq!(limiter.try_acquire(), Some(Duration::from_millis(1)));
        millis.fetch_add(1, SeqCst);
        assert_eq!(limiter.try_acquire(), None);
    }

    #[test]
    fn r042_a_pause_holds_everyone() {
        let (limiter, millis) = limiter(0, 0);
        assert_eq!(limiter.try_acquire(), None);
        limiter.pause(Duration::from_secs(5));
        limiter.pause(Duration::from_secs(2));
        for _ in 0..3 {
            assert_eq!(limiter.try_acquire(), Some(Duration::from_secs(5)));
        }
        millis.fetch_add(5000, SeqCst);
        assert_eq!(limiter.try_acquire(), None);
    }

    #[test]
    fn r034_a_spent_budget_waits_for_its_reset() {
        let (limiter, millis) = limiter(0, 0);
        limiter.observe(&headers(&[
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "30"),
        ]));
        assert_eq!(limiter.try_acquire(), Some(Duration::from_secs(30)));
        millis.fetch_add(30_000, SeqCst);
        assert_eq!(limiter.try_acquire(), None);
    }

    #[test]
    fn r034_an_implausible_reset_is_not_waited_for() {
        let (limiter, _) = limiter(0, 0);
        limiter.observe(&headers(&[
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "999999"),
        ]));
        limiter.observe(&headers(&[("x-ratelimit-remaining", "x"), ("ratelimit", "?")]));
        assert_eq!(limiter.try_acquire(), None);
    }

    #[test]
    fn r034_no_number_a_server_sends_makes_it_panic_or_wait_without_cause() {
        let numbers = [
            "0",
            "1",
            "4294967295",
            "18446744073709551614",
            "18446744073709551615",
        ];
        for limit in numbers {
            for remaining in numbers {
                for reset in ["0", "1", "3600", "9223372036854775807", "18446744073709551615"] {
                    let (limiter, _) = limiter(0, 0);
                    limiter.observe(&headers(&[
                        ("x-ratelimit-limit", limit),
                        ("x-ratelimit-remaining", remaining),
                        ("x-ratelimit-reset", reset),
                    ]));
                    let wait = limiter.try_acquire();
                    assert!(
                        wait.is_none() || remaining == "0",
                        "{limit} {remaining} {reset}: {wait:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn r034_a_low_budget_slows_down_and_warns_once() {
        let (limiter, millis) = limiter(0, 0);
        let quota = |remaining| Quota {
            limit: Some(100),
            remaining: Some(remaining),
            reset: Some(Duration::from_secs(12)),
        };
        let now = limiter.clock.now();
        assert!(!limiter.ledger().observe(quota(50), now));
        assert!(limiter.ledger().observe(quota(5), now));
        assert!(!limiter.ledger().observe(quota(4), now));
        assert!(!limiter.ledger().observe(quota(3), now));
        assert_eq!(limiter.try_acquire(), None);
        assert_eq!(limiter.try_acquire(), Some(Duration::from_secs(3)));
        millis.fetch_add(3000, SeqCst);
        assert_eq!(limiter.try_acquire(), None);
        assert!(!limiter.ledger().observe(quota(90), now));
        assert_eq!(limiter.try_acquire(), None);
        assert!(limiter.ledger().observe(quota(5), now));
    }

    #[test]
    fn r039_a_clock_set_back_waits_one_window_at_most() {
        let (limiter, millis) = limiter(2, 1000);
        assert_eq!((limiter.try_acquire(), limiter.try_acquire()), (None, None));
        millis.fetch_sub(3_600_000, SeqCst);
        assert_eq!(limiter.try_acquire(), Some(Duration::from_millis(1020)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn r039_no_window_ever_holds_more_than_the_budget(
            requests in prop_oneof![1u32..20, 1001u32..1500],
            per_ms in 1u64..3000,
            gaps in proptest::collection::vec(0i64..400, 50..400),
        ) {
            let (limiter, millis) = limiter(requests, per_ms);
            let mut granted: Vec<i64> = Vec::new();
            for gap in gaps {
                millis.fetch_add(gap / 100 * gap / 20, SeqCst);
                // A burst of everybody at once, as far as it goes.
                for _ in 0..40 {
                    match limiter.try_acquire() {
                        None => granted.push(millis.load(SeqCst)),
                        Some(wait) => {
                            prop_assert!(wait <= Duration::from_millis(per_ms + per_ms / 50 + 1));
                            break;
                        }
                    }
                }
            }
            let per = i64::try_from(per_ms).unwrap();
            let mut start = 0;
            for end in 0..granted.len() {
                while granted[end] - granted[start] >= per {
                    start += 1;
                }
                prop_assert!(end - start < requests as usize, "{} in one window of {requests}", end - start + 1);
            }
        }

        #[test]
        fn r039_whoever_waits_as_told_is_let_go(requests in 1u32..5, per_ms in 1u64..500) {
            let (limiter, millis) = limiter(requests, per_ms);
            for _ in 0..30 {
                if let Some(wait) = limiter.try_acquire() {
                    millis.fetch_add(i64::try_from(wait.as_micros().div_ceil(1000)).unwrap(), SeqCst);
                    prop_assert_eq!(limiter.try_acquire(), None);
                }
            }
        }
    }
}
