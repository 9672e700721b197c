//! Whether pages lead anywhere, and whether they were all there was.
//!
//! | what the server does | found by | outcome |
//! |---|---|---|
//! | hands out a page token again, at once or in a cycle | hashes of tokens | [`Stuck::TokenRepeats`] |
//! | changes the token and repeats the page | hashes of records, [`REPEATS_MAX`] pages in a row | [`Stuck::PageRepeats`] |
//! | says there is more and sends nothing | pages without records in a row | [`Stuck::EmptyPages`] |
//! | changes its list while it is paged by position | the declared total, records of the page before | [`Alarm::TotalChanged`], [`Alarm::RecordsRepeated`] |
//! | declares more records than it sends | the declared total at the end | [`Alarm::Short`] |
//! | ignores the lower bound | records before it | [`Alarm::FilterIgnored`] |
//! | cuts off connections inside of records | `hasNextPage` inside of records | [`Alarm::NestedMore`] |

use std::{collections::HashSet, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    config::{
        Limits, Stream,
        incremental::{Filter, Order},
        paginate::Paginate,
    },
    error::{Error, ErrorKind},
    extract::paginate::{
        Next, Turn, Why,
        prints::Prints,
        recent::{Recent, hash},
        token,
    },
};

/// Pages in a row whose records have all come before, before it is an error.
pub const REPEATS_MAX: u32 = 3;

/// Records of a page that are compared with those of the next, the last ones of it.
pub const NEIGHBOURS_MAX: usize = 100_000;

/// Percentage of records before the lower bound from which on the API is taken to ignore it.
pub const BEFORE_PERCENT_MAX: u64 = 20;

/// Fewer records than this say nothing about a share of them.
const RECORDS_MIN: u64 = 20;

/// The counts of a window that have to outlive a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Records so far.
    pub records: u64,
    /// Records with a cursor before the lower bound.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub before: u64,
    /// Records that also stood on the page before theirs, counted for paging by position only.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub repeated: u64,
    /// The total the server declared last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// Whether the list changed while it was paged by position: records may have been skipped, and only a complete
    /// pass can tell.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unstable: bool,
}

/// Something a person should hear of. The window goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// The declared total changed while the stream was paged by position.
    TotalChanged {
        /// The page that declared another one.
        page: u64,
        /// What was declared before.
        from: u64,
        /// What is declared now.
        to: u64,
    },
    /// Records of the page before came again while the stream was paged by position.
    RecordsRepeated {
        /// The page they came again on.
        page: u64,
        /// How many.
        records: u64,
    },
    /// The window ended with fewer records than the server declared.
    Short {
        /// Declared last.
        declared: u64,
        /// Seen.
        records: u64,
    },
    /// So many records are before the lower bound that the API seems to ignore it.
    FilterIgnored {
        /// Records before the bound.
        before: u64,
        /// All records.
        records: u64,
    },
    /// Connections inside of records have more pages, which paging the outer one does not reach.
    NestedMore {
        /// The page they are on.
        page: u64,
        /// Records with such a connection.
        records: u64,
    },
}

/// Why a window would never end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// The token after `page` had come before, after the page `first`; 0 for a token of an earlier run.
    TokenRepeats {
        /// The page that leads to it.
        page: u64,
        /// The page that led to it first.
        first: u64,
    },
    /// The records of `page` are those of the page `first`, and so were those of the pages between.
    PageRepeats {
        /// The page.
        page: u64,
        /// The page it repeats.
        first: u64,
    },
    /// Page after page without records, though the server says there is more.
    EmptyPages {
        /// The page.
        page: u64,
        /// See [`Limits::empty_pages_max`].
        empty_pages_max: u32,
    },
}

