//! What becomes of older versions and of rows that go away, through the real program.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::{answers::Answers, project::TestProject};

/// A source whose records can be changed between runs; answers what was updated at or after `since`.
fn source(records: &Arc<Mutex<Vec<Value>>>) -> Answers {
    let records = Arc::clone(records);
    Answers::start(move |asked| {
        let since: i64 = asked.param("since").parse().unwrap_or(i64::MIN);
        let data: Vec<Value> = records
            .lock()
            .unwrap()
            .iter()
            .filter(|record| record["updated"].as_i64().unwrap() >= since)
            .cloned()
            .collect();
        json!({ "data": data }).into()
    })
}

fn record(id: i64, updated: i64, name: &str) -> Value {
    json!({"id": id, "updated": updated, "name": name})
}

fn records(all: impl IntoIterator<Item = Value>) -> Arc<Mutex<Vec<Value>>> {
    Arc::new(Mutex::new(all.into_iter().collect()))
}

fn stream(table: &str) -> String {
    format!(
        r"
      items:
        request: {{ path: /items }}
        records: $.data[*]
        incremental: {{ cursor: $.updated, param: since, format: integer }}
        table: {{ keys: [id], sequence_by: [updated], {table} }}
"
    )
}

const LIVE: &str = "SELECT id, updated, name FROM shop.items WHERE NOT _deleted ORDER BY id";

#[test]
fn r066_r067_f054_a_complete_pass_finds_what_is_missing_changed_and_gone() {
    let source_of_truth = records((0..20).map(|id| record(id, 100 + id, "a")));
    let api = source(&source_of_truth);
    let project = TestProject::new(
        &api.base_url,
        &stream("delete_absent: true, delete_ratio_max: 0.1"),
    );
    project.ok(&["run"]);
    {
        let mut records = source_of_truth.lock().unwrap();
        // None of these moves past the watermark: no question for changes brings them.
        records.retain(|record| record["id"] != 7);
        records[3] = record(3, 104, "edited");
        records.push(record(50, 60, "late"));
    }
    project.ok(&["run"]);
    assert_eq!(
        project.sql("SELECT count(*) n FROM shop.items WHERE NOT _deleted"),
        [json!({"n": 20})]
    );

    project.ok(&["extract", "--complete"]);
    let found = "complete pass: 1 missing, 1 changed, 1 gone of 21 rows";
    let told = project.ok(&["transform", "--dry-run"]).stderr;
    assert!(
        told.contains("would load 20 read") && told.contains(found),
        "{told}"
    );
    assert_eq!(
        project.sql("SELECT count(*) n FROM shop.items WHERE NOT _deleted"),
        [json!({"n": 20})]
    );
    let ran = project.ok(&["transform"]);
    assert!(ran.stderr.contains(found), "{}", ran.stderr);
    let mut expected: Vec<Value> = source_of_truth.lock().unwrap().clone();
    expected.sort_by_key(|record| record["id"].as_i64());
    assert_eq!(project.sql(LIVE), expected);
    // What it deleted is still there to be looked at, with the bytes it was made from.
    assert_eq!(
        project.sql("SELECT id, name FROM shop.items WHERE _deleted"),
        [json!({"id": 7, "name": "a"})]
    );
    project.ok(&["explain", "shop.items", "id=7"]);
    // It comes back as soon as the source has it again.
    source_of_truth.lock().unwrap().push(record(7, 200, "back"));
    project.ok(&["run"]);
    assert_eq!(
        project.sql("SELECT id FROM shop.items WHERE _deleted"),
        Vec::<Value>::new()
    );
    project.ok(&["verify"]);
}

#[test]
fn f143_half_of_the_source_deletes_nothing_and_says_so() {
    let source_of_truth = records((0..20).map(|id| record(id, 100 + id, "a")));
    let api = source(&source_of_truth);
    let project = TestProject::new(&api.base_url, &stream("delete_absent: true, deletes: hard"));
    project.ok(&["run"]);
    source_of_truth.lock().unwrap().truncate(10);
    project.ok(&["extract", "--complete"]);
    let ran = project.ok(&["transform"]);
    assert!(
        ran.stderr.contains("10 rows that the pass did not bring stay"),
        "{}",
        ran.stderr
    );
    assert_eq!(
        project.sql("SELECT count(*) n FROM shop.items"),
        [json!({"n": 20})]
    );
    assert_eq!(
        project.sql("SELECT absent, absent_held FROM landfall.loads ORDER BY batch_to DESC LIMIT 1"),
        [json!({"absent": 0, "absent_held": 10})]
    );
    project.ok(&["verify"]);
}

