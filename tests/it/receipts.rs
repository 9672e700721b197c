//! What became of deliveries, as those who sent them and those who keep the lake ask for it over HTTP.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::support::project::{TestProject, items_contract};

/// How often something is asked for that comes by itself.
const LOOK_EVERY: Duration = Duration::from_millis(20);

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

const COLUMNS: &str = "
      - { name: id, logicalType: integer, required: true, primaryKey: true }
      - { name: updated, logicalType: integer, required: true }
      - { name: name, logicalType: string, required: true, classification: restricted }
";

/// A server of its own process, and those who know it.
struct Served {
    project: TestProject,
    process: Child,
    url: String,
    client: reqwest::Client,
    /// May send and read.
    checkout: String,
    /// May send.
    sender: String,
    /// May read and administer.
    keeper: String,
    /// May read another stream.
    other: String,
}

/// What was answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{self:?}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The status and the code of the problem.
    fn problem(&self) -> (u16, String) {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        (self.status, self.json()["code"].as_str().unwrap().to_owned())
    }
}

fn token(project: &TestProject) -> (String, String) {
    let made = project.ok(&["token"]);
    let hash = made.stderr.trim().strip_prefix("hash: ").unwrap().to_owned();
    (made.stdout.trim().to_owned(), hash)
}

