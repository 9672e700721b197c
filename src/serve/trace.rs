//! Trace context from request to table commit: the `traceparent` header of W3C Trace Context.
//!
//! `tracestate` is neither read nor kept: it is meant for vendors on the way, and the way ends here.

use std::fmt;

use axum::http::{HeaderMap, HeaderName};

/// The header with the sender's trace.
const HEADER: HeaderName = HeaderName::from_static("traceparent");

/// Length of a version 00 header: version, trace id, parent id and flags with three dashes.
const BYTES: usize = 55;

/// The trace a request belongs to: the sender's, or a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trace {
    /// Never zero.
    id: u128,
    /// The sender's span, never zero; none if the trace begins here.
    parent: Option<u64>,
    sampled: bool,
}

impl Trace {
    /// The trace of a request with these headers.
    ///
    /// A header that breaks the grammar (W3C Trace Context Level 1, section 3.2.2: wrong length, version `ff`, zero ids,
    /// uppercase digits) or comes twice is ignored, as section 4.3 asks, and a new trace begins; it is never an error.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut sent = headers.get_all(HEADER).iter();
        match (sent.next(), sent.next()) {
            (Some(value), None) => Self::parse(value.as_bytes()).unwrap_or_else(Self::begin),
            _ => Self::begin(),
        }
    }

    /// A new trace with a random id, not sampled.
    pub fn begin() -> Self {
        let id = loop {
            let id: u128 = rand::random();
            if id != 0 {
                break id;
            }
        };
        Self {
            id,
            parent: None,
            sampled: false,
        }
    }

    fn parse(header: &[u8]) -> Option<Self> {
        let (known, rest) = header.split_at_checked(BYTES)?;
        let [v1, v2, b'-', known @ ..] = known else {
            return None;
        };
        let version = u8::try_from(hex(&[*v1, *v2])?).ok()?;
        // Later versions may only add fields behind another dash.
        let length_fits = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest.starts_with(b"-"),
        };
        let (id, known) = known.split_at_checked(32)?;
        let (parent, flags) = known.strip_prefix(b"-")?.split_at_checked(16)?;
        let id = hex(id)?;
        let parent = u64::try_from(hex(parent)?).ok()?;
        let flags = hex(flags.strip_prefix(b"-")?)?;
        (length_fits && id != 0 && parent != 0).then_some(Self {
            id,
            parent: Some(parent),
            sampled: flags & 1 == 1,
        })
    }

    /// The trace id: 32 lowercase hexadecimal digits.
    pub fn id(&self) -> String {
        format!("{:032x}", self.id)
    }

    /// The sender's span id: 16 lowercase hexadecimal digits; none if the trace began here.
    pub fn parent(&self) -> Option<String> {
        self.parent.map(|parent| format!("{parent:016x}"))
    }

    /// Whether the sender records this trace.
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id())
    }
}

/// The number written in lowercase hexadecimal digits, at most 32 of them.
fn hex(digits: &[u8]) -> Option<u128> {
    let mut number = 0;
    for digit in digits {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        number = number << 4 | u128::from(value);
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    // The example of the specification, section 3.2.3.
    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(values: &[&str]) -> Trace {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_str(value).unwrap());
        }
        Trace::of(&headers)
    }

    #[test]
    fn the_senders_trace_is_kept() {
        let trace = of(&[GOOD]);
        assert_eq!(trace.id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(trace.parent().unwrap(), "00f067aa0ba902b7");
        assert!(trace.is_sampled());
        let later = of(&["cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-what-comes"]);
        assert_eq!((later.id(), later.is_sampled()), (trace.id(), false));
    }

    #[test]
    fn f158_a_hostile_traceparent_is_ignored_and_a_new_trace_begins() {
        let zero_id = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let zero_parent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", "0".repeat(16));
        let long = format!("{GOOD}-{}", "x".repeat(8000));
        let hostile = [
            "",
            "00",
            &GOOD[..54],
            &GOOD[1..],
            &format!("{GOOD}-"),
            &format!("{GOOD}0"),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.replacen("00", "0g", 1),
            &format!("cc{}x", &GOOD[2..]),
            &GOOD.to_uppercase(),
            &GOOD.replace('-', "_"),
            &zero_id,
            &zero_parent,
            &long,
            &format!(" {GOOD}"),
        ];
        for header in hostile {
            let trace = of(&[header]);
            assert_eq!(trace.parent(), None, "{header}");
            assert_ne!(trace.id(), "4bf92f3577b34da6a3ce929d0e0e4736", "{header}");
            assert_ne!(trace, of(&[header]), "new each time: {header}");
        }
        assert_eq!(of(&[GOOD, GOOD]).parent(), None);
    }

    #[test]
    fn f158_tracestate_of_any_size_changes_nothing() {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_static(GOOD));
        for number in 0..200 {
            headers.append(
                "tracestate",
                HeaderValue::try_from(format!("{number}@v=!=,,")).unwrap(),
            );
        }
        assert_eq!(Trace::of(&headers), of(&[GOOD]));
    }

    proptest! {
        #[test]
        fn f158_no_bytes_break_the_parser(header in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(trace) = Trace::parse(&header) {
                prop_assert_ne!(trace.id, 0);
                prop_assert_ne!(trace.parent, Some(0));
            }
        }

        #[test]
        fn what_was_sent_comes_back(id in 1u128.., parent in 1u64.., flags in any::<u8>()) {
            let header = format!("00-{id:032x}-{parent:016x}-{flags:02x}");
            let trace = Trace::parse(header.as_bytes()).unwrap();
            prop_assert_eq!(trace, Trace { id, parent: Some(parent), sampled: flags & 1 == 1 });
        }

        #[test]
        fn one_changed_byte_is_never_the_same_trace(at in 0..BYTES, byte in any::<u8>()) {
            let mut header = GOOD.as_bytes().to_vec();
            prop_assume!(header[at] != byte);
            header[at] = byte;
            if let Some(trace) = Trace::parse(&header) {
                let good = Trace::parse(GOOD.as_bytes()).unwrap();
                // Only the version and the flags may change without changing what is kept.
                prop_assert!(trace != good || !(2..BYTES - 2).contains(&at));
            }
        }
    }
}
