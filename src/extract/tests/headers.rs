//! The headers of answers by which a pull waits, slows down and finds the next page.

use std::time::Duration;

use proptest::prelude::*;
use regex::bytes::Regex;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    clock::Timestamp,
    extract::{
        link::{self, LINKS_MAX},
        quota::{self, RESET_MAX},
        retry::{server_time, wait_asked},
    },
    fields::near::{each_long, near},
};

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
    fn f032_retry_after_is_seconds_or_a_date_and_nothing_else(
        value in near(&["120", "18446744073709551616", "Sun, 22 Nov 2026 01:05:16 GMT", "Sun Nov 22 01:05:16 2026"]),
    ) {
        let Some(map) = headers("retry-after", &value) else { return Ok(()) };
        let text = value.trim_ascii();
        let is_count = Regex::new("^[0-9]+$").unwrap().is_match(text);
        let date = str::from_utf8(text).ok().and_then(|text| httpdate::parse_http_date(text).ok());
        let expected = match (is_count, date) {
            (true, _) => Some(Duration::from_secs(str::from_utf8(text).unwrap().parse().unwrap_or(u64::MAX))),
            (false, date) => date.map(|date| (Timestamp::from(date) - now()).to_std().unwrap_or_default()),
        };
        prop_assert_eq!(wait_asked(&map, now()), expected);
        // The same grammar tells when the server answered.
        let map = headers("date", &value).unwrap();
        prop_assert_eq!(server_time(&map), date.map(Timestamp::from));
    }

    #[test]
    fn f070_every_list_of_quotas_is_read_for_the_one_that_binds(
        quotas in prop::collection::vec(("[a-z,;=r0 -]{0,8}", 1_u64..1_000, 1_u64..3_000), 1..5),
        spent in prop::option::of(1_u64..3_000),
    ) {
        let mut written: Vec<String> = quotas
            .iter()
            .map(|(name, left, reset)| format!("\"{name}\";r={left};t={reset}"))
            .collect();
        written.extend(spent.map(|reset| format!("\"spent, all of it; r=9\";r=0;t={reset}")));
        let found = quota::read(&headers("ratelimit", written.join(", ").as_bytes()).unwrap(), now());
        prop_assert_eq!(found.is_spent(), spent.is_some(), "{:?}", written);
        match spent {
            Some(reset) => prop_assert_eq!(found.reset, Some(Duration::from_secs(reset))),
            None => {
                let known = |(_, left, reset): &(String, u64, u64)| {
                    (found.remaining, found.reset) == (Some(*left), Some(Duration::from_secs(*reset)))
                };
                prop_assert!(quotas.iter().any(known), "{:?} of {:?}", found, written);
            }
        }
    }

    #[test]
    fn f070_no_header_of_a_budget_says_more_than_is_believed(
        value in near(&["\"burst\";r=0;t=5, \"day\";r=3;t=50", "limit=10, remaining=2, reset=50", "1795309560", "6m0s", "100, 100;w=60"]),
    ) {
        for name in ["ratelimit", "ratelimit-policy", "x-ratelimit-remaining", "x-ratelimit-reset", "x-rate-limit-limit"] {
            let Some(mut map) = headers(name, &value) else { return Ok(()) };
            map.append("ratelimit-remaining", HeaderValue::from_static("7"));
            let found = quota::read(&map, now());
            prop_assert!(found.reset.is_none_or(|reset| reset <= RESET_MAX));
            prop_assert!(found.remaining.is_some_and(|left| left == 7 || String::from_utf8_lossy(&value).contains(char::is_numeric)));
        }
    }

    #[test]
    fn f058_a_link_points_at_what_stands_between_its_brackets(
        value in near(&["</o?page=2>; rel=\"next\"", "</a,b>; title=\"x, <y>; \\\"z\\\"\"; rel=next, </l>; rel=\"last prev\""]),
    ) {
        let Ok(text) = str::from_utf8(&value) else { return Ok(()) };
        let (links, rest) = link::parse(text);
        prop_assert!(links.len() <= LINKS_MAX && text.ends_with(rest));
        let brackets = text.match_indices('<').filter_map(|(at, _)| text[at + 1..].split_once('>'));
        let targets: Vec<&str> = brackets.map(|(target, _)| target.trim()).collect();
        for link in &links {
            prop_assert!(targets.contains(&link.target.as_str()), "{}", text);
            for relation in &link.relations {
                prop_assert!(!relation.is_empty() && !relation.contains([' ', '\t']));
                prop_assert_eq!(&relation.to_ascii_lowercase(), relation);
            }
        }
        let next = link::target([value.as_slice()], "next");
        let named = links.iter().find(|link| link.relations.iter().any(|relation| relation == "next"));
        match next {
            Ok(target) => prop_assert_eq!(target, named.map(|link| link.target.clone())),
            Err(_) => prop_assert!(named.is_none() && !rest.is_empty()),
        }
    }
}

#[test]
fn answers_with_64_kib_of_a_header_are_read_in_one_pass() {
    let pieces = [
        "<",
        "<a>;",
        "</n>;rel=next,",
        "\"",
        "\\\"",
        ";",
        ",",
        ";r=0",
        "\"a\";r=1;t=1;q=1,",
        "9",
        "1h",
        "=",
    ];
    each_long(&pieces, |value| {
        let text = str::from_utf8(&value).unwrap();
        let (links, _) = link::parse(text);
        assert!(links.len() <= LINKS_MAX);
        for name in [
            "retry-after",
            "ratelimit",
            "ratelimit-policy",
            "x-ratelimit-reset",
        ] {
            let map = headers(name, &value).unwrap();
            wait_asked(&map, now());
            assert!(
                quota::read(&map, now())
                    .reset
                    .is_none_or(|reset| reset <= RESET_MAX)
            );
        }
        let mut both = headers("ratelimit", &value).unwrap();
        both.insert("ratelimit-policy", HeaderValue::from_bytes(&value).unwrap());
        quota::read(&both, now());
    });
}
