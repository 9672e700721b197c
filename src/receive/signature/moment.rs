//! When a request was signed, and whether that is now.

use std::time::Duration;

use chrono::TimeDelta;

use crate::{
    clock::Timestamp,
    config::{parse_timestamp, webhook::MomentFormat},
    receive::signature::{headers::malformed, refusal::Refusal},
};

/// Most digits of a count: as many as an `i64` may have.
const DIGITS_MAX: usize = 19;

/// Reads the moment that the header `name` holds.
pub(super) fn read(name: &str, text: &str, format: MomentFormat) -> Result<Timestamp, Refusal> {
    let moment = match format {
        MomentFormat::Seconds => whole(text).and_then(|seconds| Timestamp::from_timestamp(seconds, 0)),
        MomentFormat::Milliseconds => whole(text).and_then(Timestamp::from_timestamp_millis),
        MomentFormat::Rfc3339 => parse_timestamp(text).ok(),
    };
    moment.ok_or_else(|| malformed(name, "is not a moment"))
}

/// Whether `moment` is no further from `now` than `tolerance`, before or after.
pub(super) fn check(moment: Timestamp, now: Timestamp, tolerance: Duration) -> Result<(), Refusal> {
    // The difference of two moments that can be told always can.
    let age = now.signed_duration_since(moment);
    let tolerance = TimeDelta::from_std(tolerance).unwrap_or(TimeDelta::MAX);
    if age > tolerance {
        return Err(Refusal::Stale {
            seconds: age.num_seconds(),
        });
    }
    if age < -tolerance {
        return Err(Refusal::Early {
            seconds: -age.num_seconds(),
        });
    }
    Ok(())
}

/// A count as its sender writes it: digits alone, the first of several not 0.
fn whole(text: &str) -> Option<i64> {
    let digits = (1..=DIGITS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = text == "0" || !text.starts_with('0');
    (digits && canonical).then(|| text.parse().ok()).flatten()
}
