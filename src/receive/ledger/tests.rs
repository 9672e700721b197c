mod channels;
mod crash;
mod model;
mod receipts;
mod trouble;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::{
    clock::Timestamp,
    config::Name,
    raw::{Page, PageFacts},
    receive::{Delivery, idempotency::Key, ledger::answer::Answer},
};

const AT_ONCE: Duration = Duration::ZERO;
const PATIENT: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

/// A clock that stands until it is moved.
#[derive(Clone)]
struct Hand(Arc<AtomicI64>);

impl Hand {
    fn new() -> Self {
        Self(Arc::new(AtomicI64::new(1_795_309_506_000_000)))
    }

    fn forward(&self, by: Duration) {
        self.0.fetch_add(by.as_micros() as i64, Ordering::Relaxed);
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_timestamp_micros(self.0.load(Ordering::Relaxed)).unwrap()
    }

    fn clock(&self) -> Clock {
        let hand = self.clone();
        Clock::from_fn(move || hand.now())
    }
}

/// A ledger in a folder of its own.
struct Bench {
    folder: TempDir,
    hand: Hand,
    ledger: Ledger,
}

impl Bench {
    async fn new() -> Self {
        let (folder, hand) = (tempfile::tempdir().unwrap(), Hand::new());
        let kept = Kept::in_folder(folder.path().to_owned());
        let ledger = Ledger::open(kept, hand.clock()).await.unwrap();
        Self { folder, hand, ledger }
    }

    async fn restart(&mut self) {
        self.ledger.clone().close().await.unwrap();
        self.open().await;
    }

    async fn open(&mut self) {
        let kept = Kept::in_folder(self.folder.path().to_owned());
        self.ledger = Ledger::open(kept, self.hand.clock()).await.unwrap();
    }

    async fn begin(&self, key: &str, body: &str, patience: Duration) -> Begun {
        self.ledger
            .begin(scope(key), print(body), patience)
            .await
            .unwrap()
    }

    async fn done(&self, key: &str, body: &str, text: &str) {
        let Begun::New(claim) = self.begin(key, body, AT_ONCE).await else {
            panic!("{key} is not new");
        };
        claim.complete(answer(text)).await.unwrap();
    }

    async fn see(&self, id: &str, body: &str, patience: Duration) -> Seen {
        self.ledger
            .see(&stream(), id, print(body), patience)
            .await
            .unwrap()
    }
}

fn scope(key: &str) -> Scope {
    let producer = Name::new("till").unwrap();
    Scope::new(
        Some(&producer),
        "POST",
        "/v1/streams/shop/orders/records",
        &Key::new(key).unwrap(),
    )
}

fn print(body: &str) -> Fingerprint {
    Fingerprint::of(Some("application/json"), body.as_bytes())
}

fn answer(text: &str) -> Answer {
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    Answer::new(202, headers, Bytes::copy_from_slice(text.as_bytes())).unwrap()
}

fn stream() -> StreamName {
    StreamName::parse("shop.orders").unwrap()
}

fn delivery(
    key: Option<&str>,
    event_id: Option<&str>,
    body: &str,
    at: Timestamp,
    receipt: ReceiptId,
) -> Delivery {
    Delivery {
        receipt,
        stream: stream(),
        producer: Some(Name::new("till").unwrap()),
        page: Page {
            body: Bytes::copy_from_slice(body.as_bytes()),
            facts: PageFacts {
                headers: vec![("content-type".to_owned(), "application/json".to_owned())],
                idempotency_key: key.map(str::to_owned),
                event_id: event_id.map(str::to_owned),
                receipt: Some(receipt.to_string()),
                producer: Some("till".to_owned()),
                first_seen_at: Some(at),
                ..PageFacts::new(at, "POST", "/v1/streams/shop/orders/records?mode=****", 202)
            },
        },
    }
}

#[tokio::test]
async fn f094_an_attempt_that_failed_is_not_remembered() {
    let bench = Bench::new().await;
    let Begun::New(claim) = bench.begin("k", "a", AT_ONCE).await else {
        panic!("not new");
    };
    drop(claim);
    let Begun::New(claim) = bench.begin("k", "other body", AT_ONCE).await else {
        panic!("the failed attempt is remembered");
    };
    claim.complete(answer("second")).await.unwrap();
    assert!(matches!(
        bench.begin("k", "other body", AT_ONCE).await,
        Begun::Replay(_)
    ));
    let seen = bench.see("evt", "a", AT_ONCE).await;
    drop(seen);
    assert!(matches!(bench.see("evt", "a", AT_ONCE).await, Seen::New(_)));
    bench.ledger.flush().await.unwrap();
    assert_eq!(bench.ledger.gauges().in_flight, 0);
}

