//! The main job through the real program: land, judge, merge, query, report.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    api::{Api, Scripted},
    objects::holds,
    project::{ITEMS, ITEMS_CONTRACT, TestProject, on_lake},
    s3,
};

fn item(id: i64, updated: i64) -> Value {
    json!({"id": id, "updated": updated, "name": format!("n{id}")})
}

#[test]
fn r004_r005_r120_one_bad_record_in_a_thousand_is_set_aside_with_its_evidence() {
    let mut records: Vec<Value> = (0..1000).map(|id| item(id, id)).collect();
    records[500] = json!({"id": 500, "updated": 500, "name": {"first": "n"}});
    let api = Api::start(records);
    let project = TestProject::items(&api.base_url);

    let ran = project.ok(&["run"]);
    assert!(
        ran.stderr.contains("999 merged") && ran.stderr.contains("1 quarantined"),
        "{}",
        ran.stderr
    );
    assert_eq!(
        project.sql("SELECT count(*) n FROM shop.items"),
        [json!({"n": 999})]
    );
    let row = &project.sql("SELECT * FROM shop.items__quarantine")[0];
    assert_eq!(row["class"], "type_mismatch");
    assert_eq!(row["path"], "name");
    assert_eq!(
        serde_json::from_str::<Value>(row["record"].as_str().unwrap()).unwrap()["id"],
        500
    );
    assert!(
        project
            .path()
            .join("lake")
            .join(row["object"].as_str().unwrap())
            .exists()
    );

    assert_eq!(
        project.run(&["transform", "--max-quarantine", "0"]).code,
        Some(0),
        "nothing new, nothing over"
    );
    api.push(vec![json!({"id": null, "updated": 2000, "name": "x"})]);
    assert_eq!(project.run(&["run", "--max-quarantine", "0"]).code, Some(4));
}

#[test]
fn r001_the_transform_needs_no_network_and_extraction_no_table() {
    let api = Api::start((0..7).map(|id| item(id, id)).collect());
    let project = TestProject::items(&api.base_url);
    project.ok(&["extract"]);
    assert!(project.files("lake/tables").is_empty());
    drop(api);
    project.ok(&["transform"]);
    assert_eq!(
        project.sql("SELECT count(*) n FROM shop.items"),
        [json!({"n": 7})]
    );
}

#[test]
fn r002_objects_are_partitioned_by_stream_and_hour() {
    let api = Api::start(vec![item(1, 1)]);
    let project = TestProject::items(&api.base_url);
    project.ok(&["extract"]);
    let objects = project.files("lake/raw/shop/items");
    let bodies: Vec<_> = objects
        .iter()
        .filter(|path| path.to_string_lossy().ends_with(".jsonl.zst"))
        .collect();
    assert_eq!(bodies.len(), 1);
    let key = bodies[0]
        .strip_prefix(project.path())
        .unwrap()
        .to_string_lossy()
        .into_owned();
    let pattern = r"^lake/raw/shop/items/dt=\d{4}-\d\d-\d\d/hr=\d\d/[0-9a-f-]{36}-0000\.jsonl\.zst$";
    assert!(regex::Regex::new(pattern).unwrap().is_match(&key), "{key}");
}

#[test]
fn r003_r122_raw_takes_any_bytes_and_lands_on_while_the_transform_refuses() {
    let api = Api::start(vec![item(1, 1), json!({"id": 2, "updated": 2, "name": 7})]);
    let streams = format!(
        "{}        drift: {{ on_mismatch: fail }}\n",
        ITEMS.trim_start_matches('\n')
    );
    let project = TestProject::new(&api.base_url, &streams);
    project.write(
        "contracts/shop.items.odcs.yaml",
        crate::support::project::ITEMS_CONTRACT,
    );

    let ran = project.run(&["run"]);
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    assert_eq!(
        project.run(&["sql", "SELECT * FROM shop.items"]).code,
        Some(0),
        "an empty table stands"
    );
    api.push(vec![item(3, 3)]);
    project.ok(&["extract"]);
    let raw = project.sql("SELECT record FROM shop.items__raw WHERE record LIKE '%\"name\":7%'");
    assert!(!raw.is_empty(), "the misfit is in raw");

    // A contract that takes it heals history without one request.
    let contract = crate::support::project::ITEMS_CONTRACT.replace(
        "{ name: name, logicalType: string, required: true }",
        "{ name: name, logicalType: string, physicalType: json }",
    );
    project.write("contracts/shop.items.odcs.yaml", &contract);
    drop(api);
    project.ok(&["transform"]);
    assert_eq!(
        project.sql("SELECT count(*) n FROM shop.items"),
        [json!({"n": 3})]
    );
}

