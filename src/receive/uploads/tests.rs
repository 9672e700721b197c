use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicI64, Ordering},
};

use chrono::TimeDelta;
use tempfile::TempDir;

use super::{job::Packed, *};
use crate::config::StreamName;

struct Bench {
    dir: TempDir,
    seconds: Arc<AtomicI64>,
    settings: Uploads,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Uploads {
            bytes_max: 100,
            job_bytes_max: 100,
            jobs_max: 4,
            ..Uploads::usual(dir.path())
        };
        Self {
            dir,
            seconds: Arc::default(),
            settings,
        }
    }

    fn open(&self) -> Jobs {
        let seconds = Arc::clone(&self.seconds);
        let clock = Clock::from_fn(move || {
            Timestamp::UNIX_EPOCH + TimeDelta::seconds(seconds.load(Ordering::Relaxed))
        });
        Jobs::open(&self.settings, clock).unwrap()
    }

    fn pass(&self, time: Duration) {
        self.seconds
            .fetch_add(i64::try_from(time.as_secs()).unwrap(), Ordering::Relaxed);
    }

    fn files(&self) -> Vec<String> {
        let dir: &Path = &self.dir.path().join(Uploads::DIR_DEFAULT);
        let entries = fs::read_dir(dir).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "lock").collect()
    }
}

fn announced(name: &str, producer: &str, bytes: u64) -> Announced {
    Announced {
        id: JobId::of(&[producer, name]),
        stream: StreamName::parse("shop.orders").unwrap(),
        producer: Some(producer.to_owned()),
        request: name.to_owned(),
        sha256: "0".repeat(64),
        bytes,
        packed: Packed::Not,
        url: None,
        trace_id: "t".to_owned(),
    }
}

fn new(made: Made) -> Job {
    match made {
        Made::New(job) => job,
        _ => panic!("not new"),
    }
}

#[test]
fn pieces_are_kept_in_order_and_what_a_crash_left_behind_them_is_void() {
    let bench = Bench::new();
    let jobs = bench.open();
    let id = new(jobs.make(announced("a", "till", 10), true).unwrap()).id;
    assert_eq!(jobs.append(id, 0, b"01234", false).unwrap(), Appended::Kept(5));
    for (offset, bytes, is_last, outcome) in [
        (4, "x", false, Appended::Elsewhere(5)),
        (6, "x", false, Appended::Elsewhere(5)),
        (5, "567890", false, Appended::OfAnotherLength),
        (5, "5678", true, Appended::OfAnotherLength),
        (5, "", true, Appended::OfAnotherLength),
    ] {
        assert_eq!(
            jobs.append(id, offset, bytes.as_bytes(), is_last).unwrap(),
            outcome
        );
    }
    // As if the process had died in the middle of a piece.
    fs::write(jobs.file(id), "01234garbage").unwrap();
    drop(jobs);
    let jobs = bench.open();
    assert_eq!(jobs.get(id).unwrap().offset, 5);
    assert_eq!(jobs.append(id, 5, b"567", false).unwrap(), Appended::Kept(8));
    assert_eq!(jobs.append(id, 8, b"89", false).unwrap(), Appended::Kept(10));
    assert_eq!(jobs.append(id, 10, b"", true).unwrap(), Appended::Kept(10));
    assert_eq!(fs::read(jobs.file(id)).unwrap(), b"0123456789");
    assert_eq!(jobs.append(id, 10, b"", true).unwrap(), Appended::Complete);
    assert_eq!(jobs.get(id).unwrap().state, State::Queued);
}

#[tokio::test]
async fn what_has_not_ended_is_taken_up_again_after_a_start_in_order() {
    let bench = Bench::new();
    let jobs = bench.open();
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        bench.pass(Duration::from_secs(1));
        let id = new(jobs.make(announced(name, "till", 1), true).unwrap()).id;
        jobs.append(id, 0, b"x", true).unwrap();
        ids.push(id);
    }
    assert_eq!(jobs.next().await, ids[0]);
    jobs.change(ids[1], |job| job.state = State::Done).unwrap();
    assert!(!jobs.file(ids[1]).exists());
    drop(jobs);
    let jobs = bench.open();
    assert_eq!((jobs.next().await, jobs.next().await), (ids[0], ids[2]));
    assert_eq!(jobs.get(ids[1]).unwrap().state, State::Done);
}

#[test]
fn the_same_request_finds_its_job_and_another_with_its_key_is_told_so() {
    let bench = Bench::new();
    let jobs = bench.open();
    let id = new(jobs.make(announced("a", "till", 10), true).unwrap()).id;
    drop(jobs);
    let jobs = bench.open();
    let again = jobs.make(announced("a", "till", 10), true).unwrap();
    assert!(matches!(again, Made::Known(job) if job.id == id));
    let other = Announced {
        request: "b".to_owned(),
        ..announced("a", "till", 10)
    };
    assert!(matches!(jobs.make(other, true).unwrap(), Made::Other));
    // What came to an end that may be another the next time is begun anew, with a channel of its own.
    let before = jobs.get(id).unwrap().channel();
    bench.pass(Duration::from_secs(1));
    for (retryable, anew) in [(false, false), (true, true)] {
        jobs.change(id, |job| {
            job.state = State::Quarantined;
            job.problem = Some(Trouble {
                code: "x".to_owned(),
                detail: String::new(),
                retryable,
            });
        })
        .unwrap();
        let made = jobs.make(announced("a", "till", 10), true).unwrap();
        assert_eq!(matches!(made, Made::New(_)), anew);
    }
    assert_ne!(jobs.get(id).unwrap().channel(), before);
}

