//! Kill the process at every named point, run again, and find the same tables.

use std::{
    collections::BTreeMap,
    process::Stdio,
    time::{Duration, Instant},
};

use rand::RngExt as _;
use serde_json::{Value, json};

use crate::support::{
    api::Api,
    project::{ITEMS, ITEMS_CONTRACT, TestProject},
    s3,
};

/// Every point a run passes. A run dies at its `skip`-th passage.
const POINTS: [(&str, u32); 12] = [
    ("extract::page_appended", 0),
    ("extract::page_appended", 3),
    ("raw::before_put", 1),
    ("raw::mid_put", 1),
    ("raw::after_put", 0),
    ("raw::after_put", 1),
    ("raw::before_commit", 1),
    ("raw::after_commit", 0),
    ("raw::after_commit", 1),
    ("transform::after_quarantine", 0),
    ("transform::before_commit", 0),
    ("transform::after_commit", 0),
];

fn item(id: i64, updated: i64) -> Value {
    json!({"id": id, "updated": updated, "name": format!("n{id}-{updated}")})
}

/// 28 good records and one broken one in pages of five.
fn first_day() -> Vec<Value> {
    let mut records: Vec<Value> = (0..28).map(|id| item(id, 100 + id)).collect();
    records.insert(17, json!({"id": "x", "updated": 117, "name": "broken"}));
    records
}

/// Updates, a deletion that carries only what it must, and a new record.
fn second_day(api: &Api) {
    api.upsert(vec![
        item(3, 200),
        item(9, 201),
        json!({"id": 5, "updated": 202, "deleted": true}),
        item(40, 203),
    ]);
}

fn oracle(days: u32) -> BTreeMap<i64, (i64, bool)> {
    let mut rows: BTreeMap<i64, (i64, bool)> = (0..28).map(|id| (id, (100 + id, false))).collect();
    if days > 1 {
        rows.extend([
            (3, (200, false)),
            (9, (201, false)),
            (5, (202, true)),
            (40, (203, false)),
        ]);
    }
    rows
}

fn table(project: &TestProject) -> Vec<(i64, (i64, bool))> {
    project
        .sql("SELECT id, updated, _deleted FROM shop.items ORDER BY id, updated")
        .iter()
        .map(|row| {
            let number = |name: &str| row[name].as_i64().unwrap();
            (
                number("id"),
                (number("updated"), row["_deleted"].as_bool().unwrap()),
            )
        })
        .collect()
}

fn assert_whole(project: &TestProject, days: u32, context: &str) {
    let expected: Vec<_> = oracle(days).into_iter().collect();
    assert_eq!(table(project), expected, "{context}");
    // Everything read is accounted for, and no row is without its raw record.
    let sums = project.sql(
        "SELECT sum(records_read) r, sum(merged) m, sum(superseded) s, sum(quarantined) q FROM landfall.loads",
    );
    let sum = |name: &str| sums[0][name].as_i64().unwrap();
    assert_eq!(sum("r"), sum("m") + sum("s") + sum("q"), "{context}");
    let raw = project.sql("SELECT count(*) n FROM shop.items__raw");
    assert_eq!(raw[0]["n"].as_i64().unwrap(), sum("r"), "{context}");
    let orphans = project.sql(
        "SELECT count(*) n FROM shop.items t LEFT JOIN shop.items__raw r ON t._lf_batch = r._lf_batch \
         AND t._lf_page = r._lf_page AND t._lf_record = r._lf_record WHERE r.record IS NULL",
    );
    assert_eq!(orphans[0]["n"], 0, "{context}");
    // The broken record is in the quarantine once for each time it is in raw.
    let quarantined = project.sql("SELECT count(*) n FROM shop.items__quarantine");
    let broken = project.sql("SELECT count(*) n FROM shop.items__raw WHERE record LIKE '%broken%'");
    assert_eq!(quarantined[0]["n"], broken[0]["n"], "{context}");
}

