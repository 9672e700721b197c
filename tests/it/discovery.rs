//! What the receiving side tells about itself, read by tools that nobody here wrote, and whether it is true.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use reqwest::{Client, Method, Response, header, redirect};
use serde_json::{Value, json};

use crate::support::{
    project::{ITEMS_CONTRACT, TestProject},
    python::{self, judge_openapi, node_modules, schemathesis},
    serving::Server,
};

/// Who reads AsyncAPI documents.
const ASYNCAPI_PARSER: &str = "@asyncapi/parser@3.6.3";

/// What the webhook of the project is believed for.
const SECRET: &str = "s3cr3t-of-the-hook";

/// Methods that are looked for where they are not told.
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

const STREAMS: &str = "
      items:
        push: { records_max: 5, bytes_max: 4KiB, record_bytes_max: 1KiB }
        table: { keys: [id], sequence_by: [updated] }
      log:
        push: { deprecated: 2026-01-01, sunset: 2999-01-01, migration: https://wiki.shop.example/log, delivery: '<script>&' }
        table: { scd_type: append }
      hidden_events:
        webhook: { scheme: shared_secret, header: X-Secret, secrets: { main: '${env:HOOK_SECRET}' }, event_id: 'header:X-Event' }
        table: { keys: [id] }
";

/// A project with pushed streams, a token that may do everything with them, and one that may only send to `shop.items`.
struct Shop {
    project: TestProject,
    token: String,
    sender: String,
}

impl Shop {
    fn new(serve: &str) -> Self {
        let mut project = TestProject::new("http://127.0.0.1:9", "\n");
        project.env("HOOK_SECRET", SECRET);
        let [(token, hash), (sender, other)] = [0, 1].map(|_| {
            let made = project.ok(&["token"]);
            let hash = made.stderr.trim().strip_prefix("hash: ").unwrap().to_owned();
            (made.stdout.trim().to_owned(), hash)
        });
        let text = format!(
            "lake: ./lake
serve: {{ listen: '127.0.0.1:0', admin_listen: '127.0.0.1:0'{serve} }}
producers:
  checkout: {{ scopes: [ingest, read], streams: ['shop.*'], tokens: {{ main: {{ hash: '{hash}' }} }} }}
  till: {{ scopes: [ingest], streams: [shop.items], tokens: {{ main: {{ hash: '{other}' }} }} }}
sources:
  shop:
    streams:{STREAMS}"
        );
        project.write("landfall.yml", &text);
        Self {
            project,
            token,
            sender,
        }
    }

    /// The document at `path` as whoever shows `token` sees it.
    async fn document(&self, server: &Server, path: &str, token: Option<&str>) -> Value {
        let text = self.text(server, path, token).await;
        serde_json::from_str(&text).unwrap()
    }

    async fn text(&self, server: &Server, path: &str, token: Option<&str>) -> String {
        let mut request = client().get(at(server, path));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200, "{path}");
        answer.text().await.unwrap()
    }

    async fn push(&self, server: &Server, stream: &str, key: Option<&str>, body: &Value) -> (u16, Value) {
        let mut request = client()
            .post(at(server, &format!("/v1/streams/shop/{stream}/records")))
            .bearer_auth(&self.token)
            .header("content-type", "application/json")
            .body(body.to_string());
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        read(request.send().await.unwrap()).await
    }

    /// The records of a stream that are in raw, as they were sent.
    fn raw(&self, stream: &str) -> Vec<String> {
        let query = format!("SELECT record FROM shop.{stream}__raw ORDER BY _lf_batch, _lf_page, _lf_record");
        let rows = self.project.sql(&query);
        rows.iter()
            .map(|row| row["record"].as_str().unwrap().to_owned())
            .collect()
    }

    fn written(&self, name: &str, document: &Value) -> PathBuf {
        self.project.write(name, &document.to_string());
        self.project.path().join(name)
    }
}

/// One that goes where it is sent, and no further.
fn client() -> Client {
    Client::builder()
        .redirect(redirect::Policy::none())
        .build()
        .unwrap()
}

