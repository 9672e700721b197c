//! Servers that nobody here wrote, loaded, changed, and loaded again: the table equals the server.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{
    project::TestProject,
    python::{READERS, read_table, read_table_on_s3},
    s3,
    servers::{self, Datasette, Kinto},
};

fn kinto_streams(kinto: &Kinto) -> String {
    notes_streams(kinto, "last_modified", "integer")
}

/// The stream `shop.notes` with pages in the order `sort`.
pub fn notes_streams(kinto: &Kinto, sort: &str, format: &str) -> String {
    format!(
        r#"
      notes:
        request: {{ path: {}, params: {{ _limit: 7, _sort: {sort} }} }}
        records: $.data[*]
        paginate: {{ type: next_url, from: "header:Next-Page" }}
        incremental: {{ cursor: $.last_modified, param: _since, format: {format} }}
        table: {{ keys: [id], sequence_by: [last_modified], apply_as_deletes: deleted = true }}
"#,
        kinto.path
    )
}

const NOTES_CONTRACT: &str = r"apiVersion: v3.1.0
kind: DataContract
id: shop.notes
version: 1.0.0
status: active
schema:
  - name: notes
    logicalType: object
    properties:
      - { name: id, logicalType: string, required: true, primaryKey: true }
      - { name: last_modified, logicalType: integer, required: true }
      - { name: title, logicalType: string, required: true }
      - { name: score, logicalType: number }
      - { name: deleted, logicalType: boolean }
";

fn kinto_project(kinto: &Kinto, lake: &str) -> TestProject {
    notes_project(kinto, &kinto.base_url, &kinto_streams(kinto), lake)
}

/// A project that asks for `streams` of a Kinto at `base_url`.
pub fn notes_project(kinto: &Kinto, base_url: &str, streams: &str, lake: &str) -> TestProject {
    let mut project = TestProject::with_lake(base_url, streams, lake);
    let text = std::fs::read_to_string(project.path().join("landfall.yml")).unwrap();
    let auth = "    auth: { type: basic, username: '${env:KINTO_USER}', password: '${env:KINTO_PASSWORD}' }\n    streams:";
    project.write("landfall.yml", &text.replace("    streams:", auth));
    project.write("contracts/shop.notes.odcs.yaml", NOTES_CONTRACT);
    project.env("KINTO_USER", &kinto.username);
    project.env("KINTO_PASSWORD", &kinto.password);
    project
}

/// A record of `shop.notes`.
pub fn note(id: usize, title: &str) -> Value {
    json!({"id": format!("note-{id:03}"), "title": title, "score": id as f64 / 4.0})
}

/// Key to title of the server's records.
pub async fn at_server(kinto: &Kinto) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    kinto
        .records()
        .await
        .iter()
        .map(|record| (text(&record["id"]), text(&record["title"])))
        .collect()
}

/// The same of the table.
pub fn in_table(project: &TestProject) -> BTreeMap<String, String> {
    let rows = project.sql("SELECT id, title FROM shop.notes WHERE NOT _deleted");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let table: BTreeMap<_, _> = rows
        .iter()
        .map(|row| (text(&row["id"]), text(&row["title"])))
        .collect();
    assert_eq!(table.len(), rows.len(), "one current row per key");
    table
}

