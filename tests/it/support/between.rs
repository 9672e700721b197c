//! A server before another server, through which a test acts between two requests.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Response, Uri},
};
use reqwest::{Client, Url, header};

/// Passes every GET on to a server and lets the test act before each.
pub struct Between {
    /// As that of the server, with a port of its own.
    pub base_url: String,
    served: tokio::task::JoinHandle<()>,
}

impl Between {
    /// Awaits `before` with the number of the request, from 0, and passes it on to the server at `base_url`.
    pub async fn start<F>(base_url: &str, before: impl Fn(usize) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let server = Url::parse(base_url).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut ours = server.clone();
        ours.set_port(Some(listener.local_addr().unwrap().port()))
            .unwrap();
        let client = Client::builder().build().unwrap();
        let (number, before) = (Arc::new(AtomicUsize::new(0)), Arc::new(before));
        let pass = move |uri: Uri, mut headers: HeaderMap| {
            let (client, mut url) = (client.clone(), server.clone());
            let (number, before) = (Arc::clone(&number), Arc::clone(&before));
            async move {
                before(number.fetch_add(1, Ordering::SeqCst)).await;
                url.set_path(uri.path());
                url.set_query(uri.query());
                headers.remove(header::ACCEPT_ENCODING);
                // With our own host, which the server puts into the URL of the next page.
                let answer = client.get(url).headers(headers).send().await.unwrap();
                let mut response = Response::builder().status(answer.status());
                for (name, value) in answer.headers() {
                    if *name != header::TRANSFER_ENCODING && *name != header::CONNECTION {
                        response = response.header(name, value);
                    }
                }
                response.body(Body::from(answer.bytes().await.unwrap())).unwrap()
            }
        };
        let app = Router::new().fallback(pass);
        let served = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            base_url: ours.to_string(),
            served,
        }
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.served.abort();
    }
}
