use proptest::prelude::*;

use super::*;

const SECOND: Micros = 1_000_000;

/// The second 1,700,000,000 is the beginning of a fixed window of 1, 2, 4 or 5 s.
const START: Micros = 1_700_000_000 * SECOND;

fn rule(kind: WindowKind, requests: u32, per: Micros) -> Rule {
    Rule {
        key: format!("{kind:?} {per}"),
        id: u64::try_from(per).unwrap(),
        requests,
        per,
        kind,
    }
}

fn ask(member: u64, want: u32, demands: &[(usize, u32)]) -> Ask {
    let demand = |&(rate, weight): &(usize, u32)| Demand { rate, weight };
    Ask {
        demands: demands.iter().map(demand).collect(),
        want,
        member,
        contended: false,
    }
}

fn wait(verdict: Verdict) -> Micros {
    match verdict {
        Verdict::Wait(wait) => micros(wait),
        Verdict::Granted { .. } => 0,
    }
}

fn count(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Wait(_) => 0,
        Verdict::Granted { count, .. } => count,
    }
}

#[test]
fn r039_every_rate_must_grant_or_none_is_taken_from() {
    let rules = [
        rule(WindowKind::Moving, 2, SECOND),
        rule(WindowKind::Moving, 3, 60 * SECOND),
    ];
    let mut ledger = Ledger::default();
    let both = ask(1, 9, &[(0, 1), (1, 1)]);
    assert_eq!(count(ledger.take(&rules, &both, START)), 2);
    let now = START + SECOND + SECOND / 50;
    assert_eq!(count(ledger.take(&rules, &both, now)), 1);
    // The minute is spent, and its refusal took nothing from the second.
    assert_eq!(
        wait(ledger.take(&rules, &both, now)),
        60 * SECOND + 60 * SECOND / 50 - (now - START)
    );
    assert_eq!(count(ledger.take(&rules, &ask(1, 9, &[(0, 1)]), now)), 1);
    assert_eq!(count(ledger.take(&rules, &ask(1, 7, &[]), now)), 7, "free");
}

#[test]
fn r039_a_heavy_request_waits_for_as_much_as_it_takes() {
    let rules = [rule(WindowKind::Moving, 5, SECOND)];
    let mut ledger = Ledger::default();
    for step in 0..5 {
        let now = START + step * SECOND / 10;
        assert_eq!(count(ledger.take(&rules, &ask(1, 1, &[(0, 1)]), now)), 1);
    }
    let now = START + SECOND / 2;
    assert_eq!(wait(ledger.take(&rules, &ask(1, 1, &[(0, 3)]), now)), 720_000);
    assert_eq!(
        count(ledger.take(&rules, &ask(1, 1, &[(0, 3)]), now + 720_000)),
        1
    );
    assert_eq!(
        wait(ledger.take(&rules, &ask(1, 1, &[(0, 9)]), now)),
        SECOND,
        "never"
    );
}

#[test]
fn r039_a_fixed_window_begins_anew_at_the_full_second() {
    let rules = [rule(WindowKind::Fixed, 3, SECOND)];
    let mut ledger = Ledger::default();
    let one = ask(1, 5, &[(0, 1)]);
    assert_eq!(wait(ledger.take(&rules, &one, START)), SECOND / 50);
    assert_eq!(count(ledger.take(&rules, &one, START + SECOND * 9 / 10)), 3);
    assert_eq!(
        wait(ledger.take(&rules, &one, START + SECOND * 9 / 10)),
        SECOND / 10 + SECOND / 50
    );
    assert_eq!(count(ledger.take(&rules, &one, START + SECOND + SECOND / 50)), 3);
}

