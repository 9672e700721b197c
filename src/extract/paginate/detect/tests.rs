//! What is found in answers as APIs send them.

use serde_json::{Value, json};

use super::*;
use crate::{
    config::request::Body,
    extract::{
        paginate::tests::{Reply, answered, posting, project, text},
        request::START,
    },
};

fn found_in(reply: &Reply, url: &str) -> Detected {
    let mut source = project(Paginate::Auto);
    if let Some((name, value)) = url.split_once('=') {
        source.streams[0].request.params = vec![(name.to_owned(), text(value))];
    }
    let stream = &source.streams[0];
    let found = detect(&answered(&source, stream, START, 1, reply).turn(&source, stream)).unwrap();
    if let Some(text) = found.to_text() {
        let again = Detected::from_text(&text).unwrap();
        assert_eq!(format!("{again:?}"), format!("{found:?}"));
    }
    found
}

fn words(body: Value) -> String {
    found_in(&Reply::new(body), "").found
}

#[test]
fn r011_what_was_found_is_said() {
    let one = json!([{"id": 1}]);
    for (body, expected) in [
        (
            json!({"data": one, "next": "https://api.example/o?page=2"}),
            "a URL at $.next",
        ),
        (json!({"data": one, "next_url": null}), "a URL at $.next_url"),
        (
            json!({"data": one, "links": {"next": "/v1/o?p=2"}}),
            "a URL at $.links.next",
        ),
        (
            json!({"data": one, "_links": {"next": {"href": "/v1/o?p=2"}}}),
            "a URL at $._links.next.href",
        ),
        (
            json!({"data": one, "paging": {"next": "https://api.example/o", "cursors": {"after": "x"}}}),
            "a URL at $.paging.next",
        ),
        (
            json!({"data": one, "@odata.nextLink": "https://api.example/o"}),
            "a URL at $[\"@odata.nextLink\"]",
        ),
        (
            json!({"data": one, "nextRecordsUrl": "/services/q/1"}),
            "a URL at $.nextRecordsUrl",
        ),
        (
            json!({"data": one, "next_cursor": "abc"}),
            "a token at $.next_cursor, sent back as parameter cursor",
        ),
        (
            json!({"data": one, "next_page_token": "abc"}),
            "a token at $.next_page_token, sent back as parameter page_token",
        ),
        (
            json!({"data": one, "nextPageToken": null}),
            "a token at $.nextPageToken, sent back as parameter pageToken",
        ),
        (
            json!({"data": one, "meta": {"next_token": "b26"}}),
            "a token at $.meta.next_token, sent back as parameter next_token",
        ),
        (
            json!({"data": one, "NextToken": "b26"}),
            "a token at $.NextToken, sent back as parameter NextToken",
        ),
        (
            json!({"data": one, "paging": {"cursors": {"before": "a", "after": "b"}}}),
            "a token at $.paging.cursors.after, sent back as parameter after",
        ),
        (
            json!({"data": one, "paging": {"next": {"after": "100", "link": "x"}}}),
            "a token at $.paging.next.after, sent back as parameter after",
        ),
        (
            json!({"data": one, "pages": {"next": {"starting_after": "W"}}}),
            "a token at $.pages.next.starting_after, sent back as parameter starting_after",
        ),
        (
            json!({"data": one, "meta": {"next_page": 2}}),
            "a token at $.meta.next_page, sent back as parameter page",
        ),
        (
            json!({"data": one, "next_offset": 20}),
            "a token at $.next_offset, sent back as parameter offset",
        ),
        (
            json!({"data": one, "next": "/eyJpZCI6MX0="}),
            "a token at $.next, sent back as parameter cursor",
        ),
        (
            json!({"data": one, "cursor": "abc"}),
            "a token at $.cursor, sent back as parameter cursor",
        ),
        (
            json!({"data": one, "page": 1, "total_pages": 4}),
            "$.page; page numbers sent as parameter page, first 1",
        ),
        (
            json!({"data": one, "pageNumber": 0, "pageSize": 20, "total": 7}),
            "$.pageNumber; page numbers sent as parameter pageNumber, first 0",
        ),
        (
            json!({"data": one, "pages": 3}),
            "$.pages; page numbers sent as parameter page, first 1",
        ),
        (
            json!({"data": one, "offset": 0, "limit": 20, "total": 70}),
            "$.offset; offsets sent as parameter offset, first 0",
        ),
        (
            json!({"data": one, "startIndex": 1, "totalResults": 70}),
            "$.startIndex; offsets sent as parameter startIndex, first 1",
        ),
    ] {
        assert_eq!(words(body.clone()), expected, "{body}");
        assert_eq!(found_in(&Reply::new(body), "").certainty, Certainty::Settled);
    }
}

