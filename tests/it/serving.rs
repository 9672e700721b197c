//! `landfall serve` as a producer meets it, and what comes of it in tables.

use serde_json::{Value, json};

use crate::support::{project::TestProject, serving::Server};

/// A project with one pushed stream, and a token for it.
fn project() -> (TestProject, String) {
    let project = TestProject::new("http://127.0.0.1:9", "\n");
    let made = project.ok(&["token"]);
    let hash = made.stderr.trim().strip_prefix("hash: ").unwrap();
    let text = format!(
        r"lake: ./lake
serve: {{ listen: '127.0.0.1:0', admin_listen: '127.0.0.1:0' }}
producers:
  checkout: {{ scopes: [ingest, read], streams: ['shop.*'], tokens: {{ main: {{ hash: '{hash}' }} }} }}
sources:
  shop:
    streams:
      items:
        push: {{}}
        table: {{ keys: [id], sequence_by: [updated] }}
"
    );
    project.write("landfall.yml", &text);
    (project, made.stdout.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn r081_what_producers_push_is_landed_and_stands_in_the_table() {
    let (project, token) = project();
    project.ok(&["check"]);
    let server = Server::start(&project);
    let client = reqwest::Client::new();
    let push = async |kind: &str, body: String| {
        let sent = client
            .post(format!("{}/v1/streams/shop/items/records", server.producers))
            .bearer_auth(&token)
            .header("content-type", kind)
            .body(body);
        let answer = sent.send().await.unwrap();
        let status = answer.status().as_u16();
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        (status, answer)
    };
    let one = json!({"id": 1, "updated": 1, "name": "one"});
    let two = json!([{"id": 2, "updated": 1, "name": "two"}, {"id": 1, "updated": 2, "name": "newer"}]);
    let lines = "{\"id\":3,\"updated\":1,\"name\":\"three\"}\n{\"id\":4,\"updated\":1,\"name\":\"four\"}\n";
    for (kind, body, records) in [
        ("application/json", one.to_string(), 1),
        ("application/json", two.to_string(), 2),
        ("application/x-ndjson", lines.to_owned(), 2),
    ] {
        let (status, answer) = push(kind, body).await;
        assert_eq!(
            (status, &answer["records"]["accepted"]),
            (202, &json!(records)),
            "{answer}"
        );
    }
    let refused = client
        .post(format!("{}/v1/streams/shop/items/records", server.producers))
        .body("{}")
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status().as_u16(), 401);
    let ready = client
        .get(format!("{}/readyz", server.admin))
        .send()
        .await
        .unwrap();
    assert_eq!(ready.status().as_u16(), 200);
    server.stop();
    project.ok(&["run"]);
    assert_eq!(
        project.rows("shop.items"),
        [
            json!({"id": 1, "updated": 2, "name": "newer"}),
            json!({"id": 2, "updated": 1, "name": "two"}),
            json!({"id": 3, "updated": 1, "name": "three"}),
            json!({"id": 4, "updated": 1, "name": "four"}),
        ]
    );
    project.ok(&["verify"]);
}
