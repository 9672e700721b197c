use std::{
    collections::VecDeque,
    io::{self, Read},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    response::IntoResponse as _,
};
use proptest::prelude::*;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    batch::{Batch, BatchLimits, Batcher, Form},
    client::{Client, Credential, Mode, Options},
    coding::Coding,
    key::{Place, key},
    producer::Producer,
    records::{Fault, Records},
    retry::{Decision, Outcome, Retry, decide, pace},
    signature::Signature,
};
use crate::{clock::Timestamp, error::ErrorKind};

#[test]
fn r078_the_same_body_at_the_same_place_has_the_same_key_in_every_version() {
    let key =
        |origin, number, body: &[u8]| key(&"shop.orders".parse().unwrap(), Place { origin, number }, body);
    // Made by hand: SHA-1 of the namespace, the parts with their lengths, the number and the SHA-256 of the body.
    assert_eq!(
        key("orders.jsonl", 0, b"{\"id\":1}"),
        "8735ce8c-43d8-599e-8270-c85f607d1c8d"
    );
    assert_eq!(
        key("orders.jsonl", 1, b"{\"id\":1}"),
        "2a5079ee-6d39-57d6-a63f-8ca7105acb25"
    );
    assert_eq!(key("", 0, b""), "cf4f937c-47c1-5e94-a7af-937711377c50");
}

#[test]
fn a_batch_says_its_key_whatever_packs_it() {
    let body = Bytes::from("{\"id\":1}\n".repeat(1_000));
    for coding in [Coding::Gzip, Coding::Zstd] {
        let (packed, used) = coding.pack(&body).unwrap();
        assert!(used == coding && packed.len() * 10 < body.len(), "{coding:?}");
    }
    let (short, used) = Coding::Zstd.pack(&Bytes::from_static(b"{}")).unwrap();
    assert_eq!((short.as_ref(), used), (&b"{}"[..], Coding::Identity));
}

#[test]
fn standard_webhooks_are_signed_as_the_standard_says() {
    // The vector of the specification's own libraries.
    let signature = Signature::standard_webhooks("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let at = Timestamp::from_timestamp(1_614_265_330, 0).unwrap();
    let headers = signature.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", at, b"{\"test\": 2432232314}");
    assert_eq!(
        headers[2],
        (
            "webhook-signature".to_owned(),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=".to_owned()
        )
    );
    let error = Signature::standard_webhooks("whsec_%%").unwrap_err();
    assert!(!format!("{error:?} {signature:?}").contains("%%"));
}

#[test]
fn waits_are_what_the_server_asks_for_and_jitter_on_top() {
    let retry = Retry {
        attempts_max: 4,
        backoff_start: Duration::from_secs(1),
        backoff_max: Duration::from_secs(3),
    };
    let now = Timestamp::from_timestamp(1_795_309_506, 0).unwrap();
    let asked = |status, retryable, headers: &[(&'static str, &str)], attempt| {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::try_from(*value).unwrap());
        }
        let outcome = Outcome::Answered {
            status,
            retryable,
            headers: &map,
        };
        decide(&retry, &outcome, attempt, now, 0.5)
    };
    let wait = |milliseconds| Decision::Wait(Duration::from_millis(milliseconds));
    assert_eq!(asked(202, None, &[], 1), Decision::Done);
    assert_eq!(asked(400, None, &[], 1), Decision::Done);
    assert_eq!(asked(503, None, &[], 1), wait(500));
    assert_eq!(asked(503, None, &[], 2), wait(1_000));
    assert_eq!(asked(503, None, &[], 3), wait(1_500));
    assert_eq!(asked(503, None, &[], 4), Decision::GiveUp);
    assert_eq!(asked(503, Some(false), &[], 1), Decision::Done);
    assert_eq!(asked(409, Some(true), &[], 1), wait(500));
    assert_eq!(asked(429, None, &[("retry-after", "7")], 1), wait(7_500));
    assert_eq!(
        asked(429, None, &[("retry-after", "Sun, 22 Nov 2026 01:05:16 GMT")], 1),
        wait(10_500)
    );
    assert_eq!(asked(429, None, &[("retry-after", "soon")], 1), wait(500));
    let limits = [
        ("ratelimit", "\"producer\";r=0;t=6, \"bytes\";r=5;t=60"),
        ("ratelimit", "\"more\";r=0"),
    ];
    assert_eq!(asked(429, None, &limits, 1), wait(6_500));
    assert_eq!(decide(&retry, &Outcome::Lost, 1, now, 1.0), wait(1_000));
    let mut headers = HeaderMap::new();
    headers.insert("ratelimit", HeaderValue::from_static("\"producer\";r=1;t=6"));
    assert_eq!(pace(&headers), Duration::ZERO);
    headers.insert("ratelimit", HeaderValue::from_static("\"producer\";r=0;t=6"));
    assert_eq!(pace(&headers), Duration::from_secs(1));
}

/// Gives a few bytes at a time.
struct Dripping<'a>(&'a [u8], usize);

