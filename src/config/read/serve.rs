//! Where and how the server listens.

use std::{net::SocketAddr, path::Path as FilePath, time::Duration};

use url::Url;

use crate::{
    config::{
        Name, Source,
        producers::{Producer, Rates, Scope},
        read::{
            auth::tls::path,
            issuer::{self, check_issuers, issuer},
            producers::{COUNT_MAX, rates},
            source::{name, web_url},
            spool, uploads,
            values::{absolute, duration, size},
        },
        serve::{ClientCert, Serve, ServeLimits, ServeTimeouts, ServeTls},
        spool::Spool,
        uploads::Uploads,
    },
    yaml::{
        fields::Value,
        quoted,
        section::{
            Section,
            Takes::{self, Choice, File, Integer, Matching, Named, Number, Size},
            key,
        },
    },
};

const ADDRESS: Takes = Matching(
    r"^(\[[0-9a-fA-F:.]+\]|[0-9.]+):[0-9]{1,5}$",
    "an IP address and a port",
);

/// Most requests and connections at the same time.
const AT_ONCE_MAX: u32 = 1_000_000;

const SHORTEST: Duration = Duration::from_millis(100);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// `serve`
pub(super) static SERVE: Section = Section::new(
    "serve",
    "serve",
    "Where and how `landfall serve` listens. Without it nothing does. An empty map listens on this machine alone.",
    &[
        key("listen", ADDRESS)
            .default("127.0.0.1:8080")
            .doc("Where producers reach it. One that others can reach needs producers.")
            .example("0.0.0.0:8443"),
        key("admin_listen", ADDRESS)
            .default("127.0.0.1:9090")
            .doc(
                "Where health and metrics are, and nothing else. Where others than this machine can reach it, metrics need a \
                 producer with the scope `admin`, and with `tls` it has the certificate of the server; certificates of \
                 clients are optional there.",
            )
            .example("127.0.0.1:9091"),
        key("public_url", Takes::Url)
            .doc("What producers call it, where something stands between. Its path stands before that of every route.")
            .example("https://ingest.shop.example/landfall"),
        key("tls", Takes::Section(&SERVE_TLS)).doc("Its own certificate. Without it it speaks plain HTTP."),
        key("limits", Takes::Section(&SERVE_LIMITS)).doc("Bounds on what it takes on."),
        key("timeouts", Takes::Section(&SERVE_TIMEOUTS)).doc("How long it waits for clients."),
        key("spool", Takes::Section(&spool::SPOOL)).doc("Where deliveries are kept until they are in the lake."),
        key("uploads", Takes::Section(&uploads::UPLOADS)).doc("Files that are larger than a request may be."),
        key("audit_log", File)
            .doc(
                "A file that one line of JSON is appended to for every request that was let in or turned away, with who, why \
                 and how that was proved, and for what is unusual: ten times the requests of before, a new kind of body. It \
                 is only ever appended to; one that was moved away is begun anew. What was turned away and what is unusual is \
                 in the log of the program too.",
            )
            .example("/var/log/landfall/audit.jsonl"),
        key("shutdown_grace", Takes::Duration)
            .default("30s")
            .doc("How long requests under way may take to end when it is told to stop.")
            .example("10s"),
        key("tiers", Named(&RATES))
            .doc("Rates of producers by the name of a tier. `standard` is there without being given.")
            .example("{ premium: { requests: 500000, weight: 4 } }"),
        key("issuers", Named(&issuer::ISSUER)).doc("Whose access tokens are taken (OpenID Connect)."),
    ],
)
.example("{ listen: 127.0.0.1:8081 }");

