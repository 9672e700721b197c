//! A proposed contract over stored history, through the real program.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::{
    answers::Answers,
    project::{Ran, TestProject, items_contract},
};

const STREAMS: &str = r"
      items:
        request: { path: /items }
        records: $.data[*]
        table: { keys: [id], sequence_by: [updated], apply_as_deletes: deleted = true }
";

fn contract(version: &str, colors: &str, name: &str) -> String {
    let columns = format!(
        r"
      - {{ name: id, logicalType: integer, required: true, primaryKey: true }}
      - {{ name: updated, logicalType: integer, required: true }}
      - name: color
        logicalType: string
        customProperties:
          - property: enum
            value: [{colors}]
      - {{ name: name, logicalType: string, {name} }}
      - {{ name: deleted, logicalType: boolean }}
"
    );
    items_contract(version, &columns)
}

/// A project with these loads behind it, and a proposed contract.
fn project(loads: &[&[Value]], proposed: &str) -> (Answers, TestProject) {
    let answer = Arc::new(Mutex::new(json!({"data": []})));
    let told = Arc::clone(&answer);
    let api = Answers::start(move |_| told.lock().unwrap().clone().into());
    let project = TestProject::new(&api.base_url, STREAMS);
    let today = contract("1.0.0", "red, blue", "required: false");
    project.write("contracts/shop.items.odcs.yaml", &today);
    project.write("proposed.yaml", proposed);
    for records in loads {
        *answer.lock().unwrap() = json!({"data": records});
        project.ok(&["run"]);
    }
    (api, project)
}

fn test(project: &TestProject, args: &[&str]) -> (Ran, Vec<Value>) {
    let file = project.path().join("proposed.yaml");
    let own = ["contract", "test", "shop.items", "--format", "json", "--contract"];
    let ran = project.run(&[&own[..], &[file.to_str().unwrap()], args].concat());
    let rows = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    (ran, rows)
}

fn item(id: i64, color: &str) -> Value {
    json!({"id": id, "updated": id, "color": color, "name": format!("n{id}")})
}

