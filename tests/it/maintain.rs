//! `landfall maintain` through the real program: the lake gets smaller, and nothing that counts goes.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use crate::support::{
    api::Api,
    project::{ITEMS, ITEMS_CONTRACT, TestProject, on_lake},
    python::{self, Reader, read_table},
    s3,
};

/// Everything is old at once.
const AT_ONCE: &str = "maintain: { compact_after: 1ms, vacuum_after: 1ms, log_after: 1ms }";

const RETENTION: &str = "        retention: { raw: 1ms }\n";

const ROWS: &str = "SELECT * FROM shop.items ORDER BY id";

fn item(id: i64, updated: i64) -> Value {
    json!({"id": id, "updated": updated, "name": format!("n{id}-{updated}")})
}

/// 28 good records and one broken one, in three batches of two pages.
fn first_day() -> Vec<Value> {
    let mut records: Vec<Value> = (0..28).map(|id| item(id, 100 + id)).collect();
    records.insert(17, json!({"id": "x", "updated": 117, "name": "broken"}));
    records
}

/// A project whose raw expires at once; its lake is in `./lake` or where [`on_lake`] says.
fn expiring(api: &Api) -> TestProject {
    let project = TestProject::new(&api.base_url, &format!("{ITEMS}{RETENTION}"));
    project.write("contracts/shop.items.odcs.yaml", ITEMS_CONTRACT);
    let text = fs::read_to_string(project.path().join("landfall.yml")).unwrap();
    project.write("landfall.yml", &format!("{AT_ONCE}\n{text}"));
    project
}

/// Days of changes, each extracted and loaded by itself.
fn live(project: &TestProject, api: &Api, days: i64) {
    for day in 1..=days {
        api.upsert(vec![item(day % 28, 200 + day), item(100 + day, 200 + day)]);
        project.ok(&["run"]);
    }
}

fn maintain(project: &TestProject, args: &[&str]) -> Vec<Value> {
    let ran = project.ok(&[&["maintain", "--format", "json"], args].concat());
    let lines = ran.stdout.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().unwrap()
}

/// The step of `task` at the place that ends with `place`.
fn step<'a>(steps: &'a [Value], task: &str, place: &str) -> &'a Value {
    let found = steps
        .iter()
        .find(|step| step["task"] == task && step["place"].as_str().unwrap().ends_with(place));
    found.unwrap_or_else(|| panic!("{task} {place}: {steps:?}"))
}

/// All that the lake says about what was loaded.
fn told(project: &TestProject) -> BTreeMap<&'static str, Vec<Value>> {
    let queries = [
        ROWS,
        "SELECT * FROM shop.items__quarantine ORDER BY _lf_batch, _lf_page, _lf_record",
        "SELECT * FROM landfall.loads ORDER BY batch_from",
        "SELECT * FROM landfall.drift ORDER BY load_id, kind, path",
    ];
    let told = queries.map(|query| (query, project.sql(query)));
    let mut told = BTreeMap::from(told);
    let status = project.ok(&["status", "--format", "json"]).stdout;
    let status = status.lines().map(|line| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        // They grow with the time that passes.
        for age in ["fresh_s", "waiting_s"] {
            row.as_object_mut().unwrap().remove(age);
        }
        row
    });
    told.insert("status", status.collect());
    told
}

fn objects(project: &TestProject) -> usize {
    let files = project.files("lake/raw/shop/items");
    let is_object = |path: &&std::path::PathBuf| path.to_string_lossy().ends_with(".jsonl.zst");
    files.iter().filter(is_object).count()
}

fn make_old(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    let then = SystemTime::now() - Duration::from_secs(10 * 86_400);
    file.set_modified(then).unwrap();
}

