//! Faults of the machine and of the network that only a real file system or a real handshake can show.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use landfall::{
    clock::Clock,
    config::StreamName,
    ops::{
        Workspace,
        extract::{Channels, Options, extract},
        transform::transform,
    },
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::support::{
    api::{Api, Scripted},
    project::{ITEMS, ITEMS_CONTRACT, TestProject},
    s3,
};

#[test]
fn f060_a_certificate_that_nobody_vouches_for_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/python/bad_certificate.py");
    let mut server = Command::new("python3")
        .arg(script)
        .arg(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let url = lines.next().unwrap().unwrap();

    let ran = TestProject::new(&url, ITEMS).run(&["extract"]);
    assert_eq!(
        lines.next().unwrap().unwrap(),
        "refused",
        "the handshake itself fails"
    );
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(
        ran.stderr.to_lowercase().contains("certificate"),
        "{}",
        ran.stderr
    );
    assert!(
        !ran.stderr.contains("sent again"),
        "one request is enough: {}",
        ran.stderr
    );
    assert!(lines.next().is_none(), "nothing was sent again");
}

#[test]
fn f060_a_host_without_an_address_is_said_by_name() {
    let ran = TestProject::new("http://nobody.invalid", ITEMS).run(&["extract"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("nobody.invalid"), "{}", ran.stderr);
}

/// A shell line that mounts 2 MB of memory over `dir`, in a mount namespace of its own, and runs `then` there.
fn on_a_small_disk(dir: &str, then: &str) -> Option<Command> {
    let line = format!("mount -t tmpfs -o size=2m tmpfs '{dir}' && {then}");
    // Root may mount; others may in a user namespace, where the system has them.
    for options in [&["--mount"][..], &["--user", "--map-root-user", "--mount"]] {
        let mut probe = Command::new("unshare");
        probe
            .args(options)
            .args(["sh", "-c", &format!("mount -t tmpfs tmpfs '{dir}'")]);
        if probe.output().is_ok_and(|output| output.status.success()) {
            let mut command = Command::new("unshare");
            command.args(options).args(["sh", "-c", &line]);
            return Some(command);
        }
    }
    None
}

#[test]
fn f010_a_full_disk_fails_loudly_and_space_is_all_it_takes() {
    let wide = |id: i64| -> Value {
        // Text that does not compress below half its size: all of it does not fit.
        let mut generator = StdRng::seed_from_u64(id as u64);
        let noise: String = (0..4000)
            .map(|_| char::from(generator.random_range(b'a'..=b'z')))
            .collect();
        json!({"id": id, "updated": id, "name": noise})
    };
    let api = Api::start((0..1500).map(wide).collect());
    let project = TestProject::items(&api.base_url);
    std::fs::create_dir(project.path().join("lake")).unwrap();
    let program = env!("CARGO_BIN_EXE_landfall");
    let root = project.path().display().to_string();
    let run = format!("'{program}' --project '{root}'");
    // The lake is gone with its file system, so all is told by one shell: fail, free space, go on where it stood.
    let script = format!(
        "{run} extract; echo \"first $?\" >&2; mount -o remount,size=64m '{root}/lake'; {run} run; echo \"second $?\" >&2; \
         {run} sql --format json 'SELECT count(*) n, count(DISTINCT id) d FROM shop.items'"
    );
    let Some(mut command) = on_a_small_disk(&format!("{root}/lake"), &script) else {
        // Nothing to mount with: the error mapping has its own test beside the store.
        return;
    };
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("first 1") && said.to_lowercase().contains("space"),
        "{said}"
    );
    assert!(said.contains("second 0"), "{said}");
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows, json!({"n": 1500, "d": 1500}));
}

