use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::http::{HeaderValue, header};
use flate2::{
    Compression,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};
use futures::stream;
use proptest::prelude::*;

use super::*;

const LIMITS: BodyLimits = BodyLimits {
    wire_bytes_max: 1 << 20,
    decoded_bytes_max: 4 << 20,
    ratio_max: 100,
    ratio_free_bytes: 64 << 10,
    grace: Duration::from_millis(100),
    bytes_per_second_min: 1 << 20,
    body_timeout: Duration::from_secs(5),
};

async fn receive(
    headers: &HeaderMap,
    body: Body,
    limits: &BodyLimits,
    budget: &Budget,
) -> Result<Wire, Problem> {
    super::receive(headers, body, limits, budget, &mut |_| Ok(())).await
}

fn budget() -> Budget {
    Budget::new(64 << 20, Duration::from_millis(50))
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 3).unwrap()
}

fn headers(coding: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if !coding.is_empty() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_str(coding).unwrap());
    }
    headers
}

async fn take(coding: &str, wire: Vec<u8>) -> Result<Bytes, Code> {
    let budget = budget();
    let received = async {
        let wire = receive(&headers(coding), Body::from(wire), &LIMITS, &budget).await?;
        wire.decode(&LIMITS, &budget).await
    };
    let content = received.await.map_err(|problem| problem.code());
    if let Ok(content) = &content {
        assert_eq!(content.hold.bytes(), content.bytes.len());
        assert_eq!(budget.bytes_free(), (64 << 20) - content.bytes.len());
    }
    let content = content.map(|content| content.bytes);
    assert_eq!(budget.bytes_free(), 64 << 20, "everything is returned");
    content
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut word = 0x9e37_79b9_u32;
    std::iter::repeat_with(|| {
        word ^= word << 13;
        word ^= word >> 17;
        word ^= word << 5;
        b"0123456789abcdef"[word as usize % 16]
    })
    .take(bytes)
    .collect()
}

#[tokio::test]
async fn f098_every_coding_gives_the_bytes_that_were_packed() {
    for bytes in [0, 1, 1000, 300_000, 600_000] {
        let plain = noise(bytes);
        let cases = [
            ("", plain.clone()),
            ("identity", plain.clone()),
            ("gzip", gzip(&plain)),
            ("X-GZIP", gzip(&plain)),
            ("identity, gzip", gzip(&plain)),
            ("deflate", zlib(&plain)),
            ("zstd", zstd(&plain)),
        ];
        for (coding, wire) in cases {
            assert_eq!(take(coding, wire).await.unwrap(), plain, "{coding} {bytes}");
        }
    }
}

#[tokio::test]
async fn members_and_frames_follow_each_other() {
    let (a, b) = (noise(1000), noise(400_000));
    let both = [a.as_slice(), &b].concat();
    assert_eq!(take("gzip", [gzip(&a), gzip(&b)].concat()).await.unwrap(), both);
    assert_eq!(take("zstd", [zstd(&a), zstd(&b)].concat()).await.unwrap(), both);
}

#[tokio::test]
async fn f098_what_is_not_what_it_says_is_refused_by_its_own_code() {
    let plain = noise(5000);
    let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
    raw.write_all(&plain).unwrap();
    let raw = raw.finish().unwrap();
    let behind = |mut wire: Vec<u8>| {
        wire.extend_from_slice(b"more than a header of ten bytes");
        wire
    };
    let cut = |wire: Vec<u8>| wire[..wire.len() - 5].to_vec();
    let mut flipped = gzip(&plain);
    let middle = flipped.len() - 6;
    flipped[middle] ^= 1;
    let cases = [
        ("br", plain.clone(), Code::UnsupportedEncoding),
        ("gzip, gzip", gzip(&gzip(&plain)), Code::UnsupportedEncoding),
        ("gzip, zstd", plain.clone(), Code::UnsupportedEncoding),
        ("gzip", plain.clone(), Code::BodyUndecodable),
        ("gzip", zstd(&plain), Code::BodyUndecodable),
        ("zstd", plain.clone(), Code::BodyUndecodable),
        ("deflate", raw, Code::BodyUndecodable),
        ("gzip", flipped, Code::BodyUndecodable),
        ("gzip", behind(gzip(&plain)), Code::BodyUndecodable),
        ("deflate", behind(zlib(&plain)), Code::BodyUndecodable),
        ("zstd", behind(zstd(&plain)), Code::BodyUndecodable),
        ("gzip", cut(gzip(&plain)), Code::BodyTruncated),
        ("deflate", cut(zlib(&plain)), Code::BodyTruncated),
        ("zstd", cut(zstd(&plain)), Code::BodyTruncated),
    ];
    for (coding, wire, code) in cases {
        assert_eq!(take(coding, wire).await, Err(code), "{coding}");
    }
    let problem = Coding::of(&headers("br")).unwrap_err();
    assert_eq!(
        problem.render(None).headers()[header::ACCEPT_ENCODING],
        coding::ACCEPTED
    );
    assert_eq!(problem.status(), 415);
}

