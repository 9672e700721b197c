//! What the status of a job means, and when it is asked for again.

use std::time::Duration;

use crate::config::job::Job;

/// Between two polls at most, unless the project file asks for more.
const EVERY_MAX: Duration = Duration::from_secs(60);

/// What a status says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Running,
    Done,
    Empty,
    Expired,
    Failed,
    Unknown,
}

/// What the status of a job says; none that it has no status yet.
pub(super) fn stage(settings: &Job, status: Option<&str>) -> Stage {
    let Some(status) = status else {
        return Stage::Running;
    };
    let lists = [
        (&settings.done, Stage::Done),
        (&settings.failed, Stage::Failed),
        (&settings.empty, Stage::Empty),
        (&settings.expired, Stage::Expired),
        (&settings.running, Stage::Running),
    ];
    let named = lists
        .into_iter()
        .find(|(list, _)| list.iter().any(|known| known == status));
    match named {
        Some((_, stage)) => stage,
        None if settings.running.is_empty() => Stage::Running,
        None => Stage::Unknown,
    }
}

/// The wait after poll number `polls` (from 0): `every`, growing by half each time to [`EVERY_MAX`], and up to a tenth
/// more, so that jobs that began together are not asked for together. `jitter` is in 0..1.
pub(super) fn pause(every: Duration, polls: u32, jitter: f64) -> Duration {
    let most = EVERY_MAX.max(every);
    let grown = every.as_secs_f64() * 1.5_f64.powi(i32::try_from(polls.min(100)).unwrap_or(100));
    let wait = Duration::try_from_secs_f64(grown).unwrap_or(most).min(most);
    wait + wait.mul_f64(0.1 * jitter.clamp(0.0, 1.0))
}

/// How long to wait before the next poll of a job that has run for `elapsed`; none if its time is over. The last poll is
/// at the end of `timeout`, whatever wait the server asks for.
pub(super) fn next_poll(elapsed: Duration, wait: Duration, timeout: Duration) -> Option<Duration> {
    let left = timeout.checked_sub(elapsed).filter(|left| !left.is_zero())?;
    Some(wait.min(left))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn polls_come_at_least_every_so_often_and_never_more_than_a_tenth_later_than_a_minute(
            every_ms in 1..600_000_u64, polls in 0..10_000_u32, jitter in 0.0..1.0_f64,
        ) {
            let every = Duration::from_millis(every_ms);
            let wait = pause(every, polls, jitter);
            prop_assert!(wait >= every);
            prop_assert!(wait <= EVERY_MAX.max(every).mul_f64(1.1001));
            prop_assert!(pause(every, polls + 1, 0.0) >= pause(every, polls, 0.0));
        }
    }

    #[test]
    fn the_last_poll_is_at_the_end_of_the_time_and_not_before() {
        let s = Duration::from_secs;
        let table = [
            (0, 5, Some(5)),
            (8, 5, Some(2)),
            // Retry-After beyond the end.
            (1, 3600, Some(9)),
            (10, 5, None),
            (11, 5, None),
        ];
        for (elapsed, wait, expected) in table {
            assert_eq!(
                next_poll(s(elapsed), s(wait), s(10)),
                expected.map(s),
                "{elapsed} {wait}"
            );
        }
    }
}
