//! An API that is asked how much of the quota is left, before anything else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;

use super::server::{Received, Reply, Server, channel, clock, cursor, json, json_with, path, source, status};
use crate::{
    clock::Clock,
    config::{
        Source,
        auth::Auth,
        paginate::Paginate,
        rate::{Bucket, Choose, QuotaStatus, Rate, RateLimit, RequestPattern, WindowKind},
        request::{Body, Method, Request},
        secret::Secret,
        text::Text,
    },
    error::{ErrorKind, Result},
    extract::{channel::Channel, quota::Quota, window::Extraction},
    raw::Bookmark,
};

/// Asks `/rate_limit` before anything else.
fn asking(server: &Server, paginate: Paginate) -> Source {
    let mut source = source(&server.url, paginate);
    let status = QuotaStatus {
        request: Request {
            method: Method::Get,
            path: Text::literal("/rate_limit"),
            params: Vec::new(),
            headers: vec![("x-who".to_owned(), Text::literal("quota"))],
            body: Body::None,
        },
        remaining: path("$.core.left"),
        reset: path("$.core.reset"),
        limit: Some(path("$.core.limit")),
    };
    let mut limit = RateLimit::simple(1000, Duration::from_secs(1));
    limit.buckets.clear();
    limit.status = Some(Box::new(status));
    source.rate_limit = Some(limit);
    source
}

fn left(left: u32, reset: &str) -> Reply {
    json(&format!(
        r#"{{"core":{{"limit":5000,"left":{left},"reset":{reset}}}}}"#
    ))
}

fn is_status(received: &Received) -> bool {
    received.target == "/v1/rate_limit"
}

fn targets(server: &Server) -> Vec<String> {
    let targets = server.received().into_iter().map(|received| received.target);
    targets.collect()
}

async fn run(source: &Source, channel: &Arc<Channel>, clock: &Clock) -> Result<u64> {
    let stream = &source.streams[0];
    let mut extraction = Extraction::new(
        source,
        stream,
        Arc::clone(channel),
        clock.clone(),
        Bookmark::default(),
    )?;
    let mut pages = 0;
    while extraction.next().await?.is_some() {
        pages += 1;
    }
    Ok(pages)
}

