//! How the pages of a stream follow each other: the settings.

use crate::{
    config::{
        request::{Place, TokenSlot},
        text::{Expr, Text},
    },
    json::JsonPath,
};

/// How the pages of a stream follow each other.
#[derive(Clone, Debug)]
pub struct Paging {
    /// How the next page is found.
    pub next: Paginate,
    /// How many records a page is asked to hold, if the request says it.
    pub size: Option<PageSize>,
    /// When the pages end although there is a next one, or in a way the paginator does not see by itself.
    pub stop: Stop,
    /// Where the response declares how many records there are in all. A window that ends with fewer is said to be short.
    pub total: Option<Place>,
    /// Begins the window again from its greatest cursor when the API serves no more of one result set. Needs records
    /// in cursor order.
    pub reset_after_records: Option<u64>,
}

/// How the next page is found.
#[derive(Clone, Debug)]
pub enum Paginate {
    /// One page is all.
    Single,
    /// An opaque token in the response, sent back unchanged. Ends when absent, null, false or empty.
    Cursor {
        /// Where the response holds it.
        from: Place,
        /// Where the next request holds it.
        to: TokenSlot,
    },
    /// A whole URL in the response, of the same origin. Ends when absent, null or empty.
    NextUrl {
        /// Where the response holds it.
        from: Place,
    },
    /// A whole URL made by a template over the variables of [`Paginate::Template`], of the same origin. Ends when it is
    /// empty or null.
    MadeUrl {
        /// The URL.
        url: Text,
    },
    /// The `next` relation of the Link header (RFC 8288).
    LinkHeader,
    /// A page number; ends with the first page without records.
    PageNumber {
        /// Where the request holds the number.
        to: TokenSlot,
        /// The number of the first page.
        first: u64,
        /// Whether the first request carries the number.
        on_first: OnFirst,
    },
    /// A record offset; ends with the first page without records.
    Offset {
        /// Where the request holds the offset.
        to: TokenSlot,
        /// The offset of the first record.
        first: u64,
        /// Whether the first request carries the offset.
        on_first: OnFirst,
        /// What the offset grows by.
        step: OffsetStep,
    },
    /// A value of the last record, as `since_id`; ends with the first page without records.
    ///
    /// An API that sends the record of the key again (`>=`) ends where a page that is not full brings no other key; that
    /// needs a page size. An API that orders by two keys needs [`Paginate::Template`].
    Keyset {
        /// The value within a record.
        key: JsonPath,
        /// Where the next request holds it.
        to: TokenSlot,
    },
    /// A token made by a template. Ends when it is empty, null or false. A value that is absent is an error, not an end,
    /// unless the template gives it a default: a misspelt name must not end a window.
    ///
    /// Beside the variables of the request there are `response` (the JSON body), `headers` (by lowercase name), `links`
    /// (of the Link header, by relation), `last_record`, and `page` with `number`, `token`, `size` and `records`.
    Template {
        /// The token.
        token: Text,
        /// Where the next request holds it.
        to: TokenSlot,
    },
    /// A GraphQL Relay connection: `pageInfo.endCursor` while `pageInfo.hasNextPage`. A next page without a cursor is an
    /// error; a cursor without a next page is an end.
    Relay {
        /// Where the response holds the connection.
        connection: JsonPath,
        /// Where the next request holds the cursor; by default the variable `after`.
        to: TokenSlot,
    },
    /// Found out from the first answer that shows it, said, and kept for the life of the stream.
    Auto,
}

/// Whether a count is sent with the first page too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFirst {
    /// Yes. The default.
    Sent,
    /// No: some APIs refuse it.
    Omitted,
}

/// What an offset grows by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetStep {
    /// The records of the page. The default.
    Records,
    /// The page size.
    PageSize,
}

/// How many records a page is asked to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageSize {
    /// Where the request says it.
    pub to: TokenSlot,
    /// Records per page; at least 1.
    pub records: u64,
    /// What a split of a page that is too much for the server goes down to; at least 1. Default 1.
    pub records_min: u64,
    /// What the size is divided by then; at least 2. Default 2.
    pub divide_by: u64,
}

/// When the pages end, besides what the paginator says. Any of these ends them.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// True after the last page; over the variables of [`Paginate::Template`].
    pub when: Option<Expr>,
    /// A place that holds true when there is more and false, 0, null, nothing or a word for no when there is not. While it
    /// holds true no page is the last: one without records is followed, and a missing token is an error.
    pub more: Option<Place>,
    /// A place that holds the number of pages there are: the last of them ends the window.
    pub pages: Option<Place>,
    /// A page with fewer records than the page size is the last one.
    pub on_short_page: bool,
    /// Statuses that are an end rather than an error, such as 404 behind the last page.
    pub on_status: Vec<u16>,
    /// Pages of one window after which the rest is left alone.
    pub after_pages: Option<u64>,
}

impl Paginate {
    /// Whether its tokens are positions in a list, which shift when the list changes.
    pub fn is_counted(&self) -> bool {
        matches!(self, Self::PageNumber { .. } | Self::Offset { .. })
    }
}

impl Paging {
    /// Pages that follow each other as `next` says and in no other way.
    pub fn plain(next: Paginate) -> Self {
        Self {
            next,
            size: None,
            stop: Stop::default(),
            total: None,
            reset_after_records: None,
        }
    }
}
