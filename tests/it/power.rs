//! What `landfall serve` has acknowledged outlives the power of its machine, and what was known of it does too.

use std::{collections::BTreeSet, time::Duration};

use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};

use crate::{
    endurance::{OPEN, landed, project, send},
    support::{
        disk::{Disk, Unsynced},
        project::TestProject,
        s3,
        serving::Server,
    },
};

/// Streams of every kind that a server takes.
const STREAMS: &str = "
serve:
  listen: 127.0.0.1:0
  admin_listen: 127.0.0.1:0
  spool: { segment_age: 100ms }
sources:
  shop:
    streams:
      items: { push: {}, table: { keys: [id] } }
      bulk: { push: {}, table: { keys: [id] } }
      hooks:
        webhook: { scheme: shared_secret, header: X-Token, event_id: 'header:X-Event', secrets: { main: '${file:secret}' } }
        table: { keys: [id] }
";

const SECRET: &str = "a secret of the sender";

/// Power cuts.
const CUTS: u32 = 12;

/// Longest anything here may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a producer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Records,
    Webhook,
    Channel,
}

/// Sends one thing after another, and what was not answered again.
struct Producer {
    way: Way,
    name: String,
    /// What a server is asked with.
    client: Client,
    /// Ids sent so far.
    number: u32,
    unanswered: Option<String>,
    /// Ids that were acknowledged, with their receipts.
    acknowledged: Vec<(String, String)>,
    epoch: u64,
}

/// What a producer was told.
#[derive(Debug)]
struct Told {
    receipt: String,
    was_known: bool,
}

impl Way {
    fn stream(self) -> &'static str {
        match self {
            Self::Records => "items",
            Self::Webhook => "hooks",
            Self::Channel => "bulk",
        }
    }
}

impl Producer {
    fn new(way: Way, number: u32) -> Self {
        Self {
            way,
            name: format!("{}{number}", way.stream()),
            client: Client::builder().timeout(PATIENCE).build().unwrap(),
            number: 0,
            unanswered: None,
            acknowledged: Vec::new(),
            epoch: 0,
        }
    }

    /// Sends what is called `id`, which stands behind `after` if there is an order; nothing if the server is gone.
    async fn send(&self, server: &str, id: &str, after: Option<&str>) -> Option<Told> {
        let stream = self.way.stream();
        let base = format!("{server}/v1/streams/shop/{stream}");
        let request = match self.way {
            Way::Records => self
                .client
                .post(format!("{base}/records"))
                .header("idempotency-key", id),
            Way::Webhook => self
                .client
                .post(format!("{server}/v1/webhooks/shop/{stream}"))
                .header("x-token", SECRET)
                .header("x-event", id),
            Way::Channel => {
                let after = after.map_or_else(String::new, |after| format!("&after={after}"));
                let place = format!("epoch={}&offset={id}{after}", self.epoch);
                self.client
                    .post(format!("{base}/channels/{}/records?{place}", self.name))
            }
        };
        let request = request.header("content-type", "application/json");
        let sent = request.body(json!({ "id": id }).to_string()).send().await.ok()?;
        let status = sent.status();
        let replayed = sent.headers().contains_key("idempotency-replayed");
        let told: Value = serde_json::from_slice(&sent.bytes().await.ok()?).unwrap();
        assert!(status.is_success(), "{id}: {status} {told}");
        Some(Told {
            receipt: told["receipt"].as_str().unwrap().to_owned(),
            was_known: replayed || told["duplicate"] == true,
        })
    }

    /// Opens its channel, if it has one, and looks how far that is; false if the server is gone.
    async fn open(&mut self, server: &str) -> bool {
        if self.way != Way::Channel {
            return true;
        }
        let url = format!("{server}/v1/streams/shop/bulk/channels/{}", self.name);
        let Ok(opened) = self.client.put(url).send().await else {
            return false;
        };
        let Ok(opened) = opened.bytes().await else {
            return false;
        };
        let opened: Value = serde_json::from_slice(&opened).unwrap();
        let epoch = opened["epoch"].as_u64().unwrap();
        assert!(epoch > self.epoch, "who was shut out is let in again");
        self.epoch = epoch;
        let last = self.acknowledged.last().map(|(id, _)| id.as_str());
        let offset = opened["offset"].as_str();
        let was_kept = offset.is_some() && offset == self.unanswered.as_deref();
        assert!(
            offset == last || was_kept,
            "{opened}: {last:?}, {:?}",
            self.unanswered
        );
        true
    }