#[test]
fn f011_a_disk_that_is_full_at_any_step_leaves_the_old_tables_and_logs_whole() {
    let api = Api::start((0..20).map(|id| item(id, id, "good")).collect());
    let project = TestProject::items(&api.base_url);
    std::fs::create_dir(project.path().join("lake")).unwrap();
    let program = env!("CARGO_BIN_EXE_landfall");
    let root = project.path().display().to_string();
    let run = format!("'{program}' --project '{root}'");
    let count = format!(
        "{run} sql --format json 'SELECT count(*) n, count(DISTINCT id) d, count(DISTINCT updated) u FROM shop.items'"
    );
    // Everything but so many KiB is taken away: less room lets a run come less far, through the object, the log entry,
    // the side tables, the data file, the commit. What is there afterwards is read with the disk as full as it was.
    let script = format!(
        "cd '{root}/lake' && {run} run && for left in 0 4 8 12 16 20 24 32 40 48 64 96; do \
           room=$(df --output=avail -k . | tail -1); \
           head -c $(( (room - left) * 1024 )) /dev/zero > filler; \
           {run} run --complete; echo \"left $left code $?\" >&2; \
           {count} || echo 'cannot be read' >&2; \
           find . -name '*.json' -size 0 -printf 'empty %p\\n' >&2; \
           rm filler; \
         done; {run} run && {run} verify && {count}"
    );
    let Some(mut command) = on_a_small_disk(&format!("{root}/lake"), &script) else {
        // Nothing to mount with: failures of every single operation have their own tests.
        return;
    };
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        !said.contains("cannot be read") && !said.contains("empty "),
        "{said}"
    );
    let ends: Vec<&str> = said.lines().filter(|line| line.starts_with("left ")).collect();
    assert!(
        ends[0].ends_with("code 1") && ends[11].ends_with("code 0"),
        "{said}"
    );
    // Some runs died while they landed, others when all was landed.
    assert!(
        said.contains("extract failed") || said.contains("write log entry"),
        "{said}"
    );
    assert!(said.contains("transform failed"), "{said}");
    assert!(said.to_lowercase().contains("space"), "{said}");
    let rows = String::from_utf8_lossy(&output.stdout);
    let whole = json!({"n": 20, "d": 20, "u": 20});
    let counts = rows
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let counts: Vec<Value> = counts.filter(|row| row.get("n").is_some()).collect();
    assert_eq!(counts, vec![whole; 13], "{rows}");
}

/// A clock that is set back an hour and forward a day while it is asked, again and again.
fn unsteady() -> Clock {
    let asked = AtomicI64::new(0);
    let begun = Clock::system().now();
    Clock::from_fn(move || {
        let asked = asked.fetch_add(1, Ordering::Relaxed);
        let set = [0, -3600, 86_400, 3600][(asked / 7 % 4) as usize];
        begun + chrono::TimeDelta::seconds(set) + chrono::TimeDelta::milliseconds(asked)
    })
}

