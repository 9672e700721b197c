//! Credentials against a server that counts what it is asked.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use serde_json::{Value, json};
use tempfile::TempDir;
use url::{Url, form_urlencoded};

use crate::{
    clock::{Clock, Timestamp},
    config::{
        Source,
        auth::{Auth, ClientAuth, Credential, Grant, Jwt, OAuth2, Session, SessionToken, TokenEncoding},
        paginate::Paginate,
        request::{Body, Method, Request, TokenSlot, Tree},
        secret::Secret,
        text::Text,
    },
    error::{ErrorKind, Result},
    extract::{
        auth::{Applied, Authorizer, Renewal, members},
        request::{PageBody, Prepared},
        tests::server::{
            Received, Reply, Server, clock, json as answer, now, path, secret_file, source, status,
        },
    },
};

/// Workers that share a credential.
const WORKERS: usize = 20;

/// A clock that stands still until it is moved.
#[derive(Clone)]
struct Hand(Arc<Mutex<Timestamp>>);

impl Hand {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(now())))
    }

    fn clock(&self) -> Clock {
        let hand = Arc::clone(&self.0);
        Clock::from_fn(move || *hand.lock().unwrap())
    }

    fn forward(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

pub(super) fn oauth(server: &Server, grant: Grant) -> OAuth2 {
    OAuth2 {
        grant,
        token_url: server.url.join("/token").unwrap(),
        client_id: Some(Secret::literal("client")),
        client_secret: Some(Secret::literal("cl13nt-s3cr3t")),
        client_auth: ClientAuth::Body,
        scopes: Vec::new(),
        params: Vec::new(),
        names: Vec::new(),
        headers: Vec::new(),
        encoding: TokenEncoding::Form,
        access_token: path("$.access_token"),
        expires: path("$.expires_in"),
        refresh_token: path("$.refresh_token"),
        lifetime_default: Duration::from_secs(300),
        refresh_early: Duration::from_secs(60),
        send: Credential::bearer(),
    }
}

fn api(server: &Server) -> Source {
    source(&server.url, Paginate::Single)
}

fn authorizer(server: &Server, auth: &Auth, clock: Clock, dir: &Path) -> Authorizer {
    Authorizer::new(&api(server), auth, clock, dir, "shop").unwrap()
}

/// Client credentials without anything to keep.
fn simple(server: &Server, clock: Clock) -> Authorizer {
    let auth = Auth::OAuth2(Box::new(oauth(server, Grant::ClientCredentials)));
    authorizer(server, &auth, clock, Path::new("/nowhere"))
}

fn request() -> Prepared {
    Prepared {
        method: Method::Get,
        url: Url::parse("http://127.0.0.1/v1/orders").unwrap(),
        headers: reqwest::header::HeaderMap::new(),
        body: PageBody::None,
    }
}

/// The `Authorization` header of a request that `authorizer` has to do with.
async fn applied(authorizer: &Authorizer) -> Result<(String, Applied)> {
    let mut prepared = request();
    let applied = authorizer.apply(&mut prepared).await?;
    let header = prepared.headers["authorization"].to_str().unwrap();
    Ok((header.to_owned(), applied))
}

/// Token number `n` (from 0), good for an hour.
fn token(n: usize) -> Reply {
    answer(
        &json!({"access_token": format!("t0ken-{n}"), "token_type": "bearer", "expires_in": 3600})
            .to_string(),
    )
}

/// The fields of a form.
fn form(received: &Received) -> Vec<(String, String)> {
    form_urlencoded::parse(received.body.as_bytes())
        .into_owned()
        .collect()
}

fn field(received: &Received, name: &str) -> Option<String> {
    let found = form(received).into_iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value)
}

