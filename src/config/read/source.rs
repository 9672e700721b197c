//! One API and the settings all its streams share.

use std::{net::IpAddr, path::Path, time::Duration};

use url::{Host, Url};

use crate::{
    config::{
        Limits, Name, Source, Timeouts,
        auth::Auth,
        errors::{Breaker, Retry},
        read::{
            auth::{auth, tls},
            rate::{breaker, rate_limit},
            request::config,
            sections::SOURCE,
            slice::check_parents,
            stream::stream,
            values::{duration, headers, show_duration, show_size},
        },
    },
    yaml::{
        fields::Value,
        section::{
            Section,
            Takes::{self, Integer, Size},
            key,
        },
    },
};

/// Source names that would hide a SQL schema of ours or of the query engine.
const NAMES_RESERVED: [&str; 2] = ["landfall", "information_schema"];

/// Bodies are indexed and held in memory one at a time.
const PAGE_BYTES_LIMIT: u64 = 2 << 30;

const MILLISECOND: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// `retry`
pub(super) static RETRY: Section = Section::new(
    "retry",
    "retry settings",
    "When and how often a failed request is sent again.",
    &[
        key("attempts_max", Integer(1, 100))
            .default("6")
            .doc("Requests sent for one page, the first included.")
            .example("3"),
        key("backoff_start", Takes::Duration)
            .default("1s")
            .doc("The cap of the first wait; doubles with each attempt.")
            .example("200ms"),
        key("backoff_max", Takes::Duration)
            .default("60s")
            .doc("No backoff is longer.")
            .example("10s"),
        key("retry_after_max", Takes::Duration)
            .default("5m")
            .doc("The longest wait a server may ask for; beyond it the stream fails at once.")
            .example("1h"),
    ],
)
.example("{ attempts_max: 3 }");

/// `timeouts`
pub(super) static TIMEOUTS: Section = Section::new(
    "timeouts",
    "timeouts",
    "How long to wait for the server.",
    &[
        key("connect", Takes::Duration)
            .default("10s")
            .doc("Until the connection stands.")
            .example("5s"),
        key("read", Takes::Duration)
            .default("30s")
            .doc("Between two reads.")
            .example("20s"),
        key("total", Takes::Duration)
            .default("5m")
            .doc("For one whole request.")
            .example("2m"),
    ],
)
.example("{ read: 20s }");

/// `limits`
pub(super) static LIMITS: Section = Section::new(
    "limits",
    "limits",
    "Bounds on what the server may send.",
    &[
        key("page_bytes_max", Size)
            .default("64MiB")
            .doc("Largest body kept, after decoding; at most 2GiB and at most `memory`.")
            .example("16MiB"),
        key("decode_ratio_max", Integer(1, 1_000_000))
            .default("200")
            .doc("Most decoded bytes per encoded byte, judged beyond the first MiB.")
            .example("100"),
        key("pages_max", Integer(1, 1_000_000_000_000))
            .default("1000000")
            .doc("Most pages in one window.")
            .example("5000"),
        key("empty_pages_max", Integer(1, 1_000_000))
            .default("10")
            .doc("Most pages without a record in a row while the server says there is more.")
            .example("3"),
    ],
)
.example("{ page_bytes_max: 16MiB }");

/// Reads one entry of `sources`.
pub(super) fn source(value: Value<'_>, dir: &Path, memory_bytes_max: u64) -> Option<Source> {
    let name = name(value);
    if NAMES_RESERVED.contains(&value.key) {
        value.problems.add(
            value.key_place,
            format!("{} is the name of a system schema", value.key),
            Some("choose another name".to_owned()),
        );
    }
    let fields = value.fields(&SOURCE)?;
    let base_url = fields.required("base_url", base_url);
    let auth = match fields.value("auth") {
        Some(value) => auth(value, dir),
        None => Some(Auth::None),
    };
    let tls = fields.optional("tls", |value| tls::tls(value, dir));
    let headers = fields.optional("headers", |value| headers(value, dir));
    let config = fields.optional("config", config);
    let rate_limit = fields.optional("rate_limit", |value| rate_limit(value, name.as_ref(), dir));
    let breaker = fields.optional("breaker", breaker);
    let retry = fields.optional("retry", retry);
    let timeouts = fields.optional("timeouts", timeouts);
    let limits = fields.optional("limits", |value| limits(value, memory_bytes_max));
    if let (Some(url), Some(auth), Some(value)) = (&base_url, &auth, fields.value("base_url")) {
        warn_plain_text(value, url, auth);
    }
    let streams = fields.required("streams", |value| {
        let entries = value.entries("the endpoints of the source, by name")?;
        if entries.is_empty() {
            return value.refuse("at least one stream is needed", None);
        }
        let streams: Vec<_> = entries
            .iter()
            .filter_map(|entry| {
                stream(
                    value.child(entry),
                    name.as_ref(),
                    dir,
                    retry.unwrap_or(Retry::DEFAULT),
                )
            })
            .collect();
        check_parents(value, &streams);
        Some(streams)
    });
    Some(Source {
        name: name?,
        base_url: base_url?,
        replicas: Vec::new(),
        config: config.unwrap_or_default(),
        auth: auth?,
        tls: tls.unwrap_or_default(),
        headers: headers.unwrap_or_default(),
        rate_limit,
        errors: Vec::new(),
        retry: retry.unwrap_or(Retry::DEFAULT),
        breaker: breaker.unwrap_or(Breaker::DEFAULT),
        timeouts: timeouts.unwrap_or(Timeouts::DEFAULT),
        limits: limits.unwrap_or(Limits::DEFAULT),
        streams: streams?,
    })
}

