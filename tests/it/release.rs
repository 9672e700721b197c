//! Records that were set aside come back, through the real program.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{
    answers::{Answer, Answers},
    project::{TestProject, items_contract},
};

/// A stream of items whose source answers with whatever is put into it.
struct Items {
    api: Answers,
    answer: Arc<Mutex<Value>>,
    project: TestProject,
    streams: String,
}

/// A contract that knows `colors`.
fn contract(colors: &str) -> String {
    let columns = format!(
        r"
      - {{ name: id, logicalType: integer, required: true, primaryKey: true }}
      - {{ name: updated, logicalType: integer, required: true }}
      - name: color
        logicalType: string
        customProperties:
          - property: enum
            value: [{colors}]
      - {{ name: deleted, logicalType: boolean }}
"
    );
    items_contract("1.0.0", &columns)
}

const UPSERT: &str = "keys: [id], sequence_by: [updated], apply_as_deletes: deleted = true";
const HARD: &str = "keys: [id], sequence_by: [updated], apply_as_deletes: deleted = true, deletes: hard";
const HISTORY: &str = "keys: [id], sequence_by: [updated], scd_type: 2";
const APPEND: &str = "keys: [], scd_type: append";

impl Items {
    fn new(table: &str) -> Self {
        let answer = Arc::new(Mutex::new(json!({"data": []})));
        let told = Arc::clone(&answer);
        let api = Answers::start(move |_| told.lock().unwrap().clone().into());
        let streams = format!(
            r"
      items:
        request: {{ path: /items }}
        records: $.data[*]
        table: {{ {table} }}
"
        );
        let project = TestProject::new(&api.base_url, &streams);
        project.write("contracts/shop.items.odcs.yaml", &contract("red, blue"));
        Self {
            api,
            answer,
            project,
            streams,
        }
    }

    /// Lands the records and loads them.
    fn load(&self, records: &[Value]) {
        *self.answer.lock().unwrap() = json!({"data": records});
        self.project.ok(&["run"]);
    }

    fn know(&self, colors: &str) {
        self.project
            .write("contracts/shop.items.odcs.yaml", &contract(colors));
    }

    fn release(&self, args: &[&str]) -> String {
        let args = [&["quarantine", "release", "shop.items"], args].concat();
        self.project.ok(&args).stderr
    }

    /// The tables as they would be had today's contract always been there.
    fn replayed(&self) -> (Vec<Value>, Vec<Value>) {
        let fresh = TestProject::new(&self.api.base_url, &self.streams);
        let name = "contracts/shop.items.odcs.yaml";
        fresh.write(
            name,
            &std::fs::read_to_string(self.project.path().join(name)).unwrap(),
        );
        let own = std::fs::canonicalize(self.project.path()).unwrap();
        for file in self.project.files("lake/raw") {
            let below = file.canonicalize().unwrap();
            let to = fresh.path().join(below.strip_prefix(&own).unwrap());
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(&file, to).unwrap();
        }
        fresh.ok(&["transform"]);
        tables(&fresh)
    }

    /// Everything is in its place, and what was read is accounted for.
    fn assert_whole(&self, context: &str) {
        assert_eq!(tables(&self.project), self.replayed(), "{context}");
        let sums = self.project.sql(
            "SELECT sum(records_read) r, sum(merged) m, sum(superseded) s, sum(quarantined) q FROM landfall.loads",
        );
        let sum = |name: &str| sums[0][name].as_i64().unwrap();
        assert_eq!(sum("r"), sum("m") + sum("s") + sum("q"), "{context}");
        for (query, expected) in [
            ("SELECT count(*) n FROM shop.items__raw", sum("r")),
            ("SELECT count(*) n FROM shop.items__quarantine", sum("q")),
        ] {
            assert_eq!(
                self.project.sql(query)[0]["n"].as_i64(),
                Some(expected),
                "{context}: {query}"
            );
        }
    }
}

fn tables(project: &TestProject) -> (Vec<Value>, Vec<Value>) {
    let order = "ORDER BY _lf_batch, _lf_page, _lf_record";
    let mut rows = project.sql(&format!("SELECT * FROM shop.items {order}"));
    for row in &mut rows {
        row.as_object_mut().unwrap().remove("_lf_loaded_at");
    }
    let aside = project.sql(&format!(
        "SELECT _lf_batch, _lf_page, _lf_record, class, path FROM shop.items__quarantine {order}"
    ));
    (rows, aside)
}

fn item(id: i64, updated: i64, color: &str) -> Value {
    json!({"id": id, "updated": updated, "color": color})
}

