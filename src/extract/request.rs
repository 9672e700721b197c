//! The request for one page: the stream's request with a lower bound and a page token in it.

use serde_json::Value;
use url::{Url, form_urlencoded};

use crate::{
    config::{Incremental, Method, Paginate, Source, Stream, TokenSlot},
    error::{Error, ErrorKind, Result},
    extract::{auth::header_name, paginate::is_url},
};

/// The token of the first page of a window. No server can send it: an empty token ends a window.
pub const START: &str = "";

/// A request without credentials and without secrets; both are added as it is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct PageRequest {
    /// GET or POST.
    pub method: Method,
    /// Where to, without secret parameters.
    pub url: Url,
    /// Headers that carry the token or the bound.
    pub headers: Vec<(String, String)>,
    /// The JSON body of a POST.
    pub body: Option<Value>,
    /// The page token it was built from; [`START`] for the first page.
    pub token: String,
    /// Query parameters that carry the token or the bound. No parameter of the project file replaces them.
    pub placed: Vec<String>,
}

impl PageRequest {
    /// The request for the page `token` of a window that begins at `since`.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if `token` was not written by the stream's paginator; [`ErrorKind::Refused`] if it
    /// is a URL of another origin.
    pub fn build(source: &Source, stream: &Stream, since: Option<&str>, token: &str) -> Result<Self> {
        let base = &source.base_url;
        let mut request = Self {
            method: stream.request.method,
            url: join(base, &stream.request.path),
            headers: Vec::new(),
            body: stream.request.body.clone(),
            token: token.to_owned(),
            placed: Vec::new(),
        };
        if token != START && is_url(&stream.paginate) {
            let url = Url::parse(token).map_err(|source| bad_token(stream).caused_by(source))?;
            // The next URL carries parameters and bound itself.
            return request.at(base, url);
        }
        for (name, value) in stream
            .request
            .params
            .iter()
            .filter(|(_, value)| !value.is_reference())
        {
            append_query(&mut request.url, name, &value.reveal()?);
        }
        if let (Some(Incremental { to, .. }), Some(since)) = (&stream.incremental, since) {
            request.place(to, since, Value::String(since.to_owned()))?;
        }
        match &stream.paginate {
            Paginate::Single | Paginate::NextUrl { .. } | Paginate::LinkHeader => {}
            Paginate::Cursor { to, .. } => {
                if token != START {
                    request.place(to, token, body_token(to, token))?;
                }
            }
            Paginate::PageNumber { to, first } | Paginate::Offset { to, first } => {
                let number = number(stream, token, *first)?;
                request.place(to, &number.to_string(), Value::from(number))?;
            }
        }
        Ok(request)
    }

    /// The same request to another URL of the source.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] if `url` is not of the origin of `base`.
    pub fn at(&self, base: &Url, url: Url) -> Result<Self> {
        Ok(Self {
            url: same_origin(base, url)?,
            ..self.clone()
        })
    }

    fn place(&mut self, slot: &TokenSlot, text: &str, json: Value) -> Result<()> {
        match slot {
            TokenSlot::Query(name) => {
                set_query(&mut self.url, name, text);
                self.placed.push(name.clone());
            }
            TokenSlot::Header(name) => {
                header_name(name)?;
                self.headers
                    .retain(|(known, _)| !known.eq_ignore_ascii_case(name));
                self.headers.push((name.clone(), text.to_owned()));
            }
            TokenSlot::BodyField(path) => {
                let mut place = self
                    .body
                    .get_or_insert_with(|| Value::Object(serde_json::Map::new()));
                for name in path {
                    if !place.is_object() {
                        *place = Value::Object(serde_json::Map::new());
                    }
                    place = &mut place[name.as_str()];
                }
                *place = json;
            }
        }
        Ok(())
    }
}

/// The number a page-number or offset token stands for.
///
/// # Errors
/// [`ErrorKind::Corrupt`] if it is not a number.
pub fn number(stream: &Stream, token: &str, first: u64) -> Result<u64> {
    if token == START {
        return Ok(first);
    }
    token
        .parse()
        .map_err(|source| bad_token(stream).caused_by(source))
}

/// `url` without its user part, if it has the scheme, host and port of `base`.
///
/// # Errors
/// [`ErrorKind::Refused`] otherwise; credentials never leave the origin they were given for.
pub fn same_origin(base: &Url, mut url: Url) -> Result<Url> {
    let web = matches!(url.scheme(), "http" | "https");
    if !web || url.origin() != base.origin() {
        return Err(Error::new(ErrorKind::Refused, "follow link off origin")
            .with("problem", "next_link_off_origin")
            .with("to", url.origin().ascii_serialization())
            .with("allowed", base.origin().ascii_serialization()));
    }
    // A user part would become credentials. Both setters can only fail for URLs without a host.
    let _ = url.set_username(base.username());
    let _ = url.set_password(base.password());
    url.set_fragment(None);
    Ok(url)
}

/// Sets a query parameter: others of its name go, the rest of the query keeps its bytes.
pub fn set_query(url: &mut Url, name: &str, value: &str) {
    if let Some(query) = url.query() {
        let kept: Vec<&str> = query
            .split('&')
            .filter(|pair| {
                form_urlencoded::parse(pair.as_bytes())
                    .next()
                    .is_none_or(|(known, _)| known != name)
            })
            .collect();
        let kept = kept.join("&");
        url.set_query(Some(kept.as_str()).filter(|kept| !kept.is_empty()));
    }
    append_query(url, name, value);
}

fn append_query(url: &mut Url, name: &str, value: &str) {
    url.query_pairs_mut().append_pair(name, value);
}

/// `path` below the path of `base`; its `?` begins the query.
fn join(base: &Url, path: &str) -> Url {
    let (path, query) = path
        .split_once('?')
        .map_or((path, None), |(path, query)| (path, Some(query)));
    let mut url = base.clone();
    if !path.is_empty() {
        url.set_path(&format!(
            "{}/{}",
            base.path().trim_end_matches('/'),
            path.trim_start_matches('/')
        ));
    }
    if query.is_some() {
        url.set_query(query);
    }
    url
}

/// What a cursor token becomes in a JSON body. There the paginator keeps tokens as JSON text.
fn body_token(slot: &TokenSlot, token: &str) -> Value {
    let text = || Value::String(token.to_owned());
    if !matches!(slot, TokenSlot::BodyField(_)) {
        return text();
    }
    match serde_json::from_str::<Value>(token) {
        // A number that would not come out as it went in is sent as text.
        Ok(Value::Number(number)) if format!("{number}") != token => text(),
        Ok(value) => value,
        Err(_) => text(),
    }
}

fn bad_token(stream: &Stream) -> Error {
    Error::new(ErrorKind::Corrupt, "read page token").with("stream", &stream.name)
}
