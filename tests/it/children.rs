//! Lists as tables of their own, through the real program.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{
    answers::Answers,
    project::TestProject,
    python::{Reader, read_table, run},
};

/// Orders with lines, whose source answers with whatever is put into it.
struct Orders {
    _api: Answers,
    answer: Arc<Mutex<Value>>,
    project: TestProject,
}

const UPSERT: &str = "keys: [id], sequence_by: [updated], apply_as_deletes: gone = true";
const HARD: &str = "keys: [id], sequence_by: [updated], apply_as_deletes: gone = true, deletes: hard";
const HISTORY: &str = "keys: [id], sequence_by: [updated], apply_as_deletes: gone = true, scd_type: 2";
const HARD_MARKED: &str = "keys: [id], sequence_by: [updated], apply_as_deletes: gone = true, deletes: hard, \
                           write_mode: merge_on_read";
const HISTORY_MARKED: &str = "keys: [id], sequence_by: [updated], apply_as_deletes: gone = true, scd_type: 2, \
                              write_mode: merge_on_read";
const APPEND: &str = "keys: [], scd_type: append";

/// A contract whose lines have a price, if it is asked for.
fn contract(price: &str, sku: &str) -> String {
    format!(
        r"apiVersion: v3.1.0
kind: DataContract
id: shop.orders
version: 1.0.0
status: active
schema:
  - name: orders
    logicalType: object
    properties:
      - {{ name: id, logicalType: integer, required: true, primaryKey: true }}
      - {{ name: updated, logicalType: integer, required: true }}
      - {{ name: gone, logicalType: boolean }}
      - name: lines
        logicalType: array
        items:
          logicalType: object
          properties:
            - {{ name: sku, logicalType: string{sku} }}
{price}
            - name: taxes
              logicalType: array
              items: {{ logicalType: number }}
"
    )
}

const PRICE: &str = "            - { name: price, logicalType: integer }";

impl Orders {
    fn new(table: &str) -> Self {
        let answer = Arc::new(Mutex::new(json!({"data": []})));
        let told = Arc::clone(&answer);
        let api = Answers::start(move |_| told.lock().unwrap().clone().into());
        let streams = format!(
            r"
      orders:
        request: {{ path: /orders }}
        records: $.data[*]
        table: {{ {table}, explode: [lines, lines.taxes] }}
"
        );
        let project = TestProject::new(&api.base_url, &streams);
        project.write("contracts/shop.orders.odcs.yaml", &contract("", ""));
        Self {
            _api: api,
            answer,
            project,
        }
    }

    fn land(&self, records: &[Value]) {
        *self.answer.lock().unwrap() = json!({"data": records});
        self.project.ok(&["extract"]);
    }

    fn load(&self, records: &[Value]) {
        self.land(records);
        self.project.ok(&["transform"]);
    }

