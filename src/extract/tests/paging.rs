//! Paginators on the wire: what is sent, where it ends, what is kept.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use serde_json::{Value, json as value};

use super::{
    dialect::{ids, query, seen},
    server::{Server, extract, incremental, json, path, source},
};
use crate::{
    config::{
        Source,
        incremental::{Moment, Step, Until},
        paginate::{OffsetStep, OnFirst, Paginate},
        request::{Body, Method, Place, TokenSlot},
        text::Text,
    },
    error::ErrorKind,
    raw::Bookmark,
};

/// A stream that asks for a connection, ten at a time.
fn graphql(url: &url::Url, paginate: Paginate) -> Source {
    let mut source = source(url, paginate);
    let stream = &mut source.streams[0];
    stream.request.method = Method::Post;
    stream.request.body = Body::GraphQl {
        query: Text::literal("query($after: String) { orders(first: 3, after: $after) { nodes { id } } }"),
        variables: Vec::new(),
        operation: None,
    };
    stream.records = path("$.data.orders.nodes[*]").into();
    source
}

fn relay() -> Paginate {
    Paginate::Relay {
        connection: path("$.data.orders"),
        to: TokenSlot::BodyField(vec!["variables".to_owned(), "after".to_owned()]),
    }
}

fn connection(from: usize, to: usize, has_next: bool, cursor: Value) -> super::server::Reply {
    let info = value!({"hasNextPage": has_next, "endCursor": cursor});
    json(&format!(
        r#"{{"data":{{"orders":{{"nodes":{},"pageInfo":{info}}}}}}}"#,
        ids(from, to)
    ))
}

#[tokio::test]
async fn r012_a_relay_connection_is_followed_by_its_cursors() {
    for paginate in [relay(), Paginate::Auto] {
        let server = Server::start(|number, _| match number {
            0 => connection(0, 3, true, value!("c=3")),
            1 => connection(3, 6, true, value!("c=6")),
            // The cursor of the last page leads nowhere.
            _ => connection(6, 7, false, value!("c=7")),
        })
        .await;
        let outcome = extract(&graphql(&server.url, paginate), Bookmark::default()).await;
        outcome.result.as_ref().unwrap();
        assert_eq!(outcome.records(), 7);
        let after: Vec<Value> = server
            .received()
            .iter()
            .map(|received| {
                serde_json::from_str::<Value>(&received.body).unwrap()["variables"]["after"].clone()
            })
            .collect();
        assert_eq!(after, [value!(null), value!("c=3"), value!("c=6")]);
    }
}

