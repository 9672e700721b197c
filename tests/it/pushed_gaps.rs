//! What was pushed and never came is asked for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    hydration::Serving,
    support::{
        answers::{Answer, Answers},
        project::TestProject,
    },
};

/// How long a test waits for a process to do what it does at once.
const PATIENCE: Duration = Duration::from_secs(60);

fn record(number: u64) -> Value {
    json!({"id": number, "sequence": number, "updated": number})
}

/// A stream `items` that is pushed and polled once a month, with these `gaps`; the API knows four records.
fn project(gaps: &str) -> (TestProject, Answers) {
    let api = Answers::start(|asked| {
        let since: u64 = asked.param("since").parse().unwrap_or(0);
        let records: Vec<Value> = (1..=4).filter(|number| *number >= since).map(record).collect();
        Answer::from(json!({ "data": records }))
    });
    (project_at(&api, gaps), api)
}

/// The same at another API, with whatever follows `gaps`.
fn project_at(api: &Answers, gaps: &str) -> TestProject {
    let mut project = TestProject::new("http://127.0.0.1:9", "\n");
    let text = format!(
        r"lake: ./lake
serve: {{ listen: '127.0.0.1:0', admin_listen: '127.0.0.1:0' }}
sources:
  shop:
    base_url: {}
    streams:
      items:
        webhook:
          scheme: shared_secret
          header: X-Secret
          secrets: {{ main: '${{env:HOOK_SECRET}}' }}
        request: {{ path: /items }}
        records: {{ first_match: ['$.data[*]', $] }}
        incremental: {{ cursor: $.updated, param: since, format: integer }}
        schedule: '@monthly'
        gaps: {gaps}
        table: {{ keys: [id], sequence_by: [updated] }}
",
        api.base_url
    );
    project.write("landfall.yml", &text);
    project.env("HOOK_SECRET", "correct horse");
    project
}

/// Runs `run --watch` until `done` says so.
pub fn watch(project: &TestProject, mut done: impl FnMut() -> bool) {
    let mut process = project.command(&["run", "--watch"]).spawn().unwrap();
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "it did not come to that");
        assert!(process.try_wait().unwrap().is_none(), "the program ended");
    }
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn r106_a_gap_in_the_numbers_of_events_is_polled_at_once() {
    let (project, api) = project("{ sequence: $.sequence, grace: 0s }");
    let server = Serving::start(&project);
    for number in [1, 2, 4] {
        let (status, answer) = server.hook("shop/items", &record(number));
        assert_eq!(status, 200, "{answer}");
    }
    server.stop();
    project.ok(&["transform"]);
    assert_eq!(project.rows("shop.items").len(), 3);
    let status = project.ok(&["status"]).stdout;
    assert!(status.contains("number 3 was never pushed"), "{status}");
    let gaps = project.run(&["gaps"]);
    assert_eq!(gaps.code, Some(1));
    assert!(gaps.stdout.contains("pushed_missing"), "{}", gaps.stdout);
    assert_eq!(api.take().len(), 0);

    let is_told = || project.ok(&["status"]).stdout.contains("never pushed");
    watch(&project, || !is_told());
    assert_eq!(api.take().len(), 1, "the schedule is a month away");
    project.ok(&["transform"]);
    let rows: Vec<Value> = (1..=4).map(record).collect();
    assert_eq!(project.rows("shop.items"), rows);

    // What came late is no gap any more, nor is what comes next in order.
    let server = Serving::start(&project);
    for number in [3, 5] {
        server.hook("shop/items", &record(number));
    }
    server.stop();
    assert!(!is_told());
    project.ok(&["run"]);
    assert_eq!(project.rows("shop.items").len(), 5);
    project.ok(&["verify"]);
}

#[test]
fn r106_silence_beyond_the_heartbeat_is_polled_at_once() {
    let (project, api) = project("{ heartbeat: 1ms }");
    project.ok(&["run"]);
    assert_eq!(api.take().len(), 1);
    let status = project.ok(&["status"]).stdout;
    assert!(
        status.contains("nothing was pushed for more than 1ms"),
        "{status}"
    );
    let mut asked = 0;
    watch(&project, || {
        asked += api.take().len();
        asked > 0
    });
}

fn push(project: &TestProject, numbers: &[u64]) {
    let server = Serving::start(project);
    for number in numbers {
        let (status, answer) = server.hook("shop/items", &record(*number));
        assert_eq!(status, 200, "{answer}");
    }
    server.stop();
}

#[test]
fn a_gap_is_not_closed_by_the_end_of_a_pass_that_began_before_it() {
    let failed = Arc::new(AtomicBool::new(false));
    let has_failed = Arc::clone(&failed);
    let api = Answers::start(move |asked| match asked.param("page") {
        "2" if !has_failed.swap(true, Relaxed) => Answer::status(500),
        "2" => Answer::from(json!({ "data": [record(2)] })),
        _ => Answer::from(json!({ "data": [record(1)], "next": "2" })),
    });
    let paginate = "{ type: cursor, from: $.next, param: page }";
    let project = project_at(
        &api,
        &format!("{{ sequence: $.sequence, grace: 0s }}\n        paginate: {paginate}"),
    );
    let text = std::fs::read_to_string(project.path().join("landfall.yml")).unwrap();
    let once = text.replace("    streams:\n", "    retry: { attempts_max: 1 }\n    streams:\n");
    project.write("landfall.yml", &once);
    assert_ne!(project.run(&["run"]).code, Some(0));
    push(&project, &[1, 2, 4]);
    let is_told = || {
        project
            .ok(&["status"])
            .stdout
            .contains("number 3 was never pushed")
    };
    assert!(is_told());
    api.take();
    project.ok(&["run"]);
    let pages: Vec<String> = api
        .take()
        .iter()
        .map(|asked| asked.param("page").to_owned())
        .collect();
    assert_eq!(pages, ["2"], "it went on where it stopped");
    assert!(is_told(), "and did not ask for what came since");
    project.ok(&["run"]);
    assert!(!is_told());
}

#[test]
fn neither_an_absurd_number_nor_a_new_count_hides_a_gap() {
    let (project, _api) = project("{ sequence: $.sequence, grace: 0s }");
    let status = |expected: &str| {
        let status = project.ok(&["status"]).stdout;
        assert!(status.contains(expected), "{expected}: {status}");
    };
    push(&project, &[1, 2, 1_000_000_000_000]);
    status("numbers 3 to 999999999999 were never pushed");
    project.ok(&["run"]);
    push(&project, &[3, 5]);
    status("number 4 was never pushed");
    project.ok(&["run"]);
    push(&project, &[1, 3]);
    status("number 2 was never pushed");
    let ran = project.ok(&["run"]).stderr;
    assert!(ran.contains("taken for a new count"), "{ran}");
    push(&project, &[4]);
    assert!(!project.ok(&["status"]).stdout.contains("never pushed"));
}
