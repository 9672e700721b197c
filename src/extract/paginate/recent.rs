//! What has been met before, in bounded memory.

use std::{
    collections::{HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher as _},
};

/// Hashes kept. A cycle that is not longer is seen where it closes.
const RECENT_MAX: usize = 65_536;

/// The latest hashes with the page each stands for, and an anchor by which a longer cycle is found in the end.
///
/// The anchor is that of Brent's algorithm: it moves to the present after 1, 2, 4, 8, … steps, so that it comes to lie
/// inside any cycle and waits there for longer than the cycle is.
#[derive(Debug, Default)]
pub(super) struct Recent {
    pages: HashMap<u64, u64>,
    order: VecDeque<u64>,
    anchor: Option<(u64, u64)>,
    steps: u64,
    steps_max: u64,
}

impl Recent {
    /// The page at which `hash` was met before; if it was not, it is kept with `page`.
    pub(super) fn meet(&mut self, hash: u64, page: u64) -> Option<u64> {
        let anchored = self.anchor.filter(|(known, _)| *known == hash);
        if let Some(known) = anchored.map(|(_, page)| page).or(self.pages.get(&hash).copied()) {
            return Some(known);
        }
        if self.steps == self.steps_max {
            self.anchor = Some((hash, page));
            (self.steps, self.steps_max) = (0, (self.steps_max * 2).max(1));
        }
        self.steps += 1;
        self.pages.insert(hash, page);
        self.order.push_back(hash);
        if self.order.len() > RECENT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.pages.remove(&oldest);
        }
        None
    }
}

/// A hash that is the same within one run.
pub(super) fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f044_a_cycle_of_any_length_is_met_and_memory_is_bounded() {
        for (lead, period) in [(0, 1), (3, 2), (5, 1000), (70_000, 90_000), (0, 200_000)] {
            let mut recent = Recent::default();
            let met = (0_u64..1_000_000).find(|step| {
                let place = if *step < lead {
                    *step
                } else {
                    lead + (step - lead) % period
                };
                recent.meet(hash(place), *step).is_some()
            });
            let met = met.unwrap();
            assert!(met >= lead + period, "{lead} {period}: {met}");
            assert!(met <= 4 * (lead + period) + 1, "{lead} {period}: {met}");
            if period < RECENT_MAX as u64 {
                assert_eq!(met, lead + period);
            }
            assert!(recent.pages.len() <= RECENT_MAX && recent.order.len() <= RECENT_MAX);
        }
    }
}
