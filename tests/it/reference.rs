//! What `landfall schema` prints, held against the standard's own meta-schema and against real files.

use std::{fs, path::Path};

use landfall::config::read::{samples::samples, schema::schema};
use serde_json::{Value as Json, json};

use crate::support::python;

/// The words of a public validator about each instance; empty for one that fits.
fn judged(instances: &[Json]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("all.json");
    let all = json!({ "schema": schema(), "instances": instances });
    fs::write(&file, all.to_string()).unwrap();
    let words = python::run("judge_json.py", &[file.to_str().unwrap()]);
    serde_json::from_str(&words).unwrap()
}

/// A file of `fixtures/config` as JSON.
fn fixture(name: &str) -> Json {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/config")
        .join(name);
    let text = fs::read_to_string(path).unwrap();
    let problems = landfall::yaml::Problems::new(name);
    let node = landfall::yaml::parse::parse(&text, &problems).unwrap();
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
