//! The budget of a credential, and when a host is left alone.

mod quota;

use std::{path::Path, time::Duration};

use regex::RegexBuilder;
use url::Url;

use crate::{
    config::{
        Name,
        errors::Breaker,
        rate::{Bucket, Choose, Rate, RateLimit, RequestPattern, Share, WindowKind},
        read::{
            rate::quota::{QUOTA_HEADERS, STATUS, quota_headers, status},
            values::{DURATION_MAX, absolute, duration, header_name, reference, warn_literal},
        },
    },
    yaml::{
        fields::{Fields, Value},
        quoted,
        section::{
            Key, Rule, Section,
            Takes::{self, Choice, File, Integer, List, Map, Number, Scalar, Text},
            key,
        },
    },
};

const MILLISECOND: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Most requests of a window.
const REQUESTS_MAX: u32 = 1_000_000_000;

/// Most rates of all buckets together; each is looked at for each request.
const RATES_MAX: usize = 32;

/// Largest size of a compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

const WINDOWS: Takes = Choice(&[
    ("moving", "any stretch of this length is a window"),
    (
        "fixed",
        "windows begin at whole multiples of their length since 1970, UTC: at the full hour, at midnight",
    ),
]);

/// What is granted …
const REQUESTS: Key = key("requests", Integer(1, REQUESTS_MAX as u64))
    .doc("Requests granted per window.")
    .example("1000");

/// … per window.
const PER: Key = key("per", Takes::Duration).doc("The window.").example("1h");

/// Keys that say which requests are meant; all of them must match.
const PATTERN: [Key; 5] = [
    key(
        "method",
        Choice(&[
            ("GET", ""),
            ("POST", ""),
            ("PUT", ""),
            ("PATCH", ""),
            ("DELETE", ""),
        ]),
    )
    .doc("Only requests of this method.")
    .example("POST"),
    key("path", Text)
        .doc("Only requests with this regular expression somewhere in the path of their URL.")
        .example("^/v1/search"),
    key("params", Map(&Scalar))
        .doc("Only requests with these query parameters.")
        .example("{ expand: 'true' }"),
    key("headers", Map(&Scalar))
        .doc("Only requests with these headers.")
        .example("{ x-tier: bulk }"),
    key("weight", Integer(1, REQUESTS_MAX as u64))
        .default("1")
        .doc("How many requests one of these counts as; at most `requests`.")
        .example("5"),
];

/// `rate_limit`
pub(super) static RATE_LIMIT: Section = Section::new(
    "rate_limit",
    "a rate limit",
    "The budget of the credential, shared by all streams of the source. Requests up to the budget go at once; further \
     ones wait, and streams that wait take turns.",
    &[
        REQUESTS,
        PER,
        key("window", WINDOWS)
            .default("moving")
            .doc("How the windows of `requests` follow each other.")
            .example("fixed"),
        key("buckets", List(&Takes::Section(&BUCKET)))
            .default("[]")
            .doc("Budgets of some requests, or of several windows. `requests` and `per` are one more, of every request.")
            .example("[{ requests: 10, per: 1s }, { requests: 30, per: 1m, path: ^/search }]"),
        key(
            "choose",
            Choice(&[
                ("all", "each of them, and all must grant it"),
                ("first", "the first one in the order of the file"),
            ]),
        )
        .default("all")
        .doc("Which of several buckets that match a request count it.")
        .example("first"),
        key("share", Takes::Section(&SHARE))
            .doc("Who else spends the same budget. Without it the budget is that of one process."),
        key("processes", Integer(1, 10_000))
            .default("4")
            .doc(
                "Processes that may run on a shared budget at once. While its store cannot be reached, each is held to \
                 this part of it.",
            )
            .example("2"),
        key("headers", Takes::Section(&QUOTA_HEADERS)).doc(
            "Response headers that say how much is left, besides `RateLimit`, `RateLimit-*`, `X-RateLimit-*` and \
             `X-Rate-Limit-*`.",
        ),
        key("status", Takes::Section(&STATUS))
            .doc("A request that asks how much is left, where the API has one.")
            .example("{ request: { path: /rate_limit }, remaining: $.rate.remaining, reset: $.rate.reset }"),
    ],
)
.example("{ requests: 1000, per: 1h }");

