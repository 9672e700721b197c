//! What every request and every answer goes through, whatever it is about.
//!
//! ```text
//! request ─ id, trace ─ form (Host, URI) ─► router, within a deadline, panics caught ─► answer ─ problem in full, id
//! ```

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, StatusCode, Version, header},
    response::{IntoResponse as _, Response},
};
use futures::FutureExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tokio::time::timeout;

use crate::{
    clock::Clock,
    serve::{
        problem::{Asked, Problem, code::Code, of_status},
        request_id::{self, RequestId},
        trace::Trace,
    },
};

/// What every request is held to.
#[derive(Clone, Copy, Debug)]
pub struct EdgeLimits {
    /// Longest path and query together, in bytes; past it the answer is 414.
    pub uri_bytes_max: usize,
    /// Longest time from the request's head to the head of its answer, reading the body included; past it the handler
    /// is dropped and the answer is 503. A handler that must not stop half way lets a task do the work.
    pub request_timeout: Duration,
}

/// Requests in, complete answers out; no sockets.
///
/// Handlers find a [`RequestId`] and a [`Trace`] among the request's extensions, and return a [`Problem`] when they
/// fail.
#[derive(Clone)]
pub struct Edge {
    router: TowerToHyperService<Router>,
    limits: EdgeLimits,
    clock: Clock,
    base: Arc<str>,
}

/// What is kept of a request for its answer.
struct Kept {
    id: RequestId,
    trace: Trace,
    path: String,
    closes: bool,
}

impl Edge {
    /// An edge before `router`; what explains problems is found below `base`, as [`Asked::base`] has it.
    pub fn new(router: Router, limits: EdgeLimits, clock: Clock, base: &str) -> Self {
        Self {
            router: TowerToHyperService::new(router),
            limits,
            clock,
            base: Arc::from(base),
        }
    }

    /// Answers one request; never panics for what a handler does.
    pub async fn answer(&self, mut request: Request<Body>) -> Response {
        let kept = Kept {
            id: RequestId::of(request.headers(), &self.clock),
            trace: Trace::of(request.headers()),
            path: request.uri().path().to_owned(),
            // A request with both Content-Length and Transfer-Encoding may be smuggled past something before us. The
            // HTTP library takes the chunks and hides the length, so every chunked request has to count as one: the
            // connection is closed after it (RFC 9112 section 6.1), and what was smuggled in behind is never read.
            closes: request.version() == Version::HTTP_11
                && request.headers().contains_key(header::TRANSFER_ENCODING),
        };
        let response = match self.check(&request) {
            Err(problem) => problem.into_response(),
            Ok(()) => {
                request.extensions_mut().insert(kept.id.clone());
                request.extensions_mut().insert(kept.trace);
                self.ask(request, &kept).await
            }
        };
        finish(response, &kept, &self.base)
    }

    fn check(&self, request: &Request<Body>) -> Result<(), Problem> {
        // RFC 9112 section 3.2 asks for this 400.
        if request.version() == Version::HTTP_11
            && request.headers().get_all(header::HOST).iter().count() != 1
        {
            return Err(
                Problem::new(Code::InvalidRequest, "a request has exactly one Host header")
                    .with_header(header::CONNECTION, HeaderValue::from_static("close")),
            );
        }
        let uri = request.uri().path_and_query().map_or(0, |uri| uri.as_str().len());
        if uri > self.limits.uri_bytes_max {
            let detail = format!(
                "path and query have more than {} bytes",
                self.limits.uri_bytes_max
            );
            return Err(Problem::new(Code::UriTooLong, detail));
        }
        Ok(())
    }

    async fn ask(&self, request: Request<Body>, kept: &Kept) -> Response {
        let asked = AssertUnwindSafe(self.router.call(request)).catch_unwind();
        match timeout(self.limits.request_timeout, asked).await {
            Ok(Ok(Ok(response))) => response,
            Ok(Ok(Err(never))) => match never {},
            Ok(Err(_panic)) => {
                // What it said is on standard error already; it may quote the request, so it is not repeated.
                tracing::error!(request_id = %kept.id, trace = %kept.trace, path = kept.path, "handler panicked");
                Problem::new(Code::Internal, "the log has the cause").into_response()
            }
            Err(_elapsed) => {
                let detail = format!("no answer within {:?}", self.limits.request_timeout);
                Problem::new(Code::DeadlineExceeded, detail).into_response()
            }
        }
    }
}

fn finish(mut response: Response, kept: &Kept, base: &str) -> Response {
    let told = response.extensions_mut().remove::<Problem>();
    if let Some(problem) = told.or_else(|| bare(&response)) {
        if let Some(cause) = problem.cause().filter(|_| problem.status().is_server_error()) {
            tracing::error!(
                request_id = %kept.id, trace = %kept.trace, path = kept.path,
                code = problem.code().row().name, error = %cause.chain(), "request failed"
            );
        }
        let mut full = problem.render(Some(Asked {
            request_id: &kept.id,
            path: &kept.path,
            base,
        }));
        // What layers and the router added, such as Allow or RateLimit, stays.
        for (name, value) in response.headers() {
            if name != header::CONTENT_LENGTH && !full.headers().contains_key(name) {
                full.headers_mut().insert(name, value.clone());
            }
        }
        *full.extensions_mut() = std::mem::take(response.extensions_mut());
        response = full;
    }
    tracing::debug!(
        request_id = %kept.id, trace = %kept.trace, path = kept.path, status = response.status().as_u16(),
        "request answered"
    );
    let headers = response.headers_mut();
    headers.insert(request_id::HEADER, kept.id.to_header());
    if kept.closes {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The problem behind an answer that failed without saying more than its status, or in a line of text.
fn bare(response: &Response) -> Option<Problem> {
    let status: StatusCode = response.status();
    let said = response.headers().get(header::CONTENT_TYPE);
    let is_plain = said.is_none_or(|said| said.as_bytes().starts_with(b"text/plain"));
    let failed = status.is_client_error() || status.is_server_error();
    let code = of_status(status).filter(|_| failed && is_plain)?;
    Some(Problem::new(code, code.row().documentation))
}

#[cfg(test)]
mod tests;
