//! The only place that reads the time.

use std::{fmt, sync::Arc, time::Instant};

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};

/// A moment in UTC with microsecond resolution, as stored everywhere in the lake.
pub type Timestamp = DateTime<Utc>;

/// Where "now" comes from: the machine, or a test.
#[derive(Clone)]
pub struct Clock {
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// When the clock was made, by the machine's two counts; none if a function tells the time.
    began: Option<(Timestamp, Instant)>,
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
        Self {
            now: Arc::new(Utc::now),
            began: Some((Utc::now(), Instant::now())),
        }
    }

    /// A clock that asks `now` each time.
    ///
    /// ```
    /// use landfall::clock::{Clock, Timestamp};
    /// let clock = Clock::from_fn(|| Timestamp::UNIX_EPOCH);
    /// assert_eq!(clock.now(), Timestamp::UNIX_EPOCH);
    /// ```
    pub fn from_fn(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self {
            now: Arc::new(now),
            began: None,
        }
    }

    /// The current moment, cut to microseconds.
    pub fn now(&self) -> Timestamp {
        (self.now)().trunc_subsecs(6)
    }

    /// A moment to measure elapsed time by: it goes on evenly when the machine's clock is set.
    ///
    /// Equals [`Clock::now`] when the clock is made. A clock from a function is taken to be even.
    pub fn steady(&self) -> Timestamp {
        let Some((wall, instant)) = self.began else {
            return self.now();
        };
        let elapsed = TimeDelta::from_std(instant.elapsed()).unwrap_or(TimeDelta::MAX);
        wall.checked_add_signed(elapsed)
            .unwrap_or(Timestamp::MAX_UTC)
            .trunc_subsecs(6)
    }
}
