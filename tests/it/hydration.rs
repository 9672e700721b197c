//! Webhooks that say little: the record is fetched, once, whatever dies or fails in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use futures::TryStreamExt as _;
use landfall::{
    clock::{Clock, Timestamp},
    config::{Project, StreamName},
    ops::{
        Workspace,
        extract::{Channels, Options, extract, hydrate::DeadLetters},
    },
    raw::{
        BatchNumber, Bookmark, Page, PageFacts,
        expire::{Expired, Keep, due, expire},
        letter::{DEAD_LETTERS_MAX, UNNAMED},
        log::RawLog,
        read::{PageRead, read_object},
        write::Landing,
    },
    table::Tables,
};
use object_store::{ObjectStore, ObjectStoreExt as _, memory::InMemory, path::Path};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    pushed_gaps::watch,
    support::{
        answers::{Answer, Answers},
        project::TestProject,
        serving::Server,
    },
};

const SECRET: &str = "correct horse";

/// `landfall serve` as a sender of webhooks meets it.
pub struct Serving(Server);

impl Serving {
    pub fn start(project: &TestProject) -> Self {
        Self(Server::start(project))
    }

    /// Sends `event` to the webhook of `stream`, which is `source/stream`.
    pub fn hook(&self, stream: &str, event: &Value) -> (u16, Value) {
        runtime().block_on(self.send(stream, event))
    }

