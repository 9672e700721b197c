//! What `landfall serve` lives through: kills, signals, a lake that is away, strangers with certificates.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use reqwest::{Client, tls::Version};
use serde_json::json;

use crate::support::{certificates::Authority, project::TestProject, s3, serving::Server};

/// Two streams that anybody on this machine may push to.
pub const OPEN: &str = "
serve:
  listen: 127.0.0.1:0
  admin_listen: 127.0.0.1:0
  spool: { segment_age: 100ms }
sources:
  shop:
    streams:
      items: { push: {}, table: { keys: [id] } }
      carts: { push: {}, table: { keys: [id] } }
";

/// Producers that send at once.
const PRODUCERS: usize = 6;

pub fn project(lake: &str, text: &str) -> TestProject {
    let project = TestProject::new("http://127.0.0.1:9", "\n");
    project.write("landfall.yml", &format!("{lake}\n{text}"));
    project
}

/// Sends one record with its id as its key; returns the status, or nothing if there is no answer.
pub async fn send(client: &Client, producers: &str, stream: &str, id: &str) -> Option<u16> {
    let sent = client
        .post(format!("{producers}/v1/streams/shop/{stream}/records"))
        .header("content-type", "application/json")
        .header("idempotency-key", id)
        .body(json!([{ "id": id }]).to_string())
        .send()
        .await;
    Some(sent.ok()?.status().as_u16())
}

/// The ids in the raw log of a stream; each must stand there once.
pub fn landed(project: &TestProject, stream: &str) -> BTreeSet<String> {
    let rows = project.sql(&format!("SELECT record FROM shop.{stream}__raw"));
    let mut ids = BTreeSet::new();
    for row in rows {
        let record: serde_json::Value = serde_json::from_str(row["record"].as_str().unwrap()).unwrap();
        let id = record["id"].as_str().unwrap().to_owned();
        assert!(ids.insert(id), "twice: {record}");
    }
    ids
}

