//! Bodies that are not taken, and the answer to the same request that is.

use super::server::{Outcome, Server, channel, clock, cursor, extract, json, path, source, status};
use crate::{
    config::{
        paginate::Paginate,
        request::{Body, Method},
        slice::{SliceBy, Slicing},
        text::Text,
    },
    error::ErrorKind,
    extract::{
        sweep::Slices,
        window::{Extraction, Position},
    },
    raw::Bookmark,
};

const HTML: &str = "<html>busy</html>";
const CUT: &str = r#"{"data":[{"id":1},{"#;
const GOOD: &str = r#"{"data":[{"id":1}]}"#;

/// The bodies with the attempts they came at, whether another answer took their place, and what they are.
fn landed(outcome: &Outcome) -> Vec<(&str, u32, bool, &Position)> {
    let pages = outcome.pages.iter().zip(outcome.bodies());
    pages
        .map(|(handed, body)| {
            let facts = &handed.page.facts;
            (body, facts.attempts, facts.superseded, &handed.position)
        })
        .collect()
}

fn evidence(reason: &str) -> Position {
    Position::Evidence(reason.to_owned())
}

#[tokio::test]
async fn f063_bodies_that_differ_are_landed_with_their_attempts_before_the_page() {
    let server = Server::start(|number, _| match number {
        0 => json(r#"{"data":[{"id":0}],"next":"B"}"#),
        1 => status(200, "content-type: text/html\r\n", HTML.as_bytes()),
        2 => json(CUT),
        _ => json(GOOD),
    })
    .await;
    let outcome = extract(&source(&server.url, cursor()), Bookmark::default()).await;
    outcome.result.as_ref().unwrap();
    assert_eq!(
        landed(&outcome)[1..],
        [
            (HTML, 1, true, &evidence("not JSON at byte 0")),
            (CUT, 2, true, &evidence("not JSON at byte 19")),
            (GOOD, 3, false, &Position::Last),
        ]
    );
    let tokens = outcome
        .pages
        .iter()
        .map(|handed| handed.page.facts.token_used.as_deref());
    assert!(tokens.eq([None, Some("B"), Some("B"), Some("B")]));
    // Nothing moves by what is no page, and nothing counts twice.
    assert_eq!(outcome.pages[1].bookmark, outcome.pages[0].bookmark);
    assert_eq!(outcome.pages[2].bookmark, outcome.pages[0].bookmark);
    assert_eq!((outcome.records(), outcome.counts.records), (2, 2));
    assert_eq!((outcome.counts.pages, outcome.counts.requests), (4, 4));
}

#[tokio::test]
async fn f063_a_body_that_came_again_is_landed_once() {
    let html = || status(200, "", HTML.as_bytes());
    let server = Server::start(move |number, _| if number < 2 { html() } else { json(GOOD) }).await;
    let outcome = extract(&source(&server.url, cursor()), Bookmark::default()).await;
    assert_eq!(outcome.bodies(), [HTML, GOOD]);
    assert_eq!(outcome.pages[0].page.facts.attempts, 1);
}

#[tokio::test]
async fn f063_bodies_before_a_failure_are_landed_and_supersede_nothing() {
    let server = Server::start(|number, _| match number {
        0 => json(CUT),
        _ => status(503, "", b"down"),
    })
    .await;
    let outcome = extract(&source(&server.url, cursor()), Bookmark::default()).await;
    assert_eq!(
        landed(&outcome),
        [(CUT, 1, false, &evidence("not JSON at byte 19"))]
    );
    assert_eq!(outcome.bookmark(), Bookmark::default());
    assert_eq!(outcome.result.unwrap_err().kind(), ErrorKind::Unavailable);

    let server = Server::start(|number, _| match number {
        0 => json(CUT),
        _ => status(200, "", HTML.as_bytes()),
    })
    .await;
    let outcome = extract(&source(&server.url, cursor()), Bookmark::default()).await;
    assert_eq!(
        landed(&outcome),
        [
            (CUT, 1, false, &evidence("not JSON at byte 19")),
            (HTML, 3, false, &evidence("not JSON at byte 0")),
        ]
    );
    assert_eq!(outcome.result.unwrap_err().kind(), ErrorKind::Refused);
}

#[tokio::test]
async fn f063_data_with_errors_are_landed_beside_the_whole_answer() {
    let partial = r#"{"data":{"items":[{"id":1}]},"errors":[{"message":"no 2"}]}"#;
    let whole = r#"{"data":{"items":[{"id":1},{"id":2}]}}"#;
    let server = Server::start(move |number, _| json(if number == 0 { partial } else { whole })).await;
    let mut source = source(&server.url, Paginate::Single);
    let stream = &mut source.streams[0];
    stream.records = path("$.data.items[*]").into();
    stream.request.method = Method::Post;
    stream.request.body = Body::GraphQl {
        query: Text::literal("{items{id}}"),
        variables: Vec::new(),
        operation: None,
    };
    let outcome = extract(&source, Bookmark::default()).await;
    outcome.result.as_ref().unwrap();
    assert_eq!(
        landed(&outcome),
        [
            (partial, 1, true, &evidence("partial data")),
            (whole, 2, false, &Position::Last),
        ]
    );
    assert!(outcome.pages[0].page.facts.partial && !outcome.pages[1].page.facts.partial);
    // What was sent again is there twice; what it took its place of does not count for the window.
    assert_eq!((outcome.records(), outcome.counts.records), (3, 2));
}

#[tokio::test]
async fn f063_a_slice_that_failed_before_stays_so_until_its_page_comes() {
    let server = Server::start(|number, _| match number {
        0 => status(200, "", HTML.as_bytes()),
        _ => json(GOOD),
    })
    .await;
    let mut source = source(&server.url, cursor());
    source.streams[0].slices = Some(Slicing::by(vec![SliceBy::List {
        name: "of".to_owned(),
        values: vec![Text::literal("a")],
    }]));
    let values = serde_json::json!({"of": "a"}).as_object().unwrap().clone();
    let failed = serde_json::from_value(serde_json::json!({
        "changed_at": "2024-05-01T00:00:00Z", "failed": values,
    }))
    .unwrap();
    let bookmark = Bookmark {
        slices: [(r#"{"of":"a"}"#.to_owned(), failed)].into(),
        ..Bookmark::default()
    };
    let clock = clock();
    let channel = channel(&source, &clock);
    let mut extraction = Extraction::new(&source, &source.streams[0], channel, clock, bookmark)
        .unwrap()
        .with_slices(Slices::listed(std::iter::once(values)));
    let first = extraction.next().await.unwrap().unwrap();
    assert!(matches!(first.position, Position::Evidence(_)));
    assert_eq!(extraction.bookmark().slices.len(), 1);
    let second = extraction.next().await.unwrap().unwrap();
    assert_eq!(second.page.unwrap().body, GOOD);
    assert_eq!(extraction.bookmark().slices.len(), 0);
    assert!(extraction.next().await.unwrap().is_none());
}
