//! What a GraphQL request cost, for APIs that count points instead of requests.

use std::time::Duration;

use chrono::DateTime;
use serde::Deserialize;

use crate::{clock::Timestamp, extract::quota::RESET_MAX};

/// Below this many requests' worth of points, requests go no faster than the points come back.
const REQUESTS_LOW: f64 = 3.0;

/// The cost of one request and what is left of the budget, in points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// What the request was judged to cost before it ran; the next of its kind costs the same.
    pub requested: f64,
    /// Points left; none if the request was refused before they were counted.
    pub available: Option<f64>,
    /// The most points there can be.
    pub maximum: Option<f64>,
    /// How points come back.
    pub restore: Restore,
}

/// How points come back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Restore {
    /// So many every second; more than nothing.
    PerSecond(f64),
    /// All of them, after this long.
    AllAfter(Duration),
}

/// The pace at which points come back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Refill {
    /// Until there is enough for one request of the kind; none if there is.
    pub missing: Option<Duration>,
    /// Between two requests of the kind.
    pub every: Duration,
    /// Until the budget is full again.
    pub lasts: Duration,
}

#[derive(Deserialize)]
struct Answer {
    extensions: Option<Extensions>,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Extensions {
    cost: Option<Points>,
}

/// Shopify's.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Points {
    requested_query_cost: f64,
    throttle_status: Throttle,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Throttle {
    maximum_available: f64,
    currently_available: f64,
    restore_rate: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    rate_limit: Option<RateLimit>,
}

/// GitHub's.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RateLimit {
    cost: f64,
    remaining: f64,
    limit: Option<f64>,
    reset_at: String,
}

impl Cost {
    /// Reads Shopify's `extensions.cost` or GitHub's `data.rateLimit`; none if the body has neither in a form that can be
    /// used.
    ///
    /// ```
    /// use landfall::{clock::Timestamp, extract::cost::Cost};
    /// let body = br#"{"data":{},"extensions":{"cost":{"requestedQueryCost":100,"actualQueryCost":3,
    ///     "throttleStatus":{"maximumAvailable":1000,"currentlyAvailable":50,"restoreRate":50}}}}"#;
    /// let cost = Cost::read(body, Timestamp::UNIX_EPOCH).unwrap();
    /// assert_eq!(cost.refill().unwrap().missing.unwrap().as_secs(), 1);
    /// assert!(Cost::read(b"{}", Timestamp::UNIX_EPOCH).is_none());
    /// ```
    pub fn read(body: &[u8], now: Timestamp) -> Option<Self> {
        // Most bodies have neither, and a look is cheaper than parsing them again.
        if !contains(body, b"\"throttleStatus\"") && !contains(body, b"\"rateLimit\"") {
            return None;
        }
        let answer: Answer = serde_json::from_slice(body).ok()?;
        if let Some(points) = answer.extensions.and_then(|extensions| extensions.cost) {
            let status = points.throttle_status;
            let cost = Self {
                requested: points.requested_query_cost,
                available: Some(status.currently_available),
                maximum: Some(status.maximum_available),
                restore: Restore::PerSecond(status.restore_rate),
            };
            return (status.restore_rate > 0.0).then_some(cost);
        }
        let limit = answer.data?.rate_limit?;
        let reset = DateTime::parse_from_rfc3339(&limit.reset_at).ok()?;
        let after = (reset.to_utc() - now).to_std().unwrap_or_default();
        Some(Self {
            requested: limit.cost,
            available: Some(limit.remaining),
            maximum: limit.limit,
            restore: Restore::AllAfter(after.min(RESET_MAX)),
        })
    }

    /// No budget, however full, pays for this request: it must ask for less.
    pub fn is_too_much(&self) -> bool {
        self.maximum.is_some_and(|maximum| self.requested > maximum)
    }

    /// How fast points come back, if so few are left that it matters.
    pub fn refill(&self) -> Option<Refill> {
        let requested = self.requested.max(1.0);
        let available = self.available?.max(0.0);
        if available >= REQUESTS_LOW * requested || self.is_too_much() {
            return None;
        }
        let seconds =
            |seconds: f64| Duration::try_from_secs_f64(seconds).map_or(RESET_MAX, |wait| wait.min(RESET_MAX));
        let refill = match self.restore {
            Restore::PerSecond(rate) => Refill {
                missing: (available < requested).then(|| seconds((requested - available) / rate)),
                every: seconds(requested / rate),
                lasts: seconds((self.maximum.unwrap_or(requested) - available).max(0.0) / rate),
            },
            Restore::AllAfter(after) => Refill {
                missing: (available < requested).then_some(after),
                every: after.div_f64((available / requested).floor() + 1.0),
                lasts: after,
            },
        };
        Some(refill)
    }
}

fn contains(body: &[u8], word: &[u8]) -> bool {
    body.windows(word.len()).any(|some| some == word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_timestamp;

    fn shopify(requested: u32, available: u32) -> Cost {
        let body = format!(
            r#"{{"data":{{"a":[1,2]}},"extensions":{{"cost":{{"requestedQueryCost":{requested},"actualQueryCost":null,
            "throttleStatus":{{"maximumAvailable":2000.0,"currentlyAvailable":{available},"restoreRate":100.0}}}}}}}}"#
        );
        Cost::read(body.as_bytes(), Timestamp::UNIX_EPOCH).unwrap()
    }

    fn github(cost: u32, remaining: u32) -> Cost {
        let body = format!(
            r#"{{"data":{{"rateLimit":{{"cost":{cost},"limit":5000,"remaining":{remaining},"resetAt":"2024-05-01T00:01:00Z"}}}}}}"#
        );
        Cost::read(body.as_bytes(), parse_timestamp("2024-05-01T00:00:00Z").unwrap()).unwrap()
    }

    #[test]
    fn f072_points_that_come_back_each_second_set_the_pace() {
        assert_eq!(shopify(200, 600).refill(), None);
        let refill = shopify(200, 500).refill().unwrap();
        assert_eq!(
            (refill.missing, refill.every.as_secs(), refill.lasts.as_secs()),
            (None, 2, 15)
        );
        let refill = shopify(200, 50).refill().unwrap();
        assert_eq!(refill.missing, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn f072_points_that_come_back_at_once_are_spread_until_then() {
        assert_eq!(github(1, 100).refill(), None);
        let refill = github(10, 25).refill().unwrap();
        assert_eq!((refill.missing, refill.every), (None, Duration::from_secs(20)));
        assert_eq!(
            github(10, 5).refill().unwrap().missing,
            Some(Duration::from_secs(60))
        );
    }

    #[test]
    fn f072_a_request_that_no_budget_pays_for_is_told_apart() {
        assert!(shopify(2001, 2000).is_too_much());
        assert_eq!(shopify(2001, 0).refill(), None, "waiting would not help");
        assert!(!shopify(2000, 0).is_too_much());
    }

    #[test]
    fn f072_what_cannot_be_used_is_as_if_absent() {
        for body in [
            "",
            "null",
            r#"{"extensions":{"cost":{"requestedQueryCost":1}},"x":"throttleStatus"}"#,
            r#"{"extensions":{"cost":{"requestedQueryCost":1,"throttleStatus":{"maximumAvailable":1,"currentlyAvailable":1,"restoreRate":0}}}}"#,
            r#"{"data":{"rateLimit":{"cost":1,"remaining":0,"resetAt":"soon"}}}"#,
            r#"{"data":{"rateLimit":null}}"#,
        ] {
            assert_eq!(Cost::read(body.as_bytes(), Timestamp::UNIX_EPOCH), None, "{body}");
        }
    }
}