async fn kinto_follows_the_server(kinto: &Kinto, project: &TestProject) {
    kinto
        .put(&(0..40).map(|id| note(id, "first")).collect::<Vec<_>>())
        .await;
    project.ok(&["run"]);
    assert_eq!(in_table(project), at_server(kinto).await);

    kinto.put(&[note(3, "second"), note(50, "new")]).await;
    kinto.delete("note-007").await;
    kinto.delete("note-008").await;
    kinto.put(&[note(8, "back again")]).await;
    let ran = project.ok(&["run"]);
    assert_eq!(in_table(project), at_server(kinto).await, "{}", ran.stderr);
    let deleted = project.sql("SELECT id FROM shop.notes WHERE _deleted");
    assert_eq!(
        deleted,
        [json!({"id": "note-007"})],
        "a tombstone that carries no title is a deletion"
    );

    // Only what changed was asked for: three changes and the tombstones.
    let landed = project.sql("SELECT records_read FROM landfall.loads ORDER BY batch_to DESC LIMIT 1");
    assert!(landed[0]["records_read"].as_i64().unwrap() <= 5, "{landed:?}");
    assert!(project.sql("SELECT * FROM shop.notes__quarantine").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn r001_r011_r057_kinto_full_then_updates_and_tombstones_on_local_disk() {
    let kinto = servers::kinto().await;
    let project = kinto_project(&kinto, "lake: ./lake");
    kinto_follows_the_server(&kinto, &project).await;

    let expected = project.sql("SELECT id FROM shop.notes").len();
    for reader in READERS {
        let rows = read_table(
            reader,
            &project.path().join("lake/tables/shop/notes"),
            &["id", "title", "_deleted"],
        );
        assert_eq!(rows.len(), expected, "{reader:?}");
        assert!(
            rows.contains(&r#"{"id":"note-003","title":"second","_deleted":false}"#.to_owned()),
            "{reader:?}: {rows:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r007_the_same_on_s3_by_changing_the_lake() {
    let kinto = servers::kinto().await;
    let server = s3::start().await;
    let project = kinto_project(&kinto, &server.lake("lake"));
    kinto_follows_the_server(&kinto, &project).await;

    let expected = project.sql("SELECT id FROM shop.notes").len();
    for reader in READERS {
        let url = format!("{}/tables/shop/notes", server.url("lake"));
        assert_eq!(
            read_table_on_s3(reader, &server, &url, &["id"]).len(),
            expected,
            "{reader:?}"
        );
    }
}

fn datasette_streams(datasette: &Datasette, paginate: &str) -> String {
    format!(
        r"
      quakes:
        request: {{ path: {}, params: {{ _shape: objects, _size: 500, _sort: updated }} }}
        records: $.rows[*]
        paginate: {paginate}
        incremental: {{ cursor: $.updated, param: updated__gte, format: integer }}
        table: {{ keys: [id], sequence_by: [updated] }}
",
        datasette.path
    )
}

fn at_datasette(datasette: &Datasette) -> Vec<Value> {
    let mut rows = datasette.rows();
    for row in &mut rows {
        row.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    }
    rows
}

/// Row by row, numbers by value.
pub fn assert_same(left: &[Value], right: &[Value]) {
    assert_eq!(left.len(), right.len());
    for (left, right) in left.iter().zip(right) {
        let (left, right) = (left.as_object().unwrap(), right.as_object().unwrap());
        assert_eq!(left.keys().collect::<Vec<_>>(), right.keys().collect::<Vec<_>>());
        for (name, value) in left {
            match (value.as_f64(), right[name].as_f64()) {
                (Some(a), Some(b)) => assert!(a == b, "{name}: {a} and {b}"),
                _ => assert_eq!(value, &right[name], "{name}"),
            }
        }
    }
}

#[test]
fn r011_r031_datasette_by_next_url_without_a_contract_then_changes() {
    let datasette = servers::datasette();
    let streams = datasette_streams(&datasette, "{ type: next_url, from: $.next_url }");
    let project = TestProject::new(&datasette.base_url, &streams);
    project.ok(&["run"]);
    assert_same(&project.rows("shop.quakes"), &at_datasette(&datasette));
    assert!(
        project.path().join("contracts/shop.quakes.odcs.yaml").exists(),
        "a contract was drafted"
    );

    datasette
        .execute("UPDATE earthquakes SET mag = mag + 1, updated = (SELECT max(updated) FROM earthquakes) + rowid WHERE rowid % 10 = 0");
    project.ok(&["run"]);
    assert_same(&project.rows("shop.quakes"), &at_datasette(&datasette));
}

#[test]
fn r031_datasette_by_link_header() {
    let datasette = servers::datasette();
    let project = TestProject::new(
        &datasette.base_url,
        &datasette_streams(&datasette, "{ type: link_header }"),
    );
    project.ok(&["run"]);
    assert_same(&project.rows("shop.quakes"), &at_datasette(&datasette));
}
