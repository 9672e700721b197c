//! One answer, one decision.

use super::*;
use crate::{
    config::{paginate::OnFirst, request::Place, text::Expr},
    error::ErrorKind,
};

/// What follows a page, in one line.
fn decided(source: &Source, token: &str, page: u64, reply: &Reply) -> String {
    let stream = &source.streams[0];
    match next(&answered(source, stream, token, page, reply).turn(source, stream)) {
        Ok(Next::Token(token)) => token,
        Ok(Next::End(why)) => format!("end: {why}"),
        Err(error) => format!("{:?}: {}", error.kind(), error.chain()),
    }
}

fn with(paginate: Paginate, change: impl FnOnce(&mut Stream)) -> Source {
    let mut source = project(paginate);
    change(&mut source.streams[0]);
    source
}

fn cursor() -> Paginate {
    Paginate::Cursor {
        from: Place::Body(path("$.next")),
        to: param("cursor"),
    }
}

fn keyset() -> Paginate {
    Paginate::Keyset {
        key: path("$.id"),
        to: param("since_id"),
    }
}

fn offset(step: OffsetStep) -> Paginate {
    Paginate::Offset {
        to: param("offset"),
        first: 0,
        on_first: OnFirst::Sent,
        step,
    }
}

fn template(token: &str, to: TokenSlot) -> Paginate {
    Paginate::Template {
        token: text(token),
        to,
    }
}

#[test]
fn r024_a_token_goes_on_as_it_came_and_nothing_ends() {
    for (next, expected) in [
        (json!("a+b/c=="), "a+b/c=="),
        (json!(7), "7"),
        (json!(12_345_678_901_234_567_u64), "12345678901234567"),
        (json!(""), "end: no token"),
        (json!(null), "end: no token"),
        (json!(false), "end: no token"),
        (json!(true), "neither text nor a number"),
        (json!({"id": 7}), "neither text nor a number"),
    ] {
        let reply = Reply::new(json!({"data": [{}], "next": next}));
        let found = decided(&project(cursor()), START, 1, &reply);
        assert!(found.contains(expected), "{next}: {found}");
    }
    let absent = Reply::new(json!({"data": [{}]}));
    assert_eq!(decided(&project(cursor()), START, 1, &absent), "end: no token");
}

#[test]
fn r011_a_token_for_a_body_may_be_any_json() {
    let paginate = Paginate::Cursor {
        from: Place::Body(path("$.next")),
        to: field("search.after"),
    };
    let source = posting(project(paginate));
    let stream = &source.streams[0];
    for token in [json!("7"), json!(7), json!([1, "x"]), json!({"id": {"N": "7"}})] {
        let reply = Reply::new(json!({"data": [{}], "next": token}));
        let found = decided(&source, START, 1, &reply);
        let page = answered(&source, stream, &found, 2, &Reply::default());
        let PageBody::Json(body) = page.request.body else {
            panic!("no body");
        };
        assert_eq!(body["search"]["after"], token);
    }
}

#[test]
fn r028_keyset_goes_on_from_the_last_record() {
    let page = |records: Value| Reply::new(json!({"data": records}));
    let plain = project(keyset());
    assert_eq!(
        decided(&plain, START, 1, &page(json!([{"id": 3}, {"id": 9}]))),
        "9"
    );
    assert_eq!(decided(&plain, "9", 2, &page(json!([]))), "end: no records");
    let missing = decided(&plain, START, 1, &page(json!([{"id": 3}, {"name": "x"}])));
    assert!(
        missing.starts_with("Refused: read key of last record"),
        "{missing}"
    );

    let sized = with(keyset(), |stream| stream.paginate.size = size(2));
    assert_eq!(
        decided(&sized, "9", 2, &page(json!([{"id": 9}]))),
        "end: no record behind the last key"
    );
    let full = page(json!([{"id": 9}, {"id": 9}]));
    for source in [plain, sized] {
        let stuck = decided(&source, "9", 2, &full);
        assert!(
            stuck.starts_with("Refused: page past records of one key"),
            "{stuck}"
        );
    }
}

