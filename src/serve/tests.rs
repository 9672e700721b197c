//! The whole server over real sockets, with a lake and a spool in a temporary folder.

mod channels;
mod durable;
mod fates;
mod found;
mod headers;
mod judged;
mod kill;
mod limits;
mod pushed;
mod repeats;
mod signed;
mod strangers;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use chrono::TimeDelta;
use futures::TryStreamExt as _;
use object_store::{ObjectStore, memory::InMemory};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    clock::Clock,
    config::{Project, StreamName, read, spool},
    error::Result,
    raw::{BatchNumber, PageFacts, log::RawLog, read::page},
    receive::{ledger::Kept, spool::pace::Pace},
    serve::{
        listen::Drained,
        run::{Options, run},
        shutdown::Shutdown,
    },
};

/// Longest anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two streams that anybody on this machine may push to.
const OPEN: &str = "
lake: ./lake
serve: {}
sources:
  shop:
    streams:
      orders: { push: {}, table: { keys: [id] } }
      items: { push: {}, table: { keys: [id] } }
";

/// Where a server keeps things, over any number of starts.
struct Place {
    dir: TempDir,
    store: Arc<dyn ObjectStore>,
    spool: spool::Spool,
    pace: Pace,
    /// Seconds that the clock is ahead of the machine's.
    ahead: Arc<AtomicI64>,
}

/// A server that runs.
struct Server {
    address: SocketAddr,
    admin: SocketAddr,
    shutdown: Shutdown,
    task: JoinHandle<Result<Drained>>,
    client: reqwest::Client,
}

/// What was answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Bytes,
}

impl Place {
    fn new() -> Self {
        Self::with(Arc::new(InMemory::new()))
    }

    fn with(store: Arc<dyn ObjectStore>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool::Spool {
            segment_age: Duration::from_millis(20),
            ..spool::Spool::usual(dir.path())
        };
        Self {
            dir,
            store,
            spool,
            pace: Pace {
                backoff_start: Duration::from_millis(1),
                backoff_max: Duration::from_millis(20),
                ..Pace::USUAL
            },
            ahead: Arc::default(),
        }
    }

    fn clock(&self) -> Clock {
        let (machine, ahead) = (Clock::system(), Arc::clone(&self.ahead));
        Clock::from_fn(move || machine.now() + TimeDelta::seconds(ahead.load(Ordering::Relaxed)))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn project(&self, text: &str) -> Arc<Project> {
        let loaded = read::parse(text, self.dir.path());
        let loaded = loaded.unwrap_or_else(|problems| panic!("{problems:?}"));
        Arc::new(loaded.project)
    }

    async fn start(&self, text: &str) -> Server {
        self.start_in(text, self.path("ledger")).await
    }

    async fn start_in(&self, text: &str, ledger: PathBuf) -> Server {
        let bind = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = Options {
            listener: bind().await,
            admin_listener: bind().await,
            spool: self.spool.clone(),
            kept: Kept::in_folder(ledger),
            pace: self.pace,
        };
        let (address, admin) = (
            options.listener.local_addr().unwrap(),
            options.admin_listener.local_addr().unwrap(),
        );
        let shutdown = Shutdown::new();
        let serving = run(
            self.project(text),
            Arc::clone(&self.store),
            self.clock(),
            options,
            shutdown.clone(),
        );
        let server = Server {
            address,
            admin,
            shutdown,
            task: tokio::spawn(serving),
            client: reqwest::Client::builder()
                .timeout(PATIENCE)
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .unwrap(),
        };
        server.started().await;
        server
    }

    /// Every page of `stream` in the lake.
    async fn landed(&self, stream: &str) -> Vec<(PageFacts, Bytes)> {
        landed(&self.store, stream).await
    }
}

async fn landed(store: &Arc<dyn ObjectStore>, stream: &str) -> Vec<(PageFacts, Bytes)> {
    let log = RawLog {
        store: Arc::clone(store),
        stream: StreamName::parse(stream).unwrap(),
    };
    let Some(head) = log.head().await.unwrap() else {
        return Vec::new();
    };
    let mut pages = Vec::new();
    let mut entries = log.entries(BatchNumber::FIRST..=head.number);
    while let Some(entry) = entries.try_next().await.unwrap() {
        for number in 0..u32::try_from(entry.pages()).unwrap() {
            pages.push(page(&**store, &entry, number).await.unwrap());
        }
    }
    pages
}

impl Server {
    async fn started(&self) {
        // The admin listener is there before the server has started.
        while self.admin("/startupz").await.status != 200 {
            assert!(!self.task.is_finished(), "the server did not start");
            tokio::task::yield_now().await;
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        Answer::of(request.send().await.unwrap()).await
    }

    fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.post(format!("http://{}{path}", self.address))
    }

    fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("http://{}{path}", self.address))
    }

    fn put(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.put(format!("http://{}{path}", self.address))
    }

    async fn admin(&self, path: &str) -> Answer {
        self.send(self.client.get(format!("http://{}{path}", self.admin)))
            .await
    }

    /// Posts records to `shop.orders`.
    fn records(&self, content_type: &str, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        self.records_to("orders", "", content_type, body)
    }

    fn records_to(
        &self,
        stream: &str,
        query: &str,
        content_type: &str,
        body: impl Into<reqwest::Body>,
    ) -> reqwest::RequestBuilder {
        self.post(&format!("/v1/streams/shop/{stream}/records{query}"))
            .header("content-type", content_type)
            .body(body)
    }

    /// Ends it in the middle of everything, as far as that goes within one process: nothing more reaches the lake.
    async fn abort(self) {
        self.shutdown.close();
        let _ = self.task.await;
    }

    /// Stops in order; whatever was acknowledged is in the lake then.
    async fn stop(self) {
        self.shutdown.stop();
        assert_eq!(self.task.await.unwrap().unwrap(), Drained::Finished);
    }
}

impl Answer {
    async fn of(response: reqwest::Response) -> Self {
        Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.bytes().await.unwrap(),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&self.body)))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The status and the code of the problem.
    fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let document = self.json();
        assert_eq!(document["status"], self.status);
        (self.status, document["code"].as_str().unwrap().to_owned())
    }
}

fn expected(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}