#[test]
fn r043_two_who_wait_take_turns_however_often_one_asks() {
    let rules = [rule(WindowKind::Moving, 10, SECOND)];
    let mut ledger = Ledger::default();
    let (busy, calm) = (ask(1, 10, &[(0, 1)]), ask(2, 1, &[(0, 1)]));
    assert_eq!(count(ledger.take(&rules, &busy, START)), 10);
    let mut granted = [0, 0];
    let (mut busy_at, mut calm_at) = (START, START);
    for now in (START..START + 10 * SECOND).step_by(1000) {
        // The busy one comes first each time, and at once again.
        while busy_at <= now {
            match ledger.take(&rules, &busy, now) {
                Verdict::Granted { count, .. } => granted[0] += count,
                Verdict::Wait(wait) => busy_at = now + micros(wait),
            }
        }
        if calm_at <= now {
            match ledger.take(&rules, &calm, now) {
                Verdict::Granted { .. } => {
                    granted[1] += 1;
                    calm_at = now + 5000;
                }
                Verdict::Wait(wait) => calm_at = now + micros(wait),
            }
        }
    }
    let [busy, calm] = granted;
    assert!(busy + calm >= 85, "{granted:?}");
    assert!(calm >= 40 && busy >= 40, "{granted:?}");
}

#[test]
fn r043_the_share_of_who_no_longer_asks_goes_to_the_other_within_a_window() {
    let rules = [rule(WindowKind::Moving, 10, SECOND)];
    let mut ledger = Ledger::default();
    let (one, other) = (ask(1, 10, &[(0, 1)]), ask(2, 1, &[(0, 1)]));
    assert_eq!(count(ledger.take(&rules, &one, START)), 10);
    // The other is told to come back, and never does.
    assert!(wait(ledger.take(&rules, &other, START)) > 0);
    let (mut now, mut granted) = (START, 0);
    while now < START + 5 * SECOND {
        match ledger.take(&rules, &one, now) {
            Verdict::Granted { count, .. } => granted += count,
            Verdict::Wait(wait) => now += micros(wait),
        }
    }
    assert!(granted >= 37, "{granted} of a budget for 40");
}

#[test]
fn r043_a_budget_that_is_not_spent_makes_nobody_wait_for_turns() {
    let rules = [rule(WindowKind::Moving, 100, SECOND)];
    let mut ledger = Ledger::default();
    for turn in 0..50 {
        let now = START + turn * 100;
        let mut one = ask(1 + u64::try_from(turn).unwrap() % 2, 1, &[(0, 1)]);
        one.contended = true;
        assert_eq!(count(ledger.take(&rules, &one, now)), 1, "{turn}");
    }
}

#[test]
fn f069_what_counts_as_spent_is_free_again_after_one_window() {
    let rules = [
        rule(WindowKind::Moving, 5, SECOND),
        rule(WindowKind::Fixed, 5, SECOND),
    ];
    for rate in 0..2 {
        let mut ledger = Ledger::default();
        ledger.spend_all(START + SECOND / 2);
        let one = ask(1, 9, &[(rate, 1)]);
        let waited = wait(ledger.take(&rules, &one, START + SECOND / 2));
        assert_eq!(waited, [SECOND + SECOND / 50, SECOND / 2 + SECOND / 50][rate]);
        assert_eq!(count(ledger.take(&rules, &one, START + SECOND / 2 + waited)), 5);
    }
}

#[test]
fn r039_a_look_takes_nothing_and_tells_the_wait() {
    let rules = [rule(WindowKind::Moving, 2, SECOND)];
    let mut ledger = Ledger::default();
    let demands = [Demand { rate: 0, weight: 1 }];
    assert_eq!(ledger.peek(&rules, &demands, START), Duration::ZERO);
    let next = |verdict| match verdict {
        Verdict::Granted { next, .. } => next,
        Verdict::Wait(_) => panic!("refused"),
    };
    assert_eq!(
        next(ledger.take(&rules, &ask(1, 1, &[(0, 1)]), START)),
        Duration::ZERO
    );
    let spent = next(ledger.take(&rules, &ask(1, 1, &[(0, 1)]), START));
    assert_eq!(spent, Duration::from_millis(1020));
    assert_eq!(ledger.peek(&rules, &demands, START), spent);
    ledger.pause(START + 5 * SECOND);
    assert_eq!(ledger.peek(&rules, &demands, START), Duration::from_secs(5));
}

