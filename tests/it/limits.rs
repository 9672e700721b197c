//! One budget for several processes, counted by the server they ask.

use std::{
    collections::BTreeSet,
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Path, State},
    routing::get,
};

use crate::support::{project::TestProject, redis::Redis};

/// What one token may send.
const REQUESTS: usize = 40;
const PER: Duration = Duration::from_secs(1);

/// Slices that a process asks for at once.
const WORKERS: usize = 10;

/// An API whose pages go on until a moment; it notes who asks, and when.
struct Counting {
    base_url: String,
    seen: Arc<Seen>,
    server: tokio::task::JoinHandle<()>,
}

struct Seen {
    until: Instant,
    requests: Mutex<Vec<(Instant, String)>>,
}

impl Counting {
    async fn start(lasts: Duration) -> Self {
        let seen = Arc::new(Seen {
            until: Instant::now() + lasts,
            requests: Mutex::default(),
        });
        let page = |State(seen): State<Arc<Seen>>, Path(who): Path<String>| async move {
            let now = Instant::now();
            let mut requests = seen.requests.lock().unwrap();
            requests.push((now, who));
            let number = requests.len();
            if now < seen.until {
                format!(r#"{{"data":[{{"id":{number}}}],"next":"{number}"}}"#)
            } else {
                r#"{"data":[],"next":null}"#.to_owned()
            }
        };
        let app = Router::new()
            .route("/{who}/items", get(page))
            .with_state(Arc::clone(&seen));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            base_url,
            seen,
            server,
        }
    }

    fn times(&self) -> Vec<Instant> {
        let requests = self.seen.requests.lock().unwrap();
        requests.iter().map(|(at, _)| *at).collect()
    }

    /// Returns when this many requests have come in all.
    async fn has_answered(&self, requests: usize) {
        let begun = Instant::now();
        while self.times().len() < requests {
            assert!(begun.elapsed() < PER * 30, "no more requests come");
            tokio::task::yield_now().await;
        }
    }

    /// Requests by one of the processes while there were pages.
    fn by(&self, who: &str) -> usize {
        let requests = self.seen.requests.lock().unwrap();
        let counted = requests
            .iter()
            .filter(|(at, known)| known == who && *at < self.seen.until);
        counted.count()
    }