    async fn send(&self, stream: &str, event: &Value) -> (u16, Value) {
        let sent = reqwest::Client::new()
            .post(format!("{}/v1/webhooks/{stream}", self.0.producers))
            .header("x-secret", SECRET)
            .header("content-type", "application/json")
            .body(event.to_string());
        let answer = sent.send().await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.bytes().await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// Asks it to end, and waits for that.
    pub fn stop(self) {
        self.0.stop();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// A project whose `order_events` only name orders, and whose `orders` are made like `orders`.
fn project(base_url: &str, orders: &str) -> TestProject {
    let mut project = TestProject::new("http://127.0.0.1:9", "\n");
    let text = format!(
        r"lake: ./lake
serve: {{ listen: '127.0.0.1:0', admin_listen: '127.0.0.1:0' }}
sources:
  shop:
    base_url: {base_url}
    retry: {{ attempts_max: 1 }}
    breaker: {{ failures: 1000 }}
    streams:
      order_events:
        webhook:
          scheme: shared_secret
          header: X-Secret
          secrets: {{ main: '${{env:HOOK_SECRET}}' }}
          event_id: $.event
        records: $
        table: {{ keys: [event] }}
      orders:
        hydrate:
          from: order_events
          values: {{ id: $.data.id }}
          only: parent.type != 'order.viewed'
          request: {{ path: '/orders/{{{{ slice.id }}}}' }}
          records: $.order
          attempts_max: 3
          backoff_start: 1ms
          backoff_max: 1ms
        table: {{ keys: [id], sequence_by: [updated] }}
{orders}"
    );
    project.write("landfall.yml", &text);
    project.env("HOOK_SECRET", SECRET);
    project
}

fn event(number: u32, id: &str) -> Value {
    json!({"event": format!("e{number}"), "type": "order.changed", "data": {"id": id}})
}

fn order(path: &str) -> Answer {
    let id = path.strip_prefix("/orders/").unwrap();
    Answer::from(json!({"order": {"id": id, "updated": 1, "total": 9}}))
}

fn send(project: &TestProject, events: &[Value]) {
    let server = Serving::start(project);
    for event in events {
        let (status, answer) = server.hook("shop/order_events", event);
        assert_eq!(status, 200, "{answer}");
    }
    server.stop();
}

fn ids(project: &TestProject) -> Vec<String> {
    let rows = project.rows("shop.orders");
    let ids = rows.iter().map(|row| row["id"].as_str().unwrap().to_owned());
    ids.collect()
}

#[test]
fn r104_a_record_that_fails_twice_is_fetched_at_last_and_is_one_row() {
    let api = Answers::start(|asked| match asked.number {
        0 | 1 => Answer::status(500),
        _ => order(&asked.path),
    });
    let project = project(&api.base_url, "");
    project.ok(&["check"]);
    let viewed = json!({"event": "e9", "type": "order.viewed", "data": {"id": "8"}});
    send(&project, &[event(1, "7"), event(2, "7"), viewed]);
    let planned = project.ok(&["extract", "--dry-run"]);
    assert!(planned.stdout.contains("/orders/7"), "{}", planned.stdout);

    for _ in 0..2 {
        let ran = project.ok(&["extract", "shop.orders"]);
        assert!(ran.stderr.contains("tried again later"), "{}", ran.stderr);
        let status = project.ok(&["status"]).stdout;
        assert!(status.contains("1 waiting for another attempt"), "{status}");
    }
    project.ok(&["run"]);
    assert_eq!(ids(&project), ["7"]);
    // Two events, one record: it was asked for once in each run, and no more now that it is there.
    assert_eq!(api.take().len(), 3);
    project.ok(&["run"]);
    assert_eq!(api.take().len(), 0);
    let status = project.ok(&["status"]).stdout;
    assert!(status.contains("every record they name is landed"), "{status}");
    project.ok(&["verify"]);
    project.ok(&["rebuild", "shop.orders"]);
    assert_eq!(ids(&project), ["7"]);
}

#[test]
fn r104_a_crash_between_the_record_and_its_mark_leaves_one_row() {
    let api = Answers::start(|asked| order(&asked.path));
    let project = project(&api.base_url, "");
    send(&project, &[event(1, "7"), event(2, "8")]);
    // Fetched and nothing landed; landed together with its mark; loaded and not known to be.
    for (point, requests) in [
        ("extract::page_appended", 1..=2),
        ("raw::before_commit", 2..=2),
        ("raw::after_commit", 2..=2),
    ] {
        let killed = project.run_armed(&["extract", "shop.orders"], &format!("{point}=return"));
        assert_eq!(killed.code, None, "{point}: {}", killed.stderr);
        let asked = api.take().len();
        assert!(requests.contains(&asked), "{point}: {asked}");
    }
    // The last of them stood, and its mark with it.
    project.ok(&["run"]);
    assert_eq!(api.take().len(), 0);
    assert_eq!(ids(&project), ["7", "8"]);
    // The same event under another id, as a sender repeats it that lost its memory.
    send(&project, &[event(3, "7")]);
    project.ok(&["run"]);
    assert_eq!(ids(&project), ["7", "8"]);
    project.ok(&["verify"]);
}

#[test]
fn r105_a_poison_event_is_a_dead_letter_and_the_others_flow() {
    let healed = Arc::new(Mutex::new(false));
    let is_healed = Arc::clone(&healed);
    let api = Answers::start(move |asked| match asked.path.as_str() {
        "/orders/bad" if !*is_healed.lock().unwrap() => Answer::status(500),
        path => order(path),
    });
    let project = project(&api.base_url, "");
    let nameless = json!({"event": "e4", "type": "order.changed"});
    send(
        &project,
        &[nameless, event(1, "7"), event(2, "bad"), event(3, "8")],
    );
    let planned = project.ok(&["extract", "--dry-run"]);
    assert!(planned.stdout.contains("/orders/8"), "{}", planned.stdout);

    project.ok(&["run"]);
    assert_eq!(ids(&project), ["7", "8"]);
    project.ok(&["run", "shop.orders"]);
    project.ok(&["run", "shop.orders"]);
    let bad = |api: &Answers| {
        let asked = api.take();
        asked.iter().filter(|asked| asked.path == "/orders/bad").count()
    };
    assert_eq!(bad(&api), 3, "as often as the file says");
    project.ok(&["run"]);
    assert_eq!(bad(&api), 0, "and then no more");

    let status = project.ok(&["status"]).stdout;
    assert!(status.contains("2 given up"), "{status}");
    let gaps = project.fails(&["gaps", "--format", "json"], &["2 gaps"]).stdout;
    assert!(gaps.contains("dead_letter") && gaps.contains("bad"), "{gaps}");
    assert!(gaps.contains("500") && gaps.contains(UNNAMED), "{gaps}");

    // Others still flow, and what is released comes in its place.
    send(&project, &[event(5, "9")]);
    project.ok(&["run"]);
    assert_eq!(ids(&project), ["7", "8", "9"]);
    *healed.lock().unwrap() = true;
    project.ok(&["run", "--retry-dead-letters"]);
    assert_eq!(ids(&project), ["7", "8", "9", "bad"]);
    let status = project.ok(&["status"]).stdout;
    assert!(status.contains("1 given up"), "the nameless one: {status}");
    let discarded = project.ok(&["run", "--discard-dead-letters"]).stderr;
    assert!(discarded.contains("dead letter discarded"), "{discarded}");
    assert!(discarded.contains("1 dead letters were discarded"), "{discarded}");
    let status = project.ok(&["status"]).stdout;
    assert!(status.contains("every record they name is landed"), "{status}");
    project.ok(&["gaps"]);
    project.ok(&["verify"]);
}

#[test]
fn r017_what_lists_bring_and_what_events_name_is_one_row() {
    let api = Answers::start(|asked| match asked.path.as_str() {
        "/orders" => Answer::from(json!({"data": [
            {"id": "7", "updated": 1, "total": 1}, {"id": "6", "updated": 1, "total": 6},
        ]})),
        _ => Answer::from(json!({"order": {"id": "7", "updated": 2, "total": 2}})),
    });
    let lists = "        request: { path: /orders }\n        records: $.data[*]\n";
    let project = project(&api.base_url, lists);
    project.ok(&["run"]);
    send(&project, &[event(1, "7")]);
    project.ok(&["run"]);
    let rows = [
        json!({"id": "6", "updated": 1, "total": 6}),
        json!({"id": "7", "updated": 2, "total": 2}),
    ];
    assert_eq!(project.rows("shop.orders"), rows);
    let paths: Vec<String> = api.take().into_iter().map(|asked| asked.path).collect();
    assert_eq!(paths, ["/orders", "/orders/7", "/orders"]);
    project.ok(&["verify"]);
    let explained = project.ok(&["explain", "shop.orders", "7"]).stdout;
    assert!(explained.contains("/orders/7"), "{explained}");
}

#[test]
fn while_it_stays_an_event_fetches_its_record_and_no_list() {
    let api = Answers::start(|asked| match asked.path.as_str() {
        "/orders" => Answer::from(json!({"data": [{"id": "6", "updated": 1}]})),
        path => order(path),
    });
    let lists =
        "        request: { path: /orders }\n        records: $.data[*]\n        schedule: '@monthly'\n";
    let project = project(&api.base_url, lists);
    project.ok(&["run"]);
    assert_eq!(api.take().len(), 1);
    send(&project, &[event(1, "7")]);
    // What is fetched is loaded when the run has asked for everything that it asks for.
    watch(&project, || ids(&project).len() == 2);
    let paths: Vec<String> = api.take().into_iter().map(|asked| asked.path).collect();
    assert_eq!(paths, ["/orders/7"]);
}

/// A lake in memory, a clock that is set, and an API that fails each order as often as it is told to.
struct World {
    workspace: Workspace,
    hours: Arc<AtomicI64>,
    api: Answers,
    landed_events: Vec<Vec<String>>,
    _project: TestProject,
}

const ATTEMPTS_MAX: u32 = 3;

impl World {
    fn new(failures: BTreeMap<String, u32>) -> Self {
        let asked = Mutex::new(BTreeMap::<String, u32>::new());
        let api = Answers::start(move |request| {
            let id = request.path.strip_prefix("/orders/").unwrap().to_owned();
            let mut asked = asked.lock().unwrap();
            let times = asked.entry(id.clone()).or_default();
            *times += 1;
            match failures.get(&id) {
                Some(failures) if *times <= *failures => Answer::status(503),
                _ => order(&request.path),
            }
        });
        let project = project(&api.base_url, "");
        let text = std::fs::read_to_string(project.path().join("landfall.yml")).unwrap();
        // A condition that cannot be told of an event without data.
        let text = text.replace("parent.type != 'order.viewed'", "parent.data.id != 'viewed'");
        let hourly = text.replace("backoff_start: 1ms", "backoff_start: 30m");
        project.write(
            "landfall.yml",
            &hourly.replace("backoff_max: 1ms", "backoff_max: 1h"),
        );
        let parsed: Project = landfall::config::read::load(project.path()).unwrap().project;
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let hours = Arc::new(AtomicI64::new(0));
        let shown = Arc::clone(&hours);
        let workspace = Workspace {
            project: Arc::new(parsed),
            tables: Tables::new(Arc::clone(&store)).unwrap(),
            store,
            clock: Clock::from_fn(move || {
                Timestamp::UNIX_EPOCH + std::time::Duration::from_secs(3600 * shown.load(Relaxed) as u64)
            }),
            lineage: None,
        };
        Self {
            workspace,
            hours,
            api,
            landed_events: Vec::new(),
            _project: project,
        }
    }

    fn name(stream: &str) -> StreamName {
        StreamName::parse(&format!("shop.{stream}")).unwrap()
    }

    /// Lands one raw batch of events; an empty name is an event that names nothing.
    async fn land(&mut self, names: &[String]) {
        let mut landing = Landing::open(
            Arc::clone(&self.workspace.store),
            Self::name("order_events"),
            self.workspace.clock.clone(),
            "run".to_owned(),
            "hash".to_owned(),
        )
        .await
        .unwrap();
        for name in names {
            let body = match name.as_str() {
                "" => "{\"event\":\"x\",\"type\":\"t\"}".to_owned(),
                "?" => "not json".to_owned(),
                name => json!({"event": "x", "type": "t", "data": {"id": name}}).to_string(),
            };
            let facts = PageFacts::new(self.workspace.clock.now(), "POST", "/hook", 200);
            let body = Bytes::from(body);
            landing.append(Page { body, facts }).await.unwrap();
        }
        landing.commit_push(None).await.unwrap();
        self.landed_events.push(names.to_vec());
    }

    async fn hydrate(&self, dead_letters: DeadLetters) {
        self.try_hydrate(dead_letters).await.unwrap();
    }

    async fn try_hydrate(&self, dead_letters: DeadLetters) -> landfall::error::Result<()> {
        self.hours.fetch_add(2, Relaxed);
        let options = Options {
            dead_letters,
            ..Options::changes(vec![Self::name("orders")])
        };
        let channels = Channels::open(&self.workspace);
        let mut outcomes = extract(&self.workspace, &channels, &options, &|_, _| {}).await;
        outcomes.swap_remove(0).result.map(|_| ())
    }

    fn events(&self) -> RawLog {
        RawLog {
            store: Arc::clone(&self.workspace.store),
            stream: Self::name("order_events"),
        }
    }

    /// Has the raw of the first `count` batches of events expire.
    async fn expire(&self, count: i64) {
        let keep = Keep {
            from: BatchNumber::new(count).unwrap(),
            single: BTreeSet::new(),
        };
        let (log, now) = (self.events(), self.workspace.clock.now());
        let later = now + std::time::Duration::from_secs(1);
        let none = Expired::default();
        let due = due(&log, &none, &keep, later, BatchNumber::FIRST).await;
        expire(&log, &due.unwrap(), now).await.unwrap();
    }

    /// Loses the pages of a batch of events.
    async fn lose(&self, batch: i64) {
        let entry = self.events().entry(BatchNumber::new(batch).unwrap()).await;
        for object in entry.unwrap().unwrap().objects {
            let path = Path::from(object.path.as_str());
            self.workspace.store.delete(&path).await.unwrap();
        }
    }

    /// The bookmark of what events name, and the orders that are landed.
    async fn standing(&self) -> (Bookmark, BTreeSet<String>) {
        let log = RawLog {
            store: Arc::clone(&self.workspace.store),
            stream: Self::name("orders"),
        };
        let mut landed = BTreeSet::new();
        let Some(head) = log.head().await.unwrap() else {
            return (Bookmark::default(), landed);
        };
        let mut entries = log.entries(BatchNumber::FIRST..=head.number);
        while let Some(entry) = entries.try_next().await.unwrap() {
            for object in 0..entry.objects.len() {
                for page in read_object(self.workspace.store.as_ref(), &entry, object)
                    .await
                    .unwrap()
                {
                    let PageRead::Page(page) = page else { panic!() };
                    let facts = page.facts.unwrap();
                    assert!(facts.hydrated);
                    landed.insert(facts.slice.unwrap()["id"].as_str().unwrap().to_owned());
                }
            }
        }
        let hydration = head.bookmark.unwrap().hydration.unwrap();
        (*hydration, landed)
    }

    /// Every event that the bookmark has passed is landed, waits, or is a dead letter.
    async fn assert_none_is_lost(&self) -> (Bookmark, BTreeSet<String>) {
        let (bookmark, landed) = self.standing().await;
        let passed = bookmark
            .parents
            .get("order_events")
            .map_or(0, |last| last.get() + 1);
        for (batch, names) in self.landed_events.iter().take(passed as usize).enumerate() {
            for (page, name) in names.iter().enumerate() {
                let is_unnamed = name.is_empty() || name == "?";
                let place = if name == "?" {
                    format!("{batch}/{page}")
                } else {
                    format!("{batch}/{page}/0")
                };
                let is_it = |values: &serde_json::Map<String, Value>| match is_unnamed {
                    true => values.get(UNNAMED) == Some(&json!(place)),
                    false => values.get("id") == Some(&json!(name)),
                };
                let waits = bookmark
                    .waiting()
                    .any(|(_, mark)| mark.failed.as_ref().is_some_and(is_it));
                let is_dead = bookmark.dead.values().any(|letter| is_it(&letter.values));
                assert!(
                    landed.contains(name) || waits || is_dead,
                    "{name:?} of batch {batch} is lost: {bookmark:?}"
                );
            }
        }
        (bookmark, landed)
    }
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (0..9_u8).prop_map(|number| format!("o{number}")),
        1 => Just(String::new()),
        1 => Just("?".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, max_shrink_iters: 40, ..ProptestConfig::default() })]

    #[test]
    fn r104_r105_the_bookmark_never_passes_an_event_neither_landed_nor_set_aside(
        batches in prop::collection::vec(prop::collection::vec(name(), 1..5), 1..6),
        failures in prop::collection::btree_map((0..9_u8).prop_map(|number| format!("o{number}")), 0..6_u32, 0..6),
    ) {
        let mut world = World::new(failures.clone());
        runtime().block_on(async {
            for batch in &batches {
                world.land(batch).await;
                world.hydrate(DeadLetters::Left).await;
                world.assert_none_is_lost().await;
            }
            for _ in 0..ATTEMPTS_MAX {
                world.hydrate(DeadLetters::Left).await;
            }
            // None waits any more, and those that failed too often are the dead letters.
            let (bookmark, landed) = world.assert_none_is_lost().await;
            assert_eq!(bookmark.waiting().count(), 0);
            assert_eq!(bookmark.parents["order_events"].get() as usize, batches.len() - 1);
            let named: BTreeSet<&String> = batches.iter().flatten().filter(|name| name.starts_with('o')).collect();
            for name in named {
                let often = failures.get(name).copied().unwrap_or(0) >= ATTEMPTS_MAX;
                // One that was named again after it was given up was tried again.
                assert!(landed.contains(name) || often, "{name}");
            }
            world.api.take();
            // Released, everything that can be fetched is.
            for _ in 0..=ATTEMPTS_MAX {
                world.hydrate(DeadLetters::Retried).await;
            }
            let (bookmark, landed) = world.assert_none_is_lost().await;
            for letter in bookmark.dead.values() {
                assert!(letter.values.contains_key(UNNAMED), "{letter:?}");
            }
            let named = batches.iter().flatten().filter(|name| name.starts_with('o'));
            assert_eq!(landed, named.cloned().collect());
        });
    }
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number}")).collect()
}