#[tokio::test]
async fn r083_an_answer_is_replayed_across_restarts_until_its_time_is_over() {
    let mut bench = Bench::new().await;
    bench.done("k", "a", "first").await;
    let replayed = bench.begin("k", "a", AT_ONCE).await;
    assert!(
        matches!(&replayed, Begun::Replay(kept) if *kept == answer("first")),
        "{replayed:?}"
    );
    bench.hand.forward(24 * HOUR - Duration::from_micros(1));
    bench.restart().await;
    assert_eq!(bench.ledger.opened(), Opened::Found);
    let replayed = bench.begin("k", "a", AT_ONCE).await;
    assert!(
        matches!(&replayed, Begun::Replay(kept) if *kept == answer("first")),
        "{replayed:?}"
    );
    bench.hand.forward(Duration::from_micros(1));
    bench.done("k", "b", "second").await;
    let replayed = bench.begin("k", "b", AT_ONCE).await;
    assert!(
        matches!(&replayed, Begun::Replay(kept) if *kept == answer("second")),
        "{replayed:?}"
    );
}

#[tokio::test]
async fn f091_another_request_with_the_key_is_a_mismatch_and_the_first_stays() {
    let bench = Bench::new().await;
    let claim = bench.begin("k", "a", AT_ONCE).await;
    assert!(
        matches!(bench.begin("k", "b", AT_ONCE).await, Begun::Mismatch),
        "in flight"
    );
    let Begun::New(claim) = claim else {
        panic!("not new");
    };
    claim.complete(answer("first")).await.unwrap();
    assert!(
        matches!(bench.begin("k", "b", AT_ONCE).await, Begun::Mismatch),
        "done"
    );
    assert!(matches!(bench.begin("k", "a", AT_ONCE).await, Begun::Replay(kept) if kept == answer("first")));
}

#[tokio::test]
async fn f092_the_same_request_in_flight_is_told_so_or_waits_for_the_answer() {
    let bench = Bench::new().await;
    let Begun::New(claim) = bench.begin("k", "a", AT_ONCE).await else {
        panic!("not new");
    };
    assert!(matches!(bench.begin("k", "a", AT_ONCE).await, Begun::InFlight));
    let (waited, ()) = tokio::join!(bench.begin("k", "a", PATIENT), async {
        claim.complete(answer("first")).await.unwrap();
    });
    assert!(matches!(waited, Begun::Replay(kept) if kept == answer("first")));
}

#[tokio::test]
async fn r077_the_same_event_five_times_is_new_once_and_counted() {
    let mut bench = Bench::new().await;
    let Seen::New(claim) = bench.see("evt_1", "a", AT_ONCE).await else {
        panic!("not new");
    };
    let (first_seen_at, receipt) = (bench.hand.now(), ReceiptId::new(bench.hand.now()));
    assert_eq!((claim.attempt(), claim.first_seen_at()), (1, first_seen_at));
    claim.complete(receipt).await.unwrap();
    for count in 2..=5 {
        bench.hand.forward(HOUR);
        if count == 4 {
            bench.restart().await;
        }
        let expected = Duplicate {
            receipt,
            count,
            first_seen_at,
        };
        let seen = bench.see("evt_1", "a", AT_ONCE).await;
        assert!(
            matches!(&seen, Seen::Duplicate(duplicate) if *duplicate == expected),
            "{seen:?}"
        );
    }
    let other = StreamName::parse("shop.refunds").unwrap();
    let seen = bench
        .ledger
        .see(&other, "evt_1", print("a"), AT_ONCE)
        .await
        .unwrap();
    assert!(matches!(seen, Seen::New(_)), "an id is of its stream");
    drop(seen);
    bench.hand.forward(7 * 24 * HOUR);
    assert!(
        matches!(bench.see("evt_1", "a", AT_ONCE).await, Seen::New(_)),
        "7 days after the last"
    );
}

