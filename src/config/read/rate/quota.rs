//! Where the server says how much of a budget is left.

use std::path::Path as FilePath;

use crate::{
    config::{
        rate::{QuotaHeaders, QuotaStatus},
        read::{
            request::{REQUEST, request},
            values::{header_name, json_path},
        },
    },
    yaml::{
        fields::Value,
        section::{
            Rule, Section,
            Takes::{self, Path, Text},
            key,
        },
    },
};

/// `rate_limit.headers`
pub(super) static QUOTA_HEADERS: Section = Section::new(
    "quota_headers",
    "quota headers",
    "Response headers that say how much of the budget is left.",
    &[
        key("limit", Text)
            .doc("The one with the requests per window.")
            .example("x-api-limit"),
        key("remaining", Text)
            .doc("The one with the requests left.")
            .example("x-api-remaining"),
        key("reset", Text)
            .doc("The one with the end of the window: seconds to go, a moment, or a duration such as 6m0s.")
            .example("x-api-reset"),
    ],
)
.rules(&[Rule::AtLeastOne(&["limit", "remaining", "reset"])])
.example("{ remaining: x-api-remaining, reset: x-api-reset }");

/// `rate_limit.status`
pub(super) static STATUS: Section = Section::new(
    "quota_status",
    "a quota status",
    "A request that asks how much of the quota is left, once with each credential before its first request and again \
     when the reset that was told has come. While no credential has any left, requests wait for the first reset: an hour \
     at most, or `retry.retry_after_max` if that is longer; for a later one the stream fails. An answer that cannot be \
     had or read is a warning, after which requests go as without it for five minutes. The request counts only in \
     `buckets` whose patterns name it. Nothing of it is landed.",
    &[
        key("request", Takes::Section(&REQUEST))
            .required()
            .doc("What is asked, with the credential; its templates know `config`.")
            .example("{ path: /rate_limit }"),
        key("remaining", Path)
            .required()
            .doc("Where the JSON answer holds the requests left.")
            .example("$.resources.core.remaining"),
        key("reset", Path)
            .required()
            .doc("Where it holds the end of the window: seconds to go, a moment, or a duration such as 6m0s.")
            .example("$.resources.core.reset"),
        key("limit", Path)
            .doc("Where it holds the requests per window. With a tenth of them left, requests are spread over the rest of it.")
            .example("$.resources.core.limit"),
    ],
)
.example(
    "{ request: { path: /rate_limit }, remaining: $.resources.core.remaining, reset: $.resources.core.reset, limit: \
     $.resources.core.limit }",
);

/// Reads `rate_limit.headers`.
pub(super) fn quota_headers(value: Value<'_>) -> Option<QuotaHeaders> {
    let fields = value.fields(&QUOTA_HEADERS)?;
    let header = |key| {
        let read = fields.value(key).map(|value| header_name(value, value.text()?));
        read.map_or(Some(None), |name| name.map(Some))
    };
    let (limit, remaining, reset) = (header("limit"), header("remaining"), header("reset"));
    let headers = QuotaHeaders {
        limit: limit?,
        remaining: remaining?,
        reset: reset?,
    };
    if headers == QuotaHeaders::default() {
        return value.refuse("at least one of limit, remaining and reset is needed", None);
    }
    Some(headers)
}

/// Reads `rate_limit.status`.
pub(super) fn status(value: Value<'_>, dir: &FilePath) -> Option<QuotaStatus> {
    let fields = value.fields(&STATUS)?;
    let request = fields.required("request", |value| request(value, dir, &["config"]));
    let remaining = fields.required("remaining", json_path);
    let reset = fields.required("reset", json_path);
    let limit = fields.value("limit").map(json_path);
    Some(QuotaStatus {
        request: request?,
        remaining: remaining?,
        reset: reset?,
        limit: limit.map_or(Some(None), |limit| limit.map(Some))?,
    })
}
