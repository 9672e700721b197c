//! What the data did that the contract did not say: told with evidence, acknowledged, and forgotten once it is agreed to.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde_json::{Value, json};

use crate::support::{
    answers::{Answer, Answers},
    api::Api,
    project::{ITEMS, TestProject, items_contract},
    python::node_modules,
};

/// What GitHub sends to webhooks, in the versions of its server that are around.
const EXAMPLES: &str = "@octokit/webhooks-examples@7.6.1";

const COLUMNS: &str = "
      - { name: id, logicalType: integer, required: true, primaryKey: true }
      - { name: updated, logicalType: integer, required: true }
      - { name: name, logicalType: string }
      - { name: note, logicalType: string }
      - { name: day, logicalType: string }
      - { name: phone, logicalType: string, classification: restricted }
      - { name: deleted, logicalType: boolean }
      - { name: size, logicalType: integer }
      - { name: status, logicalType: string, customProperties: [{ property: enum, value: [new, paid] }] }
";

fn item(id: i64) -> Value {
    json!({
        "id": id, "updated": id, "name": format!("n{id}"), "note": "as always", "day": "2026-01-02",
        "phone": "+47 22 00 00 00", "size": 3, "status": "new", "deleted": false
    })
}

/// 30 records as agreed, and 30 later ones that are not.
fn drifted() -> (Api, TestProject) {
    let api = Api::start((0..30).map(item).collect());
    let project = TestProject::new(&api.base_url, ITEMS);
    project.write(
        "contracts/shop.items.odcs.yaml",
        &items_contract("1.0.0", COLUMNS),
    );
    project.ok(&["run"]);
    // The last of the first ones comes again with them: the bounds of a window are inclusive.
    api.upsert((29..30).chain(100..130).map(changed).collect());
    project.ok(&["run"]);
    (api, project)
}

/// A new field, a removed one, another type, a new value of a list, names that are gone, moments for dates.
fn changed(id: i64) -> Value {
    let mut record = item(id);
    let members = record.as_object_mut().unwrap();
    members.remove("note");
    members.insert("day".to_owned(), json!("2026-01-02T10:00:00Z"));
    members.insert(
        "remark".to_owned(),
        json!({"text": "<script>alert(1)</script>", "by": "jane@example.com"}),
    );
    if id % 2 == 0 {
        members.insert("name".to_owned(), Value::Null);
    }
    match id {
        103 => members.insert("size".to_owned(), json!("large")),
        105 => members.insert("status".to_owned(), json!("parked")),
        107 => members.insert("phone".to_owned(), json!(4_722_000_000_i64)),
        _ => None,
    };
    record
}

fn told(project: &TestProject, arguments: &[&str]) -> BTreeMap<String, Value> {
    let arguments = [&["drift", "--format", "json"], arguments].concat();
    let lines = project.ok(&arguments).stdout;
    let changes = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let key = |change: &Value| {
        format!(
            "{} {}",
            change["kind"].as_str().unwrap(),
            change["path"].as_str().unwrap()
        )
    };
    changes.map(|change| (key(&change), change)).collect()
}