#[test]
fn r039_members_and_rates_without_end_are_not_remembered() {
    let mut ledger = Ledger::default();
    let one = |number: u64| ask(number, 1, &[(0, 1)]);
    let rules = |number: u64| [rule(WindowKind::Moving, 1, 1000 + i64::try_from(number).unwrap())];
    for number in 0..200 {
        ledger.take(&rules(number), &one(number), START);
        ledger.take(&rules(number), &one(number), START);
    }
    assert!(ledger.queue.len() <= QUEUE_MAX, "{}", ledger.queue.len());
    assert!(ledger.windows.len() <= WINDOWS_MAX, "{}", ledger.windows.len());
    // What was forgotten is not granted again.
    assert!(wait(ledger.take(&rules(0), &one(0), START)) > 0);
    assert_eq!(count(ledger.take(&rules(0), &one(0), START + SECOND)), 1);
}

/// Somebody asks: after so many µs, who, how many, of which rates, and how heavy.
fn asks() -> impl Strategy<Value = Vec<(i64, u64, u32, u8, u32)>> {
    let one = (
        prop_oneof![4 => 0i64..3000, 1 => 0i64..700_000],
        1u64..5,
        1u32..12,
        1u8..8,
        1u32..4,
    );
    proptest::collection::vec(one, 100..400)
}

/// Most units granted in a window that begins with a grant.
fn densest(granted: &[(Micros, u32)], per: Micros) -> u32 {
    let (mut most, mut within, mut start) = (0, 0, 0);
    for (now, units) in granted {
        within += units;
        while now - granted[start].0 >= per {
            within -= granted[start].1;
            start += 1;
        }
        most = most.max(within);
    }
    most
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn r039_r040_no_window_of_any_bucket_holds_more_than_its_budget(
        asks in asks(),
        requests in prop_oneof![3u32..20, 260u32..400],
        per in 10_000i64..900_000,
    ) {
        let rules = [
            rule(WindowKind::Moving, requests, per),
            rule(WindowKind::Moving, requests * 2, per * 3),
            rule(WindowKind::Fixed, requests, per + 7),
        ];
        let mut ledger = Ledger::default();
        let mut granted: [Vec<(Micros, u32)>; 3] = Default::default();
        let mut now = START;
        for (gap, member, want, which, weight) in asks {
            now += gap;
            let demands: Vec<(usize, u32)> =
                (0..3).filter(|rate| which & (1 << rate) != 0).map(|rate| (rate, weight)).collect();
            if let Verdict::Granted { count, .. } = ledger.take(&rules, &ask(member, want, &demands), now) {
                prop_assert!(count >= 1 && count <= want);
                for (rate, weight) in demands {
                    granted[rate].push((now, count * weight));
                }
            }
            // What is written down and read back is the same ledger.
            let text = serde_json::to_vec(&ledger).unwrap();
            prop_assert_eq!(&serde_json::from_slice::<Ledger>(&text).unwrap(), &ledger);
        }
        prop_assert!(densest(&granted[0], rules[0].per) <= rules[0].requests);
        prop_assert!(densest(&granted[1], rules[1].per) <= rules[1].requests);
        let mut windows: BTreeMap<Micros, u32> = BTreeMap::new();
        for (now, units) in &granted[2] {
            *windows.entry(now.div_euclid(rules[2].per)).or_default() += units;
        }
        prop_assert!(windows.values().all(|units| *units <= rules[2].requests), "{windows:?}");
    }

    #[test]
    fn r040_whoever_waits_as_told_is_let_go_in_the_end(
        members in 1u64..6,
        requests in 1u32..8,
        per in 1_000i64..900_000,
        fixed in any::<bool>(),
    ) {
        let kind = if fixed { WindowKind::Fixed } else { WindowKind::Moving };
        let rules = [rule(kind, requests, per)];
        let mut ledger = Ledger::default();
        let mut due: Vec<(Micros, u64)> = (0..members).map(|member| (START, member)).collect();
        let mut granted = vec![0u32; usize::try_from(members).unwrap()];
        let end = START + 20 * per + 100 * i64::try_from(members).unwrap() * 20_000;
        loop {
            due.sort();
            let (now, member) = due[0];
            if now > end {
                break;
            }
            due[0].0 += match ledger.take(&rules, &ask(member, 1, &[(0, 1)]), now) {
                Verdict::Granted { .. } => {
                    granted[usize::try_from(member).unwrap()] += 1;
                    1
                }
                Verdict::Wait(wait) => micros(wait),
            };
        }
        prop_assert!(granted.iter().all(|count| *count >= 1), "{granted:?}");
    }
}