#[test]
fn r008_sql_reads_tables_raw_quarantine_and_drift_in_every_format() {
    let api = Api::start(vec![
        item(1, 1),
        json!({"id": "?", "updated": 2, "name": "x", "extra": true}),
    ]);
    let project = TestProject::items(&api.base_url);
    project.ok(&["run"]);
    for (table, rows) in [
        ("shop.items", 1),
        ("shop.items__raw", 2),
        ("shop.items__quarantine", 1),
        ("landfall.loads", 1),
    ] {
        assert_eq!(
            project.sql(&format!("SELECT * FROM {table}")).len(),
            rows,
            "{table}"
        );
    }
    assert!(!project.sql("SELECT * FROM landfall.drift").is_empty());
    let csv = project
        .ok(&["sql", "--format", "csv", "SELECT id, name FROM shop.items"])
        .stdout;
    assert_eq!(csv, "id,name\n1,n1\n");
    let text = project.ok(&["sql", "SELECT id FROM shop.items"]).stdout;
    assert_eq!(text, "id\n──\n 1\n");
    for statement in [
        "DROP TABLE shop.items",
        "INSERT INTO shop.items VALUES (1)",
        "CREATE TABLE x AS SELECT 1",
    ] {
        let ran = project.run(&["sql", statement]);
        assert_ne!(ran.code, Some(0), "{statement}");
    }
}

#[test]
fn r009_r114_r115_r117_drift_lists_what_the_contract_does_not_say() {
    let api = Api::start((0..4).map(|id| item(id, id)).collect());
    let project = TestProject::items(&api.base_url);
    project.ok(&["run"]);
    api.upsert(vec![
        json!({"id": 10, "updated": 10, "name": "a", "to": {"city": "Oslo"}}),
        json!({"id": 11, "updated": 11, "name": "b", "to": {"city": "Rome"}}),
        json!({"id": "12", "updated": 12, "name": "c"}),
        json!({"id": 13, "updated": 13}),
    ]);
    project.ok(&["run"]);
    let drift = project.sql(
        "SELECT kind, path, sum(count) n FROM landfall.drift WHERE batch_from > 0 GROUP BY kind, path ORDER BY path, kind",
    );
    let told: Vec<String> = drift
        .iter()
        .map(|row| format!("{} {} {}", row["kind"], row["path"], row["n"]).replace('"', ""))
        .collect();
    for expected in [
        "type_changed id 1",
        "required_missing name 1",
        "unknown to 2",
        "unknown to.city 2",
    ] {
        assert!(told.contains(&expected.to_owned()), "{expected} in {told:?}");
    }
    // Nothing unknown is lost: it is in the row, and the row is in the table.
    let rescued = project.sql("SELECT _rescued FROM shop.items WHERE id = 10");
    assert!(
        rescued[0]["_rescued"].as_str().unwrap().contains("Oslo"),
        "{rescued:?}"
    );
    let report = project.ok(&["drift"]).stdout;
    assert!(
        report.contains("to.city") && report.contains("shop.items"),
        "{report}"
    );
}

