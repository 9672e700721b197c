//! Rows of records without an id, and the canonical text behind their keys.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::support::{
    api::{Api, Scripted},
    project::{TestProject, items_contract},
};

const COLUMNS: &str = "
      - { name: a, logicalType: number, customProperties: [{ property: coercion, value: none }] }
      - { name: n, logicalType: integer }
";

#[test]
fn f144_records_without_an_id_are_told_apart_by_what_they_hold() {
    let first = r#"{"data":[{"a":1.50,"b":["x",{"c":null,"d":"caf\u00e9"}],"n":9007199254740992},{"b":[],"a":2},{"a":"3"}]}"#;
    // The same in another order and another spelling, and one that differs in its last digit.
    let second = r#"{"data":[{ "n": 9007199254740992, "b": ["\u0078", {"d": "café", "c": null}], "a": 15e-1 },
        {"a": 2.0, "b": []}, {"a":1.5,"b":["x",{"c":null,"d":"café"}],"n":9007199254740993}]}"#;
    let api = Api::start(Vec::new());
    for body in [first, second, second] {
        api.script(Scripted {
            status: 200,
            headers: vec![("content-type", "application/json".to_owned())],
            body: body.as_bytes().to_vec(),
        });
    }
    let project = TestProject::new(
        &api.base_url,
        "
      items:
        request: { path: /items }
        records: $.data[*]
        table: { keys: [_lf_content] }
",
    );
    project.write(
        "contracts/shop.items.odcs.yaml",
        &items_contract("1.0.0", COLUMNS),
    );
    for expected in [2, 3, 3] {
        project.ok(&["run"]);
        let counts = project.sql("SELECT count(*) n, count(DISTINCT _lf_content) d FROM shop.items");
        assert_eq!(counts, [json!({"n": expected, "d": expected})]);
    }
    project.ok(&["verify"]);
    let rows = project.sql("SELECT _lf_content, n FROM shop.items ORDER BY n NULLS FIRST");
    // Anybody can make the key: it is SHA-256 over RFC 8785.
    let hash: String = Sha256::digest(r#"{"a":2,"b":[]}"#)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(rows[0]["_lf_content"], hash);
    let told = project.ok(&["explain", "shop.items", &hash]).stdout;
    assert!(told.contains(r#"{"a": 2.0, "b": []}"#), "{told}");
    let aside = project.sql("SELECT class FROM shop.items__quarantine");
    assert_eq!(aside, [json!({"class": "type_mismatch"})]);

    let refused = project.path().join("landfall.yml");
    let text = std::fs::read_to_string(&refused).unwrap();
    for (other, word) in [
        ("keys: [_lf_content, id]", "without other columns"),
        (
            "keys: [_lf_content], scd_type: 2, sequence_by: [n]",
            "only a table of scd_type 1",
        ),
        ("keys: [_lf_content], apply_as_deletes: n = 1", "are not deleted"),
        ("keys: [_lf_batch]", "a column of the program itself"),
    ] {
        std::fs::write(&refused, text.replace("keys: [_lf_content]", other)).unwrap();
        let ran = project.run(&["check"]);
        assert_eq!(ran.code, Some(2), "{other}");
        assert!(ran.stderr.contains(word), "{other}: {}", ran.stderr);
    }
}

/// JavaScript's own `JSON.stringify` is RFC 8785 once members are sorted.
#[test]
fn f144_canonical_texts_are_those_of_another_implementation() {
    const SCRIPT: &str = "
        const sorted = value => value === null || typeof value !== 'object' ? value
            : Array.isArray(value) ? value.map(sorted)
            : Object.fromEntries(Object.keys(value).sort().map(key => ['\\0' + key, sorted(value[key])]));
        const {createHash} = require('node:crypto');
        for (const line of require('node:fs').readFileSync(0, 'utf8').split('\\n').filter(line => line))
            console.log(createHash('sha256').update(JSON.stringify(sorted(JSON.parse(line))).replaceAll('\"\\\\u0000', '\"')).digest('hex'));";
    let mut random = StdRng::seed_from_u64(144);
    let mut lines: Vec<String> = Vec::new();
    for _ in 0..500 {
        let digits = random.random_range(1..=15_u32);
        let whole = random.random_range(0..10_i64.pow(digits));
        let power = random.random_range(-30..30);
        let double = f64::from_bits(random.random::<u64>());
        let double = if double.is_finite() { double } else { 0.5 };
        let letters: String = (0..4)
            .map(|_| random.random::<char>())
            .filter(|letter| *letter != '\0')
            .collect();
        lines.push(format!(
            "{{\"z\": {whole}, {}: [{whole}e{power}, {double:e}], \"\\u0061\": {}}}",
            json!(letters),
            json!(letters)
        ));
    }
    let mut node = Command::new("node")
        .args(["-e", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    node.stdin
        .take()
        .unwrap()
        .write_all(lines.join("\n").as_bytes())
        .unwrap();
    let output = node.wait_with_output().unwrap();
    let theirs = String::from_utf8(output.stdout).unwrap();
    let ours: Vec<String> = lines
        .iter()
        .map(|line| landfall::json::canonical::sha256(line.as_bytes()))
        .collect();
    assert_eq!(theirs.lines().count(), lines.len());
    for ((line, ours), theirs) in lines.iter().zip(&ours).zip(theirs.lines()) {
        assert_eq!(ours, theirs, "{line}");
    }
}
