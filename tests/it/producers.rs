//! Producers of several versions of one contract at the same time, through the real program.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::{answers::Answers, project::TestProject};

const MAIN: &str = "contracts/shop.orders.odcs.yaml";
const FIRST: &str = "contracts/shop.orders.v1.odcs.yaml";

const STREAM: &str = r#"
      orders:
        request: { path: /orders }
        records: $.data[*]
        table: { keys: [id], sequence_by: [updated], apply_as_deletes: gone = true }
        versions:
          field: $.meta.version
          contracts: { "2024-06": contracts/shop.orders.v1.odcs.yaml }
"#;

/// A contract with `columns`, one a line, besides key and sequence.
fn contract(version: &str, columns: &[&str]) -> String {
    let columns: String = columns
        .iter()
        .map(|column| format!("      - {{ {column} }}\n"))
        .collect();
    format!(
        r"apiVersion: v3.1.0
kind: DataContract
id: shop.orders
version: {version}
status: active
schema:
  - name: orders
    logicalType: object
    properties:
      - {{ name: id, logicalType: integer, required: true, primaryKey: true }}
      - {{ name: updated, logicalType: integer, required: true }}
      - {{ name: meta, logicalType: object, properties: [{{ name: version, logicalType: string }}] }}
{columns}"
    )
}

const AMOUNT: &str = "name: amount, logicalType: integer, required: true";
const TOTAL: &str = "name: total, logicalType: integer, customProperties: [{ property: path, value: sum }]";

fn first() -> String {
    let buyer = "name: buyer, logicalType: string, required: true";
    contract("1.0.0", &[AMOUNT, TOTAL, buyer])
}

fn second() -> String {
    let money = "logicalType: number, physicalType: 'decimal(30,2)'";
    contract(
        "2.0.0",
        &[
            &format!("name: amount, {money}, required: true"),
            "name: total, logicalType: number",
            "name: customer, logicalType: object, required: true, properties: [{ name: name, logicalType: string }]",
            "name: gone, logicalType: boolean",
        ],
    )
}

/// A source that answers with whatever was put into it.
struct Shop {
    _api: Answers,
    answer: Arc<Mutex<Value>>,
    project: TestProject,
}

impl Shop {
    fn new() -> Self {
        let answer = Arc::new(Mutex::new(json!({"data": []})));
        let told = Arc::clone(&answer);
        let api = Answers::start(move |_| told.lock().unwrap().clone().into());
        let project = TestProject::new(&api.base_url, STREAM);
        project.write(MAIN, &second());
        project.write(FIRST, &first());
        Self {
            _api: api,
            answer,
            project,
        }
    }

    fn land(&self, records: &[Value]) {
        *self.answer.lock().unwrap() = json!({ "data": records });
        self.project.ok(&["extract"]);
    }

    fn load(&self, records: &[Value]) {
        self.land(records);
        self.project.ok(&["transform"]);
    }

    fn rows(&self, query: &str) -> Vec<Value> {
        self.project.sql(query)
    }
}

fn old(id: i64, amount: impl Into<Value>) -> Value {
    let amount: Value = amount.into();
    json!({"id": id, "updated": 100 + id, "meta": {"version": "2024-06"}, "amount": amount, "sum": id, "buyer": "Ada"})
}

fn new(id: i64, amount: impl Into<Value>) -> Value {
    let (amount, customer): (Value, Value) = (amount.into(), json!({"name": "Bo"}));
    json!({"id": id, "updated": 100 + id, "meta": {"version": "2025-01"}, "amount": amount, "total": id, "customer": customer, "gone": false})
}

const ROWS: &str = "SELECT id, CAST(amount AS VARCHAR) amount, total, buyer, customer['name'] customer, _rescued \
                    FROM shop.orders WHERE NOT _deleted ORDER BY id";

