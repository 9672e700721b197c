//! Real APIs that nobody here wrote, running on loopback: Kinto, Datasette, json-server and GitHub's recorded answers.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use reqwest::{Client, Method, StatusCode, header};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::python;

/// Longest wait for a server's word that it listens.
const READY_MAX: Duration = Duration::from_secs(60);

/// Records in a page of Kinto when the client asks for no fewer.
pub const KINTO_PAGE_RECORDS: usize = 25;

/// The recorded answers of GitHub.
pub const FIXTURES_SERVER: &str = "@octokit/fixtures-server@8.1.7";

/// Requests that Kinto takes in one batch.
const KINTO_BATCH_REQUESTS: usize = 200;

/// A Kinto with everything in memory: one bucket, one empty collection, basic auth.
///
/// Lists answer `{"data": […]}` with the newest first unless `_sort` says otherwise, an `ETag` that holds the
/// collection's time in quoted milliseconds, and a whole URL in `Next-Page` while there is more. `_since=MS` asks for
/// what changed strictly later, deletions included: `{"id", "last_modified", "deleted": true}` and nothing else.
/// Every change gets a `last_modified` of its own.
pub struct Kinto {
    /// `http://127.0.0.1:PORT/v1`.
    pub base_url: String,
    /// The list of records, below the base URL.
    pub path: String,
    /// Basic auth; Kinto takes any and makes each its own user.
    pub username: String,
    /// Basic auth.
    pub password: String,
    client: Client,
    _process: Process,
    _dir: TempDir,
}

/// A Datasette over an SQLite file with one table of 1,707 earthquakes, `id` its key and `updated` in milliseconds.
///
/// `_shape=objects` answers `{"rows": […], "next": …, "next_url": …}`, both null at the end, and a `Link` header with
/// `rel="next"` until then. `_size` is 100 by default and 1,000 at most. `_sort=updated` and `updated__gte=MS` ask
/// for an incremental window; pages are cut by (`updated`, `id`).
pub struct Datasette {
    /// `http://127.0.0.1:PORT`.
    pub base_url: String,
    /// The table's rows, below the base URL.
    pub path: String,
    file: PathBuf,
    _process: Process,
    _dir: TempDir,
}

/// Datasette's GraphQL plugin over an SQLite file with `orders` and, three times (id % 4) for each, `lines`.
///
/// `POST /graphql/shop` answers Relay connections. More than `queries_max` SQL queries for one document, of which every
/// connection in it takes one, are answered with status 500, the data up to then and `errors`.
pub struct OrdersGraphQl {
    /// `http://127.0.0.1:PORT`.
    pub base_url: String,
    file: PathBuf,
    _process: Process,
    _dir: TempDir,
}

/// A server of `fixtures/node` over npm packages.
pub struct Node {
    /// `http://127.0.0.1:PORT`.
    pub base_url: String,
    _process: Process,
    _dir: TempDir,
}

/// A child process that ends with its owner.
struct Process(Child);

/// Starts a Kinto on a free port. Blocks until it listens.
pub async fn kinto() -> Kinto {
    let dir = TempDir::new().unwrap();
    let ini = dir.path().join("kinto.ini");
    fs::write(&ini, kinto_ini()).unwrap();
    let mut command = Command::new(python::venv().join("bin/kinto"));
    command.args(["start", "--ini"]).arg(&ini);
    let (process, origin) = Process::start(command, "Serving on ");

    let kinto = Kinto {
        base_url: format!("{origin}/v1"),
        path: "/buckets/shop/collections/items/records".to_owned(),
        username: "landfall".to_owned(),
        password: "landfall-kinto-password".to_owned(),
        client: Client::builder().build().unwrap(),
        _process: process,
        _dir: dir,
    };
    kinto.send(Method::PUT, "/buckets/shop", Some(json!({}))).await;
    kinto
        .send(Method::PUT, "/buckets/shop/collections/items", Some(json!({})))
        .await;
    kinto
}

/// Starts a Datasette on a free port. Blocks until it listens.
pub fn datasette() -> Datasette {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("week.db");
    let features = python::earthquakes_json();
    python::run(
        "earthquakes.py",
        &["build", features.to_str().unwrap(), file.to_str().unwrap()],
    );
    let mut command = Command::new(python::venv().join("bin/datasette"));
    command
        .args([
            "serve",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--setting",
            "suggest_facets",
            "off",
        ])
        .arg(&file);
    let (process, origin) = Process::start(command, "Uvicorn running on ");
    Datasette {
        base_url: origin,
        path: "/week/earthquakes.json".to_owned(),
        file,
        _process: process,
        _dir: dir,
    }
}

