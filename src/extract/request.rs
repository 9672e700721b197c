//! The request for one page: the stream's request with a lower bound and a page token in it.

use std::fmt;

use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Map, Value, json};
use url::{Url, form_urlencoded};

use crate::{
    clock::Timestamp,
    config::{
        Source, Stream,
        incremental::{CursorFormat, Incremental},
        paginate::{OnFirst, Paginate},
        request::{Method, Request, TokenSlot},
        text::{Text, Vars},
    },
    error::{Error, ErrorKind, Result},
    extract::{
        auth::{header_name, sensitive},
        body, decode,
        hosts::is_listed,
        paginate::is_url,
    },
};

/// The token of the first page of a window. No server can send it: an empty token ends a window.
pub const START: &str = "";

/// What one page is asked for with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ask {
    /// The token of the page; [`START`] for the first.
    pub token: String,
    /// Its number within the window, from 1.
    pub page: u64,
    /// Records to ask for, if the stream has a page size; else none.
    pub size: Option<u64>,
    /// The lower bound of the window.
    pub since: Option<String>,
    /// The upper bound of the window.
    pub until: Option<String>,
    /// The values of the slice.
    pub slice: Map<String, Value>,
    /// The stream's watermark.
    pub watermark: Option<String>,
    /// The export job the request belongs to: `id`, `response`, `poll` and `target`, as far as they are known.
    pub job: Option<Value>,
    /// The moment, for templates that need one.
    pub now: Option<Timestamp>,
}

/// A request without credentials; they are added as it is sent.
#[derive(Clone, Debug)]
pub struct PageRequest {
    /// GET, POST, PUT, PATCH or DELETE.
    pub method: Method,
    /// Where to, without secret parameters.
    pub url: Url,
    /// Headers that carry the token or the bound.
    pub headers: Vec<(String, String)>,
    /// What it carries.
    pub body: PageBody,
    /// The page token it was built from; [`START`] for the first page.
    pub token: String,
    /// Query parameters that carry the token or the bound. No parameter of the project file replaces them.
    pub placed: Vec<String>,
    /// What its templates are rendered with.
    pub vars: Vars,
    /// Hosts it may lead to besides the source's own; see [`is_listed`].
    pub hosts: Vec<String>,
}

/// What a request carries. `Debug` shows its kind only: a body may hold secrets.
#[derive(Clone, PartialEq)]
pub enum PageBody {
    /// Nothing.
    None,
    /// JSON.
    Json(Value),
    /// Form fields in order.
    Form(Vec<(String, String)>),
    /// Text as it stands.
    Text(String),
}

/// A request with everything in it but the credential.
pub struct Prepared {
    /// The method.
    pub method: Method,
    /// Where to, secrets and all.
    pub url: Url,
    /// Every header.
    pub headers: HeaderMap,
    /// What it carries.
    pub body: PageBody,
}

impl Ask {
    /// The variables of the request's templates: `config`, `slice`, `window` (`since`, `until`), `page` (`token`,
    /// `number`, `size`), `state` (`watermark`), and `job` and `now` if there are any.
    ///
    /// The token of the first page is `none`. A slice shows the values that are declared for it and nothing else of
    /// the record they come from.
    pub fn vars(&self, source: &Source) -> Vars {
        let token = Some(self.token.as_str()).filter(|token| *token != START);
        let config: Map<String, Value> = source.config.iter().cloned().collect();
        let vars = Vars::default()
            .with("config", &config)
            .with("slice", &self.slice)
            .with("window", &json!({"since": self.since, "until": self.until}))
            .with("page", &self.page(json!(token)))
            .with("state", &json!({"watermark": self.watermark}));
        let vars = match &self.job {
            Some(job) => vars.with("job", job),
            None => vars,
        };
        match self.now {
            Some(now) => vars.with_now(now),
            None => vars,
        }
    }

    fn page(&self, token: Value) -> Value {
        json!({"token": token, "number": self.page, "size": self.size})
    }
}

