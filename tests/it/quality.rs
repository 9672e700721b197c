//! Rules of a contract in SQL, and columns that should be unique, through the real program.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use crate::support::{
    answers::Answers,
    project::{Ran, TestProject},
    python,
};

const STREAMS: &str = r"
      items:
        request: { path: /items }
        records: $.data[*]
        table: { keys: [id], sequence_by: [updated], apply_as_deletes: deleted = true }
";

const CONTRACT: &str = "contracts/shop.items.odcs.yaml";

/// A contract with these rules at the table; `(name, severity, SQL)`.
fn contract(rules: &[(&str, &str, &str)]) -> String {
    let rule = |(name, severity, sql): &(&str, &str, &str)| {
        format!(
            "\n      - {{ type: custom, engine: landfall, name: {name}, severity: {severity}, implementation: \"{sql}\" }}"
        )
    };
    let rules: String = rules.iter().map(rule).collect();
    let quality = if rules.is_empty() { "" } else { "\n    quality:" };
    format!(
        r"apiVersion: v3.1.0
kind: DataContract
id: shop.items
version: 1.0.0
status: active
schema:
  - name: items
    logicalType: object{quality}{rules}
    properties:
      - {{ name: id, logicalType: integer, required: true, primaryKey: true }}
      - {{ name: updated, logicalType: integer, required: true }}
      - {{ name: net, logicalType: number, physicalType: 'decimal(12,2)' }}
      - {{ name: total, logicalType: number, physicalType: 'decimal(12,2)' }}
      - {{ name: code, logicalType: string, unique: true }}
      - {{ name: phone, logicalType: string, classification: restricted, unique: true }}
      - {{ name: deleted, logicalType: boolean }}
"
    )
}

/// A project whose API answers with what it is given next.
struct Shop {
    project: TestProject,
    answer: Arc<Mutex<Value>>,
    _api: Answers,
}

impl Shop {
    fn new(contract: &str) -> Self {
        let answer = Arc::new(Mutex::new(json!({"data": []})));
        let told = Arc::clone(&answer);
        let api = Answers::start(move |_| told.lock().unwrap().clone().into());
        let project = TestProject::new(&api.base_url, STREAMS);
        project.write(CONTRACT, contract);
        Self {
            project,
            answer,
            _api: api,
        }
    }

    fn answer(&self, records: &[Value]) {
        *self.answer.lock().unwrap() = json!({"data": records});
    }

    fn load(&self, records: &[Value]) -> Ran {
        self.answer(records);
        self.project.run(&["run"])
    }

    fn ids(&self) -> Vec<Value> {
        let rows = self
            .project
            .sql("SELECT id FROM shop.items WHERE NOT _deleted ORDER BY id");
        rows.into_iter().map(|row| row["id"].clone()).collect()
    }

    fn drift(&self) -> Vec<Value> {
        let told = self.project.ok(&["drift", "--format", "json"]).stdout;
        let lines = told
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.collect()
    }

    fn change(&self, path: &str) -> Value {
        let drift = self.drift();
        let found = drift.iter().find(|change| change["path"] == path);
        found.unwrap_or_else(|| panic!("{path} in {drift:?}")).clone()
    }
}

fn item(id: i64, net: &str, total: &str) -> Value {
    let number = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    json!({"id": id, "updated": id, "net": number(net), "total": number(total), "code": format!("c{id}"), "phone": format!("+47 {id}")})
}

