//! What an operator reads.

use std::{
    io,
    sync::{Arc, Mutex},
};

use super::server::{Server, cursor, extract, json, json_with, secret_file, source, status};
use crate::{config::auth::Auth, raw::Bookmark};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn with(&self, word: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines()
            .filter(|line| line.contains(word))
            .map(str::to_owned)
            .collect()
    }
}

#[tokio::test]
async fn f030_r143_r167_the_log_shows_the_wait_the_reason_and_the_success() {
    let lines = Lines::default();
    let sink = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .without_time()
        .with_writer(move || sink.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    // With one subscriber only, an event first met on the thread of another test, which has none, is switched
    // off for all. A second one makes tracing ask every subscriber.
    let bystander = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(io::sink)
        .finish();
    let _bystander = tracing::Dispatch::new(bystander);
    let server = Server::start(|number, _| match number {
        0 => status(429, "", b""),
        1 => json_with(r#"{"data":[{}],"next":"B"}"#, "x-request-id: r-17\r\n"),
        _ => json(r#"{"data":[]}"#),
    })
    .await;
    let (_file, secret) = secret_file("s3cr3t-k3y");
    let mut source = source(&server.url, cursor());
    source.auth = Auth::ApiKeyQuery {
        name: "k".to_owned(),
        value: secret,
    };
    extract(&source, Bookmark::default()).await.result.unwrap();

    let retries = lines.with("request will be sent again");
    assert_eq!(retries.len(), 1, "{retries:?}");
    for part in [
        "WARN",
        "stream=shop.orders",
        "page=1",
        "attempt=1",
        "wait_ms=",
        "reason=status 429",
        "/v1/orders",
    ] {
        assert!(retries[0].contains(part), "{part} in {}", retries[0]);
    }
    let answered = lines.with("request answered");
    assert_eq!(answered.len(), 3);
    for part in [
        "DEBUG",
        "request=2",
        "page=1",
        "status=200",
        "server_request_id=\"r-17\"",
    ] {
        assert!(answered[1].contains(part), "{part} in {}", answered[1]);
    }
    assert!(answered[2].contains("token=B"), "{}", answered[2]);
    assert_eq!(lines.with("page fetched").len(), 2);
    assert!(lines.with("s3cr3t").is_empty(), "{:?}", lines.with("s3cr3t"));
}
