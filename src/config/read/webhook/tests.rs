use std::path::Path;

use crate::config::{explain::explain, read::parse};

/// What `webhook` comes to, or what is wrong with it.
fn read(webhook: &str) -> String {
    let text = format!(
        "lake: ./lake
sources:
  shop:
    base_url: https://shop.example
    streams:
      orders:
        request: {{ path: /o }}
        table: {{ keys: [id] }}
        webhook: {webhook}
"
    );
    match parse(&text, Path::new("/srv/shop")) {
        Ok(loaded) => {
            let warnings = loaded
                .warnings
                .iter()
                .map(|warning| format!("warning {warning}\n"));
            let explained = explain(&loaded.project);
            let lines = explained
                .lines()
                .filter_map(|line| line.strip_prefix("sources.shop.streams.orders.webhook."));
            let lines =
                lines.map(|line| format!("{}\n", line.split_whitespace().collect::<Vec<_>>().join(" ")));
            warnings.chain(lines).collect()
        }
        Err(problems) => problems.iter().map(|problem| format!("{problem}\n")).collect(),
    }
}

#[test]
fn every_scheme_has_its_own_defaults() {
    let read = |scheme| {
        read(&format!(
            "{{ scheme: {scheme}, secrets: {{ main: '${{env:S}}' }} }}"
        ))
    };
    let said = ["standard_webhooks", "github", "stripe", "shopify", "slack"].map(read);
    insta::assert_snapshot!(said.join("\n"), @"
    scheme standard_webhooks
    secrets.main ${env:S}
    tolerance 5m (default)
    event_id header:webhook-id (default)
    event_type $.type (default)
    routes none (default)

    scheme github
    secrets.main ${env:S}
    event_id header:x-github-delivery (default)
    event_type header:x-github-event (default)
    routes none (default)

    scheme stripe
    secrets.main ${env:S}
    tolerance 5m (default)
    event_id $.id (default)
    event_type $.type (default)
    routes none (default)

    scheme shopify
    secrets.main ${env:S}
    event_id header:x-shopify-webhook-id (default)
    event_type header:x-shopify-topic (default)
    routes none (default)

    scheme slack
    secrets.main ${env:S}
    tolerance 5m (default)
    event_id $.event_id (default)
    event_type $.event.type (default)
    routes none (default)
    ");
}

#[test]
fn a_signature_is_described_and_dated() {
    insta::assert_snapshot!(read("{ scheme: hmac, header: X-Sig, algorithm: sha512, encoding: base64, prefix: 'v1=', timestamp: X-At, timestamp_format: rfc3339, signed: 'v1:{timestamp}:{header:X-Id}:{body}', tolerance: 1m, event_id: $.event.id, event_type: header:X-Kind, secrets: { old: { value: '${env:A}', until: '2026-12-01T01:00:00+01:00' }, new: '${env:B}' } }"), @r#"
    scheme hmac
    header x-sig
    algorithm sha512
    encoding base64
    prefix "v1="
    timestamp x-at
    timestamp_format rfc3339
    signed "v1:{timestamp}:{header:x-id}:{body}"
    secrets.old ${env:A} until 2026-12-01T00:00:00+00:00
    secrets.new ${env:B}
    tolerance 1m
    event_id $.event.id
    event_type header:x-kind
    routes none (default)
    "#);
}

#[test]
fn what_is_not_written_is_shown_as_a_default_and_no_secret_is() {
    insta::assert_snapshot!(read("{ scheme: hmac, header: X-Sig, secrets: { main: hunter2 } }"), @r#"
    warning landfall.yml:9:66: main: a secret is written in the file
      hint: write ${env:NAME} or ${file:PATH} and keep it out of version control
    scheme hmac
    header x-sig
    algorithm sha256 (default)
    encoding hex (default)
    prefix "" (default)
    timestamp none (default)
    signed "{body}" (default)
    secrets.main ****
    event_id none (default)
    event_type none (default)
    routes none (default)
    "#);
}

#[test]
fn what_is_wrong_with_a_webhook_is_said() {
    let wrong = [
        "{ secrets: { main: '${env:S}' } }",
        "{ scheme: githup, secrets: { main: '${env:S}' } }",
        "{ scheme: github }",
        "{ scheme: github, tolerance: 5m, secrets: {} }",
        "{ scheme: github, secrets: { Main: '${env:S}', old: { value: '${env:S}', until: tomorrow } } }",
        "{ scheme: none, secrets: { main: '${env:S}' } }",
        "{ scheme: slack, tolerance: 2d, event_id: '$.ids[*]', event_type: 'header:a b', secrets: [a] }",
        "{ scheme: shared_secret, prefix: \"a\\n\", secrets: { main: '${env:S}' } }",
        "{ scheme: hmac, header: X-Sig, tolerance: 1m, timestamp_format: seconds, secrets: { main: '${env:S}' } }",
        "{ scheme: hmac, header: X-Sig, timestamp: X-At, secrets: { main: '${env:S}' } }",
        "{ scheme: hmac, header: X-Sig, signed: '{timestamp}.{body}', secrets: { main: '${env:S}' } }",
        "{ scheme: hmac, header: X-Sig, signed: '{url}{body}', secrets: { main: '${env:S}' } }",
        "{ scheme: hmac, header: X-Sig, signed: '{header:X-Id}', secrets: { main: '${env:S}' } }",
        "{ scheme: hmac, header: X-Sig, signed: '{body}{body}', secrets: { main: '${env:S}' } }",
        "{ scheme: hmac, header: X-Sig, signed: 'a}{body}', secrets: { main: '${env:S}' } }",
        "{ scheme: hmac, header: X-Sig, signed: '{body', secrets: { main: '${env:S}' } }",
    ];
    let said: Vec<String> = wrong.into_iter().map(read).collect();
    insta::assert_snapshot!(said.join("\n"), @r#"
    landfall.yml:9:9: missing key "scheme" in "webhook"
      hint: allowed: standard_webhooks, github, stripe, shopify, slack, hmac, shared_secret, none

    landfall.yml:9:28: scheme: "githup" is not allowed
      hint: did you mean github? allowed: standard_webhooks, github, stripe, shopify, slack, hmac, shared_secret, none

    landfall.yml:9:9: missing key "secrets" in "webhook"

    landfall.yml:9:36: unknown key "tolerance"
      hint: known keys: scheme, secrets, event_id, event_type, routes
    landfall.yml:9:60: secrets: at least one secret is needed
      hint: write NAME: '${env:HOOK_SECRET}'

    landfall.yml:9:47: "Main" is not a name
      hint: a name has 1 to 63 of a-z, 0-9, _ and -, and begins with a letter or digit
    landfall.yml:9:98: until: not a date and time with an offset
      hint: write '2026-12-01T00:00:00Z'

    landfall.yml:9:34: unknown key "secrets"
      hint: known keys: scheme, event_id, event_type, routes

    landfall.yml:9:46: tolerance: 2d is not between 1s and 1d
    landfall.yml:9:60: event_id: $.ids[*] is not one member of a body
      hint: write names only, such as $.event.id
    landfall.yml:9:84: event_type: "a b" is not the name of a header
    landfall.yml:9:107: secrets: expected a map (secrets by name), found a list

    landfall.yml:9:9: missing key "header" in "webhook"
    landfall.yml:9:51: prefix: must be one line without control characters

    landfall.yml:9:60: tolerance: no moment of signing is known
      hint: add timestamp, or remove this
    landfall.yml:9:82: timestamp_format: no moment of signing is known
      hint: add timestamp, or remove this

    landfall.yml:9:60: timestamp: is not part of what is signed
      hint: write {timestamp} in signed, as the sender does: '{timestamp}.{body}'

    landfall.yml:9:57: signed: no header holds the timestamp
      hint: add timestamp: NAME OF THE HEADER

    landfall.yml:9:57: signed: "url" is not known here
      hint: write {body}, {timestamp} and {header:NAME} with text between them

    landfall.yml:9:57: signed: the body is not signed
      hint: write {body}, {timestamp} and {header:NAME} with text between them

    landfall.yml:9:57: signed: says the same twice
      hint: write {body}, {timestamp} and {header:NAME} with text between them

    landfall.yml:9:57: signed: holds a brace without the other
      hint: write {body}, {timestamp} and {header:NAME} with text between them

    landfall.yml:9:57: signed: holds a brace without the other
      hint: write {body}, {timestamp} and {header:NAME} with text between them
    "#);
}

#[test]
fn there_are_no_more_secrets_than_are_tried() {
    let secrets: Vec<String> = (0..9).map(|number| format!("s{number}: '${{env:S}}'")).collect();
    insta::assert_snapshot!(read(&format!("{{ scheme: github, secrets: {{ {} }} }}", secrets.join(", "))), @"
    landfall.yml:9:45: secrets: more than 8 secrets
      hint: remove those that are no longer used
    ");
}