#[test]
fn compaction_checkpoints_and_vacuum_change_no_row_and_no_watermark() {
    let api = Api::start(first_day());
    let project = expiring(&api);
    project.ok(&["run"]);
    live(&project, &api, 10);
    let before = told(&project);

    let would = maintain(
        &project,
        &["--dry-run", "--only", "compact,vacuum,checkpoint,logs"],
    );
    assert_eq!(step(&would, "compact", "tables/shop/items")["state"], "would");
    assert_eq!(told(&project), before);
    let steps = maintain(&project, &["--only", "compact,vacuum,checkpoint,logs"]);
    for place in ["tables/shop/items", "system/loads"] {
        assert!(
            step(&steps, "compact", place)["objects"].as_u64() > Some(8),
            "{steps:?}"
        );
        assert!(
            step(&steps, "vacuum", place)["objects"].as_u64() > Some(8),
            "{steps:?}"
        );
        assert!(
            step(&steps, "logs", place)["objects"].as_u64() > Some(8),
            "{steps:?}"
        );
    }
    assert_eq!(told(&project), before);

    // Nothing is loaded twice, and what comes next goes where it belongs.
    project.ok(&["transform"]);
    assert_eq!(told(&project), before);
    live(&project, &api, 2);
    assert_eq!(
        project.sql("SELECT count(*) n FROM shop.items"),
        [json!({"n": 38})]
    );
    assert_eq!(
        project.sql("SELECT count(*) n FROM landfall.loads"),
        [json!({"n": 13})]
    );
}

#[test]
fn other_readers_see_the_same_rows_after_it() {
    let api = Api::start(first_day());
    let project = expiring(&api);
    project.ok(&["run"]);
    live(&project, &api, 10);
    let table = project.path().join("lake/tables/shop/items");
    let before = read_table(Reader::Deltalake, &table, &["id", "updated", "name"]);
    maintain(&project, &[]);
    let data = |dir: &str| {
        let files = project.files(dir).into_iter();
        let data = files.filter(|path| path.extension().is_some_and(|end| end == "parquet"));
        data.filter(|path| !path.to_string_lossy().contains("_delta_log"))
            .count()
    };
    assert_eq!(data("lake/tables/shop/items"), 1);
    for reader in [Reader::Deltalake, Reader::Duckdb] {
        assert_eq!(
            read_table(reader, &table, &["id", "updated", "name"]),
            before,
            "{reader:?}"
        );
    }
}

fn raw_expires_once_it_is_loaded() {
    let api = Api::start(first_day());
    let project = expiring(&api);
    project.ok(&["extract"]);
    let steps = maintain(&project, &["--only", "expire"]);
    let kept = step(&steps, "expire", "raw/shop/items");
    assert_eq!(
        (&kept["state"], &kept["note"]),
        (&json!("kept"), &json!("nothing of it is loaded yet"))
    );
    project.ok(&["transform"]);
    live(&project, &api, 3);
    let before = told(&project);
    let landed = project.sql("SELECT count(DISTINCT _lf_batch) n FROM shop.items__raw")[0]["n"].clone();

    let would = maintain(&project, &["--only", "expire", "--dry-run"]);
    assert!(step(&would, "expire", "raw/shop/items")["objects"].as_u64() > Some(2));
    assert_eq!(
        project.sql("SELECT count(DISTINCT _lf_batch) n FROM shop.items__raw")[0]["n"],
        landed
    );
    let steps = maintain(&project, &["--only", "expire"]);
    let expired = step(&steps, "expire", "raw/shop/items");
    assert_eq!(
        expired["objects"],
        step(&would, "expire", "raw/shop/items")["objects"]
    );
    assert!(
        expired["note"]
            .as_str()
            .unwrap()
            .contains("1 kept for records in quarantine")
    );
    assert_eq!(told(&project), before);

    // What is gone is said to have expired; what is there is still read, with the quarantined record among it.
    let rest = project.sql("SELECT DISTINCT _lf_batch b FROM shop.items__raw ORDER BY 1");
    assert!(!rest.is_empty() && rest.len() < 6, "{rest:?}");
    let old = project.ok(&["explain", "shop.items", "20"]);
    assert!(old.stdout.contains("have expired"), "{}", old.stdout);
    let set_aside = project.ok(&["explain", "shop.items", "x"]);
    assert!(set_aside.stdout.contains("broken"), "{}", set_aside.stdout);
    assert!(!set_aside.stdout.contains("have expired"), "{}", set_aside.stdout);

    // What cannot be replayed any more is not taken for damage.
    for args in [&["verify"][..], &["rebuild", "shop.items", "--promote"]] {
        let ran = project.fails(args, &["raw objects have expired"]);
        assert!(!ran.stderr.contains("is gone"), "{}", ran.stderr);
    }
    assert_eq!(told(&project), before);

    // Nothing is loaded twice, nothing expires twice, and life goes on.
    project.ok(&["transform"]);
    assert_eq!(told(&project), before);
    let again = maintain(&project, &["--only", "expire"]);
    assert_eq!(step(&again, "expire", "raw/shop/items")["objects"], 0);
    live(&project, &api, 4);
    let before = told(&project);
    let steps = maintain(&project, &[]);
    assert!(step(&steps, "compact", "tables/shop/items")["objects"].as_u64() > Some(2));
    assert_eq!(told(&project), before);
    assert_eq!(
        project.sql("SELECT count(*) n FROM shop.items"),
        [json!({"n": 32})]
    );
}

