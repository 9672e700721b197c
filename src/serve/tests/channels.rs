//! Channels with offset tokens.

use serde_json::json;

use super::{
    repeats::{KEYED, tokens},
    *,
};

const CHANNEL: &str = "/v1/streams/shop/orders/channels/export-1";

async fn open(server: &Server, token: &str) -> Value {
    let opened = server.send(server.put(CHANNEL).bearer_auth(token)).await;
    assert_eq!(opened.status, 200, "{opened:?}");
    opened.json()
}

async fn append(server: &Server, token: &str, query: &str, body: &'static str) -> Answer {
    let request = server
        .post(&format!("{CHANNEL}/records?{query}"))
        .bearer_auth(token)
        .header("content-type", "application/x-ndjson")
        .body(body);
    server.send(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_takes_each_body_once_behind_the_last_through_restarts() {
    let place = Place::new();
    let [till, web] = tokens(&place);
    let server = place.start(KEYED).await;
    let missing = server.send(server.get(CHANNEL).bearer_auth(&till)).await;
    assert_eq!(missing.problem(), expected(404, "channel_not_found"));
    let refused = append(&server, &till, "epoch=1&offset=a", "{\"id\":1}").await;
    assert_eq!(refused.problem(), expected(404, "channel_not_found"));

    let opened = open(&server, &till).await;
    assert_eq!((&opened["epoch"], &opened["offset"]), (&json!(1), &Value::Null));
    let gap = append(&server, &till, "epoch=1&offset=b&after=a", "{\"id\":2}").await;
    assert_eq!(gap.problem(), expected(409, "offset_conflict"));
    assert_eq!(gap.header("landfall-offset"), None);

    let first = append(&server, &till, "epoch=1&offset=a", "{\"id\":1}\n7\n").await;
    assert_eq!(first.status, 202, "{first:?}");
    assert_eq!(first.json()["results"][0]["index"], 1);
    // The reply was lost: the same once more.
    let again = append(&server, &till, "epoch=1&offset=a", "{\"id\":1}\n7\n").await;
    assert_eq!((again.status, &again.body), (202, &first.body));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let other = append(&server, &till, "epoch=1&offset=a", "{\"id\":9}").await;
    assert_eq!(other.problem(), expected(422, "idempotency_key_reused"));
    let gap = append(&server, &till, "epoch=1&offset=c&after=b", "{\"id\":3}").await;
    assert_eq!(gap.problem(), expected(409, "offset_conflict"));
    assert_eq!(gap.header("landfall-offset"), Some("a"));
    for query in [
        "offset=b&after=a",
        "epoch=1&after=a",
        "epoch=x&offset=b",
        "epoch=1&offset=%20",
    ] {
        let answer = append(&server, &till, query, "{\"id\":2}").await;
        assert_eq!(answer.problem(), expected(400, "invalid_request"), "{query}");
    }
    // A body that is not kept moves nothing.
    let bad = append(
        &server,
        &till,
        "epoch=1&offset=b&after=a&mode=atomic",
        "{\"id\":2}\n7\n",
    )
    .await;
    assert_eq!(bad.problem(), expected(422, "batch_rejected"));

    // Another producer's channel of the same name is another one.
    assert_eq!(open(&server, &web).await["epoch"], 1);

    // Whoever opens it shuts the other one out.
    let opened = open(&server, &till).await;
    assert_eq!((&opened["epoch"], &opened["offset"]), (&json!(2), &json!("a")));
    let fenced = append(&server, &till, "epoch=1&offset=b&after=a", "{\"id\":2}").await;
    assert_eq!(fenced.problem(), expected(409, "channel_fenced"));
    let second = append(&server, &till, "epoch=2&offset=b&after=a", "{\"id\":2}").await;
    assert_eq!(second.status, 202);
    server.stop().await;

    let server = place.start(KEYED).await;
    let told = server.send(server.get(CHANNEL).bearer_auth(&till)).await.json();
    assert_eq!(
        (&told["epoch"], &told["offset"], &told["bodies"], &told["receipt"]),
        (&json!(2), &json!("b"), &json!(2), &second.json()["receipt"])
    );
    let third = append(&server, &till, "epoch=2&offset=c&after=b", "{\"id\":3}").await;
    assert_eq!(third.status, 202);
    server.stop().await;

    let pages = place.landed("shop.orders").await;
    let channels: Vec<_> = pages
        .iter()
        .map(|(facts, _)| {
            let channel = facts.channel.as_ref().unwrap();
            assert!(facts.is_pushed_records());
            (channel.epoch, channel.number, channel.offset.as_str())
        })
        .collect();
    assert_eq!(channels, [(1, 1, "a"), (2, 2, "b"), (2, 3, "c")]);
}