/// Starts a Datasette with `orders` orders behind GraphQL on a free port. Blocks until it listens.
pub fn orders_graphql(orders: usize, queries_max: usize) -> OrdersGraphQl {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("shop.db");
    python::run(
        "orders.py",
        &["build", file.to_str().unwrap(), &orders.to_string()],
    );
    let metadata = dir.path().join("metadata.json");
    let plugin = json!({"plugins": {"datasette-graphql": {"num_queries_limit": queries_max}}});
    fs::write(&metadata, plugin.to_string()).unwrap();
    let mut command = Command::new(python::venv().join("bin/datasette"));
    command
        .args(["serve", "--host", "127.0.0.1", "--port", "0", "--metadata"])
        .args([&metadata, &file]);
    let (process, base_url) = Process::start(command, "Uvicorn running on ");
    OrdersGraphQl {
        base_url,
        file,
        _process: process,
        _dir: dir,
    }
}

/// Starts npm `@octokit/fixtures-server`: recorded answers of GitHub's API, each given once.
pub fn github() -> Node {
    Node::start("github_api.mjs", FIXTURES_SERVER, None)
}

/// Starts npm `json-server` of `version` over an object of arrays. `GET /log` lists the requests so far.
pub fn json_server(version: &str, data: &Value) -> Node {
    Node::start(
        "json_server_api.mjs",
        &format!("json-server@{version}"),
        Some(data),
    )
}

impl Kinto {
    /// Creates or replaces records; each needs an `id`. Returns nothing: the server adds `last_modified` itself.
    pub async fn put(&self, records: &[Value]) {
        for some in records.chunks(KINTO_BATCH_REQUESTS) {
            let requests: Vec<Value> = some
                .iter()
                .map(|record| {
                    let path = format!("{}/{}", self.path, record["id"].as_str().unwrap());
                    json!({"method": "PUT", "path": path, "body": {"data": record}})
                })
                .collect();
            let answer = self
                .send(Method::POST, "/batch", Some(json!({"requests": requests})))
                .await;
            for response in answer["responses"].as_array().unwrap() {
                assert!(
                    matches!(response["status"].as_u64(), Some(200 | 201)),
                    "put to Kinto: {response}"
                );
            }
        }
    }

    /// Deletes one record, which leaves a tombstone.
    pub async fn delete(&self, id: &str) {
        self.send(Method::DELETE, &format!("{}/{id}", self.path), None)
            .await;
    }

    /// Every record that exists, oldest change first, as the server tells it.
    pub async fn records(&self) -> Vec<Value> {
        let mut records: Vec<Value> = Vec::new();
        let mut next = Some(format!("{}{}?_sort=last_modified", self.base_url, self.path));
        while let Some(url) = next {
            let request = self
                .client
                .get(url)
                .basic_auth(&self.username, Some(&self.password));
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            next = response
                .headers()
                .get("next-page")
                .map(|url| url.to_str().unwrap().to_owned());
            let page: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
            let found = page["data"].as_array().unwrap();
            assert!(
                !found.is_empty() || next.is_none(),
                "an empty page of Kinto that is not the last"
            );
            records.extend(found.iter().cloned());
        }
        records
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let url = format!("{}{path}", self.base_url);
        let mut request = self
            .client
            .request(method, &url)
            .basic_auth(&self.username, Some(&self.password));
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        assert!(status.is_success(), "{url} answered {status}: {text}");
        serde_json::from_str(&text).unwrap()
    }
}

impl Datasette {
    /// Changes the table with one SQL statement, behind the server's back; returns how many rows it touched.
    pub fn execute(&self, sql: &str) -> u64 {
        let printed = python::run("earthquakes.py", &["execute", self.file.to_str().unwrap(), sql]);
        printed.trim().parse().unwrap()
    }

