//! The only place that reads the time.

use std::sync::Arc;

use chrono::{DateTime, SubsecRound as _, Utc};

/// A moment in UTC with microsecond resolution, as stored everywhere in the lake.
pub type Timestamp = DateTime<Utc>;

/// Where "now" comes from: the machine, or a test.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
        Self(Arc::new(Utc::now))
    }

    /// A clock that asks `now` each time.
    ///
    /// ```
    /// use landfall::clock::{Clock, Timestamp};
    /// let clock = Clock::from_fn(|| Timestamp::UNIX_EPOCH);
    /// assert_eq!(clock.now(), Timestamp::UNIX_EPOCH);
    /// ```
    pub fn from_fn(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The current moment, cut to microseconds.
    pub fn now(&self) -> Timestamp {
        (self.0)().trunc_subsecs(6)
    }
}