impl Read for Dripping<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (now, rest) = self.0.split_at(self.1.min(buffer.len()).min(self.0.len()));
        buffer[..now.len()].copy_from_slice(now);
        self.0 = rest;
        Ok(now.len())
    }
}

/// The bytes of a record, where it begins, and why it is not sent.
type Found = (Vec<u8>, u64, Option<Fault>);

/// Every record of `file`, with where it stands and why it is not sent; and whether all of it could be read.
fn all(file: &[u8], step: usize, most: usize) -> (Vec<Found>, bool) {
    let mut records = Records::new(Dripping(file, step), most);
    let mut found = Vec::new();
    loop {
        let (start, end) = match records.next_record() {
            Ok(None) => return (found, true),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                return (found, false);
            }
            Ok(Some(record)) => {
                found.push((record.bytes.to_vec(), record.start, record.fault));
                (record.start, record.end)
            }
        };
        assert!(start <= end && end <= file.len() as u64);
        let before = Sha256::digest(&file[..usize::try_from(end).unwrap()]);
        let half: String = before[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((records.position().end, records.position().digest()), (end, half));
    }
}

#[test]
fn lines_and_arrays_are_told_apart_and_what_cannot_be_sent_is_named() {
    let faults = |file: &str| {
        let (found, whole) = all(file.as_bytes(), 3, 20);
        let faults: Vec<_> = found.iter().map(|(_, _, fault)| fault.map(Fault::code)).collect();
        (faults, whole)
    };
    assert_eq!(
        faults("\u{feff}{\"a\":1}\r\n\n {\"a\":\n7\n{\"a\":\"0123456789012345\"}"),
        (
            vec![None, Some("not_json"), Some("not_an_object"), Some("too_large")],
            true
        )
    );
    assert_eq!(
        faults(" [ {\"a\":\"]},\\\"\"} ,\n[1,{}], \"a b\" ]\n"),
        (vec![None, Some("not_an_object"), Some("not_an_object")], true)
    );
    assert_eq!(faults("[]"), (vec![], true));
    assert_eq!(faults(""), (vec![], true));
    for broken in ["[{}", "[{} {}]", "[{},]", "[{}] {}", "[,]", "[{}"] {
        assert!(!faults(broken).1, "{broken}");
    }
    let (found, _) = all(b"[{\"a\":1},{\"b\":2}]", 2, 20);
    assert_eq!(found[1], (b"{\"b\":2}".to_vec(), 9, None));
}

