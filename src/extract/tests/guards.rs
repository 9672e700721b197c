//! Links and redirects stay at home, secrets stay unseen, loops end.

use crate::config::request::Body;
use crate::config::text::Text;
use std::{sync::Arc, time::Duration};

use url::Url;

use super::server::{
    Server, channel, cursor, extract, json, json_with, now, path, secret_file, source, status,
};
use crate::{
    clock::Clock,
    config::{
        auth::Auth, paginate::Paginate, rate::RateLimit, request::Method, request::Place, secret::Secret,
    },
    error::ErrorKind,
    extract::window::Extraction,
    raw::Bookmark,
};

fn next_url() -> Paginate {
    Paginate::NextUrl {
        from: Place::Body(path("$.next")),
    }
}

#[tokio::test]
async fn f056_redirects_within_the_origin_are_followed() {
    for code in [301, 302, 303, 307, 308] {
        let server = Server::start(move |number, _| match number {
            0 => status(code, "location: ../v2/orders?x=1\r\n", b""),
            _ => json(r#"{"data":[{}]}"#),
        })
        .await;
        let outcome = extract(&source(&server.url, Paginate::Single), Bookmark::default()).await;
        outcome.result.as_ref().unwrap();
        assert_eq!(server.received()[1].target, "/v2/orders?x=1");
        assert!(outcome.pages[0].page.facts.url.ends_with("/v2/orders?x=1"));
    }
}

#[tokio::test]
async fn f056_no_redirect_leaves_the_origin_and_no_secret_with_it() {
    let other = Server::start(|_, _| json(r#"{"data":[]}"#)).await;
    let elsewhere = other.url.clone();
    for code in [301, 302, 303, 307, 308] {
        let location = format!("location: {elsewhere}/orders\r\n");
        let server = Server::start(move |_, _| status(code, &location, b"")).await;
        let mut source = source(&server.url, Paginate::Single);
        source.auth = Auth::ApiKeyHeader {
            name: "X-Api-Key".to_owned(),
            value: Secret::literal("hunter2"),
        };
        let outcome = extract(&source, Bookmark::default()).await;
        assert_eq!(outcome.result.as_ref().unwrap_err().kind(), ErrorKind::Refused);
        assert!(
            outcome.error().contains("next_link_off_origin"),
            "{}",
            outcome.error()
        );
        assert_eq!(server.received()[0].header("x-api-key"), Some("hunter2"));
        assert_eq!(server.received().len(), 1);
    }
    assert!(other.received().is_empty());
}

#[tokio::test]
async fn f056_redirects_end_and_a_post_stays_a_post() {
    let server = Server::start(|_, _| status(302, "location: /again\r\n", b"")).await;
    let outcome = extract(&source(&server.url, Paginate::Single), Bookmark::default()).await;
    assert!(
        outcome.error().contains("redirects_max: 5"),
        "{}",
        outcome.error()
    );
    assert_eq!(server.received().len(), 6);

    let mut post = source(&server.url, Paginate::Single);
    post.streams[0].request.method = Method::Post;
    let outcome = extract(&post, Bookmark::default()).await;
    assert!(
        outcome.error().contains("a POST would become a GET"),
        "{}",
        outcome.error()
    );

    let server = Server::start(|number, _| match number {
        0 => status(307, "location: /b\r\n", b""),
        _ => json(r#"{"data":[]}"#),
    })
    .await;
    let mut post = source(&server.url, Paginate::Single);
    post.streams[0].request.method = Method::Post;
    post.streams[0].request.body = Body::Json(serde_json::json!({"q": 1}).into());
    extract(&post, Bookmark::default()).await.result.unwrap();
    let second = server.received()[1].clone();
    assert!(second.head.starts_with("POST /b "), "{}", second.head);
    assert_eq!(second.body, r#"{"q":1}"#);
}

#[tokio::test]
async fn f057_next_links_off_the_origin_are_refused_unconnected() {
    let other = Server::start(|_, _| json(r#"{"data":[]}"#)).await;
    let links = [
        format!("{}/orders", other.url),
        "https://127.0.0.1/orders".to_owned(),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://[::1]/x".to_owned(),
        "http://2130706433/x".to_owned(),
        "//other.example/x".to_owned(),
        "file:///etc/passwd".to_owned(),
        "gopher://127.0.0.1/".to_owned(),
        "javascript:alert(1)".to_owned(),
        "http://".to_owned(),
    ];
    for link in links {
        for paginate in [next_url(), Paginate::LinkHeader] {
            let answer = link.clone();
            let server = Server::start(move |_, _| {
                let body = format!(r#"{{"data":[{{}}],"next":"{answer}"}}"#);
                json_with(&body, &format!("link: <{answer}>; rel=next\r\n"))
            })
            .await;
            let outcome = extract(&source(&server.url, paginate), Bookmark::default()).await;
            assert_eq!(
                outcome.result.as_ref().unwrap_err().kind(),
                ErrorKind::Refused,
                "{link}"
            );
            assert_eq!((server.received().len(), outcome.pages.len()), (1, 0), "{link}");
        }
    }
    assert!(other.received().is_empty());
}

#[tokio::test]
async fn f043_a_cursor_that_repeats_ends_with_an_error() {
    let server = Server::start(|_, _| json(r#"{"data":[{}],"next":"A"}"#)).await;
    let outcome = extract(&source(&server.url, cursor()), Bookmark::default()).await;
    let error = outcome.result.as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(
        error.to_string().contains("page: 2, first: 1") && error.to_string().contains("token: A"),
        "{error}"
    );
    assert_eq!((server.received().len(), outcome.pages.len()), (2, 2));
    assert_eq!(outcome.bookmark().watermark, None);
}

#[tokio::test]
async fn f044_a_cycle_of_cursors_ends_with_an_error() {
    let server = Server::start(|number, _| {
        let next = ["A", "B", "C"][number % 3];
        json(&format!(r#"{{"data":[{{}}],"next":"{next}"}}"#))
    })
    .await;
    let outcome = extract(&source(&server.url, cursor()), Bookmark::default()).await;
    assert!(
        outcome
            .error()
            .contains("follow a page token for the second time"),
        "{}",
        outcome.error()
    );
    assert_eq!(server.received().len(), 4);
}

#[tokio::test]
async fn r030_pages_without_end_meet_the_page_limit() {
    let server =
        Server::start(|number, _| json(&format!(r#"{{"data":[{{"id":{number}}}],"next":{number}}}"#))).await;
    let mut source = source(&server.url, cursor());
    source.limits.pages_max = 7;
    let outcome = extract(&source, Bookmark::default()).await;
    assert_eq!(outcome.result.as_ref().unwrap_err().kind(), ErrorKind::Limit);
    assert!(outcome.error().contains("pages_max: 7"), "{}", outcome.error());
    assert_eq!((server.received().len(), outcome.pages.len()), (7, 7));
}

#[tokio::test]
async fn f046_empty_pages_are_followed_to_a_limit_and_no_further() {
    let answer = |number: usize| match number {
        0 | 3 => json(&format!(r#"{{"data":[{{}}],"next":"{number}"}}"#)),
        1 | 2 => json(&format!(r#"{{"data":[],"next":"{number}"}}"#)),
        _ => json(r#"{"data":[{}]}"#),
    };
    let server = Server::start(move |number, _| answer(number)).await;
    let outcome = extract(&source(&server.url, cursor()), Bookmark::default()).await;
    outcome.result.as_ref().unwrap();
    assert_eq!((outcome.records(), outcome.pages.len()), (3, 5));

    let server = Server::start(|number, _| json(&format!(r#"{{"data":[],"next":"{number}"}}"#))).await;
    let outcome = extract(&source(&server.url, cursor()), Bookmark::default()).await;
    assert_eq!(outcome.result.as_ref().unwrap_err().kind(), ErrorKind::Limit);
    assert!(
        outcome.error().contains("empty_pages_max: 2"),
        "{}",
        outcome.error()
    );
    assert_eq!(server.received().len(), 3);
}

#[tokio::test]
async fn r050_r170_a_query_key_is_sent_with_every_page_and_written_down_nowhere() {
    let server = Server::start(|number, received| match number {
        // Servers echo the key in their links.
        0 => {
            let echo = format!(
                "http://{}{}&page=2",
                received.header("host").unwrap(),
                received.target
            );
            json_with(
                &format!(r#"{{"data":[{{}}],"next":"{echo}"}}"#),
                &format!("link: <{echo}>; rel=next\r\n"),
            )
        }
        1 => status(500, "", b""),
        2 => json(r#"{"data":[{}],"next":"?page=3"}"#),
        _ => status(404, "", b""),
    })
    .await;
    let (_file, secret) = secret_file("s3cr3t-k3y\n");
    let mut source = source(&server.url, next_url());
    source.auth = Auth::ApiKeyQuery {
        name: "k".to_owned(),
        value: secret,
    };
    let outcome = extract(&source, Bookmark::default()).await;
    for received in server.received() {
        assert_eq!(received.param("k").as_deref(), Some("s3cr3t-k3y"));
    }
    assert_eq!(
        server.queries(),
        [
            "k=s3cr3t-k3y",
            "page=2&k=s3cr3t-k3y",
            "page=2&k=s3cr3t-k3y",
            "page=3&k=s3cr3t-k3y"
        ]
    );
    let written: Vec<String> = outcome
        .pages
        .iter()
        .map(|fetched| {
            let facts = serde_json::to_string(&fetched.page.facts).unwrap();
            format!("{facts} {}", serde_json::to_string(&fetched.bookmark).unwrap())
        })
        .collect();
    let written = format!("{} {}", written.join("\n"), outcome.error());
    assert!(!written.contains("s3cr3t"), "{written}");
    assert!(written.contains("k=****"), "{written}");
}

#[tokio::test]
async fn r050_parameters_given_by_reference_are_masked_too() {
    let server = Server::start(|_, _| json(r#"{"data":[{}]}"#)).await;
    let (_file, secret) = secret_file("tenant-key");
    let mut source = source(&server.url, Paginate::Single);
    source.streams[0].request.params = vec![
        ("limit".to_owned(), Text::literal("5")),
        ("tenant".to_owned(), secret.into()),
    ];
    let outcome = extract(&source, Bookmark::default()).await;
    assert_eq!(server.queries(), ["limit=5&tenant=tenant-key"]);
    assert!(
        outcome.pages[0].page.facts.url.ends_with("?limit=5&tenant=****"),
        "{}",
        outcome.pages[0].page.facts.url
    );
}

#[tokio::test]
async fn r050_a_parameter_given_by_reference_does_not_replace_the_page_token() {
    let server = Server::start(|number, _| match number {
        0 => json(r#"{"data":[{}],"next":"B"}"#),
        _ => json(r#"{"data":[{}]}"#),
    })
    .await;
    let (_file, secret) = secret_file("first-page");
    let mut source = source(&server.url, cursor());
    source.streams[0].request.params = vec![("cursor".to_owned(), secret.into())];
    extract(&source, Bookmark::default()).await.result.unwrap();
    assert_eq!(server.queries(), ["cursor=first-page", "cursor=B"]);
}

#[tokio::test]
async fn f058_a_link_header_that_cannot_be_read_ends_with_an_error() {
    let server = Server::start(|_, _| json_with(r#"{"data":[{}]}"#, "link: </n; rel=next\r\n")).await;
    let outcome = extract(&source(&server.url, Paginate::LinkHeader), Bookmark::default()).await;
    assert_eq!(outcome.result.as_ref().unwrap_err().kind(), ErrorKind::Refused);
    assert!(outcome.error().contains("header Link"), "{}", outcome.error());
    assert!(outcome.pages.is_empty());
}

#[tokio::test]
async fn r039_the_budget_is_shared_and_counts_every_request() {
    let server = Server::start(|number, _| {
        if number == 0 {
            status(503, "", b"")
        } else {
            json(r#"{"data":[{}]}"#)
        }
    })
    .await;
    let mut source = source(&server.url, Paginate::Single);
    source.rate_limit = Some(RateLimit::simple(3, Duration::from_secs(3600)));
    let clock = Clock::from_fn(now);
    let shared = channel(&source, &clock);
    for _ in 0..2 {
        let mut extraction = Extraction::new(
            &source,
            &source.streams[0],
            Arc::clone(&shared),
            clock.clone(),
            Bookmark::default(),
        )
        .unwrap();
        assert!(extraction.next().await.unwrap().is_some());
    }
    assert_eq!(server.received().len(), 3);
    assert_eq!(shared.wait_hint(), Duration::from_secs(3672));
}

#[tokio::test]
async fn r024_a_base_url_with_a_path_keeps_it() {
    let server = Server::start(|_, _| json(r#"{"data":[]}"#)).await;
    let mut source = source(
        &Url::parse(&format!("{}/", server.url)).unwrap(),
        Paginate::Single,
    );
    source.streams[0].request.path = Text::literal("orders?b=1");
    source.streams[0].request.params = vec![("b".to_owned(), Text::literal("2 3"))];
    extract(&source, Bookmark::default()).await.result.unwrap();
    assert_eq!(server.received()[0].target, "/v1/orders?b=1&b=2+3");
    let agent = server.received()[0].header("user-agent").unwrap().to_owned();
    assert!(agent.starts_with("landfall/"), "{agent}");
}
