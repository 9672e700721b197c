//! When a stream runs by itself.

use std::{fmt, sync::Arc, time::Duration};

use croner::Cron;

use crate::{
    clock::Timestamp,
    config::read::values::{parse_duration, show_duration},
    error::{Error, ErrorKind, Result},
};

/// When a stream runs by itself, in UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At whole multiples of a duration since 1970.
    Every(Duration),
    /// At the moments of a cron pattern of five fields: minute, hour, day of month, month, day of week.
    Cron(Arc<str>),
}

impl Schedule {
    /// Reads `15m`, a cron pattern, or one of `@hourly`, `@daily`, `@weekly`, `@monthly`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for anything else, and for a pattern that never comes.
    ///
    /// ```
    /// use landfall::config::{parse_timestamp, schedule::Schedule};
    /// let quarters = Schedule::parse("*/15 * * * *")?;
    /// let next = quarters.after(parse_timestamp("2026-11-22T10:07:00Z")?);
    /// assert_eq!(next, Some(parse_timestamp("2026-11-22T10:15:00Z")?));
    /// assert!(Schedule::parse("0 0 31 2 *").is_err());
    /// # Ok::<(), landfall::error::Error>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        let problem = |problem: &str| {
            Error::new(ErrorKind::Config, "read schedule")
                .with("problem", problem)
                .with(
                    "hint",
                    "write a duration such as 15m, or a cron pattern such as \"*/15 * * * *\"",
                )
        };
        let schedule = match parse_duration(text) {
            Some(every) if every < Duration::from_secs(1) => {
                return Err(problem("it runs more than once a second"));
            }
            Some(every) => Self::Every(every),
            None => Self::Cron(Arc::from(text)),
        };
        if let Self::Cron(pattern) = &schedule {
            cron(pattern).ok_or_else(|| problem("it is neither a duration nor a cron pattern"))?;
        }
        match schedule.after(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(schedule),
            None => Err(problem("it never comes")),
        }
    }

    /// The first moment after `moment`; `None` if there is none in the years a clock can show.
    pub fn after(&self, moment: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every(every) => {
                let every = i64::try_from(every.as_millis()).ok().filter(|every| *every > 0)?;
                let next = (moment.timestamp_millis().div_euclid(every) + 1).checked_mul(every)?;
                Timestamp::from_timestamp_millis(next)
            }
            Self::Cron(pattern) => cron(pattern)?.find_next_occurrence(&moment, false).ok(),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(every) => f.write_str(&show_duration(*every)),
            Self::Cron(pattern) => f.write_str(pattern),
        }
    }
}

fn cron(pattern: &str) -> Option<Cron> {
    pattern.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_timestamp;

    fn at(text: &str) -> Timestamp {
        parse_timestamp(text).unwrap()
    }

    #[test]
    fn r013_schedules_come_at_the_right_times() {
        let table = [
            ("15m", "2026-11-22T10:00:00Z", "2026-11-22T10:15:00Z"),
            ("15m", "2026-11-22T10:14:59.999Z", "2026-11-22T10:15:00Z"),
            ("*/15 * * * *", "2026-11-22T10:00:00Z", "2026-11-22T10:15:00Z"),
            ("30 2 * * 1-5", "2026-11-20T03:00:00Z", "2026-11-23T02:30:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("@daily", "2026-11-22T10:00:00Z", "2026-11-23T00:00:00Z"),
        ];
        for (text, now, next) in table {
            let schedule = Schedule::parse(text).unwrap();
            assert_eq!(schedule.after(at(now)), Some(at(next)), "{text} after {now}");
            assert_eq!(Schedule::parse(&schedule.to_string()).unwrap(), schedule);
        }
        for text in ["", "soon", "* * * *", "61 * * * *", "10ms", "0s"] {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
    }
}
