//! Idempotency keys.

use super::*;

/// Two producers and a stream that asks for keys.
pub(super) const KEYED: &str = "
lake: ./lake
serve: {}
producers:
  till: { scopes: [ingest, read], streams: ['shop.*'], tokens: { main: { token: '${file:till}' } } }
  web: { scopes: [ingest], streams: [shop.orders], tokens: { main: { token: '${file:web}' } } }
sources:
  shop:
    streams:
      orders: { push: { idempotency: required }, table: { keys: [id] } }
      items: { push: {}, table: { keys: [id] } }
";

/// Makes the tokens that [`KEYED`] names.
pub(super) fn tokens(place: &Place) -> [String; 2] {
    [("till", 1), ("web", 2)].map(|(name, seed)| {
        let token = crate::receive::producer::token::Token::new([seed; 41]);
        std::fs::write(place.path(name), token.reveal()).unwrap();
        token.reveal().to_owned()
    })
}

fn keyed(server: &Server, token: &str, key: &str, body: &'static str) -> reqwest::RequestBuilder {
    server
        .records("application/json", body)
        .bearer_auth(token)
        .header("idempotency-key", key)
}

#[tokio::test(flavor = "multi_thread")]
async fn r083_r084_f091_f093_a_repeat_gets_the_same_answer_also_after_a_restart() {
    let place = Place::new();
    let [till, web] = tokens(&place);
    let server = place.start(KEYED).await;
    let body = "[{\"id\":1}, 7]";
    let first = server.send(keyed(&server, &till, "\"order-1\"", body)).await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (202, None));
    let same = |answer: &Answer| {
        assert_eq!((answer.status, &answer.body), (202, &first.body));
        assert_eq!(answer.header("idempotency-replayed"), Some("true"));
        assert_eq!(answer.header("location"), first.header("location"));
    };
    // A bare word is the same key as the quoted one.
    same(&server.send(keyed(&server, &till, "order-1", body)).await);
    let other = server
        .send(keyed(&server, &till, "order-1", "[{\"id\":2}]"))
        .await;
    assert_eq!(other.problem(), expected(422, "idempotency_key_reused"));
    same(&server.send(keyed(&server, &till, "order-1", body)).await);
    // Another producer has keys of its own.
    let theirs = server.send(keyed(&server, &web, "order-1", body)).await;
    assert_eq!(
        (theirs.status, theirs.header("idempotency-replayed")),
        (202, None)
    );
    server.stop().await;

    let server = place.start(KEYED).await;
    same(&server.send(keyed(&server, &till, "order-1", body)).await);
    server.stop().await;
    assert_eq!(place.landed("shop.orders").await.len(), 2);

    // After its time a key is new.
    place.ahead.store(25 * 60 * 60, Ordering::Relaxed);
    let server = place.start(KEYED).await;
    let later = server.send(keyed(&server, &till, "order-1", body)).await;
    assert_eq!((later.status, later.header("idempotency-replayed")), (202, None));
    server.stop().await;
    let landed = place.landed("shop.orders").await;
    assert_eq!(landed.len(), 3);
    assert_eq!(landed[0].0.idempotency_key.as_deref(), Some("order-1"));
    assert_eq!(landed[0].0.producer.as_deref(), Some("till"));
}

#[tokio::test(flavor = "multi_thread")]
async fn f093_a_ledger_that_is_lost_is_made_again_from_the_spool() {
    let mut place = Place::new();
    // Nothing leaves the spool.
    place.spool.segment_age = Duration::from_secs(600);
    place.pace.drain = Duration::from_millis(50);
    let store = Arc::new(super::limits::Gate::new());
    place.store = Arc::clone(&store) as Arc<dyn ObjectStore>;
    let [till, _] = tokens(&place);
    let body = "[{\"id\":1}, {\"id\":2}, 7]";
    let server = place.start(KEYED).await;
    store.close();
    let first = server.send(keyed(&server, &till, "order-1", body)).await;
    assert_eq!(first.status, 202);
    server.abort().await;

    std::fs::remove_dir_all(place.path("ledger")).unwrap();
    let server = place.start(KEYED).await;
    let again = server.send(keyed(&server, &till, "order-1", body)).await;
    assert_eq!((again.status, &again.body), (202, &first.body));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    store.open();
    server.stop().await;
    assert_eq!(place.landed("shop.orders").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn f090_f095_a_key_that_is_asked_for_must_be_one() {
    let place = Place::new();
    let [till, _] = tokens(&place);
    let server = place.start(KEYED).await;
    let missing = server.records("application/json", "{}").bearer_auth(&till);
    let answer = server.send(missing).await;
    assert_eq!(answer.problem(), expected(400, "idempotency_key_missing"));
    let documented = answer.json()["type"].as_str().unwrap().to_owned();
    let page = server.send(server.get(&documented)).await;
    assert!(String::from_utf8_lossy(&page.body).contains("Idempotency-Key"));
    for key in ["\"\"", "a b", "\"open", &"k".repeat(10 * 1024)] {
        let answer = server
            .send(
                server
                    .records("application/json", "{}")
                    .bearer_auth(&till)
                    .header("idempotency-key", key),
            )
            .await;
        assert_eq!(
            answer.problem(),
            expected(400, "idempotency_key_invalid"),
            "{key}"
        );
    }
    server.stop().await;
    assert!(place.landed("shop.orders").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn f092_f094_r103_an_attempt_that_failed_is_not_remembered_and_one_under_way_is_waited_for() {
    let mut place = Place::new();
    place.spool.ack = spool::Ack::Lake;
    let store = Arc::new(super::limits::Gate::new());
    place.store = Arc::clone(&store) as Arc<dyn ObjectStore>;
    let [till, _] = tokens(&place);
    let server = place.start(KEYED).await;
    let body = "{\"id\":1}";

    // The lake is away: 503, and nothing is remembered.
    store.fail();
    let failed = server.send(keyed(&server, &till, "k", body)).await;
    assert_eq!(failed.problem(), expected(503, "unavailable"));
    assert!(failed.header("retry-after").is_some());

    // The lake hangs: a repeat meets the first one under way.
    store.close();
    let hanging = tokio::spawn(keyed(&server, &till, "k", body).send());
    store.waiting().await;
    let second = server.send(keyed(&server, &till, "k", body)).await;
    assert_eq!(second.problem(), expected(409, "idempotency_key_in_use"));
    assert_eq!(second.header("retry-after"), Some("1"));
    store.open();
    let first = Answer::of(hanging.await.unwrap().unwrap()).await;
    assert_eq!(first.status, 202);
    let third = server.send(keyed(&server, &till, "k", body)).await;
    assert_eq!((third.status, &third.body), (202, &first.body));
    assert_eq!(third.header("idempotency-replayed"), Some("true"));
    server.stop().await;
    assert_eq!(place.landed("shop.orders").await.len(), 1);
}
