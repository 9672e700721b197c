//! Credentials through the real program, against OAuth 2 endpoints that nobody here wrote and a server behind mTLS.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::{
    objects::holds,
    project::{ITEMS, ITEMS_CONTRACT, Ran, TestProject},
    python::node_modules,
};

const OAUTH2_MOCK_SERVER: &str = "oauth2-mock-server@9.3.0";

/// Pages of the API.
const PAGES: i64 = 10;

/// A server of `fixtures/`; ends with its owner.
struct Server {
    url: String,
    process: Child,
}

impl Server {
    fn start(command: &mut Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = lines.next().unwrap().unwrap();
        Self { url, process }
    }

    /// The API whose access tokens are good for so many requests.
    fn oauth2(uses: u32, public_key: &Path) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/node/oauth2_api.mjs");
        let mut command = Command::new("node");
        command.arg(script).arg(node_modules(OAUTH2_MOCK_SERVER));
        Self::start(command.arg(uses.to_string()).arg(public_key))
    }

    /// What was asked so far, `tokens` or `pages`.
    fn log(&self, what: &str) -> Vec<(Value, i64)> {
        let url = format!("{}/log", self.url);
        let get = async move { reqwest::Client::new().get(url).send().await?.bytes().await };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let log: Value = serde_json::from_slice(&runtime.unwrap().block_on(get).unwrap()).unwrap();
        let entries = log[what].as_array().unwrap().iter();
        entries
            .map(|entry| (entry[0].clone(), entry[1].as_i64().unwrap()))
            .collect()
    }

    fn tokens(&self) -> Vec<i64> {
        self.log("tokens").into_iter().map(|(_, status)| status).collect()
    }

    /// A project for the API with `auth`, in which `TOKEN_URL` stands for the token endpoint.
    fn project(&self, auth: &str) -> TestProject {
        let project = TestProject::items(&self.url);
        self.configure(&project, auth);
        project
    }

    fn configure(&self, project: &TestProject, auth: &str) {
        let text = format!(
            "lake: ./lake\nsources:\n  shop:\n    base_url: {url}\n    auth: {auth}\n    retry: {{ attempts_max: 3, backoff_start: 1ms, backoff_max: 5ms }}\n    streams:\n{streams}",
            url = self.url,
            auth = auth.replace("TOKEN_URL", &format!("{}/token", self.url)),
            streams = ITEMS.trim_start_matches('\n')
        );
        project.write("landfall.yml", &text);
        project.write("contracts/shop.items.odcs.yaml", ITEMS_CONTRACT);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn assert_ended(ran: &Ran, code: i32) {
    assert_eq!(ran.code, Some(code), "{}\n{}", ran.stdout, ran.stderr);
}

/// Every record is in the table, once.
fn assert_whole(project: &TestProject) {
    project.ok(&["transform"]);
    let rows = project.sql("SELECT count(*) n, count(DISTINCT id) d, sum(id) s FROM shop.items");
    assert_eq!(rows, [json!({"n": PAGES, "d": PAGES, "s": 45})]);
}

/// No secret is anywhere in the lake or in what was said.
fn assert_unseen(project: &TestProject, ran: &Ran, secrets: &[&str]) {
    for secret in secrets {
        assert!(
            !ran.stderr.contains(secret) && !ran.stdout.contains(secret),
            "{secret}"
        );
        for file in project.files("lake") {
            assert!(!holds(&file, secret), "{secret} in {file:?}");
        }
    }
}

#[test]
fn r052_f064_a_token_that_ends_on_page_seven_is_renewed_once_and_no_page_is_lost() {
    let server = Server::oauth2(6, Path::new("none"));
    let project = server.project(
        "{ type: oauth2_client_credentials, token_url: 'TOKEN_URL', client_id: landfall, client_secret: cl13nt-s3cr3t, scopes: [items] }",
    );
    let ran = project.run(&["-v", "extract"]);
    assert_ended(&ran, 0);
    assert_eq!(server.tokens(), [200, 200]);
    let refused: Vec<Value> = server
        .log("pages")
        .into_iter()
        .filter_map(|(cursor, status)| (status == 401).then_some(cursor))
        .collect();
    assert_eq!(refused, [json!(6)]);
    assert_eq!(server.log("pages").len() as i64, PAGES + 1);
    assert_whole(&project);
    // Every token the server signs begins so.
    assert_unseen(&project, &ran, &["cl13nt-s3cr3t", "eyJ0eXAiOiJKV1Qi"]);
}

#[test]
fn r051_a_signed_assertion_is_checked_by_the_server_and_gets_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let openssl = |arguments: &str| {
        let arguments = arguments.split(' ');
        let output = Command::new("openssl")
            .args(arguments)
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out app.pem");
    openssl("pkey -in app.pem -pubout -out app.pub");
    openssl("genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out other.pem");
    let server = Server::oauth2(100, &dir.path().join("app.pub"));
    let auth = |key: &str| {
        format!(
            "{{ type: oauth2_jwt_bearer, token_url: 'TOKEN_URL', assertion: {{ algorithm: RS256, key: '${{file:{}}}', claims: {{ iss: landfall, sub: landfall }} }} }}",
            dir.path().join(key).display()
        )
    };
    let project = server.project(&auth("other.pem"));
    let ran = project.run(&["extract"]);
    assert_ended(&ran, 1);
    assert!(ran.stderr.contains("invalid_grant"), "{}", ran.stderr);
    assert_eq!(server.tokens(), [400]);
    server.configure(&project, &auth("app.pem"));
    assert_ended(&project.run(&["extract"]), 0);
    assert_eq!(
        server.log("tokens"),
        [(json!("jwt-bearer"), 400), (json!("jwt-bearer"), 200)]
    );
    assert_whole(&project);
}

const REFRESHING: &str =
    "{ type: oauth2_refresh_token, token_url: 'TOKEN_URL', client_id: landfall, refresh_token: first }";

#[test]
fn f066_a_crash_after_the_rotation_loses_no_refresh_token() {
    let server = Server::oauth2(4, Path::new("none"));
    let project = server.project(REFRESHING);
    // Dies between keeping the new refresh token and using the access token that came with it: at the first, and at
    // the second token of a run.
    for armed in [
        "extract::token_rotated=return",
        "extract::token_rotated=1*off->return",
    ] {
        let ran = project.run_armed(&["extract"], armed);
        assert_ne!(ran.code, Some(0), "{}", ran.stderr);
    }
    let ran = project.run(&["extract"]);
    assert_ended(&ran, 0);
    let tokens = server.tokens();
    assert!(
        tokens.len() >= 4 && tokens.iter().all(|status| *status == 200),
        "{tokens:?}"
    );
    assert_whole(&project);
    let kept = project.path().join(".landfall/credentials/shop.json");
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    let kept: Value = serde_json::from_slice(&fs::read(kept).unwrap()).unwrap();
    let kept = kept["refresh_token"].as_str().unwrap();
    assert!(kept.starts_with("rotated-"), "{kept}");
    assert_unseen(&project, &ran, &["rotated-"]);
}

#[test]
fn r056_f065_a_refused_refresh_token_fails_the_run_at_once_and_a_new_one_goes_on() {
    let server = Server::oauth2(100, Path::new("none"));
    let project = server.project(&REFRESHING.replace("first", "stolen-or-revoked"));
    let ran = project.run(&["extract"]);
    assert_ended(&ran, 1);
    for word in ["invalid_grant", "authorize again", "/token"] {
        assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("sent again"), "{}", ran.stderr);
    assert_eq!(server.tokens(), [400]);
    assert!(server.log("pages").is_empty());
    server.configure(&project, REFRESHING);
    assert_ended(&project.run(&["extract"]), 0);
    assert_whole(&project);
}

#[test]
fn r051_a_server_behind_mutual_tls_lets_the_client_certificate_in() {
    let dir = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/python/mutual_tls.py");
    let server = Server::start(Command::new("python3").arg(script).arg(dir.path()));
    let file = |name: &str| dir.path().join(name).display().to_string();
    let auth = |tls: &str| {
        format!(
            "{{ type: oauth2_client_credentials, token_url: 'TOKEN_URL', client_id: landfall }}\n    tls: {tls}"
        )
    };
    let project = server.project(&auth(&format!("{{ ca: '{}' }}", file("ca.pem"))));
    let ran = project.run(&["extract"]);
    assert_ended(&ran, 1);
    assert!(ran.stderr.contains("tls.client_cert"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("sent again"), "{}", ran.stderr);
    let whole = format!(
        "{{ ca: '{}', client_cert: '{}' }}",
        file("ca.pem"),
        file("client.pem")
    );
    let parts = format!(
        "{{ ca: '{}', client_cert: '{}', client_key: '{}' }}",
        file("ca.pem"),
        file("client.crt"),
        file("client.key")
    );
    for tls in [whole, parts] {
        let project = server.project(&auth(&tls));
        assert_ended(&project.run(&["extract"]), 0);
    }
    let missing = format!("{{ ca: '{}' }}", file("nowhere.pem"));
    server.configure(&project, &auth(&missing));
    let ran = project.run(&["extract"]);
    assert_ended(&ran, 2);
    assert!(ran.stderr.contains("nowhere.pem"), "{}", ran.stderr);
}
