//! Pages that lead nowhere, and pages that were not all.

use super::*;
use crate::{
    config::{
        incremental::{Filter, Order},
        paginate::OnFirst,
        request::Place,
    },
    extract::{
        paginate::guard::{Alarm, BEFORE_PERCENT_MAX, Guard, REPEATS_MAX, Seen, Stuck},
        tests::server::incremental,
    },
};

fn cursor() -> Source {
    project(Paginate::Cursor {
        from: Place::Body(path("$.next")),
        to: param("at"),
    })
}

fn offset() -> Source {
    let mut source = project(Paginate::Offset {
        to: param("at"),
        first: 0,
        on_first: OnFirst::Sent,
        step: OffsetStep::Records,
    });
    source.streams[0].paginate.total = Some(Place::Body(path("$.total")));
    source
}

/// Alarms and the end of a window whose pages are these.
fn watch(
    source: &Source,
    replies: impl IntoIterator<Item = Reply>,
) -> (Vec<Alarm>, Result<Seen, Stuck>, u64) {
    let stream = &source.streams[0];
    let mut guard = Guard::new(&source.limits, Seen::default(), [START]);
    let (mut alarms, mut token, mut number) = (Vec::new(), START.to_owned(), 0);
    for reply in replies {
        number += 1;
        let page = answered(source, stream, &token, number, &reply);
        let turn = page.turn(source, stream);
        let next = next(&turn).unwrap();
        match guard.page(&turn, &next) {
            Ok(found) => alarms.extend(found),
            Err(stuck) => return (alarms, Err(stuck), number),
        }
        match next {
            Next::Token(next) => token = next,
            Next::End(why) => {
                alarms.extend(guard.end(stream, why));
                return (alarms, Ok(*guard.seen()), number);
            }
        }
    }
    panic!("no end after {number} pages");
}

fn page(ids: std::ops::Range<u64>, next: Value) -> Reply {
    let records: Vec<Value> = ids.map(|id| json!({"id": id})).collect();
    Reply::new(json!({"data": records, "next": next}))
}

#[test]
fn f043_f044_a_token_met_again_is_an_error_at_once() {
    for period in [1_u64, 2, 5] {
        let pages =
            (0..100).map(|number| page(number * 3..number * 3 + 3, json!(format!("t{}", number % period))));
        let (alarms, outcome, requests) = watch(&cursor(), pages);
        let page = period + 1;
        assert_eq!(
            (alarms, outcome),
            (vec![], Err(Stuck::TokenRepeats { page, first: 1 }))
        );
        assert!(requests <= period + 2);
    }
    let error = Error::from(Stuck::TokenRepeats { page: 3, first: 1 });
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("(page: 3, first: 1)"), "{error}");
}

#[test]
fn f044_tokens_of_an_earlier_run_are_met_again_too() {
    let source = cursor();
    let stream = &source.streams[0];
    let mut guard = Guard::new(&source.limits, Seen::default(), ["t1", "t9"]);
    let reply = page(0..2, json!("t9"));
    let page = answered(&source, stream, "t1", 7, &reply);
    let stuck = guard.page(&page.turn(&source, stream), &Next::Token("t9".to_owned()));
    assert_eq!(stuck, Err(Stuck::TokenRepeats { page: 7, first: 0 }));
    assert_eq!(guard.seen().records, 2);
}

#[test]
fn f045_pages_that_repeat_under_changing_tokens_are_named_both() {
    for period in [1_u64, 3] {
        let pages = (0..100).map(|number| {
            let place = number % period * 10;
            page(place..place + 3, json!(format!("t{number}")))
        });
        let (_, outcome, requests) = watch(&cursor(), pages);
        let Err(Stuck::PageRepeats { page, first }) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!((page - first) % period, 0);
        assert!(requests <= 2 * period + u64::from(REPEATS_MAX) + 1, "{requests}");
        let text = Error::from(Stuck::PageRepeats { page, first }).to_string();
        assert!(
            text.contains(&format!("page: {page}, same as page: {first}")),
            "{text}"
        );
    }
}