impl PageRequest {
    /// The request for the page `ask` describes.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if the token was not written by the stream's paginator; [`ErrorKind::Refused`] if it
    /// is a URL of another origin; [`ErrorKind::Config`] if a template or a reference cannot be rendered.
    pub fn build(source: &Source, stream: &Stream, ask: &Ask) -> Result<Self> {
        let token = ask.token.as_str();
        let paginate = &stream.paginate.next;
        let count = count(stream, token)?;
        let mut vars = ask.vars(source);
        if let Some((_, Some(number))) = count {
            vars = vars.with("page", &ask.page(Value::from(number)));
        }
        let mut request = Self::of(source, &stream.request, vars)?;
        request.token = token.to_owned();
        if token != START && is_url(paginate) {
            let url = Url::parse(token).map_err(|source| bad_token(stream).caused_by(source))?;
            // The next URL carries parameters and bound itself.
            return request.at(&source.base_url, url);
        }
        if let Some(incremental) = &stream.incremental {
            if let Some(since) = &ask.since {
                request.place(&incremental.to, since, bound(incremental, since))?;
            }
            if let (Some(until), Some(text)) = (&incremental.until, &ask.until) {
                request.place(&until.to, text, bound(incremental, text))?;
            }
        }
        if let (Some(size), Some(records)) = (&stream.paginate.size, ask.size) {
            request.place(&size.to, &records.to_string(), Value::from(records))?;
        }
        match paginate {
            Paginate::Single
            | Paginate::NextUrl { .. }
            | Paginate::MadeUrl { .. }
            | Paginate::LinkHeader
            | Paginate::Auto => {}
            Paginate::Cursor { to, .. }
            | Paginate::Keyset { to, .. }
            | Paginate::Template { to, .. }
            | Paginate::Relay { to, .. } => {
                if token != START {
                    request.place(to, token, body_token(to, token))?;
                }
            }
            Paginate::PageNumber { .. } | Paginate::Offset { .. } => {
                if let Some((to, Some(number))) = count {
                    request.place(to, &number.to_string(), Value::from(number))?;
                }
            }
        }
        Ok(request)
    }

    /// Any request of a source, rendered with `vars`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if a template or a reference cannot be rendered.
    pub fn of(source: &Source, request: &Request, vars: Vars) -> Result<Self> {
        let mut url = join(&source.base_url, &request.path.render_path(&vars)?);
        for (name, value) in &request.params {
            if !is_secret(request, name) {
                for text in anything(value, &vars)? {
                    append_query(&mut url, name, &text);
                }
            }
        }
        Ok(Self {
            method: request.method,
            url,
            headers: Vec::new(),
            body: body::render(&request.body, &vars)?,
            token: START.to_owned(),
            placed: Vec::new(),
            vars,
            hosts: Vec::new(),
        })
    }

    /// The same request to another URL of the source. To one of its other [`hosts`](Self::hosts) goes nothing but the
    /// URL.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] if `url` is neither of the origin of `base` nor of a host that is listed; of the latter
    /// also for a request that is no GET.
    pub fn at(&self, base: &Url, mut url: Url) -> Result<Self> {
        if url.origin() == base.origin() || self.hosts.is_empty() {
            return Ok(Self {
                url: same_origin(base, url)?,
                ..self.clone()
            });
        }
        if self.method != Method::Get || !is_listed(&self.hosts, base, &url) {
            return Err(Error::new(ErrorKind::Refused, "follow link off origin")
                .with("to", url.origin().ascii_serialization())
                .with("allowed", base.origin().ascii_serialization())
                .with(
                    "hint",
                    "list the host in hosts, if files may be fetched from there without credentials",
                ));
        }
        // Both setters can only fail for URLs without a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_fragment(None);
        Ok(Self {
            url,
            headers: Vec::new(),
            body: PageBody::None,
            ..self.clone()
        })
    }