/// The key of a source or stream as a name.
pub(super) fn name(value: Value<'_>) -> Option<Name> {
    match Name::new(value.key) {
        Ok(name) => Some(name),
        Err(_) => {
            value.problems.add(
                value.key_place,
                format!("{} is not a name", crate::yaml::quoted(value.key)),
                Some("a name has 1 to 63 of a-z, 0-9, _ and -, and begins with a letter or digit".to_owned()),
            );
            None
        }
    }
}

fn base_url(value: Value<'_>) -> Option<Url> {
    let text = value.text()?;
    // The text is not repeated: it may hold a password.
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(reason) => {
            let hint = "write https://host/path".to_owned();
            return value.refuse(format!("not a URL: {reason}"), Some(hint));
        }
    };
    if !matches!(url.scheme(), "http" | "https") {
        return value.refuse("only http and https are spoken", None);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return value.refuse(
            "credentials do not belong in the URL",
            Some("use auth:".to_owned()),
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        let hint = "query parameters go into request.params".to_owned();
        return value.refuse("a base URL has no ? and no #", Some(hint));
    }
    Some(url)
}

/// Whether what is sent to `url` can be read on its way: not over https, and to another machine.
pub(super) fn is_in_the_open(url: &Url) -> bool {
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        None => false,
    };
    url.scheme() == "http" && !loopback
}

fn warn_plain_text(value: Value<'_>, url: &Url, auth: &Auth) {
    if is_in_the_open(url) && !matches!(auth, Auth::None) {
        value.problems.warn(
            value.node.place,
            "base_url: credentials are sent without encryption",
            Some("use https".to_owned()),
        );
    }
}

fn retry(value: Value<'_>) -> Option<Retry> {
    let fields = value.fields(&RETRY)?;
    let wait = |value: Value<'_>| duration(value, MILLISECOND..=DAY);
    let retry = Retry {
        attempts_max: fields
            .optional("attempts_max", |value| value.integer_u32(1..=100))
            .unwrap_or(Retry::DEFAULT.attempts_max),
        backoff_start: fields
            .optional("backoff_start", wait)
            .unwrap_or(Retry::DEFAULT.backoff_start),
        backoff_max: fields
            .optional("backoff_max", wait)
            .unwrap_or(Retry::DEFAULT.backoff_max),
        retry_after_max: fields
            .optional("retry_after_max", |value| duration(value, Duration::ZERO..=DAY))
            .unwrap_or(Retry::DEFAULT.retry_after_max),
    };
    if retry.backoff_start > retry.backoff_max {
        let (start, max) = (
            show_duration(retry.backoff_start),
            show_duration(retry.backoff_max),
        );
        return value.refuse(
            format!("backoff_start {start} is longer than backoff_max {max}"),
            None,
        );
    }
    Some(retry)
}

fn timeouts(value: Value<'_>) -> Option<Timeouts> {
    let fields = value.fields(&TIMEOUTS)?;
    let wait = |value: Value<'_>| duration(value, MILLISECOND..=DAY);
    Some(Timeouts {
        connect: fields
            .optional("connect", wait)
            .unwrap_or(Timeouts::DEFAULT.connect),
        read: fields.optional("read", wait).unwrap_or(Timeouts::DEFAULT.read),
        total: fields.optional("total", wait).unwrap_or(Timeouts::DEFAULT.total),
    })
}

fn limits(value: Value<'_>, memory_bytes_max: u64) -> Option<Limits> {
    let fields = value.fields(&LIMITS)?;
    let page_bytes_max = fields.optional("page_bytes_max", |value| {
        let bytes = super::values::size(value, 1..=PAGE_BYTES_LIMIT)?;
        if bytes > memory_bytes_max {
            let memory = show_size(memory_bytes_max);
            return value.refuse(format!("a page may not be larger than memory, {memory}"), None);
        }
        Some(bytes)
    });
    let count = |key, most: u64| fields.optional(key, |value: Value<'_>| value.integer(1..=most));
    Some(Limits {
        page_bytes_max: page_bytes_max.unwrap_or(Limits::DEFAULT.page_bytes_max),
        decode_ratio_max: count("decode_ratio_max", 1_000_000).unwrap_or(Limits::DEFAULT.decode_ratio_max),
        pages_max: count("pages_max", 1_000_000_000_000).unwrap_or(Limits::DEFAULT.pages_max),
        empty_pages_max: fields
            .optional("empty_pages_max", |value| value.integer_u32(1..=1_000_000))
            .unwrap_or(Limits::DEFAULT.empty_pages_max),
    })
}
