use axum::http::Request;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use super::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types and flags of RFC 9113 section 6.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:method GET`, `:scheme http`, `:path /` out of the static table, and `:authority a` (RFC 7541 appendix A).
const GET: &[u8] = &[0x82, 0x86, 0x84, 0x01, 0x01, b'a'];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

fn hello() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// What the server sends until it closes: the type and the payload of each frame.
async fn frames(stream: &mut TcpStream) -> Vec<(u8, Vec<u8>)> {
    let mut bytes = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("the server closes");
    let mut rest = bytes.as_slice();
    let mut frames = Vec::new();
    while let [a, b, c, kind, _, _, _, _, _, behind @ ..] = rest {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some((payload, behind)) = behind.split_at_checked(length) else {
            break;
        };
        frames.push((*kind, payload.to_vec()));
        rest = behind;
    }
    frames
}

/// The body of one answer, by this version.
pub(super) async fn get<I>(io: I, version: &str, path: &'static str) -> String
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = Request::get(format!("http://localhost{path}"));
    let body = if version == "h2" {
        let (mut sender, connection) = conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io))
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        sender.send_request(request).await.unwrap().into_body()
    } else {
        let (mut sender, connection) = conn::http1::handshake(TokioIo::new(io)).await.unwrap();
        tokio::spawn(connection);
        let request = request
            .header("host", "localhost")
            .body(Empty::<Bytes>::new())
            .unwrap();
        sender.send_request(request).await.unwrap().into_body()
    };
    String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn requests_share_an_http2_connection() {
    let server = start(QUIET).await;
    let io = TokioIo::new(server.connect().await);
    let (sender, connection) = conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let closed = tokio::spawn(connection);
    let ask = |path: &'static str| {
        let mut sender = sender.clone();
        async move {
            let request = Request::get(format!("http://a{path}"))
                .body(Empty::<Bytes>::new())
                .unwrap();
            let answer = sender.send_request(request).await.unwrap();
            (
                answer.status().as_u16(),
                answer.headers().contains_key("x-request-id"),
            )
        }
    };
    let (waiting, other) = tokio::join!(ask("/wait"), async {
        let other = (ask("/").await, ask("/panic").await, ask("/nowhere").await);
        server.go.notify_one();
        other
    });
    assert_eq!(waiting, (200, true));
    assert_eq!(other, ((200, true), (500, true), (404, true)));
    server.shutdown.stop();
    timeout(PATIENCE, closed).await.unwrap().unwrap().unwrap();
    assert_eq!(
        timeout(PATIENCE, server.served).await.unwrap().unwrap(),
        Drained::Finished
    );
}

#[tokio::test]
async fn f108_http2_streams_in_flight_are_finished() {
    let server = start(QUIET).await;
    let stream = server.connect().await;
    let asking = tokio::spawn(get(stream, "h2", "/wait"));
    let arrived = async {
        while server.hits() == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, arrived).await.unwrap();
    server.shutdown.stop();
    server.go.notify_one();
    assert_eq!(asking.await.unwrap(), "waited");
    assert_eq!(
        timeout(PATIENCE, server.served).await.unwrap().unwrap(),
        Drained::Finished
    );
}

#[tokio::test]
async fn f096_an_http2_sender_is_told_before_its_stream_is_reset() {
    let server = start(QUIET).await;
    let post: &[u8] = &[
        0x83, 0x86, 0x04, 0x05, b'/', b'b', b'o', b'd', b'y', 0x01, 0x01, b'a',
        // `content-length` out of the static table.
        0x0f, 0x0d, 0x07, b'9', b'9', b'9', b'9', b'9', b'9', b'9',
    ];
    let part = frame(0, 0, 1, &[b'x'; 16000]);
    let mut stream = server
        .send(&[hello(), frame(HEADERS, END_HEADERS, 1, post), part].concat())
        .await;
    // Headers are packed, and any byte of them may be a brace.
    while !until(&mut stream, "}").await.contains("body_too_large") {}
    assert!(is_silent(&mut stream).await, "the answer has time to be read");
    let mut reset = [0; 13];
    timeout(PATIENCE, stream.read_exact(&mut reset))
        .await
        .unwrap()
        .unwrap();
    // NO_ERROR, as RFC 9113 section 8.1 asks.
    assert_eq!(reset, frame(RST_STREAM, 0, 1, &[0; 4])[..]);
}

#[tokio::test]
async fn f105_rapid_resets_end_the_connection() {
    let server = start(QUIET).await;
    let mut bytes = hello();
    for number in 0..5000 {
        let stream = number * 2 + 1;
        bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, stream, GET));
        bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    let mut stream = server.connect().await;
    let _ = stream.write_all(&bytes).await;
    let frames = frames(&mut stream).await;
    // ENHANCE_YOUR_CALM (RFC 9113 section 7).
    let calm = frames
        .iter()
        .any(|(kind, payload)| *kind == GOAWAY && payload[4..8] == 0xb_u32.to_be_bytes());
    assert!(calm, "{frames:?}");
    assert!(server.hits() < 200, "{}", server.hits());
    server.is_well().await;
}

#[tokio::test]
async fn f105_streams_beyond_the_cap_are_refused() {
    let limits = Limits {
        streams_max: 10,
        exchange_timeout: Duration::from_millis(400),
        ..QUIET
    };
    let server = start(limits).await;
    let wait: &[u8] = &[
        0x82, 0x86, 0x04, 0x05, b'/', b'w', b'a', b'i', b't', 0x01, 0x01, b'a',
    ];
    let mut bytes = hello();
    for number in 0..25 {
        bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, number * 2 + 1, wait));
    }
    let mut stream = server.send(&bytes).await;
    let frames = frames(&mut stream).await;
    assert!(server.hits() <= 10, "{}", server.hits());
    let refused = frames.iter().filter(|(kind, _)| *kind == RST_STREAM).count();
    assert!(
        refused >= 15 || frames.iter().any(|(kind, _)| *kind == GOAWAY),
        "{frames:?}"
    );
    server.is_well().await;
}

#[tokio::test]
async fn f105_endless_heads_end_the_connection() {
    let server = start(QUIET).await;
    // One literal header of 16000 bytes, again and again, never ending the head.
    let mut header = vec![0x00, 0x01, b'x', 0x7f];
    // 16000 - 127 as an integer of seven bits each (RFC 7541 section 5.1).
    header.extend([0x81 | 0x80, 0x7c]);
    header.extend(vec![b'y'; 127 + 1 + 0x7c * 128]);
    let mut bytes = hello();
    bytes.extend(frame(HEADERS, END_STREAM, 1, GET));
    for _ in 0..2000 {
        bytes.extend(frame(CONTINUATION, 0, 1, &header));
    }
    let mut stream = server.connect().await;
    assert!(stream.write_all(&bytes).await.is_err() || !frames(&mut stream).await.is_empty());
    assert_eq!(server.hits(), 0);
    server.is_well().await;
}

#[tokio::test]
async fn f105_a_large_head_is_431() {
    let server = start(QUIET).await;
    let io = TokioIo::new(server.connect().await);
    let (mut sender, connection) = conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://a/").header("x-large", "x".repeat(40 << 10));
    let answer = sender
        .send_request(request.body(Empty::<Bytes>::new()).unwrap())
        .await;
    assert!(answer.map_or(true, |answer| answer.status() == 431));
    assert_eq!(server.hits(), 0);
}

#[tokio::test]
async fn f103_an_idle_http2_connection_is_told_goodbye() {
    let limits = Limits {
        idle_timeout: GLANCE,
        ..QUIET
    };
    let server = start(limits).await;
    let request = frame(HEADERS, END_STREAM | END_HEADERS, 1, GET);
    let mut stream = server.send(&[hello(), request].concat()).await;
    let frames = frames(&mut stream).await;
    assert_eq!(server.hits(), 1);
    assert!(
        frames
            .iter()
            .any(|(kind, payload)| *kind == GOAWAY && payload[4..8] == [0; 4]),
        "{frames:?}"
    );
}