proptest! {
    #[test]
    fn records_are_the_same_however_they_are_written_and_read(
        values in prop::collection::vec("[a-z\\]\\[{},: \"\\\\é]{0,12}", 0..12),
        blanks in prop::collection::vec("[ \n\r\t]{0,3}", 13),
        step in 1_usize..40,
    ) {
        let records: Vec<String> = values.iter().map(|text| json!({"a": text, "b": [text]}).to_string()).collect();
        let expected: Vec<Vec<u8>> = records.iter().map(|record| record.clone().into_bytes()).collect();
        let bytes = |(found, whole): (Vec<Found>, bool)| {
            assert!(whole && found.iter().all(|(_, _, fault)| fault.is_none()), "{found:?}");
            found.into_iter().map(|(bytes, ..)| bytes).collect::<Vec<_>>()
        };
        let lines: String = records.iter().zip(&blanks).map(|(record, blank)| format!("{blank}{record}\n")).collect();
        prop_assert_eq!(&bytes(all(lines.as_bytes(), step, 1 << 20)), &expected);
        let array = records.iter().zip(&blanks).map(|(record, blank)| format!("{blank}{record}{blank}"));
        let array = format!("[{}{}]", array.collect::<Vec<_>>().join(","), blanks[12]);
        prop_assert_eq!(&bytes(all(array.as_bytes(), step, 1 << 20)), &expected);
    }

    #[test]
    fn any_bytes_are_records_or_named_as_none(file in prop::collection::vec(any::<u8>(), 0..200), step in 1_usize..9) {
        all(&file, step, 16);
    }

    #[test]
    fn text_made_of_the_grammars_own_characters_does_not_panic(file in "[\\[\\]{}\",\\\\ \n1a]{0,60}", step in 1_usize..9) {
        all(file.as_bytes(), step, 16);
    }

    #[test]
    fn batches_hold_every_record_once_within_their_limits(
        sizes in prop::collection::vec(1_usize..60, 0..60),
        records_max in 1_u64..10,
        bytes_max in 1_usize..200,
        array in any::<bool>(),
    ) {
        let form = if array { Form::Array } else { Form::Lines };
        let mut batcher = Batcher::new(form, BatchLimits { records_max, bytes_max });
        let mut batches = Vec::new();
        for size in &sizes {
            let record = format!("\"{}\"", "x".repeat(*size));
            if !batcher.has_room(record.len()) {
                batches.push(batcher.take());
            }
            batcher.put(record.as_bytes());
        }
        batches.push(batcher.take());
        let mut found = Vec::new();
        for batch in batches.iter().filter(|batch| !batch.is_empty()) {
            prop_assert!(batch.len() as u64 <= records_max);
            prop_assert!(batch.body().len() <= bytes_max || batch.len() == 1);
            let texts: Vec<String> = match form {
                Form::Array => serde_json::from_slice(batch.body()).unwrap(),
                Form::Lines => batch.body().split(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect(),
            };
            prop_assert_eq!(texts.len(), batch.len());
            found.extend(texts.iter().map(String::len));
        }
        prop_assert_eq!(found, sizes);
    }
}

/// An answer that was written down before.
type Scripted = (u16, &'static [(&'static str, &'static str)], Value);

/// What a server was asked.
#[derive(Clone, Debug)]
struct Asked {
    uri: String,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Clone, Default)]
struct Script(Arc<Mutex<(VecDeque<Scripted>, Vec<Asked>)>>);

impl Script {
    fn asked(&self) -> Vec<Asked> {
        self.0.lock().unwrap().1.clone()
    }
}

async fn answer(
    State(script): State<Script>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> axum::response::Response {
    let mut script = script.0.lock().unwrap();
    script.1.push(Asked {
        uri: uri.to_string(),
        headers,
        body,
    });
    let (status, headers, body) = script.0.pop_front().unwrap();
    let mut response = (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response();
    response.headers_mut().remove("content-type");
    for (name, value) in headers {
        response
            .headers_mut()
            .insert(*name, HeaderValue::from_static(value));
    }
    response
}

async fn scripted(answers: Vec<Scripted>) -> (Script, Options) {
    let script = Script::default();
    script.0.lock().unwrap().0.extend(answers);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/base", listener.local_addr().unwrap());
    let router = Router::new().fallback(answer).with_state(script.clone());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let options = Options {
        retry: Retry {
            backoff_start: Duration::from_millis(1),
            ..Retry::USUAL
        },
        ..Options::usual(url, Credential::of("lf_secret"))
    };
    (script, options)
}

fn batch(ids: std::ops::Range<u64>) -> Batch {
    let mut batcher = Batcher::new(Form::Lines, BatchLimits::USUAL);
    ids.for_each(|id| batcher.put(json!({"id": id}).to_string().as_bytes()));
    batcher.take()
}

const PROBLEM: &[(&str, &str)] = &[("content-type", "application/problem+json"), ("retry-after", "0")];

#[tokio::test]
async fn a_batch_is_sent_again_under_its_key_and_its_retryable_records_alone() {
    let accepted = |accepted: u64, results: Value| {
        (
            202,
            &[][..],
            json!({"receipt": "r", "records": {"accepted": accepted, "rejected": 0}, "results": results}),
        )
    };
    let (script, options) = scripted(vec![
        (503, PROBLEM, json!({"code": "unavailable", "retryable": true})),
        (429, PROBLEM, json!({})),
        accepted(
            2,
            json!([
                {"index": 1, "code": "busy", "detail": "later", "retryable": true},
                {"index": 2, "code": "not_json", "detail": "never", "retryable": false},
                {"index": 4, "code": "busy", "detail": "later", "retryable": true},
            ]),
        ),
        accepted(
            1,
            json!([{"index": 1, "code": "enum", "detail": "never", "retryable": false}]),
        ),
    ])
    .await;
    let client = Client::new(options).unwrap();
    let target = "shop.orders".parse().unwrap();
    let place = Place {
        origin: "o",
        number: 3,
    };
    let sent = client
        .send(&target, place, &batch(0..5), Mode::Partial)
        .await
        .unwrap();
    assert_eq!(
        (sent.accepted, sent.attempts, sent.receipt.as_deref()),
        (3, 4, Some("r"))
    );
    let refused: Vec<_> = sent
        .refused
        .iter()
        .map(|refused| (refused.index, refused.code.as_str()))
        .collect();
    assert_eq!(refused, [(2, "not_json"), (4, "enum")]);

    let asked = script.asked();
    let header = |asked: &Asked, name: &str| asked.headers[name].to_str().unwrap().to_owned();
    assert!(
        asked
            .iter()
            .all(|asked| asked.uri == "/base/v1/streams/shop/orders/records?mode=partial")
    );
    assert!(
        asked
            .iter()
            .all(|asked| header(asked, "authorization") == "Bearer lf_secret")
    );
    let keys: Vec<_> = asked
        .iter()
        .map(|asked| header(asked, "idempotency-key"))
        .collect();
    assert!(
        keys[0] == keys[1] && keys[1] == keys[2] && keys[2] != keys[3],
        "{keys:?}"
    );
    let attempts: Vec<_> = asked
        .iter()
        .map(|asked| header(asked, "landfall-attempt"))
        .collect();
    assert_eq!(attempts, ["1", "2", "3", "1"]);
    let first: Vec<_> = asked
        .iter()
        .map(|asked| header(asked, "landfall-first-attempt-at"))
        .collect();
    assert!(first[0] == first[2]);
    assert_eq!(asked[3].body.as_ref(), b"{\"id\":1}\n{\"id\":4}");
}

#[tokio::test]
async fn refusals_of_records_are_results_and_others_are_errors() {
    let (_, options) = scripted(vec![
        (
            422,
            PROBLEM,
            json!({"code": "contract_violation", "detail": "d", "retryable": false, "errors": [
                {"pointer": "#/1/id", "detail": "no number", "code": "type_mismatch"},
            ]}),
        ),
        (
            403,
            PROBLEM,
            json!({"code": "forbidden", "detail": "not you", "retryable": false}),
        ),
        (
            422,
            PROBLEM,
            json!({"code": "batch_rejected", "detail": "one is bad", "retryable": false}),
        ),
    ])
    .await;
    let client = Client::new(options).unwrap();
    let target = "shop.orders".parse().unwrap();
    let place = Place {
        origin: "o",
        number: 0,
    };
    let sent = client
        .send(&target, place, &batch(0..2), Mode::Partial)
        .await
        .unwrap();
    let codes: Vec<_> = sent.refused.iter().map(|refused| refused.code.as_str()).collect();
    assert_eq!((sent.accepted, sent.receipt.is_none()), (0, true));
    assert_eq!(codes, ["contract_violation", "type_mismatch"]);
    let error = client
        .send(&target, place, &batch(0..2), Mode::Partial)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(
        error.to_string().contains("not you") && !error.chain().contains("lf_secret"),
        "{error}"
    );
    // None or all of them: none.
    let error = client
        .send(&target, place, &batch(0..2), Mode::Atomic)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("batch_rejected"), "{error}");
}

#[tokio::test]
async fn a_deadline_ends_all_attempts() {
    let (script, mut options) = scripted(vec![(503, &[("retry-after", "60")], json!({}))]).await;
    options.deadline = Duration::from_secs(30);
    let client = Client::new(options).unwrap();
    let place = Place {
        origin: "o",
        number: 0,
    };
    let sent = client
        .send(
            &"shop.orders".parse().unwrap(),
            place,
            &batch(0..1),
            Mode::Partial,
        )
        .await;
    assert_eq!(sent.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(script.asked().len(), 1);
}

#[tokio::test]
async fn a_producer_begun_again_sends_the_same_keys() {
    let accepted = || {
        (
            202,
            &[][..],
            json!({"receipt": "r", "records": {"accepted": 2, "rejected": 0}}),
        )
    };
    let (script, options) = scripted((0..6).map(|_| accepted()).collect()).await;
    let client = Client::new(options).unwrap();
    let limits = BatchLimits {
        records_max: 2,
        bytes_max: 1 << 20,
    };
    for _ in 0..2 {
        let target = "shop.orders".parse().unwrap();
        let mut producer = Producer::new(client.clone(), target, "till-7", Mode::Partial, limits);
        for id in 0..5 {
            producer
                .push(json!({"id": id}).to_string().as_bytes())
                .await
                .unwrap();
        }
        producer.flush().await.unwrap().unwrap();
        assert_eq!(producer.flush().await.unwrap(), None);
        assert_eq!(
            producer.push(b"{\n}").await.unwrap_err().kind(),
            ErrorKind::Config
        );
    }
    let asked = script.asked();
    let keys: Vec<_> = asked
        .iter()
        .map(|asked| asked.headers["idempotency-key"].clone())
        .collect();
    assert_eq!(keys[..3], keys[3..]);
    assert!(keys[0] != keys[1] && keys[1] != keys[2]);
}

#[tokio::test]
async fn a_batch_whose_answer_nobody_waited_for_is_sent_again_under_its_key() {
    let accepted = || {
        let told = json!({"receipt": "r", "records": {"accepted": 1, "rejected": 0}});
        (202, &[][..], told)
    };
    let (script, options) = scripted((0..3).map(|_| accepted()).collect()).await;
    let client = Client::new(options).unwrap();
    let target = "shop.orders".parse().unwrap();
    let mut producer = Producer::new(client, target, "till-7", Mode::Partial, BatchLimits::USUAL);
    producer.push(b"{\"id\":1}").await.unwrap();
    let given_up = tokio::time::timeout(Duration::ZERO, producer.flush()).await;
    assert!(given_up.is_err());
    // The next record waits until the batch before it is answered.
    assert_eq!(producer.push(b"{\"id\":2}").await.unwrap().unwrap().accepted, 1);
    producer.flush().await.unwrap().unwrap();
    let asked = script.asked();
    let (last, first) = asked.split_last().unwrap();
    assert_eq!(last.body, "{\"id\":2}");
    assert!(!first.is_empty());
    for asked in first {
        assert_eq!(asked.body, "{\"id\":1}");
        assert_eq!(
            asked.headers["idempotency-key"],
            first[0].headers["idempotency-key"]
        );
        assert_ne!(asked.headers["idempotency-key"], last.headers["idempotency-key"]);
    }
}

#[test]
fn a_url_with_a_password_is_refused_without_being_repeated() {
    for url in ["https://user:hunter2@host", "ftp://host", "nonsense"] {
        let error = Client::new(Options::usual(url, Credential::None)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(!error.chain().contains("hunter2"));
    }
}
