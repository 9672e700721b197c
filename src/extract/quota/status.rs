//! What the answer to `rate_limit.status` says.

use std::time::Duration;

use crate::{
    clock::Timestamp,
    config::rate::QuotaStatus,
    error::{Error, ErrorKind, Result},
    extract::{
        client::Response,
        quota::{Quota, time_to},
        retry::server_time,
    },
    json::{self, JsonPath},
};

/// The longest time to a reset that is believed: the project file says where it stands, so that it may be a month.
const RESET_MAX: Duration = Duration::from_secs(32 * 24 * 3600);

/// Reads `response` as `status` says. Moments are measured against its own `Date`, else against `now`.
///
/// # Errors
/// [`ErrorKind::Refused`] if the answer is no 2xx or something cannot be read.
pub(super) fn read(status: &QuotaStatus, response: &Response, now: Timestamp) -> Result<Quota> {
    if !(200..=299).contains(&response.head.status) {
        return Err(odd("another status than 2xx").with("status", response.head.status));
    }
    let from = server_time(&response.head.headers).unwrap_or(now);
    let body: &[u8] = &response.body;
    let remaining = value(body, &status.remaining, count)?;
    let reset = value(body, &status.reset, |text| {
        time_to(text, from).filter(|reset| *reset <= RESET_MAX)
    })?;
    let limit = status.limit.as_ref().map(|path| value(body, path, count));
    Ok(Quota {
        limit: limit.transpose()?,
        remaining: Some(remaining),
        reset: Some(reset),
    })
}

/// What stands at `path`, text or number, as `read` takes it.
fn value<T>(body: &[u8], path: &JsonPath, read: impl Fn(&str) -> Option<T>) -> Result<T> {
    let found = path
        .first(body)
        .map_err(|defect| odd("not JSON").with("defect", defect))?;
    let Some(found) = found else {
        return Err(odd("nothing at a path").with("path", path));
    };
    let text = json::text(found);
    let text = text.as_deref().or_else(|| str::from_utf8(found).ok());
    text.and_then(|text| read(text.trim()))
        .ok_or_else(|| odd("a value that cannot be read").with("path", path))
}

/// Requests; part of one is none, and less than none is none.
fn count(text: &str) -> Option<u64> {
    let number: f64 = text.parse().ok().filter(|number: &f64| number.is_finite())?;
    Some(number.max(0.0) as u64)
}

fn odd(problem: &str) -> Error {
    Error::new(ErrorKind::Refused, "read quota status")
        .with("problem", problem)
        .with("hint", "see where rate_limit.status looks for it")
}