#[tokio::test]
async fn f047_a_next_page_without_a_cursor_is_an_error_and_what_came_is_kept() {
    let server = Server::start(|number, _| match number {
        0 => connection(0, 3, true, value!("c=3")),
        _ => connection(3, 6, true, value!(null)),
    })
    .await;
    let outcome = extract(&graphql(&server.url, relay()), Bookmark::default()).await;
    assert_eq!(outcome.result.as_ref().unwrap_err().kind(), ErrorKind::Refused);
    assert!(
        outcome
            .error()
            .contains("hasNextPage is true and endCursor is empty")
    );
    assert_eq!(outcome.bookmark().window.unwrap().next, r#""c=3""#);
    assert_eq!(server.received().len(), 2);
}

#[tokio::test]
async fn f045_a_server_that_ignores_the_token_is_left_after_a_few_pages() {
    let server =
        Server::start(|number, _| json(&format!(r#"{{"data":{},"next":"t{number}"}}"#, ids(0, 3)))).await;
    let paginate = Paginate::Cursor {
        from: Place::Body(path("$.next")),
        to: query("cursor"),
    };
    let outcome = extract(&source(&server.url, paginate), Bookmark::default()).await;
    assert_eq!(outcome.result.as_ref().unwrap_err().kind(), ErrorKind::Refused);
    let error = outcome.error();
    assert!(error.contains("page: 5, same as page: 1"), "{error}");
    assert_eq!(server.received().len(), 5);
}

#[tokio::test]
async fn r011_auto_is_found_out_once_and_kept_across_runs() {
    let served = |at: usize| {
        let next = if at < 6 {
            format!(r#","next_cursor":"{}""#, at + 3)
        } else {
            String::new()
        };
        json(&format!(r#"{{"data":{}{next}}}"#, ids(at, at + 3)))
    };
    let server = Server::start(move |_, received| {
        served(received.param("cursor").map_or(0, |at| at.parse().unwrap()))
    })
    .await;
    let source = source(&server.url, Paginate::Auto);
    let outcome = extract(&source, Bookmark::default()).await;
    outcome.result.as_ref().unwrap();
    assert_eq!(seen(&outcome.bodies()), (0..9).collect::<Vec<u64>>());
    let kept = outcome.bookmark().paginator.unwrap();
    assert!(kept.contains(r#""param":"cursor""#), "{kept}");

    // The last page alone shows no paginator: one that was found before is needed to go on from the middle.
    let middle = outcome.pages[0].bookmark.clone();
    let outcome = extract(&source, middle).await;
    assert_eq!(seen(&outcome.bodies()), (3..9).collect::<Vec<u64>>());
}

#[tokio::test]
async fn r030_auto_that_shows_nothing_is_looked_at_again() {
    let runs = AtomicUsize::new(0);
    let server = Server::start(
        move |_, received| match (runs.load(Relaxed), received.param("page")) {
            (0, None) => {
                runs.store(1, Relaxed);
                json(&format!(r#"{{"data":{},"next":null}}"#, ids(0, 2)))
            }
            (_, None) => json(&format!(r#"{{"data":{},"next":"/v1/orders?page=2"}}"#, ids(0, 3))),
            (_, Some(_)) => json(&format!(r#"{{"data":{},"next":null}}"#, ids(3, 4))),
        },
    )
    .await;
    let source = source(&server.url, Paginate::Auto);
    let first = extract(&source, Bookmark::default()).await;
    first.result.as_ref().unwrap();
    assert_eq!((first.records(), first.bookmark().paginator), (2, None));
    let second = extract(&source, first.bookmark()).await;
    second.result.as_ref().unwrap();
    assert_eq!(seen(&second.bodies()), [0, 1, 2, 3]);
    assert!(second.bookmark().paginator.is_some());
}

#[tokio::test]
async fn r011_a_token_stands_in_the_path_where_a_template_names_it() {
    let server = Server::start(|_, received| match received.target.as_str() {
        "/v1/orders" => json(&format!(r#"{{"data":{}}}"#, ids(0, 2))),
        "/v1/orders/after/1" => json(&format!(r#"{{"data":{}}}"#, ids(2, 3))),
        "/v1/orders/after/2" => json(r#"{"data":[]}"#),
        other => panic!("{other}"),
    })
    .await;
    let paginate = Paginate::Keyset {
        key: path("$.id"),
        to: TokenSlot::Template,
    };
    let mut source = source(&server.url, paginate);
    let template = "/orders{% if page.token %}/after/{{ page.token }}{% endif %}";
    source.streams[0].request.path = Text::parse(template).unwrap();
    let outcome = extract(&source, Bookmark::default()).await;
    outcome.result.as_ref().unwrap();
    assert_eq!(seen(&outcome.bodies()), [0, 1, 2]);
}

#[tokio::test]
async fn r028_two_keys_make_ties_harmless() {
    // Five records share one time, and a page holds two.
    let server = Server::start(|_, received| {
        let after = received.param("after").map(|text| {
            let (time, id) = text.split_once(',').unwrap();
            (time.parse::<u64>().unwrap(), id.parse::<u64>().unwrap())
        });
        let all = (0..9_u64).map(|id| (id / 5, id));
        let page: Vec<Value> = all
            .filter(|key| after.is_none_or(|after| *key > after))
            .take(2)
            .map(|(time, id)| value!({"id": id, "t": time}))
            .collect();
        json(&value!({"data": page}).to_string())
    })
    .await;
    let paginate = Paginate::Template {
        token: Text::parse("{% if last_record %}{{ last_record.t }},{{ last_record.id }}{% endif %}")
            .unwrap(),
        to: query("after"),
    };
    let outcome = extract(&source(&server.url, paginate), Bookmark::default()).await;
    outcome.result.as_ref().unwrap();
    let mut records = Vec::new();
    for body in outcome.bodies() {
        let body: Value = serde_json::from_str(body).unwrap();
        records.extend(
            body["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|record| record["id"].as_u64().unwrap()),
        );
    }
    assert_eq!(records, (0..9).collect::<Vec<u64>>());
}

#[tokio::test]
async fn r027_f048_a_shifting_list_marks_the_window() {
    // After the first page one record comes in at the head.
    let server = Server::start(|number, received| {
        let at: usize = received.param("at").unwrap().parse().unwrap();
        let (shift, total) = if number == 0 { (0, 6) } else { (1, 7) };
        let from = 10 + at - shift.min(at);
        let to = (from + 3).min(16);
        json(&format!(
            r#"{{"data":{},"total":{total}}}"#,
            ids(from.min(to), to)
        ))
    })
    .await;
    let mut source = source(
        &server.url,
        Paginate::Offset {
            to: query("at"),
            first: 0,
            on_first: OnFirst::Sent,
            step: OffsetStep::Records,
        },
    );
    source.streams[0].paginate.total = Some(Place::Body(path("$.total")));
    let outcome = extract(&source, Bookmark::default()).await;
    outcome.result.as_ref().unwrap();
    assert_eq!(seen(&outcome.bodies()), [10, 11, 12, 12, 13, 14, 15]);
    let bookmark = outcome.bookmark();
    assert!(bookmark.unstable);
    let alarms: Vec<&str> = bookmark.alarms.iter().map(|alarm| alarm.text.as_str()).collect();
    assert_eq!(alarms.len(), 2, "{alarms:?}");
    assert!(
        alarms
            .iter()
            .all(|text| text.starts_with("unstable_pagination: ")),
        "{alarms:?}"
    );
}

#[tokio::test]
async fn r030_auto_that_shows_nothing_is_looked_at_again_in_the_next_window_of_a_run() {
    let server = Server::start(|_, received| {
        let until = received.param("until");
        match (until.as_deref(), received.param("page")) {
            (Some("2024-04-30T00:00:00Z"), None) => {
                json(r#"{"data":[{"id":0,"t":"2024-04-29T01:00:00Z"}],"next":null}"#)
            }
            (Some(_), None) => json(&format!(
                r#"{{"data":[{{"id":1,"t":"2024-04-30T01:00:00Z"}}],"next":"/v1/orders?page=2&until={}"}}"#,
                until.unwrap_or_default()
            )),
            _ => json(r#"{"data":[{"id":2,"t":"2024-04-30T02:00:00Z"}],"next":null}"#),
        }
    })
    .await;
    let mut source = source(&server.url, Paginate::Auto);
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
    let outcome = extract(&source, Bookmark::default()).await;
    outcome.result.as_ref().unwrap();
    assert_eq!(seen(&outcome.bodies()), [0, 1, 2]);
}
