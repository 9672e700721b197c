//! A token bucket in whole numbers, so that what it promises holds exactly.

use std::time::Duration;

use crate::clock::Timestamp;

/// Parts that a pressure is counted in.
const WHOLE: u32 = 1000;

/// How full what stands behind is: 0 is empty, 1 takes nothing more.
///
/// Of a bucket's capacity the same part cannot be taken, and it fills by as much more slowly: what is left according to
/// `RateLimit` falls with the room that is left, before anything is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pressure(u32);

/// Grants `capacity` at once and then `capacity` per window, evenly.
///
/// In any time `t` it grants at most `capacity + capacity × t / window`, whatever the pressure.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// What is granted per window, at least 1.
    capacity: u64,
    /// The window in nanoseconds, at least 1.
    window: u64,
    /// What can be taken, in parts of which `window` are one: `capacity` of them come in a nanosecond.
    level: u128,
    /// When `level` was counted.
    at: Timestamp,
}

/// That so much cannot be taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    /// When it could be if nobody else took anything; none if it is more than there will ever be at this pressure.
    pub wait: Option<Duration>,
}

impl Pressure {
    /// Nothing stands behind that could be full.
    pub const NONE: Self = Self(0);

    /// Takes a part from 0 to 1; what is beyond is cut, and what is no number counts as full.
    pub fn new(part: f64) -> Self {
        if part.is_nan() {
            return Self(WHOLE);
        }
        // Cut to the range before, so that the number fits.
        Self((part.clamp(0.0, 1.0) * f64::from(WHOLE)).round() as u32)
    }

    /// Grows from 0 at `low` of `capacity` to 1 at `high` of it; both are parts from 0 to 1.
    ///
    /// ```
    /// use landfall::receive::producer::bucket::Pressure;
    /// let of = |used| Pressure::between(used, 100, 0.5, 0.9);
    /// assert_eq!((of(50), of(70), of(90)), (Pressure::NONE, Pressure::new(0.5), Pressure::new(1.0)));
    /// ```
    pub fn between(used: u64, capacity: u64, low: f64, high: f64) -> Self {
        let part = used as f64 / capacity.max(1) as f64;
        Self::new((part - low) / (high - low).max(f64::EPSILON))
    }

    /// From 0 to 1.
    pub fn part(self) -> f64 {
        f64::from(self.0) / f64::from(WHOLE)
    }

    fn rest(self) -> u128 {
        u128::from(WHOLE.saturating_sub(self.0))
    }
}