#[test]
fn a_record_that_cannot_be_read_is_not_taken_for_a_row_that_went() {
    let source_of_truth = records((0..20).map(|id| record(id, 100 + id, "a")));
    let api = source(&source_of_truth);
    let project = TestProject::new(&api.base_url, &stream("delete_absent: true, deletes: hard"));
    project.ok(&["run"]);
    // One row's name became a number; another one went.
    source_of_truth.lock().unwrap()[4]["name"] = json!({"first": "a"});
    source_of_truth.lock().unwrap().remove(9);
    project.ok(&["extract", "--complete"]);
    project.ok(&["transform"]);
    let ids = project.sql("SELECT id FROM shop.items ORDER BY id");
    assert_eq!(ids.len(), 19);
    assert!(ids.contains(&json!({"id": 4})) && !ids.contains(&json!({"id": 9})));
    // Without its key nobody knows which row it is: then none goes.
    source_of_truth.lock().unwrap()[4] = json!({"id": "four", "updated": 300, "name": "a"});
    source_of_truth.lock().unwrap().remove(11);
    project.ok(&["extract", "--complete"]);
    project.ok(&["transform"]);
    assert_eq!(
        project.sql("SELECT count(*) n FROM shop.items"),
        [json!({"n": 19})]
    );
    project.ok(&["verify"]);
}

#[test]
fn history_keeps_every_version_with_its_span() {
    let source_of_truth = records([record(1, 10, "a"), record(2, 10, "b")]);
    let api = source(&source_of_truth);
    let project = TestProject::new(&api.base_url, &stream("scd_type: 2"));
    project.ok(&["run"]);
    source_of_truth.lock().unwrap()[0] = record(1, 20, "c");
    project.ok(&["run"]);
    // Late: between the two that are there.
    source_of_truth.lock().unwrap()[0] = record(1, 15, "b");
    project.ok(&["extract", "--complete"]);
    project.ok(&["transform"]);
    assert_eq!(
        project.sql("SELECT id, name, _valid_from f, _valid_to t, _current c FROM shop.items ORDER BY id, f"),
        [
            json!({"id": 1, "name": "a", "f": 10, "t": 15, "c": false}),
            json!({"id": 1, "name": "b", "f": 15, "t": 20, "c": false}),
            json!({"id": 1, "name": "c", "f": 20, "t": null, "c": true}),
            json!({"id": 2, "name": "b", "f": 10, "t": null, "c": true}),
        ]
    );
    project.ok(&["verify"]);
}

#[test]
fn replace_is_the_last_complete_pass() {
    let source_of_truth = records([record(1, 10, "a"), record(1, 10, "a")]);
    let api = source(&source_of_truth);
    let streams = r"
      items:
        request: { path: /items }
        records: $.data[*]
        table: { scd_type: replace }
";
    let project = TestProject::new(&api.base_url, streams);
    project.ok(&["run"]);
    assert_eq!(
        project.sql("SELECT id, name FROM shop.items"),
        [json!({"id": 1, "name": "a"}), json!({"id": 1, "name": "a"})]
    );
    *source_of_truth.lock().unwrap() = vec![record(2, 11, "b")];
    project.ok(&["extract"]);
    *source_of_truth.lock().unwrap() = vec![record(3, 12, "c")];
    project.ok(&["extract"]);
    project.ok(&["transform"]);
    assert_eq!(
        project.sql("SELECT id, name FROM shop.items"),
        [json!({"id": 3, "name": "c"})]
    );
    assert_eq!(
        project
            .sql("SELECT records_read, merged, superseded, replaced FROM landfall.loads ORDER BY batch_to"),
        [
            json!({"records_read": 2, "merged": 2, "superseded": 0, "replaced": 0}),
            json!({"records_read": 1, "merged": 1, "superseded": 0, "replaced": 2}),
            json!({"records_read": 1, "merged": 1, "superseded": 0, "replaced": 1}),
        ]
    );
    project.ok(&["verify"]);
}

