//! Where the next page is: a pure function of the answer.
//!
//! ```text
//! Turn ─┬─ stop      is the window over, whatever the paginator says?   ─┐
//!       ├─ token     what leads to the next page                        ─┼─► Next ─► guard   does this ever end, and
//!       └─ detect    which paginator it is, for `auto`                  ─┘                    was it all?
//! ```

pub mod detect;
mod fields;
pub mod guard;
pub mod prints;
mod recent;
pub mod resize;
mod stop;
pub(super) mod token;

#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;
use reqwest::header::HeaderValue;
use url::Url;

use crate::{
    config::{
        Stream,
        paginate::{OffsetStep, Paginate},
        request::Place,
    },
    error::{Error, ErrorKind, Result},
    extract::{
        client::Head,
        link,
        paginate::token::Form,
        reading::Reading,
        request::{PageRequest, START, number, same_origin},
    },
    json::JsonPath,
};

/// Longest page token accepted, in bytes. It is stored in every log entry until the window ends.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Everything a paginator may look at.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// The stream, with its paginator.
    pub stream: &'a Stream,
    /// The base URL of its source: links must stay at its origin.
    pub base: &'a Url,
    /// What was asked.
    pub request: &'a PageRequest,
    /// Status, headers and URL of the answer.
    pub head: &'a Head,
    /// The body of the answer.
    pub body: &'a Bytes,
    /// What the body says about its records.
    pub reading: &'a Reading,
    /// The records the page was asked to hold, if it was.
    pub size: Option<u64>,
    /// The number of the page within the window, from 1.
    pub page: u64,
}

impl<'a> Turn<'a> {
    /// Where to look for `place`: not among the records, if it is elsewhere.
    fn around(&self, place: &Place) -> &'a Bytes {
        match (&self.reading.around, place, self.stream.records.only()) {
            (Some(around), Place::Body(path), Some(records)) if path.parts_from(records) => around,
            _ => self.body,
        }
    }
}

/// What follows a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: the window is complete.
    End(Why),
    /// The page with this token, never empty.
    Token(String),
}

/// What ended a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// One page is all.
    OnePage,
    /// The answer leads nowhere.
    NoToken,
    /// The page has no records.
    NoRecords,
    /// The page has no records and leads to itself.
    SamePlace,
    /// The page is not full and has no record behind the key it was asked with.
    SameKey,
    /// The page has fewer records than it was asked for.
    ShortPage,
    /// The condition of the project file holds.
    Condition,
    /// The answer says that there is no more.
    NoMore,
    /// The answer says how many pages there are, and this was the last.
    LastPage,
    /// As many pages as the project file asks for.
    AfterPages,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OnePage => "one page is all",
            Self::NoToken => "no token",
            Self::NoRecords => "no records",
            Self::SamePlace => "no records, and the page leads to itself",
            Self::SameKey => "no record behind the last key",
            Self::ShortPage => "short page",
            Self::Condition => "stop condition",
            Self::NoMore => "the answer says there is no more",
            Self::LastPage => "last page",
            Self::AfterPages => "as many pages as asked for",
        })
    }
}

/// Decides what follows a page.
///
/// | paginator | token | ends |
/// |---|---|---|
/// | single | | always |
/// | cursor, template | the text of a string, a number as written; as JSON text if it goes into a request body | absent, `null`, `""`, `false` |
/// | next URL, made URL, Link header | the absolute URL, resolved against the URL that answered | absent, `null`, `""`, `false` |
/// | page number | the next number | no records |
/// | offset | the offset plus the records seen or the page size | no records |
/// | keyset | the key of the last record | no records, or no other key on a page that is not full |
/// | relay | `endCursor` | `hasNextPage` is `false` |
/// | auto | that of the paginator found by [`detect`](detect::detect) | that of it |
///
/// Before all of them come the [`Stop`](crate::config::paginate::Stop) conditions of the stream. A page with fewer
/// records than asked for is an end only if they say so. The URL of a token may hold secrets of the source; see
/// [`Masks::strip`](crate::extract::mask::Masks::strip).
///
/// # Errors
/// [`ErrorKind::Refused`] for a token that is no text and no number, for a Link header that cannot be read, for a URL
/// of another origin, for a last record without its key, and for an answer that says there is more but not where;
/// [`ErrorKind::Config`] if a template fails; [`ErrorKind::Limit`] beyond [`TOKEN_BYTES_MAX`].
pub fn next(turn: &Turn<'_>) -> Result<Next> {
    if matches!(turn.stream.paginate.next, Paginate::Auto) {
        let found = detect::detect(turn)?.applied(turn.stream);
        return next(&Turn {
            stream: &found,
            ..*turn
        });
    }
    let more = stop::more(turn)?;
    if let Some(why) = stop::ends(turn, more)? {
        return Ok(Next::End(why));
    }
    let records = turn.reading.records;
    match following(turn, more)? {
        Next::Token(token) if token.len() > TOKEN_BYTES_MAX => {
            Err(Error::new(ErrorKind::Limit, "read next page token")
                .with("bytes", token.len())
                .with("token_bytes_max", TOKEN_BYTES_MAX))
        }
        Next::Token(token) if token == turn.request.token && records == 0 && more != Some(true) => {
            Ok(Next::End(Why::SamePlace))
        }
        // An end that the server denies would leave records behind in silence.
        Next::End(why) if more == Some(true) => Err(Error::new(ErrorKind::Refused, "find next page")
            .with("problem", "the answer says there is more but not where")
            .with("found", why)
            .with("page", turn.page)),
        decided => Ok(decided),
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
        Paginate::NextUrl { .. } | Paginate::MadeUrl { .. } | Paginate::LinkHeader => {
            token == START || Url::parse(token).is_ok()
        }
        Paginate::PageNumber { first, .. } | Paginate::Offset { first, .. } => {
            number(stream, token, *first).is_ok()
        }
    }
}

