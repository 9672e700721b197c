use std::time::{Duration, Instant};

use super::*;
use crate::config::{
    Deletes, OnMismatch, ScdType, StreamName,
    auth::Auth,
    incremental::Moment,
    paginate::Paginate,
    request::{Body, TokenSlot, Tree},
};

const MINIMAL: &str = include_str!("../../../fixtures/config/minimal.yml");
const FULL: &str = include_str!("../../../fixtures/config/full.yml");
const BAD: &str = include_str!("../../../fixtures/config/bad.yml");

fn read(text: &str) -> Result<Loaded, Vec<Problem>> {
    parse(text, Path::new("/srv/shop"))
}

fn shown(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

/// Every problem of the minimal file with `from` replaced by `to`, or the warnings.
fn after(from: &str, to: &str) -> String {
    assert!(MINIMAL.contains(from));
    match read(&MINIMAL.replace(from, to)) {
        Ok(loaded) => shown(&loaded.warnings),
        Err(problems) => shown(&problems),
    }
}

fn stream(loaded: &Loaded, name: &str) -> crate::config::Stream {
    loaded
        .project
        .stream(&StreamName::parse(name).unwrap())
        .unwrap()
        .1
        .clone()
}

#[test]
fn r020_every_problem_of_a_file_is_reported_at_once_with_its_place() {
    let problems = read(BAD).unwrap_err();
    assert!(!shown(&problems).contains("hunter2"));
    insta::assert_snapshot!(shown(&problems), @r#"
    landfall.yml:1:7: lake: ~ is not expanded
      hint: write an absolute path
    landfall.yml:2:1: unknown key "memroy"
      hint: did you mean "memory"?
    landfall.yml:4:3: "Shop" is not a name
      hint: a name has 1 to 63 of a-z, 0-9, _ and -, and begins with a letter or digit
    landfall.yml:5:15: base_url: credentials do not belong in the URL
      hint: use auth:
    landfall.yml:6:19: type: "aws_sigv4" is not available yet
      hint: allowed: none, api_key, basic, bearer, oauth2_client_credentials, oauth2_refresh_token, oauth2_password, oauth2_jwt_bearer, jwt, session, select, pool
    landfall.yml:9:26: path: a path has no ? and no #
      hint: query parameters go into params
    landfall.yml:9:51: method: "DELETE" is not allowed
      hint: allowed: GET, POST, PUT, PATCH
    landfall.yml:10:9: unknown key "recrods"
      hint: did you mean "records"?
    landfall.yml:11:9: missing key "from" in "paginate"
    landfall.yml:11:53: header: only one of param, header, body_field and in may be given
    landfall.yml:12:32: cursor: "$.a..b": recursive descent (`..`) is not supported
      hint: write a JSONPath such as $.data[*]
    landfall.yml:12:63: start: "yesterday" does not fit the format
      hint: write a moment: 2024-01-01T00:00:00Z
    landfall.yml:12:84: lookback: "1 hour" is not a duration
      hint: write a whole number and one of ms, s, m, h, d: 30s
    landfall.yml:13:9: missing key "sequence_by" in "table"
    landfall.yml:13:24: keys: expected a list, found text
      hint: write [one, two]
    landfall.yml:14:30: on_unknown: "resuce" is not allowed
      hint: did you mean rescue? allowed: rescue, evolve, ignore, quarantine
    landfall.yml:14:51: on_mismatch: "widen" is not allowed
      hint: allowed: quarantine, rescue, fail, evolve
    landfall.yml:15:26: pages: 0 is not between 1 and 100000
    landfall.yml:15:29: duplicate key "pages"
      hint: it is already on line 15
    landfall.yml:15:46: bytes: "1.5MB" is not a size
      hint: write a whole number and one of KiB, MiB, GiB, KB, MB, GB: 16MiB
    landfall.yml:16:7: "../etc" is not a name
      hint: a name has 1 to 63 of a-z, 0-9, _ and -, and begins with a letter or digit
    landfall.yml:16:7: missing key "table" in "../etc"
    landfall.yml:18:3: landfall is the name of a system schema
      hint: choose another name
    landfall.yml:18:3: missing key "streams" in "landfall"
    landfall.yml:19:15: base_url: only http and https are spoken
    landfall.yml:20:12: retry: backoff_start 2h is longer than backoff_max 1m
    landfall.yml:20:28: attempts_max: expected a whole number, found text
    landfall.yml:21:17: rate_limit: expected a map (a rate limit), found a whole number
    landfall.yml:22:5: unknown key "reconcile"
      hint: known keys: base_url, auth, tls, headers, config, rate_limit, retry, errors, replicas, breaker, timeouts, limits, streams
    "#);
}

#[test]
fn a_short_file_gets_safe_defaults() {
    let loaded = read(MINIMAL).unwrap();
    assert_eq!(loaded.warnings, []);
    let project = &loaded.project;
    assert_eq!(project.dir, Path::new("/srv/shop"));
    assert_eq!(project.lake.url.as_str(), "file:///srv/shop/lake");
    assert_eq!(project.memory_bytes_max, 1 << 30);
    assert_eq!(project.config_hash.len(), 64);
    let source = &project.sources[0];
    assert!(matches!(source.auth, Auth::None));
    assert_eq!(source.retry, crate::config::errors::Retry::DEFAULT);
    assert_eq!(source.limits, crate::config::Limits::DEFAULT);
    let orders = stream(&loaded, "shop.orders");
    assert_eq!(
        orders.contract,
        Path::new("/srv/shop/contracts/shop.orders.odcs.yaml")
    );
    assert_eq!(orders.records.to_string(), "$[*]");
    assert!(matches!(orders.paginate.next, Paginate::Single));
    assert_eq!(orders.table.scd_type, ScdType::Upsert);
    assert_eq!(orders.drift, crate::config::DriftPolicy::DEFAULT);
}

#[test]
fn every_setting_reaches_the_project() {
    let loaded = read(FULL).unwrap();
    assert_eq!(shown(&loaded.warnings), "");
    assert_eq!(loaded.project.lake.url.as_str(), "s3://bucket/prefix");
    assert_eq!(loaded.project.lake.storage[1].1.reveal().unwrap(), "true");
    let shop = &loaded.project.sources[0];
    assert_eq!(shop.retry.backoff_start, Duration::from_millis(200));
    assert_eq!(shop.timeouts.total, Duration::from_secs(120));
    assert_eq!(shop.limits.page_bytes_max, 16 << 20);
    assert_eq!(
        format!("{:?}", shop.auth),
        r#"ApiKeyHeader { name: "x-api-key", value: Secret(${file:/srv/shop/secrets/shop}) }"#
    );
    let orders = stream(&loaded, "shop.orders");
    let Body::Json(Tree::Object(body)) = &orders.request.body else {
        panic!()
    };
    assert_eq!(body[0].0, "filter");
    assert_eq!(orders.request.params[0].1.secret().reveal().unwrap(), "500");
    assert_eq!(
        orders.incremental.unwrap().start,
        [Moment::At("2024-01-01T00:00:00Z".to_owned())]
    );
    let Paginate::Cursor { to, .. } = orders.paginate.next else {
        panic!()
    };
    assert_eq!(
        to,
        TokenSlot::BodyField(vec!["page".to_owned(), "after".to_owned()])
    );
    assert_eq!(orders.table.deletes, Deletes::Soft);
    assert_eq!(orders.drift.on_mismatch, OnMismatch::Fail);
    assert_eq!(orders.commit.elapsed, Duration::from_secs(15));
    let Paginate::NextUrl { from } = stream(&loaded, "shop.events").paginate.next else {
        panic!()
    };
    assert!(matches!(from, crate::config::request::Place::Header(name) if name == "next-page"));
    assert_eq!(
        stream(&loaded, "shop.customers").incremental.unwrap().lookback,
        Duration::from_secs(2 * 86_400)
    );
}

/// A value that no setting takes is put behind each key in turn; if a key were never read, nobody would notice.
#[test]
fn r020_no_key_of_the_format_is_ignored() {
    let free = ["status:", "filter:", "size:", "day:"];
    for (number, line) in FULL.lines().enumerate() {
        let Some((key, value)) = line.split_once(": ") else {
            continue;
        };
        if line.starts_with('#') || value.is_empty() || free.iter().any(|word| line.trim().starts_with(word))
        {
            continue;
        }
        let mut lines: Vec<String> = FULL.lines().map(str::to_owned).collect();
        lines[number] = format!("{key}: [[[1]]]");
        let problems = read(&lines.join("\n")).err().unwrap_or_default();
        assert!(
            problems.iter().any(|problem| problem.line == number + 1),
            "{line}\n{}",
            shown(&problems)
        );
    }
}

#[test]
fn r054_a_secret_in_the_file_is_a_warning_with_its_line_and_is_not_shown() {
    let auth = "base_url: https://api.shop.example/v1\n    auth: { type: bearer, token: hunter2 }";
    let text = after("base_url: https://api.shop.example/v1", auth);
    insta::assert_snapshot!(text, @"
    landfall.yml:5:34: token: a secret is written in the file
      hint: write ${env:NAME} or ${file:PATH} and keep it out of version control
    ");
    let auth =
        "base_url: https://api.shop.example/v1\n    auth: { type: basic, username: hunter2, password: '' }";
    insta::assert_snapshot!(after("base_url: https://api.shop.example/v1", auth), @"
    landfall.yml:5:36: username: a secret is written in the file
      hint: write ${env:NAME} or ${file:PATH} and keep it out of version control
    ");
    let storage = "lake: s3://bucket\nstorage: { access_key_id: AK, secret_access_key: hunter2, region: x }";
    insta::assert_snapshot!(after("lake: ./lake", storage), @"
    landfall.yml:2:50: secret_access_key: a secret is written in the file
      hint: write ${env:NAME} or ${file:PATH} and keep it out of version control
    ");
    let request = "{ path: /orders, params: { api_key: hunter2, limit: 5 }, headers: { Cookie: hunter2 } }";
    insta::assert_snapshot!(after("{ path: /orders }", request), @"
    landfall.yml:7:54: api_key: a secret is written in the file
      hint: write ${env:NAME} or ${file:PATH} and keep it out of version control
    landfall.yml:7:94: Cookie: a secret is written in the file
      hint: write ${env:NAME} or ${file:PATH} and keep it out of version control
    ");
    let references = "base_url: https://x.example\n    auth: { type: bearer, token: \"${env:A}${file:b}\" }";
    assert_eq!(after("base_url: https://api.shop.example/v1", references), "");
    let broken = "base_url: https://x.example\n    auth: { type: bearer, token: \"hun${ter2}\" }";
    let text = after("base_url: https://api.shop.example/v1", broken);
    assert!(!text.contains("ter2"));
    insta::assert_snapshot!(text, @"
    landfall.yml:5:34: token: holds a reference that cannot be read
      hint: write ${env:NAME} or ${file:PATH}, and $${ where ${ itself is meant
    ");
}

#[test]
fn r054_credentials_over_plain_http_are_a_warning_except_on_loopback() {
    let with = |host: &str| {
        let auth = format!("base_url: http://{host}\n    auth: {{ type: bearer, token: \"${{env:A}}\" }}");
        after("base_url: https://api.shop.example/v1", &auth)
    };
    for host in ["localhost:8080", "127.0.0.1", "[::1]:9"] {
        assert_eq!(with(host), "", "{host}");
    }
    insta::assert_snapshot!(with("api.shop.example"), @"
    landfall.yml:4:15: base_url: credentials are sent without encryption
      hint: use https
    ");
}

#[test]
fn f150_odd_names_are_refused_where_they_stand() {
    for name in [
        "../x",
        "'%2e%2e'",
        "CON",
        "Orders",
        "a.b",
        "a b",
        "-a",
        "_a",
        "ord\u{435}rs",
        "''",
        "a/b",
    ] {
        let text = after("orders:", &format!("{name}:"));
        assert!(
            text.contains("landfall.yml:6:7: ") && text.contains("is not a name"),
            "{name}: {text}"
        );
        let text = after("shop:", &format!("{name}:"));
        assert!(
            text.contains("landfall.yml:3:3: ") && text.contains("is not a name"),
            "{name}: {text}"
        );
    }
    assert!(after("orders:", &format!("{}:", "a".repeat(300))).contains("is not a name"));
    assert!(after("orders:", "\"a\\0b\":").contains(r#""a\0b" is not a name"#));
    insta::assert_snapshot!(after("orders:", "orders__raw:"), @r#"
    landfall.yml:6:7: "orders__raw" holds __, which separates SQL names
      hint: use one _
    "#);
    insta::assert_snapshot!(after("shop:", "landfall:"), @"
    landfall.yml:3:3: landfall is the name of a system schema
      hint: choose another name
    ");
}

#[test]
fn f150_a_request_path_cannot_leave_its_base() {
    for path in [
        "/../admin",
        "/a/%2e%2E/b",
        "..",
        "https://evil.example/",
        "//evil.example",
        "/a\\\\..\\\\b",
        "/a b",
    ] {
        let text = after("path: /orders", &format!("path: \"{path}\""));
        assert!(text.contains("landfall.yml:7:26: path: "), "{path}: {text}");
    }
}

#[test]
fn f155_hostile_files_are_refused_quickly() {
    let started = Instant::now();
    let mut laughs = "a0: &a0 [lol, lol]\n".to_owned();
    for level in 1..40 {
        laughs.push_str(&format!("a{level}: &a{level} [*a{0}, *a{0}, *a{0}]\n", level - 1));
    }
    let many_keys: String = (0..90_000).map(|key| format!("k{key}: 1\n")).collect();
    let same_keys = "a: 1\n".repeat(200_000);
    let hostile = [
        laughs,
        many_keys,
        same_keys,
        "[".repeat(1 << 20),
        "{".repeat(1 << 20),
        "{a: ".repeat(200_000),
        "- ".repeat(500_000),
        "? ".repeat(500_000),
        "a: ".repeat(300_000),
        "\"".repeat((1 << 20) - 1),
        format!("lake: {}", "x".repeat(1_000_000)),
        "a".repeat(100 << 20),
    ];
    for text in &hostile {
        let problems = read(text).unwrap_err();
        assert!(!problems.is_empty() && problems.len() <= 101);
        assert!(shown(&problems).len() < 50_000);
    }
    assert!(
        started.elapsed() < Duration::from_secs(30),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn f155_a_large_or_broken_file_is_refused_before_it_is_read_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE_NAME);
    insta::assert_snapshot!(shown(&load(dir.path()).unwrap_err()), @"
    landfall.yml:1:1: cannot be read: No such file or directory (os error 2)
      hint: `landfall init` writes one
    ");
    std::fs::File::create(&path).unwrap().set_len(100 << 20).unwrap();
    insta::assert_snapshot!(shown(&load(dir.path()).unwrap_err()), @"landfall.yml:1:1: the file has more than the 1048576 bytes allowed");
    std::fs::write(&path, b"lake: x\nsources: \xff\n").unwrap();
    insta::assert_snapshot!(shown(&load(dir.path()).unwrap_err()), @"
    landfall.yml:2:10: not UTF-8
      hint: save the file as UTF-8
    ");
    std::fs::write(&path, MINIMAL).unwrap();
    assert_eq!(load(dir.path()).unwrap().project.sources.len(), 1);
}

#[test]
fn one_wrong_line_gives_one_problem() {
    let request = "request: { path: /orders }";
    for (from, to) in [
        ("lake: ./lake", "lake: gs://bucket"),
        ("lake: ./lake", "lake: file://lake"),
        ("lake: ./lake", "lake: s3://u:p@bucket"),
        ("lake: ./lake", "lake: ${env:LAKE}"),
        ("lake: ./lake", "lake: ./lake\nmemory: 1MiB"),
        ("https://api.shop.example/v1", "https://api.shop.example/v1?key=x"),
        ("https://api.shop.example/v1", "api.shop.example"),
        ("keys: [id]", "keys: []"),
        ("keys: [id]", "sequence_by: [id]"),
        ("keys: [id]", "keys: [id, id]"),
        ("keys: [id]", "keys: [_lf_page]"),
        ("keys: [id]", "scd_type: append, apply_as_deletes: a"),
        ("keys: [id]", "scd_type: append, write_mode: merge_on_read"),
        ("path: /orders", "path: /orders, body: {a: 1}"),
        (
            "path: /orders",
            "path: /orders, method: POST, body: {a: \"${nope}\"}",
        ),
        (
            "path: /orders",
            "path: /orders, method: POST, json: {a: 1}, form: {a: 1}",
        ),
        ("path: /orders", "path: /orders, graphql: {variables: {a: 1}}"),
        ("path: /orders", "path: \"/orders/{{ slice.id\""),
        ("path: /orders", "path: \"/orders/{{ response.id }}\""),
        ("path: /orders", "path: \"/{{ slice.id }}/../x\""),
        (
            "path: /orders",
            "path: /orders, params: {a: \"{{ slice.a | nope }}\"}",
        ),
        (
            "path: /orders",
            "path: /orders, headers: {a: \"{{ '${env:A}' }}\"}",
        ),
        ("path: /orders", "path: /orders, headers: {Accept: a, accept: b}"),
        ("path: /orders", "path: /orders, headers: {Content-Length: 1}"),
        ("path: /orders", "path: /orders, headers: {A: \"b\\r\\nC: d\"}"),
        (
            request,
            "request: { path: /orders, params: {page: 1} }\n        paginate: { type: page_number }",
        ),
        (
            request,
            "request: { path: /orders }\n        paginate: { type: cursor, from: $.a, body_field: b }",
        ),
        (
            request,
            "request: { path: /orders }\n        paginate: { type: cursor, from: $.a }",
        ),
        (
            request,
            "request: { path: /orders }\n        paginate: { from: $.a }",
        ),
        (
            request,
            "request: { path: /orders }\n        incremental: { cursor: $.a, param: b, format: integer, lookback: 1h }",
        ),
        (
            request,
            "request: { path: /orders }\n        incremental: { cursor: $.a, param: b, start: 2024-01-01 }",
        ),
        (
            request,
            "request: { path: /orders }\n        incremental: { cursor: $.a, param: b, format: date, start: 2024-1-1 }",
        ),
        (
            request,
            "request: { path: /orders }\n        incremental: { cursor: $.a, param: b, format: epoch_s, start: 1e9 }",
        ),
        (
            request,
            "request: { path: /orders }\n        paginate: { type: offset, param: o }\n        incremental: { cursor: $.a, param: o }",
        ),
        (request, "request: { path: /orders }\n        drift:"),
    ] {
        let problems = read(&MINIMAL.replace(from, to)).unwrap_err();
        assert_eq!(problems.len(), 1, "{to}\n{}", shown(&problems));
    }
}

#[test]
fn two_streams_do_not_share_a_contract() {
    let two = "contract: a.yaml\n      items:\n        request: { path: /i }\n        contract: ./a.yaml\n        table: { keys: [id] }\n      orders2:\n        request: { path: /orders }";
    insta::assert_snapshot!(after("request: { path: /orders }", &format!("request: {{ path: /o }}\n        table: {{ keys: [id] }}\n        {two}")), @"
    landfall.yml:2:1: shop.orders and shop.items share one contract file
      hint: give each its own
    ");
}

#[test]
fn the_examples_of_the_readme_are_read_without_a_problem() {
    let readme = include_str!("../../../README.md");
    let blocks = readme
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    let files: Vec<&str> = blocks.filter(|block| block.contains("sources:")).collect();
    assert_eq!(files.len(), 3);
    for file in files {
        let loaded = read(file).map_err(|problems| shown(&problems)).unwrap();
        assert_eq!(shown(&loaded.warnings), "");
    }
}
