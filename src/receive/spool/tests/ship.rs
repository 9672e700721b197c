//! From the spool into the lake, whatever the lake does.

use std::{
    fs,
    path::Path as FilePath,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use object_store::ObjectStore;

use super::{
    Hand, OPTIONS, delivery, entries,
    faulty::{Fault, Faulty},
    lake, landed, memory, receipts,
};
use crate::{
    error::{Error, ErrorKind},
    receive::{
        ReceiptId,
        spool::{
            Options, Spool, level::Pressure, pace::Pace, part::Lake, recovery::Recovered, shipper::Left,
        },
    },
};

/// Short waits, and a time to stop that is long beside all of them.
const PACE: Pace = Pace {
    backoff_start: Duration::from_millis(1),
    backoff_max: Duration::from_millis(20),
    part_timeout: Duration::from_secs(60),
    drain: Duration::from_secs(120),
};

const NOTHING: Left = Left {
    segments: 0,
    bytes: 0,
};

fn open(dir: &FilePath, options: Options) -> (Spool, Recovered) {
    Spool::open(dir, options, Hand::new().clock(), &mut |_, _| {}).unwrap()
}

/// Ships everything there is, and stops.
async fn drain(spool: &Spool, lake: Lake) -> Left {
    spool.ship(lake, std::future::ready(()), PACE).await
}

async fn append(spool: &Spool, stream: &str, bodies: &[&'static str]) -> Vec<ReceiptId> {
    let mut given = Vec::new();
    for body in bodies {
        let delivery = delivery(stream, *body);
        given.push(delivery.receipt);
        spool.append(delivery).await.unwrap();
    }
    given
}

fn files(dir: &FilePath) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name != "lock");
    names.sort();
    names
}

#[tokio::test]
async fn deliveries_land_in_order_once_with_their_facts() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, recovered) = open(dir.path(), OPTIONS);
    assert_eq!(recovered, Recovered::default());
    append(&spool, "shop.orders", &["1", "2"]).await;
    append(&spool, "shop.customers", &["a"]).await;
    append(&spool, "shop.orders", &["3", ""]).await;
    let store = memory();
    assert_eq!(drain(&spool, lake(&store, Hand::new().clock())).await, NOTHING);
    let pages = landed(&store, "shop.orders").await;
    let bodies: Vec<&[u8]> = pages.iter().map(|page| &page.body[..]).collect();
    assert_eq!(bodies, [&b"1"[..], b"2", b"3", b""]);
    let facts = &pages[0].facts;
    assert_eq!(facts.producer.as_deref(), Some("till"));
    assert_eq!(
        (facts.attempts, facts.idempotency_key.as_deref()),
        (2, Some("key"))
    );
    assert!(facts.receipt.is_some() && facts.first_seen_at.is_some());
    assert_eq!(landed(&store, "shop.customers").await.len(), 1);
    assert_eq!(entries(&store, "shop.orders").await.len(), 1);
    assert_eq!(files(dir.path()), Vec::<String>::new());
    let level = spool.level();
    assert_eq!((level.bytes, level.segments, level.age), (0, 0, None));
}

#[tokio::test]
async fn a_lake_that_is_away_delays_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 1,
        ..OPTIONS
    };
    let (spool, _) = open(dir.path(), options);
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let faulty = Faulty::new(move |_, _| match count.fetch_add(1, Ordering::SeqCst) {
        0..60 => Fault::Away,
        _ => Fault::None,
    });
    let given = append(&spool, "shop.orders", &["1", "2", "3"]).await;
    assert_eq!(spool.level().segments, 3);
    let store: Arc<dyn ObjectStore> = faulty;
    assert_eq!(drain(&spool, lake(&store, Hand::new().clock())).await, NOTHING);
    assert!(requests.load(Ordering::SeqCst) > 60);
    let pages = landed(&store, "shop.orders").await;
    let order: Vec<&str> = pages
        .iter()
        .map(|page| page.facts.receipt.as_deref().unwrap())
        .collect();
    let given: Vec<String> = given.iter().map(ReceiptId::to_string).collect();
    assert_eq!(order, given);
}

#[tokio::test]
async fn an_answer_that_is_lost_lands_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path(), OPTIONS);
    // The entry stands, and neither that nor what stands there can be learnt for a while.
    let mut after = None;
    let faulty = Faulty::new(move |operation, path| {
        let is_entry = path.as_ref().contains("_log/0");
        if operation == "put" && is_entry && after.is_none() {
            after = Some(12);
            return Fault::Lost;
        }
        match &mut after {
            Some(left) if *left > 0 => {
                *left -= 1;
                Fault::Away
            }
            _ => Fault::None,
        }
    });
    let given = append(&spool, "shop.orders", &["1", "2"]).await;
    let store: Arc<dyn ObjectStore> = faulty;
    assert_eq!(drain(&spool, lake(&store, Hand::new().clock())).await, NOTHING);
    let counts = receipts(&store, "shop.orders").await;
    assert_eq!(counts.len(), given.len());
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    assert_eq!(entries(&store, "shop.orders").await.len(), 1);
}

