//! Any order of requests, failures, time, restarts and crashes, against maps that say what must be known.

use std::{collections::BTreeMap, fs};

use proptest::prelude::*;

use super::*;
use crate::receive::ledger::{receipt::Stage, repair::Remembered};

#[derive(Clone, Debug)]
enum Step {
    Begin {
        key: u8,
        body: u8,
    },
    See {
        id: u8,
        body: u8,
    },
    /// The oldest claim ends: its delivery is durable.
    Complete,
    /// The newest claim ends: its attempt failed.
    Fail,
    Forward {
        hours: u8,
    },
    Sweep,
    /// All that is in the spool lands; then the ledger is flushed.
    Ship,
    Restart,
    /// The process is killed: the file is as it was on disk, and repaired from the spool.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..4u8, 0..2u8).prop_map(|(key, body)| Step::Begin { key, body }),
        6 => (0..4u8, 0..3u8).prop_map(|(id, body)| Step::See { id, body }),
        8 => Just(Step::Complete),
        2 => Just(Step::Fail),
        2 => (1..100u8).prop_map(|hours| Step::Forward { hours }),
        1 => Just(Step::Sweep),
        1 => Just(Step::Ship),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
    ]
}

/// What must be known of an event: bodies with their receipts, deliveries, first and last.
#[derive(Clone, Debug)]
struct Known {
    bodies: Vec<(u8, ReceiptId)>,
    count: u64,
    first: Timestamp,
    last: Timestamp,
}

/// What is on disk, and what would be there if all of it were.
#[derive(Clone, Default)]
struct Maps {
    answers: BTreeMap<u8, (Timestamp, u8, u32)>,
    events: BTreeMap<u8, Known>,
    receipts: BTreeMap<ReceiptId, (Timestamp, bool)>,
}

enum Claimed {
    Key(u8, u8, KeyClaim),
    Event(u8, u8, Timestamp, EventClaim),
}

/// A delivery not shipped: the event it is (id, body), or the answer it was given (key, body, number).
type Spooled = (Delivery, Option<(u8, u8)>, Option<(u8, u8, u32)>);

struct Run {
    bench: Bench,
    now: Maps,
    durable: Maps,
    claims: Vec<Claimed>,
    spool: Vec<Spooled>,
    answers: u32,
}

fn live(at: Timestamp, keep: Duration, now: Timestamp) -> bool {
    at + keep > now
}

impl Maps {
    fn land_event(&mut self, id: u8, body: u8, first: Timestamp, at: Timestamp, receipt: ReceiptId) {
        let known = self
            .events
            .get_mut(&id)
            .filter(|known| live(known.last, Kept::EVENTS_FOR, at));
        match known {
            Some(known) => {
                known.bodies.push((body, receipt));
                known.count += 1;
                known.last = known.last.max(at);
            }
            None => {
                let bodies = vec![(body, receipt)];
                self.events.insert(
                    id,
                    Known {
                        bodies,
                        count: 1,
                        first,
                        last: at,
                    },
                );
            }
        }
    }
}

impl Run {
    async fn new() -> Self {
        Self {
            bench: Bench::new().await,
            now: Maps::default(),
            durable: Maps::default(),
            claims: Vec::new(),
            spool: Vec::new(),
            answers: 0,
        }
    }

