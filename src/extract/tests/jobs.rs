//! Export jobs against a scripted server: created, waited for, downloaded, removed; and resumed wherever a run ends.

mod ends;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Map, Value};

use super::server::{Received, Reply, Server, extract, extraction, json, path, source, status};

use crate::{
    config::{
        Source,
        format::{Csv, Format, Syntax},
        job::Job,
        paginate::Paginate,
        request::{Body, Method, Place, Request, TokenSlot, Tree},
        slice::{SliceBy, Slicing},
        text::Text,
    },
    extract::{sweep::Slices, window::Position},
    raw::Bookmark,
};

/// What the server is asked, without query: `POST /exports`.
type Asked = Arc<Mutex<Vec<String>>>;

/// A server with an export: answers to polls come in turn, the last one again and again.
struct Exports {
    server: Server,
    asked: Asked,
}

impl Exports {
    async fn start(polls: &[&str]) -> Self {
        Self::with(polls, |_, _| None).await
    }

    /// `other` answers what it likes before the script does.
    async fn with(
        polls: &[&str],
        other: impl Fn(&str, &Received) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let mut polls: VecDeque<String> = polls.iter().map(|poll| (*poll).to_owned()).collect();
        let asked = Asked::default();
        let log = Arc::clone(&asked);
        let left = Mutex::new(std::mem::take(&mut polls));
        let created = Mutex::new(0);
        let server = Server::start(move |_, received| {
            let what = what(received);
            log.lock().unwrap().push(what.clone());
            if let Some(reply) = other(&what, received) {
                return reply;
            }
            match what.as_str() {
                "POST /exports" => {
                    let mut created = created.lock().unwrap();
                    *created += 1;
                    json(&format!(r#"{{"id":"j{created}","token":"t{created}"}}"#))
                }
                file if file.starts_with("GET /files/") => {
                    let name = file.rsplit('/').next().unwrap();
                    status(
                        200,
                        "content-type: text/csv\r\n",
                        format!("id\n{name}\n").as_bytes(),
                    )
                }
                poll if poll.starts_with("GET /exports/") => {
                    let mut left = left.lock().unwrap();
                    let answer = if left.len() > 1 {
                        left.pop_front()
                    } else {
                        left.front().cloned()
                    };
                    json(&answer.unwrap())
                }
                delete if delete.starts_with("DELETE ") => status(204, "", b""),
                _ => status(404, "", b""),
            }
        })
        .await;
        Self { server, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    fn count(&self, begins: &str) -> usize {
        self.asked()
            .iter()
            .filter(|what| what.starts_with(begins))
            .count()
    }
}

fn what(received: &Received) -> String {
    let method = received.head.split(' ').next().unwrap();
    let path = received.target.split('?').next().unwrap();
    format!("{method} {}", path.strip_prefix("/v1").unwrap())
}

fn request(method: Method, path: &str) -> Request {
    Request {
        method,
        path: Text::parse(path).unwrap(),
        params: Vec::new(),
        headers: Vec::new(),
        body: Body::None,
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A stream of CSV files that an export makes.
fn exporting(exports: &Exports) -> Source {
    let mut source = source(&exports.server.url, Paginate::Single);
    let stream = &mut source.streams[0];
    stream.request = Request {
        body: Body::Json(Tree::from(serde_json::json!({"report": "orders"}))),
        ..request(Method::Post, "/exports")
    };
    stream.format = Format {
        syntax: Syntax::Csv(Csv::standard()),
        ..Format::JSON
    };
    stream.job = Some(Job {
        id: Some(Place::Body(path("$.id"))),
        poll: request(Method::Get, "/exports/{{ job.id }}"),
        status: Some(path("$.status")),
        done: words(&["done"]),
        failed: words(&["failed"]),
        empty: words(&["none"]),
        expired: words(&["gone"]),
        running: Vec::new(),
        every: Duration::from_millis(2),
        timeout: Duration::from_secs(10),
        retries: 0,
        retry_wait: Duration::ZERO,
        list: None,
        urls: Some(path("$.urls[*]")),
        download: None,
        abort: None,
        delete: Some(request(Method::Delete, "/exports/{{ job.id }}")),
        hosts: Vec::new(),
    });
    source
}

fn job(source: &mut Source) -> &mut Job {
    source.streams[0].job.as_mut().unwrap()
}

const RUNNING: &str = r#"{"status":"running"}"#;
const DONE: &str = r#"{"status":"done","urls":["/v1/files/1","/v1/files/2"]}"#;

#[tokio::test]
async fn a_job_is_created_polled_downloaded_and_removed() {
    let exports = Exports::start(&[r#"{}"#, RUNNING, RUNNING, DONE]).await;
    let outcome = extract(&exporting(&exports), Bookmark::default()).await;
    outcome.result.as_ref().unwrap();
    assert_eq!(outcome.bodies(), ["id\n1\n", "id\n2\n"]);
    assert_eq!(outcome.records(), 2);
    assert_eq!(
        exports.asked(),
        [
            "POST /exports",
            "GET /exports/j1",
            "GET /exports/j1",
            "GET /exports/j1",
            "GET /exports/j1",
            "GET /files/1",
            "GET /files/2",
            "DELETE /exports/j1",
        ]
    );
    // Only results are pages.
    assert_eq!(outcome.counts.pages, 2);
    assert_eq!(outcome.counts.retries, 0);
}

/// Runs to the `steps`-th commit that has to be and to every page before it, drops the run there, and goes on from what
/// was kept.
async fn in_pieces(source: &Source) -> (Vec<String>, Bookmark) {
    let (mut bodies, mut bookmark) = (Vec::new(), Bookmark::default());
    for _ in 0..20 {
        let mut run = extraction(source, bookmark.clone());
        match run.next().await.unwrap() {
            None => return (bodies, run.bookmark().clone()),
            Some(fetched) => {
                bookmark = run.bookmark().clone();
                if let Some(page) = fetched.page {
                    bodies.push(String::from_utf8(page.body.to_vec()).unwrap());
                }
                if fetched.position == Position::Last {
                    return (bodies, bookmark);
                }
            }
        }
    }
    panic!("does not end");
}

#[tokio::test]
async fn a_run_that_ends_anywhere_is_gone_on_with_in_the_same_job() {
    let exports = Exports::start(&[RUNNING, RUNNING, DONE]).await;
    let (bodies, bookmark) = in_pieces(&exporting(&exports)).await;
    assert_eq!(bodies, ["id\n1\n", "id\n2\n"]);
    assert_eq!(exports.count("POST"), 1);
    assert_eq!(exports.count("DELETE"), 1);
    assert_eq!(bookmark.window, None);
    assert!(bookmark.last_success_at.is_some());
    // Once everything is committed nobody asks for it any more.
    let asked = exports.asked();
    assert_eq!(asked.last().map(String::as_str), Some("DELETE /exports/j1"));
}

#[tokio::test]
async fn the_job_is_in_the_bookmark_before_it_is_asked_for() {
    let exports = Exports::start(&[DONE]).await;
    let source = exporting(&exports);
    let mut run = extraction(&source, Bookmark::default());
    // That it is meant is committed first.
    drop(run.next().await.unwrap().unwrap());
    let kept = run.next().await.unwrap().unwrap();
    assert!(kept.page.is_none());
    assert_eq!(kept.position, Position::Kept);
    let mark = run.bookmark().window.as_ref().unwrap().job.clone().unwrap();
    assert_eq!((mark.id.as_deref(), mark.done), (Some("j1"), 0));
    // No template needs the answer, so it is not kept: it may hold what nobody should read.
    assert_eq!(mark.response, None);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(exports.asked(), ["POST /exports"]);
    drop(kept);
    let page = run.next().await.unwrap().unwrap();
    assert_eq!(&page.page.unwrap().body[..], b"id\n1\n");
    // What is committed with the last result comes before the job is removed.
    let last = run.next().await.unwrap().unwrap();
    assert_eq!(last.position, Position::Kept);
    assert!(
        run.bookmark()
            .window
            .as_ref()
            .unwrap()
            .job
            .as_ref()
            .unwrap()
            .complete
    );
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(exports.count("DELETE"), 0);
    drop(last);
    assert!(run.next().await.unwrap().is_none());
    assert_eq!(exports.count("DELETE"), 1);
}

#[tokio::test]
async fn results_that_are_landed_are_not_downloaded_again() {
    let exports = Exports::start(&[DONE]).await;
    let source = exporting(&exports);
    let first = extract(&source, Bookmark::default()).await;
    let between = first.pages[0].bookmark.clone();
    assert_eq!(between.window.as_ref().unwrap().job.as_ref().unwrap().done, 1);
    let before = exports.asked().len();
    let second = extract(&source, between.clone()).await;
    assert_eq!(second.bodies(), ["id\n2\n"]);
    assert_eq!(
        exports.asked()[before..],
        ["GET /exports/j1", "GET /files/2", "DELETE /exports/j1"]
    );
    // Other results than before: none of them can be taken for landed. A signature in the query is no other result.
    for (polled, bodies) in [
        (
            r#"{"status":"done","urls":["/v1/files/2","/v1/files/1"]}"#,
            &["id\n2\n", "id\n1\n"][..],
        ),
        (
            r#"{"status":"done","urls":["/v1/files/1?sig=a","/v1/files/2?sig=b"]}"#,
            &["id\n2\n"][..],
        ),
    ] {
        let exports = Exports::start(&[polled]).await;
        let mut source = exporting(&exports);
        source.base_url = exports.server.url.clone();
        let mut bookmark = between.clone();
        // Another port is another shape; the request itself is the same.
        bookmark.window.as_mut().unwrap().shape = None;
        let outcome = extract(&source, bookmark).await;
        outcome.result.as_ref().unwrap();
        assert_eq!(outcome.bodies(), bodies, "{polled}");
    }
}

#[tokio::test]
async fn a_failed_job_is_an_error_and_the_next_run_creates_another() {
    let exports = Exports::start(&[RUNNING, r#"{"status":"failed","reason":"too many rows"}"#, DONE]).await;
    let source = exporting(&exports);
    let mut run = extraction(&source, Bookmark::default());
    let mut last = None;
    let error = loop {
        match run.next().await {
            Ok(fetched) => last = Some((fetched.unwrap().position, run.bookmark().clone())),
            Err(error) => break error.chain(),
        }
    };
    assert!(
        error.contains("wait for export job") && error.contains("too many rows"),
        "{error}"
    );
    let (position, bookmark) = last.unwrap();
    assert_eq!(position, Position::Kept);
    assert_eq!(bookmark.window.as_ref().unwrap().job, None);
    let again = extract(&source, bookmark).await;
    again.result.as_ref().unwrap();
    assert_eq!(again.records(), 2);
    assert_eq!(exports.count("POST"), 2);
    assert_eq!(exports.asked().last().unwrap(), "DELETE /exports/j2");
}

#[tokio::test]
async fn a_failed_job_is_created_again_as_often_as_the_project_file_says() {
    const FAILED: &str = r#"{"status":"failed"}"#;
    for (retries, created) in [(0, 1), (1, 2), (2, 3), (5, 3)] {
        let exports = Exports::start(&[FAILED, FAILED, DONE]).await;
        let mut source = exporting(&exports);
        (job(&mut source).retries, job(&mut source).retry_wait) = (retries, Duration::from_millis(30));
        let begun = std::time::Instant::now();
        let outcome = extract(&source, Bookmark::default()).await;
        assert_eq!(outcome.result.is_ok(), retries >= 2, "{retries}");
        assert_eq!(outcome.records(), if retries >= 2 { 2 } else { 0 });
        assert_eq!(exports.count("POST"), created);
        let waits = u32::try_from(created).unwrap() - 1;
        assert!(begun.elapsed() >= Duration::from_millis(30) * waits);
    }
    // Only for one that says that it has failed.
    let exports = Exports::start(&[r#"{"status":"lost"}"#]).await;
    let mut source = exporting(&exports);
    (job(&mut source).retries, job(&mut source).running) = (2, words(&["running"]));
    let outcome = extract(&source, Bookmark::default()).await;
    assert!(outcome.error().contains("a status that job does not name"));
    assert_eq!(exports.count("POST"), 1);
}

#[tokio::test]
async fn statuses_mean_what_the_project_file_says() {
    // Nothing to download: the window is complete.
    let exports = Exports::start(&[r#"{"status":"none"}"#]).await;
    let outcome = extract(&exporting(&exports), Bookmark::default()).await;
    outcome.result.unwrap();
    assert!(outcome.pages.is_empty());
    assert_eq!(
        exports.asked(),
        ["POST /exports", "GET /exports/j1", "DELETE /exports/j1"]
    );
    // One that is nowhere.
    let exports = Exports::start(&[r#"{"status":"odd"}"#]).await;
    let mut source = exporting(&exports);
    job(&mut source).running = words(&["running"]);
    let error = extract(&source, Bookmark::default()).await.error();
    assert!(
        error.contains("a status that job does not name") && error.contains("odd"),
        "{error}"
    );
    // The HTTP status.
    let turns = Mutex::new(0);
    let exports = Exports::with(&[], move |what, _| {
        let mut turns = turns.lock().unwrap();
        *turns += usize::from(what.starts_with("GET /exports"));
        match (what, *turns) {
            ("GET /exports/j1", 1 | 2) => Some(status(202, "", b"")),
            ("GET /exports/j1", _) => Some(json(r#"{"urls":"/v1/files/9"}"#)),
            _ => None,
        }
    })
    .await;
    let mut source = exporting(&exports);
    (job(&mut source).status, job(&mut source).done) = (None, words(&["200"]));
    job(&mut source).urls = Some(path("$.urls"));
    let outcome = extract(&source, Bookmark::default()).await;
    assert_eq!(outcome.bodies(), ["id\n9\n"]);
    assert_eq!(exports.count("GET /exports"), 3);
}

#[tokio::test]
async fn a_job_that_takes_too_long_is_given_up_and_stopped() {
    let exports = Exports::start(&[RUNNING]).await;
    let mut source = exporting(&exports);
    job(&mut source).timeout = Duration::from_millis(200);
    job(&mut source).abort = Some(request(Method::Post, "/exports/{{ job.id }}/stop"));
    let outcome = extract(&source, Bookmark::default()).await;
    let error = outcome.error();
    assert!(
        error.contains("wait for export job") && error.contains("timeout_s"),
        "{error}"
    );
    assert!(exports.count("GET /exports/j1") >= 2);
    assert_eq!(exports.asked().last().unwrap(), "POST /exports/j1/stop");
}

#[tokio::test]
async fn a_job_the_server_has_forgotten_is_created_again_once() {
    for gone in ["status", "poll"] {
        let exports = Exports::with(&[DONE], move |what, _| match (what, gone) {
            ("GET /exports/j1", "status") => Some(json(r#"{"status":"gone"}"#)),
            ("GET /exports/j1", _) => Some(status(404, "", b"{}")),
            _ => None,
        })
        .await;
        let outcome = extract(&exporting(&exports), Bookmark::default()).await;
        outcome.result.as_ref().unwrap();
        assert_eq!(outcome.records(), 2, "{gone}");
        assert_eq!(exports.count("POST /exports"), 2);
    }
    let exports = Exports::with(&[DONE], |what, _| {
        what.starts_with("GET /exports").then(|| status(410, "", b"{}"))
    })
    .await;
    let error = extract(&exporting(&exports), Bookmark::default()).await.error();
    assert!(error.contains("410"), "{error}");
    assert_eq!(exports.count("POST"), 2);
}

#[tokio::test]
async fn results_on_other_hosts_are_fetched_without_credentials_if_the_host_is_listed() {
    let files = Server::start(|_, received| {
        assert!(received.header("authorization").is_none() && received.header("x-tenant").is_none());
        status(200, "", b"id\n5\n")
    })
    .await;
    let url = format!("{}/out.csv?X-Amz-Signature=s3cr3t&Expires=987654321", files.url);
    let host = format!("127.0.0.1:{}", files.url.port().unwrap());
    // Told by the poll, and by a redirect.
    for redirect in [false, true] {
        let (told, away) = (url.clone(), url.clone());
        let exports = Exports::with(&[], move |what, received| {
            assert_eq!(received.header("authorization"), Some("Bearer s3cr3t-token"));
            assert_eq!(received.header("x-tenant"), Some("t1"));
            let told = if redirect { "/v1/files/7" } else { told.as_str() };
            match what {
                poll if poll.starts_with("GET /exports/") => {
                    Some(json(&format!(r#"{{"status":"done","urls":["{told}"]}}"#)))
                }
                "GET /files/7" => Some(status(302, &format!("location: {away}\r\n"), b"")),
                _ => None,
            }
        })
        .await;
        let mut source = exporting(&exports);
        source.auth = crate::config::auth::Auth::Bearer {
            token: crate::config::secret::Secret::literal("s3cr3t-token"),
            scheme: "Bearer".to_owned(),
        };
        source.headers = vec![(
            "X-Tenant".to_owned(),
            crate::config::secret::Secret::literal("t1"),
        )];
        let error = extract(&source, Bookmark::default()).await.error();
        assert!(error.contains("off origin"), "{error}");
        assert!(
            !error.contains("s3cr3t") && !error.contains("987654321"),
            "{error}"
        );
        assert!(files.received().is_empty());
        job(&mut source).hosts = vec![host.clone()];
        let outcome = extract(&source, Bookmark::default()).await;
        outcome.result.as_ref().unwrap();
        assert_eq!(outcome.bodies(), ["id\n5\n"]);
        let facts = serde_json::to_string(&outcome.pages[0].page.facts).unwrap();
        assert!(
            facts.contains("out.csv") && !facts.contains("s3cr3t") && !facts.contains("987654321"),
            "{facts}"
        );
        let received = files.received();
        assert!(
            received
                .last()
                .unwrap()
                .target
                .contains("X-Amz-Signature=s3cr3t&Expires=987654321")
        );
        files.forget();
    }
}

#[tokio::test]
async fn urls_that_expire_are_asked_for_again_once() {
    let turns = Mutex::new(0);
    let exports = Exports::with(&[], move |what, received| {
        let mut turns = turns.lock().unwrap();
        match what {
            "GET /exports/j1" => {
                *turns += 1;
                Some(json(&format!(
                    r#"{{"status":"done","urls":["/v1/files/1?sig={turns}","/v1/files/2?sig={turns}"]}}"#
                )))
            }
            "GET /files/2" if received.param("sig").as_deref() == Some("1") => {
                Some(status(403, "", b"expired"))
            }
            "GET /files/3" => Some(status(403, "", b"")),
            _ => None,
        }
    })
    .await;
    let outcome = extract(&exporting(&exports), Bookmark::default()).await;
    outcome.result.as_ref().unwrap();
    assert_eq!(outcome.bodies(), ["id\n1\n", "id\n2\n"]);
    assert_eq!(exports.count("GET /exports"), 2);
    let exports = Exports::with(&[DONE], |what, _| {
        what.starts_with("GET /files").then(|| status(403, "", b"no"))
    })
    .await;
    let error = extract(&exporting(&exports), Bookmark::default()).await.error();
    assert!(error.contains("403"), "{error}");
    assert_eq!(exports.count("GET /files"), 2);
}

#[tokio::test]
async fn a_download_request_is_paged_and_knows_its_job() {
    let exports = Exports::with(&[r#"{"status":"done","parts":"here"}"#], |what, received| {
        let page = received.param("cursor").unwrap_or_default();
        match what.replace("t2", "t1").replace("j2", "j1").as_str() {
            "GET /exports/j1/parts" => Some(json(r#"{"parts":[{"n":1},{"n":2}]}"#)),
            "GET /parts/1/t1" if page.is_empty() => Some(json(r#"{"data":[{"id":1}],"next":"more"}"#)),
            "GET /parts/1/t1" => Some(json(r#"{"data":[{"id":2}]}"#)),
            "GET /parts/2/t1" => Some(json(r#"{"data":[{"id":3}]}"#)),
            _ => None,
        }
    })
    .await;
    let mut source = exporting(&exports);
    let stream = &mut source.streams[0];
    stream.format = Format::JSON;
    stream.paginate = crate::config::paginate::Paging::plain(Paginate::Cursor {
        from: Place::Body(path("$.next")),
        to: TokenSlot::Query("cursor".to_owned()),
    });
    let job = job(&mut source);
    job.list = Some(request(
        Method::Get,
        "/exports/{{ job.id }}/{{ 'parts' if job.poll.parts }}",
    ));
    job.urls = Some(path("$.parts[*].n"));
    job.download = Some(request(
        Method::Get,
        "/parts/{{ job.target }}/{{ job.response.token }}",
    ));
    let outcome = extract(&source, Bookmark::default()).await;
    outcome.result.as_ref().unwrap();
    assert_eq!(outcome.records(), 3);
    assert_eq!(exports.count("POST"), 1);
    assert_eq!(exports.server.received()[0].body, r#"{"report":"orders"}"#);
    // In pieces, and with the token of a page that was not the last.
    let (bodies, _) = in_pieces(&source).await;
    assert_eq!(bodies, outcome.bodies());
    assert_eq!(exports.count("POST"), 2);
}

#[tokio::test]
async fn a_job_that_cannot_be_removed_is_said_and_nothing_more() {
    let exports = Exports::with(&[DONE], |what, _| {
        what.starts_with("DELETE").then(|| status(403, "", b"{}"))
    })
    .await;
    let source = exporting(&exports);
    let mut run = extraction(&source, Bookmark::default());
    while let Some(fetched) = run.next().await.unwrap() {
        drop(fetched);
    }
    assert!(run.bookmark().last_success_at.is_some());
    let notes = run.progress().notes();
    assert!(
        notes
            .iter()
            .any(|note| note.contains("an export job is left at the server")),
        "{notes:?}"
    );
}

#[tokio::test]
async fn every_slice_has_a_job_of_its_own() {
    let exports = Exports::start(&[DONE]).await;
    let mut source = exporting(&exports);
    let shops = ["a", "b", "c"];
    source.streams[0].slices = Some(Slicing {
        at_once: 2,
        ..Slicing::by(vec![SliceBy::List {
            name: "shop".to_owned(),
            values: shops.map(Text::literal).to_vec(),
        }])
    });
    let values = shops.map(|shop| Map::from_iter([("shop".to_owned(), Value::from(shop))]));
    let slices = Slices::listed(values.into_iter());
    let mut run = extraction(&source, Bookmark::default()).with_slices(slices);
    let mut pages = 0;
    while let Some(fetched) = run.next().await.unwrap() {
        pages += u32::from(fetched.page.is_some());
        for mark in run.bookmark().slices.values() {
            let job = mark.window.as_ref().unwrap().job.as_ref().unwrap();
            assert!(job.done <= 2);
        }
    }
    assert_eq!(pages, 6);
    assert_eq!((exports.count("POST"), exports.count("DELETE")), (3, 3));
    assert!(run.bookmark().slices.is_empty());
}