/// One entry of `buckets`.
static BUCKET: Section = Section::new(
    "bucket",
    "a bucket",
    "How many of some requests may be sent. With `choose: first`, one without requests lets them go freely.",
    &[
        REQUESTS,
        PER,
        key("rates", List(&Takes::Section(&RATE_OF_BUCKET)))
            .default("[]")
            .doc("Further windows over the same requests; all of them hold.")
            .example("[{ requests: 1000, per: 1h }]"),
        key("window", WINDOWS)
            .default("moving")
            .doc("How the windows follow each other.")
            .example("fixed"),
        key("matches", List(&Takes::Section(&REQUEST_PATTERN)))
            .default("[]")
            .doc("Further requests that count; those that match any do. Without a pattern every request counts.")
            .example("[{ path: ^/orders }, { path: ^/export, weight: 5 }]"),
    ],
)
.shared(&[&PATTERN])
.example("{ requests: 10, per: 1s }");

/// One entry of `rates`.
static RATE_OF_BUCKET: Section = Section::new(
    "rate",
    "a rate",
    "So many requests per window.",
    &[REQUESTS.required(), PER.required()],
)
.example("{ requests: 1000, per: 1h }");

/// One entry of `matches`.
static REQUEST_PATTERN: Section = Section::new(
    "request_pattern",
    "a request pattern",
    "Requests for which everything named here holds.",
    &[],
)
.shared(&[&PATTERN])
.example("{ path: ^/orders }");

/// `share`
static SHARE: Section = Section::new(
    "share",
    "a shared budget",
    "Where processes that use the same credential keep count together.",
    &[
        key("file", File)
            .doc("A file of its own on a local disk, for processes of one machine; made if it is missing.")
            .example("/var/lib/landfall/shop.budget"),
        key("redis", Takes::Reference)
            .doc("The URL of a Redis. With windows of hours it should be one that keeps its data over a restart.")
            .example("redis://localhost:6379/0"),
        key("key", Text)
            .doc("Under which name the budget is kept. Without it the name of the source.")
            .example("shop-production"),
    ],
)
.rules(&[Rule::One(&["file", "redis"])])
.example("{ file: /var/lib/landfall/shop.budget }");

/// `breaker`
pub(super) static BREAKER: Section = Section::new(
    "breaker",
    "breaker settings",
    "When a host is left alone because it fails, and how many requests it is sent again at all.",
    &[
        key("failures", Integer(1, 1_000_000))
            .default("10")
            .doc("Failures in a row, of any stream, after which the host is left alone.")
            .example("5"),
        key("open", Takes::Duration)
            .default("30s")
            .doc("For how long, before one request tries again.")
            .example("1m"),
        key("repeats_ratio", Number(0.0, 10.0))
            .default("0.1")
            .doc("Repeats allowed for each request that succeeds.")
            .example("0.05"),
        key("repeats_free", Integer(0, 1_000_000))
            .default("30")
            .doc("Repeats allowed before any request has succeeded, and most that are saved up.")
            .example("10"),
    ],
)
.example("{ failures: 5, open: 1m }");