    async fn step(&mut self, step: &Step) {
        let now = self.bench.hand.now();
        match *step {
            Step::Begin { key, body } => self.begin(key, body).await,
            Step::See { id, body } => self.see(id, body).await,
            Step::Complete if !self.claims.is_empty() => {
                let claim = self.claims.remove(0);
                self.complete(claim).await;
            }
            Step::Complete => {}
            Step::Fail => drop(self.claims.pop()),
            Step::Forward { hours } => self.bench.hand.forward(HOUR * u32::from(hours)),
            Step::Sweep => {
                let swept = self.bench.ledger.sweep().await.unwrap();
                assert!(!swept.more);
                self.now
                    .receipts
                    .retain(|_, (at, _)| *at + Kept::RECEIPTS_FOR >= now);
                self.durable = self.now.clone();
                // Gone from the file; whoever holds a claim still has what it saw.
                self.durable
                    .events
                    .retain(|_, known| live(known.last, Kept::EVENTS_FOR, now));
            }
            Step::Ship => {
                let batch = crate::raw::BatchNumber::FIRST;
                let stage = Stage::Landed { batch, page: 0 };
                let landed = self
                    .spool
                    .drain(..)
                    .map(|(delivery, ..)| Receipt::of(&delivery, stage.clone()));
                let landed: Vec<Receipt> = landed.collect();
                for receipt in &landed {
                    self.now.receipts.insert(receipt.id, (now, true));
                }
                self.bench.ledger.record(landed).await.unwrap();
                self.bench.ledger.flush().await.unwrap();
                self.durable = self.now.clone();
            }
            Step::Restart => {
                self.claims.clear();
                self.bench.restart().await;
                self.durable = self.now.clone();
                self.repair().await;
            }
            Step::Crash => self.crash().await,
        }
    }

    async fn begin(&mut self, key: u8, body: u8) {
        let (now, text) = (self.bench.hand.now(), body.to_string());
        let begun = self.bench.begin(&key.to_string(), &text, AT_ONCE).await;
        let held = self.claims.iter().find_map(|claim| match claim {
            Claimed::Key(held, body, _) if *held == key => Some(*body),
            _ => None,
        });
        let known = self
            .now
            .answers
            .get(&key)
            .filter(|(at, ..)| live(*at, Kept::ANSWERS_FOR, now));
        match (held, known, begun) {
            (Some(other), _, Begun::InFlight) if other == body => {}
            (Some(other), _, Begun::Mismatch) if other != body => {}
            (None, Some((_, other, _)), Begun::Mismatch) if *other != body => {}
            (None, Some((_, other, number)), Begun::Replay(kept)) if *other == body => {
                assert_eq!(kept, answer(&number.to_string()));
            }
            (None, None, Begun::New(claim)) => self.claims.push(Claimed::Key(key, body, claim)),
            (held, known, begun) => panic!("held {held:?}, known {known:?}, begun {begun:?}"),
        }
    }

    async fn see(&mut self, id: u8, body: u8) {
        let (now, text) = (self.bench.hand.now(), body.to_string());
        let seen = self.bench.see(&id.to_string(), &text, AT_ONCE).await;
        let held = self
            .claims
            .iter()
            .any(|claim| matches!(claim, Claimed::Event(held, ..) if *held == id));
        let known = self
            .now
            .events
            .get_mut(&id)
            .filter(|known| live(known.last, Kept::EVENTS_FOR, now));
        let landed = known
            .as_ref()
            .and_then(|known| known.bodies.iter().find(|(landed, _)| *landed == body).copied());
        match (held, known, landed, seen) {
            (true, _, _, Seen::InFlight) => {}
            (false, Some(known), Some((_, receipt)), Seen::Duplicate(duplicate)) => {
                known.count += 1;
                known.last = known.last.max(now);
                let (count, first_seen_at) = (known.count, known.first);
                assert_eq!(
                    duplicate,
                    Duplicate {
                        receipt,
                        count,
                        first_seen_at
                    }
                );
            }
            (false, Some(known), None, Seen::IdReuse(claim)) => {
                assert_eq!(
                    (claim.attempt(), claim.first_seen_at()),
                    (known.count + 1, known.first)
                );
                self.claims.push(Claimed::Event(id, body, known.first, claim));
            }
            (false, None, _, Seen::New(claim)) => self.claims.push(Claimed::Event(id, body, now, claim)),
            (held, known, landed, seen) => {
                panic!("held {held}, known {known:?}, landed {landed:?}, seen {seen:?}")
            }
        }
    }