    /// Every row as it is in the file, by `id`.
    pub fn rows(&self) -> Vec<Value> {
        let printed = python::run("earthquakes.py", &["rows", self.file.to_str().unwrap()]);
        printed
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl OrdersGraphQl {
    /// Changes a table with one SQL statement, behind the server's back.
    pub fn execute(&self, sql: &str) {
        python::run("orders.py", &["execute", self.file.to_str().unwrap(), sql]);
    }

    /// Every row of a table as it is now, by `id`.
    pub fn rows(&self, table: &str) -> Vec<Value> {
        python::run("orders.py", &["rows", self.file.to_str().unwrap(), table])
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Node {
    fn start(script: &str, package: &str, data: Option<&Value>) -> Self {
        let dir = TempDir::new().unwrap();
        let mut command = Command::new("node");
        command
            .arg(
                Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join("fixtures/node")
                    .join(script),
            )
            .arg(python::node_modules(package));
        if let Some(data) = data {
            let file = dir.path().join("data.json");
            fs::write(&file, data.to_string()).unwrap();
            command.arg(file);
        }
        let (process, base_url) = Process::start(command, "Listening on ");
        Self {
            base_url,
            _process: process,
            _dir: dir,
        }
    }

    /// The JSON that the server answers to a GET, or to a POST of `body`.
    pub fn ask(&self, path: &str, body: Option<&Value>) -> Value {
        let url = format!("{}{path}", self.base_url);
        let client = Client::builder().build().unwrap();
        let request = match body {
            None => client.get(&url),
            Some(body) => client
                .post(&url)
                .header(header::CONTENT_TYPE, "application/json")
                .body(body.to_string()),
        };
        let answer = async {
            let response = request.send().await?.error_for_status()?;
            response.bytes().await
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        serde_json::from_slice(&runtime.unwrap().block_on(answer).unwrap()).unwrap()
    }
}

impl Process {
    /// Starts `command` and waits until it writes a line with `ready` and its URL; returns that origin.
    fn start(mut command: Command, ready: &'static str) -> (Self, String) {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let process = Self(child);
        let (sender, lines) = mpsc::channel();
        // Reads to the end, so that the server never blocks on a full pipe.
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut said = String::new();
        loop {
            let Ok(line) = lines.recv_timeout(READY_MAX) else {
                panic!("{command:?} did not say that it listens:\n{said}");
            };
            if let Some((_, rest)) = line.split_once(ready) {
                let origin = rest.split_whitespace().next().unwrap().trim_end_matches('/');
                return (process, origin.to_owned());
            }
            said.push_str(&line);
            said.push('\n');
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Port 0 lets the system choose; the server says which it was. (`kinto start --port 0` does not: it takes 0 as unset.)
fn kinto_ini() -> String {
    format!(
        "[app:main]
use = egg:kinto
kinto.userid_hmac_secret = landfall
kinto.storage_backend = kinto.core.storage.memory
kinto.cache_backend = kinto.core.cache.memory
kinto.permission_backend = kinto.core.permission.memory
kinto.bucket_create_principals = system.Authenticated
kinto.paginate_by = {KINTO_PAGE_RECORDS}
kinto.batch_max_requests = {KINTO_BATCH_REQUESTS}
multiauth.policies = basicauth
multiauth.policy.basicauth.use = kinto.core.authentication.BasicAuthAuthenticationPolicy

[server:main]
use = egg:waitress#main
host = 127.0.0.1
port = 0

[loggers]
keys = root

[handlers]
keys = stderr

[formatters]
keys = plain

[logger_root]
level = INFO
handlers = stderr

[handler_stderr]
class = StreamHandler
args = (sys.stderr,)
formatter = plain

[formatter_plain]
format = %(levelname)s %(name)s %(message)s
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn kinto_pages_and_keeps_tombstones() {
        let kinto = kinto().await;
        let wanted: Vec<Value> = (0..60).map(|n| json!({"id": format!("r{n}"), "n": n})).collect();
        kinto.put(&wanted).await;
        let all = kinto.records().await;
        assert_eq!(all.len(), 60);
        let newest = all[59]["last_modified"].as_i64().unwrap();

        kinto.delete("r7").await;
        kinto.put(&[json!({"id": "r8", "n": -8})]).await;
        let url = format!(
            "{}{}?_since={newest}&_sort=last_modified",
            kinto.base_url, kinto.path
        );
        let answer = kinto
            .client
            .get(url)
            .basic_auth(&kinto.username, Some(&kinto.password))
            .send()
            .await
            .unwrap();
        assert!(answer.headers().get("next-page").is_none());
        let page: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        let [tombstone, changed] = page["data"].as_array().unwrap().as_slice() else {
            panic!("two changes: {page}")
        };
        let deleted = tombstone["last_modified"].as_i64().unwrap();
        assert_eq!(
            *tombstone,
            json!({"id": "r7", "last_modified": deleted, "deleted": true})
        );
        assert_eq!((&changed["id"], &changed["n"]), (&json!("r8"), &json!(-8)));
        assert_eq!(kinto.records().await.len(), 59);
    }

    #[tokio::test]
    async fn datasette_serves_the_changed_file() {
        let datasette = datasette();
        assert_eq!(datasette.rows().len(), 1_707);
        let touched = datasette
            .execute("UPDATE earthquakes SET status = 'checked', updated = 1600000000000 WHERE mag > 6");
        let url = format!(
            "{}{}?_shape=objects&_size=1000&_sort=updated&updated__gte=1600000000000",
            datasette.base_url, datasette.path
        );
        let client = Client::builder().build().unwrap();
        let body = client.get(url).send().await.unwrap().bytes().await.unwrap();
        let page: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(page["rows"].as_array().unwrap().len() as u64, touched);
        assert_eq!(page["next_url"], Value::Null);
        assert_eq!(page["rows"][0]["status"], "checked");
    }
}
