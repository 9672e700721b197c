//! Every setting that is in force, for `landfall check --explain`.

mod auth;
mod format;
mod lines;
mod rules;
mod serve;
mod stream;
mod webhook;

use crate::config::{
    Limits, Maintain, Project, Source, Timeouts,
    auth::Auth,
    errors::{Breaker, Retry},
    explain::{
        auth::explain_auth,
        lines::{Lines, list, names},
        rules::{explain_errors, explain_rate_limit, explain_retry},
        serve::{explain_producer, explain_serve},
        stream::explain_stream,
    },
    read::values::show_size,
};

/// One line per setting: its name, its value, and `default` where the value is the one that holds without the file
/// saying so. What is switched off is one line. Secrets are shown as references, and a literal one as `****`.
pub fn explain(project: &Project) -> String {
    let mut lines = Lines::default();
    lines.set("lake", &project.lake.url);
    for (name, value) in &project.lake.storage {
        lines.set(&format!("storage.{name}"), value);
    }
    lines.choose(
        "credentials",
        project.credentials_dir.display(),
        project.credentials_dir == project.dir.join(".landfall/credentials"),
    );
    let memory = project.memory_bytes_max;
    lines.choose(
        "memory",
        show_size(memory),
        memory == Project::MEMORY_BYTES_DEFAULT,
    );
    lines.within("maintain", |lines| explain_maintain(lines, project.maintain));
    match &project.serve {
        Some(serve) => lines.within("serve", |lines| explain_serve(lines, serve)),
        None => lines.choose("serve", "none", true),
    }
    for producer in &project.producers {
        lines.within(&format!("producers.{}", producer.name), |lines| {
            explain_producer(lines, producer);
        });
    }
    for source in &project.sources {
        lines.within(&format!("sources.{}", source.name), |lines| {
            explain_source(lines, source);
        });
    }
    lines.to_string()
}

fn explain_maintain(lines: &mut Lines, maintain: Maintain) {
    let usual = Maintain::DEFAULT;
    lines.size("file_size", maintain.file_bytes, usual.file_bytes);
    lines.wait("compact_after", maintain.compact_after, usual.compact_after);
    lines.wait("vacuum_after", maintain.vacuum_after, usual.vacuum_after);
    lines.wait("log_after", maintain.log_after, usual.log_after);
    lines.wait("sweep_after", maintain.sweep_after, usual.sweep_after);
}

fn explain_source(lines: &mut Lines, source: &Source) {
    if source.is_pulled() {
        lines.set("base_url", &source.base_url);
    } else {
        lines.choose("base_url", "none", true);
    }
    let replicas: Vec<String> = source.replicas.iter().map(ToString::to_string).collect();
    lines.choose("replicas", list(&replicas), replicas.is_empty());
    lines.choose("config", names(&source.config), source.config.is_empty());
    lines.default = matches!(source.auth, Auth::None);
    explain_auth(lines, "auth", &source.auth);
    lines.default = false;
    let tls = &source.tls;
    for (name, file) in [
        ("client_cert", &tls.client_cert),
        ("client_key", &tls.client_key),
        ("ca", &tls.ca),
    ] {
        let file = file.as_ref().map(|path| path.display());
        lines.optional(&format!("tls.{name}"), file);
    }
    lines.choose("headers", names(&source.headers), source.headers.is_empty());
    explain_rate_limit(lines, source.rate_limit.as_ref());
    explain_errors(lines, &source.errors);
    lines.within("retry", |lines| {
        explain_retry(lines, source.retry, Retry::DEFAULT)
    });
    lines.within("breaker", |lines| explain_breaker(lines, source.breaker));
    lines.within("timeouts", |lines| explain_timeouts(lines, source.timeouts));
    lines.within("limits", |lines| explain_limits(lines, source.limits));
    for stream in &source.streams {
        lines.within(&format!("streams.{}", stream.name.stream), |lines| {
            explain_stream(lines, source, stream);
        });
    }
}

fn explain_breaker(lines: &mut Lines, breaker: Breaker) {
    let usual = Breaker::DEFAULT;
    lines.value("failures", breaker.failures, usual.failures);
    lines.wait("open", breaker.open, usual.open);
    lines.value("repeats_ratio", breaker.repeats_ratio, usual.repeats_ratio);
    lines.value("repeats_free", breaker.repeats_free, usual.repeats_free);
}

fn explain_timeouts(lines: &mut Lines, timeouts: Timeouts) {
    let usual = Timeouts::DEFAULT;
    lines.wait("connect", timeouts.connect, usual.connect);
    lines.wait("read", timeouts.read, usual.read);
    lines.wait("total", timeouts.total, usual.total);
}

