//! Any paginator over any number of records and any page size sees every record, and ends.

use proptest::prelude::*;

use super::*;
use crate::config::{paginate::OnFirst, request::Place, text::Expr};

/// How a server speaks, and how it is asked.
struct Dialect {
    name: &'static str,
    source: Source,
    serve: fn(&PageRequest, &[Value], usize) -> Reply,
}

fn number(text: Option<String>) -> Option<usize> {
    text.map(|text| text.parse().unwrap())
}

/// The records from `start` and where the next ones are.
fn cut(data: &[Value], start: usize, size: usize) -> (Vec<Value>, Option<usize>) {
    let end = (start + size).min(data.len());
    let page = data[start.min(end)..end].to_vec();
    (page, Some(end).filter(|end| *end < data.len()))
}

fn by_at(request: &PageRequest, data: &[Value], size: usize) -> (Vec<Value>, Option<usize>) {
    cut(data, number(query(request, "at")).unwrap_or(0), size)
}

fn by_page(request: &PageRequest, data: &[Value], size: usize, first: usize) -> (Vec<Value>, Option<usize>) {
    let page = number(query(request, "page")).unwrap_or(first);
    cut(data, (page - first) * size, size)
}

fn relay(request: &PageRequest, data: &[Value], size: usize) -> Reply {
    let start = number(sent(request, &field("variables.after"))).unwrap_or(0);
    let (page, next) = cut(data, start, size);
    let end = (!page.is_empty()).then(|| (start + page.len()).to_string());
    Reply::new(json!({"data": {"shop": {"orders": {
        "nodes": page, "pageInfo": {"hasNextPage": next.is_some(), "endCursor": end}}}}}))
}

/// Records ordered by (`t`, `id`), where many share one `t`.
fn by_two_keys(request: &PageRequest, data: &[Value], size: usize) -> Reply {
    let mut after = (0, 0);
    if let (Some(t), Some(id)) = (number(query(request, "t")), number(query(request, "id"))) {
        after = (t + 1, id + 1);
    }
    let behind = data.iter().filter(|record| {
        let key = |name: &str| record[name].as_u64().unwrap() as usize + 1;
        (key("t"), key("id")) > after
    });
    Reply::new(json!({"data": behind.take(size).collect::<Vec<_>>()}))
}

fn plain(name: &'static str, next: Paginate, serve: fn(&PageRequest, &[Value], usize) -> Reply) -> Dialect {
    Dialect {
        name,
        source: project(next),
        serve,
    }
}

