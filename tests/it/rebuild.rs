//! Tables are made from raw once more: to prove them, to change them in retrospect, and to bring them back.

use std::{
    fs,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, SystemTime},
};

use landfall::{
    clock::Clock,
    config::{StreamName, read},
    error::ErrorKind,
    ops::{
        Workspace, contract,
        rebuild::{
            self, Options, Then,
            live::{Live, live},
            stage::{Begin, Wanted, find, stage},
        },
    },
    raw::BatchNumber,
    table::Tables,
};
use serde_json::{Value, json};

use crate::support::{
    api::Api,
    faulty::{Fault, FaultyStore, When},
    project::{ITEMS, ITEMS_CONTRACT, TestProject, on_lake},
    python::venv,
    s3,
};

fn item(id: i64, updated: i64) -> Value {
    json!({"id": id, "updated": updated, "name": format!("n{id}-{updated}"), "to": {"city": format!("c{id}")}, "region": if id % 2 == 0 { "eu" } else { "us" }})
}

/// Three loads: 12 records and a broken one, some updates, a deletion. Nothing is asked of an API afterwards.
fn loaded(streams: &str) -> TestProject {
    let mut records: Vec<Value> = (0..12).map(|id| item(id, 100 + id)).collect();
    records.insert(6, json!({"id": 50, "updated": 105, "name": 7}));
    let api = Api::start(records);
    let project = TestProject::new(&api.base_url, streams);
    project.write("contracts/shop.items.odcs.yaml", ITEMS_CONTRACT);
    project.ok(&["run"]);
    api.upsert(vec![
        item(3, 200),
        item(4, 201),
        json!({"id": 5, "updated": 202, "deleted": true}),
    ]);
    project.ok(&["run"]);
    api.upsert(vec![item(3, 300), item(20, 301)]);
    project.ok(&["run"]);
    project
}

/// The project file and the contract with `from` replaced by `to`.
fn change(project: &TestProject, file: &str, from: &str, to: &str) {
    let text = fs::read_to_string(project.path().join(file)).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    project.write(file, &text.replace(from, to));
}

fn declare(project: &TestProject, column: &str) {
    let last = "      - { name: deleted, logicalType: boolean }\n";
    change(project, CONTRACT, last, &format!("{last}      - {column}\n"));
}

const CONTRACT: &str = "contracts/shop.items.odcs.yaml";

/// Every column that a replay repeats.
fn rows(project: &TestProject) -> Vec<Value> {
    let mut rows =
        project.sql("SELECT * FROM shop.items ORDER BY id, updated, _lf_batch, _lf_page, _lf_record");
    for row in &mut rows {
        row.as_object_mut().unwrap().remove("_lf_loaded_at");
    }
    rows
}

fn quarantine(project: &TestProject) -> Vec<Value> {
    project.sql("SELECT _lf_batch, _lf_page, _lf_record, class, path, record FROM shop.items__quarantine ORDER BY 1, 2, 3")
}

