//! What APIs call things, in the form of [`plain`](crate::extract::paginate::fields::plain).

/// Names that hold a URL and nothing else.
pub(super) const NEXT_URL: [&str; 10] = [
    "nexturl",
    "nextlink",
    "nexthref",
    "nexturi",
    "nextpageurl",
    "nextpagelink",
    "nextpageuri",
    "odatanextlink",
    "nextrecordsurl",
    "nextpath",
];

/// Names that hold a URL, a token or a number, as the value shows.
pub(super) const NEXT: [&str; 4] = ["next", "nextpage", "nextresults", "nextbatch"];

/// Names of a URL inside of an object called `next`.
pub(super) const URL: [&str; 4] = ["href", "url", "uri", "link"];

/// Names of a token inside of an object called `next`, and what the request calls it: the same.
pub(super) const TOKEN_IN_NEXT: [&str; 7] = [
    "after",
    "cursor",
    "startingafter",
    "token",
    "page",
    "pagetoken",
    "offset",
];

/// What follows `next` in the name of a token.
pub(super) const TOKEN_ENDS: [&str; 10] = [
    "token",
    "cursor",
    "marker",
    "offset",
    "pageid",
    "key",
    "start",
    "pagetoken",
    "pagecursor",
    "pagekey",
];

/// Names of a token without `next` in them, and what the request calls it: the same.
pub(super) const TOKEN: [&str; 7] = [
    "cursor",
    "continuationtoken",
    "continuation",
    "scrollid",
    "bookmark",
    "marker",
    "lastevaluatedkey",
];

/// Names that say whether there is more.
pub(super) const MORE: [&str; 12] = [
    "hasmore",
    "more",
    "hasnext",
    "hasnextpage",
    "hasmoreitems",
    "hasmorerecords",
    "hasmoreresults",
    "morepages",
    "moreresults",
    "moreitems",
    "ismore",
    "istruncated",
];

/// Numbers of pages.
pub(super) const PAGES: [&str; 9] = [
    "totalpages",
    "pages",
    "pagecount",
    "numpages",
    "pagestotal",
    "lastpage",
    "totalpagecount",
    "nbpages",
    "pagetotal",
];

/// The number of this page, and what the request calls it.
pub(super) const PAGE: [(&str, Option<&str>); 8] = [
    // Where nothing is said the request has the same name.
    ("page", None),
    ("pagenumber", None),
    ("pageno", None),
    ("pageindex", None),
    ("currentpage", Some("page")),
    ("currentpagenumber", Some("page")),
    ("pagecurrent", Some("page")),
    ("number", Some("page")),
];

/// The position of the first record of this page; the request has the same name.
pub(super) const OFFSET: [&str; 6] = ["offset", "skip", "startat", "startindex", "start", "recordoffset"];

/// Numbers of records in all.
pub(super) const TOTAL: [&str; 13] = [
    "total",
    "totalcount",
    "totalresults",
    "totalitems",
    "totalrecords",
    "totalelements",
    "totalhits",
    "totalsize",
    "recordcount",
    "numfound",
    "nbhits",
    "resultcount",
    "count",
];

/// Numbers of records on a page.
pub(super) const SIZE: [&str; 9] = [
    "limit",
    "perpage",
    "pagesize",
    "maxresults",
    "size",
    "itemsperpage",
    "pagelimit",
    "rows",
    "hitsperpage",
];
