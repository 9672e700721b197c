//! The maps of `paginate`: which keys each kind has.

use crate::{
    config::read::slot::{AT_MOST_ONE, ONE, SLOT},
    yaml::section::{
        Key, Rule, Section,
        Takes::{self, Boolean, Choice, Expression, Integer, List, Path as JsonPath, Template, Word},
        key,
    },
};

/// First pages and offsets beyond this are mistakes.
pub(super) const FIRST_MAX: u64 = 1_000_000_000_000;

/// Larger pages are mistakes.
pub(super) const SIZE_MAX: u64 = 1_000_000_000;

/// Largest part that a page size is reduced to at once.
pub(super) const DIVISOR_MAX: u64 = 1000;

/// Keys that every paginator has.
static COMMON: [Key; 4] = [
    key("size", Takes::Section(&SIZE)).doc("How many records a page is asked to hold."),
    key("stop", Takes::Section(&STOP)).doc("When the pages end, besides what the paginator says."),
    key("total", Takes::Place)
        .doc("Where the response declares how many records there are; a window that ends with fewer is reported.")
        .example("$.meta.total")
        .more(&["header:X-Total-Count"]),
    key("reset_after_records", Integer(1, FIRST_MAX))
        .doc(
            "Records after which the window begins again from its greatest cursor, for an API that serves no more of \
             one result set. Needs `incremental` and records in the order of its cursor.",
        )
        .example("10000"),
];

pub(super) static SIZE: Section = Section::new(
    "paginate_size",
    "a page size",
    "How many records a page is asked to hold, and where the request says it.",
    &[
        key("records", Integer(1, SIZE_MAX))
            .required()
            .doc("Records per page.")
            .example("100"),
        key("min", Integer(1, SIZE_MAX))
            .default("1")
            .doc("What the size goes down to when a page is too much for the server.")
            .example("10"),
        key("divide_by", Integer(2, DIVISOR_MAX))
            .default("2")
            .doc("What the size is divided by when a page is too much for the server.")
            .example("4"),
    ],
)
.shared(&[&SLOT])
.rules(&[ONE])
.example("{ records: 100, param: limit }");

pub(super) static STOP: Section = Section::new(
    "paginate_stop",
    "stop conditions",
    "When the pages end, besides what the paginator says. Any of these ends them.",
    &[
        key("when", Expression)
            .doc(
                "True after the last page; over `response` (the body; one above 16 MiB without its records), `headers`, \
                 `links`, `last_record` and `page` (`number`, `token`, `size`, `records`).",
            )
            .example("response.status == 'done'"),
        key("more", Takes::Place)
            .doc(
                "Where the response says whether there is more. While it does, no page is the last: one without \
                 records is followed, and a missing token is an error.",
            )
            .example("$.has_more"),
        key("pages", Takes::Place)
            .doc("Where the response says how many pages there are.")
            .example("$.total_pages")
            .more(&["header:X-Total-Pages"]),
        key("on_short_page", Boolean)
            .default("false")
            .doc("A page with fewer records than its size is the last. Needs `size`.")
            .example("true"),
        key("on_status", List(&Integer(400, 599)))
            .doc("Statuses that are an end rather than an error.")
            .example("[404]"),
        key("after_pages", Integer(1, FIRST_MAX))
            .doc("Pages of one window after which the rest is left alone.")
            .example("50"),
    ],
)
.example("{ more: $.has_more }");

pub(super) static NONE: Section = Section::new(
    "paginate_none",
    "paginate",
    "One page is all.",
    &[key("type", Word("none")).required().doc("One page is all.")],
)
.shared(&[&COMMON])
.example("{ type: none }");

