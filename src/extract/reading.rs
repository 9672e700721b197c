//! What a body says about progress: how many records, how far their cursors reach.

use std::{fmt, time::Duration};

use bytes::Bytes;

use crate::{
    clock::Timestamp,
    config::{Stream, incremental::Incremental},
    extract::cursor::{self, Rank},
    json::{self, Defect, Found, JsonPath},
};

/// What extraction wants to know of a page. Nothing about the records is judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Records at the records path.
    pub records: u64,
    /// The last record as it stands in the body.
    pub last: Option<Bytes>,
    /// The greatest cursor that counts.
    pub cursor_max: Option<Rank>,
    /// The cursor of the last record that has one.
    pub cursor_last: Option<Rank>,
    /// Records without a readable cursor; they never move the watermark.
    pub cursors_missing: u64,
    /// Records whose cursor is further in the future than the stream's skew allows; they are kept and never move the
    /// watermark.
    pub cursors_future: u64,
    /// Records whose cursor is less than the lower bound of the window.
    pub cursors_before: u64,
    /// Records whose cursor is less than that of the record before.
    pub cursors_unsorted: u64,
}

/// Why a body cannot be taken for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// There is no body.
    Empty,
    /// It is not JSON.
    NotJson(Defect),
    /// It is JSON, but the records path leads nowhere: not the same as no records.
    RecordsMissing,
    /// It says, in the way of GraphQL servers, that the budget is spent, and may say for how long.
    Throttled {
        /// Until enough of the budget is back; zero if the body does not say.
        wait: Duration,
    },
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty body"),
            Self::NotJson(defect) => defect.fmt(f),
            Self::RecordsMissing => f.write_str("records path missing"),
            Self::Throttled { .. } => f.write_str("throttled"),
        }
    }
}

/// What the cursors of a page are compared with.
struct Cursors<'a> {
    incremental: &'a Incremental,
    horizon: Option<Rank>,
    bound: Option<Rank>,
}

/// Reads a body fetched at `now`; `previous` is the last cursor of the page before, `bound` the window's lower bound.
///
/// # Errors
/// [`Unreadable`] is a value about the body, to be decided upon.
pub fn read(
    stream: &Stream,
    body: &Bytes,
    now: Timestamp,
    previous: Option<Rank>,
    bound: Option<Rank>,
) -> Result<Reading, Unreadable> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Unreadable::Empty);
    }
    let mut reading = Reading {
        cursor_last: previous,
        ..Reading::default()
    };
    let cursors = stream.incremental.as_ref().map(|incremental| Cursors {
        incremental,
        horizon: cursor::horizon(incremental, now),
        bound,
    });
    let mut last = None;
    let found = stream.records.select(body, &mut |range| {
        last = Some(range.clone());
        if let Some(cursors) = &cursors {
            reading.take(cursors, &body[range]);
        }
    });
    match found.map_err(Unreadable::NotJson)? {
        Found::Missing => {
            Err(throttled(body).map_or(Unreadable::RecordsMissing, |wait| Unreadable::Throttled { wait }))
        }
        Found::Values(records) => Ok(Reading {
            records: records as u64,
            last: last.map(|range| body.slice(range)),
            ..reading
        }),
    }
}

/// The wait of a body whose errors name a spent budget: `RATE_LIMITED` as GitHub says it, `THROTTLED` as Shopify does.
///
/// The time is what the query's cost lacks, at the rate the budget is restored.
fn throttled(body: &[u8]) -> Option<Duration> {
    let spent = ["$.errors[*].type", "$.errors[*].extensions.code"]
        .into_iter()
        .any(|path| {
            let mut found = false;
            let selected = JsonPath::parse(path).map(|path| {
                path.select(body, &mut |range| {
                    found |= matches!(
                        json::text(&body[range]).as_deref(),
                        Some("RATE_LIMITED" | "THROTTLED")
                    );
                })
            });
            matches!(selected, Ok(Ok(_))) && found
        });
    let number = |path: &str| -> Option<f64> {
        let path = JsonPath::parse(path).ok()?;
        std::str::from_utf8(path.first(body).ok()??).ok()?.parse().ok()
    };
    let wait = || {
        let cost = number("$.extensions.cost.requestedQueryCost")?;
        let available = number("$.extensions.cost.throttleStatus.currentlyAvailable")?;
        let restored_per_second = number("$.extensions.cost.throttleStatus.restoreRate")?;
        Duration::try_from_secs_f64((cost - available) / restored_per_second).ok()
    };
    spent.then(|| wait().unwrap_or_default())
}

impl Reading {
    /// Whether the page lies before the window: it has records, and each is less than the lower bound.
    ///
    /// Where the newest come first, no page after it has anything to say.
    pub fn is_behind(&self) -> bool {
        self.records > 0 && self.cursors_before == self.records
    }

    fn take(&mut self, cursors: &Cursors<'_>, record: &[u8]) {
        let incremental = cursors.incremental;
        // A record is checked with its page; a defect is reported there.
        let value = incremental.cursor.first(record).ok().flatten();
        let Some(rank) = value.and_then(|value| cursor::rank(incremental, value)) else {
            self.cursors_missing += 1;
            return;
        };
        if self.cursor_last.is_some_and(|last| rank < last) {
            self.cursors_unsorted += 1;
        }
        self.cursor_last = Some(rank);
        if cursors.horizon.is_some_and(|horizon| rank > horizon) {
            self.cursors_future += 1;
            return;
        }
        if cursor::is_behind(rank, cursors.bound) {
            self.cursors_before += 1;
        }
        self.cursor_max = self.cursor_max.max(Some(rank));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f034_graphql_answers_that_mean_slow_down() {
        let shopify = r#"{"errors":[{"message":"Throttled","extensions":{"code":"THROTTLED"}}],"extensions":{"cost":
            {"requestedQueryCost":202,"throttleStatus":{"maximumAvailable":1000.0,"currentlyAvailable":118,"restoreRate":50.0}}}}"#;
        let table = [
            (shopify, Some(Duration::from_millis(1680))),
            (
                r#"{"data":null,"errors":[{"type":"NOT_FOUND"},{"type":"RATE_LIMITED"}]}"#,
                Some(Duration::ZERO),
            ),
            (r#"{"errors":[{"type":"NOT_FOUND"}]}"#, None),
            (r#"{"errors":"THROTTLED"}"#, None),
            ("null", None),
        ];
        for (body, expected) in table {
            assert_eq!(throttled(body.as_bytes()), expected, "{body}");
        }
    }
}