#[tokio::test]
async fn f097_a_bomb_stops_at_the_limit_not_at_its_size() {
    let huge = vec![b' '; 1 << 20];
    for (coding, wire) in [
        ("gzip", gzip(&huge)),
        ("deflate", zlib(&huge)),
        ("zstd", zstd(&huge)),
    ] {
        assert!(wire.len() < 40_000, "{coding} {}", wire.len());
        let most = most_decoded(wire.len(), &LIMITS);
        assert!(most <= 4 << 20);
        // A budget of the limit and one step: anything unpacked beyond could not be paid for.
        let budget = Budget::new(wire.len() + most * 3 / 2 + (10 << 20), Duration::from_millis(50));
        let received = receive(&headers(coding), Body::from(wire), &LIMITS, &budget)
            .await
            .unwrap();
        let problem = received.decode(&LIMITS, &budget).await.unwrap_err();
        assert_eq!(problem.code(), Code::BodyExpandsTooMuch, "{coding}");
        assert_eq!(problem.status(), 413);
    }
}

#[test]
fn f097_a_decoder_never_unpacks_more_than_it_is_asked_for() {
    let huge = vec![b' '; 1 << 20];
    for (coding, wire) in [
        (Coding::Gzip, gzip(&huge)),
        (Coding::Deflate, zlib(&huge)),
        (Coding::Zstd, zstd(&huge)),
    ] {
        let mut out = Vec::new();
        let mut decoder = Decoder::open(coding, &wire).unwrap().unwrap();
        assert_eq!(decoder.step(1000, &mut out).unwrap(), 1000);
        assert!(out.len() == 1000 && out.capacity() < 4096);
    }
}

#[tokio::test]
async fn f097_a_zstd_window_beyond_8_mib_is_refused() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(26).unwrap();
    encoder.include_contentsize(false).unwrap();
    encoder.write_all(&noise(1000)).unwrap();
    let wire = encoder.finish().unwrap();
    assert_eq!(take("zstd", wire).await, Err(Code::BodyUndecodable));
}

#[tokio::test]
async fn f097_the_ratio_counts_only_beyond_what_is_free() {
    let small = vec![b' '; 60 << 10];
    assert_eq!(take("gzip", gzip(&small)).await.unwrap(), small);
    let large = vec![b' '; 70 << 10];
    assert_eq!(take("gzip", gzip(&large)).await, Err(Code::BodyExpandsTooMuch));
    // At the limit to the byte.
    let plain = noise(200);
    let exact = BodyLimits {
        decoded_bytes_max: 200,
        ..LIMITS
    };
    let budget = budget();
    for (bytes, good) in [(200, true), (199, false)] {
        let limits = BodyLimits {
            decoded_bytes_max: bytes,
            ..exact
        };
        let wire = receive(&headers("gzip"), Body::from(gzip(&plain)), &limits, &budget)
            .await
            .unwrap();
        assert_eq!(wire.decode(&limits, &budget).await.is_ok(), good);
    }
}

/// A body of `chunks` chunks of no declared length, and how many were asked for.
fn chunked(chunks: usize, bytes: usize) -> (Body, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let chunks = stream::iter((0..chunks).map(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; bytes]))
    }));
    (Body::from_stream(chunks), asked)
}

#[tokio::test]
async fn f096_a_body_is_read_up_to_the_limit_and_no_further() {
    let declared = Body::from(vec![0; LIMITS.wire_bytes_max + 1]);
    let problem = receive(&headers(""), declared, &LIMITS, &Budget::new(0, Duration::ZERO)).await;
    assert_eq!(problem.unwrap_err().status(), 413, "without asking for memory");

    let (body, asked) = chunked(1000, 64 << 10);
    let problem = receive(&headers(""), body, &LIMITS, &budget()).await.unwrap_err();
    assert_eq!(problem.code(), Code::BodyTooLarge);
    assert_eq!(
        asked.load(Ordering::SeqCst),
        17,
        "the first chunk too many is the last"
    );

    let (body, _) = chunked(16, 64 << 10);
    let wire = receive(&headers(""), body, &LIMITS, &budget()).await.unwrap();
    assert_eq!((wire.bytes().len(), wire.coding()), (1 << 20, Coding::Identity));
}

#[tokio::test]
async fn f096_bodies_beyond_the_budget_wait_and_then_are_told_to_come_back() {
    let budget = Budget::new(600 << 10, Duration::from_millis(50));
    let first = receive(&headers(""), Body::from(noise(500 << 10)), &LIMITS, &budget)
        .await
        .unwrap();
    assert_eq!(budget.bytes_free(), 100 << 10);
    let second = receive(&headers(""), Body::from(noise(200 << 10)), &LIMITS, &budget).await;
    let problem = second.unwrap_err();
    assert_eq!(problem.code(), Code::Overloaded);
    let answer = problem.render(None);
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()[header::RETRY_AFTER]),
        (503, &HeaderValue::from(2))
    );

    let waiting = receive(&headers(""), Body::from(noise(200 << 10)), &LIMITS, &budget).await;
    assert!(waiting.is_err());
    drop(first);
    let third = receive(&headers(""), Body::from(noise(200 << 10)), &LIMITS, &budget)
        .await
        .unwrap();
    drop(third);
    assert_eq!(budget.bytes_free(), 600 << 10);
}