/// Whether the tokens of `paginate` are URLs.
pub fn is_url(paginate: &Paginate) -> bool {
    matches!(
        paginate,
        Paginate::NextUrl { .. } | Paginate::MadeUrl { .. } | Paginate::LinkHeader
    )
}

/// What the paginator alone says.
fn following(turn: &Turn<'_>, more: Option<bool>) -> Result<Next> {
    let head = turn.head;
    Ok(match &turn.stream.paginate.next {
        Paginate::Single | Paginate::Auto => Next::End(Why::OnePage),
        Paginate::Cursor { from, to } => or_end(token::at(from, head, turn.around(from), Form::of(to))?),
        Paginate::Template { token, to } => {
            let made = token.render_json(&stop::vars(turn, &token.variables()))?;
            or_end(token::of_value(&made, Form::of(to))?)
        }
        Paginate::NextUrl { from } => url(turn, token::at(from, head, turn.around(from), Form::Text)?)?,
        Paginate::MadeUrl { url: text } => {
            let made = text.render_json(&stop::vars(turn, &text.variables()))?;
            url(turn, token::of_value(&made, Form::Text)?)?
        }
        Paginate::LinkHeader => {
            let values = head.headers.get_all("link").iter();
            let target = link::target(values.map(HeaderValue::as_bytes), "next")?;
            url(turn, target.filter(|target| !target.is_empty()))?
        }
        Paginate::PageNumber { first, .. } => counted(turn, *first, 1, more)?,
        Paginate::Offset { first, step, .. } => {
            let step = match (step, turn.reading.records, turn.size) {
                (OffsetStep::PageSize, _, Some(size)) => size,
                (OffsetStep::PageSize, _, None) => {
                    return Err(Error::new(ErrorKind::Config, "step to the next offset")
                        .with("problem", "the stream has no page size"));
                }
                // Such a page is followed only if the server says there is more behind it.
                (OffsetStep::Records, 0, Some(size)) => size,
                (OffsetStep::Records, records, _) => records,
            };
            counted(turn, *first, step, more)?
        }
        Paginate::Keyset { key, to } => keyset(turn, key, Form::of(to))?,
        Paginate::Relay { connection, to } => relay(turn, connection, Form::of(to))?,
    })
}

fn or_end(token: Option<String>) -> Next {
    token.map_or(Next::End(Why::NoToken), Next::Token)
}

fn url(turn: &Turn<'_>, link: Option<String>) -> Result<Next> {
    let Some(link) = link else {
        return Ok(Next::End(Why::NoToken));
    };
    let url = turn.head.url.join(&link).map_err(|source| {
        Error::new(ErrorKind::Refused, "read next link")
            .with("problem", "not a URL")
            .caused_by(source)
    })?;
    Ok(Next::Token(same_origin(turn.base, url)?.into()))
}

fn counted(turn: &Turn<'_>, first: u64, step: u64, more: Option<bool>) -> Result<Next> {
    if (turn.reading.records == 0 && more != Some(true)) || step == 0 {
        return Ok(Next::End(Why::NoRecords));
    }
    let following = number(turn.stream, &turn.request.token, first)?.checked_add(step);
    let following = following.ok_or_else(|| Error::new(ErrorKind::Limit, "count pages beyond 2^64"))?;
    Ok(Next::Token(following.to_string()))
}

fn keyset(turn: &Turn<'_>, key: &JsonPath, form: Form) -> Result<Next> {
    let Some(last) = &turn.reading.last else {
        return Ok(Next::End(Why::NoRecords));
    };
    let Some(token) = token::of_bytes(token::first(key, last)?, form)? else {
        return Err(Error::new(ErrorKind::Refused, "read key of last record")
            .with("path", key)
            .with("problem", "the record has no such value")
            .with("hint", "page by a value that every record has"));
    };
    if token != turn.request.token {
        return Ok(Next::Token(token));
    }
    match turn.size {
        Some(size) if turn.reading.records < size => Ok(Next::End(Why::SameKey)),
        _ => Err(Error::new(ErrorKind::Refused, "page past records of one key")
            .with("path", key)
            .with("records", turn.reading.records)
            .with(
                "hint",
                "the page ends with the key it was asked with: set a page size greater than the records that share a \
                 key, or page by two keys with type: template",
            )),
    }
}

fn relay(turn: &Turn<'_>, connection: &JsonPath, form: Form) -> Result<Next> {
    let odd = |problem: &'static str| {
        Error::new(ErrorKind::Refused, "read Relay connection")
            .with("path", connection)
            .with("problem", problem)
    };
    let found = token::first(connection, turn.body)?.unwrap_or(b"null");
    let member = |path: &str| -> Result<Option<&[u8]>> {
        let path = JsonPath::parse(path)
            .map_err(|problem| Error::new(ErrorKind::Internal, "read path").with("problem", problem))?;
        token::first(&path, found)
    };
    match member("$.pageInfo.hasNextPage")? {
        Some(b"true") => {}
        Some(b"false") => return Ok(Next::End(Why::NoMore)),
        _ => {
            return Err(odd("pageInfo.hasNextPage is neither true nor false")
                .with("hint", "ask for pageInfo { hasNextPage endCursor } in the query"));
        }
    }
    match token::of_bytes(member("$.pageInfo.endCursor")?, form)? {
        Some(cursor) => Ok(Next::Token(cursor)),
        None => Err(odd("hasNextPage is true and endCursor is empty")),
    }
}
