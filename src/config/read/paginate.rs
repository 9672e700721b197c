//! How the next page is found, and where a value goes in a request.

use crate::{
    config::{
        paginate::{OffsetStep, OnFirst, Paginate},
        read::values::{header_name, json_path},
        request::Method,
        request::Place,
        request::TokenSlot,
    },
    yaml::{
        fields::{Fields, Value},
        section::{
            Key, Rule, Section,
            Takes::{self, Integer, Text, Word},
            key,
        },
    },
};

/// First pages and offsets beyond this are mistakes.
const FIRST_MAX: u64 = 1_000_000_000_000;

/// Where a value goes in a request: keys of every map that says so.
pub(super) static SLOT: [Key; 3] = [
    key("param", Text)
        .doc("The query parameter that takes the value.")
        .example("cursor"),
    key("header", Text)
        .doc("The header that takes the value.")
        .example("X-Cursor"),
    key("body_field", Text)
        .doc("The field of the JSON request body that takes the value, with dots between names; not for GET.")
        .example("page.after"),
];

const SLOT_NAMES: &[&str] = &["param", "header", "body_field"];

/// One of [`SLOT`] has to be given.
pub(super) const SLOT_RULE: Rule = Rule::One(SLOT_NAMES);

/// The maps of `paginate`, told apart by `type`.
pub(super) static PAGINATE: [&Section; 6] = [&NONE, &CURSOR, &NEXT_URL, &LINK_HEADER, &PAGE_NUMBER, &OFFSET];

static NONE: Section = Section::new(
    "paginate_none",
    "paginate",
    "One page is all.",
    &[key("type", Word("none")).required().doc("One page is all.")],
)
.example("{ type: none }");

static CURSOR: Section = Section::new(
    "paginate_cursor",
    "paginate",
    "An opaque token in the response, sent back unchanged. Ends when it is absent, null or empty.",
    &[
        key("type", Word("cursor"))
            .required()
            .doc("A token from the response."),
        key("from", Takes::Place)
            .required()
            .doc("Where the response holds the token.")
            .example("$.next_cursor")
            .more(&["header:X-Next"]),
    ],
)
.shared(&[&SLOT])
.rules(&[SLOT_RULE])
.example("{ type: cursor, from: $.next_cursor, param: cursor }");

static NEXT_URL: Section = Section::new(
    "paginate_next_url",
    "paginate",
    "A whole URL in the response, of the same origin. Ends when it is absent, null or empty.",
    &[
        key("type", Word("next_url"))
            .required()
            .doc("A URL from the response."),
        key("from", Takes::Place)
            .required()
            .doc("Where the response holds the URL.")
            .example("$.links.next")
            .more(&["header:X-Next"]),
    ],
)
.example("{ type: next_url, from: $.links.next }");

static LINK_HEADER: Section = Section::new(
    "paginate_link_header",
    "paginate",
    "The `next` relation of the Link header (RFC 8288).",
    &[key("type", Word("link_header"))
        .required()
        .doc("The Link header.")],
)
.example("{ type: link_header }");

static PAGE_NUMBER: Section = Section::new(
    "paginate_page_number",
    "paginate",
    "A page number, by default in the parameter `page`; ends with the first page without records.",
    &[
        key("type", Word("page_number"))
            .required()
            .doc("Pages by number."),
        key("first", Integer(0, FIRST_MAX))
            .default("1")
            .doc("The number of the first page.")
            .example("0"),
    ],
)
.shared(&[&SLOT])
.rules(&[Rule::AtMostOne(SLOT_NAMES)])
.example("{ type: page_number, param: page }");

static OFFSET: Section = Section::new(
    "paginate_offset",
    "paginate",
    "A record offset, by default in the parameter `offset`; ends with the first page without records.",
    &[
        key("type", Word("offset")).required().doc("Records by offset."),
        key("first", Integer(0, FIRST_MAX))
            .default("0")
            .doc("The offset of the first record.")
            .example("1"),
    ],
)
.shared(&[&SLOT])
.rules(&[Rule::AtMostOne(SLOT_NAMES)])
.example("{ type: offset, param: offset }");

/// Reads `paginate`.
pub(super) fn paginate(value: Value<'_>, method: Method) -> Option<Paginate> {
    type Read = fn(&Fields<'_>, Method) -> Option<Paginate>;
    let choices: [(&str, (&'static Section, Read)); 6] = [
        ("none", (&NONE, |_, _| Some(Paginate::Single))),
        ("cursor", (&CURSOR, cursor)),
        ("next_url", (&NEXT_URL, next_url)),
        ("link_header", (&LINK_HEADER, |_, _| Some(Paginate::LinkHeader))),
        ("page_number", (&PAGE_NUMBER, page_number)),
        ("offset", (&OFFSET, offset)),
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
