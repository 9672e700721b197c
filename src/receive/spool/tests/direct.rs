//! Deliveries that count when they are in the lake.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;

use object_store::ObjectStore;

use super::{
    Hand, delivery, entries,
    faulty::{Fault, Faulty},
    lake, memory, receipts,
};
use crate::{
    error::ErrorKind,
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