fn at(server: &Server, path: &str) -> String {
    format!("{}{path}", server.producers)
}

async fn read(answer: Response) -> (u16, Value) {
    let status = answer.status().as_u16();
    let body = answer.bytes().await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// What the reader of AsyncAPI documents complains of.
fn judge_asyncapi(document: &Path) -> Vec<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/node/judge_asyncapi.mjs");
    let mut command = Command::new("node");
    command
        .arg(script)
        .arg(node_modules(ASYNCAPI_PARSER))
        .arg(document);
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Every value of an attribute in a page.
fn attributes(page: &str, name: &str) -> Vec<String> {
    let begin = format!(" {name}=\"");
    let parts = page.split(&begin).skip(1);
    parts.map(|part| plain(part.split('"').next().unwrap())).collect()
}

/// Text of a page as it is read.
fn plain(html: &str) -> String {
    let escaped = [
        ("&quot;", "\""),
        ("&#x27;", "'"),
        ("&#x2f;", "/"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&amp;", "&"),
    ];
    escaped
        .iter()
        .fold(html.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[tokio::test(flavor = "multi_thread")]
async fn r123_r112_openapi_is_of_the_standard_with_examples_that_fit_and_the_router_answers_that_alone() {
    let shop = Shop::new("");
    let server = Server::start(&shop.project);
    let document = shop.document(&server, "/openapi.json", None).await;
    let judged = judge_openapi(&shop.written("openapi.json", &document));
    assert_eq!(judged["complaints"], json!([]));
    assert!(
        judged["examples"].as_u64().unwrap() > 50,
        "{}",
        judged["examples"]
    );

    let (_, answer) = shop.push(&server, "items", None, &json!({"id": 1})).await;
    let id = answer["receipt"].as_str().unwrap();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let told: BTreeSet<String> = methods
            .as_object()
            .unwrap()
            .keys()
            .map(|method| method.to_uppercase())
            .filter(|method| method != "HEAD")
            .collect();
        let url = path.replace("{source}", "shop").replace("{stream}", "items");
        let url = at(&server, &url.replace("{id}", id));
        for method in METHODS {
            let request = client().request(Method::from_bytes(method.as_bytes()).unwrap(), &url);
            let answer = request.bearer_auth(&shop.token).send().await.unwrap();
            let allowed = answer.headers().get(header::ALLOW).cloned();
            let (status, problem) = read(answer).await;
            if told.contains(method) {
                // There is no version of a contract that is called as its place in the path.
                let is_there = problem["code"] != "not_found" || path.ends_with("{version}");
                assert!(status != 405 && is_there, "{method} {path}: {problem}");
                continue;
            }
            assert_eq!(
                (status, &problem["code"]),
                (405, &json!("method_not_allowed")),
                "{method} {path}"
            );
            let allowed: BTreeSet<String> = allowed
                .unwrap()
                .to_str()
                .unwrap()
                .split(',')
                .map(|method| method.trim().to_owned())
                .filter(|method| method != "HEAD")
                .collect();
            assert_eq!(allowed, told, "{path}");
        }
    }
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn r124_asyncapi_is_of_the_standard_and_names_streams_to_those_who_may_read_them() {
    let shop = Shop::new("");
    let server = Server::start(&shop.project);
    let names = |document: &Value, member: &str| -> Vec<String> {
        document[member].as_object().unwrap().keys().cloned().collect()
    };
    for (who, token, channels) in [
        ("nobody", None, vec!["records", "webhooks"]),
        ("till", Some(shop.sender.as_str()), vec!["records", "webhooks"]),
        (
            "checkout",
            Some(shop.token.as_str()),
            vec![
                "shop.hidden_events.records",
                "shop.hidden_events.webhooks",
                "shop.items.records",
                "shop.log.records",
            ],
        ),
    ] {
        let document = shop.document(&server, "/asyncapi.json", token).await;
        assert_eq!(document["asyncapi"], "3.0.0");
        assert_eq!(names(&document, "channels"), channels, "{who}");
        assert_eq!(
            judge_asyncapi(&shop.written(who, &document)),
            Vec::<String>::new(),
            "{who}"
        );
        assert_eq!(document.to_string().contains("hidden"), who == "checkout");
        let told = &document["servers"]["this"];
        assert_eq!(
            server.producers,
            format!("http://{}", told["host"].as_str().unwrap())
        );
        // The channels are those of the router, and this application takes what comes by them.
        for operation in document["operations"].as_object().unwrap().values() {
            assert_eq!(operation["action"], "receive");
            let channel = operation["channel"]["$ref"]
                .as_str()
                .unwrap()
                .strip_prefix('#')
                .unwrap();
            let address = document.pointer(channel).unwrap()["address"].as_str().unwrap();
            let method = operation["bindings"]["http"]["method"].as_str().unwrap();
            let url = at(
                &server,
                &address.replace("{source}", "shop").replace("{stream}", "items"),
            );
            let request = client().request(Method::from_bytes(method.as_bytes()).unwrap(), url);
            assert_eq!(request.send().await.unwrap().status().as_u16(), 401, "{address}");
        }
    }
    // What a contract asks of records is told to those who may read the stream, with an example that is taken.
    shop.project
        .write("contracts/shop.items.odcs.yaml", ITEMS_CONTRACT);
    server.stop();
    let server = Server::start(&shop.project);
    let told = shop.document(&server, "/asyncapi.json", Some(&shop.sender)).await;
    assert!(!told.to_string().contains("Record.shop.items"));
    let document = shop.document(&server, "/asyncapi.json", Some(&shop.token)).await;
    assert_eq!(
        judge_asyncapi(&shop.written("contract", &document)),
        Vec::<String>::new()
    );
    let openapi = shop.document(&server, "/openapi.json", Some(&shop.token)).await;
    let schema = &document["components"]["schemas"]["Record.shop.items"];
    assert_eq!(schema["required"], json!(["id", "name", "updated"]));
    assert_eq!(*schema, openapi["components"]["schemas"]["Record.shop.items"]);
    let messages = &document["channels"]["shop.items.records"]["messages"];
    assert_eq!(
        messages["records"]["payload"]["oneOf"][0]["$ref"],
        "#/components/schemas/Record.shop.items"
    );
    let example = &messages["records"]["examples"][0]["payload"];
    let (status, answer) = shop.push(&server, "items", None, example).await;
    assert_eq!(
        (status, &answer["records"]["rejected"]),
        (202, &json!(0)),
        "{answer}"
    );
    let line = messages["lines"]["examples"][0]["payload"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(line).unwrap(), example[0]);
    // Somebody else's validator agrees, and finds what does not fit.
    let mut payload = messages["records"]["payload"].clone();
    payload["components"] = document["components"].clone();
    let instances = json!([example, example[0], [{"id": "x"}], 7]);
    let file = shop.written("all", &json!({ "schema": payload, "instances": instances }));
    let words = python::run("judge_json.py", &[file.to_str().unwrap()]);
    let words: Vec<String> = serde_json::from_str(&words).unwrap();
    let fits: Vec<bool> = words.iter().map(String::is_empty).collect();
    assert_eq!(fits, [true, true, false, false], "{words:?}");
    let hook = &document["operations"]["shop.hidden_events.webhooks"];
    assert_eq!(hook["security"][0]["name"], "x-secret");
    let event = &document["channels"]["shop.hidden_events.webhooks"]["messages"]["event"];
    assert_eq!(event["headers"]["required"], json!(["x-secret"]));
    let refused = client()
        .get(at(&server, "/asyncapi.json"))
        .bearer_auth("lfp_wrong");
    assert_eq!(refused.send().await.unwrap().status().as_u16(), 401);
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn r123_schemathesis_finds_nothing_that_the_description_does_not_say() {
    let shop = Shop::new("");
    let server = Server::start(&shop.project);
    schemathesis(&at(&server, "/openapi.json"), &shop.token, SECRET);
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn r164_the_quick_start_of_the_page_is_three_commands_that_work() {
    let shop = Shop::new("");
    let server = Server::start(&shop.project);
    let page = shop.text(&server, "/docs", Some(&shop.token)).await;
    let (_, commands) = page.split_once("<pre id=\"commands\"><code>").unwrap();
    let (commands, _) = commands.split_once("</code>").unwrap();
    let commands = plain(commands);
    let commands: Vec<&str> = commands.trim().lines().collect();
    assert!(commands.len() <= 3, "{commands:?}");
    let mut told = Vec::new();
    for command in commands {
        let output = Command::new("sh")
            .args([
                "-euc",
                &command.replacen("curl ", "curl --silent --show-error --fail-with-body ", 1),
            ])
            .env("TOKEN", &shop.token)
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command}\n{words}");
        told.push(serde_json::from_slice::<Value>(&output.stdout).unwrap());
    }
    let streams = told[0]["streams"].as_array().unwrap();
    assert_eq!(streams.len(), 3);
    assert_eq!(told[1]["records"], json!({"accepted": 1, "rejected": 0}));
    assert_eq!(told[2]["receipts"][0]["receipt"], told[1]["receipt"]);
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn r147_every_refusal_explains_itself_and_its_type_is_a_place_on_the_page() {
    let shop = Shop::new(", public_url: 'http://127.0.0.1:1/in'");
    let server = Server::start(&shop.project);
    // Nobody shows who it is, and sees no stream.
    let page = shop.text(&server, "/in/docs", None).await;
    let places = attributes(&page, "id");
    let distinct: BTreeSet<&String> = places.iter().collect();
    assert_eq!(distinct.len(), places.len());
    let post = |path: &str| client().post(at(&server, path)).bearer_auth(&shop.token);
    let records = "/in/v1/streams/shop/items/records";
    let json =
        |path: &str, body: &'static str| post(path).header("content-type", "application/json").body(body);
    let cases = [
        (client().get(at(&server, "/nothing")), 404, "not_found"),
        (client().get(at(&server, "/in/nothing")), 404, "not_found"),
        (client().get(at(&server, records)), 405, "method_not_allowed"),
        (client().post(at(&server, records)), 401, "unauthenticated"),
        (
            client()
                .get(at(&server, "/in/v1/streams"))
                .bearer_auth(&shop.sender),
            403,
            "forbidden",
        ),
        (post(records).body("{}"), 415, "unsupported_media_type"),
        (json(records, "{"), 400, "body_malformed"),
        (json(records, "[{},{},{},{},{},{}]"), 413, "too_many_records"),
        (json(&format!("{records}?mode=all"), "{}"), 400, "invalid_request"),
        (
            json(&format!("{records}?mode=atomic"), "[{},1]"),
            422,
            "batch_rejected",
        ),
        (
            json("/in/v1/streams/shop/nothing/records", "{}"),
            404,
            "stream_not_found",
        ),
        (
            client().get(at(&server, &format!("/{}", "a".repeat(9000)))),
            414,
            "uri_too_long",
        ),
    ];
    for (request, status, code) in cases {
        let answer = request.send().await.unwrap();
        let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let (got, problem) = read(answer).await;
        assert_eq!(
            (got, problem["code"].as_str().unwrap()),
            (status, code),
            "{problem}"
        );
        assert_eq!(problem["type"], format!("http://127.0.0.1:1/in/docs#{code}"));
        assert_eq!(problem["request_id"], id);
        assert!(
            problem["instance"].as_str().unwrap().starts_with('/'),
            "{problem}"
        );
        assert!(problem["detail"].as_str().unwrap().len() > 10, "{problem}");
        assert!(places.iter().any(|place| place == code), "{code}");
    }
    for link in attributes(&page, "href") {
        match link.strip_prefix('#') {
            Some(place) => assert!(places.iter().any(|known| known == place), "{link}"),
            None => {
                let answer = client().get(at(&server, &link)).send().await.unwrap();
                assert_eq!(answer.status().as_u16(), 200, "{link}");
            }
        }
    }
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn r112_the_page_needs_nothing_else_and_shows_streams_to_those_who_may_read_them() {
    let shop = Shop::new("");
    let server = Server::start(&shop.project);
    for (path, code) in [("/", 307), ("/docs", 200)] {
        for method in [Method::GET, Method::HEAD] {
            let answer = client().request(method, at(&server, path)).send().await.unwrap();
            assert_eq!(answer.status().as_u16(), code, "{path}");
        }
    }
    let home = client().get(at(&server, "/")).send().await.unwrap();
    assert_eq!(home.headers()["location"], "/docs");
    let links: Vec<&str> = home
        .headers()
        .get_all("link")
        .iter()
        .map(|link| link.to_str().unwrap())
        .collect();
    assert_eq!(
        links,
        [
            "</.well-known/api-catalog>; rel=\"api-catalog\"",
            "</openapi.json>; rel=\"service-desc\"",
            "</asyncapi.json>; rel=\"service-desc\"",
            "</docs>; rel=\"service-doc\"",
        ]
    );
    let answer = client().get(at(&server, "/docs")).send().await.unwrap();
    let policy = answer.headers()["content-security-policy"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(
        policy.starts_with("default-src 'none'; style-src 'sha256-"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    assert_eq!(answer.headers()["vary"], "Authorization");
    let page = answer.text().await.unwrap();
    for word in [
        "<script", "<link", "<img", "<iframe", "<form", "src=", " style=", "@import", "url(",
    ] {
        assert!(!page.contains(word), "{word}");
    }
    for tag in ["code", "dl", "section", "p"] {
        let begun = |end: &str| page.matches(&format!("<{tag}{end}")).count();
        let ended = page.matches(&format!("</{tag}>")).count();
        assert_eq!(begun(">") + begun(" "), ended, "{tag}");
    }
    assert!(!page.contains("hidden_events") && !page.contains("wiki.shop"));
    let theirs = shop.text(&server, "/docs", Some(&shop.sender)).await;
    assert!(!theirs.contains("hidden_events"));
    let ours = shop.text(&server, "/docs", Some(&shop.token)).await;
    assert!(attributes(&ours, "id").contains(&"shop.hidden_events".to_owned()));
    assert!(attributes(&ours, "href").contains(&"https://wiki.shop.example/log".to_owned()));
    assert!(ours.contains("x-secret") && !ours.contains(SECRET));
    assert!(ours.contains("&lt;script&gt;&amp;") && !ours.contains("<script"));
    let refused = client().get(at(&server, "/docs")).bearer_auth("lfp_wrong");
    assert_eq!(refused.send().await.unwrap().status().as_u16(), 401);
    // A host that would be a command is not copied into one.
    let odd = client().get(at(&server, "/docs")).header("host", "a$(id)");
    assert!(!odd.send().await.unwrap().text().await.unwrap().contains("$(id)"));
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn r094_r126_a_stream_tells_its_limits_rates_and_examples_and_keeps_to_them() {
    let shop = Shop::new("");
    let server = Server::start(&shop.project);
    let stream = shop
        .document(&server, "/v1/streams/shop/items", Some(&shop.token))
        .await;
    let description = shop.document(&server, "/openapi.json", None).await;
    let schema = json!({"$ref": "#/components/schemas/Stream", "components": description["components"]});
    let file = shop.written("judge.json", &json!({"schema": schema, "instances": [stream]}));
    assert_eq!(
        crate::support::python::run("judge_json.py", &[file.to_str().unwrap()]),
        "[\"\"]"
    );
    let limits = &stream["limits"];
    assert_eq!(
        (
            &limits["records_max"],
            &limits["bytes_max"],
            &limits["record_bytes_max"]
        ),
        (&json!(5), &json!(4096), &json!(1024))
    );
    assert_eq!(
        (&stream["recommended"]["records"], &stream["recommended"]["bytes"]),
        (&json!(5), &json!(4096))
    );
    assert_eq!(
        stream["rate"],
        json!({"requests": 100_000, "bytes": 1 << 30, "per_seconds": 10.0, "at_once": 256})
    );
    // What is a byte or a record more is refused, and what is not is taken.
    let record = |bytes: usize| json!({"pad": "x".repeat(bytes - r#"{"pad":""}"#.len())});
    let of = |records: usize, bytes: usize| Value::from(vec![record(bytes); records]);
    assert_eq!(record(1024).to_string().len(), 1024);
    for (body, status, code) in [
        (of(5, 20), 202, ""),
        (of(6, 20), 413, "too_many_records"),
        (of(1, 1024), 202, ""),
        (of(1, 1025), 413, "record_too_large"),
        (of(4, 1023), 413, "body_too_large"),
        (of(4, 1022), 202, ""),
    ] {
        let length = body.to_string().len();
        let (got, answer) = shop.push(&server, "items", None, &body).await;
        assert_eq!(
            (got, answer["code"].as_str().unwrap_or_default()),
            (status, code),
            "{length}"
        );
    }
    let key = "k".repeat(256);
    let (got, answer) = shop.push(&server, "items", Some(&key), &json!({"id": 1})).await;
    assert_eq!(
        (got, answer["code"].as_str().unwrap()),
        (400, "idempotency_key_invalid")
    );
    assert_eq!(limits["idempotency_key_bytes_max"], 255);
    let examples = stream["examples"].as_array().unwrap();
    assert_eq!(examples.len(), 3);
    for example in examples {
        let method = Method::from_bytes(example["method"].as_str().unwrap().as_bytes()).unwrap();
        let mut request = client().request(method, at(&server, example["href"].as_str().unwrap()));
        for (name, value) in example["headers"].as_object().unwrap() {
            request = request.header(name, value.as_str().unwrap());
        }
        let request = request.body(example["body"].as_str().unwrap().to_owned());
        let (status, answer) = read(request.bearer_auth(&shop.token).send().await.unwrap()).await;
        assert_eq!(
            (json!(status), &answer["records"]),
            (example["answer"]["status"].clone(), &example["answer"]["records"])
        );
    }
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn r127_r131_the_catalog_leads_to_every_stream_and_one_that_ends_says_what_to_use_instead() {
    let shop = Shop::new("");
    let server = Server::start(&shop.project);
    let items = |catalog: &Value| -> Vec<String> {
        let items = catalog["linkset"][0]["item"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["href"].as_str().unwrap().to_owned())
            .collect()
    };
    let path = "/.well-known/api-catalog";
    let stranger = shop.document(&server, path, None).await;
    assert_eq!(items(&stranger), ["/v1/streams", "/v1/receipts"]);
    for relation in ["service-desc", "service-doc"] {
        for link in stranger["linkset"][0][relation].as_array().unwrap() {
            let href = link["href"].as_str().unwrap();
            let answer = client().get(at(&server, href)).send().await.unwrap();
            let media = answer.headers()["content-type"].to_str().unwrap();
            assert!(
                media.starts_with(link["type"].as_str().unwrap()),
                "{href}: {media}"
            );
        }
    }
    let catalog = shop.document(&server, path, Some(&shop.token)).await;
    let listed = shop.document(&server, "/v1/streams", Some(&shop.token)).await;
    let listed: Vec<String> = listed["streams"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stream| stream["href"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(listed.len(), 3);
    assert_eq!(items(&catalog)[2..], listed);

    let request = client()
        .post(at(&server, "/v1/streams/shop/log/records"))
        .bearer_auth(&shop.token)
        .header("content-type", "application/json")
        .body("{\"id\":1}");
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 202);
    assert_eq!(answer.headers()["deprecation"], "@1767225600");
    assert_eq!(answer.headers()["sunset"], "Tue, 01 Jan 2999 00:00:00 GMT");
    let links: Vec<&str> = answer
        .headers()
        .get_all("link")
        .iter()
        .map(|link| link.to_str().unwrap())
        .collect();
    let guide = "<https://wiki.shop.example/log>";
    assert_eq!(
        links,
        [
            format!("{guide}; rel=\"deprecation\""),
            format!("{guide}; rel=\"sunset\"")
        ]
    );
    server.stop();
    let text = fs::read_to_string(shop.project.path().join("landfall.yml")).unwrap();
    shop.project
        .write("landfall.yml", &text.replace("2999-01-01", "2026-02-01"));
    let server = Server::start(&shop.project);
    let (status, problem) = shop.push(&server, "log", None, &json!({"id": 2})).await;
    assert_eq!((status, &problem["code"]), (410, &json!("stream_gone")));
    server.stop();
    assert_eq!(shop.raw("log"), ["{\"id\":1}"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn r082_each_promise_about_delivery_is_kept() {
    let shop = Shop::new("");
    let server = Server::start(&shop.project);
    let stream = shop
        .document(&server, "/v1/streams/shop/items", Some(&shop.token))
        .await;
    let promises: BTreeSet<&str> = stream["delivery"]["promises"]
        .as_array()
        .unwrap()
        .iter()
        .map(|promise| promise["name"].as_str().unwrap())
        .collect();
    let mut kept = BTreeSet::new();

    let odd = json!({"id": 1, "updated": 3, "name": "Zoë \u{1F44B}", "n": 1.50});
    let (_, first) = shop.push(&server, "items", Some("\"a\""), &odd).await;
    let (status, again) = shop.push(&server, "items", Some("a"), &odd).await;
    assert_eq!((status, &first), (202, &again));
    kept.insert("once_for_an_idempotency_key");

    let twice = json!({"id": 1, "updated": 2, "name": "older"});
    for _ in 0..2 {
        let (status, _) = shop.push(&server, "items", None, &twice).await;
        assert_eq!(status, 202);
    }
    kept.insert("at_least_once");

    let hook = |server: &Server, id: &str| {
        client()
            .post(at(server, "/v1/webhooks/shop/hidden_events"))
            .header("x-secret", SECRET)
            .header("x-event", id)
            .body(format!("{{\"id\":\"{id}\"}}"))
            .send()
    };
    let (_, one) = read(hook(&server, "e1").await.unwrap()).await;
    let (_, same) = read(hook(&server, "e1").await.unwrap()).await;
    assert_eq!(
        (&one["receipt"], &same["duplicate"]),
        (&same["receipt"], &json!(true))
    );

    let bad = json!([{"id": 9}, 1]);
    let refused = client()
        .post(at(&server, "/v1/streams/shop/items/records?mode=atomic"))
        .bearer_auth(&shop.token)
        .header("content-type", "application/json")
        .body(bad.to_string());
    assert_eq!(refused.send().await.unwrap().status().as_u16(), 422);

    // What is acknowledged at this moment outlives the process.
    let (status, _) = shop
        .push(&server, "items", None, &json!({"id": 2, "updated": 1}))
        .await;
    assert_eq!(status, 202);
    server.signal("KILL");
    assert_eq!(server.end().0, None);
    let server = Server::start(&shop.project);
    let (status, again) = shop.push(&server, "items", Some("a"), &odd).await;
    assert_eq!((status, &first), (202, &again));
    let (_, same) = read(hook(&server, "e1").await.unwrap()).await;
    assert_eq!(same["duplicate"], true);
    server.stop();
    let [odd, twice] = [odd, twice].map(|record| record.to_string());
    assert_eq!(
        shop.raw("items"),
        [odd.as_str(), &twice, &twice, "{\"id\":2,\"updated\":1}"]
    );
    kept.extend([
        "durable_when_acknowledged",
        "kept_as_sent",
        "nothing_kept_when_refused",
    ]);
    assert_eq!(shop.raw("hidden_events"), ["{\"id\":\"e1\"}"]);
    kept.insert("once_for_an_event_id");

    shop.project.ok(&["run"]);
    let rows = shop
        .project
        .sql("SELECT id, updated, name FROM shop.items ORDER BY id");
    assert_eq!(
        rows,
        [
            json!({"id": 1, "updated": 3, "name": "Zoë \u{1F44B}"}),
            json!({"id": 2, "updated": 1, "name": null})
        ]
    );
    kept.insert("one_row_for_a_key");
    assert_eq!(promises, kept);
}
