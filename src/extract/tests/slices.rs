//! Streams asked for in slices: order, marks, failures, passes.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value, json};

use super::server::{Handed, Outcome, Received, Server, cursor, incremental, json, now, source, status};
use crate::{
    config::{
        Source,
        paginate::Paginate,
        slice::{Patience, SliceBy, SliceState, Slicing},
        text::Text,
    },
    error::{ErrorKind, Result},
    extract::{
        sweep::{Slices, key},
        window::{Extraction, Position, Scope},
    },
    raw::Bookmark,
};

/// A stream over the shops `a`, `b` and so on, at `/shops/NAME`.
fn shops(server: &Server, paginate: Paginate, count: usize) -> Source {
    let mut source = source(&server.url, paginate);
    let names = ["a", "b", "c", "d", "e", "f"];
    let stream = &mut source.streams[0];
    stream.request.path = Text::parse("/shops/{{ slice.shop }}").unwrap();
    stream.slices = Some(Slicing {
        at_once: 2,
        ..Slicing::by(vec![SliceBy::List {
            name: "shop".to_owned(),
            values: names[..count].iter().map(|name| Text::literal(*name)).collect(),
        }])
    });
    source
}

fn listed(source: &Source) -> Vec<Map<String, Value>> {
    let Some(SliceBy::List { name, values }) = source.streams[0].slices.as_ref().map(|slices| &slices.by[0])
    else {
        panic!("a list")
    };
    let value = |text: &Text| Value::String(text.secret().reveal().unwrap());
    values
        .iter()
        .map(|text| Map::from_iter([(name.clone(), value(text))]))
        .collect()
}

