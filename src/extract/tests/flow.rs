//! Whole windows with every paginator, and what is sent and kept.

use std::time::Duration;

use crate::config::paginate::OffsetStep;
use crate::config::paginate::OnFirst;
use crate::config::request::Body;
use proptest::prelude::*;

use super::{
    dialect::{dialect, ids, paginators, query, seen},
    server::{
        Server, cursor, extract, extraction, incremental, json, json_with, path, secret_file, source, status,
    },
};
use crate::{
    config::{
        auth::Auth,
        errors::{Action, ErrorRule},
        incremental::{Moment, Until},
        paginate::Paginate,
        parse_timestamp,
        request::Method,
        request::Place,
        request::TokenSlot,
        secret::Secret,
    },
    error::ErrorKind,
    extract::window::Position,
    raw::Bookmark,
};

#[tokio::test]
async fn r011_r026_r030_r031_r168_every_paginator_sees_every_record_once() {
    for (name, paginate) in paginators() {
        for total in [0, 1, 6, 7, 20] {
            let server = Server::start(dialect(total, 3, &paginate)).await;
            let outcome = extract(&source(&server.url, paginate.clone()), Bookmark::default()).await;
            outcome.result.as_ref().unwrap();
            let expected: Vec<u64> = (0..total as u64).collect();
            assert_eq!(seen(&outcome.bodies()), expected, "{name} of {total}");
            assert_eq!(outcome.records(), total as u64);
            assert_eq!(outcome.pages.last().unwrap().position, Position::Last);
            assert_eq!(
                (outcome.counts.pages, outcome.counts.records),
                (outcome.pages.len() as u64, total as u64)
            );
        }
    }
}