#[test]
fn r111_records_of_two_versions_are_judged_by_their_contracts_at_once() {
    let shop = Shop::new();
    let mut later = new(1, 7.25);
    later["updated"] = 900.into();
    let unversioned = json!({"id": 5, "updated": 105, "amount": 1, "customer": {"name": "Cy"}});
    shop.load(&[
        old(1, 10),
        new(2, 20.5),
        // Fits the other contract only.
        old(3, 2.5),
        old(4, 40),
        unversioned,
        json!({"id": 6, "updated": 106, "meta": {"version": "2024-06"}, "amount": 60, "customer": {"name": "Di"}, "buyer": "Di"}),
        new(7, 70),
        json!({"id": 8, "updated": 108, "meta": {"version": "2025-01"}, "amount": 80, "buyer": "Ed"}),
        later,
    ]);
    let row = |id: i64, amount: &str, total: Option<f64>, buyer: Value, customer: Value, rescued: Value| json!({"id": id, "amount": amount, "total": total, "buyer": buyer, "customer": customer, "_rescued": rescued});
    let null = || Value::Null;
    assert_eq!(
        shop.rows(ROWS),
        [
            row(1, "7.25", Some(1.0), null(), "Bo".into(), null()),
            row(2, "20.50", Some(2.0), null(), "Bo".into(), null()),
            row(4, "40.00", Some(4.0), "Ada".into(), null(), null()),
            row(5, "1.00", None, null(), "Cy".into(), null()),
            row(
                6,
                "60.00",
                None,
                "Di".into(),
                null(),
                r#"{"customer":{"name":"Di"}}"#.into()
            ),
            row(7, "70.00", Some(7.0), null(), "Bo".into(), null()),
        ]
    );
    assert_eq!(
        shop.rows("SELECT class, path, contract_version FROM shop.orders__quarantine ORDER BY path"),
        [
            json!({"class": "type_mismatch", "path": "amount", "contract_version": "1.0.0"}),
            json!({"class": "required_missing", "path": "customer", "contract_version": "2.0.0"}),
        ]
    );
    // What one version does not have is no drift of the other.
    let drift = "SELECT kind, path, contract_version, \"count\" n, records FROM landfall.drift \
                 WHERE kind <> 'enum_grown' ORDER BY contract_version, path";
    assert_eq!(
        shop.rows(drift),
        [
            json!({"kind": "type_changed", "path": "amount", "contract_version": "1.0.0", "n": 1, "records": 4}),
            json!({"kind": "unknown", "path": "customer", "contract_version": "1.0.0", "n": 1, "records": 4}),
            json!({"kind": "unknown", "path": "customer.name", "contract_version": "1.0.0", "n": 1, "records": 1}),
            json!({"kind": "unknown", "path": "buyer", "contract_version": "2.0.0", "n": 1, "records": 5}),
            json!({"kind": "required_missing", "path": "customer", "contract_version": "2.0.0", "n": 1, "records": 5}),
        ]
    );
    let grown = shop
        .rows("SELECT path, found, effect, contract_version FROM landfall.drift WHERE kind = 'enum_grown'");
    assert_eq!(
        grown,
        [
            json!({"path": "meta.version", "found": "\"2025-01\" ×4", "effect": "accepted", "contract_version": "2.0.0"})
        ]
    );
    shop.project.ok(&["verify"]);

    // A row tells the contract of its record, and where the key is in it.
    let told = |id: &str| {
        shop.project
            .ok(&["explain", "shop.orders", id, "--format", "json"])
            .stdout
    };
    assert!(
        told("id=4").contains(r#""contract_version":"1.0.0""#),
        "{}",
        told("id=4")
    );
    assert!(
        told("id=2").contains(r#""contract_version":"2.0.0""#),
        "{}",
        told("id=2")
    );

    let versions = "SELECT version, record_versions FROM landfall.contracts ORDER BY version";
    let kept = [
        json!({"version": "1.0.0", "record_versions": "2024-06"}),
        json!({"version": "2.0.0", "record_versions": null}),
    ];
    assert_eq!(shop.rows(versions), kept);

    // Producers go on in turns, and the lake keeps no version twice.
    shop.load(&[old(9, 90), new(10, 100)]);
    shop.load(&[old(11, 110)]);
    shop.load(&[new(9, 9.5), new(12, 120)]);
    assert_eq!(
        shop.rows("SELECT count(*) n FROM shop.orders"),
        [json!({"n": 10})]
    );
    assert_eq!(shop.rows(versions), kept);
    shop.project.ok(&["verify"]);
    // A patch is for the contract of the stream, and takes what was seen against that one.
    let patch = shop.project.ok(&["contract", "patch", "shop.orders"]).stdout;
    let added: Vec<&str> = patch.lines().filter(|line| line.starts_with("+ ")).collect();
    assert!(added.iter().any(|line| line.contains("buyer")), "{patch}");
    assert!(!added.iter().any(|line| line.contains("amount")), "{patch}");
    shop.project.ok(&["rebuild", "shop.orders"]);
}

#[test]
fn a_value_that_the_wider_column_does_not_hold_is_set_aside_and_never_altered() {
    let shop = Shop::new();
    let mut gap = old(1, 10);
    gap["sum"] = ((1_i64 << 53) + 1).into();
    shop.load(&[gap, old(2, 20)]);
    assert_eq!(shop.rows("SELECT id FROM shop.orders"), [json!({"id": 2})]);
    assert_eq!(
        shop.rows("SELECT class, path, expected, contract_version FROM shop.orders__quarantine"),
        [json!({"class": "out_of_range", "path": "sum", "expected": "number", "contract_version": "1.0.0"})]
    );
    let drift = shop.rows("SELECT path, effect FROM landfall.drift WHERE kind = 'out_of_range'");
    assert_eq!(drift, [json!({"path": "sum", "effect": "quarantined"})]);
    shop.project.ok(&["verify"]);
}

#[test]
fn columns_that_do_not_go_together_are_refused_before_anything_is_loaded() {
    let shop = Shop::new();
    shop.project.write(
        FIRST,
        &first().replace(
            "name: buyer, logicalType: string",
            "name: customer, logicalType: string",
        ),
    );
    let checked = shop.project.run(&["check"]);
    assert_eq!(checked.code, Some(2), "{}", checked.stdout);
    let dir = shop.project.path().canonicalize().unwrap();
    let said = checked
        .stdout
        .replace(dir.to_str().unwrap(), "DIR")
        .replace(shop.project.path().to_str().unwrap(), "DIR");
    let said: Vec<&str> = said.lines().filter(|line| line.starts_with("error")).collect();
    insta::assert_snapshot!(said.join("\n"), @"error  shop.orders  join contracts of one stream (column: customer, contract: DIR/contracts/shop.orders.odcs.yaml, type: object, other contract: DIR/contracts/shop.orders.v1.odcs.yaml, type there: string, hint: give it the same name and type in both, or another name in one of them with `path` at its place in the record)");
    shop.land(&[old(1, 10)]);
    let refused = shop.project.run(&["transform"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("join contracts of one stream"),
        "{}",
        refused.stderr
    );
    assert!(!shop.project.path().join("lake/tables").exists());

    // The way out that the hint names: the same place under another name.
    let renamed =
        "name: customer_text, customProperties: [{ property: path, value: customer }], logicalType: string";
    shop.project.write(
        FIRST,
        &first().replace("name: buyer, logicalType: string", renamed),
    );
    shop.project.ok(&["check"]);

    std::fs::remove_file(shop.project.path().join(FIRST)).unwrap();
    let missing = shop.project.run(&["check"]);
    assert_eq!(missing.code, Some(2));
    assert!(
        missing.stdout.contains("it judges records of 2024-06"),
        "{}",
        missing.stdout
    );
    // A key that an older version does not have would make rows without one.
    shop.project
        .write(FIRST, &first().replace("name: id,", "name: number,"));
    let keyless = shop.project.run(&["check"]);
    assert_eq!(keyless.code, Some(2));
    assert!(keyless.stdout.contains("v1.odcs.yaml"), "{}", keyless.stdout);
}

#[test]
fn a_record_of_an_older_version_is_released_once_its_own_contract_was_mended() {
    let shop = Shop::new();
    shop.load(&[old(1, 2.5), new(2, 20), old(3, "x")]);
    assert_eq!(shop.rows("SELECT id FROM shop.orders"), [json!({"id": 2})]);
    // That the newest one takes it does not matter.
    let same = shop
        .project
        .ok(&["quarantine", "release", "shop.orders", "--all"]);
    assert!(same.stderr.contains("0"), "{}", same.stderr);
    assert_eq!(
        shop.rows("SELECT count(*) n FROM shop.orders__quarantine"),
        [json!({"n": 2})]
    );

    let wider = AMOUNT.replace("integer", "number");
    let mended = first().replace(AMOUNT, &wider).replace("1.0.0", "1.1.0");
    shop.project.write(FIRST, &mended);
    let refused = shop
        .project
        .run(&["quarantine", "release", "shop.orders", "--all"]);
    // A number does not become a decimal without loss.
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    let money = "logicalType: number, physicalType: 'decimal(20,1)'";
    let mended = mended.replace(
        "name: amount, logicalType: number",
        &format!("name: amount, {money}"),
    );
    shop.project.write(FIRST, &mended);
    shop.project
        .ok(&["quarantine", "release", "shop.orders", "--all"]);
    let amounts = shop.rows("SELECT id, CAST(amount AS VARCHAR) amount FROM shop.orders ORDER BY id");
    assert_eq!(
        amounts,
        [
            json!({"id": 1, "amount": "2.50"}),
            json!({"id": 2, "amount": "20.00"})
        ]
    );
    assert_eq!(
        shop.rows("SELECT path FROM shop.orders__quarantine"),
        [json!({"path": "amount"})]
    );
    shop.project.ok(&["verify"]);
    shop.load(&[old(4, 4.5)]);
    let kept = shop.rows("SELECT version, record_versions FROM landfall.contracts ORDER BY version");
    assert_eq!(kept.len(), 3, "{kept:?}");
    assert_eq!(kept[1], json!({"version": "1.1.0", "record_versions": "2024-06"}));
    shop.project.ok(&["verify"]);
}

#[test]
fn a_proposed_contract_is_tested_with_those_of_other_versions_in_place() {
    let shop = Shop::new();
    shop.load(&[old(1, 10), new(2, 20.5), new(3, 30)]);
    let stricter = second().replace("2.0.0", "3.0.0").replace(
        "name: total, logicalType: number",
        "name: total, logicalType: number, logicalTypeOptions: { maximum: 2 }",
    );
    shop.project.write("proposed.yaml", &stricter);
    let file = shop.project.path().join("proposed.yaml");
    let test = [
        "contract",
        "test",
        "shop.orders",
        "--format",
        "json",
        "--contract",
        file.to_str().unwrap(),
    ];
    let ran = shop.project.run(&test);
    let effects: Vec<Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(effects.len(), 1, "{effects:?} {}", ran.stderr);
    assert_eq!(
        (&effects[0]["effect"], &effects[0]["samples"]),
        (&json!("breaks"), &json!(["0/0/2"]))
    );
}

#[test]
fn only_the_contract_of_the_stream_evolves_and_is_drafted() {
    let shop = Shop::new();
    let config = shop.project.path().join("landfall.yml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(
        &config,
        text.replace(
            "        versions:",
            "        drift: { on_unknown: evolve }\n        versions:",
        ),
    )
    .unwrap();
    let (mut one, mut two) = (old(1, 10), new(2, 20));
    one["note"] = "of the first".into();
    two["color"] = "red".into();
    shop.load(&[one, two]);
    let rows = shop.rows("SELECT id, color, _rescued FROM shop.orders ORDER BY id");
    assert_eq!(
        rows,
        [
            json!({"id": 1, "color": null, "_rescued": r#"{"note":"of the first"}"#}),
            json!({"id": 2, "color": "red", "_rescued": null}),
        ]
    );
    assert_eq!(
        std::fs::read_to_string(shop.project.path().join(FIRST)).unwrap(),
        first()
    );
    // A new field that another version declares with a type it cannot have keeps the contract as it is, and nobody waits.
    let mut clash = new(3, 30);
    clash["buyer"] = json!({"name": "Flo"});
    shop.load(&[clash, old(4, 40)]);
    assert_eq!(shop.rows("SELECT count(*) n FROM shop.orders"), [json!({"n": 4})]);
    shop.project.ok(&["verify"]);

    std::fs::remove_file(shop.project.path().join(MAIN)).unwrap();
    let drafted = shop.project.ok(&["contract", "infer", "shop.orders"]).stdout;
    assert!(
        drafted.contains("name: color") && !drafted.contains("name: sum"),
        "{drafted}"
    );
}

#[test]
fn the_end_of_an_older_version_is_told_and_stops_nobody() {
    let shop = Shop::new();
    let ending = first().replace("status: active", "status: deprecated").replace(
        "schema:",
        "slaProperties: [{ property: endOfLife, value: 2020-01-31 }]\nschema:",
    );
    shop.project.write(FIRST, &ending);
    let expected = "contract 1.0.0 ended on 2020-01-31";
    let checked = shop.project.ok(&["check"]).stdout;
    assert!(checked.contains("ended on 2020-01-31"), "{checked}");
    assert!(
        checked.contains("of records with $.meta.version 2024-06"),
        "{checked}"
    );
    shop.land(&[old(1, 10), new(2, 20)]);
    let ran = shop.project.ok(&["transform"]).stderr;
    assert!(
        ran.contains("ended on 2020-01-31") && ran.contains("1.0.0"),
        "{expected}: {ran}"
    );
    assert_eq!(shop.rows("SELECT count(*) n FROM shop.orders"), [json!({"n": 2})]);
}

#[test]
fn a_deletion_is_excused_from_columns_but_not_from_its_key() {
    let shop = Shop::new();
    let number = second().replace("name: id, logicalType: integer", "name: id, logicalType: number");
    shop.project.write(MAIN, &number);
    let gone = "name: gone, logicalType: boolean";
    let buyer = "name: buyer, logicalType: string, required: true";
    shop.project
        .write(FIRST, &contract("1.0.0", &[AMOUNT, TOTAL, buyer, gone]));
    // No double holds the first key. Neither record has what only a row must have.
    let deletion = |id: i64| json!({"id": id, "updated": 9, "meta": {"version": "2024-06"}, "gone": true});
    shop.load(&[deletion(9_007_199_254_740_993), deletion(7)]);
    assert_eq!(
        shop.rows("SELECT class, path FROM shop.orders__quarantine"),
        [json!({"class": "out_of_range", "path": "id"})]
    );
    assert_eq!(shop.rows("SELECT id FROM shop.orders"), [json!({"id": 7.0})]);
}
