//! One request, as the routes see it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::Body,
    extract::RawPathParams,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header},
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Body as _;
use tokio::time::timeout;
use url::form_urlencoded;

use crate::{
    clock::Timestamp,
    config::{Name, StreamName},
    receive::producer::limit::Permit,
    serve::{
        app::App,
        body::{self, BodyLimits, Wire, budget::Hold},
        listen::Peer,
        problem::{Problem, code::Code},
        request_id::RequestId,
        trace::Trace,
    },
};

/// Longest value of a header that is kept with a body, in bytes.
pub(crate) const HEADER_KEPT_BYTES_MAX: usize = 1024;

/// What is read of a body that nobody asks for, in bytes.
const REST_BYTES_MAX: usize = 64 << 10;

/// How long that may take.
const REST_TIMEOUT: Duration = Duration::from_secs(1);

/// Headers of a request that are kept with its body: what it is, and what its sender calls it. None that proves who sent it.
const KEPT: [&str; 18] = [
    "content-type",
    "user-agent",
    "webhook-id",
    "webhook-timestamp",
    "svix-id",
    "svix-timestamp",
    "x-github-delivery",
    "x-github-event",
    "x-github-hook-id",
    "x-request-id",
    "x-shopify-api-version",
    "x-shopify-event-id",
    "x-shopify-shop-domain",
    "x-shopify-topic",
    "x-shopify-triggered-at",
    "x-shopify-webhook-id",
    "x-slack-retry-num",
    "x-slack-retry-reason",
];

/// Before the attributes of a CloudEvent in headers (CloudEvents HTTP binding 1.0, section 3.1.3.1).
const CLOUD_EVENT: &str = "ce-";

/// One request, and what its answer will carry whatever comes of it.
pub(crate) struct Call {
    /// Its method.
    pub(crate) method: Method,
    /// Its path, without what stands before every path.
    pub(crate) path: String,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// What names it in every answer and log line.
    pub(crate) request_id: RequestId,
    /// The trace it belongs to.
    pub(crate) trace: Trace,
    /// Who is at the other end of the connection.
    pub(crate) peer: Option<Peer>,
    /// What every answer to it carries.
    pub(crate) told: HeaderMap,
    /// The right to go on with it, once it is admitted.
    pub(crate) permit: Option<Permit>,
    query: Option<String>,
    params: Vec<(String, String)>,
    /// Whether the connection can be used again only if the rest of the body is read.
    is_serial: bool,
    /// Behind a lock only because a body alone cannot be shared between threads.
    body: Mutex<Option<Body>>,
}

/// A body after its coding was undone.
pub(crate) struct Received {
    /// The bytes the sender meant.
    pub(crate) bytes: Bytes,
    /// Their share of the memory for bodies.
    pub(crate) hold: Hold,
    /// When the body was complete.
    pub(crate) at: Timestamp,
}

impl Call {
    /// A request with what the router found in its path.
    pub(crate) fn new(app: &App, params: &RawPathParams, request: Request<Body>) -> Self {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path();
        let path = path.strip_prefix(app.base_path()).unwrap_or(path);
        let request_id = parts.extensions.remove::<RequestId>();
        Self {
            method: parts.method,
            path: path.to_owned(),
            query: parts.uri.query().map(str::to_owned),
            request_id: request_id.unwrap_or_else(|| RequestId::new(&app.clock)),
            trace: parts.extensions.remove::<Trace>().unwrap_or_else(Trace::begin),
            peer: parts.extensions.remove::<Peer>(),
            headers: parts.headers,
            told: HeaderMap::new(),
            permit: None,
            is_serial: parts.version < Version::HTTP_2,
            params: params
                .iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            body: Mutex::new(Some(body)),
        }
    }

