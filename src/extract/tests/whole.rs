//! Whether a pass over everything can tell what is gone: what was ignored, short or shifting is known to its end.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{
    dialect::{ids, query},
    server::{Received, Reply, Server, cursor, extraction, incremental, json, path, source, status},
};
use crate::{
    config::{
        Source,
        errors::{Action, ErrorRule},
        incremental::{Moment, Step, Until},
        paginate::{OffsetStep, OnFirst, Paginate},
        request::Place,
        slice::{SliceBy, Slicing},
        text::Text,
    },
    extract::{
        sweep::Slices,
        window::{Extraction, Scope},
    },
    raw::{Bookmark, pass::Tally},
};

fn ignore(code: u16) -> ErrorRule {
    ErrorRule {
        status: vec![(code, code)],
        header: None,
        body: None,
        when: None,
        then: Action::Ignore,
        wait: Vec::new(),
        message: None,
    }
}

/// Takes so many pages, or all, and returns where the extraction stands as a log entry would keep it.
async fn run(mut extraction: Extraction, pages: usize) -> Bookmark {
    for _ in 0..pages {
        if extraction.next().await.unwrap().is_none() {
            break;
        }
    }
    let text = serde_json::to_string(extraction.bookmark()).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn doubt(bookmark: &Bookmark) -> Option<&'static str> {
    assert!(bookmark.complete_at.is_some());
    bookmark.last_pass.unwrap().doubt()
}

