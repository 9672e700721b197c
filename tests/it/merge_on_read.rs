//! Tables whose loads mark rows in deletion vectors, through the real program and as other readers see them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use crate::support::{
    answers::Answers,
    project::TestProject,
    python::{Reader, read_table, refused},
};

/// A source whose records can be changed between runs, and a project that loads them.
struct Items {
    _api: Answers,
    records: Arc<Mutex<Vec<Value>>>,
    project: TestProject,
}

const MARKED: &str = "keys: [id], sequence_by: [updated], write_mode: merge_on_read";

/// Everything is old at once.
const AT_ONCE: &str = "lake: ./lake\nmaintain: { compact_after: 1ms, vacuum_after: 1ms, log_after: 1ms }";

fn record(id: i64, updated: i64, name: &str) -> Value {
    json!({"id": id, "updated": updated, "name": name, "share": id as f64 / 7.0})
}

impl Items {
    fn new(table: &str) -> Self {
        let records: Arc<Mutex<Vec<Value>>> = Arc::default();
        let told = Arc::clone(&records);
        let api = Answers::start(move |_| json!({"data": *told.lock().unwrap()}).into());
        let project = TestProject::with_lake(&api.base_url, &streams(table), AT_ONCE);
        Self {
            _api: api,
            records,
            project,
        }
    }

    /// Lands what the source has now.
    fn land(&self, records: impl IntoIterator<Item = Value>) {
        *self.records.lock().unwrap() = records.into_iter().collect();
        self.project.ok(&["extract"]);
    }

    fn load(&self, records: impl IntoIterator<Item = Value>) {
        self.land(records);
        self.project.ok(&["transform"]);
    }

    /// Settings of the table from now on.
    fn set(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.project.path().join("landfall.yml")).unwrap();
        assert!(text.contains(from), "{text}");
        self.project.write("landfall.yml", &text.replace(from, to));
    }

    fn table(&self) -> PathBuf {
        self.project.path().join("lake/tables/shop/items")
    }

    /// The data files of the newest version, by the commits of the log alone, and the deletion vector of each.
    fn live(&self) -> BTreeMap<String, Option<Value>> {
        let mut live = BTreeMap::new();
        let files = self.project.files("lake/tables/shop/items/_delta_log");
        for commit in files
            .iter()
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
        {
            let text = std::fs::read_to_string(commit).unwrap();
            let actions: Vec<Value> = text
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            let path = |action: &Value| action["path"].as_str().unwrap().to_owned();
            for removed in actions.iter().filter_map(|action| action.get("remove")) {
                let before: Option<Value> = live.remove(&path(removed)).unwrap();
                assert_eq!(
                    before.as_ref(),
                    removed.get("deletionVector"),
                    "the file as it was"
                );
            }
            for added in actions.iter().filter_map(|action| action.get("add")) {
                let vector = added.get("deletionVector").filter(|vector| !vector.is_null());
                assert_eq!(live.insert(path(added), vector.cloned()), None, "twice");
                if let Some(vector) = vector {
                    let stats: Value = serde_json::from_str(added["stats"].as_str().unwrap()).unwrap();
                    assert_eq!(stats["tightBounds"], false);
                    let left =
                        stats["numRecords"].as_i64().unwrap() - vector["cardinality"].as_i64().unwrap();
                    assert!(left > 0, "{added}");
                }
            }
        }
        live
    }

    /// Files beside the data that say which rows are deleted.
    fn vector_files(&self) -> BTreeSet<PathBuf> {
        let files = self.project.files("lake/tables/shop/items").into_iter();
        files
            .filter(|path| path.extension().is_some_and(|end| end == "bin"))
            .collect()
    }

    fn rows(&self) -> Vec<Value> {
        let columns = "SELECT id, updated, name FROM shop.items";
        self.project
            .sql(&format!("{columns} WHERE NOT _deleted ORDER BY id, updated"))
    }
}

fn streams(table: &str) -> String {
    format!(
        r"
      items:
        request: {{ path: /items }}
        records: $.data[*]
        table: {{ {table} }}
"
    )
}

fn rows_of(records: &BTreeMap<i64, (i64, &str)>) -> Vec<Value> {
    let rows = records.iter();
    rows.map(|(id, (updated, name))| json!({"id": id, "updated": updated, "name": name}))
        .collect()
}

/// Every third record, scattered by a step that shares nothing with three.
fn scattered(rows: i64) -> impl Iterator<Item = i64> {
    (0..rows / 3).map(move |number| number * 7 % rows)
}

const ROWS: i64 = 6_000;

