//! What became of deliveries, asked while the lake is away or slow.

use super::{limits::Gate, *};

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
