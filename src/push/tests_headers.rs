//! The headers of answers that a producer waits by.

use std::time::Duration;

use proptest::prelude::*;
use regex::bytes::Regex;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::retry::{pace, wait_asked};
use crate::{
    clock::Timestamp,
    fields::near::{each_long, near},
};

const RETRY_AFTER: &str = "retry-after";
const RATE_LIMIT: &str = "ratelimit";

/// 22 November 2026, 01:05:06.
fn now() -> Timestamp {
    Timestamp::from_timestamp(1_795_309_506, 0).unwrap()
}

fn headers(name: &'static str, value: &[u8]) -> Option<HeaderMap> {
    let value = HeaderValue::from_bytes(value).ok()?;
    Some(HeaderMap::from_iter([(HeaderName::from_static(name), value)]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn retry_after_is_seconds_or_a_date_and_nothing_else(
        value in near(&["120", "0", "18446744073709551616", "Sun, 22 Nov 2026 01:05:16 GMT", "Sunday, 22-Nov-26 01:05:16 GMT"]),
    ) {
        let Some(map) = headers(RETRY_AFTER, &value) else { return Ok(()) };
        let asked = wait_asked(&map, now());
        let text = value.trim_ascii();
        let seconds = Regex::new("^[0-9]+$").unwrap().is_match(text);
        let date = str::from_utf8(text).ok().and_then(|text| httpdate::parse_http_date(text).ok());
        match asked {
            Some(wait) if seconds => {
                let expected = str::from_utf8(text).unwrap().parse().unwrap_or(u64::MAX);
                prop_assert_eq!(wait, Duration::from_secs(expected));
            }
            Some(wait) => {
                let until = Timestamp::from(date.unwrap());
                prop_assert_eq!(wait, (until - now()).to_std().unwrap_or_default());
            }
            None => prop_assert!(!seconds && date.is_none(), "{:?}", value),
        }
    }

    #[test]
    fn what_is_left_is_read_out_of_any_list_of_quotas(
        quotas in prop::collection::vec(("[a-z,;=r0\\\\\" -]{0,8}", 0_u64..3, 0_u64..90, any::<bool>()), 1..5),
        between in prop::sample::select(vec![",", ", ", " ,\t"]),
    ) {
        let written = quotas.iter().map(|(name, left, reset, turned)| {
            let name = name.replace('\\', "\\\\").replace('"', "\\\"");
            if *turned { format!("\"{name}\";t={reset};pk=:YQ==:;r={left}") } else { format!("\"{name}\"; r={left}; t={reset}") }
        });
        let map = headers(RATE_LIMIT, written.collect::<Vec<_>>().join(between).as_bytes()).unwrap();
        let spent = quotas.iter().filter(|(_, left, ..)| *left == 0).map(|(_, _, reset, _)| *reset).max();
        prop_assert_eq!(wait_asked(&map, now()), spent.map(Duration::from_secs));
        prop_assert_eq!(pace(&map), Duration::from_secs(spent.unwrap_or(0).min(1)));
    }

    #[test]
    fn no_list_of_quotas_makes_a_producer_wait_that_does_not_say_so(
        value in near(&["\"producer\";r=0;t=6, \"bytes\";r=5;t=60", "\"a\";r=0;t=1"]),
    ) {
        let Some(map) = headers(RATE_LIMIT, &value) else { return Ok(()) };
        prop_assert!(pace(&map) <= Duration::from_secs(1));
        if wait_asked(&map, now()).is_some() {
            let text = String::from_utf8_lossy(&value);
            prop_assert!(text.contains("r=0") && text.contains("t="), "{}", text);
        }
    }
}

#[test]
fn a_quota_is_what_stands_outside_of_its_name_and_what_is_unreadable_says_nothing() {
    for (name, value, wait) in [
        (RATE_LIMIT, "\"a;r=0;t=5\";r=9;t=60", None),
        (RATE_LIMIT, "\"a, b\";r=0;t=5", Some(5)),
        (RATE_LIMIT, "\"a\";r=0;t=5;r=3", None),
        (RATE_LIMIT, "\"a\";r=-0;t=5", None),
        (RATE_LIMIT, "\"a\";r=0;t=+5", None),
        (RETRY_AFTER, "+5", None),
        (RETRY_AFTER, "5.0", None),
        (RETRY_AFTER, "5, 6", None),
    ] {
        let map = headers(name, value.as_bytes()).unwrap();
        assert_eq!(wait_asked(&map, now()), wait.map(Duration::from_secs), "{value}");
    }
    let mut both = headers(RATE_LIMIT, b"\"a\";r=0;t=5").unwrap();
    both.insert(RETRY_AFTER, HeaderValue::from_static("soon"));
    assert_eq!(wait_asked(&both, now()), Some(Duration::from_secs(5)));
}

#[test]
fn answers_with_64_kib_of_a_header_are_read_in_one_pass() {
    each_long(
        &["\"a\";r=0;t=1,", "\"", ";", ",", ";r=0", "0", "=", "\\\""],
        |value| {
            for name in [RETRY_AFTER, RATE_LIMIT] {
                let map = headers(name, &value).unwrap();
                wait_asked(&map, now());
                assert!(pace(&map) <= Duration::from_secs(1));
            }
        },
    );
}
