//! The worked examples of API ingestion, as they are told: one page after the other, only what is new, within the budget.

use std::{
    fs,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use landfall::{
    clock::Clock,
    config::StreamName,
    raw::{Page, PageFacts, write::Landing},
};
use serde_json::{Value, json};

use crate::support::{
    answers::{Answer, Answers},
    project::TestProject,
};

fn order(id: i64, updated: &str) -> Value {
    json!({"id": id, "status": "open", "updated_at": updated})
}

#[test]
fn r171_example_1_orders_by_cursor_and_then_what_was_updated() {
    let orders: Vec<Value> = (1..=9)
        .map(|id| order(id, &format!("2024-05-0{id}T00:00:00Z")))
        .collect();
    let held = Arc::new(Mutex::new(orders));
    let known = Arc::clone(&held);
    // A cursor names the last order of its page; the last page has none.
    let api = Answers::start(move |asked| {
        let orders = known.lock().unwrap();
        let since = asked.param("updated_at_gte");
        let after: i64 = asked.param("cursor").parse().unwrap_or(0);
        let changed = |order: &&Value| {
            order["updated_at"].as_str().unwrap() >= since && order["id"].as_i64() > Some(after)
        };
        let mut page: Vec<Value> = orders.iter().filter(changed).take(3).cloned().collect();
        let more = page.len() == 3;
        page.truncate(2);
        let next = page.last().filter(|_| more).map(|order| order["id"].to_string());
        json!({"orders": page, "next_cursor": next}).into()
    });
    let streams = r"
      orders:
        request: { path: /orders, params: { limit: 2 } }
        records: $.orders[*]
        paginate: { type: cursor, from: $.next_cursor, param: cursor }
        incremental: { cursor: $.updated_at, param: updated_at_gte }
        table: { keys: [id], sequence_by: [updated_at] }
";
    let project = TestProject::new(&api.base_url, streams);
    project.ok(&["run"]);
    let cursors: Vec<String> = api
        .take()
        .iter()
        .map(|asked| asked.param("cursor").to_owned())
        .collect();
    assert_eq!(cursors, ["", "2", "4", "6", "8"]);
    assert_eq!(project.rows("shop.orders").len(), 9);

    held.lock().unwrap()[3] = json!({"id": 4, "status": "paid", "updated_at": "2024-05-10T00:00:00Z"});
    project.ok(&["run"]);
    let asked = api.take();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].param("updated_at_gte"), "2024-05-09T00:00:00Z");
    let paid = project.sql("SELECT id FROM shop.orders WHERE status = 'paid'");
    assert_eq!(paid, [json!({"id": 4})]);
    assert_eq!(project.rows("shop.orders").len(), 9);
}

#[test]
fn r171_example_2_since_id_while_records_are_added() {
    // Two records are added before each page; none has a number that was passed.
    let api = Answers::start(|asked| {
        let since: usize = asked.param("since_id").parse().unwrap_or(0);
        let there = (7 + 2 * asked.number).min(15);
        let page = (since + 1..=there).take(3);
        json!(
            page.map(|id| json!({"id": id, "name": format!("n{id}")}))
                .collect::<Vec<_>>()
        )
        .into()
    });
    let streams = r"
      events:
        request: { path: /events, params: { limit: 3 } }
        paginate: { type: keyset, key: $.id, param: since_id }
        table: { keys: [id] }
";
    let project = TestProject::new(&api.base_url, streams);
    project.ok(&["run"]);
    let asked: Vec<String> = api
        .take()
        .iter()
        .map(|asked| asked.param("since_id").to_owned())
        .collect();
    assert_eq!(asked, ["", "3", "6", "9", "12", "15"]);
    let found = project.sql("SELECT count(*) n, count(DISTINCT id) d, max(id) m FROM shop.events");
    assert_eq!(found, [json!({"n": 15, "d": 15, "m": 15})]);
}

/// Lands one webhook delivery in the raw log of `shop.items`, as a receiver does.
fn deliver(project: &TestProject, record: &Value) {
    let lake = landfall::config::read::load(project.path()).unwrap().project.lake;
    let body = Bytes::from(json!({ "data": [record] }).to_string());
    let now = Clock::system().now();
    let facts = PageFacts {
        event_id: Some(format!("evt-{}-{}", record["id"], record["updated"])),
        ..PageFacts::new(now, "POST", "/v1/streams/shop.items", 202)
    };
    let landed = async {
        let store = landfall::raw::store::open(&lake).unwrap();
        let stream = StreamName::parse("shop.items").unwrap();
        let mut landing = Landing::open(
            store,
            stream,
            Clock::system(),
            "hook".to_owned(),
            "none".to_owned(),
        )
        .await
        .unwrap();
        landing.append(Page { body, facts }).await.unwrap();
        landing.commit_push(Some(1)).await.unwrap();
    };
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(landed);
}