fn start(project: &TestProject) -> (Child, String) {
    let mut process = project
        .command(&["serve"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    let url = lines.find_map(|line| Some(line.unwrap().strip_prefix("producers")?.trim().to_owned()));
    // Read on, or the server could not say more.
    std::thread::spawn(move || lines.for_each(drop));
    (process, url.unwrap())
}

impl Served {
    /// A server whose stream `shop.items` is pushed as `push` says.
    fn start(push: &str) -> Self {
        let project = TestProject::new("http://127.0.0.1:9", "\n");
        let tokens: Vec<(String, String)> = (0..4).map(|_| token(&project)).collect();
        let hash = |at: usize| format!("tokens: {{ main: {{ hash: '{}' }} }}", tokens[at].1);
        let text = format!(
            "lake: ./lake
serve: {{ listen: '127.0.0.1:0', admin_listen: '127.0.0.1:0' }}
producers:
  checkout: {{ scopes: [ingest, read], streams: ['shop.*'], {} }}
  sender: {{ scopes: [ingest], streams: ['shop.*'], {} }}
  keeper: {{ scopes: [read, admin], streams: ['shop.*'], {} }}
  other: {{ scopes: [read], streams: [shop.hooks], {} }}
sources:
  shop:
    streams:
      items:
        push: {push}
        table: {{ keys: [id], sequence_by: [updated] }}
      hooks:
        webhook: {{ scheme: shared_secret, header: X-Token, event_id: 'header:X-Event', secrets: {{ main: '${{file:secret}}' }} }}
        table: {{ keys: [id] }}
",
            hash(0),
            hash(1),
            hash(2),
            hash(3)
        );
        project.write("landfall.yml", &text);
        project.write("secret", "a secret of the sender");
        project.write(
            "contracts/shop.items.odcs.yaml",
            &items_contract("1.0.0", COLUMNS),
        );
        let (process, url) = start(&project);
        let [checkout, sender, keeper, other] =
            <[_; 4]>::try_from(tokens.into_iter().map(|(token, _)| token).collect::<Vec<_>>()).unwrap();
        Self {
            project,
            process,
            url,
            client: reqwest::Client::new(),
            checkout,
            sender,
            keeper,
            other,
        }
    }

    /// Asks it to end, and waits for that.
    fn stop(&mut self) {
        // The shell's own: not every machine has a program for it.
        let kill = format!("kill -TERM {}", self.process.id());
        let sent = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(sent.success());
        assert_eq!(self.process.wait().unwrap().code(), Some(0));
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let answer = request.send().await.unwrap();
        Answer {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            text: answer.text().await.unwrap(),
        }
    }

    async fn get_as(&self, token: &str, path: &str) -> Answer {
        let request = self.client.get(format!("{}{path}", self.url));
        self.send(request.bearer_auth(token)).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.get_as(&self.checkout, path).await
    }

    fn records(&self, body: &Value) -> reqwest::RequestBuilder {
        self.client
            .post(format!("{}/v1/streams/shop/items/records", self.url))
            .bearer_auth(&self.checkout)
            .header("content-type", "application/json")
            .body(body.to_string())
    }

    /// Sends a request and returns the receipt once it is landed.
    async fn landed(&self, request: reqwest::RequestBuilder) -> Value {
        let answer = self.send(request).await;
        assert!(answer.status < 300, "{answer:?}");
        let path = format!("/v1/receipts/{}", answer.json()["receipt"].as_str().unwrap());
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            let receipt = self.get(&path).await.json();
            if receipt["stage"] != "spooled" {
                return receipt;
            }
            look.tick().await;
        }
    }

    /// The same receipt as it is now.
    async fn again(&self, receipt: &Value) -> Answer {
        let path = format!("/v1/receipts/{}", receipt["receipt"].as_str().unwrap());
        self.get(&path).await
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r138_the_trace_of_a_request_is_in_raw_the_load_and_the_commit_and_its_receipt_tells_each_record() {
    let served = Served::start("{}");
    let body = json!([
        {"id": 1, "updated": 1, "name": "one"},
        {"id": 2, "updated": 1, "name": 7},
        {"id": 3, "updated": 1},
        {"id": 4, "updated": 1, "name": "four"},
    ]);
    let traced = |body: &Value| {
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        served.records(body).header("traceparent", parent)
    };
    let receipt = served.landed(traced(&body)).await;
    assert_eq!(
        (&receipt["stage"], &receipt["trace_id"], receipt.get("load")),
        (&json!("landed"), &json!(TRACE), None)
    );
    let ran = served.project.ok(&["-v", "transform", "shop.items"]);
    let link = ran.stderr.lines().find(|line| line.contains("load linked"));
    assert!(link.is_some_and(|line| line.contains(TRACE)), "{}", ran.stderr);

    let receipt = served.again(&receipt).await.json();
    assert_eq!(
        (&receipt["stage"], &receipt["trace_id"]),
        (&json!("transformed"), &json!(TRACE))
    );
    assert_eq!(
        receipt["records"],
        json!({"read": 4, "merged": 2, "quarantined": 2})
    );
    assert_eq!(
        receipt["results"],
        json!([
            {"index": 1, "code": "type_mismatch", "path": "name"},
            {"index": 2, "code": "required_missing", "path": "name"},
        ])
    );
    assert_eq!(
        receipt["quarantined"],
        json!([
            {"code": "required_missing", "path": "name", "records": 1},
            {"code": "type_mismatch", "path": "name", "records": 1},
        ])
    );
    assert_eq!(receipt["load"]["contract_version"], "1.0.0");
    let listed = served.get("/v1/receipts?stream=shop.items").await.json();
    assert_eq!(listed["receipts"][0]["receipt"], receipt["receipt"]);
    assert_eq!(listed["receipts"][0]["stage"], "transformed");

    // The commit that the receipt names is that of the load, and names the trace.
    let version = receipt["load"]["table_version"].as_u64().unwrap();
    let commit = format!("lake/tables/shop/items/_delta_log/{version:020}.json");
    let commit = std::fs::read_to_string(served.project.path().join(commit)).unwrap();
    let info = commit
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find_map(|line| line.get("commitInfo").cloned())
        .unwrap();
    assert_eq!(info["landfallTraces"], json!([TRACE]));
    assert_eq!(info["landfallLoad"], receipt["load"]["load_id"]);
    let explained = served.project.ok(&["explain", "shop.items", "1"]).stdout;
    assert!(explained.contains(TRACE) && explained.contains(receipt["receipt"].as_str().unwrap()));

    // Another load moves the table on; what became of the first stands.
    let next = served
        .landed(served.records(&json!({"id": 5, "updated": 1, "name": "five"})))
        .await;
    served.project.ok(&["transform", "shop.items"]);
    let next = served.again(&next).await.json();
    assert_eq!(next["records"], json!({"read": 1, "merged": 1, "quarantined": 0}));
    assert!(next.get("results").is_none() && next["load"]["table_version"].as_u64().unwrap() > version);
    let first = served.again(&receipt).await.json();
    assert_eq!(
        (&first["load"], &first["results"]),
        (&receipt["load"], &receipt["results"])
    );
    // A stream that one may not see has no receipts.
    let path = format!("/v1/receipts/{}", receipt["receipt"].as_str().unwrap());
    assert_eq!(
        served.get_as(&served.other, &path).await.problem(),
        (404, "receipt_not_found".to_owned())
    );
    assert_eq!(
        served.get_as(&served.sender, &path).await.problem(),
        (403, "forbidden".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn f082_an_id_with_another_body_is_flagged_in_raw_and_whoever_asks_sees_it() {
    let served = Served::start("{}");
    let hook = |id: u32| {
        served
            .client
            .post(format!("{}/v1/webhooks/shop/hooks", served.url))
            .header("x-token", "a secret of the sender")
            .header("x-event", "evt_1")
            .header("content-type", "application/json")
            .body(json!({ "id": id }).to_string())
    };
    let first = served.landed(hook(1)).await;
    let second = served.landed(hook(2)).await;
    assert_ne!(first["receipt"], second["receipt"]);
    assert_eq!(
        (first.get("id_reuse"), second.get("id_reuse")),
        (None, Some(&json!(true)))
    );
    served.project.ok(&["transform", "shop.hooks"]);
    // It is no duplicate: its record is in the table.
    assert_eq!(
        served.project.rows("shop.hooks"),
        [json!({"id": 1}), json!({"id": 2})]
    );
    let told = |id: &str| served.project.ok(&["explain", "shop.hooks", id]).stdout;
    assert!(!told("1").contains("event id used"));
    assert!(told("2").contains("event id used"), "{}", told("2"));
    assert_eq!(served.again(&second).await.json()["stage"], "transformed");
}

/// Every entry of the list at `path`, a page of one at a time; `between` is done after the first.
async fn pages(served: &Served, path: &str, name: &str, between: impl AsyncFnOnce()) -> Vec<Value> {
    let mut between = Some(between);
    let mut found: Vec<Value> = Vec::new();
    let mut next = format!("{path}?limit=1");
    for _ in 0..20 {
        let page = served.get(&next).await;
        assert_eq!(page.status, 200, "{page:?}");
        assert!(page.header("ratelimit").is_some() && page.header("ratelimit-policy").is_some());
        let page = page.json();
        let entries = page[name].as_array().unwrap();
        assert!(entries.len() <= 1);
        found.extend(entries.iter().cloned());
        if let Some(between) = between.take() {
            between().await;
        }
        let Some(cursor) = page["next"].as_str() else {
            break;
        };
        next = format!("{path}?limit=1&cursor={cursor}");
    }
    let moments: Vec<&str> = found
        .iter()
        .map(|entry| entry["updated_at"].as_str().unwrap())
        .collect();
    assert!(moments.is_sorted(), "{moments:?}");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn r098_contracts_quarantine_and_drift_are_listed_by_their_last_change() {
    let served = Served::start("{}");
    let of_items = |list: &str| format!("/v1/streams/shop/items/{list}");
    // Before anything was loaded.
    for list in ["contracts", "quarantine", "drift"] {
        let empty = served.get(&of_items(list)).await;
        assert_eq!((empty.status, empty.json()), (200, json!({ list: [] })));
    }
    let load = async |body: Value| {
        served.landed(served.records(&body)).await;
        served.project.ok(&["transform", "shop.items"]);
    };
    load(json!([
        {"id": 1, "updated": 1, "name": "one", "color": "red"},
        {"id": 2, "updated": 1, "name": {"first": "hidden"}},
        {"id": 3, "updated": 1, "size": 3},
    ]))
    .await;

    // What is added while the list is read comes at its end.
    let third = json!([{"id": 4, "updated": "x", "name": "hidden"}, {"id": 5, "updated": 2, "name": "five"}]);
    let kinds = pages(&served, &of_items("quarantine"), "quarantine", async || {
        load(third).await
    })
    .await;
    let told: Vec<_> = kinds
        .iter()
        .map(|kind| (&kind["code"], &kind["path"], &kind["records"]))
        .collect();
    assert_eq!(told.len(), 3, "{kinds:?}");
    assert!(told[..2].contains(&(&json!("type_mismatch"), &json!("name"), &json!(1))));
    assert!(told[..2].contains(&(&json!("required_missing"), &json!("name"), &json!(1))));
    assert_eq!(told[2], (&json!("type_mismatch"), &json!("updated"), &json!(1)));
    assert_eq!(
        (&kinds[2]["batch_first"], &kinds[2]["batch_last"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(kinds[2]["sample"], json!({"at": "1/0/0"}));
    assert!(
        !format!("{kinds:?}").contains("hidden"),
        "a classified value: {kinds:?}"
    );

    // From a moment on.
    let since = kinds[2]["updated_at"].as_str().unwrap();
    let later = served
        .get(&format!("{}?updated_at_gte={since}", of_items("quarantine")))
        .await;
    assert_eq!(later.json()["quarantine"], json!([kinds[2]]));
    // Known already.
    let tag = later.header("etag").unwrap().to_owned();
    let request = served
        .client
        .get(format!(
            "{}{}?updated_at_gte={since}",
            served.url,
            of_items("quarantine")
        ))
        .bearer_auth(&served.checkout);
    let same = served.send(request.header("if-none-match", &tag)).await;
    assert_eq!(
        (same.status, same.text.as_str(), same.header("etag")),
        (304, "", Some(tag.as_str()))
    );

    // Records of others are for those who may administer, and what is classified for nobody.
    let with_samples = format!("{}?samples=true", of_items("quarantine"));
    assert_eq!(
        served.get(&with_samples).await.problem(),
        (403, "forbidden".to_owned())
    );
    let samples = served.get_as(&served.keeper, &with_samples).await;
    assert_eq!(samples.status, 200, "{samples:?}");
    assert!(!samples.text.contains("hidden"), "{samples:?}");
    let record = samples.json()["quarantine"][2]["sample"]["record"]
        .as_str()
        .unwrap()
        .to_owned();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record, json!({"id": 4, "updated": "x", "name": "****"}));

    let fourth = json!({"id": 6, "updated": 3, "name": "six", "weight": 1});
    let drift = pages(&served, &of_items("drift"), "drift", async || load(fourth).await).await;
    let unknown = |path: &str| {
        let is = |change: &&Value| change["path"] == path && change["state"] == "open";
        drift.iter().filter(is).count()
    };
    assert_eq!(
        (unknown("color"), unknown("size"), unknown("weight")),
        (1, 1, 1),
        "{drift:?}"
    );
    // A change that was acknowledged has changed.
    let color = drift.iter().find(|change| change["path"] == "color").unwrap();
    served
        .project
        .ok(&["drift", "ack", "shop.items", "color", "--note", "known"]);
    let last = served.get(&of_items("drift")).await.json()["drift"]
        .as_array()
        .unwrap()
        .last()
        .cloned();
    let last = last.unwrap();
    assert_eq!(
        (&last["path"], &last["state"], &last["note"]),
        (&json!("color"), &json!("acknowledged"), &json!("known"))
    );
    assert!(last["updated_at"].as_str() > color["updated_at"].as_str());

    let deprecated = items_contract("1.0.0", COLUMNS)
        .replace("1.0.0", "1.1.0")
        .replace("status: active", "status: deprecated")
        + "      - { name: color, logicalType: string }\n";
    served
        .project
        .write("contracts/shop.items.odcs.yaml", &deprecated);
    let fifth = json!({"id": 7, "updated": 3, "name": "seven"});
    let versions = pages(&served, &of_items("contracts"), "contracts", async || {}).await;
    assert_eq!(versions.len(), 1);
    load(fifth).await;
    let versions = pages(&served, &of_items("contracts"), "contracts", async || {}).await;
    let told: Vec<_> = versions
        .iter()
        .map(|one| (&one["version"], &one["status"]))
        .collect();
    assert_eq!(
        told,
        [
            (&json!("1.0.0"), &json!("active")),
            (&json!("1.1.0"), &json!("deprecated"))
        ]
    );
    let text = served.get(versions[1]["href"].as_str().unwrap()).await;
    assert_eq!(
        (text.status, text.header("content-type")),
        (200, Some("application/yaml"))
    );
    assert_eq!(text.text, deprecated);
    let none = served.get(&of_items("contracts/9.9.9")).await;
    assert_eq!(none.problem(), (404, "not_found".to_owned()));

    for list in ["contracts", "quarantine", "drift"] {
        let path = of_items(list);
        assert_eq!(
            served.get_as(&served.sender, &path).await.problem(),
            (403, "forbidden".to_owned())
        );
        assert_eq!(
            served.get_as(&served.other, &path).await.problem(),
            (403, "forbidden".to_owned())
        );
        for (query, pointer) in [
            ("cursor=x", "cursor"),
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("updated_at_gte=now", "updated_at_gte"),
        ] {
            let answer = served.get(&format!("{path}?{query}")).await;
            assert_eq!(answer.problem(), (400, "invalid_request".to_owned()));
            assert_eq!(answer.json()["errors"][0]["pointer"], pointer);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r129_a_stream_says_where_in_its_life_it_is_on_each_of_its_endpoints() {
    let mut served = Served::start("{ deprecated: 2020-01-01, sunset: 2999-01-01 }");
    let status = async |served: &Served| {
        let streams = served.get("/v1/streams").await.json()["streams"].clone();
        let of = |name: &str| {
            let streams = streams.as_array().unwrap();
            streams.iter().find(|stream| stream["stream"] == name).unwrap()["status"].clone()
        };
        (of("shop.items"), of("shop.hooks"))
    };
    assert_eq!(status(&served).await, (json!("deprecated"), json!("active")));
    let receipt = served
        .landed(served.records(&json!({"id": 1, "updated": 1, "name": "one"})))
        .await;
    let stream = served.get("/v1/streams/shop/items").await;
    let about = |name: &str| stream.json()[name].as_str().unwrap().to_owned();
    let mut answers = vec![
        served
            .send(served.records(&json!({"id": 2, "updated": 1, "name": "two"})))
            .await,
        served.again(&receipt).await,
    ];
    for list in ["contracts", "quarantine", "drift"] {
        answers.push(served.get(&about(list)).await);
    }
    answers.push(stream);
    for answer in &answers {
        assert!(answer.status < 300, "{answer:?}");
        assert_eq!(answer.header("deprecation"), Some("@1577836800"), "{answer:?}");
        assert_eq!(answer.header("sunset"), Some("Tue, 01 Jan 2999 00:00:00 GMT"));
    }
    let other = served.get("/v1/streams/shop/hooks/quarantine").await;
    assert_eq!((other.status, other.header("deprecation")), (200, None));

    served.stop();
    let text = std::fs::read_to_string(served.project.path().join("landfall.yml")).unwrap();
    served
        .project
        .write("landfall.yml", &text.replace("2999-01-01", "2020-02-01"));
    (served.process, served.url) = start(&served.project);
    assert_eq!(status(&served).await, (json!("sunset"), json!("active")));
    let gone = served
        .send(served.records(&json!({"id": 3, "updated": 1, "name": "three"})))
        .await;
    assert_eq!(gone.problem(), (410, "stream_gone".to_owned()));
    assert!(gone.header("sunset").is_some() && gone.header("deprecation").is_some());
    // What it took is still told about.
    assert_eq!(served.again(&receipt).await.json()["stage"], "landed");
}

#[tokio::test(flavor = "multi_thread")]
async fn r086_the_same_mistake_has_the_same_answer_and_each_class_a_type_of_its_own() {
    let served = Served::start("{ records_max: 2 }");
    let post = |kind: &str, body: &str| {
        served
            .client
            .post(format!("{}/v1/streams/shop/items/records", served.url))
            .header("content-type", kind)
            .body(body.to_owned())
    };
    let asks = |path: &str| {
        served
            .client
            .get(format!("{}{path}", served.url))
            .bearer_auth(&served.checkout)
    };
    let as_checkout = |request: reqwest::RequestBuilder| request.bearer_auth(&served.checkout);
    let json = "application/json";
    let mistakes: [(&str, &dyn Fn() -> reqwest::RequestBuilder); 8] = [
        ("auth 401 unauthenticated", &|| post(json, "{}")),
        ("auth 403 forbidden", &|| {
            asks("/v1/streams/shop/items/quarantine?samples=true")
        }),
        ("request 400 invalid_request", &|| {
            asks("/v1/streams/shop/items/drift?cursor=0")
        }),
        ("serialization 400 body_malformed", &|| {
            as_checkout(post(json, "{\"id\":"))
        }),
        ("serialization 415 unsupported_media_type", &|| {
            as_checkout(post("text/csv", "id"))
        }),
        ("limit 413 too_many_records", &|| {
            as_checkout(post(json, "[{},{},{}]"))
        }),
        ("idempotency 400 idempotency_key_invalid", &|| {
            as_checkout(post(json, "{}")).header("idempotency-key", "\"")
        }),
        ("not_found 404 stream_not_found", &|| {
            asks("/v1/streams/shop/nothing/contracts")
        }),
    ];
    for (expected, mistake) in mistakes {
        let document = async || {
            let mut document = served.send(mistake()).await.json();
            document.as_object_mut().unwrap().remove("request_id").unwrap();
            document
        };
        let first = document().await;
        let code = first["code"].as_str().unwrap();
        assert_eq!(
            format!("{} {} {code}", first["class"].as_str().unwrap(), first["status"]),
            expected
        );
        assert!(
            first["type"]
                .as_str()
                .unwrap()
                .ends_with(&format!("/docs#{code}"))
        );
        assert_eq!(first, document().await, "{expected}");
    }
}
