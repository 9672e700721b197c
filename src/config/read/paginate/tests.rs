//! Every paginator as it is written, and what is refused.

use std::path::Path;

use crate::config::{
    explain::explain,
    paginate::{OffsetStep, OnFirst, Paginate, Paging},
    read::parse,
    request::{Place, TokenSlot},
};

fn file(request: &str, paginate: &str) -> String {
    format!(
        "lake: ./lake\nsources:\n  shop:\n    base_url: https://api.shop.example/v1\n    streams:\n      orders:\n        \
         request: {{ path: /orders, {request} }}\n        paginate: {paginate}\n        table: {{ keys: [id] }}\n"
    )
}

fn posted(paginate: &str) -> Paging {
    match parse(&file("method: POST", paginate), Path::new("/srv/shop")) {
        Ok(loaded) => loaded.project.sources[0].streams[0].paginate.clone(),
        Err(problems) => panic!("{paginate}: {problems:?}"),
    }
}

fn refused(request: &str, paginate: &str) -> String {
    match parse(&file(request, paginate), Path::new("/srv/shop")) {
        Ok(loaded) => explain(&loaded.project),
        Err(problems) => problems.iter().map(|problem| format!("{problem}\n")).collect(),
    }
}

#[test]
fn r011_every_kind_is_read() {
    let query = |name: &str| TokenSlot::Query(name.to_owned());
    let Paginate::Keyset { key, to } = posted("{ type: keyset, key: $.id, param: since_id }").next else {
        panic!("no keyset");
    };
    assert_eq!((key.to_string().as_str(), to), ("$.id", query("since_id")));
    let Paginate::Template { token, to } =
        posted("{ type: template, token: '{{ last_record.id }}', in: template }").next
    else {
        panic!("no template");
    };
    assert!(token.is_template());
    assert_eq!(to, TokenSlot::Template);
    let Paginate::Relay { connection, to } = posted("{ type: relay, connection: $.data.orders }").next else {
        panic!("no relay");
    };
    assert_eq!(connection.to_string(), "$.data.orders");
    assert_eq!(
        to,
        TokenSlot::BodyField(vec!["variables".to_owned(), "after".to_owned()])
    );
    let Paginate::Offset {
        to,
        first: 1,
        on_first: OnFirst::Omitted,
        step: OffsetStep::PageSize,
    } = posted(
        "{ type: offset, first: 1, on_first: omitted, step: page_size, size: { records: 5, param: n } }",
    )
    .next
    else {
        panic!("no offset");
    };
    assert_eq!(to, query("offset"));
    assert!(matches!(posted("{ type: auto }").next, Paginate::Auto));
    let made = posted("{ type: next_url, template: '/v1/after/{{ last_record.id }}' }").next;
    assert!(matches!(made, Paginate::MadeUrl { .. }));
}

#[test]
fn r025_what_every_kind_has_is_read() {
    let paging = posted(
        "{ type: page_number, size: { records: 100, min: 5, header: X-Size }, total: 'header:X-Total', \
         reset_after_records: 10000, stop: { when: page.records == 0, more: $.more, pages: $.pages, \
         on_short_page: true, on_status: [404, 416], after_pages: 9 } }",
    );
    let size = paging.size.unwrap();
    assert_eq!(
        (size.records, size.records_min, size.to),
        (100, 5, TokenSlot::Header("x-size".to_owned()))
    );
    assert!(matches!(paging.total, Some(Place::Header(name)) if name == "x-total"));
    assert_eq!(paging.reset_after_records, Some(10_000));
    let stop = paging.stop;
    assert_eq!(stop.when.unwrap().as_str(), "page.records == 0");
    assert!(matches!(stop.more, Some(Place::Body(path)) if path.to_string() == "$.more"));
    assert!(stop.pages.is_some() && stop.on_short_page);
    assert_eq!(
        (stop.on_status.as_slice(), stop.after_pages),
        ([404, 416].as_slice(), Some(9))
    );
}

#[test]
fn r020_paginators_that_cannot_work_are_refused() {
    for (request, paginate, expected) in [
        (
            "",
            "{ type: relay, connection: $.data.orders }",
            "missing key \"param\", \"header\", \"body_field\" or \"in\"",
        ),
        (
            "",
            "{ type: offset, step: page_size }",
            "missing key \"size\", which step: page_size needs,",
        ),
        ("", "{ type: next_url }", "missing key \"from\" or \"template\""),
        (
            "",
            "{ type: next_url, from: $.a, template: b }",
            "only one of from and template may be given",
        ),
        (
            "",
            "{ type: cursor, from: $.a, in: template, param: b }",
            "only one of param, header, body_field and in may be given",
        ),
        (
            "",
            "{ type: cursor, from: $.a, body_field: b }",
            "a GET request has no body",
        ),
        (
            "",
            "{ type: template, token: '{{ answer.next }}', param: a }",
            "\"answer\" is not a variable known here",
        ),
        (
            "",
            "{ type: none, stop: { when: 'respons.x' } }",
            "\"respons\" is not a variable known here",
        ),
        (
            "",
            "{ type: none, stop: { on_status: [200] } }",
            "200 is not between 400 and 599",
        ),
        (
            "",
            "{ type: none, size: { records: 5, min: 6, param: n } }",
            "6 is not between 1 and 5",
        ),
        (
            "params: { n: 5 }",
            "{ type: none, size: { records: 5, param: n } }",
            "parameter \"n\" is also in request",
        ),
        (
            "",
            "{ type: page_number, param: n, size: { records: 5, param: n } }",
            "takes the page and its size",
        ),
    ] {
        let found = refused(request, paginate);
        assert!(found.contains(expected), "{paginate}: {found}");
        assert_eq!(found.matches("landfall.yml:").count(), 1, "{found}");
    }
}

#[test]
fn settings_without_effect_are_warned_of() {
    for (paginate, expected) in [
        (
            "{ type: link_header, stop: { on_short_page: true } }",
            "without a page size no page is short",
        ),
        (
            "{ type: link_header, reset_after_records: 10 }",
            "reset_after_records has no cursor",
        ),
    ] {
        let loaded = parse(&file("method: POST", paginate), Path::new("/srv/shop")).unwrap();
        let warnings: String = loaded.warnings.iter().map(ToString::to_string).collect();
        assert!(warnings.contains(expected), "{paginate}: {warnings}");
    }
}
