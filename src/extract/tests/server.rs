//! A server whose answers are functions of the request, written to the wire as they are.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use url::Url;

use crate::{
    clock::{Clock, Timestamp},
    config::{
        CommitEvery, Deletes, DriftPolicy, Limits, Name, OnMismatch, OnUnknown, Retention, ScdType, Source,
        Stream, StreamName, Table, Timeouts, WriteMode,
        auth::{Auth, Tls},
        errors::{Breaker, Retry},
        format::Format,
        incremental::CursorFormat,
        incremental::Incremental,
        incremental::{Filter, OnExpired, Order},
        paginate::{Paginate, Paging},
        parse_timestamp,
        push::Feed,
        request::Body,
        request::Method,
        request::Place,
        request::Request,
        request::TokenSlot,
        secret::Secret,
        text::Text,
    },
    error::Result,
    extract::{
        channel::Channel,
        progress::Counts,
        window::{Extraction, Position},
    },
    json::JsonPath,
    raw::{Bookmark, Page},
};

/// Requests answered by one server before it gives up on a client that never ends.
const REQUESTS_MAX: usize = 2000;

/// Retries without waits worth noticing.
const RETRY: Retry = Retry {
    attempts_max: 3,
    backoff_start: Duration::from_millis(1),
    backoff_max: Duration::from_millis(2),
    retry_after_max: Duration::from_secs(300),
};

/// One request as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) target: String,
    pub(super) head: String,
    pub(super) body: String,
}

impl Received {
    /// A decoded query parameter.
    pub(super) fn param(&self, name: &str) -> Option<String> {
        let url = Url::parse(&format!("http://x{}", self.target)).unwrap();
        url.query_pairs()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.into_owned())
    }

    /// A header's value.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// What is written back.
pub(super) enum Reply {
    /// These bytes, then the connection is closed.
    Close(Vec<u8>),
    /// These bytes, then silence for as long as the client likes.
    Stall(Vec<u8>),
}

/// 200 with a JSON body and these header lines.
pub(super) fn json_with(body: &str, headers: &str) -> Reply {
    status(
        200,
        &format!("content-type: application/json\r\n{headers}"),
        body.as_bytes(),
    )
}

/// 200 with a JSON body.
pub(super) fn json(body: &str) -> Reply {
    json_with(body, "")
}

/// Any status; `headers` are lines that each end in CRLF.
pub(super) fn status(status: u16, headers: &str, body: &[u8]) -> Reply {
    let head = format!(
        "HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    Reply::Close([head.as_bytes(), body].concat())
}

/// Exactly these bytes.
pub(super) fn wire(head: &str, body: &[u8]) -> Reply {
    Reply::Close([head.replace('\n', "\r\n").as_bytes(), body].concat())
}

/// Answers on loopback until dropped.
pub(super) struct Server {
    pub(super) url: Url,
    received: Arc<Mutex<Vec<Received>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// A server that answers request number `n` (from 0) with `answer(n, request)`.
    pub(super) async fn start(answer: impl Fn(usize, &Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/v1", listener.local_addr().unwrap())).unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&received);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let answer = Arc::new(answer);
            let mut connections = JoinSet::new();
            for _ in 0..REQUESTS_MAX {
                let (socket, _) = listener.accept().await.unwrap();
                connections.spawn(serve(socket, Arc::clone(&answer), Arc::clone(&log)));
            }
        });
        Self {
            url,
            received,
            _tasks: tasks,
        }
    }

    /// Everything received so far.
    pub(super) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Forgets what was received so far.
    pub(super) fn forget(&self) {
        self.received.lock().unwrap().clear();
    }

    /// The request targets so far, without the path.
    pub(super) fn queries(&self) -> Vec<String> {
        let targets = self.received().into_iter().map(|received| received.target);
        targets
            .map(|target| {
                target
                    .split_once('?')
                    .map_or(String::new(), |(_, query)| query.to_owned())
            })
            .collect()
    }
}

