//! Columns whose type grows, through the real program.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::{
    answers::Answers,
    project::{TestProject, items_contract},
    python::{self, READERS},
};

const CONTRACT: &str = "contracts/shop.items.odcs.yaml";

/// A source that answers with whatever is put into it.
struct Items {
    api: Answers,
    answer: Arc<Mutex<Value>>,
    project: TestProject,
}

impl Items {
    fn new(settings: &str) -> Self {
        let answer = Arc::new(Mutex::new(json!({"data": []})));
        let told = Arc::clone(&answer);
        let api = Answers::start(move |_| told.lock().unwrap().clone().into());
        let project = TestProject::new(&api.base_url, &Self::streams(settings));
        Self { api, answer, project }
    }

    fn streams(settings: &str) -> String {
        format!(
            r"
      items:
        request: {{ path: /items }}
        records: $.data[*]
        {settings}
"
        )
    }

    /// Lands records and loads them.
    fn load(&self, records: Value) {
        self.land(records);
        self.project.ok(&["transform"]);
    }

    fn land(&self, records: Value) {
        *self.answer.lock().unwrap() = json!({ "data": records });
        self.project.ok(&["extract"]);
    }

    fn contract(&self, version: &str, columns: &str) {
        let id = "      - { name: id, logicalType: integer, required: true, primaryKey: true }\n";
        let text = items_contract(version, &format!("{id}{columns}"));
        self.project.write(CONTRACT, &text);
    }

    fn refused(&self, args: &[&str], words: &[&str]) {
        let ran = self.project.run(args);
        assert_eq!(ran.code, Some(3), "{}", ran.stderr);
        for word in words {
            assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr);
        }
    }
}

const NARROW: &str = r"
      - { name: at, logicalType: date, required: true }
      - { name: qty, logicalType: integer }
      - { name: price, logicalType: number, physicalType: 'decimal(10,2)' }
      - { name: gone, logicalType: boolean }
      - name: lines
        logicalType: array
        items:
          logicalType: object
          properties:
            - { name: n, logicalType: integer }
";

/// The same columns with more room; days begin at 02:00 before midnight in UTC.
const WIDE: &str = r"
      - name: at
        logicalType: timestamp
        required: true
        customProperties: [{ property: format, value: 'naive:+02:00' }]
      - { name: qty, logicalType: number }
      - { name: price, logicalType: number, physicalType: 'decimal(20,4)' }
      - { name: gone, logicalType: boolean }
      - name: lines
        logicalType: array
        items:
          logicalType: object
          properties:
            - { name: n, logicalType: number, physicalType: 'decimal(30,2)' }
";

fn item(id: i64, at: &str, qty: &Value, price: &str) -> Value {
    json!({"id": id, "at": at, "qty": qty, "price": price, "lines": [{"n": id}, {"n": null}]})
}

fn first_records() -> Value {
    json!([
        item(1, "2024-01-01", &json!(1), "1.50"),
        item(2, "2024-01-02", &json!(null), "-0.01"),
        {"id": 3, "at": "2024-01-05", "gone": true},
    ])
}

/// One older and one newer than what is there, by the new type, and one that a deletion is newer than.
fn second_records() -> Value {
    json!([
        item(1, "2023-12-31T21:59:59", &json!(0.25), "9"),
        item(2, "2024-01-02T00:00:01", &json!(2.5), "12345678901.2345"),
        item(3, "2024-01-04T23:59:59", &json!(9), "9"),
    ])
}

const HARD: &str = "table: { keys: [id], sequence_by: [at], apply_as_deletes: gone = true, deletes: hard }";

#[test]
fn a_contract_with_wider_types_widens_the_table_and_every_reader_reads_it() {
    let items = Items::new(HARD);
    items.contract("1.0.0", NARROW);
    items.load(first_records());
    items.contract("2.0.0", WIDE);
    items.land(second_records());
    let ran = items.project.run(&["transform", "--dry-run"]);
    assert!(
        ran.stderr.contains("run transform once; it rewrites the table"),
        "{}",
        ran.stderr
    );
    items.project.ok(&["transform"]);
    assert_eq!(
        items.project.sql(
            "SELECT id, CAST(at AS TEXT) AS at, qty, CAST(price AS TEXT) AS price FROM shop.items ORDER BY id"
        ),
        [
            json!({"id": 1, "at": "2023-12-31T22:00:00Z", "qty": 1.0, "price": "1.5000"}),
            json!({"id": 2, "at": "2024-01-01T22:00:01Z", "qty": 2.5, "price": "12345678901.2345"}),
        ],
        "the sequence is compared in the new type, also with the deletion's"
    );
    for reader in READERS {
        let rows = python::read_table(
            reader,
            &items.project.path().join("lake/tables/shop/items"),
            &["id", "at", "qty", "price", "lines"],
        );
        assert_eq!(
            rows,
            [
                r#"{"id":1,"at":"2023-12-31T22:00:00.000000Z","qty":1.0,"price":"1.5000","lines":[{"n":"1.00"},{"n":null}]}"#,
                r#"{"id":2,"at":"2024-01-01T22:00:01.000000Z","qty":2.5,"price":"12345678901.2345","lines":[{"n":"2.00"},{"n":null}]}"#,
            ],
            "{reader:?}"
        );
    }
    items.project.ok(&["verify"]);
}