impl Bucket {
    /// A full bucket at `now`. At least one is granted per window, and a window is at least a nanosecond.
    pub fn new(capacity: u64, window: Duration, now: Timestamp) -> Self {
        let capacity = capacity.max(1);
        let window = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX).max(1);
        Self {
            capacity,
            window,
            level: u128::from(capacity) * u128::from(window),
            at: now,
        }
    }

    /// What is granted per window.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The window.
    pub fn window(&self) -> Duration {
        Duration::from_nanos(self.window)
    }

    /// Whether `amount` can be taken at `now`; nothing is taken. Nothing can always be taken.
    ///
    /// # Errors
    /// [`Short`] if it cannot.
    pub fn check(&mut self, amount: u64, now: Timestamp, pressure: Pressure) -> Result<(), Short> {
        self.fill(now, pressure);
        if amount == 0 {
            return Ok(());
        }
        let wanted = u128::from(amount) * u128::from(self.window) + self.floor(pressure);
        if wanted <= self.level {
            return Ok(());
        }
        let speed = u128::from(self.capacity) * pressure.rest();
        let reachable = wanted <= self.full() && speed > 0;
        let parts = (wanted - self.level) * u128::from(WHOLE);
        let wait = reachable.then(|| {
            let nanoseconds = parts.div_ceil(speed.max(1));
            Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
        });
        Err(Short { wait })
    }

    /// Takes `amount`, which was checked at the same time.
    pub fn take(&mut self, amount: u64) {
        let parts = u128::from(amount) * u128::from(self.window);
        self.level = self.level.saturating_sub(parts);
    }

    /// Gives back what was taken and not used.
    pub fn give_back(&mut self, amount: u64) {
        let parts = u128::from(amount) * u128::from(self.window);
        self.level = self.level.saturating_add(parts).min(self.full());
    }

    /// What can be taken now.
    pub fn left(&self, pressure: Pressure) -> u64 {
        let parts = self.level.saturating_sub(self.floor(pressure));
        u64::try_from(parts / u128::from(self.window)).unwrap_or(u64::MAX)
    }

    /// How long until it is full again if nothing is taken.
    pub fn full_in(&self, pressure: Pressure) -> Option<Duration> {
        let speed = u128::from(self.capacity) * pressure.rest();
        let parts = (self.full() - self.level) * u128::from(WHOLE);
        let nanoseconds = parts.checked_div(speed)?;
        Some(Duration::from_nanos(
            u64::try_from(nanoseconds).unwrap_or(u64::MAX),
        ))
    }

    /// Adds what came since it was counted last. A clock that goes back adds nothing.
    fn fill(&mut self, now: Timestamp, pressure: Pressure) {
        let Ok(elapsed) = (now - self.at).to_std() else {
            return;
        };
        self.at = now;
        // A bucket is full after its window, so that more time makes no difference and no product is too large.
        let elapsed = elapsed
            .as_nanos()
            .min(u128::from(self.window) * u128::from(WHOLE));
        let parts = u128::from(self.capacity) * elapsed * pressure.rest() / u128::from(WHOLE);
        self.level = (self.level + parts).min(self.full());
    }

    fn full(&self) -> u128 {
        u128::from(self.capacity) * u128::from(self.window)
    }

    /// What stays in it at `pressure`.
    fn floor(&self, pressure: Pressure) -> u128 {
        self.full() / u128::from(WHOLE) * u128::from(pressure.0)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::UNIX_EPOCH;

    fn after(start: Timestamp, micros: u64) -> Timestamp {
        start + TimeDelta::microseconds(i64::try_from(micros).unwrap())
    }

    #[test]
    fn a_window_comes_at_once_and_the_next_one_evenly() {
        let mut bucket = Bucket::new(10, Duration::from_secs(1), START);
        for left in (0..10).rev() {
            bucket.check(1, START, Pressure::NONE).unwrap();
            bucket.take(1);
            assert_eq!(bucket.left(Pressure::NONE), left);
        }
        let short = bucket.check(1, START, Pressure::NONE).unwrap_err();
        assert_eq!(short.wait, Some(Duration::from_millis(100)));
        let later = after(START, 100_000);
        assert_eq!(bucket.check(1, later, Pressure::NONE), Ok(()));
        assert!(bucket.check(2, later, Pressure::NONE).is_err());
        assert_eq!(bucket.check(11, later, Pressure::NONE), Err(Short { wait: None }));
        assert_eq!(bucket.full_in(Pressure::NONE), Some(Duration::from_millis(900)));
    }

    #[test]
    fn pressure_leaves_less_and_fills_more_slowly() {
        let half = Pressure::new(0.5);
        let mut bucket = Bucket::new(10, Duration::from_secs(1), START);
        assert_eq!(
            (
                bucket.left(Pressure::NONE),
                bucket.left(half),
                bucket.left(Pressure::new(1.0))
            ),
            (10, 5, 0)
        );
        bucket.check(5, START, half).unwrap();
        bucket.take(5);
        assert_eq!(
            bucket.check(1, START, half).unwrap_err().wait,
            Some(Duration::from_millis(200))
        );
        assert_eq!(bucket.check(1, START, Pressure::new(1.0)).unwrap_err().wait, None);
        assert_eq!(Pressure::new(f64::NAN), Pressure::new(7.0));
        assert_eq!(Pressure::new(-1.0), Pressure::NONE);
    }

    proptest! {
        /// Whatever is asked for and whatever the pressure, no more is granted than the burst and the rate allow, in any
        /// stretch of time; and what is short is there after the wait, if nobody else takes it.
        #[test]
        fn never_more_than_burst_and_rate(
            capacity in 1u64..1_000_000,
            window_ms in 1u64..100_000,
            steps in prop::collection::vec((0u64..2_000_000, 0u64..50_000, 0u32..=1000), 1..200),
        ) {
            let window = Duration::from_millis(window_ms);
            let mut bucket = Bucket::new(capacity, window, START);
            let mut now = START;
            let mut granted: Vec<(Timestamp, u64)> = Vec::new();
            for (micros, amount, pressure) in steps {
                now = after(now, micros);
                let pressure = Pressure(pressure);
                let left = { let _ = bucket.check(0, now, pressure); bucket.left(pressure) };
                match bucket.check(amount, now, pressure) {
                    Ok(()) => {
                        prop_assert!(amount <= left);
                        bucket.take(amount);
                        granted.push((now, amount));
                    }
                    Err(Short { wait: Some(wait) }) => {
                        prop_assert!(amount > left);
                        let mut patient = bucket.clone();
                        let then = now + TimeDelta::from_std(wait).unwrap() + TimeDelta::microseconds(1);
                        prop_assert_eq!(patient.check(amount, then, pressure), Ok(()));
                    }
                    Err(Short { wait: None }) => prop_assert!(amount > left),
                }
            }
            for (first, (start, _)) in granted.iter().enumerate() {
                let mut sum = 0u128;
                for (at, amount) in &granted[first..] {
                    sum += u128::from(*amount);
                    let elapsed = (*at - *start).to_std().unwrap().as_nanos();
                    let most = u128::from(capacity) * (window.as_nanos() + elapsed) / window.as_nanos();
                    prop_assert!(sum <= most, "{} of {}", sum, most);
                }
            }
        }

        #[test]
        fn more_pressure_never_leaves_more(capacity in 1u64..1_000_000, taken in 0u64..1_000_000, low in 0u32..=1000, more in 0u32..=1000) {
            let mut bucket = Bucket::new(capacity, Duration::from_secs(10), START);
            bucket.take(taken);
            prop_assert!(bucket.left(Pressure(low)) >= bucket.left(Pressure((low + more).min(1000))));
        }

        #[test]
        fn what_is_given_back_was_never_taken(capacity in 1u64..1_000_000, taken in 0u64..1_000_000) {
            let mut bucket = Bucket::new(capacity, Duration::from_secs(10), START);
            let taken = taken.min(capacity);
            bucket.take(taken);
            bucket.give_back(taken);
            prop_assert_eq!(bucket.left(Pressure::NONE), capacity);
            bucket.give_back(u64::MAX);
            prop_assert_eq!(bucket.left(Pressure::NONE), capacity);
        }

        #[test]
        fn extremes_do_not_overflow(capacity: u64, nanos: u64, amount: u64, micros in any::<u32>(), back: bool) {
            let mut bucket = Bucket::new(capacity, Duration::from_nanos(nanos), START);
            let now = after(START, u64::from(micros));
            let now = if back { Timestamp::MIN_UTC } else { now };
            let _ = bucket.check(amount.min(1 << 50), now, Pressure(999));
            bucket.take(amount.min(1 << 50));
            let _ = (bucket.full_in(Pressure::NONE), bucket.left(Pressure(1000)));
        }
    }
}