#[test]
fn r009_r117_every_change_is_told_with_first_seen_counts_and_samples() {
    let (_api, project) = drifted();
    let changes = told(&project, &[]);
    let names: Vec<&str> = changes.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "enum_grown status",
            "format_changed day",
            "missing note",
            "null_rate_jumped name",
            "type_changed phone",
            "type_changed size",
            "unknown remark",
            "unknown remark.by",
            "unknown remark.text",
        ]
    );
    let size = &changes["type_changed size"];
    assert_eq!(size["severity"], "breaking");
    assert_eq!(size["effect"], "quarantined");
    assert_eq!((&size["seen"], &size["records"]), (&json!(1), &json!(31)));
    assert_eq!(size["samples"][0]["value"], "\"large\"");
    let at = size["samples"][0]["at"].as_str().unwrap();
    let shown = project.ok(&["quarantine", "show", "shop.items", at]).stdout;
    assert!(shown.contains("large"), "{shown}");
    assert_eq!(changes["enum_grown status"]["samples"][0]["value"], "\"parked\"");
    assert_eq!(changes["missing note"]["severity"], "at_risk");
    assert_eq!(changes["missing note"]["renamed_to"], "remark");
    assert_eq!(changes["unknown remark"]["severity"], "informational");
    assert_eq!(changes["null_rate_jumped name"]["found"], "48 % without a value");
    assert_eq!(changes["format_changed day"]["expected"], "date");
    let first = project.sql("SELECT max(started_at) AS at FROM landfall.loads");
    let first = first[0]["at"].as_str().unwrap();
    for (name, change) in &changes {
        assert_eq!(
            change["first_seen"].as_str().unwrap()[..19],
            first[..19],
            "{name}"
        );
        assert_eq!(change["contract_first"], "1.0.0");
        assert_eq!(change["state"], "open");
    }

    let text = project.ok(&["drift"]).stdout;
    for word in [
        "shop.items: 9 open: 3 breaking",
        "parked",
        "large",
        "landfall quarantine show",
        "landfall drift ack",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn r165_f153_what_is_private_is_in_no_report() {
    let (_api, project) = drifted();
    let changes = told(&project, &["--all"]);
    assert_eq!(changes["type_changed phone"]["samples"][0]["value"], "****");
    assert_eq!(changes["unknown remark.by"]["samples"][0]["value"], "****");
    let file = project.path().join("drift.html");
    project.ok(&["drift", "--html", file.to_str().unwrap()]);
    let html = fs::read_to_string(file).unwrap();
    let reports = [html, project.ok(&["drift"]).stdout, format!("{changes:?}")];
    for report in &reports {
        assert!(
            !report.contains("4722000000") && !report.contains("jane@"),
            "{report}"
        );
    }
    // Raw has it: nothing is lost.
    let raw =
        project.sql("SELECT record FROM shop.items__raw WHERE record LIKE '%jane@example.com%' LIMIT 1");
    assert_eq!(raw.len(), 1);
    assert!(reports[0].contains("&lt;script&gt;alert(1)") && !reports[0].contains("<script"));
}

#[test]
fn r142_f165_a_known_change_is_silent_until_it_shows_something_else() {
    let (api, project) = drifted();
    assert_eq!(project.run(&["drift", "--fail-on", "breaking"]).code, Some(1));
    project.ok(&["drift", "ack", "shop.items", "--note", "the vendor knows"]);
    assert!(told(&project, &[]).is_empty());
    project.ok(&["drift", "--fail-on", "open"]);
    let all = told(&project, &["--all"]);
    assert_eq!(all["type_changed size"]["state"], "acknowledged");
    assert_eq!(all["type_changed size"]["note"], "the vendor knows");

    // Gone for a load, and back: the same alert, counted.
    let good = |id: i64| {
        let mut record = changed(id);
        record["size"] = json!(3);
        record
    };
    api.upsert((201..221).step_by(2).map(good).collect());
    project.ok(&["run"]);
    let mut bad = good(303);
    bad["size"] = json!("huge");
    api.upsert(vec![bad]);
    project.ok(&["run"]);
    assert!(told(&project, &[]).is_empty());
    let size = &told(&project, &["--all"])["type_changed size"];
    assert_eq!((&size["times"], &size["loads"]), (&json!(2), &json!(2)));

    let mut other = good(403);
    other["size"] = json!(true);
    other["status"] = json!("lost");
    api.upsert(vec![other]);
    project.ok(&["run"]);
    let open: Vec<String> = told(&project, &[]).into_keys().collect();
    assert_eq!(open, ["enum_grown status", "type_changed size"]);

    let ran = project.run(&["drift", "ack", "shop.items", "nowhere"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("size (type_changed)"), "{}", ran.stderr);
}

#[test]
fn f165_a_new_version_resolves_only_what_it_speaks_of() {
    let (api, project) = drifted();
    let file = "contracts/shop.items.odcs.yaml";
    // Another column came, as one does where contracts evolve by themselves.
    let extra = "      - { name: extra, logicalType: string }\n      - { name: size,";
    let second = items_contract("1.0.0", COLUMNS)
        .replace("version: 1.0.0", "version: 1.1.0")
        .replace("      - { name: size,", extra);
    project.write(file, &second);
    api.upsert((200..230).map(item).collect());
    project.ok(&["run"]);
    let changes = told(&project, &["--all"]);
    for name in ["type_changed size", "enum_grown status"] {
        assert_eq!(changes[name]["state"], "open", "{name}");
        assert_eq!(changes[name]["contract_last"], "1.0.0", "{name}");
    }
    let is_proposed = |project: &TestProject| {
        let patch = project.ok(&["contract", "patch", "shop.items"]).stdout;
        let mut new = patch.lines().filter(|line| line.starts_with('+'));
        new.any(|line| line.contains("parked"))
    };
    assert!(is_proposed(&project));

    // A version that takes it: not loaded by yet, but no patch is needed any more.
    let third = second
        .replace("version: 1.1.0", "version: 1.2.0")
        .replace("[new, paid]", "[new, paid, parked]");
    project.write(file, &third);
    assert!(!is_proposed(&project));
    assert_eq!(told(&project, &["--all"])["enum_grown status"]["state"], "open");
    api.upsert((300..330).map(item).collect());
    project.ok(&["run"]);
    let changes = told(&project, &["--all"]);
    assert_eq!(changes["enum_grown status"]["state"], "resolved");
    assert_eq!(changes["type_changed size"]["state"], "open");
}

#[test]
fn a_release_is_no_load_of_the_report() {
    let (_api, project) = drifted();
    let loads = |project: &TestProject| {
        let status = project.ok(&["status", "--format", "json"]).stdout;
        let stream: Value = serde_json::from_str(status.lines().next().unwrap()).unwrap();
        stream["loads"].clone()
    };
    let before = loads(&project);
    let file = "contracts/shop.items.odcs.yaml";
    let known = items_contract("1.0.0", COLUMNS).replace("[new, paid]", "[new, paid, parked]");
    project.write(file, &known);
    project.ok(&["quarantine", "release", "shop.items", "--class", "enum"]);
    let released = project.sql("SELECT released FROM landfall.loads WHERE batch_to < 0");
    assert_eq!(released.len(), 1, "{released:?}");
    assert_eq!(loads(&project), before);
    let html = project.path().join("drift.html");
    project.ok(&["drift", "--html", html.to_str().unwrap()]);
    let html = fs::read_to_string(html).unwrap();
    assert!(html.contains("2 loads looked at"), "{html}");
    // The bars of each change are still there.
    assert!(html.contains("class=\"hit\""), "{html}");
}

#[test]
fn r122_what_the_server_announces_is_told() {
    let server = Answers::start(|asked| {
        let mut answer = Answer::from(json!({"data": [{"id": asked.number}], "next": null}));
        if asked.number > 0 {
            answer.headers.push(("deprecation", "@1767225600".to_owned()));
            answer
                .headers
                .push(("sunset", "Thu, 31 Dec 2026 23:59:59 GMT".to_owned()));
        }
        answer
    });
    let project = TestProject::new(
        &server.base_url,
        "      items: { request: { path: /items }, records: \"$.data[*]\", table: { keys: [id] } }\n",
    );
    project.ok(&["run"]);
    assert!(told(&project, &[]).is_empty());
    project.ok(&["run"]);
    let changes = told(&project, &[]);
    assert_eq!(changes["sunset "]["found"], "Thu, 31 Dec 2026 23:59:59 GMT");
    assert_eq!(changes["deprecated "]["severity"], "at_risk");
}

/// Every path of `value`, as the report writes it.
fn paths(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                found.insert(path.clone());
                paths(member, &path, found);
            }
        }
        Value::Array(elements) => {
            let path = format!("{path}[]");
            for element in elements {
                found.insert(path.clone());
                paths(element, &path, found);
            }
        }
        _ => {}
    }
}