#[test]
fn r091_raw_expires_once_it_is_loaded_and_its_retention_has_ended() {
    raw_expires_once_it_is_loaded();
}

#[test]
fn r091_a_legal_hold_forbids_it() {
    let api = Api::start(first_day());
    let project = expiring(&api);
    project.ok(&["run"]);
    live(&project, &api, 2);
    let there = objects(&project);
    for hold in [
        "lake/raw/_hold",
        "lake/raw/shop/_hold",
        "lake/raw/shop/items/_hold",
    ] {
        project.write(hold, "case 4711\n");
        let steps = maintain(&project, &["--only", "expire,sweep"]);
        let note = step(&steps, "expire", "raw/shop/items")["note"].clone();
        assert!(note.as_str().unwrap().starts_with("legal hold"), "{note}");
        assert_eq!(objects(&project), there);
        fs::remove_file(project.path().join(hold)).unwrap();
    }
    let text = fs::read_to_string(project.path().join("landfall.yml")).unwrap();
    let held = text.replace("raw: 1ms", "raw: 1ms, legal_hold: true");
    project.write("landfall.yml", &held);
    maintain(&project, &[]);
    assert_eq!(objects(&project), there);
    // Without retention nothing expires either.
    project.write("landfall.yml", &text.replace(RETENTION, ""));
    maintain(&project, &[]);
    assert_eq!(objects(&project), there);
    project.write("landfall.yml", &text);
    maintain(&project, &[]);
    assert!(objects(&project) < there);
}

#[test]
fn f022_a_crash_in_the_middle_loses_nothing_and_is_made_good() {
    for point in [
        "expire::said",
        "expire::mid_delete",
        "expire::deleted",
        "maintain::compacted",
    ] {
        let api = Api::start(first_day());
        let project = expiring(&api);
        project.ok(&["run"]);
        live(&project, &api, 3);
        let before = told(&project);
        let died = project.run_armed(&["maintain"], &format!("{point}=return"));
        assert_eq!(died.code, None, "{point}: {}", died.stderr);
        assert_eq!(told(&project), before, "{point}");
        // What is gone is named.
        let lost = project.ok(&["explain", "shop.items", "20"]).stdout;
        assert!(!lost.contains("the object is gone"), "{point}: {lost}");
        maintain(&project, &[]);
        assert_eq!(told(&project), before, "{point}");
        let said = project.files("lake/raw/shop/items/_log/_expired");
        let ends = |end: &str| {
            said.iter()
                .filter(|path| path.extension().is_some_and(|found| found == end))
                .count()
        };
        assert!(
            ends("json") > 0 && ends("json") == ends("done"),
            "{point}: {said:?}"
        );
        let left = project.sql("SELECT count(DISTINCT _lf_batch) n FROM shop.items__raw")[0]["n"].as_u64();
        assert_eq!(Some(objects(&project) as u64), left, "{point}");
        live(&project, &api, 4);
        assert_eq!(
            project.sql("SELECT count(*) n FROM shop.items"),
            [json!({"n": 32})],
            "{point}"
        );
    }
}

