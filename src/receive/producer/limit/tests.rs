use std::{collections::BTreeMap, path::Path};

use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;
use crate::config::read::parse;

const START: Timestamp = Timestamp::UNIX_EPOCH;

fn limiter(serve: &str, producers: &str) -> Arc<Limiter> {
    let text = format!(
        "lake: ./lake\nsources:\n  shop:\n    streams:\n      orders: {{ push: {{ bytes_max: 1KiB }}, table: {{ keys: [id] }} }}\n      \
         items: {{ push: {{ bytes_max: 1KiB }}, table: {{ keys: [id] }} }}\nserve: {serve}\nproducers: {producers}\n"
    );
    let project = parse(&text, Path::new("/srv/shop")).unwrap().project;
    Limiter::new(&project, START)
}

fn at(micros: i64) -> Timestamp {
    START + TimeDelta::microseconds(micros)
}

fn stream(name: &str) -> StreamName {
    StreamName::parse(name).unwrap()
}

fn admit(
    limiter: &Arc<Limiter>,
    producer: &str,
    stream: &StreamName,
    bytes: u64,
    now: Timestamp,
) -> Admission {
    let name = Name::new(producer).unwrap();
    let ask = Ask {
        who: Who::Producer(&name),
        stream: Some(stream),
        bytes,
        first: bytes,
    };
    limiter.admit(&ask, now, Pressure::NONE)
}

/// Somebody nobody vouches for yet sends to `stream`.
fn admit_unknown(limiter: &Arc<Limiter>, stream: &StreamName, bytes: u64) -> Admission {
    let ask = Ask {
        who: Who::Sender(stream),
        stream: Some(stream),
        bytes,
        first: bytes.min(STEP_BYTES),
    };
    limiter.admit(&ask, START, Pressure::NONE)
}

fn granted(admission: Admission) -> (Permit, Standing) {
    match admission {
        Admission::Granted(permit, standing) => (permit, standing),
        Admission::Refused(refusal) => panic!("{refusal:?}"),
    }
}

fn refused(admission: Admission) -> Refusal {
    match admission {
        Admission::Granted(_, standing) => panic!("{standing:?}"),
        Admission::Refused(refusal) => refusal,
    }
}

#[test]
fn r088_what_is_left_falls_before_anything_is_refused() {
    let limiter = limiter(
        "{}",
        "{ a: { streams: ['*'], limits: { requests: 10, per: 10s, bytes: 10KiB } } }",
    );
    let orders = stream("shop.orders");
    for left in (0..10).rev() {
        let (permit, standing) = granted(admit(&limiter, "a", &orders, 10, START));
        drop(permit);
        assert_eq!(standing.0[0].left, left);
    }
    let refusal = refused(admit(&limiter, "a", &orders, 10, START));
    assert_eq!((refusal.reason, refusal.status()), (Reason::Requests, 429));
    assert_eq!(refusal.retry_after, Duration::from_secs(1));
    assert!(
        refusal.standing.limit().starts_with("\"producer\";r=0;t=10, "),
        "{}",
        refusal.standing.limit()
    );
    granted(admit(&limiter, "a", &orders, 10, START + TimeDelta::seconds(1)));
}

#[test]
fn r088_as_the_spool_fills_less_is_left_and_then_nothing() {
    let limiter = limiter(
        "{}",
        "{ a: { streams: ['*'], limits: { requests: 1000000, bytes: 1GiB } } }",
    );
    let name = Name::new("a").unwrap();
    let ask = Ask {
        who: Who::Producer(&name),
        stream: None,
        bytes: 1,
        first: 1,
    };
    let mut last = u64::MAX;
    for used in 0..=100 {
        let pressure = Pressure::between(used, 100, 0.5, 0.9);
        match limiter.admit(&ask, START, pressure) {
            Admission::Granted(_, standing) => {
                let left = standing.0[0].left;
                assert!(
                    used < 90 && left < last && left < 1_000_000 - 25_000 * used.saturating_sub(50),
                    "{used}: {left}"
                );
                last = left;
            }
            Admission::Refused(refusal) => {
                assert!(used >= 90, "{used}");
                assert_eq!((refusal.reason, refusal.status()), (Reason::Pressure, 429));
                assert_eq!(
                    (refusal.standing.0[0].left, refusal.retry_after),
                    (0, RETRY_AFTER_MAX)
                );
            }
        }
    }
    assert!(last < 25_000, "{last}");
}