#[test]
fn r009_r117_versions_of_github_differ_where_the_report_says() {
    let dir = node_modules(EXAMPLES).join("@octokit/webhooks-examples");
    let releases = |version: &str| -> Vec<Value> {
        let text = fs::read_to_string(dir.join(version).join("index.json")).unwrap();
        let events: Vec<Value> = serde_json::from_str(&text).unwrap();
        let event = events.iter().find(|event| event["name"] == "release").unwrap();
        event["examples"].as_array().unwrap().clone()
    };
    let (old, new) = (releases("ghes-31"), releases("api.github.com"));
    let bodies = [json!({"data": old}), json!({"data": new})];
    let server = Answers::start(move |asked| Answer::from(bodies[asked.number.min(1)].clone()));
    let project = TestProject::new(
        &server.base_url,
        "      items: { request: { path: /hooks }, records: \"$.data[*]\", table: { scd_type: append } }\n",
    );
    project.ok(&["run"]);
    // A draft would take what is new by itself.
    let contract = project.path().join("contracts/shop.items.odcs.yaml");
    let text = fs::read_to_string(&contract).unwrap();
    fs::write(contract, text.replace("status: draft", "status: active")).unwrap();
    project.ok(&["run"]);

    let (mut before, mut after) = (BTreeSet::new(), BTreeSet::new());
    old.iter().for_each(|record| paths(record, "", &mut before));
    new.iter().for_each(|record| paths(record, "", &mut after));
    let changes = told(&project, &[]);
    let of_kind = |wanted: &str| -> BTreeSet<String> {
        let paths = changes.values().filter(|change| change["kind"] == wanted);
        paths
            .map(|change| change["path"].as_str().unwrap().to_owned())
            .collect()
    };
    // What was an empty list or null in the only old example has no type, so what is in it now is no news.
    let is_news = |path: &&String| {
        let parent = path.rsplit_once('.').map_or("", |(parent, _)| parent);
        !before.contains(*path)
            && (parent.is_empty() || of_kind("unknown").contains(parent) || {
                let member = format!("{parent}.");
                before.iter().any(|known| known.starts_with(&member))
            })
    };
    let news: BTreeSet<String> = after.iter().filter(is_news).cloned().collect();
    assert!(
        news.contains("release.reactions.total_count") && news.len() > 15,
        "{news:?}"
    );
    assert_eq!(of_kind("unknown"), news);
    let gone: BTreeSet<String> = of_kind("missing")
        .union(&of_kind("required_missing"))
        .cloned()
        .collect();
    assert!(gone.contains("enterprise"), "{gone:?}");
    let records = project.sql("SELECT sum(records_read) AS n FROM landfall.loads");
    assert_eq!(records, [json!({"n": old.len() + new.len()})]);
}
