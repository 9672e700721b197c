//! Many workers against a server that counts, without waiting: does more of them bring less?

use std::collections::{BinaryHeap, VecDeque};

use super::{ledger::Ledger, *};
use crate::{
    config::{errors::Retry, rate::WindowKind},
    extract::{
        limit::rules::{Demand, Rule},
        retry::backoff,
    },
};

const SECOND: Micros = 1_000_000;

/// From request to answer.
const TRAVEL: Micros = SECOND / 20;

/// What the server allows and the client may know.
const REQUESTS: u32 = 60;
const PER: Micros = 10 * SECOND;

#[derive(Clone, Copy)]
struct Api {
    /// Requests it refuses count against the budget too.
    counts_refused: bool,
    /// It says how long to wait.
    says_how_long: bool,
}

struct Outcome {
    answered: u32,
    refused: u32,
}

/// Runs `workers` for `lasts`; each asks for one page after the other, as often as the retry policy allows.
fn run(api: Api, workers: u32, known: bool, lasts: Micros) -> Outcome {
    let rule = Rule {
        key: String::new(),
        id: 0,
        requests: REQUESTS,
        per: PER,
        kind: WindowKind::Moving,
    };
    let demands: Arc<[Demand]> = if known {
        [Demand { rate: 0, weight: 1 }].into()
    } else {
        [].into()
    };
    let (mut ledger, mut words) = (Ledger::default(), Words::default());
    let mut seen: VecDeque<Micros> = VecDeque::new();
    let mut outcome = Outcome {
        answered: 0,
        refused: 0,
    };
    let mut random = 1u64;
    // The next to act first: when, who, after how many attempts.
    let mut agenda: BinaryHeap<(std::cmp::Reverse<Micros>, u32, u32)> = (0..workers)
        .map(|worker| (std::cmp::Reverse(SECOND), worker, 0))
        .collect();
    while let Some((std::cmp::Reverse(now), worker, attempts)) = agenda.pop() {
        if now >= lasts {
            break;
        }
        let ask = Ask {
            demands: Arc::clone(&demands),
            want: 1,
            member: 1,
            contended: false,
        };
        let wait = words
            .wait(now)
            .or_else(|| match ledger.take(std::slice::from_ref(&rule), &ask, now) {
                Verdict::Granted { .. } => None,
                Verdict::Wait(wait) => Some(wait),
            });
        if let Some(wait) = wait {
            agenda.push((std::cmp::Reverse(now + micros(wait).max(1)), worker, attempts));
            continue;
        }
        words.granted(now);
        while seen.front().is_some_and(|moment| moment + PER <= now) {
            seen.pop_front();
        }
        let answered = seen.len() < REQUESTS as usize;
        let free_in = seen.front().map_or(0, |moment| moment + PER - now);
        if answered || api.counts_refused {
            seen.push_back(now);
        }
        let back = now + TRAVEL;
        if answered {
            outcome.answered += 1;
            words.answered(back);
            agenda.push((std::cmp::Reverse(back), worker, 0));
            continue;
        }
        outcome.refused += 1;
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let jitter = (random >> 11) as f64 / (1u64 << 53) as f64;
        let asked = if api.says_how_long { free_in } else { 0 };
        let wait = asked + micros(backoff(&Retry::DEFAULT, attempts + 1, jitter));
        let asked = (asked > 0).then_some(Duration::from_micros(asked.unsigned_abs()));
        words.refused(back, asked, Duration::from_micros(wait.unsigned_abs()));
        let attempts = (attempts + 1) % Retry::DEFAULT.attempts_max;
        agenda.push((std::cmp::Reverse(back + wait), worker, attempts));
    }
    outcome
}

fn each_api() -> [Api; 4] {
    let api = |(counts_refused, says_how_long)| Api {
        counts_refused,
        says_how_long,
    };
    [(false, false), (false, true), (true, false), (true, true)].map(api)
}

/// As many as the budget has windows, the margin counted.
fn budget_for(lasts: Micros) -> u32 {
    REQUESTS * u32::try_from(lasts / (PER + PER / 50)).unwrap()
}

#[test]
fn r039_r049_a_known_budget_is_used_up_and_never_overdrawn_by_any_number_of_workers() {
    for api in each_api() {
        for workers in [1, 10, 100] {
            let Outcome { answered, refused } = run(api, workers, true, 300 * SECOND);
            assert_eq!(refused, 0, "{workers}");
            assert!(answered >= budget_for(300 * SECOND), "{workers}: {answered}");
        }
    }
}

#[test]
fn r049_ten_times_the_workers_get_no_less_out_of_a_server_that_only_refuses() {
    for api in each_api() {
        let answered = |workers| {
            let outcome = run(api, workers, false, 600 * SECOND);
            assert!(
                outcome.refused * 10 <= outcome.answered,
                "{} refused",
                outcome.refused
            );
            outcome.answered
        };
        let [one, ten, hundred] = [1, 10, 100].map(answered);
        let budget = budget_for(600 * SECOND);
        assert!(one * 10 >= budget * 7, "{one} of {budget}");
        // Chance moves the figures by some hundredths.
        assert!(
            ten * 100 >= one * 93 && hundred * 100 >= ten * 93,
            "{one}, {ten}, {hundred}"
        );
    }
}
