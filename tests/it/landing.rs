//! Landing: what a store must do, what a raw log promises on top of it, and what damage does to it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::TryStreamExt as _;
use landfall::{
    clock::{Clock, Timestamp},
    config::{Lake, StreamName, secret::Secret},
    error::{ErrorKind, Result},
    raw::{
        BatchNumber, Bookmark, Page, PageFacts,
        durable::DurableLocal,
        frame, layout,
        log::{BatchKind, LogEntry, RawLog},
        read::{self, Loss, PageRead},
        store,
        write::Landing,
    },
};
use object_store::{
    Error as StoreError, GetOptions, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload, memory::InMemory,
    path::Path,
};
use proptest::{collection::vec, prelude::any, test_runner::TestRunner};
use tempfile::TempDir;

use crate::support::{
    faulty::{Fault, FaultyStore, When},
    s3,
};

const HOUR: i64 = 3600;

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

fn local(dir: &TempDir) -> Arc<dyn ObjectStore> {
    Arc::new(DurableLocal::new(dir.path()).unwrap())
}

fn orders() -> StreamName {
    StreamName::parse("shop.orders").unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(1_795_309_506 + seconds, 0).unwrap()
}

fn page_at(body: &[u8], seconds: i64) -> Page {
    let facts = PageFacts {
        headers: vec![("etag".to_owned(), "\"abc\"".to_owned())],
        token_returned: Some("p2".to_owned()),
        ..PageFacts::new(
            at(seconds),
            "GET",
            "https://api.shop.example/v1/orders?key=****",
            200,
        )
    };
    Page {
        body: Bytes::copy_from_slice(body),
        facts,
    }
}

fn page(body: &[u8]) -> Page {
    page_at(body, 0)
}

fn bookmark(watermark: &str) -> Bookmark {
    Bookmark {
        watermark: Some(watermark.to_owned()),
        ..Bookmark::default()
    }
}

fn log(store: &Arc<dyn ObjectStore>) -> RawLog {
    RawLog {
        store: Arc::clone(store),
        stream: orders(),
    }
}

async fn landing(store: &Arc<dyn ObjectStore>, run: &str) -> Result<Landing> {
    let clock = Clock::from_fn(|| at(0));
    Landing::open(Arc::clone(store), orders(), clock, run.to_owned(), "0".repeat(64)).await
}

/// Lands `bodies` as one batch of run `run`.
async fn land(store: &Arc<dyn ObjectStore>, run: &str, bodies: &[&[u8]]) -> Result<BatchNumber> {
    let mut landing = landing(store, run).await?;
    for body in bodies {
        landing.append(page(body)).await?;
    }
    landing.commit(BatchKind::Pull, bookmark(run), None).await
}

/// All bodies of a batch, or the loss in their place.
async fn bodies(store: &Arc<dyn ObjectStore>, entry: &LogEntry) -> Vec<std::result::Result<Bytes, Loss>> {
    let mut bodies = Vec::new();
    for object in 0..entry.objects.len() {
        for read in read::read_object(&**store, entry, object).await.unwrap() {
            match read {
                PageRead::Page(page) => {
                    assert_eq!((page.batch, page.page as usize), (entry.number, bodies.len()));
                    bodies.push(Ok(page.body));
                }
                PageRead::Corrupt(corrupt) => {
                    assert_eq!(corrupt.pages.start as usize, bodies.len());
                    bodies.extend(corrupt.pages.map(|_| Err(corrupt.loss)));
                }
            }
        }
    }
    bodies
}

async fn keys(store: &Arc<dyn ObjectStore>) -> Vec<String> {
    let mut keys: Vec<String> = store
        .list(None)
        .map_ok(|meta| meta.location.into())
        .try_collect()
        .await
        .unwrap();
    keys.sort();
    keys
}

