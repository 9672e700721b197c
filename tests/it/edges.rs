//! Webhooks that should not count, or not again: old, altered, unreadable and repeated ones, in every scheme that signs.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::{
    hooks::{SCHEMES, every_scheme, hook, now, project, raw, send, signed},
    project::ITEMS_CONTRACT,
    serving::Server,
};

/// Those whose signatures say when they were made.
const DATED: [&str; 4] = ["standard", "stripe", "slack", "described"];

/// How far from now a signature is good.
const TOLERANCE_SECONDS: i64 = 300;

fn gzipped(body: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn f083_what_was_signed_too_long_ago_or_in_the_future_is_refused_and_what_says_no_time_is_known_by_its_id()
 {
    let (project, _) = project(&every_scheme());
    let server = Server::start(&project);
    let mut kept = Vec::new();
    for (scheme, _) in SCHEMES {
        let body = json!({"id": 1, "event_id": "e1", "scheme": scheme}).to_string();
        let is_dated = DATED.contains(&scheme);
        for off in [-TOLERANCE_SECONDS - 100, TOLERANCE_SECONDS + 100] {
            let headers = signed(scheme, "old", now() + off, body.as_bytes());
            let (status, problem) = send(&server, scheme, &headers, body.as_str()).await;
            if is_dated {
                assert_eq!(
                    (status, &problem["code"]),
                    (401, &json!("signature_invalid")),
                    "{scheme} {off}"
                );
            } else {
                // It is the same request, whenever it comes: taken once.
                assert_eq!(
                    (status, &problem["duplicate"]),
                    (200, &json!(off > 0)),
                    "{scheme} {off}"
                );
            }
        }
        if is_dated {
            // As late as senders may be.
            let headers = signed(scheme, "old", now() - TOLERANCE_SECONDS + 100, body.as_bytes());
            let (status, answer) = send(&server, scheme, &headers, body.as_str()).await;
            assert_eq!((status, &answer["duplicate"]), (200, &json!(false)), "{scheme}");
        }
        kept.push((scheme, body));
    }
    server.stop();

    // Somebody who has read the request sends it again much later, to a server that was begun anew.
    let server = Server::start(&project);
    for (scheme, body) in &kept {
        let headers = signed(scheme, "old", now(), body.as_bytes());
        let (status, answer) = send(&server, scheme, &headers, body.as_str()).await;
        assert_eq!((status, &answer["duplicate"]), (200, &json!(true)), "{scheme}");
    }
    server.stop();
    for (scheme, body) in &kept {
        assert_eq!(raw(&project, scheme), [body.as_str()], "{scheme}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f084_an_altered_body_is_refused_before_anything_is_decoded_and_nothing_of_it_is_in_raw() {
    let (project, _) = project(&every_scheme());
    let server = Server::start(&project);
    for (scheme, _) in SCHEMES {
        let body = format!("{{\"id\":1,\"event_id\":\"e1\",\"name\":\"Zo\u{eb} {scheme}\"}}");
        let packed = gzipped(body.as_bytes(), 9);
        let of_body = signed(scheme, "first", now(), body.as_bytes());
        let of_packed = signed(scheme, "second", now(), &packed);
        let coded = |headers: &[(&'static str, String)]| {
            [headers, &[("content-encoding", "gzip".to_owned())]].concat()
        };
        let latin1: Vec<u8> = body.chars().map(|letter| u32::from(letter) as u8).collect();
        let utf16: Vec<u8> = body.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut flipped = body.clone().into_bytes();
        flipped[6] ^= 1;
        let parsed: Value = serde_json::from_str(&body).unwrap();
        let charset = |headers: &[(&'static str, String)], name: &str| {
            let media = format!("application/json; charset={name}");
            [headers, &[("content-type", media)]].concat()
        };
        for (case, headers, altered) in [
            ("one byte", of_body.clone(), flipped),
            (
                "serialised again",
                of_body.clone(),
                format!("{parsed:#}").into_bytes(),
            ),
            (
                "a line end more",
                of_body.clone(),
                [body.as_bytes(), b"\n"].concat(),
            ),
            ("cut", of_body.clone(), body.as_bytes()[..body.len() - 1].to_vec()),
            ("another charset", charset(&of_body, "iso-8859-1"), latin1),
            ("wide letters", charset(&of_body, "utf-16le"), utf16),
            ("packed on the way", coded(&of_body), gzipped(body.as_bytes(), 9)),
            ("packed again", coded(&of_packed), gzipped(body.as_bytes(), 1)),
            (
                "unpacked on the way",
                of_packed.clone(),
                body.clone().into_bytes(),
            ),
        ] {
            let (status, problem) = send(&server, scheme, &headers, altered).await;
            assert_eq!(
                (status, &problem["code"]),
                (401, &json!("signature_invalid")),
                "{scheme}: {case}"
            );
        }
        // The signatures are good of the bytes that were signed.
        let (status, _) = send(&server, scheme, &coded(&of_packed), packed).await;
        assert_eq!(status, 200, "{scheme}");
    }
    server.stop();
    for (scheme, _) in SCHEMES {
        let expected = format!("{{\"id\":1,\"event_id\":\"e1\",\"name\":\"Zo\u{eb} {scheme}\"}}");
        assert_eq!(raw(&project, scheme), [expected], "{scheme}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn f088_a_body_that_is_no_text_is_verified_by_its_bytes_and_then_the_policy_of_its_stream_holds() {
    let policies = ["accept", "tag", "reject"];
    let streams: String = policies
        .iter()
        .flat_map(|word| SCHEMES.map(|(name, settings)| (word, name, settings)))
        .map(|(word, name, settings)| {
            hook(
                &format!("{name}_{word}"),
                settings,
                &format!(", on_violation: {word}"),
            )
        })
        .collect();
    let (project, _) = project(&streams);
    for word in policies {
        for (name, _) in SCHEMES {
            project.write(
                &format!("contracts/shop.{name}_{word}.odcs.yaml"),
                &ITEMS_CONTRACT.replace("shop.items", &format!("shop.{name}_{word}")),
            );
        }
    }
    let server = Server::start(&project);
    let body = b"{\"id\":1,\"event_id\":\"e1\",\"updated\":1,\"name\":\"\xff\xfe\"}";
    for (scheme, _) in SCHEMES {
        for word in policies {
            let stream = format!("{scheme}_{word}");
            // Signed as if it were text with marks in place of what is none.
            let lossy = String::from_utf8_lossy(body).into_owned();
            let headers = signed(scheme, "lossy", now(), lossy.as_bytes());
            let (status, _) = send(&server, &stream, &headers, *body).await;
            assert_eq!(status, 401, "{stream}");

            let headers = signed(scheme, "bytes", now(), body);
            let (status, answer) = send(&server, &stream, &headers, *body).await;
            match word {
                "reject" => assert_eq!(
                    (status, &answer["code"]),
                    (422, &json!("contract_violation")),
                    "{stream}"
                ),
                _ => assert_eq!(
                    (status, answer["tagged"].as_u64().unwrap_or(0)),
                    (200, u64::from(word == "tag")),
                    "{stream}: {answer}"
                ),
            }
        }
    }
    server.stop();
    project.ok(&["run", "--max-quarantine", "100"]);
    let aside = project.sql(
        "SELECT source || '.' || stream AS stream, class, record_bytes FROM landfall.quarantine ORDER BY stream",
    );
    let aside: Vec<(&str, &str, u64)> = aside
        .iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap();
            (
                text("stream"),
                text("class"),
                row["record_bytes"].as_u64().unwrap(),
            )
        })
        .collect();
    let mut expected: Vec<String> = SCHEMES
        .iter()
        .flat_map(|(scheme, _)| ["accept", "tag"].map(|word| format!("shop.{scheme}_{word}")))
        .collect();
    expected.sort();
    let expected: Vec<(&str, &str, u64)> = expected
        .iter()
        .map(|stream| (stream.as_str(), "not_json", body.len() as u64))
        .collect();
    assert_eq!(aside, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn r077_r169_a_webhook_that_is_sent_again_and_again_is_one_row() {
    let (project, _) = project(&every_scheme());
    let retried = async |server: &Server, times: usize| {
        for (scheme, _) in SCHEMES {
            let body = json!({"id": 7, "event_id": "e7", "scheme": scheme}).to_string();
            // Retries are signed anew, and come side by side when the sender lost its patience.
            let sending = (0..times).map(|number| {
                let mut headers = signed(scheme, "retried", now() - number as i64, body.as_bytes());
                if scheme == "slack" {
                    headers.push(("x-slack-retry-num", number.to_string()));
                }
                let body = body.clone();
                async move { send(server, scheme, &headers, body).await }
            });
            for (status, answer) in join_all(sending).await {
                assert_eq!(status, 200, "{scheme}: {answer}");
            }
        }
    };
    let server = Server::start(&project);
    retried(&server, 5).await;
    // It dies before it could end in order, and the senders go on.
    server.signal("KILL");
    assert_eq!(server.end().0, None);
    let server = Server::start(&project);
    retried(&server, 3).await;
    server.stop();
    project.ok(&["run"]);
    for (scheme, _) in SCHEMES {
        assert_eq!(raw(&project, scheme).len(), 1, "{scheme}");
        let rows = project.rows(&format!("shop.{scheme}"));
        assert_eq!(
            rows,
            [json!({"id": 7, "event_id": "e7", "scheme": scheme})],
            "{scheme}"
        );
    }
    project.ok(&["verify"]);
}