#[test]
fn r171_example_3_webhooks_for_freshness_and_polls_for_completeness() {
    let item = |id: i64, updated: i64, name: &str| json!({"id": id, "updated": updated, "name": name});
    let held = Arc::new(Mutex::new(vec![item(1, 10, "a"), item(2, 11, "b")]));
    let known = Arc::clone(&held);
    let api = Answers::start(move |asked| {
        let since: i64 = asked.param("since").parse().unwrap_or(0);
        let items = known.lock().unwrap();
        let data: Vec<&Value> = items
            .iter()
            .filter(|item| item["updated"].as_i64() >= Some(since))
            .collect();
        json!({"data": data, "next": null}).into()
    });
    let project = TestProject::items(&api.base_url);
    project.ok(&["run"]);
    *held.lock().unwrap() = vec![item(1, 30, "a3"), item(2, 21, "b2"), item(3, 22, "c")];
    // The newest arrives before the one it replaces, twice, and the events of 2 and 3 are lost on the way.
    for event in [item(1, 30, "a3"), item(1, 20, "a2"), item(1, 30, "a3")] {
        deliver(&project, &event);
    }
    project.ok(&["transform"]);
    let names = || project.sql("SELECT id, name FROM shop.items ORDER BY id");
    assert_eq!(
        names(),
        [json!({"id": 1, "name": "a3"}), json!({"id": 2, "name": "b"})]
    );
    // The poll goes on from its own watermark, which no webhook has moved.
    api.take();
    project.ok(&["run"]);
    assert_eq!(api.take()[0].param("since"), "11");
    assert_eq!(
        names(),
        [
            json!({"id": 1, "name": "a3"}),
            json!({"id": 2, "name": "b2"}),
            json!({"id": 3, "name": "c"})
        ]
    );
}

#[test]
fn r172_what_the_readme_says_the_demo_builds_is_built() {
    let readme = include_str!("../../README.md");
    let (_, marked) = readme.split_once("<!-- demo:build -->").unwrap();
    let commands: Vec<&str> = marked
        .split("```")
        .nth(1)
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("landfall "))
        .collect();
    assert_eq!(commands.len(), 6);
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("landfall-demo");
    let landfall = env!("CARGO_BIN_EXE_landfall");
    let made = Command::new(landfall).arg("demo").arg(&folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for command in commands {
        // As a person types it: the shell splits, unquotes and drops the comment.
        let line = format!("'{landfall}' {command}");
        let ran = Command::new("bash")
            .args(["-euc", &line])
            .current_dir(&folder)
            .output()
            .unwrap();
        let (out, err) = (
            String::from_utf8_lossy(&ran.stdout),
            String::from_utf8_lossy(&ran.stderr),
        );
        assert!(
            ran.status.success() && out.lines().count() > 1,
            "{command}\n{out}{err}"
        );
    }
}

#[test]
fn r171_exercise_of_1000_requests_an_hour_in_small_is_never_refused() {
    const BUDGET: usize = 20;
    const WINDOW: Duration = Duration::from_millis(400);
    // Requests arrive a little earlier or later than they are sent.
    const JITTER: Duration = Duration::from_millis(60);
    let times = Arc::new(Mutex::new(Vec::<Instant>::new()));
    let seen = Arc::clone(&times);
    let api = Answers::start(move |asked| {
        let mut times = seen.lock().unwrap();
        let now = Instant::now();
        let recent = times.iter().filter(|time| now - **time < WINDOW - JITTER).count();
        times.push(now);
        if recent >= BUDGET {
            return Answer::status(429);
        }
        let page: i64 = asked.param("page").parse().unwrap();
        let records: Vec<Value> = (0..2).map(|n| json!({"id": page * 2 + n})).collect();
        json!({"data": if page <= 20 { records } else { Vec::new() }}).into()
    });
    let stream = |name: &str| {
        format!(
            "      {name}:\n        request: {{ path: /{name} }}\n        records: $.data[*]\n        paginate: {{ type: page_number }}\n        table: {{ keys: [id] }}\n"
        )
    };
    let streams: String = ["orders", "customers", "refunds"].map(stream).concat();
    let project = TestProject::new(&api.base_url, &streams);
    let text = fs::read_to_string(project.path().join("landfall.yml")).unwrap();
    let budget = format!(
        "    rate_limit: {{ requests: {BUDGET}, per: {}ms }}\n    streams:",
        WINDOW.as_millis()
    );
    project.write("landfall.yml", &text.replace("    streams:", &budget));
    let begun = Instant::now();
    let ran = project.ok(&["extract"]);
    let took = begun.elapsed();
    assert!(!ran.stderr.contains("429"), "{}", ran.stderr);
    assert_eq!(api.take().len(), 63);
    // Four windows of requests: no faster than the budget, and with little of it left over.
    assert!(took >= 3 * (WINDOW - JITTER) && took < 12 * WINDOW, "{took:?}");
    project.ok(&["transform"]);
    for table in ["orders", "customers", "refunds"] {
        assert_eq!(project.rows(&format!("shop.{table}")).len(), 40);
    }
}
