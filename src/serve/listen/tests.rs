#[cfg(target_os = "linux")]
mod alone;
mod drain;
mod http1;
mod http2;
mod limits;

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::{
    Extension,
    body::Body,
    http::HeaderMap,
    response::Response,
    routing::{get, post},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::Notify,
    task::JoinHandle,
};

use super::*;
use crate::serve::{
    body::{self, BodyLimits, budget::Budget},
    problem::Problem,
};

/// Longest anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Long enough to see that nothing happens.
const GLANCE: Duration = Duration::from_millis(150);

/// Short times for what is tested, long ones for the rest.
const QUIET: Limits = Limits {
    farewell_timeout: Duration::from_millis(50),
    linger_timeout: Duration::from_millis(300),
    ..Limits::DEFAULT
};

struct Server {
    address: SocketAddr,
    shutdown: Shutdown,
    served: JoinHandle<Drained>,
    /// Requests that reached a handler.
    hits: Arc<AtomicUsize>,
    /// Lets `/wait` go on.
    go: Arc<Notify>,
}

async fn start(limits: Limits) -> Server {
    start_with(limits, None).await
}

async fn start_with(limits: Limits, tls: Option<Arc<Tls>>) -> Server {
    let hits = Arc::new(AtomicUsize::new(0));
    let go = Arc::new(Notify::new());
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = Shutdown::new();
    let options = Options {
        router: router(hits.clone(), go.clone()),
        tls,
        limits,
        clock: Clock::system(),
        base: String::new(),
    };
    let served = tokio::spawn(serve(listener, options, shutdown.clone()));
    Server {
        address,
        shutdown,
        served,
        hits,
        go,
    }
}

fn router(hits: Arc<AtomicUsize>, go: Arc<Notify>) -> Router {
    let budget = Budget::new(8 << 20, Duration::from_secs(1));
    let limits = BodyLimits {
        wire_bytes_max: 1 << 20,
        decoded_bytes_max: 2 << 20,
        grace: Duration::from_millis(200),
        ..BodyLimits::BATCH
    };
    let unpacked = {
        let budget = budget.clone();
        async move |headers: HeaderMap, body: Body| -> Result<String, Problem> {
            let wire = body::receive(&headers, body, &limits, &budget, &mut |_| Ok(())).await?;
            let content = wire.decode(&limits, &budget).await?;
            Ok(format!("{} bytes", content.bytes.len()))
        }
    };
    let receive = async move |headers: HeaderMap, body: Body| -> Result<String, Problem> {
        let wire = body::receive(&headers, body, &limits, &budget, &mut |_| Ok(())).await?;
        Ok(format!("{} bytes", wire.bytes().len()))
    };
    let count = move || {
        hits.fetch_add(1, Ordering::SeqCst);
    };
    Router::new()
        .route(
            "/",
            get({
                let count = count.clone();
                async move || {
                    count();
                    "here"
                }
            }),
        )
        .route(
            "/smuggled",
            get({
                let count = count.clone();
                async move || count()
            }),
        )
        .route(
            "/wait",
            get(async move || {
                count();
                go.notified().await;
                "waited"
            }),
        )
        .route("/body", post(receive))
        .route("/unpacked", post(unpacked))
        .route("/large", get(async || vec![b'x'; 64 << 20]))
        .route(
            "/endless",
            get(async || {
                let chunk = bytes::Bytes::from(vec![b'x'; 1 << 16]);
                Body::from_stream(futures::stream::repeat_with(move || {
                    Ok::<_, io::Error>(chunk.clone())
                }))
            }),
        )
        .route("/panic", get(async || -> Response { panic!("on purpose") }))
        .route(
            "/who",
            get(async |Extension(peer): Extension<Peer>| match peer.identity {
                Some(identity) => identity.names[0].to_string(),
                None => peer.address.ip().to_string(),
            }),
        )
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection on which `bytes` were sent.
    async fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        stream
    }

    /// Everything that is answered to `bytes` until the server closes.
    async fn exchange(&self, bytes: &[u8]) -> String {
        to_end(&mut self.send(bytes).await).await
    }

    fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    /// A whole request of a well-behaved client.
    async fn is_well(&self) {
        let answer = self
            .exchange(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

/// What is read until the other side closes; a reset counts as closing.
async fn to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("the server closes");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What is read until `end` was read.
async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&bytes).ends_with(end) {
            bytes.push(stream.read_u8().await.unwrap());
        }
    };
    timeout(PATIENCE, read).await.expect("an answer");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Whether nothing can be read for a moment: neither bytes nor the end.
async fn is_silent(stream: &mut TcpStream) -> bool {
    timeout(GLANCE, stream.read_u8()).await.is_err()
}
