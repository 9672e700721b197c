use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    event::{Answer, Fingerprint},
    tests_support::{
        NOW, Sent, WHSEC, at, github, hex, mac, named, outcome, received, samples, slack, standard, v1,
        webhook, whpk,
    },
    *,
};
use crate::config::{
    secret::Secret,
    webhook::{
        Hmac, HmacAlgorithm, MomentFormat, SignatureEncoding, SignedMoment, SignedPart, WebhookSecret,
    },
};

const STANDARD_NAMES: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];

/// The published values of "Validating webhook deliveries" in GitHub's documentation.
#[test]
fn the_vector_of_github_holds() {
    let webhook = webhook(Scheme::Github, "It's a Secret to Everybody");
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let sent = Sent::new(&[("x-hub-signature-256", signature)], "Hello, World!");
    assert_eq!(outcome(&webhook, &sent, NOW), "signed with main");
    let other = Sent::new(&[("x-hub-signature-256", signature)], "Hello, World?");
    assert_eq!(outcome(&webhook, &other, NOW), "mismatch");
}

/// The published values of "Verifying requests from Slack" in Slack's documentation.
#[test]
fn the_vector_of_slack_holds() {
    let webhook = webhook(Scheme::Slack, "8f742231b10e8888abcd99yyyzzz85a5");
    let headers = [
        ("x-slack-request-timestamp", "1531420618"),
        (
            "x-slack-signature",
            "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
        ),
    ];
    let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&\
                channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&\
                response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&\
                trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    let sent = Sent::new(&headers, body);
    assert_eq!(outcome(&webhook, &sent, 1_531_420_618), "signed with main");
    assert_eq!(outcome(&webhook, &sent, NOW), "stale");
}

