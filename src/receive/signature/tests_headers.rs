//! Every parser of a header of a scheme: what it takes is what its grammar says, and is said back byte for byte.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use proptest::prelude::*;
use regex::bytes::Regex;

use super::{
    claim::{Claim, SIGNATURES_MAX, Signature},
    event::{TEXT_BYTES_MAX, said},
    github, hmac, moment,
    refusal::Refusal,
    shared_secret, shopify, slack, standard, stripe,
    tests_support::{described, hex, samples},
};
use crate::{
    config::{
        request::Place,
        webhook::{MomentFormat, Scheme},
    },
    fields::near::{each_long, near},
};

const HEX: &str = "4f2e9c0d4f2e9c0d4f2e9c0d4f2e9c0d4f2e9c0d4f2e9c0d4f2e9c0d4f2e9cab";
const B64: &str = "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
const MOMENT: &str = "1795392000";

fn headers(pairs: &[(&'static str, &[u8])]) -> Option<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(
            HeaderName::from_static(name),
            HeaderValue::from_bytes(value).ok()?,
        );
    }
    Some(map)
}

/// The one signature of a claim.
fn mac(claim: &Claim<'_>) -> Vec<u8> {
    match claim.signatures.as_slice() {
        [Signature::Mac(bytes) | Signature::Secret(bytes)] => bytes.clone(),
        _ => panic!("not one signature"),
    }
}

fn matches(pattern: &str, value: &[u8]) -> bool {
    Regex::new(pattern).unwrap().is_match(value)
}