#[test]
fn r011_what_shows_nothing_is_never_settled() {
    let one = json!([{"id": 1}]);
    for body in [
        json!({"data": one}),
        json!({"data": one, "next": null, "previous": null, "count": 1}),
        json!({"data": one, "links": {"next": null}, "meta": {"next_page": null}}),
        json!({"data": one, "nextSyncToken": "CPDAlvWDx70CEPDAlvWDx70CGAU="}),
        json!({"data": [{"id": 1, "next_cursor": "of the record", "next": "https://api.example/x"}]}),
        json!({"data": one, "number": 4}),
        json!({"data": one, "offset": 0, "meta": {"total": 1}}),
        json!({"data": one, "has_more": false}),
    ] {
        let found = found_in(&Reply::new(body.clone()), "");
        assert_eq!(found.certainty, Certainty::Open, "{body}: {}", found.found);
        assert!(matches!(found.paginate, Paginate::Single));
        assert_eq!(found.to_text(), None);
    }
}

#[test]
fn r030_signs_that_records_are_missing_are_doubted() {
    let records = |count: usize| vec![json!({"id": 1}); count];
    for (body, expected) in [
        (json!({"data": records(100)}), "exactly 100 records"),
        (
            json!({"data": records(3), "total": 70}),
            "70 records are declared and 3 came",
        ),
        (
            json!({"data": records(3), "has_more": true}),
            "the answer says there is one",
        ),
    ] {
        let found = found_in(&Reply::new(body), "");
        assert_eq!(found.certainty, Certainty::Doubtful);
        assert!(found.found.contains(expected), "{}", found.found);
    }
    // What says that there is more and not where is an error, not an end.
    let source = project(Paginate::Auto);
    let reply = Reply::new(json!({"data": records(3), "has_more": true}));
    let page = answered(&source, &source.streams[0], START, 1, &reply);
    let error = crate::extract::paginate::next(&page.turn(&source, &source.streams[0])).unwrap_err();
    assert!(
        error.to_string().contains("there is more but not where"),
        "{error}"
    );
}

#[test]
fn r011_headers_come_before_bodies_and_names_of_the_request_before_names_of_the_answer() {
    let body = json!({"data": [{"id": 1}], "next_cursor": "x"});
    for (name, value, expected) in [
        (
            "link",
            "</v1/o?page=2>; rel=\"next\"",
            "the relation next of the Link header",
        ),
        (
            "x-next-page",
            "2",
            "the header x-next-page, sent back as parameter page",
        ),
        (
            "next-page",
            "http://api.example/v1/o?_token=x",
            "a URL in the header next-page",
        ),
        (
            "x-total-pages",
            "4",
            "the header x-total-pages; page numbers sent as parameter page, first 1",
        ),
    ] {
        let reply = Reply {
            headers: vec![(name, value.to_owned())],
            body: body.clone(),
        };
        assert_eq!(found_in(&reply, "").found, expected);
    }
    let counted = Reply::new(json!({"data": [{"id": 1}], "page": 3, "per_page": 1}));
    assert_eq!(
        found_in(&counted, "page=3").found,
        "$.page; page numbers sent as parameter page, first 3"
    );
    assert_eq!(
        found_in(&counted, "_page=3").found,
        "$.page; page numbers sent as parameter _page, first 3"
    );
    let next = Reply::new(json!({"data": [{"id": 1}], "next": 2, "pages": 3}));
    assert_eq!(
        found_in(&next, "_page=1").found,
        "a token at $.next, sent back as parameter _page"
    );
}

#[test]
fn r012_the_variable_of_a_query_is_read_from_it() {
    let mut source = posting(project(Paginate::Auto));
    let stream = &mut source.streams[0];
    stream.records = crate::json::JsonPath::parse("$.data.repo.issues.nodes[*]")
        .unwrap()
        .into();
    stream.request.body = Body::GraphQl {
        query: text("query($more: String) { repo { issues(first: 10, after : $more) { nodes { id } } } }"),
        variables: Vec::new(),
        operation: None,
    };
    let reply = Reply::new(json!({"data": {"repo": {"issues": {
        "nodes": [{"id": 1}], "pageInfo": {"endCursor": "c", "hasNextPage": true}}}}}));
    let stream = &source.streams[0];
    let found = detect(&answered(&source, stream, START, 1, &reply).turn(&source, stream)).unwrap();
    assert_eq!(
        found.found,
        "a Relay connection at $.data.repo.issues, its cursor sent as body field variables.more"
    );
}

#[test]
fn a_paginator_of_a_bookmark_is_read_or_refused() {
    for text in [
        "",
        "{}",
        "[]",
        r#"{"type":"cursor","found":""}"#,
        r#"{"type":"relay","connection":"x","found":""}"#,
        r#"{"type":"single","found":""}"#,
        r#"{"type":"cursor","from":"$.a","param":"a","header":"b","found":""}"#,
    ] {
        assert!(Detected::from_text(text).is_err(), "{text}");
    }
    let text =
        r#"{"type":"cursor","from":"header:x-next","body_field":["a","b"],"more":"$.more","found":"it"}"#;
    assert_eq!(
        Detected::from_text(text).unwrap().to_text().as_deref(),
        Some(text)
    );
}
