use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{
    clock::Timestamp,
    config::rate::{Bucket, Rate, RateLimit, WindowKind},
    extract::limit::rules::Call,
};

const START_MS: i64 = 1_700_000_000_000;

/// A file and the milliseconds that all processes see.
struct World {
    dir: TempDir,
    millis: Arc<AtomicI64>,
}

impl World {
    fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
            millis: Arc::new(AtomicI64::new(START_MS)),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("budgets/shop")
    }

    /// A process with these buckets.
    fn process(&self, buckets: Vec<Bucket>) -> (FileStore, Ask) {
        let mut rate = RateLimit::simple(1, Duration::from_secs(1));
        rate.buckets = buckets;
        let rules = Arc::new(Rules::new(Some(&rate)));
        let ask = Ask {
            demands: rules.demands(&Call::new("GET", "/")).into(),
            want: 1,
            member: rand::random(),
            contended: false,
        };
        let millis = Arc::clone(&self.millis);
        let clock = Clock::from_fn(move || Timestamp::from_timestamp_millis(millis.load(SeqCst)).unwrap());
        let store = FileStore::new(self.path(), "shop".to_owned(), rules, clock);
        (store, ask)
    }

    fn go_on(&self, millis: i64) -> i64 {
        self.millis.fetch_add(millis, SeqCst) + millis
    }
}

fn moving(requests: u32, per_ms: u64) -> Bucket {
    Bucket {
        rates: vec![Rate {
            requests,
            per: Duration::from_millis(per_ms),
        }],
        window: WindowKind::Moving,
        matches: Vec::new(),
    }
}

fn fixed(requests: u32, per_ms: u64) -> Bucket {
    Bucket {
        window: WindowKind::Fixed,
        ..moving(requests, per_ms)
    }
}

/// How many of `want` are granted.
fn take((store, ask): &(FileStore, Ask), want: u32) -> u32 {
    let ask = Ask { want, ..ask.clone() };
    match store.0.take(Some(&ask), Note::default()).unwrap() {
        Verdict::Granted { count, .. } => count,
        Verdict::Wait(_) => 0,
    }
}

#[test]
fn r040_f068_processes_spend_one_budget() {
    let world = World::new();
    let process = || world.process(vec![moving(10, 1000)]);
    let (one, other) = (process(), process());
    assert_eq!((take(&one, 6), take(&other, 6)), (6, 4));
    // A process that comes later finds what the others took.
    let late = process();
    assert_eq!(take(&late, 1), 0);
    world.go_on(1020);
    assert_eq!(take(&late, 20), 10);
}

#[test]
fn r042_a_pause_of_one_process_holds_the_others() {
    let world = World::new();
    let process = || world.process(vec![moving(10, 1000)]);
    let (one, other) = (process(), process());
    let note = Note {
        pause: Some(Duration::from_secs(5)),
        spent: false,
    };
    one.0.0.take(None, note).unwrap();
    let verdict = other.0.0.take(Some(&other.1), Note::default()).unwrap();
    assert_eq!(verdict, Verdict::Wait(Duration::from_secs(5)));
    world.go_on(5000);
    assert_eq!(take(&other, 1), 1);
}

#[test]
fn r040_processes_with_other_settings_count_what_they_have_in_common() {
    let world = World::new();
    let one = world.process(vec![moving(10, 1000)]);
    let other = world.process(vec![moving(5, 1000), moving(100, 60_000)]);
    assert_eq!(take(&one, 5), 5);
    assert_eq!(take(&other, 1), 0, "its five are gone");
    world.go_on(1020);
    assert_eq!((take(&other, 9), take(&one, 9)), (5, 5));
}

#[test]
fn f069_a_torn_file_counts_as_a_budget_spent_now() {
    let world = World::new();
    let process = || world.process(vec![moving(10, 1000)]);
    assert_eq!(take(&process(), 3), 3);
    let whole = fs::read(world.path()).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let cut = [1, MAGIC.len(), whole.len() / 2, whole.len() - 1].map(|length| whole[..length].to_vec());
    for bytes in cut.into_iter().chain([flipped]) {
        fs::write(world.path(), &bytes).unwrap();
        let next = process();
        assert_eq!(take(&next, 10), 0, "{} bytes", bytes.len());
        world.go_on(1019);
        assert_eq!(take(&next, 10), 0, "{} bytes", bytes.len());
        world.go_on(1);
        assert_eq!(take(&next, 10), 10, "{} bytes", bytes.len());
        world.go_on(5000);
    }
}

