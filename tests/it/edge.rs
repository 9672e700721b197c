//! Contracts at the edge: what `landfall serve` says of records before it takes them, and what the load says of them later.

use std::{collections::BTreeMap, fs};

use landfall::contract::ViolationClass;
use serde_json::{Value, json};

use crate::support::{project::TestProject, python, serving::Server};

/// With a rule in SQL, and deletions that may do without what is required.
const CONTRACT: &str = "apiVersion: v3.1.0
kind: DataContract
id: shop.orders
version: 2.1.0
status: active
schema:
- name: orders
  logicalType: object
  quality:
  - { type: custom, engine: landfall, name: paid_has_total, implementation: \"status <> 'paid' OR total > 0\" }
  properties:
  - { name: id, logicalType: integer, required: true, primaryKey: true, description: The number of the order. }
  - { name: updated, logicalType: integer, required: true }
  - name: status
    logicalType: string
    required: true
    quality: [{ type: library, metric: invalidValues, arguments: { validValues: [open, paid] }, mustBe: 0 }]
  - { name: total, logicalType: number }
  - { name: email, logicalType: string, classification: restricted, logicalTypeOptions: { pattern: '@' } }
  - { name: deleted, logicalType: boolean }
  - name: lines
    logicalType: array
    items:
      logicalType: object
      properties:
      - { name: sku, logicalType: string, required: true }
";

/// The streams `accepted`, `tagged` and `rejected`, alike but for what becomes of records that do not fit; and a token.
fn project() -> (TestProject, String) {
    let project = TestProject::new("http://127.0.0.1:9", "\n");
    let made = project.ok(&["token"]);
    let hash = made.stderr.trim().strip_prefix("hash: ").unwrap();
    let mut text = format!(
        r"lake: ./lake
serve: {{ listen: '127.0.0.1:0', admin_listen: '127.0.0.1:0' }}
producers:
  checkout: {{ scopes: [ingest, read], streams: ['shop.*'], tokens: {{ main: {{ hash: '{hash}' }} }} }}
sources:
  shop:
    streams:
"
    );
    for (name, word) in [("accepted", "accept"), ("tagged", "tag"), ("rejected", "reject")] {
        text += &format!(
            r"      {name}:
        push: {{ on_violation: {word} }}
        table: {{ keys: [id], sequence_by: [updated], apply_as_deletes: deleted = true }}
"
        );
        project.write(&format!("contracts/shop.{name}.odcs.yaml"), CONTRACT);
    }
    project.write("landfall.yml", &text);
    (project, made.stdout.trim().to_owned())
}

/// Records of which many do not fit, each in its own way; the same every time.
fn records() -> Vec<String> {
    let mut seed = 7_u64;
    let mut pick = |count: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % count
    };
    (0..400)
        .map(|id| {
            let mut members = vec![format!("\"id\":{id}"), format!("\"updated\":{id}")];
            members.push(
                [
                    "\"status\":\"open\"",
                    "\"status\":\"paid\"",
                    "\"status\":\"lost\"",
                    "\"status\":null",
                ][if pick(4) > 0 { pick(2) } else { pick(4) } as usize]
                    .to_owned(),
            );
            members.push(
                [
                    "\"total\":5",
                    "\"total\":0",
                    "\"total\":\"x\"",
                    "\"total\":1e999",
                    "\"total\":\"7\"",
                ][if pick(4) > 0 { 0 } else { pick(5) } as usize]
                    .to_owned(),
            );
            if pick(5) == 0 {
                members.push(
                    ["\"email\":\"a@b.c\"", "\"email\":\"none\"", "\"extra\":{}"][pick(3) as usize]
                        .to_owned(),
                );
            }
            if pick(9) == 0 {
                members.push(
                    ["\"deleted\":true", "\"deleted\":false", "\"deleted\":1"][pick(3) as usize].to_owned(),
                );
            }
            if pick(6) == 0 {
                members.push(
                    [
                        "\"lines\":[{\"sku\":\"a\"}]",
                        "\"lines\":[{\"sku\":\"a\"},{}]",
                        "\"lines\":{}",
                    ][pick(3) as usize]
                        .to_owned(),
                );
            }
            if pick(30) == 0 {
                members.remove(pick(3) as usize);
            }
            format!("{{{}}}", members.join(","))
        })
        .collect()
}

struct Client<'a> {
    server: &'a Server,
    token: &'a str,
    client: reqwest::Client,
}

