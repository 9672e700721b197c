//! Where windows begin, resume and end: bounds, watermarks, stored tokens.

use crate::config::paginate::OffsetStep;
use crate::config::paginate::OnFirst;
use crate::config::paginate::Paging;
use crate::config::text::Text;
use std::time::Duration;

use super::{
    dialect::{dialect, paginators, query, seen},
    server::{
        Server, cursor, extract, extraction, incremental, json, json_with, now, path, source, status,
        try_extraction,
    },
};
use crate::{
    config::{
        incremental::{CursorFormat, Moment},
        paginate::Paginate,
        parse_timestamp,
        request::Place,
    },
    error::ErrorKind,
    extract::window::{LOOKAHEAD_BYTES_MAX, LOOKAHEAD_PAGES_MAX},
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
    incremental.start = vec![Moment::At("2024-01-01T00:00:00Z".to_owned())];
    let stream = &mut source.streams[0];
    stream.incremental = Some(incremental);
    stream.request.params = vec![
        ("limit".to_owned(), Text::literal("2")),
        ("sort".to_owned(), Text::literal("t")),
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
    // Four minutes ahead of our clock is the server's clock, not a mistake; what changes until then is asked for again.
    let watermark = parse_timestamp(&outcome.bookmark().watermark.unwrap()).unwrap();
    assert!(
        (now()..now() + Duration::from_secs(60)).contains(&watermark),
        "{watermark}"
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
            ..Window::default()
        }),
        ..Bookmark::default()
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
        ..Window::default()
    };
    let bookmark = Bookmark {
        window: Some(window),
        ..Bookmark::default()
    };
    let outcome = extract(&source, bookmark).await;
    outcome.result.as_ref().unwrap();
    assert_eq!(seen(&outcome.bodies()), [1, 2]);
    assert_eq!(server.queries(), ["cursor=stale", "", "cursor=B"]);
    // A token of this very run may expire once too, and not twice.
    let server = Server::start(|number, _| match number {
        0 | 2 => json(r#"{"data":[{}],"next":"B"}"#),
        _ => status(410, "", b""),
    })
    .await;
    let outcome = extract(&super::server::source(&server.url, cursor()), Bookmark::default()).await;
    assert_eq!((outcome.pages.len(), server.received().len()), (2, 4));
    assert!(
        outcome.error().contains("expires before it is used"),
        "{}",
        outcome.error()
    );
}

#[tokio::test]
async fn r065_a_token_of_another_paginator_begins_the_window_again() {
    let server = Server::start(dialect(
        2,
        3,
        &Paginate::Offset {
            to: query("at"),
            first: 0,
            on_first: OnFirst::Sent,
            step: OffsetStep::Records,
        },
    ))
    .await;
    let window = Window {
        since: None,
        next: "opaque".to_owned(),
        pages: 5,
        records: 5,
        ..Window::default()
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
                on_first: OnFirst::Sent,
                step: OffsetStep::Records,
            },
        ),
        bookmark,
    )
    .await;
    assert_eq!(outcome.records(), 2);
}