fn dialects() -> Vec<Dialect> {
    let numbers = |first, on_first| Paginate::PageNumber {
        to: param("page"),
        first,
        on_first,
    };
    let offsets = |first, on_first, step| Paginate::Offset {
        to: param("at"),
        first,
        on_first,
        step,
    };
    let mut all = vec![
        plain(
            "cursor",
            Paginate::Cursor {
                from: Place::Body(path("$.meta.next")),
                to: param("at"),
            },
            |request, data, size| {
                let (page, next) = by_at(request, data, size);
                Reply::new(json!({"data": page, "meta": {"next": next}}))
            },
        ),
        Dialect {
            source: posting(project(Paginate::Cursor {
                from: Place::Header("x-next".to_owned()),
                to: field("page.after"),
            })),
            ..plain("header to body", Paginate::Single, |request, data, size| {
                let start = number(sent(request, &field("page.after"))).unwrap_or(0);
                let (page, next) = cut(data, start, size);
                let headers = next
                    .map(|next| ("x-next", next.to_string()))
                    .into_iter()
                    .collect();
                Reply {
                    headers,
                    body: json!({"data": page}),
                }
            })
        },
        plain(
            "next url",
            Paginate::NextUrl {
                from: Place::Body(path("$.next")),
            },
            |request, data, size| {
                let (page, next) = by_at(request, data, size);
                Reply::new(json!({"data": page, "next": next.map(|next| format!("?at={next}"))}))
            },
        ),
        plain("link", Paginate::LinkHeader, |request, data, size| {
            let (page, next) = by_at(request, data, size);
            let link = |next| ("link", format!("</v1/orders?at={next}>; rel=\"next\""));
            Reply {
                headers: next.map(link).into_iter().collect(),
                body: json!({"data": page}),
            }
        }),
        plain(
            "made url",
            Paginate::MadeUrl {
                url: text("{% if response.next %}/v1/orders?at={{ response.next }}{% endif %}"),
            },
            |request, data, size| {
                let (page, next) = by_at(request, data, size);
                Reply::new(json!({"data": page, "next": next}))
            },
        ),
        plain("page from 1", numbers(1, OnFirst::Sent), |request, data, size| {
            Reply::new(json!({"data": by_page(request, data, size, 1).0}))
        }),
        plain(
            "page from 0, omitted",
            numbers(0, OnFirst::Omitted),
            |request, data, size| Reply::new(json!({"data": by_page(request, data, size, 0).0})),
        ),
        plain(
            "offset",
            offsets(0, OnFirst::Sent, OffsetStep::Records),
            |request, data, size| Reply::new(json!({"data": by_at(request, data, size).0})),
        ),
        plain(
            "offset from 1, by size",
            offsets(1, OnFirst::Omitted, OffsetStep::PageSize),
            |request, data, size| {
                let at = number(query(request, "at")).unwrap_or(1);
                Reply::new(json!({"data": cut(data, at - 1, size).0}))
            },
        ),
        plain(
            "keyset",
            Paginate::Keyset {
                key: path("$.id"),
                to: param("since"),
            },
            |request, data, size| {
                let since = number(query(request, "since"));
                let start = since.map_or(0, |since| since + 1);
                Reply::new(json!({"data": cut(data, start, size).0}))
            },
        ),
        plain(
            "template with two keys",
            Paginate::Template {
                token: text("{% if last_record %}{{ last_record.t }}-{{ last_record.id }}{% endif %}"),
                to: TokenSlot::Template,
            },
            by_two_keys,
        ),
        Dialect {
            source: posting(project(Paginate::Relay {
                connection: path("$.data.shop.orders"),
                to: field("variables.after"),
            })),
            ..plain("relay", Paginate::Single, relay)
        },
    ];
    for dialect in &mut all {
        let stream = &mut dialect.source.streams[0];
        match dialect.name {
            "relay" => stream.records = path("$.data.shop.orders.nodes[*]").into(),
            "template with two keys" => {
                let half = |word: &str| {
                    text(&format!(
                        "{{% if page.token %}}{{{{ (page.token|split('-')|list)|{word} }}}}{{% endif %}}"
                    ))
                };
                stream.request.params =
                    vec![("t".to_owned(), half("first")), ("id".to_owned(), half("last"))];
            }
            _ => {}
        }
    }
    all
}