/// Whether `value` is a count of seconds in its one spelling.
fn is_moment(value: &[u8]) -> bool {
    matches("^(0|[1-9][0-9]{0,18})$", value)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn signatures_over_the_body_are_taken_in_one_spelling(
        written in near(&[&format!("sha256={HEX}"), B64, &format!("sig {HEX}"), &format!("v0={HEX}")]),
    ) {
        let Some(map) = headers(&[
            ("x-hub-signature-256", &written),
            ("x-shopify-hmac-sha256", &written),
            ("x-signature", &written),
            ("x-timestamp", b"1795392000123"),
            ("x-request-id", b"r-17"),
            ("x-slack-signature", &written),
            ("x-slack-request-timestamp", MOMENT.as_bytes()),
        ]) else { return Ok(()) };
        let github = github::claim(&map, b"{}");
        prop_assert_eq!(github.is_ok(), matches("^sha256=[0-9a-f]{64}$", &written));
        if let Ok(claim) = github {
            prop_assert_eq!(format!("sha256={}", hex(&mac(&claim))).into_bytes(), written.clone());
            prop_assert_eq!(claim.message.concat(), b"{}");
        }
        if let Ok(claim) = shopify::claim(&map, b"{}") {
            let is_base64 = matches("^[A-Za-z0-9+/]{43}=$", &written);
            prop_assert!(mac(&claim).len() == 32 && is_base64);
            prop_assert_eq!(STANDARD.encode(mac(&claim)).into_bytes(), written.clone());
        }
        let Scheme::Hmac(settings) = described() else { unreachable!() };
        let hmac = hmac::claim(&settings, &map, b"{}");
        prop_assert_eq!(hmac.is_ok(), matches("^sig ([0-9a-f]{64}|[0-9A-F]{64})$", &written));
        if let Ok(claim) = hmac {
            prop_assert_eq!(claim.message.concat(), b"r-17|1795392000123|{}");
        }
        let slack = slack::claim(&map, b"{}");
        prop_assert_eq!(slack.is_ok(), matches("^v0=[0-9a-f]{64}$", &written));
        let secret = shared_secret::claim("x-signature", "sig ", &map);
        prop_assert_eq!(secret.is_ok(), written.starts_with(b"sig "));
        if let Ok(claim) = secret {
            prop_assert_eq!(mac(&claim), &written[4..]);
        }
    }

    #[test]
    fn a_moment_of_slack_or_standard_webhooks_is_signed_as_it_is_written(
        written in near(&[MOMENT, "0", "1795392000123", "9223372036854775807"]),
        id in near(&["msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", "evt 1", "1.2"]),
    ) {
        let signature = format!("v1,{B64}");
        let slack_signature = format!("v0={HEX}");
        let Some(map) = headers(&[
            ("x-slack-signature", slack_signature.as_bytes()),
            ("x-slack-request-timestamp", &written),
            ("webhook-id", &id),
            ("webhook-timestamp", &written),
            ("webhook-signature", signature.as_bytes()),
        ]) else { return Ok(()) };
        if let Ok(claim) = slack::claim(&map, b"{}") {
            prop_assert!(is_moment(&written));
            prop_assert_eq!(claim.moment.unwrap().timestamp().to_string().into_bytes(), written.clone());
            prop_assert_eq!(claim.message.concat(), [b"v0:", &written[..], b":{}"].concat());
        }
        if let Ok(claim) = standard::claim(&map, b"{}") {
            prop_assert!(is_moment(&written) && matches("^[ -~]+$", &id));
            prop_assert_eq!(claim.id.unwrap().as_bytes(), &id);
            prop_assert_eq!(claim.message.concat(), [&id[..], b".", &written, b".{}"].concat());
        }
    }

    #[test]
    fn a_list_of_stripe_is_one_moment_and_signatures(
        written in near(&[
            &format!("t={MOMENT},v1={HEX}"),
            &format!("t={MOMENT},v1={HEX},v1={HEX},v0=x"),
            &format!("v1={HEX},t={MOMENT}"),
        ]),
    ) {
        let Some(map) = headers(&[("stripe-signature", &written)]) else { return Ok(()) };
        if let Ok(claim) = stripe::claim(&map, b"{}") {
            let text = str::from_utf8(&written).unwrap();
            let of = |name: &str| {
                let elements = text.split(',').filter_map(|element| element.split_once('='));
                elements.filter(|(key, _)| *key == name).map(|(_, value)| value).collect::<Vec<_>>()
            };
            let (moments, signatures) = (of("t"), of("v1"));
            prop_assert!(moments.len() == 1 && is_moment(moments[0].as_bytes()));
            let are_hex = signatures.iter().all(|signature| matches("^[0-9a-f]{64}$", signature.as_bytes()));
            prop_assert!(are_hex);
            let found = claim.signatures.iter().map(|signature| match signature {
                Signature::Mac(bytes) => hex(bytes),
                _ => panic!("of another scheme"),
            });
            prop_assert_eq!(found.collect::<Vec<_>>(), signatures);
            prop_assert_eq!(claim.message.concat(), format!("{}.{{}}", moments[0]).into_bytes());
        }
    }

    #[test]
    fn a_list_of_standard_webhooks_is_versions_and_signatures(
        written in near(&[
            &format!("v1,{B64}"),
            &format!("v1,{B64} v2,x v1,{B64}"),
            &format!("v1a,{} v1,{B64}", "A".repeat(86) + "=="),
        ]),
    ) {
        let Some(map) = headers(&[
            ("webhook-id", b"msg_1"),
            ("webhook-timestamp", MOMENT.as_bytes()),
            ("webhook-signature", &written),
        ]) else { return Ok(()) };
        if let Ok(claim) = standard::claim(&map, b"{}") {
            let text = str::from_utf8(&written).unwrap();
            let known = text.split(' ').filter(|item| item.starts_with("v1,") || item.starts_with("v1a,"));
            let found = claim.signatures.iter().map(|signature| match signature {
                Signature::Mac(bytes) => format!("v1,{}", STANDARD.encode(bytes)),
                Signature::Ed25519(bytes) => format!("v1a,{}", STANDARD.encode(bytes)),
                Signature::Secret(_) => panic!("of another scheme"),
            });
            prop_assert_eq!(found.collect::<Vec<_>>(), known.collect::<Vec<_>>());
            prop_assert!((1..=SIGNATURES_MAX).contains(&claim.signatures.len()));
        }
    }

    #[test]
    fn a_moment_in_words_is_the_one_that_rfc_3339_says(
        written in near(&["2026-11-23T00:00:00Z", "2026-11-23T01:00:00.5+01:00", "2026-02-28t23:59:60z"]),
    ) {
        let Ok(text) = str::from_utf8(&written) else { return Ok(()) };
        if let Ok(moment) = moment::read("x", text, MomentFormat::Rfc3339) {
            let grammar = "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt _][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$";
            prop_assert!(matches(grammar, &written), "{}", text);
            let again = moment.to_rfc3339();
            prop_assert_eq!(moment::read("x", &again, MomentFormat::Rfc3339).unwrap(), moment);
        }
    }

    #[test]
    fn an_event_is_called_what_its_header_says_or_nothing(written in near(&["evt_1", "72d3162e-cc78-11e3", "a b"])) {
        let place = Place::Header("x-event".to_owned());
        let Some(map) = headers(&[("x-event", &written)]) else { return Ok(()) };
        let id = said(Some(&place), None, &map, b"{}");
        let is_visible = matches("^[ -~]*$", &written);
        prop_assert_eq!(id.is_ok(), is_visible);
        if let Ok(id) = id {
            let fits = (1..=TEXT_BYTES_MAX).contains(&written.len());
            prop_assert_eq!(id.map(String::into_bytes), fits.then_some(written));
        }
    }
}

#[test]
fn headers_of_64_kib_are_refused_by_every_scheme_at_once() {
    let settings = described();
    let Scheme::Hmac(settings) = &settings else {
        unreachable!()
    };
    for (_, sent, signed) in samples(b"{}") {
        for name in signed {
            let pieces = [
                "v1,", "v1,AAAA ", "t=1,", "v1=00,", "sha256=", "0", "=", ",", " ", "\"",
            ];
            each_long(&pieces, |value| {
                let map = sent.clone().with(name, value).map().unwrap();
                let claims: Vec<Result<Claim<'_>, Refusal>> = vec![
                    standard::claim(&map, b"{}"),
                    github::claim(&map, b"{}"),
                    stripe::claim(&map, b"{}"),
                    shopify::claim(&map, b"{}"),
                    slack::claim(&map, b"{}"),
                    hmac::claim(settings, &map, b"{}"),
                    shared_secret::claim(name, "", &map),
                ];
                assert!(claims.iter().all(Result::is_err), "{name}");
            });
        }
    }
}
