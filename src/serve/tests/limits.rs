//! What is refused for now, and a lake that is away.

use std::{fmt, sync::Mutex};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult, path::Path,
};
use tokio::sync::watch;

use super::*;

/// What happens to whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Answered,
    Refused,
    Held,
}

/// A store that can be away, or hang.
pub(super) struct Gate {
    inner: InMemory,
    turn: watch::Sender<Turn>,
    held: watch::Sender<u32>,
    /// What was read, and which bytes of it if not all.
    read: Mutex<Vec<(Path, Option<GetRange>)>>,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self {
            inner: InMemory::new(),
            turn: watch::Sender::new(Turn::Answered),
            held: watch::Sender::new(0),
            read: Mutex::default(),
        }
    }

    /// It answers.
    pub(super) fn open(&self) {
        self.turn.send_replace(Turn::Answered);
    }

    /// It hangs.
    pub(super) fn close(&self) {
        self.turn.send_replace(Turn::Held);
    }

    /// It fails at once.
    pub(super) fn fail(&self) {
        self.turn.send_replace(Turn::Refused);
    }

    /// What was read since this was asked last.
    pub(super) fn read(&self) -> Vec<(Path, Option<GetRange>)> {
        std::mem::take(&mut *self.read.lock().unwrap())
    }

    /// Somebody hangs.
    pub(super) async fn waiting(&self) {
        self.held.subscribe().wait_for(|held| *held > 0).await.unwrap();
    }

    async fn pass(&self) -> StoreResult<()> {
        let mut turn = self.turn.subscribe();
        if *turn.borrow() == Turn::Held {
            self.held.send_modify(|held| *held += 1);
        }
        let turn = *turn.wait_for(|turn| *turn != Turn::Held).await.unwrap();
        match turn {
            Turn::Refused => Err(object_store::Error::Generic {
                store: "gate",
                source: "away".into(),
            }),
            Turn::Answered | Turn::Held => Ok(()),
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

#[async_trait]
impl ObjectStore for Gate {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        self.pass().await?;
        self.inner.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.pass().await?;
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.pass().await?;
        self.read
            .lock()
            .unwrap()
            .push((at.clone(), options.range.clone()));
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.pass().await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f106_a_spool_that_fills_refuses_before_it_is_full_and_drains_when_the_lake_is_back() {
    let mut place = Place::new();
    place.spool.bytes_max = 100_000;
    let store = Arc::new(Gate::new());
    place.store = Arc::clone(&store) as Arc<dyn ObjectStore>;
    let server = place.start(OPEN).await;
    store.fail();
    let mut kept = 0;
    let mut left = Vec::new();
    let refused = loop {
        let body = format!("{{\"id\":{kept},\"pad\":\"{}\"}}", "x".repeat(5000));
        let answer = server.send(server.records("application/json", body)).await;
        if answer.status != 202 {
            break answer;
        }
        kept += 1;
        let limit = answer.header("ratelimit").unwrap().to_owned();
        let rest = limit.split(";r=").nth(1).unwrap().split(';').next().unwrap();
        left.push(rest.parse::<u64>().unwrap());
        assert!(kept < 100, "never refused");
    };
    let (status, code) = refused.problem();
    assert!([429, 503].contains(&status), "{status} {code}");
    assert!(refused.header("retry-after").is_some());
    // What is left falls before anything is refused.
    assert!(left.last().unwrap() * 2 < left[0], "{left:?}");
    // One that is larger than what is left of the spool.
    assert_eq!(server.admin("/livez").await.status, 200);

    store.open();
    while server.admin("/readyz").await.status != 200 {
        tokio::task::yield_now().await;
    }
    server.stop().await;
    assert_eq!(place.landed("shop.orders").await.len(), kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn f106_what_does_not_fit_into_the_spool_is_507() {
    let mut place = Place::new();
    place.spool.bytes_max = 10_000;
    let server = place.start(OPEN).await;
    let body = format!("{{\"pad\":\"{}\"}}", "x".repeat(20_000));
    let answer = server.send(server.records("application/json", body)).await;
    assert_eq!(answer.problem(), expected(507, "storage_full"));
    assert!(answer.header("retry-after").is_some());
    server.stop().await;
    assert!(place.landed("shop.orders").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn f107_a_noisy_producer_meets_its_own_limits_alone() {
    let place = Place::new();
    let [till, web] = super::repeats::tokens(&place);
    let text = super::repeats::KEYED
        .replace("idempotency: required", "")
        .replace(
            "streams: [shop.orders],",
            "streams: [shop.orders], limits: { requests: 5, per: 1h },",
        );
    let server = place.start(&text).await;
    let send = async |token: &str| {
        let request = server
            .records("application/json", "{\"id\":1}")
            .bearer_auth(token);
        server.send(request).await
    };
    let mut refused = 0;
    for _ in 0..20 {
        let answer = send(&web).await;
        if answer.status == 429 {
            refused += 1;
            assert_eq!(answer.problem(), expected(429, "rate_limited"));
            assert!(answer.header("retry-after").is_some());
        }
        assert!(
            answer
                .header("ratelimit-policy")
                .unwrap()
                .contains("\"producer\";q=5;w=3600")
        );
        // Whoever keeps to its rates does not notice.
        assert_eq!(send(&till).await.status, 202);
    }
    assert_eq!(refused, 15);
    server.stop().await;
    assert_eq!(place.landed("shop.orders").await.len(), 25);
}

#[tokio::test(flavor = "multi_thread")]
async fn r156_a_producer_does_what_it_may_and_no_more() {
    let place = Place::new();
    let [till, web] = super::repeats::tokens(&place);
    let server = place.start(super::repeats::KEYED).await;
    let post = |token: &str, stream: &str| {
        server
            .records_to(stream, "", "application/json", "{}")
            .header("idempotency-key", "k")
            .bearer_auth(token)
    };
    let none = server.send(server.records("application/json", "{}")).await;
    assert_eq!(none.problem(), expected(401, "unauthenticated"));
    assert_eq!(none.header("www-authenticate"), Some("Bearer realm=\"landfall\""));
    let wrong = post("lfp_wrong", "orders");
    assert_eq!(
        server.send(wrong).await.problem(),
        expected(401, "unauthenticated")
    );
    assert_eq!(server.send(post(&web, "orders")).await.status, 202);
    assert_eq!(
        server.send(post(&web, "items")).await.problem(),
        expected(403, "forbidden")
    );
    // Not told apart from one that is there.
    assert_eq!(
        server.send(post(&web, "nothing")).await.problem(),
        expected(403, "forbidden")
    );
    assert_eq!(server.send(post(&till, "items")).await.status, 202);
    let read = |token: &str| server.get("/v1/streams").bearer_auth(token);
    assert_eq!(
        server.send(read(&web)).await.problem(),
        expected(403, "forbidden")
    );
    assert_eq!(server.send(read(&till)).await.status, 200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f096_f097_a_body_that_is_too_large_is_not_read_and_one_that_expands_is_not_unpacked() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let place = Place::new();
    let server = place.start(OPEN).await;
    // A gigabyte is announced, and not one byte of it asked for.
    let mut socket = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let head = "POST /v1/streams/shop/orders/records HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                content-length: 1073741824\r\nexpect: 100-continue\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(
        answer.starts_with("HTTP/1.1 413 ") && answer.contains("body_too_large"),
        "{answer}"
    );

    let zeros = vec![b' '; 64 << 20];
    let bomb = zstd::encode_all(&zeros[..], 1).unwrap();
    assert!(bomb.len() < 100_000);
    let request = server
        .records("application/json", bomb)
        .header("content-encoding", "zstd");
    let answer = server.send(request).await;
    assert_eq!(answer.problem(), expected(413, "body_expands_too_much"));
    server.stop().await;
    assert!(place.landed("shop.orders").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn f096_who_was_refused_early_can_go_on() {
    let place = Place::new();
    let text = OPEN.replacen(
        "push: {}",
        "push: { bytes_max: 100KiB, record_bytes_max: 1KiB }",
        1,
    );
    let server = place.start(&text).await;
    for _ in 0..30 {
        let large = server
            .send(server.records("application/json", vec![b' '; 102_401]))
            .await;
        assert_eq!(large.problem(), expected(413, "body_too_large"));
        assert_eq!(large.header("connection"), Some("close"));
        // What was not read of a small one does not cost the connection.
        let small = server.send(server.records("text/plain", "{}")).await;
        assert_eq!(small.problem(), expected(415, "unsupported_media_type"));
        assert_eq!(small.header("connection"), None);
        assert_eq!(
            server.send(server.records("application/json", "{}")).await.status,
            202
        );
    }
    server.stop().await;
}
