//! Every paginator with every credential and every way an answer can be wrong, against one server.
//!
//! A case is right if the server was asked exactly what it should be, in that order, if the bytes handed out are those
//! of the good answers, and if the bookmark stands where it should.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt as _, stream};

use super::{
    dialect::{ids, query},
    server::{
        Handed, Outcome, Received, Reply, Server, extract, incremental, json_with, path, source, status, wire,
    },
};
use crate::{
    config::{
        Source,
        auth::{Auth, Credential, Grant, Session, SessionToken},
        errors::{Action, ErrorRule},
        incremental::CursorFormat,
        paginate::{OffsetStep, OnFirst, Paginate},
        request::{Body, Method, Place, Request, TokenSlot},
        secret::Secret,
        text::{Expr, Text},
    },
    error::ErrorKind,
    raw::Bookmark,
};

/// Records of the data set, with the ids from 0 on.
const TOTAL: usize = 7;

/// Records of a page.
const SIZE: usize = 3;

/// Cases under way at the same time.
const AT_ONCE: usize = 16;

/// A way to go through the pages.
struct Way {
    name: &'static str,
    paginate: Paginate,
    /// Changes the request so that it can carry the token.
    request: fn(&mut Source),
    /// The first record of each page, in the order they are asked for.
    places: &'static [usize],
}

/// A way to prove who asks.
struct Proof {
    name: &'static str,
    auth: fn(&Server) -> Auth,
    /// Whether a request proves it, given the number of tokens issued so far.
    holds: fn(&Received, usize) -> bool,
    /// Whether the credential is fetched, and so can expire on the way.
    fetched: bool,
}

/// What goes wrong.
#[derive(Clone, Copy)]
struct Fault {
    name: &'static str,
    /// The answer to the nth time (from 0) that the page beginning with this record is asked for.
    answer: fn(usize, usize) -> Option<Reply>,
    rules: fn() -> Vec<ErrorRule>,
    ends: Ends,
}

/// How an extraction under a fault ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ends {
    /// With every page, each asked for this many times.
    Well(usize),
    /// Before the page that begins with record 3, without an error.
    Early,
    /// At that page with an error of this kind, after asking for it this many times.
    Badly(ErrorKind, usize),
}

fn ways() -> Vec<Way> {
    const TOKENS: &[usize] = &[0, 3, 6];
    let same = |_: &mut Source| {};
    let way = |name, paginate, places| Way {
        name,
        paginate,
        request: same,
        places,
    };
    let token = |from, to| Paginate::Cursor { from, to };
    let next = || Place::Body(path("$.next"));
    let page = |first, on_first| Paginate::PageNumber {
        to: query("page"),
        first,
        on_first,
    };
    vec![
        way("cursor in the body", token(next(), query("at")), TOKENS),
        way(
            "cursor in a header",
            token(
                Place::Header("x-next".to_owned()),
                TokenSlot::Header("X-At".to_owned()),
            ),
            TOKENS,
        ),
        Way {
            request: |source| {
                source.streams[0].request.method = Method::Post;
                source.streams[0].request.body = Body::Json(serde_json::json!({"size": SIZE}).into());
            },
            ..way(
                "cursor sent in the body",
                token(
                    next(),
                    TokenSlot::BodyField(vec!["page".to_owned(), "at".to_owned()]),
                ),
                TOKENS,
            )
        },
        Way {
            request: |source| {
                let path = "/orders{% if page.token %}/from/{{ page.token }}{% endif %}";
                source.streams[0].request.path = Text::parse(path).unwrap();
            },
            ..way("cursor in the path", token(next(), TokenSlot::Template), TOKENS)
        },
        way(
            "next url",
            Paginate::NextUrl {
                from: Place::Body(path("$.url")),
            },
            TOKENS,
        ),
        way(
            "next url that is made",
            Paginate::MadeUrl {
                url: Text::parse("{% if response.next %}/v1/orders?at={{ response.next }}{% endif %}")
                    .unwrap(),
            },
            TOKENS,
        ),
        way("link", Paginate::LinkHeader, TOKENS),
        way("auto", Paginate::Auto, TOKENS),
        way("page from 1", page(1, OnFirst::Sent), &[0, 3, 6, 9]),
        way("page from 1, not sent", page(1, OnFirst::Omitted), &[0, 3, 6, 9]),
        way(
            "offset",
            Paginate::Offset {
                to: query("at"),
                first: 0,
                on_first: OnFirst::Sent,
                step: OffsetStep::Records,
            },
            &[0, 3, 6, 7],
        ),
        way(
            "keyset",
            Paginate::Keyset {
                key: path("$.id"),
                to: query("after"),
            },
            &[0, 3, 6, 7],
        ),
        way(
            "template",
            Paginate::Template {
                token: Text::parse("{{ response.next }}").unwrap(),
                to: query("at"),
            },
            TOKENS,
        ),
        way(
            "relay",
            Paginate::Relay {
                connection: path("$.connection"),
                to: query("at"),
            },
            TOKENS,
        ),
    ]
}