#[test]
fn what_does_not_fit_is_refused_before_it_is_sent_and_one_producer_leaves_room() {
    let bench = Bench::new();
    let jobs = bench.open();
    // The first may be as large as any; more of one producer take three quarters together.
    let first = new(jobs.make(announced("a", "till", 70), true).unwrap());
    let refused = jobs.make(announced("b", "till", 6), true).unwrap();
    assert!(matches!(refused, Made::NoRoom));
    new(jobs.make(announced("b", "till", 5), true).unwrap());
    assert!(matches!(
        jobs.make(announced("a", "web", 26), true).unwrap(),
        Made::NoRoom
    ));
    new(jobs.make(announced("a", "web", 25), true).unwrap());
    jobs.change(first.id, |job| job.state = State::Done).unwrap();
    new(jobs.make(announced("c", "till", 1), true).unwrap());
    new(jobs.make(announced("d", "till", 1), true).unwrap());
    assert!(matches!(
        jobs.make(announced("e", "till", 1), true).unwrap(),
        Made::TooMany
    ));
    assert!(matches!(
        jobs.make(announced("b", "web", 1), true).unwrap(),
        Made::TooMany
    ));
}

#[test]
fn what_is_not_sent_in_time_expires_and_what_ended_is_told_for_a_week() {
    let bench = Bench::new();
    let jobs = bench.open();
    let id = new(jobs.make(announced("a", "till", 10), true).unwrap()).id;
    bench.pass(Jobs::UPLOAD_WITHIN - Duration::from_secs(1));
    jobs.append(id, 0, b"0", false).unwrap();
    bench.pass(Jobs::UPLOAD_WITHIN);
    assert_eq!(jobs.append(id, 1, b"1", false).unwrap(), Appended::Expired);
    jobs.sweep().unwrap();
    let job = jobs.get(id).unwrap();
    assert_eq!(job.state, State::Quarantined);
    assert_eq!(job.problem.unwrap().code, Jobs::EXPIRED);
    assert!(!jobs.file(id).exists());
    bench.pass(Jobs::TOLD_FOR);
    assert!(jobs.get(id).is_none());
    jobs.sweep().unwrap();
    assert_eq!(bench.files(), Vec::<String>::new());
    assert_eq!(
        new(jobs.make(announced("a", "till", 10), true).unwrap()).offset,
        0
    );
}

#[test]
fn a_job_that_cannot_be_read_is_put_aside_and_one_server_has_the_folder() {
    let bench = Bench::new();
    let jobs = bench.open();
    let id = new(jobs.make(announced("a", "till", 10), true).unwrap()).id;
    jobs.append(id, 0, b"0", false).unwrap();
    let taken = Jobs::open(&bench.settings, Clock::system()).err().unwrap();
    assert_eq!(taken.kind(), ErrorKind::Conflict);
    drop(jobs);
    let folder = bench.dir.path().join(Uploads::DIR_DEFAULT);
    fs::write(folder.join(format!("{id}.json")), "{").unwrap();
    fs::write(folder.join(format!("{}.bytes", JobId::of(&["none"]))), "x").unwrap();
    let jobs = bench.open();
    assert!(jobs.get(id).is_none());
    let mut files = bench.files();
    files.sort();
    assert_eq!(files, [format!("{id}.bytes"), format!("{id}.json.unread")]);
    drop(jobs);
    let written = fs::metadata(folder.join(format!("{id}.json.unread"))).unwrap();
    let written = written.modified().unwrap().duration_since(std::time::UNIX_EPOCH);
    bench.pass(written.unwrap() + Duration::from_secs(31 * 24 * 60 * 60));
    bench.open();
    assert_eq!(bench.files(), Vec::<String>::new());
}

#[test]
fn no_more_ended_jobs_are_told_of_than_may_be_and_the_oldest_are_forgotten_first() {
    let bench = Bench::new();
    let mut jobs = bench.open();
    Arc::get_mut(&mut jobs.inner).unwrap().ended_max = 4;
    let end = |name: &str, producer: &str| {
        bench.pass(Duration::from_secs(1));
        let id = new(jobs.make(announced(name, producer, 1), true).unwrap()).id;
        jobs.change(id, |job| job.state = State::Done).unwrap();
        id
    };
    let is_told = |ids: &[JobId]| ids.iter().map(|id| jobs.get(*id).is_some()).collect::<Vec<_>>();
    let other = end("a", "web");
    // Three quarters are for one producer.
    let own = ["a", "b", "c", "d"].map(|name| end(name, "till"));
    assert_eq!(is_told(&own), [false, true, true, true]);
    assert_eq!(is_told(&[other]), [true]);
    let new = end("b", "web");
    assert_eq!(is_told(&[other, new]), [false, true]);
    assert_eq!(bench.files().len(), 4);
}

#[test]
fn what_is_begun_anew_is_not_ended_by_what_was_known_of_it_before() {
    let bench = Bench::new();
    let jobs = bench.open();
    let id = new(jobs.make(announced("a", "till", 10), true).unwrap()).id;
    let before = jobs.entry(id).unwrap();
    bench.pass(Jobs::UPLOAD_WITHIN);
    new(jobs.make(announced("a", "till", 10), true).unwrap());
    jobs.expire(id, &before).unwrap();
    drop((before, jobs));
    assert_eq!(bench.open().get(id).unwrap().state, State::WaitingForUpload);
}