async fn serve<A>(mut socket: TcpStream, answer: Arc<A>, log: Arc<Mutex<Vec<Received>>>)
where
    A: Fn(usize, &Received) -> Reply,
{
    let Some(received) = receive(&mut socket).await else {
        return;
    };
    let reply = {
        let mut log = log.lock().unwrap();
        log.push(received.clone());
        answer(log.len() - 1, &received)
    };
    match reply {
        Reply::Close(bytes) => {
            let _ = socket.write_all(&bytes).await;
            let _ = socket.shutdown().await;
            // A reset would take bytes with it that the client has not read.
            let mut rest = [0; 1024];
            while socket.read(&mut rest).await.is_ok_and(|count| count > 0) {}
        }
        Reply::Stall(bytes) => {
            let _ = socket.write_all(&bytes).await;
            std::future::pending::<()>().await;
        }
    }
}

async fn receive(socket: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    let mut step = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let target = head.split(' ').nth(1).unwrap().to_owned();
            let mut received = Received {
                target,
                head,
                body: String::new(),
            };
            let length: usize = received
                .header("content-length")
                .map_or(0, |length| length.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                received.body = String::from_utf8(bytes[end + 4..].to_vec()).unwrap();
                return Some(received);
            }
        }
        match socket.read(&mut step).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&step[..count]),
        }
    }
}

/// The moment every test begins at.
pub(super) fn now() -> Timestamp {
    parse_timestamp("2024-05-01T12:00:00Z").unwrap()
}

/// A clock that begins at [`now`] and goes on.
pub(super) fn clock() -> Clock {
    let began = Instant::now();
    Clock::from_fn(move || now() + began.elapsed())
}

pub(in crate::extract) fn path(text: &str) -> JsonPath {
    JsonPath::parse(text).unwrap()
}

/// Tokens at `$.next`, sent as `cursor`.
pub(in crate::extract) fn cursor() -> Paginate {
    Paginate::Cursor {
        from: Place::Body(path("$.next")),
        to: TokenSlot::Query("cursor".to_owned()),
    }
}

/// `$.t` as RFC 3339, sent as `since`.
pub(in crate::extract) fn incremental(lookback: Duration) -> Incremental {
    Incremental {
        cursor: path("$.t"),
        to: TokenSlot::Query("since".to_owned()),
        format: CursorFormat::Rfc3339,
        also: Vec::new(),
        start: Vec::new(),
        lookback,
        until: None,
        order: Order::Any,
        filter: Filter::Api,
        skew: Incremental::SKEW_DEFAULT,
        on_expired: OnExpired::Stop,
        retained: None,
    }
}

/// A source with one stream `orders`: GET `/orders`, records at `$.data[*]`, retries without waits worth noticing.
pub(in crate::extract) fn source(url: &Url, paginate: Paginate) -> Source {
    let stream = Stream {
        name: StreamName::parse("shop.orders").unwrap(),
        feed: Feed::Pull,
        request: Request {
            method: Method::Get,
            path: Text::literal("/orders"),
            params: Vec::new(),
            headers: Vec::new(),
            body: Body::None,
        },
        format: Format::JSON,
        records: path("$.data[*]").into(),
        paginate: Paging::plain(paginate),
        hydrate: None,
        gaps: None,
        slices: None,
        incremental: None,
        complete: None,
        group: None,
        like: None,
        with: Vec::new(),
        schedule: None,
        fresh_within: None,
        reconcile: None,
        job: None,
        files: None,
        errors: Vec::new(),
        retry: RETRY,
        table: Table {
            keys: vec!["id".to_owned()],
            sequence_by: Vec::new(),
            scd_type: ScdType::Upsert,
            apply_as_deletes: None,
            deletes: Deletes::Soft,
            write_mode: WriteMode::CopyOnWrite,
            delete_absent: false,
            delete_ratio_max: 0.1,
            explode: Vec::new(),
            partition_by: Vec::new(),
            flatten: crate::config::flatten::Flatten::None,
        },
        contract: "contracts/shop.orders.odcs.yaml".into(),
        versions: None,
        drift: DriftPolicy {
            on_unknown: OnUnknown::Rescue,
            on_mismatch: OnMismatch::Quarantine,
        },
        commit: CommitEvery {
            pages: 100,
            bytes: 1 << 26,
            elapsed: Duration::from_secs(60),
        },
        retention: Retention::default(),
        webhook: None,
    };
    Source {
        name: Name::new("shop").unwrap(),
        base_url: url.clone(),
        replicas: Vec::new(),
        config: Vec::new(),
        auth: Auth::None,
        tls: Tls::default(),
        headers: Vec::new(),
        rate_limit: None,
        errors: Vec::new(),
        retry: RETRY,
        breaker: Breaker::DEFAULT,
        timeouts: Timeouts {
            connect: Duration::from_secs(10),
            read: Duration::from_secs(10),
            total: Duration::from_secs(20),
        },
        limits: Limits {
            page_bytes_max: 1 << 20,
            held_bytes_max: 1 << 20,
            part_bytes: 1 << 20,
            decode_ratio_max: 200,
            pages_max: 500,
            empty_pages_max: 2,
        },
        streams: vec![stream],
    }
}

