//! A server on loopback whose answers are a function of the request.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Query,
    http::{HeaderMap, Method, Response, Uri},
};
use serde_json::Value;

/// One request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Its number, from 0.
    pub number: usize,
    pub method: String,
    pub path: String,
    pub query: HashMap<String, String>,
    pub headers: HeaderMap,
    pub body: String,
}

impl Asked {
    /// A query parameter; empty if it is not there.
    pub fn param(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }
}

/// One answer.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }
}

impl From<Value> for Answer {
    fn from(json: Value) -> Self {
        Self {
            status: 200,
            headers: vec![("content-type", "application/json".to_owned())],
            body: json.to_string().into_bytes(),
        }
    }
}

/// Serves until dropped, on a runtime of its own so that a blocking test does not stop it.
pub struct Answers {
    pub base_url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Answers {
    /// Answers with `answer`, one request at a time.
    pub fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&asked), Arc::new(answer));
        let handle = move |method: Method,
                           uri: Uri,
                           Query(query): Query<HashMap<String, String>>,
                           headers: HeaderMap,
                           body: Bytes| {
            let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
            async move {
                let mut log = log.lock().unwrap();
                let asked = Asked {
                    number: log.len(),
                    method: method.to_string(),
                    path: uri.path().to_owned(),
                    query,
                    headers,
                    body: String::from_utf8_lossy(&body).into_owned(),
                };
                log.push(asked.clone());
                let answer = answer(&asked);
                let mut response = Response::builder().status(answer.status);
                for (name, value) in answer.headers {
                    response = response.header(name, value);
                }
                response.body(Body::from(answer.body)).unwrap()
            }
        };
        let app = Router::new().fallback(handle);
        runtime.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            base_url,
            asked,
            _runtime: runtime,
        }
    }

    /// Every request since the last call.
    pub fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}
