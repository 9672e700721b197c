//! Processes that are killed: the test starts itself again as a server that appends and ships, and kills it.

use std::{
    collections::BTreeSet,
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use object_store::ObjectStore;

use super::{OPTIONS, delivery, lake, receipts};
use crate::{
    clock::Clock,
    failpoint,
    raw::durable::DurableLocal,
    receive::spool::{Options, Spool, pace::Pace},
};

/// Tells a test that it is the process to be killed, and where it works.
const DIR: &str = "LANDFALL_TEST_SPOOL";

/// Processes that are killed at random moments.
const KILLS: u64 = 12;

const STREAMS: [&str; 3] = ["shop.orders", "shop.customers", "shop.items"];

/// Appenders of one process.
const APPENDERS: usize = 8;

const BUSY: Options = Options {
    segment_bytes: 20_000,
    segment_age: Duration::from_millis(20),
    ..OPTIONS
};

const PACE: Pace = Pace {
    drain: Duration::from_secs(120),
    ..Pace::USUAL
};

fn store(dir: &Path) -> Arc<dyn ObjectStore> {
    Arc::new(DurableLocal::new(&dir.join("lake")).unwrap())
}

/// Not a test by itself: with [`DIR`] set it appends and ships until it is killed, and prints what was acknowledged.
#[test]
fn child() {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is how a test tells itself what it is"
    )]
    let Some(dir) = env::var_os(DIR).map(PathBuf::from) else {
        return;
    };
    failpoint::arm();
    let (spool, _) = Spool::open(&dir.join("spool"), BUSY, Clock::system(), &mut |_, _| {}).unwrap();
    let store = store(&dir);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let appenders = (0..APPENDERS).map(|appender| {
            let spool = &spool;
            async move {
                // Some thousand are more than any of them lives to append.
                for number in 0..10_000 {
                    let stream = STREAMS[(appender + number) % STREAMS.len()];
                    let delivery = delivery(stream, vec![b'x'; number % 700]);
                    let receipt = delivery.receipt;
                    spool.append(delivery).await.unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "acknowledged {stream} {receipt}").unwrap();
                    out.flush().unwrap();
                }
            }
        });
        let shipping = spool.ship(lake(&store, Clock::system()), std::future::pending(), PACE);
        futures::future::join(shipping, futures::future::join_all(appenders)).await
    });
}

fn begin(dir: &Path, failpoints: &str) -> Child {
    Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "receive::spool::tests::kill::child",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(DIR, dir)
        .env("FAILPOINTS", failpoints)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Reads what `child` acknowledges, and kills it after so many lines; to the end if it dies before.
fn watch(mut child: Child, lines: u64, acknowledged: &mut BTreeSet<(String, String)>) {
    let mut read = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let mut words = line.split(' ');
        // Behind the name of the test on its line, perhaps.
        if words.by_ref().any(|word| word.ends_with("acknowledged"))
            && let (Some(stream), Some(receipt)) = (words.next(), words.next())
        {
            acknowledged.insert((stream.to_owned(), receipt.to_owned()));
            read += 1;
        }
        if read == lines {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
}

/// Ships what is left and holds that everything acknowledged stands in the lake, and nothing stands there twice.
fn check(dir: &Path, acknowledged: &BTreeSet<(String, String)>) {
    let (spool, recovered) = Spool::open(&dir.join("spool"), BUSY, Clock::system(), &mut |_, _| {}).unwrap();
    assert_eq!(recovered.damaged, []);
    let store = store(dir);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let left = spool
            .ship(lake(&store, Clock::system()), std::future::ready(()), PACE)
            .await;
        assert_eq!(left.segments, 0);
        for stream in STREAMS {
            let counts = receipts(&store, stream).await;
            let twice: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).collect();
            assert!(twice.is_empty(), "{stream}: {twice:?}");
            let lost = acknowledged
                .iter()
                .filter(|(of, receipt)| of == stream && !counts.contains_key(receipt));
            assert_eq!(lost.count(), 0, "{stream}");
        }
    });
}

#[test]
fn f006_what_is_acknowledged_lands_once_however_often_the_server_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    for _ in 0..KILLS {
        let lines = 1 + rand::random::<u64>() % 200;
        watch(begin(dir.path(), ""), lines, &mut acknowledged);
    }
    assert!(acknowledged.len() as u64 >= KILLS);
    check(dir.path(), &acknowledged);
}

#[test]
fn nothing_lands_twice_wherever_the_server_dies() {
    for point in [
        "spool::before_sync",
        "spool::after_sync",
        "spool::after_begin",
        "raw::after_put",
        "raw::before_commit",
        "raw::after_commit",
        "spool::after_commit",
        "spool::after_landed",
        "spool::after_remove",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut acknowledged = BTreeSet::new();
        for passes in [0, 2, 5] {
            let failpoints = format!("{point}={passes}*off->return");
            watch(begin(dir.path(), &failpoints), u64::MAX, &mut acknowledged);
        }
        assert!(!acknowledged.is_empty(), "{point}");
        check(dir.path(), &acknowledged);
    }
}