#[test]
fn bytes_are_taken_before_they_come_and_what_does_not_come_is_given_back() {
    let limiter = limiter(
        "{}",
        "{ a: { streams: ['*'], limits: { bytes: 2KiB, per: 1m } } }",
    );
    let orders = stream("shop.orders");
    let (mut permit, _) = granted(admit(&limiter, "a", &orders, 1024, START));
    permit.settle(24);
    assert_eq!(permit.bytes(), 24);
    permit.settle(500);
    assert_eq!(permit.bytes(), 24);
    drop(permit);
    let (mut permit, standing) = granted(admit(&limiter, "a", &orders, 2024, START));
    assert_eq!(standing.0[1].left, 0);
    permit.settle(2024);
    drop(permit);
    let refusal = refused(admit(&limiter, "a", &orders, 1, START));
    assert_eq!(refusal.reason, Reason::Bytes);
    assert_eq!(limiter.lock().bytes.used, 0);
}

#[test]
fn f107_what_strangers_announce_or_send_is_taken_from_nobody() {
    let rates =
        "{ limits: { bytes_at_once: 64MiB }, tiers: { standard: { requests: 3, bytes: 10MiB, per: 1h } } }";
    let limiter = limiter(rates, "{ a: { streams: ['*'] } }");
    let orders = stream("shop.orders");
    for _ in 0..20 {
        // One that announces much, one that sends much and is not believed.
        let (permit, standing) = granted(admit_unknown(&limiter, &orders, 8 << 20));
        assert_eq!(standing.0[1].left, (10 << 20) - STEP_BYTES);
        assert_eq!(limiter.lock().bytes.used, STEP_BYTES);
        drop(permit);
        let (mut permit, _) = granted(admit_unknown(&limiter, &orders, 8 << 20));
        for megabytes in 1..=8 {
            permit.reach(megabytes << 20, START, Pressure::NONE).unwrap();
        }
        assert_eq!(limiter.lock().bytes.used, 8 << 20);
        drop(permit);
    }
    // Whoever is believed pays for what came, once.
    for left in [6, 2] {
        let (mut permit, standing) = granted(admit_unknown(&limiter, &orders, 8 << 20));
        permit.reach(4 << 20, START, Pressure::NONE).unwrap();
        permit.settle(4 << 20);
        drop(permit);
        assert_eq!(standing.0[1].left, ((left + 4) << 20) - STEP_BYTES);
        let lane = limiter.of_streams[&orders];
        let counters = limiter.lanes[lane].lock();
        assert_eq!(counters.own.bytes.left(Pressure::NONE), left << 20);
    }
    let (mut permit, _) = granted(admit_unknown(&limiter, &orders, 8 << 20));
    let refusal = permit.reach(3 << 20, START, Pressure::NONE).unwrap_err();
    assert_eq!(refusal.reason, Reason::Bytes);
    // What was taken for the part that came is back, so that it gets through when enough is there.
    assert_eq!(refusal.standing.0[1].left, 2 << 20);
    drop(permit);
    // Once: a stranger makes nothing of it.
    let lane = limiter.of_streams[&orders];
    let left = limiter.lanes[lane].lock().own.bytes.left(Pressure::NONE);
    assert_eq!(left, 2 << 20);
    let shared = limiter.lock();
    assert_eq!((shared.requests.used, shared.bytes.used), (0, 0));
}

