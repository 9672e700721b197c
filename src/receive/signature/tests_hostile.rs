use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use proptest::prelude::*;

use super::{
    claim::{Claim, SIGNATURES_MAX},
    github, hmac, moment,
    refusal::Refusal,
    shared_secret, shopify, slack, standard, stripe,
    tests_support::{NOW, Sent, described, outcome, samples, stripe as stripe_request, webhook},
};
use crate::config::webhook::{MomentFormat, Scheme};

/// The header of each scheme that holds the signature.
fn signature_of(signed: &[&'static str]) -> &'static str {
    signed
        .iter()
        .copied()
        .find(|name| name.contains("signature") || name.contains("hmac"))
        .unwrap()
}

#[test]
fn f085_signatures_that_are_none_are_refused_by_their_class() {
    for (webhook, sent, signed) in samples(b"{\"a\": 1}") {
        let name = signature_of(&signed);
        let (_, good) = sent.headers.iter().find(|(known, _)| known == name).unwrap();
        let good = String::from_utf8(good.clone()).unwrap();
        let list = |separator: &str| vec![good.as_str(); 1_000].join(separator);
        let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
            ("empty", Vec::new(), &["missing"]),
            (
                "prefix",
                good.replacen(['=', ',', ' '], "", 1).into(),
                &["malformed"],
            ),
            ("other prefix", format!("x{good}").into(), &["malformed"]),
            ("case", good.to_uppercase().into(), &["malformed", "mismatch"]),
            ("truncated", good[..good.len() - 1].into(), &["malformed"]),
            ("half", good[..good.len() / 2].into(), &["malformed"]),
            ("longer", format!("{good}00").into(), &["malformed"]),
            ("1,000 by comma", list(",").into(), &["malformed", "too_many"]),
            ("1,000 by space", list(" ").into(), &["malformed", "too_many"]),
            ("not ASCII", format!("{good}é").into(), &["malformed"]),
            ("not UTF-8", [good.as_bytes(), &[0xff]].concat(), &["malformed"]),
            (
                "not ASCII digits",
                good.replace(|c: char| c.is_ascii_digit(), "٣").into(),
                &["malformed"],
            ),
            ("space before", format!(" {good}").into(), &["malformed"]),
            ("space behind", format!("{good} ").into(), &["malformed"]),
            ("tab", format!("{good}\t").into(), &["malformed"]),
            ("quoted", format!("\"{good}\"").into(), &["malformed"]),
            ("words", "null".into(), &["malformed"]),
        ];
        for (case, value, classes) in cases {
            let said = outcome(&webhook, &sent.clone().with(name, value), NOW);
            assert!(classes.contains(&said.as_str()), "{name}, {case}: {said}");
        }
        let mut missing = sent.clone();
        missing.headers.retain(|(known, _)| known != name);
        assert_eq!(outcome(&webhook, &missing, NOW), "missing", "{name}");
    }
}

#[test]
fn f085_a_hexadecimal_digit_has_one_spelling() {
    let mut tried = 0;
    for (webhook, sent, signed) in samples(b"{\"a\": 1}") {
        let name = signature_of(&signed);
        let (_, good) = sent.headers.iter().find(|(known, _)| known == name).unwrap();
        // What stands before the last 64 digits stays as it is.
        let Some(at) = good.len().checked_sub(64) else {
            continue;
        };
        let (before, digits) = good.split_at(at);
        let hex = digits.iter().all(u8::is_ascii_hexdigit);
        let Some(letter) = digits.iter().position(u8::is_ascii_lowercase).filter(|_| hex) else {
            continue;
        };
        tried += 1;
        let mut mixed = digits.to_vec();
        mixed[letter].make_ascii_uppercase();
        let said =
            |digits: &[u8]| outcome(&webhook, &sent.clone().with(name, [before, digits].concat()), NOW);
        assert_eq!(said(&mixed), "malformed", "{name}");
        // Only where it is not known how its sender writes them.
        let all = match webhook.scheme {
            Scheme::Hmac(_) => "signed with main",
            _ => "malformed",
        };
        assert_eq!(said(&digits.to_ascii_uppercase()), all, "{name}");
    }
    assert_eq!(tried, 4);
}

#[test]
fn f085_a_header_that_is_there_twice_is_refused() {
    for (webhook, sent, signed) in samples(b"{\"a\": 1}") {
        for name in signed {
            let twice = |first: bool| {
                let mut sent = sent.clone();
                let (_, good) = sent.headers.iter().find(|(known, _)| known == name).unwrap();
                let other = [good.clone(), b"other".to_vec()];
                let at = if first { 0 } else { sent.headers.len() };
                sent.headers
                    .insert(at, (name.to_uppercase(), other[usize::from(first)].clone()));
                outcome(&webhook, &sent, NOW)
            };
            assert_eq!([twice(true), twice(false)], ["duplicate", "duplicate"], "{name}");
        }
    }
    // An id and a type that are not signed are no less of one request.
    let (webhook, sent, _) = samples(b"{}").swap_remove(3);
    for name in ["x-github-delivery", "x-github-event"] {
        let mut sent = sent.clone();
        sent.headers.push((name.to_owned(), b"other".to_vec()));
        assert_eq!(outcome(&webhook, &sent, NOW), "duplicate", "{name}");
    }
}

#[test]
fn f085_no_more_signatures_are_looked_at_than_the_cap_says() {
    let body = b"{}";
    let wrong = "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=";
    let (webhook, sent, _) = samples(body).swap_remove(0);
    let good = String::from_utf8(sent.headers[2].1.clone()).unwrap();
    let among = |others: usize| {
        let list = [vec![wrong; others], vec![good.as_str()]].concat().join(" ");
        outcome(&webhook, &sent.clone().with("webhook-signature", list), NOW)
    };
    assert_eq!(among(SIGNATURES_MAX - 1), "signed with main");
    assert_eq!(among(SIGNATURES_MAX), "too_many");
    let (webhook, sent, _) = samples(body).swap_remove(1);
    let good = String::from_utf8(sent.headers[2].1.clone()).unwrap();
    let among = |times: usize| {
        let list = vec![good.as_str(); times].join(" ");
        outcome(&webhook, &sent.clone().with("webhook-signature", list), NOW)
    };
    assert_eq!(among(4), "signed with main");
    assert_eq!(among(5), "too_many");
    let (webhook, sent, _) = samples(body).swap_remove(4);
    let good = String::from_utf8(sent.headers[0].1.clone()).unwrap();
    let wrong = format!(",v1={}", "0".repeat(64));
    let among = |others: usize| {
        let list = format!("{good}{}", wrong.repeat(others));
        outcome(&webhook, &sent.clone().with("stripe-signature", list), NOW)
    };
    assert_eq!(among(SIGNATURES_MAX - 1), "signed with main");
    assert_eq!(among(SIGNATURES_MAX), "too_many");
}

#[test]
fn the_headers_of_one_family_are_not_mixed_with_the_others() {
    let (webhook, sent, _) = samples(b"{}").swap_remove(0);
    let mut mixed = sent.clone();
    mixed.headers[0].0 = "svix-id".to_owned();
    assert_eq!(outcome(&webhook, &mixed, NOW), "missing");
    let both = sent
        .with("svix-id", "msg_other")
        .with("svix-signature", "v1,AAAA");
    assert_eq!(outcome(&webhook, &both, NOW), "signed with main");
}

/// What is no moment to any scheme.
const NO_MOMENTS: [&str; 22] = [
    "-9223372036854775808",
    "9223372036854775807",
    "9223372036854775808",
    "-1",
    "-0",
    "1e9",
    " 1795392000",
    "1795392000 ",
    "+1795392000",
    "01795392000",
    "1795392000.0",
    "1,795,392,000",
    "0x6b036000",
    "17953920000000000000",
    "00000000001795392000",
    "99999999999999999999999999999999",
    "1795392000\t",
    "١٧٩٥٣٩٢٠٠٠",
    "NaN",
    "now",
    "2026-11-23T00:00:00Z",
    "8210298412800",
];

#[test]
fn f086_timestamps_at_the_edge_are_refused_and_nothing_overflows() {
    for (webhook, sent, signed) in samples(b"{}") {
        let Some(name) = signed.iter().find(|name| name.contains("timestamp")) else {
            continue;
        };
        let times = matches!(webhook.scheme, Scheme::Hmac(_));
        for written in NO_MOMENTS {
            // In milliseconds some of them are a moment, though none that is near.
            let said = outcome(&webhook, &sent.clone().with(name, written), NOW);
            let near = times && ["early", "stale"].contains(&said.as_str());
            assert!(said == "malformed" || near, "{name}: {written}: {said}");
        }
        assert_eq!(outcome(&webhook, &sent.clone().with(name, ""), NOW), "missing");
        assert_eq!(outcome(&webhook, &sent.clone().with(name, "0"), NOW), "stale");
        assert_eq!(outcome(&webhook, &sent.clone().with(name, "1"), NOW), "stale");
        let most = if times {
            "8210266876799999"
        } else {
            "8210266876799"
        };
        assert_eq!(outcome(&webhook, &sent.clone().with(name, most), NOW), "early");
    }
    let stripe = webhook(Scheme::Stripe, "s");
    for written in NO_MOMENTS.iter().filter(|written| written.is_ascii()) {
        let said = outcome(&stripe, &stripe_request("s", written, b"{}"), NOW);
        assert_eq!(said, "malformed", "{written}");
    }
    let twice = format!("t={NOW},t={NOW},v1={}", "0".repeat(64));
    let sent = Sent::new(&[("stripe-signature", &twice)], "{}");
    assert_eq!(outcome(&stripe, &sent, NOW), "malformed");
}

/// A header of any bytes that HTTP lets through, and of bytes that are nearly right.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        "(sha256=|v0=|v1,|v1a,|t=[0-9]{0,22},v1=|sig )?[0-9a-fA-F+/=, ]{0,140}".prop_map(String::into_bytes),
        "((v1|v1a|v2|t|v0),?=?[0-9A-Za-z+/=]{0,90}[ ,]?){0,20}".prop_map(String::into_bytes),
        "[-+ ]?[0-9]{0,25}".prop_map(String::into_bytes),
        ".{0,60}".prop_map(String::into_bytes),
    ]
}

