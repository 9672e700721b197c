//! Bodies too large for memory: the same records, requests and bookmarks, in parts.

use std::{io::Write as _, time::Duration};

use super::server::{Outcome, Server, cursor, extract, extraction, incremental, json, path, source, status};
use crate::{
    config::{
        Source,
        format::{Format, Syntax},
    },
    error::ErrorKind,
    extract::window::Position,
    raw::{
        Bookmark,
        frame::{hex, sha256},
    },
};

/// Records `from..to`, the `t` of each a second after that of the one before.
fn records(from: u64, to: u64) -> String {
    let record = |id: u64| {
        let (minute, second) = (id / 60, id % 60);
        format!(r#"{{"id":{id},"t":"2024-05-01T08:{minute:02}:{second:02}Z","note":"] , [ \" {{"}}"#)
    };
    (from..to).map(record).collect::<Vec<_>>().join(" ,\n ")
}

/// Two pages of forty and three records; the token stands behind the records of the first.
fn two_pages(number: usize) -> String {
    match number {
        0 => format!(
            r#"{{"meta":{{"n":40}},"data":[ {} ],"next":"B"}}"#,
            records(0, 40)
        ),
        _ => format!(r#"{{"data":[{}]}}"#, records(40, 43)),
    }
}

async fn run(part_bytes: u64) -> (Outcome, Vec<String>) {
    let server = Server::start(|number, _| json(&two_pages(number))).await;
    let outcome = extract(&source_of(&server, part_bytes), Bookmark::default()).await;
    (outcome, server.queries())
}

fn source_of(server: &Server, part_bytes: u64) -> Source {
    let mut source = source(&server.url, cursor());
    source.limits.part_bytes = part_bytes;
    source.streams[0].incremental = Some(incremental(Duration::ZERO));
    source
}

/// The bodies of an outcome, parts put together again.
fn whole(outcome: &Outcome) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    let mut open = Vec::new();
    for handed in &outcome.pages {
        open.extend_from_slice(&handed.page.body);
        if handed.position != Position::Part {
            bodies.push(std::mem::take(&mut open));
        }
    }
    assert!(open.is_empty());
    bodies
}

#[tokio::test]
async fn parts_of_any_size_lead_to_the_same_requests_records_and_bookmark() {
    let (expected, queries) = run(1 << 20).await;
    expected.result.as_ref().unwrap();
    assert_eq!(expected.pages.len(), 2);
    for part_bytes in [64, 200, 700, 1000, 2000] {
        let (outcome, parted) = run(part_bytes).await;
        outcome.result.as_ref().unwrap();
        assert!(outcome.pages.len() > 2, "{part_bytes}");
        assert_eq!(parted, queries, "{part_bytes}");
        assert_eq!(whole(&outcome), whole(&expected), "{part_bytes}");
        assert_eq!((outcome.records(), outcome.counts.records), (43, 43));
        assert_eq!(
            (outcome.counts.pages, outcome.counts.bytes),
            (2, expected.counts.bytes)
        );
        let plain = |bookmark: Bookmark| {
            let mut json = serde_json::to_value(&bookmark).unwrap();
            for name in ["last_success_at", "complete_at"] {
                json.as_object_mut().unwrap().remove(name);
            }
            json
        };
        assert_eq!(
            plain(outcome.bookmark()),
            plain(expected.bookmark()),
            "{part_bytes}"
        );
    }
}

#[tokio::test]
async fn nothing_moves_before_the_last_part() {
    let (outcome, _) = run(500).await;
    let first: Vec<_> = outcome
        .pages
        .iter()
        .take_while(|page| page.position == Position::Part)
        .collect();
    assert!(first.len() > 2);
    for (number, handed) in first.iter().enumerate() {
        assert_eq!(handed.bookmark, Bookmark::default());
        let part = handed.page.facts.part.clone().unwrap();
        assert_eq!(
            (part.index as usize, part.last, part.whole_sha256),
            (number, false, None)
        );
        let (start, end) = part.records.unwrap();
        let records = &handed.page.body[start as usize..end as usize];
        assert!(records.starts_with(b"{\"id\":") && records.ends_with(b"}"));
        assert_eq!(part.path.as_deref(), Some("$.data[*]"));
    }
    let last = &outcome.pages[first.len()];
    assert_eq!((last.position.clone(), last.records), (Position::Middle, 40));
    assert_eq!(last.bookmark.window.as_ref().unwrap().next, "B");
    let part = last.page.facts.part.clone().unwrap();
    assert_eq!(part.whole_sha256, Some(hex(&sha256(two_pages(0).as_bytes()))));
    assert!(
        outcome.pages.last().unwrap().page.facts.part.is_none(),
        "a short page is one page"
    );
}

#[tokio::test]
async fn f038_an_encoded_body_is_decoded_on_its_way_to_the_file() {
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    for coding in ["gzip", "zstd"] {
        let server = Server::start(move |number, _| {
            let body = two_pages(number % 2);
            let body = match coding {
                "gzip" => gzip(&body),
                _ => zstd::encode_all(body.as_bytes(), 1).unwrap(),
            };
            status(200, &format!("content-encoding: {coding}\r\n"), &body)
        })
        .await;
        // Shorter than the encoded body, and longer than it.
        for part_bytes in [100, 1500] {
            let outcome = extract(&source_of(&server, part_bytes), Bookmark::default()).await;
            outcome.result.as_ref().unwrap();
            let tail = whole(&outcome).last().unwrap().clone();
            assert!(
                String::from_utf8(tail).unwrap().starts_with(r#"{"data":["#),
                "{coding}"
            );
            assert!(outcome.pages.len() > 2);
        }
    }
}

#[tokio::test]
async fn f039_limits_hold_on_the_way_to_the_file() {
    let zeros = |count: usize| format!(r#"{{"data":[{}]}}"#, "0,".repeat(count) + "0");
    let server = Server::start(move |_, _| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(zeros(1 << 20).as_bytes()).unwrap();
        status(200, "content-encoding: gzip\r\n", &encoder.finish().unwrap())
    })
    .await;
    let mut tight = source_of(&server, 1000);
    tight.limits.page_bytes_max = 1 << 24;
    for (ratio, most, words) in [
        (200, 1 << 24, "per encoded byte"),
        (u64::MAX, 1 << 20, "decoded_too_large"),
    ] {
        tight.limits.decode_ratio_max = ratio;
        tight.limits.page_bytes_max = most;
        let outcome = extract(&tight, Bookmark::default()).await;
        assert!(
            outcome.pages.is_empty() && outcome.error().contains(words),
            "{}",
            outcome.error()
        );
        assert_eq!(outcome.result.unwrap_err().kind(), ErrorKind::Limit);
    }
}

#[tokio::test]
async fn f035_a_body_that_ends_too_soon_is_asked_for_again() {
    let server = Server::start(|number, _| match number {
        0 => {
            let body = two_pages(0);
            let head = format!("HTTP/1.1 200 OK\ncontent-length: {}\n\n", body.len());
            super::server::wire(&head, &body.as_bytes()[..body.len() - 20])
        }
        number => json(&two_pages(number - 1)),
    })
    .await;
    let outcome = extract(&source_of(&server, 500), Bookmark::default()).await;
    outcome.result.as_ref().unwrap();
    assert_eq!((outcome.records(), outcome.counts.retries), (43, 1));
}

#[tokio::test]
async fn a_large_body_that_cannot_be_read_is_landed_as_evidence_without_records() {
    let broken = two_pages(0).replace(r#""id":39,"#, r#""id":39;"#);
    let missing = two_pages(0).replace(r#""data""#, r#""rows""#);
    for (body, words) in [(broken, "not JSON at byte"), (missing, "records path missing")] {
        let answer = body.clone();
        let server = Server::start(move |_, _| json(&answer)).await;
        let outcome = extract(&source_of(&server, 1000), Bookmark::default()).await;
        assert!(outcome.error().contains(words), "{}", outcome.error());
        assert_eq!(whole(&outcome), [body.as_bytes()]);
        let last = outcome.pages.last().unwrap();
        assert!(matches!(last.position, Position::Evidence(_)));
        assert!(outcome.pages.iter().all(|handed| {
            let part = handed.page.facts.part.as_ref().unwrap();
            part.records.is_none() && handed.bookmark.window.is_none() && handed.bookmark.watermark.is_none()
        }));
    }
}

#[tokio::test]
async fn lines_are_cut_between_lines() {
    let lines = |from: u64, to: u64| records(from, to).replace(" ,\n ", "\n");
    let server = Server::start(move |_, _| json(&lines(0, 40))).await;
    let mut source = source_of(&server, 500);
    source.streams[0].format = Format {
        syntax: Syntax::JsonLines,
        ..Format::JSON
    };
    source.streams[0].paginate =
        crate::config::paginate::Paging::plain(crate::config::paginate::Paginate::Single);
    source.streams[0].records = path("$").into();
    let outcome = extract(&source, Bookmark::default()).await;
    outcome.result.as_ref().unwrap();
    assert!(outcome.pages.len() > 3);
    assert_eq!(outcome.records(), 40);
    let (_, parts) = outcome.pages.split_last().unwrap();
    assert!(parts.iter().all(|handed| handed.page.body.ends_with(b"\n")));
    assert_eq!(
        outcome.bookmark().watermark.as_deref(),
        Some("2024-05-01T08:00:39Z")
    );
}

#[tokio::test]
async fn a_format_that_must_be_held_is_refused_beyond_memory() {
    let server = Server::start(|_, _| json(&two_pages(0))).await;
    let mut source = source_of(&server, 500);
    source.streams[0].records = path("$.data[*].id").into();
    source.limits.held_bytes_max = 1000;
    let outcome = extract(&source, Bookmark::default()).await;
    assert!(
        outcome.error().contains("larger than memory"),
        "{}",
        outcome.error()
    );
    assert_eq!(outcome.result.unwrap_err().kind(), ErrorKind::Limit);
}

#[tokio::test]
async fn a_probe_sees_the_records_of_the_first_part() {
    let server = Server::start(|number, _| json(&two_pages(number))).await;
    let probe = extraction(&source_of(&server, 500), Bookmark::default())
        .probe()
        .await
        .unwrap();
    assert_eq!((probe.records, probe.bytes), (40, two_pages(0).len() as u64));
    assert_eq!(probe.next.as_deref(), Some("B"));
    let sample: serde_json::Value = serde_json::from_slice(&probe.body).unwrap();
    assert!(probe.body.len() < 1000);
    assert_eq!(
        (&sample["data"][0]["id"], &sample["next"]),
        (&0.into(), &"B".into())
    );
    assert!(probe.first_record.unwrap().starts_with(br#"{"id":0,"#));
}
