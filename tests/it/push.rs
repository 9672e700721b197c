//! `landfall push` and the client below it, against servers that are killed, and what stands in raw then.

mod slow;

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use futures::TryStreamExt as _;
use landfall::{
    config::StreamName,
    push::{
        batch::{BatchLimits, Batcher, Form},
        client::{Client, Credential, Mode, Options},
        coding::Coding,
        key::Place,
        producer::Producer,
        retry::Retry,
        signature::Signature,
    },
    raw::{BatchNumber, PageFacts, log::RawLog, read},
};
use object_store::ObjectStore;
use serde_json::{Value, json};

use crate::support::project::{ITEMS_CONTRACT, Ran, TestProject};

/// The secret of the webhook.
const HOOK: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The channel of the tests that watch how far a push is.
const CHANNEL: &str = "load-1";

/// The contract of `shop.judged`.
const CONTRACT: &str = r"apiVersion: v3.1.0
kind: DataContract
id: shop.judged
version: 1.0.0
status: active
schema:
  - name: judged
    logicalType: object
    properties:
      - { name: id, logicalType: integer, required: true, primaryKey: true }
";

/// A project with a server and a producer.
struct Shop {
    project: TestProject,
    token: String,
    address: String,
}

/// A server of its own process.
struct Server(Child);