fn places(bookmark: &Bookmark) -> Vec<&str> {
    let letters = bookmark.dead.values();
    letters
        .filter_map(|letter| letter.values.get(UNNAMED)?.as_str())
        .collect()
}

#[test]
fn an_api_that_fails_everything_ends_the_run_and_loses_no_event() {
    let all = names("o", 250);
    let mut world = World::new(all.iter().map(|name| (name.clone(), 1)).collect());
    runtime().block_on(async {
        world.land(&all).await;
        let error = world.try_hydrate(DeadLetters::Left).await.unwrap_err();
        assert!(error.chain().contains("failed: 100"), "{error:?}");
        let (bookmark, landed) = world.assert_none_is_lost().await;
        assert!(bookmark.pass.is_some(), "it is not over");
        assert_eq!((bookmark.parents.len(), landed.len()), (0, 0));
        assert_eq!(bookmark.waiting().count(), 100);
        // It fails each of them once.
        for _ in 0..4 {
            let _ = world.try_hydrate(DeadLetters::Left).await;
        }
        let (bookmark, landed) = world.assert_none_is_lost().await;
        assert_eq!((landed.len(), bookmark.dead.len()), (250, 0));
        assert_eq!(bookmark.pass, None);
    });
}

#[test]
fn an_event_whose_request_cannot_be_made_is_a_dead_letter_and_the_others_flow() {
    let mut world = World::new(BTreeMap::new());
    runtime().block_on(async {
        world.land(&["..".to_owned(), "o1".to_owned()]).await;
        world.hydrate(DeadLetters::Left).await;
        let (bookmark, landed) = world.assert_none_is_lost().await;
        assert_eq!(landed, BTreeSet::from(["o1".to_owned()]));
        let letters: Vec<_> = bookmark.dead.values().collect();
        assert_eq!((letters.len(), &letters[0].values["id"]), (1, &json!("..")));
        assert!(letters[0].reason.contains("render path"), "{}", letters[0].reason);
        // Nor can it be told of an event without data whether it is wanted.
        world
            .land(&["..".to_owned(), String::new(), "o2".to_owned()])
            .await;
        world.hydrate(DeadLetters::Left).await;
        let (bookmark, landed) = world.assert_none_is_lost().await;
        assert_eq!((places(&bookmark), landed.len()), (vec!["1/1/0"], 2));
    });
}