#[test]
fn f045_a_last_record_that_repeats_is_no_page_that_repeats() {
    let mut pages: Vec<Reply> = (0..20)
        .map(|number| {
            let records = json!([{"id": number}, {"id": "end"}]);
            Reply::new(json!({"data": records, "next": format!("t{number}")}))
        })
        .collect();
    // Twice the same page is bad luck, too, and no error.
    pages.insert(9, page(0..3, json!("u1")));
    pages.insert(15, page(0..3, json!("u2")));
    pages.push(page(0..3, json!(null)));
    assert!(watch(&cursor(), pages).1.is_ok());
}

#[test]
fn f046_empty_pages_are_followed_for_a_while() {
    let source = cursor();
    let most = u64::from(source.limits.empty_pages_max);
    let empty =
        |from: u64, count: u64| (from..from + count).map(|number| page(0..0, json!(format!("t{number}"))));
    let resumed = empty(0, most)
        .chain([page(0..3, json!("a"))])
        .chain(empty(50, most))
        .chain([page(3..5, json!(null))]);
    assert_eq!(watch(&source, resumed).1.unwrap().records, 5);
    let (_, outcome, requests) = watch(&source, empty(0, most + 5));
    assert_eq!(requests, most + 1);
    assert!(matches!(outcome, Err(Stuck::EmptyPages { .. })), "{outcome:?}");
}

/// Serves a list by offset that changes as `change` says after each page.
fn shifting(change: impl Fn(u64, &mut Vec<u64>)) -> (Vec<Alarm>, Seen) {
    let source = offset();
    let stream = &source.streams[0];
    let mut data: Vec<u64> = (100..112).collect();
    let mut guard = Guard::new(&source.limits, Seen::default(), [START]);
    let (mut alarms, mut token) = (Vec::new(), START.to_owned());
    for number in 1..20 {
        let at: usize = token.parse().unwrap_or(0);
        let records: Vec<Value> = data.iter().skip(at).take(4).map(|id| json!({"id": id})).collect();
        let reply = Reply::new(json!({"data": records, "total": data.len()}));
        let page = answered(&source, stream, &token, number, &reply);
        let next = next(&page.turn(&source, stream)).unwrap();
        alarms.extend(guard.page(&page.turn(&source, stream), &next).unwrap());
        match next {
            Next::Token(next) => token = next,
            Next::End(why) => {
                alarms.extend(guard.end(stream, why));
                return (alarms, *guard.seen());
            }
        }
        change(number, &mut data);
    }
    panic!("no end");
}

#[test]
fn r027_r168_f048_a_list_that_shifts_under_offsets_is_reported() {
    let (alarms, seen) = shifting(|_, _| {});
    assert_eq!((alarms, seen.unstable, seen.repeated), (vec![], false, 0));

    // One more at the head: the last record of the page comes again.
    let (alarms, seen) = shifting(|page, data| {
        if page == 1 {
            data.insert(0, 7)
        }
    });
    let expected = [
        Alarm::TotalChanged {
            page: 2,
            from: 12,
            to: 13,
        },
        Alarm::RecordsRepeated { page: 2, records: 1 },
    ];
    assert_eq!(alarms, expected);
    assert!(alarms.iter().all(|alarm| alarm.name() == "unstable_pagination"));
    assert_eq!((seen.unstable, seen.repeated, seen.records), (true, 1, 13));

    // One less at the head: a record is skipped, and only the total shows it.
    let (alarms, seen) = shifting(|page, data| {
        if page == 2 {
            data.remove(0);
        }
    });
    assert_eq!(
        alarms,
        [Alarm::TotalChanged {
            page: 3,
            from: 12,
            to: 11
        }]
    );
    assert!(seen.unstable);

    // As many come as go: the total stays, the repeated record shows it.
    let (alarms, seen) = shifting(|page, data| {
        if page == 1 {
            data.insert(0, 7);
            data.pop();
        }
    });
    assert_eq!(alarms, [Alarm::RecordsRepeated { page: 2, records: 1 }]);
    assert!(seen.unstable);
}

#[test]
fn f048_a_total_that_grows_is_no_matter_for_a_cursor() {
    let mut source = cursor();
    source.streams[0].paginate.total = Some(Place::Header("content-range".to_owned()));
    let pages = (0..4_u64).map(|number| Reply {
        headers: vec![("content-range", format!("items 0-1/{}", 5 + number))],
        ..page(
            number * 2..number * 2 + 2,
            if number == 3 {
                json!(null)
            } else {
                json!(format!("t{number}"))
            },
        )
    });
    let (alarms, outcome, _) = watch(&source, pages);
    assert_eq!(alarms, []);
    let seen = outcome.unwrap();
    assert_eq!((seen.total, seen.records, seen.unstable), (Some(8), 8, false));
}

