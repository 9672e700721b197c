//! What is done about answers that are no pages, and about hosts that fail.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use super::server::{
    Outcome, Received, Reply, Server, channel, clock, cursor, extract, json, json_with, source, status,
};
use crate::{
    config::{
        Source,
        auth::Auth,
        errors::{Action, Breaker, ErrorRule, Wait},
        paginate::Paginate,
        request::{Body, Place},
        secret::Secret,
        text::{Expr, Text},
    },
    error::ErrorKind,
    extract::{
        fetch::{Answer, Fetcher, Remedy, Unanswered, Verdict},
        progress::Progress,
        request::{Ask, PageRequest},
        window::{Extraction, Position},
    },
    json::JsonPath,
    raw::Bookmark,
};

/// A rule about one status, or about all of them.
fn rule(code: Option<u16>, then: Action) -> ErrorRule {
    ErrorRule {
        status: code.map(|code| (code, code)).into_iter().collect(),
        header: None,
        body: None,
        when: None,
        then,
        wait: Vec::new(),
        message: None,
    }
}

fn fetcher(source: &Source) -> Fetcher {
    Fetcher {
        source: Arc::new(source.clone()),
        stream: Arc::new(source.streams[0].clone()),
        channel: channel(source, &clock()),
        clock: clock(),
        progress: Arc::new(Progress::default()),
    }
}

/// The first page of the source's stream.
async fn fetch(source: &Source) -> Result<Answer, Box<Unanswered>> {
    let fetcher = fetcher(source);
    let ask = Ask {
        page: 1,
        ..Ask::default()
    };
    let request = PageRequest::build(&fetcher.source, &fetcher.stream, &ask).unwrap();
    fetcher.fetch(&request, 1, None, None).await
}

/// The first page of a server that answers request number n with the n-th reply, and with the last one from then on;
/// the requests it took too.
async fn first(
    replies: &'static [(u16, &'static str)],
    change: impl Fn(&mut Source),
) -> (Result<Answer, Box<Unanswered>>, usize) {
    let server = Server::start(move |number, _| {
        let (code, body) = replies[number.min(replies.len() - 1)];
        status(code, "", body.as_bytes())
    })
    .await;
    let mut source = source(&server.url, Paginate::Single);
    change(&mut source);
    let answer = fetch(&source).await;
    (answer, server.received().len())
}

const GOOD: &str = r#"{"data":[{"id":1}]}"#;

#[tokio::test]
async fn r037_a_stream_repeats_by_its_own_policy() {
    for (attempts, expected) in [(1, 1), (2, 2), (5, 5)] {
        let (answer, requests) = first(&[(503, "")], |source| {
            source.retry.attempts_max = 3;
            source.streams[0].retry.attempts_max = attempts;
        })
        .await;
        assert_eq!(requests, expected);
        assert!(
            answer
                .err()
                .unwrap()
                .error
                .to_string()
                .contains(&format!("attempts: {attempts}"))
        );
    }
}

#[tokio::test]
async fn r037_each_action_of_a_rule_has_its_effect() {
    // (status, body, action): the verdict or the error, the remedy, the requests.
    let with =
        |code, then| move |source: &mut Source| source.streams[0].errors = vec![rule(Some(code), then)];
    let (answer, requests) = first(&[(404, GOOD)], with(404, Action::Accept)).await;
    let answer = answer.ok().unwrap();
    assert_eq!(
        (answer.verdict, answer.reading.unwrap().records, requests),
        (Verdict::Page, 1, 1)
    );
    assert_eq!(answer.response.body, GOOD);

    let (answer, requests) = first(&[(404, "gone")], with(404, Action::Ignore)).await;
    let answer = answer.ok().unwrap();
    let ignored = Verdict::Ignored {
        status: 404,
        rule: "errors.1 of the stream".to_owned(),
    };
    assert_eq!(
        (answer.verdict, answer.response.body.as_ref(), requests),
        (ignored, &b"gone"[..], 1)
    );

    for (then, remedy) in [
        (Action::Fail, None),
        (Action::Renew, None),
        (Action::Reset, Some(Remedy::Reset)),
        (Action::Split, Some(Remedy::Split)),
        (Action::SplitWindow, Some(Remedy::SplitWindow)),
    ] {
        // Even a status that would be tried again.
        let (answer, requests) = first(&[(503, "")], with(503, then)).await;
        let unanswered = answer.err().unwrap();
        assert_eq!(
            (unanswered.error.kind(), unanswered.then),
            (ErrorKind::Refused, remedy)
        );
        assert_eq!((unanswered.status, requests), (Some(503), 1), "{then:?}");
    }
    for then in [Action::Retry, Action::Throttle] {
        let (answer, requests) = first(&[(404, ""), (200, GOOD)], with(404, then)).await;
        assert_eq!((answer.ok().unwrap().attempts, requests), (2, 2));
        let (answer, requests) = first(&[(404, "")], with(404, then)).await;
        assert_eq!(
            (answer.err().unwrap().error.kind(), requests),
            (ErrorKind::Unavailable, 3)
        );
    }
}