#[test]
fn readers_nobody_here_wrote_leave_marked_rows_out_or_refuse() {
    let items = Items::new(MARKED);
    items.load((0..ROWS).map(|id| record(id, 1, "first")));
    let changed: BTreeSet<i64> = scattered(ROWS).collect();
    items.load(changed.iter().map(|id| record(*id, 2, "second")));
    items.load([record(0, 3, "third"), record(ROWS, 3, "new")]);
    let vectors: Vec<Value> = items.live().into_values().flatten().collect();
    let kinds: BTreeSet<&str> = vectors
        .iter()
        .map(|vector| vector["storageType"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, BTreeSet::from(["i", "u"]), "both kinds: {vectors:?}");
    let mut expected: Vec<String> = (0..=ROWS)
        .map(|id| {
            let (updated, name) = match id {
                0 => (3, "third"),
                ROWS => (3, "new"),
                id if changed.contains(&id) => (2, "second"),
                _ => (1, "first"),
            };
            format!(r#"{{"id":{id},"updated":{updated},"name":"{name}"}}"#)
        })
        .collect();
    expected.sort();
    let read_by_others = || {
        for reader in [Reader::DeltalakeSql, Reader::Polars, Reader::Duckdb] {
            let seen = read_table(reader, &items.table(), &["id", "updated", "name"]);
            assert!(seen == expected, "{reader:?}: {} rows", seen.len());
        }
        let words = refused(Reader::Deltalake, &items.table());
        assert!(words.contains("deletionVectors"), "{words}");
    };
    read_by_others();
    // From a checkpoint, too.
    for _ in 0..8 {
        items.load([record(0, 3, "third")]);
    }
    items.project.ok(&["maintain", "--only", "checkpoint,logs"]);
    let log = items.project.files("lake/tables/shop/items/_delta_log");
    assert!(log.len() < 5, "{log:?}");
    read_by_others();
}

#[test]
fn a_load_that_dies_with_rows_marked_and_not_committed_changes_nothing_and_is_made_again() {
    let items = Items::new(MARKED);
    items.load((0..ROWS).map(|id| record(id, 1, "first")));
    let before = items.rows();
    items.land(scattered(ROWS).map(|id| record(id, 2, "second")));
    let killed = items.project.run_armed(&["transform"], "merge::marked=return");
    assert_eq!(killed.code, None, "{}", killed.stderr);
    let left = items.vector_files();
    assert_eq!((left.len(), items.rows() == before), (1, true));
    items.project.ok(&["transform"]);
    let mut expected: BTreeMap<i64, (i64, &str)> = (0..ROWS).map(|id| (id, (1, "first"))).collect();
    expected.extend(scattered(ROWS).map(|id| (id, (2, "second"))));
    assert_eq!(items.rows(), rows_of(&expected));
    items.project.ok(&["verify"]);
    // What the dead load left goes with the next vacuum, and what counts stays.
    items.project.ok(&["maintain", "--only", "vacuum"]);
    let kept = items.vector_files();
    assert_eq!(kept.len(), 1);
    assert!(kept.is_disjoint(&left));
    assert_eq!(items.rows(), rows_of(&expected));
}

#[test]
fn maintenance_takes_marks_up_and_vacuum_deletes_only_vectors_that_no_version_needs() {
    let items = Items::new(MARKED);
    items.load((0..ROWS).map(|id| record(id, 1, "first")));
    let mut expected: BTreeMap<i64, (i64, &str)> = (0..ROWS).map(|id| (id, (1, "first"))).collect();
    for load in 0..4_i64 {
        let changed: Vec<i64> = scattered(ROWS).filter(|id| id % 4 == load).collect();
        items.load(changed.iter().map(|id| record(*id, 10 + load, "again")));
        expected.extend(changed.iter().map(|id| (*id, (10 + load, "again"))));
    }
    assert_eq!(items.vector_files().len(), 4);
    items.project.ok(&["maintain", "--only", "checkpoint,vacuum"]);
    let needed = items
        .live()
        .into_values()
        .flatten()
        .filter(|vector| vector["storageType"] == "u")
        .count();
    assert_eq!(
        (items.vector_files().len(), needed),
        (1, 1),
        "that of the newest version"
    );
    assert_eq!(items.rows(), rows_of(&expected));
    let told = items.project.ok(&["maintain", "--only", "compact,vacuum"]).stderr;
    assert!(
        items.live().into_values().all(|vector| vector.is_none()),
        "{told}"
    );
    items.project.ok(&["maintain", "--only", "vacuum"]);
    assert_eq!(items.vector_files(), BTreeSet::new());
    assert_eq!(items.rows(), rows_of(&expected));
    items.project.ok(&["verify"]);
}

#[test]
fn the_key_is_turned_on_and_off_under_a_table_that_stands() {
    let items = Items::new("keys: [id], sequence_by: [updated]");
    items.load((0..100).map(|id| record(id, 1, "first")));
    items.load([record(3, 2, "rewritten")]);
    assert!(items.live().into_values().all(|vector| vector.is_none()));
    items.set(
        "sequence_by: [updated]",
        "sequence_by: [updated], write_mode: merge_on_read",
    );
    // A new column comes with the commit that names the feature.
    let mut wide = record(4, 2, "marked");
    wide["extra"] = json!(5);
    items.load([wide]);
    assert_eq!(items.live().into_values().flatten().count(), 1);
    items.load([record(5, 2, "marked")]);
    items.set(", write_mode: merge_on_read", "");
    items.load([record(200, 2, "added")]);
    assert_eq!(
        items.live().into_values().flatten().count(),
        1,
        "a load that does not touch the file"
    );
    let mut expected: BTreeMap<i64, (i64, &str)> = (0..100).map(|id| (id, (1, "first"))).collect();
    expected.extend([
        (3, (2, "rewritten")),
        (4, (2, "marked")),
        (5, (2, "marked")),
        (200, (2, "added")),
    ]);
    assert_eq!(items.rows(), rows_of(&expected));
    items.project.ok(&["maintain", "--only", "compact"]);
    assert!(items.live().into_values().all(|vector| vector.is_none()));
    assert_eq!(items.rows(), rows_of(&expected));
    items.project.ok(&["verify"]);
}

#[test]
fn a_rebuilt_table_has_the_same_rows_and_no_marks() {
    for table in [
        MARKED,
        "keys: [id], sequence_by: [updated], write_mode: merge_on_read, scd_type: 2",
    ] {
        let items = Items::new(table);
        items.load((0..100).map(|id| record(id, 1, "first")));
        items.load((0..100).step_by(9).map(|id| record(id, 2, "second")));
        let every = "SELECT * FROM shop.items ORDER BY id, updated";
        let without = |mut rows: Vec<Value>| {
            for row in &mut rows {
                row.as_object_mut().unwrap().remove("_lf_loaded_at");
            }
            rows
        };
        let before = without(items.project.sql(every));
        // With another layout the live table cannot stay.
        items.set("write_mode", "partition_by: [name], write_mode");
        let told = items.project.ok(&["rebuild", "shop.items", "--promote"]).stderr;
        assert_eq!(without(items.project.sql(every)), before);
        assert!(
            items.live().into_values().all(|vector| vector.is_none()),
            "{table}: {told}"
        );
        items.load([record(1, 3, "third")]);
        assert_eq!(items.live().into_values().flatten().count(), 1);
        items.project.ok(&["verify"]);
        // Made where there is none, it is one that every reader reads.
        let before = without(items.project.sql(every));
        std::fs::remove_dir_all(items.table()).unwrap();
        items.project.ok(&["rebuild", "shop.items", "--promote"]);
        assert_eq!(
            read_table(Reader::Deltalake, &items.table(), &["id"]).len(),
            before.len()
        );
        assert_eq!(without(items.project.sql(every)), before);
    }
}

#[test]
fn a_dry_run_leaves_the_files_of_the_table_alone() {
    let items = Items::new(MARKED);
    items.load((0..ROWS).map(|id| record(id, 1, "first")));
    let files = items.project.files("lake/tables/shop/items");
    items.land(scattered(ROWS).map(|id| record(id, 2, "second")));
    items.project.ok(&["transform", "--dry-run"]);
    assert_eq!(items.project.files("lake/tables/shop/items"), files);
    assert_eq!(items.rows().len() as i64, ROWS);
}

#[test]
fn rows_that_a_complete_pass_did_not_bring_are_marked() {
    for deletes in ["soft", "hard"] {
        let table = format!("{MARKED}, delete_absent: true, delete_ratio_max: 0.5, deletes: {deletes}");
        let items = Items::new(&table);
        items.load((0..50).map(|id| record(id, 1, "first")));
        *items.records.lock().unwrap() = (0..50)
            .filter(|id| id % 5 > 0)
            .map(|id| record(id, 1 + id % 2, "again"))
            .collect();
        items.project.ok(&["extract", "--complete"]);
        items.project.ok(&["transform"]);
        assert_eq!(items.rows().len(), 40, "{deletes}");
        let gone = items
            .project
            .sql("SELECT count(*) AS n FROM shop.items WHERE _deleted");
        assert_eq!(
            gone,
            [json!({"n": if deletes == "soft" { 10 } else { 0 }})],
            "{deletes}"
        );
        // An older version does not bring one back, a newer one does.
        items.load([record(5, 0, "late"), record(10, 9, "back")]);
        let rows = items.rows();
        assert_eq!(rows.len(), 41, "{deletes}");
        assert!(
            rows.contains(&json!({"id": 10, "updated": 9, "name": "back"})),
            "{deletes}"
        );
        items.project.ok(&["explain", "shop.items", "id=10"]);
        items.project.ok(&["verify"]);
    }
}
