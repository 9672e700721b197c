//! How everything is asked for.

use std::path::Path;

use crate::{
    config::{
        complete::Complete,
        paginate::{Paginate, Paging},
        read::{
            paginate::{PAGINATE, paginate},
            request::{REQUEST, VARIABLES, request},
            slot,
        },
        request::{Method, Request, TokenSlot},
    },
    yaml::{
        fields::{Fields, Value},
        section::{
            Rule, Section,
            Takes::{self, Tagged},
            key,
        },
    },
};

/// `complete`
pub(super) static COMPLETE: Section = Section::new(
    "complete",
    "complete",
    "How everything is asked for where that is another endpoint than that of changes: by the first pass, until there is a \
     watermark, by `reconcile` and `--complete`, and after the position has expired. What is not here is as in the \
     stream; records at another place are one more path of `records`.",
    &[
        key("request", Takes::Section(&REQUEST))
            .doc("The first request. Bounds are in it only where its templates say so: `window.since`.")
            .example("{ path: /orders/all }"),
        key("paginate", Tagged(&PAGINATE))
            .doc("How its pages follow each other.")
            .example("{ type: page_number, param: page }"),
    ],
)
.rules(&[Rule::AtLeastOne(&["request", "paginate"])])
.example("{ request: { path: /orders/all } }");

/// Reads `complete` of a stream with this request and this paging of its own, where they can be read.
pub(super) fn complete(
    value: Value<'_>,
    dir: &Path,
    request_of_changes: Option<&Request>,
    paging_of_changes: Option<&Paging>,
) -> Option<Complete> {
    let fields = value.fields(&COMPLETE)?;
    let written = [fields.value("request"), fields.value("paginate")];
    if written.iter().all(Option::is_none) {
        fields.missing("request or paginate");
    }
    let asked = written[0].map(|value| request(value, dir, &VARIABLES));
    let sent = match &asked {
        Some(asked) => asked.as_ref(),
        None => request_of_changes,
    };
    // A request that cannot be read is taken for one that may have a body.
    let method = sent.map_or(Method::Post, |request| request.method);
    let pages = written[1].map(|value| paginate(value, method, dir));
    let paged = match &pages {
        Some(pages) => pages.as_ref(),
        None => paging_of_changes,
    };
    if let (Some(sent), Some(paged)) = (sent, paged) {
        check_slots(written, sent, paged);
    }
    Some(Complete {
        request: asked.map_or(Some(None), |asked| asked.map(Some))?,
        paginate: pages.map_or(Some(None), |pages| pages.map(Some))?,
    })
}