#[test]
fn dead_letters_that_are_too_many_fail_the_run_until_they_are_discarded() {
    let mut world = World::new(BTreeMap::new());
    runtime().block_on(async {
        world.land(&vec![String::new(); DEAD_LETTERS_MAX + 1]).await;
        let error = world.try_hydrate(DeadLetters::Left).await.unwrap_err();
        assert!(error.chain().contains("--discard-dead-letters"), "{error:?}");
        let (bookmark, _) = world.assert_none_is_lost().await;
        assert_eq!(
            (bookmark.dead.len(), bookmark.waiting().count()),
            (DEAD_LETTERS_MAX, 1)
        );
        // Those that can be fetched flow, and the run still says that something is wrong.
        world.land(&["o1".to_owned()]).await;
        assert!(world.try_hydrate(DeadLetters::Left).await.is_err());
        let (bookmark, landed) = world.assert_none_is_lost().await;
        assert_eq!(landed.len(), 1);
        assert_eq!(bookmark.needs_from("order_events"), BatchNumber::FIRST);
        for _ in 0..2 {
            world.hydrate(DeadLetters::Discarded).await;
        }
        let (bookmark, _) = world.standing().await;
        assert_eq!((bookmark.dead.len(), bookmark.waiting().count()), (0, 0));
        assert_eq!(bookmark.needs_from("order_events").get(), 2);
    });
}

