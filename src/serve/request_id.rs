//! The name of one request, in every answer and every log line about it.

use std::fmt;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::{NoContext, Uuid};

use crate::clock::Clock;

/// The header a request id comes in and goes out by.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id accepted from a sender, in bytes.
const BYTES_MAX: usize = 128;

/// The name of one request: the sender's own if it is harmless, else a UUIDv7.
///
/// 1 to 128 visible ASCII characters (0x21–0x7e), so it can stand in a header, a log line and a JSON string.
/// Nothing is ever looked up or deduplicated by it: senders may repeat ids.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id of a request with these headers. More than one id is as good as none.
    pub fn of(headers: &HeaderMap, clock: &Clock) -> Self {
        let mut sent = headers.get_all(HEADER).iter();
        match (sent.next(), sent.next()) {
            (Some(value), None) => Self::parse(value).unwrap_or_else(|| Self::new(clock)),
            _ => Self::new(clock),
        }
    }

    /// A new id made of the time and random bits (UUIDv7, RFC 9562 section 5.7).
    pub fn new(clock: &Clock) -> Self {
        let now = clock.now();
        let seconds = u64::try_from(now.timestamp()).unwrap_or(0);
        let id = Uuid::new_v7(uuid::Timestamp::from_unix(
            NoContext,
            seconds,
            now.timestamp_subsec_nanos(),
        ));
        let text = id.hyphenated().to_string();
        Self(HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unknown")))
    }

    fn parse(value: &HeaderValue) -> Option<Self> {
        let bytes = value.as_bytes();
        let harmless =
            !bytes.is_empty() && bytes.len() <= BYTES_MAX && bytes.iter().all(u8::is_ascii_graphic);
        harmless.then(|| Self(value.clone()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// The id as the value of [`HEADER`].
    pub fn to_header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[&[u8]]) -> RequestId {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
        }
        RequestId::of(&headers, &Clock::system())
    }

    #[test]
    fn a_harmless_id_is_kept_and_any_other_is_replaced_by_a_uuid_v7() {
        assert_eq!(of(&[b"order-42/a"]).as_str(), "order-42/a");
        let long = [b'a'; BYTES_MAX + 1];
        let odd: [&[&[u8]]; 6] = [&[], &[b""], &[b"a b"], &[b"caf\xc3\xa9"], &[&long], &[b"a", b"b"]];
        for values in odd {
            let id = Uuid::parse_str(of(values).as_str()).unwrap();
            assert_eq!(id.get_version_num(), 7, "{values:?}");
        }
        assert_eq!(of(&[&long[1..]]).as_str().len(), BYTES_MAX);
    }

    proptest! {
        #[test]
        fn every_id_is_visible_ascii_of_bounded_length(
            value in prop::collection::vec(prop_oneof![Just(b'\t'), b' '..0x7f, 0x80..=0xff_u8], 0..200)
        ) {
            let id = of(&[&value]);
            prop_assert!((1..=BYTES_MAX).contains(&id.as_str().len()));
            prop_assert!(id.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
}
