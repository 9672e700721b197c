use std::{path::Path, time::Duration};

use super::super::parse;
use crate::config::{
    Source,
    errors::Breaker,
    rate::{Choose, Share, WindowKind},
};

const SECOND: Duration = Duration::from_secs(1);

/// A file whose source has these settings too.
fn file(settings: &str) -> String {
    format!(
        "lake: ./lake
sources:
  shop:
    base_url: https://api.shop.example/v1
    {settings}
    streams:
      orders:
        request: {{ path: /orders }}
        table: {{ keys: [id] }}
"
    )
}

fn read(settings: &str) -> Source {
    let loaded = parse(&file(settings), Path::new("/srv/shop"));
    let loaded = loaded.unwrap_or_else(|problems| panic!("{settings}\n{problems:?}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    loaded.project.sources[0].clone()
}

/// What is wrong with the settings, or else the warnings.
fn problems(settings: &str) -> String {
    let found = match parse(&file(settings), Path::new("/srv/shop")) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => problems,
    };
    let shown: Vec<String> = found.iter().map(|problem| problem.to_string()).collect();
    shown.join("\n")
}

#[test]
fn r039_the_short_form_is_one_bucket_of_every_request() {
    let rate = read("rate_limit: { requests: 1000, per: 1h }")
        .rate_limit
        .unwrap();
    let [bucket] = rate.buckets.as_slice() else {
        panic!("{rate:?}")
    };
    assert_eq!(bucket.rates.len(), 1);
    assert_eq!(
        (bucket.rates[0].requests, bucket.rates[0].per),
        (1000, 60 * 60 * SECOND)
    );
    assert_eq!((bucket.window, bucket.matches.len()), (WindowKind::Moving, 0));
    assert!(matches!(rate.share, Share::Process));
    assert_eq!((rate.choose, rate.processes), (Choose::All, 4));
}

#[test]
fn r039_every_setting_of_the_long_form_is_read() {
    let rate = read(
        "rate_limit: { requests: 5000, per: 1d, window: fixed, choose: first, processes: 2, \
         headers: { limit: X-Api-Limit, remaining: X-Api-Left, reset: X-Api-Reset }, \
         share: { file: shop.budget, key: shop-1 }, \
         buckets: [{ path: ^/health }, \
         { requests: 30, per: 1m, rates: [{ requests: 2, per: 1s }], method: POST, path: /search, weight: 2, \
         params: { kind: '1' }, headers: { X-Tier: bulk }, matches: [{ path: /export }] }] }",
    );
    let rate = rate.rate_limit.unwrap();
    let [health, search, all] = rate.buckets.as_slice() else {
        panic!("{rate:?}")
    };
    assert!(health.rates.is_empty());
    assert_eq!(
        search.rates.iter().map(|rate| rate.requests).collect::<Vec<_>>(),
        [30, 2]
    );
    let [own, export] = search.matches.as_slice() else {
        panic!("{search:?}")
    };
    assert_eq!((own.method.as_deref(), own.weight), (Some("POST"), 2));
    assert!(own.path.as_ref().unwrap().is_match("/v1/search/all"));
    assert_eq!(own.params, [("kind".to_owned(), "1".to_owned())]);
    assert_eq!(own.headers, [("x-tier".to_owned(), "bulk".to_owned())]);
    assert_eq!((export.method.as_deref(), export.weight), (None, 1));
    assert_eq!((all.rates[0].requests, all.window), (5000, WindowKind::Fixed));
    assert_eq!((rate.choose, rate.processes), (Choose::First, 2));
    let Share::File { path, key } = &rate.share else {
        panic!("{rate:?}")
    };
    assert_eq!(
        (path.as_path(), key.as_str()),
        (Path::new("/srv/shop/shop.budget"), "shop-1")
    );
    assert_eq!(rate.headers.remaining.as_deref(), Some("x-api-left"));
}

#[test]
fn r040_a_shared_budget_is_named_after_its_source() {
    let rate = read("rate_limit: { requests: 1, per: 1s, share: { redis: '${env:REDIS_URL}' } }");
    let Share::Redis { url, key } = rate.rate_limit.unwrap().share else {
        panic!("no Redis")
    };
    assert_eq!(
        (url.to_string().as_str(), key.as_str()),
        ("${env:REDIS_URL}", "shop")
    );
}

#[test]
fn r046_the_breaker_is_read() {
    let breaker = read("breaker: { failures: 3, open: 5s, repeats_ratio: 0.05, repeats_free: 0 }").breaker;
    let expected = Breaker {
        failures: 3,
        open: 5 * SECOND,
        repeats_ratio: 0.05,
        repeats_free: 0,
    };
    assert_eq!(breaker, expected);
    assert_eq!(read("breaker: {}").breaker, Breaker::DEFAULT);
}

#[test]
fn r020_what_cannot_be_a_budget_is_refused() {
    let table = [
        (
            "rate_limit: {}",
            "missing key \"requests\" and \"per\", or \"buckets\"",
        ),
        ("rate_limit: { requests: 5 }", "missing key \"per\""),
        (
            "rate_limit: { requests: 0, per: 1s }",
            "0 is not between 1 and 1000000000",
        ),
        ("rate_limit: { buckets: [{ path: /x }] }", "counts nothing"),
        (
            "rate_limit: { buckets: [{ requests: 1, per: 1s, path: '(' }] }",
            "not a regular expression",
        ),
        (
            "rate_limit: { buckets: [{ requests: 1, per: 1s, path: 'a{99}{99}{99}' }] }",
            "not a regular expression",
        ),
        (
            "rate_limit: { buckets: [{ requests: 1, per: 1s, weight: 2 }] }",
            "more than the 1 requests",
        ),
        (
            "rate_limit: { buckets: [{ requests: 1, per: 1s, method: get }] }",
            "is not allowed",
        ),
        (
            "rate_limit: { buckets: [{ requests: 1, per: 1s, rates: [{}] }] }",
            "missing key \"requests\"",
        ),
        (
            "rate_limit: { requests: 1, per: 1s, share: {} }",
            "exactly one of file and redis",
        ),
        (
            "rate_limit: { requests: 1, per: 1s, share: { file: a, redis: b } }",
            "exactly one of file and redis",
        ),
        (
            "rate_limit: { requests: 1, per: 1s, share: { redis: 'http://x' } }",
            "not the URL of a Redis",
        ),
        (
            "rate_limit: { requests: 1, per: 1s, share: { redis: 'rediss://x' } }",
            "over TLS",
        ),
        (
            "rate_limit: { requests: 1, per: 1s, share: { redis: 'redis://:pw@x' } }",
            "a secret is written in the file",
        ),
        (
            "rate_limit: { headers: {} }",
            "at least one of limit, remaining and reset",
        ),
        (
            "rate_limit: { headers: { limit: 'a b' } }",
            "not the name of a header",
        ),
        ("breaker: { repeats_ratio: 11 }", "a number between 0 and 10"),
        ("breaker: { failures: 0 }", "0 is not between 1 and"),
    ];
    for (settings, expected) in table {
        let said = problems(settings);
        assert!(said.contains(expected), "{settings}\n{said}");
        assert!(!said.contains(":pw@"), "{said}");
    }
    let many = vec!["{ requests: 1, per: 1s }"; 33].join(", ");
    assert!(problems(&format!("rate_limit: {{ buckets: [{many}] }}")).contains("33 rates are more"));
}

#[test]
fn r039_headers_alone_are_a_budget_that_the_server_keeps() {
    let rate = read("rate_limit: { headers: { remaining: x-left } }")
        .rate_limit
        .unwrap();
    assert!(rate.buckets.is_empty());
}

#[test]
fn a_quota_that_is_asked_for_needs_no_bucket() {
    let limit = read(
        "rate_limit: { status: { request: { path: '/{{ config.v }}/rate_limit', headers: { X-A: b } }, \
         remaining: $.rate.remaining, reset: $.rate.reset, limit: $.rate.limit } }",
    );
    let limit = limit.rate_limit.unwrap();
    assert!(limit.buckets.is_empty());
    let status = limit.status.unwrap();
    assert_eq!(status.request.path.as_written(), "/{{ config.v }}/rate_limit");
    assert_eq!(status.remaining.to_string(), "$.rate.remaining");
    assert_eq!(status.reset.to_string(), "$.rate.reset");
    assert_eq!(status.limit.unwrap().to_string(), "$.rate.limit");
    insta::assert_snapshot!(problems("rate_limit: { status: { request: { path: '/{{ page.token }}' }, remaining: left } }"), @r#"
    landfall.yml:5:19: missing key "reset" in "status"
    landfall.yml:5:46: path: "page" is not a variable known here
      hint: known here: config
    landfall.yml:5:80: remaining: "left" is not a JSONPath: it must start with `$`
      hint: write a JSONPath such as $.data[*]
    "#);
}
