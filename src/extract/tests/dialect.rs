//! A data set served in the dialect of each paginator.

use super::server::{Received, Reply, json, json_with, path};
use crate::config::paginate::OffsetStep;
use crate::config::paginate::OnFirst;
use crate::config::{paginate::Paginate, request::Place, request::TokenSlot};

/// A query parameter as a slot.
pub(super) fn query(name: &str) -> TokenSlot {
    TokenSlot::Query(name.to_owned())
}

/// The records `from..to` of a data set whose record n is `{"id":n}`, as a JSON array.
pub(super) fn ids(from: usize, to: usize) -> String {
    let records: Vec<String> = (from..to).map(|id| format!(r#"{{"id":{id}}}"#)).collect();
    format!("[{}]", records.join(","))
}

/// The ids in the pages, in order.
pub(super) fn seen(bodies: &[&str]) -> Vec<u64> {
    let mut ids = Vec::new();
    for body in bodies {
        path("$.data[*].id")
            .select(body.as_bytes(), &mut |range| {
                ids.push(body[range].parse().unwrap())
            })
            .unwrap();
    }
    ids
}

/// Serves `total` records, `size` a page, in the dialect of each paginator; `position` may be a page, an offset or a token.
pub(super) fn dialect(
    total: usize,
    size: usize,
    paginate: &Paginate,
) -> impl Fn(usize, &Received) -> Reply + Send + Sync + 'static {
    let paginate = paginate.clone();
    move |_, received| {
        let number = |name: &str| received.param(name).map(|text| text.parse::<usize>().unwrap());
        let start = match &paginate {
            Paginate::PageNumber { first, .. } => (number("page").unwrap() - *first as usize) * size,
            Paginate::Offset { .. } => number("at").unwrap(),
            _ => number("at").unwrap_or(0),
        };
        let end = (start + size).min(total);
        let (data, more) = (ids(start.min(total), end), end < total);
        match &paginate {
            Paginate::Cursor {
                from: Place::Body(_), ..
            } if more => json(&format!(r#"{{"data":{data},"next":"{end}"}}"#)),
            Paginate::Cursor { .. } if more => {
                json_with(&format!(r#"{{"data":{data}}}"#), &format!("x-next: {end}\r\n"))
            }
            Paginate::NextUrl { .. } if more => json(&format!(r#"{{"data":{data},"next":"?at={end}"}}"#)),
            Paginate::LinkHeader if more => json_with(
                &format!(r#"{{"data":{data}}}"#),
                &format!("link: </v1/orders?at={end}>; rel=\"next\"\r\n"),
            ),
            _ => json(&format!(r#"{{"data":{data}}}"#)),
        }
    }
}

/// Every way to find the next page, with a name.
pub(super) fn paginators() -> Vec<(&'static str, Paginate)> {
    vec![
        (
            "cursor",
            Paginate::Cursor {
                from: Place::Body(path("$.next")),
                to: query("at"),
            },
        ),
        (
            "header cursor",
            Paginate::Cursor {
                from: Place::Header("x-next".to_owned()),
                to: query("at"),
            },
        ),
        (
            "next url",
            Paginate::NextUrl {
                from: Place::Body(path("$.next")),
            },
        ),
        ("link", Paginate::LinkHeader),
        (
            "page from 1",
            Paginate::PageNumber {
                to: query("page"),
                first: 1,
                on_first: OnFirst::Sent,
            },
        ),
        (
            "page from 0",
            Paginate::PageNumber {
                to: query("page"),
                first: 0,
                on_first: OnFirst::Sent,
            },
        ),
        (
            "offset",
            Paginate::Offset {
                to: query("at"),
                first: 0,
                on_first: OnFirst::Sent,
                step: OffsetStep::Records,
            },
        ),
    ]
}
