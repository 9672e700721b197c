use std::path::Path;

use super::parse;
use crate::config::{
    Project,
    explain::explain,
    producers::{Rates, San, Scope, Scopes},
    push::{Feed, Idempotency, OnViolation, Push, PushAuth},
    serve::{Serve, ServeLimits, ServeTimeouts},
};

const STREAMS: &str = "
lake: ./lake
sources:
  shop:
    streams:
      orders: { push: {}, table: { keys: [id] } }
";

const PRODUCERS: &str = "
producers:
  checkout: { streams: [shop.orders], tokens: { main: { token: '${env:CHECKOUT_TOKEN}' } } }
";

/// The project, and every warning.
fn read(text: &str) -> Result<(Project, String), String> {
    let shown =
        |problems: &[crate::yaml::Problem]| problems.iter().map(|problem| format!("{problem}\n")).collect();
    match parse(text, Path::new("/srv/shop")) {
        Ok(loaded) => Ok((loaded.project, shown(&loaded.warnings))),
        Err(problems) => Err(shown(&problems)),
    }
}

#[test]
fn a_stream_may_be_pushed_alone() {
    let (project, warnings) = read(STREAMS).unwrap();
    assert_eq!(warnings, "");
    let (source, stream) = project.streams().next().unwrap();
    assert!(matches!(&stream.feed, Feed::Push(push) if *push == Push::DEFAULT));
    assert!(!stream.is_pulled() && !source.is_pulled());
    // Were it ever asked, nobody would be there.
    assert_eq!(source.base_url.as_str(), "http://shop.invalid/");
    let explained = explain(&project);
    assert!(!explained.contains("invalid"), "{explained}");
    assert!(explained.contains("push.bytes_max"), "{explained}");
    assert!(project.serve.is_none() && project.producers.is_empty());

    let both = STREAMS.replace("push: {}", "request: { path: /orders }, push: { records_max: 5 }");
    let both = both.replace("    streams:", "    base_url: https://shop.example\n    streams:");
    let (project, _) = read(&both).unwrap();
    let (source, stream) = project.streams().next().unwrap();
    assert!(source.is_pulled() && stream.is_pulled());
    assert_eq!(stream.feed.push().unwrap().records_max, 5);
}