/// `serve.tls`
static SERVE_TLS: Section = Section::new(
    "serve_tls",
    "tls settings",
    "The certificate of the server. Files that change are read again; TLS 1.2 and 1.3 are spoken.",
    &[
        key("cert", File)
            .required()
            .doc("A PEM file with the certificate chain.")
            .example("certs/server.pem"),
        key("key", File)
            .required()
            .doc("A PEM file with the unencrypted private key.")
            .example("certs/server.key"),
        key("client_ca", File)
            .doc("A PEM file of the authorities whose certificates of clients are good (mTLS).")
            .example("certs/clients.pem"),
        key("client_crl", File)
            .doc(
                "A PEM file of their revocation lists. With it a certificate whose authority has no list in it is refused; \
                 a list that is out of date still counts.",
            )
            .example("certs/clients.crl.pem")
            .beside("{ client_ca: certs/clients.pem }"),
        key(
            "client_cert",
            Choice(&[
                (
                    "optional",
                    "one that is shown must be good, and a client without one needs a token",
                ),
                ("required", "there is no connection without one"),
            ]),
        )
        .default("optional")
        .doc("Whether clients must have a certificate.")
        .example("required")
        .beside("{ client_ca: certs/clients.pem }"),
    ],
)
.example("{ cert: certs/server.pem, key: certs/server.key }");

/// `serve.limits`
static SERVE_LIMITS: Section = Section::new(
    "serve_limits",
    "limits",
    "Bounds on what the server takes on, shared by all producers. When several want more than there is, each gets its \
     part by the weight of its tier, and some is always left for those who ask for little.",
    &[
        key("connections", Integer(1, AT_ONCE_MAX as u64))
            .default("4096")
            .doc("Connections at the same time.")
            .example("500"),
        key("requests_at_once", Integer(2, AT_ONCE_MAX as u64))
            .default("1024")
            .doc("Requests under way at the same time.")
            .example("200"),
        key("bytes_at_once", Size)
            .default("256MiB")
            .doc(
                "Bytes of bodies in memory; at least twice the largest `push.bytes_max`, and 2MiB. A quarter as much again \
                 may be on its way in HTTP/2 connections, and 64 KiB in each of them.",
            )
            .example("512MiB"),
        key("header_bytes_max", Size)
            .default("32KiB")
            .doc("Bytes of one request's headers; 4KiB to 1MiB.")
            .example("16KiB"),
    ],
)
.example("{ requests_at_once: 200 }");

/// `serve.timeouts`
static SERVE_TIMEOUTS: Section = Section::new(
    "serve_timeouts",
    "timeouts",
    "How long the server waits for clients.",
    &[
        key("header", Takes::Duration)
            .default("10s")
            .doc("Until the headers of a request are there.")
            .example("5s"),
        key("read", Takes::Duration)
            .default("30s")
            .doc(
                "The longest pause in a body, before its first part or between two. A body may also be no further behind 1 \
                 KiB/s than this.",
            )
            .example("10s"),
        key("request", Takes::Duration)
            .default("5m")
            .doc("For one whole request.")
            .example("1m"),
        key("idle", Takes::Duration)
            .default("60s")
            .doc("With no request on a connection.")
            .example("90s"),
    ],
)
.example("{ read: 10s }");

/// How fast a producer may send.
pub(super) static RATES: Section = Section::new(
    "rates",
    "rates",
    "How fast one producer may send. What it may send per window may also come at once; answers say how much is left in \
     `RateLimit`, and less of it is granted while the spool fills.",
    &[
        key("requests", Integer(1, COUNT_MAX))
            .default("100000")
            .doc("Requests per window.")
            .example("5000"),
        key("bytes", Size)
            .default("1GiB")
            .doc("Bytes of bodies as they are sent, per window.")
            .example("100MiB"),
        key("per", Takes::Duration)
            .default("10s")
            .doc("The window; 1s to 1d.")
            .example("1m"),
        key("at_once", Integer(1, 100_000))
            .default("256")
            .doc("Requests under way at the same time.")
            .example("16"),
        key("stream_share", Number(0.01, 1.0))
            .default("1.0")
            .doc("The part of all this that one stream may take, so that a busy one leaves something for the others.")
            .example("0.5"),
        key("weight", Integer(1, 100))
            .default("1")
            .doc("How large its part of `serve.limits` is when others want it too, against 1 of others.")
            .example("4"),
    ],
)
.example("{ requests: 5000, bytes: 100MiB }");

