//! The single searches.

use serde_json::Map;
use url::form_urlencoded;

use crate::{
    config::{
        paginate::{OffsetStep, OnFirst, Paginate},
        request::{Body, Place, TokenSlot},
    },
    extract::{
        paginate::{
            Turn,
            detect::{Certainty, Detected, names},
            fields::{Field, Scalar, path, plain},
        },
        request::PageBody,
    },
    json::JsonPath,
};

/// An answer in which a paginator is looked for.
pub(super) struct Search<'a> {
    pub(super) turn: &'a Turn<'a>,
    pub(super) fields: &'a [Field],
}

impl Search<'_> {
    pub(super) fn relay(&self) -> Option<Detected> {
        let has_next = self
            .fields
            .iter()
            .find(|field| field.parent() == "pageinfo" && field.name() == "hasnextpage")?;
        let cursor = self
            .fields
            .iter()
            .any(|field| field.is_beside(has_next) && field.written() == "endCursor");
        if !cursor || has_next.written() != "hasNextPage" {
            return None;
        }
        let connection = path(&has_next.path[..has_next.path.len() - 2])?;
        let to = match &self.turn.stream.request.body {
            Body::GraphQl { query, .. } => {
                let variable = after_variable(&query.as_written()).unwrap_or("after".to_owned());
                TokenSlot::BodyField(vec!["variables".to_owned(), variable])
            }
            _ if self.turn.request.method.has_body() => {
                TokenSlot::BodyField(vec!["variables".to_owned(), "after".to_owned()])
            }
            _ => TokenSlot::Query("after".to_owned()),
        };
        let words = format!(
            "a Relay connection at {connection}, its cursor sent as {}",
            show(&to)
        );
        Some(Detected::new(Paginate::Relay { connection, to }, words))
    }

    pub(super) fn headers(&self) -> Option<Detected> {
        let cursors = [
            ("x-next-page", "page"),
            ("x-next-cursor", "cursor"),
            ("x-next-token", "token"),
            ("x-ms-continuationtoken", "continuationToken"),
        ];
        let headers = &self.turn.head.headers;
        if let Some((name, param)) = cursors.iter().find(|(name, _)| headers.contains_key(*name)) {
            let to = TokenSlot::Query((*param).to_owned());
            let words = format!("the header {name}, sent back as {}", show(&to));
            let from = Place::Header((*name).to_owned());
            return Some(Detected::new(Paginate::Cursor { from, to }, words));
        }
        if headers.contains_key("next-page") {
            let from = Place::Header("next-page".to_owned());
            let words = "a URL in the header next-page".to_owned();
            return Some(Detected::new(Paginate::NextUrl { from }, words));
        }
        let pages = ["x-total-pages", "x-page-count", "x-pagination-page-count"];
        let name = pages.iter().find(|name| headers.contains_key(**name))?;
        let pages = Place::Header((*name).to_owned());
        Some(self.page_number("page", 1, Some(pages), &format!("the header {name}")))
    }

    pub(super) fn next_url(&self) -> Option<Detected> {
        let field = self.fields.iter().find(|field| {
            let name = field.name();
            let named = names::NEXT_URL.contains(&name.as_str())
                || names::NEXT.contains(&name.as_str())
                || (names::NEXT.contains(&field.parent().as_str()) && names::URL.contains(&name.as_str()));
            let certain = names::NEXT_URL.contains(&name.as_str());
            let value =
                matches!(&field.value, Scalar::Text(text) if is_link(text) || (certain && !text.is_empty()));
            named && value
        })?;
        self.url_at(field)
    }

    pub(super) fn cursor(&self) -> Option<Detected> {
        self.fields.iter().find_map(|field| {
            match &field.value {
                Scalar::Text(text) if !text.is_empty() => {}
                Scalar::Number(_) => {}
                Scalar::Text(_) | Scalar::Null | Scalar::Bool(_) => return None,
            }
            self.token_at(field)
        })
    }

    pub(super) fn stripe(&self) -> Option<Detected> {
        if !self.is_list() {
            return None;
        }
        let more = self.flag().filter(|field| field.name() == "hasmore")?;
        let key = JsonPath::parse("$.id").ok()?;
        key.first(self.turn.reading.last.as_ref()?).ok()??;
        let to = TokenSlot::Query("starting_after".to_owned());
        let words = format!(
            "the id of the last record, sent as {} while {}",
            show(&to),
            dollar(more)
        );
        Some(Detected {
            more: self.place(more),
            ..Detected::new(Paginate::Keyset { key, to }, words)
        })
    }

    /// A name for the next page with nothing behind it: there is none this time.
    pub(super) fn empty_name(&self) -> Option<Detected> {
        let empty = |field: &&Field| {
            let nothing = match &field.value {
                Scalar::Null | Scalar::Bool(false) => true,
                Scalar::Text(text) => text.is_empty(),
                Scalar::Bool(true) | Scalar::Number(_) => false,
            };
            // What goes on without `next` in its name is as often the cursor of this page.
            nothing && (field.name().starts_with("next") || names::NEXT.contains(&field.parent().as_str()))
        };
        let open = |field: &Field| Detected {
            certainty: Certainty::Open,
            ..Detected::new(
                Paginate::Single,
                format!(
                    "no next page, and {} does not show what it would be",
                    dollar(field)
                ),
            )
        };
        let empty: Vec<&Field> = self.fields.iter().filter(empty).collect();
        let certain = empty.iter().find_map(|field| {
            let name = field.name();
            if names::NEXT_URL.contains(&name.as_str()) {
                return self.url_at(field);
            }
            self.token_at(field)
                .filter(|_| !names::NEXT.contains(&name.as_str()))
        });
        let doubtful = || {
            let field = empty
                .iter()
                .find(|field| names::NEXT.contains(&field.name().as_str()))?;
            Some(open(field))
        };
        certain.or_else(doubtful)
    }

    pub(super) fn counts(&self) -> Option<Detected> {
        let count = |known: &[&str]| {
            self.fields
                .iter()
                .find(|field| known.contains(&field.name().as_str()) && field.count().is_some())
        };
        let (total, size, pages) = (self.total(), count(&names::SIZE), count(&names::PAGES));
        if let Some(offset) = count(&names::OFFSET)
            && total.or(size).is_some_and(|field| field.is_beside(offset))
        {
            let asked = self.asked(offset.written());
            let first = asked.or(offset.count()).filter(|first| *first <= 1).unwrap_or(0);
            let to = self.slot(offset.written());
            let words = format!("{}; offsets sent as {}, first {first}", dollar(offset), show(&to));
            return Some(Detected::new(
                Paginate::Offset {
                    to,
                    first,
                    on_first: OnFirst::Sent,
                    step: OffsetStep::Records,
                },
                words,
            ));
        }
        let page = names::PAGE.iter().find_map(|(known, param)| {
            let field = count(&[known])?;
            // `number` alone is too common a name.
            let believed = *known != "number" || pages.is_some();
            believed.then_some((field, param.unwrap_or(field.written())))
        });
        match (page, pages) {
            (Some((field, param)), pages) => {
                let beside = pages.or(size).or(total)?;
                if !beside.is_beside(field) {
                    return None;
                }
                let first = field.count().filter(|first| *first <= 1).unwrap_or(1);
                let pages = pages.and_then(|field| self.place(field));
                Some(self.page_number(param, first, pages, &dollar(field)))
            }
            (None, Some(field)) => Some(self.page_number("page", 1, self.place(field), &dollar(field))),
            (None, None) => None,
        }
    }

    /// The field that says whether there is more.
    pub(super) fn flag(&self) -> Option<&Field> {
        self.fields.iter().find(|field| {
            matches!(field.value, Scalar::Bool(_)) && names::MORE.contains(&field.name().as_str())
        })
    }

    /// The field that says how many records there are.
    pub(super) fn total(&self) -> Option<&Field> {
        let records = self.turn.reading.records;
        names::TOTAL.iter().find_map(|known| {
            self.fields.iter().find(|field| {
                // A `count` is as often that of this page.
                let count = field
                    .count()
                    .filter(|count| *known != "count" || *count > records);
                field.name() == *known && count.is_some()
            })
        })
    }

    /// The same, and where the total is declared.
    pub(super) fn with_total(&self, found: Detected) -> Detected {
        let header = "x-total-count";
        let total = match self.total() {
            Some(field) => self.place(field),
            None if self.turn.head.headers.contains_key(header) => Some(Place::Header(header.to_owned())),
            None => None,
        };
        Detected { total, ..found }
    }

    pub(super) fn place(&self, field: &Field) -> Option<Place> {
        path(&field.path).map(Place::Body)
    }

    fn url_at(&self, field: &Field) -> Option<Detected> {
        let from = self.place(field)?;
        let words = format!("a URL at {}", dollar(field));
        Some(Detected::new(Paginate::NextUrl { from }, words))
    }

    fn token_at(&self, field: &Field) -> Option<Detected> {
        let param = self.token_param(field)?;
        let to = self.slot(&param);
        let more = self.flag().filter(|more| more.is_beside(field));
        let words = format!("a token at {}, sent back as {}", dollar(field), show(&to));
        let from = self.place(field)?;
        Some(Detected {
            more: more.and_then(|more| self.place(more)),
            ..Detected::new(Paginate::Cursor { from, to }, words)
        })
    }

    /// What the request calls the token that stands in `field`; `None` if it is no token.
    fn token_param(&self, field: &Field) -> Option<String> {
        let (name, written) = (field.name(), field.written());
        // A sync token begins the next window, not the next page.
        if name.contains("sync") || name.contains("delta") {
            return None;
        }
        if field.parent() == "cursors" && name == "after" {
            return Some(written.to_owned());
        }
        if names::NEXT.contains(&field.parent().as_str()) && names::TOKEN_IN_NEXT.contains(&name.as_str()) {
            return Some(written.to_owned());
        }
        if let Some(end) = name
            .strip_prefix("next")
            .filter(|end| names::TOKEN_ENDS.contains(end))
        {
            // AWS and others call a token that is named so the same in the request.
            if end == "token" {
                return Some(written.to_owned());
            }
            if end == "cursor" && self.is_list() {
                return Some("start_cursor".to_owned());
            }
            return Some(without_next(written));
        }
        if names::TOKEN.contains(&name.as_str()) {
            return Some(written.to_owned());
        }
        match (name.as_str(), &field.value) {
            ("nextpage", _) => Some("page".to_owned()),
            ("next", Scalar::Number(_)) => Some("page".to_owned()),
            ("next" | "nextbatch", Scalar::Text(_)) => Some("cursor".to_owned()),
            _ => None,
        }
    }

    /// Lists that say so, as those of Stripe and Notion.
    fn is_list(&self) -> bool {
        let list = Scalar::Text("list".to_owned());
        self.fields
            .iter()
            .any(|field| field.path == ["object"] && field.value == list)
    }

    fn page_number(&self, param: &str, first: u64, pages: Option<Place>, what: &str) -> Detected {
        let first = self.asked(param).unwrap_or(first);
        let to = self.slot(param);
        let words = format!("{what}; page numbers sent as {}, first {first}", show(&to));
        let paginate = Paginate::PageNumber {
            to,
            first,
            on_first: OnFirst::Sent,
        };
        Detected {
            pages,
            ..Detected::new(paginate, words)
        }
    }

    /// Where a value called `param` goes: into the body of a request that has a JSON or form body, else into the query.
    fn slot(&self, param: &str) -> TokenSlot {
        let name = self.called(param);
        match &self.turn.request.body {
            PageBody::Json(_) | PageBody::Form(_) => TokenSlot::BodyField(vec![name]),
            PageBody::None | PageBody::Text(_) => TokenSlot::Query(name),
        }
    }

    /// The name under which the request already sends `param`, as `_page` for `page`; else `param`.
    fn called(&self, param: &str) -> String {
        let query = self.turn.request.url.query().unwrap_or_default();
        let names: Vec<String> = match &self.turn.request.body {
            PageBody::Json(body) => body
                .as_object()
                .into_iter()
                .flat_map(Map::keys)
                .cloned()
                .collect(),
            PageBody::Form(fields) => fields.iter().map(|(name, _)| name.clone()).collect(),
            PageBody::None | PageBody::Text(_) => form_urlencoded::parse(query.as_bytes())
                .map(|(name, _)| name.into_owned())
                .collect(),
        };
        if names.iter().any(|name| name == param) {
            return param.to_owned();
        }
        let alike = names.into_iter().find(|name| plain(name) == plain(param));
        alike.unwrap_or_else(|| param.to_owned())
    }

    /// The number the request was already sent with under this name.
    fn asked(&self, param: &str) -> Option<u64> {
        let called = self.called(param);
        match &self.turn.request.body {
            PageBody::Json(body) => body.get(&called)?.as_u64(),
            PageBody::Form(fields) => {
                let (_, text) = fields.iter().find(|(name, _)| *name == called)?;
                text.parse().ok()
            }
            PageBody::None | PageBody::Text(_) => {
                let query = self.turn.request.url.query().unwrap_or_default();
                let mut pairs = form_urlencoded::parse(query.as_bytes());
                let (_, text) = pairs.find(|(name, _)| *name == called)?;
                text.parse().ok()
            }
        }
    }
}

