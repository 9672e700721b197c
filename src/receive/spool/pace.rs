//! How long the shipper waits.

use std::time::Duration;

/// How long the shipper waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The cap of the wait after the first failure of a stream; doubles each time.
    pub backoff_start: Duration,
    /// No wait after a failure is longer. There is no end to the attempts.
    pub backoff_max: Duration,
    /// Longest that one attempt to land a part may take.
    pub part_timeout: Duration,
    /// Longest that it goes on after it was asked to stop.
    pub drain: Duration,
}

impl Pace {
    /// For a lake at the other end of a network.
    pub const USUAL: Self = Self {
        backoff_start: Duration::from_millis(250),
        backoff_max: Duration::from_secs(30),
        part_timeout: Duration::from_secs(300),
        drain: Duration::from_secs(20),
    };

    /// The wait after so many failures in a row, at least one: up to a cap that doubles with each, by `jitter` from 0 to
    /// 1. A quarter of the cap at least, so that the rate of attempts is bounded too.
    pub(crate) fn backoff(&self, failures: u32, jitter: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let cap = self
            .backoff_start
            .saturating_mul(1 << doublings)
            .min(self.backoff_max);
        cap.mul_f64(0.25 + 0.75 * jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_cap_and_never_vanish() {
        let pace = Pace::USUAL;
        assert_eq!(pace.backoff(1, 1.0), pace.backoff_start);
        assert_eq!(pace.backoff(3, 1.0), pace.backoff_start * 4);
        assert_eq!(pace.backoff(u32::MAX, 1.0), pace.backoff_max);
        assert_eq!(pace.backoff(1, 0.0), pace.backoff_start / 4);
        assert!(pace.backoff(2, 0.5) < pace.backoff(2, 0.6));
    }
}