/// The values that the libraries of Standard Webhooks are tested with, in Go the asymmetric one.
#[test]
fn the_vectors_of_standard_webhooks_hold() {
    let signed = 1_614_265_330;
    for (secret, signature) in [
        (
            WHSEC.to_owned(),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
        (
            WHSEC.replace("whsec_", ""),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
        (
            whpk(),
            "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag==",
        ),
        (
            whpk().trim_end_matches('=').to_owned(),
            "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag==",
        ),
    ] {
        let webhook = webhook(Scheme::StandardWebhooks, &secret);
        let headers = [
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", signature),
        ];
        let sent = Sent::new(&headers, r#"{"test": 2432232314}"#);
        let verified = received(&webhook, &sent, signed).unwrap();
        assert_eq!(verified.event_id.as_deref(), Some("msg_p5jXN8AQM9LWM0D4loKWxJek"));
        assert_eq!(verified.timestamp, Some(at(signed)));
        let renamed = Sent {
            headers: sent
                .headers
                .iter()
                .map(|(name, value)| (name.replace("webhook", "svix"), value.clone()))
                .collect(),
            ..sent.clone()
        };
        assert_eq!(received(&webhook, &renamed, signed).unwrap(), verified);
        assert_eq!(outcome(&webhook, &sent, NOW), "stale");
    }
}

/// RFC 2202, section 3, and RFC 4231, section 4.3: "Jefe" over "what do ya want for nothing?".
#[test]
fn the_vectors_of_hmac_hold_in_either_encoding() {
    for (algorithm, tag) in [
        (HmacAlgorithm::Sha1, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
        (
            HmacAlgorithm::Sha256,
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            HmacAlgorithm::Sha512,
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
        ),
    ] {
        let base64 = STANDARD.encode(encoding::hex(tag).unwrap());
        for (encoding, written) in [
            (SignatureEncoding::Hex, tag.to_owned()),
            (SignatureEncoding::Hex, tag.to_uppercase()),
            (SignatureEncoding::Base64, base64),
        ] {
            let scheme = Scheme::Hmac(Hmac {
                header: "x-signature".to_owned(),
                algorithm,
                encoding,
                prefix: String::new(),
                timestamp: None,
                signed: vec![SignedPart::Text("what do ya ".to_owned()), SignedPart::Body],
            });
            let webhook = webhook(scheme, "Jefe");
            let sent = Sent::new(&[("x-signature", &written)], "want for nothing?");
            assert_eq!(outcome(&webhook, &sent, NOW), "signed with main", "{written}");
            let short = sent.clone().with("x-signature", &written[..written.len() - 4]);
            assert_eq!(outcome(&webhook, &short, NOW), "malformed", "{written}");
        }
    }
}

#[test]
fn every_scheme_believes_its_own_request_and_no_other_secret() {
    for (mut webhook, sent, _) in samples(b"{\"id\": \"e-1\"}") {
        let scheme = webhook.scheme.as_str();
        assert_eq!(outcome(&webhook, &sent, NOW), "signed with main", "{scheme}");
        webhook.secrets[0].value = Secret::literal(match &webhook.scheme {
            Scheme::StandardWebhooks => "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
            _ => "another",
        });
        assert_eq!(outcome(&webhook, &sent, NOW), "mismatch", "{scheme}");
    }
}

#[test]
fn f083_a_signature_is_good_as_far_from_now_as_the_tolerance_says() {
    for (webhook, sent, _) in samples(b"{}") {
        let scheme = webhook.scheme.as_str();
        // The sample of `hmac` is signed 123 ms later than the others.
        let (before, after) = match &webhook.scheme {
            Scheme::Hmac(_) => (299, 300),
            _ => (300, 300),
        };
        let classes = [
            (NOW - before, "signed with main"),
            (NOW - 301, "early"),
            (NOW + after, "signed with main"),
            (NOW + 301, "stale"),
            (0, "early"),
            (NOW * 100, "stale"),
        ];
        for (now, class) in classes {
            let expected = if webhook.scheme.is_dated() {
                class
            } else {
                "signed with main"
            };
            assert_eq!(outcome(&webhook, &sent, now), expected, "{scheme} at {now}");
        }
    }
}

#[test]
fn f087_secrets_overlap_and_a_retired_one_is_refused_by_name() {
    let (old, new) = (WHSEC, "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
    let (id, timestamp, body) = ("msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", NOW.to_string(), b"{}");
    let by = |secret| v1(secret, id, &timestamp, body);
    let both = format!("{} {}", by(old), by(new));
    let sent = |signature: &str| standard(STANDARD_NAMES, signature, body);
    let mut webhook = webhook(Scheme::StandardWebhooks, old);
    let mut phase = |secrets: Vec<WebhookSecret>| {
        webhook.secrets = secrets;
        [by(old), both.clone(), by(new)].map(|signature| outcome(&webhook, &sent(&signature), NOW))
    };
    let only_old = phase(vec![named("old", old, None)]);
    assert_eq!(only_old, ["signed with old", "signed with old", "mismatch"]);
    let overlap = phase(vec![named("old", old, Some(NOW + 1)), named("new", new, None)]);
    assert_eq!(overlap, ["signed with old", "signed with old", "signed with new"]);
    let retired = phase(vec![named("old", old, Some(NOW)), named("new", new, None)]);
    assert_eq!(retired, ["retired", "signed with new", "signed with new"]);
    let gone = phase(vec![named("new", new, None)]);
    assert_eq!(gone, ["mismatch", "signed with new", "signed with new"]);
    let refusal = received(
        &Webhook {
            secrets: vec![named("old", old, Some(NOW))],
            ..webhook
        },
        &sent(&by(old)),
        NOW,
    );
    assert_eq!(
        refusal.unwrap_err().to_string(),
        "signed with old, which is retired"
    );
}

#[test]
fn f087_a_sender_with_several_secrets_signs_once_for_each() {
    let (old, new) = (named("old", "one", Some(NOW)), named("new", "two", None));
    let tag = |secret: &str| {
        hex(&mac(
            secret.as_bytes(),
            &[NOW.to_string().as_bytes(), b".", b"{}"],
        ))
    };
    let webhook = Webhook {
        secrets: vec![old, new],
        ..webhook(Scheme::Stripe, "")
    };
    for header in [
        format!("t={NOW},v1={},v1={}", tag("one"), tag("two")),
        format!("t={NOW},v1={},v0=6ffbb59b2300aae63f272406069a9788", tag("two")),
        format!("v1={},t={NOW}", tag("two")),
    ] {
        let sent = Sent::new(&[("stripe-signature", &header)], "{}");
        assert_eq!(outcome(&webhook, &sent, NOW), "signed with new", "{header}");
    }
    let sent = Sent::new(
        &[("stripe-signature", &format!("t={NOW},v1={}", tag("one")))],
        "{}",
    );
    assert_eq!(outcome(&webhook, &sent, NOW), "retired");
}

#[test]
fn a_shared_and_a_public_key_may_stand_side_by_side() {
    let (body, id) = (b"{}", "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W");
    let mut webhook = webhook(Scheme::StandardWebhooks, WHSEC);
    webhook.secrets.push(named("public", &whpk(), None));
    let all = samples(body);
    let asymmetric = String::from_utf8(all[1].1.headers[2].1.clone()).unwrap();
    let shared = v1(WHSEC, id, &NOW.to_string(), body);
    let unknown = "v2,AAAA";
    for (list, by) in [
        (asymmetric.clone(), "public"),
        (format!("{unknown} {shared} {asymmetric}"), "main"),
        (format!("{asymmetric} {shared}"), "main"),
    ] {
        let said = outcome(&webhook, &standard(STANDARD_NAMES, &list, body), NOW);
        assert_eq!(said, format!("signed with {by}"), "{list}");
    }
    // The same bytes under the name of the other kind prove nothing.
    let relabelled = shared.replace("v1,", "v1a,");
    let said = outcome(&webhook, &standard(STANDARD_NAMES, &relabelled, body), NOW);
    assert_eq!(said, "malformed");
}

#[test]
fn r108_a_shared_secret_in_a_header_is_compared_whole() {
    let scheme = |prefix: &str| Scheme::SharedSecret {
        header: "authorization".to_owned(),
        prefix: prefix.to_owned(),
    };
    let mut plain = webhook(scheme(""), "hunter2");
    plain.secrets.push(named("old", "hunter1", Some(NOW)));
    let said =
        |webhook: &Webhook, value: &str| outcome(webhook, &Sent::new(&[("authorization", value)], "{}"), NOW);
    assert_eq!(said(&plain, "hunter2"), "signed with main");
    assert_eq!(said(&plain, "hunter1"), "retired");
    for wrong in ["hunter", "hunter22", "Hunter2", "unter2"] {
        assert_eq!(said(&plain, wrong), "mismatch", "{wrong}");
    }
    assert_eq!(said(&plain, ""), "missing");
    let prefixed = webhook(scheme("Bearer "), "hunter2");
    assert_eq!(said(&prefixed, "Bearer hunter2"), "signed with main");
    assert_eq!(said(&prefixed, "bearer hunter2"), "malformed");
    assert_eq!(said(&prefixed, "hunter2"), "malformed");
}

#[test]
fn nothing_is_asked_for_where_every_request_is_believed() {
    let webhook = Webhook {
        secrets: Vec::new(),
        ..webhook(Scheme::None, "")
    };
    let verified = received(&webhook, &Sent::new(&[], "{}"), NOW).unwrap();
    assert_eq!((verified.key, verified.timestamp), (None, None));
}

#[test]
fn id_and_type_are_read_where_the_settings_say() {
    let body = br#"{"event_id": "Ev1", "event": {"type": "message"}, "id": 17, "type": "charge.failed", "deep": {"id": ["x"]}}"#;
    let mut found = Vec::new();
    for (webhook, sent, _) in samples(body) {
        let sent = match webhook.scheme {
            Scheme::Shopify => sent
                .with("x-shopify-webhook-id", "b54557e4")
                .with("x-shopify-topic", "orders/create"),
            _ => sent,
        };
        let verified = received(&webhook, &sent, NOW).unwrap();
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "none".to_owned());
        let (id, kind) = (or_none(verified.event_id), or_none(verified.event_type));
        found.push(format!("{}: {id}, {kind}", webhook.scheme.as_str()));
    }
    insta::assert_snapshot!(found.join("\n"), @"
    standard_webhooks: msg_2KWPBgLlAfxdpx2AI54pPJ85f4W, charge.failed
    standard_webhooks: msg_2KWPBgLlAfxdpx2AI54pPJ85f4W, charge.failed
    standard_webhooks: msg_2KWPBgLlAfxdpx2AI54pPJ85f4W, charge.failed
    github: 72d3162e-cc78-11e3-81ab-4c9367dc0958, push
    stripe: 17, charge.failed
    shopify: b54557e4, orders/create
    slack: Ev1, message
    hmac: none, none
    ");
}

#[test]
fn a_body_is_looked_into_only_once_its_signature_holds() {
    let broken = b"{\"type\": \"url_verification\", \"challenge\": ";
    for (webhook, sent, _) in samples(broken) {
        let verified = received(&webhook, &sent, NOW).unwrap();
        assert_eq!(verified.handshake, None);
        let forged = Sent {
            body: b"not JSON either".to_vec(),
            ..sent
        };
        assert_eq!(outcome(&webhook, &forged, NOW), "mismatch");
    }
    let webhook = webhook(Scheme::Slack, "slack");
    let challenge = br#"{"type": "url_verification", "challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}"#;
    let forged = slack("guessed", &NOW.to_string(), challenge);
    assert_eq!(outcome(&webhook, &forged, NOW), "mismatch");
}

#[test]
fn f088_a_body_that_is_no_text_is_verified_byte_by_byte() {
    let body = [0xff, 0x00, 0xfe, b'\r', b'\n', 0xc3];
    for (webhook, sent, _) in samples(&body) {
        let verified = received(&webhook, &sent, NOW).unwrap();
        assert_eq!(verified.body, Fingerprint::of(&body));
        let lossy = String::from_utf8_lossy(&body).into_owned().into_bytes();
        let decoded = Sent { body: lossy, ..sent };
        assert_eq!(outcome(&webhook, &decoded, NOW), "mismatch");
    }
}

#[test]
fn a_fingerprint_tells_a_repeat_from_another_use_of_its_id() {
    let of = |body: &[u8]| {
        let sent = github("hook", "push", body);
        let verified = received(&webhook(Scheme::Github, "hook"), &sent, NOW).unwrap();
        (verified.event_id, verified.body)
    };
    assert_eq!(of(b"{\"a\": 1}"), of(b"{\"a\": 1}"));
    let (one, other) = (of(b"{\"a\": 1}"), of(b"{\"a\": 2}"));
    assert!(one.0 == other.0 && one.1 != other.1);
    // FIPS 180-2, appendix B.1.
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(Fingerprint::of(b"abc").to_string(), abc);
}

#[test]
fn handshakes_are_answered_and_nothing_else_is() {
    let text = |body: &str| {
        Some(Answer {
            status: 200,
            content_type: "text/plain; charset=utf-8",
            body: body.to_owned(),
        })
    };
    let slack = |body: &str| {
        let sent = slack("s", &NOW.to_string(), body.as_bytes());
        received(&webhook(Scheme::Slack, "s"), &sent, NOW)
            .unwrap()
            .handshake
    };
    let hello =
        r#"{"token": "Jhj5dZrVaK7ZwHHjRyZWjbDl", "challenge": "3eZbrw1a", "type": "url_verification"}"#;
    assert_eq!(slack(hello), text("3eZbrw1a"));
    assert_eq!(slack(&hello.replace("url_verification", "event_callback")), None);
    assert_eq!(slack(&hello.replace("\"3eZbrw1a\"", "{}")), None);
    assert_eq!(slack(&hello.replace("3eZbrw1a", &"x".repeat(1025))), None);
    assert_eq!(slack(r#"{"event": {"type": "url_verification"}}"#), None);
    let github = |event: &str, body: &str| {
        let sent = github("s", event, body.as_bytes());
        received(&webhook(Scheme::Github, "s"), &sent, NOW)
            .unwrap()
            .handshake
    };
    let ping = r#"{"zen": "Design for failure.", "hook_id": 7, "hook": {}}"#;
    assert_eq!(github("ping", ping), text("pong"));
    assert_eq!(github("push", ping), None);
    // The header is not signed: it makes no ping of a push.
    assert_eq!(github("ping", r#"{"ref": "refs/heads/main"}"#), None);
}

#[test]
fn a_secret_that_cannot_be_read_does_not_stop_the_others() {
    let sent = github("hook", "push", b"{}");
    let mut webhook = webhook(Scheme::Github, "hook");
    webhook.secrets.insert(
        0,
        WebhookSecret {
            value: Secret::parse("${file:/no/such/file}").unwrap(),
            ..named("new", "", None)
        },
    );
    let verifier = Verifier::open(&webhook).unwrap();
    let unread: Vec<String> = verifier.unread().iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(unread.join("\n"), @"read secret from a file (path: /no/such/file, secret: new)");
    assert!(verifier.verify(&sent.map().unwrap(), &sent.body, at(NOW)).is_ok());
    webhook.secrets.pop();
    let error = Verifier::open(&webhook).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[test]
fn what_is_no_secret_of_standard_webhooks_is_said_without_it() {
    let mut said = Vec::new();
    for secret in [
        "",
        "whsec_",
        "whsec_aHVudGVyMg==",
        "whsec_not-base64-but-hunter2-and-long-enough",
        "whsk_V0VCSE9PS0FTWU1NRVRSSUNURVNUUFJJVkFURUtFWTE=",
        "whpk_aHVudGVyMg==",
    ] {
        let error = Verifier::open(&webhook(Scheme::StandardWebhooks, secret))
            .err()
            .unwrap();
        said.push(error.to_string());
    }
    let said = said.join("\n");
    assert!(
        !said.contains("hunter2") && !said.contains("aHVudGVyMg"),
        "{said}"
    );
    insta::assert_snapshot!(said, @"
    read webhook secret (problem: it is empty, secret: main)
    read webhook secret (problem: it is not at least 24 bytes in Base64, hint: write it as the sender shows it: whsec_…, secret: main)
    read webhook secret (problem: it is not at least 24 bytes in Base64, hint: write it as the sender shows it: whsec_…, secret: main)
    read webhook secret (problem: it is not at least 24 bytes in Base64, hint: write it as the sender shows it: whsec_…, secret: main)
    read webhook secret (problem: it is a private key, hint: give the sender's public key, whpk_…; nobody else needs the private one, secret: main)
    read webhook secret (problem: it is not an Ed25519 key in Base64, hint: write it as the sender shows it, whpk_ included, secret: main)
    ");
}

#[test]
fn moments_are_read_in_the_form_that_is_described() {
    let scheme = |format| {
        Scheme::Hmac(Hmac {
            header: "x-signature".to_owned(),
            algorithm: HmacAlgorithm::Sha256,
            encoding: SignatureEncoding::Hex,
            prefix: String::new(),
            timestamp: Some(SignedMoment {
                header: "x-timestamp".to_owned(),
                format,
            }),
            signed: vec![SignedPart::Timestamp, SignedPart::Body],
        })
    };
    for (format, written) in [
        (MomentFormat::Seconds, "1795392000"),
        (MomentFormat::Milliseconds, "1795392000000"),
        (MomentFormat::Rfc3339, "2026-11-23T00:00:00Z"),
        (MomentFormat::Rfc3339, "2026-11-23T01:00:00.000+01:00"),
    ] {
        let tag = hex(&mac(b"s", &[written.as_bytes(), b"{}"]));
        let sent = Sent::new(&[("x-signature", &tag), ("x-timestamp", written)], "{}");
        let verified = received(&webhook(scheme(format), "s"), &sent, NOW).unwrap();
        assert_eq!(verified.timestamp, Some(at(NOW)), "{written}");
        let later = outcome(&webhook(scheme(format), "s"), &sent, NOW + 301);
        assert_eq!(later, "stale", "{written}");
    }
}
