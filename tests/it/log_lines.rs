//! What is logged of what others send: a line for an event, and nothing in it that does anything.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    answers::{Answer, Answers},
    hooks::{SCHEMES, answered, every_scheme, now, project, send, signed},
    project::{ITEMS_CONTRACT, TestProject},
    serving::Server,
};

/// Longest log line that a request or a record can cause.
const LOG_LINE_BYTES_MAX: usize = 16 << 10;

/// What a terminal or a reader of lines would obey.
const HOSTILE: &str =
    "x\r\n{\"level\":\"ERROR\"}\r\nproducers http://evil.example\u{1b}[2J\u{1b}]0;owned\u{7}\u{85}\u{2028}";

/// Sends `request` as it is and returns the beginning of what is answered.
fn told(server: &Server, request: &[u8]) -> String {
    let address = server.producers.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // A server that has heard enough closes while more is being sent.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while let Ok(read) = stream.read(&mut part) {
        answer.extend_from_slice(&part[..read]);
        if read == 0 || answer.windows(4).any(|four| four == b"\r\n\r\n") {
            break;
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Asserts that `lines` are log lines and words of the program, and nothing that a sender wrote for them.
fn check_lines(lines: &str, is_json: bool) {
    let mut logged = 0;
    for line in lines.lines() {
        let shown: String = line.chars().take(300).collect();
        assert!(line.len() <= LOG_LINE_BYTES_MAX, "{} bytes: {shown}", line.len());
        assert!(!line.contains(|letter: char| letter.is_control()), "{shown:?}");
        assert!(!line.starts_with("producers http://evil"), "{shown}");
        if is_json && line.starts_with('{') {
            let parsed: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{shown}"));
            assert!(parsed["timestamp"].is_string(), "{shown}");
            logged += 1;
        }
        if !is_json && line.starts_with("20") {
            logged += 1;
        }
    }
    assert!(logged > 3, "{lines}");
}

#[tokio::test(flavor = "multi_thread")]
async fn f156_nothing_that_is_sent_makes_log_lines_of_its_own_or_long_ones() {
    let streams = format!(
        "      items: {{ push: {{ on_violation: tag, bytes_max: 8MiB, record_bytes_max: 4MiB }}, table: {{ keys: [id] }} }}\n{}",
        every_scheme()
    );
    let (project, token) = project(&streams);
    let server = Server::start_with(&project, &["-vv", "--log-format", "json", "serve"]);
    let client = reqwest::Client::new();
    let long = "x".repeat(1 << 20);
    let records = format!("{}/v1/streams/shop/items/records", server.producers);

    // In records: names and values, and the first bodies of many kinds.
    let mut hostile = json!({"id": 1, "updated": 1, "name": HOSTILE});
    hostile[HOSTILE] = HOSTILE.into();
    hostile[long.as_str()] = long.as_str().into();
    hostile["deep"][HOSTILE] = json!([{HOSTILE: long}]);
    for (media, body) in [
        ("application/json", hostile.to_string()),
        (
            "application/x-ndjson",
            format!("{hostile}\n{{\"id\": {HOSTILE}\n"),
        ),
        ("application/json", HOSTILE.to_owned()),
        ("text/x\u{e9}; level=\"ERROR\"", "{}".to_owned()),
    ] {
        let media = media
            .chars()
            .map(|letter| u32::from(letter) as u8)
            .collect::<Vec<_>>();
        let request = client.post(&records).bearer_auth(&token);
        let (status, _) = answered(request.header("content-type", media).body(body)).await;
        assert!([202, 400, 415, 422].contains(&status), "{status}");
    }
    // In paths and queries.
    let escaped = "x%0d%0aproducers%20http://evil%1b%5b2J%00%e2%80%a8";
    for path in [
        format!("/v1/streams/shop/{escaped}/records"),
        format!("/v1/webhooks/{escaped}/{escaped}"),
        format!("/v1/receipts/{escaped}?cursor={escaped}"),
        format!("/v1/streams/shop/items/records?mode={escaped}"),
        format!("/{}", "y".repeat(7_000)),
    ] {
        for method in [reqwest::Method::GET, reqwest::Method::POST] {
            let request = client.request(method, format!("{}{path}", server.producers));
            let (status, _) = answered(request.bearer_auth(&token).body("{}")).await;
            assert!((400..500).contains(&status), "{path}: {status}");
        }
    }
    // In headers, as far as HTTP lets them through, and further.
    let body = json!({"id": 1, "event_id": "e1", HOSTILE: {HOSTILE: HOSTILE}}).to_string();
    for (scheme, _) in SCHEMES {
        let mut headers = signed(scheme, "\u{e9}vil\tid", now(), body.as_bytes());
        for name in ["user-agent", "x-request-id", "traceparent", "idempotency-key"] {
            headers.push((name, "x\t{\"level\":\"ERROR\"}\t\u{e9}".to_owned()));
        }
        let (status, _) = send(&server, scheme, &headers, body.as_str()).await;
        assert!([200, 401].contains(&status), "{scheme}: {status}");
        headers[0].1 = format!("x{}", "\u{e9}".repeat(2_000));
        let (status, _) = send(&server, scheme, &headers, body.as_str()).await;
        assert_eq!(status, 401, "{scheme}");
    }
    for header in [
        "X-Request-Id: a\u{1b}[2J",
        "X-Request-Id: a\rlevel",
        "Authorization: Bearer \u{1b}]0;owned\u{7}",
        &format!("X-Long: {long}"),
    ] {
        let request = format!("POST /v1/streams/shop/items/records HTTP/1.1\r\nHost: a\r\n{header}\r\n\r\n");
        let answer = told(&server, request.as_bytes());
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let request = format!("GET /{HOSTILE} HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = told(&server, request.as_bytes());
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");

    let said = server.stop();
    check_lines(&said, true);
    let audit = fs::read_to_string(project.path().join("audit.jsonl")).unwrap();
    for line in audit.lines() {
        assert!(line.len() <= LOG_LINE_BYTES_MAX, "{line}");
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(event["request_id"].is_string(), "{line}");
    }
    assert!(audit.lines().count() > 10, "{audit}");

    // The same records as the load sees them, for programs and for people.
    project.write("contracts/shop.items.odcs.yaml", ITEMS_CONTRACT);
    let ran = project.ok(&[
        "-vv",
        "--log-format",
        "json",
        "transform",
        "shop.items",
        "--max-quarantine",
        "100",
    ]);
    check_lines(&ran.stderr, true);
    let ran = project.ok(&["-vv", "transform", "--max-quarantine", "100"]);
    check_lines(&ran.stderr, false);
    // Contracts were drafted of what no contract described.
    let contracts = fs::read_dir(project.path().join("contracts")).unwrap();
    assert!(contracts.count() > 1);
    for arguments in [&["drift"][..], &["quarantine", "list"], &["status"]] {
        let shown = project.ok(arguments).stdout;
        let is_odd = |letter: char| letter.is_control() && letter != '\n';
        assert!(!shown.contains(is_odd), "{arguments:?}: {shown}");
    }
}

#[test]
fn f156_what_an_api_answers_makes_no_log_lines_of_its_own() {
    let api = Answers::start(|asked| {
        match asked.number {
        0 => Answer {
            status: 200,
            headers: vec![("content-type", "application/json".to_owned())],
            body: json!({"data": [{"id": 1, "updated": 1, "name": HOSTILE, HOSTILE: "x".repeat(1 << 20)}], "next": HOSTILE})
                .to_string()
                .into_bytes(),
        },
        _ => Answer {
            status: 400,
            headers: vec![
                ("content-type", "application/problem+json".to_owned()),
                ("x-odd", "a\tb".to_owned()),
            ],
            body: json!({"title": HOSTILE, "detail": "y".repeat(1 << 20), "message": HOSTILE})
                .to_string()
                .into_bytes(),
        },
    }
    });
    let project = TestProject::items(&api.base_url);
    for format in ["json", "text"] {
        let ran = project.run(&["-vv", "--log-format", format, "run"]);
        for line in ran.stderr.lines() {
            let shown: String = line.chars().take(300).collect();
            assert!(line.len() <= LOG_LINE_BYTES_MAX, "{shown}");
            assert!(!line.contains(|letter: char| letter.is_control()), "{shown:?}");
            assert!(!line.starts_with("producers http://evil"), "{shown}");
        }
        assert_ne!(ran.code, None, "{}", ran.stderr);
    }
}
