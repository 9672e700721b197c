//! Bodies that are not plain JSON, through the real program: landed as they came, loaded as rows.

use std::io::{Cursor, Write as _};

use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use zip::{ZipWriter, write::SimpleFileOptions};

use crate::support::{
    api::{Api, Scripted},
    project::TestProject,
};

/// A contract of the columns `id`, an integer and the key, `price`, a number, and `name`.
fn contract(stream: &str) -> String {
    format!(
        "apiVersion: v3.1.0\nkind: DataContract\nid: shop.{stream}\nversion: 1.0.0\nstatus: active\nschema:\n  \
         - name: {stream}\n    logicalType: object\n    properties:\n      \
         - {{ name: id, logicalType: integer, required: true, primaryKey: true }}\n      \
         - {{ name: price, logicalType: number }}\n      - {{ name: name, logicalType: string }}\n"
    )
}

/// A project with one stream of the scripted API, whose only answer is `body`.
fn project(api: &Api, stream: &str, settings: &str, content_type: &str, body: &[u8]) -> TestProject {
    api.script(Scripted {
        status: 200,
        headers: vec![("content-type", content_type.to_owned())],
        body: body.to_vec(),
    });
    let streams = format!(
        "      {stream}:\n        request: {{ path: /items }}\n        table: {{ keys: [id] }}\n        {settings}\n"
    );
    let project = TestProject::new(&api.base_url, &streams);
    project.write(&format!("contracts/shop.{stream}.odcs.yaml"), &contract(stream));
    project
}

fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in files {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn f125_csv_in_an_archive_becomes_rows_and_a_ragged_row_is_set_aside_alone() {
    let api = Api::start(Vec::new());
    let body = archive(&[
        (
            "2024/a.csv",
            "id;price;name\r\n1;1.50;\"Ann; the first\"\r\n2;;\r\n3;7\r\n",
        ),
        ("2024/b.csv", "name;id;price\r\nBob;4;x\r\nEve;5;2\r\n"),
    ]);
    let settings = "format: { type: csv, container: zip, delimiter: ';' }";
    let project = project(&api, "prices", settings, "application/zip", &body);
    let ran = project.ok(&["run"]);
    assert!(
        ran.stderr.contains("3 merged") && ran.stderr.contains("2 quarantined"),
        "{}",
        ran.stderr
    );
    assert_eq!(
        project.sql("SELECT id, price, name FROM shop.prices ORDER BY id"),
        [
            json!({"id": 1, "price": 1.5, "name": "Ann; the first"}),
            json!({"id": 2, "price": null, "name": null}),
            json!({"id": 5, "price": 2.0, "name": "Eve"}),
        ]
    );
    assert_eq!(
        project.sql("SELECT _lf_record r, class, record FROM shop.prices__quarantine ORDER BY r"),
        [
            json!({"r": 2, "class": "not_an_object", "record": "[\"3\",\"7\"]"}),
            json!({"r": 3, "class": "type_mismatch", "record": "{\"name\":\"Bob\",\"id\":\"4\",\"price\":\"x\"}"}),
        ]
    );
    assert_eq!(
        project.sql("SELECT count(*) n FROM shop.prices__raw"),
        [json!({"n": 5})]
    );
    let shown = project.ok(&["explain", "shop.prices", "5"]);
    assert!(
        shown
            .stdout
            .contains("{\"name\":\"Eve\",\"id\":\"5\",\"price\":\"2\"}"),
        "{}",
        shown.stdout
    );
}

#[test]
fn r003_json_lines_in_gzip_lose_only_the_line_that_is_broken() {
    let api = Api::start(Vec::new());
    let body = gzip("{\"id\":1,\"price\":1e2}\n\n{\"id\":2,\n{\"id\":3,\"name\":\"c\"}");
    let project = project(
        &api,
        "lines",
        "format: { type: jsonl, container: gzip }",
        "application/gzip",
        &body,
    );
    project.ok(&["run"]);
    assert_eq!(
        project.sql("SELECT id, price, name FROM shop.lines ORDER BY id"),
        [
            json!({"id": 1, "price": 100.0, "name": null}),
            json!({"id": 3, "price": null, "name": "c"})
        ]
    );
    assert_eq!(
        project.sql("SELECT _lf_record r, class, record FROM shop.lines__quarantine"),
        [json!({"r": 1, "class": "not_json", "record": "{\"id\":2,"})]
    );
}

#[test]
fn xml_elements_become_rows_be_there_one_or_many() {
    for (items, rows) in [
        (
            "<item><id>1</id><price>2.5</price><name>a &amp; b</name></item>",
            1,
        ),
        ("<item><id>1</id></item><item id='9'><id>2</id><name/></item>", 2),
    ] {
        let api = Api::start(Vec::new());
        let body = format!("<?xml version=\"1.0\"?>\n<shop><items>{items}</items></shop>");
        let settings = "format: xml\n        records: $.shop.items.item[*]";
        let project = project(&api, "items", settings, "text/xml", body.as_bytes());
        project.ok(&["run"]);
        assert_eq!(
            project.sql("SELECT count(*) n FROM shop.items"),
            [json!({"n": rows})]
        );
        let raw = project.sql("SELECT record FROM shop.items__raw ORDER BY _lf_record");
        assert_eq!(raw.len(), rows);
        if rows == 1 {
            assert_eq!(
                raw[0]["record"],
                "{\"id\":\"1\",\"price\":\"2.5\",\"name\":\"a & b\"}"
            );
        } else {
            // What the contract does not say is kept, as of any other format.
            assert_eq!(
                project.sql("SELECT _rescued r FROM shop.items WHERE id = 2"),
                [json!({"r": "{\"@id\":\"9\"}"})]
            );
        }
    }
}

#[test]
fn members_of_an_object_become_rows_with_their_names() {
    let api = Api::start(Vec::new());
    let body = "\u{feff}{\"data\": {\"1\": {\"name\": \"a\"}, \"2\": {\"name\": \"b\"}}}";
    let settings = "format: { type: json, key_as: id }\n        records: $.data.*";
    let project = project(&api, "map", settings, "application/json", body.as_bytes());
    project.ok(&["run"]);
    assert_eq!(
        project.sql("SELECT id, name FROM shop.map ORDER BY id"),
        [json!({"id": 1, "name": "a"}), json!({"id": 2, "name": "b"})]
    );
}

#[test]
fn values_of_a_slice_are_in_its_rows_and_in_what_is_set_aside() {
    let api = Api::start(Vec::new());
    for body in [
        r#"{"data":[{"id":1,"name":"a"},{}]}"#,
        r#"{"data":[{"id":1,"name":7},{"id":2,"region":"own"}]}"#,
    ] {
        api.script(Scripted {
            status: 200,
            headers: Vec::new(),
            body: body.as_bytes().to_vec(),
        });
    }
    let streams = "      items:\n        request: { path: /items }\n        records: $.data[*]\n        \
                   slices: { by: [{ list: region, values: [eu, us] }], at_once: 1, include: [region] }\n        \
                   table: { keys: [region, id] }\n";
    let project = TestProject::new(&api.base_url, streams);
    let region = "      - { name: region, logicalType: string, required: true, primaryKey: true }\n";
    let contract = contract("items") + region;
    project.write("contracts/shop.items.odcs.yaml", &contract);
    project.ok(&["run"]);
    assert_eq!(
        project.sql("SELECT region, id, name FROM shop.items ORDER BY region"),
        [
            json!({"region": "eu", "id": 1, "name": "a"}),
            json!({"region": "own", "id": 2, "name": null}),
        ]
    );
    assert_eq!(
        project.sql("SELECT class, record FROM shop.items__quarantine ORDER BY record"),
        [
            json!({"class": "key_missing", "record": "{\"region\":\"eu\"}"}),
            json!({"class": "type_mismatch", "record": "{\"region\":\"us\",\"id\":1,\"name\":7}"}),
        ]
    );
    let shown = project.ok(&["explain", "shop.items", "eu", "1"]).stdout;
    assert!(
        shown.contains("region = \"eu\"") && shown.contains("{\"id\":1,\"name\":\"a\"}"),
        "{shown}"
    );
    // What was set aside is found by a value that only its slice has.
    let shown = project.ok(&["explain", "shop.items", "us", "1"]).stdout;
    assert!(
        shown.contains("type_mismatch") && shown.contains("{\"id\":1,\"name\":7}"),
        "{shown}"
    );
}
