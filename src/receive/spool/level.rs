//! How full a spool is, and what that means for those who want to add to it.

use std::time::Duration;

/// From this part of the bytes on senders are asked to slow down, in percent.
pub const SLOW_PERCENT: u64 = 50;

/// From this part of the bytes on requests are refused for now, in percent: those on their way still find room.
pub const REFUSE_PERCENT: u64 = 85;

/// The lake has been away for a while when a delivery waits longer than this, and senders are asked to slow down. A full
/// spool alone refuses them: what can be kept is taken, however long it will have to wait.
pub const SLOW_AGE: Duration = Duration::from_secs(120);

/// How full a spool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Bytes of deliveries that wait to be written, or are written and not yet in the lake.
    pub bytes: u64,
    /// The most there may be.
    pub bytes_max: u64,
    /// How long the oldest of them has waited; none if nothing waits.
    pub age: Option<Duration>,
    /// Segments that are complete and not yet in the lake.
    pub segments: usize,
}

/// What a [`Level`] means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// There is room.
    Calm,
    /// Senders should slow down.
    Slow,
    /// New requests should be refused for now (429 or 503 with Retry-After).
    Refuse,
    /// Nothing more fits (507).
    Full,
}

impl Level {
    /// What it means.
    ///
    /// ```
    /// use landfall::receive::spool::level::{Level, Pressure};
    /// let level = |bytes| Level { bytes, bytes_max: 100, age: None, segments: 0 };
    /// assert_eq!(level(49).pressure(), Pressure::Calm);
    /// assert_eq!(level(50).pressure(), Pressure::Slow);
    /// assert_eq!(level(85).pressure(), Pressure::Refuse);
    /// assert_eq!(level(100).pressure(), Pressure::Full);
    /// ```
    pub fn pressure(&self) -> Pressure {
        if self.bytes >= self.bytes_max {
            return Pressure::Full;
        }
        let percent = self.percent();
        if percent >= REFUSE_PERCENT {
            Pressure::Refuse
        } else if percent >= SLOW_PERCENT || self.age.is_some_and(|age| age >= SLOW_AGE) {
            Pressure::Slow
        } else {
            Pressure::Calm
        }
    }

    /// The part of the bytes that is taken, in percent; more than 100 if the limit was lowered.
    pub fn percent(&self) -> u64 {
        let percent = u128::from(self.bytes) * 100 / u128::from(self.bytes_max.max(1));
        u64::try_from(percent).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_asks_to_slow_down_and_only_bytes_refuse() {
        let old = Level {
            bytes: 1,
            bytes_max: 1000,
            age: Some(SLOW_AGE),
            segments: 9,
        };
        assert_eq!(old.pressure(), Pressure::Slow);
        let lowered = Level {
            bytes: 1001,
            bytes_max: 0,
            ..old
        };
        assert_eq!((lowered.percent(), lowered.pressure()), (100_100, Pressure::Full));
    }
}
