//! How long a token may be used, whatever the server says about it.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime};
use serde_json::Value;

use crate::clock::Timestamp;

/// No token is taken for good longer than this: ten years. Keeps every sum of moments in range.
const LIFETIME_MAX: Duration = Duration::from_secs(3653 * 24 * 3600);

/// A shorter lifetime is not believed: it would mean a token request for every request.
const LIFETIME_MIN: Duration = Duration::from_secs(1);

/// From this number on, seconds are a moment after 1970 and not a lifetime: it would be 31 years, or September 2001.
const EPOCH_SECONDS_MIN: f64 = 1e9;

/// From this number on they are milliseconds: as seconds it would be the year 5138.
const EPOCH_MILLIS_MIN: f64 = 1e11;

/// How long a token fetched at `now` is good for, from what the server said: seconds (a number, or a text with one),
/// or a moment (RFC 3339, a date and time without zone in UTC, or a number of seconds or milliseconds since 1970).
///
/// `None` for what says nothing: nothing at all, zero, a negative number, less than a second, a moment in the past.
pub(super) fn lifetime(said: Option<&Value>, now: Timestamp) -> Option<Duration> {
    let lifetime = match said? {
        Value::Number(number) => seconds(number.as_f64()?, now)?,
        Value::String(text) => {
            let text = text.trim();
            match text.parse::<f64>() {
                Ok(number) => seconds(number, now)?,
                Err(_) => (moment(text)? - now).to_std().ok()?,
            }
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    (lifetime >= LIFETIME_MIN).then_some(lifetime.min(LIFETIME_MAX))
}

/// How long a token of this lifetime is used before it is renewed: until `early` before its end, but at least half
/// of its life.
pub(super) fn use_for(lifetime: Duration, early: Duration) -> Duration {
    lifetime.saturating_sub(early).max(lifetime / 2)
}

fn seconds(number: f64, now: Timestamp) -> Option<Duration> {
    if number < EPOCH_SECONDS_MIN {
        // Refuses what is negative or not a number.
        return Duration::try_from_secs_f64(number).ok();
    }
    let millis = if number < EPOCH_MILLIS_MIN {
        number * 1000.0
    } else {
        number
    };
    // A cast saturates, and a number that is no moment gives none.
    let until = DateTime::from_timestamp_millis(millis as i64)?;
    (until - now).to_std().ok()
}

fn moment(text: &str) -> Option<Timestamp> {
    if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
        return Some(moment.to_utc());
    }
    let formats = ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z"];
    let with_zone = formats
        .iter()
        .find_map(|format| DateTime::parse_from_str(text, format).ok());
    let formats = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"];
    let without = || {
        formats
            .iter()
            .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
    };
    let http = || httpdate::parse_http_date(text).ok().map(Timestamp::from);
    with_zone
        .map(|moment| moment.to_utc())
        .or_else(|| without().map(|moment| moment.and_utc()))
        .or_else(http)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::config::parse_timestamp;

    fn now() -> Timestamp {
        parse_timestamp("2024-05-01T12:00:00Z").unwrap()
    }

    #[test]
    fn f067_what_a_server_says_about_expiry() {
        let epoch = now().timestamp();
        let table = [
            (json!(3600), Some(3600.0)),
            (json!(3599.5), Some(3599.5)),
            (json!("3600"), Some(3600.0)),
            (json!(" 3600.25 "), Some(3600.25)),
            (json!(1), Some(1.0)),
            (json!("2024-05-01T13:00:00Z"), Some(3600.0)),
            (json!("2024-05-01T14:00:00.5+01:00"), Some(3600.5)),
            (json!("2024-05-01 13:00:00"), Some(3600.0)),
            (json!("2024-05-01 13:00:00.000000+00:00"), Some(3600.0)),
            (json!("2024-05-01T13:00:00+0000"), Some(3600.0)),
            (json!("Wed, 01 May 2024 13:00:00 GMT"), Some(3600.0)),
            (json!(epoch + 60), Some(60.0)),
            (json!((epoch + 60) * 1000), Some(60.0)),
            (json!((epoch + 60).to_string()), Some(60.0)),
            (json!(999_999_999), Some(LIFETIME_MAX.as_secs_f64())),
            (json!(null), None),
            (json!(0), None),
            (json!(-1), None),
            (json!(0.5), None),
            (json!("0"), None),
            (json!("-3600"), None),
            (json!(""), None),
            (json!("soon"), None),
            (json!("NaN"), None),
            (json!("inf"), None),
            (json!(1e300), None),
            (json!(true), None),
            (json!([3600]), None),
            (json!({"seconds": 3600}), None),
            (json!("2024-05-01T11:59:59Z"), None),
            (json!(epoch - 1), None),
            (json!("2024-13-01T00:00:00Z"), None),
        ];
        for (said, expected) in table {
            let found = lifetime(Some(&said), now()).map(|lifetime| lifetime.as_secs_f64());
            assert_eq!(found, expected, "{said}");
        }
        assert_eq!(lifetime(None, now()), None);
    }

    #[test]
    fn r052_a_token_is_renewed_a_minute_before_its_end_but_not_before_half_its_life() {
        let table = [
            (3600, 3540.0),
            (300, 240.0),
            (120, 60.0),
            (61, 30.5),
            (60, 30.0),
            (1, 0.5),
        ];
        for (lifetime, expected) in table {
            let used = use_for(Duration::from_secs(lifetime), Duration::from_secs(60));
            assert_eq!(used.as_secs_f64(), expected, "{lifetime}");
        }
    }

    proptest! {
        #[test]
        fn f067_nothing_a_server_says_gives_a_token_of_no_use(text in "[ -~]{0,30}", number: f64, integer: i64) {
            for said in [json!(text), json!(number), json!(integer), json!(integer.to_string())] {
                if let Some(lifetime) = lifetime(Some(&said), now()) {
                    prop_assert!(use_for(lifetime, Duration::from_secs(60)) >= LIFETIME_MIN / 2, "{said}");
                    prop_assert!(lifetime <= LIFETIME_MAX, "{said}");
                }
            }
        }
    }
}