/// What every store of a lake must do, Delta tables included.
pub async fn conformance(store: Arc<dyn ObjectStore>) {
    let (a, b, c) = (
        Path::from("zone/a"),
        Path::from("zone/deep/er/b"),
        Path::from("zone/c"),
    );
    let text = |path: Path| {
        let store = Arc::clone(&store);
        async move { store.get(&path).await.unwrap().bytes().await.unwrap() }
    };
    assert!(matches!(store.get(&a).await, Err(StoreError::NotFound { .. })));
    assert!(matches!(store.head(&a).await, Err(StoreError::NotFound { .. })));
    assert!(
        store
            .list(Some(&Path::from("zone")))
            .try_collect::<Vec<_>>()
            .await
            .unwrap()
            .is_empty()
    );

    store
        .put_opts(&a, "one".into(), PutMode::Create.into())
        .await
        .unwrap();
    let again = store.put_opts(&a, "two".into(), PutMode::Create.into()).await;
    assert!(
        matches!(again, Err(StoreError::AlreadyExists { .. })),
        "{again:?}"
    );
    assert_eq!(text(a.clone()).await, "one");
    store.put(&a, "three".into()).await.unwrap();
    assert_eq!(text(a.clone()).await, "three");
    store.put(&c, PutPayload::new()).await.unwrap();
    assert_eq!(text(c.clone()).await, "");

    let meta = store.head(&a).await.unwrap();
    // PrefixStore answers with the whole key here, prefix and all.
    assert!(
        meta.size == 5 && meta.location.as_ref().ends_with(a.as_ref()),
        "{meta:?}"
    );
    assert_eq!(store.get_range(&a, 1..3).await.unwrap(), "hr");
    assert_eq!(store.get_ranges(&a, &[0..2, 4..5]).await.unwrap(), ["th", "e"]);
    let tail = GetOptions::new().with_range(Some(object_store::GetRange::Suffix(2)));
    assert_eq!(
        store.get_opts(&a, tail).await.unwrap().bytes().await.unwrap(),
        "ee"
    );

    let part = vec![b'x'; 5 << 20];
    let mut upload = store.put_multipart(&b).await.unwrap();
    let first = upload.put_part(part.clone().into());
    let second = upload.put_part("end".into());
    futures::try_join!(second, first).unwrap();
    assert!(
        matches!(store.head(&b).await, Err(StoreError::NotFound { .. })),
        "seen before it was complete"
    );
    upload.complete().await.unwrap();
    let whole = text(b.clone()).await;
    assert_eq!((whole.len(), &whole[part.len()..]), (part.len() + 3, &b"end"[..]));
    let mut dropped = store.put_multipart(&Path::from("zone/dropped")).await.unwrap();
    dropped.put_part("x".into()).await.unwrap();
    dropped.abort().await.unwrap();

    let listed = store
        .list_with_delimiter(Some(&Path::from("zone")))
        .await
        .unwrap();
    let mut names: Vec<_> = listed.objects.into_iter().map(|meta| meta.location).collect();
    names.sort();
    assert_eq!(
        (names, listed.common_prefixes),
        (vec![a.clone(), c.clone()], vec![Path::from("zone/deep")])
    );
    let after: Vec<_> = store
        .list_with_offset(Some(&Path::from("zone")), &a)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(after.len(), 2);

    store.copy(&a, &c).await.unwrap();
    assert_eq!(text(c.clone()).await, "three");
    store.rename(&c, &a).await.unwrap();
    assert!(matches!(store.head(&c).await, Err(StoreError::NotFound { .. })));
    store.put(&a, "four".into()).await.unwrap();

    store.delete(&a).await.unwrap();
    assert!(matches!(store.get(&a).await, Err(StoreError::NotFound { .. })));
    store.delete(&b).await.unwrap();
    assert_eq!(keys(&store).await, Vec::<String>::new());
}

/// What a store must do besides, where it can: S3 renames by copying and has no such copy by default.
async fn creating_by_copy_and_rename(store: Arc<dyn ObjectStore>) {
    let (a, b, c) = (Path::from("a"), Path::from("x/b"), Path::from("y/c"));
    store.put(&a, "one".into()).await.unwrap();
    store.copy_if_not_exists(&a, &b).await.unwrap();
    assert!(matches!(
        store.copy_if_not_exists(&a, &b).await,
        Err(StoreError::AlreadyExists { .. })
    ));
    store.rename_if_not_exists(&a, &c).await.unwrap();
    assert!(matches!(
        store.rename_if_not_exists(&b, &c).await,
        Err(StoreError::AlreadyExists { .. })
    ));
    assert!(matches!(
        store.rename_if_not_exists(&a, &Path::from("d")).await,
        Err(StoreError::NotFound { .. })
    ));
    assert_eq!(keys(&store).await, ["x/b", "y/c"]);
}

