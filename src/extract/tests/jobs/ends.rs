//! Jobs whose runs, answers or servers end where nobody wants it: nothing is lost, nothing is left at the server that
//! need not be, and what is left is said.

use super::*;
use crate::{
    config::{
        errors::{Action, ErrorRule},
        incremental::{Moment, Until},
    },
    extract::tests::server::{cursor, incremental},
    raw::{JobMark, Window},
};

fn rule(code: u16, then: Action) -> ErrorRule {
    ErrorRule {
        status: vec![(code, code)],
        header: None,
        body: None,
        when: None,
        then,
        wait: Vec::new(),
        message: None,
    }
}

/// The mark of the job in the bookmark.
fn mark(bookmark: &Bookmark) -> JobMark {
    bookmark.window.as_ref().unwrap().job.clone().unwrap()
}

/// The bookmark once a job is meant and before it is created.
async fn meant(source: &Source) -> Bookmark {
    let mut run = extraction(source, Bookmark::default());
    let kept = run.next().await.unwrap().unwrap();
    assert_eq!(kept.position, Position::Kept);
    assert!(mark(run.bookmark()).creating);
    run.bookmark().clone()
}

/// The steps, positions and notes of a run to its end.
struct Ran {
    bodies: Vec<String>,
    bookmark: Bookmark,
    notes: String,
    error: Option<String>,
}

async fn ran(source: &Source, bookmark: Bookmark) -> Ran {
    let mut run = extraction(source, bookmark);
    let mut bodies = Vec::new();
    let error = loop {
        match run.next().await {
            Ok(None) => break None,
            Ok(Some(fetched)) => bodies.extend(
                fetched
                    .page
                    .map(|page| String::from_utf8(page.body.to_vec()).unwrap()),
            ),
            Err(error) => break Some(error.chain()),
        }
    };
    Ran {
        bodies,
        bookmark: run.bookmark().clone(),
        notes: run.progress().notes().join("\n"),
        error,
    }
}

/// Creation with the key of the job in a header.
fn keyed(source: &mut Source) {
    let key = Text::parse("{{ job.key }}").unwrap();
    source.streams[0].request.headers = vec![("Idempotency-Key".to_owned(), key)];
}