#[test]
fn r057_r069_r021_the_second_run_asks_only_for_what_changed() {
    let api = Api::start((0..12).map(|id| item(id, 100 + id)).collect());
    let project = TestProject::items(&api.base_url);
    project.ok(&["run"]);
    api.take_requests();
    api.upsert(vec![item(3, 300)]);
    project.ok(&["run"]);
    let requests = api.take_requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert!(requests[0].contains("since=111"), "{requests:?}");
    assert_eq!(
        project.sql("SELECT updated FROM shop.items WHERE id = 3"),
        [json!({"updated": 300})]
    );
}

#[test]
fn r029_r168_records_that_appear_between_pages_neither_skip_nor_repeat_others() {
    let api = Api::start((0..20).map(|id| item(id, 100 + id)).collect());
    let project = TestProject::items(&api.base_url);
    api.upsert_after(2, vec![item(50, 1), item(51, 2), item(52, 500)]);
    project.ok(&["run"]);
    let ids = project.sql("SELECT count(*) n, count(DISTINCT id) d FROM shop.items WHERE id < 20");
    assert_eq!(ids, [json!({"n": 20, "d": 20})]);
    assert_eq!(
        project.sql("SELECT count(*) n FROM shop.items__raw WHERE record LIKE '%n7%'"),
        [json!({"n": 1})]
    );
}

#[test]
fn r071_records_of_a_page_that_came_half_are_not_doubled() {
    let api = Api::start((0..10).map(|id| item(id, id)).collect());
    let project = TestProject::items(&api.base_url);
    let half = br#"{"data": [{"id": 0, "updated": 0, "name": "n0"}, {"id": 1, "upd"#.to_vec();
    api.script(Scripted {
        status: 200,
        headers: vec![("content-type", "application/json".to_owned())],
        body: half,
    });
    project.ok(&["run"]);
    assert_eq!(
        project.sql("SELECT count(*) n FROM shop.items"),
        [json!({"n": 10})]
    );
    assert!(project.sql("SELECT * FROM shop.items__quarantine").is_empty());
}

#[test]
fn r033_r167_a_429_is_waited_out_and_said() {
    let api = Api::start(vec![item(1, 1)]);
    let project = TestProject::items(&api.base_url);
    api.script(Scripted {
        status: 429,
        headers: vec![("retry-after", "0".to_owned())],
        body: Vec::new(),
    });
    let ran = project.ok(&["run"]);
    assert!(ran.stderr.contains("429"), "a retry is a warning: {}", ran.stderr);
    assert_eq!(
        project.sql("SELECT count(*) n FROM shop.items"),
        [json!({"n": 1})]
    );
}

#[test]
fn r143_r144_each_request_and_each_load_is_told() {
    let api = Api::start((0..12).map(|id| item(id, id)).collect());
    let project = TestProject::items(&api.base_url);
    let ran = project.ok(&["-vv", "--log-format", "json", "run"]);
    let lines: Vec<Value> = ran
        .stderr
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let told =
        |message: &str| -> Vec<&Value> { lines.iter().filter(|line| line["message"] == message).collect() };
    let pages = told("page fetched");
    assert_eq!(pages.len(), 3, "{}", ran.stderr);
    assert!(
        pages
            .iter()
            .all(|page| page["status"] == 200 && page["stream"] == "shop.items")
    );
    let loads = told("load ended");
    assert_eq!(
        (loads[0]["read"].as_u64(), loads[0]["merged"].as_u64()),
        (Some(12), Some(12)),
        "{}",
        ran.stderr
    );
}

