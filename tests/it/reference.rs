//! What `landfall schema` prints, held against the standard's own meta-schema and against real files.

use std::{fs, path::Path};

use landfall::{
    config::read::{parse, reference::FILES, samples::samples, schema::schema},
    raw::PageFacts,
};
use serde_json::{Value as Json, json};

use crate::support::{
    api::{Api, Scripted},
    objects::facts,
    project::TestProject,
    python,
};

/// The words of a public validator about each project file; empty for one that fits.
fn judged(instances: &[Json]) -> Vec<String> {
    judged_by(&schema(), instances)
}

/// The words of a public validator about each instance; empty for one that fits.
fn judged_by(schema: &Json, instances: &[Json]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("all.json");
    let all = json!({ "schema": schema, "instances": instances });
    fs::write(&file, all.to_string()).unwrap();
    let words = python::run("judge_json.py", &[file.to_str().unwrap()]);
    serde_json::from_str(&words).unwrap()
}

/// A file of the repository.
fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// A file of `fixtures/config` as JSON.
fn fixture(name: &str) -> Json {
    json_of(&file(&format!("fixtures/config/{name}")))
}

fn json_of(yaml: &str) -> Json {
    let problems = landfall::yaml::Problems::new("");
    let node = landfall::yaml::parse::parse(yaml, &problems).unwrap();
    node.to_json(&problems).unwrap()
}

#[test]
fn r020_every_example_of_the_reference_fits_the_schema() {
    let samples = samples();
    let files: Vec<Json> = samples.iter().map(|sample| sample.file.clone()).collect();
    let words = judged(&files);
    assert_eq!(words.len(), samples.len());
    for (sample, words) in samples.iter().zip(words) {
        assert_eq!(words, "", "{}\n{:#}", sample.about, sample.file);
    }
}

#[test]
fn r020_files_that_are_read_fit_the_schema_and_wrong_ones_do_not() {
    let mut wrong = fixture("minimal.yml");
    wrong["sources"]["shop"]["streams"]["orders"]["recrods"] = "$.data[*]".into();
    let words = judged(&[
        fixture("minimal.yml"),
        fixture("full.yml"),
        fixture("bad.yml"),
        wrong,
    ]);
    assert_eq!(words[..2], ["", ""]);
    assert!(!words[2].is_empty());
    assert!(words[3].contains("recrods"), "{}", words[3]);
}

#[test]
fn r020_the_files_of_the_readme_and_of_the_reference_are_read_and_fit_the_schema() {
    let readme = file("README.md");
    let blocks = readme.split("```yaml\n").skip(1);
    let blocks = blocks.map(|rest| rest.split("```").next().unwrap());
    let mut files: Vec<&str> = blocks.filter(|text| text.contains("sources:")).collect();
    assert!(files.len() >= 2, "{files:#?}");
    files.extend(FILES);
    for text in &files {
        let read = parse(text, Path::new("/srv/shop"));
        assert!(read.is_ok(), "{read:#?}\n{text}");
    }
    let files: Vec<Json> = files.into_iter().map(json_of).collect();
    assert!(judged(&files).iter().all(String::is_empty));
}

#[test]
fn r109_what_is_landed_fits_the_printed_schemas_of_payload_and_envelope() {
    let records = (0..12)
        .map(|id| json!({"id": id, "updated": 100 + id, "name": "x"}))
        .collect();
    let api = Api::start(records);
    let project = TestProject::items(&api.base_url);
    // A page of which one answer was not taken, and a run that ended in the middle.
    api.script(Scripted {
        status: 200,
        headers: vec![
            ("content-type", "application/json".to_owned()),
            ("etag", "\"1\"".to_owned()),
        ],
        body: b"<html>".to_vec(),
    });
    api.script_after(2, 500);
    project.fails(&["run"], &["500"]);
    api.heal();
    project.ok(&["run"]);
    project.ok(&["run", "--complete"]);

    let schema = |args: &[&str]| -> Json { serde_json::from_str(&project.ok(args).stdout).unwrap() };
    let (mut entries, mut pages) = (Vec::new(), Vec::new());
    for path in project.files("lake/raw") {
        let bytes = fs::read(&path).unwrap();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => entries.push(serde_json::from_slice(&bytes).unwrap()),
            Some("zst") => pages.extend(
                facts(&bytes)
                    .iter()
                    .flat_map(|json| -> Vec<Json> { serde_json::from_slice(json).unwrap() }),
            ),
            _ => {}
        }
    }
    assert!(
        entries.len() >= 3 && pages.len() >= 7,
        "{} {}",
        entries.len(),
        pages.len()
    );
    // The sample of the first release, and one of everything that a page may have.
    entries.push(serde_json::from_str(&file("fixtures/raw/entry-1.json")).unwrap());
    pages.push(json!({
        "fetched_at": "2026-11-22T00:00:00.000001Z", "method": "POST", "url": "https://api.shop.example/v1",
        "status": 200, "headers": [["etag", "1"]], "attempts": 1, "token_used": "a", "token_returned": "b",
        "idempotency_key": "k", "event_id": "e", "trace_id": "t", "slice": {"shop": 1}, "partial": true,
        "receipt": "019ab3c4-0000-7000-8000-000000000001", "producer": "till",
        "first_seen_at": "2026-11-22T00:00:00Z",
        "judged": {"contract": "1.2.0", "misfits": 1, "codes": {"enum": 1}, "named": [[0, "enum"]], "sent": "3".repeat(64)},
        "superseded": true, "hydrated": true, "body_bytes": 0, "body_sha256": "0".repeat(64),
        "files": [{"record": 0, "path": "raw/x", "bytes": 1, "sha256": "1".repeat(64), "content_type": "a/b",
            "content_encoding": "gzip"}, {"record": 1, "error": "404"}],
        "part": {"index": 1, "last": true, "offset": 5, "path": "$.data[*]", "records": [0, 9], "whole_sha256": "2".repeat(64)},
    }));
    let everything: PageFacts = serde_json::from_value(pages[pages.len() - 1].clone()).unwrap();
    let members = serde_json::to_value(&everything).unwrap();
    let entry_schema = schema(&["schema", "entry"]);
    let page_schema = schema(&["schema", "page"]);
    let described = page_schema["properties"].as_object().unwrap();
    let beside = ["body_bytes", "body_sha256"];
    let own = described.keys().filter(|name| !beside.contains(&name.as_str()));
    assert!(
        own.eq(members
            .as_object()
            .unwrap()
            .keys()
            .collect::<std::collections::BTreeSet<_>>()),
        "{members}"
    );
    for (schema, instances) in [(&entry_schema, &mut entries), (&page_schema, &mut pages)] {
        let words = judged_by(schema, instances);
        assert!(words.iter().all(String::is_empty), "{words:#?}");
        // What is no member of it is found.
        instances[0]["more"] = json!(1);
        assert!(judged_by(schema, &instances[..1])[0].contains("more"));
    }
    let payload = schema(&["contract", "export", "shop.items"]);
    let words = judged_by(
        &payload,
        &[json!({"id": 1, "updated": 1, "name": "x"}), json!({"id": "1"})],
    );
    assert!(words[0].is_empty() && !words[1].is_empty(), "{words:?}");
}
