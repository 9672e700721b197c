//! Which paginator an API has, as far as an answer shows it.
//!
//! | looked for, in this order | example | paginator |
//! |---|---|---|
//! | the relation `next` of the Link header | `Link: </o?page=2>; rel="next"` | Link header |
//! | a Relay connection | `data.orders.pageInfo.endCursor` | relay |
//! | headers | `X-Next-Page: 2`, `Next-Page: https://…` | cursor, next URL |
//! | a URL under a name for the next page | `links.next`, `next_url`, `@odata.nextLink` | next URL |
//! | a token under a name for the next page | `meta.next_cursor`, `nextPageToken`, `paging.cursors.after` | cursor |
//! | a list of objects with `has_more`, as Stripe has it | `{"object": "list", "has_more": true}` | keyset |
//! | counts | `offset` and `total`, `page` and `total_pages` | offset, page number |
//! | nothing of these | | single |
//!
//! A name alone, with null behind it, is enough where it can mean only one of them. Nothing inside of arrays is looked
//! at, so that a field of a record is not taken for one of the page.

mod found;
mod names;
mod text;

use reqwest::header::HeaderValue;

use crate::{
    config::{Stream, paginate::Paginate, request::Place},
    error::Result,
    extract::{
        link,
        paginate::{
            Turn,
            detect::found::Search,
            fields::{self, Field, Scalar},
        },
    },
};

/// Numbers of records that look like a page size rather than like all there is.
const ROUND: [u64; 16] = [
    10, 12, 15, 20, 24, 25, 30, 40, 50, 60, 100, 200, 250, 500, 1_000, 10_000,
];

/// A paginator found out.
#[derive(Clone, Debug)]
pub struct Detected {
    /// It.
    pub paginate: Paginate,
    /// Where the answer says that there is more.
    pub more: Option<Place>,
    /// Where it says how many pages there are.
    pub pages: Option<Place>,
    /// Where it says how many records there are.
    pub total: Option<Place>,
    /// What was found, in words.
    pub found: String,
    /// What it is worth.
    pub certainty: Certainty,
}

/// What a detection is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// It holds for the life of the stream.
    Settled,
    /// This answer has no next page and does not show how there would be one: the next window has to look again.
    Open,
    /// As open, and there are signs that records are missing: a person should look.
    Doubtful,
}

impl Detected {
    /// The stream with what was found in the place of `auto`; what the project file says besides is kept.
    pub fn applied(&self, stream: &Stream) -> Stream {
        let mut stream = stream.clone();
        let paging = &mut stream.paginate;
        paging.next = self.paginate.clone();
        paging.stop.more = paging.stop.more.take().or_else(|| self.more.clone());
        paging.stop.pages = paging.stop.pages.take().or_else(|| self.pages.clone());
        paging.total = paging.total.take().or_else(|| self.total.clone());
        stream
    }

    fn new(paginate: Paginate, found: String) -> Self {
        Self {
            paginate,
            more: None,
            pages: None,
            total: None,
            found,
            certainty: Certainty::Settled,
        }
    }
}

/// Finds out how the pages of a stream follow each other from the first answer of a window.
///
/// # Errors
/// [`ErrorKind::Refused`](crate::error::ErrorKind::Refused) for a Link header that cannot be read.
pub fn detect(turn: &Turn<'_>) -> Result<Detected> {
    let links = turn.head.headers.get_all("link").iter();
    let target = link::target(links.map(HeaderValue::as_bytes), "next")?;
    let fields = fields::read(turn.body);
    let search = Search {
        turn,
        fields: &fields,
    };
    if target.is_some() {
        return Ok(search.with_total(Detected::new(
            Paginate::LinkHeader,
            "the relation next of the Link header".to_owned(),
        )));
    }
    let found = search
        .relay()
        .or_else(|| search.headers())
        .or_else(|| search.next_url())
        .or_else(|| search.cursor())
        .or_else(|| search.stripe())
        .or_else(|| search.empty_name())
        .or_else(|| search.counts());
    Ok(search.with_total(found.unwrap_or_else(|| single(&search))))
}

/// Nothing was found. Whether that is believable is said.
fn single(search: &Search<'_>) -> Detected {
    let records = search.turn.reading.records;
    let mut found = Detected::new(Paginate::Single, String::new());
    let more = search.flag();
    found.more = more.and_then(|field| search.place(field));
    let says_more = more.is_some_and(|field| field.value == Scalar::Bool(true));
    let total = search.total().and_then(Field::count);
    let (words, certainty) = if says_more {
        let words = "no way to the next page, although the answer says there is one: set paginate".to_owned();
        (words, Certainty::Doubtful)
    } else if let Some(total) = total.filter(|total| *total > records && records > 0) {
        let words = format!(
            "no way to a next page, although {total} records are declared and {records} came: set paginate"
        );
        (words, Certainty::Doubtful)
    } else if ROUND.contains(&records) && more.is_none() {
        let words = format!(
            "no way to a next page; exactly {records} records came, which may be a page of more: check it"
        );
        (words, Certainty::Doubtful)
    } else {
        (
            "no way to a next page: one page is all".to_owned(),
            Certainty::Open,
        )
    };
    Detected {
        found: words,
        certainty,
        ..found
    }
}

#[cfg(test)]
mod tests;