#[tokio::test]
async fn a_commit_that_comes_through_late_lands_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path(), OPTIONS);
    let mut puts = 0;
    let faulty = Faulty::new(move |operation, path| {
        if operation != "put" || !path.as_ref().contains("_log/0") {
            return Fault::None;
        }
        puts += 1;
        // All attempts of one commit; then, between the look of the next attempt and its commit, it is there.
        if puts <= 5 { Fault::Held } else { Fault::Late }
    });
    let given = append(&spool, "shop.orders", &["1", "2"]).await;
    let store: Arc<dyn ObjectStore> = faulty;
    assert_eq!(drain(&spool, lake(&store, Hand::new().clock())).await, NOTHING);
    let counts = receipts(&store, "shop.orders").await;
    assert_eq!(
        (counts.len(), entries(&store, "shop.orders").await.len()),
        (given.len(), 1)
    );
}

#[tokio::test]
async fn a_bad_stream_holds_up_no_other_and_takes_no_room_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path(), OPTIONS);
    let faulty = Faulty::new(|_, path| match path.as_ref().starts_with("raw/shop/bad/") {
        true => Fault::Away,
        false => Fault::None,
    });
    let store: Arc<dyn ObjectStore> = Arc::clone(&faulty) as _;
    let filler = "x".repeat(10_000);
    let mut bad = Vec::new();
    for _ in 0..5 {
        for _ in 0..3 {
            spool.append(delivery("shop.good", filler.clone())).await.unwrap();
        }
        bad.extend(append(&spool, "shop.bad", &["b"]).await);
        spool.seal(crate::clock::Timestamp::MAX_UTC).await;
    }
    assert!(spool.level().bytes > 150_000);
    let left = spool
        .ship(
            lake(&store, Hand::new().clock()),
            std::future::ready(()),
            Pace {
                drain: Duration::from_secs(2),
                ..PACE
            },
        )
        .await;
    assert_eq!(left.segments, 5);
    assert_eq!(receipts(&store, "shop.good").await.len(), 15);
    // What the others left beside it is cleared away.
    assert!(spool.level().bytes < 10_000, "{:?}", spool.level());
    drop(spool);
    let (spool, recovered) = open(dir.path(), OPTIONS);
    assert_eq!((recovered.deliveries, recovered.damaged.len()), (5, 0));
    faulty.heal();
    assert_eq!(drain(&spool, lake(&store, Hand::new().clock())).await, NOTHING);
    let pages = landed(&store, "shop.bad").await;
    let order: Vec<&str> = pages
        .iter()
        .map(|page| page.facts.receipt.as_deref().unwrap())
        .collect();
    assert_eq!(order, bad.iter().map(ReceiptId::to_string).collect::<Vec<_>>());
    assert_eq!(receipts(&store, "shop.good").await.len(), 15);
    assert_eq!(files(dir.path()), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_not_shipped_in_time_is_shipped_after_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path(), OPTIONS);
    append(&spool, "shop.orders", &["1"]).await;
    let faulty = Faulty::new(|_, _| Fault::Away);
    let store: Arc<dyn ObjectStore> = Arc::clone(&faulty) as _;
    let deadline = Duration::from_millis(200);
    let begun = tokio::time::Instant::now();
    let left = spool
        .ship(
            lake(&store, Hand::new().clock()),
            std::future::ready(()),
            Pace {
                drain: deadline,
                ..PACE
            },
        )
        .await;
    assert!(begun.elapsed() < PACE.drain);
    assert_eq!(left.segments, 1);
    // The same spool can be shipped again, and so can the next.
    append(&spool, "shop.orders", &["2"]).await;
    drop(spool);
    let (spool, recovered) = open(dir.path(), OPTIONS);
    assert_eq!((recovered.segments, recovered.deliveries), (2, 2));
    faulty.heal();
    assert_eq!(drain(&spool, lake(&store, Hand::new().clock())).await, NOTHING);
    assert_eq!(receipts(&store, "shop.orders").await.len(), 2);
}

#[tokio::test]
async fn what_can_be_read_of_a_damaged_segment_lands_and_the_file_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path(), OPTIONS);
    append(&spool, "shop.orders", &["first", "second", "third"]).await;
    drop(spool);
    let file = files(dir.path()).remove(0);
    let path = dir.path().join(&file);
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(6).position(|window| window == b"second").unwrap();
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (spool, recovered) = open(dir.path(), OPTIONS);
    assert_eq!((recovered.damaged.len(), recovered.deliveries), (1, 2));
    let store = memory();
    assert_eq!(drain(&spool, lake(&store, Hand::new().clock())).await, NOTHING);
    let pages = landed(&store, "shop.orders").await;
    assert_eq!(
        (&pages[0].body[..], &pages[1].body[..]),
        (&b"first"[..], &b"third"[..])
    );
    assert_eq!(files(dir.path()), [format!("{file}.corrupt")]);
    assert_eq!(
        fs::read(dir.path().join(format!("{file}.corrupt"))).unwrap(),
        bytes
    );
    drop(spool);
    let (_, recovered) = open(dir.path(), OPTIONS);
    assert_eq!((recovered.segments, recovered.kept_aside), (0, 1));
}

