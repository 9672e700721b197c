//! Where a value goes in a request.

use crate::{
    config::{
        paginate::{Paginate, Paging},
        read::values::header_name,
        request::{Method, Request, TokenSlot},
    },
    yaml::{
        fields::{Fields, Value},
        quoted,
        section::{
            Key, Rule,
            Takes::{Choice, Text},
            key,
        },
    },
};

const NAMES: &[&str] = &["param", "header", "body_field", "in"];

/// Keys of every map that says where a value goes.
pub(super) static SLOT: [Key; 4] = [
    key("param", Text)
        .doc("The query parameter that takes the value.")
        .example("cursor"),
    key("header", Text)
        .doc("The header that takes the value.")
        .example("X-Cursor"),
    key("body_field", Text)
        .doc("The field of the JSON or form body that takes the value, with dots between names; not for GET.")
        .example("page.after"),
    key("in", Choice(&[("template", "a template of the request")]))
        .doc(
            "What takes a value that has no place of its own: the request names it, as `page.token` in \
             `/items/{{ page.token }}`, `page.size`, `window.since` and `window.until`.",
        )
        .example("template"),
];

/// One of [`SLOT`] has to be given.
pub(super) const ONE: Rule = Rule::One(NAMES);

/// One of [`SLOT`] may be given.
pub(super) const AT_MOST_ONE: Rule = Rule::AtMostOne(NAMES);

/// The one of [`SLOT`] that is given; else `default`, and without one a problem.
pub(super) fn slot(fields: &Fields<'_>, method: Method, default: Option<TokenSlot>) -> Option<TokenSlot> {
    let given: Vec<Value<'_>> = ["param", "header", "body_field", "in"]
        .into_iter()
        .filter_map(|key| fields.value(key))
        .collect();
    let value = match (given.as_slice(), default) {
        ([], Some(slot)) => return Some(slot),
        ([], None) => {
            fields.missing("\"param\", \"header\", \"body_field\" or \"in\"");
            return None;
        }
        ([value], _) => *value,
        ([.., value], _) => {
            return value.refuse("only one of param, header, body_field and in may be given", None);
        }
    };
    match value.key {
        "param" => Some(TokenSlot::Query(value.text()?.to_owned())),
        "header" => header_name(value, value.text()?).map(TokenSlot::Header),
        "in" => value
            .choice(&[("template", ())], &[])
            .map(|()| TokenSlot::Template),
        _ => body_field(value, method),
    }
}

/// Where the token of a page goes, or its number.
pub(super) fn of_page(paginate: &Paginate) -> Option<&TokenSlot> {
    match paginate {
        Paginate::Cursor { to, .. }
        | Paginate::Keyset { to, .. }
        | Paginate::Template { to, .. }
        | Paginate::Relay { to, .. }
        | Paginate::PageNumber { to, .. }
        | Paginate::Offset { to, .. } => Some(to),
        _ => None,
    }
}

/// What paging sets from the first page on. A cursor may replace a parameter, as `cursor: "*"` for the first page.
pub(super) fn set_by(paging: &Paging) -> impl Iterator<Item = &TokenSlot> {
    let counted = of_page(&paging.next).filter(|_| paging.next.is_counted());
    counted
        .into_iter()
        .chain(paging.size.as_ref().map(|size| &size.to))
}

/// Whether `request` has something of its own there.
pub(super) fn is_taken(request: &Request, slot: &TokenSlot) -> bool {
    match slot {
        TokenSlot::Query(name) => request.params.iter().any(|(param, _)| param == name),
        TokenSlot::Header(name) => request.headers.iter().any(|(header, _)| header == name),
        TokenSlot::BodyField(_) | TokenSlot::Template => false,
    }
}

/// What to call it.
pub(super) fn show(slot: &TokenSlot) -> String {
    match slot {
        TokenSlot::Query(name) => format!("parameter {}", quoted(name)),
        TokenSlot::Header(name) => format!("header {}", quoted(name)),
        TokenSlot::BodyField(path) => format!("body field {}", quoted(&path.join("."))),
        TokenSlot::Template => "templates".to_owned(),
    }
}

/// Says that `value`, under its key, sets what is in the request too.
pub(super) fn refuse_taken(value: Value<'_>, slot: &TokenSlot) {
    let key = value.key;
    let hint = format!("remove it from the request; {key} sets it");
    let message = format!("{key}: {} is also in request", show(slot));
    value.problems.add(value.key_place, message, Some(hint));
}

fn body_field(value: Value<'_>, method: Method) -> Option<TokenSlot> {
    let text = value.text()?;
    if !method.has_body() {
        return value.refuse(
            format!("a {} request has no body", method.as_str()),
            Some("add method: POST to the request".to_owned()),
        );
    }
    let path: Vec<String> = text.split('.').map(str::to_owned).collect();
    if path.iter().any(String::is_empty) {
        let hint = "write names with single dots between them: page.after".to_owned();
        return value.refuse("an empty name in the path of a field", Some(hint));
    }
    Some(TokenSlot::BodyField(path))
}