const NAMES: [&str; 13] = [
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "svix-id",
    "svix-timestamp",
    "svix-signature",
    "x-hub-signature-256",
    "stripe-signature",
    "x-shopify-hmac-sha256",
    "x-slack-signature",
    "x-slack-request-timestamp",
    "x-signature",
    "x-timestamp",
];

fn headers() -> impl Strategy<Value = HeaderMap> {
    let header = (prop::sample::select(NAMES.to_vec()), value());
    prop::collection::vec(header, 0..20).prop_map(|pairs| {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                map.append(HeaderName::from_static(name), value);
            }
        }
        map
    })
}

/// Every parser over one set of headers.
fn claims<'a>(
    headers: &'a HeaderMap,
    body: &'a [u8],
    settings: &'a Scheme,
) -> Vec<Result<Claim<'a>, Refusal>> {
    let mut claims = vec![
        standard::claim(headers, body),
        github::claim(headers, body),
        stripe::claim(headers, body),
        shopify::claim(headers, body),
        slack::claim(headers, body),
        shared_secret::claim("x-signature", "sig ", headers),
    ];
    if let Scheme::Hmac(settings) = settings {
        claims.push(hmac::claim(settings, headers, body));
    }
    claims
}

proptest! {
    #[test]
    fn f085_no_header_makes_a_parser_panic_or_look_at_more_than_the_cap(
        headers in headers(),
        body in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let settings = described();
        for claim in claims(&headers, &body, &settings) {
            match claim {
                Ok(claim) => prop_assert!((1..=SIGNATURES_MAX).contains(&claim.signatures.len())),
                Err(refusal) => prop_assert!(!refusal.to_string().is_empty()),
            }
        }
    }

    #[test]
    fn f085_no_header_of_any_bytes_is_believed(headers in headers(), now in -8_000_000_000_000i64..8_000_000_000_000) {
        for (webhook, _, _) in samples(b"{}") {
            let sent = Sent {
                headers: headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect(),
                body: b"{}".to_vec(),
            };
            prop_assert!(!outcome(&webhook, &sent, now).starts_with("signed"));
        }
    }

    #[test]
    fn f086_no_text_makes_a_moment_panic(
        text in prop_oneof!["[-+ ]?[0-9]{0,25}", ".{0,40}", "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2})"],
        now in -8_000_000_000_000i64..8_000_000_000_000,
        tolerance in any::<u64>(),
    ) {
        for format in [MomentFormat::Seconds, MomentFormat::Milliseconds, MomentFormat::Rfc3339] {
            if let Ok(moment) = moment::read("x", &text, format) {
                let tolerance = std::time::Duration::from_secs(tolerance);
                let now = super::tests_support::at(now);
                let near = moment::check(moment, now, tolerance).is_ok();
                let apart = (i128::from(moment.timestamp_millis()) - i128::from(now.timestamp_millis())).unsigned_abs();
                prop_assert_eq!(near, apart <= tolerance.as_millis(), "{}", text);
            }
        }
    }

    #[test]
    fn a_count_of_seconds_is_read_in_its_one_spelling(seconds in 0i64..8_000_000_000_000) {
        let moment = moment::read("x", &seconds.to_string(), MomentFormat::Seconds).unwrap();
        prop_assert_eq!(moment.timestamp(), seconds);
        for other in [format!("0{seconds}"), format!("+{seconds}"), format!(" {seconds}"), format!("{seconds}.0")] {
            prop_assert!(moment::read("x", &other, MomentFormat::Seconds).is_err());
        }
    }
}
