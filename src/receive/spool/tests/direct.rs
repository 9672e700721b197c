//! Deliveries that count when they are in the lake.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::join_all;

use object_store::ObjectStore;

use super::{
    Hand, delivery, entries,
    faulty::{Fault, Faulty},
    lake, memory, receipts,
};
use crate::{
    error::ErrorKind,
    raw::read::{PageRead, page, read_object},
    receive::spool::{acknowledger::Acknowledger, direct::Direct},
};

#[tokio::test]
async fn what_comes_at_once_is_one_batch_and_stands_when_it_is_acknowledged() {
    let store = memory();
    let direct = Direct::new(lake(&store, Hand::new().clock()), 1 << 20);
    let acknowledger = Arc::new(Acknowledger::Lake(direct));
    let appends = (0..20).map(|number| {
        let acknowledger = Arc::clone(&acknowledger);
        async move {
            let delivery = delivery("shop.orders", format!("{number}"));
            acknowledger.append(delivery).await
        }
    });
    assert!(join_all(appends).await.iter().all(Result::is_ok));
    assert_eq!(receipts(&store, "shop.orders").await.len(), 20);
    assert_eq!(entries(&store, "shop.orders").await.len(), 1);
    acknowledger
        .append(delivery("shop.orders", "later"))
        .await
        .unwrap();
    assert_eq!(entries(&store, "shop.orders").await.len(), 2);
    assert_eq!(acknowledger.level().bytes, 0);
}

#[tokio::test]
async fn a_batch_whose_answer_was_lost_is_found_and_not_landed_again() {
    for lost in [1, 2] {
        // The entry of batch `lost` comes to stand, and then nothing answers for a while.
        let (mut entries_put, mut unanswered) = (0, 0);
        let store: Arc<dyn ObjectStore> = Faulty::new(move |operation, path| {
            let is_entry = path.filename().is_some_and(|name| name.ends_with(".json"));
            entries_put += usize::from(operation == "put" && is_entry);
            match (operation == "put" && is_entry && entries_put == lost, unanswered) {
                (true, 0) => {
                    unanswered = 1;
                    Fault::Lost
                }
                (false, 1..=6) => {
                    unanswered += 1;
                    Fault::Away
                }
                _ => Fault::None,
            }
        });
        let direct = Direct::new(lake(&store, Hand::new().clock()), 1000);
        for number in 0..3 {
            direct
                .append(delivery("shop.orders", format!("{number}")))
                .await
                .unwrap();
        }
        let counts = receipts(&store, "shop.orders").await;
        assert_eq!(counts.len(), 3);
        assert!(counts.values().all(|count| *count == 1), "{counts:?}");
        assert_eq!(entries(&store, "shop.orders").await.len(), 3);
    }
}

#[tokio::test]
async fn small_deliveries_share_frames_and_each_is_read_by_itself() {
    let store = memory();
    let direct = Direct::new(lake(&store, Hand::new().clock()), 64 << 20);
    let body = |number: usize| match number {
        // One that stands alone between those that share.
        300 => format!("{{\"id\":{number},\"pad\":\"{}\"}}", "x".repeat(20 << 10)),
        _ => format!("{{\"id\":{number},\"name\":\"the same for everyone\"}}"),
    };
    let sent: Vec<_> = (0..600)
        .map(|number| delivery("shop.orders", body(number)))
        .collect();
    let receipts: Vec<String> = sent.iter().map(|sent| sent.receipt.to_string()).collect();
    let outcomes = join_all(sent.into_iter().map(|sent| direct.append(sent))).await;
    assert!(outcomes.iter().all(Result::is_ok));
    let mut read = Vec::new();
    let (mut frames, mut bytes) = (BTreeSet::new(), 0);
    for entry in entries(&store, "shop.orders").await {
        for object in &entry.objects {
            bytes += object.bytes;
            frames.extend(
                object
                    .pages
                    .iter()
                    .map(|page| (object.path.clone(), page.frame_offset)),
            );
            let mut in_turn = read_object(&*store, &entry, 0).await.unwrap();
            for number in 0..u32::try_from(object.pages.len()).unwrap() {
                let (facts, alone) = page(&*store, &entry, number).await.unwrap();
                let Some(PageRead::Page(turn)) = in_turn.next() else {
                    panic!("{number}")
                };
                assert_eq!((turn.facts.as_ref(), &turn.body), (Some(&facts), &alone));
                read.push((facts.receipt.unwrap(), alone));
            }
        }
    }
    let expected: Vec<_> = receipts
        .into_iter()
        .enumerate()
        .map(|(number, receipt)| (receipt, Bytes::from(body(number))))
        .collect();
    assert_eq!(read, expected);
    assert!(frames.len() < 20, "{} frames", frames.len());
    // Its facts are most of what a small delivery takes.
    assert!(bytes < 600 * 700, "{bytes} bytes");
}

#[tokio::test]
async fn no_more_waits_than_may() {
    let store = memory();
    let direct = Direct::new(lake(&store, Hand::new().clock()), 1000);
    let appends = (0..5).map(|_| direct.append(delivery("shop.orders", vec![b'x'; 300])));
    let outcomes = join_all(appends).await;
    let refused: Vec<ErrorKind> = outcomes
        .into_iter()
        .filter_map(|outcome| Some(outcome.err()?.kind()))
        .collect();
    assert_eq!(refused, [ErrorKind::Limit; 2]);
    assert_eq!(receipts(&store, "shop.orders").await.len(), 3);
}

#[tokio::test]
async fn a_stream_that_was_idle_is_served_again() {
    let store = memory();
    let mut direct = Direct::new(lake(&store, Hand::new().clock()), 1000);
    direct.idle = Duration::from_millis(2);
    let mut ticks = tokio::time::interval(Duration::from_millis(3));
    for _ in 0..40 {
        direct.append(delivery("shop.orders", "1")).await.unwrap();
        ticks.tick().await;
    }
    assert_eq!(receipts(&store, "shop.orders").await.len(), 40);
}
