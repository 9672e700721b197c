use std::{sync::LazyLock, time::Duration};

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
        RSA_PSS_SHA256, RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
    },
};
use proptest::prelude::*;
use serde_json::json;
use url::Url;

use super::*;

const NOW: i64 = 1_795_000_000;

/// The issuer's keys, another's key, and what the issuer publishes.
struct Keys {
    rsa: RsaKeyPair,
    other: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    published: Vec<u8>,
}

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let ed = Ed25519KeyPair::generate().unwrap();
    let (x, y) = ec.public_key().as_ref()[1..].split_at(32);
    let mut rsa_key = rsa_jwk(&rsa);
    rsa_key["kid"] = "rsa".into();
    let published = json!({ "keys": [
        rsa_key,
        { "kty": "EC", "crv": "P-256", "kid": "ec", "use": "sig", "alg": "ES256", "x": b64(x), "y": b64(y) },
        { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": b64(ed.public_key().as_ref()) },
        { "kty": "oct", "kid": "shared", "k": b64(b"a secret that is published by mistake") },
        { "kty": "RSA", "kid": "enc", "use": "enc", "n": rsa_key["n"], "e": rsa_key["e"] },
        { "kty": "new", "kid": "strange", "alg": "XY999" },
        7,
    ] });
    Keys {
        other: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
        published: published.to_string().into_bytes(),
        rsa,
        ec,
        ed,
    }
});

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn rsa_jwk(key: &RsaKeyPair) -> Value {
    let RsaPublicKeyComponents { n, e } = RsaPublicKeyComponents::<Vec<u8>>::from(key.public_key());
    json!({ "kty": "RSA", "n": b64(n), "e": b64(e) })
}

fn issuer() -> Issuer {
    let url = "https://login.example/realms/shop";
    Issuer {
        name: Name::new("login").unwrap(),
        issuer: Url::parse(url).unwrap(),
        issuer_text: url.to_owned(),
        audience: vec!["landfall".to_owned(), "https://ingest.example".to_owned()],
        keys_url: None,
        algorithms: Issuer::ALGORITHMS_DEFAULT.to_vec(),
        producer: JsonPath::parse("$.azp").unwrap(),
        producers: Vec::new(),
        scopes: Some(JsonPath::parse("$.scope").unwrap()),
        scope_words: Vec::new(),
        lifetime_max: Issuer::LIFETIME_MAX_DEFAULT,
        skew: Issuer::SKEW_MAX,
        keys_ttl: Issuer::KEYS_TTL_DEFAULT,
    }
}

fn claims() -> Value {
    json!({
        "iss": "https://login.example/realms/shop", "aud": "landfall", "azp": "checkout", "scope": "openid ingest",
        "iat": NOW, "exp": NOW + 300,
    })
}

fn signed_part(header: &Value, claims: &Value) -> String {
    format!("{}.{}", b64(header.to_string()), b64(claims.to_string()))
}

fn rsa_signed(header: &Value, claims: &Value, key: &RsaKeyPair, padding: &'static dyn RsaEncoding) -> String {
    let signed = signed_part(header, claims);
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(padding, &SystemRandom::new(), signed.as_bytes(), &mut signature)
        .unwrap();
    format!("{signed}.{}", b64(signature))
}

fn rs256(header: &Value, claims: &Value) -> String {
    rsa_signed(header, claims, &KEYS.rsa, &RSA_PKCS1_SHA256)
}

fn header() -> Value {
    json!({ "alg": "RS256", "typ": "at+jwt", "kid": "rsa" })
}

/// Some claims replaced; null takes one away.
fn with(whole: Value, changes: Value) -> Value {
    let mut whole = whole;
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => whole.as_object_mut().unwrap().remove(name),
            value => whole.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    whole
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(seconds, 0).unwrap()
}

fn judged_by(issuer: &Issuer, token: &str, now: i64) -> Result<Proven, Denial> {
    let keys = KeySet::parse(&KEYS.published).unwrap();
    Unverified::read(token)?.verify(issuer, &keys, at(now))
}

fn judged(token: &str) -> Result<Proven, Denial> {
    judged_by(&issuer(), token, NOW)
}