/// Answers from which the paginator is to be found out.
fn found_out() -> Vec<Dialect> {
    let mut all = vec![
        plain("link", Paginate::Auto, |request, data, size| {
            let (page, next) = by_at(request, data, size);
            let link = |next| ("link", format!("</v1/orders?at={next}>; rel=\"next\""));
            Reply {
                headers: next.map(link).into_iter().collect(),
                body: json!({"data": page, "total_pages": data.len().div_ceil(size)}),
            }
        }),
        plain("next url", Paginate::Auto, |request, data, size| {
            let (page, next) = by_at(request, data, size);
            let next = next.map(|next| format!("http://api.example/v1/orders?at={next}"));
            Reply::new(json!({"data": page, "count": data.len(), "next": next, "previous": null}))
        }),
        plain("hal", Paginate::Auto, |request, data, size| {
            let (page, next) = by_at(request, data, size);
            let links = match next {
                Some(next) => {
                    json!({"next": {"href": format!("/v1/orders?at={next}")}, "self": {"href": "/v1/orders"}})
                }
                None => json!({"self": {"href": "/v1/orders"}}),
            };
            Reply::new(json!({"data": page, "_links": links}))
        }),
        plain("odata", Paginate::Auto, |request, data, size| {
            let (page, next) = by_at(request, data, size);
            let mut body = json!({"data": page});
            if let Some(next) = next {
                body["@odata.nextLink"] = json!(format!("?at={next}"));
            }
            Reply::new(body)
        }),
        plain("next_cursor", Paginate::Auto, |request, data, size| {
            let start = number(query(request, "cursor")).unwrap_or(0);
            let (page, next) = cut(data, start, size);
            let next = next.map_or(String::new(), |next| next.to_string());
            Reply::new(json!({"data": page, "ok": true, "response_metadata": {"next_cursor": next}}))
        }),
        plain("nextPageToken", Paginate::Auto, |request, data, size| {
            let start = number(query(request, "pageToken").map(|token| token[1..].to_owned())).unwrap_or(0);
            let (page, next) = cut(data, start, size);
            let mut body = json!({"data": page, "resultSizeEstimate": data.len()});
            if let Some(next) = next {
                body["nextPageToken"] = json!(format!("T{next}"));
            }
            Reply::new(body)
        }),
        plain("page and total_pages", Paginate::Auto, |request, data, size| {
            let (page, _) = by_page(request, data, size, 1);
            let asked = number(query(request, "page")).unwrap_or(1);
            let pages = data.len().div_ceil(size);
            assert!(asked <= pages.max(1), "page {asked} of {pages}");
            Reply::new(
                json!({"data": page, "meta": {"current_page": asked, "total_pages": pages, "total": data.len()}}),
            )
        }),
        plain("spring", Paginate::Auto, |request, data, size| {
            let (page, _) = by_page(request, data, size, 0);
            let number = number(query(request, "page")).unwrap_or(0);
            Reply::new(json!({"data": page, "number": number, "size": size,
                "totalElements": data.len(), "totalPages": data.len().div_ceil(size)}))
        }),
        plain("startAt", Paginate::Auto, |request, data, size| {
            let start = number(query(request, "startAt")).unwrap_or(0);
            let (page, _) = cut(data, start, size);
            Reply::new(json!({"data": page, "startAt": start, "maxResults": size, "total": data.len()}))
        }),
        plain("stripe", Paginate::Auto, |request, data, size| {
            let start = number(query(request, "starting_after")).map_or(0, |id| id + 1);
            let (page, next) = cut(data, start, size);
            Reply::new(json!({"object": "list", "data": page, "has_more": next.is_some()}))
        }),
        plain("x-next-page", Paginate::Auto, |request, data, size| {
            let (page, next) = by_page(request, data, size, 1);
            let asked = number(query(request, "page")).unwrap_or(1);
            Reply {
                headers: vec![(
                    "x-next-page",
                    next.map_or(String::new(), |_| (asked + 1).to_string()),
                )],
                body: json!({"data": page}),
            }
        }),
        Dialect {
            source: posting(project(Paginate::Auto)),
            ..plain("relay", Paginate::Auto, relay)
        },
        Dialect {
            source: posting(project(Paginate::Auto)),
            ..plain("notion", Paginate::Auto, |request, data, size| {
                let start = number(sent(request, &field("start_cursor"))).unwrap_or(0);
                let (page, next) = cut(data, start, size);
                let next_cursor = next.map(|next| next.to_string());
                Reply::new(
                    json!({"object": "list", "data": page, "next_cursor": next_cursor, "has_more": next.is_some()}),
                )
            })
        },
    ];
    for dialect in &mut all {
        if dialect.name == "relay" {
            dialect.source.streams[0].records = path("$.data.shop.orders.nodes[*]").into();
        }
    }
    all
}

fn records(count: usize) -> Vec<Value> {
    (0..count).map(|id| json!({"id": id, "t": id / 3})).collect()
}