#[tokio::test]
async fn r053_twenty_workers_refresh_once() {
    let server = Server::start(|n, _| token(n)).await;
    let authorizer = simple(&server, clock());
    let first = join_all((0..WORKERS).map(|_| applied(&authorizer))).await;
    assert_eq!(server.received().len(), 1);
    let sent: Vec<Applied> = first
        .into_iter()
        .map(|applied| {
            let (header, applied) = applied.unwrap();
            assert_eq!(header, "Bearer t0ken-0");
            applied
        })
        .collect();
    // Every one of them is answered 401.
    let renewals = join_all(sent.iter().map(|sent| authorizer.renew(*sent))).await;
    assert_eq!(server.received().len(), 2);
    let renewals: Vec<Renewal> = renewals.into_iter().map(Result::unwrap).collect();
    let renewed = renewals.iter().filter(|one| **one == Renewal::Renewed).count();
    let newer = renewals.iter().filter(|one| **one == Renewal::Newer).count();
    assert_eq!((renewed, newer), (1, WORKERS - 1));
    assert_eq!(applied(&authorizer).await.unwrap().0, "Bearer t0ken-1");
    // One that was sent long ago comes back late.
    assert_eq!(authorizer.renew(sent[7]).await.unwrap(), Renewal::Newer);
    assert_eq!(server.received().len(), 2);
    assert_eq!(authorizer.secrets(), ["t0ken-0", "t0ken-1"]);
}

