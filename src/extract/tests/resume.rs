//! Where windows begin, resume and end: bounds, watermarks, stored tokens.

use std::time::Duration;

use super::{
    dialect::{dialect, paginators, query, seen},
    server::{Server, cursor, extract, extraction, incremental, json, now, source, status},
};
use crate::{
    config::{CursorFormat, Paginate, secret::Secret},
    raw::{Bookmark, Window},
};

#[tokio::test]
async fn r057_r061_the_watermark_moves_with_the_last_page_only() {
    let server = Server::start(|number, _| match number {
        0 => json(r#"{"data":[{"t":"2024-05-01T10:00:00+02:00"},{"t":"2024-05-01T09:30:00Z"}],"next":"B"}"#),
        1 => json(r#"{"data":[{"t":"2024-05-01T09:00:00Z"},{"id":1},{"t":null}]}"#),
        2 => json(r#"{"data":[]}"#),
        _ => json(r#"{"data":[{"t":"2024-05-01T08:45:00Z"}]}"#),
    })
    .await;
    let mut source = source(&server.url, cursor());
    source.streams[0].incremental = Some(incremental(Duration::from_secs(3600)));
    let outcome = extract(&source, Bookmark::default()).await;
    assert_eq!(outcome.pages[0].bookmark.watermark, None);
    let window = outcome.pages[0].bookmark.window.clone().unwrap();
    assert_eq!((window.next.as_str(), window.pages, window.records), ("B", 1, 2));
    assert_eq!(window.cursor_max.as_deref(), Some("2024-05-01T09:30:00Z"));
    let bookmark = outcome.bookmark();
    assert_eq!(bookmark.watermark.as_deref(), Some("2024-05-01T09:30:00Z"));
    assert_eq!(bookmark.window, None);
    assert!(bookmark.last_success_at.unwrap() >= now());
    assert_eq!(
        (outcome.counts.cursors_missing, outcome.counts.cursors_unsorted),
        (2, 1)
    );

    // The next window begins a lookback earlier, and without news nothing moves back.
    let outcome = extract(&source, bookmark).await;
    assert_eq!(
        server.received()[2].param("since").as_deref(),
        Some("2024-05-01T08:30:00Z")
    );
    assert_eq!(
        outcome.bookmark().watermark.as_deref(),
        Some("2024-05-01T09:30:00Z")
    );
    let outcome = extract(&source, outcome.bookmark()).await;
    assert_eq!(outcome.records(), 1);
    assert_eq!(
        outcome.bookmark().watermark.as_deref(),
        Some("2024-05-01T09:30:00Z")
    );
}

#[tokio::test]
async fn r032_filter_cursor_and_limit_travel_together() {
    let server = Server::start(|number, _| match number {
        0 => json(r#"{"data":[{}],"next":"B"}"#),
        _ => json(r#"{"data":[{}]}"#),
    })
    .await;
    let mut source = source(&server.url, cursor());
    let mut incremental = incremental(Duration::ZERO);
    incremental.start = Some("2024-01-01T00:00:00Z".to_owned());
    let stream = &mut source.streams[0];
    stream.incremental = Some(incremental);
    stream.request.params = vec![
        ("limit".to_owned(), Secret::literal("2")),
        ("sort".to_owned(), Secret::literal("t")),
    ];
    extract(&source, Bookmark::default()).await.result.unwrap();
    let first = "limit=2&sort=t&since=2024-01-01T00%3A00%3A00Z";
    assert_eq!(server.queries(), [first.to_owned(), format!("{first}&cursor=B")]);
}

#[tokio::test]
async fn f053_a_cursor_of_the_far_future_does_not_become_the_watermark() {
    let server = Server::start(|_, _| {
        json(r#"{"data":[{"t":"2024-05-01T11:00:00Z"},{"t":"2999-01-01T00:00:00Z"},{"t":"2024-05-01T12:07:00Z"},{"t":"2024-05-01T12:04:00Z"}]}"#)
    })
    .await;
    let mut source = source(&server.url, cursor());
    source.streams[0].incremental = Some(incremental(Duration::ZERO));
    let outcome = extract(&source, Bookmark::default()).await;
    assert_eq!(outcome.records(), 4);
    assert_eq!(outcome.counts.cursors_future, 2);
    // Four minutes ahead of our clock is the server's clock, not a mistake.
    assert_eq!(
        outcome.bookmark().watermark.as_deref(),
        Some("2024-05-01T12:04:00Z")
    );
}

#[tokio::test]
async fn r068_the_watermark_is_the_data_and_not_the_clock() {
    let server = Server::start(|_, _| json(r#"{"data":[{"t":1700000000123}]}"#)).await;
    let mut source = source(&server.url, cursor());
    let mut incremental = incremental(Duration::from_secs(1));
    incremental.format = CursorFormat::EpochMillis;
    source.streams[0].incremental = Some(incremental);
    let outcome = extract(&source, Bookmark::default()).await;
    assert_eq!(outcome.bookmark().watermark.as_deref(), Some("1700000000123"));
    extract(&source, outcome.bookmark()).await.result.unwrap();
    assert_eq!(
        server.received()[1].param("since").as_deref(),
        Some("1699999999123")
    );
}

#[tokio::test]
async fn r065_extraction_resumes_at_the_next_page_whatever_the_paginator() {
    for (name, paginate) in paginators() {
        let server = Server::start(dialect(20, 3, &paginate)).await;
        let source = source(&server.url, paginate);
        let whole = extract(&source, Bookmark::default()).await;
        let requests = server.received().len();
        for stop in 0..whole.pages.len() - 1 {
            let before = server.received().len();
            let rest = extract(&source, whole.pages[stop].bookmark.clone()).await;
            rest.result.as_ref().unwrap();
            assert_eq!(
                rest.bodies(),
                whole.bodies()[stop + 1..],
                "{name} after page {stop}"
            );
            assert_eq!(
                server.received().len() - before,
                requests - stop - 1,
                "{name} after page {stop}"
            );
            assert_eq!(rest.bookmark().watermark, whole.bookmark().watermark);
        }
    }
}

#[tokio::test]
async fn r065_a_resumed_window_keeps_its_bound_and_its_greatest_cursor() {
    let server = Server::start(|_, _| json(r#"{"data":[{"t":"2024-04-01T00:00:00Z"}]}"#)).await;
    let mut source = source(&server.url, cursor());
    source.streams[0].incremental = Some(incremental(Duration::ZERO));
    let bookmark = Bookmark {
        watermark: Some("2024-03-01T00:00:00Z".to_owned()),
        window: Some(Window {
            since: Some("2024-02-28T00:00:00Z".to_owned()),
            next: "B".to_owned(),
            pages: 4,
            records: 9,
            cursor_max: Some("2024-04-20T00:00:00Z".to_owned()),
        }),
        last_success_at: None,
    };
    let outcome = extract(&source, bookmark).await;
    assert_eq!(server.queries(), ["since=2024-02-28T00%3A00%3A00Z&cursor=B"]);
    assert_eq!(
        outcome.bookmark().watermark.as_deref(),
        Some("2024-04-20T00:00:00Z")
    );
}

#[tokio::test]
async fn f049_an_expired_token_begins_the_window_again_once() {
    let server = Server::start(|_, received| match received.param("cursor").as_deref() {
        Some("stale") => status(410, "", b""),
        Some(_) => json(r#"{"data":[{"id":2}]}"#),
        None => json(r#"{"data":[{"id":1}],"next":"B"}"#),
    })
    .await;
    let source = source(&server.url, cursor());
    let window = Window {
        since: None,
        next: "stale".to_owned(),
        pages: 5,
        records: 5,
        cursor_max: None,
    };
    let bookmark = Bookmark {
        window: Some(window),
        ..Bookmark::default()
    };
    let outcome = extract(&source, bookmark).await;
    outcome.result.as_ref().unwrap();
    assert_eq!(seen(&outcome.bodies()), [1, 2]);
    assert_eq!(server.queries(), ["cursor=stale", "", "cursor=B"]);
    // A token of this very run is not given a second chance.
    let server = Server::start(|number, _| match number {
        0 => json(r#"{"data":[{}],"next":"B"}"#),
        _ => status(410, "", b""),
    })
    .await;
    let outcome = extract(&super::server::source(&server.url, cursor()), Bookmark::default()).await;
    assert_eq!((outcome.pages.len(), server.received().len()), (1, 2));
    assert!(outcome.result.is_err());
}

#[tokio::test]
async fn r065_a_token_of_another_paginator_begins_the_window_again() {
    let server = Server::start(dialect(
        2,
        3,
        &Paginate::Offset {
            to: query("at"),
            first: 0,
        },
    ))
    .await;
    let window = Window {
        since: None,
        next: "opaque".to_owned(),
        pages: 5,
        records: 5,
        cursor_max: None,
    };
    let bookmark = Bookmark {
        window: Some(window),
        ..Bookmark::default()
    };
    let outcome = extract(
        &source(
            &server.url,
            Paginate::Offset {
                to: query("at"),
                first: 0,
            },
        ),
        bookmark,
    )
    .await;
    assert_eq!(outcome.records(), 2);
}

#[tokio::test]
async fn r065_no_more_than_one_page_is_fetched_ahead() {
    let server = Server::start(|number, _| json(&format!(r#"{{"data":[{{}}],"next":{number}}}"#))).await;
    let mut extraction = extraction(&source(&server.url, cursor()), Bookmark::default());
    for taken in 1..20 {
        extraction.next().await.unwrap().unwrap();
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert!(server.received().len() <= taken + 1);
    }
}
