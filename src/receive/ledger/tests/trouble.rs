use std::fs;

use super::*;
use crate::receive::ledger::{receipt::Stage, store::Opened, writer::SWEEP_STEP};

#[tokio::test]
async fn what_ended_is_removed_in_bounded_steps_and_what_was_used_since_is_not() {
    let bench = Bench::new().await;
    let many = SWEEP_STEP + 20;
    for number in 0..many {
        bench.done(&number.to_string(), "a", "first").await;
    }
    for id in ["still used", "not used"] {
        let Seen::New(claim) = bench.see(id, "a", AT_ONCE).await else {
            panic!("not new");
        };
        claim.complete(ReceiptId::new(bench.hand.now())).await.unwrap();
    }
    let bytes = bench.ledger.gauges().bytes;
    bench.hand.forward(6 * 24 * HOUR);
    bench.see("still used", "a", AT_ONCE).await;
    bench.hand.forward(2 * 24 * HOUR);
    let first = bench.ledger.sweep().await.unwrap();
    assert_eq!(
        (first.answers, first.events, first.more),
        (SWEEP_STEP as u64, 1, true)
    );
    let second = bench.ledger.sweep().await.unwrap();
    assert_eq!((second.answers, second.events, second.more), (20, 0, false));
    assert_eq!(bench.ledger.sweep().await.unwrap(), Swept::default());
    assert!(matches!(bench.see("still used", "a", AT_ONCE).await, Seen::Duplicate(seen) if seen.count == 3));
    assert!(bench.ledger.gauges().bytes < bytes / 100);
    bench.hand.forward(8 * 24 * HOUR);
    assert_eq!(bench.ledger.sweep().await.unwrap().events, 1);
    assert_eq!(bench.ledger.gauges().bytes, 0);
}

#[tokio::test]
async fn a_full_ledger_gives_up_old_receipts_first_and_then_refuses_new_keys_but_forgets_none() {
    let folder = tempfile::tempdir().unwrap();
    let hand = Hand::new();
    let kept = Kept {
        bytes_max: 64 * 1024,
        ..Kept::in_folder(folder.path().to_owned())
    };
    let ledger = Ledger::open(kept, hand.clock()).await.unwrap();
    let landed = |number: u64| {
        let mut id = [0; 16];
        id[8..].copy_from_slice(&number.to_be_bytes());
        let batch = crate::raw::BatchNumber::FIRST;
        let delivery = delivery(None, None, "{}", hand.now(), ReceiptId::from_bytes(id));
        Receipt::of(&delivery, Stage::Landed { batch, page: number })
    };
    let receipts: Vec<Receipt> = (0..200).map(landed).collect();
    ledger.record(receipts.clone()).await.unwrap();
    let mut taken = Vec::new();
    let refused = loop {
        let key = format!("k{}", taken.len());
        match ledger.begin(scope(&key), print("a"), AT_ONCE).await {
            Ok(Begun::New(claim)) => {
                claim.complete(answer("first")).await.unwrap();
                ledger.flush().await.unwrap();
                taken.push(key);
            }
            Ok(other) => panic!("{other:?}"),
            Err(refused) => break refused,
        }
        assert!(taken.len() < 1_000, "it never fills");
    };
    assert_eq!(refused.kind(), ErrorKind::Limit);
    assert!(ledger.gauges().full && taken.len() > 100, "{}", taken.len());
    assert_eq!(
        ledger.receipt(receipts[199].id).await.unwrap(),
        None,
        "receipts gave way"
    );
    for key in &taken {
        assert!(matches!(
            ledger.begin(scope(key), print("a"), AT_ONCE).await,
            Ok(Begun::Replay(_))
        ));
    }
    ledger.record(vec![landed(1_000)]).await.unwrap();
    hand.forward(25 * HOUR);
    ledger.sweep().await.unwrap();
    assert!(!ledger.gauges().full);
    assert!(matches!(
        ledger.begin(scope("new"), print("a"), AT_ONCE).await,
        Ok(Begun::New(_))
    ));
}