#[test]
fn fewer_records_than_declared_are_said() {
    let mut source = cursor();
    source.streams[0].paginate.total = Some(Place::Body(path("$.total")));
    let reply =
        |total: Value| Reply::new(json!({"data": [{"id": 1}, {"id": 2}], "next": null, "total": total}));
    for (total, expected) in [
        (
            json!(5),
            vec![Alarm::Short {
                declared: 5,
                records: 2,
            }],
        ),
        (
            json!("3"),
            vec![Alarm::Short {
                declared: 3,
                records: 2,
            }],
        ),
        (json!(2), vec![]),
        (json!(1), vec![]),
        (json!(null), vec![]),
        (json!("many"), vec![]),
    ] {
        assert_eq!(watch(&source, [reply(total)]).0, expected);
    }
    let said = Alarm::Short {
        declared: 5,
        records: 2,
    };
    assert_eq!(
        said.to_string(),
        "the server declared 5 records and sent 2: short by 3"
    );
    // Who asked for one page gets one page.
    source.streams[0].paginate.stop.after_pages = Some(1);
    assert_eq!(watch(&source, [reply(json!(5))]).0, []);
}

#[test]
fn f051_a_filter_that_does_nothing_is_said() {
    let mut source = project(Paginate::Single);
    source.streams[0].incremental = Some(incremental(std::time::Duration::ZERO));
    let alarms = |source: &Source, records: u64, before: u64| {
        let mut guard = Guard::new(&source.limits, Seen::default(), []);
        let stream = &source.streams[0];
        let mut page = answered(source, stream, START, 1, &page(0..records, json!(null)));
        page.reading.cursors_before = before;
        let end = Next::End(Why::OnePage);
        assert_eq!(guard.page(&page.turn(source, stream), &end), Ok(vec![]));
        guard.end(stream, Why::OnePage)
    };
    let said = vec![Alarm::FilterIgnored {
        before: 21,
        records: 100,
    }];
    assert_eq!(alarms(&source, 100, BEFORE_PERCENT_MAX + 1), said);
    assert_eq!(alarms(&source, 100, BEFORE_PERCENT_MAX), []);
    assert_eq!(alarms(&source, 5, 5), []);
    for (filter, order) in [(Filter::Here, Order::Any), (Filter::Api, Order::NewestFirst)] {
        let incremental = source.streams[0].incremental.as_mut().unwrap();
        (incremental.filter, incremental.order) = (filter, order);
        assert_eq!(alarms(&source, 100, 90), []);
    }
}

#[test]
fn r012_connections_cut_off_inside_of_records_are_said() {
    let mut source = posting(project(Paginate::Relay {
        connection: path("$.orders"),
        to: field("variables.after"),
    }));
    source.streams[0].records = path("$.orders.nodes[*]").into();
    let record = |more: bool| json!({"id": 1, "lines": {"pageInfo": {"hasNextPage": more}, "nodes": []}});
    let reply = |records: Value| {
        Reply::new(json!({"orders": {"nodes": records, "pageInfo": {"hasNextPage": false}}}))
    };
    let cut = watch(
        &source,
        [reply(json!([record(true), record(false), record(true)]))],
    );
    assert_eq!(cut.0, [Alarm::NestedMore { page: 1, records: 2 }]);
    assert_eq!(watch(&source, [reply(json!([record(false)]))]).0, []);
}

#[test]
fn what_was_seen_is_kept_as_text() {
    let seen = Seen {
        records: 7,
        total: Some(9),
        unstable: true,
        ..Seen::default()
    };
    let text = serde_json::to_string(&seen).unwrap();
    assert_eq!(text, r#"{"records":7,"total":9,"unstable":true}"#);
    assert_eq!(serde_json::from_str::<Seen>(&text).unwrap(), seen);
    assert_eq!(
        serde_json::from_str::<Seen>(r#"{"records":0}"#).unwrap(),
        Seen::default()
    );
}
