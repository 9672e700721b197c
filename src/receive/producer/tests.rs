use std::{
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use proptest::prelude::*;

use super::*;
use crate::{clock::Timestamp, config::read::parse, receive::producer::token::RANDOM_BYTES};

const NOW: i64 = 1_795_000_000;

/// A clock that stands still until it is moved.
#[derive(Clone)]
struct Moved(Arc<AtomicI64>);

impl Moved {
    fn new() -> (Self, Clock) {
        let moved = Self(Arc::new(AtomicI64::new(NOW * 1000)));
        let millis = Arc::clone(&moved.0);
        let now = move || Timestamp::from_timestamp_millis(millis.load(Ordering::SeqCst)).unwrap();
        (moved, Clock::from_fn(now))
    }

    fn on(&self, millis: i64) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

fn token(number: u8) -> Token {
    Token::new([number; RANDOM_BYTES])
}

fn producers_at(dir: &Path, producers: &str, clock: &Clock) -> Result<Producers> {
    let text = format!(
        "lake: ./lake\nsources:\n  shop:\n    streams:\n      orders: {{ push: {{}}, table: {{ keys: [id] }} }}\n      \
         items: {{ push: {{}}, table: {{ keys: [id] }} }}\n  crm:\n    streams:\n      people: {{ push: {{}}, table: {{ keys: [id] }} }}\n\
         producers:\n{producers}"
    );
    let project = match parse(&text, dir) {
        Ok(loaded) => loaded.project,
        Err(problems) => panic!(
            "{}",
            problems
                .iter()
                .map(|problem| format!("{problem}\n"))
                .collect::<String>()
        ),
    };
    Producers::new(&project, clock)
}

fn producers(text: &str) -> Producers {
    producers_at(Path::new("/srv/shop"), text, &Moved::new().1).unwrap()
}

async fn shown(producers: &Producers, authorization: &str, certificate: &[&str]) -> Result<Caller, Denied> {
    let names: Vec<San> = certificate.iter().map(|name| San::parse(name).unwrap()).collect();
    let credentials = Credentials {
        authorization: &[authorization.as_bytes()],
        certificate: Some(&names),
    };
    let none = Credentials {
        authorization: &[],
        ..credentials
    };
    let credentials = if authorization.is_empty() {
        none
    } else {
        credentials
    };
    producers.authenticate(&credentials).await
}

async fn by_token(producers: &Producers, token: &Token) -> Result<Caller, Denied> {
    shown(producers, &format!("Bearer {}", token.reveal()), &[]).await
}

#[tokio::test]
async fn r154_a_token_proves_its_producer_and_any_other_proves_nothing() {
    let (mine, others) = (token(1), token(2));
    let all = producers(&format!(
        "  till: {{ streams: [shop.orders], tokens: {{ main: {{ hash: '{}' }} }} }}\n  \
           crm: {{ streams: ['crm.*'], tokens: {{ main: {{ hash: '{}' }} }} }}\n",
        mine.hash(),
        others.hash()
    ));
    let caller = by_token(&all, &mine).await.unwrap();
    assert_eq!(
        (
            caller.producer.name.as_str(),
            caller.credential.as_str(),
            caller.via
        ),
        ("till", "main", Via::Token)
    );
    let unknown = by_token(&all, &token(3)).await.unwrap_err();
    assert_eq!(unknown.denial, Denial::TokenUnknown);
    // The id of a token that is known with another secret.
    let mut random = [1; RANDOM_BYTES];
    random[20] = 0;
    let guessed = Token::new(random);
    assert_eq!(guessed.hash().id, mine.hash().id);
    let wrong = by_token(&all, &guessed).await.unwrap_err();
    assert_eq!(wrong.denial, Denial::TokenWrong);
    assert_eq!(
        (unknown.to_string(), unknown.challenge()),
        (wrong.to_string(), wrong.challenge())
    );
    assert!(!format!("{wrong:?}{caller:?}").contains(&mine.reveal()[17..]));
}

#[tokio::test]
async fn f159_what_is_no_credential_lets_nobody_in() {
    let mine = token(1);
    let all = producers(&format!(
        "  till: {{ streams: ['*'], tokens: {{ main: {{ hash: '{}' }} }} }}\n",
        mine.hash()
    ));
    let good = mine.reveal();
    for (authorization, denial) in [
        (String::new(), Denial::CredentialsMissing),
        ("Bearer".to_owned(), Denial::CredentialsMalformed),
        ("Bearer ".to_owned(), Denial::CredentialsMalformed),
        (format!("Basic {good}"), Denial::CredentialsMalformed),
        (good.to_owned(), Denial::CredentialsMalformed),
        (format!("Bearer {good},"), Denial::CredentialsMalformed),
        (format!("Bearer {good} {good}"), Denial::CredentialsMalformed),
        (format!("Bearer {good}0"), Denial::CredentialsMalformed),
        ("Bearer lfp_x".to_owned(), Denial::CredentialsMalformed),
        ("Bearer \u{7f}".to_owned(), Denial::CredentialsMalformed),
        (
            format!("Bearer {}", "a".repeat(100_000)),
            Denial::CredentialsMalformed,
        ),
        ("Bearer hunter2".to_owned(), Denial::JwtMalformed),
    ] {
        assert_eq!(
            shown(&all, &authorization, &[]).await.unwrap_err().denial,
            denial,
            "{authorization}"
        );
    }
    for authorization in [format!("Bearer {good}"), format!("bEARER   {good} ")] {
        assert!(shown(&all, &authorization, &[]).await.is_ok());
    }
    let value = format!("Bearer {good}");
    let twice = Credentials {
        authorization: &[value.as_bytes(), value.as_bytes()],
        certificate: None,
    };
    assert_eq!(
        all.authenticate(&twice).await.unwrap_err().denial,
        Denial::CredentialsMalformed
    );
    let bytes = Credentials {
        authorization: &[b"Bearer \xff"],
        certificate: None,
    };
    assert_eq!(
        all.authenticate(&bytes).await.unwrap_err().denial,
        Denial::CredentialsMalformed
    );
}

#[tokio::test]
async fn r155_r156_a_token_for_one_stream_is_refused_on_others_and_scopes_do_not_mix() {
    let (writer, reader) = (token(1), token(2));
    let all = producers(&format!(
        "  till: {{ streams: [shop.orders], tokens: {{ main: {{ hash: '{}' }} }} }}\n  \
           report: {{ scopes: read, streams: ['shop.*'], tokens: {{ main: {{ hash: '{}' }} }} }}\n",
        writer.hash(),
        reader.hash()
    ));
    let (writer, reader) = (
        by_token(&all, &writer).await.unwrap(),
        by_token(&all, &reader).await.unwrap(),
    );
    let stream = |name: &str| StreamName::parse(name).unwrap();
    let (orders, items, people) = (stream("shop.orders"), stream("shop.items"), stream("crm.people"));
    assert_eq!(writer.may(Scope::Ingest, Some(&orders)), Ok(()));
    assert_eq!(reader.may(Scope::Read, Some(&items)), Ok(()));
    for (caller, scope, stream, denial) in [
        (&writer, Scope::Ingest, &items, Denial::StreamForbidden),
        (&writer, Scope::Ingest, &people, Denial::StreamForbidden),
        (&writer, Scope::Read, &orders, Denial::ScopeMissing),
        (&writer, Scope::Admin, &orders, Denial::ScopeMissing),
        (&reader, Scope::Ingest, &orders, Denial::ScopeMissing),
        (&reader, Scope::Read, &people, Denial::StreamForbidden),
    ] {
        let denied = caller.may(scope, Some(stream)).unwrap_err();
        assert_eq!((denied.denial, denied.denial.told().status()), (denial, 403));
    }
    assert_eq!(
        writer.may(Scope::Admin, None).unwrap_err().scope,
        Some(Scope::Admin)
    );
    // A stream that does not exist is refused in the same words as one that is not theirs.
    let (missing, foreign) = (
        writer.may(Scope::Ingest, Some(&stream("no.such"))),
        writer.may(Scope::Ingest, Some(&people)),
    );
    assert_eq!(missing.unwrap_err().to_string(), foreign.unwrap_err().to_string());
}

#[tokio::test]
async fn r161_two_tokens_overlap_and_the_old_one_ends_at_its_time() {
    let (old, new) = (token(1), token(2));
    let (moved, clock) = Moved::new();
    let ends = Timestamp::from_timestamp(NOW + 10, 0).unwrap().to_rfc3339();
    let text = format!(
        "  till: {{ streams: ['*'], tokens: {{ old: {{ hash: '{}', expires: '{ends}' }}, new: {{ hash: '{}' }} }} }}\n",
        old.hash(),
        new.hash()
    );
    let all = producers_at(Path::new("/srv/shop"), &text, &clock).unwrap();
    assert_eq!(by_token(&all, &old).await.unwrap().credential, "old");
    assert_eq!(by_token(&all, &new).await.unwrap().credential, "new");
    moved.on(9_999);
    assert!(by_token(&all, &old).await.is_ok());
    moved.on(1);
    let denied = by_token(&all, &old).await.unwrap_err();
    assert_eq!(
        (denied.denial, denied.denial.told().status()),
        (Denial::TokenExpired, 401)
    );
    assert!(by_token(&all, &new).await.is_ok());
}

#[tokio::test]
async fn r055_a_new_token_file_counts_at_the_next_request_and_the_old_token_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (token(1), token(2));
    fs::write(dir.path().join("till"), format!("{}\n", old.reveal())).unwrap();
    let (moved, clock) = Moved::new();
    let text = "  till: { streams: ['*'], tokens: { main: { token: '${file:till}' } } }\n";
    let all = producers_at(dir.path(), text, &clock).unwrap();
    assert!(by_token(&all, &old).await.is_ok());
    assert_eq!(
        by_token(&all, &new).await.unwrap_err().denial,
        Denial::TokenUnknown
    );

    fs::write(dir.path().join("till"), new.reveal()).unwrap();
    // Names that nobody knows do not make it read more often than ten times in a second.
    assert!(by_token(&all, &new).await.is_err());
    moved.on(100);
    assert!(by_token(&all, &new).await.is_ok());
    assert_eq!(
        by_token(&all, &old).await.unwrap_err().denial,
        Denial::TokenUnknown
    );

    // A token that is taken back ends within a second.
    fs::remove_file(dir.path().join("till")).unwrap();
    moved.on(999);
    assert!(by_token(&all, &new).await.is_ok());
    moved.on(1);
    assert_eq!(
        by_token(&all, &new).await.unwrap_err().denial,
        Denial::TokenUnknown
    );
}

#[test]
fn tokens_that_cannot_be_read_are_told_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("bad"), "hunter2").unwrap();
    fs::write(dir.path().join("good"), token(1).reveal()).unwrap();
    let (_, clock) = Moved::new();
    let of = |tokens: &str| {
        let text = format!("  till: {{ streams: ['*'], tokens: {{ {tokens} }} }}\n");
        producers_at(dir.path(), &text, &clock).err().unwrap().chain()
    };
    let missing = of("main: { token: '${file:none}' }");
    assert!(missing.contains("till") && missing.contains("none"), "{missing}");
    let bad = of("main: { token: '${file:bad}' }");
    assert!(bad.contains("not a token") && !bad.contains("hunter2"), "{bad}");
    let twice = of("one: { token: '${file:good}' }, two: { token: '${file:good}' }");
    assert!(twice.contains("same id"), "{twice}");
}

