//! What is asked: templates, bodies and where values are placed.

use std::time::Duration;

use serde_json::{Value, json};
use url::Url;

use super::server::{incremental, now, secret_file, source};
use crate::{
    config::{
        Source,
        incremental::{CursorFormat, Incremental},
        paginate::{OffsetStep, OnFirst, Paginate},
        request::{Body, Method, Request, TokenSlot, Tree},
        text::Text,
    },
    error::ErrorKind,
    extract::request::{Ask, PageBody, PageRequest, Prepared, START},
};

fn text(text: &str) -> Text {
    Text::parse(text).unwrap()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, Text)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), text(value)))
        .collect()
}

/// JSON with templates in its texts.
fn tree(json: Value) -> Tree {
    match json {
        Value::String(written) => Tree::Text(text(&written)),
        Value::Array(items) => Tree::Array(items.into_iter().map(tree).collect()),
        Value::Object(members) => Tree::Object(
            members
                .into_iter()
                .map(|(name, value)| (name, tree(value)))
                .collect(),
        ),
        scalar => Tree::Scalar(scalar),
    }
}

fn get(path: &str) -> Request {
    Request {
        method: Method::Get,
        path: text(path),
        params: Vec::new(),
        headers: Vec::new(),
        body: Body::None,
    }
}

fn post(body: Body) -> Request {
    Request {
        method: Method::Post,
        body,
        ..get("/q")
    }
}

fn api(request: Request, paginate: Paginate) -> Source {
    let mut source = source(&Url::parse("https://a.example/v1").unwrap(), paginate);
    source.config = vec![
        ("region".to_owned(), json!("eu")),
        ("limit".to_owned(), json!(50)),
    ];
    source.streams[0].request = request;
    source
}

fn ask(token: &str) -> Ask {
    let Value::Object(slice) = json!({"order": "a/b", "n": 7, "empty": ""}) else {
        unreachable!()
    };
    Ask {
        token: token.to_owned(),
        page: 3,
        since: Some("2024-01-01".to_owned()),
        slice,
        now: Some(now()),
        ..Ask::default()
    }
}

fn built(source: &Source, token: &str) -> crate::error::Result<Prepared> {
    let stream = &source.streams[0];
    PageRequest::build(source, stream, &ask(token))?.prepare(source, &stream.request)
}

fn sent(source: &Source, token: &str) -> Prepared {
    built(source, token).unwrap()
}

fn body(source: &Source, token: &str) -> String {
    String::from_utf8(sent(source, token).body.to_bytes().unwrap()).unwrap()
}

fn slot(path: &str) -> TokenSlot {
    TokenSlot::BodyField(path.split('.').map(str::to_owned).collect())
}

fn cursor(to: TokenSlot) -> Paginate {
    Paginate::Cursor {
        from: crate::config::request::Place::Header("x".to_owned()),
        to,
    }
}

#[test]
fn r012_every_part_of_a_request_takes_templates() {
    let mut request = get("/{{ config.region }}/orders/{{ slice.order }}/lines");
    request.params = pairs(&[
        ("limit", "{{ config.limit }}"),
        ("since", "{{ window.since | add('-1d') }}"),
        ("until", "{{ window.until }}"),
        ("none", "{{ slice.empty }}"),
        ("empty", ""),
        ("q", "a&b {{ slice.order }}"),
    ]);
    request.headers = pairs(&[
        ("X-Page", "{{ page.number }}"),
        ("X-None", "{{ page.token }}"),
        ("Content-Type", "application/x-ours"),
        ("X-Date", "{{ now | strftime('%a, %d %b %Y') }}"),
    ]);
    let prepared = sent(&api(request, Paginate::Single), START);
    assert_eq!(
        prepared.url.as_str(),
        "https://a.example/v1/eu/orders/a%2Fb/lines?limit=50&since=2023-12-31&empty=&q=a%26b+a%2Fb"
    );
    assert_eq!(prepared.headers["x-page"], "3");
    assert_eq!(prepared.headers["x-date"], "Wed, 01 May 2024");
    assert_eq!(prepared.headers["content-type"], "application/x-ours");
    assert!(!prepared.headers.contains_key("x-none"));
}

#[test]
fn r012_a_parameter_with_a_list_is_repeated() {
    let (_dir, token) = secret_file("hunter2");
    let mut request = get("/orders");
    request.params = pairs(&[
        ("status", "open"),
        ("status", "{{ config.region }}"),
        ("id", "{{ [slice.n, slice.order, slice.empty] }}"),
        ("ids", "{{ [1, 2] | tojson }}"),
        ("none", "{{ [] }}"),
    ]);
    request.params.push(("key".to_owned(), text("a")));
    request.params.push(("key".to_owned(), token.into()));
    let source = api(request, Paginate::Single);
    let expected =
        "https://a.example/v1/orders?status=open&status=eu&id=7&id=a%2Fb&ids=%5B1%2C2%5D&key=a&key=hunter2";
    assert_eq!(sent(&source, START).url.as_str(), expected);
    // A placed value stands alone.
    let mut source = api(get("/q"), cursor(TokenSlot::Query("a".to_owned())));
    source.streams[0].request.params = pairs(&[("a", "1"), ("a", "2")]);
    assert_eq!(sent(&source, "x").url.query(), Some("a=x"));
    let form = Body::Form(pairs(&[("a", "{{ [1, 'x y'] }}"), ("a", "3")]));
    assert_eq!(body(&api(post(form), Paginate::Single), START), "a=1&a=x+y&a=3");
}