#[tokio::test]
async fn a_full_spool_refuses_and_takes_again_when_the_lake_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        bytes_max: 20_000,
        ..OPTIONS
    };
    let (spool, _) = open(dir.path(), options);
    let mut kept = 0;
    let mut pressures = vec![spool.level().pressure()];
    let error = loop {
        match spool.append(delivery("shop.orders", vec![b'x'; 1000])).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
        pressures.push(spool.level().pressure());
    };
    pressures.dedup();
    assert_eq!(pressures, [Pressure::Calm, Pressure::Slow, Pressure::Refuse]);
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert!((10..20).contains(&kept), "{kept}");
    let store = memory();
    assert_eq!(drain(&spool, lake(&store, Hand::new().clock())).await, NOTHING);
    append(&spool, "shop.orders", &["again"]).await;
    assert_eq!(drain(&spool, lake(&store, Hand::new().clock())).await, NOTHING);
    assert_eq!(receipts(&store, "shop.orders").await.len(), kept + 1);
}

#[tokio::test]
async fn who_is_told_of_landed_deliveries_may_fail_and_is_told_again() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = open(dir.path(), OPTIONS);
    let given = append(&spool, "shop.orders", &["1", "2"]).await;
    let store = memory();
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    let lake = Lake {
        landed: Box::new(move |landed| {
            let mut heard = heard.lock().unwrap();
            heard.push(landed.clone());
            match heard.len() {
                1 | 2 => Err(Error::new(ErrorKind::Unavailable, "note receipts")),
                _ => Ok(()),
            }
        }),
        ..lake(&store, Hand::new().clock())
    };
    assert_eq!(drain(&spool, lake).await, NOTHING);
    let told = told.lock().unwrap().clone();
    assert_eq!(told.len(), 3);
    assert!(
        told.iter()
            .all(|landed| landed.receipts == given && landed.batch.get() == 0)
    );
    assert_eq!(entries(&store, "shop.orders").await.len(), 1);
}

#[tokio::test]
async fn a_segment_is_shipped_when_it_is_old_while_others_are_appended() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::new();
    let (spool, _) = Spool::open(dir.path(), OPTIONS, hand.clock(), &mut |_, _| {}).unwrap();
    let store = memory();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shipping = spool.ship(
        lake(&store, hand.clock()),
        async {
            let _ = stopped.await;
        },
        PACE,
    );
    let appending = async {
        append(&spool, "shop.orders", &["1"]).await;
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        for _ in 0..2000 {
            if !landed(&store, "shop.orders").await.is_empty() {
                break;
            }
            hand.pass(Duration::from_millis(10));
            ticks.tick().await;
        }
        assert_eq!(
            landed(&store, "shop.orders").await.len(),
            1,
            "without being asked to stop"
        );
        append(&spool, "shop.orders", &["2"]).await;
        stop.send(()).unwrap();
    };
    let (left, ()) = tokio::join!(shipping, appending);
    assert_eq!(left, NOTHING);
    assert_eq!(receipts(&store, "shop.orders").await.len(), 2);
}

#[tokio::test]
async fn a_segment_stays_until_all_in_it_is_told_of_and_so_do_those_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 1,
        ..OPTIONS
    };
    let (spool, _) = open(dir.path(), options);
    append(&spool, "shop.orders", &["told of"]).await;
    let kept = spool.append(delivery("shop.orders", "not yet")).await.unwrap();
    append(&spool, "shop.customers", &["behind it"]).await;
    let store = memory();
    // Told to stop it waits for nobody.
    let left = drain(&spool, lake(&store, Hand::new().clock())).await;
    assert_eq!(left.segments, 2);
    assert_eq!(receipts(&store, "shop.orders").await.len(), 1);
    assert_eq!(receipts(&store, "shop.customers").await.len(), 0);

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stopped = async {
        let _ = stopped.await;
    };
    let shipping = spool.ship(lake(&store, Hand::new().clock()), stopped, PACE);
    let telling = async {
        drop(kept);
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        for _ in 0..2000 {
            if spool.level().segments == 0 {
                break;
            }
            ticks.tick().await;
        }
        assert_eq!(spool.level().segments, 0, "without being asked to stop");
        stop.send(()).unwrap();
    };
    let (left, ()) = tokio::join!(shipping, telling);
    assert_eq!(left, NOTHING);
    assert_eq!(receipts(&store, "shop.orders").await.len(), 2);
    assert_eq!(receipts(&store, "shop.customers").await.len(), 1);
}