#[test]
fn r060_r065_r166_f001_f002_f003_f004_killed_at_every_point_the_rerun_gives_the_same_tables() {
    for point in POINTS {
        dies_and_recovers(point, "lake: ./lake");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r007_r166_killed_at_points_over_s3_the_rerun_gives_the_same_tables() {
    let server = s3::start().await;
    let on_s3 = [
        ("raw::after_put", 1),
        ("raw::before_commit", 1),
        ("raw::after_commit", 0),
        ("transform::after_quarantine", 0),
        ("transform::before_commit", 0),
        ("transform::after_commit", 0),
    ];
    for (number, point) in on_s3.into_iter().enumerate() {
        let lake = server.lake(&format!("lake-{number}"));
        tokio::task::spawn_blocking(move || dies_and_recovers(point, &lake))
            .await
            .unwrap();
    }
}

fn dies_and_recovers((point, skip): (&str, u32), lake: &str) {
    let api = Api::start(first_day());
    let project = TestProject::with_lake(&api.base_url, ITEMS, lake);
    project.write("contracts/shop.items.odcs.yaml", ITEMS_CONTRACT);
    let armed = match skip {
        0 => format!("{point}=return"),
        skip => format!("{point}={skip}*off->return"),
    };

    let killed = project.run_armed(&["run"], &armed);
    assert_eq!(
        killed.code, None,
        "{armed} must kill the first run\n{}",
        killed.stderr
    );
    api.take_requests();
    project.ok(&["run"]);
    assert_whole(&project, 1, &format!("{armed} on day one"));
    if (point, skip) == ("raw::after_commit", 0) {
        let first = api.take_requests().remove(0);
        assert!(
            first.contains("cursor=109-9"),
            "resumes behind the committed pages: {first}"
        );
    }

    second_day(&api);
    // A day with one page passes each point less often; a run that survives is as good as one that does not.
    project.run_armed(&["run"], &armed);
    project.ok(&["run"]);
    assert_whole(&project, 2, &format!("{armed} on day two"));
}

#[test]
fn r006_r070_running_again_changes_nothing() {
    let api = Api::start(first_day());
    let project = TestProject::items(&api.base_url);
    project.ok(&["run"]);
    let rows = project.sql("SELECT * FROM shop.items ORDER BY id");
    let files = project.files("lake/tables");
    for _ in 0..3 {
        project.ok(&["transform"]);
    }
    assert_eq!(project.sql("SELECT * FROM shop.items ORDER BY id"), rows);
    assert_eq!(
        project.files("lake/tables"),
        files,
        "nothing to load is nothing to commit"
    );
}

#[test]
fn r061_f033_a_window_that_fails_keeps_the_old_watermark_and_the_landed_pages() {
    let api = Api::start(first_day());
    let project = TestProject::items(&api.base_url);
    // Three pages come, then the API goes away for good.
    api.script_after(3, 503);
    let ran = project.run(&["extract"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("503"), "{}", ran.stderr);
    api.heal();
    api.take_requests();
    project.ok(&["run"]);
    assert!(api.take_requests()[0].contains("cursor=114-14"));
    assert_whole(&project, 1, "after the outage");
}

#[test]
fn f136_transforms_at_the_same_time_load_every_batch_once() {
    let api = Api::start(first_day());
    let project = TestProject::items(&api.base_url);
    project.ok(&["extract"]);
    second_day(&api);
    project.ok(&["extract"]);
    let children: Vec<_> = (0..4)
        .map(|_| {
            let mut command = project.command(&["transform"]);
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut done = 0;
    for child in children {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => done += 1,
            code => assert!(
                code == Some(1) && said.contains("another transform"),
                "{code:?} {said}"
            ),
        }
    }
    assert!(done > 0);
    assert_whole(&project, 2, "four at once");
}

#[test]
fn f003_f004_rows_of_a_load_that_died_are_gone_after_the_next() {
    let api = Api::start(first_day());
    let project = TestProject::items(&api.base_url);
    project.ok(&["extract"]);
    for _ in 0..3 {
        let killed = project.run_armed(&["transform"], "transform::before_commit=return");
        assert_eq!(killed.code, None, "{}", killed.stderr);
        // Three loads have written their side rows; nobody sees them.
        assert!(project.sql("SELECT * FROM landfall.loads").is_empty());
    }
    project.ok(&["transform"]);
    assert_eq!(project.sql("SELECT * FROM landfall.loads").len(), 1);
    assert_eq!(project.sql("SELECT * FROM shop.items__quarantine").len(), 1);
    assert_whole(&project, 1, "after three dead loads");
}

/// Rounds of the random killing; many more are run by hand.
const KILLS_DEFAULT: u32 = 12;

#[test]
fn r060_f001_f002_f003_f004_killed_at_random_moments_the_rerun_gives_the_same_tables() {
    let rounds = std::env::var("LANDFALL_TEST_KILLS").map_or(KILLS_DEFAULT, |text| text.parse().unwrap());
    let mut killed = 0;
    for round in 0..rounds {
        let api = Api::start(first_day());
        let project = TestProject::items(&api.base_url);
        let mut survived = 0;
        for days in [1, 2] {
            if days == 2 {
                second_day(&api);
            }
            for _ in 0..3 {
                let micros = rand::rng().random_range(0..250_000_u64);
                let hit = kill_after(&project, Duration::from_micros(micros));
                survived += u32::from(!hit);
                killed += u32::from(hit && !project.files("lake/raw").is_empty());
            }
            project.ok(&["run"]);
            assert_whole(
                &project,
                days,
                &format!("round {round}, {survived} runs survived"),
            );
        }
    }
    assert!(killed > 0, "no run was hit at work");
}

/// Starts a run and kills it after `time`; false if it was done before.
fn kill_after(project: &TestProject, time: Duration) -> bool {
    let mut command = project.command(&["run"]);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    // The moment is the point here, so this spins instead of waiting for an event.
    while begun.elapsed() < time {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    child.wait().unwrap().code().is_none()
}
