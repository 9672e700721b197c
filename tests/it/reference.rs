//! What `landfall schema` prints, held against the standard's own meta-schema and against real files.

use std::{fs, path::Path};

use landfall::config::read::{parse, reference::FILES, samples::samples, schema::schema};
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