#[tokio::test]
async fn f064_a_flight_goes_on_when_nobody_waits_for_it_any_more() {
    let server = Server::start(|n, _| token(n)).await;
    let authorizer = simple(&server, clock());
    for _ in 0..3 {
        // Polled until the request is on its way, then dropped.
        let mut prepared = request();
        let apply = authorizer.apply(&mut prepared);
        tokio::select! {
            biased;
            _ = apply => panic!("answered at once"),
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(applied(&authorizer).await.unwrap().0, "Bearer t0ken-0");
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn f065_a_refused_grant_is_asked_for_once_by_all_workers() {
    let server = Server::start(|n, _| match n {
        0 => status(
            400,
            "",
            br#"{"error": "invalid_client", "error_description": "cl13nt-s3cr3t"}"#,
        ),
        n => token(n),
    })
    .await;
    let (file, secret) = secret_file("0ld-s3cr3t");
    let mut oauth = oauth(&server, Grant::ClientCredentials);
    oauth.client_secret = Some(secret);
    let authorizer = authorizer(
        &server,
        &Auth::OAuth2(Box::new(oauth)),
        clock(),
        Path::new("/nowhere"),
    );
    for _ in 0..3 {
        for refused in join_all((0..WORKERS).map(|_| applied(&authorizer))).await {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused);
            let chain = error.chain();
            for word in [
                "credential: shop",
                "error: invalid_client",
                "status: 400",
                "client_auth",
                "/token",
            ] {
                assert!(chain.contains(word), "{word}: {chain}");
            }
            assert!(!chain.contains("s3cr3t"), "{chain}");
        }
    }
    assert_eq!(server.received().len(), 1);
    // Another secret is another question.
    std::fs::write(file.path(), "n3w-s3cr3t").unwrap();
    assert_eq!(applied(&authorizer).await.unwrap().0, "Bearer t0ken-1");
    let secrets: Vec<_> = server
        .received()
        .iter()
        .map(|received| field(received, "client_secret").unwrap())
        .collect();
    assert_eq!(secrets, ["0ld-s3cr3t", "n3w-s3cr3t"]);
}

#[tokio::test]
async fn f065_an_endpoint_that_fails_is_asked_a_few_times_for_all_workers() {
    let server = Server::start(|n, _| match n {
        0..3 => status(503, "retry-after: 0\r\n", b"sorry"),
        3 => status(500, "", b""),
        n => token(n),
    })
    .await;
    let authorizer = simple(&server, clock());
    for failed in join_all((0..WORKERS).map(|_| applied(&authorizer))).await {
        let error = failed.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(
            error.chain().contains("attempts: 3") && error.chain().contains("hint: "),
            "{error}"
        );
    }
    assert_eq!(server.received().len(), 3);
    assert_eq!(applied(&authorizer).await.unwrap().0, "Bearer t0ken-4");
    assert_eq!(server.received().len(), 5);
}

#[tokio::test]
async fn f065_what_is_no_token_is_no_success() {
    let table = [
        (
            r#"{"error": "bad_refresh_token"}"#,
            ErrorKind::Refused,
            "$.access_token",
        ),
        (r#"{"access_token": ""}"#, ErrorKind::Refused, "$.access_token"),
        (r#"{"access_token": null}"#, ErrorKind::Refused, "$.access_token"),
        ("null", ErrorKind::Refused, "$.access_token"),
        ("<html>Log in</html>", ErrorKind::Unavailable, "not JSON"),
        ("", ErrorKind::Unavailable, "not JSON"),
    ];
    for (body, kind, problem) in table {
        let server = Server::start(move |_, _| answer(body)).await;
        let error = applied(&simple(&server, clock())).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{body}");
        assert!(error.chain().contains(problem), "{body}: {error:?}");
    }
    let server = Server::start(|_, _| status(302, "location: https://elsewhere.example/\r\n", b"")).await;
    let error = applied(&simple(&server, clock())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn f067_odd_expires_in_never_loops() {
    let odd = [
        json!(0),
        json!(-1),
        json!("0"),
        json!(""),
        json!("soon"),
        json!(null),
        json!(0.001),
        json!([]),
        json!("1999-01-01T00:00:00Z"),
    ];
    for expires in odd {
        let said = expires.clone();
        let server = Server::start(move |n, _| {
            answer(&json!({"access_token": format!("t0ken-{n}"), "expires_in": said}).to_string())
        })
        .await;
        let hand = Hand::new();
        let authorizer = simple(&server, hand.clock());
        for _ in 0..50 {
            applied(&authorizer).await.unwrap();
        }
        // Default: 5 min, less a minute.
        hand.forward(Duration::from_secs(239));
        assert_eq!(
            applied(&authorizer).await.unwrap().0,
            "Bearer t0ken-0",
            "{expires}"
        );
        hand.forward(Duration::from_secs(1));
        assert_eq!(
            applied(&authorizer).await.unwrap().0,
            "Bearer t0ken-1",
            "{expires}"
        );
        assert_eq!(server.received().len(), 2, "{expires}");
    }
}

#[tokio::test]
async fn r052_a_token_is_renewed_early_and_used_on_if_that_fails() {
    let server = Server::start(|n, _| match n {
        1..=6 => status(503, "", b""),
        n => token(n),
    })
    .await;
    let hand = Hand::new();
    let authorizer = simple(&server, hand.clock());
    applied(&authorizer).await.unwrap();
    hand.forward(Duration::from_secs(3539));
    applied(&authorizer).await.unwrap();
    assert_eq!(server.received().len(), 1);
    hand.forward(Duration::from_secs(1));
    for used_on in join_all((0..WORKERS).map(|_| applied(&authorizer))).await {
        assert_eq!(used_on.unwrap().0, "Bearer t0ken-0");
    }
    assert_eq!(server.received().len(), 1 + 3);
    hand.forward(Duration::from_secs(10));
    assert_eq!(applied(&authorizer).await.unwrap().0, "Bearer t0ken-0");
    assert_eq!(server.received().len(), 1 + 6);
    hand.forward(Duration::from_secs(10));
    assert_eq!(applied(&authorizer).await.unwrap().0, "Bearer t0ken-7");
}

#[tokio::test]
async fn r056_a_token_refused_or_expired_is_not_used_on() {
    let server = Server::start(|n, _| match n {
        0 | 1 => token(n),
        _ => status(503, "", b""),
    })
    .await;
    let hand = Hand::new();
    let authorizer = simple(&server, clock());
    let (_, sent) = applied(&authorizer).await.unwrap();
    let expired = simple(&server, hand.clock());
    applied(&expired).await.unwrap();
    hand.forward(Duration::from_secs(3600));
    assert_eq!(
        applied(&expired).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    // Refused though it should hold: it is not used again either.
    assert_eq!(
        authorizer.renew(sent).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(
        applied(&authorizer).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
}

#[tokio::test]
async fn f064_a_server_that_refuses_every_fresh_token_is_believed() {
    let server = Server::start(|n, _| token(n)).await;
    let hand = Hand::new();
    let authorizer = simple(&server, hand.clock());
    let mut renewed = 0;
    for _ in 0..100 {
        let (_, sent) = applied(&authorizer).await.unwrap();
        renewed += usize::from(authorizer.renew(sent).await.unwrap().send_again());
    }
    assert_eq!(renewed, 10);
    assert_eq!(server.received().len(), 11);
    // A token that served for a while is another matter.
    hand.forward(Duration::from_secs(61));
    let (_, sent) = applied(&authorizer).await.unwrap();
    assert_eq!(authorizer.renew(sent).await.unwrap(), Renewal::Renewed);
}

#[tokio::test]
async fn r055_a_given_credential_is_newer_once_its_file_changed() {
    let (file, token) = secret_file("one");
    let scheme = "Bearer".to_owned();
    let server = Server::start(|n, _| token_unused(n)).await;
    let auth = Auth::Bearer { scheme, token };
    let authorizer = authorizer(&server, &auth, clock(), Path::new("/nowhere"));
    let (header, sent) = applied(&authorizer).await.unwrap();
    assert_eq!(header, "Bearer one");
    assert_eq!(authorizer.renew(sent).await.unwrap(), Renewal::Impossible);
    std::fs::write(file.path(), "two").unwrap();
    assert_eq!(authorizer.renew(sent).await.unwrap(), Renewal::Newer);
    assert_eq!(applied(&authorizer).await.unwrap().0, "Bearer two");
    assert!(server.received().is_empty());
}

fn token_unused(_: usize) -> Reply {
    status(500, "", b"")
}

/// A server that takes each refresh token once, as RFC 6749 section 10.4 suggests: `r-0`, then `r-1`, …
fn rotating() -> impl Fn(usize, &Received) -> Reply + Send + Sync + 'static {
    let next = AtomicUsize::new(0);
    move |_, received| {
        let number = next.load(Ordering::SeqCst);
        let sent = field(received, "refresh_token").unwrap();
        if sent == "fr3sh-0" {
            return answer(r#"{"access_token": "fr3sh-access", "refresh_token": "fr3sh-1"}"#);
        }
        if sent != format!("r0tated-{number}") {
            return status(400, "", br#"{"error": "invalid_grant"}"#);
        }
        next.store(number + 1, Ordering::SeqCst);
        let (access, refresh) = (format!("t0ken-{number}"), format!("r0tated-{}", number + 1));
        answer(&json!({"access_token": access, "refresh_token": refresh, "expires_in": 3600}).to_string())
    }
}

fn refreshing(server: &Server, configured: &str, dir: &Path) -> Authorizer {
    let grant = Grant::RefreshToken(Secret::literal(configured));
    authorizer(
        server,
        &Auth::OAuth2(Box::new(oauth(server, grant))),
        clock(),
        dir,
    )
}

#[tokio::test]
async fn f066_a_rotated_refresh_token_outlives_the_process() {
    let server = Server::start(rotating()).await;
    let dir = TempDir::new().unwrap();
    let credentials = dir.path().join(".landfall/credentials");
    let one = refreshing(&server, "r0tated-0", &credentials);
    let (_, sent) = applied(&one).await.unwrap();
    assert!(
        one.secrets().contains(&"r0tated-0".to_owned()) && one.secrets().contains(&"r0tated-1".to_owned())
    );
    // Another process with the same settings goes on where the first has got to, and the first after it.
    let other = refreshing(&server, "r0tated-0", &credentials);
    assert_eq!(applied(&other).await.unwrap().0, "Bearer t0ken-1");
    assert_eq!(one.renew(sent).await.unwrap(), Renewal::Renewed);
    assert_eq!(applied(&one).await.unwrap().0, "Bearer t0ken-2");
    let kept = std::fs::read_to_string(credentials.join("shop.json")).unwrap();
    assert!(kept.contains("r0tated-3") && !kept.contains("t0ken"), "{kept}");
    // A token newly configured wins over the one that is kept.
    let configured = refreshing(&server, "fr3sh-0", &credentials);
    assert_eq!(applied(&configured).await.unwrap().0, "Bearer fr3sh-access");
    assert!(
        std::fs::read_to_string(credentials.join("shop.json"))
            .unwrap()
            .contains("fr3sh-1")
    );
}

#[tokio::test]
async fn f066_two_processes_take_turns_with_one_refresh_token() {
    let server = Server::start(rotating()).await;
    let dir = TempDir::new().unwrap();
    let processes: Vec<Authorizer> = (0..3)
        .map(|_| refreshing(&server, "r0tated-0", dir.path()))
        .collect();
    let headers = join_all(processes.iter().map(applied)).await;
    let mut headers: Vec<String> = headers.into_iter().map(|header| header.unwrap().0).collect();
    headers.sort();
    assert_eq!(headers, ["Bearer t0ken-0", "Bearer t0ken-1", "Bearer t0ken-2"]);
}

#[tokio::test]
async fn f066_no_refresh_token_is_spent_without_a_place_for_the_next() {
    let server = Server::start(rotating()).await;
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("not-a-folder");
    std::fs::write(&file, "").unwrap();
    let error = applied(&refreshing(&server, "r0tated-0", &file))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.chain().contains("`credentials`"), "{error:?}");
    assert!(server.received().is_empty());
    // A place that is gone when the answer is here: loud, with steps.
    std::fs::create_dir(dir.path().join("shop.json.new")).unwrap();
    let error = applied(&refreshing(&server, "r0tated-0", dir.path()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.chain().contains("authorize again"), "{error:?}");
    assert!(!error.chain().contains("r0tated"), "{error:?}");
}

#[tokio::test]
async fn r051_each_grant_sends_its_fields() {
    let server = Server::start(|n, _| token(n)).await;
    let jwt = Jwt {
        algorithm: "HS256".to_owned(),
        key: Secret::literal("k3y"),
        key_base64: false,
        headers: Vec::new(),
        claims: vec![("iss".to_owned(), Text::literal("landfall"))],
        lifetime: Duration::from_secs(600),
    };
    let password = Grant::Password {
        username: Secret::literal("me"),
        password: Secret::literal("p&w"),
    };
    for grant in [
        Grant::ClientCredentials,
        password,
        Grant::JwtBearer(Box::new(jwt)),
    ] {
        let mut oauth = oauth(&server, grant);
        oauth.scopes = vec!["read".to_owned(), "list".to_owned()];
        oauth.params = vec![("audience".to_owned(), Secret::literal("https://api.example"))];
        let auth = Auth::OAuth2(Box::new(oauth));
        applied(&authorizer(&server, &auth, clock(), Path::new("/nowhere")))
            .await
            .unwrap();
    }
    let received = server.received();
    let bodies: Vec<&str> = received.iter().map(|received| received.body.as_str()).collect();
    let common =
        "scope=read+list&client_id=client&client_secret=cl13nt-s3cr3t&audience=https%3A%2F%2Fapi.example";
    assert_eq!(bodies[0], format!("grant_type=client_credentials&{common}"));
    assert_eq!(
        bodies[1],
        format!("grant_type=password&username=me&password=p%26w&{common}")
    );
    assert_eq!(
        field(&received[2], "grant_type").unwrap(),
        "urn:ietf:params:oauth:grant-type:jwt-bearer"
    );
    assert_eq!(field(&received[2], "assertion").unwrap().split('.').count(), 3);
    for received in &received {
        assert_eq!(
            received.header("content-type"),
            Some("application/x-www-form-urlencoded")
        );
        assert_eq!(received.header("accept"), Some("application/json"));
        assert!(received.head.starts_with("POST /token "));
    }
}

#[tokio::test]
async fn r051_an_endpoint_of_its_own_mind_is_spoken_to() {
    let said = json!({"data": {"key": "t0ken", "until": "2024-05-01T13:00:00Z"}});
    let server = Server::start(move |_, _| answer(&said.to_string())).await;
    let mut oauth = oauth(&server, Grant::ClientCredentials);
    oauth.client_id = Some(Secret::literal("me:1"));
    oauth.client_auth = ClientAuth::Basic;
    oauth.encoding = TokenEncoding::Json;
    oauth.names = vec![("grant_type".to_owned(), "grantType".to_owned())];
    oauth.params = vec![("grantType".to_owned(), Secret::literal("machine"))];
    oauth.headers = vec![("x-tenant".to_owned(), Secret::literal("7"))];
    oauth.access_token = path("$.data.key");
    oauth.expires = path("$.data.until");
    oauth.send = Credential {
        to: TokenSlot::Query("session".to_owned()),
        scheme: String::new(),
    };
    let hand = Hand::new();
    let auth = Auth::OAuth2(Box::new(oauth));
    let authorizer = authorizer(&server, &auth, hand.clock(), Path::new("/nowhere"));
    let mut prepared = request();
    authorizer.apply(&mut prepared).await.unwrap();
    assert_eq!(prepared.url.query(), Some("session=t0ken"));
    hand.forward(Duration::from_secs(3539));
    authorizer.apply(&mut prepared).await.unwrap();
    let [received] = server.received().try_into().unwrap();
    let Received { body, .. } = &received;
    assert_eq!(
        serde_json::from_str::<Value>(body).unwrap(),
        json!({"grantType": "machine"})
    );
    // RFC 6749 section 2.3.1: base64 of `me%3A1:cl13nt-s3cr3t`.
    assert_eq!(
        received.header("authorization"),
        Some("Basic bWUlM0ExOmNsMTNudC1zM2NyM3Q=")
    );
    assert_eq!(received.header("x-tenant"), Some("7"));
}

#[tokio::test]
async fn r051_a_token_request_may_be_all_in_its_url() {
    let server = Server::start(move |_, _| answer(&json!({"access_token": "t0ken"}).to_string())).await;
    let mut oauth = oauth(&server, Grant::ClientCredentials);
    oauth.encoding = TokenEncoding::Query;
    oauth.client_id = Some(Secret::literal("a&b"));
    oauth.token_url.set_query(Some("tenant=7"));
    let auth = Auth::OAuth2(Box::new(oauth));
    let authorizer = authorizer(&server, &auth, Hand::new().clock(), Path::new("/nowhere"));
    authorizer.apply(&mut request()).await.unwrap();
    let [received] = server.received().try_into().unwrap();
    assert!(
        received
            .target
            .ends_with("?tenant=7&grant_type=client_credentials&client_id=a%26b&client_secret=cl13nt-s3cr3t"),
        "{}",
        received.target
    );
    assert_eq!(
        (received.body.as_str(), received.header("content-type")),
        ("", None)
    );
}

#[tokio::test]
async fn r051_a_signed_token_is_used_again_until_its_key_changes() {
    let (file, key) = secret_file("one");
    let jwt = Jwt {
        algorithm: "HS256".to_owned(),
        key,
        key_base64: false,
        headers: Vec::new(),
        claims: vec![("jti".to_owned(), Text::parse("{{ jwt.id }}").unwrap())],
        lifetime: Duration::from_secs(1200),
    };
    let send = Credential {
        scheme: "Token".to_owned(),
        ..Credential::bearer()
    };
    let auth = Auth::Jwt {
        jwt: Box::new(jwt),
        send,
    };
    let server = Server::start(|n, _| token_unused(n)).await;
    let hand = Hand::new();
    let authorizer = authorizer(&server, &auth, hand.clock(), Path::new("/nowhere"));
    let (first, sent) = applied(&authorizer).await.unwrap();
    assert!(first.starts_with("Token ey"), "{first}");
    assert_eq!(applied(&authorizer).await.unwrap().0, first);
    std::fs::write(file.path(), "two").unwrap();
    let (second, _) = applied(&authorizer).await.unwrap();
    assert_ne!(second, first);
    assert_eq!(authorizer.renew(sent).await.unwrap(), Renewal::Newer);
    hand.forward(Duration::from_secs(1200));
    assert_ne!(applied(&authorizer).await.unwrap().0, second);
}

fn session(token: SessionToken, send: Credential) -> Session {
    Session {
        login: Request {
            method: Method::Post,
            path: Text::literal("/login"),
            params: Vec::new(),
            headers: Vec::new(),
            body: Body::Json(Tree::Object(vec![(
                "user".to_owned(),
                Tree::Text(Text::parse("{{ config.user }}").unwrap()),
            )])),
        },
        login_auth: Auth::Basic {
            username: Secret::literal("u"),
            password: Secret::literal("p"),
        },
        token,
        lifetime: None,
        send,
    }
}

#[tokio::test]
async fn r051_a_session_is_opened_once_and_again_when_it_is_refused() {
    let server = Server::start(|n, _| {
        let headers = format!("x-session: header-{n}\r\nset-cookie: sid=cookie-{n}; Path=/\r\n");
        status(
            201,
            &headers,
            format!(r#"{{"session": {{"id": {n}}}}}"#).as_bytes(),
        )
    })
    .await;
    let cookie = Credential {
        to: TokenSlot::Header("cookie".to_owned()),
        scheme: String::new(),
    };
    let table = [
        (
            SessionToken::Body(path("$.session.id")),
            Credential::bearer(),
            "authorization",
            "Bearer 0",
            "Bearer 1",
        ),
        (
            SessionToken::Header("x-session".to_owned()),
            Credential::bearer(),
            "authorization",
            "Bearer header-2",
            "Bearer header-3",
        ),
        (
            SessionToken::Cookie("sid".to_owned()),
            cookie,
            "cookie",
            "sid=cookie-4",
            "sid=cookie-5",
        ),
    ];
    for (token, send, name, first, second) in table {
        let mut source = api(&server);
        source.config = vec![("user".to_owned(), json!("me"))];
        let auth = Auth::Session(Box::new(session(token, send)));
        let authorizer = Authorizer::new(&source, &auth, clock(), Path::new("/nowhere"), "shop").unwrap();
        let mut prepared = request();
        authorizer.apply(&mut prepared).await.unwrap();
        let applied = authorizer.apply(&mut prepared).await.unwrap();
        let mut prepared = request();
        authorizer.apply(&mut prepared).await.unwrap();
        assert_eq!(prepared.headers[name], first);
        assert_eq!(authorizer.renew(applied).await.unwrap(), Renewal::Renewed);
        let mut prepared = request();
        authorizer.apply(&mut prepared).await.unwrap();
        assert_eq!(prepared.headers[name], second);
    }
    let received = server.received();
    assert_eq!(received.len(), 6);
    for received in received {
        assert!(received.head.starts_with("POST /v1/login "), "{}", received.head);
        assert_eq!(received.body, r#"{"user":"me"}"#);
        assert_eq!(received.header("authorization"), Some("Basic dTpw"));
        assert_eq!(received.header("accept-encoding"), Some("identity"));
    }
}

#[tokio::test]
async fn r056_a_login_that_is_refused_or_holds_no_token_fails_for_all() {
    for reply in [401, 200] {
        let server = Server::start(move |_, _| status(reply, "", b"{}")).await;
        let mut source = api(&server);
        source.config = vec![("user".to_owned(), json!("me"))];
        let auth = Auth::Session(Box::new(session(
            SessionToken::Body(path("$.t")),
            Credential::bearer(),
        )));
        let authorizer = Authorizer::new(&source, &auth, clock(), Path::new("/nowhere"), "shop").unwrap();
        for _ in 0..3 {
            assert_eq!(
                applied(&authorizer).await.unwrap_err().kind(),
                ErrorKind::Refused,
                "{reply}"
            );
        }
        assert_eq!(server.received().len(), 1);
    }
}

#[test]
fn r051_a_choice_is_made_by_config_and_a_pool_is_flat() {
    let bearer = |token: &str| Auth::Bearer {
        scheme: "Bearer".to_owned(),
        token: Secret::literal(token),
    };
    let mut source = source(&Url::parse("https://a.example").unwrap(), Paginate::Single);
    source.auth = Auth::Pool(vec![
        bearer("one"),
        Auth::Select {
            by: Text::parse("{{ config.kind }}").unwrap(),
            among: vec![
                ("key".to_owned(), bearer("two")),
                (
                    "pool".to_owned(),
                    Auth::Pool(vec![bearer("three"), bearer("four")]),
                ),
            ],
        },
    ]);
    for (kind, expected) in [
        ("key", vec!["one", "two"]),
        ("pool", vec!["one", "three", "four"]),
    ] {
        source.config = vec![("kind".to_owned(), json!(kind))];
        let tokens: Vec<String> = members(&source)
            .unwrap()
            .iter()
            .map(|auth| match auth {
                Auth::Bearer { token, .. } => token.reveal().unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(tokens, expected);
    }
    source.config = vec![("kind".to_owned(), json!("none"))];
    let error = members(&source).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("known: key, pool"), "{error}");
    source.auth = Auth::Pool(Vec::new());
    assert_eq!(members(&source).unwrap_err().kind(), ErrorKind::Config);
}