/// Reads `serve`.
pub(super) fn serve(value: Value<'_>, dir: &FilePath) -> Option<Serve> {
    let fields = value.fields(&SERVE)?;
    let listen = fields
        .optional("listen", address)
        .unwrap_or(Serve::LISTEN_DEFAULT);
    let admin_listen = fields
        .optional("admin_listen", address)
        .unwrap_or(Serve::ADMIN_LISTEN_DEFAULT);
    if listen == admin_listen && listen.port() != 0 {
        let given = fields.value("admin_listen").or_else(|| fields.value("listen"));
        return given?.refuse("producers and administration would meet at one address", None);
    }
    let public_url = fields.optional("public_url", public_url);
    let tls = fields.value("tls").map(|value| tls(value, dir));
    let limits = fields.optional("limits", limits).unwrap_or(ServeLimits::DEFAULT);
    let timeouts = fields
        .optional("timeouts", timeouts)
        .unwrap_or(ServeTimeouts::DEFAULT);
    let spool = match fields.value("spool") {
        Some(value) => spool::spool(value, dir),
        None => Some(Spool::usual(&absolute(dir, ".")?)),
    };
    let uploads = match fields.value("uploads") {
        Some(value) => uploads::uploads(value, dir),
        None => Some(Uploads::usual(&absolute(dir, ".")?)),
    };
    let audit_log = fields.optional("audit_log", |value| path(value, dir));
    let shutdown_grace = fields
        .optional("shutdown_grace", |value| duration(value, Duration::ZERO..=HOUR))
        .unwrap_or(Serve::SHUTDOWN_GRACE_DEFAULT);
    let tiers = match fields.value("tiers") {
        Some(value) => named(value, |value| rates(value, &Rates::DEFAULT)),
        None => Some(Vec::new()),
    };
    let issuers = fields.optional("issuers", |value| named(value, issuer));
    if let (Some(issuers), Some(value)) = (&issuers, fields.value("issuers")) {
        check_issuers(value, issuers);
    }
    let issuers = issuers.unwrap_or_default();
    Some(Serve {
        listen,
        admin_listen,
        public_url,
        tls: match tls {
            Some(tls) => Some(tls?),
            None => None,
        },
        limits,
        timeouts,
        spool: spool?,
        uploads: uploads?,
        audit_log,
        shutdown_grace,
        tiers: tiers?,
        issuers: issuers.into_iter().map(|(_, issuer)| issuer).collect(),
    })
}

/// What others can reach is for those alone who say who they are, and over a connection that nobody else reads.
pub(super) fn check(value: Value<'_>, serve: &Serve, producers: &[Producer], sources: &[Source]) {
    let refuse = |key: &str, message: &str, hint: &str| {
        let message = format!("{key}: {message}");
        value
            .problems
            .add(value.key_place, message, Some(hint.to_owned()));
    };
    if !serve.listen.ip().is_loopback() {
        if producers.is_empty() {
            refuse(
                "listen",
                "others can reach this address, and no producer is declared",
                "add producers, or listen on 127.0.0.1",
            );
        }
        let terminated = serve
            .public_url
            .as_ref()
            .is_some_and(|url| url.scheme() == "https");
        if serve.tls.is_none() && !terminated {
            let hint = "add tls, or set public_url to the https address of what stands between".to_owned();
            value.problems.warn(
                value.key_place,
                "listen: tokens are sent without encryption",
                Some(hint),
            );
        }
    }
    let administered = producers.iter().any(|producer| producer.scopes.has(Scope::Admin));
    if !serve.admin_listen.ip().is_loopback() && !administered {
        refuse(
            "admin_listen",
            "others can reach this address, and no producer has the scope admin",
            "add one, or listen on 127.0.0.1",
        );
    }
    let asked = serve.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    if let (false, Some(producer)) = (asked, producers.iter().find(|one| !one.certificates.is_empty())) {
        let message = format!("{}: no client is asked for a certificate", producer.name);
        let hint = "add client_ca to serve.tls".to_owned();
        value.problems.warn(value.key_place, message, Some(hint));
    }
    for issuer in &serve.issuers {
        for (claim, name) in &issuer.producers {
            if producers.iter().all(|producer| producer.name != *name) {
                let message = format!("there is no producer {name} for {}", quoted(claim));
                refuse(
                    &format!("issuers.{}", issuer.name),
                    &message,
                    "add it to producers",
                );
            }
        }
    }
    let streams = sources.iter().flat_map(|source| &source.streams);
    let mut pushed = streams.filter_map(|stream| Some((&stream.name, stream.feed.push()?)));
    if let Some((name, _)) = pushed.find(|(_, push)| push.bytes_max > serve.limits.bytes_at_once / 2) {
        let message = format!("one body of {name} may take more than half of it");
        refuse(
            "limits.bytes_at_once",
            &message,
            "raise it, or lower push.bytes_max",
        );
    }
}

