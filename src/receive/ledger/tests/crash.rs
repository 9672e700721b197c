//! The process is killed while it commits, for real: this test starts itself as another process.

use std::{
    collections::HashSet,
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use super::*;
use crate::receive::ledger::{receipt::Stage, repair::Remembered};

/// Where the child works. Without it the child's part is not run.
const FOLDER: &str = "LEDGER_CRASH_FOLDER";
/// Requests acknowledged between two shipments.
const SHIPMENT: usize = 100;

fn spooled(number: &str, at: Timestamp) -> Delivery {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.parse::<u64>().unwrap().to_be_bytes());
    let body = format!("body {number}");
    delivery(
        Some(&format!("key-{number}")),
        Some(&format!("evt-{number}")),
        &body,
        at,
        ReceiptId::from_bytes(id),
    )
}

fn numbers(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    // The last line may be cut off by the kill: it was not acknowledged.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(str::to_owned).collect()
}

/// Receives and ships until it is killed. The spool is a file of numbers here: a kill does not lose what was written to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_of_the_crash_test() {
    #[expect(
        clippy::disallowed_methods,
        reason = "how a test tells its child where to work"
    )]
    let Ok(folder) = env::var(FOLDER) else {
        return;
    };
    let folder = Path::new(&folder);
    let hand = Hand::new();
    let ledger = Ledger::open(Kept::in_folder(folder.join("ledger")), hand.clock())
        .await
        .unwrap();
    let log = |name: &str| {
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join(name))
            .unwrap()
    };
    let (mut spool, mut shipped) = (log("spool"), log("shipped"));
    let first = numbers(&folder.join("spool")).len();
    let mut waiting = Vec::new();
    for number in first.. {
        let number = number.to_string();
        let delivery = spooled(&number, hand.now());
        let Ok(Begun::New(key)) = ledger
            .begin(
                scope(&format!("key-{number}")),
                repair::fingerprint(&delivery),
                AT_ONCE,
            )
            .await
        else {
            panic!("key {number} is not new");
        };
        let event_id = format!("evt-{number}");
        let Ok(Seen::New(event)) = ledger
            .see(&stream(), &event_id, repair::fingerprint(&delivery), AT_ONCE)
            .await
        else {
            panic!("event {number} is not new");
        };
        spool.write_all(format!("{number}\n").as_bytes()).unwrap();
        key.complete(answer(&number)).await.unwrap();
        event.complete(delivery.receipt).await.unwrap();
        ledger
            .record(vec![Receipt::of(&delivery, Stage::Spooled)])
            .await
            .unwrap();
        waiting.push((number, delivery));
        if waiting.len() == SHIPMENT {
            let batch = crate::raw::BatchNumber::FIRST;
            let landed =
                |(_, delivery): &(String, Delivery)| Receipt::of(delivery, Stage::Landed { batch, page: 0 });
            ledger.record(waiting.iter().map(landed).collect()).await.unwrap();
            ledger.flush().await.unwrap();
            let lines: String = waiting
                .drain(..)
                .map(|(number, _)| format!("{number}\n"))
                .collect();
            shipped.write_all(lines.as_bytes()).unwrap();
        }
        // Straight to the pipe: printed, it would be held back until the test ends.
        std::io::stdout().write_all(b"acknowledged\n").unwrap();
    }
}

#[tokio::test]
async fn f093_killed_while_it_commits_every_acknowledged_key_and_event_is_known_after_repair() {
    let folder = tempfile::tempdir().unwrap();
    let hand = Hand::new();
    for round in 0..6 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                "receive::ledger::tests::crash::child_of_the_crash_test",
            ])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let acknowledged =
            |line: &std::io::Result<String>| line.as_ref().is_ok_and(|line| line.ends_with("acknowledged"));
        let wanted = 157 * (round + 1);
        assert_eq!(
            lines.filter(acknowledged).take(wanted).count(),
            wanted,
            "the child ended by itself"
        );
        child.kill().unwrap();
        child.wait().unwrap();

        let ledger = Ledger::open(Kept::in_folder(folder.path().join("ledger")), hand.clock())
            .await
            .unwrap();
        assert_eq!(ledger.opened(), store::Opened::Found);
        let received = numbers(&folder.path().join("spool"));
        let shipped: HashSet<String> = numbers(&folder.path().join("shipped")).into_iter().collect();
        let in_spool = received.iter().filter(|number| !shipped.contains(*number));
        let remembered = in_spool
            .map(|number| Remembered::of(&spooled(number, hand.now()), |_| Ok(answer(number))).unwrap());
        let repaired = ledger.repair(remembered.collect()).await.unwrap();
        for number in &received {
            let delivery = spooled(number, hand.now());
            let fingerprint = repair::fingerprint(&delivery);
            let begun = ledger
                .begin(scope(&format!("key-{number}")), fingerprint, AT_ONCE)
                .await
                .unwrap();
            assert!(
                matches!(&begun, Begun::Replay(kept) if *kept == answer(number)),
                "{number}: {begun:?} {repaired:?}"
            );
            let seen = ledger
                .see(&stream(), &format!("evt-{number}"), fingerprint, AT_ONCE)
                .await
                .unwrap();
            assert!(
                matches!(&seen, Seen::Duplicate(known) if known.receipt == delivery.receipt),
                "{number}: {seen:?}"
            );
            let receipt = ledger.receipt(delivery.receipt).await.unwrap().unwrap();
            if shipped.contains(number) {
                assert!(matches!(receipt.stage, Stage::Landed { .. }), "{number}");
            }
        }
        ledger.close().await.unwrap();
        // The next child goes on where this one was stopped; a line cut off is completed for it.
        let lines: String = received.iter().map(|number| format!("{number}\n")).collect();
        fs::write(folder.path().join("spool"), lines).unwrap();
    }
}
