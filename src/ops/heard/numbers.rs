//! The numbers of what was pushed: which are missing, and where to go on from.

use std::collections::BTreeMap;

use crate::clock::Timestamp;

/// Numbers held beyond the first that is missing. Of more than these it is only known that there are some. What is
/// further than that from all others is no successor of them.
const AHEAD_MAX: usize = 100_000;

/// What is known of the numbers of one stream, in memory.
///
/// ```
/// use landfall::{clock::Timestamp, ops::heard::numbers::Numbers};
/// let mut numbers = Numbers::after(Some(4));
/// for number in [7, 5, 8] {
///     numbers.hear(number, Timestamp::UNIX_EPOCH);
/// }
/// assert_eq!(numbers.missing(), Some((6, 6, Timestamp::UNIX_EPOCH)));
/// numbers.hear(6, Timestamp::UNIX_EPOCH);
/// assert_eq!((numbers.missing(), numbers.reached()), (None, Some(8)));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// Up to here none was missing before anything was heard.
    since: Option<i64>,
    /// Up to here none is missing.
    whole: Option<i64>,
    /// Those beyond, with when they came.
    ahead: BTreeMap<i64, Timestamp>,
    /// The greatest of those that there was no room for.
    unheld: Option<i64>,
    /// Whether one came that is not below `since`.
    goes_on: bool,
    /// Those below `since`: repeats, unless no others come.
    anew: Option<Box<Self>>,
}

impl Numbers {
    /// Nothing beyond `whole` was heard yet; without it the least number that is heard is the first.
    pub fn after(whole: Option<i64>) -> Self {
        Self {
            since: whole,
            whole,
            ..Self::default()
        }
    }

    /// Takes note of a number, in any order; one that came before changes nothing.
    pub fn hear(&mut self, number: i64, at: Timestamp) {
        if self.since.is_some_and(|since| number < since) {
            self.anew.get_or_insert_default().hear(number, at);
            return;
        }
        self.goes_on = true;
        if self.whole.is_some_and(|whole| number <= whole) {
            return;
        }
        if self.ahead.len() < AHEAD_MAX {
            self.ahead.entry(number).or_insert(at);
        } else if let Some((last, _)) = self.ahead.last_key_value() {
            let last = self.unheld.unwrap_or(*last);
            if number > last && follows(last, number) {
                self.unheld = Some(number);
            }
        }
        self.advance();
    }

    fn advance(&mut self) {
        while let Some(next) = self.whole.and_then(|whole| whole.checked_add(1))
            && self.ahead.remove(&next).is_some()
        {
            self.whole = Some(next);
        }
    }

    /// What was heard so far is the beginning, where nothing was before.
    pub fn begin(&mut self) {
        if let Some(anew) = &mut self.anew {
            anew.begin();
        }
        if self.whole.is_none()
            && let Some(least) = self.ahead.keys().next()
        {
            self.whole = least.checked_sub(1);
            self.advance();
        }
    }

    /// Whether all numbers are below those before: whoever sends them counts anew.
    pub fn is_anew(&self) -> bool {
        self.anew.is_some() && !self.goes_on
    }

    /// Those that count.
    fn counted(&self) -> &Self {
        match &self.anew {
            Some(anew) if !self.goes_on => anew,
            _ => self,
        }
    }

    /// The first range of numbers that is missing below one that came, and when that did.
    pub fn missing(&self) -> Option<(i64, i64, Timestamp)> {
        let numbers = self.counted();
        let (next, at) = numbers.ahead.iter().next()?;
        Some((numbers.whole? + 1, next - 1, *at))
    }

    /// Where to go on from once what is missing was asked for: the greatest number that came and is near enough to those
    /// before. None if nothing is: then what comes next is the beginning.
    pub fn reached(&self) -> Option<i64> {
        let numbers = self.counted();
        let reached = numbers.reach(numbers.whole);
        if reached != numbers.since || numbers.ahead.is_empty() {
            return reached;
        }
        // Nothing continues what was before. One alone may be anything; of several one follows another, or none does.
        let first = numbers.ahead.keys().next().copied();
        let reached = numbers.reach(first);
        reached.filter(|reached| Some(*reached) != first)
    }

    /// The greatest number ahead that can be had from `from` without a jump.
    fn reach(&self, from: Option<i64>) -> Option<i64> {
        let mut reached = from?;
        for number in self.ahead.keys() {
            if *number > reached && !follows(reached, *number) {
                return Some(reached);
            }
            reached = reached.max(*number);
        }
        Some(reached.max(self.unheld.unwrap_or(reached)))
    }
}