#[tokio::test]
async fn what_is_still_spooled_keeps_its_receipt_though_the_ledger_is_full_and_a_sweep_comes_to_its_end() {
    let (folder, hand) = (tempfile::tempdir().unwrap(), Hand::new());
    let kept = Kept {
        bytes_max: 64 * 1024,
        ..Kept::in_folder(folder.path().to_owned())
    };
    let ledger = Ledger::open(kept, hand.clock()).await.unwrap();
    let spooled = |_| {
        let delivery = delivery(None, None, "{}", hand.now(), ReceiptId::new(hand.now()));
        Receipt::of(&delivery, Stage::Spooled)
    };
    let receipts: Vec<Receipt> = (0..SWEEP_STEP + 10).map(spooled).collect();
    ledger.record(receipts.clone()).await.unwrap();
    assert_eq!(ledger.sweep().await.unwrap(), Swept::default());
    assert!(ledger.gauges().full);
    for receipt in &receipts {
        assert!(ledger.receipt(receipt.id).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_moved_aside_and_said() {
    let other_format = |path: &std::path::Path| {
        let database = redb::Database::create(path).unwrap();
        let write = database.begin_write().unwrap();
        let mut about = write.open_table(tables::ABOUT).unwrap();
        about.insert("format", 99).unwrap();
        drop(about);
        write.commit().unwrap();
    };
    let other_types = |path: &std::path::Path| {
        fs::remove_file(path).unwrap();
        let database = redb::Database::create(path).unwrap();
        let write = database.begin_write().unwrap();
        let definition = redb::TableDefinition::<u8, u8>::new("answers");
        drop(write.open_table(definition).unwrap());
        write.commit().unwrap();
    };
    let zeroed = |path: &std::path::Path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 8;
        bytes[4096..].iter_mut().skip(middle).for_each(|byte| *byte = 0);
        fs::write(path, bytes).unwrap();
    };
    let truncated = |path: &std::path::Path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    };
    let no_database = |path: &std::path::Path| fs::write(path, "not a database at all").unwrap();
    let damages: [&dyn Fn(&std::path::Path); 5] =
        [&other_format, &other_types, &zeroed, &truncated, &no_database];
    for (number, damage) in damages.into_iter().enumerate() {
        let mut bench = Bench::new().await;
        for key in 0..200 {
            bench.done(&key.to_string(), "a", "first").await;
        }
        bench.ledger.clone().close().await.unwrap();
        let path = bench.folder.path().join("ledger.redb");
        damage(&path);
        bench.open().await;
        let aside = bench.folder.path().join("ledger.redb.unreadable");
        assert_eq!(
            bench.ledger.opened(),
            Opened::MovedAside(aside.clone()),
            "damage {number}"
        );
        assert!(aside.exists(), "damage {number}");
        let receipt = ReceiptId::new(bench.hand.now());
        let spooled = delivery(Some("7"), None, "a", bench.hand.now(), receipt);
        let remembered = Remembered::of(&spooled, |_| Ok(answer("first"))).unwrap();
        bench.ledger.repair(vec![remembered]).await.unwrap();
        assert!(matches!(bench.begin("7", "a", AT_ONCE).await, Begun::Replay(_)));
        assert!(matches!(bench.begin("8", "a", AT_ONCE).await, Begun::New(_)));
    }
}

#[tokio::test]
async fn a_ledger_has_one_owner() {
    let bench = Bench::new().await;
    let kept = Kept::in_folder(bench.folder.path().to_owned());
    let refused = Ledger::open(kept, bench.hand.clock()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused:?}");
    bench.done("k", "a", "first").await;
}

#[tokio::test]
async fn after_a_failed_write_the_file_is_opened_again_and_nothing_acknowledged_is_forgotten() {
    let bench = Bench::new().await;
    bench.done("durable", "a", "first").await;
    bench.ledger.flush().await.unwrap();
    bench.done("not-durable", "a", "first").await;
    bench
        .ledger
        .receipt(ReceiptId::new(bench.hand.now()))
        .await
        .unwrap();
    // As redb does after an error of the disk: what was not synced is not in the file, and every use is refused.
    let (file, image) = (
        bench.folder.path().join("ledger.redb"),
        bench.folder.path().join("image"),
    );
    fs::copy(&file, &image).unwrap();
    let mut other = Bench::new().await;
    other.ledger.clone().close().await.unwrap();
    fs::copy(&file, other.folder.path().join("ledger.redb")).unwrap();
    other.open().await;
    assert!(matches!(
        other.begin("durable", "a", AT_ONCE).await,
        Begun::Replay(_)
    ));
    assert!(
        matches!(other.begin("not-durable", "a", AT_ONCE).await, Begun::New(_)),
        "the image has it"
    );
    let Begun::New(claim) = bench.begin("under-way", "a", AT_ONCE).await else {
        panic!("not new");
    };
    bench.ledger.inner.store.close();
    fs::rename(&image, &file).unwrap();
    let refused = bench
        .ledger
        .begin(scope("other"), print("a"), AT_ONCE)
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    claim.complete(answer("first")).await.unwrap();
    bench.ledger.flush().await.unwrap();
    for key in ["durable", "not-durable", "under-way"] {
        assert!(
            matches!(bench.begin(key, "a", AT_ONCE).await, Begun::Replay(_)),
            "{key}"
        );
    }
}

#[tokio::test]
async fn while_the_file_cannot_be_opened_again_flush_fails_and_what_was_completed_is_still_known() {
    let bench = Bench::new().await;
    let Begun::New(claim) = bench.begin("k", "a", AT_ONCE).await else {
        panic!("not new");
    };
    bench.ledger.inner.store.close();
    let (file, away) = (
        bench.folder.path().join("ledger.redb"),
        bench.folder.path().join("away"),
    );
    fs::rename(&file, &away).unwrap();
    // Whoever opens it finds a folder there.
    fs::create_dir(&file).unwrap();
    claim.complete(answer("first")).await.unwrap();
    assert_eq!(
        bench.ledger.flush().await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert!(matches!(bench.begin("k", "a", AT_ONCE).await, Begun::Replay(_)));
    fs::remove_dir(&file).unwrap();
    fs::rename(&away, &file).unwrap();
    assert!(bench.ledger.flush().await.is_err(), "not tried again at once");
    bench.hand.forward(Duration::from_secs(10));
    bench.ledger.flush().await.unwrap();
    assert!(matches!(bench.begin("k", "a", AT_ONCE).await, Begun::Replay(_)));
    assert_eq!(bench.ledger.gauges().in_flight, 0);
}

#[tokio::test]
async fn the_size_counted_is_not_less_than_what_the_file_allocates() {
    let bench = Bench::new().await;
    let mut receipts = Vec::new();
    for number in 0..4_000 {
        let id = format!("evt_{number}");
        bench
            .done(
                &id,
                &id,
                r#"{"receipt":"018f0000-0000-7000-8000-000000000000","status":"accepted"}"#,
            )
            .await;
        let Seen::New(claim) = bench.see(&id, &id, AT_ONCE).await else {
            panic!("not new");
        };
        let receipt = ReceiptId::new(bench.hand.now());
        claim.complete(receipt).await.unwrap();
        receipts.push(Receipt::of(
            &delivery(None, None, "{}", bench.hand.now(), receipt),
            Stage::Spooled,
        ));
    }
    bench.ledger.record(receipts).await.unwrap();
    bench.ledger.flush().await.unwrap();
    let counted = bench.ledger.gauges().bytes;
    bench.ledger.clone().close().await.unwrap();
    let database = redb::Database::open(bench.folder.path().join("ledger.redb")).unwrap();
    let stats = database.begin_write().unwrap().stats().unwrap();
    let allocated = stats.allocated_pages() * stats.page_size() as u64;
    let file = fs::metadata(bench.folder.path().join("ledger.redb"))
        .unwrap()
        .len();
    println!(
        "counted {counted} allocated {allocated} stored {} file {file}",
        stats.stored_bytes()
    );
    assert!(
        counted >= allocated && counted <= 3 * allocated,
        "counted {counted} allocated {allocated}"
    );
}

#[tokio::test]
async fn what_a_full_queue_did_not_take_in_time_is_written_later_and_until_then_nothing_counts_as_on_disk() {
    let mut bench = Bench::new().await;
    let Begun::New(claim) = bench.begin("late", "a", AT_ONCE).await else {
        panic!("not new");
    };
    // Somebody writes, and the writer waits for that to end.
    let (busy, is_busy) = oneshot::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let held = bench.ledger.clone();
    let holder = std::thread::spawn(move || {
        held.inner.store.write(false, |_| {
            busy.send(()).unwrap();
            ended.recv().unwrap();
            Ok(())
        })
    });
    is_busy.await.unwrap();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..10 {
        // It may have taken some of what waited before.
        while bench.ledger.inbox.try_send(Change::Receipts(Vec::new())).is_ok() {}
        ticks.tick().await;
    }
    let error = claim.complete(answer("first")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let error = bench.ledger.flush().await.unwrap_err();
    assert!(error.to_string().contains("late: 1"), "{error}");
    end.send(()).unwrap();
    holder.join().unwrap().unwrap();
    let mut flushed = bench.ledger.flush().await;
    for _ in 0..1000 {
        if flushed.is_ok() {
            break;
        }
        ticks.tick().await;
        flushed = bench.ledger.flush().await;
    }
    flushed.unwrap();
    bench.restart().await;
    assert!(matches!(
        bench.begin("late", "a", AT_ONCE).await,
        Begun::Replay(_)
    ));
}