fn check(dialect: &Dialect, total: usize, page_size: usize, sized: bool) {
    let mut source = dialect.source.clone();
    let by_size = matches!(
        source.streams[0].paginate.next,
        Paginate::Offset {
            step: OffsetStep::PageSize,
            ..
        }
    );
    if sized || by_size {
        source.streams[0].paginate.size = size(page_size as u64);
    }
    let data = records(total);
    let pages_max = total.div_ceil(page_size) as u64 + 2;
    let outcome = drive(&source, pages_max, |request| {
        if sized {
            assert_eq!(query(request, "limit"), Some(page_size.to_string()));
        }
        (dialect.serve)(request, &data, page_size)
    });
    let (pages, _) = outcome.unwrap_or_else(|error| panic!("{}: {}", dialect.name, error.chain()));
    let stream = &source.streams[0];
    let seen: Vec<u64> = pages.iter().flat_map(|page| page.ids(stream)).collect();
    assert_eq!(seen, (0..total as u64).collect::<Vec<_>>(), "{}", dialect.name);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn r026_r030_every_paginator_sees_every_record_once_and_ends(total in 0_usize..40, page in 1_usize..9) {
        for dialect in dialects() {
            check(&dialect, total, page, false);
        }
    }

    #[test]
    fn r030_a_paginator_found_out_sees_every_record_once_and_ends(total in 0_usize..40, page in 1_usize..9) {
        for dialect in found_out() {
            check(&dialect, total, page, false);
        }
    }
}

#[test]
fn r025_the_page_size_goes_with_every_request_built_here() {
    for dialect in dialects() {
        if !is_url(&dialect.source.streams[0].paginate.next) {
            check(&dialect, 10, 4, true);
        }
    }
}

#[test]
fn r029_r028_inserts_between_pages_neither_skip_nor_repeat_what_was_there() {
    let keyset = Paginate::Keyset {
        key: path("$.id"),
        to: param("since"),
    };
    let cursor = Paginate::Cursor {
        from: Place::Body(path("$.next")),
        to: param("since"),
    };
    for paginate in [keyset, cursor] {
        let source = project(paginate);
        // Even ids at first; odd ones come in before and behind the place of the reader.
        let mut data: Vec<u64> = (0..20).map(|id| id * 2).collect();
        let (pages, _) = drive(&source, 30, |request| {
            let since = query(request, "since").map(|since| since.parse::<u64>().unwrap());
            let page: Vec<u64> = data
                .iter()
                .copied()
                .filter(|id| since.is_none_or(|since| *id > since))
                .take(3)
                .collect();
            let next = page
                .last()
                .filter(|last| data.iter().any(|id| id > last))
                .copied();
            if let Some(last) = next {
                data.extend([last.saturating_sub(3) | 1, (last + 3) | 1]);
                data.sort_unstable();
                data.dedup();
                data.retain(|id| *id < 60);
            }
            let records: Vec<Value> = page.iter().map(|id| json!({"id": id})).collect();
            Reply::new(json!({"data": records, "next": next}))
        })
        .unwrap();
        let seen: Vec<u64> = pages
            .iter()
            .flat_map(|page| page.ids(&source.streams[0]))
            .collect();
        for id in (0..20).map(|id| id * 2) {
            assert_eq!(seen.iter().filter(|known| **known == id).count(), 1, "{id}");
        }
    }
}

#[test]
fn r028_an_api_that_repeats_the_key_ends_and_misses_nothing() {
    let mut source = project(Paginate::Keyset {
        key: path("$.t"),
        to: param("from"),
    });
    source.streams[0].paginate.size = size(5);
    // Three records share each key, and a page holds five.
    for total in 0..25 {
        let data = records(total);
        let (pages, _) = drive(&source, 30, |request| {
            let from = number(query(request, "from")).unwrap_or(0);
            let page = data
                .iter()
                .filter(|record| record["t"].as_u64().unwrap() as usize >= from);
            Reply::new(json!({"data": page.take(5).collect::<Vec<_>>()}))
        })
        .unwrap();
        let mut seen: Vec<u64> = pages
            .iter()
            .flat_map(|page| page.ids(&source.streams[0]))
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), total);
    }
}

#[test]
fn r011_a_stop_expression_sees_the_variables_of_the_request() {
    let mut source = project(Paginate::Cursor {
        from: Place::Body(path("$.next")),
        to: param("at"),
    });
    source.config = vec![("last".to_owned(), json!(6))];
    source.streams[0].paginate.stop.when = Some(Expr::parse("last_record.id >= config.last").unwrap());
    let data = records(30);
    let (pages, why) = drive(&source, 20, |request| {
        let (page, next) = by_at(request, &data, 4);
        Reply::new(json!({"data": page, "next": next}))
    })
    .unwrap();
    assert_eq!((pages.len(), why), (2, Why::Condition));
}
