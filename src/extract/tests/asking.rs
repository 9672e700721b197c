//! Requests as they are written and as they are read.

use std::path::Path;

use serde_json::json;

use crate::{
    config::{
        Source,
        read::{Loaded, parse},
        request::{Body, Method},
    },
    extract::request::{Ask, PageRequest, START},
    yaml::Problem,
};

/// A project whose stream asks for `request`.
fn read(config: &str, request: &str) -> Result<Loaded, Vec<Problem>> {
    let text = format!(
        "lake: ./lake\nsources:\n  shop:\n    base_url: https://api.shop.example/v1\n    config: {config}\n    streams:\n      orders:\n        request: {request}\n        table: {{ keys: [id] }}\n"
    );
    parse(&text, Path::new("/srv/shop"))
}

fn source(config: &str, request: &str) -> Source {
    let loaded = read(config, request).unwrap_or_else(|problems| panic!("{problems:?}"));
    assert_eq!(loaded.warnings, []);
    loaded.project.sources.into_iter().next().unwrap()
}

fn problems(config: &str, request: &str) -> String {
    let problems = read(config, request).unwrap_err();
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

#[test]
fn r012_a_request_says_everything_with_templates() {
    let source = source(
        "{ region: eu, version: 1.10, limits: { page: 50, big: 18446744073709551617 } }",
        r#"{ method: POST, path: "/{{ config.region }}/o", params: { v: "{{ config.version }}", n: "{{ page.number }}" },
             headers: { X-A: "{{ config.limits.big }}" }, json: { limit: "{{ config.limits.page }}", n: [1, "a"] } }"#,
    );
    let stream = &source.streams[0];
    let request = PageRequest::build(&source, stream, &Ask::default()).unwrap();
    let prepared = request.prepare(&source, &stream.request).unwrap();
    assert_eq!(
        prepared.url.as_str(),
        "https://api.shop.example/v1/eu/o?v=1.10&n=0"
    );
    assert_eq!(prepared.headers["x-a"], "18446744073709551617");
    assert_eq!(prepared.body.to_bytes().unwrap(), br#"{"limit":50,"n":[1,"a"]}"#);
    assert_eq!(request.token, START);
}

#[test]
fn r012_graphql_is_a_post_with_a_document_and_variables() {
    let source = source(
        "{}",
        r#"{ path: /graphql, graphql: { query: "query Q($n: Int) { a(n: $n) { id } }", variables: { n: 5 }, operation: Q } }"#,
    );
    let request = &source.streams[0].request;
    assert_eq!(request.method, Method::Post);
    let Body::GraphQl {
        variables, operation, ..
    } = &request.body
    else {
        panic!("{:?}", request.body)
    };
    assert_eq!((variables.len(), operation.as_deref()), (1, Some("Q")));
    let short = self::source("{}", r#"{ path: /graphql, graphql: "{ a { id } }" }"#);
    let page = PageRequest::build(&short, &short.streams[0], &Ask::default()).unwrap();
    let sent: serde_json::Value = serde_json::from_slice(&page.body.to_bytes().unwrap()).unwrap();
    assert_eq!(sent, json!({"query": "{ a { id } }", "variables": {}}));
}

#[test]
fn r020_what_is_wrong_with_a_template_is_said_where_it_stands() {
    insta::assert_snapshot!(problems("{}", r#"{ path: "/o/{{ slce.id }}", params: { a: "{{ page.number + }}", b: "{{ 1 | nope }}", c: "{% include 'x' %}",
            d: "{{ '${env:A}' }}", e: "${vault:x} {{ 1 }}" }, json: { x: ["{{ response.a }}"] }, form: { a: 1 } }"#), @r#"
    landfall.yml:8:26: path: "slce" is not a variable known here
      hint: known here: config, slice, window, page, state, now
    landfall.yml:8:59: a: a template: a value is missing beside a sign
    landfall.yml:8:85: b: a template: unknown filter nope
    landfall.yml:8:106: c: a template: a statement other than if, for and set
      hint: templates have {% if %}, {% elif %}, {% else %}, {% for %} and {% set name = value %}
    landfall.yml:9:16: d: a template: a reference stands within quotes, where it would not be read
      hint: put it beside them: {{ 'id ' ~ ${env:NAME} }}, or outside the braces: id ${env:NAME}
    landfall.yml:9:39: e: holds a reference that cannot be read
      hint: write ${env:NAME} or ${file:PATH}, and $${ where ${ itself is meant
    landfall.yml:9:63: a GET request has no body
      hint: add method: POST, or use params
    landfall.yml:9:75: x: "response" is not a variable known here
      hint: known here: config, slice, window, page, state, now
    landfall.yml:9:98: only one of body, json, form, text, graphql may be given
    "#);
    insta::assert_snapshot!(problems("{ api_key: x, a: ['${env:A}'] }", "{ path: /o }"), @r#"
    landfall.yml:5:24: api_key: a secret has no place in config, whose values are shown
      hint: write ${env:NAME} where it is used, also within a template: {{ ${env:NAME} | base64 }}
    landfall.yml:5:30: a: a secret has no place in config, whose values are shown
      hint: write ${env:NAME} where it is used, also within a template: {{ ${env:NAME} | base64 }}
    "#);
}