#[test]
fn changes_and_a_complete_pass_in_one_transform_are_two_loads() {
    let source_of_truth = records((0..20).map(|id| record(id, 100 + id, "a")));
    let api = source(&source_of_truth);
    let project = TestProject::new(&api.base_url, &stream("delete_absent: true"));
    project.ok(&["run"]);
    // Row 3 changes and is landed, then goes; both are transformed together.
    source_of_truth.lock().unwrap()[3] = record(3, 130, "b");
    project.ok(&["extract"]);
    source_of_truth.lock().unwrap().remove(3);
    project.ok(&["extract", "--complete"]);
    project.ok(&["transform"]);
    let gone = "SELECT id, name FROM shop.items WHERE _deleted";
    assert_eq!(project.sql(gone), [json!({"id": 3, "name": "b"})]);
    project.ok(&["verify"]);
}

#[test]
fn nothing_older_brings_a_row_back_although_deletions_are_soft_now() {
    let source_of_truth = records((0..20).map(|id| record(id, 100 + id, "a")));
    let api = source(&source_of_truth);
    let project = TestProject::new(&api.base_url, &stream("delete_absent: true, deletes: hard"));
    project.ok(&["run"]);
    let row = source_of_truth.lock().unwrap().remove(3);
    project.ok(&["extract", "--complete"]);
    project.ok(&["transform"]);
    let text = std::fs::read_to_string(project.path().join("landfall.yml")).unwrap();
    project.write("landfall.yml", &text.replace("deletes: hard", "deletes: soft"));
    // An older state of it, as a late message would bring it.
    source_of_truth
        .lock()
        .unwrap()
        .push(json!({"id": row["id"], "updated": 50, "name": "old"}));
    project.ok(&["run", "--complete"]);
    assert_eq!(
        project.sql("SELECT id FROM shop.items WHERE id = 3"),
        Vec::<Value>::new()
    );
}

#[test]
fn a_table_does_not_change_its_kind_of_history_by_itself() {
    let source_of_truth = records([record(1, 10, "a")]);
    let api = source(&source_of_truth);
    let project = TestProject::new(&api.base_url, &stream("scd_type: 1"));
    project.ok(&["run"]);
    let text = std::fs::read_to_string(project.path().join("landfall.yml")).unwrap();
    project.write("landfall.yml", &text.replace("scd_type: 1", "scd_type: 2"));
    source_of_truth.lock().unwrap()[0] = record(1, 20, "b");
    let ran = project.run(&["run"]);
    assert_eq!(ran.code, Some(3));
    assert!(
        ran.stderr.contains("landfall rebuild --promote"),
        "{}",
        ran.stderr
    );
}