fn pages(received: &Received) -> Reply {
    match received.param("cursor").as_deref() {
        None => json(r#"{"data":[{"id":1}],"next":"B"}"#),
        Some("B") => json(r#"{"data":[{"id":2}],"next":"C"}"#),
        _ => json(r#"{"data":[]}"#),
    }
}

#[tokio::test]
async fn it_is_asked_first_with_the_credential_and_nothing_of_it_is_landed() {
    let server = Server::start(|_, received| match is_status(received) {
        true => left(4000, "1714568400"),
        false => pages(received),
    })
    .await;
    let mut source = asking(&server, cursor());
    source.auth = Auth::Bearer {
        scheme: "Bearer".to_owned(),
        token: Secret::literal("t0ken-of-ours"),
    };
    let (clock, budget) = (clock(), channel(&source, &clock()));
    assert_eq!(run(&source, &budget, &clock).await.unwrap(), 3);
    let first = &server.received()[0];
    assert_eq!(first.header("authorization"), Some("Bearer t0ken-of-ours"));
    assert_eq!(first.header("x-who"), Some("quota"));
    assert_eq!(
        targets(&server),
        [
            "/v1/rate_limit",
            "/v1/orders",
            "/v1/orders?cursor=B",
            "/v1/orders?cursor=C"
        ]
    );
    let quota = budget.quotas()[0].unwrap();
    assert_eq!((quota.limit, quota.remaining), (Some(5000), Some(4000)));
    assert!(quota.reset.unwrap() <= Duration::from_secs(3600));
    // Known for the next run too.
    server.forget();
    run(&source, &budget, &clock).await.unwrap();
    assert!(!server.received().iter().any(is_status));
}

#[tokio::test]
async fn each_token_of_a_pool_is_asked_for_once_and_a_spent_one_is_not_used() {
    let server = Server::start(
        |_, received| match (is_status(received), received.header("authorization")) {
            (true, Some("Bearer first-token")) => left(0, "3000"),
            (true, _) => left(5000, "3000"),
            (false, _) => pages(received),
        },
    )
    .await;
    let mut source = asking(&server, cursor());
    let member = |token: &str| Auth::Bearer {
        scheme: "Bearer".to_owned(),
        token: Secret::literal(token),
    };
    source.auth = Auth::Pool(vec![member("first-token"), member("second-token")]);
    let (clock, budget) = (clock(), channel(&source, &clock()));
    assert_eq!(run(&source, &budget, &clock).await.unwrap(), 3);
    let sent = |wanted: &str| {
        let received = server.received();
        let by = received
            .iter()
            .filter(|received| received.header("authorization") == Some(wanted));
        by.map(|received| received.target.clone()).collect::<Vec<_>>()
    };
    assert_eq!(sent("Bearer first-token"), ["/v1/rate_limit"]);
    assert_eq!(
        sent("Bearer second-token"),
        [
            "/v1/rate_limit",
            "/v1/orders",
            "/v1/orders?cursor=B",
            "/v1/orders?cursor=C"
        ]
    );
    let left: Vec<_> = budget
        .quotas()
        .iter()
        .map(|quota| quota.unwrap().remaining)
        .collect();
    assert_eq!(left, [Some(0), Some(5000)]);
}

#[tokio::test]
async fn a_spent_quota_waits_for_its_reset_and_is_asked_for_again() {
    let server = Server::start(|number, received| match (number, is_status(received)) {
        (0 | 1, true) => left(0, "0.4"),
        (_, true) => left(5000, r#""2024-05-01T13:00:00Z""#),
        (_, false) => pages(received),
    })
    .await;
    let source = asking(&server, Paginate::Single);
    let (clock, budget) = (clock(), channel(&source, &clock()));
    let begun = Instant::now();
    assert_eq!(run(&source, &budget, &clock).await.unwrap(), 1);
    assert!(
        begun.elapsed() >= Duration::from_millis(800),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(
        targets(&server),
        ["/v1/rate_limit", "/v1/rate_limit", "/v1/rate_limit", "/v1/orders"]
    );
}

#[tokio::test]
async fn it_is_asked_again_when_the_reset_it_told_has_come() {
    let server = Server::start(|_, received| match is_status(received) {
        true => left(4000, "600"),
        false => pages(received),
    })
    .await;
    let source = asking(&server, Paginate::Single);
    // Seconds that a test moves.
    let moved = Arc::new(AtomicI64::new(0));
    let clock = {
        let moved = Arc::clone(&moved);
        Clock::from_fn(move || super::server::now() + chrono::TimeDelta::seconds(moved.load(SeqCst)))
    };
    let budget = channel(&source, &clock);
    for (at, asked) in [(0, 1), (599, 1), (600, 2), (1199, 2), (1200, 3)] {
        moved.store(at, SeqCst);
        run(&source, &budget, &clock).await.unwrap();
        let count = server.received().iter().filter(|one| is_status(one)).count();
        assert_eq!(count, asked, "{at}");
    }
}

#[tokio::test]
async fn a_reset_too_far_away_fails_and_no_page_is_asked_for() {
    let server = Server::start(|_, _| left(0, "1714640400")).await;
    let mut source = asking(&server, Paginate::Single);
    let (clock, budget) = (clock(), channel(&source, &clock()));
    let error = run(&source, &budget, &clock).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    let text = error.chain();
    assert!(
        text.contains("no requests are left") && text.contains("wait_max_s: 3600"),
        "{text}"
    );
    // What was told still holds.
    run(&source, &budget, &clock).await.unwrap_err();
    assert_eq!(targets(&server), ["/v1/rate_limit"]);
    // Whoever has more time says so.
    source.streams[0].retry.retry_after_max = Duration::from_secs(24 * 3600);
    let waiting = tokio::time::timeout(Duration::from_millis(50), run(&source, &budget, &clock)).await;
    assert!(waiting.is_err(), "it waits for the reset");
}

#[tokio::test]
async fn what_cannot_be_read_is_as_if_nobody_had_asked() {
    let garbage: [fn() -> Reply; 9] = [
        || status(404, "", b"no such thing"),
        || status(503, "", b""),
        || status(302, "location: /v1/other\r\n", b""),
        || json("<html>"),
        || json(""),
        || json(r#"{"core":{"limit":5000,"reset":60}}"#),
        || json(r#"{"core":{"limit":5000,"left":null,"reset":60}}"#),
        || json(r#"{"core":{"limit":5000,"left":0,"reset":"soon"}}"#),
        || Reply::Close(b"nonsense".to_vec()),
    ];
    for (case, answer) in garbage.into_iter().enumerate() {
        let server = Server::start(move |_, received| match is_status(received) {
            true => answer(),
            false => pages(received),
        })
        .await;
        let source = asking(&server, cursor());
        let (clock, budget) = (clock(), channel(&source, &clock()));
        assert_eq!(run(&source, &budget, &clock).await.unwrap(), 3, "{case}");
        let asked = server.received().iter().filter(|one| is_status(one)).count();
        assert_eq!((asked, server.received().len()), (1, 4), "{case}");
        assert_eq!(budget.quotas(), [None], "{case}");
        assert!(budget.host().is_ok());
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_made_is_not_missed() {
    let server = Server::start(|_, received| pages(received)).await;
    let mut source = asking(&server, cursor());
    let limit = source.rate_limit.as_mut().unwrap();
    let settings = limit.status.as_mut().unwrap();
    let header = Text::parse("${file:/nowhere/at/all}").unwrap();
    settings.request.headers.push(("x-key".to_owned(), header));
    let (clock, budget) = (clock(), channel(&source, &clock()));
    assert_eq!(run(&source, &budget, &clock).await.unwrap(), 3);
    assert_eq!((server.received().len(), budget.quotas()), (3, vec![None]));
}

#[tokio::test]
async fn ten_workers_ask_once() {
    let server = Server::start(|_, received| match is_status(received) {
        true => left(4000, "600"),
        false => pages(received),
    })
    .await;
    let source = asking(&server, Paginate::Single);
    let (clock, budget) = (clock(), channel(&source, &clock()));
    let runs = (0..10).map(|_| run(&source, &budget, &clock));
    assert!(join_all(runs).await.into_iter().all(|pages| pages.is_ok()));
    let targets = targets(&server);
    assert_eq!((targets[0].as_str(), targets.len()), ("/v1/rate_limit", 11));
    assert!(!targets[1..].contains(&targets[0]));
}

#[tokio::test]
async fn headers_and_the_answer_are_one_word_of_the_server() {
    // The page says that nothing is left, which holds until its own reset.
    let server = Server::start(|_, received| match is_status(received) {
        true => left(4000, "600"),
        false => json_with(
            r#"{"data":[]}"#,
            "x-ratelimit-remaining: 0\r\nx-ratelimit-reset: 30\r\n",
        ),
    })
    .await;
    let source = asking(&server, Paginate::Single);
    let (clock, budget) = (clock(), channel(&source, &clock()));
    run(&source, &budget, &clock).await.unwrap();
    assert!(budget.wait_hint() > Duration::from_secs(20));
    // The other way round.
    let server = Server::start(|_, _| left(0, "3500")).await;
    let source = asking(&server, Paginate::Single);
    let budget = channel(&source, &clock);
    let waiting = tokio::time::timeout(Duration::from_millis(200), run(&source, &budget, &clock)).await;
    assert!(waiting.is_err());
    assert!(budget.wait_hint() > Duration::from_secs(3000));
}

#[tokio::test]
async fn it_counts_only_in_buckets_that_name_it() {
    let bucket = |pattern: Option<&str>| Bucket {
        rates: vec![Rate {
            requests: 1,
            per: Duration::from_millis(300),
        }],
        window: WindowKind::Moving,
        matches: pattern
            .map(|path| RequestPattern {
                method: None,
                path: Some(regex::Regex::new(path).unwrap()),
                params: Vec::new(),
                headers: Vec::new(),
                weight: 1,
            })
            .into_iter()
            .collect(),
    };
    // Room for one request: the page, or what is asked before it.
    for (pattern, choose, waits) in [
        (None, Choose::All, false),
        (Some("/orders$"), Choose::All, false),
        (Some("^/v1/"), Choose::All, true),
        (Some("^/v1/"), Choose::First, true),
    ] {
        let server = Server::start(|_, received| match is_status(received) {
            true => left(4000, "600"),
            false => pages(received),
        })
        .await;
        let mut source = asking(&server, Paginate::Single);
        let limit = source.rate_limit.as_mut().unwrap();
        (limit.buckets, limit.choose) = (vec![bucket(pattern)], choose);
        let (clock, budget) = (clock(), channel(&source, &clock()));
        let begun = Instant::now();
        run(&source, &budget, &clock).await.unwrap();
        assert_eq!(
            begun.elapsed() >= Duration::from_millis(300),
            waits,
            "{pattern:?}"
        );
    }
}

#[tokio::test]
async fn every_spelling_of_a_count_and_a_reset_is_read() {
    let minute = Some(Duration::from_secs(60));
    let table = [
        (
            r#"{"core":{"limit":"5000","left":"7","reset":"60"}}"#,
            Some(7),
            minute,
        ),
        (
            r#"{"core":{"limit":5000.0,"left":7.9,"reset":1714564860}}"#,
            Some(7),
            minute,
        ),
        (
            r#"{"core":{"limit":5000,"left":-3,"reset":1714564860000}}"#,
            Some(0),
            minute,
        ),
        (
            r#"{"core":{"limit":5000,"left":7,"reset":"2024-05-01T12:01:00Z"}}"#,
            Some(7),
            minute,
        ),
        (
            r#"{"core":{"limit":5000,"left":7,"reset":"1m0s"}}"#,
            Some(7),
            minute,
        ),
        // The end of a month is believed, the end of a century is not.
        (
            r#"{"core":{"limit":5000,"left":7,"reset":"2024-06-01T12:00:00Z"}}"#,
            Some(7),
            Some(Duration::from_secs(31 * 24 * 3600)),
        ),
        (
            r#"{"core":{"limit":5000,"left":7,"reset":"2099-06-01T12:00:00Z"}}"#,
            None,
            None,
        ),
    ];
    for (body, remaining, reset) in table {
        let server = Server::start(move |_, received| match is_status(received) {
            true => json_with(body, "date: Wed, 01 May 2024 12:00:00 GMT\r\n"),
            false => pages(received),
        })
        .await;
        let source = asking(&server, Paginate::Single);
        let (clock, budget) = (clock(), channel(&source, &clock()));
        let one = run(&source, &budget, &clock);
        // With nothing left it waits.
        let _ = tokio::time::timeout(Duration::from_millis(500), one).await;
        let found = budget.quotas()[0];
        let expected = remaining.map(|remaining| Quota {
            limit: Some(5000),
            remaining: Some(remaining),
            reset,
        });
        assert_eq!(found, expected, "{body}");
    }
}
