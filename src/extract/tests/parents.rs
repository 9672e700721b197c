//! Slices out of the records of another stream, read from its raw log.

use std::{sync::Arc, time::Duration};

use object_store::{ObjectStore, memory::InMemory};
use serde_json::{Map, Value, json};
use url::Url;

use super::server::{clock, cursor, now, path, source};
use crate::{
    config::{
        Name, Source, Stream, StreamName,
        slice::{Combine, Parent, ParentRecords, SliceBy, Slicing},
        text::{Expr, Text},
    },
    error::Result,
    extract::{parents::slices, sweep::key, tests::server::incremental},
    raw::{BatchNumber, Bookmark, Page, PageFacts, Window, log::BatchKind, write::Landing},
};

/// `shop.lines`, a child of `shop.orders`.
fn family(by: Vec<SliceBy>) -> Source {
    let mut source = source(&Url::parse("https://a.example/v1").unwrap(), cursor());
    let mut child = source.streams[0].clone();
    child.name = StreamName::parse("shop.lines").unwrap();
    child.slices = Some(Slicing::by(by));
    source.streams.push(child);
    source
}

fn orders() -> Parent {
    Parent {
        stream: Name::new("orders").unwrap(),
        values: vec![("order".to_owned(), path("$.id"))],
        optional: Vec::new(),
        only: None,
        records: ParentRecords::All,
        group: 1,
    }
}

fn page(body: &str, slice: Option<Value>) -> Page {
    Page {
        body: body.to_owned().into(),
        facts: PageFacts {
            slice: slice.map(|slice| slice.as_object().unwrap().clone()),
            ..PageFacts::new(now(), "GET", "https://a.example/v1/orders", 200)
        },
    }
}

/// Lands one batch of `shop.orders`; `more` leaves the pass open.
async fn land(store: &Arc<dyn ObjectStore>, pages: Vec<Page>, more: bool) {
    let name = StreamName::parse("shop.orders").unwrap();
    let mut landing = Landing::open(Arc::clone(store), name, clock(), "run".to_owned(), String::new())
        .await
        .unwrap();
    for page in pages {
        landing.append(page).await.unwrap();
    }
    let mut bookmark = Bookmark {
        window: more.then(Window::default),
        ..landing.bookmark()
    };
    if !more {
        let last = bookmark.last_success_at.unwrap_or_else(now);
        bookmark.last_success_at = Some(last + Duration::from_secs(1));
    }
    landing.commit(BatchKind::Complete, bookmark, None).await.unwrap();
}

fn child(source: &Source) -> &Stream {
    &source.streams[1]
}

async fn read(
    store: &Arc<dyn ObjectStore>,
    source: &Source,
    bookmark: &Bookmark,
) -> Result<Vec<Map<String, Value>>> {
    let mut slices = slices(store, source, child(source), bookmark).await?;
    let mut all = Vec::new();
    while let Some(values) = slices.values.recv().await {
        all.push(values?);
    }
    Ok(all)
}

async fn keys(store: &Arc<dyn ObjectStore>, source: &Source, bookmark: &Bookmark) -> Vec<String> {
    read(store, source, bookmark)
        .await
        .unwrap()
        .iter()
        .map(key)
        .collect()
}

fn store() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