pub(super) static CURSOR: Section = Section::new(
    "paginate_cursor",
    "paginate",
    "An opaque token in the response, sent back unchanged. Ends when it is absent, null, false or empty.",
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
.shared(&[&SLOT, &COMMON])
.rules(&[ONE])
.example("{ type: cursor, from: $.next_cursor, param: cursor }");

pub(super) static NEXT_URL: Section = Section::new(
    "paginate_next_url",
    "paginate",
    "A whole URL of the same origin, in the response or made by a template. Ends when it is absent, null or empty.",
    &[
        key("type", Word("next_url"))
            .required()
            .doc("A URL from the response."),
        key("from", Takes::Place)
            .doc("Where the response holds the URL.")
            .example("$.links.next")
            .more(&["header:X-Next"]),
        key("template", Template)
            .doc("The URL, or its path, over the variables of `type: template`.")
            .example("'/v1/orders/after/{{ last_record.id }}'"),
    ],
)
.shared(&[&COMMON])
.rules(&[Rule::One(&["from", "template"])])
.example("{ type: next_url, from: $.links.next }");

pub(super) static LINK_HEADER: Section = Section::new(
    "paginate_link_header",
    "paginate",
    "The `next` relation of the Link header (RFC 8288).",
    &[key("type", Word("link_header"))
        .required()
        .doc("The Link header.")],
)
.shared(&[&COMMON])
.example("{ type: link_header }");

const ON_FIRST: Key = key(
    "on_first",
    Choice(&[
        ("sent", "with the first page too"),
        ("omitted", "not with the first page, where some APIs refuse it"),
    ]),
)
.default("sent")
.doc("Whether the first request carries the number.")
.example("omitted");

pub(super) static PAGE_NUMBER: Section = Section::new(
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
        ON_FIRST,
    ],
)
.shared(&[&SLOT, &COMMON])
.rules(&[AT_MOST_ONE])
.example("{ type: page_number, param: page }");

pub(super) static OFFSET: Section = Section::new(
    "paginate_offset",
    "paginate",
    "A record offset, by default in the parameter `offset`; ends with the first page without records.",
    &[
        key("type", Word("offset")).required().doc("Records by offset."),
        key("first", Integer(0, FIRST_MAX))
            .default("0")
            .doc("The offset of the first record.")
            .example("1"),
        ON_FIRST,
        key(
            "step",
            Choice(&[
                ("records", "by the records of the page"),
                ("page_size", "by `size.records`, whatever the page holds"),
            ]),
        )
        .default("records")
        .doc("What the offset grows by.")
        .beside("{ size: { records: 100, param: limit } }")
        .example("page_size"),
    ],
)
.shared(&[&SLOT, &COMMON])
.rules(&[AT_MOST_ONE])
.example("{ type: offset, param: offset }");

pub(super) static KEYSET: Section = Section::new(
    "paginate_keyset",
    "paginate",
    "A value of the last record, as `since_id`; ends with the first page without records. An API that sends the record \
     of the key again needs `size` too; one that orders by two keys needs `type: template`.",
    &[
        key("type", Word("keyset"))
            .required()
            .doc("A value of the last record."),
        key("key", JsonPath)
            .required()
            .doc("The value within a record.")
            .example("$.id"),
    ],
)
.shared(&[&SLOT, &COMMON])
.rules(&[ONE])
.example("{ type: keyset, key: $.id, param: since_id }");

pub(super) static TEMPLATE: Section = Section::new(
    "paginate_template",
    "paginate",
    "A token made by a template. Ends when it is empty, null or false; what may be absent needs a default.",
    &[
        key("type", Word("template"))
            .required()
            .doc("A token made by a template."),
        key("token", Template)
            .required()
            .doc(
                "The token, over `response` (the body; one above 16 MiB without its records), `headers` (by lowercase \
                 name), `links` (of the Link header, by relation), `last_record`, `page` (`number`, `token`, `size`, \
                 `records`) and the variables of the request.",
            )
            .example("'{{ last_record.updated_at }},{{ last_record.id }}'"),
    ],
)
.shared(&[&SLOT, &COMMON])
.rules(&[ONE])
.example("{ type: template, token: \"{{ response.meta.next | default('') }}\", param: after }");

pub(super) static RELAY: Section = Section::new(
    "paginate_relay",
    "paginate",
    "A GraphQL Relay connection: `pageInfo.endCursor` while `pageInfo.hasNextPage`, by default to the variable `after`.",
    &[
        key("type", Word("relay"))
            .required()
            .doc("A GraphQL Relay connection."),
        key("connection", JsonPath)
            .required()
            .doc("Where the response holds the connection: the object that holds `pageInfo`.")
            .example("$.data.orders"),
    ],
)
.shared(&[&SLOT, &COMMON])
.rules(&[AT_MOST_ONE])
.example("{ type: relay, connection: $.data.orders }");

pub(super) static AUTO: Section = Section::new(
    "paginate_auto",
    "paginate",
    "Found out from the first answer that shows it, said, and kept for the life of the stream.",
    &[key("type", Word("auto")).required().doc("Found out.")],
)
.shared(&[&COMMON])
.example("{ type: auto }");