#[test]
fn r054_r170_f152_no_secret_is_written_anywhere() {
    const SECRET: &str = "canary-7d1f4c";
    let api = Api::start((0..12).map(|id| item(id, id)).collect());
    let streams = ITEMS.replace(
        "params: { limit: 5 }",
        "params: { limit: 5, signature: '${env:SHOP_KEY}' }",
    );
    let mut project = TestProject::new(&api.base_url, &streams);
    project.write(
        "contracts/shop.items.odcs.yaml",
        crate::support::project::ITEMS_CONTRACT,
    );
    let text = std::fs::read_to_string(project.path().join("landfall.yml")).unwrap();
    let auth =
        "    auth: { type: api_key, in: header, name: X-Api-Key, value: '${env:SHOP_KEY}' }\n    streams:";
    project.write("landfall.yml", &text.replace("    streams:", auth));
    project.env("SHOP_KEY", SECRET);
    let mut said = String::new();
    for args in [
        &["-vv", "run"][..],
        &["check", "--connect"],
        &["check", "--explain"],
        &["status"],
        &["drift"],
        &["explain", "shop.items", "3"],
        &["sql", "SELECT * FROM shop.items__raw"],
    ] {
        let ran = project.ok(args);
        said += &(ran.stdout + &ran.stderr);
    }
    api.script_after(0, 500);
    let failed = project.run(&["-vv", "extract"]);
    assert_eq!(failed.code, Some(1));
    said += &(failed.stdout + &failed.stderr);
    assert!(
        api.api_keys().iter().all(|key| key.as_deref() == Some(SECRET)),
        "the secret was really sent"
    );
    assert!(!said.contains(SECRET), "{said}");
    for file in project.files("") {
        assert!(!holds(&file, SECRET), "{}", file.display());
    }
    project.env("SHOP_KEY", "");
}

#[test]
fn r064_f017_of_two_extractors_on_one_stream_the_slower_stops_with_a_conflict() {
    let api = Api::start((0..40).map(|id| item(id, id)).collect());
    let project = TestProject::items(&api.base_url);
    // The first has a page in hand and waits for the next; the second lands everything meanwhile.
    let release = api.hold_after(1);
    let mut command = project.command(&["extract"]);
    let first = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    api.wait_until_held();
    project.ok(&["extract"]);
    release.notify_one();
    let output = first.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("another extractor"), "{said}");

    project.ok(&["transform"]);
    assert_eq!(
        project.sql("SELECT count(*) n, count(DISTINCT id) d FROM shop.items"),
        [json!({"n": 40, "d": 40})]
    );
    assert_eq!(
        project.sql("SELECT count(*) n FROM shop.items__raw"),
        [json!({"n": 40})],
        "nothing of the first stands"
    );
}

#[test]
fn a_run_loads_what_was_landed_while_it_still_extracts() {
    let text = "x".repeat(1 << 20);
    let large = |id: i64| json!({ "id": id, "updated": id, "name": text });
    let api = Api::start((0..30).map(large).collect());
    // A load takes an eighth of it: less than a batch of two pages with five records each.
    let project = TestProject::with_lake(&api.base_url, ITEMS, "lake: ./lake\nmemory: 64MiB");
    project.write("contracts/shop.items.odcs.yaml", ITEMS_CONTRACT);
    let release = api.hold_after(4);
    let mut command = project.command(&["run"]);
    let run = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    api.wait_until_held();
    let begun = Instant::now();
    let query = "SELECT count(*) n FROM shop.items";
    let count = || project.sql(query)[0]["n"].as_i64();
    // There is no table to ask before the first of these loads, and the run says so.
    let is_loaded = || project.run(&["sql", query]).code == Some(0) && count() == Some(20);
    while !is_loaded() {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "nothing is loaded before the extraction ends"
        );
    }
    release.notify_one();
    let output = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("loaded 30 read = 30 merged"), "{said}");
    assert_eq!(count(), Some(30));
    project.ok(&["verify"]);
}

