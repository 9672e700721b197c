//! Raw batches that memory has no room for, loaded by a process of their own whose memory is measured.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Output},
    sync::Arc,
};

use bytes::Bytes;
use landfall::{
    clock::{Clock, Timestamp},
    config::{Project, StreamName, read as read_project},
    ops::{Workspace, transform::transform},
    raw::{Bookmark, Page, PageFacts, log::BatchKind, write::Landing},
};
use serde_json::{Value, json};

use crate::support::project::{ITEMS_CONTRACT, TestProject};

/// Names the folder of the project to load; without it [`loads_the_project_that_it_is_told_of`] has nothing to do.
const LOADED: &str = "LANDFALL_TEST_LOADED";

/// Names its memory limit, in bytes.
const LIMIT: &str = "LANDFALL_TEST_LIMIT";

/// Memory limit of the loads.
const MEMORY_BYTES: u64 = 8 << 20;

/// What a load takes beside its limit, however small that is: on each of two cores a page and the one after it (4 MiB each)
/// and 8,192 records of 1 KB while they are judged, with the columns that they become, 12 MiB twice over; and of the files
/// that are written the row group being gathered and the one being encoded, 32 MiB at most each, with its encoded columns.
const WORKING_BYTES: u64 = 128 << 20;

const RECORD_BYTES: usize = 1_000;

/// Records of a raw batch that is ten times the limit.
const RECORDS: usize = 10 * MEMORY_BYTES as usize / RECORD_BYTES;

/// Records of one page.
const PAGE_RECORDS: usize = 4_000;

fn project(table: &str) -> TestProject {
    let streams = format!(
        "
      items:
        request: {{ path: /items }}
        records: $.data[*]
        table: {table}
"
    );
    let project = TestProject::with_lake("http://127.0.0.1:9", &streams, "lake: ./lake");
    project.write("contracts/shop.items.odcs.yaml", ITEMS_CONTRACT);
    project
}

const UPSERT: &str = "{ keys: [id], sequence_by: [updated], apply_as_deletes: deleted = true }";

fn workspace(dir: &Path, memory_bytes_max: u64) -> Workspace {
    let project = read_project::load(dir).unwrap().project;
    let project = Project {
        memory_bytes_max,
        ..project
    };
    Workspace::open(project, Clock::system()).unwrap()
}

fn stream() -> StreamName {
    StreamName::parse("shop.items").unwrap()
}

/// Key and sequence: keys come in no order, and the last tenth of the records repeats some of them.
fn record(number: usize, records: usize, updated: usize) -> (usize, usize) {
    let keys = records - records / 10;
    (number * 7_919 % keys, updated + number / keys)
}

/// One record in a thousand has no name, and so does not fit.
fn is_named(number: usize) -> bool {
    number % 1_000 != 999
}

/// How many rows there are of these batches and the sum of their sequences, as the query below gives them.
fn expected(batches: &[(usize, usize)]) -> Vec<Value> {
    let mut rows: BTreeMap<usize, usize> = BTreeMap::new();
    for (records, updated) in batches {
        for number in (0..*records).filter(|number| is_named(*number)) {
            let (id, updated) = record(number, *records, *updated);
            let newest = rows.entry(id).or_default();
            *newest = updated.max(*newest);
        }
    }
    vec![json!({"n": rows.len(), "d": rows.len(), "s": rows.values().sum::<usize>()})]
}

const ROWS: &str = "SELECT count(*) n, count(DISTINCT id) d, sum(updated) s FROM shop.items";

/// Lands `records` from the sequence `updated` on as one raw batch.
async fn land(project: &TestProject, records: usize, updated: usize) {
    land_named(project, records, updated, is_named).await;
}

/// The same with names for those records that `is_named` says.
async fn land_named(project: &TestProject, records: usize, updated: usize, is_named: fn(usize) -> bool) {
    let workspace = workspace(project.path(), MEMORY_BYTES);
    let mut landing = Landing::open(
        Arc::clone(&workspace.store),
        stream(),
        workspace.clock.clone(),
        "run".to_owned(),
        "hash".to_owned(),
    )
    .await
    .unwrap();
    let name = "name ".repeat(RECORD_BYTES / 5);
    let numbers: Vec<usize> = (0..records).collect();
    for numbers in numbers.chunks(PAGE_RECORDS) {
        let told = |number: &usize| {
            let (id, updated) = record(*number, records, updated);
            json!({"id": id, "updated": updated, "name": is_named(*number).then_some(&name)})
        };
        let body = json!({"data": numbers.iter().map(told).collect::<Vec<_>>()}).to_string();
        let facts = PageFacts::new(Timestamp::UNIX_EPOCH, "GET", "http://127.0.0.1:9/items", 200);
        let body = Bytes::from(body);
        landing.append(Page { body, facts }).await.unwrap();
    }
    let bookmark = Bookmark::default();
    landing.commit(BatchKind::Pull, bookmark, None).await.unwrap();
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(work)
}

