//! What an API told of the quota of one credential, and when it is asked again: pure, with the moment as an argument.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::TimeDelta;

use crate::{
    clock::Timestamp,
    extract::quota::{Quota, RESET_MAX},
};

/// Asked again no sooner than this while requests are left, however short the window.
const AGAIN_MIN: Duration = Duration::from_secs(10);

/// Asked again after this if there was nothing to be learnt.
const AGAIN_AFTER_MISS: Duration = Duration::from_secs(5 * 60);

/// Waited at least while the quota is spent: its reset may have come by the API's clock and not yet for its count.
const SPENT_MIN: Duration = Duration::from_millis(200);

/// Told so often in a row that a quota is spent and its reset there, the answers to the pages have to say what holds.
const OVERDUE_MAX: u32 = 10;

/// What is known of the quota of one credential. Shared by everything that sends with the credential.
#[derive(Default)]
pub(crate) struct Standing {
    /// Held by the one who asks for all.
    pub(super) asking: tokio::sync::Mutex<()>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    quota: Option<Quota>,
    /// None: at once.
    again_at: Option<Timestamp>,
    /// None: requests are left, or nothing is known.
    spent_until: Option<Timestamp>,
    /// How often in a row it was spent although its reset had come.
    overdue: u32,
}

impl Standing {
    /// What was told last; none if there was no answer that could be read.
    pub(crate) fn quota(&self) -> Option<Quota> {
        self.lock().quota
    }

    /// Whether the API is to be asked now.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.lock().again_at.is_none_or(|moment| moment <= now)
    }

    /// How long no request is left; nothing if one is, or if that is not known.
    pub(super) fn left(&self, now: Timestamp) -> Duration {
        let until = self.lock().spent_until;
        until
            .and_then(|until| (until - now).to_std().ok())
            .unwrap_or_default()
    }

    /// Takes note of an answer.
    pub(super) fn told(&self, quota: Quota, now: Timestamp) {
        let mut told = self.lock();
        let reset = quota.reset.unwrap_or_default();
        told.overdue = if quota.is_spent() && reset < SPENT_MIN {
            told.overdue + 1
        } else {
            0
        };
        let (wait, again) = if told.overdue > OVERDUE_MAX {
            (None, AGAIN_AFTER_MISS)
        } else if quota.is_spent() {
            (Some(reset.max(SPENT_MIN)), reset.max(SPENT_MIN))
        } else {
            (None, reset.max(AGAIN_MIN))
        };
        told.spent_until = wait.map(|wait| after(now, wait));
        told.quota = Some(quota);
        // A quota may be raised before its time.
        told.again_at = Some(after(now, again.min(RESET_MAX)));
    }

    /// Takes note that there was no answer that could be read.
    pub(super) fn missed(&self, now: Timestamp) {
        *self.lock() = Told {
            again_at: Some(after(now, AGAIN_AFTER_MISS)),
            ..Told::default()
        };
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        // Nothing in here panics half-way.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn after(now: Timestamp, wait: Duration) -> Timestamp {
    let wait = TimeDelta::from_std(wait).unwrap_or(TimeDelta::MAX);
    now.checked_add_signed(wait).unwrap_or(Timestamp::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_timestamp;

    fn quota(remaining: u64, reset: Duration) -> Quota {
        Quota {
            limit: None,
            remaining: Some(remaining),
            reset: Some(reset),
        }
    }

    #[test]
    fn it_is_asked_at_once_and_again_when_what_was_told_is_over() {
        let now = parse_timestamp("2024-05-01T12:00:00Z").unwrap();
        let s = Duration::from_secs;
        // (requests left, reset), the wait until requests may go, and until it is asked again
        let table = [
            ((7, s(60)), s(0), s(60)),
            ((7, s(1)), s(0), AGAIN_MIN),
            ((0, s(60)), s(60), s(60)),
            ((0, s(86_400)), s(86_400), RESET_MAX),
            ((0, s(0)), SPENT_MIN, SPENT_MIN),
        ];
        for ((remaining, reset), left, again) in table {
            let standing = Standing::default();
            assert!(standing.is_due(now));
            assert_eq!(standing.left(now), s(0));
            standing.told(quota(remaining, reset), now);
            assert_eq!(standing.left(now), left);
            assert!(!standing.is_due(after(now, again - Duration::from_millis(1))));
            assert!(standing.is_due(after(now, again)));
        }
    }

    #[test]
    fn what_cannot_be_learnt_or_is_overdue_holds_nobody() {
        let now = parse_timestamp("2024-05-01T12:00:00Z").unwrap();
        let standing = Standing::default();
        standing.told(quota(0, Duration::from_secs(60)), now);
        standing.missed(now);
        assert_eq!((standing.left(now), standing.quota()), (Duration::ZERO, None));
        assert!(!standing.is_due(after(now, AGAIN_AFTER_MISS - SPENT_MIN)));
        assert!(standing.is_due(after(now, AGAIN_AFTER_MISS)));
        for _ in 0..OVERDUE_MAX {
            standing.told(quota(0, Duration::ZERO), now);
            assert_eq!(standing.left(now), SPENT_MIN);
        }
        standing.told(quota(0, Duration::ZERO), now);
        assert_eq!(standing.left(now), Duration::ZERO);
        assert!(!standing.is_due(now));
    }
}