#[test]
#[cfg(unix)]
fn f151_nothing_is_deleted_where_a_symbolic_link_stands() {
    let api = Api::start(first_day());
    let project = expiring(&api);
    project.ok(&["run"]);
    live(&project, &api, 3);
    let elsewhere = tempfile::tempdir().unwrap();
    let treasure = elsewhere.path().join("part-1.parquet");
    fs::write(&treasure, "gold").unwrap();
    make_old(&treasure);
    let lake = project.path().join("lake");
    for folder in ["tables/shop/items", "raw/shop/items"] {
        std::os::unix::fs::symlink(elsewhere.path(), lake.join(folder).join("dt=away")).unwrap();
    }
    let there = objects(&project);
    let ran = project.run(&["maintain"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("symbolic link"), "{}", ran.stderr);
    assert_eq!(fs::read_to_string(&treasure).unwrap(), "gold");
    assert_eq!(objects(&project), there);
    // Elsewhere it went on.
    assert!(ran.stdout.contains("system/loads"), "{}", ran.stdout);
    assert_eq!(
        project.sql("SELECT count(*) n FROM shop.items"),
        [json!({"n": 31})]
    );
}

#[test]
fn what_dead_processes_left_behind_goes() {
    let api = Api::start(first_day());
    let project = expiring(&api);
    project.ok(&["run"]);
    let before = told(&project);
    let died = project.run_armed(&["extract", "--complete"], "raw::before_commit=return");
    assert_eq!(died.code, None, "{}", died.stderr);
    let left = objects(&project);
    let stale = "lake/staging/shop/items/next/table/part-1.parquet";
    let young = "lake/staging/shop/items/at-3/table/part-1.parquet";
    let staged = "lake/tables/shop/items/part-7.parquet#123";
    for name in [stale, young, staged] {
        project.write(name, "left");
    }
    // A rebuild under way reads raw, so nothing expires beside it.
    let steps = maintain(&project, &["--only", "expire,sweep"]);
    let kept = step(&steps, "expire", "raw/shop/items");
    assert_eq!(kept["note"], "a rebuild of the table is under way");
    assert_eq!(objects(&project), left);
    let exists = |name: &str| project.path().join(name).exists();
    for name in [stale, staged] {
        make_old(&project.path().join(name));
    }
    for file in project.files("lake/raw/shop/items") {
        make_old(&file);
    }
    maintain(&project, &["--only", "sweep"]);
    assert_eq!([stale, young, staged].map(exists), [true, true, false]);
    make_old(&project.path().join(young));
    maintain(&project, &["--only", "sweep"]);
    assert_eq!([stale, young].map(exists), [false, false]);
    assert!(objects(&project) < left);
    assert_eq!(told(&project), before);
}

#[test]
fn f137_another_writer_in_the_middle_of_a_merge_is_noticed() {
    let api = Api::start(first_day());
    let project = expiring(&api);
    project.ok(&["run"]);
    api.upsert(vec![item(5, 300), item(50, 300)]);
    project.ok(&["run"]);
    api.upsert(vec![item(7, 400), item(60, 400)]);
    project.ok(&["extract"]);
    let lake = project.path().join("lake");
    let loads = lake.join("system/loads/_delta_log");
    let newest = fs::read_dir(&loads)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".json")?.parse::<u64>().ok())
        .max();
    // Written right before the load commits; then it waits.
    let appears = loads.join(format!("{:020}.json", newest.unwrap() + 1));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/python/other_writer.py");
    let mut writer = Command::new(python::venv().join("bin/python"))
        .arg(script)
        .arg(lake.join("tables/shop/items"))
        .arg(appears)
        .arg("id = 3")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(writer.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "ready");
    let ran = project.run_armed(&["transform"], "transform::before_commit=1*sleep(3000)");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(writer.wait().unwrap().success());
    assert!(ran.stderr.contains("planning again"), "{}", ran.stderr);

    let rows = project.sql("SELECT id, updated FROM shop.items ORDER BY id");
    let mut expected: BTreeMap<i64, i64> = (0..28).map(|id| (id, 100 + id)).collect();
    expected.remove(&3);
    expected.extend([(5, 300), (50, 300), (7, 400), (60, 400)]);
    let expected: Vec<Value> = expected
        .into_iter()
        .map(|(id, updated)| json!({"id": id, "updated": updated}))
        .collect();
    assert_eq!(rows, expected);
    // Each load is told once, although one of them was planned twice.
    assert_eq!(
        project.sql("SELECT count(*) n FROM landfall.loads"),
        [json!({"n": 3})]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_the_same_on_s3() {
    let server = s3::start().await;
    let lake = server.lake("lake");
    tokio::task::spawn_blocking(move || on_lake(lake, raw_expires_once_it_is_loaded))
        .await
        .unwrap();
}
