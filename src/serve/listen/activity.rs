//! What one connection is doing, and until when it may.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::http::Version;
use tokio::{sync::Notify, time::Instant};

use super::Limits;

/// What one connection is doing. The HTTP library times only HTTP/1 headers; this times everything else too, the same
/// way for both versions and before the version is known.
#[derive(Debug)]
pub(super) struct Activity {
    doing: Mutex<Doing>,
    changed: Notify,
}

#[derive(Debug)]
struct Doing {
    /// When each running exchange began, oldest first.
    running: BTreeMap<u64, Instant>,
    next: u64,
    /// When the last exchange ended, or the connection began.
    quiet_since: Instant,
    /// When the first bytes came that no exchange has followed yet.
    waiting_since: Option<Instant>,
    /// HTTP/2 sends frames between exchanges, so bytes do not announce a request there.
    version: Option<Version>,
}

/// Why a connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing was asked for long enough.
    Idle,
    /// A request was begun but its head is not complete.
    Head,
    /// A request or the sending of its answer takes too long.
    Exchange,
}

/// A request from its head to the last byte of its answer. Ends when dropped.
#[derive(Debug)]
pub(super) struct Exchange {
    activity: Arc<Activity>,
    number: u64,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            doing: Mutex::new(Doing {
                running: BTreeMap::new(),
                next: 0,
                quiet_since: Instant::now(),
                waiting_since: None,
                version: None,
            }),
            changed: Notify::new(),
        })
    }

    fn doing(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes came from the peer.
    pub(super) fn received(&self) {
        let mut doing = self.doing();
        let announces = doing.version != Some(Version::HTTP_2) && doing.running.is_empty();
        if announces && doing.waiting_since.is_none() {
            doing.waiting_since = Some(Instant::now());
            self.changed.notify_one();
        }
    }

    /// Bytes went to the peer. The end of a long answer is sent after its exchange is over, so HTTP/1 is not idle then.
    /// HTTP/2 sends frames of its own, and takes from an answer only what the peer lets it send.
    pub(super) fn sent(&self) {
        let mut doing = self.doing();
        if doing.version != Some(Version::HTTP_2) {
            doing.quiet_since = Instant::now();
        }
    }

    /// What came until now was not the beginning of a request: the handshake is done.
    pub(super) fn settle(&self) {
        self.doing().waiting_since = None;
    }

    /// A request head is complete.
    pub(super) fn begin(self: &Arc<Self>, version: Version) -> Exchange {
        let mut doing = self.doing();
        let number = doing.next;
        doing.next += 1;
        doing.running.insert(number, Instant::now());
        doing.waiting_since = None;
        doing.version = Some(version);
        Exchange {
            activity: self.clone(),
            number,
        }
    }

    /// When this connection has to end if nothing changes, and why. `parted`: since when it was told to end by itself.
    pub(super) fn due(&self, limits: &Limits, parted: Option<Instant>) -> (Instant, Due) {
        let doing = self.doing();
        if let Some(oldest) = doing.running.values().next() {
            return (*oldest + limits.exchange_timeout, Due::Exchange);
        }
        let idle = match parted {
            Some(parted) => parted.max(doing.quiet_since) + limits.farewell_timeout,
            None => doing.quiet_since + limits.idle_timeout,
        };
        match doing.waiting_since.map(|since| since + limits.head_timeout) {
            Some(head) if head <= idle => (head, Due::Head),
            _ => (idle, Due::Idle),
        }
    }

    /// Waits until what [`Activity::due`] says may have become earlier.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut doing = self.activity.doing();
        doing.running.remove(&self.number);
        if doing.running.is_empty() {
            doing.quiet_since = Instant::now();
            self.activity.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_idle_then_waiting_then_busy_then_idle() {
        let limits = Limits::DEFAULT;
        let activity = Activity::new();
        assert_eq!(activity.due(&limits, None).1, Due::Idle);
        activity.received();
        assert_eq!(activity.due(&limits, None).1, Due::Head);
        let first = activity.begin(Version::HTTP_11);
        let second = activity.begin(Version::HTTP_11);
        activity.received();
        assert_eq!(activity.due(&limits, None).1, Due::Exchange);
        drop(first);
        assert_eq!(activity.due(&limits, None).1, Due::Exchange);
        drop(second);
        assert_eq!(activity.due(&limits, None).1, Due::Idle);
        activity.received();
        assert_eq!(activity.due(&limits, None).1, Due::Head);
    }

    #[tokio::test]
    async fn frames_between_http2_requests_announce_nothing() {
        let limits = Limits::DEFAULT;
        let activity = Activity::new();
        drop(activity.begin(Version::HTTP_2));
        activity.received();
        let (idle, due) = activity.due(&limits, None);
        assert_eq!(due, Due::Idle);
        assert!(
            activity.due(&limits, Some(Instant::now())).0 < idle,
            "a farewell is short"
        );
    }

    #[tokio::test]
    async fn dripping_does_not_put_off_the_end() {
        let limits = Limits::DEFAULT;
        let activity = Activity::new();
        activity.received();
        let due = activity.due(&limits, None);
        activity.received();
        assert_eq!(activity.due(&limits, None), due);
    }
}