/// An extraction of the source's stream from `bookmark`.
pub(super) fn extraction(source: &Source, bookmark: Bookmark) -> Extraction {
    try_extraction(source, bookmark).unwrap()
}

/// The same, for a bookmark that may not fit.
pub(super) fn try_extraction(source: &Source, bookmark: Bookmark) -> Result<Extraction> {
    let clock = clock();
    let channel = channel(source, &clock);
    Extraction::new(source, &source.streams[0], channel, clock, bookmark)
}

/// The channel of a source that keeps no credentials.
pub(super) fn channel(source: &Source, clock: &Clock) -> Arc<Channel> {
    Arc::new(Channel::open(source, clock, Path::new(""), &std::env::temp_dir()).unwrap())
}

/// A page as it was handed out, and where the extraction stood then.
pub(super) struct Handed {
    pub(super) page: Page,
    pub(super) records: u64,
    pub(super) bookmark: Bookmark,
    pub(super) position: Position,
}

/// Every page up to the end or the first error.
pub(super) struct Outcome {
    pub(super) pages: Vec<Handed>,
    pub(super) result: Result<()>,
    pub(super) counts: Counts,
}

impl Outcome {
    pub(super) fn bodies(&self) -> Vec<&str> {
        self.pages
            .iter()
            .map(|fetched| std::str::from_utf8(&fetched.page.body).unwrap())
            .collect()
    }

    pub(super) fn records(&self) -> u64 {
        self.pages.iter().map(|fetched| fetched.records).sum()
    }

    /// The bookmark after the last page.
    pub(super) fn bookmark(&self) -> Bookmark {
        self.pages.last().unwrap().bookmark.clone()
    }

    pub(super) fn error(&self) -> String {
        self.result.as_ref().unwrap_err().chain()
    }
}

/// Runs an extraction to its end.
pub(super) async fn extract(source: &Source, bookmark: Bookmark) -> Outcome {
    let mut extraction = extraction(source, bookmark);
    let progress = extraction.progress();
    let mut pages = Vec::new();
    let result = loop {
        match extraction.next().await {
            Ok(Some(fetched)) if fetched.page.is_none() => {}
            Ok(Some(fetched)) => pages.push(Handed {
                page: fetched.page.unwrap(),
                records: fetched.records,
                bookmark: extraction.bookmark().clone(),
                position: fetched.position,
            }),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    Outcome {
        pages,
        result,
        counts: progress.counts(),
    }
}

/// The text of a reference secret: a file that lives as long as the handle.
pub(in crate::extract) fn secret_file(value: &str) -> (tempfile::NamedTempFile, Secret) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), value).unwrap();
    let secret = Secret::parse(&format!("${{file:{}}}", file.path().display())).unwrap();
    (file, secret)
}
