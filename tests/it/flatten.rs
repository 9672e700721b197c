//! Nested objects as columns, policies of single columns, and names of all kinds, through the real program.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::{
    answers::Answers,
    project::{TestProject, items_contract},
    python::{self, READERS},
};

const CONTRACT: &str = "contracts/shop.items.odcs.yaml";

struct Items {
    _api: Answers,
    answer: Arc<Mutex<Value>>,
    project: TestProject,
}

impl Items {
    fn new(settings: &str) -> Self {
        let answer = Arc::new(Mutex::new(json!({"data": []})));
        let told = Arc::clone(&answer);
        let api = Answers::start(move |_| told.lock().unwrap().clone().into());
        let streams = format!(
            r"
      items:
        request: {{ path: /items }}
        records: $.data[*]
        {settings}
"
        );
        let project = TestProject::new(&api.base_url, &streams);
        Self {
            _api: api,
            answer,
            project,
        }
    }

    fn land(&self, records: Value) {
        *self.answer.lock().unwrap() = json!({ "data": records });
        self.project.ok(&["extract"]);
    }

    fn load(&self, records: Value) {
        self.land(records);
        self.project.ok(&["transform"]);
    }

    fn contract(&self, columns: &str) {
        let id = "      - { name: id, logicalType: integer, required: true, primaryKey: true }\n";
        let text = items_contract("1.0.0", &format!("{id}{columns}"));
        self.project.write(CONTRACT, &text);
    }

    fn drafted(&self) -> String {
        std::fs::read_to_string(self.project.path().join(CONTRACT)).unwrap()
    }

    /// What each reader sees of the table: the same for all.
    fn read(&self) -> Vec<Value> {
        let table = self.project.path().join("lake/tables/shop/items");
        let mut seen = Vec::new();
        for reader in READERS {
            let rows = python::read_table(reader, &table, &[]);
            let rows: Vec<Value> = rows
                .iter()
                .map(|row| serde_json::from_str(row).unwrap())
                .collect();
            if !seen.is_empty() {
                assert_eq!(rows, seen, "{reader:?}");
            }
            seen = rows;
        }
        seen
    }
}

#[test]
fn r118_nested_objects_become_typed_columns_also_those_that_come_later() {
    let items = Items::new("table: { keys: [order__id], flatten: true }");
    items.load(json!([{
        "order": {"id": 1, "at": "2024-01-02"},
        "customer": {"name": "Ada", "address": {"city": "Bern", "geo": {"lat": 46.9}}, "tags": ["a", "b"]},
        "lines": [{"sku": "x", "price": {"net": 1.5}}],
        "mixed": [1, "one"],
    }]));
    let columns = "order__id, CAST(order__at AS TEXT) AS at, customer__name, customer__address__city, \
                   customer__address__geo__lat, customer__tags, lines, mixed";
    assert_eq!(
        items.project.sql(&format!("SELECT {columns} FROM shop.items")),
        [json!({
            "order__id": 1, "at": "2024-01-02", "customer__name": "Ada", "customer__address__city": "Bern",
            "customer__address__geo__lat": 46.9, "customer__tags": ["a", "b"],
            "lines": [{"sku": "x", "price": {"net": 1.5}}], "mixed": ["1", "\"one\""],
        })]
    );
    items.load(json!([{
        "order": {"id": 2},
        "customer": {"phone": "1", "contact": {"mail": "a@b.example"}},
        "customer__phone": "not of the customer",
        "ship": {"to": {"city": "Basel"}},
    }]));
    let mut rows = items.project.sql(
        "SELECT customer__phone, customer__phone_2, customer__contact__mail, ship__to__city, _rescued \
         FROM shop.items WHERE order__id = 2",
    );
    let row = rows.remove(0);
    let phones = [&row["customer__phone"], &row["customer__phone_2"]];
    assert!(phones.contains(&&json!("1")) && phones.contains(&&json!("not of the customer")));
    assert_eq!(
        (
            &row["customer__contact__mail"],
            &row["ship__to__city"],
            &row["_rescued"]
        ),
        (&json!("a@b.example"), &json!("Basel"), &Value::Null)
    );
    assert_eq!(items.read().len(), 2);
    items.project.ok(&["verify"]);
    assert!(
        items.drafted().contains("customer.address.geo.lat"),
        "{}",
        items.drafted()
    );
}

#[test]
fn flatten_changes_no_contract_that_stands_and_check_says_so() {
    let items = Items::new("table: { keys: [id], flatten: [o] }");
    items.contract(
        r"
      - name: o
        logicalType: object
        properties:
          - { name: a, logicalType: integer }
",
    );
    let ran = items.project.ok(&["check"]);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(said.contains("this one has objects there: o"), "{said}");
    items.load(json!([{"id": 1, "o": {"a": 2}}]));
    assert_eq!(
        items.project.sql("SELECT o.a AS a FROM shop.items"),
        [json!({"a": 2})]
    );
}

const POLICIES: &str = r"
      - { name: n, logicalType: integer, customProperties: [{ property: onMismatch, value: rescue }] }
      - { name: m, logicalType: integer, customProperties: [{ property: onMismatch, value: quarantine }] }
      - { name: f, logicalType: integer, customProperties: [{ property: onMismatch, value: fail }] }
      - name: o
        logicalType: object
        customProperties: [{ property: onUnknown, value: ignore }]
        properties:
          - { name: a, logicalType: integer }
";