#[test]
fn the_bounds_of_versions_follow_the_column_that_orders_them() {
    let items = Items::new("table: { keys: [id], sequence_by: [at], scd_type: 2 }");
    items.contract("1.0.0", NARROW);
    items.load(json!([
        item(1, "2024-01-01", &json!(1), "1"),
        item(2, "2024-01-01", &json!(1), "1")
    ]));
    items.load(json!([item(1, "2024-01-03", &json!(3), "1")]));
    items.contract("2.0.0", WIDE);
    items.load(json!([item(1, "2024-01-02T12:00:00", &json!(2.5), "1")]));
    assert_eq!(
        items.project.sql(
            "SELECT id, qty, CAST(_valid_from AS TEXT) AS since, CAST(_valid_to AS TEXT) AS until \
             FROM shop.items ORDER BY id, since"
        ),
        [
            json!({"id": 1, "qty": 1.0, "since": "2023-12-31T22:00:00Z", "until": "2024-01-02T10:00:00Z"}),
            json!({"id": 1, "qty": 2.5, "since": "2024-01-02T10:00:00Z", "until": "2024-01-02T22:00:00Z"}),
            json!({"id": 1, "qty": 3.0, "since": "2024-01-02T22:00:00Z", "until": null}),
            json!({"id": 2, "qty": 1.0, "since": "2023-12-31T22:00:00Z", "until": null}),
        ]
    );
    items.project.ok(&["verify"]);
}

#[test]
fn killed_while_a_table_is_widened_the_rerun_gives_the_same_table() {
    for point in ["transform::before_widening", "transform::after_widening"] {
        let items = Items::new(HARD);
        items.contract("1.0.0", NARROW);
        items.load(first_records());
        let before = items.project.sql("SELECT id, qty FROM shop.items ORDER BY id");
        items.contract("2.0.0", WIDE);
        items.land(second_records());
        let killed = items
            .project
            .run_armed(&["transform"], &format!("{point}=return"));
        assert_eq!(killed.code, None, "{point}\n{}", killed.stderr);
        let after = items
            .project
            .sql("SELECT id, CAST(qty AS BIGINT) AS qty FROM shop.items ORDER BY id");
        assert_eq!(after, before, "{point}");
        items.project.ok(&["transform"]);
        assert_eq!(
            items.project.sql("SELECT id, qty FROM shop.items ORDER BY id"),
            [json!({"id": 1, "qty": 1.0}), json!({"id": 2, "qty": 2.5})],
            "{point}"
        );
        items.project.ok(&["verify"]);
    }
}

#[test]
fn what_is_no_widening_is_refused_and_nothing_changes() {
    let column = |kind: &str| format!("      - {{ name: qty, logicalType: {kind} }}\n");
    let items = Items::new("table: { keys: [id] }");
    items.contract("1.0.0", &column("integer"));
    items.load(json!([{"id": 1, "qty": 9_007_199_254_740_993_i64}]));
    items.land(json!([{"id": 2, "qty": 5}]));
    let files = items.project.files("lake/tables");
    items.contract("2.0.0", &column("number"));
    items.refused(
        &["transform"],
        &[
            "widen column",
            "column: qty",
            "decimal",
            "landfall rebuild --promote",
        ],
    );
    assert_eq!(items.project.files("lake/tables").len(), files.len());
    items.contract("2.0.0", &column("string"));
    items.refused(
        &["transform"],
        &["change column type", "column: qty", "landfall rebuild --promote"],
    );
    assert_eq!(items.project.files("lake/tables"), files);
    items.contract(
        "2.0.0",
        "      - { name: qty, logicalType: number, physicalType: 'decimal(38,18)' }\n",
    );
    items.project.ok(&["transform"]);
    assert_eq!(
        items
            .project
            .sql("SELECT CAST(qty AS TEXT) AS qty FROM shop.items WHERE id = 1"),
        [json!({"qty": "9007199254740993.000000000000000000"})]
    );
}