#[test]
fn r115_r116_a_draft_takes_new_fields_and_old_queries_still_work() {
    let source_of_truth = records([record(1, 10, "a")]);
    let api = source(&source_of_truth);
    let project = TestProject::new(&api.base_url, &stream("scd_type: 1"));
    project.ok(&["run"]);
    let query = "SELECT id, name FROM shop.items ORDER BY id";
    assert_eq!(project.sql(query), [json!({"id": 1, "name": "a"})]);
    source_of_truth.lock().unwrap().push(json!({"id": 2, "updated": 20, "name": "b", "email": {"work": "b@shop.example"}, "since": "2026-01-02"}));
    project.ok(&["run"]);
    assert_eq!(
        project.sql("SELECT id, email.work AS work, since, _rescued FROM shop.items ORDER BY id"),
        [
            json!({"id": 1, "work": null, "since": null, "_rescued": null}),
            json!({"id": 2, "work": "b@shop.example", "since": "2026-01-02", "_rescued": null}),
        ]
    );
    assert_eq!(project.sql(query).len(), 2);
    let contract = project.path().join("contracts/shop.items.odcs.yaml");
    let draft = std::fs::read_to_string(&contract).unwrap();
    assert!(
        draft.contains("email") && draft.contains(r#"version: "0.2.0""#),
        "{draft}"
    );
    project.ok(&["verify"]);
    let drift = project.sql("SELECT path, effect FROM landfall.drift WHERE kind = 'unknown' ORDER BY path");
    assert!(
        drift.contains(&json!({"path": "since", "effect": "accepted"})),
        "{drift:?}"
    );

    // Pinned, it stays as it is: what is new is kept, and counted.
    std::fs::write(&contract, draft.replace("status: draft", "status: active")).unwrap();
    source_of_truth
        .lock()
        .unwrap()
        .push(json!({"id": 3, "updated": 30, "name": "c", "phone": "1"}));
    project.ok(&["run"]);
    assert_eq!(
        project.sql("SELECT _rescued FROM shop.items WHERE id = 3"),
        [json!({"_rescued": r#"{"phone":"1"}"#})]
    );
}

#[test]
fn a_pass_that_was_begun_again_replaces_nothing() {
    let failing = Arc::new(Mutex::new(true));
    let state = Arc::clone(&failing);
    let api = Answers::start(move |asked| match asked.param("shop") {
        "c" if *state.lock().unwrap() => crate::support::answers::Answer::status(403),
        shop => json!({"data": [{"id": 1, "shop": shop}]}).into(),
    });
    let streams = r#"
      items:
        request: { path: /items, params: { shop: "{{ slice.shop }}" } }
        records: $.data[*]
        slices: { by: { list: shop, values: [a, b, c] } }
        table: { scd_type: replace }
"#;
    let project = TestProject::new(&api.base_url, streams);
    assert_eq!(project.run(&["run"]).code, Some(1));
    *failing.lock().unwrap() = false;
    project.ok(&["run"]);
    // The slices of the first attempt are in raw twice; a table with rows twice would be worse than none.
    let count = "SELECT count(*) n FROM shop.items";
    assert_eq!(project.sql(count), [json!({"n": 0})]);
    project.ok(&["run"]);
    assert_eq!(project.sql(count), [json!({"n": 3})]);
}

#[test]
fn r075_a_version_number_counts_before_a_wall_clock_and_append_keeps_every_event() {
    // The clock of the second writer is an hour behind: what it writes later has an earlier time.
    let event =
        |revision: i64, at: &str, by: &str| json!({"id": 1, "revision": revision, "at": at, "by": by});
    let events = [
        event(1, "2026-11-22T10:00:00Z", "first"),
        event(2, "2026-11-22T10:05:00Z", "first again"),
        event(3, "2026-11-22T09:10:00Z", "second"),
    ];
    let all = ["first", "first again", "second"];
    for (table, expected) in [
        ("keys: [id], sequence_by: [revision, at]", &all[2..]),
        // What the reference warns of: the writer whose clock is ahead wins.
        ("keys: [id], sequence_by: [at]", &all[1..2]),
        ("scd_type: append", &all[..]),
    ] {
        for order in [[0, 1, 2], [2, 0, 1]] {
            let answer = Arc::new(Mutex::new(Value::Null));
            let told = Arc::clone(&answer);
            let api = Answers::start(move |_| told.lock().unwrap().clone().into());
            let stream = format!(
                "\n      items:\n        request: {{ path: /items }}\n        records: $.data[*]\n        table: {{ {table} }}\n"
            );
            let project = TestProject::new(&api.base_url, &stream);
            for at in order {
                *answer.lock().unwrap() = json!({ "data": [events[at]] });
                project.ok(&["run"]);
            }
            let rows = project.sql("SELECT \"by\" AS who FROM shop.items ORDER BY revision");
            let who: Vec<&Value> = rows.iter().map(|row| &row["who"]).collect();
            assert_eq!(who, expected, "{table} {order:?}");
        }
    }
    let reference = TestProject::new("http://127.0.0.1:9", "")
        .ok(&["schema", "reference"])
        .stdout;
    assert!(
        reference.contains("the one that is ahead would win"),
        "{reference}"
    );
}
