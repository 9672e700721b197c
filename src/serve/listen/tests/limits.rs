use super::*;
use crate::serve::tls::tests::{authorities, client, options};

#[tokio::test]
async fn f103_half_a_head_is_not_waited_for() {
    let limits = Limits {
        head_timeout: GLANCE,
        ..QUIET
    };
    let server = start(limits).await;
    for head in [
        "G",
        "GET / HTTP/1.1\r\nHost:",
        "PRI * HTTP/2.0\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = server.send(head.as_bytes()).await;
        server.is_well().await;
        to_end(&mut stream).await;
    }
    // The head of a later request on the same connection.
    let mut stream = server.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(&mut stream, "here").await;
    stream.write_all(b"GET").await.unwrap();
    assert_eq!(to_end(&mut stream).await, "");
}

#[tokio::test]
async fn f103_a_dripped_head_ends_in_its_time() {
    let limits = Limits {
        head_timeout: Duration::from_millis(400),
        ..QUIET
    };
    let server = start(limits).await;
    let mut stream = server.send(b"GET / HTTP/1.1\r\nX-Drip: ").await;
    let dripping = async {
        // Each silent glance is followed by one more byte.
        while is_silent(&mut stream).await && stream.write_all(b"x").await.is_ok() {}
    };
    timeout(PATIENCE, dripping).await.unwrap();
}

#[tokio::test]
async fn f103_a_dripped_body_is_408() {
    let server = start(QUIET).await;
    let mut stream = server
        .send(b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        .await;
    let answer = async {
        loop {
            match timeout(Duration::from_millis(20), stream.read_u8()).await {
                Err(_) => stream.write_all(b"x").await.unwrap(),
                Ok(first) => {
                    assert_eq!(first.unwrap(), b'H');
                    return to_end(&mut stream).await;
                }
            }
        }
    };
    let answer = timeout(PATIENCE, answer).await.unwrap();
    assert!(answer.starts_with("TTP/1.1 408"), "{answer}");
}

#[tokio::test]
async fn f103_idle_connections_end_busy_ones_do_not() {
    let limits = Limits {
        idle_timeout: GLANCE,
        ..QUIET
    };
    let server = start(limits).await;
    let mut busy = server.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut silent = server.connect().await;
    let mut kept = server.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(&mut kept, "here").await;
    assert_eq!(to_end(&mut kept).await, "");
    assert_eq!(to_end(&mut silent).await, "");
    assert!(is_silent(&mut busy).await);
    server.go.notify_one();
    until(&mut busy, "waited").await;
    assert_eq!(to_end(&mut busy).await, "");
}

#[tokio::test]
async fn f103_connections_beyond_the_cap_wait_for_one_to_end() {
    let limits = Limits {
        connections_max: 2,
        ..QUIET
    };
    let server = start(limits).await;
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut first = server.send(request).await;
    let mut second = server.send(request).await;
    until(&mut first, "here").await;
    until(&mut second, "here").await;
    let mut third = server.send(request).await;
    assert!(is_silent(&mut third).await);
    drop(first);
    until(&mut third, "here").await;
}

#[tokio::test]
async fn f103_one_peer_cannot_take_all_connections() {
    let limits = Limits {
        connections_each_max: 1,
        ..QUIET
    };
    let server = start(limits).await;
    let mut first = server.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(&mut first, "here").await;
    assert_eq!(to_end(&mut server.connect().await).await, "");
    drop(first);
    let well = async {
        loop {
            let mut stream = server.connect().await;
            let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            if stream.write_all(request).await.is_ok() && to_end(&mut stream).await.ends_with("here") {
                return;
            }
        }
    };
    timeout(PATIENCE, well).await.expect("the place is free again");
}

#[tokio::test]
async fn f103_a_peer_that_does_not_read_its_answer_loses_the_connection() {
    // One that is buffered whole, and one that is produced as it is read.
    for (path, idle, exchange) in [
        ("large", GLANCE, PATIENCE * 2),
        ("endless", PATIENCE * 2, GLANCE * 2),
    ] {
        let limits = Limits {
            connections_max: 1,
            idle_timeout: idle,
            exchange_timeout: exchange,
            ..QUIET
        };
        let server = start(limits).await;
        let request = format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let _deaf = server.send(request.as_bytes()).await;
        server.is_well().await;
    }
}

#[tokio::test]
async fn an_old_connection_ends_after_its_request() {
    let limits = Limits {
        age_max: GLANCE,
        ..QUIET
    };
    let server = start(limits).await;
    let mut stream = server.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(is_silent(&mut stream).await && is_silent(&mut stream).await);
    server.go.notify_one();
    let answer = to_end(&mut stream).await;
    assert!(
        answer.ends_with("waited") && answer.contains("connection: close"),
        "{answer}"
    );
}

#[test]
fn want_of_files_makes_accepting_pause_and_a_lost_connection_does_not() {
    // EMFILE, ENFILE, ENOMEM, ENOBUFS on Linux.
    for errno in [24, 23, 12, 105] {
        assert_eq!(
            pause_after(&io::Error::from_raw_os_error(errno)),
            Some(ACCEPT_PAUSE)
        );
    }
    assert_eq!(pause_after(&io::ErrorKind::ConnectionAborted.into()), None);
}

#[tokio::test]
async fn r157_the_identity_of_the_client_reaches_the_handler() {
    let options = options(crate::serve::tls::Clients::Required(authorities(true)));
    let tls = Arc::new(Tls::open(options, Clock::system()).unwrap());
    let limits = Limits {
        head_timeout: Duration::from_secs(2),
        ..QUIET
    };
    let server = start_with(limits, Some(tls)).await;
    for (protocol, version) in [("http/1.1", "h1"), ("h2", "h2")] {
        let mut config = client(Some("client"));
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let localhost = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let stream = connector
            .connect(localhost, server.connect().await)
            .await
            .unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        let body = super::http2::get(stream, version, "/who").await;
        assert_eq!(body, "dns:producer.example");
    }
    // Plain HTTP on the TLS port, and a handshake that is never begun or goes on too long.
    let answer = server.exchange(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(!answer.contains("HTTP/1.1"), "{answer}");
    assert_eq!(server.exchange(&[0x16, 0x03]).await, "");
}