/// Runs a pass until its end, its first error or `pages` pages.
async fn pass(source: &Source, bookmark: Bookmark, scope: Scope, pages: usize) -> (Outcome, Bookmark) {
    let slices = Slices::listed(listed(source).into_iter());
    let mut extraction: Extraction = super::server::extraction(source, bookmark)
        .with_scope(scope)
        .with_slices(slices);
    let progress = extraction.progress();
    let mut handed = Vec::new();
    let result: Result<()> = loop {
        if handed.len() == pages {
            break Ok(());
        }
        match extraction.next().await {
            Ok(Some(fetched)) if fetched.page.is_none() => {}
            Ok(Some(fetched)) => handed.push(Handed {
                page: fetched.page.unwrap(),
                records: fetched.records,
                bookmark: extraction.bookmark().clone(),
                position: fetched.position,
            }),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    let bookmark = extraction.bookmark().clone();
    let outcome = Outcome {
        pages: handed,
        result,
        counts: progress.counts(),
    };
    (outcome, bookmark)
}

async fn whole(source: &Source, bookmark: Bookmark) -> (Outcome, Bookmark) {
    pass(source, bookmark, Scope::Changes, usize::MAX).await
}

fn shop(received: &Received) -> &str {
    let path = received.target.split('?').next().unwrap();
    path.strip_prefix("/v1/shops/").unwrap()
}

/// Pages handed out per shop, by what the slice says.
fn pages(outcome: &Outcome) -> BTreeMap<String, Vec<String>> {
    let mut pages: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for handed in &outcome.pages {
        let slice = handed.page.facts.slice.as_ref().unwrap();
        let body = String::from_utf8(handed.page.body.to_vec()).unwrap();
        pages
            .entry(slice["shop"].as_str().unwrap().to_owned())
            .or_default()
            .push(body);
    }
    pages
}

#[tokio::test]
async fn every_slice_is_asked_for_and_its_pages_say_whose_they_are() {
    let server = Server::start(|_, received| match (shop(received), received.param("cursor")) {
        (shop, None) => json(&format!(r#"{{"data":[{{"id":1}}],"next":"{shop}2"}}"#)),
        (_, Some(token)) => json(&format!(r#"{{"data":[{{"token":"{token}"}}]}}"#)),
    })
    .await;
    let source = shops(&server, cursor(), 3);
    let (outcome, bookmark) = whole(&source, Bookmark::default()).await;
    outcome.result.as_ref().unwrap();
    let found = pages(&outcome);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(found["b"][1], r#"{"data":[{"token":"b2"}]}"#);
    assert!(
        outcome
            .pages
            .iter()
            .all(|handed| handed.position == Position::Middle)
    );
    assert_eq!((bookmark.pass, bookmark.slices.len()), (None, 0));
    assert!(bookmark.last_success_at.unwrap() >= now() && bookmark.complete_at.is_some());
}

#[tokio::test]
async fn a_pass_stopped_anywhere_goes_on_and_asks_no_page_twice() {
    for stop in 0..=8 {
        let server = Server::start(|_, received| match received.param("cursor") {
            None => json(r#"{"data":[{"id":1}],"next":"2"}"#),
            Some(_) => json(r#"{"data":[{"id":2}]}"#),
        })
        .await;
        let source = shops(&server, cursor(), 4);
        let (first, bookmark) = pass(&source, Bookmark::default(), Scope::Changes, stop).await;
        let stored = serde_json::to_string(&bookmark).unwrap();
        let (rest, ended) = whole(&source, serde_json::from_str(&stored).unwrap()).await;
        rest.result.as_ref().unwrap();
        let mut found = pages(&first);
        for (shop, more) in pages(&rest) {
            found.entry(shop).or_default().extend(more);
        }
        assert_eq!(found.len(), 4, "stopped after {stop}");
        for (shop, bodies) in found {
            let expected = [r#"{"data":[{"id":1}],"next":"2"}"#, r#"{"data":[{"id":2}]}"#];
            assert_eq!(bodies, expected, "{shop}, stopped after {stop}");
        }
        assert_eq!((ended.pass, ended.slices.len()), (None, 0));
    }
}

#[tokio::test]
async fn one_failing_slice_holds_no_other_and_is_asked_for_again() {
    let server = Server::start(|number, received| match shop(received) {
        "b" if number < 6 => status(403, "", b""),
        _ => json(r#"{"data":[{"id":1,"t":"2024-05-01T10:00:00Z"}]}"#),
    })
    .await;
    let mut source = shops(&server, Paginate::Single, 3);
    source.streams[0].incremental = Some(incremental(Duration::ZERO));
    let (outcome, bookmark) = whole(&source, Bookmark::default()).await;
    let error = outcome.error();
    assert!(error.contains("failed: 1") && error.contains("of: 3"), "{error}");
    assert_eq!(pages(&outcome).keys().collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!((bookmark.pass.is_none(), bookmark.last_success_at), (true, None));
    let marks = &bookmark.slices;
    let mark = |shop: &str| &marks[&key(json!({"shop": shop}).as_object().unwrap())];
    assert_eq!(mark("a").watermark.as_deref(), Some("2024-05-01T10:00:00Z"));
    assert_eq!(
        (mark("b").watermark.as_deref(), mark("b").failed.is_some()),
        (None, true)
    );

    // It keeps failing, and the others go on from where they are.
    let (outcome, bookmark) = whole(&source, bookmark).await;
    assert!(outcome.result.is_err());
    let since = |shop_name: &str, number: usize| {
        let all: Vec<Received> = server.received();
        let of = all.iter().filter(|received| shop(received) == shop_name);
        of.map(|received| received.param("since")).nth(number).unwrap()
    };
    assert_eq!(since("c", 1).as_deref(), Some("2024-05-01T10:00:00Z"));
    let (outcome, bookmark) = whole(&source, bookmark).await;
    outcome.result.unwrap();
    assert_eq!(since("b", 2), None);
    assert!(bookmark.last_success_at.is_some());
    assert!(bookmark.slices.values().all(|mark| mark.failed.is_none()));
}

#[tokio::test]
async fn a_failed_slice_that_no_parent_names_any_more_is_asked_for_too() {
    let server = Server::start(|number, _| match number {
        0 => status(400, "", b""),
        _ => json(r#"{"data":[{"id":1}]}"#),
    })
    .await;
    let mut source = shops(&server, Paginate::Single, 1);
    let (_, bookmark) = whole(&source, Bookmark::default()).await;
    source.streams[0].slices.as_mut().unwrap().by = vec![SliceBy::List {
        name: "shop".to_owned(),
        values: vec![Text::literal("z")],
    }];
    let (outcome, bookmark) = whole(&source, bookmark).await;
    outcome.result.as_ref().unwrap();
    assert_eq!(pages(&outcome).keys().collect::<Vec<_>>(), ["a", "z"]);
    assert_eq!(bookmark.slices.len(), 0);
}

#[tokio::test]
async fn a_shared_watermark_moves_when_every_slice_is_done() {
    let server = Server::start(|_, received| {
        let hour = if shop(received) == "a" { 11 } else { 9 };
        json(&format!(r#"{{"data":[{{"t":"2024-05-01T{hour:02}:00:00Z"}}]}}"#))
    })
    .await;
    let mut source = shops(&server, Paginate::Single, 2);
    source.streams[0].incremental = Some(incremental(Duration::ZERO));
    source.streams[0].slices.as_mut().unwrap().state = SliceState::Shared;
    source.streams[0].slices.as_mut().unwrap().at_once = 1;
    let (_, stopped) = pass(&source, Bookmark::default(), Scope::Changes, 1).await;
    assert_eq!((stopped.watermark.as_deref(), stopped.slices.len()), (None, 0));
    let (_, bookmark) = whole(&source, stopped).await;
    assert_eq!(bookmark.watermark.as_deref(), Some("2024-05-01T11:00:00Z"));
    whole(&source, bookmark).await.0.result.unwrap();
    let last = server.received().pop().unwrap();
    assert_eq!(last.param("since").as_deref(), Some("2024-05-01T11:00:00Z"));
}

#[tokio::test]
async fn marks_are_kept_within_bounds() {
    let server = Server::start(|_, _| json(r#"{"data":[{"t":"2024-05-01T10:00:00Z"}]}"#)).await;
    let mut source = shops(&server, Paginate::Single, 6);
    source.streams[0].incremental = Some(incremental(Duration::ZERO));
    source.streams[0].slices.as_mut().unwrap().kept_max = 2;
    let (outcome, bookmark) = whole(&source, Bookmark::default()).await;
    outcome.result.unwrap();
    assert_eq!(server.received().len(), 6);
    assert!(
        (1..=2).contains(&bookmark.slices.len()),
        "{}",
        bookmark.slices.len()
    );
}

#[tokio::test]
async fn too_many_slices_are_an_error_and_not_a_short_pass() {
    let server = Server::start(|_, _| json(r#"{"data":[]}"#)).await;
    let mut source = shops(&server, Paginate::Single, 3);
    source.streams[0].slices.as_mut().unwrap().slices_max = 2;
    let (outcome, bookmark) = whole(&source, Bookmark::default()).await;
    assert!(outcome.error().contains("slices_max: 2"), "{}", outcome.error());
    assert!(bookmark.pass.is_some());
    assert_eq!(bookmark.last_success_at, None);
}

#[tokio::test]
async fn a_complete_pass_asks_every_slice_for_everything() {
    let server = Server::start(|_, _| json(r#"{"data":[{"t":"2024-05-01T10:00:00Z"}]}"#)).await;
    let mut source = shops(&server, Paginate::Single, 2);
    source.streams[0].incremental = Some(incremental(Duration::ZERO));
    let (_, bookmark) = whole(&source, Bookmark::default()).await;
    let (outcome, bookmark) = pass(&source, bookmark, Scope::Complete, usize::MAX).await;
    outcome.result.unwrap();
    assert!(
        server.received()[2..]
            .iter()
            .all(|received| received.param("since").is_none())
    );
    assert_eq!(bookmark.slices.len(), 2);
}

#[tokio::test]
async fn a_reference_that_cannot_be_read_is_for_no_slice_to_blame() {
    let server = Server::start(|_, _| json(r#"{"data":[]}"#)).await;
    let mut source = shops(&server, Paginate::Single, 3);
    let stream = &mut source.streams[0];
    stream.slices.as_mut().unwrap().patience = Some(Patience::DEFAULT);
    let key = Text::parse("${env:LANDFALL_NOT_SET}").unwrap();
    stream.request.headers.push(("X-Key".to_owned(), key));
    let (outcome, bookmark) = whole(&source, Bookmark::default()).await;
    assert_eq!(outcome.result.unwrap_err().kind(), ErrorKind::Config);
    assert_eq!((bookmark.dead.len(), server.received().len()), (0, 0));
    assert!(bookmark.pass.is_some());
}
