//! Webhooks.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::future::join_all;

use super::*;

const HOOKED: &str = "
lake: ./lake
serve: {}
sources:
  shop:
    streams:
      orders:
        webhook: { scheme: standard_webhooks, secrets: { main: '${file:secret}' } }
        table: { keys: [id] }
      chat:
        webhook: { scheme: slack, secrets: { main: '${file:slack}' } }
        table: { keys: [id] }
      plain: { push: {}, table: { keys: [id] } }
";

const SECRET: &[u8] = b"a secret of at least 24 bytes";

fn place() -> Place {
    let place = Place::new();
    let secret = format!("whsec_{}", STANDARD.encode(SECRET));
    std::fs::write(place.path("secret"), secret).unwrap();
    std::fs::write(place.path("slack"), "slack secret").unwrap();
    place
}

/// A request signed as Standard Webhooks says.
fn signed(server: &Server, id: &str, body: &str) -> reqwest::RequestBuilder {
    let now = Clock::system().now().timestamp();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    let tag = hmac::sign(&key, format!("{id}.{now}.{body}").as_bytes());
    server
        .post("/v1/webhooks/shop/orders")
        .header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", now.to_string())
        .header("webhook-signature", format!("v1,{}", STANDARD.encode(tag)))
        .body(body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn f080_f082_r102_an_event_lands_once_and_another_body_under_its_id_lands_too() {
    let place = place();
    let server = place.start(HOOKED).await;
    let first = server.send(signed(&server, "msg_1", "{\"id\":1}")).await;
    assert_eq!(
        (first.status, &first.json()["duplicate"]),
        (200, &false.into()),
        "{first:?}"
    );
    let again = server.send(signed(&server, "msg_1", "{\"id\":1}")).await;
    let document = again.json();
    assert_eq!((again.status, &document["duplicate"]), (200, &true.into()));
    assert_eq!(document["receipt"], first.json()["receipt"]);
    assert_eq!(document["deliveries"], 2);
    let reused = server.send(signed(&server, "msg_1", "{\"id\":2}")).await;
    let document = reused.json();
    assert_eq!(
        (&document["duplicate"], &document["id_reuse"]),
        (&false.into(), &true.into())
    );
    server.stop().await;

    // Over a restart too.
    let server = place.start(HOOKED).await;
    let again = server.send(signed(&server, "msg_1", "{\"id\":2}")).await;
    assert_eq!(again.json()["duplicate"], true);
    server.stop().await;
    let landed = place.landed("shop.orders").await;
    let told: Vec<_> = landed
        .iter()
        .map(|(facts, body)| (facts.attempts, facts.event_id.as_deref().unwrap(), &body[..]))
        .collect();
    assert_eq!(
        told,
        [(1, "msg_1", &b"{\"id\":1}"[..]), (3, "msg_1", &b"{\"id\":2}"[..])]
    );
    assert_eq!((landed[0].0.id_reuse, landed[1].0.id_reuse), (false, true));
    // R093: the later attempt says when the first one came.
    assert!(landed[0].0.first_seen_at.is_some());
    assert_eq!(landed[1].0.first_seen_at, landed[0].0.first_seen_at);
    assert!(!format!("{landed:?}").contains("v1,"), "a signature was kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn f081_fifty_at_once_land_once() {
    let place = place();
    let server = place.start(HOOKED).await;
    let sending = (0..50).map(|_| server.send(signed(&server, "msg_1", "{\"id\":1}")));
    let answers = join_all(sending).await;
    let new = answers
        .iter()
        .filter(|answer| answer.json()["duplicate"] == false)
        .count();
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(new, 1);
    server.stop().await;
    assert_eq!(place.landed("shop.orders").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn r099_r100_a_signature_comes_before_everything_else() {
    let place = place();
    let server = place.start(HOOKED).await;
    // Neither unpacked nor parsed: what is wrong with the body is not told.
    let malformed = server
        .post("/v1/webhooks/shop/orders")
        .header("content-type", "application/json")
        .header("content-encoding", "gzip")
        .body("{\"id\":");
    let answer = server.send(malformed).await;
    assert_eq!(answer.problem(), expected(401, "signature_invalid"));
    assert!(answer.header("www-authenticate").is_some());
    let altered = signed(&server, "msg_1", "{\"id\":1}").body("{\"id\":2}");
    assert_eq!(
        server.send(altered).await.problem(),
        expected(401, "signature_invalid")
    );
    // What is signed and no JSON is landed: it is judged later.
    assert_eq!(server.send(signed(&server, "msg_2", "no json")).await.status, 200);
    // Without a token nobody pushes records there.
    let records = server.records("application/json", "{\"id\":1}");
    assert_eq!(
        server.send(records).await.problem(),
        expected(401, "unauthenticated")
    );
    let unhooked = server
        .send(server.post("/v1/webhooks/shop/plain").body("{}"))
        .await;
    assert_eq!(unhooked.problem(), expected(404, "stream_not_found"));
    let metrics = server.admin("/metrics").await;
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    assert!(
        text.contains("class=\"signature_invalid\",via=\"signature\",producer=\"none\"} 2"),
        "{text}"
    );
    server.stop().await;
    let landed = place.landed("shop.orders").await;
    assert_eq!(landed.len(), 1);
    assert_eq!(landed[0].1, "no json");
}

#[tokio::test(flavor = "multi_thread")]
async fn f089_a_handshake_is_answered_and_not_landed() {
    let place = place();
    let server = place.start(HOOKED).await;
    let body = "{\"type\":\"url_verification\",\"challenge\":\"3eZbrw1aB\"}";
    let now = Clock::system().now().timestamp();
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"slack secret");
    let tag = hmac::sign(&key, format!("v0:{now}:{body}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let request = server
        .post("/v1/webhooks/shop/chat")
        .header("content-type", "application/json")
        .header("x-slack-request-timestamp", now.to_string())
        .header("x-slack-signature", format!("v0={hex}"))
        .body(body);
    let answer = server.send(request).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"3eZbrw1aB"[..]));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    server.stop().await;
    assert!(place.landed("shop.chat").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn r101_an_event_is_answered_while_nothing_reaches_the_lake() {
    let mut place = place();
    let store = Arc::new(super::limits::Gate::new());
    place.store = Arc::clone(&store) as Arc<dyn ObjectStore>;
    let server = place.start(HOOKED).await;
    store.close();
    for number in 0..20 {
        let answer = server.send(signed(&server, &format!("msg_{number}"), "{}")).await;
        assert_eq!(answer.status, 200);
    }
    store.open();
    server.stop().await;
    assert_eq!(place.landed("shop.orders").await.len(), 20);
}
