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
    Keyset {
        /// The value within a record.
        key: JsonPath,
        /// Where the next request holds it.
        to: TokenSlot,
    },
    /// A token made by a template over `response`, `headers`, `last_record`, `page` and `records`. Ends when it is empty.
    Template {
        /// The token.
        token: Text,
        /// Where the next request holds it.
        to: TokenSlot,
    },
    /// A GraphQL Relay connection: `pageInfo.endCursor` while `pageInfo.hasNextPage`.
    Relay {
        /// Where the response holds the connection.
        connection: JsonPath,
        /// Where the next request holds the cursor; by default the variable `after`.
        to: TokenSlot,
    },
    /// Found out from the first pages, and said.
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
}

/// When the pages end, besides what the paginator says. Any of these ends them.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// True after the last page; over `response`, `headers`, `last_record`, `page` and `records`.
    pub when: Option<Expr>,
    /// A place that holds true when there is more and false, null or nothing when there is not.
    pub more: Option<Place>,
    /// A page with fewer records than the page size is the last one.
    pub on_short_page: bool,
    /// Statuses that are an end rather than an error, such as 404 behind the last page.
    pub on_status: Vec<u16>,
    /// Pages of one window after which the rest is left alone.
    pub after_pages: Option<u64>,
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
