//! Records of producers.

use std::io::Write as _;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn r081_f098_objects_arrays_and_lines_land_byte_for_byte() {
    let place = Place::new();
    let server = place.start(OPEN).await;
    let gzip = |body: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(body.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let array = "[ {\"id\": 1},\r\n{\"id\":2.0}]";
    let lines = "{\"id\":3}\r\n\n{\"id\":4}";
    type Sent<'a> = (&'a str, Option<&'a str>, Vec<u8>, &'a str, u64);
    let sent: [Sent<'_>; 4] = [
        (
            "application/json",
            None,
            b" {\"id\":0} ".to_vec(),
            " {\"id\":0} ",
            1,
        ),
        (
            "application/json; charset=UTF-8",
            Some("gzip"),
            gzip(array),
            array,
            2,
        ),
        (
            "application/x-ndjson",
            Some("zstd"),
            zstd::encode_all(lines.as_bytes(), 1).unwrap(),
            lines,
            2,
        ),
        ("application/jsonl", None, lines.into(), lines, 2),
    ];
    let mut receipts = Vec::new();
    for (content_type, coding, body, _, accepted) in &sent {
        let mut request = server.records_to("orders", "?mode=partial", content_type, body.clone());
        if let Some(coding) = coding {
            request = request.header("content-encoding", *coding);
        }
        let request = request.header("authorization", "Bearer secret-token").header(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        );
        let answer = server.send(request).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        let document = answer.json();
        assert_eq!(document["records"]["accepted"], *accepted);
        assert_eq!(document["stream"], "shop.orders");
        let receipt = document["receipt"].as_str().unwrap().to_owned();
        assert_eq!(
            answer.header("location"),
            Some(format!("/v1/receipts/{receipt}").as_str())
        );
        receipts.push(receipt);
    }
    server.stop().await;

    let landed = place.landed("shop.orders").await;
    assert_eq!(landed.len(), sent.len());
    for (receipt, (content_type, _, _, body, _)) in receipts.iter().zip(&sent) {
        let mut pages = landed.iter();
        let (facts, bytes) = pages
            .find(|(facts, _)| facts.receipt.as_ref() == Some(receipt))
            .unwrap();
        assert_eq!(bytes, body.as_bytes());
        assert_eq!((facts.status, facts.method.as_str()), (202, "POST"));
        assert_eq!(facts.url, "/v1/streams/shop/orders/records?mode=****");
        assert_eq!(
            facts.trace_id.as_deref(),
            Some("4bf92f3577b34da6a3ce929d0e0e4736")
        );
        let mut kept = facts.headers.iter();
        assert!(kept.any(|(name, value)| name == "content-type" && value == content_type));
        assert!(!format!("{facts:?}").contains("secret-token"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r085_f100_f102_what_cannot_be_read_is_named_and_the_rest_is_kept() {
    let place = Place::new();
    let server = place.start(OPEN).await;
    let mut lines: Vec<String> = (0..10).map(|id| format!("{{\"id\":{id}}}")).collect();
    lines[3] = "{\"id\":".to_owned();
    lines[7] = "[7]".to_owned();
    let body = lines.join("\n");
    let answer = server
        .send(server.records("application/x-ndjson", body.clone()))
        .await;
    assert_eq!(answer.status, 202);
    let document = answer.json();
    assert_eq!(
        document["records"],
        serde_json::json!({ "accepted": 8, "rejected": 2 })
    );
    let results = document["results"].as_array().unwrap();
    let told: Vec<_> = results
        .iter()
        .map(|result| {
            (
                result["index"].as_u64().unwrap(),
                result["code"].as_str().unwrap(),
                result["retryable"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(told, [(3, "not_json", false), (7, "not_an_object", false)]);
    assert!(document["note"].as_str().unwrap().contains("quarantined"));

    // The mended ones alone can be sent again.
    let mended = server
        .send(server.records("application/x-ndjson", "{\"id\":3}\n{\"id\":7}\n"))
        .await;
    assert_eq!(mended.json()["records"]["accepted"], 2);

    let atomic = server.records_to("orders", "?mode=atomic", "application/x-ndjson", body.clone());
    let answer = server.send(atomic).await;
    assert_eq!(answer.problem(), expected(422, "batch_rejected"));
    assert_eq!(answer.json()["errors"][1]["pointer"], "#/7");
    let strict = server
        .records("application/x-ndjson", body.clone())
        .header("prefer", "respond-async, handling=strict");
    assert_eq!(server.send(strict).await.status, 422);
    let odd = server.records_to("orders", "?mode=some", "application/x-ndjson", body.clone());
    assert_eq!(server.send(odd).await.problem(), expected(400, "invalid_request"));

    server.stop().await;
    let landed = place.landed("shop.orders").await;
    assert_eq!(landed.len(), 2);
    assert!(landed.iter().any(|(_, bytes)| bytes == body.as_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn f098_f099_f101_what_is_no_batch_is_refused_and_nothing_lands() {
    let place = Place::new();
    let text = OPEN.replacen(
        "push: {}",
        "push: { records_max: 3, bytes_max: 100KiB, record_bytes_max: 1KiB }",
        1,
    );
    let server = place.start(&text).await;
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let long = format!("{{\"id\":1}}\n{{\"a\":\"{}\"}}\n", "x".repeat(2000));
    let table: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("application/xml", b"<a/>".to_vec(), 415, "unsupported_media_type"),
        (
            "application/json; charset=latin1",
            b"{}".to_vec(),
            415,
            "unsupported_media_type",
        ),
        (
            "application/json",
            b"\xEF\xBB\xBF{}".to_vec(),
            400,
            "body_malformed",
        ),
        ("application/json", b"".to_vec(), 400, "body_malformed"),
        ("application/x-ndjson", b"\n\n".to_vec(), 400, "body_malformed"),
        ("application/json", b"{\"id\":1".to_vec(), 400, "body_malformed"),
        (
            "application/json",
            b"[{\"id\":1},]".to_vec(),
            400,
            "body_malformed",
        ),
        (
            "application/json",
            b"{\"id\":1} {}".to_vec(),
            400,
            "body_malformed",
        ),
        (
            "application/json",
            b"{\"a\":\"\xFF\"}".to_vec(),
            400,
            "body_malformed",
        ),
        ("application/json", b"7".to_vec(), 400, "body_malformed"),
        (
            "application/json",
            format!("{{\"a\":{}}}", deep(200)).into(),
            400,
            "body_too_deep",
        ),
        ("application/json", "[".repeat(1000).into(), 400, "body_malformed"),
        (
            "application/json",
            b"[{},{},{},{}]".to_vec(),
            413,
            "too_many_records",
        ),
        (
            "application/x-ndjson",
            b"{}\n{}\n{}\n{}".to_vec(),
            413,
            "too_many_records",
        ),
        ("application/x-ndjson", long.into(), 413, "record_too_large"),
        (
            "application/json",
            vec![b' '; (100 << 10) + 1],
            413,
            "body_too_large",
        ),
    ];
    for (content_type, body, status, code) in table {
        let start = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        let answer = server.send(server.records(content_type, body)).await;
        assert_eq!(answer.problem(), expected(status, code), "{content_type} {start}");
    }
    for (coding, status, code) in [
        ("br", 415, "unsupported_encoding"),
        ("gzip, gzip", 415, "unsupported_encoding"),
        ("gzip", 400, "body_undecodable"),
    ] {
        let request = server
            .records("application/json", "{\"id\": 12345678901234567890}")
            .header("content-encoding", coding);
        assert_eq!(
            server.send(request).await.problem(),
            expected(status, code),
            "{coding}"
        );
    }
    server.stop().await;
    assert!(place.landed("shop.orders").await.is_empty());
}