#[tokio::test]
async fn r025_a_short_page_is_no_end_and_the_offset_follows_the_records() {
    let server = Server::start(|_, received| match received.param("at").unwrap().as_str() {
        "10" => json(&format!(r#"{{"data":{}}}"#, ids(10, 13))),
        "13" => json(&format!(r#"{{"data":{}}}"#, ids(13, 14))),
        "14" => json(&format!(r#"{{"data":{}}}"#, ids(14, 18))),
        _ => json(r#"{"data":[]}"#),
    })
    .await;
    let outcome = extract(
        &source(
            &server.url,
            Paginate::Offset {
                to: query("at"),
                first: 10,
                on_first: OnFirst::Sent,
                step: OffsetStep::Records,
            },
        ),
        Bookmark::default(),
    )
    .await;
    assert_eq!(outcome.records(), 8);
    assert_eq!(server.queries(), ["at=10", "at=13", "at=14", "at=18"]);
}

#[tokio::test]
async fn r024_cursor_ends_when_absent_null_or_empty() {
    for end in ["", r#","next":null"#, r#","next":"""#, r#","next":false"#] {
        let server = Server::start(move |number, _| match number {
            0 => json(r#"{"data":[{}],"next":"B"}"#),
            _ => json(&format!(r#"{{"data":[{{}}]{end}}}"#)),
        })
        .await;
        let outcome = extract(&source(&server.url, cursor()), Bookmark::default()).await;
        outcome.result.as_ref().unwrap();
        assert_eq!((outcome.pages.len(), server.received().len()), (2, 2), "{end}");
    }
}

#[tokio::test]
async fn r024_tokens_go_back_as_they_came() {
    let tokens = [
        (r#""a+b/c==""#, "a+b/c=="),
        (r#""%2B&x=1#?""#, "%2B&x=1#?"),
        (r#""\u00e9\ud83d\ude00 \"q\"""#, "é😀 \"q\""),
        ("18446744073709551617", "18446744073709551617"),
        ("1.50", "1.50"),
        (r#""007""#, "007"),
    ];
    for (written, expected) in tokens {
        let server = Server::start(move |number, _| match number {
            0 => json(&format!(r#"{{"data":[{{}}],"next":{written}}}"#)),
            _ => json(r#"{"data":[]}"#),
        })
        .await;
        let outcome = extract(&source(&server.url, cursor()), Bookmark::default()).await;
        outcome.result.as_ref().unwrap();
        assert_eq!(server.received()[1].param("cursor").as_deref(), Some(expected));
        assert_eq!(
            outcome.pages[0].page.facts.token_returned.as_deref(),
            Some(expected)
        );
        assert_eq!(outcome.pages[1].page.facts.token_used.as_deref(), Some(expected));
    }
}

#[tokio::test]
async fn r024_a_token_that_is_no_token_is_refused() {
    for odd in ["true", "[1]", "{}"] {
        let server = Server::start(move |_, _| json(&format!(r#"{{"data":[{{}}],"next":{odd}}}"#))).await;
        let outcome = extract(&source(&server.url, cursor()), Bookmark::default()).await;
        assert_eq!(outcome.result.unwrap_err().kind(), ErrorKind::Refused, "{odd}");
    }
}

#[tokio::test]
async fn r024_tokens_in_a_body_keep_their_type_and_in_a_header_their_text() {
    for (written, expected) in [
        (r#""7""#, r#"{"page":{"after":"7","size":2}}"#),
        ("7", r#"{"page":{"after":7,"size":2}}"#),
    ] {
        let server = Server::start(move |number, _| match number {
            0 => json(&format!(r#"{{"data":[{{}}],"next":{written}}}"#)),
            _ => json(r#"{"data":[]}"#),
        })
        .await;
        let to = TokenSlot::BodyField(vec!["page".to_owned(), "after".to_owned()]);
        let mut source = source(
            &server.url,
            Paginate::Cursor {
                from: Place::Body(path("$.next")),
                to,
            },
        );
        source.streams[0].request.method = Method::Post;
        source.streams[0].request.body = Body::Json(serde_json::json!({"page": {"size": 2}}).into());
        extract(&source, Bookmark::default()).await.result.unwrap();
        assert_eq!(server.received()[0].body, r#"{"page":{"size":2}}"#);
        assert_eq!(server.received()[1].body, expected);
        assert_eq!(
            server.received()[1].header("content-type"),
            Some("application/json")
        );
    }
    let server = Server::start(|number, _| json(&format!(r#"{{"data":{}}}"#, ids(0, 1 - number)))).await;
    let to = TokenSlot::Header("X-Page".to_owned());
    extract(
        &source(
            &server.url,
            Paginate::PageNumber {
                to,
                first: 1,
                on_first: OnFirst::Sent,
            },
        ),
        Bookmark::default(),
    )
    .await
    .result
    .unwrap();
    let pages: Vec<String> = server
        .received()
        .iter()
        .map(|received| received.header("x-page").unwrap().to_owned())
        .collect();
    assert_eq!(pages, ["1", "2"]);
}

#[tokio::test]
async fn r050_each_credential_reaches_the_server() {
    let (_file, secret) = secret_file("s3cret");
    let table = [
        (Auth::None, "authorization", None),
        (
            Auth::ApiKeyHeader {
                name: "X-Key".to_owned(),
                value: secret.clone(),
            },
            "x-key",
            Some("s3cret"),
        ),
        (
            Auth::Basic {
                username: Secret::literal("me"),
                password: secret.clone(),
            },
            "authorization",
            Some("Basic bWU6czNjcmV0"),
        ),
        (
            Auth::Bearer {
                scheme: "Bearer".to_owned(),
                token: secret,
            },
            "authorization",
            Some("Bearer s3cret"),
        ),
    ];
    for (auth, header, expected) in table {
        let server = Server::start(|_, _| json(r#"{"data":[]}"#)).await;
        let mut source = source(&server.url, Paginate::Single);
        source.auth = auth;
        extract(&source, Bookmark::default()).await.result.unwrap();
        assert_eq!(server.received()[0].header(header), expected);
        assert_eq!(server.received()[0].header("accept-encoding"), Some("gzip, zstd"));
    }
}

#[tokio::test]
async fn r143_facts_say_how_a_page_came() {
    let server = Server::start(|number, _| match number {
        0 => status(503, "", b""),
        _ => json_with(
            r#"{"data":[{}],"next":"B"}"#,
            "ETag: \"7\"\r\nX-Request-Id: r-1\r\nSet-Cookie: a=b\r\n",
        ),
    })
    .await;
    let mut extraction = extraction(&source(&server.url, cursor()), Bookmark::default());
    let facts = extraction.next().await.unwrap().unwrap().page.unwrap().facts;
    assert_eq!(
        (facts.method.as_str(), facts.status, facts.attempts),
        ("GET", 200, 2)
    );
    assert_eq!(facts.url, format!("{}/orders", server.url));
    assert_eq!(
        (facts.token_used, facts.token_returned.as_deref()),
        (None, Some("B"))
    );
    let names: Vec<&str> = facts.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["content-type", "etag", "x-request-id"]);
}

#[tokio::test]
async fn a_probe_shows_one_page_and_moves_nothing() {
    let server = Server::start(|_, _| json(r#"{"data":[ {"id":1} ,{"id":2}],"next":"B"}"#)).await;
    let mut extraction = extraction(&source(&server.url, cursor()), Bookmark::default());
    let probe = extraction.probe().await.unwrap();
    assert_eq!(
        (probe.status, probe.records, probe.next.as_deref()),
        (200, 2, Some("B"))
    );
    assert_eq!(probe.first_record.unwrap(), r#"{"id":1}"#);
    assert_eq!(server.received().len(), 1);
    assert_eq!(extraction.next().await.unwrap().unwrap().records, 2);
    assert!(extraction.probe().await.is_err());
}

#[tokio::test]
async fn an_extraction_that_failed_stays_failed() {
    let server = Server::start(|_, _| status(404, "", b"")).await;
    let mut extraction = extraction(&source(&server.url, cursor()), Bookmark::default());
    assert_eq!(extraction.next().await.unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(extraction.next().await.unwrap_err().kind(), ErrorKind::Internal);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn r030_f052_pages_of_any_size_give_every_record_once(total in 0usize..60, size in 1usize..9, which in 0usize..7) {
        let (name, paginate) = paginators().swap_remove(which);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (ids, requests) = runtime.block_on(async {
            let server = Server::start(dialect(total, size, &paginate)).await;
            let outcome = extract(&source(&server.url, paginate), Bookmark::default()).await;
            outcome.result.as_ref().unwrap();
            (seen(&outcome.bodies()), server.received().len())
        });
        prop_assert_eq!(ids, (0..total as u64).collect::<Vec<u64>>(), "{}", name);
        prop_assert!(requests <= total / size + 2, "{}", name);
    }
}

#[tokio::test]
async fn a_window_that_is_too_much_is_split_and_not_below_its_least_length() {
    const DAY: Duration = Duration::from_secs(86_400);
    // Serves windows of so many days.
    let most = |days: i64| async move {
        Server::start(move |_, received| {
            let day = |name| parse_timestamp(&received.param(name).unwrap()).unwrap();
            match (day("until") - day("since")).num_days() > days {
                true => status(413, "", b""),
                false => json(r#"{"data":[{"id":1,"t":"2024-04-01T12:00:00Z"}]}"#),
            }
        })
        .await
    };
    let settings = |server: &Server, split_min| {
        let mut source = source(&server.url, Paginate::Single);
        let mut cursor = incremental(Duration::ZERO);
        cursor.start = vec![Moment::At("2024-04-01T00:00:00Z".to_owned())];
        cursor.until = Some(Until {
            to: query("until"),
            step: None,
            align: None,
            end: vec![Moment::At("2024-04-05T00:00:00Z".to_owned())],
            granularity: Duration::ZERO,
            split_min,
        });
        source.streams[0].incremental = Some(cursor);
        source.errors = vec![ErrorRule {
            status: vec![(413, 413)],
            header: None,
            body: None,
            when: None,
            then: Action::SplitWindow,
            wait: Vec::new(),
            message: None,
        }];
        source
    };
    let windows = |server: &Server| -> Vec<String> {
        let days = |received: &super::server::Received| {
            let day = |name| received.param(name).unwrap()[8..10].parse::<u32>().unwrap();
            format!("{}-{}", day("since"), day("until"))
        };
        server.received().iter().map(days).collect()
    };
    let server = most(1).await;
    let outcome = extract(&settings(&server, Duration::ZERO), Bookmark::default()).await;
    outcome.result.unwrap();
    let expected = ["1-5", "1-3", "1-2", "2-3", "3-5", "3-4", "4-5"];
    assert_eq!(windows(&server), expected);

    let server = most(0).await;
    let outcome = extract(&settings(&server, DAY), Bookmark::default()).await;
    assert!(
        outcome.error().contains("the window cannot be halved"),
        "{}",
        outcome.error()
    );
    assert_eq!(windows(&server), ["1-5", "1-3", "1-2"]);
    // Whatever is longer is split.
    let server = most(0).await;
    let outcome = extract(
        &settings(&server, DAY * 4 - Duration::from_secs(1)),
        Bookmark::default(),
    )
    .await;
    assert!(outcome.result.is_err());
    assert_eq!(windows(&server), ["1-5", "1-3"]);
}