#[tokio::test]
async fn f082_an_id_with_another_body_is_flagged_landed_and_known_from_then_on() {
    let bench = Bench::new().await;
    let Seen::New(claim) = bench.see("evt_1", "a", AT_ONCE).await else {
        panic!("not new");
    };
    let (first, second) = (ReceiptId::new(bench.hand.now()), ReceiptId::new(bench.hand.now()));
    claim.complete(first).await.unwrap();
    let first_seen_at = bench.hand.now();
    bench.hand.forward(HOUR);
    let Seen::IdReuse(claim) = bench.see("evt_1", "b", AT_ONCE).await else {
        panic!("not flagged");
    };
    assert_eq!((claim.attempt(), claim.first_seen_at()), (2, first_seen_at));
    assert!(matches!(bench.see("evt_1", "b", AT_ONCE).await, Seen::InFlight));
    claim.complete(second).await.unwrap();
    for (body, receipt) in [("a", first), ("b", second)] {
        let seen = bench.see("evt_1", body, AT_ONCE).await;
        assert!(
            matches!(&seen, Seen::Duplicate(duplicate) if duplicate.receipt == receipt),
            "{seen:?}"
        );
    }
    for body in 0..20 {
        let Seen::IdReuse(claim) = bench.see("evt_1", &format!("c{body}"), AT_ONCE).await else {
            panic!("a body never landed is dropped");
        };
        claim.complete(second).await.unwrap();
    }
    assert!(
        matches!(bench.see("evt_1", "a", AT_ONCE).await, Seen::Duplicate(_)),
        "the first body stays known"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn f081_of_fifty_at_once_one_is_new_and_the_others_hear_of_it() {
    let bench = Arc::new(Bench::new().await);
    for round in 0..20 {
        let tasks: Vec<_> = (0..50)
            .map(|task| {
                let bench = Arc::clone(&bench);
                tokio::spawn(async move {
                    let id = format!("evt_{round}");
                    match bench
                        .see(&id, "a", if task % 2 == 0 { PATIENT } else { AT_ONCE })
                        .await
                    {
                        Seen::New(claim) => {
                            tokio::task::yield_now().await;
                            claim.complete(ReceiptId::new(bench.hand.now())).await.unwrap();
                            1
                        }
                        Seen::Duplicate(_) => 0,
                        Seen::InFlight if task % 2 == 1 => 0,
                        other => panic!("{other:?}"),
                    }
                })
            })
            .collect();
        let mut new = 0;
        for task in tasks {
            new += task.await.unwrap();
        }
        assert_eq!(new, 1, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_fifty_at_once_with_one_key_each_is_given_the_same_answer_though_half_of_the_attempts_fail() {
    let bench = Arc::new(Bench::new().await);
    let tasks: Vec<_> = (0..50)
        .map(|task| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move {
                match bench.begin("k", "a", PATIENT).await {
                    Begun::New(claim) if task % 2 == 0 => {
                        tokio::task::yield_now().await;
                        drop(claim);
                        None
                    }
                    Begun::New(claim) => {
                        claim.complete(answer(&task.to_string())).await.unwrap();
                        Some(answer(&task.to_string()))
                    }
                    Begun::Replay(kept) => Some(kept),
                    other => panic!("{other:?}"),
                }
            })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.extend(task.await.unwrap());
    }
    assert!(
        !answers.is_empty() && answers.windows(2).all(|pair| pair[0] == pair[1]),
        "{answers:?}"
    );
}

#[tokio::test]
async fn more_keys_at_once_than_the_limit_are_refused_until_one_ends() {
    let bench = Bench::new().await;
    let folder = tempfile::tempdir().unwrap();
    let kept = Kept {
        in_flight_max: 2,
        ..Kept::in_folder(folder.path().to_owned())
    };
    let ledger = Ledger::open(kept, bench.hand.clock()).await.unwrap();
    let first = ledger.begin(scope("1"), print("a"), AT_ONCE).await.unwrap();
    let second = ledger.begin(scope("2"), print("a"), AT_ONCE).await.unwrap();
    let refused = ledger.begin(scope("3"), print("a"), AT_ONCE).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Limit);
    drop(first);
    assert!(matches!(
        ledger.begin(scope("3"), print("a"), AT_ONCE).await,
        Ok(Begun::New(_))
    ));
    drop(second);
}