#[tokio::test]
async fn r065_only_a_few_pages_are_fetched_ahead() {
    let server =
        Server::start(|number, _| json(&format!(r#"{{"data":[{{"id":{number}}}],"next":{number}}}"#))).await;
    let mut extraction = extraction(&source(&server.url, cursor()), Bookmark::default());
    for taken in 1..20 {
        extraction.next().await.unwrap().unwrap();
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert!(server.received().len() <= taken + LOOKAHEAD_PAGES_MAX);
    }
}

#[tokio::test]
async fn r065_of_large_pages_none_is_fetched_while_another_waits_for_room() {
    let text = "x".repeat(LOOKAHEAD_BYTES_MAX as usize / 2 + 1);
    let server =
        Server::start(move |number, _| json(&format!(r#"{{"data":[{{"id":"{text}"}}],"next":{number}}}"#)))
            .await;
    let mut source = source(&server.url, cursor());
    source.limits.page_bytes_max = 4 * u64::from(LOOKAHEAD_BYTES_MAX);
    source.limits.held_bytes_max = source.limits.page_bytes_max;
    source.limits.part_bytes = source.limits.page_bytes_max;
    let mut extraction = extraction(&source, Bookmark::default());
    for taken in 1..3 {
        extraction.next().await.unwrap().unwrap();
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        // One has a place, one waits for it.
        assert!(server.received().len() <= taken + 2);
    }
}

#[tokio::test]
async fn r057_a_change_during_the_window_is_asked_for_again() {
    let server = Server::start(|number, _| match number {
        // The second page is sorted behind a record that changed after the first one was read.
        0 => json_with(
            r#"{"data":[{"t":"2024-05-01T10:00:00Z"}],"next":"B"}"#,
            "date: Wed, 01 May 2024 11:58:00 GMT\r\n",
        ),
        1 => json_with(
            r#"{"data":[{"t":"2024-05-01T11:59:30Z"}]}"#,
            "date: Wed, 01 May 2024 11:30:00 GMT\r\n",
        ),
        _ => json(r#"{"data":[]}"#),
    })
    .await;
    let mut source = source(&server.url, cursor());
    source.streams[0].incremental = Some(incremental(Duration::ZERO));
    let whole = extract(&source, Bookmark::default()).await;
    let first = whole.pages[0].bookmark.clone();
    let watermark = Some("2024-05-01T11:58:00Z");
    assert_eq!(whole.bookmark().watermark.as_deref(), watermark);
    assert_eq!(
        first.window.as_ref().unwrap().opened_at,
        parse_timestamp("2024-05-01T11:58:00Z").ok()
    );
    // A window without news, and one whose news are older than what is known, move nothing.
    let later = extract(&source, whole.bookmark()).await;
    assert_eq!(later.bookmark().watermark.as_deref(), watermark);
    assert_eq!(server.received()[2].param("since").as_deref(), watermark);
}

#[tokio::test]
async fn r057_the_watermark_is_capped_at_the_opening_of_a_window_that_is_resumed() {
    let answer = |_: usize, _: &_| json(r#"{"data":[{"t":"2024-05-01T11:00:00Z"}]}"#);
    let server = Server::start(answer).await;
    let mut source = source(&server.url, cursor());
    source.streams[0].incremental = Some(incremental(Duration::ZERO));
    let bookmark = |watermark: &str| Bookmark {
        watermark: Some(watermark.to_owned()),
        window: Some(Window {
            opened_at: parse_timestamp("2024-05-01T09:00:00.9Z").ok(),
            next: "B".to_owned(),
            cursor_max: Some("2024-05-01T08:00:00Z".to_owned()),
            ..Window::default()
        }),
        ..Bookmark::default()
    };
    for (known, expected) in [
        ("2024-05-01T07:00:00Z", "2024-05-01T09:00:00Z"),
        ("2024-05-01T10:00:00Z", "2024-05-01T10:00:00Z"),
    ] {
        let outcome = extract(&source, bookmark(known)).await;
        assert_eq!(outcome.bookmark().watermark.as_deref(), Some(expected));
    }
}

#[tokio::test]
async fn r057_a_counting_cursor_has_no_opening_moment() {
    let server = Server::start(|_, _| json(r#"{"data":[{"t":99999999999999999999}]}"#)).await;
    let mut source = source(&server.url, cursor());
    let mut incremental = incremental(Duration::ZERO);
    incremental.format = CursorFormat::Integer;
    source.streams[0].incremental = Some(incremental);
    let outcome = extract(&source, Bookmark::default()).await;
    assert_eq!(
        outcome.bookmark().watermark.as_deref(),
        Some("99999999999999999999")
    );
}

#[tokio::test]
async fn r065_a_window_of_another_request_begins_again_at_the_watermark() {
    let server = Server::start(|_, received| match received.param("cursor") {
        None => json(r#"{"data":[{"t":"2024-05-01T10:00:00Z"}],"next":"B"}"#),
        Some(_) => json(r#"{"data":[{"t":"2024-05-01T09:00:00Z"}]}"#),
    })
    .await;
    let mut source = source(&server.url, cursor());
    source.streams[0].incremental = Some(incremental(Duration::ZERO));
    let known = Bookmark {
        watermark: Some("2024-04-01T00:00:00Z".to_owned()),
        ..Bookmark::default()
    };
    let open = extract(&source, known).await.pages[0].bookmark.clone();
    assert!(open.window.is_some());
    extract(&source, open.clone()).await.result.unwrap();
    source.streams[0].request.params = vec![("status".to_owned(), Text::literal("paid"))];
    let outcome = extract(&source, open).await;
    let bound = "since=2024-04-01T00%3A00%3A00Z";
    assert_eq!(
        server.queries()[2..],
        [
            format!("{bound}&cursor=B"),
            format!("status=paid&{bound}"),
            format!("status=paid&{bound}&cursor=B"),
        ]
    );
    assert_eq!(
        outcome.bookmark().watermark.as_deref(),
        Some("2024-05-01T10:00:00Z")
    );
}

#[tokio::test]
async fn r057_a_watermark_of_another_cursor_is_refused() {
    let server = Server::start(|_, _| json(r#"{"data":[{"t":1700000000,"u":1}],"next":"B"}"#)).await;
    let mut source = source(&server.url, cursor());
    let mut seconds = incremental(Duration::ZERO);
    seconds.format = CursorFormat::EpochSeconds;
    let closed = {
        let mut single = source.clone();
        single.streams[0].paginate = Paging::plain(Paginate::Single);
        single.streams[0].incremental = Some(seconds.clone());
        extract(&single, Bookmark::default()).await.bookmark()
    };
    assert_eq!(closed.cursor.as_deref(), Some("$.t epoch_s"));
    source.streams[0].incremental = Some(seconds.clone());
    let open = extract(&source, closed.clone()).await.pages[0].bookmark.clone();
    let mut millis = seconds.clone();
    millis.format = CursorFormat::EpochMillis;
    let mut elsewhere = seconds;
    elsewhere.cursor = path("$.u");
    for (changed, name) in [(millis, "$.t epoch_ms"), (elsewhere, "$.u epoch_s")] {
        source.streams[0].incremental = Some(changed);
        for bookmark in [closed.clone(), open.clone()] {
            let error = try_extraction(&source, bookmark).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Config);
            let text = error.to_string();
            assert!(text.contains("stored: $.t epoch_s"), "{text}");
            assert!(text.contains(&format!("configured: {name}")), "{text}");
        }
    }
}

#[tokio::test]
async fn f044_the_run_after_a_cycle_asks_one_page_and_not_the_cycle() {
    let answer = |received: &super::server::Received| match received.param("cursor").as_deref() {
        None => "A",
        Some("A") => "B",
        Some("B") => "C",
        _ => "A",
    };
    let server = Server::start(move |_, received| {
        json(&format!(r#"{{"data":[{{}}],"next":"{}"}}"#, answer(received)))
    })
    .await;
    let source = source(&server.url, cursor());
    let first = extract(&source, Bookmark::default()).await;
    assert_eq!((first.pages.len(), server.received().len()), (4, 4));
    let window = first.bookmark().window.unwrap();
    assert_eq!(
        (window.next.as_str(), window.repeated.as_deref()),
        ("C", Some("A"))
    );
    for run in 1..3 {
        let again = extract(&source, first.bookmark()).await;
        assert_eq!(again.result.unwrap_err().kind(), ErrorKind::Refused);
        assert_eq!(server.received().len(), 4 + run);
        assert_eq!(server.queries()[3 + run], "cursor=C");
    }
    // Once the server is well, the window goes on.
    let well = Server::start(|number, _| match number {
        0 => json(r#"{"data":[{}],"next":"D"}"#),
        _ => json(r#"{"data":[{}]}"#),
    })
    .await;
    let mut repaired = source.clone();
    repaired.base_url = well.url.clone();
    let mut bookmark = first.bookmark();
    bookmark.window.as_mut().unwrap().shape = None;
    let rest = extract(&repaired, bookmark).await;
    rest.result.as_ref().unwrap();
    assert_eq!(well.queries(), ["cursor=C", "cursor=D"]);
    assert_eq!(rest.pages[0].bookmark.window.as_ref().unwrap().repeated, None);
    assert_eq!(rest.bookmark().window, None);
}

#[tokio::test]
async fn f043_a_last_page_without_records_that_repeats_its_token_is_the_end() {
    for paginate in [
        cursor(),
        Paginate::NextUrl {
            from: Place::Body(path("$.url")),
        },
    ] {
        let server = Server::start(|number, _| match number {
            0 => json(r#"{"data":[{}],"next":"A","url":"?cursor=A"}"#),
            _ => json(r#"{"data":[],"next":"A","url":"?cursor=A"}"#),
        })
        .await;
        let outcome = extract(&source(&server.url, paginate), Bookmark::default()).await;
        outcome.result.as_ref().unwrap();
        assert_eq!((outcome.pages.len(), server.received().len()), (2, 2));
        assert_eq!(outcome.bookmark().window, None);
    }
}
