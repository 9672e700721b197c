//! Requests beside the pages: what is asked of a job, and files.

use std::sync::Arc;

use crate::{
    config::{
        Stream,
        errors::{Action, ErrorRule},
        format::{Encoding, Format, Syntax},
        paginate::{Paginate, Paging},
        request::{Body, Method, Request},
        text::Text,
    },
    extract::fetch::Fetcher,
    json::JsonPath,
};

/// What a 2xx answer has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// JSON, or empty.
    Json,
    /// Anything: nobody reads it.
    Anything,
}

/// What sends `request`, of which any 2xx is an answer.
pub(crate) fn about(fetcher: &Fetcher, request: &Request, reads: Reads) -> Fetcher {
    let mut source = (*fetcher.source).clone();
    // The body of a GraphQL answer says more than its status.
    if !matches!(request.body, Body::GraphQl { .. }) {
        source.errors.push(any_success());
    }
    let format = match reads {
        Reads::Json => Format::JSON,
        // Every byte is a letter of it.
        Reads::Anything => Format {
            syntax: Syntax::Lines,
            encoding: Encoding::Latin1,
            ..Format::JSON
        },
    };
    let stream = Stream {
        incremental: None,
        ..stream_of(&fetcher.stream, request)
    };
    Fetcher {
        source: Arc::new(source),
        stream: Arc::new(Stream { format, ..stream }),
        ..fetcher.clone()
    }
}

/// A stream of one request whose answer is read as one JSON text.
pub(crate) fn stream_of(stream: &Stream, request: &Request) -> Stream {
    Stream {
        request: request.clone(),
        format: Format::JSON,
        records: JsonPath::ROOT.into(),
        paginate: Paging::plain(Paginate::Single),
        ..stream.clone()
    }
}

fn any_success() -> ErrorRule {
    ErrorRule {
        status: vec![(200, 299)],
        header: None,
        body: None,
        when: None,
        then: Action::Accept,
        wait: Vec::new(),
        message: None,
    }
}

/// A GET with nothing of the project file in it, for a URL that a server told.
pub(crate) fn plain_get() -> Request {
    Request {
        method: Method::Get,
        path: Text::literal(""),
        params: Vec::new(),
        headers: Vec::new(),
        body: Body::None,
    }
}

/// Whether a template of `request` reads `job`, and `member` of it if that is named.
pub(crate) fn uses_job(request: &Request, member: Option<&str>) -> bool {
    let uses = |text: &Text| {
        text.variables().contains("job") && member.is_none_or(|member| text.as_written().contains(member))
    };
    let pairs = request.params.iter().chain(&request.headers);
    uses(&request.path)
        || pairs.into_iter().any(|(_, text)| uses(text))
        || request.body.texts().into_iter().any(uses)
}
