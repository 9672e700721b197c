//! Access tokens of an OpenID provider that nobody here wrote: npm `oidc-provider`, on loopback.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use chrono::TimeDelta;
use landfall::{
    clock::Clock,
    config::{StreamName, producers::Scope, read::parse},
    receive::producer::{
        Caller, Credentials, Producers,
        denial::{Denial, Denied, Via},
        issuer::RENEW_MIN,
    },
};
use serde_json::Value;

use crate::support::python::node_modules;

const OIDC_PROVIDER: &str = "oidc-provider@9.13.3";

const AUDIENCE: &str = "https://ingest.shop.example";

/// Answers of the server are small; this is how often a new key is waited for.
const TRIES_MAX: usize = 1_000;

/// The provider; ends with its owner.
struct Provider {
    url: String,
    client: reqwest::Client,
    process: Child,
}

/// The machine's clock and what it was moved on by.
#[derive(Clone)]
struct Moved(Arc<AtomicI64>);

impl Provider {
    fn start() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/node/oidc_provider.mjs");
        let mut command = Command::new("node");
        command.arg(script).arg(node_modules(OIDC_PROVIDER));
        let mut process = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = lines.next().unwrap().unwrap();
        let client = reqwest::Client::builder().build().unwrap();
        Self { url, client, process }
    }

    async fn post(&self, path: &str) {
        let response = self
            .client
            .post(format!("{}{path}", self.url))
            .send()
            .await
            .unwrap();
        assert!(response.status().is_success());
    }

    async fn asked(&self) -> u64 {
        let response = self
            .client
            .get(format!("{}/asked", self.url))
            .send()
            .await
            .unwrap();
        response.text().await.unwrap().parse().unwrap()
    }

    /// A token of `client` for `audience`, signed with `algorithm`, that lives for `seconds`.
    async fn token(&self, client: &str, audience: &str, algorithm: &str, seconds: u32) -> String {
        let form = format!(
            "grant_type=client_credentials&scope=landfall%3Awrite+landfall%3Aread&resource={audience}/{algorithm}/{seconds}"
        );
        let request = self
            .client
            .post(format!("{}/token", self.url))
            .basic_auth(client, Some(format!("{client}-secret")))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        let body = request.send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&body).unwrap();
        answer["access_token"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"))
            .to_owned()
    }

    async fn good(&self) -> String {
        self.token("0oa1till", AUDIENCE, "RS256", 300).await
    }

    fn producers(&self, clock: &Clock) -> Producers {
        let text = format!(
            "
lake: ./lake
sources:
  shop:
    streams:
      orders: {{ push: {{}}, table: {{ keys: [id] }} }}
serve:
  issuers:
    login:
      issuer: {}
      audience: ['{AUDIENCE}']
      producer: $.client_id
      producers: {{ 0oa1till: till }}
      scopes: $.scope
      scope_words: {{ 'landfall:write': ingest, 'landfall:read': read }}
      keys_ttl: 1h
producers:
  till: {{ scopes: [ingest, admin], streams: [shop.orders] }}
",
            self.url
        );
        let project = match parse(&text, Path::new("/srv/shop")) {
            Ok(loaded) => loaded.project,
            Err(problems) => panic!(
                "{}",
                problems
                    .iter()
                    .map(|problem| format!("{problem}\n"))
                    .collect::<String>()
            ),
        };
        Producers::new(&project, clock).unwrap()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Moved {
    fn new() -> (Self, Clock) {
        let moved = Self(Arc::new(AtomicI64::new(0)));
        let (seconds, machine) = (Arc::clone(&moved.0), Clock::system());
        let clock =
            Clock::from_fn(move || machine.now() + TimeDelta::seconds(seconds.load(Ordering::SeqCst)));
        (moved, clock)
    }

    fn on(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

async fn shown(producers: &Producers, token: &str) -> Result<Caller, Denied> {
    let value = format!("Bearer {token}");
    let credentials = Credentials {
        authorization: &[value.as_bytes()],
        certificate: None,
    };
    producers.authenticate(&credentials).await
}

fn denial(outcome: Result<Caller, Denied>) -> Denial {
    outcome.unwrap_err().denial
}

#[tokio::test]
async fn r162_tokens_of_a_real_provider_are_taken_as_they_are_and_not_otherwise() {
    let provider = Provider::start();
    let (moved, clock) = Moved::new();
    let producers = provider.producers(&clock);
    for algorithm in ["RS256", "PS256", "ES256", "EdDSA"] {
        let token = provider.token("0oa1till", AUDIENCE, algorithm, 300).await;
        let caller = shown(&producers, &token).await.unwrap();
        assert_eq!(
            (caller.producer.name.as_str(), caller.via),
            ("till", Via::Jwt),
            "{algorithm}"
        );
        // What the token grants and the producer may: neither alone is enough.
        let orders = StreamName::parse("shop.orders").unwrap();
        assert_eq!(caller.may(Scope::Ingest, Some(&orders)), Ok(()));
        assert_eq!(
            caller.may(Scope::Read, Some(&orders)).unwrap_err().denial,
            Denial::ScopeMissing
        );
        assert_eq!(
            caller.may(Scope::Admin, None).unwrap_err().denial,
            Denial::ScopeMissing
        );
        // One character of the signature, then one of the claims.
        for part in [1, 2] {
            let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
            let first = if parts[part].starts_with('A') { "B" } else { "A" };
            parts[part].replace_range(..1, first);
            let refused = denial(shown(&producers, &parts.join(".")).await);
            assert!(
                matches!(refused, Denial::JwtSignature | Denial::JwtMalformed),
                "{refused:?}"
            );
        }
    }
    assert_eq!(provider.asked().await, 1);

    let stranger = provider.token("0oa2stranger", AUDIENCE, "RS256", 300).await;
    assert_eq!(
        denial(shown(&producers, &stranger).await),
        Denial::ProducerUnknown
    );
    let elsewhere = provider
        .token("0oa1till", "https://other.shop.example", "RS256", 300)
        .await;
    assert_eq!(denial(shown(&producers, &elsewhere).await), Denial::JwtAudience);
    let lasting = provider.token("0oa1till", AUDIENCE, "RS256", 3_700).await;
    assert_eq!(denial(shown(&producers, &lasting).await), Denial::JwtLifetime);
    let token = provider.good().await;
    moved.on(-120);
    assert_eq!(denial(shown(&producers, &token).await), Denial::JwtNotYet);
    moved.on(120 + 365);
    assert_eq!(denial(shown(&producers, &token).await), Denial::JwtExpired);
}

#[tokio::test]
async fn r162_a_real_provider_changes_its_keys_and_goes_away() {
    let provider = Provider::start();
    let (moved, clock) = Moved::new();
    let producers = provider.producers(&clock);
    let old = provider.good().await;
    shown(&producers, &old).await.unwrap();

    provider.post("/rotate").await;
    let new = provider.good().await;
    moved.on(i64::try_from(RENEW_MIN.as_secs()).unwrap());
    shown(&producers, &new).await.unwrap();
    shown(&producers, &old).await.unwrap();

    // While it is away its keys count, and what is signed with others cannot be judged.
    provider.post("/away").await;
    provider.post("/rotate?only").await;
    let newest = provider.good().await;
    moved.on(i64::try_from(RENEW_MIN.as_secs()).unwrap());
    shown(&producers, &new).await.unwrap();
    let denied = shown(&producers, &newest).await.unwrap_err();
    assert_eq!(
        (denied.denial.told().status(), denied.retry_after),
        (503, Some(RENEW_MIN))
    );

    // Back again, only the newest keys are good.
    provider.post("/away?back").await;
    moved.on(i64::try_from(RENEW_MIN.as_secs()).unwrap());
    shown(&producers, &newest).await.unwrap();
    assert_eq!(denial(shown(&producers, &new).await), Denial::JwtKeyUnknown);

    // Away for longer than keys are kept, nobody can be told from a forger.
    provider.post("/away").await;
    let late = provider.token("0oa1till", AUDIENCE, "RS256", 3_600).await;
    moved.on(3_500);
    for _ in 0..TRIES_MAX {
        shown(&producers, &late).await.unwrap();
    }
    moved.on(100 + i64::try_from(RENEW_MIN.as_secs()).unwrap());
    assert_eq!(denial(shown(&producers, &late).await), Denial::IssuerUnavailable);
}
