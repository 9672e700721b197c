//! What stands beside the pages of a raw object, read by the words of the zstd format alone.

use std::sync::Arc;

use landfall::{
    clock::{Clock, Timestamp},
    config::StreamName,
    raw::{
        Bookmark, Page, PageFacts,
        log::{BatchKind, LogEntry, RawLog},
        write::Landing,
    },
};
use object_store::{ObjectStore, ObjectStoreExt as _, memory::InMemory, path::Path};
use serde_json::Value;

use crate::support::objects::facts;

fn stream() -> StreamName {
    StreamName::parse("shop.orders").unwrap()
}

async fn landing(store: &Arc<dyn ObjectStore>) -> Landing {
    let clock = Clock::from_fn(|| Timestamp::UNIX_EPOCH);
    let opened = Landing::open(
        Arc::clone(store),
        stream(),
        clock,
        "run".to_owned(),
        String::new(),
    );
    opened.await.unwrap()
}

fn page(number: usize) -> Page {
    let url = format!("https://shop.example/orders/{number}");
    Page {
        body: format!("{{\"number\":{number}}}").into(),
        facts: PageFacts::new(Timestamp::UNIX_EPOCH, "POST", url, 202),
    }
}

async fn head(store: &Arc<dyn ObjectStore>) -> LogEntry {
    let log = RawLog {
        store: Arc::clone(store),
        stream: stream(),
    };
    log.head().await.unwrap().unwrap()
}

#[tokio::test]
async fn facts_that_an_older_program_cannot_read_have_an_entry_that_it_refuses() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let mut plain = landing(&store).await;
    plain.append(page(0)).await.unwrap();
    let committed = plain.commit(BatchKind::Pull, Bookmark::default(), Some(1));
    committed.await.unwrap();
    assert_eq!(head(&store).await.format, 1);
    let mut shared = landing(&store).await.with_shared_frames();
    for number in 0..100 {
        shared.append(page(number)).await.unwrap();
    }
    shared.commit_push(Some(100)).await.unwrap();
    let entry = head(&store).await;
    assert_eq!((entry.format, entry.objects.len()), (2, 1));
    let key = Path::from(entry.objects[0].path.as_str());
    let object = store.get(&key).await.unwrap().bytes().await.unwrap();
    let told = facts(&object);
    let told: Vec<Vec<Value>> = told
        .iter()
        .map(|json| serde_json::from_slice(json).unwrap())
        .collect();
    assert_eq!((told.len(), told[0].len()), (1, 100));
    assert_eq!(told[0][99]["url"], "https://shop.example/orders/99");
    let uncompressed = serde_json::to_vec(&told[0]).unwrap().len();
    assert!(
        object.len() < uncompressed / 2,
        "{} of {uncompressed}",
        object.len()
    );
    // The next batch is plain again.
    let mut plain = landing(&store).await;
    plain.append(page(0)).await.unwrap();
    plain.commit_push(Some(1)).await.unwrap();
    assert_eq!(head(&store).await.format, 1);
}