/// One place of the request can hold one thing. `written` are `request` and `paginate` as far as they are here; the stream
/// has the other one.
fn check_slots(written: [Option<Value<'_>>; 2], sent: &Request, paged: &Paging) {
    for taken in slot::set_by(paged).filter(|slot| slot::is_taken(sent, slot)) {
        match written {
            [_, Some(paginate)] => slot::refuse_taken(paginate, taken),
            [Some(request), None] => {
                let message = format!(
                    "request: {} is also set by paginate of the stream",
                    slot::show(taken)
                );
                let hint = "remove it, or give complete a paginate of its own".to_owned();
                request.problems.add(request.key_place, message, Some(hint));
            }
            [None, None] => {}
        }
    }
    let size = paged.size.as_ref().map(|size| &size.to);
    let page = slot::of_page(&paged.next);
    if let (Some(paginate), Some(size)) = (written[1], size)
        && page == Some(size)
        && *size != TokenSlot::Template
    {
        let message = format!("paginate: {} takes the page and its size", slot::show(size));
        paginate.problems.add(paginate.key_place, message, None);
    }
}

/// Says what of the stream does not go with it.
pub(super) fn check(fields: &Fields<'_>, complete: &Complete, paging: &Paging, stepped: bool) {
    let Some(value) = fields.value("complete") else {
        return;
    };
    let auto = |paging: &Paging| matches!(paging.next, Paginate::Auto);
    let wrong = [
        (
            fields.value("incremental").is_none(),
            "without incremental every pass is complete",
            "add incremental, or give the stream this request",
        ),
        (
            fields.value("job").is_some(),
            "an export job has one request",
            "write what differs as templates over window",
        ),
        (
            stepped,
            "everything is asked for in one window, not in steps",
            "take until.step and until.align away",
        ),
        (
            auto(paging) || complete.paginate.as_ref().is_some_and(auto),
            "with paginate auto only one way of paging can be found out",
            "write what `landfall check --connect` found",
        ),
    ];
    for (_, message, hint) in wrong.iter().filter(|(wrong, ..)| *wrong) {
        value.refuse::<()>(message, Some((*hint).to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use crate::config::read::parse;

    fn read(lines: &str) -> String {
        let lines: String = lines.lines().map(|line| format!("        {line}\n")).collect();
        let text = format!(
            "lake: ./lake\nsources:\n  a:\n    base_url: http://localhost\n    streams:\n      b:\n\
             \x20       request: {{ path: /x }}\n        table: {{ keys: [id] }}\n{lines}"
        );
        match parse(&text, std::path::Path::new("/p")) {
            Ok(_) => "read".to_owned(),
            Err(problems) => problems.iter().map(|problem| format!("{problem}\n")).collect(),
        }
    }

    #[test]
    fn what_does_not_go_with_it_is_refused() {
        let incremental = "incremental: { cursor: $.t, param: since";
        assert_eq!(
            read(&format!(
                "{incremental} }}\ncomplete: {{ paginate: {{ type: link_header }} }}"
            )),
            "read"
        );
        insta::assert_snapshot!(read("complete: {}"), @r#"
        landfall.yml:9:9: missing key request or paginate in "complete"
        landfall.yml:9:19: complete: without incremental every pass is complete
          hint: add incremental, or give the stream this request
        "#);
        let stepped = format!(
            "{incremental}, start: '2024-01-01T00:00:00Z', until: {{ param: to, step: 30d }} }}\npaginate: {{ type: auto }}"
        );
        insta::assert_snapshot!(read(&format!("{stepped}\ncomplete: {{ request: {{ path: /all }} }}")), @"
        landfall.yml:11:19: complete: everything is asked for in one window, not in steps
          hint: take until.step and until.align away
        landfall.yml:11:19: complete: with paginate auto only one way of paging can be found out
          hint: write what `landfall check --connect` found
        ");
        let twice = |complete: &str| {
            read(&format!(
                "{incremental} }}\npaginate: {{ type: page_number, size: {{ param: limit, records: 5 }} }}\ncomplete: {complete}"
            ))
        };
        insta::assert_snapshot!(twice("{ request: { path: /all, params: { page: 1, limit: 9, sort: id } } }"), @r#"
        landfall.yml:11:21: request: parameter "limit" is also set by paginate of the stream
          hint: remove it, or give complete a paginate of its own
        landfall.yml:11:21: request: parameter "page" is also set by paginate of the stream
          hint: remove it, or give complete a paginate of its own
        "#);
        insta::assert_snapshot!(twice("{ request: { path: /all, params: { n: 1 } }, paginate: { type: offset, param: n, size: { param: n, records: 5 } } }"), @r#"
        landfall.yml:11:64: paginate: parameter "n" is also in request
          hint: remove it from the request; paginate sets it
        landfall.yml:11:64: paginate: parameter "n" takes the page and its size
        "#);
        assert_eq!(
            twice(
                "{ request: { path: /all, params: { page: 1, limit: 9 } }, paginate: { type: link_header } }"
            ),
            "read"
        );
        insta::assert_snapshot!(read("incremental: { cursor: $.id, param: since, format: integer, retained: 30d }"), @"landfall.yml:9:79: retained: only times have an age");
    }
}