#[test]
fn a_proposed_contract_is_told_from_history_what_it_would_break_and_heal() {
    let proposed = contract("2.0.0", "red, green", "required: true");
    let (_api, project) = project(
        &[
            &[item(1, "red"), item(2, "blue"), item(3, "green")],
            &[
                item(4, "grey"),
                json!({"id": 5, "updated": 5, "color": "red"}),
                // A deletion may do without the name.
                json!({"id": 1, "updated": 6, "deleted": true}),
                json!({"id": "x", "updated": 7}),
            ],
        ],
        &proposed,
    );
    let files = project.files("lake");
    let (ran, rows) = test(&project, &[]);
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    assert_eq!(project.files("lake"), files, "no table is touched");
    let told: Vec<_> = rows
        .iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            (
                text("effect"),
                text("class"),
                text("path"),
                row["records"].as_u64().unwrap(),
                row["samples"][0].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    let expected = [
        ("breaks", "enum", "color", 1, "0/0/1"),
        ("breaks", "required_missing", "name", 1, "1/0/1"),
        ("heals", "enum", "color", 1, "0/0/2"),
        ("stays", "enum", "color", 1, "1/0/0"),
        ("stays", "type_mismatch", "id", 1, "1/0/3"),
    ];
    let expected = expected.map(|(effect, class, path, records, sample)| {
        (
            effect.to_owned(),
            class.to_owned(),
            path.to_owned(),
            records,
            sample.to_owned(),
        )
    });
    assert_eq!(told, expected);
    assert!(
        ran.stderr
            .contains("7 records in 2 batches read: 2 would break, 1 would heal, 2 stay aside"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("records per second"), "{}", ran.stderr);
    assert_eq!(rows[0]["found"], r#"string "blue""#);

    // A part of history.
    let (ran, rows) = test(&project, &["--from", "1"]);
    assert!(
        ran.stderr
            .contains("4 records in 1 batch read: 1 would break, 0 would heal"),
        "{}",
        ran.stderr
    );
    assert_eq!(rows.len(), 3);
    let (ran, _) = test(&project, &["--since", "1d"]);
    assert!(ran.stderr.contains("7 records in 2 batches"), "{}", ran.stderr);
    let (ran, rows) = test(&project, &["--since", "1ms"]);
    assert_eq!((ran.code, rows.len()), (Some(0), 0), "{}", ran.stderr);
}

#[test]
fn a_proposed_contract_that_only_heals_is_told_so_and_keeps_its_word() {
    let proposed = contract("1.1.0", "red, blue, green", "required: false");
    let records = [
        item(1, "red"),
        item(2, "green"),
        item(3, "green"),
        item(4, "grey"),
    ];
    let (_api, project) = project(&[&records], &proposed);
    let (ran, rows) = test(&project, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(
        (&rows[0]["effect"], &rows[0]["records"]),
        (&json!("heals"), &json!(2))
    );
    project.write("contracts/shop.items.odcs.yaml", &proposed);
    let said = project
        .ok(&["quarantine", "release", "shop.items", "--all"])
        .stderr;
    assert!(said.contains("released 2 of 3"), "{said}");
}

#[test]
fn r165_what_a_contract_classifies_is_masked_in_what_would_break() {
    let proposed = contract(
        "2.0.0",
        "red",
        "classification: restricted, logicalTypeOptions: { maxLength: 1 }",
    );
    let (_api, project) = project(&[&[item(1, "red")]], &proposed);
    let (ran, rows) = test(&project, &[]);
    assert_eq!(
        (rows[0]["class"].as_str(), rows[0]["found"].as_str()),
        (Some("length"), Some("****")),
        "{}",
        ran.stderr
    );
    assert!(!ran.stdout.contains("n1"), "{}", ran.stdout);
    let (_, rows) = test(&project, &["--reveal"]);
    assert_ne!(rows[0]["found"], "****");
}

#[test]
fn batches_that_have_expired_are_left_out_and_said() {
    let row = |id: i64, color: &str| json!({"id": id, "updated": id, "color": color, "name": "n"});
    let proposed = contract("2.0.0", "red", "required: false");
    let (_api, project) = project(
        &[&[row(1, "blue")], &[row(2, "red")], &[row(3, "red")]],
        &proposed,
    );
    let file = project.path().join("landfall.yml");
    let text = std::fs::read_to_string(&file).unwrap();
    let text = text.replace(
        "        table:",
        "        retention: { raw: 1ms }\n        table:",
    );
    std::fs::write(&file, text).unwrap();
    project.ok(&["maintain", "--only", "expire"]);
    let (ran, found) = test(&project, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(found.is_empty(), "{found:?}");
    // Of a table that merges, the last pass stays.
    assert!(
        ran.stderr.contains("2 batches left out: raw of them has expired"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("1 record in 1 batch read"), "{}", ran.stderr);
    // What is left is inferred from.
    let inferred = project.ok(&["contract", "infer", "shop.items"]);
    assert!(inferred.stdout.contains("name: color"), "{}", inferred.stdout);
    assert!(inferred.stderr.contains("has expired"), "{}", inferred.stderr);

    // And if nothing is left, nothing is said to be fine.
    let folder = project.path().join("lake/raw/shop/items/_log/_expired");
    let words: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|word| word.unwrap().path())
        .collect();
    for word in words {
        let name = word.file_name().unwrap().to_str().unwrap();
        let (first, rest) = name.split_at(20);
        let (_, end) = rest.split_at(21);
        let last = format!("{first}-{:020}{end}", 2);
        std::fs::rename(&word, folder.join(last)).unwrap();
    }
    for args in [
        &["contract", "test", "shop.items", "--contract", "proposed.yaml"][..],
        &["contract", "infer", "shop.items"],
    ] {
        let ran = project
            .command(args)
            .current_dir(project.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(1), "{said}");
        assert!(said.contains("raw objects have expired"), "{said}");
    }
}
