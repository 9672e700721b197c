//! Versions of contracts that several register at once, and contracts that mean harm.

use std::{
    io::ErrorKind,
    net::TcpListener,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    api::Api,
    hooks::project,
    project::{ITEMS, ITEMS_CONTRACT, Ran, TestProject},
    serving::Server,
};

const FILE: &str = "contracts/shop.items.odcs.yaml";

/// How long between a look at what is registered and the next step, so that several processes look at the same time.
const BETWEEN: &str = "contract::before_append=delay(800)";

/// Longest that a contract may keep anybody waiting.
const PATIENCE: Duration = Duration::from_secs(60);

/// Projects of one lake.
fn projects(api: &Api, count: usize) -> Vec<TestProject> {
    let first = TestProject::items(&api.base_url);
    let lake = format!("lake: {}", first.path().join("lake").display());
    let others = (1..count).map(|_| {
        let project = TestProject::with_lake(&api.base_url, ITEMS, &lake);
        project.write(FILE, ITEMS_CONTRACT);
        project
    });
    let others: Vec<TestProject> = others.collect();
    [first].into_iter().chain(others).collect()
}

/// Runs the loads of all `projects` side by side, each a process, and returns how each ended.
fn at_once(projects: &[&TestProject]) -> Vec<Ran> {
    let started: Vec<Child> = projects
        .iter()
        .map(|project| {
            let mut command = project.command(&["transform"]);
            command.env("FAILPOINTS", BETWEEN);
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    started
        .into_iter()
        .map(|child| Ran::from(child.wait_with_output().unwrap()))
        .collect()
}

fn versions(project: &TestProject) -> Vec<Value> {
    let ran = project.ok(&["contract", "versions", "shop.items", "--format", "json"]);
    let rows = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.map(|row| row["version"].clone()).collect()
}

/// The contract as `version`, with a column more, as it is compared with those before it.
fn contract(version: &str, column: &str) -> String {
    let strict = "customProperties: [{ property: compatibility, value: backward }]\nschema:";
    let text = ITEMS_CONTRACT
        .replace("1.0.0", version)
        .replace("schema:", strict);
    format!("{text}      - {{ name: {column}, logicalType: string }}\n")
}

#[test]
fn f111_contracts_that_are_registered_at_once_have_a_version_each_and_one_that_breaks_is_refused_with_the_difference()
 {
    let api = Api::start(vec![json!({"id": 1, "updated": 1, "name": "one"})]);
    let projects = projects(&api, 3);
    let [a, b, c] = [0, 1, 2].map(|at| &projects[at]);
    a.ok(&["extract"]);
    // The same contract from three sides, before there is a table of contracts. Whose load comes second may say so.
    at_once(&[a, b, c]);
    a.ok(&["transform"]);
    assert_eq!(versions(a), ["1.0.0"]);

    // Two others from two sides, under one number.
    a.write(FILE, &contract("1.1.0", "note"));
    b.write(FILE, &contract("1.1.0", "remark"));
    let ended = at_once(&[a, b]);
    let codes: Vec<Option<i32>> = ended.iter().map(|ran| ran.code).collect();
    assert!(
        codes == [Some(0), Some(3)] || codes == [Some(3), Some(0)],
        "{ended:?}"
    );
    assert_eq!(versions(a), ["1.0.0", "1.1.0"]);
    let refused = ended.iter().find(|ran| ran.code == Some(3)).unwrap();
    for word in ["version 1.1.0, which is taken", "column_added", "note", "remark"] {
        assert!(refused.stderr.contains(word), "{word}: {}", refused.stderr);
    }

    // Under numbers of their own both stand, however close they come, each compared with the other.
    let (first, second) = match codes[0] {
        Some(0) => (a, b),
        _ => (b, a),
    };
    let columns = |project: &TestProject| {
        if std::ptr::eq(project, a) {
            ["note", "remark"]
        } else {
            ["remark", "note"]
        }
    };
    let [kept, other] = columns(first);
    let both = |version: &str, more: &str| {
        contract(version, kept) + &format!("      - {{ name: {other}, logicalType: string }}\n{more}")
    };
    first.write(FILE, &both("1.2.0", ""));
    second.write(
        FILE,
        &both("1.3.0", "      - { name: more, logicalType: string }\n"),
    );
    let ended = at_once(&[first, second]);
    // The one that comes second has a column less than the other if it is 1.2.0: that is refused with the difference.
    let kept_now = versions(a);
    match ended[0].code {
        Some(0) => assert_eq!(kept_now, ["1.0.0", "1.1.0", "1.2.0", "1.3.0"], "{ended:?}"),
        code => {
            assert_eq!(code, Some(3), "{ended:?}");
            assert!(ended[0].stderr.contains("column_removed more"), "{ended:?}");
            assert_eq!(kept_now, ["1.0.0", "1.1.0", "1.3.0"]);
        }
    }
    assert_eq!(ended[1].code, Some(0), "{ended:?}");

    // What breaks is refused, and neither a version nor a row comes of it.
    api.upsert(vec![json!({"id": 2, "updated": 2, "name": "two"})]);
    first.ok(&["extract"]);
    let broken = both("2.0.0", "").replace(
        "{ name: name, logicalType: string",
        "{ name: name, logicalType: integer",
    );
    first.write(FILE, &broken);
    let ran = first.run(&["transform"]);
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    for word in [
        "register contract",
        "type_changed name: string → integer",
        "compatibility",
    ] {
        assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr);
    }
    assert_eq!(versions(a), kept_now);
    assert_eq!(first.sql("SELECT id FROM shop.items"), [json!({"id": 1})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn f112_a_contract_that_means_harm_is_refused_or_bounded_and_asks_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let there = format!("http://{}/schema.json", listener.local_addr().unwrap());
    let (made, token) = project("      items: { push: { on_violation: reject }, table: { keys: [id] } }\n");
    let column =
        |rest: &str| format!("{ITEMS_CONTRACT}      - {{ name: more, logicalType: string, {rest} }}\n");
    let pattern = |text: &str| column(&format!("logicalTypeOptions: {{ pattern: '{text}' }}"));
    let refused = [
        (
            "a reference over HTTP",
            column(&format!("$ref: '{there}'")),
            "$ref",
        ),
        (
            "a reference to a file",
            column("$ref: 'file:///etc/hostname'"),
            "$ref",
        ),
        (
            "a reference to itself",
            column("$ref: '#/schema/0/properties/0'"),
            "$ref",
        ),
        (
            "a schema elsewhere",
            ITEMS_CONTRACT.replace("schema:\n", &format!("$schema: '{there}'\nschema:\n")),
            "$schema",
        ),
        (
            "an alias of itself",
            format!("{ITEMS_CONTRACT}tags: &a [*a]\n"),
            "anchor",
        ),
        (
            "aliases of aliases",
            format!("{ITEMS_CONTRACT}a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\ntags: [*c, *c]\n"),
            "anchor",
        ),
        (
            "a pattern that grows",
            pattern("((a{1000}){1000}){1000}"),
            "pattern",
        ),
        ("a pattern that looks back", pattern("(a)\\1"), "cannot be read"),
        (
            "10 MB",
            format!("{ITEMS_CONTRACT}# {}\n", "x".repeat(10 << 20)),
            "bytes allowed",
        ),
        (
            "depth",
            format!(
                "{ITEMS_CONTRACT}tags: {}{}\n",
                "[".repeat(50_000),
                "]".repeat(50_000)
            ),
            FILE,
        ),
    ];
    let file = made.path().join(FILE).display().to_string();
    for (case, text, word) in refused {
        made.write(FILE, &text);
        let began = Instant::now();
        for arguments in [&["check"][..], &["contract", "export", &file]] {
            let ran = made.run(arguments);
            assert!(matches!(ran.code, Some(1..=3)), "{case}: {ran:?}");
            let said = ran.stdout + &ran.stderr;
            assert!(said.contains(word), "{case}, {arguments:?}: {said}");
            assert!(said.len() < 64 << 10, "{case}: {} bytes are said", said.len());
        }
        assert!(began.elapsed() < PATIENCE, "{case}");
    }
    // One that never ends is not read to its end.
    let ran = made.run(&["contract", "export", "/dev/zero"]);
    assert!(matches!(ran.code, Some(1..=3)), "{ran:?}");
    assert!(ran.stderr.contains("bytes allowed"), "{ran:?}");

    // What the standard allows to point elsewhere is read past, and a pattern takes no longer the more it could match.
    let elsewhere = format!(
        "authoritativeDefinitions: [{{ type: schema, url: '{there}' }}]\nservers: [{{ server: main, type: api, location: '{there}' }}]\nschema:\n"
    );
    let text = pattern("^(([a-z]+)*)*(a|a)*(.*.*.*)+!$").replace("schema:\n", &elsewhere);
    made.write(FILE, &text);
    made.ok(&["check"]);
    let server = Server::start(&made);
    let client = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
    for (end, rejected) in [("!", 0), ("?", 1)] {
        let record = json!({"id": 1, "updated": 1, "name": "x", "more": "a".repeat(200_000) + end});
        let request = client
            .post(format!("{}/v1/streams/shop/items/records", server.producers))
            .bearer_auth(&token)
            .header("content-type", "application/json")
            .body(record.to_string());
        let answer = request.send().await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        let found = answer["records"]["rejected"].as_u64().unwrap_or(u64::from(
            answer["code"] == "contract_violation" || answer["code"] == "batch_rejected",
        ));
        assert_eq!(found, rejected, "{answer}");
    }
    let openapi = client
        .get(format!("{}/openapi.json", server.producers))
        .bearer_auth(&token);
    assert_eq!(openapi.send().await.unwrap().status().as_u16(), 200);
    server.stop();
    made.ok(&["run"]);
    let asked = listener.accept().map(|_| ());
    assert_eq!(asked.unwrap_err().kind(), ErrorKind::WouldBlock);
}
