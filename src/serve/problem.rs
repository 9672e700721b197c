//! Answers that say what went wrong, as problem details (RFC 9457).
//!
//! A handler returns a [`Problem`]; the edge adds what only it knows, the request's id and path, and renders it. The type of
//! a problem is its place on the documentation page.

pub mod code;

use std::{borrow::Cow, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value};

use self::code::{Code, Retry};
use crate::{
    error::{Error, ErrorKind},
    serve::request_id::RequestId,
};

/// The path of the page that explains every problem, each under its name.
pub(crate) const PAGE: &str = "/docs";

/// Most faults listed in one answer. The rest is only counted in the detail.
const FAULTS_MAX: usize = 100;

/// One place in the request that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// JSON Pointer (RFC 6901) into the body as a URI fragment (`#/3/id`), or the name of a header or parameter.
    pub pointer: String,
    /// What is wrong there, without the value.
    pub detail: String,
    /// The stable name of what is wrong, for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// Why a request failed, as the producer will read it.
///
/// ```
/// use landfall::serve::problem::{Problem, code::Code};
/// let problem = Problem::new(Code::BodyTooLarge, "bodies of this stream may have 1048576 bytes");
/// assert_eq!(problem.status(), 413);
/// ```
#[derive(Clone, Debug)]
pub struct Problem(Box<Told>);

#[derive(Clone, Debug)]
struct Told {
    code: Code,
    detail: Cow<'static, str>,
    faults: Vec<Fault>,
    retry_after: Option<Duration>,
    headers: HeaderMap,
    cause: Option<Arc<Error>>,
    registered: Option<&'static str>,
    members: Map<String, Value>,
}

/// What a problem document says about the request it answers.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The id of the request.
    pub request_id: &'a RequestId,
    /// The path of the request, without its query: queries may hold secrets.
    pub path: &'a str,
    /// What stands before the path of the page that explains problems: nothing, or a URL without a slash behind.
    pub base: &'a str,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    code: &'static str,
    class: &'static str,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    errors: &'a [Fault],
    #[serde(flatten)]
    members: &'a Map<String, Value>,
}

impl Problem {
    /// A problem of this code; `detail` is a sentence about this occurrence without contents or secrets.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Told {
            code,
            detail: detail.into(),
            faults: Vec::new(),
            retry_after: None,
            headers: HeaderMap::new(),
            cause: None,
            registered: None,
            members: Map::new(),
        }))
    }

    /// Adds a place that is wrong; places beyond the hundredth are left out.
    #[must_use]
    pub fn at(mut self, fault: Fault) -> Self {
        if self.0.faults.len() < FAULTS_MAX {
            self.0.faults.push(fault);
        }
        self
    }

    /// Names the time before which a retry cannot help. Sent in whole seconds, rounded up, at least one.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Adds a header to the answer, replacing the one of that name.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// Names the type by which a standard knows it, in the place of its own on the documentation page.
    #[must_use]
    pub fn known_as(mut self, registered: &'static str) -> Self {
        self.0.registered = Some(registered);
        self
    }

    /// Adds a member of its own to the document (RFC 9457, section 3.2).
    #[must_use]
    pub fn with_member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.members.insert(name.to_owned(), value.into());
        self
    }

    /// Why a request failed.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.0.code.row().status
    }

    /// The failure underneath, for the log; never part of the answer.
    pub fn cause(&self) -> Option<&Error> {
        self.0.cause.as_deref()
    }

    /// Seconds until a retry can help, if there is something to wait for.
    fn wait_seconds(&self) -> Option<u64> {
        let asked = self.0.retry_after.map(|wait| {
            let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            whole.max(1)
        });
        asked.or(match self.0.code.row().retry {
            Retry::After(seconds) => Some(u64::from(seconds)),
            Retry::Never | Retry::Soon => None,
        })
    }

    /// The answer, with what is known about the request.
    pub fn render(&self, asked: Option<Asked<'_>>) -> Response {
        let row = self.0.code.row();
        let retry_after = self.wait_seconds();
        let document = Document {
            r#type: match self.0.registered {
                Some(registered) => registered.to_owned(),
                None => format!("{}{PAGE}#{}", asked.map_or("", |asked| asked.base), row.name),
            },
            title: row.title,
            status: row.status.as_u16(),
            detail: &self.0.detail,
            instance: asked.map(|asked| asked.path),
            code: row.name,
            class: row.class.name(),
            retryable: row.retry != Retry::Never,
            retry_after,
            request_id: asked.map(|asked| asked.request_id.as_str()),
            errors: &self.0.faults,
            members: &self.0.members,
        };
        // Only JSON of its own kind: there is nothing serde_json could refuse.
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = row.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if row.status == StatusCode::UNAUTHORIZED {
            // RFC 9110 section 15.5.2: a 401 must name a scheme.
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        for (name, value) in &self.0.headers {
            headers.insert(name, value.clone());
        }
        response
    }
}

impl From<Error> for Problem {
    /// The one place where a kind of error becomes a status.
    ///
    /// What a producer can act on is told; the rest stays in the log, found by the request id.
    fn from(error: Error) -> Self {
        let (code, detail) = match error.kind() {
            ErrorKind::Conflict => (Code::Conflict, error.to_string().into()),
            ErrorKind::Contract => (Code::ContractViolation, error.to_string().into()),
            ErrorKind::Limit => (Code::LimitReached, error.to_string().into()),
            ErrorKind::Unavailable => (
                Code::Unavailable,
                Cow::Borrowed("something this endpoint depends on does not answer"),
            ),
            ErrorKind::Refused => (
                Code::UpstreamRefused,
                Cow::Borrowed("something this endpoint depends on refused"),
            ),
            ErrorKind::Corrupt => (
                Code::Corrupt,
                Cow::Borrowed("stored bytes are not what was written"),
            ),
            // The project is checked before serving begins; what is found now is ours.
            ErrorKind::Config | ErrorKind::Internal => {
                (Code::Internal, Cow::Borrowed("the log has the cause"))
            }
        };
        let mut problem = Self::new(code, detail);
        problem.0.cause = Some(Arc::new(error));
        problem
    }
}

impl IntoResponse for Problem {
    /// Rendered without the request; the problem itself rides along for the edge to render it in full.
    fn into_response(self) -> Response {
        let mut response = self.render(None);
        response.extensions_mut().insert(self);
        response
    }
}

/// The code for a bare status, as routers answer it; none if the status says something no code does.
pub(crate) fn of_status(status: StatusCode) -> Option<Code> {
    GENERAL.iter().copied().find(|code| code.row().status == status)
}

/// The codes that stand for their status when nothing more is known.
const GENERAL: &[Code] = &[
    Code::Unauthenticated,
    Code::Forbidden,
    Code::InvalidRequest,
    Code::MethodNotAllowed,
    Code::NotAcceptable,
    Code::UriTooLong,
    Code::HeadersTooLarge,
    Code::PreconditionFailed,
    Code::UnsupportedMediaType,
    Code::BodyTooLarge,
    Code::BodyTooSlow,
    Code::RateLimited,
    Code::NotFound,
    Code::StreamGone,
    Code::Conflict,
    Code::ContractViolation,
    Code::Internal,
    Code::UpstreamRefused,
    Code::Unavailable,
    Code::StorageFull,
];

#[cfg(test)]
mod tests;
