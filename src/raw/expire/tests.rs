use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use object_store::memory::InMemory;

use super::*;
use crate::{
    clock::Clock,
    config::StreamName,
    raw::{
        Bookmark, FileFact, Page, PageFacts,
        frame::{hex, sha256},
        log::BatchKind,
        orphans::{self, Limits},
        read::{PageRead, read_object},
        write::Landing,
    },
};

const DAY: Duration = Duration::from_secs(86_400);

fn number(number: i64) -> BatchNumber {
    BatchNumber::new(number).unwrap()
}

fn keep(from: i64, single: &[i64]) -> Keep {
    Keep {
        from: number(from),
        single: single.iter().map(|&batch| number(batch)).collect(),
    }
}

/// Lands one batch for each of `days` days, each with a page that refers to `files`.
async fn landed(days: u32, files: &[String]) -> RawLog {
    let log = RawLog {
        store: Arc::new(InMemory::new()),
        stream: StreamName::parse("shop.orders").unwrap(),
    };
    for day in 0..days {
        let clock = Clock::from_fn(move || Timestamp::UNIX_EPOCH + DAY * day);
        let mut landing = Landing::open(
            Arc::clone(&log.store),
            log.stream.clone(),
            clock,
            "run".to_owned(),
            "config".to_owned(),
        )
        .await
        .unwrap();
        let mut facts: PageFacts = serde_json::from_str(
            r#"{"fetched_at":"2024-05-01T12:00:00Z","method":"GET","url":"http://a.example","status":200,"headers":[],"attempts":1}"#,
        )
        .unwrap();
        let file = |sha256: &String| FileFact {
            sha256: Some(sha256.clone()),
            ..FileFact::default()
        };
        facts.files = files.iter().map(file).collect();
        let body = Bytes::from_static(b"{}");
        landing.append(Page { body, facts }).await.unwrap();
        landing
            .commit(BatchKind::Pull, Bookmark::default(), Some(1))
            .await
            .unwrap();
    }
    log
}

/// Which of the batches still have their objects.
async fn whole(log: &RawLog, batches: i64) -> Vec<i64> {
    let mut whole = Vec::new();
    for batch in 0..batches {
        let entry = log.entry(number(batch)).await.unwrap().unwrap();
        let mut pages = read_object(log.store.as_ref(), &entry, 0).await.unwrap();
        if matches!(pages.next(), Some(PageRead::Page(_))) {
            whole.push(batch);
        }
    }
    whole
}

#[tokio::test]
async fn r091_only_what_is_old_and_not_kept_expires() {
    let log = landed(10, &[]).await;
    let before = Timestamp::UNIX_EPOCH + DAY * 7;
    let none = Expired::default();
    let found = due(&log, &none, &keep(9, &[2]), before, BatchNumber::FIRST)
        .await
        .unwrap();
    assert_eq!(found.ranges, [(number(0), number(1)), (number(3), number(6))]);
    assert_eq!((found.objects.len(), found.next), (6, None));
    expire(&log, &found, before).await.unwrap();
    assert_eq!(whole(&log, 10).await, [2, 7, 8, 9]);

    let expired = Expired::of(&log).await.unwrap();
    assert_eq!((expired.count(), expired.open()), (6, &[][..]));
    let contained: Vec<i64> = (0..10).filter(|&batch| expired.contains(number(batch))).collect();
    assert_eq!(contained, [0, 1, 3, 4, 5, 6]);
    let error = expired
        .refuse(&log, &(number(2)..=number(9)), "replay raw")
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("batch: 3"), "{error}");
    expired
        .refuse(&log, &(number(7)..=number(9)), "replay raw")
        .unwrap();

    // What held a batch back is gone: it goes alone.
    let found = due(&log, &expired, &keep(4, &[]), before, BatchNumber::FIRST)
        .await
        .unwrap();
    assert_eq!(found.ranges, [(number(2), number(2))]);
}

#[tokio::test]
async fn f022_a_deletion_that_was_begun_is_finished() {
    let log = landed(4, &[]).await;
    let before = Timestamp::UNIX_EPOCH + DAY * 7;
    let found = due(
        &log,
        &Expired::default(),
        &keep(3, &[]),
        before,
        BatchNumber::FIRST,
    )
    .await
    .unwrap();
    expire(&log, &found, before).await.unwrap();
    // As if it had ended before the last word, with one object still there.
    log.store
        .delete(&word(&log, (number(0), number(2)), true))
        .await
        .unwrap();
    log.store.put(&found.objects[1].0, "left".into()).await.unwrap();
    let expired = Expired::of(&log).await.unwrap();
    assert_eq!(expired.open(), [(number(0), number(2))]);
    let (objects, _) = finish(&log, expired.open()[0]).await.unwrap();
    assert_eq!(objects, 1);
    assert!(!exists(&log, &found.objects[1].0).await.unwrap());
    assert_eq!(Expired::of(&log).await.unwrap().open(), []);
    assert_eq!(whole(&log, 4).await, [3]);
}

#[tokio::test]
async fn f022_files_of_expired_pages_stay_and_the_sweep_knows_them() {
    let content = "a file";
    let name = hex(&sha256(content.as_bytes()));
    let log = landed(2, std::slice::from_ref(&name)).await;
    let path = layout::file(&log.stream, &name);
    log.store.put(&path, content.into()).await.unwrap();
    let before = Timestamp::UNIX_EPOCH + DAY * 7;
    let found = due(
        &log,
        &Expired::default(),
        &keep(2, &[]),
        before,
        BatchNumber::FIRST,
    )
    .await
    .unwrap();
    expire(&log, &found, before).await.unwrap();
    let limits = Limits {
        age_min: DAY,
        orphans_max: 100,
    };
    for days in [2, 4] {
        let now = Clock::system().now() + DAY * days;
        orphans::sweep(&log, now, limits).await.unwrap();
    }
    assert!(exists(&log, &path).await.unwrap());
}

#[test]
fn ranges_that_overlap_count_once() {
    let key = |first, last| Key::Expired {
        stream: StreamName::parse("shop.orders").unwrap(),
        first: number(first),
        last: number(last),
        done: true,
    };
    let expired = Expired::from_keys([key(3, 5), key(0, 9), key(8, 11)].into_iter());
    assert_eq!(expired.count(), 12);
    assert_eq!(expired.first_in(&(number(10)..=number(20))), Some(number(10)));
}
