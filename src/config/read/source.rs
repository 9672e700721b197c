//! One API and the settings all its streams share.

use std::{collections::HashMap, net::IpAddr, path::Path, time::Duration};

use url::{Host, Url};

use crate::{
    config::{
        Limits, Name, Source, Stream, Timeouts,
        auth::Auth,
        errors::{Breaker, Retry},
        read::{
            auth::{auth, tls},
            errors::{errors, retry},
            like::complete,
            rate::{breaker, rate_limit},
            request::config,
            sections::SOURCE,
            slice::check_parents,
            stream::stream,
            values::{duration, headers},
            webhook::routes::check_routes,
        },
    },
    yaml::{
        Entry, Kind,
        fields::{Fields, Value},
        quoted,
        section::{
            Section,
            Takes::{self, Integer, Size},
            key,
        },
    },
};

/// Source names that would hide a SQL schema of ours or of the query engine.
const NAMES_RESERVED: [&str; 2] = ["landfall", "information_schema"];

/// What a file system can be expected to hold of one body.
const PAGE_BYTES_LIMIT: u64 = 1 << 40;

const MILLISECOND: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

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
            .doc("Largest body kept, after decoding; at most 1TiB. One larger than `memory` must be JSON Lines, or JSON with its records in one array, without a container.")
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
    let base_url = match fields.value("base_url") {
        Some(value) => base_url(value),
        None => unasked(&fields, name.as_ref()),
    };
    let auth = match fields.value("auth") {
        Some(value) => auth(value, dir),
        None => Some(Auth::None),
    };
    let tls = fields.optional("tls", |value| tls::tls(value, dir));
    let headers = fields.optional("headers", |value| headers(value, dir));
    let config = fields.optional("config", config);
    let rate_limit = fields.optional("rate_limit", |value| rate_limit(value, name.as_ref(), dir));
    let breaker = fields.optional("breaker", breaker);
    let retry = fields
        .optional("retry", |value| retry(value, Retry::DEFAULT))
        .unwrap_or(Retry::DEFAULT);
    let rules = fields
        .optional("errors", |value| errors(value, dir))
        .unwrap_or_default();
    let replicas = fields.optional("replicas", |value| {
        let urls: Vec<Option<Url>> = value.items()?.map(self::base_url).collect();
        urls.into_iter().collect::<Option<Vec<Url>>>()
    });
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
        let entries = complete(value, entries);
        let streams: Vec<_> = entries
            .iter()
            .filter_map(|entry| stream(value.child(entry), name.as_ref(), dir, retry))
            .collect();
        check_parents(value, &streams);
        check_routes(value, &streams);
        check_children(value, &streams);
        Some(streams)
    });
    Some(Source {
        name: name?,
        base_url: base_url?,
        replicas: replicas.unwrap_or_default(),
        config: config.unwrap_or_default(),
        auth: auth?,
        tls: tls.unwrap_or_default(),
        headers: headers.unwrap_or_default(),
        rate_limit,
        errors: rules,
        retry,
        breaker: breaker.unwrap_or(Breaker::DEFAULT),
        timeouts: timeouts.unwrap_or(Timeouts::DEFAULT),
        limits: limits.unwrap_or(Limits {
            held_bytes_max: memory_bytes_max,
            ..Limits::DEFAULT
        }),
        streams: streams?,
    })
}

/// No child table has the name of a stream or of another child table.
fn check_children(value: Value<'_>, streams: &[Stream]) {
    let mut names: HashMap<String, &str> = HashMap::new();
    for stream in streams {
        let name = stream.name.stream.as_str();
        names.insert(name.to_owned(), name);
    }
    for stream in streams {
        for list in &stream.table.explode {
            let table = format!("{}__{}", stream.name.stream, list.name());
            if let Some(other) = names.insert(table.clone(), stream.name.stream.as_str()) {
                let message = format!(
                    "{}: a child table and {other} both have a table called {table}",
                    stream.name.stream
                );
                let hint = "rename the stream, or give the column another name and a `path` in the contract";
                value
                    .problems
                    .add(value.key_place, message, Some(hint.to_owned()));
            }
        }
    }
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

/// The address of a source that has none; a problem if it is asked for anything.
fn unasked(fields: &Fields<'_>, name: Option<&Name>) -> Option<Url> {
    let requested = |stream: &Entry| match &stream.value.kind {
        // What is wrong with a stream is said where it is read.
        Kind::Map(keys) => {
            let has = |names: &[&str]| keys.iter().any(|key| names.contains(&key.key.as_str()));
            has(&["request", "hydrate"]) || !has(&["push", "webhook"])
        }
        _ => false,
    };
    let streams = fields.value("streams").map(|value| &value.node.kind);
    let asked = match streams {
        Some(Kind::Map(streams)) => streams.iter().any(requested),
        _ => true,
    };
    if asked {
        fields.missing(&quoted("base_url"));
        return None;
    }
    Url::parse(&format!("http://{}.invalid/", name?.as_str().replace('_', "-"))).ok()
}

fn base_url(value: Value<'_>) -> Option<Url> {
    let url = web_url(value, "use auth:")?;
    if url.query().is_some() || url.fragment().is_some() {
        let hint = "query parameters go into request.params".to_owned();
        return value.refuse("a base URL has no ? and no #", Some(hint));
    }
    Some(url)
}

/// A URL of http or https without credentials in it; `instead` says where those belong.
pub(super) fn web_url(value: Value<'_>, instead: &str) -> Option<Url> {
    // The text is not repeated: it may hold a password.
    let url = match Url::parse(value.text()?) {
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
        return value.refuse("credentials do not belong in the URL", Some(instead.to_owned()));
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
        super::values::size(value, 1..=PAGE_BYTES_LIMIT)
    });
    let count = |key, most: u64| fields.optional(key, |value: Value<'_>| value.integer(1..=most));
    Some(Limits {
        page_bytes_max: page_bytes_max.unwrap_or(Limits::DEFAULT.page_bytes_max),
        held_bytes_max: memory_bytes_max,
        part_bytes: Limits::DEFAULT.part_bytes,
        decode_ratio_max: count("decode_ratio_max", 1_000_000).unwrap_or(Limits::DEFAULT.decode_ratio_max),
        pages_max: count("pages_max", 1_000_000_000_000).unwrap_or(Limits::DEFAULT.pages_max),
        empty_pages_max: fields
            .optional("empty_pages_max", |value| value.integer_u32(1..=1_000_000))
            .unwrap_or(Limits::DEFAULT.empty_pages_max),
    })
}