fn json_rows(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Works on the live table behind our back, and leaves without the readers' native teardown, which may abort.
fn with_deltalake(project: &TestProject, statement: &str) {
    let table = project.path().join("lake/tables/shop/items");
    let script = format!(
        "from deltalake import DeltaTable\ntable = DeltaTable('{}')\n{statement}\nimport os\nos._exit(0)",
        table.display()
    );
    let output = Command::new(venv().join("bin/python"))
        .args(["-c", &script])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn r092_verify_passes_and_leaves_nothing_behind() {
    let project = loaded(ITEMS);
    let before = project.files("lake");
    let ran = project.ok(&["verify"]);
    assert!(
        ran.stderr.contains("13 rows are what raw gives"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("raw is what was landed: "), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
    assert_eq!(project.files("lake"), before);
}

#[test]
fn verify_finds_what_somebody_else_did_to_the_table() {
    let project = loaded(ITEMS);
    with_deltalake(
        &project,
        "table.update(predicate='id = 7', updates={'name': \"'edited'\"})",
    );
    with_deltalake(&project, "table.delete('id = 8')");
    let foreign = "import pyarrow as pa\nfrom deltalake import write_deltalake\nrows = table.to_pyarrow_table().slice(0, 1)\n\
        rows = rows.set_column(rows.schema.get_field_index('id'), 'id', pa.array([999], pa.int64()))\n\
        write_deltalake(table, rows, mode='append')";
    with_deltalake(&project, foreign);
    let ran = project.run(&["verify", "shop.items", "--format", "json"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let found = json_rows(&ran.stdout);
    let short: Vec<String> = found
        .iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            let value = |name: &str| {
                if row["column"].is_null() {
                    String::new()
                } else {
                    text(name)
                }
            };
            format!(
                "{} {} {} {} {}: {}",
                text("difference"),
                text("key"),
                text("column"),
                value("live"),
                value("rebuilt"),
                text("cause")
            )
        })
        .collect();
    assert_eq!(
        short,
        [
            "changed id=7 name edited n7-107: changed by someone else after it was loaded",
            "only_rebuilt id=8   : removed by someone else, its record is in raw",
            "only_live id=999   : written by someone else, it is not in raw",
        ]
    );
    assert!(
        ran.stderr.contains(
            "3 rows are different: 1 changed, 1 only in the live table, 1 only in what raw gives; 11 equal"
        ),
        "{}",
        ran.stderr
    );
    // The table comes back to what raw says, and the API is gone.
    project.ok(&["rebuild", "shop.items", "--promote"]);
    project.ok(&["verify"]);
}

#[test]
fn verify_finds_raw_objects_that_changed_and_entries_that_are_gone() {
    let project = loaded(ITEMS);
    let files = project.files("lake/raw");
    let object = files
        .iter()
        .find(|path| path.to_string_lossy().ends_with(".zst"))
        .unwrap();
    let sound = fs::read(object).unwrap();
    let mut bytes = sound.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(object, &bytes).unwrap();
    project.fails(&["verify"], &["raw is damaged", ".jsonl.zst", "SHA-256 differs"]);
    fs::remove_file(object).unwrap();
    project.fails(&["verify"], &["the object is gone"]);
    fs::write(object, &sound).unwrap();
    project.ok(&["verify"]);
    let entry = files
        .iter()
        .find(|path| path.ends_with("00000000000000000001.json"))
        .unwrap();
    fs::remove_file(entry).unwrap();
    project.fails(
        &["verify"],
        &[
            "00000000000000000001.json: the log entry is missing",
            "raw cannot be replayed",
        ],
    );
}

#[test]
fn verify_tells_records_that_todays_contract_would_take() {
    let project = loaded(ITEMS);
    change(
        &project,
        CONTRACT,
        "{ name: name, logicalType: string, required: true }",
        "{ name: name, logicalType: string, physicalType: json }",
    );
    let ran = project.fails(
        &["verify", "--format", "json"],
        &[
            "1 record in quarantine would fit today's contract",
            "quarantine release",
        ],
    );
    let found = json_rows(&ran.stdout);
    let aside = found.iter().find(|row| row["key"] == "id=50").unwrap();
    assert_eq!(
        aside["cause"],
        "was set aside when it was loaded (type_mismatch at name) and fits today's contract"
    );
    project.ok(&["rebuild", "shop.items", "--promote"]);
    assert_eq!(
        project.sql("SELECT name FROM shop.items WHERE id = 50"),
        [json!({"name": "7"})]
    );
    assert!(quarantine(&project).is_empty());
    project.ok(&["verify"]);
}

#[test]
fn f139_r092_a_table_without_its_log_comes_back_from_raw() {
    let project = loaded(ITEMS);
    let (before, aside) = (rows(&project), quarantine(&project));
    let loads = project.sql("SELECT * FROM landfall.loads ORDER BY batch_to");
    fs::remove_dir_all(project.path().join("lake/tables/shop/items/_delta_log")).unwrap();
    project.fails(&["verify"], &["is gone", "landfall rebuild shop.items --promote"]);
    let died = project.run_armed(
        &["rebuild", "shop.items", "--promote"],
        "rebuild::before_create=return",
    );
    assert_eq!(died.code, None, "{}", died.stderr);
    let ran = project.ok(&["rebuild", "shop.items", "--promote"]);
    assert!(
        ran.stderr.contains("there is no live table to compare with"),
        "{}",
        ran.stderr
    );
    assert_eq!((rows(&project), quarantine(&project)), (before, aside));
    assert_eq!(
        project.sql("SELECT * FROM landfall.loads ORDER BY batch_to"),
        loads
    );
    assert!(project.files("lake/staging").is_empty());
    project.ok(&["verify"]);
    project.ok(&["transform"]);
}

#[test]
fn f139_a_table_whose_log_is_damaged_comes_back_and_the_log_is_kept() {
    for damage in ["{not json", ""] {
        let project = loaded(ITEMS);
        let before = rows(&project);
        let log = project.path().join("lake/tables/shop/items/_delta_log");
        fs::write(log.join("00000000000000000002.json"), damage).unwrap();
        if damage.is_empty() {
            fs::remove_file(log.join("00000000000000000001.json")).unwrap();
        }
        let ran = project.run(&["verify"]);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        // Dying between the removal of the old log and the new table is put right by the next run.
        let died = project.run_armed(
            &["rebuild", "shop.items", "--promote"],
            "rebuild::log_aside=return",
        );
        assert_eq!(died.code, None, "{}", died.stderr);
        project.ok(&["rebuild", "shop.items", "--promote"]);
        assert_eq!(rows(&project), before);
        let kept = project.files("lake/staging");
        assert!(
            kept.iter()
                .any(|path| path.ends_with("_delta_log/00000000000000000002.json")),
            "{kept:?}"
        );
        project.ok(&["verify"]);
    }
}

#[test]
fn r092_a_new_column_is_filled_for_all_of_history_without_the_api() {
    let project = loaded(ITEMS);
    declare(&project, "{ name: region, logicalType: string }");
    let ran = project.fails(
        &["verify", "--format", "json"],
        &["new columns: region", "landfall rebuild --promote"],
    );
    assert!(
        json_rows(&ran.stdout)
            .iter()
            .all(|row| row["cause"].as_str().unwrap().starts_with("columns changed: ")),
        "{}",
        ran.stdout
    );
    let ran = project.ok(&["rebuild", "shop.items"]);
    assert!(
        ran.stderr.contains("staged as next in staging/shop/items/next-"),
        "{}",
        ran.stderr
    );
    assert!(
        !rows(&project)[0].as_object().unwrap().contains_key("region"),
        "nothing changes without --promote"
    );
    let told = json_rows(&project.ok(&["diff", "shop.items", "--format", "json"]).stdout);
    let region = told
        .iter()
        .find(|row| row["key"] == "id=3" && row["column"] == "region")
        .unwrap();
    assert_eq!(
        (&region["live"], &region["rebuilt"]),
        (&Value::Null, &json!("us"))
    );
    let ran = project.ok(&["rebuild", "shop.items", "--promote"]);
    assert!(ran.stderr.contains("promoted"), "{}", ran.stderr);
    let filled = project.sql("SELECT region, count(*) n FROM shop.items GROUP BY region ORDER BY region");
    // The deletion came without a region.
    assert_eq!(
        filled,
        [
            json!({"region": "eu", "n": 7}),
            json!({"region": "us", "n": 5}),
            json!({"region": null, "n": 1})
        ]
    );
    project.ok(&["verify"]);
    let again = project.ok(&["rebuild", "shop.items", "--promote"]);
    assert!(
        again.stderr.contains("what raw gives, and stays"),
        "{}",
        again.stderr
    );
    assert!(project.files("lake/staging").is_empty());
}

#[test]
fn r092_keys_and_history_change_in_retrospect() {
    let project = loaded(ITEMS);
    declare(&project, "{ name: region, logicalType: string, required: true }");
    change(&project, "landfall.yml", "keys: [id]", "keys: [region]");
    let ran = project.ok(&["rebuild", "shop.items", "--promote"]);
    assert!(
        ran.stderr.contains("keys were id and are region"),
        "{}",
        ran.stderr
    );
    let newest = project.sql("SELECT region, id, updated FROM shop.items WHERE NOT _deleted ORDER BY region");
    assert_eq!(
        newest,
        [
            json!({"region": "eu", "id": 20, "updated": 301}),
            json!({"region": "us", "id": 3, "updated": 300}),
        ]
    );
    project.ok(&["verify"]);

    change(&project, "landfall.yml", "keys: [region]", "keys: [id]");
    change(
        &project,
        CONTRACT,
        "{ name: region, logicalType: string, required: true }",
        "{ name: region, logicalType: string }",
    );
    change(
        &project,
        "landfall.yml",
        "apply_as_deletes",
        "scd_type: 2, apply_as_deletes",
    );
    let ran = project.ok(&["rebuild", "shop.items", "--promote"]);
    assert!(
        ran.stderr.contains("the table keeps history now"),
        "{}",
        ran.stderr
    );
    let versions =
        project.sql("SELECT updated, _valid_to, _current FROM shop.items WHERE id = 3 ORDER BY updated");
    assert_eq!(
        versions,
        [
            json!({"updated": 103, "_valid_to": 200, "_current": false}),
            json!({"updated": 200, "_valid_to": 300, "_current": false}),
            json!({"updated": 300, "_valid_to": null, "_current": true}),
        ]
    );
    project.ok(&["verify"]);
    project.ok(&["transform"]);
}

#[test]
fn r092_nesting_changes_in_retrospect() {
    let project = loaded(ITEMS);
    let nested = "{ name: to, logicalType: object, properties: [{ name: city, logicalType: string }] }";
    declare(&project, nested);
    project.ok(&["rebuild", "shop.items", "--promote"]);
    let city = [json!({"city": "c20"})];
    assert_eq!(
        project.sql("SELECT \"to\"['city'] city FROM shop.items WHERE id = 20"),
        city
    );
    let flat = "{ name: city, logicalType: string, customProperties: [{ property: path, value: to.city }] }";
    change(&project, CONTRACT, nested, flat);
    let ran = project.ok(&["rebuild", "shop.items", "--promote"]);
    assert!(ran.stderr.contains("new columns: city"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("columns that are no longer declared: to"),
        "{}",
        ran.stderr
    );
    assert_eq!(project.sql("SELECT city FROM shop.items WHERE id = 20"), city);
    assert!(!rows(&project)[0].as_object().unwrap().contains_key("to"));
    project.ok(&["verify"]);
}

#[test]
fn r092_a_type_and_the_partitions_change_in_retrospect() {
    let project = loaded(ITEMS);
    change(
        &project,
        CONTRACT,
        "{ name: updated, logicalType: integer, required: true }",
        "{ name: updated, logicalType: number, required: true }",
    );
    declare(&project, "{ name: region, logicalType: string }");
    change(
        &project,
        "landfall.yml",
        "sequence_by: [updated]",
        "sequence_by: [updated], partition_by: [region]",
    );
    let ran = project.ok(&["rebuild", "shop.items", "--promote"]);
    assert!(
        ran.stderr.contains("columns of another type: updated"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("partitioned by nothing and now by region"),
        "{}",
        ran.stderr
    );
    assert_eq!(
        project.sql("SELECT updated FROM shop.items WHERE region = 'eu' AND id = 20"),
        [json!({"updated": 301.0})]
    );
    let files = project.files("lake/tables/shop/items");
    assert!(
        files
            .iter()
            .any(|path| path.to_string_lossy().contains("region=eu/part-")),
        "{files:?}"
    );
    project.ok(&["verify"]);
    with_deltalake(
        &project,
        "assert len(table.to_pyarrow_table(filters=[('region', '=', 'eu')])) == 7\ntable.load_as_version(1)\nassert len(table.to_pyarrow_table()) == 12",
    );
}

#[test]
fn a_table_as_of_an_earlier_batch_stays_beside_the_live_one() {
    let project = loaded(ITEMS);
    let live = rows(&project);
    let until = project.sql("SELECT batch_to FROM landfall.loads ORDER BY batch_to")[0]["batch_to"]
        .as_i64()
        .unwrap();
    let at = until.to_string();
    project.fails(
        &["rebuild", "shop.items", "--at", &at, "--promote"],
        &["would lose those after"],
    );
    let ran = project.ok(&["rebuild", "shop.items", "--at", &at, "--format", "json"]);
    let path = format!("staging/shop/items/at-{at}-");
    assert!(ran.stderr.contains(&path), "{}", ran.stderr);
    let told = json_rows(&ran.stdout);
    let newer = told
        .iter()
        .find(|row| row["key"] == "id=3" && row["column"] == "name")
        .unwrap();
    assert_eq!(
        (&newer["live"], &newer["rebuilt"], &newer["cause"]),
        (
            &json!("n3-300"),
            &json!("n3-103"),
            &json!("loaded from a later batch")
        )
    );
    assert_eq!(rows(&project), live);
    let told = project
        .ok(&[
            "diff",
            "shop.items",
            "--staged",
            &format!("at-{at}"),
            "--format",
            "csv",
            "--limit",
            "1",
        ])
        .stdout;
    assert!(
        told.starts_with("stream,difference,key,column,live,rebuilt,cause\n"),
        "{told}"
    );
    project.fails(&["rebuild", "shop.items", "--at", "99"], &["raw ends with batch"]);
    project.ok(&["rebuild", "shop.items", "--at", &at, "--discard"]);
    assert!(project.files("lake/staging").is_empty());
    project.fails(&["diff", "shop.items"], &["nothing is staged as next"]);
}

#[test]
fn r092_a_rebuild_that_dies_anywhere_is_put_right_by_the_next() {
    let points = [
        ("transform::after_quarantine", 0),
        ("transform::after_commit", 0),
        ("rebuild::staged", 0),
        ("rebuild::after_fence", 0),
        ("rebuild::after_copy", 0),
        ("rebuild::after_side", 0),
        ("rebuild::after_side", 1),
        ("rebuild::before_swap", 0),
        ("rebuild::after_swap", 0),
    ];
    let hard = ITEMS.replace("apply_as_deletes", "deletes: hard, apply_as_deletes");
    for (point, skip) in points {
        let project = loaded(&hard);
        declare(&project, "{ name: region, logicalType: string }");
        let loads = project.sql("SELECT * FROM landfall.loads ORDER BY batch_to");
        let armed = match skip {
            0 => format!("{point}=return"),
            skip => format!("{point}={skip}*off->return"),
        };
        let died = project.run_armed(&["rebuild", "shop.items", "--promote"], &armed);
        assert_eq!(died.code, None, "{armed}\n{}", died.stderr);
        // What is half done is not in the way of a load, nor of what anyone reads.
        assert_eq!(project.sql("SELECT * FROM shop.items").len(), 12, "{armed}");
        assert_eq!(quarantine(&project).len(), 1, "{armed}");
        project.ok(&["transform"]);
        project.ok(&["rebuild", "shop.items", "--promote"]);
        assert_eq!(
            project
                .sql("SELECT id FROM shop.items WHERE region IS NULL")
                .len(),
            0,
            "{armed}"
        );
        assert_eq!(quarantine(&project).len(), 1, "{armed}");
        assert_eq!(
            project.sql("SELECT * FROM landfall.loads ORDER BY batch_to"),
            loads,
            "{armed}"
        );
        assert!(project.files("lake/staging").is_empty(), "{armed}");
        project.ok(&["verify"]);
    }
}

#[test]
fn nothing_is_loaded_into_a_table_whose_side_tables_are_those_of_a_rebuild_that_died() {
    let hard = ITEMS.replace("apply_as_deletes", "deletes: hard, apply_as_deletes");
    let api = Api::start(vec![
        item(1, 100),
        json!({"id": 2, "updated": 200, "deleted": true}),
        json!({"id": 50, "updated": 201, "name": 7}),
    ]);
    let project = TestProject::new(&api.base_url, &hard);
    project.write(CONTRACT, ITEMS_CONTRACT);
    project.ok(&["run"]);
    // By this one there are no deletions.
    let without = ITEMS_CONTRACT.replace(
        "name: deleted, logicalType: boolean",
        "name: deleted, logicalType: string",
    );
    let file = fs::read_to_string(project.path().join("landfall.yml")).unwrap();
    project.write(CONTRACT, &without);
    project.write("landfall.yml", &file.replace("deleted = true", "deleted = 'yes'"));
    let args = ["rebuild", "shop.items", "--promote"];
    let died = project.run_armed(&args, "rebuild::before_swap=return");
    assert_eq!(died.code, None, "{}", died.stderr);

    // Everything is as it was, and yet its deletions are not.
    project.write(CONTRACT, ITEMS_CONTRACT);
    project.write("landfall.yml", &file);
    let incremental = "        incremental: { cursor: $.updated, param: since, format: integer }\n";
    change(&project, "landfall.yml", incremental, "");
    api.upsert(vec![item(2, 150)]);
    project.ok(&["extract"]);
    let hint = "`landfall rebuild shop.items --promote` finishes it";
    for args in [
        &["transform"][..],
        &["rebuild", "shop.items", "--discard"],
        &["quarantine", "release", "shop.items", "--all"],
    ] {
        project.fails(args, &[hint]);
    }
    // However long ago it was.
    let staged = project.files("lake/staging");
    let long_ago = SystemTime::now() - Duration::from_secs(30 * 24 * 60 * 60);
    for file in &staged {
        let file = fs::File::options().write(true).open(file).unwrap();
        file.set_modified(long_ago).unwrap();
    }
    let said = project.ok(&["maintain"]);
    assert!((said.stdout + &said.stderr).contains("a rebuild died while it put its tables in place"));
    assert_eq!(project.files("lake/staging"), staged);
    project.ok(&args);
    project.ok(&["transform"]);
    assert_eq!(project.sql("SELECT id FROM shop.items"), [json!({"id": 1})]);
    assert!(project.files("lake/staging").is_empty());
    project.ok(&["verify"]);
}

#[test]
fn a_deleted_row_stays_deleted_after_a_rebuild() {
    let hard = ITEMS.replace("apply_as_deletes", "deletes: hard, apply_as_deletes");
    let api = Api::start(vec![
        item(1, 100),
        json!({"id": 2, "updated": 200, "deleted": true}),
    ]);
    let project = TestProject::new(&api.base_url, &hard);
    project.write(CONTRACT, ITEMS_CONTRACT);
    project.ok(&["run"]);
    declare(&project, "{ name: region, logicalType: string }");
    project.ok(&["rebuild", "shop.items", "--promote"]);
    // From now on everything is read, and all the API still has of the row is older than its deletion.
    let incremental = "        incremental: { cursor: $.updated, param: since, format: integer }\n";
    change(&project, "landfall.yml", incremental, "");
    api.upsert(vec![item(2, 150)]);
    project.ok(&["run"]);
    assert_eq!(project.sql("SELECT id FROM shop.items"), [json!({"id": 1})]);
    project.ok(&["verify"]);
}

#[test]
fn rebuilds_and_loads_at_the_same_time_leave_what_raw_gives() {
    let mut records: Vec<Value> = (0..12).map(|id| item(id, 100 + id)).collect();
    records.insert(6, json!({"id": 50, "updated": 105, "name": 7}));
    let api = Api::start(records);
    let project = TestProject::items(&api.base_url);
    project.ok(&["run"]);
    declare(&project, "{ name: region, logicalType: string }");
    api.upsert(vec![
        item(3, 200),
        item(30, 201),
        json!({"id": 51, "updated": 202, "name": 7}),
    ]);
    project.ok(&["extract"]);
    let commands: [&[&str]; 4] = [
        &["rebuild", "shop.items", "--promote"],
        &["transform"],
        &["rebuild", "shop.items", "--promote"],
        &["transform"],
    ];
    let children: Vec<_> = commands
        .iter()
        .map(|args| {
            project
                .command(args)
                .stdout(Stdio::null())
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
            code => assert!(code == Some(1) && said.contains("another"), "{code:?} {said}"),
        }
    }
    assert!(done > 0);
    project.ok(&["transform"]);
    project.ok(&["rebuild", "shop.items", "--promote"]);
    assert_eq!(
        project
            .sql("SELECT id FROM shop.items WHERE region IS NOT NULL")
            .len(),
        13
    );
    assert_eq!(quarantine(&project).len(), 2);
    let sums = project.sql("SELECT sum(records_read) n FROM landfall.loads");
    assert_eq!(sums, project.sql("SELECT count(*) n FROM shop.items__raw"));
    project.ok(&["verify"]);
}

#[test]
fn r165_values_of_classified_columns_are_not_shown() {
    let project = loaded(ITEMS);
    change(
        &project,
        CONTRACT,
        "{ name: name, logicalType: string, required: true }",
        "{ name: name, logicalType: string, required: true, classification: restricted }",
    );
    with_deltalake(
        &project,
        "table.update(predicate='id = 7', updates={'name': \"'Ann'\"})",
    );
    with_deltalake(&project, "table.delete('id = 8')");
    let ran = project.run(&["verify", "--format", "json"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stdout.contains("****"), "{}", ran.stdout);
    for value in ["Ann", "n7-107", "n8-108"] {
        assert!(
            !ran.stdout.contains(value) && !ran.stderr.contains(value),
            "{value}"
        );
    }
}

/// Tests above that do not look at files, on the other kind of lake.
#[tokio::test(flavor = "multi_thread")]
async fn r007_r092_the_same_over_s3() {
    let server = s3::start().await;
    let same: [fn(); 3] = [
        verify_tells_records_that_todays_contract_would_take,
        a_deleted_row_stays_deleted_after_a_rebuild,
        r092_keys_and_history_change_in_retrospect,
    ];
    for (number, test) in same.into_iter().enumerate() {
        let lake = server.lake(&format!("lake-{number}"));
        tokio::task::spawn_blocking(move || on_lake(lake, test))
            .await
            .unwrap();
    }
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(work)
}

fn opened(project: &TestProject) -> Workspace {
    let loaded = read::load(project.path()).unwrap();
    Workspace::open(loaded.project, Clock::system()).unwrap()
}

/// The same lake behind a store in which something goes wrong.
fn faulty(sound: &Workspace, when: When) -> (Arc<FaultyStore>, Workspace) {
    let store = Arc::new(FaultyStore::new(Arc::clone(&sound.store), when, Fault::Refused));
    let workspace = Workspace {
        project: Arc::clone(&sound.project),
        tables: Tables::new(store.clone()).unwrap(),
        store: store.clone(),
        clock: sound.clock.clone(),
        lineage: None,
    };
    (store, workspace)
}

#[test]
fn f139_a_store_that_does_not_answer_is_not_taken_for_a_damaged_table() {
    let project = loaded(ITEMS);
    let name = StreamName::parse("shop.items").unwrap();
    let sound = opened(&project);
    wait(async {
        let (store, workspace) = faulty(&sound, When::Never);
        assert!(matches!(
            live(&workspace, &name).await.unwrap(),
            Live::Loaded { .. }
        ));
        let operations = store.operations();
        assert!(operations > 3, "{operations}");
        for number in 0..operations {
            let (_, workspace) = faulty(&sound, When::From(number));
            match live(&workspace, &name).await {
                // The last of them may be about something that can be done without.
                Ok(Live::Loaded { .. }) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{number}: {error:?}"),
                Ok(found) => panic!("{number}: {found:?}"),
            }
        }
    });
}

#[test]
fn a_store_that_does_not_answer_once_costs_no_staged_replay() {
    let project = loaded(ITEMS);
    let name = StreamName::parse("shop.items").unwrap();
    let sound = opened(&project);
    let (_, stream) = sound.project.stream(&name).unwrap();
    let contracts = contract::read_all(stream).unwrap().unwrap();
    let until = project.sql("SELECT max(batch_to) n FROM landfall.loads")[0]["n"]
        .as_i64()
        .unwrap();
    let wanted = Wanted {
        stream,
        contracts: &contracts,
        id: "next",
        until: BatchNumber::new(until).unwrap(),
        begin: Begin::Resume,
    };
    wait(async {
        let first = stage(&sound, wanted, &|_| {}).await.unwrap().target.table;
        let (store, workspace) = faulty(&sound, When::Never);
        stage(&workspace, wanted, &|_| {}).await.unwrap();
        for number in 0..store.operations() {
            let (_, workspace) = faulty(&sound, When::Once(number));
            let staged = stage(&workspace, wanted, &|_| {}).await;
            if let Err(error) = staged {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{number}: {error:?}");
            }
            let still = find(&sound, &name, "next").await.unwrap().unwrap();
            assert_eq!(still.target.table, first, "{number}");
        }
    });
}

#[test]
fn f136_a_column_that_a_load_adds_meanwhile_is_not_lost_to_a_rebuild() {
    let plain = |id: i64, updated: i64| json!({"id": id, "updated": updated, "name": "n"});
    let api = Api::start(vec![plain(1, 100), plain(2, 101)]);
    let evolving = format!("{ITEMS}        drift: {{ on_unknown: evolve }}\n");
    let project = TestProject::new(&api.base_url, &evolving);
    project.write(CONTRACT, ITEMS_CONTRACT);
    project.ok(&["run"]);
    declare(&project, "{ name: note, logicalType: string }");
    api.upsert(vec![
        json!({"id": 1, "updated": 200, "name": "n", "color": "red"}),
    ]);
    project.ok(&["extract"]);
    // Staged, the live table moves on, and with it the contract.
    let root = project.path().to_owned();
    fail::cfg_callback("rebuild::staged", move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
        let output = command.arg("--project").arg(&root).arg("transform").output();
        assert!(output.unwrap().status.success());
    })
    .unwrap();
    let options = Options {
        at: None,
        begin: Begin::Resume,
        then: Then::Promote,
        limit: 5,
    };
    let name = StreamName::parse("shop.items").unwrap();
    let ended = wait(rebuild::rebuild(&opened(&project), &name, options, &|_| {}));
    fail::remove("rebuild::staged");
    let error = ended.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    assert!(
        error.chain().contains("the contract has changed since"),
        "{error:?}"
    );
    let red = [json!({"color": "red"})];
    let color = "SELECT color FROM shop.items WHERE id = 1";
    assert_eq!(project.sql(color), red);
    project.ok(&["rebuild", "shop.items", "--promote"]);
    assert_eq!(project.sql(color), red);
    project.ok(&["verify"]);
}