#[tokio::test]
async fn every_record_of_the_parent_is_a_slice_in_raw_order_with_its_type() {
    let store = store();
    let body = r#"{"data":[{"id":7},{"id":"x/y"},{"no":1},{"id":null},{"id":18446744073709551617},{"id":1.10},{"id":{}}]}"#;
    land(
        &store,
        vec![page(body, None), page(r#"{"data":[{"id":8}]}"#, None)],
        false,
    )
    .await;
    let source = family(vec![SliceBy::Parent(orders())]);
    let expected = [
        r#"{"order":7}"#,
        r#"{"order":"x/y"}"#,
        r#"{"order":"18446744073709551617"}"#,
        r#"{"order":"1.10"}"#,
        r#"{"order":8}"#,
    ];
    assert_eq!(keys(&store, &source, &Bookmark::default()).await, expected);
}

#[tokio::test]
async fn of_a_parent_read_whole_only_the_last_complete_pass_counts() {
    let store = store();
    land(&store, vec![page(r#"{"data":[{"id":1},{"id":2}]}"#, None)], false).await;
    land(&store, vec![page(r#"{"data":[{"id":2}]}"#, None)], true).await;
    land(&store, vec![page(r#"{"data":[{"id":3}]}"#, None)], false).await;
    let mut source = family(vec![SliceBy::Parent(orders())]);
    let found = keys(&store, &source, &Bookmark::default()).await;
    assert_eq!(found, [r#"{"order":2}"#, r#"{"order":3}"#]);
    // A pass under way adds to the last complete one.
    land(&store, vec![page(r#"{"data":[{"id":4}]}"#, None)], true).await;
    let found = keys(&store, &source, &Bookmark::default()).await;
    assert_eq!(found, [r#"{"order":2}"#, r#"{"order":3}"#, r#"{"order":4}"#]);
    // An incremental parent never sends everything again.
    source.streams[0].incremental = Some(incremental(Duration::ZERO));
    assert_eq!(keys(&store, &source, &Bookmark::default()).await.len(), 5);
}

#[tokio::test]
async fn only_new_records_count_where_the_stream_says_so() {
    let store = store();
    for id in 0..3 {
        land(
            &store,
            vec![page(&format!(r#"{{"data":[{{"id":{id}}}]}}"#), None)],
            false,
        )
        .await;
    }
    let source = family(vec![SliceBy::Parent(Parent {
        records: ParentRecords::New,
        ..orders()
    })]);
    let batch = |number| BatchNumber::new(number).unwrap();
    let mut bookmark = Bookmark::default();
    assert_eq!(keys(&store, &source, &bookmark).await.len(), 3);
    bookmark.parents.insert("orders".to_owned(), batch(1));
    let opened = slices(&store, &source, child(&source), &bookmark).await.unwrap();
    assert_eq!(opened.parents["orders"], (batch(2), batch(2)));
    assert_eq!(keys(&store, &source, &bookmark).await, [r#"{"order":2}"#]);
    bookmark.parents.insert("orders".to_owned(), batch(2));
    assert_eq!(keys(&store, &source, &bookmark).await.len(), 0);
}

#[tokio::test]
async fn records_are_chosen_grouped_and_multiplied() {
    let store = store();
    let body =
        r#"{"data":[{"id":1,"open":true},{"id":2,"open":false},{"id":3,"open":true},{"id":4,"open":true}]}"#;
    land(&store, vec![page(body, None)], false).await;
    let parent = Parent {
        only: Some(Expr::parse("parent.open").unwrap()),
        group: 2,
        ..orders()
    };
    let source = family(vec![
        SliceBy::Parent(parent),
        SliceBy::List {
            name: "lang".to_owned(),
            values: vec![Text::literal("de"), Text::literal("fr")],
        },
    ]);
    let expected = [
        r#"{"lang":"de","order":[1,3]}"#,
        r#"{"lang":"fr","order":[1,3]}"#,
        r#"{"lang":"de","order":[4]}"#,
        r#"{"lang":"fr","order":[4]}"#,
    ];
    assert_eq!(keys(&store, &source, &Bookmark::default()).await, expected);
}

#[tokio::test]
async fn an_optional_value_that_a_record_lacks_is_null() {
    let store = store();
    let body = r#"{"data":[{"id":1,"to":{"city":"a"}},{"id":2,"to":null},{"to":{"city":"b"}}]}"#;
    land(&store, vec![page(body, None)], false).await;
    let with_city = Parent {
        optional: vec![("city".to_owned(), path("$.to.city"))],
        ..orders()
    };
    let source = family(vec![SliceBy::Parent(with_city.clone())]);
    let expected = [r#"{"city":"a","order":1}"#, r#"{"city":null,"order":2}"#];
    assert_eq!(keys(&store, &source, &Bookmark::default()).await, expected);
    let grouped = Parent {
        group: 2,
        ..with_city
    };
    let source = family(vec![SliceBy::Parent(grouped)]);
    let expected = [r#"{"city":["a",null],"order":[1,2]}"#];
    assert_eq!(keys(&store, &source, &Bookmark::default()).await, expected);
}

#[tokio::test]
async fn the_values_of_a_union_come_one_after_the_other() {
    let store = store();
    let body = r#"{"data":[{"id":1,"paid_by":7},{"id":2}]}"#;
    land(&store, vec![page(body, None)], false).await;
    let payer = Parent {
        values: vec![("order".to_owned(), path("$.paid_by"))],
        ..orders()
    };
    let listed = SliceBy::List {
        name: "order".to_owned(),
        values: vec![Text::literal("x"), Text::literal("y")],
    };
    let mut source = family(vec![SliceBy::Parent(orders()), listed, SliceBy::Parent(payer)]);
    source.streams[1].slices.as_mut().unwrap().combine = Combine::Union;
    let expected = [1, 2].map(|id| format!(r#"{{"order":{id}}}"#));
    let expected: Vec<String> = expected
        .into_iter()
        .chain(["\"x\"", "\"y\"", "7"].map(|id| format!(r#"{{"order":{id}}}"#)))
        .collect();
    assert_eq!(keys(&store, &source, &Bookmark::default()).await, expected);
}

#[tokio::test]
async fn a_template_gives_a_whole_list() {
    let mut source = family(vec![SliceBy::List {
        name: "lang".to_owned(),
        values: vec![Text::parse("{{ config.langs }}").unwrap(), Text::literal("it")],
    }]);
    source.config = vec![("langs".to_owned(), json!(["de", 7]))];
    let expected = [r#"{"lang":"de"}"#, r#"{"lang":7}"#, r#"{"lang":"it"}"#];
    assert_eq!(keys(&store(), &source, &Bookmark::default()).await, expected);
}

#[tokio::test]
async fn a_grandparents_value_comes_along() {
    let store = store();
    let shop = Some(json!({"shop": "a", "other": 1}));
    land(&store, vec![page(r#"{"data":[{"id":1}]}"#, shop)], false).await;
    let mut source = family(vec![SliceBy::Parent(Parent {
        values: vec![
            ("order".to_owned(), path("$.id")),
            ("shop".to_owned(), path("$.shop")),
        ],
        ..orders()
    })]);
    source.streams[0].slices = Some(Slicing {
        include: vec!["shop".to_owned()],
        ..Slicing::by(Vec::new())
    });
    assert_eq!(
        keys(&store, &source, &Bookmark::default()).await,
        [r#"{"order":1,"shop":"a"}"#]
    );
}

#[tokio::test]
async fn a_parent_without_anything_landed_is_named() {
    let source = family(vec![SliceBy::Parent(orders())]);
    let error = read(&store(), &source, &Bookmark::default())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("shop.orders") && error.contains("extract it first"),
        "{error}"
    );
}