#[tokio::test]
async fn a_pass_with_an_ignored_answer_ends_and_is_in_doubt() {
    let answer = |number: usize, _: &Received| match number {
        0 => json(r#"{"data":[{"id":1}],"next":"B"}"#),
        1 => status(404, "", b"no such page"),
        2 => json(r#"{"data":[{"id":1}],"next":"B"}"#),
        _ => json(r#"{"data":[{"id":2}]}"#),
    };
    let server = Server::start(answer).await;
    let mut source = source(&server.url, cursor());
    source.errors = vec![ignore(404)];
    let bookmark = run(extraction(&source, Bookmark::default()), 9).await;
    assert_eq!(
        bookmark.last_pass,
        Some(Tally {
            records: 1,
            ignored: 1,
            ..Tally::default()
        })
    );
    assert_eq!(doubt(&bookmark), Some("an error rule ignored answers of it"));
    // The next pass is judged on its own.
    let bookmark = run(extraction(&source, bookmark), 9).await;
    assert_eq!(bookmark.last_pass.unwrap().records, 2);
    assert_eq!(doubt(&bookmark), None);
}

/// A stream over the shops `a`, `b` and `c`, one after the other.
fn shops(server: &Server) -> (Source, Vec<Map<String, Value>>) {
    let names = ["a", "b", "c"];
    let mut source = source(&server.url, cursor());
    source.errors = vec![ignore(404)];
    let stream = &mut source.streams[0];
    stream.request.path = Text::parse("/shops/{{ slice.shop }}").unwrap();
    stream.slices = Some(Slicing {
        at_once: 1,
        ..Slicing::by(vec![SliceBy::List {
            name: "shop".to_owned(),
            values: names.iter().map(|name| Text::literal(*name)).collect(),
        }])
    });
    let value = |name: &str| Map::from_iter([("shop".to_owned(), Value::String(name.to_owned()))]);
    (source, names.into_iter().map(value).collect())
}

fn shop(_: usize, received: &Received) -> Reply {
    match received.target.as_str() {
        "/v1/shops/b" => status(404, "", b"closed"),
        "/v1/shops/c" => json(r#"{"data":[{"id":3}],"next":"B"}"#),
        _ => json(r#"{"data":[{"id":1}]}"#),
    }
}

#[tokio::test]
async fn an_answer_ignored_in_an_earlier_run_is_known_to_the_end_of_the_pass() {
    let server = Server::start(shop).await;
    let (source, slices) = shops(&server);
    let listed = || Slices::listed(slices.clone().into_iter());
    // The run ends after the first page of the last shop.
    let bookmark = run(extraction(&source, Bookmark::default()).with_slices(listed()), 2).await;
    let pass = bookmark.pass.as_ref().unwrap();
    assert_eq!((pass.done.count(), pass.tally.ignored), (2, 1));
    assert_eq!(bookmark.last_pass, None);
    server.forget();
    let bookmark = run(extraction(&source, bookmark).with_slices(listed()), 9).await;
    assert_eq!(server.queries(), ["cursor=B"]);
    assert_eq!(bookmark.last_pass.unwrap().ignored, 1);
    assert!(doubt(&bookmark).is_some());
}

/// Two windows of a day each, with a list that is paged by position.
fn days(server: &Server) -> Source {
    let mut source = source(
        &server.url,
        Paginate::Offset {
            to: query("at"),
            first: 0,
            on_first: OnFirst::Sent,
            step: OffsetStep::Records,
        },
    );
    let mut incremental = incremental(Duration::ZERO);
    incremental.start = vec![Moment::At("2024-04-29T00:00:00Z".to_owned())];
    incremental.until = Some(Until {
        to: query("until"),
        step: Some(Step::Fixed(Duration::from_secs(86_400))),
        align: None,
        end: vec![Moment::At("2024-05-01T00:00:00Z".to_owned())],
        granularity: Duration::ZERO,
        split_min: Duration::ZERO,
    });
    source.streams[0].incremental = Some(incremental);
    source.streams[0].paginate.total = Some(Place::Body(path("$.total")));
    source
}

/// Of each day two pages; `total` of the first day changes, or is never reached.
fn day(totals: [u64; 2]) -> impl Fn(usize, &Received) -> Reply {
    move |_, received| {
        let first = received.param("until").unwrap().starts_with("2024-04-30");
        let at: usize = received.param("at").unwrap().parse().unwrap();
        let total = if first { totals[usize::from(at > 0)] } else { 4 };
        let base = if first { 0 } else { 100 };
        let to = (at + 2).min(4);
        json(&format!(
            r#"{{"data":{},"total":{total}}}"#,
            ids(base + at.min(to), base + to)
        ))
    }
}

#[tokio::test]
async fn f048_what_shifted_in_a_window_of_an_earlier_run_is_known_to_the_end_of_the_pass() {
    let table = [
        ([4, 4], None, false, 0),
        ([5, 4], Some("its pages shifted while they were read"), true, 1),
        (
            [6, 6],
            Some("the server sent fewer records than it declared"),
            false,
            1,
        ),
    ];
    for (totals, expected, unstable, alarms) in table {
        let server = Server::start(day(totals)).await;
        let source = days(&server);
        let complete = |bookmark| extraction(&source, bookmark).with_scope(Scope::Complete);
        // The run ends after the first page of the second day.
        let mut bookmark = run(complete(Bookmark::default()), 4).await;
        assert_eq!(bookmark.window.as_ref().unwrap().pages, 1);
        assert_eq!(bookmark.window.as_ref().unwrap().earlier.records, 4);
        // Nothing but the window itself remembers.
        bookmark.unstable = false;
        let bookmark = run(complete(bookmark), 9).await;
        assert_eq!(bookmark.window, None);
        assert_eq!(
            (doubt(&bookmark), bookmark.unstable),
            (expected, unstable),
            "{totals:?}"
        );
        assert_eq!(bookmark.records, Some(8), "{totals:?}");
        assert_eq!(bookmark.alarms.len(), alarms, "{:?}", bookmark.alarms);
        // A pass in which all is well ends the doubt.
        let server = Server::start(day([4, 4])).await;
        let bookmark = run(
            extraction(&days(&server), bookmark).with_scope(Scope::Complete),
            99,
        )
        .await;
        assert_eq!((doubt(&bookmark), bookmark.unstable), (None, false));
    }
}