    /// The request as it is sent to a host that is not the source's own: nothing of ours is in it.
    pub fn prepare_bare(&self) -> Prepared {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(decode::ACCEPT_ENCODING));
        Prepared {
            method: Method::Get,
            url: self.url.clone(),
            headers,
            body: PageBody::None,
        }
    }

    /// The request as it is sent, but for the credential. A header of the project file goes before the type of the body.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if a secret cannot be read or does not fit into a header.
    pub fn prepare(&self, source: &Source, request: &Request) -> Result<Prepared> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*;q=0.5"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(decode::ACCEPT_ENCODING));
        match &self.body {
            PageBody::None | PageBody::Text(_) => {}
            PageBody::Json(_) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            }
            PageBody::Form(_) => {
                let form = HeaderValue::from_static("application/x-www-form-urlencoded");
                headers.insert(CONTENT_TYPE, form);
            }
        }
        for (name, value) in &source.headers {
            headers.insert(header_name(name)?, sensitive(name, &value.reveal()?)?);
        }
        for (name, value) in &request.headers {
            if let Some(text) = something(value, &self.vars)? {
                headers.insert(header_name(name)?, sensitive(name, &text)?);
            }
        }
        for (name, value) in &self.headers {
            headers.insert(header_name(name)?, sensitive(name, value)?);
        }
        let mut url = self.url.clone();
        let mut set = Vec::new();
        for (name, value) in &request.params {
            if !is_secret(request, name) || self.placed.contains(name) {
                continue;
            }
            for text in anything(value, &self.vars)? {
                // A URL of the server may hold the parameter already.
                if set.contains(&name) {
                    append_query(&mut url, name, &text);
                } else {
                    set_query(&mut url, name, &text);
                    set.push(name);
                }
            }
        }
        Ok(Prepared {
            method: self.method,
            url,
            headers,
            body: self.body.clone(),
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
            TokenSlot::BodyField(path) => self.body.set(path, text, json),
            TokenSlot::Template => {}
        }
        Ok(())
    }
}

impl PageBody {
    /// Sets a field, outermost name first; a form has the names joined by dots. In an array a name is an index, and
    /// the one behind the last adds an element.
    pub fn set(&mut self, path: &[String], text: &str, json: Value) {
        if let Self::Form(fields) = self {
            let name = path.join(".");
            fields.retain(|(known, _)| *known != name);
            fields.push((name, text.to_owned()));
            return;
        }
        if !matches!(self, Self::Json(_)) {
            *self = Self::Json(Value::Object(Map::new()));
        }
        if let Self::Json(root) = self {
            body::set_field(root, path, json);
        }
    }

    /// The bytes on the wire; none for no body.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        match self {
            Self::None => None,
            Self::Json(value) => Some(value.to_string().into_bytes()),
            Self::Form(fields) => {
                let mut form = form_urlencoded::Serializer::new(String::new());
                form.extend_pairs(fields);
                Some(form.finish().into_bytes())
            }
            Self::Text(text) => Some(text.clone().into_bytes()),
        }
    }
}

impl fmt::Debug for PageBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Json(_) => "Json(****)",
            Self::Form(_) => "Form(****)",
            Self::Text(_) => "Text(****)",
        })
    }
}

/// A bound as it stands in a JSON body: of a format of whole numbers a number.
fn bound(incremental: &Incremental, text: &str) -> Value {
    let number = match incremental.format {
        CursorFormat::Integer
        | CursorFormat::EpochSeconds
        | CursorFormat::EpochMillis
        | CursorFormat::EpochMicros => text.parse::<i64>().ok(),
        CursorFormat::Rfc3339 | CursorFormat::Date | CursorFormat::Pattern(_) | CursorFormat::Feed => None,
    };
    number.map_or_else(|| text.into(), Value::from)
}

/// What a template gives; none if that is nothing. A text without templates is always something.
fn something(text: &Text, vars: &Vars) -> Result<Option<String>> {
    let rendered = text.render(vars)?;
    Ok(Some(rendered).filter(|rendered| !(rendered.is_empty() && text.is_template())))
}

/// What a parameter or form field is sent with, once for each; a list in a template gives several.
pub(super) fn anything(text: &Text, vars: &Vars) -> Result<Vec<String>> {
    let mut rendered = text.render_each(vars)?;
    rendered.retain(|rendered| !(rendered.is_empty() && text.is_template()));
    Ok(rendered)
}

/// Whether any value of a parameter is secret. All of them are put into the URL together, as it is sent.
fn is_secret(request: &Request, name: &str) -> bool {
    let mut values = request.params.iter().filter(|(known, _)| known == name);
    values.any(|(_, value)| value.is_reference())
}

/// Where a counting paginator puts its number, and the number unless this request goes without.
fn count<'a>(stream: &'a Stream, token: &str) -> Result<Option<(&'a TokenSlot, Option<u64>)>> {
    let (Paginate::PageNumber { to, first, on_first }
    | Paginate::Offset {
        to, first, on_first, ..
    }) = &stream.paginate.next
    else {
        return Ok(None);
    };
    let number = number(stream, token, *first)?;
    let sent = token != START || *on_first == OnFirst::Sent;
    Ok(Some((to, sent.then_some(number))))
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