#[tokio::test]
async fn a_certificate_stands_for_the_producer_of_its_name_and_for_no_other() {
    let mine = token(1);
    let all = producers(&format!(
        "  till: {{ streams: ['*'], certificates: ['dns:till.shop.example', 'uri:spiffe://shop/till'], tokens: {{ main: {{ hash: '{}' }} }} }}\n  \
           crm: {{ streams: ['*'], certificates: ['dns:crm.shop.example'] }}\n",
        mine.hash()
    ));
    let caller = shown(
        &all,
        "",
        &[
            "dns:other.example",
            "uri:spiffe://shop/till",
            "dns:TILL.shop.example",
        ],
    )
    .await
    .unwrap();
    assert_eq!(
        (caller.producer.name.as_str(), caller.via),
        ("till", Via::Certificate)
    );
    for (names, denial) in [
        (vec![], Denial::CredentialsMissing),
        (vec!["dns:shop.example"], Denial::CertificateUnknown),
        (vec!["dns:x.till.shop.example"], Denial::CertificateUnknown),
        (vec!["uri:spiffe://shop/TILL"], Denial::CertificateUnknown),
        (
            vec!["dns:till.shop.example", "dns:crm.shop.example"],
            Denial::CertificateAmbiguous,
        ),
    ] {
        assert_eq!(
            shown(&all, "", &names).await.unwrap_err().denial,
            denial,
            "{names:?}"
        );
    }
    // Where both are shown they have to agree; a bad token is not made good by a certificate.
    let good = format!("Bearer {}", mine.reveal());
    assert_eq!(
        shown(&all, &good, &["dns:till.shop.example"]).await.unwrap().via,
        Via::Token
    );
    assert_eq!(
        shown(&all, &good, &["dns:unknown.example"]).await.unwrap().via,
        Via::Token
    );
    assert_eq!(
        shown(&all, &good, &["dns:crm.shop.example"])
            .await
            .unwrap_err()
            .denial,
        Denial::CredentialsDiffer
    );
    let bad = format!("Bearer {}", token(2).reveal());
    assert_eq!(
        shown(&all, &bad, &["dns:till.shop.example"])
            .await
            .unwrap_err()
            .denial,
        Denial::TokenUnknown
    );
}

