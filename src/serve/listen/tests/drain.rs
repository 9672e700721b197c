use super::*;

#[tokio::test]
async fn f108_requests_in_flight_are_finished_and_no_more_are_taken() {
    let server = start(QUIET).await;
    let mut idle = server.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(&mut idle, "here").await;
    let mut silent = server.connect().await;
    let mut busy = server.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(is_silent(&mut busy).await);
    server.shutdown.stop();
    assert_eq!(to_end(&mut idle).await, "");
    assert_eq!(to_end(&mut silent).await, "");
    assert!(
        TcpStream::connect(server.address).await.is_err(),
        "nobody listens"
    );
    assert!(!server.served.is_finished());
    server.go.notify_one();
    let answer = to_end(&mut busy).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("waited"),
        "{answer}"
    );
    drop((idle, silent, busy));
    assert_eq!(
        timeout(PATIENCE, server.served).await.unwrap().unwrap(),
        Drained::Finished
    );
}

#[tokio::test]
async fn f108_what_does_not_finish_in_time_is_cut() {
    let limits = Limits {
        drain_timeout: GLANCE,
        ..QUIET
    };
    let server = start(limits).await;
    let mut busy = server.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(is_silent(&mut busy).await);
    server.shutdown.stop();
    assert_eq!(to_end(&mut busy).await, "");
    drop(busy);
    let drained = timeout(PATIENCE, server.served).await.unwrap().unwrap();
    assert_eq!(drained, Drained::Cut { connections: 1 });
}

#[tokio::test]
async fn f108_the_second_step_does_not_wait() {
    let server = start(QUIET).await;
    let mut busy = server.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(is_silent(&mut busy).await);
    server.shutdown.stop();
    server.shutdown.close();
    assert_eq!(to_end(&mut busy).await, "");
    let drained = timeout(PATIENCE, server.served).await.unwrap().unwrap();
    assert_eq!(drained, Drained::Cut { connections: 1 });
}

#[tokio::test]
async fn a_full_server_can_stop() {
    let limits = Limits {
        connections_max: 1,
        ..QUIET
    };
    let server = start(limits).await;
    let mut only = server.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until(&mut only, "here").await;
    server.shutdown.stop();
    assert_eq!(to_end(&mut only).await, "");
    drop(only);
    assert_eq!(
        timeout(PATIENCE, server.served).await.unwrap().unwrap(),
        Drained::Finished
    );
}

#[test]
fn an_address_in_use_is_a_matter_of_configuration() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _guard = runtime.enter();
    let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let error = bind(first.local_addr().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("127.0.0.1"));
}
