use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicI64, Ordering::SeqCst},
};

use tempfile::TempDir;

use super::*;
use crate::{
    clock::Timestamp,
    config::{StreamName, rate::RateLimit},
    extract::limit::{Budget, Limiter, rules::Call},
};

/// One of two processes that share so many requests a second by a file that may be taken away.
struct Process {
    dir: TempDir,
    shared: Shared,
    ask: Ask,
    millis: Arc<AtomicI64>,
}

impl Process {
    fn new(requests: u32) -> Self {
        let dir = TempDir::new().unwrap();
        let millis = Arc::new(AtomicI64::new(1_700_000_000_000));
        let shown = Arc::clone(&millis);
        let clock = Clock::from_fn(move || Timestamp::from_timestamp_millis(shown.load(SeqCst)).unwrap());
        let rules = Arc::new(Rules::new(Some(&RateLimit::simple(
            requests,
            Duration::from_secs(1),
        ))));
        let ask = Ask {
            demands: rules.demands(&Call::new("GET", "/")).into(),
            want: 20,
            member: 1,
            contended: false,
        };
        let path = dir.path().join("budget");
        let file = FileStore::new(path, "shop".to_owned(), Arc::clone(&rules), clock.clone());
        Self {
            shared: Shared::new(Store::File(file), rules, 2, clock),
            dir,
            ask,
            millis,
        }
    }

    /// How many are granted, and by whom.
    async fn take(&self) -> (u32, &'static str) {
        match self.shared.take(&self.ask).await.unwrap() {
            (Verdict::Granted { count, .. }, by) => (count, by),
            (Verdict::Wait(_), by) => (0, by),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// From now on the file cannot be opened.
    fn take_away(&self) {
        if self.path("budget").exists() {
            fs::rename(self.path("budget"), self.path("kept")).unwrap();
        }
        fs::create_dir(self.path("budget")).unwrap();
    }

    /// It can again, and is as it was.
    fn bring_back(&self) {
        fs::remove_dir(self.path("budget")).unwrap();
        if self.path("kept").exists() {
            fs::rename(self.path("kept"), self.path("budget")).unwrap();
        }
    }

    fn go_on(&self, millis: i64) {
        self.millis.fetch_add(millis, SeqCst);
    }
}

#[tokio::test]
async fn f069_without_its_store_a_process_keeps_to_its_part() {
    let process = Process::new(8);
    assert_eq!(process.take().await, (8, "file"));
    process.take_away();
    // What the others took of the last window is not known any more.
    assert_eq!(process.take().await, (0, "alone"));
    process.go_on(1019);
    assert_eq!(process.take().await, (0, "alone"));
    process.go_on(1);
    assert_eq!(process.take().await, (4, "alone"));
    assert_eq!(process.take().await, (0, "alone"));

    // What went meanwhile is not known to the store.
    process.go_on(500);
    process.bring_back();
    assert_eq!(process.take().await, (0, "file"));
    process.go_on(1019);
    assert_eq!(process.take().await, (0, "file"));
    process.go_on(1);
    assert_eq!(process.take().await, (8, "file"));
}

#[tokio::test]
async fn f069_a_store_that_is_back_before_anything_went_costs_nothing() {
    let process = Process::new(8);
    assert_eq!(process.take().await, (8, "file"));
    process.go_on(500);
    process.take_away();
    assert_eq!(process.take().await, (0, "alone"));
    process.bring_back();
    process.go_on(520);
    assert_eq!(process.take().await, (8, "file"));
}

#[tokio::test]
async fn f069_the_store_is_tried_again_from_time_to_time_only() {
    let process = Process::new(8);
    process.take_away();
    assert_eq!(process.take().await, (0, "alone"));
    process.bring_back();
    process.go_on(249);
    assert_eq!(process.take().await, (0, "alone"));
    process.go_on(1);
    assert_eq!(process.take().await, (8, "file"));
}

#[tokio::test]
async fn f069_more_processes_than_requests_leave_none_to_each_and_nobody_waits_without_end() {
    let process = Process::new(1);
    process.take_away();
    for _ in 0..600 {
        assert_eq!(process.take().await, (0, "alone"));
        process.go_on(500);
    }
    let away = process.shared.take(&process.ask).await.unwrap_err();
    let error = Error::from(away);
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    for word in [
        "store: file",
        "away_s: 300",
        "processes: 2",
        "hint: bring the store",
    ] {
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
    // Until the store is back: then all is as before, and it may be lost again.
    process.bring_back();
    process.go_on(500);
    assert_eq!(process.take().await, (1, "file"));
    process.take_away();
    process.go_on(2000);
    assert_eq!(process.take().await, (0, "alone"));
    process.go_on(-3_600_000);
    assert_eq!(process.take().await, (0, "alone"));
}

#[tokio::test]
async fn f069_a_request_heavier_than_the_part_does_not_wait_without_end_either() {
    let mut process = Process::new(8);
    let heavy = Demand { rate: 0, weight: 5 };
    let light = process.ask.clone();
    process.ask.demands = [heavy].into();
    process.take_away();
    assert_eq!(process.take().await, (0, "alone"));
    process.go_on(299_999);
    assert_eq!(process.take().await, (0, "alone"));
    process.go_on(1);
    assert!(process.shared.take(&process.ask).await.is_err());
    // Others have their part.
    process.ask = light;
    assert_eq!(process.take().await, (4, "alone"));
}

#[tokio::test]
async fn f069_everyone_who_waits_for_the_same_is_told() {
    let clock = Clock::from_fn(|| Timestamp::from_timestamp_millis(1_700_000_000_000).unwrap());
    let mut process = Process::new(1);
    process.take_away();
    process.take().await;
    process.go_on(300_000);
    let shared = std::mem::replace(&mut process.shared, Process::new(1).shared);
    let rate = RateLimit::simple(1, Duration::from_secs(1));
    let rules = Arc::new(Rules::new(Some(&rate)));
    let limiter = Limiter::with_budget(Some(&rate), rules, clock, Budget::Shared(Arc::new(shared)));
    let names = ["shop.one", "shop.two"].map(|name| StreamName::parse(name).unwrap());
    let waiting = (0..6).map(|number| limiter.acquire(&names[number % 2], "GET", "/"));
    for granted in futures::future::join_all(waiting).await {
        assert_eq!(granted.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}

#[tokio::test]
async fn r042_a_pause_said_while_the_store_is_away_is_told_when_it_is_back() {
    let process = Process::new(8);
    process.take_away();
    assert_eq!(process.take().await, (0, "alone"));
    process.shared.pause(Duration::from_secs(9));
    process.bring_back();
    process.go_on(2000);
    assert_eq!(process.take().await, (0, "file"));

    let Store::File(file) = &process.shared.store else {
        panic!("not a file")
    };
    let another = Ask {
        member: 2,
        ..process.ask.clone()
    };
    let told = file.take(Some(&another), Note::default()).await.unwrap();
    assert_eq!(told, Verdict::Wait(Duration::from_secs(7)));
}