fn bearer(token: &str) -> Auth {
    Auth::Bearer {
        scheme: "Bearer".to_owned(),
        token: Secret::literal(token),
    }
}

fn oauth(server: &Server) -> Auth {
    Auth::OAuth2(Box::new(super::auth::oauth(server, Grant::ClientCredentials)))
}

fn session(_: &Server) -> Auth {
    Auth::Session(Box::new(Session {
        login: Request {
            method: Method::Post,
            path: Text::literal("/login"),
            params: Vec::new(),
            headers: Vec::new(),
            body: Body::None,
        },
        login_auth: Auth::None,
        token: SessionToken::Body(path("$.access_token")),
        lifetime: None,
        send: Credential {
            to: TokenSlot::Header("X-Session".to_owned()),
            scheme: String::new(),
        },
    }))
}

fn issued(number: usize) -> String {
    format!("t0ken-{number}")
}

fn proofs() -> Vec<Proof> {
    vec![
        Proof {
            name: "none",
            auth: |_| Auth::None,
            holds: |received, _| received.header("authorization").is_none(),
            fetched: false,
        },
        Proof {
            name: "key in a header",
            auth: |_| Auth::ApiKeyHeader {
                name: "X-Key".to_owned(),
                value: Secret::literal("s3cret-key"),
            },
            holds: |received, _| received.header("x-key") == Some("s3cret-key"),
            fetched: false,
        },
        Proof {
            name: "key in the query",
            auth: |_| Auth::ApiKeyQuery {
                name: "k".to_owned(),
                value: Secret::literal("s3cret-key"),
            },
            holds: |received, _| received.param("k").as_deref() == Some("s3cret-key"),
            fetched: false,
        },
        Proof {
            name: "basic",
            auth: |_| Auth::Basic {
                username: Secret::literal("me"),
                password: Secret::literal("s3cret"),
            },
            holds: |received, _| received.header("authorization") == Some("Basic bWU6czNjcmV0"),
            fetched: false,
        },
        Proof {
            name: "bearer",
            auth: |_| bearer("s3cret-token"),
            holds: |received, _| received.header("authorization") == Some("Bearer s3cret-token"),
            fetched: false,
        },
        Proof {
            name: "pool",
            auth: |_| Auth::Pool(vec![bearer("s3cret-one"), bearer("s3cret-two")]),
            holds: |received, _| {
                let sent = received.header("authorization");
                sent == Some("Bearer s3cret-one") || sent == Some("Bearer s3cret-two")
            },
            fetched: false,
        },
        Proof {
            name: "oauth2",
            auth: oauth,
            holds: |received, tokens| {
                received.header("authorization") == Some(&format!("Bearer {}", issued(tokens)))
            },
            fetched: true,
        },
        Proof {
            name: "session",
            auth: session,
            holds: |received, tokens| received.header("x-session") == Some(&issued(tokens)),
            fetched: true,
        },
    ]
}

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