    async fn complete(&mut self, claim: Claimed) {
        let now = self.bench.hand.now();
        let receipt = ReceiptId::new(now);
        match claim {
            Claimed::Key(key, body, claim) => {
                self.answers += 1;
                let landed = delivery(Some(&key.to_string()), None, &body.to_string(), now, receipt);
                self.bench
                    .ledger
                    .record(vec![Receipt::of(&landed, Stage::Spooled)])
                    .await
                    .unwrap();
                self.spool.push((landed, None, Some((key, body, self.answers))));
                self.now.answers.insert(key, (now, body, self.answers));
                claim.complete(answer(&self.answers.to_string())).await.unwrap();
            }
            Claimed::Event(id, body, first, claim) => {
                // As the receiver does: the moment of the body is that of the claim.
                let at = claim.now;
                let mut landed = delivery(None, Some(&id.to_string()), &body.to_string(), at, receipt);
                landed.page.facts.first_seen_at = Some(first);
                self.bench
                    .ledger
                    .record(vec![Receipt::of(&landed, Stage::Spooled)])
                    .await
                    .unwrap();
                self.spool.push((landed, Some((id, body)), None));
                self.now.land_event(id, body, first, at, receipt);
                claim.complete(receipt).await.unwrap();
            }
        }
        self.now.receipts.insert(receipt, (now, false));
    }

    async fn crash(&mut self) {
        // Settled, but not flushed: the copy is what a kill leaves behind.
        self.bench.ledger.list(everything()).await.unwrap();
        let image = tempfile::tempdir().unwrap();
        fs::copy(
            self.bench.folder.path().join("ledger.redb"),
            image.path().join("ledger.redb"),
        )
        .unwrap();
        self.claims.clear();
        self.bench.ledger.clone().close().await.unwrap();
        self.bench.folder = image;
        self.bench.open().await;
        assert_eq!(self.bench.ledger.opened(), Opened::Found);
        self.now = self.durable.clone();
        self.repair().await;
    }

    /// Repairs both, the ledger and the maps, by the same deliveries.
    async fn repair(&mut self) {
        let now = self.bench.hand.now();
        let remembered = self.spool.iter().map(|(delivery, _, answered)| {
            let text = answered.map_or(String::new(), |(.., number)| number.to_string());
            Remembered::of(delivery, |_| Ok(answer(&text))).unwrap()
        });
        self.bench.ledger.repair(remembered.collect()).await.unwrap();
        for (delivery, event, answered) in &self.spool {
            let (at, receipt) = (delivery.page.facts.fetched_at, delivery.receipt);
            if let Some((key, body, number)) = *answered {
                let known = self
                    .now
                    .answers
                    .get(&key)
                    .is_some_and(|(kept, ..)| live(*kept, Kept::ANSWERS_FOR, at));
                if !known && live(at, Kept::ANSWERS_FOR, now) {
                    self.now.answers.insert(key, (at, body, number));
                }
            }
            if let Some((id, body)) = *event {
                let known = self
                    .now
                    .events
                    .get(&id)
                    .filter(|known| live(known.last, Kept::EVENTS_FOR, at));
                let landed =
                    known.is_some_and(|known| known.bodies.iter().any(|(landed, _)| *landed == body));
                if !landed && live(at, Kept::EVENTS_FOR, now) {
                    let first = delivery.page.facts.first_seen_at.unwrap();
                    self.now.land_event(id, body, first, at, receipt);
                }
            }
            self.now.receipts.entry(receipt).or_insert((now, false));
        }
    }

    async fn check(&self) {
        let now = self.bench.hand.now();
        for (id, (at, landed)) in &self.now.receipts {
            let found = self.bench.ledger.receipt(*id).await.unwrap();
            let stage = found.map(|receipt| matches!(receipt.stage, Stage::Landed { .. }));
            let expected = (*at + Kept::RECEIPTS_FOR >= now).then_some(*landed);
            assert_eq!(stage, expected, "receipt {id}");
        }
    }
}

fn everything() -> Listing {
    Listing {
        updated_at_gte: None,
        after: None,
        producer: None,
        stream: None,
        limit: 1,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_ledger_knows_what_it_must(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new().await;
            for step in &steps {
                run.step(step).await;
            }
            run.check().await;
            run.claims.clear();
            run.bench.ledger.clone().close().await.unwrap();
        });
    }
}
