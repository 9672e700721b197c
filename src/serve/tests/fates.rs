//! What became of deliveries, asked while the lake is away or slow.

use object_store::GetRange;
use serde_json::json;

use super::{limits::Gate, *};
use crate::ops::{Workspace, transform::transform};

/// Text that does not pack: a record with it is as large in the lake as it was sent.
fn noise(bytes: usize) -> String {
    let mut seed = 11_u64;
    let mut next = || {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + u8::try_from((seed >> 33) % 26).unwrap())
    };
    (0..bytes).map(|_| next()).collect()
}

async fn load(place: &Place, stream: &str) {
    let project = Project::clone(&place.project(OPEN));
    let workspace = Workspace::over(project, Arc::clone(&place.store), place.clock()).unwrap();
    for outcome in transform(&workspace, &[StreamName::parse(stream).unwrap()]).await {
        outcome.result.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_receipts_asks_how_far_the_tables_are_and_reads_nothing_of_raw() {
    const EACH: usize = 15;
    let mut place = Place::new();
    let store = Arc::new(Gate::new());
    place.store = Arc::clone(&store) as Arc<dyn ObjectStore>;
    let server = place.start(OPEN).await;
    let large = json!({"id": 0, "text": noise(200_000)}).to_string();
    let mut receipts = Vec::new();
    for number in 0..2 * EACH {
        let stream = if number < EACH { "orders" } else { "items" };
        let sent = server.records_to(stream, "", "application/json", large.clone());
        let receipt = server.send(sent).await.json()["receipt"].clone();
        receipts.push(format!("/v1/receipts/{}", receipt.as_str().unwrap()));
    }
    let list = async || {
        let listed = server.send(server.get("/v1/receipts?limit=1000")).await.json();
        listed["receipts"].as_array().unwrap().clone()
    };
    let count = |receipts: &[Value], stream: &str, stage: &str| {
        let of = |receipt: &&Value| receipt["stream"] == stream && receipt["stage"] == stage;
        receipts.iter().filter(of).count()
    };
    while count(&list().await, "shop.orders", "landed") + count(&list().await, "shop.items", "landed")
        < 2 * EACH
    {
        tokio::task::yield_now().await;
    }
    load(&place, "shop.orders").await;
    store.read();
    let listed = list().await;
    assert_eq!(
        (
            count(&listed, "shop.orders", "transformed"),
            count(&listed, "shop.items", "landed")
        ),
        (EACH, EACH)
    );
    let read = store.read();
    assert!(
        read.iter().all(|(path, _)| path.as_ref().starts_with("tables/")),
        "{read:?}"
    );
    assert!(read.len() < EACH, "{read:?}");

    // Of one that is not transformed, what stands beside its body; of one that is, its body too.
    let bytes = |read: Vec<(object_store::path::Path, Option<GetRange>)>| -> u64 {
        let objects = read
            .into_iter()
            .filter(|(path, _)| path.as_ref().contains("/dt="));
        let bytes = objects.map(|(_, range)| match range {
            Some(GetRange::Bounded(range)) => range.end - range.start,
            other => panic!("{other:?}"),
        });
        bytes.sum()
    };
    let landed = server.send(server.get(&receipts[EACH])).await.json();
    assert_eq!(
        (&landed["stage"], landed["trace_id"].is_string()),
        (&json!("landed"), true)
    );
    let (aside, stage) = (bytes(store.read()), json!("transformed"));
    assert!((1..50_000).contains(&aside), "{aside}");
    let transformed = server.send(server.get(&receipts[0])).await.json();
    assert_eq!(
        (&transformed["stage"], &transformed["records"]["merged"]),
        (&stage, &json!(1))
    );
    assert!(bytes(store.read()) > 100_000);

    store.fail();
    let listed = list().await;
    assert_eq!(count(&listed, "shop.items", "landed"), EACH);
    let landed = listed.iter().filter(|receipt| receipt["stage"] == "landed");
    for note in landed.map(|receipt| receipt["note"].as_str()) {
        assert!(
            note.is_some_and(|note| note.contains("does not answer")),
            "{note:?}"
        );
    }
    store.open();
    load(&place, "shop.items").await;
    let listed = list().await;
    assert_eq!(count(&listed, "shop.items", "transformed"), EACH);
    assert!(listed.iter().all(|receipt| receipt.get("note").is_none()));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_tell_what_is_known_and_lists_wait_while_the_lake_is_away() {
    let mut place = Place::new();
    let store = Arc::new(Gate::new());
    place.store = Arc::clone(&store) as Arc<dyn ObjectStore>;
    let server = place.start(OPEN).await;
    let pushed = server
        .send(server.records("application/json", "{\"id\":1}"))
        .await;
    let path = format!("/v1/receipts/{}", pushed.json()["receipt"].as_str().unwrap());
    let receipt = async || server.send(server.get(&path)).await;
    while receipt().await.json()["stage"] == "spooled" {
        tokio::task::yield_now().await;
    }
    let landed = receipt().await.json();
    assert_eq!(
        (landed["stage"].as_str(), landed.get("note")),
        (Some("landed"), None)
    );
    assert_eq!(landed["trace_id"].as_str().map(str::len), Some(32));

    store.fail();
    let answer = receipt().await;
    let told = answer.json();
    assert_eq!((answer.status, told["stage"].as_str()), (200, Some("landed")));
    assert!(
        told["note"]
            .as_str()
            .is_some_and(|note| note.contains("does not answer"))
    );
    for list in ["contracts", "quarantine", "drift"] {
        let path = format!("/v1/streams/shop/orders/{list}");
        let answer = server.send(server.get(&path)).await;
        assert_eq!(answer.problem(), expected(503, "unavailable"), "{list}");
        assert!(answer.header("retry-after").is_some());
    }
    // What comes is taken all the same.
    let more = server
        .send(server.records("application/json", "{\"id\":2}"))
        .await;
    assert_eq!(more.status, 202);
    store.open();
    let path = "/v1/streams/shop/orders/quarantine";
    let answer = server.send(server.get(path)).await;
    assert_eq!(
        (answer.status, answer.json()),
        (200, serde_json::json!({ "quarantine": [] }))
    );
    server.stop().await;
}
