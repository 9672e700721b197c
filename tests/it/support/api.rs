//! A REST API under the test's control, on loopback: records in, pages out, every request noted.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{Query, State},
    http::{HeaderMap, Response, Uri},
    routing::get,
};
use serde_json::{Value, json};
use tokio::sync::Notify;

/// An answer given instead of a page.
pub struct Scripted {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

#[derive(Default)]
struct Shared {
    /// In the order the API lists them; `updated` orders changes.
    records: Vec<Value>,
    scripted: VecDeque<Scripted>,
    /// After this many more requests, every answer has this status.
    outage: Option<(usize, u16)>,
    /// After this many more requests, one is answered only when it is told to.
    held: Option<(usize, Arc<Notify>)>,
    /// Records that appear once this many more requests were answered.
    late: Option<(usize, Vec<Value>)>,
    requests: Vec<String>,
    api_keys: Vec<Option<String>>,
}

/// `GET /items?cursor=C&limit=L&since=U`: pages `{"data":[…],"next":C}` of the records with `updated >= U`.
///
/// A cursor names the last record of its page, so that records which appear meanwhile shift nothing.
pub struct Api {
    pub base_url: String,
    shared: Arc<Mutex<Shared>>,
    server: tokio::task::JoinHandle<()>,
    _runtime: tokio::runtime::Runtime,
}

impl Api {
    /// Serves `records` until dropped, on a runtime of its own so that a blocking test does not stop it.
    pub fn start(records: Vec<Value>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let shared = Arc::new(Mutex::new(Shared {
            records,
            ..Shared::default()
        }));
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new()
            .route("/items", get(items))
            .with_state(Arc::clone(&shared));
        let server = runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            base_url,
            shared,
            server,
            _runtime: runtime,
        }
    }

    /// Replaces or adds records by `id`.
    pub fn upsert(&self, records: Vec<Value>) {
        self.shared.lock().unwrap().upsert(records);
    }

    /// Adds records by [`Api::upsert`] once `requests` more requests were answered.
    pub fn upsert_after(&self, requests: usize, records: Vec<Value>) {
        self.shared.lock().unwrap().late = Some((requests, records));
    }

    /// Adds records as they are, broken ones too.
    pub fn push(&self, records: Vec<Value>) {
        self.shared.lock().unwrap().records.extend(records);
    }

    /// Gives `answer` to the next request without one.
    pub fn script(&self, answer: Scripted) {
        self.shared.lock().unwrap().scripted.push_back(answer);
    }

    /// Answers `pages` more requests and then only with `status`, until [`Api::heal`].
    pub fn script_after(&self, pages: usize, status: u16) {
        self.shared.lock().unwrap().outage = Some((pages, status));
    }

    /// Holds back the answer to the request after `requests` more, until the handle is notified.
    pub fn hold_after(&self, requests: usize) -> Arc<Notify> {
        let release = Arc::new(Notify::new());
        self.shared.lock().unwrap().held = Some((requests, Arc::clone(&release)));
        release
    }

    /// Waits until a request is held back.
    pub fn wait_until_held(&self) {
        let begun = Instant::now();
        while self.shared.lock().unwrap().held.is_some() {
            assert!(begun.elapsed() < Duration::from_secs(60), "no request came");
            std::thread::yield_now();
        }
    }

    /// Ends the outage.
    pub fn heal(&self) {
        self.shared.lock().unwrap().outage = None;
    }

    /// Path and query of every request since the last call.
    pub fn take_requests(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.lock().unwrap().requests)
    }

    /// The `x-api-key` header of every request so far.
    pub fn api_keys(&self) -> Vec<Option<String>> {
        self.shared.lock().unwrap().api_keys.clone()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn upsert(&mut self, records: Vec<Value>) {
        for record in records {
            self.records.retain(|old| old["id"] != record["id"]);
            self.records.push(record);
        }
        self.records.sort_by_key(|record| record["updated"].as_i64());
    }
}

fn cursor(record: &Value) -> String {
    format!(
        "{}-{}",
        record["updated"],
        record["id"].to_string().trim_matches('"')
    )
}

async fn items(
    State(shared): State<Arc<Mutex<Shared>>>,
    Query(query): Query<HashMap<String, String>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    let held = {
        let mut shared = shared.lock().unwrap();
        match shared.held.take() {
            Some((0, release)) => Some(release),
            Some((requests, release)) => {
                shared.held = Some((requests - 1, release));
                None
            }
            None => None,
        }
    };
    if let Some(release) = held {
        release.notified().await;
    }
    let mut shared = shared.lock().unwrap();
    shared.requests.push(uri.to_string());
    let key = headers
        .get("x-api-key")
        .map(|value| value.to_str().unwrap().to_owned());
    shared.api_keys.push(key);
    if let Some(answer) = shared.scripted.pop_front() {
        let mut response = Response::builder().status(answer.status);
        for (name, value) in answer.headers {
            response = response.header(name, value);
        }
        return response.body(Body::from(answer.body)).unwrap();
    }
    if let Some((pages, status)) = &mut shared.outage {
        if *pages == 0 {
            return Response::builder().status(*status).body(Body::empty()).unwrap();
        }
        *pages -= 1;
    }
    match shared.late.take() {
        Some((0, records)) => shared.upsert(records),
        Some((requests, records)) => shared.late = Some((requests - 1, records)),
        None => {}
    }
    let number = |name: &str| query.get(name).and_then(|text| text.parse::<i64>().ok());
    let since = number("since").unwrap_or(i64::MIN);
    let limit = usize::try_from(number("limit").unwrap_or(10)).unwrap();
    let listed: Vec<&Value> = shared
        .records
        .iter()
        .filter(|record| record["updated"].as_i64().is_none_or(|updated| updated >= since))
        .collect();
    let after = query.get("cursor");
    let start = after.map_or(0, |after| {
        listed.iter().position(|record| cursor(record) == *after).unwrap() + 1
    });
    let page: Vec<&Value> = listed.iter().skip(start).take(limit).copied().collect();
    let next = (start + limit < listed.len()).then(|| cursor(listed[start + limit - 1]));
    let body = json!({"data": page, "next": next}).to_string();
    Response::builder()
        .header("content-type", "application/json")
        .body(Body::from(body))
        .unwrap()
}
