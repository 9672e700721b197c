//! The traces that the records of a load belong to, so that a producer's request and the commit that shows it are found
//! from each other.

use std::collections::BTreeMap;

/// Traces kept of one load, those of the first pages of raw. A commit names them all.
pub const TRACES_MAX: usize = 32;

/// Where a page is in raw: batch and page.
type Place = (i64, u32);

/// The first traces of some pages, whatever order the pages are seen in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    first: BTreeMap<String, Place>,
    more: bool,
}

impl Traces {
    /// Notes that the page at `place`, batch and page, belongs to the trace `id`.
    ///
    /// ```
    /// use landfall::transform::traces::Traces;
    /// let mut traces = Traces::default();
    /// traces.add("b", (0, 1));
    /// traces.add("a", (0, 2));
    /// traces.add("a", (0, 0));
    /// assert_eq!((traces.ids(), traces.has_more()), (vec!["a".to_owned(), "b".to_owned()], false));
    /// ```
    pub fn add(&mut self, id: &str, place: Place) {
        if let Some(known) = self.first.get_mut(id) {
            *known = (*known).min(place);
            return;
        }
        self.first.insert(id.to_owned(), place);
        // Those kept only move forward, so what goes here would go in any order.
        if self.first.len() > TRACES_MAX
            && let Some(last) = self.last()
        {
            self.first.remove(&last);
            self.more = true;
        }
    }

    /// Adds those of other pages.
    pub fn merge(&mut self, other: Self) {
        for (id, place) in other.first {
            self.add(&id, place);
        }
        self.more |= other.more;
    }

    /// Their ids, in the order of raw.
    pub fn ids(&self) -> Vec<String> {
        let mut ids: Vec<(&Place, &String)> = self.first.iter().map(|(id, place)| (place, id)).collect();
        ids.sort_unstable();
        ids.into_iter().map(|(_, id)| id.clone()).collect()
    }

    /// Whether there are others.
    pub fn has_more(&self) -> bool {
        self.more
    }

    fn last(&self) -> Option<String> {
        let last = self.first.iter().max_by_key(|(id, place)| (**place, *id));
        last.map(|(id, _)| id.clone())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_are_kept_whatever_order_they_come_in(
            pages in prop::collection::vec((0_u8..80, 0_i64..4, 0_u32..40), 0..200),
            cut in 0_usize..200,
        ) {
            let mut first: BTreeMap<String, Place> = BTreeMap::new();
            for (id, batch, page) in &pages {
                let place = first.entry(format!("{id:02}")).or_insert((*batch, *page));
                *place = (*place).min((*batch, *page));
            }
            let mut expected: Vec<(Place, String)> = first.into_iter().map(|(id, place)| (place, id)).collect();
            expected.sort();
            let more = expected.len() > TRACES_MAX;
            expected.truncate(TRACES_MAX);
            let (before, after) = pages.split_at(cut.min(pages.len()));
            let traces = |pages: &[(u8, i64, u32)]| {
                let mut traces = Traces::default();
                for (id, batch, page) in pages {
                    traces.add(&format!("{id:02}"), (*batch, *page));
                }
                traces
            };
            let mut all = traces(after);
            all.merge(traces(before));
            prop_assert_eq!(all.ids(), expected.into_iter().map(|(_, id)| id).collect::<Vec<_>>());
            prop_assert_eq!(all.has_more(), more);
        }
    }
}