#[test]
fn f023_a_clock_that_is_set_on_the_way_loses_nothing_and_nothing_goes_back() {
    let api = Api::start((0..40).map(|id| item(id, 100 + id, "first")).collect());
    let project = TestProject::items(&api.base_url);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let clock = unsteady();
    for round in 0..3 {
        let loaded = landfall::config::read::load(project.path()).unwrap();
        let workspace = Workspace::open(loaded.project, clock.clone()).unwrap();
        let streams = vec![StreamName::parse("shop.items").unwrap()];
        let channels = Channels::open(&workspace);
        let options = Options::changes(streams.clone());
        runtime.block_on(async {
            let extracted = extract(&workspace, &channels, &options, &|_, _| {}).await;
            extracted[0].result.as_ref().unwrap();
            let loaded = transform(&workspace, &streams).await;
            loaded[0].result.as_ref().unwrap();
        });
        let changed: Vec<Value> = (0..5)
            .map(|id| item(id, 200 + round * 10 + id, "later"))
            .collect();
        api.upsert(changed);
    }
    project.ok(&["run"]);
    let mut expected: Vec<Value> = (5..40).map(|id| item(id, 100 + id, "first")).collect();
    expected.splice(0..0, (0..5).map(|id| item(id, 220 + id, "later")));
    assert_eq!(project.rows("shop.items"), expected);
    project.ok(&["verify"]);

    let entries: Vec<Value> = project
        .files("lake/raw/shop/items/_log")
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
        .collect();
    assert!(entries.len() > 6, "{}", entries.len());
    let watermarks: Vec<i64> = entries
        .iter()
        .filter_map(|entry| entry["bookmark"]["watermark"].as_str()?.parse().ok())
        .collect();
    assert!(
        watermarks.is_sorted() && watermarks.last() == Some(&224),
        "{watermarks:?}"
    );
    let paths = |entry: &Value| -> Vec<String> {
        let objects = entry["objects"].as_array().unwrap().iter();
        objects
            .map(|object| object["path"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut all: Vec<String> = entries.iter().flat_map(paths).collect();
    let count = all.len();
    // Of one run the hours never go back, whatever the clock does.
    for run in entries.chunk_by(|a, b| a["run_id"] == b["run_id"]) {
        let hours: Vec<String> = run
            .iter()
            .flat_map(paths)
            .map(|path| path.rsplit_once('/').unwrap().0.to_owned())
            .collect();
        assert!(hours.is_sorted(), "{hours:?}");
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count, "no key twice");
}

fn item(id: i64, updated: i64, name: &str) -> Value {
    json!({"id": id, "updated": updated, "name": name})
}

/// Everything in the raw zone that is no log entry: bodies as they came, and the facts beside them.
fn raw(project: &TestProject) -> (String, String) {
    let objects = project.files("lake/raw");
    let objects = objects
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "zst"));
    let (mut bodies, mut stored) = (Vec::new(), Vec::new());
    for path in objects {
        let bytes = std::fs::read(path).unwrap();
        bodies.extend(zstd::decode_all(&bytes[..]).unwrap());
        stored.extend(bytes);
    }
    (
        String::from_utf8(bodies).unwrap(),
        String::from_utf8_lossy(&stored).into_owned(),
    )
}

#[test]
fn f063_a_body_that_was_not_taken_lands_beside_the_page_and_is_nobodys_quarantine() {
    let api = Api::start((0..3).map(|id| item(id, 100 + id, "good")).collect());
    let project = TestProject::items(&api.base_url);
    for body in ["<html>please log in</html>", r#"{"data":[{"id":0,"upd"#] {
        api.script(Scripted {
            status: 200,
            headers: vec![("content-type", "application/json".to_owned())],
            body: body.as_bytes().to_vec(),
        });
    }
    let ran = project.ok(&["run"]);
    assert!(ran.stderr.contains("answer landed as evidence"), "{}", ran.stderr);
    let (bodies, stored) = raw(&project);
    let landed: Vec<&str> = bodies.lines().collect();
    assert_eq!(
        landed[..2],
        ["<html>please log in</html>", r#"{"data":[{"id":0,"upd"#]
    );
    assert_eq!(landed.len(), 3, "{landed:?}");
    for attempts in 1..=3 {
        assert!(
            stored.contains(&format!(r#""attempts":{attempts},"#)),
            "{attempts}"
        );
    }
    assert_eq!(stored.matches(r#""superseded":true"#).count(), 2);
    assert_eq!(project.rows("shop.items").len(), 3);
    assert!(project.sql("SELECT * FROM shop.items__quarantine").is_empty());
}

#[test]
fn f063_of_a_page_that_came_twice_with_other_content_the_greater_sequence_holds() {
    let api = Api::start(vec![item(1, 101, "first"), item(2, 102, "first")]);
    let project = TestProject::items(&api.base_url);
    // The page is landed, and the run dies before its commit; the record changes, and the next run reads the page again.
    let killed = project.run_armed(&["extract"], "raw::before_commit=return");
    assert_eq!(killed.code, None, "{}", killed.stderr);
    api.upsert(vec![item(1, 101, "read again")]);
    project.ok(&["run"]);
    assert_eq!(
        project.rows("shop.items"),
        [item(1, 101, "read again"), item(2, 102, "first")]
    );

    // The lower bound is inclusive, so each run reads the last record again: newer, of the same age, older.
    for (updated, name, expected) in [
        (103, "newer", item(2, 103, "newer")),
        (103, "corrected", item(2, 103, "corrected")),
        (102, "of a replica that lags", item(2, 103, "corrected")),
    ] {
        api.script(Scripted {
            status: 200,
            headers: Vec::new(),
            body: json!({"data": [item(2, updated, name)], "next": null})
                .to_string()
                .into_bytes(),
        });
        project.ok(&["run"]);
        assert_eq!(project.rows("shop.items"), [item(1, 101, "read again"), expected]);
    }
    let (bodies, _) = raw(&project);
    for name in [
        "first",
        "read again",
        "newer",
        "corrected",
        "of a replica that lags",
    ] {
        assert!(bodies.contains(name), "{name}: {bodies}");
    }
}

/// What F014 promises for extraction: the store's requests are repeated with growing waits, fewer go at once (that is
/// tested beside the store), it is said once, and nothing is lost or there twice. Its metric is not part of this.
#[tokio::test(flavor = "multi_thread")]
async fn f014_a_burst_of_slow_down_while_landing_loses_nothing_and_is_said_once() {
    let server = Arc::new(s3::start().await);
    let watched = Arc::clone(&server);
    tokio::task::spawn_blocking(move || {
        let api = Api::start((0..40).map(|id| item(id, 100 + id, "good")).collect());
        let project = TestProject::with_lake(&api.base_url, ITEMS, &watched.lake("busy"));
        project.write("contracts/shop.items.odcs.yaml", ITEMS_CONTRACT);
        // Of the opening, of pages and commits.
        watched.slow_down(&[1..3, 8..10, 15..16]);
        let ran = project.ok(&["extract"]);
        let (requests, refused) = watched.requests();
        assert_eq!(refused, 5, "of {requests}");
        assert_eq!(
            ran.stderr.matches("asks to slow down").count(),
            1,
            "{}",
            ran.stderr
        );
        // Of the load.
        watched.slow_down(&[4..6, 20..21]);
        let ran = project.ok(&["transform"]);
        let (requests, refused) = watched.requests();
        assert_eq!(refused, 8, "of {requests}");
        assert_eq!(
            ran.stderr.matches("asks to slow down").count(),
            1,
            "{}",
            ran.stderr
        );
        let counts = project.sql("SELECT count(*) n, count(DISTINCT id) d FROM shop.items");
        assert_eq!(counts, [json!({"n": 40, "d": 40})]);
        let raw = project.sql("SELECT count(*) n, count(DISTINCT record) d FROM shop.items__raw");
        assert_eq!(raw, [json!({"n": 40, "d": 40})]);
    })
    .await
    .unwrap();
}
