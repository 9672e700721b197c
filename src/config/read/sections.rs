//! The keys of every map in `landfall.yml`. The reader and the JSON Schema are both held to these tables.

use crate::yaml::fields::Section;

const fn section(
    title: &'static str,
    schema: &'static str,
    keys: &'static [&'static str],
    planned: &'static [&'static str],
) -> Section {
    Section {
        title,
        schema,
        keys,
        planned,
        null_is_absent: false,
    }
}

/// The whole file.
pub static PROJECT: Section = section(
    "a project",
    "",
    &["lake", "storage", "memory", "sources"],
    &["serve"],
);

/// One API.
pub static SOURCE: Section = section(
    "a source",
    "/$defs/source",
    &[
        "base_url",
        "auth",
        "headers",
        "rate_limit",
        "retry",
        "timeouts",
        "limits",
        "streams",
    ],
    &["push", "webhook"],
);

/// No authentication.
pub static AUTH_NONE: Section = section("auth", "/$defs/auth_none", &["type"], &[]);

/// A key in a header or in the query.
pub static AUTH_API_KEY: Section = section(
    "auth",
    "/$defs/auth_api_key",
    &["type", "in", "name", "value"],
    &[],
);

/// User and password.
pub static AUTH_BASIC: Section = section(
    "auth",
    "/$defs/auth_basic",
    &["type", "username", "password"],
    &[],
);

/// A token in the Authorization header.
pub static AUTH_BEARER: Section = section("auth", "/$defs/auth_bearer", &["type", "token", "scheme"], &[]);

/// A token bucket.
pub static RATE_LIMIT: Section = section("a rate limit", "/$defs/rate_limit", &["requests", "per"], &[]);

/// When a failed request is sent again.
pub static RETRY: Section = section(
    "retry settings",
    "/$defs/retry",
    &["attempts_max", "backoff_start", "backoff_max", "retry_after_max"],
    &[],
);

/// How long to wait.
pub static TIMEOUTS: Section = section("timeouts", "/$defs/timeouts", &["connect", "read", "total"], &[]);

/// What a server may send.
pub static LIMITS: Section = section(
    "limits",
    "/$defs/limits",
    &[
        "page_bytes_max",
        "decode_ratio_max",
        "pages_max",
        "empty_pages_max",
    ],
    &[],
);

/// One endpoint.
pub static STREAM: Section = section(
    "a stream",
    "/$defs/stream",
    &[
        "request",
        "records",
        "paginate",
        "incremental",
        "table",
        "contract",
        "drift",
        "commit",
    ],
    &["reconcile", "partition", "explode", "flatten"],
);

/// The first request.
pub static REQUEST: Section = section(
    "a request",
    "/$defs/request",
    &["method", "path", "params", "headers", "body"],
    &[],
);

/// One page only.
pub static PAGINATE_NONE: Section = section("paginate", "/$defs/paginate_none", &["type"], &[]);

/// A token from the response.
pub static PAGINATE_CURSOR: Section = section(
    "paginate",
    "/$defs/paginate_cursor",
    &["type", "from", "param", "header", "body_field"],
    &[],
);

/// A URL from the response.
pub static PAGINATE_NEXT_URL: Section =
    section("paginate", "/$defs/paginate_next_url", &["type", "from"], &[]);

/// The Link header.
pub static PAGINATE_LINK_HEADER: Section = section("paginate", "/$defs/paginate_link_header", &["type"], &[]);

/// Pages by number.
pub static PAGINATE_PAGE_NUMBER: Section = section(
    "paginate",
    "/$defs/paginate_page_number",
    &["type", "param", "header", "body_field", "first"],
    &[],
);

/// Records by offset.
pub static PAGINATE_OFFSET: Section = section(
    "paginate",
    "/$defs/paginate_offset",
    &["type", "param", "header", "body_field", "first"],
    &[],
);

/// Only what changed.
pub static INCREMENTAL: Section = section(
    "incremental",
    "/$defs/incremental",
    &[
        "cursor",
        "param",
        "header",
        "body_field",
        "format",
        "start",
        "lookback",
    ],
    &[],
);

/// How records become rows.
pub static TABLE: Section = section(
    "a table",
    "/$defs/table",
    &[
        "keys",
        "sequence_by",
        "scd_type",
        "apply_as_deletes",
        "deletes",
        "partition_by",
    ],
    &["explode", "flatten", "merge"],
);

/// What the contract does not say.
pub static DRIFT: Section = section("drift", "/$defs/drift", &["on_unknown", "on_mismatch"], &[]);

/// When pages are committed.
pub static COMMIT: Section = section("commit", "/$defs/commit", &["pages", "bytes", "elapsed"], &[]);

/// Every section there is.
pub static ALL: [&Section; 22] = [
    &PROJECT,
    &SOURCE,
    &AUTH_NONE,
    &AUTH_API_KEY,
    &AUTH_BASIC,
    &AUTH_BEARER,
    &RATE_LIMIT,
    &RETRY,
    &TIMEOUTS,
    &LIMITS,
    &STREAM,
    &REQUEST,
    &PAGINATE_NONE,
    &PAGINATE_CURSOR,
    &PAGINATE_NEXT_URL,
    &PAGINATE_LINK_HEADER,
    &PAGINATE_PAGE_NUMBER,
    &PAGINATE_OFFSET,
    &INCREMENTAL,
    &TABLE,
    &DRIFT,
    &COMMIT,
];