fn explain_limits(lines: &mut Lines, limits: Limits) {
    let usual = Limits::DEFAULT;
    lines.size("page_bytes_max", limits.page_bytes_max, usual.page_bytes_max);
    lines.value(
        "decode_ratio_max",
        limits.decode_ratio_max,
        usual.decode_ratio_max,
    );
    lines.value("pages_max", limits.pages_max, usual.pages_max);
    lines.value("empty_pages_max", limits.empty_pages_max, usual.empty_pages_max);
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::read::parse;

    fn explained(text: &str) -> String {
        explain(&parse(text, Path::new("/srv/shop")).unwrap().project)
    }

    #[test]
    fn a_short_file_is_explained_with_its_defaults() {
        let text = include_str!("../../fixtures/config/minimal.yml");
        insta::assert_snapshot!(explained(text), @r#"
        lake                                                file:///srv/shop/lake
        credentials                                         /srv/shop/.landfall/credentials  (default)
        memory                                              1GiB  (default)
        maintain.file_size                                  128MiB  (default)
        maintain.compact_after                              1h  (default)
        maintain.vacuum_after                               7d  (default)
        maintain.log_after                                  30d  (default)
        maintain.sweep_after                                1d  (default)
        serve                                               none  (default)
        sources.shop.base_url                               https://api.shop.example/v1
        sources.shop.replicas                               none  (default)
        sources.shop.config                                 none  (default)
        sources.shop.auth                                   none  (default)
        sources.shop.tls.client_cert                        none  (default)
        sources.shop.tls.client_key                         none  (default)
        sources.shop.tls.ca                                 none  (default)
        sources.shop.headers                                none  (default)
        sources.shop.rate_limit                             none  (default)
        sources.shop.errors                                 none  (default)
        sources.shop.retry.attempts_max                     6  (default)
        sources.shop.retry.backoff_start                    1s  (default)
        sources.shop.retry.backoff_max                      1m  (default)
        sources.shop.retry.retry_after_max                  5m  (default)
        sources.shop.breaker.failures                       10  (default)
        sources.shop.breaker.open                           30s  (default)
        sources.shop.breaker.repeats_ratio                  0.1  (default)
        sources.shop.breaker.repeats_free                   30  (default)
        sources.shop.timeouts.connect                       10s  (default)
        sources.shop.timeouts.read                          30s  (default)
        sources.shop.timeouts.total                         5m  (default)
        sources.shop.limits.page_bytes_max                  64MiB  (default)
        sources.shop.limits.decode_ratio_max                200  (default)
        sources.shop.limits.pages_max                       1000000  (default)
        sources.shop.limits.empty_pages_max                 10  (default)
        sources.shop.streams.orders.like                    none  (default)
        sources.shop.streams.orders.with                    none  (default)
        sources.shop.streams.orders.request.method          GET  (default)
        sources.shop.streams.orders.request.path            "/orders"
        sources.shop.streams.orders.request.params          none  (default)
        sources.shop.streams.orders.request.headers         none  (default)
        sources.shop.streams.orders.request.body            none  (default)
        sources.shop.streams.orders.hydrate                 none  (default)
        sources.shop.streams.orders.gaps                    none  (default)
        sources.shop.streams.orders.push                    none  (default)
        sources.shop.streams.orders.format                  json  (default)
        sources.shop.streams.orders.records                 $[*]  (default)
        sources.shop.streams.orders.paginate                none  (default)
        sources.shop.streams.orders.slices                  none  (default)
        sources.shop.streams.orders.incremental             none  (default)
        sources.shop.streams.orders.reconcile               none  (default)
        sources.shop.streams.orders.complete                none  (default)
        sources.shop.streams.orders.group                   none  (default)
        sources.shop.streams.orders.schedule                none  (default)
        sources.shop.streams.orders.fresh_within            none  (default)
        sources.shop.streams.orders.job                     none  (default)
        sources.shop.streams.orders.files                   none  (default)
        sources.shop.streams.orders.errors                  none  (default)
        sources.shop.streams.orders.retry                   as the source  (default)
        sources.shop.streams.orders.table.keys              id
        sources.shop.streams.orders.table.sequence_by       none  (default)
        sources.shop.streams.orders.table.scd_type          1  (default)
        sources.shop.streams.orders.table.apply_as_deletes  none  (default)
        sources.shop.streams.orders.table.deletes           soft  (default)
        sources.shop.streams.orders.table.delete_absent     false  (default)
        sources.shop.streams.orders.table.delete_ratio_max  0.1  (default)
        sources.shop.streams.orders.table.write_mode        copy_on_write  (default)
        sources.shop.streams.orders.table.partition_by      none  (default)
        sources.shop.streams.orders.table.flatten           false  (default)
        sources.shop.streams.orders.table.explode           none  (default)
        sources.shop.streams.orders.contract                /srv/shop/contracts/shop.orders.odcs.yaml
        sources.shop.streams.orders.versions                none  (default)
        sources.shop.streams.orders.drift.on_unknown        rescue  (default)
        sources.shop.streams.orders.drift.on_mismatch       quarantine  (default)
        sources.shop.streams.orders.commit.pages            100  (default)
        sources.shop.streams.orders.commit.bytes            64MiB  (default)
        sources.shop.streams.orders.commit.elapsed          1m  (default)
        sources.shop.streams.orders.retention.raw           none  (default)
        sources.shop.streams.orders.retention.legal_hold    false  (default)
        sources.shop.streams.orders.webhook                 none  (default)
        "#);
    }

    #[test]
    fn r054_no_secret_is_explained() {
        let text = include_str!("../../fixtures/config/minimal.yml")
            .replace(
                "streams:",
                "auth: { type: basic, username: hunter2, password: hunter2 }\n    streams:",
            )
            .replace(
                "path: /orders",
                "path: /orders, params: { key: hunter2 }, headers: { cookie: hunter2 }",
            )
            .replace(
                "lake: ./lake",
                "lake: s3://bucket\nstorage: { secret_access_key: hunter2 }",
            );
        let text = explained(&text);
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("****"), "{text}");
    }
}
