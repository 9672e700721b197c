//! How the next page is found, and where a value goes in a request.

use crate::{
    config::{
        paginate::{OffsetStep, OnFirst, Paginate},
        read::{
            sections,
            values::{header_name, json_path},
        },
        request::Method,
        request::Place,
        request::TokenSlot,
    },
    yaml::fields::{Fields, Section, Value},
};

/// First pages and offsets beyond this are mistakes.
const FIRST_MAX: u64 = 1_000_000_000_000;

/// Reads `paginate`.
pub(super) fn paginate(value: Value<'_>, method: Method) -> Option<Paginate> {
    type Read = fn(&Fields<'_>, Method) -> Option<Paginate>;
    let choices: [(&str, (&'static Section, Read)); 6] = [
        ("none", (&sections::PAGINATE_NONE, |_, _| Some(Paginate::Single))),
        ("cursor", (&sections::PAGINATE_CURSOR, cursor)),
        ("next_url", (&sections::PAGINATE_NEXT_URL, next_url)),
        (
            "link_header",
            (&sections::PAGINATE_LINK_HEADER, |_, _| Some(Paginate::LinkHeader)),
        ),
        ("page_number", (&sections::PAGINATE_PAGE_NUMBER, page_number)),
        ("offset", (&sections::PAGINATE_OFFSET, offset)),
    ];
    let (section, read) = value.tag("type", &choices, &["keyset"])?;
    read(&value.fields(section)?, method)
}

fn cursor(fields: &Fields<'_>, method: Method) -> Option<Paginate> {
    let from = fields.required("from", place);
    let to = slot(fields, method, None);
    Some(Paginate::Cursor { from: from?, to: to? })
}

fn next_url(fields: &Fields<'_>, _: Method) -> Option<Paginate> {
    Some(Paginate::NextUrl {
        from: fields.required("from", place)?,
    })
}

fn page_number(fields: &Fields<'_>, method: Method) -> Option<Paginate> {
    let to = slot(fields, method, Some("page"));
    let first = fields
        .optional("first", |value| value.integer(0..=FIRST_MAX))
        .unwrap_or(1);
    Some(Paginate::PageNumber {
        to: to?,
        first,
        on_first: OnFirst::Sent,
    })
}

fn offset(fields: &Fields<'_>, method: Method) -> Option<Paginate> {
    let to = slot(fields, method, Some("offset"));
    let first = fields
        .optional("first", |value| value.integer(0..=FIRST_MAX))
        .unwrap_or(0);
    Some(Paginate::Offset {
        to: to?,
        first,
        on_first: OnFirst::Sent,
        step: OffsetStep::Records,
    })
}

/// `$.path` in the body, or `header:Name`.
fn place(value: Value<'_>) -> Option<Place> {
    let text = value.text()?;
    match text.strip_prefix("header:") {
        Some(name) => header_name(value, name.trim()).map(Place::Header),
        None => json_path(value).map(Place::Body),
    }
}

/// The one of `param`, `header` and `body_field` that is given; else the parameter `default`.
pub(super) fn slot(fields: &Fields<'_>, method: Method, default: Option<&str>) -> Option<TokenSlot> {
    let given: Vec<Value<'_>> = ["param", "header", "body_field"]
        .into_iter()
        .filter_map(|key| fields.value(key))
        .collect();
    let value = match (given.as_slice(), default) {
        ([], Some(name)) => return Some(TokenSlot::Query(name.to_owned())),
        ([], None) => {
            fields.missing("\"param\", \"header\" or \"body_field\"");
            return None;
        }
        ([value], _) => *value,
        ([.., value], _) => {
            return value.refuse("only one of param, header and body_field may be given", None);
        }
    };
    let text = value.text()?;
    match value.key {
        "param" => Some(TokenSlot::Query(text.to_owned())),
        "header" => header_name(value, text).map(TokenSlot::Header),
        _ if method == Method::Get => value.refuse(
            "a GET request has no body",
            Some("add method: POST to the request".to_owned()),
        ),
        _ => {
            let path: Vec<String> = text.split('.').map(str::to_owned).collect();
            if path.iter().any(String::is_empty) {
                let hint = "write names with single dots between them: page.after".to_owned();
                return value.refuse("an empty name in the path of a field", Some(hint));
            }
            Some(TokenSlot::BodyField(path))
        }
    }
}