impl Shop {
    fn new() -> Self {
        let mut project = TestProject::new("http://127.0.0.1:9", "\n");
        let made = project.ok(&["token"]);
        let hash = made.stderr.trim().strip_prefix("hash: ").unwrap();
        let token = made.stdout.trim().to_owned();
        // A server that comes back is where it was.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        let text = format!(
            r"lake: ./lake
serve: {{ listen: '{address}', admin_listen: '127.0.0.1:0' }}
producers:
  till: {{ scopes: [ingest], streams: ['shop.*'], tokens: {{ main: {{ hash: '{hash}' }} }} }}
sources:
  shop:
    streams:
      items: {{ push: {{}}, table: {{ keys: [id] }} }}
      small: {{ push: {{ record_bytes_max: 64, records_max: 3 }}, table: {{ keys: [id] }} }}
      strict: {{ push: {{ on_violation: reject }}, table: {{ keys: [id] }} }}
      judged: {{ push: {{ on_violation: reject }}, table: {{ keys: [id] }} }}
      narrow: {{ push: {{ record_bytes_max: 64KiB }}, table: {{ keys: [id] }} }}
      events: {{ webhook: {{ scheme: standard_webhooks, secrets: {{ main: '${{env:HOOK}}' }} }}, table: {{ keys: [id] }} }}
"
        );
        project.write("landfall.yml", &text);
        project.write("contracts/shop.judged.odcs.yaml", CONTRACT);
        project.env("HOOK", HOOK);
        project.env("LANDFALL_TOKEN", &token);
        Self {
            project,
            token,
            address,
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn serve(&self) -> Server {
        let mut process = self
            .project
            .command(&["serve"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let told = lines.find(|line| line.as_ref().unwrap().starts_with("health and metrics"));
        assert!(told.is_some(), "the server did not start");
        // Read on, or the server could not say more.
        std::thread::spawn(move || lines.for_each(drop));
        Server(process)
    }

    /// `landfall push STREAM ARGS`, in the folder of the project.
    fn command(&self, stream: &str, args: &[&str]) -> Command {
        let url = self.url();
        let mut all = vec!["push", stream, "--url", &url];
        all.extend(args);
        let mut command = self.project.command(&all);
        command.current_dir(self.project.path());
        command
    }

    fn push(&self, stream: &str, args: &[&str]) -> Ran {
        Ran::from(self.command(stream, args).output().unwrap())
    }

    /// The one row of a push of one file.
    fn row(ran: &Ran) -> Value {
        serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{ran:?}"))
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.project.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn client(&self, coding: Coding) -> Client {
        let options = Options {
            coding,
            signature: Some(Signature::standard_webhooks(HOOK).unwrap()),
            retry: Retry {
                backoff_start: Duration::from_millis(5),
                backoff_max: Duration::from_millis(200),
                attempts_max: 10_000,
            },
            ..Options::usual(self.url(), Credential::of(&self.token))
        };
        Client::new(options).unwrap()
    }

    /// How many bodies the channel has; 0 if it cannot be asked.
    async fn bodies(&self, client: &reqwest::Client) -> u64 {
        let url = format!("{}/v1/streams/shop/items/channels/{CHANNEL}", self.url());
        let Ok(answer) = client.get(url).bearer_auth(&self.token).send().await else {
            return 0;
        };
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        answer["bodies"].as_u64().unwrap_or_default()
    }

    /// Returns when the channel has `least` bodies, or `child` has ended by itself.
    async fn reaches(&self, least: u64, child: &mut Child) {
        let client = reqwest::Client::new();
        let mut interval = tokio::time::interval(Duration::from_millis(10));
        while self.bodies(&client).await < least && child.try_wait().unwrap().is_none() {
            interval.tick().await;
        }
    }

    /// Every page of a stream in the lake.
    async fn landed(&self, stream: &str) -> Vec<(PageFacts, Vec<u8>)> {
        let lake = self.project.path().join("lake");
        let store: Arc<dyn ObjectStore> =
            Arc::new(object_store::local::LocalFileSystem::new_with_prefix(lake).unwrap());
        let log = RawLog {
            store: Arc::clone(&store),
            stream: StreamName::parse(stream).unwrap(),
        };
        let head = log.head().await.unwrap().unwrap();
        let mut pages = Vec::new();
        let mut entries = log.entries(BatchNumber::FIRST..=head.number);
        while let Some(entry) = entries.try_next().await.unwrap() {
            for number in 0..u32::try_from(entry.pages()).unwrap() {
                let (facts, body) = read::page(&*store, &entry, number).await.unwrap();
                pages.push((facts, body.to_vec()));
            }
        }
        pages
    }

    /// How often each id stands in the raw log of a stream.
    async fn ids(&self, stream: &str) -> BTreeMap<u64, usize> {
        let mut ids = BTreeMap::new();
        for (_, body) in self.landed(stream).await {
            let records: Vec<Value> = match body.first() {
                Some(b'[') => serde_json::from_slice(&body).unwrap(),
                _ => body
                    .split(|byte| *byte == b'\n')
                    .filter(|line| !line.is_empty())
                    .map(|line| serde_json::from_slice(line).unwrap())
                    .collect(),
            };
            for record in records {
                *ids.entry(record["id"].as_u64().unwrap()).or_default() += 1;
            }
        }
        ids
    }
}

impl Server {
    /// Ends it as a power cut would end the process.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Asks it to end, and waits for that: all that was acknowledged is in the lake then.
    fn stop(mut self) {
        let kill = format!("kill -TERM {}", self.0.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        assert_eq!(self.0.wait().unwrap().code(), Some(0));
    }
}

fn lines(ids: std::ops::Range<u64>) -> String {
    ids.map(|id| format!("{}\n", json!({"id": id, "name": format!("name {id}")})))
        .collect()
}

fn once(ids: std::ops::Range<u64>) -> BTreeMap<u64, usize> {
    ids.map(|id| (id, 1)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_pushes_and_killed_servers_leave_every_record_in_raw_once() {
    const RECORDS: u64 = 6_000;
    let place = Shop::new();
    let file = place.write("load.jsonl", lines(0..RECORDS));
    let args = [
        file.to_str().unwrap(),
        "--channel",
        CHANNEL,
        "--batch-records",
        "20",
        "--format",
        "json",
    ];
    let begin = || {
        let mut command = place.command("shop.items", &args);
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut server = place.serve();
    let mut bodies = 0;
    for _ in 0..3 {
        let mut push = begin();
        bodies += 25;
        place.reaches(bodies, &mut push).await;
        push.kill().unwrap();
        push.wait().unwrap();
        bodies = place.bodies(&reqwest::Client::new()).await;
        assert!(bodies < RECORDS / 20, "nothing was interrupted");
    }
    let mut push = begin();
    for _ in 0..3 {
        bodies += 25;
        place.reaches(bodies, &mut push).await;
        assert!(push.try_wait().unwrap().is_none(), "nothing was interrupted");
        server.kill();
        server = place.serve();
        bodies = place.bodies(&reqwest::Client::new()).await;
    }
    // Both at once.
    place.reaches(bodies + 10, &mut push).await;
    server.kill();
    push.kill().unwrap();
    push.wait().unwrap();
    server = place.serve();
    let ran = place.push("shop.items", &args);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let row = Shop::row(&ran);
    assert!(row["resumed_at"].as_u64().unwrap() > 0, "{row}");
    assert_eq!(row["channel"], CHANNEL);
    let again = place.push("shop.items", &args);
    assert_eq!((again.code, &Shop::row(&again)["batches"]), (Some(0), &json!(0)));
    assert!(again.stderr.contains("nothing to send"), "{}", again.stderr);
    server.stop();
    assert_eq!(place.ids("shop.items").await, once(0..RECORDS));
    let mut numbers: Vec<_> = place
        .landed("shop.items")
        .await
        .iter()
        .map(|(facts, _)| facts.channel.as_ref().unwrap().number)
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=RECORDS / 20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_all_kinds_are_sent_once_and_what_is_appended_follows() {
    let place = Shop::new();
    let server = place.serve();
    let packed = |text: String| zstd::bulk::compress(text.as_bytes(), 3).unwrap();
    let gzip = |text: String| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let array: Vec<Value> = (30..40)
        .map(|id| json!({"id": id, "tags": ["]", "\""]}))
        .collect();
    for (name, bytes) in [
        ("plain.jsonl", lines(0..10).into_bytes()),
        // Two members, as `cat a.gz b.gz` makes them.
        ("two.gz", [gzip(lines(10..15)), gzip(lines(15..20))].concat()),
        ("odd name.zst", packed(lines(20..30))),
        ("array.json", serde_json::to_vec_pretty(&array).unwrap()),
    ] {
        place.write(name, bytes);
    }
    let files = [
        "plain.jsonl",
        "two.gz",
        "odd name.zst",
        "array.json",
        "--batch-records",
        "7",
    ];
    let dry = place.push("shop.items", &[&files[..], &["--dry-run"]].concat());
    assert_eq!(dry.code, Some(0), "{dry:?}");
    assert!(
        dry.stderr
            .contains("plain.jsonl  would send 10 records in 2 batches"),
        "{}",
        dry.stderr
    );
    let ran = place.push("shop.items", &files);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.stderr.contains("two.gz  sent 10 records in 2 batches"),
        "{}",
        ran.stderr
    );

    place.write("plain.jsonl", lines(0..10) + &lines(40..43));
    let more = place.push("shop.items", &files);
    assert!(
        more.stderr
            .contains("plain.jsonl  sent 3 records in 1 batch, from byte"),
        "{}",
        more.stderr
    );
    assert!(
        more.stderr.contains("array.json  nothing to send"),
        "{}",
        more.stderr
    );
    // Somebody is writing it: half a line is neither refused nor passed over.
    let written = lines(0..10) + &lines(40..43) + &lines(43..44);
    place.write("plain.jsonl", written.clone() + "{\"id\":4");
    let half = place.push("shop.items", &["plain.jsonl"]);
    assert_eq!(half.code, Some(4), "{half:?}");
    let told = format!(
        "plain.jsonl  the last line, from byte {} on, is not whole",
        written.len()
    );
    assert!(
        half.stderr.contains("sent 1 record in 1 batch, from byte"),
        "{}",
        half.stderr
    );
    assert!(
        half.stderr.contains(&told) && !half.stderr.contains("refused"),
        "{}",
        half.stderr
    );
    place.write("plain.jsonl", written + &lines(44..45));
    let whole = place.push("shop.items", &["plain.jsonl"]);
    assert_eq!(whole.code, Some(0), "{whole:?}");
    assert!(
        whole.stderr.contains("sent 1 record in 1 batch, from byte"),
        "{}",
        whole.stderr
    );
    // Another file under the name of the first: all of it.
    place.write("plain.jsonl", lines(50..60));
    let other = place.push("shop.items", &["plain.jsonl"]);
    assert!(
        other.stderr.contains(
            "plain.jsonl  sent 10 records in 1 batch, all of it: its beginning is not what was sent"
        ),
        "{}",
        other.stderr
    );

    // Standard input through a channel of its own goes on too.
    for (ids, sent) in [(60..64, 4), (60..66, 2), (60..66, 0)] {
        let mut command = place.command("shop.items", &["-", "--channel", "pipe", "--format", "json"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(lines(ids).as_bytes())
            .unwrap();
        let ran = Ran::from(child.wait_with_output().unwrap());
        assert_eq!(Shop::row(&ran)["records"], sent, "{ran:?}");
    }
    let twice = place.push("shop.items", &["plain.jsonl", "--again"]);
    assert!(twice.stderr.contains("sent 10 records"), "{}", twice.stderr);
    server.stop();
    let mut expected = once(0..45);
    expected.extend((50..60).map(|id| (id, 2)));
    expected.extend(once(60..66));
    assert_eq!(place.ids("shop.items").await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_records_stand_in_a_file_and_the_others_are_landed() {
    let place = Shop::new();
    let server = place.serve();
    let large = json!({"id": 9, "note": "x".repeat(100)}).to_string();
    let text = format!("{{\"id\":1}}\n{{\"id\":\n7\n{large}\n{{\"id\":2}}\n");
    place.write("mixed.jsonl", text);
    let ran = place.push("shop.small", &["mixed.jsonl"]);
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(
        ran.stderr
            .contains("3 refused records with the reasons: shop.small.refused.jsonl"),
        "{}",
        ran.stderr
    );
    let refused = std::fs::read_to_string(place.project.path().join("shop.small.refused.jsonl")).unwrap();
    let refused: Vec<Value> = refused
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<_> = refused
        .iter()
        .map(|line| {
            (
                line["at"].as_u64().unwrap(),
                line["code"].as_str().unwrap(),
                line["file"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (9, "not_json", "mixed.jsonl"),
            (16, "not_an_object", "mixed.jsonl"),
            (18, "too_large", "mixed.jsonl"),
        ]
    );
    assert_eq!(
        (&refused[0]["record"], &refused[1]["record"]),
        (&json!("{\"id\":"), &json!(7))
    );

    let atomic = place.push("shop.small", &["mixed.jsonl", "--again", "--mode", "atomic"]);
    assert_eq!(atomic.code, Some(1), "{atomic:?}");
    // A token on the command line, a producer that may not, a server that is not there.
    let open = place.push("shop.small", &["mixed.jsonl", "--token", "lf_secret"]);
    assert_eq!(open.code, Some(2), "{open:?}");
    assert!(open.stderr.contains("${env:NAME}") && !open.stderr.contains("lf_secret"));
    let other = place.push("web.items", &["mixed.jsonl"]);
    assert!(
        other.code == Some(1) && other.stderr.contains("forbidden"),
        "{other:?}"
    );
    server.stop();
    let gone = place.push("shop.small", &["mixed.jsonl", "--deadline", "1s"]);
    assert_eq!(gone.code, Some(1), "{gone:?}");
    assert_eq!(place.ids("shop.small").await, once(1..3));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_that_a_contract_rejects_stands_in_the_file_however_many() {
    let place = Shop::new();
    let contract = ITEMS_CONTRACT
        .replace("shop.items", "shop.strict")
        .replace("name: items", "name: strict");
    place.project.write("contracts/shop.strict.odcs.yaml", &contract);
    let server = place.serve();
    // Two of three do not fit.
    let item = |id: u64| match id % 3 {
        0 => json!({"id": id, "updated": id, "name": "good"}),
        _ => json!({"id": id, "updated": "not a number", "name": "bad"}),
    };
    let text: String = (0..3000).map(|id| format!("{}\n", item(id))).collect();
    place.write("strict.jsonl", text);
    let ran = place.push("shop.strict", &["strict.jsonl", "--batch-records", "3000"]);
    assert_eq!(ran.code, Some(4), "{ran:?}");
    let refused = std::fs::read_to_string(place.project.path().join("shop.strict.refused.jsonl")).unwrap();
    let refused = refused
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ids: Vec<_> = refused
        .map(|line| line["record"]["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, (0..3000).filter(|id| id % 3 != 0).collect::<Vec<_>>());
    server.stop();
    let landed = (0..3000).filter(|id| id % 3 == 0).map(|id| (id, 1)).collect();
    assert_eq!(place.ids("shop.strict").await, landed);
}

#[tokio::test(flavor = "multi_thread")]
async fn r128_r093_the_client_batches_packs_signs_repeats_and_says_which_attempt_it_is() {
    let place = Shop::new();
    let target = "shop.items".parse().unwrap();
    // The first attempt is lost: somebody takes the connection and hangs up.
    let deaf = TcpListener::bind(&place.address).unwrap();
    let client = place.client(Coding::Gzip);
    let sending = tokio::spawn({
        let client = client.clone();
        async move {
            let mut batcher = Batcher::new(Form::Array, BatchLimits::USUAL);
            (0..100).for_each(|id| batcher.put(json!({"id": id}).to_string().as_bytes()));
            let place = Place {
                origin: "first",
                number: 0,
            };
            client
                .send(
                    &"shop.items".parse().unwrap(),
                    place,
                    &batcher.take(),
                    Mode::Partial,
                )
                .await
        }
    });
    drop(deaf.accept().unwrap());
    drop(deaf);
    let server = place.serve();
    let sent = sending.await.unwrap().unwrap();
    assert!(
        sent.attempts > 1 && !sent.replayed && sent.accepted == 100,
        "{sent:?}"
    );

    // A process that died after half of it sends all of it again.
    let limits = BatchLimits {
        records_max: 50,
        ..BatchLimits::USUAL
    };
    for (until, replayed) in [(200, 0), (300, 2)] {
        let client = place.client(Coding::Zstd);
        let mut producer = Producer::new(
            client,
            "shop.items".parse().unwrap(),
            "till-7",
            Mode::Partial,
            limits,
        );
        let mut before = 0;
        for id in 100..until {
            let sent = producer
                .push(json!({"id": id}).to_string().as_bytes())
                .await
                .unwrap();
            before += u64::from(sent.is_some_and(|sent| sent.replayed));
        }
        before += u64::from(producer.flush().await.unwrap().unwrap().replayed);
        assert_eq!(before, replayed);
    }
    let unsigned = Options {
        signature: None,
        ..Options::usual(place.url(), Credential::None)
    };
    let event = bytes::Bytes::from_static(b"{\"id\":1}");
    let events = "shop.events".parse().unwrap();
    assert!(
        Client::new(unsigned)
            .unwrap()
            .send_event(&events, "evt-1", event.clone())
            .await
            .is_err()
    );
    for replayed in [false, true] {
        let sent = client.send_event(&events, "evt-1", event.clone()).await.unwrap();
        assert_eq!(sent.replayed, replayed);
    }
    assert!(client.limits(&target).await.unwrap().batch == BatchLimits::USUAL);
    server.stop();
    assert_eq!(place.ids("shop.items").await, once(0..300));
    assert_eq!(place.ids("shop.events").await, once(1..2));
    let pages = place.landed("shop.items").await;
    let (facts, _) = &pages[0];
    assert_eq!(facts.attempts, sent.attempts);
    assert!(
        facts.idempotency_key.is_some() && facts.first_seen_at.unwrap() < facts.fetched_at,
        "{facts:?}"
    );
}