/// What landing needs of a store: whole batches, in order, each landed by one of two who try.
async fn promises(store: Arc<dyn ObjectStore>) {
    store::probe(&*store, &Clock::system()).await.unwrap();
    assert_eq!(keys(&store).await, Vec::<String>::new());
    land(&store, "one", &[b"{\"id\":1}", b"\xff not json"])
        .await
        .unwrap();
    race(&store, 1).await;
    let head = log(&store).head().await.unwrap().unwrap();
    assert_eq!(head.number.get(), 1);
    let first = log(&store).entry(BatchNumber::FIRST).await.unwrap().unwrap();
    assert_eq!(
        bodies(&store, &first).await,
        [Ok("{\"id\":1}".into()), Ok(Bytes::from_static(b"\xff not json"))]
    );
    let (facts, body) = read::page(&*store, &first, 1).await.unwrap();
    assert_eq!((facts, &body[..]), (page(b"").facts, &b"\xff not json"[..]));
}

/// Two runs land at once on the log whose next number is `next`: one wins, the other leaves nothing behind.
async fn race(store: &Arc<dyn ObjectStore>, next: i64) {
    let (mut one, mut two) = (
        landing(store, "one").await.unwrap(),
        landing(store, "two").await.unwrap(),
    );
    one.append(page(b"1")).await.unwrap();
    two.append(page(b"2")).await.unwrap();
    let (one, two) = tokio::join!(
        tokio::spawn(async move { one.commit(BatchKind::Pull, bookmark("one"), Some(1)).await }),
        tokio::spawn(async move { two.commit(BatchKind::Pull, bookmark("two"), Some(1)).await }),
    );
    let (winner, loser) = match (one.unwrap(), two.unwrap()) {
        (Ok(number), Err(error)) => (("one", number), error),
        (Err(error), Ok(number)) => (("two", number), error),
        both => panic!("{both:?}"),
    };
    assert_eq!(loser.kind(), ErrorKind::Conflict, "{loser}");
    assert!(loser.to_string().contains("their run: one") != loser.to_string().contains("their run: two"));
    let entry = log(store).entry(winner.1).await.unwrap().unwrap();
    assert_eq!(
        (winner.1.get(), entry.run_id.as_str(), entry.bookmark),
        (next, winner.0, Some(bookmark(winner.0)))
    );
}

#[tokio::test]
async fn r007_memory_is_a_store() {
    conformance(memory()).await;
    creating_by_copy_and_rename(memory()).await;
    promises(memory()).await;
}

#[tokio::test]
async fn r007_a_local_disk_is_a_store() {
    for check in 0..3 {
        let dir = TempDir::new().unwrap();
        match check {
            0 => conformance(local(&dir)).await,
            1 => creating_by_copy_and_rename(local(&dir)).await,
            _ => promises(local(&dir)).await,
        }
    }
}

#[tokio::test]
async fn r007_s3_is_a_store() {
    for prefix in ["", "some/where"] {
        let server = s3::start().await;
        let option = |name: &str, value: &str| (name.to_owned(), Secret::literal(value));
        let lake = Lake {
            url: format!("s3://{}/{prefix}", server.bucket).parse().unwrap(),
            storage: vec![
                option("endpoint", &server.endpoint),
                option("region", s3::REGION),
                option("access_key_id", &server.access_key),
                option("secret_access_key", &server.secret_key),
            ],
        };
        conformance(store::open(&lake).unwrap()).await;
        promises(store::open(&lake).unwrap()).await;
    }
}