#[test]
fn f132_a_draft_takes_wider_types_by_itself_but_not_for_keys() {
    let items = Items::new("table: { keys: [id], sequence_by: [rev] }");
    items.load(json!([
        {"id": 1, "rev": 1, "n": 1, "day": "2024-01-01", "huge": 9_007_199_254_740_993_i64, "in": {"list": [1]}},
    ]));
    items.load(json!([
        {"id": 2, "rev": 1, "n": 1.5, "day": "2024-01-02T03:04:05Z", "huge": 5, "in": {"list": [0.5]}, "new": true},
        {"id": 3.5, "rev": 1},
        {"id": 4, "rev": 1.5},
    ]));
    let contract = std::fs::read_to_string(items.project.path().join(CONTRACT)).unwrap();
    assert!(
        contract.contains(r#"version: "0.2.0""#) || contract.contains(r#"version: "1.0.0""#),
        "{contract}"
    );
    assert_eq!(
        items.project.sql(
            "SELECT id, n, CAST(day AS TEXT) AS day, huge, \"in\".list AS list, new, _rescued FROM shop.items ORDER BY id"
        ),
        [
            json!({"id": 1, "n": 1.0, "day": "2024-01-01T00:00:00Z", "huge": 9_007_199_254_740_993_i64, "list": [1.0], "new": null, "_rescued": null}),
            json!({"id": 2, "n": 1.5, "day": "2024-01-02T03:04:05Z", "huge": 5, "list": [0.5], "new": true, "_rescued": null}),
        ]
    );
    let aside = items
        .project
        .sql("SELECT path FROM shop.items__quarantine ORDER BY path");
    assert_eq!(aside, [json!({"path": "id"}), json!({"path": "rev"})]);
    let drift = items.project.sql(
        "SELECT path FROM landfall.drift WHERE kind = 'type_changed' AND effect = 'accepted' ORDER BY path",
    );
    assert_eq!(
        drift,
        [
            json!({"path": "day"}),
            json!({"path": "in.list[]"}),
            json!({"path": "n"})
        ]
    );
    items.project.ok(&["verify"]);

    // A double does not hold what is there: the column stays what it is, and new columns come all the same.
    items.load(json!([{"id": 5, "rev": 1, "huge": 0.5, "more": 1}]));
    items.load(json!([{"id": 6, "rev": 1, "huge": 6, "more": 2}]));
    assert_eq!(
        items
            .project
            .sql("SELECT id, huge, more FROM shop.items WHERE id > 4 ORDER BY id"),
        [json!({"id": 6, "huge": 6, "more": 2})]
    );
}

#[test]
fn a_pinned_contract_takes_wider_types_only_if_it_may() {
    let column = "      - { name: n, logicalType: integer }\n";
    for (policy, rows) in [("quarantine", 1), ("evolve", 2)] {
        let items = Items::new(&format!(
            "table: {{ keys: [id] }}\n        drift: {{ on_mismatch: {policy} }}"
        ));
        items.contract("1.0.0", column);
        items.load(json!([{"id": 1, "n": 1}]));
        items.load(json!([{"id": 2, "n": 1.5}, {"id": 3, "n": "no number"}]));
        let found = items.project.sql("SELECT id FROM shop.items");
        let aside = items.project.sql("SELECT path FROM shop.items__quarantine");
        assert_eq!((found.len(), aside.len()), (rows, 3 - rows), "{policy}");
        assert_eq!(items.api.take().len(), 2);
    }
}

#[test]
fn a_column_that_a_condition_asks_keeps_its_type() {
    // In whole numbers 50 / 100 is 0, and in doubles it is not: a replay would say otherwise of what is loaded.
    for (settings, columns) in [
        (
            "table: { keys: [id], apply_as_deletes: cents / 100 = 0 }",
            "\n      - { name: cents, logicalType: integer }\n",
        ),
        (
            "table: { keys: [id] }",
            r"
      - name: cents
        logicalType: integer
        quality: [{ type: custom, engine: landfall, name: whole, implementation: cents / 100 <> 0 }]
",
        ),
    ] {
        let settings = format!("{settings}\n        drift: {{ on_mismatch: evolve }}");
        let items = Items::new(&settings);
        items.contract("1.0.0", columns);
        items.load(json!([{"id": 1, "cents": 50}, {"id": 2, "cents": 250}]));
        items.load(json!([{"id": 3, "cents": 250.5}]));
        let aside = items
            .project
            .sql("SELECT class FROM shop.items__quarantine WHERE _lf_batch = 1");
        assert_eq!(aside.len(), 1, "{settings}: {aside:?}");
        assert_ne!(aside[0]["class"], "rule_failed", "{settings}");
        items.project.ok(&["verify"]);
    }
}
