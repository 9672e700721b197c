//! Everything and changes from two endpoints, and watermarks that the API no longer reaches back to.

use std::time::Duration;

use super::server::{Server, cursor, extract, incremental, json, source, status};
use crate::{
    config::{
        Source,
        complete::Complete,
        incremental::OnExpired,
        paginate::{Paginate, Paging},
        request::Request,
        text::Text,
    },
    extract::window::Scope,
    raw::Bookmark,
};

/// Changes at `/orders` on one page, everything at `/all` on two.
async fn server() -> Server {
    Server::start(|_, received| match received.target.as_str() {
        "/v1/all" => json(r#"{"data":[{"id":1,"t":"2024-04-01T00:00:00Z"}],"next":"B"}"#),
        "/v1/all?cursor=B" => json(r#"{"data":[{"id":2,"t":"2024-04-02T00:00:00Z"}]}"#),
        "/v1/orders?since=2020-01-01T00%3A00%3A00Z" => status(410, "", b""),
        _ => json(r#"{"data":[]}"#),
    })
    .await
}

fn both(server: &Server) -> Source {
    let mut source = source(&server.url, Paginate::Single);
    let stream = &mut source.streams[0];
    stream.incremental = Some(incremental(Duration::ZERO));
    stream.complete = Some(Complete {
        request: Some(Request {
            path: Text::literal("/all"),
            ..stream.request.clone()
        }),
        paginate: Some(Paging::plain(cursor())),
    });
    source
}

fn at(watermark: &str) -> Bookmark {
    Bookmark {
        watermark: Some(watermark.to_owned()),
        ..Bookmark::default()
    }
}

fn targets(server: &Server) -> Vec<String> {
    let targets = server.received().into_iter().map(|received| received.target);
    targets.map(|target| target.replace("/v1", "")).collect()
}

const ALL: [&str; 2] = ["/all", "/all?cursor=B"];

#[tokio::test]
async fn everything_is_asked_of_one_endpoint_and_changes_of_another() {
    let server = server().await;
    let source = both(&server);
    let outcome = extract(&source, Bookmark::default()).await;
    outcome.result.as_ref().unwrap();
    assert_eq!(targets(&server), ALL);
    server.forget();
    // What was begun goes on where it was begun.
    let resumed = extract(&source, outcome.pages[0].bookmark.clone()).await;
    resumed.result.as_ref().unwrap();
    assert_eq!(targets(&server), ALL[1..]);
    server.forget();
    extract(&source, outcome.bookmark()).await.result.unwrap();
    assert_eq!(targets(&server), ["/orders?since=2024-04-02T00%3A00%3A00Z"]);
    server.forget();
    let mut whole = super::server::extraction(&source, outcome.bookmark()).with_scope(Scope::Complete);
    while whole.next().await.unwrap().is_some() {}
    assert_eq!(targets(&server), ALL);
}

#[tokio::test]
async fn after_a_position_expired_everything_is_asked_of_its_own_endpoint() {
    let server = server().await;
    let mut source = both(&server);
    source.streams[0].incremental.as_mut().unwrap().on_expired = OnExpired::Resync;
    let outcome = extract(&source, at("2020-01-01T00:00:00Z")).await;
    outcome.result.as_ref().unwrap();
    assert_eq!(targets(&server)[1..], ALL);
    assert_eq!(
        outcome.bookmark().watermark.as_deref(),
        Some("2024-04-02T00:00:00Z")
    );
}

#[tokio::test]
async fn a_watermark_older_than_what_the_api_keeps_is_not_asked_for() {
    let server = server().await;
    let mut source = both(&server);
    let settings = |source: &mut Source, on_expired| {
        let incremental = source.streams[0].incremental.as_mut().unwrap();
        incremental.retained = Some(Duration::from_secs(30 * 24 * 3600));
        incremental.on_expired = on_expired;
    };
    settings(&mut source, OnExpired::Stop);
    let stopped = extract(&source, at("2024-04-01T11:59:59Z")).await;
    let error = stopped.error();
    assert!(
        error.contains("cursor_expired") && error.contains("30d"),
        "{error}"
    );
    assert!(server.received().is_empty());
    extract(&source, at("2024-04-01T12:01:00Z")).await.result.unwrap();
    assert_eq!(targets(&server), ["/orders?since=2024-04-01T12%3A01%3A00Z"]);
    server.forget();
    settings(&mut source, OnExpired::Resync);
    let outcome = extract(&source, at("2024-04-01T11:59:59Z")).await;
    outcome.result.as_ref().unwrap();
    assert_eq!(targets(&server), ALL);
    assert_eq!(
        outcome.bookmark().watermark.as_deref(),
        Some("2024-04-02T00:00:00Z")
    );
}