/// `next_page_token` is sent as `page_token`, `nextPageToken` as `pageToken`.
fn without_next(written: &str) -> String {
    let rest = written.get(4..).unwrap_or_default();
    let rest = rest.trim_start_matches(['_', '-', '.']);
    let mut letters = rest.chars();
    let camel = written.starts_with('n');
    match letters.next() {
        Some(first) if camel => first.to_lowercase().chain(letters).collect(),
        _ => rest.to_owned(),
    }
}

/// The variable of the first `after: $name` in a query.
fn after_variable(query: &str) -> Option<String> {
    query.match_indices("after").find_map(|(at, word)| {
        let rest = query[at + word.len()..].trim_start().strip_prefix(':')?;
        let rest = rest.trim_start().strip_prefix('$')?;
        let name: String = rest
            .chars()
            .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
            .collect();
        (!name.is_empty()).then_some(name)
    })
}

/// A path needs more than its first `/`, which a token in Base64 may begin with too.
fn is_link(text: &str) -> bool {
    let whole = ["http://", "https://", "?"]
        .iter()
        .any(|start| text.starts_with(start));
    let path = text
        .strip_prefix('/')
        .is_some_and(|rest| rest.contains(['/', '?']));
    whole || path
}

fn dollar(field: &Field) -> String {
    path(&field.path).map_or_else(|| field.path.join("."), |path| path.to_string())
}

pub(super) fn show(slot: &TokenSlot) -> String {
    match slot {
        TokenSlot::Query(name) => format!("parameter {name}"),
        TokenSlot::Header(name) => format!("header {name}"),
        TokenSlot::BodyField(path) => format!("body field {}", path.join(".")),
        TokenSlot::Template => "a template".to_owned(),
    }
}