    /// Sends until the server is gone, and counts what is acknowledged.
    async fn live(mut self, server: String, answers: watch::Sender<usize>) -> Self {
        if !self.open(&server).await {
            return self;
        }
        // What was acknowledged last is known.
        let acknowledged = self.acknowledged.len();
        if let Some((id, receipt)) = self.acknowledged.last() {
            let before = acknowledged
                .checked_sub(2)
                .map(|at| self.acknowledged[at].0.as_str());
            let Some(told) = self.send(&server, id, before).await else {
                return self;
            };
            assert!(
                told.was_known && told.receipt == *receipt,
                "{id} {receipt}: {told:?}"
            );
        }
        loop {
            let id = match self.unanswered.take() {
                Some(id) => id,
                None => {
                    self.number += 1;
                    format!("{}-{}", self.name, self.number)
                }
            };
            let after = self.acknowledged.last().map(|(id, _)| id.as_str());
            let Some(told) = self.send(&server, &id, after).await else {
                self.unanswered = Some(id);
                return self;
            };
            self.acknowledged.push((id, told.receipt));
            answers.send_modify(|count| *count += 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f007_r090_a_power_cut_of_the_whole_server_loses_nothing_acknowledged() {
    let project = project("lake: ./lake", STREAMS);
    project.write("secret", SECRET);
    let seed = rand::random();
    println!("seed {seed}");
    let mut disk = Disk::under(project.path(), seed);
    let ways = [
        Way::Records,
        Way::Records,
        Way::Records,
        Way::Webhook,
        Way::Webhook,
        Way::Channel,
    ];
    let mut producers: Vec<Producer> = (0..)
        .zip(ways)
        .map(|(number, way)| Producer::new(way, number))
        .collect();
    for cut in 0..CUTS {
        let server = Server::spawn(disk.noting(project.command(&["serve"])));
        let answers = watch::Sender::new(0);
        let lives: Vec<_> = producers
            .drain(..)
            .map(|producer| tokio::spawn(producer.live(server.producers.clone(), answers.clone())))
            .collect();
        // Some go while they read what the one before left.
        let enough = match cut % 4 {
            3 => 0,
            _ => 1 + rand::random::<u32>() as usize % 150,
        };
        let mut answered = answers.subscribe();
        timeout(PATIENCE, answered.wait_for(|count| *count >= enough))
            .await
            .unwrap()
            .unwrap();
        server.signal("KILL");
        let (_, said) = server.end();
        println!("cut {cut}, after {enough} answers: {said}");
        for life in lives {
            producers.push(life.await.unwrap());
        }
        disk.cut(if cut % 2 == 0 {
            Unsynced::Gone
        } else {
            Unsynced::ByChance
        });
    }
    let server = Server::start(&project);
    for producer in &mut producers {
        assert!(producer.open(&server.producers).await);
        if let Some(id) = producer.unanswered.take() {
            let after = producer.acknowledged.last().map(|(id, _)| id.as_str());
            let told = producer.send(&server.producers, &id, after).await.unwrap();
            producer.acknowledged.push((id, told.receipt));
        }
    }
    let check = move || {
        server.stop();
        check(&project, &producers);
    };
    tokio::task::spawn_blocking(check).await.unwrap();
}

/// Everything that was acknowledged stands in raw once, nothing else does, and each is one row.
fn check(project: &TestProject, producers: &[Producer]) {
    project.ok(&["transform"]);
    for way in [Way::Records, Way::Webhook, Way::Channel] {
        let stream = way.stream();
        let acknowledged: BTreeSet<String> = producers
            .iter()
            .filter(|producer| producer.way == way)
            .flat_map(|producer| producer.acknowledged.iter().map(|(id, _)| id.clone()))
            .collect();
        assert!(acknowledged.len() > 20, "{stream}: {}", acknowledged.len());
        assert_eq!(landed(project, stream), acknowledged, "{stream}");
        let rows = project.sql(&format!(
            "SELECT count(*) n, count(DISTINCT id) d FROM shop.{stream}"
        ));
        let count = json!(acknowledged.len());
        assert_eq!((&rows[0]["n"], &rows[0]["d"]), (&count, &count), "{stream}");
    }
}

/// Sends one record with its id as its key.
async fn answer(server: &Server, id: &str) -> Response {
    let url = format!("{}/v1/streams/shop/items/records", server.producers);
    let request = Client::new().post(url).header("idempotency-key", id);
    let request = request.header("content-type", "application/json");
    request
        .body(json!([{ "id": id }]).to_string())
        .send()
        .await
        .unwrap()
}

/// The next server of `project` knows the request with the key `id`, and it has landed once.
async fn is_known(project: TestProject, id: &str) {
    let server = Server::start(&project);
    let mut bodies = BTreeSet::new();
    for _ in 0..2 {
        let answer = answer(&server, id).await;
        assert_eq!(answer.status(), 202);
        assert_eq!(answer.headers()["idempotency-replayed"], "true");
        bodies.insert(answer.text().await.unwrap());
    }
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    let id = id.to_owned();
    let check = move || {
        server.stop();
        assert_eq!(landed(&project, "items"), BTreeSet::from([id]));
    };
    tokio::task::spawn_blocking(check).await.unwrap();
}

fn armed(project: &TestProject, failpoints: &str) -> Server {
    let mut command = project.command(&["serve"]);
    // One of them may stand still.
    command
        .env("FAILPOINTS", failpoints)
        .env("TOKIO_WORKER_THREADS", "4");
    Server::spawn(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn f005_who_was_not_answered_because_the_server_died_behind_its_sync_is_answered_by_the_next() {
    let project = project("lake: ./lake", OPEN);
    let server = armed(&project, "spool::after_sync=return");
    assert_eq!(send(&Client::new(), &server.producers, "items", "1").await, None);
    assert_eq!(server.end().0, None);
    is_known(project, "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f005_nothing_leaves_the_spool_that_the_ledger_was_not_told_of() {
    let project = project("lake: ./lake", OPEN);
    // The first request stands still where it is kept and nobody knows of it yet.
    let server = armed(&project, "serve::after_keep=1*pause");
    let client = Client::new();
    let first = {
        let (client, producers) = (client.clone(), server.producers.clone());
        tokio::spawn(async move { send(&client, &producers, "items", "1").await })
    };
    let metrics = async || {
        let metrics = client.get(format!("{}/metrics", server.admin)).send().await;
        metrics.unwrap().text().await.unwrap()
    };
    // It waits for the ledger; or it would land, and be removed.
    let stands = async |segments: &str| {
        metrics()
            .await
            .contains(&format!("\nlandfall_spool_segments {segments}\n"))
    };
    let has_landed = || !project.files("lake/raw/shop/items/_log").is_empty();
    let sealed = async { while !(stands("1").await || has_landed()) {} };
    timeout(PATIENCE, sealed).await.unwrap();
    assert_eq!(send(&client, &server.producers, "carts", "2").await, Some(202));
    let rested = async { while !(stands("2").await || has_landed() && stands("0").await) {} };
    timeout(PATIENCE, rested).await.unwrap();
    drop(server);
    assert_eq!(first.await.unwrap(), None);
    is_known(project, "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r095_ten_times_the_steady_rate_is_taken_while_the_lake_is_slow_and_is_drained_later() {
    /// Requests a second that the lake keeps up with.
    const STEADY: u32 = 15;
    let lake = s3::start().await;
    let project = project(&lake.lake("burst"), OPEN);
    let server = Server::start(&project);
    let client = Client::new();
    // Sent when they are due, whether or not those before are answered.
    let load = async |name: &str, rate: u32, seconds: u32| {
        let mut due = tokio::time::interval(Duration::from_secs(1) / rate);
        let mut sent = Vec::new();
        for number in 0..rate * seconds {
            due.tick().await;
            let (client, producers) = (client.clone(), server.producers.clone());
            let id = format!("{name}-{number}");
            sent.push(tokio::spawn(async move {
                (send(&client, &producers, "items", &id).await, id)
            }));
        }
        let mut ids = BTreeSet::new();
        for sent in sent {
            let (status, id) = sent.await.unwrap();
            assert_eq!(status, Some(202), "{id}");
            ids.insert(id);
        }
        ids
    };
    let waiting = async || {
        let metrics = client
            .get(format!("{}/metrics", server.admin))
            .send()
            .await
            .unwrap();
        let metrics = metrics.text().await.unwrap();
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("landfall_spool_bytes "));
        line.unwrap().parse::<f64>().unwrap()
    };
    let mut acknowledged = load("steady", STEADY, 1).await;
    lake.take(Some(Duration::from_millis(400)));
    acknowledged.extend(load("burst", 10 * STEADY, 3).await);
    let left = waiting().await;
    assert!(left > 10_000.0, "the lake kept up, {left} bytes wait");
    lake.take(None);
    acknowledged.extend(load("after", STEADY, 1).await);
    timeout(PATIENCE, async { while waiting().await > 0.0 {} })
        .await
        .unwrap();
    let check = move || {
        server.stop();
        assert_eq!(landed(&project, "items"), acknowledged);
    };
    tokio::task::spawn_blocking(check).await.unwrap();
}
