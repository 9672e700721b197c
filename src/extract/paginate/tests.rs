//! Paginators against answers made by hand and against a server of a few lines.

mod decisions;
mod guards;
mod model;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::*;
use crate::{
    config::{
        Source,
        paginate::PageSize,
        request::{Body, Method, TokenSlot},
        text::Text,
    },
    extract::{
        request::{Ask, PageBody},
        tests::server::source,
    },
};

/// What a server answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Reply {
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Value,
}

impl Reply {
    pub(super) fn new(body: Value) -> Self {
        Self {
            headers: Vec::new(),
            body,
        }
    }
}

/// A page with all that a turn borrows.
pub(super) struct Page {
    pub(super) request: PageRequest,
    pub(super) head: Head,
    pub(super) body: Bytes,
    pub(super) reading: Reading,
    pub(super) size: Option<u64>,
    pub(super) page: u64,
}

impl Page {
    pub(super) fn turn<'a>(&'a self, source: &'a Source, stream: &'a Stream) -> Turn<'a> {
        Turn {
            stream,
            base: &source.base_url,
            request: &self.request,
            head: &self.head,
            body: &self.body,
            reading: &self.reading,
            size: self.size,
            page: self.page,
        }
    }

    /// The ids of its records.
    pub(super) fn ids(&self, stream: &Stream) -> Vec<u64> {
        let mut ids = Vec::new();
        let _ = stream.records.select(&self.body, &mut |range| {
            let record: Value = serde_json::from_slice(&self.body[range]).unwrap();
            ids.push(record["id"].as_u64().unwrap());
        });
        ids
    }
}

/// A source whose stream pages as `paginate` says.
pub(super) fn project(paginate: Paginate) -> Source {
    source(&Url::parse("http://api.example/v1").unwrap(), paginate)
}

/// The page that `reply` makes in answer to a request with `token`.
pub(super) fn answered(source: &Source, stream: &Stream, token: &str, page: u64, reply: &Reply) -> Page {
    let size = stream.paginate.size.as_ref().map(|size| size.records);
    let ask = Ask {
        token: token.to_owned(),
        page,
        size,
        ..Ask::default()
    };
    let request = PageRequest::build(source, stream, &ask).unwrap();
    let body = Bytes::from(reply.body.to_string());
    let (mut records, mut last) = (0, None);
    let _ = stream.records.select(&body, &mut |range| {
        records += 1;
        last = Some(body.slice(range));
    });
    let mut headers = HeaderMap::new();
    for (name, value) in &reply.headers {
        headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_str(value).unwrap(),
        );
    }
    Page {
        head: Head {
            status: 200,
            headers,
            url: request.url.clone(),
        },
        request,
        reading: Reading {
            records,
            last,
            ..Reading::default()
        },
        body,
        size,
        page,
    }
}

/// Follows the pages of `serve` to their end. `auto` is found out once and kept as text.
pub(super) fn drive(
    source: &Source,
    pages_max: u64,
    mut serve: impl FnMut(&PageRequest) -> Reply,
) -> Result<(Vec<Page>, Why)> {
    let mut stream = source.streams[0].clone();
    let (mut token, mut pages) = (START.to_owned(), Vec::new());
    for number in 1..=pages_max {
        assert!(fits(&stream, &token), "{token}");
        let empty = answered(source, &stream, &token, number, &Reply::default());
        let page = answered(source, &stream, &token, number, &serve(&empty.request));
        if matches!(stream.paginate.next, Paginate::Auto) {
            let found = detect::detect(&page.turn(source, &stream))?;
            stream = match found.to_text() {
                Some(text) => detect::Detected::from_text(&text)?.applied(&stream),
                None => found.applied(&stream),
            };
        }
        let next = next(&page.turn(source, &stream))?;
        pages.push(page);
        match next {
            Next::End(why) => return Ok((pages, why)),
            Next::Token(next) => token = next,
        }
    }
    panic!("{pages_max} pages and no end");
}

/// The value a request holds at a slot.
pub(super) fn sent(request: &PageRequest, slot: &TokenSlot) -> Option<String> {
    match slot {
        TokenSlot::Query(name) => query(request, name),
        TokenSlot::Header(name) => {
            let header = request.headers.iter().find(|(known, _)| known == name);
            header.map(|(_, value)| value.clone())
        }
        TokenSlot::BodyField(path) => {
            let PageBody::Json(body) = &request.body else {
                return None;
            };
            match path.iter().try_fold(body, |body, name| body.get(name))? {
                Value::String(text) => Some(text.clone()),
                Value::Null => None,
                other => Some(other.to_string()),
            }
        }
        TokenSlot::Template => None,
    }
}

pub(super) fn query(request: &PageRequest, name: &str) -> Option<String> {
    let mut pairs = request.url.query_pairs();
    pairs
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.into_owned())
}

pub(super) fn path(text: &str) -> JsonPath {
    JsonPath::parse(text).unwrap()
}

pub(super) fn param(name: &str) -> TokenSlot {
    TokenSlot::Query(name.to_owned())
}

pub(super) fn field(path: &str) -> TokenSlot {
    TokenSlot::BodyField(path.split('.').map(str::to_owned).collect())
}

pub(super) fn size(records: u64) -> Option<PageSize> {
    Some(PageSize {
        to: param("limit"),
        records,
        records_min: 1,
        divide_by: 2,
    })
}

/// A stream that posts a JSON body.
pub(super) fn posting(mut source: Source) -> Source {
    source.streams[0].request.method = Method::Post;
    source.streams[0].request.body = Body::Json(json!({}).into());
    source
}

pub(super) fn text(text: &str) -> Text {
    Text::parse(text).unwrap()
}