/// No claim of its own: the part of the tests below that runs in another process.
#[test]
fn loads_the_project_that_it_is_told_of() {
    let Some(dir) = std::env::var_os(LOADED) else {
        return;
    };
    landfall::failpoint::arm();
    let done = wait(async {
        let limit = std::env::var(LIMIT).unwrap();
        let workspace = workspace(Path::new(&dir), limit.parse().unwrap());
        let outcomes = transform(&workspace, &[stream()]).await;
        outcomes.into_iter().next().unwrap().result.unwrap()
    });
    assert_eq!(done.read, done.merged + done.superseded + done.quarantined);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    println!(
        "\ntold {} {} {} {}",
        peak.split_whitespace().nth(1).unwrap(),
        done.merged,
        done.superseded,
        done.quarantined
    );
}

fn load(project: &TestProject, memory_bytes_max: u64, failpoints: &str) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "memory::loads_the_project_that_it_is_told_of",
        "--exact",
        "--nocapture",
    ]);
    command
        .env(LOADED, project.path())
        .env(LIMIT, memory_bytes_max.to_string())
        .env("FAILPOINTS", failpoints);
    command.output().unwrap()
}

/// Peak memory in bytes, and how many records were merged, superseded and quarantined.
fn told(output: &Output) -> (u64, [u64; 3]) {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("told "));
    let line = line.unwrap_or_else(|| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr)));
    let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().unwrap()).collect();
    (numbers[0] << 10, [numbers[1], numbers[2], numbers[3]])
}

fn scratch_files(project: &TestProject) -> usize {
    project.files(".landfall/spool").len()
}

#[test]
fn f140_a_raw_batch_of_ten_times_the_memory_limit_is_merged_within_it() {
    let small = project(UPSERT);
    wait(land(&small, 100, 1));
    let (usual, _) = told(&load(&small, MEMORY_BYTES, ""));
    let large = project(UPSERT);
    // A table to merge into, and then all of its keys and very many more.
    wait(land(&large, 5_000, 1));
    wait(land(&large, RECORDS, 10));
    let ran = load(&large, MEMORY_BYTES, "");
    let (peak, counts) = told(&ran);
    let aside = (RECORDS / 1_000 + 5) as u64;
    assert_eq!(counts[2], aside);
    assert_eq!(counts.iter().sum::<u64>(), (RECORDS + 5_000) as u64);
    assert_eq!(large.sql(ROWS), expected(&[(5_000, 1), (RECORDS, 10)]));
    let most = usual + MEMORY_BYTES + WORKING_BYTES;
    assert!(peak < most, "{} MiB of {} MiB", peak >> 20, most >> 20);
    assert_eq!(scratch_files(&large), 0);
}

#[test]
fn f140_killed_between_slices_the_rerun_has_the_rows_and_no_files_stay() {
    let project = project(UPSERT);
    let records = 12_000;
    wait(land(&project, records, 1));
    let killed = load(&project, LIMIT_BYTES, "table::after_slice=2*off->return");
    assert_eq!(
        killed.status.code(),
        None,
        "{}",
        String::from_utf8_lossy(&killed.stderr)
    );
    assert_eq!(scratch_files(&project), 0);
    assert_eq!(
        project.sql("SELECT count(*) n FROM shop.items"),
        [json!({"n": 0})]
    );
    let (_, counts) = told(&load(&project, LIMIT_BYTES, ""));
    assert_eq!(counts.iter().sum::<u64>(), records as u64);
    assert_eq!(project.sql(ROWS), expected(&[(records, 1)]));
    assert_eq!(scratch_files(&project), 0);
}

/// A limit under which a quarter of the records below goes to files; what a second load reads takes ten megabytes.
const LIMIT_BYTES: u64 = 12 << 20;

#[test]
fn versions_and_events_that_memory_has_no_room_for_are_all_there() {
    let records = 6_000;
    for (table, rows) in [
        (
            "{ keys: [id], sequence_by: [updated], scd_type: 2 }",
            "WHERE _current",
        ),
        ("{ scd_type: append }", ""),
    ] {
        let project = project(table);
        wait(land(&project, records, 1));
        let (_, counts) = told(&load(&project, LIMIT_BYTES, ""));
        assert_eq!(counts, [records as u64 - 6, 0, 6], "{table}");
        let all = project.sql("SELECT count(*) n FROM shop.items");
        assert_eq!(all, [json!({"n": records - 6})], "{table}");
        let current = project.sql(&format!("SELECT count(DISTINCT id) d FROM shop.items {rows}"));
        let expected = expected(&[(records, 1)]);
        assert_eq!(current, [json!({"d": expected[0]["d"]})], "{table}");
    }
}

#[test]
fn quarantined_records_that_memory_has_no_room_for_are_all_there() {
    let project = project(UPSERT);
    wait(land_named(&project, 12_000, 1, |_| false));
    let (_, counts) = told(&load(&project, LIMIT_BYTES, ""));
    assert_eq!(counts, [0, 0, 12_000]);
    let rows = project.sql(
        "SELECT count(*) n, count(DISTINCT _lf_page * 10000 + _lf_record) d FROM shop.items__quarantine",
    );
    assert_eq!(rows, [json!({"n": 12_000, "d": 12_000})]);
}