/// Watches the pages of one window, or of one result set of it.
#[derive(Debug)]
pub struct Guard {
    empty_pages_max: u32,
    seen: Seen,
    /// Tokens that were handed out.
    tokens: Recent,
    /// Count and last record of each page: cheap, and enough to be suspicious.
    prints: Recent,
    /// All records of suspicious pages.
    contents: Recent,
    repeats: u32,
    empty_pages: u32,
    neighbours: HashSet<u64>,
    nested_said: bool,
}

impl Alarm {
    /// One word for logs and lists.
    pub fn name(&self) -> &'static str {
        match self {
            Self::TotalChanged { .. } | Self::RecordsRepeated { .. } => "unstable_pagination",
            Self::Short { .. } => "short",
            Self::FilterIgnored { .. } => "filter_ignored",
            Self::NestedMore { .. } => "nested_more",
        }
    }
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TotalChanged { page, from, to } => write!(
                f,
                "the declared total changed from {from} to {to} at page {page}: records may have been skipped"
            ),
            Self::RecordsRepeated { page, records } => write!(
                f,
                "{records} records of page {page} stood on the page before: others may have been skipped"
            ),
            Self::Short { declared, records } => write!(
                f,
                "the server declared {declared} records and sent {records}: short by {}",
                declared - records
            ),
            Self::FilterIgnored { before, records } => write!(
                f,
                "{before} of {records} records are before the lower bound: the API seems to ignore it"
            ),
            Self::NestedMore { page, records } => write!(
                f,
                "{records} records of page {page} hold connections with more pages: load those as a stream of their own"
            ),
        }
    }
}

impl From<Stuck> for Error {
    fn from(stuck: Stuck) -> Self {
        match stuck {
            Stuck::TokenRepeats { page, first } => {
                let error = Self::new(ErrorKind::Refused, "follow a page token for the second time");
                error.with("page", page).with("first", first)
            }
            Stuck::PageRepeats { page, first } => {
                let error = Self::new(ErrorKind::Refused, "follow pages that repeat");
                error
                    .with("page", page)
                    .with("same as page", first)
                    .with("repeats_max", REPEATS_MAX)
                    .with(
                        "hint",
                        "the API seems to ignore the page token; check where paginate puts it",
                    )
            }
            Stuck::EmptyPages {
                page,
                empty_pages_max,
            } => Self::new(
                ErrorKind::Limit,
                "wait for records that the server says there are",
            )
            .with("page", page)
            .with("empty_pages_max", empty_pages_max),
        }
    }
}

