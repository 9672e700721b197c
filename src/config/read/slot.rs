//! Where a value goes in a request.

use crate::{
    config::{
        read::values::header_name,
        request::{Method, TokenSlot},
    },
    yaml::{
        fields::{Fields, Value},
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
