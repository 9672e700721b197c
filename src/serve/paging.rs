//! Lists a page at a time, in the order of the last change.
//!
//! What is promised of every list: it is ordered by `updated_at`, and a page says with `next` where it goes on. An entry that
//! stands when the first page is asked for and does not change comes exactly once, whatever is added meanwhile; one that
//! changes or is added comes, or comes again, at its new place behind.

use axum::http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    clock::Timestamp,
    config::parse_timestamp,
    receive::ledger::receipt::{Cursor, Listing},
    serve::{
        call::Call,
        problem::{Fault, Problem, code::Code},
    },
};

/// Entries of one page, unless `limit` says otherwise.
const LIMIT_DEFAULT: usize = 100;

/// Which page of a list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Only what changed at this moment or later.
    pub(crate) updated_at_gte: Option<Timestamp>,
    /// Only what is behind this place.
    pub(crate) after: Option<Cursor>,
    /// Most entries, from 1 to [`Listing::LIMIT_MAX`].
    pub(crate) limit: usize,
}

/// A page of a list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page<T> {
    /// The entries, those that changed last at the end.
    pub(crate) items: Vec<T>,
    /// Where it goes on, if there is more.
    pub(crate) next: Option<String>,
}

impl Asked {
    /// What the parameters `updated_at_gte`, `cursor` and `limit` of `call` ask for.
    ///
    /// # Errors
    /// `invalid_request` that points at the one that cannot be read.
    pub(crate) fn of(call: &Call) -> Result<Self, Problem> {
        let updated_at_gte = call.query("updated_at_gte")?;
        let updated_at_gte = updated_at_gte.map(|text| parse_timestamp(&text)).transpose();
        let after = call.query("cursor")?.map(|text| text.parse()).transpose();
        let limit = match call.query("limit")? {
            None => LIMIT_DEFAULT,
            Some(text) => match text.parse() {
                Ok(limit) if (1..=Listing::LIMIT_MAX).contains(&limit) => limit,
                _ => return Err(wrong("limit", "limit is a number from 1 to 1000")),
            },
        };
        Ok(Self {
            updated_at_gte: updated_at_gte
                .map_err(|_| wrong("updated_at_gte", "updated_at_gte is a moment by RFC 3339"))?,
            after: after.map_err(|_| wrong("cursor", "cursor is what `next` of the page before said"))?,
            limit,
        })
    }

    /// The earliest moment that an entry of the page can have changed last.
    pub(crate) fn since(&self) -> Option<Timestamp> {
        self.updated_at_gte.max(self.after.map(Cursor::updated_at))
    }

    /// The page of `entries`, which come in any order, each with its place.
    pub(crate) fn page<T>(&self, entries: impl IntoIterator<Item = (Cursor, T)>) -> Page<T> {
        let since = self.updated_at_gte.map(|at| at.timestamp_micros());
        let is_asked = |(place, _): &(Cursor, T)| {
            since.is_none_or(|since| place.updated_at().timestamp_micros() >= since)
                && self.after.is_none_or(|after| *place > after)
        };
        let mut found: Vec<(Cursor, T)> = entries.into_iter().filter(is_asked).collect();
        found.sort_by_key(|(place, _)| *place);
        let more = found.len() > self.limit;
        found.truncate(self.limit);
        let next = found.last().filter(|_| more).map(|(place, _)| place.to_string());
        Page {
            items: found.into_iter().map(|(_, item)| item).collect(),
            next,
        }
    }
}

impl<T> Page<T> {
    /// The page with each entry as `show` shows it.
    pub(crate) fn map<S>(self, show: impl FnMut(T) -> S) -> Page<S> {
        Page {
            items: self.items.into_iter().map(show).collect(),
            next: self.next,
        }
    }
}

impl<T: Serialize> Page<T> {
    /// The page as it is sent, its entries under `name`.
    pub(crate) fn document(&self, name: &str) -> Value {
        match &self.next {
            Some(next) => json!({ name: self.items, "next": next }),
            None => json!({ name: self.items }),
        }
    }
}

fn wrong(parameter: &str, detail: &'static str) -> Problem {
    let problem = Problem::new(Code::InvalidRequest, detail).at(Fault {
        pointer: parameter.to_owned(),
        detail: "cannot be read".to_owned(),
        code: None,
    });
    debug_assert_eq!(problem.status(), StatusCode::BAD_REQUEST);
    problem
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// What happens between two pages: so many entries are added or changed, all at one moment, as a load does it.
    type Between = Vec<u8>;

    fn place(id: u8, moment: i64) -> Cursor {
        // Spread, so that neighbours in the list are not neighbours by id.
        Cursor::new(
            Timestamp::from_timestamp_micros(moment).unwrap(),
            [id.wrapping_mul(151); 16],
        )
    }

    proptest! {
        #[test]
        fn r098_every_entry_comes_exactly_once_whatever_is_added_between_pages(
            before in prop::collection::vec(prop::collection::vec(0_u8..40, 0..12), 0..4),
            between in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6), 0..12),
            limit in 1_usize..7,
            since in 0_i64..4,
        ) {
            // Entry to the moment of its last change.
            let mut list: BTreeMap<u8, i64> = BTreeMap::new();
            let mut now = 0;
            let mut happen = |list: &mut BTreeMap<u8, i64>, changed: &Between| {
                now += 1;
                list.extend(changed.iter().map(|id| (*id, now)));
            };
            for changed in &before {
                happen(&mut list, changed);
            }
            let first = list.clone();
            let mut given: Vec<(u8, i64)> = Vec::new();
            let mut asked = Asked {
                updated_at_gte: Some(Timestamp::from_timestamp_micros(since).unwrap()),
                after: None,
                limit,
            };
            let mut between = between.iter();
            loop {
                let entries = list.iter().map(|(id, at)| (place(*id, *at), (*id, *at)));
                let page = asked.page(entries);
                prop_assert!(page.items.len() <= limit);
                given.extend(page.items);
                let Some(next) = page.next else { break };
                asked.after = Some(next.parse().unwrap());
                if let Some(changed) = between.next() {
                    happen(&mut list, changed);
                }
            }
            // In order, and each change once at most.
            let places: Vec<Cursor> = given.iter().map(|(id, at)| place(*id, *at)).collect();
            prop_assert!(places.is_sorted_by(|a, b| a < b));
            // Every entry as it is in the end, once; nothing that was not asked for.
            for (id, at) in list.iter().filter(|(_, at)| **at >= since) {
                prop_assert_eq!(given.iter().filter(|one| **one == (*id, *at)).count(), 1);
                if first.get(id) == Some(at) {
                    prop_assert_eq!(given.iter().filter(|one| one.0 == *id).count(), 1);
                }
            }
            prop_assert!(given.iter().all(|(_, at)| *at >= since));
        }
    }
}