#[test]
fn what_a_producer_breaks_off_costs_it_what_came() {
    let limiter = limiter(
        "{}",
        "{ a: { streams: ['*'], limits: { bytes: 2KiB, per: 1m } } }",
    );
    let orders = stream("shop.orders");
    let (mut permit, _) = granted(admit(&limiter, "a", &orders, 2000, START));
    permit.reach(48, START, Pressure::NONE).unwrap();
    drop(permit);
    let (_permit, standing) = granted(admit(&limiter, "a", &orders, 0, START));
    assert_eq!(standing.0[1].left, 2000);
}

#[test]
fn r089_a_busy_stream_leaves_something_for_the_others_of_its_producer() {
    let limiter = limiter(
        "{}",
        "{ a: { streams: ['*'], limits: { requests: 100, at_once: 4, stream_share: 0.5 } } }",
    );
    let (orders, items) = (stream("shop.orders"), stream("shop.items"));
    let _held: Vec<_> = (0..2)
        .map(|_| granted(admit(&limiter, "a", &orders, 1, START)))
        .collect();
    assert_eq!(
        refused(admit(&limiter, "a", &orders, 1, START)).reason,
        Reason::AtOnce
    );
    let (permit, standing) = granted(admit(&limiter, "a", &items, 1, START));
    let policies: Vec<&str> = standing.0.iter().map(|quota| quota.policy).collect();
    let expected = [
        "producer",
        "producer-bytes",
        "producer-at-once",
        "stream",
        "stream-bytes",
        "stream-at-once",
    ];
    assert_eq!(policies, expected);
    drop(permit);
    for _ in 0..47 {
        granted(admit(&limiter, "a", &items, 1, START));
    }
    granted(admit(&limiter, "a", &items, 1, START));
    granted(admit(&limiter, "a", &items, 1, START));
    assert_eq!(
        refused(admit(&limiter, "a", &items, 1, START)).reason,
        Reason::Requests
    );
}

#[test]
fn f157_names_that_clients_make_up_take_no_memory() {
    let limiter = limiter("{}", "{ a: { streams: ['*'], limits: { stream_share: 0.5 } } }");
    for number in 0..10_000 {
        let name = stream(&format!("shop.made-up-{number}"));
        granted(admit(&limiter, "a", &name, 1, START));
        assert_eq!(
            refused(admit(&limiter, &format!("p{number}"), &name, 1, START)).reason,
            Reason::Unknown
        );
        let ask = Ask {
            who: Who::Sender(&name),
            stream: Some(&name),
            bytes: 1,
            first: 1,
        };
        assert_eq!(
            refused(limiter.admit(&ask, START, Pressure::NONE)).reason,
            Reason::Unknown
        );
    }
    assert_eq!(limiter.lanes.len(), 3);
    assert!(limiter.lanes.iter().all(|lane| lane.lock().streams.is_empty()));
    let orders = stream("shop.orders");
    let ask = Ask {
        who: Who::Sender(&orders),
        stream: Some(&orders),
        bytes: 1,
        first: 1,
    };
    granted(limiter.admit(&ask, START, Pressure::NONE));
}

#[test]
fn f107_whoever_holds_little_is_let_in_before_whoever_holds_much() {
    let producers = "{ noisy: { streams: ['*'], limits: { at_once: 1000 } }, loud: { streams: ['*'], limits: { at_once: 1000 } }, quiet: { streams: ['*'] } }";
    let limiter = limiter("{ limits: { requests_at_once: 90 } }", producers);
    let orders = stream("shop.orders");
    let fill = |producer: &str, held: &mut Vec<Permit>| loop {
        match admit(&limiter, producer, &orders, 1, START) {
            Admission::Granted(permit, _) => held.push(permit),
            Admission::Refused(refusal) => {
                assert_eq!((refusal.reason, refusal.status()), (Reason::Capacity, 503));
                break;
            }
        }
    };
    let (mut noisy, mut loud) = (Vec::new(), Vec::new());
    fill("noisy", &mut noisy);
    assert_eq!(noisy.len(), 45, "one alone gets half");
    fill("loud", &mut loud);
    assert_eq!(loud.len(), 22, "the next gets half of the rest");
    // As requests end and come again both get the same part.
    for _ in 0..200 {
        noisy.pop();
        loud.pop();
        fill("loud", &mut loud);
        fill("noisy", &mut noisy);
    }
    assert!(
        noisy.len().abs_diff(loud.len()) <= 2,
        "{} {}",
        noisy.len(),
        loud.len()
    );
    let _quiet: Vec<_> = (0..10)
        .map(|_| granted(admit(&limiter, "quiet", &orders, 1, START)))
        .collect();
}

