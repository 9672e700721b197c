use super::*;

#[tokio::test]
async fn one_connection_serves_many_requests_and_survives_a_panic() {
    let server = start(QUIET).await;
    let mut stream = server
        .send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: one\r\n\r\n")
        .await;
    let answer = until(&mut stream, "here").await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("x-request-id: one"),
        "{answer}"
    );
    stream
        .write_all(b"GET /panic HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let answer = until(&mut stream, "}").await;
    assert!(
        answer.starts_with("HTTP/1.1 500") && answer.contains("problem+json"),
        "{answer}"
    );
    stream
        .write_all(b"GET /who HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    until(&mut stream, "127.0.0.1").await;
    drop(stream);
    server.is_well().await;
}

#[tokio::test]
async fn a_common_client_gets_its_problem_document() {
    let server = start(QUIET).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client
        .get(format!("http://{}/nowhere", server.address))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    let body: serde_json::Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(body["request_id"], id);
}

#[tokio::test]
async fn f104_malformed_heads_are_refused_and_the_connection_ends() {
    let server = start(QUIET).await;
    let get = |rest: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{rest}\r\n").into_bytes();
    let large = format!("X-Large: {}\r\n", "x".repeat(1 << 20));
    let many: String = (0..500).map(|number| format!("X-{number}: 1\r\n")).collect();
    let cases: [(&str, Vec<u8>, &[&str]); 12] = [
        (
            "two lengths",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello".to_vec(),
            &["400"],
        ),
        ("two lengths in one", get("Content-Length: 5, 6\r\n"), &["400"]),
        ("signed length", get("Content-Length: +5\r\n"), &["400"]),
        (
            "unknown transfer coding",
            get("Transfer-Encoding: chunked, x\r\n"),
            &["400"],
        ),
        (
            "chunked in HTTP/1.0",
            b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            &["400"],
        ),
        ("obs-fold", get("X-Folded: a\r\n b\r\n"), &["400"]),
        ("space before colon", get("X-Spaced : a\r\n"), &["400"]),
        (
            "NUL in path",
            b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            &["400"],
        ),
        ("NUL in header", get("X-Nul: a\0b\r\n"), &["400"]),
        ("1 MiB header", get(&large), &["431", "400"]),
        ("500 headers", get(&many), &["431"]),
        ("no host", b"GET / HTTP/1.1\r\n\r\n".to_vec(), &["400"]),
    ];
    for (name, mut bytes, statuses) in cases {
        bytes.extend_from_slice(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut stream = server.connect().await;
        // The server may close before it has read everything.
        let _ = stream.write_all(&bytes).await;
        let answer = to_end(&mut stream).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{name}: {answer}");
        let status = &answer["HTTP/1.1 ".len()..][..3];
        assert!(statuses.contains(&status), "{name}: {answer}");
    }
    assert_eq!(server.hits(), 0, "no handler saw any of it");
    server.is_well().await;
}

#[tokio::test]
async fn f104_a_long_uri_is_414() {
    let server = start(QUIET).await;
    for bytes in [9 << 10, 40 << 10] {
        let request = format!(
            "GET /{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "a".repeat(bytes)
        );
        let mut stream = server.connect().await;
        let _ = stream.write_all(request.as_bytes()).await;
        let answer = to_end(&mut stream).await;
        assert!(
            answer.starts_with("HTTP/1.1 414") || answer.starts_with("HTTP/1.1 431"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn f104_what_is_smuggled_behind_chunks_is_never_executed() {
    let server = start(QUIET).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for lengths in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
    ] {
        let request = format!("POST /body HTTP/1.1\r\nHost: a\r\n{lengths}\r\n\r\n0\r\n\r\n{smuggled}");
        let answer = server.exchange(request.as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
    assert_eq!(server.hits(), 0);
    // Honest pipelining works: what ends the connection is the doubt, not the second request.
    let both = format!("GET / HTTP/1.1\r\nHost: a\r\n\r\n{smuggled}");
    let mut stream = server.send(both.as_bytes()).await;
    until(&mut stream, "content-length: 0\r\n").await;
    assert_eq!(server.hits(), 2);
}

#[tokio::test]
async fn f096_a_large_body_is_refused_before_it_is_invited() {
    let server = start(QUIET).await;
    let head = "POST /body HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1000000000\r\n\r\n";
    let answer = server.exchange(head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(!answer.contains("100 Continue"));

    let head = "POST /body HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let mut stream = server.send(head.as_bytes()).await;
    assert_eq!(
        until(&mut stream, "\r\n\r\n").await,
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    stream.write_all(b"hello").await.unwrap();
    until(&mut stream, "5 bytes").await;
}

#[tokio::test]
async fn f096_an_endless_body_is_cut_off_and_its_sender_is_told() {
    let server = start(QUIET).await;
    for head in ["Content-Length: 1000000000", "Transfer-Encoding: chunked"] {
        let request = format!("POST /body HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n");
        let stream = server.send(request.as_bytes()).await;
        let (mut reader, mut writer) = stream.into_split();
        let sending = tokio::spawn(async move {
            let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
            let mut sent = 0;
            while writer.write_all(&chunk).await.is_ok() {
                sent += chunk.len();
            }
            sent
        });
        let mut answer = [0; 12];
        timeout(PATIENCE, reader.read_exact(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&answer, b"HTTP/1.1 413");
        let sent = timeout(PATIENCE, sending).await.unwrap().unwrap();
        // The limit, what is thrown away, and what the kernels of both sides buffer.
        assert!(sent < 20 << 20, "{sent}");
    }
    server.is_well().await;
}
