//! How the next page is found.

mod maps;

use std::path::Path;

use crate::{
    config::{
        paginate::{OffsetStep, OnFirst, PageSize, Paginate, Paging, Stop},
        read::{
            paginate::maps::{DIVISOR_MAX, FIRST_MAX, SIZE_MAX},
            slot::slot,
            values::{expr, header_name, json_path, text},
        },
        request::{Method, Place, TokenSlot},
    },
    yaml::{
        fields::{Fields, Value},
        section::Section,
    },
};

/// What templates about a page may name.
const KNOWN: [&str; 10] = [
    "config",
    "slice",
    "window",
    "state",
    "now",
    "page",
    "response",
    "headers",
    "links",
    "last_record",
];

/// The maps of `paginate`, told apart by `type`.
pub(super) static PAGINATE: [&Section; 10] = [
    &maps::NONE,
    &maps::CURSOR,
    &maps::NEXT_URL,
    &maps::LINK_HEADER,
    &maps::PAGE_NUMBER,
    &maps::OFFSET,
    &maps::KEYSET,
    &maps::TEMPLATE,
    &maps::RELAY,
    &maps::AUTO,
];

/// Reads `paginate`.
pub(super) fn paginate(value: Value<'_>, method: Method, dir: &Path) -> Option<Paging> {
    type Read = fn(&Fields<'_>, Method, &Path) -> Option<Paginate>;
    let choices: [(&str, (&'static Section, Read)); 10] = [
        ("none", (&maps::NONE, |_, _, _| Some(Paginate::Single))),
        ("cursor", (&maps::CURSOR, cursor)),
        ("next_url", (&maps::NEXT_URL, next_url)),
        (
            "link_header",
            (&maps::LINK_HEADER, |_, _, _| Some(Paginate::LinkHeader)),
        ),
        ("page_number", (&maps::PAGE_NUMBER, page_number)),
        ("offset", (&maps::OFFSET, offset)),
        ("keyset", (&maps::KEYSET, keyset)),
        ("template", (&maps::TEMPLATE, template)),
        ("relay", (&maps::RELAY, relay)),
        ("auto", (&maps::AUTO, |_, _, _| Some(Paginate::Auto))),
    ];
    let (section, read) = value.tag("type", &choices, &[])?;
    let fields = value.fields(section)?;
    let next = read(&fields, method, dir);
    let size = fields.optional("size", |value| size(value, method));
    let sized = fields.value("size").is_some();
    let stop = match fields.value("stop") {
        Some(value) => stop(value, sized),
        None => Some(Stop::default()),
    };
    if let Some(Paginate::Offset {
        step: OffsetStep::PageSize,
        ..
    }) = &next
        && !sized
    {
        fields.missing("\"size\", which step: page_size needs,");
    }
    let total = fields.optional("total", place);
    let reset_after_records = fields.optional("reset_after_records", |value| value.integer(1..=FIRST_MAX));
    Some(Paging {
        next: next?,
        size,
        stop: stop?,
        total,
        reset_after_records,
    })
}

fn size(value: Value<'_>, method: Method) -> Option<PageSize> {
    let fields = value.fields(&maps::SIZE)?;
    let to = slot(&fields, method, None);
    let records = fields.required("records", |value| value.integer(1..=SIZE_MAX));
    let records_min = fields
        .optional("min", |value| {
            let most = records.unwrap_or(SIZE_MAX);
            value.integer(1..=most)
        })
        .unwrap_or(1);
    let divide_by = fields.optional("divide_by", |value| value.integer(2..=DIVISOR_MAX));
    Some(PageSize {
        to: to?,
        records: records?,
        records_min,
        divide_by: divide_by.unwrap_or(2),
    })
}

fn stop(value: Value<'_>, sized: bool) -> Option<Stop> {
    let fields = value.fields(&maps::STOP)?;
    let on_short_page = fields
        .optional("on_short_page", |value| {
            let wanted = value.boolean()?;
            if wanted && !sized {
                let hint = "add size to paginate".to_owned();
                let message = "on_short_page: without a page size no page is short";
                value.problems.warn(value.node.place, message, Some(hint));
            }
            Some(wanted)
        })
        .unwrap_or(false);
    let on_status = fields
        .optional("on_status", |value| {
            let statuses: Vec<Option<u64>> = value.items()?.map(|item| item.integer(400..=599)).collect();
            let statuses: Option<Vec<u64>> = statuses.into_iter().collect();
            statuses?
                .into_iter()
                .map(|status| u16::try_from(status).ok())
                .collect()
        })
        .unwrap_or_default();
    Some(Stop {
        when: fields.optional("when", |value| expr(value, &KNOWN)),
        more: fields.optional("more", place),
        pages: fields.optional("pages", place),
        on_short_page,
        on_status,
        after_pages: fields.optional("after_pages", |value| value.integer(1..=FIRST_MAX)),
    })
}

fn cursor(fields: &Fields<'_>, method: Method, _: &Path) -> Option<Paginate> {
    let from = fields.required("from", place);
    let to = slot(fields, method, None);
    Some(Paginate::Cursor { from: from?, to: to? })
}

fn next_url(fields: &Fields<'_>, _: Method, dir: &Path) -> Option<Paginate> {
    match (fields.value("from"), fields.value("template")) {
        (Some(from), None) => Some(Paginate::NextUrl { from: place(from)? }),
        (None, Some(made)) => Some(Paginate::MadeUrl {
            url: text(made, dir, &KNOWN)?,
        }),
        (Some(_), Some(made)) => made.refuse("only one of from and template may be given", None),
        (None, None) => {
            fields.missing("\"from\" or \"template\"");
            None
        }
    }
}

fn page_number(fields: &Fields<'_>, method: Method, _: &Path) -> Option<Paginate> {
    let to = slot(fields, method, Some(TokenSlot::Query("page".to_owned())));
    let (first, on_first) = (first(fields, 1), on_first(fields));
    Some(Paginate::PageNumber {
        to: to?,
        first,
        on_first,
    })
}

fn offset(fields: &Fields<'_>, method: Method, _: &Path) -> Option<Paginate> {
    let to = slot(fields, method, Some(TokenSlot::Query("offset".to_owned())));
    let steps = [
        ("records", OffsetStep::Records),
        ("page_size", OffsetStep::PageSize),
    ];
    let step = fields
        .optional("step", |value| value.choice(&steps, &[]))
        .unwrap_or(OffsetStep::Records);
    let (first, on_first) = (first(fields, 0), on_first(fields));
    Some(Paginate::Offset {
        to: to?,
        first,
        on_first,
        step,
    })
}

fn keyset(fields: &Fields<'_>, method: Method, _: &Path) -> Option<Paginate> {
    let key = fields.required("key", json_path);
    let to = slot(fields, method, None);
    Some(Paginate::Keyset { key: key?, to: to? })
}

fn template(fields: &Fields<'_>, method: Method, dir: &Path) -> Option<Paginate> {
    let token = fields.required("token", |value| text(value, dir, &KNOWN));
    let to = slot(fields, method, None);
    Some(Paginate::Template {
        token: token?,
        to: to?,
    })
}

fn relay(fields: &Fields<'_>, method: Method, _: &Path) -> Option<Paginate> {
    let connection = fields.required("connection", json_path);
    let variable = TokenSlot::BodyField(vec!["variables".to_owned(), "after".to_owned()]);
    let to = slot(fields, method, method.has_body().then_some(variable));
    Some(Paginate::Relay {
        connection: connection?,
        to: to?,
    })
}

fn first(fields: &Fields<'_>, default: u64) -> u64 {
    fields
        .optional("first", |value| value.integer(0..=FIRST_MAX))
        .unwrap_or(default)
}

fn on_first(fields: &Fields<'_>) -> OnFirst {
    let choices = [("sent", OnFirst::Sent), ("omitted", OnFirst::Omitted)];
    fields
        .optional("on_first", |value| value.choice(&choices, &[]))
        .unwrap_or(OnFirst::Sent)
}

/// `$.path` in the body, or `header:Name`.
pub(super) fn place(value: Value<'_>) -> Option<Place> {
    let text = value.text()?;
    match text.strip_prefix("header:") {
        Some(name) => header_name(value, name.trim()).map(Place::Header),
        None => json_path(value).map(Place::Body),
    }
}

#[cfg(test)]
mod tests;