#[test]
fn r158_a_good_token_proves_its_producer_and_scopes() {
    let proven = judged(&rs256(&header(), &claims())).unwrap();
    assert_eq!(proven.subject, "checkout");
    assert_eq!(proven.scopes, Some(Scopes::of([Scope::Ingest])));

    let pss = with(header(), json!({ "alg": "PS256" }));
    assert!(judged(&rsa_signed(&pss, &claims(), &KEYS.rsa, &RSA_PSS_SHA256)).is_ok());
    let ec = signed_part(&json!({ "alg": "ES256", "kid": "ec" }), &claims());
    let signature = KEYS.ec.sign(&SystemRandom::new(), ec.as_bytes()).unwrap();
    assert!(judged(&format!("{ec}.{}", b64(signature))).is_ok());
    let ed = signed_part(&json!({ "alg": "EdDSA", "kid": "ed" }), &claims());
    assert!(judged(&format!("{ed}.{}", b64(KEYS.ed.sign(ed.as_bytes())))).is_ok());
    // Of one key only one can be meant.
    assert!(judged(&rs256(&json!({ "alg": "RS256" }), &claims())).is_ok());
}

#[test]
fn f114_r158_what_is_forged_expired_or_for_others_is_refused_with_its_class() {
    let good = rs256(&header(), &claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let public = serde_json::to_vec(&rsa_jwk(&KEYS.rsa)).unwrap();
    let shared = |header: Value, key: &[u8]| {
        let signed = signed_part(&header, &claims());
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes());
        format!("{signed}.{}", b64(tag))
    };
    let head = |changes| rs256(&with(header(), changes), &claims());
    let said = |changes| rs256(&header(), &with(claims(), changes));
    let mut flipped = signature.to_owned();
    flipped.replace_range(..1, if signature.starts_with('A') { "B" } else { "A" });
    let table = [
        // alg: none, in every spelling, with and without a signature
        (
            Denial::JwtAlgorithm,
            format!(
                "{}.",
                signed_part(&with(header(), json!({ "alg": "none" })), &claims())
            ),
        ),
        (Denial::JwtAlgorithm, head(json!({ "alg": "nOnE" }))),
        (Denial::JwtAlgorithm, head(json!({ "alg": null }))),
        (Denial::JwtAlgorithm, head(json!({ "alg": ["RS256"] }))),
        (Denial::JwtAlgorithm, head(json!({ "alg": "rs256" }))),
        // the public key taken for a shared secret
        (
            Denial::JwtAlgorithm,
            shared(json!({ "alg": "HS256", "kid": "rsa" }), &public),
        ),
        (
            Denial::JwtAlgorithm,
            shared(
                json!({ "alg": "HS256", "kid": "shared" }),
                b"a secret that is published by mistake",
            ),
        ),
        (Denial::JwtSignature, shared(header(), &public)),
        // an algorithm that is known and not wanted here, and one that the key is not for
        (Denial::JwtAlgorithm, head(json!({ "alg": "RS384" }))),
        (Denial::JwtKeyUnknown, head(json!({ "alg": "ES256" }))),
        (Denial::JwtKeyUnknown, head(json!({ "kid": "ec" }))),
        (Denial::JwtKeyUnknown, head(json!({ "kid": "enc" }))),
        // a key by the way
        (Denial::JwtHeader, head(json!({ "jwk": rsa_jwk(&KEYS.other) }))),
        (
            Denial::JwtHeader,
            head(json!({ "jku": "https://evil.example/keys" })),
        ),
        (
            Denial::JwtHeader,
            head(json!({ "x5u": "https://evil.example/cert" })),
        ),
        (Denial::JwtHeader, head(json!({ "x5c": ["MIIB"] }))),
        (Denial::JwtHeader, head(json!({ "crit": ["exp"] }))),
        (Denial::JwtHeader, head(json!({ "typ": "logout+jwt" }))),
        (Denial::JwtHeader, head(json!({ "typ": 7 }))),
        // names of keys that mean something to a file system or a database
        (
            Denial::JwtKeyUnknown,
            head(json!({ "kid": "../../../../dev/null" })),
        ),
        (Denial::JwtKeyUnknown, head(json!({ "kid": "' UNION SELECT 'x" }))),
        (Denial::JwtKeyUnknown, head(json!({ "kid": "" }))),
        (Denial::JwtHeader, head(json!({ "kid": "k".repeat(257) }))),
        (Denial::JwtHeader, head(json!({ "kid": { "$ne": 1 } }))),
        // another key, another text, no signature
        (
            Denial::JwtSignature,
            rsa_signed(&header(), &claims(), &KEYS.other, &RSA_PKCS1_SHA256),
        ),
        (
            Denial::JwtSignature,
            format!(
                "{}.{signature}",
                signed_part(&header(), &with(claims(), json!({ "azp": "admin" })))
            ),
        ),
        (Denial::JwtSignature, format!("{signed}.{flipped}")),
        (Denial::JwtSignature, format!("{signed}.")),
        (
            Denial::JwtSignature,
            rsa_signed(&header(), &claims(), &KEYS.rsa, &RSA_PSS_SHA256),
        ),
        // issuer and audience
        (Denial::JwtIssuer, said(json!({ "iss": "https://evil.example" }))),
        (
            Denial::JwtIssuer,
            said(json!({ "iss": "https://login.example/realms/shop/" })),
        ),
        (Denial::JwtIssuer, said(json!({ "iss": null }))),
        (Denial::JwtAudience, said(json!({ "aud": "other" }))),
        (
            Denial::JwtAudience,
            said(json!({ "aud": ["other", 7, "landfall "] })),
        ),
        (Denial::JwtAudience, said(json!({ "aud": { "landfall": true } }))),
        (Denial::JwtAudience, said(json!({ "aud": null }))),
        // time
        (
            Denial::JwtExpired,
            said(json!({ "iat": NOW - 400, "exp": NOW - 60 })),
        ),
        (Denial::JwtExpired, said(json!({ "exp": -1e11 }))),
        (Denial::JwtNotYet, said(json!({ "nbf": NOW + 61 }))),
        (
            Denial::JwtNotYet,
            said(json!({ "iat": NOW + 61, "exp": NOW + 300 })),
        ),
        (Denial::JwtMalformed, said(json!({ "exp": null }))),
        (Denial::JwtMalformed, said(json!({ "exp": "2099-01-01" }))),
        (Denial::JwtMalformed, said(json!({ "exp": 1e300 }))),
        (Denial::JwtMalformed, said(json!({ "nbf": true }))),
        (Denial::JwtLifetime, said(json!({ "exp": NOW + 3601 }))),
        (
            Denial::JwtLifetime,
            said(json!({ "iat": null, "exp": NOW + 3661 })),
        ),
        (
            Denial::JwtLifetime,
            said(json!({ "iat": NOW - 3400, "exp": NOW + 300 })),
        ),
        // who it is
        (Denial::ProducerUnknown, said(json!({ "azp": null }))),
        (Denial::ProducerUnknown, said(json!({ "azp": "" }))),
        (
            Denial::ProducerUnknown,
            said(json!({ "azp": { "name": "checkout" } })),
        ),
        // form
        (Denial::JwtMalformed, String::new()),
        (Denial::JwtMalformed, "a.b".to_owned()),
        (Denial::JwtMalformed, "..".to_owned()),
        (Denial::JwtMalformed, format!("{good}.x")),
        (Denial::JwtMalformed, format!("x.{good}")),
        (Denial::JwtMalformed, good.replacen('.', "=.", 1)),
        (
            Denial::JwtMalformed,
            format!("{}.{}.{signature}", b64("[1]"), b64("{}")),
        ),
        (
            Denial::JwtMalformed,
            format!(
                "{}.{}.{signature}",
                b64(r#"{"alg":"none","alg":"RS256"}"#),
                b64(claims().to_string())
            ),
        ),
        (
            Denial::JwtMalformed,
            format!("{signed}.{}", "A".repeat(JWT_BYTES_MAX)),
        ),
    ];
    for (denial, token) in table {
        assert_eq!(judged(&token).unwrap_err(), denial, "{token}");
    }
}

#[test]
fn f114_clocks_may_differ_by_a_minute_and_no_more() {
    let token = rs256(&header(), &with(claims(), json!({ "nbf": NOW })));
    for (now, denial) in [
        (NOW - 61, Some(Denial::JwtNotYet)),
        (NOW - 60, None),
        (NOW + 359, None),
        (NOW + 360, Some(Denial::JwtExpired)),
    ] {
        assert_eq!(judged_by(&issuer(), &token, now).err(), denial, "{now}");
    }
    let strict = Issuer {
        skew: Duration::ZERO,
        ..issuer()
    };
    assert_eq!(
        judged_by(&strict, &token, NOW - 1).unwrap_err(),
        Denial::JwtNotYet
    );
    assert_eq!(
        judged_by(&strict, &token, NOW + 300).unwrap_err(),
        Denial::JwtExpired
    );
    // No setting makes it more than a minute.
    let lax = Issuer {
        skew: Duration::from_secs(3600),
        ..issuer()
    };
    assert_eq!(
        judged_by(&lax, &token, NOW + 360).unwrap_err(),
        Denial::JwtExpired
    );
    // A date may have a fraction.
    let fraction = rs256(&header(), &with(claims(), json!({ "exp": NOW as f64 + 0.5 })));
    assert!(judged_by(&strict, &fraction, NOW).is_ok());
    assert_eq!(
        judged_by(&strict, &fraction, NOW + 1).unwrap_err(),
        Denial::JwtExpired
    );
}

#[test]
fn r162_claims_become_a_producer_and_scopes_as_the_project_says() {
    let checkout = Name::new("checkout").unwrap();
    let mapped = Issuer {
        producer: JsonPath::parse("$.realm.client").unwrap(),
        producers: vec![("0oa1".to_owned(), checkout.clone())],
        scopes: Some(JsonPath::parse("$.roles").unwrap()),
        scope_words: vec![("landfall:write".to_owned(), Scope::Ingest)],
        ..issuer()
    };
    let table: HashMap<String, Name> = mapped.producers.iter().cloned().collect();
    let claims = with(
        claims(),
        json!({ "realm": { "client": "0oa1" }, "roles": ["landfall:write", "admin", 7] }),
    );
    let proven = judged_by(&mapped, &rs256(&header(), &claims), NOW).unwrap();
    assert_eq!(proven.scopes, Some(Scopes::of([Scope::Ingest])));
    assert_eq!(named(&mapped, &table, &proven.subject), Some(checkout.clone()));
    // With a table, the name itself is not one.
    assert_eq!(named(&mapped, &table, "checkout"), None);
    assert_eq!(named(&issuer(), &HashMap::new(), "checkout"), Some(checkout));
    assert_eq!(named(&issuer(), &HashMap::new(), "../checkout"), None);
    let none = with(claims, json!({ "roles": null }));
    let proven = judged_by(&mapped, &rs256(&header(), &none), NOW).unwrap();
    assert_eq!(proven.scopes, Some(Scopes::default()));
}

#[test]
fn keys_that_are_no_public_signing_keys_are_passed_over() {
    for text in [
        "",
        "[]",
        "{}",
        r#"{"keys":{}}"#,
        r#"{"keys":[]}"#,
        r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#,
    ] {
        assert!(KeySet::parse(text.as_bytes()).is_err(), "{text}");
    }
    let keys = KeySet::parse(&KEYS.published).unwrap();
    assert!(keys.find(Some("rsa"), SigningAlgorithm::Rs256).is_some());
    for kid in ["shared", "enc", "strange"] {
        for (_, algorithm) in SigningAlgorithm::ALL {
            assert!(keys.find(Some(kid), algorithm).is_none(), "{kid}");
        }
    }
    // With two that fit, a token has to say which one it means.
    let two = json!({ "keys": [with(rsa_jwk(&KEYS.rsa), json!({ "kid": "a" })), with(rsa_jwk(&KEYS.other), json!({ "kid": "b" }))] });
    let two = KeySet::parse(two.to_string().as_bytes()).unwrap();
    assert!(two.find(None, SigningAlgorithm::Rs256).is_none());
    assert!(two.find(Some("b"), SigningAlgorithm::Rs256).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn f114_no_text_is_a_token_and_none_makes_it_panic(text: String, parts in prop::collection::vec("[A-Za-z0-9_-]{0,40}", 0..5)) {
        let keys = KeySet::parse(&KEYS.published).unwrap();
        for text in [text, parts.join(".")] {
            if let Ok(token) = Unverified::read(&text) {
                prop_assert!(token.verify(&issuer(), &keys, at(NOW)).is_err());
            }
        }
    }

    /// One byte changed anywhere: it is refused, whatever it then says.
    #[test]
    fn f114_no_changed_token_is_taken(place: prop::sample::Index, byte: u8) {
        let good = rs256(&header(), &claims());
        let mut bytes = good.clone().into_bytes();
        let place = place.index(bytes.len());
        prop_assume!(bytes[place] != byte);
        bytes[place] = byte;
        if let Ok(changed) = str::from_utf8(&bytes) {
            prop_assert!(judged(changed).is_err(), "{}", changed);
        }
    }

    #[test]
    fn f114_no_claims_make_it_panic(exp: f64, iat: Option<i64>, nbf: Option<f64>, aud: String) {
        let claims = with(claims(), json!({ "exp": exp, "iat": iat, "nbf": nbf, "aud": aud }));
        let _ = judged(&rs256(&header(), &claims));
    }
}
