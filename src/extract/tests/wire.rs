//! What happens on the wire: cut, encoded, stalled, refused.

use std::{
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use url::Url;

use super::server::{Outcome, Reply, Server, channel, clock, extract, json, source, status, wire};
use crate::{
    config::paginate::Paginate,
    error::ErrorKind,
    extract::window::{Extraction, Position},
    raw::Bookmark,
};

const BODY: &str = r#"{"data":[{"id":1},{"id":2}]}"#;

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Extracts one page from a server that answers `bad` first and then a good page; returns the requests too.
async fn after(bad: impl Fn() -> Reply + Send + Sync + 'static) -> (Outcome, usize) {
    let server = Server::start(move |number, _| if number == 0 { bad() } else { json(BODY) }).await;
    let outcome = extract(&source(&server.url, Paginate::Single), Bookmark::default()).await;
    (outcome, server.received().len())
}

/// Extracts one page from a server that always answers `reply`.
async fn always(reply: impl Fn() -> Reply + Send + Sync + 'static) -> (Outcome, usize) {
    let server = Server::start(move |_, _| reply()).await;
    let outcome = extract(&source(&server.url, Paginate::Single), Bookmark::default()).await;
    (outcome, server.received().len())
}

fn assert_repeated_and_whole((outcome, requests): (Outcome, usize)) {
    outcome.result.as_ref().unwrap();
    let (last, before) = outcome.pages.split_last().unwrap();
    assert_eq!((&*last.page.body, requests), (BODY.as_bytes(), 2));
    assert_eq!(last.page.facts.attempts, 2);
    assert!(before.iter().all(|handed| handed.page.facts.superseded));
    assert_eq!(outcome.counts.retries, 1);
}

#[tokio::test]
async fn f035_a_truncated_gzip_body_is_fetched_again() {
    let encoded = gz(BODY.as_bytes());
    for end in [0, 5, encoded.len() / 2, encoded.len() - 8, encoded.len() - 1] {
        let cut = encoded[..end].to_vec();
        assert_repeated_and_whole(after(move || status(200, "content-encoding: gzip\r\n", &cut)).await);
    }
}

#[tokio::test]
async fn f036_a_cut_body_without_length_is_fetched_again() {
    for end in [0, 1, 10, BODY.len() - 1] {
        let answer = move || wire("HTTP/1.1 200 OK\nconnection: close\n\n", &BODY.as_bytes()[..end]);
        assert_repeated_and_whole(after(answer).await);
    }
}

#[tokio::test]
async fn f036_a_whole_body_without_length_is_taken() {
    let (outcome, requests) = always(|| wire("HTTP/1.0 200 OK\n\n", BODY.as_bytes())).await;
    assert_eq!((outcome.bodies(), requests), (vec![BODY], 1));
}

#[tokio::test]
async fn f036_a_cut_body_is_never_handed_out() {
    let (outcome, requests) = always(|| wire("HTTP/1.0 200 OK\n\n", &BODY.as_bytes()[..9])).await;
    assert_eq!((outcome.pages.len(), requests), (0, 3));
    assert_eq!(
        outcome.result.as_ref().unwrap_err().kind(),
        ErrorKind::Unavailable
    );
}

#[tokio::test]
async fn f037_a_body_short_of_its_length_is_fetched_again() {
    let head = format!("HTTP/1.1 200 OK\ncontent-length: {}\n\n", BODY.len());
    assert_repeated_and_whole(after(move || wire(&head, &BODY.as_bytes()[..BODY.len() - 1])).await);
}

#[tokio::test]
async fn f037_chunks_without_an_end_are_fetched_again() {
    let chunk = format!("{:x}\r\n{BODY}\r\n", BODY.len());
    let head = "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\n";
    let cut = chunk.clone();
    // The JSON is whole, the transfer is not: more could have followed.
    assert_repeated_and_whole(after(move || wire(head, cut.as_bytes())).await);
    let (outcome, requests) = always(move || wire(head, format!("{chunk}0\r\n\r\n").as_bytes())).await;
    assert_eq!((outcome.bodies(), requests), (vec![BODY], 1));
}

#[tokio::test]
async fn f038_multi_member_gzip_is_landed_whole() {
    let (front, back) = BODY.split_at(12);
    let encoded = [gz(front.as_bytes()), gz(back.as_bytes())].concat();
    let (outcome, _) = always(move || status(200, "content-encoding: gzip\r\n", &encoded)).await;
    assert_eq!(outcome.bodies(), [BODY]);
    assert_eq!(outcome.records(), 2);
}

#[tokio::test]
async fn f038_zstd_is_landed_decoded() {
    let encoded = zstd::encode_all(BODY.as_bytes(), 3).unwrap();
    let (outcome, _) = always(move || status(200, "content-encoding: zstd\r\n", &encoded)).await;
    assert_eq!(outcome.bodies(), [BODY]);
}

#[tokio::test]
async fn f038_a_coding_nobody_asked_for_fails_at_once() {
    let (outcome, requests) = always(|| status(200, "content-encoding: br\r\n", b"xx")).await;
    assert_eq!(requests, 1);
    assert_eq!(outcome.result.as_ref().unwrap_err().kind(), ErrorKind::Refused);
    assert!(
        outcome.error().contains("unknown content encoding \"br\""),
        "{}",
        outcome.error()
    );
}

#[tokio::test]
async fn f039_a_gzip_bomb_meets_a_limit_after_one_request() {
    let bomb = gz(&vec![b' '; 64 << 20]);
    assert!(bomb.len() < 100_000);
    let (outcome, requests) = always(move || status(200, "content-encoding: gzip\r\n", &bomb)).await;
    assert_eq!((outcome.pages.len(), requests), (0, 1));
    assert_eq!(outcome.result.as_ref().unwrap_err().kind(), ErrorKind::Limit);
    assert!(
        outcome.error().contains("decoded_too_large"),
        "{}",
        outcome.error()
    );
}

#[tokio::test]
async fn f050_a_page_over_the_limit_fails_before_it_is_read() {
    let (outcome, requests) = always(|| wire("HTTP/1.1 200 OK\ncontent-length: 2000000000\n\n", b"[")).await;
    assert_eq!(
        (outcome.result.unwrap_err().kind(), requests),
        (ErrorKind::Limit, 1)
    );
    let endless =
        |_: usize, _: &_| Reply::Stall([&b"HTTP/1.1 200 OK\r\n\r\n["[..], &[b' '; (1 << 20) + 1]].concat());
    let server = Server::start(endless).await;
    let outcome = extract(&source(&server.url, Paginate::Single), Bookmark::default()).await;
    assert_eq!(outcome.result.unwrap_err().kind(), ErrorKind::Limit);
}

#[tokio::test]
async fn r047_f059_a_stalled_server_is_left_after_the_read_timeout() {
    for sent in [&b""[..], b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"] {
        let server = Server::start(move |_, _| Reply::Stall(sent.to_vec())).await;
        let mut source = source(&server.url, Paginate::Single);
        source.timeouts.read = Duration::from_millis(150);
        source.streams[0].retry.attempts_max = 2;
        let began = Instant::now();
        let outcome = extract(&source, Bookmark::default()).await;
        let elapsed = began.elapsed();
        assert!(
            elapsed >= Duration::from_millis(300) && elapsed < Duration::from_secs(3),
            "{elapsed:?}"
        );
        assert_eq!(
            outcome.result.as_ref().unwrap_err().kind(),
            ErrorKind::Unavailable
        );
        assert!(outcome.error().contains("attempts: 2"), "{}", outcome.error());
        assert_eq!(server.received().len(), 2);
    }
}

#[tokio::test]
async fn r047_a_request_has_an_end_even_while_bytes_come() {
    let server =
        Server::start(|_, _| Reply::Stall(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_vec())).await;
    let mut source = source(&server.url, Paginate::Single);
    source.timeouts.total = Duration::from_millis(100);
    source.streams[0].retry.attempts_max = 1;
    let outcome = extract(&source, Bookmark::default()).await;
    assert!(
        outcome.error().contains("wait for the server"),
        "{}",
        outcome.error()
    );
}

#[tokio::test]
async fn f060_a_closed_port_is_tried_again_and_named() {
    let port = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = Url::parse(&format!("http://127.0.0.1:{port}")).unwrap();
    let outcome = extract(&source(&url, Paginate::Single), Bookmark::default()).await;
    assert_eq!(outcome.counts.requests, 3);
    assert_eq!(
        outcome.result.as_ref().unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert!(
        outcome.error().contains("connect to the server"),
        "{}",
        outcome.error()
    );
}

#[tokio::test]
async fn f060_a_server_that_does_not_speak_tls_is_asked_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("https://{}", listener.local_addr().unwrap())).unwrap();
    let answering = tokio::spawn(async move {
        let mut accepted = 0;
        while let Ok((mut socket, _)) = listener.accept().await {
            accepted += 1;
            assert_eq!(accepted, 1);
            let mut hello = [0; 512];
            let _ = socket.read(&mut hello).await;
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let outcome = extract(&source(&url, Paginate::Single), Bookmark::default()).await;
    answering.abort();
    assert_eq!(outcome.counts.requests, 1);
    assert_eq!(outcome.result.as_ref().unwrap_err().kind(), ErrorKind::Refused);
    assert!(
        outcome.error().contains("trust the server"),
        "{}",
        outcome.error()
    );
}

#[tokio::test]
async fn f040_a_page_that_is_not_json_is_tried_again_then_kept_as_evidence() {
    let html = "<html><body>Please log in</body></html>";
    for kind in ["text/html", "application/json"] {
        let (outcome, requests) =
            always(move || status(200, &format!("content-type: {kind}\r\n"), html.as_bytes())).await;
        assert_eq!(requests, 3);
        assert_eq!(outcome.bodies(), [html]);
        assert_eq!(
            outcome.pages[0].position,
            Position::Evidence("not JSON at byte 0".to_owned())
        );
        assert_eq!(outcome.pages[0].page.facts.attempts, 3);
        assert_eq!(outcome.bookmark(), Bookmark::default());
        assert_eq!(outcome.result.unwrap_err().kind(), ErrorKind::Refused);
    }
    assert_repeated_and_whole(after(move || status(200, "", html.as_bytes())).await);
}

#[tokio::test]
async fn f041_json_without_the_records_path_is_not_an_empty_page() {
    for body in [
        r#"{"error":"quota"}"#,
        r#"{"data":null}"#,
        "null",
        r#"{"data":{}}"#,
    ] {
        let (outcome, requests) = always(move || json(body)).await;
        assert_eq!((outcome.bodies(), requests), (vec![body], 1));
        assert_eq!(
            outcome.pages[0].position,
            Position::Evidence("records path missing".to_owned())
        );
        assert_eq!(outcome.bookmark(), Bookmark::default());
        let error = outcome.result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains("records path missing"), "{error}");
    }
}

#[tokio::test]
async fn f034_a_throttled_graphql_answer_is_asked_again_and_never_landed() {
    let throttled = r#"{"data":null,"errors":[{"type":"RATE_LIMITED"}]}"#;
    assert_repeated_and_whole(after(move || json(throttled)).await);
    let (outcome, requests) = always(move || json(throttled)).await;
    assert_eq!((outcome.pages.len(), requests), (0, 3));
    assert_eq!(outcome.result.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_repeated_and_whole(after(|| status(403, "retry-after: 0\r\n", b"")).await);
}

#[tokio::test]
async fn f042_no_content_fails_and_an_empty_list_ends() {
    let (outcome, requests) = always(|| wire("HTTP/1.1 204 No Content\n\n", b"")).await;
    assert_eq!((outcome.pages.len(), requests), (0, 1));
    assert_eq!(outcome.result.unwrap_err().kind(), ErrorKind::Refused);
    let (outcome, requests) = always(|| json("")).await;
    assert_eq!((outcome.pages.len(), requests), (0, 3));
    assert!(outcome.error().contains("empty body"), "{}", outcome.error());
    let (outcome, requests) = always(|| json(r#"{"data":[]}"#)).await;
    outcome.result.as_ref().unwrap();
    assert_eq!((outcome.records(), outcome.pages.len(), requests), (0, 1, 1));
    assert_eq!(outcome.pages[0].position, Position::Last);
}

#[tokio::test]
async fn r038_other_statuses_are_asked_exactly_once() {
    for code in [400, 401, 403, 404, 410, 422] {
        let (outcome, requests) = always(move || status(code, "", b"{}")).await;
        assert_eq!((outcome.pages.len(), requests), (0, 1));
        assert_eq!(outcome.result.as_ref().unwrap_err().kind(), ErrorKind::Refused);
        assert!(
            outcome.error().contains(&format!("status: {code}")),
            "{}",
            outcome.error()
        );
    }
    for code in [408, 429, 500, 502, 503, 504] {
        assert_repeated_and_whole(after(move || status(code, "", b"")).await);
    }
}

#[tokio::test]
async fn r036_f033_a_server_that_never_recovers_is_named_with_attempts_and_status() {
    let (outcome, requests) = always(|| status(429, "", b"")).await;
    assert_eq!((outcome.pages.len(), requests), (0, 3));
    let error = outcome.result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    assert!(text.contains("/v1/orders, attempts: 3, status: 429"), "{text}");
}

#[tokio::test]
async fn f032_a_retry_after_of_ages_fails_at_once() {
    let (outcome, requests) = always(|| status(503, "retry-after: 1000000000000\r\n", b"")).await;
    assert_eq!(requests, 1);
    let error = outcome.result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert!(
        error
            .to_string()
            .contains("retry_after_s: 1000000000000, retry_after_max_s: 300"),
        "{error}"
    );
}

#[tokio::test]
async fn f031_a_retry_after_in_the_past_is_no_wait() {
    assert_repeated_and_whole(after(|| status(429, "retry-after: Sun Nov  6 08:49:37 1994\r\n", b"")).await);
}

#[tokio::test]
async fn r042_a_429_of_one_stream_holds_the_others_of_the_credential() {
    let server = Server::start(|_, _| status(429, "retry-after: 100\r\n", b"")).await;
    let source = source(&server.url, Paginate::Single);
    let shared = channel(&source, &clock());
    let mut extraction = Extraction::new(
        &source,
        &source.streams[0],
        Arc::clone(&shared),
        clock(),
        Bookmark::default(),
    )
    .unwrap();
    let fetching = tokio::spawn(async move { extraction.next().await.map(|_| ()) });
    let held = async {
        loop {
            if !shared.wait_hint().is_zero() {
                break shared.wait_hint();
            }
            tokio::task::yield_now().await;
        }
    };
    let wait = tokio::time::timeout(Duration::from_secs(5), held).await.unwrap();
    assert!(wait > Duration::from_secs(99), "{wait:?}");
    fetching.abort();
    assert_eq!(server.received().len(), 1);
}