#[test]
fn what_is_asked_has_an_address_and_what_is_not_asked_is_not_paged() {
    insta::assert_snapshot!(read(&STREAMS.replace("push: {}", "request: { path: /o }")).unwrap_err(), @r#"landfall.yml:4:3: missing key "base_url" in "shop""#);
    insta::assert_snapshot!(read(&STREAMS.replace("push: {}, ", "")).unwrap_err(), @r#"
    landfall.yml:4:3: missing key "base_url" in "shop"
    landfall.yml:6:7: missing key "request" in "orders"
    "#);
    // When it is loaded can be said of what is pushed too.
    let paged = "push: {}, schedule: '@daily', paginate: { type: link_header }";
    insta::assert_snapshot!(read(&STREAMS.replace("push: {}", paged)).unwrap_err(), @r"
    landfall.yml:6:47: paginate: there is no API to ask
      hint: remove it, or add a request to the stream
    ");
    let late = "push: { deprecated: 2027-01-01, sunset: 2026-12-31T23:59:59Z, record_bytes_max: 32MiB }";
    insta::assert_snapshot!(read(&STREAMS.replace("push: {}", late)).unwrap_err(), @r"
    landfall.yml:6:57: sunset: is before deprecated
      hint: deprecated comes first: it is the time that producers have
    landfall.yml:6:97: record_bytes_max: 32MiB is not between 1B and 16MiB
    ");
}

#[test]
fn f159_what_others_can_reach_needs_producers_and_administrators() {
    let (project, warnings) = read(&format!("{STREAMS}serve: {{}}\n")).unwrap();
    let serve = project.serve.unwrap();
    assert_eq!(warnings, "");
    assert!(serve.listen.ip().is_loopback() && serve.admin_listen.ip().is_loopback());
    assert_eq!(
        (serve.listen, serve.admin_listen),
        (Serve::LISTEN_DEFAULT, Serve::ADMIN_LISTEN_DEFAULT)
    );
    assert_eq!(
        (serve.limits, serve.timeouts),
        (ServeLimits::DEFAULT, ServeTimeouts::DEFAULT)
    );
    assert_eq!(serve.base_path(), "");

    let open =
        "serve: { listen: '0.0.0.0:8443', admin_listen: '[::]:9090', tls: { cert: c.pem, key: k.pem } }\n";
    insta::assert_snapshot!(read(&format!("{STREAMS}{open}")).unwrap_err(), @r"
    landfall.yml:7:1: admin_listen: others can reach this address, and no producer has the scope admin
      hint: add one, or listen on 127.0.0.1
    landfall.yml:7:1: listen: others can reach this address, and no producer is declared
      hint: add producers, or listen on 127.0.0.1
    ");
    let administered = PRODUCERS.replace("streams:", "scopes: [ingest, admin], streams:");
    assert_eq!(read(&format!("{STREAMS}{open}{administered}")).unwrap().1, "");
    insta::assert_snapshot!(read(&format!("{STREAMS}serve: {{ listen: '10.0.0.1:80' }}{PRODUCERS}")).unwrap().1, @"
    landfall.yml:7:1: listen: tokens are sent without encryption
      hint: add tls, or set public_url to the https address of what stands between
    ");
    let behind = "serve: { listen: '10.0.0.1:80', public_url: 'https://in.shop.example/landfall/' }";
    let (project, warnings) = read(&format!("{STREAMS}{behind}{PRODUCERS}")).unwrap();
    assert_eq!(
        (warnings.as_str(), project.serve.unwrap().base_path()),
        ("", "/landfall")
    );
}

#[test]
fn r156_a_producer_may_do_what_it_is_granted_and_no_more() {
    let (project, _) = read(&format!("{STREAMS}{PRODUCERS}")).unwrap();
    let producer = &project.producers[0];
    assert_eq!(producer.scopes, Scopes::of([Scope::Ingest]));
    assert_eq!(
        (producer.tier.as_str(), &producer.rates),
        ("standard", &Rates::DEFAULT)
    );

    let producers = "
serve:
  tiers: { premium: { requests: 500, per: 1s, weight: 4 } }
  tls: { cert: c.pem, key: k.pem, client_ca: ca.pem }
producers:
  checkout:
    scopes: [read, admin]
    streams: ['shop.*']
    tier: premium
    limits: { at_once: 8, stream_share: 0.5 }
    certificates: ['dns:Checkout.shop.example']
";
    let (project, warnings) = read(&format!("{STREAMS}{producers}")).unwrap();
    let producer = &project.producers[0];
    assert_eq!(warnings, "");
    assert!(producer.scopes.has(Scope::Admin) && !producer.scopes.has(Scope::Ingest));
    let rates = &producer.rates;
    assert_eq!((rates.requests, rates.at_once, rates.weight), (500, 8, 4));
    assert_eq!((rates.stream_requests(), rates.stream_at_once()), (250, 4));
    assert_eq!(
        producer.certificates,
        [San::Dns("checkout.shop.example".to_owned())]
    );
}

#[test]
fn what_would_never_work_is_said_before_it_does_not() {
    let producers = "
serve:
  limits: { bytes_at_once: 20MiB }
  issuers:
    one: { issuer: 'https://login.example', audience: [landfall], producers: { abc: nobody } }
    two: { issuer: 'https://login.example', audience: [landfall] }
    three: { issuer: 'http://login.example', audience: [] }
producers:
  a: { streams: [shop.ordres], tier: gold, certificates: ['dns:*.example'] }
  b: { streams: ['shop.*'], limits: { bytes: 1MiB } }
  c: { streams: ['shop.*'], certificates: ['dns:x.example'], tokens: { main: { hash: hunter2 } } }
";
    let problems = read(&format!("{STREAMS}{producers}")).unwrap_err();
    assert!(!problems.contains("hunter2"));
    insta::assert_snapshot!(problems, @r#"
    landfall.yml:13:22: issuer: keys from there could be replaced on their way
      hint: use https
    landfall.yml:13:56: audience: at least one is needed
    landfall.yml:15:38: tier: there is no tier "gold"
      hint: add it to serve.tiers
    landfall.yml:15:58: certificates: "dns:*.example" is not the name of a certificate
      hint: write dns:NAME, uri:URI, email:ADDRESS or ip:ADDRESS, without *
    landfall.yml:17:86: hash: not the hash of a token
      hint: write sha256:ID:HEX, as it was made with the token
    "#);
    let producers = "
serve:
  limits: { bytes_at_once: 20MiB }
  issuers:
    one: { issuer: 'https://login.example', audience: [landfall], producers: { abc: nobody } }
producers:
  a: { streams: [shop.ordres] }
  b: { streams: ['shop.*'], limits: { bytes: 1MiB }, certificates: ['dns:x.example'] }
  c: { streams: ['shop.*'], certificates: ['dns:X.example'] }
";
    insta::assert_snapshot!(read(&format!("{STREAMS}{producers}")).unwrap_err(), @r#"
    landfall.yml:8:1: issuers.one: there is no producer nobody for "abc"
      hint: add it to producers
    landfall.yml:8:1: limits.bytes_at_once: one body of shop.orders may take more than half of it
      hint: raise it, or lower push.bytes_max
    landfall.yml:12:1: a: there is no stream shop.ordres
    landfall.yml:12:1: b: a body of shop.orders may be larger than all it may send per window
      hint: raise bytes of its rates, or lower push.bytes_max
    landfall.yml:12:1: c: certificate name dns:x.example is also that of b
      hint: give each its own
    "#);
}

#[test]
fn nobody_sends_without_a_token_or_a_signature() {
    let hook = "webhook: { scheme: github, secrets: { main: '${env:HOOK_SECRET}' } }";
    let auth = |push: &str| {
        let (project, warnings) = read(&STREAMS.replace("push: {}", push)).unwrap();
        assert_eq!(warnings, "");
        assert!(!project.sources[0].is_pulled());
        project.sources[0].streams[0].feed.push().unwrap().auth
    };
    assert_eq!(auth("push: {}"), PushAuth::Token);
    assert_eq!(auth(hook), PushAuth::None);
    assert_eq!(auth(&format!("{hook}, push: {{}}")), PushAuth::Token);
    assert_eq!(auth(&format!("{hook}, push: {{ auth: none }}")), PushAuth::None);
    let refused = |push: &str| read(&STREAMS.replace("push: {}", push)).unwrap_err();
    insta::assert_snapshot!(refused("push: { auth: none }"), @"
    landfall.yml:6:23: push: without a token and a signature anyone could send
      hint: add a webhook with a scheme that signs, or leave auth out
    ");
    let open = "push: { auth: none }, webhook: { scheme: none }";
    assert_eq!(refused(open).matches("anyone could send").count(), 1);
    let broken = "push: { auth: none }, webhook: { scheme: github }";
    assert_eq!(refused(broken).matches("landfall.yml:").count(), 1);
}

#[test]
fn one_wrong_line_of_serve_gives_one_problem() {
    let good = "
serve:
  tiers: { gold: { requests: 5 } }
  issuers: { one: { issuer: 'https://login.example', audience: [landfall] } }
  tls: { cert: c.pem, key: k.pem, client_ca: ca.pem }
producers:
  a: { streams: ['shop.*'], tier: gold, certificates: ['dns:a.example'] }
";
    assert_eq!(read(&format!("{STREAMS}{good}")).unwrap().1, "");
    for (from, to) in [
        ("requests: 5", "requests: 0"),
        ("https://login.example", "login.example"),
        ("[landfall]", "[landfall], producer: '$.a[*]'"),
        ("[landfall]", "[landfall], scope_words: { a: read }"),
        ("[landfall]", "[landfall], skew: 61s"),
        ("[landfall]", "[landfall], algorithms: [HS256]"),
        ("[landfall]", "[landfall], algorithms: [none]"),
        ("key: k.pem, ", ""),
        ("client_ca: ca.pem", "client_cert: required"),
        ("client_ca: ca.pem", "client_crl: crl.pem"),
        ("tier: gold", "tier: silver"),
        ("'shop.*'", "'shop.o*'"),
        ("dns:a.example", "cn:a.example"),
        ("  tls:", "  listen: localhost:80\n  tls:"),
        ("  tls:", "  admin_listen: 127.0.0.1:8080\n  tls:"),
    ] {
        assert!(good.contains(from), "{from}");
        let problems = read(&format!("{STREAMS}{}", good.replace(from, to))).unwrap_err();
        assert_eq!(problems.matches("landfall.yml:").count(), 1, "{to}\n{problems}");
    }
    let unasked = good.replace(", client_ca: ca.pem", "");
    insta::assert_snapshot!(read(&format!("{STREAMS}{unasked}")).unwrap().1, @"
    landfall.yml:8:1: a: no client is asked for a certificate
      hint: add client_ca to serve.tls
    ");
}

#[test]
fn r054_a_token_in_the_file_is_a_warning_and_is_not_shown() {
    let literal = PRODUCERS.replace("${env:CHECKOUT_TOKEN}", "lfp_hunter2");
    let (project, warnings) = read(&format!("{STREAMS}{literal}")).unwrap();
    insta::assert_snapshot!(warnings, @"
    landfall.yml:9:64: token: a secret is written in the file
      hint: write ${env:NAME} or ${file:PATH} and keep it out of version control
    ");
    assert!(!explain(&project).contains("hunter2") && !format!("{project:?}").contains("hunter2"));
}

#[test]
fn the_records_of_webhooks_are_the_events_unless_the_file_says_otherwise() {
    let records = |push: &str| {
        let (project, _) = read(&STREAMS.replace("push: {}", push)).unwrap();
        let explained = explain(&project);
        let line = explained.lines().find(|line| line.contains(".orders.records "));
        (
            project.sources[0].streams[0].records.to_string(),
            line.unwrap().contains("default"),
        )
    };
    let hook = "webhook: { scheme: github, secrets: { main: '${env:HOOK_SECRET}' } }";
    assert_eq!(records(hook), ("$[*], else $".to_owned(), true));
    assert_eq!(
        records(&format!("{hook}, records: '$.events[*]'")),
        ("$.events[*]".to_owned(), false)
    );
    assert_eq!(records("push: {}"), ("$[*]".to_owned(), true));
}

#[test]
fn rejected_webhooks_are_advised_against() {
    let hook = "webhook: { scheme: github, secrets: { main: '${env:HOOK_SECRET}' } }";
    let advice = |push: &str| {
        let (project, _) = read(&STREAMS.replace("push: {}", push)).unwrap();
        let (source, stream) = project.streams().next().unwrap();
        let lines = crate::config::advice::advice(source, stream);
        lines
            .iter()
            .map(ToString::to_string)
            .filter(|line| line.starts_with("webhook: "))
            .count()
    };
    assert_eq!(advice(&format!("{hook}, push: {{ on_violation: reject }}")), 1);
    assert_eq!(advice(&format!("{hook}, push: {{ on_violation: tag }}")), 0);
    assert_eq!(advice("push: { on_violation: reject }"), 0);
}

#[test]
fn every_setting_of_a_push_reaches_the_stream() {
    let push = "push: { idempotency: required, on_violation: tag, records_max: 5, bytes_max: 1MiB, deprecated: 2026-12-01, \
                migration: 'https://wiki.shop.example/v2', delivery: At least once. }";
    let (project, _) = read(&STREAMS.replace("push: {}", push)).unwrap();
    let push = project.sources[0].streams[0].feed.push().unwrap().clone();
    assert_eq!(push.idempotency, Idempotency::Required);
    assert_eq!(push.on_violation, OnViolation::Tag);
    assert_eq!(
        (push.records_max, push.bytes_max, push.record_bytes_max),
        (5, 1 << 20, 1 << 20)
    );
    assert_eq!(push.deprecated.unwrap().to_rfc3339(), "2026-12-01T00:00:00+00:00");
    assert_eq!(
        (push.sunset, push.delivery.as_deref()),
        (None, Some("At least once."))
    );
    assert_eq!(push.migration.unwrap().as_str(), "https://wiki.shop.example/v2");
}