#[test]
fn r011_templates_see_answer_headers_links_last_record_and_page() {
    let reply = Reply {
        headers: vec![
            ("x-next", "h7".to_owned()),
            ("link", "</a>; rel=prev, </b?c=9>; rel=\"next\"".to_owned()),
        ],
        body: json!({"data": [{"id": 3}, {"id": 5, "at": "t"}], "meta": {"next": null, "n": 4, "more": false}}),
    };
    for (token, expected) in [
        ("{{ response.meta.n }}", "4"),
        ("{{ response.meta.next }}", "end: no token"),
        ("{{ response.absent | default('') }}", "end: no token"),
        ("{{ response.absent }}", "Config: render template"),
        ("{{ response.meta.more }}", "end: no token"),
        ("{{ headers['x-next'] }}", "h7"),
        ("{{ links.next }}", "/b?c=9"),
        ("{{ last_record.at }},{{ last_record.id }}", "t,5"),
        ("{{ page.number + 1 }}", "3"),
        (
            "{% if page.records == 2 %} {{ page.token }}{{ page.size }} {% endif %}",
            "x2",
        ),
        ("{% if page.records == 9 %} y {% endif %}", "end: no token"),
        (
            "{{ [last_record.id, last_record.at] }}",
            "neither text nor a number",
        ),
    ] {
        let source = with(template(token, param("at")), |stream| {
            stream.paginate.size = size(2)
        });
        let found = decided(&source, "x", 2, &reply);
        assert!(found.contains(expected), "{token}: {found}");
    }
    let body = posting(project(template(
        "{{ [last_record.id, last_record.at] }}",
        field("after"),
    )));
    assert_eq!(decided(&body, START, 1, &reply), r#"[5,"t"]"#);

    let made = project(Paginate::MadeUrl {
        url: text("/v1/after/{{ last_record.id }}"),
    });
    assert_eq!(decided(&made, START, 1, &reply), "http://api.example/v1/after/5");
    let away = project(Paginate::MadeUrl {
        url: text("https://other.example/{{ last_record.id }}"),
    });
    let refused = decided(&away, START, 1, &reply);
    assert!(refused.contains("next_link_off_origin"), "{refused}");
}

#[test]
fn f047_a_relay_connection_says_both_or_it_is_an_error() {
    let paginate = Paginate::Relay {
        connection: path("$.data.orders"),
        to: field("variables.after"),
    };
    let mut source = posting(project(paginate));
    source.streams[0].records = path("$.data.orders.nodes[*]").into();
    let odd = "Refused: read Relay connection";
    for (info, expected) in [
        (json!({"hasNextPage": true, "endCursor": "c"}), r#""c""#),
        (
            json!({"hasNextPage": false, "endCursor": "c"}),
            "end: the answer says there is no more",
        ),
        (
            json!({"hasNextPage": false, "endCursor": null}),
            "end: the answer says there is no more",
        ),
        (json!({"hasNextPage": true, "endCursor": null}), odd),
        (json!({"hasNextPage": true, "endCursor": ""}), odd),
        (json!({"hasNextPage": true}), odd),
        (json!({"endCursor": "c"}), odd),
        (json!({"hasNextPage": "yes", "endCursor": "c"}), odd),
        (json!(null), odd),
    ] {
        let reply = Reply::new(json!({"data": {"orders": {"nodes": [{}], "pageInfo": info}}}));
        let found = decided(&source, START, 1, &reply);
        assert!(found.starts_with(expected), "{info}: {found}");
    }
    let none = decided(&source, START, 1, &Reply::new(json!({"data": null})));
    assert!(none.starts_with(odd), "{none}");
}

#[test]
fn r025_counted_pages_end_with_an_empty_one_and_step_as_told() {
    let some = Reply::new(json!({"data": [{}, {}, {}]}));
    let none = Reply::new(json!({"data": []}));
    let sized = |step| with(offset(step), |stream| stream.paginate.size = size(10));
    assert_eq!(decided(&sized(OffsetStep::Records), "20", 3, &some), "23");
    assert_eq!(decided(&sized(OffsetStep::PageSize), "20", 3, &some), "30");
    assert_eq!(
        decided(&sized(OffsetStep::PageSize), "20", 3, &none),
        "end: no records"
    );
    let unsized_step = decided(&project(offset(OffsetStep::PageSize)), START, 1, &some);
    assert!(
        unsized_step.starts_with("Config: step to the next offset"),
        "{unsized_step}"
    );
    let last = decided(
        &project(offset(OffsetStep::Records)),
        &u64::MAX.to_string(),
        1,
        &some,
    );
    assert!(last.starts_with("Limit: count pages"), "{last}");
}

#[test]
fn r025_a_stop_condition_ends_and_what_denies_the_end_wins() {
    let more = |text: &str| Some(Place::Body(path(text)));
    let records = |count: usize| json!(vec![json!({}); count]);
    let page =
        |count: usize, more: Value| Reply::new(json!({"data": records(count), "more": more, "pages": "2"}));
    let short = with(offset(OffsetStep::Records), |stream| {
        stream.paginate.size = size(2);
        stream.paginate.stop.on_short_page = true;
    });
    assert_eq!(decided(&short, START, 1, &page(2, json!(null))), "2");
    assert_eq!(
        decided(&short, START, 1, &page(1, json!(null))),
        "end: short page"
    );

    let says = with(offset(OffsetStep::Records), |stream| {
        stream.paginate.size = size(2);
        stream.paginate.stop.on_short_page = true;
        stream.paginate.stop.more = more("$.more");
    });
    for no in [
        json!(false),
        json!(null),
        json!(0),
        json!(""),
        json!("false"),
        json!("N"),
    ] {
        assert_eq!(
            decided(&says, START, 1, &page(2, no.clone())),
            "end: the answer says there is no more",
            "{no}"
        );
    }
    for yes in [json!(true), json!(1), json!("true"), json!("abc")] {
        assert_eq!(decided(&says, START, 1, &page(1, yes.clone())), "1", "{yes}");
        // f046: as long as there is more no page is the last.
        assert_eq!(decided(&says, START, 1, &page(0, yes.clone())), "2", "{yes}");
    }

    let lost = with(cursor(), |stream| stream.paginate.stop.more = more("$.more"));
    let error = decided(&lost, START, 1, &page(2, json!(true)));
    assert!(error.starts_with("Refused: find next page"), "{error}");

    let counted = with(offset(OffsetStep::Records), |stream| {
        stream.paginate.stop.pages = more("$.pages")
    });
    assert_eq!(decided(&counted, START, 1, &page(1, json!(null))), "1");
    assert_eq!(decided(&counted, "1", 2, &page(1, json!(null))), "end: last page");
    let numbered = with(
        Paginate::PageNumber {
            to: param("page"),
            first: 0,
            on_first: OnFirst::Omitted,
        },
        |stream| stream.paginate.stop.pages = more("$.pages"),
    );
    assert_eq!(decided(&numbered, START, 1, &page(1, json!(null))), "1");
    assert_eq!(
        decided(&numbered, "1", 7, &page(1, json!(null))),
        "end: last page"
    );

    let when = with(cursor(), |stream| {
        stream.paginate.stop.when =
            Some(Expr::parse("response.more == 'stop' and page.records < 5").unwrap());
        stream.paginate.stop.after_pages = Some(3);
    });
    let going = |more: &str| Reply::new(json!({"data": [{}], "next": "n", "more": more}));
    assert_eq!(decided(&when, START, 1, &going("go")), "n");
    assert_eq!(decided(&when, START, 1, &going("stop")), "end: stop condition");
    assert_eq!(
        decided(&when, "x", 3, &going("go")),
        "end: as many pages as asked for"
    );
    let broken = with(cursor(), |stream| {
        stream.paginate.stop.when = Some(Expr::parse("response.none.more").unwrap());
    });
    assert!(decided(&broken, START, 1, &going("go")).starts_with("Config: "));
}

#[test]
fn r030_a_page_without_records_that_leads_to_itself_is_the_end() {
    let reply = Reply::new(json!({"data": [], "next": "c"}));
    assert_eq!(
        decided(&project(cursor()), "c", 4, &reply),
        "end: no records, and the page leads to itself"
    );
    let long = Reply::new(json!({"data": [{}], "next": "x".repeat(TOKEN_BYTES_MAX + 1)}));
    let stream = &project(cursor());
    assert!(decided(stream, START, 1, &long).starts_with("Limit: read next page token"));
    let kind = next(&answered(stream, &stream.streams[0], START, 1, &long).turn(stream, &stream.streams[0]));
    assert_eq!(kind.unwrap_err().kind(), ErrorKind::Limit);
}

#[test]
fn f072_a_page_is_split_where_the_same_record_comes_next() {
    let sized = |paginate, least| {
        with(paginate, |stream| {
            stream.paginate.size = size(100);
            stream.paginate.size.as_mut().unwrap().records_min = least;
        })
    };
    let numbers = |first| Paginate::PageNumber {
        to: param("page"),
        first,
        on_first: OnFirst::Sent,
    };
    let split = |source: &Source, token: &str, now: u64| {
        let split = resize::split(&source.streams[0], token, now).unwrap();
        split.map(|split| (split.size, split.token))
    };
    let some = |size: u64, token: &str| Some((size, token.to_owned()));
    assert_eq!(split(&sized(cursor(), 1), "t", 100), some(50, "t"));
    assert_eq!(split(&sized(cursor(), 1), "t", 1), None);
    assert_eq!(
        split(&sized(offset(OffsetStep::Records), 1), "75", 25),
        some(12, "75")
    );
    let mut thirds = sized(numbers(1), 1);
    thirds.streams[0].paginate.size.as_mut().unwrap().divide_by = 3;
    // Behind 2 pages of 100 begins page 9 of 25, the largest up to 33.
    assert_eq!(split(&thirds, "3", 100), some(25, "9"));
    // Page 4 from 1 of 100 begins behind 300 records, and so does page 7 of 50.
    assert_eq!(split(&sized(numbers(1), 1), "4", 100), some(50, "7"));
    // Behind 3 pages of 25 no page of 12 begins, but one of 5 does.
    assert_eq!(split(&sized(numbers(0), 1), "3", 25), some(5, "15"));
    assert_eq!(split(&sized(numbers(0), 6), "3", 25), None);
    assert_eq!(split(&sized(numbers(1), 1), START, 25), some(12, START));
    assert_eq!(
        split(&sized(Paginate::LinkHeader, 1), "http://api.example/v1?p=2", 100),
        None
    );
    assert_eq!(
        split(&sized(Paginate::LinkHeader, 1), START, 100),
        some(50, START)
    );
    assert_eq!(split(&project(cursor()), "t", 100), None);
}

#[test]
fn a_capped_result_set_begins_again_only_where_the_cursor_moved() {
    use crate::{config::incremental::CursorFormat, extract::cursor::rank_of_text};
    let rank = |number: &str| rank_of_text(&CursorFormat::Integer, number);
    let source = with(keyset(), |stream| stream.paginate.reset_after_records = Some(100));
    let paging = &source.streams[0].paginate;
    let reset = |records, since, max| resize::reset(paging, records, since, max);
    assert!(!reset(99, None, rank("7")).unwrap());
    assert!(reset(100, None, rank("7")).unwrap());
    assert!(reset(120, rank("6"), rank("7")).unwrap());
    for (since, max) in [(rank("7"), rank("7")), (None, None), (rank("7"), None)] {
        assert_eq!(reset(100, since, max).unwrap_err().kind(), ErrorKind::Limit);
    }
    let plain = project(keyset());
    assert!(!resize::reset(&plain.streams[0].paginate, 1 << 40, None, None).unwrap());
}
