use std::sync::Arc;

use bytes::Bytes;
use object_store::memory::InMemory;

use super::*;
use crate::{
    clock::Clock,
    raw::{Bookmark, FileFact, Page, frame::hex, frame::sha256, log::BatchKind, write::Landing},
};

const DAY: Duration = Duration::from_secs(86_400);

const LIMITS: Limits = Limits {
    age_min: DAY,
    orphans_max: 100,
};

/// A stream of a lake in memory, whose clock is that of the machine.
struct Lake {
    log: RawLog,
    clock: Clock,
}

impl Lake {
    fn new() -> Self {
        Self {
            log: RawLog {
                store: Arc::new(InMemory::new()),
                stream: StreamName::parse("shop.orders").unwrap(),
            },
            clock: Clock::system(),
        }
    }

    /// So many days from now.
    fn day(&self, days: u32) -> Timestamp {
        self.clock.now() + DAY * days
    }

    async fn store_file(&self, content: &str) -> String {
        let sha256 = hex(&sha256(content.as_bytes()));
        let path = layout::file(&self.log.stream, &sha256);
        self.log
            .store
            .put(&path, content.to_owned().into())
            .await
            .unwrap();
        sha256
    }

    /// Lands one page that refers to `files`; without a commit its object is left behind.
    async fn land(&self, files: &[&String], commit: bool) {
        let mut landing = Landing::open(
            Arc::clone(&self.log.store),
            self.log.stream.clone(),
            self.clock.clone(),
            "run".to_owned(),
            "config".to_owned(),
        )
        .await
        .unwrap();
        let mut facts: PageFacts = serde_json::from_str(
            r#"{"fetched_at":"2024-05-01T12:00:00Z","method":"GET","url":"http://a.example","status":200,"headers":[],"attempts":1}"#,
        )
        .unwrap();
        facts.files = files
            .iter()
            .map(|sha256| FileFact {
                sha256: Some((*sha256).clone()),
                ..FileFact::default()
            })
            .collect();
        let body = Bytes::from_static(b"{}");
        let page = Page { body, facts };
        if commit {
            landing.append(page.clone()).await.unwrap();
            landing.append(page).await.unwrap();
            let bookmark = Bookmark::default();
            landing.commit(BatchKind::Pull, bookmark, Some(1)).await.unwrap();
        } else {
            let path = layout::object(
                &self.log.stream,
                page.facts.fetched_at,
                BatchId::new(self.clock.now()),
                0,
            );
            self.log.store.put(&path, "left".into()).await.unwrap();
        }
    }

    async fn paths(&self) -> Vec<String> {
        let listed: Vec<ObjectMeta> = self.log.store.list(None).try_collect().await.unwrap();
        let mut paths: Vec<String> = listed.into_iter().map(|meta| meta.location.to_string()).collect();
        paths.sort();
        paths
    }

    async fn has(&self, sha256: &str) -> bool {
        let path = layout::file(&self.log.stream, sha256);
        written_at(&self.log, &path).await.unwrap().is_some()
    }

    async fn sweep(&self, days: u32) -> Swept {
        sweep(&self.log, self.day(days), LIMITS).await.unwrap()
    }
}

#[tokio::test]
async fn what_the_log_names_is_never_swept() {
    let lake = Lake::new();
    let (used, shared) = (lake.store_file("used").await, lake.store_file("shared").await);
    lake.land(&[&used, &shared], true).await;
    lake.land(&[&shared], true).await;
    lake.land(&[], true).await;
    let before = lake.paths().await;
    for days in [0, 1, 2, 400] {
        assert_eq!(lake.sweep(days).await, Swept::default());
    }
    assert_eq!(lake.paths().await, before);
}

#[tokio::test]
async fn what_a_crash_left_goes_once_it_is_old() {
    let lake = Lake::new();
    lake.land(&[], true).await;
    let kept = lake.paths().await;
    lake.land(&[], false).await;
    let (found, more) = find(&lake.log, lake.day(2), LIMITS).await.unwrap();
    assert_eq!((found.len(), more, found[0].bytes), (1, false, 4));
    // Whoever wrote it may still commit it.
    assert_eq!(lake.sweep(0).await, Swept::default());
    let swept = lake.sweep(2).await;
    assert_eq!((swept.objects, swept.bytes, swept.more), (1, 4, false));
    assert_eq!(lake.paths().await, kept);
    // Also where nothing was ever committed.
    let empty = Lake::new();
    empty.land(&[], false).await;
    assert_eq!(empty.sweep(2).await.objects, 1);
}

#[tokio::test]
async fn a_file_is_condemned_before_it_goes() {
    let lake = Lake::new();
    let (used, left) = (lake.store_file("used").await, lake.store_file("left").await);
    lake.land(&[&used], true).await;
    assert_eq!(lake.sweep(0).await, Swept::default());
    assert_eq!(lake.sweep(2).await.condemned, 1);
    // The marker is of today and must be old too.
    assert_eq!(lake.sweep(0).await, Swept::default());
    assert!(lake.has(&left).await);
    assert_eq!(lake.sweep(2).await.condemned, 1);
    let swept = lake.sweep(3).await;
    assert_eq!((swept.files, swept.bytes, swept.condemned), (1, 4, 0));
    assert!(lake.has(&used).await && !lake.has(&left).await);
    assert!(!lake.paths().await.iter().any(|path| path.contains("_condemned")));
}

#[tokio::test]
async fn a_condemned_file_that_somebody_wants_again_stays() {
    // Referred to by a page that was on its way.
    let lake = Lake::new();
    let file = lake.store_file("wanted").await;
    assert_eq!(lake.sweep(2).await.condemned, 1);
    lake.land(&[&file], true).await;
    assert_eq!(lake.sweep(3).await, Swept::default());
    assert!(lake.has(&file).await);
    assert!(!lake.paths().await.iter().any(|path| path.contains("_condemned")));
    // Stored anew by somebody who took it for missing, and not committed yet.
    let lake = Lake::new();
    let file = lake.store_file("wanted").await;
    assert_eq!(lake.sweep(2).await.condemned, 1);
    lake.store_file("wanted").await;
    assert_eq!(lake.sweep(3).await.files, 0);
    assert!(lake.has(&file).await);
}

#[tokio::test]
async fn a_sweep_has_an_end() {
    let lake = Lake::new();
    for _ in 0..3 {
        lake.land(&[], false).await;
    }
    let limits = Limits {
        orphans_max: 2,
        ..LIMITS
    };
    let swept = sweep(&lake.log, lake.day(2), limits).await.unwrap();
    assert_eq!((swept.objects, swept.more), (2, true));
    let swept = sweep(&lake.log, lake.day(2), limits).await.unwrap();
    assert_eq!((swept.objects, swept.more), (1, false));
}

#[tokio::test]
async fn nothing_is_swept_while_nobody_knows_what_pages_refer_to() {
    let lake = Lake::new();
    let file = lake.store_file("used").await;
    lake.land(&[&file], true).await;
    let paths = lake.paths().await;
    let object = paths.iter().find(|path| path.ends_with(".jsonl.zst")).unwrap();
    let path = Path::from(object.as_str());
    let bytes = lake.log.store.get(&path).await.unwrap().bytes().await.unwrap();
    lake.log
        .store
        .put(&path, vec![0; bytes.len()].into())
        .await
        .unwrap();
    let error = sweep(&lake.log, lake.day(2), LIMITS).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(lake.has(&file).await);
}