/// Whether `number`, which is greater, is near enough to `last` to be of the same count.
fn follows(last: i64, number: i64) -> bool {
    number
        .checked_sub(last)
        .is_some_and(|step| step <= AHEAD_MAX as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AT: Timestamp = Timestamp::UNIX_EPOCH;

    fn heard(since: Option<i64>, all: &[i64]) -> Numbers {
        let mut numbers = Numbers::after(since);
        for number in all {
            numbers.hear(*number, AT);
        }
        numbers.begin();
        numbers
    }

    proptest! {
        #[test]
        fn r106_whatever_the_order_exactly_what_never_came_is_missing(
            mut sent in prop::collection::vec((any::<bool>(), any::<u32>()), 1..40),
            cut in 0..40_usize,
        ) {
            // A number each; those that came, in an order of their own, and some of them twice.
            let count = sent.len() as i64;
            let mut came: Vec<(u32, i64)> = (1..=count)
                .zip(sent.drain(..))
                .filter(|(_, (came, _))| *came)
                .map(|(number, (_, order))| (order, number))
                .collect();
            came.sort_unstable();
            let came: Vec<i64> = came.into_iter().map(|(_, number)| number).collect();
            let mut numbers = Numbers::after(Some(0));
            for number in came.iter().chain(came.iter().take(cut)) {
                numbers.hear(*number, AT);
            }
            let greatest = came.iter().max().copied().unwrap_or(0);
            let first = (1..=greatest).find(|number| !came.contains(number));
            let missing = numbers.missing();
            prop_assert_eq!(missing.map(|(first, _, _)| first), first);
            if let Some((first, last, _)) = missing {
                prop_assert!((first..=last).all(|number| !came.contains(&number)));
                prop_assert!(came.contains(&(last + 1)));
            }
            prop_assert_eq!(numbers.reached(), Some(greatest));
        }

        #[test]
        fn no_numbers_switch_the_search_for_gaps_off(
            since in prop::option::of(any::<i64>()),
            odd in prop::collection::vec(any::<i64>(), 0..6),
            start in -1_000_000_i64..1_000_000,
        ) {
            // Whatever was heard, of what then comes in order with one missing that one is found, at once or when it was
            // asked for once more.
            let numbers = heard(since, &odd);
            let _ = numbers.missing();
            let again = heard(numbers.reached(), &[start, start + 1]);
            let _ = again.missing();
            let found = heard(again.reached(), &[start + 2, start + 4]);
            prop_assert_eq!(found.missing(), Some((start + 3, start + 3, AT)));
        }
    }

    #[test]
    fn the_first_numbers_heard_are_the_beginning() {
        let mut numbers = Numbers::default();
        for number in [12, 10, 13] {
            numbers.hear(number, AT);
        }
        assert_eq!(numbers.missing(), None);
        numbers.begin();
        assert_eq!(numbers.missing(), Some((11, 11, AT)));
    }

    #[test]
    fn who_counts_anew_is_followed_and_a_repeat_is_not() {
        let numbers = heard(Some(70), &[1, 3]);
        assert!(numbers.is_anew());
        assert_eq!(
            (numbers.missing(), numbers.reached()),
            (Some((2, 2, AT)), Some(3))
        );
        let repeated = heard(Some(70), &[3, 71]);
        assert!(!repeated.is_anew());
        assert_eq!((repeated.missing(), repeated.reached()), (None, Some(71)));
        assert!(!heard(Some(70), &[70]).is_anew());
    }

    #[test]
    fn a_number_far_from_all_others_is_no_place_to_go_on_from() {
        let far = 1_000_000_000_000;
        let numbers = heard(Some(4), &[5, far, i64::MAX]);
        assert_eq!((numbers.missing().unwrap().0, numbers.reached()), (6, Some(5)));
        assert_eq!(heard(Some(4), &[far]).reached(), None);
        // Who goes on there is followed.
        assert_eq!(heard(Some(4), &[far, far + 1]).reached(), Some(far + 1));
        assert_eq!(heard(Some(i64::MIN), &[i64::MAX]).reached(), None);
    }

    #[test]
    fn numbers_beyond_those_that_are_held_are_counted_on_from() {
        let count = AHEAD_MAX as i64 + 50;
        let all: Vec<i64> = (2..=count).collect();
        let numbers = heard(Some(0), &all);
        assert_eq!(
            (numbers.missing(), numbers.reached()),
            (Some((1, 1, AT)), Some(count))
        );
    }
}
