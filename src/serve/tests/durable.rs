//! Starts and stops.

use futures::future::join_all;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn f108_what_is_under_way_when_it_stops_is_finished_and_lands() {
    let place = Place::new();
    let server = place.start(OPEN).await;
    let sending: Vec<_> = (0..40)
        .map(|id| {
            tokio::spawn(
                server
                    .records("application/json", format!("{{\"id\":{id}}}"))
                    .send(),
            )
        })
        .collect();
    // Some of them are in, some on their way, some not yet there.
    let first = server
        .send(server.records("application/json", "{\"id\":\"first\"}"))
        .await;
    assert_eq!(first.status, 202);
    server.stop().await;
    let mut acknowledged = 1;
    for answer in join_all(sending).await {
        match answer.unwrap() {
            Ok(answer) if answer.status() == 202 => acknowledged += 1,
            Ok(answer) => assert_eq!(answer.status(), 503),
            // It was not let in any more.
            Err(error) => assert!(error.is_connect() || error.is_request(), "{error:?}"),
        }
    }
    let landed = place.landed("shop.orders").await.len();
    assert!(landed >= acknowledged, "{landed} of {acknowledged}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_is_refused_the_spool() {
    let place = Place::new();
    let server = place.start(OPEN).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = Options {
        listener,
        admin_listener,
        spool: place.spool.clone(),
        kept: Kept::in_folder(place.path("another")),
        pace: Pace::USUAL,
    };
    let project = place.project(OPEN);
    let second = run(
        project,
        Arc::clone(&place.store),
        place.clock(),
        options,
        Shutdown::new(),
    )
    .await;
    assert_eq!(second.unwrap_err().kind(), crate::error::ErrorKind::Conflict);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f109_who_hangs_up_is_kept_whole_or_not_at_all_and_may_ask_again() {
    use tokio::io::AsyncWriteExt as _;

    let mut place = Place::new();
    place.spool.ack = spool::Ack::Lake;
    let store = Arc::new(super::limits::Gate::new());
    place.store = Arc::clone(&store) as Arc<dyn ObjectStore>;
    let server = place.start(OPEN).await;
    let post = |id: u32, length: usize, body: &str| {
        format!(
            "POST /v1/streams/shop/orders/records HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
             idempotency-key: k{id}\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    };
    // Half a body.
    let mut socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
    socket
        .write_all(post(1, 20, "{\"id\":1").as_bytes())
        .await
        .unwrap();
    drop(socket);
    // A whole one, and nobody to read the answer.
    store.close();
    let mut socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
    socket
        .write_all(post(2, 8, "{\"id\":2}").as_bytes())
        .await
        .unwrap();
    store.waiting().await;
    drop(socket);
    store.open();
    let repeat = || {
        server
            .records("application/json", "{\"id\":2}")
            .header("idempotency-key", "k2")
    };
    let answer = server.send(repeat()).await;
    assert_eq!(
        (answer.status, answer.header("idempotency-replayed")),
        (202, Some("true"))
    );
    server.stop().await;
    let landed = place.landed("shop.orders").await;
    assert_eq!(landed.len(), 1);
    assert_eq!(landed[0].1, "{\"id\":2}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r093_attempts_and_keys_are_kept_with_the_body() {
    let place = Place::new();
    let server = place.start(OPEN).await;
    let request = server
        .records("application/json", "{\"id\":1}")
        .header("idempotency-key", "\"k\"")
        .header("landfall-attempt", "4");
    assert_eq!(server.send(request).await.status, 202);
    server.stop().await;
    let facts = place.landed("shop.orders").await.remove(0).0;
    assert_eq!((facts.attempts, facts.idempotency_key.as_deref()), (4, Some("k")));
    assert!(facts.first_seen_at.is_some_and(|first| first <= facts.fetched_at));
}