/// Reads `rate_limit`.
pub(super) fn rate_limit(value: Value<'_>, source: Option<&Name>, dir: &Path) -> Option<RateLimit> {
    let fields = value.fields(&RATE_LIMIT)?;
    let choose = match fields.value("choose") {
        Some(value) => value.choice(&[("all", Choose::All), ("first", Choose::First)], &[]),
        None => Some(Choose::All),
    };
    let of_all = one_rate(&fields);
    let window = window(&fields);
    let buckets = fields.optional("buckets", |value| {
        let items: Vec<Option<Bucket>> = value.items()?.map(|item| bucket(item, choose?)).collect();
        items.into_iter().collect::<Option<Vec<_>>>()
    });
    let share = match fields.value("share") {
        Some(value) => share(value, source, dir),
        None => Some(Share::Process),
    };
    let processes = fields.optional("processes", |value| value.integer_u32(1..=10_000));
    let headers = fields.optional("headers", quota_headers);
    let asked = fields.optional("status", |value| status(value, dir));
    let wrong = fields.value("buckets").is_some() && buckets.is_none()
        || fields.value("status").is_some() && asked.is_none();
    let mut buckets = buckets.unwrap_or_default();
    if let Some(rate) = of_all? {
        buckets.push(Bucket {
            rates: vec![rate],
            window: window?,
            matches: Vec::new(),
        });
    }
    let rates = buckets.iter().map(|bucket| bucket.rates.len()).sum::<usize>();
    if rates > RATES_MAX {
        return value.refuse(
            format!("{rates} rates are more than the {RATES_MAX} allowed"),
            None,
        );
    }
    if buckets.is_empty() && headers.is_none() && asked.is_none() && !wrong {
        fields.missing("\"requests\" and \"per\", or \"buckets\"");
        return None;
    }
    (!wrong).then_some(())?;
    Some(RateLimit {
        buckets,
        choose: choose?,
        share: share?,
        processes: processes.unwrap_or(RateLimit::PROCESSES_DEFAULT),
        headers: headers.unwrap_or_default(),
        status: asked.map(Box::new),
    })
}

/// Reads `breaker`.
pub(super) fn breaker(value: Value<'_>) -> Option<Breaker> {
    let fields = value.fields(&BREAKER)?;
    let usual = Breaker::DEFAULT;
    Some(Breaker {
        failures: fields
            .optional("failures", |value| value.integer_u32(1..=1_000_000))
            .unwrap_or(usual.failures),
        open: fields
            .optional("open", |value| duration(value, MILLISECOND..=DAY))
            .unwrap_or(usual.open),
        repeats_ratio: fields
            .optional("repeats_ratio", ratio)
            .unwrap_or(usual.repeats_ratio),
        repeats_free: fields
            .optional("repeats_free", |value| value.integer_u32(0..=1_000_000))
            .unwrap_or(usual.repeats_free),
    })
}

/// `requests` and `per`, which come together; the inner one is none without them.
fn one_rate(fields: &Fields<'_>) -> Option<Option<Rate>> {
    let (requests, per) = (fields.value("requests"), fields.value("per"));
    if requests.is_none() && per.is_none() {
        return Some(None);
    }
    let requests = fields.required("requests", |value| value.integer_u32(1..=REQUESTS_MAX));
    let per = fields.required("per", |value| duration(value, MILLISECOND..=DURATION_MAX));
    Some(Some(Rate {
        requests: requests?,
        per: per?,
    }))
}

fn window(fields: &Fields<'_>) -> Option<WindowKind> {
    match fields.value("window") {
        Some(value) => value.choice(
            &[("moving", WindowKind::Moving), ("fixed", WindowKind::Fixed)],
            &[],
        ),
        None => Some(WindowKind::Moving),
    }
}

fn bucket(value: Value<'_>, choose: Choose) -> Option<Bucket> {
    let fields = value.fields(&BUCKET)?;
    let first = one_rate(&fields);
    let window = window(&fields);
    let more = fields.value("rates").map(|value| {
        let rates = value.items()?.map(|item| {
            let fields = item.fields(&RATE_OF_BUCKET)?;
            match one_rate(&fields)? {
                Some(rate) => Some(rate),
                None => {
                    fields.missing("\"requests\"");
                    None
                }
            }
        });
        rates.collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>()
    });
    let own = pattern(&fields);
    let others = fields.value("matches").map(|value| {
        let patterns = value
            .items()?
            .map(|item| pattern(&item.fields(&REQUEST_PATTERN)?));
        patterns
            .collect::<Vec<_>>()
            .into_iter()
            .collect::<Option<Vec<_>>>()
    });
    let mut rates: Vec<Rate> = first?.into_iter().collect();
    rates.extend(more.unwrap_or(Some(Vec::new()))?);
    // A bucket with nothing but a weight of one has said nothing of its requests.
    let mut matches: Vec<RequestPattern> = own?.into_iter().filter(|pattern| !pattern.is_any()).collect();
    matches.extend(others.unwrap_or(Some(Vec::new()))?.into_iter().flatten());
    if rates.is_empty() && choose == Choose::All {
        return value.refuse(
            "a bucket without requests counts nothing",
            Some("give it requests and per, or write choose: first".to_owned()),
        );
    }
    let least = rates.iter().map(|rate| rate.requests).min();
    if let (Some(least), Some(pattern)) = (least, matches.iter().max_by_key(|pattern| pattern.weight))
        && pattern.weight > least
    {
        let weight = pattern.weight;
        return value.refuse(
            format!("a weight of {weight} is more than the {least} requests there are"),
            None,
        );
    }
    Some(Bucket {
        rates,
        window: window?,
        matches,
    })
}