#[test]
fn rows_against_a_rule_are_loaded_and_counted_or_set_aside_as_it_says() {
    let rules = [
        ("total_covers_net", "error", "total >= net"),
        ("is_dear", "warning", "total / net < 3"),
        ("has_country", "error", "phone LIKE '+%'"),
    ];
    let shop = Shop::new(&contract(&rules));
    let mut local = item(4, "1", "1");
    local["phone"] = json!("22 00 canary");
    let ran = shop.load(&[
        item(1, "10", "12.5"),
        item(2, "10", "9.99"),
        item(3, "1", "5"),
        local,
        // Nobody knows.
        item(5, "10", "null"),
        // A rule that has no answer warns as well: a division by zero.
        item(6, "0", "1"),
        // A deletion makes no row to ask.
        json!({"id": 1, "updated": 7, "deleted": true, "net": 2, "total": 1}),
    ]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(shop.ids(), [3, 5, 6]);
    let aside = shop.project.sql(
        "SELECT _lf_record, class, path, expected, found FROM shop.items__quarantine ORDER BY _lf_record",
    );
    assert_eq!(
        aside,
        [
            json!({"_lf_record": 1, "class": "rule_failed", "path": "rule total_covers_net", "expected": "total >= net",
                "found": "net = 10.00, total = 9.99"}),
            json!({"_lf_record": 3, "class": "rule_failed", "path": "rule has_country", "expected": "phone LIKE '+%'",
                "found": "phone = ****"}),
        ]
    );
    let dear = shop.change("rule is_dear");
    assert_eq!(
        (&dear["kind"], &dear["severity"], &dear["effect"]),
        (&json!("rule_broken"), &json!("at_risk"), &json!("accepted"))
    );
    assert_eq!(dear["found"], "false ×1, no answer ×1");
    assert_eq!((&dear["seen"], &dear["records"]), (&json!(2), &json!(6)));
    assert_eq!(
        dear["samples"],
        json!([
            {"at": "0/0/2", "value": "net = 1.00, total = 5.00"},
            {"at": "0/0/5", "value": "no answer for net = 0.00, total = 1.00"},
        ])
    );
    let country = shop.change("rule has_country");
    assert_eq!(
        (
            &country["severity"],
            &country["effect"],
            &country["samples"][0]["value"]
        ),
        (&json!("breaking"), &json!("quarantined"), &json!("phone = ****"))
    );
    for args in [
        &["drift"][..],
        &["drift", "--format", "csv"],
        &["quarantine", "list"],
    ] {
        let said = shop.project.ok(args);
        assert!(
            !said.stdout.contains("canary") && said.stdout.contains("has_country"),
            "{said:?}"
        );
    }
    assert!(!ran.stderr.contains("canary") && !ran.stdout.contains("canary"));
    shop.project.ok(&["verify"]);

    // Seen again is one alert; what a person says about a rule is kept.
    assert_eq!(shop.load(&[item(8, "1", "5")]).code, Some(0));
    let dear = shop.change("rule is_dear");
    assert_eq!((&dear["seen"], &dear["loads"]), (&json!(3), &json!(2)));
    shop.project
        .ok(&["drift", "ack", "shop.items", "rule is_dear", "--note", "known"]);
    assert!(shop.drift().iter().all(|change| change["path"] != "rule is_dear"));
    // No patch takes a rule away.
    let patch = shop
        .project
        .ok(&["contract", "patch", "shop.items", "--everything"]);
    assert_eq!(patch.stdout, "", "{}", patch.stderr);
    assert!(
        patch.stderr.contains("rule has_country: a rule says so"),
        "{}",
        patch.stderr
    );
}

#[test]
fn a_critical_rule_stops_the_transform_and_raw_keeps_landing() {
    let critical = contract(&[("total_covers_net", "critical", "total >= net")]);
    let shop = Shop::new(&critical);
    assert_eq!(shop.load(&[item(1, "1", "2")]).code, Some(0));
    for id in [2, 3] {
        let ran = shop.load(&[item(id, "2", "1")]);
        assert_eq!(ran.code, Some(3), "{}", ran.stderr);
        for word in [
            "critical rule",
            "total_covers_net",
            "nothing of this load was written",
        ] {
            assert!(ran.stderr.contains(word), "{}", ran.stderr);
        }
    }
    let dry = shop.project.run(&["transform", "--dry-run"]);
    assert_eq!(dry.code, Some(3), "{}", dry.stderr);
    assert_eq!(shop.ids(), [1]);
    assert_eq!(
        shop.project
            .sql("SELECT count(*) AS n FROM shop.items__quarantine")[0]["n"],
        0
    );
    assert_eq!(
        shop.project.sql("SELECT count(*) AS n FROM shop.items__raw")[0]["n"],
        3
    );
    // A rule that is eased lets everything in that waited.
    shop.project
        .write(CONTRACT, &critical.replace("critical", "warning"));
    shop.project.ok(&["transform"]);
    assert_eq!(shop.ids(), [1, 2, 3]);
}

#[test]
fn a_new_rule_is_rehearsed_over_history_and_a_rebuild_a_release_and_verify_keep_it() {
    let shop = Shop::new(&contract(&[]));
    shop.load(&[item(1, "1", "2"), item(2, "2", "1"), item(3, "3", "9")]);
    shop.load(&[item(4, "4", "3"), item(5, "0", "3")]);
    assert_eq!(shop.ids(), [1, 2, 3, 4, 5]);
    shop.project.ok(&["verify"]);
    let rules = [
        ("total_covers_net", "error", "total >= net"),
        ("is_dear", "warning", "total / net < 3"),
    ];
    shop.project
        .write("proposed.yaml", &contract(&rules).replace("1.0.0", "2.0.0"));
    let file = shop.project.path().join("proposed.yaml");
    let test = [
        "contract",
        "test",
        "shop.items",
        "--format",
        "json",
        "--reveal",
        "--contract",
    ];
    let ran = shop.project.run(&[&test[..], &[file.to_str().unwrap()]].concat());
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    let told: Vec<String> = ran
        .stdout
        .lines()
        .map(|line| {
            let row: Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            let records = &row["records"];
            let [effect, path, expected, found] = ["effect", "path", "expected", "found"].map(text);
            format!(
                "{effect} {records} at {path:?}: {expected} | {found} | {}",
                row["samples"]
            )
        })
        .collect();
    assert!(
        ran.stderr
            .contains("2 would break, 0 would heal, 0 stay aside, 2 warnings"),
        "{}",
        ran.stderr
    );
    insta::assert_snapshot!(told.join("\n"), @r#"
    breaks 2 at "rule total_covers_net": total >= net | net = 2.00, total = 1.00 | ["0/0/1","1/0/0"]
    warns 2 at "rule is_dear": total / net < 3 | net = 3.00, total = 9.00 | ["0/0/2","1/0/1"]
    "#);
    // Another rule only warns, and so nothing would break.
    shop.project.write("proposed.yaml", &contract(&rules[1..]));
    assert_eq!(
        shop.project
            .run(&[&test[..], &[file.to_str().unwrap()]].concat())
            .code,
        Some(0)
    );

    // The live table is not what a replay by the new contract makes, until it is rebuilt.
    shop.project
        .write(CONTRACT, &contract(&rules).replace("1.0.0", "2.0.0"));
    assert_eq!(shop.project.run(&["verify"]).code, Some(1));
    shop.project.ok(&["rebuild", "shop.items", "--promote"]);
    assert_eq!(shop.ids(), [1, 3, 5]);
    shop.project.ok(&["verify"]);
    // Of the release only what the eased rule takes.
    shop.project.write(
        CONTRACT,
        &contract(&[("total_covers_net", "error", "total > 2 OR total >= net")]).replace("1.0.0", "2.1.0"),
    );
    let said = shop
        .project
        .ok(&["quarantine", "release", "shop.items", "--all"])
        .stderr;
    assert!(said.contains("released 1 of 2"), "{said}");
    assert_eq!(shop.ids(), [1, 3, 4, 5]);
    shop.project.ok(&["verify"]);
}

#[test]
fn check_names_the_place_of_a_rule_that_cannot_be_asked_and_what_is_not_run() {
    let others = "\n    quality:\n      - { type: sql, name: rows, query: SELECT COUNT(*) FROM items, mustBeGreaterThan: 0 }";
    let rules = contract(&[
        ("fine", "error", "total > 0"),
        ("nosuch", "error", "totl > 0"),
        ("moody", "warning", "updated < extract(epoch from now())"),
    ]);
    let shop = Shop::new(&rules.replace("\n    quality:", others));
    let ran = shop.project.run(&["check"]);
    assert_eq!(ran.code, Some(2), "{}{}", ran.stdout, ran.stderr);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    for words in [
        "shop.items.odcs.yaml:12:90: rule \"nosuch\": there is no column \"totl\"",
        "hint: columns: id, updated, net, total",
        "shop.items.odcs.yaml:13:91: rule \"moody\": now() has another answer each time",
    ] {
        assert!(said.contains(words), "{words}\n{said}");
    }
    // The transform says the same.
    let ran = shop.load(&[item(1, "1", "2")]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("shop.items.odcs.yaml:12:90"),
        "{}",
        ran.stderr
    );

    let fine = contract(&[("fine", "error", "total > 0")]).replace("\n    quality:", others);
    shop.project.write(CONTRACT, &fine);
    let ran = shop.project.ok(&["check"]);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(
        said.contains("shop.items.odcs.yaml:10:9: quality: the check \"rows\" is not run"),
        "{said}"
    );
    let said = shop.project.ok(&["check", "--connect"]);
    assert!(said.stdout.contains("all 1 records fit"), "{said:?}");
    shop.answer(&[item(1, "1", "-2"), item(2, "1", "2")]);
    let said = shop.project.ok(&["check", "--connect"]);
    assert!(said.stdout.contains("1 of 2 records do not fit"), "{said:?}");
    assert!(
        said.stdout
            .contains("rule fine rule_broken: expected total > 0, found false ×1"),
        "{said:?}"
    );
}

#[test]
fn values_of_a_unique_column_that_two_keys_have_are_told_and_loaded() {
    let shop = Shop::new(&contract(&[]));
    let mut twin = item(2, "1", "1");
    twin["code"] = json!("c1");
    twin["phone"] = json!("+47 1");
    // A second version of a key has its values again.
    let mut version = item(1, "1", "3");
    version["updated"] = json!(9);
    shop.load(&[item(1, "1", "2"), twin, version, item(3, "1", "1")]);
    assert_eq!(shop.ids(), [1, 2, 3]);
    let code = shop.change("code");
    assert_eq!(
        (&code["kind"], &code["severity"], &code["effect"], &code["found"]),
        (
            &json!("repeated"),
            &json!("at_risk"),
            &json!("accepted"),
            &json!("1 value in 3 rows")
        )
    );
    assert_eq!(code["samples"], json!([{"at": "0/0/1", "value": "\"c1\""}]));
    assert_eq!(shop.change("phone")["samples"][0]["value"], "****");
    shop.project.ok(&["verify"]);
}

#[test]
fn r165_f153_explain_shows_no_classified_values_unless_it_is_asked_to() {
    let shop = Shop::new(&contract(&[("total_covers_net", "error", "total >= net")]));
    let mut rescued = item(1, "1", "2");
    rescued["phone"] = json!("canary 1");
    let mut aside = item(2, "2", "1");
    aside["phone"] = json!("canary 2");
    shop.load(&[rescued, aside]);
    for key in ["1", "2"] {
        for format in ["table", "json"] {
            let hidden = shop
                .project
                .ok(&["explain", "shop.items", key, "--format", format])
                .stdout;
            assert!(hidden.contains("****") && !hidden.contains("canary"), "{hidden}");
            let shown = shop
                .project
                .ok(&["explain", "shop.items", key, "--format", format, "--reveal"])
                .stdout;
            assert!(shown.contains("canary"), "{shown}");
        }
    }
    // A page without records: nobody knows where what is classified is in it.
    *shop.answer.lock().unwrap() = json!({"other": [{"phone": "canary 3"}]});
    shop.project.run(&["run"]);
    let shown = shop
        .project
        .ok(&["quarantine", "show", "shop.items", "1/0/-1"])
        .stdout;
    assert!(!shown.contains("canary") && shown.contains("****"), "{shown}");
}

#[test]
fn r110_public_tools_read_contracts_with_rules() {
    let rules = [
        ("a", "error", "total >= net"),
        ("b", "critical", "phone IS NOT NULL"),
    ];
    let text = contract(&rules).replace(
        "unique: true, ",
        "unique: true, quality: [{ type: custom, engine: landfall, name: c, severity: warning, implementation: 'true' }], ",
    );
    let shop = Shop::new(&text);
    // Written by a patch that keeps them, and by hand.
    let mut new = item(1, "1", "2");
    new["remark"] = json!("x");
    assert_eq!(shop.load(&[new]).code, Some(0));
    shop.project.ok(&["contract", "patch", "shop.items", "--write"]);
    let file = shop.project.path().join(CONTRACT);
    let patched = fs::read_to_string(&file).unwrap();
    assert!(
        patched.contains("remark") && patched.contains("name: a, severity: error"),
        "{patched}"
    );
    assert_eq!(python::lint_contracts(std::slice::from_ref(&file)), [""]);
    shop.project.ok(&["check"]);
    shop.project.write("old.yaml", &contract(&[]));
    let old = shop.project.path().join("old.yaml");
    let ran = shop.project.run(&[
        "contract",
        "diff",
        old.to_str().unwrap(),
        file.to_str().unwrap(),
        "--mode",
        "backward",
    ]);
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    assert!(ran.stdout.contains("rule a"), "{}", ran.stdout);
}