#[test]
fn r149_a_premium_producer_gets_its_part_while_others_want_everything() {
    let tiers = "{ limits: { requests_at_once: 120 }, tiers: { premium: { weight: 4, at_once: 1000 }, bulk: { at_once: 1000 } } }";
    let producers = "{ a: { streams: ['*'], tier: bulk }, b: { streams: ['*'], tier: bulk }, gold: { streams: ['*'], tier: premium } }";
    let limiter = limiter(tiers, producers);
    let orders = stream("shop.orders");
    let names = ["a", "b", "gold"];
    let mut held: BTreeMap<&str, Vec<Permit>> = names.into_iter().map(|name| (name, Vec::new())).collect();
    // Everybody wants everything, and requests end in turn.
    for turn in 0..10_000 {
        for name in names {
            if let Admission::Granted(permit, _) = admit(&limiter, name, &orders, 0, at(turn)) {
                held.get_mut(name).unwrap().push(permit);
            }
        }
        let most = names.into_iter().max_by_key(|name| held[name].len()).unwrap();
        held.get_mut(names[usize::try_from(turn % 3).unwrap()])
            .unwrap()
            .pop();
        assert!(held[most].len() <= 120);
    }
    // 1 + 1 + 4 parts of seven.
    assert!(
        held["gold"].len() >= 3 * held["a"].len().max(held["b"].len()),
        "{:?}",
        held.values().map(Vec::len).collect::<Vec<_>>()
    );
    assert!(held["a"].len() >= 10 && held["b"].len() >= 10);
}

#[test]
fn many_threads_leave_nothing_behind() {
    let producers =
        "{ a: { streams: ['*'], limits: { at_once: 3, stream_share: 0.7 } }, b: { streams: ['*'] } }";
    let limiter = limiter("{ limits: { requests_at_once: 8 } }", producers);
    let orders = stream("shop.orders");
    std::thread::scope(|scope| {
        for thread in 0..4i64 {
            let (limiter, orders) = (&limiter, &orders);
            scope.spawn(move || {
                for turn in 0..5_000 {
                    let producer = ["a", "b"][usize::try_from((turn + thread) % 2).unwrap()];
                    if let Admission::Granted(mut permit, _) = admit(limiter, producer, orders, 10, at(turn))
                    {
                        assert!(limiter.lock().requests.used <= 8);
                        permit.settle(5);
                    }
                }
            });
        }
    });
    let shared = limiter.lock();
    assert_eq!((shared.requests.used, shared.bytes.used), (0, 0));
    for lane in &limiter.lanes {
        let counters = lane.lock();
        let streams = counters.streams.values().map(|meter| meter.at_once).sum::<u32>();
        assert_eq!((counters.own.at_once, streams, counters.bytes_held), (0, 0, 0));
    }
}

/// A small generator: the same steps each time.
struct Steps(u64);