#[tokio::test]
async fn f041_a_200_with_an_error_in_its_body_means_what_a_rule_says() {
    let busy = r#"{"error":{"code":"BUSY"},"data":[]}"#;
    let with = |then| {
        move |source: &mut Source| {
            let when = Expr::parse("response.error.code == 'BUSY'").unwrap();
            source.errors = vec![ErrorRule {
                when: Some(when),
                ..rule(None, then)
            }];
        }
    };
    let (answer, requests) = first(
        &[(200, r#"{"error":{"code":"BUSY"},"data":[]}"#), (200, GOOD)],
        with(Action::Retry),
    )
    .await;
    assert_eq!((answer.ok().unwrap().reading.unwrap().records, requests), (1, 2));
    let (answer, requests) = first(
        &[(200, r#"{"error":{"code":"BUSY"},"data":[]}"#)],
        with(Action::Fail),
    )
    .await;
    let unanswered = answer.err().unwrap();
    assert_eq!((unanswered.error.kind(), requests), (ErrorKind::Refused, 1));
    let said = unanswered.error.to_string();
    assert!(
        said.contains("rule: errors.1 of the source") && said.contains("BUSY"),
        "{said}"
    );
    // Without the rule it is an empty page, and with another one too.
    for change in [
        |_: &mut Source| {},
        |source: &mut Source| source.errors = vec![rule(Some(500), Action::Fail)],
    ] {
        let server = Server::start(move |_, _| json(busy)).await;
        let mut source = source(&server.url, Paginate::Single);
        change(&mut source);
        assert_eq!(fetch(&source).await.ok().unwrap().reading.unwrap().records, 0);
    }
}

#[tokio::test]
async fn f042_no_content_is_what_the_stream_says_it_is() {
    for code in [204, 205] {
        let answer = move |_: usize, _: &Received| {
            Reply::Close(format!("HTTP/1.1 {code} X\r\nconnection: close\r\n\r\n").into_bytes())
        };
        let server = Server::start(answer).await;
        let plain = source(&server.url, Paginate::Single);
        assert_eq!(
            fetch(&plain).await.err().unwrap().error.kind(),
            ErrorKind::Refused
        );
        let mut ending = plain.clone();
        ending.streams[0].paginate.stop.on_status = vec![code];
        assert_eq!(fetch(&ending).await.ok().unwrap().verdict, Verdict::End);
        let mut accepting = plain.clone();
        accepting.errors = vec![rule(Some(code), Action::Accept)];
        let answer = fetch(&accepting).await.ok().unwrap();
        assert_eq!(
            (answer.verdict, answer.reading.unwrap().records),
            (Verdict::Page, 0)
        );
        assert_eq!(server.received().len(), 3);
    }
    // Accepted, what is not there is no record; what cannot be read stays so.
    for (body, records) in [
        ("", Some(0)),
        ("null", Some(0)),
        (r#"{"data":[1]}"#, Some(1)),
        ("<html>", None),
    ] {
        let server = Server::start(move |_, _| json(body)).await;
        let mut source = source(&server.url, Paginate::Single);
        source.errors = vec![rule(Some(200), Action::Accept)];
        let answer = fetch(&source).await.ok().unwrap();
        assert_eq!(
            answer.reading.ok().map(|reading| reading.records),
            records,
            "{body}"
        );
    }
}

#[tokio::test]
async fn f046_a_status_may_be_the_end_of_the_pages() {
    let server = Server::start(|number, _| match number {
        0 => json(r#"{"data":[{"id":1}],"next":"B"}"#),
        _ => status(404, "", b"no such page"),
    })
    .await;
    let mut source = source(&server.url, cursor());
    source.streams[0].paginate.stop.on_status = vec![404];
    let outcome = extract(&source, Bookmark::default()).await;
    outcome.result.as_ref().unwrap();
    assert_eq!((outcome.records(), server.received().len()), (1, 2));
}

#[tokio::test]
async fn f030_a_rule_says_how_long_to_wait() {
    let waits = |millis| Wait::Constant {
        time: Duration::from_millis(millis),
        jitter: Duration::ZERO,
    };
    let server = Server::start(|number, _| {
        if number == 0 {
            status(420, "", b"")
        } else {
            json(GOOD)
        }
    })
    .await;
    let mut source = source(&server.url, Paginate::Single);
    source.errors = vec![ErrorRule {
        wait: vec![waits(60)],
        ..rule(Some(420), Action::Retry)
    }];
    // The backoff would be no more than 2 ms.
    let fetcher = fetcher(&source);
    let request = PageRequest::build(&source, &source.streams[0], &Ask::default()).unwrap();
    fetcher.fetch(&request, 1, None, None).await.ok().unwrap();
    assert_eq!(fetcher.progress.counts().waited, Duration::from_millis(60));
    // Longer than anybody may ask for.
    source.errors[0].wait = vec![waits(400_000)];
    let server = Server::start(|_, _| status(420, "", b"")).await;
    source.base_url = server.url.clone();
    let unanswered = fetch(&source).await.err().unwrap();
    assert_eq!(
        (unanswered.error.kind(), server.received().len()),
        (ErrorKind::Limit, 1)
    );
}

#[tokio::test]
async fn r050_an_error_shows_what_the_server_said_without_secrets() {
    let long = "x".repeat(2000);
    let body = format!(r#"{{"message":"no access for s3cr3t-k3y","token":"abcdef","trace":"{long}"}}"#);
    let server =
        Server::start(move |_, _| status(403, "content-type: application/json\r\n", body.as_bytes())).await;
    let mut source = source(&server.url, Paginate::Single);
    source.auth = Auth::Bearer {
        scheme: "Bearer".to_owned(),
        token: Secret::literal("s3cr3t-k3y"),
    };
    source.errors = vec![ErrorRule {
        message: Some(Text::parse("ask for a role: {{ response.message }}").unwrap()),
        ..rule(Some(403), Action::Fail)
    }];
    let said = fetch(&source).await.err().unwrap().error.to_string();
    for part in [
        "said: ask for a role: no access for ****",
        r#"body: {"message":"no access for ****","token":"****""#,
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!said.contains("s3cr3t") && !said.contains("abcdef"), "{said}");
    assert!(said.len() < 1200, "{}", said.len());
}

#[tokio::test]
async fn an_error_body_is_read_no_further_than_it_helps() {
    let endless =
        |_: usize, _: &Received| Reply::Stall([&b"HTTP/1.1 404 X\r\n\r\n"[..], &[b'x'; 300 * 1024]].concat());
    let server = Server::start(endless).await;
    let source = source(&server.url, Paginate::Single);
    let said = fetch(&source).await.err().unwrap().error.to_string();
    assert!(
        said.contains("status: 404") && said.contains("body: xxx"),
        "{said}"
    );
    // A body that is cut or cannot be decoded changes nothing about the status.
    for head in [
        "content-length: 100\r\n",
        "content-encoding: br\r\n",
        "content-encoding: gzip\r\n",
    ] {
        let reply = move |_: usize, _: &Received| {
            Reply::Close(format!("HTTP/1.1 404 X\r\n{head}connection: close\r\n\r\nabc").into_bytes())
        };
        let server = Server::start(reply).await;
        let unanswered = fetch(&super::server::source(&server.url, Paginate::Single))
            .await
            .err()
            .unwrap();
        assert_eq!(
            (unanswered.status, unanswered.error.kind()),
            (Some(404), ErrorKind::Refused),
            "{head}"
        );
        assert_eq!(server.received().len(), 1);
    }
}

fn graphql(source: &mut Source) {
    source.streams[0].records = JsonPath::parse("$.data.orders[*]").unwrap().into();
    source.streams[0].request.method = crate::config::request::Method::Post;
    source.streams[0].request.body = Body::GraphQl {
        query: Text::literal("{ orders { id } }"),
        variables: Vec::new(),
        operation: None,
    };
}

const PARTIAL: &str = r#"{"data":{"orders":[{"id":1},null]},"errors":[{"message":"x"}]}"#;
const WHOLE: &str = r#"{"data":{"orders":[{"id":1},{"id":2}]}}"#;

#[tokio::test]
async fn f071_data_with_errors_are_asked_for_again_and_then_taken_as_partial() {
    let (answer, requests) = first(&[(200, PARTIAL), (200, WHOLE)], graphql).await;
    let answer = answer.ok().unwrap();
    assert_eq!((answer.verdict, answer.attempts, requests), (Verdict::Page, 2, 2));
    let (answer, requests) = first(&[(200, PARTIAL)], graphql).await;
    let answer = answer.ok().unwrap();
    assert_eq!(
        (answer.verdict, answer.attempts, requests),
        (Verdict::Partial, 3, 3)
    );
    assert_eq!(answer.reading.unwrap().records, 2);
    assert_eq!(answer.response.body, PARTIAL);
    // As GraphQL over HTTP allows, with an error status too.
    let (answer, requests) = first(&[(500, PARTIAL)], graphql).await;
    let answer = answer.ok().unwrap();
    assert_eq!((answer.verdict, requests), (Verdict::Partial, 3));
    let (answer, requests) = first(&[(500, PARTIAL), (200, WHOLE)], graphql).await;
    assert_eq!((answer.ok().unwrap().verdict, requests), (Verdict::Page, 2));
    // The same body of a stream that speaks no GraphQL is a page.
    let plain =
        |source: &mut Source| source.streams[0].records = JsonPath::parse("$.data.orders[*]").unwrap().into();
    let (answer, requests) = first(&[(200, PARTIAL)], plain).await;
    assert_eq!((answer.ok().unwrap().verdict, requests), (Verdict::Page, 1));
    // When the records are what is missing there is nothing to take.
    let (answer, requests) = first(&[(200, r#"{"data":{"orders":null},"errors":[{}]}"#)], graphql).await;
    assert!(answer.ok().unwrap().reading.is_err());
    assert_eq!(requests, 3);
}

#[tokio::test]
async fn f071_errors_without_data_are_refused_at_once() {
    for body in [
        r#"{"errors":[{"message":"no"}]}"#,
        r#"{"data":null,"errors":[{"message":"no"}]}"#,
    ] {
        for change in [graphql, |_: &mut Source| {}] {
            let server = Server::start(move |_, _| json(body)).await;
            let mut source = source(&server.url, Paginate::Single);
            change(&mut source);
            let outcome = extract(&source, Bookmark::default()).await;
            assert_eq!((outcome.bodies(), server.received().len()), (vec![body], 1));
            assert!(matches!(outcome.pages[0].position, Position::Evidence(_)));
            assert_eq!(outcome.result.as_ref().unwrap_err().kind(), ErrorKind::Refused);
            assert!(
                outcome.error().contains(r#""message":"no""#),
                "{}",
                outcome.error()
            );
        }
    }
}

#[tokio::test]
async fn f034_f072_a_spent_budget_is_waited_for_and_a_page_too_large_is_split() {
    const THROTTLED: &str = r#"{"data":{"orders":[]},"errors":[{"extensions":{"code":"THROTTLED"}}]}"#;
    let (answer, requests) = first(&[(200, THROTTLED), (200, WHOLE)], graphql).await;
    assert_eq!((answer.ok().unwrap().verdict, requests), (Verdict::Page, 2));
    let (answer, requests) = first(&[(200, THROTTLED)], graphql).await;
    assert_eq!(
        (answer.err().unwrap().error.kind(), requests),
        (ErrorKind::Unavailable, 3)
    );
    const TOO_MUCH: &str = r#"{"errors":[{"extensions":{"code":"MAX_COST_EXCEEDED"}}]}"#;
    let (answer, requests) = first(&[(200, TOO_MUCH)], graphql).await;
    let unanswered = answer.err().unwrap();
    assert_eq!(
        (unanswered.then, unanswered.status, requests),
        (Some(Remedy::Split), Some(200), 1)
    );
}

/// A breaker that opens after `failures` for `open_ms`, with as many repeats as anybody wants.
fn breaker(failures: u32, open_ms: u64) -> Breaker {
    Breaker {
        failures,
        open: Duration::from_millis(open_ms),
        repeats_ratio: 1.0,
        repeats_free: 1000,
    }
}

#[tokio::test]
async fn r048_traffic_moves_to_a_replica_and_back() {
    let up = Arc::new(AtomicBool::new(true));
    let works = Arc::clone(&up);
    fn page(name: &'static str, last: impl Fn() -> bool) -> impl Fn(&Received) -> Reply {
        move |received: &Received| {
            let number: usize = received.param("page").map_or(1, |page| page.parse().unwrap());
            let host = received.header("host").unwrap().to_owned();
            let path = received.target.split('?').next().unwrap().to_owned();
            // Absolute and relative links take turns.
            let next = match number {
                _ if last() => String::new(),
                _ if number.is_multiple_of(2) => {
                    format!(r#","next":"http://{host}{path}?page={}""#, number + 1)
                }
                _ => format!(r#","next":"?page={}""#, number + 1),
            };
            json(&format!(r#"{{"data":[{{"id":{number},"at":"{name}"}}]{next}}}"#))
        }
    }
    // The source has pages until it has served three more of them itself.
    let served = AtomicUsize::new(0);
    let at_base = page("base", move || served.fetch_add(1, SeqCst) == 5);
    let at_replica = page("replica", || false);
    let base = Server::start(move |number, received| {
        // Fails from its fourth request on, until the switch is turned.
        works.fetch_and(number != 3, SeqCst);
        if works.load(SeqCst) {
            at_base(received)
        } else {
            status(503, "", b"")
        }
    })
    .await;
    let asked = Arc::new(AtomicUsize::new(0));
    let (count, switch) = (Arc::clone(&asked), Arc::clone(&up));
    let replica = Server::start(move |_, received| {
        if count.fetch_add(1, SeqCst) == 2 {
            switch.store(true, SeqCst);
        }
        at_replica(received)
    })
    .await;
    let mut source = source(
        &base.url,
        Paginate::NextUrl {
            from: Place::Body(JsonPath::parse("$.next").unwrap()),
        },
    );
    let mut other = replica.url.clone();
    other.set_path("/mirror/v1");
    source.replicas = vec![other];
    source.breaker = breaker(2, 20);
    source.streams[0].retry.attempts_max = 20;
    source.rate_limit = None;
    let mut extraction = super::server::extraction(&source, Bookmark::default());
    let mut bodies = Vec::new();
    while let Some(fetched) = extraction.next().await.unwrap() {
        bodies.push(String::from_utf8(fetched.page.unwrap().body.to_vec()).unwrap());
        if let Some(window) = &extraction.bookmark().window {
            assert!(window.next.starts_with(base.url.as_str()), "{}", window.next);
        }
    }
    let at: Vec<bool> = bodies.iter().map(|body| body.contains("replica")).collect();
    for (number, body) in (1..).zip(&bodies) {
        assert!(body.contains(&format!(r#""id":{number},"#)), "{body}");
    }
    let (head, rest) = at.split_at(3);
    let (middle, tail) = rest.split_at(rest.len() - 3);
    assert!(head.iter().chain(tail).all(|replica| !replica), "{at:?}");
    assert!(
        middle.len() >= 3 && middle.iter().all(|replica| *replica),
        "{at:?}"
    );
    assert!(
        replica
            .received()
            .iter()
            .all(|received| received.target.starts_with("/mirror/v1/orders"))
    );
}

#[tokio::test]
async fn r048_without_alternates_a_stream_waits_for_the_probe_and_then_fails() {
    let server = Server::start(|_, _| status(503, "", b"")).await;
    let mut source = source(&server.url, Paginate::Single);
    source.breaker = breaker(2, 15);
    source.streams[0].retry.attempts_max = 5;
    let unanswered = fetch(&source).await.err().unwrap();
    assert_eq!(unanswered.error.kind(), ErrorKind::Unavailable);
    // Two opened it; the others were probes, each after a time of rest.
    assert_eq!(server.received().len(), 5);
    // A host that is left alone for longer than anybody may ask us to wait is not waited for.
    source.breaker.open = Duration::from_secs(3600);
    let before = server.received().len();
    let said = fetch(&source).await.err().unwrap().error.to_string();
    assert!(said.contains("circuit open"), "{said}");
    assert_eq!(server.received().len() - before, 2);
}

#[tokio::test]
async fn r045_r048_a_stream_resumes_by_itself_when_the_host_does() {
    let server = Server::start(|number, _| {
        if number < 4 {
            status(502, "", b"")
        } else {
            json(GOOD)
        }
    })
    .await;
    let mut source = source(&server.url, Paginate::Single);
    source.breaker = breaker(2, 15);
    source.streams[0].retry.attempts_max = 8;
    assert_eq!(fetch(&source).await.ok().unwrap().verdict, Verdict::Page);
    assert_eq!(server.received().len(), 5);
}

#[tokio::test]
async fn f061_one_poisoned_page_does_not_close_the_host() {
    let server = Server::start(|number, received| match received.param("cursor").as_deref() {
        None => json(r#"{"data":[{"id":1}],"next":"B"}"#),
        Some("B") if number < 8 => status(500, "", b"boom"),
        _ => json(r#"{"data":[{"id":2}]}"#),
    })
    .await;
    let mut source = source(&server.url, cursor());
    source.breaker = breaker(2, 3_600_000);
    source.streams[0].retry.attempts_max = 7;
    let outcome = extract(&source, Bookmark::default()).await;
    let said = outcome.error();
    assert!(
        said.contains("cursor=B, attempts: 7, status: 500") && said.contains("body: boom"),
        "{said}"
    );
    assert_eq!((outcome.records(), server.received().len()), (1, 8));
    // The next run goes on at that page.
    let outcome = extract(&source, outcome.bookmark()).await;
    outcome.result.as_ref().unwrap();
    assert_eq!(
        (outcome.records(), server.received().len()),
        (1, 9),
        "{:?}",
        server.queries()
    );
}

#[tokio::test]
async fn r046_f062_an_outage_is_not_made_worse_by_repeats() {
    let server = Server::start(|_, _| status(503, "", b"")).await;
    let mut source = source(&server.url, Paginate::Single);
    source.breaker = Breaker {
        failures: 1000,
        open: Duration::from_secs(30),
        repeats_ratio: 0.1,
        repeats_free: 4,
    };
    source.streams[0].retry.attempts_max = 6;
    let shared = channel(&source, &clock());
    let mut runs = Vec::new();
    for _ in 0..40 {
        let mut extraction = Extraction::new(
            &source,
            &source.streams[0],
            Arc::clone(&shared),
            clock(),
            Bookmark::default(),
        )
        .unwrap();
        runs.push(tokio::spawn(
            async move { extraction.next().await.err().unwrap() },
        ));
    }
    let mut spent = 0;
    for run in runs {
        let error = run.await.unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        spent += usize::from(error.to_string().contains("retry budget spent"));
    }
    assert_eq!(server.received().len(), 40 + 4);
    assert!(spent >= 39, "{spent}");
}

#[tokio::test]
async fn r046_a_spent_quota_is_no_failure_of_the_host() {
    let server = Server::start(|number, _| {
        if number % 2 == 0 {
            status(429, "retry-after: 0\r\n", b"")
        } else {
            json(GOOD)
        }
    })
    .await;
    let mut source = source(&server.url, Paginate::Single);
    source.breaker = Breaker {
        failures: 2,
        open: Duration::from_secs(30),
        repeats_ratio: 0.0,
        repeats_free: 0,
    };
    let fetcher = fetcher(&source);
    let request = PageRequest::build(&source, &source.streams[0], &Ask::default()).unwrap();
    for _ in 0..5 {
        fetcher.fetch(&request, 1, None, None).await.ok().unwrap();
    }
    assert_eq!(server.received().len(), 10);
}

#[tokio::test]
async fn r044_the_credentials_of_a_pool_share_the_work() {
    let server = Server::start(|number, _| match number {
        19 => json(r#"{"data":[{}]}"#),
        _ => json(&format!(r#"{{"data":[{{"id":{number}}}],"next":"{number}"}}"#)),
    })
    .await;
    let mut source = source(&server.url, cursor());
    let bearer = |token: &str| Auth::Bearer {
        scheme: "Bearer".to_owned(),
        token: Secret::literal(token),
    };
    source.auth = Auth::Pool(vec![
        bearer("one-token"),
        bearer("two-token"),
        bearer("three-token"),
    ]);
    extract(&source, Bookmark::default()).await.result.unwrap();
    let used = |token: &str| {
        let received = server.received();
        received
            .iter()
            .filter(|received| received.header("authorization").unwrap().ends_with(token))
            .count()
    };
    let counts = ["one-token", "two-token", "three-token"].map(used);
    assert_eq!(counts.iter().sum::<usize>(), 20);
    assert!(
        counts.iter().all(|count| *count == 6 || *count == 7),
        "{counts:?}"
    );
}

#[tokio::test]
async fn f036_lines_without_an_end_are_not_taken_for_whole() {
    use crate::config::format::Syntax;
    let lines = |whole: bool| {
        move |number: usize, _: &Received| {
            let cut = number == 0 && !whole;
            let body = if cut {
                "{\"id\":1}\n{\"id\":2"
            } else {
                "{\"id\":1}\n{\"id\":22}\n"
            };
            Reply::Close(format!("HTTP/1.0 200 OK\r\n\r\n{body}").into_bytes())
        }
    };
    for (whole, requests) in [(true, 1), (false, 2)] {
        let server = Server::start(lines(whole)).await;
        let mut source = source(&server.url, Paginate::Single);
        source.streams[0].format.syntax = Syntax::JsonLines;
        let outcome: Outcome = extract(&source, Bookmark::default()).await;
        assert_eq!(
            outcome.bodies(),
            ["{\"id\":1}\n{\"id\":22}\n"],
            "{:?}",
            outcome.result
        );
        assert_eq!(server.received().len(), requests);
    }
}

#[tokio::test]
async fn f034_a_403_is_a_throttle_when_a_rule_knows_its_text() {
    let server = Server::start(|number, _| match number {
        0 => json_with("{}", ""),
        1 => status(403, "", b"You have exceeded a secondary rate limit."),
        _ => json(GOOD),
    })
    .await;
    let mut source = source(&server.url, Paginate::Single);
    source.errors = vec![
        ErrorRule {
            body: Some("secondary rate limit".to_owned()),
            ..rule(Some(403), Action::Throttle)
        },
        ErrorRule {
            when: Some(Expr::parse("response is mapping and not response").unwrap()),
            ..rule(Some(200), Action::Retry)
        },
    ];
    assert_eq!(fetch(&source).await.ok().unwrap().attempts, 3);
}