impl Guard {
    /// A guard for a window that has `seen` these, with the tokens it may not meet again: where it stands, and what
    /// an earlier run stumbled over.
    pub fn new<'t>(limits: &Limits, seen: Seen, tokens: impl IntoIterator<Item = &'t str>) -> Self {
        let mut guard = Self {
            empty_pages_max: limits.empty_pages_max,
            seen,
            tokens: Recent::default(),
            prints: Recent::default(),
            contents: Recent::default(),
            repeats: 0,
            empty_pages: 0,
            neighbours: HashSet::new(),
            nested_said: false,
        };
        for token in tokens {
            guard.tokens.meet(hash(token), 0);
        }
        guard
    }

    /// What has been counted.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Looks at a page and what follows it, each page once and in order.
    ///
    /// # Errors
    /// [`Stuck`] if following would never end. The page itself is counted and good.
    pub fn page(&mut self, turn: &Turn<'_>, next: &Next) -> Result<Vec<Alarm>, Stuck> {
        let mut alarms = Vec::new();
        self.seen.records += turn.reading.records;
        self.seen.before += turn.reading.cursors_before;
        let paginate = &turn.stream.paginate.next;
        alarms.extend(self.total(turn));
        if paginate.is_counted() {
            alarms.extend(self.neighbours(turn));
        }
        if matches!(paginate, Paginate::Relay { .. }) && !self.nested_said {
            let records = prints(turn).nested();
            self.nested_said = records > 0;
            let page = turn.page;
            alarms.extend((records > 0).then_some(Alarm::NestedMore { page, records }));
        }
        if let Next::Token(token) = next {
            self.follow(turn, token)?;
        }
        Ok(alarms)
    }

    /// Looks back at the end of the window of `stream`.
    pub fn end(&mut self, stream: &Stream, why: Why) -> Vec<Alarm> {
        let Seen {
            records,
            before,
            total,
            ..
        } = self.seen;
        let wanted = matches!(why, Why::AfterPages | Why::Condition);
        let short = total
            .filter(|declared| *declared > records && !wanted)
            .map(|declared| Alarm::Short { declared, records });
        let filters = stream.incremental.as_ref().is_some_and(|incremental| {
            incremental.filter == Filter::Api && incremental.order != Order::NewestFirst
        });
        // In 128 bits no count overflows.
        let over = u128::from(before) * 100 > u128::from(records) * u128::from(BEFORE_PERCENT_MAX);
        let ignored =
            (filters && over && records >= RECORDS_MIN).then_some(Alarm::FilterIgnored { before, records });
        short.into_iter().chain(ignored).collect()
    }

    fn total(&mut self, turn: &Turn<'_>) -> Option<Alarm> {
        let place = turn.stream.paginate.total.as_ref()?;
        // A body that is not JSON is reported where the token is looked for.
        let declared = token::count_at(place, turn.head, turn.around(place)).ok()??;
        let from = self.seen.total.replace(declared)?;
        if from == declared || !turn.stream.paginate.next.is_counted() {
            return None;
        }
        self.seen.unstable = true;
        Some(Alarm::TotalChanged {
            page: turn.page,
            from,
            to: declared,
        })
    }

    /// A record that came on the page before moved over while the list grew at its head. Records that a page holds more
    /// than once say nothing.
    fn neighbours(&mut self, turn: &Turn<'_>) -> Option<Alarm> {
        let mut here = HashSet::new();
        let mut often = HashSet::new();
        for hash in prints(turn).last() {
            if !here.insert(hash) {
                often.insert(hash);
            }
        }
        here.retain(|hash| !often.contains(hash));
        let repeated = here.iter().filter(|hash| self.neighbours.contains(hash)).count() as u64;
        self.neighbours = here;
        if repeated == 0 {
            return None;
        }
        self.seen.repeated += repeated;
        self.seen.unstable = true;
        Some(Alarm::RecordsRepeated {
            page: turn.page,
            records: repeated,
        })
    }

    fn follow(&mut self, turn: &Turn<'_>, token: &str) -> Result<(), Stuck> {
        let page = turn.page;
        if turn.reading.records == 0 {
            self.empty_pages += 1;
            if self.empty_pages > self.empty_pages_max {
                let empty_pages_max = self.empty_pages_max;
                return Err(Stuck::EmptyPages {
                    page,
                    empty_pages_max,
                });
            }
        } else {
            self.empty_pages = 0;
            self.content(turn)?;
        }
        match self.tokens.meet(hash(token), page) {
            Some(first) => Err(Stuck::TokenRepeats { page, first }),
            None => Ok(()),
        }
    }

    fn content(&mut self, turn: &Turn<'_>) -> Result<(), Stuck> {
        let page = turn.page;
        let print = match &turn.reading.last {
            Some(last) => hash((turn.reading.records, last)),
            None => hash(turn.body),
        };
        let Some(first) = self.prints.meet(print, page) else {
            self.repeats = 0;
            return Ok(());
        };
        if self.contents.meet(prints(turn).all(), page).is_none() {
            self.repeats = 0;
            return Ok(());
        }
        self.repeats += 1;
        if self.repeats < REPEATS_MAX {
            return Ok(());
        }
        Err(Stuck::PageRepeats { page, first })
    }
}

/// The hashes of the records of a page; those of a body that is in a file were taken as it was read.
fn prints(turn: &Turn<'_>) -> Arc<Prints> {
    match &turn.reading.prints {
        Some(prints) => Arc::clone(prints),
        None => Arc::new(Prints::of(turn)),
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}