#[test]
fn r012_bodies_are_rendered_with_the_types_of_their_values() {
    let json = tree(json!({
        "n": "{{ slice.n }}", "t": "n {{ slice.n }}", "list": ["{{ slice.order }}", 1.5, null], "after": "{{ page.token }}",
        "plain": "007", "all": "{{ slice }}",
    }));
    let source = api(post(Body::Json(json)), Paginate::Single);
    let expected = json!({
        "n": 7, "t": "n 7", "list": ["a/b", 1.5, null], "after": null, "plain": "007",
        "all": {"order": "a/b", "n": 7, "empty": ""},
    });
    assert_eq!(
        serde_json::from_str::<Value>(&body(&source, START)).unwrap(),
        expected
    );
    let form = Body::Form(pairs(&[
        ("a b", "{{ slice.order }}"),
        ("no", "{{ slice.empty }}"),
        ("n", ""),
    ]));
    let source = api(post(form), Paginate::Single);
    assert_eq!(body(&source, START), "a+b=a%2Fb&n=");
    assert_eq!(
        sent(&source, START).headers["content-type"],
        "application/x-www-form-urlencoded"
    );
    let source = api(
        post(Body::Text(text("<id>{{ slice.n }}</id>\n"))),
        Paginate::Single,
    );
    assert_eq!(body(&source, START), "<id>7</id>\n");
}

#[test]
fn r012_a_bound_of_whole_numbers_is_a_number_in_a_json_body() {
    for (format, since, expected) in [
        (CursorFormat::Integer, "-7", json!(-7)),
        (
            CursorFormat::EpochMillis,
            "1700000000000",
            json!(1_700_000_000_000_i64),
        ),
        (CursorFormat::Pattern("%Y".into()), "2024", json!("2024")),
        (CursorFormat::Feed, "7", json!("7")),
    ] {
        let mut source = api(post(Body::Json(tree(json!({})))), Paginate::Single);
        source.streams[0].incremental = Some(Incremental {
            to: slot("since"),
            format,
            ..incremental(Duration::ZERO)
        });
        let since = Ask {
            since: Some(since.to_owned()),
            ..ask(START)
        };
        let request = PageRequest::build(&source, &source.streams[0], &since).unwrap();
        assert!(matches!(request.body, PageBody::Json(body) if body == json!({"since": expected})));
    }
}

#[test]
fn r012_graphql_takes_its_cursor_as_a_variable() {
    let graphql = Body::GraphQl {
        query: text("query Orders($after: String) { orders(after: $after) { nodes { id } } }"),
        variables: vec![
            ("first".to_owned(), tree(json!("{{ config.limit }}"))),
            ("filter".to_owned(), tree(json!({"order": "{{ slice.order }}"}))),
        ],
        operation: Some("Orders".to_owned()),
    };
    let source = api(post(graphql), cursor(slot("variables.after")));
    let first: Value = serde_json::from_str(&body(&source, START)).unwrap();
    assert_eq!(
        first["variables"],
        json!({"first": 50, "filter": {"order": "a/b"}})
    );
    assert_eq!(first["operationName"], "Orders");
    let second: Value = serde_json::from_str(&body(&source, "\"abc\"")).unwrap();
    assert_eq!(second["variables"]["after"], "abc");
    assert_eq!(second["query"], first["query"]);
    assert_eq!(sent(&source, START).headers["content-type"], "application/json");
}

