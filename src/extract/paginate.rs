//! Where the next page is: a pure function of the answer.

use reqwest::header::HeaderValue;
use url::Url;

use crate::{
    config::{Stream, paginate::Paginate, request::Place, request::TokenSlot},
    error::{Error, ErrorKind, Result},
    extract::{
        client::Head,
        link,
        request::{PageRequest, START, number, same_origin},
    },
    json::{self, JsonPath},
};

/// Longest page token accepted, in bytes. It is stored in every log entry until the window ends.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// What follows a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: the window is complete.
    End,
    /// The page with this token, never empty.
    Token(String),
}

/// Decides what follows the page that `head` and `body` answered to `request`, with `records` in it.
///
/// | paginator | token | ends |
/// |---|---|---|
/// | single | | always |
/// | cursor | the text of a string, number as written; as JSON text if it goes into a request body | absent, `null`, `""`, `false` |
/// | next URL, Link header | the absolute URL, resolved against the URL that answered | absent, `null`, `""`, `false` |
/// | page number | the next number | no records |
/// | offset | the offset plus the records seen | no records |
///
/// A page with fewer records than asked for is not an end. The URL of a token may hold secrets of the source; see
/// [`Masks::strip`](crate::extract::mask::Masks::strip).
///
/// # Errors
/// [`ErrorKind::Refused`] for a token that is no text and no number, for a Link header that cannot be read, and for a
/// URL of another origin; [`ErrorKind::Limit`] beyond [`TOKEN_BYTES_MAX`].
pub fn next(
    stream: &Stream,
    base: &Url,
    request: &PageRequest,
    head: &Head,
    body: &[u8],
    records: u64,
) -> Result<Next> {
    let token = match &stream.paginate.next {
        Paginate::Single => None,
        Paginate::Cursor { from, to } => {
            let form = if matches!(to, TokenSlot::BodyField(_)) {
                Form::Json
            } else {
                Form::Text
            };
            place(from, head, body, form)?
        }
        Paginate::NextUrl { from } => place(from, head, body, Form::Text)?
            .map(|link| resolve(base, head, &link))
            .transpose()?,
        Paginate::LinkHeader => {
            let values = head.headers.get_all("link").iter();
            let target = link::target(values.map(HeaderValue::as_bytes), "next")?;
            let target = target.filter(|target| !target.is_empty());
            target.map(|link| resolve(base, head, &link)).transpose()?
        }
        Paginate::PageNumber { first, .. } => following(stream, request, *first, records, 1)?,
        Paginate::Offset { first, .. } => following(stream, request, *first, records, records)?,
        Paginate::Keyset { .. } | Paginate::Template { .. } | Paginate::Relay { .. } | Paginate::Auto => {
            return Err(Error::new(ErrorKind::Config, "paginate").with("problem", "not available yet"));
        }
    };
    match token {
        None => Ok(Next::End),
        Some(token) if token.len() > TOKEN_BYTES_MAX => {
            Err(Error::new(ErrorKind::Limit, "read next page token")
                .with("bytes", token.len())
                .with("token_bytes_max", TOKEN_BYTES_MAX))
        }
        Some(token) => Ok(Next::Token(token)),
    }
}

/// Whether `token` could have been written by the paginator the stream has now.
pub fn fits(stream: &Stream, token: &str) -> bool {
    match &stream.paginate.next {
        Paginate::Single => token == START,
        Paginate::Cursor { .. }
        | Paginate::Keyset { .. }
        | Paginate::Template { .. }
        | Paginate::Relay { .. }
        | Paginate::Auto => true,
        Paginate::NextUrl { .. } | Paginate::LinkHeader => token == START || Url::parse(token).is_ok(),
        Paginate::PageNumber { first, .. } | Paginate::Offset { first, .. } => {
            number(stream, token, *first).is_ok()
        }
    }
}

/// Whether the tokens of `paginate` are URLs.
pub fn is_url(paginate: &Paginate) -> bool {
    matches!(paginate, Paginate::NextUrl { .. } | Paginate::LinkHeader)
}

#[derive(Clone, Copy)]
enum Form {
    Text,
    Json,
}

fn following(
    stream: &Stream,
    request: &PageRequest,
    first: u64,
    records: u64,
    step: u64,
) -> Result<Option<String>> {
    if records == 0 {
        return Ok(None);
    }
    let following = number(stream, &request.token, first)?.checked_add(step);
    let following = following.ok_or_else(|| Error::new(ErrorKind::Limit, "count pages beyond 2^64"))?;
    Ok(Some(following.to_string()))
}

fn resolve(base: &Url, head: &Head, link: &str) -> Result<String> {
    let url = head.url.join(link).map_err(|source| {
        Error::new(ErrorKind::Refused, "read next link")
            .with("problem", "not a URL")
            .caused_by(source)
    })?;
    Ok(same_origin(base, url)?.into())
}

fn place(place: &Place, head: &Head, body: &[u8], form: Form) -> Result<Option<String>> {
    match place {
        Place::Header(name) => {
            let Some(value) = head.headers.get(name) else {
                return Ok(None);
            };
            let text = value
                .to_str()
                .map_err(|_| odd_token("a header that is not text"))?;
            if text.is_empty() {
                return Ok(None);
            }
            Ok(Some(match form {
                Form::Text => text.to_owned(),
                Form::Json => serde_json::Value::from(text).to_string(),
            }))
        }
        Place::Body(path) => {
            let value = first(path, body)?;
            value.map_or(Ok(None), |value| token(value, form))
        }
    }
}

fn first<'a>(path: &JsonPath, body: &'a [u8]) -> Result<Option<&'a [u8]>> {
    path.first(body)
        .map_err(|defect| Error::new(ErrorKind::Refused, "read next page token").with("problem", defect))
}

fn token(value: &[u8], form: Form) -> Result<Option<String>> {
    let text = || {
        std::str::from_utf8(value)
            .map(str::to_owned)
            .map_err(|_| odd_token("not UTF-8"))
    };
    match value.first() {
        Some(b'"') => {
            let string = json::text(value).ok_or_else(|| odd_token("a broken string"))?;
            if string.is_empty() {
                return Ok(None);
            }
            match form {
                Form::Text => Ok(Some(string.into_owned())),
                Form::Json => text().map(Some),
            }
        }
        Some(b'-' | b'0'..=b'9') => text().map(Some),
        Some(b'n' | b'f') | None => Ok(None),
        _ => Err(odd_token("neither text nor a number")),
    }
}

fn odd_token(problem: &'static str) -> Error {
    Error::new(ErrorKind::Refused, "read next page token").with("problem", problem)
}