    /// Most requests in any window. They do not arrive as evenly as they go, on a busy machine least of all.
    fn most_in_a_window(&self) -> usize {
        let window = PER - PER / 10;
        let times = self.times();
        let counts = times.iter().enumerate().map(|(at, begin)| {
            let within = times[at..]
                .iter()
                .take_while(|time| time.duration_since(*begin) < window);
            within.count()
        });
        counts.max().unwrap_or(0)
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A project of its own lake that shares the budget with the others.
fn project(server: &Counting, who: &str, share: &str) -> TestProject {
    let values: Vec<String> = (0..WORKERS).map(|number| format!("s{number}")).collect();
    let streams = format!(
        "      items:
        request: {{ path: '/items', params: {{ part: '{{{{ slice.part }}}}' }} }}
        records: $.data[*]
        paginate: {{ type: cursor, from: $.next, param: cursor }}
        slices: {{ by: [{{ list: part, values: [{}] }}], at_once: {WORKERS} }}
        table: {{ keys: [id] }}
",
        values.join(", ")
    );
    let project = TestProject::with_lake(&format!("{}/{who}", server.base_url), &streams, "lake: ./lake");
    let text = std::fs::read_to_string(project.path().join("landfall.yml")).unwrap();
    let limit = format!(
        "    rate_limit: {{ requests: {REQUESTS}, per: 1s, processes: 2, share: {share} }}\n    streams:"
    );
    project.write("landfall.yml", &text.replace("    streams:", &limit));
    project
}

/// `landfall extract` in a process of its own that writes its log to a file.
fn extract(project: &TestProject) -> Child {
    let log = std::fs::File::create(project.path().join("log")).unwrap();
    let mut command = project.command(&["extract"]);
    command.env("LANDFALL_LOG", "landfall=debug");
    command.stdout(Stdio::null()).stderr(Stdio::from(log));
    command.spawn().unwrap()
}

async fn end(processes: [Child; 2]) {
    let wait = |mut process: Child| process.wait().unwrap();
    let ended = tokio::task::spawn_blocking(move || processes.map(wait))
        .await
        .unwrap();
    assert!(ended.iter().all(std::process::ExitStatus::success), "{ended:?}");
}

/// The id of the grant that each request of the log went by.
fn grants(project: &TestProject) -> Vec<String> {
    let log = std::fs::read_to_string(project.path().join("log")).unwrap();
    let sent = log.lines().filter(|line| line.contains("request answered"));
    sent.map(|line| {
        let (_, rest) = line
            .split_once("grant=")
            .unwrap_or_else(|| panic!("no grant: {line}"));
        rest.split_whitespace()
            .next()
            .unwrap()
            .trim_matches('"')
            .to_owned()
    })
    .collect()
}

async fn two_processes_share(share: &str, by: &str) {
    let server = Counting::start(PER * 5).await;
    let projects = ["one", "other"].map(|who| project(&server, who, share));
    end([extract(&projects[0]), extract(&projects[1])]).await;

    let (one, other) = (server.by("one"), server.by("other"));
    let most = server.most_in_a_window();
    assert!(most <= REQUESTS, "{most} in one window; {one} and {other}");
    // The windows of 1.02 s that begin within five seconds, less one for the start of the processes.
    assert!(one + other >= 3 * REQUESTS, "{one} and {other}");
    assert!(one.min(other) * 3 >= one + other - REQUESTS, "{one} and {other}");

    // R041: every request went by a grant, and no two by the same.
    let ids: Vec<String> = projects.iter().flat_map(grants).collect();
    assert_eq!(ids.len(), server.times().len());
    assert!(ids.iter().all(|id| id.starts_with(by)), "{ids:?}");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn r040_r041_f068_two_processes_of_ten_workers_share_one_budget_by_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let share = format!("{{ file: {}, key: token }}", dir.path().join("budget").display());
    two_processes_share(&share, "file-").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r040_r041_f068_two_processes_of_ten_workers_share_one_budget_by_redis() {
    let redis = Redis::start();
    let share = format!("{{ redis: '{}', key: token }}", redis.url());
    two_processes_share(&share, "redis-").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f069_a_redis_that_dies_and_comes_back_empty_never_lets_more_go() {
    let mut redis = Redis::start();
    let server = Counting::start(PER * 10).await;
    let share = format!("{{ redis: '{}', key: token }}", redis.url());
    let projects = ["one", "other"].map(|who| project(&server, who, &share));
    let processes = [extract(&projects[0]), extract(&projects[1])];
    server.has_answered(REQUESTS * 2).await;
    redis.kill();
    let killed = Instant::now();
    server.has_answered(server.times().len() + REQUESTS * 2).await;
    redis.restart();
    let restarted = Instant::now();
    end(processes).await;

    let most = server.most_in_a_window();
    assert!(most <= REQUESTS, "{most} in one window");
    let times = server.times();
    let between =
        |from: Instant, to: Instant| times.iter().filter(|time| **time >= from && **time < to).count();
    let alone = between(killed + PER, restarted);
    assert!(
        (REQUESTS / 2..=REQUESTS * 5 / 2).contains(&alone),
        "{alone} while Redis was away"
    );
    let after = between(restarted + PER + PER / 2, restarted + PER * 4);
    assert!(after >= REQUESTS, "{after} after Redis was back");
    // Said once by each, not with every request.
    for project in &projects {
        let log = std::fs::read_to_string(project.path().join("log")).unwrap();
        assert_eq!(
            log.matches("the shared rate limit cannot be reached").count(),
            1,
            "{log}"
        );
    }
}