fn faults() -> Vec<Fault> {
    let none = Vec::new;
    let once = |name, answer, rules| Fault {
        name,
        answer,
        rules,
        ends: Ends::Well(2),
    };
    vec![
        Fault {
            name: "nothing",
            answer: |_, _| None,
            rules: none,
            ends: Ends::Well(1),
        },
        once("503", |time, _| (time == 0).then(|| status(503, "", b"")), none),
        once(
            "429",
            |time, _| (time == 0).then(|| status(429, "retry-after: 0\r\n", b"")),
            none,
        ),
        once(
            "a cut body",
            |time, _| (time == 0).then(|| wire("HTTP/1.1 200 OK\ncontent-length: 999\n\n", b"{\"data\":[")),
            none,
        ),
        once(
            "a login page",
            |time, _| (time == 0).then(|| status(200, "content-type: text/html\r\n", b"<html>")),
            none,
        ),
        once(
            "409 by rule",
            |time, _| (time == 0).then(|| status(409, "", b"")),
            || vec![rule(409, Action::Retry)],
        ),
        once(
            "200 by rule",
            |time, _| (time == 0).then(|| json_with(r#"{"error":"busy","data":[]}"#, "")),
            || {
                vec![ErrorRule {
                    when: Some(Expr::parse("response.error == 'busy'").unwrap()),
                    ..rule(200, Action::Throttle)
                }]
            },
        ),
        Fault {
            name: "404 that ends",
            answer: |_, place| (place >= 3).then(|| status(404, "", b"no such page")),
            rules: || vec![rule(404, Action::Ignore)],
            ends: Ends::Early,
        },
        Fault {
            name: "403",
            answer: |_, place| (place == 3).then(|| status(403, "", b"no")),
            rules: none,
            ends: Ends::Badly(ErrorKind::Refused, 1),
        },
        Fault {
            name: "500 for good",
            answer: |_, place| (place == 3).then(|| status(500, "", b"")),
            rules: none,
            ends: Ends::Badly(ErrorKind::Unavailable, 3),
        },
        Fault {
            name: "fail by rule",
            answer: |_, place| (place == 3).then(|| status(503, "", b"")),
            rules: || vec![rule(503, Action::Fail)],
            ends: Ends::Badly(ErrorKind::Refused, 1),
        },
    ]
}

/// Where the page that is asked for begins.
fn place_of(received: &Received) -> usize {
    let number = |text: &str| text.parse::<usize>().unwrap();
    let in_path = received.target.split('?').next().unwrap().split("/from/").nth(1);
    let in_body = || {
        let body: serde_json::Value = serde_json::from_str(&received.body).ok()?;
        body["page"]["at"].as_str().map(number)
    };
    None.or(received.param("at").as_deref().map(number))
        .or(received
            .param("page")
            .as_deref()
            .map(|page| (number(page) - 1) * SIZE))
        .or(received.param("after").as_deref().map(|after| number(after) + 1))
        .or(received.header("x-at").map(number))
        .or(in_path.map(number))
        .or_else(in_body)
        .unwrap_or(0)
}

/// The body of the page that begins with record `place`: every paginator finds its next page in it.
fn body(place: usize) -> String {
    let end = (place + SIZE).min(TOTAL);
    let data = ids(place.min(TOTAL), end);
    if end < TOTAL {
        format!(
            r#"{{"data":{data},"next":"{end}","url":"?at={end}","connection":{{"pageInfo":{{"hasNextPage":true,"endCursor":"{end}"}}}}}}"#
        )
    } else {
        format!(
            r#"{{"data":{data},"next":null,"url":null,"connection":{{"pageInfo":{{"hasNextPage":false,"endCursor":null}}}}}}"#
        )
    }
}

fn page(place: usize) -> Reply {
    let end = place + SIZE;
    let headers = if end < TOTAL {
        format!("x-next: {end}\r\nlink: </v1/orders?at={end}>; rel=\"next\"\r\n")
    } else {
        String::new()
    };
    json_with(&body(place), &headers)
}

/// What a server was asked, in order: the place of a page, or `token`.
type Log = Arc<Mutex<Vec<String>>>;

#[derive(Default)]
struct Memory {
    tokens: usize,
    expired: bool,
    times: HashMap<usize, usize>,
}

/// A server of the data set that asks for proof, whose first token expires before record 3, and that answers wrongly.
async fn serve(proof: &Proof, fault: Fault) -> (Server, Log) {
    let log = Log::default();
    let seen = Arc::clone(&log);
    let memory = Mutex::new(Memory::default());
    let (holds, fetched) = (proof.holds, proof.fetched);
    let server = Server::start(move |_, received| {
        let (mut memory, mut seen) = (memory.lock().unwrap(), seen.lock().unwrap());
        if received.target == "/token" || received.target == "/v1/login" {
            seen.push("token".to_owned());
            memory.tokens += 1;
            let token = issued(memory.tokens);
            return json_with(&format!(r#"{{"access_token":"{token}","expires_in":3600}}"#), "");
        }
        let place = place_of(received);
        seen.push(place.to_string());
        if fetched && place == 3 && !memory.expired {
            memory.expired = true;
            return status(401, "", b"expired");
        }
        if !holds(received, memory.tokens) {
            return status(401, "", b"who are you");
        }
        let time = memory.times.entry(place).or_default();
        *time += 1;
        (fault.answer)(*time - 1, place).unwrap_or_else(|| page(place))
    })
    .await;
    (server, log)
}

/// What a server is asked from page number `from` on.
fn expected(way: &Way, proof: &Proof, fault: Fault, from: usize) -> Vec<String> {
    let mut asked = Vec::new();
    if proof.fetched {
        asked.push("token".to_owned());
    }
    for &place in &way.places[from..] {
        let times = match fault.ends {
            Ends::Well(times) => times,
            Ends::Badly(_, times) if place == 3 => times,
            Ends::Early | Ends::Badly(..) => 1,
        };
        if proof.fetched && place == 3 {
            asked.extend([place.to_string(), "token".to_owned()]);
        }
        asked.extend(std::iter::repeat_n(place.to_string(), times));
        if place == 3 && !matches!(fault.ends, Ends::Well(_)) {
            break;
        }
    }
    asked
}

fn bodies(places: &[usize]) -> Vec<String> {
    places.iter().map(|place| body(*place)).collect()
}

/// One case, named `about`.
async fn check(way: &Way, proof: &Proof, fault: Fault) {
    let about = format!("{} / {} / {}", way.name, proof.name, fault.name);
    let (server, log) = serve(proof, fault).await;
    let mut source = source(&server.url, way.paginate.clone());
    source.auth = (proof.auth)(&server);
    source.errors = (fault.rules)();
    (way.request)(&mut source);
    let mut by_id = incremental(Duration::ZERO);
    by_id.cursor = path("$.id");
    by_id.format = CursorFormat::Integer;
    source.streams[0].incremental = Some(by_id);
    let outcome = extract(&source, Bookmark::default()).await;
    let asked = std::mem::take(&mut *log.lock().unwrap());
    assert_eq!(asked, expected(way, proof, fault, 0), "{about}");
    let landed: VecDeque<&str> = outcome.bodies().into();
    match fault.ends {
        Ends::Well(times) => {
            outcome
                .result
                .as_ref()
                .unwrap_or_else(|error| panic!("{about}: {error:?}"));
            let (pages, others): (Vec<&Handed>, Vec<&Handed>) = outcome
                .pages
                .iter()
                .partition(|handed| !handed.page.facts.superseded);
            assert!(
                pages
                    .iter()
                    .map(|handed| &handed.page.body)
                    .eq(&bodies(way.places)),
                "{about}"
            );
            let attempts = |handed: &[&Handed], expected: usize| {
                handed
                    .iter()
                    .all(|handed| handed.page.facts.attempts as usize == expected)
            };
            assert!(attempts(&pages, times) && attempts(&others, 1), "{about}");
            // What was read and not taken is landed too.
            let shows = usize::from(fault.name == "a login page");
            assert_eq!(others.len(), shows * pages.len(), "{about}");
            assert_closed(&outcome, "6", &about);
        }
        Ends::Early => {
            outcome
                .result
                .as_ref()
                .unwrap_or_else(|error| panic!("{about}: {error:?}"));
            assert_eq!(landed, bodies(&way.places[..1]), "{about}");
        }
        Ends::Badly(kind, _) => {
            let error = outcome.result.as_ref().unwrap_err();
            assert_eq!(error.kind(), kind, "{about}: {error}");
            let shown = format!(
                "{} {}",
                error.chain(),
                serde_json::to_string(&outcome.bookmark()).unwrap()
            );
            assert!(
                !shown.contains("s3cret") && !shown.contains("t0ken"),
                "{about}: {shown}"
            );
            assert_eq!(landed, bodies(&way.places[..1]), "{about}");
            let bookmark = outcome.bookmark();
            assert_eq!(
                (
                    bookmark.watermark.as_deref(),
                    bookmark.window.as_ref().unwrap().records
                ),
                (None, 3),
                "{about}"
            );
            resume(way, proof, &source, bookmark, &about).await;
        }
    }
}

/// The run after a failure goes on at the page that failed.
async fn resume(way: &Way, proof: &Proof, failed: &Source, bookmark: Bookmark, about: &str) {
    let fine = faults()[0];
    // The same server, mended: the bookmark's links lead to it.
    let (server, log) = serve(proof, fine).await;
    let mut mended = failed.clone();
    mended.base_url = server.url.clone();
    mended.auth = (proof.auth)(&server);
    let mut bookmark = bookmark;
    let window = bookmark.window.as_mut().unwrap();
    window.next = window.next.replace(failed.base_url.as_str(), server.url.as_str());
    window.shape = None;
    let outcome = extract(&mended, bookmark).await;
    outcome
        .result
        .as_ref()
        .unwrap_or_else(|error| panic!("{about}, resumed: {error:?}"));
    assert_eq!(
        *log.lock().unwrap(),
        expected(way, proof, fine, 1),
        "{about}, resumed"
    );
    assert_eq!(outcome.bodies(), bodies(&way.places[1..]), "{about}, resumed");
    assert_closed(&outcome, "6", about);
}

fn assert_closed(outcome: &Outcome, watermark: &str, about: &str) {
    let bookmark = outcome.bookmark();
    assert_eq!(bookmark.watermark.as_deref(), Some(watermark), "{about}");
    assert_eq!(bookmark.window, None, "{about}");
    assert!(bookmark.last_success_at.is_some(), "{about}");
}

/// Every paginator and every fault with the credentials named.
async fn conform(names: &[&str]) {
    let (ways, proofs, faults) = (ways(), proofs(), faults());
    let mut cases = Vec::new();
    for proof in proofs.iter().filter(|proof| names.contains(&proof.name)) {
        for way in &ways {
            cases.extend(faults.iter().map(|fault| check(way, proof, *fault)));
        }
    }
    assert_eq!(cases.len(), names.len() * ways.len() * faults.len());
    stream::iter(cases)
        .for_each_concurrent(AT_ONCE, |case| case)
        .await;
}

#[tokio::test]
async fn r012_conformance_without_a_credential() {
    conform(&["none"]).await;
}

#[tokio::test]
async fn r012_r050_conformance_with_a_key_in_a_header() {
    conform(&["key in a header"]).await;
}

#[tokio::test]
async fn r012_r050_conformance_with_a_key_in_the_query() {
    conform(&["key in the query"]).await;
}

#[tokio::test]
async fn r012_r050_conformance_with_basic() {
    conform(&["basic"]).await;
}

#[tokio::test]
async fn r012_r050_conformance_with_bearer() {
    conform(&["bearer"]).await;
}

#[tokio::test]
async fn r012_r044_conformance_with_a_pool() {
    conform(&["pool"]).await;
}

#[tokio::test]
async fn r012_r052_f064_conformance_with_tokens_that_expire_on_the_way() {
    conform(&["oauth2"]).await;
}

#[tokio::test]
async fn r012_r052_conformance_with_sessions_that_expire_on_the_way() {
    conform(&["session"]).await;
}
