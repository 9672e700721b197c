//! Contracts by the rules of others: public tools read what we write, and a public validator agrees with the judge.

use std::{fs, path::PathBuf};

use landfall::{
    clock::Clock,
    config::{OnMismatch, OnUnknown, StreamName, flatten::Flatten, read},
    contract::{
        Coercion, Column, ColumnType, Contract, ViolationClass,
        evidence::{Guesses, study},
        export::json_schema,
        judge::{Judge, JudgeOptions},
        odcs::{
            parse,
            write::{write, write_with},
        },
    },
    error::ErrorKind,
    ops::{
        Workspace,
        contract::{
            self,
            registry::{Registered, register},
        },
    },
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::support::{
    project::{ITEMS_CONTRACT, TestProject},
    python,
};

const ORDERS: &str = include_str!("../../fixtures/contracts/shop.orders.odcs.yaml");

fn orders() -> Contract {
    parse(ORDERS, "shop.orders.odcs.yaml").unwrap()
}

/// Records as the contract of orders wants them, some members of which are gone, null or something else.
fn records(count: usize) -> Vec<Value> {
    let mut random = StdRng::seed_from_u64(4);
    let good = json!({
        "id": 1, "status": "paid", "total": 12.5, "weight": 0.25, "paid": true, "day": "2024-02-29",
        "updated_at": "2024-01-01T00:00:00Z", "created": 1_700_000_000_000_i64,
        "customer": { "contact": { "email": "ann@shop.example" } },
        "address": { "street": "Main", "zip": "12345" },
        "lines": [{ "sku": "a", "prices": [1, 2.5] }, { "sku": "b" }],
        "extra": { "any": [1] }, "unknown": 1,
    });
    let places = [
        "/id",
        "/status",
        "/total",
        "/weight",
        "/paid",
        "/day",
        "/updated_at",
        "/created",
        "/customer",
        "/customer/contact",
        "/customer/contact/email",
        "/address",
        "/address/zip",
        "/lines",
        "/lines/0",
        "/lines/0/sku",
        "/lines/0/prices",
        "/lines/0/prices/1",
        "/extra",
        "/unknown",
    ];
    let others = [
        json!(null),
        json!(0),
        json!(-1),
        json!(1.5),
        json!("x"),
        json!(""),
        json!("open"),
        json!("lost"),
        json!(true),
        json!([]),
        json!({}),
        json!("2024-01-01"),
        json!("2024-01-01T10:00:00.5+02:00"),
        json!("a@b"),
        json!(1e300),
        json!([null]),
        json!(10_000_000_000_u64),
        json!(9_999_999_999.0),
    ];
    let mut made = vec![good.clone()];
    while made.len() < count {
        let mut record = good.clone();
        for _ in 0..random.random_range(1..3) {
            let place = places[random.random_range(0..places.len())];
            let (parent, name) = place.rsplit_once('/').unwrap();
            match record.pointer_mut(parent) {
                Some(Value::Object(members)) if random.random_range(0..3) == 0 => {
                    members.remove(name);
                }
                _ => {
                    if let Some(value) = record.pointer_mut(place) {
                        *value = others[random.random_range(0..others.len())].clone();
                    }
                }
            }
        }
        made.push(record);
    }
    made
}

/// The columns without coercion of text, which JSON Schema does not know.
fn uncoerced(columns: &mut [Column]) {
    for column in columns {
        column.coercion = Coercion::None;
        match &mut column.kind {
            ColumnType::Object(columns) => uncoerced(columns),
            ColumnType::Array(element) => uncoerced(std::slice::from_mut(element)),
            _ => {}
        }
    }
}

/// For each record whether it is accepted.
fn judged(contract: &Contract, records: &[Value]) -> Vec<bool> {
    let options = JudgeOptions {
        keys: Vec::new(),
        sequence_by: Vec::new(),
        on_unknown: OnUnknown::Ignore,
        on_mismatch: OnMismatch::Quarantine,
        record_bytes_max: 1 << 20,
    };
    let judge = Judge::new(contract, options).unwrap();
    let accepted = |record: &Value| {
        let mut judging = judge.start();
        judging.push(record.to_string().as_bytes());
        let judged = judging.finish().unwrap();
        assert!(
            judged
                .violations
                .iter()
                .all(|found| found.violation.class != ViolationClass::NotJson)
        );
        judged.violations.is_empty()
    };
    records.iter().map(accepted).collect()
}

#[test]
fn r112_a_public_validator_agrees_with_the_judge_about_the_json_schema_of_a_contract_and_its_example() {
    let mut contract = orders();
    uncoerced(&mut contract.columns);
    let schema = json_schema(&contract);
    let example = schema["examples"][0].clone();
    assert!(example["id"].is_i64(), "{example}");
    let mut records = records(2_000);
    records.push(example);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("all.json");
    fs::write(
        &file,
        json!({ "schema": schema, "instances": records }).to_string(),
    )
    .unwrap();
    let words: Vec<String> =
        serde_json::from_str(&python::run("judge_json.py", &[file.to_str().unwrap()])).unwrap();
    let accepted = judged(&contract, &records);
    for ((record, words), accepted) in records.iter().zip(&words).zip(&accepted) {
        assert_eq!(words.is_empty(), *accepted, "{record}\n{words}");
    }
    assert_eq!(accepted.last(), Some(&true), "the example");
    let share = accepted.iter().filter(|&&accepted| accepted).count();
    assert!((200..1_800).contains(&share), "{share} of 2000 accepted");
}

#[test]
fn public_tools_read_every_contract_we_write() {
    let records: Vec<String> = records(300).iter().map(Value::to_string).collect();
    let lines = records.join("\n");
    let project = TestProject::new("http://127.0.0.1:9", "");
    project.write("orders.jsonl", &lines);
    let path = project.path().join("orders.jsonl");
    let drafted = |strict: &[&str]| {
        let arguments = [&["contract", "infer", path.to_str().unwrap()], strict].concat();
        let ran = project.run(&arguments);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        ran.stdout
    };
    let odd = [r#"{"a b":1,"é":[{"":{"x":null}}],"j":[1,"x"],"d":"2024-01-01"}"#.as_bytes()];
    let odd = study("odd", &[], &Flatten::None, odd.into_iter(), Guesses::Suggested).unwrap();
    let texts = [
        ORDERS.to_owned(),
        write(&orders(), "shop.orders"),
        drafted(&[]),
        drafted(&["--strict"]),
        write_with(&odd.contract, "odd", &odd.notes),
    ];
    let files: Vec<PathBuf> = (0..texts.len())
        .map(|number| project.path().join(format!("{number}.odcs.yaml")))
        .collect();
    for (file, text) in files.iter().zip(&texts) {
        fs::write(file, text).unwrap();
    }
    for (words, text) in python::lint_contracts(&files).iter().zip(&texts) {
        assert_eq!(words, "", "{text}");
    }
}

#[test]
fn r110_contract_files_are_compared_and_a_mode_can_refuse() {
    let project = TestProject::new("http://127.0.0.1:9", "");
    project.write("old.yaml", ORDERS);
    project.write(
        "new.yaml",
        &ORDERS.replace("maxLength: 320", "maxLength: 100").replace(
            "required: true\n        primary",
            "required: false\n        primary",
        ),
    );
    let path = |name: &str| project.path().join(name).to_str().unwrap().to_owned();
    let (old, new) = (path("old.yaml"), path("new.yaml"));
    let ran = project.run(&["contract", "diff", &old, &new, "--format", "csv"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    insta::assert_snapshot!(ran.stdout, @r#"
    change,column,before,after,compatible,except
    required_dropped,id,required,optional,backward,
    length_changed,email,at most 320,at most 100,forward,
    "#);
    assert_eq!(ran.stderr, "the version after: 2.0.0\n");
    let ran = project.run(&["contract", "diff", &old, &new, "--mode", "full"]);
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    let same = project.run(&[
        "contract", "diff", &old, &old, "--mode", "full", "--format", "json",
    ]);
    assert_eq!(
        (same.code, same.stdout.as_str()),
        (Some(0), ""),
        "{}",
        same.stderr
    );
    assert_eq!(
        project
            .run(&["contract", "diff", &old, &new, "--mode", "sideways"])
            .code,
        Some(2)
    );
    let ran = project.run(&["contract", "export", &old, "--format", "delta"]);
    let schema: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(schema["fields"][2]["type"], "decimal(12,2)");
}

#[tokio::test]
async fn r110_r130_versions_of_a_contract_are_kept_once_and_an_incompatible_one_is_refused_if_asked() {
    let project = TestProject::items("http://127.0.0.1:9");
    let file = "contracts/shop.items.odcs.yaml";
    let name = StreamName::parse("shop.items").unwrap();
    let registered = async || {
        let loaded = read::load(project.path()).unwrap();
        let workspace = Workspace::open(loaded.project, Clock::system()).unwrap();
        let (_, stream) = workspace.project.stream(&name).unwrap();
        let contracts = contract::read_all(stream)?.unwrap();
        register(&workspace, stream, &contracts).await
    };
    let new = |version: &str, incompatible| Registered::New {
        version: version.to_owned(),
        incompatible,
    };
    assert_eq!(registered().await.unwrap(), new("1.0.0", 0));
    assert_eq!(registered().await.unwrap(), Registered::Known);

    // A column more is compatible; one less is said, and refused only where that is asked for.
    let more = ITEMS_CONTRACT.replace("1.0.0", "1.1.0") + "      - { name: note, logicalType: string }\n";
    project.write(file, &more);
    assert_eq!(registered().await.unwrap(), new("1.1.0", 0));
    let less = ITEMS_CONTRACT.replace("1.0.0", "2.0.0");
    project.write(file, &less);
    assert_eq!(registered().await.unwrap(), new("2.0.0", 1));
    let strict = "customProperties: [{ property: compatibility, value: backward_transitive }]\nschema:";
    project.write(file, &less.replace("schema:", strict).replace("2.0.0", "2.1.0"));
    let error = registered().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Contract, "{}", error.chain());
    assert!(error.chain().contains("column_removed note"), "{}", error.chain());

    let ran = project.run(&["contract", "versions", "shop.items", "--format", "json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let rows: Vec<Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let versions: Vec<&Value> = rows.iter().map(|row| &row["version"]).collect();
    assert_eq!(versions, ["1.0.0", "1.1.0", "2.0.0"]);
    assert!(
        rows[1]["changes"].to_string().contains("column_added"),
        "{}",
        rows[1]
    );
}

#[test]
fn r009_r117_a_patch_out_of_the_drift_of_a_demo_is_read_again_and_leaves_nothing_to_patch() {
    let project = TestProject::new("http://127.0.0.1:9", "");
    let dir = project.path().join("demo");
    let demo = project.run(&["demo", dir.to_str().unwrap()]);
    assert_eq!(demo.code, Some(0), "{}", demo.stderr);
    let run = |arguments: &[&str]| {
        let arguments = [&["--project", dir.to_str().unwrap()], arguments].concat();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_landfall"))
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, proposed, words) = run(&["contract", "patch", "shop.orders", "--everything"]);
    assert_eq!(code, Some(0), "{words}");
    insta::assert_snapshot!(proposed, @r#"
    --- a/contracts/shop.orders.odcs.yaml
    +++ b/contracts/shop.orders.odcs.yaml
    @@ -2,7 +2,7 @@
     kind: DataContract
     id: shop.orders
     name: Orders of the sample shop
    -version: 1.0.0
    +version: 2.0.0
     status: active
     description:
       purpose: What was ordered, by whom, and how far it has come.
    @@ -36,14 +36,15 @@
           - name: total
             description: Gross, shipping included.
             logicalType: number
    -        physicalType: decimal(12,2)
    +        physicalType: "decimal(38,18)"
             required: true
           - name: customer
             logicalType: object
             required: true
             properties:
               - name: id
    -            logicalType: integer
    +            logicalType: number
    +            physicalType: "decimal(38,0)"
                 required: true
               - name: email
                 logicalType: string
    @@ -58,6 +59,8 @@
               - name: cost
                 logicalType: number
                 physicalType: decimal(12,2)
    +          - name: carrier
    +            logicalType: string
           - name: lines
             logicalType: array
             required: true
    @@ -70,7 +73,8 @@
                 - name: name
                   logicalType: string
                 - name: quantity
    -              logicalType: integer
    +              logicalType: object
    +              physicalType: "json"
                   required: true
                 - name: unit_price
                   logicalType: number
    "#);
    insta::assert_snapshot!(words, @r#"
    left as it is: missing deleted: nothing has it any more; remove it once that is meant
    left as it is: required_missing id: a key has to be there
    left as it is: null_in_required id: a key has to be there
    "#);
    let (code, written, _) = run(&["contract", "patch", "shop.orders", "--everything", "--write"]);
    assert_eq!((code, written), (Some(0), proposed));
    // What the new version takes is not proposed again; what is left to people still is.
    let (code, again, after) = run(&["contract", "patch", "shop.orders"]);
    assert_eq!((code, again.as_str()), (Some(0), ""));
    assert_eq!(after, format!("{words}nothing to change\n"));
}

#[test]
fn a_schema_for_producers_requires_what_the_stream_calls_its_keys() {
    let project = TestProject::new(
        "http://127.0.0.1:9",
        "      items: { request: { path: /items }, records: \"$.data[*]\", table: { keys: [id], sequence_by: [at] } }\n",
    );
    let contract = "apiVersion: v3.1.0\nkind: DataContract\nid: a\nversion: 1.0.0\nstatus: active\nschema:\n- name: a\n  logicalType: object\n  properties:\n  - name: id\n    logicalType: string\n  - name: at\n    logicalType: integer\n";
    project.write("contracts/shop.items.odcs.yaml", contract);
    let exported = |what: &str| -> Value {
        serde_json::from_str(&project.ok(&["contract", "export", what]).stdout).unwrap()
    };
    let schema = exported("shop.items");
    assert_eq!(schema["required"], json!(["at", "id"]));
    assert_eq!(schema["properties"]["id"]["minLength"], 1);
    let file = project.path().join("contracts/shop.items.odcs.yaml");
    assert_eq!(exported(file.to_str().unwrap()).get("required"), None);
}

#[test]
fn only_the_first_records_of_a_file_are_looked_at() {
    let project = TestProject::new("http://127.0.0.1:9", "");
    let lines: Vec<String> = (0..10_001)
        .map(|number| format!(r#"{{"m{}":1}}"#, number / 10_000))
        .collect();
    project.write("all.jsonl", &lines.join("\n"));
    project.write("some.jsonl", &lines[..10_000].join("\n"));
    let inferred = |name: &str| {
        let path = project.path().join(name);
        let ran = project.run(&["contract", "infer", path.to_str().unwrap()]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        ran
    };
    let all = inferred("all.jsonl");
    assert!(
        all.stderr.contains("only the first 10,000 records of"),
        "{}",
        all.stderr
    );
    assert!(all.stdout.contains("name: m0") && !all.stdout.contains("name: m1"));
    assert_eq!(inferred("some.jsonl").stderr, "");
}
