//! What webhooks are held to, and what those who are not believed cost the others.

use aws_lc_rs::hmac;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const SECRET: &[u8] = b"a secret of at least 24 bytes";

/// A stream of signed events, three requests of which are granted an hour, and one with limits on records.
const HOOKED: &str = "
lake: ./lake
serve: { tiers: { standard: { requests: 3, bytes: 20MiB, per: 1h } } }
sources:
  shop:
    streams:
      orders:
        webhook: { scheme: github, secrets: { main: '${file:secret}' } }
        table: { keys: [id] }
      items:
        webhook: { scheme: github, secrets: { main: '${file:secret}' } }
        push: { auth: none, idempotency: required, records_max: 2, record_bytes_max: 100B }
        records: $[*]
        table: { keys: [id] }
";

fn place() -> Place {
    let place = Place::new();
    std::fs::write(place.path("secret"), SECRET).unwrap();
    place
}

/// A request signed as GitHub does, with the id of its event if it has one.
fn signed(server: &Server, stream: &str, id: Option<&str>, body: &str) -> reqwest::RequestBuilder {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), body.as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let request = server
        .post(&format!("/v1/webhooks/shop/{stream}"))
        .header("content-type", "application/json")
        .header("x-hub-signature-256", format!("sha256={hex}"))
        .body(body.to_owned());
    match id {
        Some(id) => request.header("x-github-delivery", id),
        None => request,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f107_strangers_use_up_nothing_of_what_a_sender_is_granted() {
    let place = place();
    let server = place.start(HOOKED).await;
    let bad = "sha256=00";
    // Large bodies that are announced, and broken off after a few bytes.
    for _ in 0..10 {
        let mut socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
        let head = format!(
            "POST /v1/webhooks/shop/orders HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
             x-hub-signature-256: {bad}\r\ncontent-length: 16000000\r\n\r\n{{\"id\":"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("\"producer\";r=2"), "{answer}");
    }
    // Bodies that come whole, and are not believed.
    for _ in 0..10 {
        let forged = server
            .post("/v1/webhooks/shop/orders")
            .header("content-type", "application/json")
            .header("x-hub-signature-256", format!("sha256={}", "00".repeat(32)))
            .body(vec![b' '; 4 << 20]);
        assert_eq!(
            server.send(forged).await.problem(),
            expected(401, "signature_invalid")
        );
    }
    for number in 0..3 {
        let event = signed(
            &server,
            "orders",
            Some(&format!("e{number}")),
            &format!("{{\"id\":{number}}}"),
        );
        assert_eq!(server.send(event).await.status, 200);
    }
    // Who is believed is counted.
    let beyond = signed(&server, "orders", Some("e4"), "{\"id\":4}");
    assert_eq!(server.send(beyond).await.problem(), expected(429, "rate_limited"));
    server.stop().await;
    assert_eq!(place.landed("shop.orders").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_held_to_the_limits_of_its_stream() {
    let place = place();
    let text = HOOKED.replace("requests: 3", "requests: 1000");
    let server = place.start(&text).await;
    let large = format!("[{{\"id\":\"{}\"}}]", "x".repeat(200));
    for (id, body, problem) in [
        (Some("e1"), "[{\"id\":1},{\"id\":2}]", None),
        (
            Some("e2"),
            "[{\"id\":1},{\"id\":2},{\"id\":3}]",
            Some(expected(413, "too_many_records")),
        ),
        (Some("e3"), &large, Some(expected(413, "record_too_large"))),
        (
            None,
            "[{\"id\":1}]",
            Some(expected(400, "idempotency_key_missing")),
        ),
        // What cannot be read is landed, and judged later.
        (Some("e4"), "[{\"id\":1}", None),
    ] {
        let answer = server.send(signed(&server, "items", id, body)).await;
        match problem {
            Some(problem) => assert_eq!(answer.problem(), problem, "{body}"),
            None => assert_eq!(answer.status, 200, "{body}"),
        }
    }
    // Without `push` an event is as large as a body may be.
    let large = format!("{{\"id\":\"{}\"}}", "x".repeat(2 << 20));
    let answer = server.send(signed(&server, "orders", Some("e1"), &large)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    server.stop().await;
    assert_eq!(place.landed("shop.items").await.len(), 2);
    assert_eq!(place.landed("shop.orders").await.len(), 1);
}