#[test]
fn r121_released_records_leave_the_quarantine_once() {
    let items = Items::new(UPSERT);
    items.load(&[
        item(1, 10, "red"),
        item(2, 10, "green"),
        item(3, 10, "green"),
        json!({"id": "x", "updated": 1}),
    ]);
    items.load(&[item(4, 11, "green"), item(5, 11, "grey")]);
    let refused = items.project.run(&["quarantine", "release", "shop.items"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);

    // Nothing fits yet: nothing changes.
    let said = items.release(&["--all"]);
    assert!(said.contains("released 0 of 5 records"), "{said}");
    items.know("red, blue, green");
    let said = items.release(&["--class", "enum", "--dry-run"]);
    assert!(
        said.contains("would release 3 of 4 records: 3 merged + 0 superseded"),
        "{said}"
    );
    assert_eq!(items.project.rows("shop.items").len(), 1);

    let said = items.release(&["--path", "color", "--batch", "0"]);
    assert!(said.contains("released 2 of 2 records: 2 merged"), "{said}");
    let loads = items
        .project
        .sql("SELECT load_id FROM landfall.loads WHERE batch_to = 1");
    let load = loads[0]["load_id"].as_str().unwrap();
    let said = items.release(&["--load", load]);
    assert!(
        said.contains("released 1 of 2 records: 1 merged") && said.contains("1 record: enum at color"),
        "{said}"
    );
    items.assert_whole("after the release");
    let told = items
        .project
        .sql("SELECT released, merged, records_read, quarantined FROM landfall.loads WHERE released > 0 ORDER BY started_at");
    assert_eq!(
        told,
        [
            json!({"released": 2, "merged": 2, "records_read": 0, "quarantined": -2}),
            json!({"released": 1, "merged": 1, "records_read": 0, "quarantined": -1}),
        ]
    );
    let files = items.project.files("lake");
    let said = items.release(&["--all"]);
    assert!(said.contains("released 0 of 2 records"), "{said}");
    assert_eq!(
        items.project.files("lake"),
        files,
        "nothing to release is nothing to write"
    );
    // The watermark stands where it was.
    let said = items.project.ok(&["transform"]).stderr;
    assert!(said.contains("nothing new to load"), "{said}");
    items.load(&[item(2, 12, "blue")]);
    items.assert_whole("after the next load");
}

#[test]
fn f142_a_record_released_late_is_never_put_over_a_newer_row() {
    for table in [UPSERT, HARD, HISTORY] {
        let items = Items::new(table);
        items.load(&[item(1, 10, "green"), item(2, 10, "green"), item(3, 10, "green")]);
        items.load(&[
            item(1, 20, "red"),
            json!({"id": 3, "updated": 20, "color": "blue", "deleted": true}),
        ]);
        items.know("red, blue, green");
        let said = items.release(&["--all"]);
        let told = if table == HISTORY {
            "3 merged + 0 superseded"
        } else {
            "1 merged + 2 superseded"
        };
        assert!(said.contains(told), "{table}: {said}");
        items.assert_whole(table);
        let before = tables(&items.project);
        items.release(&["--all"]);
        assert_eq!(tables(&items.project), before, "{table}");
    }
}

#[test]
fn a_release_of_a_deletion_deletes_what_is_older() {
    for table in [UPSERT, HARD] {
        let items = Items::new(table);
        items.load(&[item(1, 10, "red"), item(2, 10, "red")]);
        items.load(&[
            json!({"id": 1, "updated": 20, "color": "green", "deleted": true}),
            json!({"id": 2, "updated": 20, "color": "green", "deleted": true}),
        ]);
        items.load(&[item(2, 30, "blue")]);
        items.know("red, blue, green");
        items.release(&["--all"]);
        // Late, and older than the deletion: it stays deleted.
        items.load(&[item(1, 15, "blue")]);
        items.assert_whole(table);
        let ids = items.project.sql("SELECT id FROM shop.items");
        assert_eq!(ids.len(), if table == HARD { 1 } else { 2 });
    }
}

#[test]
fn r121_f004_killed_at_every_point_a_release_run_again_gives_the_same_tables() {
    for table in [UPSERT, HARD, HISTORY, APPEND] {
        // What is told in the end is told alike for all of them.
        let points = [
            "release::after_merge",
            "release::after_quarantine",
            "release::after_loads",
        ];
        for point in &points[..if table == UPSERT { 3 } else { 1 }] {
            let items = Items::new(table);
            items.load(&[
                item(1, 10, "green"),
                item(2, 10, "red"),
                json!({"id": 2, "updated": 11, "color": "green", "deleted": true}),
            ]);
            items.know("red, blue, green");
            let args = ["quarantine", "release", "shop.items", "--all"];
            let killed = items.project.run_armed(&args, &format!("{point}=return"));
            assert_eq!(killed.code, None, "{point}: {}", killed.stderr);
            items.release(&["--all"]);
            items.assert_whole(&format!("{table} {point}"));
            let told = items
                .project
                .sql("SELECT sum(released) n, sum(merged) m FROM landfall.loads");
            let merged = if table == APPEND || table == HISTORY { 3 } else { 2 };
            assert_eq!(told[0]["n"], 2, "{table} {point}");
            assert!(told[0]["m"].as_i64() >= Some(merged), "{table} {point} {told:?}");
            // A load in between does not change that.
            items.load(&[item(1, 12, "blue")]);
            items.assert_whole(&format!("{table} {point}, one load later"));
        }
    }
}

#[test]
fn a_page_that_the_recipe_reads_now_is_released_record_by_record() {
    let items = Items::new(UPSERT);
    items.load(&[item(1, 10, "red")]);
    *items.answer.lock().unwrap() =
        json!({"result": [item(2, 10, "red"), item(3, 10, "green"), item(4, 10, "blue")]});
    // The extraction stops there, and lands what came as evidence.
    items.project.run(&["run"]);
    assert_eq!(
        items
            .project
            .sql("SELECT class, _lf_record FROM shop.items__quarantine"),
        [json!({"class": "records_path_missing", "_lf_record": -1})]
    );
    let said = items.release(&["--all"]);
    assert!(said.contains("released 0 of 1 record"), "{said}");
    let file = items.project.path().join("landfall.yml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("$.data[*]", "$.result[*]")).unwrap();
    let said = items.release(&["--class", "records_path_missing"]);
    assert!(
        said.contains("released 1 of 1 record: 2 merged + 0 superseded + 1 set aside"),
        "{said}"
    );
    assert_eq!(items.project.rows("shop.items").len(), 3);
    assert_eq!(
        items
            .project
            .sql("SELECT class, _lf_batch, _lf_record FROM shop.items__quarantine"),
        [json!({"class": "enum", "_lf_batch": 1, "_lf_record": 1})]
    );
    // Its row is one of the load that set the page aside: the next load does not take it for a leftover.
    let sums = "SELECT sum(records_read) r, sum(merged) m, sum(quarantined) q FROM landfall.loads";
    assert_eq!(items.project.sql(sums), [json!({"r": 4, "m": 3, "q": 1})]);
    items.know("red, blue, green");
    *items.answer.lock().unwrap() = json!({"result": [item(9, 10, "red")]});
    items.project.ok(&["run"]);
    items.release(&["--all"]);
    assert_eq!(items.project.rows("shop.items").len(), 5);
    assert!(
        items
            .project
            .sql("SELECT * FROM shop.items__quarantine")
            .is_empty()
    );
}

#[test]
fn f143_what_a_later_complete_pass_did_not_bring_does_not_come_back() {
    let items = Items::new("keys: [id], sequence_by: [updated], delete_absent: true, delete_ratio_max: 1.0");
    items.load(&[item(1, 10, "red"), item(2, 10, "green"), item(3, 10, "green")]);
    items.load(&[item(1, 10, "red"), item(3, 11, "green")]);
    items.know("red, blue, green");
    items.release(&["--all"]);
    let live = items
        .project
        .sql("SELECT id, updated FROM shop.items WHERE NOT _deleted ORDER BY id");
    assert_eq!(
        live,
        [json!({"id": 1, "updated": 10}), json!({"id": 3, "updated": 11})]
    );
    items.assert_whole("after a pass");
}

#[test]
fn f143_a_pass_that_was_held_takes_no_released_record_away() {
    let items = Items::new("keys: [id], sequence_by: [updated], delete_absent: true, delete_ratio_max: 0.1");
    items.load(&[
        item(1, 10, "red"),
        item(2, 10, "green"),
        item(3, 10, "red"),
        item(4, 10, "red"),
    ]);
    // Far fewer than there were: nothing is deleted for it.
    items.load(&[item(1, 10, "red")]);
    items.know("red, blue, green");
    items.release(&["--all"]);
    let live = items
        .project
        .sql("SELECT id FROM shop.items WHERE NOT _deleted ORDER BY id");
    assert_eq!(live.len(), 4, "{live:?}");
    items.assert_whole("after a pass that was held");
}

#[test]
fn records_older_than_a_pass_whose_raw_has_expired_stay_and_the_others_go() {
    let items = Items::new("keys: [id], sequence_by: [updated], delete_absent: true, delete_ratio_max: 0.1");
    let file = items.project.path().join("landfall.yml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace(
        "        table:",
        "        retention: { raw: 1ms }\n        table:",
    );
    std::fs::write(&file, text).unwrap();
    items.load(&[item(1, 10, "red"), item(2, 10, "green")]);
    items.load(&[item(1, 10, "red")]);
    // Held, so that the pass before is the last that the table shows.
    items.load(&[item(3, 10, "red"), item(4, 10, "green")]);
    items.project.ok(&["maintain", "--only", "expire"]);
    items.know("red, blue, green");
    let said = items.release(&["--all"]);
    assert!(said.contains("released 1 of 2 records: 1 merged"), "{said}");
    assert!(said.contains("older than the last complete pass"), "{said}");
    let live = items
        .project
        .sql("SELECT id FROM shop.items WHERE NOT _deleted ORDER BY id");
    assert_eq!(live, [json!({"id": 1}), json!({"id": 3}), json!({"id": 4})]);
    assert_eq!(
        items
            .project
            .sql("SELECT _lf_batch b FROM shop.items__quarantine"),
        [json!({"b": 0})]
    );
}

#[test]
fn f143_a_pass_that_replaced_nothing_adds_no_released_record() {
    let failing = Arc::new(Mutex::new(false));
    let state = Arc::clone(&failing);
    let api = Answers::start(move |asked| match asked.param("shop") {
        "c" if *state.lock().unwrap() => Answer::status(403),
        shop => {
            let color = if shop == "b" { "green" } else { "red" };
            json!({"data": [{"id": 1, "updated": 1, "color": color}]}).into()
        }
    });
    let streams = r#"
      items:
        request: { path: /items, params: { shop: "{{ slice.shop }}" } }
        records: $.data[*]
        slices: { by: { list: shop, values: [a, b, c] } }
        table: { scd_type: replace }
"#;
    let project = TestProject::new(&api.base_url, streams);
    let name = "contracts/shop.items.odcs.yaml";
    project.write(name, &contract("red"));
    project.ok(&["run"]);
    let first = project.sql("SELECT max(batch_to) n FROM landfall.loads")[0]["n"].clone();
    // Begun again on the way: its records are in raw twice.
    *failing.lock().unwrap() = true;
    assert_eq!(project.run(&["run"]).code, Some(1));
    *failing.lock().unwrap() = false;
    project.ok(&["run"]);
    project.write(name, &contract("red, green"));
    project.ok(&["quarantine", "release", "shop.items", "--all"]);
    assert_eq!(
        project.sql("SELECT count(*) n FROM shop.items"),
        [json!({"n": 3})],
        "those of the pass that it shows, with the one of them that was set aside"
    );
    let of_others = format!("SELECT id FROM shop.items WHERE _lf_batch > {first}");
    assert_eq!(project.sql(&of_others), Vec::<Value>::new());
}

#[test]
fn f004_a_deletion_counts_from_the_moment_that_it_is_released() {
    let deletion = json!({"id": 1, "updated": 20, "color": "green", "deleted": true});
    let args = ["quarantine", "release", "shop.items", "--all"];
    for (point, is_accepted) in [
        ("release::before_merge", false),
        ("release::after_merge", true),
        ("release::after_burial", true),
    ] {
        let items = Items::new(HARD);
        items.load(&[item(1, 10, "red"), deletion.clone()]);
        items.know("red, blue, green");
        let killed = items.project.run_armed(&args, &format!("{point}=return"));
        assert_eq!(killed.code, None, "{point}: {}", killed.stderr);
        // Older than the deletion.
        items.load(&[item(1, 15, "blue")]);
        if !is_accepted {
            assert_eq!(
                items.project.sql("SELECT updated FROM shop.items"),
                [json!({"updated": 15})]
            );
        }
        items.release(&["--all"]);
        assert_eq!(
            items.project.sql("SELECT id FROM shop.items"),
            Vec::<Value>::new(),
            "{point}"
        );
        items.assert_whole(point);
        items.load(&[item(1, 16, "blue")]);
        items.assert_whole(&format!("{point}, one load later"));
    }
}

#[test]
fn a_page_that_can_be_read_now_and_is_empty_leaves_the_quarantine() {
    let items = Items::new(UPSERT);
    items.load(&[item(1, 10, "red")]);
    *items.answer.lock().unwrap() = json!({"result": []});
    items.project.run(&["run"]);
    let aside = "SELECT class FROM shop.items__quarantine";
    assert_eq!(
        items.project.sql(aside),
        [json!({"class": "records_path_missing"})]
    );
    let file = items.project.path().join("landfall.yml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("$.data[*]", "$.result[*]")).unwrap();
    let said = items.release(&["--class", "records_path_missing"]);
    assert!(said.contains("released 1 of 1 record: 0 merged"), "{said}");
    assert_eq!(items.project.sql(aside), Vec::<Value>::new());
    let sums = "SELECT sum(records_read) r, sum(merged) m, sum(quarantined) q FROM landfall.loads";
    assert_eq!(items.project.sql(sums), [json!({"r": 1, "m": 1, "q": 0})]);
}

#[test]
fn r121_f136_releases_and_loads_at_the_same_time() {
    let items = Items::new(UPSERT);
    for round in 0..3 {
        let records: Vec<Value> = (0..20)
            .map(|id| item(id, 10 + round, if id % 2 == 0 { "green" } else { "red" }))
            .collect();
        items.load(&records);
    }
    items.know("red, blue, green");
    *items.answer.lock().unwrap() = json!({"data": [item(4, 40, "red"), item(21, 40, "grey")]});
    items.project.ok(&["extract"]);
    let release = ["quarantine", "release", "shop.items", "--all"];
    let children: Vec<_> = [&release[..], &["transform"], &release[..]]
        .into_iter()
        .map(|args| {
            items
                .project
                .command(args)
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }
    items.project.ok(&["transform"]);
    items.assert_whole("all at once");
}

#[test]
fn f141_a_flood_keeps_exact_counts_and_a_part_of_the_evidence_and_all_of_it_is_released() {
    let items = Items::new(UPSERT);
    let records: Vec<Value> = (0..3_000).map(|id| item(id, 10, "green")).collect();
    items.load(&records);
    items.load(&[item(1, 11, "grey")]);
    assert_eq!(
        items
            .project
            .sql("SELECT count(*) n, count(record) records, count(found) found FROM shop.items__quarantine"),
        [json!({"n": 3_001, "records": 1_001, "found": 1_001})]
    );
    let said = items.project.ok(&["quarantine", "list"]).stdout;
    assert!(
        said.contains("3,001 records: enum at color: expected one of"),
        "{said}"
    );
    // One that is no sample still leads to its bytes.
    let said = items
        .project
        .ok(&["quarantine", "show", "shop.items", "0/0/2999"])
        .stdout;
    assert!(
        said.contains(r#""id":2999"#) && said.contains("enum at color"),
        "{said}"
    );
    items.know("red, blue, green");
    let said = items.release(&["--all"]);
    assert!(
        said.contains("released 3,000 of 3,001 records: 3,000 merged"),
        "{said}"
    );
    items.assert_whole("after the flood");
}

#[test]
fn r005_r165_f153_samples_show_no_classified_values() {
    let items = Items::new(UPSERT);
    let secret = contract("red").replace(
        "- name: color",
        "- name: color\n        classification: restricted",
    );
    items.project.write("contracts/shop.items.odcs.yaml", &secret);
    items.load(&[item(1, 10, "canary")]);
    for (args, shown) in [
        (&["quarantine", "list"][..], false),
        (&["quarantine", "list", "--format", "json"], false),
        (&["quarantine", "show", "shop.items", "0/0/0"], false),
        (&["quarantine", "list", "--reveal"], true),
        (&["quarantine", "show", "shop.items", "0/0/0", "--reveal"], true),
    ] {
        let said = items.project.ok(args).stdout;
        assert_eq!(said.contains("canary"), shown, "{args:?} {said}");
        assert!(said.contains("enum"), "{said}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn r121_f142_after_any_releases_the_tables_are_those_of_a_replay(
        table in prop::sample::select(vec![UPSERT, HARD, HISTORY, APPEND]),
        runs in prop::collection::vec(prop::collection::vec((0..4_i64, 0..6_i64, 0..4_usize, prop::bool::weighted(0.2)), 1..6), 1..4),
        order in prop::collection::vec(0..4_usize, 0..4),
    ) {
        let items = Items::new(table);
        for run in &runs {
            let records: Vec<Value> = run
                .iter()
                .map(|(id, updated, color, deleted)| {
                    let color = ["red", "green", "grey", "brown"][*color];
                    json!({"id": id, "updated": updated, "color": color, "deleted": deleted})
                })
                .collect();
            items.load(&records);
        }
        items.know("red, blue, green, grey");
        for batch in order {
            items.release(&["--batch", &batch.to_string()]);
        }
        items.release(&["--all"]);
        items.assert_whole("released");
        let before = tables(&items.project);
        items.release(&["--all"]);
        prop_assert_eq!(tables(&items.project), before);
    }
}