#[test]
fn values_are_placed_wherever_a_body_has_a_place() {
    let table = [
        (json!({"a": {"b": 1}}), "a.c", json!({"a": {"b": 1, "c": "t"}})),
        (
            json!({"a": [{"x": 1}]}),
            "a.0.y",
            json!({"a": [{"x": 1, "y": "t"}]}),
        ),
        (json!({"a": [1]}), "a.1", json!({"a": [1, "t"]})),
        (json!({"a": [1]}), "a.x", json!({"a": {"x": "t"}})),
        (json!({"a": 1}), "a.0", json!({"a": {"0": "t"}})),
        (json!({"a": null}), "a.b.c", json!({"a": {"b": {"c": "t"}}})),
    ];
    for (json, path, expected) in table {
        let source = api(post(Body::Json(tree(json))), cursor(slot(path)));
        assert_eq!(
            serde_json::from_str::<Value>(&body(&source, "\"t\"")).unwrap(),
            expected,
            "{path}"
        );
    }
    let form = api(
        post(Body::Form(pairs(&[("a", "1"), ("page.token", "0")]))),
        cursor(slot("page.token")),
    );
    assert_eq!(body(&form, "x y"), "a=1&page.token=x+y");
    assert_eq!(body(&api(post(Body::None), cursor(slot("a"))), "5"), r#"{"a":5}"#);
}

#[test]
fn a_token_can_be_left_to_templates() {
    let mut request = get("/items{% if page.token %}/{{ page.token }}{% endif %}");
    request.params = pairs(&[("t", "{{ page.token }}")]);
    let source = api(request, cursor(TokenSlot::Template));
    assert_eq!(sent(&source, START).url.as_str(), "https://a.example/v1/items");
    assert_eq!(
        sent(&source, "x/y").url.as_str(),
        "https://a.example/v1/items/x%2Fy?t=x%2Fy"
    );
    let offset = Paginate::Offset {
        to: TokenSlot::Template,
        first: 0,
        on_first: OnFirst::Sent,
        step: OffsetStep::Records,
    };
    let json = Body::Json(tree(
        json!({"from": "{{ page.token }}", "to": "{{ page.token + 10 }}"}),
    ));
    let source = api(post(json), offset);
    assert_eq!(body(&source, START), r#"{"from":0,"to":10}"#);
    assert_eq!(body(&source, "40"), r#"{"from":40,"to":50}"#);
}

#[test]
fn r054_references_in_path_and_body_are_sent_and_not_shown() {
    let (file, reference) = secret_file("s3cr3t/t0ken");
    let written = format!("${{file:{}}}", file.path().display());
    let mut request = post(Body::Json(tree(
        json!({"key": written, "both": format!("{{{{ slice.n ~ {written} }}}}")}),
    )));
    request.path = text(&format!("/t/{written}/x"));
    request.headers = vec![("X-Key".to_owned(), reference.into())];
    let source = api(request, Paginate::Single);
    let stream = &source.streams[0];
    let page = PageRequest::build(&source, stream, &ask(START)).unwrap();
    let prepared = page.prepare(&source, &stream.request).unwrap();
    assert_eq!(prepared.url.path(), "/v1/t/s3cr3t%2Ft0ken/x");
    assert_eq!(
        prepared.body,
        PageBody::Json(json!({"key": "s3cr3t/t0ken", "both": "7s3cr3t/t0ken"}))
    );
    let shown = format!(
        "{:?} {:?} {:?} {:?}",
        page.body, page.vars, prepared.headers, prepared.body
    );
    assert!(!shown.contains("s3cr3t"), "{shown}");
    let masks = crate::extract::mask::Masks::of(&source, &stream.request).unwrap();
    assert_eq!(masks.url(page.url.as_str()), "https://a.example/v1/t/****/x");
    assert_eq!(masks.text("echo s3cr3t/t0ken"), "echo ****");
}

#[test]
fn a_value_cannot_leave_its_place() {
    let hostile = |request: Request, value: &str| {
        let source = api(request, Paginate::Single);
        let mut ask = ask(START);
        ask.slice.insert("order".to_owned(), json!(value));
        let stream = &source.streams[0];
        PageRequest::build(&source, stream, &ask)?.prepare(&source, &stream.request)
    };
    let path = || get("/orders/{{ slice.order }}/lines");
    for value in ["..", ".", ""] {
        let error = hostile(path(), value).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{value}");
    }
    for value in [
        "../x",
        "a?b=c",
        "a#b",
        "//evil.example",
        "\\..\\",
        "%2e%2e",
        "a\r\nb",
    ] {
        let url = hostile(path(), value).unwrap().url;
        assert_eq!(url.path_segments().unwrap().count(), 4, "{url}");
        assert_eq!(
            (url.host_str(), url.query(), url.fragment()),
            (Some("a.example"), None, None)
        );
        assert!(
            url.path().starts_with("/v1/orders/") && url.path().ends_with("/lines"),
            "{url}"
        );
    }
    let mut header = get("/o");
    header.headers = pairs(&[("X-Order", "{{ slice.order }}")]);
    let error = hostile(header, "a\r\nX-Admin: 1").map(|_| ()).unwrap_err();
    assert!(!error.chain().contains("Admin"), "{error}");
    let mut param = get("/o");
    param.params = pairs(&[("q", "{{ slice.order }}")]);
    assert_eq!(
        hostile(param, "a&b=c#d").unwrap().url.query(),
        Some("q=a%26b%3Dc%23d")
    );
}

#[test]
fn an_export_job_is_a_variable_of_its_requests() {
    let source = api(get("/o"), Paginate::Single);
    let ask = Ask {
        job: Some(json!({"id": "j 1", "response": {"token": 5}, "status": "running"})),
        ..ask(START)
    };
    let mut poll = get("/jobs/{{ job.id }}");
    poll.params = pairs(&[("t", "{{ job.response.token }}")]);
    let request = PageRequest::of(&source, &poll, ask.vars(&source)).unwrap();
    assert_eq!(request.url.as_str(), "https://a.example/v1/jobs/j%201?t=5");
}