fn address(value: Value<'_>) -> Option<SocketAddr> {
    let text = value.text()?;
    match text.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            let hint = "write 127.0.0.1:8080 or [::1]:8080".to_owned();
            value.refuse(
                format!("{} is not an IP address and a port", quoted(text)),
                Some(hint),
            )
        }
    }
}

fn public_url(value: Value<'_>) -> Option<Url> {
    let url = web_url(value, "producers have tokens")?;
    if url.query().is_some() || url.fragment().is_some() {
        return value.refuse("has no ? and no #", None);
    }
    Some(url)
}

fn tls(value: Value<'_>, dir: &FilePath) -> Option<ServeTls> {
    let fields = value.fields(&SERVE_TLS)?;
    let cert = fields.required("cert", |value| path(value, dir));
    let key = fields.required("key", |value| path(value, dir));
    let client_ca = fields.optional("client_ca", |value| path(value, dir));
    let words = [
        ("optional", ClientCert::Optional),
        ("required", ClientCert::Required),
    ];
    let client_cert = fields.optional("client_cert", |value| value.choice(&words, &[]));
    let client_crl = fields.optional("client_crl", |value| path(value, dir));
    let of_clients = ["client_cert", "client_crl"];
    let given = of_clients.iter().find_map(|key| fields.value(key));
    if let (Some(value), None) = (given, fields.value("client_ca")) {
        let hint = "add client_ca".to_owned();
        return value.refuse("there is nobody whose certificates are good", Some(hint));
    }
    Some(ServeTls {
        cert: cert?,
        key: key?,
        client_ca,
        client_crl,
        client_cert: client_cert.unwrap_or(ClientCert::Optional),
    })
}

fn limits(value: Value<'_>) -> Option<ServeLimits> {
    let fields = value.fields(&SERVE_LIMITS)?;
    let usual = ServeLimits::DEFAULT;
    let count = |key, least: u32, usual: u32| {
        let given = fields.optional(key, |value: Value<'_>| value.integer_u32(least..=AT_ONCE_MAX));
        given.unwrap_or(usual)
    };
    Some(ServeLimits {
        connections: count("connections", 1, usual.connections),
        requests_at_once: count("requests_at_once", 2, usual.requests_at_once),
        bytes_at_once: fields
            .optional("bytes_at_once", |value| size(value, (2 << 20)..=(1 << 40)))
            .unwrap_or(usual.bytes_at_once),
        header_bytes_max: fields
            .optional("header_bytes_max", |value| size(value, (4 << 10)..=(1 << 20)))
            .unwrap_or(usual.header_bytes_max),
    })
}

fn timeouts(value: Value<'_>) -> Option<ServeTimeouts> {
    let fields = value.fields(&SERVE_TIMEOUTS)?;
    let usual = ServeTimeouts::DEFAULT;
    let wait = |key, usual: Duration| {
        let given = fields.optional(key, |value| duration(value, SHORTEST..=DAY));
        given.unwrap_or(usual)
    };
    Some(ServeTimeouts {
        header: wait("header", usual.header),
        read: wait("read", usual.read),
        request: wait("request", usual.request),
        idle: wait("idle", usual.idle),
    })
}

/// What `read` makes of each entry of a map by name.
fn named<T>(value: Value<'_>, read: impl Fn(Value<'_>) -> Option<T>) -> Option<Vec<(Name, T)>> {
    let entries = value.entries("names")?;
    let found = entries.iter().map(|entry| {
        let child = value.child(entry);
        name(child).zip(read(child))
    });
    let found: Vec<Option<(Name, T)>> = found.collect();
    found.into_iter().collect()
}
