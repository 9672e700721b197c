//! Servers that are killed: the test starts itself again as one, sends to it, and kills it.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use tokio::sync::watch;

use super::*;
use crate::raw::durable::DurableLocal;

/// Tells a test that it is the process to be killed, and where it works.
const DIR: &str = "LANDFALL_TEST_SERVE";

/// Servers that are killed while producers send.
const KILLS: usize = 12;

/// Producers that send at once.
const PRODUCERS: usize = 6;

/// Most batches of one producer to one server; none lives so long.
const BATCHES_MAX: usize = 5_000;

fn place(dir: &Path) -> Place {
    let mut place = Place::with(Arc::new(DurableLocal::new(&dir.join("lake")).unwrap()));
    place.spool.dir = dir.join("spool");
    place
}

/// Not a test by itself: with [`DIR`] set it serves until it is killed, and prints where.
#[test]
fn child() {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is how a test tells itself what it is"
    )]
    let Some(dir) = env::var_os(DIR).map(PathBuf::from) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let server = place(&dir).start_in(OPEN, dir.join("ledger")).await;
        println!("\nserving {}", server.address);
        server.task.await.unwrap().unwrap();
    });
}

fn begin(dir: &Path) -> (Child, SocketAddr) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "serve::tests::kill::child",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines.find_map(|line| line.unwrap().strip_prefix("serving ").map(str::to_owned));
    if address.is_none() {
        child.wait().unwrap();
    }
    (child, address.expect("the server starts").parse().unwrap())
}

/// Sends batches, each with a key and repeated with it until it is answered or the server is gone.
async fn send(
    client: reqwest::Client,
    address: SocketAddr,
    name: String,
    unanswered: Option<String>,
    answers: watch::Sender<usize>,
) -> (Vec<String>, Option<String>) {
    let mut acknowledged = Vec::new();
    for number in 0..BATCHES_MAX {
        // What the last server did not answer is sent again to this one.
        let key = match (&unanswered, number) {
            (Some(key), 0) => key.clone(),
            _ => format!("{name}-{number}"),
        };
        let sent = client
            .post(format!("http://{address}/v1/streams/shop/orders/records"))
            .header("content-type", "application/json")
            .header("idempotency-key", &key)
            .body(format!("[{{\"id\":\"{key}\"}}]"))
            .send()
            .await;
        match sent {
            Ok(answer) if answer.status() == 202 => {
                acknowledged.push(key);
                answers.send_modify(|count| *count += 1);
            }
            _ => return (acknowledged, Some(key)),
        }
    }
    (acknowledged, None)
}

#[tokio::test(flavor = "multi_thread")]
async fn r090_what_was_acknowledged_lands_once_however_often_the_server_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<String> = Vec::new();
    let mut unanswered: Vec<Option<String>> = vec![None; PRODUCERS];
    let client = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
    for kill in 0..KILLS {
        let path = dir.path().to_owned();
        let (mut child, address) = tokio::task::spawn_blocking(move || begin(&path)).await.unwrap();
        let answers = watch::Sender::new(0);
        let producers: Vec<_> = unanswered
            .iter()
            .enumerate()
            .map(|(number, last)| {
                let name = format!("p{number}-{kill}");
                tokio::spawn(send(client.clone(), address, name, last.clone(), answers.clone()))
            })
            .collect();
        let enough = 1 + rand::random::<u64>() % 120;
        let mut answered = answers.subscribe();
        let answered = answered.wait_for(|count| *count as u64 >= enough);
        tokio::time::timeout(PATIENCE, answered).await.unwrap().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        for (number, producer) in producers.into_iter().enumerate() {
            let (more, last) = producer.await.unwrap();
            acknowledged.extend(more);
            unanswered[number] = last;
        }
    }
    assert!(acknowledged.len() > KILLS, "{} acknowledged", acknowledged.len());

    let last = place(dir.path());
    last.start_in(OPEN, dir.path().join("ledger")).await.stop().await;
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for (facts, body) in last.landed("shop.orders").await {
        let key = facts.idempotency_key.unwrap();
        assert_eq!(body, format!("[{{\"id\":\"{key}\"}}]"));
        *counts.entry(key).or_default() += 1;
    }
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|key| !counts.contains_key(*key))
        .collect();
    assert!(lost.is_empty(), "{lost:?}");
}