/// An issuer whose keys and manners change, on loopback.
mod outage {
    use std::sync::atomic::AtomicUsize;

    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
    };
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::receive::producer::issuer::RENEW_MIN;

    struct Provider {
        url: String,
        answers: Arc<Mutex<Answers>>,
        asked: Arc<AtomicUsize>,
    }

    struct Answers {
        status: &'static str,
        discovery: String,
        keys: String,
    }

    impl Provider {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let discovery = json!({ "issuer": url, "jwks_uri": format!("{url}/keys") }).to_string();
            let answers = Arc::new(Mutex::new(Answers {
                status: "200 OK",
                discovery,
                keys: "{}".to_owned(),
            }));
            let asked = Arc::new(AtomicUsize::new(0));
            let (said, count) = (Arc::clone(&answers), Arc::clone(&asked));
            tokio::spawn(async move {
                while let Ok((mut socket, _)) = listener.accept().await {
                    let mut request = vec![0; 4096];
                    let length = socket.read(&mut request).await.unwrap_or_default();
                    count.fetch_add(1, Ordering::SeqCst);
                    let answer = {
                        let said = said.lock().unwrap();
                        let keys = request[..length].starts_with(b"GET /keys");
                        let body = if keys { &said.keys } else { &said.discovery };
                        format!("HTTP/1.1 {}\r\nconnection: close\r\n\r\n{body}", said.status)
                    };
                    let _ = socket.write_all(answer.as_bytes()).await;
                }
            });
            Self { url, answers, asked }
        }

        fn say(&self, change: impl FnOnce(&mut Answers)) {
            change(&mut self.answers.lock().unwrap());
        }

        fn publish(&self, keys: &[&Signer]) {
            let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
            self.say(|answers| answers.keys = json!({ "keys": keys }).to_string());
        }

        fn asked(&self) -> usize {
            self.asked.swap(0, Ordering::SeqCst)
        }

        fn producers(&self, clock: &Clock) -> Producers {
            let text = format!(
                "  till: {{ streams: ['*'] }}\nserve:\n  issuers:\n    login: {{ issuer: '{}', audience: [landfall], keys_ttl: 1h }}\n",
                self.url
            );
            producers_at(Path::new("/srv/shop"), &text, clock).unwrap()
        }
    }

    struct Signer {
        kid: &'static str,
        key: EcdsaKeyPair,
    }

    impl Signer {
        fn new(kid: &'static str) -> Self {
            let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
            Self { kid, key }
        }

        fn jwk(&self) -> serde_json::Value {
            let (x, y) = self.key.public_key().as_ref()[1..].split_at(32);
            json!({ "kty": "EC", "crv": "P-256", "kid": self.kid, "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y) })
        }

        fn token(&self, issuer: &str, now: i64) -> String {
            let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
            let claims =
                json!({ "iss": issuer, "aud": ["landfall"], "sub": "till", "iat": now, "exp": now + 600 });
            let signed = format!(
                "{}.{}",
                part(json!({ "alg": "ES256", "kid": self.kid })),
                part(claims)
            );
            let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
            format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
        }
    }

    async fn try_with(
        producers: &Producers,
        signer: &Signer,
        provider: &Provider,
        moved: &Moved,
    ) -> Result<Caller, Denied> {
        let token = signer.token(&provider.url, moved.0.load(Ordering::SeqCst) / 1000);
        shown(producers, &format!("Bearer {token}"), &[]).await
    }

    #[tokio::test]
    async fn r162_new_keys_are_picked_up_and_old_ones_end() {
        let provider = Provider::start().await;
        let (one, two) = (Signer::new("one"), Signer::new("two"));
        provider.publish(&[&one]);
        let (moved, clock) = Moved::new();
        let all = provider.producers(&clock);
        let caller = try_with(&all, &one, &provider, &moved).await.unwrap();
        assert_eq!(
            (
                caller.producer.name.as_str(),
                caller.via,
                caller.credential.as_str()
            ),
            ("till", Via::Jwt, "login")
        );
        assert_eq!(provider.asked(), 2, "discovery and keys");
        for _ in 0..50 {
            try_with(&all, &one, &provider, &moved).await.unwrap();
        }
        assert_eq!(provider.asked(), 0);

        // Strangers name unknown keys: the issuer is not asked for each.
        provider.publish(&[&one, &two]);
        for _ in 0..50 {
            assert_eq!(
                try_with(&all, &two, &provider, &moved).await.unwrap_err().denial,
                Denial::JwtKeyUnknown
            );
        }
        assert_eq!(provider.asked(), 0);
        moved.on(i64::try_from(RENEW_MIN.as_millis()).unwrap());
        try_with(&all, &two, &provider, &moved).await.unwrap();
        assert_eq!(provider.asked(), 2);
        try_with(&all, &one, &provider, &moved).await.unwrap();

        // A key that is no longer published ends when the others are renewed.
        provider.publish(&[&two]);
        moved.on(300_000);
        try_with(&all, &two, &provider, &moved).await.unwrap();
        for _ in 0..1_000 {
            if try_with(&all, &one, &provider, &moved).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let denied = try_with(&all, &one, &provider, &moved).await.unwrap_err();
        assert_eq!(denied.denial, Denial::JwtKeyUnknown);
    }

    #[tokio::test]
    async fn r162_while_the_issuer_is_away_kept_keys_count_until_their_time_is_over() {
        let provider = Provider::start().await;
        let (one, two) = (Signer::new("one"), Signer::new("two"));
        provider.publish(&[&one]);
        let (moved, clock) = Moved::new();
        let all = provider.producers(&clock);
        try_with(&all, &one, &provider, &moved).await.unwrap();
        provider.say(|answers| answers.status = "503 Service Unavailable");
        for _ in 0..59 {
            moved.on(60_000);
            try_with(&all, &one, &provider, &moved).await.unwrap();
        }
        // A new key cannot be told from a made up one now.
        let denied = try_with(&all, &two, &provider, &moved).await.unwrap_err();
        assert_eq!(
            (denied.denial, denied.denial.told().status()),
            (Denial::IssuerUnavailable, 503)
        );
        assert_eq!(denied.retry_after, Some(RENEW_MIN));
        moved.on(60_000);
        let denied = try_with(&all, &one, &provider, &moved).await.unwrap_err();
        assert_eq!(denied.denial, Denial::IssuerUnavailable);
        provider.say(|answers| answers.status = "200 OK");
        moved.on(i64::try_from(RENEW_MIN.as_millis()).unwrap());
        try_with(&all, &one, &provider, &moved).await.unwrap();
    }

    #[tokio::test]
    async fn f114_keys_of_another_or_from_elsewhere_are_not_taken() {
        let provider = Provider::start().await;
        let one = Signer::new("one");
        provider.publish(&[&one]);
        let url = provider.url.clone();
        let documents = [
            json!({ "issuer": "https://evil.example", "jwks_uri": format!("{url}/keys") }).to_string(),
            json!({ "issuer": format!("{url}/"), "jwks_uri": format!("{url}/keys") }).to_string(),
            json!({ "issuer": url, "jwks_uri": "http://evil.example/keys" }).to_string(),
            json!({ "issuer": url, "jwks_uri": "file:///etc/passwd" }).to_string(),
            json!({ "issuer": url, "jwks_uri": "keys" }).to_string(),
            json!({ "issuer": url }).to_string(),
            " ".repeat(600 * 1024),
            String::new(),
        ];
        for document in documents {
            provider.say(|answers| answers.discovery.clone_from(&document));
            let (moved, clock) = Moved::new();
            let all = provider.producers(&clock);
            let denied = try_with(&all, &one, &provider, &moved).await.unwrap_err();
            assert_eq!(denied.denial, Denial::IssuerUnavailable, "{:.80}", document);
        }
        provider.say(|answers| answers.status = "302 Found\r\nlocation: http://127.0.0.1:1/");
        let (moved, clock) = Moved::new();
        let all = provider.producers(&clock);
        assert_eq!(
            try_with(&all, &one, &provider, &moved).await.unwrap_err().denial,
            Denial::IssuerUnavailable
        );
    }

    #[tokio::test]
    async fn f114_a_token_of_nobody_known_asks_nobody() {
        let provider = Provider::start().await;
        let (moved, clock) = Moved::new();
        let all = provider.producers(&clock);
        let token = Signer::new("one").token("https://evil.example", NOW);
        let denied = shown(&all, &format!("Bearer {token}"), &[]).await.unwrap_err();
        assert_eq!((denied.denial, provider.asked()), (Denial::JwtIssuer, 0));
        drop(moved);
    }
}

proptest! {
    #[test]
    fn no_header_makes_it_panic(bytes: Vec<u8>, text in "[Bb]earer [ -~]{0,60}") {
        let _ = bearer(&[&bytes]);
        let _ = bearer(&[text.as_bytes()]);
        let _ = bearer(&[&bytes, text.as_bytes()]);
    }
}