#[test]
fn events_that_expired_unread_are_passed_over() {
    for (expired, expected) in [(2, vec!["o2"]), (3, vec![])] {
        let mut world = World::new(BTreeMap::new());
        runtime().block_on(async {
            for name in ["o0", "o1", "o2"] {
                world.land(&[name.to_owned()]).await;
            }
            world.expire(expired).await;
            for _ in 0..2 {
                world.hydrate(DeadLetters::Left).await;
                let (bookmark, landed) = world.standing().await;
                assert_eq!(landed.iter().collect::<Vec<_>>(), expected);
                assert_eq!((bookmark.parents["order_events"].get(), bookmark.pass), (2, None));
            }
            world.land(&["o3".to_owned()]).await;
            world.hydrate(DeadLetters::Left).await;
            assert!(world.standing().await.1.contains("o3"));
        });
    }
}

#[test]
fn events_that_are_lost_are_a_dead_letter_and_hold_no_other() {
    let mut world = World::new(BTreeMap::new());
    runtime().block_on(async {
        world.land(&["o0".to_owned()]).await;
        world.land(&["o1".to_owned()]).await;
        world.lose(0).await;
        world.hydrate(DeadLetters::Left).await;
        let (bookmark, landed) = world.standing().await;
        assert_eq!(
            (places(&bookmark), landed),
            (vec!["0/0"], BTreeSet::from(["o1".to_owned()]))
        );
    });
}

#[test]
fn events_that_are_lost_within_a_pass_hide_no_other() {
    // A hundred that fail once end the first run; ten were done before.
    let first = names("o", 110);
    let fail_once = first.iter().skip(10).map(|name| (name.clone(), 1)).collect();
    let mut world = World::new(fail_once);
    runtime().block_on(async {
        let later = names("p", 12);
        world.land(&first).await;
        world.land(&later).await;
        assert!(world.try_hydrate(DeadLetters::Left).await.is_err());
        let (bookmark, _) = world.standing().await;
        assert!(bookmark.pass.unwrap().done.count() >= 10);
        world.lose(0).await;
        assert!(world.try_hydrate(DeadLetters::Left).await.is_err());
        for _ in 0..2 {
            world.hydrate(DeadLetters::Left).await;
        }
        let (bookmark, landed) = world.standing().await;
        assert_eq!((places(&bookmark), bookmark.waiting().count()), (vec!["0/0"], 0));
        for name in first.iter().chain(&later) {
            assert!(landed.contains(name), "{name}");
        }
    });
}