    /// The child tables are what the lists of the current rows say.
    fn assert_children(&self, context: &str) {
        let (mut lines, mut taxes) = (Vec::new(), Vec::new());
        for row in self.project.sql("SELECT * FROM shop.orders") {
            let is = |name: &str| row.get(name).and_then(Value::as_bool);
            if is("_deleted") == Some(true) || is("_current") == Some(false) {
                continue;
            }
            let place = ["_lf_batch", "_lf_page", "_lf_record"].map(|name| row[name].clone());
            for (at, line) in list(&row["lines"]).iter().enumerate() {
                let sku = line.get("sku").cloned().unwrap_or_default();
                lines.push(json!([place, at, sku]).to_string());
                for (within, tax) in list(line.get("taxes").unwrap_or(&Value::Null)).iter().enumerate() {
                    taxes.push(json!([place, at, within, tax.as_f64()]).to_string());
                }
            }
        }
        let found = |table: &str, columns: &[&str]| {
            let mut rows: Vec<String> = self
                .project
                .sql(&format!("SELECT * FROM {table}"))
                .iter()
                .map(|row| {
                    let place = ["_lf_batch", "_lf_page", "_lf_record"].map(|name| row[name].clone());
                    let mut values = vec![json!(place)];
                    values.extend(
                        columns
                            .iter()
                            .map(|name| row.get(*name).cloned().unwrap_or_default()),
                    );
                    json!(values).to_string()
                })
                .collect();
            rows.sort();
            rows
        };
        lines.sort();
        taxes.sort();
        assert_eq!(
            found("shop.orders__lines", &["_position", "sku"]),
            lines,
            "{context}"
        );
        let columns = ["_position_1", "_position_2", "value"];
        assert_eq!(found("shop.orders__lines__taxes", &columns), taxes, "{context}");
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn order(id: i64, updated: i64, skus: &[&str]) -> Value {
    let line = |sku: &&str| json!({"sku": sku, "price": updated, "taxes": [1.5, id as f64]});
    json!({"id": id, "updated": updated, "lines": skus.iter().map(line).collect::<Vec<_>>()})
}

#[test]
fn r118_children_come_and_go_with_the_current_version_of_their_parent() {
    for table in [UPSERT, HARD, HISTORY, HARD_MARKED, HISTORY_MARKED, APPEND] {
        let orders = Orders::new(table);
        orders.load(&[order(1, 10, &["a", "b"]), order(2, 10, &["c"]), order(3, 10, &[])]);
        orders.assert_children(table);
        // Fewer, more, none any more, late, deleted.
        orders.load(&[
            order(1, 20, &["d"]),
            order(3, 20, &["e", "f"]),
            order(2, 5, &["late"]),
        ]);
        orders.assert_children(table);
        orders.load(&[
            json!({"id": 1, "updated": 30, "lines": null}),
            json!({"id": 2, "updated": 30, "gone": true, "lines": [{"sku": "g"}]}),
            order(4, 30, &["h"]),
        ]);
        orders.assert_children(table);
        orders.load(&[order(2, 25, &["never"]), order(4, 40, &["i", "j"])]);
        orders.assert_children(table);
        let verified = orders.project.ok(&["verify"]);
        assert!(verified.stderr.contains("what raw gives"), "{}", verified.stderr);
        let said = orders.project.ok(&["transform"]).stderr;
        assert!(!said.contains("child table follows"), "{said}");
    }
}

#[test]
fn a_child_table_has_the_keys_of_its_parent_and_other_readers_can_read_it() {
    let orders = Orders::new(UPSERT);
    orders.load(&[order(1, 10, &["a", "b"]), order(2, 10, &["c"])]);
    let rows = orders
        .project
        .sql("SELECT o.id, l._position, l.sku FROM shop.orders o JOIN shop.orders__lines l ON l._parent_id = o.id ORDER BY 1, 2");
    assert_eq!(
        rows,
        [
            json!({"id": 1, "_position": 0, "sku": "a"}),
            json!({"id": 1, "_position": 1, "sku": "b"}),
            json!({"id": 2, "_position": 0, "sku": "c"}),
        ]
    );
    let table = orders.project.path().join("lake/tables/shop/orders__lines");
    for reader in [Reader::Deltalake, Reader::Duckdb, Reader::Polars] {
        let rows = read_table(reader, &table, &["_parent_id", "_position", "sku"]);
        assert_eq!(rows.len(), 3, "{reader:?}: {rows:?}");
    }
}

#[test]
fn a_rebuild_and_a_release_bring_their_children() {
    let orders = Orders::new(UPSERT);
    let name = "contracts/shop.orders.odcs.yaml";
    orders.project.write(name, &contract("", ", required: true"));
    orders.load(&[
        order(1, 10, &["a", "b"]),
        json!({"id": 2, "updated": 10, "lines": [{"price": 3}]}),
    ]);
    assert_eq!(orders.project.sql("SELECT sku FROM shop.orders__lines").len(), 2);
    orders.project.write(name, &contract("", ""));
    orders
        .project
        .ok(&["quarantine", "release", "shop.orders", "--all"]);
    orders.assert_children("released");
    assert_eq!(orders.project.sql("SELECT sku FROM shop.orders__lines").len(), 3);

    // A column over all history: the rows stay where they were, and their children change all the same.
    orders.project.write(name, &contract(PRICE, ""));
    orders.project.ok(&["rebuild", "shop.orders", "--promote"]);
    orders.assert_children("rebuilt");
    let prices = orders
        .project
        .sql("SELECT price FROM shop.orders__lines ORDER BY price");
    let prices: Vec<_> = prices.iter().map(|row| row["price"].as_i64()).collect();
    assert_eq!(prices, [Some(3), Some(10), Some(10)]);
    orders.project.ok(&["verify"]);
    orders.load(&[order(1, 20, &["z"])]);
    orders.project.ok(&["maintain"]);
    orders.assert_children("maintained");
    orders.project.ok(&["verify"]);
    orders.load(&[order(2, 20, &["y"])]);
    orders.assert_children("loaded again");
}

#[test]
fn a_child_table_that_somebody_changed_is_told_and_made_anew() {
    let orders = Orders::new(UPSERT);
    orders.load(&[order(1, 10, &["a", "b"]), order(2, 10, &["c"])]);
    let table = orders.project.path().join("lake/tables/shop/orders__lines");
    let there = orders.project.path().join("landfall.yml");
    run(
        "other_writer.py",
        &[table.to_str().unwrap(), there.to_str().unwrap(), "sku = 'a'"],
    );
    let told = orders.project.run(&["verify"]);
    assert_eq!(told.code, Some(1), "{}", told.stderr);
    assert!(
        told.stderr.contains("shop.orders__lines  1 row differs"),
        "{}",
        told.stderr
    );
    orders.load(&[order(3, 10, &["d"])]);
    orders.project.fails(&["verify"], &["1 row differs"]);
    orders.project.ok(&["rebuild", "shop.orders", "--promote"]);
    orders.assert_children("made anew");
    orders.project.ok(&["verify"]);
}

#[test]
fn children_follow_what_was_loaded_before_a_load_that_is_refused() {
    let orders = Orders::new(UPSERT);
    orders.load(&[order(1, 10, &["a"])]);
    let config = std::fs::read_to_string(orders.project.path().join("landfall.yml")).unwrap();
    let strict = config.replace(
        "records: $.data[*]",
        "records: $.data[*]\n        drift: { on_mismatch: fail }",
    );
    assert_ne!(strict, config);
    orders.project.write("landfall.yml", &strict);
    orders.land(&[order(1, 20, &["b", "c"])]);
    orders
        .project
        .run_armed(&["transform"], "transform::before_children=panic");
    orders.land(&[json!({"id": "x", "updated": 1})]);
    let refused = orders.project.run(&["transform"]);
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    orders.assert_children("the second load");
}

#[test]
fn a_crash_before_the_children_is_made_up_for_without_a_load() {
    let orders = Orders::new(UPSERT);
    orders.load(&[order(1, 10, &["a"])]);
    orders.land(&[order(1, 20, &["b", "c"])]);
    let crashed = orders
        .project
        .run_armed(&["transform"], "transform::before_children=panic");
    assert_ne!(crashed.code, Some(0));
    assert_eq!(orders.project.sql("SELECT sku FROM shop.orders__lines").len(), 1);
    let behind = orders.project.run(&["verify"]);
    assert_eq!(behind.code, Some(1), "{}", behind.stderr);
    assert!(
        behind.stderr.contains("shows an older version"),
        "{}",
        behind.stderr
    );
    orders.project.ok(&["transform"]);
    orders.assert_children("made up for");
    orders.project.ok(&["verify"]);
}

#[test]
fn what_is_no_list_and_names_that_are_taken_are_refused_before_anything_runs() {
    let orders = Orders::new(UPSERT);
    let config = std::fs::read_to_string(orders.project.path().join("landfall.yml")).unwrap();
    let with = |lists: &str| {
        orders
            .project
            .write("landfall.yml", &config.replace("[lines, lines.taxes]", lists));
    };
    for (lists, words) in [
        (
            "[id]",
            "explode column (column: id, problem: it is Int64, not a list)",
        ),
        ("[lines, LINES]", "two lists have a table called \"lines\""),
        ("[raw]", "a table of the program itself is called \"raw\""),
    ] {
        with(lists);
        let said = orders.project.run(&["check"]);
        assert_eq!(said.code, Some(2), "{lists}: {}", said.stderr);
        let told = said.stdout + &said.stderr;
        assert!(told.contains(words), "{lists}: {told}");
    }
}

/// What may come of one order in one load.
fn event() -> impl Strategy<Value = Value> {
    let lines = prop::option::of(prop::collection::vec("[a-c]", 0..3));
    (0_i64..4, 0_i64..6, lines, prop::bool::weighted(0.2)).prop_map(|(id, updated, lines, gone)| {
        let lines = lines.map(|skus| {
            skus.iter()
                .map(|sku| json!({"sku": sku, "taxes": [2]}))
                .collect::<Vec<_>>()
        });
        json!({"id": id, "updated": updated, "gone": gone, "lines": lines})
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, ..ProptestConfig::default() })]

    #[test]
    fn children_are_a_function_of_the_main_table(
        loads in prop::collection::vec(prop::collection::vec(event(), 1..5), 1..5),
        table in prop::sample::select(vec![UPSERT, HARD, HISTORY, HARD_MARKED, HISTORY_MARKED, APPEND]),
    ) {
        let orders = Orders::new(table);
        for (number, records) in loads.iter().enumerate() {
            orders.land(records);
            // Every other load is made up for by the next: the way between two versions is of several commits then.
            if number % 2 == 0 {
                orders.project.ok(&["transform"]);
                orders.assert_children(table);
            } else {
                orders.project.run_armed(&["transform"], "transform::before_children=panic");
            }
        }
        orders.project.ok(&["transform"]);
        orders.assert_children(table);
        orders.project.ok(&["verify"]);
    }
}
