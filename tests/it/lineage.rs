//! Where rows came from and by what they were made: told by the raw log, by the tables' own history, by events for a
//! catalogue, and row by row.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{
    api::Api,
    project::{ITEMS_CONTRACT, TestProject},
    python,
};

const CONTRACT: &str = "contracts/shop.items.odcs.yaml";

fn item(id: i64, updated: i64, name: &str) -> Value {
    json!({"id": id, "updated": updated, "name": name})
}

/// The contract of `shop.items` in another version, with the `names` it knows.
fn contract(version: &str, names: &str) -> String {
    let name = "{ name: name, logicalType: string, required: true";
    let known = format!("{name}, customProperties: [{{ property: enum, value: [{names}] }}]");
    ITEMS_CONTRACT
        .replace("version: 1.0.0", &format!("version: {version}"))
        .replace(name, &known)
}

fn sha256_hex(text: &str) -> String {
    let digest = Sha256::digest(text);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn json_files(project: &TestProject, dir: &str) -> Vec<PathBuf> {
    let mut files = project.files(dir);
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files
}

fn json_lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What each commit of the table says about how its rows were made: contract, project file, program.
fn commits(project: &TestProject) -> Vec<[String; 3]> {
    let said = |path: &PathBuf| {
        let lines = json_lines(path);
        let info = lines.iter().find_map(|line| line.get("commitInfo"))?;
        let field = |name: &str| info.get(name)?.as_str().map(str::to_owned);
        Some([
            field("landfallContract")?,
            field("landfallConfig")?,
            field("landfallVersion")?,
        ])
    };
    let files = json_files(project, "lake/tables/shop/items/_delta_log");
    files.iter().filter_map(said).collect()
}

#[test]
fn r132_raw_batches_and_table_commits_say_by_which_files_they_were_made() {
    let api = Api::start(vec![item(1, 101, "red"), item(2, 102, "green")]);
    let project = TestProject::items(&api.base_url);
    let run = |version: &str, names: &str| {
        project.write(CONTRACT, &contract(version, names));
        project.ok(&["run"]);
        sha256_hex(&fs::read_to_string(project.path().join("landfall.yml")).unwrap())
    };
    let first = run("1.0.0", "red");
    let text = fs::read_to_string(project.path().join("landfall.yml")).unwrap();
    project.write("landfall.yml", &format!("{text}# reviewed\n"));
    api.upsert(vec![item(3, 103, "red")]);
    let second = run("1.0.0", "red");
    assert_ne!(first, second);
    api.upsert(vec![item(4, 104, "blue")]);
    run("1.1.0", "red, blue");

    let entries = json_files(&project, "lake/raw/shop/items/_log");
    let told: Vec<_> = entries
        .iter()
        .map(|path| json_lines(path).remove(0))
        .map(|entry| (entry["contract_version"].clone(), entry["config_hash"].clone()))
        .collect();
    let by = [("1.0.0", &first), ("1.0.0", &second), ("1.1.0", &second)];
    assert_eq!(
        told,
        by.map(|(contract, config)| (json!(contract), json!(config)))
    );

    // A release and a rebuild say it too: the first commit of the swap announces it.
    project.write(CONTRACT, &contract("2.0.0", "red, blue, green"));
    project.ok(&["quarantine", "release", "shop.items", "--all"]);
    project.write(CONTRACT, &contract("3.0.0", "red"));
    project.ok(&["rebuild", "shop.items", "--promote"]);
    let later = [("2.0.0", &second), ("3.0.0", &second), ("3.0.0", &second)];
    let expected: Vec<_> = by
        .iter()
        .chain(&later)
        .map(|(contract, config)| [*contract, config.as_str(), env!("CARGO_PKG_VERSION")].map(str::to_owned))
        .collect();
    assert_eq!(commits(&project), expected);
}

/// The event at `at` without what is different each time.
fn told(event: &Value) -> Value {
    let named = |datasets: &Value, facets: &str| -> Vec<Value> {
        let datasets = datasets.as_array().unwrap().iter();
        datasets
            .map(|dataset| {
                let name = dataset["name"].as_str().unwrap();
                let name = name.rsplit_once("/lake/").map_or(name, |(_, name)| name);
                let statistics = &dataset[facets].as_object().unwrap().values().next();
                json!([name, statistics.map(|facet| facet["rowCount"].clone())])
            })
            .collect()
    };
    json!({
        "type": event["eventType"],
        "job": event["job"]["name"],
        "inputs": named(&event["inputs"], "inputFacets"),
        "outputs": named(&event["outputs"], "outputFacets"),
    })
}

#[test]
fn r145_runs_are_told_as_openlineage_and_every_row_leads_to_its_bytes() {
    let api = Api::start((1..=7).map(|id| item(id, 100 + id, "red")).collect());
    api.push(vec![item(8, 108, "green")]);
    let project = TestProject::items(&api.base_url);
    project.write(CONTRACT, &contract("1.0.0", "red"));
    let file = project.path().join("lineage.jsonl");
    let option = ["--lineage", file.to_str().unwrap()];
    project.ok(&["run", option[0], option[1]]);
    let events = json_lines(&file);
    let extract = |turn: &str, rows: Value| json!({"type": turn, "job": "shop.items.extract", "inputs": [["/items", rows]], "outputs": [["raw/shop/items", rows]]});
    let transform = |turn: &str, [read, merged, aside]: [Value; 3]| {
        json!({"type": turn, "job": "shop.items.transform", "inputs": [["raw/shop/items", read]],
            "outputs": [["tables/shop/items", merged], ["quarantine/shop/items", aside]]})
    };
    let unknown = || [Value::Null, Value::Null, Value::Null];
    assert_eq!(
        events.iter().map(told).collect::<Vec<_>>(),
        [
            extract("START", Value::Null),
            transform("START", unknown()),
            extract("COMPLETE", json!(8)),
            transform("COMPLETE", [json!(8), json!(7), json!(1)]),
        ]
    );

    // What stands in one event leads to the other, and to the table's own history.
    let [_, _, extracted, transformed] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(events[0]["run"]["runId"], extracted["run"]["runId"]);
    assert_ne!(extracted["run"]["runId"], transformed["run"]["runId"]);
    let raw = &transformed["inputs"][0];
    assert_eq!(extracted["outputs"][0]["name"], raw["name"]);
    assert_eq!(
        extracted["outputs"][0]["facets"]["version"],
        raw["facets"]["version"]
    );
    assert_eq!(extracted["inputs"][0]["namespace"], api.base_url.as_str());
    let table = &transformed["outputs"][0]["facets"];
    let version = table["version"]["datasetVersion"].as_str().unwrap();
    let commit = format!("lake/tables/shop/items/_delta_log/{version:0>20}.json");
    assert!(project.path().join(&commit).exists(), "{commit}");
    let columns = table["schema"]["fields"].as_array().unwrap();
    assert!(
        columns.contains(&json!({"name": "id", "type": "Int64"})),
        "{columns:?}"
    );
    let from = &table["columnLineage"]["fields"]["name"]["inputFields"][0];
    assert_eq!((&from["name"], &from["field"]), (&raw["name"], &json!("name")));
    let tags = transformed["run"]["facets"]["tags"]["tags"].as_array().unwrap();
    assert!(
        tags.iter()
            .any(|tag| tag["key"] == "contract" && tag["value"] == "1.0.0")
    );

    // Failures are told with their reason, and the file is added to.
    api.script_after(0, 500);
    project.write(CONTRACT, "nothing");
    project.run(&["run", option[0], option[1]]);
    let failed = json_lines(&file).split_off(4);
    let turns: Vec<_> = failed
        .iter()
        .map(|event| event["eventType"].as_str().unwrap())
        .collect();
    assert_eq!(turns, ["START", "START", "FAIL", "FAIL"]);
    for event in [&failed[2], &failed[3]] {
        let reason = event["run"]["facets"]["errorMessage"]["message"]
            .as_str()
            .unwrap();
        assert!(reason.contains("500") || reason.contains(CONTRACT), "{reason}");
    }
    api.heal();
    project.write(CONTRACT, &contract("1.0.0", "red"));

    // By the published classes all of them are events, and what is none is found.
    let mut text = fs::read_to_string(&file).unwrap();
    let mut wrong = transformed.clone();
    wrong["outputs"][0]["facets"]["schema"]["columns"] = json!([]);
    text.push_str(&format!("{wrong}\n"));
    fs::write(&file, text).unwrap();
    let words = python::judge_lineage(&file);
    assert_eq!(words[..8], [const { String::new() }; 8]);
    assert!(words[8].contains("columns"), "{words:?}");

    // And each row leads to the object and to the bytes in it, whoever reads them.
    for id in 1..=8 {
        let told = project.ok(&["explain", "shop.items", &id.to_string(), "--format", "json"]);
        let raw = serde_json::from_str::<Value>(&told.stdout).unwrap()["raw"].take();
        let numbers = |text: &Value| -> Vec<usize> {
            let words = text.as_str().unwrap().split([' ', ',']);
            words.filter_map(|word| word.parse().ok()).collect()
        };
        let stored = &raw["stored"];
        let object = project
            .path()
            .join("lake")
            .join(stored["object"].as_str().unwrap());
        let frame = numbers(&stored["frame"]);
        let bytes = &fs::read(object).unwrap()[frame[0]..frame[1]];
        let page = numbers(&stored["page in frame"]);
        let body = &zstd::decode_all(bytes).unwrap()[page[0]..page[0] + page[1]];
        let record = raw["record"].as_str().unwrap();
        assert!(record.contains(&format!(r#""id":{id},"#)), "{record}");
        assert!(String::from_utf8_lossy(body).contains(record), "{record}");
    }
}

#[test]
fn lineage_that_cannot_be_written_is_said_before_anything_is_asked() {
    let api = Api::start(vec![item(1, 101, "red")]);
    let project = TestProject::items(&api.base_url);
    let ran = project.run(&["run", "--lineage", "/nowhere/at/all.jsonl"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    assert!(ran.stderr.contains("/nowhere/at/all.jsonl"), "{}", ran.stderr);
    assert!(api.take_requests().is_empty());
}