#[test]
fn raw_that_ends_before_the_table_is_an_error_and_not_silence() {
    let api = Api::start((0..7).map(|id| item(id, id)).collect());
    let project = TestProject::items(&api.base_url);
    project.ok(&["run"]);
    std::fs::remove_dir_all(project.path().join("lake/raw")).unwrap();
    let ran = project.run(&["transform"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("bring raw back"), "{}", ran.stderr);
}

#[test]
fn a_table_keeps_its_partition_columns() {
    let api = Api::start((0..7).map(|id| item(id, id)).collect());
    let streams = ITEMS.replace("keys: [id],", "keys: [id], partition_by: [deleted],");
    let project = TestProject::new(&api.base_url, &streams);
    project.write(
        "contracts/shop.items.odcs.yaml",
        crate::support::project::ITEMS_CONTRACT,
    );
    project.ok(&["run"]);
    api.upsert(vec![
        json!({"id": 3, "updated": 30, "name": "n3", "deleted": false}),
        item(9, 40),
    ]);
    project.ok(&["run"]);
    let rows = project.sql("SELECT count(*) n, count(DISTINCT id) d, count(deleted) f FROM shop.items");
    assert_eq!(
        rows,
        [json!({"n": 8, "d": 8, "f": 1})],
        "a row moves to another partition"
    );

    let text = std::fs::read_to_string(project.path().join("landfall.yml")).unwrap();
    project.write("landfall.yml", &text.replace(" partition_by: [deleted],", ""));
    api.upsert(vec![item(10, 50)]);
    let ran = project.run(&["run"]);
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    assert!(ran.stderr.contains("partition_by"), "{}", ran.stderr);
}

#[test]
fn explain_leads_from_a_row_to_the_bytes_of_its_response() {
    let api = Api::start((0..12).map(|id| item(id, id)).collect());
    let project = TestProject::items(&api.base_url);
    project.ok(&["run"]);
    let told = project.ok(&["explain", "shop.items", "7"]).stdout;
    assert!(told.contains(r#"{"id":7,"name":"n7","updated":7}"#), "{told}");
    assert!(told.contains("/items?") && told.contains("200"), "{told}");
}

#[test]
fn f138_f009_a_damaged_object_is_quarantined_and_its_neighbours_load() {
    let api = Api::start((0..30).map(|id| item(id, id)).collect());
    let project = TestProject::items(&api.base_url);
    project.ok(&["extract"]);
    let objects = project.files("lake/raw/shop/items");
    let bodies: Vec<_> = objects
        .iter()
        .filter(|path| path.to_string_lossy().ends_with(".jsonl.zst"))
        .collect();
    assert_eq!(bodies.len(), 3);
    std::fs::write(bodies[1], b"not what was landed").unwrap();
    std::fs::remove_file(bodies[2]).unwrap();
    let ran = project.ok(&["transform"]);
    assert_eq!(
        project.sql("SELECT count(*) n FROM shop.items"),
        [json!({"n": 10})],
        "{}",
        ran.stderr
    );
    let classes = project.sql("SELECT DISTINCT class FROM shop.items__quarantine");
    assert!(
        !classes.is_empty()
            && classes
                .iter()
                .all(|row| row["class"].as_str().unwrap().starts_with("raw_")),
        "{classes:?}"
    );
}

/// The tests above that do not look at files, on the other kind of lake.
#[tokio::test(flavor = "multi_thread")]
async fn r007_the_same_over_s3() {
    let server = s3::start().await;
    let same: [fn(); 10] = [
        r003_r122_raw_takes_any_bytes_and_lands_on_while_the_transform_refuses,
        r008_sql_reads_tables_raw_quarantine_and_drift_in_every_format,
        r009_r114_r115_r117_drift_lists_what_the_contract_does_not_say,
        r029_r168_records_that_appear_between_pages_neither_skip_nor_repeat_others,
        r033_r167_a_429_is_waited_out_and_said,
        r057_r069_r021_the_second_run_asks_only_for_what_changed,
        r064_f017_of_two_extractors_on_one_stream_the_slower_stops_with_a_conflict,
        r071_records_of_a_page_that_came_half_are_not_doubled,
        a_table_keeps_its_partition_columns,
        explain_leads_from_a_row_to_the_bytes_of_its_response,
    ];
    for (number, test) in same.into_iter().enumerate() {
        let lake = server.lake(&format!("lake-{number}"));
        tokio::task::spawn_blocking(move || on_lake(lake, test))
            .await
            .unwrap();
    }
}