    /// What stands in the path for `name`.
    pub(crate) fn param(&self, name: &str) -> &str {
        let mut params = self.params.iter();
        params.find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// The stream that the path names, if that is a name at all.
    pub(crate) fn stream(&self) -> Option<StreamName> {
        Some(StreamName {
            source: Name::new(self.param("source")).ok()?,
            stream: Name::new(self.param("stream")).ok()?,
        })
    }

    /// What stands before the path of a link that is to be copied: what producers call the server, else what this one does.
    pub(crate) fn origin(&self, app: &App) -> String {
        let base = app.base_url();
        if !base.is_empty() {
            return base.to_owned();
        }
        let scheme = if app.serve.tls.is_some() { "https" } else { "http" };
        // It will stand in commands: nothing that a shell reads is taken over.
        let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
        let named = self.header(header::HOST.as_str());
        match named.filter(|host| !host.is_empty() && host.bytes().all(harmless)) {
            Some(host) => format!("{scheme}://{host}"),
            None => format!("{scheme}://{}", app.serve.listen),
        }
    }

    /// The value of the query parameter `name`, which may stand once.
    ///
    /// # Errors
    /// `invalid_request` if it stands more often.
    pub(crate) fn query(&self, name: &'static str) -> Result<Option<String>, Problem> {
        let text = self.query.as_deref().unwrap_or_default();
        let mut values = form_urlencoded::parse(text.as_bytes())
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned());
        match (values.next(), values.next()) {
            (value, None) => Ok(value),
            _ => Err(Problem::new(
                Code::InvalidRequest,
                format!("the parameter {name} stands more than once"),
            )),
        }
    }

    /// Path and query without any value of the query: what is kept of the URL.
    pub(crate) fn url(&self) -> String {
        let Some(query) = self.query.as_deref().filter(|query| !query.is_empty()) else {
            return self.path.clone();
        };
        let pairs = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, _)) => format!("{name}=****"),
            None => "****".to_owned(),
        });
        format!("{}?{}", self.path, pairs.collect::<Vec<_>>().join("&"))
    }

    /// The one value of a header; none if it is not there once, as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok(),
            _ => None,
        }
    }

    /// The headers that are kept with the body; one that stands more often, or too long, is left out.
    pub(crate) fn headers_kept(&self) -> Vec<(String, String)> {
        let names = self.headers.keys().map(HeaderName::as_str);
        let kept = names.filter(|name| KEPT.contains(name) || name.starts_with(CLOUD_EVENT));
        kept.filter_map(|name| Some((name.to_owned(), self.header(name)?.to_owned())))
            .filter(|(_, value)| value.len() <= HEADER_KEPT_BYTES_MAX)
            .collect()
    }

    /// The length of the body, if its sender says it.
    pub(crate) fn body_bytes_declared(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// Reads the body, once.
    ///
    /// # Errors
    /// Those of [`body::receive`] and [`App::go_on`].
    pub(crate) async fn receive(&mut self, app: &App, limits: &BodyLimits) -> Result<Wire, Problem> {
        let body = self.body.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let body = body.unwrap_or_default();
        let permit = &mut self.permit;
        let mut count = |bytes| match permit {
            Some(permit) => app.go_on(permit, bytes),
            None => Ok(()),
        };
        let received = body::receive(&self.headers, body, limits, &app.budget, &mut count).await;
        if received.is_err() {
            self.part();
        }
        received
    }

    /// Reads what is left of a body that was not asked for, so that the connection can be used again; says that it
    /// cannot if that is too much.
    pub(crate) async fn finish(&mut self) {
        let body = self.body.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(body) = body.filter(|body| self.is_serial && !body.is_end_stream()) else {
            return;
        };
        // Whoever waits to be asked for the body is not asked any more.
        let is_held_back = self.headers.contains_key(header::EXPECT);
        let rest = timeout(REST_TIMEOUT, Limited::new(body, REST_BYTES_MAX).collect());
        if is_held_back || !matches!(rest.await, Ok(Ok(_))) {
            self.part();
        }
    }

    /// Says that the connection ends with the answer (RFC 9112, section 9.6): a sender that does not know it could send
    /// its next request into it.
    fn part(&mut self) {
        if self.is_serial {
            self.tell(header::CONNECTION, "close");
        }
    }

    /// Has every answer carry `name`.
    pub(crate) fn tell(&mut self, name: HeaderName, value: &str) {
        if let Ok(value) = HeaderValue::try_from(value) {
            self.told.append(name, value);
        }
    }
}