impl<'a> Client<'a> {
    fn new(server: &'a Server, token: &'a str) -> Self {
        let client = reqwest::Client::new();
        Self {
            server,
            token,
            client,
        }
    }

    async fn push(&self, stream: &str, query: &str, media: &str, body: String) -> (u16, Value) {
        let url = format!(
            "{}/v1/streams/shop/{stream}/records{query}",
            self.server.producers
        );
        let sent = self
            .client
            .post(url)
            .bearer_auth(self.token)
            .header("content-type", media)
            .body(body);
        read(sent).await
    }

    async fn get(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.server.producers);
        let (status, document) = read(self.client.get(url).bearer_auth(self.token)).await;
        assert_eq!(status, 200, "{document}");
        document
    }

    async fn metric(&self, name: &str, stream: &str) -> u64 {
        let url = format!("{}/metrics", self.server.admin);
        let text = self.client.get(url).send().await.unwrap().text().await.unwrap();
        let prefix = format!("{name}{{stream=\"shop.{stream}\"}} ");
        let mut values = text.lines().filter_map(|line| line.strip_prefix(&prefix));
        values.next().unwrap().parse().unwrap()
    }
}

async fn read(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (
        status,
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap(),
    )
}

/// The number and the code of each record that an answer names.
fn named(answer: &Value) -> BTreeMap<u64, String> {
    assert_eq!(answer.get("results_omitted"), None);
    let results = answer["results"].as_array().unwrap().iter();
    let told = results.map(|told| {
        (
            told["index"].as_u64().unwrap(),
            told["code"].as_str().unwrap().to_owned(),
        )
    });
    told.collect()
}