#[test]
fn r090_kill_9_under_producers_loses_nothing_and_lands_nothing_twice() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/kills.py");
    let ran = Command::new("python3")
        .args([script, env!("CARGO_BIN_EXE_landfall"), "--kills", "13"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    let result: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((&result["lost"], &result["twice"]), (&json!(0), &json!(0)));
    assert!(result["acknowledged"].as_u64() > Some(60), "{result}");
}

#[tokio::test(flavor = "multi_thread")]
async fn f108_sigterm_under_load_ends_well_and_what_was_acknowledged_lands() {
    let project = project("lake: ./lake", OPEN);
    // Told to end; then told and killed.
    for kill in [false, true] {
        let server = Server::start(&project);
        let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
        let (enough, mut reached) = tokio::sync::watch::channel(0);
        let sending: Vec<_> = (0..PRODUCERS)
            .map(|producer| {
                let (producers, acknowledged) = (server.producers.clone(), Arc::clone(&acknowledged));
                let (client, enough) = (Client::new(), enough.clone());
                tokio::spawn(async move {
                    for number in 0.. {
                        let id = format!("{kill}-{producer}-{number}");
                        match send(&client, &producers, "items", &id).await {
                            Some(202) => {
                                acknowledged.lock().unwrap().insert(id);
                                enough.send_modify(|count| *count += 1);
                            }
                            // It is said that it ends; later nobody is there.
                            Some(503) | None => return,
                            Some(status) => panic!("{status}"),
                        }
                    }
                })
            })
            .collect();
        reached.wait_for(|count| *count >= 60).await.unwrap();
        server.signal("TERM");
        if kill {
            server.signal("KILL");
        }
        let (code, said) = server.end();
        assert_eq!(code, (!kill).then_some(0), "{said}");
        for producer in sending {
            producer.await.unwrap();
        }
        if kill {
            Server::start(&project).stop();
        }
        let landed = landed(&project, "items");
        let acknowledged = acknowledged.lock().unwrap();
        assert!(acknowledged.len() >= 60);
        let lost: Vec<_> = acknowledged.difference(&landed).collect();
        assert!(lost.is_empty(), "{lost:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f106_a_lake_that_is_away_for_several_attempts_gets_everything_when_it_is_back() {
    let lake = s3::start().await;
    let project = project(&lake.lake("away"), OPEN);
    let server = Server::start(&project);
    let client = Client::new();
    for stream in ["items", "carts"] {
        assert_eq!(
            send(&client, &server.producers, stream, "before").await,
            Some(202)
        );
    }
    let away = 0..u64::MAX / 2;
    lake.slow_down(std::slice::from_ref(&away));
    let (_, refused_before) = lake.requests();
    // A burst, while nothing goes on: it is taken at the speed of the disk.
    let mut sent = 1;
    loop {
        for stream in ["items", "carts"] {
            let id = format!("away-{sent}");
            assert_eq!(send(&client, &server.producers, stream, &id).await, Some(202));
        }
        sent += 1;
        let (_, refused) = lake.requests();
        if refused - refused_before >= 12 && sent > 300 {
            break;
        }
    }
    lake.slow_down(&[]);
    // Kept through an end, too: what is left then is for the next one.
    let drained = async |server: &Server| {
        loop {
            let metrics = client
                .get(format!("{}/metrics", server.admin))
                .send()
                .await
                .unwrap();
            if metrics
                .text()
                .await
                .unwrap()
                .contains("\nlandfall_spool_segments 0\n")
            {
                return;
            }
        }
    };
    assert_eq!(
        send(&client, &server.producers, "items", "after").await,
        Some(202)
    );
    drained(&server).await;
    tokio::task::spawn_blocking(move || {
        server.stop();
        let items = landed(&project, "items");
        assert_eq!((items.len(), landed(&project, "carts").len()), (sent + 1, sent));
        assert!(items.contains("before") && items.contains("after"));
    })
    .await
    .unwrap();
}

#[test]
fn what_is_pushed_is_loaded_on_schedule_and_it_is_said_once_that_nothing_is_asked_for_it() {
    let text = OPEN.replace("items: { push: {},", "items: { push: {}, schedule: 1s,");
    let project = project("lake: ./lake", &text);
    let server = Server::start(&project);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let sent = runtime.block_on(send(&Client::new(), &server.producers, "items", "1"));
    assert_eq!(sent, Some(202));
    server.stop();
    let mut process = project
        .command(&["run", "--watch"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(process.stderr.take().unwrap()).lines();
    let mut said = Vec::new();
    for line in lines {
        said.push(line.unwrap());
        let runs = said.iter().filter(|line| line.contains("nothing new to load"));
        if runs.count() == 2 {
            break;
        }
    }
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(
        said.iter()
            .any(|line| line.starts_with("shop.items  loaded 1 read")),
        "{said:?}"
    );
    let told = said
        .iter()
        .filter(|line| line.contains("shop.items  is fed by producers"));
    assert_eq!(told.count(), 1, "{said:?}");
}

#[test]
fn f166_a_second_server_of_a_project_is_refused_and_the_first_goes_on() {
    let project = project("lake: ./lake", OPEN);
    let first = Server::start(&project);
    project.fails(&["serve"], &["another process serves from this folder"]);
    // One with a ledger of its own, and the same spool.
    let other = TestProject::new("http://127.0.0.1:9", "\n");
    let spool = project.path().join(".landfall/deliveries");
    let shared = OPEN.replace(
        "segment_age: 100ms",
        &format!("segment_age: 100ms, dir: {}", spool.display()),
    );
    other.write("landfall.yml", &format!("lake: ./lake\n{shared}"));
    other.fails(&["serve"], &["another server is using it", "a spool of its own"]);
    first.stop();
    Server::start(&project).stop();
}

/// A server with certificates for everything, and what it trusts.
fn with_certificates(client_cert: &str) -> (TestProject, Authority, Authority) {
    let (ours, theirs) = (Authority::new(), Authority::new());
    ours.issue("server", "DNS:localhost,IP:127.0.0.1");
    ours.issue("till", "URI:spiffe://shop/till");
    ours.issue("ops", "email:ops@shop.example");
    ours.issue("host", "IP:192.0.2.7");
    ours.issue("unknown", "URI:spiffe://shop/nobody");
    ours.issue_expired("expired", "URI:spiffe://shop/till");
    ours.issue("revoked", "URI:spiffe://shop/till");
    ours.revoke("revoked");
    ours.list_revoked();
    theirs.issue("stranger", "URI:spiffe://shop/till");
    let path = |file: &str| ours.path(file).display().to_string();
    let text = format!(
        "serve:
  listen: 127.0.0.1:0
  admin_listen: 0.0.0.0:0
  tls:
    cert: {}
    key: {}
    client_ca: {}
    client_crl: {}
    client_cert: {client_cert}
producers:
  till: {{ scopes: [ingest], streams: ['*'], certificates: ['uri:spiffe://shop/till', 'ip:192.0.2.7'] }}
  ops: {{ scopes: [admin], streams: ['*'], certificates: ['email:ops@shop.example'] }}
sources:
  shop:
    streams:
      items: {{ push: {{}}, table: {{ keys: [id] }} }}
",
        path("server.pem"),
        path("server.key"),
        path("ca.pem"),
        path("crl.pem"),
    );
    (project("lake: ./lake", &text), ours, theirs)
}

/// A client that shows the certificate of `shown`, if any, and trusts `ours`.
fn client(ours: &Authority, shown: Option<(&Authority, &str)>) -> reqwest::ClientBuilder {
    let client = Client::builder().tls_certs_only([ours.root()]);
    match shown {
        Some((authority, name)) => client.identity(authority.identity(name)),
        None => client,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f115_r157_certificates_let_in_whom_they_stand_for_and_nobody_else() {
    let (mut project, ours, theirs) = with_certificates("required");
    project.env("LANDFALL_LOG", "off,audit=info");
    let server = Server::start(&project);
    assert!(server.producers.starts_with("https://") && server.admin.starts_with("https://"));
    let push = async |shown: Option<(&Authority, &str)>, version: Version| {
        let client = client(&ours, shown)
            .tls_version_max(version)
            .tls_version_min(version)
            .build()
            .unwrap();
        send(&client, &server.producers, "items", "1").await
    };
    for version in [Version::TLS_1_2, Version::TLS_1_3] {
        for name in ["till", "host"] {
            assert_eq!(push(Some((&ours, name)), version).await, Some(202), "{name}");
        }
        // No connection at all, or an answer that they are nobody, or may not.
        assert_eq!(push(None, version).await, None);
        for (authority, name) in [(&theirs, "stranger"), (&ours, "expired"), (&ours, "revoked")] {
            assert_eq!(push(Some((authority, name)), version).await, None, "{name}");
        }
        assert_eq!(push(Some((&ours, "unknown")), version).await, Some(401));
        assert_eq!(push(Some((&ours, "ops")), version).await, Some(403));
    }

    // Whoever watches needs no certificate, and whoever sees the metrics has the one it takes.
    let port = server.admin.rsplit(':').next().unwrap().to_owned();
    let see = async |path: &str, name: Option<&str>| {
        let client = client(&ours, name.map(|name| (&ours, name))).build().unwrap();
        let seen = client
            .get(format!("https://127.0.0.1:{port}{path}"))
            .send()
            .await
            .unwrap();
        seen.status().as_u16()
    };
    assert_eq!(see("/livez", None).await, 200);
    assert_eq!(see("/metrics", None).await, 401);
    assert_eq!(see("/metrics", Some("till")).await, 403);
    assert_eq!(see("/metrics", Some("ops")).await, 200);

    let said = tokio::task::spawn_blocking(move || server.stop()).await.unwrap();
    // Which certificate it was is written down, with what it could do and what not.
    let line = |name: &str, outcome: &str| {
        let fingerprint = ours.fingerprint(name);
        let mut lines = said.lines();
        lines.any(|line| line.contains(&fingerprint) && line.contains(outcome))
    };
    assert!(
        line("till", "granted") && line("ops", "forbidden") && line("ops", "granted"),
        "{said}"
    );
    assert!(line("unknown", "certificate_unknown"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn f115_a_client_without_a_certificate_may_come_where_that_is_optional() {
    let (project, ours, theirs) = with_certificates("optional");
    let server = Server::start(&project);
    let push = async |shown: Option<(&Authority, &str)>| {
        let client = client(&ours, shown).build().unwrap();
        send(&client, &server.producers, "items", "1").await
    };
    assert_eq!(push(None).await, Some(401));
    assert_eq!(push(Some((&ours, "till"))).await, Some(202));
    assert_eq!(push(Some((&theirs, "stranger"))).await, None);
    // Whom the server is not what it says is not sent anything.
    let wary = client(&theirs, Some((&ours, "till"))).build().unwrap();
    assert_eq!(send(&wary, &server.producers, "items", "1").await, None);
    server.stop();
}