#[test]
fn columns_say_themselves_what_becomes_of_their_drift() {
    for policy in ["quarantine", "fail"] {
        let items = Items::new(&format!(
            "table: {{ keys: [id] }}\n        drift: {{ on_mismatch: {policy}, on_unknown: evolve }}"
        ));
        items.contract(POLICIES);
        items.load(json!([
            {"id": 1, "n": "N", "f": 1, "o": {"a": 1, "more": 2}, "new": 3},
            {"id": 2, "m": "M"},
        ]));
        assert_eq!(
            items.project.sql("SELECT id, n, new, _rescued FROM shop.items"),
            [json!({"id": 1, "n": null, "new": 3, "_rescued": r#"{"n":"N"}"#})],
            "{policy}"
        );
        assert_eq!(
            items
                .project
                .sql("SELECT path, kind, effect FROM landfall.drift ORDER BY path"),
            [
                json!({"path": "m", "kind": "type_changed", "effect": "quarantined"}),
                json!({"path": "n", "kind": "type_changed", "effect": "rescued"}),
                json!({"path": "new", "kind": "unknown", "effect": "accepted"}),
                json!({"path": "o.more", "kind": "unknown", "effect": "ignored"}),
            ],
            "{policy}"
        );
        // What the patch adds leaves the policies where they are.
        assert!(
            items.drafted().contains("onUnknown, value: ignore"),
            "{}",
            items.drafted()
        );
        items.land(json!([{"id": 3, "f": "F"}]));
        let ran = items.project.run(&["transform"]);
        assert_eq!(ran.code, Some(3), "{}", ran.stderr);
        assert_eq!(
            items.project.sql("SELECT id FROM shop.items").len(),
            1,
            "{policy}"
        );
    }
}

/// Names that are taken for something else somewhere.
const NAMES: [&str; 27] = [
    "select",
    "order",
    "_change_type",
    "_rescued",
    "_deleted",
    "_LF_batch",
    "a b",
    "a.b",
    "a/b",
    "a\\b",
    "😀",
    "q\"q",
    "it's",
    "`tick`",
    "é",
    "e\u{301}",
    "",
    "Name",
    "name",
    "NAME",
    "Robert'); DROP TABLE items;--",
    "a\nb",
    "%41",
    "1st",
    "-",
    "$.x[0]",
    "a=b",
];

#[test]
fn f133_members_of_any_name_become_columns_that_every_reader_reads() {
    let items = Items::new("table: { keys: [id], partition_by: [select] }");
    let record = |id: i64| {
        let members = NAMES.iter().enumerate();
        let mut record: serde_json::Map<String, Value> = members
            .map(|(number, name)| ((*name).to_owned(), json!(format!("{id}-{number} = /%41'\""))))
            .collect();
        record.insert("id".to_owned(), json!(id));
        Value::Object(record)
    };
    items.load(json!([record(1), record(2)]));
    items.load(json!([record(2), record(3)]));
    let rows = items.read();
    assert_eq!(rows.len(), 3);
    let drafted = items.drafted();
    let contract = landfall::contract::odcs::parse(&drafted, "c.yaml").unwrap();
    assert_eq!(contract.columns.len(), NAMES.len() + 1);
    for (number, name) in NAMES.iter().enumerate() {
        let column = contract
            .columns
            .iter()
            .find(|column| column.path == [*name])
            .unwrap();
        assert_eq!(
            rows[2][&column.name],
            format!("3-{number} = /%41'\""),
            "{name} as {}",
            column.name
        );
        let quoted = column.name.replace('"', "\"\"");
        let query = format!("SELECT \"{quoted}\" AS value FROM shop.items WHERE id = 3");
        assert_eq!(
            items.project.sql(&query)[0]["value"],
            rows[2][&column.name],
            "{name}"
        );
    }
    items.project.ok(&["verify"]);
}

#[test]
fn f133_a_contract_may_name_columns_as_it_likes_within_what_tables_hold() {
    let items = Items::new(r#"table: { keys: ["k.1"], sequence_by: ["s'2"] }"#);
    let names = [
        "a.b", "q\"x", "😀", "`", "a[0]", "a/b", "-", "select", "é", "e\u{301}", "%41", "O'Brien",
    ];
    let mut columns = String::from(
        r#"
      - { name: "k.1", logicalType: string, required: true, customProperties: [{ property: path, value: k }] }
      - { name: "s'2", logicalType: integer, required: true, customProperties: [{ property: path, value: s }] }
"#,
    );
    for (number, name) in names.iter().enumerate() {
        let name = Value::from(*name);
        columns.push_str(&format!(
            "      - {{ name: {name}, logicalType: integer, customProperties: [{{ property: path, value: m{number} }}] }}\n"
        ));
    }
    items.contract(&columns);
    let record = |key: &str, sequence: i64| {
        let mut record = json!({"id": 0, "k": key, "s": sequence});
        for number in 0..names.len() {
            record[format!("m{number}")] = json!(number);
        }
        record
    };
    items.load(json!([record("a", 1), record("b", 1)]));
    items.load(json!([record("a", 2), record("c", 1)]));
    let rows = items.read();
    assert_eq!(rows.len(), 3);
    for (number, name) in names.iter().enumerate() {
        assert!(rows.iter().all(|row| row[*name] == number), "{name}");
    }
    assert_eq!(
        items
            .project
            .sql(r#"SELECT "a.b" AS v, "q""x" AS w FROM shop.items WHERE "k.1" = 'a' AND "s'2" = 2"#),
        [json!({"v": 0, "w": 1})]
    );
    items.project.ok(&["verify"]);
}
