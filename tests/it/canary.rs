//! A contract changes while everything runs: tried in the shadow, compared, put in place, and taken back.

use std::fs;

use serde_json::{Value, json};

use crate::support::{
    api::Api,
    project::{ITEMS_CONTRACT, TestProject},
};

const CONTRACT: &str = "contracts/shop.items.odcs.yaml";
const PROPOSED: &str = "proposed.odcs.yaml";

/// A version of the contract that knows `names`, has to be backward compatible, and says `more` about itself.
fn contract(version: &str, names: &str, more: &str) -> String {
    let name = "{ name: name, logicalType: string, required: true";
    let known = format!("{name}, customProperties: [{{ property: enum, value: [{names}] }}]");
    let head = format!("customProperties: [{{ property: compatibility, value: backward }}]\n{more}schema:");
    ITEMS_CONTRACT
        .replace("version: 1.0.0", &format!("version: {version}"))
        .replace(name, &known)
        .replace("schema:", &head)
}

fn item(id: i64, updated: i64, name: &str) -> Value {
    json!({"id": id, "updated": updated, "name": name})
}

fn ids(project: &TestProject) -> Vec<i64> {
    let rows = project.sql("SELECT id FROM shop.items ORDER BY id");
    rows.iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn r133_a_new_contract_is_tried_in_the_shadow_compared_put_in_place_and_taken_back() {
    let api = Api::start(vec![
        item(1, 101, "red"),
        item(2, 102, "green"),
        item(3, 103, "red"),
    ]);
    let project = TestProject::items(&api.base_url);
    let first = contract("1.0.0", "red", "");
    project.write(CONTRACT, &first);
    project.ok(&["run"]);
    assert_eq!(ids(&project), [1, 3]);
    let live = project.sql("SELECT * FROM shop.items ORDER BY id");

    // In the shadow: what it would do to everything landed so far, without touching a table.
    let second = contract("2.0.0", "red, green", "");
    project.write(PROPOSED, &second);
    let proposed = project.path().join(PROPOSED);
    let test = ["contract", "test", "shop.items", "--format", "json", "--contract"];
    let tried = project.ok(&[&test[..], &[proposed.to_str().unwrap()]].concat());
    let effects = lines(&tried.stdout);
    assert_eq!(effects.len(), 1, "{effects:?}");
    assert_eq!(effects[0]["effect"], "heals");

    // Beside the live table, which stays as it is, and compared with it row by row.
    project.write(CONTRACT, &second);
    project.ok(&["rebuild", "shop.items"]);
    assert_eq!(project.sql("SELECT * FROM shop.items ORDER BY id"), live);
    let differences = lines(&project.ok(&["diff", "shop.items", "--format", "json"]).stdout);
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert_eq!(
        (&differences[0]["difference"], &differences[0]["key"]),
        (&json!("only_rebuilt"), &json!("id=2"))
    );

    // In its place, and loads go on with it.
    project.ok(&["rebuild", "shop.items", "--promote"]);
    assert_eq!(ids(&project), [1, 2, 3]);
    api.upsert(vec![item(4, 104, "green"), item(5, 105, "red")]);
    project.ok(&["run"]);
    assert_eq!(ids(&project), [1, 2, 3, 4, 5]);

    // And back: the file as the lake kept it, and the same way once more. What came meanwhile is judged by it too, and
    // that it is not compatible with the version that was a mistake holds nobody up.
    let kept = project
        .ok(&["contract", "versions", "shop.items", "--text", "1.0.0"])
        .stdout;
    assert_eq!(kept, first);
    project.write(CONTRACT, &kept);
    project.ok(&["rebuild", "shop.items", "--promote"]);
    assert_eq!(ids(&project), [1, 3, 5]);
    api.upsert(vec![item(6, 106, "red"), item(7, 107, "green")]);
    project.ok(&["run"]);
    assert_eq!(ids(&project), [1, 3, 5, 6]);
    let aside = project.sql("SELECT record FROM shop.items__quarantine");
    assert_eq!(aside.len(), 3, "{aside:?}");
    project.ok(&["verify"]);
    let versions = lines(
        &project
            .ok(&["contract", "versions", "shop.items", "--format", "json"])
            .stdout,
    );
    let versions: Vec<&Value> = versions.iter().map(|row| &row["version"]).collect();
    assert_eq!(versions, ["1.0.0", "2.0.0", "1.0.0"]);

    let unknown = project.run(&["contract", "versions", "shop.items", "--text", "9.0.0"]);
    assert_eq!(unknown.code, Some(1), "{}", unknown.stderr);
    assert!(
        unknown.stderr.contains("contract versions shop.items"),
        "{}",
        unknown.stderr
    );
}

#[test]
fn r111_producers_of_two_versions_go_on_at_once() {
    let api = Api::start(vec![item(1, 101, "red")]);
    let project = TestProject::items(&api.base_url);
    project.write(CONTRACT, &contract("1.0.0", "red", ""));
    project.ok(&["run"]);

    // The next version takes more than the one before. Producers of both send, in turns.
    let second = contract("2.0.0", "red, green", "") + "      - { name: size, logicalType: number }\n";
    project.write(CONTRACT, &second);
    let sized = |id: i64, name: &str| json!({"id": id, "updated": 100 + id, "name": name, "size": 1.5});
    api.upsert(vec![
        item(2, 102, "red"),
        sized(3, "green"),
        item(4, 104, "red"),
        sized(5, "red"),
    ]);
    project.ok(&["run"]);
    assert_eq!(ids(&project), [1, 2, 3, 4, 5]);
    let sizes = project.sql("SELECT count(size) n FROM shop.items");
    assert_eq!(sizes, [json!({"n": 2})]);

    // One that producers of the version before could not live with is refused. Nothing is lost meanwhile.
    let third = second.replace("2.0.0", "3.0.0").replace(
        "name: size, logicalType: number",
        "name: size, logicalType: number, required: true",
    );
    project.write(CONTRACT, &third);
    api.upsert(vec![item(6, 106, "red"), sized(7, "red")]);
    let refused = project.run(&["run"]);
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert!(refused.stderr.contains("size"), "{}", refused.stderr);
    assert_eq!(ids(&project), [1, 2, 3, 4, 5]);
    project.write(CONTRACT, &second);
    project.ok(&["transform"]);
    assert_eq!(ids(&project), [1, 2, 3, 4, 5, 6, 7]);
    assert!(project.sql("SELECT class FROM shop.items__quarantine").is_empty());
}

#[test]
fn r131_a_deprecated_contract_is_told_before_and_after_its_end_and_stops_nobody() {
    let api = Api::start(vec![item(1, 101, "red")]);
    let project = TestProject::items(&api.base_url);
    let ending = |status: &str, end: &str| {
        let more = format!(
            "slaProperties: [{{ property: endOfLife, value: {end} }}]\n\
             authoritativeDefinitions: [{{ type: migrationGuide, url: \"https://shop.example/v2\" }}]\n"
        );
        contract("1.0.0", "red", &more).replace("status: active", &format!("status: {status}"))
    };
    let stages = [
        (ending("active", "2999-12-31"), None),
        (
            ending("deprecated", "2999-12-31"),
            Some("is deprecated and ends on 2999-12-31"),
        ),
        (
            ending("deprecated", "2020-01-31"),
            Some("ended on 2020-01-31 and still judges"),
        ),
    ];
    for (number, (text, expected)) in (2..).zip(stages) {
        project.write(CONTRACT, &text);
        api.upsert(vec![item(number, 100 + number, "red")]);
        let told = [project.run(&["check"]).stdout, project.ok(&["run"]).stderr];
        for told in told {
            match expected {
                Some(expected) => {
                    assert!(told.contains(expected), "{told}");
                    assert!(told.contains("what to do: https://shop.example/v2"), "{told}");
                }
                None => assert!(!told.contains("https://shop.example/v2"), "{told}"),
            }
        }
    }
    assert_eq!(ids(&project), [1, 2, 3, 4]);
    let versions = project.sql("SELECT status FROM landfall.contracts ORDER BY registered_at");
    let statuses: Vec<&Value> = versions.iter().map(|row| &row["status"]).collect();
    assert_eq!(statuses, ["active", "deprecated", "deprecated"]);
    let exported = project.ok(&["contract", "export", "shop.items"]).stdout;
    assert_eq!(
        serde_json::from_str::<Value>(&exported).unwrap()["deprecated"],
        true
    );

    fs::write(project.path().join(CONTRACT), ending("deprecated", "soon")).unwrap();
    let wrong = project.run(&["check"]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.stdout);
    assert!(wrong.stdout.contains("is no day"), "{}", wrong.stdout);
}
