use proptest::prelude::*;

use super::tests_support::{NOW, Sent, outcome, samples};

/// What is done to a run of bytes.
#[derive(Clone, Debug)]
enum Change {
    /// A byte is another.
    Flip(u8),
    /// A byte is gone.
    Drop,
    /// A byte is there that was not.
    Insert(u8),
    /// All from here on is gone.
    Cut,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (1u8..=255).prop_map(Change::Flip),
        Just(Change::Drop),
        any::<u8>().prop_map(Change::Insert),
        Just(Change::Cut),
    ]
}

fn altered(bytes: &[u8], at: prop::sample::Index, change: &Change) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = at.index(bytes.len());
    match change {
        Change::Flip(by) => bytes[at] ^= by,
        Change::Drop => {
            bytes.remove(at);
        }
        Change::Insert(byte) => bytes.insert(at, *byte),
        Change::Cut => bytes.truncate(at),
    }
    bytes
}

proptest! {
    #[test]
    fn f084_any_altered_byte_of_a_body_is_refused(
        body in prop::collection::vec(any::<u8>(), 1..200),
        at: prop::sample::Index,
        change in change(),
    ) {
        let other = altered(&body, at, &change);
        prop_assume!(other != body);
        for (webhook, sent, _) in samples(&body) {
            prop_assert_eq!(outcome(&webhook, &sent, NOW), "signed with main");
            let sent = Sent { body: other.clone(), ..sent };
            prop_assert_eq!(outcome(&webhook, &sent, NOW), "mismatch", "{}", webhook.scheme.as_str());
        }
    }

    #[test]
    fn f084_any_altered_byte_of_a_signed_header_is_refused(
        body in prop::collection::vec(any::<u8>(), 0..50),
        header: prop::sample::Index,
        at: prop::sample::Index,
        change in change(),
    ) {
        for (webhook, sent, signed) in samples(&body) {
            let name = signed[header.index(signed.len())];
            let (_, value) = sent.headers.iter().find(|(known, _)| known == name).unwrap();
            let other = altered(value, at, &change);
            if other == *value {
                continue;
            }
            let shown = String::from_utf8_lossy(&other).into_owned();
            let sent = sent.clone().with(name, other);
            // Some bytes no header can hold.
            if sent.map().is_none() {
                continue;
            }
            let outcome = outcome(&webhook, &sent, NOW);
            let refused = ["missing", "malformed", "mismatch", "stale", "early"];
            prop_assert!(refused.contains(&outcome.as_str()), "{name}: {shown}: {outcome}");
        }
    }
}

#[test]
fn f084_a_body_that_means_the_same_is_another() {
    let body = "{\"id\":1,\"name\":\"Zo\u{eb}\"}".as_bytes();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, body).unwrap();
    let latin1 = b"{\"id\":1,\"name\":\"Zo\xeb\"}".to_vec();
    let spaced = "{\"id\": 1, \"name\": \"Zo\u{eb}\"}".as_bytes().to_vec();
    let escaped = b"{\"id\":1,\"name\":\"Zo\\u00eb\"}".to_vec();
    let newline = [body, b"\n"].concat();
    for other in [gzip.finish().unwrap(), latin1, spaced, escaped, newline] {
        for (webhook, sent, _) in samples(body) {
            let sent = Sent {
                body: other.clone(),
                ..sent
            };
            assert_eq!(
                outcome(&webhook, &sent, NOW),
                "mismatch",
                "{}",
                webhook.scheme.as_str()
            );
        }
    }
}