#[test]
fn f069_a_file_that_was_removed_counts_as_spent_for_who_knew_it() {
    let world = World::new();
    let one = world.process(vec![moving(10, 1000)]);
    assert_eq!(take(&one, 10), 10);
    fs::remove_file(world.path()).unwrap();
    assert_eq!(take(&one, 10), 0);
    world.go_on(1020);
    assert_eq!(take(&one, 10), 10);
}

#[test]
fn f069_a_file_that_nobody_lets_go_of_is_an_error_and_no_grant() {
    let world = World::new();
    let one = world.process(vec![moving(10, 1000)]);
    assert_eq!(take(&one, 1), 1);
    let held = File::open(world.path()).unwrap();
    held.lock().unwrap();
    let error = one.0.0.take(Some(&one.1), Note::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("lock"), "{error}");
    held.unlock().unwrap();
    assert_eq!(take(&one, 1), 1);
}

#[test]
fn r040_the_file_stays_small() {
    let world = World::new();
    let one = world.process(vec![
        moving(1_000_000, 3_600_000),
        moving(5_000_000, 86_400_000),
        fixed(1000, 1000),
    ]);
    for _ in 0..700 {
        world.go_on(9973);
        take(&one, 50);
    }
    let bytes = fs::metadata(world.path()).unwrap().len();
    assert!(bytes < 40_000, "{bytes}");
}

#[test]
fn r040_threads_that_really_run_at_once_take_no_more_than_there_is() {
    let world = World::new();
    let granted = AtomicI64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let (process, granted) = (world.process(vec![moving(200, 3_600_000)]), &granted);
            scope.spawn(move || {
                for _ in 0..70 {
                    granted.fetch_add(i64::from(take(&process, 1)), SeqCst);
                }
            });
        }
    });
    assert_eq!(granted.load(SeqCst), 200);
}

/// Something happens: after so many ms, to whom, how many wanted; and now and then the file or a process is lost.
fn events() -> impl Strategy<Value = Vec<(i64, usize, u32, u8)>> {
    let gap = prop_oneof![4 => 0i64..5, 2 => 0i64..200, 1 => 0i64..2000];
    proptest::collection::vec((gap, 0usize..4, 1u32..6, 0u8..60), 40..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn r040_f068_no_interleaving_of_processes_overdraws_the_budget(
        events in events(),
        requests in 1u32..12,
        per in 50u64..900,
    ) {
        let world = World::new();
        let process = || world.process(vec![moving(requests, per), fixed(requests + 2, per + 50)]);
        let mut processes: Vec<_> = (0..4).map(|_| process()).collect();
        let mut granted: Vec<(i64, u32)> = Vec::new();
        for (gap, who, want, what) in events {
            let now = world.go_on(gap);
            match what {
                // Torn by a crash.
                0 => {
                    if let Ok(bytes) = fs::read(world.path()) {
                        fs::write(world.path(), &bytes[..bytes.len() - 1]).unwrap();
                    }
                }
                // A process ends and another begins.
                1 => processes[who] = process(),
                _ => {}
            }
            let count = take(&processes[who], want);
            if count > 0 {
                granted.push((now, count));
            }
        }
        let per = i64::try_from(per).unwrap();
        for (at, &(start, _)) in granted.iter().enumerate() {
            let within = granted[at..].iter().take_while(|(now, _)| now - start < per);
            let count: u32 = within.map(|(_, count)| count).sum();
            prop_assert!(count <= requests, "{count} of {requests} from {start}");
            let window = start.div_euclid(per + 50);
            let within = granted.iter().filter(|(now, _)| now.div_euclid(per + 50) == window);
            let count: u32 = within.map(|(_, count)| count).sum();
            prop_assert!(count <= requests + 2, "{count} of {} in {window}", requests + 2);
        }
    }
}
