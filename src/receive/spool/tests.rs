//! The spool as a whole: bytes of its files, power cuts, shipping, and processes that are killed.

mod direct;
mod faulty;
mod format;
mod kill;
mod power;
mod ship;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::{ObjectStore, ObjectStoreExt as _, memory::InMemory, path::Path};

use crate::{
    clock::{Clock, Timestamp},
    config::StreamName,
    raw::{
        BatchNumber, Page, PageFacts,
        frame::read_alone,
        log::{LogEntry, RawLog},
    },
    receive::{
        Delivery, ReceiptId,
        spool::{
            Options,
            part::{Lake, Landed},
        },
    },
};

const OPTIONS: Options = Options {
    bytes_max: 64 << 20,
    segment_bytes: 1 << 20,
    segment_deliveries: 1000,
    segment_age: Duration::from_millis(100),
    waiting_bytes_max: 8 << 20,
};

/// A clock that a test moves on.
#[derive(Clone)]
struct Hand(Arc<AtomicI64>);

impl Hand {
    fn new() -> Self {
        Self(Arc::new(AtomicI64::new(1_795_309_506_000)))
    }

    fn pass(&self, time: Duration) {
        self.0.fetch_add(time.as_millis() as i64, Ordering::SeqCst);
    }

    fn clock(&self) -> Clock {
        let now = Arc::clone(&self.0);
        Clock::from_fn(move || Timestamp::from_timestamp_millis(now.load(Ordering::SeqCst)).unwrap())
    }
}

fn facts(at: Timestamp) -> PageFacts {
    PageFacts {
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        attempts: 2,
        idempotency_key: Some("key".to_owned()),
        first_seen_at: Some(at),
        ..PageFacts::new(at, "POST", "/v1/streams/shop/orders/records", 202)
    }
}

fn delivery(stream: &str, body: impl Into<Bytes>) -> Delivery {
    let at = Timestamp::from_timestamp(1_795_309_506, 0).unwrap();
    Delivery {
        receipt: ReceiptId::new(at),
        stream: StreamName::parse(stream).unwrap(),
        producer: Some(crate::config::Name::new("till").unwrap()),
        page: Page {
            body: body.into(),
            facts: facts(at),
        },
    }
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

fn lake(store: &Arc<dyn ObjectStore>, clock: Clock) -> Lake {
    Lake {
        store: Arc::clone(store),
        clock,
        config_hash: "00".repeat(32),
        landed: Box::new(|_: &Landed| Ok(())),
    }
}

/// Every entry of the raw log of `stream`.
async fn entries(store: &Arc<dyn ObjectStore>, stream: &str) -> Vec<LogEntry> {
    let log = RawLog {
        store: Arc::clone(store),
        stream: StreamName::parse(stream).unwrap(),
    };
    match log.head().await.unwrap() {
        Some(head) => log
            .entries(BatchNumber::FIRST..=head.number)
            .try_collect()
            .await
            .unwrap(),
        None => Vec::new(),
    }
}

/// Every page of the raw log of `stream`, in order.
async fn landed(store: &Arc<dyn ObjectStore>, stream: &str) -> Vec<Page> {
    let mut pages = Vec::new();
    for entry in entries(store, stream).await {
        for object in entry.objects {
            let bytes = store.get(&Path::from(object.path)).await.unwrap();
            pages.extend(read_alone(&bytes.bytes().await.unwrap()).unwrap());
        }
    }
    pages
}

/// How often each receipt stands in the raw log of `stream`.
async fn receipts(store: &Arc<dyn ObjectStore>, stream: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for page in landed(store, stream).await {
        *counts.entry(page.facts.receipt.unwrap()).or_default() += 1;
    }
    counts
}
