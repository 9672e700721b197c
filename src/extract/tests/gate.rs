//! Token requests pass the circuit breaker of their host, and the budget if the host is the API's own.

use std::{sync::Arc, time::Duration};

use super::{
    auth::oauth,
    server::{Received, Reply, Server, channel, clock, json, source, status},
};
use crate::{
    config::{
        Source,
        auth::{Auth, Grant},
        paginate::Paginate,
        rate::RateLimit,
    },
    error::{ErrorKind, Result},
    extract::{channel::Channel, window::Extraction},
    raw::Bookmark,
};

/// A source whose tokens come from its own host, or from `tokens`; pages at `/v1/orders` end at once.
fn with_tokens(server: &Server, tokens: &Server) -> Source {
    let mut source = source(&server.url, Paginate::Single);
    source.auth = Auth::OAuth2(Box::new(oauth(tokens, Grant::ClientCredentials)));
    source
}

fn token_or_page(_: usize, received: &Received) -> Reply {
    if received.target == "/token" {
        json(r#"{"access_token":"t0ken","expires_in":3600}"#)
    } else {
        json(r#"{"data":[{"id":1}]}"#)
    }
}

async fn fetch_page(source: &Source, channel: &Arc<Channel>) -> Result<()> {
    let stream = &source.streams[0];
    let mut extraction = Extraction::new(source, stream, Arc::clone(channel), clock(), Bookmark::default())?;
    while extraction.next().await?.is_some() {}
    Ok(())
}

#[tokio::test]
async fn r045_a_token_endpoint_that_fails_opens_the_circuit_of_its_host() {
    let tokens = Server::start(|_, _| status(503, "", b"")).await;
    let server = Server::start(token_or_page).await;
    let mut source = with_tokens(&server, &tokens);
    source.breaker.failures = 2;
    source.retry.retry_after_max = Duration::from_secs(1);
    source.streams[0].retry = source.retry;
    let shared = channel(&source, &clock());
    for _ in 0..3 {
        let error = fetch_page(&source, &shared).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.chain().contains("circuit open"), "{}", error.chain());
    }
    // After two failures nobody asks any more.
    assert_eq!((tokens.received().len(), server.received().len()), (2, 0));

    // On the host of the API the circuit is that of the pages.
    let server = Server::start(|_, received| match received.target.as_str() {
        "/token" => status(503, "", b""),
        _ => json(r#"{"data":[]}"#),
    })
    .await;
    source = with_tokens(&server, &server);
    source.breaker.failures = 2;
    source.retry.retry_after_max = Duration::from_secs(1);
    source.streams[0].retry = source.retry;
    let shared = channel(&source, &clock());
    fetch_page(&source, &shared).await.unwrap_err();
    assert!(shared.host().is_err());
    assert_eq!(server.received().len(), 2);
}

#[tokio::test]
async fn r045_the_probe_of_a_host_fetches_its_token_without_waiting_for_itself() {
    let server = Server::start(|number, received| match number {
        0..2 => status(503, "", b""),
        _ => token_or_page(number, received),
    })
    .await;
    let mut source = with_tokens(&server, &server);
    source.breaker.failures = 2;
    source.breaker.open = Duration::from_millis(20);
    source.retry.attempts_max = 2;
    source.streams[0].retry = source.retry;
    let shared = channel(&source, &clock());
    fetch_page(&source, &shared).await.unwrap_err();
    assert!(shared.host().is_err());
    // The page waits, is the probe, and its token goes first.
    let begun = std::time::Instant::now();
    fetch_page(&source, &shared).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let targets: Vec<String> = server
        .received()
        .into_iter()
        .map(|received| received.target)
        .collect();
    assert_eq!(targets, ["/token", "/token", "/token", "/v1/orders"]);
    assert!(shared.host().is_ok());
}

#[tokio::test]
async fn r040_token_requests_of_the_apis_own_host_are_within_the_budget() {
    let server = Server::start(token_or_page).await;
    for (own, expected) in [(true, true), (false, false)] {
        let tokens = Server::start(token_or_page).await;
        let mut source = with_tokens(&server, if own { &server } else { &tokens });
        // Room for one page, and for its token beside it only if that does not count.
        source.rate_limit = Some(RateLimit::simple(1, Duration::from_millis(200)));
        let shared = channel(&source, &clock());
        let begun = std::time::Instant::now();
        fetch_page(&source, &shared).await.unwrap();
        assert_eq!(begun.elapsed() >= Duration::from_millis(200), expected);
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn r040_r053_many_pages_and_one_token_within_a_small_budget_end() {
    let server = Server::start(token_or_page).await;
    let mut source = with_tokens(&server, &server);
    source.rate_limit = Some(RateLimit::simple(3, Duration::from_millis(100)));
    let shared = channel(&source, &clock());
    let pages = (0..8).map(|_| fetch_page(&source, &shared));
    let ended = tokio::time::timeout(Duration::from_secs(30), futures::future::join_all(pages)).await;
    assert!(ended.unwrap().into_iter().all(|page| page.is_ok()));
    let tokens = server.received();
    let tokens = tokens.iter().filter(|received| received.target == "/token");
    assert_eq!((tokens.count(), server.received().len()), (1, 9));
}
