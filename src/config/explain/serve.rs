//! Who may send, and how it is taken.

use crate::{
    clock::Timestamp,
    config::{
        explain::lines::{Lines, list},
        producers::{Producer, Rates, Scope, Scopes, TokenProof},
        push::{Push, PushAuth},
        serve::{ClientCert, Issuer, Serve, ServeLimits, ServeTimeouts, SigningAlgorithm},
        spool::{Ack, Spool},
        uploads::Uploads,
    },
};

/// Adds `serve`.
pub(super) fn explain_serve(lines: &mut Lines, serve: &Serve) {
    lines.value("listen", serve.listen, Serve::LISTEN_DEFAULT);
    lines.value("admin_listen", serve.admin_listen, Serve::ADMIN_LISTEN_DEFAULT);
    lines.optional("public_url", serve.public_url.as_ref());
    match &serve.tls {
        Some(tls) => lines.within("tls", |lines| {
            lines.set("cert", tls.cert.display());
            lines.set("key", tls.key.display());
            lines.optional("client_ca", tls.client_ca.as_ref().map(|path| path.display()));
            lines.optional("client_crl", tls.client_crl.as_ref().map(|path| path.display()));
            let client_cert = match tls.client_cert {
                ClientCert::Optional => "optional",
                ClientCert::Required => "required",
            };
            lines.value("client_cert", client_cert, "optional");
        }),
        None => lines.choose("tls", "none", true),
    }
    lines.within("limits", |lines| {
        let (limits, usual) = (&serve.limits, ServeLimits::DEFAULT);
        lines.value("connections", limits.connections, usual.connections);
        lines.value(
            "requests_at_once",
            limits.requests_at_once,
            usual.requests_at_once,
        );
        lines.size("bytes_at_once", limits.bytes_at_once, usual.bytes_at_once);
        lines.size(
            "header_bytes_max",
            limits.header_bytes_max,
            usual.header_bytes_max,
        );
    });
    lines.within("timeouts", |lines| {
        let (timeouts, usual) = (&serve.timeouts, ServeTimeouts::DEFAULT);
        lines.wait("header", timeouts.header, usual.header);
        lines.wait("read", timeouts.read, usual.read);
        lines.wait("request", timeouts.request, usual.request);
        lines.wait("idle", timeouts.idle, usual.idle);
    });
    lines.within("spool", |lines| explain_spool(lines, &serve.spool));
    lines.within("uploads", |lines| explain_uploads(lines, &serve.uploads));
    lines.optional("audit_log", serve.audit_log.as_ref().map(|path| path.display()));
    lines.wait(
        "shutdown_grace",
        serve.shutdown_grace,
        Serve::SHUTDOWN_GRACE_DEFAULT,
    );
    for (name, rates) in &serve.tiers {
        lines.within(&format!("tiers.{name}"), |lines| explain_rates(lines, rates));
    }
    for issuer in &serve.issuers {
        lines.within(&format!("issuers.{}", issuer.name), |lines| {
            explain_issuer(lines, issuer)
        });
    }
}

fn explain_uploads(lines: &mut Lines, uploads: &Uploads) {
    match uploads.dir.ends_with(Uploads::DIR_DEFAULT) {
        true => lines.choose("dir", Uploads::DIR_DEFAULT, true),
        false => lines.set("dir", uploads.dir.display()),
    }
    lines.size("size", uploads.bytes_max, Uploads::BYTES_MAX_DEFAULT);
    lines.size("job_size", uploads.job_bytes_max, Uploads::JOB_BYTES_MAX_DEFAULT);
    lines.value("jobs", uploads.jobs_max, Uploads::JOBS_MAX_DEFAULT);
    let allow = uploads.allow.iter().map(|prefix| prefix.url().to_string());
    lines.choose(
        "allow",
        list(&allow.collect::<Vec<_>>()),
        uploads.allow.is_empty(),
    );
}

fn explain_spool(lines: &mut Lines, spool: &Spool) {
    let (ack, usual) = match spool.ack {
        Ack::Spool => ("spool", true),
        Ack::Lake => ("lake", false),
    };
    lines.choose("ack", ack, usual);
    match spool.dir.ends_with(Spool::DIR_DEFAULT) {
        true => lines.choose("dir", Spool::DIR_DEFAULT, true),
        false => lines.set("dir", spool.dir.display()),
    }
    lines.size("size", spool.bytes_max, Spool::BYTES_MAX_DEFAULT);
    lines.size("segment_size", spool.segment_bytes, Spool::SEGMENT_BYTES_DEFAULT);
    lines.wait("segment_age", spool.segment_age, Spool::SEGMENT_AGE_DEFAULT);
}