#[tokio::test]
async fn f096_what_is_declared_but_not_sent_holds_only_one_step() {
    let budget = budget();
    let buffer = Buffer::open(1 << 20, 1 << 20, &budget).await.unwrap();
    assert_eq!(budget.bytes_free(), (64 << 20) - Buffer::STEP_BYTES);
    drop(buffer);
}

#[tokio::test]
async fn f103_a_body_that_stops_coming_is_refused() {
    let hello = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"{"))]);
    let drip = Body::from_stream(futures::StreamExt::chain(hello, stream::pending()));
    let problem = receive(&headers(""), drip, &LIMITS, &budget()).await.unwrap_err();
    assert_eq!(
        (problem.code(), problem.status().as_u16()),
        (Code::BodyTooSlow, 408)
    );
}

#[test]
fn f103_time_is_earned_by_bytes_up_to_the_timeout() {
    let began = Instant::now();
    let limits = BodyLimits {
        bytes_per_second_min: 1000,
        ..LIMITS
    };
    let due =
        |after: u64, received| limits.due(began, began + Duration::from_millis(after), received) - began;
    assert_eq!(due(0, 0), Duration::from_millis(100));
    assert_eq!(due(1990, 1900), Duration::from_millis(2000));
    assert_eq!(due(4990, usize::MAX / 2000), limits.body_timeout);
    // What was earned is no time for a pause.
    assert_eq!(due(1000, 500_000), Duration::from_millis(1100));
}

#[tokio::test]
async fn f103_a_pause_is_no_longer_than_is_said_however_much_came_before() {
    let limits = BodyLimits {
        bytes_per_second_min: 1 << 10,
        ..LIMITS
    };
    let much = stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 1 << 19]))]);
    let stopped = Body::from_stream(futures::StreamExt::chain(much, stream::pending()));
    let began = Instant::now();
    let problem = receive(&headers(""), stopped, &limits, &budget())
        .await
        .unwrap_err();
    assert_eq!(problem.code(), Code::BodyTooSlow);
    assert!(began.elapsed() < limits.body_timeout / 2, "{:?}", began.elapsed());
}

#[tokio::test]
async fn who_counts_can_end_it_before_more_is_kept() {
    let (body, asked) = chunked(1000, 64 << 10);
    let mut count = |bytes: u64| match bytes > 128 << 10 {
        true => Err(Problem::new(Code::RateLimited, "enough")),
        false => Ok(()),
    };
    let problem = super::receive(&headers(""), body, &LIMITS, &budget(), &mut count).await;
    assert_eq!(problem.unwrap_err().code(), Code::RateLimited);
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_cut_body_is_400() {
    let cut = stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("reset"))]);
    let problem = receive(&headers(""), Body::from_stream(cut), &LIMITS, &budget())
        .await
        .unwrap_err();
    assert_eq!(
        (problem.code(), problem.status().as_u16()),
        (Code::BodyTruncated, 400)
    );
}

#[tokio::test]
async fn the_bytes_for_the_signature_are_those_that_were_sent() {
    let packed = gzip(b"{}");
    let budget = budget();
    let wire = receive(&headers("gzip"), Body::from(packed.clone()), &LIMITS, &budget)
        .await
        .unwrap();
    assert_eq!(wire.bytes(), &packed);
    assert_eq!(wire.decode(&LIMITS, &budget).await.unwrap().bytes, "{}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn f098_no_bytes_break_a_decoder(
        which in 0..3_usize,
        plain in prop::collection::vec(any::<u8>(), 0..300),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        bare in any::<bool>(),
    ) {
        let coding = [Coding::Gzip, Coding::Deflate, Coding::Zstd][which];
        let mut wire = if bare { plain.clone() } else { [gzip, zlib, zstd][which](&plain) };
        if !wire.is_empty() {
            let at = at.index(wire.len());
            wire[at] = byte;
        }
        let mut out = Vec::new();
        let mut decoder = Decoder::open(coding, &wire).unwrap().unwrap();
        for _ in 0..10 {
            match decoder.step(1000, &mut out) {
                Ok(1000) => {}
                Ok(_) => break,
                Err(problem) => {
                    prop_assert_eq!(problem.status(), 400);
                    break;
                }
            }
        }
        prop_assert!(out.len() <= 10_000);
    }

    #[test]
    fn f098_no_header_breaks_the_coding(value in "[ -~]{0,40}") {
        let _ = Coding::of(&headers(&value));
    }
}