/// The keys of [`PATTERN`]; the inner one is none if there are none of them.
fn pattern(fields: &Fields<'_>) -> Option<Option<RequestPattern>> {
    if PATTERN.iter().all(|key| fields.value(key.name).is_none()) {
        return Some(None);
    }
    let methods = ["GET", "POST", "PUT", "PATCH", "DELETE"].map(|method| (method, method));
    let method = fields.value("method").map(|value| value.choice(&methods, &[]));
    let path = fields.value("path").map(|value| {
        let text = value.text()?;
        let built = RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build();
        match built {
            Ok(regex) => Some(regex),
            Err(_) => value.refuse(
                format!("{} is not a regular expression", quoted(text)),
                Some("write a part of the path, such as ^/v1/search".to_owned()),
            ),
        }
    });
    let params = fields
        .value("params")
        .map(|value| texts(value, |value| Some(value.key.to_owned())));
    let headers = fields
        .value("headers")
        .map(|value| texts(value, |value| header_name(value, value.key)));
    let weight = fields
        .value("weight")
        .map(|value| value.integer_u32(1..=REQUESTS_MAX));
    Some(Some(RequestPattern {
        method: method
            .map_or(Some(None), |method| method.map(Some))?
            .map(str::to_owned),
        path: path.map_or(Some(None), |path| path.map(Some))?,
        params: params.unwrap_or(Some(Vec::new()))?,
        headers: headers.unwrap_or(Some(Vec::new()))?,
        weight: weight.unwrap_or(Some(1))?,
    }))
}

fn texts(value: Value<'_>, name: impl Fn(Value<'_>) -> Option<String>) -> Option<Vec<(String, String)>> {
    let entries = value.entries("names with values")?;
    let pairs = entries.iter().map(|entry| {
        let child = value.child(entry);
        Some((name(child)?, child.scalar()?.to_owned()))
    });
    pairs.collect::<Vec<_>>().into_iter().collect()
}

fn share(value: Value<'_>, source: Option<&Name>, dir: &Path) -> Option<Share> {
    let fields = value.fields(&SHARE)?;
    let key = match fields.value("key") {
        Some(value) => value.text().map(str::to_owned),
        None => source.map(Name::to_string),
    };
    match (fields.value("file"), fields.value("redis")) {
        (Some(file), None) => {
            let path = absolute(dir, file.text()?);
            match path {
                Some(path) => Some(Share::File { path, key: key? }),
                None => file.refuse("the path has no absolute form", None),
            }
        }
        (None, Some(redis)) => {
            let url = reference(redis, dir)?;
            if !url.is_reference() {
                check_redis(redis)?;
            }
            Some(Share::Redis { url, key: key? })
        }
        _ => {
            let hint = "write file: PATH or redis: URL".to_owned();
            value.refuse("exactly one of file and redis is needed", Some(hint))
        }
    }
}

fn check_redis(value: Value<'_>) -> Option<()> {
    let hint = || Some("write redis://host:port/db".to_owned());
    // The text is not repeated: it may hold a password.
    match Url::parse(value.text()?) {
        Ok(url) if url.scheme() == "redis" => {
            if url.password().is_some() {
                warn_literal(value);
            }
            Some(())
        }
        Ok(url) if url.scheme() == "rediss" => value.refuse("Redis over TLS is not spoken", hint()),
        _ => value.refuse("not the URL of a Redis", hint()),
    }
}

/// A number between 0 and 10.
fn ratio(value: Value<'_>) -> Option<f64> {
    value.number(0.0..=10.0)
}

#[cfg(test)]
mod tests;