/// Adds one of `producers`.
pub(super) fn explain_producer(lines: &mut Lines, producer: &Producer) {
    let usual = producer.scopes == Scopes::of([Scope::Ingest]);
    lines.choose("scopes", producer.scopes, usual);
    let streams: Vec<String> = producer.streams.iter().map(ToString::to_string).collect();
    lines.set("streams", list(&streams));
    lines.value("tier", producer.tier.as_str(), Producer::TIER_DEFAULT);
    lines.within("limits", |lines| explain_rates(lines, &producer.rates));
    for token in &producer.tokens {
        let proof = match &token.proof {
            TokenProof::Hash(hash) => hash.to_string(),
            TokenProof::Reference(secret) => secret.to_string(),
        };
        let expires = token.expires.map_or("never".to_owned(), moment);
        lines.set(
            &format!("tokens.{}", token.name),
            format!("{proof}, expires {expires}"),
        );
    }
    let certificates: Vec<String> = producer.certificates.iter().map(ToString::to_string).collect();
    lines.choose("certificates", list(&certificates), certificates.is_empty());
}

/// Adds `push` of a stream.
pub(super) fn explain_push(lines: &mut Lines, push: &Push) {
    let usual = Push::DEFAULT;
    let auth = match push.auth {
        PushAuth::Token => "token",
        PushAuth::None => "none",
    };
    lines.value("auth", auth, "token");
    lines.value(
        "idempotency",
        push.idempotency.as_str(),
        usual.idempotency.as_str(),
    );
    lines.value(
        "on_violation",
        push.on_violation.as_str(),
        usual.on_violation.as_str(),
    );
    lines.value("records_max", push.records_max, usual.records_max);
    lines.size("bytes_max", push.bytes_max, usual.bytes_max);
    lines.size("record_bytes_max", push.record_bytes_max, usual.record_bytes_max);
    lines.optional("deprecated", push.deprecated.map(moment));
    lines.optional("sunset", push.sunset.map(moment));
    lines.optional("migration", push.migration.as_ref().map(ToString::to_string));
    lines.optional("delivery", push.delivery.as_ref());
}

fn explain_rates(lines: &mut Lines, rates: &Rates) {
    let usual = Rates::DEFAULT;
    lines.value("requests", rates.requests, usual.requests);
    lines.size("bytes", rates.bytes, usual.bytes);
    lines.wait("per", rates.per, usual.per);
    lines.value("at_once", rates.at_once, usual.at_once);
    lines.value("stream_share", rates.stream_share, usual.stream_share);
    lines.value("weight", rates.weight, usual.weight);
}

fn explain_issuer(lines: &mut Lines, issuer: &Issuer) {
    lines.set("issuer", &issuer.issuer_text);
    lines.set("audience", list(&issuer.audience));
    lines.optional("keys_url", issuer.keys_url.as_ref());
    let algorithms: Vec<String> = issuer
        .algorithms
        .iter()
        .map(|algorithm: &SigningAlgorithm| algorithm.as_str().to_owned())
        .collect();
    let usual = issuer.algorithms == Issuer::ALGORITHMS_DEFAULT;
    lines.choose("algorithms", list(&algorithms), usual);
    lines.value("producer", issuer.producer.to_string(), "$.sub".to_owned());
    let producers: Vec<String> = issuer
        .producers
        .iter()
        .map(|(claim, name)| format!("{claim:?} is {name}"))
        .collect();
    lines.choose("producers", list(&producers), producers.is_empty());
    lines.optional("scopes", issuer.scopes.as_ref());
    let words: Vec<String> = issuer
        .scope_words
        .iter()
        .map(|(word, scope)| format!("{word:?} is {}", scope.as_str()))
        .collect();
    lines.choose("scope_words", list(&words), words.is_empty());
    lines.wait("lifetime_max", issuer.lifetime_max, Issuer::LIFETIME_MAX_DEFAULT);
    lines.wait("skew", issuer.skew, Issuer::SKEW_MAX);
    lines.wait("keys_ttl", issuer.keys_ttl, Issuer::KEYS_TTL_DEFAULT);
}

fn moment(moment: Timestamp) -> String {
    moment.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}