impl Steps {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// A million requests of one producer that sends a hundred times what it may, beside one that keeps to it, on a server
/// that has 64 places and takes a few milliseconds for each request.
#[test]
fn f107_r089_a_million_steps_of_a_noisy_beside_a_quiet_producer() {
    const STEPS: i64 = 1_000_000;
    const STEP_MICROS: i64 = 100;
    let producers = "{ noisy: { streams: ['*'], limits: { requests: 100, per: 1s, bytes: 100KiB, at_once: 1000 } }, \
                     quiet: { streams: ['*'], limits: { requests: 100, per: 1s, bytes: 100KiB } } }";
    let limiter = limiter("{ limits: { requests_at_once: 64 } }", producers);
    let (noisy, quiet, orders) = (
        Name::new("noisy").unwrap(),
        Name::new("quiet").unwrap(),
        stream("shop.orders"),
    );
    let mut steps = Steps(7);
    let mut running: BTreeMap<(i64, i64), Permit> = BTreeMap::new();
    let (mut taken, mut refusals, mut quiet_taken) = (0u64, BTreeMap::new(), 0u64);
    for step in 0..STEPS {
        let now = at(step * STEP_MICROS);
        while running
            .first_key_value()
            .is_some_and(|((end, _), _)| *end <= step)
        {
            running.pop_first();
        }
        let ask = |who| Ask {
            who: Who::Producer(who),
            stream: Some(&orders),
            bytes: 1024,
            first: 1024,
        };
        // 10,000 in a second, of which it may send 100; each takes 0 to 1 s, as those of a slow client do.
        match limiter.admit(&ask(&noisy), now, Pressure::NONE) {
            Admission::Granted(permit, _) => {
                taken += 1;
                let takes = i64::try_from(steps.below(10_000)).unwrap();
                running.insert((step + 1 + takes, step), permit);
            }
            Admission::Refused(refusal) => *refusals.entry(refusal.reason.as_str()).or_insert(0u64) += 1,
        }
        // 50 in a second, of which it may send 100.
        if step % 200 == 0 {
            let (permit, _) = granted(limiter.admit(&ask(&quiet), now, Pressure::NONE));
            quiet_taken += 1;
            running.insert((step + 50, STEPS + step), permit);
        }
    }
    let seconds = u64::try_from(STEPS * STEP_MICROS / 1_000_000).unwrap();
    assert_eq!(quiet_taken, 50 * seconds, "the quiet one never waits");
    assert!(taken <= 100 + 100 * seconds, "{taken}");
    assert!(taken >= 50 * seconds, "{taken}");
    assert_eq!(
        taken + refusals.values().sum::<u64>(),
        u64::try_from(STEPS).unwrap()
    );
    drop(running);
    let shared = limiter.lock();
    assert_eq!((shared.requests.used, shared.bytes.used), (0, 0));
}

proptest! {
    /// Whatever is held and let go: what is counted as shared is the sum of what is held, within its bounds, and one
    /// that holds nothing gets in while anything is free.
    #[test]
    fn what_is_shared_is_never_overdrawn(moves in prop::collection::vec((0usize..3, 0u64..1024, any::<bool>()), 1..300)) {
        let producers = "{ a: { streams: ['*'] }, b: { streams: ['*'], limits: { weight: 5 } }, c: { streams: ['*'], limits: { stream_share: 0.3 } } }";
        let limiter = limiter("{ limits: { requests_at_once: 20, bytes_at_once: 2MiB } }", producers);
        let orders = stream("shop.orders");
        let mut held: Vec<(usize, Permit)> = Vec::new();
        for (who, bytes, ends) in moves {
            if ends && !held.is_empty() {
                held.swap_remove(who % held.len());
            }
            let holds = held.iter().filter(|(other, _)| *other == who).count();
            let free = 20 - held.len();
            match admit(&limiter, ["a", "b", "c"][who], &orders, bytes, START) {
                Admission::Granted(mut permit, _) => {
                    permit.settle(bytes / 2);
                    held.push((who, permit));
                }
                Admission::Refused(refusal) => {
                    prop_assert_eq!(refusal.reason, Reason::Capacity);
                    prop_assert!(holds > 0 || free < 2, "{} held, {} free", holds, free);
                }
            }
            let shared = limiter.lock();
            prop_assert_eq!(shared.requests.used, held.len() as u64);
            prop_assert_eq!(shared.bytes.used, held.iter().map(|(_, permit)| permit.bytes()).sum::<u64>());
            prop_assert!(shared.requests.used <= 20 && shared.bytes.used <= 2 << 20);
        }
    }
}
