//! How everything is asked for.

use std::path::Path;

use crate::{
    config::{
        complete::Complete,
        paginate::{Paginate, Paging},
        read::{
            paginate::{PAGINATE, paginate},
            request::{REQUEST, VARIABLES, request},
        },
        request::Method,
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

/// Reads `complete` of a stream whose own request has `method`.
pub(super) fn complete(value: Value<'_>, dir: &Path, method: Method) -> Option<Complete> {
    let fields = value.fields(&COMPLETE)?;
    let written = [fields.value("request"), fields.value("paginate")];
    if written.iter().all(Option::is_none) {
        fields.missing("request or paginate");
    }
    let [asked, pages] = written;
    let asked = asked.map(|value| request(value, dir, &VARIABLES));
    let method = asked.as_ref().map_or(method, |asked| match asked {
        Some(request) => request.method,
        None => Method::Post,
    });
    let pages = pages.map(|value| paginate(value, method, dir));
    Some(Complete {
        request: asked.map_or(Some(None), |asked| asked.map(Some))?,
        paginate: pages.map_or(Some(None), |pages| pages.map(Some))?,
    })
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
        insta::assert_snapshot!(read("incremental: { cursor: $.id, param: since, format: integer, retained: 30d }"), @"landfall.yml:9:79: retained: only times have an age");
    }
}