#[tokio::test]
async fn r064_f017_of_two_runs_that_land_at_once_one_wins_in_memory() {
    let store = memory();
    for next in 0..100 {
        race(&store, next).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r064_f017_of_two_runs_that_land_at_once_one_wins_on_disk() {
    let dir = TempDir::new().unwrap();
    let store = local(&dir);
    for next in 0..100 {
        race(&store, next).await;
    }
    let objects = keys(&store)
        .await
        .into_iter()
        .filter(|key| key.ends_with(".zst"))
        .count();
    assert_eq!(objects, 100, "the losers' objects are gone");
}

#[tokio::test]
async fn f018_a_run_that_slept_while_another_landed_is_stopped() {
    let store = memory();
    let mut sleeper = landing(&store, "sleeper").await.unwrap();
    sleeper.append(page(b"old")).await.unwrap();
    land(&store, "other", &[b"new"]).await.unwrap();
    let error = sleeper
        .commit(BatchKind::Pull, bookmark("old"), None)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(
        sleeper.append(page(b"more")).await.unwrap_err().kind(),
        ErrorKind::Internal
    );
    assert_eq!(
        landing(&store, "next").await.unwrap().bookmark(),
        bookmark("other")
    );
}

#[tokio::test]
async fn pushes_and_one_pull_pass_each_other_and_the_bookmark_is_the_pulls() {
    let store = memory();
    let mut pull = landing(&store, "pull").await.unwrap();
    let mut push = landing(&store, "push").await.unwrap();
    let mut also = landing(&store, "also").await.unwrap();
    for landing in [&mut pull, &mut push, &mut also] {
        landing.append(page(b"{}")).await.unwrap();
    }
    push.commit_push(None).await.unwrap();
    pull.commit(BatchKind::Pull, bookmark("7"), None).await.unwrap();
    also.commit_push(None).await.unwrap();
    let range = BatchNumber::FIRST..=BatchNumber::new(2).unwrap();
    let entries: Vec<LogEntry> = log(&store).entries(range).try_collect().await.unwrap();
    let told: Vec<_> = entries
        .iter()
        .map(|entry| (entry.run_id.as_str(), entry.kind, &entry.bookmark))
        .collect();
    assert_eq!(
        told,
        [
            ("push", BatchKind::Push, &None),
            ("pull", BatchKind::Pull, &Some(bookmark("7"))),
            ("also", BatchKind::Push, &Some(bookmark("7"))),
        ]
    );
}

/// Runs a landing of two batches in which operation `n` goes wrong, for every `n`, each followed by a clean rerun.
async fn every_operation(fault: Fault, when: fn(u64) -> When) -> u64 {
    let run = |store: Arc<dyn ObjectStore>| async move {
        let mut landing = landing(&store, "run").await?;
        let done: u32 = landing
            .bookmark()
            .watermark
            .map_or(0, |text| text.parse().unwrap());
        for step in done..2 {
            landing
                .append(page(format!("{{\"step\":{step}}}").as_bytes()))
                .await?;
            landing
                .commit(BatchKind::Pull, bookmark(&(step + 1).to_string()), None)
                .await?;
        }
        Ok::<_, landfall::error::Error>(())
    };
    for n in 0..200 {
        let inner = memory();
        let faulty = FaultyStore::new(Arc::clone(&inner), when(n), fault);
        let first = run(Arc::new(faulty.clone())).await;
        if faulty.operations() <= n {
            first.unwrap();
            return n;
        }
        run(Arc::clone(&inner)).await.unwrap();
        let range = BatchNumber::FIRST..=log(&inner).head().await.unwrap().unwrap().number;
        let mut found = Vec::new();
        for entry in log(&inner).entries(range).try_collect::<Vec<_>>().await.unwrap() {
            found.extend(bodies(&inner, &entry).await);
        }
        assert_eq!(
            found,
            [Ok("{\"step\":0}".into()), Ok("{\"step\":1}".into())],
            "{fault:?} at operation {n}"
        );
    }
    panic!("it never ended");
}

#[tokio::test]
async fn r060_r062_f001_f002_whatever_operation_fails_a_rerun_lands_everything_once() {
    for fault in [Fault::Refused, Fault::ReplyLost] {
        assert!(every_operation(fault, When::From).await >= 7);
        assert!(every_operation(fault, When::Once).await >= 7);
    }
}

#[tokio::test]
async fn f015_f016_an_unclear_answer_to_a_commit_is_cleared_up_by_the_commit_itself() {
    for fault in [Fault::ReplyLost, Fault::Clash, Fault::Refused] {
        let inner = memory();
        let count = FaultyStore::new(memory(), When::Never, fault);
        let mut counted = landing(&(Arc::new(count.clone()) as Arc<dyn ObjectStore>), "run")
            .await
            .unwrap();
        counted.append(page(b"1")).await.unwrap();
        // Opening costs as many operations as were seen; then come the object and the entry.
        let commit_at = count.operations() + 1;
        let faulty = Arc::new(FaultyStore::new(Arc::clone(&inner), When::Once(commit_at), fault));
        let number = land(&(faulty as Arc<dyn ObjectStore>), "run", &[b"1"])
            .await
            .unwrap();
        assert_eq!(number, BatchNumber::FIRST, "{fault:?}");
        let head = log(&inner).head().await.unwrap().unwrap();
        assert_eq!((head.number, head.run_id.as_str()), (BatchNumber::FIRST, "run"));
    }
}

#[tokio::test]
async fn f016_a_clash_that_never_ends_is_unavailable_not_a_conflict() {
    // Opening an empty log looks for the hint and for the first entry; what follows is the commit.
    let faulty: Arc<dyn ObjectStore> = Arc::new(FaultyStore::new(memory(), When::From(2), Fault::Clash));
    let mut landing = landing(&faulty, "run").await.unwrap();
    let error = landing
        .commit(BatchKind::Pull, bookmark("1"), None)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn f019_a_store_that_ignores_put_if_absent_is_refused_at_the_start() {
    let store: Arc<dyn ObjectStore> =
        Arc::new(FaultyStore::new(memory(), When::From(0), Fault::ConditionIgnored));
    let error = store::probe(&*store, &Clock::system()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.to_string().contains("two writers could lose data"),
        "{error}"
    );
    assert_eq!(keys(&store).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_head_is_found_whatever_the_hint_says() {
    let store = memory();
    for next in 0..40 {
        land(&store, &next.to_string(), &[]).await.unwrap();
    }
    let hint = layout::hint(&orders());
    assert_eq!(
        store.get(&hint).await.unwrap().bytes().await.unwrap(),
        r#"{"number":32}"#
    );
    for text in [
        r#"{"number":0}"#,
        r#"{"number":38}"#,
        r#"{"number":39}"#,
        r#"{"number":40}"#,
        r#"{"number":9223372036854775807}"#,
        r#"{"number":-1}"#,
        "",
        "garbage",
    ] {
        store.put(&hint, text.into()).await.unwrap();
        assert_eq!(
            log(&store).head().await.unwrap().unwrap().number.get(),
            39,
            "{text}"
        );
    }
    store.delete(&hint).await.unwrap();
    assert_eq!(log(&store).head().await.unwrap().unwrap().number.get(), 39);
    for length in 0..40 {
        store
            .delete(&layout::entry(&orders(), BatchNumber::new(39 - length).unwrap()))
            .await
            .unwrap();
        let head = log(&store).head().await.unwrap().map(|entry| entry.number.get());
        assert_eq!(head, (length < 39).then_some(38 - length));
    }
}

#[tokio::test]
async fn r063_f021_a_damaged_log_entry_is_never_taken_for_a_beginning() {
    let store = memory();
    land(&store, "run", &[b"{}"]).await.unwrap();
    let key = layout::entry(&orders(), BatchNumber::FIRST);
    let sound = store.get(&key).await.unwrap().bytes().await.unwrap();
    let mut damaged: Vec<Vec<u8>> = (0..sound.len()).map(|length| sound[..length].to_vec()).collect();
    for at in (0..sound.len()).filter(|at| *at != 10) {
        let mut bytes = sound.to_vec();
        bytes[at] ^= 1;
        damaged.push(bytes);
    }
    for bytes in damaged {
        store.put(&key, bytes.clone().into()).await.unwrap();
        let error = landing(&store, "next").await.err().unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?} {text}");
    }
    // An entry that is sound and lies under another's key.
    store.put(&key, sound.clone().into()).await.unwrap();
    store
        .copy(&key, &layout::entry(&orders(), BatchNumber::new(1).unwrap()))
        .await
        .unwrap();
    assert_eq!(
        landing(&store, "next").await.err().unwrap().kind(),
        ErrorKind::Corrupt
    );
}

#[tokio::test]
async fn f021_f164_a_log_entry_of_a_newer_format_is_refused_by_name() {
    let store = memory();
    let key = layout::entry(&orders(), BatchNumber::FIRST);
    store
        .put(&key, r#"{"format":3,"everything":"else"}"#.into())
        .await
        .unwrap();
    let error = landing(&store, "run").await.err().unwrap();
    assert_eq!(
        error.to_string(),
        "read log entry of a newer format (format: 3, format_max: 2, hint: upgrade landfall; a newer version has \
         written to this lake, key: raw/shop/orders/_log/00000000000000000000.json)"
    );
    assert_eq!(error.kind(), ErrorKind::Refused);
}

/// A batch of four pages in two objects; the first object's key, its bytes and the entry.
async fn sample(store: &Arc<dyn ObjectStore>) -> (Path, Bytes, LogEntry) {
    let mut landing = landing(store, "run").await.unwrap();
    for body in [&b"{\"page\":0}"[..], b"{\"page\":1}", &[7; 5000]] {
        landing.append(page(body)).await.unwrap();
    }
    landing.append(page_at(b"{\"page\":3}", HOUR)).await.unwrap();
    landing
        .commit(BatchKind::Pull, bookmark("1"), Some(4))
        .await
        .unwrap();
    let entry = log(store).head().await.unwrap().unwrap();
    assert_eq!(entry.objects.len(), 2, "the hour changed");
    let key = Path::from(entry.objects[0].path.as_str());
    let bytes = store.get(&key).await.unwrap().bytes().await.unwrap();
    (key, bytes, entry)
}

fn sample_bodies() -> Vec<std::result::Result<Bytes, Loss>> {
    vec![
        Ok("{\"page\":0}".into()),
        Ok("{\"page\":1}".into()),
        Ok(Bytes::from(vec![7; 5000])),
        Ok("{\"page\":3}".into()),
    ]
}

#[tokio::test]
async fn f009_a_flipped_byte_costs_its_own_page_and_no_other() {
    let store = memory();
    let (key, sound, entry) = sample(&store).await;
    for at in 0..sound.len() {
        let mut bytes = sound.to_vec();
        bytes[at] ^= 0x10;
        store.put(&key, bytes.into()).await.unwrap();
        let found = bodies(&store, &entry).await;
        let damaged: Vec<usize> = (0..4)
            .filter(|&page| found[page] != sample_bodies()[page])
            .collect();
        let hit = entry.objects[0].pages.iter().position(|page| {
            (page.frame_offset..page.frame_offset + page.frame_bytes).contains(&(at as u64))
        });
        // A flip in the facts harms no body; one in an unused bit of a frame may harm nothing at all.
        assert!(
            damaged.is_empty() || Some(damaged[0]) == hit && damaged.len() == 1,
            "byte {at}: {damaged:?}"
        );
        assert!(damaged.iter().all(|&page| found[page] == Err(Loss::Changed)));
    }
}

#[tokio::test]
async fn f138_a_cut_object_keeps_the_pages_before_the_cut() {
    let store = memory();
    let (key, sound, entry) = sample(&store).await;
    for length in 0..sound.len() {
        store.put(&key, sound.slice(..length).into()).await.unwrap();
        let mut expected = sample_bodies();
        for (at, index) in entry.objects[0].pages.iter().enumerate() {
            if index.frame_offset + index.frame_bytes > length as u64 {
                expected[at] = Err(Loss::Changed);
            }
        }
        assert_eq!(bodies(&store, &entry).await, expected, "cut at {length}");
    }
    let mut longer = sound.to_vec();
    longer.extend_from_slice(b"something else");
    store.put(&key, longer.into()).await.unwrap();
    assert_eq!(bodies(&store, &entry).await, sample_bodies());
    store
        .put(&key, "a foreign file".repeat(1000).into())
        .await
        .unwrap();
    let foreign = bodies(&store, &entry).await;
    assert_eq!(
        foreign[..3],
        [Err(Loss::Changed), Err(Loss::Changed), Err(Loss::Changed)]
    );
    assert_eq!(foreign[3], sample_bodies()[3]);
}

#[tokio::test]
async fn f020_a_missing_object_is_told_apart_from_a_store_that_does_not_answer() {
    let store = memory();
    let (key, sound, entry) = sample(&store).await;
    store.delete(&key).await.unwrap();
    let found = bodies(&store, &entry).await;
    assert_eq!(
        found[..3],
        [Err(Loss::Missing), Err(Loss::Missing), Err(Loss::Missing)]
    );
    assert_eq!(found[3], sample_bodies()[3]);
    let error = read::page(&*store, &entry, 0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    store.put(&key, sound.into()).await.unwrap();
    let silent = FaultyStore::new(Arc::clone(&store), When::From(0), Fault::Refused);
    let error = read::read_object(&silent, &entry, 0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn one_page_is_read_by_a_range_and_checked() {
    let store = memory();
    let (key, sound, entry) = sample(&store).await;
    for number in 0..4 {
        let (facts, body) = read::page(&*store, &entry, number).await.unwrap();
        assert_eq!(Ok(body), sample_bodies()[number as usize]);
        assert_eq!(facts.fetched_at, at(if number == 3 { HOUR } else { 0 }));
    }
    assert_eq!(
        read::page(&*store, &entry, 4).await.unwrap_err().kind(),
        ErrorKind::Internal
    );
    for length in [0, 1, sound.len() - 1] {
        store.put(&key, sound.slice(..length).into()).await.unwrap();
        let error = read::page(&*store, &entry, 2).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    }
}

#[test]
fn r003_any_bytes_landed_are_read_back_and_any_zstd_reader_can_read_them() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let config = proptest::test_runner::Config {
        cases: 64,
        failure_persistence: None,
        ..Default::default()
    };
    let pages = vec((vec(any::<u8>(), 0..2000), 0..3_i64), 0..8);
    TestRunner::new(config)
        .run(&pages, |pages| {
            runtime.block_on(async {
                let store = memory();
                let mut landing = landing(&store, "run").await.unwrap();
                for (body, hours) in &pages {
                    landing.append(page_at(body, hours * HOUR)).await.unwrap();
                }
                landing
                    .commit(BatchKind::Complete, Bookmark::default(), None)
                    .await
                    .unwrap();
                let entry = log(&store).head().await.unwrap().unwrap();
                let expected: Vec<_> = pages
                    .iter()
                    .map(|(body, _)| Ok(Bytes::from(body.clone())))
                    .collect();
                assert_eq!(bodies(&store, &entry).await, expected);
                let (mut plain, mut alone) = (Vec::new(), Vec::new());
                for object in &entry.objects {
                    let key = Path::from(object.path.as_str());
                    let stored = store.get(&key).await.unwrap().bytes().await.unwrap();
                    plain.extend(zstd::decode_all(&stored[..]).unwrap());
                    alone.extend(frame::read_alone(&stored).unwrap());
                }
                let lines: Vec<u8> = pages
                    .iter()
                    .flat_map(|(body, _)| [body, &b"\n"[..]].concat())
                    .collect();
                assert_eq!(plain, lines);
                // Without any log entry the objects still tell everything.
                for (page, (body, hours)) in alone.iter().zip(&pages) {
                    assert_eq!(
                        (&page.body[..], &page.facts),
                        (&body[..], &page_at(b"", hours * HOUR).facts)
                    );
                }
                assert_eq!(alone.len(), pages.len());
            });
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn a_large_object_is_uploaded_in_parts_and_reads_the_same() {
    // Bytes that do not compress: a linear congruence, upper bits only.
    let mut seed = 1_u64;
    let body: Vec<u8> = (0..18 << 20)
        .map(|_| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        })
        .collect();
    let dir = TempDir::new().unwrap();
    let store = local(&dir);
    land(&store, "run", &[&body, b"{}"]).await.unwrap();
    let entry = log(&store).head().await.unwrap().unwrap();
    assert!(entry.objects[0].bytes > 16 << 20);
    assert_eq!(bodies(&store, &entry).await, [Ok(body.into()), Ok("{}".into())]);
}

#[tokio::test]
async fn f002_what_a_dead_writer_staged_is_never_listed_and_is_swept() {
    let dir = TempDir::new().unwrap();
    let store = DurableLocal::new(dir.path()).unwrap();
    store.put(&Path::from("raw/a/b/c"), "x".into()).await.unwrap();
    let mut upload = store.put_multipart(&Path::from("raw/a/b/d")).await.unwrap();
    upload.put_part("half".into()).await.unwrap();
    // A killed process runs no destructors.
    std::mem::forget(upload);
    let files = || std::fs::read_dir(dir.path().join("raw/a/b")).unwrap().count();
    let store = Arc::new(store);
    assert_eq!(
        keys(&(Arc::clone(&store) as Arc<dyn ObjectStore>)).await,
        ["raw/a/b/c"]
    );
    assert_eq!(files(), 2);
    let now = Clock::system().now();
    assert_eq!(
        store.sweep(now, Duration::from_secs(60)).await.unwrap(),
        0,
        "its writer may still live"
    );
    assert_eq!(
        store
            .sweep(now + Duration::from_secs(90), Duration::from_secs(60))
            .await
            .unwrap(),
        1
    );
    assert_eq!(files(), 1);
}

#[cfg(unix)]
#[tokio::test]
async fn f151_nothing_is_deleted_through_a_link_that_leads_out() {
    let (inside, outside) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    std::fs::write(outside.path().join("precious"), "x").unwrap();
    std::fs::write(outside.path().join("staged#1"), "x").unwrap();
    std::os::unix::fs::symlink(outside.path(), inside.path().join("link")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("precious"), inside.path().join("file")).unwrap();
    let store = DurableLocal::new(inside.path()).unwrap();
    let refused = store.delete(&Path::from("link/precious")).await;
    assert!(
        matches!(refused, Err(StoreError::PermissionDenied { .. })),
        "{refused:?}"
    );
    store.delete(&Path::from("file")).await.unwrap();
    store
        .sweep(Clock::system().now() + Duration::from_secs(9), Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 2);
}

#[tokio::test]
async fn f013_a_lake_that_was_moved_away_is_named_and_not_made_anew() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("lake");
    let store: Arc<dyn ObjectStore> = Arc::new(DurableLocal::new(&root).unwrap());
    land(&store, "run", &[b"{}"]).await.unwrap();
    let mut open = landing(&store, "run").await.unwrap();
    open.append(page(b"{}")).await.unwrap();
    let away = dir.path().join("away");
    std::fs::rename(&root, &away).unwrap();
    let error = open
        .commit(BatchKind::Pull, bookmark("2"), None)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(
        error.chain().contains(root.to_str().unwrap()),
        "{}",
        error.chain()
    );
    assert!(
        error.to_string().contains("check that the lake is still there"),
        "{error}"
    );
    assert!(!root.exists());
    std::fs::rename(&away, &root).unwrap();
    assert_eq!(
        landing(&store, "run").await.unwrap().bookmark(),
        bookmark("run"),
        "it recovers without a restart"
    );
    assert_eq!(land(&store, "again", &[b"{}"]).await.unwrap().get(), 1);
}

#[tokio::test]
async fn f013_a_write_through_something_that_is_no_folder_names_the_path() {
    let dir = TempDir::new().unwrap();
    let store: Arc<dyn ObjectStore> = local(&dir);
    std::fs::write(dir.path().join("raw"), "a file where a folder should be").unwrap();
    let mut open = landing(&store, "run").await;
    let error = match &mut open {
        Ok(landing) => landing
            .commit(BatchKind::Pull, bookmark("1"), None)
            .await
            .unwrap_err(),
        Err(error) => std::mem::replace(error, landfall::error::Error::new(ErrorKind::Internal, "taken")),
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.chain().contains("/raw"), "{}", error.chain());
}