fn keys(exports: &Exports) -> Vec<String> {
    let received = exports.server.received();
    let keys = received
        .iter()
        .filter_map(|received| received.header("idempotency-key"));
    keys.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_job_is_meant_before_it_is_created_and_keeps_its_key() {
    let exports = Exports::start(&[DONE]).await;
    let mut source = exporting(&exports);
    keyed(&mut source);
    let bookmark = meant(&source).await;
    assert!(exports.asked().is_empty());
    let stored = serde_json::to_string(&bookmark).unwrap();
    let bookmark: Bookmark = serde_json::from_str(&stored).unwrap();
    let key = mark(&bookmark).key.unwrap();
    // The process dies after the server's answer and before the commit: twice the same request.
    for _ in 0..2 {
        let mut run = extraction(&source, bookmark.clone());
        let created = run.next().await.unwrap().unwrap();
        assert!(!mark(run.bookmark()).creating);
        assert_eq!(mark(run.bookmark()).created_at, mark(&bookmark).created_at);
        drop(created);
    }
    assert_eq!(keys(&exports), [key.clone(), key]);
    let ran = ran(&source, bookmark).await;
    assert_eq!((ran.bodies.len(), ran.notes.as_str()), (2, ""));
    // The next job has another key.
    let next = meant(&source).await;
    assert!(!keys(&exports).contains(&mark(&next).key.unwrap()));
}

#[tokio::test]
async fn a_job_without_a_key_that_may_be_left_is_said() {
    let exports = Exports::start(&[DONE]).await;
    let source = exporting(&exports);
    let bookmark = meant(&source).await;
    let ran = ran(&source, bookmark).await;
    assert_eq!((ran.bodies.len(), ran.error), (2, None));
    assert!(
        ran.notes.contains("one may be left at the server"),
        "{}",
        ran.notes
    );
    assert_eq!(exports.count("POST"), 1);
}

#[tokio::test]
async fn a_key_that_is_too_old_is_not_used_again() {
    let exports = Exports::start(&[DONE]).await;
    let mut source = exporting(&exports);
    keyed(&mut source);
    let mut bookmark = meant(&source).await;
    let job = bookmark.window.as_mut().unwrap().job.as_mut().unwrap();
    job.created_at -= Duration::from_secs(11);
    let old = job.key.clone().unwrap();
    let ran = ran(&source, bookmark).await;
    assert_eq!(ran.error, None);
    assert!(
        ran.notes.contains("one may be left at the server"),
        "{}",
        ran.notes
    );
    let keys = keys(&exports);
    assert!(keys.len() == 1 && keys[0] != old, "{keys:?}");
}

#[tokio::test]
async fn a_key_lives_as_long_as_nobody_knows_what_became_of_the_request() {
    // (what creation is answered with, whether the key is kept for the next run)
    for (code, keyed_kept, plain_kept) in [(400, false, false), (503, true, false), (401, true, false)] {
        for (with_key, kept) in [(true, keyed_kept), (false, plain_kept)] {
            let exports = Exports::with(&[DONE], move |what, _| {
                (what == "POST /exports").then(|| status(code, "", b"{}"))
            })
            .await;
            let mut source = exporting(&exports);
            if with_key {
                keyed(&mut source);
            }
            let ran = ran(&source, Bookmark::default()).await;
            assert!(ran.error.unwrap().contains(&code.to_string()));
            let job = ran.bookmark.window.unwrap().job;
            assert_eq!(job.is_some_and(|job| job.creating), kept, "{code} {with_key}");
        }
    }
}

#[tokio::test]
async fn what_a_rule_ignores_ends_the_slice_removes_the_job_and_moves_no_watermark() {
    for ignored in [
        "POST /exports",
        "GET /exports/j1",
        "GET /exports/j1/parts",
        "GET /files/2",
    ] {
        let exports = Exports::with(&[DONE], move |what, _| {
            (what == ignored).then(|| status(418, "", b"{}"))
        })
        .await;
        let mut source = exporting(&exports);
        let stream = &mut source.streams[0];
        stream.errors = vec![rule(418, Action::Ignore)];
        // A window of the past: once it is complete the watermark is at its end.
        let mut cursor = incremental(Duration::ZERO);
        cursor.start = vec![Moment::At("2024-01-01T00:00:00Z".to_owned())];
        cursor.until = Some(Until {
            to: TokenSlot::Query("until".to_owned()),
            step: None,
            align: None,
            end: vec![Moment::At("2024-02-01T00:00:00Z".to_owned())],
            granularity: Duration::ZERO,
            split_min: Duration::ZERO,
        });
        stream.incremental = Some(cursor);
        if ignored.ends_with("/parts") {
            job(&mut source).list = Some(request(Method::Get, "/exports/{{ job.id }}/parts"));
        }
        let ran = ran(&source, Bookmark::default()).await;
        assert_eq!(ran.error, None, "{ignored}");
        assert_eq!(
            ran.bodies.len(),
            usize::from(ignored == "GET /files/2"),
            "{ignored}"
        );
        assert_eq!(
            (ran.bookmark.window, ran.bookmark.watermark),
            (None, None),
            "{ignored}"
        );
        assert!(ran.notes.contains("418"), "{ignored}: {}", ran.notes);
        let removed = usize::from(ignored != "POST /exports");
        assert_eq!(exports.count("DELETE /exports/j1"), removed, "{ignored}");
    }
    // A rule about the endpoint does not mean its jobs: one that is not there is forgotten.
    let exports = Exports::with(&[DONE], |what, _| {
        (what == "GET /exports/j1").then(|| status(404, "", b"{}"))
    })
    .await;
    let mut source = exporting(&exports);
    source.streams[0].errors = vec![rule(404, Action::Ignore)];
    let ran = ran(&source, Bookmark::default()).await;
    assert_eq!((ran.bodies.len(), exports.count("POST")), (2, 2));
}

#[tokio::test]
async fn a_job_without_results_is_said() {
    let exports = Exports::start(&[r#"{"status":"done","files":["/v1/files/1"]}"#]).await;
    let ran = ran(&exporting(&exports), Bookmark::default()).await;
    assert_eq!((ran.error, ran.bodies.len()), (None, 0));
    assert!(ran.notes.contains("nothing at job.urls"), "{}", ran.notes);
}

#[tokio::test]
async fn answers_that_nobody_reads_may_be_anything() {
    let exports = Exports::with(&[], |what, _| match what {
        "POST /exports" => Some(status(202, "x-job: j1\r\n", b"<accepted/>")),
        "GET /exports/j1" => Some(status(200, "", b"<html>ready")),
        "GET /exports/j1/result" => Some(status(200, "", b"id\n1\n")),
        "DELETE /exports/j1" => Some(status(200, "", b"\xff gone")),
        _ => None,
    })
    .await;
    let mut source = exporting(&exports);
    let job = job(&mut source);
    job.id = Some(Place::Header("x-job".to_owned()));
    (job.status, job.done, job.urls) = (None, words(&["200"]), None);
    job.download = Some(request(Method::Get, "/exports/{{ job.id }}/result"));
    let ran = ran(&source, Bookmark::default()).await;
    assert_eq!((ran.error, ran.notes.as_str()), (None, ""));
    assert_eq!(ran.bodies, ["id\n1\n"]);
    assert_eq!(exports.count("DELETE"), 1);
}

#[tokio::test]
async fn a_job_that_answers_no_more_is_given_up_once_its_time_is_over() {
    for (asked, over) in [
        ("GET /exports/j1", true),
        ("GET /exports/j1", false),
        ("GET /files/1", true),
    ] {
        let exports = Exports::with(&[DONE], move |what, _| {
            (what == asked).then(|| status(400, "", b"{}"))
        })
        .await;
        let source = exporting(&exports);
        let mut run = extraction(&source, Bookmark::default());
        for _ in 0..2 {
            drop(run.next().await.unwrap());
        }
        let mut bookmark = run.bookmark().clone();
        if over {
            let job = bookmark.window.as_mut().unwrap().job.as_mut().unwrap();
            job.created_at -= Duration::from_secs(11);
        }
        let ran = ran(&source, bookmark).await;
        assert!(ran.error.unwrap().contains("status: 400"), "{asked}");
        assert_eq!(ran.bookmark.window.unwrap().job.is_none(), over, "{asked}");
    }
}

#[tokio::test]
async fn a_job_given_up_is_removed_if_nothing_stops_it() {
    let exports = Exports::start(&[RUNNING]).await;
    let mut source = exporting(&exports);
    job(&mut source).timeout = Duration::from_millis(10);
    let error = extract(&source, Bookmark::default()).await.error();
    assert!(error.contains("timeout_s"), "{error}");
    assert_eq!(exports.asked().last().unwrap(), "DELETE /exports/j1");
}

#[tokio::test]
async fn the_job_of_a_window_that_begins_again_is_removed() {
    let exports = Exports::start(&[DONE]).await;
    let mut source = exporting(&exports);
    let first = extract(&source, Bookmark::default()).await;
    let between = first.pages[0].bookmark.clone();
    assert_eq!(mark(&between).id.as_deref(), Some("j1"));
    source.streams[0].request.params = vec![("kind".to_owned(), Text::literal("other"))];
    exports.server.forget();
    let before = exports.asked().len();
    let ran = ran(&source, between).await;
    assert_eq!((ran.error, ran.bodies.len()), (None, 2));
    let asked = &exports.asked()[before..];
    assert_eq!(asked[..2], ["DELETE /exports/j1", "POST /exports"]);
    assert_eq!(asked.last().unwrap(), "DELETE /exports/j2");
}

#[tokio::test]
async fn a_page_token_that_expired_costs_the_result_and_not_the_job() {
    let exports = Exports::with(&[r#"{"status":"done"}"#], |what, received| {
        let page = received.param("cursor").unwrap_or_default();
        match (what, page.as_str()) {
            ("GET /exports/j1/result", "") => Some(json(r#"{"data":[{"id":1}],"next":"new"}"#)),
            ("GET /exports/j1/result", "new") => Some(json(r#"{"data":[{"id":2}]}"#)),
            ("GET /exports/j1/result", _) => Some(status(400, "", b"{}")),
            _ => None,
        }
    })
    .await;
    let mut source = exporting(&exports);
    let stream = &mut source.streams[0];
    stream.format = Format::JSON;
    stream.paginate = crate::config::paginate::Paging::plain(cursor());
    let job = job(&mut source);
    (job.urls, job.delete) = (None, None);
    job.download = Some(request(Method::Get, "/exports/{{ job.id }}/result"));
    let first = extract(&source, Bookmark::default()).await;
    let mut between = first.pages[0].bookmark.clone();
    between.window.as_mut().unwrap().next = "old".to_owned();
    let ran = ran(&source, between).await;
    assert_eq!((ran.error, ran.bodies.len()), (None, 2));
    assert_eq!(exports.count("POST"), 1);
}

#[tokio::test]
async fn a_result_that_is_gone_is_no_position_that_expired() {
    let exports = Exports::with(&[DONE], |what, _| {
        what.starts_with("GET /files").then(|| status(410, "", b"{}"))
    })
    .await;
    let mut source = exporting(&exports);
    let mut cursor = incremental(Duration::ZERO);
    cursor.start = vec![Moment::At("2024-01-01T00:00:00Z".to_owned())];
    source.streams[0].incremental = Some(cursor);
    let error = extract(&source, Bookmark::default()).await.error();
    assert!(
        error.contains("410") && !error.contains("cursor_expired"),
        "{error}"
    );
    assert_eq!((exports.count("POST"), exports.count("GET /files")), (1, 2));
}

#[tokio::test]
async fn the_last_page_allowed_is_no_reason_to_leave_the_job() {
    let exports = Exports::start(&[DONE]).await;
    let mut source = exporting(&exports);
    source.limits.pages_max = 2;
    let ran = ran(&source, Bookmark::default()).await;
    assert_eq!((ran.error, ran.bodies.len()), (None, 2));
    assert_eq!(exports.count("DELETE"), 1);
}

#[tokio::test]
async fn looking_creates_no_job() {
    let exports = Exports::start(&[DONE]).await;
    let mut source = exporting(&exports);
    keyed(&mut source);
    let error = extraction(&source, Bookmark::default())
        .probe()
        .await
        .unwrap_err();
    assert!(error.chain().contains("creates a job"), "{}", error.chain());
    let shown = extraction(&source, Bookmark::default()).rehearse().await.unwrap();
    let shown = shown.unwrap();
    assert!(
        shown.method == "POST" && shown.url.ends_with("/exports"),
        "{shown:?}"
    );
    let plan = async |bookmark| extraction(&source, bookmark).plan(10).await.unwrap();
    let planned = plan(Bookmark::default()).await;
    assert_eq!(planned, [shown]);
    assert!(exports.asked().is_empty());
    // Where a job is under way, that is what would be asked about.
    let first = extract(&source, Bookmark::default()).await;
    let planned = plan(first.pages[0].bookmark.clone()).await;
    assert!(
        planned[0].method == "GET" && planned[0].url.ends_with("/exports/j1"),
        "{planned:?}"
    );
    let mut done = first.pages[0].bookmark.clone();
    done.window = done.window.map(|window| Window {
        job: window.job.map(|job| JobMark {
            complete: true,
            ..job
        }),
        ..window
    });
    assert_eq!(plan(done).await[0].method, "DELETE");
    let plain = crate::extract::tests::server::source(&exports.server.url, Paginate::Single);
    let rehearsed = extraction(&plain, Bookmark::default()).rehearse().await.unwrap();
    assert_eq!(rehearsed, None);
}
