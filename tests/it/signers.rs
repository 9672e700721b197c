//! Webhooks that are signed by the libraries of their senders, verified as the settings of a project say.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use landfall::{
    clock::Timestamp,
    config::read::parse,
    receive::signature::{Verified, Verifier, refusal::Refusal},
};
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};
use serde_json::{Value, json};

use crate::support::python::{node_modules, venv_signers};

/// 23 November 2026.
const NOW: i64 = 1_795_392_000;

/// Bodies that each library signs.
const BODIES: usize = 60;

const ID: &str = "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const SEED: &str = "VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk=";

const HMAC_SHA1: &str = "scheme: hmac, header: X-Signature, algorithm: sha1";
const HMAC_SHA512: &str = "scheme: hmac, header: X-Signature, algorithm: sha512, encoding: base64, prefix: 'sig=', \
                           timestamp: X-Timestamp, timestamp_format: milliseconds, \
                           signed: '{header:X-Id}:{timestamp}:{body}', event_id: 'header:X-Id'";

/// What a library signed.
struct Signed {
    headers: HeaderMap,
    body: Vec<u8>,
}

/// Signs every body with `signer`.
fn sign(mut program: Command, signer: &str, secret: &str, bodies: &[Vec<u8>]) -> Vec<Signed> {
    let mut child = program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = String::new();
    for body in bodies {
        let body = STANDARD.encode(body);
        let one = json!({ "signer": signer, "secret": secret, "id": ID, "timestamp": NOW, "body": body });
        lines.push_str(&format!("{one}\n"));
    }
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{signer}");
    let answers = String::from_utf8(output.stdout).unwrap();
    let signed: Vec<Signed> = answers
        .lines()
        .zip(bodies)
        .map(|(line, body)| {
            let answer: Value = serde_json::from_str(line).unwrap();
            let headers = answer["headers"].as_object().unwrap();
            let headers = headers.iter().map(|(name, value)| {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                (name, HeaderValue::from_str(value.as_str().unwrap()).unwrap())
            });
            Signed {
                headers: headers.collect(),
                body: body.clone(),
            }
        })
        .collect();
    assert_eq!(signed.len(), bodies.len(), "{signer}");
    signed
}

/// What a project with this webhook verifies requests with.
fn verifier(webhook: &str, secret: &str) -> Verifier {
    let text = format!(
        "lake: ./lake
sources:
  shop:
    base_url: https://shop.example
    streams:
      orders:
        request: {{ path: /orders }}
        table: {{ keys: [id] }}
        webhook: {{ {webhook}, secrets: {{ theirs: '{secret}' }} }}
"
    );
    let project = parse(&text, Path::new("/srv/shop")).unwrap().project;
    Verifier::open(project.sources[0].streams[0].webhook.as_ref().unwrap()).unwrap()
}

fn received(verifier: &Verifier, signed: &Signed) -> Result<Verified, Refusal> {
    let now = Timestamp::from_timestamp(NOW + 1, 0).unwrap();
    let proof = verifier.verify(&signed.headers, &signed.body, now)?;
    verifier.read(proof, &signed.headers, &signed.body)
}

/// Asserts that everything is believed as it was signed, and nothing otherwise.
fn check(signer: &str, webhook: &str, secrets: [&str; 2], signed: Vec<Signed>) {
    let [theirs, other] = secrets.map(|secret| verifier(webhook, secret));
    for one in signed {
        let verified = received(&theirs, &one).unwrap_or_else(|refusal| {
            panic!("{signer}: {refusal}: {:?}", String::from_utf8_lossy(&one.body));
        });
        assert_eq!(verified.key.unwrap().as_str(), "theirs", "{signer}");
        assert_eq!(received(&other, &one).unwrap_err(), Refusal::Mismatch, "{signer}");
        let altered = Signed {
            body: [&one.body, b" ".as_slice()].concat(),
            ..one
        };
        assert_eq!(
            received(&theirs, &altered).unwrap_err(),
            Refusal::Mismatch,
            "{signer}"
        );
    }
}

/// Bodies of any text, the same in every run.
fn texts() -> Vec<Vec<u8>> {
    let mut runner = TestRunner::deterministic();
    let any = "(?s:.){0,300}";
    let mut texts: Vec<Vec<u8>> = (0..BODIES)
        .map(|_| any.new_tree(&mut runner).unwrap().current().into_bytes())
        .collect();
    texts.push(Vec::new());
    texts.push("{\"name\": \"Zoë 👋\"}\r\n".into());
    texts.push(format!("[{}1]", "1, ".repeat(30_000)).into_bytes());
    texts
}

/// As [`texts`], and of any bytes.
fn bytes() -> Vec<Vec<u8>> {
    let flipped = |text: Vec<u8>| text.into_iter().map(|byte| byte ^ 0xff).collect();
    texts()
        .into_iter()
        .chain(texts().into_iter().map(flipped))
        .collect()
}

fn support(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/support")
        .join(script)
}

#[test]
fn what_the_libraries_of_python_sign_is_believed() {
    for (signer, webhook, bodies) in [
        ("standardwebhooks", "scheme: standard_webhooks", texts()),
        ("svix", "scheme: standard_webhooks", texts()),
        ("stripe", "scheme: stripe", texts()),
        ("slack", "scheme: slack", texts()),
        ("github", "scheme: github", bytes()),
        ("shopify", "scheme: shopify", bytes()),
        ("hmac_sha1", HMAC_SHA1, bytes()),
        ("hmac_sha512", HMAC_SHA512, bytes()),
    ] {
        let mut program = Command::new(venv_signers().join("bin/python"));
        program.arg(support("signers.py"));
        let signed = sign(program, signer, SECRET, &bodies);
        check(signer, webhook, [SECRET, OTHER], signed);
    }
}

#[test]
fn what_the_libraries_of_node_sign_is_believed() {
    let packages = ["svix@1.99.1", "@octokit/webhooks-methods@6.0.0", "stripe@23.1.0"].map(node_modules);
    let node = || {
        let mut program = Command::new("node");
        program.arg(support("signers.mjs")).args(&packages);
        program
    };
    for (signer, webhook) in [
        ("svix", "scheme: standard_webhooks"),
        // GitHub sends no empty body, and its library signs none.
        ("octokit", "scheme: github"),
        ("stripe", "scheme: stripe"),
    ] {
        let mut bodies = texts();
        bodies.retain(|body| !body.is_empty() || signer != "octokit");
        let signed = sign(node(), signer, SECRET, &bodies);
        check(signer, webhook, [SECRET, OTHER], signed);
    }
    let signed = sign(node(), "ed25519", SEED, &bytes());
    let key = format!("whpk_{}", signed[0].headers["x-public-key"].to_str().unwrap());
    check("ed25519", "scheme: standard_webhooks", [&key, OTHER], signed);
}