/// The same of the records of a stream that its load set aside.
fn quarantined(project: &TestProject, stream: &str) -> BTreeMap<u64, String> {
    let rows = project.sql(&format!(
        "SELECT _lf_record, class FROM shop.{stream}__quarantine"
    ));
    let told = rows.iter();
    told.map(|row| {
        (
            row["_lf_record"].as_u64().unwrap(),
            row["class"].as_str().unwrap().to_owned(),
        )
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn r113_the_edge_rejects_and_tags_what_the_load_would_set_aside() {
    let (project, token) = project();
    project.ok(&["check"]);
    let server = Server::start(&project);
    let client = Client::new(&server, &token);
    let records = records();
    let lines = "application/x-ndjson";
    let body = records.join("\n");
    let mut answers = BTreeMap::new();
    for stream in ["accepted", "tagged", "rejected"] {
        let (status, answer) = client.push(stream, "", lines, body.clone()).await;
        assert_eq!(status, 202, "{answer}");
        answers.insert(stream, answer);
    }
    assert_eq!(
        answers["accepted"]["records"],
        json!({ "accepted": 400, "rejected": 0 })
    );
    let (tagged, rejected) = (named(&answers["tagged"]), named(&answers["rejected"]));
    let count = rejected.len() as u64;
    assert!((60..340).contains(&count), "{count}");
    assert_eq!(tagged, rejected);
    assert_eq!(
        answers["tagged"]["records"],
        json!({ "accepted": 400, "rejected": 0, "tagged": count })
    );
    assert_eq!(
        answers["rejected"]["records"],
        json!({ "accepted": 400 - count, "rejected": count })
    );
    // As a whole or not at all.
    let (status, problem) = client.push("rejected", "?mode=atomic", lines, body).await;
    assert_eq!(
        (status, &problem["code"]),
        (422, &json!("batch_rejected")),
        "{problem}"
    );

    assert_eq!(
        client.metric("landfall_records_tagged_total", "tagged").await,
        count
    );
    assert_eq!(
        client.metric("landfall_records_tagged_total", "rejected").await,
        0
    );
    assert_eq!(
        client.metric("landfall_records_rejected_total", "rejected").await,
        2 * count
    );
    assert_eq!(
        client.metric("landfall_records_rejected_total", "accepted").await,
        0
    );
    let stream = client.get("/v1/streams/shop/rejected").await;
    assert_eq!(
        stream["contract"],
        json!({
            "on_violation": "reject", "version": "2.1.0", "status": "active", "readable": true,
            "rejected": 2 * count, "tagged": 0,
        })
    );
    server.stop();

    project.ok(&["run"]);
    let afterwards = quarantined(&project, "accepted");
    assert_eq!(afterwards, rejected);
    assert_eq!(quarantined(&project, "tagged"), tagged);
    assert_eq!(quarantined(&project, "rejected"), BTreeMap::new());
    let rows = project.rows("shop.accepted");
    assert!(rows.len() as u64 > 50 && rows.len() as u64 <= 400 - count);
    assert_eq!(project.rows("shop.tagged"), rows);
    assert_eq!(project.rows("shop.rejected"), rows);
    project.ok(&["verify"]);
    // The tag is found again from any row of the page.
    let key = rows[0]["id"].to_string();
    let explained = project.ok(&["explain", "shop.tagged", &key]).stdout;
    assert!(explained.contains("by contract 2.1.0: "), "{explained}");
    assert!(explained.contains("type_mismatch ×"), "{explained}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r112_a_public_validator_reads_the_schema_of_a_stream_and_its_examples_fit_and_are_taken() {
    let (project, token) = project();
    let server = Server::start(&project);
    let client = Client::new(&server, &token);
    let document = client.get("/openapi.json").await;
    let operation = &document["paths"]["/v1/streams/shop/rejected/records"]["post"];
    let content = &operation["requestBody"]["content"];
    let examples = &content["application/json"]["examples"];
    let (one, batch) = (
        examples["one"]["value"].clone(),
        examples["batch"]["value"].clone(),
    );
    // The references of the schema lead into the document.
    let mut schema = content["application/json"]["schema"].clone();
    schema["components"] = document["components"].clone();
    let wrong = json!({ "id": 1, "updated": 1, "status": "lost" });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("all.json");
    let instances = json!([one, batch, wrong, {}, [{}], 7]);
    fs::write(
        &file,
        json!({ "schema": schema, "instances": instances }).to_string(),
    )
    .unwrap();
    let words: Vec<String> =
        serde_json::from_str(&python::run("judge_json.py", &[file.to_str().unwrap()])).unwrap();
    let fits: Vec<bool> = words.iter().map(String::is_empty).collect();
    assert_eq!(fits, [true, true, false, false, false, false], "{words:?}");

    let lines = content["application/x-ndjson"]["examples"]["lines"]["value"]
        .as_str()
        .unwrap();
    for (media, body) in [
        ("application/json", one.to_string()),
        ("application/json", batch.to_string()),
        ("application/x-ndjson", lines.to_owned()),
    ] {
        let (status, answer) = client.push("rejected", "", media, body).await;
        assert_eq!(
            (status, &answer["records"]),
            (202, &json!({ "accepted": 1, "rejected": 0 })),
            "{answer}"
        );
    }
    let (status, problem) = client
        .push("rejected", "", "application/json", wrong.to_string())
        .await;
    assert_eq!(
        (status, &problem["errors"][0]["pointer"]),
        (422, &json!("#/status")),
        "{problem}"
    );
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn r086_every_code_of_a_violation_is_explained_where_the_problem_points() {
    let (project, token) = project();
    let server = Server::start(&project);
    let client = Client::new(&server, &token);
    let (status, problem) = client
        .push("rejected", "", "application/json", "{}".to_owned())
        .await;
    assert_eq!((status, &problem["code"]), (422, &json!("contract_violation")));
    let url = format!("{}{}", server.producers, problem["type"].as_str().unwrap());
    let page = client.client.get(url).send().await.unwrap().text().await.unwrap();
    let document = client.get("/openapi.json").await;
    let codes = document["components"]["schemas"]["ViolationCode"]["enum"]
        .as_array()
        .unwrap();
    let classes = [
        ViolationClass::NotJson,
        ViolationClass::RecordsPathMissing,
        ViolationClass::NotAnObject,
        ViolationClass::DuplicateKey,
        ViolationClass::KeyMissing,
        ViolationClass::RequiredMissing,
        ViolationClass::NullInRequired,
        ViolationClass::TypeMismatch,
        ViolationClass::OutOfRange,
        ViolationClass::Enum,
        ViolationClass::Pattern,
        ViolationClass::Length,
        ViolationClass::RuleFailed,
        ViolationClass::TooDeep,
        ViolationClass::TooLarge,
        ViolationClass::UnknownField,
    ];
    assert_eq!(codes.len(), classes.len());
    for class in classes {
        assert!(page.contains(&format!("\n{class} ")), "{class}: {page}");
        assert!(codes.contains(&json!(class.as_str())), "{class}");
    }
    server.stop();
}
